//! What travels: the JSON bodies of requests and answers, one type each.
//!
//! The server and the simulated phone use the same types, so a field that one
//! of them forgets does not compile. Requests refuse members that they do not
//! know; answers may get further members in later versions, and a client must
//! not mind.

pub mod admin;
pub mod device;
pub mod devices;
mod offline;
pub mod provider;
pub mod push;
mod qr;
mod values;
pub mod words;

pub use offline::{NotAnOfflinePayload, OfflinePayload};
pub use qr::{NotAPayload, QrPayload};
pub use values::{Moment, Octets, Octets32};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The body of a request that says everything with its path: `{}`.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Empty {}
