//! The real clock and the real entropy: the only places that ask the machine.
//!
//! Everything else is handed a [`Clock`] and an [`Entropy`], so that a test
//! decides what time it is and which bytes are drawn.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use engine::ids::Micros;
use engine::machine::{Clock, Entropy};

/// The machine's clocks.
#[derive(Debug)]
pub struct SystemClock {
    started: Instant,
}

impl SystemClock {
    /// A clock whose monotonic side starts at zero now.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    pub fn start() -> Self {
        Self { started: Instant::now() }
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    fn wall(&self) -> Micros {
        // A machine set before 1970 reads as 1970; log time never decreases anyway.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Micros(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
    }

    fn monotonic(&self) -> Micros {
        Micros(u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX))
    }
}

/// The operating system's random number generator.
#[derive(Debug, Clone, Copy)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    /// # Panics
    ///
    /// If the operating system gives no random bytes: no key or challenge may
    /// be made from anything weaker.
    #[expect(clippy::disallowed_methods, reason = "this is the entropy")]
    #[expect(clippy::expect_used, reason = "nothing safe can be done without entropy")]
    fn fill(&self, out: &mut [u8]) {
        getrandom::fill(out).expect("the operating system gives random bytes");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_monotonic_clock_never_runs_backwards() {
        let clock = SystemClock::start();
        let first = clock.monotonic();
        assert!(first <= clock.monotonic());
    }

    #[test]
    fn two_draws_differ() {
        let draw = || engine::machine::random::<32>(&SystemEntropy);
        assert_ne!(draw(), draw());
    }
}
