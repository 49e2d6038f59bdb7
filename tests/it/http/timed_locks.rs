//! Locks that time releases, over a server whose clock the test moves.

use std::sync::Arc;

use api::device::{ActivationOptions, AuthenticationOptions, Phone};
use api::wire::provider::Registration;
use engine::ids::Micros;
use engine::reasons::{LockReason, RegistrationState};
use engine::terms::Method;
use serde_json::json;
use zeroize::Zeroizing;

use super::expiry::{Hands, NOON, Timed};
use super::world::Side;
use crate::client::Request;
use crate::history::Counter;

fn pin(wrong: bool) -> AuthenticationOptions {
    let mut options = AuthenticationOptions {
        method: Some(Method::DevicePin),
        pin: Some(Zeroizing::new("1234".to_owned())),
        ..AuthenticationOptions::default()
    };
    options.misbehaviour.wrong_pin = wrong;
    options
}

fn phone(side: &Side) -> Phone {
    let pin = Some(Zeroizing::new("1234".to_owned()));
    side.phone(&ActivationOptions { pin, ..ActivationOptions::default() })
}

fn state(side: &Side, phone: &Phone) -> RegistrationState {
    side.seen_registration(phone.registration_id()).state
}

#[test]
fn a_lock_after_failures_is_released_in_time_and_one_by_request_is_not() {
    let clock = Counter::at(NOON);
    let configuration = json!({ "failures_allowed": 2, "lock_duration_s": 120 });
    let timed = Timed::start(Arc::clone(&clock) as _, configuration);
    let side = timed.side();
    let (guessed, lost) = (phone(&side), phone(&side));
    for _ in 0..2 {
        assert!(!side.log_in(&guessed, &pin(true)).finished.accepted);
    }
    let locked = side.seen_registration(guessed.registration_id());
    assert_eq!(locked.lock_reason, Some(LockReason::TooManyFailures));
    let release_at = locked.lock_release_at.unwrap().0;
    let path = format!("/v1/registrations/{}/lock", lost.registration_id());
    side.bank_posts(&path, &json!({ "reason": "DEVICE_LOST" })).ok::<Registration>();
    assert!(side.seen_registration(lost.registration_id()).lock_release_at.is_none());
    clock.set(Micros(release_at.0 - 1));
    timed.sweep();
    assert_eq!(state(&side, &guessed), RegistrationState::Locked);
    clock.set(release_at);
    timed.sweep();
    let released = side.seen_registration(guessed.registration_id());
    assert_eq!(released.state, RegistrationState::Active);
    assert_eq!((released.failures, released.remaining_attempts), (1, 1));
    assert!(released.lock_release_at.is_none());
    assert!(side.log_in(&guessed, &pin(false)).finished.accepted);
    assert_eq!(side.seen_registration(guessed.registration_id()).failures, 0);
    assert_eq!(state(&side, &lost), RegistrationState::Locked);
    drop(side);
    timed.stop();
}

#[test]
fn a_clock_that_leaps_releases_nothing_until_it_is_confirmed() {
    let hands = Hands::at(NOON);
    let configuration = json!({ "failures_allowed": 1, "lock_duration_s": 120 });
    let timed = Timed::start(Arc::clone(&hands) as _, configuration);
    let side = timed.side();
    timed.sweep();
    let phone = phone(&side);
    assert!(!side.log_in(&phone, &pin(true)).finished.accepted);
    hands.leap(3_600_000_000);
    timed.sweep();
    assert!(side.status().clock_suspended);
    assert_eq!(state(&side, &phone), RegistrationState::Locked);
    let confirm = Request::post("/admin/v1/clock/confirm", &json!({}));
    assert_eq!(confirm.by(&timed.callers.administrator).send(side.address).status, 204);
    timed.sweep();
    assert_eq!(state(&side, &phone), RegistrationState::Active);
    drop(side);
    timed.stop();
}
