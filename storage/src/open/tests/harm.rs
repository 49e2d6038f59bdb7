//! The whole store on a disk that fills up, is cut off, or is changed behind its
//! back. Everything but sled's part is in memory.

use super::*;
use crate::disk::{MemoryDisk, RecordingDisk};

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
    for _ in 0..3 {
        // What is not in sled yet would raise the margin.
        store.queue.digest().unwrap();
        fill(&world, &store, 1);
    }
    store.queue.digest().unwrap();
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
fn what_is_still_on_its_way_to_sled_raises_the_margin_by_what_it_will_take() {
    let (world, disk) = in_memory(1_000);
    let log = MemoryLog::new(ORIGIN);
    let (store, _) = world.start(&log);
    store.queue.hold(true);
    fill(&world, &store, 9);
    let owed = store.queue.owed() as u64;
    assert!(owed > 1_000);
    leave_free(&disk, 1_000 + 4 * owed - 1);
    let refused = world.execute(&store.handle, Command::Add(stream(1), 1));
    assert!(matches!(refused, Err(ExecuteError::ReadOnly)));
    leave_free(&disk, 1_000 + 4 * owed);
    fill(&world, &store, 1);
    // Once it is in sled, the margin is all that must be free.
    disk.set_capacity(None);
    store.queue.hold(false);
    store.queue.digest().unwrap();
    assert_eq!(store.queue.owed(), 0);
    leave_free(&disk, 1_000);
    fill(&world, &store, 1);
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
        let enough = 250 + 4 * store.queue.owed() as u64;
        leave_free(&disk, enough - 1);
        store.queue.hold(false);
        store.queue.until_short();
        // Not a wait without end, though there is no room in the queue either.
        let refused = world.execute(&store.handle, Command::Add(stream(1), 1));
        assert!(matches!(refused, Err(ExecuteError::ReadOnly)));
        assert_eq!(store.queue.lag(), 3);
        assert_eq!(counter(&store.state, stream(1)), 1);
        if comes_back {
            leave_free(&disk, enough);
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
    let (mut world, disk) = in_memory(100_000);
    let log = MemoryLog::new(ORIGIN);
    let (store, _) = world.start(&log);
    fill(&world, &store, 9);
    store.queue.digest().unwrap();
    leave_free(&disk, 99_999);
    stop(&world, store);
    let snapshots = |disk: &MemoryDisk| {
        let names = disk.files().into_keys().map(|path| path.to_string_lossy().into_owned());
        names.filter(|name| name.contains("snapshot")).count()
    };
    assert_eq!(snapshots(&disk), 0);
    disk.set_capacity(None);
    let (store, report) = world.start(&log);
    assert_eq!(report, OpenReport::default(), "and yet it was a clean stop");
    fill(&world, &store, 1);
    stop(&world, store);
    assert_eq!(snapshots(&disk), 1);
    // Nor one that is due in between.
    world.options.snapshot_every = 1;
    let (store, _) = world.start(&log);
    store.queue.hold(true);
    fill(&world, &store, 2);
    leave_free(&disk, 99_999);
    store.queue.hold(false);
    store.queue.digest().unwrap();
    assert_eq!(snapshots(&disk), 1);
    disk.set_capacity(None);
    fill(&world, &store, 1);
    store.queue.digest().unwrap();
    stop(&world, store);
    assert_eq!(snapshots(&disk), 2);
}

#[test]
fn a_snapshot_that_has_its_name_survives_a_power_cut() {
    let (mut world, memory) = in_memory(0);
    let disk = RecordingDisk::on(&memory);
    world.options.disk = Arc::new(disk.clone());
    let log = MemoryLog::new(ORIGIN);
    let (store, _) = world.start(&log);
    fill(&world, &store, 20);
    stop(&world, store);
    let recording = disk.recording();
    let mut choose = chance();
    for _ in 0..20 {
        let left = recording.after_power_cut(recording.ops.len(), &mut choose);
        world.options.disk = Arc::new(left);
        fs::remove_dir_all(world.store_dir().join("sled")).unwrap();
        let (_, report) = world.start(&log);
        assert_eq!(report.from_snapshot, Some(Position(20)));
    }
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

    /// Opens what is left, and holds it to everything acknowledged; the size of
    /// its log.
    fn check(&mut self, disk: Arc<dyn Disk>, acknowledged: u64) -> u64 {
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
        size
    }
}

#[test]
fn what_is_shown_after_the_death_of_the_process_survives_a_power_cut_after_it() {
    let (world, memory) = in_memory(0);
    let dir = world.dir.path().join("data");
    let mut cut = Cut { world, dir, sleds: Vec::new(), subjects: Vec::new(), opened: 0 };
    let disk = RecordingDisk::on(&memory);
    cut.write(&disk);
    let recording = disk.recording();
    let mut choose = chance();
    let end = recording.ops.len();
    for sample in 0..40 {
        let point = (end * sample / 40 + choose(end / 40)).min(end);
        let died = recording.after_death(point);
        cut.put_sled(None);
        let shown = cut.check(Arc::new(died.clone()), recording.noted(point).unwrap_or(0));
        let after = died.recording();
        for _ in 0..2 {
            let left = after.after_power_cut(after.ops.len(), &mut choose);
            cut.put_sled(None);
            cut.check(Arc::new(left), shown);
        }
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
fn a_log_that_is_gone_comes_back_from_sled_under_its_own_origin_alone() {
    let whole = Whole::new();
    for origin in [ORIGIN, "example.org/another"] {
        whole.cut.put_sled(Some(whole.cut.sleds[0].path()));
        let disk = whole.disk.copy();
        for path in disk.list(&whole.cut.dir.join("log")).unwrap() {
            disk.remove(&path).unwrap();
        }
        let before = disk.files();
        let disk = Arc::new(disk);
        let options = Options {
            disk: Arc::clone(&disk) as _,
            origin: origin.into(),
            ..small(&whole.cut.world)
        };
        match Store::<Toy>::open(&whole.cut.dir, options) {
            Ok(store) => {
                assert_eq!(origin, ORIGIN);
                assert_eq!(store.report.journal.restored_records, 90);
                assert_eq!(store.digest().unwrap(), whole.digest);
            }
            Err(error) => {
                assert!(matches!(&error, OpenError::Journal(journal::OpenError::Lost { .. })));
                assert_ne!(origin, ORIGIN, "{error}");
                assert_eq!(disk.files(), before, "no other log is begun in its place");
            }
        }
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
