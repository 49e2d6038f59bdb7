//! What a service provider can ask of a device, and what it gets back.

use api::device::{
    ActivationOptions, AuthenticationOptions, Misbehaviour, Repetition, authenticate,
    authenticate_start, begin, pending,
};
use api::wire::Octets;
use api::wire::provider::Operation;
use engine::reasons::{AuthenticationFailure, OperationKind, OperationState, RejectReason};
use engine::terms::{Decision, Level};
use serde_json::{Value, json};

use super::world::{CHANCE, Side, World, api_key, verified};
use crate::client::{Answer, Request, assert_problem, connect};

fn ask(side: &Side, mut body: Value) -> Operation {
    if body.get("level").is_none() {
        body["level"] = json!("ONE_FACTOR");
    }
    side.bank_posts("/v1/operations", &body).ok()
}

fn text(words: &str) -> Value {
    json!({ "type": "text/plain", "title": "Bill", "octets": Octets(words.as_bytes().to_vec()) })
}

fn on(operation: &Operation) -> AuthenticationOptions {
    let operation = Some(operation.operation_id);
    AuthenticationOptions { operation, ..AuthenticationOptions::default() }
}

#[test]
fn a_transaction_shows_signs_and_afterwards_tells_and_a_repeat_gets_the_same_answer() {
    let world = World::start();
    let side = world.side();
    let phone = side.phone(&ActivationOptions::default());
    let asked = ask(
        &side,
        json!({
            "registration_id": phone.registration_id(), "kind": "TRANSACTION",
            "context": text("Pay 5 EUR to Anna?"), "data_to_sign": Octets(b"5 EUR".to_vec()),
            "post_context": text("Thank you."), "external_id": "order/4711 of Zo\u{eb}",
        }),
    );
    assert_eq!((asked.kind, asked.state), (OperationKind::Transaction, OperationState::Pending));
    assert_eq!(asked.external_id.as_deref(), Some("order/4711 of Zo\u{eb}"));
    let misbehaviour =
        Misbehaviour { repetition: Some(Repetition::Same), ..Misbehaviour::default() };
    let options = AuthenticationOptions { misbehaviour, ..on(&asked) };
    let answering = authenticate_start(&side.client, &phone, &options).unwrap();
    let context = answering.started().context.clone().unwrap();
    assert_eq!((&*context.title, &*context.kind), ("Bill", "text/plain"));
    assert_eq!(side.seen_operation(asked.operation_id).state, OperationState::Started);
    let outcome = answering.finish(&side.client, &phone, &options, CHANCE).unwrap();
    let after = outcome.finished.post_context.clone().unwrap();
    assert_eq!(after.octets.0, b"Thank you.");
    assert_eq!(outcome.repeated.unwrap().unwrap(), outcome.finished);
    let seen = side.seen_operation(asked.operation_id);
    assert_eq!((seen.state, seen.attempts.len()), (OperationState::Completed, 1));
    world.stop_and_verify();
}

#[test]
fn nothing_is_shown_after_a_rejection_and_its_reason_reaches_the_service_provider() {
    let world = World::start();
    let side = world.side();
    let phone = side.phone(&ActivationOptions::default());
    let asked = ask(
        &side,
        json!({ "registration_id": phone.registration_id(), "post_context": text("Welcome.") }),
    );
    let options = AuthenticationOptions {
        decision: Decision::Reject,
        reject_reason: Some(RejectReason::NotMe),
        ..on(&asked)
    };
    let outcome = authenticate(&side.client, &phone, &options, CHANCE).unwrap();
    assert!(outcome.finished.accepted && outcome.finished.post_context.is_none());
    let seen = side.seen_operation(asked.operation_id);
    assert_eq!(seen.state, OperationState::Rejected);
    assert_eq!(seen.attempts[0].reject_reason, Some(RejectReason::NotMe));
    world.stop_and_verify();
}

#[test]
fn a_number_is_told_to_the_service_provider_alone_and_a_wrong_one_ends_the_operation() {
    let world = World::start();
    let side = world.side();
    let phone = side.phone(&ActivationOptions::default());
    for (how, length, choices) in [("NUMBER_MATCHING", 2, 3), ("PROXIMITY_CODE", 6, 0)] {
        for right in [true, false] {
            let body = json!({ "registration_id": phone.registration_id(), "confirmation": how });
            let asked = ask(&side, body);
            let shown = asked.confirmation.clone().unwrap().number;
            assert_eq!(shown.len(), length, "{shown}");
            let number: u32 = shown.parse().unwrap();
            let answering = authenticate_start(&side.client, &phone, &on(&asked)).unwrap();
            let wanted = answering.started().confirmation.clone().unwrap();
            assert_eq!(wanted.choices.len(), choices);
            assert!(choices == 0 || wanted.choices.contains(&number));
            let without = answering.answer(&phone, &on(&asked), CHANCE).unwrap();
            let path = format!("/device/v1/operations/{}/finish", asked.operation_id);
            let refused = world.send(&Request::post(&path, &without));
            assert_problem(&refused, 422, "invalid_request");
            assert_eq!(refused.pointers()[0].0, "/number");
            let number = Some(if right { number } else { (number + 1) % 100 });
            let options = AuthenticationOptions { number, ..on(&asked) };
            let outcome = answering.finish(&side.client, &phone, &options, CHANCE).unwrap();
            assert_eq!(outcome.finished.accepted, right);
            assert_eq!(outcome.finished.remaining_attempts, 3, "it does not count");
            let seen = side.seen_operation(asked.operation_id);
            let (state, failure) = match right {
                true => (OperationState::Completed, None),
                false => (OperationState::Failed, Some(AuthenticationFailure::ConfirmationWrong)),
            };
            assert_eq!((seen.state, seen.attempts[0].failure), (state, failure));
        }
    }
    world.stop_and_verify();
}

#[test]
fn a_device_that_waits_is_told_at_once_and_a_back_end_that_waits_learns_the_end() {
    let world = World::start();
    let side = world.side();
    let phone = side.phone(&ActivationOptions::default());
    assert!(pending(&side.client, &phone, 0).unwrap().is_empty());
    // Nothing here depends on speed: who is not woken waits longer than a test may.
    let (asked, found) = std::thread::scope(|scope| {
        let waits = scope.spawn(|| {
            let mut found = Vec::new();
            while found.is_empty() {
                found = pending(&world.side().client, &phone, 30).unwrap();
            }
            found
        });
        let asked = side.operation(&phone);
        (asked, waits.join().unwrap())
    });
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].operation_id, asked.operation_id);
    let path = format!("/v1/operations/{}?wait_s=30", asked.operation_id);
    let seen: Operation = std::thread::scope(|scope| {
        let waits = scope.spawn(|| {
            let mut seen: Operation = world.side().bank_gets(&path).ok();
            while !seen.state.is_final() {
                seen = world.side().bank_gets(&path).ok();
            }
            seen
        });
        authenticate(&side.client, &phone, &on(&asked), CHANCE).unwrap();
        waits.join().unwrap()
    });
    assert_eq!(seen.state, OperationState::Completed);
    assert!(pending(&side.client, &phone, 0).unwrap().is_empty());
    world.stop_and_verify();
}

#[test]
fn listing_tells_nothing_without_the_token_and_leaves_no_record() {
    let world = World::start();
    let side = world.side();
    let phone = side.phone(&ActivationOptions::default());
    side.operation(&phone);
    let records = side.status().records;
    let ask = |registration: &str, token: Vec<u8>, wait_s: u32| {
        let body = json!({
            "registration_id": registration, "device_token": Octets(token), "wait_s": wait_s,
        });
        world.send(&Request::post("/device/v1/operations/pending", &body))
    };
    let known = phone.registration_id().to_string();
    let unknown = "018bcfe5-6800-7fff-bfff-ffffffffffff";
    let answers = [ask(&known, vec![7; 32], 0), ask(unknown, vec![7; 32], 0)];
    for answer in &answers {
        assert_eq!(answer.value(), json!({ "operations": [] }));
        assert_eq!(answer.body, answers[0].body);
    }
    assert_problem(&ask(unknown, vec![7; 32], 31), 422, "invalid_request");
    assert_eq!(side.status().records, records);
}

#[test]
fn a_server_that_stops_sends_nobody_away_unanswered_who_waits() {
    let world = World::start();
    let side = world.side();
    let phone = side.phone(&ActivationOptions::default());
    let operation = side.operation(&phone).operation_id;
    authenticate(&side.client, &phone, &AuthenticationOptions::default(), CHANCE).unwrap();
    let quiet = side.operation(&phone).operation_id;
    assert_ne!(operation, quiet);
    let path = format!("/v1/operations/{quiet}?wait_s=30");
    let mut waits = connect(world.address());
    let request = Request::get(&path).by(&world.callers.bank);
    std::io::Write::write_all(&mut waits, &request.octets_on_the_wire()).unwrap();
    // Whether it waits by now or is only about to: it is answered before the end.
    let data = world.data();
    world.server.stop();
    if let Some(answer) = Answer::read(&mut waits, false) {
        assert!(answer.status == 200 || answer.status == 503, "{}", answer.status);
    }
    verified(&data);
}

/// What the second implementation says of evidence; none without Python 3.
fn checked(side: &Side, evidence: &str) -> Option<Result<String, String>> {
    let keys = Request::get("/.well-known/jwks.json").send(side.address);
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, octets: &[u8]| {
        std::fs::write(folder.path().join(name), octets).unwrap();
        folder.path().join(name)
    };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/vectors/evidence.py");
    let ended = std::process::Command::new("python3")
        .args([script.into(), file("jwks", &keys.body), file("jws", evidence.as_bytes())])
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output();
    let ended = match ended {
        Ok(ended) => ended,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        Err(error) => panic!("python3: {error}"),
    };
    let said = |octets: Vec<u8>| String::from_utf8(octets).unwrap();
    Some(if ended.status.success() { Ok(said(ended.stdout)) } else { Err(said(ended.stderr)) })
}

fn tampered(evidence: &str) -> String {
    let mut parts: Vec<_> = evidence.split('.').map(str::to_owned).collect();
    let other = if parts[1].ends_with('A') { "Q" } else { "A" };
    let end = parts[1].len() - 4;
    parts[1].replace_range(end..=end, other);
    parts.join(".")
}

#[test]
fn evidence_holds_for_who_shares_no_code_with_the_server_and_a_changed_one_does_not() {
    let world = World::start();
    let side = world.side();
    let phone = side.phone(&ActivationOptions::default());
    let everything = json!({
        "registration_id": phone.registration_id(), "kind": "TRANSACTION",
        "context": text("Pay 5 \u{20ac} to Anna?"), "data_to_sign": Octets(vec![0, 255]),
        "external_id": "4711", "confirmation": "NUMBER_MATCHING",
    });
    let asked = ask(&side, everything);
    let path = format!("/v1/operations/{}/evidence", asked.operation_id);
    assert_problem(&side.bank_gets(&path), 409, "operation_state");
    let number = asked.confirmation.clone().unwrap().number.parse().ok();
    let client_data = Some(b"from the app".to_vec());
    let options = AuthenticationOptions { number, client_data, ..on(&asked) };
    assert!(authenticate(&side.client, &phone, &options, CHANCE).unwrap().finished.accepted);
    let plain = side.operation(&phone);
    let no = AuthenticationOptions {
        decision: Decision::Reject,
        reject_reason: Some(RejectReason::DetailsWrong),
        ..on(&plain)
    };
    authenticate(&side.client, &phone, &no, CHANCE).unwrap();
    for (operation, words) in [
        (&asked, "TRANSACTION {id} COMPLETED by DEVICE: 2 signatures"),
        (&plain, "AUTHENTICATION {id} REJECTED by DEVICE: 2 signatures"),
    ] {
        let path = format!("/v1/operations/{}/evidence", operation.operation_id);
        let evidence = side.bank_gets(&path);
        assert_eq!(evidence.header("content-type"), Some("application/jose"));
        assert_eq!(side.bank_gets(&path).body, evidence.body, "the same text each time");
        let text = evidence.text();
        let Some(held) = checked(&side, &text) else { continue };
        let words = words.replace("{id}", &operation.operation_id.to_string());
        assert!(held.as_ref().is_ok_and(|said| said.starts_with(&words)), "{held:?}");
        let held = checked(&side, &tampered(&text)).unwrap();
        assert!(held.unwrap_err().contains("does not hold"), "changed");
    }
    world.stop_and_verify();
}

#[test]
fn evidence_belongs_to_the_service_provider_that_asked() {
    let world = World::start();
    let side = world.side();
    let phone = side.phone(&ActivationOptions::default());
    let operation = side.log_in(&phone, &AuthenticationOptions::default()).operation_id;
    let path = format!("/v1/operations/{operation}/evidence");
    let by = &world.callers.administrator;
    let other = api_key(world.address(), by, "SERVICE_PROVIDER", Some("other-bank")).bearer;
    let asked = Request::get(&path).by(&other.unwrap());
    assert_problem(&world.send(&asked), 404, "not_found");
    assert_problem(&world.send(&Request::get(&path)), 401, "unauthenticated");
}

#[test]
fn a_template_says_what_its_operations_ask_for() {
    let templates = json!({
        "payment": { "kind": "TRANSACTION", "level": "ONE_FACTOR", "lifetime_s": 77,
                     "methods": ["DEVICE"], "confirmation": "PROXIMITY_CODE" },
    });
    let world = World::with(json!({ "operation_templates": templates }));
    let side = world.side();
    let phone = side.phone(&ActivationOptions::default());
    let body = json!({
        "registration_id": phone.registration_id(), "template": "payment",
        "data_to_sign": Octets(b"5 EUR".to_vec()),
    });
    let asked: Operation = side.bank_posts("/v1/operations", &body).ok();
    assert_eq!(asked.kind, OperationKind::Transaction);
    assert_eq!(asked.confirmation.unwrap().number.len(), 6);
    assert_eq!(asked.expires_at.0.0 - asked.created_at.0.0, 77_000_000);
    for (member, value) in [
        ("kind", json!("AUTHENTICATION")),
        ("level", json!("ONE_FACTOR")),
        ("methods", json!(["DEVICE"])),
        ("lifetime_s", json!(60)),
        ("confirmation", json!("NUMBER_MATCHING")),
        ("template", json!("paiment")),
    ] {
        let mut body = body.clone();
        body[member] = value;
        let refused = side.bank_posts("/v1/operations", &body);
        assert_problem(&refused, 422, "invalid_request");
        assert_eq!(refused.pointers()[0].0, format!("/{member}"));
    }
    let neither = json!({ "registration_id": phone.registration_id() });
    let refused = side.bank_posts("/v1/operations", &neither);
    assert_eq!(refused.pointers()[0].0, "/level");
    world.stop_and_verify();
}

#[test]
fn a_device_begins_an_operation_where_it_may_and_its_back_end_can_tell() {
    let world = World::start();
    let side = world.side();
    let phone = side.phone(&ActivationOptions::default());
    let refused = begin(&side.client, &phone, Level::OneFactor, CHANCE).unwrap_err();
    assert!(refused.to_string().contains("device_may_not_begin"), "{refused}");
    side.configure(json!({ "allow_device_initiated": true }));
    let refused = begin(&side.client, &phone, Level::TwoFactor, CHANCE).unwrap_err();
    assert!(refused.to_string().contains("no_method_fits"), "{refused}");
    let begun = begin(&side.client, &phone, Level::OneFactor, CHANCE).unwrap();
    let operation = Some(begun.operation_id);
    let options = AuthenticationOptions { operation, ..AuthenticationOptions::default() };
    assert!(authenticate(&side.client, &phone, &options, CHANCE).unwrap().finished.accepted);
    let seen = side.seen_operation(begun.operation_id);
    assert!(seen.begun_by_device && seen.state == OperationState::Completed);
    assert!(!side.operation(&phone).begun_by_device);
    for _ in 0..2 {
        begin(&side.client, &phone, Level::OneFactor, CHANCE).unwrap();
    }
    let refused = begin(&side.client, &phone, Level::OneFactor, CHANCE).unwrap_err();
    assert!(refused.to_string().contains("too_many_operations"), "{refused}");
    world.stop_and_verify();
}

#[test]
fn what_no_operation_can_be_made_of_is_refused_by_member() {
    let world = World::start();
    let side = world.side();
    let phone = side.phone(&ActivationOptions::default());
    let long = "x".repeat(257);
    for (member, value, pointer) in [
        ("kind", json!("TRANSACTION"), "/kind"),
        ("external_id", json!(""), "/external_id"),
        ("external_id", json!("x".repeat(129)), "/external_id"),
        ("context", json!({ "type": "text", "octets": "" }), "/context/type"),
        ("context", json!({ "type": "a/b", "title": long, "octets": "" }), "/context/title"),
        ("context", json!({ "type": "a/b", "title": "a\nb", "octets": "" }), "/context/title"),
        ("post_context", json!({ "type": "text", "octets": "" }), "/post_context/type"),
    ] {
        let mut body = json!({ "registration_id": phone.registration_id(), "level": "ONE_FACTOR" });
        body[member] = value;
        let refused = side.bank_posts("/v1/operations", &body);
        assert_problem(&refused, 422, "invalid_request");
        assert_eq!(refused.pointers()[0].0, pointer);
    }
}
