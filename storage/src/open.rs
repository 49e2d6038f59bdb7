//! Opening a data folder: agreement of the two copies, repair, catch-up.
//!
//! ```text
//! log/    journal segments and checkpoints: the truth
//! store/  sled, snapshots, marker: can always be made again
//! keys/   mode 0700
//! ```

use std::path::Path;
use std::sync::Arc;

use engine::ids::Position;
use engine::machine::{Clock, Entropy, Machine};

use crate::reader::LogReader;
use crate::sequencer::Handle;
use crate::state::StateReader;

/// BLAKE3 over the ordered entries of state and their position.
pub type StateDigest = [u8; 32];

/// Called with a message when the process must not go on. The default prints it
/// and aborts; where a test returns from it, the writer has stopped.
pub type Fatal = Arc<dyn Fn(&str) + Send + Sync>;

/// How a data folder is opened.
#[derive(Clone)]
pub struct Options {
    /// Names the log in its genesis chain value and in checkpoints; fixed when
    /// the folder is first opened.
    pub origin: String,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Unpredictable bytes.
    pub entropy: Arc<dyn Entropy>,
    /// Commands that may wait; one more is refused as busy.
    pub queue_max: usize,
    /// Memory for decoded state entries, in bytes, roughly.
    pub cache_bytes: u64,
    /// Memory for sled's own cache, in bytes; sled uses more than it is told.
    pub sled_cache_bytes: u64,
    /// Records between two snapshots of state.
    pub snapshot_every: u64,
    /// A start this many seconds after the last record suspends what time alone
    /// makes happen, except expiry, until an operator confirms the clock.
    pub suspend_after_gap_s: Option<u64>,
    /// How often the writer is woken to look for deadlines, in milliseconds;
    /// none where nothing but [`Handle::sweep`] wakes it.
    pub tick_ms: Option<u64>,
    /// Names the running kernel; none to ask it.
    pub boot_id: Option<String>,
    /// Called when the process must not go on.
    pub fatal: Fatal,
    /// Called with records done and records to do while state is made again.
    pub progress: Option<Arc<dyn Fn(u64, u64) + Send + Sync>>,
}

impl Options {
    /// Defaults for a server.
    #[must_use]
    pub fn new(origin: &str, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Self {
        Self {
            origin: origin.to_owned(),
            clock,
            entropy,
            queue_max: 4_096,
            cache_bytes: 64 << 20,
            sled_cache_bytes: 64 << 20,
            snapshot_every: 1 << 20,
            suspend_after_gap_s: None,
            tick_ms: Some(200),
            boot_id: None,
            fatal: Arc::new(|message| {
                eprintln!("keytrail: {message}");
                std::process::abort()
            }),
            progress: None,
        }
    }
}

/// What opening found and did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OpenReport {
    /// Why the sled folder was set aside, if it was.
    pub store_set_aside: Option<String>,
    /// Why stored state was not trusted, if it was not.
    pub state_remade: Option<String>,
    /// The snapshot from which state was made again; none: from the first record.
    pub from_snapshot: Option<Position>,
    /// Records folded into state.
    pub replayed: u64,
    /// Records copied to sled from the journal.
    pub copied: u64,
}

/// Why a folder cannot be opened. The text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file operation failed.
    #[error("{what}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// The log cannot be read as one unbroken chain.
    #[error("the log is damaged: {0}")]
    Damaged(String),
}

/// An open data folder with its writer.
pub struct Store<M: Machine> {
    /// Executes commands.
    pub handle: Handle<M>,
    /// Reads state.
    pub state: StateReader<M>,
    /// Reads records.
    pub log: LogReader,
    /// What opening found and did.
    pub report: OpenReport,
}

impl<M: Machine> Store<M> {
    /// Opens the folder `dir`, making it if it is not there, repairs what can be
    /// repaired, and starts the writer.
    ///
    /// # Errors
    ///
    /// [`OpenError`]; the folder may be opened again after what it asks for.
    pub fn open(dir: &Path, options: Options) -> Result<Self, OpenError> {
        let _ = options;
        Err(OpenError::Damaged(format!("{} is not open", dir.display())))
    }

    /// The digest of state, and the position it stands for. Writes wait meanwhile.
    ///
    /// # Errors
    ///
    /// [`crate::sequencer::Stopped`] if the store no longer runs.
    pub fn digest(&self) -> Result<(Position, StateDigest), crate::sequencer::Stopped> {
        Err(crate::sequencer::Stopped)
    }

    /// Stops cleanly and gives the folder free: as [`Handle::stop`], but waits
    /// for the threads to end.
    pub fn close(self) {}
}

/// What [`rebuild`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rebuilt {
    /// The log's size: both digests stand for it.
    pub position: Position,
    /// Digest of the state that was there.
    pub before: StateDigest,
    /// Digest of the state made from the log alone.
    pub after: StateDigest,
    /// What opening found and did on the second time.
    pub report: OpenReport,
}

/// Deletes everything derived in the folder `dir` and makes it again from the log.
///
/// # Errors
///
/// [`OpenError`].
pub fn rebuild<M: Machine>(dir: &Path, options: &Options) -> Result<Rebuilt, OpenError> {
    let _ = (dir, options);
    Err(OpenError::Damaged(String::new()))
}
