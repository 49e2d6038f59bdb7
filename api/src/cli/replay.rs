//! `keytrail replay`: what was known at a moment, how a registration came to be
//! what it is, what would have happened under another configuration; and a live
//! log as it grows.
//!
//! Exit code 0, or 1 if the log is damaged or the server refused, or 2 if it
//! could not be looked at or was asked wrongly.

mod follow;

use std::io::{self, BufWriter, Write};
use std::ops::ControlFlow;
use std::path::PathBuf;

use clap::{ArgGroup, Args};
use engine::ids::{Id, Micros, Position};
use replay::history::{Chapter, history};
use replay::moment::moment;
use replay::what_if::{Options, properties, what_if};
use replay::{At, ReplayError};
use serde::Serialize;

use super::{Exit, report};

/// What to show, and of which log.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").required(true).multiple(true)
    .args(["at", "registration", "what_if", "follow"]))]
pub struct Arguments {
    /// Folder that holds log/: of a stopped server, or a copy
    #[arg(value_name = "DIR", required_unless_present = "follow", conflicts_with = "follow")]
    dir: Option<PathBuf>,
    /// What was known then: at a time (RFC 3339), or once a record had been written
    #[arg(long, value_name = "TIME|POSITION", value_parser = at, conflicts_with = "what_if")]
    at: Option<At>,
    /// This registration; without --at, its whole history
    #[arg(long, value_name = "ID", value_parser = id, conflicts_with = "what_if")]
    registration: Option<Id>,
    /// What would have happened with this property, as failures_allowed=1 (repeatable)
    #[arg(long, value_name = "NAME=VALUE")]
    what_if: Vec<String>,
    /// Ask it of this application only
    #[arg(long, value_name = "ID", value_parser = id, requires = "what_if")]
    application: Option<Id>,
    /// Begin with what happened at or after this time or position
    #[arg(long, value_name = "TIME|POSITION", value_parser = at)]
    from: Option<At>,
    /// End before what happened at this time or position
    #[arg(long, value_name = "TIME|POSITION", value_parser = at, requires = "what_if")]
    to: Option<At>,
    /// Print the events of a running server as they come
    #[arg(long, conflicts_with_all = ["at", "what_if"], requires = "key_file")]
    follow: bool,
    #[command(flatten)]
    server: follow::Server,
    /// Print JSON: one object, or one a line
    #[arg(long)]
    json: bool,
}

/// Shows it.
pub fn run(arguments: &Arguments) -> Exit {
    if !arguments.follow && arguments.from.is_some() && arguments.what_if.is_empty() {
        eprintln!("keytrail: --from is for --what-if and --follow");
        return Exit::Usage;
    }
    if arguments.follow {
        return follow::run(
            &arguments.server,
            arguments.registration,
            arguments.from,
            arguments.json,
        );
    }
    let outcome = if !arguments.what_if.is_empty() {
        show_what_if(arguments)
    } else if let Some(at) = arguments.at {
        moment(arguments.folder(), at, arguments.registration)
            .map_err(Failed::from)
            .and_then(|moment| print(&moment, arguments.json))
    } else {
        show_history(arguments)
    };
    match outcome {
        Ok(()) => Exit::Ok,
        Err(failed) => failed.exit(),
    }
}

impl Arguments {
    fn folder(&self) -> &std::path::Path {
        // clap asks for the folder wherever it is used.
        self.dir.as_deref().unwrap_or_else(|| std::path::Path::new("."))
    }
}

/// Why nothing was shown, or not all.
enum Failed {
    Replay(ReplayError),
    Properties(Vec<replay::what_if::PropertyError>),
    Output(io::Error),
}

impl From<ReplayError> for Failed {
    fn from(error: ReplayError) -> Self {
        Self::Replay(error)
    }
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

impl Failed {
    fn exit(self) -> Exit {
        match self {
            Self::Replay(error) => {
                report(&error);
                if error.is_damage() { Exit::Failed } else { Exit::Usage }
            }
            Self::Properties(errors) => {
                errors.iter().for_each(|error| report(error));
                Exit::Usage
            }
            // Whoever read it has seen enough.
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Ok,
            Self::Output(error) => {
                report(&error);
                Exit::Usage
            }
        }
    }
}

fn show_what_if(arguments: &Arguments) -> Result<(), Failed> {
    let options = Options {
        properties: properties(&arguments.what_if).map_err(Failed::Properties)?,
        application: arguments.application,
        from: arguments.from,
        to: arguments.to,
    };
    print(&what_if(arguments.folder(), &options)?, arguments.json)
}

fn show_history(arguments: &Arguments) -> Result<(), Failed> {
    let registration = arguments.registration.unwrap_or_default();
    let mut out = BufWriter::new(io::stdout().lock());
    let mut written = Ok(());
    let told = history(arguments.folder(), registration, &mut |chapter: Chapter| {
        written = if arguments.json {
            writeln!(out, "{}", chapter.to_json())
        } else {
            writeln!(out, "{}", replay::printable(&chapter.to_string()))
        };
        if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    written?;
    out.flush()?;
    for remark in told?.remarks {
        eprintln!("keytrail: {}", replay::printable(&remark));
    }
    Ok(())
}

/// Prints one page, or one object on one line.
fn print(shown: &(impl Serialize + std::fmt::Display), json: bool) -> Result<(), Failed> {
    let mut out = io::stdout().lock();
    if json {
        serde_json::to_writer(&mut out, shown).map_err(io::Error::from)?;
        writeln!(out)?;
    } else {
        write!(out, "{}", replay::printable(&shown.to_string()))?;
    }
    out.flush()?;
    Ok(())
}

/// A time or a position.
pub(super) fn at(text: &str) -> Result<At, String> {
    if let Ok(position) = text.parse() {
        return Ok(At::Position(Position(position)));
    }
    let time: Option<Micros> = replay::micros_of(text);
    let words = "it must be a position, or a time in RFC 3339, as 2026-11-24T09:00:00Z";
    time.map(At::Time).ok_or_else(|| words.to_owned())
}

fn id(text: &str) -> Result<Id, String> {
    text.parse().map_err(|_| "it must be a UUID".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_position_or_a_time() {
        assert_eq!(at("22"), Ok(At::Position(Position(22))));
        assert_eq!(at("1970-01-01T00:00:01Z"), Ok(At::Time(Micros(1_000_000))));
        for text in ["", "-1", "yesterday", "2026-11-24"] {
            assert!(at(text).is_err(), "{text}");
        }
    }
}
