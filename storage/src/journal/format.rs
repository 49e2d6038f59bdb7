//! The bytes of a segment file. Numbers are big-endian; `docs/format.md` has
//! the same tables.
//!
//! ```text
//! segment                     header (512 bytes, twice)
//!    0  512  header           off len  field
//!  512  512  header again       0   8  "KTJOURN1"
//! 1024    …  groups             8   8  position of the first record
//!    …  128  seal, or zeros    16   8  length the file was made with
//!                              24  32  genesis chain value of the log
//! group                        56  32  chain value before the first record
//! off len  field               88  32  segment key, random
//!   0   8  "KTGROUP1"         120 360  zero
//!   8   8  first position     480  32  BLAKE3 of bytes 0 to 479
//!  16   4  count
//!  20   4  payload length     seal
//!  24  32  chain before       off len  field
//!  56  32  chain after          0   8  "KTSEALED"
//!  88  32  payload hash         8   8  position of the first record
//! 120  32  header hash         16   8  number of records
//! 152   n  payload             24   8  offset of the seal
//!                              32  32  chain value of the last record
//!                              64  32  BLAKE3 of the file before the seal
//!                              96  32  keyed hash of bytes 0 to 95
//! ```
//!
//! The hashes of groups, and the last one of the seal, are BLAKE3 keyed with the segment key, which nobody
//! outside knows: a record that holds the bytes of a group, sent in by someone
//! who wants to stop the next start, is not taken for one.

use engine::ids::Position;

use crate::block::{Block, GROUP_BYTES_MAX, Head};
use crate::record::Chain;

/// Where the second copy of the header is.
pub(super) const HEADER_COPY_AT: u64 = 512;
/// Where groups begin.
pub(super) const GROUPS_AT: u64 = 1024;
/// Length of one copy of the header.
pub(super) const HEADER_LEN: usize = 512;
/// Length of a group's header.
pub(super) const GROUP_HEADER_LEN: usize = 152;
/// Length of the seal.
pub(super) const SEAL_LEN: usize = 128;

/// The first bytes of a group.
pub(super) const GROUP_MAGIC: &[u8; 8] = b"KTGROUP1";
/// The first bytes of a seal.
pub(super) const SEAL_MAGIC: &[u8; 8] = b"KTSEALED";
const HEADER_MAGIC: &[u8; 8] = b"KTJOURN1";

const HEADER_CONTEXT: &str = "keytrail 2026-11 journal segment header v1";
/// The header of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    /// Position of the first record.
    pub(super) first: Position,
    /// Length the file was made with: a file without a seal that is shorter was cut.
    pub(super) reserved: u64,
    /// The log it belongs to.
    pub(super) genesis: Chain,
    /// Chain value before the first record.
    pub(super) prev: Chain,
    /// Keys the hashes of its groups.
    pub(super) key: [u8; 32],
}

impl SegmentHeader {
    /// Both copies.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(GROUPS_AT as usize);
        out.extend_from_slice(HEADER_MAGIC);
        out.extend_from_slice(&self.first.0.to_be_bytes());
        out.extend_from_slice(&self.reserved.to_be_bytes());
        out.extend_from_slice(&self.genesis);
        out.extend_from_slice(&self.prev);
        out.extend_from_slice(&self.key);
        out.resize(HEADER_LEN - 32, 0);
        let hash = blake3::derive_key(HEADER_CONTEXT, &out);
        out.extend_from_slice(&hash);
        out.extend_from_within(..);
        out
    }

    /// One copy; none if it is not a header.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; HEADER_LEN] = bytes.first_chunk()?;
        let (fields, hash) = bytes.split_at(HEADER_LEN - 32);
        if !fields.starts_with(HEADER_MAGIC) || blake3::derive_key(HEADER_CONTEXT, fields) != hash {
            return None;
        }
        Some(Self {
            first: Position(u64::from_be_bytes(field(bytes, 8))),
            reserved: u64::from_be_bytes(field(bytes, 16)),
            genesis: field(bytes, 24),
            prev: field(bytes, 56),
            key: field(bytes, 88),
        })
    }
}

/// The header of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct GroupHeader {
    /// Position of the first record.
    pub(super) first: Position,
    /// Number of records.
    pub(super) count: u32,
    /// Length of the payload.
    pub(super) len: u32,
    /// Chain value before the first record.
    pub(super) prev: Chain,
    /// Chain value of the last record.
    pub(super) chain: Chain,
    /// Keyed hash of the payload.
    pub(super) hash: [u8; 32],
}

impl GroupHeader {
    /// The header for `block`.
    pub(super) fn of(block: &Block, key: &[u8; 32]) -> Self {
        Self {
            first: block.first,
            count: block.count,
            // At most GROUP_BYTES_MAX: checked before anything is written.
            len: block.frames.len() as u32,
            prev: block.prev,
            chain: block.chain,
            hash: *blake3::keyed_hash(key, &block.frames).as_bytes(),
        }
    }

    /// Appends the header's bytes to `out`.
    pub(super) fn encode(&self, key: &[u8; 32], out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(GROUP_MAGIC);
        out.extend_from_slice(&self.first.0.to_be_bytes());
        out.extend_from_slice(&self.count.to_be_bytes());
        out.extend_from_slice(&self.len.to_be_bytes());
        out.extend_from_slice(&self.prev);
        out.extend_from_slice(&self.chain);
        out.extend_from_slice(&self.hash);
        let hash = blake3::keyed_hash(key, &out[start..]);
        out.extend_from_slice(hash.as_bytes());
    }

    /// The header in `bytes`; none unless it was written under `key`.
    pub(super) fn decode(bytes: &[u8], key: &[u8; 32]) -> Option<Self> {
        let bytes: &[u8; GROUP_HEADER_LEN] = bytes.first_chunk()?;
        let (fields, hash) = bytes.split_at(GROUP_HEADER_LEN - 32);
        if !fields.starts_with(GROUP_MAGIC) || blake3::keyed_hash(key, fields).as_bytes() != hash {
            return None;
        }
        let header = Self {
            first: Position(u64::from_be_bytes(field(bytes, 8))),
            count: u32::from_be_bytes(field(bytes, 16)),
            len: u32::from_be_bytes(field(bytes, 20)),
            prev: field(bytes, 24),
            chain: field(bytes, 56),
            hash: field(bytes, 88),
        };
        let sane = header.len as usize <= GROUP_BYTES_MAX
            && header.count > 0
            && header.first.0.checked_add(u64::from(header.count)).is_some();
        sane.then_some(header)
    }

    /// Whether `payload` is what was written behind this header.
    pub(super) fn matches(&self, payload: &[u8], key: &[u8; 32]) -> bool {
        *blake3::keyed_hash(key, payload).as_bytes() == self.hash
    }

    /// Length of header and payload together.
    pub(super) fn total(&self) -> u64 {
        GROUP_HEADER_LEN as u64 + u64::from(self.len)
    }

    /// The head of a log that ends with this group.
    pub(super) fn head(&self) -> Head {
        Head { size: self.first.0 + u64::from(self.count), chain: self.chain }
    }

    /// The block of this header and its payload.
    pub(super) fn block(&self, payload: Vec<u8>) -> Block {
        Block {
            first: self.first,
            count: self.count,
            prev: self.prev,
            chain: self.chain,
            frames: payload,
        }
    }
}

/// What ends a segment that is full.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seal {
    /// Position of the first record.
    pub(super) first: Position,
    /// Number of records.
    pub(super) count: u64,
    /// Where the seal stands: the file's length without it.
    pub(super) offset: u64,
    /// Chain value of the last record.
    pub(super) chain: Chain,
    /// BLAKE3 of everything before the seal.
    pub(super) hash: [u8; 32],
}

impl Seal {
    /// The seal's bytes.
    pub(super) fn encode(&self, key: &[u8; 32]) -> Vec<u8> {
        let mut out = Vec::with_capacity(SEAL_LEN);
        out.extend_from_slice(SEAL_MAGIC);
        out.extend_from_slice(&self.first.0.to_be_bytes());
        out.extend_from_slice(&self.count.to_be_bytes());
        out.extend_from_slice(&self.offset.to_be_bytes());
        out.extend_from_slice(&self.chain);
        out.extend_from_slice(&self.hash);
        let hash = blake3::keyed_hash(key, &out);
        out.extend_from_slice(hash.as_bytes());
        out
    }

    /// The seal in `bytes`; none unless it was written under `key`.
    pub(super) fn decode(bytes: &[u8], key: &[u8; 32]) -> Option<Self> {
        let bytes: &[u8; SEAL_LEN] = bytes.first_chunk()?;
        let (fields, hash) = bytes.split_at(SEAL_LEN - 32);
        if !fields.starts_with(SEAL_MAGIC) || blake3::keyed_hash(key, fields).as_bytes() != hash {
            return None;
        }
        let seal = Self {
            first: Position(u64::from_be_bytes(field(bytes, 8))),
            count: u64::from_be_bytes(field(bytes, 16)),
            offset: u64::from_be_bytes(field(bytes, 24)),
            chain: field(bytes, 32),
            hash: field(bytes, 64),
        };
        seal.first.0.checked_add(seal.count).map(|_| seal)
    }

    /// The head of a log that ends with this segment.
    pub(super) fn head(&self) -> Head {
        Head { size: self.first.0 + self.count, chain: self.chain }
    }
}

/// `N` bytes from `offset`. Every caller names a range inside its table.
fn field<const N: usize>(bytes: &[u8], offset: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[offset..offset + N]);
    out
}
