//! Stored forms are for ever: a sample of every event of every version.
//!
//! `samples.txt` holds the bytes as the first release wrote them. If this test
//! fails, old logs no longer read: add a schema version, edit none.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use engine::command::Want;
use engine::events::{Event, MatchingV1, REGISTRY};
use engine::ids::Id;
use engine::reasons::{BudgetScope, Confirmation, OperationKind, ReasonGiven};
use engine::terms::{HwKeyClientStatus, Level, Method, Verdict};

use crate::attestation::{evidence, list};
use crate::evidence::{epoch, rotation};
use crate::world::{ADMIN, APP, BANK, PERSON, World, by, request};
use crate::{key_change, unhex};

const STORED: &str = include_str!("samples.txt");

/// One event of every type, made by the rules.
fn samples() -> Vec<Event> {
    let mut world = World::new(&[("enabled_risk_data", "[\"hw_key_server_result\"]")]);
    world.configure("failures_allowed", "2");
    world.done(Want::NoteClockStep { from: world.now, to: world.now.plus_s(9) });
    world.done(Want::CountRefusals(engine::events::RefusalsCountedV1 {
        since: world.now,
        not_recognised: 1,
        not_live: 2,
        codes: 3,
        limited: 4,
        credentials: 5,
    }));
    let by_request = engine::events::Actor { api_key: ADMIN, request: request(5, 6) };
    let confirmed = engine::events::ClockConfirmedV1 { by: by_request, suspended: true };
    world.done(Want::ConfirmClock(confirmed));
    world.done(Want::NoteStateDigest(engine::events::StateDigestedV1 {
        position: engine::ids::Position(3),
        state_version: 2,
        digest: [9; 32],
    }));
    world.done(Want::RotateKey(Box::new(rotation(1, 2))));
    world.done(Want::BeginEpoch(Box::new(epoch("keytrail.test/1", "keytrail.test/2"))));
    let until = world.now.plus_s(60);
    let scope = BudgetScope::Source;
    world.done(Want::ExhaustCodeBudget { application: APP, scope, until, failures: 10 });
    world.done(Want::TakeRevocationList(list(&[1, 2])));
    world.configure("attestation_android_mode", "\"OPTIONAL\"");
    let mut finish = world.started(None, "3.8");
    finish.evidence = Some(evidence(&world, Some(engine::attestation::Reason::RootUnknown)));
    let id = world.registration_of(&finish);
    world.done(Want::FinishActivation(Box::new(finish)));
    let mut asked = world.operation_request(id, Level::TwoFactor);
    asked.by.request = request(1, 2);
    asked.methods = vec![Method::DevicePin];
    asked.lifetime_s = Some(120);
    asked.kind = OperationKind::Transaction;
    asked.data_to_sign_hash = [3; 32];
    asked.matching = Some(MatchingV1 {
        how: Confirmation::NumberMatching,
        number: 42,
        choices: vec![17, 42, 80],
    });
    let operation = asked.operation;
    world.done(Want::CreateOperation(asked));
    for _ in 0..2 {
        world.judged(
            operation,
            Method::DevicePin,
            [Some(Verdict::Invalid), None, Some(Verdict::Valid)],
        );
    }
    world.done(Want::UnlockRegistration { by: by(BANK), registration: id });
    let expiring = world.asked(id, Level::OneFactor);
    let abandoned = world.started(None, "3.8").activation;
    world.wait_s(300);
    world.done(Want::ExpireOperation(expiring));
    world.done(Want::ExpireActivation(abandoned));
    world.configure("allow_device_initiated", "true");
    world.push_address(id, true).unwrap();
    let operation = world.id();
    world.done(Want::BeginOperation(engine::command::BeginOperation {
        operation,
        registration: id,
        kind: OperationKind::Authentication,
        level: Level::OneFactor,
        nonce_hash: [8; 32],
        client_version: "3.8".into(),
    }));
    world.done(Want::CancelOperation { by: by(BANK), operation });
    world.done(Want::NameDevice(engine::command::NameDevice {
        by: None,
        registration: id,
        named: true,
        sealed: vec![7; 20],
    }));
    let devices = [id, world.active()];
    let asks = world.broadcast_request(&devices);
    let answered = asks[0].operation;
    world.done(Want::Broadcast(asks));
    world.judged(answered, Method::Device, [Some(Verdict::Valid), None, Some(Verdict::Valid)]);
    let cancelled = world.asked(id, Level::OneFactor);
    world.done(Want::CancelOperation { by: by(BANK), operation: cancelled });
    let cancelled = world.started(Some(id), "3.8").activation;
    world.done(Want::CancelActivation { by: by(BANK), activation: cancelled });
    change_keys(&mut world);
    let reason = ReasonGiven::UserRequest;
    world.done(Want::DeactivateRegistration { by: by(BANK), registration: id, reason });
    lock_that_time_releases(&mut world);
    world.configure("offline_levels", "[\"ONE_FACTOR\"]");
    let offline = world.active();
    let asked = world.asked(offline, Level::OneFactor);
    world.ask_offline(asked).unwrap();
    let code = world.code(asked, Method::Device, true);
    world.done(Want::FinishOffline(code));
    crate::recovery::sampled(&mut world);
    device_that_is_blocked(&mut world);
    registration_that_nobody_uses(&mut world);
    let mut order = world.erasure(PERSON);
    order.by.request = request(3, 4);
    world.done(Want::OrderErasure(order));
    world.done(Want::RecordErased { subject: PERSON, again: false });
    world.done(Want::CountKeyUse(engine::events::KeyUseCountedV1 {
        since: world.now,
        service_provider: 6,
        device: 7,
    }));
    let mut auditor = by(world.auditor());
    auditor.request = request(7, 8);
    world.done(crate::access::exported(Some(auditor.clone())));
    world.done(crate::access::revealed(by(auditor.api_key)));
    world.done(Want::RevokeApiKey { by: by(ADMIN), key: BANK });
    assert!(world.look().api_key(Id::NIL).is_none());
    let mut seen = BTreeSet::new();
    let mut events = Vec::new();
    for record in &world.records {
        let draft = &record.draft;
        if seen.insert((draft.event_type, draft.schema)) {
            events.push(Event::decode(draft.event_type, draft.schema, &draft.clear).unwrap());
        }
    }
    events.sort_by_key(Event::kind);
    events
}

/// Every change of a key once, each of another registration.
fn change_keys(world: &mut World) {
    world.configure("allow_unproven_key_replacement", "true");
    let valid = Some(Verdict::Valid);
    for (kind, target, hardware) in [
        (OperationKind::AddHwKey, None, None),
        (OperationKind::RotateHwKey, None, valid),
        (OperationKind::ReplaceHwKey, None, None),
        (OperationKind::AddMethod, Some(Method::DeviceBiometric), valid),
        (OperationKind::ReplaceMethod, Some(Method::DevicePin), valid),
        (OperationKind::RemoveMethod, Some(Method::DeviceBiometric), valid),
    ] {
        let id = if kind == OperationKind::AddHwKey {
            world.active_without(HwKeyClientStatus::KeyGenerationFailed, "3.8")
        } else {
            world.active()
        };
        if kind == OperationKind::RemoveMethod {
            change_key(world, id, (OperationKind::AddMethod, target), valid);
        }
        change_key(world, id, (kind, target), hardware);
    }
}

fn change_key(
    world: &mut World,
    registration: Id,
    (kind, target): (OperationKind, Option<Method>),
    hardware: Option<Verdict>,
) {
    let valid = Some(Verdict::Valid);
    let operation = key_change::asked(world, registration, kind, target);
    let mut answer = key_change::answer(world, operation, [valid, valid, hardware], valid);
    if kind == OperationKind::RemoveMethod {
        answer.new_key = None;
        answer.verifications.pop();
    }
    world.done(Want::FinishAuthentication(Box::new(answer)));
}

fn lock_that_time_releases(world: &mut World) {
    world.configure("lock_duration_s", "60");
    let id = world.active();
    let operation = world.asked(id, Level::TwoFactor);
    let wrong = [Some(Verdict::Invalid), None, Some(Verdict::Valid)];
    for _ in 0..world.application().config.failures_allowed {
        world.judged(operation, Method::DevicePin, wrong);
    }
    world.wait_s(60);
    world.done(Want::ReleaseLock(id));
}

fn device_that_is_blocked(world: &mut World) {
    let device = Id([0xd1; 16]);
    let mut finish = world.started(None, "3.8");
    finish.device = Some(device);
    finish.device_hash_hash = [4; 32];
    let registrations = vec![world.registration_of(&finish)];
    world.done(Want::FinishActivation(Box::new(finish)));
    world.done(Want::BlockDevice(engine::command::BlockDevice {
        by: by(BANK),
        application: APP,
        device,
        reason: ReasonGiven::FraudSuspected,
        registrations,
        sealed: vec![1, 2, 3],
    }));
    world.done(Want::UnblockDevice { by: by(BANK), application: APP, device });
}

fn registration_that_nobody_uses(world: &mut World) {
    world.configure("inactive_after_days", "30");
    let id = world.active();
    world.wait_s(30 * engine::inactivity::DAY_S);
    let application = APP;
    world.done(Want::ConfirmInactivity { by: by(ADMIN), application, registrations: 7 });
    world.done(Want::DeactivateInactive(engine::command::DeactivateInactive {
        application,
        as_of: world.now,
        due: 3,
        registrations: vec![id],
    }));
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

#[test]
fn every_stored_event_still_reads_and_is_written_the_same() {
    let samples = samples();
    let kinds: Vec<_> = samples.iter().map(Event::kind).collect();
    let registered: Vec<_> = REGISTRY.iter().map(|&(kind, schema, _)| (kind, schema)).collect();
    assert_eq!(kinds, registered, "a sample of every type and version");
    let mut text = String::new();
    for event in &samples {
        let (kind, schema) = event.kind();
        let _ = writeln!(text, "{} {kind} {schema} {}", event.name(), hex(&event.encode()));
    }
    if std::env::var_os("KEYTRAIL_NEW_SAMPLES").is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/samples.txt");
        std::fs::write(path, &text).unwrap();
        return;
    }
    assert_eq!(text, STORED);
    for (line, event) in STORED.lines().zip(&samples) {
        let parts: Vec<_> = line.split(' ').collect();
        let (kind, schema) = (parts[1].parse().unwrap(), parts[2].parse().unwrap());
        assert_eq!(Event::decode(kind, schema, &unhex(parts[3])).as_ref(), Ok(event));
    }
}

#[test]
fn cut_or_longer_bytes_are_no_event() {
    for event in samples() {
        let (kind, schema) = event.kind();
        let bytes = event.encode();
        let longer = [bytes.as_slice(), &[0]].concat();
        assert!(Event::decode(kind, schema, &longer).is_err(), "{}", event.name());
        for len in 0..bytes.len() {
            assert!(Event::decode(kind, schema, &bytes[..len]).is_err(), "{}", event.name());
        }
        assert!(Event::decode(kind, schema + 1, &bytes).is_err());
    }
    assert!(Event::decode(0, 1, &[]).is_err());
}

#[test]
fn an_event_as_json_shows_ids_as_uuids_and_bytes_as_base64url() {
    let judged = samples().into_iter().find(|event| event.name() == "AuthenticationJudged");
    let json = judged.unwrap().to_json();
    assert_eq!(json["application"], "a1a1a1a1-a1a1-a1a1-a1a1-a1a1a1a1a1a1");
    assert_eq!(json["context_hash"], "A".repeat(43));
    assert_eq!(json["verifications"][0]["verdict"], "INVALID");
}
