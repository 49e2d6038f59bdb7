//! Reading what `strace -f -x -y` saw, and holding it to the order of
//! write, sync and answer.

use std::collections::HashMap;

use engine::ids::Id;

/// The calls that are watched.
pub(crate) const CALLS: &str = "fdatasync,fsync,write,writev,pwrite64,pwritev,sendto,sendmsg";

/// One system call, from the line on which it was entered to that on which it returned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    name: String,
    /// Everything between the parentheses, as far as it was shown.
    arguments: String,
    entered: usize,
    returned: usize,
    result: i64,
}

impl Call {
    /// What its file descriptor stands for.
    fn target(&self) -> &str {
        let from = self.arguments.find('<').map_or(0, |at| at + 1);
        let to = self.arguments.find('>').unwrap_or(from);
        &self.arguments[from..to]
    }

    fn is_on_the_journal(&self) -> bool {
        self.target().contains("/log/segment-")
    }

    fn is(&self, names: &[&str]) -> bool {
        names.contains(&self.name.as_str())
    }
}

/// The calls that returned, in the order in which they were entered.
pub(crate) fn calls(trace: &str) -> Vec<Call> {
    let mut unfinished: HashMap<&str, (usize, &str)> = HashMap::new();
    let mut calls = Vec::new();
    for (number, line) in trace.lines().enumerate() {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let rest = rest.trim_start();
        if let Some(begun) = rest.strip_suffix(" <unfinished ...>") {
            unfinished.insert(thread, (number, begun));
        } else if rest.starts_with("<... ") {
            let Some((entered, begun)) = unfinished.remove(thread) else { continue };
            let ended = rest.split_once(" resumed>").map_or("", |(_, ended)| ended);
            calls.extend(call(&format!("{begun}{ended}"), entered, number));
        } else {
            calls.extend(call(rest, number, number));
        }
    }
    calls.sort_by_key(|call| call.entered);
    calls
}

/// `name(arguments) = result`; none for signals, exits and calls that never returned.
fn call(text: &str, entered: usize, returned: usize) -> Option<Call> {
    let (name, rest) = text.split_once('(')?;
    let (arguments, result) = rest.rsplit_once(") = ").or_else(|| {
        // strace aligns short calls with blanks before the equals sign.
        let (arguments, result) = rest.rsplit_once(" = ")?;
        Some((arguments.trim_end().strip_suffix(')')?, result))
    })?;
    let result = result.split_whitespace().next()?.parse().ok()?;
    let (name, arguments) = (name.to_owned(), arguments.to_owned());
    Some(Call { name, arguments, entered, returned, result })
}

/// Holds the calls to it: the record of the request `correlation` was written to
/// the journal, that file was synced after the write, and only then was an
/// answer to it sent.
pub(crate) fn answered_after_its_sync(calls: &[Call], correlation: Id) -> Result<(), String> {
    let octets: String = correlation.0.iter().map(|octet| format!("\\x{octet:02x}")).collect();
    let wrote = |call: &&Call| {
        call.is(&["write", "writev", "pwrite64", "pwritev"])
            && call.is_on_the_journal()
            && call.arguments.contains(&octets)
    };
    let written = calls.iter().filter(wrote).max_by_key(|call| call.returned);
    let written = written.ok_or("its record was never written to the journal")?;
    let synced = calls.iter().find(|call| {
        call.is(&["fdatasync", "fsync"])
            && call.target() == written.target()
            && call.entered > written.returned
            && call.result == 0
    });
    let synced = synced.ok_or("the journal was never synced after its record was written")?;
    let text = correlation.to_string();
    let mut sent = calls.iter().filter(|call| {
        call.is(&["write", "writev", "sendto", "sendmsg"])
            && call.arguments.contains(&text)
            && !call.target().starts_with("pipe:")
    });
    let first = sent.next().ok_or("its answer was never sent")?;
    if first.entered > synced.returned {
        Ok(())
    } else {
        Err(format!(
            "its answer left on line {} before the sync returned on line {}",
            first.entered + 1,
            synced.returned + 1
        ))
    }
}

const ID: Id = Id([0xab; 16]);

/// A trace of `lines`, in which RECORD and ANSWER stand for those of [`ID`].
fn verdict(lines: &[&str]) -> Result<(), String> {
    let record = "\\xab".repeat(16);
    let text = lines.join("\n").replace("RECORD", &record).replace("ANSWER", &ID.to_string());
    answered_after_its_sync(&calls(&text), ID)
}

const WRITE: &str = r#"7  pwrite64(9</d/log/segment-1>, "\x00RECORD", 17, 0) = 17"#;
const SYNC: &str = "7  fdatasync(9</d/log/segment-1>) = 0";
const SEND: &str = r#"8  writev(11<socket:[5]>, [{iov_base="ANSWER", iov_len=36}], 1) = 36"#;

#[test]
fn write_sync_send_is_the_order_that_is_wanted() {
    assert_eq!(verdict(&[WRITE, SYNC, SEND]), Ok(()));
    let (sync_begun, sync_ended) = (
        "7  fdatasync(9</d/log/segment-1> <unfinished ...>",
        "7  <... fdatasync resumed>)       = 0",
    );
    assert_eq!(verdict(&[WRITE, sync_begun, sync_ended, SEND]), Ok(()));
    let send_begun = SEND.replace(") = 36", " <unfinished ...>");
    assert_eq!(
        verdict(&[WRITE, sync_begun, sync_ended, &send_begun, "8  <... writev resumed>) = 36"]),
        Ok(())
    );
}

#[test]
fn every_other_order_is_noticed() {
    let other = SYNC.replace("segment-1", "segment-2");
    let failed = SYNC.replace("= 0", "= -1 EIO (Input/output error)");
    let log = r#"8  write(2<pipe:[3]>, "ANSWER", 36) = 36"#;
    let (begun, ended) =
        ("7  fdatasync(9</d/log/segment-1> <unfinished ...>", "7  <... fdatasync resumed>) = 0");
    let write_begun = WRITE.replace(") = 17", " <unfinished ...>");
    let write_ended = "7  <... pwrite64 resumed>) = 17";
    for lines in [
        &[WRITE, SEND, SYNC][..],
        &[SEND, WRITE, SYNC],
        &[SYNC, WRITE, SEND],
        &[WRITE, begun, SEND, ended],
        &[&write_begun, SYNC, write_ended, SEND],
        &[WRITE, &other, SEND],
        &[WRITE, &failed, SEND],
        &[WRITE, SYNC],
        &[WRITE, SYNC, log],
        &[SYNC, SEND],
    ] {
        assert!(verdict(lines).is_err(), "{lines:?}");
    }
}
