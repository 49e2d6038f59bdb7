//! The simulated phone against the real server, both as the binary they are.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use api::device::Client;
use api::wire::admin::{Application, ChangeConfiguration, CreateApplication, Properties};
use api::wire::provider::{
    Activation, Context, CreateOperation, Operation, Registration, RequestActivation,
    RequestedActivation,
};
use api::wire::{Octets, admin};
use engine::ids::Id;
use engine::reasons::{Confirmation, OperationState, RegistrationState, RejectReason, UserRole};
use engine::terms::{Level, Method};
use serde_json::{Value, json};
use tempfile::TempDir;

const BINARY: &str = env!("CARGO_BIN_EXE_keytrail-tested");

/// A server on a fresh folder, and what its operator and service provider hold.
struct Server {
    process: Child,
    folder: TempDir,
    client: Client,
    administrator: String,
    provider: String,
    application: Id,
}

impl Server {
    /// A server with one application that has these properties.
    fn start(configuration: Value) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), configuration, &[], None)
    }

    fn start_in(folder: TempDir, configuration: Value, flags: &[&str], ca: Option<&Path>) -> Self {
        let (process, url) = serve(&folder, SocketAddr::from(([127, 0, 0, 1], 0)), flags);
        let client = Client::new(&url, ca).unwrap();
        let written = folder.path().join("data/first-administrator-key");
        let written = std::fs::read_to_string(written).unwrap();
        let administrator = written.lines().find_map(|line| line.strip_prefix("bearer ")).unwrap();
        let key = admin::CreateApiKey {
            role: UserRole::ServiceProvider,
            service_provider: Some("bank".to_owned()),
            name: "back end".to_owned(),
        };
        let created: admin::CreatedApiKey =
            client.post("/admin/v1/api-keys", &key, Some(administrator)).unwrap();
        let application = CreateApplication {
            name: "app".to_owned(),
            service_provider: "bank".to_owned(),
            configuration: properties(configuration),
        };
        let application: Application =
            client.post("/admin/v1/applications", &application, Some(administrator)).unwrap();
        Self {
            process,
            folder,
            client,
            administrator: administrator.to_owned(),
            provider: created.bearer.unwrap(),
            application: application.application_id,
        }
    }

    /// Kills the process, without a word, and starts another on the same folder and port.
    fn restart(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        let address = self.client.server().strip_prefix("http://").unwrap().parse().unwrap();
        self.process = serve(&self.folder, address, &[]).0;
    }

    fn configure(&self, version: u64, configuration: Value) {
        let change = ChangeConfiguration { version, configuration: properties(configuration) };
        let path = format!("/admin/v1/applications/{}/configuration", self.application);
        self.client.patch::<_, Application>(&path, &change, Some(&self.administrator)).unwrap();
    }

    fn request_activation(&self) -> RequestedActivation {
        let body =
            RequestActivation { application_id: self.application, user_ref: "anna".to_owned() };
        self.client.post("/v1/activations", &body, Some(&self.provider)).unwrap()
    }

    fn request_again(&self, registration: Id) -> RequestedActivation {
        let path = format!("/v1/registrations/{registration}/activations");
        self.client.post(&path, &json!({}), Some(&self.provider)).unwrap()
    }

    fn activation(&self, id: Id) -> Activation {
        self.client.get(&format!("/v1/activations/{id}"), Some(&self.provider)).unwrap()
    }

    fn registration(&self, id: Id) -> Registration {
        self.client.get(&format!("/v1/registrations/{id}"), Some(&self.provider)).unwrap()
    }

    fn operation(&self, id: Id) -> Operation {
        self.client.get(&format!("/v1/operations/{id}"), Some(&self.provider)).unwrap()
    }

    /// An operation for `phone` that any method may answer.
    fn ask(&self, phone: &Phone) -> Id {
        let body = CreateOperation {
            context: Some(Context {
                title: String::new(),
                kind: "text/plain".to_owned(),
                octets: Octets(b"Pay 5 to Anna\x1b[2J".to_vec()),
            }),
            data_to_sign: Some(Octets(b"5 EUR".to_vec())),
            ..CreateOperation::new(phone.registration, Level::OneFactor)
        };
        let asked: Operation =
            self.client.post("/v1/operations", &body, Some(&self.provider)).unwrap();
        asked.operation_id
    }

    /// A fresh phone, activated with these flags.
    fn phone(&self, name: &str, flags: &[&str]) -> Phone {
        let state = self.folder.path().join(name);
        let requested = self.request_activation();
        let ended = self.activate(&state, &requested, flags);
        assert_eq!(ended.code, 0, "{}", ended.out);
        Phone { state, registration: requested.activation.registration_id }
    }

    fn activate(&self, state: &PathBuf, requested: &RequestedActivation, flags: &[&str]) -> Ended {
        let application = self.application.to_string();
        let mut words = vec!["activate", "--server", self.client.server()];
        words.extend(["--application", &application, "--code", &requested.code]);
        words.extend(flags);
        device(&words, state)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Starts `keytrail serve`; gives its URL once it listens.
fn serve(folder: &TempDir, listen: SocketAddr, flags: &[&str]) -> (Child, String) {
    let mut process = Command::new(BINARY)
        .args(["serve", "--data", "data", "--log-filter", "error", "--listen"])
        .arg(listen.to_string())
        .args(flags)
        .current_dir(folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(process.stdout.take().unwrap()).lines();
    let url = lines
        .map(Result::unwrap)
        .find_map(|line| line.strip_prefix("keytrail listens on ").map(str::to_owned));
    (process, url.unwrap())
}

fn properties(value: Value) -> Properties {
    serde_json::from_value(value).unwrap()
}

/// A phone by its state file.
struct Phone {
    state: PathBuf,
    registration: Id,
}

/// How a command ended, and the object it printed.
struct Ended {
    code: i32,
    out: Value,
}

fn device(words: &[&str], state: &PathBuf) -> Ended {
    let output = Command::new(BINARY)
        .arg("device")
        .args(words)
        .args(["--json", "--state"])
        .arg(state)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let out = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| {
        panic!("{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    });
    Ended { code: output.status.code().unwrap(), out }
}

impl Phone {
    fn answer(&self, flags: &[&str]) -> Ended {
        let mut words = vec!["authenticate"];
        if !flags.contains(&"--reject") {
            words.push("--yes");
        }
        words.extend(flags);
        device(&words, &self.state)
    }
}

/// Everything is reported and nothing locks.
fn lenient() -> Value {
    json!({
        "failures_allowed": 20,
        "enabled_risk_data": ["hw_key_client_status", "hw_key_server_result"],
    })
}

fn word<T: serde::Serialize>(word: T) -> Value {
    serde_json::to_value(word).unwrap()
}

#[test]
fn a_phone_with_a_hardware_key_answers_by_every_method() {
    let server = Server::start(lenient());
    let phone = server.phone("phone.json", &["--pin", "2580", "--biometric"]);
    let mode = std::fs::metadata(&phone.state).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);

    let registered = server.registration(phone.registration);
    assert_eq!(registered.state, RegistrationState::Active);
    let shown = device(&["show"], &phone.state).out;
    assert_eq!(shown["registration_id"], word(phone.registration));
    assert_eq!(shown["hardware_key"]["key_id"], word(registered.hardware_key.unwrap().key_id));
    for (at, key) in registered.software_keys.iter().enumerate() {
        let shown = &shown["software_keys"][at];
        assert_eq!(shown["method"], word(key.method));
        let hidden = key.method == Some(Method::DevicePin);
        assert_eq!(shown["key_id"], if hidden { Value::Null } else { word(key.key_id) });
    }

    for (method, flags, state) in [
        ("DEVICE", &[][..], OperationState::Completed),
        ("DEVICE:PIN", &["--pin", "2580"], OperationState::Completed),
        ("DEVICE:BIOMETRIC", &[], OperationState::Completed),
        ("DEVICE", &["--reject"], OperationState::Rejected),
    ] {
        let asked = server.ask(&phone);
        let mut words = vec!["--method", method, "--client-data", "for the bank"];
        words.extend(flags);
        let ended = phone.answer(&words);
        assert_eq!((ended.code, &ended.out["accepted"]), (0, &json!(true)), "{}", ended.out);
        assert_eq!(ended.out["operation_id"], word(asked));
        assert_eq!(ended.out["state"], word(state));
        let operation = server.operation(asked);
        assert_eq!(operation.state, state);
        assert_eq!(word(operation.attempts[0].method), json!(method));
        assert_eq!(word(operation.risk.hw_key_client_status), json!("SIGNED"));
        assert_eq!(word(operation.risk.hw_key_server_result), json!("VALID"));
        assert_eq!(operation.client_data.unwrap().0, b"for the bank");
    }
    let nothing = phone.answer(&[]);
    assert_eq!((nothing.code, &nothing.out["error"]["code"]), (1, &json!("operation_not_found")));
}

#[test]
fn a_phone_without_a_hardware_key_says_why_and_passes_where_the_strategy_lets_it() {
    let server = Server::start(lenient());
    for (name, flags, claims, impossible) in [
        ("none.json", &["--no-hardware"][..], ["NOT_SUPPORTED", "NOT_SUPPORTED"], true),
        ("old.json", &["--client-version", "3.7"], ["NOT_REPORTED", "NOT_ACTIVATED"], true),
        (
            "failing.json",
            &["--failing-hardware"],
            ["KEY_GENERATION_FAILED", "NOT_ACTIVATED"],
            false,
        ),
    ] {
        let phone = server.phone(name, flags);
        let registered = server.registration(phone.registration);
        assert!(registered.hardware_key.is_none());
        assert_eq!(registered.hardware_key_impossible, impossible, "{name}");
        let asked = server.ask(&phone);
        let ended = phone.answer(&[]);
        assert_eq!((ended.code, &ended.out["accepted"]), (0, &json!(true)), "{name}");
        let operation = server.operation(asked);
        assert_eq!(word(operation.risk.hw_key_client_status), json!(claims[1]), "{name}");
        assert_eq!(word(operation.risk.hw_key_server_result), json!("NO_KEY_REGISTERED"));
    }
    // Where a hardware key is required, the same phone can no longer answer.
    server.configure(1, json!({ "hw_key_validation_strategy": "REQUIRED" }));
    let state = server.folder.path().join("none.json");
    let registration = device(&["show"], &state).out["registration_id"].clone();
    let registration = serde_json::from_value(registration).unwrap();
    let phone = Phone { state, registration };
    let asked = server.ask(&phone);
    let ended = phone.answer(&[]);
    assert_eq!((ended.code, &ended.out["must_reactivate"]), (1, &json!(true)), "{}", ended.out);
    assert_eq!(server.operation(asked).state, OperationState::Failed);
}

/// Flags; the failure, claim and result that the service provider sees of them.
const FAULTS: &[(&[&str], &str, &str, &str)] = &[
    (&["--wrong-pin"], "SOFTWARE_SIGNATURE_INVALID", "SIGNED", "VALID"),
    (&["--pin", "2581"], "SOFTWARE_SIGNATURE_INVALID", "SIGNED", "VALID"),
    (&["--bad-signature"], "SOFTWARE_SIGNATURE_INVALID", "SIGNED", "VALID"),
    (&["--malformed-signature"], "SOFTWARE_SIGNATURE_INVALID", "SIGNED", "VALID"),
    (&["--bad-hardware-signature"], "HW_KEY_CHECK_FAILED", "SIGNED", "INVALID"),
    (&["--malformed-hardware-signature"], "HW_KEY_CHECK_FAILED", "SIGNED", "MALFORMED"),
    (&["--no-hardware-signature"], "HW_KEY_CHECK_FAILED", "SIGNED", "SIGNATURE_MISSING"),
    (&["--lost-hardware-key"], "HW_KEY_CHECK_FAILED", "KEY_LOST", "SIGNATURE_MISSING"),
    (&["--hardware-unavailable"], "HW_KEY_CHECK_FAILED", "KEY_UNAVAILABLE", "SIGNATURE_MISSING"),
    (&["--hardware-refuses"], "HW_KEY_CHECK_FAILED", "SIGNING_FAILED", "SIGNATURE_MISSING"),
];

#[test]
fn each_misbehaviour_is_refused_counted_and_reported_for_what_it_is() {
    let server = Server::start(lenient());
    let phone = server.phone("phone.json", &["--pin", "2580"]);
    let mut left = 20;
    for (flags, failure, claim, result) in FAULTS {
        let asked = server.ask(&phone);
        let id = asked.to_string();
        let mut words = vec!["--operation", &id, "--method", "DEVICE:PIN"];
        if !flags.contains(&"--pin") {
            words.extend(["--pin", "2580"]);
        }
        words.extend(*flags);
        let ended = phone.answer(&words);
        left -= 1;
        assert_eq!((ended.code, &ended.out["accepted"]), (1, &json!(false)), "{flags:?}");
        assert_eq!(ended.out["remaining_attempts"], json!(left), "{flags:?}");
        assert_eq!(ended.out["state"], "PENDING", "{flags:?}");
        let operation = server.operation(asked);
        assert_eq!(word(operation.attempts[0].failure), json!(failure), "{flags:?}");
        assert_eq!(word(operation.risk.hw_key_client_status), json!(claim), "{flags:?}");
        assert_eq!(word(operation.risk.hw_key_server_result), json!(result), "{flags:?}");
    }
    // Where hardware results are reported only, the same lost key passes.
    server.configure(1, json!({ "hw_key_validation_strategy": "RISK_PARAMS" }));
    let asked = server.ask(&phone);
    let id = asked.to_string();
    let ended = phone.answer(&["--operation", &id, "--pin", "2580", "--lost-hardware-key"]);
    assert_eq!((ended.code, &ended.out["accepted"]), (0, &json!(true)), "{}", ended.out);
    let risk = server.operation(asked).risk;
    assert_eq!(word(risk.hw_key_server_result), json!("SIGNATURE_MISSING"));
}

#[test]
fn a_replay_gets_the_same_answer_and_a_changed_one_none() {
    let server = Server::start(lenient());
    let phone = server.phone("phone.json", &["--pin", "2580"]);
    for flags in [&[][..], &["--wrong-pin"]] {
        let asked = server.ask(&phone).to_string();
        let mut words = vec!["--operation", &asked, "--pin", "2580", "--replay"];
        words.extend(flags);
        let out = phone.answer(&words).out;
        for member in ["accepted", "state", "remaining_attempts", "last_attempt", "locked"] {
            assert_eq!(out["repeated"][member], out[member], "{member} of {out}");
        }
    }
    assert_eq!(server.registration(phone.registration).failures, 1, "counted once");
    let asked = server.ask(&phone);
    let id = asked.to_string();
    let out = phone.answer(&["--operation", &id, "--changed-replay"]).out;
    assert_eq!((&out["accepted"], &out["state"]), (&json!(true), &json!("COMPLETED")));
    assert_eq!(out["repeated"]["error"]["status"], 409, "{out}");
    let operation = server.operation(asked);
    assert_eq!((operation.state, operation.attempts.len()), (OperationState::Completed, 1));
    // After a failure the operation waits, and the used challenge is still refused.
    let id = server.ask(&phone).to_string();
    let out = phone.answer(&["--operation", &id, "--bad-signature", "--changed-replay"]).out;
    assert_eq!(out["repeated"]["error"]["code"], "challenge_not_live", "{out}");
    assert_eq!(server.registration(phone.registration).failures, 2);
}

#[test]
fn a_wrong_token_learns_and_counts_nothing_and_an_old_client_passes_only_where_it_is_served() {
    let server = Server::start(lenient());
    let phone = server.phone("phone.json", &["--no-hardware"]);
    let asked = server.ask(&phone);
    let wrong = phone.answer(&["--wrong-device-token"]);
    assert_eq!((wrong.code, &wrong.out["error"]["code"]), (1, &json!("operation_not_found")));
    let operation = server.operation(asked);
    assert_eq!((operation.attempts.len(), operation.remaining_attempts), (0, 20));
    let old = phone.answer(&["--old-client"]);
    assert_eq!((old.code, &old.out["accepted"]), (0, &json!(true)), "{}", old.out);
    server.configure(1, json!({ "min_client_version": "3.8" }));
    server.ask(&phone);
    let old = phone.answer(&["--old-client"]);
    assert_eq!((old.code, &old.out["error"]["code"]), (1, &json!("client_not_served")));
}

#[test]
fn wrong_pins_lock_the_registration_and_a_reactivation_by_its_own_keys_opens_it() {
    let server = Server::start(json!({}));
    let phone = server.phone("phone.json", &["--pin", "2580"]);
    let asked = server.ask(&phone).to_string();
    for (last, locked) in [(false, false), (true, false), (false, true)] {
        let out = phone.answer(&["--operation", &asked, "--pin", "0000"]).out;
        assert_eq!((&out["last_attempt"], &out["locked"]), (&json!(last), &json!(locked)), "{out}");
    }
    let after = phone.answer(&["--pin", "2580"]);
    assert_eq!((after.code, &after.out["error"]["code"]), (1, &json!("registration_locked")));

    let before = server.registration(phone.registration);
    let requested = server.request_again(phone.registration);
    let qr = requested.qr_payload.as_str();
    let words = ["activate", "--again", "--qr", qr, "--pin", "1379"];
    let ended = device(&words, &phone.state);
    assert_eq!((ended.code, &ended.out["accepted"]), (0, &json!(true)), "{}", ended.out);
    let after = server.registration(phone.registration);
    assert_eq!((after.state, after.unproven_device), (RegistrationState::Active, false));
    assert_ne!(word(before.hardware_key.unwrap().key_id), word(after.hardware_key.unwrap().key_id));
    let asked = server.ask(&phone);
    assert_eq!(phone.answer(&["--operation", &asked.to_string(), "--pin", "2580"]).code, 1);
    assert_eq!(phone.answer(&["--operation", &asked.to_string(), "--pin", "1379"]).code, 0);
}

#[test]
fn a_reactivation_from_another_device_is_refused_and_leaves_the_old_keys_in_force() {
    let server = Server::start(lenient());
    let phone = server.phone("phone.json", &[]);
    let requested = server.request_again(phone.registration);
    let other = server.folder.path().join("other.json");
    let ended = server.activate(&other, &requested, &[]);
    assert_eq!((ended.code, &ended.out["accepted"]), (1, &json!(false)), "{}", ended.out);
    assert!(!other.exists() && !server.folder.path().join("other.json.pending").exists());
    let activation = server.activation(requested.activation.activation_id);
    assert_eq!(word(activation.failure), json!("PREVIOUS_KEY_UNPROVEN"));
    server.ask(&phone);
    assert_eq!(phone.answer(&[]).code, 0);
}

#[test]
fn an_unproven_hardware_key_is_refused_or_not_stored_as_the_strategy_says() {
    let server = Server::start(lenient());
    let faults =
        ["--bad-hardware-signature", "--malformed-hardware-signature", "--no-hardware-signature"];
    for fault in faults {
        let state = server.folder.path().join(fault);
        let requested = server.request_activation();
        let ended = server.activate(&state, &requested, &[fault]);
        assert_eq!((ended.code, &ended.out["accepted"]), (1, &json!(false)), "{fault}");
        assert!(!state.exists(), "{fault}");
        let activation = server.activation(requested.activation.activation_id);
        assert_eq!(word(activation.failure), json!("HW_KEY_CHECK_FAILED"), "{fault}");
        assert_eq!(word(activation.risk.hw_key_server_result), json!("KEY_UNPROVEN"), "{fault}");
    }
    server.configure(1, json!({ "hw_key_validation_strategy": "RISK_PARAMS" }));
    for fault in faults {
        let phone = server.phone(fault, &[fault]);
        assert!(server.registration(phone.registration).hardware_key.is_none(), "{fault}");
        let shown = device(&["show"], &phone.state).out;
        assert_eq!(shown["no_hardware_key"], "NOT_ACTIVATED", "{fault}");
        let asked = server.ask(&phone);
        assert_eq!(phone.answer(&[]).code, 0, "{fault}");
        let risk = server.operation(asked).risk;
        assert_eq!(word(risk.hw_key_client_status), json!("NOT_ACTIVATED"), "{fault}");
    }
}

#[test]
fn codes_and_challenges_survive_a_killed_server_between_start_and_finish() {
    use api::device::{ActivationOptions, AuthenticationOptions, Redemption, authenticate_start};
    use api::ports::SystemEntropy;

    let mut server = Server::start(lenient());
    let requested = server.request_activation();
    server.restart();
    let client = Client::new(server.client.server(), None).unwrap();
    let redemption =
        Redemption::by_code(server.application, &requested.code, None, &SystemEntropy).unwrap();
    let started = redemption.start(&client).unwrap();
    server.restart();
    let client = Client::new(server.client.server(), None).unwrap();
    // The same nonce: the same challenge.
    let again = redemption.start(&client).unwrap();
    assert_eq!(started.started().challenge, again.started().challenge);
    let options = ActivationOptions::default();
    let offer = started.offer(client.server(), &options, None, &SystemEntropy).unwrap();
    let phone = offer.finish(&client).unwrap().0.unwrap();
    server.restart();
    let client = Client::new(server.client.server(), None).unwrap();
    // The same body: the same answer.
    assert!(offer.finish(&client).unwrap().1.accepted);

    let state = server.folder.path().join("phone.json");
    api::device::save_new(&phone, &state).unwrap();
    let asked = server.ask(&Phone { state, registration: phone.registration_id() });
    let options = AuthenticationOptions::default();
    let answering = authenticate_start(&client, &phone, &options).unwrap();
    server.restart();
    let client = Client::new(server.client.server(), None).unwrap();
    let outcome = answering.finish(&client, &phone, &options, &SystemEntropy).unwrap();
    assert!(outcome.finished.accepted);
    assert_eq!(server.operation(asked).state, OperationState::Completed);
}

#[test]
fn what_is_asked_wrongly_is_said_before_anything_is_sent() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("phone.json");
    // Nobody listens on port 1: whatever is sent would fail with exit code 1.
    let id = Id([1; 16]).to_string();
    let code = ["activate", "--application", &id, "--code", "0123456789", "--server"];
    let with = |rest: &[&'static str]| {
        device(&code.iter().copied().chain(rest.iter().copied()).collect::<Vec<_>>(), &state)
    };
    assert_eq!(with(&["http://127.0.0.1:1"]).code, 1);
    assert_eq!(with(&["127.0.0.1:1"]).code, 2);
    assert_eq!(with(&["https://127.0.0.1:1"]).code, 2);
    assert_eq!(with(&["http://127.0.0.1:1", "--client-version", "x"]).code, 2);
    assert_eq!(device(&["activate", "--qr", "keytrail:nothing"], &state).code, 2);
    assert_eq!(device(&["authenticate"], &state).code, 2, "nobody to ask");
    assert_eq!(device(&["authenticate", "--yes"], &state).code, 1, "no phone");
    std::fs::write(&state, "in the way").unwrap();
    assert_eq!(with(&["http://127.0.0.1:1"]).code, 2);
    assert_eq!(std::fs::read_to_string(&state).unwrap(), "in the way");
}

#[test]
fn over_tls_only_the_authorities_that_were_named_are_trusted() {
    let folder = tempfile::tempdir().unwrap();
    let certificate = |name: &str| {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let file = folder.path().join(format!("{name}.pem"));
        std::fs::write(&file, made.cert.pem()).unwrap();
        (file, made.signing_key.serialize_pem())
    };
    let (ca, key) = certificate("server");
    let (stranger, _) = certificate("stranger");
    std::fs::write(folder.path().join("key.pem"), key).unwrap();
    let tls = ["--tls-cert", "server.pem", "--tls-key", "key.pem"];
    let server = Server::start_in(folder, lenient(), &tls, Some(&ca));
    assert!(server.client.server().starts_with("https://"));

    let state = server.folder.path().join("phone.json");
    let requested = server.request_activation();
    let code = requested.code.as_str();
    let application = server.application.to_string();
    let words = ["activate", "--application", &application, "--code", code];
    let with = |words: &[&str], ca: &Path| {
        let words = [words, &["--ca", ca.to_str().unwrap()]].concat();
        device(&words, &state)
    };
    let activate = [&words[..], &["--server", server.client.server()]].concat();
    let refused = with(&activate, &stranger);
    assert_eq!(refused.code, 1);
    let message = refused.out["error"]["message"].as_str().unwrap();
    assert!(message.contains("UnknownIssuer") || message.contains("certificate"), "{message}");
    assert_eq!(with(&activate, &ca).code, 0);
    let asked = Phone { state: state.clone(), registration: requested.activation.registration_id };
    server.ask(&asked);
    assert_eq!(with(&["authenticate", "--yes"], &ca).code, 0);
    assert_eq!(device(&["authenticate", "--yes"], &state).code, 2, "nobody to trust");
}

/// A server that redeems a code and then hangs up.
fn hanging_up() -> (String, std::thread::JoinHandle<()>) {
    use api::wire::device::{PinPolicy, StartedActivation};
    use api::wire::{Moment, Octets32};
    use std::io::{Read, Write};

    let started = StartedActivation {
        activation_id: Id([7; 16]),
        registration_id: Id([2; 16]),
        challenge: Octets32([9; 32]),
        expires_at: Moment(engine::ids::Micros(0)),
        again: false,
        methods: Method::ALL.to_vec(),
        pin_policy: PinPolicy {
            length_min: 4,
            length_max: 6,
            kind: engine::reasons::PinType::Numeric,
        },
        expects_hardware_key: true,
        risk_attributes: Vec::new(),
    };
    let body = serde_json::to_string(&started).unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let served = std::thread::spawn(move || {
        let (mut first, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        let mut part = [0; 1024];
        // The body of this request, the only object in it, ends with its brace.
        while !request.ends_with(b"}") {
            let read = first.read(&mut part).unwrap();
            request.extend_from_slice(&part[..read]);
        }
        let length = body.len();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n");
        first.write_all(format!("{head}\r\n{body}").as_bytes()).unwrap();
        drop(first);
        let (mut second, _) = listener.accept().unwrap();
        let read = second.read(&mut part).unwrap();
        assert!(part[..read].starts_with(b"POST /device/v1/activations/"));
    });
    (url, served)
}

#[test]
fn keys_that_may_be_in_force_are_kept_when_the_answer_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("phone.json");
    let (url, served) = hanging_up();
    let application = Id([1; 16]).to_string();
    let words =
        ["activate", "--application", &application, "--code", "0123456789", "--server", &url];
    let ended = device(&words, &state);
    served.join().unwrap();
    assert_eq!(ended.code, 1);
    let message = ended.out["error"]["message"].as_str().unwrap();
    assert!(message.contains("is not known") && message.contains("no answer from"), "{message}");
    assert!(!state.exists());
    let pending = folder.path().join("phone.json.pending");
    assert_eq!(std::fs::metadata(&pending).unwrap().permissions().mode() & 0o7777, 0o600);
    let shown = device(&["show"], &pending);
    assert_eq!(shown.out["registration_id"], word(Id([2; 16])));
    // They are not overwritten, and nothing is sent: nobody listens there any more.
    assert_eq!(device(&words, &state).code, 2);
}

#[test]
fn a_phone_lists_what_waits_confirms_a_number_and_says_why_it_does_not_want_it() {
    let server = Server::start(lenient());
    let phone = server.phone("phone.json", &[]);
    let nothing = device(&["pending"], &phone.state);
    assert_eq!((nothing.code, &nothing.out), (0, &json!({ "operations": [] })));
    let wanted = CreateOperation {
        confirmation: Some(Confirmation::NumberMatching),
        ..CreateOperation::new(phone.registration, Level::OneFactor)
    };
    let ask = || -> Operation {
        server.client.post("/v1/operations", &wanted, Some(&server.provider)).unwrap()
    };
    let asked = ask();
    let listed = device(&["pending", "--wait", "30"], &phone.state).out;
    assert_eq!(listed["operations"][0]["operation_id"], word(asked.operation_id));
    let without = phone.answer(&[]);
    assert_eq!((without.code, &without.out["accepted"]), (2, &json!(false)), "{}", without.out);
    let number = asked.confirmation.unwrap().number;
    let ended = phone.answer(&["--number", &number]);
    assert_eq!((ended.code, &ended.out["state"]), (0, &json!("COMPLETED")), "{}", ended.out);
    let refused = ask();
    let ended = phone.answer(&["--reject", "--reason", "NOT_ME"]);
    assert_eq!((ended.code, &ended.out["reject_reason"]), (0, &json!("NOT_ME")), "{}", ended.out);
    let seen = server.operation(refused.operation_id);
    assert_eq!(seen.attempts[0].reject_reason, Some(RejectReason::NotMe));
}

#[test]
fn a_phone_begins_an_operation_where_the_application_lets_it() {
    let mut configuration = lenient();
    configuration["allow_device_initiated"] = json!(true);
    let server = Server::start(configuration);
    let phone = server.phone("phone.json", &["--pin", "2580"]);
    let ended = phone.answer(&["--begin", "TWO_FACTOR", "--pin", "2580"]);
    assert_eq!((ended.code, &ended.out["state"]), (0, &json!("COMPLETED")), "{}", ended.out);
    let id = ended.out["operation_id"].as_str().unwrap().parse().unwrap();
    assert!(server.operation(id).begun_by_device);
}
