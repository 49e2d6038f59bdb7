//! `keytrail inspect`: the events of a data folder, or a copy of it, as they
//! stand in the log. Changes nothing.
//!
//! Exit code 0, or 1 if damage was found on the way, or 2 if it could not be
//! looked at. What is found on the way is on standard error.

use std::io::{self, BufWriter, Write};
use std::ops::{ControlFlow, Range};
use std::path::PathBuf;

use clap::Args;
use engine::events::REGISTRY;
use engine::ids::{Id, Micros};
use replay::inspect::{Filter, Inspected, Row, inspect};

use super::{Exit, report};

/// Which events, and in which form.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Folder that holds log/: of a stopped server, or a copy
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Positions: A..B (A included, B excluded), A.., ..B, or one position
    #[arg(long, value_name = "A..B", value_parser = positions)]
    position: Option<Range<u64>>,
    /// Events of this stream: a registration, an application, an API key (repeatable)
    #[arg(long, value_name = "ID", value_parser = stream)]
    stream: Vec<Id>,
    /// Events of this type, as AuthenticationJudged (repeatable)
    #[arg(long = "type", value_name = "NAME", value_parser = event_type)]
    types: Vec<String>,
    /// Events at or after this time (RFC 3339)
    #[arg(long, value_name = "TIME", value_parser = moment)]
    from: Option<Micros>,
    /// Events before this time (RFC 3339)
    #[arg(long, value_name = "TIME", value_parser = moment)]
    to: Option<Micros>,
    /// At most this many events
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Print one JSON object per event and line
    #[arg(long)]
    json: bool,
}

/// Shows the events.
pub fn run(arguments: &Arguments) -> Exit {
    let filter = Filter {
        positions: arguments.position.clone().unwrap_or(0..u64::MAX),
        streams: arguments.stream.clone(),
        types: arguments.types.clone(),
        from: arguments.from,
        to: arguments.to,
        limit: arguments.limit,
    };
    let mut out = BufWriter::new(io::stdout().lock());
    let mut written = Ok(());
    let mut show = |row: Row| {
        written = line(&mut out, &row, arguments.json);
        if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    let inspected = inspect(&arguments.dir, &filter, &mut show);
    match (inspected, written.and_then(|()| out.flush())) {
        (Err(error), _) => {
            report(&error);
            Exit::Usage
        }
        // Whoever read it has seen enough.
        (Ok(_), Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Ok,
        (Ok(_), Err(error)) => {
            report(&error);
            Exit::Usage
        }
        (Ok(inspected), Ok(())) => findings(&inspected),
    }
}

fn line(out: &mut impl Write, row: &Row, json: bool) -> io::Result<()> {
    if json {
        return writeln!(out, "{}", row.to_json());
    }
    let record = &row.record;
    let stream =
        if record.draft.stream.is_nil() { "-".to_owned() } else { record.draft.stream.to_string() };
    let time = replay::rfc3339(record.time);
    let sealed = match record.draft.sealed.len() {
        0 => String::new(),
        len => format!(" [{len} bytes sealed]"),
    };
    let position = record.position.0;
    let (name, summary) = (row.name(), row.summary());
    writeln!(out, "{position:>8}  {time}  {name:22}  {stream:36}  {summary}{sealed}")
}

fn findings(inspected: &Inspected) -> Exit {
    let mut damaged = false;
    for finding in &inspected.findings {
        damaged |= finding.what.is_damage();
        eprintln!("keytrail: {}", replay::printable(&finding.to_string()));
    }
    if damaged { Exit::Failed } else { Exit::Ok }
}

fn positions(text: &str) -> Result<Range<u64>, String> {
    let number = |text: &str, missing: u64| match text {
        "" => Ok(missing),
        digits => digits.parse().map_err(|_| format!("{digits:?} is no position")),
    };
    match text.split_once("..") {
        Some((from, to)) => Ok(number(from, 0)?..number(to, u64::MAX)?),
        None => {
            let one: u64 = text.parse().map_err(|_| format!("{text:?} is no position"))?;
            Ok(one..one.saturating_add(1))
        }
    }
}

fn stream(text: &str) -> Result<Id, String> {
    text.parse().map_err(|_| "it must be a UUID".to_owned())
}

fn event_type(text: &str) -> Result<String, String> {
    if REGISTRY.iter().any(|(_, _, name)| *name == text) {
        return Ok(text.to_owned());
    }
    let names: Vec<&str> = REGISTRY.iter().map(|(_, _, name)| *name).collect();
    Err(format!("the types are {}", names.join(", ")))
}

fn moment(text: &str) -> Result<Micros, String> {
    replay::micros_of(text).ok_or_else(|| "it must be RFC 3339, as 2026-11-24T09:00:00Z".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_a_range_or_one() {
        assert_eq!(positions("3..7"), Ok(3..7));
        assert_eq!(positions("3.."), Ok(3..u64::MAX));
        assert_eq!(positions("..7"), Ok(0..7));
        assert_eq!(positions("7"), Ok(7..8));
        for text in ["", "x", "1..x", "-1", "1-2"] {
            assert!(positions(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_type_is_one_of_the_registry() {
        assert_eq!(event_type("LogStarted"), Ok("LogStarted".to_owned()));
        assert!(event_type("logstarted").unwrap_err().contains("LogStarted"));
    }
}
