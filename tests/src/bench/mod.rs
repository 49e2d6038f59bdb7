//! What keytrail does in a second, beside what the machine itself does.
//!
//! Run as `cargo run --release -p tests --bin bench -- [BENCH …]`. Each figure
//! that has an aim is a ratio within one run; `docs/performance.md` says what
//! was seen and how. Nothing here is a test: no figure makes anything fail.

mod crowd;
mod draw;
mod durable;
mod evidence;
mod login;
mod machine;
mod plain_file;
mod replay;
mod server;
mod start;
mod table;
mod verification;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use serde::Serialize;

use machine::Machine;
use start::Stage;

/// What a bench gives, or why it could not.
pub(crate) type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Figures and ratios of keytrail on this machine.
#[derive(Debug, Parser)]
#[command(name = "bench")]
pub struct Arguments {
    /// Which benches to run; all of them if none is named
    #[arg(value_enum, value_name = "BENCH")]
    benches: Vec<Bench>,
    /// Print one JSON object instead of tables
    #[arg(long)]
    json: bool,
    /// Folder for what is written; it is made if it is not there, and emptied of
    /// what the bench wrote [default: the system's folder for temporary files]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Seconds of each measurement by the clock
    #[arg(long, value_name = "S", default_value_t = 5.0)]
    seconds: f64,
    /// Numbers of writers
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "1,8,64")]
    writers: Vec<usize>,
    /// Registrations that log-ins spread over
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    registrations: usize,
    /// Events of the log that is replayed, and of the one that is opened
    #[arg(long, value_name = "N", default_value_t = 300_000)]
    events: u64,
    /// Run one process of a bench in the folder
    #[arg(long, hide = true, value_enum)]
    stage: Option<Stage>,
}

/// A bench.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Bench {
    /// Bare verifications by both libraries
    Verification,
    /// Durable events a second beside a plain file
    Durable,
    /// Events a second that are checked and folded again
    Replay,
    /// Start after a kill, memory, disk
    Start,
    /// CPU of the real server for a complete log-in over HTTP
    Server,
    /// Tree, checkpoints, receipts, and verifying them
    Evidence,
}

/// How much is done.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Plan {
    /// Seconds of each measurement.
    pub(crate) seconds: f64,
    /// Numbers of writers.
    pub(crate) writers: Vec<usize>,
    /// Registrations.
    pub(crate) registrations: usize,
    /// Events of a log.
    pub(crate) events: u64,
}

/// What was seen.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Where.
    pub(crate) machine: Machine,
    /// How much was done.
    pub(crate) plan: Plan,
    /// Bare verifications.
    pub(crate) verification: Option<verification::Verification>,
    /// Durable events.
    pub(crate) durable: Option<durable::DurableRun>,
    /// Replay.
    pub(crate) replay: Option<replay::Replay>,
    /// Start after a kill.
    pub(crate) start: Option<start::Start>,
    /// The server over HTTP.
    pub(crate) server: Option<server::ServerRun>,
    /// Evidence.
    pub(crate) evidence: Option<evidence::Evidence>,
}

/// Middle, edge and mean of many values.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Spread {
    /// Half are below.
    pub p50: u64,
    /// 99 of 100 are below.
    pub p99: u64,
    /// The mean.
    pub(crate) mean: f64,
}

/// Describes `values`.
fn spread(mut values: Vec<u64>) -> Spread {
    values.sort_unstable();
    let at = |share: f64| {
        let index = (values.len() as f64 * share) as usize;
        values.get(index.min(values.len().saturating_sub(1))).copied().unwrap_or(0)
    };
    let mean = values.iter().sum::<u64>() as f64 / values.len().max(1) as f64;
    Spread { p50: at(0.5), p99: at(0.99), mean }
}

/// Runs what the command line asks for.
#[must_use]
pub fn main(arguments: &Arguments) -> ExitCode {
    match run(arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Outcome<ExitCode> {
    let plan = Plan {
        seconds: arguments.seconds,
        writers: arguments.writers.clone(),
        registrations: arguments.registrations.max(1),
        events: arguments.events,
    };
    let base = arguments.dir.clone().unwrap_or_else(std::env::temp_dir);
    if let Some(stage) = arguments.stage {
        return start::run_stage(stage, &base, &plan);
    }
    std::fs::create_dir_all(&base)?;
    let report = measure(&base, plan, &chosen(&arguments.benches))?;
    if arguments.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print!("{}", table::of(&report));
    }
    Ok(ExitCode::SUCCESS)
}

fn chosen(named: &[Bench]) -> Vec<Bench> {
    if named.is_empty() { Bench::value_variants().to_vec() } else { named.to_vec() }
}

fn measure(base: &Path, plan: Plan, benches: &[Bench]) -> Outcome<Report> {
    let mut report = Report {
        machine: Machine::of(base),
        plan,
        verification: None,
        durable: None,
        replay: None,
        start: None,
        server: None,
        evidence: None,
    };
    if report.machine.is_memory() {
        eprintln!("bench: {} is in memory: syncing costs nothing there", base.display());
    }
    for bench in Bench::value_variants().iter().filter(|bench| benches.contains(bench)) {
        let plan = &report.plan;
        let dir = tempfile::Builder::new().prefix("keytrail-bench-").tempdir_in(base)?;
        eprintln!("bench: {bench:?} …");
        match bench {
            Bench::Verification => report.verification = Some(verification::run(plan.seconds)?),
            Bench::Durable => report.durable = Some(durable::run(dir.path(), plan)?),
            Bench::Replay => report.replay = Some(replay::run(dir.path(), plan)?),
            Bench::Start => report.start = Some(start::run(dir.path(), plan)?),
            Bench::Server => report.server = Some(server::run(dir.path(), plan)?),
            Bench::Evidence => report.evidence = Some(evidence::run(dir.path(), plan)?),
        }
    }
    report.machine.load_after = machine::load();
    Ok(report)
}
