//! The journal: plain append-only segment files, the copy of the log that
//! makes an acknowledged event safe.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use engine::ids::Position;
use engine::machine::Entropy;

use crate::block::{AppendError, Block, BlockLog, Head};
use crate::disk::Disk;
use crate::record::Chain;

/// When a segment is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Sealed at the first group end at or after so many records.
    pub records: u64,
    /// Sealed at the first group end at or after so many bytes.
    pub bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { records: 65_536, bytes: 64 << 20 }
    }
}

/// How the journal is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// When a segment is full.
    pub limits: Limits,
    /// How much of what is there is read.
    pub check: Check,
    /// Who makes the next segment.
    pub reserve: Reserve,
}

/// How much of the journal is read when it is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Check {
    /// The last segment in whole; of the sealed ones header, seal and length.
    #[default]
    Ends,
    /// Every byte.
    All,
}

/// Who makes the next segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reserve {
    /// A thread of its own, ahead of need.
    #[default]
    Ahead,
    /// The append that fills a segment; for tests that need one order of operations.
    Inline,
}

/// A head that something outside the journal says was durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownHead {
    /// Who says so, for messages: "the last signed checkpoint".
    pub source: String,
    /// Number of records.
    pub size: u64,
    /// Chain value of the last of them, if known.
    pub chain: Option<Chain>,
}

/// What stands beside the journal and knows part of the log too.
pub trait Witness {
    /// Heads that were durable once: of the sled copy, the last signed
    /// checkpoint, the guard file.
    fn known_heads(&self) -> Vec<KnownHead>;

    /// Encoded records in order from `from`, at most `limit`; none where the
    /// second copy has none. They are believed only where the chain proves them.
    fn records(&self, from: Position, limit: usize) -> Vec<Vec<u8>>;
}

/// A witness that knows nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoWitness;

impl Witness for NoWitness {
    fn known_heads(&self) -> Vec<KnownHead> {
        Vec::new()
    }

    fn records(&self, _from: Position, _limit: usize) -> Vec<Vec<u8>> {
        Vec::new()
    }
}

/// Something wrong in the journal's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The file.
    pub file: PathBuf,
    /// Where in the file, in bytes.
    pub offset: u64,
    /// The position of the first record concerned.
    pub position: Position,
    /// What is wrong.
    pub what: Damage,
}

/// What is wrong with a part of a journal file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Damage {
    /// Later replaced.
    Torn,
}

/// What opening the journal found and did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovery {
    /// The journal was made now.
    pub created: bool,
    /// Bytes of a torn group that were cut, if there was one. Nothing in them
    /// was ever acknowledged.
    pub cut: Option<Finding>,
    /// Damage that was repaired from the second copy.
    pub repaired: Vec<Finding>,
    /// Records that came from the second copy.
    pub restored_records: u64,
}

/// Why the journal cannot be opened for writing.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Later replaced.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// Whether there is room for what comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Space {
    /// The next segment is reserved, or being reserved.
    Reserved,
    /// It could not be reserved, for this reason: appends work until the
    /// present segment is full, and are then refused.
    Short(String),
}

/// The journal, open for writing. Its only writer.
pub struct Journal {
    _private: (),
}

impl Journal {
    /// Opens the journal in `dir` (the folder `log/`), or makes it, under the
    /// origin line `new_origin`, if there is none.
    ///
    /// Cuts a torn group and repairs damage from `witness`; see `docs/format.md`.
    ///
    /// # Errors
    ///
    /// [`OpenError`] if acknowledged records would be lost by going on.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        new_origin: &str,
        options: Options,
        witness: &dyn Witness,
        entropy: &dyn Entropy,
    ) -> Result<(Self, Recovery), OpenError> {
        let _ = (disk, dir, new_origin, options, witness, entropy);
        unimplemented!()
    }

    /// The log's origin line.
    #[must_use]
    pub fn origin(&self) -> &str {
        unimplemented!()
    }

    /// Whether there is room for what comes.
    #[must_use]
    pub fn space(&self) -> Space {
        unimplemented!()
    }

    /// The sealed segments: first position and number of records of each.
    #[must_use]
    pub fn sealed(&self) -> Vec<(Position, u64)> {
        unimplemented!()
    }
}

impl BlockLog for Journal {
    fn head(&self) -> Head {
        unimplemented!()
    }

    fn append(&mut self, expect: &Head, block: &Block) -> Result<Head, AppendError> {
        let _ = (expect, block);
        unimplemented!()
    }

    fn read(&self, from: Position, limit: usize) -> io::Result<Vec<Vec<u8>>> {
        let _ = (from, limit);
        unimplemented!()
    }
}

/// The origin line of the log in `dir`; none if there is no log.
///
/// # Errors
///
/// If the file is there and cannot be read or holds no origin line.
pub fn read_origin(disk: &dyn Disk, dir: &Path) -> Result<Option<String>, OpenError> {
    let _ = (disk, dir);
    unimplemented!()
}

/// The journal, for reading only: never writes, works on a copy too.
pub struct JournalReader {
    _private: (),
}

/// What a [`JournalReader`] comes upon, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A group whose hash is right and which follows the one before.
    Block(Block),
    /// Something else.
    Finding(Finding),
}

impl JournalReader {
    /// Opens the journal in `dir` (the folder `log/`).
    ///
    /// # Errors
    ///
    /// If the folder or its origin line cannot be read.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path) -> Result<Self, OpenError> {
        let _ = (disk, dir);
        unimplemented!()
    }

    /// The log's origin line.
    #[must_use]
    pub fn origin(&self) -> &str {
        unimplemented!()
    }

    /// Everything in order, from the segment that holds `from`. Memory: one group.
    pub fn items(&self, from: Position) -> impl Iterator<Item = io::Result<Item>> + '_ {
        let _ = from;
        std::iter::empty()
    }
}
