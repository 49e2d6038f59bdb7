//! What service providers and devices do in a life, and what of it is recorded.

use std::ops::ControlFlow;
use std::path::Path;

use api::device::{
    ActivationOptions, AuthenticationOptions, HardwareFault, Phone, Redemption, Repetition,
    SoftwareFault, activate, authenticate, authenticate_start,
};
use api::wire::Octets;
use api::wire::provider::{Activation, Operation, Registration, RequestedActivation};
use engine::events::{Event, VerificationV1};
use engine::reasons::{
    ActivationState, AuthenticationFailure, CancelReason, LockReason, OperationState,
    RegistrationState,
};
use engine::signature::Verdict;
use engine::terms::{Decision, Method};
use replay::inspect::Filter;
use replay::report::Level;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::world::{CHANCE, Side, World};
use crate::client::{Request, assert_problem};

/// Long enough to be found nowhere by accident.
const PIN: &str = "258046913057";

fn with_pin() -> ActivationOptions {
    ActivationOptions { pin: Some(Zeroizing::new(PIN.to_owned())), ..Default::default() }
}

fn pin(wrong_pin: bool) -> AuthenticationOptions {
    let mut options = AuthenticationOptions {
        method: Some(Method::DevicePin),
        pin: Some(Zeroizing::new(PIN.to_owned())),
        ..AuthenticationOptions::default()
    };
    options.misbehaviour.wrong_pin = wrong_pin;
    options
}

fn bad_hardware() -> AuthenticationOptions {
    let mut options = AuthenticationOptions::default();
    options.misbehaviour.hardware = Some(HardwareFault::BadSignature);
    options
}

fn change(side: &Side, phone: &Phone, what: &str, body: &Value) -> Registration {
    let path = format!("/v1/registrations/{}/{what}", phone.registration_id());
    side.bank_posts(&path, body).ok()
}

#[test]
fn wrong_pins_lock_a_registration_and_its_service_provider_unlocks_it() {
    let world = World::start();
    let side = world.side();
    let phone = side.phone(&with_pin());
    let operation = side.operation(&phone).operation_id;
    for (remaining, last_attempt, locked) in [(2, false, false), (1, true, false), (0, false, true)]
    {
        let outcome = authenticate(&side.client, &phone, &pin(true), CHANCE).unwrap();
        assert_eq!(outcome.operation_id, operation, "it stays open while attempts remain");
        let finished = outcome.finished;
        assert!(!finished.accepted);
        assert_eq!(
            (finished.remaining_attempts, finished.last_attempt, finished.locked),
            (remaining, last_attempt, locked)
        );
        assert_eq!(side.seen_operation(operation).remaining_attempts, remaining);
    }
    let seen = side.seen_operation(operation);
    assert_eq!(seen.state, OperationState::Failed);
    assert_eq!(seen.registration_state, RegistrationState::Locked);
    let failures: Vec<_> = seen.attempts.iter().map(|attempt| attempt.failure.unwrap()).collect();
    assert_eq!(failures, [AuthenticationFailure::SoftwareSignatureInvalid; 3]);
    let locked = side.seen_registration(phone.registration_id());
    assert_eq!(locked.lock_reason, Some(LockReason::TooManyFailures));
    let body = json!({ "registration_id": phone.registration_id(), "level": "ONE_FACTOR" });
    assert_problem(&side.bank_posts("/v1/operations", &body), 409, "registration_state");

    let unlocked = change(&side, &phone, "unlock", &json!({}));
    assert_eq!((unlocked.state, unlocked.failures), (RegistrationState::Active, 0));
    // A thief who has the phone gains nothing by logging in with it alone.
    assert!(!side.log_in(&phone, &pin(true)).finished.accepted);
    assert!(side.log_in(&phone, &AuthenticationOptions::default()).finished.accepted);
    assert_eq!(side.seen_registration(phone.registration_id()).failures, 1);
    assert!(side.log_in(&phone, &pin(false)).finished.accepted);
    assert_eq!(side.seen_registration(phone.registration_id()).failures, 0);
    world.stop_and_verify();
}

#[test]
fn a_service_provider_locks_deactivates_and_cancels() {
    let world = World::start();
    let side = world.side();
    let phone = side.phone(&ActivationOptions::default());
    let waits = side.operation(&phone).operation_id;
    let locked = change(&side, &phone, "lock", &json!({ "reason": "DEVICE_LOST" }));
    assert_eq!(locked.state, RegistrationState::Locked);
    assert_eq!(locked.lock_reason, Some(LockReason::DeviceLost));
    assert_eq!(locked.pending_operations, [waits]);
    let refused = authenticate_start(&side.client, &phone, &AuthenticationOptions::default());
    assert!(refused.unwrap_err().to_string().contains("registration_locked"));
    change(&side, &phone, "unlock", &json!({}));

    let cancel = format!("/v1/operations/{waits}/cancel");
    let cancelled: Operation = side.bank_posts(&cancel, &json!({})).ok();
    assert_eq!(cancelled.state, OperationState::Cancelled);
    assert!(cancelled.ended_at.is_some());

    let last = side.operation(&phone).operation_id;
    let over = change(&side, &phone, "deactivate", &json!({ "reason": "USER_REQUEST" }));
    assert_eq!((over.state, over.pending_operations.len()), (RegistrationState::Deactivated, 0));
    let seen = side.seen_operation(last);
    assert_eq!(seen.state, OperationState::Cancelled);
    assert_eq!(seen.cancel_reason, Some(CancelReason::RegistrationDeactivated));
    for (what, body) in
        [("lock", json!({ "reason": "OTHER" })), ("unlock", json!({})), ("activations", json!({}))]
    {
        let path = format!("/v1/registrations/{}/{what}", phone.registration_id());
        assert_problem(&side.bank_posts(&path, &body), 409, "registration_state");
    }
    world.stop_and_verify();
}

#[test]
fn a_phone_is_activated_again_by_its_old_keys_and_another_one_is_not() {
    let world = World::start();
    let side = world.side();
    let phone = side.phone(&ActivationOptions::default());
    let path = format!("/v1/registrations/{}/activations", phone.registration_id());
    let again = || {
        let requested: RequestedActivation = side.bank_posts(&path, &json!({})).ok();
        let payload = requested.qr_payload.parse().unwrap();
        (requested, Redemption::by_qr(&payload, None, CHANCE).unwrap())
    };
    let options = ActivationOptions::default();
    let (requested, redemption) = again();
    let (stranger, finished) = activate(&side.client, &redemption, &options, None, CHANCE).unwrap();
    assert!(stranger.is_none() && !finished.accepted);
    let seen = format!("/v1/activations/{}", requested.activation.activation_id);
    assert_eq!(side.bank_gets(&seen).ok::<Activation>().state, ActivationState::Failed);
    assert!(side.log_in(&phone, &AuthenticationOptions::default()).finished.accepted);

    let (_, redemption) = again();
    let renewed = activate(&side.client, &redemption, &options, Some(&phone), CHANCE).unwrap().0;
    let renewed = renewed.unwrap();
    assert_eq!(renewed.registration_id(), phone.registration_id());
    side.operation(&renewed);
    let old = authenticate(&side.client, &phone, &AuthenticationOptions::default(), CHANCE);
    assert!(old.unwrap_err().to_string().contains("operation_not_found"), "its token is no more");
    let new = authenticate(&side.client, &renewed, &AuthenticationOptions::default(), CHANCE);
    assert!(new.unwrap().finished.accepted);
    world.stop_and_verify();
}

#[test]
fn what_is_shown_and_signed_travels_unchanged_and_a_rejection_is_no_failure() {
    let world = World::start();
    let side = world.side();
    let phone = side.phone(&with_pin());
    let shown = "Pay 5 € to Anna\u{1f600}\r\n{ \"b\":1, \"a\":2 }".as_bytes();
    let body = json!({
        "registration_id": phone.registration_id(), "level": "TWO_FACTOR",
        "context": { "type": "text/plain;charset=utf-8", "octets": Octets(shown.to_vec()) },
        "data_to_sign": Octets(vec![0, 255, 10]),
    });
    let created: Operation = side.bank_posts("/v1/operations", &body).ok();
    assert_eq!(created.methods, [Method::DevicePin, Method::DeviceBiometric]);
    let options = AuthenticationOptions {
        decision: Decision::Reject,
        method: Some(Method::Device),
        client_data: Some(b"no, thanks".to_vec()),
        ..AuthenticationOptions::default()
    };
    let answering = authenticate_start(&side.client, &phone, &options).unwrap();
    let started = answering.started();
    assert_eq!(started.context.as_ref().unwrap().octets.0, shown);
    assert_eq!(started.data_to_sign.as_ref().unwrap().octets.0, [0, 255, 10]);
    let outcome = answering.finish(&side.client, &phone, &options, CHANCE).unwrap();
    assert!(outcome.finished.accepted, "saying no needs no second factor");
    let seen = side.seen_operation(created.operation_id);
    assert_eq!(seen.state, OperationState::Rejected);
    assert_eq!(seen.attempts[0].decision, Decision::Reject);
    assert_eq!(seen.client_data.unwrap().0, b"no, thanks");
    world.stop_and_verify();
}

#[test]
fn a_method_that_may_not_answer_is_refused_and_the_challenge_stays() {
    let world = World::start();
    let side = world.side();
    let phone = side.phone(&with_pin());
    let body = json!({
        "registration_id": phone.registration_id(), "level": "TWO_FACTOR", "methods": ["DEVICE:PIN"],
    });
    let operation: Operation = side.bank_posts("/v1/operations", &body).ok();
    let path = format!("/device/v1/operations/{}/finish", operation.operation_id);
    let device = AuthenticationOptions { method: Some(Method::Device), ..Default::default() };
    let answering = authenticate_start(&side.client, &phone, &device).unwrap();
    let records = side.status().records;
    let one_factor = answering.answer(&phone, &device, CHANCE).unwrap();
    let refused = world.send(&Request::post(&path, &one_factor));
    assert_problem(&refused, 409, "method_not_offered");
    let mut unactivated = serde_json::to_value(&one_factor).unwrap();
    unactivated["method"] = json!("DEVICE:BIOMETRIC");
    let refused = world.send(&Request::post(&path, &unactivated));
    assert_problem(&refused, 409, "method_not_offered");
    assert_eq!(side.status().records, records);
    let two_factors = answering.answer(&phone, &pin(false), CHANCE).unwrap();
    assert_eq!(world.send(&Request::post(&path, &two_factors)).value()["accepted"], true);
    world.stop_and_verify();
}

#[test]
fn an_activation_that_is_over_cannot_be_cancelled_or_finished() {
    let world = World::start();
    let side = world.side();
    let requested = side.request_activation();
    let id = requested.activation.activation_id;
    let cancel = format!("/v1/activations/{id}/cancel");
    let application = world.callers.application;
    let redemption = Redemption::by_code(application, &requested.code, None, CHANCE).unwrap();
    let activating = redemption.start(&side.client).unwrap();
    let options = ActivationOptions::default();
    let offer = activating.offer(&world.server.url, &options, None, CHANCE).unwrap();
    let cancelled: Activation = side.bank_posts(&cancel, &json!({})).ok();
    assert_eq!(cancelled.state, ActivationState::Cancelled);
    assert_eq!(cancelled.cancel_reason, Some(CancelReason::Requested));
    let finish = Request::post(&format!("/device/v1/activations/{id}/finish"), offer.body());
    assert_problem(&world.send(&finish), 404, "activation_not_found");
    let records = side.status().records;
    side.bank_posts(&cancel, &json!({})).ok::<Activation>();
    assert_eq!(side.status().records, records, "cancelled it is already");

    let done = side.request_activation();
    let redemption = Redemption::by_code(application, &done.code, None, CHANCE).unwrap();
    activate(&side.client, &redemption, &options, None, CHANCE).unwrap();
    let cancel = format!("/v1/activations/{}/cancel", done.activation.activation_id);
    let refused = side.bank_posts(&cancel, &json!({}));
    assert_problem(&refused, 409, "activation_state");
    assert_eq!(refused.value()["detail"], "it is COMPLETED");
    world.stop_and_verify();
}

#[test]
fn a_registration_has_sixteen_pending_operations_at_most() {
    let world = World::start();
    let side = world.side();
    let phone = side.phone(&ActivationOptions::default());
    let body = json!({ "registration_id": phone.registration_id(), "level": "ONE_FACTOR" });
    let two = json!({ "registration_id": phone.registration_id(), "level": "TWO_FACTOR" });
    assert_problem(&side.bank_posts("/v1/operations", &two), 409, "no_method_fits");
    (0..16).for_each(|_| drop(side.operation(&phone)));
    assert_problem(&side.bank_posts("/v1/operations", &body), 409, "too_many_operations");
    authenticate(&side.client, &phone, &AuthenticationOptions::default(), CHANCE).unwrap();
    side.operation(&phone);
}

#[test]
fn clients_that_are_not_served_are_told_so_and_their_challenge_stays() {
    let world = World::start();
    let side = world.side();
    let phone = side.phone(&ActivationOptions::default());
    side.configure(json!({ "min_client_version": "3.8", "blocked_client_versions": ["3.9"] }));
    let operation = side.operation(&phone).operation_id;
    for version in ["3.7.9", "3.9.0"] {
        let options = AuthenticationOptions {
            client_version: Some(version.to_owned()),
            ..AuthenticationOptions::default()
        };
        let refused = authenticate(&side.client, &phone, &options, CHANCE).unwrap_err();
        assert!(refused.to_string().contains("client_not_served (403)"), "{refused}");
    }
    assert_eq!(side.seen_operation(operation).state, OperationState::Pending);
    let outcome = authenticate(&side.client, &phone, &AuthenticationOptions::default(), CHANCE);
    assert!(outcome.unwrap().finished.accepted);
}

/// Every verification entry in the log of a stopped server.
fn entries(data: &Path) -> Vec<VerificationV1> {
    let mut found = Vec::new();
    let mut keep = |row: replay::inspect::Row| {
        match row.event.unwrap() {
            Event::ActivationJudged(judged) => found.extend(judged.verifications),
            Event::AuthenticationJudged(judged) => found.extend(judged.verifications),
            _ => {}
        }
        ControlFlow::Continue(())
    };
    replay::inspect(data, &Filter::default(), &mut keep).unwrap();
    found
}

/// A finish on a challenge that is used, in four ways.
fn beat_a_dead_horse(world: &World, phone: &Phone) {
    let side = world.side();
    let operation = side.operation(phone).operation_id;
    let path = format!("/device/v1/operations/{operation}/finish");
    let options = bad_hardware();
    let first = authenticate_start(&side.client, phone, &options).unwrap();
    let wrong = first.answer(phone, &options, CHANCE).unwrap();
    assert_eq!(world.send(&Request::post(&path, &wrong)).value()["accepted"], false);
    let right = first.answer(phone, &AuthenticationOptions::default(), CHANCE).unwrap();
    let used = world.send(&Request::post(&path, &right));
    assert_problem(&used, 409, "challenge_not_live");
    let second = authenticate_start(&side.client, phone, &options).unwrap();
    assert_ne!(second.started().challenge.0, first.started().challenge.0);
    assert_problem(&world.send(&Request::post(&path, &right)), 409, "challenge_not_live");
    let repeated = world.send(&Request::post(&path, &wrong));
    assert_eq!(repeated.value()["accepted"], false, "the same body, the same answer");
    let right = second.answer(phone, &AuthenticationOptions::default(), CHANCE).unwrap();
    assert_eq!(world.send(&Request::post(&path, &right)).value()["accepted"], true);
    assert_problem(
        &world.send(&Request::post(&path, &Value::Null).json(&wrong_of(&right))),
        409,
        "operation_state",
    );
}

/// The same answer with another decision: another body.
fn wrong_of(right: &api::wire::device::FinishAuthentication) -> Value {
    let mut body = serde_json::to_value(right).unwrap();
    body["decision"] = json!("reject");
    body
}

#[test]
fn the_log_has_one_entry_for_each_signature_that_the_verifier_counted() {
    let world = World::start();
    let side = world.side();
    let mut expected = 0;

    let phone = side.phone(&with_pin());
    expected += 3; // DEVICE, PIN and hardware key prove themselves
    let plain = side.phone(&ActivationOptions {
        hardware: api::device::Hardware::Unsupported,
        ..ActivationOptions::default()
    });
    expected += 1;
    side.log_in(&phone, &AuthenticationOptions::default());
    expected += 2; // software and hardware
    side.log_in(&phone, &pin(true));
    side.log_in(&phone, &pin(false));
    expected += 3 + 3; // and possession
    side.log_in(&plain, &AuthenticationOptions::default());
    expected += 1;
    let mut twice = AuthenticationOptions::default();
    twice.misbehaviour.repetition = Some(Repetition::Same);
    side.log_in(&phone, &twice);
    expected += 2; // not four
    twice.misbehaviour.repetition = Some(Repetition::Changed);
    let outcome = side.log_in(&phone, &twice);
    assert!(outcome.repeated.unwrap().unwrap_err().refusal().unwrap().status == 409);
    expected += 2;
    let mut noise = AuthenticationOptions::default();
    noise.misbehaviour.software = Some(SoftwareFault::Malformed);
    side.log_in(&plain, &noise);
    expected += 1;
    let lost = AuthenticationOptions {
        misbehaviour: api::device::Misbehaviour {
            hardware: Some(HardwareFault::KeyLost),
            ..Default::default()
        },
        ..AuthenticationOptions::default()
    };
    side.log_in(&phone, &lost);
    expected += 1; // one that was not sent is not checked
    assert_eq!(side.status().signatures_checked, expected);
    side.log_in(&phone, &pin(false));
    expected += 3;
    beat_a_dead_horse(&world, &side.phone(&ActivationOptions::default()));
    expected += 2 + 2 + 2;
    let mut token = AuthenticationOptions::default();
    token.misbehaviour.wrong_device_token = true;
    assert!(authenticate(&side.client, &phone, &token, CHANCE).is_err());

    assert_eq!(side.status().signatures_checked, expected);
    let data = world.data();
    world.server.stop();
    let entries = entries(&data);
    assert_eq!(entries.len() as u64, expected);
    let count = |verdict| entries.iter().filter(|entry| entry.verdict == verdict).count();
    // A wrong PIN, a bad hardware signature; a signature that is none.
    assert_eq!((count(Verdict::Invalid), count(Verdict::Malformed)), (2, 1));
    let report = super::world::verified(&data);
    let signatures = report.level(Level::Signatures).unwrap();
    assert_eq!(signatures.count("signatures"), expected, "{report}");
}

#[test]
fn nothing_secret_is_said_in_the_log_of_the_process() {
    let home = tempfile::tempdir().unwrap();
    let launch = crate::server::Launch::on(&home.path().join("data"));
    let server = launch.flag("--log-filter", "trace").start();
    let administrator = server.administrator();
    let callers = super::world::Callers::set_up(server.address, administrator, json!({}));
    let side = Side { address: server.address, callers: &callers, client: server.client() };
    let requested = side.request_activation();
    let redemption = Redemption::by_code(callers.application, &requested.code, None, CHANCE);
    let activating = redemption.unwrap().start(&side.client).unwrap();
    let offer = activating.offer(&server.url, &with_pin(), None, CHANCE).unwrap();
    let token = serde_json::to_value(offer.body()).unwrap()["device_token"].clone();
    let phone = offer.finish(&side.client).unwrap().0.unwrap();
    side.log_in(&phone, &pin(false));
    let said = server.stop();
    assert!(said.contains("access"), "it says something: {said}");
    let qr = requested.qr_payload.rsplit(':').next().unwrap().to_owned();
    for secret in [
        &callers.administrator[36..],
        &callers.bank[36..],
        &requested.code,
        &qr,
        token.as_str().unwrap(),
        PIN,
        "anna",
    ] {
        assert!(!said.contains(secret), "{secret} is in the log of the process");
    }
}
