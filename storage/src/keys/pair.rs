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
use std::path::{Path, PathBuf};

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
    /// Every slot, by its number.
    pub(super) slots: Vec<Slot>,
    /// Slots that one file lacked, and the other gave back.
    pub(super) repaired: u64,
}

/// What one of the two files holds.
struct Copy {
    /// None: there is no such file.
    bytes: Option<Vec<u8>>,
    /// None: a slot that is not whole.
    slots: Vec<Option<Slot>>,
}

impl Copy {
    fn read(disk: &dyn Disk, path: &Path, key: &Secret32) -> io::Result<Self> {
        let bytes = match disk.read(path, u64::MAX) {
            Ok(bytes) => Some(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let chunks = bytes.as_deref().and_then(|bytes| bytes.get(HEADER_LEN..)).unwrap_or(&[]);
        let slots = (0..)
            .zip(chunks.chunks(SLOT_LEN))
            .map(|(number, bytes)| Slot::decode(bytes, number, key))
            .collect();
        Ok(Self { bytes, slots })
    }

    fn begins_with(&self, start: &[u8]) -> bool {
        self.bytes.as_deref().is_some_and(|bytes| bytes.starts_with(start))
    }

    /// Writes what differs from `wanted` and syncs; returns how many slots did.
    fn bring_to(&self, file: &dyn DiskFile, wanted: &[u8]) -> io::Result<u64> {
        let have = self.bytes.as_deref().unwrap_or(&[]);
        let (head, slots) = wanted.split_at(HEADER_LEN);
        if !have.starts_with(head) {
            file.write_at(head, 0)?;
        }
        let mut changed = 0;
        for (number, slot) in (0..).zip(slots.chunks(SLOT_LEN)) {
            let at = offset_of(number);
            if have.get(at as usize..at as usize + SLOT_LEN) != Some(slot) {
                file.write_at(slot, at)?;
                changed += 1;
            }
        }
        if have.len() > wanted.len() {
            file.set_len(wanted.len() as u64)?;
        }
        // Also where nothing differs: what was read may stand in memory only.
        file.sync_all()?;
        Ok(changed)
    }
}

impl Pair {
    /// Opens the two files in `dir`, makes what one lacks again from the other,
    /// and cuts what was never acknowledged.
    pub(super) fn open(
        disk: &dyn Disk,
        dir: &Path,
        key: Secret32,
        expect: Expect,
    ) -> Result<Opened, KeyError> {
        let part = Part::Subjects;
        let paths = [part, Part::Mirror].map(|part| dir.join(part.file_name()));
        let read = |path: &PathBuf| Copy::read(disk, path, &key).map_err(part.io(dir));
        let copies = [read(&paths[0])?, read(&paths[1])?];
        if copies.iter().all(|copy| copy.bytes.is_none()) && expect == Expect::Existing {
            return Err(part.missing(dir));
        }
        let head = header(&key);
        if copies.iter().any(|copy| copy.bytes.is_some())
            && !copies.iter().any(|copy| copy.begins_with(&head))
        {
            return Err(match copies.iter().any(|copy| copy.begins_with(MAGIC)) {
                true => KeyError::OtherKeys { path: paths[0].clone() },
                false => part.damaged(dir),
            });
        }
        let slots = merged(&copies).ok_or_else(|| part.damaged(dir))?;
        let mut wanted = head.to_vec();
        for (number, slot) in (0..).zip(&slots) {
            wanted.extend(slot.encode(number, &key));
        }
        let mut repaired = 0;
        // The second only after the first is synced: one of them is always whole.
        let mut repair = |index: usize| -> io::Result<Box<dyn DiskFile>> {
            let copy = &copies[index];
            if copy.bytes.is_none() {
                disk::write_atomically(disk, &paths[index], &head, Privacy::Private)?;
            }
            let file = disk.open(&paths[index], Open::Write)?;
            repaired += copy.bring_to(file.as_ref(), &wanted)?;
            Ok(file)
        };
        let files = [repair(0).map_err(part.io(dir))?, repair(1).map_err(Part::Mirror.io(dir))?];
        Ok(Opened { pair: Self { files, key }, slots, repaired })
    }

    /// Writes `erased` slots and, from the slot `next` on, `added` ones. Durable
    /// on `Ok`. An error that says that there is no space came before any sync of
    /// what was to be written there.
    pub(super) fn write(&self, next: u64, added: &[&Slot], erased: &[(u64, Id)]) -> io::Result<()> {
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

/// The slots that both files together prove; none if one that was acknowledged
/// is in neither.
fn merged(copies: &[Copy; 2]) -> Option<Vec<Slot>> {
    let [first, second] = copies;
    let mut slots = Vec::new();
    for number in 0..first.slots.len().max(second.slots.len()) {
        let slot = match (first.slots.get(number), second.slots.get(number)) {
            (Some(Some(one)), Some(Some(two))) => same(one, two)?,
            (Some(Some(slot)), Some(None) | None) | (Some(None) | None, Some(Some(slot))) => slot,
            // Not whole, and the second file was not begun: nobody was told of
            // it, nor of what may stand behind it.
            (Some(None), None) => break,
            (Some(None) | None, Some(None)) | (None, None) => return None,
        };
        slots.push(slot.clone());
    }
    Some(slots)
}

/// The one that counts of two whole slots: an erasure that was begun is finished.
fn same<'a>(one: &'a Slot, two: &'a Slot) -> Option<&'a Slot> {
    if one.id != two.id {
        return None;
    }
    match (&one.wrapped, &two.wrapped) {
        (None, _) => Some(one),
        (_, None) => Some(two),
        (Some(left), Some(right)) => (left == right).then_some(one),
    }
}
