//! What an operation asks for and how it can be answered: kinds, confirmation,
//! reasons for saying no, states.

use engine::command::{BeginOperation, CreateOperation, Refusal, Want};
use engine::events::{AuthenticationJudgedV1, Event, MatchingV1};
use engine::ids::Id;
use engine::reasons::{
    AuthenticationFailure, Confirmation, OperationKind, OperationState, RejectReason,
};
use engine::terms::{Decision, Level, Method, Verdict};
use engine::transcript::Said;

use crate::world::{BANK, World, by};

const OK: Option<Verdict> = Some(Verdict::Valid);
const BAD: Option<Verdict> = Some(Verdict::Invalid);

fn numbers() -> MatchingV1 {
    let how = Confirmation::NumberMatching;
    MatchingV1 { how, number: 42, choices: vec![17, 42, 80] }
}

/// An operation that wants a number confirmed, with its challenge issued.
fn matching(world: &mut World, registration: Id) -> Id {
    let mut request = world.operation_request(registration, Level::OneFactor);
    request.matching = Some(numbers());
    let operation = request.operation;
    world.done(Want::CreateOperation(request));
    world.start(operation).unwrap();
    operation
}

fn answer(
    world: &mut World,
    operation: Id,
    said: Said,
    verdicts: [Option<Verdict>; 3],
) -> Result<AuthenticationJudgedV1, Refusal> {
    let mut answer = world.answer(operation, Method::Device, verdicts);
    answer.said = said;
    let events = world.execute(Want::FinishAuthentication(Box::new(answer)))?;
    match events.into_iter().next() {
        Some(Event::AuthenticationJudged(judged)) => Ok(*judged),
        other => panic!("{other:?}"),
    }
}

fn yes(number: Option<u32>) -> Said {
    Said { number, ..Decision::Approve.into() }
}

fn no(reason: Option<RejectReason>) -> Said {
    Said { reason, ..Decision::Reject.into() }
}

#[test]
fn an_operation_is_started_while_its_challenge_is_out_and_pending_after_a_failure() {
    let mut world = World::new(&[]);
    let id = world.active();
    let operation = world.asked(id, Level::OneFactor);
    assert_eq!(world.operation(operation).state, OperationState::Pending);
    world.start(operation).unwrap();
    assert_eq!(world.operation(operation).state, OperationState::Started);
    assert!(world.start(operation).unwrap().is_empty(), "one challenge is out at a time");
    answer(&mut world, operation, yes(None), [BAD, None, OK]).unwrap();
    assert_eq!(world.operation(operation).state, OperationState::Pending);
    world.judged(operation, Method::Device, [OK, None, OK]);
    assert_eq!(world.operation(operation).state, OperationState::Completed);
}

#[test]
fn a_transaction_signs_something() {
    let mut world = World::new(&[]);
    let id = world.active();
    let mut request = world.operation_request(id, Level::OneFactor);
    request.kind = OperationKind::Transaction;
    let refusal = world.refused(Want::CreateOperation(request.clone()));
    assert!(matches!(refusal, Refusal::Invalid { field: "kind", .. }), "{refusal:?}");
    for (context_hash, data_to_sign_hash) in [([1; 32], [0; 32]), ([0; 32], [1; 32])] {
        let mut request = request.clone();
        request.operation = world.id();
        (request.context_hash, request.data_to_sign_hash) = (context_hash, data_to_sign_hash);
        let operation = request.operation;
        world.done(Want::CreateOperation(request));
        let judged = world.judged(operation, Method::Device, [OK, None, OK]);
        assert_eq!(judged.kind, OperationKind::Transaction);
    }
}

#[test]
fn the_right_number_completes_and_a_wrong_one_ends_it_uncounted() {
    for (number, failure, state) in [
        (42, None, OperationState::Completed),
        (17, Some(AuthenticationFailure::ConfirmationWrong), OperationState::Failed),
        (0, Some(AuthenticationFailure::ConfirmationWrong), OperationState::Failed),
    ] {
        let mut world = World::new(&[]);
        let id = world.active();
        let operation = matching(&mut world, id);
        let judged = answer(&mut world, operation, yes(Some(number)), [OK, None, OK]).unwrap();
        assert_eq!((judged.failure, judged.operation_state), (failure, state), "{number}");
        assert_eq!((judged.number, judged.counted), (Some(number), false));
        assert_eq!(world.operation(operation).state, state);
        assert_eq!(world.registration(id).failures, 0);
    }
}

#[test]
fn a_wrong_signature_is_told_before_a_wrong_number_and_leaves_the_number_to_be_tried() {
    let mut world = World::new(&[]);
    let id = world.active();
    let operation = matching(&mut world, id);
    let judged = answer(&mut world, operation, yes(Some(17)), [BAD, None, OK]).unwrap();
    assert_eq!(judged.failure, Some(AuthenticationFailure::SoftwareSignatureInvalid));
    assert_eq!((judged.counted, judged.operation_state), (true, OperationState::Pending));
}

#[test]
fn what_does_not_belong_into_an_answer_is_refused_and_the_challenge_stays_live() {
    let mut world = World::new(&[]);
    let id = world.active();
    let with = matching(&mut world, id);
    let without = world.asked(id, Level::OneFactor);
    world.start(without).unwrap();
    let before = world.records.len();
    for (operation, said, wrong) in [
        (with, yes(None), "number"),
        (without, yes(Some(42)), "number"),
        (with, Said { number: Some(42), ..Decision::Reject.into() }, "number"),
        (without, Said { reason: Some(RejectReason::Other), ..yes(None) }, "reject_reason"),
    ] {
        let refusal = answer(&mut world, operation, said, [OK, None, OK]).unwrap_err();
        assert!(matches!(refusal, Refusal::Invalid { field, .. } if field == wrong), "{said}");
    }
    assert_eq!(world.records.len(), before);
    answer(&mut world, with, yes(Some(42)), [OK, None, OK]).unwrap();
    answer(&mut world, without, yes(None), [OK, None, OK]).unwrap();
}

#[test]
fn saying_no_needs_no_number_and_its_reason_is_recorded() {
    let mut world = World::new(&[]);
    let id = world.active();
    let reasons = RejectReason::ALL.iter().copied().map(Some);
    for reason in reasons.chain([None]) {
        let operation = matching(&mut world, id);
        let judged = answer(&mut world, operation, no(reason), [OK, None, OK]).unwrap();
        assert_eq!((judged.failure, judged.reject_reason), (None, reason));
        let seen = world.operation(operation);
        assert_eq!(seen.state, OperationState::Rejected);
        assert_eq!(seen.attempts[0].said, no(reason));
    }
}

#[test]
fn numbers_that_were_not_drawn_as_they_should_be_are_refused() {
    let mut world = World::new(&[]);
    let id = world.active();
    let mut request = world.operation_request(id, Level::OneFactor);
    request.matching = Some(MatchingV1 { choices: vec![42], ..numbers() });
    let refusal = world.refused(Want::CreateOperation(request));
    assert!(matches!(refusal, Refusal::Invalid { field: "confirmation", .. }));
}

#[test]
fn the_words_of_an_answer_are_those_of_the_protocol() {
    for (said, words) in [
        (yes(None), "approve"),
        (yes(Some(7)), "approve:7"),
        (no(None), "reject"),
        (no(Some(RejectReason::NotMe)), "reject:NOT_ME"),
    ] {
        assert_eq!(said.to_string(), words);
    }
}

/// A world whose application has one template, and devices that may begin.
fn with_template() -> World {
    let template = r#"{"log-in":{"level":"ONE_FACTOR","confirmation":"NUMBER_MATCHING"}}"#;
    World::new(&[("operation_templates", template), ("allow_device_initiated", "true")])
}

#[test]
fn an_operation_that_names_a_template_asks_for_what_it_says_at_that_moment() {
    let mut world = with_template();
    let id = world.active();
    let mut request = world.operation_request(id, Level::OneFactor);
    request.template = Some("log-in".into());
    let actual = world.application().config_version;
    let changed = Refusal::VersionConflict { actual };
    assert_eq!(world.refused(Want::CreateOperation(request.clone())), changed);
    request.matching = Some(numbers());
    let other = CreateOperation { level: Level::TwoFactor, ..request.clone() };
    assert_eq!(world.refused(Want::CreateOperation(other)), changed);
    let unknown = CreateOperation { template: Some("log-out".into()), ..request.clone() };
    let refusal = world.refused(Want::CreateOperation(unknown));
    assert!(matches!(refusal, Refusal::Invalid { field: "template", .. }));
    let operation = request.operation;
    world.done(Want::CreateOperation(request));
    world.configure("operation_templates", "{}");
    assert!(world.operation(operation).matching.is_some(), "what was asked stays asked");
}

fn beginning(world: &mut World, registration: Id, nonce: u8) -> BeginOperation {
    BeginOperation {
        operation: world.id(),
        registration,
        level: Level::OneFactor,
        nonce_hash: [nonce; 32],
        client_version: "3.8".into(),
    }
}

#[test]
fn a_device_begins_where_it_may_once_for_a_nonce_and_two_at_most() {
    let mut world = with_template();
    let id = world.active();
    let first = beginning(&mut world, id, 1);
    world.done(Want::BeginOperation(first.clone()));
    let again = BeginOperation { operation: world.id(), ..first.clone() };
    assert!(world.done(Want::BeginOperation(again.clone())).is_empty(), "it has begun");
    let second = beginning(&mut world, id, 2);
    world.done(Want::BeginOperation(second));
    let third = beginning(&mut world, id, 3);
    assert_eq!(world.refused(Want::BeginOperation(third.clone())), Refusal::TooManyOperations);
    let judged = world.judged(first.operation, Method::Device, [OK, None, OK]);
    assert_eq!(judged.operation_state, OperationState::Completed);
    world.done(Want::BeginOperation(third));
    let after = world.refused(Want::BeginOperation(again));
    assert_eq!(after, Refusal::TooManyOperations, "a nonce is forgotten with its operation");
}

#[test]
fn a_device_that_may_not_begin_is_refused() {
    let mut world = with_template();
    let id = world.active();
    let biometric = r#"["DEVICE","DEVICE:BIOMETRIC"]"#;
    world.configure("allowed_methods", biometric);
    let mut two = beginning(&mut world, id, 1);
    two.level = Level::TwoFactor;
    assert_eq!(world.refused(Want::BeginOperation(two)), Refusal::NoMethodFits);
    world.configure("min_client_version", "\"3.9\"");
    let old = beginning(&mut world, id, 1);
    assert_eq!(world.refused(Want::BeginOperation(old)), Refusal::ClientTooOld);
    world.configure("allow_device_initiated", "false");
    let none = beginning(&mut world, id, 1);
    assert_eq!(world.refused(Want::BeginOperation(none.clone())), Refusal::DeviceMayNotBegin);
    let reason = engine::reasons::ReasonGiven::Other;
    world.done(Want::LockRegistration { by: by(BANK), registration: id, reason });
    let locked = Refusal::RegistrationState(engine::reasons::RegistrationState::Locked);
    assert_eq!(world.refused(Want::BeginOperation(none)), locked);
}
