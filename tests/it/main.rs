//! Whole-system tests.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod anchors;
mod checkpoints;
mod client;
mod contract;
mod digests;
mod documents;
mod erasure;
mod export;
mod faults;
mod full_disk;
mod history;
mod http;
mod log;
mod phone;
mod replay;
mod server;
mod shape;
mod succession;
mod time;
mod tour;
mod verdicts;
