use std::collections::BTreeMap;
use std::fs;
use std::sync::Mutex;

use engine::ids::Id;
use proptest::prelude::*;

use super::*;
use crate::fold::{FoldedState, fold_state};
use crate::memory::MemoryLog;
use crate::record;
use crate::sequencer::ExecuteError;
use crate::state::entry_key;
use crate::toy::{
    ADDED, Command, DEADLINE_PASSED, FORGOTTEN, Key, Kind, ORIGIN, Toy, World, counter, number_in,
    stream, tempdir,
};

mod harm;

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
fn with_each_snapshot_comes_the_digest_of_the_state_that_it_holds() {
    let mut world = World::new();
    world.options.snapshot_every = 50;
    let log = MemoryLog::new(ORIGIN);
    let (store, _) = world.start(&log);
    fill(&world, &store, 49);
    store.queue.digest().unwrap();
    assert_eq!(*store.digests.borrow(), None, "no snapshot is due");
    fill(&world, &store, 30);
    // Each answer is followed by a step of the snapshot.
    while store.digests.borrow().is_none() {
        store.queue.digest().unwrap();
    }
    let (position, digest) = store.digests.borrow().unwrap();
    let records = log.read(Position(0), position.0 as usize).unwrap();
    let records: Vec<_> = records.iter().map(|bytes| record::decode(bytes).unwrap().0).collect();
    let folded = fold_state::<Toy>(&records).unwrap();
    assert!(position.0 >= 50);
    assert_eq!((folded.position(), folded.digest()), (position, digest));
}

#[test]
fn the_digest_for_a_stop_is_that_of_all_that_is_durable_and_none_right_after_a_snapshot() {
    let world = World::new();
    let log = MemoryLog::new(ORIGIN);
    let (store, _) = world.start(&log);
    assert_eq!(store.queue.digest_to_stop(), Some(None), "nothing has happened");
    fill(&world, &store, 3);
    let digest = folded(&log);
    assert_eq!(store.queue.digest_to_stop(), Some(Some((digest.position(), digest.digest()))));
    stop(&world, store);
    let (store, _) = world.start(&log);
    assert_eq!(store.queue.digest_to_stop(), Some(None), "nothing has happened since");
    drop(store);
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
