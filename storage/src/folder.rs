//! The folder `store/`: files of our own in it, and the space around it.
//!
//! Everything that is not sled's is written through [`Disk`], so that a test
//! can cut the power between any two steps.
//!
//! sled must never meet a full disk: it panics in whatever thread writes, and
//! what it leaves may not open. So two marks keep it away from the end. Below
//! the first, the margin, no command is accepted any more: the store is
//! read-only. What is durable by then still finds its way to sled, down to the
//! second mark. Below that, sled is left alone until there is space again.
//! Both marks lie higher by what is still on its way to sled: free space does not
//! show yet what that will take.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::disk::{self, Disk, Privacy};

/// What a note's text may be at most, in bytes.
const NOTE_MAX: u64 = 64 << 10;

/// Bytes that sled's files grow by for a byte of records, at most: 2 to 3.4 were
/// measured, the more the smaller the batches.
const SLED_GROWTH: u64 = 4;

/// A fact that outlives the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Note {
    /// What is derived from the log is damaged; the text says how.
    Damage,
    /// A step of the clock has suspended what time alone makes happen.
    Suspension,
}

impl Note {
    pub(crate) fn file_name(self) -> &'static str {
        match self {
            Self::Damage => "damaged",
            Self::Suspension => "clock-suspended",
        }
    }
}

/// The folder `store/`.
#[derive(Clone)]
pub(crate) struct Folder {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) dir: PathBuf,
    /// Bytes that must be free for a command to be accepted.
    pub(crate) margin: u64,
}

impl Folder {
    /// The text of a note, if it is there.
    pub(crate) fn note(&self, note: Note) -> io::Result<Option<String>> {
        match self.disk.read(&self.dir.join(note.file_name()), NOTE_MAX) {
            Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Puts a note there, durably. A long text is cut.
    pub(crate) fn put_note(&self, note: Note, text: &str) -> io::Result<()> {
        let text = &text.as_bytes()[..text.len().min(NOTE_MAX as usize)];
        let path = self.dir.join(note.file_name());
        disk::write_atomically(self.disk.as_ref(), &path, text, Privacy::Shared)
    }

    /// Takes a note away, durably; nothing if it is not there.
    pub(crate) fn remove_note(&self, note: Note) -> io::Result<()> {
        match self.disk.remove(&self.dir.join(note.file_name())) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            removed => removed?,
        }
        self.disk.sync_dir(&self.dir)
    }

    /// Whether there is space enough to accept commands, where so many bytes of
    /// records are durable and not yet in sled.
    pub(crate) fn takes_commands(&self, owed: usize) -> bool {
        self.has_free(self.margin, owed)
    }

    /// Whether there is space enough to write so many bytes of records to sled.
    pub(crate) fn takes_sled(&self, owed: usize) -> bool {
        self.has_free(self.least(), owed)
    }

    /// Bytes that must be free for sled to be written to.
    pub(crate) fn least(&self) -> u64 {
        self.margin / 4
    }

    /// Bytes that are free. Where the system does not say, it counts as enough:
    /// what is written to the log finds out by itself.
    pub(crate) fn free(&self) -> u64 {
        self.disk.free_bytes(&self.dir).unwrap_or(u64::MAX)
    }

    fn has_free(&self, mark: u64, owed: usize) -> bool {
        self.free() >= mark.saturating_add(SLED_GROWTH.saturating_mul(owed as u64))
    }
}
