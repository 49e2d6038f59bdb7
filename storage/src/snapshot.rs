//! Snapshots of state: files from which state can be made again without
//! folding the whole log.
//!
//! A snapshot is a cache. One that does not decode, is of other rules, or does
//! not lie on the log's chain is dropped; the fold then starts earlier.
//!
//! ```text
//! off len  field
//!   0   8  "KTSTATE1"
//!   8   4  STATE_VERSION of the rules
//!  12   8  position: all records before it are reflected
//!  20  32  chain value of the last of them
//!  52   8  subjects in the key store then
//!  60   n  entries in the order of their keys:
//!          length 4, key, length 4, entry
//!   n   4  2^32-1: no further entry
//!   …   8  number of entries
//!   …  32  BLAKE3 over all bytes before
//! ```
//! All big-endian. The name is `snapshot-` and the position in 20 digits.

use std::collections::BTreeMap;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use engine::ids::Position;

use crate::disk::{Disk, DiskFile, Open, Privacy};
use crate::fold::{Digest, StateDigest};
use crate::folder::Folder;
use crate::record::Chain;
use crate::state::{ENTRY, Meta, entry_sum};
use crate::trouble::guarded;

const MAGIC: &[u8; 8] = b"KTSTATE1";
const HEADER_LEN: usize = 60;
const END: u32 = u32::MAX;
const PREFIX: &str = "snapshot-";

/// Longest key or entry that is read: more than any machine makes.
const PART_MAX: u32 = 1 << 20;

/// Snapshots that are kept.
const KEPT: usize = 2;

/// What a snapshot stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stand {
    pub(crate) version: u32,
    pub(crate) position: u64,
    pub(crate) chain: Chain,
    pub(crate) subjects: u64,
}

/// A snapshot being taken of a tree that changes meanwhile.
///
/// It shows the tree as it was at the start: whoever changes the tree tells
/// [`Taking::before_change`] first, which keeps the old value of what has not
/// been written yet.
pub(crate) struct Taking {
    folder: Folder,
    start: Meta,
    out: Hashing<BufWriter<Stream>>,
    /// Keys below are written.
    cursor: Vec<u8>,
    /// Old values, none for no entry, of keys from the cursor on.
    old: BTreeMap<Vec<u8>, Option<sled::IVec>>,
    /// What has been written, counted as the tree counts itself.
    written: Meta,
    /// Of what has been written.
    digest: Digest,
}

/// How far a step brought a snapshot.
pub(crate) enum Step {
    /// There is more to write.
    More,
    /// It is written and durable; the digest of the state that it holds.
    Done(Position, StateDigest),
}

/// Why a snapshot was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SnapshotError {
    /// The file could not be written. The state itself is as good as before.
    #[error("the snapshot could not be written: {0}")]
    Io(#[from] io::Error),
    /// The tree gave an error, or other entries than it should hold.
    #[error("{0}")]
    Damaged(String),
}

impl Taking {
    /// Begins a snapshot of a tree that stands at `start`.
    pub(crate) fn begin(folder: &Folder, start: Meta) -> io::Result<Self> {
        let draft = folder.disk.open(&draft_path(folder), Open::Replace(Privacy::Shared))?;
        let mut out = Hashing::new(BufWriter::new(Stream { file: draft, at: 0 }));
        out.put(MAGIC)?;
        out.put(&start.version.to_be_bytes())?;
        out.put(&start.position.to_be_bytes())?;
        out.put(&start.chain)?;
        out.put(&start.subjects.to_be_bytes())?;
        let written = Meta { entries: 0, sum: 0, ..start };
        let (cursor, old) = (vec![ENTRY], BTreeMap::new());
        let digest = Digest::default();
        Ok(Self { folder: folder.clone(), start, out, cursor, old, written, digest })
    }

    /// Must be told of each key (with its prefix) before it changes, and its value then.
    pub(crate) fn before_change(&mut self, key: &[u8], value: Option<&sled::IVec>) {
        if key >= self.cursor.as_slice() && !self.old.contains_key(key) {
            self.old.insert(key.to_vec(), value.cloned());
        }
    }

    /// Writes up to `entries_max` entries further.
    pub(crate) fn step(
        &mut self,
        tree: &sled::Tree,
        entries_max: usize,
    ) -> Result<Step, SnapshotError> {
        let page: Vec<(sled::IVec, sled::IVec)> = guarded(|| {
            tree.range(self.cursor.clone()..).take(entries_max).collect::<sled::Result<_>>()
        })
        .map_err(SnapshotError::Damaged)?;
        let until = match page.last() {
            Some((key, _)) if page.len() == entries_max => {
                let mut after = key.to_vec();
                after.push(0);
                Some(after)
            }
            Some(_) | None => None,
        };
        self.write_page(page, until.as_deref())?;
        match until {
            Some(until) => {
                self.cursor = until;
                Ok(Step::More)
            }
            None => self.finish().map(|digest| Step::Done(Position(self.start.position), digest)),
        }
    }

    /// Writes the entries of `page`, overruled by old values below `until`.
    fn write_page(
        &mut self,
        page: Vec<(sled::IVec, sled::IVec)>,
        until: Option<&[u8]>,
    ) -> io::Result<()> {
        let later = until.map(|until| self.old.split_off(until)).unwrap_or_default();
        let old = std::mem::replace(&mut self.old, later);
        let mut merged: BTreeMap<Vec<u8>, Option<sled::IVec>> =
            page.into_iter().map(|(key, value)| (key.to_vec(), Some(value))).collect();
        merged.extend(old);
        for (key, value) in merged {
            if let Some(value) = value {
                self.written.add(entry_sum(&key[1..], &value));
                self.digest.entry(&key[1..], &value);
                self.out.part(&key[1..])?;
                self.out.part(&value)?;
            }
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<StateDigest, SnapshotError> {
        if self.written != self.start {
            return Err(SnapshotError::Damaged("state holds other entries than were put".into()));
        }
        self.out.put(&END.to_be_bytes())?;
        self.out.put(&self.written.entries.to_be_bytes())?;
        let hash = *self.out.hasher.finalize().as_bytes();
        self.out.put(&hash)?;
        self.out.inner.flush()?;
        self.out.inner.get_ref().file.sync_all()?;
        let Folder { disk, dir, .. } = &self.folder;
        disk.rename(&draft_path(&self.folder), &path_of(dir, self.start.position))?;
        disk.sync_dir(dir)?;
        for (_, old) in all(&self.folder)?.into_iter().rev().skip(KEPT) {
            disk.remove(&old)?;
        }
        Ok(std::mem::take(&mut self.digest).finish(Position(self.start.position)))
    }

    /// Gives up, and the space with it.
    pub(crate) fn abandon(self) {
        // A left-over is overwritten by the next one.
        drop(self.folder.disk.remove(&draft_path(&self.folder)));
    }
}

/// A file, from front to end.
struct Stream {
    file: Box<dyn DiskFile>,
    at: u64,
}

impl Stream {
    fn open(disk: &dyn Disk, path: &Path) -> io::Result<Self> {
        Ok(Self { file: disk.open(path, Open::Read)?, at: 0 })
    }
}

impl Read for Stream {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(out, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_at(bytes, self.at)?;
        self.at += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Bytes on their way, hashed.
struct Hashing<T> {
    inner: T,
    hasher: blake3::Hasher,
}

impl<T> Hashing<T> {
    fn new(inner: T) -> Self {
        Self { inner, hasher: blake3::Hasher::new() }
    }
}

impl<T: Write> Hashing<T> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.inner.write_all(bytes)
    }

    fn part(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.put(&(bytes.len() as u32).to_be_bytes())?;
        self.put(bytes)
    }
}

impl<T: Read> Hashing<T> {
    fn take<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut out = [0; N];
        self.inner.read_exact(&mut out)?;
        self.hasher.update(&out);
        Ok(out)
    }

    /// The next part, or none at the end mark.
    fn take_part(&mut self) -> io::Result<Option<Vec<u8>>> {
        let len = u32::from_be_bytes(self.take()?);
        if len == END {
            return Ok(None);
        }
        if len > PART_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut out = vec![0; len as usize];
        self.inner.read_exact(&mut out)?;
        self.hasher.update(&out);
        Ok(Some(out))
    }
}

/// The snapshots in `folder`, oldest first. The names are believed, not the content.
pub(crate) fn all(folder: &Folder) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for path in folder.disk.list(&folder.dir)? {
        let name = path.file_name().and_then(|name| name.to_str());
        if let Some(position) = name
            .and_then(|name| name.strip_prefix(PREFIX))
            .filter(|digits| digits.len() == 20)
            .and_then(|digits| digits.parse().ok())
        {
            found.push((position, path));
        }
    }
    found.sort();
    Ok(found)
}

/// What a snapshot says it stands for. Only [`read`] proves it.
pub(crate) fn stand_of(disk: &dyn Disk, path: &Path) -> io::Result<Stand> {
    stand(&mut Hashing::new(Stream::open(disk, path)?))
}

/// Reads a snapshot twice: first to prove its hash, then to hand every entry to
/// `entry`, so that nothing of a damaged one is ever used.
pub(crate) fn read(
    disk: &dyn Disk,
    path: &Path,
    entry: impl FnMut(Vec<u8>, Vec<u8>) -> io::Result<()>,
) -> io::Result<Stand> {
    pass(disk, path, |_, _| Ok(()))?;
    pass(disk, path, entry)
}

fn pass(
    disk: &dyn Disk,
    path: &Path,
    mut entry: impl FnMut(Vec<u8>, Vec<u8>) -> io::Result<()>,
) -> io::Result<Stand> {
    let invalid = || io::Error::from(io::ErrorKind::InvalidData);
    let mut bytes = Hashing::new(BufReader::new(Stream::open(disk, path)?));
    let stand = stand(&mut bytes)?;
    let mut count = 0_u64;
    while let Some(key) = bytes.take_part()? {
        let value = bytes.take_part()?.ok_or_else(invalid)?;
        entry(key, value)?;
        count += 1;
    }
    let counted = u64::from_be_bytes(bytes.take()?);
    let hash = *bytes.hasher.finalize().as_bytes();
    let said: [u8; 32] = bytes.take()?;
    let at_end = bytes.inner.read(&mut [0])? == 0;
    if counted == count && said == hash && at_end { Ok(stand) } else { Err(invalid()) }
}

fn stand(bytes: &mut Hashing<impl Read>) -> io::Result<Stand> {
    let header: [u8; HEADER_LEN] = bytes.take()?;
    let (magic, rest) = header.split_at(8);
    if magic != MAGIC {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut version = [0; 4];
    version.copy_from_slice(&rest[..4]);
    let mut position = [0; 8];
    position.copy_from_slice(&rest[4..12]);
    let mut chain = [0; 32];
    chain.copy_from_slice(&rest[12..44]);
    let mut subjects = [0; 8];
    subjects.copy_from_slice(&rest[44..]);
    Ok(Stand {
        version: u32::from_be_bytes(version),
        position: u64::from_be_bytes(position),
        chain,
        subjects: u64::from_be_bytes(subjects),
    })
}

fn path_of(dir: &Path, position: u64) -> PathBuf {
    dir.join(format!("{PREFIX}{position:020}"))
}

fn draft_path(folder: &Folder) -> PathBuf {
    folder.dir.join("snapshot.draft")
}
