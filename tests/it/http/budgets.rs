//! Wrong activation codes: budgets, and the length that they demand of a code.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use engine::events::{CodeBudgetExhaustedV1, Event};
use engine::reasons::BudgetScope;
use replay::inspect::Filter;
use serde_json::{Value, json};
use storage::disk::RealDisk;

use super::world::{Callers, Side, World};
use crate::client::{Answer, Request, assert_problem};
use crate::history::Counter;
use crate::server::{InProcess, Launch};

/// Tries to redeem `code`, as if it came from `source` through a proxy.
fn guess(side: &Side, code: &str, source: &str) -> Answer {
    let body = json!({
        "application_id": side.callers.application, "code": code,
        "nonce": "A".repeat(43), "client_version": "3.8.0",
    });
    let request = Request::post("/device/v1/activations/start", &body);
    request.header("X-Forwarded-For", source).send(side.address)
}

/// The used-up budgets that a stopped server's log tells of.
fn exhausted(data: &Path) -> Vec<CodeBudgetExhaustedV1> {
    let mut found = Vec::new();
    let filter = Filter { types: vec!["CodeBudgetExhausted".into()], ..Filter::default() };
    let mut keep = |row: replay::inspect::Row| {
        if let Ok(Event::CodeBudgetExhausted(event)) = row.event {
            found.push(*event);
        }
        ControlFlow::Continue(())
    };
    replay::inspect(data, &filter, &mut keep).unwrap();
    found
}

#[track_caller]
fn assert_limited(answer: &Answer, within_s: u64) {
    assert_problem(answer, 429, "too_many_requests");
    let seconds: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=within_s).contains(&seconds), "{seconds}");
}

#[test]
fn each_budget_that_is_used_up_is_one_event_and_then_429() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data");
    let launch = Launch::on(&data).switch("--insecure-behind-proxy");
    let server = launch.start();
    let configuration = json!({
        "activation_failure_budget": 5, "activation_failure_budget_per_source": 2,
    });
    let callers = Callers::set_up(server.address, server.administrator(), configuration);
    let side = Side { address: server.address, callers: &callers, client: server.client() };
    let (right, waiting) = (side.request_activation(), side.request_activation());

    let wrong = |source: &str| guess(&side, "0000000000", source);
    assert_problem(&wrong("192.0.2.1"), 404, "activation_not_found");
    assert_problem(&wrong("192.0.2.1"), 404, "activation_not_found");
    assert_limited(&wrong("192.0.2.1"), 600);
    assert_limited(&guess(&side, &right.code, "192.0.2.1"), 600);
    assert_eq!(guess(&side, &right.code, "192.0.2.2").status, 200, "others go on");
    assert_problem(&wrong("192.0.2.3"), 404, "activation_not_found");
    assert_problem(&wrong("192.0.2.4"), 404, "activation_not_found");
    assert_problem(&wrong("192.0.2.5"), 404, "activation_not_found");
    for last in 6..=9 {
        assert_limited(&guess(&side, &waiting.code, &format!("192.0.2.{last}")), 600);
    }
    let application = format!("/admin/v1/applications/{}", callers.application);
    let application = Request::get(&application).by(&callers.administrator);
    assert!(application.send(side.address).value()["codes_refused_until"].is_string());

    // Nobody guesses 128 bits, so those who scan are not kept out.
    let payload: api::wire::QrPayload = waiting.qr_payload.parse().unwrap();
    let redemption = api::device::Redemption::by_qr(&payload, None, super::world::CHANCE);
    server.stop();

    // Memory is gone; what the log says of the application holds.
    let server = launch.start();
    let side = Side { address: server.address, callers: &callers, client: server.client() };
    assert_limited(&guess(&side, "0000000000", "192.0.2.10"), 600);
    redemption.unwrap().start(&side.client).unwrap();
    server.stop();
    let scopes: Vec<_> =
        exhausted(&data).iter().map(|event| (event.scope, event.failures)).collect();
    assert_eq!(scopes, [(BudgetScope::Source, 2), (BudgetScope::Application, 5)]);
    super::world::verified(&data);
}

#[test]
fn a_budget_is_there_again_when_its_window_ends_and_the_next_window_has_its_own_event() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data");
    let clock = Counter::at(1_700_000_000_000_000);
    let server = InProcess::start(&data, Arc::clone(&clock) as _, Arc::new(RealDisk));
    let administrator = server.administrator.clone().unwrap();
    let configuration = json!({
        "activation_failure_budget_per_source": 2, "activation_failure_window_s": 60,
    });
    let callers = Callers::set_up(server.address, administrator, configuration);
    let side = Side { address: server.address, callers: &callers, client: server.client() };
    let wrong = || guess(&side, "0000000000", "");
    for _ in 0..2 {
        assert_problem(&wrong(), 404, "activation_not_found");
        assert_problem(&wrong(), 404, "activation_not_found");
        let limited = wrong();
        assert_limited(&limited, 60);
        assert_eq!(limited.header("retry-after"), Some("60"));
        clock.pass_s(59);
        assert_eq!(wrong().header("retry-after"), Some("1"));
        clock.pass_s(1);
    }
    assert_problem(&wrong(), 404, "activation_not_found");
    drop(side);
    server.stop();
    assert_eq!(exhausted(&data).len(), 2);
}

#[test]
fn a_code_that_would_be_guessed_too_easily_is_refused_with_the_length_that_is_needed() {
    // 10^6 codes against a budget of 100 guesses and the bound of one in 10,000:
    // one code may wait, a second would make guessing too easy.
    let world = World::with(json!({ "activation_code_length": 6 }));
    let side = world.side();
    let body = json!({ "application_id": world.callers.application, "user_ref": "anna" });
    let first: Value = side.bank_posts("/v1/activations", &body).ok();
    assert_eq!(first["code"].as_str().unwrap().len(), 6);
    let refused = side.bank_posts("/v1/activations", &body);
    assert_problem(&refused, 409, "code_too_short");
    let detail = refused.value()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("activation_code_length must be at least 7"), "{detail}");

    side.configure(json!({ "activation_code_length": 7 }));
    let longer: Value = side.bank_posts("/v1/activations", &body).ok();
    assert_eq!(longer["code"].as_str().unwrap().len(), 7);
    // A code that no longer waits makes room again.
    let cancel = format!("/v1/activations/{}/cancel", longer["activation_id"].as_str().unwrap());
    side.bank_posts(&cancel, &json!({})).ok::<Value>();
    side.configure(json!({ "activation_code_length": 6 }));
    assert_problem(&side.bank_posts("/v1/activations", &body), 409, "code_too_short");
    let cancel = format!("/v1/activations/{}/cancel", first["activation_id"].as_str().unwrap());
    side.bank_posts(&cancel, &json!({})).ok::<Value>();
    side.bank_posts("/v1/activations", &body).ok::<Value>();
}

#[test]
fn made_up_applications_share_one_count_and_leave_the_real_ones_theirs() {
    let home = tempfile::tempdir().unwrap();
    let server = Launch::on(&home.path().join("data")).start();
    let callers = Callers::set_up(server.address, server.administrator(), json!({}));
    let side = Side { address: server.address, callers: &callers, client: server.client() };
    let budget = engine::config::Config::default().activation_failure_budget_per_source;
    for number in 0..=budget {
        let body = json!({
            "application_id": format!("018bcfe5-6800-7fff-bfff-{number:012x}"),
            "code": "0000000000", "nonce": "A".repeat(43), "client_version": "3.8.0",
        });
        let answer = Request::post("/device/v1/activations/start", &body).send(side.address);
        if number < budget {
            assert_problem(&answer, 404, "activation_not_found");
        } else {
            assert_limited(&answer, 600);
        }
    }
    let right = side.request_activation();
    assert_eq!(guess(&side, &right.code, "192.0.2.1").status, 200);
    server.stop();
}
