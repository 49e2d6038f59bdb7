//! Every rule on both sides of its edge.

use engine::command::{
    CreateApiKey, FinishActivation, FinishAuthentication, Refusal, StartActivation, Want,
};
use engine::config::ConfigError;
use engine::events::Event;
use engine::ids::Id;
use engine::operation::{CHALLENGES_MAX, NOISE_MAX, OPEN_OPERATIONS_MAX};
use engine::reasons::{
    ActivationFailure, ActivationState, AuthenticationFailure, BudgetScope, CancelReason, CodeKind,
    LockReason, OperationState, ReasonGiven, RegistrationState, Strategy, UserRole,
};
use engine::terms::{Decision, HwKeyClientStatus, HwKeyServerResult, Level, Method, Role, Verdict};

use crate::world::{ADMIN, APP, BANK, HARDWARE_KEY, World, by, checked, request};

const OK: Option<Verdict> = Some(Verdict::Valid);
const BAD: Option<Verdict> = Some(Verdict::Invalid);
const JUNK: Option<Verdict> = Some(Verdict::Malformed);

fn names(events: &[Event]) -> Vec<&'static str> {
    events.iter().map(Event::name).collect()
}

fn finish(answer: FinishAuthentication) -> Want {
    Want::FinishAuthentication(Box::new(answer))
}

fn activate(keys: FinishActivation) -> Want {
    Want::FinishActivation(Box::new(keys))
}

fn start_activation(world: &mut World, activation: Id, nonce: u8) -> Want {
    Want::StartActivation(StartActivation {
        activation,
        with: CodeKind::Typed,
        nonce_hash: [nonce; 32],
        challenge: world.bytes(),
        client_version: "3.8".into(),
    })
}

// --- administration ---

#[test]
fn a_log_begins_once() {
    let mut world = World::new(&[]);
    let again = engine::command::StartLog {
        origin: "other".into(),
        software: "0".into(),
        key: Id([1; 16]),
        secret_hash: [0; 32],
    };
    assert_eq!(world.refused(Want::StartLog(again)), Refusal::AlreadyStarted);
}

#[test]
fn only_an_administrator_makes_keys_and_only_for_itself_cannot_revoke() {
    let mut world = World::new(&[]);
    let key = |world: &mut World, maker| {
        Want::CreateApiKey(CreateApiKey {
            by: by(maker),
            key: world.id(),
            role: UserRole::Auditor,
            service_provider: String::new(),
            name: "audit".into(),
            secret_hash: [0; 32],
        })
    };
    let want = key(&mut world, BANK);
    assert_eq!(world.refused(want), Refusal::Forbidden);
    let want = key(&mut world, ADMIN);
    assert_eq!(names(&world.done(want)), ["ApiKeyCreated"]);
    let revoke = |key| Want::RevokeApiKey { by: by(ADMIN), key };
    assert_eq!(world.refused(revoke(ADMIN)), Refusal::RevokesItself);
    assert_eq!(names(&world.done(revoke(BANK))), ["ApiKeyRevoked"]);
    assert!(world.done(revoke(BANK)).is_empty(), "already so");
    let request = world.activation_request(None);
    assert_eq!(world.refused(Want::RequestActivation(request)), Refusal::Forbidden);
}

#[test]
fn a_configuration_changes_by_version_and_refuses_what_it_does_not_know_by_name() {
    let mut world = World::new(&[]);
    assert_eq!(names(&world.configure("failures_allowed", "5")), ["ConfigurationChanged"]);
    assert_eq!(world.application().config.failures_allowed, 5);
    assert_eq!(world.application().config_version, 2);
    let mut change = engine::command::ChangeConfiguration {
        by: by(ADMIN),
        application: APP,
        version: 1,
        properties: vec![("failures_alowed".into(), "5".into())],
    };
    let late = world.refused(Want::ChangeConfiguration(change.clone()));
    assert_eq!(late, Refusal::VersionConflict { actual: 2 });
    change.version = 2;
    let unknown = ConfigError::Unknown("failures_alowed".into());
    assert_eq!(
        world.refused(Want::ChangeConfiguration(change)),
        Refusal::Configuration(vec![unknown])
    );
}

#[test]
fn another_providers_registration_does_not_exist() {
    let mut world = World::new(&[]);
    let other = world.id();
    world.done(Want::CreateApiKey(CreateApiKey {
        by: by(ADMIN),
        key: other,
        role: UserRole::ServiceProvider,
        service_provider: "shop".into(),
        name: "shop".into(),
        secret_hash: [0; 32],
    }));
    let registration = world.active();
    let reason = ReasonGiven::Other;
    for id in [registration, Id([0x77; 16])] {
        let lock = Want::LockRegistration { by: by(other), registration: id, reason };
        assert_eq!(world.refused(lock), Refusal::Unknown);
    }
}

// --- idempotent requests ---

#[test]
fn the_same_request_again_points_to_its_records_and_another_body_is_refused() {
    let mut world = World::new(&[]);
    let mut want = world.activation_request(None);
    want.by.request = request(1, 1);
    let position = world.records.len() as u64;
    world.done(Want::RequestActivation(want.clone()));
    let again = world.refused(Want::RequestActivation(want.clone()));
    assert_eq!(again, Refusal::Repeat(engine::ids::Position(position)));
    want.by.request = request(1, 2);
    assert_eq!(world.refused(Want::RequestActivation(want)), Refusal::KeyReused);
}

#[test]
fn a_request_key_is_forgotten_after_a_day_and_not_before() {
    for (waited, forgotten) in [(engine::REMEMBER_S - 1, false), (engine::REMEMBER_S, true)] {
        let mut world = World::new(&[]);
        let mut want = world.activation_request(None);
        want.by.request = request(1, 1);
        world.done(Want::RequestActivation(want));
        world.wait_s(waited);
        world.configure("failures_allowed", "5");
        let key = engine::entries::Key::Request([1; 16]);
        assert_eq!(world.state.0.contains_key(&key), !forgotten, "{waited}");
    }
}

// --- activation ---

#[test]
fn codes_must_be_longer_where_many_live() {
    // 6 digits: 10⁶ codes, a budget of 50 guesses, so 2 live codes are the limit.
    let mut world =
        World::new(&[("activation_code_length", "6"), ("activation_failure_budget", "50")]);
    for _ in 0..2 {
        let request = world.activation_request(None);
        world.done(Want::RequestActivation(request));
    }
    assert_eq!(world.application().live_codes, 2);
    let request = world.activation_request(None);
    assert_eq!(
        world.refused(Want::RequestActivation(request)),
        Refusal::CodeTooShort { needed: 7 }
    );
}

#[test]
fn a_code_is_redeemed_once_and_again_for_the_client_that_redeemed_it() {
    let mut world = World::new(&[]);
    let request = world.activation_request(None);
    let (activation, registration) = (request.activation, request.registration);
    world.done(Want::RequestActivation(request));
    assert_eq!(world.registration(registration).state, RegistrationState::Requested);
    let want = start_activation(&mut world, activation, 1);
    assert_eq!(names(&world.done(want)), ["ActivationStarted"]);
    assert_eq!(world.registration(registration).state, RegistrationState::Started);
    assert_eq!(world.application().live_codes, 0);
    let challenge = world.activation(activation).started.clone();
    let same = start_activation(&mut world, activation, 1);
    assert!(world.done(same).is_empty(), "a lost answer burns nothing");
    assert_eq!(world.activation(activation).started, challenge);
    let other = start_activation(&mut world, activation, 2);
    assert_eq!(world.refused(other), Refusal::CodeRedeemed);
}

#[test]
fn a_code_expires_at_its_moment_even_if_no_sweep_has_come() {
    for (waited, expected) in [(599, "ActivationStarted"), (600, "ActivationExpired")] {
        let mut world = World::new(&[]);
        let request = world.activation_request(None);
        let (activation, registration) = (request.activation, request.registration);
        world.done(Want::RequestActivation(request));
        world.wait_s(waited);
        let want = start_activation(&mut world, activation, 1);
        assert_eq!(names(&world.done(want)), [expected]);
        if expected == "ActivationExpired" {
            assert_eq!(world.registration(registration).state, RegistrationState::Deactivated);
            assert_eq!(world.activation(activation).state, ActivationState::Expired);
            assert_eq!(world.application().live_codes, 0);
        }
    }
}

#[test]
fn an_activation_expires_at_its_moment() {
    for (waited, expected) in [(299, "ActivationJudged"), (300, "ActivationExpired")] {
        let mut world = World::new(&[]);
        let keys = world.started(None, "3.8");
        world.wait_s(waited);
        assert_eq!(names(&world.done(activate(keys))), [expected]);
    }
}

#[test]
fn typed_codes_are_refused_while_the_budget_is_used_up_and_scanned_ones_are_not() {
    let mut world = World::new(&[]);
    let request = world.activation_request(None);
    let activation = request.activation;
    world.done(Want::RequestActivation(request));
    let until = world.now.plus_s(60);
    let exhausted = |scope| Want::ExhaustCodeBudget { application: APP, scope, until, failures: 9 };
    world.done(exhausted(BudgetScope::Source));
    assert_eq!(world.application().codes_refused_until.0, 0, "one source blocks nobody else");
    assert_eq!(names(&world.done(exhausted(BudgetScope::Application))), ["CodeBudgetExhausted"]);
    assert!(world.done(exhausted(BudgetScope::Application)).is_empty(), "once a window");
    let typed = start_activation(&mut world, activation, 1);
    assert_eq!(world.refused(typed.clone()), Refusal::CodesRefused { until });
    world.wait_s(60);
    assert_eq!(names(&world.done(typed)), ["ActivationStarted"]);
}

#[test]
fn a_key_set_needs_device_and_distinct_keys_for_allowed_methods() {
    let mut world = World::new(&[("allowed_methods", "[\"DEVICE\",\"DEVICE:PIN\"]")]);
    let good = world.started(None, "3.8");
    let bad = |change: fn(&mut FinishActivation)| {
        let mut keys = good.clone();
        change(&mut keys);
        activate(keys)
    };
    for want in [
        bad(|keys| keys.keys.software.truncate(0)),
        bad(|keys| keys.keys.software[1].method = Method::Device),
        bad(|keys| keys.keys.software[1].method = Method::DeviceBiometric),
        bad(|keys| keys.keys.software[1].key = keys.keys.software[0].key),
        bad(|keys| keys.keys.hardware = Some(keys.keys.software[0].key)),
    ] {
        assert!(matches!(world.refused(want), Refusal::Invalid { field: "keys", .. }));
    }
    assert_eq!(names(&world.done(activate(good))), ["ActivationJudged"]);
}

#[test]
fn every_software_key_must_prove_that_the_device_holds_it() {
    for verdict in [None, BAD, JUNK] {
        let mut world = World::new(&[]);
        let mut keys = world.started(None, "3.8");
        match verdict {
            Some(verdict) => keys.verifications[1].verdict = verdict,
            None => keys.verifications.retain(|checked| checked.method != Method::DevicePin),
        }
        let id = world.registration_of(&keys);
        let activation = keys.activation;
        world.done(activate(keys));
        let judged = world.activation(activation).judged.clone().unwrap();
        assert_eq!(judged.failure, Some(ActivationFailure::SoftwareKeyUnproven));
        assert_eq!(world.registration(id).state, RegistrationState::Deactivated);
    }
}

/// A hardware key as an activation can offer it: what is claimed, and the proof.
type Offer = (HwKeyClientStatus, Option<Option<Verdict>>, &'static str);

#[test]
fn every_cell_of_the_table_at_activation() {
    use HwKeyServerResult as Found;
    let offers: [(Offer, Found, [bool; 4]); 9] = [
        ((HwKeyClientStatus::Signed, Some(OK), "3.8"), Found::Valid, [true; 4]),
        (
            (HwKeyClientStatus::Signed, Some(BAD), "3.8"),
            Found::KeyUnproven,
            [false, true, false, false],
        ),
        (
            (HwKeyClientStatus::Signed, Some(JUNK), "3.8"),
            Found::KeyUnproven,
            [false, true, false, false],
        ),
        (
            (HwKeyClientStatus::SigningFailed, Some(None), "3.8"),
            Found::KeyUnproven,
            [false, true, false, false],
        ),
        (
            (HwKeyClientStatus::NotSupported, None, "3.8"),
            Found::NoKeyRegistered,
            [true, true, true, false],
        ),
        (
            (HwKeyClientStatus::NotReported, None, "3.7.9"),
            Found::NoKeyRegistered,
            [true, true, true, false],
        ),
        (
            (HwKeyClientStatus::Signed, Some(OK), "3.7.9"),
            Found::NoKeyRegistered,
            [true, true, true, false],
        ),
        (
            (HwKeyClientStatus::KeyGenerationFailed, None, "3.8"),
            Found::NoKeyRegistered,
            [true, true, false, false],
        ),
        (
            (HwKeyClientStatus::NotReported, None, "3.8"),
            Found::NoKeyRegistered,
            [true, true, false, false],
        ),
    ];
    for ((status, offered, version), found, passes) in offers {
        for (strategy, &passes) in Strategy::ALL.iter().zip(&passes) {
            let mut world =
                World::new(&[("hw_key_validation_strategy", &format!("\"{strategy}\""))]);
            let mut keys = world.started(None, version);
            keys.declared.hw_key_client_status = status;
            keys.verifications.retain(|checked| checked.role != Role::Hardware);
            match offered {
                None => keys.keys.hardware = None,
                Some(None) => (),
                Some(Some(verdict)) => {
                    let proof = checked(Role::Hardware, Method::Device, HARDWARE_KEY, verdict);
                    keys.verifications.push(proof);
                }
            }
            let (id, activation) = (world.registration_of(&keys), keys.activation);
            world.done(activate(keys));
            let judged = world.activation(activation).judged.clone().unwrap();
            let case = format!("{status} {offered:?} {version} under {strategy}");
            assert_eq!(judged.failure.is_none(), passes, "{case}");
            assert_eq!(judged.hw_key_server_result, found, "{case}");
            let stored = world.registration(id).hardware.is_some();
            assert_eq!(stored, found == Found::Valid, "only a proven key is stored: {case}");
        }
    }
}

#[test]
fn an_activation_is_judged_once_and_the_same_request_gets_the_same_answer() {
    let mut world = World::new(&[]);
    let keys = world.started(None, "3.8");
    world.done(activate(keys.clone()));
    assert_eq!(world.refused(activate(keys.clone())), Refusal::JudgedBefore);
    let other = FinishActivation { body_digest: [0x99; 32], ..keys };
    assert_eq!(
        world.refused(activate(other)),
        Refusal::ActivationState(ActivationState::Completed)
    );
}

#[test]
fn old_and_blocked_clients_are_refused_and_nothing_is_used_up() {
    let mut world = World::new(&[]);
    let mut keys = world.started(None, "3.8");
    world.configure("min_client_version", "\"3.9\"");
    assert_eq!(world.refused(activate(keys.clone())), Refusal::ClientTooOld);
    keys.declared.client_version = "3.9".into();
    assert_eq!(names(&world.done(activate(keys))), ["ActivationJudged"]);
}

// --- re-activation ---

#[test]
fn a_reactivation_signed_by_an_old_key_renews_the_keys_and_keeps_the_id() {
    for key in [HARDWARE_KEY, crate::world::DEVICE_KEY] {
        let mut world = World::new(&[]);
        let id = world.active();
        let before = world.registration(id);
        let mut keys = world.started(Some(id), "3.8");
        assert_eq!(world.registration(id).state, RegistrationState::Active, "old keys in force");
        keys.keys.software[0].key.x = [0x44; 32];
        keys.verifications[0].key.x = [0x44; 32];
        keys.verifications.push(checked(Role::Previous, Method::Device, key, Verdict::Valid));
        world.done(activate(keys));
        let after = world.registration(id);
        assert_eq!(after.state, RegistrationState::Active);
        assert!(!after.unproven_device);
        assert_ne!(after.software, before.software);
        assert!(after.keys_at > before.keys_at);
    }
}

#[test]
fn a_reactivation_without_an_old_key_needs_the_applications_leave_and_is_marked() {
    for (allowed, verdict) in [("false", BAD), ("false", None), ("true", BAD), ("true", None)] {
        let mut world = World::new(&[("allow_unproven_reactivation", allowed)]);
        let id = world.active();
        let before = world.registration(id);
        let mut keys = world.started(Some(id), "3.8");
        if let Some(verdict) = verdict {
            keys.verifications.push(checked(Role::Previous, Method::Device, HARDWARE_KEY, verdict));
        }
        let activation = keys.activation;
        world.done(activate(keys));
        let judged = world.activation(activation).judged.clone().unwrap();
        let after = world.registration(id);
        assert!(judged.unproven_device);
        if allowed == "true" {
            assert_eq!(judged.failure, None);
            assert!(after.unproven_device && after.keys_at > before.keys_at);
        } else {
            assert_eq!(judged.failure, Some(ActivationFailure::PreviousKeyUnproven));
            assert_eq!(after.state, RegistrationState::Active);
            assert_eq!(after.keys_at, before.keys_at, "old keys stay in force");
        }
    }
}

#[test]
fn a_second_reactivation_replaces_the_first_and_a_lock_cancels_it() {
    let mut world = World::new(&[]);
    let id = world.active();
    let first = world.started(Some(id), "3.8");
    let second = world.started(Some(id), "3.8");
    assert_eq!(world.activation(first.activation).cancel_reason, Some(CancelReason::Replaced));
    let reason = ReasonGiven::DeviceStolen;
    let events = world.done(Want::LockRegistration { by: by(BANK), registration: id, reason });
    assert_eq!(names(&events), ["RegistrationLocked", "ActivationCancelled"]);
    assert_eq!(
        world.refused(activate(second)),
        Refusal::ActivationState(ActivationState::Cancelled)
    );
    assert_eq!(world.registration(id).lock_reason, Some(LockReason::DeviceStolen));
}

// --- authentication ---

#[test]
fn an_authentication_goes_from_question_to_answer() {
    let mut world = World::new(&[]);
    let id = world.active();
    let operation = world.asked(id, Level::TwoFactor);
    let judged = world.judged(operation, Method::DevicePin, [OK, None, OK]);
    assert_eq!(judged.failure, None);
    assert_eq!(world.operation(operation).state, OperationState::Completed);
    assert!(world.registration(id).open_operations.is_empty());
    assert_eq!(world.registration(id).last_used_at, Some(world.now));
}

#[test]
fn a_challenge_is_issued_once_and_judged_once() {
    let mut world = World::new(&[]);
    let id = world.active();
    let operation = world.asked(id, Level::TwoFactor);
    assert_eq!(names(&world.start(operation).unwrap()), ["ChallengeIssued"]);
    assert!(world.start(operation).unwrap().is_empty(), "no second event for a repeat");
    let answer = world.answer(operation, Method::DevicePin, [BAD, None, OK]);
    world.done(finish(answer.clone()));
    assert_eq!(world.refused(finish(answer.clone())), Refusal::JudgedBefore);
    let other = FinishAuthentication { body_digest: [0x99; 32], ..answer };
    assert_eq!(world.refused(finish(other)), Refusal::ChallengeNotLive);
    assert_eq!(names(&world.start(operation).unwrap()), ["ChallengeIssued"], "attempts remain");
}

#[test]
fn every_cell_of_the_table_at_authentication() {
    use HwKeyServerResult as Found;
    let with_key = [
        (OK, Found::Valid, [true; 4]),
        (BAD, Found::Invalid, [false, true, false, false]),
        (JUNK, Found::Malformed, [false, true, false, false]),
        (None, Found::SignatureMissing, [false, true, false, false]),
    ];
    for (hardware, found, passes) in with_key {
        for (strategy, &passes) in Strategy::ALL.iter().zip(&passes) {
            let mut world = World::new(&[]);
            let id = world.active();
            world.configure("hw_key_validation_strategy", &format!("\"{strategy}\""));
            let operation = world.asked(id, Level::TwoFactor);
            let judged = world.judged(operation, Method::DevicePin, [OK, OK, hardware]);
            assert_eq!(judged.failure.is_none(), passes, "{hardware:?} under {strategy}");
            assert_eq!(judged.hw_key_server_result, found);
            assert_eq!(judged.strategy, *strategy);
        }
    }
}

#[test]
fn every_cell_of_the_table_for_registrations_without_a_key() {
    let without = [
        (HwKeyClientStatus::NotSupported, "3.8", [true, true, true, false]),
        (HwKeyClientStatus::NotReported, "3.7", [true, true, true, false]),
        (HwKeyClientStatus::KeyGenerationFailed, "3.8", [true, true, false, false]),
        (HwKeyClientStatus::NotActivated, "3.8", [true, true, false, false]),
    ];
    for (status, version, passes) in without {
        for (strategy, &passes) in Strategy::ALL.iter().zip(&passes) {
            let mut world = World::new(&[]);
            let id = world.active_without(status, version);
            world.configure("hw_key_validation_strategy", &format!("\"{strategy}\""));
            let operation = world.asked(id, Level::TwoFactor);
            world.start(operation).unwrap();
            let mut answer = world.answer(operation, Method::DevicePin, [OK, OK, None]);
            // What a client claims later never relaxes the check.
            answer.declared.hw_key_client_status = HwKeyClientStatus::NotSupported;
            world.done(finish(answer));
            let attempt = world.operation(operation).attempts[0].clone();
            assert_eq!(attempt.failure.is_none(), passes, "{status} {version} under {strategy}");
            if !passes {
                assert_eq!(attempt.failure, Some(AuthenticationFailure::HwKeyRequired));
                assert_eq!(attempt.failures, 0, "the lack of a key counts for nothing");
                assert_eq!(world.operation(operation).state, OperationState::Failed);
            }
        }
    }
}

#[test]
fn where_a_key_is_required_the_answer_does_not_tell_whether_the_pin_was_right() {
    let answers = [OK, BAD].map(|pin| {
        let mut world = World::new(&[]);
        let id = world.active_without(HwKeyClientStatus::NotActivated, "3.8");
        world.configure("hw_key_validation_strategy", "\"REQUIRED\"");
        let operation = world.asked(id, Level::TwoFactor);
        let judged = world.judged(operation, Method::DevicePin, [pin, OK, None]);
        (judged.failure, judged.counted, judged.failures, judged.operation_state)
    });
    assert_eq!(answers[0], answers[1]);
}

#[test]
fn beside_a_pin_the_device_itself_must_sign() {
    for (possession, failure) in [
        (OK, None),
        (BAD, Some(AuthenticationFailure::PossessionUnproven)),
        (None, Some(AuthenticationFailure::PossessionUnproven)),
    ] {
        let mut world = World::new(&[]);
        let id = world.active_without(HwKeyClientStatus::NotSupported, "3.8");
        let operation = world.asked(id, Level::TwoFactor);
        let judged = world.judged(operation, Method::DevicePin, [OK, possession, None]);
        assert_eq!(judged.failure, failure);
    }
}

#[test]
fn a_wrong_pin_counts_and_the_last_one_allowed_locks() {
    let mut world = World::new(&[]);
    let id = world.active();
    let operation = world.asked(id, Level::TwoFactor);
    for failures in 1..=2 {
        let judged = world.judged(operation, Method::DevicePin, [BAD, None, OK]);
        assert!(judged.counted);
        assert_eq!((judged.failures, judged.operation_state), (failures, OperationState::Pending));
        assert_eq!(world.registration(id).state, RegistrationState::Active);
    }
    let judged = world.judged(operation, Method::DevicePin, [BAD, None, OK]);
    assert_eq!((judged.failures, judged.operation_state), (3, OperationState::Failed));
    assert_eq!(world.registration(id).state, RegistrationState::Locked);
    assert_eq!(world.registration(id).lock_reason, Some(LockReason::TooManyFailures));
    let request = world.operation_request(id, Level::TwoFactor);
    assert_eq!(
        world.refused(Want::CreateOperation(request)),
        Refusal::RegistrationState(RegistrationState::Locked)
    );
    world.done(Want::UnlockRegistration { by: by(BANK), registration: id });
    assert_eq!(world.registration(id).failures, 0);
    assert_eq!(world.registration(id).state, RegistrationState::Active);
}

#[test]
fn noise_is_recorded_and_limited_but_never_locks() {
    let mut world = World::new(&[]);
    let id = world.active();
    for _ in 0..NOISE_MAX / 2 {
        let operation = world.asked(id, Level::OneFactor);
        for verdict in [BAD, JUNK] {
            let judged = world.judged(operation, Method::Device, [verdict, None, verdict]);
            assert!(!judged.counted && judged.failures == 0);
            assert_eq!(judged.verifications.len(), 2);
        }
    }
    let operation = world.asked(id, Level::OneFactor);
    world.start(operation).unwrap();
    let answer = world.answer(operation, Method::Device, [OK, None, OK]);
    let until = world.registration(id).noise_since.plus_s(60);
    assert_eq!(world.refused(finish(answer.clone())), Refusal::TooManyAttempts { until });
    world.wait_s(60);
    assert_eq!(names(&world.done(finish(answer))), ["AuthenticationJudged"]);
    assert_eq!(world.operation(operation).state, OperationState::Completed);
}

#[test]
fn without_a_signature_of_the_device_a_right_pin_and_a_wrong_one_are_one_answer() {
    for device in [None, BAD, JUNK] {
        let answers = [OK, BAD].map(|pin| {
            let mut world = World::new(&[]);
            let id = world.active();
            let operation = world.asked(id, Level::TwoFactor);
            let judged = world.judged(operation, Method::DevicePin, [pin, device, device]);
            assert!(judged.failure.is_some());
            let noise = world.registration(id).noise;
            (judged.counted, judged.failures, judged.operation_state, noise)
        });
        assert_eq!(answers[0], answers[1], "{device:?}");
        assert_eq!(answers[0], (false, 0, OperationState::Pending, 1), "{device:?}");
    }
}

#[test]
fn any_signature_of_the_device_makes_a_wrong_pin_count() {
    for [possession, hardware] in [[OK, None], [None, OK], [OK, BAD], [BAD, OK]] {
        let mut world = World::new(&[]);
        let id = world.active();
        let operation = world.asked(id, Level::TwoFactor);
        let judged = world.judged(operation, Method::DevicePin, [BAD, possession, hardware]);
        assert_eq!((judged.counted, judged.failures), (true, 1), "{possession:?} {hardware:?}");
    }
}

#[test]
fn one_factor_forgives_no_wrong_pin_and_two_factors_do() {
    let mut world = World::new(&[]);
    let id = world.active();
    let operation = world.asked(id, Level::OneFactor);
    world.judged(operation, Method::DevicePin, [BAD, None, OK]);
    world.judged(operation, Method::Device, [OK, None, OK]);
    assert_eq!(world.registration(id).failures, 1);
    let operation = world.asked(id, Level::OneFactor);
    world.judged(operation, Method::DevicePin, [OK, None, OK]);
    assert_eq!(world.registration(id).failures, 0);
}

#[test]
fn the_last_challenge_of_an_operation_fails_it() {
    let mut world = World::new(&[("failures_allowed", "20")]);
    let id = world.active();
    let operation = world.asked(id, Level::TwoFactor);
    for judged in 1..=CHALLENGES_MAX {
        world.judged(operation, Method::DevicePin, [BAD, None, OK]);
        let expected =
            if judged < CHALLENGES_MAX { OperationState::Pending } else { OperationState::Failed };
        assert_eq!(world.operation(operation).state, expected, "{judged}");
    }
}

#[test]
fn an_operation_expires_at_its_moment_whoever_comes_first() {
    for (waited, expected) in [(299, "AuthenticationJudged"), (300, "OperationExpired")] {
        let mut world = World::new(&[]);
        let id = world.active();
        let operation = world.asked(id, Level::OneFactor);
        world.start(operation).unwrap();
        let answer = world.answer(operation, Method::Device, [OK, None, OK]);
        world.wait_s(waited);
        assert_eq!(names(&world.done(finish(answer))), [expected]);
        let swept = world.done(Want::ExpireOperation(operation));
        assert!(swept.is_empty(), "one outcome");
    }
}

#[test]
fn the_user_can_say_no_with_the_device_alone() {
    let mut world = World::new(&[]);
    let id = world.active();
    let operation = world.asked(id, Level::TwoFactor);
    world.start(operation).unwrap();
    let mut answer = world.answer(operation, Method::Device, [OK, None, OK]);
    assert_eq!(world.refused(finish(answer.clone())), Refusal::MethodNotOffered);
    answer.said.decision = Decision::Reject;
    world.done(finish(answer));
    assert_eq!(world.operation(operation).state, OperationState::Rejected);
}

#[test]
fn what_was_judged_against_former_keys_is_judged_again() {
    let mut world = World::new(&[]);
    let id = world.active();
    let operation = world.asked(id, Level::OneFactor);
    world.start(operation).unwrap();
    let answer = world.answer(operation, Method::Device, [OK, None, OK]);
    let mut keys = world.started(Some(id), "3.8");
    keys.verifications.push(checked(Role::Previous, Method::Device, HARDWARE_KEY, Verdict::Valid));
    world.done(activate(keys));
    assert_eq!(world.refused(finish(answer)), Refusal::Stale);
}

#[test]
fn a_registration_has_so_many_open_operations_and_no_more() {
    let mut world = World::new(&[]);
    let id = world.active();
    for _ in 0..OPEN_OPERATIONS_MAX {
        world.asked(id, Level::OneFactor);
    }
    let request = world.operation_request(id, Level::OneFactor);
    assert_eq!(world.refused(Want::CreateOperation(request)), Refusal::TooManyOperations);
    let reason = ReasonGiven::UserRequest;
    let events =
        world.done(Want::DeactivateRegistration { by: by(BANK), registration: id, reason });
    assert_eq!(events.len(), 1 + OPEN_OPERATIONS_MAX, "all of them are cancelled");
    assert!(world.registration(id).open_operations.is_empty());
}

#[test]
fn a_level_or_method_that_the_registration_lacks_is_refused_at_once() {
    let mut world = World::new(&[]);
    let id = world.active();
    let mut request = world.operation_request(id, Level::TwoFactor);
    request.methods = vec![Method::DeviceBiometric];
    assert_eq!(world.refused(Want::CreateOperation(request)), Refusal::NoMethodFits);
    let mut request = world.operation_request(id, Level::TwoFactor);
    request.methods = vec![Method::DevicePin; 2];
    let expected = "must name each method once at most";
    let refusal = Refusal::Invalid { field: "methods", expected };
    assert_eq!(world.refused(Want::CreateOperation(request)), refusal);
    for (lifetime, fits) in [(9, false), (10, true), (86_400, true), (86_401, false)] {
        let mut request = world.operation_request(id, Level::TwoFactor);
        request.lifetime_s = Some(lifetime);
        assert_eq!(world.execute(Want::CreateOperation(request)).is_ok(), fits, "{lifetime}");
    }
}

#[test]
fn cancelling_is_final_and_comes_before_or_after_the_answer_but_never_both() {
    let mut world = World::new(&[]);
    let id = world.active();
    let cancel = |operation| Want::CancelOperation { by: by(BANK), operation };
    let operation = world.asked(id, Level::OneFactor);
    world.start(operation).unwrap();
    let answer = world.answer(operation, Method::Device, [OK, None, OK]);
    assert_eq!(names(&world.done(cancel(operation))), ["OperationCancelled"]);
    assert_eq!(world.refused(finish(answer)), Refusal::OperationState(OperationState::Cancelled));
    let operation = world.asked(id, Level::OneFactor);
    world.judged(operation, Method::Device, [OK, None, OK]);
    assert_eq!(
        world.refused(cancel(operation)),
        Refusal::OperationState(OperationState::Completed)
    );
}
