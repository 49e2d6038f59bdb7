//! How often something may fail: fixed windows, bounded memory, no clock.
//!
//! A guess at an activation code attacks every live code at once and matches
//! none, so it cannot be counted on a code; it is counted on where it came from.
//!
//! Promises:
//! - Within its window no failure is forgotten, however many sources there are.
//! - Memory is bounded. Beyond a number of sources new ones share
//!   one count, so that a flood of addresses buys no further guesses.
//! - A window starts with a source's first failure and ends a fixed time later.
//!   Two windows that touch allow at most twice the failures in a short time.
//!
//! The count lives in memory and starts again with the process.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};

use engine::ids::Micros;

/// What a source may do, as configured at the moment of asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Failures in one window after which a source is refused.
    pub failures_max: u32,
    /// Length of a window that begins now, in seconds.
    pub window_s: u64,
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
    ends_at: Micros,
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
    sources_max: usize,
    counts: Mutex<Counts<K>>,
}

impl<K: Eq + Hash> Limiter<K> {
    /// A limiter that has seen nothing and counts this many sources apart.
    #[must_use]
    pub fn new(sources_max: usize) -> Self {
        let counts = Counts { known: HashMap::new(), overflow: None, next_sweep: Micros(0) };
        Self { sources_max, counts: Mutex::new(counts) }
    }

    /// Whether `source` may try at `now` (monotonic time).
    ///
    /// # Errors
    ///
    /// [`Exhausted`] if it has failed too often in its window.
    pub fn check(&self, source: &K, limits: Limits, now: Micros) -> Result<(), Exhausted> {
        let counts = self.counts();
        let window = counts.known.get(source).copied().or(counts.overflow);
        match window.filter(|window| window.ends_at > now) {
            Some(window) if window.failures >= limits.failures_max => {
                let left_us = window.ends_at.0 - now.0;
                Err(Exhausted { retry_after_s: left_us.div_ceil(1_000_000) })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Counts a failure of `source` at `now` (monotonic time).
    pub fn count_failure(&self, source: K, limits: Limits, now: Micros) -> Counted {
        let counts = &mut *self.counts();
        let fresh = Window { ends_at: now.plus_s(limits.window_s), failures: 0 };
        let known = counts.known.contains_key(&source);
        let window = if !known && !self.has_room(counts, now) {
            counts.overflow.get_or_insert(fresh)
        } else {
            counts.known.entry(source).or_insert(fresh)
        };
        if window.ends_at <= now {
            *window = fresh;
        }
        window.failures = window.failures.saturating_add(1);
        match window.failures.cmp(&limits.failures_max) {
            std::cmp::Ordering::Less => Counted::Open,
            std::cmp::Ordering::Equal => Counted::JustExhausted,
            std::cmp::Ordering::Greater => Counted::Exhausted,
        }
    }

    /// Whether a new source gets a count of its own.
    ///
    /// Not while the shared window runs: a failure counted there must not be forgotten.
    fn has_room(&self, counts: &mut Counts<K>, now: Micros) -> bool {
        if counts.overflow.is_some_and(|window| window.ends_at > now) {
            return false;
        }
        counts.overflow = None;
        if counts.known.len() >= self.sources_max && counts.next_sweep <= now {
            // A sweep reads every count; a flood must not buy one per request.
            counts.next_sweep = now.plus_s(1);
            counts.known.retain(|_, window| window.ends_at > now);
        }
        counts.known.len() < self.sources_max
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

    fn limiter(failures_max: u32, sources_max: usize) -> Fixed {
        Fixed(Limiter::new(sources_max), Limits { failures_max, window_s: 60 })
    }

    /// A limiter that is always asked with the same limits.
    struct Fixed(Limiter<u32>, Limits);

    impl Fixed {
        fn check(&self, source: &u32, now: Micros) -> Result<(), Exhausted> {
            self.0.check(source, self.1, now)
        }

        fn count_failure(&self, source: u32, now: Micros) -> Counted {
            self.0.count_failure(source, self.1, now)
        }

        fn known(&self) -> usize {
            self.0.counts().known.len()
        }
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
        assert_eq!(limiter.known(), 2);
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
        assert_eq!(limiter.known(), 1);
    }
}
