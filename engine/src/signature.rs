//! Signatures: one strict reader, two independent verifiers.
//!
//! [`read`] turns the DER that a device sends into r and s, 32 bytes each, and
//! alone decides what is [`Verdict::Malformed`]. Both verifiers see only those
//! 64 bytes, so they cannot disagree about an encoding.
//!
//! A high s is accepted: secure hardware makes them. Whoever sees a signature
//! can therefore make a second one that verifies, so nothing may ever be
//! identified, remembered or de-duplicated by signature bytes.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use p256::ecdsa::signature::Verifier;

use crate::key::PublicKey;
pub use crate::terms::Verdict;

/// The longest signature that is looked at, in bytes. The longest valid one has 72.
pub const SIGNATURE_MAX: usize = 80;

/// The order n of the base point of P-256 (SP 800-186 section 3.2.1.3).
const ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0xbc, 0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];

/// Bytes that are no ECDSA signature over P-256 in DER, whatever was signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an ECDSA signature in DER")]
pub struct Malformed;

/// Reads `SEQUENCE { r INTEGER, s INTEGER }` (RFC 3279 section 2.2.3) in DER.
///
/// Refused: more than [`SIGNATURE_MAX`] bytes; a length that is not minimal, too
/// long or too short; bytes after the end; an integer that is empty, negative
/// or not minimal; r or s outside 1 to n − 1. On `Ok`: r ‖ s, big-endian.
///
/// # Errors
///
/// [`Malformed`], without saying where: no caller treats the cases differently.
pub fn read(der: &[u8]) -> Result<[u8; 64], Malformed> {
    if der.len() > SIGNATURE_MAX {
        return Err(Malformed);
    }
    let (body, after) = element(0x30, der)?;
    let (r, rest) = element(0x02, body)?;
    let (s, end) = element(0x02, rest)?;
    if !after.is_empty() || !end.is_empty() {
        return Err(Malformed);
    }
    let mut fixed = [0; 64];
    fixed[..32].copy_from_slice(&scalar(r)?);
    fixed[32..].copy_from_slice(&scalar(s)?);
    Ok(fixed)
}

/// Whether `der` is a signature of `message` (hashed once, with SHA-256) by `key`.
///
/// Verifies with aws-lc-rs: the server's path.
#[must_use]
pub fn verify(key: &PublicKey, message: &[u8], der: &[u8]) -> Verdict {
    judge(der, |fixed| {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key.sec1()).verify(message, fixed).is_ok()
    })
}

/// The same question answered by p256, which shares no code with [`verify`]
/// beyond the reader: the auditor's path.
#[must_use]
pub fn verify_independent(key: &PublicKey, message: &[u8], der: &[u8]) -> Verdict {
    judge(der, |fixed| {
        let key = p256::ecdsa::VerifyingKey::from_sec1_bytes(key.sec1());
        let signature = p256::ecdsa::Signature::from_slice(fixed);
        matches!((key, signature), (Ok(key), Ok(signature)) if key.verify(message, &signature).is_ok())
    })
}

fn judge(der: &[u8], verifies: impl FnOnce(&[u8; 64]) -> bool) -> Verdict {
    match read(der) {
        Err(Malformed) => Verdict::Malformed,
        Ok(fixed) if verifies(&fixed) => Verdict::Valid,
        Ok(_) => Verdict::Invalid,
    }
}

/// The contents of the element with this tag at the start of `der`, and what follows it.
///
/// Nothing inside [`SIGNATURE_MAX`] is 128 bytes long, so DER's minimal length
/// is always the single byte.
fn element(tag: u8, der: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    let (&found, der) = der.split_first().ok_or(Malformed)?;
    let (&length, der) = der.split_first().ok_or(Malformed)?;
    if found != tag || length >= 0x80 {
        return Err(Malformed);
    }
    der.split_at_checked(usize::from(length)).ok_or(Malformed)
}

/// The value of a DER INTEGER between 1 and n − 1.
fn scalar(contents: &[u8]) -> Result<[u8; 32], Malformed> {
    let magnitude = match contents {
        // A leading zero is minimal only if it keeps the number positive.
        [0, rest @ ..] if rest.first().is_some_and(|&first| first >= 0x80) => rest,
        [first, ..] if (1..0x80).contains(first) => contents,
        _ => return Err(Malformed),
    };
    let padding = 32_usize.checked_sub(magnitude.len()).ok_or(Malformed)?;
    let mut value = [0; 32];
    value[padding..].copy_from_slice(magnitude);
    // Big-endian arrays compare like numbers. Zero cannot come this far: its
    // one encoding begins with 0 and ends there.
    if value < ORDER { Ok(value) } else { Err(Malformed) }
}
