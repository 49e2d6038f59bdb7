//! The log on disk: record format, journal, sequencer, sled, recovery.

pub mod record;
