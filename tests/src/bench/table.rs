//! The report as tables for people.

use std::fmt::Write;

use super::Report;
use super::crowd::Sample;
use super::durable::DurableRun;
use super::evidence::Evidence;
use super::machine::Machine;
use super::replay::Replay;
use super::server::ServerRun;
use super::start::Start;
use super::verification::Verification;

/// Rows of cells under a title.
struct Table {
    text: String,
    rows: Vec<Vec<String>>,
}

impl Table {
    fn new(title: &str, columns: &[&str]) -> Self {
        let columns = columns.iter().map(|&name| name.to_owned()).collect();
        Self { text: format!("\n{title}\n\n"), rows: vec![columns] }
    }

    fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Columns as wide as their widest cell; the first to the left, the others
    /// to the right. Reads as Markdown too.
    fn finish(mut self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for (number, row) in self.rows.iter().enumerate() {
            for (column, &width) in widths.iter().enumerate() {
                let cell = row.get(column).map_or("", String::as_str);
                // Writing to a string cannot fail.
                let _ = match column {
                    0 => write!(self.text, "| {cell:<width$} |"),
                    _ => write!(self.text, " {cell:>width$} |"),
                };
            }
            self.text.push('\n');
            if number == 0 {
                for (column, &width) in widths.iter().enumerate() {
                    let dashes = "-".repeat(width);
                    let _ = match column {
                        0 => write!(self.text, "|-{dashes}-|"),
                        _ => write!(self.text, "-{dashes}:|"),
                    };
                }
                self.text.push('\n');
            }
        }
        self.text
    }
}

/// The whole report.
pub(crate) fn of(report: &Report) -> String {
    let mut text = machine(&report.machine);
    text.extend(report.verification.as_ref().map(verification));
    text.extend(report.durable.as_ref().map(durable));
    text.extend(report.replay.as_ref().map(replay));
    text.extend(report.start.as_ref().map(start));
    text.extend(report.server.as_ref().map(server));
    text.extend(report.evidence.as_ref().map(evidence));
    text
}

fn machine(machine: &Machine) -> String {
    format!(
        "{}, {} cores, {} MiB, Linux {}, {}; load {:.2} before, {:.2} after\n",
        machine.processor,
        machine.cores,
        machine.memory_mib,
        machine.kernel,
        machine.file_system,
        machine.load_before,
        machine.load_after,
    )
}

/// A number with its thousands apart.
fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

fn ratio(ratio: f64) -> String {
    format!("{ratio:.2}")
}

fn verification(seen: &Verification) -> String {
    let title = "Bare verification, ECDSA P-256 over a transcript, one core, CPU time";
    let mut table = Table::new(title, &["library", "µs", "per s"]);
    let row = |name: &str, us: f64, per_s: f64| [name.into(), format!("{us:.1}"), grouped(per_s)];
    table.row(row("aws-lc-rs", seen.aws_lc_rs_us, seen.aws_lc_rs_per_s));
    table.row(row("p256", seen.p256_us, seen.p256_per_s));
    table.finish() + &format!("\np256 over aws-lc-rs: {:.1}\n", seen.ratio)
}

fn durable(seen: &DurableRun) -> String {
    let title = format!(
        "Durable events a second; log-ins over {} registrations, {:.0} bytes an event",
        grouped(seen.registrations as f64),
        seen.bytes_per_event
    );
    let columns = [
        "writers", "what", "per s", "ratio", "per sync", "p50 µs", "p99 µs", "writer", "behind",
        "sled", "load",
    ];
    let mut table = Table::new(&title, &columns);
    for row in &seen.by_writers {
        let plain = &row.plain_file;
        table.row([
            row.writers.to_string(),
            "plain file".into(),
            grouped(plain.entries_per_s),
            String::new(),
            format!("{:.1}", plain.entries_per_sync),
            plain.wait_us.p50.to_string(),
            plain.wait_us.p99.to_string(),
        ]);
        table.row(sample("log only", &row.log_only, row.log_only_ratio));
        table.row(sample("everything", &row.everything, row.everything_ratio));
    }
    let mut text = table.finish();
    text.push_str("\nThe last four columns are µs of CPU for an event, by thread.\n");
    for row in &seen.by_writers {
        let sync = row.plain_file.sync_us;
        let _ = writeln!(
            text,
            "\nfdatasync of the plain file at {} writers: p50 {} µs, p99 {} µs",
            row.writers, sync.p50, sync.p99
        );
    }
    text
}

fn sample(name: &str, seen: &Sample, over_plain: f64) -> [String; 11] {
    let cpu = &seen.cpu_us_per_event;
    [
        seen.writers.to_string(),
        name.into(),
        grouped(seen.events_per_s),
        ratio(over_plain),
        format!("{:.1}", seen.events_per_sync),
        seen.wait_us.p50.to_string(),
        seen.wait_us.p99.to_string(),
        format!("{:.1}", cpu.writer),
        format!("{:.1}", cpu.behind),
        format!("{:.1}", cpu.sled),
        format!("{:.1}", cpu.load),
    ]
}

fn replay(seen: &Replay) -> String {
    let title = format!("Replay of {} events, one core, CPU time", grouped(seen.events as f64));
    let mut table = Table::new(&title, &["step", "events per s"]);
    table.row(["read, hashes, chain".into(), grouped(seen.checked_per_s)]);
    table.row(["decode, fold into state".into(), grouped(seen.folded_per_s)]);
    table.row(["both".into(), grouped(seen.replayed_per_s)]);
    table.finish()
}

fn start(seen: &Start) -> String {
    let title = format!(
        "Start after a kill; {} events, {} registrations",
        grouped(seen.filled.events as f64),
        grouped(seen.registrations as f64)
    );
    let mut table = Table::new(&title, &["figure", "seen"]);
    let opened = &seen.opened;
    table.row(["start, s".into(), format!("{:.2}", opened.seconds)]);
    table.row(["records read again".into(), grouped(opened.replayed as f64)]);
    table.row(["resident memory, MiB".into(), format!("{:.0}", opened.resident_mib)]);
    table.row([
        "after reading every registration, MiB".into(),
        format!("{:.0}", opened.resident_after_reads_mib),
    ]);
    let filled = &seen.filled;
    table.row(["bytes of a log-in in log/".into(), grouped(filled.log_bytes_per_log_in)]);
    table.row(["bytes of a log-in in store/".into(), grouped(filled.store_bytes_per_log_in)]);
    table.row(["bytes of a log-in, both".into(), grouped(filled.bytes_per_log_in)]);
    table.finish()
}

fn server(seen: &ServerRun) -> String {
    let title = "A complete log-in over HTTP (create, start, finish, poll; durable)";
    let columns = [
        "clients",
        "log-ins",
        "per s",
        "signatures",
        "server CPU µs",
        "bare CPU µs",
        "ratio",
        "p50 µs",
        "p99 µs",
        "MiB",
    ];
    let mut table = Table::new(title, &columns);
    for row in &seen.by_clients {
        table.row([
            row.clients.to_string(),
            grouped(row.log_ins as f64),
            grouped(row.log_ins_per_s),
            format!("{:.2}", row.signatures_per_log_in),
            format!("{:.0}", row.server_cpu_us),
            format!("{:.0}", row.verification_cpu_us),
            ratio(row.ratio),
            row.answer_us.p50.to_string(),
            row.answer_us.p99.to_string(),
            format!("{:.0}", row.resident_mib),
        ]);
    }
    let audit = &seen.audit;
    table.finish()
        + &format!(
            "\nIts log verified: {} events, {} signatures in {:.2} s, {:.2} s of CPU, of which \
             bare verification is {:.2}\n",
            grouped(audit.events as f64),
            grouped(audit.signatures as f64),
            audit.seconds,
            audit.cpu_seconds,
            audit.bare_share
        )
}

fn evidence(seen: &Evidence) -> String {
    let (writing, receipts) = (&seen.writing, &seen.receipts);
    let title = format!("Evidence; {} events", grouped(receipts.size as f64));
    let mut table = Table::new(&title, &["figure", "seen"]);
    table.row([
        "tree and checkpoints, µs of CPU an event".into(),
        format!("{:.2}", writing.notary_us),
    ]);
    table.row(["the log's writer, µs of CPU an event".into(), format!("{:.2}", writing.writer_us)]);
    table.row(["the one over the other".into(), ratio(writing.notary_us / writing.writer_us)]);
    table.row(["durable to signed, ms, p50".into(), writing.lag_ms.p50.to_string()]);
    table.row(["durable to signed, ms, p99".into(), writing.lag_ms.p99.to_string()]);
    table.row(["receipt with its record, bytes, p50".into(), receipts.with_record.p50.to_string()]);
    table.row(["the longest".into(), receipts.longest.to_string()]);
    table.row(["receipt without it, bytes, p50".into(), receipts.without_record.p50.to_string()]);
    for step in &seen.levels {
        let name = format!("verify, levels {}: events per s of CPU", step.levels);
        table.row([name, grouped(step.events_per_s)]);
    }
    for memory in &seen.memory {
        let name = format!("verify, {} events, MiB at most", grouped(memory.events as f64));
        table.row([name, format!("{:.0}", memory.peak_mib)]);
    }
    table.finish()
}
