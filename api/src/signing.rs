//! Which secret signs the log's checkpoints, by what the log says of its keys.
//!
//! A rotation of the key that was cut short is finished here, or taken back: the
//! log decides, see [`storage::keys::rotation`].

use engine::Keytrail;
use engine::entries::{Look, System};
use engine::key::PublicKey;
use storage::disk::Disk;
use storage::keys::{KeyError, Secret32, SecretName, rotation};
use storage::notary::Signing;
use storage::note::{LogSigner, NoteError};
use storage::open::Store;
use storage::succession::{Succession, SuccessionError};

/// Why the log cannot be signed.
#[derive(Debug, thiserror::Error)]
pub enum SigningError {
    /// A secret cannot be read or put into its place.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// The origin line cannot name a key.
    #[error(transparent)]
    Name(#[from] NoteError),
    /// The log names keys that are none.
    #[error("what the log says of its keys cannot be used")]
    Succession(#[from] SuccessionError),
    /// The log names another key than the one in `keys/`.
    #[error(
        "keys/checkpoints.key is not the key that the log names: put back the newest copy of the folder keys/"
    )]
    OtherKey,
}

/// The key that signs now, under the log's present origin line.
pub struct Established {
    /// The log's present origin line.
    pub origin: String,
    secret: Secret32,
    system: System,
    /// The origin line that the log began with.
    first_origin: String,
}

impl Established {
    /// Finds it for an open store, and finishes or takes back a rotation that was
    /// cut short.
    ///
    /// # Errors
    ///
    /// [`SigningError`].
    pub fn of(store: &Store<Keytrail>, disk: &dyn Disk) -> Result<Self, SigningError> {
        let system = Look(&store.state).system();
        let first_origin = store.origin.clone();
        // A log without a record has no origin in its state.
        let origin = if system.origin.is_empty() { &first_origin } else { &system.origin }.clone();
        let mut secret = store.keys.secret(SecretName::Checkpoints)?;
        let named = system.signing_key().map(|key| key.check()).transpose();
        let named = named.map_err(SuccessionError::from)?;
        let dir = store.keys.dir();
        if let Some(waiting) = rotation::waiting(disk, dir)? {
            if named == Some(public(&origin, &waiting)?) {
                rotation::promote(disk, dir)?;
                secret = waiting;
                tracing::warn!("a rotation of the checkpoint key was finished");
            } else if named.is_none() || named == Some(public(&origin, &secret)?) {
                rotation::drop_waiting(disk, dir)?;
                tracing::warn!(
                    "a rotation of the checkpoint key that never took place was dropped"
                );
            }
        }
        let present = public(&origin, &secret)?;
        if named.is_some_and(|named| named != present) {
            return Err(SigningError::OtherKey);
        }
        Ok(Self { origin, secret, system, first_origin })
    }

    /// A signer with the key.
    ///
    /// # Errors
    ///
    /// [`NoteError`].
    pub fn signer(&self) -> Result<LogSigner, NoteError> {
        LogSigner::of_secret(&self.origin, self.secret.expose())
    }

    /// Which key signed what, up to now.
    ///
    /// # Errors
    ///
    /// [`SigningError`].
    pub fn succession(&self) -> Result<Succession, SigningError> {
        let key = public(&self.origin, &self.secret)?;
        Ok(Succession::of(&self.first_origin, &key, &self.system.successions)?)
    }

    /// Both, for a notary.
    ///
    /// # Errors
    ///
    /// [`SigningError`].
    pub fn signing(&self) -> Result<Signing, SigningError> {
        Ok(Signing { signer: self.signer()?, succession: self.succession()? })
    }
}

fn public(origin: &str, secret: &Secret32) -> Result<PublicKey, NoteError> {
    Ok(LogSigner::of_secret(origin, secret.expose())?.public_key())
}
