//! The key store: what must never stand in the log.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use engine::ids::Id;
use engine::machine::Entropy;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::disk::Disk;

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
        source: io::Error,
    },
}

/// The key store in the folder `keys/`. Shared by all threads.
pub struct KeyStore {
    _private: (),
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
        let _ = (disk, dir, entropy, expect);
        unimplemented!()
    }

    /// A secret of the server; made, durably, when first asked for.
    ///
    /// # Errors
    ///
    /// [`KeyError`].
    pub fn secret(&self, name: SecretName) -> Result<Secret32, KeyError> {
        let _ = name;
        unimplemented!()
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
        let _ = (service_provider, user_ref);
        unimplemented!()
    }

    /// The subject of a service provider's user, if there is one.
    #[must_use]
    pub fn find_subject(&self, service_provider: &str, user_ref: &str) -> Option<Id> {
        let _ = (service_provider, user_ref);
        unimplemented!()
    }

    /// The key of a subject; none if there is no such subject, or it was erased.
    ///
    /// # Errors
    ///
    /// [`KeyError`].
    pub fn subject_key(&self, id: Id) -> Result<Option<SubjectKey>, KeyError> {
        let _ = id;
        unimplemented!()
    }

    /// Destroys a subject's key and the way from its reference to it. On `Ok`
    /// the key cannot be had from the files any more.
    ///
    /// # Errors
    ///
    /// [`KeyError`].
    pub fn erase(&self, id: Id) -> Result<(), KeyError> {
        let _ = id;
        unimplemented!()
    }
}
