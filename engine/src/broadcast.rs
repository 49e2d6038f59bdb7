//! A broadcast: one question to several devices of one user, and one answer.
//!
//! Each device gets an operation of its own, with its own challenge, in its own
//! registration's stream: a device can neither use up another's challenge nor
//! learn of it, and every signature binds the registration that made it.
//!
//! ```text
//! (nothing) --created--> PENDING --first answer accepted--> COMPLETED or REJECTED; the others are CANCELLED
//!                           |                               (ANSWERED_ELSEWHERE)
//!                           +--every operation is over otherwise--> FAILED, EXPIRED or CANCELLED
//! ```
//!
//! The first accepted answer wins, also if it is a no: whoever says that this was
//! not them must not be outvoted by another device. One device that fails or is
//! locked leaves the question to the others.

use crate::command::{CreateOperation, Refusal};
use crate::entries::{Look, Operation};
use crate::events::OperationAnsweredElsewhereV1;
use crate::ids::{Id, Micros};
use crate::operation;
use crate::plan::{Decided, Plan};
use crate::reasons::OperationState;

/// Most devices that are asked at once. An answer ends the operations of all
/// others in one command.
pub const DEVICES_MAX: usize = 14;

/// Asks each of several devices. All or none are asked.
pub(crate) fn create(look: Look, at: Micros, event_id: Id, asks: &[CreateOperation]) -> Decided {
    let expected = "must be 1 to 14 registrations of one user, each once";
    let invalid = || Refusal::Invalid { field: "broadcast", expected };
    if asks.len() > DEVICES_MAX {
        return Err(invalid());
    }
    let first = asks.first().ok_or_else(invalid)?;
    let id = first.broadcast.ok_or_else(invalid)?;
    let whose = |ask: &CreateOperation| {
        look.registration(ask.registration).map(|known| (known.application, known.subject))
    };
    let alike = |ask: &CreateOperation| {
        ask.broadcast == Some(id) && ask.by == first.by && whose(ask) == whose(first)
    };
    let each_once = asks.is_sorted_by(|one, next| one.registration < next.registration);
    let mut plan = Plan::new(event_id);
    for ask in asks {
        plan = operation::created(plan, look, at, ask)?;
    }
    if !each_once || !asks.iter().all(alike) {
        return Err(invalid());
    }
    if look.broadcast(id).is_some() {
        return Err(Refusal::Taken);
    }
    plan.done()
}

/// Ends the operations of the other devices, now that `answered` is.
pub(crate) fn answered_elsewhere(
    mut plan: Plan,
    look: Look,
    answered: Id,
    operation: &Operation,
) -> Plan {
    for (id, other) in open_siblings(look, answered, operation) {
        let event = OperationAnsweredElsewhereV1 { operation: id, answered };
        plan = plan.event(other.registration, event);
    }
    plan
}

/// The operations of the same broadcast that can still be answered, but for `id`.
pub(crate) fn open_siblings(
    look: Look<'_>,
    id: Id,
    operation: &Operation,
) -> Vec<(Id, std::sync::Arc<Operation>)> {
    let broadcast = operation.broadcast.and_then(|broadcast| look.broadcast(broadcast));
    let all = broadcast.map(|broadcast| broadcast.operations.clone()).unwrap_or_default();
    let others = all.into_iter().filter(|&other| other != id);
    let known = others.filter_map(|other| Some((other, look.operation(other)?)));
    known.filter(|(_, other)| !other.state.is_final()).collect()
}

/// Where a broadcast stands whose operations are in these states: the answer, if
/// there is one; open, as long as one is; else what most resembles an outcome.
#[must_use]
pub fn state_of(states: &[OperationState]) -> OperationState {
    use OperationState::{Cancelled, Completed, Expired, Failed, Pending, Rejected, Started};
    let order = [Completed, Rejected, Started, Pending, Failed, Expired, Cancelled];
    order.into_iter().find(|state| states.contains(state)).unwrap_or(Cancelled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_decides_then_what_is_open_then_what_came_closest() {
        use OperationState::{Cancelled, Completed, Expired, Failed, Pending, Rejected, Started};
        for (states, expected) in [
            (&[Cancelled, Completed, Cancelled][..], Completed),
            (&[Failed, Rejected, Cancelled], Rejected),
            (&[Failed, Pending, Started], Started),
            (&[Failed, Pending], Pending),
            (&[Expired, Failed], Failed),
            (&[Expired, Cancelled], Expired),
            (&[], Cancelled),
        ] {
            assert_eq!(state_of(states), expected, "{states:?}");
        }
    }
}
