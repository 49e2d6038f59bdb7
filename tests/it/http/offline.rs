//! A phone without a network approves by a code, against the real server.

use std::path::Path;

use api::device::{
    ActivationOptions, AuthenticationOptions, NewKey, Phone, activate, authenticate_start,
};
use api::wire::OfflinePayload;
use api::wire::provider::{FinishedOffline, OfflineQuestion, Operation};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use engine::ids::{Id, Micros};
use engine::offline::{OfflineCode, Question};
use engine::reasons::{AuthenticationFailure, OperationState, RegistrationState};
use engine::terms::Method;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::world::{CHANCE, Side, World};
use crate::client::{Answer, Request, assert_problem};

const PIN: &str = "2580";

fn both() -> Value {
    json!({ "offline_levels": ["ONE_FACTOR", "TWO_FACTOR"] })
}

fn phone(side: &Side) -> Phone {
    let pin = Some(Zeroizing::new(PIN.to_owned()));
    side.phone(&ActivationOptions { pin, ..ActivationOptions::default() })
}

fn operation(side: &Side, phone: &Phone) -> Id {
    let body = json!({
        "registration_id": phone.registration_id(), "level": "TWO_FACTOR",
        "context": { "title": "Pay", "type": "text/plain", "octets": "Zm9v" },
        "data_to_sign": "YmFy", "kind": "TRANSACTION",
    });
    side.bank_posts("/v1/operations", &body).ok::<Operation>().operation_id
}

fn ask(side: &Side, operation: Id) -> Answer {
    side.bank_posts(&format!("/v1/operations/{operation}/offline"), &json!({}))
}

fn question(side: &Side, operation: Id) -> OfflinePayload {
    ask(side, operation).ok::<OfflineQuestion>().qr.parse().unwrap()
}

fn code(phone: &Phone, payload: &OfflinePayload, pin: &str) -> OfflineCode {
    let question = phone.scan(payload, Micros(0)).unwrap();
    phone.offline_code(&question, None, Some(pin)).unwrap()
}

fn typed(side: &Side, operation: Id, code: &str) -> Request {
    let path = format!("/v1/operations/{operation}/offline/finish");
    Request::post(&path, &json!({ "code": code })).by(&side.callers.bank)
}

#[test]
fn a_phone_without_a_network_approves_what_it_shows_by_a_code_that_is_typed() {
    let world = World::with(both());
    let side = world.side();
    let phone = phone(&side);
    let operation = operation(&side, &phone);
    let payload = question(&side, operation);
    assert_eq!(question(&side, operation), payload, "one question is outstanding");
    let shown = phone.scan(&payload, Micros(0)).unwrap();
    let context = shown.context.clone().unwrap();
    assert_eq!((&*context.title, &context.content.octets[..]), ("Pay", &b"foo"[..]));
    assert_eq!(shown.data_to_sign.as_ref().unwrap().octets, b"bar");
    let code = code(&phone, &payload, PIN);
    let digits = code.as_str();
    let spaced = format!("{} {}-{}", &digits[..2], &digits[2..6], &digits[6..]);
    let answer = typed(&side, operation, &spaced).send(side.address);
    let finished: FinishedOffline = answer.ok();
    assert!(finished.accepted && finished.state == OperationState::Completed);
    // An answer that was lost is given again.
    assert_eq!(typed(&side, operation, digits).send(side.address).body, answer.body);
    let seen = side.seen_operation(operation);
    assert_eq!((seen.state, seen.attempts.len()), (OperationState::Completed, 1));
    assert!(seen.attempts[0].offline && seen.attempts[0].method == Method::DevicePin);
    let evidence = side.bank_gets(&format!("/v1/operations/{operation}/evidence")).text();
    let payload = URL_SAFE_NO_PAD.decode(evidence.split('.').nth(1).unwrap()).unwrap();
    let payload: Value = serde_json::from_slice(&payload).unwrap();
    assert_eq!((&payload["signatures"], &payload["offline"]["code"]), (&json!([]), &json!(digits)));
    assert_eq!(payload["hw_key_server_result"], "SIGNATURE_MISSING");
    assert_problem(&ask(&side, operation), 409, "operation_state");
    let report = world.stop_and_verify();
    assert_eq!(report.events.get("OfflineJudged"), Some(&1));
}

#[test]
fn a_wrong_pin_makes_a_wrong_code_which_counts_and_locks_and_a_slip_does_neither() {
    let world = World::with(json!({ "offline_levels": ["TWO_FACTOR"], "failures_allowed": 2 }));
    let side = world.side();
    let phone = phone(&side);
    let operation = operation(&side, &phone);
    let payload = question(&side, operation);
    let wrong = code(&phone, &payload, "2581");
    let slip =
        format!("{}{}", &wrong.as_str()[..9], (wrong.as_str().as_bytes()[9] - b'0' + 1) % 10);
    for bad in [&*slip, "", "12345", &"1".repeat(65)] {
        let refused = typed(&side, operation, bad).send(side.address);
        assert_problem(&refused, 422, "invalid_request");
    }
    let request = typed(&side, operation, wrong.as_str()).once("first");
    let first: FinishedOffline = request.send(side.address).ok();
    assert!(!first.accepted && !first.locked && first.remaining_attempts == 1);
    assert_eq!(request.send(side.address).ok::<FinishedOffline>(), first, "counted once");
    // The right code is too late for a question that was judged.
    let right = code(&phone, &payload, PIN);
    let late = typed(&side, operation, right.as_str()).send(side.address);
    assert_problem(&late, 409, "challenge_not_live");
    let payload = question(&side, operation);
    let wrong = code(&phone, &payload, "2582");
    let last: FinishedOffline = typed(&side, operation, wrong.as_str()).send(side.address).ok();
    assert!(last.locked && last.state == OperationState::Failed);
    let seen = side.seen_operation(operation);
    let failures: Vec<_> = seen.attempts.iter().filter_map(|attempt| attempt.failure).collect();
    assert_eq!(failures, [AuthenticationFailure::OfflineCodeWrong; 2]);
    let registration = side.seen_registration(phone.registration_id());
    assert_eq!((registration.state, registration.failures), (RegistrationState::Locked, 2));
    world.stop_and_verify();
}

#[test]
fn a_phone_answers_only_what_the_server_signed_for_it_in_time() {
    let world = World::with(both());
    let side = world.side();
    let (mine, other) = (phone(&side), phone(&side));
    let operation = operation(&side, &mine);
    let payload = question(&side, operation);
    let refused = |phone: &Phone, payload: &OfflinePayload, now| {
        phone.scan(payload, Micros(now)).unwrap_err().to_string()
    };
    assert!(refused(&other, &payload, 0).contains("another phone"));
    let expires_at = mine.scan(&payload, Micros(0)).unwrap().expires_at;
    assert!(mine.scan(&payload, Micros(expires_at.0 - 1)).is_ok());
    assert!(refused(&mine, &payload, expires_at.0).contains("too late"));
    let mut forged = payload.clone();
    forged.signature[40] ^= 1;
    assert!(refused(&mine, &forged, 0).contains("not signed"));
    let mut changed = payload.clone();
    let last = changed.question.len() - 1;
    changed.question[last] ^= 1;
    assert!(refused(&mine, &changed, 0).contains("not signed"));
    // Another phone's code for the same question is a wrong one.
    let asked = Question::parse(&payload.question).unwrap();
    let foreign = other.offline_code(&asked, None, Some(PIN)).unwrap();
    let judged: FinishedOffline = typed(&side, operation, foreign.as_str()).send(side.address).ok();
    assert!(!judged.accepted);
    world.stop_and_verify();
}

#[test]
fn it_is_off_unless_the_application_names_levels_and_a_question_has_an_end() {
    let world = World::start();
    let side = world.side();
    let before = phone(&side);
    let first = operation(&side, &before);
    let possible = |answer: &Answer, words: &str| {
        assert_problem(answer, 409, "offline_not_possible");
        assert!(answer.text().contains(words), "{}", answer.text());
    };
    possible(&ask(&side, first), "does not allow it");
    side.configure(json!({ "offline_levels": ["ONE_FACTOR"] }));
    possible(&ask(&side, first), "at this level");
    side.configure(both());
    possible(&ask(&side, first), "no secrets");
    assert!(
        before.scan(&OfflinePayload { question: vec![], signature: [1; 64] }, Micros(0)).is_err()
    );
    let phone = phone(&side);
    let body = json!({
        "registration_id": phone.registration_id(), "level": "ONE_FACTOR",
        "data_to_sign": URL_SAFE_NO_PAD.encode([b'x'; 1_025]),
    });
    let long: Operation = side.bank_posts("/v1/operations", &body).ok();
    possible(&ask(&side, long.operation_id), "too many for a QR code");
    assert!(side.seen_operation(long.operation_id).state == OperationState::Pending);
    let stranger = format!("/v1/operations/{}/offline", Id([7; 16]));
    assert_problem(&side.bank_posts(&stranger, &json!({})), 404, "not_found");
    world.stop_and_verify();
}

#[test]
fn a_question_outlives_a_restart_and_its_code_races_with_the_network_for_one_outcome() {
    let world = World::with(both());
    let phone = phone(&world.side());
    let operation = operation(&world.side(), &phone);
    let payload = question(&world.side(), operation);
    let world = world.restart();
    let side = world.side();
    assert_eq!(question(&side, operation), payload, "the same after a restart");
    let code = code(&phone, &payload, PIN);
    let options = AuthenticationOptions {
        operation: Some(operation),
        pin: Some(Zeroizing::new(PIN.to_owned())),
        ..AuthenticationOptions::default()
    };
    let answering = authenticate_start(&side.client, &phone, &options).unwrap();
    let body = answering.answer(&phone, &options, CHANCE).unwrap();
    let online = Request::post(&format!("/device/v1/operations/{operation}/finish"), &body);
    let offline = typed(&side, operation, code.as_str());
    let answers = std::thread::scope(|scope| {
        let requests = [&online, &offline, &online, &offline];
        let sent = requests.map(|request| scope.spawn(|| request.send(side.address)));
        sent.map(|one| one.join().unwrap())
    });
    let statuses = answers.each_ref().map(|answer| answer.status);
    assert!(statuses == [200, 409, 200, 409] || statuses == [409, 200, 409, 200], "{statuses:?}");
    let seen = side.seen_operation(operation);
    assert_eq!((seen.state, seen.attempts.len()), (OperationState::Completed, 1));
    assert_eq!(seen.attempts[0].offline, statuses[1] == 200);
    world.stop_and_verify();
}

#[test]
fn the_secrets_are_given_once_more_with_the_same_answer_and_stand_in_no_record() {
    let world = World::with(both());
    let side = world.side();
    let options = ActivationOptions::default();
    let activating = side.redemption().start(&side.client).unwrap();
    let offer = activating.offer(&world.server.url, &options, None, CHANCE).unwrap();
    let (_, finished) = offer.finish(&side.client).unwrap();
    let (_, again) = offer.finish(&side.client).unwrap();
    assert_eq!(again, finished);
    let secret = finished.offline.unwrap().secrets[0].secret.0;
    // At an application that does not allow it there are none.
    side.configure(json!({ "offline_levels": [] }));
    let redemption = side.redemption();
    let (_, without) = activate(&side.client, &redemption, &options, None, CHANCE).unwrap();
    assert!(without.accepted && without.offline.is_none());
    let World { server, home, .. } = world;
    server.stop();
    in_no_file(&home.path().join("data").join("log"), &secret);
    super::world::verified(&home.path().join("data"));
}

#[test]
fn a_changed_pin_brings_the_secret_that_goes_with_it_and_the_former_one_is_worth_nothing() {
    let world = World::with(both());
    let side = world.side();
    let before = phone(&side);
    let body = json!({
        "registration_id": before.registration_id(), "kind": "REPLACE_METHOD",
        "level": "TWO_FACTOR", "target_method": "DEVICE:PIN",
    });
    let change: Operation = side.bank_posts("/v1/operations", &body).ok();
    let options = AuthenticationOptions {
        operation: Some(change.operation_id),
        method: Some(Method::DevicePin),
        pin: Some(Zeroizing::new(PIN.to_owned())),
        ..AuthenticationOptions::default()
    };
    let answering = authenticate_start(&side.client, &before, &options).unwrap();
    let new_pin = Some(Zeroizing::new("1379".to_owned()));
    let key = NewKey::generate(&answering, &options, new_pin, CHANCE).unwrap();
    let changed = before.changed(&answering, key.as_ref(), CHANCE);
    let outcome =
        answering.finish_with(&side.client, &before, &options, key.as_ref(), CHANCE).unwrap();
    assert!(outcome.finished.accepted);
    let operation = operation(&side, &before);
    let payload = question(&side, operation);
    let asked = changed.scan(&payload, Micros(0)).unwrap();
    let none = changed.offline_code(&asked, None, Some("1379")).unwrap_err();
    assert!(matches!(none, api::device::DeviceError::NoKey(Method::DevicePin)), "{none}");
    let former = code(&before, &payload, PIN);
    let judged: FinishedOffline = typed(&side, operation, former.as_str()).send(side.address).ok();
    assert!(!judged.accepted);
    let after = changed.with_offline_secret(&outcome.finished, key.as_ref());
    let right = code(&after, &question(&side, operation), "1379");
    let judged: FinishedOffline = typed(&side, operation, right.as_str()).send(side.address).ok();
    assert!(judged.accepted);
    world.stop_and_verify();
}

fn in_no_file(folder: &Path, bytes: &[u8]) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read(&path).unwrap();
        assert!(!text.windows(bytes.len()).any(|part| part == bytes), "{}", path.display());
    }
}
