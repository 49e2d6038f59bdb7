//! What judging evidence costs, beside the bare signature checks in it.
//!
//! A chain of the simulated phone's test authority is always there. Chains and
//! objects that real phones made are judged too where a folder holds them.

use std::path::Path;

use api::device::TestCa;
use api::ports::SystemEntropy;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use engine::attestation::apple::judge_bound;
use engine::attestation::chain::Chain;
use engine::attestation::policy::BootRule;
use engine::attestation::{Expected, Judgement, Outcome as Verdict, Platform, Policy, judge};
use engine::ids::Micros;
use engine::key::PublicKey;
use serde::Serialize;
use serde_json::Value;

use super::Outcome;
use super::machine::thread_cpu_ns;

/// Judgements, and checks of signatures, between two looks at the clock.
const ROUND: u64 = 64;

/// The challenge of the chain that is made here.
const CHALLENGE: [u8; 32] = [7; 32];
/// The App ID of the object that a real phone made.
const APP_ID: &str = "V8H6LQ9448.io.uebelacker.AppAttestExample";
/// Times within the dates of what is judged.
const JULY_2026: Micros = Micros(1_783_641_600_000_000);
const OCTOBER_2025: Micros = Micros(1_759_276_800_000_000);
const FEBRUARY_2024: Micros = Micros(1_707_350_400_000_000);

/// What was seen.
#[derive(Debug, Serialize)]
pub(crate) struct Attestation {
    /// One for each kind of evidence.
    pub(crate) rows: Vec<Row>,
    /// Whether evidence of real phones was among it.
    pub(crate) real: bool,
}

/// One kind of evidence; microseconds of CPU on one core.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    /// What it is.
    pub(crate) name: &'static str,
    /// Certificates in it.
    pub(crate) certificates: usize,
    /// Its length.
    pub(crate) bytes: usize,
    /// The whole judgement.
    pub(crate) judge_us: f64,
    /// The signatures of the chain alone.
    pub(crate) signatures_us: f64,
    /// The first over the second.
    pub(crate) ratio: f64,
}

/// Evidence that is accepted.
struct Case {
    name: &'static str,
    evidence: Evidence,
    /// The certificates in it, leaf first.
    chain: Vec<u8>,
    at: Micros,
    policy: Policy,
}

enum Evidence {
    Android(Vec<u8>),
    /// An object, the identifier of its key, and the hash that it binds.
    Apple(Vec<u8>, [u8; 32], [u8; 32]),
}

/// Judges each kind of evidence for about this many seconds of CPU.
///
/// # Errors
///
/// If evidence is not accepted, or a file of `vectors` is not what it must be.
pub(crate) fn run(seconds: f64, vectors: Option<&Path>) -> Outcome<Attestation> {
    let mut cases = vec![made()?];
    if let Some(folder) = vectors {
        cases.extend(real(folder)?);
    }
    let share = seconds / cases.len() as f64;
    let rows = cases.iter().map(|case| case.measured(share)).collect::<Outcome<Vec<_>>>()?;
    Ok(Attestation { rows, real: vectors.is_some() })
}

impl Case {
    fn measured(&self, seconds: f64) -> Outcome<Row> {
        let chain =
            Chain::read(&self.chain).map_err(|reason| format!("{}: {reason}", self.name))?;
        let (mut judged, mut verified, mut count) = (0, 0, 0);
        // In turns, so that whatever disturbs disturbs both.
        while ((judged + verified) as f64) < seconds * 1e9 {
            let before = thread_cpu_ns()?;
            for _ in 0..ROUND {
                let outcome = std::hint::black_box(self.judged()).outcome;
                if outcome != Verdict::Accepted {
                    return Err(format!("{}: {outcome:?}", self.name).into());
                }
            }
            let between = thread_cpu_ns()?;
            for _ in 0..ROUND {
                std::hint::black_box(&chain).signatures().map_err(|reason| reason.to_string())?;
            }
            judged += between - before;
            verified += thread_cpu_ns()? - between;
            count += ROUND;
        }
        let us = |ns: u64| ns as f64 / 1e3 / count as f64;
        Ok(Row {
            name: self.name,
            certificates: chain.certificates().len(),
            bytes: match &self.evidence {
                Evidence::Android(octets) | Evidence::Apple(octets, ..) => octets.len(),
            },
            judge_us: us(judged),
            signatures_us: us(verified),
            ratio: judged as f64 / verified as f64,
        })
    }

    fn judged(&self) -> Judgement {
        let expected = Expected {
            challenge: None,
            hardware_key: None,
            at: self.at,
            policy: &self.policy,
            list: None,
        };
        match &self.evidence {
            Evidence::Android(chain) => judge(Platform::Android, chain, &expected),
            Evidence::Apple(object, key_id, hash) => {
                judge_bound(object, Some(key_id), Some(hash), &expected)
            }
        }
    }
}

/// A chain of the simulated phone.
fn made() -> Outcome<Case> {
    let ca = TestCa::generate(&SystemEntropy)?;
    let chain = ca.chain(&PublicKey::dummy(), &CHALLENGE)?;
    let root = Chain::read(&chain).map_err(|reason| reason.to_string())?;
    let root = root.authorities().last().ok_or("no root")?.public_key().raw.to_vec();
    let policy = Policy { test_environment: true, test_roots: vec![root], ..Policy::default() };
    let name = "Android, the phone's test authority";
    Ok(Case { name, evidence: Evidence::Android(chain.clone()), chain, at: JULY_2026, policy })
}

/// What real phones made.
fn real(folder: &Path) -> Outcome<Vec<Case>> {
    let android = folder.join("android-keyattestation");
    let factory = android.join("blueline/sdk28/TEE_EC_NONE.pem");
    let remote = android.join("caiman/sdk36/TEE_EC_RKP.pem");
    Ok(vec![
        chain("Android, from the factory", &factory, JULY_2026)?,
        chain("Android, remotely provisioned", &remote, OCTOBER_2025)?,
        object(&folder.join("apple-appattest-uebelack/attestation-production.json"))?,
    ])
}

fn chain(name: &'static str, file: &Path, at: Micros) -> Outcome<Case> {
    let mut chain = Vec::new();
    let text = std::fs::read_to_string(file)?;
    for part in text.split("-----BEGIN CERTIFICATE-----").skip(1) {
        let (base64, _) = part.split_once("-----END").ok_or("a certificate without an end")?;
        chain.extend(STANDARD.decode(base64.split_whitespace().collect::<String>())?);
    }
    let mut policy = Policy::default();
    // The phones of the vectors are unlocked.
    policy.android.boot = BootRule::Any;
    Ok(Case { name, evidence: Evidence::Android(chain.clone()), chain, at, policy })
}

fn object(file: &Path) -> Outcome<Case> {
    let json: Value = serde_json::from_slice(&std::fs::read(file)?)?;
    let member = |name: &str| -> Outcome<Vec<u8>> {
        let text = json[name].as_str().ok_or("a member is missing")?;
        let text = text.replace('-', "+").replace('_', "/");
        let text = text.trim_end_matches('=');
        Ok(base64::engine::general_purpose::STANDARD_NO_PAD.decode(text)?)
    };
    let object = member("attestation")?;
    let key_id = member("keyId")?.try_into().map_err(|_| "no key identifier")?;
    let challenge = member("challenge")?;
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &challenge);
    let hash = hash.as_ref().try_into()?;
    let mut policy = Policy::default();
    policy.apple.app_ids = vec![APP_ID.to_owned()];
    let chain = certificates(&object);
    let evidence = Evidence::Apple(object, key_id, hash);
    Ok(Case { name: "Apple App Attest", evidence, chain, at: FEBRUARY_2024, policy })
}

/// The certificates of an attestation object, one after the other: CBOR byte
/// strings (0x59 and two bytes of length) that hold a DER SEQUENCE of just that
/// length. They are the first such strings.
fn certificates(object: &[u8]) -> Vec<u8> {
    const IN_OBJECT: usize = 2;
    let at = |start: usize| {
        let head: &[u8; 7] = object.get(start..start + 7)?.try_into().ok()?;
        let length = usize::from(u16::from_be_bytes([head[1], head[2]]));
        let within = usize::from(u16::from_be_bytes([head[5], head[6]]));
        let fits = head[0] == 0x59 && head[3..5] == [0x30, 0x82] && within + 4 == length;
        object.get(start + 3..start + 3 + length).filter(|_| fits)
    };
    (0..object.len()).filter_map(at).take(IN_OBJECT).collect::<Vec<_>>().concat()
}
