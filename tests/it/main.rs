//! Whole-system tests.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod full_disk;
mod history;
mod log;
mod phone;
mod replay;
mod shape;
mod tour;
