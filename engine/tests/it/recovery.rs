//! Recovery codes: issued, redeemed once, counted, and what they bring back.

use engine::command::{BeginOperation, FinishActivation, Refusal, StartRecovery, Want};
use engine::events::{Event, RecoveryCodesIssuedV1};
use engine::ids::Id;
use engine::reasons::{
    ActivationState, DeactivationReason, OperationKind, ReasonGiven, RegistrationState,
};
use engine::terms::{Level, Method, Verdict};

use crate::world::{BANK, PERSON, World, by};

const OK: Option<Verdict> = Some(Verdict::Valid);
const ON: &[(&str, &str)] = &[("recovery_codes", "3")];

fn set(id: Id, first: u8) -> RecoveryCodesIssuedV1 {
    let codes = (first..first + 3).map(|code| [code; 32]).collect();
    RecoveryCodesIssuedV1 { set: id, selector: [first + 100; 32], codes }
}

/// An active registration with the codes 1, 2 and 3.
fn with_codes(world: &mut World) -> Id {
    let mut finish = world.started(None, "3.8");
    finish.recovery = Some(set(finish.activation, 1));
    let id = world.registration_of(&finish);
    world.done(Want::FinishActivation(Box::new(finish)));
    id
}

fn redeeming(world: &mut World, registration: Id, code: u8) -> StartRecovery {
    StartRecovery {
        registration,
        code: [code; 32],
        recovered: world.id(),
        activation: world.id(),
        nonce_hash: [7; 32],
        challenge: world.bytes(),
        client_version: "3.8".into(),
        sealed: vec![1, 2, 3],
    }
}

/// The answer with keys to a recovery that has begun.
fn keys(world: &mut World, begun: &StartRecovery) -> FinishActivation {
    let mut finish = world.started(None, "3.8");
    finish.activation = begun.activation;
    finish.challenge = begun.challenge;
    finish
}

/// One event of each kind that is about recovery.
pub(crate) fn sampled(world: &mut World) {
    world.configure("recovery_codes", "3");
    let id = with_codes(world);
    for code in [99, 1] {
        let redeem = redeeming(world, id, code);
        world.done(Want::StartRecovery(redeem));
    }
}

#[test]
fn a_code_brings_the_registration_to_a_new_phone_and_ends_the_old_one() {
    let mut world = World::new(ON);
    let old = with_codes(&mut world);
    let waits = world.asked(old, Level::OneFactor);
    let begun = redeeming(&mut world, old, 2);
    let events = world.done(Want::StartRecovery(begun.clone()));
    let names: Vec<_> = events.iter().map(Event::name).collect();
    assert_eq!(names, ["RecoveryStarted", "RecoveryCodeRedeemed"]);
    assert_eq!(
        world.registration(old).state,
        RegistrationState::Active,
        "until the keys are there"
    );
    let new = world.registration(begun.recovered);
    assert_eq!((new.state, new.subject), (RegistrationState::Started, PERSON));

    let mut finish = keys(&mut world, &begun);
    finish.recovery = Some(set(begun.activation, 11));
    let events = world.done(Want::FinishActivation(Box::new(finish)));
    let names: Vec<_> = events.iter().map(Event::name).collect();
    let expected = [
        "ActivationJudged",
        "RecoveryCodesIssued",
        "RegistrationDeactivated",
        "OperationCancelled",
    ];
    assert_eq!(names, expected);
    let (old, new) = (world.registration(old), world.registration(begun.recovered));
    assert_eq!(old.state, RegistrationState::Deactivated);
    assert_eq!(old.deactivation_reason, Some(DeactivationReason::Recovered));
    assert_eq!(new.state, RegistrationState::Active);
    assert!(new.recovers.is_some() && world.operation(waits).state.is_final());
    assert!(world.look().recovery(&[101; 32]).is_none(), "the old set is gone");
    assert_eq!(world.look().recovery(&[111; 32]).unwrap().registration, begun.recovered);
}

#[test]
fn a_code_is_used_once_and_a_lost_answer_is_got_again_by_its_client_alone() {
    let mut world = World::new(ON);
    let old = with_codes(&mut world);
    let begun = redeeming(&mut world, old, 1);
    world.done(Want::StartRecovery(begun.clone()));
    let mut again = redeeming(&mut world, old, 1);
    assert!(world.done(Want::StartRecovery(again.clone())).is_empty(), "the same nonce");
    again.nonce_hash = [8; 32];
    assert_eq!(world.refused(Want::StartRecovery(again.clone())), Refusal::CodeRedeemed);
    // Time ends the recovery, and the code is used up all the same.
    world.wait_s(300);
    again.nonce_hash = [7; 32];
    let events = world.done(Want::StartRecovery(again.clone()));
    assert_eq!(events[0].name(), "ActivationExpired");
    assert_eq!(world.activation(begun.activation).state, ActivationState::Expired);
    assert_eq!(world.refused(Want::StartRecovery(again)), Refusal::CodeRedeemed);
    assert_eq!(world.registration(begun.recovered).state, RegistrationState::Deactivated);
    assert_eq!(world.registration(old).state, RegistrationState::Active);
    let next = redeeming(&mut world, old, 2);
    world.done(Want::StartRecovery(next));
}

#[test]
fn wrong_codes_are_counted_and_at_the_limit_none_is_taken() {
    let mut world = World::new(ON);
    let id = with_codes(&mut world);
    for failures in 1..=3 {
        let wrong = redeeming(&mut world, id, 99);
        let events = world.done(Want::StartRecovery(wrong));
        assert_eq!(events[0].name(), "RecoveryCodeRefused");
        assert_eq!(world.look().recovery(&[101; 32]).unwrap().failures, failures);
    }
    let records = world.records.len();
    for code in [99, 1] {
        let late = redeeming(&mut world, id, code);
        assert_eq!(world.refused(Want::StartRecovery(late)), Refusal::Unknown);
    }
    assert_eq!(world.records.len(), records, "no more of it is written");
    // One more is allowed, and a right one is taken.
    world.configure("recovery_failures_allowed", "4");
    let right = redeeming(&mut world, id, 1);
    world.done(Want::StartRecovery(right));
}

#[test]
fn a_lock_by_request_stands_against_recovery_also_between_its_halves() {
    let mut world = World::new(ON);
    let id = with_codes(&mut world);
    let begun = redeeming(&mut world, id, 1);
    world.done(Want::StartRecovery(begun.clone()));
    let finish = keys(&mut world, &begun);
    let reason = ReasonGiven::FraudSuspected;
    world.done(Want::LockRegistration { by: by(BANK), registration: id, reason });
    let locked = Refusal::RegistrationState(RegistrationState::Locked);
    assert_eq!(world.refused(Want::FinishActivation(Box::new(finish.clone()))), locked);
    let next = redeeming(&mut world, id, 2);
    assert_eq!(world.refused(Want::StartRecovery(next)), locked);
    world.done(Want::UnlockRegistration { by: by(BANK), registration: id });
    world.done(Want::FinishActivation(Box::new(finish)));
}

#[test]
fn a_lock_after_failures_stands_not_in_the_way_and_of_two_recoveries_one_comes_to_its_end() {
    let mut world = World::new(ON);
    let id = with_codes(&mut world);
    let operation = world.asked(id, Level::TwoFactor);
    for _ in 0..3 {
        world.judged(operation, Method::DevicePin, [Some(Verdict::Invalid), None, OK]);
    }
    assert_eq!(world.registration(id).state, RegistrationState::Locked);
    let first = redeeming(&mut world, id, 1);
    let second = redeeming(&mut world, id, 2);
    world.done(Want::StartRecovery(first.clone()));
    world.done(Want::StartRecovery(second.clone()));
    let (one, two) = (keys(&mut world, &first), keys(&mut world, &second));
    world.done(Want::FinishActivation(Box::new(two)));
    let over = Refusal::RegistrationState(RegistrationState::Deactivated);
    assert_eq!(world.refused(Want::FinishActivation(Box::new(one))), over);
}

#[test]
fn where_recovery_is_off_no_code_is_given_or_taken() {
    let mut world = World::new(ON);
    let id = with_codes(&mut world);
    world.configure("recovery_codes", "0");
    let redeem = redeeming(&mut world, id, 1);
    assert_eq!(world.refused(Want::StartRecovery(redeem)), Refusal::Unknown);
    let mut finish = world.started(None, "3.8");
    finish.recovery = Some(set(finish.activation, 21));
    let events = world.done(Want::FinishActivation(Box::new(finish)));
    assert_eq!(events.len(), 1);
    let mut asked = world.operation_request(id, Level::TwoFactor);
    asked.kind = OperationKind::RecoveryCodes;
    let refused = world.refused(Want::CreateOperation(asked));
    assert!(matches!(refused, Refusal::Invalid { field: "kind", .. }));
}

#[test]
fn a_new_set_takes_two_factors_and_voids_the_old_one() {
    let mut world = World::new(ON);
    let id = with_codes(&mut world);
    let mut begin = BeginOperation {
        operation: world.id(),
        registration: id,
        kind: OperationKind::RecoveryCodes,
        level: Level::OneFactor,
        nonce_hash: [1; 32],
        client_version: "3.8".into(),
    };
    let refused = world.refused(Want::BeginOperation(begin.clone()));
    assert!(matches!(refused, Refusal::Invalid { field: "level", .. }));
    begin.level = Level::TwoFactor;
    let operation = begin.operation;
    world.done(Want::BeginOperation(begin));
    world.start(operation).unwrap();
    let one = world.answer(operation, Method::Device, [OK, None, OK]);
    assert_eq!(world.refused(Want::FinishAuthentication(Box::new(one))), Refusal::MethodNotOffered);
    let mut wrong = world.answer(operation, Method::DevicePin, [Some(Verdict::Invalid), OK, OK]);
    wrong.recovery = Some(set(operation, 31));
    let events = world.done(Want::FinishAuthentication(Box::new(wrong)));
    assert_eq!(events.len(), 1, "a wrong PIN gives no codes");
    world.start(operation).unwrap();
    let mut right = world.answer(operation, Method::DevicePin, [OK, OK, OK]);
    right.recovery = Some(set(operation, 31));
    let events = world.done(Want::FinishAuthentication(Box::new(right)));
    assert_eq!(events[1].name(), "RecoveryCodesIssued");
    let old = redeeming(&mut world, id, 1);
    let events = world.done(Want::StartRecovery(old));
    assert_eq!(events[0].name(), "RecoveryCodeRefused");
    let new = redeeming(&mut world, id, 31);
    world.done(Want::StartRecovery(new));
}

#[test]
fn a_code_typed_elsewhere_answers_no_question_for_recovery_codes() {
    let mut world = World::new(ON);
    world.configure("offline_levels", "[\"TWO_FACTOR\"]");
    let id = world.active();
    let mut asked = world.operation_request(id, Level::TwoFactor);
    asked.kind = OperationKind::RecoveryCodes;
    let operation = asked.operation;
    world.done(Want::CreateOperation(asked));
    let refused = world.ask_offline(operation).unwrap_err();
    assert!(matches!(refused, Refusal::OfflineNotPossible(_)), "{refused:?}");
}
