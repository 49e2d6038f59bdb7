//! One line for people that says what an event is about.

use engine::attestation::Status;
use engine::events::{ActivationJudgedV1, Event, VerificationV1};
use engine::terms::Verdict;

/// What of `event` tells it from others of its type, on one line; may be empty.
/// The clear part names nobody, so neither does this.
#[must_use]
pub fn summary(event: &Event) -> String {
    match event {
        Event::LogStarted(e) => format!("{} by version {}", e.origin, e.software),
        Event::ClockStepped(e) => {
            format!("from {} to {}", crate::rfc3339(e.from), crate::rfc3339(e.to))
        }
        Event::RefusalsCounted(e) => format!(
            "not recognised {}, not live {}, codes {}, limited {}, credentials {}",
            e.not_recognised, e.not_live, e.codes, e.limited, e.credentials
        ),
        Event::ApiKeyCreated(e) => format!("{} {:?}", e.role, e.name),
        Event::ApiKeyRevoked(_) | Event::RegistrationUnlocked(_) => String::new(),
        Event::ApplicationCreated(e) => {
            format!("{:?} of {} {}", e.name, e.service_provider, properties(&e.properties))
        }
        Event::ConfigurationChanged(e) => {
            format!("version {} {}", e.version, properties(&e.properties))
        }
        Event::CodeBudgetExhausted(e) => {
            format!("{} after {} until {}", e.scope, e.failures, crate::rfc3339(e.until))
        }
        Event::ActivationRequested(e) => {
            format!("activation {}{}", e.activation, if e.again { ", again" } else { "" })
        }
        Event::ActivationStarted(e) => {
            format!("activation {} with {}, client {}", e.activation, e.with, e.client_version)
        }
        Event::ActivationJudged(e) => format!(
            "activation {}: {}, hardware key {}, {}{}",
            e.activation,
            e.failure.map_or_else(|| "accepted".to_owned(), |failure| failure.to_string()),
            e.hw_key_server_result,
            attestation(e),
            verdicts(&e.verifications)
        ),
        Event::ActivationExpired(e) => format!("activation {}", e.activation),
        Event::ActivationCancelled(e) => format!("activation {}: {}", e.activation, e.reason),
        Event::RegistrationLocked(e) => match e.release_at {
            Some(at) => format!("{} until {}", e.reason, crate::rfc3339(at)),
            None => e.reason.to_string(),
        },
        Event::LockReleased(e) => format!("failures {}", e.failures),
        Event::DeviceBlocked(e) => format!("device {}: {}", e.device, e.reason),
        Event::DeviceUnblocked(e) => format!("device {}", e.device),
        Event::InactiveDeactivated(e) => format!(
            "{} of {} after {} days, limit {}, {} confirmed",
            e.ended, e.due, e.after_days, e.limit, e.confirmed
        ),
        Event::InactivityConfirmed(e) => {
            format!("{} until {}", e.registrations, crate::rfc3339(e.until))
        }
        Event::RegistrationDeactivated(e) => e.reason.to_string(),
        Event::HardwareKeyAdded(e) => format!("operation {}", e.operation),
        Event::HardwareKeyRotated(e) => format!("operation {}", e.operation),
        Event::HardwareKeyReplaced(e) if e.unproven_device => {
            format!("operation {}, without a signature by the lost key", e.operation)
        }
        Event::HardwareKeyReplaced(e) => format!("operation {}", e.operation),
        Event::MethodAdded(e) => format!("operation {}: {}", e.operation, e.method),
        Event::MethodReplaced(e) => format!("operation {}: {}", e.operation, e.method),
        Event::MethodRemoved(e) => format!("operation {}: {}", e.operation, e.method),
        Event::RecoveryCodesIssued(e) => format!("{} codes with {}", e.codes.len(), e.set),
        Event::RecoveryStarted(e) => {
            format!("activation {} in the place of registration {}", e.activation, e.recovers)
        }
        Event::RecoveryCodeRedeemed(e) => format!("by activation {}", e.activation),
        Event::RecoveryCodeRefused(e) => {
            format!("failures {}/{}", e.failures, e.failures_allowed)
        }
        Event::DeviceNamed(e) => {
            let by = if e.by.is_some() { "the service provider" } else { "the device" };
            format!("by {by}{}", if e.named { "" } else { ": no name" })
        }
        Event::OperationCreated(e) => {
            let of = e.broadcast.map_or_else(String::new, |id| format!(", broadcast {id}"));
            format!("operation {} {} {}{of}", e.operation, e.kind, e.level)
        }
        Event::ChallengeIssued(e) => {
            format!("operation {}, client {}", e.operation, e.client_version)
        }
        Event::AuthenticationJudged(e) => format!(
            "operation {}: {} by {}, {}, hardware key {}, {}, failures {}/{}",
            e.operation,
            e.decision,
            e.method,
            e.failure.map_or_else(|| "accepted".to_owned(), |failure| failure.to_string()),
            e.hw_key_server_result,
            verdicts(&e.verifications),
            e.failures,
            e.failures_allowed
        ),
        Event::OperationExpired(e) => format!("operation {}", e.operation),
        Event::OperationCancelled(e) => format!("operation {}: {}", e.operation, e.reason),
        Event::OfflineAsked(e) => format!("operation {}", e.operation),
        Event::OfflineJudged(e) => format!(
            "operation {} {} by {} {}, no signature, failures {}/{}",
            e.operation,
            e.operation_state,
            e.method,
            e.failure.map_or_else(|| "accepted".to_owned(), |failure| failure.to_string()),
            e.failures,
            e.failures_allowed
        ),
        Event::PushAddressSet(e) => if e.present { "set" } else { "removed" }.to_owned(),
        Event::OperationBegun(e) => format!("operation {} {} {}", e.operation, e.kind, e.level),
        Event::OperationAnsweredElsewhere(e) => {
            format!("operation {}: {} was answered", e.operation, e.answered)
        }
        Event::ErasureOrdered(e) => e.reason.to_string(),
        Event::SubjectErased(e) if e.again => {
            "again: the key had come back with an older copy of the key store".to_owned()
        }
        Event::SubjectErased(_) => "the key is destroyed".to_owned(),
        Event::KeyUseCounted(e) => {
            format!("service provider {}, device {}", e.service_provider, e.device)
        }
        Event::ExportMade(e) => {
            let by = e.by.as_ref().map_or_else(|| e.operator.clone(), |by| by.api_key.to_string());
            format!("{} of records {}..{} by {by}", e.form, e.from.0, e.to.0)
        }
        Event::DataRevealed(e) => {
            let whose =
                e.subject.map_or_else(|| "everyone".to_owned(), |id| format!("subject {id}"));
            format!("{whose}, records {}..{}: {}, {}", e.from.0, e.to.0, e.reason, e.case)
        }
        Event::RevocationListTaken(e) => format!(
            "part {} of {}, {} entries, file {}",
            e.part + 1,
            e.parts,
            e.entries.len(),
            crate::hex(&e.hash)
        ),
        Event::KeyRotated(e) => format!("checkpoints over more than {} records", e.size),
        Event::ClockConfirmed(e) if e.suspended => "a suspension ends".to_owned(),
        Event::ClockConfirmed(_) => "nothing was suspended".to_owned(),
        Event::StateDigested(e) => {
            format!("state before record {}: {}", e.position.0, crate::hex(&e.digest))
        }
        Event::EpochBegun(e) => match e.lost() {
            Some((first, last)) => format!("{}; records {first} to {last} are lost", e.origin),
            None => format!("{}; another history is lost", e.origin),
        },
    }
}

/// How an activation stands with attestation; nothing where nobody asked.
fn attestation(judged: &ActivationJudgedV1) -> String {
    let reason = judged.evidence.as_ref().and_then(|evidence| evidence.reason);
    match (judged.attestation, reason) {
        (Status::NotChecked, _) => String::new(),
        (status, None) => format!("attestation {status}, "),
        (status, Some(reason)) => format!("attestation {status} {reason}, "),
    }
}

fn properties(properties: &[(String, String)]) -> String {
    let set: Vec<String> =
        properties.iter().map(|(name, value)| format!("{name}={value}")).collect();
    set.join(" ")
}

fn verdicts(verifications: &[VerificationV1]) -> String {
    let valid = verifications.iter().filter(|one| one.verdict == Verdict::Valid).count();
    format!("{valid} of {} signatures valid", verifications.len())
}
