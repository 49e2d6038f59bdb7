//! Activations, for service providers.

use actix_web::HttpResponse;
use actix_web::web::{self, Path};
use engine::attestation::Attested;
use engine::codes;
use engine::command::{self, Command, Refusal, Want};
use engine::entries::{self, Application};
use engine::events::{ActivationRequestedV1, Event};
use engine::ids::Id;
use engine::reasons::{CodeType, RiskAttribute};
use engine::sealed::{SealedUserV1, USER_REF_MAX};
use engine::terms::{HwKeyClientStatus, HwKeyServerResult};
use storage::keys::{KeyError, SubjectKey};

use super::registrations;
use crate::auth::roles::ServiceProvider;
use crate::call::{Call, Failed, Outcome};
use crate::erasure;
use crate::http::body::Body;
use crate::http::idempotency::{Asked, Idempotency, IdempotencyKey};
use crate::key_use::OpenedFor;
use crate::problem::{ApiError, Code};
use crate::sealing;
use crate::wire::provider::{self as wire, Risk};
use crate::wire::{Empty, Moment, QrPayload};

/// How often a code is drawn again whose hash is taken already.
const DRAWS: usize = 4;
/// Lengths that a code may have; a configuration allows no others.
const CODE_LENGTHS: std::ops::RangeInclusive<u32> = 6..=codes::CODE_LENGTH_MAX;

/// Asks for the activation of a new registration.
///
/// The answer has the code and the QR payload; a repeat under the same
/// `Idempotency-Key` has the same ones.
#[utoipa::path(
    post, path = "/v1/activations", tag = "activations", operation_id = "request_activation",
    request_body = wire::RequestActivation,
    params(IdempotencyKey),
    responses((status = 201, description = "The activation, with code and QR payload.", body = wire::RequestedActivation)),
)]
pub async fn request(
    call: Call,
    caller: ServiceProvider,
    idempotency: Idempotency,
    body: Body<wire::RequestActivation>,
) -> Result<HttpResponse, ApiError> {
    let asked = idempotency.asked(caller.key_id(), &body.bytes);
    let wire::RequestActivation { application_id, user_ref } = body.value;
    check_user_ref(&user_ref)?;
    // Before a subject is made for a request that will be refused.
    own_application(&call, &caller, application_id)?;
    for _ in 0..DRAWS {
        let subject = subject_of(&call, &caller, &user_ref).await?;
        let (application, found, user_ref) = (application_id, subject.id, user_ref.clone());
        let target = Target { application, registration: None, user_ref, subject };
        match requested(&call, &asked, &target).await {
            // Ordered a moment ago. Once the key is gone the reference stands for
            // a new user.
            Err(Failed::Refused(Refusal::SubjectErased)) => erasure::carry_out(&call, found)
                .await
                .map_err(|error| ApiError::new(Code::Internal).cause(error))?,
            answer => return Ok(answer?),
        }
    }
    Err(ApiError::new(Code::Internal).cause("every subject of a reference was erased"))
}

/// The subject of the caller's user, new or known.
async fn subject_of(
    call: &Call,
    caller: &ServiceProvider,
    user_ref: &str,
) -> Result<SubjectKey, ApiError> {
    let (keys, provider) = (call.keys.clone(), caller.service_provider().to_owned());
    let reference = user_ref.to_owned();
    let internal = |error: Box<dyn std::error::Error + Send + Sync>| {
        ApiError::new(Code::Internal).cause(error)
    };
    let subject = web::block(move || keys.subject_for(&provider, &reference)).await;
    subject.map_err(|e| internal(e.into()))?.map_err(|error| match error {
        KeyError::Full => ApiError::new(Code::Unavailable)
            .detail("the disk is full; nothing is written until there is space"),
        other => internal(other.into()),
    })
}

/// Asks for new keys for a registration that has keys.
///
/// The old keys stay in force until the new ones are proven.
#[utoipa::path(
    post, path = "/v1/registrations/{id}/activations", tag = "activations",
    operation_id = "request_reactivation", request_body = Empty,
    params(
        ("id" = String, Path, description = "Id of the registration."),
        IdempotencyKey,
    ),
    responses((status = 201, description = "The activation, with code and QR payload.", body = wire::RequestedActivation)),
)]
pub async fn request_again(
    call: Call,
    caller: ServiceProvider,
    id: Path<Id>,
    idempotency: Idempotency,
    body: Body<Empty>,
) -> Result<HttpResponse, ApiError> {
    let asked = idempotency.asked(caller.key_id(), &body.bytes);
    let registration = registrations::own(&call, &caller, *id)?;
    let user: Option<SealedUserV1> =
        call.sealed(registration.requested_in, OpenedFor::ServiceProvider)?;
    let subject = sealing::subject_key(&call.keys, registration.subject)?;
    // Whoever was erased has no reference that could be sealed again.
    let (Some(user), Some(subject)) = (user, subject) else {
        return Err(ApiError::new(Code::RegistrationState).detail("its user was erased"));
    };
    let target = Target {
        application: registration.application,
        registration: Some(*id),
        user_ref: user.user_ref,
        subject,
    };
    Ok(requested(&call, &asked, &target).await?)
}

/// Returns an activation, without its code.
#[utoipa::path(
    get, path = "/v1/activations/{id}", tag = "activations", operation_id = "activation",
    params(("id" = String, Path, description = "Id of the activation.")),
    responses((status = 200, description = "The activation.", body = wire::Activation)),
)]
pub async fn activation(
    call: Call,
    caller: ServiceProvider,
    id: Path<Id>,
) -> Result<HttpResponse, ApiError> {
    let activation = call.look().activation(*id).ok_or(Code::NotFound)?;
    let application = own_application(&call, &caller, activation.application)?;
    Ok(HttpResponse::Ok().json(view(*id, &activation, &application)))
}

/// Cancels an activation that is not finished.
#[utoipa::path(
    post, path = "/v1/activations/{id}/cancel", tag = "activations",
    operation_id = "cancel_activation", request_body = Empty,
    params(
        ("id" = String, Path, description = "Id of the activation."),
        IdempotencyKey,
    ),
    responses((status = 200, description = "The activation.", body = wire::Activation)),
)]
pub async fn cancel(
    call: Call,
    caller: ServiceProvider,
    id: Path<Id>,
    idempotency: Idempotency,
    body: Body<Empty>,
) -> Result<HttpResponse, ApiError> {
    let asked = idempotency.asked(caller.key_id(), &body.bytes);
    let want = Want::CancelActivation { by: asked.by.clone(), activation: *id };
    let command = call.command(want);
    let outcome = call.execute_for(&asked, command).await?;
    if let Some(Event::ActivationExpired(_)) = outcome.first_event()? {
        return Err(ApiError::new(Code::ActivationState).detail("it is EXPIRED"));
    }
    activation(call, caller, id).await
}

/// For whom an activation is requested.
struct Target {
    application: Id,
    /// None for a new one.
    registration: Option<Id>,
    user_ref: String,
    subject: SubjectKey,
}

/// Requests an activation, with a fresh code each time one is taken.
async fn requested(call: &Call, asked: &Asked, target: &Target) -> Result<HttpResponse, Failed> {
    for _ in 0..DRAWS {
        let command = draw(call, asked, target).map_err(Failed::Error)?;
        match call.execute(command, asked.causation).await {
            Ok(outcome) => return answer(call, &outcome).map_err(Failed::Error),
            Err(Failed::Refused(Refusal::Taken)) => {}
            Err(failed) => return Err(failed),
        }
    }
    let cause = "no free activation code was drawn";
    Err(Failed::Error(ApiError::new(Code::Internal).cause(cause)))
}

/// The command that requests an activation, with fresh ids and a fresh code.
fn draw(call: &Call, asked: &Asked, target: &Target) -> Result<Command, ApiError> {
    let application = call.look().application(target.application).ok_or(Code::NotFound)?;
    let (key, config) = (call.code_key(), &application.config);
    let activation = call.fresh_id();
    let code = codes::activation_code(
        key,
        activation,
        config.activation_code_type,
        config.activation_code_length,
    );
    let event_id = call.fresh_event_id();
    let registration = target.registration.unwrap_or_else(|| call.fresh_id());
    let user = SealedUserV1 { user_ref: target.user_ref.clone() };
    let sealed =
        sealing::seal::<ActivationRequestedV1>(&target.subject, event_id, registration, &user);
    let want = command::RequestActivation {
        by: asked.by.clone(),
        application: target.application,
        registration,
        again: target.registration.is_some(),
        activation,
        code_hash: codes::code_hash(key, target.application, &code),
        qr_hash: codes::qr_hash(key, target.application, &codes::qr_secret(key, activation)),
        subject: target.subject.id,
        sealed,
    };
    Ok(Command { event_id, want: Want::RequestActivation(want) })
}

/// The activation that was requested, now or under the same idempotency key.
fn answer(call: &Call, outcome: &Outcome) -> Result<HttpResponse, ApiError> {
    let Some(Event::ActivationRequested(requested)) = outcome.first_event()? else {
        return Err(ApiError::new(Code::Internal).cause("an activation without its first event"));
    };
    let id = requested.activation;
    let activation = call.look().activation(id).ok_or(Code::NotFound)?;
    let application = call.look().application(activation.application).ok_or(Code::NotFound)?;
    let secret = codes::qr_secret(call.code_key(), id);
    Ok(HttpResponse::Created().json(wire::RequestedActivation {
        activation: view(id, &activation, &application),
        code: code_again(call.code_key(), id, &activation)?,
        qr_payload: QrPayload { application: activation.application, secret }.to_string(),
    }))
}

/// The code of an activation, derived again. The configuration may have changed
/// since it was made, so the stored hash says which kind and length it had.
fn code_again(
    key: &[u8; 32],
    id: Id,
    activation: &entries::Activation,
) -> Result<String, ApiError> {
    CodeType::ALL
        .iter()
        .flat_map(|&kind| CODE_LENGTHS.map(move |length| (kind, length)))
        .map(|(kind, length)| codes::activation_code(key, id, kind, length))
        .find(|code| codes::code_hash(key, activation.application, code) == activation.code_hash)
        .ok_or_else(|| ApiError::new(Code::Internal).cause("an activation code of another key"))
}

pub(super) fn check_user_ref(user_ref: &str) -> Result<(), ApiError> {
    let fits = (1..=USER_REF_MAX).contains(&user_ref.len());
    if fits && !user_ref.chars().any(char::is_control) {
        return Ok(());
    }
    let words = "must have 1 to 256 bytes, none of them a control character";
    Err(ApiError::invalid("/user_ref", words))
}

/// The application, if it is the caller's; another's does not exist for it.
pub(super) fn own_application(
    call: &Call,
    caller: &ServiceProvider,
    id: Id,
) -> Result<std::sync::Arc<Application>, ApiError> {
    let found = call.look().application(id);
    let own = found.filter(|found| found.service_provider == caller.service_provider());
    own.ok_or_else(|| Code::NotFound.into())
}

fn view(id: Id, activation: &entries::Activation, application: &Application) -> wire::Activation {
    let judged = activation.judged.as_ref();
    wire::Activation {
        activation_id: id,
        registration_id: activation.registration,
        application_id: activation.application,
        state: activation.state,
        again: activation.again,
        created_at: Moment(activation.created_at),
        expires_at: Moment(activation.expires_at),
        judged_at: judged.map(|judged| Moment(judged.at)),
        failure: judged.and_then(|judged| judged.failure),
        cancel_reason: activation.cancel_reason,
        hardware_key_stored: judged.is_some_and(|judged| judged.hw_key_stored),
        unproven_device: judged.is_some_and(|judged| judged.unproven_device),
        risk: judged.map_or_else(Risk::default, |judged| {
            let attested = judged.attestation.as_ref();
            risk(application, judged.hw_key_client_status, judged.hw_key_server_result, attested)
        }),
    }
}

/// The risk attributes that the application enables.
pub(super) fn risk(
    application: &Application,
    client_status: HwKeyClientStatus,
    server_result: HwKeyServerResult,
    attested: Option<&Attested>,
) -> Risk {
    let enabled = |attribute| application.config.enabled_risk_data.contains(&attribute);
    Risk {
        hw_key_client_status: enabled(RiskAttribute::HwKeyClientStatus).then_some(client_status),
        hw_key_server_result: enabled(RiskAttribute::HwKeyServerResult).then_some(server_result),
        attestation: attested.filter(|_| enabled(RiskAttribute::Attestation)).map(Into::into),
    }
}
