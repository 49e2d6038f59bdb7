//! Reading what is derived in a data folder without changing it: for auditors.
//!
//! sled has no way to open a folder for reading only, and panics on damage. So
//! [`copy_store`] copies it elsewhere, and [`StoreCopy`] opens the copy and turns
//! panics into answers. Nothing here repairs anything.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use engine::ids::Position;

use crate::block::Block;
use crate::database::{self, SLED};
use crate::disk::RealDisk;
use crate::folder::{Folder, Note};
use crate::logtree::{self, TreeError};
use crate::marker::Marker;
use crate::record::Chain;
use crate::state::{ENTRY, META, Meta};
use crate::trouble::guarded;

/// What the folder `store/` says of itself in plain files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreNotes {
    /// Whether the store was stopped cleanly; none where no marker can be read.
    pub stopped_cleanly: Option<bool>,
    /// What the server noted of damage that it came upon.
    pub damage: Option<String>,
}

/// Reads the plain files of `store` (the folder `store/`); they may be missing.
#[must_use]
pub fn notes(store: &Path) -> StoreNotes {
    let folder = Folder { disk: Arc::new(RealDisk), dir: store.to_owned(), margin: 0 };
    StoreNotes {
        stopped_cleanly: Marker::read(&folder).map(|marker| marker.clean),
        damage: folder.note(Note::Damage).ok().flatten(),
    }
}

/// The files of sled in `store` (the folder `store/`), with their lengths in
/// bytes; none if there is no database.
///
/// # Errors
///
/// As the file system says.
pub fn store_files(store: &Path) -> io::Result<Vec<(PathBuf, u64)>> {
    let mut found = Vec::new();
    let sled = store.join(SLED);
    if sled.try_exists()? {
        collect(&sled, &mut found)?;
    }
    found.sort();
    Ok(found)
}

fn collect(dir: &Path, found: &mut Vec<(PathBuf, u64)>) -> io::Result<()> {
    for item in fs::read_dir(dir)? {
        let item = item?;
        let kind = item.file_type()?;
        if kind.is_dir() {
            collect(&item.path(), found)?;
        } else if kind.is_file() && !database::is_draft(&item.path()) {
            found.push((item.path(), item.metadata()?.len()));
        }
    }
    Ok(())
}

/// Copies the files of sled from `store` to `scratch`, an empty folder; `copied`
/// is told the length of each file in bytes. False if there is no database.
///
/// # Errors
///
/// As the file system says.
pub fn copy_store(store: &Path, scratch: &Path, mut copied: impl FnMut(u64)) -> io::Result<bool> {
    let files = store_files(store)?;
    for (from, len) in &files {
        let name = from.strip_prefix(store).map_err(io::Error::other)?;
        let to = scratch.join(name);
        if let Some(folder) = to.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::copy(from, to)?;
        copied(*len);
    }
    Ok(!files.is_empty())
}

/// What the stored state reflects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredState {
    /// The layout of its entries, see [`engine::machine::Machine::STATE_VERSION`].
    pub version: u32,
    /// All records before it are reflected.
    pub position: Position,
    /// Chain value of the last of them.
    pub chain: Chain,
    /// Number of entries.
    pub entries: u64,
}

/// Whether state is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StateFound {
    /// None is.
    Nothing,
    /// What it says of itself is not of this version's layout.
    Unreadable,
    /// It is.
    Stored(StoredState),
}

/// A block of the second copy that cannot be used, or the end of what can be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CopyDamage {
    /// The block that begins here is damaged; those after it can be read.
    #[error("the block that begins at record {0} is damaged")]
    Block(u64),
    /// sled failed; nothing more can be read.
    #[error("{0}")]
    Sled(String),
}

/// A copy of a store, open.
pub struct StoreCopy {
    // Closed last.
    log: sled::Tree,
    state: sled::Tree,
    _db: sled::Db,
}

impl StoreCopy {
    /// Opens what [`copy_store`] made in `scratch`. sled writes to it.
    ///
    /// # Errors
    ///
    /// What sled, or its panic, said.
    pub fn open(scratch: &Path, cache_bytes: u64) -> Result<Self, String> {
        guarded(|| {
            let db = database::config(&scratch.join(SLED), cache_bytes).open()?;
            let log = db.open_tree("log")?;
            let state = db.open_tree("state")?;
            sled::Result::Ok(Self { log, state, _db: db })
        })
    }

    /// The blocks of the second copy of the log in the order of their keys. Each
    /// is checked by itself; whether it follows the one before is not.
    pub fn blocks(&self) -> impl Iterator<Item = Result<Block, CopyDamage>> + use<> {
        Guarded::new(self.log.iter()).map(|item| {
            let (key, value) = item.map_err(CopyDamage::Sled)?;
            logtree::checked_block(&key, &value).map_err(|error| match error {
                TreeError::Damaged(position) => CopyDamage::Block(position),
                TreeError::Sled(error) => CopyDamage::Sled(error.to_string()),
            })
        })
    }

    /// What the stored state reflects.
    ///
    /// # Errors
    ///
    /// What sled, or its panic, said.
    pub fn state(&self) -> Result<StateFound, String> {
        let Some(bytes) = guarded(|| self.state.get(META))? else {
            return Ok(StateFound::Nothing);
        };
        Ok(Meta::decode(&bytes).map_or(StateFound::Unreadable, |meta| {
            StateFound::Stored(StoredState {
                version: meta.version,
                position: Position(meta.position),
                chain: meta.chain,
                entries: meta.entries,
            })
        }))
    }

    /// The entries of state, key and entry as bytes, in the order of their keys.
    /// The first error is the last item.
    pub fn entries(&self) -> impl Iterator<Item = Result<(Vec<u8>, Vec<u8>), String>> + use<> {
        Guarded::new(self.state.range([ENTRY].as_slice()..))
            .map(|item| item.map(|(key, value)| (key[1..].to_vec(), value.to_vec())))
    }
}

/// Ends with what sled's error or panic said.
struct Guarded {
    items: Option<sled::Iter>,
}

impl Guarded {
    fn new(items: sled::Iter) -> Self {
        Self { items: Some(items) }
    }
}

impl Iterator for Guarded {
    type Item = Result<(sled::IVec, sled::IVec), String>;

    fn next(&mut self) -> Option<Self::Item> {
        let items = self.items.as_mut()?;
        let item = guarded(|| items.next().transpose()).transpose();
        if !matches!(item, Some(Ok(_))) {
            self.items = None;
        }
        item
    }
}
