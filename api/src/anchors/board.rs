//! How the anchors are, and what witnesses have cosigned: for handlers to show.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use engine::ids::Micros;
use storage::note::{Checkpoint, Note};

use super::AnchorError;

/// What an anchor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A folder.
    Directory,
    /// An HTTP endpoint.
    Url,
    /// A witness.
    Witness,
}

/// How an anchor is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// What it is.
    pub kind: Kind,
    /// Its folder, its host, or its verifier key's name.
    pub name: String,
    /// Size of the last checkpoint it took, and when.
    pub taken: Option<(u64, Micros)>,
    /// Why it did not take the last one it was given.
    pub error: Option<AnchorError>,
}

/// A checkpoint with the signatures of log and witnesses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cosigned {
    /// What it says.
    pub checkpoint: Checkpoint,
    /// As it is signed.
    pub note: Note,
}

/// Shared by the thread that feeds anchors and by handlers.
#[derive(Debug, Default)]
pub struct Board {
    anchors: Mutex<Vec<State>>,
    cosigned: Mutex<Option<Arc<Cosigned>>>,
}

impl Board {
    pub(super) fn new<'a>(anchors: impl Iterator<Item = (Kind, &'a str)>) -> Self {
        let new = |(kind, name): (_, &str)| State {
            kind,
            name: name.to_owned(),
            taken: None,
            error: None,
        };
        Self { anchors: Mutex::new(anchors.map(new).collect()), cosigned: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<State>> {
        self.anchors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All anchors.
    #[must_use]
    pub fn anchors(&self) -> Vec<State> {
        self.lock().clone()
    }

    /// The latest checkpoint that a witness has cosigned since the start.
    #[must_use]
    pub fn latest_cosigned(&self) -> Option<Arc<Cosigned>> {
        self.cosigned.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn taken(&self, index: usize, size: u64, at: Micros) {
        if let Some(state) = self.lock().get_mut(index) {
            (state.taken, state.error) = (Some((size, at)), None);
        }
    }

    /// Whether this is another error than before.
    pub(super) fn failed(&self, index: usize, why: &AnchorError) -> bool {
        let mut anchors = self.lock();
        let Some(state) = anchors.get_mut(index) else { return false };
        let new = state.error.as_ref() != Some(why);
        state.error = Some(why.clone());
        new
    }

    pub(super) fn cosigned(&self, cosigned: Cosigned) {
        *self.cosigned.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(cosigned));
    }
}
