//! A folder that gets each checkpoint as a new file, for storage that is written
//! once, or for whoever picks files up.
//!
//! A file is `<size, 20 digits>.checkpoint`. It gets its name when it is whole
//! and synced, and is never written again. The folder itself is not made: where
//! it is missing, a disk may not be mounted, and the wrong one would be filled.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use storage::disk::{self, Disk, Privacy};
use storage::notary::Guard;
use storage::note::{Checkpoint, NOTE_MAX, Note};

use super::{AnchorError, failed};

/// Ending of a checkpoint's file.
const ENDING: &str = ".checkpoint";
/// Digits of a size in a file's name: those of 2^64.
const DIGITS: usize = 20;

/// A folder of checkpoints of one log.
pub struct Directory {
    dir: PathBuf,
    disk: Arc<dyn Disk>,
}

impl Directory {
    pub(super) fn new(dir: &Path, disk: Arc<dyn Disk>) -> Self {
        Self { dir: dir.to_owned(), disk }
    }

    pub(super) fn name(&self) -> String {
        self.dir.display().to_string()
    }

    fn path(&self, size: u64) -> PathBuf {
        self.dir.join(format!("{size:0DIGITS$}{ENDING}"))
    }

    /// The checkpoint of the largest size, not verified, and that size.
    pub(super) fn newest(&self) -> Result<Option<(u64, Note)>, AnchorError> {
        let files = self.disk.list(&self.dir).map_err(|error| failed(&error))?;
        let newest = files.iter().filter_map(|path| size_of(path)).max();
        newest.map(|size| self.read(size).map(|(_, note)| (size, note))).transpose()
    }

    fn read(&self, size: u64) -> Result<(Checkpoint, Note), AnchorError> {
        let path = self.path(size);
        let bytes = self.disk.read(&path, NOTE_MAX as u64).map_err(|error| failed(&error))?;
        let read = || {
            let note: Note = std::str::from_utf8(&bytes).ok()?.parse().ok()?;
            let checkpoint = Checkpoint::of_text(&note.text).ok()?;
            (checkpoint.size == size).then_some((checkpoint, note))
        };
        let strange = || format!("{} is no checkpoint of that size", path.display());
        read().ok_or_else(|| AnchorError::Failed(strange()))
    }

    /// Leaves a checkpoint, if it is not there yet.
    pub(super) fn submit(&self, latest: &Guard) -> Result<(), AnchorError> {
        let size = latest.checkpoint.size;
        let path = self.path(size);
        if self.disk.exists(&path).map_err(|error| failed(&error))? {
            let (there, _) = self.read(size)?;
            let same = there == latest.checkpoint;
            return if same { Ok(()) } else { Err(AnchorError::OtherHistory { size }) };
        }
        let text = latest.note.to_string();
        disk::write_atomically(&*self.disk, &path, text.as_bytes(), Privacy::Shared)
            .map_err(|error| failed(&error))
    }
}

/// The size in the name of a checkpoint's file.
fn size_of(path: &Path) -> Option<u64> {
    let digits = path.file_name()?.to_str()?.strip_suffix(ENDING)?;
    let all = digits.len() == DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit());
    all.then(|| digits.parse().ok())?
}
