//! A disk in memory, for tests: fast, and as small as one likes.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Disk, DiskFile, Open, Privacy};

/// Files in memory, all under one lock. Clones share the content. Syncs do
/// nothing: whoever wants to see what a power cut takes wraps it in a
/// [`super::RecordingDisk`].
#[derive(Clone, Default)]
pub struct MemoryDisk(Arc<Mutex<Tree>>);

#[derive(Default)]
struct Tree {
    files: BTreeMap<PathBuf, Content>,
    dirs: BTreeSet<PathBuf>,
    /// Bytes that all files together may have; none: no bound.
    capacity: Option<u64>,
    /// Fails the sync after so many more; none: never.
    syncs_left: Option<u64>,
    /// No folder takes another name.
    names_full: bool,
}

type Content = Arc<Mutex<Vec<u8>>>;

impl MemoryDisk {
    /// From now on all files together may have this many bytes; none: no bound.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.tree().capacity = bytes;
    }

    /// After `count` more syncs of files, every one fails.
    pub fn fail_syncs_after(&self, count: u64) {
        self.tree().syncs_left = Some(count);
    }

    /// Whether folders take no further name, as a disk may that has space left
    /// in its files alone.
    pub fn set_names_full(&self, full: bool) {
        self.tree().names_full = full;
    }

    /// The bytes of all files together.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.tree().used()
    }

    /// Makes a folder, those above it included.
    pub fn put_dir(&self, dir: &Path) {
        self.tree().dirs.extend(dir.ancestors().map(Path::to_path_buf));
    }

    /// Makes a file with this content, or replaces it.
    pub fn put_file(&self, path: &Path, content: Vec<u8>) {
        self.put_dir(super::parent(path));
        self.tree().files.insert(path.to_path_buf(), Arc::new(Mutex::new(content)));
    }

    /// Everything in the files, by path.
    #[must_use]
    pub fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        self.tree()
            .files
            .iter()
            .map(|(path, content)| (path.clone(), lock(content).clone()))
            .collect()
    }

    /// Every folder.
    pub(super) fn dirs(&self) -> BTreeSet<PathBuf> {
        self.tree().dirs.clone()
    }

    /// A disk with the same content that shares nothing with this one.
    #[must_use]
    pub fn copy(&self) -> Self {
        let copy = Self::default();
        copy.tree().dirs = self.dirs();
        for (path, content) in self.files() {
            copy.put_file(&path, content);
        }
        copy
    }

    fn tree(&self) -> MutexGuard<'_, Tree> {
        lock(&self.0)
    }
}

impl Tree {
    fn room_for_name(&self, path: &Path) -> io::Result<()> {
        match self.names_full && !self.files.contains_key(path) {
            true => Err(io::ErrorKind::StorageFull.into()),
            false => Ok(()),
        }
    }

    fn used(&self) -> u64 {
        self.files.values().map(|content| lock(content).len() as u64).sum()
    }
}

/// Nothing panics while holding these locks in a state that is half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Disk for MemoryDisk {
    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn DiskFile>> {
        let mut tree = self.tree();
        let found = tree.files.get(path).cloned();
        let content = match (how, found) {
            (Open::Read | Open::Write, Some(content)) => content,
            (Open::Read | Open::Write, None) => return Err(io::ErrorKind::NotFound.into()),
            (Open::Create(_), Some(_)) => return Err(io::ErrorKind::AlreadyExists.into()),
            (Open::Replace(_), Some(content)) => {
                lock(&content).clear();
                content
            }
            (Open::Create(_) | Open::Replace(_), None) => {
                if !tree.dirs.contains(super::parent(path)) {
                    return Err(io::ErrorKind::NotFound.into());
                }
                tree.room_for_name(path)?;
                let content = Content::default();
                tree.files.insert(path.to_path_buf(), Arc::clone(&content));
                content
            }
        };
        Ok(Box::new(MemoryFile { disk: self.clone(), content, writable: how != Open::Read }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut tree = self.tree();
        tree.room_for_name(to)?;
        let content = tree.files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        tree.files.insert(to.to_path_buf(), content);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.tree().files.remove(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let tree = self.tree();
        if !tree.dirs.contains(dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let inside = |path: &&PathBuf| path.parent() == Some(dir);
        let mut paths: Vec<_> = tree.files.keys().filter(inside).cloned().collect();
        paths.extend(tree.dirs.iter().filter(inside).cloned());
        paths.sort();
        Ok(paths)
    }

    fn create_dir(&self, dir: &Path, _privacy: Privacy) -> io::Result<()> {
        self.put_dir(dir);
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        if self.tree().dirs.contains(dir) { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let tree = self.tree();
        Ok(tree.files.contains_key(path) || tree.dirs.contains(path))
    }

    fn free_bytes(&self, _dir: &Path) -> io::Result<u64> {
        let tree = self.tree();
        Ok(tree.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(tree.used())))
    }
}

struct MemoryFile {
    disk: MemoryDisk,
    content: Content,
    writable: bool,
}

impl MemoryFile {
    /// Makes sure that growing to `len` bytes is allowed.
    fn reserve(&self, len: u64) -> io::Result<()> {
        if !self.writable {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let tree = self.disk.tree();
        let more = len.saturating_sub(lock(&self.content).len() as u64);
        match tree.capacity {
            Some(capacity) if more > 0 && tree.used() + more > capacity => {
                Err(io::ErrorKind::StorageFull.into())
            }
            Some(_) | None => Ok(()),
        }
    }
}

impl DiskFile for MemoryFile {
    fn len(&self) -> io::Result<u64> {
        Ok(lock(&self.content).len() as u64)
    }

    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<usize> {
        let content = lock(&self.content);
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(content.len());
        let count = out.len().min(content.len() - start);
        out[..count].copy_from_slice(&content[start..start + count]);
        Ok(count)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let end = offset as usize + bytes.len();
        self.reserve(end as u64)?;
        let mut content = lock(&self.content);
        if content.len() < end {
            content.resize(end, 0);
        }
        content[offset as usize..end].copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.reserve(0)?;
        lock(&self.content).resize(len as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        match &mut self.disk.tree().syncs_left {
            Some(0) => Err(io::Error::other("the disk does not answer")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn set_read_only(&self) -> io::Result<()> {
        Ok(())
    }
}
