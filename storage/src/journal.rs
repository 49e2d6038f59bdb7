//! The journal: plain append-only segment files, the copy of the log that
//! makes an acknowledged event safe.
//!
//! A group is acknowledged after it was written into space that was reserved
//! and synced before, and then synced itself; the next one is written only
//! after that. So a crash can leave at most one group that is not whole, it is
//! the last one, and nobody was told of it. Opening cuts such a group. Anything
//! else that is wrong is damage: it is repaired from a [`Witness`] where the
//! chain proves what the witness says, or the journal does not open.

mod finding;
mod format;
mod recover;
mod scan;
mod segment;
#[cfg(test)]
mod tests;
mod walk;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use engine::ids::Position;
use engine::machine::Entropy;

pub use finding::{Damage, Finding};
use format::{GROUP_HEADER_LEN, SegmentHeader};
pub(crate) use recover::segments;
use scan::{Part, Scan, read_headers};
use segment::{Active, Reservation};
use walk::{Place, Step, Walk, segment_name};

use crate::block::{self, AppendError, Block, BlockLog, Head};
use crate::disk::{Disk, Open};
use crate::record::Chain;

/// When a segment is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Sealed at the first group end at or after so many records.
    pub records: u64,
    /// Sealed at the first group end at or after so many bytes.
    pub bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { records: 65_536, bytes: 64 << 20 }
    }
}

/// How the journal is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// When a segment is full.
    pub limits: Limits,
    /// How much of what is there is read.
    pub check: Check,
    /// Who makes the next segment.
    pub reserve: Reserve,
}

/// How much of the journal is read when it is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Check {
    /// The last segment in whole; of the sealed ones header, seal and length.
    #[default]
    Ends,
    /// Every byte.
    All,
}

/// Who makes the next segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reserve {
    /// A thread of its own, ahead of need.
    #[default]
    Ahead,
    /// The append that fills a segment; for tests that need one order of operations.
    Inline,
}

/// A head that something outside the journal says was durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownHead {
    /// Who says so, for messages: "the last signed checkpoint".
    pub source: String,
    /// Number of records.
    pub size: u64,
    /// Chain value of the last of them, if known.
    pub chain: Option<Chain>,
}

/// What stands beside the journal and knows part of the log too.
pub trait Witness {
    /// Heads that were durable once: of the sled copy, the last signed
    /// checkpoint, the guard file.
    fn known_heads(&self) -> Vec<KnownHead>;

    /// Encoded records in order from `from`, at most `limit`; none where the
    /// second copy has none. They are believed only where the chain proves them.
    fn records(&self, from: Position, limit: usize) -> Vec<Vec<u8>>;
}

/// A witness that knows nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoWitness;

impl Witness for NoWitness {
    fn known_heads(&self) -> Vec<KnownHead> {
        Vec::new()
    }

    fn records(&self, _from: Position, _limit: usize) -> Vec<Vec<u8>> {
        Vec::new()
    }
}

/// What opening the journal found and did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovery {
    /// The journal was made now.
    pub created: bool,
    /// Bytes of a torn group that were cut, if there was one. Nothing in them
    /// was ever acknowledged.
    pub cut: Option<Finding>,
    /// Damage that was repaired from the second copy.
    pub repaired: Vec<Finding>,
    /// Records that came from the second copy.
    pub restored_records: u64,
}

/// Why the journal cannot be opened for writing. Nothing was lost by trying.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file operation failed.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Records that were durable are damaged or missing, and nothing here proves
    /// what they were.
    #[error("the log is damaged and cannot be repaired from the second copy: {}; put back the named files from a copy of the folder log/, then start again", list(.0))]
    Damaged(Vec<Finding>),
    /// The log ends before a head that was durable.
    #[error("rollback: the log ends at record {size}, but {} knows {} records; put back the newest copy of the folder log/, then start again", known.source, known.size)]
    Lost {
        /// Number of records found.
        size: u64,
        /// What was durable once.
        known: KnownHead,
    },
    /// The log has another history than a head that was durable.
    #[error("rollback: the log is not the one that {} knows: they differ at or before record {}; put back the folder log/ that belongs here", known.source, known.size)]
    Diverged {
        /// What was durable once.
        known: KnownHead,
    },
    /// The origin file is missing or holds no origin line.
    #[error("{}: no origin line, but there are segments of a log that is not the configured one", path.display())]
    Origin {
        /// The origin file.
        path: PathBuf,
    },
}

fn list(findings: &[Finding]) -> String {
    findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// Whether there is room for what comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Space {
    /// The next segment is reserved, or being reserved.
    Reserved,
    /// It could not be reserved, for this reason: appends work until the
    /// present segment is full, and are then refused.
    Short(String),
}

/// The journal, open for writing. Its only writer.
pub struct Journal {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    origin: String,
    genesis: Chain,
    limits: Limits,
    head: Head,
    sealed: Vec<(Position, u64)>,
    /// None where the last segment is sealed: the next append makes one.
    active: Option<Active>,
    reservation: Mutex<Reservation>,
    /// Keys of the next segments, drawn ahead, so that appending needs no entropy.
    keys: blake3::OutputReader,
    cursor: Mutex<Option<Cursor>>,
    failed: bool,
}

/// Where the last read ended: the next one often goes on there.
#[derive(Debug, Clone, Copy)]
struct Cursor {
    segment: Position,
    /// A group with this first record,
    group: Position,
    /// is at this offset.
    offset: u64,
}

impl Journal {
    /// Opens the journal in `dir` (the folder `log/`), or makes it, under the
    /// origin line `new_origin`, if there is none.
    ///
    /// Cuts a torn group and repairs damage from `witness`; see `docs/format.md`.
    ///
    /// # Errors
    ///
    /// [`OpenError`] if acknowledged records would be lost by going on.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        new_origin: &str,
        options: Options,
        witness: &dyn Witness,
        entropy: &dyn Entropy,
    ) -> Result<(Self, Recovery), OpenError> {
        recover::open(disk, dir, new_origin, options, witness, entropy)
    }

    /// The log's origin line.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Whether there is room for what comes.
    #[must_use]
    pub fn space(&self) -> Space {
        lock(&self.reservation).space()
    }

    /// The sealed segments: first position and number of records of each.
    #[must_use]
    pub fn sealed(&self) -> Vec<(Position, u64)> {
        self.sealed.clone()
    }

    fn fail(&mut self, error: io::Error) -> AppendError {
        self.failed = true;
        AppendError::Io(error)
    }

    /// Begins the next segment, then seals the present one, if there is one. In
    /// this order a sealed segment always has one after it, so that a last
    /// segment that is lost is missed.
    fn roll(&mut self) -> Result<(), AppendError> {
        let mut key = [0; 32];
        self.keys.fill(&mut key);
        let reserved = segment::reserved_len(&self.limits);
        let header = segment::header_after(&self.head, self.genesis, reserved, key);
        let started = {
            let mut reservation = lock(&self.reservation);
            reservation.wait().and_then(|()| reservation.start(header))
        };
        let started = match started {
            Ok(active) => active,
            // Nothing has changed yet: the present segment stays as it is.
            Err(error) if segment::is_full(&error) => return Err(AppendError::Full),
            Err(error) => return Err(self.fail(error)),
        };
        if let Some(full) = self.active.replace(started) {
            self.sealed.push((full.header.first, full.records()));
            full.seal().map_err(|error| self.fail(error))?;
        }
        Ok(())
    }

    fn write(&mut self, block: &Block) -> Result<(), AppendError> {
        if self.active.as_ref().is_none_or(|active| active.is_full(&self.limits)) {
            self.roll()?;
        }
        let Some(active) = &mut self.active else {
            return Err(self.fail(io::Error::other("there is no segment to write to")));
        };
        let room = active.make_room((GROUP_HEADER_LEN + block.frames.len()) as u64);
        if let Err(error) = room {
            return Err(if segment::is_full(&error) {
                AppendError::Full
            } else {
                self.fail(error)
            });
        }
        if let Err(error) = active.write(block) {
            return Err(self.fail(error));
        }
        Ok(())
    }

    /// The first record of the segment that holds `position`.
    fn segment_of(&self, position: Position) -> Option<Position> {
        let active = self.active.as_ref().map(|active| active.header.first);
        if active.is_some_and(|first| first <= position) {
            return active;
        }
        let after = self.sealed.partition_point(|(first, _)| *first <= position);
        after.checked_sub(1).map(|index| self.sealed[index].0)
    }

    /// Adds records from `from` on out of one segment to `out`.
    fn read_segment(
        &self,
        segment: Position,
        from: Position,
        limit: usize,
        out: &mut Vec<Vec<u8>>,
    ) -> io::Result<()> {
        let path = self.dir.join(segment_name(segment));
        let file: Arc<dyn crate::disk::DiskFile> = Arc::from(self.disk.open(&path, Open::Read)?);
        let header: SegmentHeader =
            read_headers(file.as_ref())?.ok_or_else(|| damaged(&path, from))?.header;
        let cursor = (*lock(&self.cursor))
            .filter(|cursor| cursor.segment == segment && cursor.group <= from);
        let start = cursor.map_or(format::GROUPS_AT, |cursor| cursor.offset);
        let mut scan = Scan::from(file, &header, start)?;
        let mut next = from.0;
        loop {
            let offset = scan.offset();
            let Some(group) = scan.peek()? else { return Ok(()) };
            if group.first.0 >= self.head.size {
                return Ok(());
            }
            *lock(&self.cursor) = Some(Cursor { segment, group: group.first, offset });
            if group.head().size <= next {
                scan.skip()?;
                continue;
            }
            let Some(Part::Group { header, payload, .. }) = scan.next()? else {
                return Err(damaged(&path, Position(next)));
            };
            if header.first.0 > next {
                return Err(damaged(&path, Position(next)));
            }
            let skip = (next - header.first.0) as usize;
            for record in block::frames(&payload).skip(skip) {
                if out.len() == limit {
                    return Ok(());
                }
                out.push(record.to_vec());
                next += 1;
            }
        }
    }
}

fn damaged(path: &Path, position: Position) -> io::Error {
    let message = format!("{}: record {} is damaged", path.display(), position.0);
    io::Error::new(io::ErrorKind::InvalidData, message)
}

/// Nothing panics while holding these locks in a state that is half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl BlockLog for Journal {
    fn head(&self) -> Head {
        self.head
    }

    fn append(&mut self, expect: &Head, block: &Block) -> Result<Head, AppendError> {
        if self.failed {
            return Err(AppendError::Io(io::Error::other("an earlier write to the log failed")));
        }
        block.follows(&self.head, expect)?;
        self.write(block)?;
        self.head = block.head();
        Ok(self.head)
    }

    fn read(&self, from: Position, limit: usize) -> io::Result<Vec<Vec<u8>>> {
        let mut out = Vec::new();
        loop {
            let next = Position(from.0.saturating_add(out.len() as u64));
            if out.len() >= limit || next.0 >= self.head.size {
                return Ok(out);
            }
            let segment = self.segment_of(next).ok_or_else(|| damaged(&self.dir, next))?;
            let before = out.len();
            self.read_segment(segment, next, limit, &mut out)?;
            if out.len() == before {
                return Err(damaged(&self.dir.join(segment_name(segment)), next));
            }
        }
    }
}

/// The file that holds the origin line.
fn origin_path(dir: &Path) -> PathBuf {
    dir.join("origin")
}

/// The longest origin line, in bytes, with its end.
const ORIGIN_MAX: u64 = 1024;

/// The origin line of the log in `dir`; none if there is no log.
///
/// # Errors
///
/// If the file is there and cannot be read or holds no origin line.
pub fn read_origin(disk: &dyn Disk, dir: &Path) -> Result<Option<String>, OpenError> {
    let path = origin_path(dir);
    let bytes = match disk.read(&path, ORIGIN_MAX) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(OpenError::Io { path, source }),
    };
    let text = String::from_utf8(bytes).ok();
    let line = text.as_deref().and_then(|text| text.strip_suffix('\n'));
    match line {
        Some(line) if !line.is_empty() && !line.contains('\n') => Ok(Some(line.to_owned())),
        Some(_) | None => Err(OpenError::Origin { path }),
    }
}

/// The journal, for reading only: never writes, works on a copy too.
pub struct JournalReader {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    origin: String,
    segments: Vec<Position>,
}

/// What a [`JournalReader`] comes upon, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A group whose hash is right and which follows the one before.
    Block(Block),
    /// Something else.
    Finding(Finding),
}

/// As [`Item`], with the place of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placed {
    /// A group whose hash is right and which follows the one before.
    Block {
        /// The group.
        block: Block,
        /// Its file.
        file: Arc<Path>,
        /// Where its frames begin in the file, in bytes.
        frames_at: u64,
    },
    /// Something else.
    Finding(Finding),
}

impl JournalReader {
    /// Opens the journal in `dir` (the folder `log/`).
    ///
    /// # Errors
    ///
    /// If the folder or its origin line cannot be read.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path) -> Result<Self, OpenError> {
        let origin = read_origin(disk.as_ref(), dir)?
            .ok_or_else(|| OpenError::Origin { path: origin_path(dir) })?;
        let segments = recover::segments(disk.as_ref(), dir)?;
        Ok(Self { disk, dir: dir.to_path_buf(), origin, segments })
    }

    /// The log's origin line.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Everything in order, from the segment that holds `from`. Memory: one group.
    pub fn items(&self, from: Position) -> impl Iterator<Item = io::Result<Item>> + '_ {
        self.placed(from).map(|placed| {
            placed.map(|placed| match placed {
                Placed::Block { block, .. } => Item::Block(block),
                Placed::Finding(finding) => Item::Finding(finding),
            })
        })
    }

    /// How many bytes there are to read, for whoever shows progress: the lengths
    /// of all segment files, of the last one about as far as it is written.
    ///
    /// # Errors
    ///
    /// As the medium says.
    pub fn bytes(&self) -> io::Result<u64> {
        let mut sum = 0;
        for (index, first) in self.segments.iter().enumerate() {
            let file = self.disk.open(&self.dir.join(segment_name(*first)), Open::Read)?;
            let last = index + 1 == self.segments.len();
            sum += if last { scan::written_len(file.as_ref())? } else { file.len()? };
        }
        Ok(sum)
    }

    /// As [`JournalReader::items`], and where each group stands.
    pub fn placed(&self, from: Position) -> impl Iterator<Item = io::Result<Placed>> + '_ {
        let index = self.segments.partition_point(|first| *first <= from).saturating_sub(1);
        let file = Arc::from(Path::new(""));
        // A log has at least one segment, so that none is like one that was sealed.
        let sealed = self.segments.is_empty();
        let before = sealed.then(|| Head { size: 0, chain: block::genesis(&self.origin) });
        Items { reader: self, index, walk: None, file, before, sealed, over: false }
    }

    /// What is wrong where the last segment is sealed, and so not the last.
    fn missing_last(&self, end: &Head) -> io::Result<Option<Placed>> {
        let file = self.dir.join(segment_name(Position(end.size)));
        // Begun since the folder was listed: not read, and not missing.
        let there = self.disk.exists(&file)?;
        Ok((!there).then(|| Placed::Finding(recover::missing_last(file, end))))
    }

    fn place(&self, index: usize, before: Option<Head>) -> Place {
        let genesis = block::genesis(&self.origin);
        let start = Head { size: 0, chain: genesis };
        Place {
            path: self.dir.join(segment_name(self.segments[index])),
            first: self.segments[index],
            before: if index == 0 { Some(start) } else { before },
            genesis,
            has_next: index + 1 < self.segments.len(),
        }
    }
}

struct Items<'r> {
    reader: &'r JournalReader,
    index: usize,
    walk: Option<Walk>,
    /// Of the walk.
    file: Arc<Path>,
    before: Option<Head>,
    /// Whether the segment before has a seal.
    sealed: bool,
    over: bool,
}

impl Items<'_> {
    fn step(&mut self) -> io::Result<Option<Placed>> {
        loop {
            if let Some(walk) = &mut self.walk {
                match walk.next()? {
                    Some(Step::Group(block)) => {
                        let frames_at = walk.ending().offset - block.frames.len() as u64;
                        let file = Arc::clone(&self.file);
                        return Ok(Some(Placed::Block { block, file, frames_at }));
                    }
                    Some(Step::Finding(finding)) => return Ok(Some(Placed::Finding(finding))),
                    None => self.before = Some(walk.ending().head),
                }
                self.sealed = walk.ending().seal.is_some();
                self.walk = None;
                self.index += 1;
            }
            if self.index >= self.reader.segments.len() {
                let end = self.before.take().filter(|_| self.sealed);
                return end.map_or(Ok(None), |end| self.reader.missing_last(&end));
            }
            let place = self.reader.place(self.index, self.before);
            let file = Arc::from(self.reader.disk.open(&place.path, Open::Read)?);
            let gap = recover::gap(&place);
            self.file = Arc::from(place.path.as_path());
            self.walk = Some(Walk::new(file, place)?);
            if let Some(finding) = gap {
                return Ok(Some(Placed::Finding(finding)));
            }
        }
    }
}

impl Iterator for Items<'_> {
    type Item = io::Result<Placed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        let step = self.step().transpose();
        // After an error nothing sure can be said of what follows.
        self.over = !matches!(step, Some(Ok(_)));
        step
    }
}
