//! The rules of erasure, on both sides of their edges.

use engine::command::{CreateApiKey, CreateApplication, Refusal, Want};
use engine::erasure::REGISTRATIONS_MAX;
use engine::events::Event;
use engine::ids::Id;
use engine::operation::OPEN_OPERATIONS_MAX;
use engine::reasons::{CancelReason, ErasureReason, OperationState, RegistrationState, UserRole};
use engine::terms::Level;

use crate::world::{ADMIN, BANK, PERSON, World, by, request};

const OTHER_BANK: Id = Id([0xbb; 16]);

fn names(events: &[Event]) -> Vec<&'static str> {
    events.iter().map(Event::name).collect()
}

/// A second service provider, with a key.
fn with_other_bank(world: &mut World) {
    world.done(Want::CreateApiKey(CreateApiKey {
        by: by(ADMIN),
        key: OTHER_BANK,
        role: UserRole::ServiceProvider,
        service_provider: "other".into(),
        name: "back end".into(),
        secret_hash: [0; 32],
    }));
    world.done(Want::CreateApplication(CreateApplication {
        by: by(ADMIN),
        application: Id([0xa2; 16]),
        name: "app".into(),
        service_provider: "other".into(),
        properties: Vec::new(),
    }));
}

#[test]
fn an_order_ends_every_registration_and_what_is_under_way_in_it() {
    let mut world = World::new(&[]);
    let active = world.active();
    let asked = world.asked(active, Level::OneFactor);
    let started = world.started(None, "3.8");
    let requested = world.registration_of(&started);
    let order = world.erasure(PERSON);
    assert_eq!(order.registrations.len(), 2);
    let events = world.done(Want::OrderErasure(order));
    assert_eq!(events[0].name(), "ErasureOrdered");
    let mut others = names(&events[1..]);
    others.sort_unstable();
    assert_eq!(
        others,
        [
            "ActivationCancelled",
            "OperationCancelled",
            "RegistrationDeactivated",
            "RegistrationDeactivated"
        ]
    );
    for id in [active, requested] {
        assert_eq!(world.registration(id).state, RegistrationState::Deactivated);
    }
    let cancelled = world.operation(asked);
    assert_eq!(cancelled.state, OperationState::Cancelled);
    assert_eq!(cancelled.cancel_reason, Some(CancelReason::RegistrationDeactivated));
    assert_eq!(world.application().live_codes, 0);
    let erasure = world.look().erasure(PERSON).unwrap();
    assert_eq!((erasure.reason, erasure.erased_at), (ErasureReason::UserRequest, None));
    assert_eq!(erasure.head.version, 1);
    let again = world.erasure(PERSON);
    assert_eq!(world.done(Want::OrderErasure(again)), []);
}

#[test]
fn no_registration_is_made_for_whoever_is_erased_and_others_are_not_concerned() {
    let mut world = World::new(&[]);
    let id = world.active();
    world.done(Want::OrderErasure(world.erasure(PERSON)));
    let request = world.activation_request(None);
    assert_eq!(world.refused(Want::RequestActivation(request)), Refusal::SubjectErased);
    let again = world.activation_request(Some(id));
    let ended = Refusal::RegistrationState(RegistrationState::Deactivated);
    assert_eq!(world.refused(Want::RequestActivation(again)), ended);
    let mut other = world.activation_request(None);
    other.subject = Id([0x5c; 16]);
    world.done(Want::RequestActivation(other));
}

#[test]
fn an_order_names_all_registrations_and_no_others() {
    let mut world = World::new(&[]);
    let (one, two) = (world.active(), world.active());
    let mut request = world.activation_request(None);
    request.subject = Id([0x5c; 16]);
    let of_another = request.registration;
    world.done(Want::RequestActivation(request));
    let all = world.erasure(PERSON);
    assert_eq!(all.registrations, [one, two]);
    for wrong in [
        vec![],
        vec![one],
        vec![one, one],
        vec![two, one],
        vec![one, of_another],
        vec![one, Id([0xfe; 16])],
        vec![one, two, of_another],
    ] {
        let order = engine::command::OrderErasure { registrations: wrong.clone(), ..all.clone() };
        let refused = world.refused(Want::OrderErasure(order));
        assert_eq!(refused, Refusal::OtherRegistrations, "{wrong:?}");
    }
    assert!(world.look().erasure(PERSON).is_none());
    world.done(Want::OrderErasure(all));
}

#[test]
fn only_the_service_provider_of_the_person_orders_and_nobody_cannot_be_erased() {
    let mut world = World::new(&[]);
    with_other_bank(&mut world);
    world.active();
    let order = world.erasure(PERSON);
    for (key, refusal) in [
        (ADMIN, Refusal::Forbidden),
        (Id([0xcc; 16]), Refusal::Forbidden),
        (OTHER_BANK, Refusal::Unknown),
    ] {
        let order = engine::command::OrderErasure { by: by(key), ..order.clone() };
        assert_eq!(world.refused(Want::OrderErasure(order)), refusal);
    }
    assert_eq!(world.refused(Want::OrderErasure(world.erasure(Id::NIL))), Refusal::Unknown);
    // Someone for whom a subject was made and an activation refused has none.
    assert_eq!(
        names(&world.done(Want::OrderErasure(world.erasure(Id([9; 16]))))),
        ["ErasureOrdered"]
    );
}

#[test]
fn the_same_request_again_points_to_the_order() {
    let mut world = World::new(&[]);
    world.active();
    let mut order = world.erasure(PERSON);
    order.by.request = request(1, 2);
    let at = world.records.len() as u64;
    world.done(Want::OrderErasure(order.clone()));
    // As it comes when the reference no longer leads to anybody.
    order.subject = Id::NIL;
    order.registrations.clear();
    let repeat = Refusal::Repeat(engine::ids::Position(at));
    assert_eq!(world.refused(Want::OrderErasure(order.clone())), repeat);
    order.by.request = request(1, 3);
    assert_eq!(world.refused(Want::OrderErasure(order)), Refusal::KeyReused);
}

#[test]
fn the_largest_order_fits_a_command_and_a_larger_one_is_refused() {
    let mut world = World::new(&[("activation_failure_budget", "1")]);
    for _ in 0..REGISTRATIONS_MAX {
        let id = world.active();
        for _ in 0..OPEN_OPERATIONS_MAX {
            world.asked(id, Level::OneFactor);
        }
        let again = world.activation_request(Some(id));
        world.done(Want::RequestActivation(again));
    }
    let one_more = world.active();
    let order = world.erasure(PERSON);
    let refused = world.refused(Want::OrderErasure(order));
    assert!(matches!(refused, Refusal::Invalid { field: "registrations", .. }), "{refused:?}");
    let reason = engine::reasons::ReasonGiven::Other;
    world.done(Want::DeactivateRegistration { by: by(BANK), registration: one_more, reason });
    let events = world.done(Want::OrderErasure(world.erasure(PERSON)));
    assert_eq!(events.len(), 1 + REGISTRATIONS_MAX * (2 + OPEN_OPERATIONS_MAX));
    let ids: std::collections::BTreeSet<_> =
        world.records.iter().map(|record| record.draft.event_id).collect();
    assert_eq!(ids.len(), world.records.len(), "every event has an id of its own");
    assert_eq!(world.registrations_of(PERSON), []);
}

#[test]
fn a_destroyed_key_is_recorded_once_and_once_more_each_time_it_came_back() {
    let mut world = World::new(&[]);
    let record = |again| Want::RecordErased { subject: PERSON, again };
    assert_eq!(world.refused(record(false)), Refusal::Unknown);
    world.done(Want::OrderErasure(world.erasure(PERSON)));
    assert_eq!(world.done(record(true)), [], "it cannot come back before it is gone");
    assert_eq!(names(&world.done(record(false))), ["SubjectErased"]);
    let erased_at = world.look().erasure(PERSON).unwrap().erased_at;
    assert_eq!(erased_at, Some(world.now));
    assert_eq!(world.done(record(false)), []);
    world.wait_s(100_000);
    assert_eq!(names(&world.done(record(true))), ["SubjectErased"]);
    assert_eq!(names(&world.done(record(true))), ["SubjectErased"]);
    assert_eq!(world.look().erasure(PERSON).unwrap().erased_at, erased_at);
    assert_eq!(world.look().head(PERSON).version, 4);
}
