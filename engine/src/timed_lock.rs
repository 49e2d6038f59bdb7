//! A lock after too many failures that ends by itself, where the application
//! says so (`lock_duration_s`; by default such a lock stays).
//!
//! ```text
//! ACTIVE --too many failures--> LOCKED, released at T --time--> ACTIVE, one attempt left
//!   ^                              |
//!   +-----------unlocked-----------+--locked by request--> LOCKED, never released by time
//! ```
//!
//! Time must not turn a limit of attempts into a rate of guesses: after a
//! release one failure locks again, and each lock in a row lasts twice as long
//! as the one before. What forgives failures (a log-in with all factors, an
//! unlock, a re-activation) ends the row.
//!
//! The release is an event that the sequencer makes. Until it stands in the log
//! the registration is locked, also when its moment has passed: unlike an
//! expiry, it waits while a step of the clock is not confirmed.

use crate::command::Refusal;
use crate::config::Config;
use crate::entries::{Look, Registration};
use crate::events::LockReleasedV1;
use crate::ids::{Id, Micros};
use crate::plan::{Decided, Plan, has_passed};
use crate::reasons::{LockReason, RegistrationState};

/// From this release in a row on, locks last no longer: 1,024 times the first.
pub const DOUBLINGS_MAX: u32 = 10;

/// When a lock after too many failures ends that begins now; none if it stays.
pub(crate) fn release_at(
    config: &Config,
    registration: &Registration,
    at: Micros,
) -> Option<Micros> {
    let first_s = u64::from(config.lock_duration_s?);
    Some(at.plus_s(first_s << registration.releases.min(DOUBLINGS_MAX)))
}

/// Ends a lock whose moment has come.
pub(crate) fn release(look: Look, at: Micros, event_id: Id, id: Id) -> Decided {
    let registration = look.registration(id).ok_or(Refusal::Unknown)?;
    let by_failures = registration.state == RegistrationState::Locked
        && registration.lock_reason == Some(LockReason::TooManyFailures);
    let come = registration.release_at.is_some_and(|moment| has_passed(moment, at));
    if !by_failures || !come {
        return Ok(Vec::new());
    }
    let application = look.application(registration.application).ok_or(Refusal::Unknown)?;
    // The next failure is the last one allowed, whatever is allowed by now.
    let failures = application.config.failures_allowed.saturating_sub(1);
    Plan::new(event_id).event(id, LockReleasedV1 { failures }).done()
}
