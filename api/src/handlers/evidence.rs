//! Evidence of an answered operation, signed by the server.

use actix_web::HttpResponse;
use actix_web::web::Path;
use engine::entries::{Application, Attempt, Operation};
use engine::events::{AuthenticationJudgedV1, Event, VerificationV1};
use engine::ids::Id;
use engine::proofs::Signed;
use engine::reasons::{OperationKind, OperationState, RejectReason};
use engine::sealed::{Salted, SealedRequestV1, SealedResponseV1, Shown};
use engine::terms::{Decision, HwKeyServerResult, Level, Method, Role, Verdict};
use serde::Serialize;

use super::activations::own_application;
use crate::auth::roles::ServiceProvider;
use crate::call::{Call, event_of};
use crate::evidence::{self, Jwk, JwkSet};
use crate::key_use::OpenedFor;
use crate::problem::{ApiError, Code};
use crate::wire::{Moment, Octets, Octets32};

/// What the server signs: who asked what, who answered, and with which signatures.
///
/// Members are only ever added.
#[derive(Debug, Serialize)]
struct Evidence {
    /// The log's origin line.
    iss: String,
    /// When the answer was judged, in seconds since 1970.
    iat: u64,
    /// The operation.
    jti: Id,
    /// Layout of what follows.
    version: u32,
    application_id: Id,
    application: String,
    service_provider: String,
    registration_id: Id,
    kind: OperationKind,
    level: Level,
    state: OperationState,
    decision: Decision,
    #[serde(skip_serializing_if = "Option::is_none")]
    reject_reason: Option<RejectReason>,
    #[serde(skip_serializing_if = "Option::is_none")]
    number: Option<u32>,
    method: Method,
    asked_at: Moment,
    answered_at: Moment,
    /// Position in the log of the answer's record, for its receipt.
    position: u64,
    hw_key_server_result: HwKeyServerResult,
    #[serde(skip_serializing_if = "Option::is_none")]
    external_id: Option<String>,
    /// Contents with the salts of their hashes; absent once the user was erased.
    #[serde(skip_serializing_if = "Option::is_none")]
    context: Option<Content>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_to_sign: Option<Content>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_data: Option<Content>,
    signatures: Vec<DeviceSignature>,
}

/// Octets, and what else their hash is made of.
#[derive(Debug, Serialize)]
struct Content {
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<String>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<String>,
    salt: Octets32,
    octets: Octets,
}

/// A signature of the device and all that is needed to check it again.
#[derive(Debug, Serialize)]
struct DeviceSignature {
    role: Role,
    key: Jwk,
    /// The bytes that were signed.
    transcript: Octets,
    /// As received, in DER.
    signature: Octets,
    verdict: Verdict,
}

/// Returns the evidence of an answer: a JWS by the server over the operation and the
/// device's signatures.
///
/// Store it beside the payment. Any JOSE library checks it with the keys under
/// `/.well-known/jwks.json`. It is there once the user has approved or rejected,
/// and as long as the operation can be read.
#[utoipa::path(
    get, path = "/v1/operations/{id}/evidence", tag = "operations", operation_id = "operation_evidence",
    params(("id" = String, Path, description = "Id of the operation.")),
    responses((status = 200, description = "A JWS in compact form (ES256).", body = String, content_type = "application/jose")),
)]
pub async fn evidence(
    call: Call,
    caller: ServiceProvider,
    id: Path<Id>,
) -> Result<HttpResponse, ApiError> {
    let operation = call.look().operation(*id).ok_or(Code::NotFound)?;
    let application = own_application(&call, &caller, operation.application)?;
    let answered = match operation.state {
        OperationState::Completed | OperationState::Rejected => operation.attempts.last(),
        OperationState::Pending
        | OperationState::Started
        | OperationState::Failed
        | OperationState::Expired
        | OperationState::Cancelled => None,
    };
    let unanswered =
        || ApiError::new(Code::OperationState).detail(format!("it is {}", operation.state));
    let evidence =
        collected(&call, *id, &application, &operation, answered.ok_or_else(unanswered)?)?;
    let text = call.signer.sign(&evidence);
    let text = text.map_err(|error| ApiError::new(Code::Internal).cause(error))?;
    Ok(HttpResponse::Ok().content_type(evidence::MEDIA_TYPE).body(text))
}

/// Returns the keys that sign evidence, as a JWK set.
#[utoipa::path(
    get, path = "/.well-known/jwks.json", tag = "about", operation_id = "jwks", security(()),
    responses((status = 200, description = "A JWK set (RFC 7517).", body = JwkSet)),
)]
pub async fn jwks(call: Call) -> HttpResponse {
    HttpResponse::Ok().json(JwkSet { keys: vec![call.signer.jwk().clone()] })
}

fn collected(
    call: &Call,
    id: Id,
    application: &Application,
    operation: &Operation,
    answer: &Attempt,
) -> Result<Evidence, ApiError> {
    let internal = |words: &'static str| ApiError::new(Code::Internal).cause(words);
    let Event::AuthenticationJudged(judged) = event_of(&*call.record(answer.position)?)? else {
        return Err(internal("an answer whose record is none"));
    };
    let request: Option<SealedRequestV1> =
        call.sealed(operation.created_in, OpenedFor::ServiceProvider)?;
    let response: Option<SealedResponseV1> =
        call.sealed(answer.position, OpenedFor::ServiceProvider)?;
    let request = request.unwrap_or_default();
    Ok(Evidence {
        iss: call.origin.clone(),
        iat: answer.at.0 / 1_000_000,
        jti: id,
        version: 1,
        application_id: operation.application,
        application: application.name.clone(),
        service_provider: application.service_provider.clone(),
        registration_id: operation.registration,
        kind: operation.kind,
        level: operation.level,
        state: operation.state,
        decision: answer.said.decision,
        reject_reason: answer.said.reason,
        number: answer.said.number,
        method: answer.method,
        asked_at: Moment(operation.created_at),
        answered_at: Moment(answer.at),
        position: answer.position.0,
        hw_key_server_result: judged.hw_key_server_result,
        external_id: request.external_id,
        context: request.context.map(shown),
        data_to_sign: request.data_to_sign.map(salted),
        client_data: response.and_then(|response| response.client_data).map(salted),
        signatures: signatures(operation.registration, &judged)?,
    })
}

fn shown(shown: Shown) -> Content {
    let content = salted(shown.content);
    Content { title: Some(shown.title), kind: Some(shown.media_type), ..content }
}

fn salted(Salted { salt, octets }: Salted) -> Content {
    Content { title: None, kind: None, salt: Octets32(salt), octets: Octets(octets) }
}

/// The device's signatures, with the transcripts that they are over.
fn signatures(
    registration: Id,
    judged: &AuthenticationJudgedV1,
) -> Result<Vec<DeviceSignature>, ApiError> {
    let internal = |error| ApiError::new(Code::Internal).cause(error);
    let signed = Signed::of_authentication(registration, judged).map_err(internal)?;
    let of = |checked: &VerificationV1| {
        let key = checked.key.check()?;
        Ok(DeviceSignature {
            role: checked.role,
            key: Jwk::of(&key),
            transcript: Octets(signed.message(checked.role, checked.method, &key)),
            signature: Octets(checked.signature.clone()),
            verdict: checked.verdict,
        })
    };
    judged.verifications.iter().map(of).collect::<Result<_, _>>().map_err(internal)
}
