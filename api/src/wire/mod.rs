//! What travels: the JSON bodies of requests and answers, one type each.
//!
//! The server and the simulated phone use the same types, so a field that one
//! of them forgets does not compile. Requests refuse members that they do not
//! know; answers may get further members in later versions, and a client must
//! not mind.

pub mod admin;
pub mod device;
pub mod provider;
mod qr;
mod values;
mod words;

pub use qr::{NotAPayload, QrPayload};
pub use values::{Moment, Octets, Octets32};
pub use words::{Word, uuid, uuids, word, words};
