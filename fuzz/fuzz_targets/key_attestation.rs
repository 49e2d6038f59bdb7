//! A chain of Android key attestation, in DER or PEM, under a policy that lets
//! every check be made.
#![no_main]

use engine::attestation::policy::BootRule;
use engine::attestation::{Expected, Outcome, Platform, Policy, SecurityLevel, judge};
use engine::ids::Micros;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|evidence: &[u8]| {
    let mut policy = Policy::default();
    policy.android.security_level = SecurityLevel::Software;
    policy.android.boot = BootRule::Any;
    let expected = Expected {
        challenge: None,
        hardware_key: None,
        at: Micros(1_759_276_800_000_000),
        policy: &policy,
        list: None,
    };
    let judgement = judge(Platform::Android, evidence, &expected);
    // What is accepted is about a key, and its level was read.
    if judgement.outcome == Outcome::Accepted {
        assert!(judgement.leaf.is_some() && judgement.facts.security_level.is_some());
    }
});
