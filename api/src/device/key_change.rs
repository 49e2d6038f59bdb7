//! The phone's part in a change of one of its keys.
//!
//! The new key is made before the answer is signed, and the phone that holds it
//! is written down before the answer is sent: whether the server takes the key
//! is known only afterwards, and until then both keys are needed.

use std::fmt;

use engine::key::{KeyBytes, PublicKey};
use engine::key_change::proof_of;
use engine::machine::Entropy;
use engine::proofs::Signed;
use engine::reasons::KeyChange;
use engine::terms::{Decision, Method};
use zeroize::Zeroizing;

use super::DeviceError;
use super::activation::check_pin;
use super::attestation::Evidence;
use super::authentication::{Answering, AuthenticationOptions};
use super::keys::{PrivateKey, SealedKey};
use super::phone::{HardwareKey, NoHardwareKey, Phone, message};
use crate::wire::Octets;
use crate::wire::device as wire;

/// A key that is to enter the registration, and its place.
pub struct NewKey {
    key: PrivateKey,
    target: Option<Method>,
    pin: Option<Zeroizing<String>>,
}

impl fmt::Debug for NewKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewKey").field("target", &self.target).finish_non_exhaustive()
    }
}

impl NewKey {
    /// A fresh key, if an approval of this operation brings one.
    ///
    /// # Errors
    ///
    /// [`DeviceError::PinMissing`] or [`DeviceError::PinRefused`] for a new PIN;
    /// [`DeviceError::Entropy`].
    pub fn generate(
        answering: &Answering,
        options: &AuthenticationOptions,
        new_pin: Option<Zeroizing<String>>,
        entropy: &dyn Entropy,
    ) -> Result<Option<Self>, DeviceError> {
        let started = answering.started();
        let brings = started.kind.key_change().is_some_and(KeyChange::brings_key);
        if !brings || options.decision == Decision::Reject {
            return Ok(None);
        }
        let target = started.target_method;
        let pin = match target {
            Some(Method::DevicePin) => Some(new_pin.ok_or(DeviceError::PinMissing)?),
            Some(Method::Device | Method::DeviceBiometric) | None => None,
        };
        if let (Some(pin), Some(policy)) = (&pin, &started.pin_policy) {
            check_pin(pin, policy)?;
        }
        Ok(Some(Self { key: PrivateKey::generate(entropy)?, target, pin }))
    }

    /// Its public half, as it is stored.
    pub(super) fn public(&self) -> Result<KeyBytes, DeviceError> {
        Ok(self.key.public()?.to_stored())
    }

    /// What is sent of it: the key, and its signature.
    pub(super) fn offer(
        &self,
        signed: &Signed,
        answering: Method,
        attestation: Option<wire::AttestationEvidence>,
    ) -> Result<wire::NewKey, DeviceError> {
        let public: PublicKey = self.key.public()?;
        let (role, method) = proof_of(self.target, answering);
        let signature = self.key.sign(&message(signed, role, method, &self.key)?);
        Ok(wire::NewKey {
            public_key: Octets(public.spki_der().to_vec()),
            signature: Some(Octets(signature)),
            attestation,
        })
    }

    /// The evidence about it, if it is a hardware key.
    pub(super) fn attested(
        &self,
        evidence: &Evidence,
        challenge: &[u8; 32],
        entropy: &dyn Entropy,
    ) -> Result<Option<wire::AttestationEvidence>, DeviceError> {
        match self.target {
            None => evidence.about(Some(&self.key.public()?), challenge, entropy),
            Some(_) => Ok(None),
        }
    }
}

impl Phone {
    /// The phone once the server has accepted the answer: with the new key, or
    /// without the method that was removed.
    #[must_use]
    pub fn changed(
        &self,
        answering: &Answering,
        new_key: Option<&NewKey>,
        entropy: &dyn Entropy,
    ) -> Self {
        let mut phone = self.clone();
        let key = new_key.map(|new| new.key.clone());
        match answering.started().target_method {
            None => {
                phone.keys.hardware =
                    key.map_or(HardwareKey::None(NoHardwareKey::NotActivated), HardwareKey::Key)
            }
            Some(Method::DevicePin) => {
                phone.keys.pin = new_key.and_then(|new| {
                    new.pin.as_ref().map(|pin| SealedKey::seal(&new.key, pin, entropy))
                });
            }
            Some(Method::DeviceBiometric) => phone.keys.biometric = key,
            // No operation changes this one.
            Some(Method::Device) => (),
        }
        phone
    }
}
