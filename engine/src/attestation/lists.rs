//! The revocation list as the log holds it.
//!
//! A list that an operator takes over becomes events of the system stream: as
//! many parts as it needs, in one command, so that it is in force whole or not
//! at all. The last one taken is in force. Verdicts name the position of its
//! first part and the hash of the file it came from.

use serde::{Deserialize, Serialize};

use crate::attestation::revocation::{ListStatus, RevocationList};
use crate::command::{Refusal, TakeRevocationList};
use crate::entries::Look;
use crate::events::{Bytes32, RevocationListTakenV1};
use crate::ids::{Id, Micros, Position};
use crate::plan::{Decided, Plan, administrator};

/// Entries of one part: at most 42 bytes each, they fit a record.
pub const PART_ENTRIES: usize = 1_000;
/// Most parts, and so most entries: a command makes at most 255 events.
pub const PARTS_MAX: usize = 200;

/// An entry: serial number without leading zeros, and what the list says of it.
pub type ListEntry = (Vec<u8>, ListStatus);

/// Names a list in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListName {
    /// Position of its first part.
    pub position: Position,
    /// SHA-256 of the file it came from.
    pub hash: Bytes32,
}

/// The entries of a list, as a command carries them.
#[must_use]
pub fn entries_of(list: &RevocationList) -> Vec<ListEntry> {
    list.entries().map(|(serial, status)| (serial.to_vec(), status)).collect()
}

/// The list that consecutive parts make, taken over at `taken_at`; none unless
/// they are all parts of one list in their order.
#[must_use]
pub fn joined(taken_at: Micros, parts: &[RevocationListTakenV1]) -> Option<RevocationList> {
    let first = parts.first()?;
    let whole = parts.len() == first.parts as usize
        && parts.iter().zip(0..).all(|(part, number)| {
            (part.part, part.parts, part.hash) == (number, first.parts, first.hash)
        });
    let entries = parts.iter().flat_map(|part| part.entries.iter().cloned());
    whole.then(|| RevocationList::from_entries(taken_at, entries))
}

/// Takes a list over.
pub(crate) fn take(look: Look, event_id: Id, want: &TakeRevocationList) -> Decided {
    administrator(look, &want.by)?;
    let ascending = want.entries.windows(2).all(|pair| pair[0].0 < pair[1].0);
    if !ascending || want.entries.len() > PART_ENTRIES * PARTS_MAX {
        let expected = "must have at most 200,000 entries in ascending order";
        return Err(Refusal::Invalid { field: "entries", expected });
    }
    let mut chunks: Vec<&[ListEntry]> = want.entries.chunks(PART_ENTRIES).collect();
    // An empty list is a list: nothing is revoked.
    if chunks.is_empty() {
        chunks.push(&[]);
    }
    let parts = chunks.len() as u32;
    let plan = chunks.into_iter().zip(0..).fold(Plan::new(event_id), |plan, (entries, part)| {
        let taken = RevocationListTakenV1 {
            by: want.by.clone(),
            hash: want.hash,
            part,
            parts,
            entries: entries.to_vec(),
        };
        plan.event(Id::NIL, taken)
    });
    plan.done()
}
