//! What the clear parts look like as bytes, found by asking the types themselves.
//!
//! A payload says through serde what it reads and in which order. [`of`] answers
//! each of these questions with something harmless and notes what was asked, so a
//! description cannot fall behind the type that it describes. Exports hold it for
//! every event, so that a stranger can read a log without this software.

use std::fmt;

use serde::de::{self, DeserializeOwned, DeserializeSeed, SeqAccess, Visitor};
use serde_json::{Value, json};

/// How a value stands in bytes: bincode 1 with the options of [`crate::codec`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Layout {
    /// One byte, 0 or 1.
    Bool,
    /// An unsigned integer of so many bits, little-endian.
    Unsigned(u8),
    /// A signed integer of so many bits, little-endian, two's complement.
    Signed(u8),
    /// A length in 8 bytes, little-endian, and that many bytes of UTF-8.
    Text,
    /// A byte 0, or a byte 1 and the value.
    Option(Box<Self>),
    /// A length in 8 bytes, little-endian, and that many values.
    List(Box<Self>),
    /// So many values of one kind, without a length.
    Array(usize, Box<Self>),
    /// Values one after the other.
    Tuple(Vec<Self>),
    /// Named values one after the other.
    Struct(&'static str, Vec<(&'static str, Self)>),
    /// A value with a meaning of its own.
    Named(&'static str, Box<Self>),
    /// A word of a closed set: an integer of 16 bits, with the words by number.
    Word(&'static str, Vec<(&'static str, &'static str)>),
}

impl Layout {
    /// As JSON, as it stands in exports. `docs/format.md` says how to read it.
    #[must_use]
    pub fn to_json(&self) -> Value {
        match self {
            Self::Bool => json!("bool"),
            Self::Unsigned(bits) => json!(format!("u{bits}")),
            Self::Signed(bits) => json!(format!("i{bits}")),
            Self::Text => json!("text"),
            Self::Option(inner) => json!({ "option": inner.to_json() }),
            Self::List(inner) if **inner == Self::Unsigned(8) => json!("bytes"),
            Self::List(inner) => json!({ "list": inner.to_json() }),
            Self::Array(len, inner) if **inner == Self::Unsigned(8) => json!({ "bytes": len }),
            Self::Array(len, inner) => json!({ "array": inner.to_json(), "length": len }),
            Self::Tuple(items) => {
                json!({ "tuple": items.iter().map(Self::to_json).collect::<Vec<_>>() })
            }
            Self::Struct(name, fields) => {
                let fields: Vec<_> = fields
                    .iter()
                    .map(|(name, layout)| json!({ "name": name, "type": layout.to_json() }))
                    .collect();
                json!({ "struct": name, "fields": fields })
            }
            Self::Named(name, inner) => json!({ "named": name, "type": inner.to_json() }),
            Self::Word(name, words) => {
                let words: serde_json::Map<_, _> = words
                    .iter()
                    .map(|(number, word)| ((*number).to_owned(), json!(word)))
                    .collect();
                json!({ "word": name, "words": words })
            }
        }
    }
}

/// The layout of `T`.
///
/// # Errors
///
/// [`NoLayout`] if a value of `T` cannot be read without knowing it: an enum
/// without numbers of its own, or a map. No payload may hold such a thing.
pub fn of<T: DeserializeOwned>() -> Result<Layout, NoLayout> {
    let mut layout = None;
    T::deserialize(Tracer(&mut layout))?;
    layout.ok_or_else(|| NoLayout("nothing was read".to_owned()))
}

/// A type whose bytes have no fixed layout.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NoLayout(String);

impl de::Error for NoLayout {
    fn custom<T: fmt::Display>(what: T) -> Self {
        Self(what.to_string())
    }
}

/// Notes what one value is read as.
struct Tracer<'a>(&'a mut Option<Layout>);

/// Answers with a number and notes its kind.
macro_rules! integers {
    ($($method:ident $visit:ident $kind:ident $bits:literal)*) => { $(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, NoLayout> {
            *self.0 = Some(Layout::$kind($bits));
            // Closed sets have no word 0, and all of them a word 1.
            visitor.$visit(1)
        }
    )* };
}

/// Refuses what has no layout.
macro_rules! refused {
    ($($method:ident)*) => { $(
        fn $method<V: Visitor<'de>>(self, _: V) -> Result<V::Value, NoLayout> {
            Err(NoLayout(concat!(stringify!($method), " has no fixed layout").to_owned()))
        }
    )* };
}

impl<'de> de::Deserializer<'de> for Tracer<'_> {
    type Error = NoLayout;

    integers! {
        deserialize_u8 visit_u8 Unsigned 8
        deserialize_u16 visit_u16 Unsigned 16
        deserialize_u32 visit_u32 Unsigned 32
        deserialize_u64 visit_u64 Unsigned 64
        deserialize_i8 visit_i8 Signed 8
        deserialize_i16 visit_i16 Signed 16
        deserialize_i32 visit_i32 Signed 32
        deserialize_i64 visit_i64 Signed 64
    }

    refused! {
        deserialize_any deserialize_ignored_any deserialize_identifier deserialize_map
        deserialize_f32 deserialize_f64 deserialize_char deserialize_unit
    }

    fn is_human_readable(&self) -> bool {
        false
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, NoLayout> {
        *self.0 = Some(Layout::Bool);
        visitor.visit_bool(false)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, NoLayout> {
        *self.0 = Some(Layout::Text);
        visitor.visit_str("")
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, NoLayout> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, NoLayout> {
        *self.0 = Some(Layout::List(Box::new(Layout::Unsigned(8))));
        visitor.visit_bytes(&[])
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, NoLayout> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, NoLayout> {
        let mut inner = None;
        let value = visitor.visit_some(Tracer(&mut inner))?;
        *self.0 = inner.map(|inner| Layout::Option(Box::new(inner)));
        Ok(value)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, NoLayout> {
        let mut items = Items::of(1);
        let value = visitor.visit_seq(&mut items)?;
        *self.0 = items.found.pop().map(|inner| Layout::List(Box::new(inner)));
        Ok(value)
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, NoLayout> {
        let mut items = Items::of(len);
        let value = visitor.visit_seq(&mut items)?;
        let mut found = items.found;
        let same = found.len() > 2 && found.windows(2).all(|pair| pair[0] == pair[1]);
        *self.0 = Some(match found.pop() {
            Some(inner) if same => Layout::Array(len, Box::new(inner)),
            last => Layout::Tuple(found.into_iter().chain(last).collect()),
        });
        Ok(value)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, NoLayout> {
        let mut items = Items::of(fields.len());
        let value = visitor.visit_seq(&mut items)?;
        let fields = fields.iter().copied().zip(items.found).collect();
        *self.0 = Some(Layout::Struct(name, fields));
        Ok(value)
    }

    /// A name with lines behind it is that of a closed set: see [`crate::terms`].
    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, NoLayout> {
        let mut inner = None;
        let value = visitor.visit_newtype_struct(Tracer(&mut inner))?;
        *self.0 = match name.split_once('\n') {
            Some((name, words)) => {
                let words = words.lines().filter_map(|line| line.split_once('=')).collect();
                Some(Layout::Word(name, words))
            }
            None => inner.map(|inner| Layout::Named(name, Box::new(inner))),
        };
        Ok(value)
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, NoLayout> {
        *self.0 = Some(Layout::Struct(name, Vec::new()));
        visitor.visit_unit()
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, NoLayout> {
        self.deserialize_tuple(len, visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        _: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, NoLayout> {
        Err(NoLayout(format!("{name}: an enum without numbers of its own")))
    }
}

/// Values one after the other.
struct Items {
    left: usize,
    found: Vec<Layout>,
}

impl Items {
    fn of(left: usize) -> Self {
        Self { left, found: Vec::new() }
    }
}

impl<'de> SeqAccess<'de> for &mut Items {
    type Error = NoLayout;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, NoLayout> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        let mut inner = None;
        let value = seed.deserialize(Tracer(&mut inner))?;
        self.found.extend(inner);
        Ok(Some(value))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.left)
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::events::{Event, REGISTRY};

    #[derive(Deserialize)]
    #[expect(dead_code, reason = "only its layout is looked at")]
    struct Sample {
        id: crate::ids::Id,
        at: Option<crate::ids::Micros>,
        list: Vec<(String, u32)>,
        bytes: Vec<u8>,
        verdict: crate::terms::Verdict,
        yes: bool,
    }

    #[test]
    fn a_type_says_itself_how_its_bytes_are_to_be_read() {
        let expected = json!({ "struct": "Sample", "fields": [
            { "name": "id", "type": { "named": "Id", "type": { "bytes": 16 } } },
            { "name": "at", "type": { "option": { "named": "Micros", "type": "u64" } } },
            { "name": "list", "type": { "list": { "tuple": ["text", "u32"] } } },
            { "name": "bytes", "type": "bytes" },
            { "name": "verdict", "type": { "word": "Verdict", "words":
                { "1": "VALID", "2": "INVALID", "3": "MALFORMED" } } },
            { "name": "yes", "type": "bool" },
        ]});
        assert_eq!(of::<Sample>().unwrap().to_json(), expected);
    }

    #[test]
    fn every_event_has_a_layout() {
        for (event_type, schema, name) in REGISTRY {
            let layout = Event::layout(*event_type, *schema).unwrap();
            assert!(matches!(layout, Ok(Layout::Struct(..))), "{name}: {layout:?}");
        }
        assert!(Event::layout(u16::MAX, 1).is_none());
    }

    #[test]
    fn what_has_no_fixed_layout_is_refused() {
        #[derive(Debug, Deserialize)]
        enum Plain {
            #[serde(rename = "a")]
            _A,
        }
        assert!(of::<Plain>().is_err());
        assert!(of::<std::collections::BTreeMap<u8, u8>>().is_err());
    }
}
