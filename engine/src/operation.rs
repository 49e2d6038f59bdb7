//! An operation: one question to one registration, and its answer.
//!
//! ```text
//! (nothing) --created--> PENDING --challenge issued--> STARTED --judged--+--> COMPLETED (approved, all checks passed)
//!                          |  ^                          |               +--> REJECTED  (the user said no, and signed it)
//!                          |  +----------failed, attempts remain---------+
//!                          |                             |               +--> FAILED    (locked, no key, another number,
//!                          +--time---------> EXPIRED <---+                               too many challenges)
//!                          +--withdrawn--> CANCELLED <---+
//! ```
//!
//! A challenge is judged once, pass or fail. A wrong signature on a live
//! challenge is always an event; it counts towards lockout when the device
//! itself signed beside it (a wrong PIN counts, noise does not).

use crate::broadcast;
use crate::command::{CreateOperation, FinishAuthentication, Refusal, StartAuthentication};
use crate::confirmation;
use crate::entries::{Application, Look, Operation, Registration};
use crate::events::{
    Actor, AuthenticationJudgedV1, ChallengeIssuedV1, OperationCancelledV1, OperationCreatedV1,
    OperationExpiredV1, RegistrationLockedV1, VerificationV1,
};
use crate::ids::{Id, Micros};
use crate::key::KeyBytes;
use crate::plan::{Decided, Plan, has_passed, service_provider};
use crate::reasons::{
    AuthenticationFailure, CancelReason, LockReason, OperationKind, OperationState,
    RegistrationState,
};
use crate::registration::{has_repeats, served};
use crate::strategy::{Consequence, HardwareCheck};
use crate::templates;
use crate::terms::{Decision, Level, Method, Role, Verdict};
use crate::transcript::NO_CONTENT;

/// Most operations of a registration that can be answered at one time.
pub const OPEN_OPERATIONS_MAX: usize = 16;
/// Most challenges of an operation that are judged; the last one fails it.
pub const CHALLENGES_MAX: usize = 10;
/// Failures that do not count, of one registration in one window.
pub const NOISE_MAX: u32 = 10;
/// Length of that window, in seconds.
pub const NOISE_WINDOW_S: u64 = 60;
/// Shortest and longest lifetime of an operation, in seconds.
pub const LIFETIME_S: std::ops::RangeInclusive<u32> = 10..=86_400;

pub(crate) fn create(look: Look, at: Micros, event_id: Id, want: &CreateOperation) -> Decided {
    if want.broadcast.is_some() {
        let expected = "must be absent where one device is asked";
        return Err(Refusal::Invalid { field: "broadcast", expected });
    }
    created(Plan::new(event_id), look, at, want)?.done()
}

/// Adds the event by which a device is asked.
pub(crate) fn created(
    plan: Plan,
    look: Look,
    at: Micros,
    want: &CreateOperation,
) -> Result<Plan, Refusal> {
    let registration = look.registration(want.registration);
    let owner = registration.as_ref().map_or(Id::NIL, |known| known.application);
    let application = service_provider(look, &want.by, owner)?;
    let registration = registration.ok_or(Refusal::Unknown)?;
    if registration.state != RegistrationState::Active {
        return Err(Refusal::RegistrationState(registration.state));
    }
    if registration.open_operations.len() >= OPEN_OPERATIONS_MAX {
        return Err(Refusal::TooManyOperations);
    }
    if look.operation(want.operation).is_some() {
        return Err(Refusal::Taken);
    }
    let lifetime_s = want.lifetime_s.unwrap_or(application.config.operation_lifetime_s);
    if !LIFETIME_S.contains(&lifetime_s) {
        let expected = "must be from 10 to 86400";
        return Err(Refusal::Invalid { field: "lifetime_s", expected });
    }
    if want.kind == OperationKind::Transaction
        && want.context_hash == NO_CONTENT
        && want.data_to_sign_hash == NO_CONTENT
    {
        let expected = "must come with a context or data to sign: a transaction signs something";
        return Err(Refusal::Invalid { field: "kind", expected });
    }
    templates::check(&application, want)?;
    if let Some(matching) = &want.matching {
        confirmation::check(matching)?;
    }
    if has_repeats(&want.methods) {
        let expected = "must name each method once at most";
        return Err(Refusal::Invalid { field: "methods", expected });
    }
    let offered = methods_for(&application, want.level, &want.methods);
    if !offered.iter().any(|&method| registration.software_key(method).is_some()) {
        return Err(Refusal::NoMethodFits);
    }
    let created = OperationCreatedV1 {
        by: want.by.clone(),
        operation: want.operation,
        broadcast: want.broadcast,
        template: want.template.clone(),
        kind: want.kind,
        level: want.level,
        methods: want.methods.clone(),
        lifetime_s: want.lifetime_s,
        context_hash: want.context_hash,
        data_to_sign_hash: want.data_to_sign_hash,
        post_context_hash: want.post_context_hash,
        matching: want.matching.clone(),
        external_id: want.external_id,
        offered,
        expires_at: at.plus_s(lifetime_s.into()),
    };
    Ok(plan.sealed(want.registration, created, registration.subject, &want.sealed))
}

/// Whether a registration can be asked this now.
#[must_use]
pub fn can_ask(
    application: &Application,
    registration: &Registration,
    level: Level,
    methods: &[Method],
) -> bool {
    let offered = methods_for(application, level, methods);
    registration.state == RegistrationState::Active
        && registration.open_operations.len() < OPEN_OPERATIONS_MAX
        && offered.iter().any(|&method| registration.software_key(method).is_some())
}

/// Methods that are allowed, asked for, and reach the level.
pub(crate) fn methods_for(
    application: &Application,
    level: Level,
    asked: &[Method],
) -> Vec<Method> {
    let allowed = application.config.allowed_methods.iter().copied();
    allowed
        .filter(|method| method.level() >= level)
        .filter(|method| asked.is_empty() || asked.contains(method))
        .collect()
}

pub(crate) fn start(look: Look, at: Micros, event_id: Id, want: &StartAuthentication) -> Decided {
    let operation = look.operation(want.operation).ok_or(Refusal::Unknown)?;
    let registration = look.registration(operation.registration).ok_or(Refusal::Unknown)?;
    let application = look.application(operation.application).ok_or(Refusal::Unknown)?;
    if operation.state.is_final() {
        return Err(Refusal::OperationState(operation.state));
    }
    if has_passed(operation.expires_at, at) {
        return expire_now(event_id, &operation, want.operation);
    }
    if registration.state != RegistrationState::Active {
        return Err(Refusal::RegistrationState(registration.state));
    }
    served(&application, &want.client_version)?;
    if operation.challenge.is_some() {
        return Ok(Vec::new());
    }
    let issued = ChallengeIssuedV1 {
        operation: want.operation,
        challenge: want.challenge,
        client_version: want.client_version.clone(),
    };
    Plan::new(event_id).event(operation.registration, issued).done()
}

pub(crate) fn finish(look: Look, at: Micros, event_id: Id, want: &FinishAuthentication) -> Decided {
    let operation = look.operation(want.operation).ok_or(Refusal::Unknown)?;
    if operation.attempts.iter().any(|attempt| attempt.body_digest == want.body_digest) {
        return Err(Refusal::JudgedBefore);
    }
    let registration = look.registration(operation.registration).ok_or(Refusal::Unknown)?;
    let application = look.application(operation.application).ok_or(Refusal::Unknown)?;
    if operation.state.is_final() {
        return Err(Refusal::OperationState(operation.state));
    }
    if has_passed(operation.expires_at, at) {
        return expire_now(event_id, &operation, want.operation);
    }
    if registration.state != RegistrationState::Active {
        return Err(Refusal::RegistrationState(registration.state));
    }
    if operation.challenge != Some(want.challenge) {
        return Err(Refusal::ChallengeNotLive);
    }
    served(&application, &want.declared.client_version)?;
    if !may_answer(&operation, &registration, want) {
        return Err(Refusal::MethodNotOffered);
    }
    confirmation::fits(operation.matching.as_ref(), want.said)?;
    let noisy_until = registration.noise_since.plus_s(NOISE_WINDOW_S);
    if registration.noise >= NOISE_MAX && !has_passed(noisy_until, at) {
        return Err(Refusal::TooManyAttempts { until: noisy_until });
    }
    if registration.keys_at != want.keys_at {
        return Err(Refusal::Stale);
    }
    let judged = judge(&application, &operation, &registration, want);
    let locks = judged.counted && judged.failures >= judged.failures_allowed;
    let id = operation.registration;
    let answered = judged.failure.is_none();
    let mut plan = Plan::new(event_id).sealed(id, judged, registration.subject, &want.sealed);
    if answered {
        plan = broadcast::answered_elsewhere(plan, look, want.operation, &operation);
    }
    if locks {
        let locked = RegistrationLockedV1 { by: None, reason: LockReason::TooManyFailures };
        return plan.event(id, locked).done();
    }
    plan.done()
}

/// Whether the method can give this answer: any offered one can approve, and
/// DEVICE can always reject, since saying no needs no second factor.
fn may_answer(
    operation: &Operation,
    registration: &Registration,
    want: &FinishAuthentication,
) -> bool {
    let offered = match want.said.decision {
        Decision::Approve => operation.methods.contains(&want.method),
        Decision::Reject => {
            want.method == Method::Device || operation.methods.contains(&want.method)
        }
    };
    offered && registration.software_key(want.method).is_some()
}

/// What an answer is judged to be. The check of the hardware key always runs.
fn judge(
    application: &Application,
    operation: &Operation,
    registration: &Registration,
    want: &FinishAuthentication,
) -> AuthenticationJudgedV1 {
    let config = &application.config;
    let check = match &registration.hardware {
        Some(key) => HardwareCheck::with_key(proof(want, Role::Hardware, key)),
        None => HardwareCheck::without_key(registration.hw_key_impossible),
    };
    let consequence = check.under(config.hw_key_validation_strategy);
    let failure = failure(registration, want, check, consequence).or_else(|| {
        let right = confirmation::is_right(operation.matching.as_ref(), want.said);
        (!right).then_some(AuthenticationFailure::ConfirmationWrong)
    });
    // A wrong PIN shows up beside a signature of the device; noise has none. Where
    // the lack of a key or the number decides, no PIN does, so nothing counts.
    let counted =
        device_signed(registration, want) && failure.is_some_and(|failure| !ends_at_once(failure));
    let failures = if counted {
        registration.failures.saturating_add(1)
    } else if failure.is_none() && forgives(registration, want) {
        0
    } else {
        registration.failures
    };
    let locks = counted && failures >= config.failures_allowed;
    let exhausted = operation.attempts.len() + 1 >= CHALLENGES_MAX;
    let operation_state = match (failure, want.said.decision) {
        (None, Decision::Approve) => OperationState::Completed,
        (None, Decision::Reject) => OperationState::Rejected,
        (Some(failure), Decision::Approve | Decision::Reject)
            if locks || exhausted || ends_at_once(failure) =>
        {
            OperationState::Failed
        }
        (Some(_), Decision::Approve | Decision::Reject) => OperationState::Pending,
    };
    AuthenticationJudgedV1 {
        application: operation.application,
        operation: want.operation,
        challenge: want.challenge,
        kind: operation.kind,
        level: operation.level,
        context_hash: operation.context_hash,
        data_to_sign_hash: operation.data_to_sign_hash,
        method: want.method,
        decision: want.said.decision,
        reject_reason: want.said.reason,
        number: want.said.number,
        declared: want.declared.clone(),
        body_digest: want.body_digest,
        keys_at: want.keys_at,
        verifications: want.verifications.clone(),
        config_version: application.config_version,
        strategy: config.hw_key_validation_strategy,
        hw_key_server_result: check.result(),
        failure,
        counted,
        failures,
        failures_allowed: config.failures_allowed,
        operation_state,
    }
}

/// Whether a failure ends its operation and counts for nothing: another try could
/// not succeed, or, with a number to be confirmed, could succeed by chance.
fn ends_at_once(failure: AuthenticationFailure) -> bool {
    match failure {
        AuthenticationFailure::HwKeyRequired | AuthenticationFailure::ConfirmationWrong => true,
        AuthenticationFailure::SoftwareSignatureInvalid
        | AuthenticationFailure::PossessionUnproven
        | AuthenticationFailure::HwKeyCheckFailed => false,
    }
}

/// Why the answer is not accepted, if it is not.
fn failure(
    registration: &Registration,
    want: &FinishAuthentication,
    check: HardwareCheck,
    consequence: Consequence,
) -> Option<AuthenticationFailure> {
    let software = registration.software_key(want.method);
    let software_valid =
        software.is_some_and(|key| proof(want, Role::Software, key) == Some(Verdict::Valid));
    let no_key = match check {
        HardwareCheck::NoKeyCannot | HardwareCheck::NoKeyCould => true,
        HardwareCheck::Valid | HardwareCheck::Invalid(_) | HardwareCheck::Missing => false,
    };
    if no_key && consequence == Consequence::Fail {
        // First, so that the answer tells nothing of the signatures beside it.
        return Some(AuthenticationFailure::HwKeyRequired);
    }
    if !software_valid {
        return Some(AuthenticationFailure::SoftwareSignatureInvalid);
    }
    if !possession_proven(registration, want, check) {
        return Some(AuthenticationFailure::PossessionUnproven);
    }
    (consequence == Consequence::Fail).then_some(AuthenticationFailure::HwKeyCheckFailed)
}

/// Whether the device itself signed: by its hardware key, else by its DEVICE key.
/// The DEVICE method is such a signature.
fn possession_proven(
    registration: &Registration,
    want: &FinishAuthentication,
    check: HardwareCheck,
) -> bool {
    let device_signed = registration
        .software_key(Method::Device)
        .is_some_and(|key| proof(want, Role::Possession, key) == Some(Verdict::Valid));
    want.method == Method::Device || check == HardwareCheck::Valid || device_signed
}

/// Whether the hardware key or the DEVICE key verified, in whatever role.
///
/// The key of a PIN does not tell: if its signature alone made a failure count,
/// whoever took the phone could try PINs without the device's signature, and the
/// first one that counts would be the right one.
fn device_signed(registration: &Registration, want: &FinishAuthentication) -> bool {
    let device = registration.software_key(Method::Device);
    let mut valid = want.verifications.iter().filter(|checked| checked.verdict == Verdict::Valid);
    valid.any(|checked| registration.hardware.iter().chain(device).any(|key| *key == checked.key))
}

/// Whether success forgets earlier failures. One factor does not where there are
/// two: else a thief who has the phone could try PINs for ever, with a DEVICE
/// log-in after every second one.
fn forgives(registration: &Registration, want: &FinishAuthentication) -> bool {
    want.said.decision == Decision::Approve
        && (want.method.level() == Level::TwoFactor || !registration.has_two_factors())
}

/// The verdict on the signature by `key` in `role`, if one was checked.
fn proof(want: &FinishAuthentication, role: Role, key: &KeyBytes) -> Option<Verdict> {
    want.verifications
        .iter()
        .find(|checked: &&VerificationV1| checked.role == role && checked.key == *key)
        .map(|checked| checked.verdict)
}

pub(crate) fn expire(look: Look, at: Micros, event_id: Id, id: Id) -> Decided {
    let operation = look.operation(id).ok_or(Refusal::Unknown)?;
    if operation.state.is_final() || !has_passed(operation.expires_at, at) {
        return Ok(Vec::new());
    }
    expire_now(event_id, &operation, id)
}

fn expire_now(event_id: Id, operation: &Operation, id: Id) -> Decided {
    Plan::new(event_id).event(operation.registration, OperationExpiredV1 { operation: id }).done()
}

pub(crate) fn cancel(look: Look, at: Micros, event_id: Id, by: &Actor, id: Id) -> Decided {
    let operation = look.operation(id);
    let owner = operation.as_ref().map_or(Id::NIL, |known| known.application);
    service_provider(look, by, owner)?;
    let operation = operation.ok_or(Refusal::Unknown)?;
    match operation.state {
        OperationState::Pending | OperationState::Started => (),
        OperationState::Cancelled => return Ok(Vec::new()),
        state @ (OperationState::Completed
        | OperationState::Rejected
        | OperationState::Failed
        | OperationState::Expired) => return Err(Refusal::OperationState(state)),
    }
    if has_passed(operation.expires_at, at) {
        return expire_now(event_id, &operation, id);
    }
    let cancelled = |operation| OperationCancelledV1 {
        by: by.clone(),
        operation,
        reason: CancelReason::Requested,
    };
    // A broadcast is one question: whoever withdraws it from one device does from all.
    let mut plan = Plan::new(event_id).event(operation.registration, cancelled(id));
    for (other, known) in broadcast::open_siblings(look, id, &operation) {
        plan = plan.event(known.registration, cancelled(other));
    }
    plan.done()
}
