//! Evidence about the simulated phone's hardware key: that of a test CA.
//!
//! The chain has the form of Android's, so a server judges it by the same
//! rules. Its root is a key in a file, so a server accepts it only for an
//! application that names the root in `attestation_android_further_roots`;
//! one with real users never does.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use engine::attestation::Platform;
use engine::key::PublicKey;
use engine::machine::{Entropy, random};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, IsCa, Issuer,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SerialNumber, SignatureAlgorithm,
    SigningKey,
};
use zeroize::Zeroizing;

use super::DeviceError;
use super::keys::{PrivateKey, Secret32};
use crate::wire::device::AttestationEvidence;
use crate::wire::{Octets, Octets32};

/// The patch level that the phone claims.
const PATCH_LEVEL: u32 = 202_611;
/// The package that the phone claims to run.
pub const PACKAGE: &str = "org.keytrail.phone";

/// What the phone sends as evidence.
#[derive(Clone, Default)]
pub enum Evidence {
    /// Nothing.
    #[default]
    None,
    /// A chain of this CA about the hardware key and the challenge.
    Made(TestCa),
    /// These octets, whatever they are about.
    Given(Platform, Vec<u8>),
}

/// A maker of phones whose word is worth what its key file is guarded.
#[derive(Clone)]
pub struct TestCa {
    key: PrivateKey,
    public: PublicKey,
}

impl fmt::Debug for TestCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestCa").field("root", &self.public.id()).finish_non_exhaustive()
    }
}

impl Evidence {
    /// What is sent for this hardware key and challenge.
    pub(super) fn about(
        &self,
        key: Option<&PublicKey>,
        challenge: &[u8; 32],
        entropy: &dyn Entropy,
    ) -> Result<Option<AttestationEvidence>, DeviceError> {
        let (platform, octets) = match (self, key) {
            (Self::None, _) | (Self::Made(_), None) => return Ok(None),
            (Self::Made(ca), Some(key)) => (Platform::Android, ca.chain(key, challenge)?),
            (Self::Given(platform, octets), _) => (*platform, octets.clone()),
        };
        let salt = Octets32(random(entropy));
        Ok(Some(AttestationEvidence { platform, salt, octets: Octets(octets) }))
    }
}

impl TestCa {
    /// A CA with a fresh key.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Entropy`].
    pub fn generate(entropy: &dyn Entropy) -> Result<Self, DeviceError> {
        Self::of(PrivateKey::generate(entropy)?)
    }

    fn of(key: PrivateKey) -> Result<Self, DeviceError> {
        let public = key.public()?;
        Ok(Self { key, public })
    }

    /// The private key as text, for a file that only its owner reads.
    #[must_use]
    pub fn secret_text(&self) -> Zeroizing<String> {
        Zeroizing::new(URL_SAFE_NO_PAD.encode(self.key.secret().bytes()))
    }

    /// The inverse of [`TestCa::secret_text`]; blanks around it do not matter.
    #[must_use]
    pub fn from_secret_text(text: &str) -> Option<Self> {
        let bytes = Zeroizing::new(URL_SAFE_NO_PAD.decode(text.trim()).ok()?);
        let secret = Secret32::new(bytes.as_slice().try_into().ok()?);
        PrivateKey::from_secret(&secret).and_then(|key| Self::of(key).ok())
    }

    /// The root as `attestation_android_further_roots` names it.
    #[must_use]
    pub fn root(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.public.spki_der())
    }

    /// A chain about `key`, leaf first, its root certificate included.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Certificate`] if it cannot be made.
    pub fn chain(&self, key: &PublicKey, challenge: &[u8; 32]) -> Result<Vec<u8>, DeviceError> {
        let mut root = params("keytrail test root", &self.public);
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        root.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let mut leaf = params("Android Keystore Key", key);
        let description = CustomExtension::from_oid_content(
            &[1, 3, 6, 1, 4, 1, 11129, 2, 1, 17],
            description(challenge),
        );
        leaf.custom_extensions.push(description);
        let root_certificate = root.self_signed(self)?;
        let leaf = leaf.signed_by(&Attested(*key), &Issuer::from_params(&root, self))?;
        Ok([leaf.der().as_ref(), root_certificate.der().as_ref()].concat())
    }
}

/// A certificate for `key` under this name; its serial number comes from the key.
fn params(name: &str, key: &PublicKey) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.serial_number = Some(SerialNumber::from(key.id().0[..8].to_vec()));
    params
}

impl PublicKeyData for TestCa {
    fn der_bytes(&self) -> &[u8] {
        self.public.sec1()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

impl SigningKey for TestCa {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Ok(self.key.sign(message))
    }
}

/// The key that a leaf is about.
struct Attested(PublicKey);

impl PublicKeyData for Attested {
    fn der_bytes(&self) -> &[u8] {
        self.0.sec1()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

/// A key description as Android writes one: KeyMint 4, a key of P-256 for
/// signing, made in the trusted environment of a locked and verified phone.
fn description(challenge: &[u8; 32]) -> Vec<u8> {
    let package = sequence(&[octets(PACKAGE.as_bytes()), integer(1)]);
    let application = octets(&sequence(&[set(&[package]), set(&[octets(&[0x6b; 32])])]));
    let verified = tlv(&[0x0a], &[0]);
    let root_of_trust =
        sequence(&[octets(&[0; 32]), tlv(&[0x01], &[0xff]), verified, octets(&[0; 32])]);
    let trusted_environment = tlv(&[0x0a], &[1]);
    sequence(&[
        integer(400),
        trusted_environment.clone(),
        integer(400),
        trusted_environment,
        octets(challenge),
        octets(&[]),
        sequence(&[tagged(709, &application)]),
        sequence(&[
            tagged(1, &set(&[integer(2)])),
            tagged(2, &integer(3)),
            tagged(3, &integer(256)),
            tagged(10, &integer(1)),
            tagged(503, &tlv(&[0x05], &[])),
            tagged(702, &integer(0)),
            tagged(704, &root_of_trust),
            tagged(705, &integer(160_000)),
            tagged(706, &integer(PATCH_LEVEL)),
        ]),
    ])
}

/// One value in DER.
fn tlv(tag: &[u8], content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let length: &[u8] = match length {
        0..=0x7f => &[length as u8],
        0x80..=0xff => &[0x81, length as u8],
        _ => &[0x82, (length >> 8) as u8, length as u8],
    };
    [tag, length, content].concat()
}

fn sequence(parts: &[Vec<u8>]) -> Vec<u8> {
    tlv(&[0x30], &parts.concat())
}

fn set(parts: &[Vec<u8>]) -> Vec<u8> {
    tlv(&[0x31], &parts.concat())
}

fn octets(content: &[u8]) -> Vec<u8> {
    tlv(&[0x04], content)
}

/// An INTEGER that is not negative.
fn integer(number: u32) -> Vec<u8> {
    let bytes = number.to_be_bytes();
    let zeros = bytes.iter().take_while(|&&byte| byte == 0).count().min(3);
    let sign: &[u8] = if bytes[zeros] >= 0x80 { &[0] } else { &[] };
    tlv(&[0x02], &[sign, &bytes[zeros..]].concat())
}

/// `[tag] EXPLICIT value`.
fn tagged(tag: u32, value: &[u8]) -> Vec<u8> {
    match tag {
        0..=30 => tlv(&[0xa0 | tag as u8], value),
        31..=127 => tlv(&[0xbf, tag as u8], value),
        _ => tlv(&[0xbf, 0x80 | (tag >> 7) as u8, (tag & 0x7f) as u8], value),
    }
}

#[cfg(test)]
mod tests {
    use engine::attestation::{Expected, Outcome, Policy, Reason, judge};
    use engine::config::Config;
    use engine::ids::Micros;
    use serde_json::json;

    use super::*;
    use crate::device::phone::tests::Counting;

    fn trusting(ca: &TestCa) -> Policy {
        let roots = json!([ca.root()]);
        let config = Config::default().with([("attestation_android_further_roots", &roots)]);
        config.unwrap().attestation
    }

    #[test]
    fn the_servers_judge_accepts_the_chain_for_its_key_and_challenge_alone() {
        let entropy = Counting::default();
        let ca = TestCa::generate(&entropy).unwrap();
        let key = PrivateKey::generate(&entropy).unwrap().public().unwrap();
        let chain = ca.chain(&key, &[7; 32]).unwrap();
        let (policy, nobody) = (trusting(&ca), PublicKey::dummy());
        let good = Expected {
            challenge: Some(&[7; 32]),
            hardware_key: Some(&key),
            at: Micros(1_800_000_000_000_000),
            policy: &policy,
            list: None,
        };
        let outcome = |expected: &Expected| judge(Platform::Android, &chain, expected).outcome;
        assert_eq!(outcome(&good), Outcome::Accepted);
        let refused = |reason| Outcome::Refused(reason);
        let foreign = Expected { challenge: Some(&[8; 32]), ..good };
        assert_eq!(outcome(&foreign), refused(Reason::ChallengeMismatch));
        let other = Expected { hardware_key: Some(&nobody), ..good };
        assert_eq!(outcome(&other), refused(Reason::OtherKey));
        let distrustful = Policy::default();
        let distrusted = Expected { policy: &distrustful, ..good };
        assert_eq!(outcome(&distrusted), refused(Reason::RootUnknown));
    }

    #[test]
    fn a_ca_comes_back_from_its_text_and_shows_no_secret() {
        let ca = TestCa::generate(&Counting::default()).unwrap();
        let text = ca.secret_text();
        assert_eq!(TestCa::from_secret_text(&format!("{}\n", *text)).unwrap().root(), ca.root());
        assert!(TestCa::from_secret_text("AAAA").is_none());
        assert!(!format!("{ca:?}").contains(text.as_str()));
    }
}
