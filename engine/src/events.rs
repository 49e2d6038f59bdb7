//! What can happen, as it stands in the log.
//!
//! Every type has a number and every payload a schema version; both are for
//! ever. A payload that was released is never edited: a change is a new struct
//! under a new schema version, with a pure upcaster. `tests/it/stored.rs` holds
//! a sample of each and fails if one no longer reads.
//!
//! A clear part names nobody: it holds ids, public keys, signatures as they
//! came, verdicts, and hashes whose salts are sealed. What names a person is in
//! the sealed part; see [`crate::sealed`].

use serde::{Deserialize, Serialize};

use crate::attestation::lists::{ListEntry, ListName};
use crate::attestation::{Attested, CertificateName, Facts, Platform, Reason, Status};
use crate::codec;
use crate::ids::{Id, Micros, Position};
use crate::key::KeyBytes;
use crate::layout::{self, Layout, NoLayout};
use crate::offline::NONCE_LEN;
use crate::reasons::{
    ActivationFailure, AuthenticationFailure, BudgetScope, CancelReason, CodeKind, Confirmation,
    DeactivationReason, ErasureReason, ExportForm, LockReason, OperationKind, OperationState,
    ReasonGiven, RejectReason, RevealReason, Strategy, UserRole,
};
use crate::terms::{Decision, HwKeyClientStatus, HwKeyServerResult, Level, Method, Role, Verdict};
use crate::transcript::{NO_CONTENT, Said};

/// 32 bytes: a hash, a challenge, a binding.
pub type Bytes32 = [u8; 32];

/// Who asked over HTTP, and under which idempotency key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// The API key that was used.
    pub api_key: Id,
    /// The request, if it carried an `Idempotency-Key`.
    pub request: Option<RequestKey>,
}

/// An idempotent request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestKey {
    /// Hash of API key id and `Idempotency-Key`.
    pub id: [u8; 16],
    /// Hash of method, path and body: another body under the same key is refused.
    pub digest: [u8; 16],
}

/// The log begins. The first record of every log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogStartedV1 {
    /// The origin line: names this log in every checkpoint.
    pub origin: String,
    /// Version of the software that began it.
    pub software: String,
}

/// The wall clock stepped against the monotonic one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockSteppedV1 {
    /// Where the wall clock should have stood.
    pub from: Micros,
    /// Where it stood.
    pub to: Micros,
}

/// Requests that were refused without a trace of their own, counted per window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusalsCountedV1 {
    /// Start of the window.
    pub since: Micros,
    /// Device requests without the right device token, or for nothing known.
    pub not_recognised: u64,
    /// Requests on challenges that were used, replaced or over.
    pub not_live: u64,
    /// Activation codes that matched nothing.
    pub codes: u64,
    /// Requests over a limit.
    pub limited: u64,
    /// API requests with wrong credentials.
    pub credentials: u64,
}

/// An API key was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiKeyCreatedV1 {
    /// Who made it; none for the first, which the server makes.
    pub by: Option<Actor>,
    /// What its holder may do.
    pub role: UserRole,
    /// The service provider it acts for; empty unless the role is SERVICE_PROVIDER.
    pub service_provider: String,
    /// A label for people.
    pub name: String,
    /// Keyed hash of the secret; the key is outside the log.
    pub secret_hash: Bytes32,
}

/// An API key was revoked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiKeyRevokedV1 {
    /// Who revoked it.
    pub by: Actor,
}

/// A property and its value as canonical JSON.
pub type SetProperty = (String, String);

/// An application was created.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApplicationCreatedV1 {
    /// Who created it.
    pub by: Actor,
    /// A label for people.
    pub name: String,
    /// The service provider it belongs to.
    pub service_provider: String,
    /// The properties that were given; all others have their defaults.
    pub properties: Vec<SetProperty>,
}

/// An application's configuration changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigurationChangedV1 {
    /// Who changed it.
    pub by: Actor,
    /// The version that this change makes; the first is 1.
    pub version: u64,
    /// The properties that were given.
    pub properties: Vec<SetProperty>,
}

/// Wrong activation codes used up a budget; further ones are refused until the window ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CodeBudgetExhaustedV1 {
    /// Whose budget: the application's or one source's.
    pub scope: BudgetScope,
    /// When codes are taken again.
    pub until: Micros,
    /// Wrong codes in the window.
    pub failures: u32,
}

/// An activation was requested: a new registration, or new keys for an old one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActivationRequestedV1 {
    /// Who requested it.
    pub by: Actor,
    /// The application.
    pub application: Id,
    /// The activation.
    pub activation: Id,
    /// Whether the registration has keys already.
    pub again: bool,
    /// Keyed hash of the activation code; the key is outside the log.
    pub code_hash: Bytes32,
    /// Keyed hash of the secret in the QR payload.
    pub qr_hash: Bytes32,
    /// When the code can no longer be redeemed.
    pub expires_at: Micros,
}

/// The code was redeemed; the activation's challenge was issued.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActivationStartedV1 {
    /// The activation.
    pub activation: Id,
    /// What was redeemed: the typed code or the QR payload.
    pub with: CodeKind,
    /// Hash of the client's nonce, for which redeeming can be repeated.
    pub nonce_hash: Bytes32,
    /// The challenge.
    pub challenge: Bytes32,
    /// The client's version as it declared it.
    pub client_version: String,
    /// When the activation can no longer be finished.
    pub expires_at: Micros,
}

/// One signature that was checked: all that is needed to check it again, beside
/// the transcript fields of the event it stands in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerificationV1 {
    /// Which part the key played.
    pub role: Role,
    /// The authentication method in the transcript.
    pub method: Method,
    /// The public key; its id is the SHA-256 of its SubjectPublicKeyInfo.
    pub key: KeyBytes,
    /// The signature, byte for byte as it was received.
    pub signature: Vec<u8>,
    /// What the check found.
    pub verdict: Verdict,
}

/// What the device declared with its signatures, as it stands in the transcript.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeclaredV1 {
    /// The client's version.
    pub client_version: String,
    /// How it says it fared with its hardware key.
    pub hw_key_client_status: HwKeyClientStatus,
    /// Binding to the channel, zeros if none.
    pub channel_binding: Bytes32,
    /// Hash of the client data, zeros if none.
    pub client_data_hash: Bytes32,
    /// Hash of the risk data, zeros if none.
    pub risk_data_hash: Bytes32,
}

/// A software key and the method it serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MethodKeyV1 {
    /// The method.
    pub method: Method,
    /// Its public key.
    pub key: KeyBytes,
}

/// The keys that an activation offered, in the order in which they were sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeySetV1 {
    /// Software keys.
    pub software: Vec<MethodKeyV1>,
    /// The hardware key, if one was offered.
    pub hardware: Option<KeyBytes>,
}

/// An activation was judged, for better or worse.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActivationJudgedV1 {
    /// The application.
    pub application: Id,
    /// The activation: the operation id of its transcripts.
    pub activation: Id,
    /// The challenge.
    pub challenge: Bytes32,
    /// What the device declared.
    pub declared: DeclaredV1,
    /// The keys it offered.
    pub keys: KeySetV1,
    /// Hash of the device token.
    pub device_token_hash: Bytes32,
    /// Hash of the attestation evidence, zeros if none.
    pub attestation_hash: Bytes32,
    /// Salted hash of the device hash, zeros if none; the salt is sealed.
    pub device_hash_hash: Bytes32,
    /// The device that the device hash leads to; see [`crate::devices`].
    pub device: Option<Id>,
    /// Digest of the request: the same one again gets the same answer.
    pub body_digest: Bytes32,
    /// The signatures that were checked.
    pub verifications: Vec<VerificationV1>,
    /// How the activation stands with attestation evidence.
    pub attestation: Status,
    /// What was found of evidence that came; none if it was not looked at.
    pub evidence: Option<EvidenceJudgedV1>,
    /// The configuration in force.
    pub config_version: u64,
    /// The strategy in force.
    pub strategy: Strategy,
    /// What was found of the hardware key.
    pub hw_key_server_result: HwKeyServerResult,
    /// Whether the client counts as one that cannot have a hardware key.
    pub hw_key_impossible: bool,
    /// Whether the hardware key is now the registration's.
    pub hw_key_stored: bool,
    /// A re-activation without proof by an old key.
    pub unproven_device: bool,
    /// Whether the device was given secrets for answers without a network.
    pub offline: bool,
    /// Why it failed; none if the registration is now active with these keys.
    pub failure: Option<ActivationFailure>,
}

/// An activation was not finished in time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActivationExpiredV1 {
    /// The activation.
    pub activation: Id,
}

/// An activation was cancelled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActivationCancelledV1 {
    /// Who cancelled it; none if what ended it did, without an API key.
    pub by: Option<Actor>,
    /// The activation.
    pub activation: Id,
    /// What made it end.
    pub reason: CancelReason,
}

/// A registration was locked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistrationLockedV1 {
    /// Who locked it; none if the server did: after too many failures, or because
    /// the device is blocked.
    pub by: Option<Actor>,
    /// Why.
    pub reason: LockReason,
    /// When time releases it; none if it stays. Only a lock after too many failures
    /// is ever released by time.
    pub release_at: Option<Micros>,
}

/// A registration was unlocked; its failures are forgotten.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistrationUnlockedV1 {
    /// Who unlocked it.
    pub by: Actor,
}

/// A registration came to its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistrationDeactivatedV1 {
    /// Who ended it; none if nobody with an API key did.
    pub by: Option<Actor>,
    /// Why.
    pub reason: DeactivationReason,
}

/// The number by which a user shows to be in front of the screen that asks. It is
/// for one operation and tells nothing of anyone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MatchingV1 {
    /// How it is confirmed.
    pub how: Confirmation,
    /// The number.
    pub number: u32,
    /// What the user picks it from, ascending; empty where it is typed.
    pub choices: Vec<u32>,
}

/// The service provider asked for an authentication.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationCreatedV1 {
    /// Who asked.
    pub by: Actor,
    /// The operation.
    pub operation: Id,
    /// The broadcast that it belongs to, if it does.
    pub broadcast: Option<Id>,
    /// The template that said what it asks for, if it named one.
    pub template: Option<String>,
    /// What it asks for.
    pub kind: OperationKind,
    /// The method whose key it changes, if it changes one.
    pub target: Option<Method>,
    /// Factors required.
    pub level: Level,
    /// Methods asked for; empty means any that reaches the level.
    pub methods: Vec<Method>,
    /// Lifetime asked for, in seconds; none means the application's.
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
    /// Methods that may answer: asked for, allowed, and of that level.
    pub offered: Vec<Method>,
    /// When it can no longer be answered.
    pub expires_at: Micros,
}

/// A challenge was issued for an operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChallengeIssuedV1 {
    /// The operation.
    pub operation: Id,
    /// The challenge.
    pub challenge: Bytes32,
    /// The client's version as it declared it.
    pub client_version: String,
    /// Whether the device has shown that a push woke it.
    pub push_confirmed: bool,
}

/// An answer to a challenge was judged, for better or worse.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthenticationJudgedV1 {
    /// The application.
    pub application: Id,
    /// The operation.
    pub operation: Id,
    /// The challenge: judged once and now used.
    pub challenge: Bytes32,
    /// What the operation asks for.
    pub kind: OperationKind,
    /// The method whose key it changes, if it changes one.
    pub target: Option<Method>,
    /// The new key, if the answer brought one.
    pub new_key: Option<KeyBytes>,
    /// How a new hardware key stands with attestation; none for any other answer.
    pub attestation: Option<NewKeyAttestedV1>,
    /// Factors required.
    pub level: Level,
    /// Hash of the context, zeros if none.
    pub context_hash: Bytes32,
    /// Hash of the data to sign, zeros if none.
    pub data_to_sign_hash: Bytes32,
    /// The method that answered.
    pub method: Method,
    /// What the user decided.
    pub decision: Decision,
    /// Why the user said no, if the user said.
    pub reject_reason: Option<RejectReason>,
    /// The number that the user confirmed, if one was wanted.
    pub number: Option<u32>,
    /// What the device declared.
    pub declared: DeclaredV1,
    /// Digest of the request: the same one again gets the same answer.
    pub body_digest: Bytes32,
    /// Position of the record that set the keys judged against.
    pub keys_at: Position,
    /// The signatures that were checked.
    pub verifications: Vec<VerificationV1>,
    /// The configuration in force.
    pub config_version: u64,
    /// The strategy in force.
    pub strategy: Strategy,
    /// What was found of the hardware key.
    pub hw_key_server_result: HwKeyServerResult,
    /// Why it failed; none if it was accepted.
    pub failure: Option<AuthenticationFailure>,
    /// Whether the failure counts towards lockout.
    pub counted: bool,
    /// Counted failures of the registration from now on.
    pub failures: u32,
    /// Failures that the configuration in force allows.
    pub failures_allowed: u32,
    /// What became of the operation.
    pub operation_state: OperationState,
}

/// How a new hardware key stands with attestation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewKeyAttestedV1 {
    /// How it stands.
    pub status: Status,
    /// Hash of the evidence, zeros if none came.
    pub hash: Bytes32,
    /// What was found of it; none if it was not looked at.
    pub evidence: Option<EvidenceJudgedV1>,
}

impl AuthenticationJudgedV1 {
    /// Hash of the evidence about a new hardware key, zeros if none came.
    #[must_use]
    pub fn attestation_hash(&self) -> Bytes32 {
        self.attestation.as_ref().map_or(NO_CONTENT, |attested| attested.hash)
    }

    /// What the user said, as it was signed.
    #[must_use]
    pub fn said(&self) -> Said {
        Said { decision: self.decision, reason: self.reject_reason, number: self.number }
    }
}

/// An operation was not answered in time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationExpiredV1 {
    /// The operation.
    pub operation: Id,
}

/// An operation was cancelled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationCancelledV1 {
    /// Who cancelled it; none if what ended it did, without an API key.
    pub by: Option<Actor>,
    /// The operation.
    pub operation: Id,
    /// What made it end.
    pub reason: CancelReason,
}

/// An operation of a broadcast ended because another device has answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationAnsweredElsewhereV1 {
    /// The operation.
    pub operation: Id,
    /// The operation of the same broadcast that was answered.
    pub answered: Id,
}

/// A device began an operation of its own accord, which shows nothing and has no
/// data to sign.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationBegunV1 {
    /// The operation.
    pub operation: Id,
    /// What it asks for.
    pub kind: OperationKind,
    /// Factors that the device wants to show.
    pub level: Level,
    /// Hash of the device's nonce, for which beginning can be repeated.
    pub nonce_hash: Bytes32,
    /// The client's version as it declared it.
    pub client_version: String,
    /// Methods that may answer: allowed, and of that level.
    pub offered: Vec<Method>,
    /// When it can no longer be answered.
    pub expires_at: Micros,
}

/// A person is to be erased. The stream is the subject: its random id is all
/// that is said of who it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErasureOrderedV1 {
    /// Who ordered it.
    pub by: Actor,
    /// Why.
    pub reason: ErasureReason,
}

/// The subject's key is destroyed: what was sealed under it can no longer be
/// read. The stream is the subject.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubjectErasedV1 {
    /// The key had been destroyed before, came back with an older copy of the
    /// key store, and was destroyed once more.
    pub again: bool,
}

/// Sealed parts that were opened, counted per window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyUseCountedV1 {
    /// Start of the window.
    pub since: Micros,
    /// To answer a service provider about its own user.
    pub service_provider: u64,
    /// To show a user what is to be approved, on the device of that user.
    pub device: u64,
}

/// The key that signs checkpoints was replaced. Both keys signed the statement
/// that this event holds; see docs/format.md for its text.
///
/// Checkpoints over more records than `size` are signed with the new key, all
/// others with the old one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRotatedV1 {
    /// The origin line that both keys sign under.
    pub origin: String,
    /// Records before this one: the most that the old key has signed.
    pub size: u64,
    /// Root of the tree over them.
    pub root: Bytes32,
    /// The key that signed until now.
    pub old_key: KeyBytes,
    /// The key that signs from now on.
    pub new_key: KeyBytes,
    /// Signature of the statement by the old key, DER.
    pub old_signature: Vec<u8>,
    /// Signature of the statement by the new key, DER.
    pub new_signature: Vec<u8>,
}

/// An administrator said that the clock is right.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockConfirmedV1 {
    /// Who said so.
    pub by: Actor,
    /// Whether a step of the clock had suspended what time alone makes happen.
    pub suspended: bool,
}

/// A digest of state, so that whoever folds the log later can compare.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateDigestedV1 {
    /// The state is that of all records before this position.
    pub position: Position,
    /// Version of the layout of state: other versions give other digests.
    pub state_version: u32,
    /// BLAKE3 over the entries and the position; see docs/format.md.
    pub digest: Bytes32,
}

/// Records were lost, and the log goes on without them under a new origin line:
/// what was signed under the former one is never contradicted under that name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochBegunV1 {
    /// The new origin line.
    pub origin: String,
    /// The origin line until now.
    pub previous_origin: String,
    /// Records before this one: what was left of the log.
    pub size: u64,
    /// Root of the tree over them.
    pub root: Bytes32,
    /// Records that the last known checkpoint of the lost history covers.
    pub known_size: u64,
    /// Root of the tree over them.
    pub known_root: Bytes32,
    /// That checkpoint, a signed note.
    pub known_note: String,
}

impl EpochBegunV1 {
    /// First and last record that were lost; none if as many were left as were
    /// known, and they are of another history: which differ is not known then.
    #[must_use]
    pub fn lost(&self) -> Option<(u64, u64)> {
        (self.size < self.known_size).then(|| (self.size, self.known_size - 1))
    }
}

/// A registration without a hardware key got one, after the answer to an operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HardwareKeyAddedV1 {
    /// The operation whose answer was accepted.
    pub operation: Id,
    /// The key, whose possession was proven.
    pub key: KeyBytes,
    /// How the key stands with attestation; none if nobody asked.
    pub attestation: Option<Attested>,
}

/// A hardware key took the place of another, which signed too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HardwareKeyRotatedV1 {
    /// The operation whose answer was accepted.
    pub operation: Id,
    /// The key until now.
    pub old_key: KeyBytes,
    /// The key from now on, whose possession was proven.
    pub key: KeyBytes,
    /// How the key stands with attestation; none if nobody asked.
    pub attestation: Option<Attested>,
}

/// A hardware key took the place of one that is lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HardwareKeyReplacedV1 {
    /// The operation whose answer was accepted.
    pub operation: Id,
    /// The key until now.
    pub old_key: KeyBytes,
    /// The key from now on, whose possession was proven.
    pub key: KeyBytes,
    /// Whether the old key did not sign.
    pub unproven_device: bool,
    /// How the key stands with attestation; none if nobody asked.
    pub attestation: Option<Attested>,
}

/// A method was added to a registration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MethodAddedV1 {
    /// The operation whose answer was accepted.
    pub operation: Id,
    /// The method.
    pub method: Method,
    /// Its key, whose possession was proven.
    pub key: KeyBytes,
}

/// A method got another key: with a PIN, the PIN was changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MethodReplacedV1 {
    /// The operation whose answer was accepted.
    pub operation: Id,
    /// The method.
    pub method: Method,
    /// Its key until now.
    pub old_key: KeyBytes,
    /// Its key from now on, whose possession was proven.
    pub key: KeyBytes,
}

/// A method was removed from a registration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MethodRemovedV1 {
    /// The operation whose answer was accepted.
    pub operation: Id,
    /// The method.
    pub method: Method,
    /// Its key until now.
    pub key: KeyBytes,
}

/// The log, or a range of it, was exported. Sealed parts went out as ciphertext.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportMadeV1 {
    /// The auditor who asked over HTTP; none where it was made from the server's
    /// own folder.
    pub by: Option<Actor>,
    /// What whoever made it from the folder is called, by their own account, 1 to
    /// 64 characters; empty where an API key says who it is.
    pub operator: String,
    /// In which form.
    pub form: ExportForm,
    /// First record of the range.
    pub from: Position,
    /// First record behind the range.
    pub to: Position,
}

/// Sealed parts are opened for an auditor. Recorded before the first one is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataRevealedV1 {
    /// The auditor whose key was shown.
    pub by: Actor,
    /// Why.
    pub reason: RevealReason,
    /// What names the case outside the log, 1 to 64 characters. Names no person.
    pub case: String,
    /// Whose sealed parts; none for all subjects'.
    pub subject: Option<Id>,
    /// First record of the range.
    pub from: Position,
    /// First record behind the range.
    pub to: Position,
}

/// Attestation evidence that was judged. The evidence itself is sealed, as the
/// device sent it; the hash in the same event is of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvidenceJudgedV1 {
    /// Whose evidence it is, by the device's own word.
    pub platform: Platform,
    /// The time at which its dates were judged.
    pub judged_at: Micros,
    /// The configuration whose policy it was judged under.
    pub config_version: u64,
    /// The revocation list it was judged with, if there was one.
    pub list: Option<ListName>,
    /// Why it was refused; none if it was accepted.
    pub reason: Option<Reason>,
    /// Issuer and serial of every certificate but the leaf.
    pub authorities: Vec<CertificateName>,
    /// What risk attributes report of it.
    pub facts: Facts,
}

/// A part of a revocation list that was taken over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevocationListTakenV1 {
    /// Who took it over.
    pub by: Actor,
    /// SHA-256 of the file.
    pub hash: Bytes32,
    /// Which part this is, from 0.
    pub part: u32,
    /// How many there are.
    pub parts: u32,
    /// Its entries, by ascending serial.
    pub entries: Vec<ListEntry>,
}

/// Where pushes for a registration go was said by its device. The address is sealed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushAddressSetV1 {
    /// Whether there is an address now; else it was removed.
    pub present: bool,
}

/// A lock after too many failures ended because its time was over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockReleasedV1 {
    /// Counted failures from now on: one below those allowed, so that one more locks.
    pub failures: u32,
}

/// A question was issued that a phone without a network can answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfflineAskedV1 {
    /// Who asked for it.
    pub by: Actor,
    /// The operation.
    pub operation: Id,
    /// The question's nonce.
    pub nonce: [u8; NONCE_LEN],
}

/// The code that answers an offline question was judged, for better or worse. No
/// signature stands behind it: only who has the server's secret can check it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfflineJudgedV1 {
    /// Who passed it on.
    pub by: Actor,
    /// The application.
    pub application: Id,
    /// The operation.
    pub operation: Id,
    /// The question's nonce: judged once and now used.
    pub nonce: [u8; NONCE_LEN],
    /// What the operation asks for.
    pub kind: OperationKind,
    /// Factors required.
    pub level: Level,
    /// Hash of the context, zeros if none.
    pub context_hash: Bytes32,
    /// Hash of the data to sign, zeros if none.
    pub data_to_sign_hash: Bytes32,
    /// The method that answered, as the code says.
    pub method: Method,
    /// The code as it was typed, ten digits.
    pub code: String,
    /// Whether it is the one that was to be typed.
    pub right: bool,
    /// Digest of operation and code: the same one again gets the same answer.
    pub body_digest: Bytes32,
    /// Position of the record that set the keys judged against.
    pub keys_at: Position,
    /// The configuration in force.
    pub config_version: u64,
    /// What there is to say of the hardware key, which takes no part.
    pub hw_key_server_result: HwKeyServerResult,
    /// Why it failed; none if it was accepted.
    pub failure: Option<AuthenticationFailure>,
    /// Counted failures of the registration from now on.
    pub failures: u32,
    /// Failures that the configuration in force allows.
    pub failures_allowed: u32,
    /// What became of the operation.
    pub operation_state: OperationState,
}

/// A device was blocked: its registrations are locked, and none can be activated
/// on it. The stream is the application. The device hash is sealed under the
/// device's own key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceBlockedV1 {
    /// Who blocked it.
    pub by: Actor,
    /// The device; see [`crate::devices`].
    pub device: Id,
    /// Why.
    pub reason: ReasonGiven,
}

/// A device is no longer blocked. The registrations that the block locked stay so
/// until each is unlocked. The stream is the application.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceUnblockedV1 {
    /// Who ended the block.
    pub by: Actor,
    /// The device.
    pub device: Id,
}

/// A sweep found registrations that nobody has used for long. Those that end are
/// in the events that follow; the others wait. The stream is the application.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InactiveDeactivatedV1 {
    /// When the sweep looked: what inactivity is measured to.
    pub as_of: Micros,
    /// Days without use that the configuration in force allows.
    pub after_days: u32,
    /// Registrations that the sweep found, as far as it counted.
    pub due: u64,
    /// When the window of a day began that the limit is for.
    pub since: Micros,
    /// How many may end in that window without a confirmation.
    pub limit: u64,
    /// How many end by this event.
    pub ended: u64,
    /// How many of those end by a confirmation.
    pub confirmed: u64,
}

/// An administrator allowed more registrations to end for want of use than the
/// limit of a day does. The stream is the application.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InactivityConfirmedV1 {
    /// Who confirmed it.
    pub by: Actor,
    /// How many, beside the limit; what was left of an earlier confirmation is void.
    pub registrations: u32,
    /// Until when.
    pub until: Micros,
}

/// A device was named, or its name removed. The name is sealed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceNamedV1 {
    /// Who named it; none if the device itself did.
    pub by: Option<Actor>,
    /// Whether it has a name from now on.
    pub named: bool,
}

/// A registration has a new set of recovery codes; a former one is void.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveryCodesIssuedV1 {
    /// The activation or operation that the set came with: the salt of its hashes.
    pub set: Id,
    /// Keyed hash of the selector that all its codes begin with.
    pub selector: Bytes32,
    /// Keyed hash of each code.
    pub codes: Vec<Bytes32>,
}

/// A recovery code was redeemed: an activation of a new registration has begun, which
/// takes the place of another one. The person's reference is sealed, once more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveryStartedV1 {
    /// The application.
    pub application: Id,
    /// The activation.
    pub activation: Id,
    /// The registration whose place is taken.
    pub recovers: Id,
    /// Keyed hash of the code.
    pub code: Bytes32,
    /// Hash of the client's nonce, for which redeeming can be repeated.
    pub nonce_hash: Bytes32,
    /// The challenge.
    pub challenge: Bytes32,
    /// The client's version as it declared it.
    pub client_version: String,
    /// When the activation can no longer be finished.
    pub expires_at: Micros,
}

/// A recovery code of this registration was used up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveryCodeRedeemedV1 {
    /// Its keyed hash.
    pub code: Bytes32,
    /// The activation that it began.
    pub activation: Id,
}

/// What was sent as a recovery code of this registration is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveryCodeRefusedV1 {
    /// Keyed hash of what was sent.
    pub code: Bytes32,
    /// Wrong codes for the set from now on.
    pub failures: u32,
    /// Wrong codes after which no code of the set is taken.
    pub failures_allowed: u32,
}

/// Bytes that are no event of this version of the software.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// The type or its schema version is not known.
    #[error("unknown event type {event_type} schema {schema}")]
    Unknown {
        /// The type.
        event_type: u16,
        /// The schema version.
        schema: u16,
    },
    /// The type is known; the bytes are not of its layout.
    #[error("payload of event type {event_type} cannot be read")]
    Undecodable {
        /// The type.
        event_type: u16,
    },
}

/// The payload of an event type.
pub trait Payload {
    /// Registry number and schema version: what a sealed part beside it is bound to.
    const KIND: (u16, u16);
}

/// Declares [`Event`] from the registry: variant, payload, type, schema.
macro_rules! registry {
    ($($variant:ident($payload:ty) = $event_type:literal schema $schema:literal,)*) => {
        /// An event: the clear part of a record.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum Event {
            $(#[doc = concat!("Type ", stringify!($event_type), ", schema ", stringify!($schema), ".")]
            $variant(Box<$payload>),)*
        }

        /// Type, schema version and name of every event.
        pub const REGISTRY: &[(u16, u16, &str)] =
            &[$(($event_type, $schema, stringify!($variant)),)*];

        impl Event {
            /// Registry number and schema version.
            #[must_use]
            pub fn kind(&self) -> (u16, u16) {
                match self { $(Self::$variant(_) => ($event_type, $schema),)* }
            }

            /// The name in documents, exports and timelines.
            #[must_use]
            pub fn name(&self) -> &'static str {
                match self { $(Self::$variant(_) => stringify!($variant),)* }
            }

            /// The clear part.
            #[must_use]
            pub fn encode(&self) -> Vec<u8> {
                match self { $(Self::$variant(payload) => codec::encode(payload.as_ref()),)* }
            }

            /// Reads a clear part.
            ///
            /// # Errors
            ///
            /// [`EventError`] if type or schema are unknown or the bytes do not fit.
            pub fn decode(event_type: u16, schema: u16, clear: &[u8]) -> Result<Self, EventError> {
                match (event_type, schema) {
                    $(($event_type, $schema) => codec::decode::<$payload>(clear)
                        .map(|payload| Self::$variant(Box::new(payload)))
                        .map_err(|_| EventError::Undecodable { event_type }),)*
                    _ => Err(EventError::Unknown { event_type, schema }),
                }
            }

            /// How the clear part of an event stands in bytes; none if there is no such event.
            #[must_use]
            pub fn layout(event_type: u16, schema: u16) -> Option<Result<Layout, NoLayout>> {
                match (event_type, schema) {
                    $(($event_type, $schema) => Some(layout::of::<$payload>()),)*
                    _ => None,
                }
            }

            /// The clear part as JSON, for people and exports.
            #[must_use]
            pub fn to_json(&self) -> serde_json::Value {
                match self {
                    $(Self::$variant(payload) => crate::display::json_of(payload.as_ref()),)*
                }
            }
        }

        $(impl Payload for $payload {
            const KIND: (u16, u16) = ($event_type, $schema);
        })*

        $(impl From<$payload> for Event {
            fn from(payload: $payload) -> Self {
                Self::$variant(Box::new(payload))
            }
        })*
    };
}

registry! {
    LogStarted(LogStartedV1) = 1 schema 1,
    ClockStepped(ClockSteppedV1) = 2 schema 1,
    RefusalsCounted(RefusalsCountedV1) = 3 schema 1,
    KeyRotated(KeyRotatedV1) = 4 schema 1,
    ClockConfirmed(ClockConfirmedV1) = 5 schema 1,
    StateDigested(StateDigestedV1) = 6 schema 1,
    EpochBegun(EpochBegunV1) = 7 schema 1,
    ApiKeyCreated(ApiKeyCreatedV1) = 10 schema 1,
    ApiKeyRevoked(ApiKeyRevokedV1) = 11 schema 1,
    ApplicationCreated(ApplicationCreatedV1) = 20 schema 1,
    ConfigurationChanged(ConfigurationChangedV1) = 21 schema 1,
    CodeBudgetExhausted(CodeBudgetExhaustedV1) = 22 schema 1,
    ActivationRequested(ActivationRequestedV1) = 30 schema 1,
    ActivationStarted(ActivationStartedV1) = 31 schema 1,
    ActivationJudged(ActivationJudgedV1) = 32 schema 1,
    ActivationExpired(ActivationExpiredV1) = 33 schema 1,
    ActivationCancelled(ActivationCancelledV1) = 34 schema 1,
    RegistrationLocked(RegistrationLockedV1) = 40 schema 1,
    RegistrationUnlocked(RegistrationUnlockedV1) = 41 schema 1,
    RegistrationDeactivated(RegistrationDeactivatedV1) = 42 schema 1,
    HardwareKeyAdded(HardwareKeyAddedV1) = 43 schema 1,
    HardwareKeyRotated(HardwareKeyRotatedV1) = 44 schema 1,
    HardwareKeyReplaced(HardwareKeyReplacedV1) = 45 schema 1,
    MethodAdded(MethodAddedV1) = 46 schema 1,
    MethodReplaced(MethodReplacedV1) = 47 schema 1,
    MethodRemoved(MethodRemovedV1) = 48 schema 1,
    OperationCreated(OperationCreatedV1) = 50 schema 1,
    ChallengeIssued(ChallengeIssuedV1) = 51 schema 1,
    AuthenticationJudged(AuthenticationJudgedV1) = 52 schema 1,
    OperationExpired(OperationExpiredV1) = 53 schema 1,
    OperationCancelled(OperationCancelledV1) = 54 schema 1,
    OperationAnsweredElsewhere(OperationAnsweredElsewhereV1) = 55 schema 1,
    OperationBegun(OperationBegunV1) = 56 schema 1,
    PushAddressSet(PushAddressSetV1) = 57 schema 1,
    ErasureOrdered(ErasureOrderedV1) = 60 schema 1,
    SubjectErased(SubjectErasedV1) = 61 schema 1,
    KeyUseCounted(KeyUseCountedV1) = 63 schema 1,
    ExportMade(ExportMadeV1) = 64 schema 1,
    DataRevealed(DataRevealedV1) = 65 schema 1,
    RevocationListTaken(RevocationListTakenV1) = 70 schema 1,
    DeviceBlocked(DeviceBlockedV1) = 80 schema 1,
    DeviceUnblocked(DeviceUnblockedV1) = 81 schema 1,
    InactiveDeactivated(InactiveDeactivatedV1) = 83 schema 1,
    InactivityConfirmed(InactivityConfirmedV1) = 84 schema 1,
    LockReleased(LockReleasedV1) = 85 schema 1,
    OfflineAsked(OfflineAskedV1) = 90 schema 1,
    OfflineJudged(OfflineJudgedV1) = 91 schema 1,
    DeviceNamed(DeviceNamedV1) = 111 schema 1,
    RecoveryCodesIssued(RecoveryCodesIssuedV1) = 112 schema 1,
    RecoveryStarted(RecoveryStartedV1) = 113 schema 1,
    RecoveryCodeRedeemed(RecoveryCodeRedeemedV1) = 114 schema 1,
    RecoveryCodeRefused(RecoveryCodeRefusedV1) = 115 schema 1,
}
