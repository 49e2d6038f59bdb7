//! Opening a data folder: agreement of the two copies, repair, catch-up.
//!
//! ```text
//! log/    journal segments and checkpoints: the truth
//! store/  sled, snapshots of state, marker: can always be made again
//! keys/   mode 0700
//! ```
//!
//! In this order:
//!
//! 1. The folder is locked.
//! 2. sled is opened. If it cannot be, it is set aside and made again.
//! 3. The journal is opened, with sled's copy of the log as a witness: what
//!    sled holds was acknowledged, so the journal must have it, or get it back.
//! 4. sled's copy must lie on the journal's chain, else it is set aside.
//! 5. State is trusted after a clean stop or under the same boot id, and if it
//!    adds up; else it is made again, from a snapshot or from the first record.
//! 6. Both trees are caught up from the journal.
//!
//! Start reading at [`Store::open`].

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use engine::ids::{Micros, Position};
use engine::machine::{Clock, Entropy, Machine};
use tokio::sync::watch;

use crate::behind::{Behind, Lag, Queue};
use crate::block::{BlockLog, Head, genesis};
use crate::catchup::{self, CatchUp};
use crate::database::{self, Database, DatabaseError};
use crate::disk::{Disk, Privacy, RealDisk};
use crate::journal::{self, Item, Journal, JournalReader, KnownHead, NoWitness, Recovery, Witness};
use crate::keys::{Expect, KeyError, KeyStore};
use crate::lock::{FolderLock, LockError};
use crate::logtree;
use crate::marker::{self, Marker};
use crate::reader::{Fallback, LogReader, RecentRecords};
use crate::sequencer::{Handle, Parts, Stopped, note_suspension, writer};
use crate::state::{Layers, Meta, StateReader};
use crate::trouble::{Trouble, guarded};

pub use crate::fold::StateDigest;
pub use crate::trouble::Fatal;

/// State with more entries is not added up before the store serves, but by a
/// snapshot taken right after the start.
const ADD_UP_MAX: u64 = 500_000;

/// How a data folder is opened.
#[derive(Clone)]
pub struct Options {
    /// Names the log in its genesis chain value and in checkpoints. Used where
    /// there is no log yet; later the log's own origin line counts.
    pub origin: String,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Unpredictable bytes.
    pub entropy: Arc<dyn Entropy>,
    /// What journal and key store are written to.
    pub disk: Arc<dyn Disk>,
    /// How the journal is opened.
    pub journal: journal::Options,
    /// Heads that were durable once, by what is known outside the log and sled:
    /// the last signed checkpoint, the guard file.
    pub known_heads: Vec<KnownHead>,
    /// Commands that may wait; one more is refused as busy.
    pub queue_max: usize,
    /// Memory for decoded state entries, in bytes, roughly.
    pub cache_bytes: u64,
    /// Memory for sled's own cache, in bytes; sled uses more than it is told.
    pub sled_cache_bytes: u64,
    /// Records that may be durable and not yet in sled; then writing waits.
    pub lag_max: u64,
    /// The same in bytes of records, which are in memory that long.
    pub lag_bytes_max: usize,
    /// Records between two snapshots of state.
    pub snapshot_every: u64,
    /// A start this many seconds after the last record suspends what time alone
    /// makes happen, except expiry, until an operator confirms the clock.
    pub suspend_after_gap_s: Option<u64>,
    /// How often the writer is woken to look at clock and deadlines, in
    /// milliseconds; none where only commands and [`Handle::sweep`] wake it.
    pub tick_ms: Option<u64>,
    /// Names the running kernel; none to ask it.
    pub boot_id: Option<String>,
    /// Called when the process must not go on.
    pub fatal: Fatal,
    /// Called with records done and records to do while the store is caught up.
    pub progress: Option<Progress>,
}

/// Told of records done and records to do.
pub type Progress = Arc<dyn Fn(u64, u64) + Send + Sync>;

impl Options {
    /// Defaults for a server.
    #[must_use]
    pub fn new(origin: &str, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Self {
        Self {
            origin: origin.to_owned(),
            clock,
            entropy,
            disk: Arc::new(RealDisk),
            journal: journal::Options::default(),
            known_heads: Vec::new(),
            queue_max: 4_096,
            cache_bytes: 64 << 20,
            sled_cache_bytes: 64 << 20,
            lag_max: 65_536,
            lag_bytes_max: 256 << 20,
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
    /// What opening the journal found and did.
    pub journal: Recovery,
    /// Why the sled folder was set aside, if it was.
    pub store_set_aside: Option<String>,
    /// Why stored state was not used, if it was not.
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
    /// Another process runs on it, or the lock cannot be used.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The journal cannot be opened.
    #[error(transparent)]
    Journal(#[from] journal::OpenError),
    /// The key store cannot be opened.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// A file operation failed.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The log does not read as one unbroken chain.
    #[error("the log is damaged at position {}: {why}; put back a copy of the folder `log`", position.0)]
    Damaged {
        /// The first record concerned.
        position: Position,
        /// What is wrong.
        why: String,
    },
    /// The store failed while it was made; the log is as it was.
    #[error("the store could not be made: {0}; delete the folder `store` and start again")]
    Store(String),
}

/// An open data folder with its writer. Dropping it without [`Store::close`]
/// or [`Handle::stop`] leaves the folder as the death of the process would.
pub struct Store<M: Machine> {
    /// Executes commands.
    pub handle: Handle<M>,
    /// Reads state.
    pub state: StateReader<M>,
    /// Reads records.
    pub log: LogReader,
    /// The keys that must never stand in the log.
    pub keys: Arc<KeyStore>,
    /// The log's origin line.
    pub origin: String,
    /// What opening found and did.
    pub report: OpenReport,
    running: Running<M>,
    // Given up last, after the threads have ended.
    _lock: FolderLock,
}

impl<M: Machine> Store<M> {
    /// Opens the folder `dir`, making it if it is not there, repairs what can be
    /// repaired, and starts the writer.
    ///
    /// # Errors
    ///
    /// [`OpenError`]; the folder may be opened again after what it asks for.
    pub fn open(dir: &Path, options: Options) -> Result<Self, OpenError> {
        let disk = Arc::clone(&options.disk);
        let (log_dir, store_dir) = (dir.join("log"), dir.join("store"));
        for part in [dir, &store_dir] {
            std::fs::create_dir_all(part).map_err(io_error("make", part))?;
        }
        disk.create_dir(&log_dir, Privacy::Shared).map_err(io_error("make", &log_dir))?;
        disk.sync_dir(dir).map_err(io_error("sync", dir))?;
        let lock = FolderLock::take(dir)?;
        let origin = journal::read_origin(&*disk, &log_dir)?;
        let origin = origin.unwrap_or_else(|| options.origin.clone());
        let mut report = OpenReport::default();
        let opened = open_database(&store_dir, &options, genesis(&origin), &mut report)?;
        let (journal, recovery) = {
            let entropy = Arc::clone(&options.entropy);
            let witness = SledWitness { database: &opened, known_heads: &options.known_heads };
            Journal::open(
                Arc::clone(&disk),
                &log_dir,
                &origin,
                options.journal,
                &witness,
                &*entropy,
            )?
        };
        report.journal = recovery;
        let expect = if journal.head().size == 0 { Expect::MayBeNew } else { Expect::Existing };
        let keys = dir.join("keys");
        let keys = KeyStore::open(Arc::clone(&disk), &keys, Arc::clone(&options.entropy), expect)?;
        let fallback = Box::new(JournalFallback { disk, dir: log_dir });
        let running =
            Running::start(&store_dir, opened, journal, &origin, fallback, &options, &mut report)?;
        Ok(Self {
            handle: running.handle.clone(),
            state: running.state.clone(),
            log: running.log.clone(),
            keys: Arc::new(keys),
            origin,
            report,
            running,
            _lock: lock,
        })
    }

    /// The digest of state, and the position it stands for. Waits until what is
    /// durable now is in sled, and reads all of state.
    ///
    /// # Errors
    ///
    /// [`Stopped`] if the store no longer runs.
    pub fn digest(&self) -> Result<(Position, StateDigest), Stopped> {
        self.running.queue.digest().ok_or(Stopped)
    }

    /// Stops the writer behind from bringing anything to sled, or lets it go on.
    /// What becomes durable meanwhile is in the journal and in memory, within
    /// the bounds of [`Options::lag_max`] and [`Options::lag_bytes_max`]; beyond
    /// them writing waits. For measuring what the journal costs alone.
    pub fn hold_write_behind(&self, held: bool) {
        self.running.queue.hold(held);
    }

    /// Stops cleanly and gives the folder free: as [`Handle::stop`], but waits
    /// for the threads to end. Not for async code.
    ///
    /// # Errors
    ///
    /// [`Stopped`] if it had stopped already, or could not stop cleanly.
    pub fn close(self) -> Result<(), Stopped> {
        self.handle.stop_blocking()
    }
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
    /// What opening found and did the second time.
    pub report: OpenReport,
}

/// Deletes everything derived in the folder `dir` and makes it again from the
/// log. The store must not be open.
///
/// # Errors
///
/// [`OpenError`].
pub fn rebuild<M: Machine>(dir: &Path, options: &Options) -> Result<Rebuilt, OpenError> {
    let (_, before, _) = digest_of::<M>(dir, options)?;
    let store = dir.join("store");
    std::fs::remove_dir_all(&store).map_err(io_error("delete", &store))?;
    let (position, after, report) = digest_of::<M>(dir, options)?;
    Ok(Rebuilt { position, before, after, report })
}

/// Opens, takes the digest, stops cleanly.
fn digest_of<M: Machine>(
    dir: &Path,
    options: &Options,
) -> Result<(Position, StateDigest, OpenReport), OpenError> {
    // Nothing may happen by itself between the two digests.
    let quiet = Options { tick_ms: None, ..options.clone() };
    let store = Store::<M>::open(dir, quiet)?;
    let stopped = |_| OpenError::Store("the writer has stopped".into());
    let (position, digest) = store.digest().map_err(stopped)?;
    let report = store.report.clone();
    store.close().map_err(stopped)?;
    Ok((position, digest, report))
}

/// The threads and what they share.
pub(crate) struct Running<M: Machine> {
    pub(crate) handle: Handle<M>,
    pub(crate) state: StateReader<M>,
    pub(crate) log: LogReader,
    pub(crate) queue: Arc<Queue<M>>,
    threads: Vec<JoinHandle<()>>,
    ticker: Option<JoinHandle<()>>,
}

impl<M: Machine> Running<M> {
    /// Brings the store in `store_dir` to where `log` stands, and starts.
    pub(crate) fn start<L: BlockLog + 'static>(
        store_dir: &Path,
        opened: Option<Database>,
        log: L,
        origin: &str,
        fallback: Box<dyn Fallback>,
        options: &Options,
        report: &mut OpenReport,
    ) -> Result<Self, OpenError> {
        let genesis = genesis(origin);
        let boot_id = options.boot_id.clone().unwrap_or_else(marker::kernel_boot_id);
        let found = Marker::read(store_dir);
        let mut database = agree(store_dir, opened, &log, genesis, options, report)?;
        let running = Marker { boot_id, state_version: M::STATE_VERSION, clean: false };
        let distrust = match &found {
            Some(found) => found.distrust(&running.boot_id, M::STATE_VERSION),
            None => Some("the store was new"),
        };
        let usable = usable_state(&log, genesis, &database, distrust, M::STATE_VERSION)?;
        // Durable before the first write to sled: a clean stop is over now.
        running.write(store_dir).map_err(io_error("write the marker in", store_dir))?;
        let trouble =
            Arc::new(Trouble::new(Arc::clone(&options.fatal), marker::damage_note(store_dir)));
        let meta = match usable {
            Ok(meta) => meta,
            Err(why) => {
                report.state_remade = Some(why);
                remake_state::<M>(store_dir, &log, genesis, &mut database, report)?
            }
        };
        let checked_late = report.state_remade.is_none() && meta.entries > ADD_UP_MAX;
        let behind =
            Self::behind(store_dir, database, meta, options, &trouble, running, checked_late);
        Self::spawn(store_dir, behind, log, fallback, options, trouble, report)
    }

    fn behind(
        store_dir: &Path,
        database: Database,
        meta: Meta,
        options: &Options,
        trouble: &Arc<Trouble>,
        running: Marker,
        checked_late: bool,
    ) -> Behind<M> {
        let position = Position(meta.position);
        let layers =
            Layers::new(database.state.clone(), position, options.cache_bytes, Arc::clone(trouble));
        let latest = crate::snapshot::all(store_dir).ok().and_then(|mut all| all.pop());
        let dir = store_dir.to_owned();
        Behind {
            db: database.db,
            log_tree: database.log_tree,
            dir: dir.clone(),
            queue: Arc::new(Queue::new()),
            layers: Arc::new(layers),
            recent: Arc::new(RecentRecords::default()),
            log: database.log,
            meta,
            trouble: Arc::clone(trouble),
            snapshot_every: options.snapshot_every.max(1),
            snapshot_at: latest.map_or(0, |(position, _)| position),
            snapshot_now: checked_late,
            taking: None,
            mark_clean: Box::new(move || Marker { clean: true, ..running }.write(&dir)),
        }
    }

    fn spawn<L: BlockLog + 'static>(
        store_dir: &Path,
        mut behind: Behind<M>,
        log: L,
        fallback: Box<dyn Fallback>,
        options: &Options,
        trouble: Arc<Trouble>,
        report: &mut OpenReport,
    ) -> Result<Self, OpenError> {
        let mut catch_up = CatchUp::new(&log, options.progress.as_ref());
        catch_up.run(&mut behind, report)?;
        let head = log.head();
        let last_time = catchup::last_time(&log)?;
        let suspension_note = marker::suspension_note(store_dir);
        let suspended = suspended(options, &suspension_note, head, last_time);
        let state = StateReader { layers: Arc::clone(&behind.layers) };
        let (head_sender, head_watch) = watch::channel(head);
        let recent = Arc::clone(&behind.recent);
        let tree = behind.log_tree.clone();
        let reader = LogReader::new(head_watch, recent, tree, fallback, Arc::clone(&trouble));
        let queue = Arc::clone(&behind.queue);
        let (handle, writer) = writer(Parts {
            log,
            last_time,
            state: state.clone(),
            behind: Arc::clone(&queue),
            recent: Arc::clone(&behind.recent),
            head: head_sender,
            clock: Arc::clone(&options.clock),
            entropy: Arc::clone(&options.entropy),
            trouble,
            suspension_note,
            suspended,
            queue_max: options.queue_max,
            lag_max: Lag { records: options.lag_max.max(1), bytes: options.lag_bytes_max.max(1) },
        });
        let threads = vec![
            start_thread("keytrail-behind", move || behind.run())?,
            start_thread("keytrail-writer", move || writer.run())?,
        ];
        let ticker = options.tick_ms.map(|tick_ms| start_ticker(&handle, tick_ms)).transpose()?;
        Ok(Self { handle, state, log: reader, queue, threads, ticker })
    }
}

impl<M: Machine> Drop for Running<M> {
    fn drop(&mut self) {
        // Without effect after a clean stop, whose threads have ended.
        self.handle.abandon();
        for thread in self.threads.drain(..) {
            // Its panics have been reported where they happened.
            drop(thread.join());
        }
        if let Some(ticker) = self.ticker.take() {
            ticker.thread().unpark();
            drop(ticker.join());
        }
    }
}

fn start_thread(
    name: &str,
    work: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, OpenError> {
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map_err(|source| OpenError::Io { what: format!("cannot start the thread {name}"), source })
}

/// A thread that wakes the writer until it is gone. How exact its waiting is
/// does not matter: the writer asks the clock.
fn start_ticker<M: Machine>(handle: &Handle<M>, tick_ms: u64) -> Result<JoinHandle<()>, OpenError> {
    let ticker = handle.ticker();
    start_thread("keytrail-ticker", move || {
        while ticker.tick().is_ok() {
            thread::park_timeout(Duration::from_millis(tick_ms));
        }
    })
}

/// Whether time-made events are suspended from the start.
fn suspended(options: &Options, note: &PathBuf, head: Head, last_time: Micros) -> bool {
    let noted = note.exists();
    let late = options
        .suspend_after_gap_s
        .is_some_and(|gap_s| head.size > 0 && options.clock.wall() > last_time.plus_s(gap_s));
    if late && !noted {
        tracing::warn!("the last record is old: what time alone makes happen is suspended");
        note_suspension(note);
    }
    noted || late
}

/// Opens the database, or sets it aside; none if there was one and it is gone.
pub(crate) fn open_database(
    store_dir: &Path,
    options: &Options,
    genesis: [u8; 32],
    report: &mut OpenReport,
) -> Result<Option<Database>, OpenError> {
    match Database::open(store_dir, options.sled_cache_bytes, genesis) {
        Ok(database) => Ok(Some(database)),
        Err(DatabaseError::Damaged(why)) => {
            put_aside(store_dir, why, report)?;
            Ok(None)
        }
        Err(DatabaseError::Machine(source)) => {
            Err(OpenError::Io { what: format!("cannot open {}", store_dir.display()), source })
        }
    }
}

fn put_aside(store_dir: &Path, why: String, report: &mut OpenReport) -> Result<(), OpenError> {
    let aside = database::set_aside(store_dir).map_err(io_error("set aside", store_dir))?;
    tracing::warn!(aside = %aside.display(), "the store is made again from the log: {why}");
    report.store_set_aside = Some(why);
    Ok(())
}

/// A database that lies on the log's chain: the one that is open, or a new one.
fn agree(
    store_dir: &Path,
    opened: Option<Database>,
    log: &dyn BlockLog,
    genesis: [u8; 32],
    options: &Options,
    report: &mut OpenReport,
) -> Result<Database, OpenError> {
    let note = marker::damage_note(store_dir);
    if let Some(database) = opened {
        let noted = std::fs::read_to_string(&note).ok();
        match noted.map_or_else(|| disagreement(log, genesis, &database), |why| Ok(Some(why)))? {
            None => return Ok(database),
            Some(why) => {
                drop(database);
                put_aside(store_dir, why, report)?;
            }
        }
    }
    let unusable = || OpenError::Store("a new sled folder does not open".into());
    let database = open_database(store_dir, options, genesis, report)?.ok_or_else(unusable)?;
    // Only now: until the new folder is there, the note is still true.
    match std::fs::remove_file(&note) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(io_error("delete", &note)(error))
        }
        Ok(()) | Err(_) => Ok(database),
    }
}

/// Why sled's copy of the log does not belong to `log`; none if it does.
fn disagreement(
    log: &dyn BlockLog,
    genesis: [u8; 32],
    database: &Database,
) -> Result<Option<String>, OpenError> {
    let copy = database.log.head();
    Ok(if catchup::chain_before(log, genesis, copy.size)? == Some(copy.chain) {
        None
    } else {
        Some(format!("its copy of the log, of {} records, is of another log", copy.size))
    })
}

/// What the state tree reflects, or why it cannot be used.
fn usable_state(
    log: &dyn BlockLog,
    genesis: [u8; 32],
    database: &Database,
    distrust: Option<&str>,
    version: u32,
) -> Result<Result<Meta, String>, OpenError> {
    if let Some(why) = distrust {
        return Ok(Err(why.to_owned()));
    }
    let Some(meta) = database.meta.filter(|meta| meta.version == version) else {
        return Ok(Err("state has no position".into()));
    };
    if catchup::chain_before(log, genesis, meta.position)? != Some(meta.chain) {
        return Ok(Err("state is of another log".into()));
    }
    if meta.entries > ADD_UP_MAX {
        return Ok(Ok(meta));
    }
    Ok(match database.state_adds_up(&meta) {
        Ok(true) => Ok(meta),
        Ok(false) => Err("state does not hold the entries that it counts".into()),
        Err(why) => Err(why),
    })
}

/// Empties state and fills it from the newest snapshot that can be used.
fn remake_state<M: Machine>(
    store_dir: &Path,
    log: &dyn BlockLog,
    genesis: [u8; 32],
    database: &mut Database,
    report: &mut OpenReport,
) -> Result<Meta, OpenError> {
    let mut snapshots = crate::snapshot::all(store_dir).map_err(io_error("list", store_dir))?;
    while let Some((_, path)) = snapshots.pop() {
        database.forget_state().map_err(OpenError::Store)?;
        match catchup::load_snapshot(&path, log, genesis, &database.state, M::STATE_VERSION)? {
            Ok(meta) => {
                report.from_snapshot = Some(Position(meta.position));
                return Ok(meta);
            }
            Err(why) => {
                tracing::warn!(path = %path.display(), "a snapshot of state is dropped: {why}");
                std::fs::remove_file(&path).map_err(io_error("delete", &path))?;
            }
        }
    }
    database.forget_state().map_err(OpenError::Store)?;
    Ok(Meta::empty(M::STATE_VERSION, genesis))
}

fn io_error<'a>(verb: &'a str, path: &'a Path) -> impl FnOnce(io::Error) -> OpenError + 'a {
    move |source| OpenError::Io { what: format!("cannot {verb} {}", path.display()), source }
}

/// What sled knows of the log: only what was acknowledged.
struct SledWitness<'a> {
    database: &'a Option<Database>,
    known_heads: &'a [KnownHead],
}

impl Witness for SledWitness<'_> {
    fn known_heads(&self) -> Vec<KnownHead> {
        let mut heads = self.known_heads.to_vec();
        if let Some(database) = self.database {
            let Head { size, chain } = database.log.head();
            if size > 0 {
                heads.push(KnownHead {
                    source: "the copy in sled".into(),
                    size,
                    chain: Some(chain),
                });
            }
        }
        heads
    }

    fn records(&self, from: Position, limit: usize) -> Vec<Vec<u8>> {
        let Some(database) = self.database else { return NoWitness.records(from, limit) };
        let mut found = Vec::new();
        while found.len() < limit {
            let next = Position(from.0 + found.len() as u64);
            let Ok(Some(block)) = guarded(|| logtree::block_with(&database.log_tree, next)) else {
                break;
            };
            let skipped = (next.0 - block.first.0) as usize;
            let room = limit - found.len();
            found.extend(block.records().skip(skipped).take(room).map(<[u8]>::to_vec));
        }
        found
    }
}

/// Reads the journal's files beside the writer that appends to them.
struct JournalFallback {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
}

impl Fallback for JournalFallback {
    fn records(&self, from: Position, limit: usize) -> io::Result<Vec<Vec<u8>>> {
        let reader =
            JournalReader::open(Arc::clone(&self.disk), &self.dir).map_err(io::Error::other)?;
        for item in reader.items(from) {
            match item? {
                Item::Block(block) if block.head().size > from.0 => {
                    let skipped = from.0.saturating_sub(block.first.0) as usize;
                    let records = block.records().skip(skipped).take(limit);
                    return Ok(records.map(<[u8]>::to_vec).collect());
                }
                // Before the block asked for.
                Item::Block(_) => (),
                Item::Finding(finding) => {
                    return Err(io::Error::other(format!("{:?}", finding.what)));
                }
            }
        }
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests;
