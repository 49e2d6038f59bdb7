//! The writer behind: brings what is durable in the journal to sled.
//!
//! One thread takes durable groups in order and puts their records into the
//! tree `log` and their changes, with the position they lead to, into the tree
//! `state`, in one batch. If the process dies anywhere in between, each tree
//! stands at some earlier position and is caught up from the journal.
//!
//! It may fall behind by [`LAG_MAX`] records; then the sequencer waits.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::path::PathBuf;
use std::sync::mpsc;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use engine::ids::Position;
use engine::machine::{Change, Machine};

use crate::fold::Digest;
use crate::logtree::LogTree;
use crate::open::StateDigest;
use crate::reader::{Recent, RecentRecords};
use crate::state::{Cached, ENTRY, Layers, META, Meta, entry_key};
use crate::trouble::{Trouble, guarded, panic_text};

/// Records that may be durable and not yet in sled.
pub(crate) const LAG_MAX: u64 = 65_536;

/// Changes that go into one batch of sled, roughly: all reads of sled wait
/// while a batch is applied.
const BATCH_CHANGES: usize = 512;

/// A group that is durable in the journal.
pub(crate) struct Group<M: Machine> {
    /// Its records.
    pub(crate) recent: Arc<Recent>,
    /// What they change, one change a key.
    pub(crate) changes: Vec<Change<M>>,
}

/// The queue between the sequencer and the writer behind.
pub(crate) struct Queue<M: Machine> {
    inner: Mutex<Inner<M>>,
    /// Something to do.
    more: Condvar,
    /// Less to do than before.
    less: Condvar,
}

struct Inner<M: Machine> {
    groups: VecDeque<Group<M>>,
    /// Records pushed and not yet in sled.
    lag: u64,
    requests: VecDeque<Request>,
}

/// What else the writer behind is asked for, once the groups before it are written.
enum Request {
    Digest(mpsc::SyncSender<(Position, StateDigest)>),
    Finish(mpsc::SyncSender<()>),
    Abandon,
}

/// What the writer behind does next.
enum Work<M: Machine> {
    Groups(Vec<Group<M>>),
    Request(Request),
}

impl<M: Machine> Queue<M> {
    pub(crate) fn new() -> Self {
        let inner = Inner { groups: VecDeque::new(), lag: 0, requests: VecDeque::new() };
        Self { inner: Mutex::new(inner), more: Condvar::new(), less: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner<M>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a durable group. Never waits.
    pub(crate) fn push(&self, group: Group<M>) {
        let mut inner = self.lock();
        inner.lag += u64::from(group.recent.block.count);
        inner.groups.push_back(group);
        self.more.notify_one();
    }

    /// Waits until there is room for another group.
    pub(crate) fn wait_for_room(&self, lag_max: u64, trouble: &Trouble) {
        let mut inner = self.lock();
        while inner.lag >= lag_max && !trouble.is_dead() {
            inner = self.less.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The digest of state at the position that is durable now. Waits.
    pub(crate) fn digest(&self) -> Option<(Position, StateDigest)> {
        let (reply, answer) = mpsc::sync_channel(1);
        self.request(Request::Digest(reply));
        answer.recv().ok()
    }

    /// Writes everything, syncs it, ends the writer behind. Waits; false if that failed.
    pub(crate) fn finish(&self) -> bool {
        let (reply, answer) = mpsc::sync_channel(1);
        self.request(Request::Finish(reply));
        answer.recv().is_ok()
    }

    /// Ends the writer behind with what it is doing now.
    pub(crate) fn abandon(&self) {
        let mut inner = self.lock();
        inner.groups.clear();
        inner.requests.clear();
        inner.requests.push_back(Request::Abandon);
        self.more.notify_one();
    }

    /// Wakes who waits for room: the writer behind is gone.
    fn give_up(&self) {
        let mut inner = self.lock();
        inner.requests.clear();
        self.less.notify_all();
    }

    fn request(&self, request: Request) {
        self.lock().requests.push_back(request);
        self.more.notify_one();
    }

    fn take(&self) -> Work<M> {
        let mut inner = self.lock();
        loop {
            let waits = !inner.groups.is_empty();
            if waits {
                return Work::Groups(take_groups(&mut inner.groups));
            }
            if !waits && let Some(request) = inner.requests.pop_front() {
                return Work::Request(request);
            }
            inner = self.more.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn done(&self, records: u64) {
        let mut inner = self.lock();
        inner.lag = inner.lag.saturating_sub(records);
        self.less.notify_all();
    }
}

fn take_groups<M: Machine>(groups: &mut VecDeque<Group<M>>) -> Vec<Group<M>> {
    let mut taken = Vec::new();
    let mut changes = 0;
    while changes < BATCH_CHANGES
        && let Some(group) = groups.pop_front()
    {
        changes += group.changes.len();
        taken.push(group);
    }
    taken
}

/// The thread's own data.
pub(crate) struct Behind<M: Machine> {
    pub(crate) db: sled::Db,
    pub(crate) dir: PathBuf,
    pub(crate) queue: Arc<Queue<M>>,
    pub(crate) layers: Arc<Layers<M>>,
    pub(crate) recent: Arc<RecentRecords>,
    pub(crate) log: LogTree,
    pub(crate) meta: Meta,
    pub(crate) trouble: Arc<Trouble>,
    /// Called when everything is synced, to mark the folder as cleanly stopped.
    pub(crate) mark_clean: Box<dyn FnOnce() -> std::io::Result<()> + Send>,
}

impl<M: Machine> Behind<M> {
    /// Works until told to finish or to abandon, or until sled fails.
    pub(crate) fn run(self) {
        let queue = Arc::clone(&self.queue);
        let trouble = Arc::clone(&self.trouble);
        let work = std::panic::AssertUnwindSafe(|| self.work());
        match std::panic::catch_unwind(work) {
            Ok(Ok(())) => (),
            Ok(Err(why)) => trouble.derived_damage(&why),
            Err(panic) => trouble.derived_damage(panic_text(panic.as_ref())),
        }
        queue.give_up();
    }

    fn work(mut self) -> Result<(), String> {
        loop {
            match self.queue.take() {
                Work::Groups(groups) => self.write(groups)?,
                Work::Request(Request::Digest(reply)) => {
                    // Whoever asked may have gone.
                    reply.send(self.digest()?).unwrap_or_default();
                }
                Work::Request(Request::Finish(reply)) => {
                    self.finish()?;
                    reply.send(()).unwrap_or_default();
                    return Ok(());
                }
                Work::Request(Request::Abandon) => return Ok(()),
            }
        }
    }

    /// Brings durable groups to both trees.
    pub(crate) fn write(&mut self, groups: Vec<Group<M>>) -> Result<(), String> {
        let Some(last) = groups.last() else { return Ok(()) };
        let head = last.recent.block.head();
        let records: u64 = groups.iter().map(|group| u64::from(group.recent.block.count)).sum();
        let bytes = groups.iter().flat_map(|group| group.recent.block.records());
        guarded(|| self.log.append(bytes))?;
        let mut latest = HashMap::new();
        for (key, entry) in groups.into_iter().flat_map(|group| group.changes) {
            latest.insert(key, entry);
        }
        self.meta.position = head.size;
        self.meta.chain = head.chain;
        let written = self.write_state(latest.into_iter().collect())?;
        self.layers.written(written, head.size);
        self.recent.written(head.size);
        self.queue.done(records);
        Ok(())
    }

    /// Puts changes, and the position they lead to, into the tree `state`.
    #[expect(clippy::type_complexity, reason = "pairs of key and entry, named by the trait")]
    pub(crate) fn write_state(
        &mut self,
        changes: Vec<Change<M>>,
    ) -> Result<Vec<(M::Key, Option<Cached<M>>)>, String> {
        let mut batch = sled::Batch::default();
        let mut written = Vec::with_capacity(changes.len());
        for (key, entry) in changes {
            let stored_key = entry_key::<M>(&key);
            let old = guarded(|| self.layers.tree.get(&stored_key))?;
            if let Some(old) = &old {
                self.meta.subtract(&stored_key[1..], old);
            }
            let cached = match entry {
                Some(entry) => {
                    let bytes = M::entry_bytes(&entry);
                    self.meta.add(&stored_key[1..], &bytes);
                    let len = bytes.len() as u32;
                    if old.as_deref() != Some(bytes.as_slice()) {
                        batch.insert(stored_key, bytes);
                    }
                    Some(Cached { entry, len })
                }
                None => {
                    if old.is_some() {
                        batch.remove(stored_key);
                    }
                    None
                }
            };
            written.push((key, cached));
        }
        batch.insert(META, self.meta.encode());
        guarded(|| self.layers.tree.apply_batch(batch))?;
        Ok(written)
    }

    /// Everything to the disk.
    fn finish(&mut self) -> Result<(), String> {
        guarded(|| self.db.flush())?;
        self.sync_and_mark().map_err(|error| format!("the clean stop failed: {error}"))
    }

    /// What `flush` of sled does not do: an fsync, before the marker says that all is there.
    fn sync_and_mark(&mut self) -> std::io::Result<()> {
        File::open(self.dir.join(crate::database::SLED).join("db"))?.sync_all()?;
        let nothing: Box<dyn FnOnce() -> std::io::Result<()> + Send> = Box::new(|| Ok(()));
        std::mem::replace(&mut self.mark_clean, nothing)()
    }

    /// The digest of state as it stands in sled.
    pub(crate) fn digest(&self) -> Result<(Position, StateDigest), String> {
        let mut digest = Digest::default();
        guarded(|| {
            for item in self.layers.tree.range([ENTRY].as_slice()..) {
                let (key, value) = item?;
                digest.entry(&key[1..], &value);
            }
            sled::Result::Ok(())
        })?;
        let position = Position(self.meta.position);
        Ok((position, digest.finish(position)))
    }
}
