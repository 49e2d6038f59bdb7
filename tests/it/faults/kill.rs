//! `kill -9` in a loop under load: every answer that a client got still holds,
//! and what it was not told is either whole or not there.

use std::sync::mpsc;

use api::device::{
    ActivationOptions, AuthenticationOptions, Client, HardwareFault, Phone, authenticate,
    authenticate_start,
};
use api::wire::device::{FinishAuthentication, FinishedAuthentication};
use api::wire::provider::Operation;
use engine::ids::Id;
use engine::reasons::OperationState;
use serde_json::json;

use crate::http::world::{CHANCE, Callers, Side, World, again};

const ROUNDS: usize = 12;
const CLIENTS: usize = 3;

/// What a client was told of an operation: how its answers were judged.
#[derive(Debug, Default)]
struct Known {
    judged: Vec<bool>,
}

/// The request whose answer never came.
#[derive(Debug)]
enum Unsure {
    /// Creating or starting something.
    Nothing,
    /// An answer to a challenge, and how it must be judged.
    Finish { operation: Id, body: Box<FinishAuthentication>, accepted: bool },
}

/// What one client heard until the server died.
type Heard = (Vec<(Id, Known)>, Unsure);

/// One phone and its service provider, until the server dies.
struct Load<'a> {
    client: Client,
    callers: &'a Callers,
    phone: &'a Phone,
    told: mpsc::Sender<()>,
    known: Vec<(Id, Known)>,
}

impl Load<'_> {
    /// Log-ins without end; every third has a wrong answer before the right one.
    fn run(mut self) -> Heard {
        for number in 0_u32.. {
            if let Err(unsure) = self.log_in(number % 3 == 2) {
                return (self.known, unsure);
            }
        }
        unreachable!("the server is killed before that");
    }

    fn log_in(&mut self, badly_first: bool) -> Result<(), Unsure> {
        let body =
            json!({ "registration_id": self.phone.registration_id(), "level": "ONE_FACTOR" });
        let created: Result<Operation, _> =
            self.client.post("/v1/operations", &body, Some(&self.callers.bank));
        let operation = self.heard(created.ok()).ok_or(Unsure::Nothing)?.operation_id;
        self.known.push((operation, Known::default()));
        if badly_first {
            self.answer(operation, false)?;
        }
        self.answer(operation, true)
    }

    fn answer(&mut self, operation: Id, accepted: bool) -> Result<(), Unsure> {
        let mut options =
            AuthenticationOptions { operation: Some(operation), ..Default::default() };
        options.misbehaviour.hardware = Some(HardwareFault::BadSignature).filter(|_| !accepted);
        let started = authenticate_start(&self.client, self.phone, &options).ok();
        let started = self.heard(started).ok_or(Unsure::Nothing)?;
        let body = started.answer(self.phone, &options, CHANCE).unwrap();
        let path = format!("/device/v1/operations/{operation}/finish");
        let finished: Result<FinishedAuthentication, _> = self.client.post(&path, &body, None);
        let Some(finished) = self.heard(finished.ok()) else {
            return Err(Unsure::Finish { operation, body: Box::new(body), accepted });
        };
        assert_eq!(finished.accepted, accepted);
        self.known.last_mut().unwrap().1.judged.push(accepted);
        Ok(())
    }

    /// Counts an answer that came.
    fn heard<T>(&self, answer: Option<T>) -> Option<T> {
        if answer.is_some() {
            // The server may be dead already, and nobody counts any more.
            let _ = self.told.send(());
        }
        answer
    }
}

/// Runs the clients and kills the server after so many answers.
fn round(world: World, phones: &[Phone], answers: usize) -> (World, Vec<Heard>) {
    let World { server, home, callers } = world;
    let (told, hears) = mpsc::channel();
    let url = server.url.clone();
    let (launch, results) = std::thread::scope(|scope| {
        let running: Vec<_> = phones
            .iter()
            .map(|phone| {
                let client = Client::new(&url, None).unwrap();
                let told = told.clone();
                let load = Load { client, callers: &callers, phone, told, known: Vec::new() };
                scope.spawn(move || load.run())
            })
            .collect();
        for _ in 0..answers {
            hears.recv().unwrap();
        }
        let launch = server.kill();
        let results = running.into_iter().map(|client| client.join().unwrap()).collect();
        (launch, results)
    });
    (again(&launch, &callers, home), results)
}

/// Everything that was answered is there.
fn check(side: &Side, known: &[(Id, Known)], unsure: &Unsure) {
    for (operation, Known { judged }) in known {
        let seen = side.seen_operation(*operation);
        let found: Vec<_> = seen.attempts.iter().map(|attempt| attempt.failure.is_none()).collect();
        let open = match unsure {
            Unsure::Finish { operation: unsure, accepted, .. } if unsure == operation => {
                Some(*accepted)
            }
            Unsure::Finish { .. } | Unsure::Nothing => None,
        };
        let whole: Vec<_> = judged.iter().copied().chain(open).collect();
        assert!(found == *judged || found == whole, "told {judged:?}, found {found:?}, {unsure:?}");
        match found.last() {
            Some(true) => assert_eq!(seen.state, OperationState::Completed),
            Some(false) | None => assert!(!seen.state.is_final(), "{}", seen.state),
        }
    }
    if let Unsure::Finish { operation, body, accepted } = unsure {
        // The same body has the same answer, whether or not it was judged before.
        let before = side.seen_operation(*operation).attempts.len();
        let path = format!("/device/v1/operations/{operation}/finish");
        let finished: FinishedAuthentication = side.client.post(&path, &**body, None).unwrap();
        assert_eq!(finished.accepted, *accepted);
        let judged =
            known.iter().find(|(id, _)| id == operation).map_or(0, |(_, k)| k.judged.len());
        let after = side.seen_operation(*operation).attempts.len();
        assert_eq!(after, judged + 1, "{before} before it was repeated");
    }
}

/// Finishes what was left open, told of or not; how many answers that took.
fn finish_all(side: &Side, phone: &Phone) -> usize {
    let open = side.seen_registration(phone.registration_id()).pending_operations;
    for &operation in &open {
        let options = AuthenticationOptions { operation: Some(operation), ..Default::default() };
        let outcome = authenticate(&side.client, phone, &options, CHANCE).unwrap();
        assert!(outcome.finished.accepted);
    }
    let registration = side.seen_registration(phone.registration_id());
    assert_eq!((registration.failures, registration.pending_operations.len()), (0, 0));
    open.len()
}

#[test]
fn killed_at_any_moment_the_server_has_kept_every_answer_it_gave() {
    let mut world = World::with(json!({ "failures_allowed": 20 }));
    let phones: Vec<_> =
        (0..CLIENTS).map(|_| world.side().phone(&ActivationOptions::default())).collect();
    let mut judged = 0;
    for number in 0..ROUNDS {
        // Moments that hit every step of a log-in, counted and not timed.
        let answers = 1 + number * 29 % 83;
        let (back, results) = round(world, &phones, answers);
        world = back;
        let side = world.side();
        let heard: usize = results
            .iter()
            .flat_map(|(known, _)| known.iter().map(|(_, known)| known.judged.len()))
            .sum();
        for ((known, unsure), phone) in results.iter().zip(&phones) {
            check(&side, known, unsure);
            judged += known.iter().map(|(_, known)| known.judged.len()).sum::<usize>();
            judged += usize::from(matches!(unsure, Unsure::Finish { .. }));
            judged += finish_all(&side, phone);
        }
        println!("round {number}: killed after {answers} answers, {heard} of them judgements");
    }
    let report = world.stop_and_verify();
    let found = report.events.get("AuthenticationJudged").copied().unwrap_or(0);
    assert_eq!(found, judged as u64, "{report}");
}
