//! A data folder, or a copy of one, open for reading.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use storage::disk::RealDisk;
use storage::journal::{self, JournalReader};
use storage::lock::{LockError, ReadLock};
use storage::notary::{CHECKPOINT_FILE, KEY_FILE};

use crate::one_line;

/// Why a folder cannot be looked at, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// There is no log here.
    #[error("{}: no keytrail log here; the folder named must be the one that holds log/", .0.display())]
    NoLog(PathBuf),
    /// A server runs on it.
    #[error("{0}; stop it first, or look at a copy of the folder log/")]
    InUse(#[source] LockError),
    /// A file cannot be read. That is no damage of the log.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The journal cannot be opened.
    #[error(transparent)]
    Journal(journal::OpenError),
}

impl FolderError {
    /// As an error of reading `path`.
    pub(crate) fn reading(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |source| Self::Io { what: format!("cannot read {}", path.display()), source }
    }
}

/// A folder, kept from servers as long as this lives.
pub(crate) struct Folder {
    /// The folder.
    pub(crate) dir: PathBuf,
    /// Whether servers are kept off.
    pub(crate) lock: Option<ReadLock>,
}

impl Folder {
    /// Opens `dir`, the folder that holds `log/`.
    pub(crate) fn open(dir: &Path) -> Result<Self, FolderError> {
        if !dir.join("log").is_dir() {
            return Err(FolderError::NoLog(dir.to_owned()));
        }
        let lock = ReadLock::share(dir).map_err(|error| match error {
            LockError::Held { .. } => FolderError::InUse(error),
            LockError::Io { path, source } => {
                FolderError::Io { what: format!("cannot read {}", path.display()), source }
            }
        })?;
        Ok(Self { dir: dir.to_owned(), lock })
    }

    /// The journal.
    pub(crate) fn journal(&self) -> Result<JournalReader, journal::OpenError> {
        JournalReader::open(Arc::new(RealDisk), &self.dir.join("log"))
    }

    /// Whether there are segments of a log, in whatever state.
    pub(crate) fn has_segments(&self) -> Result<bool, FolderError> {
        let log = self.dir.join("log");
        let mut items = std::fs::read_dir(&log).map_err(FolderError::reading(&log))?;
        Ok(items.any(|item| {
            item.is_ok_and(|item| item.file_name().to_string_lossy().starts_with("segment-"))
        }))
    }

    /// The files in `log/` that are no part of the log, in the order of their names.
    pub(crate) fn strangers(&self) -> Result<Vec<String>, FolderError> {
        let log = self.dir.join("log");
        let mut found = Vec::new();
        for item in std::fs::read_dir(&log).map_err(FolderError::reading(&log))? {
            let item = item.map_err(FolderError::reading(&log))?;
            let name = item.file_name().to_string_lossy().into_owned();
            let segment = name.strip_prefix("segment-").and_then(|rest| {
                rest.strip_suffix(".ktj").or_else(|| rest.strip_suffix(".checkpoint"))
            });
            let known = ["origin", "reserve.tmp", CHECKPOINT_FILE, KEY_FILE];
            let of_log = known.contains(&name.as_str())
                || segment.is_some_and(|digits| {
                    digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit())
                });
            if !of_log {
                found.push(one_line(&name));
            }
        }
        found.sort();
        Ok(found)
    }

    /// Names of the checkpoints beside sealed segments, in order.
    pub(crate) fn sealed_checkpoints(&self) -> Result<Vec<String>, FolderError> {
        let log = self.dir.join("log");
        let mut found = Vec::new();
        for item in std::fs::read_dir(&log).map_err(FolderError::reading(&log))? {
            let item = item.map_err(FolderError::reading(&log))?;
            let name = item.file_name().to_string_lossy().into_owned();
            let number =
                name.strip_prefix("segment-").and_then(|it| it.strip_suffix(".checkpoint"));
            if number.is_some_and(|it| it.len() == 20 && it.bytes().all(|it| it.is_ascii_digit())) {
                found.push(name);
            }
        }
        found.sort();
        Ok(found)
    }

    /// The folder of what is derived.
    pub(crate) fn store(&self) -> PathBuf {
        self.dir.join("store")
    }

    /// A file of the folder as it is named in reports.
    pub(crate) fn name(&self, file: &Path) -> String {
        file.strip_prefix(&self.dir).unwrap_or(file).display().to_string()
    }
}
