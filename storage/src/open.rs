//! Opening a data folder: agreement of the two copies, repair, catch-up.
//!
//! ```text
//! log/    journal segments and checkpoints: the truth
//! store/  sled, marker: can always be made again
//! keys/   mode 0700
//! ```

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use engine::ids::{Micros, Position};
use engine::machine::{Clock, Entropy, Machine};
use tokio::sync::watch;

use crate::behind::{Behind, Queue};
use crate::block::{BlockLog, Head, genesis};
use crate::database::{Database, Trees};
use crate::disk::{Disk, RealDisk};
use crate::journal::{Item, Journal, JournalReader, NoWitness};
use crate::lock::FolderLock;
use crate::reader::{Fallback, LogReader, RecentRecords};
use crate::record;
use crate::sequencer::{self, Handle, Stopped};
use crate::state::{Layers, StateReader};
use crate::trouble::{Trouble, guarded};

pub use crate::trouble::Fatal;

/// BLAKE3 over the ordered entries of state and their position.
pub type StateDigest = [u8; 32];

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
    /// Another process has the folder.
    #[error("{0}")]
    Refused(String),
    /// What is derived from the log cannot be made, even anew.
    #[error("the store cannot be made: {0}")]
    Store(String),
}

fn io_error(what: impl Into<String>) -> impl FnOnce(io::Error) -> OpenError {
    let what = what.into();
    move |source| OpenError::Io { what, source }
}

/// Records read from the journal at once while the store catches up.
const CATCH_UP_STEP: usize = 1_024;

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
    behind: Arc<Queue<M>>,
    threads: Vec<JoinHandle<()>>,
}

/// Records from the journal's files, where sled has no answer.
struct FromJournal {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
}

impl Fallback for FromJournal {
    fn records(&self, from: Position, limit: usize) -> io::Result<Vec<Vec<u8>>> {
        let reader = JournalReader::open(Arc::clone(&self.disk), &self.dir)
            .map_err(|error| io::Error::other(error.to_string()))?;
        let mut records = Vec::new();
        for item in reader.items(from) {
            match item? {
                Item::Block(block) => {
                    let skipped = usize::try_from(from.0.saturating_sub(block.first.0));
                    let skipped = skipped.unwrap_or(usize::MAX);
                    records.extend(block.records().skip(skipped).map(<[u8]>::to_vec));
                }
                Item::Finding(_) => break,
            }
            if records.len() >= limit {
                break;
            }
        }
        records.truncate(limit);
        Ok(records)
    }
}

impl<M: Machine> Store<M> {
    /// Opens the folder `dir`, making it if it is not there, repairs what can be
    /// repaired, and starts the writer.
    ///
    /// # Errors
    ///
    /// [`OpenError`]; the folder may be opened again after what it asks for.
    pub fn open(dir: &Path, mut options: Options) -> Result<Self, OpenError> {
        std::fs::create_dir_all(dir).map_err(io_error("the data folder could not be made"))?;
        let lock = FolderLock::take(dir).map_err(|error| OpenError::Refused(error.to_string()))?;
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let logs = dir.join("log");
        let (journal, _) = Journal::open(
            Arc::clone(&disk),
            &logs,
            &options.origin,
            crate::journal::Options::default(),
            &NoWitness,
            options.entropy.as_ref(),
        )
        .map_err(|error| OpenError::Damaged(error.to_string()))?;
        journal.origin().clone_into(&mut options.origin);
        let fallback = Box::new(FromJournal { disk, dir: logs });
        Self::start(journal, fallback, &dir.join("store"), &options, Some(lock))
    }

    /// The digest of state, and the position it stands for.
    ///
    /// # Errors
    ///
    /// [`Stopped`] if the store no longer runs.
    pub fn digest(&self) -> Result<(Position, StateDigest), Stopped> {
        self.behind.digest().ok_or(Stopped)
    }

    /// Stops cleanly and gives the folder free: as [`Handle::stop`], but waits
    /// for the threads to end.
    ///
    /// # Errors
    ///
    /// [`Stopped`] if the store had stopped before, or not cleanly; the next
    /// start then checks state, and makes it again if need be.
    pub fn close(self) -> Result<(), Stopped> {
        let stopped = self.handle.stop_and_wait();
        let threads = self.threads;
        drop((self.handle, self.state, self.log));
        for thread in threads {
            // A thread's own panic has been reported where it happened.
            drop(thread.join());
        }
        stopped
    }

    /// Ends the threads without writing anything more, as a crash does.
    #[cfg(test)]
    pub(crate) fn abandon(self) {
        self.behind.abandon();
        let threads = self.threads;
        drop((self.handle, self.state, self.log));
        for thread in threads {
            drop(thread.join());
        }
    }

    /// Starts the writer over an open `log`, after sled in `store` has caught up.
    pub(crate) fn start<L: BlockLog + 'static>(
        log: L,
        fallback: Box<dyn Fallback>,
        store: &Path,
        options: &Options,
        lock: Option<FolderLock>,
    ) -> Result<Self, OpenError> {
        let trouble = Arc::new(Trouble::new(Arc::clone(&options.fatal), store.join("damaged")));
        let database = Database::open(store, options)?;
        let mut report =
            OpenReport { store_set_aside: database.set_aside.clone(), ..OpenReport::default() };
        let (trees, database) = agree::<M>(&log, database, store, options, &mut report)?;
        let layers = Arc::new(Layers::new(
            trees.state,
            Position(trees.meta.position),
            options.cache_bytes,
            Arc::clone(&trouble),
        ));
        let state = StateReader { layers: Arc::clone(&layers) };
        let recent = Arc::new(RecentRecords::default());
        let (head, head_seen) = watch::channel(log.head());
        let queue = Arc::new(Queue::new());
        let marker = database.marker.clone();
        let mut behind = Behind {
            db: database.db,
            dir: store.to_owned(),
            queue: Arc::clone(&queue),
            layers,
            recent: Arc::clone(&recent),
            log: trees.log,
            meta: trees.meta,
            trouble: Arc::clone(&trouble),
            mark_clean: Box::new(move || marker.stopped()),
        };
        catch_up(&log, &mut behind, &state, options, &mut report)?;
        let log_reader = LogReader::new(
            head_seen,
            Arc::clone(&recent),
            trees.log_tree,
            fallback,
            Arc::clone(&trouble),
        );
        let last_time = last_time(&log)?;
        let suspended = options
            .suspend_after_gap_s
            .is_some_and(|gap| log.head().size > 0 && options.clock.wall() > last_time.plus_s(gap));
        let writing = std::thread::Builder::new()
            .name("write-behind".to_owned())
            .spawn(move || {
                behind.run();
                // It ends last: only now may another process have the folder.
                drop(lock);
            })
            .map_err(io_error("a thread could not be started"))?;
        let parts = sequencer::Parts {
            log,
            state: state.clone(),
            recent,
            behind: Arc::clone(&queue),
            head,
            clock: Arc::clone(&options.clock),
            entropy: Arc::clone(&options.entropy),
            trouble,
            last_time,
            suspended,
        };
        let (handle, deciding) = sequencer::start(parts, options.queue_max, options.tick_ms)
            .map_err(io_error("a thread could not be started"))?;
        let threads = vec![deciding, writing];
        Ok(Self { handle, state, log: log_reader, report, behind: queue, threads })
    }
}

/// Brings sled to a state that lies on the log: both trees at some position of
/// it, or empty.
fn agree<M: Machine>(
    log: &dyn BlockLog,
    mut database: Database,
    store: &Path,
    options: &Options,
    report: &mut OpenReport,
) -> Result<(Trees, Database), OpenError> {
    let genesis = genesis(&options.origin);
    let trees = guarded(|| Trees::open::<M>(&database, genesis)).and_then(|(trees, remade)| {
        lies_on(log, &trees.log.head(), &genesis)?;
        let meta = Head { size: trees.meta.position, chain: trees.meta.chain };
        lies_on(log, &meta, &genesis)?;
        Ok((trees, remade))
    });
    let (trees, remade) = match trees {
        Ok(found) => found,
        Err(why) => {
            database = database.set_aside(store, options, &why)?;
            report.store_set_aside = Some(why);
            guarded(|| Trees::open::<M>(&database, genesis)).map_err(OpenError::Store)?
        }
    };
    report.state_remade = remade;
    database.marker.running().map_err(io_error("the marker of the store could not be written"))?;
    Ok((trees, database))
}

/// Whether the log had this head once.
fn lies_on(log: &dyn BlockLog, head: &Head, genesis: &record::Chain) -> Result<(), String> {
    let chain = match head.size.checked_sub(1) {
        None => Some(*genesis),
        Some(last) => log
            .read(Position(last), 1)
            .map_err(|error| error.to_string())?
            .first()
            .map(|bytes| record::chain(bytes)),
    };
    if chain == Some(head.chain) {
        Ok(())
    } else {
        Err(format!("it does not lie on the log at position {}", head.size))
    }
}

/// Copies to sled what it lacks, and folds what state lacks.
fn catch_up<M: Machine>(
    log: &dyn BlockLog,
    behind: &mut Behind<M>,
    state: &StateReader<M>,
    options: &Options,
    report: &mut OpenReport,
) -> Result<(), OpenError> {
    let end = log.head().size;
    let from = behind.meta.position;
    // The tree of records first, where it stands before state.
    while behind.log.head().size < end {
        let records = read(log, Position(behind.log.head().size))?;
        report.copied += records.len() as u64;
        guarded(|| behind.log.append(records.iter().map(Vec::as_slice)))
            .map_err(OpenError::Store)?;
    }
    while behind.meta.position < end {
        let records = read(log, Position(behind.meta.position))?;
        for bytes in &records {
            fold(behind, state, bytes)?;
        }
        report.replayed += records.len() as u64;
        if let Some(progress) = &options.progress {
            progress(behind.meta.position - from, end - from);
        }
    }
    Ok(())
}

/// Takes one record into the tree `state`.
fn fold<M: Machine>(
    behind: &mut Behind<M>,
    state: &StateReader<M>,
    bytes: &[u8],
) -> Result<(), OpenError> {
    let (record, prev) =
        record::decode(bytes).map_err(|error| OpenError::Damaged(error.to_string()))?;
    let place = behind.meta.position;
    if record.position.0 != place || prev != behind.meta.chain {
        return Err(OpenError::Damaged(format!("the chain breaks at position {place}")));
    }
    let changes = M::evolve(state, &record);
    let mut latest = std::collections::BTreeMap::new();
    latest.extend(changes);
    behind.layers.publish(&latest.clone().into_iter().collect::<Vec<_>>(), place + 1);
    behind.meta.position = place + 1;
    behind.meta.chain = record::chain(bytes);
    let written = behind.write_state(latest.into_iter().collect()).map_err(OpenError::Store)?;
    behind.layers.written(written, place + 1);
    Ok(())
}

fn read(log: &dyn BlockLog, from: Position) -> Result<Vec<Vec<u8>>, OpenError> {
    let records =
        log.read(from, CATCH_UP_STEP).map_err(io_error("the journal could not be read"))?;
    if records.is_empty() {
        return Err(OpenError::Damaged(format!("the record at position {} is missing", from.0)));
    }
    Ok(records)
}

fn last_time(log: &dyn BlockLog) -> Result<Micros, OpenError> {
    let Some(last) = log.head().size.checked_sub(1) else { return Ok(Micros(0)) };
    let records = read(log, Position(last))?;
    let bytes = records.first().map_or(&[][..], Vec::as_slice);
    let (record, _) =
        record::decode(bytes).map_err(|error| OpenError::Damaged(error.to_string()))?;
    Ok(record.time)
}
