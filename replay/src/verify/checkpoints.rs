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

use storage::notary::{CHECKPOINT_FILE, KEY_FILE};
use storage::note::{Checkpoint, Note, NoteError, Signed, VerifierKey};

use super::findings::Findings;
use crate::folder::FolderError;
use crate::proof::{Hash, Roots};
use crate::report::{Level, LevelReport, Outcome, Place};

/// Longest file that is read here, in bytes.
const FILE_MAX: u64 = 64 * 1024;

const OTHER_HISTORY: &str =
    "the log is not the one that was signed: records were changed, removed, added or reordered";
const SHORTER: &str = "records that were signed are no longer in the log: its end was cut off";
const UNSIGNED: &str =
    "nothing shows that this is the log: its checkpoint was taken away, or never made";
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
    strange: Vec<(&'static str, String)>,
    policy: Option<WitnessPolicy>,
    /// A record was missing: no root behind it can be made.
    broken: bool,
}

impl Checkpoints {
    /// Reads what lies in the folder.
    pub(super) fn new(
        dir: &Path,
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
        };
        let log = dir.join("log");
        if made.key.is_none()
            && let Some(text) = read(&log.join(KEY_FILE))?
        {
            match text.parse() {
                Ok(key) => made.key = Some(key),
                Err(_) => made.strange.push((KEY_FILE, "not a verifier key".into())),
            }
            made.remarks.push(
                "the key was taken from the folder itself: whoever could change the log could \
                 change it too; give the key that you know with --key"
                    .into(),
            );
        }
        if let Some(text) = read(&log.join(CHECKPOINT_FILE))? {
            match text.parse::<Note>() {
                Ok(note) if note.to_string() == text => {
                    made.pins.push(Pin::new(CHECKPOINT_FILE.into(), note, false));
                }
                Ok(_) | Err(_) => made.strange.push((CHECKPOINT_FILE, "not a signed note".into())),
            }
        }
        let kept = since.iter().map(|kept| Pin::new(kept.name.clone(), kept.note.clone(), true));
        made.pins.extend(kept);
        made.at_size();
        Ok(made)
    }

    /// Takes in the next record.
    pub(super) fn record(&mut self, bytes: &[u8]) {
        if !self.broken {
            self.roots.push(bytes);
            self.at_size();
        }
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
        let mut holding = Vec::new();
        for pin in &self.pins {
            let findings = if pin.kept { &mut kept } else { &mut beside };
            if self.check(pin, origin, findings) {
                holding.push(pin);
            }
        }
        let outcome = |pins: usize| match (pins, self.broken) {
            (0, _) => Outcome::Absent,
            (_, true) => Outcome::Incomplete,
            (_, false) => Outcome::Holds,
        };
        let of_kind = |kept| self.pins.iter().filter(|pin| pin.kept == kept).count();
        if self.brought && self.pins.is_empty() && self.roots.size() > 0 {
            let place = Place { file: Some(format!("log/{CHECKPOINT_FILE}")), ..Place::default() };
            let what = "a key was given, and there is no checkpoint to check with it";
            beside.fail(place, what, UNSIGNED);
        }
        if of_kind(false) == 0 && self.strange.is_empty() {
            beside.remarks = vec!["there is no checkpoint beside this log".into()];
        }
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

    /// Compares one checkpoint with the log; true if it holds.
    fn check(&self, pin: &Pin, origin: Option<&str>, findings: &mut Findings) -> bool {
        findings.count("checkpoints");
        let place = |position: Option<u64>| Place { position, ..pin.place() };
        let Some(checkpoint) = &pin.checkpoint else {
            findings.fail(place(None), "its text is no checkpoint", NOT_SIGNED);
            return false;
        };
        let signed = match &self.key {
            Some(key) => matches!(key.verify(&pin.note), Ok(Some(Signed::Log))),
            None => false,
        };
        if !signed {
            findings.fail(place(None), "it is not signed by the log's key", NOT_SIGNED);
            return false;
        }
        if origin.is_some_and(|origin| origin != checkpoint.origin) {
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
