//! Two libraries, one answer: aws-lc-rs and p256 over random and broken inputs.

use engine::key::PublicKey;
use engine::signature::{Verdict, read, verify, verify_independent};
use p256::ecdsa::signature::Signer;
use p256::ecdsa::{Signature, SigningKey};
use p256::pkcs8::DecodePublicKey;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::{der, unhex};

/// A private key from any seed; the few seeds that are none are not worth a filter.
fn signing_key(seed: [u8; 32]) -> SigningKey {
    SigningKey::from_slice(&seed).unwrap_or_else(|_| SigningKey::from_slice(&[1; 32]).unwrap())
}

fn public_key(key: &SigningKey) -> PublicKey {
    PublicKey::from_bytes(&key.verifying_key().to_sec1_bytes()).unwrap()
}

/// Both verdicts, which must be one.
#[track_caller]
fn verdict(key: &PublicKey, message: &[u8], der: &[u8]) -> Verdict {
    let verdict = verify(key, message, der);
    assert_eq!(verify_independent(key, message, der), verdict, "{key:?} {message:02x?} {der:02x?}");
    verdict
}

/// Whether p256's own reader of DER takes these bytes.
fn p256_reads(der: &[u8]) -> bool {
    Signature::from_der(der).is_ok()
}

/// An integer's contents: few bytes of the kinds that rules are about, or a
/// number next to the order n or to the edge of 32 bytes.
fn contents() -> impl Strategy<Value = Vec<u8>> {
    let telling = prop::sample::select(vec![0, 1, 0x7f, 0x80, 0xff]);
    let n = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc6325";
    let edges: Vec<_> = ["0050", "0051", "0052", "50", "51"]
        .map(|ends| unhex(&format!("{}{n}{}", &ends[..ends.len() - 2], &ends[ends.len() - 2..])))
        .into_iter()
        .chain([vec![0x7f; 32], vec![0x80; 32], vec![0x01; 33], [&[0], &[0xff; 32][..]].concat()])
        .collect();
    prop_oneof![vec(telling, 0..4), prop::sample::select(edges)]
}

/// A signature in DER, in about half of all cases with one byte set, cut or added.
fn nearly_der() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop::sample::select(vec![0, 1, 2, 0x03, 0x20, 0x21, 0x30, 0x7f, 0x80, 0x81, 0xff]);
    let change = prop::option::of((any::<prop::sample::Index>(), byte, 0..3));
    (contents(), contents(), change).prop_map(|(r, s, change)| {
        let part = |tag: u8, contents: &[u8]| [&[tag, contents.len() as u8], contents].concat();
        let mut bytes = part(0x30, &[part(0x02, &r), part(0x02, &s)].concat());
        match change {
            None => (),
            Some((place, byte, 0)) => *place.get_mut(&mut bytes) = byte,
            Some((place, byte, 1)) => bytes.insert(place.index(bytes.len() + 1), byte),
            Some((place, ..)) => drop(bytes.remove(place.index(bytes.len()))),
        }
        bytes
    })
}

proptest! {
    #[test]
    fn a_signature_verifies_for_its_key_and_message_alone(
        seed: [u8; 32], message in vec(any::<u8>(), 0..200), other: [u8; 32], flip: u8, place: prop::sample::Index,
    ) {
        let signer = signing_key(seed);
        let signature: Signature = signer.sign(&message);
        let signature = signature.to_der();
        let key = public_key(&signer);
        prop_assert_eq!(verdict(&key, &message, signature.as_bytes()), Verdict::Valid);

        let stranger = public_key(&signing_key(other));
        prop_assume!(stranger != key);
        prop_assert_eq!(verdict(&stranger, &message, signature.as_bytes()), Verdict::Invalid);
        prop_assert_eq!(verdict(&PublicKey::dummy(), &message, signature.as_bytes()), Verdict::Invalid);

        let mut altered = message;
        altered.push(0);
        prop_assert_eq!(verdict(&key, &altered, signature.as_bytes()), Verdict::Invalid);
        altered.pop();
        prop_assume!(!altered.is_empty() && flip != 0);
        *place.get_mut(&mut altered) ^= flip;
        prop_assert_eq!(verdict(&key, &altered, signature.as_bytes()), Verdict::Invalid);
    }

    #[test]
    fn a_high_s_and_its_low_twin_both_verify(seed: [u8; 32], message in vec(any::<u8>(), 0..200)) {
        let signer = signing_key(seed);
        let signature: Signature = signer.sign(&message);
        let (r, s) = signature.split_scalars();
        let twin = Signature::from_scalars(r, -s).unwrap();
        prop_assert_ne!(signature, twin);
        for form in [signature, twin] {
            prop_assert_eq!(verdict(&public_key(&signer), &message, form.to_der().as_bytes()), Verdict::Valid);
        }
    }

    #[test]
    fn a_changed_byte_of_a_signature_is_never_valid(seed: [u8; 32], place: prop::sample::Index, flip in 1..=255_u8) {
        let signer = signing_key(seed);
        let signature: Signature = signer.sign(b"message");
        let mut bytes = signature.to_der().as_bytes().to_vec();
        *place.get_mut(&mut bytes) ^= flip;
        let verdict = verdict(&public_key(&signer), b"message", &bytes);
        prop_assert_ne!(verdict, Verdict::Valid);
        prop_assert_eq!(verdict == Verdict::Malformed, !p256_reads(&bytes));
    }

    #[test]
    fn random_numbers_as_a_signature_divide_nobody(seed: [u8; 32], r in vec(any::<u8>(), 0..34), s in vec(any::<u8>(), 0..34)) {
        let bytes = der(&r, &s);
        let verdict = verdict(&public_key(&signing_key(seed)), b"message", &bytes);
        prop_assert_eq!(verdict == Verdict::Malformed, !p256_reads(&bytes));
    }

    #[test]
    fn the_reader_takes_what_another_strict_reader_takes(bytes in nearly_der()) {
        prop_assert_eq!(read(&bytes).is_ok(), p256_reads(&bytes), "{:02x?}", bytes);
        if let (Ok(fixed), Ok(theirs)) = (read(&bytes), Signature::from_der(&bytes)) {
            prop_assert_eq!(&fixed[..], &theirs.to_bytes()[..]);
        }
    }

    #[test]
    fn whatever_bytes_come_nothing_panics(bytes in vec(any::<u8>(), 0..100), seed: [u8; 32]) {
        prop_assert_ne!(verdict(&public_key(&signing_key(seed)), b"", &bytes), Verdict::Valid);
        if let Ok(key) = PublicKey::from_bytes(&bytes) {
            prop_assert_eq!(PublicKey::from_bytes(&key.spki_der()), Ok(key));
        }
    }

    #[test]
    fn all_four_forms_of_a_key_are_one_key(seed: [u8; 32]) {
        let signer = signing_key(seed);
        let point = signer.verifying_key().to_sec1_point(true);
        let mut compressed_spki = public_key(&signer).spki_der()[..26].to_vec();
        (compressed_spki[1], compressed_spki[24]) = (0x39, 0x22);
        compressed_spki.extend_from_slice(point.as_bytes());
        let key = public_key(&signer);
        for form in [&key.sec1()[..], &key.spki_der(), point.as_bytes(), &compressed_spki] {
            prop_assert_eq!(PublicKey::from_bytes(form), Ok(key));
        }
        prop_assert_eq!(key.to_stored().check(), Ok(key));
        let theirs = p256::PublicKey::from_public_key_der(&key.spki_der()).unwrap();
        prop_assert_eq!(theirs, p256::PublicKey::from_sec1_bytes(key.sec1()).unwrap());
        let theirs = p256::PublicKey::from_public_key_der(&compressed_spki).unwrap();
        prop_assert_eq!(theirs, p256::PublicKey::from_sec1_bytes(key.sec1()).unwrap());
    }

    #[test]
    fn a_changed_byte_of_a_key_is_another_key_or_none(seed: [u8; 32], place: prop::sample::Index, flip in 1..=255_u8) {
        let key = public_key(&signing_key(seed));
        let mut spki = key.spki_der();
        *place.get_mut(&mut spki) ^= flip;
        let read = PublicKey::from_bytes(&spki);
        prop_assert_ne!(read, Ok(key));
        prop_assert_eq!(read.is_ok(), p256::PublicKey::from_public_key_der(&spki).is_ok());
    }
}
