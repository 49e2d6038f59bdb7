//! Level 2: the journal against the second copy of the log, record by record.

use storage::audit::{CopyDamage, StoreCopy};
use storage::block::{Block, frames};

use super::findings::Findings;
use super::records::Spot;
use crate::report::{Level, LevelReport, Outcome, Place};

const DAMAGED: &str = "the second copy is damaged; the next start makes it again from the journal";

/// Where the journal and its second copy are compared.
pub(super) struct Copies {
    pub(super) findings: Findings,
    blocks: Box<dyn Iterator<Item = Result<Block, CopyDamage>>>,
    /// The present block of the copy, its frames from `at` on not yet compared.
    block: Option<Block>,
    at: usize,
    /// Position of the record at `at`.
    next: u64,
    /// Records that only the journal has, and that only the copy has.
    missing: Run,
    extra: Run,
    /// Where the copy was said to be damaged: what is missing from there is known.
    damaged_at: Option<u64>,
    /// sled failed: the rest of the copy cannot be read.
    unreadable: bool,
    stopped_cleanly: bool,
}

/// Positions without a gap: first included, last excluded.
#[derive(Debug, Clone, Copy, Default)]
struct Run {
    from: u64,
    to: u64,
}

impl Run {
    fn is_empty(self) -> bool {
        self.from == self.to
    }
}

impl Copies {
    pub(super) fn new(findings: Findings, copy: &StoreCopy, stopped_cleanly: bool) -> Self {
        Self {
            findings,
            blocks: Box::new(copy.blocks()),
            block: None,
            at: 0,
            next: 0,
            missing: Run::default(),
            extra: Run::default(),
            damaged_at: None,
            unreadable: false,
            stopped_cleanly,
        }
    }

    /// Compares the journal's record at `position`.
    pub(super) fn record(&mut self, bytes: &[u8], spot: &Spot) {
        let position = spot.position;
        while let Some((found, theirs)) = self.peek() {
            if found < position {
                self.only_in_copy(found);
                self.step();
                continue;
            }
            if found > position {
                break;
            }
            let equal = theirs == bytes;
            self.step();
            self.settle_missing();
            self.findings.count("records_compared");
            if !equal {
                let means = "one of the two copies was changed after it was written; where the \
                     other levels hold, only a head kept elsewhere tells which";
                self.findings.fail(spot.place(), "the two copies of the record differ", means);
            }
            return;
        }
        self.only_in_journal(position);
    }

    /// The journal has ended.
    pub(super) fn end(&mut self, size: u64) {
        while let Some((found, _)) = self.peek() {
            self.only_in_copy(found);
            self.step();
        }
        self.settle_extra();
        let behind = self.missing;
        if behind.is_empty() || behind.to < size || self.unreadable {
            return self.settle_missing();
        }
        let what = format!("the second copy ends before record {}", behind.from);
        if self.stopped_cleanly {
            let means = "the store was stopped cleanly, so the second copy had all records: \
                 it lost the latest, or the journal got records from elsewhere";
            self.findings.fail(at(behind.from), what, means);
        } else {
            self.findings.remarks.push(format!("{what}; the next start brings it up"));
        }
    }

    /// With what was found in the stored tree, if there is one.
    pub(super) fn report(mut self, tiles: Option<Findings>) -> LevelReport {
        if let Some(tiles) = tiles {
            self.findings.merge(tiles);
        }
        self.findings.report(Level::Copies, Outcome::Holds)
    }

    /// The copy's next record; none at its end.
    fn peek(&mut self) -> Option<(u64, &[u8])> {
        while self.block.as_ref().is_none_or(|block| self.at >= block.frames.len()) {
            if !self.load() {
                return None;
            }
        }
        let block = self.block.as_ref()?;
        frames(&block.frames[self.at..]).next().map(|record| (self.next, record))
    }

    fn step(&mut self) {
        let len = self.peek().map_or(0, |(_, record)| 4 + record.len());
        self.at += len;
        self.next += 1;
    }

    /// Goes on to the copy's next block that can be used.
    fn load(&mut self) -> bool {
        loop {
            match self.blocks.next() {
                None => return false,
                Some(Ok(block)) => {
                    self.at = 0;
                    self.next = block.first.0;
                    self.block = Some(block);
                    return true;
                }
                Some(Err(error @ CopyDamage::Block(first))) => {
                    self.damaged_at = Some(first);
                    self.findings.fail(at(first), error.to_string(), DAMAGED);
                }
                Some(Err(CopyDamage::Sled(why))) => {
                    self.unreadable = true;
                    let place = Place { position: Some(self.next), ..store() };
                    self.findings.fail(place, why, DAMAGED);
                    return false;
                }
            }
        }
    }

    fn only_in_journal(&mut self, position: u64) {
        if self.unreadable {
            return;
        }
        if self.missing.to != position || self.missing.is_empty() {
            self.settle_missing();
            self.missing.from = position;
        }
        self.missing.to = position + 1;
    }

    fn settle_missing(&mut self) {
        let run = std::mem::take(&mut self.missing);
        if run.is_empty() || self.damaged_at.is_some_and(|first| first >= run.from) {
            return;
        }
        let what = format!("the second copy lacks the records {} to {}", run.from, run.to - 1);
        let means = "the second copy is damaged, or the journal got records from elsewhere";
        self.findings.fail(at(run.from), what, means);
    }

    fn only_in_copy(&mut self, position: u64) {
        if self.extra.to != position || self.extra.is_empty() {
            self.settle_extra();
            self.extra.from = position;
        }
        self.extra.to = position + 1;
    }

    fn settle_extra(&mut self) {
        let run = std::mem::take(&mut self.extra);
        if run.is_empty() {
            return;
        }
        let what = format!("only the second copy has the records {} to {}", run.from, run.to - 1);
        let means = "acknowledged records are missing from the journal; \
             starting the server on the whole folder restores them";
        self.findings.fail(at(run.from), what, means);
    }
}

/// There is no second copy to look at.
pub(super) fn absent(kept_max: usize, tiles: Option<Findings>) -> LevelReport {
    let mut findings = tiles.unwrap_or_else(|| Findings::new(kept_max, &[]));
    findings.remarks.push("there is no second copy of the log in this folder".into());
    findings.report(Level::Copies, Outcome::Absent)
}

/// There is one, and sled does not open it.
pub(super) fn unusable(kept_max: usize, why: &str) -> LevelReport {
    let mut findings = Findings::new(kept_max, &[]);
    findings.fail(store(), why, DAMAGED);
    findings.report(Level::Copies, Outcome::Fails)
}

fn at(position: u64) -> Place {
    Place { position: Some(position), ..store() }
}

/// The second copy as a place.
pub(super) fn store() -> Place {
    Place { file: Some("store/sled".into()), ..Place::default() }
}
