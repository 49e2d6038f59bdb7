//! Reading records: recent ones from memory, older ones from sled, and from the
//! journal where sled lacks them.
//!
//! Reads may wait for the disk: from async code, call them on a blocking pool,
//! unless the position is among the last few thousand.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use engine::ids::{Id, Micros, Position};
use engine::machine::Record;
use tokio::sync::watch;

use crate::block::{Block, Head};
use crate::logtree;
use crate::record;
use crate::trouble::{Trouble, guarded};

/// Records that stay in memory after they have reached sled.
const RECENT_KEPT: u64 = 4_096;

/// Blocks from sled that stay in memory.
const BLOCKS_KEPT: usize = 16;

/// Records read from the journal at once.
const FALLBACK_STEP: usize = 64;

/// Records among which [`LogReader::find`] looks for an event.
pub const FIND_MAX: u64 = 65_536;

/// Records that it reads at once.
const FIND_STEP: usize = 1_024;

/// Why a record could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The log is not that long.
    #[error("no record at position {}", .0.0)]
    Beyond(Position),
    /// Neither copy of the log gives it.
    #[error("the record at position {} cannot be read: {why}", position.0)]
    Damaged {
        /// The record.
        position: Position,
        /// What the journal said.
        why: String,
    },
}

/// Reads durable records. Cheap to clone.
#[derive(Clone)]
pub struct LogReader {
    inner: Arc<Inner>,
}

struct Inner {
    head: watch::Receiver<Head>,
    recent: Arc<RecentRecords>,
    tree: sled::Tree,
    blocks: Mutex<VecDeque<Arc<Block>>>,
    journal: Box<dyn Fallback>,
    trouble: Arc<Trouble>,
}

/// The copy of the log that is read where sled has no answer.
pub(crate) trait Fallback: Send + Sync {
    /// Encoded records in order from `from`, at least one and at most `limit`.
    fn records(&self, from: Position, limit: usize) -> io::Result<Vec<Vec<u8>>>;
}

/// Records from one place, the first of them the one asked for.
enum Chunk {
    Recent(Arc<Recent>),
    Block(Arc<Block>),
    Journal(Vec<Vec<u8>>),
}

impl LogReader {
    pub(crate) fn new(
        head: watch::Receiver<Head>,
        recent: Arc<RecentRecords>,
        tree: sled::Tree,
        journal: Box<dyn Fallback>,
        trouble: Arc<Trouble>,
    ) -> Self {
        let blocks = Mutex::new(VecDeque::with_capacity(BLOCKS_KEPT));
        Self { inner: Arc::new(Inner { head, recent, tree, blocks, journal, trouble }) }
    }

    /// The durable head.
    #[must_use]
    pub fn head(&self) -> Head {
        *self.inner.head.borrow()
    }

    /// The record at `position`.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn record(&self, position: Position) -> Result<Arc<Record>, ReadError> {
        match self.read(position, 1)?.pop() {
            Some(record) => Ok(record),
            None => Err(ReadError::Beyond(position)),
        }
    }

    /// The bytes of the record at `position`.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn raw(&self, position: Position) -> Result<Vec<u8>, ReadError> {
        if position.0 >= self.head().size {
            return Err(ReadError::Beyond(position));
        }
        let bytes = match self.chunk(position)? {
            Chunk::Recent(recent) => logtree::bytes_at(&recent.block, position).map(<[u8]>::to_vec),
            Chunk::Block(block) => logtree::bytes_at(&block, position).map(<[u8]>::to_vec),
            Chunk::Journal(records) => records.into_iter().next(),
        };
        bytes.ok_or_else(|| damaged(position, "its block is too short"))
    }

    /// Where the event of this id stands. A UUIDv7 (RFC 9562) holds the time at
    /// which it was drawn, and the log is in the order of time: looked at are
    /// [`FIND_MAX`] records from that time on. None if it is not among them.
    ///
    /// # Errors
    ///
    /// [`ReadError::Damaged`].
    pub fn find(&self, event: Id) -> Result<Option<Position>, ReadError> {
        let mut millis = [0; 8];
        millis[2..].copy_from_slice(&event.0[..6]);
        let drawn = Micros(u64::from_be_bytes(millis).saturating_mul(1_000));
        let size = self.head().size;
        let (mut low, mut high) = (0, size);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.record(Position(middle))?.time < drawn {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let end = size.min(low.saturating_add(FIND_MAX));
        while low < end {
            let records = self.read(Position(low), FIND_STEP.min((end - low) as usize))?;
            if let Some(found) = records.iter().find(|it| it.draft.event_id == event) {
                return Ok(Some(found.position));
            }
            low += records.len() as u64;
        }
        Ok(None)
    }

    /// Encoded records from `from` on, at most `limit` and at most what one look
    /// finds; none only at the end of the log.
    ///
    /// # Errors
    ///
    /// [`ReadError::Damaged`].
    pub fn encoded(&self, from: Position, limit: usize) -> Result<Vec<Vec<u8>>, ReadError> {
        let left = self.head().size.saturating_sub(from.0);
        let wanted = limit.min(usize::try_from(left).unwrap_or(usize::MAX));
        if wanted == 0 {
            return Ok(Vec::new());
        }
        let skipped = |block: &Block| (from.0 - block.first.0) as usize;
        let of = |block: &Block| -> Vec<_> {
            block.records().skip(skipped(block)).take(wanted).map(<[u8]>::to_vec).collect()
        };
        let found = match self.chunk(from)? {
            Chunk::Recent(recent) => of(&recent.block),
            Chunk::Block(block) => of(&block),
            Chunk::Journal(records) => records.into_iter().take(wanted).collect(),
        };
        if found.is_empty() { Err(damaged(from, "its block is too short")) } else { Ok(found) }
    }

    /// Records in order from `from`: at most `limit`, fewer only at the head.
    ///
    /// # Errors
    ///
    /// [`ReadError::Damaged`].
    pub fn read(&self, from: Position, limit: usize) -> Result<Vec<Arc<Record>>, ReadError> {
        let left = usize::try_from(self.head().size.saturating_sub(from.0)).unwrap_or(usize::MAX);
        let wanted = limit.min(left);
        let mut found = Vec::with_capacity(wanted.min(1_024));
        while found.len() < wanted {
            let next = Position(from.0 + found.len() as u64);
            let before = found.len();
            self.take(next, wanted, &mut found)?;
            if found.len() == before {
                return Err(damaged(next, "its block is too short"));
            }
        }
        Ok(found)
    }

    /// Follows the durable head: changes whenever the log grows.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Head> {
        self.inner.head.clone()
    }

    /// Takes a block out of sled and all records out of memory.
    #[cfg(test)]
    pub(crate) fn forget_block(&self, first: Position) {
        assert!(self.inner.tree.remove(first.0.to_be_bytes()).unwrap().is_some());
        self.inner.blocks.lock().unwrap().clear();
        assert!(self.inner.recent.with(first).is_none());
    }

    /// Adds records from `position` on to `found`, up to `wanted` in all.
    fn take(
        &self,
        position: Position,
        wanted: usize,
        found: &mut Vec<Arc<Record>>,
    ) -> Result<(), ReadError> {
        let room = wanted - found.len();
        match self.chunk(position)? {
            Chunk::Recent(recent) => {
                let skipped = (position.0 - recent.block.first.0) as usize;
                found.extend(recent.records.iter().skip(skipped).take(room).cloned());
            }
            Chunk::Block(block) => {
                let skipped = (position.0 - block.first.0) as usize;
                decode_all(block.records().skip(skipped).take(room), position, found)?;
            }
            Chunk::Journal(records) => {
                decode_all(records.iter().map(Vec::as_slice).take(room), position, found)?;
            }
        }
        Ok(())
    }

    fn chunk(&self, position: Position) -> Result<Chunk, ReadError> {
        if let Some(recent) = self.inner.recent.with(position) {
            return Ok(Chunk::Recent(recent));
        }
        match self.stored_block(position) {
            Ok(block) => Ok(Chunk::Block(block)),
            Err(why) => {
                self.inner.trouble.note_damage(&why);
                self.journal_chunk(position)
            }
        }
    }

    fn stored_block(&self, position: Position) -> Result<Arc<Block>, String> {
        let mut blocks = self.inner.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(block) = blocks.iter().find(|block| holds(block, position)) {
            return Ok(Arc::clone(block));
        }
        drop(blocks);
        let block = guarded(|| logtree::block_with(&self.inner.tree, position))?
            .ok_or_else(|| format!("the tree has no record at {}", position.0))?;
        let block = Arc::new(block);
        blocks = self.inner.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        blocks.truncate(BLOCKS_KEPT - 1);
        blocks.push_front(Arc::clone(&block));
        Ok(block)
    }

    fn journal_chunk(&self, position: Position) -> Result<Chunk, ReadError> {
        let records = self.inner.journal.records(position, FALLBACK_STEP);
        match records {
            Ok(records) if records.is_empty() => Err(damaged(position, "the journal lacks it")),
            Ok(records) => Ok(Chunk::Journal(records)),
            Err(error) => Err(damaged(position, &error.to_string())),
        }
    }
}

fn holds(block: &Block, position: Position) -> bool {
    (block.first.0..block.head().size).contains(&position.0)
}

fn damaged(position: Position, why: &str) -> ReadError {
    ReadError::Damaged { position, why: why.to_owned() }
}

fn decode_all<'a>(
    records: impl Iterator<Item = &'a [u8]>,
    first: Position,
    found: &mut Vec<Arc<Record>>,
) -> Result<(), ReadError> {
    for (position, bytes) in (first.0..).map(Position).zip(records) {
        let (record, _) =
            record::decode(bytes).map_err(|error| damaged(position, &error.to_string()))?;
        if record.position != position {
            return Err(damaged(position, "another record stands in its place"));
        }
        found.push(Arc::new(record));
    }
    Ok(())
}

/// A durable group as the sequencer made it.
pub(crate) struct Recent {
    pub(crate) block: Block,
    pub(crate) records: Vec<Arc<Record>>,
}

/// The last groups: all that sled may not have yet, and some more.
#[derive(Default)]
pub(crate) struct RecentRecords {
    inner: RwLock<Groups>,
}

#[derive(Default)]
struct Groups {
    groups: VecDeque<Arc<Recent>>,
    records: u64,
    /// Position up to which sled has everything.
    written: u64,
}

impl RecentRecords {
    /// Adds a group that follows the last one.
    pub(crate) fn push(&self, recent: Arc<Recent>) {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        inner.records += u64::from(recent.block.count);
        inner.groups.push_back(recent);
    }

    /// Takes note that sled has everything before `end`.
    pub(crate) fn written(&self, end: u64) {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        inner.written = end;
        while let Some(first) = inner.groups.front() {
            let count = u64::from(first.block.count);
            if first.block.head().size > inner.written || inner.records - count < RECENT_KEPT {
                break;
            }
            inner.records -= count;
            inner.groups.pop_front();
        }
    }

    fn with(&self, position: Position) -> Option<Arc<Recent>> {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        let after = inner.groups.partition_point(|group| group.block.first <= position);
        let group = inner.groups.get(after.checked_sub(1)?)?;
        holds(&group.block, position).then(|| Arc::clone(group))
    }
}
