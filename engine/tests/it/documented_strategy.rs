//! The tables under "Hardware-key strategy" in `docs/protocol.md` against the
//! rules: every cell of the strategy table, and every combination of claim, key
//! and signature that the two mappings speak of, judged by the engine itself.

use std::sync::Arc;

use engine::Keytrail;
use engine::command::{Command, FinishActivation, FinishAuthentication, Want};
use engine::config::Config;
use engine::entries::{Activation, Application, Entry, Key, Operation, Registration, Started};
use engine::events::{DeclaredV1, Event, KeySetV1, MethodKeyV1, VerificationV1};
use engine::ids::{Id, Micros, Position};
use engine::key::KeyBytes;
use engine::machine::{Entries, Machine, StreamHead};
use engine::reasons::{
    ActivationFailure, ActivationState, AuthenticationFailure, CodeKind, OperationState,
    RegistrationState, Strategy,
};
use engine::strategy::{Consequence, HardwareCheck};
use engine::terms::{Decision, HwKeyClientStatus, HwKeyServerResult, Level, Method, Role, Verdict};
use engine::version::ClientVersion;

/// The four things a signature can be, by their words in the tables.
const SIGNATURES: [Option<Verdict>; 4] =
    [None, Some(Verdict::Valid), Some(Verdict::Invalid), Some(Verdict::Malformed)];

/// The lines of the first table after `heading`, header first, cells without marks.
fn table(heading: &str) -> Vec<Vec<String>> {
    let path = crate::root().join("docs/protocol.md");
    let text = std::fs::read_to_string(path).expect("the document");
    let lines = text.lines().skip_while(|line| *line != heading).skip(1);
    lines
        .skip_while(|line| !line.starts_with('|'))
        .take_while(|line| line.starts_with('|'))
        .filter(|line| !line.starts_with("|---"))
        .map(|line| line.trim_matches('|').split('|').map(cell).collect())
        .collect()
}

fn cell(text: &str) -> String {
    text.trim().trim_matches(|mark| mark == '`' || mark == '*').to_owned()
}

fn row(name: &str) -> HardwareCheck {
    match name {
        "valid" => HardwareCheck::Valid,
        "invalid" => HardwareCheck::Invalid(Verdict::Invalid),
        "malformed" => HardwareCheck::Invalid(Verdict::Malformed),
        "missing" => HardwareCheck::Missing,
        "cannot" => HardwareCheck::NoKeyCannot,
        "could" => HardwareCheck::NoKeyCould,
        other => panic!("no row is called {other}"),
    }
}

#[test]
fn every_cell_of_the_documented_strategy_table_is_what_the_engine_does() {
    let table = table("## Hardware-key strategy");
    let strategies: Vec<_> =
        table[0][4..].iter().map(|name| Strategy::parse(name).expect("a strategy")).collect();
    assert_eq!(strategies, Strategy::ALL);
    let names: Vec<_> = table[1..].iter().map(|line| line[0].as_str()).collect();
    assert_eq!(names, ["valid", "invalid", "malformed", "missing", "cannot", "could"]);
    for line in &table[1..] {
        let check = row(&line[0]);
        assert_eq!(Some(check.result()), HwKeyServerResult::parse(&line[2]), "{}", line[0]);
        let at_activation = HwKeyServerResult::parse(&line[3]);
        assert_eq!(Some(check.result_at_activation()), at_activation, "{}", line[0]);
        for (&strategy, cell) in strategies.iter().zip(&line[4..]) {
            let expected = match cell.as_str() {
                "pass" => Consequence::Pass,
                "fail" => Consequence::Fail,
                other => panic!("neither pass nor fail: {other}"),
            };
            assert_eq!(check.under(strategy), expected, "{} under {strategy}", line[0]);
        }
    }
}

/// The row that a mapping gives for these cells; exactly one line must apply.
fn mapped(table: &[Vec<String>], cells: &[&str]) -> HardwareCheck {
    let lines: Vec<_> = table[1..]
        .iter()
        .filter(|line| line.iter().zip(cells).all(|(there, here)| there == "any" || there == here))
        .collect();
    assert_eq!(lines.len(), 1, "lines for {cells:?}: {lines:?}");
    row(&lines[0][cells.len()])
}

fn signature_word(signature: Option<Verdict>) -> &'static str {
    signature.map_or("none", Verdict::as_str)
}

/// What the engine made of one finish.
#[derive(Debug, PartialEq, Eq)]
struct Judged {
    result: HwKeyServerResult,
    hardware_failed: bool,
    impossible: bool,
    stored: bool,
}

#[test]
fn the_documented_mapping_at_activation_is_what_the_engine_does() {
    let table = table("### At activation");
    for (version, version_word) in [("3.7.9", "below the minimum"), ("3.8", "served")] {
        for &status in HwKeyClientStatus::ALL {
            for offered in [true, false] {
                for signature in SIGNATURES {
                    let yes = if offered { "yes" } else { "no" };
                    let cells = [version_word, status.as_str(), yes, signature_word(signature)];
                    let check = mapped(&table, &cells);
                    for &strategy in Strategy::ALL {
                        let fails = check.under(strategy) == Consequence::Fail;
                        let expected = Judged {
                            result: check.result_at_activation(),
                            hardware_failed: fails,
                            impossible: check == HardwareCheck::NoKeyCannot,
                            stored: check == HardwareCheck::Valid,
                        };
                        let judged =
                            activate(strategy, declared(version, status), offered, signature);
                        assert_eq!(judged, expected, "{cells:?} under {strategy}");
                    }
                }
            }
        }
    }
}

#[test]
fn the_documented_mapping_at_authentication_is_what_the_engine_does() {
    let table = table("### At authentication");
    let on_file = [
        (true, false, "yes"),
        (false, true, "no; *cannot* is stored"),
        (false, false, "no; *cannot* is not stored"),
    ];
    for &status in HwKeyClientStatus::ALL {
        for (key, impossible, key_word) in on_file {
            let reason = if key {
                AuthenticationFailure::HwKeyCheckFailed
            } else {
                AuthenticationFailure::HwKeyRequired
            };
            for signature in SIGNATURES {
                let cells = [status.as_str(), key_word, signature_word(signature)];
                let check = mapped(&table, &cells);
                for &strategy in Strategy::ALL {
                    for version in ["3.7.9", "3.8"] {
                        let declared = declared(version, status);
                        let found = authenticate(strategy, declared, key, impossible, signature);
                        let fails = check.under(strategy) == Consequence::Fail;
                        let failure = fails.then_some(reason);
                        assert_eq!(found, (check.result(), failure), "{cells:?} under {strategy}");
                    }
                }
            }
        }
    }
}

const APPLICATION: Id = Id([1; 16]);
const REGISTRATION: Id = Id([2; 16]);
const QUESTION: Id = Id([3; 16]);
const CHALLENGE: [u8; 32] = [4; 32];
const DEVICE_KEY: KeyBytes = KeyBytes { x: [5; 32], y: [5; 32] };
const HARDWARE_KEY: KeyBytes = KeyBytes { x: [6; 32], y: [6; 32] };
const NOW: Micros = Micros(1_000_000);
const LATER: Micros = Micros(2_000_000);

struct State(Vec<(Key, Arc<Entry>)>);

impl Entries<Keytrail> for State {
    fn get(&self, key: &Key) -> Option<Arc<Entry>> {
        self.0.iter().find(|(known, _)| known == key).map(|(_, entry)| entry.clone())
    }
}

fn state(strategy: Strategy, registration: Registration, question: (Key, Entry)) -> State {
    let application = Application {
        head: StreamHead::default(),
        name: "an application".to_owned(),
        service_provider: "a-bank".to_owned(),
        config: Config {
            hw_key_validation_strategy: strategy,
            hw_key_min_client_version: ClientVersion::parse("3.8").expect("a version"),
            ..Config::default()
        },
        config_version: 1,
        live_codes: 0,
        codes_refused_until: Micros(0),
        created_at: Micros(0),
    };
    State(vec![
        (Key::Application(APPLICATION), Arc::new(Entry::Application(Arc::new(application)))),
        (Key::Registration(REGISTRATION), Arc::new(Entry::Registration(Arc::new(registration)))),
        (question.0, Arc::new(question.1)),
    ])
}

fn registration(state: RegistrationState) -> Registration {
    Registration {
        head: StreamHead::default(),
        application: APPLICATION,
        subject: Id([7; 16]),
        requested_in: Position(0),
        state,
        lock_reason: None,
        activation: None,
        software: Vec::new(),
        hardware: None,
        hw_key_impossible: false,
        unproven_device: false,
        attestation: None,
        device_token_hash: [0; 32],
        client_version: String::new(),
        keys_at: Position(0),
        failures: 0,
        noise_since: Micros(0),
        noise: 0,
        open_operations: Vec::new(),
        created_at: Micros(0),
        activated_at: None,
        last_used_at: None,
    }
}

fn declared(version: &str, status: HwKeyClientStatus) -> DeclaredV1 {
    DeclaredV1 {
        client_version: version.to_owned(),
        hw_key_client_status: status,
        channel_binding: [0; 32],
        client_data_hash: [0; 32],
        risk_data_hash: [0; 32],
    }
}

fn device_slot() -> MethodKeyV1 {
    MethodKeyV1 { method: Method::Device, key: DEVICE_KEY }
}

fn checked(role: Role, key: KeyBytes, verdict: Verdict) -> VerificationV1 {
    VerificationV1 { role, method: Method::Device, key, signature: Vec::new(), verdict }
}

/// A good signature by the DEVICE key, and this one by the hardware key.
fn verifications(hardware: Option<Verdict>) -> Vec<VerificationV1> {
    let software = checked(Role::Software, DEVICE_KEY, Verdict::Valid);
    let hardware = hardware.map(|verdict| checked(Role::Hardware, HARDWARE_KEY, verdict));
    std::iter::once(software).chain(hardware).collect()
}

fn decide(state: &State, want: Want) -> Event {
    let command = Command { event_id: Id([8; 16]), want };
    let drafts = Keytrail::decide(state, NOW, &command).expect("judged");
    Event::decode(drafts[0].event_type, drafts[0].schema, &drafts[0].clear).expect("an event")
}

fn activate(
    strategy: Strategy,
    declared: DeclaredV1,
    offered: bool,
    signature: Option<Verdict>,
) -> Judged {
    let activation = Activation {
        registration: REGISTRATION,
        application: APPLICATION,
        again: false,
        state: ActivationState::Started,
        code_hash: [0; 32],
        qr_hash: [0; 32],
        expires_at: LATER,
        created_at: Micros(0),
        started: Some(Started { with: CodeKind::Qr, nonce_hash: [0; 32], challenge: CHALLENGE }),
        judged: None,
        cancel_reason: None,
    };
    let question = (Key::Activation(QUESTION), Entry::Activation(Arc::new(activation)));
    let state = state(strategy, registration(RegistrationState::Started), question);
    let want = Want::FinishActivation(Box::new(FinishActivation {
        activation: QUESTION,
        challenge: CHALLENGE,
        declared,
        keys: KeySetV1 { software: vec![device_slot()], hardware: offered.then_some(HARDWARE_KEY) },
        device_token_hash: [9; 32],
        attestation_hash: [0; 32],
        body_digest: [10; 32],
        verifications: verifications(signature),
        evidence: None,
        sealed: Vec::new(),
    }));
    let Event::ActivationJudged(judged) = decide(&state, want) else { panic!("not judged") };
    let hardware_failed = match judged.failure {
        None => false,
        Some(ActivationFailure::HwKeyCheckFailed) => true,
        Some(other) => panic!("failed for another reason: {other}"),
    };
    Judged {
        result: judged.hw_key_server_result,
        hardware_failed,
        impossible: judged.hw_key_impossible,
        stored: judged.hw_key_stored,
    }
}

fn authenticate(
    strategy: Strategy,
    declared: DeclaredV1,
    on_file: bool,
    impossible: bool,
    signature: Option<Verdict>,
) -> (HwKeyServerResult, Option<AuthenticationFailure>) {
    let operation = Operation {
        registration: REGISTRATION,
        application: APPLICATION,
        broadcast: None,
        begun: None,
        kind: engine::reasons::OperationKind::Authentication,
        matching: None,
        external_id: false,
        post_context: false,
        level: Level::OneFactor,
        methods: vec![Method::Device],
        context_hash: [0; 32],
        data_to_sign_hash: [0; 32],
        created_at: Micros(0),
        created_in: Position(0),
        expires_at: LATER,
        state: OperationState::Pending,
        challenge: Some(CHALLENGE),
        attempts: Vec::new(),
        hw_key_client_status: HwKeyClientStatus::NotReported,
        hw_key_server_result: HwKeyServerResult::NoKeyRegistered,
        ended_at: None,
        cancel_reason: None,
    };
    let registration = Registration {
        software: vec![device_slot()],
        hardware: on_file.then_some(HARDWARE_KEY),
        hw_key_impossible: impossible,
        ..registration(RegistrationState::Active)
    };
    let question = (Key::Operation(QUESTION), Entry::Operation(Arc::new(operation)));
    let state = state(strategy, registration, question);
    let want = Want::FinishAuthentication(Box::new(FinishAuthentication {
        operation: QUESTION,
        challenge: CHALLENGE,
        method: Method::Device,
        said: Decision::Approve.into(),
        declared,
        body_digest: [10; 32],
        keys_at: Position(0),
        verifications: verifications(signature),
        sealed: Vec::new(),
    }));
    let Event::AuthenticationJudged(judged) = decide(&state, want) else { panic!("not judged") };
    (judged.hw_key_server_result, judged.failure)
}
