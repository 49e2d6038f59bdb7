//! The log as evidence: who may confirm the clock, which digests of state are
//! noted, how the key that signs checkpoints is replaced, and how a log goes on
//! after records of it were lost.
//!
//! What these events say of the tree (roots, sizes, signatures) is not for the
//! rules to judge: they do not see the tree. `verify` holds it against the log.

use crate::command::Refusal;
use crate::entries::Look;
use crate::events::{ClockConfirmedV1, EpochBegunV1, KeyRotatedV1, StateDigestedV1};
use crate::ids::Id;
use crate::plan::{Decided, Plan, administrator};

/// Most bytes of an origin line.
pub const ORIGIN_MAX: usize = 1_024;
/// Most bytes of a signed note that an event holds.
pub const NOTE_MAX: usize = 16 * 1_024;
/// Most bytes of a signature that an event of this module holds.
const SIGNATURE_MAX: usize = 80;

pub(crate) fn confirm_clock(look: Look, event_id: Id, confirmed: &ClockConfirmedV1) -> Decided {
    administrator(look, &confirmed.by)?;
    Plan::new(event_id).event(Id::NIL, confirmed.clone()).done()
}

/// A digest is noted once, and only of state that is later than the one before.
pub(crate) fn note_state_digest(look: Look, event_id: Id, digested: &StateDigestedV1) -> Decided {
    if digested.position <= look.system().digested {
        return Ok(Vec::new());
    }
    Plan::new(event_id).event(Id::NIL, digested.clone()).done()
}

/// The key that is replaced must be the one that signs, as far as the log knows
/// it: so the keys of a log are one chain.
pub(crate) fn rotate_key(look: Look, event_id: Id, rotated: &KeyRotatedV1) -> Decided {
    let system = look.system();
    let invalid = |field, expected| Err(Refusal::Invalid { field, expected });
    if rotated.origin != system.origin {
        return invalid("origin", "must be the log's own");
    }
    if system.signing_key().is_some_and(|key| key != rotated.old_key) {
        return invalid("old_key", "must be the key that signs now");
    }
    if rotated.new_key == rotated.old_key {
        return invalid("new_key", "must be another key");
    }
    if rotated.old_signature.len().max(rotated.new_signature.len()) > SIGNATURE_MAX {
        return invalid("signature", "must have at most 80 bytes");
    }
    Plan::new(event_id).event(Id::NIL, rotated.clone()).done()
}

/// An origin is used for one history only, so a new one must never have been used.
pub(crate) fn begin_epoch(look: Look, event_id: Id, begun: &EpochBegunV1) -> Decided {
    let system = look.system();
    let invalid = |field, expected| Err(Refusal::Invalid { field, expected });
    if begun.previous_origin != system.origin {
        return invalid("previous_origin", "must be the log's own");
    }
    if system.has_had_origin(&begun.origin)
        || begun.origin.is_empty()
        || begun.origin.len() > ORIGIN_MAX
    {
        return invalid("origin", "must be a name that no part of this log has had");
    }
    if begun.known_note.len() > NOTE_MAX {
        return invalid("known_note", "must have at most 16384 bytes");
    }
    Plan::new(event_id).event(Id::NIL, begun.clone()).done()
}
