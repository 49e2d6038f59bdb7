//! One record as bytes: hand-written, big-endian, fixed offsets.
//!
//! ```text
//! off len  field
//!   0   1  format = 1
//!   1   1  codec of the payload (1 = bincode 1, see engine::codec)
//!   2   2  event type
//!   4   2  schema version of the payload
//!   6   2  reserved, zero
//!   8   8  position
//!  16   8  time, microseconds since 1970-01-01T00:00:00Z
//!  24  16  event id
//!  40  16  stream id
//!  56   8  stream version
//!  64   8  position of the stream's previous record, 2^64-1 if none
//!  72  16  correlation id
//!  88  16  causation id
//! 104  16  subject id, zero if nothing is sealed
//! 120  32  chain value of the record before
//! 152   4  length of the clear part
//! 156   4  length of the sealed part
//! 160   n  clear part, then sealed part
//! ```

use std::sync::LazyLock;

use blake3::hazmat::{ContextKey, HasherExt, hash_derive_key_context};
use engine::codec::CODEC_BINCODE_1;
use engine::ids::{Id, Micros, Position};
use engine::machine::{Draft, Record};

/// Length of the header in bytes.
pub const HEADER_LEN: usize = 160;

/// The longest record, in bytes: a tlog-tiles entry has a 16-bit length.
pub const RECORD_MAX: usize = 60 * 1024;

/// The format byte of this layout.
pub const FORMAT_1: u8 = 1;

const NO_PREVIOUS: u64 = u64::MAX;

/// A chain value: BLAKE3 over a record, which holds the value before it.
pub type Chain = [u8; 32];

/// Why bytes are no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Shorter than its header, or than its header says.
    #[error("record is cut short")]
    Short,
    /// Longer than its header says, or than [`RECORD_MAX`].
    #[error("record is too long")]
    Long,
    /// A format that this version does not know.
    #[error("unknown record format {0}")]
    Format(u8),
    /// A codec that this version does not know.
    #[error("unknown payload codec {0}")]
    Codec(u8),
    /// Reserved bytes that are not zero.
    #[error("reserved bytes are not zero")]
    Reserved,
}

/// The bytes of `record`, following a record with chain value `prev`.
///
/// # Errors
///
/// [`RecordError::Long`] beyond [`RECORD_MAX`].
pub fn encode(record: &Record, prev: &Chain) -> Result<Vec<u8>, RecordError> {
    let mut out = Vec::with_capacity(encoded_len(record));
    encode_into(record, prev, &mut out)?;
    Ok(out)
}

/// Length of `record` as bytes.
fn encoded_len(record: &Record) -> usize {
    HEADER_LEN + record.draft.clear.len() + record.draft.sealed.len()
}

/// Appends the bytes of `record` to `out`, as [`encode`] gives them.
///
/// # Errors
///
/// [`RecordError::Long`] beyond [`RECORD_MAX`]; `out` has not changed then.
pub fn encode_into(record: &Record, prev: &Chain, out: &mut Vec<u8>) -> Result<(), RecordError> {
    let draft = &record.draft;
    let len = encoded_len(record);
    if len > RECORD_MAX {
        return Err(RecordError::Long);
    }
    out.reserve(len);
    out.push(FORMAT_1);
    out.push(CODEC_BINCODE_1);
    out.extend_from_slice(&draft.event_type.to_be_bytes());
    out.extend_from_slice(&draft.schema.to_be_bytes());
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(&record.position.0.to_be_bytes());
    out.extend_from_slice(&record.time.0.to_be_bytes());
    out.extend_from_slice(&draft.event_id.0);
    out.extend_from_slice(&draft.stream.0);
    out.extend_from_slice(&record.stream_version.to_be_bytes());
    let previous = record.stream_prev.map_or(NO_PREVIOUS, |position| position.0);
    out.extend_from_slice(&previous.to_be_bytes());
    out.extend_from_slice(&record.correlation.0);
    out.extend_from_slice(&record.causation.0);
    out.extend_from_slice(&draft.subject.0);
    out.extend_from_slice(prev);
    // Both fit: the sum is at most RECORD_MAX.
    out.extend_from_slice(&(draft.clear.len() as u32).to_be_bytes());
    out.extend_from_slice(&(draft.sealed.len() as u32).to_be_bytes());
    out.extend_from_slice(&draft.clear);
    out.extend_from_slice(&draft.sealed);
    Ok(())
}

/// The record that `bytes` hold, and the chain value it follows.
///
/// # Errors
///
/// [`RecordError`] unless `bytes` are exactly one record of a known format.
pub fn decode(bytes: &[u8]) -> Result<(Record, Chain), RecordError> {
    let &format = bytes.first().ok_or(RecordError::Short)?;
    if format != FORMAT_1 {
        return Err(RecordError::Format(format));
    }
    let (header, payload) = bytes.split_first_chunk::<HEADER_LEN>().ok_or(RecordError::Short)?;
    if bytes.len() > RECORD_MAX {
        return Err(RecordError::Long);
    }
    if header[1] != CODEC_BINCODE_1 {
        return Err(RecordError::Codec(header[1]));
    }
    if header[6..8] != [0, 0] {
        return Err(RecordError::Reserved);
    }
    let clear_len = u32::from_be_bytes(field(header, 152)) as usize;
    let sealed_len = u32::from_be_bytes(field(header, 156)) as usize;
    let len = clear_len.checked_add(sealed_len).ok_or(RecordError::Long)?;
    match payload.len().cmp(&len) {
        std::cmp::Ordering::Less => return Err(RecordError::Short),
        std::cmp::Ordering::Greater => return Err(RecordError::Long),
        std::cmp::Ordering::Equal => (),
    }
    let previous = u64::from_be_bytes(field(header, 64));
    let record = Record {
        position: Position(u64::from_be_bytes(field(header, 8))),
        time: Micros(u64::from_be_bytes(field(header, 16))),
        stream_version: u64::from_be_bytes(field(header, 56)),
        stream_prev: (previous != NO_PREVIOUS).then_some(Position(previous)),
        correlation: Id(field(header, 72)),
        causation: Id(field(header, 88)),
        draft: Draft {
            stream: Id(field(header, 40)),
            event_id: Id(field(header, 24)),
            event_type: u16::from_be_bytes(field(header, 2)),
            schema: u16::from_be_bytes(field(header, 4)),
            subject: Id(field(header, 104)),
            clear: payload[..clear_len].to_vec(),
            sealed: payload[clear_len..].to_vec(),
        },
    };
    Ok((record, field(header, 120)))
}

/// The event type of an encoded record, without a look at anything else; none if
/// it is cut short.
#[must_use]
pub fn event_type(bytes: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(field(bytes.first_chunk()?, 2)))
}

/// The chain value that an encoded record follows; none if it is cut short.
pub(crate) fn chain_before(bytes: &[u8]) -> Option<Chain> {
    Some(field(bytes.first_chunk()?, 120))
}

/// The chain value of a record: BLAKE3 in derive-key mode over its bytes, which
/// include the value before it.
#[must_use]
pub fn chain(record_bytes: &[u8]) -> Chain {
    // The context is hashed once, and not once more for every record.
    static CONTEXT: LazyLock<ContextKey> =
        LazyLock::new(|| hash_derive_key_context("keytrail 2026-11 log chain v1"));
    let mut hasher = blake3::Hasher::new_from_context_key(&CONTEXT);
    hasher.update(record_bytes);
    *hasher.finalize().as_bytes()
}

/// `N` header bytes from `offset`. Every caller names a range inside the header.
fn field<const N: usize>(header: &[u8; HEADER_LEN], offset: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&header[offset..offset + N]);
    out
}
