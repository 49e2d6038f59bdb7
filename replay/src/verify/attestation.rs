//! Level 9: verdicts on attestation evidence, repeated.
//!
//! Evidence is opened with the subject's key and judged again: at the recorded
//! time, under the policy and the revocation list that were in force. Verdict,
//! facts and the names of certificates must be the recorded ones, byte for byte.
//! The rules are the server's own code; what differs is who asks, and when.
//!
//! Without its key evidence stays sealed, and after an erasure there is none:
//! two states that are counted, and no failures.

use std::collections::BTreeMap;

use engine::Keytrail;
use engine::attestation::Reason;
use engine::attestation::lists::{ListName, joined};
use engine::attestation::recorded::{Given, Recorded, verdict};
use engine::attestation::revocation::RevocationList;
use engine::codec;
use engine::entries::{Application, Look};
use engine::events::{Event, EvidenceJudgedV1, RevocationListTakenV1};
use engine::ids::{Id, Position};
use engine::machine::Record;
use engine::transcript::Content;
use storage::fold::FoldedState;

use super::Options;
use super::findings::Findings;
use super::records::{Spot, Together};
use crate::evidence::{Keys, Opened};
use crate::folder::{Folder, FolderError};
use crate::report::{Level, LevelReport, Outcome};

const EVIDENCE: &str = "evidence";
const REPEATED: &str = "repeated";
const SEALED: &str = "sealed";
const ERASED: &str = "erased";

const NOT_TRUE: &str = "what the record says of this evidence is not true: the server erred, \
     or the record was forged";
const CHANGED: &str =
    "the evidence is not what the device sent, so nothing vouches for the verdict";

/// Repeats verdicts while the log is read.
pub(super) struct Attestation {
    findings: Findings,
    keys: Keys,
    lists: Lists,
    /// Evidence that no key opened, by whose it is.
    unopened: BTreeMap<Id, u64>,
}

impl Attestation {
    /// Opens the key store, if there is one.
    pub(super) fn open(folder: &Folder, options: &Options) -> Result<Self, FolderError> {
        let counted = [EVIDENCE, REPEATED, SEALED, ERASED];
        let keys = match options.through >= Level::Attestation {
            true => Keys::open(&folder.keys(), options.keys.as_deref())?,
            false => Keys::None("not asked for".into()),
        };
        Ok(Self {
            findings: Findings::new(options.failures_kept, &counted),
            keys,
            lists: Lists::default(),
            unopened: BTreeMap::new(),
        })
    }

    /// Repeats what a command judged, in the state before it.
    pub(super) fn check(&mut self, command: &Together, state: &FoldedState<Keytrail>) {
        for (record, spot) in command.iter() {
            let draft = &record.draft;
            // What cannot be decoded is reported with the records.
            match Event::decode(draft.event_type, draft.schema, &draft.clear) {
                Ok(Event::RevocationListTaken(part)) => self.lists.part(record, *part),
                Ok(event) => self.event(record, spot, &event, Look(state)),
                Err(_) => (),
            }
        }
    }

    fn event(&mut self, record: &Record, spot: &Spot, event: &Event, look: Look) {
        let Some(recorded) = Recorded::of(event) else { return };
        let Some(application) = look.application(recorded.application) else {
            // Against the rules, and reported there.
            return;
        };
        let policy = &application.config.attestation;
        let Some(found) = recorded.verdict else {
            if recorded.lacks_verdict(policy) {
                let what = "evidence came, the application asks for it, and no verdict stands";
                self.findings.fail(spot.place(), what, NOT_TRUE);
            }
            return;
        };
        self.findings.count(EVIDENCE);
        if let Err(what) = self.in_force(found, &application) {
            return self.findings.fail(spot.place(), what, NOT_TRUE);
        }
        let evidence = match self.keys.evidence(&record.draft) {
            Ok(Opened::Evidence(evidence)) => evidence,
            Ok(Opened::Sealed | Opened::Erased) => {
                *self.unopened.entry(record.draft.subject).or_default() += 1;
                return;
            }
            Err(what) => return self.findings.fail(spot.place(), what, CHANGED),
        };
        self.findings.count(REPEATED);
        if Content::Attestation.hash(&evidence.salt, &evidence.octets) != *recorded.hash {
            let what = "the sealed evidence is not that of the recorded hash";
            return self.findings.fail(spot.place(), what, CHANGED);
        }
        let key = recorded.hardware_key.map(|key| key.check());
        let Ok(hardware_key) = key.transpose() else {
            // No key at all: reported with the signatures.
            return;
        };
        let given = Given {
            challenge: recorded.challenge,
            hardware_key: hardware_key.as_ref(),
            at: found.judged_at,
            config_version: application.config_version,
            policy,
            list: self.lists.whole.as_ref().map(|(name, list)| (*name, list)),
        };
        let again = verdict(found.platform, &evidence.octets, &given);
        if codec::encode(&again) != codec::encode(found) {
            self.findings.fail(spot.place(), difference(found, &again), NOT_TRUE);
        }
    }

    /// Whether policy and list of a verdict are those that were in force.
    fn in_force(&self, found: &EvidenceJudgedV1, application: &Application) -> Result<(), String> {
        let version = application.config_version;
        if found.config_version != version {
            return Err(format!(
                "judged under version {} of the configuration, and version {version} was in force",
                found.config_version
            ));
        }
        let in_force = self.lists.whole.as_ref().map(|(name, _)| *name);
        if found.list != in_force {
            return Err(format!(
                "judged with {}, and {} was in force",
                list_of(found.list),
                list_of(in_force)
            ));
        }
        Ok(())
    }

    /// The report; `state` is that of the whole log, `otherwise` the outcome if
    /// nothing failed.
    pub(super) fn report(
        mut self,
        state: &FoldedState<Keytrail>,
        otherwise: Outcome,
    ) -> LevelReport {
        for (subject, count) in std::mem::take(&mut self.unopened) {
            let erased = Look(state).erasure(subject).is_some() || self.keys.is_erased(subject);
            self.findings.add(if erased { ERASED } else { SEALED }, count);
        }
        self.remark();
        let outcome = match (otherwise, self.findings.counted(REPEATED)) {
            (Outcome::Holds, 0) => Outcome::Absent,
            (otherwise, _) => otherwise,
        };
        self.findings.report(Level::Attestation, outcome)
    }

    fn remark(&mut self) {
        let [all, sealed, erased] =
            [EVIDENCE, SEALED, ERASED].map(|name| self.findings.counted(name));
        let mut remark = |text: String| self.findings.remarks.push(text);
        if all == 0 {
            remark("no evidence was judged".into());
        }
        if sealed > 0 {
            let why = match &self.keys {
                Keys::None(why) => why.as_str(),
                Keys::Open(_) => "the key store does not know the persons",
            };
            remark(format!("{sealed} of {all} verdicts not repeated, evidence sealed: {why}"));
        }
        if erased > 0 {
            let why = "the persons were erased";
            remark(format!("{erased} of {all} verdicts not repeated, evidence erased: {why}"));
        }
    }
}

/// The revocation list in force, as far as the log was read.
#[derive(Default)]
struct Lists {
    whole: Option<(ListName, RevocationList)>,
    /// Parts of the list that is being taken over, and where it begins.
    parts: Vec<RevocationListTakenV1>,
    begins: Position,
}

impl Lists {
    fn part(&mut self, record: &Record, part: RevocationListTakenV1) {
        if part.part == 0 {
            self.parts.clear();
            self.begins = record.position;
        }
        self.parts.push(part);
        // Parts that do not fit together are against the rules, and reported there.
        if let Some(list) = joined(record.time, &self.parts) {
            let name = ListName { position: self.begins, hash: self.parts[0].hash };
            self.whole = Some((name, list));
            self.parts = Vec::new();
        }
    }
}

fn list_of(name: Option<ListName>) -> String {
    name.map_or_else(
        || "no revocation list".into(),
        |name| format!("the revocation list of record {}", name.position.0),
    )
}

/// What differs, in words that name no device.
fn difference(recorded: &EvidenceJudgedV1, again: &EvidenceJudgedV1) -> String {
    let verdict = |reason: Option<Reason>| {
        reason.map_or_else(|| "accepted".to_owned(), |reason| format!("refused ({reason})"))
    };
    if recorded.reason != again.reason {
        let (was, is) = (verdict(recorded.reason), verdict(again.reason));
        return format!("the evidence is recorded as {was} and is {is}");
    }
    let part = if recorded.facts == again.facts { "certificates" } else { "facts" };
    format!("the recorded {part} of the evidence are not what is in it")
}
