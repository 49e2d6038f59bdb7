//! The HTTP interface of the real server: what it answers, and what it never tells.

mod attestation;
mod audit;
mod budgets;
mod document;
mod expiry;
mod failures;
mod flows;
mod idempotency;
mod limits;
mod lookalikes;
mod operations;
mod parser;
mod races;
mod restarts;
mod strategies;
pub(crate) mod world;
