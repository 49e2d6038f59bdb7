//! The HTTP interface of the real server: what it answers, and what it never tells.

pub(crate) mod attestation;
mod audit;
mod budgets;
mod device_hashes;
mod document;
mod expiry;
mod failures;
mod flows;
mod idempotency;
mod inactivity;
mod key_changes;
mod leaving;
mod limits;
mod lookalikes;
mod naming;
mod offline;
mod operations;
mod parser;
mod push;
mod races;
mod recovery;
mod restarts;
mod strategies;
mod timed_locks;
pub(crate) mod world;
