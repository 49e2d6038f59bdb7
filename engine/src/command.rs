//! What someone wants to happen, with everything the rules may know.
//!
//! A command carries its randomness, the results of verification and the
//! sealed parts of its events. The time comes from the sequencer.

use crate::attestation::lists::ListEntry;
use crate::events::{
    Actor, Bytes32, ClockConfirmedV1, DataRevealedV1, DeclaredV1, EpochBegunV1, EvidenceJudgedV1,
    ExportMadeV1, KeyRotatedV1, KeySetV1, KeyUseCountedV1, MatchingV1, RefusalsCountedV1,
    SetProperty, StateDigestedV1, VerificationV1,
};
use crate::ids::{Id, Micros, Position};
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
    /// Digest of the request.
    pub body_digest: Bytes32,
    /// The signatures that were checked.
    pub verifications: Vec<VerificationV1>,
    /// What judging its evidence found; none if none came, or nobody looks at it.
    pub evidence: Option<EvidenceJudgedV1>,
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
    /// Factors that the device wants to show.
    pub level: Level,
    /// Hash of the device's nonce, for which beginning can be repeated.
    pub nonce_hash: Bytes32,
    /// The client's version.
    pub client_version: String,
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
    /// Digest of the request.
    pub body_digest: Bytes32,
    /// Position of the record that set the keys it was judged against.
    pub keys_at: Position,
    /// The signatures that were checked.
    pub verifications: Vec<VerificationV1>,
    /// Sealed [`crate::sealed::SealedResponseV1`]; empty if there is nothing to seal.
    pub sealed: Vec<u8>,
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
    /// The application does not allow devices to begin operations.
    #[error("devices may not begin operations")]
    DeviceMayNotBegin,
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
