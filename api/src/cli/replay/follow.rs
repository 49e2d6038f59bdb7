//! `keytrail replay --follow`: the events of a running server as they come.
//!
//! Over HTTP, with an auditor's key, and not out of the server's folder: what
//! stands in the journal's files may not be durable yet, and only the server
//! knows what is. It shows nothing that a power cut could take back.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use engine::ids::Id;
use replay::At;
use serde::Deserialize;
use serde_json::Value;
use zeroize::Zeroizing;

use super::super::{Exit, report};
use crate::device::{Client, ClientError, printable};

/// Where `keytrail serve` listens unless told otherwise.
const SERVER: &str = "http://127.0.0.1:8080";
/// Seconds that the server may let a request wait for an event.
const WAIT_S: u64 = 20;
/// Events asked for at a time: far less than the longest answer that is read.
const PAGE: usize = 200;
/// Pause before a server that went away is asked again.
const PAUSE: Duration = Duration::from_secs(2);
/// The longest key file that is read, in bytes.
const KEY_FILE_MAX: u64 = 1024;

/// The server to follow.
#[derive(Debug, Args)]
pub(super) struct Server {
    /// The server's URL
    #[arg(long, value_name = "URL", default_value = SERVER, requires = "follow")]
    server: String,
    /// File of mode 0600 whose first line is an auditor's key, kt_…
    #[arg(long, value_name = "FILE", requires = "follow")]
    key_file: Option<PathBuf>,
    /// Authorities to trust for https, in PEM form
    #[arg(long, value_name = "FILE", requires = "follow")]
    ca: Option<PathBuf>,
    /// End after this many events
    #[arg(long, value_name = "N", requires = "follow")]
    limit: Option<u64>,
}

/// A part of the log, as the server gives it.
#[derive(Debug, Deserialize)]
struct Page {
    items: Vec<Value>,
    next: u64,
    end: u64,
}

/// Follows.
pub(super) fn run(server: &Server, registration: Option<Id>, from: Option<At>, json: bool) -> Exit {
    let from = match from {
        None => None,
        Some(At::Position(position)) => Some(position.0),
        Some(At::Time(_)) => {
            eprintln!("keytrail: --follow begins at a position, not at a time");
            return Exit::Usage;
        }
    };
    let opened =
        server.key().and_then(|key| Ok((Client::new(&server.server, server.ca.as_deref())?, key)));
    let (client, key) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            report(&*error);
            return Exit::Usage;
        }
    };
    let stream = registration.map_or_else(String::new, |id| format!("&stream={id}"));
    let mut follower = Follower { client, key, stream, json, left: server.limit };
    match follower.follow(from) {
        Ok(()) => Exit::Ok,
        // Whoever read it has seen enough.
        Err(Ended::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Ok,
        Err(Ended::Output(error)) => {
            report(&error);
            Exit::Usage
        }
        Err(Ended::Server(error)) => {
            report(&error);
            Exit::Failed
        }
    }
}

impl Server {
    /// The auditor's key.
    fn key(&self) -> Result<Zeroizing<String>, Box<dyn std::error::Error>> {
        // clap asks for it.
        let path = self.key_file.as_deref().unwrap_or_else(|| Path::new(""));
        let named = |error: io::Error| format!("{}: {error}", path.display());
        let file = File::open(path).map_err(named)?;
        if file.metadata().map_err(named)?.permissions().mode() & 0o077 != 0 {
            return Err(
                format!("{}: others may use it; set its mode to 0600", path.display()).into()
            );
        }
        let mut text = Zeroizing::new(String::with_capacity(KEY_FILE_MAX as usize));
        file.take(KEY_FILE_MAX).read_to_string(&mut text).map_err(named)?;
        let key = text.lines().next().unwrap_or_default().trim();
        if !key.starts_with("kt_") || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(format!("{}: its first line is no API key", path.display()).into());
        }
        Ok(Zeroizing::new(key.to_owned()))
    }
}

/// Why following ended.
enum Ended {
    Server(ClientError),
    Output(io::Error),
}

struct Follower {
    client: Client,
    key: Zeroizing<String>,
    stream: String,
    json: bool,
    /// Events that are still wanted; none for all.
    left: Option<u64>,
}

impl Follower {
    /// Prints from `from` on; without it, what comes from now on.
    fn follow(&mut self, from: Option<u64>) -> Result<(), Ended> {
        let mut next = match from {
            Some(from) => from,
            None => self.page(u64::MAX, 0).map_err(Ended::Server)?.end,
        };
        let mut heard = from.is_none();
        let mut silent = false;
        while self.left != Some(0) {
            match self.page(next, WAIT_S) {
                Ok(page) => {
                    (heard, silent) = (true, false);
                    next = page.next;
                    self.show(&page.items).map_err(Ended::Output)?;
                }
                // A server that was there comes back; what it gave is durable.
                Err(error) if heard && is_passing(&error) => {
                    if !std::mem::replace(&mut silent, true) {
                        report(&error);
                        eprintln!("keytrail: asking again, from record {next} on");
                    }
                    std::thread::park_timeout(PAUSE);
                }
                Err(error) => return Err(Ended::Server(error)),
            }
        }
        Ok(())
    }

    fn page(&self, from: u64, wait_s: u64) -> Result<Page, ClientError> {
        let stream = &self.stream;
        let path = format!("/audit/v1/events?from={from}&limit={PAGE}&wait_s={wait_s}{stream}");
        self.client.get(&path, Some(&self.key))
    }

    fn show(&mut self, items: &[Value]) -> io::Result<()> {
        let mut out = io::stdout().lock();
        for item in items {
            if self.left == Some(0) {
                break;
            }
            if self.json {
                writeln!(out, "{item}")?;
            } else {
                writeln!(out, "{}", line(item))?;
            }
            self.left = self.left.map(|left| left - 1);
        }
        out.flush()
    }
}

/// Whether asking again later can help.
fn is_passing(error: &ClientError) -> bool {
    match error {
        ClientError::Unreachable { .. } => true,
        ClientError::Refused(refusal) => matches!(refusal.status, 429 | 503),
        ClientError::Address(_)
        | ClientError::NoAuthority
        | ClientError::Authority(_)
        | ClientError::TooLong { .. }
        | ClientError::NotUnderstood { .. } => false,
    }
}

/// An event on one line.
fn line(item: &Value) -> String {
    let text = |name: &str| item[name].as_str().unwrap_or("-");
    let position = item["position"].as_u64().unwrap_or_default();
    let event = item.get("event").map_or_else(|| text("error").to_owned(), Value::to_string);
    let line = format!(
        "{position:>8}  {}  {:22}  {:36}  {event}",
        text("time"),
        text("type"),
        text("stream"),
    );
    printable(&line).replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_server_says_cannot_leave_its_line() {
        let item = json!({"position": 3, "time": "t", "type": "a\n\u{1b}[2Jb", "stream": "s", "event": {}});
        let line = line(&item);
        assert!(!line.contains('\n') && !line.contains('\u{1b}'), "{line}");
    }

    #[test]
    fn a_key_file_that_others_may_read_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "kt_abc\n").unwrap();
        let server = |path: &Path| Server {
            server: SERVER.into(),
            key_file: Some(path.to_owned()),
            ca: None,
            limit: None,
        };
        assert_eq!(*server(file.path()).key().unwrap(), "kt_abc");
        std::fs::write(file.path(), "secret\n").unwrap();
        assert!(server(file.path()).key().is_err());
        std::fs::write(file.path(), "kt_abc\n").unwrap();
        std::fs::set_permissions(file.path(), PermissionsExt::from_mode(0o640)).unwrap();
        assert!(server(file.path()).key().is_err());
    }
}
