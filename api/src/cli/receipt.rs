//! `keytrail receipt`: checks a receipt with the log's public key, offline.
//!
//! Exit code 0 if it proves what it says, 1 if not, 2 if it was asked wrongly.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use engine::events::Event;
use replay::inspect::Row;
use replay::proof::{Proven, RECEIPT_MAX, Receipt};
use serde_json::json;
use storage::note::VerifierKey;

use super::{Exit, report};

/// Longest record, in bytes.
const RECORD_MAX: usize = 64 * 1024;

/// What to check, and with which key.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The receipt (.tlog-proof)
    #[arg(value_name = "FILE")]
    receipt: PathBuf,
    /// The log's verifier key, or a file that holds it
    #[arg(long, value_name = "KEY")]
    key: String,
    /// File with the record, where the receipt does not hold it
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Checks.
pub fn run(arguments: &Arguments) -> Exit {
    let read = || -> Result<_, Box<dyn std::error::Error>> {
        let text = String::from_utf8(bounded(&arguments.receipt, RECEIPT_MAX)?)?;
        let record = arguments.record.as_ref().map(|path| bounded(path, RECORD_MAX)).transpose()?;
        Ok((text, key(&arguments.key)?, record))
    };
    let (text, key, record) = match read() {
        Ok(read) => read,
        Err(error) => {
            report(&*error);
            return Exit::Usage;
        }
    };
    let receipt = text.parse::<Receipt>();
    let proven =
        receipt.and_then(|receipt| Ok((receipt.index, receipt.check(&key, record.as_deref())?)));
    match proven {
        Ok((index, proven)) => match print(index, &proven, arguments.json) {
            Ok(()) => Exit::Ok,
            Err(error) => {
                report(&*error);
                Exit::Failed
            }
        },
        Err(error) => {
            report(&error);
            Exit::Failed
        }
    }
}

/// A verifier key, given as such or in a file.
pub(super) fn key(given: &str) -> Result<VerifierKey, Box<dyn std::error::Error>> {
    if let Ok(key) = given.parse() {
        return Ok(key);
    }
    let text = bounded(Path::new(given), 4_096)?;
    Ok(String::from_utf8(text)?.parse()?)
}

/// A file of at most `max` bytes.
pub(super) fn bounded(path: &Path, max: usize) -> io::Result<Vec<u8>> {
    let failed =
        |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(failed)?;
    file.take(max as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() > max {
        let message = format!("{}: longer than {max} bytes", path.display());
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    Ok(bytes)
}

fn print(index: u64, proven: &Proven, json: bool) -> Result<(), Box<dyn std::error::Error>> {
    let Proven { record, checkpoint } = proven;
    let (record, _) = storage::record::decode(record)?;
    let draft = &record.draft;
    let event = Event::decode(draft.event_type, draft.schema, &draft.clear);
    let row = Row { record, event };
    let mut out = io::stdout().lock();
    if json {
        let proven = json!({
            "proven": true,
            "origin": checkpoint.origin,
            "index": index,
            "checkpoint_size": checkpoint.size,
            "event": row.to_json(),
        });
        writeln!(out, "{proven}")?;
    } else {
        writeln!(out, "proven   record {index} of {} stands in the log", checkpoint.size)?;
        writeln!(out, "log      {}", checkpoint.origin)?;
        writeln!(out, "time     {}", replay::rfc3339(row.record.time))?;
        writeln!(out, "event    {}  {}", row.name(), row.summary())?;
    }
    Ok(out.flush()?)
}
