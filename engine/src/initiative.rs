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

use crate::command::{BeginOperation, Refusal};
use crate::entries::Look;
use crate::events::OperationBegunV1;
use crate::ids::{Id, Micros};
use crate::operation::{OPEN_OPERATIONS_MAX, can_ask, methods_for};
use crate::plan::{Decided, Plan};
use crate::reasons::RegistrationState;
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
    if !application.config.allow_device_initiated {
        return Err(Refusal::DeviceMayNotBegin);
    }
    served(&application, &want.client_version)?;
    let open = registration.open_operations.iter().filter_map(|id| look.operation(*id));
    let begun: Vec<_> = open.filter_map(|operation| operation.begun).collect();
    if begun.contains(&want.nonce_hash) {
        return Ok(Vec::new());
    }
    if begun.len() >= BEGUN_MAX || registration.open_operations.len() >= OPEN_OPERATIONS_MAX {
        return Err(Refusal::TooManyOperations);
    }
    if !can_ask(&application, &registration, want.level, &[]) {
        return Err(Refusal::NoMethodFits);
    }
    if look.operation(want.operation).is_some() {
        return Err(Refusal::Taken);
    }
    let begun = OperationBegunV1 {
        operation: want.operation,
        level: want.level,
        nonce_hash: want.nonce_hash,
        client_version: want.client_version.clone(),
        offered: methods_for(&application, want.level, &[]),
        expires_at: at.plus_s(application.config.operation_lifetime_s.into()),
    };
    Plan::new(event_id).event(want.registration, begun).done()
}
