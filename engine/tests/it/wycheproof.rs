//! Wycheproof: every case, through the functions that the server calls.

use engine::key::{KeyError, PublicKey};
use engine::signature::{Verdict, verify, verify_independent};
use wycheproof::{TestResult, ecdh, ecdsa};

/// What a case must come to, by what Wycheproof says of it.
///
/// Encodings that are BER but not DER, integers that lack their sign byte or
/// are too large, and numbers outside 1 to n − 1 must be MALFORMED. Cases whose
/// flag leaves open whether bytes or numbers were altered must not be VALID.
fn allowed(case: &ecdsa::Test) -> &'static [Verdict] {
    use ecdsa::TestFlag as Flag;
    if case.result == TestResult::Valid {
        return &[Verdict::Valid];
    }
    assert_eq!(case.result, TestResult::Invalid, "no case is left to taste: {case:?}");
    match case.flags[0] {
        Flag::BerEncodedSignature
        | Flag::IntegerOverflow
        | Flag::InvalidEncoding
        | Flag::InvalidTypesInSignature
        | Flag::MissingZero
        | Flag::RangeCheck => &[Verdict::Malformed],
        _ => &[Verdict::Invalid, Verdict::Malformed],
    }
}

#[test]
fn every_ecdsa_case_gets_its_verdict_from_both_verifiers() {
    let set = ecdsa::TestSet::load(ecdsa::TestName::EcdsaSecp256r1Sha256).unwrap();
    let (mut valid, mut invalid, mut malformed) = (0, 0, 0);
    for group in &set.test_groups {
        let key = PublicKey::from_bytes(&group.der).unwrap();
        assert_eq!(PublicKey::from_bytes(&group.key.key), Ok(key));
        for case in &group.tests {
            let verdict = verify(&key, &case.msg, &case.sig);
            assert!(allowed(case).contains(&verdict), "{verdict}: {case:?}");
            assert_eq!(verify_independent(&key, &case.msg, &case.sig), verdict, "{case:?}");
            match verdict {
                Verdict::Valid => valid += 1,
                Verdict::Invalid => invalid += 1,
                Verdict::Malformed => malformed += 1,
            }
        }
    }
    assert_eq!((valid, invalid, malformed), (170, 18, 283));
}

/// Whether a case offers a key that must be taken.
///
/// Wycheproof calls two kinds "acceptable". A compressed point is taken. Curve
/// parameters spelled out and encodings that are not DER are refused.
fn must_be_taken(case: &ecdh::Test) -> bool {
    use ecdh::TestFlag as Flag;
    match case.result {
        TestResult::Valid => true,
        TestResult::Invalid => false,
        TestResult::Acceptable => match case.flags[0] {
            Flag::CompressedPublic => true,
            Flag::InvalidAsn
            | Flag::ModifiedCurveParameter
            | Flag::ModifiedCofactor
            | Flag::ModifiedGenerator
            | Flag::WrongOrder => false,
            _ => panic!("a kind nobody has decided on: {case:?}"),
        },
    }
}

/// Runs all keys of a set; answers how many were taken and how many refused.
fn keys(name: ecdh::TestName) -> (usize, usize) {
    let set = ecdh::TestSet::load(name).unwrap();
    let (mut taken, mut refused) = (0, 0);
    for case in set.test_groups.iter().flat_map(|group| &group.tests) {
        let key = PublicKey::from_bytes(&case.public_key);
        assert_eq!(key.is_ok(), must_be_taken(case), "{key:?}: {case:?}");
        match key {
            Ok(key) => {
                taken += 1;
                let spki = key.spki_der();
                assert!(case.public_key.len() != 91 || *case.public_key == spki, "{case:?}");
                assert_eq!(PublicKey::from_bytes(&spki), Ok(key));
            }
            Err(KeyError::TooLong) => {
                refused += 1;
                assert!(case.public_key.len() > 120);
            }
            Err(KeyError::Encoding | KeyError::NotOnCurve) => refused += 1,
        }
    }
    (taken, refused)
}

#[test]
fn every_subject_public_key_info_is_taken_or_refused_as_it_must() {
    assert_eq!(keys(ecdh::TestName::EcdhSecp256r1), (331, 281));
}

#[test]
fn every_sec1_point_is_taken_or_refused_as_it_must() {
    assert_eq!(keys(ecdh::TestName::EcdhSecp256r1Ecpoint), (331, 24));
}
