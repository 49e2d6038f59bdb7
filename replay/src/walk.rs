//! One walk over a folder's log, record by record and command by command.
//!
//! What is folded must not have holes, so a walk ends with an error where
//! records are missing; damage that leaves all records readable is handed back
//! beside the result. Nothing in the folder is changed. Memory: one group, or
//! the records of one command.

use std::ops::ControlFlow;
use std::path::Path;

use engine::Keytrail;
use engine::config::ConfigError;
use engine::events::{Event, EventError};
use engine::ids::{Micros, Position};
use engine::inverse::InverseError;
use engine::machine::Record;
use storage::block::genesis;
use storage::fold::{FoldedState, Gap};
use storage::journal::{Damage, Finding, Placed};
use storage::record;

use crate::folder::{Folder, FolderError};
use crate::inspect::Row;

/// Why the log could not be followed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The folder cannot be read.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// Records are missing or damaged; what follows them cannot be folded.
    #[error("the log cannot be followed beyond record {}: {}; run keytrail verify", position.0, causes(findings))]
    Hole {
        /// The log's origin line.
        origin: String,
        /// The first record that is not there.
        position: Position,
        /// What is wrong with the files.
        findings: Vec<Finding>,
    },
    /// A record holds no event that this version knows.
    #[error("record {}: {source}", position.0)]
    Event {
        /// The record.
        position: Position,
        /// Why.
        #[source]
        source: EventError,
    },
    /// Records that no command makes.
    #[error("record {}: {source}; run keytrail verify", position.0)]
    Command {
        /// The first of them.
        position: Position,
        /// Why.
        #[source]
        source: InverseError,
    },
    /// An application cannot have such a configuration.
    #[error("application {application}, record {}: {}", position.0, listed(errors))]
    Configuration {
        /// The application.
        application: engine::ids::Id,
        /// Where the two would have met.
        position: Position,
        /// Everything that is wrong.
        errors: Vec<ConfigError>,
    },
    /// The log is not that long.
    #[error("there is no record at position {}: the log has {records} records", position.0)]
    Beyond {
        /// What was asked for.
        position: Position,
        /// How many there are.
        records: u64,
    },
    /// Nothing of this id is in the log by then.
    #[error("the log knows no {what} {id} at that time")]
    Unknown {
        /// What was asked for.
        what: &'static str,
        /// Its id.
        id: engine::ids::Id,
    },
    /// The result cannot be written.
    #[error("{what}: {source}")]
    Write {
        /// What was tried.
        what: String,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
}

fn listed(errors: &[ConfigError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

fn causes(findings: &[Finding]) -> String {
    if findings.is_empty() {
        return "records are missing".to_owned();
    }
    findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl ReplayError {
    /// Whether the log is damaged, rather than out of reach.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Hole { .. } | Self::Event { .. } | Self::Command { .. } => true,
            Self::Folder(_)
            | Self::Configuration { .. }
            | Self::Beyond { .. }
            | Self::Unknown { .. }
            | Self::Write { .. } => false,
        }
    }
}

/// A moment of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// When everything up to and including this time had happened.
    Time(Micros),
    /// When the record at this position had been written.
    Position(Position),
}

impl At {
    /// Whether `record` stands at or after it.
    #[must_use]
    pub fn is_reached_by(self, record: &Record) -> bool {
        match self {
            Self::Time(time) => record.time >= time,
            Self::Position(position) => record.position >= position,
        }
    }

    /// Whether `record` had been written by then.
    #[must_use]
    pub fn includes(self, record: &Record) -> bool {
        match self {
            Self::Time(time) => record.time <= time,
            Self::Position(position) => record.position <= position,
        }
    }
}

/// A record as the walk hands it out.
pub(crate) struct Step<'a> {
    /// The record's bytes, as they stand in the log.
    pub(crate) bytes: &'a [u8],
    /// The record.
    pub(crate) record: Record,
    /// Chain value before it.
    pub(crate) prev: [u8; 32],
}

impl Step<'_> {
    /// The record with its event read.
    pub(crate) fn row(&self) -> Row {
        let draft = &self.record.draft;
        let event = Event::decode(draft.event_type, draft.schema, &draft.clear);
        Row { event, record: self.record.clone() }
    }
}

/// Whether a walk goes on.
pub(crate) type Going = Result<ControlFlow<()>, ReplayError>;

/// How a walk ended.
#[derive(Debug, Clone)]
pub(crate) struct Walked {
    /// The log's origin line.
    pub(crate) origin: String,
    /// What was found that is not as it was written, and hides no record.
    pub(crate) findings: Vec<Finding>,
}

/// Hands every record from the first on to `each`, until that breaks off.
///
/// # Errors
///
/// [`ReplayError::Hole`] at the first record that is missing, and what `each` says.
pub(crate) fn records(
    dir: &Path,
    each: &mut dyn FnMut(&Step) -> Going,
) -> Result<Walked, ReplayError> {
    let folder = Folder::open(dir)?;
    let journal = folder.journal().map_err(FolderError::Journal)?;
    let log = dir.join("log");
    let mut walked = Walked { origin: journal.origin().to_owned(), findings: Vec::new() };
    let (mut next, mut chain) = (Position(0), genesis(journal.origin()));
    for placed in journal.placed(Position(0)) {
        let block = match placed.map_err(FolderError::reading(&log))? {
            Placed::Finding(finding) => {
                walked.findings.push(finding);
                continue;
            }
            Placed::Block { block, .. } => block,
        };
        for bytes in block.records() {
            let Ok((record, prev)) = record::decode(bytes) else { return Err(hole(next, walked)) };
            // A block may stand alone in its place; the chain says that it belongs there.
            if record.position != next || prev != chain {
                return Err(hole(next, walked));
            }
            if each(&Step { bytes, record, prev })?.is_break() {
                return Ok(walked);
            }
            next.0 += 1;
            chain = record::chain(bytes);
        }
    }
    // At the end nothing that follows shows whether records are missing.
    if walked.findings.iter().any(|finding| hides_records(&finding.what)) {
        return Err(hole(next, walked));
    }
    Ok(walked)
}

/// Whether records can be missing where this was found.
fn hides_records(damage: &Damage) -> bool {
    match damage {
        Damage::HeaderCopy
        | Damage::Link
        | Damage::Seal
        | Damage::NotSealed
        | Damage::Torn { .. } => false,
        Damage::Header
        | Damage::OtherLog
        | Damage::Name { .. }
        | Damage::Rubbish { .. }
        | Damage::Payload { .. }
        | Damage::Records(_)
        | Damage::Missing { .. }
        | Damage::SegmentMissing { .. }
        | Damage::Truncated { .. }
        | Damage::Overlap => true,
    }
}

fn hole(position: Position, walked: Walked) -> ReplayError {
    ReplayError::Hole { origin: walked.origin, position, findings: walked.findings }
}

/// Hands every command, as its records, to `each`, until that breaks off.
///
/// # Errors
///
/// As [`records`].
pub(crate) fn commands(
    dir: &Path,
    each: &mut dyn FnMut(&[Record]) -> Going,
) -> Result<Walked, ReplayError> {
    let mut command: Vec<Record> = Vec::new();
    let mut over = false;
    let walked = records(dir, &mut |step| {
        if !continues(&command, &step.record) {
            over = each(&command)?.is_break();
            command.clear();
            if over {
                return Ok(ControlFlow::Break(()));
            }
        }
        command.push(step.record.clone());
        Ok(ControlFlow::Continue(()))
    })?;
    if !over && !command.is_empty() {
        // The last one: there is nothing left to break off.
        let _ = each(&command)?;
    }
    Ok(walked)
}

/// Whether `record` comes next among the records of one command.
pub(crate) fn continues(command: &[Record], record: &Record) -> bool {
    let Some(first) = command.first() else { return true };
    u8::try_from(command.len()).is_ok_and(|index| {
        record.causation == first.causation
            && record.draft.event_id == first.draft.event_id.nth(index)
    })
}

/// Folds one record of a walk, which has no gaps.
pub(crate) fn fold(state: &mut FoldedState<Keytrail>, record: &Record) -> Result<(), ReplayError> {
    state.apply(record).map_err(|Gap { expected, .. }| ReplayError::Hole {
        origin: String::new(),
        position: expected,
        findings: Vec::new(),
    })
}
