//! Attestation through the whole server: the phone's test CA, what a service
//! provider sees, revocation lists.

use std::path::Path;

use api::device::{
    ActivationOptions, AuthenticationOptions, Evidence, Hardware, PACKAGE, Phone, TestCa, activate,
    authenticate,
};
use api::wire::Octets;
use api::wire::admin::RevocationList as TakenList;
use api::wire::device::FinishedActivation;
use api::wire::provider::{Activation, Attestation};
use engine::attestation::policy::ProvisioningRule;
use engine::attestation::revocation::{ListStatus, RevocationList};
use engine::attestation::{
    BootState, ListState, Platform, Policy, Provisioning, Reason, SecurityLevel, Status,
};
use engine::ids::Micros;
use engine::reasons::ActivationFailure;
use replay::affected::{Question, affected};
use serde_json::{Value, json};

use super::world::{CHANCE, World};
use crate::client::Request;

/// A world whose application trusts a test CA, and the CA.
fn world(mode: &str, more: Value) -> (World, TestCa) {
    let ca = TestCa::generate(CHANCE).unwrap();
    let mut configuration = json!({
        "attestation_android_mode": mode,
        "attestation_android_further_roots": [ca.root()],
        "attestation_android_packages": [PACKAGE],
        "enabled_risk_data": ["attestation"],
    });
    for (name, value) in more.as_object().unwrap() {
        configuration[name] = value.clone();
    }
    (World::with(configuration), ca)
}

/// Activates; what the phone is told, and what the service provider sees.
fn activated(
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

fn with(evidence: Evidence) -> ActivationOptions {
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
fn list(world: &World, entries: &Value) -> crate::client::Answer {
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
fn root_serial(ca: &TestCa) -> String {
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
    let found = ask(Question { list: Some(&ours), policy: None });
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].registration, id);
    assert_eq!(found[0].certificates[0].1, ListStatus::Suspended);
    assert_eq!(ask(Question { list: Some(&other), policy: None }), []);
    let default = Policy::default();
    assert_eq!(ask(Question { list: None, policy: Some(&default) }), []);
    let mut stricter = Policy::default();
    stricter.android.provisioning = ProvisioningRule::RemoteOnly;
    let found = ask(Question { list: None, policy: Some(&stricter) });
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].registration, found[0].refused), (id, Some(Reason::FactoryChain)));
    drop(home);
}
