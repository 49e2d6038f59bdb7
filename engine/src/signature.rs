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

#[cfg(test)]
mod tests {
    use super::*;

    const R: [u8; 3] = [0x02, 0x01, 0x01];

    /// A signature whose r is 1 and whose s has these contents, lengths right.
    fn with_s(contents: &[u8]) -> Vec<u8> {
        let s = [&[0x02, contents.len() as u8], contents].concat();
        [&[0x30, (R.len() + s.len()) as u8], &R[..], &s].concat()
    }

    /// The same with the places of r and s changed.
    fn with_r(contents: &[u8]) -> Vec<u8> {
        let r = [&[0x02, contents.len() as u8], contents].concat();
        [&[0x30, (R.len() + r.len()) as u8], &r[..], &R].concat()
    }

    fn order(last: u8) -> Vec<u8> {
        [&[0], &ORDER[..31], &[last]].concat()
    }

    #[test]
    fn both_ends_of_the_range_are_read_and_their_neighbours_are_not() {
        for (contents, readable) in [
            (vec![0x00], false),
            (vec![0x01], true),
            (vec![0x7f], true),
            (vec![0x00, 0x80], true),
            (order(0x50), true),
            (order(0x51), false),
            (order(0x52), false),
            ([&[0], &[0xff; 32][..]].concat(), false),
            (vec![0x01; 32], true),
            (vec![0x01; 33], false),
            ([&[0], &[0x80; 33][..]].concat(), false),
        ] {
            assert_eq!(read(&with_s(&contents)).is_ok(), readable, "s = {contents:02x?}");
            assert_eq!(read(&with_r(&contents)).is_ok(), readable, "r = {contents:02x?}");
        }
    }

    #[test]
    fn numbers_arrive_padded_to_32_bytes_each() {
        let fixed = read(&with_s(&[0x00, 0x80])).unwrap();
        assert_eq!(fixed[..32], [&[0; 31][..], &[0x01]].concat());
        assert_eq!(fixed[32..], [&[0; 31][..], &[0x80]].concat());
        assert_eq!(read(&with_r(&order(0x50))).unwrap()[..31], ORDER[..31]);
    }

    #[test]
    fn every_departure_from_der_is_malformed() {
        let good = with_s(&[0x01]);
        assert_eq!(good, [0x30, 0x06, 0x02, 0x01, 0x01, 0x02, 0x01, 0x01]);
        assert!(read(&good).is_ok());
        let cases: [(&str, &[u8]); 20] = [
            ("nothing", &[]),
            ("a lonely tag", &[0x30]),
            ("an empty sequence", &[0x30, 0x00]),
            ("no s", &[0x30, 0x03, 0x02, 0x01, 0x01]),
            ("not a sequence", &[0x31, 0x06, 0x02, 0x01, 0x01, 0x02, 0x01, 0x01]),
            ("r not an integer", &[0x30, 0x06, 0x03, 0x01, 0x01, 0x02, 0x01, 0x01]),
            ("s not an integer", &[0x30, 0x06, 0x02, 0x01, 0x01, 0x04, 0x01, 0x01]),
            ("a third integer", &[0x30, 0x09, 2, 1, 1, 2, 1, 1, 2, 1, 1]),
            ("bytes after the end", &[0x30, 0x06, 0x02, 0x01, 0x01, 0x02, 0x01, 0x01, 0x00]),
            ("bytes inside after s", &[0x30, 0x07, 0x02, 0x01, 0x01, 0x02, 0x01, 0x01, 0x00]),
            ("sequence too long", &[0x30, 0x07, 0x02, 0x01, 0x01, 0x02, 0x01, 0x01]),
            ("sequence too short", &[0x30, 0x05, 0x02, 0x01, 0x01, 0x02, 0x01, 0x01]),
            ("long form of a short length", &[0x30, 0x81, 0x06, 2, 1, 1, 2, 1, 1]),
            ("long form for r", &[0x30, 0x07, 0x02, 0x81, 0x01, 0x01, 0x02, 0x01, 0x01]),
            ("indefinite length", &[0x30, 0x80, 2, 1, 1, 2, 1, 1, 0, 0]),
            ("an integer without contents", &[0x30, 0x05, 0x02, 0x00, 0x02, 0x01, 0x01]),
            ("a negative r", &[0x30, 0x06, 0x02, 0x01, 0x80, 0x02, 0x01, 0x01]),
            ("a negative s", &[0x30, 0x06, 0x02, 0x01, 0x01, 0x02, 0x01, 0xff]),
            ("a needless zero", &[0x30, 0x07, 0x02, 0x02, 0x00, 0x01, 0x02, 0x01, 0x01]),
            ("two zeros", &[0x30, 0x08, 0x02, 0x03, 0x00, 0x00, 0x80, 0x02, 0x01, 0x01]),
        ];
        for (what, der) in cases {
            assert_eq!(read(der), Err(Malformed), "{what}");
            assert_eq!(verify(&PublicKey::dummy(), b"", der), Verdict::Malformed, "{what}");
            assert_eq!(verify_independent(&PublicKey::dummy(), b"", der), Verdict::Malformed);
        }
    }

    #[test]
    fn every_proper_prefix_is_malformed() {
        let longest = [&[0x30, 70][..], &with_s(&order(0x50))[5..], &with_s(&order(0x50))[5..]];
        let longest = longest.concat();
        assert_eq!(longest.len(), 72);
        assert!(read(&longest).is_ok());
        for length in 0..longest.len() {
            assert_eq!(read(&longest[..length]), Err(Malformed), "{length} bytes");
        }
    }

    #[test]
    fn a_readable_signature_of_nobody_is_invalid() {
        let der = with_s(&[0x01]);
        assert_eq!(verify(&PublicKey::dummy(), b"", &der), Verdict::Invalid);
        assert_eq!(verify_independent(&PublicKey::dummy(), b"", &der), Verdict::Invalid);
    }
}
