//! Digests of state that the log records of itself.

use std::path::Path;
use std::sync::Arc;

use api::settings::Settings;
use engine::command::Want;
use engine::events::{Event, StateDigestedV1};
use engine::ids::Position;
use engine::machine::Machine;
use replay::report::{Level, LevelReport, Outcome};
use replay::verify::{Options, verify};
use storage::disk::RealDisk;

use crate::client::Request;
use crate::history::{Counter, History, small_segments};
use crate::http::world::World;
use crate::replay::{copy, files};
use crate::server::{InProcess, Launch};

#[track_caller]
fn replayed(folder: &Path) -> LevelReport {
    let report = verify(folder, &Options::default()).unwrap();
    report.level(Level::Replay).unwrap().clone()
}

/// A day, and then what a server says of its state at `position`.
fn day_that_says(say: impl FnOnce(Position, [u8; 32]) -> StateDigestedV1) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut history = History::day(folder.path(), small_segments(8));
    let (position, digest) = history.store.digest().unwrap();
    // What comes in between is not in the digest.
    history.configure("failures_allowed", "3");
    assert_eq!(history.done(Want::NoteStateDigest(say(position, digest))).len(), 1);
    history.configure("failures_allowed", "4");
    history.store.close().unwrap();
    folder
}

fn said(position: Position, digest: [u8; 32]) -> StateDigestedV1 {
    StateDigestedV1 { position, state_version: engine::Keytrail::STATE_VERSION, digest }
}

#[test]
fn a_true_digest_holds_also_in_a_copy_without_any_state() {
    let folder = day_that_says(said);
    let report = replayed(folder.path());
    assert_eq!((report.outcome, report.count("digests_compared")), (Outcome::Holds, 1));
    let alone = tempfile::tempdir().unwrap();
    copy(&folder.path().join("log"), &alone.path().join("log"));
    let report = replayed(alone.path());
    assert_eq!((report.outcome, report.count("digests_compared")), (Outcome::Holds, 1));
}

#[test]
fn a_wrong_digest_fails_and_says_where() {
    for (wrong, words) in [
        (
            day_that_says(|position, mut digest| {
                digest[31] ^= 1;
                said(position, digest)
            }),
            "before record 34",
        ),
        (day_that_says(|position, digest| said(Position(position.0 - 1), digest)), "record 33"),
        (day_that_says(|position, digest| said(Position(position.0 + 9), digest)), "later"),
    ] {
        let report = replayed(wrong.path());
        assert_eq!(report.outcome, Outcome::Fails);
        let [failure] = &report.failures[..] else { panic!("{report:?}") };
        assert_eq!(failure.place.position, Some(35));
        assert!(failure.what.contains(words), "{failure}");
    }
}

#[test]
fn a_digest_of_another_layout_is_left_to_the_version_that_wrote_it() {
    let other = day_that_says(|position, digest| StateDigestedV1 {
        state_version: engine::Keytrail::STATE_VERSION + 1,
        ..said(position, digest)
    });
    let report = replayed(other.path());
    assert_eq!((report.outcome, report.count("digests_compared")), (Outcome::Holds, 0));
    assert!(report.remarks.iter().any(|remark| remark.contains("another layout")));
}

/// Waits until the last record of a server that nobody asks anything notes a digest.
fn until_digested(server: &InProcess) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut head = server.app.log.watch();
    loop {
        let last = head.borrow_and_update().size - 1;
        let record = server.app.log.record(Position(last)).unwrap();
        if matches!(api::call::event_of(&record).unwrap(), Event::StateDigested(_)) {
            return;
        }
        runtime.block_on(head.changed()).unwrap();
    }
}

#[test]
fn a_server_notes_digests_as_it_runs_and_at_a_stop_and_none_where_nothing_happened() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data");
    let clock = Counter::at(1_700_000_000_000_000);
    let settings = || Settings { data: data.clone(), snapshot_records: 100, ..Settings::default() };
    let start = || InProcess::with(settings(), Arc::clone(&clock) as _, Arc::new(RealDisk));
    let server = start();
    let administrator = server.administrator.clone().unwrap();
    for number in 0..120 {
        let body = serde_json::json!({ "role": "AUDITOR", "name": format!("key {number}") });
        let made = Request::post("/admin/v1/api-keys", &body).by(&administrator);
        assert_eq!(made.send(server.address).status, 201);
    }
    until_digested(&server);
    server.stop();
    let count = replayed(&data).count("digests_compared");
    assert_eq!(count, 1, "one after a hundred records; the stop has nothing to add");
    let records = verify(&data, &Options::default()).unwrap().records;
    start().stop();
    start().stop();
    let report = verify(&data, &Options::default()).unwrap();
    assert!(report.holds, "{report}");
    assert_eq!(report.records, records, "a start and a stop are no event");
}

#[test]
fn a_digest_from_before_an_erasure_holds_after_it_after_a_rebuild_and_without_keys() {
    let world = World::start();
    let phone = world.side().phone(&api::device::ActivationOptions::default());
    // A clean stop notes a digest.
    let world = world.restart();
    let erased = Request::new("DELETE", "/v1/users/anna").by(&world.callers.bank);
    assert_eq!(world.send(&erased).status, 200);
    assert!(world.side().seen_registration(phone.registration_id()).user_ref.is_none());
    let World { server, home, callers: _ } = world;
    server.stop();
    let data = home.path().join("data");
    let compared = |folder: &Path| {
        let report = verify(folder, &Options::default()).unwrap();
        assert!(report.holds, "{report}");
        report.level(Level::Replay).unwrap().count("digests_compared")
    };
    assert_eq!(compared(&data), 2);
    let command = env!("CARGO_BIN_EXE_keytrail-tested");
    let mut rebuild = std::process::Command::new(command);
    let rebuilt = rebuild.arg("rebuild").arg(&data).output().unwrap();
    assert!(rebuilt.status.success(), "{}", String::from_utf8_lossy(&rebuilt.stderr));
    assert_eq!(compared(&data), 2);
    let without = tempfile::tempdir().unwrap();
    copy(&data, without.path());
    std::fs::remove_dir_all(without.path().join("keys")).unwrap();
    let before = files(without.path());
    assert_eq!(compared(without.path()), 2);
    assert_eq!(files(without.path()), before);
    // And the server goes on over what was made again.
    Launch::on(&data).start().stop();
    assert_eq!(compared(&data), 2);
}
