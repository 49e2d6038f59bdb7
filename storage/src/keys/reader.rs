//! The key store looked at, for auditors: nothing is made, repaired or synced.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use aws_lc_rs::aead::LessSafeKey;
use engine::ids::Id;

use super::pair::{Slot, Slots};
use super::{KeyError, Part, SecretName, SubjectKey, read_secret, slot_key, unwrap, wrapping_key};
use crate::disk::Disk;

/// What a key store knows of a subject.
#[derive(Debug)]
pub enum Found {
    /// Its key.
    Key(SubjectKey),
    /// That there was a key, and it was destroyed.
    Erased,
    /// Nothing.
    Unknown,
}

/// A key store, open for reading alone. Keys stay in the files until asked for.
pub struct KeyReader {
    dir: PathBuf,
    wrapping: LessSafeKey,
    slots: Slots,
    /// The slot of a subject; none if it was erased.
    by_id: HashMap<Id, Option<u64>>,
}

impl KeyReader {
    /// Opens the key store in `dir` (the folder `keys/`, or a copy of it); none
    /// if there are no subjects' keys. Every slot is looked at once.
    ///
    /// # Errors
    ///
    /// [`KeyError`]: a file that must be there is not, or is damaged, or does not
    /// belong to the others.
    pub fn open(disk: &dyn Disk, dir: &Path) -> Result<Option<Self>, KeyError> {
        if !super::KeyStore::is_in(disk, dir)? {
            return Ok(None);
        }
        let secret = |part: Part| read_secret(disk, dir, part)?.ok_or_else(|| part.missing(dir));
        let references = secret(Part::Secret(SecretName::Subjects))?;
        let wrapping = secret(Part::Wrapping)?;
        let mut by_id = HashMap::new();
        let mut visit = |number, slot: Slot| {
            by_id.insert(slot.id, slot.wrapped.is_some().then_some(number));
        };
        let key = slot_key(&references, &wrapping);
        let Some(slots) = Slots::open(disk, dir, key, &mut visit)? else { return Ok(None) };
        let wrapping = wrapping_key(&wrapping, dir)?;
        Ok(Some(Self { dir: dir.to_owned(), wrapping, slots, by_id }))
    }

    /// What is known of a subject.
    ///
    /// # Errors
    ///
    /// [`KeyError`] if its slot cannot be read, or its key does not unwrap.
    pub fn subject(&self, id: Id) -> Result<Found, KeyError> {
        let number = match self.by_id.get(&id) {
            None => return Ok(Found::Unknown),
            Some(None) => return Ok(Found::Erased),
            Some(Some(number)) => *number,
        };
        let slot = self.slots.read(number).map_err(Part::Subjects.io(&self.dir))?;
        let slot = slot.filter(|slot| slot.id == id);
        match slot.ok_or_else(|| Part::Subjects.damaged(&self.dir))?.wrapped {
            Some(wrapped) => unwrap(&self.wrapping, &self.dir, id, wrapped).map(Found::Key),
            None => Ok(Found::Erased),
        }
    }
}

impl std::fmt::Debug for KeyReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyReader").field("dir", &self.dir).finish_non_exhaustive()
    }
}
