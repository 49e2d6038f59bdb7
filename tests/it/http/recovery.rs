//! Recovery codes over HTTP: shown once, used once, alike when wrong.

use api::device::{
    ActivationOptions, AuthenticationOptions, DeviceError, OwnOperation, Redemption, activate,
    authenticate,
};
use engine::reasons::{DeactivationReason, OperationKind, RegistrationState};
use engine::terms::Method;
use serde_json::json;
use zeroize::Zeroizing;

use super::world::{CHANCE, Side, World, verified};

fn with_pin() -> ActivationOptions {
    ActivationOptions {
        pin: Some(Zeroizing::new("2580".to_owned())),
        ..ActivationOptions::default()
    }
}

fn by_code(side: &Side, code: &str) -> Redemption {
    let application = side.callers.application;
    Redemption::by_recovery_code(application, code, None, CHANCE).unwrap()
}

#[track_caller]
fn refused(error: DeviceError) -> (u16, String) {
    match error {
        DeviceError::Client(error) => {
            let refusal = error.refusal().unwrap();
            (refusal.status, refusal.code.clone())
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_new_phone_takes_the_place_of_a_lost_one_across_restarts_and_lost_answers() {
    let world = World::with(json!({ "recovery_codes": 5 }));
    let side = world.side();
    let offer = side.redemption().start(&side.client).unwrap();
    let offer = offer.offer(side.client.server(), &with_pin(), None, CHANCE).unwrap();
    let (phone, finished) = offer.finish(&side.client).unwrap();
    let (phone, codes) = (phone.unwrap(), finished.recovery_codes.0.clone());
    assert_eq!(codes.len(), 5);
    assert_eq!(offer.finish(&side.client).unwrap().1, finished, "a lost answer loses no codes");
    assert!(!format!("{finished:?}").contains(&codes[0]));
    let seen = side.seen_registration(phone.registration_id());
    assert_eq!(seen.recovery_codes_left, Some(5));

    // As a person types it.
    let redemption = by_code(&side, &codes[3].to_lowercase().replace('-', " "));
    let first = redemption.start(&side.client).unwrap();
    let world = world.restart();
    let side = world.side();
    let again = redemption.start(&side.client).unwrap();
    assert_eq!(first.started().challenge, again.started().challenge);
    let taking = again.offer(side.client.server(), &with_pin(), None, CHANCE).unwrap();
    let (new, finished) = taking.finish(&side.client).unwrap();
    let new = new.unwrap();
    let records = side.status().records;
    assert_eq!(taking.finish(&side.client).unwrap().1, finished);
    assert_eq!(side.status().records, records, "no second registration");

    let old = side.seen_registration(phone.registration_id());
    assert_eq!(old.state, RegistrationState::Deactivated);
    assert_eq!(old.deactivation_reason, Some(DeactivationReason::Recovered));
    let seen = side.seen_registration(new.registration_id());
    assert_eq!(
        (seen.recovers, seen.user_ref.as_deref()),
        (Some(old.registration_id), Some("anna"))
    );
    assert!(side.log_in(&new, &AuthenticationOptions::default()).finished.accepted);
    let options = AuthenticationOptions::default();
    let gone = authenticate(&side.client, &phone, &options, CHANCE).unwrap_err();
    assert_eq!(refused(gone), (404, "operation_not_found".into()));
    // Neither the used code nor another one of the old set is taken any more.
    for code in &codes {
        let late = by_code(&side, code).start(&side.client).unwrap_err();
        assert_eq!(refused(late), (404, "activation_not_found".into()));
    }
    let data = world.data();
    assert!(!world.server.said().contains(&codes[0]));
    world.server.stop();
    for code in codes {
        for text in [code.clone(), code.replace('-', "")] {
            assert!(!super::naming::anywhere(&data, text.as_bytes()));
        }
    }
    verified(&data);
}

#[test]
fn wrong_codes_look_alike_and_are_stopped_on_their_registration_and_their_source() {
    let world = World::with(json!({
        "recovery_codes": 2, "recovery_failures_allowed": 2,
        "activation_failure_budget_per_source": 6,
    }));
    let side = world.side();
    let redemption = side.redemption();
    let options = with_pin();
    let (phone, finished) = activate(&side.client, &redemption, &options, None, CHANCE).unwrap();
    let (phone, codes) = (phone.unwrap(), finished.recovery_codes.0);
    // The selector is right, the rest is not.
    let near = format!("{}{}", &codes[0][..10], "0000-0000-0000");
    let near = if near == codes[0] { near.replace('0', "1") } else { near };
    let answer = |code: &str| refused(by_code(&side, code).start(&side.client).unwrap_err());
    let wrong = (404, "activation_not_found".to_owned());
    for code in [&*near, &near, &codes[0], "0123-4567-89AB-CDEF-GHJK", "1", ""] {
        assert_eq!(answer(code), wrong, "{code}");
    }
    let seen = side.seen_registration(phone.registration_id());
    assert_eq!((seen.state, seen.recovery_codes_left), (RegistrationState::Active, Some(0)));
    assert_eq!(answer(&codes[1]), (429, "too_many_requests".into()));
    world.stop_and_verify();
}

#[test]
fn a_new_set_is_had_by_two_factors_and_told_again_to_the_same_request() {
    let world = World::with(json!({ "recovery_codes": 3 }));
    let side = world.side();
    let (phone, first) =
        activate(&side.client, &side.redemption(), &with_pin(), None, CHANCE).unwrap();
    let phone = phone.unwrap();
    let options = AuthenticationOptions {
        method: Some(Method::DevicePin),
        pin: Some(Zeroizing::new("2580".to_owned())),
        ..AuthenticationOptions::default()
    };
    let kind = OperationKind::RecoveryCodes;
    let wish = OwnOperation::start(&side.client, &phone, kind, &options, CHANCE).unwrap();
    let finished = wish.finish(&side.client).unwrap();
    let codes = finished.recovery_codes.0.clone();
    assert_eq!(codes.len(), 3);
    assert!(!first.recovery_codes.0.iter().any(|code| codes.contains(code)));
    assert_eq!(wish.finish(&side.client).unwrap(), finished);
    assert!(by_code(&side, &first.recovery_codes.0[0]).start(&side.client).is_err());
    assert!(by_code(&side, &codes[2]).start(&side.client).is_ok());
    world.stop_and_verify();
}

#[test]
fn where_recovery_is_off_there_are_no_codes() {
    let world = World::start();
    let side = world.side();
    let (_, finished) =
        activate(&side.client, &side.redemption(), &with_pin(), None, CHANCE).unwrap();
    assert!(finished.recovery_codes.is_empty());
    assert!(json!(finished).get("recovery_codes").is_none());
}
