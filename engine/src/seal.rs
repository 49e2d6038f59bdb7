//! Sealed parts: what names a person, encrypted under the subject's key.
//!
//! Whoever makes a command seals before the log's writer numbers and times the
//! record, so a sealed part is bound to what is known by then ([`Binding`]) and
//! opens nowhere else.
//!
//! Each record has a key of its own, derived from the subject's key and the
//! event id by BLAKE3 in its key derivation mode. A key thus encrypts one
//! message and a constant nonce repeats under none. Should an event id ever
//! seal twice after all, AES-256-GCM-SIV (RFC 8452) gives away whether the two
//! plaintexts are equal, and nothing more.

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, Nonce, UnboundKey};
use zeroize::Zeroizing;

use crate::ids::Id;
use crate::machine::Draft;

/// How many bytes longer a sealed part is than its plaintext.
pub const OVERHEAD: usize = 16;

/// BLAKE3's context string: fixed, and used for nothing else.
const KEY_CONTEXT: &str = "keytrail 2026-11 sealed part key v1";

/// First field of the associated data.
const BINDING_DOMAIN: &[u8; 24] = b"keytrail/sealed-part/v1\0";

/// The record that a sealed part belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Binding {
    /// The event's id, unique in the log.
    pub event_id: Id,
    /// The stream it belongs to.
    pub stream: Id,
    /// Registry number of its type.
    pub event_type: u16,
    /// Version of its layout.
    pub schema: u16,
    /// Whose key it is.
    pub subject: Id,
}

impl Binding {
    /// That of a record's sealed part.
    #[must_use]
    pub fn of(draft: &Draft) -> Self {
        Self {
            event_id: draft.event_id,
            stream: draft.stream,
            event_type: draft.event_type,
            schema: draft.schema,
            subject: draft.subject,
        }
    }

    /// The associated data: every field at a fixed place, integers big-endian.
    #[must_use]
    pub fn bytes(&self) -> [u8; 76] {
        let mut bytes = [0; 76];
        bytes[..24].copy_from_slice(BINDING_DOMAIN);
        bytes[24..40].copy_from_slice(&self.event_id.0);
        bytes[40..56].copy_from_slice(&self.stream.0);
        bytes[56..58].copy_from_slice(&self.event_type.to_be_bytes());
        bytes[58..60].copy_from_slice(&self.schema.to_be_bytes());
        bytes[60..].copy_from_slice(&self.subject.0);
        bytes
    }
}

/// The bytes do not open: another key, another record, or damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the sealed part does not open with this key for this record")]
pub struct Unopenable;

/// Encrypts `plaintext` for the record `binding` under the subject's key.
///
/// # Panics
///
/// If the plaintext is longer than AES-GCM-SIV takes (2^36 bytes).
#[must_use]
pub fn seal(subject_key: &[u8; 32], binding: &Binding, plaintext: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(plaintext.len() + OVERHEAD);
    sealed.extend_from_slice(plaintext);
    #[expect(clippy::expect_used, reason = "plaintexts are bounded by the record size")]
    record_key(subject_key, binding)
        .seal_in_place_append_tag(nonce(), Aad::from(binding.bytes()), &mut sealed)
        .expect("a plaintext of at most 2^36 bytes");
    sealed
}

/// The plaintext of `sealed`, if it was sealed under this key for this record.
///
/// # Errors
///
/// [`Unopenable`] otherwise; nothing of the plaintext is given away then.
pub fn open(
    subject_key: &[u8; 32],
    binding: &Binding,
    sealed: &[u8],
) -> Result<Vec<u8>, Unopenable> {
    let mut opened = sealed.to_vec();
    let length = record_key(subject_key, binding)
        .open_in_place(nonce(), Aad::from(binding.bytes()), &mut opened)
        .map_err(|_| Unopenable)?
        .len();
    opened.truncate(length);
    Ok(opened)
}

/// The key of this one record.
fn record_key(subject_key: &[u8; 32], binding: &Binding) -> LessSafeKey {
    let mut material = Zeroizing::new([0; 48]);
    material[..32].copy_from_slice(subject_key);
    material[32..].copy_from_slice(&binding.event_id.0);
    let key = Zeroizing::new(blake3::derive_key(KEY_CONTEXT, material.as_slice()));
    #[expect(clippy::expect_used, reason = "AES-256 takes 32 bytes")]
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM_SIV, key.as_slice()).expect("a key of 32 bytes"))
}

fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEY: [u8; 32] = [0x0b; 32];

    fn binding() -> Binding {
        Binding {
            event_id: Id([1; 16]),
            stream: Id([2; 16]),
            event_type: 0x0304,
            schema: 0x0506,
            subject: Id([7; 16]),
        }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// If this fails, old records no longer open.
    #[test]
    fn a_stored_sealed_part_opens_for_ever() {
        let sealed = seal(&KEY, &binding(), b"a person");
        assert_eq!(hex(&sealed), "3918c60e5ca4f76f06da6474b78dbf65a19e071f95ea0cad");
        assert_eq!(open(&KEY, &binding(), &sealed).unwrap(), b"a person");
    }

    #[test]
    fn the_binding_has_every_field_in_its_place() {
        let expected =
            [&b"keytrail/sealed-part/v1\0"[..], &[1; 16], &[2; 16], &[3, 4, 5, 6], &[7; 16]];
        assert_eq!(binding().bytes()[..], expected.concat());
    }

    #[test]
    fn a_part_opens_in_no_other_record_and_under_no_other_key() {
        let sealed = seal(&KEY, &binding(), b"a person");
        let elsewhere = [
            Binding { event_id: Id([9; 16]), ..binding() },
            Binding { stream: Id([9; 16]), ..binding() },
            Binding { event_type: 9, ..binding() },
            Binding { schema: 9, ..binding() },
            Binding { subject: Id([9; 16]), ..binding() },
        ];
        for other in elsewhere {
            assert_eq!(open(&KEY, &other, &sealed), Err(Unopenable), "{other:?}");
        }
        for bit in 0..256 {
            let mut key = KEY;
            key[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(open(&key, &binding(), &sealed), Err(Unopenable), "key bit {bit}");
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_refused() {
        let sealed = seal(&KEY, &binding(), b"a person");
        for bit in 0..sealed.len() * 8 {
            let mut damaged = sealed.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(open(&KEY, &binding(), &damaged), Err(Unopenable), "bit {bit}");
        }
        for length in 0..sealed.len() {
            assert_eq!(open(&KEY, &binding(), &sealed[..length]), Err(Unopenable), "{length}");
        }
        let longer = [&sealed[..], &[0]].concat();
        assert_eq!(open(&KEY, &binding(), &longer), Err(Unopenable));
    }

    #[test]
    fn equal_plaintexts_of_two_events_look_unrelated() {
        let other = Binding { event_id: Id([9; 16]), ..binding() };
        let (one, two) = (seal(&KEY, &binding(), &[0; 64]), seal(&KEY, &other, &[0; 64]));
        assert!(one.iter().zip(&two).filter(|(a, b)| a == b).count() < 20);
    }

    proptest! {
        #[test]
        fn what_was_sealed_opens(
            key: [u8; 32],
            event_id: [u8; 16],
            plaintext in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let binding = Binding { event_id: Id(event_id), ..binding() };
            let sealed = seal(&key, &binding, &plaintext);
            prop_assert_eq!(sealed.len(), plaintext.len() + OVERHEAD);
            prop_assert_eq!(open(&key, &binding, &sealed), Ok(plaintext));
        }
    }
}
