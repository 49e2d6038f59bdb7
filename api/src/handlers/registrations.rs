//! Registrations, for service providers.

use std::sync::Arc;

use actix_web::HttpResponse;
use actix_web::web::Path;
use engine::command::Want;
use engine::entries;
use engine::events::Actor;
use engine::ids::Id;
use engine::key::KeyBytes;
use engine::sealed::{SealedResponseV1, SealedUserV1};
use engine::terms::Method;

use super::activations::own_application;
use super::device_hashes::undone;
use super::naming::name_of;
use super::recovery;
use crate::auth::roles::ServiceProvider;
use crate::call::Call;
use crate::devices;
use crate::http::body::Body;
use crate::http::idempotency::{Asked, Idempotency, IdempotencyKey};
use crate::key_use::OpenedFor;
use crate::problem::{ApiError, Code};
use crate::wire::provider::{self as wire, Because, RegisteredKey};
use crate::wire::{Empty, Moment, Octets32};

/// Returns a registration.
#[utoipa::path(
    get, path = "/v1/registrations/{id}", tag = "registrations", operation_id = "registration",
    params(("id" = String, Path, description = "Id of the registration.")),
    responses((status = 200, description = "The registration.", body = wire::Registration)),
)]
pub async fn registration(
    call: Call,
    caller: ServiceProvider,
    id: Path<Id>,
) -> Result<HttpResponse, ApiError> {
    let registration = own(&call, &caller, *id)?;
    Ok(HttpResponse::Ok().json(view(&call, *id, &registration)?))
}

/// Locks a registration, until it is unlocked or activated again.
///
/// A re-activation under way is cancelled: what was asked for before the lock
/// must not undo it.
#[utoipa::path(
    post, path = "/v1/registrations/{id}/lock", tag = "registrations",
    operation_id = "lock_registration", request_body = Because,
    params(
        ("id" = String, Path, description = "Id of the registration."),
        IdempotencyKey,
    ),
    responses((status = 200, description = "The registration.", body = wire::Registration)),
)]
pub async fn lock(
    call: Call,
    caller: ServiceProvider,
    id: Path<Id>,
    idempotency: Idempotency,
    body: Body<Because>,
) -> Result<HttpResponse, ApiError> {
    let asked = idempotency.asked(caller.key_id(), &body.bytes);
    let reason = body.value.reason;
    let want = |by| Want::LockRegistration { by, registration: *id, reason };
    changed(&call, &caller, *id, &asked, want).await
}

/// Unlocks a registration; its failures are forgotten.
#[utoipa::path(
    post, path = "/v1/registrations/{id}/unlock", tag = "registrations",
    operation_id = "unlock_registration", request_body = Empty,
    params(
        ("id" = String, Path, description = "Id of the registration."),
        IdempotencyKey,
    ),
    responses((status = 200, description = "The registration.", body = wire::Registration)),
)]
pub async fn unlock(
    call: Call,
    caller: ServiceProvider,
    id: Path<Id>,
    idempotency: Idempotency,
    body: Body<Empty>,
) -> Result<HttpResponse, ApiError> {
    let asked = idempotency.asked(caller.key_id(), &body.bytes);
    let want = |by| Want::UnlockRegistration { by, registration: *id };
    changed(&call, &caller, *id, &asked, want).await
}

/// Ends a registration, for ever. Its pending operations are cancelled.
#[utoipa::path(
    post, path = "/v1/registrations/{id}/deactivate", tag = "registrations",
    operation_id = "deactivate_registration", request_body = Because,
    params(
        ("id" = String, Path, description = "Id of the registration."),
        IdempotencyKey,
    ),
    responses((status = 200, description = "The registration.", body = wire::Registration)),
)]
pub async fn deactivate(
    call: Call,
    caller: ServiceProvider,
    id: Path<Id>,
    idempotency: Idempotency,
    body: Body<Because>,
) -> Result<HttpResponse, ApiError> {
    let asked = idempotency.asked(caller.key_id(), &body.bytes);
    let reason = body.value.reason;
    let want = |by| Want::DeactivateRegistration { by, registration: *id, reason };
    let answer = changed(&call, &caller, *id, &asked, want).await?;
    if let Some(device) = own(&call, &caller, *id)?.device {
        devices::forget(&call, device).await.map_err(undone)?;
    }
    Ok(answer)
}

async fn changed(
    call: &Call,
    caller: &ServiceProvider,
    id: Id,
    asked: &Asked,
    want: impl FnOnce(Actor) -> Want,
) -> Result<HttpResponse, ApiError> {
    let command = call.command(want(asked.by.clone()));
    call.execute_for(asked, command).await?;
    let registration = own(call, caller, id)?;
    Ok(HttpResponse::Ok().json(view(call, id, &registration)?))
}

/// The registration, if it is of an application of the caller's.
pub(super) fn own(
    call: &Call,
    caller: &ServiceProvider,
    id: Id,
) -> Result<Arc<entries::Registration>, ApiError> {
    let registration = call.look().registration(id).ok_or(Code::NotFound)?;
    own_application(call, caller, registration.application)?;
    Ok(registration)
}

pub(super) fn view(
    call: &Call,
    id: Id,
    registration: &entries::Registration,
) -> Result<wire::Registration, ApiError> {
    let application = call.look().application(registration.application).ok_or(Code::NotFound)?;
    let user: Option<SealedUserV1> =
        call.sealed(registration.requested_in, OpenedFor::ServiceProvider)?;
    let mut software_keys = Vec::with_capacity(registration.software.len());
    for slot in &registration.software {
        software_keys.push(registered(Some(slot.method), &slot.key)?);
    }
    let hardware_key = registration.hardware.as_ref().map(|key| registered(None, key));
    Ok(wire::Registration {
        registration_id: id,
        application_id: registration.application,
        user_ref: user.map(|user| user.user_ref),
        recovers: registration.recovers,
        recovery_codes_left: recovery::left(call, &application, registration),
        device_name: name_of(call, registration, OpenedFor::ServiceProvider)?,
        state: registration.state,
        lock_reason: registration.lock_reason,
        device_hash: device_hash(call, registration)?,
        lock_release_at: registration.release_at.map(Moment),
        deactivation_reason: registration.deactivation_reason,
        software_keys,
        hardware_key: hardware_key.transpose()?,
        hardware_key_impossible: registration.hw_key_impossible,
        unproven_device: registration.unproven_device,
        client_version: registration.client_version.clone(),
        failures: registration.failures,
        remaining_attempts: remaining_attempts(&application, registration),
        activation_id: registration.activation,
        pending_operations: registration.open_operations.clone(),
        created_at: Moment(registration.created_at),
        activated_at: registration.activated_at.map(Moment),
        last_used_at: registration.last_used_at.map(Moment),
    })
}

/// The device hash that its app sent last; none if it sent none, or the user was
/// erased.
fn device_hash(
    call: &Call,
    registration: &entries::Registration,
) -> Result<Option<Octets32>, ApiError> {
    let Some(position) = registration.device_named_in else { return Ok(None) };
    let sealed: Option<SealedResponseV1> = call.sealed(position, OpenedFor::ServiceProvider)?;
    let octets = sealed.and_then(|sealed| sealed.device_hash).map(|sent| sent.octets);
    Ok(octets.and_then(|octets| octets.try_into().ok()).map(Octets32))
}

fn registered(method: Option<Method>, key: &KeyBytes) -> Result<RegisteredKey, ApiError> {
    // A key that was admitted is a point of the curve.
    let key = key.check().map_err(|error| ApiError::new(Code::Internal).cause(error))?;
    Ok(RegisteredKey { method, key_id: Octets32(key.id().0) })
}

/// Counted failures that remain until the registration is locked.
pub(super) fn remaining_attempts(
    application: &entries::Application,
    registration: &entries::Registration,
) -> u32 {
    application.config.failures_allowed.saturating_sub(registration.failures)
}
