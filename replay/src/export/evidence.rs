//! A folder of evidence: a range of the log that anyone can check, with tools of
//! C2SP tlog-tiles, with the script that lies in it, or with `keytrail verify`.
//! `README.txt`, which is written into it, says what each file is.
//!
//! Nothing leaves unchecked: the checkpoint's signature, the tree's root computed
//! from the records by another implementation than the tiles', and the proof that
//! it continues the checkpoint that it was asked to.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, DirBuilder, File};
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::ops::ControlFlow;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use engine::entries::{Succeeded, Succession as Change};
use engine::events::Event;
use engine::ids::{Micros, Position};
use serde::Serialize;
use sha2::{Digest, Sha256};
use storage::disk::{Disk, RealDisk};
use storage::merkle;
use storage::notary::{CHECKPOINT_FILE, KEY_FILE};
use storage::note::{BadSignature, Checkpoint, Note, NoteError, Signed, VerifierKey};

use storage::record;
use storage::succession::Succession;

use super::tiles::Tiles;
use super::{line, schema, sync_parent};
use crate::folder::FolderError;
use crate::proof::{Roots, is_consistent};
use crate::walk::{self, ReplayError, Step, Walked};
use crate::{hex, one_line, rfc3339};

/// Names the layout of the folder, for ever.
pub const FORMAT: &str = "keytrail-export/1";

/// Longest checkpoint or key file that is read, in bytes.
const NOTE_MAX: u64 = 64 * 1024;
/// Bytes of the journal that are copied at a time.
const CHUNK: usize = 1 << 20;
const KEPT_UNSIGNED: &str = "it is not signed by the log's key";

/// Why there is no evidence to write.
#[derive(Debug, thiserror::Error)]
pub enum EvidenceError {
    /// The log cannot be followed, or the folder not be written.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// Nothing was signed yet.
    #[error("log/{0} is missing: the log was never signed; start the server on it once")]
    NotSigned(&'static str),
    /// The checkpoint or its key cannot be read.
    #[error("log/{file}: {source}")]
    Note {
        /// The file.
        file: &'static str,
        /// Why.
        #[source]
        source: NoteError,
    },
    /// The checkpoint is not signed by the key beside it.
    #[error("log/checkpoint is not signed by log/checkpoint-key")]
    Signature,
    /// The checkpoint is not of these records.
    #[error("the records are not those that log/checkpoint was signed over; run keytrail verify")]
    OtherTree,
    /// The range goes beyond what was signed.
    #[error("the range ends at record {to}, but the log is signed up to record {size} only")]
    NotYetSigned {
        /// Where it was to end.
        to: u64,
        /// Records that are signed.
        size: u64,
    },
    /// No record is in the range.
    #[error("there is no record in the range")]
    Empty,
    /// The log cannot be proven to continue the earlier checkpoint.
    #[error("the earlier checkpoint: {0}")]
    Kept(&'static str),
}

impl From<BadSignature> for EvidenceError {
    fn from(_: BadSignature) -> Self {
        Self::Signature
    }
}

impl EvidenceError {
    /// Whether the log is damaged or not what was signed.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Replay(error) => error.is_damage(),
            Self::Signature | Self::OtherTree | Self::Note { .. } => true,
            Self::Kept(_) | Self::NotSigned(_) | Self::NotYetSigned { .. } | Self::Empty => false,
        }
    }
}

/// What is asked for.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// First record of the range.
    pub from: u64,
    /// First record behind the range; none for all that the checkpoint covers.
    pub to: Option<u64>,
    /// A checkpoint that the log must continue, and is proven to.
    pub since: Option<Note>,
    /// Version of the software that exports.
    pub software: String,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Evidence {
    /// Names this layout.
    pub format: &'static str,
    /// Version of the software that exported.
    pub software: String,
    /// The origin line that the log began with: it begins the chain.
    pub origin: String,
    /// The records in `events.jsonl`: first, and first behind.
    pub range: Span,
    /// Time of the first record of the range, RFC 3339.
    pub first_at: Option<String>,
    /// Time of the last record of the range.
    pub last_at: Option<String>,
    /// Chain value before the range, in hexadecimal.
    pub chain_before: String,
    /// Chain value of the last record of the range.
    pub chain: String,
    /// Records that the checkpoint covers.
    pub tree_size: u64,
    /// Root of the tree over them, in base64.
    pub root: String,
    /// The verifier key.
    pub checkpoint_key: String,
    /// Records in the log. Those from `tree_size` on were not yet signed.
    pub records: u64,
    /// Size of the earlier checkpoint that the log is proven to continue.
    pub since: Option<u64>,
    /// What was found in the log's files and hides no record.
    pub remarks: Vec<String>,
    /// Every other file, by its path.
    pub files: BTreeMap<String, Written>,
}

/// Positions: first, and first behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Span {
    /// First.
    pub from: u64,
    /// First behind.
    pub to: u64,
}

/// A file of an export.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Written {
    /// SHA-256, in hexadecimal.
    pub sha256: String,
    /// Its length.
    pub bytes: u64,
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "log      {}", one_line(&self.origin))?;
        write!(f, "range    {}..{}", self.range.from, self.range.to)?;
        if let (Some(first), Some(last)) = (&self.first_at, &self.last_at) {
            write!(f, ", from {first} to {last}")?;
        }
        writeln!(f, "\ntree     size {}, root {}", self.tree_size, self.root)?;
        writeln!(f, "key      {}", self.checkpoint_key)?;
        if let Some(size) = self.since {
            writeln!(f, "since    continues the checkpoint of size {size}")?;
        }
        let unsigned = self.records.saturating_sub(self.tree_size);
        writeln!(f, "records  {}, {unsigned} of them after the checkpoint", self.records)?;
        writeln!(f, "files    {} and manifest.json", self.files.len())?;
        self.remarks.iter().try_for_each(|remark| writeln!(f, "note     {remark}"))
    }
}

/// Records that the log's checkpoint in the folder `dir` covers.
///
/// # Errors
///
/// [`EvidenceError`].
pub fn signed_size(dir: &Path) -> Result<u64, EvidenceError> {
    Ok(Vouched::read(dir)?.checkpoint.size)
}

/// Writes the evidence of the folder `dir` to the new folder `out`, which is
/// there in whole or not at all.
///
/// # Errors
///
/// [`EvidenceError`].
pub fn evidence(dir: &Path, out: &Path, wanted: &Wanted) -> Result<Evidence, EvidenceError> {
    if out.exists() {
        let source = io::Error::from(io::ErrorKind::AlreadyExists);
        return Err(ReplayError::Write { what: out.display().to_string(), source }.into());
    }
    // The walk below says whether there is a log at all, and keeps servers off.
    let vouched = Vouched::read(dir)?;
    let span = vouched.span(wanted)?;
    let mut name = out.as_os_str().to_owned();
    name.push(".part");
    let part = PathBuf::from(name);
    // As the log itself: public keys and times are for whoever is given them.
    DirBuilder::new().mode(0o700).create(&part).map_err(writing(&part))?;
    let job = Job { dir, part: &part, vouched: &vouched, span };
    let written = job.write(wanted).and_then(|written| {
        fs::rename(&part, out).map_err(writing(out))?;
        sync_parent(out).map_err(writing(out))?;
        Ok(written)
    });
    if written.is_err() {
        // What is left of it is worth nothing; the error before is the one to tell.
        let _ = fs::remove_dir_all(&part);
    }
    written
}

/// The log's checkpoint, signed by the key beside it.
struct Vouched {
    text: String,
    key_text: String,
    checkpoint: Checkpoint,
    key: VerifierKey,
}

impl Vouched {
    fn read(dir: &Path) -> Result<Self, EvidenceError> {
        let text = read(dir, CHECKPOINT_FILE)?;
        let key_text = read(dir, KEY_FILE)?;
        let bad = |file| move |source| EvidenceError::Note { file, source };
        let key: VerifierKey = key_text.trim_end().parse().map_err(bad(KEY_FILE))?;
        let note: Note = text.parse().map_err(bad(CHECKPOINT_FILE))?;
        if !matches!(key.verify(&note)?, Some(Signed::Log)) {
            return Err(EvidenceError::Signature);
        }
        let checkpoint = Checkpoint::of_text(&note.text).map_err(bad(CHECKPOINT_FILE))?;
        Ok(Self { text, key_text, checkpoint, key })
    }

    fn span(&self, wanted: &Wanted) -> Result<Span, EvidenceError> {
        let size = self.checkpoint.size;
        let to = wanted.to.unwrap_or(size);
        if to > size {
            return Err(EvidenceError::NotYetSigned { to, size });
        }
        if wanted.from >= to {
            return Err(EvidenceError::Empty);
        }
        Ok(Span { from: wanted.from, to })
    }

    /// An earlier checkpoint of the same log, by the key that the log had then.
    fn kept(&self, note: &Note, keys: &Succession) -> Result<Checkpoint, EvidenceError> {
        let kept = Checkpoint::of_text(&note.text)
            .map_err(|_| EvidenceError::Kept("it is no checkpoint"))?;
        let key = keys.key_for(kept.size);
        if kept.origin != key.name {
            return Err(EvidenceError::Kept("it is of another log"));
        }
        let signed = key.verify(note).map_err(|_| EvidenceError::Kept(KEPT_UNSIGNED))?;
        if !matches!(signed, Some(Signed::Log)) {
            return Err(EvidenceError::Kept(KEPT_UNSIGNED));
        }
        if kept.size > self.checkpoint.size {
            return Err(EvidenceError::Kept("it covers more records than the log has signed"));
        }
        Ok(kept)
    }
}

/// One export.
struct Job<'a> {
    dir: &'a Path,
    part: &'a Path,
    vouched: &'a Vouched,
    span: Span,
}

impl Job<'_> {
    fn write(&self, wanted: &Wanted) -> Result<Evidence, EvidenceError> {
        let checkpoint = &self.vouched.checkpoint;
        let (lines, walked, records, tiles) = self.walk()?;
        let keys = self.keys(&walked.origin, &lines.changes)?;
        let kept = wanted.since.as_ref().map(|note| self.continues(note, &keys, &tiles));
        let since = kept.transpose()?.map(|kept| kept.size);
        if self.is_whole() {
            copy_log(&self.dir.join("log"), &self.part.join("log"))?;
        } else {
            tiles.keep_only(self.span.from, self.span.to)?;
        }
        self.file(CHECKPOINT_FILE, self.vouched.text.as_bytes())?;
        self.file(KEY_FILE, self.vouched.key_text.as_bytes())?;
        self.file("README.txt", include_bytes!("README.txt"))?;
        self.file("verify.py", include_bytes!("verify.py"))?;
        for (name, schema) in schema::all() {
            self.file(&format!("schema/{name}.json"), &pretty(&schema))?;
        }
        let evidence = Evidence {
            format: FORMAT,
            software: wanted.software.clone(),
            origin: walked.origin,
            range: self.span,
            first_at: lines.first.map(|(_, time, _)| rfc3339(time)),
            last_at: lines.last.map(|(_, time, _)| rfc3339(time)),
            chain_before: lines.first.map_or_else(String::new, |(_, _, chain)| hex(&chain)),
            chain: lines.last.map_or_else(String::new, |(_, _, chain)| hex(&chain)),
            tree_size: checkpoint.size,
            root: STANDARD.encode(checkpoint.root),
            checkpoint_key: self.vouched.key.to_string(),
            records,
            since,
            remarks: walked.findings.iter().map(ToString::to_string).collect(),
            files: hashes(self.part)?,
        };
        self.file("manifest.json", &pretty(&evidence))?;
        Ok(evidence)
    }

    fn is_whole(&self) -> bool {
        self.span == Span { from: 0, to: self.vouched.checkpoint.size }
    }

    /// One pass over the log: lines, tiles, and the root that they must give.
    fn walk(&self) -> Result<(Ends, Walked, u64, Tiles), EvidenceError> {
        let checkpoint = &self.vouched.checkpoint;
        let path = self.part.join("events.jsonl");
        let mut out = BufWriter::new(File::create_new(&path).map_err(writing(&path))?);
        let mut lines = Ends::default();
        let mut tiles = Tiles::new(self.part, self.span);
        let mut roots = Roots::default();
        let mut records = 0;
        let walked = walk::records(self.dir, &mut |step| {
            let position = step.record.position.0;
            if position < checkpoint.size {
                roots.push(step.bytes);
                tiles.push(step.bytes)?;
            }
            if (self.span.from..self.span.to).contains(&position) {
                let line = line(step);
                out.write_all(line.as_bytes()).map_err(writing(&path))?;
                lines.add(step);
            }
            lines.changes.extend(change(step));
            records += 1;
            Ok(ControlFlow::Continue(()))
        })?;
        if (roots.size(), roots.root()) != (checkpoint.size, checkpoint.root) {
            return Err(EvidenceError::OtherTree);
        }
        let file = out.into_inner().map_err(|error| writing(&path)(error.into_error()))?;
        file.sync_all().map_err(writing(&path))?;
        tiles.end()?;
        Ok((lines, walked, records, tiles))
    }

    /// Writes the keys that the log has had; the checkpoint's must be the one that
    /// it has at that size.
    fn keys(&self, origin: &str, changes: &[Succeeded]) -> Result<Succession, EvidenceError> {
        let Vouched { checkpoint, key, .. } = self.vouched;
        let ours = key.ecdsa_key().ok_or(EvidenceError::Signature)?;
        let keys = Succession::of(origin, &ours, changes).map_err(|_| EvidenceError::OtherTree)?;
        if keys.key_for(checkpoint.size) != key || checkpoint.origin != key.name {
            return Err(EvidenceError::OtherTree);
        }
        let later = changes.iter().map(|change| change.at.0 + 1);
        let sizes = [0].into_iter().chain(later.filter(|size| *size <= checkpoint.size));
        let lines: String = sizes.map(|size| format!("{size} {}\n", keys.key_for(size))).collect();
        self.file("keys.txt", lines.as_bytes())?;
        Ok(keys)
    }

    /// Proves that the tree continues an earlier one.
    fn continues(
        &self,
        note: &Note,
        keys: &Succession,
        tiles: &Tiles,
    ) -> Result<Checkpoint, EvidenceError> {
        let kept = self.vouched.kept(note, keys)?;
        let now = &self.vouched.checkpoint;
        let proof = merkle::consistency_proof(tiles, kept.size, now.size)
            .map_err(|_| EvidenceError::OtherTree)?;
        if !is_consistent(kept.size, &kept.root, now.size, &now.root, &proof) {
            return Err(EvidenceError::Kept("the log does not continue it: it is another history"));
        }
        let mut text = format!("{}\n", kept.size);
        for hash in &proof {
            text.push_str(&STANDARD.encode(hash));
            text.push('\n');
        }
        self.file("consistency.txt", text.as_bytes())?;
        self.file("since-checkpoint", note.to_string().as_bytes())?;
        Ok(kept)
    }

    fn file(&self, name: &str, bytes: &[u8]) -> Result<(), ReplayError> {
        file(&self.part.join(name), bytes)
    }
}

/// How a record changes the log's key or its origin line.
fn change(step: &Step) -> Option<Succeeded> {
    let draft = &step.record.draft;
    let by = match Event::decode(draft.event_type, draft.schema, &draft.clear) {
        Ok(Event::KeyRotated(rotated)) => {
            Change::Key { old: rotated.old_key, new: rotated.new_key }
        }
        Ok(Event::EpochBegun(begun)) => {
            Change::Origin { old: begun.previous_origin, new: begun.origin }
        }
        Ok(_) | Err(_) => return None,
    };
    Some(Succeeded { at: step.record.position, by })
}

/// First and last record of the range: position, time, and the chain value before
/// the first and of the last. And what changes the log's keys.
#[derive(Default)]
struct Ends {
    changes: Vec<Succeeded>,
    first: Option<(Position, Micros, [u8; 32])>,
    last: Option<(Position, Micros, [u8; 32])>,
}

impl Ends {
    fn add(&mut self, step: &Step) {
        let record = &step.record;
        self.first.get_or_insert((record.position, record.time, step.prev));
        self.last = Some((record.position, record.time, record::chain(step.bytes)));
    }
}

fn pretty(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = serde_json::to_vec_pretty(value).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}

/// Every file below `root`, by its path, with its hash.
fn hashes(root: &Path) -> Result<BTreeMap<String, Written>, ReplayError> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for item in fs::read_dir(&folder).map_err(writing(&folder))? {
            let path = item.map_err(writing(&folder))?.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(root).unwrap_or(&path).display().to_string();
            found.insert(name, hash_of(&path).map_err(writing(&path))?);
        }
    }
    Ok(found)
}

fn hash_of(path: &Path) -> io::Result<Written> {
    let mut file = File::open(path)?;
    let (mut hash, mut bytes, mut chunk) = (Sha256::new(), 0, vec![0; CHUNK]);
    loop {
        let read = file.read(&mut chunk)?;
        if read == 0 {
            let sha256 = hex(&hash.finalize());
            return Ok(Written { sha256, bytes });
        }
        hash.update(&chunk[..read]);
        bytes += read as u64;
    }
}

/// Copies the files of the journal but for what is worth nothing elsewhere.
fn copy_log(from: &Path, to: &Path) -> Result<(), ReplayError> {
    fs::create_dir(to).map_err(writing(to))?;
    let reading = |source| ReplayError::Folder(FolderError::reading(from)(source));
    let mut names = Vec::new();
    for item in fs::read_dir(from).map_err(reading)? {
        let item = item.map_err(reading)?;
        let name = item.file_name().to_string_lossy().into_owned();
        let passing = name.ends_with(".tmp") || name.ends_with(".damaged");
        if item.file_type().map_err(reading)?.is_file() && !passing {
            names.push(name);
        }
    }
    names.sort();
    for name in names {
        let target = to.join(&name);
        copy(&from.join(&name), &target).map_err(writing(&target))?;
    }
    Ok(())
}

/// Copies a file; zeros, of which the last segment has many, take no space.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let mut source = File::open(from)?;
    let mut target = File::create_new(to)?;
    let mut chunk = vec![0; CHUNK];
    let mut length = 0;
    loop {
        let read = source.read(&mut chunk)?;
        if read == 0 {
            break;
        }
        length += read as u64;
        if chunk[..read].iter().any(|byte| *byte != 0) {
            target.write_all(&chunk[..read])?;
        } else {
            target.seek(SeekFrom::Current(read as i64))?;
        }
    }
    target.set_len(length)?;
    target.sync_all()
}

pub(super) fn file(path: &Path, bytes: &[u8]) -> Result<(), ReplayError> {
    let written = || -> io::Result<()> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let mut file = File::create_new(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    written().map_err(writing(path))
}

/// A small file of `log/`, as text.
fn read(dir: &Path, name: &'static str) -> Result<String, EvidenceError> {
    let path = dir.join("log").join(name);
    let bytes = match RealDisk.read(&path, NOTE_MAX) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound && dir.join("log").is_dir() => {
            return Err(EvidenceError::NotSigned(name));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(ReplayError::Folder(FolderError::NoLog(dir.to_owned())).into());
        }
        Err(error) => return Err(ReplayError::Folder(FolderError::reading(&path)(error)).into()),
    };
    String::from_utf8(bytes)
        .map_err(|_| EvidenceError::Note { file: name, source: NoteError::Form })
}

pub(super) fn writing(path: &Path) -> impl Fn(io::Error) -> ReplayError + '_ {
    move |source| ReplayError::Write { what: path.display().to_string(), source }
}
