//! An App Attest assertion for a key that nobody holds.
#![no_main]

use engine::attestation::apple::{ExpectedAssertion, judge_assertion};
use engine::key::PublicKey;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|assertion: &[u8]| {
    let key = PublicKey::dummy();
    let expected = ExpectedAssertion {
        key: &key,
        app_ids: &["V8H6LQ9448.io.uebelacker.AppAttestExample".to_owned()],
        client_data_hash: &[7; 32],
        counter: 0,
    };
    assert!(judge_assertion(assertion, &expected).is_err());
});
