//! State as readers see it: never ahead of what is durable.

use std::sync::Arc;

use engine::ids::Position;
use engine::machine::{Entries, Machine};

/// Reads state. Cheap to clone; every answer is durable.
pub struct StateReader<M: Machine> {
    machine: std::marker::PhantomData<fn() -> M>,
}

impl<M: Machine> Clone for StateReader<M> {
    fn clone(&self) -> Self {
        Self { machine: std::marker::PhantomData }
    }
}

impl<M: Machine> StateReader<M> {
    /// The entry under `key`, if there is one. May read the disk: microseconds
    /// as a rule, milliseconds at worst.
    #[must_use]
    pub fn get(&self, key: &M::Key) -> Option<Arc<M::Entry>> {
        let _ = key;
        None
    }

    /// Entries in the order of their keys: from `from` (included) up to `to`
    /// (excluded), both as key bytes, at most `limit`. Go on after the last key
    /// by passing its bytes with a zero byte appended.
    #[must_use]
    pub fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Vec<(M::Key, Arc<M::Entry>)> {
        let _ = (from, to, limit);
        Vec::new()
    }

    /// The position of the next record: state reflects all before it.
    #[must_use]
    pub fn position(&self) -> Position {
        Position(0)
    }
}

impl<M: Machine> Entries<M> for StateReader<M> {
    fn get(&self, key: &M::Key) -> Option<Arc<M::Entry>> {
        Self::get(self, key)
    }
}
