//! Operations that a device begins of its own accord.

use actix_web::HttpResponse;
use engine::command::{self, Refusal, Want};
use engine::events::Event;
use engine::ids::Id;

use super::device_authentication::recognised;
use super::judging::check_version;
use crate::call::{Call, Failed, refused};
use crate::http::body::Body;
use crate::problem::{ApiError, Code};
use crate::wire::Moment;
use crate::wire::device::{BeginOperation, BegunOperation};

const NONCE_CONTEXT: &str = "keytrail 2026-11 nonce of a begun operation v1";

/// Begins an authentication that no service provider has asked for.
///
/// Only where the application allows it. The same nonce again gets the same
/// operation, as long as it can be answered.
#[utoipa::path(
    post, path = "/device/v1/operations/begin", tag = "device",
    operation_id = "begin_operation", security(()), request_body = BeginOperation,
    responses((status = 200, description = "The operation, to be started and answered.", body = BegunOperation)),
)]
pub async fn begin(call: Call, body: Body<BeginOperation>) -> Result<HttpResponse, ApiError> {
    let body = body.value;
    check_version(&body.client_version)?;
    recognised(&call, body.registration_id, &body.device_token.0)?;
    let nonce_hash = blake3::derive_key(NONCE_CONTEXT, &body.nonce.0);
    let want = Want::BeginOperation(command::BeginOperation {
        operation: call.fresh_id(),
        registration: body.registration_id,
        level: body.level,
        nonce_hash,
        client_version: body.client_version,
    });
    let outcome = call.execute(call.command(want), None).await.map_err(not_begun)?;
    let id = match outcome.first_event()? {
        Some(Event::OperationBegun(begun)) => Some(begun.operation),
        // Nothing happened: it has begun before.
        Some(_) | None => before(&call, body.registration_id, nonce_hash),
    };
    let id = id.ok_or(Code::OperationNotFound)?;
    let operation = call.look().operation(id).ok_or(Code::OperationNotFound)?;
    let expires_at = Moment(operation.expires_at);
    Ok(HttpResponse::Ok().json(BegunOperation { operation_id: id, expires_at }))
}

/// The operation that was begun with this nonce.
fn before(call: &Call, registration: Id, nonce_hash: [u8; 32]) -> Option<Id> {
    let registration = call.look().registration(registration)?;
    let mut open = registration.open_operations.iter().copied();
    open.find(|id| call.look().operation(*id).is_some_and(|it| it.begun == Some(nonce_hash)))
}

/// A refusal as a device with the right token sees it.
fn not_begun(failed: Failed) -> ApiError {
    use engine::reasons::RegistrationState::Locked;
    match failed {
        Failed::Refused(Refusal::RegistrationState(Locked)) => Code::RegistrationLocked.into(),
        Failed::Refused(Refusal::RegistrationState(_) | Refusal::Unknown) => {
            Code::OperationNotFound.into()
        }
        Failed::Refused(Refusal::ClientTooOld) => Code::ClientNotServed.into(),
        Failed::Refused(Refusal::DeviceMayNotBegin) => Code::DeviceMayNotBegin.into(),
        Failed::Refused(refusal) => refused(&refusal),
        Failed::Error(error) => error,
    }
}
