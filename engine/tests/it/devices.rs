//! Devices, their limit and their blocks, on both sides of each edge.

use std::collections::{BTreeMap, BTreeSet};

use engine::command::{BlockDevice, FinishActivation, Refusal, Want};
use engine::devices::LOCKED_AT_ONCE;
use engine::entries::{Entry, Key};
use engine::events::Event;
use engine::ids::Id;
use engine::reasons::{ActivationFailure, LockReason, ReasonGiven, RegistrationState};
use engine::terms::{Level, Method, Role, Verdict};
use proptest::prelude::*;

use crate::world::{ADMIN, APP, BANK, DEVICE_KEY, PERSON, World, by, checked, request};

const PHONE: Id = Id([0xd1; 16]);
const TABLET: Id = Id([0xd2; 16]);

fn person(number: u8) -> Id {
    Id([0x60 + number; 16])
}

/// What activates a registration of a person on a device.
fn offer(world: &mut World, subject: Id, device: Option<Id>) -> FinishActivation {
    let mut request = world.activation_request(None);
    request.subject = subject;
    FinishActivation { device, ..world.started_by(request, "3.8") }
}

/// What activates a registration again.
fn offer_again(world: &mut World, id: Id, device: Option<Id>) -> FinishActivation {
    let mut finish = world.started(Some(id), "3.8");
    finish.verifications.push(checked(Role::Previous, Method::Device, DEVICE_KEY, Verdict::Valid));
    FinishActivation { device, ..finish }
}

/// Why the activation fails, if it does.
fn outcome(world: &mut World, finish: FinishActivation) -> Option<ActivationFailure> {
    match &world.done(Want::FinishActivation(Box::new(finish)))[..] {
        [Event::ActivationJudged(judged)] => judged.failure,
        other => panic!("{other:?}"),
    }
}

fn active_on(world: &mut World, subject: Id, device: Id) -> Id {
    let finish = offer(world, subject, Some(device));
    let id = world.registration_of(&finish);
    assert_eq!(outcome(world, finish), None);
    id
}

fn block(device: Id, registrations: &[Id]) -> Want {
    Want::BlockDevice(BlockDevice {
        by: by(BANK),
        application: APP,
        device,
        reason: ReasonGiven::FraudSuspected,
        registrations: registrations.to_vec(),
        sealed: vec![1, 2, 3],
    })
}

fn unblock(device: Id) -> Want {
    Want::UnblockDevice { by: by(BANK), application: APP, device }
}

fn unlock(registration: Id) -> Want {
    Want::UnlockRegistration { by: by(BANK), registration }
}

fn deactivate(world: &mut World, registration: Id) {
    let reason = ReasonGiven::Other;
    world.done(Want::DeactivateRegistration { by: by(BANK), registration, reason });
}

fn stands(world: &World, id: Id) -> (RegistrationState, Option<LockReason>) {
    let registration = world.registration(id);
    (registration.state, registration.lock_reason)
}

/// Registrations and users on a device, as state counts them and as its own
/// index of registrations says.
fn on(world: &World, id: Id) -> (u64, u64) {
    let device = world.look().device(id).unwrap();
    let (from, to) = Key::on_device(id);
    let mut carried: Vec<_> = world
        .state
        .0
        .keys()
        .filter(|key| from <= key.bytes() && key.bytes() < to)
        .map(|key| match key {
            Key::OnDevice(_, registration) => world.registration(*registration).subject,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(carried.len() as u64, device.registrations);
    carried.sort_unstable();
    carried.dedup();
    assert_eq!(carried.len() as u64, device.users);
    (device.registrations, device.users)
}

const LOCKED: (RegistrationState, Option<LockReason>) =
    (RegistrationState::Locked, Some(LockReason::DeviceBlocked));
const ACTIVE: (RegistrationState, Option<LockReason>) = (RegistrationState::Active, None);

#[test]
fn as_many_users_as_allowed_share_a_device_and_the_next_one_does_not() {
    let mut world = World::new(&[("device_users_max", "2")]);
    let first = active_on(&mut world, person(1), PHONE);
    active_on(&mut world, person(2), PHONE);
    active_on(&mut world, person(1), PHONE);
    assert_eq!(on(&world, PHONE), (3, 2));
    let third = offer(&mut world, person(3), Some(PHONE));
    let refused = world.registration_of(&third);
    assert_eq!(outcome(&mut world, third), Some(ActivationFailure::TooManyDeviceUsers));
    assert_eq!(world.registration(refused).state, RegistrationState::Deactivated);
    assert_eq!(on(&world, PHONE), (3, 2));
    // Another device has room, and so has one that names none.
    active_on(&mut world, person(3), TABLET);
    let unnamed = offer(&mut world, person(3), None);
    assert_eq!(outcome(&mut world, unnamed), None);
    // Who is on it already may be activated again, also above a lower limit.
    world.configure("device_users_max", "1");
    let again = offer_again(&mut world, first, Some(PHONE));
    assert_eq!(outcome(&mut world, again), None);
    assert_eq!(on(&world, PHONE), (3, 2));
    // A user whose last registration ends makes room.
    world.configure("device_users_max", "2");
    for id in world.registrations_of(person(2)) {
        deactivate(&mut world, id);
    }
    assert_eq!(on(&world, PHONE), (2, 1));
    active_on(&mut world, person(3), PHONE);
}

#[test]
fn without_a_limit_any_number_of_users_share_a_device() {
    let mut world = World::new(&[]);
    for number in 0..20 {
        active_on(&mut world, person(number), PHONE);
    }
    assert_eq!(on(&world, PHONE), (20, 20));
}

#[test]
fn a_registration_moves_with_its_app_and_stays_where_it_is_if_none_is_named() {
    let mut world = World::new(&[]);
    let id = active_on(&mut world, PERSON, PHONE);
    let unnamed = offer_again(&mut world, id, None);
    assert_eq!(outcome(&mut world, unnamed), None);
    assert_eq!(on(&world, PHONE), (1, 1));
    let moved = offer_again(&mut world, id, Some(TABLET));
    assert_eq!(outcome(&mut world, moved), None);
    assert_eq!((on(&world, PHONE), on(&world, TABLET)), ((0, 0), (1, 1)));
    assert_eq!(world.registration(id).device, Some(TABLET));
    assert!(world.look().device(PHONE).unwrap().is_over());
}

#[test]
fn a_block_locks_what_is_on_the_device_and_lets_nothing_new_on_it() {
    let mut world = World::new(&[]);
    let (one, two) =
        (active_on(&mut world, person(1), PHONE), active_on(&mut world, person(2), PHONE));
    let elsewhere = active_on(&mut world, person(1), TABLET);
    let under_way = world.started(Some(one), "3.8").activation;
    let events = world.done(block(PHONE, &[one, two]));
    let names: Vec<_> = events.iter().map(Event::name).collect();
    let expected =
        ["DeviceBlocked", "RegistrationLocked", "ActivationCancelled", "RegistrationLocked"];
    assert_eq!(names, expected);
    assert_eq!(stands(&world, one), LOCKED);
    assert_eq!(stands(&world, two), LOCKED);
    assert_eq!(stands(&world, elsewhere), ACTIVE);
    assert!(world.activation(under_way).cancel_reason.is_some());
    assert_eq!(world.refused(unlock(one)), Refusal::DeviceBlocked);
    let new = offer(&mut world, person(3), Some(PHONE));
    assert_eq!(outcome(&mut world, new), Some(ActivationFailure::DeviceBlocked));
    for device in [Some(PHONE), None] {
        let again = offer_again(&mut world, one, device);
        assert_eq!(outcome(&mut world, again), Some(ActivationFailure::DeviceBlocked));
    }
    // Another phone brings it back.
    let moved = offer_again(&mut world, one, Some(TABLET));
    assert_eq!(outcome(&mut world, moved), None);
    assert_eq!(stands(&world, one), ACTIVE);
}

#[test]
fn an_unblocked_device_takes_registrations_and_its_locks_end_one_by_one() {
    let mut world = World::new(&[]);
    let id = active_on(&mut world, PERSON, PHONE);
    world.done(block(PHONE, &[id]));
    assert_eq!(world.done(unblock(PHONE)).len(), 1);
    assert_eq!(stands(&world, id), LOCKED);
    active_on(&mut world, person(1), PHONE);
    world.done(unlock(id));
    assert_eq!(stands(&world, id), ACTIVE);
}

#[test]
fn blocking_and_unblocking_twice_is_doing_it_once() {
    let mut world = World::new(&[]);
    let mut first = block(PHONE, &[]);
    if let Want::BlockDevice(want) = &mut first {
        want.by.request = request(1, 2);
    }
    assert_eq!(world.done(first.clone()).len(), 1);
    assert!(matches!(world.refused(first), Refusal::Repeat(_)));
    assert_eq!(world.done(block(PHONE, &[])), []);
    assert_eq!(world.done(unblock(PHONE)).len(), 1);
    assert_eq!(world.done(unblock(PHONE)), []);
    assert_eq!(world.refused(unblock(TABLET)), Refusal::Unknown);
}

#[test]
fn a_block_is_for_the_service_provider_of_the_application() {
    let mut world = World::new(&[]);
    let mut wrong = block(PHONE, &[]);
    if let Want::BlockDevice(want) = &mut wrong {
        want.by = by(ADMIN);
    }
    assert_eq!(world.refused(wrong), Refusal::Forbidden);
    let mut wrong = block(PHONE, &[]);
    if let Want::BlockDevice(want) = &mut wrong {
        want.application = Id([9; 16]);
    }
    assert_eq!(world.refused(wrong), Refusal::Unknown);
}

#[test]
fn what_a_block_leaves_over_is_locked_by_later_commands() {
    let mut world = World::new(&[]);
    let ids: Vec<_> = (0..3).map(|number| active_on(&mut world, person(number), PHONE)).collect();
    let stranger = active_on(&mut world, PERSON, TABLET);
    world.done(block(PHONE, &ids[..1]));
    assert_eq!(stands(&world, ids[1]), ACTIVE);
    let rest = [ids[0], ids[1], ids[2], stranger];
    let events = world.done(Want::LockBlocked(rest.to_vec()));
    assert_eq!(events.len(), 2, "neither what is locked nor what is elsewhere");
    assert_eq!(world.done(Want::LockBlocked(rest.to_vec())), []);
    assert!(ids.iter().all(|&id| stands(&world, id) == LOCKED));
    assert_eq!(stands(&world, stranger), ACTIVE);
}

#[test]
fn a_batch_of_locks_is_bounded_and_as_large_as_it_may_be() {
    let mut world = World::new(&[]);
    let mut ids = Vec::new();
    for number in 0..=LOCKED_AT_ONCE {
        let id = active_on(&mut world, person((number % 100) as u8), PHONE);
        world.started(Some(id), "3.8");
        ids.push(id);
    }
    let refused = world.refused(block(PHONE, &ids));
    assert!(matches!(refused, Refusal::Invalid { field: "registrations", .. }));
    let twice = [ids[0], ids[0]];
    assert!(matches!(world.refused(block(PHONE, &twice)), Refusal::Invalid { .. }));
    let events = world.done(block(PHONE, &ids[..LOCKED_AT_ONCE]));
    assert_eq!(events.len(), 1 + 2 * LOCKED_AT_ONCE);
}

#[test]
fn a_lock_that_time_would_release_becomes_one_that_it_does_not() {
    let mut world = World::new(&[("lock_duration_s", "60"), ("failures_allowed", "1")]);
    let id = active_on(&mut world, PERSON, PHONE);
    let operation = world.asked(id, Level::TwoFactor);
    let wrong = [Some(Verdict::Invalid), None, Some(Verdict::Valid)];
    world.judged(operation, Method::DevicePin, wrong);
    assert_eq!(stands(&world, id), (RegistrationState::Locked, Some(LockReason::TooManyFailures)));
    world.done(block(PHONE, &[id]));
    assert_eq!(stands(&world, id), LOCKED);
    world.wait_s(60);
    assert_eq!(world.done(Want::ReleaseLock(id)), []);
}

#[test]
fn a_lock_by_request_keeps_its_reason_and_cannot_be_undone_while_the_device_is_blocked() {
    let mut world = World::new(&[]);
    let id = active_on(&mut world, PERSON, PHONE);
    let reason = ReasonGiven::DeviceLost;
    world.done(Want::LockRegistration { by: by(BANK), registration: id, reason });
    assert_eq!(world.done(block(PHONE, &[id])).len(), 1);
    assert_eq!(stands(&world, id), (RegistrationState::Locked, Some(LockReason::DeviceLost)));
    assert_eq!(world.refused(unlock(id)), Refusal::DeviceBlocked);
    world.done(unblock(PHONE));
    world.done(unlock(id));
}

#[test]
fn a_device_that_is_over_is_never_used_again_and_a_blocked_one_is_not_over() {
    let mut world = World::new(&[]);
    let id = active_on(&mut world, PERSON, PHONE);
    deactivate(&mut world, id);
    assert!(world.look().device(PHONE).unwrap().is_over());
    let late = offer(&mut world, PERSON, Some(PHONE));
    assert_eq!(world.refused(Want::FinishActivation(Box::new(late))), Refusal::Stale);
    assert_eq!(world.refused(block(PHONE, &[])), Refusal::Stale);
    let id = active_on(&mut world, PERSON, TABLET);
    world.done(block(TABLET, &[id]));
    deactivate(&mut world, id);
    assert!(!world.look().device(TABLET).unwrap().is_over());
    world.done(unblock(TABLET));
    assert!(world.look().device(TABLET).unwrap().is_over());
}

#[test]
fn an_activation_that_fails_leaves_no_device_behind() {
    let mut world = World::new(&[]);
    let mut finish = offer(&mut world, PERSON, Some(PHONE));
    finish.verifications[0].verdict = Verdict::Invalid;
    assert_eq!(outcome(&mut world, finish), Some(ActivationFailure::SoftwareKeyUnproven));
    assert!(world.look().device(PHONE).is_none());
    active_on(&mut world, PERSON, PHONE);
}

#[test]
fn a_device_hash_is_asked_for_where_the_application_requires_it() {
    let mut world = World::new(&[("device_hash_required", "true")]);
    let without = offer(&mut world, PERSON, None);
    let refused = world.refused(Want::FinishActivation(Box::new(without.clone())));
    assert!(matches!(refused, Refusal::Invalid { field: "device_hash", .. }));
    // Nothing was judged: the same activation can still be finished.
    let with = FinishActivation { device: Some(PHONE), ..without };
    assert_eq!(outcome(&mut world, with), None);
}

/// One step of a script. Numbers choose among what exists, modulo its count.
#[derive(Debug, Clone)]
enum Step {
    Activate(u8, u8),
    Reactivate(usize, Option<u8>),
    Deactivate(usize),
    Lock(usize),
    Unlock(usize),
    Block(u8),
    LockRest,
    Unblock(u8),
    Use(usize),
    Wait(u64),
    Sweep,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..4_u8, 0..3_u8).prop_map(|(person, device)| Step::Activate(person, device)),
        3 => (any::<usize>(), prop::option::of(0..3_u8)).prop_map(|(n, to)| Step::Reactivate(n, to)),
        3 => any::<usize>().prop_map(Step::Deactivate),
        1 => any::<usize>().prop_map(Step::Lock),
        2 => any::<usize>().prop_map(Step::Unlock),
        2 => (0..3_u8).prop_map(Step::Block),
        1 => Just(Step::LockRest),
        2 => (0..3_u8).prop_map(Step::Unblock),
        2 => any::<usize>().prop_map(Step::Use),
        2 => (0..40_u64).prop_map(Step::Wait),
        2 => Just(Step::Sweep),
    ]
}

/// The key store's part: a phone whose device is over is another device.
#[derive(Default)]
struct Phones([u8; 3]);

impl Phones {
    fn device(&mut self, world: &World, phone: u8) -> Id {
        let generation = &mut self.0[usize::from(phone)];
        let id = |generation| Id([0xd0, phone, generation, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        while world.look().device(id(*generation)).is_some_and(|device| device.is_over()) {
            *generation += 1;
        }
        id(*generation)
    }
}

fn registrations(world: &World) -> Vec<Id> {
    let keys = world.state.0.keys();
    keys.filter_map(|key| if let Key::Registration(id) = key { Some(*id) } else { None }).collect()
}

fn take(world: &mut World, phones: &mut Phones, step: &Step) {
    let all = registrations(world);
    let pick = |n: usize| (!all.is_empty()).then(|| all[n % all.len()]);
    let want = match step {
        Step::Activate(user, phone) => {
            let device = phones.device(world, *phone);
            let finish = offer(world, person(*user), Some(device));
            Some(Want::FinishActivation(Box::new(finish)))
        }
        Step::Reactivate(n, to) => pick(*n).filter(|id| is_in_use(world, *id)).map(|id| {
            let device = to.map(|phone| phones.device(world, phone));
            Want::FinishActivation(Box::new(offer_again(world, id, device)))
        }),
        Step::Deactivate(n) => pick(*n).map(|registration| Want::DeactivateRegistration {
            by: by(BANK),
            registration,
            reason: ReasonGiven::Other,
        }),
        Step::Lock(n) => pick(*n).map(|registration| Want::LockRegistration {
            by: by(BANK),
            registration,
            reason: ReasonGiven::Other,
        }),
        Step::Unlock(n) => pick(*n).map(unlock),
        // Only the first is named: the others are left over.
        Step::Block(phone) => {
            let device = phones.device(world, *phone);
            let on = |id: &&Id| world.registration(**id).device == Some(device);
            let first: Vec<_> = all.iter().filter(on).take(1).copied().collect();
            Some(block(device, &first))
        }
        Step::LockRest => {
            Some(Want::LockBlocked(all.iter().take(LOCKED_AT_ONCE).copied().collect()))
        }
        Step::Unblock(phone) => Some(unblock(phones.device(world, *phone))),
        Step::Use(n) => {
            if let Some(id) = pick(*n).filter(|id| stands(world, *id) == ACTIVE) {
                let operation = world.asked(id, Level::OneFactor);
                let valid = Some(Verdict::Valid);
                world.judged(operation, Method::Device, [valid, None, valid]);
            }
            None
        }
        Step::Wait(days) => {
            world.wait_s(days * engine::inactivity::DAY_S);
            None
        }
        Step::Sweep => Some(Want::DeactivateInactive(crate::inactivity::sweep(world))),
    };
    // A refusal is as good an outcome as any.
    if let Some(want) = want {
        drop(world.execute(want));
    }
}

fn is_in_use(world: &World, id: Id) -> bool {
    matches!(world.registration(id).state, RegistrationState::Active | RegistrationState::Locked)
}

/// Where each registration is that is not over, and which devices are blocked,
/// from the events alone.
fn witness(world: &World) -> (BTreeMap<Id, Id>, BTreeSet<Id>) {
    let (mut on, mut blocked) = (BTreeMap::new(), BTreeSet::new());
    for record in &world.records {
        let draft = &record.draft;
        match Event::decode(draft.event_type, draft.schema, &draft.clear).unwrap() {
            Event::ActivationJudged(judged) if judged.failure.is_none() => {
                on.extend(judged.device.map(|device| (draft.stream, device)));
            }
            Event::RegistrationDeactivated(_) => drop(on.remove(&draft.stream)),
            Event::DeviceBlocked(it) => drop(blocked.insert(it.device)),
            Event::DeviceUnblocked(it) => drop(blocked.remove(&it.device)),
            _ => (),
        }
    }
    (on, blocked)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_devices_are_counted_as_the_events_say(script in prop::collection::vec(step(), 0..60)) {
        let properties = [("device_users_max", "2"), ("inactive_after_days", "30")];
        let mut world = World::new(&properties);
        let mut phones = Phones::default();
        for step in &script {
            take(&mut world, &mut phones, step);
        }
        let (places, blocked) = witness(&world);
        let known = world.state.0.iter().filter_map(|(key, entry)| match (key, &**entry) {
            (Key::Device(id), Entry::Device(device)) => Some((*id, device.clone())),
            _ => None,
        });
        for (id, device) in known {
            let here: Vec<_> = places.iter().filter(|(_, at)| **at == id).map(|(id, _)| *id).collect();
            let users: BTreeSet<_> = here.iter().map(|id| world.registration(*id).subject).collect();
            prop_assert_eq!(on(&world, id), (here.len() as u64, users.len() as u64));
            prop_assert!(users.len() <= 2);
            prop_assert_eq!(device.blocked.is_some(), blocked.contains(&id));
            let listed = world.state.0.contains_key(&Key::Blocked(APP, id));
            prop_assert_eq!(listed, blocked.contains(&id));
        }
        let in_use = registrations(&world).into_iter().filter(|id| is_in_use(&world, *id));
        prop_assert_eq!(world.application().registrations, in_use.count() as u64);
        let all = registrations(&world).into_iter().take(LOCKED_AT_ONCE).collect();
        world.done(Want::LockBlocked(all));
        for (id, device) in &places {
            prop_assert!(!blocked.contains(device) || stands(&world, *id) != ACTIVE);
        }
    }
}
