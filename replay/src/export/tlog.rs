//! A static folder of evidence: C2SP tlog-tiles for tools that know nothing of
//! keytrail, and beside it `log/`, as `keytrail verify` reads it.
//!
//! ```text
//! checkpoint                 the last checkpoint that the log signed
//! checkpoint-key             the verifier key that it is signed with
//! tile/<L>/<N>[.p/<W>]       hashes of the tree of that size
//! tile/entries/<N>[.p/<W>]   its records, each behind its length in two bytes
//! log/                       the journal, byte for byte
//! manifest.json              what is here
//! ```
//!
//! Nothing leaves unchecked: the checkpoint's signature, and the tree's root
//! computed from the records by another implementation than the tiles'.

use std::fmt;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::ControlFlow;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use storage::disk::{Disk, RealDisk};
use storage::merkle::{Edge, Hash, TILE_WIDTH, leaf_hash};
use storage::notary::{CHECKPOINT_FILE, KEY_FILE};
use storage::note::{BadSignature, Checkpoint, Note, NoteError, Signed, VerifierKey};

use super::sync_parent;
use crate::folder::FolderError;
use crate::one_line;
use crate::proof::Roots;
use crate::walk::{self, ReplayError};

/// Longest checkpoint or key file that is read, in bytes.
const NOTE_MAX: u64 = 64 * 1024;
/// Bytes of the journal that are copied at a time.
const CHUNK: usize = 1 << 20;

/// Why there is no evidence to write.
#[derive(Debug, thiserror::Error)]
pub enum TlogError {
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
}

impl From<BadSignature> for TlogError {
    fn from(_: BadSignature) -> Self {
        Self::Signature
    }
}

impl TlogError {
    /// Whether the log is damaged or not what was signed.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Replay(error) => error.is_damage(),
            Self::Signature | Self::OtherTree | Self::Note { .. } => true,
            Self::NotSigned(_) => false,
        }
    }
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Tlog {
    /// The log's origin line.
    pub origin: String,
    /// Records that the checkpoint covers: those in `tile/`.
    pub tree_size: u64,
    /// Root of the tree over them, in base64.
    pub root: String,
    /// The verifier key.
    pub checkpoint_key: String,
    /// Records in `log/`. Those beyond `tree_size` were not yet signed.
    pub records: u64,
    /// Files of tiles and entries.
    pub tiles: u64,
    /// What was found in the log's files and hides no record.
    pub remarks: Vec<String>,
}

impl fmt::Display for Tlog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "log      {}", one_line(&self.origin))?;
        writeln!(f, "tree     size {}, root {}", self.tree_size, self.root)?;
        writeln!(f, "key      {}", self.checkpoint_key)?;
        let unsigned = self.records.saturating_sub(self.tree_size);
        writeln!(f, "records  {}, {unsigned} of them after the checkpoint", self.records)?;
        writeln!(f, "tiles    {} files", self.tiles)?;
        self.remarks.iter().try_for_each(|remark| writeln!(f, "note     {remark}"))
    }
}

/// Writes the evidence of the folder `dir` to the new folder `out`, which is
/// there in whole or not at all.
///
/// # Errors
///
/// [`TlogError`].
pub fn tlog(dir: &Path, out: &Path) -> Result<Tlog, TlogError> {
    if out.exists() {
        let source = io::Error::from(io::ErrorKind::AlreadyExists);
        return Err(ReplayError::Write { what: out.display().to_string(), source }.into());
    }
    // The walk below says whether there is a log at all, and keeps servers off.
    let checkpoint_text = read(dir, CHECKPOINT_FILE)?;
    let key_text = read(dir, KEY_FILE)?;
    let (checkpoint, key) = checked(&checkpoint_text, &key_text)?;
    let mut name = out.as_os_str().to_owned();
    name.push(".part");
    let part = PathBuf::from(name);
    // As the log itself: public keys and times are for whoever is given them.
    DirBuilder::new().mode(0o700).create(&part).map_err(writing(&part))?;
    let written = write(dir, &part, &checkpoint, &key).and_then(|written| {
        file(&part.join(CHECKPOINT_FILE), checkpoint_text.as_bytes())?;
        file(&part.join(KEY_FILE), key_text.as_bytes())?;
        let manifest = serde_json::to_vec_pretty(&written).unwrap_or_default();
        file(&part.join("manifest.json"), &[&manifest[..], b"\n"].concat())?;
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

/// The checkpoint, signed by the key.
fn checked(checkpoint: &str, key: &str) -> Result<(Checkpoint, VerifierKey), TlogError> {
    let bad = |file| move |source| TlogError::Note { file, source };
    let key: VerifierKey = key.trim_end().parse().map_err(bad(KEY_FILE))?;
    let note: Note = checkpoint.parse().map_err(bad(CHECKPOINT_FILE))?;
    match key.verify(&note)? {
        Some(Signed::Log) => (),
        Some(Signed::Witness { .. }) | None => return Err(TlogError::Signature),
    }
    let checkpoint = Checkpoint::of_text(&note.text).map_err(bad(CHECKPOINT_FILE))?;
    Ok((checkpoint, key))
}

fn write(
    dir: &Path,
    out: &Path,
    checkpoint: &Checkpoint,
    key: &VerifierKey,
) -> Result<Tlog, TlogError> {
    let mut tiles = Tiles::new(out);
    let mut roots = Roots::default();
    let mut records = 0;
    let walked = walk::records(dir, &mut |step| {
        records += 1;
        if roots.size() < checkpoint.size {
            roots.push(step.bytes);
            tiles.push(step.bytes)?;
        }
        Ok(ControlFlow::Continue(()))
    })?;
    let same = roots.size() == checkpoint.size
        && roots.root() == checkpoint.root
        && walked.origin == checkpoint.origin;
    if !same {
        return Err(TlogError::OtherTree);
    }
    let tiles = tiles.end()?;
    copy_log(&dir.join("log"), &out.join("log"))?;
    Ok(Tlog {
        origin: walked.origin,
        tree_size: checkpoint.size,
        root: STANDARD.encode(checkpoint.root),
        checkpoint_key: key.to_string(),
        records,
        tiles,
        remarks: walked.findings.iter().map(ToString::to_string).collect(),
    })
}

/// Tiles and bundles as they fill.
struct Tiles {
    dir: PathBuf,
    edge: Edge,
    /// For each level: complete tiles, and the bytes of the one that is filling.
    levels: Vec<(u64, Vec<u8>)>,
    entries: Vec<u8>,
    written: u64,
}

impl Tiles {
    fn new(out: &Path) -> Self {
        let dir = out.join("tile");
        Self { dir, edge: Edge::default(), levels: Vec::new(), entries: Vec::new(), written: 0 }
    }

    fn push(&mut self, record: &[u8]) -> Result<(), ReplayError> {
        let mut added: Vec<(u8, Hash)> = Vec::with_capacity(1);
        self.edge.push(leaf_hash(record), &mut |level, hash| added.push((level, *hash)));
        for (level, hash) in added {
            let index = usize::from(level);
            if self.levels.len() == index {
                self.levels.push((0, Vec::new()));
            }
            let (complete, bytes) = &mut self.levels[index];
            bytes.extend_from_slice(&hash);
            if bytes.len() as u64 == TILE_WIDTH * 32 {
                let (number, bytes) = (*complete, std::mem::take(bytes));
                *complete += 1;
                self.file(&level.to_string(), number, None, &bytes)?;
            }
        }
        // Records have at most 60 KiB.
        self.entries.extend_from_slice(&(record.len() as u16).to_be_bytes());
        self.entries.extend_from_slice(record);
        let size = self.edge.size();
        if size.is_multiple_of(TILE_WIDTH) {
            let bytes = std::mem::take(&mut self.entries);
            self.file("entries", size / TILE_WIDTH - 1, None, &bytes)?;
        }
        Ok(())
    }

    /// Writes what is not full; gives the number of files.
    fn end(mut self) -> Result<u64, ReplayError> {
        for (level, (complete, bytes)) in std::mem::take(&mut self.levels).into_iter().enumerate() {
            if !bytes.is_empty() {
                self.file(&level.to_string(), complete, Some(bytes.len() / 32), &bytes)?;
            }
        }
        let size = self.edge.size();
        let width = (size % TILE_WIDTH) as usize;
        if width > 0 {
            let bytes = std::mem::take(&mut self.entries);
            self.file("entries", size / TILE_WIDTH, Some(width), &bytes)?;
        }
        Ok(self.written)
    }

    fn file(
        &mut self,
        level: &str,
        index: u64,
        width: Option<usize>,
        bytes: &[u8],
    ) -> Result<(), ReplayError> {
        self.written += 1;
        file(&self.dir.join(level).join(tile_path(index, width)), bytes)
    }
}

/// The path of a tile below its level: C2SP tlog-tiles, "Merkle Tree".
fn tile_path(index: u64, width: Option<usize>) -> String {
    let mut path = format!("{:03}", index % 1_000);
    let mut rest = index / 1_000;
    while rest > 0 {
        path = format!("x{:03}/{path}", rest % 1_000);
        rest /= 1_000;
    }
    match width {
        Some(width) => format!("{path}.p/{width}"),
        None => path,
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

fn file(path: &Path, bytes: &[u8]) -> Result<(), ReplayError> {
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
fn read(dir: &Path, name: &'static str) -> Result<String, TlogError> {
    let path = dir.join("log").join(name);
    let bytes = match RealDisk.read(&path, NOTE_MAX) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound && dir.join("log").is_dir() => {
            return Err(TlogError::NotSigned(name));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(ReplayError::Folder(FolderError::NoLog(dir.to_owned())).into());
        }
        Err(error) => return Err(ReplayError::Folder(FolderError::reading(&path)(error)).into()),
    };
    String::from_utf8(bytes).map_err(|_| TlogError::Note { file: name, source: NoteError::Form })
}

fn writing(path: &Path) -> impl Fn(io::Error) -> ReplayError + '_ {
    move |source| ReplayError::Write { what: path.display().to_string(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tile_paths_are_those_of_the_specification() {
        // C2SP tlog-tiles, "Merkle Tree": its example.
        assert_eq!(tile_path(1_234_067, None), "x001/x234/067");
        assert_eq!(tile_path(273, Some(112)), "273.p/112");
        assert_eq!(tile_path(0, None), "000");
        assert_eq!(tile_path(1_000, None), "x001/000");
    }
}
