//! The log as evidence, for auditors; and receipts, for service providers.

use std::sync::Arc;
use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::http::header::ContentType;
use actix_web::web::{self, Path, Query};
use engine::events::{Event, REGISTRY};
use engine::ids::{Id, Micros, Position};
use engine::machine::Record;
use replay::inspect::Row;
use replay::proof::Receipt;
use serde::{Deserialize, Serialize};
use storage::merkle::{TILE_WIDTH, TileId};
use storage::reader::LogReader;
use utoipa::{IntoParams, ToSchema};

use super::activations::own_application;
use crate::auth::roles::{Auditor, ServiceProvider};
use crate::call::Call;
use crate::problem::{ApiError, Code};

/// A receipt with the record in it is no longer than this, in bytes; a longer
/// one leaves the record out.
const RECEIPT_WITH_RECORD_MAX: usize = 3 * 1024;
/// Records that are read at a time.
const STEP: usize = 1_024;
/// Events in a page unless the request says otherwise, and at most.
const PAGE: usize = 1_000;
/// Records that one request for events reads at most.
const READ_MAX: usize = 20_000;
/// Longest wait for a new event, in seconds.
const WAIT_S_MAX: u64 = 30;

/// Returns the latest checkpoint.
///
/// A signed note (C2SP tlog-checkpoint): origin, size, root, signature. Keep it:
/// whoever holds one can show every later change of what it covers.
#[utoipa::path(
    get, path = "/audit/v1/checkpoint", tag = "audit", operation_id = "checkpoint",
    responses((status = 200, description = "The checkpoint.", body = String, content_type = "text/plain")),
)]
pub async fn checkpoint(call: Call, _caller: Auditor) -> Result<HttpResponse, ApiError> {
    let latest = call.evidence.latest().ok_or(Code::NotYetSigned)?;
    Ok(HttpResponse::Ok().content_type(ContentType::plaintext()).body(latest.note.to_string()))
}

/// Returns the latest checkpoint that witnesses have cosigned.
///
/// As the latest checkpoint, with a line for each witness that has answered
/// (C2SP tlog-cosignature). It is some seconds older. Where no witness is
/// configured, or none has answered since the start, there is none.
#[utoipa::path(
    get, path = "/audit/v1/checkpoint/cosigned", tag = "audit", operation_id = "cosigned_checkpoint",
    responses((status = 200, description = "The checkpoint.", body = String, content_type = "text/plain")),
)]
pub async fn cosigned_checkpoint(call: Call, _caller: Auditor) -> Result<HttpResponse, ApiError> {
    let cosigned = call.anchors.latest_cosigned().ok_or(Code::NotYetSigned)?;
    Ok(HttpResponse::Ok().content_type(ContentType::plaintext()).body(cosigned.note.to_string()))
}

/// Returns the public half of the key that signs checkpoints.
///
/// As a verifier key (C2SP signed-note). Take it once, over a way that you
/// trust, and keep it: later checkpoints and receipts are checked with it.
#[utoipa::path(
    get, path = "/audit/v1/checkpoint-key", tag = "audit", operation_id = "checkpoint_key",
    responses((status = 200, description = "The verifier key.", body = String, content_type = "text/plain")),
)]
pub async fn checkpoint_key(call: Call, _caller: Auditor) -> Result<HttpResponse, ApiError> {
    let key = format!("{}\n", call.evidence.verifier());
    Ok(HttpResponse::Ok().content_type(ContentType::plaintext()).body(key))
}

/// Returns a tile of the tree, or a bundle of records.
///
/// Paths as C2SP tlog-tiles lays down: `<L>/<N>[.p/<W>]` for hashes and
/// `entries/<N>[.p/<W>]` for records, where an index such as 1234067 is
/// written `x001/x234/067`.
#[utoipa::path(
    get, path = "/audit/v1/tile/{tile}", tag = "audit", operation_id = "tile",
    params(("tile" = String, Path, description = "Which tile or bundle; may have slashes.")),
    responses((status = 200, description = "Hashes of 32 bytes, or records, each behind its length.", body = Vec<u8>, content_type = "application/octet-stream")),
)]
pub async fn tile(
    call: Call,
    _caller: Auditor,
    path: Path<String>,
) -> Result<HttpResponse, ApiError> {
    let wanted = Wanted::parse(&path).ok_or(Code::NotFound)?;
    let bytes = match wanted.level {
        Some(level) => {
            let id = TileId { level, index: wanted.index };
            let hashes = call.evidence.tile(id, wanted.width).map_err(|_| Code::NotFound)?;
            hashes.concat()
        }
        None => bundle(&call, &wanted)?,
    };
    Ok(HttpResponse::Ok().content_type(ContentType::octet_stream()).body(bytes))
}

/// Returns the receipt of an event.
///
/// A self-contained proof (C2SP tlog-proof) that the event stands in the log:
/// the record itself as extra data where the whole has at most 3 KB, its
/// place, the path to the root, and a signed checkpoint. `keytrail receipt`
/// checks it with the public key alone.
#[utoipa::path(
    get, path = "/audit/v1/receipt/{event}", tag = "audit", operation_id = "receipt",
    params(("event" = String, Path, description = "Id of the event, or its position in the log.")),
    responses((status = 200, description = "The receipt.", body = String, content_type = "text/plain")),
)]
pub async fn receipt(
    call: Call,
    _caller: Auditor,
    event: Path<String>,
) -> Result<HttpResponse, ApiError> {
    let position = match event.parse::<u64>() {
        Ok(position) => position,
        Err(_) => {
            let id: Id = event.parse().map_err(|_| Code::NotFound)?;
            let log = call.log.clone();
            let found = aside(move || log.find(id).map_err(unreadable)).await?;
            found.ok_or(Code::NotFound)?.0
        }
    };
    receipt_of(&call, position)
}

/// Returns the receipt of the last answer to an operation.
///
/// Store it beside the payment: it can be checked years later, without this
/// server, with one public key.
#[utoipa::path(
    get, path = "/v1/operations/{id}/receipt", tag = "operations", operation_id = "operation_receipt",
    params(("id" = String, Path, description = "Id of the operation.")),
    responses((status = 200, description = "The receipt.", body = String, content_type = "text/plain")),
)]
pub async fn operation_receipt(
    call: Call,
    caller: ServiceProvider,
    id: Path<Id>,
) -> Result<HttpResponse, ApiError> {
    let operation = call.look().operation(*id).ok_or(Code::NotFound)?;
    own_application(&call, &caller, operation.application)?;
    let attempt = operation.attempts.last().ok_or(Code::NotFound)?;
    receipt_of(&call, attempt.position.0)
}

/// Which events.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct EventsQuery {
    /// Begin at this position: `next` of the page before. 0 if absent.
    pub from: Option<u64>,
    /// Events in the page, 1 to 1,000; 1,000 if absent.
    #[param(minimum = 1, maximum = 1000)]
    pub limit: Option<usize>,
    /// Only events of this type, such as `AuthenticationJudged`.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// Only events of this stream: a registration, an application, an API key.
    #[param(value_type = Option<String>)]
    pub stream: Option<Id>,
    /// Only events at or after this time, RFC 3339.
    pub since: Option<String>,
    /// Only events before this time, RFC 3339.
    pub until: Option<String>,
    /// Seconds to wait for an event if there is none yet, 0 to 30; 0 if absent.
    #[param(minimum = 0, maximum = 30)]
    pub wait_s: Option<u64>,
}

/// A part of the log.
#[derive(Debug, Serialize, ToSchema)]
pub struct Events {
    /// The events, as `keytrail inspect --json` shows them: without what is sealed.
    #[schema(value_type = Vec<Object>)]
    pub items: Vec<serde_json::Value>,
    /// Value of `from` for the next part. Where the log ends, the next event gets it.
    pub next: u64,
    /// Where the log ends now.
    pub end: u64,
}

/// Returns events in the order of the log.
///
/// To follow the log, ask again from `next`, with `wait_s`. A page may hold
/// fewer events than asked for, or none, although the log goes on: ask on
/// until `next` is `end`.
#[utoipa::path(
    get, path = "/audit/v1/events", tag = "audit", operation_id = "events",
    params(EventsQuery),
    responses((status = 200, description = "A part of the log.", body = Events)),
)]
pub async fn events(
    call: Call,
    _caller: Auditor,
    query: Query<EventsQuery>,
) -> Result<HttpResponse, ApiError> {
    let limit = query.limit.unwrap_or(PAGE);
    let wait_s = query.wait_s.unwrap_or(0);
    if !(1..=PAGE).contains(&limit) || wait_s > WAIT_S_MAX {
        let words = "limit must be from 1 to 1000, and wait_s from 0 to 30";
        return Err(ApiError::new(Code::BadRequest).detail(words));
    }
    if let Some(kind) = &query.kind
        && !REGISTRY.iter().any(|(_, _, name)| name == kind)
    {
        return Err(ApiError::new(Code::BadRequest).detail("there is no event of this type"));
    }
    let during = During::of(&query)?;
    let from = query.from.unwrap_or(0);
    await_event(&call, from, wait_s).await;
    let (log, query) = (call.log.clone(), query.into_inner());
    let page = aside(move || page_of(&log, &query, &during, from, limit)).await?;
    Ok(HttpResponse::Ok().json(page))
}

/// Events from `from` on, at most `limit`.
fn page_of(
    log: &LogReader,
    query: &EventsQuery,
    during: &During,
    from: u64,
    limit: usize,
) -> Result<Events, ApiError> {
    let end = log.head().size;
    let mut page = Events { items: Vec::new(), next: during.first(log, from, end)?, end };
    let mut read = 0;
    while page.items.len() < limit && read < READ_MAX && page.next < page.end {
        let records = log.read(Position(page.next), STEP).map_err(unreadable)?;
        read += records.len();
        for record in records {
            if page.items.len() == limit {
                break;
            }
            if during.until.is_some_and(|until| record.time >= until) {
                // Times never decrease: nothing that follows is wanted.
                page.next = page.end;
                break;
            }
            page.next = record.position.0 + 1;
            if wanted(&record, query) {
                page.items.push(shown(&record));
            }
        }
    }
    Ok(page)
}

/// The times that are asked for.
struct During {
    since: Option<Micros>,
    until: Option<Micros>,
}

impl During {
    fn of(query: &EventsQuery) -> Result<Self, ApiError> {
        let moment = |text: &Option<String>| match text.as_deref() {
            None => Ok(None),
            Some(text) => replay::micros_of(text).map(Some).ok_or_else(|| {
                ApiError::new(Code::BadRequest).detail("since and until must be RFC 3339")
            }),
        };
        Ok(Self { since: moment(&query.since)?, until: moment(&query.until)? })
    }

    /// The first record from `from` on that is not before the time; `end` if there
    /// is none. Times never decrease, so halving finds it.
    fn first(&self, log: &LogReader, from: u64, end: u64) -> Result<u64, ApiError> {
        let Some(since) = self.since else { return Ok(from) };
        let (mut low, mut high) = (from, end.max(from));
        while low < high {
            let middle = low + (high - low) / 2;
            let records = log.read(Position(middle), 1).map_err(unreadable)?;
            match records.first() {
                Some(record) if record.time < since => low = middle + 1,
                Some(_) | None => high = middle,
            }
        }
        Ok(low)
    }
}

/// Reads many records on a thread for such work: log-ins are served meanwhile.
async fn aside<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let done = web::block(read).await;
    done.map_err(|error| ApiError::new(Code::Internal).cause(error))?
}

/// Waits until the log reaches beyond `from`, at most so long.
async fn await_event(call: &Call, from: u64, wait_s: u64) {
    let mut head = call.log.watch();
    let beyond = head.wait_for(|head| head.size > from);
    // Too late or stopping: what is there is the answer.
    let _ = tokio::time::timeout(Duration::from_secs(wait_s), beyond).await;
}

fn wanted(record: &Record, query: &EventsQuery) -> bool {
    let of_stream = query.stream.is_none_or(|stream| record.draft.stream == stream);
    let name = REGISTRY
        .iter()
        .find(|(number, schema, _)| {
            (*number, *schema) == (record.draft.event_type, record.draft.schema)
        })
        .map(|(_, _, name)| *name);
    of_stream && query.kind.as_deref().is_none_or(|kind| name == Some(kind))
}

fn shown(record: &Arc<Record>) -> serde_json::Value {
    let draft = &record.draft;
    let event = Event::decode(draft.event_type, draft.schema, &draft.clear);
    Row { record: Record::clone(record), event }.to_json()
}

fn unreadable(error: storage::reader::ReadError) -> ApiError {
    ApiError::new(Code::Internal).cause(error)
}

fn receipt_of(call: &Call, position: u64) -> Result<HttpResponse, ApiError> {
    if position >= call.log.head().size {
        return Err(Code::NotFound.into());
    }
    let not_yet = || ApiError::new(Code::NotYetSigned).retry_after_s(1);
    // A cosigned checkpoint is a little older, and worth more.
    let cosigned = call.anchors.latest_cosigned();
    let (size, note) = match cosigned.filter(|cosigned| position < cosigned.checkpoint.size) {
        Some(cosigned) => (cosigned.checkpoint.size, cosigned.note.clone()),
        None => {
            let latest = call.evidence.latest().ok_or_else(not_yet)?;
            (latest.checkpoint.size, latest.note.clone())
        }
    };
    if position >= size {
        return Err(not_yet());
    }
    let record = call.log.raw(Position(position)).map_err(unreadable)?;
    let proof = call
        .evidence
        .inclusion_proof(position, size)
        .map_err(|error| ApiError::new(Code::Internal).cause(error))?;
    let mut receipt = Receipt { record: Some(record), index: position, proof, note };
    // Damage of the tree's files must not leave the house as evidence.
    let checked = receipt.check(call.evidence.verifier_for(size), None);
    checked.map_err(|error| ApiError::new(Code::Internal).cause(error))?;
    let mut text = receipt.text();
    if text.len() > RECEIPT_WITH_RECORD_MAX {
        receipt.record = None;
        text = receipt.text();
    }
    Ok(HttpResponse::Ok().content_type(ContentType::plaintext()).body(text))
}

/// What a path under `/audit/v1/tile/` asks for.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    /// None for records.
    level: Option<u8>,
    index: u64,
    width: u64,
}

impl Wanted {
    fn parse(path: &str) -> Option<Self> {
        let (level, rest) = path.split_once('/')?;
        let level = match level {
            "entries" => None,
            level => Some(canonical(level).filter(|level| *level < 64)? as u8),
        };
        let (index, width) = match rest.split_once(".p/") {
            Some((index, width)) => {
                (index, canonical(width).filter(|width| (1..TILE_WIDTH).contains(width))?)
            }
            None => (rest, TILE_WIDTH),
        };
        Some(Self { level, index: tile_index(index)?, width })
    }
}

/// A decimal number without leading zeros.
fn canonical(text: &str) -> Option<u64> {
    let number: u64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

/// An index in groups of three digits, all but the last behind an `x`.
fn tile_index(text: &str) -> Option<u64> {
    let groups: Vec<_> = text.split('/').collect();
    let (last, others) = groups.split_last()?;
    let digits = |group: &str| {
        let three = group.len() == 3 && group.bytes().all(|digit| digit.is_ascii_digit());
        three.then(|| group.parse::<u64>().ok())?
    };
    let mut index: u64 = 0;
    for group in others {
        index = index.checked_mul(1_000)?.checked_add(digits(group.strip_prefix('x')?)?)?;
    }
    // One spelling for each index.
    if !others.is_empty() && index == 0 || others.first() == Some(&"x000") {
        return None;
    }
    index.checked_mul(1_000)?.checked_add(digits(last)?)
}

/// Records below the latest checkpoint, each behind its length in two bytes.
fn bundle(call: &Call, wanted: &Wanted) -> Result<Vec<u8>, ApiError> {
    let size = call.evidence.latest().map_or(0, |guard| guard.checkpoint.size);
    let first = wanted.index.checked_mul(TILE_WIDTH).ok_or(Code::NotFound)?;
    let end = first.checked_add(wanted.width).filter(|end| *end <= size).ok_or(Code::NotFound)?;
    let mut bytes = Vec::new();
    let mut position = first;
    while position < end {
        let left = (end - position) as usize;
        for record in call.log.encoded(Position(position), left).map_err(unreadable)? {
            let length = u16::try_from(record.len())
                .map_err(|error| ApiError::new(Code::Internal).cause(error))?;
            bytes.extend_from_slice(&length.to_be_bytes());
            bytes.extend_from_slice(&record);
            position += 1;
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tile_paths_have_one_spelling() {
        let wanted = |level, index, width| Some(Wanted { level, index, width });
        assert_eq!(Wanted::parse("0/000"), wanted(Some(0), 0, 256));
        assert_eq!(Wanted::parse("3/x001/x234/067"), wanted(Some(3), 1_234_067, 256));
        assert_eq!(Wanted::parse("entries/x001/000.p/7"), wanted(None, 1_000, 7));
        for bad in [
            "",
            "0",
            "0/",
            "0/0",
            "0/00",
            "0/0000",
            "00/000",
            "64/000",
            "-1/000",
            "+1/000",
            "0/x000/000",
            "0/x001",
            "0/001/000",
            "0/x001/x000",
            "0/000.p/0",
            "0/000.p/256",
            "0/000.p/01",
            "0/000.p/",
            "0/000.p/1/2",
            "entries",
            "entry/000",
            "0/x000/x001/000",
            "0/x999/x999/x999/x999/x999/x999/999",
        ] {
            assert_eq!(Wanted::parse(bad), None, "{bad}");
        }
    }
}
