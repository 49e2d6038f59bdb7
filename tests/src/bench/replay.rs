//! Replay: the journal read from front to end, checked, and folded into state.

use std::path::Path;
use std::sync::Arc;

use engine::Keytrail;
use engine::ids::Position;
use serde::Serialize;
use storage::disk::RealDisk;
use storage::fold::FoldedState;
use storage::journal::{Item, JournalReader};
use storage::record;

use super::crowd::{Crowd, Until};
use super::machine::thread_cpu_ns;
use super::{Outcome, Plan};

/// Events a second of CPU on one core.
#[derive(Debug, Serialize)]
pub(crate) struct Replay {
    /// Events in the log.
    pub(crate) events: u64,
    /// Read, every group's hash, every record's form, place and chain value checked.
    pub(crate) checked_per_s: f64,
    /// Decoded and folded into state, in memory.
    pub(crate) folded_per_s: f64,
    /// Both.
    pub(crate) replayed_per_s: f64,
}

/// Makes a log of ordinary log-ins and replays it.
///
/// # Errors
///
/// If the store fails, the log is damaged, or the fold is not the state that
/// the store had.
pub(crate) fn run(dir: &Path, plan: &Plan) -> Outcome<Replay> {
    let mut crowd = Crowd::new(dir, plan.registrations, |_| ())?;
    let log_ins = plan.events / super::login::EVENTS;
    crowd.log_in(plan.registrations.min(256), Until::LogIns(log_ins))?;
    let (position, live) = crowd.store.digest()?;
    crowd.close()?;
    let (replay, state) = replay(&dir.join("log"))?;
    if state.position() != position || state.digest() != live {
        return Err("the fold of the log is not the state that the store had".into());
    }
    Ok(replay)
}

fn replay(log: &Path) -> Outcome<(Replay, FoldedState<Keytrail>)> {
    let reader = JournalReader::open(Arc::new(RealDisk), log)?;
    let mut state = FoldedState::<Keytrail>::default();
    let (mut checking, mut folding) = (0, 0);
    let mut before = thread_cpu_ns()?;
    for item in reader.items(Position(0)) {
        let block = match item? {
            Item::Block(block) => block,
            Item::Finding(finding) => return Err(format!("{finding}").into()),
        };
        let checked = thread_cpu_ns()?;
        for bytes in block.records() {
            let (record, _) = record::decode(bytes)?;
            state.apply(&record)?;
        }
        let folded = thread_cpu_ns()?;
        checking += checked - before;
        folding += folded - checked;
        before = folded;
    }
    let events = state.position().0;
    let per_s = |ns: u64| events as f64 * 1e9 / ns.max(1) as f64;
    let replay = Replay {
        events,
        checked_per_s: per_s(checking),
        folded_per_s: per_s(folding),
        replayed_per_s: per_s(checking + folding),
    };
    Ok((replay, state))
}
