//! Uses of subjects' keys to open sealed parts, counted per window.
//!
//! A back end that reads its own user's registration is no event worth a record
//! of its own; that keys are used, how often and for whom, is. So once an hour
//! and at a clean stop the counts become one event, if there are any.

use std::sync::{Mutex, PoisonError};

use engine::events::KeyUseCountedV1;
use engine::ids::Micros;

/// How often counts are written, in seconds. A killed process loses as much.
pub const WINDOW_S: u64 = 3_600;

/// For whom a sealed part is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenedFor {
    /// The service provider whose user it names.
    ServiceProvider,
    /// The device of that user.
    Device,
}

/// The counts of the present window.
#[derive(Debug)]
pub struct KeyUses(Mutex<KeyUseCountedV1>);

impl KeyUses {
    /// Nothing yet, from `since` on.
    #[must_use]
    pub fn new(since: Micros) -> Self {
        Self(Mutex::new(empty(since)))
    }

    /// Counts one.
    pub fn count(&self, whom: OpenedFor) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match whom {
            OpenedFor::ServiceProvider => counts.service_provider += 1,
            OpenedFor::Device => counts.device += 1,
        }
    }

    /// Ends the window at `now`: its counts, none if there was nothing.
    pub fn take(&self, now: Micros) -> Option<KeyUseCountedV1> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = std::mem::replace(&mut *counts, empty(now));
        (taken != empty(taken.since)).then_some(taken)
    }

    /// Puts counts back that could not be written: they belong to the present window now.
    pub fn put_back(&self, counted: &KeyUseCountedV1) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.since = counts.since.min(counted.since);
        counts.service_provider += counted.service_provider;
        counts.device += counted.device;
    }
}

fn empty(since: Micros) -> KeyUseCountedV1 {
    KeyUseCountedV1 { since, service_provider: 0, device: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_holds_each_use_once_and_what_could_not_be_written_joins_the_next() {
        let uses = KeyUses::new(Micros(5));
        assert_eq!(uses.take(Micros(6)), None);
        uses.count(OpenedFor::Device);
        uses.count(OpenedFor::ServiceProvider);
        uses.count(OpenedFor::ServiceProvider);
        let expected = KeyUseCountedV1 { since: Micros(6), service_provider: 2, device: 1 };
        assert_eq!(uses.take(Micros(9)), Some(expected.clone()));
        assert_eq!(uses.take(Micros(10)), None);
        uses.count(OpenedFor::Device);
        uses.put_back(&expected);
        let both = KeyUseCountedV1 { since: Micros(6), service_provider: 2, device: 2 };
        assert_eq!(uses.take(Micros(12)), Some(both));
    }
}
