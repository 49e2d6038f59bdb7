//! The log on disk: record format, journal, sequencer, sled, recovery.

pub mod block;
pub mod disk;
pub mod journal;
pub mod keys;
pub mod lock;
pub mod memory;
pub mod record;
