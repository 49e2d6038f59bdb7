//! App Attest against objects and an assertion that real phones made.
//!
//! The files are not part of this repository; see `nist.rs` for where they are
//! looked for. Time is within the dates of each object's certificate.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use engine::attestation::apple::{self, ExpectedAssertion, judge_assertion, judge_bound};
use engine::attestation::{
    ApplePolicy, Environment, Expected, Judgement, Outcome, Policy, Reason, SecurityLevel,
};
use engine::ids::Micros;
use engine::key::PublicKey;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::root;

/// The App ID of the two objects and the assertion of one project.
const EXAMPLE: &str = "V8H6LQ9448.io.uebelacker.AppAttestExample";
/// 2024-02-08T00:00:00Z.
const FEBRUARY_2024: Micros = Micros(1_707_350_400_000_000);
/// The App ID of an object that binds a key, and the challenge in it.
const BINDING: &str = "9CYHJNG644.at.asitplus.signumtest.iosApp";
/// 2024-10-01T12:00:00Z.
const OCTOBER_2024: Micros = Micros(1_727_784_000_000_000);

/// One file; none if there are no vectors and none were named.
fn vector(name: &str) -> Option<Value> {
    let named = env::var_os("KEYTRAIL_VECTORS").map(PathBuf::from);
    let folder = named.clone().unwrap_or_else(|| root().join("../shared/vectors"));
    if named.is_none() && !folder.join("apple-appattest-uebelack").exists() {
        println!("skipped: no App Attest objects (set KEYTRAIL_VECTORS)");
        return None;
    }
    let octets = fs::read(folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    Some(serde_json::from_slice(&octets).unwrap())
}

/// Base64 of either alphabet, padded or not.
fn decoded(text: &Value) -> Vec<u8> {
    let text = text.as_str().unwrap().trim_end_matches('=');
    URL_SAFE_NO_PAD.decode(text.replace('+', "-").replace('/', "_")).unwrap()
}

/// A real object with what it is bound to.
struct Real {
    object: Vec<u8>,
    key_id: Option<[u8; 32]>,
    client_data_hash: [u8; 32],
    at: Micros,
    policy: Policy,
}

impl Real {
    fn judged(&self) -> Judgement {
        let expected = Expected {
            challenge: None,
            hardware_key: None,
            at: self.at,
            policy: &self.policy,
            list: None,
        };
        judge_bound(&self.object, self.key_id.as_ref(), Some(&self.client_data_hash), &expected)
    }

    #[track_caller]
    fn refused(&self, reason: Reason) {
        assert_eq!(self.judged().outcome, Outcome::Refused(reason));
    }
}

fn policy(app_id: &str, environment: Environment) -> Policy {
    let apple = ApplePolicy {
        app_ids: vec![app_id.to_owned()],
        environments: vec![environment],
        ..ApplePolicy::default()
    };
    Policy { apple, ..Policy::default() }
}

fn example(environment: Environment) -> Option<Real> {
    let name = environment.as_str().to_ascii_lowercase();
    let json = vector(&format!("apple-appattest-uebelack/attestation-{name}.json"))?;
    Some(Real {
        object: decoded(&json["attestation"]),
        key_id: Some(decoded(&json["keyId"]).try_into().unwrap()),
        client_data_hash: Sha256::digest(decoded(&json["challenge"])).into(),
        at: FEBRUARY_2024,
        policy: policy(EXAMPLE, environment),
    })
}

/// The object whose client data binds a second key, and that client data.
fn binding() -> Option<(Real, Vec<u8>)> {
    let json = vector("asitplus-warden/ios-appattest.json")?;
    let client_data = decoded(&json["clientDataJSON"]);
    let real = Real {
        object: decoded(&json["attestation"]),
        key_id: None,
        client_data_hash: Sha256::digest(&client_data).into(),
        at: OCTOBER_2024,
        policy: policy(BINDING, Environment::Development),
    };
    Some((real, client_data))
}

#[test]
fn real_objects_are_accepted_with_their_contents() {
    let real = [example(Environment::Development), example(Environment::Production)];
    let environments = [Environment::Development, Environment::Production];
    for (real, environment) in real.into_iter().zip(environments) {
        let Some(real) = real else { return };
        let judgement = real.judged();
        assert_eq!(judgement.outcome, Outcome::Accepted, "{:?}", judgement.checks);
        assert_eq!(judgement.facts.environment, Some(environment));
        assert_eq!(judgement.facts.security_level, Some(SecurityLevel::SecureEnclave));
        assert_eq!(judgement.authorities.len(), 1);
        assert!(judgement.authorities[0].issuer.contains("Apple App Attestation Root CA"));
        let fields: BTreeMap<_, _> =
            judgement.fields.iter().map(|field| (field.name.as_str(), &*field.value)).collect();
        assert_eq!(fields["app_id"], EXAMPLE);
        assert_eq!(fields["counter"], "0");
        assert_eq!(fields["root.trusted_by"], "Apple");
        let id: String = real.key_id.unwrap().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(fields["credential_id"], id);
        assert!(fields["certificates[0].subject"].contains(&id));
    }
}

#[test]
fn a_real_object_that_binds_a_second_key_is_accepted_with_its_client_data_alone() {
    let Some((mut real, client_data)) = binding() else { return };
    assert_eq!(real.judged().outcome, Outcome::Accepted);
    let json: Value = serde_json::from_slice(&client_data).unwrap();
    let challenge = decoded(&json["challenge"]);
    assert_eq!(challenge, crate::unhex("d4bd9efc2a1ab1e2351143a4e67bb91f"));
    PublicKey::from_bytes(&decoded(&json["publicKey"])).unwrap();
    real.client_data_hash = Sha256::digest(&challenge).into();
    real.refused(Reason::NonceMismatch);
}

#[test]
fn each_deviation_from_a_real_object_has_its_own_reason() {
    let Some(mut real) = example(Environment::Production) else { return };
    let before = real.at;
    // The leaf's dates are 2024-02-06T21:08:56Z to 2024-12-21T12:42:56Z.
    for (at, reason) in [
        (1_707_253_735, Some(Reason::CertificateNotYetValid)),
        (1_707_253_736, None),
        (1_734_784_976, None),
        (1_734_784_977, Some(Reason::CertificateExpired)),
    ] {
        real.at = Micros(at * 1_000_000);
        assert_eq!(real.judged().outcome.reason(), reason, "{at}");
    }
    real.at = before;

    real.policy.apple.environments = vec![Environment::Development];
    real.refused(Reason::EnvironmentNotAllowed);
    real.policy.apple.environments = vec![Environment::Development, Environment::Production];
    assert_eq!(real.judged().outcome, Outcome::Accepted);

    real.policy.apple.app_ids = vec![EXAMPLE.to_lowercase()];
    real.refused(Reason::AppIdNotAllowed);
    real.policy.apple.app_ids = Vec::new();
    real.refused(Reason::AppIdNotAllowed);
    real.policy.apple.app_ids = vec!["other".to_owned(), EXAMPLE.to_owned()];
    assert_eq!(real.judged().outcome, Outcome::Accepted);

    real.client_data_hash[31] ^= 1;
    real.refused(Reason::NonceMismatch);
    real.client_data_hash[31] ^= 1;
    real.key_id = real.key_id.map(|mut id| {
        id[0] ^= 1;
        id
    });
    real.refused(Reason::KeyIdMismatch);
}

#[test]
fn the_bare_challenge_of_a_file_is_tried_where_no_key_is_expected() {
    let Some(real) = example(Environment::Production) else { return };
    let json = vector("apple-appattest-uebelack/attestation-production.json").unwrap();
    let challenge = decoded(&json["challenge"]);
    let key = PublicKey::dummy();
    let mut expected = Expected {
        challenge: Some(&challenge),
        hardware_key: None,
        at: real.at,
        policy: &real.policy,
        list: None,
    };
    assert_eq!(apple::judge(&real.object, &expected).outcome, Outcome::Accepted);
    // With a key to bind it vouches for nothing: it does not name that key.
    expected.hardware_key = Some(&key);
    let outcome = apple::judge(&real.object, &expected).outcome;
    assert_eq!(outcome, Outcome::Refused(Reason::NonceMismatch));
}

/// The receipt is for Apple; every other byte matters.
#[test]
fn no_flipped_bit_of_a_real_object_outside_its_receipt_is_accepted() {
    let Some(mut real) = example(Environment::Production) else { return };
    let find =
        |name: &[u8]| real.object.windows(name.len()).position(|window| window == name).unwrap();
    let start = find(b"receipt") + 7 + 3;
    let receipt = start..find(b"authData") - 1;
    assert!(receipt.len() > 3_000);
    for at in (0..real.object.len()).filter(|at| !receipt.contains(at)) {
        // A judgement verifies three signatures, so one bit a byte.
        let bit = 1 << (at % 8);
        real.object[at] ^= bit;
        assert_ne!(real.judged().outcome, Outcome::Accepted, "byte {at}, bit {bit:#x}");
        real.object[at] ^= bit;
    }
    assert_eq!(real.judged().outcome, Outcome::Accepted);
}

#[test]
fn no_part_of_a_real_object_is_accepted() {
    let Some(mut real) = example(Environment::Production) else { return };
    let whole = real.object.clone();
    for length in 0..whole.len() {
        real.object.truncate(length);
        real.refused(Reason::EvidenceUnreadable);
        real.object.clone_from(&whole);
    }
    real.object.push(0);
    real.refused(Reason::EvidenceUnreadable);
}

#[test]
fn a_real_assertion_is_accepted_once_and_no_flipped_bit_of_it_is() {
    let Some(json) = vector("apple-appattest-uebelack/assertion.json") else { return };
    let mut assertion = decoded(&json["assertion"]);
    let pem: String =
        json["publicKey"].as_str().unwrap().lines().filter(|line| !line.starts_with('-')).collect();
    let key = PublicKey::from_bytes(&decoded(&Value::from(pem))).unwrap();
    let app_ids = [EXAMPLE.to_owned()];
    let hash = Sha256::digest(json["payload"].as_str().unwrap()).into();
    let mut expected =
        ExpectedAssertion { key: &key, app_ids: &app_ids, client_data_hash: &hash, counter: 0 };
    assert_eq!(judge_assertion(&assertion, &expected), Ok(1));
    expected.counter = 1;
    assert_eq!(judge_assertion(&assertion, &expected), Err(Reason::CounterNotRisen));
    expected.counter = 0;
    for at in 0..assertion.len() {
        for bit in 0..8 {
            assertion[at] ^= 1 << bit;
            assert!(judge_assertion(&assertion, &expected).is_err(), "byte {at}, bit {bit}");
            assertion[at] ^= 1 << bit;
        }
    }
    let other = PublicKey::dummy();
    expected.key = &other;
    assert_eq!(judge_assertion(&assertion, &expected), Err(Reason::AssertionSignature));
}
