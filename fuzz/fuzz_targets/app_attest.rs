//! App Attest evidence: the envelope, or the object alone.
#![no_main]

use engine::attestation::{Expected, Outcome, Platform, Policy, judge};
use engine::ids::Micros;
use engine::key::PublicKey;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|evidence: &[u8]| {
    let mut policy = Policy::default();
    policy.apple.app_ids = vec!["V8H6LQ9448.io.uebelacker.AppAttestExample".to_owned()];
    let key = PublicKey::dummy();
    let expected = Expected {
        challenge: Some(&[7; 32]),
        hardware_key: Some(&key),
        at: Micros(1_707_350_400_000_000),
        policy: &policy,
        list: None,
    };
    // Nothing that Apple has signed names this challenge and this key.
    let judgement = judge(Platform::Apple, evidence, &expected);
    assert_ne!(judgement.outcome, Outcome::Accepted);
});
