//! What a device is called, and who says so.

use engine::command::{NameDevice, Refusal, Want};
use engine::events::{Actor, Event};
use engine::ids::Id;
use engine::naming::{NAMES_MAX, NAMES_WINDOW_S};
use engine::reasons::{ReasonGiven, RegistrationState};

use crate::world::{BANK, PERSON, World, by};

fn named(registration: Id, by: Option<Actor>, sealed: &[u8]) -> Want {
    let sealed = sealed.to_vec();
    Want::NameDevice(NameDevice { by, registration, named: !sealed.is_empty(), sealed })
}

#[test]
fn a_name_that_comes_with_the_keys_stands_sealed_behind_their_judgement() {
    let mut world = World::new(&[]);
    let mut finish = world.started(None, "3.8");
    finish.name = vec![7; 20];
    let id = world.registration_of(&finish);
    let events = world.done(Want::FinishActivation(Box::new(finish)));
    assert_eq!(
        events.iter().map(Event::name).collect::<Vec<_>>(),
        ["ActivationJudged", "DeviceNamed"]
    );
    let record = world.records.last().unwrap().clone();
    assert_eq!(world.registration(id).named_in, Some(record.position));
    assert_eq!((record.draft.subject, &record.draft.sealed[..]), (PERSON, &[7; 20][..]));

    // Keys that are not taken bring no name.
    let mut refused = world.started(None, "3.8");
    refused.name = vec![7; 20];
    refused.verifications.clear();
    let events = world.done(Want::FinishActivation(Box::new(refused)));
    assert_eq!(events.len(), 1);
    // New keys without a name leave the old one.
    let again = world.started(Some(id), "3.8");
    world.configure("allow_unproven_reactivation", "true");
    world.done(Want::FinishActivation(Box::new(again)));
    assert_eq!(world.registration(id).named_in, Some(record.position));
}

#[test]
fn the_last_name_stands_and_none_can_be_taken_away_once() {
    let mut world = World::new(&[]);
    let id = world.active();
    assert!(world.done(named(id, None, &[])).is_empty(), "it has none");
    world.done(named(id, None, &[1; 20]));
    world.done(named(id, Some(by(BANK)), &[2; 20]));
    let position = world.records.last().unwrap().position;
    assert_eq!(world.registration(id).named_in, Some(position));
    world.done(named(id, None, &[]));
    assert_eq!(world.registration(id).named_in, None);
    assert!(world.done(named(id, Some(by(BANK)), &[])).is_empty());
}

#[test]
fn a_device_has_ten_names_a_day_and_a_service_provider_as_many_as_it_likes() {
    let mut world = World::new(&[]);
    let id = world.active();
    let began = world.now;
    for _ in 0..NAMES_MAX {
        world.done(named(id, None, &[1; 20]));
        world.wait_s(1);
    }
    let until = began.plus_s(NAMES_WINDOW_S);
    assert_eq!(world.refused(named(id, None, &[1; 20])), Refusal::TooManyAttempts { until });
    world.done(named(id, Some(by(BANK)), &[2; 20]));
    world.now = engine::ids::Micros(until.0 - 1);
    assert_eq!(world.refused(named(id, None, &[1; 20])), Refusal::TooManyAttempts { until });
    world.now = until;
    world.done(named(id, None, &[1; 20]));
    assert_eq!(world.registration(id).names, 1);
}

#[test]
fn only_what_is_live_is_named_and_what_is_locked_by_its_service_provider_alone() {
    let mut world = World::new(&[]);
    let id = world.active();
    let reason = ReasonGiven::Other;
    world.done(Want::LockRegistration { by: by(BANK), registration: id, reason });
    let locked = Refusal::RegistrationState(RegistrationState::Locked);
    assert_eq!(world.refused(named(id, None, &[1; 20])), locked);
    world.done(named(id, Some(by(BANK)), &[2; 20]));
    world.done(Want::DeactivateRegistration { by: by(BANK), registration: id, reason });
    let over = Refusal::RegistrationState(RegistrationState::Deactivated);
    assert_eq!(world.refused(named(id, Some(by(BANK)), &[2; 20])), over);
    assert_eq!(world.refused(named(id, None, &[2; 20])), over);
    assert_eq!(world.refused(named(Id([7; 16]), None, &[2; 20])), Refusal::Unknown);
}
