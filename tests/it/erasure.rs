//! A person is erased: nothing that is left names them, and the log still holds.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use api::device::{
    ActivationOptions, AuthenticationOptions, Phone, Redemption, activate, authenticate,
};
use api::ports::{SystemClock, SystemEntropy};
use api::wire::Octets;
use api::wire::provider::{Erasure, Operation, Registration, RequestedActivation};
use engine::Keytrail;
use engine::command::{OrderErasure, Want};
use engine::events::{Actor, Event};
use engine::ids::Id;
use engine::reasons::{CancelReason, ErasureReason, OperationState, RegistrationState};
use replay::inspect::Filter;
use replay::proof::Receipt;
use serde_json::json;
use storage::disk::RealDisk;
use storage::open::{OpenError, Options};

use crate::client::{Answer, Request, assert_problem, connect};
use crate::http::world::{CHANCE, World, api_key, verified};
use crate::server::{InProcess, Launch};

/// Has what must be encoded in a path: a slash, a blank, a percent sign, no ASCII.
const REFERENCE: &str = "Quuxenburg/Zoë 50%";
const PATH: &str = "/v1/users/Quuxenburg%2FZo%C3%AB%2050%25";
const CONTEXT: &str = "Pay 1,234.56 to Wilhelmina Xylander";
const DATA_TO_SIGN: &str = "IBAN DE99-XYLANDER-0815";
const CLIENT_DATA: &str = "phone of Zoë Quuxenburg";

/// Offset and length of what leads to the first subject's key: tag, nonce,
/// wrapped key; see docs/format.md.
const FIRST_SECRET: std::ops::Range<usize> = 40 + 16..40 + 108;

/// Every file below `dir`.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for item in fs::read_dir(dir).unwrap() {
        let path = item.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.insert(path.display().to_string(), fs::read(&path).unwrap());
        }
    }
    found
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for item in fs::read_dir(from).unwrap() {
        let path = item.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, target).unwrap();
        }
    }
}

/// A copy of a whole folder.
fn copied(data: &Path) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    copy(data, folder.path());
    folder
}

fn holds(text: &[u8], needle: &[u8]) -> bool {
    text.windows(needle.len()).any(|window| window == needle)
}

/// All that names the person, as it is and as it travels.
fn needles() -> Vec<Vec<u8>> {
    let mut needles = Vec::new();
    for text in [REFERENCE, CONTEXT, DATA_TO_SIGN, CLIENT_DATA] {
        let base64 = serde_json::to_value(Octets(text.as_bytes().to_vec())).unwrap();
        needles.push(text.as_bytes().to_vec());
        needles.push(base64.as_str().unwrap().trim_end_matches('=').as_bytes().to_vec());
    }
    needles.push(PATH.strip_prefix("/v1/users/").unwrap().as_bytes().to_vec());
    needles.push(b"Quuxenburg".to_vec());
    needles.push(b"Xylander".to_vec());
    needles
}

#[track_caller]
fn names_nobody(data: &Path, more: &[&[u8]]) {
    let found = files(data);
    assert!(found.len() > 5, "the folder is where it is looked for");
    for needle in needles().iter().map(Vec::as_slice).chain(more.iter().copied()) {
        for (name, bytes) in &found {
            let shown = String::from_utf8_lossy(needle);
            assert!(!holds(bytes, needle), "{name} holds {shown}");
        }
    }
}

fn events(data: &Path) -> Vec<Event> {
    let mut events = Vec::new();
    let mut keep = |row: replay::inspect::Row| {
        events.push(row.event.unwrap());
        ControlFlow::Continue(())
    };
    replay::inspect(data, &Filter::default(), &mut keep).unwrap();
    events
}

fn erasures(data: &Path) -> Vec<&'static str> {
    let names = events(data).into_iter().map(|event| match event {
        Event::ErasureOrdered(_) => "ordered",
        Event::SubjectErased(erased) if erased.again => "erased again",
        Event::SubjectErased(_) => "erased",
        _ => "",
    });
    names.filter(|name| !name.is_empty()).collect()
}

/// Everything that the commands tell of a folder, and what they write of it.
fn shown(data: &Path) -> Vec<u8> {
    let out = tempfile::tempdir().unwrap();
    let (tlog, dir) = (out.path().join("tlog"), data.to_str().unwrap());
    let mut all = Vec::new();
    for arguments in [
        &["inspect", "--json", dir][..],
        &["export", "--jsonl", dir],
        &["export", "--out", tlog.to_str().unwrap(), dir],
    ] {
        let command = env!("CARGO_BIN_EXE_keytrail-tested");
        let output = Command::new(command).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(!output.stdout.is_empty());
        all.extend([output.stdout, output.stderr].concat());
    }
    let written = files(out.path());
    assert!(written.len() > 3);
    all.extend(written.into_values().flatten());
    all
}

fn requested(world: &World, user_ref: &str) -> RequestedActivation {
    let body = json!({ "application_id": world.callers.application, "user_ref": user_ref });
    world.side().bank_posts("/v1/activations", &body).ok()
}

fn phone_of(world: &World, user_ref: &str) -> Phone {
    let requested = requested(world, user_ref);
    let application = world.callers.application;
    let redemption = Redemption::by_code(application, &requested.code, None, CHANCE).unwrap();
    let options = ActivationOptions {
        client_data: Some(CLIENT_DATA.as_bytes().to_vec()),
        ..ActivationOptions::default()
    };
    let (phone, _) = activate(&world.side().client, &redemption, &options, None, CHANCE).unwrap();
    phone.unwrap()
}

/// An operation that shows and signs what names the person.
fn asked(world: &World, phone: &Phone) -> Operation {
    let octets = |text: &str| Octets(text.as_bytes().to_vec());
    let body = json!({
        "registration_id": phone.registration_id(),
        "level": "ONE_FACTOR",
        "context": { "type": "text/plain", "octets": octets(CONTEXT) },
        "data_to_sign": octets(DATA_TO_SIGN),
    });
    world.side().bank_posts("/v1/operations", &body).ok()
}

fn answered(world: &World, phone: &Phone) -> Operation {
    let operation = Some(asked(world, phone).operation_id);
    let client_data = Some(CLIENT_DATA.as_bytes().to_vec());
    let options = AuthenticationOptions { operation, client_data, ..Default::default() };
    let outcome = authenticate(&world.side().client, phone, &options, CHANCE).unwrap();
    assert!(outcome.finished.accepted);
    world.side().seen_operation(outcome.operation_id)
}

fn delete(world: &World, path: &str, key: Option<&str>) -> Answer {
    let request = Request::new("DELETE", path).by(&world.callers.bank);
    world.send(&match key {
        Some(key) => request.once(key),
        None => request,
    })
}

fn text(world: &World, path: &str, by: &str) -> String {
    let mut stream = connect(world.address());
    stream.write_all(&Request::get(path).by(by).octets_on_the_wire()).unwrap();
    let answer = Answer::read(&mut stream, false).unwrap();
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    answer.text()
}

/// Makes the state of a folder again from its log; the digest that comes out.
#[track_caller]
fn rebuilt(data: &Path) -> String {
    let clock = Arc::new(SystemClock::start());
    let options = Options::new("", clock, Arc::new(SystemEntropy));
    let rebuilt = storage::open::rebuild::<Keytrail>(data, &options).unwrap();
    assert_eq!(rebuilt.before, rebuilt.after);
    blake3::Hash::from_bytes(rebuilt.after).to_hex().to_string()
}

#[track_caller]
fn digest(data: &Path) -> String {
    verified(data).state_digest.unwrap()
}

#[test]
fn nothing_that_is_left_names_whoever_was_erased_and_the_log_holds_at_every_level() {
    // Beside an anna, who stays.
    let world = World::start();
    let phone = phone_of(&world, REFERENCE);
    let secret = fs::read(world.data().join("keys/subjects.store")).unwrap()[FIRST_SECRET].to_vec();
    let done = answered(&world, &phone);
    let open = asked(&world, &phone);
    let anna = world.side().phone(&ActivationOptions::default());
    let auditor =
        api_key(world.address(), &world.callers.administrator, "AUDITOR", None).bearer.unwrap();

    // A clean stop signs what stands.
    let world = world.restart();
    let path = format!("/v1/operations/{}/receipt", done.operation_id);
    let receipt = text(&world, &path, &world.callers.bank);
    let key = text(&world, "/audit/v1/checkpoint-key", &auditor).trim().parse().unwrap();
    let proven = receipt.parse::<Receipt>().unwrap().check(&key, None).unwrap();
    let World { server, home, callers } = world;
    let data = home.path().join("data");
    server.stop();
    let before = copied(&data);
    assert!(files(&data).values().any(|bytes| holds(bytes, &secret)), "it is there to be found");
    let recorded = digest(&data);

    let server = Launch::on(&data).start();
    let world = World { server, home, callers };
    let side = world.side();
    let erasure: Erasure =
        delete(&world, &format!("{PATH}?reason=USER_REQUEST"), Some("erase-1")).ok();
    assert_eq!(erasure.reason, ErasureReason::UserRequest);
    assert!(erasure.erased_at.is_some());
    names_nobody(&data.join("keys"), &[&secret]);

    let registration = side.seen_registration(phone.registration_id());
    assert_eq!(registration.user_ref, None);
    assert_eq!(registration.state, RegistrationState::Deactivated);
    assert_eq!(side.seen_operation(done.operation_id).client_data, None);
    let cancelled = side.seen_operation(open.operation_id);
    assert_eq!(cancelled.state, OperationState::Cancelled);
    assert_eq!(cancelled.cancel_reason, Some(CancelReason::RegistrationDeactivated));
    let late = AuthenticationOptions { operation: Some(open.operation_id), ..Default::default() };
    assert!(authenticate(&side.client, &phone, &late, CHANCE).is_err());
    assert_eq!(side.seen_registration(anna.registration_id()).user_ref.as_deref(), Some("anna"));
    assert!(side.log_in(&anna, &AuthenticationOptions::default()).finished.accepted);

    let World { server, home: _home, callers: _ } = world;
    let said = server.stop();
    let shown = shown(&data);
    for needle in needles().into_iter().chain([secret.clone()]) {
        assert!(!holds(said.as_bytes(), &needle), "{said}");
        assert!(!holds(&shown, &needle));
    }
    names_nobody(&data, &[&secret]);
    assert_eq!(erasures(&data), ["ordered", "erased"]);

    // What was signed before stands as it was.
    let again = receipt.parse::<Receipt>().unwrap().check(&key, None).unwrap();
    assert_eq!(again.record, proven.record);
    let position = done.attempts[0].position;
    let (stored, _) = storage::record::decode(&proven.record).unwrap();
    assert_eq!(stored.position.0, position);

    // State from before, with its person's key, without it, and without any key.
    let erased = digest(&data);
    assert_ne!(erased, recorded);
    assert_eq!(rebuilt(&data), erased);
    assert_eq!(rebuilt(before.path()), recorded);
    fs::remove_dir_all(before.path().join("keys")).unwrap();
    assert_eq!(digest(before.path()), recorded);
    let after = copied(&data);
    fs::remove_dir_all(after.path().join("keys")).unwrap();
    assert_eq!(digest(after.path()), erased);
    let clock = Arc::new(SystemClock::start());
    let options = Options::new("", clock, Arc::new(SystemEntropy));
    let refused = storage::open::rebuild::<Keytrail>(after.path(), &options).unwrap_err();
    assert!(matches!(refused, OpenError::Keys(_)), "it makes no new keys for an old log");
    copy(&data.join("keys"), &before.path().join("keys"));
    assert_eq!(rebuilt(before.path()), recorded, "keys are no part of state");
}

#[test]
fn whoever_is_erased_is_unknown_and_the_reference_stands_for_somebody_new() {
    let world = World::start();
    let side = world.side();
    let unknown = delete(&world, "/v1/users/nobody", None);
    assert_problem(&unknown, 404, "not_found");
    let phone = phone_of(&world, REFERENCE);

    for wrong in ["/v1/users/%ff", "/v1/users/%zz", "/v1/users/a%00"] {
        assert_problem(&delete(&world, wrong, None), 400, "bad_request");
    }
    for wrong in ["?reason=BOREDOM", "?colour=red"] {
        assert_problem(&delete(&world, &format!("{PATH}{wrong}"), None), 400, "bad_request");
    }
    assert_problem(&world.send(&Request::new("DELETE", PATH)), 401, "unauthenticated");
    let by_admin = Request::new("DELETE", PATH).by(&world.callers.administrator);
    assert_problem(&world.send(&by_admin), 403, "forbidden");
    // The same words are another person at another bank.
    let admin = &world.callers.administrator;
    let other = api_key(world.address(), admin, "SERVICE_PROVIDER", Some("other")).bearer.unwrap();
    assert_problem(&world.send(&Request::new("DELETE", PATH).by(&other)), 404, "not_found");
    let seen = side.seen_registration(phone.registration_id());
    assert_eq!(seen.user_ref.as_deref(), Some(REFERENCE));
    assert_eq!(seen.state, RegistrationState::Active);

    let erasure: Erasure = delete(&world, PATH, Some("erase-1")).ok();
    assert_eq!(erasure.reason, ErasureReason::Other);
    let repeated: Erasure = delete(&world, PATH, Some("erase-1")).ok();
    assert_eq!(repeated.subject_id, erasure.subject_id);
    assert_eq!(repeated.position, erasure.position);
    let reused = delete(&world, "/v1/users/nobody", Some("erase-1"));
    assert_problem(&reused, 422, "idempotency_key_reused");
    let other_reason = delete(&world, &format!("{PATH}?reason=UNLAWFUL"), Some("erase-1"));
    assert_problem(&other_reason, 422, "idempotency_key_reused");
    let gone = delete(&world, PATH, None);
    assert_eq!(crate::client::said(&gone), crate::client::said(&unknown));

    let path = format!("/v1/registrations/{}/activations", phone.registration_id());
    assert_problem(&side.bank_posts(&path, &json!({})), 409, "registration_state");
    let body = json!({ "registration_id": phone.registration_id(), "level": "ONE_FACTOR" });
    assert_problem(&side.bank_posts("/v1/operations", &body), 409, "registration_state");

    let new = phone_of(&world, REFERENCE);
    answered(&world, &new);
    let seen = side.seen_registration(new.registration_id());
    assert_eq!(seen.user_ref.as_deref(), Some(REFERENCE));
    let second: Erasure = delete(&world, PATH, None).ok();
    assert_ne!(second.subject_id, erasure.subject_id);
    let data = world.data();
    let World { server, home: _home, callers: _ } = world;
    server.stop();
    verified(&data);
    names_nobody(&data, &[]);
    assert_eq!(erasures(&data), ["ordered", "erased", "ordered", "erased"]);
}

#[test]
fn a_person_with_more_registrations_than_one_order_ends_loses_them_all() {
    let world = World::start();
    let ids: Vec<Id> = (0..2 * engine::erasure::REGISTRATIONS_MAX + 3)
        .map(|_| requested(&world, REFERENCE).activation.registration_id)
        .collect();
    delete(&world, PATH, None).ok::<Erasure>();
    for id in ids {
        let seen: Registration = world.side().seen_registration(id);
        assert_eq!((seen.state, seen.user_ref), (RegistrationState::Deactivated, None));
    }
    world.stop_and_verify();
}

#[test]
fn a_key_that_an_old_copy_of_the_key_store_brings_back_is_destroyed_at_the_start() {
    let world = World::start();
    let phone = phone_of(&world, REFERENCE);
    let World { server, home, callers } = world;
    let data = home.path().join("data");
    server.stop();
    let old = copied(&data.join("keys"));
    let secret = fs::read(data.join("keys/subjects.store")).unwrap()[FIRST_SECRET].to_vec();

    let world = World { server: Launch::on(&data).start(), home, callers };
    delete(&world, PATH, None).ok::<Erasure>();
    let World { server, home, callers } = world;
    server.stop();
    fs::remove_dir_all(data.join("keys")).unwrap();
    copy(old.path(), &data.join("keys"));
    assert!(files(&data.join("keys")).values().any(|bytes| holds(bytes, &secret)));

    let server = Launch::on(&data).start();
    server.wait_for("erasure was ordered before");
    names_nobody(&data, &[&secret]);
    let world = World { server, home, callers };
    let seen = world.side().seen_registration(phone.registration_id());
    assert_eq!(seen.user_ref, None);
    assert_problem(&delete(&world, PATH, None), 404, "not_found");
    // And it is not done a third time.
    let World { server, home: _home, callers: _ } = world.restart();
    assert!(!server.stop().contains("erasure was ordered before"));
    verified(&data);
    assert_eq!(erasures(&data), ["ordered", "erased", "erased again"]);
}

#[test]
fn an_order_that_a_crash_left_undone_is_carried_out_at_the_next_start() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data");
    let start = || InProcess::start(&data, Arc::new(SystemClock::start()), Arc::new(RealDisk));
    let server = start();
    let administrator = server.administrator.clone().unwrap();
    let bank = api_key(server.address, &administrator, "SERVICE_PROVIDER", Some("my-bank"));
    let subject = server.app.keys.subject_for("my-bank", REFERENCE).unwrap().id;
    let by = Actor { api_key: bank.api_key.api_key_id, request: None };
    let reason = ErasureReason::LegalObligation;
    let order = OrderErasure { by, subject, reason, registrations: Vec::new() };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(server.app.execute_own(Want::OrderErasure(order.clone()))).unwrap();
    // As a crash leaves it: ordered, and the key still there.
    assert!(server.app.keys.subject_key(subject).unwrap().is_some());
    server.stop();
    assert_eq!(erasures(&data), ["ordered"]);

    let server = start();
    assert!(server.app.keys.subject_key(subject).unwrap().is_none());
    assert!(server.app.look().erasure(subject).unwrap().erased_at.is_some());
    // The other half of the crash: destroyed, and not recorded.
    let other = server.app.keys.subject_for("my-bank", "other").unwrap().id;
    let order = OrderErasure { subject: other, ..order };
    runtime.block_on(server.app.execute_own(Want::OrderErasure(order))).unwrap();
    assert!(server.app.keys.erase(other).unwrap());
    server.stop();
    assert_eq!(erasures(&data), ["ordered", "erased", "ordered"]);

    let server = start();
    assert!(server.app.look().erasure(other).unwrap().erased_at.is_some());
    server.stop();
    assert_eq!(erasures(&data), ["ordered", "erased", "ordered", "erased"]);
    verified(&data);
}

#[test]
fn without_its_keys_the_log_verifies_and_the_server_says_what_is_lost() {
    let world = World::start();
    let phone = phone_of(&world, REFERENCE);
    let World { server, home, callers } = world;
    let data = home.path().join("data");
    server.stop();
    let kept = copied(&data.join("keys"));
    fs::remove_dir_all(data.join("keys")).unwrap();
    verified(&data);
    let Err((status, said)) = Launch::on(&data).try_start() else { panic!("it must not start") };
    assert_eq!(status.code(), Some(1));
    assert!(said.contains("is missing") && said.contains("keys"), "{said}");
    verified(&data);

    fs::remove_dir_all(data.join("keys")).unwrap();
    copy(kept.path(), &data.join("keys"));
    let world = World { server: Launch::on(&data).start(), home, callers };
    let seen = world.side().seen_registration(phone.registration_id());
    assert_eq!(seen.user_ref.as_deref(), Some(REFERENCE));
    world.stop_and_verify();
}

#[test]
fn uses_of_keys_to_read_are_counted_by_whom_they_serve() {
    let world = World::start();
    let phone = phone_of(&world, REFERENCE);
    for _ in 0..3 {
        world.side().seen_registration(phone.registration_id());
    }
    answered(&world, &phone);
    let data = world.data();
    let World { server, home: _home, callers: _ } = world;
    server.stop();
    let counted: Vec<_> = events(&data)
        .into_iter()
        .filter_map(|event| match event {
            Event::KeyUseCounted(counts) => Some((counts.service_provider, counts.device)),
            _ => None,
        })
        .collect();
    let total = counted.iter().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    // Three registrations and the answer with its client data; one context.
    assert_eq!(total, (4, 1));
}

#[test]
fn what_an_idempotent_request_names_cannot_be_guessed_from_its_digest() {
    let world = World::start();
    let body = json!({ "application_id": world.callers.application, "user_ref": REFERENCE });
    let digest_of = |world: &World| {
        let request = Request::post("/v1/activations", &body).by(&world.callers.bank).once("same");
        let asked: RequestedActivation = world.send(&request).ok();
        asked.activation.registration_id
    };
    let first = digest_of(&world);
    assert_eq!(digest_of(&world), first, "it is a repeat, and known as one");
    let world = world.restart();
    assert_eq!(digest_of(&world), first, "across a restart too");
    let data = world.data();
    let World { server, home: _home, callers: _ } = world;
    server.stop();
    let digest = events(&data).into_iter().find_map(|event| match event {
        Event::ActivationRequested(requested) => requested.by.request.map(|it| it.digest),
        _ => None,
    });
    // The unkeyed hash that anyone could compute of a guess.
    let mut guess = blake3::Hasher::new_derive_key("keytrail 2026 idempotent request v1");
    for part in [&b"POST /v1/activations"[..], &serde_json::to_vec(&body).unwrap()] {
        guess.update(&(part.len() as u64).to_be_bytes()).update(part);
    }
    assert_ne!(digest.unwrap(), guess.finalize().as_bytes()[..16]);
}
