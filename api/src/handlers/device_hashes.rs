//! Device hashes, for service providers: what is known of one, blocking it,
//! ending the block.
//!
//! A device hash can name a person, so it travels in bodies and never in a path,
//! which proxies write down.

use actix_web::HttpResponse;
use actix_web::web::{Path, Query};
use engine::Keytrail;
use engine::command::{BlockDevice, Command, Refusal, Want};
use engine::devices::LOCKED_AT_ONCE;
use engine::entries::{self, Key};
use engine::events::DeviceBlockedV1;
use engine::ids::Id;
use engine::machine::Machine;
use engine::sealed::SealedDeviceV1;

use super::activations::own_application;
use super::admin::PageQuery;
use crate::auth::roles::ServiceProvider;
use crate::call::{Call, Failed};
use crate::devices::{self, DeviceError};
use crate::http::body::Body;
use crate::http::idempotency::{Asked, Idempotency, IdempotencyKey};
use crate::key_use::OpenedFor;
use crate::problem::{ApiError, Code};
use crate::sealing;
use crate::wire::admin::Page;
use crate::wire::devices as wire;
use crate::wire::{Moment, Octets32};

/// How often a block is made again because its device was over meanwhile.
const ATTEMPTS: usize = 8;
/// Seconds after which to come back if all of them were in vain.
const RETRY_S: u64 = 1;

/// Says what is known of a device hash.
#[utoipa::path(
    post, path = "/v1/device-hashes/lookup", tag = "device hashes",
    operation_id = "look_up_device_hash", request_body = wire::DeviceHashNamed,
    responses((status = 200, description = "What is known; nothing of one that no registration has and that is not blocked.", body = wire::DeviceHash)),
)]
pub async fn look_up(
    call: Call,
    caller: ServiceProvider,
    body: Body<wire::DeviceHashNamed>,
) -> Result<HttpResponse, ApiError> {
    let wire::DeviceHashNamed { application_id, device_hash } = body.value;
    own_application(&call, &caller, application_id)?;
    Ok(HttpResponse::Ok().json(view(&call, application_id, device_hash)))
}

/// Blocks a device hash.
///
/// Locks every registration on it that can be used, and lets none be activated
/// on it until the block ends, also one that was not known before. On the answer
/// all of that is durable.
#[utoipa::path(
    post, path = "/v1/device-hashes/block", tag = "device hashes",
    operation_id = "block_device_hash", request_body = wire::BlockDeviceHash,
    params(IdempotencyKey),
    responses((status = 200, description = "What is known of it now.", body = wire::DeviceHash)),
)]
pub async fn block(
    call: Call,
    caller: ServiceProvider,
    idempotency: Idempotency,
    body: Body<wire::BlockDeviceHash>,
) -> Result<HttpResponse, ApiError> {
    let asked = idempotency.asked(caller.key_id(), &body.bytes);
    own_application(&call, &caller, body.value.application_id)?;
    let device = blocked(&call, &asked, &body.value).await?;
    devices::lock_rest(&call, device).await.map_err(undone)?;
    let wire::BlockDeviceHash { application_id, device_hash, .. } = body.value;
    Ok(HttpResponse::Ok().json(view(&call, application_id, device_hash)))
}

/// Blocks; returns which device.
async fn blocked(call: &Call, asked: &Asked, body: &wire::BlockDeviceHash) -> Result<Id, ApiError> {
    let (application, device_hash) = (body.application_id, body.device_hash.0);
    for _ in 0..ATTEMPTS {
        let device = devices::of_hash(call, application, device_hash).await.map_err(undone)?;
        let event_id = call.fresh_event_id();
        let sealed = SealedDeviceV1 { device_hash };
        let want = BlockDevice {
            by: asked.by.clone(),
            application,
            device: device.id,
            reason: body.reason,
            registrations: devices::to_be_locked(&call.state, device.id),
            sealed: sealing::seal::<DeviceBlockedV1>(&device, event_id, application, &sealed),
        };
        let command = Command { event_id, want: Want::BlockDevice(want) };
        match call.execute(command, asked.causation).await {
            Ok(_) => return Ok(device.id),
            Err(Failed::Refused(Refusal::Stale)) => {}
            Err(failed) => return Err(failed.into()),
        }
    }
    Err(ApiError::new(Code::Busy).retry_after_s(RETRY_S))
}

/// Ends the block of a device hash.
///
/// Registrations can be activated on it again. Those that the block has locked
/// stay so until each is unlocked.
#[utoipa::path(
    post, path = "/v1/device-hashes/unblock", tag = "device hashes",
    operation_id = "unblock_device_hash", request_body = wire::DeviceHashNamed,
    params(IdempotencyKey),
    responses((status = 200, description = "What is known of it now.", body = wire::DeviceHash)),
)]
pub async fn unblock(
    call: Call,
    caller: ServiceProvider,
    idempotency: Idempotency,
    body: Body<wire::DeviceHashNamed>,
) -> Result<HttpResponse, ApiError> {
    let asked = idempotency.asked(caller.key_id(), &body.bytes);
    let wire::DeviceHashNamed { application_id: application, device_hash } = body.value;
    own_application(&call, &caller, application)?;
    // One that nobody knows is not blocked.
    if let Some((device, _)) = known(&call, application, &device_hash) {
        let want = Want::UnblockDevice { by: asked.by.clone(), application, device };
        call.execute_for(&asked, call.command(want)).await?;
        devices::forget(&call, device).await.map_err(undone)?;
    }
    Ok(HttpResponse::Ok().json(view(&call, application, device_hash)))
}

/// Lists the blocked device hashes of an application.
#[utoipa::path(
    get, path = "/v1/applications/{id}/blocked-device-hashes", tag = "device hashes",
    operation_id = "list_blocked_device_hashes",
    params(("id" = String, Path, description = "Id of the application."), PageQuery),
    responses((status = 200, description = "A part of the list.", body = Page<wire::BlockedDeviceHash>)),
)]
pub async fn list_blocked(
    call: Call,
    caller: ServiceProvider,
    id: Path<Id>,
    query: Query<PageQuery>,
) -> Result<HttpResponse, ApiError> {
    own_application(&call, &caller, *id)?;
    let limit = query.limit()?;
    let (first, end) = Key::blocked_at(*id);
    let after = query.after.map(|device| Key::Blocked(*id, device));
    // The first key behind another one is that one with a zero byte.
    let from = after.map_or(first, |key| [&Keytrail::key_bytes(&key)[..], &[0]].concat());
    let found = call.state.scan(&from, &end, limit + 1);
    let more = found.len() > limit;
    let ids = found.iter().take(limit).filter_map(|(key, _)| match key {
        Key::Blocked(_, device) => Some(*device),
        _ => None,
    });
    let mut items = Vec::new();
    let mut next = None;
    for device in ids {
        next = Some(device);
        items.extend(blocked_view(&call, device)?);
    }
    Ok(HttpResponse::Ok().json(Page { items, next: next.filter(|_| more) }))
}

/// A blocked device; none if it was unblocked just now.
fn blocked_view(call: &Call, device: Id) -> Result<Option<wire::BlockedDeviceHash>, ApiError> {
    let known = call.look().device(device);
    let Some(blocked) = known.and_then(|known| known.blocked.clone()) else { return Ok(None) };
    let sealed: Option<SealedDeviceV1> =
        call.sealed(blocked.position, OpenedFor::ServiceProvider)?;
    Ok(Some(wire::BlockedDeviceHash {
        device_id: device,
        device_hash: sealed.map(|sealed| Octets32(sealed.device_hash)),
        block: block_view(&blocked),
    }))
}

fn block_view(blocked: &entries::Blocked) -> wire::DeviceBlock {
    wire::DeviceBlock { reason: blocked.reason, blocked_at: Moment(blocked.at) }
}

/// The device of a device hash, if it is known and not over.
fn known(
    call: &Call,
    application: Id,
    device_hash: &Octets32,
) -> Option<(Id, std::sync::Arc<entries::Device>)> {
    let id = call.keys.find_device(application, &device_hash.0)?;
    let device = call.look().device(id)?;
    (!device.is_over()).then_some((id, device))
}

fn view(call: &Call, application_id: Id, device_hash: Octets32) -> wire::DeviceHash {
    let Some((id, device)) = known(call, application_id, &device_hash) else {
        return wire::DeviceHash {
            application_id,
            device_hash,
            device_id: None,
            users: 0,
            registration_count: 0,
            registrations: Vec::new(),
            blocked: None,
        };
    };
    let (first, end) = Key::on_device(id);
    let found = call.state.scan(&first, &end, LOCKED_AT_ONCE);
    let registrations = found.iter().filter_map(|(key, _)| match key {
        Key::OnDevice(_, registration) => Some(*registration),
        _ => None,
    });
    wire::DeviceHash {
        application_id,
        device_hash,
        device_id: Some(id),
        users: device.users,
        registration_count: device.registrations,
        registrations: registrations.collect(),
        blocked: device.blocked.as_ref().map(block_view),
    }
}

/// What could not be done about a device, as a caller sees it.
pub(super) fn undone(error: DeviceError) -> ApiError {
    use storage::keys::KeyError;
    use storage::sequencer::ExecuteError;
    match error {
        DeviceError::Keys(KeyError::Full) | DeviceError::Lock(ExecuteError::ReadOnly) => {
            ApiError::new(Code::Unavailable)
                .detail("the disk is full; nothing is written until there is space")
        }
        DeviceError::Lock(ExecuteError::Busy) => ApiError::new(Code::Busy).retry_after_s(RETRY_S),
        other => ApiError::new(Code::Internal).cause(other),
    }
}
