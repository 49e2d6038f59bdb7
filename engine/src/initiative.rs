//! An operation that the device begins, without being asked by its back end.
//!
//! An app may want to show that its user is there before any back end has asked:
//! it begins an authentication, answers it, and gives the operation's id to its
//! back end, which reads what became of it. Only where the application allows it
//! (`allow_device_initiated`, off by default): what a service provider did not ask
//! for, it must not take for an answer to something it did.
//!
//! Such an operation shows and signs nothing, and is never a transaction. From
//! its beginning on it is like any other: see [`crate::operation`].
//!
//! What a device begins for its own sake needs no such permission: to end its
//! registration, see [`crate::leaving`].

use crate::command::{BeginOperation, Refusal};
use crate::entries::{Application, Look, Registration};
use crate::events::OperationBegunV1;
use crate::ids::{Id, Micros};
use crate::leaving;
use crate::operation::{OPEN_OPERATIONS_MAX, methods_for};
use crate::plan::{Decided, Plan};
use crate::reasons::{OperationKind, RegistrationState};
use crate::registration::served;

/// Most operations that a device has begun and that can still be answered: it
/// leaves room for those that its service provider asks for.
pub const BEGUN_MAX: usize = 2;

pub(crate) fn begin(look: Look, at: Micros, event_id: Id, want: &BeginOperation) -> Decided {
    let registration = look.registration(want.registration).ok_or(Refusal::Unknown)?;
    let application = look.application(registration.application).ok_or(Refusal::Unknown)?;
    if registration.state != RegistrationState::Active {
        return Err(Refusal::RegistrationState(registration.state));
    }
    allowed(&application, want.kind)?;
    served(&application, &want.client_version)?;
    let mut open = registration.open_operations.iter().filter_map(|id| look.operation(*id));
    if open.any(|operation| operation.begun == Some(want.nonce_hash)) {
        return Ok(Vec::new());
    }
    if want.kind == OperationKind::Deactivation {
        leaving::may_begin(look, &registration, want)?;
    } else {
        leaves_room(look, &registration)?;
    }
    let offered = methods_for(&application, want.level, &[]);
    if !offered.iter().any(|&method| registration.software_key(method).is_some()) {
        return Err(Refusal::NoMethodFits);
    }
    if look.operation(want.operation).is_some() {
        return Err(Refusal::Taken);
    }
    let begun = OperationBegunV1 {
        operation: want.operation,
        kind: want.kind,
        level: want.level,
        nonce_hash: want.nonce_hash,
        client_version: want.client_version.clone(),
        offered,
        expires_at: at.plus_s(application.config.operation_lifetime_s.into()),
    };
    Plan::new(event_id).event(want.registration, begun).done()
}

/// Refuses a kind that a device does not begin, or not in this application.
fn allowed(application: &Application, kind: OperationKind) -> Result<(), Refusal> {
    match kind {
        OperationKind::Authentication if application.config.allow_device_initiated => Ok(()),
        OperationKind::Authentication => Err(Refusal::DeviceMayNotBegin),
        OperationKind::Deactivation => Ok(()),
        OperationKind::Transaction
        | OperationKind::AddHwKey
        | OperationKind::RotateHwKey
        | OperationKind::ReplaceHwKey
        | OperationKind::AddMethod
        | OperationKind::ReplaceMethod
        | OperationKind::RemoveMethod => {
            let expected = "must be one that a device begins";
            Err(Refusal::Invalid { field: "kind", expected })
        }
    }
}

/// Refuses one more, if there are as many as there may be.
fn leaves_room(look: Look, registration: &Registration) -> Result<(), Refusal> {
    let open = registration.open_operations.iter().filter_map(|id| look.operation(*id));
    let begun = open.filter(|operation| {
        operation.begun.is_some() && operation.kind != OperationKind::Deactivation
    });
    if begun.count() >= BEGUN_MAX || registration.open_operations.len() >= OPEN_OPERATIONS_MAX {
        return Err(Refusal::TooManyOperations);
    }
    Ok(())
}
