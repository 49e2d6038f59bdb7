//! Inactivity, for administrators: how many registrations nobody uses, before and
//! after anyone has them ended, and letting more of them end.

use actix_web::HttpResponse;
use actix_web::web::{Path, Query};
use engine::command::Want;
use engine::events::Event;
use engine::ids::Id;
use engine::inactivity::Allowance;
use serde::Deserialize;
use utoipa::IntoParams;

use crate::auth::roles::Administrator;
use crate::call::Call;
use crate::http::body::Body;
use crate::http::idempotency::{Idempotency, IdempotencyKey};
use crate::inactivity::{Count, count};
use crate::problem::{ApiError, Code};
use crate::wire::Moment;
use crate::wire::devices as wire;

/// Days that can be asked about.
const DAYS: std::ops::RangeInclusive<u32> = 1..=36_500;

/// After how many days.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct InactivityQuery {
    /// Days without use, 1 to 36,500; those that the application allows if absent.
    #[param(minimum = 1, maximum = 36_500)]
    pub after_days: Option<u32>,
}

/// Says how many registrations of an application have not been used for long.
///
/// Asks about any number of days, also where nothing ends for want of use, and
/// ends nothing: look here before you set `inactive_after_days`.
#[utoipa::path(
    get, path = "/admin/v1/applications/{id}/inactivity", tag = "admin",
    operation_id = "inactivity",
    params(("id" = String, Path, description = "Id of the application."), InactivityQuery),
    responses((status = 200, description = "How many there are, and how many may end today.", body = wire::Inactivity)),
)]
pub async fn report(
    call: Call,
    _caller: Administrator,
    id: Path<Id>,
    query: Query<InactivityQuery>,
) -> Result<HttpResponse, ApiError> {
    let application = call.look().application(*id).ok_or(Code::NotFound)?;
    let days = query.after_days.or(application.config.inactive_after_days);
    let after_days = days.filter(|days| DAYS.contains(days)).ok_or_else(|| {
        ApiError::new(Code::BadRequest).detail(
            "after_days must be from 1 to 36500; it is required while the application sets none",
        )
    })?;
    let as_of = call.clock.wall();
    let Count { due, more } = count(&call, *id, after_days, as_of)
        .await
        .map_err(|error| ApiError::new(Code::Internal).cause(error))?;
    let allowance = Allowance::of(&application, as_of);
    Ok(HttpResponse::Ok().json(wire::Inactivity {
        after_days,
        as_of: Moment(as_of),
        registrations: application.registrations,
        due,
        more,
        limit: allowance.limit,
        left: allowance.left,
        confirmed: allowance.confirmed,
    }))
}

/// Lets more registrations end for want of use than 1 % in a day.
///
/// Holds for a day, beside the limit. What was left of an earlier confirmation is
/// void. Nothing ends at once: the next sweep does it.
#[utoipa::path(
    post, path = "/admin/v1/applications/{id}/inactivity/confirm", tag = "admin",
    operation_id = "confirm_inactivity", request_body = wire::ConfirmInactivity,
    params(
        ("id" = String, Path, description = "Id of the application."),
        IdempotencyKey,
    ),
    responses((status = 200, description = "How many more may end, and until when.", body = wire::ConfirmedInactivity)),
)]
pub async fn confirm(
    call: Call,
    caller: Administrator,
    id: Path<Id>,
    idempotency: Idempotency,
    body: Body<wire::ConfirmInactivity>,
) -> Result<HttpResponse, ApiError> {
    let asked = idempotency.asked(caller.key_id(), &body.bytes);
    let registrations = body.value.registrations;
    let want = Want::ConfirmInactivity { by: asked.by.clone(), application: *id, registrations };
    let outcome = call.execute_for(&asked, call.command(want)).await?;
    let Some(Event::InactivityConfirmed(confirmed)) = outcome.first_event()? else {
        return Err(ApiError::new(Code::Internal).cause("a confirmation without its event"));
    };
    Ok(HttpResponse::Ok().json(wire::ConfirmedInactivity {
        registrations: confirmed.registrations,
        until: Moment(confirmed.until),
    }))
}
