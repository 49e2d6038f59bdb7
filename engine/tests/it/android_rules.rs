//! Android key attestation, rule by rule, on chains of a test CA: each rule
//! from both sides, and each failure with a reason of its own.

use engine::attestation::android::judge;
use engine::attestation::policy::{BootRule, ProvisioningRule};
use engine::attestation::revocation::{ListStatus, RevocationList};
use engine::attestation::{
    EVIDENCE_MAX, Expected, Judgement, ListState, Outcome, Policy, Reason, SecurityLevel,
};
use engine::ids::Micros;
use engine::key::PublicKey;
use proptest::prelude::*;

use crate::test_ca::{
    CHALLENGE, Maker, Says, application_id, attested_key, chain, integer, octets, root_key,
    root_of_trust, tlv, trusting,
};

/// 2026-01-15T00:00:00Z, between the dates of every certificate of the test CA.
const AT: Micros = Micros(1_768_435_200_000_000);
const DAY: u64 = 86_400_000_000;

fn judged(evidence: &[u8], policy: &Policy) -> Judgement {
    let key = attested_key();
    judge(
        evidence,
        &Expected {
            challenge: Some(&CHALLENGE),
            hardware_key: Some(&key),
            at: AT,
            policy,
            list: None,
        },
    )
}

#[track_caller]
fn accepted(says: &Says, policy: &Policy) {
    assert_eq!(judged(&chain(says), policy).outcome, Outcome::Accepted);
}

#[track_caller]
fn refused(says: &Says, policy: &Policy, reason: Reason) {
    assert_eq!(judged(&chain(says), policy).outcome, Outcome::Refused(reason));
}

fn policy(change: impl FnOnce(&mut Policy)) -> Policy {
    let mut policy = trusting();
    change(&mut policy);
    policy
}

#[test]
fn a_good_chain_passes_with_and_without_its_root() {
    for with_root in [true, false] {
        let evidence = Maker { with_root, ..Maker::default() }.evidence();
        let judgement = judged(&evidence, &trusting());
        assert_eq!(judgement.outcome, Outcome::Accepted);
        assert_eq!(judgement.leaf.unwrap().serial, [3]);
        assert_eq!(judgement.authorities[0].serial, [2]);
        assert_eq!(judgement.authorities[0].issuer, "CN=Test Root");
        assert_eq!(judgement.facts.security_level, Some(SecurityLevel::TrustedEnvironment));
        assert_eq!(judgement.facts.patch_level, Some(202_511));
    }
}

#[test]
fn a_root_that_the_policy_does_not_name_is_unknown() {
    let judgement = judged(&Maker::default().evidence(), &Policy::default());
    assert_eq!(judgement.outcome, Outcome::Refused(Reason::RootUnknown));
    // Naming the leaf's own key as a root trusts nobody's word but its own.
    let own = policy(|policy| {
        policy.android.further_roots = vec![attested_key().spki_der().to_vec()];
    });
    let judgement = judged(&Maker::default().evidence(), &own);
    assert_eq!(judgement.outcome, Outcome::Refused(Reason::RootUnknown));
}

#[test]
fn certificates_in_another_order_or_from_another_chain_are_a_broken_chain() {
    let mut certificates = Maker::default().certificates();
    certificates.swap(1, 2);
    let judgement = judged(&certificates.concat(), &trusting());
    assert_eq!(judgement.outcome, Outcome::Refused(Reason::ChainBroken));
    let not_an_authority = Maker { is_authority: false, ..Maker::default() }.evidence();
    let judgement = judged(&not_an_authority, &trusting());
    assert_eq!(judgement.outcome, Outcome::Refused(Reason::ChainBroken));
}

#[test]
fn a_certificate_below_an_attested_key_is_refused() {
    let says = Says::default().der();
    let below = Maker { intermediate: Some(says), ..Maker::default() }.evidence();
    let judgement = judged(&below, &trusting());
    assert_eq!(judgement.outcome, Outcome::Refused(Reason::KeyDescriptionMisplaced));
}

#[test]
fn a_leaf_without_a_key_description_or_with_a_broken_one_is_refused() {
    for (leaf, reason) in [
        (None, Reason::KeyDescriptionMissing),
        (Some(vec![]), Reason::KeyDescriptionUnreadable),
        (Some(tlv(&[0x30], &[])), Reason::KeyDescriptionUnreadable),
        (Some([Says::default().der(), vec![0]].concat()), Reason::KeyDescriptionUnreadable),
    ] {
        let evidence = Maker { leaf, ..Maker::default() }.evidence();
        assert_eq!(judged(&evidence, &trusting()).outcome, Outcome::Refused(reason));
    }
}

#[test]
fn the_challenge_must_be_ours_to_the_last_bit() {
    let mut challenge = CHALLENGE.to_vec();
    challenge[31] ^= 1;
    let changed = Says { challenge, ..Says::default() };
    refused(&changed, &trusting(), Reason::ChallengeMismatch);
    let shorter = Says { challenge: CHALLENGE[..31].to_vec(), ..Says::default() };
    refused(&shorter, &trusting(), Reason::ChallengeMismatch);
}

#[test]
fn the_attested_key_must_be_the_registered_one() {
    let (policy, other) = (trusting(), PublicKey::dummy());
    let expected = Expected {
        challenge: Some(&CHALLENGE),
        hardware_key: Some(&other),
        at: AT,
        policy: &policy,
        list: None,
    };
    let judgement = judge(&Maker::default().evidence(), &expected);
    assert_eq!(judgement.outcome, Outcome::Refused(Reason::OtherKey));
}

#[test]
fn the_key_must_sign_and_the_secure_hardware_must_say_so() {
    let verify_only = tlv(&[0x31], &integer(3));
    let sign = tlv(&[0x31], &integer(2));
    refused(&Says::default().hardware(1, verify_only.clone()), &trusting(), Reason::PurposeNotSign);
    refused(&Says::default().without_hardware(1), &trusting(), Reason::PurposeNotSign);
    refused(
        &Says::default().hardware(1, verify_only).software(1, sign.clone()),
        &trusting(),
        Reason::PurposeNotSign,
    );
    accepted(&Says::default().hardware(1, sign), &trusting());
}

#[test]
fn the_key_must_be_generated_in_the_secure_hardware_and_stay_there() {
    // DERIVED, IMPORTED, UNKNOWN, SECURELY_IMPORTED.
    for origin in 1..=4 {
        let says = Says::default().hardware(702, integer(origin));
        refused(&says, &trusting(), Reason::OriginNotGenerated);
    }
    let in_software_only = Says::default().without_hardware(702).software(702, integer(0));
    refused(&in_software_only, &trusting(), Reason::OriginNotGenerated);
    let null = tlv(&[0x05], &[]);
    refused(&Says::default().hardware(602, null.clone()), &trusting(), Reason::KeyExportable);
    refused(&Says::default().software(602, null), &trusting(), Reason::KeyExportable);
}

#[test]
fn the_weaker_of_key_and_attestation_is_the_security_level() {
    let strongbox = policy(|policy| policy.android.security_level = SecurityLevel::StrongBox);
    for (attestation_level, keymint_level, tee, strong) in [
        (0, 0, false, false),
        (0, 1, false, false),
        (1, 0, false, false),
        (1, 1, true, false),
        (1, 2, true, false),
        (2, 1, true, false),
        (2, 2, true, true),
    ] {
        let says = Says { attestation_level, keymint_level, ..Says::default() };
        for (policy, passes) in [(&trusting(), tee), (&strongbox, strong)] {
            if passes {
                accepted(&says, policy);
            } else {
                refused(&says, policy, Reason::SecurityLevelTooLow);
            }
        }
    }
    let unknown = Says { keymint_level: 3, ..Says::default() };
    refused(&unknown, &trusting(), Reason::KeyDescriptionUnreadable);
}

#[test]
fn the_boot_rule_asks_for_a_locked_loader_and_then_for_the_makers_system() {
    let rule = |rule| policy(|policy| policy.android.boot = rule);
    let (any, locked) = (rule(BootRule::Any), rule(BootRule::Locked));
    let verified = rule(BootRule::LockedVerified);
    let says = |locked, state| Says::default().hardware(704, root_of_trust(locked, state));
    accepted(&says(0xff, 0), &verified);
    for state in 1..=3 {
        refused(&says(0xff, state), &verified, Reason::BootNotVerified);
        accepted(&says(0xff, state), &locked);
        accepted(&says(0, state), &any);
    }
    refused(&says(0, 0), &locked, Reason::DeviceUnlocked);
    refused(&says(0, 0), &verified, Reason::DeviceUnlocked);
    // Real phones write true as 0x01.
    accepted(&says(0x01, 0), &verified);
    refused(&Says::default().without_hardware(704), &locked, Reason::DeviceUnlocked);
    accepted(&Says::default().without_hardware(704), &any);
    // Android's word for it does not count.
    let in_software = Says::default().without_hardware(704).software(704, root_of_trust(0xff, 0));
    refused(&in_software, &locked, Reason::DeviceUnlocked);
    refused(&says(0xff, 4), &verified, Reason::KeyDescriptionUnreadable);
}

#[test]
fn the_patch_level_is_compared_by_month() {
    let min = policy(|policy| policy.android.patch_level_min = Some(202_511));
    let says = |level| Says::default().hardware(706, integer(level));
    accepted(&says(202_511), &min);
    accepted(&says(202_512), &min);
    refused(&says(202_510), &min, Reason::PatchLevelTooOld);
    // Some devices write the day as well.
    accepted(&says(20_251_101), &min);
    refused(&says(20_251_031), &min, Reason::PatchLevelTooOld);
    refused(&Says::default().without_hardware(706), &min, Reason::PatchLevelTooOld);
    accepted(&says(0), &trusting());
}

#[test]
fn package_and_signer_must_be_allowed_where_the_policy_names_any() {
    let named = policy(|policy| {
        policy.android.packages = vec!["org.example.other".into(), "org.example.bank".into()];
        policy.android.signers = vec![[0xd1; 32]];
    });
    accepted(&Says::default(), &named);
    let id = |packages: &[&str], signers: &[[u8; 32]]| {
        Says::default().software(709, application_id(packages, signers))
    };
    refused(&id(&["org.example.bank2"], &[[0xd1; 32]]), &named, Reason::PackageNotAllowed);
    refused(&id(&["org.example.bank"], &[[0xd2; 32]]), &named, Reason::SignerNotAllowed);
    refused(&id(&["org.example.bank"], &[]), &named, Reason::SignerNotAllowed);
    accepted(&id(&["org.example.x", "org.example.bank"], &[[0xd1; 32]]), &named);
    let without = Says { software: vec![], ..Says::default() };
    refused(&without, &named, Reason::PackageNotAllowed);
    accepted(&without, &trusting());
    let broken = Says::default().software(709, octets(&[0x30, 0x01]));
    refused(&broken, &named, Reason::KeyDescriptionUnreadable);
}

#[test]
fn a_factory_chain_is_refused_only_where_the_policy_wants_remote_ones() {
    let remote_only = policy(|policy| policy.android.provisioning = ProvisioningRule::RemoteOnly);
    let factory = Maker::default().evidence();
    let remote = Maker { remote: true, ..Maker::default() }.evidence();
    let reason = Outcome::Refused(Reason::FactoryChain);
    assert_eq!(judged(&factory, &remote_only).outcome, reason);
    assert_eq!(judged(&remote, &remote_only).outcome, Outcome::Accepted);
    assert_eq!(judged(&remote, &trusting()).outcome, Outcome::Accepted);
}

#[test]
fn a_revoked_certificate_anywhere_in_the_chain_is_found_and_a_stale_list_is_reported() {
    let (key, policy) = (attested_key(), trusting());
    let evidence = Maker::default().evidence();
    for (serial, status, reason) in [
        (1, ListStatus::Revoked, Some(Reason::CertificateRevoked)),
        (2, ListStatus::Suspended, Some(Reason::CertificateSuspended)),
        (3, ListStatus::Revoked, Some(Reason::CertificateRevoked)),
        (4, ListStatus::Revoked, None),
    ] {
        for (age, state) in [(7 * DAY, ListState::Fresh), (7 * DAY + 1, ListState::Stale)] {
            let taken_at = Micros(AT.0 - age);
            let list = RevocationList::from_entries(taken_at, [(vec![serial], status)]);
            let expected = Expected {
                challenge: Some(&CHALLENGE),
                hardware_key: Some(&key),
                at: AT,
                policy: &policy,
                list: Some(&list),
            };
            let judgement = judge(&evidence, &expected);
            let outcome = reason.map_or(Outcome::Accepted, Outcome::Refused);
            assert_eq!(judgement.outcome, outcome, "{serial}");
            assert_eq!(judgement.facts.list, Some(state));
        }
    }
    assert_eq!(judged(&evidence, &policy).facts.list, Some(ListState::Missing));
}

#[test]
fn tags_that_are_unknown_or_out_of_order_are_put_up_with_and_repeated_ones_are_not() {
    let mut says = Says::default().hardware(799, integer(1)).hardware(9, octets(b"?"));
    says.hardware.reverse();
    accepted(&says, &trusting());
    let judgement = judged(&chain(&says), &trusting());
    let unknown: Vec<_> =
        judgement.fields.iter().filter(|field| field.name.contains(".tag_")).collect();
    assert_eq!(unknown.len(), 2);
    assert!(unknown.iter().all(|field| field.private));
    says.hardware.push((702, integer(0)));
    refused(&says, &trusting(), Reason::KeyDescriptionUnreadable);
}

#[test]
fn what_is_no_chain_is_refused_by_what_is_wrong_with_it() {
    let good = Maker::default().certificates();
    let many = vec![good[1].clone(); 11].concat();
    let cases = [
        (vec![], Reason::EvidenceUnreadable),
        (b"nonsense".to_vec(), Reason::EvidenceUnreadable),
        (vec![0x30; EVIDENCE_MAX], Reason::EvidenceUnreadable),
        (vec![0x30; EVIDENCE_MAX + 1], Reason::EvidenceTooLarge),
        ([good.concat(), vec![0x30]].concat(), Reason::EvidenceUnreadable),
        (many, Reason::ChainTooLong),
    ];
    for (evidence, reason) in cases {
        assert_eq!(judged(&evidence, &trusting()).outcome, Outcome::Refused(reason));
    }
}

#[test]
fn a_flipped_bit_anywhere_never_panics_and_is_never_accepted() {
    let good = Maker { with_root: false, ..Maker::default() }.evidence();
    let policy = trusting();
    assert_eq!(judged(&good, &policy).outcome, Outcome::Accepted);
    for at in 0..good.len() {
        // The upper bits make another kind of tag of a tag; of the others one does.
        for bit in [at % 5, 5, 6, 7] {
            let mut flipped = good.clone();
            flipped[at] ^= 1 << bit;
            let outcome = judged(&flipped, &policy).outcome;
            assert_ne!(outcome, Outcome::Accepted, "bit {bit} of byte {at} of {}", good.len());
        }
    }
}

proptest! {
    #[test]
    fn a_key_description_of_any_bytes_is_judged_without_a_panic(
        at in 0_usize..400,
        bytes in prop::collection::vec(any::<u8>(), 1..40),
    ) {
        let mut der = Says::default().der();
        let at = at.min(der.len());
        let end = (at + bytes.len()).min(der.len());
        der.splice(at..end, bytes);
        let evidence = Maker { leaf: Some(der), ..Maker::default() }.evidence();
        let judgement = judged(&evidence, &trusting());
        prop_assert!(!judgement.checks.is_empty());
    }
}

#[test]
fn the_root_of_the_test_ca_is_no_root_of_google() {
    assert!(!engine::attestation::roots::GOOGLE.contains(&root_key()));
}
