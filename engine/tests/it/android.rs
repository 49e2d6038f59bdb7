//! Android key attestation against chains that real phones made.
//!
//! The files are not part of this repository; see `nist.rs` for where they are
//! looked for. What they hold was found by another reader (`EXPECTED-android.json`)
//! and by Google's (a JSON beside each chain).

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use engine::attestation::android::judge;
use engine::attestation::policy::{BootRule, ProvisioningRule};
use engine::attestation::revocation::RevocationList;
use engine::attestation::{
    AndroidPolicy, Expected, Judgement, ListState, Outcome, Policy, Provisioning, Reason,
    SecurityLevel,
};
use engine::ids::Micros;
use serde_json::Value;

use crate::{root, unhex};

/// 2025-10-01T00:00:00Z: within the dates of the remotely provisioned chains of 2025.
const OCTOBER_2025: Micros = Micros(1_759_276_800_000_000);
/// 2026-07-10T00:00:00Z: the same for those of 2026.
const JULY_2026: Micros = Micros(1_783_641_600_000_000);
/// Microseconds of a day.
const DAY: u64 = 86_400_000_000;

/// The folder of vectors; none if it is not there and was not named.
fn vectors() -> Option<PathBuf> {
    let named = env::var_os("KEYTRAIL_VECTORS").map(PathBuf::from);
    let folder = named.clone().unwrap_or_else(|| root().join("../shared/vectors"));
    if named.is_none() && !folder.join("EXPECTED-android.json").exists() {
        println!("skipped: no Android chains (set KEYTRAIL_VECTORS)");
        return None;
    }
    Some(folder)
}

/// The evidence in a file: PEM as it stands, or the `x5c` of a JSON.
fn evidence(name: &str) -> Option<Vec<u8>> {
    let octets = fs::read(vectors()?.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    if name.ends_with(".pem") {
        return Some(octets);
    }
    let json: Value = serde_json::from_slice(&octets).unwrap();
    let chain = json["x5c"].as_array().unwrap().iter();
    Some(
        chain
            .flat_map(|der| {
                let text = der.as_str().unwrap().trim_end_matches('=');
                let plain = text.replace('+', "-").replace('/', "_");
                URL_SAFE_NO_PAD.decode(plain).unwrap()
            })
            .collect(),
    )
}

/// A policy that asks for nothing that a policy can ask for.
fn lenient() -> Policy {
    Policy {
        android: AndroidPolicy {
            security_level: SecurityLevel::Software,
            boot: BootRule::Any,
            ..AndroidPolicy::default()
        },
        ..Policy::default()
    }
}

fn judged(evidence: &[u8], policy: &Policy, at: Micros) -> Judgement {
    judge(evidence, &Expected { challenge: None, hardware_key: None, at, policy, list: None })
}

fn fields(judgement: &Judgement) -> BTreeMap<&str, &str> {
    judgement.fields.iter().map(|field| (field.name.as_str(), field.value.as_str())).collect()
}

/// Every chain of `EXPECTED-android.json`: when it is judged, and what comes of
/// it under the lenient policy and under the default one.
const VERDICTS: &[(&str, Micros, Option<Reason>, Option<Reason>)] = {
    use Reason::{ChainAlgorithm, ChainSignature, DeviceUnlocked, KeyNotP256, RootUnknown};
    &[
        ("allow_while_on_body.pem", JULY_2026, Some(RootUnknown), Some(RootUnknown)),
        ("blueline/sdk28/SB_RSA_NONE.pem", JULY_2026, Some(KeyNotP256), Some(KeyNotP256)),
        ("blueline/sdk28/SB_RSA_NONE_USERAUTH.pem", JULY_2026, Some(KeyNotP256), Some(KeyNotP256)),
        // Its intermediates and its root certificate have ended: a factory chain.
        ("blueline/sdk28/TEE_EC_NONE.pem", JULY_2026, None, Some(DeviceUnlocked)),
        ("blueline/sdk28/TEE_RSA_BASE+IMEI.pem", JULY_2026, Some(KeyNotP256), Some(KeyNotP256)),
        ("blueline/sdk28/TEE_RSA_NONE.pem", JULY_2026, Some(KeyNotP256), Some(KeyNotP256)),
        ("caiman/sdk36/SB_EC_RKP.pem", OCTOBER_2025, None, None),
        ("caiman/sdk36/TEE_EC_RKP.pem", OCTOBER_2025, None, None),
        (
            "invalid/tags_not_in_ascending_order.pem",
            JULY_2026,
            Some(ChainSignature),
            Some(ChainSignature),
        ),
        ("marlin/sdk29/TEE_EC_NONE.pem", JULY_2026, Some(RootUnknown), Some(RootUnknown)),
        // Software's authority signs with an RSA key of 1,024 bits.
        ("marlin/sdk29/TEE_RSA_NONE.pem", JULY_2026, Some(ChainAlgorithm), Some(ChainAlgorithm)),
        ("p256_sha384_intermediate.pem", JULY_2026, Some(RootUnknown), Some(RootUnknown)),
        ("tegu/sdk37/TEE_MAX_USAGE_COUNT.pem", JULY_2026, None, Some(DeviceUnlocked)),
        ("tegu/sdk37/TEE_TRUSTED_CONF.pem", JULY_2026, None, Some(DeviceUnlocked)),
        ("../asitplus-warden/aksattest.json", JULY_2026, Some(KeyNotP256), Some(KeyNotP256)),
    ]
};

fn outcome(refused: Option<Reason>) -> Outcome {
    refused.map_or(Outcome::Accepted, Outcome::Refused)
}

#[test]
fn every_real_chain_has_its_verdict() {
    for &(name, at, lenient_reason, default_reason) in VERDICTS {
        let Some(evidence) = evidence(&format!("android-keyattestation/{name}")) else { return };
        assert_eq!(judged(&evidence, &lenient(), at).outcome, outcome(lenient_reason), "{name}");
        let default = judged(&evidence, &Policy::default(), at);
        assert_eq!(default.outcome, outcome(default_reason), "{name}");
    }
}

#[test]
fn every_real_chain_is_read_as_another_reader_read_it() {
    let Some(folder) = vectors() else { return };
    let text = fs::read_to_string(folder.join("EXPECTED-android.json")).unwrap();
    let all: BTreeMap<String, Value> = serde_json::from_str(&text).unwrap();
    assert_eq!(all.len(), VERDICTS.len());
    let mut compared = 0;
    for (name, expected) in &all {
        let judgement = judged(&evidence(name).unwrap(), &lenient(), JULY_2026);
        let fields = fields(&judgement);
        let certificates = expected["certs"].as_u64().unwrap();
        assert_eq!(judgement.authorities.len() as u64 + 1, certificates, "{name}");
        if expected["attestationVersion"].is_null() {
            continue;
        }
        for (ours, theirs) in [
            ("attestation_version", &expected["attestationVersion"]),
            ("keymint_version", &expected["keyMintVersion"]),
            ("hardware_enforced.os_version", &expected["osVersion"]),
            ("hardware_enforced.os_patch_level", &expected["osPatchLevel"]),
        ] {
            let ours = fields.get(format!("key_description.{ours}").as_str());
            assert_eq!(ours.map(|text| text.parse().unwrap()), theirs.as_u64(), "{name}");
        }
        compare_words(name, &fields, expected);
        compare_application(name, &fields, expected);
        compared += 1;
    }
    assert_eq!(compared, 13);
}

fn compare_words(name: &str, fields: &BTreeMap<&str, &str>, expected: &Value) {
    let field = |suffix: &str| fields.get(format!("key_description.{suffix}").as_str()).copied();
    let level = expected["attestationSecurityLevel"].as_str();
    assert_eq!(field("attestation_security_level"), level, "{name}");
    let level = expected["keyMintSecurityLevel"].as_str();
    assert_eq!(field("keymint_security_level"), level, "{name}");
    let challenge = STANDARD.decode(expected["challengeB64"].as_str().unwrap()).unwrap();
    assert_eq!(unhex(field("attestation_challenge").unwrap()), challenge, "{name}");
    assert_eq!(field("hardware_enforced.origin"), Some("0"), "{name}");
    let root = &expected["rootOfTrust"];
    let locked = field("hardware_enforced.root_of_trust.device_locked").map(|text| text == "true");
    assert_eq!(locked, root["deviceLocked"].as_bool(), "{name}");
    let state = field("hardware_enforced.root_of_trust.verified_boot_state");
    assert_eq!(state, root["verifiedBootState"].as_str(), "{name}");
}

fn compare_application(name: &str, fields: &BTreeMap<&str, &str>, expected: &Value) {
    let list = "key_description.software_enforced.attestation_application_id";
    let packages: Vec<String> = (0..)
        .map_while(|index| {
            let package = fields.get(format!("{list}.packages[{index}].name").as_str())?;
            let version = fields.get(format!("{list}.packages[{index}].version").as_str())?;
            Some(format!("{package}:{version}"))
        })
        .collect();
    assert_eq!(serde_json::json!(packages), expected["packages"], "{name}");
    let signers: Vec<String> = (0..)
        .map_while(|index| {
            let signer = fields.get(format!("{list}.signatures[{index}]").as_str())?;
            Some(STANDARD.encode(unhex(signer)))
        })
        .collect();
    assert_eq!(serde_json::json!(signers), expected["signatureDigests"], "{name}");
}

/// Google's names of scalar authorisations, and ours.
const NAMES: &[(&str, &str)] = &[
    ("algorithms", "algorithm"),
    ("keySize", "key_size"),
    ("rsaPublicExponent", "rsa_public_exponent"),
    ("ecCurve", "ec_curve"),
    ("usageCountLimit", "usage_count_limit"),
    ("noAuthRequired", "no_auth_required"),
    ("userAuthType", "user_auth_type"),
    ("authTimeout", "auth_timeout"),
    ("trustedConfirmationRequired", "trusted_confirmation_required"),
    ("creationDateTime", "creation_date_time"),
    ("osVersion", "os_version"),
    ("osPatchLevel", "os_patch_level"),
    ("vendorPatchLevel", "vendor_patch_level"),
    ("bootPatchLevel", "boot_patch_level"),
    ("attestationIdBrand", "attestation_id_brand"),
    ("attestationIdDevice", "attestation_id_device"),
    ("attestationIdProduct", "attestation_id_product"),
    ("attestationIdImei", "attestation_id_imei"),
    ("attestationIdManufacturer", "attestation_id_manufacturer"),
    ("attestationIdModel", "attestation_id_model"),
];

#[test]
fn every_authorisation_is_read_as_google_reads_it() {
    let Some(folder) = vectors() else { return };
    let mut compared = 0;
    for (name, ..) in VERDICTS {
        let path = folder.join("android-keyattestation").join(name.replace(".pem", ".json"));
        if !name.ends_with(".pem") || !path.exists() {
            continue;
        }
        let expected: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
        let evidence = evidence(&format!("android-keyattestation/{name}")).unwrap();
        let judgement = judged(&evidence, &lenient(), JULY_2026);
        let fields = fields(&judgement);
        for (theirs, ours) in
            [("softwareEnforced", "software_enforced"), ("hardwareEnforced", "hardware_enforced")]
        {
            for (google, keytrail) in NAMES {
                let value = &expected[theirs][google];
                let field = fields.get(format!("key_description.{ours}.{keytrail}").as_str());
                let text = value.as_str().map(ToOwned::to_owned);
                let text = text.or_else(|| value.as_bool().map(|flag| flag.to_string()));
                assert_eq!(field.map(ToString::to_string), text, "{name} {theirs}.{google}");
                compared += usize::from(field.is_some());
            }
            let purposes: Option<Vec<&str>> = expected[theirs]["purposes"]
                .as_array()
                .map(|list| list.iter().map(|item| item.as_str().unwrap()).collect());
            let field = fields.get(format!("key_description.{ours}.purposes").as_str());
            assert_eq!(field.copied(), purposes.map(|list| list.join(", ")).as_deref(), "{name}");
        }
    }
    assert!(compared > 100, "{compared} values were compared");
}

#[test]
fn what_can_name_a_device_is_marked_private() {
    let name = "android-keyattestation/blueline/sdk28/TEE_RSA_BASE+IMEI.pem";
    let Some(evidence) = evidence(name) else { return };
    let judgement = judged(&evidence, &lenient(), JULY_2026);
    for field in &judgement.fields {
        let names_a_device = field.name.contains("attestation_id_")
            || field.name.ends_with("unique_id")
            || field.name == "certificates[0].serial"
            || field.name == "certificates[0].subject";
        assert_eq!(field.private, names_a_device, "{}", field.name);
    }
    assert!(judgement.fields.iter().any(|field| field.value == "990012001354866"));
}

#[test]
fn a_remote_chain_counts_only_within_its_dates_and_a_factory_chain_always() {
    let (remote, factory) = ("caiman/sdk36/TEE_EC_RKP.pem", "blueline/sdk28/TEE_EC_NONE.pem");
    let Some(remote) = evidence(&format!("android-keyattestation/{remote}")) else { return };
    let factory = evidence(&format!("android-keyattestation/{factory}")).unwrap();
    // 2025-10-03T15:31:19Z, when the first of its authorities ends.
    let end = Micros(1_759_505_479_000_000);
    let second = 1_000_000;
    for (at, found) in [
        (end, None),
        (Micros(end.0 + second), Some(Reason::CertificateExpired)),
        (Micros(end.0 - 30 * DAY), Some(Reason::CertificateNotYetValid)),
    ] {
        let judgement = judged(&remote, &Policy::default(), at);
        assert_eq!(judgement.outcome, outcome(found), "{at:?}");
        assert_eq!(judgement.facts.provisioning, Some(Provisioning::Remote));
        assert_eq!(judged(&factory, &lenient(), at).outcome, Outcome::Accepted);
    }
    let judgement = judged(&factory, &lenient(), end);
    assert_eq!(judgement.facts.provisioning, Some(Provisioning::Factory));
    let mut policy = lenient();
    policy.android.provisioning = ProvisioningRule::RemoteOnly;
    let refused = Outcome::Refused(Reason::FactoryChain);
    assert_eq!(judged(&factory, &policy, end).outcome, refused);
    assert_eq!(judged(&remote, &policy, end).outcome, Outcome::Accepted);
}

#[test]
fn a_chain_without_its_root_certificate_is_as_good_as_with_it() {
    for name in ["caiman/sdk36/SB_EC_RKP.pem", "tegu/sdk37/TEE_TRUSTED_CONF.pem"] {
        let Some(whole) = evidence(&format!("android-keyattestation/{name}")) else { return };
        let at = if name.starts_with("caiman") { OCTOBER_2025 } else { JULY_2026 };
        let text = String::from_utf8(whole).unwrap();
        let rootless = &text[..text.rfind("-----BEGIN").unwrap()];
        let judgement = judged(rootless.as_bytes(), &lenient(), at);
        assert_eq!(judgement.outcome, Outcome::Accepted, "{name}");
        assert_eq!(judgement.authorities.len(), 3, "{name}");
        // One more missing, and nothing leads to a root.
        let short = &rootless[..rootless.rfind("-----BEGIN").unwrap()];
        let refused = Outcome::Refused(Reason::RootUnknown);
        assert_eq!(judged(short.as_bytes(), &lenient(), at).outcome, refused, "{name}");
    }
}

#[test]
fn a_chain_is_refused_for_a_foreign_challenge_and_for_another_key() {
    let Some(chain) = evidence("android-keyattestation/caiman/sdk36/TEE_EC_RKP.pem") else {
        return;
    };
    let policy = Policy::default();
    let ours = b"d688d763-6118-4ca6-94b2-e6cd9ed7e4e4";
    let nobody = engine::key::PublicKey::dummy();
    let expected = Expected {
        challenge: Some(ours),
        hardware_key: None,
        at: OCTOBER_2025,
        policy: &policy,
        list: None,
    };
    assert_eq!(judge(&chain, &expected).outcome, Outcome::Accepted);
    let foreign = Expected { challenge: Some(&[7; 32]), ..expected };
    assert_eq!(judge(&chain, &foreign).outcome, Outcome::Refused(Reason::ChallengeMismatch));
    let other = Expected { hardware_key: Some(&nobody), ..expected };
    assert_eq!(judge(&chain, &other).outcome, Outcome::Refused(Reason::OtherKey));
}

#[test]
fn the_suspended_certificate_of_googles_sample_list_is_found() {
    let Some(chain) = evidence("google-android-key-attestation/suspended_test_cert.pem") else {
        return;
    };
    let list = vectors().unwrap().join("google-android-key-attestation/status.json");
    let list = RevocationList::parse(&fs::read(list).unwrap(), JULY_2026).unwrap();
    let policy = lenient();
    let expected = Expected {
        challenge: None,
        hardware_key: None,
        at: JULY_2026,
        policy: &policy,
        list: Some(&list),
    };
    let judgement = judge(&chain, &expected);
    let check = judgement.checks.iter().find(|check| check.name == "revocation").unwrap();
    let suspended = engine::attestation::CheckResult::Failed(Reason::CertificateSuspended);
    assert_eq!(check.result, suspended);
    assert_eq!(judgement.facts.list, Some(ListState::Fresh));
}
