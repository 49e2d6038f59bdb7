//! Approval without a network: questions, codes, and what follows, on both sides
//! of each edge.

use engine::command::{BeginOperation, FinishOffline, Refusal, Want};
use engine::events::{Event, MatchingV1};
use engine::ids::{Id, Micros};
use engine::offline::{CONTENTS_MAX, Facts, NotAQuestion, Obstacle, OfflineCode, Question, secret};
use engine::reasons::{
    AuthenticationFailure, Confirmation, OperationKind, OperationState, ReasonGiven,
    RegistrationState,
};
use engine::sealed::{Salted, Shown};
use engine::terms::{HwKeyClientStatus, HwKeyServerResult, Level, Method, Verdict};

use crate::world::{BANK, DEVICE_KEY, PIN_KEY, World, by};

const BOTH: &str = r#"["ONE_FACTOR","TWO_FACTOR"]"#;

fn names(events: &[Event]) -> Vec<&'static str> {
    events.iter().map(Event::name).collect()
}

/// A registration that may answer offline, and an operation with its question.
fn asked(properties: &[(&str, &str)], level: Level) -> (World, Id, Id) {
    let mut world = World::new(&[&[("offline_levels", BOTH)], properties].concat());
    let id = world.active();
    let operation = world.asked(id, level);
    assert_eq!(names(&world.ask_offline(operation).unwrap()), ["OfflineAsked"]);
    (world, id, operation)
}

fn judged(world: &mut World, code: FinishOffline) -> Vec<Event> {
    world.done(Want::FinishOffline(code))
}

#[test]
fn a_right_code_completes_the_operation_and_says_that_nothing_was_signed() {
    let (mut world, id, operation) = asked(&[], Level::TwoFactor);
    assert_eq!(world.ask_offline(operation).unwrap(), [], "one question is outstanding");
    let code = world.code(operation, Method::DevicePin, true);
    assert_eq!(names(&judged(&mut world, code)), ["OfflineJudged"]);
    let over = world.operation(operation);
    assert_eq!((over.state, over.offline_nonce), (OperationState::Completed, None));
    assert!(over.attempts[0].offline && over.attempts[0].failure.is_none());
    assert_eq!(over.hw_key_server_result, HwKeyServerResult::SignatureMissing);
    assert!(world.registration(id).last_used_at.is_some());
    let again = world.ask_offline(operation).unwrap_err();
    assert_eq!(again, Refusal::OperationState(OperationState::Completed));
}

#[test]
fn a_question_is_judged_once_and_the_same_code_is_told_the_same() {
    let (mut world, _, operation) = asked(&[], Level::OneFactor);
    let wrong = world.code(operation, Method::Device, false);
    let other = world.code(operation, Method::Device, true);
    judged(&mut world, wrong.clone());
    let seen = world.operation(operation);
    assert_eq!((seen.state, seen.offline_nonce), (OperationState::Pending, None));
    assert_eq!(seen.attempts[0].failure, Some(AuthenticationFailure::OfflineCodeWrong));
    assert_eq!(world.refused(Want::FinishOffline(wrong)), Refusal::JudgedBefore);
    assert_eq!(world.refused(Want::FinishOffline(other.clone())), Refusal::ChallengeNotLive);
    world.ask_offline(operation).unwrap();
    // What was typed for the former question is no answer to this one.
    assert_eq!(world.refused(Want::FinishOffline(other)), Refusal::ChallengeNotLive);
    let right = world.code(operation, Method::Device, true);
    judged(&mut world, right);
    assert_eq!(world.operation(operation).state, OperationState::Completed);
}

#[test]
fn a_wrong_code_counts_like_a_wrong_pin_and_the_last_one_allowed_locks() {
    let (mut world, id, operation) = asked(&[("failures_allowed", "3")], Level::TwoFactor);
    let ok = [Some(Verdict::Valid), None, Some(Verdict::Valid)];
    let online = world.asked(id, Level::TwoFactor);
    world.judged(online, Method::DevicePin, [Some(Verdict::Invalid), None, Some(Verdict::Valid)]);
    assert_eq!(world.registration(id).failures, 1);
    let wrong = world.code(operation, Method::DevicePin, false);
    assert_eq!(names(&judged(&mut world, wrong)), ["OfflineJudged"]);
    assert_eq!(world.registration(id).failures, 2);
    world.ask_offline(operation).unwrap();
    let last = world.code(operation, Method::DevicePin, false);
    assert_eq!(names(&judged(&mut world, last)), ["OfflineJudged", "RegistrationLocked"]);
    let registration = world.registration(id);
    assert_eq!((registration.state, registration.failures), (RegistrationState::Locked, 3));
    assert_eq!(world.operation(operation).state, OperationState::Failed);
    // A locked registration is asked and answers nothing.
    let locked = Refusal::RegistrationState(RegistrationState::Locked);
    assert_eq!(world.ask_offline(online).unwrap_err(), locked);
    world.done(Want::UnlockRegistration { by: by(BANK), registration: id });
    world.judged(online, Method::DevicePin, ok);
}

#[test]
fn two_factors_forgive_and_one_does_not() {
    for (method, left) in [(Method::DevicePin, 0), (Method::Device, 1)] {
        let (mut world, id, operation) = asked(&[], Level::OneFactor);
        let wrong = world.code(operation, Method::Device, false);
        judged(&mut world, wrong);
        world.ask_offline(operation).unwrap();
        let right = world.code(operation, method, true);
        judged(&mut world, right);
        assert_eq!(world.registration(id).failures, left, "{method}");
    }
}

#[test]
fn the_tenth_judged_code_fails_the_operation() {
    let (mut world, _, operation) = asked(&[("failures_allowed", "20")], Level::OneFactor);
    for judged_so_far in 1..=10 {
        let wrong = world.code(operation, Method::Device, false);
        judged(&mut world, wrong);
        let state = world.operation(operation).state;
        assert_eq!(state == OperationState::Failed, judged_so_far == 10, "{judged_so_far}");
        drop(world.ask_offline(operation));
    }
}

#[test]
fn network_and_code_race_for_one_operation_and_one_wins() {
    let ok = [Some(Verdict::Valid), None, Some(Verdict::Valid)];
    for code_first in [true, false] {
        let (mut world, _, operation) = asked(&[], Level::OneFactor);
        world.start(operation).unwrap();
        let answer =
            Want::FinishAuthentication(Box::new(world.answer(operation, Method::Device, ok)));
        let code = Want::FinishOffline(world.code(operation, Method::Device, true));
        let (first, second) = if code_first { (code, answer) } else { (answer, code) };
        world.done(first);
        let over = Refusal::OperationState(OperationState::Completed);
        assert_eq!(world.refused(second), over);
        assert_eq!(world.operation(operation).attempts.len(), 1);
    }
    // A wrong code leaves the challenge that is with the device.
    let (mut world, _, operation) = asked(&[], Level::OneFactor);
    world.start(operation).unwrap();
    let answer = world.answer(operation, Method::Device, ok);
    let wrong = world.code(operation, Method::Device, false);
    judged(&mut world, wrong);
    assert_eq!(world.operation(operation).state, OperationState::Started);
    world.done(Want::FinishAuthentication(Box::new(answer)));
    assert_eq!(world.operation(operation).state, OperationState::Completed);
}

#[test]
fn a_code_at_the_deadline_is_too_late_and_one_before_it_is_not() {
    for (waited, expected) in [(299, "OfflineJudged"), (300, "OperationExpired")] {
        let (mut world, _, operation) = asked(&[], Level::OneFactor);
        let code = world.code(operation, Method::Device, true);
        world.wait_s(waited);
        assert_eq!(names(&judged(&mut world, code)), [expected]);
    }
    let (mut world, id, _) = asked(&[], Level::OneFactor);
    let operation = world.asked(id, Level::OneFactor);
    world.wait_s(300);
    assert_eq!(names(&world.ask_offline(operation).unwrap()), ["OperationExpired"]);
}

#[track_caller]
fn obstacle(world: &mut World, operation: Id, expected: Obstacle) {
    let refused = world.ask_offline(operation).unwrap_err();
    assert_eq!(refused, Refusal::OfflineNotPossible(expected));
}

#[test]
fn only_levels_that_the_application_names_are_answered_offline_at_every_step() {
    let (mut world, id, operation) = asked(&[], Level::OneFactor);
    let two = world.asked(id, Level::TwoFactor);
    world.configure("offline_levels", r#"["ONE_FACTOR"]"#);
    obstacle(&mut world, two, Obstacle::Level);
    world.configure("offline_levels", "[]");
    let code = world.code(operation, Method::Device, true);
    let refused = world.refused(Want::FinishOffline(code));
    assert_eq!(refused, Refusal::OfflineNotPossible(Obstacle::Level));
}

#[test]
fn what_a_code_cannot_carry_is_not_asked_and_neither_is_a_phone_without_secrets() {
    let properties = [("allow_device_initiated", "true")];
    let mut world = World::new(&properties);
    let before = world.active();
    world.configure("offline_levels", BOTH);
    let operation = world.asked(before, Level::OneFactor);
    obstacle(&mut world, operation, Obstacle::NoSecret);
    let id = world.active();
    let mut matching = world.operation_request(id, Level::OneFactor);
    let how = Confirmation::ProximityCode;
    matching.matching = Some(MatchingV1 { how, number: 7, choices: Vec::new() });
    let operation = matching.operation;
    world.done(Want::CreateOperation(matching));
    obstacle(&mut world, operation, Obstacle::Confirmation);
    let operation = world.id();
    world.done(Want::BeginOperation(BeginOperation {
        operation,
        registration: id,
        kind: OperationKind::Authentication,
        level: Level::OneFactor,
        nonce_hash: [1; 32],
        client_version: "3.8".into(),
    }));
    obstacle(&mut world, operation, Obstacle::Begun);
    let mut change = world.operation_request(id, Level::TwoFactor);
    change.kind = OperationKind::ReplaceMethod;
    change.target = Some(Method::DevicePin);
    let operation = change.operation;
    world.done(Want::CreateOperation(change));
    obstacle(&mut world, operation, Obstacle::KeyChange);
}

#[test]
fn a_method_that_may_not_answer_or_has_no_key_is_not_judged() {
    let (mut world, _, operation) = asked(&[], Level::TwoFactor);
    for method in [Method::Device, Method::DeviceBiometric] {
        let code = world.code(operation, method, false);
        assert_eq!(world.refused(Want::FinishOffline(code)), Refusal::MethodNotOffered);
    }
    assert!(world.operation(operation).offline_nonce.is_some(), "the question is still good");
    let mut stale = world.code(operation, Method::DevicePin, true);
    stale.keys_at.0 += 1;
    assert_eq!(world.refused(Want::FinishOffline(stale)), Refusal::Stale);
}

#[test]
fn where_hardware_keys_are_required_no_level_can_be_named() {
    for strategy in ["REQUIRED", "REQUIRED_IF_SUPPORTED"] {
        let mut world = World::new(&[]);
        world.configure("offline_levels", BOTH);
        let version = world.application().config_version;
        let refused =
            world.refused(Want::ChangeConfiguration(engine::command::ChangeConfiguration {
                by: by(crate::world::ADMIN),
                application: crate::world::APP,
                version,
                properties: vec![("hw_key_validation_strategy".into(), format!("\"{strategy}\""))],
            }));
        assert!(matches!(refused, Refusal::Configuration(_)), "{strategy}");
    }
}

#[test]
fn other_keys_and_a_lock_and_a_cancellation_leave_no_question_to_answer() {
    let (mut world, id, operation) = asked(&[], Level::OneFactor);
    let code = world.code(operation, Method::Device, true);
    let (registration, reason) = (id, ReasonGiven::Other);
    world.done(Want::LockRegistration { by: by(BANK), registration, reason });
    let locked = Refusal::RegistrationState(RegistrationState::Locked);
    assert_eq!(world.refused(Want::FinishOffline(code.clone())), locked);
    world.done(Want::UnlockRegistration { by: by(BANK), registration });
    world.done(Want::CancelOperation { by: by(BANK), operation });
    let over = Refusal::OperationState(OperationState::Cancelled);
    assert_eq!(world.refused(Want::FinishOffline(code)), over);
    let without = world.active_without(HwKeyClientStatus::NotSupported, "3.8");
    let operation = world.asked(without, Level::OneFactor);
    world.ask_offline(operation).unwrap();
    let code = world.code(operation, Method::Device, true);
    judged(&mut world, code);
    let seen = world.operation(operation).hw_key_server_result;
    assert_eq!(seen, HwKeyServerResult::NoKeyRegistered);
}

fn question(contents: usize) -> Question {
    let content = Salted { salt: [5; 32], octets: vec![b'x'; contents] };
    let (title, media_type) = ("Pay".to_owned(), "text/plain".to_owned());
    Question {
        application: Id([1; 16]),
        registration: Id([2; 16]),
        operation: Id([3; 16]),
        nonce: [4; 16],
        expires_at: Micros(1_700_000_000_000_000),
        kind: OperationKind::Transaction,
        level: Level::TwoFactor,
        context: Some(Shown { title, media_type, content }),
        data_to_sign: None,
    }
}

#[test]
fn a_question_reads_back_in_one_spelling_and_has_an_end() {
    let around = "Pay".len() + "text/plain".len();
    let largest = question(CONTENTS_MAX - around);
    assert!(question(CONTENTS_MAX - around + 1).bytes().is_none());
    let data = Some(Salted { salt: [6; 32], octets: Vec::new() });
    let bare = Question { context: None, ..question(0) };
    for question in [largest, bare.clone(), Question { data_to_sign: data, ..bare }] {
        let bytes = question.bytes().unwrap();
        assert!(bytes.len() <= 1_300, "{} bytes fit a QR code", bytes.len());
        assert_eq!(Question::parse(&bytes), Ok(question));
        for end in 0..bytes.len() {
            // A question may end after its context, and is another one then.
            if let Ok(cut) = Question::parse(&bytes[..end]) {
                assert_eq!(cut.bytes().as_deref(), Some(&bytes[..end]));
                assert_eq!(cut.data_to_sign, None);
            }
        }
        assert_eq!(Question::parse(&[&bytes[..], &[0]].concat()), Err(NotAQuestion));
    }
}

#[test]
fn a_code_is_bound_to_its_key_method_question_and_contents() {
    let facts = question(3).facts();
    let master = [7; 32];
    let registration = facts.registration;
    let pin = secret(&master, registration, Method::DevicePin, &PIN_KEY);
    let code = OfflineCode::of(&pin, Method::DevicePin, &facts);
    assert_eq!((code.as_str().len(), code.method()), (10, Some(Method::DevicePin)));
    assert!(code.is(&OfflineCode::of(&pin, Method::DevicePin, &facts)));
    let mut others = vec![
        OfflineCode::of(&pin, Method::Device, &facts),
        OfflineCode::of(&pin, Method::DevicePin, &question(4).facts()),
        OfflineCode::of(&pin, Method::DevicePin, &Facts { nonce: [9; 16], ..facts }),
        OfflineCode::of(&pin, Method::DevicePin, &Facts { operation: Id([9; 16]), ..facts }),
        OfflineCode::of(&pin, Method::DevicePin, &Facts { registration: Id([9; 16]), ..facts }),
        OfflineCode::of(&pin, Method::DevicePin, &Facts { application: Id([9; 16]), ..facts }),
        OfflineCode::of(&pin, Method::DevicePin, &Facts { level: Level::OneFactor, ..facts }),
        OfflineCode::of(&pin, Method::DevicePin, &Facts { data_to_sign_hash: [1; 32], ..facts }),
        OfflineCode::of(
            &pin,
            Method::DevicePin,
            &Facts { kind: OperationKind::Authentication, ..facts },
        ),
    ];
    for other in [
        secret(&[8; 32], registration, Method::DevicePin, &PIN_KEY),
        secret(&master, Id([9; 16]), Method::DevicePin, &PIN_KEY),
        secret(&master, registration, Method::Device, &PIN_KEY),
        secret(&master, registration, Method::DevicePin, &DEVICE_KEY),
    ] {
        others.push(OfflineCode::of(&other, Method::DevicePin, &facts));
    }
    assert!(others.iter().all(|other| !code.is(other)));
    assert_eq!(format!("{code:?}"), "[redacted]");
}

#[test]
fn a_slip_of_the_finger_is_no_code_and_blanks_do_not_matter() {
    let pin = secret(&[7; 32], Id([1; 16]), Method::DevicePin, &PIN_KEY);
    let code = OfflineCode::of(&pin, Method::DevicePin, &question(3).facts());
    let digits = code.as_str();
    let spaced = format!("{} {}-{}", &digits[..1], &digits[1..5], &digits[5..]);
    assert_eq!(OfflineCode::parse(&spaced), Some(code.clone()));
    for place in 0..digits.len() {
        for digit in '0'..='9' {
            let mut typed: Vec<char> = digits.chars().collect();
            typed[place] = digit;
            let typed: String = typed.into_iter().collect();
            assert_eq!(OfflineCode::parse(&typed).is_some(), typed == digits, "{typed}");
        }
    }
    for bad in ["", "12345", &format!("{digits}0"), &digits[..9], "1234567x97", "0000000000"] {
        assert_eq!(OfflineCode::parse(bad), None, "{bad}");
    }
    assert!(OfflineCode::parse("9000000001").is_none(), "no method has the digit 9");
}

/// The layout of docs/protocol.md, put together by hand.
#[test]
fn a_code_is_an_hmac_over_the_fields_that_the_protocol_lists() {
    let facts = Question { context: None, ..question(0) }.facts();
    let mut fields = Vec::new();
    for field in [
        &b"keytrail/offline/code/v1"[..],
        &[1; 16],
        &[2; 16],
        &[3; 16],
        &[4; 16],
        b"transaction",
        b"TWO_FACTOR",
        b"DEVICE:PIN",
        b"approve",
        &[0; 32],
        &[0; 32],
    ] {
        fields.extend_from_slice(&(field.len() as u32).to_be_bytes());
        fields.extend_from_slice(field);
    }
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &[9; 32]);
    let tag = aws_lc_rs::hmac::sign(&key, &fields);
    let head = u64::from_be_bytes(tag.as_ref()[..8].try_into().unwrap());
    let code = OfflineCode::of(&[9; 32], Method::DevicePin, &facts);
    assert_eq!(code.as_str()[..9], format!("2{:08}", head % 100_000_000));
}
