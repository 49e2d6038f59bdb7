//! The only caller of bincode: payloads and state entries as bytes.
//!
//! One constant set of options: fixed-width integers, little-endian, at most
//! [`LIMIT`] bytes, nothing may follow. Records name the codec in their header
//! ([`CODEC_BINCODE_1`]), so a successor is a new byte and not a migration.

use bincode::Options;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// bincode 1 with the options of this module.
pub const CODEC_BINCODE_1: u8 = 1;

/// The longest encoded value, in bytes.
pub const LIMIT: u64 = 60 * 1024;

/// Bytes that are no value of the wanted type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a value of the expected layout")]
pub struct Undecodable;

fn options() -> impl Options {
    bincode::DefaultOptions::new()
        .with_fixint_encoding()
        .with_little_endian()
        .with_limit(LIMIT)
        .reject_trailing_bytes()
}

/// The bytes of `value`.
///
/// # Panics
///
/// If they would be longer than [`LIMIT`]: every input that could make them so
/// is bounded where it enters.
#[must_use]
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    #[expect(clippy::expect_used, reason = "inputs are bounded far below the limit")]
    options().serialize(value).expect("a value within the limit")
}

/// The value that `bytes` hold.
///
/// # Errors
///
/// [`Undecodable`] if they hold none, hold more, or are too long.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Undecodable> {
    options().deserialize(bytes).map_err(|_| Undecodable)
}
