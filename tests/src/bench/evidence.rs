//! What the evidence costs: the tree and its checkpoints while the log is
//! written, receipts, and verifying it level by level.
//!
//! The log is made as in [`super::crowd`]: its verdicts were made beforehand, so
//! level 5 has nothing to do here; the bench `server` measures it on real
//! signatures.

use std::path::Path;
use std::sync::Arc;
use std::thread;

use api::ports::SystemClock;
use engine::ids::{Micros, Position};
use engine::machine::Clock;
use replay::proof::Receipt;
use replay::report::Level;
use serde::{Deserialize, Serialize};
use storage::disk::RealDisk;
use storage::notary::{self, Notary};
use storage::reader::LogReader;
use tokio::sync::watch;

use super::crowd::{Crowd, Until};
use super::machine::{Threads, peak_mib, process_cpu_us};
use super::start::{self, Stage};
use super::{Outcome, Plan, Spread, spread};

/// How often a checkpoint is signed: the server's own setting.
const EVERY_MS: u64 = 1_000;

/// Writers that make the load.
const WRITERS: usize = 64;

/// Receipts that are made and measured.
const RECEIPTS: u64 = 512;

/// What the evidence costs.
#[derive(Debug, Serialize)]
pub(crate) struct Evidence {
    /// While the log is written.
    pub(crate) writing: Writing,
    /// Receipts of records all over the log, in bytes.
    pub(crate) receipts: Receipts,
    /// Runs of `verify`, each through more levels.
    pub(crate) levels: Vec<Verified>,
    /// Most memory that `verify` took, in a process of its own.
    pub(crate) memory: Vec<Memory>,
}

/// The tree and checkpoints, beside the log's writer.
#[derive(Debug, Serialize)]
pub(crate) struct Writing {
    /// Events acknowledged meanwhile.
    pub(crate) events: u64,
    /// Checkpoints signed.
    pub(crate) checkpoints: u64,
    /// CPU of the thread that keeps the tree and signs, for one event, in microseconds.
    pub(crate) notary_us: f64,
    /// CPU of the log's writer for one event, in microseconds.
    pub(crate) writer_us: f64,
    /// From a group's durability to a checkpoint that covers it, in milliseconds.
    pub(crate) lag_ms: Spread,
}

/// Lengths of receipts.
#[derive(Debug, Serialize)]
pub(crate) struct Receipts {
    /// Records in the log that they are of.
    pub(crate) size: u64,
    /// With the record in it.
    pub(crate) with_record: Spread,
    /// The longest with the record in it.
    pub(crate) longest: u64,
    /// Without the record, for whoever keeps that apart.
    pub(crate) without_record: Spread,
}

/// A run of `verify` through some of its levels.
#[derive(Debug, Serialize)]
pub(crate) struct Verified {
    /// The levels in the run.
    pub(crate) levels: &'static str,
    /// Events a second of CPU.
    pub(crate) events_per_s: f64,
}

/// Memory of `verify`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Memory {
    /// Events in the log.
    pub(crate) events: u64,
    /// The most that was resident, in MiB.
    pub(crate) peak_mib: f64,
}

/// Measures.
///
/// # Errors
///
/// If the store, the notary or `verify` fails.
pub(crate) fn run(dir: &Path, plan: &Plan) -> Outcome<Evidence> {
    let (small, large) = (dir.join("small"), dir.join("large"));
    let mut crowd = Crowd::new(&small, plan.registrations, |_| ())?;
    fill(&mut crowd, plan, plan.events / 10)?;
    crowd.close()?;

    let mut crowd = Crowd::new(&large, plan.registrations, |_| ())?;
    let notary = start(&large, &crowd)?;
    let writing = write(&mut crowd, &notary, plan.seconds)?;
    fill(&mut crowd, plan, plan.events)?;
    notary.sign_now()?;
    let receipts = receipts(&crowd.store.log, &notary)?;
    notary.stop()?;
    crowd.close()?;

    let levels = levels(&large)?;
    let memory = [&small, &large].map(|data| peak(data, plan));
    let memory = memory.into_iter().collect::<Outcome<_>>()?;
    Ok(Evidence { writing, receipts, levels, memory })
}

/// Logs in until the log has about so many events.
fn fill(crowd: &mut Crowd, plan: &Plan, events: u64) -> Outcome<()> {
    let more = events.saturating_sub(crowd.store.log.head().size) / super::login::EVENTS;
    if more > 0 {
        crowd.log_in(plan.registrations.min(256), Until::LogIns(more))?;
    }
    Ok(())
}

fn start(data: &Path, crowd: &Crowd) -> Outcome<Notary> {
    let options = notary::Options {
        guard: data.join("guard"),
        disk: Arc::new(RealDisk),
        every_ms: Some(EVERY_MS),
        fatal: Arc::new(|message| {
            eprintln!("bench: {message}");
            std::process::abort();
        }),
    };
    let store = &crowd.store;
    Ok(Notary::start(data, store.log.clone(), &store.keys, &store.origin, None, options)?)
}

fn write(crowd: &mut Crowd, notary: &Notary, seconds: f64) -> Outcome<Writing> {
    // The tree over what is there already is not part of it.
    notary.sign_now()?;
    let heads = crowd.store.log.watch();
    let signed = notary.evidence().watch();
    let (end, ended) = watch::channel(());
    let before = Threads::now()?;
    let watching = thread::spawn(move || lags(heads, signed, ended));
    let sample = crowd.log_in(WRITERS, Until::Seconds(seconds))?;
    let spent = Threads::now()?.since(before, sample.events);
    drop(end);
    let (checkpoints, lags) = watching.join().map_err(|_| "the watching thread panicked")??;
    Ok(Writing {
        events: sample.events,
        checkpoints,
        notary_us: spent.notary,
        writer_us: spent.writer,
        lag_ms: spread(lags),
    })
}

/// Notes when groups become durable and when a checkpoint covers them, until
/// `ended` closes: the number of checkpoints, and each group's wait in milliseconds.
fn lags(
    mut heads: watch::Receiver<storage::block::Head>,
    mut signed: watch::Receiver<Option<Arc<notary::Guard>>>,
    mut ended: watch::Receiver<()>,
) -> Outcome<(u64, Vec<u64>)> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let clock = SystemClock::start();
    runtime.block_on(async {
        let (mut waiting, mut lags, mut checkpoints) = (Vec::new(), Vec::new(), 0);
        signed.mark_unchanged();
        loop {
            tokio::select! {
                biased;
                _ = ended.changed() => return Ok((checkpoints, lags)),
                changed = signed.changed() => {
                    changed?;
                    let size = signed.borrow_and_update().as_ref().map(|guard| guard.checkpoint.size);
                    let size = size.unwrap_or(0);
                    checkpoints += 1;
                    let now = clock.monotonic();
                    waiting.retain(|(head, since): &(u64, Micros)| {
                        if *head <= size {
                            lags.push((now.0 - since.0) / 1_000);
                        }
                        *head > size
                    });
                }
                changed = heads.changed() => {
                    changed?;
                    waiting.push((heads.borrow_and_update().size, clock.monotonic()));
                }
            }
        }
    })
}

fn receipts(log: &LogReader, notary: &Notary) -> Outcome<Receipts> {
    let evidence = notary.evidence();
    let latest = evidence.latest().ok_or("nothing was signed")?;
    let size = latest.checkpoint.size;
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for number in 0..RECEIPTS.min(size) {
        let index = number * size / RECEIPTS.min(size);
        let proof = evidence.inclusion_proof(index, size)?;
        let record = log.raw(Position(index))?;
        let mut receipt = Receipt { record: Some(record), index, proof, note: latest.note.clone() };
        receipt.check(evidence.verifier(), None)?;
        with.push(receipt.text().len() as u64);
        receipt.record = None;
        without.push(receipt.text().len() as u64);
    }
    let longest = with.iter().copied().max().unwrap_or(0);
    Ok(Receipts { size, with_record: spread(with), longest, without_record: spread(without) })
}

/// Runs of `verify`, each through more levels than the one before it.
const RUNS: &[(&str, Level)] = &[
    ("1, records and chain", Level::Records),
    ("1 and the second copy", Level::Copies),
    ("1 to 3, tree and checkpoints", Level::Since),
    ("all but the signatures' arithmetic", Level::Replay),
];

fn levels(data: &Path) -> Outcome<Vec<Verified>> {
    let this = std::process::id();
    let mut runs = Vec::new();
    for &(levels, through) in RUNS {
        let before = process_cpu_us(this)?;
        let options = replay::verify::Options { through, ..replay::verify::Options::default() };
        let report = replay::verify(data, &options)?;
        let spent = (process_cpu_us(this)? - before).max(1);
        runs.push(Verified { levels, events_per_s: report.records as f64 * 1e6 / spent as f64 });
    }
    Ok(runs)
}

/// `verify` in a process of its own.
fn peak(data: &Path, plan: &Plan) -> Outcome<Memory> {
    start::once(Stage::Verify, data, plan)
}

/// What that process does.
///
/// # Errors
///
/// If the folder cannot be read.
pub(crate) fn verify(data: &Path) -> Outcome<Memory> {
    let report = replay::verify(data, &replay::verify::Options::default())?;
    Ok(Memory { events: report.records, peak_mib: peak_mib(std::process::id())? })
}
