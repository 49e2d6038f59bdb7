//! One process per data folder.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// The right to write to a data folder, held until dropped.
#[derive(Debug)]
pub struct FolderLock {
    _file: File,
}

/// Why a folder could not be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error("another keytrail runs on {}{}", dir.display(), pid.map_or_else(String::new, |pid| format!(" (pid {pid})")))]
    Held {
        /// The data folder.
        dir: PathBuf,
        /// The other process, if it left its number.
        pid: Option<u32>,
    },
    /// The lock file cannot be used.
    #[error("the lock file {} cannot be used", path.display())]
    Io {
        /// The lock file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

impl FolderLock {
    /// Takes the lock of the data folder `dir`, which must exist.
    ///
    /// # Errors
    ///
    /// [`LockError::Held`] while another process has it.
    pub fn take(dir: &Path) -> Result<Self, LockError> {
        let _ = dir;
        unimplemented!()
    }
}
