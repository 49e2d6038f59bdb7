//! What the server does about devices beside the rules: it finds them by their
//! hashes, locks what a block has left over, and forgets those that are over.
//!
//! A block is one command, and so are its first locks. Whatever stops the rest,
//! the next start finds the block and goes on; so it does with a device that is
//! over and whose hash the key store still knows.

use std::sync::Arc;

use actix_web::web;
use engine::Keytrail;
use engine::command::{Refusal, Want};
use engine::devices::{LOCKED_AT_ONCE, is_to_be_locked};
use engine::entries::{Entry, Key, KeyKind, Look};
use engine::ids::Id;
use engine::machine::Machine;
use storage::keys::{KeyError, SubjectKey};
use storage::sequencer::ExecuteError;
use storage::state::StateReader;

use crate::app::App;

/// Entries that are looked at together.
const PAGE: usize = 1_024;

/// Why something about a device could not be done. It is done later.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The key store failed.
    #[error("the device of a device hash could not be found or forgotten")]
    Keys(#[from] KeyError),
    /// Registrations on a blocked device could not be locked.
    #[error("registrations on a blocked device could not be locked")]
    Lock(#[from] ExecuteError<Refusal>),
    /// The thread that does it is gone.
    #[error("the thread that looks after devices failed")]
    Gone,
}

/// The device that an application's apps name so, new or known. One that is over
/// is forgotten first: the same phone is another device then.
///
/// # Errors
///
/// [`DeviceError`].
pub async fn of_hash(
    app: &App,
    application: Id,
    device_hash: [u8; 32],
) -> Result<SubjectKey, DeviceError> {
    loop {
        let keys = Arc::clone(&app.keys);
        let found = web::block(move || keys.device_for(application, &device_hash)).await;
        let device = found.map_err(|_| DeviceError::Gone)??;
        if !forget(app, device.id).await? {
            return Ok(device);
        }
    }
}

/// Makes the key store forget a device if it is over; says whether it is.
///
/// # Errors
///
/// [`DeviceError`].
pub async fn forget(app: &App, device: Id) -> Result<bool, DeviceError> {
    let over = app.look().device(device).is_some_and(|known| known.is_over());
    if over {
        let keys = Arc::clone(&app.keys);
        web::block(move || keys.erase(device)).await.map_err(|_| DeviceError::Gone)??;
    }
    Ok(over)
}

/// Makes the key store forget every device that is over; returns how many it
/// still knew.
///
/// # Errors
///
/// [`DeviceError`].
pub async fn forget_all(app: &App) -> Result<u64, DeviceError> {
    let (keys, state) = (Arc::clone(&app.keys), app.state.clone());
    let forgotten = web::block(move || {
        let (first, end) = Key::range(KeyKind::Device);
        let mut forgotten = 0;
        for_each(&state, &first, &end, |key, entry| {
            let (Key::Device(id), Entry::Device(device)) = (key, entry) else { return Ok(()) };
            if device.is_over() && keys.erase(*id)? {
                forgotten += 1;
            }
            Ok::<_, KeyError>(())
        })?;
        Ok::<u64, KeyError>(forgotten)
    });
    Ok(forgotten.await.map_err(|_| DeviceError::Gone)??)
}

/// Some registrations on a device that a block of it must lock, at most
/// [`LOCKED_AT_ONCE`].
#[must_use]
pub fn to_be_locked(state: &StateReader<Keytrail>, device: Id) -> Vec<Id> {
    let (first, end) = Key::on_device(device);
    let mut from = first;
    let mut found = Vec::new();
    loop {
        let page = state.scan(&from, &end, PAGE);
        let ids = page.iter().filter_map(|(key, _)| match key {
            Key::OnDevice(_, id) => Some(*id),
            _ => None,
        });
        let look = Look(state);
        found.extend(
            ids.filter(|&id| look.registration(id).is_some_and(|known| is_to_be_locked(&known))),
        );
        found.truncate(LOCKED_AT_ONCE);
        match page.last() {
            Some((last, _)) if page.len() == PAGE && found.len() < LOCKED_AT_ONCE => {
                from = behind(last);
            }
            Some(_) | None => return found,
        }
    }
}

/// Locks what the block of a device has left over; returns how many those were.
///
/// # Errors
///
/// [`DeviceError`].
pub async fn lock_rest(app: &App, device: Id) -> Result<u64, DeviceError> {
    let mut locked = 0;
    loop {
        let blocked = app.look().device(device).is_some_and(|known| known.blocked.is_some());
        let left = if blocked { to_be_locked(&app.state, device) } else { Vec::new() };
        if left.is_empty() {
            return Ok(locked);
        }
        locked += left.len() as u64;
        app.execute_own(Want::LockBlocked(left)).await?;
    }
}

/// Locks what blocks of devices have left over; returns how many those were.
///
/// # Errors
///
/// [`DeviceError`].
pub async fn lock_all(app: &App) -> Result<u64, DeviceError> {
    let (first, end) = Key::range(KeyKind::Blocked);
    let mut from = first.to_vec();
    let mut locked = 0;
    loop {
        let page = app.state.scan(&from, &end, PAGE);
        for (key, _) in &page {
            if let Key::Blocked(_, device) = key {
                locked += lock_rest(app, *device).await?;
            }
        }
        match page.last() {
            Some((last, _)) if page.len() == PAGE => from = behind(last),
            Some(_) | None => return Ok(locked),
        }
    }
}

/// Calls `each` for the entries between two keys, a page at a time.
pub(crate) fn for_each<E>(
    state: &StateReader<Keytrail>,
    first: &[u8],
    end: &[u8],
    mut each: impl FnMut(&Key, &Entry) -> Result<(), E>,
) -> Result<(), E> {
    let mut from = first.to_vec();
    loop {
        let page = state.scan(&from, end, PAGE);
        for (key, entry) in &page {
            each(key, entry)?;
        }
        match page.last() {
            Some((last, _)) if page.len() == PAGE => from = behind(last),
            Some(_) | None => return Ok(()),
        }
    }
}

/// The first key behind another one: that one with a zero byte.
fn behind(key: &Key) -> Vec<u8> {
    [&Keytrail::key_bytes(key)[..], &[0]].concat()
}
