//! Replacing the secret of the key that signs checkpoints.
//!
//! The new secret waits, durably, in `checkpoints-next.key` while the log gets
//! the event that names its key. Only then does it take the place of the old
//! one, whose bytes are overwritten where they stand. If the process dies:
//!
//! - before the event is durable, the old key signs, and what waits is dropped;
//! - after it, the log names the new key, and the next start finishes;
//! - while `checkpoints.key` is overwritten, that file may not read; the secret
//!   that waits is then the one.

use std::path::{Path, PathBuf};

use engine::machine::{Entropy, random};

use super::{
    Disk, KeyError, Part, Privacy, SECRET_FILE_LEN, Secret32, SecretName, Zeroize, decode_secret,
    disk, encode_secret, io,
};
use crate::disk::Open;

const NEXT: &str = "checkpoints-next.key";
const PART: Part = Part::Secret(SecretName::Checkpoints);

fn at(path: &Path) -> impl Fn(io::Error) -> KeyError + '_ {
    |source| KeyError::Io { path: path.to_owned(), source }
}

fn path(dir: &Path) -> PathBuf {
    dir.join(NEXT)
}

/// The secret that waits in `dir` (the folder `keys/`), if there is one.
///
/// # Errors
///
/// [`KeyError`].
pub fn waiting(disk: &dyn Disk, dir: &Path) -> Result<Option<Secret32>, KeyError> {
    let path = path(dir);
    if !disk.exists(&path).map_err(at(&path))? {
        return Ok(None);
    }
    let mut bytes = disk.read(&path, SECRET_FILE_LEN as u64).map_err(at(&path))?;
    let secret = decode_secret(&bytes);
    bytes.zeroize();
    secret.map(Some).ok_or(KeyError::Damaged { path, loss: PART.loss() })
}

/// Makes a secret that waits, durably.
///
/// # Errors
///
/// [`KeyError`].
pub fn prepare(disk: &dyn Disk, dir: &Path, entropy: &dyn Entropy) -> Result<Secret32, KeyError> {
    let secret = Secret32::new(random(entropy));
    let mut bytes = encode_secret(&secret);
    let path = path(dir);
    let made = disk::write_atomically(disk, &path, &bytes, Privacy::Private);
    bytes.zeroize();
    made.map_err(at(&path))?;
    Ok(secret)
}

/// Puts the secret that waits in the place of the old one, which is overwritten.
/// Durable on `Ok`. Nothing if none waits.
///
/// # Errors
///
/// [`KeyError`]; the next start finishes it.
pub fn promote(disk: &dyn Disk, dir: &Path) -> Result<(), KeyError> {
    let Some(secret) = waiting(disk, dir)? else { return Ok(()) };
    let present = dir.join(PART.file_name());
    let mut bytes = encode_secret(&secret);
    // In place, and not a new file: the old secret must not stay on the medium.
    let file = disk.open(&present, Open::Write).map_err(at(&present))?;
    let written = file
        .write_at(&bytes, 0)
        .and_then(|()| file.set_len(SECRET_FILE_LEN as u64))
        .and_then(|()| file.sync_all());
    bytes.zeroize();
    written.map_err(at(&present))?;
    drop_waiting(disk, dir)
}

/// Removes a secret that waits and was never named in the log.
///
/// # Errors
///
/// [`KeyError`].
pub fn drop_waiting(disk: &dyn Disk, dir: &Path) -> Result<(), KeyError> {
    let path = path(dir);
    disk.remove(&path).and_then(|()| disk.sync_dir(dir)).map_err(at(&path))
}
