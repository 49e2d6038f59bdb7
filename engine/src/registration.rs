//! A registration: one app on one device, its keys, and how it gets and loses them.
//!
//! ```text
//! (nothing) --requested--> REQUESTED --code redeemed--> STARTED --keys proven--> ACTIVE
//!                              |                           |                      |  ^
//!                              +--expired, cancelled-------+--or keys refused     |  |
//!                              v                                     too many failures,
//!                         DEACTIVATED <----------deactivated-----+   or by request |  | unlocked, or
//!                              ^                                 |                v  | re-activated
//!                              +-----------deactivated-----------+-------------- LOCKED
//! ```
//!
//! A re-activation (an activation requested for a registration that has keys)
//! does not move it: the old keys stay in force until the new ones are proven.
//! Then it is ACTIVE, also if it was LOCKED; a lock by request cancels a
//! re-activation under way, so a lock is never undone by what came before it.

use crate::attestation::activation::{passes, status};
use crate::codes::{CODE_LENGTH_MAX, length_needed};
use crate::command::{FinishActivation, Refusal, RequestActivation, StartActivation};
use crate::entries::{Activation, Application, Look, Registration};
use crate::events::{
    ActivationCancelledV1, ActivationExpiredV1, ActivationJudgedV1, ActivationRequestedV1,
    ActivationStartedV1, Actor, KeySetV1, OperationCancelledV1, RegistrationDeactivatedV1,
    RegistrationLockedV1, RegistrationUnlockedV1, VerificationV1,
};
use crate::ids::{Id, Micros};
use crate::key::KeyBytes;
use crate::plan::{Decided, Plan, has_passed, service_provider};
use crate::reasons::{
    ActivationFailure, ActivationState, CancelReason, CodeKind, ReasonGiven, RegistrationState,
};
use crate::strategy::{Consequence, HardwareCheck};
use crate::terms::{HwKeyClientStatus, Method, Role, Verdict};
use crate::version::ClientVersion;

pub(crate) fn request_activation(
    look: Look,
    at: Micros,
    event_id: Id,
    want: &RequestActivation,
) -> Decided {
    let application = service_provider(look, &want.by, want.application)?;
    let replaced = if want.again {
        reactivable(look, want)?.activation
    } else if look.is_stream(want.registration) {
        return Err(Refusal::Taken);
    } else if look.erasure(want.subject).is_some() {
        return Err(Refusal::SubjectErased);
    } else {
        None
    };
    guessing_is_hard(&application)?;
    let taken = look.activation(want.activation).is_some()
        || look.code(&want.code_hash).is_some()
        || look.code(&want.qr_hash).is_some();
    if taken {
        return Err(Refusal::Taken);
    }
    let requested = ActivationRequestedV1 {
        by: want.by.clone(),
        application: want.application,
        activation: want.activation,
        again: want.again,
        code_hash: want.code_hash,
        qr_hash: want.qr_hash,
        expires_at: at.plus_s(application.config.activation_code_lifetime_s.into()),
    };
    let plan = Plan::new(event_id).sealed(want.registration, requested, want.subject, &want.sealed);
    cancelled(plan, want.registration, replaced, &want.by, CancelReason::Replaced).done()
}

/// The registration that is to be activated again.
fn reactivable(
    look: Look,
    want: &RequestActivation,
) -> Result<std::sync::Arc<Registration>, Refusal> {
    let registration = look
        .registration(want.registration)
        .filter(|registration| registration.application == want.application)
        .ok_or(Refusal::Unknown)?;
    match registration.state {
        RegistrationState::Active | RegistrationState::Locked => Ok(registration),
        state @ (RegistrationState::Requested
        | RegistrationState::Started
        | RegistrationState::Deactivated) => Err(Refusal::RegistrationState(state)),
    }
}

/// Refuses one more code if a budget of guesses would then hit one too easily.
fn guessing_is_hard(application: &Application) -> Result<(), Refusal> {
    let config = &application.config;
    let live = application.live_codes.saturating_add(1);
    let needed = length_needed(config.activation_code_type, live, config.activation_failure_budget);
    if needed > config.activation_code_length {
        return Err(Refusal::CodeTooShort { needed: needed.min(CODE_LENGTH_MAX) });
    }
    Ok(())
}

pub(crate) fn start_activation(
    look: Look,
    at: Micros,
    event_id: Id,
    want: &StartActivation,
) -> Decided {
    let activation = look.activation(want.activation).ok_or(Refusal::Unknown)?;
    let application = look.application(activation.application).ok_or(Refusal::Unknown)?;
    if want.with == CodeKind::Typed && !has_passed(application.codes_refused_until, at) {
        return Err(Refusal::CodesRefused { until: application.codes_refused_until });
    }
    match activation.state {
        ActivationState::Requested | ActivationState::Started => (),
        state @ (ActivationState::Completed
        | ActivationState::Failed
        | ActivationState::Expired
        | ActivationState::Cancelled) => return Err(Refusal::ActivationState(state)),
    }
    if has_passed(activation.expires_at, at) {
        return expire(event_id, activation.registration, want.activation);
    }
    if let Some(started) = &activation.started {
        // The answer was lost: the same client may ask again, and nobody else.
        let same = started.nonce_hash == want.nonce_hash && started.with == want.with;
        return if same { Ok(Vec::new()) } else { Err(Refusal::CodeRedeemed) };
    }
    served(&application, &want.client_version)?;
    let started = ActivationStartedV1 {
        activation: want.activation,
        with: want.with,
        nonce_hash: want.nonce_hash,
        challenge: want.challenge,
        client_version: want.client_version.clone(),
        expires_at: at.plus_s(application.config.activation_lifetime_s.into()),
    };
    Plan::new(event_id).event(activation.registration, started).done()
}

/// The client's version, if clients of this version are served.
pub(crate) fn served(application: &Application, version: &str) -> Result<ClientVersion, Refusal> {
    let version = ClientVersion::parse(version).map_err(|_| Refusal::Invalid {
        field: "client_version",
        expected: "must be one to four numbers with dots between",
    })?;
    if application.config.serves(&version) { Ok(version) } else { Err(Refusal::ClientTooOld) }
}

pub(crate) fn finish_activation(
    look: Look,
    at: Micros,
    event_id: Id,
    want: &FinishActivation,
) -> Decided {
    let activation = look.activation(want.activation).ok_or(Refusal::Unknown)?;
    if activation.judged.as_ref().is_some_and(|judged| judged.body_digest == want.body_digest) {
        return Err(Refusal::JudgedBefore);
    }
    let registration = look.registration(activation.registration).ok_or(Refusal::Unknown)?;
    let application = look.application(activation.application).ok_or(Refusal::Unknown)?;
    if activation.state != ActivationState::Started {
        return Err(Refusal::ActivationState(activation.state));
    }
    if has_passed(activation.expires_at, at) {
        return expire(event_id, activation.registration, want.activation);
    }
    if activation.started.as_ref().is_none_or(|started| started.challenge != want.challenge) {
        return Err(Refusal::ChallengeNotLive);
    }
    let version = served(&application, &want.declared.client_version)?;
    acceptable(&application, &want.keys)?;
    judged_as_things_are(look, &application, want)?;
    let judged = judge(&application, &activation, &registration, &version, want);
    Plan::new(event_id)
        .sealed(activation.registration, judged, registration.subject, &want.sealed)
        .done()
}

/// Refuses evidence that was judged under another policy or list than those in force.
fn judged_as_things_are(
    look: Look,
    application: &Application,
    want: &FinishActivation,
) -> Result<(), Refusal> {
    let current = want.evidence.as_ref().is_none_or(|evidence| {
        evidence.config_version == application.config_version && evidence.list == look.system().list
    });
    if current { Ok(()) } else { Err(Refusal::Stale) }
}

/// Refuses a key set that no device following the protocol sends.
fn acceptable(application: &Application, keys: &KeySetV1) -> Result<(), Refusal> {
    let invalid = |expected| Err(Refusal::Invalid { field: "keys", expected });
    let methods: Vec<_> = keys.software.iter().map(|slot| slot.method).collect();
    if !methods.contains(&Method::Device) {
        return invalid("must contain a key for DEVICE");
    }
    if has_repeats(&methods) {
        return invalid("must contain one key for a method");
    }
    if methods.iter().any(|method| !application.config.allowed_methods.contains(method)) {
        return invalid("must be for allowed methods");
    }
    let points: Vec<_> = keys.software.iter().map(|slot| slot.key).chain(keys.hardware).collect();
    // One key in two parts would let one proof stand for two.
    if has_repeats(&points) { invalid("must differ from each other") } else { Ok(()) }
}

/// Whether an item stands there twice.
pub(crate) fn has_repeats<T: PartialEq>(items: &[T]) -> bool {
    items.iter().enumerate().any(|(index, item)| items[..index].contains(item))
}

/// What a finish is judged to be. The check of the hardware key always runs.
fn judge(
    application: &Application,
    activation: &Activation,
    registration: &Registration,
    version: &ClientVersion,
    want: &FinishActivation,
) -> ActivationJudgedV1 {
    let config = &application.config;
    let too_old = !version.is_at_least(&config.hw_key_min_client_version);
    let offered = want.keys.hardware.filter(|_| !too_old);
    let impossible = too_old
        || (offered.is_none()
            && want.declared.hw_key_client_status == HwKeyClientStatus::NotSupported);
    let check = match offered {
        Some(key) => HardwareCheck::with_key(proof(&want.verifications, Role::Hardware, &key)),
        None => HardwareCheck::without_key(impossible),
    };
    let software_proven = want.keys.software.iter().all(|slot| {
        want.verifications.iter().any(|checked| {
            checked.role == Role::Software
                && checked.method == slot.method
                && checked.key == slot.key
                && checked.verdict == Verdict::Valid
        })
    });
    let policy = &config.attestation;
    let unproven_device = activation.again && !previous_key_signed(registration, want);
    let failure = if !software_proven {
        Some(ActivationFailure::SoftwareKeyUnproven)
    } else if check.under(config.hw_key_validation_strategy) == Consequence::Fail {
        Some(ActivationFailure::HwKeyCheckFailed)
    } else if unproven_device && !config.allow_unproven_reactivation {
        Some(ActivationFailure::PreviousKeyUnproven)
    } else if !passes(policy, want.evidence.as_ref(), check == HardwareCheck::Valid) {
        Some(ActivationFailure::AttestationRequired)
    } else {
        None
    };
    ActivationJudgedV1 {
        application: activation.application,
        activation: want.activation,
        challenge: want.challenge,
        declared: want.declared.clone(),
        keys: want.keys.clone(),
        device_token_hash: want.device_token_hash,
        attestation_hash: want.attestation_hash,
        body_digest: want.body_digest,
        verifications: want.verifications.clone(),
        attestation: status(policy, want.evidence.as_ref(), want.declared.hw_key_client_status),
        evidence: want.evidence.clone(),
        config_version: application.config_version,
        strategy: config.hw_key_validation_strategy,
        hw_key_server_result: check.result_at_activation(),
        hw_key_impossible: impossible,
        // Whatever the strategy: a key whose possession was not proven is not stored.
        hw_key_stored: failure.is_none() && check == HardwareCheck::Valid,
        unproven_device,
        failure,
    }
}

/// The verdict on the proof by `key` in `role`, if one was checked.
fn proof(verifications: &[VerificationV1], role: Role, key: &KeyBytes) -> Option<Verdict> {
    verifications
        .iter()
        .find(|checked| checked.role == role && checked.key == *key)
        .map(|checked| checked.verdict)
}

/// Whether the hardware or DEVICE key on file signed the new transcript.
fn previous_key_signed(registration: &Registration, want: &FinishActivation) -> bool {
    registration
        .hardware
        .iter()
        .chain(registration.software_key(Method::Device))
        .any(|key| proof(&want.verifications, Role::Previous, key) == Some(Verdict::Valid))
}

pub(crate) fn expire_activation(look: Look, at: Micros, event_id: Id, id: Id) -> Decided {
    let activation = look.activation(id).ok_or(Refusal::Unknown)?;
    match activation.state {
        ActivationState::Requested | ActivationState::Started
            if has_passed(activation.expires_at, at) =>
        {
            expire(event_id, activation.registration, id)
        }
        ActivationState::Requested
        | ActivationState::Started
        | ActivationState::Completed
        | ActivationState::Failed
        | ActivationState::Expired
        | ActivationState::Cancelled => Ok(Vec::new()),
    }
}

fn expire(event_id: Id, registration: Id, activation: Id) -> Decided {
    Plan::new(event_id).event(registration, ActivationExpiredV1 { activation }).done()
}

pub(crate) fn cancel_activation(
    look: Look,
    at: Micros,
    event_id: Id,
    by: &Actor,
    id: Id,
) -> Decided {
    let activation = look.activation(id);
    let owner = activation.as_ref().map_or(Id::NIL, |known| known.application);
    service_provider(look, by, owner)?;
    let activation = activation.ok_or(Refusal::Unknown)?;
    match activation.state {
        ActivationState::Requested | ActivationState::Started => (),
        ActivationState::Cancelled => return Ok(Vec::new()),
        state @ (ActivationState::Completed
        | ActivationState::Failed
        | ActivationState::Expired) => return Err(Refusal::ActivationState(state)),
    }
    if has_passed(activation.expires_at, at) {
        return expire(event_id, activation.registration, id);
    }
    let plan = Plan::new(event_id);
    cancelled(plan, activation.registration, Some(id), by, CancelReason::Requested).done()
}

/// Adds the cancellation of an activation under way, if there is one.
fn cancelled(
    plan: Plan,
    registration: Id,
    activation: Option<Id>,
    by: &Actor,
    reason: CancelReason,
) -> Plan {
    match activation {
        Some(activation) => {
            plan.event(registration, ActivationCancelledV1 { by: by.clone(), activation, reason })
        }
        None => plan,
    }
}

/// The registration, if the caller may manage it.
fn managed(look: Look, by: &Actor, id: Id) -> Result<std::sync::Arc<Registration>, Refusal> {
    // An unknown registration has no application: ask for one that does not exist.
    let registration = look.registration(id);
    let application = registration.as_ref().map_or(Id::NIL, |known| known.application);
    service_provider(look, by, application)?;
    registration.ok_or(Refusal::Unknown)
}

pub(crate) fn lock(look: Look, event_id: Id, by: &Actor, id: Id, reason: ReasonGiven) -> Decided {
    let registration = managed(look, by, id)?;
    match registration.state {
        RegistrationState::Active => (),
        RegistrationState::Locked if registration.lock_reason == Some(reason.into()) => {
            return Ok(Vec::new());
        }
        // A lock for another reason is recorded: it must outlive an unlock of the first.
        RegistrationState::Locked => (),
        state @ (RegistrationState::Requested
        | RegistrationState::Started
        | RegistrationState::Deactivated) => return Err(Refusal::RegistrationState(state)),
    }
    let locked = RegistrationLockedV1 { by: Some(by.clone()), reason: reason.into() };
    let plan = Plan::new(event_id).event(id, locked);
    cancelled(plan, id, registration.activation, by, CancelReason::RegistrationLocked).done()
}

pub(crate) fn unlock(look: Look, event_id: Id, by: &Actor, id: Id) -> Decided {
    let registration = managed(look, by, id)?;
    match registration.state {
        RegistrationState::Locked => {
            Plan::new(event_id).event(id, RegistrationUnlockedV1 { by: by.clone() }).done()
        }
        RegistrationState::Active => Ok(Vec::new()),
        state @ (RegistrationState::Requested
        | RegistrationState::Started
        | RegistrationState::Deactivated) => Err(Refusal::RegistrationState(state)),
    }
}

pub(crate) fn deactivate(
    look: Look,
    event_id: Id,
    by: &Actor,
    id: Id,
    reason: ReasonGiven,
) -> Decided {
    let registration = managed(look, by, id)?;
    if registration.state == RegistrationState::Deactivated {
        return Ok(Vec::new());
    }
    deactivated(Plan::new(event_id), id, &registration, by, reason).done()
}

/// Adds the end of a registration, and of all that is under way in it.
pub(crate) fn deactivated(
    plan: Plan,
    id: Id,
    registration: &Registration,
    by: &Actor,
    reason: ReasonGiven,
) -> Plan {
    let plan = plan.event(id, RegistrationDeactivatedV1 { by: by.clone(), reason });
    let cause = CancelReason::RegistrationDeactivated;
    let plan = cancelled(plan, id, registration.activation, by, cause);
    registration.open_operations.iter().fold(plan, |plan, &operation| {
        plan.event(id, OperationCancelledV1 { by: by.clone(), operation, reason: cause })
    })
}
