//! Who took the log out of the house, and who read what is sealed in it.
//!
//! An export holds no plaintext, so whoever may read the folder may make one; it
//! is recorded. Opening sealed parts takes the key of an auditor, and is recorded
//! before the first part is opened.

use crate::command::Refusal;
use crate::entries::Look;
use crate::events::{DataRevealedV1, ExportMadeV1};
use crate::ids::Id;
use crate::plan::{Decided, Plan, caller, label};
use crate::reasons::UserRole;

/// Most characters of an operator's label and of the reference of a case.
pub const LABEL_MAX: usize = 64;

pub(crate) fn export(look: Look, event_id: Id, made: &ExportMadeV1) -> Decided {
    match &made.by {
        Some(by) => {
            caller(look, by, UserRole::Auditor)?;
            if !made.operator.is_empty() {
                let expected = "must be empty where an API key says who it is";
                return Err(Refusal::Invalid { field: "operator", expected });
            }
        }
        None => label("operator", &made.operator, LABEL_MAX)?,
    }
    if made.from > made.to {
        return Err(Refusal::Invalid { field: "to", expected: "must not be before from" });
    }
    Plan::new(event_id).event(Id::NIL, made.clone()).done()
}

pub(crate) fn reveal(look: Look, event_id: Id, revealed: &DataRevealedV1) -> Decided {
    caller(look, &revealed.by, UserRole::Auditor)?;
    label("case", &revealed.case, LABEL_MAX)?;
    if revealed.from > revealed.to {
        return Err(Refusal::Invalid { field: "to", expected: "must not be before from" });
    }
    Plan::new(event_id).event(Id::NIL, revealed.clone()).done()
}
