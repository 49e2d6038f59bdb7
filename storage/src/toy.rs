//! A small machine for the tests of this crate, with clock, entropy and logs to
//! go with it.
//!
//! A stream is a counter of at most [`COUNTER_MAX`] with at most a few deadlines.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use engine::ids::{Id, Micros, Position};
use engine::machine::{Change, Clock, Draft, Entries, Entropy, Machine, Record, StreamHead};

use crate::block::{AppendError, Block, BlockLog, Head, genesis};
use crate::disk::{Disk, RealDisk};
use crate::folder::Folder;
use crate::memory::MemoryLog;
use crate::open::{OpenError, OpenReport, Options, Running, Source, open_database};
use crate::reader::Fallback;
use crate::sequencer::{Envelope, ExecuteError, Executed, Handle};
use crate::trouble::Fatal;

pub(crate) const ORIGIN: &str = "example.org/toy";
pub(crate) const COUNTER_MAX: u64 = 100;

pub(crate) const ADDED: u16 = 1;
pub(crate) const DEADLINE_SET: u16 = 2;
pub(crate) const DEADLINE_PASSED: u16 = 3;
pub(crate) const CLOCK_STEPPED: u16 = 4;
pub(crate) const FORGOTTEN: u16 = 5;
pub(crate) const CORRUPT: u16 = 6;

#[derive(Debug)]
pub(crate) struct Toy;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Key {
    Head(Id),
    Counter(Id),
    Deadline(Micros, Kind, Id),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    /// Sets the counter to zero.
    Expiry,
    /// The same, but waits while the clock is not confirmed.
    Release,
    /// A fault of the rules: nothing comes of it.
    Stuck,
}

/// Two numbers: version and last position of a head, or the counter and zero.
#[derive(Debug, PartialEq)]
pub(crate) struct Entry(pub(crate) u64, pub(crate) u64);

#[derive(Debug)]
pub(crate) enum Command {
    Add(Id, u64),
    AddToBoth(Id, Id, u64),
    SetDeadline(Id, Kind, Micros),
    Pass(Micros, Kind, Id),
    /// Adds, sealed for a subject.
    AddFor(Id, u64, Id),
    Forget(Id),
    Nothing,
    Panic,
    PanicInEvolve(Id),
    LoseHead(Id),
    Big(Id, usize),
    Stepped(Micros, Micros),
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooMuch;

fn draft(stream: Id, event_type: u16, clear: Vec<u8>) -> Draft {
    Draft {
        stream,
        event_id: Id::NIL,
        event_type,
        schema: 1,
        subject: Id::NIL,
        clear,
        sealed: Vec::new(),
    }
}

fn number(amount: u64) -> Vec<u8> {
    amount.to_be_bytes().to_vec()
}

pub(crate) fn number_in(clear: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&clear[..8]);
    u64::from_be_bytes(bytes)
}

fn deadline_bytes(at: Micros, kind: Kind) -> Vec<u8> {
    let mut clear = number(at.0);
    clear.push(kind as u8);
    clear
}

fn kind_of(byte: u8) -> Option<Kind> {
    [Kind::Expiry, Kind::Release, Kind::Stuck].into_iter().find(|kind| *kind as u8 == byte)
}

pub(crate) fn counter(state: &dyn Entries<Toy>, stream: Id) -> u64 {
    state.get(&Key::Counter(stream)).map_or(0, |entry| entry.0)
}

fn add(state: &dyn Entries<Toy>, stream: Id, amount: u64) -> Result<Vec<Draft>, TooMuch> {
    if counter(state, stream) + amount > COUNTER_MAX {
        return Err(TooMuch);
    }
    Ok(vec![draft(stream, ADDED, number(amount))])
}

impl Machine for Toy {
    type Key = Key;
    type Entry = Entry;
    type Command = Command;
    type Refusal = TooMuch;

    const STATE_VERSION: u32 = 1;

    fn key_bytes(key: &Key) -> Vec<u8> {
        match key {
            Key::Head(id) => [&[0], id.0.as_slice()].concat(),
            Key::Counter(id) => [&[1], id.0.as_slice()].concat(),
            Key::Deadline(at, kind, id) => {
                [&[2], at.0.to_be_bytes().as_slice(), &[*kind as u8], &id.0].concat()
            }
        }
    }

    fn key_of(bytes: &[u8]) -> Option<Key> {
        let (tag, rest) = bytes.split_first()?;
        match tag {
            0 => Some(Key::Head(Id(rest.try_into().ok()?))),
            1 => Some(Key::Counter(Id(rest.try_into().ok()?))),
            2 => {
                let (at, rest) = rest.split_first_chunk()?;
                let (kind, id) = rest.split_first()?;
                let at = Micros(u64::from_be_bytes(*at));
                Some(Key::Deadline(at, kind_of(*kind)?, Id(id.try_into().ok()?)))
            }
            _ => None,
        }
    }

    fn entry_bytes(entry: &Entry) -> Vec<u8> {
        [entry.0.to_be_bytes(), entry.1.to_be_bytes()].concat()
    }

    fn entry_of(_: &Key, bytes: &[u8]) -> Option<Entry> {
        (bytes.len() == 16).then(|| Entry(number_in(bytes), number_in(&bytes[8..])))
    }

    fn decide(
        state: &dyn Entries<Self>,
        _: Micros,
        command: &Command,
    ) -> Result<Vec<Draft>, TooMuch> {
        match *command {
            Command::Add(stream, amount) => add(state, stream, amount),
            Command::AddToBoth(one, two, amount) => {
                Ok([add(state, one, amount)?, add(state, two, amount)?].concat())
            }
            Command::AddFor(stream, amount, subject) => {
                let mut drafts = add(state, stream, amount)?;
                drafts.iter_mut().for_each(|draft| draft.subject = subject);
                Ok(drafts)
            }
            Command::SetDeadline(stream, kind, at) => {
                Ok(vec![draft(stream, DEADLINE_SET, deadline_bytes(at, kind))])
            }
            Command::Pass(at, kind, stream) => Ok(match kind {
                Kind::Expiry | Kind::Release
                    if state.get(&Key::Deadline(at, kind, stream)).is_some() =>
                {
                    vec![draft(stream, DEADLINE_PASSED, deadline_bytes(at, kind))]
                }
                Kind::Expiry | Kind::Release | Kind::Stuck => Vec::new(),
            }),
            Command::Forget(stream) => Ok(vec![draft(stream, FORGOTTEN, Vec::new())]),
            Command::Nothing => Ok(Vec::new()),
            Command::Panic => panic!("as the test asked"),
            Command::PanicInEvolve(stream) => {
                Ok([add(state, stream, 1)?, vec![draft(stream, CORRUPT, number(0))]].concat())
            }
            Command::LoseHead(stream) => Ok(vec![draft(stream, CORRUPT, number(1))]),
            Command::Big(stream, len) => {
                Ok(vec![draft(stream, ADDED, number(0)), draft(stream, ADDED, vec![0; len])])
            }
            Command::Stepped(from, to) => {
                Ok(vec![draft(Id::NIL, CLOCK_STEPPED, [number(from.0), number(to.0)].concat())])
            }
        }
    }

    fn evolve(state: &dyn Entries<Self>, record: &Record) -> Vec<Change<Self>> {
        let stream = record.draft.stream;
        let clear = &record.draft.clear;
        let grown = Entry(record.stream_version + 1, record.position.0);
        let mut changes = vec![(Key::Head(stream), Some(Arc::new(grown)))];
        let counter_at = |value| (Key::Counter(stream), Some(Arc::new(Entry(value, 0))));
        let deadline = |clear: &[u8]| {
            let kind = kind_of(clear[8]).expect("a kind");
            Key::Deadline(Micros(number_in(clear)), kind, stream)
        };
        match record.draft.event_type {
            ADDED => changes.push(counter_at(counter(state, stream) + number_in(clear))),
            DEADLINE_SET => changes.push((deadline(clear), Some(Arc::new(Entry(0, 0))))),
            DEADLINE_PASSED => {
                changes.push((deadline(clear), None));
                changes.push(counter_at(0));
            }
            CLOCK_STEPPED => (),
            FORGOTTEN => changes.push((Key::Counter(stream), None)),
            _ if number_in(clear) == 0 => panic!("as the test asked"),
            _ => changes.clear(),
        }
        changes
    }

    fn head(state: &dyn Entries<Self>, stream: Id) -> StreamHead {
        state.get(&Key::Head(stream)).map_or_else(StreamHead::default, |entry| StreamHead {
            version: entry.0,
            last: Some(Position(entry.1)),
        })
    }

    fn deadline(key: &Key) -> Option<Micros> {
        match key {
            Key::Deadline(at, ..) => Some(*at),
            Key::Head(_) | Key::Counter(_) => None,
        }
    }

    fn deadline_range() -> (Vec<u8>, Vec<u8>) {
        (vec![2], vec![3])
    }

    fn on_deadline(key: &Key, _: Id) -> Command {
        match *key {
            Key::Deadline(at, kind, stream) => Command::Pass(at, kind, stream),
            Key::Head(_) | Key::Counter(_) => Command::Nothing,
        }
    }

    fn is_expiry(key: &Key) -> bool {
        !matches!(key, Key::Deadline(_, Kind::Release, _))
    }

    fn on_clock_step(from: Micros, to: Micros, _: Id) -> Command {
        Command::Stepped(from, to)
    }
}

/// A clock that moves when told to.
#[derive(Default)]
pub(crate) struct ManualClock {
    wall: AtomicU64,
    monotonic: AtomicU64,
}

impl ManualClock {
    pub(crate) fn pass(&self, micros: u64) {
        self.wall.fetch_add(micros, Ordering::SeqCst);
        self.monotonic.fetch_add(micros, Ordering::SeqCst);
    }

    pub(crate) fn step_to(&self, wall: u64) {
        self.wall.store(wall, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn wall(&self) -> Micros {
        Micros(self.wall.load(Ordering::SeqCst))
    }

    fn monotonic(&self) -> Micros {
        Micros(self.monotonic.load(Ordering::SeqCst))
    }
}

/// Counts.
#[derive(Default)]
pub(crate) struct CountingEntropy(AtomicU64);

impl Entropy for CountingEntropy {
    fn fill(&self, out: &mut [u8]) {
        let count = self.0.fetch_add(1, Ordering::SeqCst).to_be_bytes();
        for (byte, next) in out.iter_mut().zip(count.iter().cycle()) {
            *byte = *next;
        }
    }
}

pub(crate) fn stream(number: u8) -> Id {
    Id([number; 16])
}

pub(crate) fn envelope(command: Command) -> Envelope<Toy> {
    Envelope { command, causation: Id([0xca; 16]), correlation: Id([0xc0; 16]) }
}

pub(crate) type Outcome = Result<Executed, ExecuteError<TooMuch>>;

/// A folder for a test; in memory where there is plenty: none of them rests on
/// what the machine's disk makes durable, and waiting for it takes minutes.
pub(crate) fn tempdir() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    match RealDisk.free_bytes(memory) {
        Ok(free) if free > 4 << 30 => tempfile::tempdir_in(memory).unwrap(),
        Ok(_) | Err(_) => tempfile::tempdir().unwrap(),
    }
}

/// Everything a test of a running store needs.
pub(crate) struct World {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) fatal: Arc<Mutex<Vec<String>>>,
    pub(crate) runtime: tokio::runtime::Runtime,
    pub(crate) options: Options,
}

impl World {
    pub(crate) fn new() -> Self {
        let clock = Arc::new(ManualClock::default());
        let fatal = Arc::new(Mutex::new(Vec::new()));
        let called = Arc::clone(&fatal);
        let hook: Fatal = Arc::new(move |message| called.lock().unwrap().push(message.to_owned()));
        let entropy = Arc::new(CountingEntropy::default());
        let mut options = Options::new(ORIGIN, Arc::clone(&clock) as _, entropy);
        options.tick_ms = None;
        options.boot_id = Some("one".to_owned());
        options.fatal = hook;
        Self {
            dir: tempdir(),
            clock,
            fatal,
            runtime: tokio::runtime::Builder::new_current_thread().build().unwrap(),
            options,
        }
    }

    pub(crate) fn folder(&self) -> Folder {
        self.options.folder(self.store_dir())
    }

    pub(crate) fn store_dir(&self) -> &Path {
        self.dir.path()
    }

    /// A store over `log`, and what opening it did.
    pub(crate) fn try_start(
        &self,
        log: impl BlockLog + 'static,
        copy: MemoryLog,
    ) -> Result<(Running<Toy>, OpenReport), OpenError> {
        let mut report = OpenReport::default();
        let dir = self.store_dir();
        let opened = open_database(dir, &self.options, genesis(ORIGIN), &mut report)?;
        let source = Source { log, origin: ORIGIN, fallback: Box::new(copy), keys: None };
        let running = Running::start(&self.folder(), opened, source, &self.options, &mut report)?;
        Ok((running, report))
    }

    /// A store over a log in memory.
    pub(crate) fn start(&self, log: &MemoryLog) -> (Running<Toy>, OpenReport) {
        self.try_start(log.clone(), log.clone()).unwrap()
    }

    pub(crate) fn execute(&self, handle: &Handle<Toy>, command: Command) -> Outcome {
        self.runtime.block_on(handle.execute(envelope(command)))
    }

    pub(crate) fn fatal_messages(&self) -> Vec<String> {
        self.fatal.lock().unwrap().clone()
    }
}

impl Fallback for MemoryLog {
    fn records(&self, from: Position, limit: usize) -> std::io::Result<Vec<Vec<u8>>> {
        self.read(from, limit)
    }
}

/// A log whose appends wait until told to go on.
#[derive(Clone)]
pub(crate) struct GatedLog {
    log: MemoryLog,
    gate: Arc<(Mutex<Gate>, Condvar)>,
}

#[derive(Default)]
struct Gate {
    open: bool,
    waiting: bool,
}

impl GatedLog {
    pub(crate) fn new(log: MemoryLog) -> Self {
        Self { log, gate: Arc::default() }
    }

    /// Returns once an append has come to the gate.
    pub(crate) fn wait_for_append(&self) {
        let (gate, changed) = &*self.gate;
        drop(changed.wait_while(gate.lock().unwrap(), |gate| !gate.waiting).unwrap());
    }

    pub(crate) fn open(&self) {
        self.gate.0.lock().unwrap().open = true;
        self.gate.1.notify_all();
    }
}

impl BlockLog for GatedLog {
    fn head(&self) -> Head {
        self.log.head()
    }

    fn append(&mut self, expect: &Head, block: &Block) -> Result<Head, AppendError> {
        let (gate, changed) = &*self.gate;
        let mut at_gate = gate.lock().unwrap();
        at_gate.waiting = true;
        changed.notify_all();
        drop(changed.wait_while(at_gate, |gate| !gate.open).unwrap());
        self.log.append(expect, block)
    }

    fn read(&self, from: Position, limit: usize) -> std::io::Result<Vec<Vec<u8>>> {
        self.log.read(from, limit)
    }
}
