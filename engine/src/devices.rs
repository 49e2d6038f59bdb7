//! The physical devices behind registrations, as far as their apps name them.
//!
//! An app may send a *device hash* at activation: 32 bytes that are the same for
//! all its registrations on one phone. It can name a person, so it stands in no
//! clear part, hashed or not. The key store gives each (application, device
//! hash) a random id, the *device*, found by a keyed hash; the rules know that
//! id alone. It says which registrations share a phone, and nothing of whose.
//!
//! ```text
//! (nothing) --carried by a registration, or blocked--> known <--unblocked-- blocked
//!                                                       | +------blocked------> |
//!                            no registration carries it |                       | unblocked, and no
//!                                                       v                       v registration carries it
//!                                                      over <-------------------+
//! ```
//!
//! A device that is over never comes back: its id is refused, so that the key
//! store can forget what led to it, now or after a crash, and the same phone is
//! another device from then on. A block outlives the registrations.
//!
//! The hash is the app's word, and a changed app can send any. A limit and a
//! block hold honest apps to their phones; they are no proof of hardware.

use crate::command::{BlockDevice, Refusal};
use crate::entries::{Application, Device, Look, Registration};
use crate::events::{Actor, DeviceBlockedV1, DeviceUnblockedV1, RegistrationLockedV1};
use crate::ids::Id;
use crate::plan::{Decided, Plan, service_provider};
use crate::reasons::{ActivationFailure, CancelReason, LockReason, RegistrationState};
use crate::registration::{cancelled, has_repeats};

/// Length of a device hash in bytes: that of a SHA-256 value.
pub const DEVICE_HASH_LEN: usize = 32;

/// Most registrations that one command locks. Each makes up to two events, and
/// the events of one command have numbers of 8 bits.
pub const LOCKED_AT_ONCE: usize = 100;

const _: () = assert!(1 + 2 * LOCKED_AT_ONCE < 256);

impl Device {
    /// Whether it can never be used again: nothing carries it and nothing blocks it.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.registrations == 0 && self.blocked.is_none()
    }
}

/// Whether a block of its device must lock this registration: it can be used, or
/// could be as soon as time released its lock.
#[must_use]
pub fn is_to_be_locked(registration: &Registration) -> bool {
    match registration.state {
        RegistrationState::Active => true,
        RegistrationState::Locked => registration.release_at.is_some(),
        RegistrationState::Requested
        | RegistrationState::Started
        | RegistrationState::Deactivated => false,
    }
}

/// Whether the device that this registration is on is blocked.
pub(crate) fn is_blocked(look: Look, registration: &Registration) -> bool {
    let device = registration.device.and_then(|device| look.device(device));
    device.is_some_and(|device| device.blocked.is_some())
}

/// Refuses an activation that names no device where one is required, and one
/// that names a device that is over: whoever judged it looks again.
pub(crate) fn acceptable(
    look: Look,
    application: &Application,
    device: Option<Id>,
) -> Result<(), Refusal> {
    match device {
        None if application.config.device_hash_required => {
            Err(Refusal::Invalid { field: "device_hash", expected: "is required" })
        }
        None => Ok(()),
        Some(device) if look.device(device).is_some_and(|known| known.is_over()) => {
            Err(Refusal::Stale)
        }
        Some(_) => Ok(()),
    }
}

/// Why a registration cannot be activated on a device. One that is known on a
/// device stays on it until its app names another: leaving the hash out is no
/// way around a block.
pub(crate) fn objection(
    look: Look,
    application: &Application,
    registration: &Registration,
    named: Option<Id>,
) -> Option<ActivationFailure> {
    let id = named.or(registration.device)?;
    let device = look.device(id)?;
    if device.blocked.is_some() {
        return Some(ActivationFailure::DeviceBlocked);
    }
    let max = application.config.device_users_max?;
    // Whoever is on it already may be activated again, also above a limit that
    // was set later.
    let new = look.on_device(id, registration.subject) == 0;
    (new && device.users >= u64::from(max)).then_some(ActivationFailure::TooManyDeviceUsers)
}

pub(crate) fn block(look: Look, event_id: Id, want: &BlockDevice) -> Decided {
    service_provider(look, &want.by, want.application)?;
    match look.device(want.device) {
        Some(device) if device.application != want.application => return Err(Refusal::Unknown),
        Some(device) if device.blocked.is_some() => return Ok(Vec::new()),
        Some(device) if device.is_over() => return Err(Refusal::Stale),
        Some(_) | None => (),
    }
    few(&want.registrations)?;
    let blocked = DeviceBlockedV1 { by: want.by.clone(), device: want.device, reason: want.reason };
    let plan = Plan::new(event_id).sealed(want.application, blocked, want.device, &want.sealed);
    let on_it = |registration: &Registration| registration.device == Some(want.device);
    locked(plan, look, &want.registrations, on_it).done()
}

pub(crate) fn unblock(
    look: Look,
    event_id: Id,
    by: &Actor,
    application: Id,
    device: Id,
) -> Decided {
    service_provider(look, by, application)?;
    let known = look.device(device).filter(|known| known.application == application);
    if known.ok_or(Refusal::Unknown)?.blocked.is_none() {
        return Ok(Vec::new());
    }
    Plan::new(event_id).event(application, DeviceUnblockedV1 { by: by.clone(), device }).done()
}

/// Locks registrations whose device is blocked: those that a block, which is one
/// command, left over.
pub(crate) fn lock_blocked(look: Look, event_id: Id, registrations: &[Id]) -> Decided {
    few(registrations)?;
    let on_blocked = |registration: &Registration| is_blocked(look, registration);
    locked(Plan::new(event_id), look, registrations, on_blocked).done()
}

fn few(registrations: &[Id]) -> Result<(), Refusal> {
    if registrations.len() > LOCKED_AT_ONCE || has_repeats(registrations) {
        let expected = "must be at most 100 different ones";
        return Err(Refusal::Invalid { field: "registrations", expected });
    }
    Ok(())
}

/// Adds the locks of those that `concerned` says, as far as they need one.
fn locked(
    plan: Plan,
    look: Look,
    registrations: &[Id],
    concerned: impl Fn(&Registration) -> bool,
) -> Plan {
    registrations.iter().fold(plan, |plan, &id| {
        let registration = look.registration(id);
        let Some(registration) =
            registration.filter(|known| concerned(known) && is_to_be_locked(known))
        else {
            return plan;
        };
        let reason = LockReason::DeviceBlocked;
        let plan = plan.event(id, RegistrationLockedV1 { by: None, reason, release_at: None });
        let cause = CancelReason::RegistrationLocked;
        cancelled(plan, id, registration.activation, None, cause)
    })
}
