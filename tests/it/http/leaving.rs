//! A phone ends its own registration over HTTP.

use api::device::{
    ActivationOptions, AuthenticationOptions, DeviceError, Leaving, Misbehaviour, authenticate,
};
use engine::reasons::{DeactivationReason, OperationState, RegistrationState};
use serde_json::json;

use super::world::{CHANCE, World};
use crate::client::{Request, assert_problem};

fn code(error: &DeviceError) -> (u16, String) {
    match error {
        DeviceError::Client(error) => {
            let refusal = error.refusal().unwrap();
            (refusal.status, refusal.code.clone())
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_phone_leaves_and_a_lost_answer_is_got_again_also_after_a_restart() {
    let world = World::start();
    let phone = world.side().phone(&ActivationOptions::default());
    let options = AuthenticationOptions::default();
    let waits = world.side().operation(&phone).operation_id;
    // Begun once, and gone on with: a phone that dies in between begins nothing anew.
    let first = Leaving::start(&world.side().client, &phone, &options, CHANCE).unwrap();
    let leaving = Leaving::start(&world.side().client, &phone, &options, CHANCE).unwrap();
    assert_eq!(first.operation(), leaving.operation());
    let world = world.restart();
    let finished = leaving.finish(&world.side().client).unwrap();
    assert!(finished.accepted && finished.state == OperationState::Completed);
    let records = world.side().status().records;
    assert_eq!(leaving.finish(&world.side().client).unwrap(), finished);
    assert_eq!(world.side().status().records, records, "a repeat leaves no record");
    let world = world.restart();
    let side = world.side();
    assert_eq!(leaving.finish(&side.client).unwrap(), finished);

    let seen = side.seen_registration(phone.registration_id());
    assert_eq!(seen.state, RegistrationState::Deactivated);
    assert_eq!(seen.deactivation_reason, Some(DeactivationReason::ByDevice));
    assert_eq!(side.seen_operation(waits).state, OperationState::Cancelled);
    assert!(side.seen_operation(leaving.operation()).begun_by_device);
    // What is over is unknown to its own phone as to any other.
    let gone = authenticate(&side.client, &phone, &options, CHANCE).unwrap_err();
    assert_eq!(code(&gone), (404, "operation_not_found".into()));
    let again = Leaving::start(&side.client, &phone, &options, CHANCE).unwrap_err();
    assert_eq!(code(&again), (404, "operation_not_found".into()));
    world.stop_and_verify();
}

#[test]
fn without_the_token_nobody_begins_and_a_service_provider_cannot_ask() {
    let world = World::start();
    let side = world.side();
    let phone = side.phone(&ActivationOptions::default());
    let records = side.status().records;
    let misbehaviour = Misbehaviour { wrong_device_token: true, ..Misbehaviour::default() };
    let options = AuthenticationOptions { misbehaviour, ..AuthenticationOptions::default() };
    let refused = Leaving::start(&side.client, &phone, &options, CHANCE).unwrap_err();
    assert_eq!(code(&refused), (404, "operation_not_found".into()));
    let id = phone.registration_id();
    let body = json!({ "registration_id": id, "kind": "DEACTIVATION", "level": "ONE_FACTOR" });
    let asked = world.send(&Request::post("/v1/operations", &body).by(&world.callers.bank));
    assert_problem(&asked, 422, "invalid_request");
    assert_eq!(asked.pointers()[0].0, "/kind");
    assert_eq!(side.status().records, records);
    let lock = format!("/v1/registrations/{id}/lock");
    side.bank_posts(&lock, &json!({ "reason": "OTHER" })).ok::<serde_json::Value>();
    let options = AuthenticationOptions::default();
    let locked = Leaving::start(&side.client, &phone, &options, CHANCE).unwrap_err();
    assert_eq!(code(&locked), (403, "registration_locked".into()));
    world.stop_and_verify();
}
