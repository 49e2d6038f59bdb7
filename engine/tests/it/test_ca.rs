//! A maker of phones for tests: chains like Android's under a root of our own,
//! in which every field can be what a test wants.

use p256::SecretKey;
use p256::pkcs8::EncodePrivateKey;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SerialNumber, date_time_ymd,
};

use engine::attestation::{AndroidPolicy, Policy};
use engine::key::PublicKey;

/// The challenge in every chain unless a test says otherwise.
pub(crate) const CHALLENGE: [u8; 32] = [0x5a; 32];

/// One DER value.
pub(crate) fn tlv(tag: &[u8], content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let mut out = tag.to_vec();
    match length {
        0..=0x7f => out.push(length as u8),
        0x80..=0xff => out.extend([0x81, length as u8]),
        _ => out.extend([0x82, (length >> 8) as u8, length as u8]),
    }
    out.extend_from_slice(content);
    out
}

/// An INTEGER that is not negative.
pub(crate) fn integer(number: u64) -> Vec<u8> {
    let bytes = number.to_be_bytes();
    let zeros = bytes.iter().take_while(|&&byte| byte == 0).count().min(7);
    let sign: &[u8] = if bytes[zeros] >= 0x80 { &[0] } else { &[] };
    tlv(&[0x02], &[sign, &bytes[zeros..]].concat())
}

pub(crate) fn octets(content: &[u8]) -> Vec<u8> {
    tlv(&[0x04], content)
}

/// An authorisation: `[tag] EXPLICIT value`.
pub(crate) fn authorisation(tag: u32, value: &[u8]) -> Vec<u8> {
    let tag = match tag {
        0..=30 => vec![0xa0 | tag as u8],
        31..=127 => vec![0xbf, tag as u8],
        _ => vec![0xbf, 0x80 | (tag >> 7) as u8, (tag & 0x7f) as u8],
    };
    tlv(&tag, value)
}

/// What a key description says; a test changes what it is about.
#[derive(Clone)]
pub(crate) struct Says {
    pub(crate) attestation_level: u8,
    pub(crate) keymint_level: u8,
    pub(crate) challenge: Vec<u8>,
    pub(crate) software: Vec<(u32, Vec<u8>)>,
    pub(crate) hardware: Vec<(u32, Vec<u8>)>,
}

impl Default for Says {
    fn default() -> Self {
        Self {
            attestation_level: 1,
            keymint_level: 1,
            challenge: CHALLENGE.to_vec(),
            software: vec![(709, application_id(&["org.example.bank"], &[[0xd1; 32]]))],
            hardware: vec![
                (1, tlv(&[0x31], &[integer(2), integer(3)].concat())),
                (2, integer(3)),
                (3, integer(256)),
                (10, integer(1)),
                (503, tlv(&[0x05], &[])),
                (702, integer(0)),
                (704, root_of_trust(0xff, 0)),
                (705, integer(160_000)),
                (706, integer(202_511)),
            ],
        }
    }
}

impl Says {
    /// The same with one value of the hardware's list changed or added.
    pub(crate) fn hardware(mut self, tag: u32, value: Vec<u8>) -> Self {
        self.hardware.retain(|(other, _)| *other != tag);
        self.hardware.push((tag, value));
        self.hardware.sort_by_key(|(tag, _)| *tag);
        self
    }

    /// The same without a value of the hardware's list.
    pub(crate) fn without_hardware(mut self, tag: u32) -> Self {
        self.hardware.retain(|(other, _)| *other != tag);
        self
    }

    /// The same with one value of Android's list changed or added.
    pub(crate) fn software(mut self, tag: u32, value: Vec<u8>) -> Self {
        self.software.retain(|(other, _)| *other != tag);
        self.software.push((tag, value));
        self
    }

    pub(crate) fn der(&self) -> Vec<u8> {
        let list = |entries: &[(u32, Vec<u8>)]| {
            let all: Vec<u8> =
                entries.iter().flat_map(|(tag, value)| authorisation(*tag, value)).collect();
            tlv(&[0x30], &all)
        };
        let fields = [
            integer(400),
            tlv(&[0x0a], &[self.attestation_level]),
            integer(400),
            tlv(&[0x0a], &[self.keymint_level]),
            octets(&self.challenge),
            octets(&[]),
            list(&self.software),
            list(&self.hardware),
        ];
        tlv(&[0x30], &fields.concat())
    }
}

pub(crate) fn root_of_trust(locked: u8, state: u8) -> Vec<u8> {
    let fields =
        [octets(&[0xb0; 32]), tlv(&[0x01], &[locked]), tlv(&[0x0a], &[state]), octets(&[0xb1; 32])];
    tlv(&[0x30], &fields.concat())
}

pub(crate) fn application_id(packages: &[&str], signers: &[[u8; 32]]) -> Vec<u8> {
    let infos: Vec<u8> = packages
        .iter()
        .flat_map(|name| tlv(&[0x30], &[octets(name.as_bytes()), integer(1)].concat()))
        .collect();
    let digests: Vec<u8> = signers.iter().flat_map(|signer| octets(signer)).collect();
    octets(&tlv(&[0x30], &[tlv(&[0x31], &infos), tlv(&[0x31], &digests)].concat()))
}

/// A key pair that is the same in every run.
fn key(number: u8) -> KeyPair {
    let secret = SecretKey::from_slice(&[number; 32]).unwrap();
    let pkcs8 = secret.to_pkcs8_der().unwrap();
    KeyPair::try_from(pkcs8.as_bytes()).unwrap()
}

/// The key that the leaf attests.
pub(crate) fn attested_key() -> PublicKey {
    PublicKey::from_bytes(key(3).public_key_raw()).unwrap()
}

/// The key of the root, as a policy names it.
pub(crate) fn root_key() -> Vec<u8> {
    let key = PublicKey::from_bytes(key(1).public_key_raw()).unwrap();
    key.spki_der().to_vec()
}

/// A policy that trusts the root and asks for what a policy asks for by default.
pub(crate) fn trusting() -> Policy {
    Policy {
        android: AndroidPolicy { further_roots: vec![root_key()], ..AndroidPolicy::default() },
        ..Policy::default()
    }
}

/// How a chain is made; a test changes what it is about.
pub(crate) struct Maker {
    /// What the leaf's key description says; none leaves it out.
    pub(crate) leaf: Option<Vec<u8>>,
    /// A key description in the intermediate.
    pub(crate) intermediate: Option<Vec<u8>>,
    /// Whether the intermediate may issue.
    pub(crate) is_authority: bool,
    /// Whether the intermediate says that it was provisioned remotely.
    pub(crate) remote: bool,
    /// Whether the root's certificate is part of the chain.
    pub(crate) with_root: bool,
}

impl Default for Maker {
    fn default() -> Self {
        Self {
            leaf: Some(Says::default().der()),
            intermediate: None,
            is_authority: true,
            remote: false,
            with_root: true,
        }
    }
}

fn named(name: &str, serial: u8) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.serial_number = Some(SerialNumber::from(vec![serial]));
    params.not_before = date_time_ymd(2026, 1, 1);
    params.not_after = date_time_ymd(2026, 2, 1);
    params
}

fn authority(name: &str, serial: u8) -> CertificateParams {
    let mut params = named(name, serial);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

fn description(der: &[u8]) -> CustomExtension {
    CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 11129, 2, 1, 17], der.to_vec())
}

impl Maker {
    /// Certificates in DER, leaf first.
    pub(crate) fn certificates(&self) -> Vec<Vec<u8>> {
        let root_params = authority("Test Root", 1);
        let root = root_params.self_signed(&key(1)).unwrap();
        let root_issuer = Issuer::from_params(&root_params, key(1));

        let mut middle_params = authority("Test Intermediate", 2);
        if !self.is_authority {
            middle_params.is_ca = IsCa::ExplicitNoCa;
        }
        if let Some(der) = &self.intermediate {
            middle_params.custom_extensions.push(description(der));
        }
        if self.remote {
            let oid = [1, 3, 6, 1, 4, 1, 11129, 2, 1, 30];
            let mark = CustomExtension::from_oid_content(&oid, vec![0xa1, 0x01, 0x08]);
            middle_params.custom_extensions.push(mark);
        }
        let middle = middle_params.signed_by(&key(2), &root_issuer).unwrap();
        let middle_issuer = Issuer::from_params(&middle_params, key(2));

        let mut leaf_params = named("Android Keystore Key", 3);
        if let Some(der) = &self.leaf {
            leaf_params.custom_extensions.push(description(der));
        }
        let leaf = leaf_params.signed_by(&key(3), &middle_issuer).unwrap();
        let mut chain = vec![leaf.der().to_vec(), middle.der().to_vec()];
        if self.with_root {
            chain.push(root.der().to_vec());
        }
        chain
    }

    /// The same as evidence.
    pub(crate) fn evidence(&self) -> Vec<u8> {
        self.certificates().concat()
    }
}

/// The chain of a phone whose key description says this.
pub(crate) fn chain(says: &Says) -> Vec<u8> {
    Maker { leaf: Some(says.der()), ..Maker::default() }.evidence()
}
