//! Logs for tests: one in memory, and one that fails as told.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use engine::ids::Position;

use crate::block::{self, AppendError, Block, BlockLog, Head};

/// A log in memory. Clones share the content, as if it had been opened again.
#[derive(Clone)]
pub struct MemoryLog(Arc<Mutex<Content>>);

struct Content {
    head: Head,
    records: Vec<Vec<u8>>,
}

impl MemoryLog {
    /// An empty log with this origin line.
    #[must_use]
    pub fn new(origin: &str) -> Self {
        let head = Head { size: 0, chain: block::genesis(origin) };
        Self(Arc::new(Mutex::new(Content { head, records: Vec::new() })))
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BlockLog for MemoryLog {
    fn head(&self) -> Head {
        self.content().head
    }

    fn append(&mut self, expect: &Head, block: &Block) -> Result<Head, AppendError> {
        let mut content = self.content();
        block.follows(&content.head, expect)?;
        content.records.extend(block.records().map(<[u8]>::to_vec));
        content.head = block.head();
        Ok(content.head)
    }

    fn read(&self, from: Position, limit: usize) -> io::Result<Vec<Vec<u8>>> {
        let content = self.content();
        let start = usize::try_from(from.0).unwrap_or(usize::MAX);
        Ok(content.records.iter().skip(start).take(limit).cloned().collect())
    }
}

/// What becomes of one append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It works.
    Works,
    /// No space: nothing is written, the log goes on.
    Full,
    /// It fails before anything was written.
    FailsBefore,
    /// It is written, and then reported as failed.
    FailsAfter,
}

/// Wraps a log whose appends go as told; when the list ends, they work.
/// After a failure every append fails, as [`BlockLog::append`] promises.
pub struct FlakyLog<L> {
    log: L,
    /// The last acknowledged head: what the wrapped log holds beyond it is not shown.
    head: Head,
    fates: VecDeque<Fate>,
    failed: bool,
}

impl<L: BlockLog> FlakyLog<L> {
    /// `log`, whose next appends go as `fates` say.
    pub fn new(log: L, fates: impl IntoIterator<Item = Fate>) -> Self {
        Self { head: log.head(), log, fates: fates.into_iter().collect(), failed: false }
    }

    /// The wrapped log, as a restart finds it.
    pub fn into_inner(self) -> L {
        self.log
    }

    fn fail(&mut self) -> AppendError {
        self.failed = true;
        AppendError::Io(io::Error::other("the disk does not answer"))
    }
}

impl<L: BlockLog> BlockLog for FlakyLog<L> {
    fn head(&self) -> Head {
        self.head
    }

    fn append(&mut self, expect: &Head, block: &Block) -> Result<Head, AppendError> {
        if self.failed {
            return Err(self.fail());
        }
        match self.fates.pop_front().unwrap_or(Fate::Works) {
            Fate::Works => {
                self.head = self.log.append(expect, block)?;
                Ok(self.head)
            }
            Fate::Full => Err(AppendError::Full),
            Fate::FailsBefore => Err(self.fail()),
            Fate::FailsAfter => {
                self.log.append(expect, block)?;
                Err(self.fail())
            }
        }
    }

    fn read(&self, from: Position, limit: usize) -> io::Result<Vec<Vec<u8>>> {
        let shown = usize::try_from(self.head.size.saturating_sub(from.0)).unwrap_or(usize::MAX);
        self.log.read(from, limit.min(shown))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::{check, check_failed, check_full, fill};

    #[test]
    fn the_log_in_memory_does_what_every_log_does() {
        check(&mut MemoryLog::new("test"));
    }

    #[test]
    fn a_log_that_is_told_to_work_does_what_every_log_does() {
        check(&mut FlakyLog::new(MemoryLog::new("test"), [Fate::Works]));
    }

    #[test]
    fn a_full_log_writes_nothing_and_goes_on() {
        let mut log = FlakyLog::new(MemoryLog::new("test"), [Fate::Works, Fate::Full, Fate::Full]);
        fill(&mut log, &[2]);
        check_full(&mut log);
        fill(&mut log, &[1]);
        assert_eq!(log.head().size, 3);
    }

    #[test]
    fn a_failed_log_takes_and_shows_nothing_more_and_may_have_written() {
        for (fate, size) in [(Fate::FailsBefore, 2), (Fate::FailsAfter, 3)] {
            let mut log = FlakyLog::new(MemoryLog::new("test"), [Fate::Works, fate]);
            fill(&mut log, &[2]);
            check_failed(&mut log);
            assert_eq!(log.into_inner().head().size, size, "{fate:?}");
        }
    }
}
