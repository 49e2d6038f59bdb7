//! What happens at once: one outcome, whoever comes first, and one answer for each
//! who asks. Requests are sent from threads that start together; which of them
//! wins is not known, and must not matter.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Barrier};

use api::device::{
    ActivationOptions, AuthenticationOptions, Phone, authenticate, authenticate_start, pending,
};
use api::wire::device::FinishAuthentication;
use api::wire::provider::{Broadcast, Operation};
use engine::events::Event;
use engine::ids::Id;
use engine::reasons::{CancelReason, OperationState, RegistrationState};
use serde_json::{Value, json};

use super::expiry::{NOON, Timed};
use super::world::{CHANCE, Side, World, again};
use crate::client::{Answer, Request, assert_problem, connect};
use crate::history::Counter;

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
    together(world.address(), requests)
}

fn together(to: SocketAddr, requests: &[Request]) -> Vec<Answer> {
    let start = Barrier::new(requests.len());
    std::thread::scope(|scope| {
        let sent: Vec<_> = requests
            .iter()
            .map(|request| {
                scope.spawn(|| {
                    start.wait();
                    request.send(to)
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

/// How each operation of a log ended: one state for each event that ended it.
fn ends(events: &[Event]) -> BTreeMap<Id, Vec<OperationState>> {
    let mut ends: BTreeMap<Id, Vec<OperationState>> = BTreeMap::new();
    for event in events {
        let (operation, state) = match event {
            Event::AuthenticationJudged(it) if it.operation_state.is_final() => {
                (it.operation, it.operation_state)
            }
            Event::OperationExpired(it) => (it.operation, OperationState::Expired),
            Event::OperationCancelled(it) => (it.operation, OperationState::Cancelled),
            Event::OperationAnsweredElsewhere(it) => (it.operation, OperationState::Cancelled),
            _ => continue,
        };
        ends.entry(operation).or_default().push(state);
    }
    ends
}

/// What comes at the same moment as the answer of a device.
#[derive(Debug, Clone, Copy)]
enum Against {
    Cancel,
    Lock,
    Deactivate,
    Erase,
}

fn against(timed: &Timed, phone: &Phone, operation: Id, what: Against) -> Request {
    let registration = phone.registration_id();
    let reason = json!({ "reason": "DEVICE_LOST" });
    let request = match what {
        Against::Cancel => Request::post(&format!("/v1/operations/{operation}/cancel"), &json!({})),
        Against::Lock => Request::post(&format!("/v1/registrations/{registration}/lock"), &reason),
        Against::Deactivate => {
            Request::post(&format!("/v1/registrations/{registration}/deactivate"), &reason)
        }
        Against::Erase => Request::new("DELETE", "/v1/users/anna"),
    };
    request.by(&timed.callers.bank)
}

/// What the answers say became of the operation; none if it is still open.
fn told(what: Against, finish: &Answer, other: &Answer) -> Option<OperationState> {
    match (finish.status, what) {
        (200, Against::Cancel) => assert_problem(other, 409, "operation_state"),
        (200, Against::Lock | Against::Deactivate | Against::Erase) => {
            assert_eq!(other.status, 200, "{what:?}: {}", other.text());
        }
        (403, Against::Lock) => {
            assert_problem(finish, 403, "registration_locked");
            return None;
        }
        (_, Against::Cancel | Against::Deactivate | Against::Erase) => {
            let (status, code) = finish.problem();
            let over = [(409, "operation_state"), (404, "operation_not_found")];
            assert!(over.contains(&(status, &*code)), "{what:?}: {}", finish.text());
            return Some(OperationState::Cancelled);
        }
        (status, Against::Lock) => panic!("{status}: {}", finish.text()),
    }
    Some(OperationState::Completed)
}

#[test]
fn an_answer_and_whatever_comes_at_the_same_moment_have_one_outcome_and_the_log_says_which() {
    let timed = Timed::start(Counter::at(NOON) as _, json!({}));
    let side = timed.side();
    let mut expected = BTreeMap::new();
    for round in 0..24 {
        let what = [Against::Cancel, Against::Lock, Against::Deactivate, Against::Erase][round % 4];
        let phone = side.phone(&ActivationOptions::default());
        let operation = side.operation(&phone).operation_id;
        let body = answer(&side, &phone, operation);
        let requests = [finish(operation, &body), against(&timed, &phone, operation, what)];
        // Who waits for the outcome is told the one that there is.
        let waiting = Request::get(&format!("/v1/operations/{operation}?wait_s=30"));
        let (outcome, waited) = std::thread::scope(|scope| {
            let waiting = waiting.by(&timed.callers.bank);
            let waiting = scope.spawn(move || waiting.send(side.address));
            let answers = together(side.address, &requests);
            let outcome = told(what, &answers[0], &answers[1]).unwrap_or_else(|| {
                let unlock = format!("/v1/registrations/{}/unlock", phone.registration_id());
                side.bank_posts(&unlock, &json!({})).ok::<Value>();
                let late = requests[0].send(side.address);
                assert_eq!(late.status, 200, "the challenge was still live: {}", late.text());
                OperationState::Completed
            });
            (outcome, waiting.join().unwrap())
        });
        assert_eq!(waited.ok::<Operation>().state, outcome, "{what:?}");
        assert_eq!(side.seen_operation(operation).state, outcome, "{what:?}");
        expected.insert(operation, vec![outcome]);
    }
    assert_eq!(ends(&timed.events()), expected);
    timed.stop();
}

#[test]
fn an_answer_and_a_deadline_that_passes_at_the_same_moment_have_one_outcome() {
    let clock = Counter::at(NOON);
    let timed = Timed::start(Arc::clone(&clock) as _, json!({ "operation_lifetime_s": 30 }));
    let side = timed.side();
    let phone = side.phone(&ActivationOptions::default());
    let mut expected = BTreeMap::new();
    for _ in 0..16 {
        let operation = side.operation(&phone).operation_id;
        let request = finish(operation, &answer(&side, &phone, operation));
        clock.pass_s(29);
        let start = Barrier::new(2);
        let answered = std::thread::scope(|scope| {
            let sent = scope.spawn(|| {
                start.wait();
                request.send(side.address)
            });
            start.wait();
            clock.pass_s(1);
            timed.sweep();
            sent.join().unwrap()
        });
        let outcome = match answered.status {
            200 => OperationState::Completed,
            _ => {
                assert_problem(&answered, 409, "operation_state");
                assert_eq!(answered.value()["detail"], "it is EXPIRED");
                OperationState::Expired
            }
        };
        assert_eq!(side.seen_operation(operation).state, outcome);
        expected.insert(operation, vec![outcome]);
    }
    assert_eq!(ends(&timed.events()), expected);
    timed.stop();
}

#[test]
fn answers_that_were_lost_with_the_server_are_given_again_and_nothing_is_judged_twice() {
    let world = World::start();
    let side = world.side();
    let phones: Vec<_> = (0..4).map(|_| side.phone(&ActivationOptions::default())).collect();
    let requests: Vec<_> = phones
        .iter()
        .flat_map(|phone| [(); 4].map(|()| (phone, side.operation(phone).operation_id)))
        .map(|(phone, operation)| (operation, finish(operation, &answer(&side, phone, operation))))
        .collect();
    // All are sent, no answer is read, and the server dies with whatever it has done.
    let open: Vec<_> = requests
        .iter()
        .map(|(_, request)| {
            let mut stream = connect(world.address());
            stream.write_all(&request.octets_on_the_wire()).unwrap();
            stream
        })
        .collect();
    let World { server, home, callers } = world;
    let launch = server.kill();
    drop(open);
    let world = again(&launch, &callers, home);
    for (operation, request) in &requests {
        let answers = at_once(&world, &[request.clone(), request.clone(), request.clone()]);
        for answer in &answers {
            assert_eq!(answer.value()["accepted"], true, "{}", answer.text());
            assert_eq!(answer.body, answers[0].body);
        }
        assert_eq!(world.side().seen_operation(*operation).attempts.len(), 1);
    }
    let report = world.stop_and_verify();
    assert_eq!(report.events.get("AuthenticationJudged"), Some(&(requests.len() as u64)));
}

#[test]
fn two_phones_with_one_code_and_two_key_sets_for_one_activation_leave_one_registration() {
    let world = World::start();
    let side = world.side();
    for _ in 0..4 {
        let requested = side.request_activation();
        let redeem = |nonce: u8| {
            let body = json!({
                "application_id": world.callers.application, "code": requested.code,
                "nonce": api::wire::Octets32([nonce; 32]), "client_version": "3.8",
            });
            Request::post("/device/v1/activations/start", &body)
        };
        let answers = at_once(&world, &[redeem(1), redeem(1), redeem(2), redeem(2)]);
        let redeemed: Vec<_> = answers.iter().filter(|answer| answer.status == 200).collect();
        assert_eq!(redeemed.len(), 2, "the one that came first, and its repeat");
        assert_eq!(redeemed[0].body, redeemed[1].body);
        let refused = answers.iter().filter(|answer| answer.status != 200);
        refused.for_each(|answer| assert_problem(answer, 404, "activation_not_found"));
    }
    let redemption = side.redemption();
    let activating = redemption.start(&side.client).unwrap();
    let offers = [(); 2].map(|()| {
        let options = ActivationOptions::default();
        activating.offer(&world.server.url, &options, None, CHANCE).unwrap()
    });
    let start = Barrier::new(2);
    let taken = std::thread::scope(|scope| {
        let sent = offers.each_ref().map(|offer| {
            let (start, client) = (&start, &side.client);
            scope.spawn(move || {
                start.wait();
                offer.finish(client).is_ok_and(|(_, finished)| finished.accepted)
            })
        });
        sent.map(|one| one.join().unwrap())
    });
    assert_eq!(taken.iter().filter(|taken| **taken).count(), 1, "{taken:?}");
    let registration = side.seen_registration(activating.started().registration_id);
    assert_eq!(registration.state, RegistrationState::Active);
    let report = world.stop_and_verify();
    assert_eq!(report.events.get("ActivationJudged"), Some(&1));
}
