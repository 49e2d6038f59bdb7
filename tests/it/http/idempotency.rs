//! `Idempotency-Key`: one effect, the same answer, also after a restart.

use api::device::{ActivationOptions, AuthenticationOptions, Redemption, activate};
use api::wire::provider::RequestedActivation;
use engine::ids::Id;
use serde_json::{Value, json};

use super::world::{BANK, CHANCE, Side, World, api_key};
use crate::client::{Answer, Request, assert_problem};

/// A request that changes state, under an idempotency key, and its first answer.
struct Asked {
    request: Request,
    answer: Answer,
}

fn asked(world: &World, request: Request) -> Asked {
    let answer = world.send(&request);
    assert!((200..300).contains(&answer.status), "{} {}", request.path, answer.text());
    Asked { request, answer }
}

/// Every POST, PATCH and DELETE that changes state for the holder of an API key, once.
fn everything(world: &World) -> Vec<Asked> {
    let side = world.side();
    let (admin, bank) = (&world.callers.administrator, &world.callers.bank);
    let application = world.callers.application;
    let phones = [(); 3].map(|()| side.phone(&ActivationOptions::default()).registration_id());
    let spare = api_key(world.address(), admin, "AUDITOR", None).api_key.api_key_id;
    let operation = |phone: Id| json!({ "registration_id": phone, "level": "ONE_FACTOR" });
    let waits = side.bank_posts("/v1/operations", &operation(phones[0])).value();
    let waits = waits["operation_id"].as_str().unwrap().to_owned();
    let activation = side.request_activation().activation.activation_id;
    let post = |key: &str, by: &str, path: String, body: Value| {
        asked(world, Request::post(&path, &body).by(by).once(key))
    };
    let because = json!({ "reason": "DEVICE_LOST" });
    let registration = |id: Id, what: &str| format!("/v1/registrations/{id}/{what}");
    let key = json!({ "role": "SERVICE_PROVIDER", "service_provider": BANK, "name": "k" });
    let named = json!({ "name": "again", "service_provider": BANK });
    let user = json!({ "application_id": application, "user_ref": "berta" });
    let carla = json!({ "application_id": application, "user_ref": "carla" });
    let carla: RequestedActivation = side.bank_posts("/v1/activations", &carla).ok();
    let withdrawn = format!("/v1/activations/{}/cancel", carla.activation.activation_id);
    assert_eq!(side.bank_posts(&withdrawn, &json!({})).status, 200);
    let dora = json!({ "application_id": application, "user_ref": "dora", "level": "ONE_FACTOR" });
    phone_of(&side, "dora");
    let properties = json!({ "version": 1, "configuration": { "failures_allowed": 5 } });
    let patch = format!("/admin/v1/applications/{application}/configuration");
    let revoked = json!({ "entries": { "c35747a084470c31": { "status": "REVOKED" } } });
    vec![
        post("k1", admin, "/admin/v1/api-keys".into(), key),
        post("k2", admin, format!("/admin/v1/api-keys/{spare}/revoke"), json!({})),
        post("k3", admin, "/admin/v1/applications".into(), named),
        asked(world, Request::new("PATCH", &patch).json(&properties).by(admin).once("k4")),
        post("k5", bank, "/v1/activations".into(), user),
        post("k6", bank, registration(phones[1], "activations"), json!({})),
        post("k7", bank, format!("/v1/activations/{activation}/cancel"), json!({})),
        post("k8", bank, "/v1/operations".into(), operation(phones[0])),
        post("k9", bank, format!("/v1/operations/{waits}/cancel"), json!({})),
        post("k10", bank, registration(phones[1], "lock"), because.clone()),
        post("k11", bank, registration(phones[1], "unlock"), json!({})),
        post("k12", bank, registration(phones[2], "deactivate"), because),
        asked(world, Request::new("DELETE", "/v1/users/carla").by(bank).once("k13")),
        post("k14", bank, "/v1/broadcasts".into(), dora.clone()),
        post("k16", admin, "/admin/v1/clock/confirm".into(), json!({})),
        post("k15", bank, withdrawn_broadcast(&side, &dora), json!({})),
        post("k17", admin, "/admin/v1/attestation/revocation-list".into(), revoked),
    ]
}

/// Activates a phone for a user of its own.
fn phone_of(side: &Side, user_ref: &str) {
    let application = side.callers.application;
    let body = json!({ "application_id": application, "user_ref": user_ref });
    let requested: RequestedActivation = side.bank_posts("/v1/activations", &body).ok();
    let redemption = Redemption::by_code(application, &requested.code, None, CHANCE).unwrap();
    let options = ActivationOptions::default();
    activate(&side.client, &redemption, &options, None, CHANCE).unwrap();
}

/// Where a broadcast of its own is withdrawn.
fn withdrawn_broadcast(side: &Side, body: &Value) -> String {
    let made = side.bank_posts("/v1/broadcasts", body).value();
    format!("/v1/broadcasts/{}/cancel", made["broadcast_id"].as_str().unwrap())
}

/// The present answer to what was asked before: the same, but that a secret is
/// not shown twice, and that state has moved on where it has.
#[track_caller]
fn assert_repeated(world: &World, asked: &Asked) {
    let again = world.send(&asked.request);
    assert_eq!(again.status, asked.answer.status, "{} {}", asked.request.path, again.text());
    if again.status == 204 {
        return;
    }
    let first = asked.answer.value();
    let (mut first, again) = (first, again.value());
    match asked.request.path.rsplit('/').next().unwrap() {
        "api-keys" => {
            assert_eq!(first["repeated"], false);
            assert!(first["secret"].is_string() && first["bearer"].is_string());
            let members = first.as_object_mut().unwrap();
            members.remove("secret");
            members.remove("bearer");
            members.insert("repeated".into(), true.into());
            assert_eq!(again, first, "the secret is shown once");
        }
        // The registration was unlocked meanwhile, and the answer says how it is.
        "lock" => {
            assert_eq!(again["registration_id"], first["registration_id"]);
            assert_eq!(again["state"], "ACTIVE");
        }
        // The lock cancelled it, so its code is dead; it is shown all the same.
        "activations" if first["again"] == true => {
            for member in ["activation_id", "code", "qr_payload"] {
                assert_eq!(again[member], first[member]);
            }
            assert_eq!(again["state"], "CANCELLED");
        }
        _ => assert_eq!(again, first, "{}", asked.request.path),
    }
}

#[test]
fn every_request_that_changes_state_can_be_repeated_also_after_a_restart() {
    let world = World::start();
    let everything = everything(&world);
    let documented = crate::contract::operations().into_iter().filter(|(method, path)| {
        let operation = crate::contract::operation(method, path).unwrap();
        let params = operation["parameters"].as_array();
        params.is_some_and(|all| all.iter().any(|param| param["name"] == "Idempotency-Key"))
    });
    assert_eq!(documented.count(), everything.len(), "none was forgotten");

    let records = world.side().status().records;
    everything.iter().for_each(|asked| assert_repeated(&world, asked));
    assert_eq!(world.side().status().records, records, "a repeat appends nothing");
    let world = world.restart();
    // The stop may have written counts.
    let records = world.side().status().records;
    everything.iter().for_each(|asked| assert_repeated(&world, asked));
    assert_eq!(world.side().status().records, records, "nor does one after a restart");

    // The code that was repeated is the code that works.
    let code = everything[4].answer.value()["code"].as_str().unwrap().to_owned();
    let body = json!({
        "application_id": world.callers.application, "code": code,
        "nonce": "A".repeat(43), "client_version": "3.8.0",
    });
    assert_eq!(world.send(&Request::post("/device/v1/activations/start", &body)).status, 200);
    world.stop_and_verify();
}

#[test]
fn a_key_stands_for_one_request_of_one_caller() {
    let world = World::start();
    let side = world.side();
    let phone = side.phone(&ActivationOptions::default()).registration_id();
    let other =
        api_key(world.address(), &world.callers.administrator, "SERVICE_PROVIDER", Some(BANK));
    let (bank, other) = (&world.callers.bank, other.bearer.unwrap());
    let body = |lifetime_s: u32| json!({ "registration_id": phone, "level": "ONE_FACTOR", "lifetime_s": lifetime_s });
    let create = |by: &str, body: &Value| {
        world.send(&Request::post("/v1/operations", body).by(by).once("order-1"))
    };
    let first = create(bank, &body(60)).value();
    for (path, body) in [
        ("/v1/operations".to_owned(), body(61)),
        (
            "/v1/activations".into(),
            json!({ "application_id": world.callers.application, "user_ref": "a" }),
        ),
        (format!("/v1/registrations/{phone}/unlock"), json!({})),
    ] {
        let reused = world.send(&Request::post(&path, &body).by(bank).once("order-1"));
        assert_problem(&reused, 422, "idempotency_key_reused");
    }
    // The same octets count, not the same meaning.
    let spaced = Request::new("POST", "/v1/operations").by(bank).once("order-1");
    let spaced = spaced.header("Content-Type", "application/json");
    let text = format!(" {}", body(60));
    let answer = world.send(&spaced.octets(text.as_bytes()));
    assert_problem(&answer, 422, "idempotency_key_reused");

    let others = create(&other, &body(60)).value();
    assert_ne!(others["operation_id"], first["operation_id"], "another API key, another request");
    assert_eq!(create(bank, &body(60)).value(), first);
    let unkeyed = || side.bank_posts("/v1/operations", &body(60)).value()["operation_id"].clone();
    assert_ne!(unkeyed(), unkeyed(), "without a key each request is another");
}

#[test]
fn a_request_that_was_refused_may_be_tried_again_under_its_key() {
    let world = World::start();
    let side = world.side();
    let phone = side.phone(&ActivationOptions::default());
    let create = || {
        let body = json!({ "registration_id": phone.registration_id(), "level": "ONE_FACTOR" });
        Request::post("/v1/operations", &body).by(&world.callers.bank).once("once")
    };
    let lock = format!("/v1/registrations/{}/lock", phone.registration_id());
    side.bank_posts(&lock, &json!({ "reason": "OTHER" })).ok::<Value>();
    assert_problem(&world.send(&create()), 409, "registration_state");
    side.bank_posts(&lock.replace("/lock", "/unlock"), &json!({})).ok::<Value>();
    let made = world.send(&create());
    assert_eq!(made.status, 201, "nothing had happened, so nothing is repeated");

    // A repeat shows how the operation is now, not how it was.
    let outcome = api::device::authenticate(
        &side.client,
        &phone,
        &AuthenticationOptions::default(),
        super::world::CHANCE,
    );
    assert!(outcome.unwrap().finished.accepted);
    let again = world.send(&create()).value();
    assert_eq!(again["operation_id"], made.value()["operation_id"]);
    assert_eq!(again["state"], "COMPLETED");
}
