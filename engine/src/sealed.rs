//! What stands in sealed parts: all that can name a person.
//!
//! Encrypted under the subject's key (see [`crate::seal`]) before the command
//! is made, so no rule and no digested view ever sees it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::codec;
use crate::display::json_of;
use crate::events::{
    ActivationJudgedV1, ActivationRequestedV1, AuthenticationJudgedV1, DeviceBlockedV1,
    DeviceNamedV1, OperationCreatedV1, Payload, PushAddressSetV1,
};
use crate::transcript::{Content, Hash, shown_octets};

/// Most bytes of a user reference.
pub const USER_REF_MAX: usize = 256;
/// Most bytes of a context, and of data to sign.
pub const CONTEXT_MAX: usize = 16 * 1024;
/// Most bytes of the title of a context.
pub const TITLE_MAX: usize = 256;
/// Most bytes of a media type.
pub const MEDIA_TYPE_MAX: usize = 128;
/// Most bytes of a service provider's own id for an operation.
pub const EXTERNAL_ID_MAX: usize = 128;
/// Most bytes of client data (the reference product's limit).
pub const CLIENT_DATA_MAX: usize = 1024;
/// Most bytes of the name of a push gateway.
pub const PUSH_GATEWAY_MAX: usize = 32;
/// Most bytes of a push token.
pub const PUSH_TOKEN_MAX: usize = 2048;
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

/// What a user is shown, and the salt of its hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// Its title; may be empty.
    pub title: String,
    /// Its media type.
    pub media_type: String,
    /// The content itself.
    pub content: Salted,
}

impl Shown {
    /// The hash of all of it: title, media type and octets are signed together,
    /// so that no content can be shown as something else than it was meant to be.
    #[must_use]
    pub fn hash(&self) -> Hash {
        let Salted { salt, octets } = &self.content;
        let framed = shown_octets(&self.title, &self.media_type, octets);
        Content::Context.hash(salt, &framed)
    }
}

/// Of `ActivationRequested`: for whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedUserV1 {
    /// The service provider's own name for the user.
    pub user_ref: String,
}

/// Of `DeviceNamed`: the name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedNameV1 {
    /// What the user calls the device, as it was given.
    pub name: String,
}

/// Of `OperationCreated`: what the user is asked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedRequestV1 {
    /// What is shown before the decision.
    pub context: Option<Shown>,
    /// What is signed beside it.
    pub data_to_sign: Option<Salted>,
    /// What is shown once it was approved; not signed.
    pub post_context: Option<Shown>,
    /// The service provider's own id for the operation.
    pub external_id: Option<String>,
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
    /// What names the device.
    pub device_hash: Option<Salted>,
    /// The address that the request came from.
    pub source: String,
}

/// Of `DeviceBlocked`: which one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedDeviceV1 {
    /// The device hash.
    pub device_hash: [u8; 32],
}

/// Of `PushAddressSet`: where pushes go.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedPushAddressV1 {
    /// Which push service.
    pub gateway: String,
    /// The token that it gave to the app.
    pub token: String,
}

impl std::fmt::Debug for SealedPushAddressV1 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SealedPushAddressV1")
            .field("gateway", &self.gateway)
            .finish_non_exhaustive()
    }
}

/// The plaintext of a sealed part beside an event of this type and schema version
/// as JSON, octets as base64url; all of it as base64url where its layout is not
/// known here.
#[must_use]
pub fn to_json(kind: (u16, u16), plain: &[u8]) -> Value {
    fn read<T: DeserializeOwned + Serialize>(plain: &[u8]) -> Option<Value> {
        codec::decode::<T>(plain).ok().map(|part| json_of(&part))
    }
    let known = if kind == ActivationRequestedV1::KIND {
        read::<SealedUserV1>(plain)
    } else if kind == OperationCreatedV1::KIND {
        read::<SealedRequestV1>(plain)
    } else if kind == ActivationJudgedV1::KIND || kind == AuthenticationJudgedV1::KIND {
        read::<SealedResponseV1>(plain)
    } else if kind == DeviceNamedV1::KIND {
        read::<SealedNameV1>(plain)
    } else if kind == DeviceBlockedV1::KIND {
        read::<SealedDeviceV1>(plain)
    } else if kind == PushAddressSetV1::KIND {
        read::<SealedPushAddressV1>(plain)
    } else {
        None
    };
    known.unwrap_or_else(|| json!(URL_SAFE_NO_PAD.encode(plain)))
}
