//! Operations, for service providers.

use actix_web::HttpResponse;
use actix_web::web::Path;
use engine::command::{self, Command, Want};
use engine::entries;
use engine::events::{Event, OperationCreatedV1};
use engine::ids::Id;
use engine::machine::random;
use engine::reasons::OperationState;
use engine::sealed::{CONTEXT_MAX, Salted, SealedRequestV1, SealedResponseV1};
use engine::transcript::{Content, NO_CONTENT};

use super::activations::{own_application, risk};
use super::registrations::{self, remaining_attempts};
use crate::auth::roles::ServiceProvider;
use crate::call::Call;
use crate::http::body::Body;
use crate::http::idempotency::{Idempotency, IdempotencyKey};
use crate::key_use::OpenedFor;
use crate::problem::{ApiError, Code};
use crate::sealing;
use crate::wire::provider::{self as wire, Attempt, CreateOperation, Risk};
use crate::wire::{Empty, Moment, Octets};

/// Longest media type of a context, in characters.
const MEDIA_TYPE_MAX: usize = 128;

/// Asks a registration for an authentication.
///
/// Context and data to sign are stored encrypted; the log shows salted hashes
/// of them, and these are what the device signs.
#[utoipa::path(
    post, path = "/v1/operations", tag = "operations", operation_id = "create_operation",
    request_body = CreateOperation,
    params(IdempotencyKey),
    responses((status = 201, description = "The operation.", body = wire::Operation)),
)]
pub async fn create(
    call: Call,
    caller: ServiceProvider,
    idempotency: Idempotency,
    body: Body<CreateOperation>,
) -> Result<HttpResponse, ApiError> {
    let asked = idempotency.asked(caller.key_id(), &body.bytes);
    let body = body.value;
    let registration = registrations::own(&call, &caller, body.registration_id)?;
    let request = sealed_request(&call, &body)?;
    let event_id = call.fresh_event_id();
    let sealed = match &request {
        Some(request) => {
            seal_request(&call, event_id, body.registration_id, &registration, request)?
        }
        None => Vec::new(),
    };
    let hash = |content: Content, of: Option<&Salted>| {
        content.hash_or_none(of.map(|salted| (&salted.salt, &salted.octets[..])))
    };
    let (context_hash, data_to_sign_hash) = match &request {
        Some(request) => (
            hash(Content::Context, request.context.as_ref()),
            hash(Content::DataToSign, request.data_to_sign.as_ref()),
        ),
        None => (NO_CONTENT, NO_CONTENT),
    };
    let want = command::CreateOperation {
        by: asked.by.clone(),
        operation: call.fresh_id(),
        registration: body.registration_id,
        level: body.level,
        methods: body.methods,
        lifetime_s: body.lifetime_s,
        context_hash,
        data_to_sign_hash,
        sealed,
    };
    let command = Command { event_id, want: Want::CreateOperation(want) };
    let outcome = call.execute_for(&asked, command).await?;
    let Some(Event::OperationCreated(created)) = outcome.first_event()? else {
        return Err(ApiError::new(Code::Internal).cause("an operation without its first event"));
    };
    Ok(HttpResponse::Created().json(own(&call, &caller, created.operation)?))
}

/// Returns an operation.
#[utoipa::path(
    get, path = "/v1/operations/{id}", tag = "operations", operation_id = "operation",
    params(("id" = String, Path, description = "Id of the operation.")),
    responses((status = 200, description = "The operation; for a day after its end.", body = wire::Operation)),
)]
pub async fn operation(
    call: Call,
    caller: ServiceProvider,
    id: Path<Id>,
) -> Result<HttpResponse, ApiError> {
    Ok(HttpResponse::Ok().json(own(&call, &caller, *id)?))
}

/// Cancels a pending operation.
#[utoipa::path(
    post, path = "/v1/operations/{id}/cancel", tag = "operations",
    operation_id = "cancel_operation", request_body = Empty,
    params(
        ("id" = String, Path, description = "Id of the operation."),
        IdempotencyKey,
    ),
    responses((status = 200, description = "The operation.", body = wire::Operation)),
)]
pub async fn cancel(
    call: Call,
    caller: ServiceProvider,
    id: Path<Id>,
    idempotency: Idempotency,
    body: Body<Empty>,
) -> Result<HttpResponse, ApiError> {
    let asked = idempotency.asked(caller.key_id(), &body.bytes);
    let want = Want::CancelOperation { by: asked.by.clone(), operation: *id };
    let command = call.command(want);
    let outcome = call.execute_for(&asked, command).await?;
    if let Some(Event::OperationExpired(_)) = outcome.first_event()? {
        return Err(ApiError::new(Code::OperationState).detail("it is EXPIRED"));
    }
    operation(call, caller, id).await
}

/// What the device is to get sealed; none if there is nothing.
fn sealed_request(
    call: &Call,
    body: &CreateOperation,
) -> Result<Option<SealedRequestV1>, ApiError> {
    let salted = |pointer: &str, octets: &Octets| {
        if octets.0.len() > CONTEXT_MAX {
            let error = ApiError::new(Code::InvalidRequest);
            return Err(error.error(pointer, "must have at most 16384 bytes"));
        }
        Ok(Salted { salt: random(&*call.entropy), octets: octets.0.clone() })
    };
    let context = body.context.as_ref();
    if let Some(context) = context {
        check_media_type(&context.kind)?;
    }
    let data_to_sign = body.data_to_sign.as_ref();
    if context.is_none() && data_to_sign.is_none() {
        return Ok(None);
    }
    Ok(Some(SealedRequestV1 {
        context: context.map(|it| salted("/context/octets", &it.octets)).transpose()?,
        context_type: context.map_or_else(String::new, |context| context.kind.clone()),
        data_to_sign: data_to_sign.map(|octets| salted("/data_to_sign", octets)).transpose()?,
    }))
}

fn check_media_type(kind: &str) -> Result<(), ApiError> {
    let printable = kind.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
    if (3..=MEDIA_TYPE_MAX).contains(&kind.len()) && printable && kind.contains('/') {
        return Ok(());
    }
    let words = "must be a media type of at most 128 characters, such as text/plain";
    Err(ApiError::new(Code::InvalidRequest).error("/context/type", words))
}

fn seal_request(
    call: &Call,
    event_id: Id,
    id: Id,
    registration: &entries::Registration,
    request: &SealedRequestV1,
) -> Result<Vec<u8>, ApiError> {
    let erased = || ApiError::new(Code::RegistrationState).detail("its user was erased");
    let subject = sealing::subject_key(&call.keys, registration.subject)?.ok_or_else(erased)?;
    Ok(sealing::seal::<OperationCreatedV1>(&subject, event_id, id, request))
}

/// An operation of the caller's as it sees it.
fn own(call: &Call, caller: &ServiceProvider, id: Id) -> Result<wire::Operation, ApiError> {
    let operation = call.look().operation(id).ok_or(Code::NotFound)?;
    let application = own_application(call, caller, operation.application)?;
    let registration = call.look().registration(operation.registration).ok_or(Code::NotFound)?;
    let response: Option<SealedResponseV1> = match operation.attempts.last() {
        Some(attempt) => call.sealed(attempt.position, OpenedFor::ServiceProvider)?,
        None => None,
    };
    let client_data = response.and_then(|response| response.client_data);
    Ok(wire::Operation {
        operation_id: id,
        registration_id: operation.registration,
        application_id: operation.application,
        state: operation.state,
        level: operation.level,
        methods: operation.methods.clone(),
        created_at: Moment(operation.created_at),
        expires_at: Moment(operation.expires_at),
        ended_at: operation.ended_at.map(Moment),
        cancel_reason: operation.cancel_reason,
        attempts: operation.attempts.iter().map(attempt_view).collect(),
        remaining_attempts: remaining_attempts(&application, &registration),
        registration_state: registration.state,
        client_data: client_data.map(|data| Octets(data.octets)),
        risk: if operation.state == OperationState::Pending && operation.attempts.is_empty() {
            Risk::default()
        } else {
            let attested = registration.attestation.as_ref();
            let (client, server) = (operation.hw_key_client_status, operation.hw_key_server_result);
            risk(&application, client, server, attested)
        },
    })
}

fn attempt_view(attempt: &entries::Attempt) -> Attempt {
    Attempt {
        at: Moment(attempt.at),
        method: attempt.method,
        decision: attempt.decision,
        failure: attempt.failure,
        position: attempt.position.0,
    }
}
