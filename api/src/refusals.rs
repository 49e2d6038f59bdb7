//! Requests that were refused without a record of their own, counted per window.
//!
//! Noise must not grow the log by an event each, and must not vanish either:
//! once a minute its counts become one event, if there are any.

use std::sync::{Mutex, PoisonError};

use engine::events::RefusalsCountedV1;
use engine::ids::Micros;

/// How often counts are written, in seconds.
pub const WINDOW_S: u64 = 60;

/// What was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// A device request without the right device token, or for nothing known.
    NotRecognised,
    /// A request on a challenge that was used, replaced or over.
    NotLive,
    /// An activation code that matched nothing.
    Code,
    /// A request over a limit.
    Limited,
    /// An API request with wrong credentials.
    Credentials,
}

/// The counts of the present window.
#[derive(Debug)]
pub struct Refusals(Mutex<RefusalsCountedV1>);

impl Refusals {
    /// Nothing yet, from `since` on.
    #[must_use]
    pub fn new(since: Micros) -> Self {
        Self(Mutex::new(empty(since)))
    }

    /// Counts one.
    pub fn count(&self, what: Refused) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let counter = match what {
            Refused::NotRecognised => &mut counts.not_recognised,
            Refused::NotLive => &mut counts.not_live,
            Refused::Code => &mut counts.codes,
            Refused::Limited => &mut counts.limited,
            Refused::Credentials => &mut counts.credentials,
        };
        *counter += 1;
    }

    /// Ends the window at `now`: its counts, none if there was nothing.
    pub fn take(&self, now: Micros) -> Option<RefusalsCountedV1> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = std::mem::replace(&mut *counts, empty(now));
        (taken != empty(taken.since)).then_some(taken)
    }

    /// Puts counts back that could not be written: they belong to the present window now.
    pub fn put_back(&self, counted: &RefusalsCountedV1) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.since = counts.since.min(counted.since);
        counts.not_recognised += counted.not_recognised;
        counts.not_live += counted.not_live;
        counts.codes += counted.codes;
        counts.limited += counted.limited;
        counts.credentials += counted.credentials;
    }
}

fn empty(since: Micros) -> RefusalsCountedV1 {
    RefusalsCountedV1 {
        since,
        not_recognised: 0,
        not_live: 0,
        codes: 0,
        limited: 0,
        credentials: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_holds_each_count_once_and_an_empty_one_nothing() {
        let refusals = Refusals::new(Micros(5));
        assert_eq!(refusals.take(Micros(6)), None);
        refusals.count(Refused::NotRecognised);
        refusals.count(Refused::Code);
        refusals.count(Refused::Code);
        let taken = refusals.take(Micros(9)).unwrap();
        assert_eq!(taken, RefusalsCountedV1 { not_recognised: 1, codes: 2, ..empty(Micros(6)) });
        assert_eq!(refusals.take(Micros(10)), None);
    }

    #[test]
    fn counts_that_could_not_be_written_join_the_next_window() {
        let refusals = Refusals::new(Micros(5));
        refusals.count(Refused::Limited);
        let taken = refusals.take(Micros(9)).unwrap();
        refusals.count(Refused::Limited);
        refusals.count(Refused::Credentials);
        refusals.count(Refused::NotLive);
        refusals.put_back(&taken);
        let expected =
            RefusalsCountedV1 { limited: 2, credentials: 1, not_live: 1, ..empty(Micros(5)) };
        assert_eq!(refusals.take(Micros(12)), Some(expected));
    }
}
