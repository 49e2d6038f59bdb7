//! A store with registrations, and writers that log them in.
//!
//! Writers are tasks of one thread, as requests are in a worker of the server:
//! on two cores the log's writer has the other one, and shares it with the
//! writer behind and with sled.

use std::path::Path;
use std::sync::Arc;

use api::ports::{SystemClock, SystemEntropy};
use engine::Keytrail;
use engine::ids::Position;
use engine::machine::Clock;
use serde::Serialize;
use storage::open::{Options, Store};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use super::login::{Member, Writer};
use super::machine::{Threads, seconds_since};
use super::{Outcome, Spread, spread};

/// Writers that set a store up.
const BUILDERS: usize = 256;

/// An open store and who logs in to it.
pub(crate) struct Crowd {
    /// The store.
    pub(crate) store: Store<Keytrail>,
    clock: Arc<SystemClock>,
    members: Vec<Member>,
    runtime: Runtime,
    seed: u64,
}

/// What writers did in some time.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Sample {
    /// Writers.
    pub(crate) writers: usize,
    /// How long it took.
    pub(crate) seconds: f64,
    /// Events made durable and acknowledged.
    pub(crate) events: u64,
    /// The same a second.
    pub(crate) events_per_s: f64,
    /// Events that shared one sync, on average.
    pub(crate) events_per_sync: f64,
    /// CPU time for one event, in microseconds. Where another store is open in
    /// the process, what its threads do is in it.
    pub(crate) cpu_us_per_event: Threads,
    /// How long an answer waited to be judged and durable, in microseconds.
    pub(crate) wait_us: Spread,
}

/// The end of a load.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Until {
    /// So many seconds have passed.
    Seconds(f64),
    /// So many log-ins are done, by all writers together.
    LogIns(u64),
}

/// Options of a store on the real disk, under the real clock.
pub(crate) fn options(clock: &Arc<SystemClock>) -> Options {
    let clock: Arc<dyn Clock> = Arc::<SystemClock>::clone(clock);
    Options::new("keytrail.bench/1", clock, Arc::new(SystemEntropy))
}

impl Crowd {
    /// Makes a store in `dir` with this many active registrations.
    ///
    /// # Errors
    ///
    /// If the store cannot be made or refuses a command.
    pub(crate) fn new(
        dir: &Path,
        registrations: usize,
        adjust: impl FnOnce(&mut Options),
    ) -> Outcome<Self> {
        let clock = Arc::new(SystemClock::start());
        let mut options = options(&clock);
        adjust(&mut options);
        let store = Store::open(dir, options)?;
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        let mut crowd = Self { store, clock, members: Vec::new(), runtime, seed: 1 };
        crowd.activate(registrations)?;
        Ok(crowd)
    }

    fn writer(&mut self) -> Writer {
        self.seed += 1;
        let clock: Arc<dyn Clock> = Arc::<SystemClock>::clone(&self.clock);
        Writer::new(self.store.handle.clone(), clock, self.seed)
    }

    fn activate(&mut self, registrations: usize) -> Outcome<()> {
        let mut first = self.writer();
        self.runtime.block_on(first.begin())?;
        let mut tasks = JoinSet::new();
        for builder in 0..BUILDERS {
            let mut writer = self.writer();
            // One person has many registrations here: each new subject is a sync of
            // its own, and none of the log's.
            let person = format!("customer-{builder}");
            let subject = self.store.keys.subject_for("bank", &person)?.id;
            let share = (registrations + BUILDERS - 1 - builder) / BUILDERS;
            let work = async move {
                let mut members = Vec::with_capacity(share);
                for _ in 0..share {
                    members.push(writer.activate(subject).await?);
                }
                Outcome::Ok(members)
            };
            tasks.spawn_on(work, self.runtime.handle());
        }
        let members = self.runtime.block_on(tasks.join_all());
        for share in members {
            self.members.extend(share?);
        }
        Ok(())
    }

    /// Lets `writers` log registrations in, each its own share of them, one
    /// log-in after the other.
    ///
    /// # Errors
    ///
    /// If the store refuses a command.
    pub(crate) fn log_in(&mut self, writers: usize, until: Until) -> Outcome<Sample> {
        let mut tasks = JoinSet::new();
        let before = self.store.handle.counters();
        let threads = Threads::now()?;
        let start = self.clock.monotonic();
        for number in 0..writers {
            let own = self.members.iter().skip(number).step_by(writers).cloned().collect();
            let writer = self.writer();
            let clock = Arc::clone(&self.clock);
            let share = match until {
                Until::Seconds(_) => until,
                Until::LogIns(all) => {
                    Until::LogIns((all + writers as u64 - 1 - number as u64) / writers as u64)
                }
            };
            let work = log_in_one(writer, own, clock, share);
            tasks.spawn_on(work, self.runtime.handle());
        }
        let mut waits = Vec::new();
        for share in self.runtime.block_on(tasks.join_all()) {
            waits.extend(share?);
        }
        let seconds = seconds_since(&*self.clock, start);
        let after = self.store.handle.counters();
        let events = after.records - before.records;
        Ok(Sample {
            writers,
            seconds,
            events,
            events_per_s: events as f64 / seconds,
            events_per_sync: events as f64 / (after.groups - before.groups).max(1) as f64,
            cpu_us_per_event: Threads::now()?.since(threads, events),
            wait_us: spread(waits),
        })
    }

    /// Mean length of the last `count` records as the journal frames them, in bytes.
    ///
    /// # Errors
    ///
    /// If they cannot be read.
    pub(crate) fn bytes_per_event(&self, count: u64) -> Outcome<f64> {
        let size = self.store.log.head().size;
        let mut bytes = 0;
        for position in size.saturating_sub(count)..size {
            bytes += 4 + self.store.log.raw(Position(position))?.len();
        }
        Ok(bytes as f64 / count.min(size).max(1) as f64)
    }

    /// Stops the store cleanly.
    ///
    /// # Errors
    ///
    /// If it has stopped already.
    pub(crate) fn close(self) -> Outcome<()> {
        Ok(self.store.close()?)
    }
}

async fn log_in_one(
    mut writer: Writer,
    members: Vec<Member>,
    clock: Arc<SystemClock>,
    until: Until,
) -> Outcome<Vec<u64>> {
    let start = clock.monotonic();
    let mut order = super::draw::Draw::new(start.0 ^ members.len() as u64);
    let mut waits = Vec::new();
    loop {
        let over = match until {
            Until::Seconds(seconds) => seconds_since(&*clock, start) >= seconds,
            Until::LogIns(count) => waits.len() as u64 >= count,
        };
        if over {
            return Ok(waits);
        }
        let member = members.get(order.below(members.len().max(1)));
        let member = member.ok_or("there are more writers than registrations")?;
        waits.push(writer.log_in(member).await?);
    }
}
