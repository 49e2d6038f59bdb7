//! What someone wants to happen, with everything the rules may know.
//!
//! A command carries its randomness, the results of verification and the
//! sealed parts of its events. The time comes from the sequencer.

use crate::attestation::lists::ListEntry;
use crate::events::{
    Actor, Bytes32, ClockConfirmedV1, DataRevealedV1, DeclaredV1, EpochBegunV1, EvidenceJudgedV1,
    ExportMadeV1, KeyRotatedV1, KeySetV1, KeyUseCountedV1, MatchingV1, RecoveryCodesIssuedV1,
    RefusalsCountedV1, SetProperty, StateDigestedV1, VerificationV1,
};
use crate::ids::{Id, Micros, Position};
use crate::key::KeyBytes;
use crate::offline::{NONCE_LEN, Obstacle};
use crate::reasons::{BudgetScope, CodeKind, ErasureReason, OperationKind, ReasonGiven, UserRole};
use crate::terms::{Level, Method};
use crate::transcript::{NO_CONTENT, Said};

/// A command: the id its first event gets (last byte zero), and what is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Id of the first event; the others count up from it, see [`Id::nth`].
    pub event_id: Id,
    /// What is wanted.
    pub want: Want,
}

/// What is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Want {
    /// Begin an empty log, with its first administrator key.
    StartLog(StartLog),
    /// Record a step of the wall clock.
    NoteClockStep {
        /// Where it should have stood.
        from: Micros,
        /// Where it stood.
        to: Micros,
    },
    /// Record how many requests a window refused.
    CountRefusals(RefusalsCountedV1),
    /// Record how many sealed parts a window opened.
    CountKeyUse(KeyUseCountedV1),
    /// Say that the clock is right.
    ConfirmClock(ClockConfirmedV1),
    /// Note a digest of state.
    NoteStateDigest(StateDigestedV1),
    /// Replace the key that signs checkpoints.
    RotateKey(Box<KeyRotatedV1>),
    /// Go on under a new origin after records were lost.
    BeginEpoch(Box<EpochBegunV1>),
    /// Make an API key.
    CreateApiKey(CreateApiKey),
    /// Revoke an API key.
    RevokeApiKey {
        /// Who asks.
        by: Actor,
        /// Which one.
        key: Id,
    },
    /// Create an application.
    CreateApplication(CreateApplication),
    /// Change an application's configuration.
    ChangeConfiguration(ChangeConfiguration),
    /// Record that wrong codes used up a budget.
    ExhaustCodeBudget {
        /// Whose application.
        application: Id,
        /// Whose budget.
        scope: BudgetScope,
        /// Until when codes are refused.
        until: Micros,
        /// Wrong codes in the window.
        failures: u32,
    },
    /// Request an activation.
    RequestActivation(RequestActivation),
    /// Redeem a code.
    StartActivation(StartActivation),
    /// Redeem a recovery code.
    StartRecovery(StartRecovery),
    /// Judge the keys that an activation offers.
    FinishActivation(Box<FinishActivation>),
    /// Cancel an activation.
    CancelActivation {
        /// Who asks.
        by: Actor,
        /// Which one.
        activation: Id,
    },
    /// Lock a registration.
    LockRegistration {
        /// Who asks.
        by: Actor,
        /// Which one.
        registration: Id,
        /// Why.
        reason: ReasonGiven,
    },
    /// Unlock a registration and forget its failures.
    UnlockRegistration {
        /// Who asks.
        by: Actor,
        /// Which one.
        registration: Id,
    },
    /// End a registration.
    DeactivateRegistration {
        /// Who asks.
        by: Actor,
        /// Which one.
        registration: Id,
        /// Why.
        reason: ReasonGiven,
    },
    /// Ask for an authentication.
    CreateOperation(CreateOperation),
    /// Ask several devices of a user; one of them is to answer.
    Broadcast(Vec<CreateOperation>),
    /// A device begins an operation of its own accord.
    BeginOperation(BeginOperation),
    /// Name a device.
    NameDevice(NameDevice),
    /// Issue an operation's challenge.
    StartAuthentication(StartAuthentication),
    /// Judge the answer to a challenge.
    FinishAuthentication(Box<FinishAuthentication>),
    /// Cancel an operation.
    CancelOperation {
        /// Who asks.
        by: Actor,
        /// Which one.
        operation: Id,
    },
    /// Let an activation expire.
    ExpireActivation(Id),
    /// Let an operation expire.
    ExpireOperation(Id),
    /// Take a revocation list over.
    TakeRevocationList(TakeRevocationList),
    /// Release the lock of a registration if its time is over.
    ReleaseLock(Id),
    /// Block a device.
    BlockDevice(BlockDevice),
    /// End the block of a device.
    UnblockDevice {
        /// Who asks.
        by: Actor,
        /// The application.
        application: Id,
        /// Which one.
        device: Id,
    },
    /// Lock registrations that a block left over.
    LockBlocked(Vec<Id>),
    /// End registrations that nobody has used for long.
    DeactivateInactive(DeactivateInactive),
    /// Allow more of them to end than the limit of a day does.
    ConfirmInactivity {
        /// Who asks.
        by: Actor,
        /// Whose application.
        application: Id,
        /// How many.
        registrations: u32,
    },
    /// Order the erasure of a person.
    OrderErasure(OrderErasure),
    /// Record that the log, or a range of it, was exported.
    RecordExport(ExportMadeV1),
    /// Record that sealed parts are about to be opened.
    Reveal(DataRevealedV1),
    /// Record that a person's key is destroyed.
    RecordErased {
        /// Whose.
        subject: Id,
        /// Whether it had been destroyed before, and had come back.
        again: bool,
    },
    /// Say where pushes for a registration go.
    SetPushAddress(SetPushAddress),
    /// Issue a question that a phone without a network can answer.
    AskOffline(AskOffline),
    /// Judge the code that answers it.
    FinishOffline(FinishOffline),
}

/// Begin an empty log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartLog {
    /// The origin line.
    pub origin: String,
    /// Version of the software.
    pub software: String,
    /// Id of the first administrator key.
    pub key: Id,
    /// Keyed hash of its secret.
    pub secret_hash: Bytes32,
}

/// Make an API key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateApiKey {
    /// Who asks.
    pub by: Actor,
    /// Its id.
    pub key: Id,
    /// What its holder may do.
    pub role: UserRole,
    /// The service provider it acts for; empty unless the role is SERVICE_PROVIDER.
    pub service_provider: String,
    /// A label.
    pub name: String,
    /// Keyed hash of the secret.
    pub secret_hash: Bytes32,
}

/// Create an application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateApplication {
    /// Who asks.
    pub by: Actor,
    /// Its id.
    pub application: Id,
    /// A label.
    pub name: String,
    /// The service provider it belongs to.
    pub service_provider: String,
    /// Properties to set.
    pub properties: Vec<SetProperty>,
}

/// Change an application's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeConfiguration {
    /// Who asks.
    pub by: Actor,
    /// Which application.
    pub application: Id,
    /// The version it has now; another one is refused.
    pub version: u64,
    /// Properties to set.
    pub properties: Vec<SetProperty>,
}

/// Request an activation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestActivation {
    /// Who asks.
    pub by: Actor,
    /// The application.
    pub application: Id,
    /// The registration: a fresh id, or one that exists, to be re-activated.
    pub registration: Id,
    /// Whether it must exist.
    pub again: bool,
    /// The activation's id.
    pub activation: Id,
    /// Keyed hash of the activation code.
    pub code_hash: Bytes32,
    /// Keyed hash of the QR secret.
    pub qr_hash: Bytes32,
    /// The person.
    pub subject: Id,
    /// Sealed [`crate::sealed::SealedUserV1`].
    pub sealed: Vec<u8>,
}

/// Redeem a code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartActivation {
    /// The activation that the code belongs to.
    pub activation: Id,
    /// What is redeemed.
    pub with: CodeKind,
    /// Hash of the client's nonce.
    pub nonce_hash: Bytes32,
    /// The challenge to issue.
    pub challenge: Bytes32,
    /// The client's version.
    pub client_version: String,
}

/// Redeem a recovery code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartRecovery {
    /// The registration whose set it is said to be of.
    pub registration: Id,
    /// Keyed hash of the code.
    pub code: Bytes32,
    /// The registration that is to take its place: a fresh id.
    pub recovered: Id,
    /// The activation: a fresh id.
    pub activation: Id,
    /// Hash of the client's nonce.
    pub nonce_hash: Bytes32,
    /// The challenge to issue.
    pub challenge: Bytes32,
    /// The client's version.
    pub client_version: String,
    /// Sealed [`crate::sealed::SealedUserV1`].
    pub sealed: Vec<u8>,
}

/// Judge the keys that an activation offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FinishActivation {
    /// The activation.
    pub activation: Id,
    /// The challenge that was answered.
    pub challenge: Bytes32,
    /// What the device declared.
    pub declared: DeclaredV1,
    /// The keys it offers.
    pub keys: KeySetV1,
    /// Hash of its device token.
    pub device_token_hash: Bytes32,
    /// Hash of the attestation evidence, zeros if none.
    pub attestation_hash: Bytes32,
    /// Salted hash of the device hash, zeros if none.
    pub device_hash_hash: Bytes32,
    /// The device that the device hash leads to.
    pub device: Option<Id>,
    /// Digest of the request.
    pub body_digest: Bytes32,
    /// The signatures that were checked.
    pub verifications: Vec<VerificationV1>,
    /// What judging its evidence found; none if none came, or nobody looks at it.
    pub evidence: Option<EvidenceJudgedV1>,
    /// Sealed [`crate::sealed::SealedNameV1`] for the second event; empty if the
    /// device says no name.
    pub name: Vec<u8>,
    /// A set of recovery codes that it gets if its keys are taken.
    pub recovery: Option<RecoveryCodesIssuedV1>,
    /// Sealed [`crate::sealed::SealedResponseV1`]; empty if there is nothing to seal.
    pub sealed: Vec<u8>,
}

/// Take a revocation list over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakeRevocationList {
    /// Who asks.
    pub by: Actor,
    /// SHA-256 of the file.
    pub hash: Bytes32,
    /// Its entries, by ascending serial.
    pub entries: Vec<ListEntry>,
}

/// Ask for an authentication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateOperation {
    /// Who asks.
    pub by: Actor,
    /// Its id.
    pub operation: Id,
    /// The registration that is to answer.
    pub registration: Id,
    /// The broadcast that it belongs to, if it does.
    pub broadcast: Option<Id>,
    /// The template that says what it asks for, if it names one.
    pub template: Option<String>,
    /// What it asks for.
    pub kind: OperationKind,
    /// The method whose key it is to change, if it is to change one.
    pub target: Option<Method>,
    /// Factors required.
    pub level: Level,
    /// Methods that may answer; empty means any that reaches the level.
    pub methods: Vec<Method>,
    /// Lifetime in seconds, 10 to 86,400; none means the application's.
    pub lifetime_s: Option<u32>,
    /// Hash of the context, zeros if none.
    pub context_hash: Bytes32,
    /// Hash of the data to sign, zeros if none.
    pub data_to_sign_hash: Bytes32,
    /// Hash of what is shown after approval, zeros if none.
    pub post_context_hash: Bytes32,
    /// What the user must confirm to approve, if anything.
    pub matching: Option<MatchingV1>,
    /// Whether the service provider gave it an id of its own, which is sealed.
    pub external_id: bool,
    /// Sealed [`crate::sealed::SealedRequestV1`]; empty if there is nothing to seal.
    pub sealed: Vec<u8>,
}

impl CreateOperation {
    /// An authentication that shows and signs nothing.
    #[must_use]
    pub fn new(by: Actor, operation: Id, registration: Id, level: Level) -> Self {
        Self {
            by,
            operation,
            registration,
            broadcast: None,
            template: None,
            kind: OperationKind::Authentication,
            target: None,
            level,
            methods: Vec::new(),
            lifetime_s: None,
            context_hash: NO_CONTENT,
            data_to_sign_hash: NO_CONTENT,
            post_context_hash: NO_CONTENT,
            matching: None,
            external_id: false,
            sealed: Vec::new(),
        }
    }
}

/// A device begins an operation of its own accord.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BeginOperation {
    /// Its id.
    pub operation: Id,
    /// The registration of the device.
    pub registration: Id,
    /// What it asks for.
    pub kind: OperationKind,
    /// Factors that the device wants to show.
    pub level: Level,
    /// Hash of the device's nonce, for which beginning can be repeated.
    pub nonce_hash: Bytes32,
    /// The client's version.
    pub client_version: String,
}

/// Name a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameDevice {
    /// Who asks; none if the device itself.
    pub by: Option<Actor>,
    /// The registration.
    pub registration: Id,
    /// Whether it has a name from now on.
    pub named: bool,
    /// Sealed [`crate::sealed::SealedNameV1`]; empty if it has none.
    pub sealed: Vec<u8>,
}

/// Issue an operation's challenge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartAuthentication {
    /// The operation.
    pub operation: Id,
    /// The challenge to issue, unless one is outstanding.
    pub challenge: Bytes32,
    /// The client's version.
    pub client_version: String,
    /// Whether the device has shown the nonce of the push for this operation.
    pub push_confirmed: bool,
}

/// Say where pushes for a registration go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetPushAddress {
    /// The registration.
    pub registration: Id,
    /// Whether there is an address; without one, none is known any more.
    pub present: bool,
    /// Sealed [`crate::sealed::SealedPushAddressV1`]; empty without an address.
    pub sealed: Vec<u8>,
}

/// Issue a question that a phone without a network can answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AskOffline {
    /// Who asks.
    pub by: Actor,
    /// The operation.
    pub operation: Id,
    /// The question's nonce, unless one is outstanding.
    pub nonce: [u8; NONCE_LEN],
}

/// Judge the code that answers an offline question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FinishOffline {
    /// Who asks.
    pub by: Actor,
    /// The operation.
    pub operation: Id,
    /// The nonce of the question that it was compared for.
    pub nonce: [u8; NONCE_LEN],
    /// The method that the code names.
    pub method: Method,
    /// Its digits.
    pub code: String,
    /// Whether it is the one that was to be typed.
    pub right: bool,
    /// Digest of operation and code.
    pub body_digest: Bytes32,
    /// Position of the record that set the keys it was compared for.
    pub keys_at: Position,
}

/// Judge the answer to a challenge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FinishAuthentication {
    /// The operation.
    pub operation: Id,
    /// The challenge that was answered.
    pub challenge: Bytes32,
    /// The method that answers.
    pub method: Method,
    /// What the user said.
    pub said: Said,
    /// What the device declared.
    pub declared: DeclaredV1,
    /// The new key, where the answer brings one.
    pub new_key: Option<KeyBytes>,
    /// Hash of the evidence about a new hardware key, zeros if none came.
    pub attestation_hash: Bytes32,
    /// What judging that evidence found, if it came and somebody asks for it.
    pub evidence: Option<EvidenceJudgedV1>,
    /// Digest of the request.
    pub body_digest: Bytes32,
    /// Position of the record that set the keys it was judged against.
    pub keys_at: Position,
    /// The signatures that were checked.
    pub verifications: Vec<VerificationV1>,
    /// A set of recovery codes that it gets if that is what was asked and approved.
    pub recovery: Option<RecoveryCodesIssuedV1>,
    /// Sealed [`crate::sealed::SealedResponseV1`]; empty if there is nothing to seal.
    pub sealed: Vec<u8>,
}

/// Block a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockDevice {
    /// Who asks.
    pub by: Actor,
    /// The application.
    pub application: Id,
    /// Which one.
    pub device: Id,
    /// Why.
    pub reason: ReasonGiven,
    /// Registrations on it, to be locked: at most [`crate::devices::LOCKED_AT_ONCE`].
    pub registrations: Vec<Id>,
    /// Sealed [`crate::sealed::SealedDeviceV1`], under the device's own key.
    pub sealed: Vec<u8>,
}

/// End registrations that nobody has used for long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeactivateInactive {
    /// Whose application.
    pub application: Id,
    /// When it was looked for them.
    pub as_of: Micros,
    /// How many were found, as far as was counted.
    pub due: u64,
    /// Some of them: at most [`crate::inactivity::ENDED_AT_ONCE`].
    pub registrations: Vec<Id>,
}

/// Order the erasure of a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderErasure {
    /// Who asks.
    pub by: Actor,
    /// The person; nil for a reference that leads to nobody.
    pub subject: Id,
    /// Why.
    pub reason: ErasureReason,
    /// All registrations of the person that are not over, at most
    /// [`crate::erasure::REGISTRATIONS_MAX`]: they end with the order.
    pub registrations: Vec<Id>,
}

/// Why nothing happens.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The caller's role or service provider does not allow it, or its key is gone.
    #[error("not allowed for this API key")]
    Forbidden,
    /// The same request was carried out before; its first record is there.
    #[error("already carried out")]
    Repeat(Position),
    /// The idempotency key was used for another request.
    #[error("idempotency key was used for another request")]
    KeyReused,
    /// The log has begun already.
    #[error("the log has begun already")]
    AlreadyStarted,
    /// The id, or a code of the same hash, is taken: draw again.
    #[error("taken")]
    Taken,
    /// There is no such application, registration, activation, operation or API key.
    #[error("unknown")]
    Unknown,
    /// An administrator key cannot revoke itself.
    #[error("an API key cannot revoke itself")]
    RevokesItself,
    /// A value is out of bounds.
    #[error("{field}: {expected}")]
    Invalid {
        /// The field, by its name in JSON.
        field: &'static str,
        /// What is accepted.
        expected: &'static str,
    },
    /// Properties are unknown or invalid.
    #[error("configuration is refused")]
    Configuration(Vec<crate::config::ConfigError>),
    /// The configuration has another version by now.
    #[error("configuration is at version {actual}")]
    VersionConflict {
        /// Its version.
        actual: u64,
    },
    /// Guessing would be too easy: codes must be longer.
    #[error("codes must have at least {needed} symbols")]
    CodeTooShort {
        /// Symbols that would suffice now.
        needed: u32,
    },
    /// The registration's state does not allow it.
    #[error("registration is {0}")]
    RegistrationState(crate::reasons::RegistrationState),
    /// The activation's state does not allow it.
    #[error("activation is {0}")]
    ActivationState(crate::reasons::ActivationState),
    /// The operation's state does not allow it.
    #[error("operation is {0}")]
    OperationState(crate::reasons::OperationState),
    /// The code was redeemed for another client.
    #[error("code was redeemed")]
    CodeRedeemed,
    /// Codes are refused for now.
    #[error("codes are refused until then")]
    CodesRefused {
        /// Until when.
        until: Micros,
    },
    /// The client's version is not served.
    #[error("client version is not served")]
    ClientTooOld,
    /// The registration has as many open operations as it can have.
    #[error("too many open operations")]
    TooManyOperations,
    /// No method of the registration fits what is asked for.
    #[error("no method of the registration fits")]
    NoMethodFits,
    /// The keys on file or the configuration stand against this change of a key.
    #[error("the key cannot be changed so: {0}")]
    KeyChange(
        /// What stands against it.
        &'static str,
    ),
    /// The application does not allow devices to begin operations.
    #[error("devices may not begin operations")]
    DeviceMayNotBegin,
    /// The application asks for a push to be confirmed, and the device has no address.
    #[error("no push address is known")]
    NoPushAddress,
    /// The operation cannot be answered without a network.
    #[error("not answered offline: {0}")]
    OfflineNotPossible(Obstacle),
    /// The device has not shown that a push woke it.
    #[error("the push was not confirmed")]
    PushNotConfirmed,
    /// This method cannot answer this operation.
    #[error("method cannot answer this operation")]
    MethodNotOffered,
    /// This challenge is not the outstanding one.
    #[error("challenge is not live")]
    ChallengeNotLive,
    /// The same request was judged before: same answer.
    #[error("judged before")]
    JudgedBefore,
    /// It was judged against keys that are no longer current: judge again.
    #[error("judged against former keys")]
    Stale,
    /// The device that the registration is on is blocked.
    #[error("the device is blocked")]
    DeviceBlocked,
    /// The person is being erased: no registration can be made for this subject.
    #[error("the subject is erased")]
    SubjectErased,
    /// The registrations named are not those that the person has: look again.
    #[error("the registrations of the subject are others")]
    OtherRegistrations,
    /// Too many answers that count for nothing.
    #[error("too many attempts")]
    TooManyAttempts {
        /// When the next one is taken.
        until: Micros,
    },
}
