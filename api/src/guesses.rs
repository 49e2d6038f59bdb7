//! Wrong activation codes: who may still try.
//!
//! A guess attacks every live code of an application at once and matches none,
//! so it is counted on the application and on where it came from. The limits
//! are the application's configuration.
//!
//! A wrong recovery code is counted here on its source alone: the registration that
//! it is meant for has a count of its own, in the log.

use engine::config::Config;
use engine::ids::{Id, Micros};
use engine::reasons::{BudgetScope, CodeKind};

use crate::http::source::Source;
use crate::limiter::{Counted, Exhausted, Limiter, Limits};

/// Sources counted apart from each other; about 100 bytes each.
const SOURCES_MAX: usize = 100_000;
/// Applications counted apart from each other.
const APPLICATIONS_MAX: usize = 10_000;

/// Who tries what.
#[derive(Debug, Clone, Copy)]
pub struct Guesser {
    /// Whose codes; nil where there is no such application.
    pub application: Id,
    /// From where.
    pub source: Source,
    /// Codes or QR secrets.
    pub kind: CodeKind,
}

/// Counts of wrong activation codes, in memory.
#[derive(Debug)]
pub struct Guesses {
    by_source: Limiter<(Id, Source)>,
    by_application: Limiter<Id>,
}

impl Default for Guesses {
    fn default() -> Self {
        Self {
            by_source: Limiter::new(SOURCES_MAX),
            by_application: Limiter::new(APPLICATIONS_MAX),
        }
    }
}

impl Guesses {
    /// Whether this guesser may try at `now` (monotonic time).
    ///
    /// # Errors
    ///
    /// [`Exhausted`] if it or, for typed codes, the application has had too many wrong ones.
    pub fn check(&self, guesser: Guesser, config: &Config, now: Micros) -> Result<(), Exhausted> {
        let Guesser { application, source, kind } = guesser;
        self.by_source.check(&(application, source), limits(config, BudgetScope::Source), now)?;
        match kind {
            CodeKind::Typed => {
                let limits = limits(config, BudgetScope::Application);
                self.by_application.check(&application, limits, now)
            }
            CodeKind::Qr | CodeKind::Recovery => Ok(()),
        }
    }

    /// Counts a wrong code; returns the budgets that it used up.
    pub fn count(&self, guesser: Guesser, config: &Config, now: Micros) -> Vec<BudgetScope> {
        let Guesser { application, source, kind } = guesser;
        let mut exhausted = Vec::new();
        let of_source = limits(config, BudgetScope::Source);
        let counted = self.by_source.count_failure((application, source), of_source, now);
        if counted == Counted::JustExhausted {
            exhausted.push(BudgetScope::Source);
        }
        // Nobody guesses 128 bits: noise there must not keep people from typing their codes.
        if kind == CodeKind::Typed {
            let of_application = limits(config, BudgetScope::Application);
            let counted = self.by_application.count_failure(application, of_application, now);
            if counted == Counted::JustExhausted {
                exhausted.push(BudgetScope::Application);
            }
        }
        exhausted
    }
}

/// What the configuration allows in a scope.
fn limits(config: &Config, scope: BudgetScope) -> Limits {
    Limits {
        failures_max: budget(config, scope),
        window_s: config.activation_failure_window_s.into(),
    }
}

/// Wrong codes that the configuration allows in a scope.
#[must_use]
pub fn budget(config: &Config, scope: BudgetScope) -> u32 {
    match scope {
        BudgetScope::Application => config.activation_failure_budget,
        BudgetScope::Source => config.activation_failure_budget_per_source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(last: u8) -> Source {
        Source::of_address(std::net::IpAddr::from([192, 0, 2, last]))
    }

    fn config() -> Config {
        Config {
            activation_failure_budget: 3,
            activation_failure_budget_per_source: 2,
            ..Config::default()
        }
    }

    fn typed(application: u8, last: u8) -> Guesser {
        Guesser { application: Id([application; 16]), source: source(last), kind: CodeKind::Typed }
    }

    #[test]
    fn a_source_is_stopped_before_the_application_and_each_is_said_once() {
        let (guesses, config, now) = (Guesses::default(), config(), Micros(0));
        assert_eq!(guesses.count(typed(1, 1), &config, now), []);
        assert_eq!(guesses.count(typed(1, 1), &config, now), [BudgetScope::Source]);
        assert!(guesses.check(typed(1, 1), &config, now).is_err());
        assert_eq!(guesses.check(typed(1, 2), &config, now), Ok(()));
        assert_eq!(guesses.count(typed(1, 2), &config, now), [BudgetScope::Application]);
        let exhausted = Err(Exhausted { retry_after_s: 600 });
        assert_eq!(guesses.check(typed(1, 3), &config, now), exhausted);
        assert_eq!(guesses.check(typed(2, 3), &config, now), Ok(()));
        assert_eq!(guesses.check(typed(1, 3), &config, now.plus_s(600)), Ok(()));
    }

    #[test]
    fn wrong_qr_secrets_count_on_their_source_alone() {
        let (guesses, config, now) = (Guesses::default(), config(), Micros(0));
        let scanned = |last| Guesser { kind: CodeKind::Qr, ..typed(1, last) };
        for last in 1..=9 {
            assert_eq!(guesses.count(scanned(last), &config, now), []);
        }
        assert_eq!(guesses.check(typed(1, 1), &config, now), Ok(()));
        assert_eq!(guesses.count(scanned(1), &config, now), [BudgetScope::Source]);
        assert!(guesses.check(scanned(1), &config, now).is_err());
    }
}
