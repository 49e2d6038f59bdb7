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
//! 5. The key store must have every subject that it had when state was written.
//! 6. State is trusted after a clean stop or under the same boot id, and if it
//!    adds up; else it is made again, from a snapshot or from the first record.
//! 7. Both trees are caught up from the journal.
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
use crate::folder::{Folder, Note};
use crate::journal::{
    self, Check, Item, Journal, JournalReader, KnownHead, NoWitness, Recovery, Witness,
};
use crate::keys::{Expect, KeyError, KeyStore};
use crate::lock::{FolderLock, LockError};
use crate::logtree;
use crate::marker::{self, Marker};
use crate::reader::{Fallback, LogReader, RecentRecords};
use crate::sequencer::{Handle, Parts, Stopped, note_suspension, writer};
use crate::state::{Layers, Meta, StateReader};
use crate::trouble::{Trouble, guarded};

pub use crate::fold::StateDigest;
pub use crate::rebuild::{Rebuilt, rebuild};
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
    /// What everything but sled and the lock is written to.
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
    /// Whether the writer looks at clock and deadlines at all. Not while the
    /// store is only rebuilt: the log must get no record then.
    pub time_acts: bool,
    /// Bytes that must be free around `store/` for a command to be accepted;
    /// below, the store is read-only, and below a quarter of it nothing is
    /// written to sled any more, nor can the folder be opened.
    pub space_margin: u64,
    /// Goes on with a key store that lacks keys, where no copy has them: what was
    /// sealed under them can never be read again. Once accepted, it is not asked
    /// for again.
    pub accept_lost_keys: bool,
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
            space_margin: 256 << 20,
            accept_lost_keys: false,
            tick_ms: Some(200),
            time_acts: true,
            boot_id: None,
            fatal: Arc::new(|message| {
                eprintln!("keytrail: {message}");
                std::process::abort()
            }),
            progress: None,
        }
    }
}

impl Options {
    /// The folder `store/` in `dir`.
    pub(crate) fn folder(&self, dir: &Path) -> Folder {
        Folder { disk: Arc::clone(&self.disk), dir: dir.to_owned(), margin: self.space_margin }
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
    /// Slots of the key store that one of its two files gave back to the other.
    pub keys_repaired: u64,
    /// Subjects that the key store once had and lacks now; their loss was accepted.
    pub lost_subjects: u64,
    /// Among the records folded or copied: those sealed for a subject that the
    /// key store has never had. They cannot be read.
    pub unknown_subjects: u64,
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
    /// The key store has fewer subjects than it had: it is older than the log.
    #[error("{} holds the keys of {has} users, and there were {needed}: put back the newest copy of the folder keys/", dir.display())]
    KeysLost {
        /// The folder `keys/`.
        dir: PathBuf,
        /// Subjects that it has, erased ones included.
        has: u64,
        /// Subjects that it had.
        needed: u64,
    },
    /// Too little space is left to go on safely. Nothing has changed.
    #[error("{free} bytes are free around {}, and {needed} are needed to open it: make space, or move the data folder to a larger disk", dir.display())]
    NoSpace {
        /// The folder `store/`.
        dir: PathBuf,
        /// Bytes that are free.
        free: u64,
        /// Bytes that must be.
        needed: u64,
    },
    /// There is no log, and what else is there belongs to one.
    #[error("{} holds no log, and yet there was one: put back a copy of it, or begin with an empty data folder", dir.display())]
    LogMissing {
        /// The folder `log/`.
        dir: PathBuf,
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
    /// The latest digest of state that was taken with a snapshot, and the position
    /// it stands for; none until there is one.
    pub digests: watch::Receiver<Option<(Position, StateDigest)>>,
    /// What opening found and did.
    pub report: OpenReport,
    running: Running<M>,
    // Given up last, after the threads have ended.
    _lock: Arc<FolderLock>,
}

impl<M: Machine> Store<M> {
    /// Opens the folder `dir`, making it if it is not there, repairs what can be
    /// repaired, and starts the writer.
    ///
    /// # Errors
    ///
    /// [`OpenError`]; the folder may be opened again after what it asks for.
    pub fn open(dir: &Path, options: Options) -> Result<Self, OpenError> {
        std::fs::create_dir_all(dir).map_err(io_error("make", dir))?;
        let lock = Arc::new(FolderLock::take(dir)?);
        Self::open_under(lock, dir, options)
    }

    /// As [`Store::open`], under a lock of `dir` that is held already.
    pub(crate) fn open_under(
        lock: Arc<FolderLock>,
        dir: &Path,
        options: Options,
    ) -> Result<Self, OpenError> {
        match Self::open_once(&lock, dir, &options) {
            // Found while reading what the usual check of the journal leaves
            // unread: now it is read in whole, and repaired from the second copy.
            Err(OpenError::Damaged { .. }) if options.journal.check == Check::Ends => {
                let journal = journal::Options { check: Check::All, ..options.journal };
                Self::open_once(&lock, dir, &Options { journal, ..options })
            }
            opened => opened,
        }
    }

    fn open_once(lock: &Arc<FolderLock>, dir: &Path, options: &Options) -> Result<Self, OpenError> {
        let disk = Arc::clone(&options.disk);
        let (log_dir, store_dir) = (dir.join("log"), dir.join("store"));
        make_folders(options, dir, &[&log_dir, &store_dir])?;
        let folder = options.folder(&store_dir);
        catchup::enough_space(&folder)?;
        let found = journal::read_origin(&*disk, &log_dir)?;
        let origin = found.clone().unwrap_or_else(|| options.origin.clone());
        let mut report = OpenReport::default();
        let opened = open_database(&store_dir, options, genesis(&origin), &mut report)?;
        let witness = SledWitness { database: &opened, known_heads: &options.known_heads };
        let copied = opened.as_ref().map_or(0, |database| database.log.head().size);
        if found.is_none() && copied == 0 {
            not_lost(&folder, &dir.join("keys"))?;
        }
        let entropy = &*options.entropy;
        let (journal, recovery) =
            Journal::open(disk, &log_dir, &origin, options.journal, &witness, entropy)?;
        report.journal = recovery;
        let keys = open_keys(options, dir, journal.head(), &mut report)?;
        let fallback = Box::new(JournalFallback { disk: Arc::clone(&options.disk), dir: log_dir });
        let held = Some(Arc::clone(&keys));
        let source = Source { log: journal, origin: &origin, fallback, keys: held };
        let running = Running::start(&folder, opened, source, options, &mut report)?;
        Ok(Self {
            handle: running.handle.clone(),
            state: running.state.clone(),
            log: running.log.clone(),
            keys,
            origin,
            digests: running.digests.clone(),
            report,
            running,
            _lock: Arc::clone(lock),
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

    /// As [`Store::digest`]; none if state is so large that reading all of it would
    /// hold up a stop.
    ///
    /// # Errors
    ///
    /// [`Stopped`] if the store no longer runs.
    pub fn digest_to_stop(&self) -> Result<Option<(Position, StateDigest)>, Stopped> {
        self.running.queue.digest_to_stop().ok_or(Stopped)
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

fn make_folders(options: &Options, dir: &Path, parts: &[&PathBuf]) -> Result<(), OpenError> {
    let disk = &options.disk;
    for part in parts {
        // On the machine's own disk as well: sled and the lock know no other.
        std::fs::create_dir_all(part).map_err(io_error("make", part))?;
        disk.create_dir(part, Privacy::Shared).map_err(io_error("make", part))?;
    }
    disk.sync_dir(dir).map_err(io_error("sync", dir))
}

/// An error where there is no log, and yet there was one: keys and marker are
/// made after it.
fn not_lost(folder: &Folder, keys: &Path) -> Result<(), OpenError> {
    let had_keys = KeyStore::is_in(folder.disk.as_ref(), keys)?;
    if had_keys || Marker::read(folder).is_some() {
        return Err(OpenError::LogMissing { dir: folder.dir.with_file_name("log") });
    }
    Ok(())
}

fn open_keys(
    options: &Options,
    dir: &Path,
    head: Head,
    report: &mut OpenReport,
) -> Result<Arc<KeyStore>, OpenError> {
    let expect = if head.size == 0 { Expect::MayBeNew } else { Expect::Existing };
    let entropy = Arc::clone(&options.entropy);
    let keys = KeyStore::open(Arc::clone(&options.disk), &dir.join("keys"), entropy, expect)?;
    report.keys_repaired = keys.repaired();
    Ok(Arc::new(keys))
}

/// What a store is made from.
pub(crate) struct Source<'a, L> {
    pub(crate) log: L,
    pub(crate) origin: &'a str,
    pub(crate) fallback: Box<dyn Fallback>,
    /// None where a test has none.
    pub(crate) keys: Option<Arc<KeyStore>>,
}

/// The threads and what they share.
pub(crate) struct Running<M: Machine> {
    pub(crate) handle: Handle<M>,
    pub(crate) state: StateReader<M>,
    pub(crate) log: LogReader,
    pub(crate) queue: Arc<Queue<M>>,
    pub(crate) digests: watch::Receiver<Option<(Position, StateDigest)>>,
    threads: Vec<JoinHandle<()>>,
    ticker: Option<JoinHandle<()>>,
}

impl<M: Machine> Running<M> {
    /// Brings the store in `folder` to where `log` stands, and starts.
    pub(crate) fn start<L: BlockLog + 'static>(
        folder: &Folder,
        opened: Option<Database>,
        source: Source<'_, L>,
        options: &Options,
        report: &mut OpenReport,
    ) -> Result<Self, OpenError> {
        let Source { log, origin, fallback, keys } = source;
        let genesis = genesis(origin);
        let boot_id = options.boot_id.clone().unwrap_or_else(marker::kernel_boot_id);
        let found = Marker::read(folder);
        let mut database = agree(folder, opened, &log, genesis, options, report)?;
        if let Some(keys) = &keys {
            enough_keys(keys, folder, &log, genesis, &mut database, options, report)?;
        }
        let running = Marker { boot_id, state_version: M::STATE_VERSION, clean: false };
        let distrust = match &found {
            Some(found) => found.distrust(&running.boot_id, M::STATE_VERSION),
            None => Some("the store was new"),
        };
        let usable = usable_state(&log, genesis, &database, distrust, M::STATE_VERSION)?;
        // Durable before the first write to sled: a clean stop is over now.
        running.write(folder).map_err(io_error("write the marker in", &folder.dir))?;
        let trouble = Arc::new(Trouble::new(Arc::clone(&options.fatal), folder.clone()));
        let meta = match usable {
            Ok(meta) => meta,
            Err(why) => {
                report.state_remade = Some(why);
                remake_state::<M>(folder, &log, genesis, &mut database, report)?
            }
        };
        let checked_late = report.state_remade.is_none() && meta.entries > ADD_UP_MAX;
        let mut behind =
            Self::behind(folder, database, meta, options, &trouble, running, checked_late);
        behind.keys = keys;
        Self::spawn(folder, behind, log, fallback, options, trouble, report)
    }

    fn behind(
        folder: &Folder,
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
        let latest = crate::snapshot::all(folder).ok().and_then(|mut all| all.pop());
        let marked = folder.clone();
        Behind {
            db: database.db,
            log_tree: database.log_tree,
            folder: folder.clone(),
            queue: Arc::new(Queue::new()),
            layers: Arc::new(layers),
            recent: Arc::new(RecentRecords::default()),
            log: database.log,
            meta,
            trouble: Arc::clone(trouble),
            keys: None,
            snapshot_every: options.snapshot_every.max(1),
            snapshot_at: latest.map_or(0, |(position, _)| position),
            snapshot_now: checked_late,
            taking: None,
            held_back: true,
            digests: watch::channel(None).0,
            mark_clean: Box::new(move || Marker { clean: true, ..running }.write(&marked)),
        }
    }

    fn spawn<L: BlockLog + 'static>(
        folder: &Folder,
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
        let suspended = suspended(options, folder, head, last_time)?;
        let state = StateReader { layers: Arc::clone(&behind.layers) };
        let (head_sender, head_watch) = watch::channel(head);
        let recent = Arc::clone(&behind.recent);
        let tree = behind.log_tree.clone();
        let reader = LogReader::new(head_watch, recent, tree, fallback, Arc::clone(&trouble));
        let queue = Arc::clone(&behind.queue);
        let digests = behind.digests.subscribe();
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
            folder: folder.clone(),
            suspended,
            time_acts: options.time_acts,
            queue_max: options.queue_max,
            lag_max: Lag { records: options.lag_max.max(1), bytes: options.lag_bytes_max.max(1) },
        });
        let threads = vec![
            start_thread("keytrail-behind", move || behind.run())?,
            start_thread("keytrail-writer", move || writer.run())?,
        ];
        let ticker = options.tick_ms.map(|tick_ms| start_ticker(&handle, tick_ms)).transpose()?;
        Ok(Self { handle, state, log: reader, queue, digests, threads, ticker })
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
fn suspended(
    options: &Options,
    folder: &Folder,
    head: Head,
    last_time: Micros,
) -> Result<bool, OpenError> {
    let noted = folder.note(Note::Suspension).map_err(io_error("read notes in", &folder.dir))?;
    let noted = noted.is_some();
    let late = options
        .suspend_after_gap_s
        .is_some_and(|gap_s| head.size > 0 && options.clock.wall() > last_time.plus_s(gap_s));
    if late && !noted {
        tracing::warn!("the last record is old: what time alone makes happen is suspended");
        note_suspension(folder);
    }
    Ok(noted || late)
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
    folder: &Folder,
    opened: Option<Database>,
    log: &dyn BlockLog,
    genesis: [u8; 32],
    options: &Options,
    report: &mut OpenReport,
) -> Result<Database, OpenError> {
    let store_dir = folder.dir.as_path();
    if let Some(database) = opened {
        let noted = folder.note(Note::Damage).map_err(io_error("read notes in", store_dir))?;
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
    folder.remove_note(Note::Damage).map_err(io_error("delete a note in", store_dir))?;
    Ok(database)
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

/// An error if the key store lacks subjects that it had when state, or a
/// snapshot of it, was written.
fn enough_keys(
    keys: &KeyStore,
    folder: &Folder,
    log: &dyn BlockLog,
    genesis: [u8; 32],
    database: &mut Database,
    options: &Options,
    report: &mut OpenReport,
) -> Result<(), OpenError> {
    let has = keys.subjects_made();
    let on_chain = |position, chain| {
        catchup::chain_before(log, genesis, position).map(|found| found == Some(chain))
    };
    let mut needed = has;
    if let Some(meta) = &database.meta
        && on_chain(meta.position, meta.chain)?
    {
        needed = needed.max(meta.subjects);
    }
    let snapshots = crate::snapshot::all(folder).map_err(io_error("list", &folder.dir))?;
    for (_, path) in snapshots {
        let Ok(stand) = crate::snapshot::stand_of(folder.disk.as_ref(), &path) else { continue };
        if stand.subjects <= has || !on_chain(stand.position, stand.chain)? {
            continue;
        }
        needed = needed.max(stand.subjects);
        if options.accept_lost_keys {
            folder.disk.remove(&path).map_err(io_error("delete", &path))?;
        }
    }
    report.lost_subjects = needed - has;
    if needed > has && !options.accept_lost_keys {
        return Err(OpenError::KeysLost { dir: keys.dir().to_owned(), has, needed });
    }
    database.expect_subjects(has).map_err(OpenError::Store)
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
    folder: &Folder,
    log: &dyn BlockLog,
    genesis: [u8; 32],
    database: &mut Database,
    report: &mut OpenReport,
) -> Result<Meta, OpenError> {
    let disk = folder.disk.as_ref();
    let mut snapshots = crate::snapshot::all(folder).map_err(io_error("list", &folder.dir))?;
    while let Some((_, path)) = snapshots.pop() {
        database.forget_state().map_err(OpenError::Store)?;
        match catchup::load_snapshot(disk, &path, log, genesis, &database.state, M::STATE_VERSION)?
        {
            Ok(meta) => {
                report.from_snapshot = Some(Position(meta.position));
                return Ok(meta);
            }
            Err(why) => {
                tracing::warn!(path = %path.display(), "a snapshot of state is dropped: {why}");
                disk.remove(&path).map_err(io_error("delete", &path))?;
            }
        }
    }
    database.forget_state().map_err(OpenError::Store)?;
    Ok(Meta::empty(M::STATE_VERSION, genesis))
}

pub(crate) fn io_error<'a>(
    verb: &'a str,
    path: &'a Path,
) -> impl FnOnce(io::Error) -> OpenError + 'a {
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
