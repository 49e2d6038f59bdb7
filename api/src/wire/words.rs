//! The closed word lists of the rules and ids, as named schemas.
//!
//! The rules know nothing of OpenAPI, so each list has a stand-in here that a
//! field names as its schema.

use std::borrow::Cow;

use engine::{attestation, reasons, terms};
use utoipa::openapi::schema::{ObjectBuilder, SchemaFormat, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

/// Declares the stand-in of each list, with its description.
macro_rules! words {
    ($($stand_in:ident = $list:ty, $name:literal, $about:literal;)+) => { $(
        #[doc = $about]
        #[derive(Debug)]
        pub enum $stand_in {}

        impl PartialSchema for $stand_in {
            fn schema() -> RefOr<Schema> {
                ObjectBuilder::new()
                    .schema_type(Type::String)
                    .description(Some($about))
                    .enum_values(Some(<$list>::ALL.iter().map(|word| word.as_str())))
                    .build()
                    .into()
            }
        }

        impl ToSchema for $stand_in {
            fn name() -> Cow<'static, str> {
                $name.into()
            }
        }
    )+ };
}

words! {
    AttestationStatusWord = attestation::Status, "AttestationStatus", "How a registration stands with attestation.";
    AttestationReasonWord = attestation::Reason, "AttestationReason", "Why evidence was refused.";
    BootStateWord = attestation::BootState, "BootState", "What the boot loader found.";
    EnvironmentWord = attestation::Environment, "Environment", "Apple's environment of an app.";
    ListStateWord = attestation::ListState, "ListState", "What the revocation list was worth.";
    PlatformWord = attestation::Platform, "Platform", "Whose attestation evidence it is.";
    ProvisioningWord = attestation::Provisioning, "Provisioning", "Where the attestation key came from.";
    SecurityLevelWord = attestation::SecurityLevel, "SecurityLevel", "Where a key lives.";
    ActivationFailureWord = reasons::ActivationFailure, "ActivationFailure", "Why an activation failed.";
    ActivationStateWord = reasons::ActivationState, "ActivationState", "What became of an activation.";
    AuthenticationFailureWord = reasons::AuthenticationFailure, "AuthenticationFailure", "Why an authentication failed.";
    CancelReasonWord = reasons::CancelReason, "CancelReason", "What cancelled an activation or operation.";
    ConfirmationWord = reasons::Confirmation, "Confirmation", "How the user shows to be in front of the screen that asks.";
    DecisionWord = terms::Decision, "Decision", "What the user decided.";
    ErasureReasonWord = reasons::ErasureReason, "ErasureReason", "Why a user is erased.";
    HwKeyClientStatusWord = terms::HwKeyClientStatus, "HwKeyClientStatus", "How the device says it fared with its hardware key.";
    HwKeyServerResultWord = terms::HwKeyServerResult, "HwKeyServerResult", "What the server found when it checked the hardware key.";
    LevelWord = terms::Level, "Level", "Factors required.";
    LockReasonWord = reasons::LockReason, "LockReason", "Why a registration is locked.";
    MethodWord = terms::Method, "Method", "How the user shows that it is them.";
    OperationKindWord = reasons::OperationKind, "OperationKind", "What an operation asks a user for.";
    OperationStateWord = reasons::OperationState, "OperationState", "What became of an operation.";
    PinTypeWord = reasons::PinType, "PinType", "What a PIN consists of.";
    ReasonGivenWord = reasons::ReasonGiven, "ReasonGiven", "A reason that a service provider gives.";
    RejectReasonWord = reasons::RejectReason, "RejectReason", "Why a user says no.";
    RegistrationStateWord = reasons::RegistrationState, "RegistrationState", "Where a registration stands.";
    RiskAttributeWord = reasons::RiskAttribute, "RiskAttribute", "A risk attribute that the service provider may ask for.";
    UserRoleWord = reasons::UserRole, "UserRole", "What the holder of an API key may do.";
}

/// An id, a UUID in its 36-character form.
#[derive(Debug)]
pub enum Uuid {}

impl PartialSchema for Uuid {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::Custom("uuid".into())))
            .description(Some("An id, a UUID in its 36-character form."))
            .build()
            .into()
    }
}

impl ToSchema for Uuid {
    fn name() -> Cow<'static, str> {
        "Uuid".into()
    }
}
