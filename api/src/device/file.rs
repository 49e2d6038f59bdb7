//! The state file: mode 0600, replaced whole or not at all.

use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;
use zeroize::Zeroizing;

use super::Phone;

/// The longest state file that is read, in bytes. A phone takes under 1 KiB.
const LENGTH_MAX: u64 = 16 * 1024;

/// Why the state cannot be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// There is a file already, and it was not to be replaced.
    #[error("{} is there already", .0.display())]
    Exists(PathBuf),
    /// There is no such file.
    #[error("there is no {}: `keytrail device activate` makes it", .0.display())]
    Missing(PathBuf),
    /// Others than its owner may read it.
    #[error("{} may be read by others: it holds private keys, and its mode must be 0600", .0.display())]
    Exposed(PathBuf),
    /// It is not a simulated phone's state.
    #[error("{} is not the state of a simulated phone: {why}", .path.display())]
    NotAPhone {
        /// The file.
        path: PathBuf,
        /// What is wrong with it; never a part of it.
        why: String,
    },
    /// The file system fails.
    #[error("{}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// How.
        #[source]
        cause: io::Error,
    },
}

/// Reads the phone in `path`.
///
/// # Errors
///
/// [`StateError`]; also if others may read the file.
pub fn load(path: &Path) -> Result<Phone, StateError> {
    let failed = |cause: io::Error| match cause.kind() {
        io::ErrorKind::NotFound => StateError::Missing(path.to_path_buf()),
        _ => StateError::Io { path: path.to_path_buf(), cause },
    };
    let not = |why: &str| StateError::NotAPhone { path: path.to_path_buf(), why: why.to_owned() };
    let file = File::open(path).map_err(failed)?;
    let about = file.metadata().map_err(failed)?;
    if about.permissions().mode() & 0o077 != 0 {
        return Err(StateError::Exposed(path.to_path_buf()));
    }
    if about.len() > LENGTH_MAX {
        return Err(not("it is too long"));
    }
    let mut text = Zeroizing::new(Vec::with_capacity(LENGTH_MAX as usize));
    file.take(LENGTH_MAX).read_to_end(&mut text).map_err(failed)?;
    // The cause's own words may repeat a part of a secret.
    serde_json::from_slice(&text)
        .map_err(|error| not(&format!("see line {}, column {}", error.line(), error.column())))
}

/// Writes the phone to `path`, which must not exist. Durable on return.
///
/// # Errors
///
/// [`StateError::Exists`], [`StateError::Io`].
pub fn save_new(phone: &Phone, path: &Path) -> Result<(), StateError> {
    let written = write(phone, path)?;
    match written.persist_noclobber(path) {
        Ok(_) => settle(path),
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {
            Err(StateError::Exists(path.to_path_buf()))
        }
        Err(error) => Err(StateError::Io { path: path.to_path_buf(), cause: error.error }),
    }
}

/// Writes the phone to `path`, in place of what is there. Durable on return;
/// whatever happens, the file is the old or the new one.
///
/// # Errors
///
/// [`StateError::Io`].
pub fn save_over(phone: &Phone, path: &Path) -> Result<(), StateError> {
    write(phone, path)?
        .persist(path)
        .map_err(|error| StateError::Io { path: path.to_path_buf(), cause: error.error })?;
    settle(path)
}

/// Removes the phone in `path`, its keys with it. Durable on return.
///
/// # Errors
///
/// [`StateError::Io`].
pub fn remove(path: &Path) -> Result<(), StateError> {
    fs::remove_file(path).map_err(|cause| StateError::Io { path: path.to_path_buf(), cause })?;
    settle(path)
}

/// The phone in a file beside `path`, synced.
fn write(phone: &Phone, path: &Path) -> Result<NamedTempFile, StateError> {
    let failed = |cause| StateError::Io { path: path.to_path_buf(), cause };
    let mut text = Zeroizing::new(Vec::with_capacity(LENGTH_MAX as usize));
    serde_json::to_writer_pretty(&mut *text, phone).map_err(|error| failed(error.into()))?;
    text.push(b'\n');
    let mut file = tempfile::Builder::new()
        .prefix(".keytrail-device-")
        .permissions(Permissions::from_mode(0o600))
        .tempfile_in(folder(path))
        .map_err(failed)?;
    file.write_all(&text).map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    Ok(file)
}

/// Makes the new name durable.
fn settle(path: &Path) -> Result<(), StateError> {
    File::open(folder(path))
        .and_then(|folder| folder.sync_all())
        .map_err(|cause| StateError::Io { path: path.to_path_buf(), cause })
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::device::phone::tests::phone;

    #[test]
    fn the_state_is_private_and_reads_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("phone.json");
        let phone = phone("http://127.0.0.1:1");
        save_new(&phone, &path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        let read = load(&path).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), serde_json::to_string(&phone).unwrap());
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_phone_is_replaced_only_on_purpose_and_stays_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("phone.json");
        save_new(&phone("http://one"), &path).unwrap();
        let again = save_new(&phone("http://two"), &path);
        assert!(matches!(again, Err(StateError::Exists(_))));
        assert_eq!(load(&path).unwrap().server(), "http://one");
        save_over(&phone("http://two"), &path).unwrap();
        assert_eq!(load(&path).unwrap().server(), "http://two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_others_may_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("phone.json");
        save_new(&phone("http://one"), &path).unwrap();
        for mode in [0o640, 0o604, 0o620] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            assert!(matches!(load(&path), Err(StateError::Exposed(_))), "{mode:o}");
        }
    }

    #[test]
    fn what_is_no_state_is_refused_without_repeating_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("phone.json");
        assert!(matches!(load(&path), Err(StateError::Missing(_))));
        for text in [&b"{\"device_token\": \"hunter2\"}"[..], b"", b"\xff", &[b' '; 16 * 1024 + 1]]
        {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
            let error = load(&path).unwrap_err();
            assert!(matches!(error, StateError::NotAPhone { .. }), "{error}");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }
}
