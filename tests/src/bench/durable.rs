//! Durable events a second, beside the plain file in the same minutes.
//!
//! For each number of writers, one after the other: half of the plain file's
//! time, the log alone, everything, the other half of the plain file's time.
//!
//! *Log alone* is the store itself with its writer behind held: rules, state in
//! memory, records, chain and journal, and neither sled's copy nor sled's state.
//! *Everything* is the store as the server runs it.

use std::path::Path;

use serde::Serialize;

use super::crowd::{self, Crowd, Until};
use super::plain_file::{self, PlainFile, Stretches};
use super::{Outcome, Plan};

/// One number of writers.
#[derive(Debug, Serialize)]
pub(crate) struct Durable {
    /// Writers.
    pub(crate) writers: usize,
    /// The plain file.
    pub(crate) plain_file: plain_file::Sample,
    /// The log alone.
    pub(crate) log_only: crowd::Sample,
    /// The log alone over the plain file.
    pub(crate) log_only_ratio: f64,
    /// Everything.
    pub(crate) everything: crowd::Sample,
    /// Everything over the plain file.
    pub(crate) everything_ratio: f64,
}

/// All of it.
#[derive(Debug, Serialize)]
pub(crate) struct DurableRun {
    /// Registrations that the log-ins spread over.
    pub(crate) registrations: usize,
    /// Mean length of a log-in's events as the journal frames them: so long are
    /// the plain file's entries.
    pub(crate) bytes_per_event: f64,
    /// For each number of writers.
    pub(crate) by_writers: Vec<Durable>,
}

/// Log-ins before the first measurement.
const WARM_UP: u64 = 1_000;

/// Measures.
///
/// # Errors
///
/// If a store or the plain file fails.
pub(crate) fn run(dir: &Path, plan: &Plan) -> Outcome<DurableRun> {
    let plain = PlainFile::new(dir)?;
    let mut alone = Crowd::new(&dir.join("log-only"), plan.registrations, |options| {
        options.lag_max = u64::MAX;
        options.lag_bytes_max = usize::MAX;
    })?;
    let mut whole = Crowd::new(&dir.join("everything"), plan.registrations, |_| ())?;
    for crowd in [&mut alone, &mut whole] {
        crowd.log_in(64.min(plan.registrations), Until::LogIns(WARM_UP))?;
    }
    let bytes = alone.bytes_per_event(WARM_UP)?;
    let mut by_writers = Vec::new();
    for &writers in &plan.writers {
        let mut stretches = Stretches::default();
        plain.run(writers, bytes as usize, plan.seconds / 2.0, &mut stretches)?;
        // What is held back is in memory, so the time is bounded.
        alone.store.hold_write_behind(true);
        let log_only = alone.log_in(writers, Until::Seconds(plan.seconds.min(10.0)))?;
        alone.store.hold_write_behind(false);
        alone.store.digest()?;
        let everything = whole.log_in(writers, Until::Seconds(plan.seconds))?;
        whole.store.digest()?;
        plain.run(writers, bytes as usize, plan.seconds / 2.0, &mut stretches)?;
        let plain_file = stretches.sample(writers);
        by_writers.push(Durable {
            writers,
            log_only_ratio: log_only.events_per_s / plain_file.entries_per_s,
            everything_ratio: everything.events_per_s / plain_file.entries_per_s,
            plain_file,
            log_only,
            everything,
        });
    }
    alone.close()?;
    whole.close()?;
    Ok(DurableRun { registrations: plan.registrations, bytes_per_event: bytes, by_writers })
}
