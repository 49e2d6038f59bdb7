//! The machine as the kernel describes it, and the time that it spends on us.
//!
//! Figures per core are taken in CPU time, which other processes do not take
//! away from; figures per second are taken by the clock on the wall.

use std::fs;
use std::path::Path;

use engine::ids::Micros;
use engine::machine::Clock;
use serde::Serialize;

use super::Outcome;

/// What the figures were taken on.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    /// Name of the processor.
    pub(crate) processor: String,
    /// Processors that this process may use.
    pub(crate) cores: usize,
    /// Memory in MiB.
    pub(crate) memory_mib: u64,
    /// Kernel release.
    pub(crate) kernel: String,
    /// File system that the data folders are on, and its device.
    pub(crate) file_system: String,
    /// Load average of the last minute before the first bench; what runs beside
    /// takes away from every figure by the clock.
    pub(crate) load_before: f64,
    /// The same after the last bench; our own load is in it.
    pub(crate) load_after: f64,
}

impl Machine {
    /// The machine now, with the file system that `dir` is on.
    pub(crate) fn of(dir: &Path) -> Self {
        let cpu = read("/proc/cpuinfo");
        let memory = read("/proc/meminfo");
        Self {
            processor: value(&cpu, "model name").unwrap_or("unknown").to_owned(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_mib: value(&memory, "MemTotal").map_or(0, |text| number(text) / 1_024),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            file_system: file_system(dir),
            load_before: load(),
            load_after: 0.0,
        }
    }

    /// Whether what is synced here survives anything.
    pub(crate) fn is_memory(&self) -> bool {
        self.file_system.starts_with("tmpfs") || self.file_system.starts_with("ramfs")
    }
}

/// A file of the kernel's; empty where there is none.
fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// The value behind the first `name:`.
fn value<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_once(':').map(|(_, value)| value.trim())
}

/// The number that a text begins with.
fn number(text: &str) -> u64 {
    text.split_whitespace().next().and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

/// Load average of the last minute.
pub(crate) fn load() -> f64 {
    let text = read("/proc/loadavg");
    text.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0.0)
}

/// The mount with the longest name that `dir` lies under.
fn file_system(dir: &Path) -> String {
    let dir = fs::canonicalize(dir).unwrap_or_else(|_| dir.to_path_buf());
    let mounts = read("/proc/self/mounts");
    let mounted = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ');
        let (device, point, kind) = (fields.next()?, fields.next()?, fields.next()?);
        dir.starts_with(point).then(|| (point.len(), format!("{kind} on {device}")))
    });
    mounted.max().map_or_else(|| "unknown".to_owned(), |(_, text)| text)
}

/// CPU time of the calling thread, in nanoseconds.
///
/// # Errors
///
/// If the kernel does not tell.
pub(crate) fn thread_cpu_ns() -> Outcome<u64> {
    let text = fs::read_to_string("/proc/thread-self/schedstat")?;
    Ok(number(&text))
}

/// CPU time of a process with all its threads, user and system, in
/// microseconds; exact to 10 ms.
///
/// # Errors
///
/// If there is no such process.
pub(crate) fn process_cpu_us(pid: u32) -> Outcome<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name in brackets may hold anything; the fields follow the last bracket.
    let (_, fields) = text.rsplit_once(')').ok_or("the kernel's line has another form")?;
    let mut fields = fields.split_whitespace().skip(11);
    let mut ticks = || fields.next().and_then(|field| field.parse::<u64>().ok());
    let (user, system) = ticks().zip(ticks()).ok_or("the kernel's line has another form")?;
    Ok((user + system) * 10_000)
}

/// CPU time that the threads of this process have had, in microseconds, by who
/// they work for.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Threads {
    /// The log's writer.
    pub(crate) writer: f64,
    /// The writer behind.
    pub(crate) behind: f64,
    /// sled's own threads.
    pub(crate) sled: f64,
    /// Whoever keeps the tree and signs checkpoints.
    pub(crate) notary: f64,
    /// All others: who makes the load.
    pub(crate) load: f64,
}

impl Threads {
    /// Until now. Threads that have ended are not in it.
    ///
    /// # Errors
    ///
    /// If the kernel does not tell.
    pub(crate) fn now() -> Outcome<Self> {
        let mut threads = Self::default();
        for thread in fs::read_dir("/proc/self/task")? {
            let thread = thread?.path();
            // It may have ended since the folder was read.
            let Ok(name) = fs::read_to_string(thread.join("comm")) else { continue };
            let Ok(spent) = fs::read_to_string(thread.join("schedstat")) else { continue };
            let share = match name.trim() {
                "keytrail-writer" => &mut threads.writer,
                "keytrail-behind" => &mut threads.behind,
                "notary" => &mut threads.notary,
                name if name.starts_with("sled") || name == "log flusher" => &mut threads.sled,
                _ => &mut threads.load,
            };
            *share += number(&spent) as f64 / 1e3;
        }
        Ok(threads)
    }

    /// What was spent since `before`, for each of `events`.
    pub(crate) fn since(self, before: Self, events: u64) -> Self {
        let each = |after: f64, before: f64| (after - before).max(0.0) / events.max(1) as f64;
        Self {
            writer: each(self.writer, before.writer),
            behind: each(self.behind, before.behind),
            sled: each(self.sled, before.sled),
            notary: each(self.notary, before.notary),
            load: each(self.load, before.load),
        }
    }
}

/// Resident memory of a process, in MiB.
///
/// # Errors
///
/// If there is no such process.
pub(crate) fn resident_mib(pid: u32) -> Outcome<f64> {
    memory_mib(pid, "VmRSS")
}

/// The most resident memory that a process has had, in MiB.
///
/// # Errors
///
/// If there is no such process.
pub(crate) fn peak_mib(pid: u32) -> Outcome<f64> {
    memory_mib(pid, "VmHWM")
}

fn memory_mib(pid: u32, what: &str) -> Outcome<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kib = value(&text, what).map(number).ok_or("the kernel does not tell")?;
    Ok(kib as f64 / 1_024.0)
}

/// Bytes that the files below `dir` take on the disk.
///
/// # Errors
///
/// If the folder cannot be read.
pub(crate) fn disk_bytes(dir: &Path) -> Outcome<u64> {
    use std::os::unix::fs::MetadataExt;
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += metadata.blocks() * 512;
        if metadata.is_dir() {
            bytes += disk_bytes(&entry.path())?;
        }
    }
    Ok(bytes)
}

/// Seconds from `start` until now.
pub(crate) fn seconds_since(clock: &dyn Clock, start: Micros) -> f64 {
    clock.monotonic().0.saturating_sub(start.0) as f64 / 1e6
}
