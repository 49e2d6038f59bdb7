//! Changing the keys of a live registration: one key, by one operation.
//!
//! ```text
//! hardware:  none --added--> on file --rotated (the old key signs too)--> on file
//!                              |  ^
//!                              +--+ replaced (the old key is lost: only where allowed)
//!
//! method:    none --added--> on file --replaced (a new PIN)--> on file --removed--> none
//! ```
//!
//! An operation of a kind that changes keys is asked, shown and answered like
//! any other, by two factors, with a method that the configuration allows for
//! it. What is signed names the key's place and the new key (and no other key: a
//! device knows that of its PIN only while it has the PIN, and a wrong one must
//! spoil one signature, not all). The new key signs too: a key whose possession was not proven is never
//! stored, whatever the strategy. The old key stays in force until the record
//! that names the new one is durable; both come from the same command.
//!
//! `DEVICE` never changes here: the key that stands for the phone itself is
//! replaced by a re-activation only.

use crate::attestation::activation;
use crate::command::{FinishAuthentication, Refusal};
use crate::config::Config;
use crate::entries::{Application, Operation, Registration};
use crate::events::{
    Event, HardwareKeyAddedV1, HardwareKeyReplacedV1, HardwareKeyRotatedV1, MethodAddedV1,
    MethodRemovedV1, MethodReplacedV1, NewKeyAttestedV1,
};
use crate::operation::hardware_check;
use crate::reasons::{AuthenticationFailure, KeyChange, OperationKind};
use crate::registration::has_repeats;
use crate::strategy::{Consequence, HardwareCheck};
use crate::terms::{Decision, HwKeyClientStatus, Level, Method, Role, Verdict};
use crate::transcript::NO_CONTENT;
use crate::version::ClientVersion;

/// Refuses to ask for a change that this registration cannot make; lets pass what
/// changes no key.
pub(crate) fn askable(
    application: &Application,
    registration: &Registration,
    kind: OperationKind,
    level: Level,
    target: Option<Method>,
) -> Result<(), Refusal> {
    let Some(change) = kind.key_change() else {
        return match target {
            None => Ok(()),
            Some(_) => invalid("target_method", "must be absent: this kind changes no method"),
        };
    };
    if level != Level::TwoFactor {
        return invalid("level", "must be TWO_FACTOR: keys change behind two factors only");
    }
    match (change.is_of_hardware(), target) {
        (true, Some(_)) => {
            return invalid("target_method", "must be absent: this kind changes no method");
        }
        (false, None | Some(Method::Device)) => {
            return invalid("target_method", "must be a method of two factors");
        }
        (true, None) | (false, Some(Method::DevicePin | Method::DeviceBiometric)) => (),
    }
    possible(&application.config, registration, change, target)
}

/// Methods of `offered` that may authorise this kind.
pub(crate) fn authorising(
    config: &Config,
    kind: OperationKind,
    mut offered: Vec<Method>,
) -> Vec<Method> {
    if kind.key_change().is_some() {
        offered.retain(|method| config.key_change_methods.contains(method));
    }
    offered
}

/// Refuses a change that keys on file or configuration stand against.
fn possible(
    config: &Config,
    registration: &Registration,
    change: KeyChange,
    target: Option<Method>,
) -> Result<(), Refusal> {
    let on_file = match target {
        Some(method) => registration.software_key(method).is_some(),
        None => registration.hardware.is_some(),
    };
    let another = registration
        .software
        .iter()
        .any(|slot| slot.method.level() == Level::TwoFactor && Some(slot.method) != target);
    let allowed = target.is_none_or(|method| config.allowed_methods.contains(&method));
    let reason = match change {
        KeyChange::AddHwKey if on_file => Some("a hardware key is on file"),
        KeyChange::RotateHwKey | KeyChange::ReplaceHwKey if !on_file => {
            Some("no hardware key is on file")
        }
        KeyChange::ReplaceHwKey if !config.allow_unproven_key_replacement => {
            Some("the application does not allow it")
        }
        KeyChange::AddHwKey | KeyChange::RotateHwKey | KeyChange::ReplaceHwKey => None,
        KeyChange::AddMethod if on_file => Some("the method has a key"),
        KeyChange::AddMethod | KeyChange::ReplaceMethod if !allowed => {
            Some("the application does not allow the method")
        }
        KeyChange::ReplaceMethod | KeyChange::RemoveMethod if !on_file => {
            Some("the method has no key")
        }
        KeyChange::RemoveMethod if !another => Some("no method of two factors would be left"),
        KeyChange::AddMethod | KeyChange::ReplaceMethod | KeyChange::RemoveMethod => None,
    };
    reason.map_or(Ok(()), |reason| Err(Refusal::KeyChange(reason)))
}

/// The change that an answer makes if it is accepted; none if it changes no key.
pub(crate) fn wanted(
    application: &Application,
    operation: &Operation,
    registration: &Registration,
    version: &ClientVersion,
    want: &FinishAuthentication,
) -> Result<Option<KeyChange>, Refusal> {
    let approved = want.said.decision == Decision::Approve;
    let of_hardware = operation.kind.key_change().is_some_and(KeyChange::is_of_hardware);
    let evidence = want.attestation_hash != NO_CONTENT || want.evidence.is_some();
    if evidence && !(approved && of_hardware) {
        return invalid("new_key", "must be a hardware key where evidence comes with it");
    }
    let Some(change) = operation.kind.key_change().filter(|_| approved) else {
        return match want.new_key {
            None => Ok(None),
            Some(_) => invalid("new_key", "must be absent: this answer changes no key"),
        };
    };
    let config = &application.config;
    possible(config, registration, change, operation.target)?;
    if change.is_of_hardware() && !version.is_at_least(&config.hw_key_min_client_version) {
        return Err(Refusal::ClientTooOld);
    }
    match (change.brings_key(), &want.new_key) {
        (false, Some(_)) => return invalid("new_key", "must be absent: a method is removed"),
        (true, None) => return invalid("new_key", "must be present: a key is awaited"),
        (false, None) | (true, Some(_)) => (),
    }
    let on_file = registration.software.iter().map(|slot| slot.key).chain(registration.hardware);
    if has_repeats(&on_file.chain(want.new_key).collect::<Vec<_>>()) {
        return invalid("new_key", "must differ from every key on file");
    }
    Ok(Some(change))
}

/// What follows from the hardware check: where a lost key is replaced, that the
/// lost key did not sign stands in nobody's way.
pub(crate) fn consequence(
    change: Option<KeyChange>,
    check: HardwareCheck,
    by_strategy: Consequence,
) -> Consequence {
    let lost = change == Some(KeyChange::ReplaceHwKey);
    if lost && check == HardwareCheck::Missing { Consequence::Pass } else { by_strategy }
}

/// Why keys do not change although the answer itself would be accepted.
pub(crate) fn failure(
    change: KeyChange,
    target: Option<Method>,
    check: HardwareCheck,
    want: &FinishAuthentication,
) -> Option<AuthenticationFailure> {
    if change == KeyChange::RotateHwKey && check != HardwareCheck::Valid {
        // Also under a strategy by which the check fails nothing.
        return Some(AuthenticationFailure::HwKeyCheckFailed);
    }
    let (role, method) = proof_of(target, want.method);
    let proven = want.new_key.is_none_or(|key| {
        want.verifications.iter().any(|checked| {
            checked.role == role
                && checked.method == method
                && checked.key == key
                && checked.verdict == Verdict::Valid
        })
    });
    (!proven).then_some(AuthenticationFailure::NewKeyUnproven)
}

/// Why a new hardware key does not enter although everything was signed as it must
/// be: another try brings the same evidence.
pub(crate) fn unattested(
    config: &Config,
    change: KeyChange,
    want: &FinishAuthentication,
) -> Option<AuthenticationFailure> {
    // The new key has signed, or there is another failure before this one.
    let passes = !change.is_of_hardware()
        || activation::passes(&config.attestation, want.evidence.as_ref(), true);
    (!passes).then_some(AuthenticationFailure::AttestationRequired)
}

/// How a new hardware key stands with attestation.
pub(crate) fn attestation(config: &Config, want: &FinishAuthentication) -> NewKeyAttestedV1 {
    let evidence = want.evidence.as_ref();
    // A device that brings a key can have one.
    let status = activation::status(&config.attestation, evidence, HwKeyClientStatus::Signed);
    NewKeyAttestedV1 { status, hash: want.attestation_hash, evidence: want.evidence.clone() }
}

/// Role and method in the transcript that the new key signs.
#[must_use]
pub fn proof_of(target: Option<Method>, answering: Method) -> (Role, Method) {
    match target {
        Some(method) => (Role::Software, method),
        None => (Role::Hardware, answering),
    }
}

/// The event by which the new key takes its place.
pub(crate) fn event(
    change: KeyChange,
    application: &Application,
    asked: &Operation,
    registration: &Registration,
    want: &FinishAuthentication,
) -> Option<Event> {
    let (operation, method, new) = (want.operation, asked.target, want.new_key);
    let attested = attestation(&application.config, want);
    let attestation = activation::attested(attested.status, attested.evidence.as_ref());
    let old = match method {
        Some(method) => registration.software_key(method).copied(),
        None => registration.hardware,
    };
    Some(match change {
        KeyChange::AddHwKey => HardwareKeyAddedV1 { operation, key: new?, attestation }.into(),
        KeyChange::RotateHwKey => {
            HardwareKeyRotatedV1 { operation, old_key: old?, key: new?, attestation }.into()
        }
        KeyChange::ReplaceHwKey => {
            let unproven_device = hardware_check(registration, want) != HardwareCheck::Valid;
            let (old_key, key) = (old?, new?);
            HardwareKeyReplacedV1 { operation, old_key, key, unproven_device, attestation }.into()
        }
        KeyChange::AddMethod => MethodAddedV1 { operation, method: method?, key: new? }.into(),
        KeyChange::ReplaceMethod => {
            MethodReplacedV1 { operation, method: method?, old_key: old?, key: new? }.into()
        }
        KeyChange::RemoveMethod => MethodRemovedV1 { operation, method: method?, key: old? }.into(),
    })
}

fn invalid<T>(field: &'static str, expected: &'static str) -> Result<T, Refusal> {
    Err(Refusal::Invalid { field, expected })
}
