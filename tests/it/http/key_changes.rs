//! One key of a live registration changes over HTTP, and the log proves it.

use api::device::{
    ActivationOptions, AuthenticationOptions, Hardware, HardwareFault, Misbehaviour, NewKey, Phone,
    authenticate_start,
};
use api::wire::provider::Operation;
use engine::reasons::{AuthenticationFailure, OperationState};
use engine::terms::{Decision, Method};
use serde_json::json;
use zeroize::Zeroizing;

use super::world::{CHANCE, Side, World};
use crate::client::assert_problem;

const PIN: &str = "2580";

fn secret(pin: &str) -> Zeroizing<String> {
    Zeroizing::new(pin.to_owned())
}

pub(super) fn by_pin(pin: &str) -> AuthenticationOptions {
    let (method, pin) = (Some(Method::DevicePin), Some(secret(pin)));
    AuthenticationOptions { method, pin, ..AuthenticationOptions::default() }
}

/// An operation that changes a key.
#[track_caller]
fn asked(side: &Side, phone: &Phone, kind: &str, target: Option<&str>) -> Operation {
    let mut body = json!({
        "registration_id": phone.registration_id(), "kind": kind, "level": "TWO_FACTOR",
    });
    if let Some(method) = target {
        body["target_method"] = json!(method);
    }
    side.bank_posts("/v1/operations", &body).ok()
}

/// The phone after it approved such an operation; as it was if that failed.
#[track_caller]
pub(super) fn changed(
    side: &Side,
    phone: &Phone,
    (kind, target): (&str, Option<&str>),
    options: &AuthenticationOptions,
    new_pin: Option<&str>,
) -> (Phone, Operation) {
    let operation = asked(side, phone, kind, target).operation_id;
    let options = AuthenticationOptions { operation: Some(operation), ..options.clone() };
    let answering = authenticate_start(&side.client, phone, &options).unwrap();
    let new_key = NewKey::generate(&answering, &options, new_pin.map(secret), CHANCE).unwrap();
    let after = phone.changed(&answering, new_key.as_ref(), CHANCE);
    let outcome =
        answering.finish_with(&side.client, phone, &options, new_key.as_ref(), CHANCE).unwrap();
    let phone = if outcome.finished.accepted { after } else { phone.clone() };
    (phone, side.seen_operation(operation))
}

pub(super) fn with_pin(hardware: Hardware) -> ActivationOptions {
    ActivationOptions { pin: Some(secret(PIN)), hardware, ..ActivationOptions::default() }
}

#[track_caller]
fn completed(operation: &Operation) {
    assert_eq!(operation.state, OperationState::Completed, "{:?}", operation.attempts);
}

#[test]
fn a_hardware_key_is_added_rotated_and_replaced_and_every_signature_is_in_the_log() {
    let world = World::start();
    let side = world.side();
    let phone = side.phone(&with_pin(Hardware::GenerationFailed));
    let id = phone.registration_id();
    assert!(side.seen_registration(id).hardware_key.is_none());
    let (phone, operation) = changed(&side, &phone, ("ADD_HW_KEY", None), &by_pin(PIN), None);
    completed(&operation);
    let added = side.seen_registration(id).hardware_key.unwrap().key_id;
    let (phone, operation) = changed(&side, &phone, ("ROTATE_HW_KEY", None), &by_pin(PIN), None);
    completed(&operation);
    let rotated = side.seen_registration(id).hardware_key.unwrap().key_id;
    assert_ne!(rotated, added);
    assert!(side.log_in(&phone, &by_pin(PIN)).finished.accepted);

    let lost = Misbehaviour { hardware: Some(HardwareFault::KeyLost), ..Misbehaviour::default() };
    let lost = AuthenticationOptions { misbehaviour: lost, ..by_pin(PIN) };
    let (phone, operation) = changed(&side, &phone, ("ROTATE_HW_KEY", None), &lost, None);
    let failure = operation.attempts[0].failure;
    assert_eq!(failure, Some(AuthenticationFailure::HwKeyCheckFailed));
    assert_eq!(side.seen_registration(id).hardware_key.unwrap().key_id, rotated);
    let body = json!({ "registration_id": id, "kind": "REPLACE_HW_KEY", "level": "TWO_FACTOR" });
    let refused = side.bank_posts("/v1/operations", &body);
    assert_problem(&refused, 409, "key_change_impossible");
    side.configure(json!({ "allow_unproven_key_replacement": true }));
    let (phone, operation) = changed(&side, &phone, ("REPLACE_HW_KEY", None), &lost, None);
    completed(&operation);
    let seen = side.seen_registration(id);
    assert!(seen.unproven_device);
    assert_ne!(seen.hardware_key.unwrap().key_id, rotated);
    assert!(side.log_in(&phone, &by_pin(PIN)).finished.accepted);
    world.stop_and_verify();
}

#[test]
fn a_pin_is_changed_and_a_method_added_and_removed() {
    let world = World::start();
    let side = world.side();
    let phone = side.phone(&with_pin(Hardware::Working));
    let replace = ("REPLACE_METHOD", Some("DEVICE:PIN"));
    let (new, operation) = changed(&side, &phone, replace, &by_pin(PIN), Some("1379"));
    completed(&operation);
    assert!(!side.log_in(&new, &by_pin(PIN)).finished.accepted, "the old PIN is worth nothing");
    assert!(!side.log_in(&phone, &by_pin(PIN)).finished.accepted, "nor is the old key");
    assert!(side.log_in(&new, &by_pin("1379")).finished.accepted);
    let add = ("ADD_METHOD", Some("DEVICE:BIOMETRIC"));
    let (with, operation) = changed(&side, &new, add, &by_pin("1379"), None);
    completed(&operation);
    let biometric = AuthenticationOptions {
        method: Some(Method::DeviceBiometric),
        ..AuthenticationOptions::default()
    };
    assert!(side.log_in(&with, &biometric).finished.accepted);
    let remove = ("REMOVE_METHOD", Some("DEVICE:PIN"));
    let no = AuthenticationOptions { decision: Decision::Reject, ..biometric.clone() };
    let (_, operation) = changed(&side, &with, remove, &no, None);
    assert_eq!(operation.state, OperationState::Rejected);
    let (_, operation) = changed(&side, &with, remove, &biometric, None);
    completed(&operation);
    let methods = side.seen_registration(phone.registration_id()).software_keys;
    let methods: Vec<_> = methods.iter().map(|key| key.method).collect();
    assert_eq!(methods, [Some(Method::Device), Some(Method::DeviceBiometric)]);
    world.stop_and_verify();
}
