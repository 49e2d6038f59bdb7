use std::collections::BTreeMap;
use std::fs;
use std::sync::Mutex;

use engine::ids::Id;
use proptest::prelude::*;

use super::*;
use crate::disk::{MemoryDisk, RecordingDisk};
use crate::fold::{FoldedState, fold_state};
use crate::memory::MemoryLog;
use crate::record;
use crate::sequencer::ExecuteError;
use crate::state::entry_key;
use crate::toy::{
    ADDED, Command, DEADLINE_PASSED, FORGOTTEN, Key, Kind, ORIGIN, Toy, World, counter, number_in,
    stream, tempdir,
};

const STREAMS: u8 = 4;

/// The fold of what the log holds.
fn folded(log: &MemoryLog) -> FoldedState<Toy> {
    let bytes = log.read(Position(0), usize::MAX).unwrap();
    let records: Vec<_> = bytes.iter().map(|bytes| record::decode(bytes).unwrap().0).collect();
    fold_state(&records).unwrap()
}

/// The counters, counted another way: stream by stream and backwards, from the
/// header fields and payloads alone, up to the last record that sets to zero.
fn counted(log: &MemoryLog) -> BTreeMap<Id, u64> {
    let records = log.read(Position(0), usize::MAX).unwrap();
    let mut counters = BTreeMap::new();
    for number in 1..=STREAMS {
        let stream = stream(number);
        let of_stream = records.iter().rev().filter(|bytes| bytes[40..56] == stream.0);
        let sum = of_stream
            .map(|bytes| (u16::from_be_bytes([bytes[2], bytes[3]]), &bytes[160..]))
            .take_while(|(event, _)| ![DEADLINE_PASSED, FORGOTTEN].contains(event))
            .filter(|(event, _)| *event == ADDED)
            .map(|(_, clear)| number_in(clear))
            .sum();
        counters.insert(stream, sum);
    }
    counters
}

#[track_caller]
fn check_against(store: &Running<Toy>, log: &MemoryLog) {
    let folded = folded(log);
    for (stream, sum) in counted(log) {
        assert_eq!(counter(&store.state, stream), sum);
    }
    assert_eq!(store.state.position().0, log.head().size);
    assert_eq!(store.queue.digest().unwrap(), (folded.position(), folded.digest()));
    let scanned = store.state.scan(&[], &[9], usize::MAX >> 1);
    let entries: Vec<_> = folded.entries().map(|(key, entry)| (*key, Arc::clone(entry))).collect();
    assert_eq!(scanned, entries);
    let all = store.log.read(Position(0), usize::MAX).unwrap();
    let raw = log.read(Position(0), usize::MAX).unwrap();
    let decoded = raw.iter().map(|bytes| record::decode(bytes).unwrap().0);
    assert!(all.iter().map(|record| (**record).clone()).eq(decoded));
}

fn fill(world: &World, store: &Running<Toy>, commands: u64) {
    for number in 0..commands {
        let stream = stream(1 + (number % u64::from(STREAMS)) as u8);
        match world.execute(&store.handle, Command::Add(stream, 1)) {
            Ok(_) => (),
            Err(ExecuteError::Refused(_)) => {
                world.execute(&store.handle, Command::Forget(stream)).unwrap();
            }
            Err(error) => panic!("{error}"),
        }
    }
}

fn stop(world: &World, store: Running<Toy>) {
    world.runtime.block_on(store.handle.stop()).unwrap();
    drop(store);
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for item in fs::read_dir(from).unwrap() {
        let item = item.unwrap();
        if item.file_type().unwrap().is_dir() {
            copy_folder(&item.path(), &to.join(item.file_name()));
        } else {
            fs::copy(item.path(), to.join(item.file_name())).unwrap();
        }
    }
}

fn replace_folder(from: &Path, to: &Path) {
    fs::remove_dir_all(to).unwrap();
    copy_folder(from, to);
}

fn db_file(world: &World) -> PathBuf {
    world.store_dir().join("sled").join("db")
}

#[test]
fn after_a_clean_stop_nothing_is_done_again() {
    let world = World::new();
    let log = MemoryLog::new(ORIGIN);
    let (store, first) = world.start(&log);
    assert_eq!(first.state_remade.as_deref(), Some("the store was new"));
    fill(&world, &store, 600);
    stop(&world, store);
    let (store, report) = world.start(&log);
    assert_eq!(report, OpenReport::default());
    check_against(&store, &log);
}

#[test]
fn a_clean_stop_is_trusted_under_another_boot_id() {
    let mut world = World::new();
    let log = MemoryLog::new(ORIGIN);
    let (store, _) = world.start(&log);
    fill(&world, &store, 20);
    stop(&world, store);
    world.options.boot_id = Some("two".into());
    let (store, report) = world.start(&log);
    assert_eq!(report, OpenReport::default());
    check_against(&store, &log);
}

#[test]
fn after_the_death_of_the_process_state_is_trusted_and_the_tail_replayed() {
    let world = World::new();
    let log = MemoryLog::new(ORIGIN);
    let (store, _) = world.start(&log);
    fill(&world, &store, 20);
    // Written behind, all of it; then nothing more.
    store.queue.digest().unwrap();
    store.queue.hold(true);
    fill(&world, &store, 5);
    drop(store);
    let (store, report) = world.start(&log);
    assert_eq!((report.state_remade, report.replayed, report.copied), (None, 5, 5));
    check_against(&store, &log);
}

#[test]
fn after_the_death_of_the_machine_state_is_made_again() {
    let mut world = World::new();
    let log = MemoryLog::new(ORIGIN);
    let (store, _) = world.start(&log);
    fill(&world, &store, 20);
    drop(store);
    world.options.boot_id = Some("two".into());
    let (store, report) = world.start(&log);
    assert!(report.state_remade.is_some());
    assert_eq!((report.replayed, report.from_snapshot), (20, None));
    check_against(&store, &log);
}

#[test]
fn where_the_kernel_has_no_name_only_a_clean_stop_is_trusted() {
    let mut world = World::new();
    world.options.boot_id = Some(String::new());
    let log = MemoryLog::new(ORIGIN);
    let (store, _) = world.start(&log);
    fill(&world, &store, 2);
    drop(store);
    let (store, report) = world.start(&log);
    assert!(report.state_remade.is_some());
    stop(&world, store);
    assert_eq!(world.start(&log).1, OpenReport::default());
}

#[test]
fn state_is_made_again_from_the_newest_snapshot_that_is_whole() {
    let mut world = World::new();
    world.options.snapshot_every = 50;
    let log = MemoryLog::new(ORIGIN);
    let (store, _) = world.start(&log);
    for _ in 0..4 {
        fill(&world, &store, 50);
        store.queue.digest().unwrap();
    }
    drop(store);
    let snapshots = crate::snapshot::all(&world.folder()).unwrap();
    assert_eq!(snapshots.len(), 2, "the last two are kept");
    let [(older, _), (newer, newer_path)] = &snapshots[..] else { panic!() };
    world.options.boot_id = Some("two".into());
    let (store, report) = world.start(&log);
    assert_eq!(report.from_snapshot, Some(Position(*newer)));
    check_against(&store, &log);
    drop(store);
    // One wrong byte, and it is dropped.
    let mut bytes = fs::read(newer_path).unwrap();
    bytes[70] ^= 1;
    fs::write(newer_path, &bytes).unwrap();
    world.options.boot_id = Some("three".into());
    let (store, report) = world.start(&log);
    assert_eq!(report.from_snapshot, Some(Position(*older)));
    // The next one may be there already, under the same name.
    assert_ne!(fs::read(newer_path).ok(), Some(bytes));
    check_against(&store, &log);
}

#[test]
fn a_snapshot_of_another_log_is_not_used() {
    let mut world = World::new();
    world.options.snapshot_every = 10;
    let log = MemoryLog::new(ORIGIN);
    let (store, _) = world.start(&log);
    fill(&world, &store, 20);
    stop(&world, store);
    // The same positions, another history.
    let other = MemoryLog::new(ORIGIN);
    let elsewhere = World::new();
    elsewhere.clock.pass(77);
    let (store, _) = elsewhere.start(&other);
    fill(&elsewhere, &store, 30);
    stop(&elsewhere, store);
    let (store, report) = world.start(&other);
    assert!(report.store_set_aside.is_some());
    assert_eq!(report.from_snapshot, None);
    check_against(&store, &other);
}

#[test]
fn a_deleted_sled_folder_is_made_again() {
    let world = World::new();
    let log = MemoryLog::new(ORIGIN);
    let (store, _) = world.start(&log);
    fill(&world, &store, 300);
    stop(&world, store);
    fs::remove_dir_all(world.store_dir().join("sled")).unwrap();
    let (store, report) = world.start(&log);
    assert_eq!(report.copied, 300);
    check_against(&store, &log);
}

#[test]
fn an_older_copy_of_the_store_is_caught_up() {
    let world = World::new();
    let log = MemoryLog::new(ORIGIN);
    let (store, _) = world.start(&log);
    fill(&world, &store, 300);
    stop(&world, store);
    let copy = tempdir();
    copy_folder(world.store_dir(), copy.path());
    let (store, _) = world.start(&log);
    fill(&world, &store, 300);
    stop(&world, store);
    replace_folder(copy.path(), world.store_dir());
    let (store, report) = world.start(&log);
    assert_eq!((report.replayed, report.copied), (300, 300));
    check_against(&store, &log);
}

#[test]
fn a_draft_of_a_sled_snapshot_does_not_keep_the_store_from_opening() {
    let world = World::new();
    let log = MemoryLog::new(ORIGIN);
    let (store, _) = world.start(&log);
    fill(&world, &store, 3);
    stop(&world, store);
    fs::write(world.store_dir().join("sled").join("snap.00000000000000FF.generating"), b"x")
        .unwrap();
    let (store, report) = world.start(&log);
    assert_eq!(report, OpenReport::default());
    check_against(&store, &log);
}

#[test]
fn a_truncated_sled_file_loses_nothing() {
    let world = World::new();
    let log = MemoryLog::new(ORIGIN);
    let (store, _) = world.start(&log);
    fill(&world, &store, 700);
    stop(&world, store);
    let whole = tempdir();
    copy_folder(world.store_dir(), whole.path());
    let len = fs::metadata(db_file(&world)).unwrap().len();
    for cut in [1, 64, 4_096, 70_000, len / 2, len] {
        replace_folder(whole.path(), world.store_dir());
        let file = fs::OpenOptions::new().write(true).open(db_file(&world)).unwrap();
        file.set_len(len - cut.min(len)).unwrap();
        let (store, _) = world.start(&log);
        check_against(&store, &log);
    }
}

#[test]
fn a_damage_note_makes_the_next_start_make_the_store_again() {
    let world = World::new();
    let log = MemoryLog::new(ORIGIN);
    let (store, _) = world.start(&log);
    fill(&world, &store, 3);
    stop(&world, store);
    world.folder().put_note(Note::Damage, "a test says so").unwrap();
    let (store, report) = world.start(&log);
    assert_eq!(report.store_set_aside.as_deref(), Some("a test says so"));
    assert_eq!(world.folder().note(Note::Damage).unwrap(), None);
    check_against(&store, &log);
    drop(store);
    assert_eq!(world.start(&log).1.store_set_aside, None);
}

/// Changes what sled holds, behind the store's back.
fn tamper(world: &World, change: impl FnOnce(&sled::Tree)) {
    // It waits for sled's lock, which a store that was just closed may still hold.
    let opened = Database::open(world.store_dir(), 1 << 20, genesis(ORIGIN));
    let database = opened.map_err(|_| "sled opens").unwrap();
    change(&database.state);
    database.db.flush().unwrap();
}

#[test]
fn a_lost_or_stale_entry_of_state_is_noticed_at_the_start() {
    for stale in [false, true] {
        let world = World::new();
        let log = MemoryLog::new(ORIGIN);
        let (store, _) = world.start(&log);
        fill(&world, &store, 20);
        stop(&world, store);
        tamper(&world, |state| {
            let key = entry_key::<Toy>(&Key::Counter(stream(2)));
            let old = state.remove(&key).unwrap().unwrap();
            if stale {
                let mut earlier = old.to_vec();
                earlier[7] -= 1;
                state.insert(key, earlier).unwrap();
            }
        });
        let (store, report) = world.start(&log);
        let why = "state does not hold the entries that it counts";
        assert_eq!(report.state_remade.as_deref(), Some(why));
        check_against(&store, &log);
    }
}

#[test]
fn an_entry_that_cannot_be_decoded_stops_the_process_and_is_made_again() {
    let world = World::new();
    let log = MemoryLog::new(ORIGIN);
    let (store, _) = world.start(&log);
    fill(&world, &store, 4);
    store.queue.digest().unwrap();
    let key = Key::Counter(stream(9));
    store.state.layers.tree.insert(entry_key::<Toy>(&key), b"short").unwrap();
    let read = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| store.state.get(&key)));
    assert!(read.is_err(), "no answer is given");
    assert_eq!(world.fatal_messages().len(), 1);
    let outcome = world.execute(&store.handle, Command::Add(stream(1), 1));
    assert!(matches!(outcome, Err(ExecuteError::Stopped)));
    drop(store);
    let (store, report) = world.start(&log);
    assert!(report.store_set_aside.is_some());
    check_against(&store, &log);
}

#[test]
fn a_record_that_sled_lacks_is_read_from_the_journal() {
    let world = World::new();
    let log = MemoryLog::new(ORIGIN);
    let (store, _) = world.start(&log);
    fill(&world, &store, 600);
    stop(&world, store);
    let (store, _) = world.start(&log);
    let copy = log.read(Position(300), 1).unwrap().remove(0);
    let opened = store.queue.digest().unwrap();
    assert_eq!(opened.0, Position(600));
    store.log.forget_block(Position(256));
    assert_eq!(store.log.raw(Position(300)).unwrap(), copy);
    check_against(&store, &log);
    drop(store);
    let (store, report) = world.start(&log);
    assert!(report.store_set_aside.is_some(), "the hole is noted and mended");
    check_against(&store, &log);
}

#[test]
fn writing_waits_for_the_writer_behind() {
    let mut world = World::new();
    world.options.lag_max = 3;
    let log = MemoryLog::new(ORIGIN);
    let (store, _) = world.start(&log);
    store.queue.hold(true);
    fill(&world, &store, 3);
    assert_eq!(store.queue.lag(), 3);
    // The fourth is in the queue, and cannot be done before something is written.
    let done = Arc::new(Mutex::new(false));
    let fourth = {
        let (handle, done) = (store.handle.clone(), Arc::clone(&done));
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let command = Command::Add(stream(1), 1);
            runtime.block_on(handle.execute(crate::toy::envelope(command))).unwrap();
            *done.lock().unwrap() = true;
        })
    };
    assert!(!*done.lock().unwrap());
    assert_eq!(log.head().size, 3);
    // Reads go on, and see what is durable.
    assert_eq!(counter(&store.state, stream(1)), 1);
    store.queue.hold(false);
    fourth.join().unwrap();
    assert_eq!(log.head().size, 4);
    check_against(&store, &log);
}

#[test]
fn a_scan_sees_dirty_entries_over_stored_ones_in_order() {
    let world = World::new();
    let log = MemoryLog::new(ORIGIN);
    let (store, _) = world.start(&log);
    fill(&world, &store, 8);
    store.queue.digest().unwrap();
    store.queue.hold(true);
    world.execute(&store.handle, Command::Forget(stream(2))).unwrap();
    world.execute(&store.handle, Command::Add(stream(3), 7)).unwrap();
    world.execute(&store.handle, Command::Add(stream(9), 1)).unwrap();
    let counters = |limit| -> Vec<_> {
        let found = store.state.scan(&[1], &[2], limit);
        found.into_iter().map(|(key, entry)| (key, entry.0)).collect()
    };
    let all = [(1, 2), (3, 9), (4, 2), (9, 1)];
    let all = all.map(|(number, value)| (Key::Counter(stream(number)), value));
    for limit in 0..6 {
        assert_eq!(counters(limit), all[..limit.min(4)]);
    }
    store.queue.hold(false);
    store.queue.digest().unwrap();
    assert_eq!(counters(9), all);
}

#[test]
fn a_digest_tells_positions_and_entries_apart() {
    let world = World::new();
    let log = MemoryLog::new(ORIGIN);
    let (store, _) = world.start(&log);
    let mut seen = Vec::new();
    for command in
        [Command::Add(stream(1), 1), Command::Add(stream(1), 0), Command::Add(stream(2), 1)]
    {
        world.execute(&store.handle, command).unwrap();
        seen.push(store.queue.digest().unwrap().1);
    }
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 3);
}

/// Small segments, so that a folder takes no space to speak of.
fn small(world: &World) -> Options {
    let limits = journal::Limits { records: 64, bytes: 64 << 10 };
    let journal = journal::Options {
        limits,
        reserve: journal::Reserve::Inline,
        ..journal::Options::default()
    };
    Options { journal, ..world.options.clone() }
}

fn add(world: &World, store: &Store<Toy>, times: u64) {
    for _ in 0..times {
        world.execute(&store.handle, Command::Add(stream(1), 1)).unwrap();
    }
}

#[test]
fn a_folder_is_opened_by_one_and_found_again_by_the_next() {
    let world = World::new();
    let dir = world.dir.path().join("data");
    let store = Store::<Toy>::open(&dir, small(&world)).unwrap();
    assert!(store.report.journal.created);
    add(&world, &store, 90);
    assert!(matches!(
        Store::<Toy>::open(&dir, small(&world)),
        Err(OpenError::Lock(LockError::Held { .. }))
    ));
    let digest = store.digest().unwrap();
    store.close().unwrap();
    let store = Store::<Toy>::open(&dir, small(&world)).unwrap();
    assert_eq!(store.report, OpenReport::default());
    assert_eq!(store.origin, ORIGIN);
    assert_eq!(store.digest().unwrap(), digest);
    assert_eq!(store.log.record(Position(89)).unwrap().stream_version, 89);
}

#[test]
fn a_rebuild_gives_the_same_digest() {
    let world = World::new();
    let dir = world.dir.path().join("data");
    let store = Store::<Toy>::open(&dir, small(&world)).unwrap();
    add(&world, &store, 90);
    let (position, digest) = store.digest().unwrap();
    drop(store);
    let rebuilt = rebuild::<Toy>(&dir, &small(&world)).unwrap();
    assert_eq!(rebuilt.position, position);
    assert_eq!((rebuilt.before, rebuilt.after), (digest, digest));
    assert_eq!((rebuilt.report.replayed, rebuilt.report.from_snapshot), (90, None));
}

#[test]
fn a_rebuild_adds_no_record_whatever_is_due_and_keeps_a_suspension() {
    let world = World::new();
    let dir = world.dir.path().join("data");
    let store = Store::<Toy>::open(&dir, small(&world)).unwrap();
    add(&world, &store, 5);
    let due = Command::SetDeadline(stream(1), Kind::Expiry, Micros(1_000));
    world.execute(&store.handle, due).unwrap();
    let (position, digest) = store.digest().unwrap();
    store.close().unwrap();
    let note = dir.join("store").join(Note::Suspension.file_name());
    fs::write(&note, "").unwrap();

    world.clock.pass(1 << 40);
    let rebuilt = rebuild::<Toy>(&dir, &small(&world)).unwrap();
    assert_eq!((rebuilt.position, rebuilt.before, rebuilt.after), (position, digest, digest));
    assert_eq!(rebuilt.found, OpenReport::default());
    assert!(note.exists());
    let store = Store::<Toy>::open(&dir, small(&world)).unwrap();
    assert_eq!(store.log.head().size, position.0);
    let held = rebuild::<Toy>(&dir, &small(&world));
    assert!(matches!(held, Err(OpenError::Lock(LockError::Held { .. }))));
    store.close().unwrap();
}

#[test]
fn a_journal_that_lost_its_tail_gets_it_back_from_sled() {
    let world = World::new();
    let dir = world.dir.path().join("data");
    let store = Store::<Toy>::open(&dir, small(&world)).unwrap();
    add(&world, &store, 90);
    let digest = store.digest().unwrap();
    store.close().unwrap();
    let mut segments: Vec<_> = fs::read_dir(dir.join("log"))
        .unwrap()
        .map(|item| item.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "ktj"))
        .collect();
    segments.sort();
    assert_eq!(segments.len(), 2);
    fs::remove_file(segments.pop().unwrap()).unwrap();
    let store = Store::<Toy>::open(&dir, small(&world)).unwrap();
    assert_eq!(store.report.journal.restored_records, 26);
    assert_eq!(store.digest().unwrap(), digest);
    assert_eq!(store.log.record(Position(89)).unwrap().stream_version, 89);
}

#[test]
fn records_are_read_from_the_journals_files_where_sled_lacks_them() {
    let world = World::new();
    let dir = world.dir.path().join("data");
    let store = Store::<Toy>::open(&dir, small(&world)).unwrap();
    add(&world, &store, 90);
    store.close().unwrap();
    let store = Store::<Toy>::open(&dir, small(&world)).unwrap();
    store.log.forget_block(Position(0));
    for position in [0, 63, 64, 89] {
        assert_eq!(store.log.record(Position(position)).unwrap().stream_version, position);
    }
}

/// A world whose files, but for sled's, are in memory.
fn in_memory(margin: u64) -> (World, MemoryDisk) {
    let mut world = World::new();
    let disk = MemoryDisk::default();
    disk.put_dir(world.store_dir());
    world.options.disk = Arc::new(disk.clone());
    world.options.space_margin = margin;
    (world, disk)
}

fn leave_free(disk: &MemoryDisk, bytes: u64) {
    disk.set_capacity(Some(disk.used() + bytes));
}

#[test]
fn below_the_margin_commands_are_refused_and_reads_go_on() {
    let (world, disk) = in_memory(1_000);
    let log = MemoryLog::new(ORIGIN);
    let (store, _) = world.start(&log);
    leave_free(&disk, 1_000);
    fill(&world, &store, 3);
    assert!(!store.handle.is_read_only());
    leave_free(&disk, 999);
    for _ in 0..2 {
        let refused = world.execute(&store.handle, Command::Add(stream(1), 1));
        assert!(matches!(refused, Err(ExecuteError::ReadOnly)));
        assert!(store.handle.is_read_only());
    }
    assert!(world.execute(&store.handle, Command::Nothing).is_ok());
    check_against(&store, &log);
    assert_eq!(log.head().size, 3);
    // Also without a command: each look at the clock is one at the space.
    leave_free(&disk, 1_000);
    world.runtime.block_on(store.handle.sweep()).unwrap();
    assert!(!store.handle.is_read_only());
    leave_free(&disk, 0);
    world.runtime.block_on(store.handle.sweep()).unwrap();
    assert!(store.handle.is_read_only());
    disk.set_capacity(None);
    fill(&world, &store, 3);
    assert!(!store.handle.is_read_only());
    check_against(&store, &log);
    assert!(world.fatal_messages().is_empty());
}

#[test]
fn a_deadline_below_the_margin_waits_for_space() {
    let (world, disk) = in_memory(1_000);
    let log = MemoryLog::new(ORIGIN);
    let (store, _) = world.start(&log);
    let deadline = Command::SetDeadline(stream(1), Kind::Expiry, Micros(5));
    world.execute(&store.handle, deadline).unwrap();
    world.clock.pass(5);
    leave_free(&disk, 10);
    assert_eq!(world.runtime.block_on(store.handle.sweep()), Ok(0));
    disk.set_capacity(None);
    assert_eq!(world.runtime.block_on(store.handle.sweep()), Ok(1));
    check_against(&store, &log);
}

#[test]
fn nearly_without_space_sled_is_left_alone_until_there_is_some() {
    for comes_back in [true, false] {
        let (mut world, disk) = in_memory(1_000);
        world.options.lag_max = 3;
        let log = MemoryLog::new(ORIGIN);
        let (store, _) = world.start(&log);
        store.queue.hold(true);
        fill(&world, &store, 3);
        leave_free(&disk, 249);
        store.queue.hold(false);
        store.queue.until_short();
        // Not a wait without end, though there is no room in the queue either.
        let refused = world.execute(&store.handle, Command::Add(stream(1), 1));
        assert!(matches!(refused, Err(ExecuteError::ReadOnly)));
        assert_eq!(store.queue.lag(), 3);
        assert_eq!(counter(&store.state, stream(1)), 1);
        if comes_back {
            leave_free(&disk, 250);
            world.runtime.block_on(store.handle.sweep()).unwrap();
            check_against(&store, &log);
            assert_eq!(store.queue.lag(), 0);
        } else {
            assert_eq!(world.runtime.block_on(store.handle.stop()), Err(Stopped), "not cleanly");
        }
        drop(store);
        disk.set_capacity(None);
        let (store, report) = world.start(&log);
        assert_eq!(report.replayed, if comes_back { 0 } else { 3 });
        check_against(&store, &log);
        assert!(world.fatal_messages().is_empty());
    }
}

#[test]
fn a_snapshot_does_not_take_the_space_that_is_left() {
    let (world, disk) = in_memory(1_000);
    let log = MemoryLog::new(ORIGIN);
    let (store, _) = world.start(&log);
    fill(&world, &store, 9);
    leave_free(&disk, 999);
    stop(&world, store);
    assert!(crate::snapshot::all(&world.folder()).unwrap().is_empty());
    disk.set_capacity(None);
    let (store, report) = world.start(&log);
    assert_eq!(report, OpenReport::default(), "and yet it was a clean stop");
    fill(&world, &store, 1);
    stop(&world, store);
    assert_eq!(crate::snapshot::all(&world.folder()).unwrap().len(), 1);
}

#[test]
fn a_folder_without_space_around_it_is_not_opened_and_not_changed() {
    let (world, disk) = in_memory(1 << 20);
    let dir = world.dir.path().join("data");
    let store = Store::<Toy>::open(&dir, small(&world)).unwrap();
    add(&world, &store, 90);
    drop(store);
    let before = disk.files();
    leave_free(&disk, (1 << 18) - 1);
    let refused = Store::<Toy>::open(&dir, small(&world)).err().unwrap();
    assert!(matches!(refused, OpenError::NoSpace { needed: 0x4_0000, .. }), "{refused}");
    assert_eq!(disk.files(), before);
    leave_free(&disk, 1 << 18);
    let store = Store::<Toy>::open(&dir, small(&world)).unwrap();
    assert_eq!(store.log.record(Position(89)).unwrap().stream_version, 89);
}

fn add_for(world: &World, store: &Store<Toy>, user: &str) -> Id {
    let subject = store.keys.subject_for("bank", user).unwrap().id;
    world.execute(&store.handle, Command::AddFor(stream(1), 1, subject)).unwrap();
    subject
}

/// Where keys of an older copy are noticed.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Left {
    /// State is trusted.
    Everything,
    /// The machine has been started again.
    OtherBoot,
    /// sled is gone, a snapshot is not.
    Snapshot,
    /// Only the log is there.
    Nothing,
}

#[test]
fn a_key_store_that_is_older_than_the_log_is_noticed() {
    for left in [Left::Everything, Left::OtherBoot, Left::Snapshot, Left::Nothing] {
        let (mut world, disk) = in_memory(0);
        let dir = world.dir.path().join("data");
        let store = Store::<Toy>::open(&dir, small(&world)).unwrap();
        let alice = add_for(&world, &store, "alice");
        store.close().unwrap();
        let older = disk.files();
        let store = Store::<Toy>::open(&dir, small(&world)).unwrap();
        let bob = add_for(&world, &store, "bob");
        store.keys.erase(alice).unwrap();
        store.close().unwrap();
        for (path, bytes) in older.iter().filter(|(path, _)| path.starts_with(dir.join("keys"))) {
            disk.put_file(path, bytes.clone());
        }
        match left {
            Left::Everything => (),
            Left::OtherBoot => world.options.boot_id = Some("two".into()),
            Left::Snapshot => fs::remove_dir_all(dir.join("store/sled")).unwrap(),
            Left::Nothing => {
                fs::remove_dir_all(dir.join("store")).unwrap();
                for path in disk.list(&dir.join("store")).unwrap() {
                    disk.remove(&path).unwrap();
                }
            }
        }
        if left == Left::Nothing {
            let store = Store::<Toy>::open(&dir, small(&world)).unwrap();
            assert_eq!(store.report.unknown_subjects, 1);
            assert!(!store.keys.is_known(bob));
            continue;
        }
        for _ in 0..2 {
            let refused = Store::<Toy>::open(&dir, small(&world)).err().unwrap();
            assert!(matches!(refused, OpenError::KeysLost { has: 1, needed: 2, .. }), "{left:?}");
        }
        let accepting = Options { accept_lost_keys: true, ..small(&world) };
        let store = Store::<Toy>::open(&dir, accepting).unwrap();
        assert_eq!(store.report.lost_subjects, 1, "{left:?}");
        drop(store);
        let store = Store::<Toy>::open(&dir, small(&world)).unwrap();
        assert_eq!(store.report.lost_subjects, 0, "accepted once: {left:?}");
        assert_eq!(store.log.head().size, 2);
    }
}

#[test]
fn keys_of_erased_subjects_are_not_missed() {
    let (world, _) = in_memory(0);
    let dir = world.dir.path().join("data");
    let store = Store::<Toy>::open(&dir, small(&world)).unwrap();
    let alice = add_for(&world, &store, "alice");
    store.keys.erase(alice).unwrap();
    store.close().unwrap();
    let rebuilt = rebuild::<Toy>(&dir, &small(&world)).unwrap();
    assert_eq!(rebuilt.before, rebuilt.after);
    assert_eq!((rebuilt.report.unknown_subjects, rebuilt.report.replayed), (0, 1));
}

/// Chance that is the same in every run.
fn chance() -> impl FnMut(usize) -> usize {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    move |n| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as usize % n
    }
}

/// A folder on a disk that is cut off, with sled's part on a real one.
struct Cut {
    world: World,
    dir: PathBuf,
    /// Sled's folder as it may be found: at the end of each session.
    sleds: Vec<tempfile::TempDir>,
    /// Subjects, by the size of the log before which they were made.
    subjects: Vec<(u64, Id)>,
    opened: u64,
}

impl Cut {
    fn options(&mut self, disk: Arc<dyn Disk>) -> Options {
        self.opened += 1;
        let boot_id = Some(format!("boot {}", self.opened));
        Options { disk, boot_id, snapshot_every: 10, ..small(&self.world) }
    }

    /// Two sessions, the first of which ends cleanly. Gives back the number of
    /// operations of the first.
    fn write(&mut self, disk: &RecordingDisk) -> usize {
        let mut ends = Vec::new();
        for session in 0..2 {
            let options = self.options(Arc::new(disk.clone()));
            let store = Store::<Toy>::open(&self.dir, options).unwrap();
            for number in 0..35 {
                if number % 7 == 0 {
                    let user = format!("{session} {number}");
                    let size = store.log.head().size;
                    self.subjects.push((size, store.keys.subject_for("bank", &user).unwrap().id));
                }
                let &(_, subject) = self.subjects.last().unwrap();
                let command = Command::AddFor(stream(1), 1, subject);
                self.world.execute(&store.handle, command).unwrap();
                disk.note(store.log.head().size);
            }
            if session == 0 {
                store.close().unwrap()
            } else {
                drop(store)
            }
            let sled = tempdir();
            copy_folder(&self.dir.join("store"), sled.path());
            self.sleds.push(sled);
            ends.push(disk.recording().ops.len());
        }
        ends[0]
    }

    /// Puts sled's folder as `from` has it, or takes it away.
    fn put_sled(&self, from: Option<&Path>) {
        let store = self.dir.join("store");
        drop(fs::remove_dir_all(&store));
        fs::create_dir_all(&store).unwrap();
        if let Some(from) = from {
            copy_folder(from, &store);
        }
    }

    /// Opens what is left, and holds it to everything acknowledged.
    fn check(&mut self, disk: Arc<dyn Disk>, acknowledged: u64) {
        let options = self.options(disk);
        let store = Store::<Toy>::open(&self.dir, options).unwrap();
        let size = store.log.head().size;
        assert!(size >= acknowledged, "{size} of {acknowledged}");
        let records = store.log.read(Position(0), usize::MAX).unwrap();
        let records: Vec<_> = records.iter().map(|record| (**record).clone()).collect();
        let folded = fold_state::<Toy>(&records).unwrap();
        assert_eq!(store.digest().unwrap(), (Position(size), folded.digest()));
        assert_eq!(counter(&store.state, stream(1)), size);
        for (_, id) in self.subjects.iter().filter(|(before, _)| *before < acknowledged) {
            assert!(store.keys.subject_key(*id).unwrap().is_some());
        }
        assert_eq!(store.report.unknown_subjects, 0);
        assert!(self.world.fatal_messages().is_empty());
    }
}

#[test]
fn a_power_cut_and_another_while_the_first_is_repaired_lose_nothing() {
    let (world, memory) = in_memory(0);
    let dir = world.dir.path().join("data");
    let mut cut = Cut { world, dir, sleds: Vec::new(), subjects: Vec::new(), opened: 0 };
    let disk = RecordingDisk::on(&memory);
    let first_end = cut.write(&disk);
    let recording = disk.recording();
    let mut choose = chance();
    let end = recording.ops.len();
    for sample in 0..40 {
        let point = (end * sample / 40 + choose(end / 40)).min(end);
        let acknowledged = recording.noted(point).unwrap_or(0);
        let left = recording.after_power_cut(point, &mut choose);
        let older = (point >= first_end && choose(2) == 1).then(|| cut.sleds[0].path().to_owned());
        cut.put_sled(older.as_deref());
        let again = RecordingDisk::on(&left);
        cut.check(Arc::new(again.clone()), acknowledged);
        let later = tempdir();
        copy_folder(&cut.dir.join("store"), later.path());
        let repair = again.recording();
        for _ in 0..3 {
            let point = choose(repair.ops.len() + 1);
            let left = repair.after_power_cut(point, &mut choose);
            cut.put_sled([None, older.as_deref(), Some(later.path())][choose(3)]);
            cut.check(Arc::new(left), acknowledged);
        }
    }
}

/// A folder with two segments that was stopped cleanly, to be harmed.
struct Whole {
    cut: Cut,
    disk: MemoryDisk,
    digest: (Position, StateDigest),
    segments: Vec<PathBuf>,
}

/// What opening a harmed folder did.
#[derive(Debug, PartialEq)]
enum Found {
    /// Everything, and what was set aside or repaired for it.
    All { sled_anew: bool, repaired: bool },
    /// A refusal that names the damage.
    Refused,
    /// Fewer records, and no word.
    Fewer(u64),
}

impl Whole {
    fn new() -> Self {
        let (world, disk) = in_memory(0);
        let dir = world.dir.path().join("data");
        let store = Store::<Toy>::open(&dir, small(&world)).unwrap();
        add(&world, &store, 90);
        let digest = store.digest().unwrap();
        store.close().unwrap();
        let sled = tempdir();
        copy_folder(&dir.join("store"), sled.path());
        let segments: Vec<_> = disk.list(&dir.join("log")).unwrap();
        let segments: Vec<_> =
            segments.into_iter().filter(|path| path.extension() == Some("ktj".as_ref())).collect();
        assert_eq!(segments.len(), 2);
        let sleds = vec![sled];
        let cut = Cut { world, dir, sleds, subjects: Vec::new(), opened: 0 };
        Self { cut, disk, digest, segments }
    }

    /// What opening finds after `harm`, with or without sled's copy.
    fn found(&self, with_sled: bool, harm: impl FnOnce(&MemoryDisk, &Path)) -> Found {
        self.cut.put_sled(with_sled.then(|| self.cut.sleds[0].path()));
        let disk = self.disk.copy();
        harm(&disk, &self.cut.dir.join("store/sled/db"));
        let options = Options { disk: Arc::new(disk), ..small(&self.cut.world) };
        let store = match Store::<Toy>::open(&self.cut.dir, options) {
            Ok(store) => store,
            Err(OpenError::Journal(error)) => {
                assert!(matches!(error, journal::OpenError::Damaged(_)), "{error}");
                return Found::Refused;
            }
            Err(error) => panic!("{error}"),
        };
        let (position, digest) = store.digest().unwrap();
        assert!(self.cut.world.fatal_messages().is_empty());
        if position != self.digest.0 {
            return Found::Fewer(position.0);
        }
        assert_eq!(digest, self.digest.1);
        assert_eq!(store.log.record(Position(89)).unwrap().stream_version, 89);
        let sled_anew = store.report.store_set_aside.is_some();
        Found::All { sled_anew, repaired: !store.report.journal.repaired.is_empty() }
    }

    /// Where the last group stands in the last segment: from its first byte to
    /// behind its last.
    fn last_group(&self) -> std::ops::Range<usize> {
        let bytes = &self.disk.files()[&self.segments[1]];
        let start = bytes.windows(8).rposition(|window| window == b"KTGROUP1").unwrap();
        start..bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1
    }
}

const REPAIRED: Found = Found::All { sled_anew: false, repaired: true };

fn flip_bit(disk: &MemoryDisk, path: &Path, bit: usize) {
    let mut bytes = disk.files()[path].clone();
    bytes[bit / 8] ^= 1 << (bit % 8);
    disk.put_file(path, bytes);
}

fn shorten(disk: &MemoryDisk, path: &Path, len: usize) {
    let bytes = disk.files()[path][..len].to_vec();
    disk.put_file(path, bytes);
}

#[test]
fn the_last_group_cut_at_any_byte_comes_back_from_sled() {
    let whole = Whole::new();
    let group = whole.last_group();
    let last = &whole.segments[1];
    for at in group.clone() {
        let zeroed = whole.found(true, |disk, _| {
            let mut bytes = disk.files()[last].clone();
            bytes[at..group.end].fill(0);
            disk.put_file(last, bytes);
        });
        // With all of it gone nothing looks wrong, and sled knows better.
        let repaired = at > group.start;
        assert_eq!(zeroed, Found::All { sled_anew: false, repaired }, "from byte {at}");
    }
    for at in group.step_by(7) {
        assert_eq!(whole.found(true, |disk, _| shorten(disk, last, at)), REPAIRED, "to byte {at}");
        assert_eq!(whole.found(false, |disk, _| shorten(disk, last, at)), Found::Refused, "{at}");
    }
}

#[test]
fn a_harmed_segment_comes_back_from_sled_and_is_refused_without_it() {
    let whole = Whole::new();
    let group = whole.last_group();
    for (index, path) in whole.segments.iter().enumerate() {
        let len = whole.disk.files()[path].len();
        let delete = |disk: &MemoryDisk, _: &Path| disk.remove(path).unwrap();
        assert_eq!(whole.found(true, delete), REPAIRED, "{index} deleted");
        assert_eq!(whole.found(false, delete), Found::Refused, "{index} deleted");
        for len in [0, 511, 1_024, 1_100, len / 2, len - 1] {
            let cut = |disk: &MemoryDisk, _: &Path| shorten(disk, path, len);
            assert_eq!(whole.found(true, cut), REPAIRED, "{index} of {len} bytes");
            // A sealed segment that lost its seal alone still has every record.
            let kept = index == 0 && len > 1_100;
            let without = whole.found(false, cut);
            assert!(without == Found::Refused || (kept && without == REPAIRED), "{without:?}");
        }
        for at in [3, 600, 1_024 + 9, 1_024 + 100, 1_024 + 160, group.start - 1, group.start + 9] {
            let flip = |disk: &MemoryDisk, _: &Path| flip_bit(disk, path, at * 8 + 3);
            let with = whole.found(true, flip);
            // A start that needs no old record does not read sealed segments in whole.
            let unread = Found::All { sled_anew: false, repaired: false };
            assert!(with == REPAIRED || (index == 0 && with == unread), "{index} {at}: {with:?}");
            let without = whole.found(false, flip);
            let torn = index == 1 && group.contains(&at) && without == Found::Fewer(89);
            assert!(torn || !matches!(without, Found::Fewer(_)), "{index} {at}: {without:?}");
        }
    }
    let all = |disk: &MemoryDisk, _: &Path| {
        whole.segments.iter().for_each(|path| disk.remove(path).unwrap());
    };
    assert!(matches!(whole.found(true, all), Found::All { .. }));
    assert_eq!(whole.found(false, all), Found::Refused);
}

#[test]
fn damage_that_only_making_state_again_comes_upon_is_repaired_as_well() {
    let mut whole = Whole::new();
    whole.cut.world.options.boot_id = Some("two".into());
    // The marker of a clean stop is gone: state is made again, from the first record.
    let marker = whole.cut.dir.join("store/marker");
    let flip = |disk: &MemoryDisk, _: &Path| {
        disk.remove(&marker).unwrap();
        crate::snapshot::all(
            &Options { disk: Arc::new(disk.clone()), ..small(&whole.cut.world) }
                .folder(&whole.cut.dir.join("store")),
        )
        .unwrap()
        .into_iter()
        .for_each(|(_, path)| disk.remove(&path).unwrap());
        flip_bit(disk, &whole.segments[0], (1_024 + 160) * 8);
    };
    assert_eq!(whole.found(true, flip), REPAIRED);
    assert_eq!(whole.found(false, flip), Found::Refused);
}

#[test]
fn a_log_that_is_gone_is_not_begun_anew_beside_its_keys() {
    let whole = Whole::new();
    for (keys, marker) in [(true, true), (true, false), (false, true)] {
        whole.cut.put_sled(None);
        let disk = whole.disk.copy();
        for path in whole.disk.files().into_keys() {
            let part = path.strip_prefix(&whole.cut.dir).unwrap();
            let kept = (part.starts_with("keys") && keys) || (part.ends_with("marker") && marker);
            if !kept {
                disk.remove(&path).unwrap();
            }
        }
        let options = Options { disk: Arc::new(disk.clone()), ..small(&whole.cut.world) };
        let before = disk.files();
        let refused = Store::<Toy>::open(&whole.cut.dir, options).err().unwrap();
        assert!(matches!(refused, OpenError::LogMissing { .. }), "{refused}");
        assert_eq!(disk.files(), before);
    }
}

#[test]
fn a_harmed_sled_folder_is_made_again_from_the_journal() {
    let whole = Whole::new();
    let all = |found: &Found| matches!(found, Found::All { repaired: false, .. });
    let found = whole.found(false, |_, _| ());
    assert!(all(&found), "deleted: {found:?}");
    let db = fs::read(whole.cut.sleds[0].path().join("sled/db")).unwrap();
    let end = db.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    for len in [0, 1, 100, end / 2, end - 1] {
        let found = whole.found(true, |_, db| {
            let file = fs::OpenOptions::new().write(true).open(db).unwrap();
            file.set_len(len as u64).unwrap();
        });
        assert!(all(&found), "{len} bytes: {found:?}");
    }
    for at in (0..end).step_by(end / 60 + 1) {
        let found = whole.found(true, |_, path| {
            let mut bytes = db.clone();
            bytes[at] ^= 0x10;
            fs::write(path, bytes).unwrap();
        });
        assert!(all(&found), "byte {at}: {found:?}");
    }
}

#[derive(Debug, Clone)]
enum Step {
    Do(DoStep),
    Sweep,
    Crash,
    Reboot,
    Close,
    DeleteSled,
    Truncate(u64),
    Flip(u64),
    Copy,
    Restore,
}

#[derive(Debug, Clone)]
enum DoStep {
    Add(u8, u64),
    AddToBoth(u8, u8, u64),
    SetDeadline(u8, bool, u64),
    Forget(u8),
    Panic(u8),
    Nothing,
}

fn do_step() -> impl Strategy<Value = DoStep> {
    let number = || 1..=STREAMS;
    prop_oneof![
        4 => (number(), 0..40_u64).prop_map(|(one, amount)| DoStep::Add(one, amount)),
        2 => (number(), number(), 0..40_u64)
            .prop_map(|(one, two, amount)| DoStep::AddToBoth(one, two, amount)),
        2 => (number(), any::<bool>(), 0..400_u64)
            .prop_map(|(one, release, at)| DoStep::SetDeadline(one, release, at)),
        1 => number().prop_map(DoStep::Forget),
        1 => number().prop_map(DoStep::Panic),
        1 => Just(DoStep::Nothing),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        30 => do_step().prop_map(Step::Do),
        4 => Just(Step::Sweep),
        2 => Just(Step::Crash),
        1 => Just(Step::Reboot),
        1 => Just(Step::Close),
        1 => Just(Step::DeleteSled),
        1 => any::<u64>().prop_map(Step::Truncate),
        2 => any::<u64>().prop_map(Step::Flip),
        1 => Just(Step::Copy),
        1 => Just(Step::Restore),
    ]
}

fn command(step: &DoStep) -> Command {
    match *step {
        DoStep::Add(one, amount) => Command::Add(stream(one), amount),
        DoStep::AddToBoth(one, two, amount) => Command::AddToBoth(stream(one), stream(two), amount),
        DoStep::SetDeadline(one, release, at) => {
            let kind = if release { Kind::Release } else { Kind::Expiry };
            Command::SetDeadline(stream(one), kind, Micros(at))
        }
        DoStep::Forget(one) => Command::Forget(stream(one)),
        DoStep::Panic(one) => Command::PanicInEvolve(stream(one)),
        DoStep::Nothing => Command::Nothing,
    }
}

/// Does to the closed store what the step says.
fn harm(world: &mut World, copy: &Path, step: &Step) {
    let db = db_file(world);
    match *step {
        Step::Do(_) | Step::Sweep | Step::Crash | Step::Close => (),
        Step::Reboot => world.options.boot_id.as_mut().unwrap().push('x'),
        Step::DeleteSled => fs::remove_dir_all(world.store_dir().join("sled")).unwrap(),
        Step::Truncate(at) => {
            let file = fs::OpenOptions::new().write(true).open(db).unwrap();
            let len = file.metadata().unwrap().len();
            file.set_len(at % (len + 1)).unwrap();
        }
        Step::Flip(at) => {
            let mut bytes = fs::read(&db).unwrap();
            // Where there is something: most of the file is empty.
            let end = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0) as u64;
            if let Some(byte) = bytes.get_mut((at / 8 % (end + 1)) as usize) {
                *byte ^= 1 << (at % 8);
            }
            fs::write(db, bytes).unwrap();
        }
        Step::Copy => {
            drop(fs::remove_dir_all(copy));
            copy_folder(world.store_dir(), copy);
        }
        Step::Restore => {
            if copy.exists() {
                replace_folder(copy, world.store_dir());
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_to_the_store_state_is_the_fold_of_the_log(
        steps in proptest::collection::vec(step(), 1..80),
        snapshot_every in 1..60_u64,
    ) {
        let mut world = World::new();
        world.options.snapshot_every = snapshot_every;
        let copy = world.dir.path().with_extension("copy");
        let log = MemoryLog::new(ORIGIN);
        let mut store = Some(world.start(&log).0);
        for step in &steps {
            let Some(running) = store.take() else { unreachable!() };
            world.clock.pass(7);
            match step {
                Step::Do(step) => {
                    drop(world.execute(&running.handle, command(step)));
                    store = Some(running);
                    continue;
                }
                Step::Sweep => {
                    world.runtime.block_on(running.handle.sweep()).unwrap();
                    store = Some(running);
                    continue;
                }
                Step::Close | Step::Copy => stop(&world, running),
                Step::Crash | Step::Reboot | Step::DeleteSled | Step::Truncate(_)
                | Step::Flip(_) | Step::Restore => drop(running),
            }
            harm(&mut world, &copy, step);
            let (running, _) = world.start(&log);
            check_against(&running, &log);
            store = Some(running);
        }
        let Some(running) = store else { unreachable!() };
        check_against(&running, &log);
        prop_assert!(world.fatal_messages().is_empty());
        drop(running);
        drop(fs::remove_dir_all(copy));
    }
}
