//! Each rule for App Attest on both sides, with objects from an authority of our own.

use engine::attestation::apple::{
    ExpectedAssertion, app_attest_key_id, client_data, envelope, judge_assertion,
};
use engine::attestation::{ApplePolicy, Environment, Expected, Platform, Policy, Reason, judge};
use engine::ids::Micros;
use engine::key::PublicKey;
use p256::SecretKey;
use p256::ecdsa::signature::Signer;
use p256::ecdsa::{DerSignature, SigningKey};
use p256::pkcs8::EncodePrivateKey;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SerialNumber, date_time_ymd,
};
use sha2::{Digest, Sha256};

use crate::test_ca::{octets, tlv};

const CHALLENGE: [u8; 32] = [0x5a; 32];
const APP: &str = "TEAM123456.org.example.bank";
/// 2026-01-15T00:00:00Z, within the dates of the certificates.
const AT: Micros = Micros(1_768_435_200_000_000);

fn key(number: u8) -> KeyPair {
    let pkcs8 = SecretKey::from_slice(&[number; 32]).unwrap().to_pkcs8_der().unwrap();
    KeyPair::try_from(pkcs8.as_bytes()).unwrap()
}

fn public(number: u8) -> PublicKey {
    PublicKey::from_bytes(key(number).public_key_raw()).unwrap()
}

/// The registration's hardware key.
fn hardware() -> PublicKey {
    public(9)
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

/// CBOR of a byte string.
fn bytes(content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let head = match length {
        0..=23 => vec![0x40 | length as u8],
        24..=255 => vec![0x58, length as u8],
        _ => vec![0x59, (length >> 8) as u8, length as u8],
    };
    [&head, content].concat()
}

/// CBOR of a short text.
fn text(content: &str) -> Vec<u8> {
    [&[0x60 | content.len() as u8], content.as_bytes()].concat()
}

/// How an object is made; a test changes what it is about.
struct Maker {
    format: &'static str,
    app_id: &'static str,
    aaguid: [u8; 16],
    flags: u8,
    counter: u32,
    /// What the object names as credential identifier.
    credential_id: [u8; 32],
    /// The key in the authenticator data.
    credential_key: PublicKey,
    key_id: [u8; 32],
    client_data: Vec<u8>,
    /// The client data that the nonce is of.
    bound: Option<Vec<u8>>,
    with_nonce: bool,
    is_authority: bool,
}

impl Default for Maker {
    fn default() -> Self {
        Self {
            format: "apple-appattest",
            app_id: APP,
            aaguid: *b"appattest\0\0\0\0\0\0\0",
            flags: 0x40,
            counter: 0,
            credential_id: app_attest_key_id(&public(3)),
            credential_key: public(3),
            key_id: app_attest_key_id(&public(3)),
            client_data: client_data(&CHALLENGE, &hardware()),
            bound: None,
            with_nonce: true,
            is_authority: true,
        }
    }
}

impl Maker {
    fn data(&self) -> Vec<u8> {
        let (x, y) = self.credential_key.sec1()[1..].split_at(32);
        let cose =
            [&[0xa5, 0x01, 0x02, 0x03, 0x26, 0x20, 0x01, 0x21][..], &bytes(x), &[0x22], &bytes(y)];
        [
            Sha256::digest(self.app_id).as_slice(),
            &[self.flags],
            &self.counter.to_be_bytes(),
            &self.aaguid,
            &[0, 32],
            &self.credential_id,
            &cose.concat(),
        ]
        .concat()
    }

    fn chain(&self, data: &[u8]) -> [Vec<u8>; 2] {
        let mut root = named("Test Root", 1);
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = Issuer::from_params(&root, key(1));
        let mut middle = named("Test Attestation CA", 2);
        if self.is_authority {
            middle.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
            middle.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        }
        let middle_der = middle.signed_by(&key(2), &root).unwrap().der().to_vec();
        let mut leaf = named("Test Leaf", 3);
        let client_data = self.bound.as_ref().unwrap_or(&self.client_data);
        let nonce = Sha256::digest([data, &Sha256::digest(client_data)].concat());
        let value = tlv(&[0x30], &tlv(&[0xa1], &octets(&nonce)));
        if self.with_nonce {
            let oid = [1, 2, 840, 113635, 100, 8, 2];
            leaf.custom_extensions.push(CustomExtension::from_oid_content(&oid, value));
        }
        let issuer = Issuer::from_params(&middle, key(2));
        [leaf.signed_by(&key(3), &issuer).unwrap().der().to_vec(), middle_der]
    }

    fn object(&self) -> Vec<u8> {
        let data = self.data();
        let [leaf, middle] = self.chain(&data);
        [
            vec![0xa3],
            text("fmt"),
            text(self.format),
            text("attStmt"),
            vec![0xa2],
            text("x5c"),
            vec![0x82],
            bytes(&leaf),
            bytes(&middle),
            text("receipt"),
            bytes(b"r"),
            text("authData"),
            bytes(&data),
        ]
        .concat()
    }

    fn evidence(&self) -> Vec<u8> {
        envelope(&self.key_id, &self.client_data, &self.object())
    }
}

fn trusting() -> Policy {
    let apple = ApplePolicy {
        app_ids: vec![APP.to_owned()],
        further_roots: vec![public(1).spki_der().to_vec()],
        ..ApplePolicy::default()
    };
    Policy { apple, ..Policy::default() }
}

fn judged(evidence: &[u8], policy: &Policy, at: Micros) -> Option<Reason> {
    let key = hardware();
    let expected =
        Expected { challenge: Some(&CHALLENGE), hardware_key: Some(&key), at, policy, list: None };
    judge(Platform::Apple, evidence, &expected).outcome.reason()
}

#[track_caller]
fn check(maker: &Maker, reason: Option<Reason>) {
    assert_eq!(judged(&maker.evidence(), &trusting(), AT), reason);
}

#[test]
fn evidence_about_our_key_and_our_challenge_is_accepted() {
    check(&Maker::default(), None);
    // The object alone binds the same octets, which the server makes itself.
    assert_eq!(judged(&Maker::default().object(), &trusting(), AT), None);
}

#[test]
fn evidence_about_another_challenge_or_key_is_refused() {
    let client = |challenge: &[u8], key: &PublicKey| Maker {
        client_data: client_data(challenge, key),
        ..Maker::default()
    };
    check(&client(&[0x5b; 32], &hardware()), Some(Reason::ChallengeMismatch));
    check(&client(&CHALLENGE[..31], &hardware()), Some(Reason::ChallengeMismatch));
    check(&client(&CHALLENGE, &public(8)), Some(Reason::OtherKey));
    // The App Attest key is not itself the hardware key.
    check(&client(&CHALLENGE, &public(3)), Some(Reason::OtherKey));
}

#[test]
fn client_data_that_the_object_does_not_bind_is_refused() {
    let bound = Some(client_data(&CHALLENGE, &public(8)));
    check(&Maker { bound, ..Maker::default() }, Some(Reason::NonceMismatch));
    check(&Maker { with_nonce: false, ..Maker::default() }, Some(Reason::NonceMismatch));
}

#[test]
fn client_data_has_one_form() {
    let whole = client_data(&CHALLENGE, &hardware());
    let longer = [whole.as_slice(), &[0]].concat();
    let mut other_domain = whole.clone();
    other_domain[4] ^= 1;
    for client_data in [Vec::new(), whole[..whole.len() - 1].to_vec(), longer, other_domain] {
        check(&Maker { client_data, ..Maker::default() }, Some(Reason::ClientDataUnreadable));
    }
}

#[test]
fn each_rule_about_the_object_has_its_reason() {
    let format = "packed";
    check(&Maker { format, ..Maker::default() }, Some(Reason::FormatNotAppAttest));
    let key_id = [0; 32];
    check(&Maker { key_id, ..Maker::default() }, Some(Reason::KeyIdMismatch));
    let credential_id = [0; 32];
    check(&Maker { credential_id, ..Maker::default() }, Some(Reason::CredentialIdMismatch));
    let credential_key = public(8);
    check(&Maker { credential_key, ..Maker::default() }, Some(Reason::CredentialIdMismatch));
    check(&Maker { counter: 1, ..Maker::default() }, Some(Reason::CounterNotZero));
    let app_id = "TEAM123456.org.example.bank2";
    check(&Maker { app_id, ..Maker::default() }, Some(Reason::AppIdNotAllowed));
    check(&Maker { is_authority: false, ..Maker::default() }, Some(Reason::ChainBroken));
    check(&Maker { flags: 0, ..Maker::default() }, Some(Reason::EvidenceUnreadable));
    check(&Maker { flags: 0xc0, ..Maker::default() }, Some(Reason::EvidenceUnreadable));
}

#[test]
fn environments_are_accepted_as_the_policy_says() {
    let maker = |aaguid: &[u8; 16]| Maker { aaguid: *aaguid, ..Maker::default() }.evidence();
    let development = maker(b"appattestdevelop");
    let other = maker(b"appattestsandbox");
    let mut policy = trusting();
    assert_eq!(judged(&development, &policy, AT), Some(Reason::EnvironmentNotAllowed));
    policy.apple.environments = vec![Environment::Development];
    assert_eq!(judged(&development, &policy, AT), None);
    let production = Maker::default().evidence();
    assert_eq!(judged(&production, &policy, AT), Some(Reason::EnvironmentNotAllowed));
    policy.apple.environments = vec![Environment::Development, Environment::Production];
    assert_eq!(judged(&production, &policy, AT), None);
    assert_eq!(judged(&other, &policy, AT), Some(Reason::EnvironmentNotAllowed));
}

#[test]
fn only_a_trusted_root_and_the_recorded_time_make_a_chain_good() {
    let evidence = Maker::default().evidence();
    let mut policy = trusting();
    policy.apple.further_roots.clear();
    assert_eq!(judged(&evidence, &policy, AT), Some(Reason::RootUnknown));
    let policy = trusting();
    // 2026-01-01T00:00:00Z and 2026-02-01T00:00:00Z, both included.
    for (seconds, reason) in [
        (1_767_225_599, Some(Reason::CertificateNotYetValid)),
        (1_767_225_600, None),
        (1_769_904_000, None),
        (1_769_904_001, Some(Reason::CertificateExpired)),
    ] {
        assert_eq!(judged(&evidence, &policy, Micros(seconds * 1_000_000)), reason, "{seconds}");
    }
}

#[test]
fn no_flipped_bit_and_no_part_of_an_envelope_is_accepted() {
    let mut evidence = Maker::default().evidence();
    let policy = trusting();
    // The receipt's one byte stands before `hauthData` and is Apple's alone.
    let mark = b"\x68authData";
    let receipt = evidence.windows(mark.len()).position(|window| window == mark).unwrap() - 1;
    for at in (0..evidence.len()).filter(|at| *at != receipt) {
        let bit = 1 << (at % 8);
        evidence[at] ^= bit;
        assert!(judged(&evidence, &policy, AT).is_some(), "byte {at}, bit {bit:#x}");
        evidence[at] ^= bit;
        assert!(judged(&evidence[..at], &policy, AT).is_some(), "{at} bytes");
    }
    assert_eq!(judged(&evidence, &policy, AT), None);
}

#[test]
fn too_much_evidence_is_not_read() {
    let evidence = vec![0xa3; engine::attestation::EVIDENCE_MAX + 1];
    assert_eq!(judged(&evidence, &trusting(), AT), Some(Reason::EvidenceTooLarge));
}

/// An assertion over client data of which the hash is all ones.
fn assertion(app_id: &str, counter: u32, signer: u8) -> Vec<u8> {
    let head = [Sha256::digest(app_id).as_slice(), &[0x40], &counter.to_be_bytes()].concat();
    let nonce = Sha256::digest([head.as_slice(), &[1; 32]].concat());
    let signer = SigningKey::from(SecretKey::from_slice(&[signer; 32]).unwrap());
    let signature: DerSignature = signer.sign(&nonce);
    [
        vec![0xa2],
        text("signature"),
        bytes(signature.as_bytes()),
        text("authenticatorData"),
        bytes(&head),
    ]
    .concat()
}

#[test]
fn an_assertions_counter_must_rise() {
    let (key, app_ids) = (public(3), [APP.to_owned()]);
    let judged = |assertion: &[u8], counter| {
        let client_data_hash = &[1; 32];
        let expected =
            ExpectedAssertion { key: &key, app_ids: &app_ids, client_data_hash, counter };
        judge_assertion(assertion, &expected)
    };
    let seventh = assertion(APP, 7, 3);
    assert_eq!(judged(&seventh, 6), Ok(7));
    assert_eq!(judged(&seventh, 0), Ok(7));
    assert_eq!(judged(&seventh, 7), Err(Reason::CounterNotRisen));
    assert_eq!(judged(&seventh, 8), Err(Reason::CounterNotRisen));
    assert_eq!(judged(&assertion(APP, 0, 3), 0), Err(Reason::CounterNotRisen));
    assert_eq!(judged(&assertion("other", 7, 3), 6), Err(Reason::AppIdNotAllowed));
    assert_eq!(judged(&assertion(APP, 7, 4), 6), Err(Reason::AssertionSignature));
    assert_eq!(judged(&seventh[1..], 6), Err(Reason::AssertionUnreadable));
    assert_eq!(judged(&[0; 2_000], 6), Err(Reason::AssertionUnreadable));
}

#[test]
fn the_layouts_of_envelope_and_client_data_are_those_of_the_document() {
    let data = client_data(&CHALLENGE, &hardware());
    assert_eq!(data.len(), 4 + 34 + 4 + 32 + 4 + 91);
    assert_eq!(&data[..38], b"\0\0\0\x22keytrail/app-attest/client-data/v1");
    let sent = envelope(&[7; 32], &data, &[0xa3]);
    assert_eq!(&sent[..35], b"\0\0\0\x1fkeytrail/evidence/app-attest/v1");
    assert_eq!(sent.len(), 35 + 36 + 4 + data.len() + 5);
}
