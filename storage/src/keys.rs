//! The key store: what must never stand in the log.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, Nonce, UnboundKey};
use engine::ids::Id;
use engine::machine::{Entropy, random};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::disk::{self, Disk, DiskFile, Open, Privacy};

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
}

impl Part {
    /// Those that are one secret.
    const SECRETS: [Self; 4] = [
        Self::Secret(SecretName::ApiKeys),
        Self::Secret(SecretName::ActivationCodes),
        Self::Secret(SecretName::Subjects),
        Self::Wrapping,
    ];

    fn file_name(self) -> &'static str {
        match self {
            Self::Secret(SecretName::ApiKeys) => "api-keys.key",
            Self::Secret(SecretName::ActivationCodes) => "activation-codes.key",
            Self::Secret(SecretName::Subjects) => "subjects.key",
            Self::Wrapping => "wrapping.key",
            Self::Subjects => "subjects.store",
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
            Self::Wrapping => "without it no personal data in the log can be read",
            Self::Subjects => "without it the personal data of the users in it cannot be read",
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
const SUBJECTS_MAGIC: &[u8; 8] = b"KTSUBJT1";
const SECRET_CONTEXT: &str = "keytrail 2026-11 key file v1";
const ENTRY_CONTEXT: &str = "keytrail 2026-11 subject entry v1";
const TAG_CONTEXT: &str = "keytrail 2026-11 subject reference v1";

/// Length of a file with one secret.
const SECRET_FILE_LEN: usize = 72;
/// Length of a subject's entry: id, tag of the reference, nonce, wrapped key
/// with its tag, hash.
const ENTRY_LEN: usize = 16 + 32 + NONCE_LEN + WRAPPED_LEN + 32;
const NONCE_LEN: usize = 12;
const WRAPPED_LEN: usize = 32 + 16;

/// The key store in the folder `keys/`. Shared by all threads.
pub struct KeyStore {
    entropy: Arc<dyn Entropy>,
    dir: PathBuf,
    secrets: [Secret32; 3],
    wrapping: LessSafeKey,
    tag_key: Secret32,
    subjects: Mutex<Subjects>,
}

/// The file of subjects, and what it holds. Keys stay wrapped in memory.
struct Subjects {
    file: Box<dyn DiskFile>,
    len: u64,
    by_tag: HashMap<[u8; 32], Id>,
    by_id: HashMap<Id, ([u8; NONCE_LEN], [u8; WRAPPED_LEN])>,
    failed: bool,
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
        let mut secrets = Vec::new();
        for part in Part::SECRETS {
            secrets.push(open_secret(disk.as_ref(), dir, part, entropy.as_ref(), expect)?);
        }
        let subjects = open_subjects(disk.as_ref(), dir, expect)?;
        let [api_keys, codes, references, wrapping] =
            <[Secret32; 4]>::try_from(secrets).map_err(|_| Part::Wrapping.missing(dir))?;
        let wrapping = UnboundKey::new(&AES_256_GCM_SIV, wrapping.expose())
            .map_err(|_| Part::Wrapping.damaged(dir))?;
        let tag_key = Secret32::new(blake3::derive_key(TAG_CONTEXT, references.expose()));
        Ok(Self {
            entropy,
            dir: dir.to_path_buf(),
            secrets: [api_keys, codes, references],
            wrapping: LessSafeKey::new(wrapping),
            tag_key,
            subjects: Mutex::new(subjects),
        })
    }

    /// A secret of the server. Made, durably, with the store.
    ///
    /// # Errors
    ///
    /// [`KeyError`].
    pub fn secret(&self, name: SecretName) -> Result<Secret32, KeyError> {
        let [api_keys, codes, subjects] = &self.secrets;
        Ok(match name {
            SecretName::ApiKeys => api_keys.clone(),
            SecretName::ActivationCodes => codes.clone(),
            SecretName::Subjects => subjects.clone(),
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
        // Held over the sync: two who ask for one user at once get one subject.
        let mut subjects = self.subjects();
        if let Some(&id) = subjects.by_tag.get(&tag) {
            let wrapped = subjects.by_id.get(&id).copied();
            let (nonce, wrapped) = wrapped.ok_or_else(|| Part::Subjects.damaged(&self.dir))?;
            return self.unwrap(id, nonce, wrapped);
        }
        if subjects.failed {
            return Err(KeyError::Failed);
        }
        let id = Id(random(self.entropy.as_ref()));
        let key = Secret32::new(random(self.entropy.as_ref()));
        let (nonce, wrapped) = self.wrap(id, &key)?;
        let entry = entry(id, &tag, &nonce, &wrapped);
        subjects.append(&entry).map_err(Part::Subjects.io(&self.dir))?;
        subjects.by_tag.insert(tag, id);
        subjects.by_id.insert(id, (nonce, wrapped));
        Ok(SubjectKey { id, key })
    }

    /// The subject of a service provider's user, if there is one.
    #[must_use]
    pub fn find_subject(&self, service_provider: &str, user_ref: &str) -> Option<Id> {
        let tag = self.tag(service_provider, user_ref);
        self.subjects().by_tag.get(&tag).copied()
    }

    /// The key of a subject; none if there is no such subject.
    ///
    /// # Errors
    ///
    /// [`KeyError`].
    pub fn subject_key(&self, id: Id) -> Result<Option<SubjectKey>, KeyError> {
        let wrapped = self.subjects().by_id.get(&id).copied();
        wrapped.map(|(nonce, wrapped)| self.unwrap(id, nonce, wrapped)).transpose()
    }

    fn subjects(&self) -> MutexGuard<'_, Subjects> {
        self.subjects.lock().unwrap_or_else(PoisonError::into_inner)
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

    fn wrap(
        &self,
        id: Id,
        key: &Secret32,
    ) -> Result<([u8; NONCE_LEN], [u8; WRAPPED_LEN]), KeyError> {
        let nonce: [u8; NONCE_LEN] = random(self.entropy.as_ref());
        let mut wrapped = [0; WRAPPED_LEN];
        wrapped[..32].copy_from_slice(key.expose());
        let tag = self
            .wrapping
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(id.0),
                &mut wrapped[..32],
            )
            .map_err(|_| Part::Wrapping.damaged(&self.dir))?;
        wrapped[32..].copy_from_slice(tag.as_ref());
        Ok((nonce, wrapped))
    }

    fn unwrap(
        &self,
        id: Id,
        nonce: [u8; NONCE_LEN],
        mut wrapped: [u8; WRAPPED_LEN],
    ) -> Result<SubjectKey, KeyError> {
        let nonce = Nonce::assume_unique_for_key(nonce);
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

impl Subjects {
    /// Writes an entry behind the last and syncs it.
    fn append(&mut self, entry: &[u8]) -> io::Result<()> {
        let written = self.file.write_at(entry, self.len).and_then(|()| self.file.sync_data());
        // Whether the entry is there is for the next start to say.
        self.failed = written.is_err();
        written?;
        self.len += entry.len() as u64;
        Ok(())
    }
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
                let mut bytes = SECRET_MAGIC.to_vec();
                bytes.extend_from_slice(secret.expose());
                let hash = blake3::derive_key(SECRET_CONTEXT, &bytes);
                bytes.extend_from_slice(&hash);
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

fn decode_secret(bytes: &[u8]) -> Option<Secret32> {
    let bytes: &[u8; SECRET_FILE_LEN] = bytes.try_into().ok()?;
    let (fields, hash) = bytes.split_at(40);
    if !fields.starts_with(SECRET_MAGIC) || blake3::derive_key(SECRET_CONTEXT, fields) != hash {
        return None;
    }
    fields[8..].try_into().ok().map(Secret32::new)
}

fn entry(id: Id, tag: &[u8; 32], nonce: &[u8; NONCE_LEN], wrapped: &[u8; WRAPPED_LEN]) -> Vec<u8> {
    let mut out = Vec::with_capacity(ENTRY_LEN);
    out.extend_from_slice(&id.0);
    out.extend_from_slice(tag);
    out.extend_from_slice(nonce);
    out.extend_from_slice(wrapped);
    let hash = blake3::derive_key(ENTRY_CONTEXT, &out);
    out.extend_from_slice(&hash);
    out
}

fn open_subjects(disk: &dyn Disk, dir: &Path, expect: Expect) -> Result<Subjects, KeyError> {
    let part = Part::Subjects;
    let path = dir.join(part.file_name());
    if !disk.exists(&path).map_err(part.io(dir))? {
        match expect {
            Expect::Existing => return Err(part.missing(dir)),
            Expect::MayBeNew => {
                disk::write_atomically(disk, &path, SUBJECTS_MAGIC, Privacy::Private)
                    .map_err(part.io(dir))?;
            }
        }
    }
    let file = disk.open(&path, Open::Write).map_err(part.io(dir))?;
    let mut subjects = Subjects {
        file,
        len: SUBJECTS_MAGIC.len() as u64,
        by_tag: HashMap::new(),
        by_id: HashMap::new(),
        failed: false,
    };
    let bytes = disk.read(&path, u64::MAX).map_err(part.io(dir))?;
    let entries = bytes.strip_prefix(SUBJECTS_MAGIC).ok_or_else(|| part.damaged(dir))?;
    let mut chunks = entries.chunks(ENTRY_LEN).peekable();
    while let Some(bytes) = chunks.next() {
        match (subjects.take(bytes), chunks.peek()) {
            (Some(()), _) => (),
            (None, Some(_)) => return Err(part.damaged(dir)),
            // The last one, not whole: no one ever got this subject.
            (None, None) => {
                let kept = dir.join("subjects.store.cut");
                disk::write_atomically(disk, &kept, bytes, Privacy::Private)
                    .map_err(part.io(dir))?;
                subjects.file.set_len(subjects.len).map_err(part.io(dir))?;
            }
        }
    }
    // What was read may stand in memory only; from here on it is handed out.
    subjects.file.sync_all().map_err(part.io(dir))?;
    Ok(subjects)
}

impl Subjects {
    /// Takes in one entry of the file; none if it is not whole.
    fn take(&mut self, bytes: &[u8]) -> Option<()> {
        let bytes: &[u8; ENTRY_LEN] = bytes.try_into().ok()?;
        let (fields, hash) = bytes.split_at(ENTRY_LEN - 32);
        if blake3::derive_key(ENTRY_CONTEXT, fields) != hash {
            return None;
        }
        let (id, rest) = fields.split_first_chunk()?;
        let (tag, rest) = rest.split_first_chunk()?;
        let (nonce, rest) = rest.split_first_chunk()?;
        let wrapped = rest.first_chunk()?;
        self.by_tag.insert(*tag, Id(*id));
        self.by_id.insert(Id(*id), (*nonce, *wrapped));
        self.len += ENTRY_LEN as u64;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::disk::MemoryDisk;

    #[derive(Default)]
    struct Counter(AtomicU64);

    impl Entropy for Counter {
        fn fill(&self, out: &mut [u8]) {
            let seed = self.0.fetch_add(1, Ordering::Relaxed).to_be_bytes();
            blake3::Hasher::new().update(&seed).finalize_xof().fill(out);
        }
    }

    fn open(disk: &MemoryDisk, expect: Expect) -> Result<KeyStore, KeyError> {
        let entropy = Arc::new(Counter::default());
        KeyStore::open(Arc::new(disk.clone()), Path::new("/keys"), entropy, expect)
    }

    #[test]
    fn secrets_and_subjects_are_the_same_after_a_restart() {
        let disk = MemoryDisk::default();
        let store = open(&disk, Expect::MayBeNew).unwrap();
        let secret = store.secret(SecretName::ApiKeys).unwrap();
        let made = store.subject_for("bank", "alice").unwrap();
        let other = store.subject_for("bank2", "alice").unwrap();
        assert_ne!(made.id, other.id);
        drop(store);
        let store = open(&disk, Expect::Existing).unwrap();
        assert_eq!(store.secret(SecretName::ApiKeys).unwrap().expose(), secret.expose());
        let found = store.subject_for("bank", "alice").unwrap();
        assert_eq!((found.id, found.key.expose()), (made.id, made.key.expose()));
        assert_eq!(store.find_subject("bank", "alice"), Some(made.id));
        assert_eq!(store.find_subject("ban", "kalice"), None);
        let by_id = store.subject_key(other.id).unwrap().unwrap();
        assert_eq!(by_id.key.expose(), other.key.expose());
        assert!(store.subject_key(Id([7; 16])).unwrap().is_none());
    }

    #[test]
    fn no_file_holds_a_reference_or_a_subjects_key_as_it_is() {
        let disk = MemoryDisk::default();
        let store = open(&disk, Expect::MayBeNew).unwrap();
        let made = store.subject_for("service-provider", "alice@example.org").unwrap();
        let contains = |bytes: &[u8], what: &[u8]| bytes.windows(what.len()).any(|w| w == what);
        for (path, bytes) in disk.files() {
            assert!(!contains(&bytes, b"alice"), "{}", path.display());
            assert!(!contains(&bytes, made.key.expose()), "{}", path.display());
        }
        assert_eq!(format!("{:?}", made.key), "[redacted]");
    }

    #[test]
    fn a_missing_or_changed_file_is_named_where_the_log_has_records() {
        let full = MemoryDisk::default();
        open(&full, Expect::MayBeNew).unwrap().subject_for("bank", "alice").unwrap();
        for path in full.files().keys() {
            let without = MemoryDisk::default();
            let changed = MemoryDisk::default();
            for (other, mut bytes) in full.files() {
                if &other != path {
                    without.put_file(&other, bytes.clone());
                } else {
                    bytes[0] ^= 1;
                }
                changed.put_file(&other, bytes);
            }
            let missing = open(&without, Expect::Existing).err().unwrap();
            assert!(matches!(missing, KeyError::Missing { path: p, .. } if &p == path));
            let damaged = open(&changed, Expect::Existing).err().unwrap();
            assert!(matches!(damaged, KeyError::Damaged { path: p, .. } if &p == path));
        }
    }

    #[test]
    fn a_subject_cut_off_at_any_byte_is_as_if_never_made() {
        let disk = MemoryDisk::default();
        let store = open(&disk, Expect::MayBeNew).unwrap();
        let first = store.subject_for("bank", "alice").unwrap();
        store.subject_for("bank", "bob").unwrap();
        let path = Path::new("/keys/subjects.store");
        let whole = disk.files()[path].clone();
        for cut in whole.len() - ENTRY_LEN..whole.len() {
            disk.put_file(path, whole[..cut].to_vec());
            let store = open(&disk, Expect::Existing).unwrap();
            assert_eq!(store.find_subject("bank", "alice"), Some(first.id));
            assert_eq!(store.find_subject("bank", "bob"), None);
            let again = store.subject_for("bank", "bob").unwrap();
            let store = open(&disk, Expect::Existing).unwrap();
            assert_eq!(store.find_subject("bank", "bob"), Some(again.id));
        }
    }

    #[test]
    fn a_subject_whose_sync_failed_is_not_handed_out_and_nothing_more_is_written() {
        let disk = MemoryDisk::default();
        let store = open(&disk, Expect::MayBeNew).unwrap();
        disk.fail_syncs_after(0);
        assert!(matches!(store.subject_for("bank", "alice"), Err(KeyError::Io { .. })));
        assert!(matches!(store.subject_for("bank", "alice"), Err(KeyError::Failed)));
        assert_eq!(store.find_subject("bank", "alice"), None);
    }
}
