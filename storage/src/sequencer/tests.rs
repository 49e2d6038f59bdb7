use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use super::*;
use crate::memory::{Fate, FlakyLog, MemoryLog};
use crate::open::Running;
use crate::toy::{
    CLOCK_STEPPED, Command, DEADLINE_PASSED, GatedLog, Kind, ORIGIN, TooMuch, Toy, World, counter,
    envelope, stream,
};

const SECOND: u64 = 1_000_000;

fn started(world: &World) -> (MemoryLog, Running<Toy>) {
    let log = MemoryLog::new(ORIGIN);
    let (running, _) = world.start(&log);
    (log, running)
}

/// What the log holds, decoded here and not by the writer.
fn types_in(log: &MemoryLog) -> Vec<u16> {
    let records = log.read(Position(0), usize::MAX).unwrap();
    records.iter().map(|bytes| u16::from_be_bytes([bytes[2], bytes[3]])).collect()
}

/// Puts a command into the queue and does not wait for it.
fn submit<'a>(
    handle: &'a Handle<Toy>,
    command: Command,
) -> std::pin::Pin<Box<dyn Future<Output = crate::toy::Outcome> + 'a>> {
    let mut future = Box::pin(handle.execute(envelope(command)));
    let polled = future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(polled.is_pending());
    future
}

#[test]
fn an_answered_command_is_in_the_log_and_in_state() {
    let world = World::new();
    let (log, store) = started(&world);
    world.clock.pass(7);
    let done = world.execute(&store.handle, Command::AddToBoth(stream(1), stream(2), 5)).unwrap();
    assert_eq!(done.records.len(), 2);
    assert_eq!(done.records[1].position, Position(1));
    assert_eq!(done.records[1].time, Micros(7));
    assert_eq!(log.head().size, 2);
    assert_eq!(counter(&store.state, stream(2)), 5);
    assert_eq!(store.state.position(), Position(2));
    assert_eq!(store.log.head(), log.head());
    assert_eq!(store.log.record(Position(0)).unwrap(), done.records[0]);
}

#[test]
fn records_of_a_stream_point_back_at_each_other() {
    let world = World::new();
    let (_, store) = started(&world);
    let of = |number| {
        world.execute(&store.handle, Command::Add(stream(number), 1)).unwrap().records[0].clone()
    };
    let (first, _, third) = (of(1), of(2), of(1));
    assert_eq!((first.stream_version, first.stream_prev), (0, None));
    assert_eq!((third.stream_version, third.stream_prev), (1, Some(Position(0))));
}

#[test]
fn a_refused_command_leaves_nothing() {
    let world = World::new();
    let (log, store) = started(&world);
    let outcome = world.execute(&store.handle, Command::AddToBoth(stream(1), stream(2), 101));
    assert!(matches!(outcome, Err(ExecuteError::Refused(TooMuch))));
    assert_eq!(log.head().size, 0);
    assert_eq!(store.handle.counters().refused, 1);
}

#[test]
fn what_is_already_so_makes_no_record() {
    let world = World::new();
    let (log, store) = started(&world);
    assert!(world.execute(&store.handle, Command::Nothing).unwrap().records.is_empty());
    assert_eq!(log.head().size, 0);
}

#[test]
fn a_panicking_command_is_discarded_alone() {
    let world = World::new();
    let (log, store) = started(&world);
    for broken in [Command::Panic, Command::PanicInEvolve(stream(1)), Command::LoseHead(stream(1))]
    {
        let outcome = world.execute(&store.handle, broken);
        assert!(matches!(outcome, Err(ExecuteError::Internal)));
    }
    world.execute(&store.handle, Command::Add(stream(1), 3)).unwrap();
    assert_eq!(counter(&store.state, stream(1)), 3);
    assert_eq!(log.head().size, 1);
    assert_eq!(store.handle.counters().internal, 3);
    assert!(world.fatal_messages().is_empty());
}

#[test]
fn a_panicking_command_does_not_harm_others_of_its_group() {
    let world = World::new();
    let log = MemoryLog::new(ORIGIN);
    let gated = GatedLog::new(log.clone());
    let (store, _) = world.try_start(gated.clone(), log.clone()).unwrap();
    let first = submit(&store.handle, Command::Add(stream(9), 1));
    gated.wait_for_append();
    // These three wait together, so they make one group.
    let before = submit(&store.handle, Command::Add(stream(1), 1));
    let broken = submit(&store.handle, Command::PanicInEvolve(stream(1)));
    let after = submit(&store.handle, Command::Add(stream(1), 1));
    gated.open();
    let outcomes =
        world.runtime.block_on(async { (first.await, before.await, broken.await, after.await) });
    assert!(outcomes.0.is_ok() && outcomes.1.is_ok() && outcomes.3.is_ok());
    assert!(matches!(outcomes.2, Err(ExecuteError::Internal)));
    assert_eq!(store.handle.counters().groups, 2);
    assert_eq!(counter(&store.state, stream(1)), 2);
    assert_eq!(log.head().size, 3);
}

#[test]
fn records_beyond_the_limit_are_refused_in_whole() {
    let world = World::new();
    let (log, store) = started(&world);
    let room = crate::record::RECORD_MAX - crate::record::HEADER_LEN;
    let outcome = world.execute(&store.handle, Command::Big(stream(1), room + 1));
    assert!(matches!(outcome, Err(ExecuteError::TooLarge)));
    assert_eq!(log.head().size, 0);
    assert!(world.execute(&store.handle, Command::Big(stream(1), room)).is_ok());
    assert_eq!(log.head().size, 2);
}

#[test]
fn one_command_more_than_the_queue_takes_is_refused_as_busy() {
    let mut world = World::new();
    world.options.queue_max = 3;
    let log = MemoryLog::new(ORIGIN);
    let gated = GatedLog::new(log.clone());
    let (store, _) = world.try_start(gated.clone(), log).unwrap();
    let first = submit(&store.handle, Command::Add(stream(1), 1));
    gated.wait_for_append();
    let waiting: Vec<_> =
        (0..3).map(|_| submit(&store.handle, Command::Add(stream(1), 1))).collect();
    let outcome = world.execute(&store.handle, Command::Add(stream(1), 1));
    assert!(matches!(outcome, Err(ExecuteError::Busy)));
    gated.open();
    world.runtime.block_on(async {
        first.await.unwrap();
        for outcome in waiting {
            outcome.await.unwrap();
        }
    });
    assert_eq!(counter(&store.state, stream(1)), 4);
    assert_eq!(store.handle.counters().busy, 1);
}

#[test]
fn readers_see_nothing_that_is_not_durable() {
    let world = World::new();
    let log = MemoryLog::new(ORIGIN);
    let gated = GatedLog::new(log.clone());
    let (store, _) = world.try_start(gated.clone(), log).unwrap();
    let mut outcome = pin!(submit(&store.handle, Command::Add(stream(1), 1)));
    gated.wait_for_append();
    // The append has not returned: no answer, no state, no record.
    let polled = outcome.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(matches!(polled, Poll::Pending));
    assert_eq!(counter(&store.state, stream(1)), 0);
    assert_eq!(store.state.position(), Position(0));
    assert!(store.state.scan(&[0], &[9], 10).is_empty());
    assert_eq!(store.log.head().size, 0);
    assert!(matches!(store.log.record(Position(0)), Err(crate::reader::ReadError::Beyond(_))));
    gated.open();
    world.runtime.block_on(outcome).unwrap();
    assert_eq!(counter(&store.state, stream(1)), 1);
    assert_eq!(store.log.head().size, 1);
}

#[test]
fn a_refusal_waits_for_the_records_it_rests_on() {
    let world = World::new();
    let log = MemoryLog::new(ORIGIN);
    let gated = GatedLog::new(log.clone());
    let (store, _) = world.try_start(gated.clone(), log).unwrap();
    let first = submit(&store.handle, Command::Add(stream(9), 1));
    gated.wait_for_append();
    let filled = submit(&store.handle, Command::Add(stream(1), 100));
    let mut refused = submit(&store.handle, Command::Add(stream(1), 1));
    let polled = refused.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(polled.is_pending());
    gated.open();
    world.runtime.block_on(async {
        first.await.unwrap();
        filled.await.unwrap();
        assert!(matches!(refused.await, Err(ExecuteError::Refused(TooMuch))));
    });
}

#[test]
fn a_failed_append_stops_the_process_and_answers_nobody() {
    for fate in [Fate::FailsBefore, Fate::FailsAfter] {
        let world = World::new();
        let log = MemoryLog::new(ORIGIN);
        let flaky = FlakyLog::new(log.clone(), [Fate::Works, fate]);
        let (store, _) = world.try_start(flaky, log.clone()).unwrap();
        world.execute(&store.handle, Command::Add(stream(1), 1)).unwrap();
        for _ in 0..2 {
            let outcome = world.execute(&store.handle, Command::Add(stream(1), 1));
            assert!(matches!(outcome, Err(ExecuteError::Stopped)), "{fate:?}");
        }
        assert_eq!(world.fatal_messages().len(), 1);
        // What is not known to be durable is not shown, even if it landed.
        assert_eq!(counter(&store.state, stream(1)), 1);
        assert!(world.runtime.block_on(store.handle.stop()).is_err());
    }
}

#[test]
fn without_space_the_store_reads_on_and_writes_again_later() {
    let world = World::new();
    let log = MemoryLog::new(ORIGIN);
    let flaky = FlakyLog::new(log.clone(), [Fate::Works, Fate::Full, Fate::Full]);
    let (store, _) = world.try_start(flaky, log.clone()).unwrap();
    world.execute(&store.handle, Command::Add(stream(1), 1)).unwrap();
    for _ in 0..2 {
        let outcome = world.execute(&store.handle, Command::Add(stream(1), 1));
        assert!(matches!(outcome, Err(ExecuteError::ReadOnly)));
        assert!(store.handle.is_read_only());
    }
    // What rests on durable state alone is still answered.
    assert!(world.execute(&store.handle, Command::Nothing).is_ok());
    assert_eq!(counter(&store.state, stream(1)), 1);
    assert_eq!(log.head().size, 1);
    let done = world.execute(&store.handle, Command::Add(stream(1), 1)).unwrap();
    assert_eq!(done.records[0].stream_version, 1);
    assert!(!store.handle.is_read_only());
    assert!(world.fatal_messages().is_empty());
}

#[test]
fn a_deadline_found_without_space_is_carried_out_later() {
    let world = World::new();
    let log = MemoryLog::new(ORIGIN);
    let flaky = FlakyLog::new(log.clone(), [Fate::Works, Fate::Full]);
    let (store, _) = world.try_start(flaky, log.clone()).unwrap();
    let at = Micros(SECOND);
    world.execute(&store.handle, Command::SetDeadline(stream(1), Kind::Expiry, at)).unwrap();
    world.clock.pass(SECOND);
    assert_eq!(world.runtime.block_on(store.handle.sweep()), Ok(0));
    assert_eq!(world.runtime.block_on(store.handle.sweep()), Ok(1));
    assert_eq!(types_in(&log).last(), Some(&DEADLINE_PASSED));
}

#[test]
fn a_deadline_is_carried_out_at_its_moment_and_not_before() {
    let world = World::new();
    let (log, store) = started(&world);
    world.execute(&store.handle, Command::Add(stream(1), 5)).unwrap();
    let at = Micros(10);
    world.execute(&store.handle, Command::SetDeadline(stream(1), Kind::Expiry, at)).unwrap();
    world.clock.pass(9);
    assert_eq!(world.runtime.block_on(store.handle.sweep()), Ok(0));
    assert_eq!(counter(&store.state, stream(1)), 5);
    world.clock.pass(1);
    assert_eq!(world.runtime.block_on(store.handle.sweep()), Ok(1));
    assert_eq!(counter(&store.state, stream(1)), 0);
    assert_eq!(world.runtime.block_on(store.handle.sweep()), Ok(0));
    assert_eq!(log.head().size, 3);
}

#[test]
fn deadlines_outlive_a_restart() {
    let world = World::new();
    let (log, store) = started(&world);
    world.execute(&store.handle, Command::SetDeadline(stream(1), Kind::Expiry, Micros(5))).unwrap();
    drop(store);
    let (store, _) = world.start(&log);
    world.clock.pass(5);
    assert_eq!(world.runtime.block_on(store.handle.sweep()), Ok(1));
}

#[test]
fn a_sweep_takes_up_a_bounded_number_of_deadlines() {
    let world = World::new();
    let (_, store) = started(&world);
    for number in 0..300 {
        let command = Command::SetDeadline(stream(1), Kind::Expiry, Micros(1 + number));
        world.execute(&store.handle, command).unwrap();
    }
    world.clock.pass(400);
    let swept: Vec<_> =
        (0..3).map(|_| world.runtime.block_on(store.handle.sweep()).unwrap()).collect();
    assert_eq!(swept, [256, 44, 0]);
}

#[test]
fn a_deadline_that_the_rules_leave_standing_is_taken_up_once() {
    let world = World::new();
    let (_, store) = started(&world);
    world.execute(&store.handle, Command::SetDeadline(stream(1), Kind::Stuck, Micros(1))).unwrap();
    world.clock.pass(1);
    assert_eq!(world.runtime.block_on(store.handle.sweep()), Ok(1));
    assert_eq!(world.runtime.block_on(store.handle.sweep()), Ok(0));
    assert_eq!(store.handle.counters().stuck_deadlines, 1);
}

#[test]
fn log_time_never_decreases() {
    let world = World::new();
    let (_, store) = started(&world);
    world.clock.pass(10 * SECOND);
    world.execute(&store.handle, Command::Add(stream(1), 1)).unwrap();
    world.clock.step_to(8 * SECOND);
    let done = world.execute(&store.handle, Command::Add(stream(1), 1)).unwrap();
    assert_eq!(done.records[0].time, Micros(10 * SECOND));
}

#[test]
fn a_step_of_the_clock_beyond_the_limit_is_an_event() {
    for (step, events) in [(CLOCK_STEP_MAX_US, 0), (CLOCK_STEP_MAX_US + 1, 1)] {
        for direction in [1_i64, -1] {
            let world = World::new();
            world.clock.pass(100 * SECOND);
            let (log, store) = started(&world);
            world.clock.step_to((100 * SECOND).wrapping_add_signed(direction * step as i64));
            world.runtime.block_on(store.handle.sweep()).unwrap();
            world.runtime.block_on(store.handle.sweep()).unwrap();
            assert_eq!(types_in(&log), vec![CLOCK_STEPPED; events], "{step} {direction}");
        }
    }
}

#[test]
fn a_long_step_forward_suspends_all_but_expiry_until_confirmed() {
    let world = World::new();
    let (log, store) = started(&world);
    let soon = Micros(SECOND);
    for kind in [Kind::Expiry, Kind::Release] {
        world.execute(&store.handle, Command::SetDeadline(stream(1), kind, soon)).unwrap();
    }
    world.clock.step_to(CLOCK_SUSPEND_US + 1);
    assert_eq!(world.runtime.block_on(store.handle.sweep()), Ok(1));
    assert!(store.handle.clock_suspended());
    // The suspension outlives a restart.
    drop(store);
    let (store, _) = world.start(&log);
    assert!(store.handle.clock_suspended());
    assert_eq!(world.runtime.block_on(store.handle.sweep()), Ok(0));
    world.runtime.block_on(store.handle.confirm_clock()).unwrap();
    assert!(!store.handle.clock_suspended());
    assert_eq!(world.runtime.block_on(store.handle.sweep()), Ok(1));
    let passed = types_in(&log).into_iter().filter(|event| *event == DEADLINE_PASSED).count();
    assert_eq!(passed, 2);
}

#[test]
fn a_step_forward_of_ten_minutes_suspends_nothing() {
    let world = World::new();
    let (_, store) = started(&world);
    world.clock.step_to(CLOCK_SUSPEND_US);
    world.runtime.block_on(store.handle.sweep()).unwrap();
    assert!(!store.handle.clock_suspended());
    assert_eq!(store.handle.counters().clock_steps, 1);
}

#[test]
fn a_late_start_suspends_where_that_is_asked_for() {
    let mut world = World::new();
    world.options.suspend_after_gap_s = Some(60);
    let (log, store) = started(&world);
    world.execute(&store.handle, Command::Add(stream(1), 1)).unwrap();
    drop(store);
    world.clock.pass(60 * SECOND);
    let (store, _) = world.start(&log);
    assert!(!store.handle.clock_suspended());
    drop(store);
    world.clock.pass(1);
    let (store, _) = world.start(&log);
    assert!(store.handle.clock_suspended());
}

#[test]
fn after_a_stop_commands_are_refused_and_what_waited_is_done() {
    let world = World::new();
    let log = MemoryLog::new(ORIGIN);
    let gated = GatedLog::new(log.clone());
    let (store, _) = world.try_start(gated.clone(), log.clone()).unwrap();
    let first = submit(&store.handle, Command::Add(stream(1), 1));
    gated.wait_for_append();
    let second = submit(&store.handle, Command::Add(stream(1), 1));
    let mut stop = pin!(store.handle.stop());
    assert!(stop.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    let third = submit(&store.handle, Command::Add(stream(1), 1));
    gated.open();
    world.runtime.block_on(async {
        first.await.unwrap();
        second.await.unwrap();
        // It was in the queue before the writer came to the stop.
        third.await.unwrap();
        stop.await.unwrap();
    });
    assert_eq!(log.head().size, 3);
    let outcome = world.execute(&store.handle, Command::Add(stream(1), 1));
    assert!(matches!(outcome, Err(ExecuteError::Stopped)));
    assert_eq!(world.runtime.block_on(store.handle.stop()), Err(Stopped));
}

#[test]
fn a_caller_that_goes_away_does_not_undo_its_command() {
    let world = World::new();
    let log = MemoryLog::new(ORIGIN);
    let gated = GatedLog::new(log.clone());
    let (store, _) = world.try_start(gated.clone(), log).unwrap();
    let first = submit(&store.handle, Command::Add(stream(1), 1));
    gated.wait_for_append();
    drop(first);
    gated.open();
    world.execute(&store.handle, Command::Add(stream(1), 1)).unwrap();
    assert_eq!(counter(&store.state, stream(1)), 2);
}

#[test]
fn followers_of_the_head_are_woken_by_durable_records() {
    let world = World::new();
    let (_, store) = started(&world);
    let mut head = store.log.watch();
    assert!(!head.has_changed().unwrap());
    world.execute(&store.handle, Command::Add(stream(1), 1)).unwrap();
    world.runtime.block_on(head.changed()).unwrap();
    assert_eq!(head.borrow().size, 1);
}
