//! The revocation list in force, read from the log once and kept.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use engine::attestation::lists::{ListName, joined};
use engine::attestation::revocation::RevocationList;
use engine::events::Event;
use engine::ids::Position;

use crate::app::App;
use crate::call::event_of;
use crate::problem::{ApiError, Code};

/// The list that was last read.
#[derive(Default)]
pub struct KeptList(Mutex<Option<(ListName, Arc<RevocationList>)>>);

impl fmt::Debug for KeptList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeptList")
    }
}

impl KeptList {
    fn kept(&self, name: ListName) -> Option<Arc<RevocationList>> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.as_ref().filter(|(kept, _)| *kept == name).map(|(_, list)| Arc::clone(list))
    }

    fn keep(&self, name: ListName, list: &Arc<RevocationList>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *kept = Some((name, Arc::clone(list)));
    }
}

/// The list that `name` names.
///
/// # Errors
///
/// [`Code::Internal`] if the log does not hold it there: state and log disagree.
pub fn list(app: &App, name: ListName) -> Result<Arc<RevocationList>, ApiError> {
    if let Some(list) = app.revocation.kept(name) {
        return Ok(list);
    }
    let read = |position: u64| {
        let record = app.log.record(Position(position));
        let record = record.map_err(|error| ApiError::new(Code::Internal).cause(error))?;
        match event_of(&record)? {
            Event::RevocationListTaken(part) => Ok((*part, record.time)),
            other => {
                let what = format!("record {position} is a {}, no part of a list", other.name());
                Err(ApiError::new(Code::Internal).cause(what))
            }
        }
    };
    let (first, taken_at) = read(name.position.0)?;
    let (last, mut parts) = (name.position.0 + u64::from(first.parts), vec![first]);
    for position in name.position.0 + 1..last {
        parts.push(read(position)?.0);
    }
    let list = joined(taken_at, &parts).ok_or_else(|| {
        ApiError::new(Code::Internal).cause("the parts of the revocation list do not fit together")
    })?;
    let list = Arc::new(list);
    app.revocation.keep(name, &list);
    Ok(list)
}
