//! `keytrail export`: the log of a stopped server, or of a copy, for others.
//! Changes nothing in the folder.
//!
//! Exit code 0, or 1 if the log is damaged or not what was signed, or 2 if it
//! could not be read or written.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::{ArgGroup, Args};
use replay::export::{Range, jsonl, jsonl_file, manifest_json, tlog};
use replay::{At, ReplayError};

use super::{Exit, report};

/// What to write, and in which form.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("form").required(true).args(["jsonl", "tlog"]))]
pub struct Arguments {
    /// Folder that holds log/: of a stopped server, or a copy
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Write JSON Lines: one record a line, with its bytes; then a manifest
    #[arg(long)]
    jsonl: bool,
    /// Write a folder of evidence: tiles, records, checkpoint, and the journal
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["from", "to", "out"])]
    tlog: Option<PathBuf>,
    /// Begin with the record at this position, or the first at or after this time
    #[arg(long, value_name = "TIME|POSITION", value_parser = super::replay::at)]
    from: Option<At>,
    /// End before the record at this position, or the first at or after this time
    #[arg(long, value_name = "TIME|POSITION", value_parser = super::replay::at)]
    to: Option<At>,
    /// File for the lines, with FILE.manifest.json beside it [default: standard
    /// output, with the manifest as its last line]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Print what was written as one JSON object
    #[arg(long)]
    json: bool,
}

/// Exports.
pub fn run(arguments: &Arguments) -> Exit {
    let range = Range { from: arguments.from, to: arguments.to };
    match (&arguments.tlog, &arguments.out) {
        (Some(folder), _) => evidence(&arguments.dir, folder, arguments.json),
        (None, Some(file)) => match jsonl_file(&arguments.dir, range, file) {
            Ok(manifest) if arguments.json => said(format!("{}\n", manifest_json(&manifest))),
            Ok(manifest) => said(replay::printable(&manifest.to_string())),
            Err(error) => failed(&error),
        },
        (None, None) => lines(&arguments.dir, range),
    }
}

fn lines(dir: &Path, range: Range) -> Exit {
    let mut out = BufWriter::new(io::stdout().lock());
    let manifest = match jsonl(dir, range, &mut out) {
        Ok(manifest) => manifest,
        Err(error) => return failed(&error),
    };
    match writeln!(out, "{}", manifest_json(&manifest)).and_then(|()| out.flush()) {
        Ok(()) => Exit::Ok,
        Err(error) => {
            report(&error);
            Exit::Usage
        }
    }
}

fn evidence(dir: &Path, folder: &Path, json: bool) -> Exit {
    match tlog(dir, folder) {
        Ok(written) if json => said(format!("{}\n", serde_json::json!(written))),
        Ok(written) => said(replay::printable(&written.to_string())),
        Err(error) => {
            report(&error);
            if error.is_damage() { Exit::Failed } else { Exit::Usage }
        }
    }
}

fn said(text: String) -> Exit {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Exit::Ok,
        Err(error) => {
            report(&error);
            Exit::Usage
        }
    }
}

fn failed(error: &ReplayError) -> Exit {
    report(error);
    if error.is_damage() { Exit::Failed } else { Exit::Usage }
}
