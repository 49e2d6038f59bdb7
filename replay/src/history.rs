//! The whole history of a registration: each event, and what it left behind.
//!
//! Changes of its application's configuration belong to it, from the moment it
//! exists: they decide what its later events mean.

use std::fmt;
use std::ops::ControlFlow;
use std::path::Path;

use engine::Keytrail;
use engine::entries::Look;
use engine::events::Event;
use engine::ids::Id;
use serde_json::{Value, json};
use storage::fold::FoldedState;

use crate::inspect::Row;
use crate::moment::{RegistrationThen, registration_then};
use crate::rfc3339;
use crate::walk::{self, ReplayError};

/// An event of a registration, and the registration after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chapter {
    /// The event.
    pub row: Row,
    /// The registration once it had happened.
    pub after: RegistrationThen,
}

/// How a history was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// Chapters that were handed out.
    pub chapters: u64,
    /// What was found in the log's files and hides no record.
    pub remarks: Vec<String>,
}

/// Hands the history of `registration` in the folder `dir` to `each`, event by
/// event, until that breaks off.
///
/// # Errors
///
/// [`ReplayError`]; [`ReplayError::Unknown`] if the log never knew it.
pub fn history(
    dir: &Path,
    registration: Id,
    each: &mut dyn FnMut(Chapter) -> ControlFlow<()>,
) -> Result<History, ReplayError> {
    let mut state = FoldedState::<Keytrail>::default();
    let mut chapters = 0;
    let walked = walk::records(dir, &mut |step| {
        walk::fold(&mut state, &step.record)?;
        let look = Look(&state);
        let stream = step.record.draft.stream;
        let own = stream == registration;
        let of_application = !own
            && look.application(stream).is_some()
            && look.registration(registration).is_some_and(|known| known.application == stream);
        if !own && !of_application {
            return Ok(ControlFlow::Continue(()));
        }
        let row = step.row();
        if of_application && !matches!(row.event, Ok(Event::ConfigurationChanged(_))) {
            return Ok(ControlFlow::Continue(()));
        }
        let Some(after) = registration_then(look, registration, step.record.time) else {
            // The stream is another thing's: an application, an API key.
            return Ok(ControlFlow::Continue(()));
        };
        chapters += 1;
        Ok(each(Chapter { row, after }))
    })?;
    if chapters == 0 {
        return Err(ReplayError::Unknown { what: "registration", id: registration });
    }
    let remarks = walked.findings.iter().map(ToString::to_string).collect();
    Ok(History { chapters, remarks })
}

impl Chapter {
    /// As one JSON object: the event as `inspect` shows it, and the state after it.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut row = self.row.to_json();
        if let Some(fields) = row.as_object_mut() {
            fields.insert("after".to_owned(), json!(self.after));
        }
        row
    }
}

/// Two lines for people.
impl fmt::Display for Chapter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { row, after } = self;
        let record = &row.record;
        let (name, summary) = (row.name(), row.summary());
        let line =
            format!("{:>8}  {}  {name:22}  {summary}", record.position.0, rfc3339(record.time));
        writeln!(f, "{}", line.trim_end())?;
        write!(f, "{:>8}  -> {}", "", brief(after))
    }
}

/// A registration on one line.
fn brief(then: &RegistrationThen) -> String {
    let mut parts = vec![match then.lock_reason.or(then.deactivation_reason) {
        Some(reason) => format!("{} ({reason})", then.state),
        None => then.state.to_owned(),
    }];
    let mut keys: Vec<_> =
        then.software_keys.iter().filter_map(|key| key.method).map(str::to_owned).collect();
    if then.hardware_key.is_some() {
        keys.push("hardware key".to_owned());
    }
    parts.push(if keys.is_empty() { "no keys".to_owned() } else { keys.join(" + ") });
    if let Some(strategy) = then.strategy {
        parts.push(format!("strategy {strategy}"));
    }
    if let Some(allowed) = then.failures_allowed {
        parts.push(format!("failures {}/{allowed}", then.failures));
    }
    if let Some(activation) = &then.activation {
        parts.push(format!("activation {}", activation.state));
    }
    if !then.pending_operations.is_empty() {
        parts.push(format!("{} pending", then.pending_operations.len()));
    }
    parts.join(", ")
}
