//! `keytrail export`: the log of a stopped server, or of a copy, for others.
//!
//! From a server's own folder it is itself an event of the log, recorded before
//! anything is written. A copy is not changed.
//!
//! Exit code 0, or 1 if the log is damaged or not what was signed, or 2 if it
//! could not be read, recorded or written.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::{ArgGroup, Args};
use engine::command::Want;
use engine::events::{DataRevealedV1, ExportMadeV1};
use engine::ids::{Id, Position};
use engine::reasons::{ExportForm, RevealReason};
use replay::export::{
    EvidenceError, Extent, Range, Wanted, evidence, extent, jsonl, jsonl_file, manifest_json,
    signed_size,
};
use replay::{At, ReplayError};
use storage::note::{NOTE_MAX, Note, NoteError};

use super::access::{AccessError, OwnFolder, credential_in, id, is_own_folder};
use super::receipt::bounded;
use super::{Exit, report};
use crate::app::SOFTWARE;

/// What to write, and in which form.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("folder").required(true).args(["dir", "data"]))]
pub struct Arguments {
    /// Folder that holds log/: of a stopped server, or a copy
    #[arg(value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The same
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Write JSON Lines: one record a line, with its bytes; then a manifest
    #[arg(long)]
    jsonl: bool,
    /// New folder for the evidence; with --jsonl, file for the lines, with
    /// FILE.manifest.json beside it [default there: standard output, with the manifest as
    /// its last line]
    #[arg(long, value_name = "PATH", required_unless_present = "jsonl")]
    out: Option<PathBuf>,
    /// Begin with the record at this position, or the first at or after this time
    #[arg(long, value_name = "TIME|POSITION", value_parser = super::replay::at)]
    from: Option<At>,
    /// End before the record at this position, or the first at or after this time
    #[arg(long, value_name = "TIME|POSITION", value_parser = super::replay::at)]
    to: Option<At>,
    /// An earlier checkpoint of the log: prove that the log continues it
    #[arg(long, value_name = "FILE", conflicts_with = "jsonl")]
    since: Option<PathBuf>,
    /// What you are called in the log's record of this export; no person's name
    #[arg(long, value_name = "LABEL", default_value = "operator")]
    by: String,
    /// DIR is a copy although it holds keys/: change nothing in it
    #[arg(long, conflicts_with = "reveal")]
    copy: bool,
    /// Also decrypt what is sealed in the range, into this new file of mode 0600
    #[arg(long, value_name = "FILE", requires_all = ["key_file", "reason", "case"])]
    reveal: Option<PathBuf>,
    /// File of mode 0600 whose first line is an auditor's API key, kt_…
    #[arg(long, value_name = "FILE", requires = "reveal")]
    key_file: Option<PathBuf>,
    /// Why: AUDIT, DISPUTE, INVESTIGATION, LEGAL_OBLIGATION or SUBJECT_ACCESS
    #[arg(long, value_name = "REASON", requires = "reveal", value_parser = reason)]
    reason: Option<RevealReason>,
    /// What names the case outside the log, such as a ticket; no person's name
    #[arg(long, value_name = "TEXT", requires = "reveal")]
    case: Option<String>,
    /// Decrypt only what is sealed for this subject
    #[arg(long, value_name = "ID", requires = "reveal", value_parser = id)]
    subject: Option<Id>,
    /// Print what was written as one JSON object
    #[arg(long)]
    json: bool,
}

fn reason(text: &str) -> Result<RevealReason, String> {
    let words = || RevealReason::ALL.iter().map(|word| word.as_str()).collect::<Vec<_>>();
    RevealReason::parse(text).ok_or_else(|| format!("must be one of {}", words().join(", ")))
}

/// Why there is no export.
#[derive(Debug, thiserror::Error)]
enum ExportError {
    #[error(transparent)]
    Replay(#[from] ReplayError),
    #[error(transparent)]
    Evidence(#[from] EvidenceError),
    #[error(transparent)]
    Access(#[from] AccessError),
    #[error("{0}")]
    Argument(String),
    #[error("standard output")]
    Output(#[from] io::Error),
}

impl ExportError {
    fn exit(&self) -> Exit {
        let damage = match self {
            Self::Replay(error) => error.is_damage(),
            Self::Evidence(error) => error.is_damage(),
            Self::Access(_) | Self::Argument(_) | Self::Output(_) => false,
        };
        if damage { Exit::Failed } else { Exit::Usage }
    }
}

/// Exports.
pub fn run(arguments: &Arguments) -> Exit {
    super::verify::quiet_sled();
    match export(arguments) {
        Ok(()) => Exit::Ok,
        // Whoever read it has seen enough.
        Err(ExportError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Ok,
        Err(error) => {
            report(&error);
            error.exit()
        }
    }
}

fn export(arguments: &Arguments) -> Result<(), ExportError> {
    // clap asks for one of them.
    let dir = arguments.dir.as_deref().or(arguments.data.as_deref());
    let dir = dir.unwrap_or_else(|| Path::new("."));
    let since = arguments.since.as_deref().map(kept).transpose()?;
    if let Some(out) = arguments.out.as_deref().filter(|out| out.exists()) {
        return Err(ExportError::Argument(format!("{}: it is there already", out.display())));
    }
    // What cannot be exported is not recorded as exported.
    let form = if arguments.jsonl { ExportForm::JsonLines } else { ExportForm::Evidence };
    let mut extent = extent(dir, Range { from: arguments.from, to: arguments.to })?;
    if form == ExportForm::Evidence && arguments.to.is_none() {
        extent.to = extent.to.min(signed_size(dir)?);
    }
    account(arguments, dir, form, &extent)?;
    let at = |position| Some(At::Position(Position(position)));
    match (&arguments.out, form) {
        (Some(out), ExportForm::Evidence) => {
            let software = SOFTWARE.to_owned();
            let wanted = Wanted { from: extent.from, to: Some(extent.to), since, software };
            let written = evidence(dir, out, &wanted)?;
            say(arguments.json, &serde_json::json!(written), &written.to_string())
        }
        (Some(out), ExportForm::JsonLines) => {
            let range = Range { from: at(extent.from), to: at(extent.to) };
            let manifest = jsonl_file(dir, range, out)?;
            say(arguments.json, &manifest_json(&manifest), &manifest.to_string())
        }
        (None, _) => lines(dir, Range { from: at(extent.from), to: at(extent.to) }),
    }
}

/// Records the export in the log that it is made of, unless that is a copy, and
/// opens what is to be opened.
fn account(
    arguments: &Arguments,
    dir: &Path,
    form: ExportForm,
    extent: &Extent,
) -> Result<(), ExportError> {
    let (from, to) = (Position(extent.from), Position(extent.to));
    if arguments.copy || !is_own_folder(dir) {
        return match arguments.reveal {
            Some(_) => Err(ExportError::Argument(
                "--reveal needs the server's own folder: it is recorded there, and the keys are \
                 there"
                    .to_owned(),
            )),
            None => Ok(()),
        };
    }
    let folder = OwnFolder::open(dir)?;
    let outcome = (|| {
        let operator = arguments.by.clone();
        folder.record(Want::RecordExport(ExportMadeV1 { by: None, operator, form, from, to }))?;
        let Some(out) = &arguments.reveal else { return Ok(()) };
        let key_file = arguments.key_file.as_deref().unwrap_or_else(|| Path::new(""));
        let credential =
            credential_in(key_file).map_err(|error| ExportError::Argument(error.to_string()))?;
        let wanted = DataRevealedV1 {
            by: folder.holder(&credential)?,
            reason: arguments.reason.unwrap_or(RevealReason::Audit),
            case: arguments.case.clone().unwrap_or_default(),
            subject: arguments.subject,
            from,
            to,
        };
        let opened = folder.reveal(wanted, out)?;
        eprintln!("keytrail: {opened} sealed parts revealed in {}", out.display());
        Ok(())
    })();
    folder.close()?;
    outcome
}

/// A checkpoint that was kept.
fn kept(path: &Path) -> Result<Note, ExportError> {
    let named = |error: &dyn std::fmt::Display| {
        ExportError::Argument(format!("{}: {error}", path.display()))
    };
    let bytes = bounded(path, NOTE_MAX).map_err(|error| named(&error))?;
    let text = String::from_utf8(bytes).map_err(|error| named(&error))?;
    text.parse::<Note>().map_err(|error: NoteError| named(&error))
}

fn lines(dir: &Path, range: Range) -> Result<(), ExportError> {
    let mut out = BufWriter::new(io::stdout().lock());
    let manifest = jsonl(dir, range, &mut out)?;
    writeln!(out, "{}", manifest_json(&manifest))?;
    Ok(out.flush()?)
}

fn say(as_json: bool, object: &serde_json::Value, page: &str) -> Result<(), ExportError> {
    let mut out = io::stdout().lock();
    let text = if as_json { format!("{object}\n") } else { replay::printable(page) };
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}
