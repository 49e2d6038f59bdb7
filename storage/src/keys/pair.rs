//! The subjects' keys on disk: two files of equal slots, one written after the
//! other.
//!
//! ```text
//! file                        slot
//! off len  field              off len  field
//!   0   8  "KTSUBJT1"           0  16  subject id
//!   8  32  hash of the magic   16  32  keyed hash of the reference
//!  40 140  slot 0             48  12  nonce
//!   … 140  slot 1             60  48  wrapped key with its tag
//!                             108  32  hash of the slot's number and bytes 0 to 107
//! ```
//! An erased slot has zeros from 16 to 107. The hashes are BLAKE3 under a key
//! made from the two secrets beside the files: with other secrets nothing here
//! can be read, and that is said.
//!
//! A change is written to the first file and synced, then to the second and
//! synced, then acknowledged. So whatever a power cut leaves of a change, the
//! other file is whole, and a slot that is damaged in one file is written again
//! from the other. A slot that was never whole in the first file and does not
//! exist in the second was never acknowledged; it is cut.

use std::io;
use std::path::Path;

use engine::ids::Id;

use super::{Expect, KeyError, Part, Secret32};
use crate::disk::{self, Disk, DiskFile, Open, Privacy};

/// Length of the nonce of a wrapped key.
pub(super) const NONCE_LEN: usize = 12;
/// Length of a wrapped key, with its tag.
pub(super) const WRAPPED_LEN: usize = 32 + 16;
/// Length of a slot.
pub(super) const SLOT_LEN: usize = FIELDS_LEN + 32;
/// Length of what stands before the first slot.
pub(super) const HEADER_LEN: usize = 40;

/// Slots read at once.
const STEP: u64 = 4_096;

const FIELDS_LEN: usize = 16 + 32 + NONCE_LEN + WRAPPED_LEN;
const MAGIC: &[u8; 8] = b"KTSUBJT1";

/// A subject's key as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wrapped {
    /// Keyed hash of service provider and user reference.
    pub(super) tag: [u8; 32],
    pub(super) nonce: [u8; NONCE_LEN],
    pub(super) key: [u8; WRAPPED_LEN],
}

/// A subject, with its key or without it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) id: Id,
    /// None: erased.
    pub(super) wrapped: Option<Wrapped>,
}

impl Slot {
    fn encode(&self, number: u64, key: &Secret32) -> [u8; SLOT_LEN] {
        let mut out = [0; SLOT_LEN];
        out[..16].copy_from_slice(&self.id.0);
        if let Some(wrapped) = &self.wrapped {
            out[16..48].copy_from_slice(&wrapped.tag);
            out[48..60].copy_from_slice(&wrapped.nonce);
            out[60..FIELDS_LEN].copy_from_slice(&wrapped.key);
        }
        let hash = slot_hash(number, &out[..FIELDS_LEN], key);
        out[FIELDS_LEN..].copy_from_slice(&hash);
        out
    }

    /// The slot in `bytes`; none unless it is whole.
    fn decode(bytes: &[u8], number: u64, key: &Secret32) -> Option<Self> {
        let bytes: &[u8; SLOT_LEN] = bytes.try_into().ok()?;
        let (fields, hash) = bytes.split_at(FIELDS_LEN);
        if slot_hash(number, fields, key) != hash {
            return None;
        }
        let (id, rest) = fields.split_first_chunk()?;
        let (tag, rest) = rest.split_first_chunk()?;
        let (nonce, rest) = rest.split_first_chunk()?;
        let wrapped = Wrapped { tag: *tag, nonce: *nonce, key: *rest.first_chunk()? };
        let erased = fields[16..].iter().all(|&byte| byte == 0);
        Some(Self { id: Id(*id), wrapped: (!erased).then_some(wrapped) })
    }
}

fn slot_hash(number: u64, fields: &[u8], key: &Secret32) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_keyed(key.expose());
    hasher.update(&number.to_be_bytes());
    hasher.update(fields);
    *hasher.finalize().as_bytes()
}

fn header(key: &Secret32) -> [u8; HEADER_LEN] {
    let mut out = [0; HEADER_LEN];
    out[..8].copy_from_slice(MAGIC);
    out[8..].copy_from_slice(blake3::keyed_hash(key.expose(), MAGIC).as_bytes());
    out
}

fn offset_of(slot: u64) -> u64 {
    HEADER_LEN as u64 + slot * SLOT_LEN as u64
}

/// The two files, open for writing.
pub(super) struct Pair {
    files: [Box<dyn DiskFile>; 2],
    key: Secret32,
}

/// What opening the two files found.
pub(super) struct Opened {
    pub(super) pair: Pair,
    /// Slots that one file lacked, and the other gave back.
    pub(super) repaired: u64,
}

/// One of the two files as it is found.
struct Side {
    /// None: there is no such file.
    file: Option<Box<dyn DiskFile>>,
    len: u64,
    head: Vec<u8>,
}

impl Side {
    fn open(disk: &dyn Disk, path: &Path) -> io::Result<Self> {
        let file = match disk.open(path, Open::Read) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Self { file: None, len: 0, head: Vec::new() });
            }
            Err(error) => return Err(error),
        };
        let len = file.len()?;
        let mut head = vec![0; HEADER_LEN.min(len as usize)];
        file.read_exact_at(&mut head, 0)?;
        Ok(Self { file: Some(file), len, head })
    }

    /// Number of slots that were begun.
    fn slots(&self) -> u64 {
        self.len.saturating_sub(HEADER_LEN as u64).div_ceil(SLOT_LEN as u64)
    }

    /// The bytes of up to `count` slots from `first`, as far as the file goes.
    fn bytes(&self, first: u64, count: u64) -> io::Result<Vec<u8>> {
        let end = offset_of(first + count).min(self.len);
        let mut bytes = vec![0; end.saturating_sub(offset_of(first)) as usize];
        match &self.file {
            Some(file) if !bytes.is_empty() => file.read_exact_at(&mut bytes, offset_of(first))?,
            Some(_) | None => (),
        }
        Ok(bytes)
    }
}

/// Which slots have to be written again.
struct Survey {
    slots: u64,
    /// By file.
    wrong: [Vec<u64>; 2],
}

impl Survey {
    /// Counts a slot, and notes where it has to be written again.
    fn compare(&mut self, number: u64, slot: &Slot, found: [Option<&[u8]>; 2], key: &Secret32) {
        self.slots += 1;
        // The usual case, without another hash.
        if found[0] == found[1] {
            return;
        }
        let whole = slot.encode(number, key);
        for (wrong, found) in self.wrong.iter_mut().zip(found) {
            if found != Some(whole.as_slice()) {
                wrong.push(number);
            }
        }
    }
}

/// Goes through both files and shows every slot to `visit`; none if one that was
/// acknowledged is in neither. Changes nothing.
fn survey(
    sides: &[Side; 2],
    key: &Secret32,
    visit: &mut dyn FnMut(u64, Slot),
) -> io::Result<Option<Survey>> {
    let mut survey = Survey { slots: 0, wrong: [Vec::new(), Vec::new()] };
    let most = sides[0].slots().max(sides[1].slots());
    for first in (0..most).step_by(STEP as usize) {
        let pages = [sides[0].bytes(first, STEP)?, sides[1].bytes(first, STEP)?];
        for number in first..most.min(first + STEP) {
            let at = (number - first) as usize * SLOT_LEN;
            let found = pages
                .each_ref()
                .map(|page| page.get(at..).map(|rest| &rest[..rest.len().min(SLOT_LEN)]));
            let found = found.map(|bytes| bytes.filter(|bytes| !bytes.is_empty()));
            match merged(number, found, key) {
                Merged::Slot(slot) => {
                    survey.compare(number, &slot, found, key);
                    visit(number, slot);
                }
                Merged::End => return Ok(Some(survey)),
                Merged::Lost => return Ok(None),
            }
        }
    }
    Ok(Some(survey))
}

/// What both files together say of one slot.
enum Merged {
    Slot(Slot),
    /// It was never acknowledged, nor was what may stand behind it.
    End,
    /// It was acknowledged, and is in neither.
    Lost,
}

fn merged(number: u64, found: [Option<&[u8]>; 2], key: &Secret32) -> Merged {
    if let [Some(one), Some(two)] = found
        && one == two
    {
        return Slot::decode(one, number, key).map_or(Merged::Lost, Merged::Slot);
    }
    let decoded = found.map(|bytes| bytes.map(|bytes| Slot::decode(bytes, number, key)));
    match decoded {
        [Some(Some(one)), Some(Some(two))] => same(one, two).map_or(Merged::Lost, Merged::Slot),
        [Some(Some(slot)), Some(None) | None] | [Some(None) | None, Some(Some(slot))] => {
            Merged::Slot(slot)
        }
        // Not whole, and the second file was not begun.
        [Some(None), None] => Merged::End,
        [Some(None) | None, Some(None)] | [None, None] => Merged::Lost,
    }
}

/// The one that counts of two whole slots: an erasure that was begun is finished.
fn same(one: Slot, two: Slot) -> Option<Slot> {
    if one.id != two.id {
        return None;
    }
    match (&one.wrapped, &two.wrapped) {
        (None, _) => Some(one),
        (_, None) => Some(two),
        (Some(left), Some(right)) => (left == right).then_some(one),
    }
}

/// The two files as they are found, and what is to be written again of them.
struct Surveyed {
    sides: [Side; 2],
    survey: Survey,
}

/// The two files, in the order in which they are written.
const PARTS: [Part; 2] = [Part::Subjects, Part::Mirror];

/// Reads both files through and shows every slot to `visit`; none where neither
/// is there and one must be. Changes nothing.
fn surveyed(
    disk: &dyn Disk,
    dir: &Path,
    key: &Secret32,
    expect: Expect,
    visit: &mut dyn FnMut(u64, Slot),
) -> Result<Option<Surveyed>, KeyError> {
    let [first, second] = PARTS;
    let side = |part: Part| Side::open(disk, &dir.join(part.file_name())).map_err(part.io(dir));
    let sides = [side(first)?, side(second)?];
    let none = sides.iter().all(|side| side.file.is_none());
    if none && expect == Expect::Existing {
        return Ok(None);
    }
    let head = header(key);
    if !none && !sides.iter().any(|side| side.head == head) {
        return Err(match sides.iter().any(|side| side.head.starts_with(MAGIC)) {
            true => KeyError::OtherKeys { path: dir.join(first.file_name()) },
            false => first.damaged(dir),
        });
    }
    let survey = survey(&sides, key, visit).map_err(first.io(dir))?;
    let survey = survey.ok_or_else(|| first.damaged(dir))?;
    Ok(Some(Surveyed { sides, survey }))
}

/// The two files, open for reading alone.
pub(super) struct Slots {
    sides: [Side; 2],
    key: Secret32,
}

impl Slots {
    /// Opens the two files in `dir`; none if there are none. Shows every slot to
    /// `visit`. What one file lacks is read from the other, and not repaired.
    pub(super) fn open(
        disk: &dyn Disk,
        dir: &Path,
        key: Secret32,
        visit: &mut dyn FnMut(u64, Slot),
    ) -> Result<Option<Self>, KeyError> {
        let surveyed = surveyed(disk, dir, &key, Expect::Existing, visit)?;
        Ok(surveyed.map(|Surveyed { sides, .. }| Self { sides, key }))
    }

    /// A slot, as both files together say; none if it is in neither.
    pub(super) fn read(&self, number: u64) -> io::Result<Option<Slot>> {
        let pages = [self.sides[0].bytes(number, 1)?, self.sides[1].bytes(number, 1)?];
        let found = pages.each_ref().map(|page| (!page.is_empty()).then_some(page.as_slice()));
        Ok(match merged(number, found, &self.key) {
            Merged::Slot(slot) => Some(slot),
            Merged::End | Merged::Lost => None,
        })
    }
}

impl Pair {
    /// Opens the two files in `dir`, makes what one lacks again from the other,
    /// and cuts what was never acknowledged. Shows every slot to `visit`.
    pub(super) fn open(
        disk: &dyn Disk,
        dir: &Path,
        key: Secret32,
        expect: Expect,
        visit: &mut dyn FnMut(u64, Slot),
    ) -> Result<Opened, KeyError> {
        let Some(Surveyed { sides, survey }) = surveyed(disk, dir, &key, expect, visit)? else {
            return Err(Part::Subjects.missing(dir));
        };
        let [first, second] = PARTS;
        let paths = PARTS.map(|part| dir.join(part.file_name()));
        // The second only after the first is synced: one of them is always whole.
        let repair = |index: usize| repair(disk, &paths[index], &sides, index, &survey, &key);
        let files = [repair(0).map_err(first.io(dir))?, repair(1).map_err(second.io(dir))?];
        let repaired = survey.wrong.iter().map(|wrong| wrong.len() as u64).sum();
        Ok(Opened { pair: Self { files, key }, repaired })
    }

    /// A slot, from whichever file has it whole; none if neither has.
    pub(super) fn read(&self, number: u64) -> io::Result<Option<Slot>> {
        for file in &self.files {
            let mut bytes = [0; SLOT_LEN];
            file.read_exact_at(&mut bytes, offset_of(number))?;
            if let Some(slot) = Slot::decode(&bytes, number, &self.key) {
                return Ok(Some(slot));
            }
        }
        Ok(None)
    }

    /// Writes `erased` slots and, from the slot `next` on, `added` ones. Durable
    /// on `Ok`. An error that says that there is no space came before any sync of
    /// what was to be written there.
    pub(super) fn write(&self, next: u64, added: &[Slot], erased: &[(u64, Id)]) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(added.len() * SLOT_LEN);
        for (number, slot) in (next..).zip(added) {
            bytes.extend(slot.encode(number, &self.key));
        }
        for file in &self.files {
            if !bytes.is_empty() {
                file.write_at(&bytes, offset_of(next))?;
            }
            for &(number, id) in erased {
                let slot = Slot { id, wrapped: None }.encode(number, &self.key);
                file.write_at(&slot, offset_of(number))?;
            }
            // Whatever a failed sync says of its cause, it is never tried again.
            file.sync_data().map_err(io::Error::other)?;
        }
        Ok(())
    }

    /// Takes back slots from `next` on that were written in part.
    pub(super) fn cut(&self, next: u64) -> io::Result<()> {
        // The second first: what it holds counts as acknowledged.
        for file in self.files.iter().rev() {
            file.set_len(offset_of(next))?;
            file.sync_data()?;
        }
        Ok(())
    }
}

/// Brings the file `index` to what the survey says, and syncs it.
fn repair(
    disk: &dyn Disk,
    path: &Path,
    sides: &[Side; 2],
    index: usize,
    survey: &Survey,
    key: &Secret32,
) -> io::Result<Box<dyn DiskFile>> {
    let (side, head) = (&sides[index], header(key));
    if side.file.is_none() {
        disk::write_atomically(disk, path, &head, Privacy::Private)?;
    }
    let file = disk.open(path, Open::Write)?;
    if side.file.is_some() && side.head != head {
        file.write_at(&head, 0)?;
    }
    for &number in &survey.wrong[index] {
        // As they were found, or as the first was repaired: the same comes of it.
        let pages = [sides[0].bytes(number, 1)?, sides[1].bytes(number, 1)?];
        let found = pages.each_ref().map(|page| (!page.is_empty()).then_some(page.as_slice()));
        let Merged::Slot(slot) = merged(number, found, key) else {
            return Err(io::Error::other("the file changed while it was read"));
        };
        file.write_at(&slot.encode(number, key), offset_of(number))?;
    }
    if side.len > offset_of(survey.slots) {
        file.set_len(offset_of(survey.slots))?;
    }
    // Also where nothing differs: what was read may stand in memory only.
    file.sync_all()?;
    Ok(file)
}
