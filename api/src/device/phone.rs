//! What the phone remembers between two requests.

use std::fmt;

use engine::ids::Id;
use engine::key::KeyId;
use engine::proofs::Signed;
use engine::terms::{HwKeyClientStatus, Method, Role};
use engine::version::ClientVersion;
use serde::{Deserialize, Serialize};

use super::DeviceError;
use super::keys::{PrivateKey, SealedKey, Secret32};
use super::offline::Kept;

/// A registration as its device knows it, private keys included.
///
/// Its serialised form is the state file: the private keys stand in it readable,
/// but for that of the PIN. Nothing of a secret is in `Debug`.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Phone {
    pub(super) format: Format,
    pub(super) server: String,
    pub(super) application_id: Id,
    pub(super) registration_id: Id,
    pub(super) client_version: ClientVersion,
    pub(super) device_token: Secret32,
    pub(super) keys: Keys,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) offline: Option<Kept>,
}

/// Which layout the state file has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Format {
    /// The first.
    #[serde(rename = "keytrail-device/1")]
    V1,
}

/// The private keys.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Keys {
    pub(super) device: PrivateKey,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) pin: Option<SealedKey>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) biometric: Option<PrivateKey>,
    pub(super) hardware: HardwareKey,
}

/// The hardware key, or why there is none.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum HardwareKey {
    /// A key in what plays secure hardware here: this file.
    Key(PrivateKey),
    /// There is none.
    None(NoHardwareKey),
}

/// Why a phone has no hardware key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoHardwareKey {
    /// It plays a device without secure hardware.
    Unsupported,
    /// None came of its activation.
    NotActivated,
}

impl NoHardwareKey {
    /// What the phone claims at an authentication.
    #[must_use]
    pub fn claim(self) -> HwKeyClientStatus {
        match self {
            Self::Unsupported => HwKeyClientStatus::NotSupported,
            Self::NotActivated => HwKeyClientStatus::NotActivated,
        }
    }
}

impl Phone {
    /// URL of the server where it was activated.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.server
    }

    /// The application.
    #[must_use]
    pub fn application_id(&self) -> Id {
        self.application_id
    }

    /// The registration.
    #[must_use]
    pub fn registration_id(&self) -> Id {
        self.registration_id
    }

    /// The version it declares unless told otherwise.
    #[must_use]
    pub fn client_version(&self) -> &ClientVersion {
        &self.client_version
    }

    /// The methods it has a key for.
    #[must_use]
    pub fn methods(&self) -> Vec<Method> {
        let has = |method: &Method| match method {
            Method::Device => true,
            Method::DevicePin => self.keys.pin.is_some(),
            Method::DeviceBiometric => self.keys.biometric.is_some(),
        };
        Method::ALL.iter().copied().filter(has).collect()
    }

    /// The id of a method's key. None without such a key, and none for that of
    /// the PIN, whose id would tell which PIN is the right one.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Key`] never in practice: the key was checked when it was read.
    pub fn key_id(&self, method: Method) -> Result<Option<KeyId>, DeviceError> {
        let key = match method {
            Method::Device => Some(&self.keys.device),
            Method::DevicePin => None,
            Method::DeviceBiometric => self.keys.biometric.as_ref(),
        };
        key.map(|key| Ok(key.public()?.id())).transpose()
    }

    /// The id of the hardware key, or why there is none.
    ///
    /// # Errors
    ///
    /// As [`Phone::key_id`].
    pub fn hardware_key_id(&self) -> Result<Result<KeyId, NoHardwareKey>, DeviceError> {
        match &self.keys.hardware {
            HardwareKey::Key(key) => Ok(Ok(key.public()?.id())),
            HardwareKey::None(why) => Ok(Err(*why)),
        }
    }
}

impl fmt::Debug for Phone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Phone")
            .field("server", &self.server)
            .field("application_id", &self.application_id)
            .field("registration_id", &self.registration_id)
            .field("methods", &self.methods())
            .finish_non_exhaustive()
    }
}

/// The bytes that `key` signs in this part. They name the key: another key's differ.
pub(super) fn message(
    signed: &Signed,
    role: Role,
    method: Method,
    key: &PrivateKey,
) -> Result<Vec<u8>, DeviceError> {
    Ok(signed.message(role, method, &key.public()?))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::num::NonZeroU32;
    use std::sync::Mutex;

    use engine::machine::Entropy;
    use sha2::{Digest, Sha256};

    use super::*;

    /// Bytes that differ with each draw and are the same in each run.
    #[derive(Default)]
    pub(crate) struct Counting(Mutex<u64>);

    impl Entropy for Counting {
        fn fill(&self, out: &mut [u8]) {
            let mut drawn = self.0.lock().unwrap();
            for part in out.chunks_mut(32) {
                *drawn += 1;
                part.copy_from_slice(&Sha256::digest(drawn.to_be_bytes())[..part.len()]);
            }
        }
    }

    /// A phone with all keys; its PIN is 2580.
    pub(crate) fn phone(server: &str) -> Phone {
        let entropy = Counting::default();
        let key = || PrivateKey::generate(&entropy).unwrap();
        Phone {
            format: Format::V1,
            server: server.to_owned(),
            application_id: Id([1; 16]),
            registration_id: Id([2; 16]),
            client_version: ClientVersion::parse("3.8.0").unwrap(),
            device_token: Secret32::new([3; 32]),
            keys: Keys {
                device: key(),
                // Few rounds: what they are for is no matter here.
                pin: Some(SealedKey::seal_in(NonZeroU32::MIN, &key(), "2580", &entropy)),
                biometric: Some(key()),
                hardware: HardwareKey::Key(key()),
            },
            offline: None,
        }
    }

    #[test]
    fn a_phone_reads_back_and_tells_no_secret_in_debug() {
        let phone = phone("http://127.0.0.1:1");
        let text = serde_json::to_string(&phone).unwrap();
        let read: Phone = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), text);
        let secret = serde_json::to_value(&phone.device_token).unwrap();
        let shown = format!("{phone:?}");
        assert!(text.contains(secret.as_str().unwrap()));
        assert!(shown.ends_with("methods: [Device, DevicePin, DeviceBiometric], .. }"), "{shown}");
        assert!(!shown.contains(secret.as_str().unwrap()));
    }

    #[test]
    fn the_id_of_the_pin_s_key_is_not_known_without_the_pin() {
        let phone = phone("http://127.0.0.1:1");
        assert!(phone.key_id(Method::Device).unwrap().is_some());
        assert!(phone.key_id(Method::DevicePin).unwrap().is_none());
        assert!(phone.hardware_key_id().unwrap().is_ok());
    }

    #[test]
    fn another_layout_and_unknown_members_are_refused() {
        let text = serde_json::to_string(&phone("http://127.0.0.1:1")).unwrap();
        for (from, to) in
            [("device/1", "device/2"), ("\"server\"", "\"x\":1,\"server\""), ("device_", "")]
        {
            assert!(serde_json::from_str::<Phone>(&text.replacen(from, to, 1)).is_err(), "{to}");
        }
    }
}
