//! What a witness keeps: its key, and the latest checkpoint of each log.
//!
//! ```text
//! witness.key   mode 0600: its name and the seed of its key
//! latest.json   the latest checkpoint of each log, as the log signed and it cosigned it
//! suspect/      checkpoints that a log signed beside another of the same size
//! ```
//!
//! `latest.json` is there from before the key is: a key without it is a witness
//! that has forgotten, and does not start.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use engine::machine::{Entropy, random};
use serde::{Deserialize, Serialize};
use storage::disk::{self, Disk, Privacy};
use storage::note::{Checkpoint, Note, Signed, WitnessSigner};
use zeroize::Zeroizing;

/// Name of the key file.
const KEY: &str = "witness.key";
/// Name of the file with the latest checkpoints.
const LATEST: &str = "latest.json";
/// Name of the folder with checkpoints that contradict others.
const SUSPECT: &str = "suspect";
/// First line of a key file.
const KEY_FORM: &str = "keytrail-witness-key-v1";
/// Longest key file that is read, in bytes.
const KEY_MAX: u64 = 1_024;
/// Longest file of latest checkpoints that is read, in bytes.
const LATEST_MAX: u64 = 64 * 1024 * 1024;
/// Version of that file's layout.
const VERSION: u32 = 1;

/// Why a witness cannot start.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// A file operation failed.
    #[error("{}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The key file is none.
    #[error("{} is no key of a witness", .0.display())]
    Key(PathBuf),
    /// The key file may be read by others than its owner.
    #[error("{} may be read by others; make it mode 0600, or a new witness if they have read it", .0.display())]
    Readable(PathBuf),
    /// The name cannot be a key's.
    #[error("a witness's name must not be empty and have no blanks and no plus sign")]
    Name,
    /// The witness has another name already.
    #[error("this witness is called {0}; its key goes with its name")]
    OtherName(String),
    /// What it knew is lost or damaged.
    #[error("{}: {why}; a witness that has forgotten must not cosign. Put back the newest copy, or begin a new witness in an empty folder", path.display())]
    Forgotten {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
}

/// The latest checkpoint of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Latest {
    /// What it says.
    pub(super) checkpoint: Checkpoint,
    /// As the log signed it, and as it was cosigned.
    pub(super) note: Note,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    version: u32,
    checkpoints: Vec<String>,
}

/// The folder of a witness.
pub(super) struct Files {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
}

impl Files {
    pub(super) fn new(disk: Arc<dyn Disk>, dir: &Path) -> Self {
        Self { disk, dir: dir.to_owned() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The key, and what it has cosigned; both made if the folder is new. A new
    /// key gets `name`, or one that is drawn.
    pub(super) fn open(
        &self,
        name: Option<&str>,
        entropy: &dyn Entropy,
    ) -> Result<(WitnessSigner, Vec<Latest>), FilesError> {
        let (key, latest) = (self.path(KEY), self.path(LATEST));
        let exists = |path: &Path| self.disk.exists(path).map_err(failed(path));
        match (exists(&key)?, exists(&latest)?) {
            (true, true) => {
                let signer = self.read_key(name)?;
                let known = self.read_latest(&signer)?;
                Ok((signer, known))
            }
            (true, false) => Err(FilesError::Forgotten { path: latest, why: "it is missing" }),
            (false, there) => {
                if there && !self.read_stored()?.checkpoints.is_empty() {
                    return Err(FilesError::Forgotten { path: key, why: "it is missing" });
                }
                self.write_latest([]).map_err(failed(&latest))?;
                Ok((self.make_key(name, entropy)?, Vec::new()))
            }
        }
    }

    fn make_key(
        &self,
        name: Option<&str>,
        entropy: &dyn Entropy,
    ) -> Result<WitnessSigner, FilesError> {
        let drawn: String = random::<8>(entropy).iter().map(|byte| format!("{byte:02x}")).collect();
        let name = name.map_or_else(|| format!("keytrail-witness/{drawn}"), str::to_owned);
        let seed = Zeroizing::new(random::<32>(entropy));
        let signer = WitnessSigner::new(&name, &seed).ok_or(FilesError::Name)?;
        let encoded = Zeroizing::new(STANDARD.encode(*seed));
        let text = Zeroizing::new(format!("{KEY_FORM}\n{name}\n{}\n", *encoded));
        let path = self.path(KEY);
        disk::write_atomically(&*self.disk, &path, text.as_bytes(), Privacy::Private)
            .map_err(failed(&path))?;
        Ok(signer)
    }

    fn read_key(&self, name: Option<&str>) -> Result<WitnessSigner, FilesError> {
        let path = self.path(KEY);
        let mode = std::fs::metadata(&path).map_err(failed(&path))?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(FilesError::Readable(path));
        }
        let bytes = Zeroizing::new(self.disk.read(&path, KEY_MAX).map_err(failed(&path))?);
        let (kept, seed) = parse_key(&bytes).ok_or_else(|| FilesError::Key(path.clone()))?;
        if name.is_some_and(|name| name != kept) {
            return Err(FilesError::OtherName(kept.to_owned()));
        }
        WitnessSigner::new(kept, &seed).ok_or(FilesError::Key(path))
    }

    fn read_stored(&self) -> Result<Stored, FilesError> {
        let path = self.path(LATEST);
        let bytes = self.disk.read(&path, LATEST_MAX).map_err(failed(&path))?;
        let stored = serde_json::from_slice::<Stored>(&bytes).ok();
        stored
            .filter(|stored| stored.version == VERSION)
            .ok_or(FilesError::Forgotten { path, why: "it cannot be read" })
    }

    fn read_latest(&self, signer: &WitnessSigner) -> Result<Vec<Latest>, FilesError> {
        let read = |text: &String| {
            let note: Note = text.parse().ok()?;
            let cosigned = signer.verifier().verify(&note).ok()??;
            let checkpoint = Checkpoint::of_text(&note.text).ok()?;
            matches!(cosigned, Signed::Witness { .. }).then_some(Latest { checkpoint, note })
        };
        let stored = self.read_stored()?;
        let known: Option<Vec<_>> = stored.checkpoints.iter().map(read).collect();
        known.ok_or_else(|| FilesError::Forgotten {
            path: self.path(LATEST),
            why: "it holds what this witness has not cosigned",
        })
    }

    /// Replaces what is known. On return it is durable.
    ///
    /// It may be tried again after it failed: each try writes and syncs a whole
    /// new file.
    pub(super) fn write_latest<'a>(
        &self,
        known: impl IntoIterator<Item = &'a Latest>,
    ) -> io::Result<()> {
        let checkpoints = known.into_iter().map(|latest| latest.note.to_string()).collect();
        let text = serde_json::to_vec_pretty(&Stored { version: VERSION, checkpoints })?;
        disk::write_atomically(&*self.disk, &self.path(LATEST), &text, Privacy::Shared)
    }

    /// Keeps a checkpoint that contradicts another, once, and returns where.
    pub(super) fn keep_suspect(&self, name: &str, note: &Note) -> io::Result<PathBuf> {
        let dir = self.path(SUSPECT);
        self.disk.create_dir(&dir, Privacy::Shared)?;
        let path = dir.join(name);
        if !self.disk.exists(&path)? {
            let text = note.to_string();
            disk::write_atomically(&*self.disk, &path, text.as_bytes(), Privacy::Shared)?;
        }
        Ok(path)
    }
}

fn parse_key(bytes: &[u8]) -> Option<(&str, Zeroizing<[u8; 32]>)> {
    let mut lines = std::str::from_utf8(bytes).ok()?.strip_suffix('\n')?.split('\n');
    let (KEY_FORM, name, seed, None) = (lines.next()?, lines.next()?, lines.next()?, lines.next())
    else {
        return None;
    };
    let seed = Zeroizing::new(STANDARD.decode(seed).ok()?);
    Some((name, Zeroizing::new(seed.as_slice().try_into().ok()?)))
}

fn failed(path: &Path) -> impl Fn(io::Error) -> FilesError {
    move |source| FilesError::Io { path: path.to_owned(), source }
}
