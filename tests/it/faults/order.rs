//! No answer leaves before the `fdatasync` that covers its record has returned:
//! seen from outside, at the system calls of the real server.

use std::process::Command;

use api::device::{
    ActivationOptions, AuthenticationOptions, HardwareFault, Redemption, authenticate_start,
};
use api::ports::SystemEntropy;
use api::wire::Octets32;
use engine::ids::Id;
use engine::machine::{Entropy, random};
use serde::Serialize;
use serde_json::{Value, json};

use super::trace;
use crate::client::Request;
use crate::http::world::CHANCE;
use crate::server::{Launch, Server};

/// Whether system calls can be watched here. Where they must be, they can.
fn can_watch() -> bool {
    let tried = Command::new("strace").args(["-f", "-o", "/dev/null", "true"]).output();
    let can = tried.is_ok_and(|output| output.status.success());
    let must = std::env::var_os("KEYTRAIL_REQUIRE_STRACE").is_some_and(|value| value == "1");
    assert!(can || !must, "strace is required here and cannot be used");
    can
}

/// A client that sends one request after the other, each with an id of its own.
struct Steps {
    server: Server,
    done: Vec<(Id, String)>,
}

impl Steps {
    /// Sends a request and remembers its correlation id.
    fn step(&mut self, request: Request) -> Value {
        let correlation = Id(random(&SystemEntropy));
        let named = request.header("X-Correlation-Id", &correlation.to_string());
        let answer = named.send(self.server.address);
        assert!((200..300).contains(&answer.status), "{} {}", named.path, answer.text());
        self.done.push((correlation, named.path));
        answer.value()
    }

    fn post(&mut self, path: &str, body: &impl Serialize, by: Option<&str>) -> Value {
        let request = Request::post(path, body);
        self.step(match by {
            Some(key) => request.by(key),
            None => request,
        })
    }
}

/// Gives bytes that the test knows.
struct Sevens;

impl Entropy for Sevens {
    fn fill(&self, out: &mut [u8]) {
        out.fill(7);
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

/// Everything that appends a record, one after the other.
fn run(steps: &mut Steps) {
    let admin = steps.server.administrator();
    let key = json!({ "role": "SERVICE_PROVIDER", "service_provider": "bank", "name": "k" });
    let bank = text(&steps.post("/admin/v1/api-keys", &key, Some(&admin))["bearer"]);
    let application = json!({ "name": "app", "service_provider": "bank" });
    let application = steps.post("/admin/v1/applications", &application, Some(&admin));
    let application = text(&application["application_id"]);
    let path = format!("/admin/v1/applications/{application}/configuration");
    let change = json!({ "version": 1, "configuration": { "failures_allowed": 5 } });
    steps.step(Request::new("PATCH", &path).json(&change).by(&admin));

    let user = json!({ "application_id": application, "user_ref": "anna" });
    let requested = steps.post("/v1/activations", &user, Some(&bank));
    let code = text(&requested["code"]);
    let start = json!({
        "application_id": application, "code": code, "client_version": "3.8.0",
        "nonce": Octets32([7; 32]),
    });
    steps.post("/device/v1/activations/start", &start, None);
    // The same once more changes nothing; it is the phone's own way in.
    let redemption =
        Redemption::by_code(application.parse().unwrap(), &code, None, &Sevens).unwrap();
    let activating = redemption.start(&steps.server.client()).unwrap();
    let options = ActivationOptions::default();
    let offer = activating.offer(&steps.server.url, &options, None, CHANCE).unwrap();
    let path = format!("/device/v1/activations/{}/finish", text(&requested["activation_id"]));
    assert_eq!(steps.post(&path, offer.body(), None)["accepted"], true);
    let (phone, token) = (offer.phone().clone(), offer.body().device_token);

    let registration = phone.registration_id();
    let operation = json!({ "registration_id": registration, "level": "ONE_FACTOR" });
    for fault in [None, Some(HardwareFault::BadSignature), None] {
        let created = steps.post("/v1/operations", &operation, Some(&bank));
        let id = text(&created["operation_id"]);
        let start = json!({
            "registration_id": registration, "operation_id": id, "device_token": token,
            "client_version": "3.8.0",
        });
        steps.post("/device/v1/operations/start", &start, None);
        let operation = Some(id.parse().unwrap());
        let mut options = AuthenticationOptions { operation, ..Default::default() };
        options.misbehaviour.hardware = fault;
        let started = authenticate_start(&steps.server.client(), &phone, &options).unwrap();
        let body = started.answer(&phone, &options, CHANCE).unwrap();
        let judged = steps.post(&format!("/device/v1/operations/{id}/finish"), &body, None);
        assert_eq!(judged["accepted"], fault.is_none());
        if fault.is_some() {
            steps.post(&format!("/v1/operations/{id}/cancel"), &json!({}), Some(&bank));
        }
    }
    let lock = format!("/v1/registrations/{registration}/lock");
    steps.post(&lock, &json!({ "reason": "OTHER" }), Some(&bank));
    let over = format!("/v1/registrations/{registration}/deactivate");
    steps.post(&over, &json!({ "reason": "OTHER" }), Some(&bank));
}

#[test]
fn no_answer_leaves_before_the_sync_of_its_record_has_returned() {
    if !can_watch() {
        println!("skipped: strace cannot be used here");
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let seen = home.path().join("trace");
    let only = format!("trace={}", trace::CALLS);
    let launch = Launch::on(&home.path().join("data")).under([
        "strace",
        "-f",
        "-x",
        "-y",
        "-s",
        "65536",
        "-e",
        &only,
        "-e",
        "signal=none",
        "-o",
        seen.to_str().unwrap(),
    ]);
    let mut steps = Steps { server: launch.start(), done: Vec::new() };
    run(&mut steps);
    let Steps { server, done } = steps;
    server.stop();
    assert!(done.len() > 15, "{}", done.len());
    let calls = trace::calls(&std::fs::read_to_string(&seen).unwrap());
    for (correlation, path) in done {
        let order = trace::answered_after_its_sync(&calls, correlation);
        assert_eq!(order, Ok(()), "{path} ({correlation})");
    }
    crate::http::world::verified(&home.path().join("data"));
}
