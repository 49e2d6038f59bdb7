//! The store as a whole, over logs in memory.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use engine::ids::{Id, Position};
use proptest::prelude::*;

use crate::block::BlockLog;
use crate::fold::{FoldedState, fold_state};
use crate::memory::{Fate, FlakyLog, MemoryLog};
use crate::open::{Options, Store};
use crate::reader::Fallback;
use crate::record;
use crate::sequencer::{Envelope, ExecuteError, Executed};
use crate::toy::{Command, Counting, Hands, Toy, values};

const ORIGIN: &str = "toy.example/log";

impl Fallback for MemoryLog {
    fn records(&self, from: Position, limit: usize) -> io::Result<Vec<Vec<u8>>> {
        self.read(from, limit)
    }
}

struct Bench {
    dir: tempfile::TempDir,
    log: MemoryLog,
    clock: Arc<Hands>,
    fatal: Arc<AtomicUsize>,
    boot_id: String,
}

impl Bench {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            log: MemoryLog::new(ORIGIN),
            clock: Arc::default(),
            fatal: Arc::default(),
            boot_id: "first".to_owned(),
        }
    }

    fn store(&self) -> std::path::PathBuf {
        self.dir.path().join("store")
    }

    fn options(&self) -> Options {
        let fatal = Arc::clone(&self.fatal);
        Options {
            tick_ms: None,
            boot_id: Some(self.boot_id.clone()),
            fatal: Arc::new(move |_| {
                fatal.fetch_add(1, Ordering::SeqCst);
            }),
            ..Options::new(ORIGIN, self.clock.clone(), Arc::new(Counting::default()))
        }
    }

    fn open(&self) -> Store<Toy> {
        self.open_over(self.log.clone())
    }

    fn open_over<L: BlockLog + 'static>(&self, log: L) -> Store<Toy> {
        let dir: &Path = &self.store();
        Store::start(log, Box::new(self.log.clone()), dir, &self.options(), None).unwrap()
    }

    fn folded(&self) -> FoldedState<Toy> {
        let bytes = self.log.read(Position(0), usize::MAX).unwrap();
        let records: Vec<_> = bytes.iter().map(|bytes| record::decode(bytes).unwrap().0).collect();
        fold_state(&records).unwrap()
    }
}

fn wait<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn execute(store: &Store<Toy>, command: Command) -> Result<Executed, ExecuteError<&'static str>> {
    let envelope = Envelope { command, causation: Id([7; 16]), correlation: Id([8; 16]) };
    wait(store.handle.execute(envelope))
}

#[test]
fn an_executed_command_is_in_the_log_in_state_and_can_be_read() {
    let bench = Bench::new();
    let store = bench.open();
    let executed = execute(&store, Command::Add(3, 5)).unwrap();
    assert_eq!(executed.records.len(), 5);
    assert_eq!(executed.records[4].stream_version, 4);
    assert_eq!(executed.records[4].stream_prev, Some(Position(3)));
    assert_eq!(bench.log.head().size, 5);
    assert_eq!(store.log.head(), bench.log.head());
    assert_eq!(store.log.record(Position(2)).unwrap(), executed.records[2]);
    assert_eq!(store.state.position(), Position(5));
    assert_eq!(values(&store.state), [(3, 5)].into());
    assert_eq!(store.digest().unwrap(), (Position(5), bench.folded().digest()));
    store.close().unwrap();
}

#[test]
fn a_failed_command_leaves_nothing_behind() {
    let bench = Bench::new();
    let store = bench.open();
    execute(&store, Command::Add(0, 99)).unwrap();
    let before = bench.log.head();
    assert!(matches!(execute(&store, Command::Add(0, 2)), Err(ExecuteError::Refused("limit"))));
    assert!(matches!(execute(&store, Command::Panic), Err(ExecuteError::Internal)));
    assert!(matches!(execute(&store, Command::TooLong), Err(ExecuteError::TooLarge)));
    assert_eq!(execute(&store, Command::Reset(9)).unwrap().records.len(), 0);
    assert_eq!(bench.log.head(), before);
    execute(&store, Command::Add(0, 1)).unwrap();
    assert_eq!(bench.folded().digest(), store.digest().unwrap().1);
    let counters = store.handle.counters();
    assert_eq!((counters.refused, counters.internal, counters.records), (1, 1, 100));
}

#[test]
fn commands_sent_at_once_are_decided_by_their_order_and_all_answered() {
    let bench = Bench::new();
    let store = bench.open();
    let done = wait(async {
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..300 {
            let handle = store.handle.clone();
            let envelope =
                Envelope { command: Command::Add(1, 1), causation: Id::NIL, correlation: Id::NIL };
            tasks.spawn(async move { handle.execute(envelope).await.is_ok() });
        }
        tasks.join_all().await
    });
    assert_eq!(done.iter().filter(|done| **done).count(), 100);
    assert_eq!(values(&bench.folded()), [(1, 100)].into());
}

#[test]
fn without_space_nothing_is_shown_and_writing_goes_on_by_itself() {
    let bench = Bench::new();
    let store = bench.open_over(FlakyLog::new(bench.log.clone(), [Fate::Works, Fate::Full]));
    execute(&store, Command::Add(1, 1)).unwrap();
    assert!(matches!(execute(&store, Command::Add(1, 1)), Err(ExecuteError::ReadOnly)));
    assert!(store.handle.is_read_only());
    assert_eq!(values(&store.state), [(1, 1)].into());
    execute(&store, Command::Add(1, 1)).unwrap();
    assert!(!store.handle.is_read_only());
    assert_eq!(values(&store.state), values(&bench.folded()));
}

#[test]
fn a_failed_sync_stops_the_writer_and_the_next_start_decides() {
    for (fate, size) in [(Fate::FailsBefore, 1), (Fate::FailsAfter, 2)] {
        let bench = Bench::new();
        let store = bench.open_over(FlakyLog::new(bench.log.clone(), [Fate::Works, fate]));
        execute(&store, Command::Add(1, 1)).unwrap();
        assert!(matches!(execute(&store, Command::Add(1, 1)), Err(ExecuteError::Stopped)));
        assert_eq!(bench.fatal.load(Ordering::SeqCst), 1);
        assert_eq!(values(&store.state), [(1, 1)].into());
        assert!(store.close().is_err());
        let store = bench.open();
        assert_eq!(values(&store.state), [(1, size)].into());
    }
}

#[test]
fn what_is_due_is_carried_out_by_a_sweep_and_not_before() {
    let bench = Bench::new();
    let store = bench.open();
    execute(&store, Command::Add(1, 4)).unwrap();
    execute(&store, Command::ExpireAt(1, 500)).unwrap();
    bench.clock.wall.store(499, Ordering::SeqCst);
    assert_eq!(wait(store.handle.sweep()), Ok(0));
    bench.clock.wall.store(500, Ordering::SeqCst);
    assert_eq!(wait(store.handle.sweep()), Ok(1));
    assert_eq!(wait(store.handle.sweep()), Ok(0));
    assert_eq!(values(&store.state), [].into());
}

#[test]
fn a_step_of_the_clock_is_an_event_and_a_long_one_suspends() {
    let bench = Bench::new();
    let store = bench.open();
    let move_by = |wall, monotonic| {
        bench.clock.wall.fetch_add(wall, Ordering::SeqCst);
        bench.clock.monotonic.fetch_add(monotonic, Ordering::SeqCst);
        wait(store.handle.sweep()).unwrap();
        (store.handle.counters().clock_steps, store.handle.clock_suspended())
    };
    assert_eq!(move_by(9_000_000, 4_000_000), (0, false));
    assert_eq!(move_by(9_000_001, 4_000_000), (1, false));
    assert_eq!(move_by(600_000_001, 0), (2, true));
    assert_eq!(bench.log.head().size, 2);
    wait(store.handle.confirm_clock()).unwrap();
    assert!(!store.handle.clock_suspended());
}

#[test]
fn log_time_never_decreases() {
    let bench = Bench::new();
    let store = bench.open();
    bench.clock.wall.store(1_000, Ordering::SeqCst);
    let first = execute(&store, Command::Add(1, 1)).unwrap().records[0].time;
    bench.clock.wall.store(10, Ordering::SeqCst);
    assert_eq!(execute(&store, Command::Add(1, 1)).unwrap().records[0].time, first);
    store.close().unwrap();
    let store = bench.open();
    assert_eq!(execute(&store, Command::Add(1, 1)).unwrap().records[0].time, first);
}

#[test]
fn a_clean_stop_leaves_nothing_to_fold_and_refuses_later_commands() {
    let bench = Bench::new();
    let store = bench.open();
    execute(&store, Command::Add(1, 60)).unwrap();
    let handle = store.handle.clone();
    store.close().unwrap();
    let envelope =
        Envelope { command: Command::Add(1, 1), causation: Id::NIL, correlation: Id::NIL };
    assert!(matches!(wait(handle.execute(envelope)), Err(ExecuteError::Stopped)));
    let store = bench.open();
    assert_eq!(store.report, crate::open::OpenReport::default());
    assert_eq!(values(&store.state), [(1, 60)].into());
    assert_eq!(store.log.read(Position(0), 100).unwrap().len(), 60);
}

#[test]
fn under_another_kernel_or_damaged_the_store_is_made_again_from_the_log() {
    for damage in [false, true] {
        let mut bench = Bench::new();
        let store = bench.open();
        execute(&store, Command::Add(1, 60)).unwrap();
        crash(store);
        if damage {
            std::fs::write(bench.store().join("sled/db"), vec![0xa5; 70_000]).unwrap();
        } else {
            bench.boot_id = "second".to_owned();
        }
        let store = bench.open();
        // Of damage sled may open what is left, which is nothing here.
        assert!(damage || store.report.store_set_aside.is_some());
        assert_eq!((store.report.replayed, store.report.copied), (60, 60));
        assert_eq!(store.digest().unwrap().1, bench.folded().digest());
    }
}

#[test]
fn a_folder_is_opened_by_one_and_found_again_by_the_next() {
    let bench = Bench::new();
    let dir = bench.dir.path().join("data");
    let store = Store::<Toy>::open(&dir, bench.options()).unwrap();
    execute(&store, Command::Add(2, 7)).unwrap();
    assert!(Store::<Toy>::open(&dir, bench.options()).is_err());
    store.close().unwrap();
    let store = Store::<Toy>::open(&dir, bench.options()).unwrap();
    assert_eq!(values(&store.state), [(2, 7)].into());
    assert_eq!(store.log.record(Position(6)).unwrap().stream_version, 6);
    crash(store);
    std::fs::remove_dir_all(dir.join("store")).unwrap();
    let store = Store::<Toy>::open(&dir, bench.options()).unwrap();
    assert_eq!(values(&store.state), [(2, 7)].into());
    store.close().unwrap();
}

/// Ends a store as if the process had died: nothing more is written.
fn crash(store: Store<Toy>) {
    store.abandon();
}

#[derive(Debug, Clone)]
enum Step {
    Add(u8, u64),
    Reset(u8),
    ExpireAt(u8, u64),
    Sweep,
    Crash,
    Reboot,
    Close,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0_u8..4, 1_u64..30).prop_map(|(counter, n)| Step::Add(counter, n)),
        2 => (0_u8..4).prop_map(Step::Reset),
        2 => (0_u8..4, 0_u64..900).prop_map(|(counter, at)| Step::ExpireAt(counter, at)),
        2 => Just(Step::Sweep),
        1 => Just(Step::Crash),
        1 => Just(Step::Reboot),
        1 => Just(Step::Close),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn state_after_reopening_is_the_fold_of_the_log(
        steps in proptest::collection::vec(step(), 1..40),
    ) {
        let mut bench = Bench::new();
        let mut store = bench.open();
        for step in steps {
            bench.clock.wall.fetch_add(30, Ordering::SeqCst);
            bench.clock.monotonic.fetch_add(30, Ordering::SeqCst);
            match step {
                Step::Add(counter, n) => drop(execute(&store, Command::Add(counter, n))),
                Step::Reset(counter) => drop(execute(&store, Command::Reset(counter))),
                Step::ExpireAt(counter, at) => {
                    drop(execute(&store, Command::ExpireAt(counter, at)));
                }
                Step::Sweep => drop(wait(store.handle.sweep())),
                Step::Crash => {
                    crash(store);
                    store = bench.open();
                }
                Step::Reboot => {
                    crash(store);
                    bench.boot_id.push('x');
                    store = bench.open();
                }
                Step::Close => {
                    store.close().unwrap();
                    store = bench.open();
                }
            }
            let folded = bench.folded();
            prop_assert_eq!(values(&store.state), values(&folded));
        }
        crash(store);
        let store = bench.open();
        prop_assert_eq!(store.digest().unwrap(), (bench.folded().position(), bench.folded().digest()));
        prop_assert_eq!(bench.fatal.load(Ordering::SeqCst), 0);
    }
}
