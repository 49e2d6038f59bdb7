//! Sealed attestation evidence, opened for whoever has the keys.
//!
//! Without its key evidence stays sealed, and after an erasure there is none:
//! two states that are no failures.

use std::path::Path;

use engine::codec;
use engine::ids::Id;
use engine::machine::Draft;
use engine::seal::{self, Binding};
use engine::sealed::{Salted, SealedResponseV1};
use storage::disk::RealDisk;
use storage::keys::{Found, KeyReader};

use crate::folder::FolderError;

const NOTHING: &str = "no evidence is in the sealed part";

/// What opens evidence.
pub(crate) enum Keys {
    /// A key store.
    Open(KeyReader),
    /// None, and why.
    None(String),
}

/// What became of the evidence of an event.
pub(crate) enum Opened {
    /// It was opened.
    Evidence(Salted),
    /// No key is there for it.
    Sealed,
    /// Its key was destroyed.
    Erased,
}

impl Keys {
    /// The key store in `named`, or in `beside` where none was named.
    ///
    /// # Errors
    ///
    /// [`FolderError`] if one was named and cannot be used. One beside the log
    /// that cannot be used is as good as none.
    pub(crate) fn open(beside: &Path, named: Option<&Path>) -> Result<Self, FolderError> {
        match (KeyReader::open(&RealDisk, named.unwrap_or(beside)), named) {
            (Ok(Some(keys)), _) => Ok(Self::Open(keys)),
            (Ok(None), None) => Ok(Self::None("there is no key store beside the log".into())),
            (Ok(None), Some(named)) => Err(FolderError::NoKeys(named.to_owned())),
            (Err(error), None) => Ok(Self::None(error.to_string())),
            (Err(error), Some(_)) => Err(FolderError::Keys(error)),
        }
    }

    /// Whether the key store says that a person was erased.
    pub(crate) fn is_erased(&self, subject: Id) -> bool {
        match self {
            Self::Open(keys) => matches!(keys.subject(subject), Ok(Found::Erased)),
            Self::None(_) => false,
        }
    }

    /// The evidence that came with an event.
    ///
    /// # Errors
    ///
    /// What is wrong with it, in words that name nobody.
    pub(crate) fn evidence(&self, draft: &Draft) -> Result<Opened, String> {
        // An erasure ends registrations before it destroys a key, so whatever was
        // judged was sealed.
        if draft.sealed.is_empty() {
            return Err(NOTHING.into());
        }
        let Self::Open(keys) = self else { return Ok(Opened::Sealed) };
        let subject = match keys.subject(draft.subject).map_err(|error| error.to_string())? {
            Found::Key(subject) => subject,
            Found::Erased => return Ok(Opened::Erased),
            Found::Unknown => return Ok(Opened::Sealed),
        };
        let opened = seal::open(subject.key.expose(), &Binding::of(draft), &draft.sealed)
            .map_err(|error| error.to_string())?;
        let response: SealedResponseV1 =
            codec::decode(&opened).map_err(|error| format!("the sealed part: {error}"))?;
        response.attestation.map(Opened::Evidence).ok_or_else(|| NOTHING.into())
    }
}
