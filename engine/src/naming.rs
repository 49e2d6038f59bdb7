//! Names of devices: what a user calls a phone, so that several can be told apart.
//!
//! A name may name a person, so it stands sealed under the subject's key, in a
//! record of its own, and state holds only where. It goes with the person. Who may
//! set it: the phone at its activation and later, by its device token, and the
//! service provider. The last one stands.
//!
//! Nobody signs a name, and nothing is decided by one.

use crate::command::{NameDevice, Refusal};
use crate::entries::{Look, Registration};
use crate::events::{Actor, DeviceNamedV1};
use crate::ids::{Id, Micros};
use crate::plan::{Decided, Plan, has_passed};
use crate::reasons::RegistrationState;
use crate::registration::managed;

/// Longest name, in characters.
pub const NAME_MAX: usize = 64;
/// Names that a device gives itself in one window: what it sends may not fill the log.
pub const NAMES_MAX: u32 = 10;
/// Length of that window, in seconds.
pub const NAMES_WINDOW_S: u64 = 86_400;

pub(crate) fn name(look: Look, at: Micros, event_id: Id, want: &NameDevice) -> Decided {
    let registration = match &want.by {
        Some(by) => managed(look, by, want.registration)?,
        None => look.registration(want.registration).ok_or(Refusal::Unknown)?,
    };
    may_be_named(&registration, want.by.as_ref())?;
    if want.by.is_none() {
        let until = registration.names_since.plus_s(NAMES_WINDOW_S);
        if registration.names >= NAMES_MAX && !has_passed(until, at) {
            return Err(Refusal::TooManyAttempts { until });
        }
    }
    if !want.named && registration.named_in.is_none() {
        return Ok(Vec::new());
    }
    let plan = Plan::new(event_id);
    named(plan, want.registration, &registration, want.by.as_ref(), &want.sealed).done()
}

/// A service provider also names what is locked; a device that is locked does nothing.
fn may_be_named(registration: &Registration, by: Option<&Actor>) -> Result<(), Refusal> {
    match registration.state {
        RegistrationState::Active => Ok(()),
        RegistrationState::Locked if by.is_some() => Ok(()),
        state @ (RegistrationState::Locked
        | RegistrationState::Requested
        | RegistrationState::Started
        | RegistrationState::Deactivated) => Err(Refusal::RegistrationState(state)),
    }
}

/// Adds the event by which a device has a name, or none from now on if nothing is
/// sealed.
pub(crate) fn named(
    plan: Plan,
    id: Id,
    registration: &Registration,
    by: Option<&Actor>,
    sealed: &[u8],
) -> Plan {
    let named = DeviceNamedV1 { by: by.cloned(), named: !sealed.is_empty() };
    plan.sealed(id, named, registration.subject, sealed)
}
