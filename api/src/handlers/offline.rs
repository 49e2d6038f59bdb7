//! Operations that a phone answers without a network, for service providers.

use std::sync::Arc;

use actix_web::HttpResponse;
use actix_web::web::Path;
use engine::command::{self, Refusal, Want};
use engine::entries::{Attempt, Operation};
use engine::events::Event;
use engine::ids::Id;
use engine::machine::random;
use engine::offline::{Facts, NONCE_LEN, OfflineCode, Question};
use engine::reasons::OperationState;
use engine::sealed::SealedRequestV1;
use engine::terms::Method;
use engine::transcript::NO_CONTENT;

use super::activations::own_application;
use crate::auth::roles::ServiceProvider;
use crate::call::{Call, Failed, Outcome, event_of, refused};
use crate::http::body::Body;
use crate::http::idempotency::{Asked, Idempotency, IdempotencyKey};
use crate::key_use::OpenedFor;
use crate::problem::{ApiError, Code};
use crate::wire::provider::{FinishOffline, FinishedOffline, OfflineQuestion};
use crate::wire::{Empty, Moment};

/// Compared for keys that changed meanwhile, a code is compared this often.
const JUDGEMENTS: usize = 2;
/// Longest text that is read as a code, in bytes: ten digits, and what is between.
const CODE_MAX: usize = 64;

const DIGEST_CONTEXT: &str = "keytrail 2026-11 offline code of an operation v1";

/// Issues the question that a phone without a network can answer.
///
/// The text is shown as a QR code where the user is to type the phone's code.
/// Repeating it gets the same question as long as it was not answered. It holds
/// what the user is shown: whoever sees it can read that.
#[utoipa::path(
    post, path = "/v1/operations/{id}/offline", tag = "operations", operation_id = "ask_offline",
    request_body = Empty,
    params(("id" = String, Path, description = "Id of the operation."), IdempotencyKey),
    responses((status = 200, description = "The question.", body = OfflineQuestion)),
)]
pub async fn ask(
    call: Call,
    caller: ServiceProvider,
    id: Path<Id>,
    idempotency: Idempotency,
    body: Body<Empty>,
) -> Result<HttpResponse, ApiError> {
    let asked = idempotency.asked(caller.key_id(), &body.bytes);
    let operation = own(&call, &caller, *id)?;
    let mut question = question(&call, *id, &operation, random(&*call.entropy))?;
    // What does not fit is known before anything is recorded.
    question.bytes().ok_or_else(too_long)?;
    let nonce = question.nonce;
    let want = command::AskOffline { by: asked.by.clone(), operation: *id, nonce };
    let outcome = call.execute_for(&asked, call.command(Want::AskOffline(want))).await?;
    if let Some(Event::OperationExpired(_)) = outcome.first_event()? {
        return Err(ended(OperationState::Expired));
    }
    // The one that is outstanding, whoever asked for it first.
    question.nonce = own(&call, &caller, *id)?.offline_nonce.ok_or_else(answered)?;
    let payload = call.offline.payload(question.bytes().ok_or_else(too_long)?);
    let expires_at = Moment(operation.expires_at);
    Ok(HttpResponse::Ok().json(OfflineQuestion { qr: payload.to_string(), expires_at }))
}

/// Answers an operation with the code that the phone shows.
///
/// A question is judged once, right or wrong, and a wrong code counts as a failed
/// answer. The same code again gets the same answer. What is no code, a slip of
/// the finger, is refused and judged by nobody.
#[utoipa::path(
    post, path = "/v1/operations/{id}/offline/finish", tag = "operations",
    operation_id = "finish_offline", request_body = FinishOffline,
    params(("id" = String, Path, description = "Id of the operation."), IdempotencyKey),
    responses((status = 200, description = "How the code was judged.", body = FinishedOffline)),
)]
pub async fn finish(
    call: Call,
    caller: ServiceProvider,
    id: Path<Id>,
    idempotency: Idempotency,
    body: Body<FinishOffline>,
) -> Result<HttpResponse, ApiError> {
    let asked = idempotency.asked(caller.key_id(), &body.bytes);
    let words = "must be the ten digits that the phone shows";
    let invalid = || ApiError::invalid("/code", words);
    let typed = &body.value.code;
    let code = OfflineCode::parse(typed).filter(|_| typed.len() <= CODE_MAX).ok_or_else(invalid)?;
    let method = code.method().ok_or_else(invalid)?;
    for _ in 0..JUDGEMENTS {
        if let Some(finished) = judge(&call, &caller, &asked, *id, &code, method).await? {
            return Ok(HttpResponse::Ok().json(finished));
        }
    }
    Err(Code::KeysChanged.into())
}

/// Compares a code and has it judged. None if the keys changed meanwhile.
async fn judge(
    call: &Call,
    caller: &ServiceProvider,
    asked: &Asked,
    id: Id,
    code: &OfflineCode,
    method: Method,
) -> Result<Option<FinishedOffline>, ApiError> {
    let operation = own(call, caller, id)?;
    let registration = call.look().registration(operation.registration).ok_or(Code::NotFound)?;
    let nonce = operation.offline_nonce.unwrap_or_default();
    let expected = call.offline.code(&registration, method, &facts(id, &operation, nonce));
    let want = command::FinishOffline {
        by: asked.by.clone(),
        operation: id,
        nonce,
        method,
        code: code.as_str().to_owned(),
        right: expected.is_some_and(|expected| expected.is(code)),
        body_digest: digest(id, code),
        keys_at: registration.keys_at,
    };
    let command = call.command(Want::FinishOffline(want));
    let event = match call.execute(command, asked.causation).await {
        Ok(Outcome::Done(records)) => records.first().map(|it| event_of(it)).transpose()?,
        Ok(Outcome::Repeat(first)) => Some(event_of(&first)?),
        Err(Failed::Refused(Refusal::Stale)) => return Ok(None),
        Err(Failed::Refused(Refusal::JudgedBefore)) => {
            let known = call.look().operation(id).ok_or(Code::NotFound)?;
            let mut attempts = known.attempts.iter();
            let same = attempts.find(|attempt| attempt.body_digest == digest(id, code));
            return Ok(same.map(view));
        }
        Err(Failed::Refused(Refusal::ChallengeNotLive)) => return Err(answered()),
        Err(Failed::Refused(Refusal::MethodNotOffered)) => {
            return Err(Code::MethodNotOffered.into());
        }
        Err(Failed::Refused(refusal)) => return Err(refused(&refusal)),
        Err(Failed::Error(error)) => return Err(error),
    };
    match event {
        Some(Event::OfflineJudged(judged)) => {
            Ok(Some(worded(judged.operation_state, judged.failures, judged.failures_allowed)))
        }
        // The only other event is that it expired just now.
        Some(_) | None => Err(ended(OperationState::Expired)),
    }
}

fn view(attempt: &Attempt) -> FinishedOffline {
    worded(attempt.operation_state, attempt.failures, attempt.failures_allowed)
}

fn worded(state: OperationState, failures: u32, allowed: u32) -> FinishedOffline {
    let accepted = state == OperationState::Completed;
    let remaining_attempts = allowed.saturating_sub(failures);
    FinishedOffline {
        accepted,
        state,
        remaining_attempts,
        locked: !accepted && remaining_attempts == 0,
    }
}

fn digest(id: Id, code: &OfflineCode) -> [u8; 32] {
    blake3::derive_key(DIGEST_CONTEXT, &[&id.0[..], code.as_str().as_bytes()].concat())
}

/// An operation of the caller's.
fn own(call: &Call, caller: &ServiceProvider, id: Id) -> Result<Arc<Operation>, ApiError> {
    let operation = call.look().operation(id).ok_or(Code::NotFound)?;
    own_application(call, caller, operation.application)?;
    Ok(operation)
}

fn facts(id: Id, operation: &Operation, nonce: [u8; NONCE_LEN]) -> Facts {
    Facts {
        application: operation.application,
        registration: operation.registration,
        operation: id,
        nonce,
        kind: operation.kind,
        level: operation.level,
        context_hash: operation.context_hash,
        data_to_sign_hash: operation.data_to_sign_hash,
    }
}

/// The question with this nonce.
fn question(
    call: &Call,
    id: Id,
    operation: &Operation,
    nonce: [u8; NONCE_LEN],
) -> Result<Question, ApiError> {
    let nothing = operation.context_hash == NO_CONTENT && operation.data_to_sign_hash == NO_CONTENT;
    let request: Option<SealedRequestV1> =
        if nothing { None } else { call.sealed(operation.created_in, OpenedFor::Device)? };
    if request.is_none() && !nothing {
        return Err(ApiError::new(Code::RegistrationState).detail("its user was erased"));
    }
    let SealedRequestV1 { context, data_to_sign, .. } = request.unwrap_or_default();
    Ok(Question {
        application: operation.application,
        registration: operation.registration,
        operation: id,
        nonce,
        expires_at: operation.expires_at,
        kind: operation.kind,
        level: operation.level,
        context,
        data_to_sign,
    })
}

fn too_long() -> ApiError {
    let words = "context and data to sign have more than 1024 bytes, too many for a QR code";
    ApiError::new(Code::OfflineNotPossible).detail(words)
}

/// There is no question that waits for a code.
fn answered() -> ApiError {
    let words = "no offline question waits for a code: issue another";
    ApiError::new(Code::ChallengeNotLive).detail(words)
}

fn ended(state: OperationState) -> ApiError {
    ApiError::new(Code::OperationState).detail(format!("it is {state}"))
}
