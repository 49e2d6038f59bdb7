//! The only writer of the log.
//!
//! One thread takes commands from a bounded queue, decides each against state
//! that includes the commands before it, and makes a whole group durable with
//! one append of the [`BlockLog`] below. Only then does the group become
//! visible to readers, and only then do the answers go back. So nothing that
//! anyone was shown can be taken back by a power cut.
//!
//! There is no lock and no conflict: two commands that want the same thing are
//! decided by their order.
//!
//! Start reading at [`Handle::execute`].

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use engine::ids::{Id, Micros, Position};
use engine::machine::{Change, Clock, Entries, Entropy, Machine, Record, fresh_id};
use tokio::sync::{mpsc, oneshot, watch};

use crate::behind::{Group, LAG_MAX, Queue};
use crate::block::{AppendError, Block, BlockLog, GROUP_BYTES_MAX, Head};
use crate::deadlines::Deadlines;
use crate::reader::{Recent, RecentRecords};
use crate::state::StateReader;
use crate::trouble::{Trouble, panic_text};

/// A command and what it belongs to.
#[derive(Debug)]
pub struct Envelope<M: Machine> {
    /// What someone wants to happen.
    pub command: M::Command,
    /// The command's own id; all its records carry it.
    pub causation: Id,
    /// Ties together what one request of the outside world caused.
    pub correlation: Id,
}

/// What a command made happen. It is durable.
#[derive(Debug, Clone)]
pub struct Executed {
    /// Its records, in order; none if what it wanted was already so.
    pub records: Vec<Arc<Record>>,
}

/// Why a command did not happen. Nothing of it is in the log.
#[derive(Debug, thiserror::Error)]
pub enum ExecuteError<R: std::fmt::Debug> {
    /// A rule forbids it.
    #[error("refused: {0:?}")]
    Refused(R),
    /// The queue is full: try again in a moment.
    #[error("too many commands wait")]
    Busy,
    /// No space is left, so nothing can be written; reading goes on. The server
    /// writes again by itself once there is space.
    #[error("no space left: read-only")]
    ReadOnly,
    /// Its records would be longer than the log takes.
    #[error("the command's records are too large")]
    TooLarge,
    /// The rules failed on it (a panic or a broken invariant); logged and counted.
    #[error("the command could not be decided")]
    Internal,
    /// The writer has stopped, or stopped before this command was durable.
    #[error("the writer has stopped")]
    Stopped,
}

/// The writer has stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the writer has stopped")]
pub struct Stopped;

/// What the writer has done since it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Groups made durable.
    pub groups: u64,
    /// Records made durable.
    pub records: u64,
    /// Commands that a rule refused.
    pub refused: u64,
    /// Commands discarded by a panic or a broken invariant.
    pub internal: u64,
    /// Commands that found the queue full.
    pub busy: u64,
    /// Steps of the wall clock beyond [`CLOCK_STEP_MAX_US`].
    pub clock_steps: u64,
}

/// A step of the wall clock against the monotonic one beyond this many
/// microseconds becomes an event.
pub const CLOCK_STEP_MAX_US: u64 = 5_000_000;

/// A forward step beyond this many microseconds suspends what time alone makes
/// happen, except expiry, until an operator confirms the clock.
pub const CLOCK_SUSPEND_US: u64 = 600_000_000;

/// Commands in a group.
const GROUP_COMMANDS: usize = 1_024;

/// Bytes of frames after which a group takes no further command.
const GROUP_BYTES: usize = 4 << 20;

/// Bytes of frames that one command may add: whatever it is added to, it fits.
const COMMAND_BYTES: usize = GROUP_BYTES_MAX - GROUP_BYTES;

/// Deadlines that one group takes up.
const SWEEP_MAX: usize = 256;

type Reply<M> = oneshot::Sender<Result<Executed, ExecuteError<<M as Machine>::Refusal>>>;

enum Message<M: Machine> {
    Execute(Envelope<M>, Reply<M>),
    Sweep(oneshot::Sender<usize>),
    Tick,
    ConfirmClock(oneshot::Sender<()>),
    Stop(oneshot::Sender<()>),
}

/// What handles and the thread both see.
#[derive(Default)]
struct Shared {
    groups: AtomicU64,
    records: AtomicU64,
    refused: AtomicU64,
    internal: AtomicU64,
    busy: AtomicU64,
    clock_steps: AtomicU64,
    read_only: AtomicBool,
    suspended: AtomicBool,
}

/// Access to the writer. Cheap to clone. The writer ends, without a clean stop,
/// when the last handle is dropped.
pub struct Handle<M: Machine> {
    queue: mpsc::Sender<Message<M>>,
    shared: Arc<Shared>,
}

impl<M: Machine> Clone for Handle<M> {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone(), shared: Arc::clone(&self.shared) }
    }
}

impl<M: Machine> Handle<M> {
    /// Waits for the durable outcome of a command, and holds no thread meanwhile.
    ///
    /// A caller that goes away does not undo its command.
    ///
    /// # Errors
    ///
    /// [`ExecuteError`]; the command has left nothing in the log then, except
    /// that after [`ExecuteError::Stopped`] the next start decides whether it has.
    pub async fn execute(
        &self,
        envelope: Envelope<M>,
    ) -> Result<Executed, ExecuteError<M::Refusal>> {
        let (reply, answer) = oneshot::channel();
        self.queue.try_send(Message::Execute(envelope, reply)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => {
                self.shared.busy.fetch_add(1, Ordering::Relaxed);
                ExecuteError::Busy
            }
            mpsc::error::TrySendError::Closed(_) => ExecuteError::Stopped,
        })?;
        answer.await.unwrap_or(Err(ExecuteError::Stopped))
    }

    /// Carries out what is due now, and looks at the clock; returns how many
    /// deadlines it took up. At most one group: call again while it is not zero.
    ///
    /// # Errors
    ///
    /// [`Stopped`].
    pub async fn sweep(&self) -> Result<usize, Stopped> {
        self.ask(Message::Sweep).await
    }

    /// Takes back a suspension after a step of the clock: an operator says that
    /// it is right now.
    ///
    /// # Errors
    ///
    /// [`Stopped`].
    pub async fn confirm_clock(&self) -> Result<(), Stopped> {
        self.ask(Message::ConfirmClock).await
    }

    async fn ask<T>(
        &self,
        message: impl FnOnce(oneshot::Sender<T>) -> Message<M>,
    ) -> Result<T, Stopped> {
        let (reply, answer) = oneshot::channel();
        self.queue.send(message(reply)).await.map_err(|_| Stopped)?;
        answer.await.map_err(|_| Stopped)
    }

    /// Whether a step of the clock has suspended what time alone makes happen.
    #[must_use]
    pub fn clock_suspended(&self) -> bool {
        self.shared.suspended.load(Ordering::Acquire)
    }

    /// Whether the last group found no space.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.shared.read_only.load(Ordering::Acquire)
    }

    /// What the writer has done since it started.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let shared = &self.shared;
        Counters {
            groups: shared.groups.load(Ordering::Relaxed),
            records: shared.records.load(Ordering::Relaxed),
            refused: shared.refused.load(Ordering::Relaxed),
            internal: shared.internal.load(Ordering::Relaxed),
            busy: shared.busy.load(Ordering::Relaxed),
            clock_steps: shared.clock_steps.load(Ordering::Relaxed),
        }
    }

    /// Finishes what waits, writes state out, syncs it and marks the folder as
    /// cleanly stopped. Later commands get [`ExecuteError::Stopped`].
    ///
    /// # Errors
    ///
    /// [`Stopped`] if it had stopped already, or could not stop cleanly.
    pub async fn stop(&self) -> Result<(), Stopped> {
        self.ask(Message::Stop).await
    }

    /// As [`Handle::stop`], for a thread that may wait.
    pub(crate) fn stop_and_wait(&self) -> Result<(), Stopped> {
        let (reply, answer) = oneshot::channel();
        let mut message = Message::Stop(reply);
        // The queue may be full; the writer empties it.
        loop {
            match self.queue.try_send(message) {
                Ok(()) => break,
                Err(mpsc::error::TrySendError::Closed(_)) => return Err(Stopped),
                Err(mpsc::error::TrySendError::Full(back)) => {
                    message = back;
                    std::thread::yield_now();
                }
            }
        }
        answer.blocking_recv().map_err(|_| Stopped)
    }
}

/// What the thread works with.
pub(crate) struct Parts<M: Machine, L> {
    pub(crate) log: L,
    pub(crate) state: StateReader<M>,
    pub(crate) recent: Arc<RecentRecords>,
    pub(crate) behind: Arc<Queue<M>>,
    pub(crate) head: watch::Sender<Head>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) trouble: Arc<Trouble>,
    /// Time of the last record.
    pub(crate) last_time: Micros,
    /// Whether the clock is to be confirmed first.
    pub(crate) suspended: bool,
}

/// Starts the writer's thread, and the one that wakes it.
pub(crate) fn start<M: Machine, L: BlockLog + 'static>(
    parts: Parts<M, L>,
    queue_max: usize,
    tick_ms: Option<u64>,
) -> std::io::Result<(Handle<M>, std::thread::JoinHandle<()>)> {
    let (queue, commands) = mpsc::channel(queue_max.max(1));
    let shared = Arc::new(Shared::default());
    shared.suspended.store(parts.suspended, Ordering::Release);
    let (wall, monotonic) = (parts.clock.wall(), parts.clock.monotonic());
    let writer = Writer {
        deadlines: Deadlines::of(&parts.state),
        now: parts.last_time,
        seen: (wall, monotonic),
        shared: Arc::clone(&shared),
        parts,
    };
    let thread = std::thread::Builder::new()
        .name("sequencer".to_owned())
        .spawn(move || writer.run(commands))?;
    if let Some(tick_ms) = tick_ms {
        let weak = queue.downgrade();
        std::thread::Builder::new().name("ticks".to_owned()).spawn(move || {
            let tick = std::time::Duration::from_millis(tick_ms.max(1));
            loop {
                #[expect(
                    clippy::disallowed_methods,
                    reason = "this thread is the tick; tests have none and call sweep"
                )]
                std::thread::sleep(tick);
                let Some(queue) = weak.upgrade() else { return };
                // A full queue wakes the writer in any case.
                if let Err(mpsc::error::TrySendError::Closed(_)) = queue.try_send(Message::Tick) {
                    return;
                }
            }
        })?;
    }
    Ok((Handle { queue, shared }, thread))
}

/// State as the next command sees it: what is durable, then this group, then
/// the command's own records.
struct View<'a, M: Machine> {
    durable: &'a StateReader<M>,
    group: &'a HashMap<M::Key, Option<Arc<M::Entry>>>,
    own: HashMap<M::Key, Option<Arc<M::Entry>>>,
}

impl<M: Machine> Entries<M> for View<'_, M> {
    fn get(&self, key: &M::Key) -> Option<Arc<M::Entry>> {
        match self.own.get(key).or_else(|| self.group.get(key)) {
            Some(entry) => entry.clone(),
            None => self.durable.get(key),
        }
    }
}

/// What a command came to.
type Outcome<M> = Result<Executed, ExecuteError<<M as Machine>::Refusal>>;

/// A group in the making. Nothing of it is visible yet.
struct Draft<M: Machine> {
    block: Block,
    records: Vec<Arc<Record>>,
    changes: HashMap<M::Key, Option<Arc<M::Entry>>>,
    answers: Vec<(Option<Reply<M>>, Outcome<M>)>,
}

/// The writer's thread.
struct Writer<M: Machine, L> {
    parts: Parts<M, L>,
    shared: Arc<Shared>,
    deadlines: Deadlines<M>,
    /// Time of the last record.
    now: Micros,
    /// The wall clock and the monotonic clock when last compared.
    seen: (Micros, Micros),
}

impl<M: Machine, L: BlockLog> Writer<M, L> {
    fn run(mut self, mut commands: mpsc::Receiver<Message<M>>) {
        let work = AssertUnwindSafe(|| self.work(&mut commands));
        let reply = match catch_unwind(work) {
            Ok(reply) => reply,
            Err(panic) => {
                let why = panic_text(panic.as_ref());
                self.parts.trouble.stop(&format!("the writer of the log failed: {why}"));
                None
            }
        };
        commands.close();
        // Dropping what still waits answers that the writer has stopped.
        drop(commands);
        match reply {
            Some(reply) if self.parts.behind.finish() => reply.send(()).unwrap_or_default(),
            Some(_) | None => self.parts.behind.abandon(),
        }
    }

    /// Takes messages until told to stop, which is then to be answered, or until
    /// nobody can send any more or the log has failed.
    fn work(&mut self, commands: &mut mpsc::Receiver<Message<M>>) -> Option<oneshot::Sender<()>> {
        let mut next = None;
        loop {
            let message = match next.take() {
                Some(message) => message,
                None => commands.blocking_recv()?,
            };
            match message {
                Message::Execute(envelope, reply) => {
                    let mut group = self.group();
                    self.take_up(&mut group, &envelope, Some(reply));
                    next = self.fill(&mut group, commands);
                    self.commit(group);
                }
                Message::Sweep(reply) => drop(reply.send(self.sweep())),
                Message::Tick => while self.sweep() == SWEEP_MAX {},
                Message::ConfirmClock(reply) => {
                    self.shared.suspended.store(false, Ordering::Release);
                    self.deadlines.resume(&self.parts.state);
                    reply.send(()).unwrap_or_default();
                }
                Message::Stop(reply) => return Some(reply),
            }
            if self.parts.trouble.is_dead() {
                return None;
            }
        }
    }

    /// Takes up commands that wait already; returns the first message that is none.
    fn fill(
        &mut self,
        group: &mut Draft<M>,
        commands: &mut mpsc::Receiver<Message<M>>,
    ) -> Option<Message<M>> {
        while group.answers.len() < GROUP_COMMANDS && group.block.frames.len() < GROUP_BYTES {
            match commands.try_recv().ok()? {
                Message::Execute(envelope, reply) => {
                    self.take_up(group, &envelope, Some(reply));
                }
                other @ (Message::Sweep(_)
                | Message::Tick
                | Message::ConfirmClock(_)
                | Message::Stop(_)) => return Some(other),
            }
        }
        None
    }

    fn group(&self) -> Draft<M> {
        self.parts.behind.wait_for_room(LAG_MAX, &self.parts.trouble);
        Draft {
            block: Block::after(&self.parts.log.head()),
            records: Vec::new(),
            changes: HashMap::new(),
            answers: Vec::new(),
        }
    }

    /// Decides one command; it leaves its records in the group, or nothing.
    fn take_up(&mut self, group: &mut Draft<M>, envelope: &Envelope<M>, reply: Option<Reply<M>>) {
        let (count, chain, len) = (group.block.count, group.block.chain, group.block.frames.len());
        let at = self.now.max(self.parts.clock.wall());
        let decided = catch_unwind(AssertUnwindSafe(|| self.decide(group, envelope, at)));
        let outcome = decided.unwrap_or_else(|panic| {
            tracing::error!("a command could not be decided: {}", panic_text(panic.as_ref()));
            Err(ExecuteError::Internal)
        });
        let answer = match outcome {
            Ok((records, changes)) => {
                if !records.is_empty() {
                    self.now = at;
                }
                group.changes.extend(changes);
                group.records.extend(records.iter().cloned());
                Ok(Executed { records })
            }
            Err(error) => {
                group.block.frames.truncate(len);
                group.block.count = count;
                group.block.chain = chain;
                self.count_failure(&error);
                Err(error)
            }
        };
        group.answers.push((reply, answer));
    }

    fn count_failure(&self, error: &ExecuteError<M::Refusal>) {
        match error {
            ExecuteError::Refused(_) => self.shared.refused.fetch_add(1, Ordering::Relaxed),
            ExecuteError::Internal => self.shared.internal.fetch_add(1, Ordering::Relaxed),
            ExecuteError::Busy
            | ExecuteError::ReadOnly
            | ExecuteError::TooLarge
            | ExecuteError::Stopped => 0,
        };
    }

    /// Decides, numbers, encodes and evolves, record by record.
    #[expect(clippy::type_complexity, reason = "used once, right above")]
    fn decide(
        &self,
        group: &mut Draft<M>,
        envelope: &Envelope<M>,
        at: Micros,
    ) -> Result<(Vec<Arc<Record>>, HashMap<M::Key, Option<Arc<M::Entry>>>), ExecuteError<M::Refusal>>
    {
        let mut view =
            View { durable: &self.parts.state, group: &group.changes, own: HashMap::new() };
        let drafts = M::decide(&view, at, &envelope.command).map_err(ExecuteError::Refused)?;
        let start = group.block.frames.len();
        let mut records = Vec::with_capacity(drafts.len());
        for draft in drafts {
            let head = M::head(&view, draft.stream);
            let record = Record {
                position: Position(group.block.head().size),
                time: at,
                stream_version: head.version,
                stream_prev: head.last,
                correlation: envelope.correlation,
                causation: envelope.causation,
                draft,
            };
            group.block.push_record(&record).map_err(|_| ExecuteError::TooLarge)?;
            if group.block.frames.len() - start > COMMAND_BYTES {
                return Err(ExecuteError::TooLarge);
            }
            let changes = M::evolve(&view, &record);
            view.own.extend(changes);
            // Otherwise the next record of the stream would get the same version.
            if M::head(&view, record.draft.stream).last != Some(record.position) {
                tracing::error!(position = record.position.0, "a record did not move its stream");
                return Err(ExecuteError::Internal);
            }
            records.push(Arc::new(record));
        }
        Ok((records, view.own))
    }

    /// Makes the group durable, then visible, then answers. Returns whether it
    /// is durable.
    fn commit(&mut self, group: Draft<M>) -> bool {
        let Draft { block, records, changes, answers } = group;
        if block.count > 0 {
            let expect = Head { size: block.first.0, chain: block.prev };
            match self.parts.log.append(&expect, &block) {
                Ok(_) => self.publish(block, records, changes),
                Err(AppendError::Full) => {
                    self.shared.read_only.store(true, Ordering::Release);
                    // Refusals too may rest on records that are not there now.
                    for (reply, _) in answers {
                        drop(reply.map(|reply| reply.send(Err(ExecuteError::ReadOnly))));
                    }
                    return false;
                }
                Err(
                    error @ (AppendError::Io(_)
                    | AppendError::Conflict { .. }
                    | AppendError::Malformed(_)),
                ) => {
                    self.parts.trouble.stop(&format!("the log cannot be written: {error}"));
                    return false;
                }
            }
        }
        for (reply, answer) in answers {
            // Whoever asked may have gone.
            drop(reply.map(|reply| reply.send(answer)));
        }
        true
    }

    fn publish(
        &mut self,
        block: Block,
        records: Vec<Arc<Record>>,
        changes: HashMap<M::Key, Option<Arc<M::Entry>>>,
    ) {
        let head = block.head();
        let count = u64::from(block.count);
        let changes: Vec<Change<M>> = changes.into_iter().collect();
        let recent = Arc::new(Recent { block, records });
        // Records first: a position that state or head shows can be read.
        self.parts.recent.push(Arc::clone(&recent));
        self.parts.state.layers.publish(&changes, head.size);
        self.parts.head.send_replace(head);
        self.deadlines.update(&changes);
        self.parts.behind.push(Group { recent, changes });
        self.shared.read_only.store(false, Ordering::Release);
        self.shared.groups.fetch_add(1, Ordering::Relaxed);
        self.shared.records.fetch_add(count, Ordering::Relaxed);
    }

    /// One group of what time makes happen.
    fn sweep(&mut self) -> usize {
        let mut group = self.group();
        self.compare_clocks(&mut group);
        // Suspended or not: every deadline of the rules is an expiry, which the
        // rules would treat as passed in any case.
        let at = self.now.max(self.parts.clock.wall());
        let due = self.deadlines.take_due(&self.parts.state, at, SWEEP_MAX);
        for key in &due {
            let id = self.event_id();
            self.take_up_own(&mut group, M::on_deadline(key, id), id);
        }
        if self.commit(group) {
            for key in self.deadlines.settle(&self.parts.state) {
                tracing::error!(?key, "a deadline stands after it was taken up");
            }
            due.len()
        } else {
            self.deadlines.put_back();
            0
        }
    }

    /// Records a step of the wall clock.
    fn compare_clocks(&mut self, group: &mut Draft<M>) {
        let (wall, monotonic) = (self.parts.clock.wall(), self.parts.clock.monotonic());
        let passed = monotonic.0.saturating_sub(self.seen.1.0);
        let expected = Micros(self.seen.0.0.saturating_add(passed));
        self.seen = (wall, monotonic);
        if wall.0.abs_diff(expected.0) <= CLOCK_STEP_MAX_US {
            return;
        }
        self.shared.clock_steps.fetch_add(1, Ordering::Relaxed);
        if wall.0.saturating_sub(expected.0) > CLOCK_SUSPEND_US {
            self.shared.suspended.store(true, Ordering::Release);
        }
        let id = self.event_id();
        self.take_up_own(group, M::on_clock_step(expected, wall, id), id);
    }

    fn take_up_own(&mut self, group: &mut Draft<M>, command: M::Command, id: Id) {
        self.take_up(group, &Envelope { command, causation: id, correlation: id }, None);
    }

    /// A fresh id that ends in zero, so that a command's records count up from it.
    fn event_id(&self) -> Id {
        fresh_id(self.parts.clock.as_ref(), self.parts.entropy.as_ref()).first_of_command()
    }
}
