//! What happens at once: one outcome, whoever comes first, and one answer for each
//! who asks. Requests are sent from threads that start together; which of them
//! wins is not known, and must not matter.

use std::sync::Barrier;

use api::device::{
    ActivationOptions, AuthenticationOptions, Phone, authenticate, authenticate_start, pending,
};
use api::wire::device::FinishAuthentication;
use api::wire::provider::{Broadcast, Operation};
use engine::ids::Id;
use engine::reasons::{CancelReason, OperationState};
use serde_json::json;

use super::world::{CHANCE, Side, World};
use crate::client::{Answer, Request, assert_problem};

fn on(operation: Id) -> AuthenticationOptions {
    AuthenticationOptions { operation: Some(operation), ..AuthenticationOptions::default() }
}

fn answer(side: &Side, phone: &Phone, operation: Id) -> FinishAuthentication {
    let answering = authenticate_start(&side.client, phone, &on(operation)).unwrap();
    answering.answer(phone, &on(operation), CHANCE).unwrap()
}

fn finish(operation: Id, body: &FinishAuthentication) -> Request {
    Request::post(&format!("/device/v1/operations/{operation}/finish"), body)
}

/// Sends all at once.
fn at_once(world: &World, requests: &[Request]) -> Vec<Answer> {
    let start = Barrier::new(requests.len());
    std::thread::scope(|scope| {
        let sent: Vec<_> = requests
            .iter()
            .map(|request| {
                scope.spawn(|| {
                    start.wait();
                    world.send(request)
                })
            })
            .collect();
        sent.into_iter().map(|one| one.join().unwrap()).collect()
    })
}

#[test]
fn of_two_finishes_of_one_challenge_one_is_judged_and_the_same_body_gets_its_answer() {
    let world = World::start();
    let side = world.side();
    let phone = side.phone(&ActivationOptions::default());
    for _ in 0..8 {
        let operation = side.operation(&phone).operation_id;
        let answering = authenticate_start(&side.client, &phone, &on(operation)).unwrap();
        let [one, other] = [b"one", b"two"].map(|data| {
            let options =
                AuthenticationOptions { client_data: Some(data.to_vec()), ..on(operation) };
            finish(operation, &answering.answer(&phone, &options, CHANCE).unwrap())
        });
        let answers = at_once(&world, &[one.clone(), one, other.clone(), other]);
        let accepted = answers.iter().filter(|answer| answer.status == 200).count();
        assert_eq!(accepted, 2, "the one that came first, and its repeat");
        assert!(answers[0].status == answers[1].status && answers[2].status == answers[3].status);
        for answer in answers.iter().filter(|answer| answer.status != 200) {
            assert_problem(answer, 409, "operation_state");
        }
        let seen = side.seen_operation(operation);
        assert_eq!((seen.state, seen.attempts.len()), (OperationState::Completed, 1));
    }
    world.stop_and_verify();
}

#[test]
fn a_cancellation_and_a_finish_have_one_outcome() {
    let world = World::start();
    let side = world.side();
    let phone = side.phone(&ActivationOptions::default());
    for _ in 0..8 {
        let operation = side.operation(&phone).operation_id;
        let body = answer(&side, &phone, operation);
        let cancel = Request::post(&format!("/v1/operations/{operation}/cancel"), &json!({}));
        let cancel = cancel.by(&world.callers.bank);
        let answers = at_once(&world, &[finish(operation, &body), cancel]);
        let expected = match (answers[0].status, answers[1].status) {
            (200, 409) => OperationState::Completed,
            (409, 200) => OperationState::Cancelled,
            both => panic!("{both:?}"),
        };
        assert_eq!(side.seen_operation(operation).state, expected);
    }
    world.stop_and_verify();
}

fn broadcast(side: &Side) -> Broadcast {
    let body = json!({
        "application_id": side.callers.application, "user_ref": "anna", "level": "ONE_FACTOR",
        "context": { "type": "text/plain", "octets": "" }, "external_id": "4711",
    });
    side.bank_posts("/v1/broadcasts", &body).ok()
}

fn seen(side: &Side, id: Id) -> Broadcast {
    side.bank_gets(&format!("/v1/broadcasts/{id}?wait_s=30")).ok()
}

fn of<'a>(broadcast: &'a Broadcast, phone: &Phone) -> &'a Operation {
    let mut operations = broadcast.operations.iter();
    operations.find(|operation| operation.registration_id == phone.registration_id()).unwrap()
}

#[test]
fn of_all_devices_that_answer_a_broadcast_at_once_one_wins_and_the_others_are_told() {
    let world = World::start();
    let side = world.side();
    let phones: Vec<_> = (0..3).map(|_| side.phone(&ActivationOptions::default())).collect();
    for _ in 0..4 {
        let asked = broadcast(&side);
        assert_eq!((asked.operations.len(), asked.state), (3, OperationState::Pending));
        let bodies: Vec<_> = phones
            .iter()
            .map(|phone| {
                let id = of(&asked, phone).operation_id;
                finish(id, &answer(&side, phone, id))
            })
            .collect();
        let answers = at_once(&world, &bodies);
        let won: Vec<_> = (0..3).filter(|index| answers[*index].status == 200).collect();
        assert_eq!(won.len(), 1);
        let over = seen(&side, asked.broadcast_id);
        assert_eq!(over.state, OperationState::Completed);
        assert_eq!(over.answered_by, Some(of(&asked, &phones[won[0]]).operation_id));
        for (index, answer) in answers.iter().enumerate() {
            let operation = of(&over, &phones[index]);
            assert_eq!(operation.external_id.as_deref(), Some("4711"));
            if index == won[0] {
                continue;
            }
            assert_problem(answer, 409, "operation_state");
            let detail = answer.value()["detail"].as_str().unwrap().to_owned();
            assert!(detail.contains("another device"), "{detail}");
            assert_eq!(operation.state, OperationState::Cancelled);
            assert_eq!(operation.cancel_reason, Some(CancelReason::AnsweredElsewhere));
            assert!(pending(&side.client, &phones[index], 0).unwrap().is_empty());
        }
    }
    world.stop_and_verify();
}

#[test]
fn a_broadcast_is_answered_after_a_restart_and_cancelled_as_a_whole() {
    let world = World::start();
    let phones: Vec<_> =
        (0..2).map(|_| world.side().phone(&ActivationOptions::default())).collect();
    let asked = broadcast(&world.side());
    let id = of(&asked, &phones[1]).operation_id;
    let body = answer(&world.side(), &phones[1], id);
    let world = world.restart();
    let side = world.side();
    assert_eq!(world.send(&finish(id, &body)).status, 200);
    assert_eq!(seen(&side, asked.broadcast_id).answered_by, Some(id));
    assert_eq!(world.send(&finish(id, &body)).status, 200, "the same answer again");

    let other = broadcast(&side);
    let cancel = format!("/v1/broadcasts/{}/cancel", other.broadcast_id);
    let over: Broadcast = side.bank_posts(&cancel, &json!({})).ok();
    assert_eq!(over.state, OperationState::Cancelled);
    assert!(over.operations.iter().all(|it| it.state == OperationState::Cancelled));
    side.bank_posts(&cancel, &json!({})).ok::<Broadcast>();
    let cancel = format!("/v1/broadcasts/{}/cancel", asked.broadcast_id);
    assert_problem(&side.bank_posts(&cancel, &json!({})), 409, "operation_state");
    world.stop_and_verify();
}

#[test]
fn a_broadcast_needs_a_user_with_a_device_that_can_answer_and_is_made_once_for_a_key() {
    let world = World::start();
    let side = world.side();
    let body = json!({
        "application_id": world.callers.application, "user_ref": "anna", "level": "TWO_FACTOR",
    });
    assert_problem(&side.bank_posts("/v1/broadcasts", &body), 404, "not_found");
    let phone = side.phone(&ActivationOptions::default());
    assert_problem(&side.bank_posts("/v1/broadcasts", &body), 409, "no_method_fits");
    let mut body = body;
    body["level"] = json!("ONE_FACTOR");
    let once = Request::post("/v1/broadcasts", &body).by(&world.callers.bank).once("a");
    let made: Broadcast = world.send(&once).ok();
    let records = side.status().records;
    let id = made.operations[0].operation_id;
    authenticate(&side.client, &phone, &on(id), CHANCE).unwrap();
    let lock = format!("/v1/registrations/{}/lock", phone.registration_id());
    side.bank_posts(&lock, &json!({ "reason": "OTHER" })).ok::<serde_json::Value>();
    let again: Broadcast = world.send(&once).ok();
    assert_eq!(again.broadcast_id, made.broadcast_id, "also when no device is left to ask");
    assert_eq!(side.status().records, records + 3);
    body["user_ref"] = json!("");
    assert_problem(&side.bank_posts("/v1/broadcasts", &body), 404, "not_found");
    world.stop_and_verify();
}

#[test]
fn a_signature_of_one_user_never_finishes_the_operation_of_another() {
    let world = World::start();
    let side = world.side();
    let (anna, other) =
        (side.phone(&ActivationOptions::default()), side.phone(&ActivationOptions::default()));
    let (hers, others) = (side.operation(&anna).operation_id, side.operation(&other).operation_id);
    let (mine, theirs) = (answer(&side, &anna, hers), answer(&side, &other, others));
    // Her whole answer, and her signatures in the other's request.
    assert_problem(&world.send(&finish(others, &mine)), 404, "operation_not_found");
    let mixed = FinishAuthentication { signatures: mine.signatures.clone(), ..theirs.clone() };
    let refused = world.send(&finish(others, &mixed));
    assert_eq!(refused.value()["accepted"], false);
    assert!(!side.seen_operation(others).state.is_final());
    assert_eq!(world.send(&finish(hers, &mine)).value()["accepted"], true);
    world.stop_and_verify();
}
