//! Carrying out what erasures order: the key is destroyed, and that is recorded.
//!
//! An order is durable before a key is touched, so whatever happens in between,
//! the next start finds the order and finishes. It looks at every erasure that
//! was ever ordered: a key that an older copy of the key store brought back is
//! destroyed once more before the server takes a request.

use std::sync::Arc;

use actix_web::web;
use engine::Keytrail;
use engine::command::{Refusal, Want};
use engine::entries::{Entry, Key, KeyKind};
use engine::ids::Id;
use engine::machine::Machine;
use storage::keys::KeyError;
use storage::sequencer::ExecuteError;

use crate::app::App;

/// Erasures that are looked at together.
const PAGE: usize = 1_024;

/// Why an erasure was not carried out. It stands, and is carried out later.
#[derive(Debug, thiserror::Error)]
pub enum ErasureError {
    /// The key store failed; the next start says whether the key is destroyed.
    #[error("the key of an erased user could not be destroyed")]
    Keys(#[from] KeyError),
    /// The key is destroyed, and that could not be recorded.
    #[error("the destruction of a key could not be recorded")]
    Record(#[from] ExecuteError<Refusal>),
    /// The thread that destroys keys is gone.
    #[error("the thread that destroys keys failed")]
    Gone,
}

/// Destroys the key of a subject whose erasure is ordered, and records it.
/// Durable on `Ok`; doing it twice is harmless.
///
/// # Errors
///
/// [`ErasureError`].
pub async fn carry_out(app: &App, subject: Id) -> Result<(), ErasureError> {
    // Before the key is touched: what another request records meanwhile must
    // not make its destruction look like a second one.
    let again = app.look().erasure(subject).is_some_and(|erasure| erasure.erased_at.is_some());
    let keys = Arc::clone(&app.keys);
    let destroyed = web::block(move || keys.erase(subject)).await;
    let destroyed = destroyed.map_err(|_| ErasureError::Gone)??;
    if destroyed || !again {
        app.execute_own(Want::RecordErased { subject, again }).await?;
    }
    Ok(())
}

/// Carries out every erasure that was ordered and is not, or no longer, done;
/// returns how many there were.
///
/// # Errors
///
/// [`ErasureError`], unless the disk is full: keys are destroyed then, and the
/// next start records it.
pub async fn carry_out_all(app: &App) -> Result<u64, ErasureError> {
    let (first, end) = Key::range(KeyKind::Erasure);
    let mut from = first.to_vec();
    let mut done = 0;
    loop {
        let page = app.state.scan(&from, &end, PAGE);
        for (key, entry) in &page {
            let (Key::Erasure(subject), Entry::Erasure(erasure)) = (key, &**entry) else {
                continue;
            };
            // A key that cannot be read is still one to be overwritten.
            let gone = matches!(app.keys.subject_key(*subject), Ok(None));
            if erasure.erased_at.is_some() && gone {
                continue;
            }
            match carry_out(app, *subject).await {
                Err(ErasureError::Record(ExecuteError::ReadOnly)) => {
                    tracing::warn!("the disk is full: an erasure is carried out and not recorded");
                }
                outcome => outcome?,
            }
            done += 1;
        }
        match page.last() {
            Some((last, _)) if page.len() == PAGE => {
                // The first key behind another one is that one with a zero byte.
                from = [&Keytrail::key_bytes(last)[..], &[0]].concat();
            }
            Some(_) | None => return Ok(done),
        }
    }
}
