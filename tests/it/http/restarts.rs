//! What a device has begun goes on after a restart, clean or not.

use api::device::{
    ActivationOptions, AuthenticationOptions, Client, Phone, Repetition, authenticate_start,
};
use engine::reasons::{OperationState, RegistrationState};
use serde_json::json;

use super::world::{CHANCE, World, again};
use crate::server::Launch;

/// Two ways to come back.
#[derive(Clone, Copy)]
enum Way {
    Stopped,
    Killed,
}

fn back(world: World, way: Way) -> World {
    match way {
        Way::Stopped => world.restart(),
        Way::Killed => {
            let World { server, home, callers } = world;
            let launch: Launch = server.kill();
            again(&launch, &callers, home)
        }
    }
}

#[test]
fn an_activation_goes_on_after_a_restart_at_every_step() {
    for way in [Way::Stopped, Way::Killed] {
        let world = World::start();
        let redemption = world.side().redemption();

        let world = back(world, way);
        let activating = redemption.start(&world.server.client()).unwrap();

        let world = back(world, way);
        // A lost answer is asked for again, and is the same.
        let repeated = redemption.start(&world.server.client()).unwrap();
        assert_eq!(repeated.started().challenge.0, activating.started().challenge.0);
        let options = ActivationOptions::default();
        let offer = activating.offer(&world.server.url, &options, None, CHANCE).unwrap();
        let (phone, finished) = offer.finish(&world.server.client()).unwrap();
        assert!(finished.accepted && finished.hardware_key_stored);

        let world = back(world, way);
        let (_, repeated) = offer.finish(&world.server.client()).unwrap();
        assert_eq!(repeated, finished, "the very same body has the very same answer");
        let side = world.side();
        let registration = side.seen_registration(phone.unwrap().registration_id());
        assert_eq!(registration.state, RegistrationState::Active);
        assert_eq!(registration.software_keys.len(), 1);
        let report = world.stop_and_verify();
        assert_eq!(report.events.get("ActivationJudged"), Some(&1));
    }
}

fn start(client: &Client, phone: &Phone) -> api::device::Answering {
    authenticate_start(client, phone, &AuthenticationOptions::default()).unwrap()
}

#[test]
fn an_authentication_goes_on_after_a_restart_at_every_step() {
    for way in [Way::Stopped, Way::Killed] {
        let world = World::start();
        let phone = world.side().phone(&ActivationOptions::default());
        let operation = world.side().operation(&phone).operation_id;

        let world = back(world, way);
        let answering = start(&world.server.client(), &phone);
        assert_eq!(answering.started().operation_id, operation);

        let world = back(world, way);
        let repeated = start(&world.server.client(), &phone);
        assert_eq!(repeated.started().challenge.0, answering.started().challenge.0);
        let options = AuthenticationOptions::default();
        let body = answering.answer(&phone, &options, CHANCE).unwrap();
        let path = format!("/device/v1/operations/{operation}/finish");
        let finish = |world: &World| world.send(&crate::client::Request::post(&path, &body));
        let first = finish(&world);
        assert_eq!(first.value()["accepted"], true);

        let world = back(world, way);
        assert_eq!(finish(&world).value(), first.value(), "repeated, and not judged again");
        let seen = world.side().seen_operation(operation);
        assert_eq!((seen.state, seen.attempts.len()), (OperationState::Completed, 1));
        assert_eq!(world.side().status().signatures_checked, 0, "since this start");
        world.stop_and_verify();
    }
}

#[test]
fn failures_and_a_lock_survive_a_restart() {
    let world = World::with(json!({ "failures_allowed": 3 }));
    let phone = world.side().phone(&ActivationOptions::default());
    let mut wrong = AuthenticationOptions::default();
    wrong.misbehaviour.hardware = Some(api::device::HardwareFault::BadSignature);
    let outcome = world.side().log_in(&phone, &wrong);
    assert_eq!(outcome.finished.remaining_attempts, 2);

    let world = world.restart();
    let outcome = world.side().log_in(&phone, &wrong);
    assert_eq!((outcome.finished.remaining_attempts, outcome.finished.last_attempt), (1, true));
    let outcome = world.side().log_in(&phone, &wrong);
    assert!(outcome.finished.locked);

    let world = world.restart();
    let registration = world.side().seen_registration(phone.registration_id());
    assert_eq!((registration.state, registration.failures), (RegistrationState::Locked, 3));
    let unlock = format!("/v1/registrations/{}/unlock", phone.registration_id());
    world.side().bank_posts(&unlock, &json!({})).ok::<serde_json::Value>();

    let world = world.restart();
    let mut right = AuthenticationOptions::default();
    right.misbehaviour.repetition = Some(Repetition::Same);
    let outcome = world.side().log_in(&phone, &right);
    assert!(outcome.finished.accepted);
    assert_eq!(outcome.repeated.unwrap().unwrap(), outcome.finished);
    let registration = world.side().seen_registration(phone.registration_id());
    assert_eq!((registration.state, registration.failures), (RegistrationState::Active, 0));
    world.stop_and_verify();
}
