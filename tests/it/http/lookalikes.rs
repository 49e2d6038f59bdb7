//! To whoever lacks the device token, everything looks the same.

use api::device::{ActivationOptions, AuthenticationOptions, HardwareFault, Misbehaviour, Phone};
use engine::reasons::RegistrationState;
use serde_json::{Value, json};

use super::world::{CHANCE, Side, World};
use crate::client::{Answer, Request, assert_problem, said};

const NO_ID: &str = "018bcfe5-6800-7fff-bfff-0123456789ab";
/// 32 bytes that are nobody's token.
const NO_TOKEN: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

fn options(hardware: HardwareFault) -> AuthenticationOptions {
    let misbehaviour = Misbehaviour { hardware: Some(hardware), ..Misbehaviour::default() };
    AuthenticationOptions { misbehaviour, ..AuthenticationOptions::default() }
}

/// Locks the registration of a phone by its failures.
fn lock(side: &Side, phone: &Phone) {
    for _ in 0..3 {
        side.log_in(phone, &options(HardwareFault::BadSignature));
    }
    let state = side.seen_registration(phone.registration_id()).state;
    assert_eq!(state, RegistrationState::Locked);
}

/// A finish of the phone's own making for an operation that waits, as JSON.
fn finish(side: &Side, phone: &Phone) -> (String, Value) {
    let operation = side.operation(phone).operation_id;
    let options = AuthenticationOptions { operation: Some(operation), ..Default::default() };
    let started = api::device::authenticate_start(&side.client, phone, &options).unwrap();
    let body = started.answer(phone, &options, CHANCE).unwrap();
    let path = format!("/device/v1/operations/{operation}/finish");
    (path, serde_json::to_value(body).unwrap())
}

#[test]
fn without_the_device_token_unknown_active_locked_and_deactivated_are_one_answer() {
    let world = World::start();
    let side = world.side();
    let [active, locked, deactivated] = [(); 3].map(|()| side.phone(&ActivationOptions::default()));
    let finishes = [&active, &locked, &deactivated].map(|phone| finish(&side, phone));
    lock(&side, &locked);
    let gone = deactivated.registration_id();
    side.bank_posts(&format!("/v1/registrations/{gone}/deactivate"), &json!({ "reason": "OTHER" }))
        .ok::<Value>();

    let before = side.status();
    let start = |id: &str, token: &str| {
        let body = json!({
            "registration_id": id, "device_token": token, "client_version": "3.8.0",
        });
        world.send(&Request::post("/device/v1/operations/start", &body))
    };
    let unknown = start(NO_ID, NO_TOKEN);
    assert_problem(&unknown, 404, "operation_not_found");
    let mut answers: Vec<Answer> = [&active, &locked, &deactivated]
        .map(|phone| start(&phone.registration_id().to_string(), NO_TOKEN))
        .into();
    for (path, body) in &finishes {
        for (member, value) in [("device_token", NO_TOKEN), ("registration_id", NO_ID)] {
            let mut body = body.clone();
            body[member] = json!(value);
            answers.push(world.send(&Request::post(path, &body)));
        }
        // The right device, but for an operation that does not exist.
        let nowhere = format!("/device/v1/operations/{NO_ID}/finish");
        answers.push(world.send(&Request::post(&nowhere, body)));
    }
    // The right token of one, the operation of another.
    answers.push(world.send(&Request::post(&finishes[1].0, &finishes[0].1)));
    assert_eq!(answers.len(), 13);
    for answer in &answers {
        assert_eq!(said(answer), said(&unknown));
    }
    let after = side.status();
    assert_eq!(after.records, before.records, "nothing was appended");
    assert_eq!(after.signatures_checked, before.signatures_checked, "nothing was counted");
    assert_eq!(after.commands_refused, before.commands_refused);
    let registration = side.seen_registration(active.registration_id());
    assert_eq!((registration.failures, registration.pending_operations.len()), (0, 1));

    // With the token the owner learns that it is locked, and its answer still counts.
    let answer = world.send(&Request::post(&finishes[1].0, &finishes[1].1));
    assert_problem(&answer, 403, "registration_locked");
    assert_eq!(
        world.send(&Request::post(&finishes[0].0, &finishes[0].1)).value()["accepted"],
        true
    );
    // Deactivated is over even for the owner: no operation waits.
    let answer = world.send(&Request::post(&finishes[2].0, &finishes[2].1));
    assert_problem(&answer, 409, "operation_state");

    let report = world.stop_and_verify();
    let counted = report.events.get("RefusalsCounted").copied().unwrap_or(0);
    assert_eq!(counted, 1, "noise is one event per window: {report}");
}

#[test]
fn a_wrong_code_looks_the_same_whatever_is_wrong_with_it() {
    let world = World::with(json!({ "activation_failure_budget_per_source": 1_000 }));
    let side = world.side();
    let start = |application: &str, code: &str, nonce: &str| {
        let body = json!({
            "application_id": application, "code": code, "nonce": nonce, "client_version": "3.8.0",
        });
        world.send(&Request::post("/device/v1/activations/start", &body))
    };
    let app = world.callers.application.to_string();
    let (redeemed, cancelled) = (side.request_activation(), side.request_activation());
    assert_eq!(start(&app, &redeemed.code, NO_TOKEN).status, 200);
    let path = format!("/v1/activations/{}/cancel", cancelled.activation.activation_id);
    side.bank_posts(&path, &json!({})).ok::<Value>();

    let before = side.status().records;
    let unknown = start(&app, "0000000000", NO_TOKEN);
    assert_problem(&unknown, 404, "activation_not_found");
    let other_nonce = NO_TOKEN.replacen('A', "B", 1);
    for answer in [
        start(&app, &redeemed.code, &other_nonce),
        start(&app, &cancelled.code, NO_TOKEN),
        start(NO_ID, &redeemed.code, NO_TOKEN),
        start(&app, "", NO_TOKEN),
        start(&app, "not a code at all", NO_TOKEN),
    ] {
        assert_eq!(said(&answer), said(&unknown));
    }
    assert_eq!(side.status().records, before, "nothing was appended");
}
