//! The sled database under `store/sled`: the trees `log` and `state`.
//!
//! Both are derived from the journal. So whatever is wrong with them, the
//! folder is set aside and made again; only what is wrong with the machine (no
//! space, no right, another process) keeps the store from opening.
//!
//! The traps of sled 0.34.7 and what is done about them: `flush()` is no
//! barrier against power loss on Linux, so nothing rests on it; a flipped bit
//! makes opening panic, so panics are caught; a left-over draft of a snapshot
//! of its own keeps it from opening, so it is deleted; a truncated file can open
//! with holes, so state carries a count and a sum of its entries.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use crate::logtree::LogTree;
use crate::record::Chain;
use crate::state::{ENTRY, META, Meta, entry_sum};
use crate::trouble::guarded;

/// Name of sled's folder inside `store/`.
pub(crate) const SLED: &str = "sled";

const ASIDE: &str = "sled.broken-";

/// How often, and with what pauses, a lock is tried that will be given up.
const LOCK_TRIES: u32 = 1_000;
const LOCK_WAIT: Duration = Duration::from_millis(10);

/// Fixed at creation. Keeps every leaf of the log tree below the size from
/// which sled would write it to a file that it never syncs.
const SEGMENT_SIZE: usize = 8 << 20;

/// An open database.
pub(crate) struct Database {
    pub(crate) db: sled::Db,
    pub(crate) state: sled::Tree,
    pub(crate) log_tree: sled::Tree,
    pub(crate) log: LogTree,
    /// What the state tree says it reflects; none if it says nothing.
    pub(crate) meta: Option<Meta>,
}

/// Why a database did not open.
pub(crate) enum DatabaseError {
    /// The machine does not let it.
    Machine(io::Error),
    /// It is damaged: to be set aside.
    Damaged(String),
}

impl Database {
    /// Opens the database in `store`, or makes it, and reads both ends.
    ///
    /// Whoever calls holds the lock of the data folder. So if sled's own lock is
    /// taken, it is by work that a database closed just now in this process has
    /// left to sled's threads: it is waited for.
    pub(crate) fn open(
        store: &Path,
        cache_bytes: u64,
        genesis: Chain,
    ) -> Result<Self, DatabaseError> {
        for _ in 0..LOCK_TRIES {
            match Self::open_once(store, cache_bytes, genesis) {
                Err(DatabaseError::Machine(error)) if is_locked(&error) => {
                    thread::park_timeout(LOCK_WAIT);
                }
                opened => return opened,
            }
        }
        Self::open_once(store, cache_bytes, genesis)
    }

    fn open_once(store: &Path, cache_bytes: u64, genesis: Chain) -> Result<Self, DatabaseError> {
        let dir = store.join(SLED);
        delete_drafts(&dir).map_err(DatabaseError::Machine)?;
        let mut machine_error = None;
        let opened = guarded(|| {
            let db = config(&dir, cache_bytes).open().inspect_err(|error| {
                machine_error = machine_says_no(error);
            })?;
            let log_tree = db.open_tree("log")?;
            let state = db.open_tree("state")?;
            let meta = state.get(META)?.and_then(|bytes| Meta::decode(&bytes));
            sled::Result::Ok((db, log_tree, state, meta))
        });
        if let Some(error) = machine_error {
            return Err(DatabaseError::Machine(error));
        }
        let (db, log_tree, state, meta) = opened.map_err(DatabaseError::Damaged)?;
        let log = guarded(|| LogTree::resume(log_tree.clone(), genesis))
            .map_err(DatabaseError::Damaged)?;
        Ok(Self { db, state, log_tree, log, meta })
    }

    /// Whether the state tree holds the entries that its meta counts.
    pub(crate) fn state_adds_up(&self, meta: &Meta) -> Result<bool, String> {
        let mut counted = Meta { entries: 0, sum: 0, ..*meta };
        guarded(|| {
            for item in self.state.range([ENTRY].as_slice()..) {
                let (key, value) = item?;
                counted.add(entry_sum(&key[1..], &value));
            }
            sled::Result::Ok(())
        })?;
        Ok(counted == *meta)
    }

    /// Lets the state tree ask for no more subjects of the key store than these.
    pub(crate) fn expect_subjects(&mut self, most: u64) -> Result<(), String> {
        match &mut self.meta {
            Some(meta) if meta.subjects > most => {
                meta.subjects = most;
                let bytes = meta.encode();
                guarded(|| self.state.insert(META, bytes)).map(drop)
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Empties the state tree.
    pub(crate) fn forget_state(&mut self) -> Result<(), String> {
        guarded(|| {
            self.db.drop_tree("state")?;
            self.state = self.db.open_tree("state")?;
            sled::Result::Ok(())
        })?;
        self.meta = None;
        Ok(())
    }
}

pub(crate) fn config(dir: &Path, cache_bytes: u64) -> sled::Config {
    sled::Config::default()
        .path(dir)
        .segment_size(SEGMENT_SIZE)
        .cache_capacity(cache_bytes)
        .flush_every_ms(Some(500))
}

/// An error that says nothing about the database.
fn machine_says_no(error: &sled::Error) -> Option<io::Error> {
    let sled::Error::Io(error) = error else { return None };
    let kind = error.kind();
    let text = error.to_string();
    let of_the_machine = matches!(
        kind,
        io::ErrorKind::StorageFull
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::ReadOnlyFilesystem
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::OutOfMemory
    );
    let error = io::Error::new(kind, text);
    (of_the_machine || is_locked(&error)).then_some(error)
}

/// Whether sled says that the file is open elsewhere.
fn is_locked(error: &io::Error) -> bool {
    error.to_string().contains("could not acquire lock")
}

/// Deletes sled's unfinished snapshots, which keep it from opening. Nothing
/// refers to them before they are renamed.
fn delete_drafts(dir: &Path) -> io::Result<()> {
    if !dir.try_exists()? {
        return Ok(());
    }
    for item in fs::read_dir(dir)? {
        let path = item?.path();
        if is_draft(&path) {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// Whether this file is an unfinished snapshot of sled's.
pub(crate) fn is_draft(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.starts_with("snap.") && name.ends_with(".generating")
}

/// Moves sled's folder out of the way; the one moved before it is deleted.
pub(crate) fn set_aside(store: &Path) -> io::Result<PathBuf> {
    let mut last = 0_u64;
    for item in fs::read_dir(store)? {
        let path = item?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if let Some(number) = name.strip_prefix(ASIDE).and_then(|digits| digits.parse().ok()) {
            last = last.max(number);
            fs::remove_dir_all(&path)?;
        }
    }
    let aside = store.join(format!("{ASIDE}{}", last + 1));
    fs::rename(store.join(SLED), &aside)?;
    // Before the note of the damage is taken away.
    fs::File::open(store)?.sync_all()?;
    Ok(aside)
}

/// Makes everything in sled's folder durable, which its own flush does not.
pub(crate) fn sync(store: &Path) -> io::Result<()> {
    let dir = store.join(SLED);
    for item in fs::read_dir(&dir)? {
        let item = item?;
        if item.file_type()?.is_file() {
            fs::File::open(item.path())?.sync_all()?;
        }
    }
    fs::File::open(&dir)?.sync_all()?;
    fs::File::open(store)?.sync_all()
}
