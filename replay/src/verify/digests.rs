//! Level 8, second part: digests of state that the log itself recorded, against
//! the state folded from it.
//!
//! A digest stands in the log later than the state that it is of. So the log is
//! looked through for them first, and the fold notes its own digest when it
//! comes to each of these positions.

use std::collections::{BTreeMap, BTreeSet};

use engine::Keytrail;
use engine::events::{Event, Payload, StateDigestedV1};
use engine::ids::Position;
use engine::machine::{Machine, Record};
use storage::block::Block;
use storage::fold::{FoldedState, StateDigest};
use storage::record;

use super::findings::Findings;
use super::records::Spot;

/// Name of the count of digests that were compared.
pub(super) const COMPARED: &str = "digests_compared";

/// Most digests that are compared; a server records one in a million records
/// and one at each stop. More than that is a forger who wants to keep us busy.
const DIGESTS_MAX: usize = 1 << 16;

const OTHER_STATE: &str = "the server that wrote it answered from another state than its log gives: \
     state was changed behind the log's back, or records were changed since";

/// Digests that the log announces, and those of the fold.
#[derive(Default)]
pub(super) struct Digests {
    wanted: BTreeSet<u64>,
    folded: BTreeMap<u64, StateDigest>,
    /// Digests of another layout of state.
    other_layout: u64,
}

impl Digests {
    /// Takes note of the digests that stand in `block`, before anything is folded.
    pub(super) fn announced(&mut self, block: &Block) {
        let (kind, _) = StateDigestedV1::KIND;
        for bytes in block.records().filter(|bytes| record::event_type(bytes) == Some(kind)) {
            let Ok((record, _)) = record::decode(bytes) else { continue };
            if let Some(digested) = digested(&record)
                && digested.state_version == Keytrail::STATE_VERSION
                && self.wanted.len() < DIGESTS_MAX
            {
                self.wanted.insert(digested.position.0);
            }
        }
    }

    /// The fold has come to `position`.
    pub(super) fn reached(&mut self, position: Position, state: &FoldedState<Keytrail>) {
        if self.wanted.contains(&position.0) {
            self.folded.insert(position.0, state.digest());
        }
    }

    /// Compares the digest in `record`, if it holds one, with that of the fold,
    /// which has come behind it.
    pub(super) fn check(&mut self, record: &Record, spot: &Spot, findings: &mut Findings) {
        let Some(digested) = digested(record) else { return };
        if digested.state_version != Keytrail::STATE_VERSION {
            self.other_layout += 1;
            return;
        }
        let position = digested.position.0;
        match self.folded.get(&position) {
            Some(folded) if *folded == digested.digest => findings.count(COMPARED),
            Some(folded) => {
                let what = format!(
                    "it records {} as the digest of state before record {position}; \
                     the log gives {}",
                    crate::hex(&digested.digest),
                    crate::hex(folded),
                );
                findings.fail(spot.place(), what, OTHER_STATE);
            }
            None if position > record.position.0 => {
                let what = format!(
                    "it records a digest of state before record {position}, which comes later"
                );
                findings.fail(spot.place(), what, OTHER_STATE);
            }
            None => (),
        }
    }

    /// Says what was not compared.
    pub(super) fn remark(&self, findings: &mut Findings) {
        if self.other_layout > 0 {
            findings.remarks.push(format!(
                "{} digests of state were recorded by a version of keytrail with another layout \
                 of state; that version compares them",
                self.other_layout
            ));
        }
        if self.wanted.len() == DIGESTS_MAX {
            let remark = format!("only the first {DIGESTS_MAX} digests of state were compared");
            findings.remarks.push(remark);
        }
    }
}

fn digested(record: &Record) -> Option<StateDigestedV1> {
    let draft = &record.draft;
    match Event::decode(draft.event_type, draft.schema, &draft.clear) {
        Ok(Event::StateDigested(digested)) => Some(*digested),
        Ok(_) | Err(_) => None,
    }
}
