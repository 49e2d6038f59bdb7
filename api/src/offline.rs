//! What the server shares with phones so that they can answer without a network:
//! the key that signs questions, and the secrets that codes are made with.
//!
//! Both follow from a secret in `keys/` and stand in no record.

use engine::entries::Registration;
use engine::events::{Bytes32, KeySetV1};
use engine::ids::Id;
use engine::key::{KeyBytes, PublicKey};
use engine::offline::{self, Facts, OfflineCode};
use engine::terms::Method;
use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{Signature, SigningKey};
use storage::keys::Secret32;
use storage::note::signing_key;
use zeroize::Zeroizing;

use crate::wire::device::{OfflineMeans, OfflineSecret};
use crate::wire::{Octets, Octets32, OfflinePayload};

const KEY_CONTEXT: &str = "keytrail 2026-11 offline question signing key v1";
const MASTER_CONTEXT: &str = "keytrail 2026-11 offline code secrets v1";

/// Signs questions, and knows the secrets of all phones.
pub struct OfflineKeys {
    key: SigningKey,
    public: PublicKey,
    master: Zeroizing<Bytes32>,
}

impl OfflineKeys {
    /// Those that follow from this secret.
    #[must_use]
    pub fn of_secret(secret: &Secret32) -> Self {
        let (key, public) = signing_key(KEY_CONTEXT, secret.expose());
        let master = Zeroizing::new(blake3::derive_key(MASTER_CONTEXT, secret.expose()));
        Self { key, public, master }
    }

    /// A question as it is shown.
    #[must_use]
    pub fn payload(&self, question: Vec<u8>) -> OfflinePayload {
        let signature: Signature = self.key.sign(&offline::signed(&question));
        OfflinePayload { question, signature: signature.to_bytes().into() }
    }

    /// The code by which a registration approves; none without a key for the method.
    #[must_use]
    pub fn code(
        &self,
        registration: &Registration,
        method: Method,
        facts: &Facts,
    ) -> Option<OfflineCode> {
        let key = registration.software_key(method)?;
        Some(OfflineCode::of(&self.secret(facts.registration, method, key), method, facts))
    }

    /// What a phone gets with the answer that takes its keys.
    #[must_use]
    pub fn means(&self, registration: Id, keys: &KeySetV1) -> OfflineMeans {
        let secret = |method, key| Octets32(*self.secret(registration, method, key));
        let slots = keys.software.iter();
        let secrets = slots.map(|slot| OfflineSecret {
            method: slot.method,
            secret: secret(slot.method, &slot.key),
        });
        OfflineMeans { server_key: Octets(self.public.sec1().to_vec()), secrets: secrets.collect() }
    }

    /// The secret that a phone shares for a software key.
    #[must_use]
    pub fn secret(&self, registration: Id, method: Method, key: &KeyBytes) -> Zeroizing<Bytes32> {
        offline::secret(&self.master, registration, method, key)
    }
}

impl std::fmt::Debug for OfflineKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}
