//! The sled tree `log`: the second copy of the log, for reading.
//!
//! Key: the position of a block's first record, 8 bytes big-endian. Value:
//!
//! ```text
//! off len  field
//!   0   1  form: 0 = frames as they are, 1 = frames compressed by zstd
//!   1   4  number of records
//!   5  32  chain value before the first record
//!  37  32  chain value of the last record
//!  69   n  frames
//! ```
//!
//! A *run* is up to [`RUN_RECORDS`] records that begin at a multiple of it, or
//! where a run of [`RUN_BYTES`] before ended. A complete run is one compressed
//! block and is never touched again. The run at the end of the log stands in
//! pieces, as the writer behind got them, until it is complete.
//!
//! The trap: sled puts a leaf whose values exceed a quarter of its segment size
//! into a file of its own that it never syncs. A leaf holds at most 17 values,
//! so with segments of 8 MiB a value may have 120 KiB; a block has at most
//! [`RUN_BYTES`] and one record more.

use engine::ids::Position;

use crate::block::{self, Block, Head};
use crate::record::{self, Chain};

/// Records in a complete run, as in an entry bundle of tlog-tiles.
pub(crate) const RUN_RECORDS: u64 = 256;

/// A run is complete with this many bytes of frames, whatever its count.
pub(crate) const RUN_BYTES: usize = 56 << 10;

/// The longest frames of a block: a run takes in one record beyond its limit.
const FRAMES_MAX: usize = RUN_BYTES + 4 + record::RECORD_MAX;

const FORM_PLAIN: u8 = 0;
const FORM_ZSTD: u8 = 1;
const HEADER_LEN: usize = 69;
const ZSTD_LEVEL: i32 = 1;

/// Why the tree cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TreeError {
    /// sled failed.
    #[error("sled: {0}")]
    Sled(#[from] sled::Error),
    /// The value under this position is no block, or not the one that belongs there.
    #[error("the block at position {0} is damaged")]
    Damaged(u64),
}

/// The writing end; there is one.
pub(crate) struct LogTree {
    tree: sled::Tree,
    /// Records of the run at the end of the log, compressed or not yet.
    run: Block,
    /// Keys of its pieces in the tree.
    pieces: Vec<u64>,
}

impl LogTree {
    /// Continues the tree where it ends; `genesis` is the chain value of an empty log.
    pub(crate) fn resume(tree: sled::Tree, genesis: Chain) -> Result<Self, TreeError> {
        let mut run = None::<Block>;
        let mut pieces = Vec::new();
        for item in tree.iter().rev() {
            let (key, value) = item?;
            let (form, block) = block_of(&key, &value)?;
            block.check().map_err(|_| TreeError::Damaged(block.first.0))?;
            let end = block.head();
            let follows =
                run.as_ref().is_none_or(|run| end == Head { size: run.first.0, chain: run.prev });
            if !follows {
                return Err(TreeError::Damaged(end.size));
            }
            if form == FORM_ZSTD {
                return Ok(Self { tree, run: run.unwrap_or(Block::after(&end)), pieces });
            }
            pieces.push(block.first.0);
            run = Some(match run {
                Some(later) => joined(block, &later),
                None => block,
            });
        }
        let empty = Head { size: 0, chain: genesis };
        let run = run.unwrap_or(Block::after(&empty));
        if run.first.0 != 0 {
            return Err(TreeError::Damaged(run.first.0));
        }
        Ok(Self { tree, run, pieces })
    }

    /// The end of this copy.
    pub(crate) fn head(&self) -> Head {
        self.run.head()
    }

    /// Adds encoded records, each with its chain value, that follow the end of
    /// this copy. They must be durable elsewhere.
    pub(crate) fn append<'a>(
        &mut self,
        records: impl IntoIterator<Item = (&'a [u8], Chain)>,
    ) -> Result<(), TreeError> {
        let mut piece = Block::after(&self.run.head());
        for (bytes, chain) in records {
            self.run.push_link(bytes, chain);
            piece.push_link(bytes, chain);
            let end = self.run.head().size;
            if end.is_multiple_of(RUN_RECORDS) || self.run.frames.len() >= RUN_BYTES {
                self.complete_run()?;
                piece = Block::after(&self.run.head());
            }
        }
        if piece.count > 0 {
            self.tree.insert(key_of(piece.first), plain(&piece))?;
            self.pieces.push(piece.first.0);
        }
        Ok(())
    }

    /// Replaces the pieces of the run by one block.
    fn complete_run(&mut self) -> Result<(), TreeError> {
        let next = Block::after(&self.run.head());
        let run = std::mem::replace(&mut self.run, next);
        let value = compressed(&run);
        let pieces = std::mem::take(&mut self.pieces);
        if pieces.is_empty() {
            self.tree.insert(key_of(run.first), value)?;
            return Ok(());
        }
        let mut batch = sled::Batch::default();
        for piece in pieces {
            batch.remove(&key_of(Position(piece)));
        }
        batch.insert(&key_of(run.first), value);
        self.tree.apply_batch(batch)?;
        Ok(())
    }
}

/// The checked block that holds the record at `position`, if the tree has it.
pub(crate) fn block_with(
    tree: &sled::Tree,
    position: Position,
) -> Result<Option<Block>, TreeError> {
    let Some(item) = tree.range(..=key_of(position)).next_back() else { return Ok(None) };
    let (key, value) = item?;
    let (_, block) = block_of(&key, &value)?;
    if block.head().size <= position.0 {
        return Ok(None);
    }
    block.check().map_err(|_| TreeError::Damaged(block.first.0))?;
    Ok(Some(block))
}

/// The block under a key, checked by itself.
pub(crate) fn checked_block(key: &[u8], value: &[u8]) -> Result<Block, TreeError> {
    let (_, block) = block_of(key, value)?;
    block.check().map_err(|_| TreeError::Damaged(block.first.0))?;
    Ok(block)
}

fn key_of(first: Position) -> [u8; 8] {
    first.0.to_be_bytes()
}

fn joined(mut earlier: Block, later: &Block) -> Block {
    earlier.frames.extend_from_slice(&later.frames);
    earlier.count += later.count;
    earlier.chain = later.chain;
    earlier
}

fn header(form: u8, block: &Block, capacity: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER_LEN + capacity);
    out.push(form);
    out.extend_from_slice(&block.count.to_be_bytes());
    out.extend_from_slice(&block.prev);
    out.extend_from_slice(&block.chain);
    out
}

fn plain(block: &Block) -> Vec<u8> {
    let mut out = header(FORM_PLAIN, block, block.frames.len());
    out.extend_from_slice(&block.frames);
    out
}

fn compressed(block: &Block) -> Vec<u8> {
    match zstd::bulk::compress(&block.frames, ZSTD_LEVEL) {
        Ok(frames) => {
            let mut out = header(FORM_ZSTD, block, frames.len());
            out.extend_from_slice(&frames);
            out
        }
        // zstd only fails without memory; the run can stand as it is.
        Err(_) => plain(block),
    }
}

/// The form and the block under a key. Not yet checked.
fn block_of(key: &[u8], value: &[u8]) -> Result<(u8, Block), TreeError> {
    let key: &[u8; 8] = key.try_into().map_err(|_| TreeError::Damaged(0))?;
    let first = Position(u64::from_be_bytes(*key));
    let damaged = TreeError::Damaged(first.0);
    let (header, frames) = value.split_first_chunk::<HEADER_LEN>().ok_or(damaged.clone())?;
    let mut count = [0; 4];
    count.copy_from_slice(&header[1..5]);
    let mut prev = [0; 32];
    prev.copy_from_slice(&header[5..37]);
    let mut chain = [0; 32];
    chain.copy_from_slice(&header[37..69]);
    let frames = match header[0] {
        FORM_PLAIN => frames.to_vec(),
        FORM_ZSTD => zstd::bulk::decompress(frames, FRAMES_MAX).map_err(|_| damaged)?,
        _ => return Err(damaged),
    };
    Ok((header[0], Block { first, count: u32::from_be_bytes(count), prev, chain, frames }))
}

/// The record at `position` of a block that holds it.
pub(crate) fn bytes_at(block: &Block, position: Position) -> Option<&[u8]> {
    let index = usize::try_from(position.0.checked_sub(block.first.0)?).ok()?;
    block::frames(&block.frames).nth(index)
}
