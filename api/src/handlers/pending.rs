//! What waits for a device, and waiting for what becomes of an operation.

use std::sync::Arc;
use std::time::Duration;

use actix_web::HttpResponse;
use engine::entries::{Broadcast, Operation};
use engine::ids::{Id, Micros};
use engine::reasons::RegistrationState;

use super::device_authentication::recognised;
use crate::call::Call;
use crate::http::body::Body;
use crate::problem::{ApiError, Code};
use crate::waits::{WAIT_S_MAX, Wait};
use crate::wire::Moment;
use crate::wire::device::{ListPending, Pending, PendingOperation};

/// Lists what waits for the device's answer, oldest first.
///
/// With `wait_s` the answer comes as soon as there is something, so that a device
/// needs no push service. Without the right device token the answer is the one
/// to a registration for which nothing waits, after as long.
#[utoipa::path(
    post, path = "/device/v1/operations/pending", tag = "device",
    operation_id = "list_pending", security(()), request_body = ListPending,
    responses((status = 200, description = "Operations that can be answered.", body = Pending)),
)]
pub async fn list(call: Call, body: Body<ListPending>) -> Result<HttpResponse, ApiError> {
    let ListPending { registration_id, device_token, wait_s } = body.value;
    let wait_s = checked("/wait_s", wait_s)?;
    if recognised(&call, registration_id, &device_token.0).is_err() {
        asleep(&call, wait_s).await;
        return Ok(HttpResponse::Ok().json(Pending { operations: Vec::new() }));
    }
    let look = || pending(&call, registration_id);
    let streams = [registration_id];
    let found =
        until(&call, &streams, wait_s, look, |found| found.as_ref().is_ok_and(Vec::is_empty));
    Ok(HttpResponse::Ok().json(Pending { operations: found.await? }))
}

/// What waits for a registration that its device has proven to hold.
fn pending(call: &Call, id: Id) -> Result<Vec<PendingOperation>, ApiError> {
    let Some(registration) = call.look().registration(id) else { return Ok(Vec::new()) };
    if registration.state == RegistrationState::Locked {
        return Err(Code::RegistrationLocked.into());
    }
    let now = call.clock.wall();
    let open = registration.open_operations.iter();
    let found = open.filter_map(|id| Some((*id, call.look().operation(*id)?)));
    let found = found.filter(|(_, operation)| now < operation.expires_at);
    Ok(found.map(|(id, operation)| view(id, &operation)).collect())
}

fn view(id: Id, operation: &Operation) -> PendingOperation {
    PendingOperation {
        operation_id: id,
        kind: operation.kind,
        level: operation.level,
        created_at: Moment(operation.created_at),
        expires_at: Moment(operation.expires_at),
    }
}

/// An operation once it is over, or as it is when the time is: at its deadline at
/// the latest, a second for the expiry to be recorded.
pub(super) async fn ended(call: &Call, id: Id, wait_s: u32) -> Option<Arc<Operation>> {
    let look = || call.look().operation(id);
    let known = look()?;
    let wait_s = within(call, known.expires_at, wait_s);
    let open = |found: &Option<Arc<Operation>>| {
        found.as_ref().is_some_and(|operation| !operation.state.is_final())
    };
    until(call, &[known.registration], wait_s, look, open).await
}

/// Returns once a broadcast is over, or when the time is, as [`ended`].
pub(super) async fn broadcast_ended(call: &Call, id: Id, wait_s: u32) {
    let look = || call.look().broadcast(id);
    let Some(known) = look() else { return };
    let operations = known.operations.iter().filter_map(|id| call.look().operation(*id));
    let operations: Vec<_> = operations.collect();
    let last = operations.iter().map(|operation| operation.expires_at).max();
    let wait_s = within(call, last.unwrap_or_default(), wait_s);
    let streams: Vec<_> = operations.iter().map(|operation| operation.registration).collect();
    let open = |found: &Option<Arc<Broadcast>>| found.as_ref().is_some_and(|it| it.open > 0);
    until(call, &streams, wait_s, look, open).await;
}

/// So long, or until a second after the deadline, if that is earlier.
fn within(call: &Call, deadline: Micros, wait_s: u32) -> u32 {
    let left = deadline.0.saturating_sub(call.clock.wall().0).div_ceil(1_000_000) + 1;
    u64::from(wait_s).min(left) as u32
}

/// Looks until what is found is not worth waiting any longer, at most so long.
async fn until<T>(
    call: &Call,
    streams: &[Id],
    wait_s: u32,
    look: impl Fn() -> T,
    wait: impl Fn(&T) -> bool,
) -> T {
    let first = look();
    if wait_s == 0 || !wait(&first) {
        return first;
    }
    // Entered before the look that counts: what comes after it wakes.
    let Some(entered) = call.waits.enter(streams) else { return first };
    let found = looked(call, &entered, &look, &wait);
    let within = Duration::from_secs(wait_s.into());
    tokio::time::timeout(within, found).await.unwrap_or_else(|_| look())
}

async fn looked<T>(
    call: &Call,
    entered: &Wait<'_>,
    look: &impl Fn() -> T,
    wait: &impl Fn(&T) -> bool,
) -> T {
    loop {
        let found = look();
        if !wait(&found) || call.waits.are_over() {
            return found;
        }
        entered.woken().await;
    }
}

/// As long as somebody waits for whom nothing comes.
async fn asleep(call: &Call, wait_s: u32) {
    // Nothing has this stream, so only a stop wakes.
    if wait_s > 0
        && let Some(entered) = call.waits.enter(&[])
    {
        let _ = tokio::time::timeout(Duration::from_secs(wait_s.into()), entered.woken()).await;
    }
}

/// Refuses a wait that is too long.
pub(super) fn checked(pointer: &str, wait_s: Option<u32>) -> Result<u32, ApiError> {
    let wait_s = wait_s.unwrap_or(0);
    if wait_s <= WAIT_S_MAX {
        return Ok(wait_s);
    }
    Err(ApiError::invalid(pointer, "must be from 0 to 30"))
}
