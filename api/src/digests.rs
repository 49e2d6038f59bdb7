//! Digests of state become events, so that whoever folds the log later can compare.
//!
//! A digest comes with each snapshot of state, which is taken every
//! `snapshot_records` records, and at a clean stop unless state is so large that
//! reading all of it would hold up the stop. It costs no pass of its own.

use std::sync::Arc;

use engine::Keytrail;
use engine::command::Want;
use engine::events::{Event, StateDigestedV1};
use engine::ids::Position;
use engine::machine::Machine;
use storage::open::StateDigest;
use tokio::sync::watch;

use crate::app::App;

/// A digest of state, and the position it stands for.
pub type Digested = (Position, StateDigest);

/// Notes each digest that comes, until the store is gone.
pub async fn follow(app: Arc<App>, mut digests: watch::Receiver<Option<Digested>>) {
    while digests.changed().await.is_ok() {
        let digest = *digests.borrow_and_update();
        if let Some(digest) = digest {
            note(&app, digest).await;
        }
    }
}

/// Notes a digest. Without success the log lacks one, and the next one covers more.
pub async fn note(app: &App, (position, digest): Digested) {
    // The last record notes a digest: nothing but that has happened since.
    let idle = position.0.checked_sub(1).is_some_and(|last| {
        app.log.record(Position(last)).is_ok_and(|record| {
            let draft = &record.draft;
            let event = Event::decode(draft.event_type, draft.schema, &draft.clear);
            matches!(event, Ok(Event::StateDigested(_)))
        })
    });
    if idle {
        return;
    }
    let state_version = Keytrail::STATE_VERSION;
    let digested = StateDigestedV1 { position, state_version, digest };
    if let Err(error) = app.execute_own(Want::NoteStateDigest(digested)).await {
        tracing::warn!(%error, "a digest of state was not noted in the log");
    }
}
