//! Random scripts over the real store, with restarts of every kind in them: live
//! state, rebuilt state and the fold of the log are one, and the books balance.
//!
//! The independent witness counts from the events alone, without `evolve`.

use std::collections::BTreeMap;
use std::path::Path;

use engine::Keytrail;
use engine::command::{
    Command, CreateOperation, FinishAuthentication, RequestActivation, StartActivation,
    StartAuthentication, Want,
};
use engine::entries::{Key, KeyKind, Look};
use engine::events::Event;
use engine::ids::{Id, Position};
use engine::machine::Record;
use engine::proofs::{AuthenticationFacts, Signed};
use engine::reasons::{CodeKind, OperationKind, OperationState, ReasonGiven, RegistrationState};
use engine::terms::{Decision, Level, Method};
use p256::ecdsa::SigningKey;
use proptest::prelude::*;
use storage::fold::fold_state;
use storage::open::{Options, Store};
use storage::sequencer::{Envelope, ExecuteError};

use crate::history::{APP, BANK, History, Phone, Signs, by, declared, options, small_segments};

/// One step of a script. Numbers choose among what exists, modulo its count.
#[derive(Debug, Clone)]
enum Step {
    Activate { hardware: bool },
    AbandonActivation,
    Ask(usize),
    Start(usize),
    Answer(usize, Signs),
    Cancel(usize),
    Lock(usize),
    Unlock(usize),
    Deactivate(usize),
    Wait(u64),
    Sweep,
    Restart(Way),
}

/// How the store comes back.
#[derive(Debug, Clone, Copy)]
enum Way {
    /// Stopped cleanly.
    Stopped,
    /// The process died under the same kernel.
    Died,
    /// It died, and so did the kernel: state on disk is not trusted.
    OtherKernel,
    /// And everything derived is gone.
    LogAlone,
}

fn signs() -> impl Strategy<Value = Signs> {
    prop_oneof![2 => Just(Signs::Well), 4 => Just(Signs::Wrongly), 1 => Just(Signs::Malformed)]
}

fn step() -> impl Strategy<Value = Step> {
    let way = prop_oneof![
        Just(Way::Stopped),
        Just(Way::Died),
        Just(Way::OtherKernel),
        Just(Way::LogAlone)
    ];
    prop_oneof![
        1 => any::<bool>().prop_map(|hardware| Step::Activate { hardware }),
        1 => Just(Step::AbandonActivation),
        5 => any::<usize>().prop_map(Step::Ask),
        2 => any::<usize>().prop_map(Step::Start),
        9 => (any::<usize>(), signs()).prop_map(|(which, signs)| Step::Answer(which, signs)),
        1 => any::<usize>().prop_map(Step::Cancel),
        1 => any::<usize>().prop_map(Step::Lock),
        3 => any::<usize>().prop_map(Step::Unlock),
        1 => any::<usize>().prop_map(Step::Deactivate),
        1 => (0..400_u64).prop_map(Step::Wait),
        1 => Just(Step::Sweep),
        3 => way.prop_map(Step::Restart),
    ]
}

/// A store, its phones, and the operations that were asked for.
struct World {
    /// There but for the moment between two stores.
    history: Option<History>,
    runtime: tokio::runtime::Runtime,
    dir: tempfile::TempDir,
    kernels: u32,
    phones: Vec<Phone>,
    operations: Vec<(Id, usize)>,
}

fn pick<T: Clone>(items: &[T], which: usize) -> Option<T> {
    (!items.is_empty()).then(|| items[which % items.len()].clone())
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let history = History::begin(&dir.path().join("data"), small_segments(8));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (phones, operations) = (Vec::new(), Vec::new());
        Self { history: Some(history), runtime, dir, kernels: 1, phones, operations }
    }

    /// Limits so small that every one of them is met.
    fn options(&self) -> Options {
        let mut options = options(&self.history.as_ref().unwrap().clock, small_segments(8));
        options.boot_id = Some(self.kernels.to_string());
        options.cache_bytes = 4_096;
        options.lag_max = 8;
        options.snapshot_every = 16;
        options
    }

    fn history(&mut self) -> &mut History {
        self.history.as_mut().unwrap()
    }

    fn store(&self) -> &Store<Keytrail> {
        &self.history.as_ref().unwrap().store
    }

    fn look(&self) -> Look<'_> {
        Look(&self.store().state)
    }

    /// Whether it was done; a refusal is as good an outcome as any.
    fn done(&mut self, want: Want) -> bool {
        self.history().clock.pass_s(1);
        let event_id = self.history().id().first_of_command();
        let command = Command { event_id, want };
        let envelope = Envelope { command, causation: event_id, correlation: event_id };
        match self.runtime.block_on(self.store().handle.execute(envelope)) {
            Ok(_) => true,
            Err(ExecuteError::Refused(_)) => false,
            Err(error) => panic!("{error}"),
        }
    }

    fn started_activation(&mut self) -> (Id, Id, [u8; 32]) {
        let (registration, activation) = (self.history().id(), self.history().id());
        let request = RequestActivation {
            by: by(BANK),
            application: APP,
            registration,
            again: false,
            activation,
            code_hash: self.history().bytes(),
            qr_hash: self.history().bytes(),
            subject: Id([7; 16]),
            sealed: vec![6; 40],
        };
        assert!(self.done(Want::RequestActivation(request)));
        let challenge = self.history().bytes();
        let start = StartActivation {
            activation,
            with: CodeKind::Typed,
            nonce_hash: [7; 32],
            challenge,
            client_version: "3.8".into(),
        };
        assert!(self.done(Want::StartActivation(start)));
        (registration, activation, challenge)
    }

    fn activate(&mut self, with_hardware: bool) {
        let number = self.phones.len() as u8 + 1;
        let key = |number| SigningKey::from_slice(&[number; 32]).unwrap();
        let (registration, activation, challenge) = self.started_activation();
        let hardware = with_hardware.then(|| key(0x80 | number));
        let phone = Phone { registration, device: key(number), hardware };
        let finish = self.history().offer(&phone, activation, challenge);
        assert!(self.done(Want::FinishActivation(Box::new(finish))));
        self.phones.push(phone);
    }

    fn ask(&mut self, which: usize) {
        let Some(number) = which.checked_rem(self.phones.len()) else { return };
        let operation = self.history().id();
        let asked = self.done(Want::CreateOperation(CreateOperation {
            context_hash: [5; 32],
            sealed: vec![4; 60],
            ..CreateOperation::new(
                by(BANK),
                operation,
                self.phones[number].registration,
                Level::OneFactor,
            )
        }));
        if asked {
            self.operations.push((operation, number));
        }
    }

    fn start(&mut self, which: usize) {
        let Some((operation, _)) = pick(&self.operations, which) else { return };
        self.challenge(operation);
    }

    fn challenge(&mut self, operation: Id) {
        let challenge = self.history().bytes();
        let client_version = "3.8".into();
        let start = StartAuthentication { operation, challenge, client_version };
        self.done(Want::StartAuthentication(start));
    }

    /// Asks for a challenge and answers it, or one that is none.
    fn answer(&mut self, which: usize, signs: Signs) {
        let pending = |id| self.look().operation(id).is_some_and(|known| !known.state.is_final());
        let open: Vec<_> = self.operations.iter().copied().filter(|(id, _)| pending(*id)).collect();
        // Now and then one that is over.
        let among = if which.is_multiple_of(8) { &self.operations } else { &open };
        let Some((operation, number)) = pick(among, which) else { return };
        self.challenge(operation);
        let live = self.look().operation(operation).and_then(|known| known.challenge);
        let challenge = live.unwrap_or([0; 32]);
        let phone = &self.phones[number];
        let declared = declared(phone);
        let facts = AuthenticationFacts {
            application: APP,
            registration: phone.registration,
            operation,
            challenge,
            kind: OperationKind::Authentication,
            said: Decision::Approve.into(),
            level: Level::OneFactor,
            context_hash: [5; 32],
            data_to_sign_hash: [0; 32],
        };
        let signed = Signed::at_authentication(&facts, &declared).unwrap();
        let verifications = phone.sign(&signed, signs);
        let keys_at = self.look().registration(phone.registration).unwrap().keys_at;
        let body_digest = self.history().bytes();
        self.done(Want::FinishAuthentication(Box::new(FinishAuthentication {
            operation,
            challenge,
            method: Method::Device,
            said: Decision::Approve.into(),
            declared,
            body_digest,
            keys_at,
            verifications,
            sealed: Vec::new(),
        })));
    }

    fn change(&mut self, which: usize, want: impl FnOnce(Id) -> Want) {
        let ids: Vec<_> = self.phones.iter().map(|phone| phone.registration).collect();
        if let Some(id) = pick(&ids, which) {
            self.done(want(id));
        }
    }

    fn take(&mut self, step: &Step) {
        let reason = ReasonGiven::Other;
        match *step {
            // Few of them, so that much happens to each.
            Step::Activate { hardware } if self.phones.len() < 3 => self.activate(hardware),
            Step::Activate { .. } => {}
            Step::AbandonActivation => drop(self.started_activation()),
            Step::Ask(which) => self.ask(which),
            Step::Start(which) => self.start(which),
            Step::Answer(which, signs) => self.answer(which, signs),
            Step::Cancel(which) => {
                if let Some((operation, _)) = pick(&self.operations, which) {
                    self.done(Want::CancelOperation { by: by(BANK), operation });
                }
            }
            Step::Lock(which) => self.change(which, |registration| Want::LockRegistration {
                by: by(BANK),
                registration,
                reason,
            }),
            Step::Unlock(which) => self.change(which, |registration| Want::UnlockRegistration {
                by: by(BANK),
                registration,
            }),
            Step::Deactivate(which) => self.change(which, |registration| {
                Want::DeactivateRegistration { by: by(BANK), registration, reason }
            }),
            Step::Wait(seconds) => self.history().clock.pass_s(seconds),
            Step::Sweep => {
                self.sweep();
            }
            Step::Restart(way) => self.restart(way),
        }
    }

    /// Carries out what is due, at most a group of it; how many deadlines it took up.
    fn sweep(&self) -> usize {
        self.runtime.block_on(self.store().handle.sweep()).unwrap()
    }

    /// Stops and starts the store; what comes back is what was there.
    fn restart(&mut self, way: Way) {
        let before = self.store().digest().unwrap();
        let folder = self.dir.path().join("data");
        match way {
            Way::Stopped | Way::Died => {}
            Way::OtherKernel | Way::LogAlone => self.kernels += 1,
        }
        let options = self.options();
        let end = |store: Store<Keytrail>| match way {
            Way::Stopped => store.close().unwrap(),
            Way::Died | Way::OtherKernel => drop(store),
            Way::LogAlone => {
                drop(store);
                std::fs::remove_dir_all(folder.join("store")).unwrap();
            }
        };
        let history = self.history.take().unwrap();
        self.history = Some(history.reopened(&folder, end, options));
        // Opening looks at the deadlines, so there may be records that were not there.
        let (after, records) = (self.store().digest().unwrap(), self.records());
        let at = |position: Position| {
            fold_state::<Keytrail>(&records[..position.0 as usize]).unwrap().digest()
        };
        assert_eq!(at(before.0), before.1, "{way:?}: nothing before it has changed");
        assert_eq!(at(after.0), after.1, "{way:?}");
        assert_eq!(after.0.0, records.len() as u64);
        balances(self, &records);
    }

    fn records(&self) -> Vec<Record> {
        let log = &self.store().log;
        let read = |at| Record::clone(&log.record(Position(at)).unwrap());
        (0..log.head().size).map(read).collect()
    }

    /// State as it is on disk, read in one go.
    fn failures(&self) -> BTreeMap<Id, (u32, RegistrationState)> {
        let (from, to) = Key::range(KeyKind::Registration);
        let entries = self.store().state.scan(&from, &to, 1_000);
        let registration = |key: Key, entry: &engine::entries::Entry| match (key, entry) {
            (Key::Registration(id), engine::entries::Entry::Registration(found)) => {
                Some((id, (found.failures, found.state)))
            }
            _ => None,
        };
        entries.iter().filter_map(|(key, entry)| registration(*key, entry)).collect()
    }
}

/// Counted failures of each registration, and how each operation ended, from
/// the events alone.
fn witness(records: &[Record]) -> (BTreeMap<Id, u32>, BTreeMap<Id, Vec<OperationState>>) {
    let (mut failures, mut ends) = (BTreeMap::new(), BTreeMap::<Id, Vec<_>>::new());
    for record in records {
        let draft = &record.draft;
        let counted: &mut u32 = failures.entry(draft.stream).or_default();
        match Event::decode(draft.event_type, draft.schema, &draft.clear).unwrap() {
            Event::AuthenticationJudged(judged) => {
                *counted = match judged.failure {
                    None => 0,
                    Some(_) => *counted + u32::from(judged.counted),
                };
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

fn balances(world: &World, records: &[Record]) {
    let (failures, ends) = witness(records);
    for (id, (found, state)) in world.failures() {
        assert_eq!(found, failures[&id], "{id}");
        assert!(state != RegistrationState::Active || found < 2, "the limit is never ACTIVE");
    }
    for (operation, _) in &world.operations {
        let ended = ends.get(operation).map_or(&[][..], Vec::as_slice);
        assert!(ended.len() <= 1, "operation {operation} ended {ended:?}");
        if let Some(known) = world.look().operation(*operation) {
            match ended.first() {
                Some(end) => assert_eq!(known.state, *end),
                None => assert!(!known.state.is_final()),
            }
        }
    }
}

/// Everything that is one: the store, the fold of its log, and what is made again.
fn agrees(world: World) {
    // The stop below carries out what is due, and then it would be later than `live`.
    while world.sweep() > 0 {}
    let live = world.store().digest().unwrap();
    let records = world.records();
    balances(&world, &records);
    let folded = fold_state::<Keytrail>(&records).unwrap();
    assert_eq!((folded.position(), folded.digest()), live);
    let (options, folder) = (world.options(), world.dir.path().join("data"));
    world.history.unwrap().store.close().unwrap();
    let rebuilt = storage::open::rebuild::<Keytrail>(&folder, &options).unwrap();
    assert_eq!((rebuilt.position, rebuilt.before), live);
    assert_eq!(rebuilt.after, rebuilt.before);
    verified(&folder);
}

fn verified(folder: &Path) {
    let report = replay::verify(folder, &replay::verify::Options::default()).unwrap();
    assert!(report.holds, "{report}");
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 12, max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default()
    })]

    #[test]
    fn live_rebuilt_and_folded_state_are_one_whatever_happens(
        script in prop::collection::vec(step(), 20..70),
    ) {
        let mut world = World::new();
        world.activate(true);
        for step in &script {
            world.take(step);
        }
        agrees(world);
    }
}

/// One that meets every way back right after something that must not be lost.
#[test]
fn a_lock_survives_every_way_back() {
    for way in [Way::Stopped, Way::Died, Way::OtherKernel, Way::LogAlone] {
        let mut world = World::new();
        world.take(&Step::Activate { hardware: true });
        for _ in 0..2 {
            world.take(&Step::Ask(0));
            world.take(&Step::Start(usize::MAX));
            let last = world.operations.len() - 1;
            world.take(&Step::Start(last));
            world.take(&Step::Restart(way));
            world.take(&Step::Answer(last, Signs::Wrongly));
            world.take(&Step::Restart(way));
        }
        let id = world.phones[0].registration;
        assert_eq!(world.failures()[&id], (2, RegistrationState::Locked), "{way:?}");
        agrees(world);
    }
}
