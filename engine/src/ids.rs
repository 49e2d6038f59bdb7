//! Identifiers and time, as they stand in records.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A 128-bit identifier, shown as a UUID. New ones are UUIDv7 (RFC 9562 section 5.7).
///
/// `serde` writes 16 bytes in binary formats and the UUID's text in readable ones.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Id(pub [u8; 16]);

impl Id {
    /// All zeros: "none" in a record header, and the system stream.
    pub const NIL: Self = Self([0; 16]);

    /// A UUIDv7 from a time and unpredictable bytes.
    #[must_use]
    pub fn v7(at: Micros, random: [u8; 10]) -> Self {
        let millis = at.0 / 1_000;
        let mut id = [0; 16];
        id[..6].copy_from_slice(&millis.to_be_bytes()[2..]);
        id[6..].copy_from_slice(&random);
        id[6] = 0x70 | (id[6] & 0x0f);
        id[8] = 0x80 | (id[8] & 0x3f);
        Self(id)
    }

    /// A UUIDv8 (RFC 9562 section 5.8) from the first bytes of a hash.
    #[must_use]
    pub fn v8(hash: &[u8; 32]) -> Self {
        let mut id = [0; 16];
        id.copy_from_slice(&hash[..16]);
        id[6] = 0x80 | (id[6] & 0x0f);
        id[8] = 0x80 | (id[8] & 0x3f);
        Self(id)
    }

    /// The id of event number `index` of a command whose first event has this id.
    ///
    /// The last byte counts: a command makes at most 255 events, and
    /// [`Id::first_of_command`] leaves it zero.
    #[must_use]
    pub fn nth(self, index: u8) -> Self {
        let mut id = self.0;
        id[15] = index;
        Self(id)
    }

    /// This id with its last byte zero, ready for [`Id::nth`].
    #[must_use]
    pub fn first_of_command(self) -> Self {
        self.nth(0)
    }

    /// Whether this is [`Id::NIL`].
    #[must_use]
    pub fn is_nil(self) -> bool {
        self == Self::NIL
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            self.0.serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
        } else {
            deserializer.deserialize_newtype_struct("Id", Raw).map(Self)
        }
    }
}

/// Reads the 16 bytes of an id. The name says what they are, for `crate::layout`.
struct Raw;

impl<'de> de::Visitor<'de> for Raw {
    type Value = [u8; 16];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("16 bytes")
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, from: D) -> Result<[u8; 16], D::Error> {
        <[u8; 16]>::deserialize(from)
    }
}

/// Text that is not a UUID in its 36-character form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a UUID")]
pub struct NotAnId;

impl FromStr for Id {
    type Err = NotAnId;

    /// Reads the hyphenated form, in either case.
    fn from_str(text: &str) -> Result<Self, NotAnId> {
        let bytes = text.as_bytes();
        if bytes.len() != 36 {
            return Err(NotAnId);
        }
        let mut id = [0; 16];
        let mut at = 0;
        for (index, slot) in id.iter_mut().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                if bytes[at] != b'-' {
                    return Err(NotAnId);
                }
                at += 1;
            }
            let high = char::from(bytes[at]).to_digit(16).ok_or(NotAnId)?;
            let low = char::from(bytes[at + 1]).to_digit(16).ok_or(NotAnId)?;
            *slot = (high * 16 + low) as u8;
            at += 2;
        }
        Ok(Self(id))
    }
}

/// Microseconds since 1970-01-01T00:00:00Z, leap seconds not counted.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default, Debug,
)]
pub struct Micros(pub u64);

impl Micros {
    /// The moment `seconds` later; the latest representable one on overflow.
    #[must_use]
    pub fn plus_s(self, seconds: u64) -> Self {
        Self(self.0.saturating_add(seconds.saturating_mul(1_000_000)))
    }
}

/// The place of a record in the log, from 0 without gaps; its Merkle leaf index.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default, Debug,
)]
pub struct Position(pub u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_what_it_prints() {
        let id = Id::v7(Micros(1_700_000_000_000_000), [0xff; 10]);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(id.to_string(), "018bcfe5-6800-7fff-bfff-ffffffffffff");
    }

    #[test]
    fn what_is_not_an_id_is_refused() {
        for text in [
            "",
            "018bcfe5-6800-7fff-bfff-fffffffffff",
            "018bcfe5x6800-7fff-bfff-ffffffffffff",
            "018bcfe5-6800-7fff-bfff-fffffffffffg",
        ] {
            assert_eq!(text.parse::<Id>(), Err(NotAnId), "{text}");
        }
    }
}
