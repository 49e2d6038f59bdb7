//! Every strategy against every kind of phone, over HTTP: what is accepted, and
//! what the service provider sees of the hardware key.

use api::device::HardwareFault::{
    self, BadSignature, KeyLost, KeyUnavailable, Malformed, NoSignature, SigningFailed,
};
use api::device::{ActivationOptions, AuthenticationOptions, Hardware, Phone, Redemption};
use api::wire::provider::{Activation, Risk};
use engine::reasons::{ActivationFailure, AuthenticationFailure, OperationState};
use engine::terms::HwKeyClientStatus as Said;
use engine::terms::HwKeyServerResult as Found;
use serde_json::{Value, json};

use super::world::{CHANCE, Side, World};
use crate::client::Request;

/// The four strategies, in the order of the columns below.
const STRATEGIES: [&str; 4] = ["SUPPORTED", "RISK_PARAMS", "REQUIRED_IF_SUPPORTED", "REQUIRED"];
const BOTH: [&str; 2] = ["hw_key_client_status", "hw_key_server_result"];

fn world() -> World {
    World::with(json!({ "enabled_risk_data": BOTH, "failures_allowed": 20 }))
}

/// A log-in with a fault of the hardware key, or none.
fn attempt(side: &Side, phone: &Phone, fault: Option<HardwareFault>) -> (bool, Risk) {
    let mut options = AuthenticationOptions::default();
    options.misbehaviour.hardware = fault;
    let outcome = side.log_in(phone, &options);
    let seen = side.seen_operation(outcome.operation_id);
    assert_eq!(seen.attempts.len(), 1);
    let failure = seen.attempts[0].failure;
    assert_eq!(failure.is_none(), outcome.finished.accepted);
    let must_reactivate = failure == Some(AuthenticationFailure::HwKeyRequired);
    assert_eq!(outcome.finished.must_reactivate, must_reactivate);
    let expected = match failure {
        None => OperationState::Completed,
        Some(_) if must_reactivate => OperationState::Failed,
        Some(_) => OperationState::Pending,
    };
    assert_eq!((seen.state, outcome.finished.state), (expected, expected));
    if expected == OperationState::Pending {
        let cancel = format!("/v1/operations/{}/cancel", outcome.operation_id);
        side.bank_posts(&cancel, &json!({})).ok::<Value>();
    }
    (outcome.finished.accepted, seen.risk)
}

#[test]
fn at_authentication_every_strategy_does_what_its_column_says() {
    let world = world();
    let side = world.side();
    let with = |hardware| side.phone(&ActivationOptions { hardware, ..Default::default() });
    let (present, cannot, could) =
        (with(Hardware::Working), with(Hardware::Unsupported), with(Hardware::GenerationFailed));
    let pass = [true; 4];
    let bad = [false, true, false, false];
    let rows = [
        (&present, None, Said::Signed, Found::Valid, pass),
        (&present, Some(BadSignature), Said::Signed, Found::Invalid, bad),
        (&present, Some(Malformed), Said::Signed, Found::Malformed, bad),
        (&present, Some(NoSignature), Said::Signed, Found::SignatureMissing, bad),
        (&present, Some(KeyLost), Said::KeyLost, Found::SignatureMissing, bad),
        (&present, Some(KeyUnavailable), Said::KeyUnavailable, Found::SignatureMissing, bad),
        (&present, Some(SigningFailed), Said::SigningFailed, Found::SignatureMissing, bad),
        (&cannot, None, Said::NotSupported, Found::NoKeyRegistered, [true, true, true, false]),
        (&could, None, Said::NotActivated, Found::NoKeyRegistered, [true, true, false, false]),
    ];
    for (column, strategy) in STRATEGIES.into_iter().enumerate() {
        side.configure(json!({ "hw_key_validation_strategy": strategy }));
        for (phone, fault, said, found, accepted) in rows {
            let (passed, risk) = attempt(&side, phone, fault);
            assert_eq!(passed, accepted[column], "{strategy} {fault:?} {found}");
            assert_eq!(risk.hw_key_client_status, Some(said), "{strategy} {fault:?}");
            assert_eq!(risk.hw_key_server_result, Some(found), "{strategy} {fault:?}");
        }
    }
    // What is not enabled is not told.
    side.configure(
        json!({ "enabled_risk_data": [BOTH[1]], "hw_key_validation_strategy": "SUPPORTED" }),
    );
    let (_, risk) = attempt(&side, &present, None);
    assert_eq!((risk.hw_key_client_status, risk.hw_key_server_result), (None, Some(Found::Valid)));
    side.configure(json!({ "enabled_risk_data": [] }));
    assert_eq!(attempt(&side, &present, None).1, Risk::default());
    world.stop_and_verify();
}

/// One activation: whether it was accepted, whether the hardware key was stored,
/// and what the service provider sees.
fn activate(side: &Side, options: &ActivationOptions, version: &str) -> (bool, Activation) {
    let requested = side.request_activation();
    let application = side.callers.application;
    let redemption =
        Redemption::by_code(application, &requested.code, Some(version), CHANCE).unwrap();
    let (_, finished) =
        api::device::activate(&side.client, &redemption, options, None, CHANCE).unwrap();
    let path = format!("/v1/activations/{}", requested.activation.activation_id);
    let seen: Activation = side.bank_gets(&path).ok();
    assert_eq!(seen.hardware_key_stored, finished.hardware_key_stored);
    let registration = side.seen_registration(seen.registration_id);
    assert_eq!(registration.hardware_key.is_some(), seen.hardware_key_stored);
    (finished.accepted, seen)
}

#[test]
fn at_activation_every_strategy_does_what_its_column_says() {
    let world = world();
    let side = world.side();
    let hardware = |hardware| ActivationOptions { hardware, ..Default::default() };
    let faulty = |fault| ActivationOptions { hardware_fault: Some(fault), ..Default::default() };
    let none = Found::NoKeyRegistered;
    let unproven = (Found::KeyUnproven, [false, true, false, false]);
    let rows = [
        (hardware(Hardware::Working), "3.8", Some(Said::Signed), (Found::Valid, [true; 4])),
        (faulty(BadSignature), "3.8", Some(Said::Signed), unproven),
        (faulty(Malformed), "3.8", Some(Said::Signed), unproven),
        (faulty(NoSignature), "3.8", Some(Said::Signed), unproven),
        (
            hardware(Hardware::Unsupported),
            "3.8",
            Some(Said::NotSupported),
            (none, [true, true, true, false]),
        ),
        (
            hardware(Hardware::GenerationFailed),
            "3.8",
            Some(Said::KeyGenerationFailed),
            (none, [true, true, false, false]),
        ),
        // An old client counts as a device without hardware keys, whatever it says.
        (hardware(Hardware::Working), "3.7.99", None, (none, [true, true, true, false])),
    ];
    for (column, strategy) in STRATEGIES.into_iter().enumerate() {
        side.configure(json!({ "hw_key_validation_strategy": strategy }));
        for (options, version, said, (found, accepted)) in &rows {
            let (passed, seen) = activate(&side, options, version);
            let place = format!("{strategy} {version} {options:?}");
            assert_eq!(passed, accepted[column], "{place}");
            assert_eq!(seen.hardware_key_stored, passed && *found == Found::Valid, "{place}");
            assert_eq!(seen.risk.hw_key_server_result, Some(*found), "{place}");
            let expected = Some(ActivationFailure::HwKeyCheckFailed).filter(|_| !passed);
            assert_eq!(seen.failure, expected, "{place}");
            if said.is_some() {
                assert_eq!(seen.risk.hw_key_client_status, *said, "{place}");
            }
        }
    }
    world.stop_and_verify();
}

#[test]
fn a_device_that_says_nothing_of_its_key_is_reported_as_saying_nothing() {
    let world = world();
    let side = world.side();
    let phone = side.phone(&ActivationOptions {
        hardware: Hardware::GenerationFailed,
        ..ActivationOptions::default()
    });
    let operation = side.operation(&phone).operation_id;
    let options = AuthenticationOptions::default();
    let started = api::device::authenticate_start(&side.client, &phone, &options).unwrap();
    let mut body = serde_json::to_value(started.answer(&phone, &options, CHANCE).unwrap()).unwrap();
    body.as_object_mut().unwrap().remove("hw_key_client_status");
    let path = format!("/device/v1/operations/{operation}/finish");
    // What is signed says NOT_ACTIVATED, so the signature does not fit what is declared.
    assert_eq!(world.send(&Request::post(&path, &body)).value()["accepted"], false);
    let seen = side.seen_operation(operation);
    assert_eq!(seen.risk.hw_key_client_status, Some(Said::NotReported));
    assert_eq!(seen.risk.hw_key_server_result, Some(Found::NoKeyRegistered));
    let failure = seen.attempts[0].failure;
    assert_eq!(failure, Some(AuthenticationFailure::SoftwareSignatureInvalid));
    assert_eq!(side.seen_registration(phone.registration_id()).failures, 0, "noise does not count");
}
