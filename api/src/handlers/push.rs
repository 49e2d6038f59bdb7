//! Where a device's pushes go.

use actix_web::HttpResponse;
use engine::command::{self, Command, Refusal, Want};
use engine::entries::Registration;
use engine::events::PushAddressSetV1;
use engine::ids::Id;
use engine::reasons::RegistrationState::Locked;
use engine::sealed::{PUSH_GATEWAY_MAX, PUSH_TOKEN_MAX, SealedPushAddressV1};

use super::device_authentication::recognised;
use super::judging::seconds_until;
use crate::call::{Call, Failed, refused};
use crate::http::body::Body;
use crate::key_use::OpenedFor;
use crate::problem::{ApiError, Code};
use crate::sealing;
use crate::wire::device::SetPushAddress;
use crate::wire::push::PushAddress;

/// Sets where pushes for a registration go, or removes it.
///
/// A device says so after each activation, and whenever its push service gives
/// it another token. The same again changes nothing.
#[utoipa::path(
    post, path = "/device/v1/push-address", tag = "device", operation_id = "set_push_address",
    security(()), request_body = SetPushAddress,
    responses((status = 204, description = "Pushes go there from now on.")),
)]
pub async fn set_address(call: Call, body: Body<SetPushAddress>) -> Result<HttpResponse, ApiError> {
    let SetPushAddress { registration_id, device_token, address } = body.value;
    address.as_ref().map_or(Ok(()), check)?;
    let registration = recognised(&call, registration_id, &device_token.0)?;
    if known(&call, &registration)? != address {
        let event_id = call.fresh_event_id();
        let want = command::SetPushAddress {
            registration: registration_id,
            present: address.is_some(),
            sealed: sealed(&call, event_id, registration_id, &registration, address)?,
        };
        let command = Command { event_id, want: Want::SetPushAddress(want) };
        call.execute(command, None).await.map_err(|failed| not_set(&call, failed))?;
    }
    Ok(HttpResponse::NoContent().finish())
}

fn check(address: &PushAddress) -> Result<(), ApiError> {
    let PushAddress { gateway, token } = address;
    let named = gateway.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if !(1..=PUSH_GATEWAY_MAX).contains(&gateway.len()) || !named {
        let words = "must have 1 to 32 lower-case letters, digits or hyphens";
        return Err(ApiError::invalid("/address/gateway", words));
    }
    let visible = token.bytes().all(|byte| byte.is_ascii_graphic());
    if !(1..=PUSH_TOKEN_MAX).contains(&token.len()) || !visible {
        let words = "must have 1 to 2048 visible ASCII characters";
        return Err(ApiError::invalid("/address/token", words));
    }
    Ok(())
}

/// Where they go now.
fn known(call: &Call, registration: &Registration) -> Result<Option<PushAddress>, ApiError> {
    let Some(at) = registration.push.address_in else { return Ok(None) };
    let sealed: Option<SealedPushAddressV1> = call.sealed(at, OpenedFor::Device)?;
    Ok(sealed.map(|SealedPushAddressV1 { gateway, token }| PushAddress { gateway, token }))
}

fn sealed(
    call: &Call,
    event_id: Id,
    id: Id,
    registration: &Registration,
    address: Option<PushAddress>,
) -> Result<Vec<u8>, ApiError> {
    let Some(PushAddress { gateway, token }) = address else { return Ok(Vec::new()) };
    let subject = sealing::subject_key(&call.keys, registration.subject)?;
    let subject = subject.ok_or(Code::OperationNotFound)?;
    let address = SealedPushAddressV1 { gateway, token };
    Ok(sealing::seal::<PushAddressSetV1>(&subject, event_id, id, &address))
}

/// A refusal as a device with the right token sees it.
fn not_set(call: &Call, failed: Failed) -> ApiError {
    match failed {
        Failed::Refused(Refusal::RegistrationState(Locked)) => Code::RegistrationLocked.into(),
        Failed::Refused(Refusal::RegistrationState(_) | Refusal::Unknown) => {
            Code::OperationNotFound.into()
        }
        Failed::Refused(Refusal::TooManyAttempts { until }) => {
            let seconds = seconds_until(until, call.clock.wall());
            ApiError::new(Code::TooManyRequests).retry_after_s(seconds)
        }
        Failed::Refused(refusal) => refused(&refusal),
        Failed::Error(error) => error,
    }
}
