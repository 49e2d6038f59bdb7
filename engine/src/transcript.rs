//! Transcripts: the canonical bytes that keys sign.
//!
//! A transcript is a fixed list of fields, each a 32-bit big-endian length and
//! that many bytes, all always present: no two transcripts have the same bytes,
//! and none can be read as another. `docs/protocol.md`, "Transcripts", is the
//! specification; `tests/vectors/transcript.py` is a second encoder written
//! from it, and the two are compared byte for byte.
//!
//! Contents (what the user is shown, risk data, …) enter as salted hashes of
//! the exact octets as transported. The salt keeps a short content from being
//! guessed by whoever sees only the hash.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::ids::Id;
use crate::key::{KeyId, PublicKey};
use crate::reasons::{OperationKind, RejectReason};
use crate::terms::{Decision, HwKeyClientStatus, Level, Method, Purpose, Role};
use crate::version::ClientVersion;

/// The first field: what these bytes are, and which version of the layout.
pub const DOMAIN: &str = "keytrail/transcript/v1";

/// A SHA-256 value, or [`NO_CONTENT`].
pub type Hash = [u8; 32];

/// Stands for a content that there is none of. An empty content has a hash.
pub const NO_CONTENT: Hash = [0; 32];

/// The salt of what needs none: keys are public, a device token is random.
const NO_SALT: [u8; 32] = [0; 32];

/// The fields of a transcript.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transcript {
    /// The application.
    pub application: Id,
    /// The registration.
    pub registration: Id,
    /// The operation; the activation at activation.
    pub operation: Id,
    /// The challenge being answered.
    pub challenge: [u8; 32],
    /// The key that signs.
    pub key: KeyId,
    /// In what capacity it signs.
    pub role: Role,
    /// The method in use; at activation of a method's key, that method.
    pub method: Method,
    /// What the user said.
    pub said: Said,
    /// The client's version as declared.
    pub client_version: ClientVersion,
    /// What the client says of its hardware key.
    pub hw_key_client_status: HwKeyClientStatus,
    /// Binds the secure channel; zeros if there is none.
    pub channel_binding: [u8; 32],
    /// The level that is asked for.
    pub level: Level,
    /// [`Content::Context`].
    pub context_hash: Hash,
    /// [`Content::DataToSign`].
    pub data_to_sign_hash: Hash,
    /// [`Content::ClientData`].
    pub client_data_hash: Hash,
    /// [`Content::RiskData`].
    pub risk_data_hash: Hash,
    /// What the signature is for: an activation, or what an operation asks.
    pub of: Of,
}

/// What a signature is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Of {
    /// New keys, with the fields that only an activation has.
    Activation(ActivationParts),
    /// The answer to an operation of this kind.
    Operation(OperationKind),
}

/// What a user said: the decision, and what came with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    /// Yes or no.
    pub decision: Decision,
    /// With no: why, if the user says.
    pub reason: Option<RejectReason>,
    /// With yes: the number that the user confirmed, if one was wanted.
    pub number: Option<u32>,
}

impl From<Decision> for Said {
    /// The decision alone.
    fn from(decision: Decision) -> Self {
        Self { decision, reason: None, number: None }
    }
}

impl fmt::Display for Said {
    /// As it stands in the transcript: `approve`, `approve:42`, `reject`, `reject:NOT_ME`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.decision.as_str())?;
        if let Some(reason) = self.reason {
            write!(f, ":{reason}")?;
        }
        if let Some(number) = self.number {
            write!(f, ":{number}")?;
        }
        Ok(())
    }
}

/// The fields that only an activation has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActivationParts {
    /// From [`key_set_hash`].
    pub key_set_hash: Hash,
    /// From [`device_token_hash`].
    pub device_token_hash: Hash,
    /// [`Content::Attestation`].
    pub attestation_hash: Hash,
}

impl Transcript {
    /// What this transcript is for.
    #[must_use]
    pub fn purpose(&self) -> Purpose {
        match self.of {
            Of::Activation(_) => Purpose::Activation,
            Of::Operation(kind) => kind.purpose(),
        }
    }

    /// The bytes to sign, by ECDSA with SHA-256 over them.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut fields = Fields(Vec::with_capacity(768));
        fields.put(DOMAIN.as_bytes());
        fields.put(self.purpose().as_str().as_bytes());
        fields.put(&self.application.0);
        fields.put(&self.registration.0);
        fields.put(&self.operation.0);
        fields.put(&self.challenge);
        fields.put(&self.key.0);
        fields.put(self.role.as_str().as_bytes());
        fields.put(self.method.as_str().as_bytes());
        fields.put(self.said.to_string().as_bytes());
        fields.put(self.client_version.as_str().as_bytes());
        fields.put(self.hw_key_client_status.as_str().as_bytes());
        fields.put(&self.channel_binding);
        fields.put(self.level.as_str().as_bytes());
        fields.put(&self.context_hash);
        fields.put(&self.data_to_sign_hash);
        fields.put(&self.client_data_hash);
        fields.put(&self.risk_data_hash);
        if let Of::Activation(parts) = &self.of {
            fields.put(&parts.key_set_hash);
            fields.put(&parts.device_token_hash);
            fields.put(&parts.attestation_hash);
        }
        fields.0
    }
}

/// What can enter a transcript as a hash, each kind under a domain of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Content {
    /// What the user is shown before deciding.
    Context,
    /// What the user signs.
    DataToSign,
    /// What the client passes on to the service provider.
    ClientData,
    /// What the client says of its device.
    RiskData,
    /// Evidence about where a hardware key lives.
    Attestation,
}

impl Content {
    fn domain(self) -> &'static str {
        match self {
            Self::Context => "keytrail/hash/context/v1",
            Self::DataToSign => "keytrail/hash/data-to-sign/v1",
            Self::ClientData => "keytrail/hash/client-data/v1",
            Self::RiskData => "keytrail/hash/risk-data/v1",
            Self::Attestation => "keytrail/hash/attestation/v1",
        }
    }

    /// The hash of `octets`, exactly as transported, under `salt`.
    #[must_use]
    pub fn hash(self, salt: &[u8; 32], octets: &[u8]) -> Hash {
        salted(self.domain(), salt, octets)
    }

    /// The hash of salt and octets if there are any, else [`NO_CONTENT`].
    #[must_use]
    pub fn hash_or_none(self, content: Option<(&[u8; 32], &[u8])>) -> Hash {
        content.map_or(NO_CONTENT, |(salt, octets)| self.hash(salt, octets))
    }
}

/// What is hashed of something that a user is shown: title and media type, each
/// behind its length, then the octets.
#[must_use]
pub fn shown_octets(title: &str, media_type: &str, octets: &[u8]) -> Vec<u8> {
    let mut framed = Fields(Vec::with_capacity(8 + title.len() + media_type.len() + octets.len()));
    framed.put(title.as_bytes());
    framed.put(media_type.as_bytes());
    framed.0.extend_from_slice(octets);
    framed.0
}

/// A key's place in a registration. In order: methods by their number, then hardware.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeySlot {
    /// The software key of a method.
    Software(Method),
    /// The hardware key.
    Hardware,
}

impl KeySlot {
    /// `HARDWARE`, or the method.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Software(method) => method.as_str(),
            Self::Hardware => Role::Hardware.as_str(),
        }
    }
}

/// The hash of a whole key set. The order of `keys` does not matter: slots are
/// put in theirs first, so a set has one hash.
#[must_use]
pub fn key_set_hash(keys: &[(KeySlot, PublicKey)]) -> Hash {
    let mut ordered: Vec<_> = keys.iter().collect();
    ordered.sort();
    let mut octets = Fields((ordered.len() as u32).to_be_bytes().to_vec());
    for (slot, key) in ordered {
        octets.put(slot.as_str().as_bytes());
        octets.put(&key.spki_der());
    }
    salted("keytrail/hash/key-set/v1", &NO_SALT, &octets.0)
}

/// The hash of a device token: what the server keeps of it, and what is signed.
#[must_use]
pub fn device_token_hash(token: &[u8; 32]) -> Hash {
    salted("keytrail/hash/device-token/v1", &NO_SALT, token)
}

/// SHA-256 over length and domain, salt, octets. Domain and salt have known
/// lengths, so the octets need none.
fn salted(domain: &str, salt: &[u8; 32], octets: &[u8]) -> Hash {
    let mut head = Fields(Vec::with_capacity(40));
    head.put(domain.as_bytes());
    Sha256::new().chain_update(head.0).chain_update(salt).chain_update(octets).finalize().into()
}

/// Fields, each behind its length.
struct Fields(Vec<u8>);

impl Fields {
    fn put(&mut self, field: &[u8]) {
        // Every field is bounded far below 4 GiB where it enters.
        self.0.extend_from_slice(&(field.len() as u32).to_be_bytes());
        self.0.extend_from_slice(field);
    }
}
