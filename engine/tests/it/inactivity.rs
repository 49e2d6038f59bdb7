//! Registrations that end for want of use, on both sides of each edge.

use engine::command::{DeactivateInactive, Refusal, Want};
use engine::entries::Key;
use engine::events::{Event, InactiveDeactivatedV1};
use engine::ids::{Id, Micros};
use engine::inactivity::{DAY_S, ENDED_AT_ONCE, day_of, is_inactive, last_day};
use engine::reasons::{DeactivationReason, ReasonGiven, RegistrationState};
use engine::terms::{Level, Method, Verdict};

use crate::world::{ADMIN, APP, BANK, World, by};

const OK: Option<Verdict> = Some(Verdict::Valid);

/// Registrations that a sweep looking at `as_of` would find.
fn due(world: &World, as_of: Micros, days: u32) -> Vec<Id> {
    let Some(last) = last_day(days, as_of) else { return Vec::new() };
    let (from, to) = Key::last_used_by(APP, last);
    let keys = world.state.0.keys().filter(|key| from <= key.bytes() && key.bytes() < to);
    keys.filter_map(|key| match key {
        Key::LastUsed(_, _, id) => Some(*id),
        _ => None,
    })
    .filter(|id| is_inactive(&world.registration(*id), days, as_of))
    .collect()
}

/// A sweep that looks now.
pub(crate) fn sweep(world: &World) -> DeactivateInactive {
    let as_of = world.now;
    let days = world.application().config.inactive_after_days.unwrap_or(30);
    let mut registrations = due(world, as_of, days);
    let due = registrations.len() as u64;
    registrations.truncate(ENDED_AT_ONCE);
    DeactivateInactive { application: APP, as_of, due, registrations }
}

fn swept(world: &mut World) -> Option<InactiveDeactivatedV1> {
    let want = sweep(world);
    let events = world.done(Want::DeactivateInactive(want));
    match events.first()? {
        Event::InactiveDeactivated(swept) => {
            let ended = events
                .iter()
                .filter(|event| matches!(event, Event::RegistrationDeactivated(end) if end.reason == DeactivationReason::Inactive && end.by.is_none()))
                .count();
            assert_eq!(ended as u64, swept.ended);
            Some((**swept).clone())
        }
        other => panic!("{other:?}"),
    }
}

fn confirm(world: &mut World, registrations: u32) {
    world.done(Want::ConfirmInactivity { by: by(ADMIN), application: APP, registrations });
}

fn state(world: &World, id: Id) -> RegistrationState {
    world.registration(id).state
}

fn many(world: &mut World, count: usize) -> Vec<Id> {
    (0..count).map(|_| world.active()).collect()
}

fn days(world: &mut World, days: u64) {
    world.wait_s(days * DAY_S);
}

#[test]
fn by_default_no_registration_ends_for_want_of_use() {
    let mut world = World::new(&[]);
    let id = world.active();
    days(&mut world, 10_000);
    assert_eq!(due(&world, world.now, 30), [id]);
    assert_eq!(swept(&mut world), None);
    assert_eq!(state(&world, id), RegistrationState::Active);
}

#[test]
fn a_registration_ends_after_so_many_days_to_the_microsecond() {
    let mut world = World::new(&[("inactive_after_days", "30")]);
    let id = world.active();
    let operation = world.asked(id, Level::OneFactor);
    days(&mut world, 30);
    world.now = Micros(world.now.0 - 1);
    let named = DeactivateInactive { registrations: vec![id], due: 1, ..sweep(&world) };
    assert_eq!(world.done(Want::DeactivateInactive(named)), []);
    world.now = Micros(world.now.0 + 1);
    let swept = swept(&mut world).unwrap();
    assert_eq!((swept.ended, swept.due, swept.limit, swept.confirmed), (1, 1, 1, 0));
    assert_eq!(state(&world, id), RegistrationState::Deactivated);
    assert!(world.operation(operation).state.is_final());
    assert_eq!(world.application().registrations, 0);
}

#[test]
fn an_accepted_answer_and_a_reactivation_are_use_and_a_refused_answer_is_not() {
    let mut world = World::new(&[("inactive_after_days", "30")]);
    let (used, tried) = (world.active(), world.active());
    days(&mut world, 29);
    let operation = world.asked(used, Level::OneFactor);
    world.judged(operation, Method::Device, [OK, None, OK]);
    let operation = world.asked(tried, Level::TwoFactor);
    world.judged(operation, Method::DevicePin, [Some(Verdict::Invalid), None, OK]);
    days(&mut world, 1);
    assert_eq!(due(&world, world.now, 30), [tried]);
    swept(&mut world);
    assert_eq!(state(&world, used), RegistrationState::Active);
    assert_eq!(state(&world, tried), RegistrationState::Deactivated);
    days(&mut world, 29);
    assert_eq!(due(&world, world.now, 30), [used]);
}

#[test]
fn a_locked_registration_ends_too_and_one_without_keys_is_not_concerned() {
    let mut world = World::new(&[("inactive_after_days", "30")]);
    let locked = world.active();
    let reason = ReasonGiven::DeviceLost;
    world.done(Want::LockRegistration { by: by(BANK), registration: locked, reason });
    let started = world.started(None, "3.8");
    let requested = world.registration_of(&started);
    days(&mut world, 40);
    assert_eq!(due(&world, world.now, 30), [locked]);
    swept(&mut world);
    assert_eq!(state(&world, locked), RegistrationState::Deactivated);
    assert_eq!(state(&world, requested), RegistrationState::Started);
}

#[test]
fn of_a_few_registrations_one_ends_a_day_and_the_others_wait() {
    let mut world = World::new(&[("inactive_after_days", "30")]);
    many(&mut world, 5);
    days(&mut world, 31);
    let first = swept(&mut world).unwrap();
    assert_eq!((first.ended, first.due, first.limit), (1, 5, 1));
    assert!(world.application().inactivity.held);
    // Said once: an hour later nothing is new.
    world.wait_s(3_600);
    assert_eq!(swept(&mut world), None);
    world.wait_s(DAY_S - 3_600 - 1);
    assert_eq!(swept(&mut world), None);
    world.wait_s(1);
    assert_eq!(swept(&mut world).unwrap().ended, 1);
    assert_eq!(world.application().registrations, 3);
}

#[test]
fn of_many_registrations_one_per_cent_ends_a_day() {
    let mut world = World::new(&[("inactive_after_days", "30")]);
    let ids = many(&mut world, 299);
    days(&mut world, 31);
    let swept = swept(&mut world).unwrap();
    assert_eq!((swept.ended, swept.due, swept.limit), (2, 299, 2));
    let over = ids.iter().filter(|&&id| state(&world, id) == RegistrationState::Deactivated);
    assert_eq!(over.count(), 2);
}

#[test]
fn a_limit_lasts_for_its_window_though_the_registrations_change() {
    let mut world = World::new(&[("inactive_after_days", "30")]);
    many(&mut world, 200);
    days(&mut world, 31);
    let mut want = sweep(&world);
    want.registrations.truncate(1);
    world.done(Want::DeactivateInactive(want));
    many(&mut world, 200);
    world.wait_s(3_600);
    let second = swept(&mut world).unwrap();
    assert_eq!((second.ended, second.limit), (1, 2), "one of two was left");
}

#[test]
fn an_administrator_lets_more_end_for_a_day() {
    let mut world = World::new(&[("inactive_after_days", "30")]);
    many(&mut world, 20);
    days(&mut world, 31);
    confirm(&mut world, 16);
    let first = swept(&mut world).unwrap();
    assert_eq!((first.ended, first.confirmed), (14, 13), "one by the limit, 13 confirmed");
    world.wait_s(DAY_S - 1);
    let second = swept(&mut world).unwrap();
    assert_eq!((second.ended, second.confirmed), (3, 3));
    assert_eq!(world.application().registrations, 3);
    confirm(&mut world, 100);
    world.wait_s(DAY_S);
    let third = swept(&mut world).unwrap();
    assert_eq!((third.ended, third.confirmed), (1, 0), "what was confirmed is void by then");
}

#[test]
fn a_confirmation_is_an_administrators_and_has_bounds() {
    let mut world = World::new(&[]);
    let want =
        |by, application, registrations| Want::ConfirmInactivity { by, application, registrations };
    assert_eq!(world.refused(want(by(BANK), APP, 1)), Refusal::Forbidden);
    assert_eq!(world.refused(want(by(ADMIN), Id([9; 16]), 1)), Refusal::Unknown);
    for registrations in [0, 1_000_000_001] {
        let refused = world.refused(want(by(ADMIN), APP, registrations));
        assert!(matches!(refused, Refusal::Invalid { field: "registrations", .. }));
    }
    confirm(&mut world, 1_000_000_000);
}

#[test]
fn inactivity_is_measured_to_when_it_was_looked_for_and_not_to_when_it_is_decided() {
    let mut world = World::new(&[("inactive_after_days", "30")]);
    let id = world.active();
    days(&mut world, 29);
    let looked = DeactivateInactive { registrations: vec![id], due: 1, ..sweep(&world) };
    days(&mut world, 1_000);
    assert_eq!(world.done(Want::DeactivateInactive(looked)), []);
    // A sweep from ahead of the log's time is a clock's error.
    let as_of = Micros(world.now.0 + 1);
    let ahead = DeactivateInactive { as_of, registrations: vec![id], due: 1, application: APP };
    assert_eq!(world.done(Want::DeactivateInactive(ahead)), []);
    assert_eq!(state(&world, id), RegistrationState::Active);
}

#[test]
fn a_registration_that_was_used_since_it_was_looked_for_does_not_end() {
    let mut world = World::new(&[("inactive_after_days", "30")]);
    let id = world.active();
    days(&mut world, 30);
    let looked = sweep(&world);
    let operation = world.asked(id, Level::OneFactor);
    world.judged(operation, Method::Device, [OK, None, OK]);
    assert_eq!(world.done(Want::DeactivateInactive(looked)), []);
    assert_eq!(state(&world, id), RegistrationState::Active);
}

#[test]
fn a_batch_is_bounded_and_names_nobody_twice() {
    let mut world = World::new(&[("inactive_after_days", "30")]);
    let ids = many(&mut world, ENDED_AT_ONCE + 1);
    days(&mut world, 30);
    let of = |registrations: &[Id]| {
        Want::DeactivateInactive(DeactivateInactive {
            application: APP,
            as_of: world.now,
            due: 9,
            registrations: registrations.to_vec(),
        })
    };
    let (long, twice) = (of(&ids), of(&[ids[0], ids[0]]));
    for want in [long, twice] {
        assert!(matches!(world.refused(want), Refusal::Invalid { .. }));
    }
}

#[test]
fn the_index_of_last_uses_has_each_registration_with_keys_once() {
    let mut world = World::new(&[]);
    let ids = many(&mut world, 3);
    world.started(None, "3.8");
    let places = |world: &World| {
        let keys = world.state.0.keys();
        keys.filter(|key| matches!(key, Key::LastUsed(..))).copied().collect::<Vec<_>>()
    };
    assert_eq!(places(&world).len(), 3);
    let today = places(&world);
    let operation = world.asked(ids[0], Level::OneFactor);
    world.judged(operation, Method::Device, [OK, None, OK]);
    assert_eq!(places(&world), today, "a second use on one day moves nothing");
    days(&mut world, 1);
    let operation = world.asked(ids[0], Level::OneFactor);
    world.judged(operation, Method::Device, [OK, None, OK]);
    assert!(places(&world).contains(&Key::LastUsed(APP, day_of(world.now), ids[0])));
    assert_eq!(places(&world).len(), 3);
    let reason = ReasonGiven::Other;
    world.done(Want::DeactivateRegistration { by: by(BANK), registration: ids[0], reason });
    assert_eq!(places(&world).len(), 2);
    assert_eq!(world.application().registrations, 2);
}
