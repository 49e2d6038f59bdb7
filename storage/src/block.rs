//! A block: the records of one group commit, chained and framed; and the log
//! as a sequence of blocks.
//!
//! The same bytes are written to the journal and kept in sled. An engine under
//! [`BlockLog`] never sees an event.

use engine::ids::Position;
use engine::machine::Record;

use crate::record::{self, Chain, RecordError};

/// How far a log has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Number of records: the position that the next one gets.
    pub size: u64,
    /// Chain value of the last record; [`genesis`] of the log if there is none.
    pub chain: Chain,
}

/// What the first record of a log follows: the hash of its origin line.
#[must_use]
pub fn genesis(origin: &str) -> Chain {
    blake3::derive_key("keytrail 2026-11 log genesis v1", origin.as_bytes())
}

/// The longest block, as the length of its frames in bytes: 255 records (the
/// most that one command makes) of the greatest length fit.
pub const GROUP_BYTES_MAX: usize = 16 << 20;

/// The records of one group commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Position of the first record.
    pub first: Position,
    /// Number of records; at least 1 in a block that is appended.
    pub count: u32,
    /// Chain value before the first record.
    pub prev: Chain,
    /// Chain value of the last record.
    pub chain: Chain,
    /// The records, each behind its length as 4 bytes big-endian.
    pub frames: Vec<u8>,
}

impl Block {
    /// A block without records that would follow `head`.
    #[must_use]
    pub fn after(head: &Head) -> Self {
        Self {
            first: Position(head.size),
            count: 0,
            prev: head.chain,
            chain: head.chain,
            frames: Vec::new(),
        }
    }

    /// The head of a log that ends with this block.
    #[must_use]
    pub fn head(&self) -> Head {
        Head { size: self.first.0 + u64::from(self.count), chain: self.chain }
    }

    /// Adds an encoded record that follows the present end of the block.
    pub fn push(&mut self, record: &[u8]) {
        self.push_link(record, record::chain(record));
    }

    /// As [`Block::push`], for a record whose chain value is known.
    pub(crate) fn push_link(&mut self, record: &[u8], chain: Chain) {
        debug_assert!(record.len() <= record::RECORD_MAX);
        self.frames.extend_from_slice(&(record.len() as u32).to_be_bytes());
        self.frames.extend_from_slice(record);
        self.chain = chain;
        self.count += 1;
    }

    /// Adds `record`, which follows the present end of the block, without a copy
    /// of its bytes in between.
    ///
    /// # Errors
    ///
    /// [`RecordError::Long`]; the block has not changed then.
    pub fn push_record(&mut self, record: &Record) -> Result<(), RecordError> {
        let start = self.frames.len();
        self.frames.extend_from_slice(&[0; 4]);
        if let Err(error) = record::encode_into(record, &self.chain, &mut self.frames) {
            self.frames.truncate(start);
            return Err(error);
        }
        let bytes = &self.frames[start + 4..];
        let len = (bytes.len() as u32).to_be_bytes();
        self.chain = record::chain(bytes);
        self.frames[start..start + 4].copy_from_slice(&len);
        self.count += 1;
        Ok(())
    }

    /// The encoded records in order. Ends early at a frame that is cut short.
    pub fn records(&self) -> impl Iterator<Item = &[u8]> {
        frames(&self.frames)
    }

    /// The encoded records in order, each with its chain value. Hashes nothing:
    /// a record holds the value of the one before it. So this is for blocks that
    /// were made or checked here.
    pub(crate) fn links(&self) -> impl Iterator<Item = (&[u8], Chain)> {
        let mut records = self.records().peekable();
        std::iter::from_fn(move || {
            let record = records.next()?;
            let chain = records.peek().and_then(|next| record::chain_before(next));
            Some((record, chain.unwrap_or(self.chain)))
        })
    }

    /// What every log checks before it writes: that the caller knows where the
    /// log ends, and that this is a block which belongs there.
    ///
    /// # Errors
    ///
    /// [`AppendError::Conflict`] and [`AppendError::Malformed`].
    pub fn follows(&self, actual: &Head, expect: &Head) -> Result<(), AppendError> {
        if actual != expect {
            return Err(AppendError::Conflict { actual: *actual });
        }
        if self.first.0 != actual.size || self.prev != actual.chain {
            return Err(AppendError::Malformed("it follows another head"));
        }
        if self.count == 0 {
            return Err(AppendError::Malformed("it has no records"));
        }
        if self.frames.len() > GROUP_BYTES_MAX {
            return Err(AppendError::Malformed("it is too long"));
        }
        let (count, len) =
            self.records().fold((0, 0), |(count, len), record| (count + 1, len + 4 + record.len()));
        if count != self.count || len != self.frames.len() {
            return Err(AppendError::Malformed("its frames do not fill it"));
        }
        Ok(())
    }

    /// Checks everything that can be checked without another block: frames,
    /// record format, positions, chain.
    ///
    /// # Errors
    ///
    /// The first [`BlockError`] found.
    pub fn check(&self) -> Result<(), BlockError> {
        let mut chain = self.prev;
        let mut position = self.first;
        let mut len = 0;
        for bytes in self.records() {
            len += 4 + bytes.len();
            let (record, prev) = record::decode(bytes)?;
            if record.position != position {
                return Err(BlockError::Position { expected: position, found: record.position });
            }
            if prev != chain {
                return Err(BlockError::Chain(position));
            }
            chain = record::chain(bytes);
            position.0 += 1;
        }
        if len != self.frames.len() || position.0 - self.first.0 != u64::from(self.count) {
            return Err(BlockError::Frames);
        }
        if chain != self.chain {
            return Err(BlockError::Chain(position));
        }
        Ok(())
    }
}

/// The frames of a block's bytes, in order; ends at the first that is cut short.
pub fn frames(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (len, rest) = bytes.split_first_chunk::<4>()?;
        let (frame, rest) = rest.split_at_checked(u32::from_be_bytes(*len) as usize)?;
        bytes = rest;
        Some(frame)
    })
}

/// What is wrong inside a block.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// Frame lengths do not add up to the block, or the count is another.
    #[error("frames do not fill the block")]
    Frames,
    /// A frame holds no record.
    #[error("{0}")]
    Record(#[from] RecordError),
    /// A record stands where another belongs.
    #[error("record says position {}, place is {}", found.0, expected.0)]
    Position {
        /// The place.
        expected: Position,
        /// What the record says.
        found: Position,
    },
    /// The chain does not lead to or from this position.
    #[error("chain breaks at position {}", .0.0)]
    Chain(Position),
}

/// Why a block was not appended.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The log's head is not the one expected. Nothing was written.
    #[error("the log's head is at {}, not where the block belongs", actual.size)]
    Conflict {
        /// Where the log really is.
        actual: Head,
    },
    /// The bytes are no block, or longer than [`GROUP_BYTES_MAX`]. Nothing was
    /// written; whoever made the block is wrong.
    #[error("no block: {0}")]
    Malformed(&'static str),
    /// No space left. Nothing was written; the log can still be read.
    #[error("no space left for the log")]
    Full,
    /// The write or the sync failed, or its outcome is not known. The writer
    /// must stop: what is on disk is decided by the next start alone.
    #[error("the log could not be made durable")]
    Io(#[source] std::io::Error),
}

/// An append-only log of blocks with one writer.
///
/// Every implementation is held to one suite of tests, `conformance`.
pub trait BlockLog: Send {
    /// The durable head: what a power cut cannot take back.
    fn head(&self) -> Head;

    /// Appends all of `block` after `expect`, or nothing.
    ///
    /// On `Ok` the block is durable and is what [`BlockLog::head`] ends with.
    ///
    /// # Errors
    ///
    /// [`AppendError`]; after [`AppendError::Io`] the outcome is unknown, and
    /// every later append fails too.
    fn append(&mut self, expect: &Head, block: &Block) -> Result<Head, AppendError>;

    /// Encoded records in order from `from`: as many as there are, at most
    /// `limit`; none at or beyond the head. Never skips one.
    ///
    /// # Errors
    ///
    /// If the medium cannot be read or holds damage.
    fn read(&self, from: Position, limit: usize) -> std::io::Result<Vec<Vec<u8>>>;
}
