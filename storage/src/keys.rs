//! The key store: what must never stand in the log.
//!
//! What is promised: a subject's key that was handed out is found again, or
//! opening says that it is not; and one that was erased is gone from the files.

mod group;
mod pair;
pub mod rotation;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, Nonce, UnboundKey};
use engine::ids::Id;
use engine::machine::{Entropy, random};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::disk::{self, Disk, Privacy};
use group::{Failure, Subjects};
use pair::{NONCE_LEN, Slot, WRAPPED_LEN, Wrapped};

/// A 256-bit secret. Wiped when dropped, never shown.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Secret32([u8; 32]);

impl Secret32 {
    /// The secret these bytes are.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes, for whoever computes with them.
    #[must_use]
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Secret32 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// A secret of the server, in a file of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretName {
    /// Hashes the secrets of API keys.
    ApiKeys,
    /// Derives and hashes activation codes.
    ActivationCodes,
    /// Hashes users' references on their way to subjects.
    Subjects,
    /// Signs checkpoints.
    Checkpoints,
    /// Signs evidence that service providers keep.
    Evidence,
}

/// A subject and the key that seals what names it.
#[derive(Debug, Clone)]
pub struct SubjectKey {
    /// The subject's random id.
    pub id: Id,
    /// Its key.
    pub key: Secret32,
}

/// Whether keys must be there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// The log has records: a key store that is missing is a loss.
    Existing,
    /// The log is empty: a key store that is missing is made.
    MayBeNew,
}

/// Why the key store does not do what it is asked.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The medium failed.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// A file is missing that must be there.
    #[error("{} is missing: {loss}; put it back from a copy of the folder keys/", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// What its loss means.
        loss: &'static str,
    },
    /// A file holds something else than was written.
    #[error("{} is damaged: {loss}; put it back from a copy of the folder keys/", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What its loss means.
        loss: &'static str,
    },
    /// The subjects' keys were wrapped under other secrets than those beside them.
    #[error("{} does not belong to the key files beside it; put back the whole folder keys/ from one copy", path.display())]
    OtherKeys {
        /// The file.
        path: PathBuf,
    },
    /// No space is left. Nothing has changed; once there is space it works again.
    #[error("no space left for the key store")]
    Full,
    /// An earlier write failed; the next start decides what is there.
    #[error("an earlier write to the key store failed")]
    Failed,
}

/// The parts of the store, one file each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Secret(SecretName),
    Wrapping,
    Subjects,
    Mirror,
}

impl Part {
    /// Those that are one secret.
    const SECRETS: [Self; 6] = [
        Self::Secret(SecretName::ApiKeys),
        Self::Secret(SecretName::ActivationCodes),
        Self::Secret(SecretName::Subjects),
        Self::Secret(SecretName::Checkpoints),
        Self::Secret(SecretName::Evidence),
        Self::Wrapping,
    ];

    fn file_name(self) -> &'static str {
        match self {
            Self::Secret(SecretName::ApiKeys) => "api-keys.key",
            Self::Secret(SecretName::ActivationCodes) => "activation-codes.key",
            Self::Secret(SecretName::Subjects) => "subjects.key",
            Self::Secret(SecretName::Checkpoints) => "checkpoints.key",
            Self::Secret(SecretName::Evidence) => "evidence.key",
            Self::Wrapping => "wrapping.key",
            Self::Subjects => "subjects.store",
            Self::Mirror => "subjects.mirror",
        }
    }

    fn loss(self) -> &'static str {
        match self {
            Self::Secret(SecretName::ApiKeys) => "without it no API key is accepted",
            Self::Secret(SecretName::ActivationCodes) => {
                "without it no activation code that was handed out works"
            }
            Self::Secret(SecretName::Subjects) => {
                "without it no user's reference leads to the user's data"
            }
            Self::Secret(SecretName::Checkpoints) => {
                "without it no further checkpoint of this log can be signed"
            }
            Self::Secret(SecretName::Evidence) => {
                "without it evidence is signed with another key than before"
            }
            Self::Wrapping => "without it no personal data in the log can be read",
            Self::Subjects | Self::Mirror => {
                "without it the personal data of the users in it cannot be read"
            }
        }
    }

    fn missing(self, dir: &Path) -> KeyError {
        KeyError::Missing { path: dir.join(self.file_name()), loss: self.loss() }
    }

    fn damaged(self, dir: &Path) -> KeyError {
        KeyError::Damaged { path: dir.join(self.file_name()), loss: self.loss() }
    }

    fn io(self, dir: &Path) -> impl Fn(io::Error) -> KeyError {
        let path = dir.join(self.file_name());
        move |source| KeyError::Io { path: path.clone(), source }
    }
}

const SECRET_MAGIC: &[u8; 8] = b"KTSECRT1";
const SECRET_CONTEXT: &str = "keytrail 2026-11 key file v1";
const SLOT_CONTEXT: &str = "keytrail 2026-11 subject slot v1";
const TAG_CONTEXT: &str = "keytrail 2026-11 subject reference v1";

/// Length of a file with one secret.
const SECRET_FILE_LEN: usize = 72;

/// The key store in the folder `keys/`. Shared by all threads.
pub struct KeyStore {
    entropy: Arc<dyn Entropy>,
    dir: PathBuf,
    secrets: [Secret32; 5],
    wrapping: LessSafeKey,
    tag_key: Secret32,
    subjects: Subjects,
    repaired: u64,
}

impl KeyStore {
    /// Opens the key store in `dir` (the folder `keys/`), or makes it.
    ///
    /// # Errors
    ///
    /// [`KeyError`], naming the file and what its loss means.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        entropy: Arc<dyn Entropy>,
        expect: Expect,
    ) -> Result<Self, KeyError> {
        let at_dir = |source| KeyError::Io { path: dir.to_path_buf(), source };
        disk.create_dir(dir, Privacy::Private).map_err(at_dir)?;
        disk.sync_dir(disk::parent(dir)).map_err(at_dir)?;
        // Names that are read may stand in memory only; from here on they count.
        disk.sync_dir(dir).map_err(at_dir)?;
        let mut secrets = Vec::new();
        for part in Part::SECRETS {
            let opened = open_secret(disk.as_ref(), dir, part, entropy.as_ref(), expect);
            let opened = match opened {
                // A rotation was cut short while it overwrote the old secret.
                Err(KeyError::Damaged { path, loss })
                    if part == Part::Secret(SecretName::Checkpoints) =>
                {
                    rotation::waiting(disk.as_ref(), dir)?
                        .ok_or(KeyError::Damaged { path, loss })?
                }
                opened => opened?,
            };
            secrets.push(opened);
        }
        let [api_keys, codes, references, checkpoints, evidence, wrapping] =
            <[Secret32; 6]>::try_from(secrets).map_err(|_| Part::Wrapping.missing(dir))?;
        let slot_key = slot_key(&references, &wrapping);
        let (subjects, repaired) = Subjects::open(disk.as_ref(), dir, slot_key, expect)?;
        let wrapping = UnboundKey::new(&AES_256_GCM_SIV, wrapping.expose())
            .map_err(|_| Part::Wrapping.damaged(dir))?;
        let tag_key = Secret32::new(blake3::derive_key(TAG_CONTEXT, references.expose()));
        Ok(Self {
            entropy,
            dir: dir.to_path_buf(),
            secrets: [api_keys, codes, references, checkpoints, evidence],
            wrapping: LessSafeKey::new(wrapping),
            tag_key,
            repaired,
            subjects,
        })
    }

    /// Whether there are subjects in `dir` (the folder `keys/`).
    ///
    /// # Errors
    ///
    /// As the medium says.
    pub fn is_in(disk: &dyn Disk, dir: &Path) -> Result<bool, KeyError> {
        let there = |part: Part| disk.exists(&dir.join(part.file_name())).map_err(part.io(dir));
        Ok(there(Part::Subjects)? || there(Part::Mirror)?)
    }

    /// A secret of the server. Made, durably, with the store.
    ///
    /// # Errors
    ///
    /// [`KeyError`].
    pub fn secret(&self, name: SecretName) -> Result<Secret32, KeyError> {
        let [api_keys, codes, subjects, checkpoints, evidence] = &self.secrets;
        Ok(match name {
            SecretName::ApiKeys => api_keys.clone(),
            SecretName::ActivationCodes => codes.clone(),
            SecretName::Subjects => subjects.clone(),
            SecretName::Checkpoints => checkpoints.clone(),
            SecretName::Evidence => evidence.clone(),
        })
    }

    /// The subject of a service provider's user; made, durably, if there is
    /// none. Waits for the disk: not for async workers.
    ///
    /// # Errors
    ///
    /// [`KeyError`].
    pub fn subject_for(
        &self,
        service_provider: &str,
        user_ref: &str,
    ) -> Result<SubjectKey, KeyError> {
        let tag = self.tag(service_provider, user_ref);
        loop {
            let mut made = None;
            let found = self.subjects.find_or_make(&tag, || {
                let id = Id(random(self.entropy.as_ref()));
                let key = Secret32::new(random(self.entropy.as_ref()));
                let wrapped = self.wrap(id, tag, &key)?;
                made = Some(SubjectKey { id, key });
                Ok::<_, WriteError>(Slot { id, wrapped: Some(wrapped) })
            });
            let id = found.map_err(|error| self.write_error(error))?;
            // None only where it was erased since it was found.
            if let Some(subject) =
                made.map_or_else(|| self.subject_key(id), |made| Ok(Some(made)))?
            {
                return Ok(subject);
            }
        }
    }

    /// The subject of a service provider's user, if there is one.
    #[must_use]
    pub fn find_subject(&self, service_provider: &str, user_ref: &str) -> Option<Id> {
        self.subjects.find(&self.tag(service_provider, user_ref))
    }

    /// The key of a subject; none if there is no such subject, or it was erased.
    ///
    /// # Errors
    ///
    /// [`KeyError`].
    pub fn subject_key(&self, id: Id) -> Result<Option<SubjectKey>, KeyError> {
        let wrapped =
            self.subjects.wrapped(id).map_err(|failure| self.write_error(failure.into()))?;
        wrapped.map(|wrapped| self.unwrap(id, wrapped)).transpose()
    }

    /// Destroys a subject's key and the way from its reference to it; false if
    /// there was none. On `Ok` both are overwritten in every file, durably: what
    /// was sealed under the key can never be read again. The same reference gets
    /// a new subject from then on. Waits for the disk.
    ///
    /// What is in copies of the folder, or in blocks that the medium has moved,
    /// is not reached.
    ///
    /// # Errors
    ///
    /// [`KeyError`]; whether the key is destroyed is then for the next start to
    /// say, and erasing again is safe.
    pub fn erase(&self, id: Id) -> Result<bool, KeyError> {
        self.subjects.erase(id).map_err(|failure| self.write_error(failure.into()))
    }

    /// Whether there is or was such a subject.
    #[must_use]
    pub fn is_known(&self, id: Id) -> bool {
        self.subjects.knows(id)
    }

    /// How many subjects there ever were, erased ones included. Never less than
    /// before, unless keys are lost.
    #[must_use]
    pub fn subjects_made(&self) -> u64 {
        self.subjects.count()
    }

    /// The folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// How many slots opening wrote again in one of the two files of subjects
    /// from the other, because a power cut or damage had made them differ.
    #[must_use]
    pub fn repaired(&self) -> u64 {
        self.repaired
    }

    fn write_error(&self, error: WriteError) -> KeyError {
        match error {
            WriteError::Key(error) => error,
            WriteError::Write(Failure::Full) => KeyError::Full,
            WriteError::Write(Failure::Earlier) => KeyError::Failed,
            WriteError::Write(Failure::Damaged) => Part::Subjects.damaged(&self.dir),
            WriteError::Write(Failure::Io(kind, text)) => {
                Part::Subjects.io(&self.dir)(io::Error::new(kind, text))
            }
        }
    }

    /// What a reference is found by: a keyed hash, so that the file alone
    /// names nobody.
    fn tag(&self, service_provider: &str, user_ref: &str) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_keyed(self.tag_key.expose());
        hasher.update(&(service_provider.len() as u64).to_be_bytes());
        hasher.update(service_provider.as_bytes());
        hasher.update(user_ref.as_bytes());
        *hasher.finalize().as_bytes()
    }

    fn wrap(&self, id: Id, tag: [u8; 32], key: &Secret32) -> Result<Wrapped, KeyError> {
        let nonce: [u8; NONCE_LEN] = random(self.entropy.as_ref());
        let mut wrapped = [0; WRAPPED_LEN];
        wrapped[..32].copy_from_slice(key.expose());
        let seal = self
            .wrapping
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(id.0),
                &mut wrapped[..32],
            )
            .map_err(|_| Part::Wrapping.damaged(&self.dir))?;
        wrapped[32..].copy_from_slice(seal.as_ref());
        Ok(Wrapped { tag, nonce, key: wrapped })
    }

    fn unwrap(&self, id: Id, wrapped: Wrapped) -> Result<SubjectKey, KeyError> {
        let nonce = Nonce::assume_unique_for_key(wrapped.nonce);
        let mut wrapped = wrapped.key;
        let opened = self
            .wrapping
            .open_in_place(nonce, Aad::from(id.0), &mut wrapped)
            .map_err(|_| Part::Wrapping.damaged(&self.dir))?;
        let mut bytes = [0; 32];
        bytes.copy_from_slice(opened);
        let key = Secret32::new(bytes);
        bytes.zeroize();
        wrapped.zeroize();
        Ok(SubjectKey { id, key })
    }
}

/// Why no subject was made.
enum WriteError {
    Key(KeyError),
    Write(Failure),
}

impl From<KeyError> for WriteError {
    fn from(error: KeyError) -> Self {
        Self::Key(error)
    }
}

impl From<Failure> for WriteError {
    fn from(failure: Failure) -> Self {
        Self::Write(failure)
    }
}

/// Keys the hashes of slots: made from both secrets that the slots need.
fn slot_key(references: &Secret32, wrapping: &Secret32) -> Secret32 {
    let mut both = [0; 64];
    both[..32].copy_from_slice(references.expose());
    both[32..].copy_from_slice(wrapping.expose());
    let key = Secret32::new(blake3::derive_key(SLOT_CONTEXT, &both));
    both.zeroize();
    key
}

fn open_secret(
    disk: &dyn Disk,
    dir: &Path,
    part: Part,
    entropy: &dyn Entropy,
    expect: Expect,
) -> Result<Secret32, KeyError> {
    let path = dir.join(part.file_name());
    match disk.read(&path, SECRET_FILE_LEN as u64) {
        Ok(mut bytes) => {
            let secret = decode_secret(&bytes);
            bytes.zeroize();
            secret.ok_or_else(|| part.damaged(dir))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => match expect {
            Expect::Existing => Err(part.missing(dir)),
            Expect::MayBeNew => {
                let secret = Secret32::new(random(entropy));
                let mut bytes = encode_secret(&secret);
                let made = disk::write_atomically(disk, &path, &bytes, Privacy::Private);
                bytes.zeroize();
                made.map_err(part.io(dir))?;
                Ok(secret)
            }
        },
        Err(error) if error.kind() == io::ErrorKind::FileTooLarge => Err(part.damaged(dir)),
        Err(error) => Err(part.io(dir)(error)),
    }
}

/// A file with one secret. To be overwritten by whoever is done with it.
fn encode_secret(secret: &Secret32) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(SECRET_FILE_LEN);
    bytes.extend_from_slice(SECRET_MAGIC);
    bytes.extend_from_slice(secret.expose());
    let hash = blake3::derive_key(SECRET_CONTEXT, &bytes);
    bytes.extend_from_slice(&hash);
    bytes
}

fn decode_secret(bytes: &[u8]) -> Option<Secret32> {
    let bytes: &[u8; SECRET_FILE_LEN] = bytes.try_into().ok()?;
    let (fields, hash) = bytes.split_at(40);
    if !fields.starts_with(SECRET_MAGIC) || blake3::derive_key(SECRET_CONTEXT, fields) != hash {
        return None;
    }
    fields[8..].try_into().ok().map(Secret32::new)
}

#[cfg(test)]
mod tests;
