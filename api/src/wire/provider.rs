//! Bodies between a service provider's back end and the server.

use engine::attestation;
use engine::ids::Id;
use engine::reasons::{
    ActivationFailure, ActivationState, AuthenticationFailure, CancelReason, Confirmation,
    ErasureReason, LockReason, OperationKind, OperationState, ReasonGiven, RegistrationState,
    RejectReason,
};
use engine::terms::{Decision, HwKeyClientStatus, HwKeyServerResult, Level, Method};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::words::{
    ActivationFailureWord, ActivationStateWord, AttestationReasonWord, AttestationStatusWord,
    AuthenticationFailureWord, BootStateWord, CancelReasonWord, ConfirmationWord, DecisionWord,
    EnvironmentWord, ErasureReasonWord, HwKeyClientStatusWord, HwKeyServerResultWord, LevelWord,
    ListStateWord, LockReasonWord, MethodWord, OperationKindWord, OperationStateWord,
    ProvisioningWord, ReasonGivenWord, RegistrationStateWord, RejectReasonWord, SecurityLevelWord,
    Uuid,
};
use super::{Moment, Octets, Octets32};

/// Asks for the activation of a new registration.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RequestActivation {
    /// The application.
    #[schema(value_type = Uuid)]
    pub application_id: Id,
    /// The service provider's own name for the user, 1 to 256 bytes. Stored encrypted.
    #[schema(min_length = 1, max_length = 256)]
    pub user_ref: String,
}

/// An activation and the secrets that redeem it. Show them to the user alone.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct RequestedActivation {
    /// The activation.
    #[serde(flatten)]
    pub activation: Activation,
    /// The code that the user types.
    pub code: String,
    /// The text of the QR code that the user scans instead.
    pub qr_payload: String,
}

impl std::fmt::Debug for RequestedActivation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("RequestedActivation");
        shown.field("activation", &self.activation).finish_non_exhaustive()
    }
}

/// An activation.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Activation {
    /// Its id.
    #[schema(value_type = Uuid)]
    pub activation_id: Id,
    /// The registration.
    #[schema(value_type = Uuid)]
    pub registration_id: Id,
    /// The application.
    #[schema(value_type = Uuid)]
    pub application_id: Id,
    /// Where it stands.
    #[schema(value_type = ActivationStateWord)]
    pub state: ActivationState,
    /// Whether the registration had keys before.
    pub again: bool,
    /// When it was requested.
    pub created_at: Moment,
    /// Its present deadline: to redeem the code, then to finish.
    pub expires_at: Moment,
    /// When it was judged, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub judged_at: Option<Moment>,
    /// Why it failed, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = ActivationFailureWord, required = false)]
    pub failure: Option<ActivationFailure>,
    /// What cancelled it, if something did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = CancelReasonWord, required = false)]
    pub cancel_reason: Option<CancelReason>,
    /// Whether the hardware key was stored.
    pub hardware_key_stored: bool,
    /// Whether it was a re-activation without proof by a key on file.
    pub unproven_device: bool,
    /// The risk attributes that the application enables; known once it was judged.
    pub risk: Risk,
}

/// Risk attributes. Those that the application does not enable are absent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Risk {
    /// How the device says it fared with its hardware key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = HwKeyClientStatusWord, required = false)]
    pub hw_key_client_status: Option<HwKeyClientStatus>,
    /// What the server found when it checked the hardware key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = HwKeyServerResultWord, required = false)]
    pub hw_key_server_result: Option<HwKeyServerResult>,
    /// How the hardware key stands with attestation, as judged at activation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub attestation: Option<Attestation>,
}

/// What came of evidence that the hardware key is in hardware. What the
/// evidence does not say is absent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Attestation {
    /// How it stands.
    #[schema(value_type = AttestationStatusWord)]
    pub status: attestation::Status,
    /// Why evidence was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = AttestationReasonWord, required = false)]
    pub reason: Option<attestation::Reason>,
    /// When it was judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub date: Option<Moment>,
    /// Where the key lives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = SecurityLevelWord, required = false)]
    pub security_level: Option<attestation::SecurityLevel>,
    /// How the system booted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = BootStateWord, required = false)]
    pub boot_state: Option<attestation::BootState>,
    /// Whether the boot loader was locked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub device_locked: Option<bool>,
    /// The system's patch level, YYYYMM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub patch_level: Option<u32>,
    /// Where the attestation key came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = ProvisioningWord, required = false)]
    pub provisioning: Option<attestation::Provisioning>,
    /// Apple's environment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = EnvironmentWord, required = false)]
    pub environment: Option<attestation::Environment>,
    /// What the revocation list was worth.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = ListStateWord, required = false)]
    pub revocation_list: Option<attestation::ListState>,
}

impl From<&attestation::Attested> for Attestation {
    fn from(attested: &attestation::Attested) -> Self {
        let facts = &attested.facts;
        Self {
            status: attested.status,
            reason: attested.reason,
            date: attested.at.map(Moment),
            security_level: facts.security_level,
            boot_state: facts.boot_state,
            device_locked: facts.device_locked,
            patch_level: facts.patch_level,
            provisioning: facts.provisioning,
            environment: facts.environment,
            revocation_list: facts.list,
        }
    }
}

/// A public key of a registration, by its id.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RegisteredKey {
    /// The method it serves; absent for the hardware key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = MethodWord, required = false)]
    pub method: Option<Method>,
    /// SHA-256 of its SubjectPublicKeyInfo.
    pub key_id: Octets32,
}

/// The erasure of a user. None of it names the user.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Erasure {
    /// The random id that stands for the user in the log.
    #[schema(value_type = Uuid)]
    pub subject_id: Id,
    /// Why.
    #[schema(value_type = ErasureReasonWord)]
    pub reason: ErasureReason,
    /// When it was ordered.
    pub ordered_at: Moment,
    /// When the key was destroyed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub erased_at: Option<Moment>,
    /// Position in the log of the record that orders it.
    pub position: u64,
}

/// A registration: one app on one device.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Registration {
    /// Its id.
    #[schema(value_type = Uuid)]
    pub registration_id: Id,
    /// The application.
    #[schema(value_type = Uuid)]
    pub application_id: Id,
    /// The service provider's own name for the user; absent once it was erased.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub user_ref: Option<String>,
    /// Where it stands.
    #[schema(value_type = RegistrationStateWord)]
    pub state: RegistrationState,
    /// Why it is locked, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = LockReasonWord, required = false)]
    pub lock_reason: Option<LockReason>,
    /// Its software keys.
    pub software_keys: Vec<RegisteredKey>,
    /// Its hardware key, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub hardware_key: Option<RegisteredKey>,
    /// Whether the device cannot have a hardware key, as recorded at activation.
    pub hardware_key_impossible: bool,
    /// Whether the last re-activation was not proven by a key on file.
    pub unproven_device: bool,
    /// The client's version at activation; empty before.
    pub client_version: String,
    /// Counted failures.
    pub failures: u32,
    /// Counted failures that remain until it is locked.
    pub remaining_attempts: u32,
    /// The activation under way, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Uuid, required = false)]
    pub activation_id: Option<Id>,
    /// Operations that wait for an answer, oldest first.
    #[schema(value_type = Vec<Uuid>)]
    pub pending_operations: Vec<Id>,
    /// When it was requested.
    pub created_at: Moment,
    /// When it was last activated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub activated_at: Option<Moment>,
    /// When it last authenticated successfully.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub last_used_at: Option<Moment>,
}

/// Why a registration is locked or deactivated.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Because {
    /// The reason.
    #[schema(value_type = ReasonGivenWord)]
    pub reason: ReasonGiven,
}

/// What the user is shown.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Context {
    /// Its media type, at most 128 characters.
    #[serde(rename = "type")]
    #[schema(max_length = 128, example = "text/plain")]
    pub kind: String,
    /// Its title, at most 256 bytes; empty if absent.
    #[serde(default)]
    #[schema(max_length = 256, required = false)]
    pub title: String,
    /// Its bytes, at most 16,384.
    pub octets: Octets,
}

/// Declares what asks devices: the members of each, and those that all have.
/// serde can flatten a struct into another or refuse unknown members, not both.
macro_rules! asking {
    ($($(#[$about:meta])* $name:ident { $($own:tt)* })*) => { $(
        $(#[$about])*
        #[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            $($own)*
            /// A template of the application. It says kind, level, methods, lifetime and confirmation,
            /// which are then absent here.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            #[schema(nullable = false, max_length = 64)]
            pub template: Option<String>,
            /// What it asks for; AUTHENTICATION if absent. A TRANSACTION has a context or data to sign.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            #[schema(value_type = OperationKindWord, required = false)]
            pub kind: Option<OperationKind>,
            /// Factors required; absent where a template says it.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            #[schema(value_type = LevelWord, required = false)]
            pub level: Option<Level>,
            /// Methods that may answer; empty or absent means any that reaches the level.
            #[serde(default)]
            #[schema(value_type = Vec<MethodWord>, required = false)]
            pub methods: Vec<Method>,
            /// What the user is shown, if anything. Stored encrypted.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            #[schema(nullable = false)]
            pub context: Option<Context>,
            /// What the user signs beside it, if anything, at most 16,384 bytes. Stored encrypted.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            #[schema(nullable = false)]
            pub data_to_sign: Option<Octets>,
            /// What the user is shown after approval, if anything. Stored encrypted, not signed.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            #[schema(nullable = false)]
            pub post_context: Option<Context>,
            /// What the user must confirm to approve, if anything: the answer has the number to
            /// show, which is one for all devices of a broadcast.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            #[schema(value_type = ConfirmationWord, required = false)]
            pub confirmation: Option<Confirmation>,
            /// The service provider's own id for it, 1 to 128 bytes. Stored encrypted.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            #[schema(nullable = false, min_length = 1, max_length = 128)]
            pub external_id: Option<String>,
            /// Lifetime in seconds; the application's if absent.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            #[schema(nullable = false, minimum = 10, maximum = 86400)]
            pub lifetime_s: Option<u32>,
        }
    )* };
}

asking! {
    /// Asks a registration for an authentication.
    CreateOperation {
        /// The registration that is to answer.
        #[schema(value_type = Uuid)]
        pub registration_id: Id,
    }

    /// Asks all active devices of a user; the first to answer wins.
    CreateBroadcast {
        /// The application.
        #[schema(value_type = Uuid)]
        pub application_id: Id,
        /// The service provider's own name for the user.
        #[schema(min_length = 1, max_length = 256)]
        pub user_ref: String,
    }
}

impl CreateOperation {
    /// An authentication that shows and signs nothing.
    #[must_use]
    pub fn new(registration_id: Id, level: Level) -> Self {
        Self {
            registration_id,
            template: None,
            kind: None,
            level: Some(level),
            methods: Vec::new(),
            context: None,
            data_to_sign: None,
            post_context: None,
            confirmation: None,
            external_id: None,
            lifetime_s: None,
        }
    }

    /// What a broadcast asks of one device.
    #[must_use]
    pub fn from_broadcast(of: &CreateBroadcast, registration_id: Id) -> Self {
        Self {
            registration_id,
            template: of.template.clone(),
            kind: of.kind,
            level: of.level,
            methods: of.methods.clone(),
            context: of.context.clone(),
            data_to_sign: of.data_to_sign.clone(),
            post_context: of.post_context.clone(),
            confirmation: of.confirmation,
            external_id: of.external_id.clone(),
            lifetime_s: of.lifetime_s,
        }
    }
}

/// One question to several devices of a user.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Broadcast {
    /// Its id.
    #[schema(value_type = Uuid)]
    pub broadcast_id: Id,
    /// The application.
    #[schema(value_type = Uuid)]
    pub application_id: Id,
    /// The answer, if there is one; open, as long as one device can answer.
    #[schema(value_type = OperationStateWord)]
    pub state: OperationState,
    /// The operation that was approved or rejected, if one was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Uuid, required = false)]
    pub answered_by: Option<Id>,
    /// One operation for each device.
    pub operations: Vec<Operation>,
}

/// The number that the user is to confirm: show it where the user asked.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Matching {
    /// How it is confirmed.
    #[schema(value_type = ConfirmationWord)]
    pub how: Confirmation,
    /// The number: two digits to be picked, or six digits, with leading zeros, to be typed.
    #[schema(example = "42")]
    pub number: String,
}

/// A challenge of an operation that was judged.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Attempt {
    /// When.
    pub at: Moment,
    /// The method that answered.
    #[schema(value_type = MethodWord)]
    pub method: Method,
    /// What the user decided.
    #[schema(value_type = DecisionWord)]
    pub decision: Decision,
    /// Why the user said no, if the user said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = RejectReasonWord, required = false)]
    pub reject_reason: Option<RejectReason>,
    /// Why it failed; absent if it was accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = AuthenticationFailureWord, required = false)]
    pub failure: Option<AuthenticationFailure>,
    /// Position of its record in the log.
    pub position: u64,
}

/// An operation: one question to one registration.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Operation {
    /// Its id.
    #[schema(value_type = Uuid)]
    pub operation_id: Id,
    /// The registration.
    #[schema(value_type = Uuid)]
    pub registration_id: Id,
    /// The application.
    #[schema(value_type = Uuid)]
    pub application_id: Id,
    /// The broadcast that it belongs to, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Uuid, required = false)]
    pub broadcast_id: Option<Id>,
    /// Whether the device began it, without being asked.
    pub begun_by_device: bool,
    /// Where it stands.
    #[schema(value_type = OperationStateWord)]
    pub state: OperationState,
    /// What it asks for.
    #[schema(value_type = OperationKindWord)]
    pub kind: OperationKind,
    /// The service provider's own id for it, if it gave one; absent once the user was erased.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub external_id: Option<String>,
    /// The number to be confirmed, if one is wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub confirmation: Option<Matching>,
    /// Factors required.
    #[schema(value_type = LevelWord)]
    pub level: Level,
    /// Methods that may approve.
    #[schema(value_type = Vec<MethodWord>)]
    pub methods: Vec<Method>,
    /// When it was created.
    pub created_at: Moment,
    /// When it can no longer be answered.
    pub expires_at: Moment,
    /// When it ended, if it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub ended_at: Option<Moment>,
    /// What cancelled it, if something did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = CancelReasonWord, required = false)]
    pub cancel_reason: Option<CancelReason>,
    /// The answers that were judged, oldest first.
    pub attempts: Vec<Attempt>,
    /// Counted failures that remain until the registration is locked.
    pub remaining_attempts: u32,
    /// Where the registration stands.
    #[schema(value_type = RegistrationStateWord)]
    pub registration_state: RegistrationState,
    /// What the app sent along with the last judged answer; absent if nothing, or erased.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub client_data: Option<Octets>,
    /// The risk attributes that the application enables; known once an answer was judged or the
    /// operation has ended.
    pub risk: Risk,
}
