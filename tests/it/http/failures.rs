//! Every kind of failure, over the real server. What all failures have in common
//! is checked wherever an answer is read ([`crate::contract`]).

use std::io::{Read, Write};
use std::net::Shutdown;

use api::wire::admin::ApiKey;
use serde_json::{Value, json};

use super::world::{World, api_key};
use crate::client::{Answer, Request, assert_problem, connect, said};
use crate::contract;

const NO_ID: &str = "018bcfe5-6800-7fff-bfff-0123456789ab";

#[test]
fn paths_queries_and_headers_that_cannot_be_read_are_a_bad_request() {
    let world = World::start();
    let (admin, bank) = (&world.callers.administrator, &world.callers.bank);
    for request in [
        Request::get("/v1/operations/no-id").by(bank),
        Request::get("/v1/operations/018bcfe568007fffbfff0123456789ab").by(bank),
        Request::get("/admin/v1/api-keys?limit=many").by(admin),
        Request::get("/admin/v1/api-keys?limit=0").by(admin),
        Request::get("/admin/v1/api-keys?limit=101").by(admin),
        Request::get("/admin/v1/api-keys?limit=-1").by(admin),
        Request::get("/admin/v1/api-keys?after=x").by(admin),
        Request::get("/admin/v1/api-keys?colour=red").by(admin),
        Request::get("/admin/v1/api-keys?limit=1&limit=2").by(admin),
        Request::post("/v1/operations", &json!({})).by(bank).once("with blanks"),
        Request::post("/v1/operations", &json!({})).by(bank).once(&"a".repeat(256)),
        Request::post("/v1/operations", &json!({})).by(bank).once("a").once("b"),
    ] {
        let answer = world.send(&request);
        assert_problem(&answer, 400, "bad_request");
    }
}

#[test]
fn a_body_that_is_no_json_is_malformed_and_one_of_another_shape_is_pointed_at() {
    let world = World::start();
    let bank = &world.callers.bank;
    let post = |body: &[u8]| {
        let request = Request::new("POST", "/v1/operations").by(bank).octets(body);
        world.send(&request.header("Content-Type", "application/json; charset=utf-8"))
    };
    let deep = "[".repeat(30_000);
    for body in
        [&b""[..], b"{", b"nul", b"{}{}", b"\xef\xbb\xbf{}", b"{\"a\":\"\xff\"}", deep.as_bytes()]
    {
        assert_problem(&post(body), 400, "malformed_json");
    }
    let level = "ONE_FACTOR";
    let valid = json!({ "registration_id": NO_ID, "level": level });
    for (body, pointer) in [
        (json!([]), ""),
        (json!(7), ""),
        (json!({ "level": level }), "/registration_id"),
        (json!({ "registration_id": "x", "level": level }), "/registration_id"),
        (json!({ "registration_id": 7, "level": level }), "/registration_id"),
        (json!({ "registration_id": NO_ID, "level": "THREE_FACTOR" }), "/level"),
        (json!({ "registration_id": NO_ID, "level": level, "colour": 1 }), "/colour"),
        (json!({ "registration_id": NO_ID, "level": level, "methods": ["X"] }), "/methods/0"),
        (json!({ "registration_id": NO_ID, "level": level, "lifetime_s": -1 }), "/lifetime_s"),
        (
            json!({ "registration_id": NO_ID, "level": level, "data_to_sign": "+/==" }),
            "/data_to_sign",
        ),
    ] {
        let answer = post(&serde_json::to_vec(&body).unwrap());
        assert_problem(&answer, 422, "invalid_request");
        let pointers = answer.pointers();
        assert_eq!(pointers.len(), 1, "{body} {pointers:?}");
        assert_eq!(pointers[0].0, pointer, "{body} {pointers:?}");
        assert!(!pointers[0].1.contains("struct ") && !pointers[0].1.is_empty(), "{pointers:?}");
    }
    assert_problem(&post(&serde_json::to_vec(&valid).unwrap()), 404, "not_found");
    let twice = format!(r#"{{"level":"{level}","level":"{level}","registration_id":"{NO_ID}"}}"#);
    assert_problem(&post(twice.as_bytes()), 422, "invalid_request");
}

#[test]
fn unknown_and_invalid_properties_are_all_named_and_none_is_set() {
    let world = World::start();
    let admin = &world.callers.administrator;
    let body = json!({ "name": "a", "service_provider": "my-bank", "configuration": {
        "failures_allowed": 0, "colour": "red", "pin_length_min": 5,
    } });
    let answer = world.send(&Request::post("/admin/v1/applications", &body).by(admin));
    assert_problem(&answer, 422, "invalid_request");
    let names: Vec<_> = answer.pointers().into_iter().map(|(pointer, _)| pointer).collect();
    assert_eq!(names, ["/configuration/colour", "/configuration/failures_allowed"]);

    let path = format!("/admin/v1/applications/{}/configuration", world.callers.application);
    let change = |version: u64, properties: Value| {
        let body = json!({ "version": version, "configuration": properties });
        world.send(&Request::new("PATCH", &path).json(&body).by(admin))
    };
    let answer = change(1, json!({ "pin_length_min": 9, "allowed_methods": ["DEVICE:PIN"] }));
    assert_problem(&answer, 422, "invalid_request");
    assert_problem(&change(2, json!({ "pin_length_min": 9 })), 409, "version_conflict");
    assert_eq!(change(1, json!({ "pin_length_min": 9 })).value()["configuration_version"], 2);
    let answer = change(1, json!({ "pin_length_min": 8 }));
    assert_problem(&answer, 409, "version_conflict");
    assert!(answer.value()["detail"].as_str().unwrap().contains('2'));
}

#[test]
fn no_key_an_unknown_one_a_revoked_one_and_a_wrong_secret_get_the_same_answer() {
    let world = World::start();
    let admin = &world.callers.administrator;
    let made = api_key(world.address(), admin, "AUDITOR", None);
    let (id, bearer) = (made.api_key.api_key_id, made.bearer.unwrap());
    let (id_part, secret) = bearer.rsplit_once('_').map_or(("", ""), |_| bearer.split_at(36));
    assert!(id_part.ends_with('_') && secret.len() == 43, "{id_part}");

    let get = |request: Request| world.send(&request);
    let status = || Request::get("/admin/v1/status");
    assert_problem(&get(status().by(&bearer)), 403, "forbidden");
    let revoke = Request::post(&format!("/admin/v1/api-keys/{id}/revoke"), &json!({})).by(admin);
    assert!(world.send(&revoke).ok::<ApiKey>().revoked);
    assert!(world.send(&revoke).ok::<ApiKey>().revoked, "once more changes nothing");

    let other = |text: &str| text.replacen(|c: char| c.is_ascii_digit(), "x", 1);
    let wrong_secret = format!("{}{}", &admin[..36], other(&"0".repeat(43)).replace('x', "1"));
    let unknown = format!("kt_{}_{}", NO_ID.replace('-', ""), secret);
    let answers = [
        get(status()),
        get(status().by(&unknown)),
        get(status().by(&bearer)),
        get(status().by(&wrong_secret)),
        get(status().by("kt_")),
        get(status().header("Authorization", "Basic !!!")),
        get(status().header("Authorization", "Negotiate abc")),
        get(status().header("Authorization", &"x".repeat(2_000))),
    ];
    for answer in &answers {
        assert_problem(answer, 401, "unauthenticated");
        assert_eq!(answer.all("www-authenticate").count(), 2);
        assert_eq!(said(answer), said(&answers[0]));
    }
    assert!(world.server.said().contains("status=401") && !world.server.said().contains("kt_"));
}

#[test]
fn a_role_is_refused_at_the_endpoints_of_the_others() {
    let world = World::start();
    let admin = &world.callers.administrator;
    let auditor = api_key(world.address(), admin, "AUDITOR", None).bearer.unwrap();
    let mut seen = 0;
    for (method, path) in contract::operations() {
        let owner = match path.split('/').nth(1).unwrap() {
            "admin" => admin,
            "v1" => &world.callers.bank,
            "audit" => &auditor,
            "device" | "healthz" | "readyz" | "openapi.json" | "problems" | ".well-known" => {
                continue;
            }
            other => panic!("a new kind of caller: {other}"),
        };
        for caller in [admin, &world.callers.bank, &auditor] {
            let request = Request::new(
                &method,
                &path.replace("{id}", NO_ID).replace("{event}", "0").replace("{tile}", "0/000"),
            )
            .by(caller);
            let request = if method == "GET" { request } else { request.json(&json!({})) };
            let answer = world.send(&request);
            if caller == owner {
                assert!(![401, 403].contains(&answer.status), "{method} {path}");
            } else {
                seen += 1;
                assert_problem(&answer, 403, "forbidden");
            }
        }
    }
    assert!(seen > 40, "{seen}");
    let revoke = format!("/admin/v1/api-keys/{}/revoke", id_of(admin));
    let answer = world.send(&Request::post(&revoke, &json!({})).by(admin));
    assert_problem(&answer, 409, "revokes_itself");
}

/// The id in a Bearer key, as a UUID.
fn id_of(bearer: &str) -> String {
    let digits = &bearer[3..35];
    let parts = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]];
    parts.join("-")
}

#[test]
fn another_service_providers_things_do_not_exist() {
    let world = World::start();
    let side = world.side();
    let phone = side.phone(&api::device::ActivationOptions::default());
    let operation = side.operation(&phone).operation_id;
    let admin = &world.callers.administrator;
    let other =
        api_key(world.address(), admin, "SERVICE_PROVIDER", Some("other-bank")).bearer.unwrap();
    let activation = side.request_activation().activation.activation_id;
    let registration = phone.registration_id();
    let records = side.status().records;
    for (method, path, body) in [
        ("GET", format!("/v1/operations/{operation}"), None),
        ("GET", format!("/v1/registrations/{registration}"), None),
        ("GET", format!("/v1/activations/{activation}"), None),
        ("POST", format!("/v1/operations/{operation}/cancel"), Some(json!({}))),
        ("POST", format!("/v1/activations/{activation}/cancel"), Some(json!({}))),
        ("POST", format!("/v1/registrations/{registration}/activations"), Some(json!({}))),
        (
            "POST",
            format!("/v1/registrations/{registration}/lock"),
            Some(json!({ "reason": "OTHER" })),
        ),
        ("POST", format!("/v1/registrations/{registration}/unlock"), Some(json!({}))),
        (
            "POST",
            format!("/v1/registrations/{registration}/deactivate"),
            Some(json!({ "reason": "OTHER" })),
        ),
        (
            "POST",
            "/v1/operations".to_owned(),
            Some(json!({ "registration_id": registration, "level": "ONE_FACTOR" })),
        ),
        (
            "POST",
            "/v1/activations".to_owned(),
            Some(json!({ "application_id": world.callers.application, "user_ref": "anna" })),
        ),
    ] {
        let request = Request::new(method, &path).by(&other);
        let request = body.map_or(request.clone(), |body| request.json(&body));
        let answer = world.send(&request);
        assert_problem(&answer, 404, "not_found");
        let unknown = path.replace(&registration.to_string(), NO_ID);
        let unknown = unknown.replace(&operation.to_string(), NO_ID);
        let unknown = Request { path: unknown.replace(&activation.to_string(), NO_ID), ..request };
        assert_eq!(said(&answer), said(&world.send(&unknown)), "{path}");
    }
    assert_eq!(side.status().records, records, "nothing was appended");
}

#[test]
fn an_unknown_path_is_404_and_a_known_one_with_another_method_405_with_allow() {
    let world = World::start();
    for path in ["/", "/v1", "/v1/operations/", "/admin/v2/status", "/%2e%2e/healthz", "/healthz/x"]
    {
        assert_problem(&world.send(&Request::get(path)), 404, "not_found");
    }
    let mut paths: Vec<String> = contract::operations().into_iter().map(|(_, path)| path).collect();
    paths.dedup();
    for path in paths {
        // No path has this method.
        let answer = world.send(&Request::new("PUT", &path.replace("{id}", NO_ID)));
        assert_problem(&answer, 405, "method_not_allowed");
        let mut allowed: Vec<_> = answer.header("allow").unwrap().split(", ").collect();
        allowed.sort_unstable();
        let documented = contract::operations().into_iter().filter(|(_, of)| *of == path);
        let mut documented: Vec<_> = documented.map(|(method, _)| method).collect();
        documented.sort_unstable();
        assert_eq!(allowed, documented, "{path}");
    }
    let odd = Request::new("BREW", "/healthz");
    assert_problem(&world.send(&odd), 405, "method_not_allowed");
}

#[test]
fn only_plain_json_in_utf_8_is_read() {
    let world = World::start();
    let bank = &world.callers.bank;
    let post = |headers: &[(&str, &str)]| {
        let request = Request::new("POST", "/v1/operations").by(bank).octets(b"{}");
        world.send(
            &headers.iter().fold(request, |request, (name, value)| request.header(name, value)),
        )
    };
    for headers in [
        &[][..],
        &[("Content-Type", "text/plain")],
        &[("Content-Type", "application/x-www-form-urlencoded")],
        &[("Content-Type", "application/json; charset=latin1")],
        &[("Content-Type", "application/json"), ("Content-Encoding", "gzip")],
        &[("Content-Type", "application/problem+json")],
    ] {
        assert_problem(&post(headers), 415, "unsupported_media_type");
    }
    assert_problem(&post(&[("Content-Type", "application/json")]), 422, "invalid_request");
}

#[test]
fn a_body_beyond_the_limit_is_413_announced_or_not() {
    let world = World::start();
    let bank = &world.callers.bank;
    let long = format!("{{\"a\":\"{}\"}}", "x".repeat(65_536));
    let request = Request::new("POST", "/v1/operations").by(bank);
    let request = request.header("Content-Type", "application/json");
    let announced = request.clone().octets(long.as_bytes());
    assert_problem(&world.send(&announced), 413, "payload_too_large");

    let mut chunks = Vec::new();
    for chunk in long.as_bytes().chunks(16_384) {
        chunks.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
        chunks.extend(chunk);
        chunks.extend(b"\r\n");
    }
    chunks.extend(b"0\r\n\r\n");
    let chunked = request.clone().header("Transfer-Encoding", "chunked").octets(&chunks);
    assert_problem(&world.send(&chunked), 413, "payload_too_large");

    let fits = "x".repeat(65_536 - 8);
    let fits = request.octets(format!("{{\"a\":\"{fits}\"}}").as_bytes());
    assert_eq!(fits.body.len(), 65_536);
    assert_problem(&world.send(&fits), 422, "invalid_request");
}

#[test]
fn a_body_that_ends_early_is_a_bad_request_and_does_nothing() {
    let world = World::start();
    let records = world.side().status().records;
    let body = json!({ "role": "AUDITOR", "name": "half" });
    let request = Request::post("/admin/v1/api-keys", &body).by(&world.callers.administrator);
    let mut stream = connect(world.address());
    let octets = request.octets_on_the_wire();
    stream.write_all(&octets[..octets.len() - 3]).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut octets = Vec::new();
    stream.read_to_end(&mut octets).unwrap();
    // To a client that hung up an answer is owed no more; if there is one, it is a problem.
    if let Some(answer) = Answer::parse(&octets, false) {
        contract::check(&request, &answer);
        assert_problem(&answer, 400, "bad_request");
    }
    assert_eq!(world.side().status().records, records);
}

#[test]
fn a_code_of_the_table_is_explained_and_no_other() {
    let world = World::start();
    for code in api::problem::Code::ALL {
        let answer = world.send(&Request::get(&format!("/problems/{}", code.entry().code)));
        assert_eq!(answer.value()["meaning"], code.entry().meaning);
    }
    assert_problem(&world.send(&Request::get("/problems/none")), 404, "not_found");
}

#[test]
fn the_correlation_id_of_the_caller_is_taken_over_if_it_is_sane() {
    let world = World::start();
    let sane = Request::get("/nowhere").header("X-Correlation-Id", "order-4711");
    assert_eq!(world.send(&sane).value()["instance"], "order-4711");
    let hostile = Request::get("/nowhere").header("x-correlation-id", "a\"b</script>");
    let answer = world.send(&hostile);
    assert_eq!(answer.header("x-correlation-id").unwrap().len(), 36);
}
