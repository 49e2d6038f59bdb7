//! The phone's private keys, and how the PIN's is kept.
//!
//! The PIN method's private scalar d is stored as d · m mod n, where n is the
//! order of the curve and m, derived from the PIN, is not zero. Every PIN, right
//! or wrong, opens that to a valid scalar, and nothing beside it tells which is
//! the right one: neither public key nor key id is stored. So a wrong PIN is not
//! noticed here. It makes signatures that do not verify, which the server
//! counts; that is what makes a short PIN worth anything.
//!
//! An AEAD would be wrong here: its tag would tell a thief who tries all PINs
//! which one fits. What still tells it is a public key or a signature of this
//! key, taken from elsewhere. The number of iterations makes that slow, no more.

use std::fmt;
use std::num::NonZeroU32;

use aws_lc_rs::pbkdf2;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use engine::key::PublicKey;
use engine::machine::{Entropy, random};
use p256::ecdsa::SigningKey;
use p256::ecdsa::signature::Signer;
use p256::elliptic_curve;
use p256::elliptic_curve::ops::{Invert, Reduce};
use p256::{FieldBytes, NistP256};
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use super::DeviceError;

/// A scalar of the curve that is not zero.
type NonZeroScalar = elliptic_curve::NonZeroScalar<NistP256>;

/// Rounds of PBKDF2-HMAC-SHA-256 for a new PIN; what OWASP's password storage
/// cheat sheet names for it.
const ITERATIONS: NonZeroU32 = NonZeroU32::new(600_000).unwrap();

/// Most rounds that a state file may ask for: some seconds.
const ITERATIONS_MAX: u32 = 10_000_000;

/// 32 secret bytes. Wiped from memory when dropped.
#[derive(Clone)]
pub(super) struct Secret32(Zeroizing<[u8; 32]>);

/// A private key.
#[derive(Clone)]
pub(super) struct PrivateKey(SigningKey);

/// A private key that a PIN opens; see the module.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SealedKey {
    salt: Secret32,
    iterations: Iterations,
    /// d · m mod n: itself a valid scalar.
    masked: PrivateKey,
}

/// A number of rounds that ends within seconds.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
struct Iterations(NonZeroU32);

impl Secret32 {
    pub(super) fn new(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    pub(super) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Secret32 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl Serialize for Secret32 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = Zeroizing::new(URL_SAFE_NO_PAD.encode(self.bytes()));
        serializer.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for Secret32 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Secret32;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("32 bytes as base64url without padding")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Secret32, E> {
                let bytes = URL_SAFE_NO_PAD.decode(text).map(Zeroizing::new).unwrap_or_default();
                let bytes = bytes.as_slice().try_into().map_err(|_| {
                    // The text itself may be most of a secret.
                    E::invalid_value(de::Unexpected::Other("text"), &self)
                })?;
                Ok(Secret32::new(bytes))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

impl TryFrom<u32> for Iterations {
    type Error = String;

    fn try_from(number: u32) -> Result<Self, String> {
        NonZeroU32::new(number)
            .filter(|number| number.get() <= ITERATIONS_MAX)
            .map(Self)
            .ok_or_else(|| format!("iterations must be 1 to {ITERATIONS_MAX}"))
    }
}

impl From<Iterations> for u32 {
    fn from(iterations: Iterations) -> Self {
        iterations.0.get()
    }
}

impl PrivateKey {
    /// A fresh key.
    pub(super) fn generate(entropy: &dyn Entropy) -> Result<Self, DeviceError> {
        // One draw in 2³² is no scalar; eight in a row are no chance.
        for _ in 0..8 {
            let bytes = Zeroizing::new(random::<32>(entropy));
            if let Ok(key) = SigningKey::from_slice(&bytes[..]) {
                return Ok(Self(key));
            }
        }
        Err(DeviceError::Entropy)
    }

    pub(super) fn public(&self) -> Result<PublicKey, DeviceError> {
        Ok(PublicKey::from_bytes(self.0.verifying_key().to_sec1_point(false).as_bytes())?)
    }

    /// An ECDSA signature of `message` (hashed once, with SHA-256), in DER.
    pub(super) fn sign(&self, message: &[u8]) -> Vec<u8> {
        let signature: p256::ecdsa::DerSignature = self.0.sign(message);
        signature.as_bytes().to_vec()
    }

    pub(super) fn from_secret(secret: &Secret32) -> Option<Self> {
        SigningKey::from_slice(secret.bytes()).ok().map(Self)
    }

    pub(super) fn secret(&self) -> Secret32 {
        Secret32::new(self.0.to_bytes().into())
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl Serialize for PrivateKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.secret().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for PrivateKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let secret = Secret32::deserialize(deserializer)?;
        Self::from_secret(&secret).ok_or_else(|| de::Error::custom("not a private key of P-256"))
    }
}

impl SealedKey {
    /// Seals `key` under `pin`.
    pub(super) fn seal(key: &PrivateKey, pin: &str, entropy: &dyn Entropy) -> Self {
        Self::seal_in(ITERATIONS, key, pin, entropy)
    }

    /// The same in so many rounds, which are stored with it.
    pub(super) fn seal_in(
        iterations: NonZeroU32,
        key: &PrivateKey,
        pin: &str,
        entropy: &dyn Entropy,
    ) -> Self {
        let salt = Secret32::new(random(entropy));
        let iterations = Iterations(iterations);
        let masked = *key.0.as_nonzero_scalar() * *mask(pin, &salt, iterations);
        Self { salt, iterations, masked: PrivateKey(SigningKey::from(masked)) }
    }

    /// The key if `pin` is the right one, else some other key.
    pub(super) fn open(&self, pin: &str) -> PrivateKey {
        let mask = mask(pin, &self.salt, self.iterations);
        let scalar = *self.masked.0.as_nonzero_scalar() * Invert::invert(&*mask);
        PrivateKey(SigningKey::from(scalar))
    }
}

impl fmt::Debug for SealedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// The scalar that a PIN stands for, never zero.
fn mask(pin: &str, salt: &Secret32, iterations: Iterations) -> Zeroizing<NonZeroScalar> {
    let mut bytes = Zeroizing::new([0; 32]);
    pbkdf2::derive(
        pbkdf2::PBKDF2_HMAC_SHA256,
        iterations.0,
        salt.bytes(),
        pin.as_bytes(),
        &mut bytes[..],
    );
    Zeroizing::new(NonZeroScalar::reduce(&FieldBytes::from(*bytes)))
}

#[cfg(test)]
mod tests {
    use engine::signature::{Verdict, verify};

    use super::*;
    use crate::device::phone::tests::Counting;

    #[test]
    fn the_right_pin_opens_the_key_and_a_wrong_one_another_key() {
        let key = PrivateKey::generate(&Counting::default()).unwrap();
        let sealed = SealedKey::seal(&key, "2580", &Counting::default());
        let public = key.public().unwrap();
        let verdict = |pin: &str| verify(&public, b"message", &sealed.open(pin).sign(b"message"));
        assert_eq!(verdict("2580"), Verdict::Valid);
        for wrong in ["2581", "", "25800", " 2580"] {
            assert_eq!(verdict(wrong), Verdict::Invalid, "{wrong}");
            assert_ne!(sealed.open(wrong).public().unwrap(), public);
        }
    }

    #[test]
    fn what_is_stored_of_a_pin_s_key_does_not_tell_which_key_it_is() {
        let key = PrivateKey::generate(&Counting::default()).unwrap();
        let sealed = SealedKey::seal(&key, "2580", &Counting::default());
        let stored: serde_json::Value = serde_json::to_value(&sealed).unwrap();
        let names: Vec<_> = stored.as_object().unwrap().keys().collect();
        assert_eq!(names, ["iterations", "masked", "salt"]);
        // Another salt: the same key and PIN look unrelated.
        let entropy = Counting::default();
        random::<32>(&entropy);
        let again = serde_json::to_value(SealedKey::seal(&key, "2580", &entropy)).unwrap();
        assert_ne!(stored["masked"], again["masked"]);
    }

    #[test]
    fn a_stored_key_reads_back_and_what_is_none_is_refused() {
        let key = PrivateKey::generate(&Counting::default()).unwrap();
        let text = serde_json::to_string(&key).unwrap();
        let read: PrivateKey = serde_json::from_str(&text).unwrap();
        assert_eq!(read.public().unwrap(), key.public().unwrap());
        for bytes in [[0; 32], [0xff; 32]] {
            let text = serde_json::to_string(&Secret32::new(bytes)).unwrap();
            let error = serde_json::from_str::<PrivateKey>(&text).unwrap_err().to_string();
            assert!(error.starts_with("not a private key of P-256"), "{error}");
        }
    }

    #[test]
    fn a_state_file_cannot_ask_for_endless_work() {
        for (number, fits) in [(0, false), (1, true), (10_000_000, true), (10_000_001, false)] {
            assert_eq!(Iterations::try_from(number).is_ok(), fits, "{number}");
        }
        assert!(Iterations::try_from(ITERATIONS.get()).is_ok());
    }

    #[test]
    fn bytes_that_are_no_key_are_drawn_again_but_not_for_ever() {
        struct Ones;
        impl Entropy for Ones {
            fn fill(&self, out: &mut [u8]) {
                out.fill(0xff);
            }
        }
        assert!(matches!(PrivateKey::generate(&Ones), Err(DeviceError::Entropy)));
    }

    #[test]
    fn debug_shows_nothing_of_a_key() {
        let key = PrivateKey::generate(&Counting::default()).unwrap();
        let sealed = SealedKey::seal(&key, "2580", &Counting::default());
        let shown = format!("{key:?} {sealed:?} {:?}", key.secret());
        assert_eq!(shown, "[redacted] [redacted] [redacted]");
    }
}
