//! State folded in memory from records: for auditors and tests, without sled.

use std::collections::BTreeMap;
use std::sync::Arc;

use engine::ids::Position;
use engine::machine::{Entries, Machine, Record};

/// BLAKE3 over the ordered entries of state and their position.
pub type StateDigest = [u8; 32];

/// State in memory: what the log says up to a position.
pub struct FoldedState<M: Machine> {
    entries: BTreeMap<M::Key, Arc<M::Entry>>,
    position: Position,
}

/// A record that does not stand where the fold has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("record says position {}, place is {}", found.0, expected.0)]
pub struct Gap {
    /// The place.
    pub expected: Position,
    /// What the record says.
    pub found: Position,
}

impl<M: Machine> Default for FoldedState<M> {
    fn default() -> Self {
        Self { entries: BTreeMap::new(), position: Position(0) }
    }
}

impl<M: Machine> FoldedState<M> {
    /// Takes in the next record.
    ///
    /// # Errors
    ///
    /// [`Gap`] if it is not the next; nothing has changed then.
    pub fn apply(&mut self, record: &Record) -> Result<(), Gap> {
        if record.position != self.position {
            return Err(Gap { expected: self.position, found: record.position });
        }
        for (key, entry) in M::evolve(self, record) {
            match entry {
                Some(entry) => self.entries.insert(key, entry),
                None => self.entries.remove(&key),
            };
        }
        self.position.0 += 1;
        Ok(())
    }

    /// The position of the next record.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }

    /// Entries in the order of their keys.
    pub fn entries(&self) -> impl Iterator<Item = (&M::Key, &Arc<M::Entry>)> {
        self.entries.iter()
    }

    /// The digest of this state, as a store at the same position gives it.
    #[must_use]
    pub fn digest(&self) -> StateDigest {
        let mut digest = Digest::default();
        for (key, entry) in &self.entries {
            digest.entry(&M::key_bytes(key), &M::entry_bytes(entry));
        }
        digest.finish(self.position)
    }
}

impl<M: Machine> Entries<M> for FoldedState<M> {
    fn get(&self, key: &M::Key) -> Option<Arc<M::Entry>> {
        self.entries.get(key).cloned()
    }
}

/// State folded from `records`, which start at position 0.
///
/// # Errors
///
/// [`Gap`] at the first record that does not follow the one before.
pub fn fold_state<'a, M: Machine>(
    records: impl IntoIterator<Item = &'a Record>,
) -> Result<FoldedState<M>, Gap> {
    let mut state = FoldedState::default();
    for record in records {
        state.apply(record)?;
    }
    Ok(state)
}

/// BLAKE3 over the entries in the order of their keys, each key and each entry
/// behind its length as 4 bytes big-endian, then the position as 8.
#[derive(Default)]
pub(crate) struct Digest(blake3::Hasher);

impl Digest {
    /// Takes in the next entry.
    pub(crate) fn entry(&mut self, key: &[u8], entry: &[u8]) {
        for part in [key, entry] {
            self.0.update(&(part.len() as u32).to_be_bytes());
            self.0.update(part);
        }
    }

    /// The digest of all entries, at `position`.
    pub(crate) fn finish(mut self, position: Position) -> StateDigest {
        self.0.update(&position.0.to_be_bytes());
        *self.0.finalize().as_bytes()
    }
}
