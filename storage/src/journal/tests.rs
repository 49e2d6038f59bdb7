//! The journal against damage at every byte.

use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::conformance::{all, block_after, check, check_failed, check_full, fill};
use crate::disk::{MemoryDisk, RecordingDisk};
use crate::memory::MemoryLog;

#[derive(Default)]
struct Counter(AtomicU64);

impl Entropy for Counter {
    fn fill(&self, out: &mut [u8]) {
        let seed = self.0.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        blake3::Hasher::new().update(&seed).finalize_xof().fill(out);
    }
}

const DIR: &str = "/data/log";
const SMALL: Options = Options {
    limits: Limits { records: 5, bytes: 4096 },
    check: Check::All,
    reserve: Reserve::Inline,
};

fn open(disk: Arc<dyn Disk>, witness: &dyn Witness) -> Result<(Journal, Recovery), OpenError> {
    Journal::open(disk, Path::new(DIR), "test", SMALL, witness, &Counter::default())
}

fn plain(disk: &MemoryDisk) -> Result<(Journal, Recovery), OpenError> {
    open(Arc::new(disk.clone()), &NoWitness)
}

/// A second copy with everything.
struct Copy(MemoryLog);

impl Witness for Copy {
    fn known_heads(&self) -> Vec<KnownHead> {
        let Head { size, chain } = self.0.head();
        vec![KnownHead { source: "the copy".into(), size, chain: Some(chain) }]
    }

    fn records(&self, from: Position, limit: usize) -> Vec<Vec<u8>> {
        self.0.read(from, limit).unwrap()
    }
}

fn copy(counts: &[u64]) -> Copy {
    let mut log = MemoryLog::new("test");
    fill(&mut log, counts);
    Copy(log)
}

fn journal(counts: &[u64]) -> (MemoryDisk, Vec<Vec<u8>>) {
    let disk = MemoryDisk::default();
    let (mut journal, recovery) = plain(&disk).unwrap();
    assert!(recovery.created);
    let records = fill(&mut journal, counts);
    (disk, records)
}

fn clone_of(disk: &MemoryDisk) -> MemoryDisk {
    let clone = MemoryDisk::default();
    for (path, bytes) in disk.files() {
        clone.put_file(&path, bytes);
    }
    clone
}

fn last_segment(disk: &MemoryDisk) -> (PathBuf, Vec<u8>) {
    disk.files()
        .into_iter()
        .rfind(|(path, _)| path.extension().is_some_and(|e| e == "ktj"))
        .unwrap()
}

#[test]
fn the_journal_does_what_every_log_does() {
    check(&mut plain(&MemoryDisk::default()).unwrap().0);
    let ahead = Options { reserve: Reserve::Ahead, ..SMALL };
    let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::default());
    let opened =
        Journal::open(disk, Path::new(DIR), "test", ahead, &NoWitness, &Counter::default());
    check(&mut opened.unwrap().0);
}

#[test]
fn a_log_that_was_being_made_is_made_and_one_without_segments_is_refused() {
    let disk = RecordingDisk::new(Arc::new(MemoryDisk::default()));
    open(Arc::new(disk.clone()), &NoWitness).unwrap();
    let recording = disk.recording();
    let mut choose = chance();
    for point in 0..=recording.ops.len() {
        for _ in 0..20 {
            let left = recording.after_power_cut(point, &mut choose);
            let (mut journal, _) = plain(&left).unwrap();
            fill(&mut journal, &[1]);
            drop(journal);
            assert_eq!(all(&plain(&left).unwrap().0).unwrap().len(), 1);
        }
    }
    let (disk, _) = journal(&[]);
    disk.remove(&last_segment(&disk).0).unwrap();
    assert!(matches!(plain(&disk), Err(OpenError::Damaged(_))));
    let reader = JournalReader::open(Arc::new(disk), Path::new(DIR)).unwrap();
    let items: Vec<_> = reader.items(Position(0)).map(Result::unwrap).collect();
    assert!(matches!(&items[..], [Item::Finding(finding)] if finding.what.is_damage()));
}

#[test]
fn the_journal_on_a_real_disk_is_the_same_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let open = || {
        let disk = Arc::new(crate::disk::RealDisk);
        let dir = dir.path().join("log");
        Journal::open(disk, &dir, "test", SMALL, &NoWitness, &Counter::default()).unwrap()
    };
    let (mut journal, _) = open();
    let records = fill(&mut journal, &[1, 4, 3, 3, 1, 6, 2]);
    let (head, sealed) = (journal.head(), journal.sealed());
    assert_eq!(sealed, vec![(Position(0), 5), (Position(5), 6), (Position(11), 7)]);
    drop(journal);
    let (mut journal, recovery) = open();
    assert_eq!((recovery, journal.head()), (Recovery::default(), head));
    assert_eq!(all(&journal).unwrap(), records);
    fill(&mut journal, &[4]);
    assert_eq!(journal.head().size, head.size + 4);
}

#[test]
fn a_last_group_that_stopped_at_any_byte_is_cut_whole() {
    let (disk, records) = journal(&[2, 1]);
    let (path, before) = last_segment(&disk);
    let (mut journal, _) = plain(&disk).unwrap();
    fill(&mut journal, &[1]);
    let (_, after) = last_segment(&disk);
    let start = before.iter().zip(&after).position(|(a, b)| a != b).unwrap();
    let end = before.iter().zip(&after).rposition(|(a, b)| a != b).unwrap();
    for stop in start..end {
        let disk = clone_of(&disk);
        let torn = [&after[..=stop], &before[stop + 1..]].concat();
        disk.put_file(&path, torn);
        let (mut journal, recovery) = plain(&disk).unwrap();
        assert!(recovery.cut.is_some(), "at {stop}");
        assert_eq!(all(&journal).unwrap(), records, "at {stop}");
        assert_eq!(last_segment(&disk).1, before, "at {stop}");
        fill(&mut journal, &[1]);
    }
}

#[test]
fn a_file_that_ends_at_any_byte_is_restored_or_refused() {
    let counts = [2, 1, 1];
    let (disk, records) = journal(&counts);
    let (path, whole) = last_segment(&disk);
    for len in 0..whole.len() {
        let disk = clone_of(&disk);
        disk.put_file(&path, whole[..len].to_vec());
        assert!(matches!(plain(&disk), Err(OpenError::Damaged(_))), "{len} bytes");
        let (journal, recovery) = open(Arc::new(disk), &copy(&counts)).unwrap();
        assert!(!recovery.repaired.is_empty(), "{len} bytes");
        assert_eq!(all(&journal).unwrap(), records, "{len} bytes");
    }
}

#[test]
fn a_changed_byte_anywhere_is_repaired_and_never_loses_a_record() {
    let counts = [3, 2, 2, 1];
    let (disk, records) = journal(&counts);
    for (path, whole) in disk.files() {
        if path.extension().is_none_or(|extension| extension != "ktj") {
            continue;
        }
        for at in 0..whole.len() {
            let disk = clone_of(&disk);
            let mut bytes = whole.clone();
            bytes[at] ^= 0x40;
            disk.put_file(&path, bytes);
            let (journal, recovery) = open(Arc::new(disk.clone()), &copy(&counts)).unwrap();
            assert_ne!(recovery, Recovery::default(), "{} at {at}", path.display());
            assert_eq!(all(&journal).unwrap(), records, "{} at {at}", path.display());
            drop(journal);
            let (_, again) = plain(&disk).unwrap();
            assert_eq!(again, Recovery::default(), "{} at {at}", path.display());
        }
    }
}

#[test]
fn a_missing_segment_is_restored_or_refused() {
    let counts = [5, 6, 5, 2];
    let (disk, records) = journal(&counts);
    let sealed = plain(&disk).unwrap().0.sealed();
    for (first, _) in sealed {
        let disk = clone_of(&disk);
        disk.remove(&Path::new(DIR).join(segment_name(first))).unwrap();
        assert!(matches!(plain(&disk), Err(OpenError::Damaged(_))));
        let (journal, recovery) = open(Arc::new(disk), &copy(&counts)).unwrap();
        assert!(recovery.restored_records >= 5);
        assert_eq!(all(&journal).unwrap(), records);
    }
    disk.remove(&last_segment(&disk).0).unwrap();
    let refused = plain(&disk).err().unwrap();
    assert!(
        matches!(refused, OpenError::Damaged(_)),
        "a sealed segment is not the last: {refused}"
    );
    let reader = JournalReader::open(Arc::new(disk.clone()), Path::new(DIR)).unwrap();
    let last = reader.items(Position(0)).last().unwrap().unwrap();
    assert!(matches!(last, Item::Finding(finding) if finding.what.is_damage()));
    let (journal, recovery) = open(Arc::new(disk), &copy(&counts)).unwrap();
    assert_eq!(recovery.restored_records, 2);
    assert_eq!(all(&journal).unwrap(), records);
}

/// Knows a head and has no records.
struct Remembers(KnownHead);

impl Witness for Remembers {
    fn known_heads(&self) -> Vec<KnownHead> {
        vec![self.0.clone()]
    }

    fn records(&self, _from: Position, _limit: usize) -> Vec<Vec<u8>> {
        Vec::new()
    }
}

#[test]
fn a_log_behind_or_beside_a_known_head_is_refused() {
    let (disk, _) = journal(&[2, 1]);
    let known = |size, chain| Remembers(KnownHead { source: "a checkpoint".into(), size, chain });
    let disk: Arc<dyn Disk> = Arc::new(disk);
    let behind = open(Arc::clone(&disk), &known(4, None)).err().unwrap();
    assert!(matches!(behind, OpenError::Lost { size: 3, .. }), "{behind}");
    let beside = open(Arc::clone(&disk), &known(2, Some([9; 32]))).err().unwrap();
    assert!(matches!(beside, OpenError::Diverged { .. }), "{beside}");
    open(disk, &known(3, None)).unwrap();
}

#[test]
fn a_segment_of_another_log_is_refused() {
    let (disk, _) = journal(&[2]);
    disk.put_file(&Path::new(DIR).join("origin"), b"another\n".to_vec());
    assert!(matches!(plain(&disk), Err(OpenError::Damaged(_))));
    disk.put_file(&Path::new(DIR).join("origin"), b"no end".to_vec());
    assert!(matches!(plain(&disk), Err(OpenError::Origin { .. })));
    disk.remove(&Path::new(DIR).join("origin")).unwrap();
    assert!(matches!(plain(&disk), Err(OpenError::Origin { .. })));
}

#[test]
fn lengths_in_a_group_header_are_bounded_before_they_are_used() {
    let key = [7; 32];
    let block = block_after(&Head { size: 0, chain: [0; 32] }, 1, 1);
    let good = format::GroupHeader::of(&block, &key);
    for (count, len, first) in [(0, 1, 0), (1, u32::MAX, 0), (2, 1, u64::MAX - 1)] {
        let hostile = format::GroupHeader { count, len, first: Position(first), ..good.clone() };
        let mut bytes = Vec::new();
        hostile.encode(&key, &mut bytes);
        assert_eq!(format::GroupHeader::decode(&bytes, &key), None);
    }
}

#[test]
fn a_group_inside_a_record_is_not_taken_for_one() {
    let (disk, _) = journal(&[1]);
    let (path, mut bytes) = last_segment(&disk);
    let block = block_after(&Head { size: 9, chain: [0; 32] }, 1, 1);
    let forged = segment::group_bytes(&block, &[0; 32]);
    let end = bytes.len() - 1000;
    bytes[end..end + forged.len()].copy_from_slice(&forged);
    disk.put_file(&path, bytes);
    let (journal, recovery) = plain(&disk).unwrap();
    assert!(recovery.cut.is_some());
    assert_eq!(journal.head().size, 1);
}

#[test]
fn a_full_disk_refuses_appends_and_takes_them_again_when_there_is_room() {
    let (disk, _) = journal(&[5]);
    let (mut journal, _) = plain(&disk).unwrap();
    disk.set_capacity(Some(disk.used() + 100));
    check_full(&mut journal);
    assert!(matches!(journal.space(), Space::Short(_)));
    disk.set_capacity(None);
    fill(&mut journal, &[1]);
    assert_eq!(journal.space(), Space::Reserved);
}

#[test]
fn after_a_failed_sync_nothing_is_appended_or_read_beyond_the_durable_head() {
    let (disk, records) = journal(&[2]);
    let (mut journal, _) = plain(&disk).unwrap();
    disk.fail_syncs_after(0);
    check_failed(&mut journal);
    assert_eq!(all(&journal).unwrap(), records);
}

#[test]
fn a_full_segment_is_not_sealed_where_its_successor_finds_no_space() {
    let (disk, records) = journal(&[5]);
    let (mut journal, _) = plain(&disk).unwrap();
    disk.set_names_full(true);
    // `reserve.tmp` is a name too, so it is there before.
    disk.put_file(&Path::new(DIR).join("reserve.tmp"), Vec::new());
    check_full(&mut journal);
    assert!(journal.sealed().is_empty());
    drop(journal);
    let (mut journal, recovery) = plain(&disk).unwrap();
    assert_eq!((recovery, all(&journal).unwrap()), (Recovery::default(), records));
    disk.set_names_full(false);
    fill(&mut journal, &[1]);
    assert_eq!(journal.sealed(), [(Position(0), 5)]);
}

#[test]
fn sealing_that_stopped_anywhere_is_finished_and_nothing_is_called_damaged() {
    let inner = MemoryDisk::default();
    let disk = RecordingDisk::new(Arc::new(inner));
    let (mut journal, _) = open(Arc::new(disk.clone()), &NoWitness).unwrap();
    let mut records = fill(&mut journal, &[5]);
    let before = disk.recording().ops.len();
    records.extend(fill(&mut journal, &[1]));
    let recording = disk.recording();
    // Whatever the order of pages: every byte of the seal may be the last one.
    let seal = recording.ops[before..]
        .iter()
        .position(
            |op| matches!(op, crate::disk::Op::Write(.., bytes) if bytes.starts_with(b"KTSEALED")),
        )
        .unwrap();
    for torn in 0..=format::SEAL_LEN {
        let left = recording.after_power_cut(before + seal, &mut |n| n - 1);
        let path = Path::new(DIR).join(segment_name(Position(0)));
        let mut bytes = left.files()[&path].clone();
        if let crate::disk::Op::Write(_, at, seal) = &recording.ops[before + seal] {
            let at = *at as usize;
            bytes[at..at + torn].copy_from_slice(&seal[..torn]);
        }
        left.put_file(&path, bytes);
        let reader = JournalReader::open(Arc::new(left.clone()), Path::new(DIR)).unwrap();
        assert!(reader.items(Position(0)).all(|item| match item.unwrap() {
            Item::Block(_) => true,
            Item::Finding(finding) => !finding.what.is_damage(),
        }));
        let (mut journal, recovery) = plain(&left).unwrap();
        assert_eq!(recovery, Recovery::default(), "{torn}");
        assert_eq!(journal.sealed(), [(Position(0), 5)], "{torn}");
        assert_eq!(all(&journal).unwrap(), records[..5], "{torn}");
        fill(&mut journal, &[1]);
        drop(journal);
        assert_eq!(plain(&left).unwrap().1, Recovery::default(), "{torn}");
    }
}

#[test]
fn a_reader_reports_damage_and_goes_on_behind_it() {
    let (disk, _) = journal(&[3, 2, 2, 1]);
    let read = |disk: &MemoryDisk| {
        let reader = JournalReader::open(Arc::new(disk.clone()), Path::new(DIR)).unwrap();
        assert_eq!(reader.origin(), "test");
        reader.items(Position(0)).collect::<io::Result<Vec<_>>>().unwrap()
    };
    let whole = read(&disk);
    assert_eq!(whole.len(), 4);
    assert!(whole.iter().all(|item| matches!(item, Item::Block(_))));
    let path = Path::new(DIR).join(segment_name(Position(0)));
    let mut bytes = disk.files()[&path].clone();
    bytes[format::GROUPS_AT as usize + GROUP_HEADER_LEN] ^= 1;
    disk.put_file(&path, bytes);
    let damaged = read(&disk);
    assert!(matches!(&damaged[0], Item::Finding(finding) if finding.what.is_damage()));
    assert_eq!(damaged.iter().filter(|item| matches!(item, Item::Block(_))).count(), 3);
}

/// Chance that is the same in every run.
fn chance() -> impl FnMut(usize) -> usize {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    move |n| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as usize % n
    }
}

/// Opens what a power cut left, which needs no second copy, and holds it to the
/// first `noted` of `records`.
#[track_caller]
fn holds(disk: Arc<dyn Disk>, records: &[Vec<u8>], noted: usize) -> Journal {
    let (journal, recovery) = open(disk, &NoWitness).unwrap();
    let found = all(&journal).unwrap();
    assert!(found.len() >= noted, "{} of {noted}", found.len());
    assert_eq!(found, records[..found.len()]);
    assert!(recovery.repaired.is_empty(), "{recovery:?}");
    journal
}

#[test]
fn a_power_cut_at_any_operation_loses_nothing_that_was_acknowledged() {
    let disk = RecordingDisk::new(Arc::new(MemoryDisk::default()));
    let (mut journal, _) = open(Arc::new(disk.clone()), &NoWitness).unwrap();
    let mut records = Vec::new();
    for (index, count) in [1, 2, 2, 6, 1, 3, 4].into_iter().enumerate() {
        let head = journal.head();
        let block = block_after(&head, count, index as u8 + 1);
        journal.append(&head, &block).unwrap();
        records.extend(block.records().map(<[u8]>::to_vec));
        disk.note(journal.head().size);
    }
    let recording = disk.recording();
    let mut choose = chance();
    for point in 0..=recording.ops.len() {
        let noted = recording.noted(point).unwrap_or(0) as usize;
        for sample in 0..40 {
            let left = recording.after_power_cut(point, &mut choose);
            let again = RecordingDisk::on(&left);
            let mut journal = holds(Arc::new(again.clone()), &records, noted);
            let acknowledged = all(&journal).unwrap().len();
            let opened = again.recording().ops.len();
            fill(&mut journal, &[1]);
            if sample >= 4 {
                continue;
            }
            // Opening is cut off as well; what it gave back counts when it is done.
            let repair = again.recording();
            for point in 0..=opened {
                let noted = if point == opened { acknowledged } else { noted };
                let left = repair.after_power_cut(point, &mut choose);
                fill(&mut holds(Arc::new(left), &records, noted), &[1]);
            }
        }
    }
}

#[test]
fn what_is_read_after_the_death_of_the_process_survives_a_power_cut_after_it() {
    let disk = RecordingDisk::new(Arc::new(MemoryDisk::default()));
    let (mut journal, _) = open(Arc::new(disk.clone()), &NoWitness).unwrap();
    let records = fill(&mut journal, &[3, 2, 1, 5, 1]);
    let recording = disk.recording();
    let mut choose = chance();
    for point in 0..=recording.ops.len() {
        let died = recording.after_death(point);
        let journal = holds(Arc::new(died.clone()), &records, 0);
        let read = all(&journal).unwrap().len();
        let after = died.recording();
        for _ in 0..10 {
            let left = after.after_power_cut(after.ops.len(), &mut choose);
            holds(Arc::new(left), &records, read);
        }
    }
}

#[test]
fn a_power_cut_while_damage_is_repaired_loses_nothing() {
    let counts = [3, 2, 4, 2, 1];
    let (disk, records) = journal(&counts);
    let segments: Vec<_> =
        disk.files().into_keys().filter(|path| path.extension() == Some("ktj".as_ref())).collect();
    assert_eq!(segments.len(), 3);
    let mut choose = chance();
    for path in &segments {
        for harm in 0..4 {
            let harmed = disk.copy();
            let mut bytes = harmed.files()[path].clone();
            match harm {
                0 => bytes[format::GROUPS_AT as usize + GROUP_HEADER_LEN + 7] ^= 1,
                1 => bytes[format::GROUPS_AT as usize + 9] ^= 1,
                _ => bytes.truncate(1_300),
            }
            harmed.put_file(path, bytes);
            if harm == 3 {
                harmed.remove(path).unwrap();
            }
            let repaired = RecordingDisk::on(&harmed);
            let opened = open(Arc::new(repaired.clone()), &copy(&counts)).unwrap();
            assert_eq!(all(&opened.0).unwrap(), records);
            let repair = repaired.recording();
            for point in 0..=repair.ops.len() {
                for _ in 0..8 {
                    let left = repair.after_power_cut(point, &mut choose);
                    // Without the second copy it is all there, or it says no. Only
                    // damage in the very last group looks like one that was torn.
                    let looks_torn = harm < 2 && Some(path) == segments.last();
                    if !looks_torn && let Ok((journal, _)) = plain(&left.copy()) {
                        let found = all(&journal).unwrap();
                        assert!(found == records, "{harm} {} at {point}", path.display());
                    }
                    let (journal, _) = open(Arc::new(left), &copy(&counts)).unwrap();
                    assert_eq!(all(&journal).unwrap(), records, "{harm} at {point}");
                }
            }
        }
    }
}

#[test]
fn segments_that_the_second_copy_gives_back_are_all_there_or_missed() {
    let counts = [3, 2, 4, 2, 5, 6, 2];
    let (disk, records) = journal(&counts);
    let segments: Vec<_> =
        disk.files().into_keys().filter(|path| path.extension() == Some("ktj".as_ref())).collect();
    assert_eq!(segments.len(), 5);
    let mut choose = chance();
    for kept in 0..segments.len() {
        let harmed = disk.copy();
        segments[kept..].iter().for_each(|path| harmed.remove(path).unwrap());
        let repaired = RecordingDisk::on(&harmed);
        let opened = open(Arc::new(repaired.clone()), &copy(&counts)).unwrap();
        assert_eq!(all(&opened.0).unwrap(), records);
        assert!(opened.0.sealed().len() >= 3, "in several files: {:?}", opened.0.sealed());
        let repair = repaired.recording();
        for point in 0..=repair.ops.len() {
            for _ in 0..8 {
                let left = repair.after_power_cut(point, &mut choose);
                if let Ok((journal, _)) = plain(&left.copy()) {
                    assert!(all(&journal).unwrap() == records, "{kept} at {point}");
                }
                let (journal, _) = open(Arc::new(left), &copy(&counts)).unwrap();
                assert_eq!(all(&journal).unwrap(), records, "{kept} at {point}");
            }
        }
    }
}
