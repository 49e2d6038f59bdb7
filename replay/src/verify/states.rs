//! Level 5: state folded again from the log, against the state that is stored.

use std::cmp::Ordering;
use std::sync::Arc;

use engine::Keytrail;
use engine::entries::{Entry, Key};
use engine::ids::Position;
use engine::machine::Machine;
use storage::audit::{StoreCopy, StoredState};
use storage::fold::FoldedState;

use super::copies::store;
use super::findings::Findings;
use crate::report::{Level, LevelReport, Outcome, Place};

/// Compares stored state when the fold has come to where it stands.
pub(super) struct States {
    pub(super) findings: Findings,
    /// What is stored; none where there is nothing to compare.
    stored: Option<StoredState>,
    compared: bool,
}

const DERIVED: &str = "the stored state is damaged or of another log; the log is not affected, \
     `keytrail rebuild` makes state again from it";

impl States {
    /// Looks at what `copy` says that it holds.
    pub(super) fn new(mut findings: Findings, copy: Option<&Result<StoreCopy, String>>) -> Self {
        let stored = match copy.map(|copy| copy.as_ref().map(StoreCopy::state)) {
            Some(Err(_)) => {
                findings.fail(store(), "the stored state cannot be read", DERIVED);
                None
            }
            None => {
                findings.remarks.push("not compared: there is no stored state here".into());
                None
            }
            Some(Ok(Ok(None))) => {
                findings.remarks.push("not compared: nothing is stored yet".into());
                None
            }
            Some(Ok(Ok(Some(stored)))) if stored.version != Keytrail::STATE_VERSION => {
                let remark = "not compared: the state was stored by another version of keytrail";
                findings.remarks.push(remark.into());
                None
            }
            Some(Ok(Ok(Some(stored)))) => Some(stored),
            Some(Ok(Err(why))) => {
                findings.fail(store(), why, DERIVED);
                None
            }
        };
        Self { findings, stored, compared: false }
    }

    /// The fold has come to `position`, which follows the chain value `prev`.
    pub(super) fn reached(
        &mut self,
        position: Position,
        prev: &[u8; 32],
        state: &FoldedState<Keytrail>,
        copy: Option<&StoreCopy>,
    ) {
        let (Some(stored), Some(copy)) = (self.stored, copy) else { return };
        if self.compared || stored.position != position {
            return;
        }
        self.compared = true;
        if stored.chain != *prev {
            let what = "the stored state follows another record than the log has there";
            self.findings.fail(at(position), what, DERIVED);
        }
        self.compare(position, state, copy);
    }

    /// `size` records were folded; `whole` if that is all of the log.
    pub(super) fn report(mut self, size: u64, whole: bool) -> LevelReport {
        if let Some(stored) = self.stored {
            let remark = if self.compared {
                (stored.position.0 < size).then(|| {
                    format!(
                        "the stored state stands at record {} of {size}; the next start brings it up",
                        stored.position.0
                    )
                })
            } else if whole {
                let what = format!("the stored state stands at record {}", stored.position.0);
                self.findings.fail(
                    at(stored.position),
                    what,
                    "the log is shorter than the state made of it: records are missing",
                );
                None
            } else {
                Some("not compared: damage keeps the log from being folded that far".into())
            };
            self.findings.remarks.extend(remark);
        }
        let otherwise = match (whole, self.compared) {
            (false, _) => Outcome::Incomplete,
            (true, true) => Outcome::Holds,
            (true, false) => Outcome::Absent,
        };
        self.findings.report(Level::Replay, otherwise)
    }

    fn compare(&mut self, position: Position, state: &FoldedState<Keytrail>, copy: &StoreCopy) {
        let mut folded = state.entries().peekable();
        let mut stored = copy.entries().peekable();
        loop {
            if let Some(Err(why)) = stored.peek() {
                let why = why.clone();
                return self.findings.fail(at(position), why, DERIVED);
            }
            let theirs = stored.peek().and_then(|item| item.as_ref().ok());
            let order = match (folded.peek(), theirs) {
                (None, None) => return,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((key, _)), Some((found, _))) => Keytrail::key_bytes(key).cmp(found),
            };
            let ours = if order.is_le() { folded.next() } else { None };
            let theirs = if order.is_ge() { stored.next().and_then(Result::ok) } else { None };
            self.entry(position, ours, theirs);
        }
    }

    fn entry(
        &mut self,
        position: Position,
        ours: Option<(&Key, &Arc<Entry>)>,
        theirs: Option<(Vec<u8>, Vec<u8>)>,
    ) {
        self.findings.count("entries_compared");
        let what = match (ours, theirs) {
            (Some((_, entry)), Some((_, bytes))) if Keytrail::entry_bytes(entry) == bytes => return,
            (Some((key, _)), Some(_)) => {
                format!("the stored entry {key:?} is not what the log says")
            }
            (Some((key, _)), None) => format!("the entry {key:?} is missing from the stored state"),
            (None, Some((bytes, _))) => match Key::from_bytes(&bytes) {
                Some(key) => {
                    format!("the stored state has an entry {key:?} that the log does not make")
                }
                None => "the stored state has an entry whose key is none".to_owned(),
            },
            (None, None) => return,
        };
        self.findings.fail(at(position), what, DERIVED);
    }
}

fn at(position: Position) -> Place {
    Place { position: Some(position.0), ..store() }
}
