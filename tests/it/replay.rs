//! What an auditor finds in a folder, and that looking changes nothing.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::ops::ControlFlow;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

use engine::events::Event;
use engine::ids::{Id, Micros, Position};
use engine::machine::{Record, StreamHead};
use engine::terms::Verdict;
use replay::folder::FolderError;
use replay::inspect::{Filter, Row};
use replay::report::{Level, Outcome, Report};
use replay::verify::{Options, Phase};
use storage::block::{Block, BlockLog, Head, genesis};
use storage::disk::RealDisk;
use storage::journal::{Item, Journal, JournalReader, Limits, NoWitness};
use storage::record;

use crate::history::{BANK, Counter, History, ORIGIN, Signs, options, small_segments};

/// Every file below a folder with a hash of its bytes.
pub(crate) fn files(dir: &Path) -> BTreeMap<PathBuf, blake3::Hash> {
    let mut found = BTreeMap::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for item in fs::read_dir(folder).unwrap() {
            let path = item.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let hash = blake3::hash(&fs::read(&path).unwrap());
                found.insert(path, hash);
            }
        }
    }
    found
}

pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for item in fs::read_dir(from).unwrap() {
        let path = item.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, target).unwrap();
        }
    }
}

fn verify(dir: &Path) -> Report {
    replay::verify(dir, &Options::default()).unwrap()
}

fn outcomes(report: &Report) -> Vec<Outcome> {
    report.levels.iter().map(|level| level.outcome).collect()
}

fn rows(dir: &Path, filter: &Filter) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut keep = |row| {
        rows.push(row);
        ControlFlow::Continue(())
    };
    let inspected = replay::inspect(dir, filter, &mut keep).unwrap();
    assert_eq!(inspected.findings, []);
    assert_eq!(inspected.rows, rows.len() as u64);
    rows
}

/// A stopped server's folder.
fn day() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    History::day(folder.path(), small_segments(8)).store.close().unwrap();
    folder
}

#[test]
fn a_clean_log_holds_at_every_level_and_looking_changes_no_file() {
    let folder = day();
    let before = files(folder.path());
    let report = verify(folder.path());
    assert!(report.holds, "{report}");
    use Outcome::{Absent, Holds};
    let expected = [Holds, Holds, Absent, Absent, Absent, Holds, Holds, Holds, Absent];
    assert_eq!(outcomes(&report), expected, "{report}");
    assert_eq!(report.records, 34);
    let signatures = report.level(Level::Signatures).unwrap();
    let counts = ["signatures", "valid", "invalid", "malformed"].map(|name| signatures.count(name));
    assert_eq!(counts, [13, 11, 1, 1]);
    assert_eq!(report.level(Level::Rules).unwrap().count("commands"), 32);
    assert_eq!(rows(folder.path(), &Filter::default()).len(), 34);
    assert_eq!(files(folder.path()), before);
}

#[test]
fn a_copy_of_the_log_alone_holds_and_says_what_it_cannot_compare() {
    let folder = day();
    let copied = tempfile::tempdir().unwrap();
    copy(&folder.path().join("log"), &copied.path().join("log"));
    let before = files(copied.path());
    let report = verify(copied.path());
    assert!(report.holds, "{report}");
    use Outcome::{Absent, Holds};
    let expected = [Holds, Absent, Absent, Absent, Absent, Holds, Holds, Absent, Absent];
    assert_eq!(outcomes(&report), expected, "{report}");
    assert!(!report.level(Level::Copies).unwrap().remarks.is_empty());
    assert_eq!(report.state_digest, verify(folder.path()).state_digest);
    assert_eq!(files(copied.path()), before);
}

#[test]
fn a_store_that_was_not_stopped_is_compared_as_far_as_it_has_come() {
    let folder = tempfile::tempdir().unwrap();
    drop(History::day(folder.path(), small_segments(8)));
    let report = verify(folder.path());
    assert!(report.holds, "{report}");
}

#[test]
fn a_folder_in_use_is_refused_and_one_without_a_log_too() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options::default();
    let refused = replay::verify(folder.path(), &options);
    assert!(matches!(refused, Err(FolderError::NoLog(_))), "{refused:?}");
    let history = History::begin(folder.path(), small_segments(8));
    let refused = replay::verify(folder.path(), &options);
    assert!(matches!(refused, Err(FolderError::InUse(_))), "{refused:?}");
    let refused =
        replay::inspect(folder.path(), &Filter::default(), &mut |_| ControlFlow::Break(()));
    assert!(matches!(refused, Err(FolderError::InUse(_))), "{refused:?}");
    history.store.close().unwrap();
    assert!(verify(folder.path()).holds);
}

#[test]
fn progress_never_goes_back_and_comes_near_the_end() {
    let folder = day();
    let told = std::cell::RefCell::new(Vec::new());
    let progress = |phase, done, total| told.borrow_mut().push((phase, done, total));
    let options = Options { progress: Some(&progress), ..Options::default() };
    assert!(replay::verify(folder.path(), &options).unwrap().holds);
    let told = told.into_inner();
    for phase in [Phase::Copying, Phase::Reading] {
        let steps: Vec<_> = told.iter().filter(|(of, ..)| *of == phase).collect();
        assert!(steps.is_sorted_by_key(|(_, done, _)| done), "{steps:?}");
        let (_, done, total) = steps.last().unwrap();
        assert!(done <= total && total - done <= 4_096, "{done} of {total}");
    }
}

#[test]
fn inspecting_shows_what_the_filter_lets_through() {
    let folder = day();
    let all = rows(folder.path(), &Filter::default());
    let shown = |filter: Filter| -> Vec<u64> {
        rows(folder.path(), &filter).iter().map(|row| row.record.position.0).collect()
    };
    assert_eq!(shown(Filter { positions: 20..24, ..Filter::default() }), [20, 21, 22, 23]);
    assert_eq!(shown(Filter { limit: Some(2), ..Filter::default() }), [0, 1]);
    assert_eq!(shown(Filter { limit: Some(0), ..Filter::default() }), [0; 0]);
    let locks = Filter { types: vec!["RegistrationLocked".into()], ..Filter::default() };
    assert_eq!(shown(locks), [22]);
    let locked = &all[22].record;
    let of_phone = Filter { streams: vec![locked.draft.stream], ..Filter::default() };
    let versions: Vec<u64> =
        rows(folder.path(), &of_phone).iter().map(|row| row.record.stream_version).collect();
    assert_eq!(versions, (0..versions.len() as u64).collect::<Vec<_>>());
    assert!(versions.len() > 10);
    let at_once = Filter {
        from: Some(locked.time),
        to: Some(Micros(locked.time.0 + 1)),
        ..Filter::default()
    };
    assert_eq!(shown(at_once), [21, 22]);
}

#[test]
fn a_row_shows_of_a_sealed_part_only_its_length() {
    let folder = day();
    let requested = Filter { types: vec!["ActivationRequested".into()], ..Filter::default() };
    let row = &rows(folder.path(), &requested)[0];
    assert_eq!(row.record.draft.sealed, [6; 40]);
    let json = row.to_json();
    assert_eq!(json["sealed_len"], 40);
    assert_eq!(json["time"], "2023-11-14T22:13:24.000000Z");
    assert_eq!(json["type"], "ActivationRequested");
    assert_eq!(json["event"]["again"], false);
    let text = json.to_string();
    assert!(!text.contains("BgYGBgYG") && !text.contains("6,6,6,6"), "{text}");
}

/// A log in two and a half segments with little reserved space.
fn small_log() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits { records: 3, bytes: 1_024 };
    let journal = storage::journal::Options { limits, ..small_segments(3) };
    let mut history = History::begin(folder.path(), journal);
    history.activate(1, true);
    history.store.close().unwrap();
    folder
}

#[test]
fn every_flipped_bit_of_the_journal_is_found() {
    let folder = small_log();
    let marked = tempfile::tempdir().unwrap();
    copy(&folder.path().join("log"), &marked.path().join("log"));
    fs::create_dir(marked.path().join("store")).unwrap();
    let marker = Path::new("store").join("marker");
    fs::copy(folder.path().join(&marker), marked.path().join(&marker)).unwrap();
    let options = Options { through: Level::Records, ..Options::default() };
    assert!(replay::verify(marked.path(), &options).unwrap().holds);

    let mut flipped = 0;
    for path in segments(marked.path()).iter().chain(&[marked.path().join("log/origin")]) {
        fs::set_permissions(path, PermissionsExt::from_mode(0o600)).unwrap();
        let file = File::options().write(true).open(path).unwrap();
        for (at, byte) in (0..).zip(fs::read(path).unwrap()) {
            file.write_all_at(&[byte ^ 1], at).unwrap();
            let report = replay::verify(marked.path(), &options).unwrap();
            assert!(!report.holds, "byte {at} of {}: {report}", path.display());
            file.write_all_at(&[byte], at).unwrap();
            flipped += 1;
        }
    }
    assert!(flipped > 5_000, "{flipped}");
    assert!(replay::verify(marked.path(), &options).unwrap().holds);
}

#[test]
fn in_a_copy_of_the_log_alone_a_damaged_end_is_at_least_remarked() {
    let folder = small_log();
    let copied = tempfile::tempdir().unwrap();
    copy(&folder.path().join("log"), &copied.path().join("log"));
    let options = Options { through: Level::Records, ..Options::default() };
    let file = segments(copied.path()).pop().unwrap();
    let bytes = fs::read(&file).unwrap();
    for at in (0..bytes.len()).step_by(7) {
        let mut changed = bytes.clone();
        changed[at] ^= 0x10;
        fs::write(&file, changed).unwrap();
        let report = replay::verify(copied.path(), &options).unwrap();
        let remarks = &report.level(Level::Records).unwrap().remarks;
        assert!(!report.holds || remarks.len() == 1, "byte {at}: {report}");
    }
}

#[test]
fn a_damaged_last_group_is_seen_in_the_second_copy() {
    let folder = tempfile::tempdir().unwrap();
    // Not stopped: a group that is not whole could be what a crash left.
    let history = History::day(folder.path(), small_segments(8));
    // Waits until the second copy has everything.
    history.store.digest().unwrap();
    drop(history);
    let file = segments(folder.path()).pop().unwrap();
    let mut bytes = fs::read(&file).unwrap();
    let last = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[last - 10] ^= 1;
    fs::write(&file, bytes).unwrap();
    let report = verify(folder.path());
    let copies = report.level(Level::Copies).unwrap();
    assert_eq!(copies.outcome, Outcome::Fails, "{report}");
    assert_eq!(copies.failures[0].place.position, Some(33), "{report}");
}

fn segments(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(folder.join("log"))
        .unwrap()
        .map(|item| item.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "ktj"))
        .collect();
    found.sort();
    found
}

/// The commands of a log: their records.
pub(crate) fn commands(folder: &Path) -> Vec<Vec<Record>> {
    let reader = JournalReader::open(std::sync::Arc::new(RealDisk), &folder.join("log")).unwrap();
    let mut commands: Vec<Vec<Record>> = Vec::new();
    for item in reader.items(Position(0)) {
        let Item::Block(block) = item.unwrap() else { panic!("damage") };
        for bytes in block.records() {
            let (record, _) = record::decode(bytes).unwrap();
            match commands.last_mut() {
                Some(command) if command[0].causation == record.causation => command.push(record),
                Some(_) | None => commands.push(vec![record]),
            }
        }
    }
    commands
}

/// How well a forger knows keytrail.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Forger {
    /// Numbers records anew, and makes frames, hashes and chain anew.
    Careful,
    /// Makes versions and back-pointers of streams anew too.
    Thorough,
}

/// A log with these records, every hash right, in a folder of its own.
pub(crate) fn forged(commands: Vec<Vec<Record>>, forger: Forger) -> tempfile::TempDir {
    forged_under(ORIGIN, commands, forger)
}

/// The same under another origin line.
pub(crate) fn forged_under(
    origin: &str,
    commands: Vec<Vec<Record>>,
    forger: Forger,
) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, _) = Journal::open(
        std::sync::Arc::new(RealDisk),
        &folder.path().join("log"),
        origin,
        small_segments(8),
        &NoWitness,
        &*Counter::at(1),
    )
    .unwrap();
    let mut head = Head { size: 0, chain: genesis(origin) };
    let mut streams: BTreeMap<Id, StreamHead> = BTreeMap::new();
    for command in commands {
        let mut block = Block::after(&head);
        for mut record in command {
            record.position = Position(block.head().size);
            if forger == Forger::Thorough {
                let stream = streams.entry(record.draft.stream).or_default();
                (record.stream_version, record.stream_prev) = (stream.version, stream.last);
                *stream = StreamHead { version: stream.version + 1, last: Some(record.position) };
            }
            block.push_record(&record).unwrap();
        }
        head = journal.append(&head, &block).unwrap();
    }
    folder
}

/// Verifies a forged log by itself, and beside the second copy of the true one.
#[track_caller]
fn failing(
    true_folder: &Path,
    forger: Forger,
    change: impl FnOnce(&mut Vec<Vec<Record>>),
) -> (Vec<Level>, Report) {
    let mut commands = commands(true_folder);
    let before = commands.clone();
    change(&mut commands);
    assert_ne!(commands, before);
    let folder = forged(commands, forger);
    let alone = verify(folder.path());
    let fails = |report: &Report| -> Vec<Level> {
        let failing = report.levels.iter().filter(|level| level.outcome == Outcome::Fails);
        failing.map(|level| level.level).collect()
    };
    copy(&true_folder.join("store"), &folder.path().join("store"));
    let beside = verify(folder.path());
    assert!(fails(&beside).contains(&Level::Copies), "{beside}");
    (fails(&alone), alone)
}

#[test]
fn a_forger_who_changes_nothing_is_not_found_guilty() {
    let folder = day();
    for forger in [Forger::Careful, Forger::Thorough] {
        let copied = forged(commands(folder.path()), forger);
        assert!(verify(copied.path()).holds);
    }
}

#[test]
fn a_record_removed_moved_or_added_is_found_however_well_the_hashes_fit() {
    let folder = day();
    let found =
        |forger, change: fn(&mut Vec<Vec<Record>>)| failing(folder.path(), forger, change).0;
    use Forger::{Careful, Thorough};
    // A challenge, command 10; the lock, with the record that brought it about, 20.
    let remove = |commands: &mut Vec<Vec<Record>>| drop(commands.remove(10));
    assert!(found(Careful, remove).contains(&Level::Records));
    assert!(found(Thorough, remove).contains(&Level::Rules));
    let unlock = |commands: &mut Vec<Vec<Record>>| drop(commands[20].pop().unwrap());
    assert!(found(Thorough, unlock).contains(&Level::Rules));
    let tear = |commands: &mut Vec<Vec<Record>>| drop(commands[20].remove(0));
    assert!(found(Thorough, tear).contains(&Level::Records), "its event id begins no command");
    let swap = |commands: &mut Vec<Vec<Record>>| commands.swap(10, 11);
    assert!(found(Careful, swap).contains(&Level::Records));
    assert!(found(Thorough, swap).contains(&Level::Records), "time goes backwards");
    let add = |commands: &mut Vec<Vec<Record>>| commands.push(commands[11].clone());
    assert!(found(Careful, add).contains(&Level::Records));
    assert!(found(Thorough, add).contains(&Level::Rules));
}

/// Changes the event of the record at `position`.
pub(crate) fn alter(commands: &mut [Vec<Record>], position: u64, change: impl FnOnce(&mut Event)) {
    let record =
        commands.iter_mut().flatten().find(|record| record.position.0 == position).unwrap();
    let draft = &mut record.draft;
    let mut event = Event::decode(draft.event_type, draft.schema, &draft.clear).unwrap();
    change(&mut event);
    draft.clear = event.encode();
}

#[test]
fn a_verdict_that_is_not_true_is_found_by_verifying_the_signature_again() {
    let folder = day();
    let (levels, report) = failing(folder.path(), Forger::Thorough, |commands| {
        alter(commands, 18, |event| {
            let Event::AuthenticationJudged(judged) = event else { panic!("{event:?}") };
            assert_eq!(judged.verifications[0].verdict, Verdict::Invalid);
            judged.verifications[0].verdict = Verdict::Malformed;
        });
    });
    assert_eq!(levels, [Level::Signatures], "{report}");
    let failure = &report.level(Level::Signatures).unwrap().failures[0];
    assert_eq!(failure.place.position, Some(18));
    assert!(failure.what.contains("recorded as MALFORMED and is INVALID"), "{failure}");
}

#[test]
fn a_bit_of_a_signature_or_of_what_was_signed_is_found_by_verifying_it_again() {
    let folder = day();
    let changes: [fn(&mut engine::events::AuthenticationJudgedV1); 3] = [
        |judged| *judged.verifications[0].signature.last_mut().unwrap() ^= 1,
        |judged| judged.declared.risk_data_hash[0] ^= 1,
        |judged| judged.declared.client_version = "3.9".into(),
    ];
    for change in changes {
        let (levels, report) = failing(folder.path(), Forger::Thorough, |commands| {
            alter(commands, 12, |event| {
                let Event::AuthenticationJudged(judged) = event else { panic!("{event:?}") };
                change(judged);
            });
        });
        assert_eq!(levels, [Level::Signatures], "{report}");
    }
}

#[test]
fn right_signatures_in_an_event_that_the_rules_forbid_are_found() {
    let folder = day();
    let (levels, report) = failing(folder.path(), Forger::Thorough, |commands| {
        alter(commands, 18, |event| {
            let Event::AuthenticationJudged(judged) = event else { panic!("{event:?}") };
            assert_eq!(judged.failures, 1);
            judged.failures = 0;
        });
    });
    assert!(levels.contains(&Level::Rules), "{report}");
    assert!(!levels.contains(&Level::Signatures) && !levels.contains(&Level::Records), "{report}");
    let failure = &report.level(Level::Rules).unwrap().failures[0];
    assert_eq!(failure.place.position, Some(18));
    assert!(failure.what.contains("failures is 0, the rules say 1"), "{failure}");
}

#[test]
fn an_event_type_that_nobody_knows_is_found() {
    let folder = day();
    let (levels, report) = failing(folder.path(), Forger::Thorough, |commands| {
        commands[10][0].draft.event_type = 999;
    });
    assert!(levels.contains(&Level::Records), "{report}");
}

#[test]
fn a_stored_entry_that_the_log_does_not_make_so_is_named() {
    let folder = day();
    let mut commands = commands(folder.path());
    alter(&mut commands, 2, |event| {
        let Event::ApiKeyCreated(created) = event else { panic!("{event:?}") };
        created.name = "another".into();
    });
    let other = forged(commands, Forger::Thorough);
    assert!(verify(other.path()).holds, "another log, and a good one");
    copy(&folder.path().join("store"), &other.path().join("store"));
    let report = verify(other.path());
    let failures = &report.level(Level::Replay).unwrap().failures;
    let what: Vec<&str> = failures.iter().map(|failure| failure.what.as_str()).collect();
    let named = format!("the stored entry ApiKey({BANK}) is not what the log says");
    let follows = "the stored state follows another record than the log has there";
    assert_eq!(what, [named.as_str(), follows]);
}

#[test]
fn a_store_of_an_earlier_day_is_found_if_it_was_stopped_cleanly() {
    let folder = day();
    let mut commands = commands(folder.path());
    commands.truncate(20);
    let earlier = forged(commands, Forger::Careful);
    copy(&folder.path().join("keys"), &earlier.path().join("keys"));
    let rebuilt =
        replay::rebuild(earlier.path(), &options(&Counter::at(1), small_segments(8))).unwrap();
    assert_eq!(rebuilt.before, rebuilt.after);
    assert!(rebuilt.found.state_remade.is_some(), "there was nothing before");
    assert!(verify(earlier.path()).holds);

    fs::remove_dir_all(folder.path().join("store")).unwrap();
    copy(&earlier.path().join("store"), &folder.path().join("store"));
    let report = verify(folder.path());
    let failing = |level| &report.level(level).unwrap().failures[0].what;
    assert_eq!(failing(Level::Copies), "the second copy ends before record 21");
    assert_eq!(failing(Level::Replay), "the stored state stands at record 21 of 34");
    // A server that was killed may leave that behind.
    let marker = folder.path().join("store/marker");
    let text = fs::read_to_string(&marker).unwrap();
    fs::write(&marker, text.replace("stop clean", "stop none")).unwrap();
    let report = verify(folder.path());
    assert!(report.holds, "{report}");
    assert_eq!(report.level(Level::Replay).unwrap().remarks.len(), 1, "{report}");
}

#[test]
fn an_event_id_that_is_used_again_is_found() {
    let folder = day();
    let (levels, report) = failing(folder.path(), Forger::Thorough, |commands| {
        let used = commands[12][0].draft.event_id;
        commands[25][0].draft.event_id = used;
    });
    assert_eq!(levels, [Level::Records], "{report}");
    let failures = &report.level(Level::Records).unwrap().failures;
    assert_eq!(failures.len(), 1, "{report}");
    assert!(failures[0].what.contains("is that of record 13 too"), "{report}");
}

#[test]
fn a_tail_cut_at_a_group_is_found_beside_the_second_copy() {
    let folder = day();
    let (levels, report) = failing(folder.path(), Forger::Thorough, |commands| {
        commands.truncate(20);
    });
    assert_eq!(levels, [], "a shorter log is a log: {report}");
}

/// Bytes of sled's files that are not zero: file, offset, byte.
fn database_bytes(folder: &Path) -> Vec<(PathBuf, u64, u8)> {
    let mut found = Vec::new();
    for path in files(&folder.join("store/sled")).into_keys() {
        let bytes = (0..).zip(fs::read(&path).unwrap());
        found.extend(
            bytes.filter(|(_, byte)| *byte != 0).map(|(at, byte)| (path.clone(), at, byte)),
        );
    }
    found
}

/// Verifies a folder whose second copy is harmed, and sees that only levels
/// which look at that copy fail. Returns whether they did.
#[track_caller]
fn only_the_copy_fails(folder: &Path) -> bool {
    let before = files(folder);
    let report = verify(folder);
    assert_eq!(files(folder), before);
    for level in [Level::Records, Level::Signatures, Level::Rules] {
        assert_eq!(report.level(level).unwrap().outcome, Outcome::Holds, "{report}");
    }
    !report.holds
}

#[test]
fn a_flipped_bit_of_the_database_is_reported_and_no_panic_escapes() {
    let folder = day();
    let bytes = database_bytes(folder.path());
    let (mut harmed, mut found) = (0, 0);
    for (path, at, byte) in bytes.iter().step_by(bytes.len() / 40) {
        let file = File::options().write(true).open(path).unwrap();
        file.write_all_at(&[byte ^ 1], *at).unwrap();
        found += u32::from(only_the_copy_fails(folder.path()));
        harmed += 1;
        file.write_all_at(&[*byte], *at).unwrap();
    }
    // sled's log holds old versions of its pages too; a bit of those means nothing.
    assert!(found * 2 > harmed, "{found} of {harmed}");
    assert!(verify(folder.path()).holds);
}

#[test]
fn a_cut_or_missing_database_file_is_reported_and_no_panic_escapes() {
    let folder = day();
    let sled = folder.path().join("store/sled");
    let used = database_bytes(folder.path());
    let end = used.iter().filter(|(path, ..)| path.ends_with("db")).map(|(_, at, _)| at + 1).max();
    let db = sled.join("db");
    let bytes = fs::read(&db).unwrap();
    for len in [0, 1, end.unwrap() / 2] {
        fs::write(&db, &bytes[..len as usize]).unwrap();
        assert!(only_the_copy_fails(folder.path()), "cut to {len}");
    }
    fs::write(&db, bytes).unwrap();
    for path in files(&sled).into_keys() {
        let bytes = fs::read(&path).unwrap();
        for harm in [b"".as_slice(), b"x", &[0xff; 4_096]] {
            fs::write(&path, harm).unwrap();
            only_the_copy_fails(folder.path());
        }
        fs::remove_file(&path).unwrap();
        only_the_copy_fails(folder.path());
        fs::write(&path, bytes).unwrap();
    }
    assert!(verify(folder.path()).holds);
}

#[test]
fn a_stored_state_that_is_not_what_the_log_says_is_found() {
    let folder = day();
    // State of the same length and of other content: of another day.
    let other = tempfile::tempdir().unwrap();
    let mut history = History::begin(other.path(), small_segments(8));
    let phone = history.activate(1, true);
    history.authenticate(&phone, Signs::Well);
    history.store.close().unwrap();
    fs::remove_dir_all(folder.path().join("store")).unwrap();
    copy(&other.path().join("store"), &folder.path().join("store"));
    assert!(only_the_copy_fails(folder.path()));
    let report = verify(folder.path());
    let replay = report.level(Level::Replay).unwrap();
    assert_eq!(replay.outcome, Outcome::Fails, "{report}");
}

/// Runs keytrail with these arguments: exit code, standard output, standard error.
fn keytrail(arguments: &[&str], folder: &Path) -> (i32, String, String) {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_keytrail-tested"))
        .arg(arguments[0])
        .arg(folder)
        .args(&arguments[1..])
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn the_commands_say_it_in_text_and_in_json_and_are_quiet_in_a_pipe() {
    let folder = day();
    let before = files(folder.path());
    let (code, page, noise) = keytrail(&["verify"], folder.path());
    assert_eq!((code, noise.as_str()), (0, ""), "{page}");
    assert!(page.ends_with("\nevery level holds\n"), "{page}");
    let (code, json, noise) = keytrail(&["verify", "--json"], folder.path());
    let report: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((code, noise.as_str()), (0, ""));
    assert_eq!(report["holds"], true);
    assert_eq!(report["levels"][5]["level"], "signatures");
    assert_eq!(report["levels"][5]["outcome"], "holds");
    assert_eq!(report["levels"][5]["counts"]["signatures"], 13);

    let filter = ["inspect", "--json", "--position", "20..", "--type", "RegistrationLocked"];
    let (code, lines, noise) = keytrail(&filter, folder.path());
    assert_eq!((code, noise.as_str()), (0, ""));
    let row: serde_json::Value = serde_json::from_str(&lines).unwrap();
    assert_eq!(
        (&row["position"], &row["event"]["reason"]),
        (&22.into(), &"TOO_MANY_FAILURES".into())
    );
    let (_, timeline, _) = keytrail(&["inspect", "--limit", "3"], folder.path());
    assert_eq!(timeline.lines().count(), 3);
    assert_eq!(files(folder.path()), before, "nothing has changed so far");

    let (code, json, noise) = keytrail(&["rebuild", "--json"], folder.path());
    let rebuilt: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((code, noise.as_str()), (0, ""));
    assert_eq!(rebuilt["equal"], true);
    assert_eq!(rebuilt["replayed"], 34);
    assert_eq!(rebuilt["before"], report["state_digest"]);
    assert!(verify(folder.path()).holds);
}

#[test]
fn a_name_in_the_folder_cannot_write_its_own_verdict() {
    let folder = day();
    fs::write(folder.path().join("log/x\n\nevery level holds\n\u{1b}[8m"), "").unwrap();
    let (code, page, _) = keytrail(&["verify"], folder.path());
    assert_eq!(code, 0);
    assert_eq!(page.lines().filter(|line| *line == "every level holds").count(), 1, "{page}");
    assert!(!page.contains('\u{1b}'));
}

#[test]
fn a_rebuild_does_not_delete_the_only_good_copy_of_a_record() {
    let folder = day();
    let digest = verify(folder.path()).state_digest;
    let path = segments(folder.path()).remove(1);
    let mut bytes = fs::read(&path).unwrap();
    bytes[2_000] ^= 1;
    fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    fs::write(&path, bytes).unwrap();
    assert!(!verify(folder.path()).holds);
    let (code, json, noise) = keytrail(&["rebuild", "--json"], folder.path());
    assert_eq!(code, 0, "{json}{noise}");
    let report = verify(folder.path());
    assert!(report.holds, "{report}");
    assert_eq!((report.records, report.state_digest.clone()), (34, digest));
    let remarks = &report.level(Level::Records).unwrap().remarks;
    assert!(remarks.len() == 1 && remarks[0].contains(".damaged: what stood"), "{report}");
}

#[test]
fn the_commands_exit_with_1_on_damage_and_with_2_where_there_is_nothing_to_look_at() {
    let folder = day();
    let path = segments(folder.path()).remove(1);
    let mut bytes = fs::read(&path).unwrap();
    bytes[2_000] ^= 1;
    fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    fs::write(&path, bytes).unwrap();
    let name = path.file_name().unwrap().to_str().unwrap();
    let (code, page, noise) = keytrail(&["verify"], folder.path());
    assert_eq!((code, noise.as_str()), (1, ""), "{page}");
    assert!(page.contains(name) && page.ends_with("NOT every level holds\n"), "{page}");
    let (code, _, noise) = keytrail(&["inspect"], folder.path());
    assert_eq!(code, 1);
    assert!(noise.contains(name), "{noise}");

    fs::write(folder.path().join("store/sled/db"), "no database").unwrap();
    let (code, page, noise) = keytrail(&["verify"], folder.path());
    assert_eq!((code, noise.as_str()), (1, ""), "{page}");

    let empty = tempfile::tempdir().unwrap();
    for command in ["verify", "inspect", "rebuild"] {
        let (code, page, noise) = keytrail(&[command], empty.path());
        assert_eq!((code, page.as_str()), (2, ""), "{command}");
        assert!(noise.contains("no keytrail log here"), "{command}: {noise}");
    }
    assert!(files(empty.path()).is_empty(), "and nothing is made");
    let running = History::begin(empty.path(), small_segments(8));
    for command in ["verify", "inspect", "rebuild"] {
        let (code, page, noise) = keytrail(&[command], empty.path());
        assert_eq!((code, page.as_str()), (2, ""), "{command}");
        assert!(noise.contains("another keytrail runs on"), "{command}: {noise}");
    }
    running.store.close().unwrap();
}
