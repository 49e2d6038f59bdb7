//! Public keys: the one reader of what devices send, and how keys are stored.
//!
//! A [`PublicKey`] is a point of P-256 (secp256r1) that has been checked to be
//! one; nothing else in this crate accepts a key. It is kept uncompressed,
//! because that is what verification takes: taking the root of y again would
//! add to every log-in what 32 bytes of storage save.
//!
//! [`KeyBytes`] is the stored form. It proves nothing: bytes from a log become
//! a key by [`KeyBytes::check`], which validates the point again.

use std::fmt;

use p256::elliptic_curve::sec1::ToSec1Point;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The longest key that is looked at, in bytes. The longest valid one has 91.
pub const KEY_MAX: usize = 120;

/// DER of a SubjectPublicKeyInfo for P-256 up to its uncompressed point
/// (RFC 5480 section 2): id-ecPublicKey, secp256r1 by name.
const SPKI_UNCOMPRESSED: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// The same up to a compressed point: only the two outer lengths differ.
const SPKI_COMPRESSED: [u8; 26] = [
    0x30, 0x39, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x22, 0x00,
];

/// See [`PublicKey::dummy`].
const DUMMY: KeyBytes = KeyBytes {
    x: [
        0x52, 0x25, 0xd9, 0x59, 0x0f, 0x3f, 0x01, 0xdc, 0x67, 0x4c, 0x23, 0x97, 0xc8, 0x61, 0x1e,
        0x0a, 0x70, 0x1c, 0x87, 0x69, 0x59, 0x27, 0x4e, 0xbb, 0x01, 0xfa, 0xcf, 0xa0, 0x88, 0xca,
        0xee, 0x57,
    ],
    y: [
        0xc6, 0x68, 0xda, 0x06, 0x0e, 0xbb, 0x6e, 0x99, 0xda, 0x47, 0xf3, 0x43, 0x85, 0xf8, 0xb0,
        0xf0, 0xe8, 0x57, 0xe4, 0xb7, 0x69, 0x6f, 0x8a, 0x45, 0xe9, 0xa2, 0x6c, 0x46, 0x3b, 0x95,
        0x03, 0x1e,
    ],
};

/// Names a public key: SHA-256 of its SubjectPublicKeyInfo with the point uncompressed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct KeyId(pub [u8; 32]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why bytes are no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// More than [`KEY_MAX`] bytes.
    #[error("a public key longer than {KEY_MAX} bytes")]
    TooLong,
    /// Neither SubjectPublicKeyInfo for P-256 in DER nor a SEC1 point of 33 or 65 bytes.
    #[error("not a P-256 public key in SubjectPublicKeyInfo (DER) or SEC1 form")]
    Encoding,
    /// A coordinate out of range, or a point that is not on the curve.
    #[error("not a point of P-256")]
    NotOnCurve,
}

/// The stored form of a key: the two coordinates, big-endian. Not yet checked.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct KeyBytes {
    /// The x coordinate.
    pub x: [u8; 32],
    /// The y coordinate.
    pub y: [u8; 32],
}

impl KeyBytes {
    /// The key that these bytes are.
    ///
    /// # Errors
    ///
    /// [`KeyError::NotOnCurve`] if they are no point of P-256.
    pub fn check(&self) -> Result<PublicKey, KeyError> {
        let mut sec1 = [0x04; 65];
        sec1[1..33].copy_from_slice(&self.x);
        sec1[33..].copy_from_slice(&self.y);
        point(&sec1)
    }
}

/// A point of P-256 that has been checked to be one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey {
    sec1: [u8; 65],
}

impl PublicKey {
    /// Reads a SubjectPublicKeyInfo in DER (91 bytes, or 59 with the point
    /// compressed) or a SEC1 point (65 or 33 bytes).
    ///
    /// DER has one encoding for a key of this curve, so a fixed prefix is the
    /// whole grammar: other algorithms, explicit curve parameters, BER and
    /// trailing bytes cannot match it.
    ///
    /// # Errors
    ///
    /// [`KeyError`], by the first rule that is broken.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, KeyError> {
        if bytes.len() > KEY_MAX {
            return Err(KeyError::TooLong);
        }
        let uncompressed = bytes.strip_prefix(&SPKI_UNCOMPRESSED).filter(|rest| rest.len() == 65);
        let compressed = bytes.strip_prefix(&SPKI_COMPRESSED).filter(|rest| rest.len() == 33);
        let sec1 = uncompressed.or(compressed).unwrap_or(bytes);
        match (sec1.len(), sec1.first()) {
            (65, Some(0x04)) | (33, Some(0x02 | 0x03)) => point(sec1),
            _ => Err(KeyError::Encoding),
        }
    }

    /// A key that is nobody's: its x is SHA-256 of `keytrail/dummy-key/v1/1`, its
    /// y the even root, so no one can know a private key to it.
    ///
    /// A request that names no known key is checked against this one, so that it
    /// takes the same work. The verdict is thrown away.
    #[must_use]
    pub fn dummy() -> Self {
        let mut sec1 = [0x04; 65];
        sec1[1..33].copy_from_slice(&DUMMY.x);
        sec1[33..].copy_from_slice(&DUMMY.y);
        Self { sec1 }
    }

    /// SEC1, uncompressed: `04 ‖ x ‖ y`.
    #[must_use]
    pub const fn sec1(&self) -> &[u8; 65] {
        &self.sec1
    }

    /// SubjectPublicKeyInfo in DER, point uncompressed.
    #[must_use]
    pub fn spki_der(&self) -> [u8; 91] {
        let mut der = [0; 91];
        der[..26].copy_from_slice(&SPKI_UNCOMPRESSED);
        der[26..].copy_from_slice(&self.sec1);
        der
    }

    /// SHA-256 of [`PublicKey::spki_der`].
    #[must_use]
    pub fn id(&self) -> KeyId {
        KeyId(Sha256::digest(self.spki_der()).into())
    }

    /// The stored form.
    #[must_use]
    pub fn to_stored(&self) -> KeyBytes {
        let mut stored = KeyBytes { x: [0; 32], y: [0; 32] };
        stored.x.copy_from_slice(&self.sec1[1..33]);
        stored.y.copy_from_slice(&self.sec1[33..]);
        stored
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.id())
    }
}

/// The point that a SEC1 encoding names, if it is one of the curve.
fn point(sec1: &[u8]) -> Result<PublicKey, KeyError> {
    let key = p256::PublicKey::from_sec1_bytes(sec1).map_err(|_| KeyError::NotOnCurve)?;
    let encoded = key.to_sec1_point(false);
    let sec1 = encoded.as_bytes().try_into().map_err(|_| KeyError::NotOnCurve)?;
    Ok(PublicKey { sec1 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec;

    /// The base point of P-256 (SP 800-186 section 3.2.1.3): the key of private key 1.
    const BASE: KeyBytes = KeyBytes {
        x: *b"\x6b\x17\xd1\xf2\xe1\x2c\x42\x47\xf8\xbc\xe6\xe5\x63\xa4\x40\xf2\
              \x77\x03\x7d\x81\x2d\xeb\x33\xa0\xf4\xa1\x39\x45\xd8\x98\xc2\x96",
        y: *b"\x4f\xe3\x42\xe2\xfe\x1a\x7f\x9b\x8e\xe7\xeb\x4a\x7c\x0f\x9e\x16\
              \x2b\xce\x33\x57\x6b\x31\x5e\xce\xcb\xb6\x40\x68\x37\xbf\x51\xf5",
    };

    fn base() -> PublicKey {
        BASE.check().unwrap()
    }

    #[test]
    fn the_id_is_the_hash_of_the_uncompressed_subject_public_key_info() {
        let id = "5cd252fb0ce8932436faf8ccd1040981b89ee4ad6b9fe9e2a2b7e71aacb27cd3";
        assert_eq!(base().id().to_string(), id);
        let compressed = [&[0x03][..], &BASE.x].concat();
        assert_eq!(PublicKey::from_bytes(&compressed).unwrap().id().to_string(), id);
    }

    #[test]
    fn what_is_not_one_of_the_four_forms_is_refused() {
        let (sec1, spki) = (*base().sec1(), base().spki_der());
        let with = |bytes: &[u8], at: usize, byte: u8| {
            let mut changed = bytes.to_vec();
            changed[at] = byte;
            changed
        };
        let hybrid = with(&sec1, 0, 0x07);
        let identity = vec![0];
        let compact = [&[0x05][..], &BASE.x].concat();
        let bare = [BASE.x, BASE.y].concat();
        let cases = [
            ("nothing", vec![]),
            ("the point at infinity", identity),
            ("a hybrid point", hybrid),
            ("a compact point", compact),
            ("coordinates without a tag", bare),
            ("a point with a byte too many", [&sec1[..], &[0]].concat()),
            ("a point with a byte too few", sec1[..64].to_vec()),
            ("an uncompressed tag on a compressed length", with(&sec1[..33], 0, 0x04)),
            ("a compressed tag on an uncompressed length", with(&sec1, 0, 0x02)),
            ("trailing bytes after the DER", [&spki[..], &[0]].concat()),
            ("a truncated DER", spki[..90].to_vec()),
            ("another curve", with(&spki, 22, 0x06)),
            ("another algorithm", with(&spki, 12, 0x02)),
            ("unused bits", with(&spki, 25, 0x01)),
            ("DER in DER", [&spki[..26], &spki[..65]].concat()),
        ];
        for (what, bytes) in cases {
            assert_eq!(PublicKey::from_bytes(&bytes), Err(KeyError::Encoding), "{what}");
        }
    }

    #[test]
    fn length_is_judged_first_and_exactly() {
        assert_eq!(PublicKey::from_bytes(&[0x30; KEY_MAX]), Err(KeyError::Encoding));
        assert_eq!(PublicKey::from_bytes(&[0x30; KEY_MAX + 1]), Err(KeyError::TooLong));
    }

    #[test]
    fn a_point_beside_the_curve_is_refused_in_every_form() {
        let mut beside = *base().sec1();
        beside[64] ^= 1;
        let mut spki = base().spki_der();
        spki[90] ^= 1;
        // 5³ − 3·5 + b has a root, 1³ − 3·1 + b has none.
        let mut no_root = [0; 33];
        (no_root[0], no_root[32]) = (0x02, 0x01);
        let prime = "ffffffff00000001000000000000000000000000ffffffffffffffffffffffff";
        let out_of_range: Vec<u8> = std::iter::once(0x02)
            .chain((0..64).step_by(2).map(|at| u8::from_str_radix(&prime[at..at + 2], 16).unwrap()))
            .collect();
        for bytes in [&beside[..], &spki, &no_root, &out_of_range] {
            assert_eq!(PublicKey::from_bytes(bytes), Err(KeyError::NotOnCurve), "{bytes:02x?}");
        }
        let zeros = KeyBytes { x: [0; 32], y: [0; 32] };
        assert_eq!(zeros.check(), Err(KeyError::NotOnCurve));
    }

    #[test]
    fn the_stored_form_is_64_bytes_and_is_checked_again() {
        let stored = codec::encode(&base().to_stored());
        assert_eq!(stored, [BASE.x, BASE.y].concat());
        let read: KeyBytes = codec::decode(&stored).unwrap();
        assert_eq!(read.check(), Ok(base()));
        let damaged = KeyBytes { y: BASE.x, ..BASE };
        assert_eq!(damaged.check(), Err(KeyError::NotOnCurve));
    }

    #[test]
    fn the_dummy_is_a_key_that_came_from_a_hash() {
        let x: [u8; 32] = Sha256::digest(b"keytrail/dummy-key/v1/1").into();
        let compressed = [&[0x02][..], &x].concat();
        assert_eq!(PublicKey::from_bytes(&compressed), Ok(PublicKey::dummy()));
        // Zero is no candidate: its hash is no x of the curve.
        let zero: [u8; 32] = Sha256::digest(b"keytrail/dummy-key/v1/0").into();
        assert!(PublicKey::from_bytes(&[&[0x02][..], &zero].concat()).is_err());
    }
}
