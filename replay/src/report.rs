//! What [`verify`](crate::verify()) found, level by level.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Serialize, Serializer};

/// What a level checks, in the order in which levels are reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Frames, hashes, chain, positions, streams, commands, times, payloads.
    Records,
    /// The journal against the second copy of the log.
    Copies,
    /// The tree over the records against the checkpoint beside the log.
    Checkpoints,
    /// The same against checkpoints that an auditor kept.
    Since,
    /// Cosignatures of witnesses.
    Witnesses,
    /// Every signature, verified again.
    Signatures,
    /// The rules, applied again to every command.
    Rules,
    /// State, folded again from the log.
    Replay,
}

impl Level {
    /// All levels in order.
    pub const ALL: &'static [Self] = &[
        Self::Records,
        Self::Copies,
        Self::Checkpoints,
        Self::Since,
        Self::Witnesses,
        Self::Signatures,
        Self::Rules,
        Self::Replay,
    ];

    /// What it checks, for people.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Records => "records and chain",
            Self::Copies => "second copy",
            Self::Checkpoints => "checkpoint",
            Self::Since => "kept checkpoints",
            Self::Witnesses => "witnesses",
            Self::Signatures => "signatures",
            Self::Rules => "rules",
            Self::Replay => "replay",
        }
    }
}

/// How a level came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Everything was checked and is as it must be.
    Holds,
    /// Something is not.
    Fails,
    /// What was checked is as it must be, but damage that another level reports
    /// kept the rest from being checked.
    Incomplete,
    /// There is nothing here that this level could check. The remarks say what is missing.
    Absent,
}

/// Where something is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize)]
pub struct Place {
    /// The record concerned, or the first of those concerned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<u64>,
    /// The file, relative to the folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Offset in the file, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
}

/// Something that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Failure {
    /// Where.
    #[serde(flatten)]
    pub place: Place,
    /// What.
    pub what: String,
    /// What it means for whoever relies on the log.
    pub means: String,
}

/// What one level found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LevelReport {
    /// The level.
    pub level: Level,
    /// How it came out.
    pub outcome: Outcome,
    /// What was counted while checking, by name.
    #[serde(serialize_with = "as_map")]
    pub counts: Vec<(&'static str, u64)>,
    /// Failures in the order of the log: the first of them, see
    /// [`Options::failures_kept`](crate::verify::Options::failures_kept).
    pub failures: Vec<Failure>,
    /// Failures in all.
    pub failures_total: u64,
    /// What is no failure and should be known.
    pub remarks: Vec<String>,
}

impl LevelReport {
    /// How many of what is called `name` were counted.
    #[must_use]
    pub fn count(&self, name: &str) -> u64 {
        self.counts.iter().find(|(counted, _)| *counted == name).map_or(0, |(_, count)| *count)
    }
}

fn as_map<S: Serializer>(counts: &[(&'static str, u64)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(counts.iter().copied())
}

/// A loss of records that the log itself tells of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Epoch {
    /// Position of the record that began it.
    pub begun_at: u64,
    /// The origin line from then on.
    pub origin: String,
    /// The origin line before.
    pub previous_origin: String,
    /// First record that is lost; none if as many were left as were known, and
    /// which of them differ is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost_from: Option<u64>,
    /// Last record that is known to be lost; there may have been more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost_to: Option<u64>,
    /// Records that the last known checkpoint of what is lost covers.
    pub known_size: u64,
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { begun_at, origin, previous_origin, known_size, .. } = self;
        match (self.lost_from, self.lost_to) {
            (Some(from), Some(to)) => write!(
                f,
                "records {from} to {to} of {previous_origin} (and whatever came after) are LOST"
            )?,
            _ => write!(
                f,
                "the history of {known_size} records of {previous_origin} that was signed is LOST; this is another one"
            )?,
        }
        write!(f, "; record {begun_at} says so, and goes on as {origin}")
    }
}

/// What was found in a folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Whether every level holds that had something to check.
    pub holds: bool,
    /// The log's origin line.
    pub origin: Option<String>,
    /// Records that were read.
    pub records: u64,
    /// Chain value of the last of them, in hexadecimal.
    pub chain: String,
    /// Time of the first record, RFC 3339.
    pub first_at: Option<String>,
    /// Time of the last record, RFC 3339.
    pub last_at: Option<String>,
    /// Records by the name of their event.
    pub events: BTreeMap<&'static str, u64>,
    /// Digest of the state folded from the whole log, in hexadecimal; none where
    /// damage keeps it from being folded.
    pub state_digest: Option<String>,
    /// Where the log went on under a new origin line, without records that it had.
    pub epochs: Vec<Epoch>,
    /// The levels, in order.
    pub levels: Vec<LevelReport>,
}

impl Report {
    /// What a level found; none if it was not asked for.
    #[must_use]
    pub fn level(&self, level: Level) -> Option<&LevelReport> {
        self.levels.iter().find(|report| report.level == level)
    }
}

/// One page for people.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "log      {}", self.origin.as_deref().unwrap_or("(origin not readable)"))?;
        write!(f, "records  {}", self.records)?;
        if let (Some(first), Some(last)) = (&self.first_at, &self.last_at) {
            write!(f, ", from {first} to {last}")?;
        }
        writeln!(f, "\nchain    {}", self.chain)?;
        writeln!(f, "state    {}\n", self.state_digest.as_deref().unwrap_or("(not folded)"))?;
        for (number, level) in (1..).zip(&self.levels) {
            write_level(f, number, level)?;
        }
        let verdict = if self.holds { "every level holds" } else { "NOT every level holds" };
        writeln!(f, "\n{verdict}")?;
        self.epochs.iter().try_for_each(|epoch| writeln!(f, "but {epoch}"))
    }
}

/// Failures of one level that the page shows.
const SHOWN: usize = 8;

fn write_level(f: &mut fmt::Formatter<'_>, number: u32, level: &LevelReport) -> fmt::Result {
    let outcome = match level.outcome {
        Outcome::Holds => "holds",
        Outcome::Fails => "FAILS",
        Outcome::Incomplete => "NOT COMPLETE",
        Outcome::Absent => "nothing to check",
    };
    let counts: Vec<String> = level
        .counts
        .iter()
        .map(|(name, count)| format!("{count} {}", name.replace('_', " ")))
        .collect();
    let counts = if level.outcome == Outcome::Absent { String::new() } else { counts.join(", ") };
    let line = format!("{number}  {:18} {outcome:17} {counts}", level.level.title());
    writeln!(f, "{}", line.trim_end())?;
    for failure in level.failures.iter().take(SHOWN) {
        writeln!(f, "     {failure}")?;
    }
    let hidden = level.failures_total.saturating_sub(level.failures.len().min(SHOWN) as u64);
    if hidden > 0 {
        writeln!(f, "     and {hidden} more")?;
    }
    level.remarks.iter().try_for_each(|remark| writeln!(f, "     note: {remark}"))
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)?;
        write!(f, "\n       means: {}", self.means)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            self.position.map(|position| format!("record {position}")),
            self.file.clone(),
            self.offset.map(|offset| format!("byte {offset}")),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        f.write_str(&if parts.is_empty() { "everywhere".to_owned() } else { parts.join(", ") })
    }
}
