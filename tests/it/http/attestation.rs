//! Attestation through the whole server: the phone's test CA, what a service
//! provider sees, revocation lists.

use std::collections::BTreeMap;
use std::path::Path;

use api::device::{
    ActivationOptions, AuthenticationOptions, Evidence, Hardware, PACKAGE, Phone, Redemption,
    TestCa, activate, authenticate,
};
use api::wire::Octets;
use api::wire::admin::RevocationList as TakenList;
use api::wire::device::FinishedActivation;
use api::wire::provider::{Activation, Attestation, RequestedActivation};
use engine::attestation::policy::{Mode, ProvisioningRule};
use engine::attestation::revocation::{LIST_MAX, ListStatus, RevocationList};
use engine::attestation::{
    BootState, ListState, Platform, Policy, Provisioning, Reason, SecurityLevel, Status,
};
use engine::ids::{Id, Micros};
use engine::reasons::{
    ActivationFailure, AuthenticationFailure, LockReason, OperationState, RegistrationState,
};
use replay::affected::{Basis, Question, Refused, affected};
use replay::report::Level;
use serde_json::{Value, json};

use super::key_changes::{by_pin, changed, with_pin};
use super::world::{CHANCE, World};
use crate::client::Request;

/// A world whose application trusts a test CA, and the CA.
pub(crate) fn world(mode: &str, more: Value) -> (World, TestCa) {
    let ca = TestCa::generate(CHANCE).unwrap();
    let mut configuration = json!({
        "attestation_android_mode": mode,
        "attestation_test_environment": true,
        "attestation_test_roots": [ca.root()],
        "attestation_android_packages": [PACKAGE],
        "enabled_risk_data": ["attestation"],
    });
    for (name, value) in more.as_object().unwrap() {
        configuration[name] = value.clone();
    }
    (World::with(configuration), ca)
}

/// Activates; what the phone is told, and what the service provider sees.
pub(crate) fn activated(
    world: &World,
    options: &ActivationOptions,
) -> (Option<Phone>, FinishedActivation, Activation) {
    let side = world.side();
    let requested = side.request_activation();
    let redemption =
        api::device::Redemption::by_code(side.callers.application, &requested.code, None, CHANCE);
    let (phone, finished) =
        activate(&side.client, &redemption.unwrap(), options, None, CHANCE).unwrap();
    let path = format!("/v1/activations/{}", requested.activation.activation_id);
    (phone, finished, side.bank_gets(&path).ok())
}

pub(crate) fn with(evidence: Evidence) -> ActivationOptions {
    ActivationOptions { evidence, ..ActivationOptions::default() }
}

fn seen(activation: &Activation) -> Attestation {
    activation.risk.attestation.clone().unwrap()
}

#[test]
fn a_key_that_its_maker_vouches_for_is_taken_and_reported_at_every_log_in() {
    let (world, ca) = world("REQUIRED", json!({}));
    let (phone, finished, activation) = activated(&world, &with(Evidence::Made(ca)));
    assert!(finished.accepted && finished.hardware_key_stored);
    let attestation = seen(&activation);
    assert_eq!((attestation.status, attestation.reason), (Status::Verified, None));
    assert_eq!(attestation.security_level, Some(SecurityLevel::TrustedEnvironment));
    assert_eq!(attestation.boot_state, Some(BootState::Verified));
    assert_eq!(attestation.device_locked, Some(true));
    assert_eq!(attestation.patch_level, Some(202_611));
    assert_eq!(attestation.provisioning, Some(Provisioning::Factory));
    assert_eq!(attestation.revocation_list, Some(ListState::Missing));
    let side = world.side();
    let phone = phone.unwrap();
    let operation = side.operation(&phone).operation_id;
    assert_eq!(side.seen_operation(operation).risk.attestation, None, "nobody answered yet");
    let answer = AuthenticationOptions { operation: Some(operation), ..Default::default() };
    authenticate(&side.client, &phone, &answer, CHANCE).unwrap();
    assert_eq!(side.seen_operation(operation).risk.attestation, Some(attestation));
    drop(side);
    world.stop_and_verify();
}

#[test]
fn where_evidence_is_required_a_phone_without_good_evidence_is_refused() {
    let (world, ca) = world("REQUIRED", json!({}));
    let other = TestCa::generate(CHANCE).unwrap();
    let without =
        ActivationOptions { hardware: Hardware::Unsupported, ..with(Evidence::Made(ca.clone())) };
    let nobody = engine::key::PublicKey::dummy();
    let replayed = ca.chain(&nobody, &[7; 32]).unwrap();
    for (options, status, reason) in [
        (with(Evidence::None), Status::NotGiven, None),
        (without, Status::NotSupported, None),
        (with(Evidence::Made(other)), Status::Refused, Some(Reason::RootUnknown)),
        (
            with(Evidence::Given(Platform::Android, replayed)),
            Status::Refused,
            Some(Reason::ChallengeMismatch),
        ),
        (
            with(Evidence::Given(Platform::Android, b"nonsense".to_vec())),
            Status::Refused,
            Some(Reason::EvidenceUnreadable),
        ),
        (with(Evidence::Given(Platform::Apple, vec![1])), Status::NotGiven, None),
    ] {
        let (phone, finished, activation) = activated(&world, &options);
        assert!(phone.is_none() && !finished.accepted);
        assert_eq!(activation.failure, Some(ActivationFailure::AttestationRequired));
        let attestation = seen(&activation);
        assert_eq!((attestation.status, attestation.reason), (status, reason));
    }
    world.stop_and_verify();
}

#[test]
fn a_real_chain_with_a_foreign_challenge_is_refused() {
    let folder = std::env::var_os("KEYTRAIL_VECTORS");
    let folder =
        folder.as_ref().map_or(Path::new("../../shared/vectors"), |named| Path::new(named));
    let path = folder.join("android-keyattestation/caiman/sdk36/TEE_EC_RKP.pem");
    let Ok(chain) = std::fs::read(path) else {
        println!("skipped: no Android chains (set KEYTRAIL_VECTORS)");
        return;
    };
    let (world, _) = world("REQUIRED", json!({}));
    let (phone, _, activation) =
        activated(&world, &with(Evidence::Given(Platform::Android, chain)));
    assert!(phone.is_none());
    let attestation = seen(&activation);
    // Its authorities have ended too; what was read of it is reported all the same.
    assert_eq!(attestation.status, Status::Refused);
    assert_eq!(attestation.reason, Some(Reason::CertificateExpired));
    assert_eq!(attestation.provisioning, Some(Provisioning::Remote));
    assert_eq!(attestation.patch_level, Some(202_511));
}

#[test]
fn optional_evidence_is_reported_and_fails_nothing_and_off_looks_at_none() {
    for (mode, status) in [("OPTIONAL", Some(Status::Refused)), ("OFF", None)] {
        let (world, _) = world(mode, json!({}));
        let foreign = TestCa::generate(CHANCE).unwrap();
        let (phone, finished, activation) = activated(&world, &with(Evidence::Made(foreign)));
        assert!(phone.is_some() && finished.hardware_key_stored, "{mode}");
        assert_eq!(activation.risk.attestation.map(|found| found.status), status, "{mode}");
        world.stop_and_verify();
    }
}

#[test]
fn evidence_that_is_too_long_is_refused_with_the_whole_request() {
    let (world, _) = world("REQUIRED", json!({}));
    let side = world.side();
    let long = with(Evidence::Given(Platform::Android, vec![0x30; 24 * 1024 + 1]));
    let error = activate(&side.client, &side.redemption(), &long, None, CHANCE).unwrap_err();
    assert!(error.to_string().contains("invalid_request"), "{error}");
}

/// The list of these entries.
pub(crate) fn list(world: &World, entries: &Value) -> crate::client::Answer {
    let body = json!({ "entries": entries });
    let path = "/admin/v1/attestation/revocation-list";
    world.send(&Request::post(path, &body).by(&world.callers.administrator))
}

#[test]
fn a_list_is_in_force_from_the_moment_it_is_taken_over_and_after_a_restart() {
    let (world, ca) = world("REQUIRED", json!({}));
    let serial = root_serial(&ca);
    assert!(activated(&world, &with(Evidence::Made(ca.clone()))).1.accepted);
    let status = json!({ "status": "REVOKED", "reason": "KEY_COMPROMISE" });
    let taken: TakenList = list(&world, &json!({ serial: status })).ok();
    assert!(taken.serials >= 1);
    let world = world.restart();
    let (phone, _, activation) = activated(&world, &with(Evidence::Made(ca.clone())));
    assert!(phone.is_none());
    let attestation = seen(&activation);
    assert_eq!(attestation.reason, Some(Reason::CertificateRevoked));
    assert_eq!(attestation.revocation_list, Some(ListState::Fresh));
    let empty: TakenList = list(&world, &json!({})).ok();
    assert_eq!(empty.serials, 0);
    assert!(activated(&world, &with(Evidence::Made(ca))).1.accepted);
    world.stop_and_verify();
}

#[test]
fn a_list_that_cannot_be_read_whole_is_refused_and_so_is_anyone_but_an_administrator() {
    let (world, _) = world("OFF", json!({}));
    let unknown = list(&world, &json!({ "12": { "status": "FINE" } }));
    assert_eq!(unknown.status, 422);
    let path = "/admin/v1/attestation/revocation-list";
    let body = json!({ "entries": {} });
    let by_bank = world.send(&Request::post(path, &body).by(&world.callers.bank));
    assert_eq!(by_bank.status, 403);
}

/// The serial number of a test CA's root certificate, in hexadecimal.
pub(crate) fn root_serial(ca: &TestCa) -> String {
    let root: Octets = serde_json::from_value(json!(ca.root())).unwrap();
    let id = engine::key::PublicKey::from_bytes(&root.0).unwrap().id();
    id.0[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_search_backwards_names_whose_evidence_holds_a_revoked_certificate_or_breaks_a_policy() {
    let (world, ca) = world("OPTIONAL", json!({}));
    let (phone, _, _) = activated(&world, &with(Evidence::Made(ca.clone())));
    let id = phone.unwrap().registration_id();
    let (bare, _, _) = activated(&world, &with(Evidence::None));
    let (gone, _, _) = activated(&world, &with(Evidence::Made(ca.clone())));
    let path = format!("/v1/registrations/{}/deactivate", gone.unwrap().registration_id());
    world.side().bank_posts(&path, &json!({ "reason": "USER_REQUEST" }));
    assert!(bare.is_some());
    let (data, home) = (world.data(), world.home);
    world.server.stop();

    let list = |serial: &str| {
        let json = json!({ "entries": { serial: { "status": "SUSPENDED" } } }).to_string();
        RevocationList::parse(json.as_bytes(), Micros(0)).unwrap()
    };
    let ask = |question: Question| affected(&data, &question).unwrap().0;
    let (ours, other) = (list(&root_serial(&ca)), list("abcdef"));
    let found = ask(Question { list: Some(&ours), ..Question::default() });
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].registration, id);
    assert_eq!(found[0].certificates[0].1, ListStatus::Suspended);
    assert_eq!(ask(Question { list: Some(&other), ..Question::default() }), []);
    let mut policy = Policy { test_environment: true, ..Policy::default() };
    policy.test_roots = vec![root_key(&ca)];
    let under = |policy: &Policy, data: &Path| {
        let question = Question { policy: Some(policy), ..Question::default() };
        let found = affected(data, &question).unwrap().0;
        found.into_iter().map(|it| (it.registration, it.refused, it.basis)).collect::<Vec<_>>()
    };
    assert_eq!(under(&policy, &data), []);
    let reason = |reason| Some(Refused::Evidence(reason));
    let mut stricter = policy.clone();
    stricter.android.provisioning = ProvisioningRule::RemoteOnly;
    let factory = reason(Reason::FactoryChain);
    assert_eq!(under(&stricter, &data), [(id, factory, Basis::Evidence)]);
    // The package stands in the evidence alone; the facts say nothing of it.
    let mut other = policy.clone();
    other.android.packages = vec!["org.example.other".into()];
    let package = reason(Reason::PackageNotAllowed);
    assert_eq!(under(&other, &data), [(id, package, Basis::Evidence)]);
    let sealed = tempfile::tempdir().unwrap();
    crate::replay::copy(&data.join("log"), &sealed.path().join("log"));
    assert_eq!(under(&other, sealed.path()), []);
    assert_eq!(under(&stricter, sealed.path()), [(id, factory, Basis::Facts)]);
    let mut required = policy;
    required.android.mode = Mode::Required;
    let none = Some(Refused::NoEvidence);
    assert_eq!(under(&required, &data), [(bare.unwrap().registration_id(), none, Basis::Nothing)]);
    drop(home);
}

#[test]
fn a_search_backwards_finds_leaf_certificates_where_a_key_opens_the_evidence() {
    let (world, ca) = world("OPTIONAL", json!({}));
    let (phone, _, _) = activated(&world, &with(Evidence::Made(ca.clone())));
    let (_, _, _) = activated(&world, &with(Evidence::Made(ca)));
    let id = phone.as_ref().unwrap().registration_id();
    let leaf = phone.unwrap().hardware_key_id().unwrap().ok().unwrap();
    let (data, home) = (world.data(), world.home);
    world.server.stop();
    // The phone's authority numbers a leaf by its key; the parser reads it as it stands.
    let serial: String = leaf.0[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    let json = json!({ "entries": { serial: { "status": "REVOKED" } } }).to_string();
    let list = RevocationList::parse(json.as_bytes(), Micros(0)).unwrap();
    let ask = |dir: &Path, keys: Option<&Path>| {
        let question = Question { list: Some(&list), keys, ..Question::default() };
        let found = affected(dir, &question).unwrap().0;
        found.into_iter().map(|it| (it.registration, it.leaf)).collect::<Vec<_>>()
    };
    assert_eq!(ask(&data, None), [(id, Some(ListStatus::Revoked))]);
    let sealed = tempfile::tempdir().unwrap();
    crate::replay::copy(&data.join("log"), &sealed.path().join("log"));
    assert_eq!(ask(sealed.path(), None), []);
    assert_eq!(ask(sealed.path(), Some(&data.join("keys"))), [(id, Some(ListStatus::Revoked))]);
    let question = Question { list: Some(&list), keys: Some(sealed.path()), ..Question::default() };
    assert!(affected(&data, &question).unwrap_err().to_string().contains("no key store here"));
    drop(home);
}

fn root_key(ca: &TestCa) -> Vec<u8> {
    let root: Octets = serde_json::from_value(json!(ca.root())).unwrap();
    root.0
}

#[test]
fn only_an_application_for_tests_trusts_a_test_authority() {
    let ca = TestCa::generate(CHANCE).unwrap();
    // Named by mistake among the roots of makers.
    let world = World::with(json!({
        "attestation_android_mode": "REQUIRED",
        "attestation_android_further_roots": [ca.root()],
        "enabled_risk_data": ["attestation"],
    }));
    let (phone, _, activation) = activated(&world, &with(Evidence::Made(ca.clone())));
    assert!(phone.is_none());
    assert_eq!(seen(&activation).reason, Some(Reason::TestAuthority));
    let path = format!("/admin/v1/applications/{}", world.callers.application);
    let by = &world.callers.administrator;
    let change = |properties: Value| {
        let known: Value = world.send(&Request::get(&path).by(by)).ok();
        let version = &known["configuration_version"];
        let body = json!({ "version": version, "configuration": properties });
        world.send(&Request::new("PATCH", &format!("{path}/configuration")).json(&body).by(by))
    };
    let roots = json!([ca.root()]);
    let refused = change(json!({ "attestation_test_roots": roots }));
    assert_eq!(refused.status, 422, "{}", refused.text());
    assert!(refused.text().contains("unless attestation_test_environment is true"));
    let both = json!({ "attestation_test_environment": true, "attestation_test_roots": roots });
    assert_eq!(change(both).status, 200);
    assert!(activated(&world, &with(Evidence::Made(ca))).1.accepted);
    // It cannot become one for real users while it trusts the authority.
    assert_eq!(change(json!({ "attestation_test_environment": false })).status, 422);
    let neither = json!({ "attestation_test_environment": false, "attestation_test_roots": [] });
    assert_eq!(change(neither).status, 200);
    world.stop_and_verify();
}

#[test]
fn a_list_as_long_as_a_makers_is_taken_over_whatever_other_requests_may_have() {
    let (world, ca) = world("REQUIRED", json!({}));
    let mut entries = serde_json::Map::new();
    for number in 0..2_500_u64 {
        let serial = format!("{:032x}", u128::from(number) * 0x9e37_79b9_7f4a_7c15 + (1 << 100));
        entries.insert(serial, json!({ "status": "REVOKED", "reason": "KEY_COMPROMISE" }));
    }
    entries.insert(root_serial(&ca), json!({ "status": "SUSPENDED" }));
    let body = json!({ "entries": entries });
    assert!(body.to_string().len() > 3 * 65_536);
    let file = world.home.path().join("list.json");
    std::fs::write(&file, body.to_string()).unwrap();
    let key = world.home.path().join("administrator");
    std::fs::write(&key, &world.callers.administrator).unwrap();
    let out = std::process::Command::new(env!("CARGO_BIN_EXE_keytrail-tested"))
        .args(["attestation", "update-list", "--json", "--server"])
        .arg(format!("http://{}", world.address()))
        .arg("--api-key-file")
        .args([&key, &file])
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let taken: TakenList = serde_json::from_slice(&out.stdout).unwrap();
    assert!(taken.serials >= 2_501);
    let (phone, _, activation) = activated(&world, &with(Evidence::Made(ca)));
    assert!(phone.is_none());
    assert_eq!(seen(&activation).reason, Some(Reason::CertificateSuspended));
    // One byte more than a list may have; and the bound is this endpoint's alone.
    let path = "/admin/v1/attestation/revocation-list";
    let announced = |path: &str, length: usize| {
        let request = Request::new("POST", path).header("Content-Type", "application/json");
        let request = request.header("Content-Length", &length.to_string());
        world.send(&request.by(&world.callers.administrator)).status
    };
    assert_eq!(announced(path, LIST_MAX + 1), 413);
    assert_eq!(announced("/admin/v1/applications", 65_537), 413);
    let blanks = "{}".to_owned() + &" ".repeat(LIST_MAX - 2);
    let longest = Request::new("POST", path).header("Content-Type", "application/json");
    let longest = longest.octets(blanks.as_bytes()).by(&world.callers.administrator);
    assert_eq!(world.send(&longest).status, 422);
    world.stop_and_verify();
}

#[test]
fn what_a_search_finds_is_locked_as_events_unless_its_key_has_changed_since() {
    let (world, ca) = world("OPTIONAL", json!({}));
    let made = with(Evidence::Made(ca.clone()));
    let (kept, changed) =
        (activated(&world, &made).0.unwrap(), activated(&world, &made).0.unwrap());
    let copied = tempfile::tempdir().unwrap();
    crate::replay::copy(&world.data().join("log"), &copied.path().join("log"));
    let side = world.side();
    let again = format!("/v1/registrations/{}/activations", changed.registration_id());
    let requested: RequestedActivation = side.bank_posts(&again, &json!({})).ok();
    let redemption = Redemption::by_code(side.callers.application, &requested.code, None, CHANCE);
    let renewed = activate(&side.client, &redemption.unwrap(), &made, Some(&changed), CHANCE);
    assert!(renewed.unwrap().1.accepted);

    let file = |name: &str, text: &str| {
        let path = world.home.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let revoked = json!({ "entries": { root_serial(&ca): { "status": "REVOKED" } } });
    let list = file("list.json", &revoked.to_string());
    let lock = |key: &str| {
        let key = file("key", key);
        let out = std::process::Command::new(env!("CARGO_BIN_EXE_keytrail-tested"))
            .args(["attestation", "affected", "--json", "--lock", "--server"])
            .arg(format!("http://{}", world.address()))
            .args(["--list".as_ref(), list.as_os_str(), "--api-key-file".as_ref(), key.as_os_str()])
            .arg(copied.path())
            .output()
            .unwrap();
        let lines = String::from_utf8(out.stdout).unwrap();
        let lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let became = lines.map(|line| {
            let id: Id = serde_json::from_value(line["registration_id"].clone()).unwrap();
            (id, line["lock"].as_str().unwrap().to_owned())
        });
        (out.status.code(), became.collect::<BTreeMap<_, _>>())
    };
    let became = |kept_word: &str, changed_word: &str| {
        let words =
            [(kept.registration_id(), kept_word), (changed.registration_id(), changed_word)];
        words.map(|(id, word)| (id, word.to_owned())).into()
    };
    // Who is no service provider locks nothing.
    assert_eq!(lock(&world.callers.administrator), (Some(2), became("FAILED", "FAILED")));
    for _ in 0..2 {
        assert_eq!(lock(&world.callers.bank), (Some(1), became("LOCKED", "OTHER_KEY")));
    }
    let locked = side.seen_registration(kept.registration_id());
    assert_eq!(locked.lock_reason, Some(LockReason::KeyDistrusted));
    let open = side.seen_registration(changed.registration_id());
    assert_eq!((open.state, open.lock_reason), (RegistrationState::Active, None));
    let path = format!("/v1/registrations/{}/unlock", kept.registration_id());
    side.bank_posts(&path, &json!({})).ok::<Value>();
    drop(side);
    let report = world.stop_and_verify();
    assert_eq!(report.events["RegistrationLocked"], 1, "locked once, however often it was asked");
}

#[test]
fn a_new_hardware_key_is_vouched_for_too_and_its_verdict_is_repeated() {
    const PIN: &str = "2580";
    let (world, ca) = world("REQUIRED", json!({}));
    let side = world.side();
    let vouched = |evidence| AuthenticationOptions { evidence, ..by_pin(PIN) };
    let options =
        ActivationOptions { evidence: Evidence::Made(ca.clone()), ..with_pin(Hardware::Working) };
    let phone = side.phone(&options);
    let id = phone.registration_id();
    let first = side.seen_registration(id).hardware_key.unwrap().key_id;
    let rotate = ("ROTATE_HW_KEY", None);
    let foreign = TestCa::generate(CHANCE).unwrap();
    for evidence in [Evidence::None, Evidence::Made(foreign)] {
        let (_, operation) = changed(&side, &phone, rotate, &vouched(evidence), None);
        let failure = operation.attempts[0].failure;
        assert_eq!(failure, Some(AuthenticationFailure::AttestationRequired));
        assert_eq!(operation.state, OperationState::Failed);
        assert_eq!(side.seen_registration(id).hardware_key.unwrap().key_id, first);
    }
    let made = vouched(Evidence::Made(ca.clone()));
    let (phone, operation) = changed(&side, &phone, rotate, &made, None);
    assert_eq!(operation.state, OperationState::Completed);
    assert_ne!(side.seen_registration(id).hardware_key.unwrap().key_id, first);
    let seen = operation.risk.attestation.unwrap();
    assert_eq!((seen.status, seen.reason), (Status::Verified, None));
    assert!(side.log_in(&phone, &by_pin(PIN)).finished.accepted);
    drop(side);

    let leaf = phone.hardware_key_id().unwrap().ok().unwrap();
    let (data, home) = (world.data(), world.home);
    world.server.stop();
    let report = super::world::verified(&data);
    let attestation = report.level(Level::Attestation).unwrap();
    let counts = ["evidence", "repeated"].map(|name| attestation.count(name));
    assert_eq!(counts, [3, 3], "the activation, one that was refused, and the last");
    let serial: String = leaf.0[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    let json = json!({ "entries": { serial: { "status": "REVOKED" } } }).to_string();
    let list = RevocationList::parse(json.as_bytes(), Micros(0)).unwrap();
    let question = Question { list: Some(&list), ..Question::default() };
    let found = affected(&data, &question).unwrap().0;
    assert_eq!(found.len(), 1, "the certificate of the present key");
    assert_eq!((found[0].hardware_key, found[0].leaf), (Some(leaf), Some(ListStatus::Revoked)));
    drop(home);
}
