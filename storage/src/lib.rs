//! The log on disk: record format, journal, sequencer, sled, recovery.

mod behind;
pub mod block;
#[cfg(test)]
mod conformance;
mod database;
mod deadlines;
pub mod disk;
pub mod fold;
pub mod journal;
pub mod keys;
pub mod lock;
mod logtree;
pub mod memory;
pub mod open;
pub mod reader;
pub mod record;
pub mod sequencer;
pub mod state;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod toy;
mod trouble;
