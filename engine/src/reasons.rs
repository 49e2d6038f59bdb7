//! Closed lists of outcomes and reasons, as they stand in records and JSON.
//!
//! Same rules as [`crate::terms`]: a word may be added, never changed.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::terms::{Purpose, terms};

terms! {
    /// What the holder of an API key may do.
    UserRole {
        /// Manages applications and API keys.
        Administrator = 1 "ADMINISTRATOR",
        /// Acts for one service provider.
        ServiceProvider = 2 "SERVICE_PROVIDER",
        /// Reads the log.
        Auditor = 3 "AUDITOR",
    }

    /// Whose budget of wrong activation codes was used up.
    BudgetScope {
        /// The application's.
        Application = 1 "APPLICATION",
        /// One source address's; which one is not recorded.
        Source = 2 "SOURCE",
    }

    /// What was redeemed.
    CodeKind {
        /// The short code that a person types.
        Typed = 1 "CODE",
        /// The 128-bit secret of the QR payload.
        Qr = 2 "QR",
        /// A recovery code.
        Recovery = 3 "RECOVERY",
    }

    /// What follows from the additional hardware check; see [`crate::strategy`].
    Strategy {
        /// A registration with a hardware key must prove it.
        Supported = 1 "SUPPORTED",
        /// The check fails nothing; its result is reported.
        RiskParams = 2 "RISK_PARAMS",
        /// A device that could have a hardware key must have and prove one.
        RequiredIfSupported = 3 "REQUIRED_IF_SUPPORTED",
        /// Everyone must have and prove a hardware key.
        Required = 4 "REQUIRED",
    }

    /// The alphabet of an activation code.
    CodeType {
        /// Ten digits.
        Numeric = 1 "NUMERIC",
        /// 22 letters: those of Crockford's Base32, which leaves out I, L, O and U.
        Alpha = 2 "ALPHA",
        /// The 32 symbols of Crockford's Base32.
        Alphanumeric = 3 "ALPHANUMERIC",
    }

    /// What a PIN may consist of. The device enforces it: no PIN reaches the server.
    PinType {
        /// Digits.
        Numeric = 1 "NUMERIC",
        /// Letters and digits.
        Alphanumeric = 2 "ALPHANUMERIC",
    }

    /// A risk attribute that the service provider may ask for.
    RiskAttribute {
        /// How the device says it fared with its hardware key.
        HwKeyClientStatus = 1 "hw_key_client_status",
        /// What the server found when it checked the hardware key.
        HwKeyServerResult = 2 "hw_key_server_result",
        /// What came of the evidence that the hardware key is in hardware.
        Attestation = 3 "attestation",
    }

    /// Why an activation failed.
    ActivationFailure {
        /// A software key did not prove that the device holds it.
        SoftwareKeyUnproven = 1 "SOFTWARE_KEY_UNPROVEN",
        /// The strategy in force does not accept what was found of the hardware key.
        HwKeyCheckFailed = 2 "HW_KEY_CHECK_FAILED",
        /// A re-activation was not signed by an old key, and the application requires that.
        PreviousKeyUnproven = 3 "PREVIOUS_KEY_UNPROVEN",
        /// The application requires evidence that the hardware key is in hardware, and it did not come or was refused.
        AttestationRequired = 4 "ATTESTATION_REQUIRED",
        /// The service provider has blocked the device that the app names.
        DeviceBlocked = 8 "DEVICE_BLOCKED",
        /// As many users as the application allows have registrations on the device that the app names.
        TooManyDeviceUsers = 9 "TOO_MANY_DEVICE_USERS",
    }

    /// Why an authentication failed.
    AuthenticationFailure {
        /// The software key's signature does not verify: a wrong PIN, for one.
        SoftwareSignatureInvalid = 1 "SOFTWARE_SIGNATURE_INVALID",
        /// Neither the hardware key nor the DEVICE key proved possession beside a
        /// PIN or biometric method.
        PossessionUnproven = 2 "POSSESSION_UNPROVEN",
        /// A hardware key is on file and its signature is missing or does not verify.
        HwKeyCheckFailed = 3 "HW_KEY_CHECK_FAILED",
        /// No hardware key is on file and the strategy in force requires one.
        HwKeyRequired = 4 "HW_KEY_REQUIRED",
        /// Every signature is good, and the number is not the one that was to be confirmed.
        ConfirmationWrong = 5 "CONFIRMATION_WRONG",
        /// The new key of a key change did not prove that the device holds it.
        NewKeyUnproven = 6 "NEW_KEY_UNPROVEN",
        /// The application requires evidence that a new hardware key is in hardware, and it
        /// did not come or was refused.
        AttestationRequired = 7 "ATTESTATION_REQUIRED",
        /// The code that answers an offline question is another one.
        OfflineCodeWrong = 8 "OFFLINE_CODE_WRONG",
    }

    /// What became of an operation.
    OperationState {
        /// It can be answered.
        Pending = 1 "PENDING",
        /// The user approved, and every check passed.
        Completed = 2 "COMPLETED",
        /// The user said no, and signed it.
        Rejected = 3 "REJECTED",
        /// It can no longer succeed.
        Failed = 4 "FAILED",
        /// Nobody answered in time.
        Expired = 5 "EXPIRED",
        /// It was withdrawn.
        Cancelled = 6 "CANCELLED",
        /// Its challenge is with a device, and can be answered.
        Started = 7 "STARTED",
    }

    /// What an operation asks a user for.
    OperationKind {
        /// To show that it is them.
        Authentication = 1 "AUTHENTICATION",
        /// To sign a transaction; the signed evidence is the service provider's to keep.
        Transaction = 2 "TRANSACTION",
        /// To add a hardware key to a registration that has none.
        AddHwKey = 3 "ADD_HW_KEY",
        /// To put a new hardware key in the place of the old one, which signs too.
        RotateHwKey = 4 "ROTATE_HW_KEY",
        /// To put a new hardware key in the place of one that is lost.
        ReplaceHwKey = 5 "REPLACE_HW_KEY",
        /// To add a key for a PIN or biometric method.
        AddMethod = 6 "ADD_METHOD",
        /// To replace the key of such a method: with a PIN, to change the PIN.
        ReplaceMethod = 7 "REPLACE_METHOD",
        /// To remove such a method.
        RemoveMethod = 8 "REMOVE_METHOD",
        /// To end the registration, by the device itself; only a device begins it.
        Deactivation = 9 "DEACTIVATION",
        /// To get a new set of recovery codes.
        RecoveryCodes = 10 "RECOVERY_CODES",
    }

    /// Why a user says no.
    RejectReason {
        /// The user did not start this: someone else did.
        NotMe = 1 "NOT_ME",
        /// What was shown is not what the user wanted.
        DetailsWrong = 2 "DETAILS_WRONG",
        /// The user no longer wants it.
        ChangedMind = 3 "CHANGED_MIND",
        /// Anything else.
        Other = 4 "OTHER",
    }

    /// How the user shows to be in front of the screen that asks.
    Confirmation {
        /// The screen shows a number, and the user picks it among three on the device.
        NumberMatching = 1 "NUMBER_MATCHING",
        /// The screen shows a number of six digits, and the user types it or lets the device read it.
        ProximityCode = 2 "PROXIMITY_CODE",
    }

    /// What became of an activation.
    ActivationState {
        /// The code waits to be redeemed.
        Requested = 1 "REQUESTED",
        /// The code was redeemed; the keys are awaited.
        Started = 2 "STARTED",
        /// The registration is active with the new keys.
        Completed = 3 "COMPLETED",
        /// It was judged and refused.
        Failed = 4 "FAILED",
        /// Nobody finished it in time.
        Expired = 5 "EXPIRED",
        /// It was withdrawn.
        Cancelled = 6 "CANCELLED",
    }

    /// Where a registration stands.
    RegistrationState {
        /// A code waits to be redeemed.
        Requested = 1 "REQUESTED",
        /// The code was redeemed; the keys are awaited.
        Started = 2 "STARTED",
        /// It can authenticate.
        Active = 3 "ACTIVE",
        /// It cannot, until it is unlocked or re-activated.
        Locked = 4 "LOCKED",
        /// It is over.
        Deactivated = 5 "DEACTIVATED",
    }

    /// A reason that a service provider gives.
    ReasonGiven {
        /// The user asked for it.
        UserRequest = 1 "USER_REQUEST",
        /// The device is lost.
        DeviceLost = 2 "DEVICE_LOST",
        /// The device was stolen.
        DeviceStolen = 3 "DEVICE_STOLEN",
        /// Fraud is suspected.
        FraudSuspected = 4 "FRAUD_SUSPECTED",
        /// Anything else.
        Other = 5 "OTHER",
        /// Its hardware key is no longer trusted: a certificate was revoked, or a
        /// policy refuses its evidence.
        KeyDistrusted = 6 "KEY_DISTRUSTED",
    }

    /// Why a registration is locked.
    LockReason {
        /// Too many counted failures.
        TooManyFailures = 1 "TOO_MANY_FAILURES",
        /// The user asked for it.
        UserRequest = 2 "USER_REQUEST",
        /// The device is lost.
        DeviceLost = 3 "DEVICE_LOST",
        /// The device was stolen.
        DeviceStolen = 4 "DEVICE_STOLEN",
        /// Fraud is suspected.
        FraudSuspected = 5 "FRAUD_SUSPECTED",
        /// Anything else.
        Other = 6 "OTHER",
        /// Its hardware key is no longer trusted.
        KeyDistrusted = 7 "KEY_DISTRUSTED",
        /// The service provider blocked the device that it is on.
        DeviceBlocked = 8 "DEVICE_BLOCKED",
    }

    /// Why a registration is over.
    DeactivationReason {
        /// The user asked for it.
        UserRequest = 1 "USER_REQUEST",
        /// The device is lost.
        DeviceLost = 2 "DEVICE_LOST",
        /// The device was stolen.
        DeviceStolen = 3 "DEVICE_STOLEN",
        /// Fraud is suspected.
        FraudSuspected = 4 "FRAUD_SUSPECTED",
        /// Anything else.
        Other = 5 "OTHER",
        /// Its hardware key is no longer trusted.
        KeyDistrusted = 6 "KEY_DISTRUSTED",
        /// The device itself ended it, and signed that.
        ByDevice = 7 "BY_DEVICE",
        /// A recovery code brought it to a new phone, whose registration took its place.
        Recovered = 8 "RECOVERED",
        /// Nobody has used it for as long as the application allows.
        Inactive = 9 "INACTIVE",
    }

    /// Why a person is erased. The letters are those of GDPR, Article 17(1).
    ErasureReason {
        /// The person asked for it: consent withdrawn (b) or an objection (c).
        UserRequest = 1 "USER_REQUEST",
        /// The data is no longer needed (a), for one because the relation ended.
        NoLongerNeeded = 2 "NO_LONGER_NEEDED",
        /// It should not have been processed (d).
        Unlawful = 3 "UNLAWFUL",
        /// A law or an authority demands it (e).
        LegalObligation = 4 "LEGAL_OBLIGATION",
        /// Anything else, or none was given.
        Other = 5 "OTHER",
    }

    /// In which form the log was exported.
    ExportForm {
        /// A folder of evidence that verifies by itself.
        Evidence = 1 "EVIDENCE",
        /// JSON Lines.
        JsonLines = 2 "JSON_LINES",
    }

    /// Why sealed parts are opened for an auditor.
    RevealReason {
        /// An audit.
        Audit = 1 "AUDIT",
        /// A customer disputes what the log says of them.
        Dispute = 2 "DISPUTE",
        /// Fraud or an incident is being looked into.
        Investigation = 3 "INVESTIGATION",
        /// A law or an authority demands it.
        LegalObligation = 4 "LEGAL_OBLIGATION",
        /// The person asked what is held of them (GDPR, Article 15).
        SubjectAccess = 5 "SUBJECT_ACCESS",
    }

    /// What cancelled an activation or operation.
    CancelReason {
        /// The service provider asked for it.
        Requested = 1 "REQUESTED",
        /// Another activation was requested for the same registration.
        Replaced = 2 "REPLACED",
        /// The registration was locked.
        RegistrationLocked = 3 "REGISTRATION_LOCKED",
        /// The registration was deactivated.
        RegistrationDeactivated = 4 "REGISTRATION_DEACTIVATED",
        /// Another device of the user has answered.
        AnsweredElsewhere = 5 "ANSWERED_ELSEWHERE",
    }
}

impl CodeType {
    /// The symbols, each as likely as any other.
    #[must_use]
    pub fn alphabet(self) -> &'static [u8] {
        match self {
            Self::Numeric => b"0123456789",
            Self::Alpha => b"ABCDEFGHJKMNPQRSTVWXYZ",
            Self::Alphanumeric => b"0123456789ABCDEFGHJKMNPQRSTVWXYZ",
        }
    }
}

impl OperationState {
    /// Whether nothing more can happen to it.
    #[must_use]
    pub fn is_final(self) -> bool {
        match self {
            Self::Pending | Self::Started => false,
            Self::Completed | Self::Rejected | Self::Failed | Self::Expired | Self::Cancelled => {
                true
            }
        }
    }
}

impl OperationKind {
    /// Whether only a device begins it.
    #[must_use]
    pub fn is_begun_by_device(self) -> bool {
        self == Self::Deactivation
    }

    /// Whether it makes sense for one device alone, and never for the first to answer.
    #[must_use]
    pub fn is_of_one_device(self) -> bool {
        self.key_change().is_some() || self == Self::RecoveryCodes
    }

    /// The purpose in the transcripts that answer it.
    #[must_use]
    pub fn purpose(self) -> Purpose {
        match self {
            Self::Authentication => Purpose::Authentication,
            Self::Transaction => Purpose::Transaction,
            Self::Deactivation => Purpose::Deactivation,
            Self::RecoveryCodes => Purpose::RecoveryCodes,
            Self::AddHwKey => Purpose::AddHwKey,
            Self::RotateHwKey => Purpose::RotateHwKey,
            Self::ReplaceHwKey => Purpose::ReplaceHwKey,
            Self::AddMethod => Purpose::AddMethod,
            Self::ReplaceMethod => Purpose::ReplaceMethod,
            Self::RemoveMethod => Purpose::RemoveMethod,
        }
    }

    /// What it makes of the registration's keys; none if it changes none.
    #[must_use]
    pub fn key_change(self) -> Option<KeyChange> {
        match self {
            Self::Authentication | Self::Transaction | Self::Deactivation | Self::RecoveryCodes => {
                None
            }
            Self::AddHwKey => Some(KeyChange::AddHwKey),
            Self::RotateHwKey => Some(KeyChange::RotateHwKey),
            Self::ReplaceHwKey => Some(KeyChange::ReplaceHwKey),
            Self::AddMethod => Some(KeyChange::AddMethod),
            Self::ReplaceMethod => Some(KeyChange::ReplaceMethod),
            Self::RemoveMethod => Some(KeyChange::RemoveMethod),
        }
    }
}

/// A change of one key of a live registration; see [`crate::key_change`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyChange {
    /// A hardware key, where there is none.
    AddHwKey,
    /// Another hardware key, with the consent of the one on file.
    RotateHwKey,
    /// Another hardware key, the one on file being lost.
    ReplaceHwKey,
    /// A key for a method that has none.
    AddMethod,
    /// Another key for a method.
    ReplaceMethod,
    /// No key for a method any more.
    RemoveMethod,
}

impl KeyChange {
    /// Whether it brings a new key.
    #[must_use]
    pub fn brings_key(self) -> bool {
        match self {
            Self::AddHwKey
            | Self::RotateHwKey
            | Self::ReplaceHwKey
            | Self::AddMethod
            | Self::ReplaceMethod => true,
            Self::RemoveMethod => false,
        }
    }

    /// Whether it is the hardware key that changes.
    #[must_use]
    pub fn is_of_hardware(self) -> bool {
        match self {
            Self::AddHwKey | Self::RotateHwKey | Self::ReplaceHwKey => true,
            Self::AddMethod | Self::ReplaceMethod | Self::RemoveMethod => false,
        }
    }
}

impl From<ReasonGiven> for LockReason {
    fn from(reason: ReasonGiven) -> Self {
        match reason {
            ReasonGiven::UserRequest => Self::UserRequest,
            ReasonGiven::DeviceLost => Self::DeviceLost,
            ReasonGiven::DeviceStolen => Self::DeviceStolen,
            ReasonGiven::FraudSuspected => Self::FraudSuspected,
            ReasonGiven::Other => Self::Other,
            ReasonGiven::KeyDistrusted => Self::KeyDistrusted,
        }
    }
}

impl From<ReasonGiven> for DeactivationReason {
    fn from(reason: ReasonGiven) -> Self {
        match reason {
            ReasonGiven::UserRequest => Self::UserRequest,
            ReasonGiven::DeviceLost => Self::DeviceLost,
            ReasonGiven::DeviceStolen => Self::DeviceStolen,
            ReasonGiven::FraudSuspected => Self::FraudSuspected,
            ReasonGiven::Other => Self::Other,
            ReasonGiven::KeyDistrusted => Self::KeyDistrusted,
        }
    }
}

impl DeactivationReason {
    /// The reason a service provider gave; none if nobody with an API key asked.
    #[must_use]
    pub fn given(self) -> Option<ReasonGiven> {
        match self {
            Self::ByDevice | Self::Recovered | Self::Inactive => None,
            Self::UserRequest => Some(ReasonGiven::UserRequest),
            Self::DeviceLost => Some(ReasonGiven::DeviceLost),
            Self::DeviceStolen => Some(ReasonGiven::DeviceStolen),
            Self::FraudSuspected => Some(ReasonGiven::FraudSuspected),
            Self::Other => Some(ReasonGiven::Other),
            Self::KeyDistrusted => Some(ReasonGiven::KeyDistrusted),
        }
    }
}

impl LockReason {
    /// The reason a service provider gave; none if the server locked by itself.
    #[must_use]
    pub fn given(self) -> Option<ReasonGiven> {
        match self {
            Self::TooManyFailures | Self::DeviceBlocked => None,
            Self::UserRequest => Some(ReasonGiven::UserRequest),
            Self::DeviceLost => Some(ReasonGiven::DeviceLost),
            Self::DeviceStolen => Some(ReasonGiven::DeviceStolen),
            Self::FraudSuspected => Some(ReasonGiven::FraudSuspected),
            Self::Other => Some(ReasonGiven::Other),
            Self::KeyDistrusted => Some(ReasonGiven::KeyDistrusted),
        }
    }
}
