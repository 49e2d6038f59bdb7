//! What the server tells the push hook, and the hook the phone.

use engine::ids::Id;
use serde::{Deserialize, Serialize};

use super::{Moment, Octets32};

/// The body of a call-out to the push hook.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CallOut {
    /// Version of this layout: 1. Members may be added within a version.
    pub version: u8,
    /// Of this push: the same again is a repetition of the same push.
    pub id: Id,
    /// Where it goes.
    pub address: PushAddress,
    /// What the phone is to get, unchanged.
    pub message: PushMessage,
}

/// Where pushes for a registration go.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PushAddress {
    /// Which push service, by the name that app and hook agreed upon; 1 to 32
    /// lower-case letters, digits and hyphens.
    #[schema(min_length = 1, max_length = 32)]
    pub gateway: String,
    /// The token that this service gave to the app, as the hook needs it; 1 to
    /// 2,048 visible ASCII characters.
    #[schema(min_length = 1, max_length = 2048)]
    pub token: String,
}

impl std::fmt::Debug for PushAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let token = "[redacted]";
        f.debug_struct("PushAddress")
            .field("gateway", &self.gateway)
            .field("token", &token)
            .finish()
    }
}

/// What the phone gets: nothing of a person, and nothing of what is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushMessage {
    /// What has happened.
    pub event: PushEvent,
    /// The registration.
    pub registration_id: Id,
    /// The operation.
    pub operation_id: Id,
    /// Until when it can be answered.
    pub expires_at: Moment,
    /// What the device shows with *start*; only with `OPERATION_WAITS`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nonce: Option<Octets32>,
}

/// What has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum PushEvent {
    /// An operation waits for the device.
    OperationWaits,
    /// An operation that waited is over, without an answer of the device.
    OperationOver,
}
