//! Broadcasts, for service providers: one question to all devices of a user.

use std::sync::Arc;

use actix_web::HttpResponse;
use actix_web::web::{Path, Query};
use engine::broadcast::{DEVICES_MAX, state_of};
use engine::command::{Command, Refusal, Want};
use engine::entries::{Application, Key, Registration};
use engine::events::Event;
use engine::ids::{Id, Position};
use engine::operation::can_ask;
use engine::reasons::OperationState;

use super::activations::own_application;
use super::operations::{OperationQuery, Question, ask, own};
use super::pending;
use super::templates::Asks;
use crate::auth::roles::ServiceProvider;
use crate::call::{Call, Failed, Outcome};
use crate::http::body::Body;
use crate::http::idempotency::{Asked, Idempotency, IdempotencyKey};
use crate::problem::{ApiError, Code};
use crate::wire::Empty;
use crate::wire::provider::{Broadcast, CreateBroadcast, CreateOperation};

/// Most registrations of a user that are looked at.
const REGISTRATIONS_MAX: usize = 256;
/// How often devices are chosen again because one of them could no longer be
/// asked by the time it was to be.
const ATTEMPTS: usize = 4;

/// Asks all active devices of a user; the first to answer wins.
///
/// Each device gets an operation of its own. Once one is approved or rejected the
/// others are over (`ANSWERED_ELSEWHERE`). At most 14 devices are asked: those that
/// were used last.
#[utoipa::path(
    post, path = "/v1/broadcasts", tag = "operations", operation_id = "create_broadcast",
    request_body = CreateBroadcast,
    params(IdempotencyKey),
    responses((status = 201, description = "The broadcast.", body = Broadcast)),
)]
pub async fn create(
    call: Call,
    caller: ServiceProvider,
    idempotency: Idempotency,
    body: Body<CreateBroadcast>,
) -> Result<HttpResponse, ApiError> {
    let asked = idempotency.asked(caller.key_id(), &body.bytes);
    let CreateBroadcast { application_id, user_ref, .. } = &body.value;
    own_application(&call, &caller, *application_id)?;
    let subject = call.keys.find_subject(caller.service_provider(), user_ref);
    let subject = subject.ok_or(Code::NotFound)?;
    for _ in 0..ATTEMPTS {
        let outcome = match offered(&call, &asked, subject, &body.value).await {
            Ok(outcome) => outcome,
            Err(Failed::Refused(
                Refusal::RegistrationState(_)
                | Refusal::TooManyOperations
                | Refusal::NoMethodFits
                | Refusal::Unknown,
            )) => continue,
            Err(failed) => return Err(failed.into()),
        };
        let Some(Event::OperationCreated(created)) = outcome.first_event()? else {
            return Err(ApiError::new(Code::Internal).cause("a broadcast without an operation"));
        };
        let id = created.broadcast.ok_or(Code::Internal)?;
        return Ok(HttpResponse::Created().json(view(&call, &caller, id)?));
    }
    Err(ApiError::new(Code::Busy).retry_after_s(1))
}

/// Returns a broadcast.
///
/// With `wait_s` the answer comes as soon as the broadcast is over.
#[utoipa::path(
    get, path = "/v1/broadcasts/{id}", tag = "operations", operation_id = "broadcast",
    params(("id" = String, Path, description = "Id of the broadcast."), OperationQuery),
    responses((status = 200, description = "The broadcast; for a day after its end.", body = Broadcast)),
)]
pub async fn broadcast(
    call: Call,
    caller: ServiceProvider,
    id: Path<Id>,
    query: Query<OperationQuery>,
) -> Result<HttpResponse, ApiError> {
    let now = view(&call, &caller, *id)?;
    let wait_s = pending::checked("", query.wait_s)?;
    if wait_s == 0 || now.state.is_final() {
        return Ok(HttpResponse::Ok().json(now));
    }
    pending::broadcast_ended(&call, *id, wait_s).await;
    Ok(HttpResponse::Ok().json(view(&call, &caller, *id)?))
}

/// Cancels a broadcast that is not over, at every device.
#[utoipa::path(
    post, path = "/v1/broadcasts/{id}/cancel", tag = "operations",
    operation_id = "cancel_broadcast", request_body = Empty,
    params(
        ("id" = String, Path, description = "Id of the broadcast."),
        IdempotencyKey,
    ),
    responses((status = 200, description = "The broadcast.", body = Broadcast)),
)]
pub async fn cancel(
    call: Call,
    caller: ServiceProvider,
    id: Path<Id>,
    idempotency: Idempotency,
    body: Body<Empty>,
) -> Result<HttpResponse, ApiError> {
    let asked = idempotency.asked(caller.key_id(), &body.bytes);
    let now = view(&call, &caller, *id)?;
    // The one that says where all stand: open, or how it ended.
    let mut operations = now.operations.iter();
    let telling = operations.find(|operation| operation.state == now.state);
    let operation = telling.ok_or(Code::NotFound)?.operation_id;
    let want = Want::CancelOperation { by: asked.by.clone(), operation };
    let outcome = call.execute_for(&asked, call.command(want)).await?;
    if let Some(Event::OperationExpired(_)) = outcome.first_event()? {
        return Err(ApiError::new(Code::OperationState).detail("it is EXPIRED"));
    }
    Ok(HttpResponse::Ok().json(view(&call, &caller, *id)?))
}

/// Chooses the devices, and asks them.
async fn offered(
    call: &Call,
    asked: &Asked,
    subject: Id,
    body: &CreateBroadcast,
) -> Result<Outcome, Failed> {
    let application = call.look().application(body.application_id);
    let application = application.ok_or(Failed::Refused(Refusal::Unknown))?;
    if let Some(first) = repeated(call, asked) {
        return call.record(first).map(Outcome::Repeat).map_err(Failed::Error);
    }
    let asks = Asks::of_broadcast(body, &application).map_err(Failed::Error)?;
    let chosen = chosen(call, subject, body.application_id, &application, &asks);
    if chosen.is_empty() {
        let detail = "no device of the user can answer this";
        return Err(Failed::Error(ApiError::new(Code::NoMethodFits).detail(detail)));
    }
    let event_id = call.fresh_event_id();
    let question = Question::new(call, asks, Some(call.fresh_id()));
    let mut wanted = Vec::with_capacity(chosen.len());
    for (index, (id, registration)) in chosen.iter().enumerate() {
        let one = CreateOperation::from_broadcast(body, *id);
        let event_id = event_id.nth(index as u8);
        let ask = ask(call, asked, event_id, registration, one, &question);
        wanted.push(ask.map_err(Failed::Error)?);
    }
    call.execute(Command { event_id, want: Want::Broadcast(wanted) }, asked.causation).await
}

/// The first record of the same request, if it was carried out: by now other
/// devices may be there, or none.
fn repeated(call: &Call, asked: &Asked) -> Option<Position> {
    let request = asked.by.request.as_ref()?;
    let (digest, position) = call.look().request(request.id)?;
    (digest == request.digest).then_some(position)
}

/// The devices to ask: the last used of those that can answer, by their ids.
fn chosen(
    call: &Call,
    subject: Id,
    application_id: Id,
    application: &Application,
    asks: &Asks,
) -> Vec<(Id, Arc<Registration>)> {
    let (from, to) = Key::owned_by(subject);
    let mut found: Vec<_> = call
        .state
        .scan(&from, &to, REGISTRATIONS_MAX)
        .iter()
        .filter_map(|(key, _)| if let Key::Owned(_, id) = key { Some(*id) } else { None })
        .filter_map(|id| Some((id, call.look().registration(id)?)))
        .filter(|(_, known)| known.application == application_id)
        .filter(|(_, known)| can_ask(application, known, asks.level, &asks.methods))
        .collect();
    found.sort_by_key(|(_, known)| std::cmp::Reverse(known.last_used_at.max(known.activated_at)));
    found.truncate(DEVICES_MAX);
    found.sort_by_key(|(id, _)| *id);
    found
}

/// A broadcast of the caller's as it sees it.
fn view(call: &Call, caller: &ServiceProvider, id: Id) -> Result<Broadcast, ApiError> {
    let broadcast = call.look().broadcast(id).ok_or(Code::NotFound)?;
    own_application(call, caller, broadcast.application)?;
    let mut operations = Vec::with_capacity(broadcast.operations.len());
    for &operation in &broadcast.operations {
        // One that ended a day before the last one did is forgotten.
        if call.look().operation(operation).is_some() {
            operations.push(own(call, caller, operation)?);
        }
    }
    let states: Vec<_> = operations.iter().map(|operation| operation.state).collect();
    let state = state_of(&states);
    let answered = operations.iter().find(|operation| {
        matches!(operation.state, OperationState::Completed | OperationState::Rejected)
    });
    Ok(Broadcast {
        broadcast_id: id,
        application_id: broadcast.application,
        state,
        answered_by: answered.map(|operation| operation.operation_id),
        operations,
    })
}
