//! Apple App Attest: the judge of attestation objects and of assertions.
//!
//! Rules follow developer.apple.com, "Validating apps that connect to your
//! server". App Attest vouches for a key of its own, in the Secure Enclave of a
//! genuine device, made by a genuine instance of an app. It does not attest
//! other keys. The registered hardware key is bound to it through the client
//! data: the app makes its hardware key in the Secure Enclave first, and has
//! that key and our challenge attested as [`client_data`]. So the evidence says
//! that an unaltered copy of the named app, on an Apple device, named this key
//! in answer to this challenge; that the key is in the Secure Enclave is what
//! that app's code does, and nobody else's word.
//!
//! Evidence is an [`envelope`] of the key identifier, the client data and the
//! attestation object. The object alone is judged too, as far as it can be.
//! Its receipt is for Apple's own servers and is not interpreted.

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use x509_parser::asn1_rs::{Any, Class, FromDer, Oid, Tag, oid};
use x509_parser::certificate::X509Certificate;

use crate::attestation::cbor::{NotSo, Reader};
use crate::attestation::chain::{CHAIN_MAX, Chain};
use crate::attestation::description::hex;
use crate::attestation::{
    ApplePolicy, EVIDENCE_MAX, Environment, Expected, Findings, Judgement, Reason, SecurityLevel,
    holds, roots,
};
use crate::key::PublicKey;
use crate::signature::{self, Verdict};

/// The first field of an [`envelope`].
pub const EVIDENCE_DOMAIN: &str = "keytrail/evidence/app-attest/v1";
/// The first field of [`client_data`].
pub const CLIENT_DATA_DOMAIN: &str = "keytrail/app-attest/client-data/v1";
/// Most bytes of an assertion; real ones have about 145.
pub const ASSERTION_MAX: usize = 1024;

/// The certificate's extension that holds the nonce.
const NONCE: Oid<'static> = oid!(1.2.840.113635.100.8.2);
/// The `fmt` of an attestation object.
const FORMAT: &[u8] = b"apple-appattest";
/// `aaguid` of development builds.
const DEVELOPMENT: [u8; 16] = *b"appattestdevelop";
/// `aaguid` of all others.
const PRODUCTION: [u8; 16] = *b"appattest\0\0\0\0\0\0\0";
/// WebAuthn's flag for attested credential data.
const HAS_CREDENTIAL: u8 = 0x40;
/// WebAuthn's flag for extensions, which App Attest does not use.
const HAS_EXTENSIONS: u8 = 0x80;

/// The octets that an app has attested: each field behind its length, 32 bits
/// big-endian: [`CLIENT_DATA_DOMAIN`], the challenge, the hardware key as
/// SubjectPublicKeyInfo (91 bytes). `clientDataHash` is SHA-256 of them.
#[must_use]
pub fn client_data(challenge: &[u8], hardware_key: &PublicKey) -> Vec<u8> {
    fields(&[CLIENT_DATA_DOMAIN.as_bytes(), challenge, &hardware_key.spki_der()])
}

/// Evidence as a device sends it: each field behind its length, 32 bits
/// big-endian: [`EVIDENCE_DOMAIN`], the key identifier (32 bytes, base64 removed),
/// the client data, the attestation object.
#[must_use]
pub fn envelope(key_id: &[u8; 32], client_data: &[u8], object: &[u8]) -> Vec<u8> {
    fields(&[EVIDENCE_DOMAIN.as_bytes(), key_id, client_data, object])
}

/// Judges evidence. Never fails and never panics, whatever the bytes.
#[must_use]
pub fn judge(evidence: &[u8], expected: &Expected) -> Judgement {
    let mut findings = Findings::default();
    if evidence.len() > EVIDENCE_MAX {
        findings.check("evidence", Err(Reason::EvidenceTooLarge));
        return findings.judged();
    }
    let sent = match Sent::read(evidence) {
        Ok(sent) => sent,
        Err(NotSo) => {
            findings.check("evidence", Err(Reason::EvidenceUnreadable));
            return findings.judged();
        }
    };
    judge_client_data(&sent, expected, &mut findings);
    let hash = sent.client_data_hash(expected);
    judge_object(sent.object, sent.key_id, hash.as_ref(), expected, &mut findings);
    findings.judged()
}

/// Judges an attestation object that binds other client data than ours: that
/// of another server, of which only the hash is known.
#[must_use]
pub fn judge_bound(
    object: &[u8],
    key_id: Option<&[u8; 32]>,
    client_data_hash: Option<&[u8; 32]>,
    expected: &Expected,
) -> Judgement {
    let mut findings = Findings::default();
    if object.len() > EVIDENCE_MAX {
        findings.check("evidence", Err(Reason::EvidenceTooLarge));
        return findings.judged();
    }
    judge_object(object, key_id, client_data_hash, expected, &mut findings);
    findings.judged()
}

/// What an assertion is judged against.
#[derive(Debug, Clone, Copy)]
pub struct ExpectedAssertion<'a> {
    /// The key that was attested.
    pub key: &'a PublicKey,
    /// App IDs that may sign; empty accepts none.
    pub app_ids: &'a [String],
    /// SHA-256 of the client data.
    pub client_data_hash: &'a [u8; 32],
    /// The counter of the last assertion; zero after the attestation.
    pub counter: u32,
}

/// Judges an assertion; gives the counter to remember.
///
/// # Errors
///
/// [`Reason::AssertionUnreadable`], [`Reason::AssertionSignature`],
/// [`Reason::AppIdNotAllowed`], [`Reason::CounterNotRisen`]: the first that
/// applies in this order.
pub fn judge_assertion(assertion: &[u8], expected: &ExpectedAssertion) -> Result<u32, Reason> {
    if assertion.len() > ASSERTION_MAX {
        return Err(Reason::AssertionUnreadable);
    }
    let read = Assertion::read(assertion).map_err(|NotSo| Reason::AssertionUnreadable)?;
    let head = Head::read(read.data).map_err(|_| Reason::AssertionUnreadable)?;
    // The key signs the nonce, which is itself a hash, by ECDSA with SHA-256.
    let nonce = nonce(read.data, expected.client_data_hash);
    match signature::verify(expected.key, &nonce, read.signature) {
        Verdict::Valid => (),
        Verdict::Invalid => return Err(Reason::AssertionSignature),
        Verdict::Malformed => return Err(Reason::AssertionUnreadable),
    }
    app_id(head.app_id_hash, expected.app_ids).ok_or(Reason::AppIdNotAllowed)?;
    if head.counter > expected.counter { Ok(head.counter) } else { Err(Reason::CounterNotRisen) }
}

/// Evidence, taken apart.
struct Sent<'a> {
    key_id: Option<&'a [u8; 32]>,
    client_data: Option<&'a [u8]>,
    object: &'a [u8],
}

impl<'a> Sent<'a> {
    fn read(evidence: &'a [u8]) -> Result<Self, NotSo> {
        // An envelope begins with the length of its domain, below 256; a CBOR
        // map does not begin with a zero.
        if evidence.first() != Some(&0) {
            return Ok(Self { key_id: None, client_data: None, object: evidence });
        }
        let [domain, key_id, client_data, object] = taken_apart(evidence)?;
        if domain != EVIDENCE_DOMAIN.as_bytes() {
            return Err(NotSo);
        }
        let key_id = key_id.try_into().map_err(|_| NotSo)?;
        Ok(Self { key_id: Some(key_id), client_data: Some(client_data), object })
    }

    /// The hash that the object must bind. An object that came alone binds what
    /// is expected, or, where no key is expected, perhaps the challenge itself.
    fn client_data_hash(&self, expected: &Expected) -> Option<[u8; 32]> {
        let hash = |octets: &[u8]| Sha256::digest(octets).into();
        match (self.client_data, expected.challenge, expected.hardware_key) {
            (Some(client_data), ..) => Some(hash(client_data)),
            (None, Some(challenge), Some(key)) => Some(hash(&client_data(challenge, key))),
            (None, Some(challenge), None) => Some(hash(challenge)),
            (None, None, _) => None,
        }
    }
}

/// What the client data names: that the object is bound to it shows the nonce.
fn judge_client_data(sent: &Sent, expected: &Expected, findings: &mut Findings) {
    let Some(octets) = sent.client_data else {
        findings.not_made("client_data");
        findings.not_made("challenge");
        return findings.not_made("hardware_key");
    };
    let read = taken_apart(octets).ok().and_then(|[domain, challenge, key]| {
        let key = PublicKey::from_bytes(key).ok()?;
        // One form for one meaning: the key as SubjectPublicKeyInfo and no other way.
        (domain == CLIENT_DATA_DOMAIN.as_bytes() && octets == client_data(challenge, &key))
            .then_some((challenge, key))
    });
    let Some((challenge, key)) = read else {
        return findings.check("client_data", Err(Reason::ClientDataUnreadable));
    };
    findings.check("client_data", Ok(()));
    findings.field("client_data.challenge", hex(challenge));
    findings.private_field("client_data.hardware_key", hex(&key.spki_der()));
    match expected.challenge {
        Some(ours) => {
            let same = bool::from(ours.ct_eq(challenge));
            findings.check("challenge", holds(same, Reason::ChallengeMismatch));
        }
        None => findings.not_made("challenge"),
    }
    match expected.hardware_key {
        Some(ours) => findings.check("hardware_key", holds(*ours == key, Reason::OtherKey)),
        None => findings.not_made("hardware_key"),
    }
}

/// An attestation object, taken apart; nothing is verified yet.
struct Object<'a> {
    format: &'a [u8],
    certificates: Vec<&'a [u8]>,
    receipt: &'a [u8],
    data: &'a [u8],
}

impl<'a> Object<'a> {
    fn read(octets: &'a [u8]) -> Result<Self, Reason> {
        let unreadable = |NotSo| Reason::EvidenceUnreadable;
        let mut reader = Reader::new(octets);
        let members: [Member; 3] =
            [(b"fmt", Reader::text), (b"attStmt", whole_statement), (b"authData", Reader::bytes)];
        let [format, statement, data] = named(&mut reader, members).map_err(unreadable)?;
        reader.end().map_err(unreadable)?;
        if format != FORMAT {
            return Err(Reason::FormatNotAppAttest);
        }
        let mut statement = Reader::new(statement);
        let members: [Member; 2] = [(b"x5c", whole_chain), (b"receipt", Reader::bytes)];
        let [chain, receipt] = named(&mut statement, members).map_err(unreadable)?;
        let mut chain = Reader::new(chain);
        let count = chain.array().map_err(unreadable)?;
        if count > CHAIN_MAX {
            return Err(Reason::ChainTooLong);
        }
        let certificates: Result<Vec<_>, NotSo> = (0..count).map(|_| chain.bytes()).collect();
        Ok(Self { format, certificates: certificates.map_err(unreadable)?, receipt, data })
    }
}

/// The octets of a statement, for a reader of its own.
fn whole_statement<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], NotSo> {
    reader.within(|inner| {
        for _ in 0..inner.map()? {
            if inner.text()? == b"x5c" {
                whole_chain(inner)?;
            } else {
                inner.bytes()?;
            }
        }
        Ok(())
    })
}

/// The octets of an array of byte strings.
fn whole_chain<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], NotSo> {
    reader.within(|inner| {
        for _ in 0..inner.array()? {
            inner.bytes()?;
        }
        Ok(())
    })
}

/// A member of a map: its name, and how its value is read.
type Member<'a> = (&'static [u8], fn(&mut Reader<'a>) -> Result<&'a [u8], NotSo>);

/// The values of a map that has these names, each once, in any order, and no others.
fn named<'a, const N: usize>(
    reader: &mut Reader<'a>,
    members: [Member<'a>; N],
) -> Result<[&'a [u8]; N], NotSo> {
    if reader.map()? != N {
        return Err(NotSo);
    }
    let mut values: [Option<&[u8]>; N] = [None; N];
    for _ in 0..N {
        let name = reader.text()?;
        let place = members.iter().position(|(known, _)| *known == name).ok_or(NotSo)?;
        if values[place].replace(members[place].1(reader)?).is_some() {
            return Err(NotSo);
        }
    }
    // N pairs, no name twice: each is there.
    Ok(values.map(Option::unwrap_or_default))
}

/// The part of authenticator data that every one has (WebAuthn section 6.1).
struct Head<'a> {
    app_id_hash: &'a [u8; 32],
    flags: u8,
    counter: u32,
    rest: &'a [u8],
}

impl<'a> Head<'a> {
    fn read(data: &'a [u8]) -> Result<Self, NotSo> {
        let (app_id_hash, rest) = data.split_first_chunk().ok_or(NotSo)?;
        let ([flags, counter @ ..], rest) = rest.split_first_chunk::<5>().ok_or(NotSo)?;
        Ok(Self { app_id_hash, flags: *flags, counter: u32::from_be_bytes(*counter), rest })
    }
}

/// Authenticator data of an attestation (WebAuthn section 6.5.1).
struct Attested<'a> {
    head: Head<'a>,
    aaguid: &'a [u8; 16],
    credential_id: &'a [u8],
    key: PublicKey,
}

impl<'a> Attested<'a> {
    fn read(data: &'a [u8]) -> Result<Self, NotSo> {
        let head = Head::read(data)?;
        if head.flags & HAS_CREDENTIAL == 0 || head.flags & HAS_EXTENSIONS != 0 {
            return Err(NotSo);
        }
        let (aaguid, rest) = head.rest.split_first_chunk().ok_or(NotSo)?;
        let (length, rest) = rest.split_first_chunk::<2>().ok_or(NotSo)?;
        let length = usize::from(u16::from_be_bytes(*length));
        let (credential_id, key) = rest.split_at_checked(length).ok_or(NotSo)?;
        let mut reader = Reader::new(key);
        let key = cose_key(&mut reader)?;
        reader.end()?;
        Ok(Self { head, aaguid, credential_id, key })
    }

    fn environment(&self) -> Option<Environment> {
        match *self.aaguid {
            DEVELOPMENT => Some(Environment::Development),
            PRODUCTION => Some(Environment::Production),
            _ => None,
        }
    }
}

/// A key of P-256 for ES256 (RFC 9052 section 7, RFC 9053 section 7.1.1), its
/// members in the order of CTAP2's canonical form.
fn cose_key(reader: &mut Reader) -> Result<PublicKey, NotSo> {
    if reader.map()? != 5 {
        return Err(NotSo);
    }
    for (name, value) in [(1, 2), (3, -7), (-1, 1)] {
        if reader.integer()? != name || reader.integer()? != value {
            return Err(NotSo);
        }
    }
    let mut sec1 = vec![0x04];
    for name in [-2, -3] {
        if reader.integer()? != name {
            return Err(NotSo);
        }
        sec1.extend_from_slice(reader.bytes()?);
    }
    PublicKey::from_bytes(&sec1).map_err(|_| NotSo)
}

/// An assertion, taken apart.
struct Assertion<'a> {
    signature: &'a [u8],
    data: &'a [u8],
}

impl<'a> Assertion<'a> {
    fn read(octets: &'a [u8]) -> Result<Self, NotSo> {
        let mut reader = Reader::new(octets);
        let members: [Member; 2] =
            [(b"signature", Reader::bytes), (b"authenticatorData", Reader::bytes)];
        let [signature, data] = named(&mut reader, members)?;
        reader.end()?;
        Ok(Self { signature, data })
    }
}

/// Steps 1 to 9 of Apple's list, in the order in which they can be judged.
fn judge_object(
    octets: &[u8],
    key_id: Option<&[u8; 32]>,
    client_data_hash: Option<&[u8; 32]>,
    expected: &Expected,
    findings: &mut Findings,
) {
    let object = match Object::read(octets) {
        Ok(object) => object,
        Err(reason) => return findings.check("evidence", Err(reason)),
    };
    let joined = object.certificates.concat();
    let attested = Attested::read(object.data).map_err(|NotSo| Reason::EvidenceUnreadable);
    let read = Chain::read(&joined).and_then(|chain| {
        // Joined octets read as certificates; each must also be one by itself.
        let whole = chain.certificates().iter().map(X509Certificate::as_raw);
        holds(whole.eq(object.certificates.iter().copied()), Reason::EvidenceUnreadable)?;
        Ok((chain, attested?))
    });
    match read {
        Ok((chain, attested)) => {
            findings.check("evidence", Ok(()));
            show(&object, &attested, findings);
            chain.show(findings);
            judge_chain(&chain, expected, findings);
            judge_nonce(&chain, object.data, client_data_hash, findings);
            judge_key(&chain, &attested, key_id, findings);
            judge_app(&attested, &expected.policy.apple, findings);
        }
        Err(reason) => findings.check("evidence", Err(reason)),
    }
}

fn judge_chain(chain: &Chain, expected: &Expected, findings: &mut Findings) {
    findings.check("chain_links", chain.links());
    findings.check("chain_signatures", chain.signatures());
    let further = &expected.policy.apple.further_roots;
    let below_root = chain.judge_root(("Apple", &roots::APPLE[..]), further, findings);
    // Apple issues the leaf itself, so its dates are no device's invention. A
    // root is trusted by its key, whatever certificate of it came along.
    findings.check("dates", Chain::dates(&chain.certificates()[..below_root], expected.at));
}

/// SHA-256 over authenticator data and the hash of the client data.
fn nonce(data: &[u8], client_data_hash: &[u8; 32]) -> [u8; 32] {
    Sha256::new().chain_update(data).chain_update(client_data_hash).finalize().into()
}

fn judge_nonce(
    chain: &Chain,
    data: &[u8],
    client_data_hash: Option<&[u8; 32]>,
    findings: &mut Findings,
) {
    let found = nonce_of(chain.leaf());
    match (found, client_data_hash) {
        (Some(found), Some(hash)) => {
            let same = bool::from(nonce(data, hash).ct_eq(found));
            findings.check("nonce", holds(same, Reason::NonceMismatch));
        }
        (Some(_), None) => findings.not_made("nonce"),
        (None, _) => findings.check("nonce", Err(Reason::NonceMismatch)),
    }
}

/// The value of the one nonce extension: `SEQUENCE { [1] EXPLICIT OCTET STRING }`.
fn nonce_of<'a>(leaf: &'a X509Certificate) -> Option<&'a [u8]> {
    let mut found = leaf.iter_extensions().filter(|extension| extension.oid == NONCE);
    let value = found.next()?.value;
    if found.next().is_some() {
        return None;
    }
    let sequence = only(value, Class::Universal, Tag::Sequence)?;
    let tagged = only(sequence, Class::ContextSpecific, Tag(1))?;
    only(tagged, Class::Universal, Tag::OctetString)
}

/// The content of the one value of this kind that `octets` are.
fn only(octets: &[u8], class: Class, tag: Tag) -> Option<&[u8]> {
    let (rest, value) = Any::from_der(octets).ok()?;
    let same = value.class() == class && value.tag() == tag;
    (same && rest.is_empty()).then_some(value.data)
}

/// That certificate, credential and key identifier are about one key.
fn judge_key(
    chain: &Chain,
    attested: &Attested,
    key_id: Option<&[u8; 32]>,
    findings: &mut Findings,
) {
    let key = PublicKey::from_bytes(chain.leaf().public_key().raw).map_err(|_| Reason::KeyNotP256);
    findings.check("key_curve", key.map(|_| ()));
    let Ok(key) = key else { return };
    let id = app_attest_key_id(&key);
    match key_id {
        Some(sent) => findings.check("key_id", holds(*sent == id, Reason::KeyIdMismatch)),
        None => findings.not_made("key_id"),
    }
    let credential = attested.credential_id == id && attested.key == key;
    findings.check("credential_id", holds(credential, Reason::CredentialIdMismatch));
}

/// What App Attest calls a key's identifier: SHA-256 of the uncompressed point.
#[must_use]
pub fn app_attest_key_id(key: &PublicKey) -> [u8; 32] {
    Sha256::digest(key.sec1()).into()
}

/// Which app, where it came from, and that the key is new.
fn judge_app(attested: &Attested, policy: &ApplePolicy, findings: &mut Findings) {
    let ours = app_id(attested.head.app_id_hash, &policy.app_ids);
    if let Some(ours) = ours {
        findings.field("app_id", ours);
    }
    findings.check("app_id", ours.map(|_| ()).ok_or(Reason::AppIdNotAllowed));
    let environment = attested.environment();
    findings.facts.environment = environment;
    findings.facts.security_level = Some(SecurityLevel::SecureEnclave);
    let allowed = environment.is_some_and(|found| policy.environments.contains(&found));
    findings.check("environment", holds(allowed, Reason::EnvironmentNotAllowed));
    findings.check("counter", holds(attested.head.counter == 0, Reason::CounterNotZero));
}

/// The App ID that a hash is of.
fn app_id<'a>(hash: &[u8; 32], app_ids: &'a [String]) -> Option<&'a str> {
    app_ids.iter().map(String::as_str).find(|id| Sha256::digest(id).as_slice() == hash)
}

fn show(object: &Object, attested: &Attested, findings: &mut Findings) {
    findings.field("format", String::from_utf8_lossy(object.format));
    findings.field("app_id_hash", hex(attested.head.app_id_hash));
    findings.field("flags", format!("{:#04x}", attested.head.flags));
    findings.field("counter", attested.head.counter.to_string());
    findings.field("aaguid", hex(attested.aaguid));
    findings.private_field("credential_id", hex(attested.credential_id));
    findings.field("receipt.bytes", object.receipt.len().to_string());
}

/// Fields, each behind its length.
fn fields(fields: &[&[u8]]) -> Vec<u8> {
    let mut octets = Vec::with_capacity(fields.iter().map(|field| field.len() + 4).sum());
    for field in fields {
        // Every field is bounded far below 4 GiB where it enters.
        octets.extend_from_slice(&(field.len() as u32).to_be_bytes());
        octets.extend_from_slice(field);
    }
    octets
}

/// The fields of `octets`, which has exactly so many.
fn taken_apart<const N: usize>(mut octets: &[u8]) -> Result<[&[u8]; N], NotSo> {
    let mut fields: [&[u8]; N] = [&[]; N];
    for field in &mut fields {
        let (length, rest) = octets.split_first_chunk().ok_or(NotSo)?;
        let length = u32::from_be_bytes(*length) as usize;
        (*field, octets) = rest.split_at_checked(length).ok_or(NotSo)?;
    }
    if octets.is_empty() { Ok(fields) } else { Err(NotSo) }
}
