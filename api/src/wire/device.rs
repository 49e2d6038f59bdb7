//! Bodies between a device and the server. The rules are in `docs/protocol.md`.

use engine::attestation::Platform;
use engine::ids::Id;
use engine::reasons::{
    Confirmation, OperationKind, OperationState, PinType, RejectReason, RiskAttribute,
};
use engine::terms::{Decision, HwKeyClientStatus, Level, Method};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::words::{
    ConfirmationWord, DecisionWord, HwKeyClientStatusWord, LevelWord, MethodWord,
    OperationKindWord, OperationStateWord, PinTypeWord, PlatformWord, RejectReasonWord,
    RiskAttributeWord, Uuid,
};
use super::{Moment, Octets, Octets32};

/// Redeems an activation code or QR secret. Exactly one of `code` and `qr_secret` is sent.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StartActivation {
    /// The application that the app belongs to.
    #[schema(value_type = Uuid)]
    pub application_id: Id,
    /// The code that the user typed: blanks, hyphens and case do not matter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, max_length = 64)]
    pub code: Option<String>,
    /// The secret of the QR payload: 16 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub qr_secret: Option<Octets>,
    /// 32 random bytes of the device. The same request again gets the same answer.
    pub nonce: Octets32,
    /// The client's version, one to four numbers with dots between.
    #[schema(max_length = 32, example = "3.8.0")]
    pub client_version: String,
}

impl std::fmt::Debug for StartActivation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StartActivation")
            .field("application_id", &self.application_id)
            .field("client_version", &self.client_version)
            .finish_non_exhaustive()
    }
}

/// What redeeming a code gave.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct StartedActivation {
    /// The activation: the operation id of its transcripts.
    #[schema(value_type = Uuid)]
    pub activation_id: Id,
    /// The registration that the keys are for.
    #[schema(value_type = Uuid)]
    pub registration_id: Id,
    /// The challenge to answer.
    pub challenge: Octets32,
    /// When it can no longer be answered.
    pub expires_at: Moment,
    /// Whether the registration has keys already: a signature by one of them is wanted.
    pub again: bool,
    /// Methods that may be activated; DEVICE must be.
    #[schema(value_type = Vec<MethodWord>)]
    pub methods: Vec<Method>,
    /// What a PIN must look like. The device enforces it: no PIN reaches the server.
    pub pin_policy: PinPolicy,
    /// Whether this client can have a hardware key.
    pub expects_hardware_key: bool,
    /// Risk attributes that the service provider wants to see.
    #[schema(value_type = Vec<RiskAttributeWord>)]
    pub risk_attributes: Vec<RiskAttribute>,
}

/// What a PIN must look like.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PinPolicy {
    /// Shortest PIN, in characters.
    pub length_min: u32,
    /// Longest PIN, in characters.
    pub length_max: u32,
    /// What it consists of.
    #[serde(rename = "type")]
    #[schema(value_type = PinTypeWord)]
    pub kind: PinType,
}

/// Octets and the salt of the hash under which they are signed.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Salted {
    /// 32 random bytes.
    pub salt: Octets32,
    /// The octets, exactly as they are hashed.
    pub octets: Octets,
}

/// A software key and the proof that the device holds it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SoftwareKey {
    /// The method it serves.
    #[schema(value_type = MethodWord)]
    pub method: Method,
    /// SubjectPublicKeyInfo or SEC1 point, at most 120 bytes.
    pub public_key: Octets,
    /// Its signature in role SOFTWARE, DER. One that is missing fails like a wrong one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub signature: Option<Octets>,
}

/// A hardware key and the proof that the device holds it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HardwareKey {
    /// SubjectPublicKeyInfo or SEC1 point, at most 120 bytes.
    pub public_key: Octets,
    /// Its signature in role HARDWARE, DER.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub signature: Option<Octets>,
}

/// Signatures in role PREVIOUS by keys on file; either suffices.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PreviousSignatures {
    /// By the DEVICE key on file, DER.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub device: Option<Octets>,
    /// By the hardware key on file, DER.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub hardware: Option<Octets>,
}

/// Answers the challenge of an activation with keys.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FinishActivation {
    /// The challenge that is answered.
    pub challenge: Octets32,
    /// The client's version, as it stands in the transcripts.
    #[schema(max_length = 32, example = "3.8.0")]
    pub client_version: String,
    /// How the device fared with its hardware key; NOT_REPORTED if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = HwKeyClientStatusWord, required = false)]
    pub hw_key_client_status: Option<HwKeyClientStatus>,
    /// One key for each method that is activated, DEVICE among them.
    #[schema(max_items = 8)]
    pub software_keys: Vec<SoftwareKey>,
    /// The hardware key, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub hardware_key: Option<HardwareKey>,
    /// At a re-activation: signatures by keys on file.
    #[serde(default)]
    pub previous: PreviousSignatures,
    /// 32 random bytes that the device sends with every later request.
    pub device_token: Octets32,
    /// Data of the app for the service provider, at most 1,024 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub client_data: Option<Salted>,
    /// Risk data, at most 8,192 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub risk_data: Option<Salted>,
    /// Evidence that the hardware key is in hardware.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub attestation: Option<AttestationEvidence>,
}

/// Evidence of the phone's maker about the hardware key.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AttestationEvidence {
    /// Whose evidence it is.
    #[schema(value_type = PlatformWord)]
    pub platform: Platform,
    /// 32 random bytes: the salt of the hash that is signed.
    pub salt: Octets32,
    /// The evidence, at most 24,576 bytes.
    pub octets: Octets,
}

/// Whether the keys were taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FinishedActivation {
    /// Whether the registration is now active with these keys. If not, the activation is over.
    pub accepted: bool,
    /// The registration.
    #[schema(value_type = Uuid)]
    pub registration_id: Id,
    /// Whether the hardware key was stored.
    pub hardware_key_stored: bool,
}

/// What the user is to be shown. It is signed with its title and its media type.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Shown {
    /// Its title; may be empty.
    pub title: String,
    /// Its media type.
    #[serde(rename = "type")]
    pub kind: String,
    /// 32 random bytes.
    pub salt: Octets32,
    /// The octets, exactly as they are hashed.
    pub octets: Octets,
}

/// What the user must confirm to approve.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ConfirmationWanted {
    /// How.
    #[schema(value_type = ConfirmationWord)]
    pub how: Confirmation,
    /// The numbers to pick from; empty where the number is typed.
    pub choices: Vec<u32>,
}

/// What the user is shown after approval. Nobody signs it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PostContext {
    /// Its title; may be empty.
    pub title: String,
    /// Its media type.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its bytes.
    pub octets: Octets,
}

/// Begins an authentication that no service provider has asked for.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BeginOperation {
    /// The registration.
    #[schema(value_type = Uuid)]
    pub registration_id: Id,
    /// The device token.
    pub device_token: Octets32,
    /// 32 random bytes of the device. The same request again gets the same operation.
    pub nonce: Octets32,
    /// Factors that the user is to show.
    #[schema(value_type = LevelWord)]
    pub level: Level,
    /// The client's version.
    #[schema(max_length = 32, example = "3.8.0")]
    pub client_version: String,
}

/// An operation that the device began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BegunOperation {
    /// The operation: start and finish it, and tell the back end its id.
    #[schema(value_type = Uuid)]
    pub operation_id: Id,
    /// When it can no longer be answered.
    pub expires_at: Moment,
}

/// Asks what waits for the device.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ListPending {
    /// The registration.
    #[schema(value_type = Uuid)]
    pub registration_id: Id,
    /// The device token.
    pub device_token: Octets32,
    /// Seconds to wait if there is nothing yet, 0 to 30; 0 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, maximum = 30)]
    pub wait_s: Option<u32>,
}

/// What waits for the device, oldest first.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Pending {
    /// The operations that can be answered.
    pub operations: Vec<PendingOperation>,
}

/// An operation that can be answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PendingOperation {
    /// The operation.
    #[schema(value_type = Uuid)]
    pub operation_id: Id,
    /// What it asks for.
    #[schema(value_type = OperationKindWord)]
    pub kind: OperationKind,
    /// Factors required.
    #[schema(value_type = LevelWord)]
    pub level: Level,
    /// When it was created.
    pub created_at: Moment,
    /// When it can no longer be answered.
    pub expires_at: Moment,
}

/// Asks for the challenge of a pending operation.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StartAuthentication {
    /// The registration.
    #[schema(value_type = Uuid)]
    pub registration_id: Id,
    /// The device token.
    pub device_token: Octets32,
    /// The operation; if absent, the oldest that is pending.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Uuid, required = false)]
    pub operation_id: Option<Id>,
    /// The client's version.
    #[schema(max_length = 32, example = "3.8.0")]
    pub client_version: String,
}

/// What the user is asked, and the challenge.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct StartedAuthentication {
    /// The operation.
    #[schema(value_type = Uuid)]
    pub operation_id: Id,
    /// The application, as it stands in the transcripts.
    #[schema(value_type = Uuid)]
    pub application_id: Id,
    /// The challenge to answer.
    pub challenge: Octets32,
    /// What it asks for: the purpose in the transcripts.
    #[schema(value_type = OperationKindWord)]
    pub kind: OperationKind,
    /// Factors required, as it stands in the transcripts.
    #[schema(value_type = LevelWord)]
    pub level: Level,
    /// Methods that may approve.
    #[schema(value_type = Vec<MethodWord>)]
    pub methods: Vec<Method>,
    /// What the user is to be shown, if anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub context: Option<Shown>,
    /// What the user must confirm to approve, if anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub confirmation: Option<ConfirmationWanted>,
    /// What is signed beside it, if anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub data_to_sign: Option<Salted>,
    /// When the operation can no longer be answered.
    pub expires_at: Moment,
    /// Counted failures that remain until the registration is locked.
    pub remaining_attempts: u32,
}

/// Signatures over the transcript of an authentication, DER.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Signatures {
    /// By the method's software key, in role SOFTWARE.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub software: Option<Octets>,
    /// By the DEVICE key, in role POSSESSION.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub possession: Option<Octets>,
    /// By the hardware key, in role HARDWARE.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub hardware: Option<Octets>,
}

/// Answers the challenge of an operation.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FinishAuthentication {
    /// The registration.
    #[schema(value_type = Uuid)]
    pub registration_id: Id,
    /// The device token.
    pub device_token: Octets32,
    /// The challenge that is answered.
    pub challenge: Octets32,
    /// The method that the user chose.
    #[schema(value_type = MethodWord)]
    pub method: Method,
    /// What the user decided.
    #[schema(value_type = DecisionWord)]
    pub decision: Decision,
    /// With reject: why, if the user says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = RejectReasonWord, required = false)]
    pub reject_reason: Option<RejectReason>,
    /// With approve: the number that the user confirmed, if one is wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, maximum = 999999)]
    pub number: Option<u32>,
    /// The client's version, as it stands in the transcripts.
    #[schema(max_length = 32, example = "3.8.0")]
    pub client_version: String,
    /// How the device fared with its hardware key; NOT_REPORTED if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = HwKeyClientStatusWord, required = false)]
    pub hw_key_client_status: Option<HwKeyClientStatus>,
    /// The signatures.
    pub signatures: Signatures,
    /// Data of the app for the service provider, at most 1,024 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub client_data: Option<Salted>,
    /// Risk data, at most 8,192 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub risk_data: Option<Salted>,
}

/// How the answer was judged. Which signature failed is not said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FinishedAuthentication {
    /// Whether every check passed.
    pub accepted: bool,
    /// What became of the operation: after PENDING a new start gives a new challenge.
    #[schema(value_type = OperationStateWord)]
    pub state: OperationState,
    /// Counted failures that remain until the registration is locked.
    pub remaining_attempts: u32,
    /// Whether one more counted failure locks the registration.
    pub last_attempt: bool,
    /// Whether this answer locked the registration.
    pub locked: bool,
    /// Whether the registration must be activated again before it can be used.
    pub must_reactivate: bool,
    /// After approval: what the user is to be shown now, if anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub post_context: Option<PostContext>,
}
