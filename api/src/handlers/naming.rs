//! Names of devices: set by the phone or the service provider, read sealed.

use actix_web::HttpResponse;
use actix_web::web::Path;
use engine::command::{self, Command, Refusal, Want};
use engine::entries::Registration;
use engine::events::{Actor, DeviceNamedV1};
use engine::ids::Id;
use engine::naming::NAME_MAX;
use engine::reasons::RegistrationState;
use engine::sealed::SealedNameV1;

use super::device_authentication::recognised;
use super::judging::seconds_until;
use super::registrations::{own, view};
use crate::auth::roles::ServiceProvider;
use crate::call::{Call, Failed, refused};
use crate::http::body::Body;
use crate::http::idempotency::{Idempotency, IdempotencyKey};
use crate::key_use::OpenedFor;
use crate::problem::{ApiError, Code};
use crate::refusals::Refused;
use crate::sealing;
use crate::wire::device::{NameDevice, NamedDevice};
use crate::wire::provider as wire;

/// Names the device, or takes its name away.
///
/// The same name again changes nothing. A device has at most ten names a day.
#[utoipa::path(
    post, path = "/device/v1/registrations/name", tag = "device", operation_id = "name_device",
    security(()), request_body = NameDevice,
    responses((status = 200, description = "The name from now on.", body = NamedDevice)),
)]
pub async fn by_device(call: Call, body: Body<NameDevice>) -> Result<HttpResponse, ApiError> {
    let NameDevice { registration_id, device_token, device_name } = body.value;
    check_name(device_name.as_deref())?;
    let registration = recognised(&call, registration_id, &device_token.0)?;
    if registration.state == RegistrationState::Active
        && name_of(&call, &registration, OpenedFor::Device)? == device_name
    {
        return Ok(HttpResponse::Ok().json(NamedDevice { device_name }));
    }
    let command = naming(&call, None, registration_id, &registration, device_name.as_deref())?;
    call.execute(command, None).await.map_err(|failed| not_named(&call, failed))?;
    Ok(HttpResponse::Ok().json(NamedDevice { device_name }))
}

/// Names the device of a registration, or takes its name away.
#[utoipa::path(
    post, path = "/v1/registrations/{id}/name", tag = "registrations",
    operation_id = "name_registration", request_body = wire::DeviceName,
    params(
        ("id" = String, Path, description = "Id of the registration."),
        IdempotencyKey,
    ),
    responses((status = 200, description = "The registration.", body = wire::Registration)),
)]
pub async fn by_service_provider(
    call: Call,
    caller: ServiceProvider,
    id: Path<Id>,
    idempotency: Idempotency,
    body: Body<wire::DeviceName>,
) -> Result<HttpResponse, ApiError> {
    let asked = idempotency.asked(caller.key_id(), &body.bytes);
    let name = body.value.device_name;
    check_name(name.as_deref())?;
    let registration = own(&call, &caller, *id)?;
    let command = naming(&call, Some(asked.by.clone()), *id, &registration, name.as_deref())?;
    call.execute_for(&asked, command).await?;
    let registration = own(&call, &caller, *id)?;
    Ok(HttpResponse::Ok().json(view(&call, *id, &registration)?))
}

/// The command, with the name sealed.
fn naming(
    call: &Call,
    by: Option<Actor>,
    id: Id,
    registration: &Registration,
    name: Option<&str>,
) -> Result<Command, ApiError> {
    let event_id = call.fresh_event_id();
    let sealed = match name {
        Some(name) => sealed_name(call, event_id, id, registration, name)?
            .ok_or_else(|| ApiError::new(Code::RegistrationState).detail("its user was erased"))?,
        None => Vec::new(),
    };
    let named = name.is_some();
    let want = command::NameDevice { by, registration: id, named, sealed };
    Ok(Command { event_id, want: Want::NameDevice(want) })
}

/// A name, sealed for the event of this id; none if its user was erased.
pub(super) fn sealed_name(
    call: &Call,
    event_id: Id,
    id: Id,
    registration: &Registration,
    name: &str,
) -> Result<Option<Vec<u8>>, ApiError> {
    let subject = sealing::subject_key(&call.keys, registration.subject)?;
    let name = SealedNameV1 { name: name.to_owned() };
    let seal = |subject| sealing::seal::<DeviceNamedV1>(&subject, event_id, id, &name);
    Ok(subject.map(seal))
}

/// What the device is called; none if it has no name, or its user was erased.
pub(super) fn name_of(
    call: &Call,
    registration: &Registration,
    whom: OpenedFor,
) -> Result<Option<String>, ApiError> {
    let Some(position) = registration.named_in else { return Ok(None) };
    let name: Option<SealedNameV1> = call.sealed(position, whom)?;
    Ok(name.map(|sealed| sealed.name))
}

/// Refuses what is no name of a device.
pub(super) fn check_name(name: Option<&str>) -> Result<(), ApiError> {
    let fits = |name: &str| {
        (1..=NAME_MAX).contains(&name.chars().count()) && !name.chars().any(char::is_control)
    };
    if name.is_none_or(fits) {
        return Ok(());
    }
    let words = "must have 1 to 64 characters, none of them a control character";
    Err(ApiError::invalid("/device_name", words))
}

/// A refusal as a device with the right token sees it.
fn not_named(call: &Call, failed: Failed) -> ApiError {
    match failed {
        Failed::Refused(Refusal::RegistrationState(RegistrationState::Locked)) => {
            Code::RegistrationLocked.into()
        }
        Failed::Refused(Refusal::RegistrationState(_) | Refusal::Unknown) => {
            Code::OperationNotFound.into()
        }
        Failed::Refused(Refusal::TooManyAttempts { until }) => {
            call.refusals.count(Refused::Limited);
            let seconds = seconds_until(until, call.clock.wall());
            ApiError::new(Code::TooManyRequests).retry_after_s(seconds)
        }
        Failed::Refused(refusal) => refused(&refusal),
        Failed::Error(error) => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_one_to_sixty_four_characters_and_no_control_character() {
        for (name, fits) in [
            (Some("Anna's phone"), true),
            (Some(""), false),
            (Some(&*"\u{e4}".repeat(64)), true),
            (Some(&*"a".repeat(65)), false),
            (Some("a\nb"), false),
            (None, true),
        ] {
            assert_eq!(check_name(name).is_ok(), fits, "{name:?}");
        }
    }
}
