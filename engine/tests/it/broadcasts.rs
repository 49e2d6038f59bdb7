//! One question to several devices: the first answer wins, whatever it is.

use engine::broadcast::DEVICES_MAX;
use engine::command::{Refusal, Want};
use engine::entries::Broadcast;
use engine::ids::Id;
use engine::reasons::{CancelReason, OperationState, ReasonGiven, RegistrationState};
use engine::terms::{Decision, Level, Method, Verdict};

use crate::world::{BANK, World, by};

const OK: Option<Verdict> = Some(Verdict::Valid);
const BAD: Option<Verdict> = Some(Verdict::Invalid);

/// A user with so many devices, all of them asked: the broadcast and its operations.
fn asked(world: &mut World, devices: usize) -> (Id, Vec<Id>) {
    let devices: Vec<_> = (0..devices).map(|_| world.active()).collect();
    let asks = world.broadcast_request(&devices);
    let id = asks[0].broadcast.unwrap();
    let operations = asks.iter().map(|ask| ask.operation).collect();
    world.done(Want::Broadcast(asks));
    (id, operations)
}

fn states(world: &World, operations: &[Id]) -> Vec<OperationState> {
    operations.iter().map(|id| world.operation(*id).state).collect()
}

fn seen(world: &World, id: Id) -> Broadcast {
    (*world.look().broadcast(id).unwrap()).clone()
}

#[test]
fn the_first_device_to_answer_wins_and_the_others_are_over_in_the_same_command() {
    for (decision, won) in [
        (Decision::Approve, OperationState::Completed),
        (Decision::Reject, OperationState::Rejected),
    ] {
        let mut world = World::new(&[]);
        let (id, operations) = asked(&mut world, 3);
        for operation in &operations[..2] {
            world.start(*operation).unwrap();
        }
        let late = world.answer(operations[0], Method::Device, [OK, None, OK]);
        let mut first = world.answer(operations[1], Method::Device, [OK, None, OK]);
        first.said = decision.into();
        let events = world.done(Want::FinishAuthentication(Box::new(first)));
        let names: Vec<_> = events.iter().map(engine::events::Event::name).collect();
        let elsewhere = "OperationAnsweredElsewhere";
        assert_eq!(names, ["AuthenticationJudged", elsewhere, elsewhere]);
        let over = OperationState::Cancelled;
        assert_eq!(states(&world, &operations), [over, won, over]);
        let reason = world.operation(operations[0]).cancel_reason;
        assert_eq!(reason, Some(CancelReason::AnsweredElsewhere));
        let refused = world.refused(Want::FinishAuthentication(Box::new(late)));
        assert_eq!(refused, Refusal::OperationState(over));
        assert_eq!(seen(&world, id).open, 0);
        assert!(operations.iter().all(|id| world.done(Want::ExpireOperation(*id)).is_empty()));
    }
}

#[test]
fn a_device_that_fails_leaves_the_question_to_the_others() {
    let mut world = World::new(&[("failures_allowed", "1")]);
    let (id, operations) = asked(&mut world, 2);
    let judged = world.judged(operations[0], Method::Device, [BAD, None, OK]);
    assert_eq!(judged.operation_state, OperationState::Failed);
    let locked = world.operation(operations[0]).registration;
    assert_eq!(world.registration(locked).state, RegistrationState::Locked);
    assert_eq!(seen(&world, id).open, 1);
    world.judged(operations[1], Method::Device, [OK, None, OK]);
    let expected = [OperationState::Failed, OperationState::Completed];
    assert_eq!(states(&world, &operations), expected);
}

#[test]
fn a_challenge_is_used_up_by_its_own_device_alone() {
    let mut world = World::new(&[]);
    let (_, operations) = asked(&mut world, 2);
    world.start(operations[0]).unwrap();
    world.start(operations[1]).unwrap();
    let [one, other] = [operations[0], operations[1]].map(|id| world.operation(id).challenge);
    assert!(one.is_some() && other.is_some() && one != other);
    let wrong = world.answer(operations[0], Method::Device, [BAD, None, OK]);
    world.done(Want::FinishAuthentication(Box::new(wrong)));
    assert_eq!(world.operation(operations[1]).challenge, other);
}

#[test]
fn withdrawn_from_one_device_it_is_withdrawn_from_all() {
    let mut world = World::new(&[]);
    let (id, operations) = asked(&mut world, 3);
    let reason = ReasonGiven::DeviceLost;
    let registration = world.operation(operations[2]).registration;
    world.done(Want::DeactivateRegistration { by: by(BANK), registration, reason });
    assert_eq!(seen(&world, id).open, 2, "the others are still asked");
    let events = world.done(Want::CancelOperation { by: by(BANK), operation: operations[1] });
    assert_eq!(events.len(), 2);
    assert_eq!(states(&world, &operations), [OperationState::Cancelled; 3]);
    assert_eq!(seen(&world, id).open, 0);
}

#[test]
fn it_is_forgotten_a_day_after_the_last_of_its_operations_ended() {
    let mut world = World::new(&[]);
    let (id, operations) = asked(&mut world, 2);
    let failed = world.operation(operations[0]).registration;
    let reason = ReasonGiven::Other;
    world.done(Want::DeactivateRegistration { by: by(BANK), registration: failed, reason });
    world.wait_s(300);
    world.done(Want::ExpireOperation(operations[1]));
    world.wait_s(86_399);
    world.active();
    assert!(world.look().broadcast(id).is_some());
    world.wait_s(1);
    world.active();
    assert!(world.look().broadcast(id).is_none());
}

#[test]
fn what_is_no_broadcast_is_refused() {
    let mut world = World::new(&[]);
    let devices: Vec<_> = (0..=DEVICES_MAX).map(|_| world.active()).collect();
    let asks = world.broadcast_request(&devices[..2]);
    let invalid = |world: &mut World, asks| {
        let refusal = world.refused(Want::Broadcast(asks));
        assert!(matches!(refusal, Refusal::Invalid { field: "broadcast", .. }), "{refusal:?}");
    };
    invalid(&mut world, Vec::new());
    let many = world.broadcast_request(&devices);
    invalid(&mut world, many);
    invalid(&mut world, asks.iter().rev().cloned().collect());
    let mut other = asks.clone();
    other[1].broadcast = Some(Id([3; 16]));
    invalid(&mut world, other);
    let mut none = asks.clone();
    none.iter_mut().for_each(|ask| ask.broadcast = None);
    invalid(&mut world, none);
    let mut stranger = world.activation_request(None);
    stranger.subject = Id([0x77; 16]);
    let single = asks[0].clone();
    let refusal = world.refused(Want::CreateOperation(single));
    assert!(matches!(refusal, Refusal::Invalid { field: "broadcast", .. }), "{refusal:?}");
    world.done(Want::Broadcast(asks.clone()));
    let again = world.broadcast_request(&devices[..2]);
    let taken = again.into_iter().map(|mut ask| {
        ask.broadcast = asks[0].broadcast;
        ask
    });
    let taken = taken.collect();
    assert_eq!(world.refused(Want::Broadcast(taken)), Refusal::Taken);
}

#[test]
fn one_that_cannot_be_asked_stops_all() {
    let mut world = World::new(&[]);
    let devices = [world.active(), world.active()];
    let reason = ReasonGiven::Other;
    let registration = devices[1];
    world.done(Want::LockRegistration { by: by(BANK), registration, reason });
    let asks = world.broadcast_request(&devices);
    let refusal = world.refused(Want::Broadcast(asks));
    assert_eq!(refusal, Refusal::RegistrationState(RegistrationState::Locked));
    let mut two = world.broadcast_request(&devices[..1]);
    two[0].level = Level::TwoFactor;
    two[0].methods = vec![Method::DeviceBiometric];
    assert_eq!(world.refused(Want::Broadcast(two)), Refusal::NoMethodFits);
}
