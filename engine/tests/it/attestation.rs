//! What attestation means for an activation, and how revocation lists are taken.

use engine::attestation::lists::{ListEntry, PART_ENTRIES, joined};
use engine::attestation::revocation::ListStatus;
use engine::attestation::{
    BootState, CertificateName, Facts, ListState, Platform, Provisioning, Reason, SecurityLevel,
    Status,
};
use engine::command::{FinishActivation, Refusal, TakeRevocationList, Want};
use engine::events::{ActivationJudgedV1, Event, EvidenceJudgedV1};
use engine::ids::Micros;
use engine::reasons::{ActivationFailure, RegistrationState};
use engine::terms::{HwKeyClientStatus, Verdict};

use crate::world::{ADMIN, APP, BANK, World, by};

/// What judging under the policy and list in force found.
pub(crate) fn evidence(world: &World, reason: Option<Reason>) -> EvidenceJudgedV1 {
    EvidenceJudgedV1 {
        platform: Platform::Android,
        judged_at: world.now,
        config_version: world.look().application(APP).unwrap().config_version,
        list: world.look().system().list,
        reason,
        authorities: vec![CertificateName { issuer: "CN=Root".into(), serial: vec![0x0a, 1] }],
        facts: Facts {
            security_level: Some(SecurityLevel::TrustedEnvironment),
            boot_state: Some(BootState::Verified),
            device_locked: Some(true),
            patch_level: Some(202_511),
            provisioning: Some(Provisioning::Remote),
            environment: None,
            list: Some(ListState::Fresh),
        },
    }
}

/// A list of these serials.
pub(crate) fn list(serials: &[u64]) -> TakeRevocationList {
    let entry = |serial: &u64| -> ListEntry {
        let bytes = serial.to_be_bytes();
        (bytes[bytes.iter().take_while(|byte| **byte == 0).count()..].to_vec(), ListStatus::Revoked)
    };
    let mut entries: Vec<_> = serials.iter().map(entry).collect();
    entries.sort();
    TakeRevocationList { by: by(ADMIN), hash: [4; 32], entries }
}

fn world(mode: &str) -> World {
    World::new(&[
        ("attestation_android_mode", &format!("\"{mode}\"")),
        ("hw_key_validation_strategy", "\"RISK_PARAMS\""),
    ])
}

/// What a test does to an activation before it is judged.
type Change = fn(&World, &mut FinishActivation);

fn finished(
    world: &mut World,
    change: impl FnOnce(&World, &mut FinishActivation),
) -> ActivationJudgedV1 {
    let mut finish = world.started(None, "3.8");
    change(world, &mut finish);
    match world.done(Want::FinishActivation(Box::new(finish))).remove(0) {
        Event::ActivationJudged(judged) => *judged,
        other => panic!("{other:?}"),
    }
}

#[test]
fn accepted_evidence_about_a_proven_key_passes_and_is_kept() {
    let mut world = world("REQUIRED");
    let mut finish = world.started(None, "3.8");
    let id = world.registration_of(&finish);
    finish.evidence = Some(evidence(&world, None));
    world.done(Want::FinishActivation(Box::new(finish)));
    let registration = world.look().registration(id).unwrap();
    assert_eq!(registration.state, RegistrationState::Active);
    let attested = registration.attestation.clone().unwrap();
    assert_eq!((attested.status, attested.reason), (Status::Verified, None));
    assert_eq!(attested.at, Some(world.now));
    assert_eq!(attested.facts.patch_level, Some(202_511));
}

#[test]
fn where_evidence_is_required_nothing_else_gets_through() {
    let required = ActivationFailure::AttestationRequired;
    let cases: [(&str, Status, Change); 5] = [
        ("refused evidence", Status::Refused, |world, finish| {
            finish.evidence = Some(evidence(world, Some(Reason::DeviceUnlocked)));
        }),
        ("no evidence", Status::NotGiven, |_, _| ()),
        ("no hardware key, said to be impossible", Status::NotSupported, |_, finish| {
            finish.keys.hardware = None;
            finish.declared.hw_key_client_status = HwKeyClientStatus::NotSupported;
        }),
        ("evidence of a platform that is off", Status::NotGiven, |world, finish| {
            let apple = EvidenceJudgedV1 { platform: Platform::Apple, ..evidence(world, None) };
            finish.evidence = Some(apple);
        }),
        ("evidence about a key that is not proven", Status::Verified, |world, finish| {
            finish.evidence = Some(evidence(world, None));
            finish.verifications[2].verdict = Verdict::Invalid;
        }),
    ];
    for (what, status, change) in cases {
        let judged = finished(&mut world("REQUIRED"), change);
        assert_eq!((judged.failure, judged.attestation), (Some(required), status), "{what}");
        let judged = finished(&mut world("OPTIONAL"), change);
        assert_eq!((judged.failure, judged.attestation), (None, status), "{what}");
        let judged = finished(&mut world("OFF"), change);
        assert_eq!((judged.failure, judged.attestation), (None, Status::NotChecked), "{what}");
    }
}

#[test]
fn what_was_judged_under_another_policy_or_list_is_judged_again() {
    let mut world = world("OPTIONAL");
    for change in [
        |world: &mut World| drop(world.configure("failures_allowed", "4")),
        |world: &mut World| drop(world.done(Want::TakeRevocationList(list(&[7])))),
    ] {
        let mut finish = world.started(None, "3.8");
        finish.evidence = Some(evidence(&world, None));
        change(&mut world);
        let stale = world.execute(Want::FinishActivation(Box::new(finish.clone())));
        assert_eq!(stale, Err(Refusal::Stale));
        finish.evidence = Some(evidence(&world, None));
        assert!(world.execute(Want::FinishActivation(Box::new(finish))).is_ok());
    }
}

#[test]
fn a_list_of_any_length_is_in_force_whole_and_only_an_administrator_takes_it() {
    let mut world = world("OFF");
    for length in [0, 1, PART_ENTRIES, PART_ENTRIES + 1, 3 * PART_ENTRIES] {
        let serials: Vec<u64> = (1..=length as u64).collect();
        let events = world.done(Want::TakeRevocationList(list(&serials)));
        let parts: Vec<_> = events
            .into_iter()
            .map(|event| match event {
                Event::RevocationListTaken(part) => *part,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(parts.len(), length.div_ceil(PART_ENTRIES).max(1));
        let whole = joined(Micros(5), &parts).unwrap();
        assert_eq!(whole.entries().count(), length);
        assert_eq!(whole.taken_at, Micros(5));
        assert!(joined(Micros(5), &parts[1..]).is_none());
        let named = world.look().system().list.unwrap();
        assert_eq!(
            (named.hash, named.position.0 as usize),
            ([4; 32], world.records.len() - parts.len())
        );
    }
    let foreign = TakeRevocationList { by: by(BANK), ..list(&[1]) };
    assert_eq!(world.execute(Want::TakeRevocationList(foreign)), Err(Refusal::Forbidden));
    let mut unordered = list(&[1, 2]);
    unordered.entries.reverse();
    let refused = world.execute(Want::TakeRevocationList(unordered));
    assert!(matches!(refused, Err(Refusal::Invalid { field: "entries", .. })), "{refused:?}");
}
