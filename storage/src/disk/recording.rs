//! A disk that remembers what was done to it, and what a power cut leaves.
//!
//! The model of a power cut. Each 4 KiB page of a file has, since the file's
//! last sync, gone through versions, one per write that touched it; the medium
//! holds any one of them, or the start of one and the rest of another (a torn
//! page). Pages are independent: later ones may be there without earlier ones.
//! The length is any that the file had since the sync. Each change of names in
//! a folder (a file made, renamed, removed) is there or not, independently,
//! until the folder is synced.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Disk, DiskFile, MemoryDisk, Open, Privacy};

const PAGE: usize = 4096;

/// A file's identity in a recording, whatever its names.
pub type FileNumber = usize;

/// One thing that happened, in the order in which it happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// A folder came into being.
    CreateDir(PathBuf),
    /// A file came into being.
    Create(PathBuf, FileNumber),
    /// Bytes were written at an offset.
    Write(FileNumber, u64, Vec<u8>),
    /// A file was cut or extended.
    SetLen(FileNumber, u64),
    /// A sync of a file returned.
    Sync(FileNumber),
    /// A file got another name.
    Rename(PathBuf, PathBuf),
    /// A name was removed.
    Remove(PathBuf),
    /// A sync of a folder returned.
    SyncDir(PathBuf),
    /// The test said so, with [`RecordingDisk::note`]: "acknowledged up to here".
    Note(u64),
}

/// Decides what a power cut leaves: `choose(n)` answers from 0 to `n - 1`.
pub type Chooser<'a> = &'a mut dyn FnMut(usize) -> usize;

/// Wraps a disk and remembers every change in order. Clones share the recording.
#[derive(Clone)]
pub struct RecordingDisk {
    inner: Arc<dyn Disk>,
    log: Arc<Mutex<Log>>,
}

#[derive(Default)]
struct Log {
    base: Base,
    ops: Vec<Op>,
    names: BTreeMap<PathBuf, FileNumber>,
    files: usize,
}

/// What was durable before the first operation.
#[derive(Debug, Clone, Default)]
struct Base {
    dirs: BTreeSet<PathBuf>,
    files: Vec<(PathBuf, FileNumber, Vec<u8>)>,
}

impl RecordingDisk {
    /// Records what is done to `inner` from now on; what it holds already is
    /// no part of the recording.
    #[must_use]
    pub fn new(inner: Arc<dyn Disk>) -> Self {
        Self { inner, log: Arc::default() }
    }

    /// Records what is done to `inner` from now on. What it holds already is
    /// durable, and there after every power cut.
    #[must_use]
    pub fn on(inner: &MemoryDisk) -> Self {
        let mut log = Log::default();
        log.base.dirs = inner.dirs();
        for (path, bytes) in inner.files() {
            log.names.insert(path.clone(), log.files);
            log.base.files.push((path, log.files, bytes));
            log.files += 1;
        }
        Self { inner: Arc::new(inner.clone()), log: Arc::new(Mutex::new(log)) }
    }

    /// Puts a mark of the test's own into the sequence.
    pub fn note(&self, value: u64) {
        self.log().ops.push(Op::Note(value));
    }

    /// Everything so far.
    #[must_use]
    pub fn recording(&self) -> Recording {
        let log = self.log();
        Recording { ops: log.ops.clone(), base: log.base.clone() }
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Disk for RecordingDisk {
    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn DiskFile>> {
        let mut log = self.log();
        let file = self.inner.open(path, how)?;
        let known = log.names.get(path).copied();
        let number = match (how, known) {
            (Open::Read | Open::Write, Some(number)) => number,
            (Open::Replace(_), Some(number)) => {
                log.ops.push(Op::SetLen(number, 0));
                number
            }
            (_, None) | (Open::Create(_), Some(_)) => log.create(path),
        };
        Ok(Box::new(RecordedFile { file, number, disk: self.clone() }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut log = self.log();
        self.inner.rename(from, to)?;
        if let Some(number) = log.names.remove(from) {
            log.names.insert(to.to_path_buf(), number);
        }
        log.ops.push(Op::Rename(from.to_path_buf(), to.to_path_buf()));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut log = self.log();
        self.inner.remove(path)?;
        log.names.remove(path);
        log.ops.push(Op::Remove(path.to_path_buf()));
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        self.inner.list(dir)
    }

    fn create_dir(&self, dir: &Path, privacy: Privacy) -> io::Result<()> {
        let mut log = self.log();
        let mut missing = Vec::new();
        for dir in dir.ancestors() {
            if !self.inner.exists(dir)? {
                missing.push(Op::CreateDir(dir.to_path_buf()));
            }
        }
        self.inner.create_dir(dir, privacy)?;
        log.ops.extend(missing.into_iter().rev());
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.inner.sync_dir(dir)?;
        self.log().ops.push(Op::SyncDir(dir.to_path_buf()));
        Ok(())
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.inner.exists(path)
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        self.inner.free_bytes(dir)
    }
}

impl Log {
    fn create(&mut self, path: &Path) -> FileNumber {
        let number = self.files;
        self.files += 1;
        self.names.insert(path.to_path_buf(), number);
        self.ops.push(Op::Create(path.to_path_buf(), number));
        number
    }
}

/// Files by their numbers, whatever their names.
type Opened = BTreeMap<FileNumber, Box<dyn DiskFile>>;

impl Log {
    /// Takes note of a file that `disk` has at `path`.
    fn adopt(&mut self, disk: &MemoryDisk, path: &Path, number: FileNumber, open: &mut Opened) {
        self.names.insert(path.to_path_buf(), number);
        self.files = self.files.max(number + 1);
        if let Ok(file) = disk.open(path, Open::Write) {
            open.insert(number, file);
        }
    }

    /// Does to `disk` what was done before.
    fn again(&mut self, disk: &MemoryDisk, op: &Op, open: &mut Opened) {
        let done = match op {
            Op::CreateDir(dir) => {
                disk.put_dir(dir);
                Ok(())
            }
            Op::Create(path, number) => {
                disk.put_file(path, Vec::new());
                self.adopt(disk, path, *number, open);
                Ok(())
            }
            Op::Write(number, offset, bytes) => open[number].write_at(bytes, *offset),
            Op::SetLen(number, len) => open[number].set_len(*len),
            Op::Rename(from, to) => {
                if let Some(number) = self.names.remove(from) {
                    self.names.insert(to.clone(), number);
                }
                disk.rename(from, to)
            }
            Op::Remove(path) => {
                self.names.remove(path);
                disk.remove(path)
            }
            Op::Sync(_) | Op::SyncDir(_) | Op::Note(_) => Ok(()),
        };
        // It worked when it was recorded.
        debug_assert!(done.is_ok(), "{op:?}");
    }
}

struct RecordedFile {
    file: Box<dyn DiskFile>,
    number: FileNumber,
    disk: RecordingDisk,
}

impl RecordedFile {
    /// Does something to the file, and remembers it if it went well, as one step.
    fn recorded(&self, op: Op, change: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let mut log = self.disk.log();
        change()?;
        log.ops.push(op);
        Ok(())
    }
}

impl DiskFile for RecordedFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(out, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let op = Op::Write(self.number, offset, bytes.to_vec());
        self.recorded(op, || self.file.write_at(bytes, offset))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.recorded(Op::SetLen(self.number, len), || self.file.set_len(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.recorded(Op::Sync(self.number), || self.file.sync_data())
    }

    fn sync_all(&self) -> io::Result<()> {
        self.recorded(Op::Sync(self.number), || self.file.sync_all())
    }

    fn set_read_only(&self) -> io::Result<()> {
        self.file.set_read_only()
    }
}

/// What was done to a disk.
#[derive(Debug, Clone, Default)]
pub struct Recording {
    /// In the order in which it happened.
    pub ops: Vec<Op>,
    base: Base,
}

/// A file between two syncs.
#[derive(Default)]
struct Pending {
    /// Content as of the last sync.
    synced: Vec<u8>,
    /// Writes and cuts since, in order.
    changes: Vec<Change>,
}

enum Change {
    Write(usize, Vec<u8>),
    SetLen(usize),
}

/// The disk as the operations leave it, with everything that is not durable.
#[derive(Default)]
struct Model {
    files: BTreeMap<FileNumber, Pending>,
    dirs: BTreeSet<PathBuf>,
    names: BTreeMap<PathBuf, FileNumber>,
    /// Changes of names that are not durable, each with the folders it waits for.
    name_changes: Vec<Op>,
}

impl Recording {
    /// The last [`Op::Note`] among the first `point` operations.
    #[must_use]
    pub fn noted(&self, point: usize) -> Option<u64> {
        self.ops[..point].iter().rev().find_map(|op| match op {
            Op::Note(value) => Some(*value),
            _ => None,
        })
    }

    /// The disk that the death of the process after the first `point` operations
    /// leaves: all that was written is there to be read, and what was not synced
    /// may still be lost to a power cut.
    ///
    /// # Panics
    ///
    /// If an operation is on a file that was never made.
    #[must_use]
    pub fn after_death(&self, point: usize) -> RecordingDisk {
        let inner = MemoryDisk::default();
        self.base.dirs.iter().for_each(|dir| inner.put_dir(dir));
        let mut log = Log { base: self.base.clone(), ..Log::default() };
        let mut open = BTreeMap::new();
        for (path, number, bytes) in &self.base.files {
            inner.put_file(path, bytes.clone());
            log.adopt(&inner, path, *number, &mut open);
        }
        for op in &self.ops[..point] {
            log.again(&inner, op, &mut open);
            log.ops.push(op.clone());
        }
        RecordingDisk { inner: Arc::new(inner), log: Arc::new(Mutex::new(log)) }
    }

    /// The disk that a power cut after the first `point` operations leaves, as
    /// `choose` decides about everything that is not durable.
    #[must_use]
    pub fn after_power_cut(&self, point: usize, choose: Chooser<'_>) -> MemoryDisk {
        let mut model = Model::from(&self.base);
        for op in &self.ops[..point] {
            model.apply(op);
        }
        model.cut(choose)
    }
}

impl Model {
    fn from(base: &Base) -> Self {
        let mut model = Self { dirs: base.dirs.clone(), ..Self::default() };
        for (path, number, bytes) in &base.files {
            model.names.insert(path.clone(), *number);
            model.files.insert(*number, Pending { synced: bytes.clone(), changes: Vec::new() });
        }
        model
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Create(_, number) => {
                self.files.insert(*number, Pending::default());
                self.name_changes.push(op.clone());
            }
            Op::CreateDir(_) | Op::Rename(..) | Op::Remove(_) => self.name_changes.push(op.clone()),
            Op::Write(number, offset, bytes) => {
                self.file(*number).changes.push(Change::Write(*offset as usize, bytes.clone()));
            }
            Op::SetLen(number, len) => {
                self.file(*number).changes.push(Change::SetLen(*len as usize));
            }
            Op::Sync(number) => self.file(*number).sync(),
            Op::SyncDir(dir) => self.sync_dir(dir),
            Op::Note(_) => (),
        }
    }

    fn file(&mut self, number: FileNumber) -> &mut Pending {
        self.files.entry(number).or_default()
    }

    /// Makes the changes of names that touch `dir` durable, in their order.
    fn sync_dir(&mut self, dir: &Path) {
        for op in std::mem::take(&mut self.name_changes) {
            if touches(&op, dir) { self.apply_name(&op) } else { self.name_changes.push(op) }
        }
    }

    fn apply_name(&mut self, op: &Op) {
        match op {
            Op::Create(path, number) => {
                self.names.insert(path.clone(), *number);
            }
            Op::CreateDir(dir) => {
                self.dirs.insert(dir.clone());
            }
            Op::Rename(from, to) => {
                // If the name's own creation was lost, the new name is what
                // made the file reachable; it is found among the changes.
                if let Some(number) = self.names.remove(from) {
                    self.names.insert(to.clone(), number);
                }
            }
            Op::Remove(path) => {
                self.names.remove(path);
            }
            Op::Write(..) | Op::SetLen(..) | Op::Sync(_) | Op::SyncDir(_) | Op::Note(_) => (),
        }
    }

    fn cut(mut self, choose: Chooser<'_>) -> MemoryDisk {
        for op in std::mem::take(&mut self.name_changes) {
            if choose(2) == 1 {
                self.apply_name(&op);
            }
        }
        let disk = MemoryDisk::default();
        for dir in &self.dirs {
            disk.put_dir(dir);
        }
        for (path, number) in &self.names {
            if let Some(file) = self.files.get(number) {
                disk.put_file(path, file.cut(choose));
            }
        }
        disk
    }
}

fn touches(op: &Op, dir: &Path) -> bool {
    match op {
        Op::Create(path, _) | Op::CreateDir(path) | Op::Remove(path) => path.parent() == Some(dir),
        Op::Rename(from, to) => from.parent() == Some(dir) || to.parent() == Some(dir),
        Op::Write(..) | Op::SetLen(..) | Op::Sync(_) | Op::SyncDir(_) | Op::Note(_) => false,
    }
}

impl Pending {
    fn sync(&mut self) {
        for change in self.changes.drain(..) {
            change.apply(&mut self.synced);
        }
    }

    /// What the medium holds after a power cut.
    fn cut(&self, choose: Chooser<'_>) -> Vec<u8> {
        let mut lengths = vec![self.synced.len()];
        let mut versions = vec![self.synced.clone()];
        // Which versions of a page differ, by page.
        let mut pages: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for change in &self.changes {
            let mut next = versions.last().cloned().unwrap_or_default();
            change.apply(&mut next);
            lengths.push(next.len());
            for page in change.pages(versions.last().map_or(0, Vec::len)) {
                pages.entry(page).or_insert_with(|| vec![0]).push(versions.len());
            }
            versions.push(next);
        }
        lengths.dedup();
        let len = lengths[choose(lengths.len())];
        let mut out = self.synced.clone();
        out.resize(len, 0);
        for (page, of_page) in pages {
            let newer = choose(of_page.len());
            let older = choose(newer + 1);
            let torn_at = match choose(4) {
                0 => choose(PAGE + 1),
                1 => choose(PAGE / 512 + 1) * 512,
                _ => PAGE,
            };
            let (newer, older) = (&versions[of_page[newer]], &versions[of_page[older]]);
            let start = page * PAGE;
            copy(newer, &mut out, start, start + torn_at);
            copy(older, &mut out, start + torn_at, start + PAGE);
        }
        out
    }
}

/// Copies a range that may lie beyond either end; beyond the source are zeros.
fn copy(from: &[u8], to: &mut [u8], start: usize, end: usize) {
    for at in start..end.min(to.len()) {
        to[at] = from.get(at).copied().unwrap_or(0);
    }
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Write(offset, bytes) => {
                let end = offset + bytes.len();
                if content.len() < end {
                    content.resize(end, 0);
                }
                content[*offset..end].copy_from_slice(bytes);
            }
            Self::SetLen(len) => content.resize(*len, 0),
        }
    }

    /// The pages that change in a file of `len` bytes.
    fn pages(&self, len: usize) -> std::ops::Range<usize> {
        let (start, end) = match self {
            Self::Write(offset, bytes) => ((*offset).min(len), offset + bytes.len()),
            Self::SetLen(new) => (len.min(*new), len.max(*new)),
        };
        start / PAGE..end.div_ceil(PAGE)
    }
}

impl MemoryDisk {
    /// Writes everything that stands under `from` into the folder `to` of the
    /// machine's own disk.
    ///
    /// # Errors
    ///
    /// As the machine's disk says.
    pub fn copy_to(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::create_dir_all(to)?;
        for path in self.list(from)? {
            let target = to.join(path.file_name().unwrap_or_default());
            match self.read(&path, u64::MAX) {
                Ok(bytes) => std::fs::write(target, bytes)?,
                Err(_) => self.copy_to(&path, &target)?,
            }
        }
        Ok(())
    }
}
