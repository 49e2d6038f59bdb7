//! Level 1: records and chain.
//!
//! Frames, group hashes, positions and the chain are checked by the journal's
//! reader; here its findings get a meaning, and what lies above single groups is
//! checked: order of time, commands, streams, payloads, the origin.

use std::sync::Arc;

use engine::events::Event;
use engine::ids::{Id, Micros, Position};
use engine::machine::{Record, StreamHead};
use storage::journal::{Damage, Finding};

use super::findings::Findings;
use crate::report::{Level, LevelReport, Outcome, Place};

/// Where a record stands: in the files, and on the chain.
#[derive(Debug, Clone)]
pub(super) struct Spot {
    /// Its file, relative to the folder.
    pub(super) file: Arc<str>,
    /// Offset of its frame, in bytes.
    pub(super) offset: u64,
    /// Its position.
    pub(super) position: u64,
    /// Chain value before it.
    pub(super) prev: [u8; 32],
}

impl Spot {
    /// As it is named in a report.
    pub(super) fn place(&self) -> Place {
        Place {
            position: Some(self.position),
            file: Some(self.file.to_string()),
            offset: Some(self.offset),
        }
    }
}

/// The records of one command, and where each stands.
#[derive(Default)]
pub(super) struct Together {
    pub(super) records: Vec<Record>,
    pub(super) spots: Vec<Spot>,
}

impl Together {
    /// Whether `record` comes next in this command.
    pub(super) fn is_continued_by(&self, record: &Record) -> bool {
        let Some(first) = self.records.first() else { return true };
        u8::try_from(self.records.len()).is_ok_and(|index| {
            record.causation == first.causation
                && record.draft.event_id == first.draft.event_id.nth(index)
        })
    }

    /// The first record and where it stands.
    pub(super) fn first(&self) -> Option<(&Record, &Spot)> {
        self.iter().next()
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Record, &Spot)> {
        self.records.iter().zip(&self.spots)
    }
}

const FORGED: &str =
    "the record was not written by keytrail, or was changed and its hashes with it";

/// Checks what level 1 is about.
pub(super) struct Records {
    pub(super) findings: Findings,
    /// Whether nothing can have been left by a crash.
    stopped_cleanly: bool,
    last_time: Micros,
}

impl Records {
    pub(super) fn new(findings: Findings, stopped_cleanly: bool) -> Self {
        Self { findings, stopped_cleanly, last_time: Micros(0) }
    }

    /// Takes note of files in `log/` that are no part of the log.
    pub(super) fn strangers(&mut self, names: &[String]) {
        for name in names {
            let what = if name.ends_with(".damaged") {
                "what stood in a segment before the server repaired it from the second copy"
            } else {
                "no part of the log, and not looked at"
            };
            self.findings.remarks.push(format!("log/{name}: {what}"));
        }
    }

    /// Takes in what the journal's reader found beside whole groups.
    pub(super) fn found(&mut self, finding: &Finding, file: String) {
        let place = Place {
            position: Some(finding.position.0),
            file: Some(file),
            offset: Some(finding.offset),
        };
        if finding.what.is_damage() {
            self.findings.fail(place, finding.what.to_string(), meaning(&finding.what));
        } else if self.stopped_cleanly && matches!(finding.what, Damage::Torn { .. }) {
            let means = "the store was stopped cleanly, which leaves no unfinished group: \
                 the latest records are damaged, or bytes were added";
            self.findings.fail(place, "bytes after the last whole group", means);
        } else {
            let means = meaning(&finding.what);
            self.findings.remarks.push(format!("{place}: {}; {means}", finding.what));
        }
    }

    /// Checks one record by itself and after those before it, and decodes it.
    pub(super) fn record(&mut self, record: &Record, spot: &Spot, origin: &str) -> Option<Event> {
        self.findings.count("records");
        if record.time < self.last_time {
            self.findings.fail(
                spot.place(),
                "its time is before that of the record before",
                FORGED,
            );
        }
        self.last_time = self.last_time.max(record.time);
        let draft = &record.draft;
        if draft.sealed.is_empty() != draft.subject.is_nil() {
            let what = "it names a subject without a sealed part, or seals for nobody";
            self.findings.fail(spot.place(), what, FORGED);
        }
        match Event::decode(draft.event_type, draft.schema, &draft.clear) {
            Ok(event) => {
                self.origin(&event, spot, origin);
                Some(event)
            }
            Err(error) => {
                let means = "this version of keytrail cannot read the record: it is forged, \
                     or written by a newer version";
                self.findings.fail(spot.place(), error.to_string(), means);
                None
            }
        }
    }

    fn origin(&mut self, event: &Event, spot: &Spot, origin: &str) {
        if spot.position != 0 {
            return;
        }
        let means = "the log does not begin as the log of this origin does";
        match event {
            Event::LogStarted(started) if started.origin == origin => (),
            Event::LogStarted(started) => {
                let what = format!("the log began under the origin {:?}", started.origin);
                self.findings.fail(spot.place(), what, means);
            }
            other => {
                let what = format!("the first record is {}", other.name());
                self.findings.fail(spot.place(), what, means);
            }
        }
    }

    /// Checks that the records of one command belong together.
    pub(super) fn command(&mut self, command: &Together) {
        let Some((first, spot)) = command.first() else { return };
        self.findings.count("commands");
        if first.draft.event_id != first.draft.event_id.first_of_command() {
            let what = "its event id does not begin a command and does not continue the one before";
            let means = "a record before it is missing, or records changed their order";
            self.findings.fail(spot.place(), what, means);
        }
        let apart = |(record, _): &(&Record, &Spot)| {
            record.time != first.time || record.correlation != first.correlation
        };
        if let Some((_, spot)) = command.iter().find(apart) {
            let what = "its time or correlation is not that of its command";
            self.findings.fail(spot.place(), what, FORGED);
        }
    }

    /// Checks the place of a record in its stream, which stands at `head`.
    pub(super) fn stream(&mut self, record: &Record, spot: &Spot, head: StreamHead) {
        let Record { stream_version, stream_prev, .. } = record;
        if *stream_version == head.version && *stream_prev == head.last {
            return;
        }
        let prev = |position: Option<Position>| {
            position.map_or_else(|| "none".to_owned(), |position| position.0.to_string())
        };
        let what = format!(
            "it says version {stream_version} of its stream, after record {}; \
             the stream is at version {}, after record {}",
            prev(*stream_prev),
            head.version,
            prev(head.last),
        );
        let means = "a record of this stream was removed, added or moved";
        self.findings.fail(spot.place(), what, means);
    }

    /// The command at `again` has the event ids of the one at `first`.
    pub(super) fn repeated(&mut self, id: Id, first: u64, again: u64) {
        let place = Place { position: Some(again), ..Place::default() };
        let what = format!("event id {id} is that of record {first} too");
        let means = "one of the two was forged: no event id is given out twice";
        self.findings.fail(place, what, means);
    }

    pub(super) fn report(self) -> LevelReport {
        self.findings.report(Level::Records, Outcome::Holds)
    }
}

/// What damage in the journal means.
fn meaning(damage: &Damage) -> &'static str {
    match damage {
        Damage::Header => "none of the segment's records can be read",
        Damage::HeaderCopy => "one of two equal copies was changed; no record is affected",
        Damage::OtherLog => "the segment, or the origin file, is not of this log",
        Damage::Name { .. } => "the file was renamed, or stands in another's place",
        Damage::Link => "records before this place were removed, added or replaced",
        Damage::Rubbish { .. } | Damage::Payload { .. } | Damage::Records(_) => {
            "records that were acknowledged are damaged here"
        }
        Damage::Missing { .. } | Damage::SegmentMissing { .. } => {
            "records that were acknowledged are missing"
        }
        Damage::Truncated { .. } => {
            "the file was cut; whether records were in that part is not known"
        }
        Damage::Seal => "the segment, or its seal, was changed after it was complete",
        Damage::Overlap => "records stand here twice",
        Damage::NotSealed => "a process died while it sealed; nothing is lost",
        Damage::Torn { .. } => {
            "a group that was never acknowledged, as a crash leaves it; or, if there was no crash, \
             the damaged end of the log: only the second copy or a head kept elsewhere tells which"
        }
    }
}
