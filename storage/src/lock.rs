//! One process per data folder.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The right to write to a data folder, held until dropped.
#[derive(Debug)]
pub struct FolderLock {
    file: File,
}

/// Why a folder could not be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error("another keytrail runs on {}{}", dir.display(), pid.map_or_else(|| ", or looks at it".to_owned(), |pid| format!(" (pid {pid})")))]
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
        let path = dir.join("lock");
        let io = |source| LockError::Io { path: path.clone(), source };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = options.open(&path).map_err(io)?;
        match file.try_lock() {
            Ok(()) => (),
            Err(TryLockError::WouldBlock) => {
                return Err(LockError::Held { dir: dir.to_path_buf(), pid: read_pid(&mut file) });
            }
            Err(TryLockError::Error(source)) => return Err(io(source)),
        }
        // For the message of the next one only: the lock is the system's, and
        // ends with the process whatever the file holds.
        file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(io)?;
        Ok(Self { file })
    }
}

impl Drop for FolderLock {
    /// Whoever is refused later, because of a reader, must not be told this number.
    /// Unlocked by name: closing alone would leave the lock with a process that
    /// was forked off meanwhile, until that one runs its program.
    fn drop(&mut self) {
        let _ = self.file.set_len(0);
        let _ = self.file.unlock();
    }
}

/// Keeps servers off a data folder while it is read, until dropped. Changes nothing.
#[derive(Debug)]
pub struct ReadLock {
    file: File,
}

impl Drop for ReadLock {
    /// As that of [`FolderLock`].
    fn drop(&mut self) {
        let _ = self.file.unlock();
    }
}

impl ReadLock {
    /// Takes a share of the lock of `dir`, beside other readers; none where there
    /// is no lock file, or not for this user: then nobody can be kept off.
    ///
    /// # Errors
    ///
    /// [`LockError::Held`] while a server has it.
    pub fn share(dir: &Path) -> Result<Option<Self>, LockError> {
        let path = dir.join("lock");
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied
                ) =>
            {
                return Ok(None);
            }
            Err(source) => return Err(LockError::Io { path, source }),
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(Some(Self { file })),
            Err(TryLockError::WouldBlock) => {
                Err(LockError::Held { dir: dir.to_path_buf(), pid: read_pid(&mut file) })
            }
            Err(TryLockError::Error(source)) => Err(LockError::Io { path, source }),
        }
    }
}

fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(16).read_to_string(&mut text).ok()?;
    text.trim_end().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_locked_once_and_free_again_after_the_drop() {
        let dir = tempfile::tempdir().unwrap();
        let first = FolderLock::take(dir.path()).unwrap();
        let Err(LockError::Held { pid, .. }) = FolderLock::take(dir.path()) else {
            panic!("locked twice")
        };
        assert_eq!(pid, Some(std::process::id()));
        drop(first);
        FolderLock::take(dir.path()).unwrap();
    }

    #[test]
    fn a_lock_that_was_dropped_does_not_live_on_in_a_copy_of_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let lock = FolderLock::take(dir.path()).unwrap();
        // What a fork makes: another descriptor of the same open file.
        let _inherited = lock.file.try_clone().unwrap();
        drop(lock);
        let reader = ReadLock::share(dir.path()).unwrap().unwrap();
        let _inherited = reader.file.try_clone().unwrap();
        drop(reader);
        FolderLock::take(dir.path()).unwrap();
    }

    #[test]
    fn readers_share_a_folder_that_no_server_has() {
        let dir = tempfile::tempdir().unwrap();
        assert!(ReadLock::share(dir.path()).unwrap().is_none(), "nothing is made");
        let server = FolderLock::take(dir.path()).unwrap();
        assert!(matches!(ReadLock::share(dir.path()), Err(LockError::Held { .. })));
        drop(server);
        let readers = [(); 2].map(|()| ReadLock::share(dir.path()).unwrap().unwrap());
        assert!(matches!(FolderLock::take(dir.path()), Err(LockError::Held { pid: None, .. })));
        drop(readers);
        FolderLock::take(dir.path()).unwrap();
    }

    #[test]
    fn a_folder_that_is_missing_cannot_be_locked() {
        let dir = tempfile::tempdir().unwrap();
        let taken = FolderLock::take(&dir.path().join("missing"));
        assert!(matches!(taken, Err(LockError::Io { .. })));
    }
}
