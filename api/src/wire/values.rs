//! Bytes and times as they stand in JSON.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use engine::ids::Micros;
use serde::de::{self, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, SchemaFormat, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

/// Bytes, as base64url without padding (RFC 4648 section 5).
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Octets(pub Vec<u8>);

/// Exactly 32 bytes, as 43 characters of base64url without padding.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Octets32(pub [u8; 32]);

/// A moment, as RFC 3339 in UTC with microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub Micros);

/// The length alone: what travels may be a secret.
impl fmt::Debug for Octets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{} bytes]", self.0.len())
    }
}

impl fmt::Debug for Octets32 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[32 bytes]")
    }
}

impl Serialize for Octets {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&URL_SAFE_NO_PAD.encode(&self.0))
    }
}

impl Serialize for Octets32 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

/// Reads text without copying it where the format allows.
struct Text<T> {
    expected: &'static str,
    read: fn(&str) -> Option<T>,
}

impl<T> Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        (self.read)(text).ok_or_else(|| E::invalid_value(Unexpected::Other("text"), &self))
    }
}

impl<'de> Deserialize<'de> for Octets {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Text {
            expected: "base64url without padding",
            read: |text| URL_SAFE_NO_PAD.decode(text).ok().map(Self),
        })
    }
}

impl<'de> Deserialize<'de> for Octets32 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Text {
            expected: "32 bytes as base64url without padding",
            read: |text| URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok().map(Self),
        })
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&replay::rfc3339(self.0))
    }
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Text {
            expected: "a time as in RFC 3339",
            read: |text| replay::micros_of(text).map(Self),
        })
    }
}

fn text(description: &str, length: Option<usize>, format: Option<SchemaFormat>) -> RefOr<Schema> {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .description(Some(description))
        .min_length(length)
        .max_length(length)
        .format(format)
        .build()
        .into()
}

macro_rules! text_schema {
    ($type:ident, $length:expr, $format:expr, $about:literal) => {
        impl PartialSchema for $type {
            fn schema() -> RefOr<Schema> {
                text($about, $length, $format)
            }
        }

        impl ToSchema for $type {
            fn name() -> Cow<'static, str> {
                stringify!($type).into()
            }
        }
    };
}

text_schema!(Octets, None, None, "Bytes, as base64url without padding (RFC 4648 section 5).");
text_schema!(
    Octets32,
    Some(43),
    None,
    "32 bytes, as base64url without padding (RFC 4648 section 5)."
);
text_schema!(
    Moment,
    None,
    Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)),
    "A moment in UTC, as in RFC 3339."
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_read_back_and_padding_other_alphabets_and_lengths_are_refused() {
        let octets: Octets = serde_json::from_str(r#""-_8""#).unwrap();
        assert_eq!(octets.0, [0xfb, 0xff]);
        assert_eq!(serde_json::to_string(&octets).unwrap(), r#""-_8""#);
        for bad in [r#""-_8=""#, r#""+/8""#, r#""-_9""#, r#""a""#, "1", "null", r#"[1]"#] {
            assert!(serde_json::from_str::<Octets>(bad).is_err(), "{bad}");
        }
        let fits = format!("\"{}\"", "A".repeat(43));
        assert_eq!(serde_json::from_str::<Octets32>(&fits).unwrap().0, [0; 32]);
        for length in [0, 42, 44] {
            let bad = format!("\"{}\"", "A".repeat(length));
            assert!(serde_json::from_str::<Octets32>(&bad).is_err(), "{length}");
        }
    }

    #[test]
    fn moments_are_rfc_3339_in_utc_with_six_digits_and_read_back() {
        let moment = Moment(Micros(1_700_000_000_000_001));
        assert_eq!(moment.to_string(), "2023-11-14T22:13:20.000001Z");
        let json = serde_json::to_string(&moment).unwrap();
        assert_eq!(serde_json::from_str::<Moment>(&json).unwrap(), moment);
        assert_eq!(Moment(Micros(0)).to_string(), "1970-01-01T00:00:00.000000Z");
    }

    #[test]
    fn debug_shows_lengths_alone() {
        assert_eq!(
            format!("{:?} {:?}", Octets(vec![7; 3]), Octets32([7; 32])),
            "[3 bytes] [32 bytes]"
        );
    }
}
