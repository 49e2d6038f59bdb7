//! Making, filling and sealing one segment file.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use engine::ids::Position;

use super::format::{GROUPS_AT, GroupHeader, SEAL_LEN, Seal, SegmentHeader};
use super::walk::segment_name;
use super::{Limits, Reserve, Space};
use crate::block::{Block, Head};
use crate::disk::{Disk, DiskFile, Open, Privacy};

/// Where the next segment is prepared. A left-over is overwritten.
const RESERVE_NAME: &str = "reserve.tmp";

/// The length that a segment is made with.
pub(super) fn reserved_len(limits: &Limits) -> u64 {
    GROUPS_AT + limits.bytes + SEAL_LEN as u64
}

/// Whether an error says that there is no space.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// The space for the next segment: a file of zeros, synced.
pub(super) struct Reservation {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    len: u64,
    mode: Reserve,
    thread: Option<JoinHandle<io::Result<()>>>,
    ready: bool,
    short: Option<String>,
}

impl Reservation {
    /// For the segments in `dir`; begins to reserve as `mode` says.
    pub(super) fn new(disk: Arc<dyn Disk>, dir: &Path, len: u64, mode: Reserve) -> Self {
        let dir = dir.to_path_buf();
        let mut this = Self { disk, dir, len, mode, thread: None, ready: false, short: None };
        this.begin();
        this
    }

    /// Begins to reserve, where that is done ahead.
    fn begin(&mut self) {
        match self.mode {
            Reserve::Inline => (),
            Reserve::Ahead => {
                let (disk, dir, len) = (Arc::clone(&self.disk), self.dir.clone(), self.len);
                self.thread = Some(std::thread::spawn(move || make(disk.as_ref(), &dir, len)));
            }
        }
    }

    /// Whether it worked, as far as is known without waiting.
    pub(super) fn space(&mut self) -> Space {
        if self.thread.as_ref().is_some_and(JoinHandle::is_finished) {
            self.join();
        }
        self.short.clone().map_or(Space::Reserved, Space::Short)
    }

    fn join(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        let done = thread
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the thread that reserves space panicked")));
        self.ready = done.is_ok();
        self.short = done.err().map(|error| error.to_string());
    }

    /// Waits for the space, or makes it now.
    pub(super) fn wait(&mut self) -> io::Result<()> {
        self.join();
        if !self.ready {
            // What failed ahead may work now: space may have been made.
            let made = make(self.disk.as_ref(), &self.dir, self.len);
            self.short = made.as_ref().err().map(ToString::to_string);
            made?;
            self.ready = true;
        }
        Ok(())
    }

    /// Turns the space, after [`Reservation::wait`], into the segment of
    /// `header`; durable on `Ok`. Where the error says that there is no space,
    /// there is no such segment, and the space is kept.
    pub(super) fn start(&mut self, header: SegmentHeader) -> io::Result<Active> {
        let reserve = self.dir.join(RESERVE_NAME);
        let path = self.dir.join(segment_name(header.first));
        let file = self.disk.open(&reserve, Open::Write)?;
        let bytes = header.encode();
        file.write_at(&bytes, 0)?;
        // The name appears only when the header is durable behind it. Whatever a
        // failed sync says of its cause, it is never tried again.
        file.sync_all().map_err(io::Error::other)?;
        self.disk.rename(&reserve, &path)?;
        self.disk.sync_dir(&self.dir).map_err(io::Error::other)?;
        self.ready = false;
        self.begin();
        let mut hasher = blake3::Hasher::new();
        hasher.update(&bytes);
        let end = Head { size: header.first.0, chain: header.prev };
        let len = self.len;
        Ok(Active { file: Arc::from(file), header, offset: GROUPS_AT, end, hasher, len })
    }
}

impl Drop for Reservation {
    /// Nothing may write to the folder after the journal is closed.
    fn drop(&mut self) {
        self.join();
    }
}

fn make(disk: &dyn Disk, dir: &Path, len: u64) -> io::Result<()> {
    let path = dir.join(RESERVE_NAME);
    let file = disk.open(&path, Open::Replace(Privacy::Shared))?;
    let made = file.write_zeros(0, len).and_then(|()| file.sync_all());
    if made.is_err() {
        // A part of a reservation only takes away the space that is left.
        let _ = disk.remove(&path);
    }
    made
}

/// The segment that is written to.
pub(super) struct Active {
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) header: SegmentHeader,
    /// Where the next group goes.
    pub(super) offset: u64,
    /// The head after the last group.
    pub(super) end: Head,
    /// Over the file up to `offset`.
    pub(super) hasher: blake3::Hasher,
    /// Length of the file.
    pub(super) len: u64,
}

impl Active {
    /// Number of records.
    pub(super) fn records(&self) -> u64 {
        self.end.size - self.header.first.0
    }

    /// Whether the next group belongs into another segment.
    pub(super) fn is_full(&self, limits: &Limits) -> bool {
        let bytes = self.offset - GROUPS_AT;
        self.records() > 0 && (self.records() >= limits.records || bytes >= limits.bytes)
    }

    /// Makes sure that a group of `len` bytes, and the seal, find space.
    pub(super) fn make_room(&mut self, len: u64) -> io::Result<()> {
        let need = self.offset + len + SEAL_LEN as u64;
        if need <= self.len {
            return Ok(());
        }
        let made = self.file.write_zeros(self.len, need - self.len);
        if let Err(error) = made {
            self.file.set_len(self.len)?;
            return Err(error);
        }
        self.file.sync_all()?;
        self.len = need;
        Ok(())
    }

    /// Writes a group and syncs it.
    pub(super) fn write(&mut self, block: &Block) -> io::Result<()> {
        let bytes = group_bytes(block, &self.header.key);
        self.file.write_at(&bytes, self.offset)?;
        self.file.sync_data()?;
        self.hasher.update(&bytes);
        self.offset += bytes.len() as u64;
        self.end = block.head();
        Ok(())
    }

    /// Ends the segment: seal, sync, cut to length, read-only, sync.
    pub(super) fn seal(&self) -> io::Result<()> {
        let seal = Seal {
            first: self.header.first,
            count: self.records(),
            offset: self.offset,
            chain: self.end.chain,
            hash: *self.hasher.finalize().as_bytes(),
        };
        self.file.write_at(&seal.encode(&self.header.key), self.offset)?;
        self.file.sync_data()?;
        finish_seal(self.file.as_ref(), &seal)
    }
}

/// What comes after the seal is written: no byte behind it, no right to write.
pub(super) fn finish_seal(file: &dyn DiskFile, seal: &Seal) -> io::Result<()> {
    file.set_len(seal.offset + SEAL_LEN as u64)?;
    file.set_read_only()?;
    file.sync_all()
}

/// A group's bytes.
pub(super) fn group_bytes(block: &Block, key: &[u8; 32]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(super::format::GROUP_HEADER_LEN + block.frames.len());
    GroupHeader::of(block, key).encode(key, &mut bytes);
    bytes.extend_from_slice(&block.frames);
    bytes
}

/// A whole segment file with these groups. Sealed, or as long as it is reserved.
pub(super) fn whole(header: &SegmentHeader, blocks: &[Block], sealed: bool) -> Vec<u8> {
    let mut bytes = header.encode();
    for block in blocks {
        bytes.extend(group_bytes(block, &header.key));
    }
    if sealed {
        let chain = blocks.last().map_or(header.prev, |block| block.chain);
        let seal = Seal {
            first: header.first,
            count: blocks.iter().map(|block| u64::from(block.count)).sum(),
            offset: bytes.len() as u64,
            chain,
            hash: *blake3::hash(&bytes).as_bytes(),
        };
        bytes.extend(seal.encode(&header.key));
    } else {
        let least = bytes.len() + SEAL_LEN;
        let reserved = usize::try_from(header.reserved).unwrap_or(least);
        bytes.resize(reserved.max(least), 0);
    }
    bytes
}

/// The segment that would begin after `head`.
pub(super) fn header_after(
    head: &Head,
    genesis: [u8; 32],
    reserved: u64,
    key: [u8; 32],
) -> SegmentHeader {
    SegmentHeader { first: Position(head.size), reserved, genesis, prev: head.chain, key }
}
