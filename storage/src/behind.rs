//! The writer behind: brings what is durable in the journal to sled.
//!
//! One thread takes durable groups in order and puts their records into the
//! tree `log` and their changes, with the position they lead to, into the tree
//! `state`, in one batch. If the process dies anywhere in between, each tree
//! stands at some earlier position and is caught up from the journal.
//!
//! It may fall behind by a bounded number of records and bytes; then the sequencer waits.

use std::collections::{HashMap, VecDeque};
use std::sync::mpsc;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use engine::ids::Position;
use engine::machine::{Change, Machine};
use tokio::sync::watch;

use crate::block::{Block, GROUP_BYTES_MAX};
use crate::database;
use crate::fold::{Digest, StateDigest};
use crate::folder::Folder;
use crate::keys::KeyStore;
use crate::logtree::LogTree;
use crate::reader::{Recent, RecentRecords};
use crate::snapshot::{SnapshotError, Step, Taking};
use crate::state::{Cached, ENTRY, Layers, META, Meta, Written, entry_key, entry_sum};
use crate::trouble::{Trouble, guarded, panic_text};

/// Changes that go into one batch of sled, before those of one key are made
/// one. The more, the fewer are left: a log-in changes its registration and its
/// operation three times. But all reads of sled wait while a batch is applied.
const BATCH_CHANGES: usize = 8_192;

/// Bytes of records that go into one batch of sled, but for the rest of the last
/// group: between two batches it is looked whether there is space for another.
const BATCH_BYTES: usize = 4 << 20;

/// How long groups are gathered for one batch at most. The longer, the fewer
/// changes are left of many; after a kill the next start repeats what was
/// gathered.
const GATHER: Duration = Duration::from_millis(500);

/// Entries that a snapshot advances by between two batches.
const SNAPSHOT_STEP: usize = 2_048;

/// A snapshot is taken at every clean stop up to this number of entries.
const SMALL_STATE: u64 = 100_000;

/// How much may be durable and not yet in sled; then writing waits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lag {
    pub(crate) records: u64,
    /// Of the records' frames.
    pub(crate) bytes: usize,
}

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
    /// Changes of these groups.
    changes: usize,
    /// They were gathered for long enough.
    gathered: bool,
    /// Someone waits for room: no time to gather.
    hurry: bool,
    /// Records pushed and not yet in sled.
    lag: u64,
    lag_bytes: usize,
    requests: VecDeque<Request>,
    /// Counts the reasons to look at everything again.
    calls: u64,
    /// There is too little space to write to sled.
    short: bool,
    /// Nothing is taken while set.
    held: bool,
    /// The writer behind is gone.
    closed: bool,
}

/// What else the writer behind is asked for, once the groups before it are written.
enum Request {
    Digest(mpsc::SyncSender<(Position, StateDigest)>),
    /// The digest if a snapshot would be taken at a stop now, else none.
    DigestToStop(mpsc::SyncSender<Option<(Position, StateDigest)>>),
    Finish(mpsc::SyncSender<()>),
    Abandon,
}

/// What the writer behind does next.
enum Work<M: Machine> {
    Groups(Vec<Group<M>>),
    Request(Request),
    Idle,
}

impl<M: Machine> Queue<M> {
    pub(crate) fn new() -> Self {
        let inner = Inner {
            groups: VecDeque::new(),
            changes: 0,
            gathered: false,
            hurry: false,
            lag: 0,
            lag_bytes: 0,
            requests: VecDeque::new(),
            calls: 0,
            short: false,
            held: false,
            closed: false,
        };
        Self { inner: Mutex::new(inner), more: Condvar::new(), less: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner<M>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a durable group. Never waits.
    pub(crate) fn push(&self, group: Group<M>) {
        let mut inner = self.lock();
        inner.lag += u64::from(group.recent.block.count);
        inner.lag_bytes += group.recent.block.frames.len();
        inner.changes += group.changes.len();
        inner.groups.push_back(group);
        // In between, the writer behind gathers and needs no waking.
        if inner.groups.len() == 1 || inner.is_batch() {
            self.more.notify_one();
        }
    }

    /// Wakes the writer behind, where it waits for space.
    pub(crate) fn look_again(&self) {
        let mut inner = self.lock();
        if inner.short {
            inner.call(&self.more);
        }
    }

    /// Waits until there is room for another group. Not while the writer behind
    /// waits for space: then commands are refused, and must hear so.
    pub(crate) fn wait_for_room(&self, lag: Lag, trouble: &Trouble) {
        let mut inner = self.lock();
        let full = |inner: &Inner<M>| inner.lag >= lag.records || inner.lag_bytes >= lag.bytes;
        while full(&inner) && !inner.short && !inner.closed && !trouble.is_dead() {
            inner.hurry = true;
            self.more.notify_one();
            inner = self.less.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The digest of state at the position that is durable now. Waits.
    pub(crate) fn digest(&self) -> Option<(Position, StateDigest)> {
        let (reply, answer) = mpsc::sync_channel(1);
        self.request(Request::Digest(reply));
        answer.recv().ok()
    }

    /// The digest of state at the position that is durable now, unless reading all
    /// of it would hold up a stop. Waits.
    pub(crate) fn digest_to_stop(&self) -> Option<Option<(Position, StateDigest)>> {
        let (reply, answer) = mpsc::sync_channel(1);
        self.request(Request::DigestToStop(reply));
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
        inner.changes = 0;
        inner.requests.clear();
        inner.held = false;
        inner.requests.push_back(Request::Abandon);
        inner.call(&self.more);
    }

    /// Wakes who waits for room: the writer behind is gone.
    fn give_up(&self) {
        let mut inner = self.lock();
        inner.requests.clear();
        inner.closed = true;
        self.less.notify_all();
    }

    fn request(&self, request: Request) {
        let mut inner = self.lock();
        if !inner.closed {
            inner.requests.push_back(request);
        }
        inner.call(&self.more);
    }

    /// Bytes of records that are durable and not yet in sled.
    pub(crate) fn owed(&self) -> usize {
        self.lock().lag_bytes
    }

    /// Records that are durable and not yet in sled.
    #[cfg(test)]
    pub(crate) fn lag(&self) -> u64 {
        self.lock().lag
    }

    /// Stops the writer behind from taking groups, or lets it go on.
    pub(crate) fn hold(&self, held: bool) {
        self.lock().held = held;
        self.more.notify_one();
    }

    /// How often there was a reason to look at everything again.
    fn calls(&self) -> u64 {
        self.lock().calls
    }

    /// Where there is too little space to write to sled: waits until the end is
    /// asked for, or until more was said than `calls`.
    fn wait_for_space(&self, calls: u64) -> Work<M> {
        let mut inner = self.lock();
        inner.short = true;
        self.less.notify_all();
        loop {
            let ends = |request: &Request| match request {
                Request::Finish(_) | Request::DigestToStop(_) | Request::Abandon => true,
                Request::Digest(_) => false,
            };
            if let Some(index) = inner.requests.iter().position(ends)
                && let Some(request) = inner.requests.remove(index)
            {
                return Work::Request(request);
            }
            if inner.calls != calls {
                return Work::Idle;
            }
            inner = self.more.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// What can be done now; where that is nothing, or groups are still to be
    /// gathered, waits if told to, and then lets the caller look at everything again.
    fn take(&self, wait: bool) -> Work<M> {
        let mut inner = self.lock();
        inner.short = false;
        let some = !inner.groups.is_empty();
        let ready = some && !inner.held;
        if ready && (!wait || inner.is_pressing()) {
            return Work::Groups(inner.take_groups());
        }
        if !some && let Some(request) = inner.requests.pop_front() {
            return Work::Request(request);
        }
        if wait && ready {
            let gathering = |inner: &mut Inner<M>| !inner.is_pressing();
            let waited = self.more.wait_timeout_while(inner, GATHER, gathering);
            waited.unwrap_or_else(PoisonError::into_inner).0.gathered = true;
        } else if wait {
            drop(self.more.wait(inner).unwrap_or_else(PoisonError::into_inner));
        }
        Work::Idle
    }

    /// Waits until the writer behind waits for space.
    #[cfg(test)]
    pub(crate) fn until_short(&self) {
        drop(self.less.wait_while(self.lock(), |inner| !inner.short).unwrap());
    }

    fn done(&self, records: u64, bytes: usize) {
        let mut inner = self.lock();
        inner.lag -= records;
        inner.lag_bytes -= bytes;
        // Whoever still finds no room says so again.
        inner.hurry = false;
        self.less.notify_all();
    }
}

impl<M: Machine> Inner<M> {
    fn call(&mut self, more: &Condvar) {
        self.calls += 1;
        more.notify_one();
    }

    /// Whether groups are to be written without gathering more of them.
    fn is_pressing(&self) -> bool {
        self.gathered || self.hurry || self.is_batch() || !self.requests.is_empty()
    }

    /// Whether there is as much as goes into one batch.
    fn is_batch(&self) -> bool {
        self.changes >= BATCH_CHANGES || self.lag_bytes >= BATCH_BYTES
    }

    /// The first groups: one batch.
    fn take_groups(&mut self) -> Vec<Group<M>> {
        let mut taken = Vec::new();
        let (mut changes, mut bytes) = (0, 0);
        while changes < BATCH_CHANGES
            && bytes < BATCH_BYTES
            && let Some(group) = self.groups.pop_front()
        {
            changes += group.changes.len();
            bytes += group.recent.block.frames.len();
            taken.push(group);
        }
        self.changes -= changes;
        self.gathered = false;
        taken
    }
}

/// The thread's own data.
pub(crate) struct Behind<M: Machine> {
    pub(crate) db: sled::Db,
    pub(crate) log_tree: sled::Tree,
    pub(crate) folder: Folder,
    pub(crate) queue: Arc<Queue<M>>,
    pub(crate) layers: Arc<Layers<M>>,
    pub(crate) recent: Arc<RecentRecords>,
    pub(crate) log: LogTree,
    pub(crate) meta: Meta,
    pub(crate) trouble: Arc<Trouble>,
    /// None where a test has none.
    pub(crate) keys: Option<Arc<KeyStore>>,
    pub(crate) snapshot_every: u64,
    /// Position of the latest snapshot.
    pub(crate) snapshot_at: u64,
    /// Whether to take one at once, because it adds up state.
    pub(crate) snapshot_now: bool,
    pub(crate) taking: Option<Taking>,
    /// sled may hold back what was written to it since it was last emptied.
    pub(crate) held_back: bool,
    /// Told of the digest of each snapshot.
    pub(crate) digests: watch::Sender<Option<(Position, StateDigest)>>,
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
            let calls = self.queue.calls();
            let next = self.queue.owed().min(BATCH_BYTES + GROUP_BYTES_MAX);
            let room = self.folder.takes_sled(next);
            self.snapshot()?;
            let work = match room {
                true => self.queue.take(self.taking.is_none()),
                false => self.queue.wait_for_space(calls),
            };
            self.empty_sled()?;
            match work {
                Work::Groups(groups) => self.write(groups)?,
                Work::Request(Request::Digest(reply)) => {
                    // Whoever asked may have gone.
                    let _ = reply.send(self.digest()?);
                }
                Work::Request(Request::DigestToStop(reply)) => {
                    let due = room && self.due_at_a_stop();
                    let digest = due.then(|| self.digest()).transpose()?;
                    let _ = reply.send(digest);
                }
                // Not a clean stop; the next start takes the rest from the log.
                Work::Request(Request::Finish(_)) if !room => return Ok(()),
                Work::Request(Request::Finish(reply)) => {
                    self.finish()?;
                    let _ = reply.send(());
                    return Ok(());
                }
                Work::Request(Request::Abandon) => return Ok(()),
                Work::Idle => (),
            }
        }
    }

    /// Where space is short, lets sled hold nothing back: others may take what
    /// is left before it writes on its own.
    fn empty_sled(&mut self) -> Result<(), String> {
        let short = !self.folder.takes_commands(0) && self.folder.takes_sled(0);
        if self.held_back && short {
            guarded(|| self.db.flush())?;
            self.held_back = false;
        }
        Ok(())
    }

    /// Brings durable groups to both trees.
    pub(crate) fn write(&mut self, groups: Vec<Group<M>>) -> Result<(), String> {
        let Some(last) = groups.last() else { return Ok(()) };
        let head = last.recent.block.head();
        let blocks = || groups.iter().map(|group| &group.recent.block);
        let count: u64 = blocks().map(|block| u64::from(block.count)).sum();
        let len: usize = blocks().map(|block| block.frames.len()).sum();
        self.held_back = true;
        guarded(|| self.log.append(blocks().flat_map(Block::links)))?;
        let mut latest = HashMap::new();
        for (key, entry) in groups.into_iter().flat_map(|group| group.changes) {
            latest.insert(key, entry);
        }
        self.meta.position = head.size;
        self.meta.chain = head.chain;
        let written = self.write_state(latest.into_iter().collect())?;
        self.layers.written(written, head.size);
        self.recent.written(head.size);
        self.queue.done(count, len);
        Ok(())
    }

    /// Puts changes, and the position they lead to, into the tree `state`.
    pub(crate) fn write_state(
        &mut self,
        changes: Vec<Change<M>>,
    ) -> Result<Vec<Written<M>>, String> {
        let mut batch = sled::Batch::default();
        let mut written = Vec::with_capacity(changes.len());
        for (key, entry) in changes {
            let stored_key = entry_key::<M>(&key);
            let old = self.sum_before(&key, &stored_key)?;
            if let Some(old) = old {
                self.meta.subtract(old);
            }
            let cached = match entry {
                Some(entry) => {
                    let bytes = M::entry_bytes(&entry);
                    let sum = entry_sum(&stored_key[1..], &bytes);
                    let len = bytes.len() as u32;
                    self.meta.add(sum);
                    if old != Some(sum) {
                        batch.insert(stored_key, bytes);
                    }
                    Some(Cached { entry, len, sum })
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
        // Each subject was durable before a record that is sealed for it.
        let subjects = self.keys.as_ref().map_or(0, |keys| keys.subjects_made());
        self.meta.subjects = self.meta.subjects.max(subjects);
        batch.insert(META, self.meta.encode());
        guarded(|| self.layers.tree.apply_batch(batch))?;
        Ok(written)
    }

    /// The sum of the entry that sled holds under a key which is about to change.
    fn sum_before(&mut self, key: &M::Key, stored_key: &[u8]) -> Result<Option<u128>, String> {
        let cached = self.layers.cached_sum(key);
        if cached.is_some() && self.taking.is_none() {
            return Ok(cached);
        }
        let old = guarded(|| self.layers.tree.get(stored_key))?;
        if let Some(taking) = &mut self.taking {
            taking.before_change(stored_key, old.as_ref());
        }
        Ok(old.map(|old| entry_sum(&stored_key[1..], &old)))
    }

    /// Advances the snapshot that is being taken, or begins one that is due.
    fn snapshot(&mut self) -> Result<(), String> {
        // A snapshot must not take the space that sled needs.
        if !self.folder.takes_commands(self.queue.owed()) {
            self.taking.take().into_iter().for_each(Taking::abandon);
            return Ok(());
        }
        if let Some(taking) = &mut self.taking {
            let stepped = taking.step(&self.layers.tree, SNAPSHOT_STEP);
            return self.stepped(stepped).map(|_| ());
        }
        let since = self.meta.position.saturating_sub(self.snapshot_at);
        if since >= self.snapshot_every || std::mem::take(&mut self.snapshot_now) {
            // Also where it fails: the next try is a whole interval later.
            self.snapshot_at = self.meta.position;
            match Taking::begin(&self.folder, self.meta) {
                Ok(taking) => self.taking = Some(taking),
                Err(error) => tracing::warn!(%error, "no snapshot of state"),
            }
        }
        Ok(())
    }

    /// Whether there is more to write.
    fn stepped(&mut self, stepped: Result<Step, SnapshotError>) -> Result<bool, String> {
        match stepped {
            Ok(Step::More) => return Ok(true),
            Ok(Step::Done(position, digest)) => {
                self.digests.send_replace(Some((position, digest)));
            }
            Err(SnapshotError::Damaged(why)) => return Err(why),
            // Without it the next remake of state folds more records.
            Err(SnapshotError::Io(error)) => tracing::warn!(%error, "no snapshot of state"),
        }
        self.taking = None;
        Ok(false)
    }

    /// A last snapshot where it is cheap or due, then everything to the disk.
    fn finish(&mut self) -> Result<(), String> {
        if self.taking.is_none()
            && self.due_at_a_stop()
            && self.folder.takes_commands(self.queue.owed())
        {
            self.snapshot_at = self.meta.position;
            self.taking = Taking::begin(&self.folder, self.meta).ok();
        }
        while let Some(taking) = &mut self.taking {
            let stepped = taking.step(&self.layers.tree, SNAPSHOT_STEP);
            self.stepped(stepped)?;
        }
        guarded(|| self.db.flush())?;
        self.sync_and_mark().map_err(|error| format!("the clean stop failed: {error}"))
    }

    /// Whether a clean stop now would take a snapshot.
    fn due_at_a_stop(&self) -> bool {
        let since = self.meta.position.saturating_sub(self.snapshot_at);
        since >= self.snapshot_every || (since > 0 && self.meta.entries <= SMALL_STATE)
    }

    /// What `flush` of sled does not do: an fsync, before the marker says that all is there.
    fn sync_and_mark(&mut self) -> std::io::Result<()> {
        database::sync(&self.folder.dir)?;
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
