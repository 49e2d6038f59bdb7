//! Sealed parts on their way into a record and out of it.
//!
//! One place knows what a part is bound to; `docs/sealed-parts.md` says why.

use engine::codec;
use engine::events::Payload;
use engine::ids::Id;
use engine::machine::Draft;
use engine::seal::{self, Binding};
use serde::Serialize;
use serde::de::DeserializeOwned;
use storage::keys::{KeyStore, SubjectKey};

use crate::problem::{ApiError, Code};

/// The key of a subject; none if the person was erased.
///
/// # Errors
///
/// [`Code::Internal`] if the key store cannot be read.
pub fn subject_key(keys: &KeyStore, subject: Id) -> Result<Option<SubjectKey>, ApiError> {
    keys.subject_key(subject).map_err(|error| ApiError::new(Code::Internal).cause(error))
}

/// Seals `content` for the event `event_id` of type `P` in `stream`.
#[must_use]
pub fn seal<P: Payload>(
    subject: &SubjectKey,
    event_id: Id,
    stream: Id,
    content: &impl Serialize,
) -> Vec<u8> {
    let (event_type, schema) = P::KIND;
    let binding = Binding { event_id, stream, event_type, schema, subject: subject.id };
    seal::seal(subject.key.expose(), &binding, &codec::encode(content))
}

/// What an event holds sealed.
///
/// # Errors
///
/// [`Code::Internal`] if it does not open with this key or is something else.
pub fn open<T: DeserializeOwned>(subject: &SubjectKey, draft: &Draft) -> Result<T, ApiError> {
    let opened = seal::open(subject.key.expose(), &Binding::of(draft), &draft.sealed)
        .map_err(|error| ApiError::new(Code::Internal).cause(error))?;
    codec::decode(&opened).map_err(|error| ApiError::new(Code::Internal).cause(error))
}
