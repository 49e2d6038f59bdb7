//! A device that ends its own registration.

use engine::command::{BeginOperation, Refusal, Want};
use engine::events::Event;
use engine::ids::Id;
use engine::reasons::{
    AuthenticationFailure, CancelReason, DeactivationReason, OperationKind, OperationState,
    RegistrationState,
};
use engine::terms::{Decision, HwKeyClientStatus, Level, Method, Verdict};

use crate::world::{BANK, World, by};

const OK: Option<Verdict> = Some(Verdict::Valid);

fn leaving(world: &mut World, registration: Id, nonce: u8) -> BeginOperation {
    BeginOperation {
        operation: world.id(),
        registration,
        kind: OperationKind::Deactivation,
        level: Level::OneFactor,
        nonce_hash: [nonce; 32],
        client_version: "3.8".into(),
    }
}

/// The operation by which the device begins to leave.
#[track_caller]
fn begun(world: &mut World, registration: Id) -> Id {
    let begin = leaving(world, registration, 1);
    let id = begin.operation;
    world.done(Want::BeginOperation(begin));
    id
}

#[test]
fn an_approved_answer_ends_the_registration_and_all_that_is_under_way_in_it() {
    let mut world = World::new(&[]);
    let id = world.active();
    let waits = world.asked(id, Level::OneFactor);
    let activation = world.started(Some(id), "3.8").activation;
    let operation = begun(&mut world, id);
    world.start(operation).unwrap();
    let answer = world.answer(operation, Method::Device, [OK, None, OK]);
    let events = world.done(Want::FinishAuthentication(Box::new(answer.clone())));
    let names: Vec<_> = events.iter().map(Event::name).collect();
    let expected = [
        "AuthenticationJudged",
        "RegistrationDeactivated",
        "ActivationCancelled",
        "OperationCancelled",
    ];
    assert_eq!(names, expected);
    let registration = world.registration(id);
    assert_eq!(registration.state, RegistrationState::Deactivated);
    assert_eq!(registration.deactivation_reason, Some(DeactivationReason::ByDevice));
    assert_eq!(registration.open_operations, []);
    assert_eq!(world.operation(operation).state, OperationState::Completed);
    let cancelled = world.operation(waits);
    assert_eq!(cancelled.state, OperationState::Cancelled);
    assert_eq!(cancelled.cancel_reason, Some(CancelReason::RegistrationDeactivated));
    let reason = world.activation(activation).cancel_reason;
    assert_eq!(reason, Some(CancelReason::RegistrationDeactivated));
    assert_eq!(world.look().registrations_of(crate::world::PERSON), 0);
    // The answer was lost: the same again is known, and nothing happens twice.
    let again = world.refused(Want::FinishAuthentication(Box::new(answer)));
    assert_eq!(again, Refusal::JudgedBefore);
}

#[test]
fn saying_no_or_signing_wrongly_leaves_the_registration_as_it_is() {
    let mut world = World::new(&[]);
    let id = world.active();
    let operation = begun(&mut world, id);
    let judged = world.judged(operation, Method::Device, [Some(Verdict::Invalid), None, OK]);
    assert_eq!(judged.failure, Some(AuthenticationFailure::SoftwareSignatureInvalid));
    let judged = world.judged(operation, Method::Device, [OK, None, None]);
    assert_eq!(
        judged.failure,
        Some(AuthenticationFailure::HwKeyCheckFailed),
        "a key on file signs"
    );
    world.start(operation).unwrap();
    let mut answer = world.answer(operation, Method::Device, [OK, None, OK]);
    answer.said = Decision::Reject.into();
    world.done(Want::FinishAuthentication(Box::new(answer)));
    assert_eq!(world.operation(operation).state, OperationState::Rejected);
    assert_eq!(world.registration(id).state, RegistrationState::Active);
}

#[test]
fn a_device_leaves_where_it_may_begin_nothing_else_and_with_a_pin_too() {
    let mut world = World::new(&[]);
    let id = world.active();
    let mut other = leaving(&mut world, id, 2);
    other.kind = OperationKind::Authentication;
    assert_eq!(world.refused(Want::BeginOperation(other)), Refusal::DeviceMayNotBegin);
    let operation = begun(&mut world, id);
    let judged = world.judged(operation, Method::DevicePin, [OK, OK, OK]);
    assert_eq!(judged.operation_state, OperationState::Completed);
    assert_eq!(world.registration(id).state, RegistrationState::Deactivated);
}

#[test]
fn what_cannot_log_in_for_want_of_a_hardware_key_can_still_leave() {
    let mut world = World::new(&[]);
    let id = world.active_without(HwKeyClientStatus::KeyGenerationFailed, "3.8");
    world.configure("hw_key_validation_strategy", "\"REQUIRED\"");
    let asked = world.asked(id, Level::OneFactor);
    let judged = world.judged(asked, Method::Device, [OK, None, None]);
    assert_eq!(judged.failure, Some(AuthenticationFailure::HwKeyRequired));
    let operation = begun(&mut world, id);
    let judged = world.judged(operation, Method::Device, [OK, None, None]);
    assert_eq!(judged.failure, None);
    assert_eq!(world.registration(id).state, RegistrationState::Deactivated);
}

#[test]
fn leaving_has_a_place_of_its_own_and_one_alone() {
    let mut world = World::new(&[]);
    let id = world.active();
    for _ in 0..engine::operation::OPEN_OPERATIONS_MAX {
        world.asked(id, Level::OneFactor);
    }
    let first = leaving(&mut world, id, 1);
    world.done(Want::BeginOperation(first.clone()));
    let again = BeginOperation { operation: world.id(), ..first };
    assert!(world.done(Want::BeginOperation(again)).is_empty(), "it has begun");
    let second = leaving(&mut world, id, 2);
    assert_eq!(world.refused(Want::BeginOperation(second)), Refusal::TooManyOperations);
    let request = world.operation_request(id, Level::OneFactor);
    assert_eq!(world.refused(Want::CreateOperation(request)), Refusal::TooManyOperations);
}

#[test]
fn leaving_takes_no_room_from_what_a_device_may_begin() {
    let mut world = World::new(&[("allow_device_initiated", "true")]);
    let id = world.active();
    begun(&mut world, id);
    for nonce in 2..4 {
        let mut log_in = leaving(&mut world, id, nonce);
        log_in.kind = OperationKind::Authentication;
        world.done(Want::BeginOperation(log_in));
    }
}

#[test]
fn nobody_else_asks_for_it_and_no_device_begins_what_is_not_its_to_begin() {
    let mut world = World::new(&[]);
    let id = world.active();
    let mut asked = world.operation_request(id, Level::OneFactor);
    asked.kind = OperationKind::Deactivation;
    let refused = world.refused(Want::CreateOperation(asked));
    assert!(matches!(refused, Refusal::Invalid { field: "kind", .. }));
    let mut payment = leaving(&mut world, id, 1);
    payment.kind = OperationKind::Transaction;
    let refused = world.refused(Want::BeginOperation(payment));
    assert!(matches!(refused, Refusal::Invalid { field: "kind", .. }));
    let mut two = leaving(&mut world, id, 1);
    two.level = Level::TwoFactor;
    let refused = world.refused(Want::BeginOperation(two));
    assert!(matches!(refused, Refusal::Invalid { field: "level", .. }));
    let reason = engine::reasons::ReasonGiven::Other;
    let operation = begun(&mut world, id);
    world.start(operation).unwrap();
    let answer = world.answer(operation, Method::Device, [OK, None, OK]);
    world.done(Want::LockRegistration { by: by(BANK), registration: id, reason });
    let locked = Refusal::RegistrationState(RegistrationState::Locked);
    let begin = leaving(&mut world, id, 2);
    assert_eq!(world.refused(Want::BeginOperation(begin)), locked);
    assert_eq!(world.refused(Want::FinishAuthentication(Box::new(answer))), locked);
}
