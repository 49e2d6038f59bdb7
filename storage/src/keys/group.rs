//! Changes of subjects that share their syncs, and what is durable of them.
//!
//! Whoever comes while nobody writes leads: it writes everything that waits,
//! syncs it, and tells the others. Whoever comes meanwhile waits for the next
//! group. Nothing is visible before it is durable.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use engine::ids::Id;

use super::pair::{Opened, Pair, Slot, Wrapped};
use super::{Expect, KeyError, Secret32};
use crate::disk::Disk;

/// The subjects, and the way to change them.
pub(super) struct Subjects {
    pair: Pair,
    inner: Mutex<Inner>,
    /// A group is done, or something waits.
    changed: Condvar,
}

/// The first half of a reference's keyed hash. What is found by it is a
/// subject; that two references share it does not happen.
type ShortTag = [u8; 16];

fn short(tag: &[u8; 32]) -> ShortTag {
    let mut out = [0; 16];
    out.copy_from_slice(&tag[..16]);
    out
}

/// How a group ended, for everyone in it.
type Outcome = Arc<OnceLock<Result<(), Failure>>>;

/// Why a change did not happen.
#[derive(Debug, Clone)]
pub(super) enum Failure {
    /// No space; the store goes on.
    Full,
    /// The medium failed.
    Io(io::ErrorKind, String),
    /// An earlier write failed.
    Earlier,
    /// A slot that was whole is damaged in both files.
    Damaged,
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error.kind(), error.to_string())
    }
}

/// A slot to be erased.
struct Erasing {
    slot: u32,
    id: Id,
    tag: ShortTag,
}

/// Some hundred bytes for each subject would be too many: the keys themselves
/// stay in the files.
#[derive(Default)]
struct Inner {
    by_tag: HashMap<ShortTag, Id>,
    /// The slot of a subject; none if it was erased.
    by_id: HashMap<Id, Option<u32>>,
    /// Number of durable slots.
    slots: u32,
    /// Changes for the next group.
    added: Vec<Slot>,
    erased: Vec<Erasing>,
    next: Outcome,
    /// References whose subject is not durable yet, and its group.
    making: HashMap<ShortTag, Outcome>,
    leading: bool,
    failed: bool,
}

impl Inner {
    fn take_in(&mut self, slot: &Slot) {
        let number = slot.wrapped.as_ref().map(|wrapped| {
            self.by_tag.insert(short(&wrapped.tag), slot.id);
            self.slots
        });
        self.by_id.insert(slot.id, number);
        self.slots += 1;
    }

    fn forget(&mut self, erased: &Erasing) {
        self.by_id.insert(erased.id, None);
        self.by_tag.remove(&erased.tag);
    }
}

impl Subjects {
    /// Opens the files in `dir`; gives back how many slots were repaired too.
    pub(super) fn open(
        disk: &dyn Disk,
        dir: &Path,
        key: Secret32,
        expect: Expect,
    ) -> Result<(Self, u64), KeyError> {
        let mut inner = Inner::default();
        let mut take_in = |_, slot: Slot| inner.take_in(&slot);
        let Opened { pair, repaired } = Pair::open(disk, dir, key, expect, &mut take_in)?;
        let inner = Mutex::new(inner);
        Ok((Self { pair, inner, changed: Condvar::new() }, repaired))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The subject of a reference.
    pub(super) fn find(&self, tag: &[u8; 32]) -> Option<Id> {
        self.lock().by_tag.get(&short(tag)).copied()
    }

    /// The wrapped key of a subject that has one.
    pub(super) fn wrapped(&self, id: Id) -> Result<Option<Wrapped>, Failure> {
        let Some(slot) = self.lock().by_id.get(&id).copied().flatten() else { return Ok(None) };
        self.read(slot, id)
    }

    /// What `slot` holds for `id`; none if it has just been erased.
    fn read(&self, slot: u32, id: Id) -> Result<Option<Wrapped>, Failure> {
        match self.pair.read(u64::from(slot))? {
            Some(slot) if slot.id == id => Ok(slot.wrapped),
            Some(_) | None => Err(Failure::Damaged),
        }
    }

    /// Whether there is or was such a subject.
    pub(super) fn knows(&self, id: Id) -> bool {
        self.lock().by_id.contains_key(&id)
    }

    /// Number of subjects that ever were.
    pub(super) fn count(&self) -> u64 {
        u64::from(self.lock().slots)
    }

    /// The subject of the reference `tag`: the one there is, or that of `make`,
    /// durably. Two who ask for one reference at once get one subject.
    pub(super) fn find_or_make<E: From<Failure>>(
        &self,
        tag: &[u8; 32],
        make: impl FnOnce() -> Result<Slot, E>,
    ) -> Result<Id, E> {
        let short = short(tag);
        let mut inner = self.lock();
        loop {
            if let Some(&id) = inner.by_tag.get(&short) {
                return Ok(id);
            }
            if inner.failed {
                return Err(Failure::Earlier.into());
            }
            let Some(group) = inner.making.get(&short).map(Arc::clone) else { break };
            inner = self.wait(inner, &group)?;
        }
        let slot = make()?;
        let id = slot.id;
        let group = Arc::clone(&inner.next);
        inner.making.insert(short, Arc::clone(&group));
        inner.added.push(slot);
        self.changed.notify_all();
        drop(self.wait(inner, &group)?);
        Ok(id)
    }

    /// Destroys the key of `id`, durably; false if it has none.
    pub(super) fn erase(&self, id: Id) -> Result<bool, Failure> {
        let mut inner = self.lock();
        let Some(slot) = inner.by_id.get(&id).copied().flatten() else { return Ok(false) };
        if inner.failed {
            return Err(Failure::Earlier);
        }
        // Where it cannot be read, it can still be overwritten.
        let tag = match self.read(slot, id) {
            Ok(Some(wrapped)) => Some(short(&wrapped.tag)),
            Ok(None) | Err(_) => {
                inner.by_tag.iter().find(|(_, of)| **of == id).map(|(tag, _)| *tag)
            }
        };
        let tag = tag.unwrap_or_default();
        let group = Arc::clone(&inner.next);
        inner.erased.push(Erasing { slot, id, tag });
        self.changed.notify_all();
        drop(self.wait(inner, &group)?);
        Ok(true)
    }

    /// Waits for `group`, and leads where nobody does.
    fn wait<'a>(
        &'a self,
        mut inner: MutexGuard<'a, Inner>,
        group: &Outcome,
    ) -> Result<MutexGuard<'a, Inner>, Failure> {
        loop {
            if let Some(outcome) = group.get() {
                return outcome.clone().map(|()| inner);
            }
            inner = if inner.leading {
                self.changed.wait(inner).unwrap_or_else(PoisonError::into_inner)
            } else {
                self.lead(inner)
            };
        }
    }

    /// Makes everything that waits durable, and tells everyone.
    fn lead<'a>(&'a self, mut inner: MutexGuard<'a, Inner>) -> MutexGuard<'a, Inner> {
        let added = std::mem::take(&mut inner.added);
        let erased = std::mem::take(&mut inner.erased);
        let group = std::mem::take(&mut inner.next);
        let outcome = if inner.failed {
            Err(Failure::Earlier)
        } else {
            inner.leading = true;
            let next = inner.slots;
            drop(inner);
            let outcome = self.write(next, &added, &erased);
            inner = self.lock();
            inner.leading = false;
            outcome
        };
        for wrapped in added.iter().filter_map(|slot| slot.wrapped.as_ref()) {
            inner.making.remove(&short(&wrapped.tag));
        }
        match &outcome {
            Ok(()) => {
                added.iter().for_each(|slot| inner.take_in(slot));
                erased.iter().for_each(|erased| inner.forget(erased));
            }
            Err(Failure::Full) => (),
            // What is on disk is for the next start to say.
            Err(Failure::Io(..) | Failure::Earlier | Failure::Damaged) => inner.failed = true,
        }
        // Set once, here, by the only leader of this group.
        let _ = group.set(outcome);
        self.changed.notify_all();
        inner
    }

    fn write(&self, next: u32, added: &[Slot], erased: &[Erasing]) -> Result<(), Failure> {
        if u32::try_from(added.len()).ok().and_then(|more| next.checked_add(more)).is_none() {
            return Err(Failure::Full);
        }
        let erasures: Vec<_> = erased.iter().map(|one| (u64::from(one.slot), one.id)).collect();
        let Err(error) = self.pair.write(u64::from(next), added, &erasures) else { return Ok(()) };
        let full =
            matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        // A slot that was to be erased may be in part overwritten: that is for
        // the next start. New ones can be taken back, as nobody knows them.
        if full && erased.is_empty() {
            self.pair.cut(u64::from(next))?;
            return Err(Failure::Full);
        }
        Err(error.into())
    }

    /// Waits until so many changes wait for the next group.
    #[cfg(test)]
    pub(super) fn until_waiting(&self, count: usize) {
        let few = |inner: &mut Inner| inner.added.len() + inner.erased.len() < count;
        drop(self.changed.wait_while(self.lock(), few).unwrap());
    }
}
