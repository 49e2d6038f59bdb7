//! Transcripts against a second encoder, written from `docs/protocol.md` in
//! another language: every byte, every hash, and signatures made over there.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use engine::events::{DeclaredV1, KeySetV1, MethodKeyV1};
use engine::key::{KeyId, PublicKey};
use engine::proofs::{ActivationFacts, AuthenticationFacts, Signed};
use engine::reasons::{OperationKind, RejectReason};
use engine::signature::{Verdict, verify, verify_independent};
use engine::terms::{Decision, HwKeyClientStatus, Level, Method, Purpose, Role};
use engine::transcript::{
    ActivationParts, Content, Hash, KeySlot, Of, Said, Transcript, device_token_hash, key_set_hash,
    shown_octets,
};
use engine::version::ClientVersion;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// How many transcripts with fields drawn at random the two encoders compare.
const RANDOM_CASES: u32 = 200;

fn vectors_folder() -> PathBuf {
    crate::root().join("tests/vectors")
}

fn committed() -> String {
    std::fs::read_to_string(vectors_folder().join("transcript.json")).expect("the vectors")
}

fn vectors() -> Value {
    serde_json::from_str(&committed()).expect("JSON")
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[track_caller]
fn text(value: &Value) -> &str {
    value.as_str().expect("text")
}

#[track_caller]
fn array(value: &Value) -> [u8; 32] {
    crate::unhex(text(value)).try_into().expect("32 bytes")
}

#[track_caller]
fn word<T>(parse: fn(&str) -> Option<T>, value: &Value) -> T {
    parse(text(value)).expect("a word of the protocol")
}

fn content(kind: Content, given: &Value) -> Hash {
    if given.is_null() {
        return kind.hash_or_none(None);
    }
    kind.hash_or_none(Some((&array(&given["salt"]), &crate::unhex(text(&given["octets"])))))
}

fn context(given: &Value) -> Hash {
    if given.is_null() {
        return Content::Context.hash_or_none(None);
    }
    let octets = crate::unhex(text(&given["octets"]));
    let framed = shown_octets(text(&given["title"]), text(&given["type"]), &octets);
    Content::Context.hash(&array(&given["salt"]), &framed)
}

/// What the text of a decision says.
fn said(given: &Value) -> Said {
    let (decision, rest) = text(given).split_once(':').unwrap_or((text(given), ""));
    let decision = Decision::parse(decision).expect("a decision");
    Said { decision, reason: RejectReason::parse(rest), number: rest.parse().ok() }
}

fn slot(name: &str) -> KeySlot {
    Method::parse(name).map_or(KeySlot::Hardware, KeySlot::Software)
}

fn activation_parts(given: &Value) -> ActivationParts {
    let keys: Vec<_> = given["key_set"]
        .as_object()
        .expect("keys by slot")
        .iter()
        .map(|(name, key)| (slot(name), PublicKey::from_bytes(&crate::unhex(text(key))).unwrap()))
        .collect();
    ActivationParts {
        key_set_hash: key_set_hash(&keys),
        device_token_hash: device_token_hash(&array(&given["device_token"])),
        attestation_hash: content(Content::Attestation, &given["attestation"]),
    }
}

/// The transcript that the inputs of a case describe.
fn transcript(given: &Value) -> Transcript {
    let id = |name: &str| text(&given[name]).parse().expect("a UUID");
    let purpose = word(Purpose::parse, &given["purpose"]);
    Transcript {
        application: id("application_id"),
        registration: id("registration_id"),
        operation: id("operation_id"),
        challenge: array(&given["challenge"]),
        key: KeyId(array(&given["key_id"])),
        role: word(Role::parse, &given["role"]),
        method: word(Method::parse, &given["method"]),
        said: said(&given["decision"]),
        client_version: ClientVersion::parse(text(&given["client_version"])).expect("a version"),
        hw_key_client_status: word(HwKeyClientStatus::parse, &given["hw_key_client_status"]),
        channel_binding: array(&given["channel_binding"]),
        level: word(Level::parse, &given["level"]),
        context_hash: context(&given["context"]),
        data_to_sign_hash: content(Content::DataToSign, &given["data_to_sign"]),
        client_data_hash: content(Content::ClientData, &given["client_data"]),
        risk_data_hash: content(Content::RiskData, &given["risk_data"]),
        of: match purpose {
            Purpose::Activation => Of::Activation(activation_parts(given)),
            Purpose::Authentication => Of::Operation(OperationKind::Authentication),
            Purpose::Transaction => Of::Operation(OperationKind::Transaction),
        },
    }
}

/// The hashes of a transcript by their names in the vectors.
fn hashes(transcript: &Transcript) -> Value {
    let mut hashes = json!({
        "context_hash": hex(&transcript.context_hash),
        "data_to_sign_hash": hex(&transcript.data_to_sign_hash),
        "client_data_hash": hex(&transcript.client_data_hash),
        "risk_data_hash": hex(&transcript.risk_data_hash),
    });
    if let Of::Activation(parts) = &transcript.of {
        hashes["key_set_hash"] = hex(&parts.key_set_hash).into();
        hashes["device_token_hash"] = hex(&parts.device_token_hash).into();
        hashes["attestation_hash"] = hex(&parts.attestation_hash).into();
    }
    hashes
}

fn cases(vectors: &Value) -> &[Value] {
    vectors["cases"].as_array().expect("cases")
}

#[test]
fn every_case_has_the_bytes_and_hashes_of_the_second_encoder() {
    let vectors = vectors();
    assert_eq!(cases(&vectors).len(), 15, "none was lost");
    for case in cases(&vectors) {
        let name = text(&case["name"]);
        let transcript = transcript(&case["inputs"]);
        assert_eq!(hashes(&transcript), case["hashes"], "{name}");
        let bytes = transcript.bytes();
        assert_eq!(hex(&bytes), text(&case["transcript"]), "{name}");
        assert_eq!(hex(&Sha256::digest(&bytes)), text(&case["sha256"]), "{name}");
    }
}

#[test]
fn every_signature_of_the_second_encoder_verifies_and_for_its_own_case_only() {
    let vectors = vectors();
    for case in cases(&vectors) {
        let signer = &vectors["keys"][text(&case["signer"])];
        let key = PublicKey::from_bytes(&crate::unhex(text(&signer["spki"]))).unwrap();
        assert_eq!(hex(&key.id().0), text(&signer["key_id"]));
        let signature = crate::unhex(text(&case["signature"]));
        for other in cases(&vectors) {
            let bytes = transcript(&other["inputs"]).bytes();
            let expected =
                if other["name"] == case["name"] { Verdict::Valid } else { Verdict::Invalid };
            let names = (&case["name"], &other["name"]);
            assert_eq!(verify(&key, &bytes, &signature), expected, "{names:?}");
            assert_eq!(verify_independent(&key, &bytes, &signature), expected, "{names:?}");
        }
    }
}

/// What the server takes a case's signature to be over.
fn signed(t: &Transcript, given: &Value) -> Signed {
    let declared = DeclaredV1 {
        client_version: t.client_version.as_str().to_owned(),
        hw_key_client_status: t.hw_key_client_status,
        channel_binding: t.channel_binding,
        client_data_hash: t.client_data_hash,
        risk_data_hash: t.risk_data_hash,
    };
    let parts = match &t.of {
        Of::Activation(parts) => parts,
        Of::Operation(kind) => return answered(t, *kind, &declared),
    };
    let facts = ActivationFacts {
        application: t.application,
        registration: t.registration,
        activation: t.operation,
        challenge: t.challenge,
        keys: &key_set(given),
        device_token_hash: parts.device_token_hash,
        attestation_hash: parts.attestation_hash,
    };
    Signed::at_activation(&facts, &declared).expect("good fields")
}

fn answered(t: &Transcript, kind: OperationKind, declared: &DeclaredV1) -> Signed {
    let facts = AuthenticationFacts {
        kind,
        application: t.application,
        registration: t.registration,
        operation: t.operation,
        challenge: t.challenge,
        said: t.said,
        level: t.level,
        context_hash: t.context_hash,
        data_to_sign_hash: t.data_to_sign_hash,
    };
    Signed::at_authentication(&facts, declared).expect("good fields")
}

fn key_set(given: &Value) -> KeySetV1 {
    let mut set = KeySetV1 { software: Vec::new(), hardware: None };
    for (name, key) in given["key_set"].as_object().expect("keys by slot") {
        let key = PublicKey::from_bytes(&crate::unhex(text(key))).unwrap().to_stored();
        match slot(name) {
            KeySlot::Software(method) => set.software.push(MethodKeyV1 { method, key }),
            KeySlot::Hardware => set.hardware = Some(key),
        }
    }
    set
}

#[test]
fn the_server_expects_of_every_case_the_bytes_that_its_device_signed() {
    let vectors = vectors();
    for case in cases(&vectors) {
        let given = &case["inputs"];
        let transcript = transcript(given);
        let spki = &vectors["keys"][text(&case["signer"])]["spki"];
        let key = PublicKey::from_bytes(&crate::unhex(text(spki))).unwrap();
        let expected = signed(&transcript, given).message(transcript.role, transcript.method, &key);
        assert_eq!(hex(&expected), text(&case["transcript"]), "{}", case["name"]);
    }
}

/// What the script prints for `arguments` and `input`; none without Python 3.
fn run_script(arguments: &[&str], input: &str) -> Option<String> {
    let child = Command::new("python3")
        .arg(vectors_folder().join("transcript.py"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            println!("skipped: there is no python3 here");
            return None;
        }
        Err(error) => panic!("python3: {error}"),
    };
    // A script that reads no input may have ended before it is written.
    if !input.is_empty() {
        child
            .stdin
            .take()
            .expect("a pipe")
            .write_all(input.as_bytes())
            .expect("read by the script");
    }
    let output = child.wait_with_output().expect("ended");
    assert!(output.status.success(), "{}", output.status);
    Some(String::from_utf8(output.stdout).expect("ASCII"))
}

#[test]
fn the_script_still_makes_the_committed_vectors() {
    if let Some(printed) = run_script(&[], "") {
        assert_eq!(printed, committed());
    }
}

/// Inputs drawn from a fixed seed: the same in every run.
struct Draw {
    seed: u32,
    drawn: u32,
}

impl Draw {
    fn octets(&mut self) -> [u8; 32] {
        self.drawn += 1;
        let drawn = [self.seed.to_be_bytes(), self.drawn.to_be_bytes()].concat();
        Sha256::digest(drawn).into()
    }

    fn below(&mut self, limit: usize) -> usize {
        let octets = self.octets();
        usize::from(u16::from_be_bytes([octets[0], octets[1]])) % limit
    }

    fn word<T: Copy>(&mut self, all: &[T], name: fn(T) -> &'static str) -> Value {
        name(all[self.below(all.len())]).into()
    }

    fn id(&mut self) -> Value {
        let octets = self.octets();
        engine::ids::Id(octets[..16].try_into().expect("16 bytes")).to_string().into()
    }

    /// As [`Draw::content`], with a title and a media type.
    fn context(&mut self) -> Value {
        let mut content = self.content();
        if !content.is_null() {
            content["title"] = ["", "Zoë", "Bill"][self.below(3)].into();
            content["type"] = ["text/plain", "image/png"][self.below(2)].into();
        }
        content
    }

    fn decision(&mut self) -> Value {
        let decision = Decision::ALL[self.below(2)];
        let reason = RejectReason::ALL[self.below(RejectReason::ALL.len())];
        let number = self.below(60_000) as u32;
        let with = self.below(2) == 0;
        let of = |wanted| with && decision == wanted;
        let reason = of(Decision::Reject).then_some(reason);
        let number = of(Decision::Approve).then_some(number);
        Said { decision, reason, number }.to_string().into()
    }

    /// No content, an empty one, or one of up to 199 bytes.
    fn content(&mut self) -> Value {
        if self.below(4) == 0 {
            return Value::Null;
        }
        let length = self.below(3) * self.below(100);
        let octets: Vec<u8> = (0..length).map(|_| self.octets()[0]).collect();
        json!({ "salt": hex(&self.octets()), "octets": hex(&octets) })
    }

    fn version(&mut self) -> Value {
        let numbers: Vec<_> = (0..=self.below(4)).map(|_| self.below(70_000).to_string()).collect();
        numbers.join(".").into()
    }

    fn inputs(&mut self, spki: &Value) -> Value {
        let mut given = json!({
            "purpose": self.word(Purpose::ALL, Purpose::as_str),
            "application_id": self.id(),
            "registration_id": self.id(),
            "operation_id": self.id(),
            "challenge": hex(&self.octets()),
            "key_id": hex(&self.octets()),
            "role": self.word(Role::ALL, Role::as_str),
            "method": self.word(Method::ALL, Method::as_str),
            "decision": self.decision(),
            "client_version": self.version(),
            "hw_key_client_status": self.word(HwKeyClientStatus::ALL, HwKeyClientStatus::as_str),
            "channel_binding": hex(&self.octets()),
            "level": self.word(Level::ALL, Level::as_str),
            "context": self.context(),
            "data_to_sign": self.content(),
            "client_data": self.content(),
            "risk_data": self.content(),
        });
        if given["purpose"] == "activation" {
            given["device_token"] = hex(&self.octets()).into();
            given["attestation"] = self.content();
            given["key_set"] = self.key_set(spki);
        }
        given
    }

    fn key_set(&mut self, keys: &Value) -> Value {
        let mut set = json!({});
        for (slot, name) in [
            ("DEVICE", "device"),
            ("DEVICE:PIN", "pin"),
            ("DEVICE:BIOMETRIC", "biometric"),
            ("HARDWARE", "hardware"),
        ] {
            if self.below(3) > 0 {
                set[slot] = keys[name]["spki"].clone();
            }
        }
        set
    }
}

#[test]
fn random_transcripts_have_the_bytes_of_the_second_encoder() {
    let keys = &vectors()["keys"];
    let inputs: Vec<Value> =
        (0..RANDOM_CASES).map(|seed| Draw { seed, drawn: 0 }.inputs(keys)).collect();
    let Some(printed) = run_script(&["--encode"], &Value::from(inputs.clone()).to_string()) else {
        return;
    };
    let encoded: Vec<String> = serde_json::from_str(&printed).expect("a list");
    assert_eq!(encoded.len(), inputs.len());
    for (given, expected) in inputs.iter().zip(encoded) {
        assert_eq!(hex(&transcript(given).bytes()), expected, "{given}");
    }
}

#[test]
fn the_example_in_the_document_is_the_case_it_names() {
    let document = std::fs::read_to_string(crate::root().join("docs/protocol.md")).unwrap();
    let vectors = vectors();
    let name = "authentication-no-content";
    let case = cases(&vectors).iter().find(|case| case["name"] == name).expect("the case");
    let (_, example) =
        document.split_once("One case in full, `authentication-no-content`").unwrap();
    let mut blocks = example.split("\n```\n").skip(1).step_by(2);
    let fields = blocks.next().expect("the fields");
    let joined: String =
        fields.lines().flat_map(|line| line.split(' ').skip(1)).collect::<Vec<_>>().concat();
    assert_eq!(joined, text(&case["transcript"]));
    assert_eq!(blocks.next().expect("the digest"), text(&case["sha256"]));
    assert_eq!(blocks.next().expect("the signature"), text(&case["signature"]));
}
