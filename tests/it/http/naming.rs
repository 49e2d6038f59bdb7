//! Names of devices over HTTP: told to whom they belong, nowhere in clear, and
//! gone with the person.

use api::device::{ActivationOptions, DeviceError, name};
use api::wire::Octets;
use api::wire::provider::{Registration, Registrations};
use serde_json::{Value, json};

use super::world::{CHANCE, World, api_key, verified};
use crate::client::{Request, assert_problem};

fn called(name: &str) -> ActivationOptions {
    ActivationOptions { name: Some(name.to_owned()), ..ActivationOptions::default() }
}

#[test]
fn a_name_is_set_with_the_keys_changed_by_both_sides_and_shown_in_the_list_of_the_user() {
    let world = World::start();
    let side = world.side();
    let phone = side.phone(&called("Anna's telephone"));
    let other = side.phone(&ActivationOptions::default());
    let id = phone.registration_id();
    let list = || side.bank_gets("/v1/users/anna/registrations").ok::<Registrations>();
    let names =
        |all: Registrations| all.items.into_iter().map(|one| one.device_name).collect::<Vec<_>>();
    assert_eq!(names(list()), [Some("Anna's telephone".to_owned()), None]);

    let renamed = name(&side.client, &phone, Some("Pixel")).unwrap();
    assert_eq!(renamed.device_name.as_deref(), Some("Pixel"));
    let records = side.status().records;
    name(&side.client, &phone, Some("Pixel")).unwrap();
    assert_eq!(side.status().records, records, "the same name again is no event");

    let body = json!({ "device_name": "Work" });
    let seen: Registration = side.bank_posts(&format!("/v1/registrations/{id}/name"), &body).ok();
    assert_eq!(seen.device_name.as_deref(), Some("Work"));
    let path = format!("/v1/registrations/{}/name", other.registration_id());
    side.bank_posts(&path, &body).ok::<Registration>();
    side.bank_posts(&path, &json!({})).ok::<Registration>();
    assert_eq!(names(list()), [Some("Work".to_owned()), None]);

    let one: Registrations = side.bank_gets("/v1/users/anna/registrations?limit=1").ok();
    assert_eq!((one.items.len(), one.next), (1, Some(id)));
    let path = format!("/v1/users/anna/registrations?after={id}");
    let rest: Registrations = side.bank_gets(&path).ok();
    assert_eq!((rest.items[0].registration_id, rest.next), (other.registration_id(), None));
    world.stop_and_verify();
}

#[test]
fn a_list_shows_whose_user_it_is_and_nobody_where_nobody_is_known() {
    let world = World::start();
    let side = world.side();
    side.phone(&called("Pixel"));
    let none = json!({ "items": [] });
    assert_eq!(side.bank_gets("/v1/users/berta/registrations").value(), none);
    let admin = &world.callers.administrator;
    let other = api_key(world.address(), admin, "SERVICE_PROVIDER", Some("other-bank")).bearer;
    let other = Request::get("/v1/users/anna/registrations").by(&other.unwrap());
    assert_eq!(world.send(&other).value(), none, "another's user of the same name");
    for path in ["/v1/users/anna/registrations?limit=0", "/v1/users/%zz/registrations"] {
        assert_problem(&side.bank_gets(path), 400, "bad_request");
    }
}

#[test]
fn without_the_token_nobody_names_a_phone_and_what_is_no_name_is_refused() {
    let world = World::start();
    let side = world.side();
    let phone = side.phone(&ActivationOptions::default());
    let records = side.status().records;
    let ask = |registration: &str, device_name: &str| {
        let token = Octets(vec![7; 32]);
        let body = json!({
            "registration_id": registration, "device_token": token, "device_name": device_name,
        });
        world.send(&Request::post("/device/v1/registrations/name", &body))
    };
    let known = ask(&phone.registration_id().to_string(), "Mine");
    let unknown = ask("018bcfe5-6800-7fff-bfff-ffffffffffff", "Mine");
    assert_problem(&known, 404, "operation_not_found");
    assert_eq!(crate::client::said(&known), crate::client::said(&unknown));
    for bad in [String::new(), "a".repeat(65), "a\u{7}".to_owned()] {
        let refused = ask("018bcfe5-6800-7fff-bfff-ffffffffffff", &bad);
        assert_problem(&refused, 422, "invalid_request");
        assert_eq!(refused.pointers()[0].0, "/device_name");
        let path = format!("/v1/registrations/{}/name", phone.registration_id());
        let refused = side.bank_posts(&path, &json!({ "device_name": bad }));
        assert_problem(&refused, 422, "invalid_request");
    }
    assert_eq!(side.status().records, records);
    for turn in 0..10 {
        name(&side.client, &phone, Some(&format!("name {turn}"))).unwrap();
    }
    match name(&side.client, &phone, Some("one more")).unwrap_err() {
        DeviceError::Client(error) => assert_eq!(error.refusal().unwrap().status, 429),
        other => panic!("{other:?}"),
    }
    world.stop_and_verify();
}

#[test]
fn no_name_stands_in_the_log_in_clear_and_an_erasure_takes_it_too() {
    const NAME: &str = "Zoe's fruitphone";
    let world = World::start();
    let side = world.side();
    let redemption = side.redemption();
    let activating = redemption.start(&side.client).unwrap();
    let offer = activating.offer(side.client.server(), &called(NAME), None, CHANCE).unwrap();
    let phone = offer.finish(&side.client).unwrap().0.unwrap();
    let id = phone.registration_id();
    assert_eq!(side.seen_registration(id).device_name.as_deref(), Some(NAME));
    let erased = Request::new("DELETE", "/v1/users/anna").by(&world.callers.bank);
    assert_eq!(world.send(&erased).status, 200);
    assert_eq!(side.seen_registration(id).device_name, None);
    let path = format!("/v1/registrations/{id}/name");
    let late = side.bank_posts(&path, &json!({ "device_name": NAME }));
    assert_problem(&late, 409, "registration_state");
    // The answer that was lost is still the same, and names nobody.
    let again = offer.finish(&side.client).unwrap().1;
    assert!(again.accepted && !json!(again).to_string().contains(NAME));
    assert!(!world.server.said().contains(NAME));
    let data = world.data();
    world.server.stop();
    for folder in ["log", "store"] {
        assert!(!anywhere(&data.join(folder), NAME.as_bytes()), "{folder}");
    }
    verified(&data);
}

/// Whether a file below `folder` holds these bytes.
fn anywhere(folder: &std::path::Path, bytes: &[u8]) -> bool {
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).any(|path| {
        if path.is_dir() {
            return anywhere(&path, bytes);
        }
        let content = std::fs::read(&path).unwrap();
        content.windows(bytes.len()).any(|window| window == bytes)
    })
}

#[test]
fn an_answer_that_names_nothing_has_no_member_for_it() {
    let world = World::start();
    let side = world.side();
    let phone = side.phone(&called("Pixel"));
    let named = name(&side.client, &phone, None).unwrap();
    assert_eq!(json!(named), json!({}));
    let path = format!("/v1/registrations/{}", phone.registration_id());
    let seen: Value = side.bank_gets(&path).value();
    assert!(seen.get("device_name").is_none());
}
