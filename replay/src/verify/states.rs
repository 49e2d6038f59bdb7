//! Level 5: state folded again from the log, against the state that is stored.

use std::cmp::Ordering;
use std::sync::Arc;

use engine::Keytrail;
use engine::entries::{Entry, Key};
use engine::ids::Position;
use engine::machine::Machine;
use storage::audit::{StateFound, StoreCopy, StoredState};
use storage::fold::FoldedState;

use super::copies::store;
use super::findings::Findings;
use crate::report::{Level, LevelReport, Outcome, Place};

/// Compares stored state when the fold has come to where it stands.
pub(super) struct States {
    pub(super) findings: Findings,
    /// What is stored; none where there is nothing to compare.
    stored: Option<StoredState>,
    /// There is a database, and no state in it.
    nothing: bool,
    compared: bool,
    stopped_cleanly: bool,
}

const DERIVED: &str = "the stored state is damaged or of another log; the log is not affected, \
     `keytrail rebuild` makes state again from it";

impl States {
    /// Looks at what `copy` says that it holds.
    pub(super) fn new(
        mut findings: Findings,
        copy: Option<&Result<StoreCopy, String>>,
        stopped_cleanly: bool,
    ) -> Self {
        let (mut stored, mut nothing) = (None, false);
        match copy.map(|copy| copy.as_ref().map(StoreCopy::state)) {
            None => findings.remarks.push("not compared: there is no stored state here".into()),
            Some(Err(_)) => findings.fail(store(), "the stored state cannot be read", DERIVED),
            Some(Ok(Err(why))) => findings.fail(store(), why, DERIVED),
            Some(Ok(Ok(StateFound::Nothing))) => {
                nothing = true;
                findings.remarks.push("not compared: no state is stored".into());
            }
            Some(Ok(Ok(StateFound::Stored(found)))) if found.version == Keytrail::STATE_VERSION => {
                stored = Some(found);
            }
            Some(Ok(Ok(StateFound::Unreadable | StateFound::Stored(_)))) => {
                let remark = "not compared: state was stored by another version of keytrail; \
                     the next start makes it again";
                findings.remarks.push(remark.into());
            }
        }
        Self { findings, stored, nothing, compared: false, stopped_cleanly }
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
        match self.stored {
            Some(stored) => self.stands(stored.position, size, whole),
            None if self.stopped_cleanly && self.nothing && size > 0 => {
                let what = "no state is stored, although the store was stopped cleanly";
                self.findings.fail(store(), what, DERIVED);
            }
            None => (),
        }
        let compared = self.compared || self.findings.counted(super::digests::COMPARED) > 0;
        let otherwise = match (whole, compared) {
            (false, _) => Outcome::Incomplete,
            (true, true) => Outcome::Holds,
            (true, false) => Outcome::Absent,
        };
        self.findings.report(Level::Replay, otherwise)
    }

    /// Says where the stored state stands, if that is not the end of the log.
    fn stands(&mut self, position: Position, size: u64, whole: bool) {
        let stands = format!("the stored state stands at record {} of {size}", position.0);
        if !self.compared {
            if whole {
                let means = "the log is shorter than the state made of it: records are missing";
                self.findings.fail(at(position), stands, means);
            } else {
                let remark = "not compared: damage keeps the log from being folded that far";
                self.findings.remarks.push(remark.into());
            }
        } else if position.0 < size && self.stopped_cleanly {
            let means = "a clean stop leaves state at the end of the log: the store is of an \
                 earlier day, or the log got records from elsewhere";
            self.findings.fail(at(position), stands, means);
        } else if position.0 < size {
            self.findings.remarks.push(format!("{stands}; the next start brings it up"));
        }
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
