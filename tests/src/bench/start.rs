//! Starting after an unclean stop: how long, and with how much memory.
//!
//! A process of its own fills a folder and is killed; another opens it. What a
//! log-in takes on the disk is measured on the way.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;

use api::ports::SystemClock;
use clap::ValueEnum;
use engine::Keytrail;
use engine::entries::{Key, KeyKind};
use engine::machine::Clock;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use storage::open::Store;

use super::crowd::{self, Crowd, Until};
use super::machine::{disk_bytes, resident_mib, seconds_since};
use super::{Outcome, Plan};

/// What a process of its own does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Stage {
    /// Fills a folder, says so, and waits to be killed.
    Fill,
    /// Opens a folder and says how it went.
    Open,
    /// Runs the server on a folder.
    Serve,
    /// Verifies a folder and says how much memory that took.
    Verify,
}

/// What was seen.
#[derive(Debug, Serialize)]
pub(crate) struct Start {
    /// Registrations.
    pub(crate) registrations: usize,
    /// The folder before the kill.
    pub(crate) filled: Filled,
    /// The start after it.
    pub(crate) opened: Opened,
}

/// A folder that was filled.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Filled {
    /// Events in the log.
    pub(crate) events: u64,
    /// Log-ins among them.
    pub(crate) log_ins: u64,
    /// Bytes of a log-in's events in the journal.
    pub(crate) log_bytes_per_log_in: f64,
    /// Bytes that `store/` grew by for one log-in, by what it takes on the disk:
    /// the second copy, and state, which remembers an operation for a day.
    pub(crate) store_bytes_per_log_in: f64,
    /// Both.
    pub(crate) bytes_per_log_in: f64,
}

/// A folder that was opened.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Opened {
    /// From the call to open until commands are taken, in seconds.
    pub(crate) seconds: f64,
    /// Records that were read again to bring the store up to the log.
    pub(crate) replayed: u64,
    /// Why state was made again, if it was.
    pub(crate) state_remade: Option<String>,
    /// Resident memory then, in MiB.
    pub(crate) resident_mib: f64,
    /// The same after every registration was read once.
    pub(crate) resident_after_reads_mib: f64,
}

/// Fills, kills, opens.
///
/// # Errors
///
/// If one of the processes fails.
pub(crate) fn run(dir: &Path, plan: &Plan) -> Outcome<Start> {
    let mut filling = stage(Stage::Fill, dir, plan)?;
    let filled = line(&mut filling)?;
    filling.kill()?;
    filling.wait()?;
    let filled = serde_json::from_str(&filled)?;
    let opened = once(Stage::Open, dir, plan)?;
    Ok(Start { registrations: plan.registrations, filled, opened })
}

/// What a stage that ends by itself says.
///
/// # Errors
///
/// If it fails.
pub(crate) fn once<T: DeserializeOwned>(of: Stage, dir: &Path, plan: &Plan) -> Outcome<T> {
    let mut process = stage(of, dir, plan)?;
    let said = line(&mut process)?;
    if !process.wait()?.success() {
        return Err(format!("the process of stage {of:?} failed").into());
    }
    Ok(serde_json::from_str(&said)?)
}

/// This program once more, as one stage.
fn stage(stage: Stage, dir: &Path, plan: &Plan) -> Outcome<Child> {
    let name = stage.to_possible_value().ok_or("the stage has no name")?;
    let child = Command::new(std::env::current_exe()?)
        .arg("--stage")
        .arg(name.get_name())
        .arg("--dir")
        .arg(dir)
        .arg("--registrations")
        .arg(plan.registrations.to_string())
        .arg("--events")
        .arg(plan.events.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    Ok(child)
}

/// The one line that a stage prints.
fn line(child: &mut Child) -> Outcome<String> {
    let output = child.stdout.take().ok_or("the process has no output")?;
    let mut text = String::new();
    BufReader::new(output).read_line(&mut text)?;
    if text.is_empty() { Err("the process said nothing".into()) } else { Ok(text) }
}

/// Runs a stage in this process.
///
/// # Errors
///
/// If the store fails.
pub(crate) fn run_stage(stage: Stage, dir: &Path, plan: &Plan) -> Outcome<ExitCode> {
    match stage {
        Stage::Fill => {
            let (crowd, filled) = fill(dir, plan)?;
            println!("{}", serde_json::to_string(&filled)?);
            // Killed meanwhile; or the parent is gone, and its end of the pipe.
            let _ = std::io::stdin().read(&mut [0]);
            drop(crowd);
        }
        Stage::Open => println!("{}", serde_json::to_string(&open(dir)?)?),
        Stage::Verify => println!("{}", serde_json::to_string(&super::evidence::verify(dir)?)?),
        Stage::Serve => return Ok(super::server::serve(dir)),
    }
    Ok(ExitCode::SUCCESS)
}

fn fill(dir: &Path, plan: &Plan) -> Outcome<(Crowd, Filled)> {
    let mut crowd = Crowd::new(dir, plan.registrations, |_| ())?;
    crowd.store.digest()?;
    let store = dir.join("store");
    let before = disk_bytes(&store)?;
    let events = crowd.store.log.head().size;
    let log_ins = (plan.events.saturating_sub(events) / super::login::EVENTS).max(1);
    crowd.log_in(plan.registrations.min(256), Until::LogIns(log_ins))?;
    // So that the killed store was one in use and not one at rest: only what
    // the writer behind has in hand may be missing from it.
    let store_bytes = disk_bytes(&store)?.saturating_sub(before) as f64 / log_ins as f64;
    let log_bytes = crowd.bytes_per_event(3_000)? * super::login::EVENTS as f64;
    let filled = Filled {
        events: crowd.store.log.head().size,
        log_ins,
        log_bytes_per_log_in: log_bytes,
        store_bytes_per_log_in: store_bytes,
        bytes_per_log_in: log_bytes + store_bytes,
    };
    Ok((crowd, filled))
}

fn open(dir: &Path) -> Outcome<Opened> {
    let clock = Arc::new(SystemClock::start());
    let start = clock.monotonic();
    let store = Store::<Keytrail>::open(dir, crowd::options(&clock))?;
    let seconds = seconds_since(&*clock, start);
    let pid = std::process::id();
    let resident = resident_mib(pid)?;
    read_registrations(&store);
    let opened = Opened {
        seconds,
        replayed: store.report.replayed,
        state_remade: store.report.state_remade.clone(),
        resident_mib: resident,
        resident_after_reads_mib: resident_mib(pid)?,
    };
    store.close()?;
    Ok(opened)
}

/// Reads every registration, as requests would.
fn read_registrations(store: &Store<Keytrail>) {
    let (from, to) = Key::range(KeyKind::Registration);
    let mut from = from.to_vec();
    loop {
        let page = store.state.scan(&from, &to, 1_000);
        let Some((last, _)) = page.last() else { return };
        from = last.bytes();
        from.push(0);
        for (key, _) in &page {
            drop(store.state.get(key));
        }
    }
}
