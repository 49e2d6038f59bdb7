//! Users, for service providers: the registrations of one, erasing one.

use std::collections::BTreeSet;
use std::future::{Ready, ready};

use actix_web::dev::Payload;
use actix_web::web::Query;
use actix_web::{FromRequest, HttpRequest, HttpResponse};
use engine::command::{OrderErasure, Refusal, Want};
use engine::entries::Key;
use engine::erasure::REGISTRATIONS_MAX;
use engine::events::Actor;
use engine::ids::Id;
use engine::reasons::{ErasureReason, ReasonGiven};
use serde::Deserialize;
use utoipa::IntoParams;

use super::activations::check_user_ref;
use super::admin::PageQuery;
use super::device_hashes::undone;
use super::registrations::view;
use crate::auth::roles::ServiceProvider;
use crate::call::{Call, Failed, Outcome};
use crate::devices;
use crate::erasure;
use crate::http::idempotency::{Asked, Idempotency, IdempotencyKey};
use crate::problem::{ApiError, Code};
use crate::wire::Moment;
use crate::wire::provider as wire;
use crate::wire::words::ErasureReasonWord;

/// Where users are. What stands behind it is the percent-encoded reference.
const USERS: &str = "/v1/users/";
/// How often an order is made again because an activation or an end of a
/// registration came between looking and ordering.
const ATTEMPTS: usize = 8;
/// Most registrations of a user that are looked at for their devices.
const LOOKED_AT_MAX: usize = 4_096;
/// Seconds after which to come back if all of them were in vain.
const RETRY_S: u64 = 1;

/// Why a user is erased.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct EraseQuery {
    /// Why; `OTHER` if absent. It stands in the log for ever.
    #[param(value_type = Option<ErasureReasonWord>)]
    pub reason: Option<ErasureReason>,
}

/// Erases a user.
///
/// Ends the user's registrations at all applications of the service provider,
/// then destroys the key under which the log holds what names the user. On the
/// answer nothing that names the user can be read any more, in the log or in
/// any copy of it. The same reference stands for a new user from then on.
///
/// Whoever is erased is as unknown as whoever never was: a repeat is answered
/// 404, unless it carries the same `Idempotency-Key`.
#[utoipa::path(
    delete, path = "/v1/users/{user_ref}", tag = "users", operation_id = "erase_user",
    params(
        ("user_ref" = String, Path, description = "The service provider's own name for the user, percent-encoded (RFC 3986), `/` too."),
        EraseQuery,
        IdempotencyKey,
    ),
    responses((status = 200, description = "The erasure, carried out.", body = wire::Erasure)),
)]
pub async fn erase(
    call: Call,
    caller: ServiceProvider,
    user: UserRef,
    query: Query<EraseQuery>,
    idempotency: Idempotency,
) -> Result<HttpResponse, ApiError> {
    let reason = query.reason.unwrap_or(ErasureReason::Other);
    let asked = idempotency.asked(caller.key_id(), reason.as_str().as_bytes());
    // A reference that leads to nobody goes the same way, as it may be a repeat.
    let subject = call.keys.find_subject(caller.service_provider(), &user.0);
    let devices = devices_of(&call, subject.unwrap_or(Id::NIL));
    let subject = ordered(&call, &asked, subject.unwrap_or(Id::NIL), reason).await?;
    erasure::carry_out(&call, subject)
        .await
        .map_err(|error| ApiError::new(Code::Internal).cause(error))?;
    // Only now are the user's devices over: those that nobody else is on.
    for device in devices {
        devices::forget(&call, device).await.map_err(undone)?;
    }
    let erasure = call.look().erasure(subject).ok_or(Code::NotFound)?;
    Ok(HttpResponse::Ok().json(wire::Erasure {
        subject_id: subject,
        reason: erasure.reason,
        ordered_at: Moment(erasure.ordered_at),
        erased_at: erasure.erased_at.map(Moment),
        position: erasure.ordered_in.0,
    }))
}

/// The devices that the registrations of a subject are on. Of more registrations
/// than are looked at, the devices are forgotten within the hour.
fn devices_of(call: &Call, subject: Id) -> BTreeSet<Id> {
    let (from, to) = Key::owned_by(subject);
    let found = call.state.scan(&from, &to, LOOKED_AT_MAX);
    let registrations = found.iter().filter_map(|(key, _)| match key {
        Key::Owned(_, registration) => call.look().registration(*registration),
        _ => None,
    });
    registrations.filter_map(|registration| registration.device).collect()
}

/// Lists the registrations of a user that are not over.
///
/// Those at all applications of the service provider, in the order of their ids,
/// which is the order in which they were asked for. Of whom nothing is known there
/// are none.
#[utoipa::path(
    get, path = "/v1/users/{user_ref}/registrations", tag = "users",
    operation_id = "registrations_of_user",
    params(
        ("user_ref" = String, Path, description = "The service provider's own name for the user, percent-encoded (RFC 3986), `/` too."),
        PageQuery,
    ),
    responses((status = 200, description = "The registrations.", body = wire::Registrations)),
)]
pub async fn registrations(
    call: Call,
    caller: ServiceProvider,
    user: UserRef,
    query: Query<PageQuery>,
) -> Result<HttpResponse, ApiError> {
    let limit = query.limit()?;
    let subject = call.keys.find_subject(caller.service_provider(), &user.0).unwrap_or(Id::NIL);
    let (from, to) = Key::owned_by(subject);
    // The first key behind another one is that one with a zero byte.
    let behind = |id| [&Key::Owned(subject, id).bytes()[..], &[0]].concat();
    let from = query.after.map_or(from, behind);
    // One more than asked for tells whether there is a next page.
    let found = call.state.scan(&from, &to, limit + 1);
    let mut items = Vec::with_capacity(found.len().min(limit));
    for (key, _) in found.iter().take(limit) {
        if let Key::Owned(_, id) = key
            // Ended since the list was read.
            && let Some(registration) = call.look().registration(*id)
        {
            items.push(view(&call, *id, &registration)?);
        }
    }
    let last = items.last().filter(|_| found.len() > limit);
    let next = last.map(|registration| registration.registration_id);
    Ok(HttpResponse::Ok().json(wire::Registrations { items, next }))
}

/// Orders the erasure; returns whose, as a repeat names nobody.
async fn ordered(
    call: &Call,
    asked: &Asked,
    subject: Id,
    reason: ErasureReason,
) -> Result<Id, ApiError> {
    for _ in 0..ATTEMPTS {
        let registrations = few_registrations(call, &asked.by, subject).await?;
        let order = OrderErasure { by: asked.by.clone(), subject, reason, registrations };
        let command = call.command(Want::OrderErasure(order));
        match call.execute(command, asked.causation).await {
            Ok(Outcome::Done(_)) => return Ok(subject),
            Ok(Outcome::Repeat(first)) => return Ok(first.draft.stream),
            Err(Failed::Refused(Refusal::OtherRegistrations)) => {}
            Err(failed) => return Err(failed.into()),
        }
    }
    Err(ApiError::new(Code::Busy).retry_after_s(RETRY_S))
}

/// The registrations of a subject that are not over, once they are few enough
/// for one order: those too many are ended first.
async fn few_registrations(call: &Call, by: &Actor, subject: Id) -> Result<Vec<Id>, ApiError> {
    let (from, to) = Key::owned_by(subject);
    loop {
        let found = call.state.scan(&from, &to, REGISTRATIONS_MAX + 1);
        let owned = found.iter().filter_map(|(key, _)| match key {
            Key::Owned(_, registration) => Some(*registration),
            _ => None,
        });
        let mut registrations: Vec<_> = owned.collect();
        if registrations.len() <= REGISTRATIONS_MAX {
            return Ok(registrations);
        }
        let Some(registration) = registrations.pop() else { return Ok(registrations) };
        // Not under the idempotency key: that one belongs to the order.
        let by = Actor { api_key: by.api_key, request: None };
        let reason = ReasonGiven::Other;
        let want = Want::DeactivateRegistration { by, registration, reason };
        let command = call.command(want);
        call.execute(command, None).await?;
    }
}

/// The reference in the path.
///
/// Read by its octets: a lenient reader would take what is no UTF-8 for some
/// other user's reference, and this one is not asked to forgive.
pub struct UserRef(String);

impl UserRef {
    fn of_path(path: &str) -> Result<Self, ApiError> {
        let malformed =
            || ApiError::new(Code::BadRequest).detail("the user reference cannot be read");
        let encoded = path.strip_prefix(USERS).ok_or_else(malformed)?;
        // What a user has stands behind a slash, which no encoded reference has.
        let encoded = encoded.split('/').next().unwrap_or_default();
        let octets = percent_decoded(encoded.as_bytes()).ok_or_else(malformed)?;
        let user_ref = String::from_utf8(octets).map_err(|_| malformed())?;
        check_user_ref(&user_ref).map_err(|_| malformed())?;
        Ok(Self(user_ref))
    }
}

fn percent_decoded(encoded: &[u8]) -> Option<Vec<u8>> {
    let digit = |octet: &u8| char::from(*octet).to_digit(16).map(|digit| digit as u8);
    let mut octets = Vec::with_capacity(encoded.len());
    let mut rest = encoded;
    while let Some((&first, behind)) = rest.split_first() {
        rest = behind;
        if first == b'%' {
            let (pair, behind) = rest.split_first_chunk::<2>()?;
            octets.push((digit(&pair[0])? << 4) | digit(&pair[1])?);
            rest = behind;
        } else {
            octets.push(first);
        }
    }
    Some(octets)
}

impl FromRequest for UserRef {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(Self::of_path(request.uri().path()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_is_read_by_its_octets_or_not_at_all() {
        let read = |path: &str| UserRef::of_path(path).ok().map(|user| user.0);
        let is = |path: &str, expected: &str| assert_eq!(read(path).as_deref(), Some(expected));
        is("/v1/users/anna", "anna");
        is("/v1/users/a%2Fb%20c%25+d", "a/b c%+d");
        is("/v1/users/%C3%A4%e2%82%ac", "ä€");
        is(&format!("/v1/users/{}", "a".repeat(256)), &"a".repeat(256));
        for bad in ["", "%", "%4", "%zz", "%+4a", "%C3", "%ff", "a%00", "a%0a", &"a".repeat(257)] {
            assert_eq!(read(&format!("/v1/users/{bad}")), None, "{bad}");
        }
    }
}
