//! Random scripts of commands, and what must hold whatever they are.
//!
//! The independent witness counts from the events alone, without `evolve`.

use std::collections::BTreeMap;

use engine::command::Want;
use engine::entries::{Entry, Key};
use engine::events::Event;
use engine::ids::Id;
use engine::reasons::{OperationState, ReasonGiven, RegistrationState};
use engine::terms::{Decision, HwKeyClientStatus, Level, Method, Verdict};
use proptest::prelude::*;

use crate::world::{BANK, PERSON, World, by};

/// One step of a script. Numbers choose among what exists, modulo its count.
#[derive(Debug, Clone)]
enum Step {
    Activate { hardware: bool },
    Request(u8),
    Reactivate(usize),
    AbandonActivation,
    Ask(usize, bool),
    Broadcast(usize, usize),
    Answer { which: usize, pin: bool, verdicts: [Option<Verdict>; 3], reject: bool },
    AnswerAgain(usize),
    Cancel(usize),
    Lock(usize),
    Unlock(usize),
    Deactivate(usize),
    Erase(u8),
    RecordErased { subject: u8, again: bool },
    Wait(u64),
    Sweep,
}

fn verdict() -> impl Strategy<Value = Option<Verdict>> {
    prop_oneof![
        4 => Just(Some(Verdict::Valid)),
        2 => Just(Some(Verdict::Invalid)),
        1 => Just(Some(Verdict::Malformed)),
        1 => Just(None),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => any::<bool>().prop_map(|hardware| Step::Activate { hardware }),
        1 => (0..PERSONS).prop_map(Step::Request),
        1 => any::<usize>().prop_map(Step::Reactivate),
        1 => Just(Step::AbandonActivation),
        6 => (any::<usize>(), any::<bool>()).prop_map(|(n, two)| Step::Ask(n, two)),
        2 => (any::<usize>(), 1..4_usize).prop_map(|(n, of)| Step::Broadcast(n, of)),
        8 => (any::<usize>(), any::<bool>(), [verdict(), verdict(), verdict()], prop::bool::weighted(0.1))
            .prop_map(|(which, pin, verdicts, reject)| Step::Answer { which, pin, verdicts, reject }),
        1 => any::<usize>().prop_map(Step::AnswerAgain),
        1 => any::<usize>().prop_map(Step::Cancel),
        1 => any::<usize>().prop_map(Step::Lock),
        2 => any::<usize>().prop_map(Step::Unlock),
        1 => any::<usize>().prop_map(Step::Deactivate),
        1 => (0..PERSONS).prop_map(Step::Erase),
        1 => (0..PERSONS, any::<bool>())
            .prop_map(|(subject, again)| Step::RecordErased { subject, again }),
        2 => (0..400_u64).prop_map(Step::Wait),
        2 => Just(Step::Sweep),
    ]
}

/// Few, so that they meet. None is the one of `world.active`, whose registrations
/// the other steps need.
const PERSONS: u8 = 3;

fn person(number: u8) -> Id {
    Id([0x50 + number; 16])
}

fn all(world: &World, pick: fn(&Key) -> Option<Id>) -> Vec<Id> {
    world.state.0.keys().filter_map(pick).collect()
}

fn registrations(world: &World) -> Vec<Id> {
    all(world, |key| if let Key::Registration(id) = key { Some(*id) } else { None })
}

fn operations(world: &World) -> Vec<Id> {
    all(world, |key| if let Key::Operation(id) = key { Some(*id) } else { None })
}

fn pick(items: &[Id], which: usize) -> Option<Id> {
    (!items.is_empty()).then(|| items[which % items.len()])
}

/// Takes one step; a refusal is as good an outcome as any.
fn take(world: &mut World, step: &Step) {
    let registration = |world: &World, n| pick(&registrations(world), n);
    let operation = |world: &World, n| pick(&operations(world), n);
    match step {
        Step::Activate { hardware: true } => {
            world.active();
        }
        Step::Activate { hardware: false } => {
            world.active_without(HwKeyClientStatus::NotSupported, "3.8");
        }
        Step::Request(subject) => {
            let mut request = world.activation_request(None);
            request.subject = person(*subject);
            drop(world.execute(Want::RequestActivation(request)));
        }
        Step::Reactivate(n) => {
            if let Some(id) = registration(world, *n) {
                let request = world.activation_request(Some(id));
                drop(world.execute(Want::RequestActivation(request)));
            }
        }
        Step::AbandonActivation => drop(world.started(None, "3.8")),
        Step::Ask(n, two) => {
            if let Some(id) = registration(world, *n) {
                let level = if *two { Level::TwoFactor } else { Level::OneFactor };
                let request = world.operation_request(id, level);
                drop(world.execute(Want::CreateOperation(request)));
            }
        }
        Step::Broadcast(n, of) => {
            let all = registrations(world);
            let devices: Vec<_> =
                all.iter().copied().cycle().skip(*n % 64).take(all.len().min(*of)).collect();
            let asks = world.broadcast_request(&devices);
            drop(world.execute(Want::Broadcast(asks)));
        }
        Step::Answer { which, pin, verdicts, reject } => {
            if let Some(id) = operation(world, *which) {
                drop(world.start(id));
                let method = if *pin { Method::DevicePin } else { Method::Device };
                let mut answer = world.answer(id, method, *verdicts);
                if *reject {
                    answer.said.decision = Decision::Reject;
                }
                drop(world.execute(Want::FinishAuthentication(Box::new(answer))));
            }
        }
        Step::AnswerAgain(n) => {
            if let Some(id) = operation(world, *n) {
                let answer = world.answer(id, Method::Device, [Some(Verdict::Valid); 3]);
                drop(world.execute(Want::FinishAuthentication(Box::new(answer))));
            }
        }
        Step::Cancel(n) => {
            if let Some(operation) = operation(world, *n) {
                drop(world.execute(Want::CancelOperation { by: by(BANK), operation }));
            }
        }
        Step::Lock(n) => {
            if let Some(registration) = registration(world, *n) {
                let reason = ReasonGiven::Other;
                let lock = Want::LockRegistration { by: by(BANK), registration, reason };
                drop(world.execute(lock));
            }
        }
        Step::Unlock(n) => {
            if let Some(registration) = registration(world, *n) {
                drop(world.execute(Want::UnlockRegistration { by: by(BANK), registration }));
            }
        }
        Step::Deactivate(n) => {
            if let Some(registration) = registration(world, *n) {
                let reason = ReasonGiven::Other;
                let end = Want::DeactivateRegistration { by: by(BANK), registration, reason };
                drop(world.execute(end));
            }
        }
        Step::Erase(subject) => {
            let order = world.erasure(person(*subject));
            drop(world.execute(Want::OrderErasure(order)));
        }
        Step::RecordErased { subject, again } => {
            let subject = person(*subject);
            drop(world.execute(Want::RecordErased { subject, again: *again }));
        }
        Step::Wait(seconds) => world.wait_s(*seconds),
        Step::Sweep => sweep(world),
    }
}

/// What the sequencer does with deadlines that have passed.
fn sweep(world: &mut World) {
    use engine::machine::Machine;
    let due: Vec<_> = world
        .state
        .0
        .keys()
        .filter(|key| engine::Keytrail::deadline(key).is_some_and(|at| at <= world.now))
        .copied()
        .collect();
    for key in due {
        let want = engine::Keytrail::on_deadline(&key, Id::NIL).want;
        assert!(!world.done(want).is_empty(), "what is due happens");
        assert!(!world.state.0.contains_key(&key), "and is due no more");
    }
}

/// Counted failures of each registration, and how each operation ended, from
/// the events alone.
fn witness(world: &World) -> (BTreeMap<Id, u32>, BTreeMap<Id, Vec<OperationState>>) {
    let mut failures = BTreeMap::new();
    let mut ends: BTreeMap<Id, Vec<OperationState>> = BTreeMap::new();
    for record in &world.records {
        let draft = &record.draft;
        let counted: &mut u32 = failures.entry(draft.stream).or_default();
        match Event::decode(draft.event_type, draft.schema, &draft.clear).unwrap() {
            Event::AuthenticationJudged(judged) => {
                let all_methods = judged.failure.is_none() && judged.decision == Decision::Approve;
                if judged.counted {
                    *counted += 1;
                } else if all_methods && judged.method == Method::DevicePin {
                    *counted = 0;
                }
                if judged.operation_state.is_final() {
                    ends.entry(judged.operation).or_default().push(judged.operation_state);
                }
            }
            Event::RegistrationUnlocked(_) => *counted = 0,
            Event::OperationExpired(expired) => {
                ends.entry(expired.operation).or_default().push(OperationState::Expired);
            }
            Event::OperationCancelled(cancelled) => {
                ends.entry(cancelled.operation).or_default().push(OperationState::Cancelled);
            }
            Event::OperationAnsweredElsewhere(over) => {
                ends.entry(over.operation).or_default().push(OperationState::Cancelled);
            }
            _ => (),
        }
    }
    (failures, ends)
}

/// How often the erasure of a person was ordered, from the events alone.
fn orders(world: &World, subject: Id) -> u64 {
    let of = world.records.iter().filter(|record| record.draft.stream == subject);
    of.filter(|record| record.draft.event_type == 60).count() as u64
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_books_balance(script in prop::collection::vec(step(), 0..120)) {
        let mut world = World::new(&[]);
        for step in &script {
            take(&mut world, step);
        }
        let (failures, ends) = witness(&world);
        for (operation, ends) in &ends {
            prop_assert_eq!(ends.len(), 1, "operation {} ended once", operation);
            if let Some(state) = world.look().operation(*operation) {
                prop_assert_eq!(state.state, ends[0]);
            }
        }
        for id in registrations(&world) {
            let registration = world.registration(id);
            prop_assert_eq!(registration.failures, failures[&id]);
            if registration.state == RegistrationState::Active {
                prop_assert!(registration.failures < 3, "the limit is never ACTIVE");
            }
            for open in &registration.open_operations {
                prop_assert!(!world.operation(*open).state.is_final());
            }
        }
        for subject in (0..PERSONS).map(person).chain([PERSON]) {
            let open: Vec<_> = registrations(&world)
                .into_iter()
                .filter(|id| world.registration(*id).subject == subject)
                .filter(|id| world.registration(*id).state != RegistrationState::Deactivated)
                .collect();
            prop_assert_eq!(&world.registrations_of(subject), &open);
            prop_assert_eq!(world.look().registrations_of(subject), open.len() as u64);
            let orders = orders(&world, subject);
            prop_assert_eq!(orders, u64::from(world.look().erasure(subject).is_some()));
            prop_assert!(orders == 0 || open.is_empty(), "who is erased has no registration");
        }
        let bytes: Vec<_> = world.state.0.keys().map(Key::bytes).collect();
        prop_assert!(bytes.is_sorted(), "keys are in the order of their bytes");
        for (key, entry) in &world.state.0 {
            let (Key::Broadcast(_), Entry::Broadcast(broadcast)) = (key, &**entry) else { continue };
            let known = broadcast.operations.iter().filter_map(|id| world.look().operation(*id));
            let states: Vec<_> = known.map(|operation| operation.state).collect();
            let open = states.iter().filter(|state| !state.is_final()).count();
            prop_assert_eq!(broadcast.open as usize, open);
            let answers = [OperationState::Completed, OperationState::Rejected];
            let answered = states.iter().filter(|state| answers.contains(state)).count();
            prop_assert!(answered + usize::from(open > 0) <= 1, "one answer, and then none is open");
        }
        let live = world.state.0.values().filter(|entry| {
            matches!(&***entry, Entry::Activation(activation)
                if activation.state == engine::reasons::ActivationState::Requested)
        });
        prop_assert_eq!(world.application().live_codes, live.count() as u64);
    }
}
