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
use engine::terms::{Level, Method, Verdict};

use crate::attestation::{evidence, list};
use crate::evidence::{epoch, rotation};
use crate::unhex;
use crate::world::{ADMIN, APP, BANK, PERSON, World, by, request};

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
    let operation = world.id();
    world.done(Want::BeginOperation(engine::command::BeginOperation {
        operation,
        registration: id,
        level: Level::OneFactor,
        nonce_hash: [8; 32],
        client_version: "3.8".into(),
    }));
    world.done(Want::CancelOperation { by: by(BANK), operation });
    let devices = [id, world.active()];
    let asks = world.broadcast_request(&devices);
    let answered = asks[0].operation;
    world.done(Want::Broadcast(asks));
    world.judged(answered, Method::Device, [Some(Verdict::Valid), None, Some(Verdict::Valid)]);
    let cancelled = world.asked(id, Level::OneFactor);
    world.done(Want::CancelOperation { by: by(BANK), operation: cancelled });
    let cancelled = world.started(Some(id), "3.8").activation;
    world.done(Want::CancelActivation { by: by(BANK), activation: cancelled });
    let reason = ReasonGiven::UserRequest;
    world.done(Want::DeactivateRegistration { by: by(BANK), registration: id, reason });
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
