//! The log's formats against hostile bytes.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod format;
