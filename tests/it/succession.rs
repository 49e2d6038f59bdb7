//! A key follows another, a log goes on after a loss: what holds before and
//! after, and what a process that dies in between leaves.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use api::device::{ActivationOptions, AuthenticationOptions};
use api::maintenance::{MaintenanceError, recover, rotate_key};
use api::ports::{SystemClock, SystemEntropy};
use api::service::Ports;
use api::settings::Settings;
use engine::command::Want;
use engine::events::KeyRotatedV1;
use engine::key::KeyBytes;
use replay::proof::Receipt;
use replay::report::{Level, Outcome, Report};
use replay::verify::{Kept, Options, verify};
use storage::disk::{Disk, DiskFile, Open, Privacy, RealDisk};
use storage::notary::{CHECKPOINT_FILE, KEY_FILE};
use storage::note::{Checkpoint, LogSigner, Note, VerifierKey};

use crate::client::Request;
use crate::history::{History, small_segments};
use crate::http::world::{World, api_key};
use crate::replay::copy;
use crate::server::{InProcess, Launch};

fn ports() -> Ports {
    Ports { clock: Arc::new(SystemClock::start()), entropy: Arc::new(SystemEntropy) }
}

fn settings(data: &Path) -> Settings {
    Settings { data: data.to_owned(), segment_mib: 4, ..Settings::default() }
}

fn real() -> Arc<dyn Disk> {
    Arc::new(RealDisk)
}

fn key_beside(data: &Path) -> VerifierKey {
    fs::read_to_string(data.join("log").join(KEY_FILE)).unwrap().parse().unwrap()
}

fn checkpoint(data: &Path) -> Note {
    fs::read_to_string(data.join("log").join(CHECKPOINT_FILE)).unwrap().parse().unwrap()
}

fn size(note: &Note) -> u64 {
    Checkpoint::of_text(&note.text).unwrap().size
}

fn by_key(data: &Path, key: &VerifierKey, since: &[&Note]) -> Report {
    let kept = |note: &&Note| Kept { name: "kept".into(), note: Note::clone(note) };
    let since = since.iter().map(kept).collect();
    verify(data, &Options { key: Some(key.clone()), since, ..Options::default() }).unwrap()
}

#[track_caller]
fn outcome(report: &Report, level: Level) -> Outcome {
    report.level(level).unwrap().outcome
}

fn keytrail(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_keytrail-tested")).args(arguments).output().unwrap()
}

fn text(world: &World, path: &str, by: &str) -> String {
    let answer = world.send(&Request::get(path).by(by));
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    answer.text()
}

#[test]
fn after_a_rotation_the_old_key_holds_up_to_it_and_the_new_one_from_there() {
    let world = World::start();
    let auditor = api_key(world.address(), &world.callers.administrator, "AUDITOR", None);
    let auditor = auditor.bearer.unwrap();
    let phone = world.side().phone(&ActivationOptions::default());
    let before = world.side().log_in(&phone, &AuthenticationOptions::default());
    let world = world.restart();
    let path = format!("/v1/operations/{}/receipt", before.operation_id);
    let old_receipt: Receipt = text(&world, &path, &world.callers.bank).parse().unwrap();
    let World { server, home, callers } = world;
    server.stop();
    let data = home.path().join("data");
    let (old, old_note) = (key_beside(&data), checkpoint(&data));
    let old_secret = fs::read(data.join("keys/checkpoints.key")).unwrap();

    let rotated = keytrail(&["key", "rotate", "--data", data.to_str().unwrap()]);
    assert!(rotated.status.success(), "{}", String::from_utf8_lossy(&rotated.stderr));
    let new = key_beside(&data);
    let said = String::from_utf8(rotated.stdout).unwrap();
    assert!(said.contains(&old.to_string()) && said.contains(&new.to_string()), "{said}");
    assert_eq!(size(&checkpoint(&data)), size(&old_note) + 1);
    for item in fs::read_dir(data.join("keys")).unwrap() {
        let bytes = fs::read(item.unwrap().path()).unwrap();
        assert!(!bytes.windows(32).any(|window| window == &old_secret[8..40]), "it is destroyed");
    }

    let server = Launch::on(&data).start();
    let world = World { server, home, callers };
    let after = world.side().log_in(&phone, &AuthenticationOptions::default());
    let world = world.restart();
    let path = format!("/v1/operations/{}/receipt", after.operation_id);
    let new_receipt: Receipt = text(&world, &path, &world.callers.bank).parse().unwrap();
    assert_eq!(text(&world, "/audit/v1/checkpoint-key", &auditor).trim(), new.to_string());
    let World { server, home: _home, callers: _ } = world;
    server.stop();
    assert!(old_receipt.check(&old, None).is_ok() && old_receipt.check(&new, None).is_err());
    assert!(new_receipt.check(&new, None).is_ok() && new_receipt.check(&old, None).is_err());

    // Once more, and now with a checkpoint of the middle.
    let middle_note = checkpoint(&data);
    let rotated = rotate_key(&settings(&data), &ports(), &real(), None).unwrap();
    assert_eq!((&rotated.old, rotated.position), (&new, size(&middle_note)));
    for key in [&old, &new, &rotated.new] {
        let report = by_key(&data, key, &[&old_note, &middle_note]);
        assert!(report.holds, "{report}");
        let remarks = &report.level(Level::Checkpoints).unwrap().remarks;
        assert_eq!(remarks.iter().filter(|it| it.contains("replaced the key")).count(), 2);
    }
    let stranger = LogSigner::new(&old.name, &[7; 32]).unwrap();
    let report = by_key(&data, stranger.verifier(), &[&old_note]);
    assert_eq!(outcome(&report, Level::Checkpoints), Outcome::Fails);
    assert_eq!(outcome(&report, Level::Since), Outcome::Fails);
}

#[test]
fn an_old_key_signs_nothing_after_its_end_and_a_new_one_nothing_before() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data");
    InProcess::start(&data, Arc::new(SystemClock::start()), real()).stop();
    let secret = fs::read(data.join("keys/checkpoints.key")).unwrap();
    let old = LogSigner::of_secret(&key_beside(&data).name, secret[8..40].try_into().unwrap());
    let old = old.unwrap();
    let old_note = checkpoint(&data);
    rotate_key(&settings(&data), &ports(), &real(), None).unwrap();
    let secret = fs::read(data.join("keys/checkpoints.key")).unwrap();
    let new = LogSigner::of_secret(&old.verifier().name, secret[8..40].try_into().unwrap());
    let new = new.unwrap();
    let signed = |signer: &LogSigner, text: &str| {
        let mut note = Note::new(text.to_owned()).unwrap();
        note.signatures.push(signer.sign(text));
        note
    };
    let late = checkpoint(&data).text;
    for (note, holds) in [
        (signed(&old, &old_note.text), true),
        (signed(&new, &old_note.text), false),
        (signed(&new, &late), true),
        (signed(&old, &late), false),
    ] {
        let report = by_key(&data, old.verifier(), &[&note]);
        assert_eq!(outcome(&report, Level::Since) == Outcome::Holds, holds, "{report}");
    }
}

#[test]
fn a_rotation_that_the_old_key_has_not_signed_is_found_in_its_record() {
    let folder = tempfile::tempdir().unwrap();
    let mut history = History::day(folder.path(), small_segments(8));
    let position = history.store.log.head().size;
    let key = |number: u8| LogSigner::new("x", &[number; 32]).unwrap();
    let bytes =
        |number: u8| -> KeyBytes { key(number).verifier().ecdsa_key().unwrap().to_stored() };
    history.done(Want::RotateKey(Box::new(KeyRotatedV1 {
        origin: history.store.origin.clone(),
        size: position,
        root: [0; 32],
        old_key: bytes(1),
        new_key: bytes(2),
        old_signature: key(2).sign("x").signature,
        new_signature: key(2).sign("x").signature,
    })));
    history.store.close().unwrap();
    let report = verify(folder.path(), &Options::default()).unwrap();
    let level = report.level(Level::Checkpoints).unwrap();
    assert_eq!(level.outcome, Outcome::Fails, "{report}");
    assert!(level.failures.iter().all(|failure| failure.place.position == Some(position)));
    let said: Vec<_> = level.failures.iter().map(|failure| failure.what.as_str()).collect();
    assert!(said.iter().any(|what| what.contains("tree")), "{said:?}");
    assert!(said.iter().any(|what| what.contains("both keys")), "{said:?}");
}

#[test]
fn an_anchor_of_the_old_key_is_believed_and_one_of_a_lost_history_is_not_fed() {
    let home = tempfile::tempdir().unwrap();
    let (data, anchor) = (home.path().join("data"), home.path().join("anchor"));
    fs::create_dir(&anchor).unwrap();
    let with = |anchor: &Path| Settings {
        anchor_dir: Some(anchor.to_owned()),
        require_anchors: true,
        ..settings(&data)
    };
    counting(with(&anchor), 1);
    rotate_key(&with(&anchor), &ports(), &real(), None).unwrap();
    // What it holds is signed with the old key; it gets what the new one signs.
    counting(with(&anchor), 2);
    let backup = home.path().join("backup");
    copy(&data, &backup);
    let files = fs::read_dir(&anchor).unwrap().count();
    counting(with(&anchor), 3);
    assert!(fs::read_dir(&anchor).unwrap().count() > files);

    // The whole folder is put back, guard and all: the anchor alone knows.
    fs::remove_dir_all(&data).unwrap();
    copy(&backup, &data);
    let flag = anchor.to_str().unwrap();
    let Err((_, said)) = Launch::on(&data).flag("--anchor-dir", flag).try_start() else {
        panic!("it must not start")
    };
    assert!(said.contains("rollback"), "{said}");
    let recovered = recover(&with(&anchor), &ports(), &real()).unwrap();
    assert!(recovered.begun.lost().is_some());
    let Err((_, said)) = Launch::on(&data).flag("--anchor-dir", flag).try_start() else {
        panic!("the folder is that of the former origin")
    };
    assert!(said.contains("anchor"), "{said}");
    let fresh = home.path().join("fresh");
    fs::create_dir(&fresh).unwrap();
    counting(with(&fresh), 4);
    assert!(by_key(&data, &recovered.key, &[]).holds);
}

/// A disk that fails from the n-th change on, as the end of the process does.
struct Dying {
    left: Arc<AtomicI64>,
}

struct DyingFile {
    file: Box<dyn DiskFile>,
    left: Arc<AtomicI64>,
}

fn alive(left: &AtomicI64) -> io::Result<()> {
    if left.fetch_sub(1, Ordering::SeqCst) > 0 { Ok(()) } else { Err(io::Error::other("dead")) }
}

impl Disk for Dying {
    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn DiskFile>> {
        if matches!(how, Open::Create(_) | Open::Replace(_)) {
            alive(&self.left)?;
        }
        let file = RealDisk.open(path, how)?;
        Ok(Box::new(DyingFile { file, left: Arc::clone(&self.left) }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        alive(&self.left)?;
        RealDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        alive(&self.left)?;
        RealDisk.remove(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        RealDisk.list(dir)
    }

    fn create_dir(&self, dir: &Path, privacy: Privacy) -> io::Result<()> {
        RealDisk.create_dir(dir, privacy)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        alive(&self.left)?;
        RealDisk.sync_dir(dir)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        RealDisk.exists(path)
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        RealDisk.free_bytes(dir)
    }
}

impl DiskFile for DyingFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(out, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if let Err(dead) = alive(&self.left) {
            // The last write got half way.
            self.file.write_at(&bytes[..bytes.len() / 2], offset)?;
            self.left.store(i64::MIN / 2, Ordering::SeqCst);
            return Err(dead);
        }
        self.file.write_at(bytes, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        alive(&self.left)?;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        alive(&self.left)?;
        self.file.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        alive(&self.left)?;
        self.file.sync_all()
    }

    fn set_read_only(&self) -> io::Result<()> {
        alive(&self.left)?;
        self.file.set_read_only()
    }
}

#[test]
fn a_rotation_cut_short_anywhere_leaves_a_store_that_starts_and_a_log_that_holds() {
    let home = tempfile::tempdir().unwrap();
    let whole = home.path().join("whole");
    InProcess::start(&whole, Arc::new(SystemClock::start()), real()).stop();
    let old = key_beside(&whole);
    let (mut kept, mut rotated) = (0, 0);
    for point in 0.. {
        let data = home.path().join(format!("at-{point}"));
        copy(&whole, &data);
        let disk: Arc<dyn Disk> = Arc::new(Dying { left: Arc::new(AtomicI64::new(point)) });
        let fatal: storage::open::Fatal = Arc::new(|_| ());
        let done = rotate_key(&settings(&data), &ports(), &disk, Some(fatal)).is_ok();
        InProcess::start(&data, Arc::new(SystemClock::start()), real()).stop();
        let report = by_key(&data, &old, &[]);
        assert!(report.holds, "cut at {point}: {report}");
        assert!(!data.join("keys/checkpoints-next.key").exists(), "cut at {point}");
        let names = report.events.get("KeyRotated").copied().unwrap_or(0);
        let new = key_beside(&data);
        assert_eq!(new != old, names == 1, "cut at {point}");
        fs::remove_dir_all(&data).unwrap();
        match names {
            0 => kept += 1,
            _ => rotated += 1,
        }
        if done {
            break;
        }
    }
    assert!(kept > 5 && rotated > 5, "{kept} {rotated}");
}

#[test]
fn a_log_that_lost_records_goes_on_under_a_new_origin_and_says_what_is_lost() {
    let home = tempfile::tempdir().unwrap();
    let (data, guard) = (home.path().join("data"), home.path().join("guard"));
    let launch = Launch::on(&data).flag("--guard", guard.to_str().unwrap());
    launch.start().stop();
    let early = checkpoint(&data);
    let backup = home.path().join("backup");
    copy(&data, &backup);
    let with_guard = || Settings { guard: Some(guard.clone()), ..settings(&data) };
    counting(with_guard(), 1);
    let (old, late) = (key_beside(&data), checkpoint(&data));
    assert!(size(&late) > size(&early));
    let restored = || {
        fs::remove_dir_all(&data).unwrap();
        copy(&backup, &data);
    };
    restored();
    let Err((status, said)) = launch.try_start() else { panic!("it must not start") };
    assert_eq!(status.code(), Some(1));
    assert!(said.contains("the guard file"), "{said}");

    let words = ["--data", data.to_str().unwrap(), "--guard", guard.to_str().unwrap()];
    let refused = keytrail(&[&["recover"][..], &words].concat());
    assert_eq!(refused.status.code(), Some(2), "not without being told");
    let done = keytrail(&[&["recover", "--accept-loss"][..], &words].concat());
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let said = String::from_utf8(done.stdout).unwrap();
    let range = format!("records {} to {}", size(&early), size(&late) - 1);
    assert!(said.contains(&range), "{said}");
    let (new, first) = (key_beside(&data), checkpoint(&data));
    assert_ne!(new.name, old.name);
    assert_eq!(new.ecdsa_key(), old.ecdsa_key());
    assert_eq!(size(&first), size(&early) + 1);

    counting(with_guard(), 2);
    for key in [&old, &new] {
        let report = by_key(&data, key, &[&early, &first]);
        assert!(report.holds, "{report}");
        let [epoch] = &report.epochs[..] else { panic!("{report}") };
        assert_eq!((epoch.begun_at, epoch.known_size), (size(&early), size(&late)));
        assert!(report.to_string().contains("LOST"), "{report}");
        // Who kept a checkpoint of what was lost is told so.
        let report = by_key(&data, key, &[&late]);
        assert_eq!(outcome(&report, Level::Since), Outcome::Fails, "{report}");
        assert!(report.level(Level::Since).unwrap().failures[0].means.contains("lost"));
    }
    let again = recover(&with_guard(), &ports(), &real());
    assert!(matches!(again, Err(MaintenanceError::NothingLost)), "{again:?}");

    // The same copy put back once more goes on under a third name.
    restored();
    let third = recover(&with_guard(), &ports(), &real()).unwrap();
    assert!(third.begun.origin != new.name && third.begun.origin != old.name);
    assert_eq!(third.begun.previous_origin, old.name);
    counting(with_guard(), 3);
    assert!(by_key(&data, &old, &[&early]).holds);
    assert_eq!(outcome(&by_key(&data, &old, &[&first]), Level::Since), Outcome::Fails);
}

/// Runs a server that counts key use once, so that histories differ.
fn counting(settings: Settings, service_provider: u64) {
    let server = InProcess::with(settings, Arc::new(SystemClock::start()), real());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let since = engine::ids::Micros(1);
    let counts = engine::events::KeyUseCountedV1 { since, service_provider, device: 1 };
    runtime.block_on(server.app.execute_own(Want::CountKeyUse(counts))).unwrap();
    server.stop();
}

#[test]
fn another_history_is_given_up_by_its_root_and_an_earlier_try_is_finished() {
    let home = tempfile::tempdir().unwrap();
    let (data, guard) = (home.path().join("data"), home.path().join("guard"));
    let with_guard = || Settings { guard: Some(guard.clone()), ..settings(&data) };
    counting(with_guard(), 1);
    let backup = home.path().join("backup");
    copy(&data, &backup);
    counting(with_guard(), 2);
    let (lost, lost_guard) = (checkpoint(&data), fs::read(&guard).unwrap());
    // The copy is put back, its guard is lost, and it goes on for longer.
    fs::remove_dir_all(&data).unwrap();
    copy(&backup, &data);
    fs::remove_file(&guard).unwrap();
    counting(with_guard(), 3);
    counting(with_guard(), 4);
    assert!(size(&checkpoint(&data)) > size(&lost));
    fs::write(&guard, &lost_guard).unwrap();
    let Err((_, said)) = Launch::on(&data).flag("--guard", guard.to_str().unwrap()).try_start()
    else {
        panic!("it must not start")
    };
    assert!(said.contains("guard file") || said.contains("rollback"), "{said}");

    let recovered = recover(&with_guard(), &ports(), &real()).unwrap();
    assert_eq!(recovered.begun.lost(), None);
    assert_eq!(recovered.begun.known_size, size(&lost));
    let head = size(&checkpoint(&data));
    // As a process leaves it that died behind the event.
    fs::write(&guard, &lost_guard).unwrap();
    let again = recover(&with_guard(), &ports(), &real()).unwrap();
    assert_eq!(again, recovered);
    assert_eq!(size(&checkpoint(&data)), head, "no second event");
    counting(with_guard(), 5);
    let report = by_key(&data, &recovered.key, &[]);
    assert!(report.holds && report.to_string().contains("LOST"), "{report}");
    // It covers as many records as were left, and other ones.
    assert_eq!(outcome(&by_key(&data, &recovered.key, &[&lost]), Level::Since), Outcome::Fails);
}

#[test]
fn the_command_erases_through_the_server_and_names_nobody() {
    let world = World::start();
    let phone = world.side().phone(&ActivationOptions::default());
    let file = world.data().with_file_name("bank.key");
    fs::write(&file, format!("{}\n", world.callers.bank)).unwrap();
    let url = format!("http://{}", world.address());
    let erase = |users: &[&str]| {
        let words = ["erase", "--server", &url, "--api-key", file.to_str().unwrap()];
        keytrail(&[&words[..], &["--reason", "USER_REQUEST"], users].concat())
    };
    let done = erase(&["anna"]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let said = String::from_utf8(done.stdout).unwrap();
    assert!(said.starts_with("user 1 of 1: subject ") && !said.contains("anna"), "{said}");
    assert_eq!(world.side().seen_registration(phone.registration_id()).user_ref, None);
    let again = erase(&["anna"]);
    assert_eq!(again.status.code(), Some(1));
    let said = String::from_utf8(again.stderr).unwrap();
    assert!(said.contains("not_found") && !said.contains("anna"), "{said}");
    let unknown = erase(&["--reason", "WHY", "anna"]);
    assert!(!unknown.status.success());
    world.stop_and_verify();
}
