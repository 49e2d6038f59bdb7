//! A small machine for tests: named counters with a limit, which may expire.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use engine::ids::{Id, Micros};
use engine::machine::{Change, Clock, Draft, Entries, Entropy, Machine, Record, StreamHead};

/// Adds up to [`LIMIT`] a counter.
#[derive(Debug)]
pub(crate) struct Toy;

/// What a counter may reach.
pub(crate) const LIMIT: u64 = 100;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Key {
    Deadline(u64, u8),
    Counter(u8),
}

#[derive(Debug, PartialEq)]
pub(crate) struct Counter {
    pub(crate) value: u64,
    version: u64,
    last: u64,
}

#[derive(Debug)]
pub(crate) enum Command {
    /// Adds to a counter, in so many records of one each.
    Add(u8, u64),
    /// Lets a counter expire at this moment.
    ExpireAt(u8, u64),
    /// Sets a counter to zero if it is not.
    Reset(u8),
    /// Fails the rules.
    Panic,
    /// Makes a record longer than any.
    TooLong,
    /// Notes a step of the clock.
    Step,
}

const ADD: u16 = 1;
const EXPIRE_AT: u16 = 2;
const RESET: u16 = 3;

fn stream(counter: u8) -> Id {
    Id([counter; 16])
}

fn draft(counter: u8, event_type: u16, clear: Vec<u8>) -> Draft {
    Draft {
        stream: stream(counter),
        event_id: Id::NIL,
        event_type,
        schema: 1,
        subject: Id::NIL,
        clear,
        sealed: Vec::new(),
    }
}

impl Machine for Toy {
    type Key = Key;
    type Entry = Counter;
    type Command = Command;
    type Refusal = &'static str;

    const STATE_VERSION: u32 = 1;

    fn key_bytes(key: &Key) -> Vec<u8> {
        match key {
            Key::Deadline(at, counter) => [&[0], &at.to_be_bytes()[..], &[*counter]].concat(),
            Key::Counter(counter) => vec![1, *counter],
        }
    }

    fn key_of(bytes: &[u8]) -> Option<Key> {
        match bytes {
            [0, at @ .., counter] => {
                Some(Key::Deadline(u64::from_be_bytes(at.try_into().ok()?), *counter))
            }
            [1, counter] => Some(Key::Counter(*counter)),
            [..] => None,
        }
    }

    fn entry_bytes(entry: &Counter) -> Vec<u8> {
        [entry.value, entry.version, entry.last].map(u64::to_be_bytes).concat()
    }

    fn entry_of(_: &Key, bytes: &[u8]) -> Option<Counter> {
        let field = |i: usize| Some(u64::from_be_bytes(bytes.get(i..i + 8)?.try_into().ok()?));
        Some(Counter { value: field(0)?, version: field(8)?, last: field(16)? })
    }

    fn decide(
        state: &dyn Entries<Self>,
        _: Micros,
        command: &Command,
    ) -> Result<Vec<Draft>, &'static str> {
        let value = |counter: u8| state.get(&Key::Counter(counter)).map_or(0, |entry| entry.value);
        match *command {
            Command::Add(counter, n) if value(counter) + n > LIMIT => Err("limit"),
            Command::Add(counter, n) => {
                Ok((0..n).map(|_| draft(counter, ADD, Vec::new())).collect())
            }
            Command::ExpireAt(counter, at) => {
                Ok(vec![draft(counter, EXPIRE_AT, at.to_be_bytes().to_vec())])
            }
            Command::Reset(counter) if value(counter) == 0 => Ok(Vec::new()),
            Command::Reset(counter) => Ok(vec![draft(counter, RESET, Vec::new())]),
            Command::Panic => panic!("the rules fail"),
            Command::TooLong => Ok(vec![draft(0, ADD, Vec::new()), draft(0, ADD, vec![0; 70_000])]),
            Command::Step => Ok(vec![draft(255, ADD, Vec::new())]),
        }
    }

    fn evolve(state: &dyn Entries<Self>, record: &Record) -> Vec<Change<Self>> {
        let counter = record.draft.stream.0[0];
        let key = Key::Counter(counter);
        let before = state.get(&key).map_or(0, |entry| entry.value);
        let value = match record.draft.event_type {
            ADD => before + 1,
            RESET => 0,
            _ => before,
        };
        let (version, last) = (record.stream_version + 1, record.position.0);
        let mut changes = vec![(key, Some(Arc::new(Counter { value, version, last })))];
        if record.draft.event_type == EXPIRE_AT {
            let mut at = [0; 8];
            at.copy_from_slice(&record.draft.clear);
            let deadline = Key::Deadline(u64::from_be_bytes(at), counter);
            changes.push((deadline, Some(Arc::new(Counter { value: 0, version: 0, last: 0 }))));
        }
        if record.draft.event_type == RESET && record.draft.subject.is_nil() {
            // The toy has few deadlines: those of its first thousand moments.
            changes.extend(
                (0..1_000)
                    .map(|at| Key::Deadline(at, counter))
                    .filter(|key| state.get(key).is_some())
                    .map(|key| (key, None)),
            );
        }
        changes
    }

    fn head(state: &dyn Entries<Self>, stream: Id) -> StreamHead {
        state.get(&Key::Counter(stream.0[0])).map_or_else(StreamHead::default, |entry| StreamHead {
            version: entry.version,
            last: Some(engine::ids::Position(entry.last)),
        })
    }

    fn deadline(key: &Key) -> Option<Micros> {
        match key {
            Key::Deadline(at, _) => Some(Micros(*at)),
            Key::Counter(_) => None,
        }
    }

    fn deadline_range() -> (Vec<u8>, Vec<u8>) {
        (vec![0], vec![1])
    }

    fn on_deadline(key: &Key, _: Id) -> Command {
        match key {
            Key::Deadline(_, counter) | Key::Counter(counter) => Command::Reset(*counter),
        }
    }

    fn on_clock_step(_: Micros, _: Micros, _: Id) -> Command {
        Command::Step
    }
}

/// Time that tests move.
#[derive(Default)]
pub(crate) struct Hands {
    pub(crate) wall: AtomicU64,
    pub(crate) monotonic: AtomicU64,
}

impl Clock for Hands {
    fn wall(&self) -> Micros {
        Micros(self.wall.load(Ordering::SeqCst))
    }

    fn monotonic(&self) -> Micros {
        Micros(self.monotonic.load(Ordering::SeqCst))
    }
}

/// Counts instead of drawing.
#[derive(Default)]
pub(crate) struct Counting(AtomicU64);

impl Entropy for Counting {
    fn fill(&self, out: &mut [u8]) {
        let next = self.0.fetch_add(1, Ordering::SeqCst).to_be_bytes();
        for (i, byte) in out.iter_mut().enumerate() {
            *byte = next[i % 8];
        }
    }
}

/// What a state says of each counter that is not zero.
pub(crate) fn values(state: &dyn Entries<Toy>) -> BTreeMap<u8, u64> {
    (0..=255)
        .filter_map(|counter| Some((counter, state.get(&Key::Counter(counter))?.value)))
        .filter(|(_, value)| *value > 0)
        .collect()
}
