//! Operations, for service providers.

use actix_web::HttpResponse;
use actix_web::web::{Path, Query};
use engine::command::{self, Command, Want};
use engine::confirmation;
use engine::entries;
use engine::events::{Event, MatchingV1, OperationCreatedV1};
use engine::ids::Id;
use engine::machine::random;
use engine::reasons::Confirmation;
use engine::sealed::{
    CONTEXT_MAX, EXTERNAL_ID_MAX, MEDIA_TYPE_MAX, Salted, SealedRequestV1, SealedResponseV1, Shown,
    TITLE_MAX,
};
use engine::transcript::{Content, Hash, NO_CONTENT};

use serde::Deserialize;
use utoipa::IntoParams;

use super::activations::{own_application, risk};
use super::pending;
use super::registrations::{self, remaining_attempts};
use super::templates::Asks;
use crate::auth::roles::ServiceProvider;
use crate::call::Call;
use crate::http::body::Body;
use crate::http::idempotency::{Asked, Idempotency, IdempotencyKey};
use crate::key_use::OpenedFor;
use crate::problem::{ApiError, Code};
use crate::sealing;
use crate::wire::provider::{self as wire, Attempt, Context, CreateOperation, Matching, Risk};
use crate::wire::{Empty, Moment, Octets};

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
    let event_id = call.fresh_event_id();
    let application = call.look().application(registration.application).ok_or(Code::NotFound)?;
    let question = Question::new(&call, Asks::of(&body, &application)?, None);
    let want = ask(&call, &asked, event_id, &registration, body, &question)?;
    let command = Command { event_id, want: Want::CreateOperation(want) };
    let outcome = call.execute_for(&asked, command).await?;
    let Some(Event::OperationCreated(created)) = outcome.first_event()? else {
        return Err(ApiError::new(Code::Internal).cause("an operation without its first event"));
    };
    Ok(HttpResponse::Created().json(own(&call, &caller, created.operation)?))
}

/// What is the same for all devices that are asked, be it one alone.
pub(super) struct Question {
    asks: Asks,
    broadcast: Option<Id>,
    /// The number to be confirmed.
    matching: Option<MatchingV1>,
}

impl Question {
    /// With the number drawn, where one is to be confirmed.
    pub(super) fn new(call: &Call, asks: Asks, broadcast: Option<Id>) -> Self {
        let matching = asks.confirmation.map(|how| confirmation::draw(how, &*call.entropy));
        Self { asks, broadcast, matching }
    }
}

/// What is asked of a registration, sealed for the event of this id.
pub(super) fn ask(
    call: &Call,
    asked: &Asked,
    event_id: Id,
    registration: &entries::Registration,
    body: CreateOperation,
    Question { asks, broadcast, matching }: &Question,
) -> Result<command::CreateOperation, ApiError> {
    let request = sealed_request(call, &body)?;
    let sealed = match &request {
        Some(request) => seal_request(call, event_id, body.registration_id, registration, request)?,
        None => Vec::new(),
    };
    let hashes = Hashes::of(request.as_ref());
    Ok(command::CreateOperation {
        by: asked.by.clone(),
        operation: call.fresh_id(),
        registration: body.registration_id,
        broadcast: *broadcast,
        template: body.template,
        kind: asks.kind,
        level: asks.level,
        methods: asks.methods.clone(),
        lifetime_s: asks.lifetime_s,
        context_hash: hashes.context,
        data_to_sign_hash: hashes.data_to_sign,
        post_context_hash: hashes.post_context,
        external_id: body.external_id.is_some(),
        matching: matching.clone(),
        sealed,
    })
}

/// Whether to wait for the end.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct OperationQuery {
    /// Seconds to wait for the operation's end, 0 to 30; 0 if absent.
    #[param(minimum = 0, maximum = 30)]
    pub wait_s: Option<u32>,
}

/// Returns an operation.
///
/// With `wait_s` the answer comes as soon as the operation is over.
#[utoipa::path(
    get, path = "/v1/operations/{id}", tag = "operations", operation_id = "operation",
    params(("id" = String, Path, description = "Id of the operation."), OperationQuery),
    responses((status = 200, description = "The operation; for a day after its end.", body = wire::Operation)),
)]
pub async fn operation(
    call: Call,
    caller: ServiceProvider,
    id: Path<Id>,
    query: Query<OperationQuery>,
) -> Result<HttpResponse, ApiError> {
    let now = own(&call, &caller, *id)?;
    let wait_s = pending::checked("", query.wait_s)?;
    if wait_s == 0 || now.state.is_final() {
        return Ok(HttpResponse::Ok().json(now));
    }
    pending::ended(&call, *id, wait_s).await;
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
    Ok(HttpResponse::Ok().json(own(&call, &caller, *id)?))
}

/// What the device is to get sealed; none if there is nothing.
fn sealed_request(
    call: &Call,
    body: &CreateOperation,
) -> Result<Option<SealedRequestV1>, ApiError> {
    let CreateOperation { context, data_to_sign, post_context, external_id, .. } = body;
    let nothing = context.is_none() && data_to_sign.is_none() && post_context.is_none();
    if nothing && external_id.is_none() {
        return Ok(None);
    }
    let shown = |pointer: &str, context: &Option<Context>| {
        context.as_ref().map(|context| shown(call, pointer, context)).transpose()
    };
    let data_to_sign = data_to_sign.as_ref();
    if external_id.as_ref().is_some_and(|id| !(1..=EXTERNAL_ID_MAX).contains(&id.len())) {
        return Err(ApiError::invalid("/external_id", "must have 1 to 128 bytes"));
    }
    Ok(Some(SealedRequestV1 {
        context: shown("/context", context)?,
        data_to_sign: data_to_sign
            .map(|octets| salted(call, "/data_to_sign", octets))
            .transpose()?,
        post_context: shown("/post_context", post_context)?,
        external_id: external_id.clone(),
    }))
}

/// The hashes of what is sealed, zeros where there is nothing.
struct Hashes {
    context: Hash,
    data_to_sign: Hash,
    post_context: Hash,
}

impl Hashes {
    fn of(request: Option<&SealedRequestV1>) -> Self {
        let shown = |of: Option<&Shown>| of.map_or(NO_CONTENT, Shown::hash);
        let data = request.and_then(|request| request.data_to_sign.as_ref());
        let data = data.map(|salted| (&salted.salt, &salted.octets[..]));
        Self {
            context: shown(request.and_then(|request| request.context.as_ref())),
            data_to_sign: Content::DataToSign.hash_or_none(data),
            post_context: shown(request.and_then(|request| request.post_context.as_ref())),
        }
    }
}

fn shown(call: &Call, pointer: &str, context: &Context) -> Result<Shown, ApiError> {
    let Context { kind, title, octets } = context;
    let printable = kind.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
    if !(3..=MEDIA_TYPE_MAX).contains(&kind.len()) || !printable || !kind.contains('/') {
        let words = "must be a media type of at most 128 characters, such as text/plain";
        return Err(ApiError::invalid(format!("{pointer}/type"), words));
    }
    if title.len() > TITLE_MAX || title.chars().any(char::is_control) {
        let words = "must have at most 256 bytes, none of them a control character";
        return Err(ApiError::invalid(format!("{pointer}/title"), words));
    }
    let content = salted(call, &format!("{pointer}/octets"), octets)?;
    Ok(Shown { title: title.clone(), media_type: kind.clone(), content })
}

fn salted(call: &Call, pointer: &str, octets: &Octets) -> Result<Salted, ApiError> {
    if octets.0.len() > CONTEXT_MAX {
        return Err(ApiError::invalid(pointer, "must have at most 16384 bytes"));
    }
    Ok(Salted { salt: random(&*call.entropy), octets: octets.0.clone() })
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
pub(super) fn own(
    call: &Call,
    caller: &ServiceProvider,
    id: Id,
) -> Result<wire::Operation, ApiError> {
    let operation = call.look().operation(id).ok_or(Code::NotFound)?;
    let application = own_application(call, caller, operation.application)?;
    let registration = call.look().registration(operation.registration).ok_or(Code::NotFound)?;
    let response: Option<SealedResponseV1> = match operation.attempts.last() {
        Some(attempt) => call.sealed(attempt.position, OpenedFor::ServiceProvider)?,
        None => None,
    };
    let client_data = response.and_then(|response| response.client_data);
    let request: Option<SealedRequestV1> = if operation.external_id {
        call.sealed(operation.created_in, OpenedFor::ServiceProvider)?
    } else {
        None
    };
    Ok(wire::Operation {
        operation_id: id,
        registration_id: operation.registration,
        application_id: operation.application,
        broadcast_id: operation.broadcast,
        begun_by_device: operation.begun.is_some(),
        state: operation.state,
        kind: operation.kind,
        external_id: request.and_then(|request| request.external_id),
        confirmation: operation.matching.as_ref().map(matching),
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
        risk: if !operation.state.is_final() && operation.attempts.is_empty() {
            Risk::default()
        } else {
            let attested = registration.attestation.as_ref();
            let (client, server) = (operation.hw_key_client_status, operation.hw_key_server_result);
            risk(&application, client, server, attested)
        },
    })
}

/// The number as it is shown on the screen that asks.
fn matching(of: &MatchingV1) -> Matching {
    let number = match of.how {
        Confirmation::NumberMatching => format!("{:02}", of.number),
        Confirmation::ProximityCode => format!("{:06}", of.number),
    };
    Matching { how: of.how, number }
}

fn attempt_view(attempt: &entries::Attempt) -> Attempt {
    Attempt {
        at: Moment(attempt.at),
        method: attempt.method,
        decision: attempt.said.decision,
        reject_reason: attempt.said.reason,
        failure: attempt.failure,
        position: attempt.position.0,
    }
}
