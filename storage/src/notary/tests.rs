use std::fs;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::*;
use crate::disk::{MemoryDisk, RealDisk};
use crate::journal::{self, Limits, Reserve};
use crate::open::{OpenError, Store};
use crate::toy::{Command, ORIGIN, Toy, World, stream};

/// A store with a notary that signs when it is told to.
struct Signed {
    store: Store<Toy>,
    notary: Notary,
}

fn options(world: &World) -> Options {
    Options {
        guard: world.dir.path().join("guard"),
        disk: Arc::new(RealDisk),
        every_ms: None,
        fatal: Arc::clone(&world.options.fatal),
    }
}

fn try_open(world: &World, folder: &Path) -> Result<Signed, String> {
    let options = options(world);
    let guard = Guard::read(&RealDisk, &options.guard).map_err(|error| error.to_string())?;
    let mut opened = world.options.clone();
    opened.journal = journal::Options {
        limits: Limits { records: 64, bytes: 1 << 20 },
        reserve: Reserve::Inline,
        ..journal::Options::default()
    };
    opened.known_heads.extend(guard.as_ref().map(Guard::known_head));
    opened.known_heads.extend(head_beside(&RealDisk, folder));
    let store = Store::<Toy>::open(folder, opened).map_err(|error: OpenError| error.to_string())?;
    let log = store.log.clone();
    let notary = Notary::start(folder, log, &store.keys, &store.origin, guard, options)
        .map_err(|error| error.to_string())?;
    Ok(Signed { store, notary })
}

fn add(world: &World, signed: &Signed, records: u64) {
    for number in 0..records {
        let stream = stream(1 + (number % 4) as u8);
        if world.execute(&signed.store.handle, Command::Add(stream, 1)).is_err() {
            world.execute(&signed.store.handle, Command::Forget(stream)).unwrap();
        }
    }
}

fn close(signed: Signed) {
    signed.notary.stop().unwrap();
    signed.store.close().unwrap();
}

/// RFC 6962, section 2.1, by pairing up hashes from the left: what is left over
/// goes up a level alone.
fn root_of(log: &LogReader, size: u64) -> Hash {
    let mut level: Vec<Hash> = (0..size)
        .map(|position| log.raw(Position(position)).unwrap())
        .map(|record| Sha256::digest([&[0][..], &record].concat()).into())
        .collect();
    while level.len() > 1 {
        let pair = |pair: &[Hash]| match pair {
            [left, right] => Sha256::digest([&[1][..], left, right].concat()).into(),
            [alone] => *alone,
            _ => unreachable!("chunks of two"),
        };
        level = level.chunks(2).map(pair).collect();
    }
    level[0]
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for item in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(item.file_name());
        if item.file_type().unwrap().is_dir() {
            copy(&item.path(), &target);
        } else {
            fs::copy(item.path(), target).unwrap();
        }
    }
}

#[test]
fn a_checkpoint_covers_what_was_durable_and_is_in_guard_and_log() {
    let world = World::new();
    let folder = world.dir.path().join("data");
    let signed = try_open(&world, &folder).unwrap();
    assert_eq!(signed.notary.evidence().latest(), None);
    for count in [1, 7, 300, 300] {
        add(&world, &signed, count);
        signed.notary.sign_now().unwrap();
        let latest = signed.notary.evidence().latest().unwrap();
        let head = signed.store.log.head();
        assert_eq!((latest.checkpoint.size, latest.chain), (head.size, head.chain));
        assert_eq!(latest.checkpoint.root, root_of(&signed.store.log, head.size));
        assert_eq!(latest.checkpoint.origin, ORIGIN);
        let key: VerifierKey =
            fs::read_to_string(folder.join("log").join(KEY_FILE)).unwrap().parse().unwrap();
        assert!(matches!(key.verify(&latest.note), Ok(Some(_))));
        let beside = fs::read_to_string(folder.join("log").join(CHECKPOINT_FILE)).unwrap();
        assert_eq!(beside, latest.note.to_string());
        let guard = Guard::read(&RealDisk, &options(&world).guard).unwrap().unwrap();
        assert_eq!(guard, *latest);
    }
    close(signed);
}

/// The checkpoints beside sealed segments: sizes and notes.
fn beside_segments(folder: &Path) -> Vec<(u64, Note)> {
    let mut found = Vec::new();
    for item in fs::read_dir(folder.join("log")).unwrap().map(Result::unwrap) {
        let name = item.file_name().into_string().unwrap();
        if name.starts_with("segment-") && name.ends_with(".checkpoint") {
            let note: Note = fs::read_to_string(item.path()).unwrap().parse().unwrap();
            found.push((Checkpoint::of_text(&note.text).unwrap().size, note));
        }
    }
    found.sort_by_key(|(size, _)| *size);
    found
}

#[test]
fn where_a_segment_ends_a_checkpoint_of_exactly_its_records_stays_beside_it() {
    let world = World::new();
    let folder = world.dir.path().join("data");
    let signed = try_open(&world, &folder).unwrap();
    // A segment takes 64 records; several end between two signatures.
    add(&world, &signed, 200);
    signed.notary.sign_now().unwrap();
    let found = beside_segments(&folder);
    let head = signed.store.log.head().size;
    let ends: Vec<u64> = journal::segments(&RealDisk, &folder.join("log"))
        .unwrap()
        .iter()
        .map(|first| first.0)
        .filter(|first| *first > 0)
        .collect();
    assert!(ends.len() >= 3 && ends.iter().all(|end| *end <= head));
    assert_eq!(found.iter().map(|(size, _)| *size).collect::<Vec<_>>(), ends);
    for (size, note) in &found {
        assert!(matches!(signed.notary.evidence().verifier().verify(note), Ok(Some(_))));
        let checkpoint = Checkpoint::of_text(&note.text).unwrap();
        assert_eq!(checkpoint.root, root_of(&signed.store.log, *size));
    }
    close(signed);
    // A process that died between guard and this file writes it at its start.
    let (size, last) = found.last().unwrap();
    let name = sealed_name(Position(ends[ends.len() - 2]));
    fs::remove_file(folder.join("log").join(&name)).unwrap();
    let guard = Guard::read(&RealDisk, &options(&world).guard).unwrap().unwrap();
    let signed = try_open(&world, &folder).unwrap();
    assert!(!folder.join("log").join(&name).exists(), "only the guard's own can be written again");
    let chain = record::chain_before(&signed.store.log.encoded(Position(*size), 1).unwrap()[0]);
    close(signed);
    let checkpoint = Checkpoint::of_text(&last.text).unwrap();
    let cut = Guard { note: last.clone(), checkpoint, chain: chain.unwrap() };
    fs::write(&options(&world).guard, cut.text()).unwrap();
    let signed = try_open(&world, &folder).unwrap();
    let again = fs::read_to_string(folder.join("log").join(&name)).unwrap();
    assert_eq!(again, last.to_string());
    close(signed);
    assert_eq!(Guard::read(&RealDisk, &options(&world).guard).unwrap().unwrap(), guard);
}

#[test]
fn a_stop_signs_what_came_last_and_a_start_goes_on_from_there() {
    let world = World::new();
    let folder = world.dir.path().join("data");
    let signed = try_open(&world, &folder).unwrap();
    add(&world, &signed, 300);
    let head = signed.store.log.head();
    close(signed);
    let signed = try_open(&world, &folder).unwrap();
    let latest = signed.notary.evidence().latest().unwrap();
    assert_eq!(latest.checkpoint.size, head.size);
    add(&world, &signed, 300);
    signed.notary.sign_now().unwrap();
    let latest = signed.notary.evidence().latest().unwrap();
    let size = signed.store.log.head().size;
    assert_eq!(latest.checkpoint.root, root_of(&signed.store.log, size));
    assert_eq!(world.fatal_messages(), [""; 0]);
}

#[test]
fn damaged_and_missing_tree_files_are_made_again_from_the_log() {
    let world = World::new();
    let folder = world.dir.path().join("data");
    let signed = try_open(&world, &folder).unwrap();
    add(&world, &signed, 600);
    close(signed);
    let level = |number: u8| folder.join("store").join("tree").join(format!("level-{number}"));
    let whole = fs::read(level(0)).unwrap();
    let mut flipped = whole.clone();
    // In the last, partial tile: the root is made from it.
    *flipped.last_mut().unwrap() ^= 1;
    for damaged in [&flipped[..], &whole[..whole.len() - 32], &[]] {
        fs::write(level(0), damaged).unwrap();
        let signed = try_open(&world, &folder).unwrap();
        close(signed);
        assert_eq!(fs::read(level(0)).unwrap(), whole);
    }
}

#[test]
fn an_older_copy_of_the_folder_is_a_rollback_and_so_is_another_log() {
    let world = World::new();
    let folder = world.dir.path().join("data");
    let signed = try_open(&world, &folder).unwrap();
    add(&world, &signed, 10);
    close(signed);
    let older = world.dir.path().join("older");
    copy(&folder, &older);
    let signed = try_open(&world, &folder).unwrap();
    add(&world, &signed, 10);
    close(signed);
    let refused = try_open(&world, &older).err().unwrap();
    assert!(refused.contains("guard"), "{refused}");
    // The older copy goes on as if nothing had been: longer, and another history.
    fs::rename(world.dir.path().join("guard"), world.dir.path().join("kept")).unwrap();
    let signed = try_open(&world, &older).unwrap();
    world.execute(&signed.store.handle, Command::Forget(stream(1))).unwrap();
    add(&world, &signed, 30);
    close(signed);
    fs::rename(world.dir.path().join("kept"), world.dir.path().join("guard")).unwrap();
    let refused = try_open(&world, &older).err().unwrap();
    assert!(refused.contains("guard"), "{refused}");
    assert!(try_open(&world, &folder).is_ok());
}

#[test]
fn a_guard_file_with_any_bit_flipped_keeps_the_log_closed() {
    let world = World::new();
    let folder = world.dir.path().join("data");
    let signed = try_open(&world, &folder).unwrap();
    add(&world, &signed, 3);
    close(signed);
    let path = world.dir.path().join("guard");
    let whole = fs::read(&path).unwrap();
    // One bit of each byte: opening a store for each of the bits takes minutes.
    for byte in (0..whole.len()).step_by(7) {
        let mut damaged = whole.clone();
        damaged[byte] ^= 1 << (byte % 8);
        fs::write(&path, &damaged).unwrap();
        assert!(try_open(&world, &folder).is_err(), "byte {byte}");
    }
    fs::write(&path, &whole).unwrap();
    assert!(try_open(&world, &folder).is_ok());
}

#[test]
fn tiles_beyond_the_checkpoint_are_not_given_out() {
    let world = World::new();
    let folder = world.dir.path().join("data");
    let signed = try_open(&world, &folder).unwrap();
    add(&world, &signed, 300);
    signed.notary.sign_now().unwrap();
    let evidence = signed.notary.evidence();
    let size = evidence.latest().unwrap().checkpoint.size;
    let tile = |level, index, width| evidence.tile(TileId { level, index }, width);
    assert_eq!(tile(0, 0, 256).unwrap().len(), 256);
    assert_eq!(tile(0, 1, size - 256).unwrap().len() as u64, size - 256);
    for (level, index, width) in [(0, 1, size - 255), (0, 2, 1), (1, 0, 2), (2, 0, 1), (0, 0, 0)] {
        assert!(tile(level, index, width).is_err(), "{level} {index} {width}");
    }
    close(signed);
}

#[test]
fn without_guard_and_second_copy_a_cut_end_is_still_seen_by_the_checkpoint_beside_it() {
    let world = World::new();
    let folder = world.dir.path().join("data");
    let signed = try_open(&world, &folder).unwrap();
    add(&world, &signed, 10);
    close(signed);
    let early = world.dir.path().join("early");
    copy(&folder, &early);
    let signed = try_open(&world, &folder).unwrap();
    add(&world, &signed, 10);
    close(signed);
    fs::remove_file(world.dir.path().join("guard")).unwrap();
    // The log of the morning under the checkpoint of the evening.
    for name in [CHECKPOINT_FILE, KEY_FILE] {
        fs::copy(folder.join("log").join(name), early.join("log").join(name)).unwrap();
    }
    let refused = try_open(&world, &early).map(close).unwrap_err();
    assert!(refused.contains("the checkpoint beside it"), "{refused}");
    // One that nobody signed says nothing.
    let path = early.join("log").join(CHECKPOINT_FILE);
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replacen("\n20\n", "\n30\n", 1)).unwrap();
    assert_eq!(head_beside(&RealDisk, &early), None);
    close(try_open(&world, &early).unwrap());
}

#[test]
fn a_guard_that_cannot_be_written_stops_the_process() {
    let world = World::new();
    let folder = world.dir.path().join("data");
    let signed = try_open(&world, &folder).unwrap();
    // A folder where the file should be: it cannot be replaced by a file.
    fs::create_dir(world.dir.path().join("guard")).unwrap();
    add(&world, &signed, 1);
    assert!(signed.notary.sign_now().is_err());
    assert_eq!(world.fatal_messages().len(), 1);
    assert_eq!(signed.notary.evidence().latest(), None, "nothing was published");
}

#[test]
fn nothing_is_signed_against_a_checkpoint_that_is_held_elsewhere() {
    let world = World::new();
    let folder = world.dir.path().join("data");
    let signed = try_open(&world, &folder).unwrap();
    add(&world, &signed, 5);
    signed.notary.sign_now().unwrap();
    let held = Held {
        holder: "the folder".into(),
        note: signed.notary.evidence().latest().unwrap().note.clone(),
    };
    add(&world, &signed, 5);
    signed.notary.stop().unwrap();
    let signer = {
        let secret = signed.store.keys.secret(SecretName::Checkpoints).unwrap();
        LogSigner::of_secret(ORIGIN, secret.expose()).unwrap()
    };
    let of = |origin: &str, size, root, signer: &LogSigner| {
        let checkpoint = Checkpoint { origin: origin.into(), size, root };
        let mut note = Note::new(checkpoint.text()).unwrap();
        note.signatures.push(signer.sign(&note.text));
        Held { note, ..held.clone() }
    };
    let start = |held: Held| {
        let mut options = options(&world);
        options.guard = world.dir.path().join("no-guard");
        let (log, keys) = (signed.store.log.clone(), &signed.store.keys);
        Notary::start_against(&folder, log, keys, ORIGIN, None, &[held], options)
    };
    let root = root_of(&signed.store.log, 7);
    let other = LogSigner::new(ORIGIN, &[3; 32]).unwrap();
    let history = |held| matches!(start(held), Err(NotaryError::OtherHistory { .. }));
    let foreign = |held| matches!(start(held), Err(NotaryError::Foreign { .. }));
    assert!(history(of(ORIGIN, 6, root, &signer)), "another root");
    assert!(history(of(ORIGIN, 1 << 40, root, &signer)), "more than there is");
    assert!(foreign(of(ORIGIN, 7, root, &other)), "another key");
    assert!(foreign(of("other", 7, root, &signer)), "another log");
    let mut spoilt = held.clone();
    spoilt.note.signatures[0].signature[8] ^= 1;
    assert!(foreign(spoilt), "a wrong signature");
    assert!(!world.dir.path().join("no-guard").exists(), "nothing was signed");
    for good in [held.clone(), of(ORIGIN, 7, root, &signer)] {
        start(good).unwrap().stop().unwrap();
    }
    signed.store.close().unwrap();
}

#[test]
fn a_full_disk_lets_the_notary_wait_and_sign_once_there_is_space() {
    let world = World::new();
    let folder = world.dir.path().join("data");
    let disk = MemoryDisk::default();
    for dir in [folder.join("log"), folder.join("store").join("tree")] {
        disk.put_dir(&dir);
    }
    let notary = Options { disk: Arc::new(disk.clone()), ..options(&world) };
    let store = Store::<Toy>::open(&folder, world.options.clone()).unwrap();
    let (log, origin) = (store.log.clone(), store.origin.clone());
    let notary = Notary::start(&folder, log, &store.keys, &origin, None, notary).unwrap();
    let signed = Signed { store, notary };
    add(&world, &signed, 10);
    disk.set_capacity(Some(disk.used()));
    // The last ones find no new record, and a tree that was not written.
    for _ in 0..12 {
        assert!(signed.notary.sign_now().is_err());
        assert_eq!(world.fatal_messages(), Vec::<String>::new());
    }
    disk.set_capacity(None);
    signed.notary.sign_now().unwrap();
    let checkpoint = signed.notary.evidence().latest().unwrap().checkpoint.clone();
    assert_eq!(checkpoint.root, root_of(&signed.store.log, checkpoint.size));
    close(signed);
}
