//! Locks that time releases, on both sides of each edge.

use engine::Keytrail;
use engine::command::Want;
use engine::entries::Key;
use engine::events::Event;
use engine::ids::{Id, Micros};
use engine::machine::Machine;
use engine::reasons::{LockReason, ReasonGiven, RegistrationState};
use engine::terms::{Level, Method, Verdict};
use engine::timed_lock::DOUBLINGS_MAX;

use crate::world::{BANK, World, by};

const OK: Option<Verdict> = Some(Verdict::Valid);
const BAD: Option<Verdict> = Some(Verdict::Invalid);

/// Sends wrong PINs until the registration is locked; says how many it took.
fn fail_until_locked(world: &mut World, id: Id) -> u32 {
    let operation = world.asked(id, Level::TwoFactor);
    let mut wrong = 0;
    while world.registration(id).state == RegistrationState::Active {
        world.judged(operation, Method::DevicePin, [BAD, None, OK]);
        wrong += 1;
    }
    assert_eq!(world.registration(id).lock_reason, Some(LockReason::TooManyFailures));
    wrong
}

fn release_at(world: &World, id: Id) -> Option<Micros> {
    world.registration(id).release_at
}

/// The deadlines of locks in state.
fn deadlines(world: &World) -> Vec<Key> {
    let keys = world.state.0.keys().copied();
    keys.filter(|key| Keytrail::deadline(key).is_some() && !Keytrail::is_expiry(key)).collect()
}

fn unlock(world: &mut World, id: Id) {
    world.done(Want::UnlockRegistration { by: by(BANK), registration: id });
}

fn lock(world: &mut World, id: Id) {
    let reason = ReasonGiven::DeviceLost;
    world.done(Want::LockRegistration { by: by(BANK), registration: id, reason });
}

#[test]
fn by_default_a_lock_stays() {
    let mut world = World::new(&[]);
    let id = world.active();
    fail_until_locked(&mut world, id);
    assert_eq!(release_at(&world, id), None);
    assert!(deadlines(&world).is_empty());
    world.wait_s(1_000_000_000);
    assert!(world.done(Want::ReleaseLock(id)).is_empty());
    assert_eq!(world.registration(id).state, RegistrationState::Locked);
}

#[test]
fn a_lock_is_released_at_its_moment_and_not_before() {
    let mut world = World::new(&[("lock_duration_s", "60")]);
    let id = world.active();
    assert_eq!(fail_until_locked(&mut world, id), 3);
    assert_eq!(release_at(&world, id), Some(world.now.plus_s(60)));
    let [deadline] = deadlines(&world)[..] else { panic!("one deadline") };
    assert_eq!(Keytrail::deadline(&deadline), release_at(&world, id));
    world.now = Micros(world.now.0 + 60_000_000 - 1);
    assert!(world.done(Want::ReleaseLock(id)).is_empty());
    world.now = Micros(world.now.0 + 1);
    assert_eq!(world.registration(id).state, RegistrationState::Locked, "time alone is no event");
    let want = Keytrail::on_deadline(&deadline, Id::NIL).want;
    let events = world.done(want);
    assert!(matches!(&events[..], [Event::LockReleased(released)] if released.failures == 2));
    let released = world.registration(id);
    assert_eq!((released.state, released.failures), (RegistrationState::Active, 2));
    assert_eq!((released.lock_reason, released.release_at), (None, None));
    assert!(deadlines(&world).is_empty());
}

#[test]
fn after_a_release_one_failure_locks_again_and_for_twice_as_long() {
    let mut world = World::new(&[("lock_duration_s", "60")]);
    let id = world.active();
    fail_until_locked(&mut world, id);
    for doubling in 1..DOUBLINGS_MAX + 2 {
        world.now = release_at(&world, id).unwrap();
        world.done(Want::ReleaseLock(id));
        assert_eq!(fail_until_locked(&mut world, id), 1);
        let length = world.now.plus_s(60 << doubling.min(DOUBLINGS_MAX));
        assert_eq!(release_at(&world, id), Some(length));
    }
}

#[test]
fn what_forgives_failures_ends_the_row_of_locks_and_one_factor_does_not() {
    let mut world = World::new(&[("lock_duration_s", "60")]);
    let id = world.active();
    let again = |world: &mut World| {
        fail_until_locked(world, id);
        let length = release_at(world, id).unwrap().0 - world.now.0;
        world.now = release_at(world, id).unwrap();
        world.done(Want::ReleaseLock(id));
        length / 1_000_000
    };
    assert_eq!(again(&mut world), 60);
    let operation = world.asked(id, Level::OneFactor);
    world.judged(operation, Method::Device, [OK, None, OK]);
    assert_eq!(again(&mut world), 120, "DEVICE alone does not forgive");
    let operation = world.asked(id, Level::TwoFactor);
    world.judged(operation, Method::DevicePin, [OK, None, OK]);
    assert_eq!(again(&mut world), 60);
    fail_until_locked(&mut world, id);
    unlock(&mut world, id);
    assert!(deadlines(&world).is_empty(), "an unlocked registration has nothing to release");
    assert_eq!(again(&mut world), 60);
    let finish = {
        let mut finish = world.started(Some(id), "3.8");
        let proof = crate::world::checked(
            engine::terms::Role::Previous,
            Method::Device,
            crate::world::DEVICE_KEY,
            Verdict::Valid,
        );
        finish.verifications.push(proof);
        finish
    };
    world.done(Want::FinishActivation(Box::new(finish)));
    assert_eq!(again(&mut world), 60);
}

#[test]
fn a_lock_by_request_is_never_released_by_time_also_over_one_that_would_be() {
    let mut world = World::new(&[("lock_duration_s", "60")]);
    let (requested, both) = (world.active(), world.active());
    lock(&mut world, requested);
    assert_eq!(release_at(&world, requested), None);
    fail_until_locked(&mut world, both);
    lock(&mut world, both);
    assert!(deadlines(&world).is_empty());
    world.wait_s(1_000_000);
    for id in [requested, both] {
        assert!(world.done(Want::ReleaseLock(id)).is_empty());
        assert_eq!(world.registration(id).state, RegistrationState::Locked);
    }
}

#[test]
fn a_registration_that_ended_has_nothing_to_release() {
    let mut world = World::new(&[("lock_duration_s", "60")]);
    let id = world.active();
    fail_until_locked(&mut world, id);
    let reason = ReasonGiven::Other;
    world.done(Want::DeactivateRegistration { by: by(BANK), registration: id, reason });
    assert!(deadlines(&world).is_empty());
    assert_eq!(release_at(&world, id), None);
    world.wait_s(60);
    assert!(world.done(Want::ReleaseLock(id)).is_empty());
}

#[test]
fn the_length_counts_that_was_configured_when_the_lock_began() {
    let mut world = World::new(&[("lock_duration_s", "60"), ("failures_allowed", "1")]);
    let id = world.active();
    assert_eq!(fail_until_locked(&mut world, id), 1);
    world.configure("lock_duration_s", "null");
    world.configure("failures_allowed", "5");
    world.wait_s(60);
    world.done(Want::ReleaseLock(id));
    assert_eq!(world.registration(id).failures, 4, "still one attempt");
    fail_until_locked(&mut world, id);
    assert_eq!(release_at(&world, id), None);
}
