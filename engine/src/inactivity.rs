//! Registrations that end because nobody has used them for long, where the
//! application says so (`inactive_after_days`; by default none ever does).
//!
//! Use is an accepted answer to an operation, or an activation. A registration
//! that is LOCKED ends like one that is ACTIVE: nobody uses it either.
//!
//! Nothing here looks for registrations: whoever sweeps names them, and the
//! moment at which it looked. The rules check each against that moment, and not
//! against the time at which the command comes to be decided, so a clock that
//! leaps in between makes nothing older.
//!
//! However wrong a clock or a setting is, it cannot end a population: in any
//! day no more than 1 % of an application's registrations end so, at least one,
//! until an administrator who has seen how many wait confirms more.

use crate::command::{DeactivateInactive, Refusal};
use crate::entries::{Application, Look, Registration};
use crate::events::{Actor, InactiveDeactivatedV1, InactivityConfirmedV1};
use crate::ids::{Id, Micros};
use crate::plan::{Decided, Plan, administrator, has_passed};
use crate::reasons::{DeactivationReason, RegistrationState};
use crate::registration::{deactivated, has_repeats};

/// Length of a day, in seconds: of inactivity, and of what a limit is for.
pub const DAY_S: u64 = 86_400;

/// Most registrations that one command ends. Each makes up to 18 events (its own,
/// an activation and 16 operations), and the events of one command have numbers
/// of 8 bits.
pub const ENDED_AT_ONCE: usize = 14;

const _: () = assert!(1 + ENDED_AT_ONCE * (2 + crate::operation::OPEN_OPERATIONS_MAX) < 256);

/// Most registrations that one confirmation allows.
pub const CONFIRMED_MAX: u32 = 1_000_000_000;

/// When a registration was last used; none if it has no keys, or is over.
#[must_use]
pub fn last_used(registration: &Registration) -> Option<Micros> {
    match registration.state {
        RegistrationState::Active | RegistrationState::Locked => {
            registration.last_used_at.max(registration.activated_at)
        }
        RegistrationState::Requested
        | RegistrationState::Started
        | RegistrationState::Deactivated => None,
    }
}

/// The day of a moment, counted from 1970: what the index of last uses goes by.
#[must_use]
pub fn day_of(at: Micros) -> u32 {
    u32::try_from(at.0 / (DAY_S * 1_000_000)).unwrap_or(u32::MAX)
}

/// The last day on which a registration may have been used that is inactive after
/// `days` at the moment `as_of`; none if there was no such day.
#[must_use]
pub fn last_day(days: u32, as_of: Micros) -> Option<u32> {
    let since = as_of.0.checked_sub(u64::from(days) * DAY_S * 1_000_000)?;
    Some(day_of(Micros(since)))
}

/// Whether a registration has not been used for `days` at the moment `as_of`.
#[must_use]
pub fn is_inactive(registration: &Registration, days: u32, as_of: Micros) -> bool {
    last_used(registration)
        .is_some_and(|used| has_passed(used.plus_s(u64::from(days) * DAY_S), as_of))
}

/// What may end of an application, by the window of a day that `as_of` is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    /// When the window began.
    pub since: Micros,
    /// How many may end in the window without a confirmation.
    pub limit: u64,
    /// How many of those still may.
    pub left: u64,
    /// How many more may by a confirmation.
    pub confirmed: u64,
}

impl Allowance {
    /// Of `application` at `as_of`. A window begins with the first sweep after
    /// the one before is over; its limit is of the registrations there are then.
    #[must_use]
    pub fn of(application: &Application, as_of: Micros) -> Self {
        let idle = &application.inactivity;
        let confirmed = if has_passed(idle.confirmed_until, as_of) { 0 } else { idle.confirmed };
        if idle.limit > 0 && as_of < idle.since.plus_s(DAY_S) {
            let left = idle.limit.saturating_sub(idle.ended);
            return Self { since: idle.since, limit: idle.limit, left, confirmed };
        }
        let limit = (application.registrations / 100).max(1);
        Self { since: as_of, limit, left: limit, confirmed }
    }

    fn total(&self) -> u64 {
        self.left.saturating_add(self.confirmed)
    }
}

pub(crate) fn deactivate(
    look: Look,
    at: Micros,
    event_id: Id,
    want: &DeactivateInactive,
) -> Decided {
    let application = look.application(want.application).ok_or(Refusal::Unknown)?;
    // Turned off since it was looked for, or looked for by a clock that was ahead.
    let Some(days) = application.config.inactive_after_days.filter(|_| want.as_of <= at) else {
        return Ok(Vec::new());
    };
    if want.registrations.len() > ENDED_AT_ONCE || has_repeats(&want.registrations) {
        let expected = "must be at most 14 different ones";
        return Err(Refusal::Invalid { field: "registrations", expected });
    }
    let allowance = Allowance::of(&application, want.as_of);
    let most = usize::try_from(allowance.total()).unwrap_or(usize::MAX);
    let ending: Vec<_> = want
        .registrations
        .iter()
        .filter_map(|&id| Some((id, look.registration(id)?)))
        .filter(|(_, registration)| registration.application == want.application)
        .filter(|(_, registration)| is_inactive(registration, days, want.as_of))
        .take(most)
        .collect();
    // That some wait is said once a window.
    let told = application.inactivity.held && application.inactivity.since == allowance.since;
    if ending.is_empty() && (most > 0 || want.due == 0 || told) {
        return Ok(Vec::new());
    }
    let ended = ending.len() as u64;
    let event = InactiveDeactivatedV1 {
        as_of: want.as_of,
        after_days: days,
        due: want.due,
        since: allowance.since,
        limit: allowance.limit,
        ended,
        confirmed: ended.saturating_sub(allowance.left),
    };
    let plan = Plan::new(event_id).event(want.application, event);
    let reason = DeactivationReason::Inactive;
    ending
        .iter()
        .fold(plan, |plan, (id, registration)| deactivated(plan, *id, registration, None, reason))
        .done()
}

pub(crate) fn confirm(
    look: Look,
    at: Micros,
    event_id: Id,
    by: &Actor,
    application: Id,
    registrations: u32,
) -> Decided {
    administrator(look, by)?;
    look.application(application).ok_or(Refusal::Unknown)?;
    if !(1..=CONFIRMED_MAX).contains(&registrations) {
        let expected = "must be from 1 to 1000000000";
        return Err(Refusal::Invalid { field: "registrations", expected });
    }
    let until = at.plus_s(DAY_S);
    let confirmed = InactivityConfirmedV1 { by: by.clone(), registrations, until };
    Plan::new(event_id).event(application, confirmed).done()
}
