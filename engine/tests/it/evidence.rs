//! The rules of the log as evidence, on both sides of their edges.

use engine::command::{Refusal, Want};
use engine::events::{ClockConfirmedV1, EpochBegunV1, KeyRotatedV1, StateDigestedV1};
use engine::evidence::{NOTE_MAX, ORIGIN_MAX};
use engine::ids::Position;
use engine::key::KeyBytes;

use crate::world::{ADMIN, BANK, World, by, request};

const ORIGIN: &str = "keytrail.test/1";

fn key(number: u8) -> KeyBytes {
    KeyBytes { x: [number; 32], y: [number; 32] }
}

pub(crate) fn rotation(old: u8, new: u8) -> KeyRotatedV1 {
    KeyRotatedV1 {
        origin: ORIGIN.into(),
        size: 3,
        root: [7; 32],
        old_key: key(old),
        new_key: key(new),
        old_signature: vec![1; 70],
        new_signature: vec![2; 70],
    }
}

pub(crate) fn epoch(previous: &str, origin: &str) -> EpochBegunV1 {
    EpochBegunV1 {
        origin: origin.into(),
        previous_origin: previous.into(),
        size: 3,
        root: [7; 32],
        known_size: 5,
        known_root: [8; 32],
        known_note: "a note".into(),
    }
}

fn refused(world: &mut World, want: Want) -> &'static str {
    match world.execute(want) {
        Err(Refusal::Invalid { field, .. }) => field,
        other => panic!("{other:?}"),
    }
}

#[test]
fn only_an_administrator_confirms_the_clock_and_a_repeat_confirms_nothing() {
    let mut world = World::new(&[]);
    let confirmed = |by| Want::ConfirmClock(ClockConfirmedV1 { by, suspended: true });
    assert!(matches!(world.execute(confirmed(by(BANK))), Err(Refusal::Forbidden)));
    let mut once = by(ADMIN);
    once.request = request(1, 2);
    let position = Position(world.records.len() as u64);
    assert_eq!(world.done(confirmed(once.clone())).len(), 1);
    assert_eq!(world.execute(confirmed(once)), Err(Refusal::Repeat(position)));
}

#[test]
fn a_digest_is_noted_once_and_never_of_an_earlier_state() {
    let mut world = World::new(&[]);
    let digest = |position| {
        let position = Position(position);
        Want::NoteStateDigest(StateDigestedV1 { position, state_version: 1, digest: [9; 32] })
    };
    assert_eq!(world.done(digest(2)).len(), 1);
    assert_eq!(world.look().system().digested, Position(2));
    assert_eq!(world.done(digest(2)).len(), 0);
    assert_eq!(world.done(digest(1)).len(), 0);
    assert_eq!(world.done(digest(3)).len(), 1);
}

#[test]
fn the_keys_of_a_log_are_one_chain() {
    let mut world = World::new(&[]);
    let rotate = |rotated: KeyRotatedV1| Want::RotateKey(Box::new(rotated));
    let other = KeyRotatedV1 { origin: "other".into(), ..rotation(1, 2) };
    assert_eq!(refused(&mut world, rotate(other)), "origin");
    assert_eq!(refused(&mut world, rotate(rotation(1, 1))), "new_key");
    let mut long = rotation(1, 2);
    long.new_signature = vec![0; 81];
    assert_eq!(refused(&mut world, rotate(long)), "signature");
    // The log has not named a key yet: the first one it hears of is taken.
    world.done(rotate(rotation(1, 2)));
    assert_eq!(world.look().system().signing_key(), Some(key(2)));
    assert_eq!(refused(&mut world, rotate(rotation(1, 3))), "old_key");
    world.done(rotate(rotation(2, 3)));
    assert_eq!(world.look().system().signing_key(), Some(key(3)));
}

#[test]
fn an_origin_names_one_history_only() {
    let mut world = World::new(&[]);
    let begin = |begun: EpochBegunV1| Want::BeginEpoch(Box::new(begun));
    assert_eq!(refused(&mut world, begin(epoch("other", "b"))), "previous_origin");
    for bad in ["", ORIGIN, &"x".repeat(ORIGIN_MAX + 1)] {
        assert_eq!(refused(&mut world, begin(epoch(ORIGIN, bad))), "origin");
    }
    let mut long = epoch(ORIGIN, "b");
    long.known_note = "n".repeat(NOTE_MAX + 1);
    assert_eq!(refused(&mut world, begin(long)), "known_note");
    world.done(begin(epoch(ORIGIN, "b")));
    world.done(begin(epoch("b", "c")));
    assert_eq!(world.look().system().origin, "c");
    for used in [ORIGIN, "b", "c"] {
        assert_eq!(refused(&mut world, begin(epoch("c", used))), "origin");
    }
}

#[test]
fn what_was_lost_is_what_was_known_and_is_not_there() {
    let lost = |size, known_size| EpochBegunV1 { size, known_size, ..epoch(ORIGIN, "b") }.lost();
    assert_eq!(lost(3, 5), Some((3, 4)));
    assert_eq!(lost(4, 5), Some((4, 4)));
    assert_eq!(lost(5, 5), None);
    assert_eq!(lost(6, 5), None);
}
