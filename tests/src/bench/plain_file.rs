//! The yardstick: a plain file of zeros written ahead, to which the same bytes
//! are written in groups, each group synced before it is acknowledged.
//!
//! Writers, queue and answers are those of the store: tasks of one thread, a
//! bounded queue, a oneshot for each; one thread writes what waits. What is left
//! out is what keytrail adds: rules, records, hashes, state, the second copy.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use api::ports::SystemClock;
use engine::machine::Clock;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::draw::Draw;
use super::machine::seconds_since;
use super::{Outcome, Spread, spread};

/// Length of the file; written round and round.
const FILE_BYTES: u64 = 128 << 20;

/// Most entries of a group, as the store has it.
const GROUP_MAX: usize = 1_024;

/// What the plain file did in some time.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Sample {
    /// Writers.
    pub(crate) writers: usize,
    /// Entries written, synced and acknowledged, a second.
    pub(crate) entries_per_s: f64,
    /// Entries that shared one sync, on average.
    pub(crate) entries_per_sync: f64,
    /// How long one `fdatasync` took, in microseconds.
    pub(crate) sync_us: Spread,
    /// How long one entry waited to be durable, in microseconds.
    pub(crate) wait_us: Spread,
}

type Entry = (Vec<u8>, oneshot::Sender<()>);

/// The file, made and synced.
pub(crate) struct PlainFile {
    file: File,
}

/// Measurements of one or more stretches of time.
#[derive(Default)]
pub(crate) struct Stretches {
    seconds: f64,
    entries: u64,
    syncs: Vec<u64>,
    waits: Vec<u64>,
}

impl PlainFile {
    /// Makes the file in `dir`.
    ///
    /// # Errors
    ///
    /// As the file system says.
    pub(crate) fn new(dir: &Path) -> Outcome<Self> {
        let path = dir.join("plain");
        let file = File::options().create(true).truncate(true).write(true).open(path)?;
        let zeros = vec![0; 1 << 20];
        for offset in (0..FILE_BYTES).step_by(zeros.len()) {
            file.write_all_at(&zeros, offset)?;
        }
        file.sync_all()?;
        Ok(Self { file })
    }

    /// Lets `writers` write entries of `bytes` bytes for some seconds, and adds
    /// what they did to `stretches`.
    ///
    /// # Errors
    ///
    /// As the file system says.
    pub(crate) fn run(
        &self,
        writers: usize,
        bytes: usize,
        seconds: f64,
        stretches: &mut Stretches,
    ) -> Outcome<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        let (sender, inbox) = mpsc::channel(4_096);
        let file = self.file.try_clone()?;
        let syncing = std::thread::spawn(move || write_groups(&file, inbox));
        let clock = Arc::new(SystemClock::start());
        let start = clock.monotonic();
        let mut tasks = JoinSet::new();
        for number in 0..writers {
            let entry = Draw::new(number as u64).vec(bytes);
            let work = write_one(sender.clone(), entry, Arc::clone(&clock), seconds);
            tasks.spawn_on(work, runtime.handle());
        }
        drop(sender);
        for waits in runtime.block_on(tasks.join_all()) {
            let waits = waits?;
            stretches.entries += waits.len() as u64;
            stretches.waits.extend(waits);
        }
        stretches.seconds += seconds_since(&*clock, start);
        stretches.syncs.extend(syncing.join().map_err(|_| "the writing thread panicked")??);
        Ok(())
    }
}

impl Stretches {
    /// What was done in all of them.
    pub(crate) fn sample(self, writers: usize) -> Sample {
        Sample {
            writers,
            entries_per_s: self.entries as f64 / self.seconds,
            entries_per_sync: self.entries as f64 / self.syncs.len().max(1) as f64,
            sync_us: spread(self.syncs),
            wait_us: spread(self.waits),
        }
    }
}

async fn write_one(
    queue: mpsc::Sender<Entry>,
    entry: Vec<u8>,
    clock: Arc<SystemClock>,
    seconds: f64,
) -> Outcome<Vec<u64>> {
    let start = clock.monotonic();
    let mut waits = Vec::new();
    while seconds_since(&*clock, start) < seconds {
        let before = clock.monotonic();
        let (reply, done) = oneshot::channel();
        queue.try_send((entry.clone(), reply))?;
        done.await?;
        waits.push(clock.monotonic().0 - before.0);
    }
    Ok(waits)
}

/// Writes what waits, syncs it, answers; until all writers are gone. Returns how
/// long each sync took.
fn write_groups(file: &File, mut inbox: mpsc::Receiver<Entry>) -> Outcome<Vec<u64>> {
    let clock = SystemClock::start();
    let (mut offset, mut syncs) = (0, Vec::new());
    while let Some((first, reply)) = inbox.blocking_recv() {
        let (mut bytes, mut replies) = (first, vec![reply]);
        while replies.len() < GROUP_MAX
            && let Ok((entry, reply)) = inbox.try_recv()
        {
            bytes.extend_from_slice(&entry);
            replies.push(reply);
        }
        if offset + bytes.len() as u64 > FILE_BYTES {
            offset = 0;
        }
        file.write_all_at(&bytes, offset)?;
        offset += bytes.len() as u64;
        let before = clock.monotonic();
        file.sync_data()?;
        syncs.push(clock.monotonic().0 - before.0);
        for reply in replies {
            // A writer that has gone has its time over.
            let _ = reply.send(());
        }
    }
    Ok(syncs)
}
