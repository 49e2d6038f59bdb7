//! A witness of logs (C2SP tlog-witness): cosigns a checkpoint only if it
//! continues the one before.
//!
//! Whoever runs it need not trust the log, nor see a record: a witness that is
//! run by somebody else than the log makes it impossible to rewrite or to
//! shorten the log unseen, or to show two people two histories. It keeps no
//! more than the latest checkpoint of each log.
//!
//! What it promises: looking up the latest checkpoint, judging the next one and
//! keeping it is one step under a lock, and what it has cosigned is durable
//! before the cosignature leaves the process.
//!
//! Start reading at [`Witness::add_checkpoint`]; [`http`] serves it.

mod files;
pub mod http;
pub mod request;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use engine::machine::{Clock, Entropy};
use replay::proof::is_consistent;
use storage::disk::Disk;
use storage::lock::{FolderLock, LockError};
use storage::merkle::empty_root;
use storage::note::{Checkpoint, Note, VerifierKey, WitnessSigner};

use files::{Files, FilesError, Latest};
use request::AddCheckpoint;

/// Why a witness cannot start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder cannot be made.
    #[error("cannot make {folder}")]
    Folder {
        /// The folder.
        folder: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Another process runs on the folder.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// Its files.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// A key of a witness where one of a log is needed.
    #[error("{0} is the key of a witness, not of a log")]
    NotALog(String),
}

/// Why a checkpoint is not cosigned. The statuses are those of the specification.
#[derive(Debug, thiserror::Error)]
pub enum Rejected {
    /// Not a request (400).
    #[error("the request cannot be understood: {0}")]
    BadRequest(&'static str),
    /// No signature by a key that is known for the log, or a wrong one (403).
    #[error("the checkpoint is not signed by a key of this log")]
    NotSigned,
    /// No key is known for the log (404).
    #[error("this log is not known here")]
    UnknownLog,
    /// Not the checkpoint that was cosigned last (409).
    #[error("the latest checkpoint cosigned here is another one, of size {size}")]
    Conflict {
        /// Size of the checkpoint cosigned last.
        size: u64,
    },
    /// The checkpoint is not proven to continue the one before (422).
    #[error("the consistency proof does not hold")]
    Inconsistent,
    /// It could not be kept, so it was not cosigned (500).
    #[error("the checkpoint could not be kept")]
    Failed(#[source] io::Error),
}

/// A witness. Shared by all threads that serve.
pub struct Witness {
    signer: WitnessSigner,
    /// The keys of each log, by its origin.
    logs: BTreeMap<String, Vec<VerifierKey>>,
    latest: Mutex<BTreeMap<String, Latest>>,
    files: Files,
    clock: Arc<dyn Clock>,
    _lock: FolderLock,
}

impl Witness {
    /// Opens the folder `dir`, making it and the key if there is none. `name` is
    /// that of a new key; one is drawn if it is not given. It cosigns for the
    /// logs that `keys` are of: a key's name is the origin of its log.
    ///
    /// # Errors
    ///
    /// [`OpenError`].
    pub fn open(
        dir: &Path,
        disk: Arc<dyn Disk>,
        keys: Vec<VerifierKey>,
        name: Option<&str>,
        clock: Arc<dyn Clock>,
        entropy: &dyn Entropy,
    ) -> Result<Self, OpenError> {
        let mut logs: BTreeMap<String, Vec<VerifierKey>> = BTreeMap::new();
        for key in keys {
            if key.is_witness() {
                return Err(OpenError::NotALog(key.to_string()));
            }
            logs.entry(key.name.clone()).or_default().push(key);
        }
        let folder = || dir.display().to_string();
        std::fs::create_dir_all(dir)
            .map_err(|source| OpenError::Folder { folder: folder(), source })?;
        let lock = FolderLock::take(dir)?;
        let files = Files::new(disk, dir);
        let (signer, known) = files.open(name, entropy)?;
        let latest = known.into_iter().map(|latest| (latest.checkpoint.origin.clone(), latest));
        let latest = Mutex::new(latest.collect());
        Ok(Self { signer, logs, latest, files, clock, _lock: lock })
    }

    /// The public half of its key.
    #[must_use]
    pub fn verifier(&self) -> &VerifierKey {
        self.signer.verifier()
    }

    /// Size of the latest checkpoint cosigned for each log.
    #[must_use]
    pub fn sizes(&self) -> Vec<(String, u64)> {
        let latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        latest
            .values()
            .map(|latest| (latest.checkpoint.origin.clone(), latest.checkpoint.size))
            .collect()
    }

    /// Judges the body of an `add-checkpoint` request. Its cosignature, as a
    /// line, once the checkpoint is durably the latest. Waits for the disk.
    ///
    /// # Errors
    ///
    /// [`Rejected`]; nothing has changed then.
    pub fn add_checkpoint(&self, body: &[u8]) -> Result<String, Rejected> {
        let text = std::str::from_utf8(body).map_err(|_| Rejected::BadRequest("not UTF-8"))?;
        let AddCheckpoint { old, proof, mut note } =
            text.parse().map_err(|_| Rejected::BadRequest("not an add-checkpoint request"))?;
        let checkpoint = Checkpoint::of_text(&note.text)
            .map_err(|_| Rejected::BadRequest("the note is no checkpoint"))?;
        let keys = self.logs.get(&checkpoint.origin).ok_or(Rejected::UnknownLog)?;
        keep_signatures_of(keys, &mut note)?;
        if old > checkpoint.size {
            return Err(Rejected::BadRequest("the old size is beyond the checkpoint's"));
        }
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        let known = latest.get(&checkpoint.origin).map(|latest| &latest.checkpoint);
        self.look_for_two_histories(known, &checkpoint, &note);
        continues(known, old, &proof, &checkpoint)?;

        let cosignature = self.signer.cosign(&note.text, self.clock.wall().0 / 1_000_000);
        note.signatures.push(cosignature.clone());
        let origin = checkpoint.origin.clone();
        let before = latest.insert(origin.clone(), Latest { checkpoint, note });
        if let Err(error) = self.files.write_latest(latest.values()) {
            match before {
                Some(before) => latest.insert(origin, before),
                None => latest.remove(&origin),
            };
            return Err(Rejected::Failed(error));
        }
        Ok(cosignature.to_string())
    }

    /// Two checkpoints of one size with different roots, both signed by the log,
    /// prove that it has two histories: the second is kept, and told.
    fn look_for_two_histories(&self, known: Option<&Checkpoint>, new: &Checkpoint, note: &Note) {
        let Some(known) = known.filter(|known| known.size == new.size && known.root != new.root)
        else {
            return;
        };
        let root: String = new.root[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        let log: String =
            blake3::hash(new.origin.as_bytes()).to_hex().as_str().chars().take(16).collect();
        let kept = self.files.keep_suspect(&format!("{log}-{}-{root}.checkpoint", new.size), note);
        let kept = match kept {
            Ok(path) => path.display().to_string(),
            Err(error) => format!("not kept: {error}"),
        };
        tracing::error!(
            origin = known.origin,
            size = known.size,
            kept,
            "two histories: the log has signed two checkpoints of one size with different roots"
        );
    }
}

impl fmt::Debug for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Witness").field("verifier", self.verifier()).finish_non_exhaustive()
    }
}

/// Drops all signatures but those by the log. An error if there is none, or one
/// that does not verify.
fn keep_signatures_of(keys: &[VerifierKey], note: &mut Note) -> Result<(), Rejected> {
    let mut signed = false;
    for key in keys {
        signed |= key.verify(note).map_err(|_| Rejected::NotSigned)?.is_some();
    }
    if !signed {
        return Err(Rejected::NotSigned);
    }
    let by = |key: &VerifierKey, name: &str, id| key.name == name && key.key_id == id;
    note.signatures.retain(|line| keys.iter().any(|key| by(key, &line.name, line.key_id)));
    Ok(())
}

/// Whether `new` may follow `known`, in the order of the specification.
fn continues(
    known: Option<&Checkpoint>,
    old: u64,
    proof: &[[u8; 32]],
    new: &Checkpoint,
) -> Result<(), Rejected> {
    let nothing = empty_root();
    let (size, root) = known.map_or((0, &nothing), |known| (known.size, &known.root));
    if old != size {
        return Err(Rejected::Conflict { size });
    }
    if old == new.size {
        return match (proof.is_empty(), *root == new.root) {
            (false, _) => Err(Rejected::Inconsistent),
            (true, false) => Err(Rejected::Conflict { size }),
            (true, true) => Ok(()),
        };
    }
    if is_consistent(old, root, new.size, &new.root, proof) {
        Ok(())
    } else {
        Err(Rejected::Inconsistent)
    }
}
