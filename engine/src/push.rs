//! Where a phone is woken, and whether it was.
//!
//! The server does not talk to push services. It calls out to a hook of the
//! site, which does; what it must know for that is an *address*: which gateway,
//! and the token that the gateway gave to the app. The address names a device,
//! so it stands sealed in the log, and state holds where.
//!
//! A push is a hint: nothing rests on its arrival, except where the application
//! asks for it (`push_validation`). Then the device shows with *start* that it
//! got the push, by a nonce that nothing else gives away: whoever has copied a
//! phone's storage, and does not get its pushes, gets no challenge.

use crate::command::{Refusal, SetPushAddress};
use crate::entries::{Application, Look, Operation, Registration};
use crate::events::PushAddressSetV1;
use crate::ids::{Id, Micros};
use crate::plan::{Decided, Plan, has_passed};
use crate::reasons::RegistrationState;

/// Shortest time between two changes of a registration's address, in seconds: a
/// push service gives a new token rarely, and each change is a record for ever.
pub const CHANGE_EVERY_S: u64 = 10;

pub(crate) fn set_address(look: Look, at: Micros, event_id: Id, want: &SetPushAddress) -> Decided {
    let registration = look.registration(want.registration).ok_or(Refusal::Unknown)?;
    if registration.state != RegistrationState::Active {
        return Err(Refusal::RegistrationState(registration.state));
    }
    if !want.present && registration.push.address_in.is_none() {
        return Ok(Vec::new());
    }
    let until = registration.push.changed_at.plus_s(CHANGE_EVERY_S);
    if registration.push.changed_at != Micros(0) && !has_passed(until, at) {
        return Err(Refusal::TooManyAttempts { until });
    }
    let set = PushAddressSetV1 { present: want.present };
    let plan = Plan::new(event_id);
    plan.sealed(want.registration, set, registration.subject, &want.sealed).done()
}

/// Refuses to ask a device that could not show that it was woken.
pub(crate) fn reachable(
    application: &Application,
    registration: &Registration,
) -> Result<(), Refusal> {
    if can_be_woken(application, registration) { Ok(()) } else { Err(Refusal::NoPushAddress) }
}

/// Whether a device has an address, or needs none.
#[must_use]
pub fn can_be_woken(application: &Application, registration: &Registration) -> bool {
    !application.config.push_validation || registration.push.address_in.is_some()
}

/// Refuses a device that must show that it was woken and does not. What it has
/// begun itself it needed no push for.
pub(crate) fn woken(
    application: &Application,
    operation: &Operation,
    confirmed: bool,
) -> Result<(), Refusal> {
    let needed = application.config.push_validation && operation.begun.is_none();
    if confirmed || !needed { Ok(()) } else { Err(Refusal::PushNotConfirmed) }
}
