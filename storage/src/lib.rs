//! The log on disk: record format, journal, sequencer, sled, recovery.

pub mod block;
pub mod record;
