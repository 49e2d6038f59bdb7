//! Level 4: the rules, asked again. The records of each command must be exactly
//! what `decide` makes of that command in the state before it.

use std::panic::{AssertUnwindSafe, catch_unwind};

use engine::Keytrail;
use engine::events::Event;
use engine::inverse::command_of;
use engine::machine::{Draft, Machine};
use storage::fold::FoldedState;

use super::findings::Findings;
use super::records::{Spot, Together};
use crate::report::Place;

const AGAINST: &str = "the rules do not allow this in the state that the log had reached: \
     the records were forged, or records before them were";

/// Checks one command against the state before it.
pub(super) fn check(command: &Together, state: &FoldedState<Keytrail>, findings: &mut Findings) {
    let Some((first, spot)) = command.first() else { return };
    findings.count("commands");
    let wanted = match command_of(&command.records) {
        Ok(wanted) => wanted,
        Err(error) => {
            let means = "no command makes such records: they were forged, or some are missing";
            return findings.fail(spot.place(), error.to_string(), means);
        }
    };
    let time = first.time;
    let decided = catch_unwind(AssertUnwindSafe(|| Keytrail::decide(state, time, &wanted)));
    match decided {
        Ok(Ok(drafts)) => compare(command, &drafts, findings),
        Ok(Err(refusal)) => {
            let what = format!("{}: the rules refuse its command: {refusal:?}", name(&first.draft));
            findings.fail(spot.place(), what, AGAINST);
        }
        Err(_) => {
            let what = "the rules fail on its command";
            findings.fail(spot.place(), what, AGAINST);
        }
    }
}

fn compare(command: &Together, drafts: &[Draft], findings: &mut Findings) {
    for ((record, spot), draft) in command.iter().zip(drafts) {
        if record.draft != *draft {
            let what = difference(&record.draft, draft);
            return findings.fail(spot.place(), what, AGAINST);
        }
    }
    let last = command.spots.last().map_or_else(Place::default, Spot::place);
    if let Some(missing) = drafts.get(command.records.len()) {
        let what = format!("its command also makes {}, which does not follow", name(missing));
        findings.fail(last, what, AGAINST);
    } else if let Some((record, spot)) = command.iter().nth(drafts.len()) {
        let what = format!("its command does not make {}", name(&record.draft));
        findings.fail(spot.place(), what, AGAINST);
    }
}

/// What differs between a recorded draft and the one that the rules make.
fn difference(recorded: &Draft, decided: &Draft) -> String {
    if recorded.stream != decided.stream {
        return format!("{} is recorded in another stream than the rules say", name(recorded));
    }
    let (Ok(ours), Ok(theirs)) = (event(recorded), event(decided)) else {
        return format!("the rules make {} here", name(decided));
    };
    if ours.kind() != theirs.kind() {
        return format!("{} is recorded, the rules make {}", ours.name(), theirs.name());
    }
    let (ours_json, theirs_json) = (ours.to_json(), theirs.to_json());
    let fields: Vec<String> = ours_json
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(field, value)| theirs_json.get(field) != Some(value))
        .map(|(field, value)| format!("{field} is {value}, the rules say {}", theirs_json[field]))
        .collect();
    if fields.is_empty() {
        return format!("{}: its subject or sealed part is not as the rules make it", ours.name());
    }
    format!("{}: {}", ours.name(), fields.join("; "))
}

fn event(draft: &Draft) -> Result<Event, engine::events::EventError> {
    Event::decode(draft.event_type, draft.schema, &draft.clear)
}

fn name(draft: &Draft) -> String {
    event(draft).map_or_else(
        |_| format!("an event of type {}", draft.event_type),
        |event| event.name().to_owned(),
    )
}
