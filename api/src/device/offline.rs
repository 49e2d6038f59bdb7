//! Answering without a network: a question that was scanned, a code to be typed.

use std::fmt;

use engine::ids::Micros;
use engine::offline::{self, OfflineCode, Question};
use engine::terms::Method;
use p256::ecdsa::signature::Verifier as _;
use p256::ecdsa::{Signature, VerifyingKey};
use serde::{Deserialize, Serialize};

use super::DeviceError;
use super::keys::{SealedKey, Secret32};
use super::phone::Phone;
use crate::wire::device::OfflineMeans;
use crate::wire::{Octets, OfflinePayload};

/// What the phone keeps for it. The secret of the PIN stands masked under the
/// PIN, as its key does: every PIN opens it to something, and a wrong one to a
/// secret that makes wrong codes.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Kept {
    /// The key that signs questions, as a point.
    server_key: Octets,
    device: Secret32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pin: Option<Secret32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    biometric: Option<Secret32>,
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl Kept {
    /// What came with the answer that took the keys; `pin` masks the PIN's part.
    pub(super) fn of(
        means: &OfflineMeans,
        key: Option<&SealedKey>,
        pin: Option<&str>,
    ) -> Result<Self, DeviceError> {
        let of = |method| {
            let mut secrets = means.secrets.iter();
            secrets.find(|slot| slot.method == method).map(|slot| Secret32::new(slot.secret.0))
        };
        verifying_key(&means.server_key)?;
        let masked = of(Method::DevicePin).zip(key.zip(pin));
        Ok(Self {
            server_key: means.server_key.clone(),
            device: of(Method::Device).ok_or(DeviceError::OtherAnswer("set of secrets"))?,
            pin: masked.map(|(secret, (key, pin))| key.masked(pin, &secret)),
            biometric: of(Method::DeviceBiometric),
        })
    }
}

fn verifying_key(point: &Octets) -> Result<VerifyingKey, DeviceError> {
    VerifyingKey::from_sec1_bytes(&point.0).map_err(|_| DeviceError::OtherAnswer("key"))
}

impl Phone {
    /// Drops the secret of a method whose key is another one now, or none: it went
    /// with that key.
    pub(super) fn forget_offline_secret(&mut self, method: Option<Method>) {
        let Some(kept) = &mut self.offline else { return };
        match method {
            Some(Method::DevicePin) => kept.pin = None,
            Some(Method::DeviceBiometric) => kept.biometric = None,
            Some(Method::Device) | None => (),
        }
    }

    /// Keeps the secret that came with a method's new key.
    pub(super) fn keep_offline_secret(
        &mut self,
        method: Option<Method>,
        secret: Secret32,
        pin: Option<&str>,
    ) {
        let Some(kept) = &mut self.offline else { return };
        match method {
            Some(Method::DevicePin) => {
                let sealed = self.keys.pin.as_ref().zip(pin);
                kept.pin = sealed.map(|(key, pin)| key.masked(pin, &secret));
            }
            Some(Method::DeviceBiometric) => kept.biometric = Some(secret),
            Some(Method::Device) | None => (),
        }
    }

    /// The question in a payload that was scanned, if the server signed it and it
    /// is for this phone and not too late.
    ///
    /// # Errors
    ///
    /// [`DeviceError::NoOfflineSecrets`], [`DeviceError::NotAsked`].
    pub fn scan(&self, payload: &OfflinePayload, now: Micros) -> Result<Question, DeviceError> {
        let kept = self.offline.as_ref().ok_or(DeviceError::NoOfflineSecrets)?;
        let key = verifying_key(&kept.server_key)?;
        let not_asked = |why| DeviceError::NotAsked(why);
        let signature = Signature::from_slice(&payload.signature)
            .map_err(|_| not_asked("the server has not signed it"))?;
        key.verify(&offline::signed(&payload.question), &signature)
            .map_err(|_| not_asked("the server has not signed it"))?;
        let question = Question::parse(&payload.question)
            .map_err(|_| not_asked("it is of a kind that this phone does not know"))?;
        let own = question.registration == self.registration_id
            && question.application == self.application_id;
        if !own {
            return Err(not_asked("it is for another phone"));
        }
        if question.expires_at <= now {
            return Err(not_asked("it is too late for it"));
        }
        Ok(question)
    }

    /// The code by which this phone approves a question; without a `method`, by
    /// that of the PIN if there is a PIN, else by one that reaches the level.
    ///
    /// # Errors
    ///
    /// [`DeviceError::NoOfflineSecrets`], [`DeviceError::NoMethod`],
    /// [`DeviceError::NoKey`] or [`DeviceError::PinMissing`].
    pub fn offline_code(
        &self,
        question: &Question,
        method: Option<Method>,
        pin: Option<&str>,
    ) -> Result<OfflineCode, DeviceError> {
        let kept = self.offline.as_ref().ok_or(DeviceError::NoOfflineSecrets)?;
        let reaches = |method: &Method| method.level() >= question.level;
        let preferred = pin.map(|_| Method::DevicePin);
        let mut possible = preferred.into_iter().chain(self.methods()).filter(reaches);
        let method = method.or_else(|| possible.next()).ok_or(DeviceError::NoMethod)?;
        let secret = match method {
            Method::Device => Some(kept.device.clone()),
            Method::DeviceBiometric => kept.biometric.clone(),
            Method::DevicePin => match (&kept.pin, &self.keys.pin) {
                (Some(masked), Some(key)) => {
                    Some(key.masked(pin.ok_or(DeviceError::PinMissing)?, masked))
                }
                _ => None,
            },
        };
        let secret = secret.ok_or(DeviceError::NoKey(method))?;
        Ok(OfflineCode::of(secret.bytes(), method, &question.facts()))
    }
}
