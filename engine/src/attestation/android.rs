//! Android key attestation: the judge.
//!
//! Evidence is the chain that `KeyStore.getCertificateChain` returns, leaf
//! first: certificates in DER one after the other, or in PEM. Rules follow
//! developer.android.com, "Verify hardware-backed key pairs with key
//! attestation", and what Google's own verifier does where real phones differ
//! from it; `docs/attestation.md` says which and why.

use std::borrow::Cow;

use subtle::ConstantTimeEq;
use x509_parser::asn1_rs::{Oid, oid};
use x509_parser::certificate::X509Certificate;
use x509_parser::pem::Pem;

use crate::attestation::chain::{CHAIN_MAX, Chain};
use crate::attestation::description::{
    ApplicationId, KEY_DESCRIPTION, KeyDescription, RootOfTrust, Unreadable,
};
use crate::attestation::policy::{BootRule, ProvisioningRule};
use crate::attestation::{
    AndroidPolicy, BootState, EVIDENCE_MAX, Expected, Findings, Judgement, ListState, Provisioning,
    Reason, holds, roots,
};
use crate::key::PublicKey;

/// What Google's provisioning server writes into the certificates it issues
/// (source.android.com, "Remote Key Provisioning").
const PROVISIONING_INFO: Oid<'static> = oid!(1.3.6.1.4.1.11129.2.1.30);
/// `KM_PURPOSE_SIGN`.
const PURPOSE_SIGN: u64 = 2;
/// `KM_ORIGIN_GENERATED`: in the secure hardware.
const ORIGIN_GENERATED: u64 = 0;
/// Microseconds of a day.
const DAY: u64 = 86_400_000_000;

/// Judges a chain. Never fails and never panics, whatever the bytes.
#[must_use]
pub fn judge(evidence: &[u8], expected: &Expected) -> Judgement {
    let mut findings = Findings::default();
    if evidence.len() > EVIDENCE_MAX {
        findings.check("evidence", Err(Reason::EvidenceTooLarge));
        return findings.judged();
    }
    let der = match der(evidence) {
        Ok(der) => der,
        Err(reason) => {
            findings.check("evidence", Err(reason));
            return findings.judged();
        }
    };
    match Chain::read(&der) {
        Ok(chain) => {
            findings.check("evidence", Ok(()));
            chain.show(&mut findings);
            judge_chain(&chain, expected, &mut findings);
            judge_key(&chain, expected, &mut findings);
        }
        Err(reason) => findings.check("evidence", Err(reason)),
    }
    findings.judged()
}

/// The certificates in DER, one after the other.
fn der(evidence: &[u8]) -> Result<Cow<'_, [u8]>, Reason> {
    // DER of a certificate begins with a SEQUENCE, which no PEM does.
    if evidence.first() == Some(&0x30) {
        return Ok(Cow::Borrowed(evidence));
    }
    let mut der = Vec::with_capacity(evidence.len());
    for (index, pem) in Pem::iter_from_buffer(evidence).enumerate() {
        let pem = pem.map_err(|_| Reason::EvidenceUnreadable)?;
        if pem.label != "CERTIFICATE" {
            return Err(Reason::EvidenceUnreadable);
        }
        if index == CHAIN_MAX {
            return Err(Reason::ChainTooLong);
        }
        der.extend(pem.contents);
    }
    Ok(Cow::Owned(der))
}

/// Judges the certificates, without what the leaf says of its key.
fn judge_chain(chain: &Chain, expected: &Expected, findings: &mut Findings) {
    findings.check("chain_links", chain.links());
    findings.check("chain_signatures", chain.signatures());
    let policy = &expected.policy.android;
    let google = ("Google", &roots::GOOGLE[..]);
    let below_root = chain.judge_root(google, &policy.further_roots, findings);

    let provisioning = provisioning(chain);
    findings.facts.provisioning = Some(provisioning);
    judge_dates(chain, provisioning, below_root, expected, findings);
    judge_revocation(chain, expected, findings);
    match policy.provisioning {
        ProvisioningRule::Any => findings.not_made("provisioning"),
        ProvisioningRule::RemoteOnly => findings.check(
            "provisioning",
            holds(provisioning == Provisioning::Remote, Reason::FactoryChain),
        ),
    }
}

/// Where the attestation key came from. Both signs stand in certificates that
/// the maker's root vouches for, so a device cannot choose.
fn provisioning(chain: &Chain) -> Provisioning {
    let remote = chain.authorities().iter().any(|authority| {
        let marked = authority.iter_extensions().any(|found| found.oid == PROVISIONING_INFO);
        marked || is_provisioning_server(authority)
    });
    if remote { Provisioning::Remote } else { Provisioning::Factory }
}

/// Google's provisioning authorities: `O=Google LLC, CN=Droid CA…`.
fn is_provisioning_server(authority: &X509Certificate) -> bool {
    let subject = authority.subject();
    subject.iter_organization().any(|name| name.as_str() == Ok("Google LLC"))
        && subject
            .iter_common_name()
            .any(|name| name.as_str().is_ok_and(|name| name.starts_with("Droid CA")))
}

/// Remotely provisioned certificates live for days and are meant to end; those
/// of factories have ended in the field while their phones go on, and Google's
/// verifier no longer asks. Nobody asks of the leaf, whose dates are made up
/// by the device, nor of a root, which is trusted by its key.
fn judge_dates(
    chain: &Chain,
    provisioning: Provisioning,
    below_root: usize,
    expected: &Expected,
    findings: &mut Findings,
) {
    match provisioning {
        Provisioning::Factory => findings.not_made("dates"),
        Provisioning::Remote => {
            let counted = &chain.certificates()[1..below_root];
            findings.check("dates", Chain::dates(counted, expected.at));
        }
    }
}

fn judge_revocation(chain: &Chain, expected: &Expected, findings: &mut Findings) {
    let Some(list) = expected.list else {
        findings.facts.list = Some(ListState::Missing);
        return findings.not_made("revocation");
    };
    let age = expected.at.0.saturating_sub(list.taken_at.0);
    let age_max = u64::from(expected.policy.android.list_age_max_days) * DAY;
    let state = if age > age_max { ListState::Stale } else { ListState::Fresh };
    findings.facts.list = Some(state);
    findings.check("revocation", chain.not_revoked(list));
}

/// Judges the leaf's key and what its key description says.
fn judge_key(chain: &Chain, expected: &Expected, findings: &mut Findings) {
    let described = described(chain);
    // An authority with a key description is itself an attested key: someone
    // made it sign a certificate for a key of their own.
    let misplaced = chain.authorities().iter().any(has_description);
    findings.check("key_description_place", holds(!misplaced, Reason::KeyDescriptionMisplaced));
    let description = match described {
        Ok(description) => description,
        Err(reason) => return findings.check("key_description", Err(reason)),
    };
    findings.check("key_description", Ok(()));
    description.show(findings);
    match expected.challenge {
        Some(challenge) => findings.check(
            "challenge",
            holds(bool::from(description.challenge.ct_eq(challenge)), Reason::ChallengeMismatch),
        ),
        None => findings.not_made("challenge"),
    }
    judge_public_key(chain.leaf(), expected, findings);
    judge_rights(&description, findings);
    judge_device(&description, &expected.policy.android, findings);
    judge_application(&description, &expected.policy.android, findings);
}

fn has_description(certificate: &X509Certificate) -> bool {
    certificate.iter_extensions().any(|found| found.oid == KEY_DESCRIPTION)
}

/// The key description of the leaf.
fn described<'a>(chain: &'a Chain) -> Result<KeyDescription<'a>, Reason> {
    let mut found =
        chain.leaf().iter_extensions().filter(|extension| extension.oid == KEY_DESCRIPTION);
    let extension = found.next().ok_or(Reason::KeyDescriptionMissing)?;
    if found.next().is_some() {
        return Err(Reason::KeyDescriptionMisplaced);
    }
    KeyDescription::read(extension.value).map_err(|_| Reason::KeyDescriptionUnreadable)
}

fn judge_public_key(leaf: &X509Certificate, expected: &Expected, findings: &mut Findings) {
    let key = PublicKey::from_bytes(leaf.public_key().raw).map_err(|_| Reason::KeyNotP256);
    findings.check("key_curve", key.map(|_| ()));
    match (expected.hardware_key, key) {
        (Some(registered), Ok(key)) => {
            findings.check("hardware_key", holds(*registered == key, Reason::OtherKey));
        }
        (Some(_), Err(_)) => findings.check("hardware_key", Err(Reason::OtherKey)),
        (None, _) => findings.not_made("hardware_key"),
    }
}

/// What the secure hardware, and it alone, says the key may do. What Android
/// says of it counts for nothing: a rooted phone writes that list.
fn judge_rights(description: &KeyDescription, findings: &mut Findings) {
    let hardware = &description.hardware;
    let purpose = hardware
        .purposes()
        .map(|purposes| purposes.is_some_and(|purposes| purposes.contains(&PURPOSE_SIGN)));
    findings.check("purpose", holds_readably(purpose, Reason::PurposeNotSign));
    let origin = hardware.origin().map(|origin| origin == Some(ORIGIN_GENERATED));
    findings.check("origin", holds_readably(origin, Reason::OriginNotGenerated));
    let exportable = hardware.exportable() || description.software.exportable();
    findings.check("not_exportable", holds(!exportable, Reason::KeyExportable));
}

/// Where the key lives, and what state the system is in.
fn judge_device(description: &KeyDescription, policy: &AndroidPolicy, findings: &mut Findings) {
    let level = description.level();
    findings.facts.security_level = Some(level);
    findings.check(
        "security_level",
        holds(level >= policy.security_level, Reason::SecurityLevelTooLow),
    );
    let root = description.hardware.root_of_trust();
    if let Ok(Some(root)) = &root {
        findings.facts.boot_state = Some(root.state);
        findings.facts.device_locked = Some(root.device_locked);
    }
    judge_boot(&root, policy.boot, findings);
    let patch_level = description.hardware.os_patch_level();
    findings.facts.patch_level = patch_level.unwrap_or_default();
    match policy.patch_level_min {
        Some(min) => {
            let new = patch_level.map(|level| level.is_some_and(|level| level >= min));
            findings.check("patch_level", holds_readably(new, Reason::PatchLevelTooOld));
        }
        None => findings.not_made("patch_level"),
    }
}

fn judge_boot(
    root: &Result<Option<RootOfTrust>, Unreadable>,
    rule: BootRule,
    findings: &mut Findings,
) {
    let says = |rule: fn(&RootOfTrust) -> bool, otherwise| {
        holds_readably(root.map(|root| root.is_some_and(|root| rule(&root))), otherwise)
    };
    match rule {
        BootRule::Any => findings.not_made("device_locked"),
        BootRule::Locked | BootRule::LockedVerified => {
            findings.check("device_locked", says(|root| root.device_locked, Reason::DeviceUnlocked))
        }
    }
    match rule {
        BootRule::Any | BootRule::Locked => findings.not_made("boot_state"),
        BootRule::LockedVerified => {
            let verified = |root: &RootOfTrust| root.state == BootState::Verified;
            findings.check("boot_state", says(verified, Reason::BootNotVerified));
        }
    }
}

/// Which application may use the key. Android writes this itself, so it is
/// worth what the boot state is worth.
fn judge_application(
    description: &KeyDescription,
    policy: &AndroidPolicy,
    findings: &mut Findings,
) {
    let id = match description.software.application_id() {
        Ok(None) => description.hardware.application_id(),
        found => found,
    };
    let allowed = |rule: &dyn Fn(&ApplicationId) -> bool| {
        id.as_ref().map(|id| id.as_ref().is_some_and(rule)).map_err(|unreadable| *unreadable)
    };
    if policy.packages.is_empty() {
        findings.not_made("package");
    } else {
        let listed = allowed(&|id| {
            let name =
                |package: &[u8]| policy.packages.iter().any(|ours| ours.as_bytes() == package);
            id.packages.iter().any(|(package, _)| name(package))
        });
        findings.check("package", holds_readably(listed, Reason::PackageNotAllowed));
    }
    if policy.signers.is_empty() {
        findings.not_made("signer");
    } else {
        let listed = allowed(&|id| {
            id.signers.iter().any(|signer| policy.signers.iter().any(|ours| ours == signer))
        });
        findings.check("signer", holds_readably(listed, Reason::SignerNotAllowed));
    }
}

/// A value that a rule rests on and that cannot be read is a failure of its own.
fn holds_readably(condition: Result<bool, Unreadable>, otherwise: Reason) -> Result<(), Reason> {
    match condition {
        Ok(condition) => holds(condition, otherwise),
        Err(Unreadable) => Err(Reason::KeyDescriptionUnreadable),
    }
}
