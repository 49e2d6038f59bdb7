//! Device hashes over HTTP: limit, block, what is known, and what is left of them.

use std::path::Path;
use std::sync::Arc;

use api::auth::credential::Credential;
use api::device::{ActivationOptions, Phone, Redemption, activate};
use api::ports::SystemEntropy;
use api::wire::admin::Page;
use api::wire::devices::{BlockedDeviceHash, DeviceHash};
use api::wire::provider::{Activation, Registration, RequestedActivation};
use engine::command::{BlockDevice, Want};
use engine::events::Actor;
use engine::ids::Id;
use engine::reasons::{
    ActivationFailure, ActivationState, LockReason, ReasonGiven, RegistrationState,
};
use serde_json::{Value, json};
use storage::disk::RealDisk;
use storage::keys::{Expect, KeyStore};

use super::expiry::{NOON, Timed};
use super::world::{CHANCE, Side, World, again, api_key, verified};
use crate::client::{Answer, Request, assert_problem};
use crate::history::Counter;
use crate::server::Launch;

const PHONE: [u8; 32] = [0xd1; 32];
const TABLET: [u8; 32] = [0xd2; 32];

fn base64url(hash: [u8; 32]) -> Value {
    serde_json::to_value(api::wire::Octets32(hash)).unwrap()
}

/// Activates for a user on a device; the phone is there if the keys were taken.
fn activated(side: &Side, user_ref: &str, device_hash: Option<[u8; 32]>) -> (Option<Phone>, Id) {
    let application = side.callers.application;
    let body = json!({ "application_id": application, "user_ref": user_ref });
    let requested: RequestedActivation = side.bank_posts("/v1/activations", &body).ok();
    let redemption = Redemption::by_code(application, &requested.code, None, CHANCE).unwrap();
    let options = ActivationOptions { device_hash, ..ActivationOptions::default() };
    let (phone, _) = activate(&side.client, &redemption, &options, None, CHANCE).unwrap();
    (phone, requested.activation.activation_id)
}

fn on(side: &Side, user_ref: &str, device_hash: [u8; 32]) -> Id {
    activated(side, user_ref, Some(device_hash)).0.unwrap().registration_id()
}

fn failure(side: &Side, activation: Id) -> Option<ActivationFailure> {
    let seen: Activation = side.bank_gets(&format!("/v1/activations/{activation}")).ok();
    assert_eq!(seen.state, ActivationState::Failed);
    seen.failure
}

fn posts(side: &Side, what: &str, device_hash: [u8; 32]) -> Answer {
    let mut body = json!({ "application_id": side.callers.application, "device_hash": base64url(device_hash) });
    if what == "block" {
        body["reason"] = "FRAUD_SUSPECTED".into();
    }
    side.bank_posts(&format!("/v1/device-hashes/{what}"), &body)
}

fn known(side: &Side, device_hash: [u8; 32]) -> DeviceHash {
    posts(side, "lookup", device_hash).ok()
}

fn blocked(side: &Side, query: &str) -> Page<BlockedDeviceHash> {
    let application = side.callers.application;
    let path = format!("/v1/applications/{application}/blocked-device-hashes{query}");
    side.bank_gets(&path).ok()
}

fn lock(side: &Side, id: Id) -> (RegistrationState, Option<LockReason>) {
    let seen = side.seen_registration(id);
    (seen.state, seen.lock_reason)
}

#[test]
fn one_user_more_than_allowed_is_not_activated_on_a_device() {
    let world = World::with(json!({ "device_users_max": 1, "device_hash_required": true }));
    let side = world.side();
    let id = on(&side, "anna", PHONE);
    assert_eq!(side.seen_registration(id).device_hash.unwrap().0, PHONE);
    let (phone, activation) = activated(&side, "berta", Some(PHONE));
    assert!(phone.is_none());
    assert_eq!(failure(&side, activation), Some(ActivationFailure::TooManyDeviceUsers));
    let second = on(&side, "anna", PHONE);
    let seen = known(&side, PHONE);
    assert_eq!((seen.users, seen.registration_count), (1, 2));
    let mut registrations = [id, second];
    registrations.sort_unstable();
    assert_eq!(seen.registrations, registrations);
    on(&side, "berta", TABLET);
    drop(side);
    world.stop_and_verify();
}

#[test]
fn a_device_hash_must_come_where_it_is_required_and_must_be_one() {
    let world = World::with(json!({ "device_hash_required": true }));
    let side = world.side();
    let activating = side.redemption().start(&side.client).unwrap();
    let offer = |device_hash| {
        let options = ActivationOptions { device_hash, ..ActivationOptions::default() };
        activating.offer("http://a", &options, None, CHANCE).unwrap()
    };
    let path = format!("/device/v1/activations/{}/finish", activating.started().activation_id);
    let refused = Request::post(&path, offer(None).body()).send(side.address);
    assert_problem(&refused, 422, "invalid_request");
    assert_eq!(refused.value()["errors"][0]["pointer"], "/device_hash");
    for octets in [vec![1; 31], vec![1; 33], Vec::new()] {
        let mut body = serde_json::to_value(offer(Some(PHONE)).body()).unwrap();
        body["device_hash"]["octets"] = serde_json::to_value(api::wire::Octets(octets)).unwrap();
        let refused = Request::post(&path, &body).send(side.address);
        assert_problem(&refused, 422, "invalid_request");
        assert_eq!(refused.value()["errors"][0]["pointer"], "/device_hash/octets");
    }
    // Another hash than the one that was signed: no key is proven.
    let mut body = serde_json::to_value(offer(Some(PHONE)).body()).unwrap();
    body["device_hash"]["octets"] = base64url(TABLET);
    let answer = Request::post(&path, &body).send(side.address);
    assert_eq!((answer.status, &answer.value()["accepted"]), (200, &json!(false)));
    let id = activating.started().activation_id;
    assert_eq!(failure(&side, id), Some(ActivationFailure::SoftwareKeyUnproven));
    drop(side);
    world.stop_and_verify();
}

#[test]
fn a_block_locks_and_refuses_until_it_ends_and_survives_a_restart() {
    let world = World::start();
    let side = world.side();
    let (anna, berta) = (on(&side, "anna", PHONE), on(&side, "berta", PHONE));
    let elsewhere = on(&side, "anna", TABLET);
    let answer: DeviceHash = posts(&side, "block", PHONE).ok();
    assert_eq!(answer.blocked.as_ref().unwrap().reason, ReasonGiven::FraudSuspected);
    assert_eq!(posts(&side, "block", PHONE).ok::<DeviceHash>(), answer, "once is enough");
    drop(side);
    let world = world.restart();
    let side = world.side();
    let locked = (RegistrationState::Locked, Some(LockReason::DeviceBlocked));
    assert_eq!((lock(&side, anna), lock(&side, berta)), (locked, locked));
    assert_eq!(lock(&side, elsewhere), (RegistrationState::Active, None));
    let unlock = |id: Id| side.bank_posts(&format!("/v1/registrations/{id}/unlock"), &json!({}));
    assert_problem(&unlock(anna), 409, "device_blocked");
    let (phone, activation) = activated(&side, "carla", Some(PHONE));
    assert!(phone.is_none());
    assert_eq!(failure(&side, activation), Some(ActivationFailure::DeviceBlocked));
    let unblocked: DeviceHash = posts(&side, "unblock", PHONE).ok();
    assert_eq!(unblocked.blocked, None);
    assert_eq!(posts(&side, "unblock", PHONE).ok::<DeviceHash>(), unblocked);
    assert_eq!(lock(&side, anna), locked, "each lock ends by itself");
    unlock(anna).ok::<Registration>();
    assert_eq!(lock(&side, anna).0, RegistrationState::Active);
    on(&side, "carla", PHONE);
    drop(side);
    world.stop_and_verify();
}

#[test]
fn a_block_of_many_registrations_locks_them_all() {
    let world = World::start();
    let side = world.side();
    let ids: Vec<_> = (0..103).map(|n| on(&side, &format!("user {n}"), PHONE)).collect();
    let answer: DeviceHash = posts(&side, "block", PHONE).ok();
    assert_eq!((answer.registration_count, answer.registrations.len()), (103, 100));
    let locked = (RegistrationState::Locked, Some(LockReason::DeviceBlocked));
    assert!(ids.iter().all(|&id| lock(&side, id) == locked));
    drop(side);
    world.stop_and_verify();
}

#[test]
fn a_device_that_nobody_knows_can_be_blocked_and_blocks_are_listed_by_page() {
    let world = World::start();
    let side = world.side();
    let nothing = known(&side, PHONE);
    assert_eq!((nothing.device_id, nothing.users, nothing.blocked), (None, 0, None));
    posts(&side, "unblock", PHONE).ok::<DeviceHash>();
    assert!(blocked(&side, "").items.is_empty());
    for number in 1..=3 {
        posts(&side, "block", [number; 32]).ok::<DeviceHash>();
    }
    let mut seen = Vec::new();
    let mut query = "?limit=2".to_owned();
    loop {
        let page = blocked(&side, &query);
        assert!(page.items.len() <= 2);
        seen.extend(page.items.into_iter().map(|item| item.device_hash.unwrap().0));
        let Some(next) = page.next else { break };
        query = format!("?limit=2&after={next}");
    }
    seen.sort_unstable();
    assert_eq!(seen, [[1; 32], [2; 32], [3; 32]]);
    posts(&side, "unblock", [2; 32]).ok::<DeviceHash>();
    assert_eq!(blocked(&side, "").items.len(), 2);
    assert_eq!(known(&side, [2; 32]).device_id, None, "nothing is left of it");
    drop(side);
    world.stop_and_verify();
}

#[test]
fn another_service_provider_sees_and_blocks_nothing() {
    let world = World::start();
    let side = world.side();
    on(&side, "anna", PHONE);
    let admin = &world.callers.administrator;
    let other = api_key(side.address, admin, "SERVICE_PROVIDER", Some("other")).bearer.unwrap();
    let application = world.callers.application;
    let body = json!({ "application_id": application, "device_hash": base64url(PHONE) });
    let mut block = body.clone();
    block["reason"] = "OTHER".into();
    for (what, body) in [("lookup", &body), ("block", &block), ("unblock", &body)] {
        let path = format!("/v1/device-hashes/{what}");
        let answer = Request::post(&path, body).by(&other).send(side.address);
        assert_problem(&answer, 404, "not_found");
    }
    let path = format!("/v1/applications/{application}/blocked-device-hashes");
    assert_problem(&Request::get(&path).by(&other).send(side.address), 404, "not_found");
    drop(side);
    world.stop_and_verify();
}

/// Whether the key store in a stopped server's folder knows a device hash.
fn is_known(data: &Path, application: Id, device_hash: [u8; 32]) -> bool {
    let (disk, entropy) = (Arc::new(RealDisk), Arc::new(SystemEntropy));
    let keys = KeyStore::open(disk, &data.join("keys"), entropy, Expect::Existing).unwrap();
    keys.find_device(application, &device_hash).is_some()
}

#[test]
fn whoever_is_erased_leaves_no_device_but_one_that_another_user_is_on() {
    let world = World::start();
    let side = world.side();
    on(&side, "anna", PHONE);
    on(&side, "anna", TABLET);
    let berta = on(&side, "berta", TABLET);
    let erase = Request::new("DELETE", "/v1/users/anna").by(&world.callers.bank);
    assert_eq!(erase.send(side.address).status, 200);
    assert_eq!(known(&side, PHONE).device_id, None);
    let tablet = known(&side, TABLET);
    assert_eq!((tablet.users, tablet.registrations), (1, vec![berta]));
    drop(side);
    let World { server, home, callers } = world;
    server.stop();
    let data = home.path().join("data");
    verified(&data);
    assert!(!is_known(&data, callers.application, PHONE));
    assert!(is_known(&data, callers.application, TABLET));
}

#[test]
fn the_last_registration_on_a_device_takes_it_along_and_a_block_keeps_it() {
    let world = World::start();
    let side = world.side();
    let (phone, tablet) = (on(&side, "anna", PHONE), on(&side, "anna", TABLET));
    posts(&side, "block", TABLET).ok::<DeviceHash>();
    for id in [phone, tablet] {
        let path = format!("/v1/registrations/{id}/deactivate");
        side.bank_posts(&path, &json!({ "reason": "OTHER" })).ok::<Registration>();
    }
    drop(side);
    let World { server, home, callers } = world;
    let data = home.path().join("data");
    server.stop();
    assert!(!is_known(&data, callers.application, PHONE));
    assert!(is_known(&data, callers.application, TABLET), "a block outlives the registrations");
    let world = again(&Launch::on(&data), &callers, home);
    let side = world.side();
    let (refused, _) = activated(&side, "anna", Some(TABLET));
    assert!(refused.is_none());
    on(&side, "anna", PHONE);
    posts(&side, "unblock", TABLET).ok::<DeviceHash>();
    drop(side);
    let World { server, home, callers } = world;
    server.stop();
    assert!(!is_known(&home.path().join("data"), callers.application, TABLET));
}

#[test]
fn no_file_holds_a_device_hash() {
    let world = World::start();
    let side = world.side();
    on(&side, "anna", PHONE);
    posts(&side, "block", PHONE).ok::<DeviceHash>();
    drop(side);
    let World { server, home, .. } = world;
    server.stop();
    let text = base64url(PHONE).as_str().unwrap().to_owned();
    let mut files = vec![home.path().to_owned()];
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(std::fs::read_dir(&path).unwrap().map(|item| item.unwrap().path()));
            continue;
        }
        let bytes = std::fs::read(&path).unwrap();
        let holds = |needle: &[u8]| bytes.windows(needle.len()).any(|window| window == needle);
        assert!(!holds(&PHONE) && !holds(text.as_bytes()), "{}", path.display());
    }
}

#[test]
fn a_block_that_a_crash_cut_short_is_finished_by_the_next_start() {
    let timed = Timed::start(Counter::at(NOON), json!({}));
    let side = timed.side();
    let id = on(&side, "anna", PHONE);
    let device = known(&side, PHONE).device_id.unwrap();
    let header = format!("Bearer {}", timed.callers.bank);
    let api_key = Credential::parse(header.as_bytes()).unwrap().id;
    // The first command of a block, and nothing after it.
    let block = BlockDevice {
        by: Actor { api_key, request: None },
        application: timed.callers.application,
        device,
        reason: ReasonGiven::Other,
        registrations: Vec::new(),
        sealed: Vec::new(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(timed.server.app.execute_own(Want::BlockDevice(block))).unwrap();
    assert_eq!(lock(&side, id), (RegistrationState::Active, None));
    drop(side);
    let timed = timed.restarted(Counter::at(NOON));
    let side = timed.side();
    let locked = (RegistrationState::Locked, Some(LockReason::DeviceBlocked));
    assert_eq!(lock(&side, id), locked);
    drop(side);
    timed.stop();
}
