//! A device that ends its own registration, and proves that it is the one.
//!
//! Whoever sells a phone or removes an app wants the registration gone, not only
//! the keys. The device begins an operation of kind `DEACTIVATION`, shows the user
//! what is about to happen, and answers with its keys. The accepted answer and
//! the end of the registration are one command: no crash leaves one without the
//! other.
//!
//! ```text
//! ACTIVE --begun, started, approved by the device's keys--> DEACTIVATED (BY_DEVICE)
//! ```
//!
//! Possession is enough to give possession up: the level is one factor, and a
//! forgotten PIN keeps nobody from leaving. A locked registration does not leave by
//! itself, since what locked it may concern whoever holds the phone now. No
//! application can forbid it, and no service provider can ask for it: that one
//! deactivates directly.

use crate::command::{BeginOperation, FinishAuthentication, Refusal};
use crate::entries::{Look, Operation, Registration};
use crate::operation::OPEN_OPERATIONS_MAX;
use crate::plan::Plan;
use crate::reasons::{DeactivationReason, OperationKind};
use crate::registration::deactivated;
use crate::strategy::{Consequence, HardwareCheck};
use crate::terms::{Decision, Level};

/// Most operations of a registration that can be answered at one time, this kind
/// included: it has a place of its own, so that nobody's questions are in its way.
const OPEN_MAX: usize = OPEN_OPERATIONS_MAX + 1;

/// Refuses a beginning that is not one of leaving as it should be; one at a time.
pub(crate) fn may_begin(
    look: Look,
    registration: &Registration,
    want: &BeginOperation,
) -> Result<(), Refusal> {
    if want.level != Level::OneFactor {
        let expected = "must be ONE_FACTOR: possession is enough to give possession up";
        return Err(Refusal::Invalid { field: "level", expected });
    }
    let open = registration.open_operations.iter().filter_map(|id| look.operation(*id));
    let leaving = open.filter(|operation| operation.kind == OperationKind::Deactivation).count();
    if leaving > 0 || registration.open_operations.len() >= OPEN_MAX {
        return Err(Refusal::TooManyOperations);
    }
    Ok(())
}

/// What follows from the hardware check: what cannot log in for want of a hardware
/// key can still leave. A key on file must sign, as ever.
pub(crate) fn consequence(
    kind: OperationKind,
    check: HardwareCheck,
    by_strategy: Consequence,
) -> Consequence {
    let none = match check {
        HardwareCheck::NoKeyCannot | HardwareCheck::NoKeyCould => true,
        HardwareCheck::Valid | HardwareCheck::Invalid(_) | HardwareCheck::Missing => false,
    };
    if none && kind == OperationKind::Deactivation { Consequence::Pass } else { by_strategy }
}

/// Adds the end of the registration, if that is what the accepted answer was for.
pub(crate) fn left(
    plan: Plan,
    operation: &Operation,
    registration: &Registration,
    want: &FinishAuthentication,
) -> Plan {
    if operation.kind != OperationKind::Deactivation || want.said.decision != Decision::Approve {
        return plan;
    }
    let mut rest = registration.clone();
    // The answer has ended this one.
    rest.open_operations.retain(|&open| open != want.operation);
    deactivated(plan, operation.registration, &rest, None, DeactivationReason::ByDevice)
}
