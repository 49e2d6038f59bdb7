//! Bodies about device hashes and about inactivity.

use engine::ids::Id;
use engine::reasons::ReasonGiven;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::words::{ReasonGivenWord, Uuid};
use super::{Moment, Octets32};

/// Names a device as an application's apps do.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DeviceHashNamed {
    /// The application.
    #[schema(value_type = Uuid)]
    pub application_id: Id,
    /// The device hash, as the app sends it.
    pub device_hash: Octets32,
}

/// Blocks a device hash.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BlockDeviceHash {
    /// The application.
    #[schema(value_type = Uuid)]
    pub application_id: Id,
    /// The device hash, as the app sends it.
    pub device_hash: Octets32,
    /// Why. It stands in the log for ever.
    #[schema(value_type = ReasonGivenWord)]
    pub reason: ReasonGiven,
}

/// What is known of a device hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeviceHash {
    /// The application.
    #[schema(value_type = Uuid)]
    pub application_id: Id,
    /// The device hash.
    pub device_hash: Octets32,
    /// The random id that stands for it in the log; absent if nothing is known of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Uuid, required = false)]
    pub device_id: Option<Id>,
    /// Users with registrations on it that are not over.
    pub users: u64,
    /// How many registrations those are.
    pub registration_count: u64,
    /// The registrations, at most 100.
    #[schema(value_type = Vec<Uuid>)]
    pub registrations: Vec<Id>,
    /// The block, if it is blocked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub blocked: Option<DeviceBlock>,
}

/// The block of a device hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeviceBlock {
    /// Why.
    #[schema(value_type = ReasonGivenWord)]
    pub reason: ReasonGiven,
    /// Since when.
    pub blocked_at: Moment,
}

/// A blocked device hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BlockedDeviceHash {
    /// The random id that stands for it in the log.
    #[schema(value_type = Uuid)]
    pub device_id: Id,
    /// The device hash; absent if the key that it is sealed under is lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub device_hash: Option<Octets32>,
    /// Why and since when.
    #[serde(flatten)]
    pub block: DeviceBlock,
}

/// How many registrations of an application have not been used for long.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Inactivity {
    /// Days without use that were asked for, or that the application allows.
    pub after_days: u32,
    /// The moment that they are counted back from.
    pub as_of: Moment,
    /// Registrations that have keys and are not over.
    pub registrations: u64,
    /// How many of those have not been used for so long.
    pub due: u64,
    /// Whether there are more than `due`, which counts to 1,000,000.
    pub more: bool,
    /// How many may end in a day without a confirmation.
    pub limit: u64,
    /// How many of those still may, in the present day.
    pub left: u64,
    /// How many more may by a confirmation.
    pub confirmed: u64,
}

/// Allows more registrations to end for want of use than the limit of a day does.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ConfirmInactivity {
    /// How many, 1 to 1,000,000,000: `due` of what was looked at.
    #[schema(minimum = 1, maximum = 1_000_000_000)]
    pub registrations: u32,
}

/// How many more registrations may end, and until when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConfirmedInactivity {
    /// How many, beside the limit of a day.
    pub registrations: u32,
    /// Until when.
    pub until: Moment,
}
