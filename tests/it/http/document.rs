//! The OpenAPI document and the server that answers are about the same thing.
//! Bodies are held to the document wherever a test gets one ([`crate::contract`]).

use serde_json::{Value, json};

use super::world::{World, api_key};
use crate::client::{Request, assert_problem};
use crate::contract;

#[test]
fn the_server_serves_the_document_and_answers_everything_in_it() {
    let world = World::start();
    let served = world.send(&Request::get("/openapi.json")).value();
    assert_eq!(served, *contract::DOCUMENT);
    assert_eq!(served["openapi"], "3.1.0");
    let operations = contract::operations();
    assert!(operations.len() >= 29, "{}", operations.len());
    for (method, path) in operations {
        let concrete = path.replace("{id}", "018bcfe5-6800-7fff-bfff-0123456789ab");
        let concrete = concrete.replace("{code}", "not_found");
        let request = Request::new(&method, &concrete);
        let request = if method == "GET" { request } else { request.json(&json!({})) };
        let answer = world.send(&request);
        let open = contract::operation(&method, &path).unwrap()["security"] == json!([{}]);
        // Devices and health need no API key; all others say so, and nothing else.
        let asks_for_a_key = answer.status == 401;
        assert_eq!(asks_for_a_key, !open, "{method} {path}: {}", answer.status);
        assert!(![404, 405].contains(&answer.status), "{method} {path}: {}", answer.status);
    }
}

#[test]
fn an_auditor_reads_every_event_and_nothing_that_is_sealed() {
    let world = World::start();
    let side = world.side();
    let phone = side.phone(&api::device::ActivationOptions::default());
    side.log_in(&phone, &api::device::AuthenticationOptions::default());
    let administrator = &world.callers.administrator;
    let auditor = api_key(world.address(), administrator, "AUDITOR", None).bearer.unwrap();
    let get = |path: &str| world.send(&Request::get(path).by(&auditor));
    let end = side.status().records;
    let (mut next, mut seen) = (0, Vec::new());
    while next < end {
        let page = get(&format!("/audit/v1/events?limit=5&from={next}")).value();
        assert_eq!(page["end"], end);
        seen.extend(page["items"].as_array().unwrap().iter().cloned());
        next = page["next"].as_u64().unwrap();
    }
    let positions: Vec<_> = seen.iter().map(|event| event["position"].as_u64().unwrap()).collect();
    assert_eq!(positions, (0..end).collect::<Vec<_>>());
    assert!(!json!(seen).to_string().contains("anna"), "the user's name is sealed");
    let judged = get("/audit/v1/events?type=AuthenticationJudged").value();
    assert_eq!(judged["items"].as_array().unwrap().len(), 1);
    assert_eq!(get("/audit/v1/checkpoint-key").status, 200);
    for query in ["limit=0", "limit=1001", "wait_s=31", "type=Nothing", "colour=1", "from=x"] {
        let refused = get(&format!("/audit/v1/events?{query}"));
        assert_problem(&refused, 400, "bad_request");
    }
}

#[test]
fn the_command_line_prints_the_same_document() {
    let printed = std::process::Command::new(env!("CARGO_BIN_EXE_keytrail-tested"))
        .arg("openapi")
        .output()
        .unwrap();
    assert!(printed.status.success());
    let printed: Value = serde_json::from_slice(&printed.stdout).unwrap();
    assert_eq!(printed, *contract::DOCUMENT);
}

#[test]
fn the_check_of_bodies_finds_what_is_missing_unknown_or_unlisted() {
    let schema = json!({ "$ref": "#/components/schemas/Status" });
    let sane = json!({
        "origin": "a", "records": 1, "read_only": false, "clock_suspended": false,
        "signatures_checked": 0, "commands_refused": 0, "commands_failed": 0,
    });
    assert_eq!(contract::faults(&schema, &sane), Vec::<String>::new());
    let changed = |change: fn(&mut Value)| {
        let mut value = sane.clone();
        change(&mut value);
        contract::faults(&schema, &value)
    };
    assert_eq!(changed(|v| v["colour"] = json!(1)), ["/colour: is not documented"]);
    assert_eq!(changed(|v| v["records"] = json!("1")), ["/records: is no \"integer\""]);
    assert_eq!(
        changed(|v| drop(v.as_object_mut().unwrap().remove("origin"))),
        [": origin is missing"]
    );
    let word = json!({ "$ref": "#/components/schemas/Level" });
    assert_eq!(contract::faults(&word, &json!("ONE")), [": \"ONE\" is no listed word"]);
    // Parts of a whole count together.
    let whole = json!({ "$ref": "#/components/schemas/RequestedActivation" });
    let missing = contract::faults(&whole, &json!({ "code": "1", "qr_payload": "2" }));
    assert!(missing.iter().any(|fault| fault.contains("activation_id is missing")), "{missing:?}");
    let id = json!({ "$ref": "#/components/schemas/Uuid" });
    assert_eq!(contract::faults(&id, &json!("x")), [": no UUID"]);
}
