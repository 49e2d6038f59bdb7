//! Checking a data folder, or a copy of it, without its server.
//!
//! Nothing in the folder is changed or repaired. The journal is read from the
//! first record to the last, in bounded memory but for the folded state, which
//! grows with registrations and not with the log; for the last level it is
//! looked through once before, for digests of state. sled is opened from a
//! copy in a temporary folder only. A folder that holds nothing but `log/` can
//! be verified; what then cannot be compared is said.
//!
//! Levels, in order: see [`Level`]. Each is a module below.

mod checkpoints;
mod copies;
mod digests;
mod findings;
mod ids;
mod records;
mod rules;
mod signatures;
mod states;
mod tiles;

use std::collections::BTreeMap;
use std::io;
use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use engine::Keytrail;
use engine::ids::{Micros, Position};
use engine::machine::{Machine, Record};
use storage::audit::{self, StoreCopy, StoreNotes};
use storage::block::{Block, genesis};
use storage::fold::FoldedState;
use storage::journal::{self, Damage, Finding, JournalReader, Placed};
use storage::note::VerifierKey;
use storage::record;
use tempfile::TempDir;

use self::checkpoints::Checkpoints;
pub use self::checkpoints::{Kept, PolicyError, WitnessPolicy};
use self::copies::Copies;
use self::digests::Digests;
use self::findings::Findings;
use self::ids::Ids;
use self::records::{Records, Spot, Together};
use self::signatures::Signatures;
use self::states::States;
use self::tiles::Tiles;
use crate::folder::{Folder, FolderError};
use crate::report::{Level, LevelReport, Outcome, Place, Report};
use crate::{hex, rfc3339};

/// What is being done, for whoever waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// sled is being copied to a temporary folder.
    Copying,
    /// The journal is being looked through for digests of state.
    Scanning,
    /// The journal is being read and checked.
    Reading,
}

/// Told of bytes done and bytes to do, which are about right: the last journal
/// file is not written to its end.
pub type Progress<'a> = &'a dyn Fn(Phase, u64, u64);

/// How to verify.
#[derive(Clone)]
pub struct Options<'a> {
    /// The last level to check.
    pub through: Level,
    /// Threads that verify signatures; none for one on each core.
    pub threads: Option<NonZero<usize>>,
    /// Where sled is copied to, for as long as it takes; none for the system's
    /// folder of temporary files.
    pub scratch: Option<PathBuf>,
    /// Failures of each level that the report lists; all are counted.
    pub failures_kept: usize,
    /// Memory for sled's cache, in bytes.
    pub cache_bytes: u64,
    /// The log's verifier key, from whom you trust; none for the one in the folder.
    pub key: Option<VerifierKey>,
    /// Checkpoints that were kept elsewhere.
    pub since: Vec<Kept>,
    /// Whose cosignatures are asked for.
    pub policy: Option<WitnessPolicy>,
    /// Told how far it has come.
    pub progress: Option<Progress<'a>>,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Self {
            through: Level::Replay,
            threads: None,
            scratch: None,
            failures_kept: 100,
            cache_bytes: 64 << 20,
            key: None,
            since: Vec::new(),
            policy: None,
            progress: None,
        }
    }
}

/// Verifies the folder `dir`: the one that holds `log/`, and `store/` if there
/// is a second copy to compare with.
///
/// # Errors
///
/// [`FolderError`] where it cannot be verified at all: no log, a server runs on
/// it, or files cannot be read. Whatever is wrong with the log is in the report.
pub fn verify(dir: &Path, options: &Options) -> Result<Report, FolderError> {
    let folder = Folder::open(dir)?;
    let journal = match folder.journal() {
        Ok(journal) => Ok(journal),
        Err(error @ journal::OpenError::Origin { .. }) => {
            if !folder.has_segments()? {
                return Err(FolderError::NoLog(dir.to_owned()));
            }
            Err(error)
        }
        Err(error) => return Err(FolderError::Journal(error)),
    };
    let second = Second::copy(&folder, options)?;
    let threads = options.threads.or_else(|| std::thread::available_parallelism().ok());
    let threads = threads.unwrap_or(NonZero::<usize>::MIN);
    let (outbox, inbox) = signatures::channel(threads);
    std::thread::scope(|scope| {
        let counted = ["signatures", "valid", "invalid", "malformed"];
        let findings = Findings::new(options.failures_kept, &counted);
        let workers = Signatures::start(scope, threads, outbox, &inbox, &findings);
        let checkpoints = Checkpoints::new(
            &folder,
            options.key.as_ref(),
            &options.since,
            options.policy.as_ref(),
        )?;
        let findings = Findings::new(options.failures_kept, &[tiles::COMPARED]);
        let covered = if options.through >= Level::Copies { checkpoints.covered() } else { 0 };
        let tiles = Tiles::open(&folder.dir, covered, findings)?;
        let pass = Pass { tiles, ..Pass::new(&folder, &second, checkpoints, workers, options) };
        match journal {
            Ok(journal) => pass.run(&journal),
            Err(error) => Ok(pass.without_origin(&error)),
        }
    })
}

/// The second copy, copied once more.
struct Second {
    notes: StoreNotes,
    /// None where there is no second copy.
    copy: Option<Result<StoreCopy, String>>,
    // Deleted after sled is closed.
    _scratch: Option<TempDir>,
}

impl Second {
    fn copy(folder: &Folder, options: &Options) -> Result<Self, FolderError> {
        let store = folder.store();
        let notes = audit::notes(&store);
        let reading = || FolderError::reading(&store);
        let files = audit::store_files(&store).map_err(reading())?;
        if options.through < Level::Copies || files.is_empty() {
            return Ok(Self { notes, copy: None, _scratch: None });
        }
        let total = files.iter().map(|(_, len)| len).sum();
        let mut builder = tempfile::Builder::new();
        let builder = builder.prefix("keytrail-verify-");
        let scratch = match &options.scratch {
            Some(dir) => builder.tempdir_in(dir),
            None => builder.tempdir(),
        };
        let scratch = scratch.map_err(|source| FolderError::Io {
            what: "cannot make a temporary folder".into(),
            source,
        })?;
        let mut done = 0;
        audit::copy_store(&store, scratch.path(), |len| {
            done += len;
            if let Some(progress) = options.progress {
                progress(Phase::Copying, done, total);
            }
        })
        .map_err(|source| FolderError::Io {
            what: format!("cannot copy {} to {}", store.display(), scratch.path().display()),
            source,
        })?;
        let copy = Some(StoreCopy::open(scratch.path(), options.cache_bytes));
        Ok(Self { notes, copy, _scratch: Some(scratch) })
    }

    fn opened(&self) -> Option<&StoreCopy> {
        self.copy.as_ref().and_then(|copy| copy.as_ref().ok())
    }
}

/// One pass over the journal, with all levels beside each other.
struct Pass<'a, 'scope> {
    folder: &'a Folder,
    second: &'a Second,
    options: &'a Options<'a>,
    records: Records,
    copies: Option<Copies>,
    checkpoints: Checkpoints,
    /// None where no tree is stored.
    tiles: Option<Tiles>,
    signatures: Signatures<'scope>,
    rules: Findings,
    states: States,
    digests: Digests,
    state: FoldedState<Keytrail>,
    ids: Ids,
    /// Records of a command that is not yet known to be complete.
    command: Together,
    /// State follows the log: no record was missing so far.
    folding: bool,
    /// All records of the log could be read so far.
    whole: bool,
    /// Position of the next record, and the chain value before it.
    next: u64,
    chain: [u8; 32],
    first_at: Option<Micros>,
    last_at: Option<Micros>,
    events: BTreeMap<&'static str, u64>,
}

impl<'a, 'scope> Pass<'a, 'scope> {
    fn new(
        folder: &'a Folder,
        second: &'a Second,
        checkpoints: Checkpoints,
        signatures: Signatures<'scope>,
        options: &'a Options<'a>,
    ) -> Self {
        let findings = |counted: &[&'static str]| Findings::new(options.failures_kept, counted);
        let clean = second.notes.stopped_cleanly == Some(true);
        let copy = second.opened();
        let mut records = Records::new(findings(&["records", "commands"]), clean);
        if folder.lock.is_none() && second.notes.stopped_cleanly.is_some() {
            let remark = "there is no lock file that can be read: if a server runs on this \
                 folder, it was not noticed";
            records.findings.remarks.push(remark.into());
        }
        Self {
            folder,
            second,
            options,
            records,
            copies: copy.map(|copy| Copies::new(findings(&["records_compared"]), copy, clean)),
            checkpoints,
            tiles: None,
            signatures,
            rules: findings(&["commands"]),
            states: States::new(
                findings(&["entries_compared", digests::COMPARED]),
                second.copy.as_ref(),
                clean,
            ),
            digests: Digests::default(),
            state: FoldedState::default(),
            ids: Ids::new(options.scratch.clone().unwrap_or_else(std::env::temp_dir)),
            command: Together::default(),
            folding: true,
            whole: true,
            next: 0,
            chain: [0; 32],
            first_at: None,
            last_at: None,
            events: BTreeMap::new(),
        }
    }

    fn run(mut self, journal: &JournalReader) -> Result<Report, FolderError> {
        let log = self.folder.dir.join("log");
        let total = journal.bytes().map_err(FolderError::reading(&log))?;
        self.records.strangers(&self.folder.strangers()?);
        if self.options.through >= Level::Replay {
            self.scan(journal, total)?;
        }
        // Of all files, and of those before the present one.
        let (mut done, mut before) = (0, 0);
        self.chain = genesis(journal.origin());
        let mut name: (Arc<Path>, Arc<str>) = (Arc::from(Path::new("")), Arc::from(""));
        for placed in journal.placed(Position(0)) {
            match placed.map_err(FolderError::reading(&log))? {
                Placed::Finding(finding) => self.found(&finding),
                Placed::Block { block, file, frames_at } => {
                    if name.0 != file {
                        before = done;
                        name.1 = Arc::from(self.folder.name(&file));
                        name.0 = file;
                    }
                    done = before + frames_at + block.frames.len() as u64;
                    self.block(&block, &name.1, frames_at, journal.origin())?;
                }
            }
            if let Some(progress) = self.options.progress {
                progress(Phase::Reading, done, total);
            }
        }
        self.command_ended()?;
        let chain = self.chain;
        self.reached(&chain);
        let ids = std::mem::replace(&mut self.ids, Ids::new(PathBuf::new()));
        ids.repeated(|id, first, again| self.records.repeated(id, first, again))
            .map_err(temporary)?;
        Ok(self.report(Some(journal.origin().to_owned())))
    }

    /// Looks for digests of state: each stands behind the state that it is of.
    fn scan(&mut self, journal: &JournalReader, total: u64) -> Result<(), FolderError> {
        let log = self.folder.dir.join("log");
        let mut done = 0;
        for placed in journal.placed(Position(0)) {
            // What is wrong is found by the pass that checks.
            if let Placed::Block { block, .. } = placed.map_err(FolderError::reading(&log))? {
                self.digests.announced(&block);
                done += block.frames.len() as u64;
            }
            if let Some(progress) = self.options.progress {
                progress(Phase::Scanning, done, total);
            }
        }
        Ok(())
    }

    /// Nothing can be checked without the origin line: it begins the chain.
    fn without_origin(mut self, error: &journal::OpenError) -> Report {
        let place = Place { file: Some("log/origin".into()), ..Place::default() };
        let means = "the chain begins with the origin line, so nothing can be checked without it; \
             put the file back from a copy of log/";
        self.records.findings.fail(place, error.to_string(), means);
        (self.whole, self.folding) = (false, false);
        self.report(None)
    }

    fn found(&mut self, finding: &Finding) {
        self.whole &= leaves_records(&finding.what);
        self.records.found(finding, self.folder.name(&finding.file));
    }

    fn block(
        &mut self,
        block: &Block,
        file: &Arc<str>,
        frames_at: u64,
        origin: &str,
    ) -> Result<(), FolderError> {
        if block.first.0 != self.next {
            // The journal's reader has reported what is missing.
            (self.folding, self.whole) = (false, false);
            self.command = Together::default();
            self.checkpoints.gap();
        }
        self.next = block.first.0;
        let mut offset = frames_at;
        for bytes in block.records() {
            let mut spot =
                Spot { file: Arc::clone(file), offset, position: self.next, prev: self.chain };
            offset += 4 + bytes.len() as u64;
            let leaf = crate::proof::leaf(bytes);
            let before = self.checkpoints.record(bytes, leaf);
            if let Some(tiles) = self.tiles.as_mut().filter(|_| self.whole) {
                tiles.record(leaf)?;
            }
            match record::decode(bytes) {
                Ok((record, prev)) => {
                    self.checkpoints.change(&record, before);
                    spot.prev = prev;
                    self.record(record, spot, bytes, origin)?;
                }
                Err(error) => {
                    self.folding = false;
                    self.records.findings.fail(spot.place(), error.to_string(), "it is no record");
                }
            }
            self.next += 1;
        }
        self.chain = block.chain;
        Ok(())
    }

    fn record(
        &mut self,
        record: Record,
        spot: Spot,
        bytes: &[u8],
        origin: &str,
    ) -> Result<(), FolderError> {
        self.first_at.get_or_insert(record.time);
        self.last_at = Some(record.time);
        if let Some(copies) = &mut self.copies {
            copies.record(bytes, &spot);
        }
        let event = self.records.record(&record, &spot, origin);
        let name = event.as_ref().map_or("(unreadable)", |event| event.name());
        *self.events.entry(name).or_default() += 1;
        if let Some(event) = event
            && self.options.through >= Level::Signatures
        {
            self.signatures.event(&spot, record.draft.stream, event);
        }
        if !self.command.is_continued_by(&record) {
            self.command_ended()?;
        }
        self.command.records.push(record);
        self.command.spots.push(spot);
        Ok(())
    }

    /// Checks and folds the records of a command that is complete.
    fn command_ended(&mut self) -> Result<(), FolderError> {
        let command = std::mem::take(&mut self.command);
        if let Some((first, spot)) = command.first() {
            self.ids.add(first.draft.event_id, spot.position).map_err(temporary)?;
        }
        self.records.command(&command);
        if self.folding && self.options.through >= Level::Rules {
            rules::check(&command, &self.state, &mut self.rules);
        }
        for (record, spot) in command.iter() {
            if self.folding {
                self.reached(&spot.prev);
                let head = Keytrail::head(&self.state, record.draft.stream);
                self.records.stream(record, spot, head);
                self.folding = self.fold(record, spot);
                if self.folding && self.options.through >= Level::Replay {
                    self.digests.check(record, spot, &mut self.states.findings);
                }
            }
        }
        Ok(())
    }

    /// Folds one record; false if that cannot be done.
    fn fold(&mut self, record: &Record, spot: &Spot) -> bool {
        let folded = catch_unwind(AssertUnwindSafe(|| self.state.apply(record)));
        let what = match folded {
            Ok(Ok(())) => return true,
            Ok(Err(gap)) => gap.to_string(),
            Err(_) => "state cannot be folded over it".to_owned(),
        };
        let means = "what follows it cannot be checked against the rules";
        self.rules.fail(spot.place(), what, means);
        false
    }

    fn reached(&mut self, prev: &[u8; 32]) {
        if self.folding && self.options.through >= Level::Replay {
            self.states.reached(self.state.position(), prev, &self.state, self.second.opened());
            self.digests.reached(self.state.position(), &self.state);
        }
    }

    fn report(mut self, origin: Option<String>) -> Report {
        let whole = self.whole;
        if self.next == 0 && whole {
            self.records.findings.remarks.push("the log holds no record".into());
        }
        let otherwise = if whole { Outcome::Holds } else { Outcome::Incomplete };
        let folded = whole && self.folding;
        let tiles = self.tiles.map(|tiles| tiles.findings);
        let copies = match (self.copies, &self.second.copy) {
            (Some(mut copies), _) => {
                copies.end(self.next);
                copies.report(tiles)
            }
            (None, Some(Err(why))) => copies::unusable(self.options.failures_kept, why),
            (None, _) => copies::absent(self.options.failures_kept, tiles),
        };
        let copies = noted(copies, &self.second.notes);
        self.digests.remark(&mut self.states.findings);
        let rules = if folded { Outcome::Holds } else { Outcome::Incomplete };
        let kept_max = self.options.failures_kept;
        let mut levels = vec![self.records.report(), copies];
        let epochs = self.checkpoints.epochs();
        levels.extend(self.checkpoints.report(kept_max, origin.as_deref()));
        levels.extend([
            self.signatures.report(otherwise),
            self.rules.report(Level::Rules, rules),
            self.states.report(self.next, folded),
        ]);
        levels.retain(|level| level.level <= self.options.through);
        Report {
            holds: levels
                .iter()
                .all(|level| matches!(level.outcome, Outcome::Holds | Outcome::Absent)),
            origin,
            records: self.next,
            chain: hex(&self.chain),
            first_at: self.first_at.map(rfc3339),
            last_at: self.last_at.map(rfc3339),
            events: self.events,
            state_digest: folded.then(|| hex(&self.state.digest())),
            epochs,
            levels,
        }
    }
}

fn temporary(source: io::Error) -> FolderError {
    FolderError::Io { what: "cannot use a temporary file".into(), source }
}

/// Adds what the server noted itself.
fn noted(mut level: LevelReport, notes: &StoreNotes) -> LevelReport {
    if let Some(damage) = &notes.damage {
        level.remarks.push(format!("the server noted damage of the store: {damage}"));
    }
    level
}

/// Whether all records can still be read where this was found.
fn leaves_records(damage: &Damage) -> bool {
    match damage {
        Damage::HeaderCopy
        | Damage::Link
        | Damage::Seal
        | Damage::NotSealed
        | Damage::Torn { .. } => true,
        Damage::Header
        | Damage::OtherLog
        | Damage::Name { .. }
        | Damage::Rubbish { .. }
        | Damage::Payload { .. }
        | Damage::Records(_)
        | Damage::Missing { .. }
        | Damage::SegmentMissing { .. }
        | Damage::Truncated { .. }
        | Damage::Overlap => false,
    }
}
