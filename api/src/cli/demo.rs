//! `keytrail demo`: the whole flow on a temporary store.
//!
//! Exit code 0 only if every step came out as it should, the log verifies, and
//! everything derived from it is the same when it is made again.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use replay::inspect::Row;

use super::{Exit, report};
use crate::demo::{Demo, Step, run as run_demo};
use crate::ports::{SystemClock, SystemEntropy};
use crate::service::Ports;

/// How to show it.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
    /// Leave the store it wrote in this folder, which must be new or empty
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

/// Runs the demo.
pub fn run(arguments: &Arguments) -> Exit {
    let temporary;
    let folder = match &arguments.keep {
        Some(folder) => match made_empty(folder) {
            Ok(()) => folder.as_path(),
            Err(error) => {
                report(&error);
                return Exit::Usage;
            }
        },
        None => match tempfile::tempdir() {
            Ok(made) => {
                temporary = made;
                temporary.path()
            }
            Err(error) => {
                report(&error);
                return Exit::Failed;
            }
        },
    };
    match shown(folder, arguments) {
        Ok(demo) if demo.held => Exit::Ok,
        Ok(_) => Exit::Failed,
        Err(error) => {
            report(&*error);
            Exit::Failed
        }
    }
}

/// Makes sure that the folder is there and holds nothing.
fn made_empty(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    if fs::read_dir(folder)?.next().is_none() {
        return Ok(());
    }
    let message = format!("{} is not empty; --keep wants a new folder", folder.display());
    Err(io::Error::new(io::ErrorKind::AlreadyExists, message))
}

fn shown(folder: &Path, arguments: &Arguments) -> Result<Demo, Box<dyn std::error::Error>> {
    let ports = Ports { clock: Arc::new(SystemClock::start()), entropy: Arc::new(SystemEntropy) };
    if arguments.json {
        let demo = run_demo(folder, &ports, &mut |_| {}, &mut |_| {})?;
        let mut out = io::stdout().lock();
        serde_json::to_writer_pretty(&mut out, &demo)?;
        writeln!(out)?;
        return Ok(demo);
    }
    println!("A server on a free port, two phones, a back end and an administrator, over HTTP:\n");
    let mut events = 0;
    let demo = run_demo(folder, &ports, &mut |step| println!("{}", line(step)), &mut |row| {
        if events == 0 {
            println!("\nThe log that this left, read from its files after the server stopped:\n");
        }
        events += 1;
        println!("{}", event_line(row));
    })?;
    print!("{}", summary(&demo));
    if let Some(folder) = &arguments.keep {
        println!("the store is in {}", folder.display());
    }
    Ok(demo)
}

fn line(step: &Step) -> String {
    let Step { what, expected, seen, held, name: _ } = step;
    if *held {
        format!("  ok   {what}\n         {seen}")
    } else {
        format!("  NOT  {what}\n         {seen}\n         expected: {expected}")
    }
}

fn event_line(row: &Row) -> String {
    let (position, time) = (row.record.position.0, replay::rfc3339(row.record.time));
    let time = time.get(11..23).unwrap_or(&time).to_owned();
    format!("  {position:>4}  {time}  {:<22}  {}", row.name(), row.summary())
}

fn summary(demo: &Demo) -> String {
    let digests = &demo.state_digest;
    let yes = |held: bool| if held { "ok  " } else { "NOT " };
    let same = digests.before_rebuild == digests.after_rebuild
        && digests.folded.as_ref() == Some(&digests.after_rebuild);
    let outcome = if demo.held { "All of it held." } else { "NOT all of it held." };
    format!(
        "\n  {} the log of {} records verifies; {} signatures in it were verified again by \
         another library\n         chain {}\n  {} everything derived was deleted and made again: \
         nothing differs\n         state {}\n\n{outcome}\n",
        yes(demo.verified),
        demo.head.records,
        demo.signatures_verified_again,
        demo.head.chain,
        yes(same),
        digests.after_rebuild,
    )
}
