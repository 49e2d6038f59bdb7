//! `keytrail verify`: checks a data folder, or a copy of it, and changes nothing.
//!
//! Exit code 0 if every level holds, 1 if one does not, 2 if it could not be
//! verified: no log there, a server runs on it, files that cannot be read.

use std::cell::RefCell;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use replay::report::Report;
use replay::verify::{Kept, Options, Phase, WitnessPolicy, verify};
use storage::note::{NOTE_MAX, Note, NoteError};

use super::receipt::{bounded, key};
use super::{Exit, report};

/// What to verify, and how to say it.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Folder that holds log/: of a stopped server, or a copy
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Print the report as one JSON object
    #[arg(long)]
    json: bool,
    /// The log's verifier key, or a file that holds it [default: the one in the folder, which
    /// proves less]
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// A checkpoint that you kept; may be given several times
    #[arg(long, value_name = "FILE")]
    since: Vec<PathBuf>,
    /// File that says whose cosignatures count: lines `witness KEY` and one `quorum NUMBER`
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Key store that opens sealed attestation evidence: keys/ or a copy of it [default: the one
    /// in the folder, if there is one]
    #[arg(long, value_name = "DIR")]
    keys: Option<PathBuf>,
    /// Folder for the temporary copy of the store [default: the system's]
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
}

/// Verifies.
pub fn run(arguments: &Arguments) -> Exit {
    quiet_sled();
    let bar = Bar::default();
    let progress = |phase, done, total| bar.show(phase, done, total);
    let options = match options(arguments) {
        Ok(options) => Options { progress: Some(&progress), ..options },
        Err(error) => {
            report(&*error);
            return Exit::Usage;
        }
    };
    let verified = verify(&arguments.dir, &options);
    bar.clear();
    let found = match verified {
        Ok(found) => found,
        Err(error) => {
            report(&error);
            return Exit::Usage;
        }
    };
    match print(&found, arguments.json) {
        Ok(()) if found.holds => Exit::Ok,
        Ok(()) => Exit::Failed,
        Err(error) => {
            report(&error);
            Exit::Usage
        }
    }
}

/// What the auditor brought along.
fn options(arguments: &Arguments) -> Result<Options<'static>, Box<dyn std::error::Error>> {
    let mut options = Options {
        scratch: arguments.scratch.clone(),
        keys: arguments.keys.clone(),
        ..Options::default()
    };
    options.key = arguments.key.as_deref().map(key).transpose()?;
    for path in &arguments.since {
        let note = text(path)?
            .parse::<Note>()
            .map_err(|error: NoteError| format!("{}: {error}", path.display()))?;
        options.since.push(Kept { name: path.display().to_string(), note });
    }
    if let Some(path) = &arguments.policy {
        let policy = WitnessPolicy::parse(&text(path)?);
        let policy = policy.map_err(|error| format!("{}: {error}", path.display()))?;
        options.policy = Some(policy);
    }
    Ok(options)
}

fn text(path: &Path) -> Result<String, Box<dyn std::error::Error>> {
    Ok(String::from_utf8(bounded(path, NOTE_MAX)?)?)
}

fn print(found: &Report, json: bool) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    if json {
        serde_json::to_writer(&mut out, found)?;
        writeln!(out)?;
    } else {
        write!(out, "{}", replay::printable(&found.to_string()))?;
    }
    out.flush()
}

/// Keeps the messages of sled's panics off the terminal: on damage it panics,
/// the panic is caught, and what it said is in the report.
pub(super) fn quiet_sled() {
    let others = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let of_sled = panic.location().is_some_and(|place| place.file().contains("/sled-0.34"));
        if !of_sled {
            others(panic);
        }
    }));
}

/// A progress bar on standard error, if that is a terminal.
#[derive(Default)]
pub(super) struct Bar(RefCell<Option<(Phase, ProgressBar)>>);

impl Bar {
    fn show(&self, phase: Phase, done: u64, total: u64) {
        if !std::io::stderr().is_terminal() {
            return;
        }
        let mut shown = self.0.borrow_mut();
        if shown.as_ref().is_none_or(|(of, _)| *of != phase) {
            let label = match phase {
                Phase::Copying => "copying the store",
                Phase::Scanning => "looking through",
                Phase::Reading => "verifying",
            };
            *shown = Some((phase, bar(label, total)));
        }
        if let Some((_, bar)) = shown.as_ref() {
            bar.set_position(done);
        }
    }

    fn clear(&self) {
        if let Some((_, bar)) = self.0.take() {
            bar.finish_and_clear();
        }
    }
}

/// A bar of `total` bytes or records, on standard error.
pub(super) fn bar(label: &'static str, total: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template("{msg} [{bar:40}] {percent}% {eta}") {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_message(label);
    bar
}
