//! The log on disk: record format, journal, sequencer, sled, recovery.

pub mod block;
#[cfg(test)]
mod conformance;
pub mod disk;
pub mod fold;
pub mod journal;
pub mod keys;
pub mod lock;
pub mod memory;
pub mod open;
pub mod reader;
pub mod record;
pub mod sequencer;
pub mod state;
