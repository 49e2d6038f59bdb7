//! Applications, their configuration, and API keys, for administrators.

use std::sync::atomic::{AtomicU64, Ordering};

use actix_web::HttpResponse;
use actix_web::web::{Path, Query};
use engine::Keytrail;
use engine::command::{ChangeConfiguration, CreateApiKey, CreateApplication, Want};
use engine::entries::{self, Entry, Key, KeyKind};
use engine::events::{ClockConfirmedV1, SetProperty};
use engine::ids::Id;
use engine::machine::{Machine, random};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::anchors::AnchorError;
use crate::anchors::board::{Kind, State};
use crate::auth::credential::{Credential, Secret};
use crate::auth::roles::Administrator;
use crate::call::{Call, Outcome};
use crate::http::body::Body;
use crate::http::idempotency::{Idempotency, IdempotencyKey};
use crate::problem::{ApiError, Code};
use crate::push;
use crate::wire::Empty;
use crate::wire::Moment;
use crate::wire::admin::{self as wire, Page, Properties, Status};

/// Entries in a page unless the request says otherwise, and at most.
const PAGE: usize = 100;

/// Which part of a list.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct PageQuery {
    /// Begin after this id: `next` of the page before.
    #[param(value_type = Option<String>)]
    pub after: Option<Id>,
    /// Entries in the page, 1 to 100; 100 if absent.
    #[param(minimum = 1, maximum = 100)]
    pub limit: Option<usize>,
}

impl PageQuery {
    /// Entries in the page.
    pub(super) fn limit(&self) -> Result<usize, ApiError> {
        let limit = self.limit.unwrap_or(PAGE);
        if (1..=PAGE).contains(&limit) {
            return Ok(limit);
        }
        Err(ApiError::new(Code::BadRequest).detail("limit must be from 1 to 100"))
    }
}

/// Makes an API key.
///
/// The secret is in the answer and nowhere else. A repeat under the same
/// `Idempotency-Key` says that it was shown.
#[utoipa::path(
    post, path = "/admin/v1/api-keys", tag = "admin", operation_id = "create_api_key",
    request_body = wire::CreateApiKey,
    params(IdempotencyKey),
    responses((status = 201, description = "The key with its secret.", body = wire::CreatedApiKey)),
)]
pub async fn create_api_key(
    call: Call,
    caller: Administrator,
    idempotency: Idempotency,
    body: Body<wire::CreateApiKey>,
) -> Result<HttpResponse, ApiError> {
    let asked = idempotency.asked(caller.key_id(), &body.bytes);
    let made = Credential { id: call.fresh_id(), secret: Secret::new(random(&*call.entropy)) };
    let want = CreateApiKey {
        by: asked.by.clone(),
        key: made.id,
        role: body.value.role,
        service_provider: body.value.service_provider.clone().unwrap_or_default(),
        name: body.value.name.clone(),
        secret_hash: call.hasher.hash(&made.secret).0,
    };
    let command = call.command(Want::CreateApiKey(want));
    let (id, credential) = match call.execute_for(&asked, command).await? {
        Outcome::Done(_) => (made.id, Some(made)),
        // The stream of the first record is the key that was made then.
        Outcome::Repeat(first) => (first.draft.stream, None),
    };
    let key = call.look().api_key(id).ok_or(Code::NotFound)?;
    Ok(HttpResponse::Created().json(wire::CreatedApiKey {
        api_key: api_key_view(id, &key),
        secret: credential.as_ref().map(|made| made.secret.text().to_string()),
        bearer: credential.as_ref().map(|made| made.token().to_string()),
        repeated: credential.is_none(),
    }))
}

/// Lists API keys, revoked ones too.
#[utoipa::path(
    get, path = "/admin/v1/api-keys", tag = "admin", operation_id = "list_api_keys",
    params(PageQuery),
    responses((status = 200, description = "A part of the list.", body = Page<wire::ApiKey>)),
)]
pub async fn list_api_keys(
    call: Call,
    _caller: Administrator,
    query: Query<PageQuery>,
) -> Result<HttpResponse, ApiError> {
    let page = page(&call, &query, KeyKind::ApiKey, |key, entry| match (key, entry) {
        (Key::ApiKey(id), Entry::ApiKey(key)) => Some((*id, api_key_view(*id, key))),
        _ => None,
    })?;
    Ok(HttpResponse::Ok().json(page))
}

/// Returns an API key, without its secret.
#[utoipa::path(
    get, path = "/admin/v1/api-keys/{id}", tag = "admin", operation_id = "api_key",
    params(("id" = String, Path, description = "Id of the API key.")),
    responses((status = 200, description = "The key.", body = wire::ApiKey)),
)]
pub async fn api_key(
    call: Call,
    _caller: Administrator,
    id: Path<Id>,
) -> Result<HttpResponse, ApiError> {
    let key = call.look().api_key(*id).ok_or(Code::NotFound)?;
    Ok(HttpResponse::Ok().json(api_key_view(*id, &key)))
}

/// Revokes an API key, for ever.
#[utoipa::path(
    post, path = "/admin/v1/api-keys/{id}/revoke", tag = "admin", operation_id = "revoke_api_key",
    request_body = Empty,
    params(
        ("id" = String, Path, description = "Id of the API key."),
        IdempotencyKey,
    ),
    responses((status = 200, description = "The revoked key.", body = wire::ApiKey)),
)]
pub async fn revoke_api_key(
    call: Call,
    caller: Administrator,
    id: Path<Id>,
    idempotency: Idempotency,
    body: Body<Empty>,
) -> Result<HttpResponse, ApiError> {
    let asked = idempotency.asked(caller.key_id(), &body.bytes);
    let want = Want::RevokeApiKey { by: asked.by.clone(), key: *id };
    let command = call.command(want);
    call.execute_for(&asked, command).await?;
    let key = call.look().api_key(*id).ok_or(Code::NotFound)?;
    Ok(HttpResponse::Ok().json(api_key_view(*id, &key)))
}

/// Creates an application.
#[utoipa::path(
    post, path = "/admin/v1/applications", tag = "admin", operation_id = "create_application",
    request_body = wire::CreateApplication,
    params(IdempotencyKey),
    responses((status = 201, description = "The application.", body = wire::Application)),
)]
pub async fn create_application(
    call: Call,
    caller: Administrator,
    idempotency: Idempotency,
    body: Body<wire::CreateApplication>,
) -> Result<HttpResponse, ApiError> {
    let asked = idempotency.asked(caller.key_id(), &body.bytes);
    let want = CreateApplication {
        by: asked.by.clone(),
        application: call.fresh_id(),
        name: body.value.name.clone(),
        service_provider: body.value.service_provider.clone(),
        properties: set(&body.value.configuration),
    };
    let id = want.application;
    let command = call.command(Want::CreateApplication(want));
    let id = match call.execute_for(&asked, command).await? {
        Outcome::Done(_) => id,
        Outcome::Repeat(first) => first.draft.stream,
    };
    let application = call.look().application(id).ok_or(Code::NotFound)?;
    Ok(HttpResponse::Created().json(application_view(&call, id, &application)))
}

/// Lists applications.
#[utoipa::path(
    get, path = "/admin/v1/applications", tag = "admin", operation_id = "list_applications",
    params(PageQuery),
    responses((status = 200, description = "A part of the list.", body = Page<wire::Application>)),
)]
pub async fn list_applications(
    call: Call,
    _caller: Administrator,
    query: Query<PageQuery>,
) -> Result<HttpResponse, ApiError> {
    let page = page(&call, &query, KeyKind::Application, |key, entry| match (key, entry) {
        (Key::Application(id), Entry::Application(application)) => {
            Some((*id, application_view(&call, *id, application)))
        }
        _ => None,
    })?;
    Ok(HttpResponse::Ok().json(page))
}

/// Returns an application with its configuration.
#[utoipa::path(
    get, path = "/admin/v1/applications/{id}", tag = "admin", operation_id = "application",
    params(("id" = String, Path, description = "Id of the application.")),
    responses((status = 200, description = "The application.", body = wire::Application)),
)]
pub async fn application(
    call: Call,
    _caller: Administrator,
    id: Path<Id>,
) -> Result<HttpResponse, ApiError> {
    let application = call.look().application(*id).ok_or(Code::NotFound)?;
    Ok(HttpResponse::Ok().json(application_view(&call, *id, &application)))
}

/// Changes properties of an application's configuration.
///
/// Takes effect with the answer. Unknown and invalid properties are refused by
/// name, and then none is changed.
#[utoipa::path(
    patch, path = "/admin/v1/applications/{id}/configuration", tag = "admin",
    operation_id = "change_configuration", request_body = wire::ChangeConfiguration,
    params(
        ("id" = String, Path, description = "Id of the application."),
        IdempotencyKey,
    ),
    responses((status = 200, description = "The application.", body = wire::Application)),
)]
pub async fn change_configuration(
    call: Call,
    caller: Administrator,
    id: Path<Id>,
    idempotency: Idempotency,
    body: Body<wire::ChangeConfiguration>,
) -> Result<HttpResponse, ApiError> {
    let asked = idempotency.asked(caller.key_id(), &body.bytes);
    let want = ChangeConfiguration {
        by: asked.by.clone(),
        application: *id,
        version: body.value.version,
        properties: set(&body.value.configuration),
    };
    let want = Want::ChangeConfiguration(want);
    let command = call.command(want);
    call.execute_for(&asked, command).await?;
    let application = call.look().application(*id).ok_or(Code::NotFound)?;
    Ok(HttpResponse::Ok().json(application_view(&call, *id, &application)))
}

/// Says how the server is.
#[utoipa::path(
    get, path = "/admin/v1/status", tag = "admin", operation_id = "status",
    responses((status = 200, description = "Its log, its disk, its clock, its counters.", body = Status)),
)]
pub async fn status(call: Call, _caller: Administrator) -> Result<HttpResponse, ApiError> {
    let counters = call.handle.counters();
    Ok(HttpResponse::Ok().json(Status {
        origin: call.origin.clone(),
        records: call.log.head().size,
        read_only: call.handle.is_read_only(),
        clock_suspended: call.handle.clock_suspended(),
        signatures_checked: call.signatures_checked(),
        commands_refused: counters.refused,
        commands_failed: counters.internal,
        anchors: call.anchors.anchors().iter().map(anchor_view).collect(),
        push: push_view(&call.push),
    }))
}

/// Confirms the clock after a step of it.
///
/// A step beyond ten minutes suspends what time alone makes happen, except
/// expiry, until an operator says that the clock is right. Who said so, and
/// when, stands in the log. A repeat under the same `Idempotency-Key` confirms
/// nothing again.
#[utoipa::path(
    post, path = "/admin/v1/clock/confirm", tag = "admin", operation_id = "confirm_clock",
    request_body = Empty,
    params(IdempotencyKey),
    responses((status = 204, description = "The clock is taken as right.")),
)]
pub async fn confirm_clock(
    call: Call,
    caller: Administrator,
    idempotency: Idempotency,
    body: Body<Empty>,
) -> Result<HttpResponse, ApiError> {
    let asked = idempotency.asked(caller.key_id(), &body.bytes);
    let suspended = call.handle.clock_suspended();
    let confirmed = ClockConfirmedV1 { by: asked.by.clone(), suspended };
    let command = call.command(Want::ConfirmClock(confirmed));
    // Recorded first: a suspension never ends without a word of who ended it.
    if let Outcome::Done(_) = call.execute_for(&asked, command).await? {
        let stopped = |_| ApiError::new(Code::Unavailable).detail("stopping");
        call.handle.confirm_clock().await.map_err(stopped)?;
    }
    Ok(HttpResponse::NoContent().finish())
}

/// A part of the entries of one kind, in the order of their ids.
fn page<T>(
    call: &Call,
    query: &PageQuery,
    kind: KeyKind,
    view: impl Fn(&Key, &Entry) -> Option<(Id, T)>,
) -> Result<Page<T>, ApiError> {
    let limit = query.limit()?;
    let (from, to) = Key::range(kind);
    let after = query.after.map(|id| match kind {
        KeyKind::Application => Key::Application(id),
        KeyKind::ApiKey => Key::ApiKey(id),
        KeyKind::Registration => Key::Registration(id),
        KeyKind::Operation => Key::Operation(id),
        KeyKind::Erasure => Key::Erasure(id),
        KeyKind::Device => Key::Device(id),
        KeyKind::Blocked => Key::Blocked(id, Id::NIL),
    });
    // The first key behind another one is that one with a zero byte.
    let from = after.map_or(from.to_vec(), |key| [&Keytrail::key_bytes(&key)[..], &[0]].concat());
    // One more than asked for tells whether there is a next page.
    let entries = call.state.scan(&from, &to, limit + 1);
    let more = entries.len() > limit;
    let mut items: Vec<_> =
        entries.iter().take(limit).filter_map(|(key, entry)| view(key, entry)).collect();
    let next = items.last().filter(|_| more).map(|(id, _)| *id);
    Ok(Page { items: items.drain(..).map(|(_, item)| item).collect(), next })
}

/// Properties as they stand in a command: each value as canonical JSON.
fn set(properties: &Properties) -> Vec<SetProperty> {
    properties.0.iter().map(|(name, value)| (name.clone(), value.to_string())).collect()
}

fn push_view(board: &push::Board) -> Option<wire::PushStatus> {
    let count = |of: &AtomicU64| of.load(Ordering::Relaxed);
    board.host.clone().map(|host| wire::PushStatus {
        host,
        queued: count(&board.queued),
        sent: count(&board.sent),
        failed: count(&board.failed),
        dropped: count(&board.dropped),
    })
}

fn anchor_view(anchor: &State) -> wire::AnchorStatus {
    wire::AnchorStatus {
        kind: match anchor.kind {
            Kind::Directory => wire::AnchorKind::Directory,
            Kind::Url => wire::AnchorKind::Url,
            Kind::Witness => wire::AnchorKind::Witness,
        },
        name: anchor.name.clone(),
        size: anchor.taken.map(|(size, _)| size),
        taken_at: anchor.taken.map(|(_, at)| Moment(at)),
        error: anchor.error.as_ref().map(ToString::to_string),
        contradicts: anchor.error.as_ref().is_some_and(AnchorError::is_alarm),
    }
}

fn api_key_view(id: Id, key: &entries::ApiKey) -> wire::ApiKey {
    let service_provider = (!key.service_provider.is_empty()).then(|| key.service_provider.clone());
    wire::ApiKey {
        api_key_id: id,
        role: key.role,
        service_provider,
        name: key.name.clone(),
        revoked: key.revoked,
        created_at: Moment(key.created_at),
    }
}

fn application_view(call: &Call, id: Id, application: &entries::Application) -> wire::Application {
    let properties = application.config.properties().into_iter();
    let refused = application.codes_refused_until > call.clock.wall();
    wire::Application {
        application_id: id,
        name: application.name.clone(),
        service_provider: application.service_provider.clone(),
        created_at: Moment(application.created_at),
        configuration_version: application.config_version,
        configuration: Properties(
            properties.map(|(name, value)| (name.to_owned(), value)).collect(),
        ),
        live_codes: application.live_codes,
        codes_refused_until: refused.then_some(Moment(application.codes_refused_until)),
    }
}
