//! Bare verification of signatures over real transcripts, by both libraries.

use engine::events::DeclaredV1;
use engine::ids::Id;
use engine::key::PublicKey;
use engine::proofs::{AuthenticationFacts, Signed};
use engine::reasons::OperationKind;
use engine::signature::{verify, verify_independent};
use engine::terms::{Decision, HwKeyClientStatus, Level, Method, Role, Verdict};
use p256::ecdsa::signature::Signer;
use p256::ecdsa::{Signature, SigningKey};
use serde::Serialize;

use super::Outcome;
use super::draw::Draw;
use super::machine::thread_cpu_ns;

/// Different keys, transcripts and signatures.
const CASES: usize = 64;

/// Microseconds of CPU for one verification on one core.
#[derive(Debug, Serialize)]
pub(crate) struct Verification {
    /// By aws-lc-rs, which the server accepts with.
    pub(crate) aws_lc_rs_us: f64,
    /// The same a second.
    pub(crate) aws_lc_rs_per_s: f64,
    /// By p256, which the auditor checks with.
    pub p256_us: f64,
    /// The same a second.
    pub p256_per_s: f64,
    /// How many times faster aws-lc-rs is.
    pub(crate) ratio: f64,
}

struct Case {
    key: PublicKey,
    message: Vec<u8>,
    signature: Vec<u8>,
}

/// Verifies for about this many seconds of CPU, in turns.
///
/// # Errors
///
/// If a library does not accept a good signature.
pub(crate) fn run(seconds: f64) -> Outcome<Verification> {
    let mut draw = Draw::new(1);
    let cases = (0..CASES).map(|_| case(&mut draw)).collect::<Outcome<Vec<_>>>()?;
    let (mut fast, mut slow) = (Total::default(), Total::default());
    // In turns, so that whatever disturbs disturbs both.
    while (fast.ns + slow.ns) as f64 / 1e9 < seconds {
        fast.add(&cases, verify)?;
        fast.add(&cases, verify)?;
        fast.add(&cases, verify)?;
        slow.add(&cases, verify_independent)?;
    }
    let (fast, slow) = (fast.us(), slow.us());
    Ok(Verification {
        aws_lc_rs_us: fast,
        aws_lc_rs_per_s: 1e6 / fast,
        p256_us: slow,
        p256_per_s: 1e6 / slow,
        ratio: slow / fast,
    })
}

/// CPU of one verification as the server does it, in microseconds.
///
/// # Errors
///
/// As [`run`].
pub(crate) fn accept_us(seconds: f64) -> Outcome<f64> {
    one(seconds, verify)
}

/// CPU of one verification as the auditor does it, in microseconds.
///
/// # Errors
///
/// As [`run`].
pub(crate) fn check_us(seconds: f64) -> Outcome<f64> {
    one(seconds, verify_independent)
}

type Verify = fn(&PublicKey, &[u8], &[u8]) -> Verdict;

fn one(seconds: f64, verify: Verify) -> Outcome<f64> {
    let mut draw = Draw::new(1);
    let cases = (0..CASES).map(|_| case(&mut draw)).collect::<Outcome<Vec<_>>>()?;
    let mut total = Total::default();
    while (total.ns as f64) / 1e9 < seconds {
        total.add(&cases, verify)?;
    }
    Ok(total.us())
}

#[derive(Default)]
struct Total {
    ns: u64,
    count: u64,
}

impl Total {
    fn add(&mut self, cases: &[Case], verify: Verify) -> Outcome<()> {
        let before = thread_cpu_ns()?;
        for case in cases {
            if verify(&case.key, &case.message, &case.signature) != Verdict::Valid {
                return Err("a good signature was not accepted".into());
            }
        }
        self.ns += thread_cpu_ns()? - before;
        self.count += cases.len() as u64;
        Ok(())
    }

    fn us(&self) -> f64 {
        self.ns as f64 / 1e3 / self.count.max(1) as f64
    }
}

fn case(draw: &mut Draw) -> Outcome<Case> {
    let signing = SigningKey::from_slice(&draw.bytes::<32>())?;
    let key = PublicKey::from_bytes(signing.verifying_key().to_sec1_point(false).as_bytes())?;
    let facts = AuthenticationFacts {
        application: Id(draw.bytes()),
        registration: Id(draw.bytes()),
        operation: Id(draw.bytes()),
        challenge: draw.bytes(),
        kind: OperationKind::Authentication,
        said: Decision::Approve.into(),
        level: Level::TwoFactor,
        context_hash: draw.bytes(),
        data_to_sign_hash: [0; 32],
    };
    let declared = DeclaredV1 {
        client_version: "4.0".into(),
        hw_key_client_status: HwKeyClientStatus::Signed,
        channel_binding: [0; 32],
        client_data_hash: [0; 32],
        risk_data_hash: draw.bytes(),
    };
    let signed = Signed::at_authentication(&facts, &declared)?;
    let message = signed.message(Role::Hardware, Method::DevicePin, &key);
    let signature: Signature = signing.sign(&message);
    Ok(Case { key, message, signature: signature.to_der().as_bytes().to_vec() })
}
