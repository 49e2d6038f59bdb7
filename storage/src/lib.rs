//! The log on disk: record format, journal, sequencer, sled, recovery.

pub mod audit;
mod behind;
pub mod block;
mod catchup;
#[cfg(test)]
mod conformance;
mod database;
mod deadlines;
pub mod disk;
pub mod fold;
mod folder;
pub mod journal;
pub mod keys;
pub mod lock;
mod logtree;
mod marker;
pub mod memory;
pub mod merkle;
pub mod notary;
pub mod note;
pub mod open;
pub mod reader;
mod rebuild;
pub mod record;
pub mod sequencer;
mod snapshot;
pub mod state;
pub mod succession;
#[cfg(test)]
mod toy;
mod trouble;
