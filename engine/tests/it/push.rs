//! Where a phone is woken, and whether it was: both sides of each edge.

use engine::command::{BeginOperation, Refusal, Want};
use engine::events::Event;
use engine::ids::Id;
use engine::push::CHANGE_EVERY_S;
use engine::reasons::{OperationState, ReasonGiven, RegistrationState};
use engine::terms::{Level, Method, Role, Verdict};

use crate::world::{BANK, HARDWARE_KEY, World, by, checked};

const OK: Option<Verdict> = Some(Verdict::Valid);

fn names(events: &[Event]) -> Vec<&'static str> {
    events.iter().map(Event::name).collect()
}

#[test]
fn an_address_is_set_replaced_and_removed_and_its_record_is_remembered() {
    let mut world = World::new(&[]);
    let id = world.active();
    assert_eq!(world.push_address(id, false).unwrap(), [], "there is none to remove");
    assert_eq!(names(&world.push_address(id, true).unwrap()), ["PushAddressSet"]);
    let first = world.registration(id).push.address_in;
    assert_eq!(first, world.records.last().map(|record| record.position));
    world.wait_s(CHANGE_EVERY_S);
    world.push_address(id, true).unwrap();
    assert!(world.registration(id).push.address_in > first);
    world.wait_s(CHANGE_EVERY_S);
    world.push_address(id, false).unwrap();
    assert_eq!(world.registration(id).push.address_in, None);
}

#[test]
fn an_address_changes_every_ten_seconds_at_most() {
    let mut world = World::new(&[]);
    let id = world.active();
    world.push_address(id, true).unwrap();
    let until = world.now.plus_s(CHANGE_EVERY_S);
    for present in [true, false] {
        world.wait_s(if present { CHANGE_EVERY_S - 1 } else { 0 });
        let refused = world.push_address(id, present).unwrap_err();
        assert_eq!(refused, Refusal::TooManyAttempts { until });
    }
    world.wait_s(1);
    world.push_address(id, false).unwrap();
}

#[test]
fn only_an_active_registration_has_an_address_set_and_other_keys_forget_it() {
    let mut world = World::new(&[]);
    let id = world.active();
    world.push_address(id, true).unwrap();
    let mut keys = world.started(Some(id), "3.8");
    keys.verifications.push(checked(Role::Previous, Method::Device, HARDWARE_KEY, Verdict::Valid));
    world.done(Want::FinishActivation(Box::new(keys)));
    assert_eq!(world.registration(id).push.address_in, None, "it may be another phone");
    world.wait_s(CHANGE_EVERY_S);
    let (registration, reason) = (id, ReasonGiven::Other);
    world.done(Want::LockRegistration { by: by(BANK), registration, reason });
    let locked = Refusal::RegistrationState(RegistrationState::Locked);
    assert_eq!(world.push_address(id, true).unwrap_err(), locked);
    assert_eq!(world.push_address(Id([1; 16]), true).unwrap_err(), Refusal::Unknown);
}

#[test]
fn where_a_push_is_to_be_confirmed_no_challenge_is_issued_without_and_one_is_with() {
    let mut world = World::new(&[("push_validation", "true")]);
    let id = world.active();
    let request = world.operation_request(id, Level::OneFactor);
    assert_eq!(world.refused(Want::CreateOperation(request.clone())), Refusal::NoPushAddress);
    let asks = world.broadcast_request(&[id]);
    assert_eq!(world.refused(Want::Broadcast(asks)), Refusal::NoPushAddress);
    world.push_address(id, true).unwrap();
    let operation = request.operation;
    world.done(Want::CreateOperation(request));
    assert_eq!(world.start(operation).unwrap_err(), Refusal::PushNotConfirmed);
    assert_eq!(world.operation(operation).state, OperationState::Pending);
    world.start_woken(operation, true).unwrap();
    assert!(world.operation(operation).push_confirmed);
    // Nor is the one that is outstanding shown to whoever was not woken.
    assert_eq!(world.start(operation).unwrap_err(), Refusal::PushNotConfirmed);
    assert_eq!(world.start_woken(operation, true).unwrap(), []);
    let answer = world.answer(operation, Method::Device, [OK, None, OK]);
    world.done(Want::FinishAuthentication(Box::new(answer)));
    assert_eq!(world.operation(operation).state, OperationState::Completed);
}

#[test]
fn where_no_push_is_to_be_confirmed_one_that_is_is_noted_and_nobody_is_refused() {
    let mut world = World::new(&[]);
    let id = world.active();
    for confirmed in [false, true] {
        let operation = world.asked(id, Level::OneFactor);
        world.start_woken(operation, confirmed).unwrap();
        assert_eq!(world.operation(operation).push_confirmed, confirmed);
    }
}

#[test]
fn what_a_device_begins_itself_needs_no_push() {
    let properties = [("push_validation", "true"), ("allow_device_initiated", "true")];
    let mut world = World::new(&properties);
    let id = world.active();
    let operation = world.id();
    world.done(Want::BeginOperation(BeginOperation {
        operation,
        registration: id,
        kind: engine::reasons::OperationKind::Authentication,
        level: Level::OneFactor,
        nonce_hash: [1; 32],
        client_version: "3.8".into(),
    }));
    world.start(operation).unwrap();
}
