//! What stands in sealed parts: all that can name a person.
//!
//! Encrypted under the subject's key (see [`crate::seal`]) before the command
//! is made, so no rule and no digested view ever sees it.

use serde::{Deserialize, Serialize};

/// Most bytes of a user reference.
pub const USER_REF_MAX: usize = 256;
/// Most bytes of a context, and of data to sign.
pub const CONTEXT_MAX: usize = 16 * 1024;
/// Most bytes of client data (the reference product's limit).
pub const CLIENT_DATA_MAX: usize = 1024;
/// Most bytes of risk data.
pub const RISK_DATA_MAX: usize = 8 * 1024;

/// Some octets and the salt that their hash was made with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Salted {
    /// The salt.
    pub salt: [u8; 32],
    /// The octets, exactly as transported.
    pub octets: Vec<u8>,
}

/// Of `ActivationRequested`: for whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedUserV1 {
    /// The service provider's own name for the user.
    pub user_ref: String,
}

/// Of `OperationCreated`: what the user is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedRequestV1 {
    /// What is shown.
    pub context: Option<Salted>,
    /// Its media type.
    pub context_type: String,
    /// What is signed beside it.
    pub data_to_sign: Option<Salted>,
}

/// Of `ActivationJudged` and `AuthenticationJudged`: what the device sent along.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedResponseV1 {
    /// For the service provider.
    pub client_data: Option<Salted>,
    /// Risk data as the device collected it.
    pub risk_data: Option<Salted>,
    /// Attestation evidence.
    pub attestation: Option<Salted>,
    /// The address that the request came from.
    pub source: String,
}
