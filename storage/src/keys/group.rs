//! Changes of subjects that share their syncs, and what is durable of them.
//!
//! Whoever comes while nobody writes leads: it writes everything that waits,
//! syncs it, and tells the others. Whoever comes meanwhile waits for the next
//! group. Nothing is visible before it is durable.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use engine::ids::Id;

use super::pair::{Opened, Pair, Slot, Wrapped};

/// The subjects, and the way to change them.
pub(super) struct Subjects {
    pair: Pair,
    inner: Mutex<Inner>,
    /// A group is done, or something waits.
    changed: Condvar,
}

/// What is known of a subject.
enum Known {
    Live { slot: u64, wrapped: Wrapped },
    Erased,
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
}

#[derive(Default)]
struct Inner {
    by_tag: HashMap<[u8; 32], Id>,
    by_id: HashMap<Id, Known>,
    /// Number of durable slots.
    slots: u64,
    /// Changes for the next group.
    added: Vec<Slot>,
    erased: Vec<(u64, Id)>,
    next: Outcome,
    /// References whose subject is not durable yet, and its group.
    making: HashMap<[u8; 32], Outcome>,
    leading: bool,
    failed: bool,
}

impl Inner {
    fn take_in(&mut self, number: u64, slot: Slot) {
        let known = match slot.wrapped {
            Some(wrapped) => {
                self.by_tag.insert(wrapped.tag, slot.id);
                Known::Live { slot: number, wrapped }
            }
            None => Known::Erased,
        };
        self.by_id.insert(slot.id, known);
    }

    fn forget(&mut self, id: Id) {
        if let Some(Known::Live { wrapped, .. }) = self.by_id.insert(id, Known::Erased) {
            self.by_tag.remove(&wrapped.tag);
        }
    }
}

impl Subjects {
    pub(super) fn new(opened: Opened) -> Self {
        let mut inner = Inner { slots: opened.slots.len() as u64, ..Inner::default() };
        for (number, slot) in (0..).zip(opened.slots) {
            inner.take_in(number, slot);
        }
        Self { pair: opened.pair, inner: Mutex::new(inner), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The subject of a reference.
    pub(super) fn find(&self, tag: &[u8; 32]) -> Option<Id> {
        self.lock().by_tag.get(tag).copied()
    }

    /// The wrapped key of a subject that has one.
    pub(super) fn wrapped(&self, id: Id) -> Option<Wrapped> {
        match self.lock().by_id.get(&id) {
            Some(Known::Live { wrapped, .. }) => Some(wrapped.clone()),
            Some(Known::Erased) | None => None,
        }
    }

    /// Whether there is or was such a subject.
    pub(super) fn knows(&self, id: Id) -> bool {
        self.lock().by_id.contains_key(&id)
    }

    /// Number of subjects that ever were.
    pub(super) fn count(&self) -> u64 {
        self.lock().slots
    }

    /// The subject of the reference `tag`: the one there is, or that of `make`,
    /// durably. Two who ask for one reference at once get one subject.
    pub(super) fn find_or_make<E: From<Failure>>(
        &self,
        tag: &[u8; 32],
        make: impl FnOnce() -> Result<Slot, E>,
    ) -> Result<Id, E> {
        let mut inner = self.lock();
        loop {
            if let Some(&id) = inner.by_tag.get(tag) {
                return Ok(id);
            }
            if inner.failed {
                return Err(Failure::Earlier.into());
            }
            let Some(group) = inner.making.get(tag).map(Arc::clone) else { break };
            inner = self.wait(inner, &group)?;
        }
        let slot = make()?;
        let id = slot.id;
        let group = Arc::clone(&inner.next);
        inner.making.insert(*tag, Arc::clone(&group));
        inner.added.push(slot);
        self.changed.notify_all();
        drop(self.wait(inner, &group)?);
        Ok(id)
    }

    /// Destroys the key of `id`, durably; false if it has none.
    pub(super) fn erase(&self, id: Id) -> Result<bool, Failure> {
        let mut inner = self.lock();
        let Some(&Known::Live { slot, .. }) = inner.by_id.get(&id) else { return Ok(false) };
        if inner.failed {
            return Err(Failure::Earlier);
        }
        let group = Arc::clone(&inner.next);
        inner.erased.push((slot, id));
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
            inner.making.remove(&wrapped.tag);
        }
        match &outcome {
            Ok(()) => {
                for slot in added {
                    let number = inner.slots;
                    inner.take_in(number, slot);
                    inner.slots += 1;
                }
                erased.iter().for_each(|&(_, id)| inner.forget(id));
            }
            Err(Failure::Full) => (),
            // What is on disk is for the next start to say.
            Err(Failure::Io(..) | Failure::Earlier) => inner.failed = true,
        }
        // Set once, here, by the only leader of this group.
        let _ = group.set(outcome);
        self.changed.notify_all();
        inner
    }

    fn write(&self, next: u64, added: &[Slot], erased: &[(u64, Id)]) -> Result<(), Failure> {
        let slots: Vec<&Slot> = added.iter().collect();
        let failure = |error: io::Error| Failure::Io(error.kind(), error.to_string());
        let Err(error) = self.pair.write(next, &slots, erased) else { return Ok(()) };
        let full =
            matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        // A slot that was to be erased may be in part overwritten: that is for
        // the next start. New ones can be taken back, as nobody knows them.
        if full && erased.is_empty() {
            self.pair.cut(next).map_err(failure)?;
            return Err(Failure::Full);
        }
        Err(failure(error))
    }

    /// Waits until so many changes wait for the next group.
    #[cfg(test)]
    pub(super) fn until_waiting(&self, count: usize) {
        let few = |inner: &mut Inner| inner.added.len() + inner.erased.len() < count;
        drop(self.changed.wait_while(self.lock(), few).unwrap());
    }
}
