//! The file layer under everything this crate writes itself: journal, key
//! store, snapshots and small atomic files.
//!
//! [`Disk`] is what those writers may do and no more, so that a test can stand
//! in for the disk: [`MemoryDisk`] fills up, [`RecordingDisk`] remembers every
//! operation in order and builds the disk that a power cut would have left.
//!
//! What is promised: nothing beyond POSIX. A write is durable after a sync of
//! its file, a name after a sync of its folder.

mod memory;
mod recording;

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

pub use memory::MemoryDisk;
pub use recording::{Chooser, FileNumber, Op, Recording, RecordingDisk};

/// Who may read a file or folder that is created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Privacy {
    /// The owner only: files 0600, folders 0700.
    Private,
    /// As the process' umask says: files 0666, folders 0777 before it.
    Shared,
}

/// What to do about a file's existence when opening it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Open {
    /// It must exist; it is opened for reading only.
    Read,
    /// It must exist; it is opened for reading and writing.
    Write,
    /// It must not exist; it is made, empty, for reading and writing.
    Create(Privacy),
    /// It is emptied if it exists, made if not, for reading and writing.
    Replace(Privacy),
}

/// An open file. Offsets and lengths are in bytes.
pub trait DiskFile: Send + Sync {
    /// The present length.
    ///
    /// # Errors
    ///
    /// As the medium says.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file has no bytes.
    ///
    /// # Errors
    ///
    /// As the medium says.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Reads into `out` from `offset`; fewer bytes than asked for only at the end.
    ///
    /// # Errors
    ///
    /// As the medium says.
    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all of `bytes` at `offset`; the file grows where needed.
    ///
    /// # Errors
    ///
    /// As the medium says; [`io::ErrorKind::StorageFull`] without space. Part of
    /// the bytes may have been written then.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Cuts the file, or makes it longer with zeros that take no space.
    ///
    /// # Errors
    ///
    /// As the medium says.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Makes content and length durable.
    ///
    /// # Errors
    ///
    /// As the medium says. Never to be tried again: a second try may succeed
    /// without having written anything.
    fn sync_data(&self) -> io::Result<()>;

    /// Makes content, length and attributes durable.
    ///
    /// # Errors
    ///
    /// As [`DiskFile::sync_data`].
    fn sync_all(&self) -> io::Result<()>;

    /// Takes everyone's right to write (0400 or 0444, as the mode was private or not).
    ///
    /// # Errors
    ///
    /// As the medium says.
    fn set_read_only(&self) -> io::Result<()>;

    /// Fills `out` from `offset`.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::UnexpectedEof`] if the file ends before.
    fn read_exact_at(&self, mut out: &mut [u8], mut offset: u64) -> io::Result<()> {
        while !out.is_empty() {
            let read = self.read_at(out, offset)?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            out = &mut out[read..];
            offset += read as u64;
        }
        Ok(())
    }

    /// Writes `len` zeros from `offset`: real ones, that take their space now.
    ///
    /// # Errors
    ///
    /// As [`DiskFile::write_at`].
    fn write_zeros(&self, offset: u64, len: u64) -> io::Result<()> {
        const STEP: usize = 1 << 20;
        let zeros = vec![0; STEP.min(usize::try_from(len).unwrap_or(STEP))];
        let end = offset + len;
        let mut at = offset;
        while at < end {
            let step = (zeros.len() as u64).min(end - at);
            self.write_at(&zeros[..step as usize], at)?;
            at += step;
        }
        Ok(())
    }
}

/// A tree of folders and files.
pub trait Disk: Send + Sync + 'static {
    /// Opens a file.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::NotFound`], [`io::ErrorKind::AlreadyExists`] as `how`
    /// asks, and what the medium says.
    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn DiskFile>>;

    /// Gives a file another name, replacing what had it.
    ///
    /// # Errors
    ///
    /// As the medium says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    ///
    /// As the medium says.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// The files and folders in `dir`, by name, in the order of their names.
    ///
    /// # Errors
    ///
    /// As the medium says.
    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>>;

    /// Makes a folder and those above it; nothing if it is there.
    ///
    /// # Errors
    ///
    /// As the medium says.
    fn create_dir(&self, dir: &Path, privacy: Privacy) -> io::Result<()>;

    /// Makes the names in a folder durable.
    ///
    /// # Errors
    ///
    /// As the medium says.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Whether something has this name.
    ///
    /// # Errors
    ///
    /// As the medium says.
    fn exists(&self, path: &Path) -> io::Result<bool>;

    /// Bytes that are free where `dir` is.
    ///
    /// # Errors
    ///
    /// As the medium says.
    fn free_bytes(&self, dir: &Path) -> io::Result<u64>;

    /// A whole file of at most `max` bytes.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::FileTooLarge`] beyond `max`, and what the medium says.
    fn read(&self, path: &Path, max: u64) -> io::Result<Vec<u8>> {
        let file = self.open(path, Open::Read)?;
        let len = file.len()?;
        if len > max {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let mut bytes = vec![0; len as usize];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }
}

/// Replaces the file at `path` by one with `bytes`, so that at every moment,
/// a power cut included, either the old or the new content is there in whole.
/// On `Ok` it is the new one, durably.
///
/// # Errors
///
/// As the disk says. The old content may then have been replaced or not.
pub fn write_atomically(
    disk: &dyn Disk,
    path: &Path,
    bytes: &[u8],
    privacy: Privacy,
) -> io::Result<()> {
    let temporary = temporary_path(path);
    let file = disk.open(&temporary, Open::Replace(privacy))?;
    file.write_at(bytes, 0)?;
    file.sync_all()?;
    drop(file);
    disk.rename(&temporary, path)?;
    disk.sync_dir(parent(path))
}

/// Where [`write_atomically`] prepares the content of `path`. A left-over is
/// worth nothing and is overwritten by the next write.
#[must_use]
pub fn temporary_path(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".tmp");
    path.with_file_name(name)
}

/// The folder of `path`; the present one for a bare name.
#[must_use]
pub fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        Some(_) | None => Path::new("."),
    }
}

/// The machine's own file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true);
        match how {
            Open::Read => &mut options,
            Open::Write => options.write(true),
            Open::Create(privacy) => options.write(true).create_new(true).mode(file_mode(privacy)),
            Open::Replace(privacy) => {
                options.write(true).create(true).truncate(true).mode(file_mode(privacy))
            }
        };
        Ok(Box::new(RealFile(options.open(path)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let mut paths = fs::read_dir(dir)?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<io::Result<Vec<_>>>()?;
        paths.sort();
        Ok(paths)
    }

    fn create_dir(&self, dir: &Path, privacy: Privacy) -> io::Result<()> {
        let mode = match privacy {
            Privacy::Private => 0o700,
            Privacy::Shared => 0o777,
        };
        fs::DirBuilder::new().recursive(true).mode(mode).create(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        path.try_exists()
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        let space = rustix::fs::statvfs(dir)?;
        Ok(space.f_bavail.saturating_mul(space.f_frsize))
    }
}

fn file_mode(privacy: Privacy) -> u32 {
    match privacy {
        Privacy::Private => 0o600,
        Privacy::Shared => 0o666,
    }
}

struct RealFile(File);

impl DiskFile for RealFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(out, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.0.sync_all()
    }

    fn set_read_only(&self) -> io::Result<()> {
        let mut permissions = self.0.metadata()?.permissions();
        permissions.set_mode(permissions.mode() & !0o222);
        self.0.set_permissions(permissions)
    }
}
