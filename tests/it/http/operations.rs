//! What a service provider can ask of a device, and what it gets back.

use api::device::{
    ActivationOptions, AuthenticationOptions, Misbehaviour, Repetition, authenticate,
    authenticate_start,
};
use api::wire::Octets;
use api::wire::provider::Operation;
use engine::reasons::{AuthenticationFailure, OperationKind, OperationState, RejectReason};
use engine::terms::Decision;
use serde_json::{Value, json};

use super::world::{CHANCE, Side, World};
use crate::client::{Request, assert_problem};

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
