//! How often something may fail: fixed windows, bounded memory, no clock.
//!
//! A guess at an activation code attacks every live code at once and matches
//! none, so it cannot be counted on a code; it is counted on where it came from.
//!
//! Promises:
//! - Within its window no failure is forgotten, however many sources there are.
//! - Memory is bounded by [`Limits::sources_max`]. Beyond it new sources share
//!   one count, so that a flood of addresses buys no further guesses.
//! - A window starts with a source's first failure and ends a fixed time later.
//!   Two windows that touch allow at most twice the failures in a short time.
//!
//! The count lives in memory and starts again with the process.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};

use engine::ids::Micros;

/// What a [`Limiter`] allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Failures in one window after which a source is refused.
    pub failures_max: u32,
    /// Length of a window, in seconds.
    pub window_s: u64,
    /// Sources counted apart from each other.
    pub sources_max: usize,
}

/// The source has used up its failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many failures; try again in {retry_after_s} s")]
pub struct Exhausted {
    /// Seconds until its window ends, at least 1.
    pub retry_after_s: u64,
}

/// What one more failure did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted {
    /// Failures remain.
    Open,
    /// This was the last one allowed: true once per window.
    JustExhausted,
    /// The source had none left already.
    Exhausted,
}

#[derive(Debug, Clone, Copy)]
struct Window {
    started: Micros,
    failures: u32,
}

#[derive(Debug)]
struct Counts<K> {
    known: HashMap<K, Window>,
    /// Shared by all sources that found no room.
    overflow: Option<Window>,
    /// Passed windows are looked for no earlier than this.
    next_sweep: Micros,
}

/// Counts failures per source.
#[derive(Debug)]
pub struct Limiter<K> {
    limits: Limits,
    counts: Mutex<Counts<K>>,
}

impl<K: Eq + Hash> Limiter<K> {
    /// A limiter that has seen nothing.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let counts = Counts { known: HashMap::new(), overflow: None, next_sweep: Micros(0) };
        Self { limits, counts: Mutex::new(counts) }
    }

    /// Whether `source` may try at `now` (monotonic time).
    ///
    /// # Errors
    ///
    /// [`Exhausted`] if it has failed too often in its window.
    pub fn check(&self, source: &K, now: Micros) -> Result<(), Exhausted> {
        let counts = self.counts();
        let window = counts.known.get(source).copied().or(counts.overflow);
        match window.filter(|window| self.ends_at(window) > now) {
            Some(window) if window.failures >= self.limits.failures_max => {
                let left_us = self.ends_at(&window).0 - now.0;
                Err(Exhausted { retry_after_s: left_us.div_ceil(1_000_000) })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Counts a failure of `source` at `now` (monotonic time).
    pub fn count_failure(&self, source: K, now: Micros) -> Counted {
        let counts = &mut *self.counts();
        let fresh = Window { started: now, failures: 0 };
        let known = counts.known.contains_key(&source);
        let window = if !known && !self.has_room(counts, now) {
            counts.overflow.get_or_insert(fresh)
        } else {
            counts.known.entry(source).or_insert(fresh)
        };
        if self.ends_at(window) <= now {
            *window = fresh;
        }
        window.failures = window.failures.saturating_add(1);
        match window.failures.cmp(&self.limits.failures_max) {
            std::cmp::Ordering::Less => Counted::Open,
            std::cmp::Ordering::Equal => Counted::JustExhausted,
            std::cmp::Ordering::Greater => Counted::Exhausted,
        }
    }

    /// Whether a new source gets a count of its own.
    ///
    /// Not while the shared window runs: a failure counted there must not be forgotten.
    fn has_room(&self, counts: &mut Counts<K>, now: Micros) -> bool {
        if counts.overflow.is_some_and(|window| self.ends_at(&window) > now) {
            return false;
        }
        counts.overflow = None;
        if counts.known.len() >= self.limits.sources_max && counts.next_sweep <= now {
            // A sweep reads every count; a flood must not buy one per request.
            counts.next_sweep = now.plus_s(1);
            counts.known.retain(|_, window| self.ends_at(window) > now);
        }
        counts.known.len() < self.limits.sources_max
    }

    fn ends_at(&self, window: &Window) -> Micros {
        window.started.plus_s(self.limits.window_s)
    }

    fn counts(&self) -> MutexGuard<'_, Counts<K>> {
        // Counts stay whole whatever panicked: each change is one assignment.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    fn limiter(failures_max: u32, sources_max: usize) -> Limiter<u32> {
        Limiter::new(Limits { failures_max, window_s: 60, sources_max })
    }

    #[test]
    fn the_last_allowed_failure_exhausts_the_source_and_says_so_once() {
        let limiter = limiter(3, 10);
        let now = Micros(5);
        assert_eq!(limiter.count_failure(1, now), Counted::Open);
        assert_eq!(limiter.count_failure(1, now), Counted::Open);
        assert_eq!(limiter.check(&1, now), Ok(()));
        assert_eq!(limiter.count_failure(1, now), Counted::JustExhausted);
        assert_eq!(limiter.check(&1, now), Err(Exhausted { retry_after_s: 60 }));
        assert_eq!(limiter.count_failure(1, now), Counted::Exhausted);
    }

    #[test]
    fn a_window_ends_exactly_when_its_seconds_have_passed() {
        let limiter = limiter(1, 10);
        limiter.count_failure(1, Micros(0));
        let last = Micros(60 * SECOND - 1);
        assert_eq!(limiter.check(&1, last), Err(Exhausted { retry_after_s: 1 }));
        assert_eq!(limiter.check(&1, Micros(60 * SECOND)), Ok(()));
        assert_eq!(limiter.count_failure(1, Micros(60 * SECOND)), Counted::JustExhausted);
    }

    #[test]
    fn a_failure_in_the_window_does_not_move_its_end() {
        let limiter = limiter(2, 10);
        limiter.count_failure(1, Micros(0));
        limiter.count_failure(1, Micros(59 * SECOND));
        assert_eq!(limiter.check(&1, Micros(60 * SECOND)), Ok(()));
    }

    #[test]
    fn sources_do_not_pay_for_each_other() {
        let limiter = limiter(1, 10);
        limiter.count_failure(1, Micros(0));
        assert_eq!(limiter.check(&2, Micros(0)), Ok(()));
    }

    #[test]
    fn sources_beyond_the_bound_share_one_count_and_take_no_memory() {
        let limiter = limiter(2, 2);
        limiter.count_failure(1, Micros(0));
        limiter.count_failure(2, Micros(0));
        assert_eq!(limiter.count_failure(3, Micros(0)), Counted::Open);
        assert_eq!(limiter.count_failure(4, Micros(0)), Counted::JustExhausted);
        assert!(limiter.check(&5, Micros(0)).is_err());
        assert_eq!(limiter.check(&1, Micros(0)), Ok(()), "a counted source keeps its own count");
        assert_eq!(limiter.counts().known.len(), 2);
    }

    #[test]
    fn a_failure_in_the_shared_count_stands_until_its_window_ends() {
        let limiter = limiter(1, 1);
        limiter.count_failure(1, Micros(0));
        limiter.count_failure(2, Micros(30 * SECOND));
        let later = Micros(60 * SECOND);
        assert_eq!(limiter.check(&1, later), Ok(()), "its own window has passed");
        assert_eq!(limiter.check(&2, later), Err(Exhausted { retry_after_s: 30 }));
        assert_eq!(limiter.count_failure(3, later), Counted::Exhausted);
        assert_eq!(limiter.check(&2, Micros(90 * SECOND)), Ok(()));
    }

    #[test]
    fn passed_windows_make_room() {
        let limiter = limiter(1, 2);
        limiter.count_failure(1, Micros(0));
        limiter.count_failure(2, Micros(0));
        assert_eq!(limiter.count_failure(3, Micros(60 * SECOND)), Counted::JustExhausted);
        assert_eq!(limiter.check(&4, Micros(60 * SECOND)), Ok(()));
        assert_eq!(limiter.counts().known.len(), 1);
    }
}
