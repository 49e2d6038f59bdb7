//! Two and three things that happen at once, in every order.
//!
//! The sequencer makes an order of what happens at once, so whoever has seen
//! every order has seen every race. Each contest begins with one question to two
//! devices, both with their challenge; the contenders hold what they will send
//! before any of them is heard. Between any two of a pair the server starts again:
//! state is folded from the records alone.
//!
//! What must hold is counted in the records, not asked of the state: each
//! operation and each activation ends by exactly one event.

use std::collections::BTreeMap;

use engine::Keytrail;
use engine::command::{FinishActivation, FinishAuthentication, Refusal, StartActivation, Want};
use engine::events::Event;
use engine::ids::Id;
use engine::key::KeyBytes;
use engine::machine::Machine;
use engine::reasons::{
    ActivationState, CodeKind, OperationState, ReasonGiven, RegistrationState, RejectReason,
};
use engine::terms::{Decision, Level, Method, Role, Verdict};
use engine::transcript::Said;

use crate::world::{BANK, HARDWARE_KEY, PERSON, State, World, by, checked};

const OK: Option<Verdict> = Some(Verdict::Valid);
const BAD: Option<Verdict> = Some(Verdict::Invalid);

/// What can happen to a started operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Contender {
    /// The device approves.
    Approve,
    /// The very same request again.
    Repeat,
    /// Another answer to the same challenge, as good as the first.
    Other,
    /// The user says no.
    Reject,
    /// A signature that does not verify, beside one of the device.
    Wrong,
    /// Valid signatures by the keys of another user's registration.
    Stranger,
    /// The other device of the same question approves.
    Elsewhere,
    /// The service provider withdraws it.
    Cancel,
    /// The sweep comes by.
    Expire,
    /// The service provider locks the registration.
    Lock,
    /// The service provider ends the registration.
    Deactivate,
    /// The user is erased.
    Erase,
    /// The registration gets other keys.
    Reactivate,
}

use Contender::{
    Approve, Cancel, Deactivate, Elsewhere, Erase, Expire, Lock, Other, Reactivate, Reject, Repeat,
    Stranger, Wrong,
};

const ALL: [Contender; 13] = [
    Approve, Repeat, Other, Reject, Wrong, Stranger, Elsewhere, Cancel, Expire, Lock, Deactivate,
    Erase, Reactivate,
];

/// One question to two devices, and what everybody holds who wants a say.
#[derive(Clone)]
struct Contest {
    world: World,
    /// The operation of the device that everything is about, and the other's.
    operations: [Id; 2],
    registration: Id,
    answers: [FinishAuthentication; 6],
    keys: FinishActivation,
}

const LIFETIME_S: u64 = 300;

impl Contest {
    /// With so many seconds left until the deadline when the first is heard.
    fn new(seconds_left: u64) -> Self {
        let mut world = World::new(&[("failures_allowed", "1")]);
        let devices = [world.active(), world.active()];
        let keys = re_keyed(&mut world, devices[0]);
        let asks = world.broadcast_request(&devices);
        let operations = devices.map(|device| {
            asks.iter().find(|ask| ask.registration == device).map(|ask| ask.operation).unwrap()
        });
        world.done(Want::Broadcast(asks));
        operations.iter().for_each(|operation| drop(world.start(*operation).unwrap()));
        let [own, others] = operations;
        let approve = world.answer(own, Method::Device, [OK, None, OK]);
        let no = Said { reason: Some(RejectReason::NotMe), ..Decision::Reject.into() };
        let reject =
            FinishAuthentication { said: no, body_digest: world.bytes(), ..approve.clone() };
        let mut stranger = world.answer(own, Method::Device, [OK, None, OK]);
        for checked in &mut stranger.verifications {
            checked.key = KeyBytes { x: [0x77; 32], y: checked.key.y };
        }
        let answers = [
            approve,
            world.answer(own, Method::Device, [OK, None, OK]),
            reject,
            world.answer(own, Method::Device, [BAD, None, OK]),
            stranger,
            world.answer(others, Method::Device, [OK, None, OK]),
        ];
        world.wait_s(LIFETIME_S - seconds_left);
        Self { world, operations, registration: devices[0], answers, keys }
    }

    fn want(&self, who: Contender) -> Want {
        let [approve, other, reject, wrong, stranger, elsewhere] = &self.answers;
        let answer = |it: &FinishAuthentication| Want::FinishAuthentication(Box::new(it.clone()));
        let (registration, reason) = (self.registration, ReasonGiven::DeviceLost);
        match who {
            Approve | Repeat => answer(approve),
            Other => answer(other),
            Reject => answer(reject),
            Wrong => answer(wrong),
            Stranger => answer(stranger),
            Elsewhere => answer(elsewhere),
            Cancel => Want::CancelOperation { by: by(BANK), operation: self.operations[0] },
            Expire => Want::ExpireOperation(self.operations[0]),
            Lock => Want::LockRegistration { by: by(BANK), registration, reason },
            Deactivate => Want::DeactivateRegistration { by: by(BANK), registration, reason },
            Erase => Want::OrderErasure(self.world.erasure(PERSON)),
            Reactivate => Want::FinishActivation(Box::new(self.keys.clone())),
        }
    }

    fn hear(&mut self, who: Contender) -> Result<Vec<Event>, Refusal> {
        let want = self.want(who);
        self.world.execute(want)
    }

    fn state(&self) -> OperationState {
        self.world.operation(self.operations[0]).state
    }

    /// Ends of an operation, as the records have them.
    fn ends(&self, operation: Id) -> Vec<OperationState> {
        ends(&events(&self.world)).remove(&operation).unwrap_or_default()
    }

    /// Lets the deadline pass and the sweep come by.
    fn let_pass(&mut self) {
        self.world.wait_s(LIFETIME_S);
        for operation in self.operations {
            self.world.done(Want::ExpireOperation(operation));
        }
    }
}

/// Other keys for a registration, proven by the hardware key on file.
fn re_keyed(world: &mut World, registration: Id) -> FinishActivation {
    let mut keys = world.started(Some(registration), "3.8");
    keys.verifications.push(checked(Role::Previous, Method::Device, HARDWARE_KEY, Verdict::Valid));
    keys
}

/// A server that knows nothing but the log: its state must be that of the one before.
fn start_again(world: &mut World) {
    let mut folded = State::default();
    for record in &world.records {
        for (key, entry) in Keytrail::evolve(&folded, record) {
            match entry {
                Some(entry) => drop(folded.0.insert(key, entry)),
                None => drop(folded.0.remove(&key)),
            }
        }
    }
    assert_eq!(folded.0, world.state.0, "what the log says is what the server knew");
    world.state = folded;
}

fn events(world: &World) -> Vec<Event> {
    let drafts = world.records.iter().map(|record| &record.draft);
    drafts
        .map(|draft| Event::decode(draft.event_type, draft.schema, &draft.clear).unwrap())
        .collect()
}

/// How each operation ended: one state for each event that ended it.
fn ends(events: &[Event]) -> BTreeMap<Id, Vec<OperationState>> {
    let mut ends: BTreeMap<Id, Vec<OperationState>> = BTreeMap::new();
    let mut note = |operation, state| ends.entry(operation).or_default().push(state);
    for event in events {
        if let Event::AuthenticationJudged(judged) = event
            && judged.operation_state.is_final()
        {
            note(judged.operation, judged.operation_state);
        } else if let Event::OperationExpired(it) = event {
            note(it.operation, OperationState::Expired);
        } else if let Event::OperationCancelled(it) = event {
            note(it.operation, OperationState::Cancelled);
        } else if let Event::OperationAnsweredElsewhere(it) = event {
            note(it.operation, OperationState::Cancelled);
        }
    }
    ends
}

/// What an answer of the device may be refused with, and that it is true.
fn refusal_holds(contest: &Contest, who: Contender, refusal: &Refusal) {
    let operation = contest.world.operation(contest.operations[0]);
    let told = match refusal {
        Refusal::OperationState(told) => {
            let of_whom = usize::from(who == Elsewhere);
            *told == contest.world.operation(contest.operations[of_whom]).state && told.is_final()
        }
        Refusal::JudgedBefore => match contest.want(who) {
            Want::FinishAuthentication(answer) => {
                let attempts = &contest.world.operation(answer.operation).attempts;
                attempts.iter().any(|it| it.body_digest == answer.body_digest)
            }
            _ => who == Reactivate,
        },
        Refusal::ChallengeNotLive => !operation.state.is_final() && operation.challenge.is_none(),
        Refusal::RegistrationState(told) => {
            *told == contest.world.registration(contest.registration).state
                && *told != RegistrationState::Active
        }
        Refusal::ActivationState(told) => {
            *told == contest.world.activation(contest.keys.activation).state
                && *told != ActivationState::Started
        }
        Refusal::Stale => {
            contest.world.registration(contest.registration).keys_at != contest.answers[0].keys_at
        }
        other => panic!("{who:?}: {other:?}"),
    };
    assert!(told, "{who:?}: {refusal:?}");
}

/// One contest in one order.
fn holds(mut contest: Contest, order: &[Contender]) {
    let mut over = contest.state();
    for &who in order {
        if order.len() == 2 {
            start_again(&mut contest.world);
        }
        match contest.hear(who) {
            Ok(_) => (),
            Err(refusal) => refusal_holds(&contest, who, &refusal),
        }
        let now = contest.state();
        assert!(!over.is_final() || over == now, "{order:?}: {over} was final, and is {now}");
        over = now;
    }
    contest.let_pass();
    start_again(&mut contest.world);
    for operation in contest.operations {
        let ended = contest.ends(operation);
        assert_eq!(ended, [contest.world.operation(operation).state], "{order:?}: one outcome");
    }
    let won = contest.operations.map(|operation| contest.world.operation(operation).state);
    let accepted = |state: &&OperationState| {
        matches!(state, OperationState::Completed | OperationState::Rejected)
    };
    assert!(won.iter().filter(accepted).count() <= 1, "{order:?}: the question has two answers");
}

#[test]
fn of_any_two_and_three_in_any_order_one_ends_the_operation_before_and_at_its_deadline() {
    let [late, in_time] = [0, 1].map(Contest::new);
    for first in ALL {
        for second in ALL {
            holds(late.clone(), &[first, second]);
            holds(in_time.clone(), &[first, second]);
            for third in ALL {
                holds(in_time.clone(), &[first, second, third]);
            }
        }
    }
}

#[track_caller]
fn ends_as(order: [Contender; 2], seconds_left: u64, expected: OperationState) {
    let mut contest = Contest::new(seconds_left);
    for who in order {
        drop(contest.hear(who));
    }
    contest.let_pass();
    assert_eq!(contest.state(), expected, "{order:?}, {seconds_left} s left");
}

#[test]
fn whoever_is_heard_first_decides() {
    use OperationState::{Cancelled, Completed, Expired, Failed, Rejected};
    for (one, alone) in [(Approve, Completed), (Other, Completed), (Reject, Rejected)] {
        for (two, theirs) in [
            (Cancel, Cancelled),
            (Deactivate, Cancelled),
            (Erase, Cancelled),
            (Elsewhere, Cancelled),
            (Wrong, Failed),
        ] {
            ends_as([one, two], 1, alone);
            ends_as([two, one], 1, theirs);
        }
        // A lock and new keys end no operation, and keep what was judged before from answering.
        for two in [Lock, Reactivate] {
            ends_as([one, two], 1, alone);
            ends_as([two, one], 1, Expired);
        }
        // The moment decides, and not who comes first at it.
        for left in [0, 1] {
            let late = if left == 0 { Expired } else { alone };
            ends_as([one, Expire], left, late);
            ends_as([Expire, one], left, late);
        }
    }
}

#[test]
fn the_same_request_is_told_what_the_first_was_told_whatever_came_between() {
    for between in ALL.into_iter().filter(|who| *who != Expire) {
        let mut contest = Contest::new(1);
        contest.hear(Approve).unwrap();
        drop(contest.hear(between));
        let records = contest.world.records.len();
        assert_eq!(contest.hear(Repeat).unwrap_err(), Refusal::JudgedBefore, "{between:?}");
        contest.world.wait_s(86_399);
        start_again(&mut contest.world);
        assert_eq!(contest.hear(Repeat).unwrap_err(), Refusal::JudgedBefore, "{between:?}");
        assert_eq!(contest.world.records.len(), records, "and nothing was counted");
    }
}

#[test]
fn the_keys_of_another_user_do_not_answer_and_do_not_count() {
    let mut contest = Contest::new(1);
    contest.hear(Stranger).unwrap();
    assert_eq!(contest.state(), OperationState::Pending);
    let registration = contest.world.registration(contest.registration);
    assert_eq!((registration.state, registration.failures), (RegistrationState::Active, 0));
    // Nor does an answer to the challenge of another operation.
    let mut contest = Contest::new(1);
    let challenge = contest.answers[5].challenge;
    contest.answers[1].challenge = challenge;
    assert_eq!(contest.hear(Other).unwrap_err(), Refusal::ChallengeNotLive);
    assert_eq!(contest.hear(Approve).unwrap()[0].name(), "AuthenticationJudged");
}

#[test]
fn an_operation_that_a_lock_stopped_can_be_answered_with_the_same_challenge_once_unlocked() {
    let mut contest = Contest::new(1);
    contest.hear(Lock).unwrap();
    let locked = Refusal::RegistrationState(RegistrationState::Locked);
    assert_eq!(contest.hear(Approve).unwrap_err(), locked);
    let registration = contest.registration;
    contest.world.done(Want::UnlockRegistration { by: by(BANK), registration });
    contest.hear(Approve).unwrap();
    assert_eq!(contest.state(), OperationState::Completed);
}

/// What can happen to a started activation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Offer,
    Repeat,
    Other,
    Unproven,
    Cancel,
    Expire,
    Deactivate,
    Erase,
    Lock,
    Replace,
}

const KEYS: [Key; 10] = [
    Key::Offer,
    Key::Repeat,
    Key::Other,
    Key::Unproven,
    Key::Cancel,
    Key::Expire,
    Key::Deactivate,
    Key::Erase,
    Key::Lock,
    Key::Replace,
];

/// An activation with so many seconds left, of a new registration or of one with keys.
fn activating(again: bool, seconds_left: u64) -> (World, FinishActivation) {
    let mut world = World::new(&[]);
    let keys = if again {
        let id = world.active();
        re_keyed(&mut world, id)
    } else {
        world.started(None, "3.8")
    };
    world.wait_s(300 - seconds_left);
    (world, keys)
}

fn key_want(world: &mut World, keys: &FinishActivation, who: Key) -> Want {
    let registration = world.registration_of(keys);
    let reason = ReasonGiven::Other;
    let mut offer = keys.clone();
    match who {
        Key::Offer | Key::Repeat => Want::FinishActivation(Box::new(offer)),
        Key::Other => {
            offer.body_digest = [0x0d; 32];
            Want::FinishActivation(Box::new(offer))
        }
        Key::Unproven => {
            offer.body_digest = [0x0e; 32];
            offer.verifications.clear();
            Want::FinishActivation(Box::new(offer))
        }
        Key::Cancel => Want::CancelActivation { by: by(BANK), activation: keys.activation },
        Key::Expire => Want::ExpireActivation(keys.activation),
        Key::Deactivate => Want::DeactivateRegistration { by: by(BANK), registration, reason },
        Key::Lock => Want::LockRegistration { by: by(BANK), registration, reason },
        Key::Erase => Want::OrderErasure(world.erasure(PERSON)),
        Key::Replace => Want::RequestActivation(world.activation_request(Some(registration))),
    }
}

#[test]
fn of_any_two_in_any_order_one_ends_the_activation_before_and_at_its_deadline() {
    let orders = KEYS.into_iter().flat_map(|one| KEYS.into_iter().map(move |two| [one, two]));
    let begun = [(false, 1), (false, 0), (true, 1), (true, 0)]
        .map(|(again, left)| (again, left, activating(again, left)));
    for order in orders {
        for (again, left, (world, keys)) in &begun {
            let mut world = world.clone();
            for who in order {
                start_again(&mut world);
                let want = key_want(&mut world, keys, who);
                drop(world.execute(want));
            }
            world.wait_s(300);
            world.done(Want::ExpireActivation(keys.activation));
            let of_it = |event: &&Event| match event {
                Event::ActivationJudged(it) => it.activation == keys.activation,
                Event::ActivationExpired(it) => it.activation == keys.activation,
                Event::ActivationCancelled(it) => it.activation == keys.activation,
                _ => false,
            };
            let ended = events(&world).iter().filter(of_it).count();
            assert_eq!(ended, 1, "{order:?}, again: {again}, {left} s left");
            let state = world.activation(keys.activation).state;
            let open = [ActivationState::Requested, ActivationState::Started];
            assert!(!open.contains(&state), "{order:?}: {state}");
        }
    }
}

#[test]
fn of_two_phones_with_one_code_the_first_has_it_and_a_restart_does_not_lose_it() {
    let mut world = World::new(&[]);
    let request = world.activation_request(None);
    let activation = request.activation;
    world.done(Want::RequestActivation(request));
    let redeem = |world: &mut World, nonce: u8| {
        start_again(world);
        let challenge = world.bytes();
        world.execute(Want::StartActivation(StartActivation {
            activation,
            with: CodeKind::Typed,
            nonce_hash: [nonce; 32],
            challenge,
            client_version: "3.8".into(),
        }))
    };
    redeem(&mut world, 1).unwrap();
    let started = world.activation(activation);
    assert_eq!(redeem(&mut world, 2).unwrap_err(), Refusal::CodeRedeemed);
    assert_eq!(redeem(&mut world, 1).unwrap(), [], "a lost answer is asked for again");
    assert_eq!(world.activation(activation), started, "with the challenge that it got");
}

#[test]
fn an_operation_and_an_erasure_at_once_leave_nothing_open_and_ask_nobody_who_is_gone() {
    for erased_first in [true, false] {
        let mut world = World::new(&[]);
        let id = world.active();
        let request = world.operation_request(id, Level::OneFactor);
        let (operation, ask) = (request.operation, Want::CreateOperation(request));
        let erase = Want::OrderErasure(world.erasure(PERSON));
        if erased_first {
            world.done(erase);
            let over = Refusal::RegistrationState(RegistrationState::Deactivated);
            assert_eq!(world.refused(ask), over);
            assert!(world.look().operation(operation).is_none());
        } else {
            world.done(ask);
            world.done(erase);
            assert_eq!(ends(&events(&world))[&operation], [OperationState::Cancelled]);
        }
        assert!(world.registration(id).open_operations.is_empty());
    }
}
