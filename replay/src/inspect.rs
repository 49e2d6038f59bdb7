//! The events of a log, one by one. Nothing in the folder is changed.

use std::ops::{ControlFlow, Range};
use std::path::Path;

use engine::events::{Event, EventError};
use engine::ids::{Id, Micros, Position};
use engine::machine::Record;
use serde_json::{Map, Value, json};
use storage::journal::{Finding, Placed};
use storage::record;

use crate::folder::{Folder, FolderError};
use crate::summary::summary;
use crate::{one_line, rfc3339};

/// Which events are wanted; the default is all of them.
#[derive(Debug, Clone)]
pub struct Filter {
    /// Positions: first included, last excluded.
    pub positions: Range<u64>,
    /// Only of these streams; empty means all.
    pub streams: Vec<Id>,
    /// Only of these types, by name; empty means all.
    pub types: Vec<String>,
    /// Not before this moment.
    pub from: Option<Micros>,
    /// Before this moment.
    pub to: Option<Micros>,
    /// At most so many.
    pub limit: Option<u64>,
}

impl Default for Filter {
    fn default() -> Self {
        Self {
            positions: 0..u64::MAX,
            streams: Vec::new(),
            types: Vec::new(),
            from: None,
            to: None,
            limit: None,
        }
    }
}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its record. The sealed part is what the log holds: encrypted.
    pub record: Record,
    /// The event, if this version can read it.
    pub event: Result<Event, EventError>,
}

impl Row {
    /// The name of the event's type; its number if the type is not known.
    #[must_use]
    pub fn name(&self) -> String {
        self.event.as_ref().map_or_else(
            |_| format!("type {}", self.record.draft.event_type),
            |event| event.name().to_owned(),
        )
    }

    /// The event as one JSON object: header fields, then the clear part under
    /// `event`. Of the sealed part only the length is given.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let Self { record, event } = self;
        let draft = &record.draft;
        let optional = |id: Id| (!id.is_nil()).then_some(id);
        let mut row = Map::new();
        let mut put = |name: &str, value: Value| row.insert(name.to_owned(), value);
        put("position", json!(record.position.0));
        put("time", json!(rfc3339(record.time)));
        put("type", json!(self.name()));
        put("schema", json!(draft.schema));
        put("stream", json!(draft.stream));
        put("stream_version", json!(record.stream_version));
        put("event_id", json!(draft.event_id));
        put("causation", json!(record.causation));
        put("correlation", json!(record.correlation));
        put("subject", json!(optional(draft.subject)));
        put("sealed_len", json!(draft.sealed.len()));
        match event {
            Ok(event) => put("event", event.to_json()),
            Err(error) => put("error", json!(error.to_string())),
        };
        Value::Object(row)
    }

    /// What the event says, on one line fit for a terminal.
    #[must_use]
    pub fn summary(&self) -> String {
        let text = self.event.as_ref().map_or_else(ToString::to_string, summary);
        one_line(&text)
    }
}

/// What came of looking.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Inspected {
    /// Events that were shown.
    pub rows: u64,
    /// What was found on the way that is not as it was written. Records there may be missing.
    pub findings: Vec<Finding>,
}

/// Findings that are kept; more say nothing more.
const FINDINGS_MAX: usize = 100;

/// Hands the events of the folder `dir` (the one that holds `log/`) that
/// `filter` lets through to `row`, in order, until that breaks off.
///
/// # Errors
///
/// [`FolderError`]. Damage is no error; it is among the findings.
pub fn inspect(
    dir: &Path,
    filter: &Filter,
    row: &mut dyn FnMut(Row) -> ControlFlow<()>,
) -> Result<Inspected, FolderError> {
    let folder = Folder::open(dir)?;
    let journal = folder.journal().map_err(FolderError::Journal)?;
    let log = dir.join("log");
    let mut inspected = Inspected::default();
    for placed in journal.placed(Position(filter.positions.start)) {
        match placed.map_err(FolderError::reading(&log))? {
            Placed::Finding(finding) => {
                if inspected.findings.len() < FINDINGS_MAX {
                    inspected.findings.push(finding);
                }
            }
            Placed::Block { block, .. } => {
                for bytes in block.records() {
                    if show(bytes, filter, &mut inspected, row).is_break() {
                        return Ok(inspected);
                    }
                }
            }
        }
    }
    Ok(inspected)
}

/// Shows a record if it is wanted; breaks where nothing that follows is.
fn show(
    bytes: &[u8],
    filter: &Filter,
    inspected: &mut Inspected,
    row: &mut dyn FnMut(Row) -> ControlFlow<()>,
) -> ControlFlow<()> {
    // A block's records have been read once by the journal's reader.
    let Ok((record, _)) = record::decode(bytes) else { return ControlFlow::Continue(()) };
    let over = record.position.0 >= filter.positions.end
        || filter.limit.is_some_and(|limit| inspected.rows >= limit);
    if over {
        return ControlFlow::Break(());
    }
    let draft = &record.draft;
    let event = Event::decode(draft.event_type, draft.schema, &draft.clear);
    let candidate = Row { event, record };
    if !wanted(&candidate, filter) {
        return ControlFlow::Continue(());
    }
    inspected.rows += 1;
    row(candidate)
}

fn wanted(row: &Row, filter: &Filter) -> bool {
    let Record { position, time, draft, .. } = &row.record;
    position.0 >= filter.positions.start
        && (filter.streams.is_empty() || filter.streams.contains(&draft.stream))
        && filter.from.is_none_or(|from| *time >= from)
        && filter.to.is_none_or(|to| *time < to)
        && (filter.types.is_empty() || filter.types.contains(&row.name()))
}
