//! The log on disk: record format, journal, sequencer, sled, recovery.

pub mod block;
pub mod fold;
mod logtree;
pub mod open;
pub mod reader;
pub mod record;
pub mod sequencer;
pub mod state;
mod trouble;
