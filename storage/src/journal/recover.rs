//! Opening the journal for writing: what a crash left is cut, what is damaged
//! is made again where the second copy and the chain prove it.
//!
//! Nothing is changed before it is known that opening can go on.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use engine::ids::Position;
use engine::machine::{Entropy, random};

use super::finding::{Damage, Finding};
use super::format::{GROUPS_AT, SEAL_LEN, Seal};
use super::scan::read_headers;
use super::segment::{self, Active, Reservation, header_after, reserved_len};
use super::walk::{Place, Step, Walk, segment_first, segment_name};
use super::{
    Check, Journal, KnownHead, OpenError, Options, Recovery, Reserve, Witness, origin_path,
    read_origin,
};
use crate::block::{self, Block, BlockLog, Head};
use crate::disk::{self, Disk, DiskFile, Open, Privacy};
use crate::record::{self, Chain};

/// Records asked of the witness at once, and put into one restored group.
const RESTORE_STEP: usize = 256;

/// See [`Journal::open`].
pub(super) fn open(
    disk: Arc<dyn Disk>,
    dir: &Path,
    new_origin: &str,
    options: Options,
    witness: &dyn Witness,
    entropy: &dyn Entropy,
) -> Result<(Journal, Recovery), OpenError> {
    let at_dir = |source| OpenError::Io { path: dir.to_path_buf(), source };
    disk.create_dir(dir, Privacy::Shared).map_err(at_dir)?;
    disk.sync_dir(disk::parent(dir)).map_err(at_dir)?;
    // Names that are read may stand in memory only; from here on they count.
    disk.sync_dir(dir).map_err(at_dir)?;
    let mut known = witness.known_heads();
    known.sort_by_key(|known| known.size);
    let (origin, created) = match read_origin(disk.as_ref(), dir)? {
        Some(origin) => (origin, false),
        None => {
            // No log is begun where one was that cannot be made again from here.
            let start = Head { size: 0, chain: block::genesis(new_origin) };
            can_restore(witness, &known, &start)?;
            (create(&disk, dir, new_origin, &options, entropy)?, true)
        }
    };
    let genesis = block::genesis(&origin);
    let mut opener = Opener {
        disk: Arc::clone(&disk),
        dir: dir.to_path_buf(),
        genesis,
        options,
        witness,
        entropy,
        known,
        head: Head { size: 0, chain: genesis },
        sealed: Vec::new(),
        active: None,
        recovery: Recovery { created, ..Recovery::default() },
    };
    opener.all()?;
    let len = reserved_len(&options.limits);
    let mut keys = blake3::Hasher::new_derive_key("keytrail 2026-11 journal segment keys v1");
    keys.update(&random::<32>(entropy));
    let journal = Journal {
        reservation: Mutex::new(Reservation::new(disk, dir, len, options.reserve)),
        disk: opener.disk,
        dir: opener.dir,
        origin,
        genesis,
        limits: options.limits,
        head: opener.head,
        sealed: opener.sealed,
        active: opener.active,
        keys: keys.finalize_xof(),
        cursor: Mutex::new(None),
        failed: false,
    };
    compare(&journal, &opener.known)?;
    Ok((journal, opener.recovery))
}

/// Makes a log: its first segment, then the origin line, so that where there is
/// an origin line and no segment, something was lost.
fn create(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    origin: &str,
    options: &Options,
    entropy: &dyn Entropy,
) -> Result<String, OpenError> {
    let path = origin_path(dir);
    let fits =
        !origin.is_empty() && !origin.contains('\n') && (origin.len() as u64) < super::ORIGIN_MAX;
    if !fits || !not_begun(disk.as_ref(), dir)? {
        return Err(OpenError::Origin { path });
    }
    let genesis = block::genesis(origin);
    let reserved = reserved_len(&options.limits);
    let header =
        header_after(&Head { size: 0, chain: genesis }, genesis, reserved, random(entropy));
    let mut reservation = Reservation::new(Arc::clone(disk), dir, reserved, Reserve::Inline);
    reservation
        .wait()
        .and_then(|()| reservation.start(header))
        .map_err(|source| OpenError::Io { path: dir.join(segment_name(Position(0))), source })?;
    let line = format!("{origin}\n");
    disk::write_atomically(disk.as_ref(), &path, line.as_bytes(), Privacy::Shared)
        .map_err(|source| OpenError::Io { path, source })?;
    Ok(origin.to_owned())
}

/// Whether there is no segment, or only a first one without a group: what is
/// left of making a log that was cut off.
fn not_begun(disk: &dyn Disk, dir: &Path) -> Result<bool, OpenError> {
    match segments(disk, dir)?.as_slice() {
        [] => Ok(true),
        [Position(0)] => {
            let path = dir.join(segment_name(Position(0)));
            let bytes =
                disk.read(&path, u64::MAX).map_err(|source| OpenError::Io { path, source })?;
            Ok(bytes.iter().skip(GROUPS_AT as usize).all(|&byte| byte == 0))
        }
        _ => Ok(false),
    }
}

/// The first records of the segments in `dir`, in order, by their files' names.
pub(crate) fn segments(disk: &dyn Disk, dir: &Path) -> Result<Vec<Position>, OpenError> {
    let paths =
        disk.list(dir).map_err(|source| OpenError::Io { path: dir.to_path_buf(), source })?;
    Ok(paths.iter().filter_map(|path| segment_first(path)).collect())
}

/// What is wrong between the segment of `place` and the end of the one before.
pub(super) fn gap(place: &Place) -> Option<Finding> {
    let before = place.before?;
    let what = match before.size.cmp(&place.first.0) {
        std::cmp::Ordering::Less => Damage::SegmentMissing { until: Some(place.first) },
        std::cmp::Ordering::Greater => Damage::Overlap,
        std::cmp::Ordering::Equal => return None,
    };
    Some(Finding { file: place.path.clone(), offset: 0, position: Position(before.size), what })
}

/// That the segment after a sealed one, which ends at `end`, is not there.
pub(super) fn missing_last(file: PathBuf, end: &Head) -> Finding {
    let what = Damage::SegmentMissing { until: None };
    Finding { file, offset: 0, position: Position(end.size), what }
}

struct Opener<'a> {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    genesis: Chain,
    options: Options,
    witness: &'a dyn Witness,
    entropy: &'a dyn Entropy,
    /// By size.
    known: Vec<KnownHead>,
    head: Head,
    sealed: Vec<(Position, u64)>,
    active: Option<Active>,
    recovery: Recovery,
}

/// What one walk over a segment found.
struct Seen {
    walk: Walk,
    findings: Vec<Finding>,
}

/// The groups of a segment that is written anew.
struct Gathered {
    blocks: Vec<Block>,
    head: Head,
    from_witness: u64,
}

impl Opener<'_> {
    fn all(&mut self) -> Result<(), OpenError> {
        let firsts = segments(self.disk.as_ref(), &self.dir)?;
        if firsts.is_empty() && self.known.last().is_none_or(|known| known.size == 0) {
            let missing = missing_last(self.path(Position(0)), &self.head);
            return Err(OpenError::Damaged(vec![missing]));
        }
        for (index, &first) in firsts.iter().enumerate() {
            let next = firsts.get(index + 1).copied();
            self.fill_gap(first)?;
            match next {
                Some(next) => self.full_segment(first, next, index + 2 == firsts.len())?,
                None => self.last_segment(first)?,
            }
        }
        self.restore_rest()
    }

    /// Makes what is missing after the last segment out of the second copy. Each
    /// segment but the last of them is sealed from the start: if this is cut off
    /// and the second copy lost, the seal says that something is missing.
    fn restore_rest(&mut self) -> Result<(), OpenError> {
        let Some(known) = self.known.last().cloned() else { return Ok(()) };
        can_restore(self.witness, &self.known, &self.head)?;
        while self.head.size < known.size {
            let first = Position(self.head.size);
            self.rebuild(first, known.size, known.chain, &BTreeMap::new(), false, Vec::new())?;
        }
        Ok(())
    }

    fn place(&self, first: Position, has_next: bool) -> Place {
        Place {
            path: self.path(first),
            first,
            before: Some(self.head),
            genesis: self.genesis,
            has_next,
        }
    }

    fn path(&self, first: Position) -> PathBuf {
        self.dir.join(segment_name(first))
    }

    /// Makes a segment that is missing before the one that begins with `first`.
    fn fill_gap(&mut self, first: Position) -> Result<(), OpenError> {
        let Some(finding) = gap(&self.place(first, true)) else { return Ok(()) };
        if self.head.size > first.0 {
            return Err(OpenError::Damaged(vec![finding]));
        }
        let start = Position(self.head.size);
        let chain = self.link_of(first)?;
        let good = BTreeMap::new();
        let finding = Finding { file: self.path(start), ..finding };
        self.rebuild(start, first.0, chain, &good, true, vec![finding])
    }

    /// What the header of the segment that begins with `first` follows.
    fn link_of(&self, first: Position) -> Result<Option<Chain>, OpenError> {
        let path = self.path(first);
        let headers = self
            .disk
            .open(&path, Open::Read)
            .and_then(|file| read_headers(file.as_ref()))
            .map_err(|source| OpenError::Io { path, source })?;
        Ok(headers
            .map(|headers| headers.header)
            .filter(|header| header.genesis == self.genesis && header.first == first)
            .map(|header| header.prev))
    }

    /// A segment with one after it, which may be the last.
    fn full_segment(
        &mut self,
        first: Position,
        next: Position,
        next_is_last: bool,
    ) -> Result<(), OpenError> {
        let place = self.place(first, true);
        let ends = match self.options.check {
            Check::Ends => self.check_ends(&place)?,
            Check::All => None,
        };
        if let Some(head) = ends.filter(|head| head.size == next.0) {
            self.pass(first, head);
            return Ok(());
        }
        let seen = self.walk(&place, None)?;
        let end = seen.walk.ending();
        if seen.findings.is_empty() && end.head.size == next.0 && end.seal.is_some() {
            let head = end.head;
            self.pass(first, head);
            return Ok(());
        }
        if next_is_last && self.was_sealing(&seen, next)? {
            let head = end.head;
            self.seal(&place, seen)?;
            self.pass(first, head);
            return Ok(());
        }
        let mut findings = seen.findings;
        if findings.is_empty() {
            let what = Damage::Missing { until: next };
            let position = Position(end.head.size);
            findings.push(Finding { file: place.path.clone(), offset: end.offset, position, what });
        }
        let chain = self.link_of(next)?;
        let good = self.good(&place)?;
        self.rebuild(first, next.0, chain, &good, true, findings)
    }

    /// Whether what is wrong is no more than the death of a process leaves that
    /// was sealing: every record is there, the next segment was begun, and
    /// nothing is in it.
    fn was_sealing(&self, seen: &Seen, next: Position) -> Result<bool, OpenError> {
        let end = seen.walk.ending();
        let only_the_seal = seen.findings.iter().all(|finding| match finding.what {
            Damage::NotSealed => true,
            Damage::Torn { .. } => finding.offset == end.offset,
            Damage::Header
            | Damage::HeaderCopy
            | Damage::OtherLog
            | Damage::Name { .. }
            | Damage::Link
            | Damage::Rubbish { .. }
            | Damage::Payload { .. }
            | Damage::Records(_)
            | Damage::Missing { .. }
            | Damage::SegmentMissing { .. }
            | Damage::Truncated { .. }
            | Damage::Seal
            | Damage::Overlap => false,
        });
        if !only_the_seal || end.head.size != next.0 {
            return Ok(false);
        }
        let after = Place { before: Some(end.head), ..self.place(next, false) };
        let after = self.walk(&after, None)?;
        Ok(after.findings.is_empty() && after.walk.ending().head == end.head)
    }

    /// Seals a segment, or finishes that.
    fn seal(&self, place: &Place, seen: Seen) -> Result<(), OpenError> {
        let io = |source| OpenError::Io { path: place.path.clone(), source };
        let file = self.writable(&place.path).map_err(io)?;
        let end = seen.walk.ending();
        if let Some(seal) = &end.seal {
            return segment::finish_seal(file.as_ref(), seal).map_err(io);
        }
        // Whatever is there of a seal is not taken for a part of the new one.
        let clear = |file: &dyn DiskFile| -> io::Result<()> {
            let len = file.len()?.max(end.offset + SEAL_LEN as u64);
            file.write_zeros(end.offset, len - end.offset)?;
            file.sync_all()
        };
        clear(file.as_ref()).map_err(io)?;
        let seen = self.walk(place, None)?;
        active(&seen, file).and_then(|active| active.seal()).map_err(io)
    }

    fn pass(&mut self, first: Position, head: Head) {
        self.sealed.push((first, head.size - first.0));
        self.head = head;
    }

    /// Header, seal and length of a sealed segment; the head after it, or none
    /// if any of them is not as it should be.
    fn check_ends(&self, place: &Place) -> Result<Option<Head>, OpenError> {
        let read = || -> io::Result<Option<Head>> {
            let file = self.disk.open(&place.path, Open::Read)?;
            let Some(headers) = read_headers(file.as_ref())? else { return Ok(None) };
            let header = headers.header;
            let Some(offset) = file.len()?.checked_sub(SEAL_LEN as u64) else { return Ok(None) };
            let mut bytes = [0; SEAL_LEN];
            file.read_exact_at(&mut bytes, offset)?;
            let fits = headers.damaged_copy.is_none()
                && header.genesis == self.genesis
                && header.first == place.first
                && header.prev == self.head.chain;
            Ok(Seal::decode(&bytes, &header.key)
                .filter(|seal| fits && seal.offset == offset && seal.first == place.first)
                .map(|seal| seal.head()))
        };
        read().map_err(|source| OpenError::Io { path: place.path.clone(), source })
    }

    /// Walks over a segment; hands its groups to `keep`.
    fn walk(
        &self,
        place: &Place,
        mut keep: Option<&mut BTreeMap<u64, Block>>,
    ) -> Result<Seen, OpenError> {
        let mut read = || -> io::Result<Seen> {
            let file: Arc<dyn DiskFile> = Arc::from(self.disk.open(&place.path, Open::Read)?);
            let mut walk = Walk::new(file, place.clone())?;
            let mut findings = Vec::new();
            while let Some(step) = walk.next()? {
                match step {
                    Step::Finding(finding) => findings.push(finding),
                    Step::Group(block) => {
                        if let Some(keep) = &mut keep {
                            keep.insert(block.first.0, block);
                        }
                    }
                }
            }
            Ok(Seen { walk, findings })
        };
        read().map_err(|source| OpenError::Io { path: place.path.clone(), source })
    }

    /// The groups of a segment that are whole.
    fn good(&self, place: &Place) -> Result<BTreeMap<u64, Block>, OpenError> {
        let mut good = BTreeMap::new();
        self.walk(place, Some(&mut good))?;
        Ok(good)
    }

    /// The segment with none after it.
    fn last_segment(&mut self, first: Position) -> Result<(), OpenError> {
        let place = self.place(first, false);
        let seen = self.walk(&place, None)?;
        let io = |source| OpenError::Io { path: place.path.clone(), source };
        let end = seen.walk.ending().clone();
        let torn = torn(&seen);
        if end.seal.is_none() && (seen.findings.is_empty() || torn.is_some()) {
            let known = self.known.last().filter(|known| known.size > end.head.size);
            if let Some(known) = known.cloned() {
                // In one step, not group by group: what is half restored would
                // look like a log that ends there.
                can_restore(self.witness, &self.known, &end.head)?;
                let good = self.good(&place)?;
                return self.rebuild(first, known.size, known.chain, &good, false, seen.findings);
            }
        }
        if seen.findings.is_empty() {
            return match end.seal {
                Some(_) => self.without_successor(first, end.head),
                None => self.go_on(&seen).map_err(io),
            };
        }
        if let Some(cut) = torn {
            self.cut(&seen, cut).map_err(io)?;
            let seen = self.walk(&place, None)?;
            return match seen.findings.is_empty() {
                true => self.go_on(&seen).map_err(io),
                false => Err(OpenError::Damaged(seen.findings)),
            };
        }
        if let (Some(seal), [Finding { what: Damage::NotSealed, .. }]) =
            (&end.seal, seen.findings.as_slice())
        {
            self.writable(&place.path)
                .and_then(|file| segment::finish_seal(file.as_ref(), seal))
                .map_err(io)?;
            return self.without_successor(first, end.head);
        }
        self.repair_last(&place, seen)
    }

    /// A sealed segment, which had one after it that is missing. Only another
    /// copy that reaches as far shows what was in that one.
    fn without_successor(&mut self, first: Position, end: Head) -> Result<(), OpenError> {
        let finding = missing_last(self.path(Position(end.size)), &end);
        if self.known.last().is_none_or(|known| known.size < end.size) {
            return Err(OpenError::Damaged(vec![finding]));
        }
        self.recovery.repaired.push(finding);
        self.pass(first, end);
        Ok(())
    }

    fn repair_last(&mut self, place: &Place, seen: Seen) -> Result<(), OpenError> {
        let end = seen.walk.ending();
        let known = self.known.last().map_or(0, |known| known.size);
        // A file shorter than it was made may have lost groups without a trace;
        // so may one whose groups cannot be read at all. Only another copy that
        // ends here or later shows that nothing is missing.
        let traceless = seen.findings.iter().any(|finding| match finding.what {
            Damage::Truncated { .. }
            | Damage::Header
            | Damage::OtherLog
            | Damage::Name { .. }
            | Damage::Link => true,
            Damage::HeaderCopy
            | Damage::Rubbish { .. }
            | Damage::Payload { .. }
            | Damage::Records(_)
            | Damage::Missing { .. }
            | Damage::SegmentMissing { .. }
            | Damage::Seal
            | Damage::NotSealed
            | Damage::Torn { .. }
            | Damage::Overlap => false,
        });
        let least = end.head.size.max(end.proven);
        if traceless && (known < least || known == 0) {
            return Err(OpenError::Damaged(seen.findings));
        }
        let until = if traceless { known } else { least };
        let chain = self.known.iter().find(|k| k.size == until).and_then(|known| known.chain);
        let good = self.good(place)?;
        self.rebuild(place.first, until, chain, &good, false, seen.findings)
    }

    fn writable(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::from(self.disk.open(path, Open::Write)?))
    }

    /// Overwrites a torn group with zeros: nothing of it may be taken for a part
    /// of what is written over it.
    fn cut(&mut self, seen: &Seen, cut: Finding) -> io::Result<()> {
        let file = self.writable(&cut.file)?;
        let from = seen.walk.ending().offset;
        let end = if let Damage::Torn { end } = cut.what { end } else { file.len()? };
        file.write_zeros(from, end.max(from) - from)?;
        file.sync_all()?;
        self.recovery.cut = Some(cut);
        Ok(())
    }

    /// Goes on writing where the segment ends.
    fn go_on(&mut self, seen: &Seen) -> io::Result<()> {
        let first = seen.walk.header().map(|header| self.path(header.first));
        let file = self.writable(&first.unwrap_or_default())?;
        // What was read may stand in memory only; from here on it counts.
        file.sync_all()?;
        let active = active(seen, file)?;
        self.head = active.end;
        self.active = Some(active);
        Ok(())
    }

    /// Writes the segment from `first` to `until` anew, out of the groups that
    /// are whole and the records of the witness. One that need not be sealed ends
    /// where it is full, and is sealed then.
    fn rebuild(
        &mut self,
        first: Position,
        until: u64,
        chain: Option<Chain>,
        good: &BTreeMap<u64, Block>,
        sealed: bool,
        findings: Vec<Finding>,
    ) -> Result<(), OpenError> {
        let Some(Gathered { blocks, head, from_witness }) = self.gather(until, good, sealed) else {
            return Err(OpenError::Damaged(findings));
        };
        let all = head.size == until;
        if (sealed && !all) || (all && chain.is_some_and(|chain| chain != head.chain)) {
            return Err(OpenError::Damaged(findings));
        }
        let sealed = sealed || !all;
        let reserved = reserved_len(&self.options.limits);
        let header = header_after(&self.head, self.genesis, reserved, random(self.entropy));
        let bytes = segment::whole(&header, &blocks, sealed);
        let path = self.path(first);
        self.replace(&path, &bytes).map_err(|source| OpenError::Io { path, source })?;
        self.recovery.repaired.extend(findings);
        self.recovery.restored_records += from_witness;
        if sealed {
            self.pass(first, head);
            return Ok(());
        }
        let place = self.place(first, false);
        let seen = self.walk(&place, None)?;
        self.go_on(&seen).map_err(|source| OpenError::Io { path: place.path, source })
    }

    /// The groups of one segment from the present head up to `until`; none if
    /// neither `good` nor the witness has some of them.
    fn gather(&self, until: u64, good: &BTreeMap<u64, Block>, sealed: bool) -> Option<Gathered> {
        let mut found = Gathered { blocks: Vec::new(), head: self.head, from_witness: 0 };
        let last_good = good.last_key_value().map_or(0, |(_, block)| block.head().size);
        while found.head.size < until {
            let head = found.head;
            if !sealed && head.size >= last_good && self.fills(&found.blocks) {
                break;
            }
            let whole = good.get(&head.size).filter(|block| block.prev == head.chain);
            let block = if let Some(block) = whole {
                block.clone()
            } else {
                let next = good.range(head.size + 1..).next().map_or(until, |(&first, _)| first);
                let step = head.size.saturating_add(self.options.limits.records.max(1));
                let block = restored(self.witness, &head, next.min(until).min(step))?;
                found.from_witness += u64::from(block.count);
                block
            };
            found.head = block.head();
            found.blocks.push(block);
        }
        Some(found)
    }

    /// Whether these blocks fill a segment.
    fn fills(&self, blocks: &[Block]) -> bool {
        let records: u64 = blocks.iter().map(|block| u64::from(block.count)).sum();
        let bytes: u64 = blocks.iter().map(|block| block.frames.len() as u64).sum();
        records >= self.options.limits.records || bytes >= self.options.limits.bytes
    }

    /// Keeps what was there under another name: someone may want to see it.
    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        if self.disk.exists(path)? {
            let old = self.disk.read(path, u64::MAX)?;
            let mut name = path.as_os_str().to_os_string();
            name.push(".damaged");
            disk::write_atomically(self.disk.as_ref(), Path::new(&name), &old, Privacy::Shared)?;
        }
        disk::write_atomically(self.disk.as_ref(), path, bytes, Privacy::Shared)
    }
}

/// The segment that was walked over, to be written to.
fn active(seen: &Seen, file: Arc<dyn DiskFile>) -> io::Result<Active> {
    let (Some(header), Some(hasher)) = (seen.walk.header(), seen.walk.hasher()) else {
        return Err(io::Error::other("the segment changed while it was read"));
    };
    let end = seen.walk.ending();
    Ok(Active {
        header: header.clone(),
        offset: end.offset,
        end: end.head,
        hasher: hasher.clone(),
        len: file.len()?,
        file,
    })
}

/// The finding, if what is wrong is no more than a crash leaves: one group that
/// is not whole, with nothing after it.
fn torn(seen: &Seen) -> Option<Finding> {
    let [finding] = seen.findings.as_slice() else { return None };
    let end = seen.walk.ending();
    let last = match finding.what {
        Damage::Torn { .. } => true,
        Damage::Payload { .. } => end.offset == finding.offset && end.seal.is_none(),
        Damage::Header
        | Damage::HeaderCopy
        | Damage::OtherLog
        | Damage::Name { .. }
        | Damage::Link
        | Damage::Rubbish { .. }
        | Damage::Records(_)
        | Damage::Missing { .. }
        | Damage::SegmentMissing { .. }
        | Damage::Truncated { .. }
        | Damage::Seal
        | Damage::NotSealed
        | Damage::Overlap => false,
    };
    last.then(|| finding.clone())
}

/// The records of the witness that follow `head`, up to `until`, as a group;
/// none unless their chain does follow.
fn restored(witness: &dyn Witness, head: &Head, until: u64) -> Option<Block> {
    let limit = RESTORE_STEP.min(usize::try_from(until - head.size).unwrap_or(RESTORE_STEP));
    let mut block = Block::after(head);
    for bytes in witness.records(Position(head.size), limit).iter().take(limit) {
        let (record, prev) = record::decode(bytes).ok()?;
        if record.position.0 != block.head().size || prev != block.chain {
            return None;
        }
        block.push(bytes);
    }
    (block.count > 0).then_some(block)
}

/// Whether the witness proves every record between `head` and what is known.
fn can_restore(witness: &dyn Witness, known: &[KnownHead], head: &Head) -> Result<(), OpenError> {
    let Some(known) = known.last().filter(|known| known.size > head.size) else {
        return Ok(());
    };
    let mut at = *head;
    while at.size < known.size {
        match restored(witness, &at, known.size) {
            Some(block) => at = block.head(),
            None => return Err(OpenError::Lost { size: at.size, known: known.clone() }),
        }
    }
    differs(&at, known)
}

/// An error if `head` is as long as `known`, and another.
fn differs(head: &Head, known: &KnownHead) -> Result<(), OpenError> {
    match known.chain {
        Some(chain) if chain != head.chain && head.size == known.size => {
            Err(OpenError::Diverged { known: known.clone() })
        }
        Some(_) | None => Ok(()),
    }
}

/// Holds the journal against every head that was durable once.
fn compare(journal: &Journal, known: &[KnownHead]) -> Result<(), OpenError> {
    for known in known {
        let Some(last) = known.size.checked_sub(1) else { continue };
        let records = journal
            .read(Position(last), 1)
            .map_err(|source| OpenError::Io { path: journal.dir.clone(), source })?;
        let record = records
            .first()
            .ok_or_else(|| OpenError::Lost { size: journal.head().size, known: known.clone() })?;
        differs(&Head { size: known.size, chain: record::chain(record) }, known)?;
    }
    Ok(())
}
