//! Sweeps that end registrations which nobody has used for long, and the count
//! of those before anyone turns that on.
//!
//! A sweep looks at one moment and names it in every command, so that a clock
//! that leaps meanwhile changes nothing. While a step of the clock waits to be
//! confirmed there is none.

use std::convert::Infallible;
use std::sync::Arc;

use actix_web::web;
use engine::Keytrail;
use engine::command::{Command, DeactivateInactive, Refusal, Want};
use engine::entries::{Entry, Key, KeyKind, Look};
use engine::events::{Payload, RegistrationDeactivatedV1};
use engine::ids::{Id, Micros};
use engine::inactivity::{ENDED_AT_ONCE, is_inactive, last_day};
use engine::machine::{Machine, Record};
use storage::sequencer::{Envelope, ExecuteError, Stopped};
use storage::state::StateReader;

use crate::app::App;
use crate::devices::for_each;

/// Most registrations of an application that are counted.
pub const COUNTED_MAX: u64 = 1_000_000;
/// Most commands of a sweep for one application: it goes on with the next sweep.
const COMMANDS_MAX: usize = 256;
/// Entries that are looked at together.
const PAGE: usize = 1_024;

/// Why a sweep came to no end. The next one is as good.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// The writer is gone.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// A command was not carried out.
    #[error("registrations that nobody uses could not be ended")]
    Execute(#[from] ExecuteError<Refusal>),
    /// The thread that counts is gone.
    #[error("the thread that counts registrations failed")]
    Gone,
}

/// Ends, in every application that says so, registrations that nobody has used
/// for long, as far as the limit of a day allows; returns how many.
///
/// # Errors
///
/// [`SweepError`].
pub async fn sweep(app: &App) -> Result<u64, SweepError> {
    let as_of = app.clock.wall();
    let concerned = concerned(&app.state);
    // Most servers end nothing: their writer is left alone.
    if concerned.is_empty() {
        return Ok(0);
    }
    // The writer looks at the clock after it was read here: a leap that `as_of`
    // rests on is known before anything is made of it.
    app.handle.sweep().await?;
    if app.handle.clock_suspended() {
        return Ok(0);
    }
    let mut ended = 0;
    for (application, days) in concerned {
        ended += sweep_one(app, application, days, as_of).await?;
    }
    Ok(ended)
}

/// Applications whose registrations end for want of use, with their days.
fn concerned(state: &StateReader<Keytrail>) -> Vec<(Id, u32)> {
    let (first, end) = Key::range(KeyKind::Application);
    let mut found = Vec::new();
    let done = for_each(state, &first, &end, |key, entry| {
        if let (Key::Application(id), Entry::Application(known)) = (key, entry) {
            found.extend(known.config.inactive_after_days.map(|days| (*id, days)));
        }
        Ok::<_, Infallible>(())
    });
    match done {
        Ok(()) => found,
    }
}

async fn sweep_one(
    app: &App,
    application: Id,
    days: u32,
    as_of: Micros,
) -> Result<u64, SweepError> {
    let Count { mut due, .. } = count(app, application, days, as_of).await?;
    let mut ended = 0;
    for _ in 0..COMMANDS_MAX {
        let registrations = some_inactive(&app.state, application, days, as_of);
        let named = registrations.len() as u64;
        let want = DeactivateInactive { application, as_of, due, registrations };
        let now = if named == 0 { 0 } else { execute(app, want).await? };
        ended += now;
        due = due.saturating_sub(now);
        // None is left, or no more may end today.
        if now == 0 || now < named {
            break;
        }
    }
    if ended > 0 {
        tracing::info!(%application, ended, "registrations ended for want of use");
    }
    if due > 0 {
        tracing::warn!(%application, due, "registrations that nobody uses wait to be ended");
    }
    Ok(ended)
}

/// Carries a command out; returns how many registrations it ended.
async fn execute(app: &App, want: DeactivateInactive) -> Result<u64, SweepError> {
    let (event_id, causation) = (app.fresh_event_id(), app.fresh_id());
    let command = Command { event_id, want: Want::DeactivateInactive(want) };
    let envelope = Envelope { command, causation, correlation: event_id };
    let records = app.handle.execute(envelope).await?.records;
    app.waits.wake(&records);
    let ends = |record: &&Arc<Record>| {
        (record.draft.event_type, record.draft.schema) == RegistrationDeactivatedV1::KIND
    };
    Ok(records.iter().filter(ends).count() as u64)
}

/// Some registrations of an application that nobody has used for `days`.
fn some_inactive(
    state: &StateReader<Keytrail>,
    application: Id,
    days: u32,
    as_of: Micros,
) -> Vec<Id> {
    let mut found = Vec::with_capacity(ENDED_AT_ONCE);
    each_inactive(state, application, days, as_of, |id| {
        found.push(id);
        found.len() < ENDED_AT_ONCE
    });
    found
}

/// How many registrations nobody has used for long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    /// How many, at most [`COUNTED_MAX`].
    pub due: u64,
    /// Whether there are more.
    pub more: bool,
}

/// Counts the registrations of an application that nobody has used for `days`.
///
/// # Errors
///
/// [`SweepError::Gone`].
pub async fn count(
    app: &App,
    application: Id,
    days: u32,
    as_of: Micros,
) -> Result<Count, SweepError> {
    let state = app.state.clone();
    let counted = web::block(move || {
        let mut count = Count { due: 0, more: false };
        each_inactive(&state, application, days, as_of, |_| {
            count.more = count.due == COUNTED_MAX;
            count.due += u64::from(!count.more);
            !count.more
        });
        count
    });
    counted.await.map_err(|_| SweepError::Gone)
}

/// Calls `each` for registrations that nobody has used for `days`, longest unused
/// first, until it says no.
fn each_inactive(
    state: &StateReader<Keytrail>,
    application: Id,
    days: u32,
    as_of: Micros,
    mut each: impl FnMut(Id) -> bool,
) {
    let Some(last) = last_day(days, as_of) else { return };
    let (mut from, end) = Key::last_used_by(application, last);
    let look = Look(state);
    loop {
        let page = state.scan(&from, &end, PAGE);
        for (key, _) in &page {
            let Key::LastUsed(_, day, id) = key else { continue };
            // Of the last day, only some are: those that were used early enough in it.
            let inactive = *day < last
                || look.registration(*id).is_some_and(|known| is_inactive(&known, days, as_of));
            if inactive && !each(*id) {
                return;
            }
        }
        match page.last() {
            // The first key behind another one is that one with a zero byte.
            Some((key, _)) if page.len() == PAGE => {
                from = [&Keytrail::key_bytes(key)[..], &[0]].concat();
            }
            Some(_) | None => return,
        }
    }
}
