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
use engine::machine::{
    Change, Clock, Draft, Entries, Entropy, Machine, Record, StreamHead, fresh_id,
};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot, watch};

use crate::behind::{Group, Lag, Queue};
use crate::block::{AppendError, Block, BlockLog, GROUP_BYTES_MAX, Head};
use crate::deadlines::Deadlines;
use crate::folder::{Folder, Note};
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
    /// Deadlines whose command left them standing; they are left alone.
    pub stuck_deadlines: u64,
}

/// A step of the wall clock against the monotonic one beyond this many
/// microseconds becomes an event.
pub const CLOCK_STEP_MAX_US: u64 = 5_000_000;

/// A forward step beyond this many microseconds suspends what time alone makes
/// happen, except expiry, until an operator confirms the clock.
pub const CLOCK_SUSPEND_US: u64 = 600_000_000;

/// A group takes no further command at this number of records.
const GROUP_RECORDS: u32 = 1_024;

/// A group takes no further command at this number of bytes.
const GROUP_BYTES: usize = 1 << 20;

/// A group takes no further command after this number of them.
const GROUP_COMMANDS: usize = 1_024;

/// Deadlines that one group takes up.
const GROUP_DEADLINES: usize = 256;

/// The longest frames of one command, in bytes: whatever group it joins, it fits.
const COMMAND_BYTES: usize = GROUP_BYTES_MAX - GROUP_BYTES;

/// The most records of one command: [`Id::nth`] counts them in a byte.
const COMMAND_RECORDS: usize = 255;

/// Access to the writer. Cheap to clone.
pub struct Handle<M: Machine> {
    inbox: mpsc::Sender<Message<M>>,
    shared: Arc<Shared>,
}

impl<M: Machine> Clone for Handle<M> {
    fn clone(&self) -> Self {
        Self { inbox: self.inbox.clone(), shared: Arc::clone(&self.shared) }
    }
}

impl<M: Machine> Handle<M> {
    /// Waits for the durable outcome of a command, and holds no thread meanwhile.
    ///
    /// A caller that goes away does not undo its command.
    ///
    /// # Errors
    ///
    /// [`ExecuteError`]; the command has left nothing in the log then, unless it
    /// is [`ExecuteError::Stopped`]: the writer may have died just before it answered.
    pub async fn execute(
        &self,
        envelope: Envelope<M>,
    ) -> Result<Executed, ExecuteError<M::Refusal>> {
        let (reply, outcome) = oneshot::channel();
        self.inbox.try_send(Message::Execute(envelope, reply)).map_err(|error| match error {
            TrySendError::Full(_) => {
                self.shared.counts.busy.fetch_add(1, Ordering::Relaxed);
                ExecuteError::Busy
            }
            TrySendError::Closed(_) => ExecuteError::Stopped,
        })?;
        outcome.await.map_err(|_| ExecuteError::Stopped)?
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

    /// Whether a step of the clock has suspended what time alone makes happen.
    #[must_use]
    pub fn clock_suspended(&self) -> bool {
        self.shared.suspended.load(Ordering::Relaxed)
    }

    /// Whether commands are refused because space is short: the last group found
    /// none, or less is free than [`Options::space_margin`].
    ///
    /// [`Options::space_margin`]: crate::open::Options::space_margin
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.shared.read_only.load(Ordering::Relaxed)
    }

    /// What the writer has done since it started.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.shared.counts.now()
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

    async fn ask<T>(
        &self,
        message: impl FnOnce(oneshot::Sender<T>) -> Message<M>,
    ) -> Result<T, Stopped> {
        let (reply, answer) = oneshot::channel();
        self.inbox.send(message(reply)).await.map_err(|_| Stopped)?;
        answer.await.map_err(|_| Stopped)
    }

    /// The way to wake the writer from time to time, which does not keep it alive.
    pub(crate) fn ticker(&self) -> Ticker<M> {
        Ticker(self.inbox.downgrade())
    }

    /// As [`Handle::execute`], for threads.
    ///
    /// # Errors
    ///
    /// As [`Handle::execute`].
    pub fn execute_blocking(
        &self,
        envelope: Envelope<M>,
    ) -> Result<Executed, ExecuteError<M::Refusal>> {
        let (reply, outcome) = oneshot::channel();
        let sent = self.inbox.blocking_send(Message::Execute(envelope, reply));
        sent.map_err(|_| ExecuteError::Stopped)?;
        outcome.blocking_recv().map_err(|_| ExecuteError::Stopped)?
    }

    /// As [`Handle::stop`], for threads.
    pub(crate) fn stop_blocking(&self) -> Result<(), Stopped> {
        let (reply, answer) = oneshot::channel();
        self.inbox.blocking_send(Message::Stop(reply)).map_err(|_| Stopped)?;
        answer.blocking_recv().map_err(|_| Stopped)
    }

    /// Ends the writer after the group in progress, as if the process had died then.
    pub(crate) fn abandon(&self) {
        self.shared.abandoned.store(true, Ordering::SeqCst);
        // Full: the writer is awake and sees the flag before the next group.
        drop(self.inbox.try_send(Message::Tick));
    }
}

/// Wakes the writer.
pub(crate) struct Ticker<M: Machine>(mpsc::WeakSender<Message<M>>);

impl<M: Machine> Ticker<M> {
    /// Wakes the writer to look at clock and deadlines; nothing where its queue
    /// is full, since it looks at them with every group.
    pub(crate) fn tick(&self) -> Result<(), Stopped> {
        match self.0.upgrade().ok_or(Stopped)?.try_send(Message::Tick) {
            Ok(()) | Err(TrySendError::Full(_)) => Ok(()),
            Err(TrySendError::Closed(_)) => Err(Stopped),
        }
    }
}

type Reply<M> = oneshot::Sender<Outcome<M>>;
type Outcome<M> = Result<Executed, ExecuteError<<M as Machine>::Refusal>>;

enum Message<M: Machine> {
    Execute(Envelope<M>, Reply<M>),
    Sweep(oneshot::Sender<usize>),
    Tick,
    ConfirmClock(oneshot::Sender<()>),
    Stop(oneshot::Sender<()>),
}

/// What the writer shows of itself.
#[derive(Default)]
struct Shared {
    suspended: AtomicBool,
    read_only: AtomicBool,
    abandoned: AtomicBool,
    counts: Counts,
}

#[derive(Default)]
struct Counts {
    groups: AtomicU64,
    records: AtomicU64,
    refused: AtomicU64,
    internal: AtomicU64,
    busy: AtomicU64,
    clock_steps: AtomicU64,
    stuck_deadlines: AtomicU64,
}

impl Counts {
    fn now(&self) -> Counters {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Counters {
            groups: read(&self.groups),
            records: read(&self.records),
            refused: read(&self.refused),
            internal: read(&self.internal),
            busy: read(&self.busy),
            clock_steps: read(&self.clock_steps),
            stuck_deadlines: read(&self.stuck_deadlines),
        }
    }
}

fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

/// What the writer is made of. State reflects all of the log.
pub(crate) struct Parts<M: Machine, L: BlockLog> {
    pub(crate) log: L,
    /// Time of the log's last record.
    pub(crate) last_time: Micros,
    pub(crate) state: StateReader<M>,
    pub(crate) behind: Arc<Queue<M>>,
    pub(crate) recent: Arc<RecentRecords>,
    pub(crate) head: watch::Sender<Head>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) trouble: Arc<Trouble>,
    pub(crate) folder: Folder,
    pub(crate) suspended: bool,
    /// Whether clock and deadlines are looked at.
    pub(crate) time_acts: bool,
    pub(crate) queue_max: usize,
    pub(crate) lag_max: Lag,
}

/// A writer for [`Writer::run`], and the way to it.
pub(crate) fn writer<M: Machine, L: BlockLog>(parts: Parts<M, L>) -> (Handle<M>, Writer<M, L>) {
    let (sender, inbox) = mpsc::channel(parts.queue_max.max(1));
    let shared = Arc::new(Shared::default());
    shared.suspended.store(parts.suspended, Ordering::Relaxed);
    let head = parts.log.head();
    let writer = Writer {
        inbox,
        shared: Arc::clone(&shared),
        staging: Staging::after(&head, parts.last_time),
        head,
        deadlines: Deadlines::of(&parts.state),
        seen: Seen { wall: parts.clock.wall(), monotonic: parts.clock.monotonic() },
        low: false,
        stopping: Vec::new(),
        parts,
    };
    (Handle { inbox: sender, shared }, writer)
}

/// The only writer of the log.
pub(crate) struct Writer<M: Machine, L: BlockLog> {
    parts: Parts<M, L>,
    inbox: mpsc::Receiver<Message<M>>,
    shared: Arc<Shared>,
    /// The durable head.
    head: Head,
    staging: Staging<M>,
    deadlines: Deadlines<M>,
    seen: Seen,
    /// Less is free than the margin.
    low: bool,
    /// Who asked for a stop.
    stopping: Vec<oneshot::Sender<()>>,
}

/// Both clocks, at one moment.
#[derive(Clone, Copy)]
struct Seen {
    wall: Micros,
    monotonic: Micros,
}

/// Answers that wait for the group to be durable.
struct Answers<M: Machine> {
    outcomes: Vec<(Reply<M>, Outcome<M>, Rests)>,
    sweeps: Vec<(oneshot::Sender<usize>, usize)>,
    /// Deadlines taken up by this group.
    deadlines: usize,
    commands: usize,
    /// Both clocks before the group: a step is not forgotten with it.
    seen_before: Seen,
}

/// What an outcome was decided on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rests {
    /// On durable state alone; and it makes no record.
    OnDurable,
    /// Also on records of its own group.
    OnGroup,
}

impl<M: Machine, L: BlockLog> Writer<M, L> {
    /// Writes until told to stop, until every handle is gone, or until the log fails.
    pub(crate) fn run(mut self) {
        let trouble = Arc::clone(&self.parts.trouble);
        let behind = Arc::clone(&self.parts.behind);
        let work = AssertUnwindSafe(|| {
            self.work();
            self.stop();
        });
        if let Err(panic) = catch_unwind(work) {
            // Outside staging there is no command to blame: nothing is known any more.
            trouble.stop(&format!("the log's writer is broken: {}", panic_text(panic.as_ref())));
            behind.abandon();
        }
    }

    fn work(&mut self) {
        while let Some(first) = self.inbox.blocking_recv() {
            if self.is_over() {
                return;
            }
            self.parts.behind.wait_for_room(self.parts.lag_max, &self.parts.trouble);
            self.group(first);
            if self.is_over() {
                return;
            }
        }
        // Closed and drained after a stop, or no handle is left.
    }

    fn is_over(&self) -> bool {
        self.parts.trouble.is_dead() || self.shared.abandoned.load(Ordering::SeqCst)
    }

    /// Ends the writer behind: cleanly if someone asked for it.
    fn stop(&mut self) {
        if self.stopping.is_empty() || self.is_over() {
            self.parts.behind.abandon();
        } else if self.parts.behind.finish() {
            for reply in self.stopping.drain(..) {
                let _ = reply.send(());
            }
        }
    }

    /// Stages what waits, makes it durable, shows it, answers.
    fn group(&mut self, first: Message<M>) {
        let mut answers = Answers {
            outcomes: Vec::new(),
            sweeps: Vec::new(),
            deadlines: 0,
            commands: 0,
            seen_before: self.seen,
        };
        self.watch_space();
        self.watch_clock();
        self.stage_due(&mut answers);
        self.take(first, &mut answers);
        while self.staging.has_room()
            && answers.commands < GROUP_COMMANDS
            && let Ok(next) = self.inbox.try_recv()
        {
            self.take(next, &mut answers);
        }
        if self.parts.trouble.is_dead() {
            return;
        }
        if self.staging.block.count == 0 {
            self.settle(&[]);
            return self.answer(answers);
        }
        if self.low {
            return self.no_space(answers);
        }
        match self.parts.log.append(&self.head, &self.staging.block) {
            Ok(head) => {
                self.publish(head);
                self.answer(answers);
            }
            Err(AppendError::Full) => {
                if !self.shared.read_only.swap(true, Ordering::Relaxed) {
                    tracing::error!("no space left for the log: read-only until there is");
                }
                self.no_space(answers);
            }
            // Never tried again: a second sync may succeed without having written
            // anything, another writer would fork the log, and a block that the
            // log calls malformed is a fault of this code.
            Err(
                error @ (AppendError::Io(_)
                | AppendError::Conflict { .. }
                | AppendError::Malformed(_)),
            ) => {
                let cause = std::error::Error::source(&error)
                    .map_or_else(String::new, |source| format!(": {source}"));
                self.parts.trouble.stop(&format!(
                    "{error}{cause}; what is on disk is found out by the next start"
                ));
            }
        }
    }

    fn take(&mut self, message: Message<M>, answers: &mut Answers<M>) {
        match message {
            Message::Execute(envelope, reply) => {
                let outcome = self.stage(&envelope).map(|records| Executed { records });
                let rests =
                    if self.staging.block.count == 0 { Rests::OnDurable } else { Rests::OnGroup };
                answers.outcomes.push((reply, outcome, rests));
                answers.commands += 1;
            }
            Message::Sweep(reply) => {
                self.watch_clock();
                self.stage_due(answers);
                answers.sweeps.push((reply, answers.deadlines));
            }
            Message::Tick => (),
            Message::ConfirmClock(reply) => {
                self.confirm_clock();
                let _ = reply.send(());
            }
            Message::Stop(reply) => {
                // What waits is still taken; what comes now is refused.
                self.inbox.close();
                self.stopping.push(reply);
            }
        }
    }

    /// Decides one command and adds its records to the group; on an error the
    /// group is as it was before.
    fn stage(
        &mut self,
        envelope: &Envelope<M>,
    ) -> Result<Vec<Arc<Record>>, ExecuteError<M::Refusal>> {
        let time = self.staging.time.max(self.parts.clock.wall());
        let outcome = self.staging.stage(&self.parts.state, time, envelope);
        let counts = &self.shared.counts;
        match &outcome {
            Ok(_) => (),
            Err(ExecuteError::Refused(_)) => count(&counts.refused, 1),
            Err(_) => count(&counts.internal, 1),
        }
        outcome
    }

    /// Stages what time makes happen by now.
    fn stage_due(&mut self, answers: &mut Answers<M>) {
        if !self.parts.time_acts {
            return;
        }
        let limit = GROUP_DEADLINES.saturating_sub(answers.deadlines);
        let now = self.staging.time.max(self.parts.clock.wall());
        for key in self.deadlines.take_due(&self.parts.state, now, limit) {
            if self.shared.suspended.load(Ordering::Relaxed) && !M::is_expiry(&key) {
                self.deadlines.set_aside(key);
                continue;
            }
            let id = self.fresh_id();
            let command = M::on_deadline(&key, id);
            // Whatever the outcome: a deadline left standing is found by `settle`.
            drop(self.stage(&Envelope { command, causation: id, correlation: id }));
            answers.deadlines += 1;
        }
    }

    /// Looks at how much is free, before sled meets a full disk.
    fn watch_space(&mut self) {
        // The writer behind may wait for space too.
        self.parts.behind.look_again();
        let low = !self.parts.folder.takes_commands(self.parts.behind.owed());
        if low == self.low {
            return;
        }
        self.low = low;
        self.shared.read_only.store(low, Ordering::Relaxed);
        if low {
            tracing::error!(
                free = self.parts.folder.free(),
                margin = self.parts.folder.margin,
                "space is short: read-only until there is more"
            );
        } else {
            tracing::warn!("there is space again");
        }
    }

    /// Compares both clocks; a step of one against the other is an event.
    fn watch_clock(&mut self) {
        if !self.parts.time_acts {
            return;
        }
        let now = Seen { wall: self.parts.clock.wall(), monotonic: self.parts.clock.monotonic() };
        let passed = now.monotonic.0.saturating_sub(self.seen.monotonic.0);
        let expected = Micros(self.seen.wall.0.saturating_add(passed));
        self.seen = now;
        let wall = self.seen.wall;
        if wall.0.abs_diff(expected.0) <= CLOCK_STEP_MAX_US {
            return;
        }
        tracing::warn!(expected_us = expected.0, found_us = wall.0, "the clock has stepped");
        count(&self.shared.counts.clock_steps, 1);
        if wall.0.saturating_sub(expected.0) > CLOCK_SUSPEND_US {
            self.suspend();
        }
        let id = self.fresh_id();
        let command = M::on_clock_step(expected, wall, id);
        drop(self.stage(&Envelope { command, causation: id, correlation: id }));
    }

    fn suspend(&mut self) {
        tracing::warn!("what time alone makes happen is suspended until the clock is confirmed");
        self.shared.suspended.store(true, Ordering::Relaxed);
        note_suspension(&self.parts.folder);
    }

    fn confirm_clock(&mut self) {
        if let Err(error) = self.parts.folder.remove_note(Note::Suspension) {
            tracing::warn!(%error, "the suspension may come back with the next start");
        }
        if self.shared.suspended.swap(false, Ordering::Relaxed) {
            self.deadlines.resume(&self.parts.state);
        }
    }

    fn fresh_id(&self) -> Id {
        fresh_id(&*self.parts.clock, &*self.parts.entropy).first_of_command()
    }

    /// The group is durable: readers may see it.
    fn publish(&mut self, head: Head) {
        let (block, records, changes) = self.staging.finish(&head);
        self.head = head;
        self.shared.read_only.store(false, Ordering::Relaxed);
        count(&self.shared.counts.groups, 1);
        count(&self.shared.counts.records, records.len() as u64);
        let recent = Arc::new(Recent { block, records });
        // Records first: what state or head refers to can be read.
        self.parts.recent.push(Arc::clone(&recent));
        self.parts.state.layers.publish(&changes, head.size);
        self.settle(&changes);
        self.parts.behind.push(Group { recent, changes });
        self.parts.head.send_replace(head);
    }

    fn settle(&mut self, changes: &[Change<M>]) {
        self.deadlines.update(changes);
        for key in self.deadlines.settle(&self.parts.state) {
            tracing::error!(?key, "a deadline was taken up and stands as before");
            count(&self.shared.counts.stuck_deadlines, 1);
        }
    }

    fn answer(&mut self, answers: Answers<M>) {
        for (reply, outcome, _) in answers.outcomes {
            // A caller that went away has dropped its end; the events stand.
            let _ = reply.send(outcome);
        }
        for (reply, deadlines) in answers.sweeps {
            let _ = reply.send(deadlines);
        }
    }

    /// Nothing was written. Outcomes that rest on the group are void.
    fn no_space(&mut self, answers: Answers<M>) {
        self.staging = Staging::after(&self.head, self.staging.durable_time);
        self.deadlines.put_back();
        self.seen = answers.seen_before;
        for (reply, outcome, rests) in answers.outcomes {
            let outcome = match rests {
                Rests::OnDurable => outcome,
                Rests::OnGroup => Err(ExecuteError::ReadOnly),
            };
            let _ = reply.send(outcome);
        }
        for (reply, _) in answers.sweeps {
            let _ = reply.send(0);
        }
    }
}

/// Makes the note that suspends time-made events across restarts.
pub(crate) fn note_suspension(folder: &Folder) {
    if let Err(error) = folder.put_note(Note::Suspension, "") {
        tracing::warn!(%error, "the suspension will not outlast this process");
    }
}

type Overlay<M> = HashMap<<M as Machine>::Key, Option<Arc<<M as Machine>::Entry>>>;

/// The group in progress: its records, and what they change.
struct Staging<M: Machine> {
    block: Block,
    records: Vec<Arc<Record>>,
    /// What the group changes so far.
    changes: Overlay<M>,
    /// What the command in progress changes.
    scratch: Overlay<M>,
    /// Time of the last record staged.
    time: Micros,
    /// Time of the last durable record.
    durable_time: Micros,
}

/// Why a command is discarded.
enum Discard<R> {
    Refused(R),
    TooLarge,
    Broken(&'static str),
}

/// Durable state under what the group and the command change.
struct View<'a, M: Machine> {
    scratch: &'a Overlay<M>,
    group: &'a Overlay<M>,
    state: &'a StateReader<M>,
}

impl<M: Machine> Entries<M> for View<'_, M> {
    fn get(&self, key: &M::Key) -> Option<Arc<M::Entry>> {
        match self.scratch.get(key).or_else(|| self.group.get(key)) {
            Some(changed) => changed.clone(),
            None => self.state.get(key),
        }
    }
}

impl<M: Machine> Staging<M> {
    fn after(head: &Head, time: Micros) -> Self {
        Self {
            block: Block::after(head),
            records: Vec::new(),
            changes: HashMap::new(),
            scratch: HashMap::new(),
            time,
            durable_time: time,
        }
    }

    fn has_room(&self) -> bool {
        self.block.count < GROUP_RECORDS && self.block.frames.len() < GROUP_BYTES
    }

    /// Decides `envelope` on `state` and the group so far. What it makes happen
    /// joins the group in whole, or not at all.
    fn stage(
        &mut self,
        state: &StateReader<M>,
        time: Micros,
        envelope: &Envelope<M>,
    ) -> Result<Vec<Arc<Record>>, ExecuteError<M::Refusal>> {
        let mark = (self.block.count, self.block.chain, self.block.frames.len());
        let staged = catch_unwind(AssertUnwindSafe(|| self.try_stage(state, time, envelope)));
        let scratch = self.scratch.drain();
        let discard = match staged {
            Ok(Ok(records)) => {
                self.changes.extend(scratch);
                if !records.is_empty() {
                    self.time = time;
                }
                self.records.extend(records.iter().cloned());
                return Ok(records);
            }
            Ok(Err(discard)) => discard,
            Err(_) => Discard::Broken("panic"),
        };
        drop(scratch);
        (self.block.count, self.block.chain) = (mark.0, mark.1);
        self.block.frames.truncate(mark.2);
        match discard {
            Discard::Refused(refusal) => Err(ExecuteError::Refused(refusal)),
            Discard::TooLarge => Err(ExecuteError::TooLarge),
            Discard::Broken(why) => {
                tracing::error!(causation = %envelope.causation, why, "a command is discarded");
                Err(ExecuteError::Internal)
            }
        }
    }

    fn try_stage(
        &mut self,
        state: &StateReader<M>,
        time: Micros,
        envelope: &Envelope<M>,
    ) -> Result<Vec<Arc<Record>>, Discard<M::Refusal>> {
        let view = View { scratch: &self.scratch, group: &self.changes, state };
        let drafts = M::decide(&view, time, &envelope.command).map_err(Discard::Refused)?;
        if drafts.len() > COMMAND_RECORDS {
            return Err(Discard::TooLarge);
        }
        let start = self.block.frames.len();
        let mut records = Vec::with_capacity(drafts.len());
        for draft in drafts {
            let record = self.number(state, time, envelope, draft);
            self.block.push_record(&record).map_err(|_| Discard::TooLarge)?;
            if self.block.frames.len() - start > COMMAND_BYTES {
                return Err(Discard::TooLarge);
            }
            self.evolve(state, &record)?;
            records.push(Arc::new(record));
        }
        Ok(records)
    }

    /// Gives a draft its place in the log and in its stream.
    fn number(
        &self,
        state: &StateReader<M>,
        time: Micros,
        envelope: &Envelope<M>,
        draft: Draft,
    ) -> Record {
        let view = View { scratch: &self.scratch, group: &self.changes, state };
        let StreamHead { version, last } = M::head(&view, draft.stream);
        Record {
            position: Position(self.block.head().size),
            time,
            stream_version: version,
            stream_prev: last,
            correlation: envelope.correlation,
            causation: envelope.causation,
            draft,
        }
    }

    /// Folds a record into the scratch, and checks that its stream has grown by it.
    fn evolve(
        &mut self,
        state: &StateReader<M>,
        record: &Record,
    ) -> Result<(), Discard<M::Refusal>> {
        let view = View { scratch: &self.scratch, group: &self.changes, state };
        let changes = M::evolve(&view, record);
        self.scratch.extend(changes);
        let view = View { scratch: &self.scratch, group: &self.changes, state };
        let grown = StreamHead { version: record.stream_version + 1, last: Some(record.position) };
        if M::head(&view, record.draft.stream) == grown {
            Ok(())
        } else {
            Err(Discard::Broken("a record did not move its stream's head"))
        }
    }

    /// What became durable, and an empty group after it.
    fn finish(&mut self, head: &Head) -> (Block, Vec<Arc<Record>>, Vec<Change<M>>) {
        let mut next = Block::after(head);
        // The next group is often as long as this one.
        next.frames.reserve(self.block.frames.len());
        let block = std::mem::replace(&mut self.block, next);
        self.durable_time = self.time;
        (block, std::mem::take(&mut self.records), self.changes.drain().collect())
    }
}

#[cfg(test)]
mod tests;
