//! Failures of one level, as they are collected.

use std::collections::BTreeSet;

use crate::one_line;
use crate::report::{Failure, Level, LevelReport, Outcome, Place};

/// Characters of what failed that are kept: records can hold long values.
const WHAT_MAX: usize = 400;

/// Collects what one level finds. Memory is bounded: only the first failures
/// are kept, by their place in the log.
#[derive(Debug, Clone, Default)]
pub(super) struct Findings {
    kept: BTreeSet<Failure>,
    kept_max: usize,
    total: u64,
    /// What was counted, by name.
    counts: Vec<(&'static str, u64)>,
    /// What is no failure.
    pub(super) remarks: Vec<String>,
}

impl Findings {
    /// Nothing found, and `counted` things not seen yet.
    pub(super) fn new(kept_max: usize, counted: &[&'static str]) -> Self {
        let counts = counted.iter().map(|name| (*name, 0)).collect();
        Self { kept_max, counts, ..Self::default() }
    }

    /// Counts one more of what is called `name`.
    pub(super) fn count(&mut self, name: &'static str) {
        self.add(name, 1);
    }

    /// Adds a failure.
    pub(super) fn fail(&mut self, place: Place, what: impl Into<String>, means: &str) {
        self.total += 1;
        let mut what = one_line(&what.into());
        if let Some((end, _)) = what.char_indices().nth(WHAT_MAX) {
            what.truncate(end);
            what.push('…');
        }
        self.keep(Failure { place, what, means: means.to_owned() });
    }

    /// Takes in what another one collected of the same level.
    pub(super) fn merge(&mut self, other: Self) {
        self.total += other.total;
        for (name, count) in other.counts {
            self.add(name, count);
        }
        self.remarks.extend(other.remarks);
        other.kept.into_iter().for_each(|failure| self.keep(failure));
    }

    /// The report of `level`; `otherwise` is its outcome if nothing failed.
    pub(super) fn report(self, level: Level, otherwise: Outcome) -> LevelReport {
        LevelReport {
            level,
            outcome: if self.total > 0 { Outcome::Fails } else { otherwise },
            counts: self.counts,
            failures: self.kept.into_iter().collect(),
            failures_total: self.total,
            remarks: self.remarks,
        }
    }

    /// How many of what is called `name` were counted.
    pub(super) fn counted(&self, name: &str) -> u64 {
        self.counts.iter().find(|(counted, _)| *counted == name).map_or(0, |(_, count)| *count)
    }

    /// Counts more of what is called `name`.
    pub(super) fn add(&mut self, name: &'static str, more: u64) {
        match self.counts.iter_mut().find(|(counted, _)| *counted == name) {
            Some((_, count)) => *count += more,
            None => self.counts.push((name, more)),
        }
    }

    fn keep(&mut self, failure: Failure) {
        self.kept.insert(failure);
        if self.kept.len() > self.kept_max {
            self.kept.pop_last();
        }
    }
}
