//! Verdicts on attestation evidence, repeated by an auditor.

use std::path::{Path, PathBuf};

use api::device::{Evidence, TestCa};
use engine::attestation::{Platform, Reason, SecurityLevel, Status};
use engine::events::{ActivationJudgedV1, Event};
use engine::ids::Position;
use engine::machine::Record;
use replay::folder::FolderError;
use replay::report::{Level, LevelReport, Outcome, Report};
use replay::verify::Options;
use serde_json::json;

use crate::client::Request;
use crate::http::attestation::{activated, list, root_serial, with, world};
use crate::http::world::{CHANCE, World, verified};
use crate::replay::{Forger, alter, commands, copy, forged_under};

/// A stopped server's folder with evidence of every kind.
struct Stopped {
    home: tempfile::TempDir,
    data: PathBuf,
}

impl Stopped {
    fn of(world: World) -> Self {
        let (data, home) = (world.data(), world.home);
        world.server.stop();
        Self { home, data }
    }

    fn keys(&self) -> PathBuf {
        self.data.join("keys")
    }
}

/// Accepted, refused, accepted under another policy, refused for a revoked root.
fn judged() -> Stopped {
    let (world, ca) = world("OPTIONAL", both());
    let made = with(Evidence::Made(ca.clone()));
    assert!(activated(&world, &made).1.accepted);
    let nonsense = with(Evidence::Given(Platform::Android, b"nonsense".to_vec()));
    assert!(activated(&world, &nonsense).1.accepted);
    world.side().configure(json!({ "attestation_android_patch_level_min": 202_611 }));
    assert!(activated(&world, &made).1.accepted);
    let revoked = json!({ root_serial(&ca): { "status": "REVOKED" } });
    assert_eq!(list(&world, &revoked).status, 200);
    assert!(activated(&world, &made).1.accepted);
    assert!(activated(&world, &with(Evidence::None)).1.accepted);
    Stopped::of(world)
}

/// Evidence of either platform is looked at.
fn both() -> serde_json::Value {
    json!({
        "attestation_apple_mode": "OPTIONAL",
        "attestation_apple_app_ids": ["A1B2C3D4E5.org.example.app"],
    })
}

fn level(report: &Report) -> &LevelReport {
    report.level(Level::Attestation).unwrap()
}

fn counts(report: &Report) -> [u64; 4] {
    ["evidence", "repeated", "sealed", "erased"].map(|name| level(report).count(name))
}

fn by_keys(dir: &Path, keys: &Path) -> Result<Report, FolderError> {
    replay::verify(dir, &Options { keys: Some(keys.to_owned()), ..Options::default() })
}

#[test]
fn true_verdicts_are_repeated_each_under_the_policy_and_list_of_its_time() {
    let stopped = judged();
    let report = verified(&stopped.data);
    assert_eq!(level(&report).outcome, Outcome::Holds, "{report}");
    assert_eq!(counts(&report), [4, 4, 0, 0]);
    assert_eq!(level(&report).remarks, [] as [&str; 0]);
    let before = crate::replay::files(&stopped.data);
    assert!(by_keys(&stopped.data, &stopped.keys()).unwrap().holds);
    assert_eq!(crate::replay::files(&stopped.data), before, "nothing changes by looking");
}

#[test]
fn without_keys_verdicts_are_sealed_which_is_no_failure() {
    let stopped = judged();
    let copied = tempfile::tempdir().unwrap();
    copy(&stopped.data.join("log"), &copied.path().join("log"));
    let report = verified(copied.path());
    assert_eq!(level(&report).outcome, Outcome::Absent, "{report}");
    assert_eq!(counts(&report), [4, 0, 4, 0]);
    assert!(level(&report).remarks[0].contains("evidence sealed: there is no key store"));
    let report = by_keys(copied.path(), &stopped.keys()).unwrap();
    assert_eq!((level(&report).outcome, counts(&report)), (Outcome::Holds, [4, 4, 0, 0]));
    let none = by_keys(copied.path(), copied.path()).unwrap_err();
    assert!(none.to_string().contains("no key store here"), "{none}");
    // One that does not fit together is as good as none where nobody named it.
    copy(&stopped.keys(), &copied.path().join("keys"));
    std::fs::remove_file(copied.path().join("keys/wrapping.key")).unwrap();
    let report = verified(copied.path());
    assert_eq!(counts(&report), [4, 0, 4, 0]);
    assert!(level(&report).remarks[0].contains("wrapping.key is missing"), "{report}");
    assert!(matches!(
        by_keys(copied.path(), &copied.path().join("keys")),
        Err(FolderError::Keys(_))
    ));
}

#[test]
fn after_an_erasure_the_verdict_stands_and_its_evidence_is_erased() {
    let (world, ca) = world("OPTIONAL", json!({}));
    activated(&world, &with(Evidence::Made(ca.clone())));
    let erased = world.send(&Request::new("DELETE", "/v1/users/anna").by(&world.callers.bank));
    assert_eq!(erased.status, 200, "{}", erased.text());
    activated(&world, &with(Evidence::Made(ca)));
    let stopped = Stopped::of(world);
    let report = verified(&stopped.data);
    assert_eq!(counts(&report), [2, 1, 0, 1], "{report}");
    assert!(level(&report).remarks[0].contains("evidence erased"), "{report}");
    // The log alone says it too.
    let copied = tempfile::tempdir().unwrap();
    copy(&stopped.data.join("log"), &copied.path().join("log"));
    assert_eq!(counts(&verified(copied.path())), [2, 0, 1, 1]);
    drop(stopped.home);
}

/// Levels that fail once the log was changed by a forger who makes every hash anew.
fn failing(stopped: &Stopped, change: impl FnOnce(&mut Vec<Vec<Record>>)) -> (Vec<Level>, String) {
    let mut commands = commands(&stopped.data);
    let origin = origin(&commands);
    // Digests of state, at the end, would give away what the forger made of it.
    commands.retain(|command| !matches!(event(&command[0]), Event::StateDigested(_)));
    change(&mut commands);
    let folder = forged_under(&origin, commands, Forger::Thorough);
    let report = by_keys(folder.path(), &stopped.keys()).unwrap();
    let failing = report.levels.iter().filter(|level| level.outcome == Outcome::Fails);
    let levels = failing.map(|level| level.level).collect();
    let what = level(&report).failures.first().map(|failure| failure.what.clone());
    (levels, what.unwrap_or_default())
}

fn origin(commands: &[Vec<Record>]) -> String {
    match event(&commands[0][0]) {
        Event::LogStarted(started) => started.origin,
        other => panic!("{other:?}"),
    }
}

fn event(record: &Record) -> Event {
    let draft = &record.draft;
    Event::decode(draft.event_type, draft.schema, &draft.clear).unwrap()
}

/// Positions of the activations that were judged.
fn activations(commands: &[Vec<Record>]) -> Vec<Position> {
    let judged = |record: &&Record| matches!(event(record), Event::ActivationJudged(_));
    commands.iter().flatten().filter(judged).map(|record| record.position).collect()
}

/// Changes what was recorded of an activation, by their number.
fn altered(
    stopped: &Stopped,
    number: usize,
    change: impl FnOnce(&mut ActivationJudgedV1),
) -> (Vec<Level>, String) {
    failing(stopped, |commands| {
        let position = activations(commands)[number];
        alter(commands, position.0, |event| match event {
            Event::ActivationJudged(judged) => change(judged),
            other => panic!("{other:?}"),
        });
    })
}

#[test]
fn a_verdict_that_is_not_true_is_found_by_judging_the_evidence_again() {
    let stopped = judged();
    assert_eq!(failing(&stopped, |_| ()), (vec![], String::new()));
    // The rules find nothing in any of these: a verdict is what they are told.
    let only = vec![Level::Attestation];
    let (levels, what) = altered(&stopped, 1, |judged| {
        judged.attestation = Status::Verified;
        judged.evidence.as_mut().unwrap().reason = None;
    });
    assert_eq!(levels, only);
    assert_eq!(what, "the evidence is recorded as accepted and is refused (EVIDENCE_UNREADABLE)");
    let (levels, what) = altered(&stopped, 0, |judged| {
        judged.attestation = Status::Refused;
        judged.evidence.as_mut().unwrap().reason = Some(Reason::OtherKey);
    });
    assert_eq!(levels, only);
    assert_eq!(what, "the evidence is recorded as refused (OTHER_KEY) and is accepted");
    let (levels, what) = altered(&stopped, 0, |judged| {
        let strong = Some(SecurityLevel::StrongBox);
        judged.evidence.as_mut().unwrap().facts.security_level = strong;
    });
    assert_eq!(levels, only);
    assert_eq!(what, "the recorded facts of the evidence are not what is in it");
    let (levels, what) = altered(&stopped, 0, |judged| {
        judged.evidence.as_mut().unwrap().authorities.clear();
    });
    assert_eq!(levels, only);
    assert_eq!(what, "the recorded certificates of the evidence are not what is in it");
    let (levels, what) = altered(&stopped, 0, |judged| {
        judged.attestation = Status::NotGiven;
        judged.evidence = None;
    });
    assert_eq!(levels, only);
    assert_eq!(what, "evidence came, the application asks for it, and no verdict stands");
    drop(stopped.home);
}

#[test]
fn evidence_that_is_not_what_the_device_sent_is_found() {
    let stopped = judged();
    let (levels, what) = failing(&stopped, |commands| {
        let position = activations(commands)[0];
        let record = commands.iter_mut().flatten().find(|record| record.position == position);
        *record.unwrap().draft.sealed.last_mut().unwrap() ^= 1;
    });
    assert_eq!(levels, [Level::Attestation]);
    assert!(what.contains("does not open"), "{what}");
    let (levels, what) = failing(&stopped, |commands| {
        let position = activations(commands)[0];
        let record = commands.iter_mut().flatten().find(|record| record.position == position);
        record.unwrap().draft.sealed.clear();
    });
    assert_eq!(levels, [Level::Records, Level::Rules, Level::Attestation]);
    assert_eq!(what, "no evidence is in the sealed part");
    // The hash is signed by the device: another one breaks its signatures too.
    let (levels, what) = altered(&stopped, 0, |judged| judged.attestation_hash[0] ^= 1);
    assert_eq!(levels, [Level::Signatures, Level::Attestation]);
    assert_eq!(what, "the sealed evidence is not that of the recorded hash");
    drop(stopped.home);
}

#[test]
fn a_policy_or_list_that_was_not_in_force_is_found_and_so_is_a_list_that_is_missing() {
    let stopped = judged();
    let both = vec![Level::Rules, Level::Attestation];
    let (levels, what) = altered(&stopped, 2, |judged| {
        judged.evidence.as_mut().unwrap().config_version = 1;
    });
    assert_eq!(levels, both);
    assert_eq!(what, "judged under version 1 of the configuration, and version 2 was in force");
    let (levels, what) = altered(&stopped, 3, |judged| {
        judged.evidence.as_mut().unwrap().list = None;
    });
    assert_eq!(levels, both);
    assert!(what.starts_with("judged with no revocation list, and the revocation list of record"));
    let (levels, what) = failing(&stopped, |commands| {
        let taken =
            |command: &Vec<Record>| matches!(event(&command[0]), Event::RevocationListTaken(_));
        let place = commands.iter().position(taken).unwrap();
        commands.remove(place);
    });
    assert!(levels.contains(&Level::Attestation), "{levels:?}");
    assert!(what.ends_with("and no revocation list was in force"), "{what}");
    drop(stopped.home);
}

#[test]
fn a_log_without_evidence_has_nothing_to_repeat() {
    let ca = TestCa::generate(CHANCE).unwrap();
    let (world, _) = world("OFF", json!({}));
    activated(&world, &with(Evidence::Made(ca)));
    let report = world.stop_and_verify();
    assert_eq!((level(&report).outcome, counts(&report)), (Outcome::Absent, [0; 4]));
    assert_eq!(level(&report).remarks, ["no evidence was judged"]);
}
