//! Levels 3 to 5: the tree over the records against the checkpoint beside the
//! log, against checkpoints that an auditor kept, and their cosignatures.
//!
//! Whoever can write the whole folder can write its checkpoint too. What a
//! checkpoint proves therefore depends on where it and the key come from: the
//! report says which ones were brought along and which lay in the folder.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::Path;

use engine::entries::{Succeeded, Succession as Change};
use engine::events::{EpochBegunV1, Event, KeyRotatedV1, Payload};
use engine::machine::Record;
use storage::notary::{CHECKPOINT_FILE, KEY_FILE};
use storage::note::{Checkpoint, Note, NoteError, Signed, VerifierKey};
use storage::record;
use storage::succession::{Succession, is_signed};

use super::findings::Findings;
use crate::folder::{Folder, FolderError};
use crate::proof::{Hash, Roots};
use crate::report::{Epoch, Level, LevelReport, Outcome, Place};

/// Longest file that is read here, in bytes.
const FILE_MAX: u64 = 64 * 1024;

const OTHER_HISTORY: &str =
    "the log is not the one that was signed: records were changed, removed, added or reordered";
const SHORTER: &str = "records that were signed are no longer in the log: its end was cut off";
const UNSIGNED: &str =
    "nothing shows that this is the log: its checkpoint was taken away, or never made";
const FORGED_CHANGE: &str =
    "the log says of its own signatures what is not so: the record was forged";
const LOST: &str =
    "the log itself says that these records were lost; only who kept them can tell what they were";
const NOT_SIGNED: &str = "it proves nothing: anybody could have written it";

/// A checkpoint that an auditor kept, by the name of where it was kept.
#[derive(Debug, Clone)]
pub struct Kept {
    /// Where, for people.
    pub name: String,
    /// The note.
    pub note: Note,
}

/// Whose cosignatures are asked for.
#[derive(Debug, Clone, Default)]
pub struct WitnessPolicy {
    /// Keys of witnesses.
    pub witnesses: Vec<VerifierKey>,
    /// How many of them must have cosigned one checkpoint that holds.
    pub quorum: usize,
}

/// A policy file that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct PolicyError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub what: String,
}

impl WitnessPolicy {
    /// Reads a policy: lines `witness <verifier key>` and one `quorum <number>`;
    /// empty lines and what follows `#` are skipped.
    ///
    /// # Errors
    ///
    /// [`PolicyError`].
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        let (mut policy, mut quorum) = (Self::default(), None);
        let wrong = |line: usize, what: &str| PolicyError { line: line + 1, what: what.into() };
        for (number, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            match line.split_once(' ') {
                None if line.is_empty() => {}
                Some(("witness", key)) => {
                    let key: VerifierKey = key
                        .parse()
                        .map_err(|error: NoteError| wrong(number, &error.to_string()))?;
                    if !key.is_witness() {
                        return Err(wrong(number, "not the key of a witness"));
                    }
                    if policy.witnesses.contains(&key) {
                        return Err(wrong(number, "this witness stands here twice"));
                    }
                    policy.witnesses.push(key);
                }
                Some(("quorum", count)) if quorum.is_none() => {
                    quorum = Some(count.trim().parse().map_err(|_| wrong(number, "no number"))?);
                }
                Some(_) | None => {
                    return Err(wrong(number, "neither `witness KEY` nor the one `quorum NUMBER`"));
                }
            }
        }
        policy.quorum = quorum.unwrap_or(policy.witnesses.len());
        if (1..=policy.witnesses.len()).contains(&policy.quorum) {
            return Ok(policy);
        }
        Err(PolicyError {
            line: 1,
            what: "the quorum must be from 1 to the number of witnesses".into(),
        })
    }
}

/// One checkpoint that is compared with the log.
struct Pin {
    name: String,
    note: Note,
    checkpoint: Option<Checkpoint>,
    /// The root of the log at its size, once that is reached.
    root: Option<Hash>,
    kept: bool,
}

/// The tree as it is made again, and what it is compared with.
pub(super) struct Checkpoints {
    roots: Roots,
    /// The checkpoint beside the log first, if there is one.
    pins: Vec<Pin>,
    key: Option<VerifierKey>,
    /// The key is one that the auditor brought along.
    brought: bool,
    remarks: Vec<String>,
    strange: Vec<(String, String)>,
    policy: Option<WitnessPolicy>,
    /// A record was missing: no root behind it can be made.
    broken: bool,
    /// How the log says that its key and origin line changed.
    changes: Vec<Succeeded>,
    epochs: Vec<Epoch>,
    /// What is wrong with them, and at which record.
    wrong: Vec<(u64, String)>,
}

impl Checkpoints {
    /// Reads what lies in the folder.
    pub(super) fn new(
        folder: &Folder,
        key: Option<&VerifierKey>,
        since: &[Kept],
        policy: Option<&WitnessPolicy>,
    ) -> Result<Self, FolderError> {
        let mut made = Self {
            roots: Roots::default(),
            pins: Vec::new(),
            key: key.cloned(),
            brought: key.is_some(),
            remarks: Vec::new(),
            strange: Vec::new(),
            policy: policy.cloned(),
            broken: false,
            changes: Vec::new(),
            epochs: Vec::new(),
            wrong: Vec::new(),
        };
        let log = folder.dir.join("log");
        if made.key.is_none()
            && let Some(text) = read(&log.join(KEY_FILE))?
        {
            match text.parse() {
                Ok(key) => made.key = Some(key),
                Err(_) => made.strange.push((KEY_FILE.into(), "not a verifier key".into())),
            }
            made.remarks.push(
                "the key was taken from the folder itself: whoever could change the log could \
                 change it too; give the key that you know with --key"
                    .into(),
            );
        }
        let sealed = folder.sealed_checkpoints()?;
        for name in [CHECKPOINT_FILE.to_owned()].into_iter().chain(sealed) {
            let Some(text) = read(&log.join(&name))? else { continue };
            match text.parse::<Note>() {
                Ok(note) if note.to_string() == text => {
                    made.pins.push(Pin::new(name, note, false));
                }
                Ok(_) | Err(_) => made.strange.push((name, "not a signed note".into())),
            }
        }
        let kept = since.iter().map(|kept| Pin::new(kept.name.clone(), kept.note.clone(), true));
        made.pins.extend(kept);
        made.at_size();
        Ok(made)
    }

    /// Takes in the next record, which has the hash `leaf`; the root of the tree before it, where the record
    /// is of a kind that names it.
    pub(super) fn record(&mut self, bytes: &[u8], leaf: Hash) -> Option<Hash> {
        let (rotated, _) = KeyRotatedV1::KIND;
        let (begun, _) = EpochBegunV1::KIND;
        let kind = record::event_type(bytes);
        let named = (kind == Some(rotated) || kind == Some(begun)) && !self.broken;
        let before = named.then(|| self.roots.root());
        if !self.broken {
            self.roots.push_leaf(leaf);
            self.at_size();
        }
        before
    }

    /// Takes in how a record changes the log's key or origin line, and checks it
    /// against the tree before it, which has the root `before`.
    pub(super) fn change(&mut self, record: &Record, before: Option<Hash>) {
        let Some(before) = before else { return };
        let draft = &record.draft;
        match Event::decode(draft.event_type, draft.schema, &draft.clear) {
            Ok(Event::KeyRotated(rotated)) => self.rotated(record, &rotated, before),
            Ok(Event::EpochBegun(begun)) => self.begun(record, &begun, before),
            Ok(_) | Err(_) => (),
        }
    }

    fn rotated(&mut self, record: &Record, rotated: &KeyRotatedV1, before: Hash) {
        let position = record.position.0;
        if rotated.size != position || rotated.root != before {
            let what = "the tree that the keys vouch for is not the one before it";
            self.wrong.push((position, what.into()));
        }
        if is_signed(rotated) != Ok(true) {
            let what = "the new key is not signed for by both keys";
            self.wrong.push((position, what.into()));
        }
        let (old, new) = (rotated.old_key, rotated.new_key);
        let current = self.changes.iter().rev().find_map(|change| match change.by {
            Change::Key { new, .. } => Some(new),
            Change::Origin { .. } => None,
        });
        if current.is_some_and(|current| current != old) {
            self.wrong.push((position, "it replaces another key than the one that signed".into()));
        }
        self.changes.push(Succeeded { at: record.position, by: Change::Key { old, new } });
    }

    fn begun(&mut self, record: &Record, begun: &EpochBegunV1, before: Hash) {
        let position = record.position.0;
        if begun.size != position || begun.root != before {
            let what = "what it says was left of the log is not what stands before it";
            self.wrong.push((position, what.into()));
        }
        let (old, new) = (begun.previous_origin.clone(), begun.origin.clone());
        self.changes.push(Succeeded { at: record.position, by: Change::Origin { old, new } });
        let lost = begun.lost();
        self.epochs.push(Epoch {
            begun_at: position,
            origin: begun.origin.clone(),
            previous_origin: begun.previous_origin.clone(),
            lost_from: lost.map(|(first, _)| first),
            lost_to: lost.map(|(_, last)| last),
            known_size: begun.known_size,
        });
    }

    /// Records that the checkpoint beside the log covers; none if there is none.
    pub(super) fn covered(&self) -> u64 {
        let beside = self.pins.iter().find(|pin| !pin.kept && pin.name == CHECKPOINT_FILE);
        beside.and_then(|pin| pin.checkpoint.as_ref()).map_or(0, |checkpoint| checkpoint.size)
    }

    /// The losses that the log tells of.
    pub(super) fn epochs(&self) -> Vec<Epoch> {
        self.epochs.clone()
    }

    /// Which key must have signed which checkpoint, beginning with the key that is
    /// known; none if that key is none of this log's.
    fn succession(&self, origin: Option<&str>) -> Option<Succession> {
        let key = self.key.as_ref()?;
        let first = origin.unwrap_or(&key.name);
        let made = Succession::of(first, &key.ecdsa_key()?, &self.changes).ok()?;
        made.has(key).then_some(made)
    }

    /// Records are missing here.
    pub(super) fn gap(&mut self) {
        self.broken = true;
    }

    fn at_size(&mut self) {
        let size = self.roots.size();
        let due = |pin: &&mut Pin| pin.checkpoint.as_ref().is_some_and(|it| it.size == size);
        for pin in self.pins.iter_mut().filter(due) {
            pin.root = Some(self.roots.root());
        }
    }

    /// The three levels.
    pub(super) fn report(self, kept_max: usize, origin: Option<&str>) -> Vec<LevelReport> {
        let mut beside = Findings::new(kept_max, &["checkpoints", "records_covered"]);
        let mut kept = Findings::new(kept_max, &["checkpoints", "records_covered"]);
        beside.remarks.clone_from(&self.remarks);
        for (file, what) in &self.strange {
            let place = Place { file: Some(format!("log/{file}")), ..Place::default() };
            beside.fail(place, what.clone(), NOT_SIGNED);
        }
        for (position, what) in &self.wrong {
            let place = Place { position: Some(*position), ..Place::default() };
            beside.fail(place, what.clone(), FORGED_CHANGE);
        }
        let succession = self.succession(origin);
        let mut holding = Vec::new();
        for pin in &self.pins {
            let findings = if pin.kept { &mut kept } else { &mut beside };
            if self.check(pin, succession.as_ref(), findings) {
                holding.push(pin);
            }
        }
        let outcome = |pins: usize| match (pins, self.broken) {
            (0, _) => Outcome::Absent,
            (_, true) => Outcome::Incomplete,
            (_, false) => Outcome::Holds,
        };
        let of_kind = |kept| self.pins.iter().filter(|pin| pin.kept == kept).count();
        // Those beside sealed segments leave the end of the log open.
        let latest = self.pins.iter().any(|pin| pin.kept || pin.name == CHECKPOINT_FILE);
        if self.brought && !latest && self.roots.size() > 0 {
            let place = Place { file: Some(format!("log/{CHECKPOINT_FILE}")), ..Place::default() };
            let what = "a key was given, and there is no checkpoint to check with it";
            beside.fail(place, what, UNSIGNED);
        }
        if of_kind(false) == 0 && self.strange.is_empty() {
            beside.remarks = vec!["there is no checkpoint beside this log".into()];
        }
        self.tell_of_changes(&mut beside);
        if of_kind(true) == 0 {
            kept.remarks
                .push("no checkpoint was brought along; keep one, and give it with --since".into());
        }
        let witnesses = self.witnesses(&holding, kept_max);
        vec![
            beside.report(Level::Checkpoints, outcome(of_kind(false))),
            kept.report(Level::Since, outcome(of_kind(true))),
            witnesses,
        ]
    }

    /// What an auditor should know of how the log is signed.
    fn tell_of_changes(&self, findings: &mut Findings) {
        for change in &self.changes {
            let at = change.at.0;
            findings.remarks.push(match &change.by {
                Change::Key { .. } => {
                    format!("record {at} replaced the key: it signs for more than {at} records")
                }
                Change::Origin { old, new } => format!(
                    "record {at} says that records of {old} were lost, and goes on as {new}"
                ),
            });
        }
    }

    /// Compares one checkpoint with the log; true if it holds.
    fn check(&self, pin: &Pin, succession: Option<&Succession>, findings: &mut Findings) -> bool {
        findings.count("checkpoints");
        let place = |position: Option<u64>| Place { position, ..pin.place() };
        let Some(checkpoint) = &pin.checkpoint else {
            findings.fail(place(None), "its text is no checkpoint", NOT_SIGNED);
            return false;
        };
        let signed_by = |key: &VerifierKey| matches!(key.verify(&pin.note), Ok(Some(Signed::Log)));
        if let Some((left, key)) = succession.and_then(|it| it.former(&checkpoint.origin))
            && left < checkpoint.size
            && signed_by(key)
        {
            let size = checkpoint.size;
            let what = format!(
                "it covers {size} records, of which {left} were left when the rest was lost"
            );
            findings.fail(place(Some(left)), what, LOST);
            return false;
        }
        // Where the key is none of this log's, it may still have signed: another log.
        let key = succession.map(|it| it.key_for(checkpoint.size)).or(self.key.as_ref());
        if !key.is_some_and(signed_by) {
            findings.fail(place(None), "it is not signed by the log's key", NOT_SIGNED);
            return false;
        }
        if succession.is_none() || key.is_some_and(|key| key.name != checkpoint.origin) {
            let what = format!("it is of the log {}", checkpoint.origin);
            findings.fail(place(None), what, "it says nothing of this log");
            return false;
        }
        match pin.root {
            Some(root) if root == checkpoint.root => {
                findings.add("records_covered", checkpoint.size);
                true
            }
            Some(_) => {
                let what =
                    format!("the tree of the first {} records has another root", checkpoint.size);
                findings.fail(place(None), what, OTHER_HISTORY);
                false
            }
            // The damage is reported where it is; here nothing can be said.
            None if self.broken => false,
            None => {
                let (has, size) = (self.roots.size(), checkpoint.size);
                let what = format!("it covers {size} records, and the log has {has}");
                findings.fail(place(Some(has)), what, SHORTER);
                false
            }
        }
    }

    /// Whether one of the checkpoints that hold has the cosignatures asked for.
    fn witnesses(&self, holding: &[&Pin], kept_max: usize) -> LevelReport {
        let mut findings = Findings::new(kept_max, &["witnesses", "quorum"]);
        let Some(policy) = &self.policy else {
            findings
                .remarks
                .push("no policy was given; say with --policy whose cosignatures count".into());
            return findings.report(Level::Witnesses, Outcome::Absent);
        };
        findings.add("quorum", policy.quorum as u64);
        let cosigned = |pin: &&Pin| -> BTreeSet<String> {
            let valid = policy
                .witnesses
                .iter()
                .filter(|key| matches!(key.verify(&pin.note), Ok(Some(Signed::Witness { .. }))));
            valid.map(ToString::to_string).collect()
        };
        let most = holding.iter().map(|pin| cosigned(pin).len()).max().unwrap_or(0);
        findings.add("witnesses", most as u64);
        if most < policy.quorum {
            let what = format!(
                "{most} of {} witnesses have cosigned a checkpoint that holds, and {} are asked for",
                policy.witnesses.len(),
                policy.quorum
            );
            let means = "nobody beside the operator has seen this history; others may exist";
            findings.fail(Place::default(), what, means);
        }
        findings.report(Level::Witnesses, Outcome::Holds)
    }
}

impl Pin {
    fn new(name: String, note: Note, kept: bool) -> Self {
        let checkpoint = Checkpoint::of_text(&note.text).ok();
        Self { name, note, checkpoint, root: None, kept }
    }

    fn place(&self) -> Place {
        let file = if self.kept { self.name.clone() } else { format!("log/{}", self.name) };
        Place { file: Some(file), ..Place::default() }
    }
}

/// A small text file; none if it is not there.
fn read(path: &Path) -> Result<Option<String>, FolderError> {
    match fs::metadata(path) {
        // Opening a pipe would wait for its other end.
        Ok(what) if !what.is_file() => return Ok(Some(String::new())),
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(FolderError::reading(path)(error)),
    }
    let file = fs::File::open(path).map_err(FolderError::reading(path))?;
    let mut bytes = Vec::new();
    file.take(FILE_MAX).read_to_end(&mut bytes).map_err(FolderError::reading(path))?;
    // What is no text is no note either, and is said so.
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

#[cfg(test)]
mod tests {
    use storage::note::WitnessSigner;

    use super::*;

    #[test]
    fn a_policy_names_witnesses_and_how_many_of_them() {
        let key = |number: u8| {
            let signer = WitnessSigner::new(&format!("w{number}.example"), &[number; 32]).unwrap();
            signer.verifier().to_string()
        };
        let text = format!(
            "# two of three\nwitness {}\n\nwitness {} # bank\nwitness {}\nquorum 2\n",
            key(1),
            key(2),
            key(3)
        );
        let policy = WitnessPolicy::parse(&text).unwrap();
        assert_eq!((policy.witnesses.len(), policy.quorum), (3, 2));
        let all = WitnessPolicy::parse(&format!("witness {}\n", key(1))).unwrap();
        assert_eq!(all.quorum, 1, "all of them unless it is said");
        for bad in [
            String::new(),
            "quorum 1\n".into(),
            format!("witness {}\nquorum 2\n", key(1)),
            format!("witness {}\nquorum 0\n", key(1)),
            format!("witness {}\nwitness {}\n", key(1), key(1)),
            format!("witness {}\nquorum 1\nquorum 1\n", key(1)),
            "witness nobody\n".into(),
            format!("witnesses {}\n", key(1)),
        ] {
            assert!(WitnessPolicy::parse(&bad).is_err(), "{bad}");
        }
    }
}
