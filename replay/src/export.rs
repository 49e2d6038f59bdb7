//! The log, written out for others: as JSON Lines, and as a folder of evidence
//! that can be checked without keytrail.
//!
//! Both come from a folder that no server writes to, and change nothing in it.
//! Sealed parts go out as they stand in the log: encrypted.

mod evidence;
mod schema;
mod tiles;

use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use engine::Keytrail;
use engine::ids::{Micros, Position};
use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use storage::fold::FoldedState;
use storage::record;

pub use self::evidence::{Evidence, EvidenceError, FORMAT, Span, Wanted, evidence, signed_size};

use crate::moment::Place;
use crate::proof::Roots;
use crate::walk::{self, At, ReplayError, Step};
use crate::{hex, one_line};

/// Which records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Range {
    /// First moment of the range; none for the beginning of the log.
    pub from: Option<At>,
    /// First moment after the range; none for the end of the log.
    pub to: Option<At>,
}

/// What an export holds, and where in the log it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Manifest {
    /// The log's origin line.
    pub origin: String,
    /// Lines, one a record.
    pub count: u64,
    /// First record exported.
    pub first: Option<Place>,
    /// Last record exported.
    pub last: Option<Place>,
    /// Chain value before the first record, in hexadecimal.
    pub chain_before: Option<String>,
    /// Chain value of the last record, in hexadecimal.
    pub chain: Option<String>,
    /// Records of the log up to the end of the range.
    pub tree_size: u64,
    /// Root of the Merkle tree over them, in base64 as in a checkpoint.
    pub root: String,
    /// Digest of the state that they make, in hexadecimal.
    pub state_digest: String,
    /// Bytes of the lines.
    pub bytes: u64,
    /// SHA-256 of the lines, in hexadecimal.
    pub sha256: String,
    /// What was found in the log's files and hides no record.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remarks: Vec<String>,
}

impl fmt::Display for Manifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "log      {}", one_line(&self.origin))?;
        write!(f, "records  {}", self.count)?;
        if let (Some(first), Some(last)) = (&self.first, &self.last) {
            write!(f, ", {first} to {last}")?;
        }
        writeln!(f, "\ntree     size {}, root {}", self.tree_size, self.root)?;
        writeln!(f, "state    {}", self.state_digest)?;
        writeln!(f, "sha256   {}", self.sha256)?;
        self.remarks.iter().try_for_each(|remark| writeln!(f, "note     {remark}"))
    }
}

/// Writes the records of the folder `dir` in `range` to `out`, one JSON object a
/// line: what `inspect` shows, and under `record` the record's bytes in base64url
/// as they stand in the log, from which chain and tree can be computed again.
///
/// # Errors
///
/// [`ReplayError`]; what was written by then is no export.
pub fn jsonl(dir: &Path, range: Range, out: &mut dyn Write) -> Result<Manifest, ReplayError> {
    let mut lines = Lines::new(out);
    let walked = walk::records(dir, &mut |step| lines.step(step, range))?;
    lines.out.flush().map_err(writing)?;
    let mut manifest = lines.manifest();
    manifest.origin = walked.origin;
    manifest.remarks = walked.findings.iter().map(ToString::to_string).collect();
    Ok(manifest)
}

/// As [`jsonl`], to the file `out`, and the manifest to [`manifest_path`] beside
/// it. Neither may exist; each is there in whole or not at all.
///
/// # Errors
///
/// [`ReplayError`].
pub fn jsonl_file(dir: &Path, range: Range, out: &Path) -> Result<Manifest, ReplayError> {
    let beside = manifest_path(out);
    for path in [out, &beside] {
        if path.exists() {
            let source = io::Error::from(io::ErrorKind::AlreadyExists);
            return Err(ReplayError::Write { what: path.display().to_string(), source });
        }
    }
    let mut lines = Pending::beside(out)?;
    let mut buffer = BufWriter::new(&mut lines.file);
    let manifest = jsonl(dir, range, &mut buffer)?;
    drop(buffer);
    let mut pending = Pending::beside(&beside)?;
    let text = format!("{}\n", manifest_json(&manifest));
    pending.file.write_all(text.as_bytes()).map_err(writing)?;
    lines.finish(out)?;
    pending.finish(&beside)?;
    Ok(manifest)
}

/// The manifest of the export in the file `out`.
#[must_use]
pub fn manifest_path(out: &Path) -> PathBuf {
    let mut name = out.as_os_str().to_owned();
    name.push(".manifest.json");
    PathBuf::from(name)
}

/// A manifest as it is written: alone in its file, or as the last line.
#[must_use]
pub fn manifest_json(manifest: &Manifest) -> Value {
    json!({ "manifest": manifest })
}

fn writing(source: io::Error) -> ReplayError {
    ReplayError::Write { what: "cannot write the export".to_owned(), source }
}

/// A file that gets its name once it is complete and synced.
struct Pending {
    file: tempfile::NamedTempFile,
}

impl Pending {
    fn beside(path: &Path) -> Result<Self, ReplayError> {
        let folder = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            Some(_) | None => Path::new("."),
        };
        let file = tempfile::Builder::new()
            .prefix(".keytrail-export-")
            .tempfile_in(folder)
            .map_err(|source| ReplayError::Write { what: folder.display().to_string(), source })?;
        Ok(Self { file })
    }

    fn finish(self, path: &Path) -> Result<(), ReplayError> {
        let failed = |source| ReplayError::Write { what: path.display().to_string(), source };
        self.file.as_file().sync_all().map_err(failed)?;
        self.file.persist_noclobber(path).map_err(|error| failed(error.error))?;
        sync_parent(path).map_err(failed)
    }
}

/// Makes the name of a new file durable.
fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        Some(_) | None => File::open(".")?.sync_all(),
    }
}

/// One line of an export.
fn line(step: &Step) -> String {
    let mut row = step.row().to_json();
    if let Some(fields) = row.as_object_mut() {
        fields.insert("record".to_owned(), json!(URL_SAFE_NO_PAD.encode(step.bytes)));
    }
    format!("{row}\n")
}

/// Where a range lies in a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extent {
    /// The log's origin line.
    pub origin: String,
    /// First record of the range.
    pub from: u64,
    /// First record behind the range.
    pub to: u64,
    /// Records in the log.
    pub size: u64,
}

/// Where `range` lies in the log of the folder `dir`. Reads all of it, so that a
/// log that cannot be exported is known before anything is recorded of it.
///
/// # Errors
///
/// [`ReplayError`].
pub fn extent(dir: &Path, range: Range) -> Result<Extent, ReplayError> {
    let (mut from, mut to, mut size) = (None, None, 0);
    let walked = walk::records(dir, &mut |step| {
        let position = step.record.position.0;
        let reached = |at: Option<At>| at.is_some_and(|at| at.is_reached_by(&step.record));
        if from.is_none() && (range.from.is_none() || reached(range.from)) {
            from = Some(position);
        }
        if to.is_none() && reached(range.to) {
            to = Some(position);
        }
        size = position + 1;
        Ok(ControlFlow::Continue(()))
    })?;
    let to = to.unwrap_or(size);
    Ok(Extent { origin: walked.origin, from: from.unwrap_or(size).min(to), to, size })
}

/// The lines as they are written, and what the manifest says of them.
struct Lines<'a> {
    out: &'a mut dyn Write,
    state: FoldedState<Keytrail>,
    roots: Roots,
    hash: Sha256,
    bytes: u64,
    count: u64,
    first: Option<(Position, Micros, [u8; 32])>,
    last: Option<(Position, Micros, [u8; 32])>,
}

impl<'a> Lines<'a> {
    fn new(out: &'a mut dyn Write) -> Self {
        Self {
            out,
            state: FoldedState::default(),
            roots: Roots::default(),
            hash: Sha256::new(),
            bytes: 0,
            count: 0,
            first: None,
            last: None,
        }
    }

    fn step(&mut self, step: &Step, range: Range) -> walk::Going {
        let record = &step.record;
        if range.to.is_some_and(|to| to.is_reached_by(record)) {
            return Ok(ControlFlow::Break(()));
        }
        walk::fold(&mut self.state, record)?;
        self.roots.push(step.bytes);
        if range.from.is_none_or(|from| from.is_reached_by(record)) {
            self.line(step)?;
        }
        Ok(ControlFlow::Continue(()))
    }

    fn line(&mut self, step: &Step) -> Result<(), ReplayError> {
        let record = &step.record;
        let line = line(step);
        self.out.write_all(line.as_bytes()).map_err(writing)?;
        self.hash.update(line.as_bytes());
        self.bytes += line.len() as u64;
        self.count += 1;
        self.first.get_or_insert((record.position, record.time, step.prev));
        self.last = Some((record.position, record.time, record::chain(step.bytes)));
        Ok(())
    }

    fn manifest(self) -> Manifest {
        let place = |at: Option<(Position, Micros, [u8; 32])>| {
            at.map(|(position, time, _)| Place::new(position, time))
        };
        Manifest {
            origin: String::new(),
            count: self.count,
            first: place(self.first),
            last: place(self.last),
            chain_before: self.first.map(|(_, _, chain)| hex(&chain)),
            chain: self.last.map(|(_, _, chain)| hex(&chain)),
            tree_size: self.roots.size(),
            root: STANDARD.encode(self.roots.root()),
            state_digest: hex(&self.state.digest()),
            bytes: self.bytes,
            sha256: hex(&self.hash.finalize()),
            remarks: Vec::new(),
        }
    }
}
