//! The command that records came from.
//!
//! The records of a command hold everything `decide` was given. So anyone can
//! ask it again: `decide(state, command_of(records)) == records`. `verify`
//! rests on this, and so does the question what another rule would have done.

use crate::attestation::lists::ListEntry;
use crate::command::{
    AskOffline, BeginOperation, BlockDevice, ChangeConfiguration, Command, CreateApiKey,
    CreateApplication, CreateOperation, DeactivateInactive, FinishActivation, FinishAuthentication,
    FinishOffline, NameDevice, OrderErasure, RequestActivation, SetPushAddress, StartActivation,
    StartAuthentication, StartLog, StartRecovery, TakeRevocationList, Want,
};
use crate::events::{Event, EventError, OperationCreatedV1, RecoveryCodesIssuedV1};
use crate::ids::Id;
use crate::machine::Record;
use crate::reasons::{CancelReason, LockReason};
use crate::transcript::NO_CONTENT;

/// Why records are not those of a command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InverseError {
    /// There are none.
    #[error("no records")]
    Empty,
    /// A record cannot be read.
    #[error(transparent)]
    Event(#[from] EventError),
    /// No command begins with such an event.
    #[error("no command begins with {0}")]
    Orphan(&'static str),
}

/// The command that made `records`: all records of one causation, in order.
///
/// # Errors
///
/// [`InverseError`] if no command makes such records. That what it returns
/// makes exactly these is for `decide` to say.
pub fn command_of(records: &[Record]) -> Result<Command, InverseError> {
    let first = records.first().ok_or(InverseError::Empty)?;
    let event = decode(first)?;
    let orphan = InverseError::Orphan(event.name());
    let stream = first.draft.stream;
    let sealed = first.draft.sealed.clone();
    let want = match event {
        Event::LogStarted(payload) => {
            let key = records.get(1).ok_or(orphan)?;
            let Event::ApiKeyCreated(created) = decode(key)? else {
                return Err(InverseError::Orphan("LogStarted"));
            };
            Want::StartLog(StartLog {
                origin: payload.origin,
                software: payload.software,
                key: key.draft.stream,
                secret_hash: created.secret_hash,
            })
        }
        Event::ClockStepped(payload) => Want::NoteClockStep { from: payload.from, to: payload.to },
        Event::RefusalsCounted(payload) => Want::CountRefusals(*payload),
        Event::KeyUseCounted(payload) => Want::CountKeyUse(*payload),
        Event::ClockConfirmed(payload) => Want::ConfirmClock(*payload),
        Event::ExportMade(payload) => Want::RecordExport(*payload),
        Event::DataRevealed(payload) => Want::Reveal(*payload),
        Event::StateDigested(payload) => Want::NoteStateDigest(*payload),
        Event::KeyRotated(payload) => Want::RotateKey(payload),
        Event::EpochBegun(payload) => Want::BeginEpoch(payload),
        Event::ApiKeyCreated(payload) => Want::CreateApiKey(CreateApiKey {
            by: payload.by.ok_or(orphan)?,
            key: stream,
            role: payload.role,
            service_provider: payload.service_provider,
            name: payload.name,
            secret_hash: payload.secret_hash,
        }),
        Event::ApiKeyRevoked(payload) => Want::RevokeApiKey { by: payload.by, key: stream },
        Event::ApplicationCreated(payload) => Want::CreateApplication(CreateApplication {
            by: payload.by,
            application: stream,
            name: payload.name,
            service_provider: payload.service_provider,
            properties: payload.properties,
        }),
        Event::ConfigurationChanged(payload) => Want::ChangeConfiguration(ChangeConfiguration {
            by: payload.by,
            application: stream,
            version: payload.version.checked_sub(1).ok_or(orphan)?,
            properties: payload.properties,
        }),
        Event::CodeBudgetExhausted(payload) => Want::ExhaustCodeBudget {
            application: stream,
            scope: payload.scope,
            until: payload.until,
            failures: payload.failures,
        },
        Event::ActivationRequested(payload) => Want::RequestActivation(RequestActivation {
            by: payload.by,
            application: payload.application,
            registration: stream,
            again: payload.again,
            activation: payload.activation,
            code_hash: payload.code_hash,
            qr_hash: payload.qr_hash,
            subject: first.draft.subject,
            sealed,
        }),
        Event::ActivationStarted(payload) => Want::StartActivation(StartActivation {
            activation: payload.activation,
            with: payload.with,
            nonce_hash: payload.nonce_hash,
            challenge: payload.challenge,
            client_version: payload.client_version,
        }),
        Event::ActivationJudged(payload) => Want::FinishActivation(Box::new(FinishActivation {
            activation: payload.activation,
            challenge: payload.challenge,
            declared: payload.declared,
            keys: payload.keys,
            device_token_hash: payload.device_token_hash,
            attestation_hash: payload.attestation_hash,
            device_hash_hash: payload.device_hash_hash,
            device: payload.device,
            body_digest: payload.body_digest,
            verifications: payload.verifications,
            evidence: payload.evidence,
            name: name_given(records)?,
            recovery: codes_issued(records)?,
            sealed,
        })),
        Event::ActivationExpired(payload) => Want::ExpireActivation(payload.activation),
        Event::ActivationCancelled(payload) if payload.reason == CancelReason::Requested => {
            Want::CancelActivation { by: payload.by.ok_or(orphan)?, activation: payload.activation }
        }
        Event::RegistrationLocked(payload) if payload.reason == LockReason::DeviceBlocked => {
            Want::LockBlocked(locked(records)?)
        }
        Event::RegistrationLocked(payload) => Want::LockRegistration {
            by: payload.by.ok_or_else(|| orphan.clone())?,
            registration: stream,
            reason: payload.reason.given().ok_or(orphan)?,
        },
        Event::RegistrationUnlocked(payload) => {
            Want::UnlockRegistration { by: payload.by, registration: stream }
        }
        Event::RegistrationDeactivated(payload) => Want::DeactivateRegistration {
            by: payload.by.ok_or_else(|| orphan.clone())?,
            registration: stream,
            reason: payload.reason.given().ok_or(orphan)?,
        },
        Event::RecoveryStarted(payload) => Want::StartRecovery(StartRecovery {
            registration: payload.recovers,
            code: payload.code,
            recovered: stream,
            activation: payload.activation,
            nonce_hash: payload.nonce_hash,
            challenge: payload.challenge,
            client_version: payload.client_version,
            sealed,
        }),
        // Nothing else of the command counted.
        Event::RecoveryCodeRefused(payload) => Want::StartRecovery(StartRecovery {
            registration: stream,
            code: payload.code,
            recovered: Id::NIL,
            activation: Id::NIL,
            nonce_hash: NO_CONTENT,
            challenge: NO_CONTENT,
            client_version: String::new(),
            sealed,
        }),
        Event::DeviceNamed(payload) => Want::NameDevice(NameDevice {
            by: payload.by,
            registration: stream,
            named: payload.named,
            sealed,
        }),
        Event::OperationBegun(payload) => Want::BeginOperation(BeginOperation {
            operation: payload.operation,
            registration: stream,
            kind: payload.kind,
            level: payload.level,
            nonce_hash: payload.nonce_hash,
            client_version: payload.client_version,
        }),
        Event::OperationCreated(payload) if payload.broadcast.is_some() => {
            Want::Broadcast(asked(records)?)
        }
        Event::OperationCreated(payload) => Want::CreateOperation(ask(first, *payload)),
        Event::ChallengeIssued(payload) => Want::StartAuthentication(StartAuthentication {
            operation: payload.operation,
            challenge: payload.challenge,
            client_version: payload.client_version,
            push_confirmed: payload.push_confirmed,
        }),
        Event::AuthenticationJudged(payload) => {
            Want::FinishAuthentication(Box::new(FinishAuthentication {
                operation: payload.operation,
                challenge: payload.challenge,
                method: payload.method,
                said: payload.said(),
                new_key: payload.new_key,
                attestation_hash: payload.attestation_hash(),
                evidence: payload.attestation.and_then(|attested| attested.evidence),
                declared: payload.declared,
                body_digest: payload.body_digest,
                keys_at: payload.keys_at,
                verifications: payload.verifications,
                recovery: codes_issued(records)?,
                sealed,
            }))
        }
        Event::LockReleased(_) => Want::ReleaseLock(stream),
        Event::DeviceBlocked(payload) => Want::BlockDevice(BlockDevice {
            by: payload.by,
            application: stream,
            device: payload.device,
            reason: payload.reason,
            registrations: locked(records)?,
            sealed,
        }),
        Event::DeviceUnblocked(payload) => {
            Want::UnblockDevice { by: payload.by, application: stream, device: payload.device }
        }
        Event::InactiveDeactivated(payload) => Want::DeactivateInactive(DeactivateInactive {
            application: stream,
            as_of: payload.as_of,
            due: payload.due,
            registrations: deactivated(records)?,
        }),
        Event::InactivityConfirmed(payload) => Want::ConfirmInactivity {
            by: payload.by,
            application: stream,
            registrations: payload.registrations,
        },
        Event::OperationExpired(payload) => Want::ExpireOperation(payload.operation),
        Event::OperationCancelled(payload) if payload.reason == CancelReason::Requested => {
            Want::CancelOperation { by: payload.by.ok_or(orphan)?, operation: payload.operation }
        }
        Event::ErasureOrdered(payload) => Want::OrderErasure(OrderErasure {
            by: payload.by,
            subject: stream,
            reason: payload.reason,
            registrations: deactivated(records)?,
        }),
        Event::RevocationListTaken(payload) => Want::TakeRevocationList(TakeRevocationList {
            by: payload.by,
            hash: payload.hash,
            entries: list_entries(records)?,
        }),
        Event::OfflineAsked(payload) => Want::AskOffline(AskOffline {
            by: payload.by,
            operation: payload.operation,
            nonce: payload.nonce,
        }),
        Event::OfflineJudged(payload) => Want::FinishOffline(FinishOffline {
            by: payload.by,
            operation: payload.operation,
            nonce: payload.nonce,
            method: payload.method,
            code: payload.code,
            right: payload.right,
            body_digest: payload.body_digest,
            keys_at: payload.keys_at,
        }),
        Event::PushAddressSet(payload) => Want::SetPushAddress(SetPushAddress {
            registration: stream,
            present: payload.present,
            sealed,
        }),
        Event::SubjectErased(payload) => {
            Want::RecordErased { subject: stream, again: payload.again }
        }
        Event::ActivationCancelled(_)
        | Event::OperationCancelled(_)
        | Event::OperationAnsweredElsewhere(_)
        | Event::RecoveryCodesIssued(_)
        | Event::RecoveryCodeRedeemed(_)
        | Event::HardwareKeyAdded(_)
        | Event::HardwareKeyRotated(_)
        | Event::HardwareKeyReplaced(_)
        | Event::MethodAdded(_)
        | Event::MethodReplaced(_)
        | Event::MethodRemoved(_) => return Err(orphan),
    };
    Ok(Command { event_id: first.draft.event_id, want })
}

/// The entries of all parts of a revocation list.
fn list_entries(records: &[Record]) -> Result<Vec<ListEntry>, EventError> {
    let mut entries = Vec::new();
    for record in records {
        if let Event::RevocationListTaken(part) = decode(record)? {
            entries.extend(part.entries);
        }
    }
    Ok(entries)
}

/// The set of recovery codes that came of it.
fn codes_issued(records: &[Record]) -> Result<Option<RecoveryCodesIssuedV1>, EventError> {
    for record in records {
        if let Event::RecoveryCodesIssued(issued) = decode(record)? {
            return Ok(Some(*issued));
        }
    }
    Ok(None)
}

/// The name that a device got with its keys, sealed.
fn name_given(records: &[Record]) -> Result<Vec<u8>, EventError> {
    for record in records {
        if let Event::DeviceNamed(_) = decode(record)? {
            return Ok(record.draft.sealed.clone());
        }
    }
    Ok(Vec::new())
}

/// What was asked of a registration, by the record that says so.
fn ask(record: &Record, payload: OperationCreatedV1) -> CreateOperation {
    CreateOperation {
        by: payload.by,
        operation: payload.operation,
        registration: record.draft.stream,
        broadcast: payload.broadcast,
        template: payload.template,
        kind: payload.kind,
        target: payload.target,
        level: payload.level,
        methods: payload.methods,
        lifetime_s: payload.lifetime_s,
        context_hash: payload.context_hash,
        data_to_sign_hash: payload.data_to_sign_hash,
        post_context_hash: payload.post_context_hash,
        matching: payload.matching,
        external_id: payload.external_id,
        sealed: record.draft.sealed.clone(),
    }
}

/// What was asked of each device of a broadcast.
fn asked(records: &[Record]) -> Result<Vec<CreateOperation>, EventError> {
    let mut asks = Vec::with_capacity(records.len());
    for record in records {
        if let Event::OperationCreated(payload) = decode(record)? {
            asks.push(ask(record, *payload));
        }
    }
    Ok(asks)
}

/// The registrations that `records` end, in their order.
fn deactivated(records: &[Record]) -> Result<Vec<Id>, EventError> {
    streams_of(records, |event| matches!(event, Event::RegistrationDeactivated(_)))
}

/// The registrations that `records` lock, in their order.
fn locked(records: &[Record]) -> Result<Vec<Id>, EventError> {
    streams_of(records, |event| matches!(event, Event::RegistrationLocked(_)))
}

/// The streams of those of `records` that `are` says, in their order.
fn streams_of(records: &[Record], are: fn(&Event) -> bool) -> Result<Vec<Id>, EventError> {
    let mut streams = Vec::new();
    for record in records {
        if are(&decode(record)?) {
            streams.push(record.draft.stream);
        }
    }
    Ok(streams)
}

fn decode(record: &Record) -> Result<Event, EventError> {
    let draft = &record.draft;
    Event::decode(draft.event_type, draft.schema, &draft.clear)
}
