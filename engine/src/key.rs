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
