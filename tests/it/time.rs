//! What was known at a moment, how a registration came to be what it is, what
//! another configuration would have done, and the log written out.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use engine::Keytrail;
use engine::command::{RequestActivation, StartActivation, Want};
use engine::entries::Look;
use engine::events::Event;
use engine::ids::{Id, Micros, Position};
use engine::inverse::command_of;
use engine::machine::Record;
use engine::reasons::{CodeKind, ReasonGiven, RegistrationState};
use replay::export::{Range, jsonl, jsonl_file, manifest_path};
use replay::history::{Chapter, history};
use replay::inspect::{Filter, Row};
use replay::moment::moment;
use replay::what_if::{Commands, Locks, Options, Tally, WhatIf, properties, what_if};
use replay::{At, ReplayError};
use serde_json::Value;
use storage::block::genesis;
use storage::fold::fold_state;
use storage::lock::{LockError, ReadLock};
use storage::open::Store;
use storage::record;
use storage::sequencer::Envelope;

use crate::history::{
    APP, BANK, Counter, History, ORIGIN, Phone, Signs, by, options, small_segments,
};
use crate::server::Server;

const SECOND: u64 = 1_000_000;

fn at(position: u64) -> At {
    At::Position(Position(position))
}

/// The records of a stopped folder.
fn records(dir: &Path) -> Vec<Record> {
    let mut found = Vec::new();
    let mut keep = |row: Row| {
        found.push(row.record);
        ControlFlow::Continue(())
    };
    replay::inspect(dir, &Filter::default(), &mut keep).unwrap();
    found
}

fn hex(digest: &[u8; 32]) -> String {
    blake3::Hash::from_bytes(*digest).to_hex().to_string()
}

/// Gives a registration new keys of the same phone.
fn reactivate(history: &mut History, phone: &Phone) {
    let activation = history.id();
    let request = RequestActivation {
        by: by(BANK),
        application: APP,
        registration: phone.registration,
        again: true,
        activation,
        code_hash: history.bytes(),
        qr_hash: history.bytes(),
        subject: Id([1; 16]),
        sealed: vec![6; 40],
    };
    history.done(Want::RequestActivation(request));
    let challenge = history.bytes();
    history.done(Want::StartActivation(StartActivation {
        activation,
        with: CodeKind::Typed,
        nonce_hash: [7; 32],
        challenge,
        client_version: "3.8".into(),
    }));
    let offer = history.offer(phone, activation, challenge);
    history.done(Want::FinishActivation(Box::new(offer)));
}

fn unlock(history: &mut History, phone: &Phone) {
    let registration = phone.registration;
    history.done(Want::UnlockRegistration { by: by(BANK), registration });
}

/// A log made by `script`, after [`History::begin`]: four records.
fn log(script: impl FnOnce(&mut History)) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut history = History::begin(folder.path(), small_segments(8));
    script(&mut history);
    stop(history, folder.path());
    folder
}

/// Closes the store, and waits until nobody has its lock: a process that another
/// test starts at this moment has a copy of it until it runs its program.
fn stop(history: History, dir: &Path) {
    history.store.close().unwrap();
    while let Err(LockError::Held { .. }) = ReadLock::share(dir) {
        std::thread::yield_now();
    }
}

/// A registration that fails, is locked, unlocked, locked by request, activated
/// again, ended; and an operation that expires.
fn life(history: &mut History) -> Id {
    history.configure("allow_unproven_reactivation", "true");
    let phone = history.activate(1, true);
    history.authenticate(&phone, Signs::Well);
    history.authenticate(&phone, Signs::Wrongly);
    history.authenticate(&phone, Signs::Malformed);
    unlock(history, &phone);
    let registration = phone.registration;
    let reason = ReasonGiven::DeviceLost;
    history.done(Want::LockRegistration { by: by(BANK), registration, reason });
    reactivate(history, &phone);
    history.configure("hw_key_validation_strategy", "\"RISK_PARAMS\"");
    history.operation(&phone);
    history.clock.pass_s(1_000);
    history.sweep();
    history.done(Want::DeactivateRegistration { by: by(BANK), registration, reason });
    registration
}

fn life_of_one(history: &mut History) {
    life(history);
}

#[test]
fn at_every_position_the_fold_is_the_state_that_the_live_store_had() {
    let folder = tempfile::tempdir().unwrap();
    let mut history = History::begin(folder.path(), small_segments(8));
    history.digests = Some(BTreeMap::new());
    life(&mut history);
    let live = history.digests.take().unwrap();
    stop(history, folder.path());
    let records = records(folder.path());
    assert!(records.len() > 25 && live.len() > 20);
    for (index, record) in records.iter().enumerate() {
        let shown = moment(folder.path(), At::Position(record.position), None).unwrap();
        assert_eq!(shown.records, index as u64 + 1);
        let folded = fold_state::<Keytrail>(&records[..=index]).unwrap().digest();
        assert_eq!(shown.state_digest, hex(&folded), "{index}");
        if let Some(live) = live.get(&shown.records) {
            assert_eq!(shown.state_digest, hex(live), "{index}");
        }
        let next = records.get(index + 1);
        let inside = next.is_some_and(|next| next.causation == record.causation);
        assert_eq!(shown.inside_command, inside, "{index}");
        assert_eq!(shown.next.map(|next| next.position), next.map(|next| next.position.0));
    }
}

#[test]
fn a_time_between_two_events_shows_what_stood_in_the_log_by_then() {
    let folder = log(|history| {
        let phone = history.activate(1, true);
        history.operation(&phone);
        history.configure("failures_allowed", "7");
    });
    let records = records(folder.path());
    let created = &records[7];
    let shown = |time: u64| moment(folder.path(), At::Time(Micros(time)), None).unwrap();
    let before = shown(created.time.0 - 1);
    assert_eq!(before.records, 7);
    assert_eq!((before.pending_operations, before.registrations["ACTIVE"]), (0, 1));
    let then = shown(created.time.0);
    assert_eq!((then.records, then.pending_operations), (8, 1));
    assert_eq!(then, shown(created.time.0 + SECOND / 2));
    let allowed = |shown: &replay::moment::Moment| {
        shown.applications.as_ref().unwrap()[0].configuration["failures_allowed"].clone()
    };
    assert_eq!((allowed(&then), allowed(&shown(u64::MAX))), (2.into(), 7.into()));
    let first = shown(records[0].time.0 - 1);
    assert_eq!((first.records, first.last, first.applications), (0, None, Some(Vec::new())));
}

#[test]
fn a_deadline_that_had_passed_is_marked_although_its_event_came_later() {
    let folder = log(|history| {
        let phone = history.activate(1, true);
        history.operation(&phone);
        history.clock.pass_s(1_000);
        history.sweep();
    });
    let records = records(folder.path());
    let registration = records[4].draft.stream;
    let created = records[7].time;
    let pending = |time: Micros| {
        let shown = moment(folder.path(), At::Time(time), Some(registration)).unwrap();
        let then = shown.registration.unwrap();
        then.pending_operations.iter().map(|it| it.deadline_passed).collect::<Vec<_>>()
    };
    assert_eq!(pending(created), [false]);
    assert_eq!(pending(created.plus_s(299)), [false]);
    assert_eq!(pending(created.plus_s(300)), [true]);
    assert_eq!(pending(Micros(u64::MAX)), [] as [bool; 0]);
}

#[test]
fn what_the_log_does_not_know_is_said() {
    let folder = log(|history| drop(history.activate(1, true)));
    let registration = records(folder.path())[4].draft.stream;
    let asked = |at, id| moment(folder.path(), at, id);
    let early = asked(at(3), Some(registration));
    assert!(matches!(early, Err(ReplayError::Unknown { .. })), "{early:?}");
    assert!(asked(at(4), Some(registration)).is_ok());
    let beyond = asked(at(7), None);
    assert!(matches!(beyond, Err(ReplayError::Beyond { records: 7, .. })), "{beyond:?}");
    let told = history(folder.path(), APP, &mut |_| ControlFlow::Continue(()));
    assert!(matches!(told, Err(ReplayError::Unknown { .. })), "{told:?}");
}

#[test]
fn a_history_shows_each_event_and_what_it_left() {
    let mut registration = Id::NIL;
    let folder = log(|history| registration = life(history));
    let mut told = Vec::new();
    let mut keep = |chapter: Chapter| {
        let after = &chapter.after;
        let keys = after.software_keys.len() + usize::from(after.hardware_key.is_some());
        let pending = after.pending_operations.len();
        told.push((chapter.row.name(), after.state, after.failures, keys, pending));
        assert_eq!(chapter.to_json()["after"]["state"], after.state);
        assert!(chapter.to_string().contains(after.state), "{chapter}");
        ControlFlow::Continue(())
    };
    history(folder.path(), registration, &mut keep).unwrap();
    let told: Vec<_> = told.iter().map(|it| (it.0.as_str(), it.1, it.2, it.3, it.4)).collect();
    assert_eq!(
        told,
        [
            ("ActivationRequested", "REQUESTED", 0, 0, 0),
            ("ActivationStarted", "STARTED", 0, 0, 0),
            ("ActivationJudged", "ACTIVE", 0, 2, 0),
            ("OperationCreated", "ACTIVE", 0, 2, 1),
            ("ChallengeIssued", "ACTIVE", 0, 2, 1),
            ("AuthenticationJudged", "ACTIVE", 0, 2, 0),
            ("OperationCreated", "ACTIVE", 0, 2, 1),
            ("ChallengeIssued", "ACTIVE", 0, 2, 1),
            ("AuthenticationJudged", "ACTIVE", 1, 2, 1),
            ("OperationCreated", "ACTIVE", 1, 2, 2),
            ("ChallengeIssued", "ACTIVE", 1, 2, 2),
            ("AuthenticationJudged", "ACTIVE", 2, 2, 1),
            ("RegistrationLocked", "LOCKED", 2, 2, 1),
            ("RegistrationUnlocked", "ACTIVE", 0, 2, 1),
            ("RegistrationLocked", "LOCKED", 0, 2, 1),
            ("ActivationRequested", "LOCKED", 0, 2, 1),
            ("ActivationStarted", "LOCKED", 0, 2, 1),
            ("ActivationJudged", "ACTIVE", 0, 2, 1),
            ("ConfigurationChanged", "ACTIVE", 0, 2, 1),
            ("OperationCreated", "ACTIVE", 0, 2, 2),
            ("OperationExpired", "ACTIVE", 0, 2, 1),
            ("OperationExpired", "ACTIVE", 0, 2, 0),
            ("RegistrationDeactivated", "DEACTIVATED", 0, 2, 0),
        ]
    );
}

/// The answer for `property` from record `from` on.
fn asked(dir: &Path, property: &str, from: u64) -> WhatIf {
    let options = Options {
        properties: properties(&[property]).unwrap(),
        from: Some(at(from)),
        ..Options::default()
    };
    what_if(dir, &options).unwrap()
}

fn tally(same: u64, different: u64, not_comparable: u64) -> Tally {
    Tally { same, different, not_comparable }
}

fn counts(counts: &BTreeMap<String, u64>) -> Vec<(&str, u64)> {
    counts.iter().map(|(what, count)| (what.as_str(), *count)).collect()
}

#[test]
fn requiring_hardware_keys_fails_log_ins_without_and_locks_nobody() {
    let folder = log(|history| {
        let with = history.activate(1, true);
        let without = history.activate(2, false);
        history.authenticate(&with, Signs::Well);
        history.authenticate(&without, Signs::Well);
        history.authenticate(&without, Signs::Wrongly);
        history.authenticate(&without, Signs::Wrongly);
        history.authenticate(&without, Signs::Well);
    });
    // Both registrations are active where the range begins.
    let answer = asked(folder.path(), "hw_key_validation_strategy=REQUIRED", 10);
    assert_eq!(answer.operations, tally(1, 4, 0), "{answer}");
    assert_eq!(
        counts(&answer.changes),
        [
            ("operation: COMPLETED -> FAILED HW_KEY_REQUIRED", 2),
            ("operation: PENDING SOFTWARE_SIGNATURE_INVALID -> FAILED HW_KEY_REQUIRED", 2),
        ]
    );
    // The lack of a key does not count, so nobody is locked.
    assert_eq!(answer.locks, Locks::default());
    assert_eq!(answer.commands, Commands { same: 11, different: 4, not_carried: 0 });

    // From the beginning, the phone without a hardware key is never activated.
    let answer = asked(folder.path(), "hw_key_validation_strategy=REQUIRED", 0);
    assert_eq!(answer.activations, tally(1, 1, 0), "{answer}");
    assert_eq!(
        counts(&answer.changes),
        [("activation: COMPLETED without a hardware key -> FAILED HW_KEY_CHECK_FAILED", 1)]
    );
    assert_eq!(answer.operations, tally(1, 0, 4));
    assert_eq!(counts(&answer.reasons), [("the registration would be DEACTIVATED", 4)]);
}

#[test]
fn allowing_one_failure_locks_at_the_first_and_what_follows_cannot_be_compared() {
    let folder = log(|history| {
        let phone = history.activate(1, true);
        history.authenticate(&phone, Signs::Wrongly);
        history.authenticate(&phone, Signs::Well);
        history.authenticate(&phone, Signs::Wrongly);
        history.authenticate(&phone, Signs::Wrongly);
        unlock(history, &phone);
        history.authenticate(&phone, Signs::Well);
    });
    let answer = asked(folder.path(), "failures_allowed=1", 0);
    assert_eq!(answer.operations, tally(1, 1, 3), "{answer}");
    assert_eq!(answer.different[0].place.position, 9);
    assert_eq!(answer.different[0].log, "PENDING SOFTWARE_SIGNATURE_INVALID");
    assert_eq!(
        answer.different[0].alternative,
        "FAILED SOFTWARE_SIGNATURE_INVALID, registration locked"
    );
    assert_eq!(counts(&answer.reasons), [("the registration would be LOCKED", 3)]);
    let parted: Vec<_> = answer.not_comparable.iter().map(|it| it.place.position).collect();
    assert_eq!(parted, [10, 13, 16]);
    // The lock comes earlier; the log's own one is none less.
    let locks: Vec<_> =
        answer.locks.only_in_alternative.iter().map(|it| it.place.position).collect();
    assert_eq!((locks, answer.locks.only_in_log.len(), answer.locks.same), (vec![9], 0, 0));
    assert_eq!(answer.commands, Commands { same: 9, different: 1, not_carried: 9 });
}

#[test]
fn allowing_more_failures_makes_a_lock_not_happen() {
    let folder = log(|history| {
        let phone = history.activate(1, true);
        history.authenticate(&phone, Signs::Wrongly);
        history.authenticate(&phone, Signs::Wrongly);
        unlock(history, &phone);
        history.authenticate(&phone, Signs::Well);
    });
    let answer = asked(folder.path(), "failures_allowed=3", 0);
    assert_eq!(answer.operations, tally(2, 1, 0), "{answer}");
    assert_eq!(
        counts(&answer.changes),
        [(
            "operation: FAILED SOFTWARE_SIGNATURE_INVALID, registration locked -> \
             PENDING SOFTWARE_SIGNATURE_INVALID",
            1
        )]
    );
    assert_eq!(answer.locks.only_in_log.len(), 1);
}

#[test]
fn the_configuration_that_was_in_force_changes_nothing_to_the_last_entry_of_state() {
    let folder = tempfile::tempdir().unwrap();
    stop(History::day(folder.path(), small_segments(8)), folder.path());
    for from in 0..34 {
        let answer = asked(folder.path(), "failures_allowed=2", from);
        assert_eq!(answer.entries_differing, 0, "{answer}");
        assert_eq!((answer.operations.different, answer.operations.not_comparable), (0, 0));
        assert_eq!((answer.activations.different, answer.activations.not_comparable), (0, 0));
        assert_eq!((answer.commands.different, answer.commands.not_carried), (0, 0));
    }
    let all = asked(folder.path(), "failures_allowed=2", 0);
    assert_eq!((all.operations, all.activations), (tally(7, 0, 0), tally(2, 0, 0)));
    assert_eq!(all.locks.same, 1);
}

/// A log of log-ins, good and bad, with unlocks between; which, `seed` says.
fn many_log_ins(history: &mut History, seed: u64) {
    let phones = [history.activate(1, true), history.activate(2, true)];
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for _ in 0..12 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let phone = &phones[(state >> 60) as usize % 2];
        let signs = if (state >> 33).is_multiple_of(3) { Signs::Well } else { Signs::Wrongly };
        let locked = |history: &History| {
            let known = Look(&history.store.state).registration(phone.registration).unwrap();
            known.state == RegistrationState::Locked
        };
        if locked(history) || (state >> 40).is_multiple_of(4) {
            unlock(history, phone);
        }
        history.authenticate(phone, signs);
    }
}

/// The commands of the log in `dir` on a new store whose application was created
/// with `property`, at the same times; what is refused leaves no trace.
fn lived(dir: &Path, property: (&str, &str)) -> (tempfile::TempDir, Store<Keytrail>) {
    let folder = tempfile::tempdir().unwrap();
    let clock = Counter::at(1);
    let store = Store::open(folder.path(), options(&clock, small_segments(8))).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let all = records(dir);
    for records in all.chunk_by(|one, next| one.causation == next.causation) {
        let mut command = command_of(records).unwrap();
        if let Want::CreateApplication(want) = &mut command.want {
            want.properties = vec![(property.0.into(), property.1.into())];
        }
        let (causation, correlation) = (records[0].causation, records[0].correlation);
        clock.set(records[0].time);
        let envelope = Envelope { command, causation, correlation };
        drop(runtime.block_on(store.handle.execute(envelope)));
    }
    (folder, store)
}

#[test]
fn what_if_says_what_a_server_with_that_configuration_would_have_done() {
    let (mut parted, mut unknown) = (0, 0);
    for seed in 0..3 {
        let folder = log(|history| many_log_ins(history, seed));
        for allowed in ["1", "2", "4"] {
            let answer = asked(folder.path(), &format!("failures_allowed={allowed}"), 0);
            let (_folder, server) = lived(folder.path(), ("failures_allowed", allowed));
            let look = Look(&server.state);
            let there = |id: Id| look.operation(id).map(|it| it.state.as_str());
            let mut seen = BTreeSet::new();
            for ending in &answer.different {
                let state = ending.alternative.split(' ').next();
                assert_eq!(there(ending.id), state, "{seed} {allowed} {answer}");
                assert!(seen.insert(ending.id));
            }
            for ending in &answer.not_comparable {
                assert_eq!(there(ending.id), None, "{seed} {allowed} {answer}");
                assert!(seen.insert(ending.id));
            }
            (parted, unknown) =
                (parted + answer.different.len(), unknown + answer.not_comparable.len());
            let mut same = 0;
            for record in records(folder.path()) {
                let Ok(Event::AuthenticationJudged(judged)) = event(&record) else { continue };
                if !seen.contains(&judged.operation) {
                    same += 1;
                    assert_eq!(there(judged.operation), Some(judged.operation_state.as_str()));
                }
            }
            assert_eq!(answer.operations.same, same, "{seed} {allowed} {answer}");
            server.close().unwrap();
        }
    }
    assert!(parted > 5 && unknown > 10, "{parted} {unknown}");
}

fn event(record: &Record) -> Result<Event, engine::events::EventError> {
    let draft = &record.draft;
    Event::decode(draft.event_type, draft.schema, &draft.clear)
}

#[test]
fn what_is_asked_stays_in_force_whatever_the_log_set_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    stop(History::day(folder.path(), small_segments(8)), folder.path());
    let answer = asked(folder.path(), "hw_key_validation_strategy=SUPPORTED", 0);
    assert_eq!(
        counts(&answer.changes),
        [("operation: FAILED HW_KEY_REQUIRED -> COMPLETED", 1)],
        "{answer}"
    );
}

#[test]
fn a_shorter_lifetime_expires_what_was_answered_late_and_a_longer_one_leaves_it_open() {
    let folder = log(|history| {
        let phone = history.activate(1, true);
        let late = history.operation(&phone);
        history.clock.pass_s(60);
        history.answer(&phone, late, Signs::Well);
        history.authenticate(&phone, Signs::Well);
        history.operation(&phone);
        history.clock.pass_s(1_000);
        history.sweep();
    });
    let answer = asked(folder.path(), "operation_lifetime_s=30", 0);
    assert_eq!(answer.operations, tally(2, 1, 0), "{answer}");
    assert_eq!(counts(&answer.changes), [("operation: challenge issued -> EXPIRED", 1)]);
    let answer = asked(folder.path(), "operation_lifetime_s=3600", 0);
    assert_eq!(answer.operations, tally(2, 0, 1), "{answer}");
    assert_eq!(counts(&answer.reasons), [("it would have stayed open longer", 1)]);
}

#[test]
fn in_the_alternative_time_passes_without_an_event_of_the_log() {
    let folder = log(|history| {
        let phone = history.activate(1, true);
        history.operation(&phone);
        history.clock.pass_s(60);
        let (registration, reason) = (phone.registration, ReasonGiven::Other);
        history.done(Want::DeactivateRegistration { by: by(BANK), registration, reason });
    });
    let answer = asked(folder.path(), "operation_lifetime_s=30", 0);
    assert_eq!(counts(&answer.changes), [("operation: CANCELLED -> EXPIRED", 1)], "{answer}");
    let answer = asked(folder.path(), "operation_lifetime_s=90", 0);
    assert_eq!((answer.operations, answer.activations), (tally(1, 0, 0), tally(1, 0, 0)));
    // A range ends before its end, and what is open then is compared as it stands.
    let options = Options {
        properties: properties(&["operation_lifetime_s=30"]).unwrap(),
        to: Some(at(8)),
        ..Options::default()
    };
    let answer = what_if(folder.path(), &options).unwrap();
    assert_eq!((answer.operations, answer.last.unwrap().position), (tally(1, 0, 0), 7));
}

#[test]
fn a_client_that_is_no_longer_served_is_refused_by_the_configuration() {
    let folder = log(|history| {
        let phone = history.activate(1, true);
        history.authenticate(&phone, Signs::Well);
    });
    let answer = asked(folder.path(), "min_client_version=3.9", 7);
    assert_eq!(
        counts(&answer.changes),
        [("operation: challenge issued -> refused: client version is not served", 1)],
        "{answer}"
    );
    let answer = asked(folder.path(), "min_client_version=3.8", 0);
    assert_eq!((answer.operations, answer.activations), (tally(1, 0, 0), tally(1, 0, 0)));
}

#[test]
fn signatures_by_keys_that_a_registration_would_not_have_are_not_judged() {
    let folder = log(|history| {
        history.configure("allow_unproven_reactivation", "true");
        let phone = history.activate(1, true);
        reactivate(history, &phone);
        history.authenticate(&phone, Signs::Well);
    });
    let answer = asked(folder.path(), "allow_unproven_reactivation=false", 0);
    assert_eq!(answer.activations, tally(1, 1, 0), "{answer}");
    assert_eq!(
        counts(&answer.reasons),
        [("it was signed for keys that the registration would not have", 1)]
    );
}

#[test]
fn a_log_in_is_not_judged_with_a_hardware_key_that_the_phone_was_not_asked_for() {
    let folder = log(|history| {
        history.configure("hw_key_min_client_version", "\"3.9\"");
        let phone = history.activate(1, true);
        history.authenticate(&phone, Signs::Well);
    });
    let answer = asked(folder.path(), "hw_key_min_client_version=3.8", 0);
    assert_eq!(
        counts(&answer.changes),
        [("activation: COMPLETED without a hardware key -> COMPLETED with a hardware key", 1)],
        "{answer}"
    );
    assert_eq!(
        counts(&answer.reasons),
        [("it was signed for keys that the registration would not have", 1)]
    );
}

#[test]
fn a_question_about_another_application_changes_nothing_and_one_about_none_is_refused() {
    let folder = log(|history| {
        let phone = history.activate(1, true);
        history.authenticate(&phone, Signs::Wrongly);
    });
    let ask = |application| {
        let properties = properties(&["failures_allowed=1"]).unwrap();
        let options = Options { properties, application: Some(application), ..Options::default() };
        what_if(folder.path(), &options)
    };
    assert_eq!(ask(APP).unwrap().operations, tally(0, 1, 0));
    let unknown = ask(Id([9; 16]));
    assert!(matches!(unknown, Err(ReplayError::Unknown { .. })), "{unknown:?}");
}

#[test]
fn the_same_question_gets_the_same_answer_byte_for_byte() {
    let folder = log(|history| {
        life(history);
        let phone = history.activate(2, false);
        history.authenticate(&phone, Signs::Wrongly);
    });
    let before = files(folder.path());
    let answer = || {
        let answer = asked(folder.path(), "failures_allowed=1", 0);
        (serde_json::to_string(&answer).unwrap(), answer.to_string())
    };
    let first = answer();
    assert!(first.0.contains("registration locked"), "{}", first.0);
    for _ in 0..3 {
        assert_eq!(answer(), first);
    }
    // A copy of the log alone answers the same, and looking changes no file.
    let copied = tempfile::tempdir().unwrap();
    fs::create_dir(copied.path().join("log")).unwrap();
    for item in fs::read_dir(folder.path().join("log")).unwrap() {
        let path = item.unwrap().path();
        fs::copy(&path, copied.path().join("log").join(path.file_name().unwrap())).unwrap();
    }
    let copy = asked(copied.path(), "failures_allowed=1", 0);
    assert_eq!(serde_json::to_string(&copy).unwrap(), first.0);
    assert_eq!(files(folder.path()), before);
}

/// Files of `log/` and their contents.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let items = fs::read_dir(dir.join("log")).unwrap().map(|item| item.unwrap().path());
    items.map(|path| (path.display().to_string(), fs::read(&path).unwrap())).collect()
}

#[test]
fn a_log_with_a_hole_is_not_folded_over_it() {
    let folder = log(life_of_one);
    let second = folder.path().join("log").join(format!("segment-{:020}.ktj", 8));
    fs::remove_file(second).unwrap();
    let shown = moment(folder.path(), at(20), None);
    let Err(error @ ReplayError::Hole { position: Position(8), .. }) = shown else {
        panic!("{shown:?}")
    };
    assert!(error.is_damage());
    assert!(moment(folder.path(), at(7), None).is_ok());
}

/// Reads an export back.
fn lines(text: &str) -> (Vec<Vec<u8>>, Vec<Value>) {
    let rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let record = |row: &Value| URL_SAFE_NO_PAD.decode(row["record"].as_str().unwrap()).unwrap();
    (rows.iter().map(record).collect(), rows)
}

#[test]
fn an_export_reads_back_as_the_log_it_came_from() {
    let folder = log(life_of_one);
    let target = tempfile::tempdir().unwrap();
    let file = target.path().join("log.jsonl");
    let manifest = jsonl_file(folder.path(), Range::default(), &file).unwrap();
    let text = fs::read_to_string(&file).unwrap();
    let beside: Value = serde_json::from_slice(&fs::read(manifest_path(&file)).unwrap()).unwrap();
    assert_eq!(beside["manifest"], serde_json::to_value(&manifest).unwrap());
    let (bytes, rows) = lines(&text);
    assert_eq!((manifest.count, manifest.bytes), (rows.len() as u64, text.len() as u64));

    // The records are the log's, and hold its chain.
    let mut chain = genesis(ORIGIN);
    assert_eq!(manifest.chain_before.as_deref(), Some(hex(&chain).as_str()));
    for ((bytes, row), expected) in bytes.iter().zip(&rows).zip(records(folder.path())) {
        let (record, prev) = record::decode(bytes).unwrap();
        assert_eq!((&record, prev), (&expected, chain));
        assert_eq!(row["event_id"], record.draft.event_id.to_string());
        chain = record::chain(bytes);
    }
    assert_eq!(manifest.chain.as_deref(), Some(hex(&chain).as_str()));
    let report = replay::verify(folder.path(), &replay::verify::Options::default()).unwrap();
    assert_eq!((&report.chain, report.records), (manifest.chain.as_ref().unwrap(), manifest.count));
    assert_eq!(report.state_digest.as_ref(), Some(&manifest.state_digest));
    let mut roots = replay::proof::Roots::default();
    bytes.iter().for_each(|bytes| roots.push(bytes));
    assert_eq!(manifest.root, STANDARD.encode(roots.root()));

    // Nothing is overwritten.
    let again = jsonl_file(folder.path(), Range::default(), &file);
    assert!(matches!(again, Err(ReplayError::Write { .. })), "{again:?}");
    assert_eq!(fs::read_to_string(&file).unwrap(), text);
}

#[test]
fn a_range_is_exported_with_the_state_and_the_tree_at_its_end() {
    let folder = log(life_of_one);
    let all = records(folder.path());
    let mut out = Vec::new();
    let range = Range { from: Some(at(5)), to: Some(At::Time(all[9].time)) };
    let manifest = jsonl(folder.path(), range, &mut out).unwrap();
    let (bytes, rows) = lines(std::str::from_utf8(&out).unwrap());
    let positions: Vec<_> = rows.iter().map(|row| row["position"].as_u64().unwrap()).collect();
    assert_eq!(positions, [5, 6, 7, 8]);
    let first = record::decode(&bytes[0]).unwrap();
    assert_eq!(manifest.chain_before, Some(hex(&first.1)));
    assert_eq!(manifest.tree_size, 9);
    let then = moment(folder.path(), at(8), None).unwrap();
    assert_eq!(manifest.state_digest, then.state_digest);
    let mut none = Vec::new();
    let empty = Range { from: Some(at(9)), to: Some(at(9)) };
    let manifest = jsonl(folder.path(), empty, &mut none).unwrap();
    assert_eq!((manifest.count, manifest.first, none.len()), (0, None, 0));
}

/// Runs keytrail and waits for its end: exit code, standard output and error.
fn keytrail(arguments: &[&str]) -> (i32, String, String) {
    let output = command(arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keytrail-tested"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[test]
fn the_command_line_shows_moments_histories_and_other_outcomes() {
    let mut registration = Id::NIL;
    let folder = log(|history| registration = life(history));
    let dir = folder.path().to_str().unwrap();
    let id = registration.to_string();
    let shown = |arguments: &[&str]| {
        let (code, out, error) = keytrail(&[&["replay", dir], arguments].concat());
        assert_eq!((code, error.as_str()), (0, ""), "{out}");
        out
    };
    let json = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    let page = shown(&["--at", "19", "--registration", &id]);
    assert!(page.contains("state             LOCKED, DEVICE_LOST"), "{page}");
    let object = json(&shown(&["--at", "19", "--registration", &id, "--json"]));
    assert_eq!(object["registration"]["lock_reason"], "DEVICE_LOST");
    let all = shown(&["--at", "2999-01-01T00:00:00Z"]);
    assert!(all.contains("hw_key_validation_strategy=\"RISK_PARAMS\""), "{all}");
    assert_eq!(shown(&["--registration", &id]).lines().count(), 2 * 23);
    let objects: Vec<_> = shown(&["--registration", &id, "--json"]).lines().map(json).collect();
    assert_eq!(objects.len(), 23);
    assert_eq!(objects[22]["after"]["state"], "DEACTIVATED");
    let answer = json(&shown(&["--what-if", "failures_allowed=1", "--from", "5", "--json"]));
    assert_eq!(answer["operations"]["different"], 1);
    let page = shown(&["--what-if", "failures_allowed=1", "--what-if", "pin_type=ALPHANUMERIC"]);
    assert!(page.contains("note: pin_type: the device enforces it"), "{page}");
    for (arguments, words) in [
        (&["--what-if", "failures_alowed=1"][..], "unknown property failures_alowed"),
        (&["--what-if", "failures_allowed=99"], "failures_allowed: must be a whole number"),
        (&["--at", "999"], "there is no record at position 999"),
        (&["--registration", "00000000-0000-0000-0000-000000000001"], "no registration"),
        (&["--from", "3", "--at", "4"], "--from is for"),
        (&[], "required arguments"),
    ] {
        let (code, out, error) = keytrail(&[&["replay", dir], arguments].concat());
        assert_eq!((code, out.as_str()), (2, ""));
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn an_export_on_standard_output_ends_with_its_manifest() {
    let folder = log(life_of_one);
    let dir = folder.path().to_str().unwrap();
    let (code, out, error) = keytrail(&["export", dir, "--jsonl", "--from", "3", "--to", "7"]);
    assert_eq!((code, error.as_str()), (0, ""));
    let (lines, last) = out.trim_end().rsplit_once('\n').unwrap();
    let manifest: Value = serde_json::from_str(last).unwrap();
    assert_eq!(manifest["manifest"]["count"], 4);
    let lines = format!("{lines}\n");
    let sum = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, lines.as_bytes());
    let sum = hex(sum.as_ref().try_into().unwrap());
    assert_eq!(manifest["manifest"]["sha256"], sum);
    let (code, _, error) = keytrail(&["export", dir, "--out", &format!("{dir}/evidence")]);
    assert_eq!(code, 2);
    assert!(error.contains("was never signed"), "{error}");
}

/// A folder that a server has run on and stopped, with its administrator's key.
fn served(records: usize) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&folder.path().join("data"));
    let administrator = server.administrator();
    for number in 0..records {
        new_key(&server, &administrator, &format!("key {number}"));
    }
    server.stop();
    let data = folder.path().join("data").to_str().unwrap().to_owned();
    (folder, data)
}

/// Makes an auditor's key: one event.
fn new_key(server: &Server, administrator: &str, name: &str) -> String {
    let body = serde_json::json!({ "role": "AUDITOR", "name": name });
    let made: Value =
        server.client().post("/admin/v1/api-keys", &body, Some(administrator)).unwrap();
    made["bearer"].as_str().unwrap().to_owned()
}

#[test]
fn exported_evidence_is_tiles_that_give_the_signed_root_and_a_log_that_verifies() {
    let (folder, data) = served(270);
    let out = folder.path().join("evidence");
    let (code, page, error) = keytrail(&["export", &data, "--out", out.to_str().unwrap()]);
    assert_eq!((code, error.as_str()), (0, ""), "{page}");
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&out).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o700);
    let read = |path: &str| fs::read(out.join(path)).unwrap();
    let checkpoint = String::from_utf8(read("checkpoint")).unwrap();
    let (size, root) = {
        let mut lines = checkpoint.lines().skip(1);
        (lines.next().unwrap().parse::<usize>().unwrap(), lines.next().unwrap().to_owned())
    };
    assert!(size > 270 && size < 512, "{size}");

    // The records of the bundles, read as the specification lays them down.
    let rest = size - 256;
    let mut entries = read("tile/entries/000");
    entries.extend(read(&format!("tile/entries/001.p/{rest}")));
    let mut roots = replay::proof::Roots::default();
    let mut leaves = Vec::new();
    let mut bytes = &entries[..];
    while let Some((length, after)) = bytes.split_first_chunk::<2>() {
        let (record, after) = after.split_at(usize::from(u16::from_be_bytes(*length)));
        roots.push(record);
        leaves.push(replay::proof::leaf(record));
        bytes = after;
    }
    assert_eq!((roots.size(), STANDARD.encode(roots.root())), (size as u64, root));
    let mut hashes = read("tile/0/000");
    assert_eq!(hashes.len(), 256 * 32);
    hashes.extend(read(&format!("tile/0/001.p/{rest}")));
    assert_eq!(hashes, leaves.concat());
    assert_eq!(read("tile/1/000.p/1").len(), 32);
    assert_eq!(read("checkpoint-key"), fs::read(format!("{data}/log/checkpoint-key")).unwrap());

    let verified = replay::verify(&out, &replay::verify::Options::default()).unwrap();
    assert!(verified.holds, "{verified}");
    assert_eq!(verified.records, size as u64 + 1, "the export itself is the last event");

    // Evidence is not written over, nor made of records that were not signed.
    let (code, _, error) = keytrail(&["export", &data, "--out", out.to_str().unwrap()]);
    assert_eq!(code, 2, "{error}");
    let forged = format!("{data}/log/checkpoint");
    fs::write(
        &forged,
        checkpoint.replacen(&format!("\n{size}\n"), &format!("\n{}\n", size - 1), 1),
    )
    .unwrap();
    let other = folder.path().join("other");
    let (code, _, error) = keytrail(&["export", &data, "--out", other.to_str().unwrap()]);
    assert_eq!(code, 1, "{error}");
    assert!(error.contains("is not signed by"), "{error}");
    assert!(!other.exists() && !folder.path().join("other.part").exists());
}

#[test]
fn a_live_log_is_followed_over_http_and_its_folder_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let server = Server::start(&data);
    let administrator = server.administrator();
    let file = folder.path().join("auditor");
    fs::write(&file, new_key(&server, &administrator, "auditor")).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fs::set_permissions(&file, mode).unwrap();
    let (code, _, error) = keytrail(&["replay", data.to_str().unwrap(), "--at", "0"]);
    assert_eq!(code, 2);
    assert!(error.contains("another keytrail runs"), "{error}");

    let follow =
        ["replay", "--follow", "--server", &server.url, "--key-file", file.to_str().unwrap()];
    let all = [&follow[..], &["--from", "0", "--limit", "3", "--json"]].concat();
    let (code, out, error) = keytrail(&all);
    assert_eq!((code, error.as_str()), (0, ""));
    let types: Vec<String> = out
        .lines()
        .map(|line| {
            serde_json::from_str::<Value>(line).unwrap()["type"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(types, ["LogStarted", "ApiKeyCreated", "ApiKeyCreated"]);

    // From now on: only what comes.
    let mut child = command(&[&follow[..], &["--limit", "1"]].concat()).spawn().unwrap();
    let mut made = 0;
    while child.try_wait().unwrap().is_none() {
        new_key(&server, &administrator, &format!("later {made}"));
        made += 1;
    }
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let line = String::from_utf8(output.stdout).unwrap();
    assert_eq!(line.lines().count(), 1);
    assert!(line.contains("\"name\":\"later "), "{line}");
    server.stop();
}
