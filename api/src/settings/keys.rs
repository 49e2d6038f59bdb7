//! The table of settings: name, kind, help, how a value is read and shown.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;

use tracing_subscriber::EnvFilter;

use super::{LogFormat, Settings, WitnessAt};
use crate::device::is_https;

/// How a value is written in TOML.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// In quotes.
    Text,
    /// A whole number.
    Number,
    /// `true` or `false`; on the command line the bare flag.
    Switch,
}

/// One setting.
pub struct Key {
    /// In the file; the flag has hyphens for underscores.
    pub name: &'static str,
    /// How it is written.
    pub kind: Kind,
    /// A value to show in messages.
    pub example: &'static str,
    /// One sentence for `--help`.
    pub help: &'static str,
    /// Takes over a value, or says what would be right.
    pub set: fn(&mut Settings, &str) -> Result<(), String>,
    /// The value in force, none if it is not set.
    pub show: fn(&Settings) -> Option<String>,
}

impl Key {
    /// Its flag without the leading hyphens.
    #[must_use]
    pub fn flag(&self) -> String {
        self.name.replace('_', "-")
    }

    /// A line of TOML that sets it.
    #[must_use]
    pub fn line(&self, value: &str) -> String {
        match self.kind {
            Kind::Text => format!("{} = {}", self.name, toml::Value::from(value)),
            Kind::Number | Kind::Switch => format!("{} = {value}", self.name),
        }
    }
}

/// The key of this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// Every setting, in the order they are shown.
pub const KEYS: &[Key] = &[
    Key {
        name: "data",
        kind: Kind::Text,
        example: "/var/lib/keytrail",
        help: "Folder of the store; made on the first start",
        set: |settings, text| path(text).map(|path| settings.data = path),
        show: |settings| Some(settings.data.display().to_string()),
    },
    Key {
        name: "listen",
        kind: Kind::Text,
        example: "127.0.0.1:8080",
        help: "IP address and port to listen on; beyond loopback TLS is required",
        set: |settings, text| {
            let wanted = "an IP address and a port, such as 127.0.0.1:8080 or [::1]:8080";
            read(text, wanted).map(|address| settings.listen = address)
        },
        show: |settings| Some(settings.listen.to_string()),
    },
    Key {
        name: "tls_cert",
        kind: Kind::Text,
        example: "/etc/keytrail/cert.pem",
        help: "PEM file with the certificate chain, the server's own certificate first",
        set: |settings, text| path(text).map(|path| settings.tls_cert = Some(path)),
        show: |settings| settings.tls_cert.as_ref().map(|path| path.display().to_string()),
    },
    Key {
        name: "tls_key",
        kind: Kind::Text,
        example: "/etc/keytrail/key.pem",
        help: "PEM file with the private key of the certificate",
        set: |settings, text| path(text).map(|path| settings.tls_key = Some(path)),
        show: |settings| settings.tls_key.as_ref().map(|path| path.display().to_string()),
    },
    Key {
        name: "insecure_behind_proxy",
        kind: Kind::Switch,
        example: "true",
        help: "A proxy in front ends TLS: allow plain HTTP beyond loopback, and take the \
               sender's address from the last entry of X-Forwarded-For",
        set: |settings, text| {
            read(text, "true or false").map(|on| settings.insecure_behind_proxy = on)
        },
        show: |settings| Some(settings.insecure_behind_proxy.to_string()),
    },
    Key {
        name: "log_format",
        kind: Kind::Text,
        example: "json",
        help: "How log lines look: human or json",
        set: |settings, text| {
            settings.log_format = match text {
                "human" => LogFormat::Human,
                "json" => LogFormat::Json,
                other => return Err(format!("must be human or json, not {other:?}")),
            };
            Ok(())
        },
        show: |settings| {
            let text = match settings.log_format {
                LogFormat::Human => "human",
                LogFormat::Json => "json",
            };
            Some(text.to_owned())
        },
    },
    Key {
        name: "log_filter",
        kind: Kind::Text,
        example: "info,access=off",
        help: "Which log lines appear: a level, or levels by target, such as info,access=off",
        set: |settings, text| {
            let wanted = "a level (error, warn, info, debug, trace), or levels by target, such \
                          as info,access=off";
            read::<EnvFilter>(text, wanted).map(|_| settings.log_filter = text.to_owned())
        },
        show: |settings| Some(settings.log_filter.clone()),
    },
    Key {
        name: "workers",
        kind: Kind::Number,
        example: "4",
        help: "Threads that serve HTTP; by default one for each processor",
        set: |settings, text| number(text, 1..=1_024).map(|count| settings.workers = count),
        show: |settings| Some(settings.workers.to_string()),
    },
    Key {
        name: "origin",
        kind: Kind::Text,
        example: "bank.example/keytrail",
        help: "Name of a new log in its checkpoints; a log that exists keeps its own. By default \
               one is drawn",
        set: |settings, text| origin(text).map(|origin| settings.origin = Some(origin)),
        show: |settings| settings.origin.clone(),
    },
    Key {
        name: "guard",
        kind: Kind::Text,
        example: "/mnt/other-disk/keytrail-guard",
        help: "Guard file: what was signed last, to notice a rollback at the next start. Best on \
               another disk; by default in the data folder",
        set: |settings, text| path(text).map(|path| settings.guard = Some(path)),
        show: |settings| settings.guard.as_ref().map(|path| path.display().to_string()),
    },
    Key {
        name: "anchor_dir",
        kind: Kind::Text,
        example: "/mnt/worm/keytrail",
        help: "Folder that gets each checkpoint as a new file, best on storage that is written \
               once; asked at the start for the newest",
        set: |settings, text| path(text).map(|path| settings.anchor_dir = Some(path)),
        show: |settings| settings.anchor_dir.as_ref().map(|path| path.display().to_string()),
    },
    Key {
        name: "anchor_url",
        kind: Kind::Text,
        example: "http://siem.bank.example/keytrail",
        help: "URL that each checkpoint is posted to",
        set: |settings, text| url(text).map(|url| settings.anchor_url = Some(url)),
        show: |settings| settings.anchor_url.clone(),
    },
    Key {
        name: "anchor_token_file",
        kind: Kind::Text,
        example: "/etc/keytrail/siem-token",
        help: "File with the bearer token for anchor_url",
        set: |settings, text| path(text).map(|path| settings.anchor_token_file = Some(path)),
        show: |settings| settings.anchor_token_file.as_ref().map(|path| path.display().to_string()),
    },
    Key {
        name: "witness",
        kind: Kind::Text,
        example: "audit.bank.example/w1+ab0a9e22+BJ5V+aFB26vO5sMjZCEevuJenOLpltYlYF67nupI7FYh \
                  http://audit.bank.example:8081",
        help: "Witnesses that cosign each checkpoint: verifier key, blank, URL; several with \
               commas between them",
        set: |settings, text| witnesses(text).map(|all| settings.witness = all),
        show: |settings| {
            let all: Vec<_> = settings.witness.iter().map(ToString::to_string).collect();
            (!all.is_empty()).then(|| all.join(", "))
        },
    },
    Key {
        name: "anchor_ca",
        kind: Kind::Text,
        example: "/etc/keytrail/anchor-ca.pem",
        help: "PEM file with the authorities to trust for anchor_url and witness behind https; no \
               others are trusted",
        set: |settings, text| path(text).map(|path| settings.anchor_ca = Some(path)),
        show: |settings| settings.anchor_ca.as_ref().map(|path| path.display().to_string()),
    },
    Key {
        name: "anchor_every_s",
        kind: Kind::Number,
        example: "10",
        help: "Shortest time between two checkpoints for an anchor, in seconds",
        set: |settings, text| number(text, 1..=3_600).map(|s| settings.anchor_every_s = s),
        show: |settings| Some(settings.anchor_every_s.to_string()),
    },
    Key {
        name: "require_anchors",
        kind: Kind::Switch,
        example: "true",
        help: "Do not start unless every anchor answers",
        set: |settings, text| read(text, "true or false").map(|on| settings.require_anchors = on),
        show: |settings| Some(settings.require_anchors.to_string()),
    },
    Key {
        name: "push_url",
        kind: Kind::Text,
        example: "http://push.bank.example/keytrail",
        help: "URL of the site's push hook, which wakes phones; see docs/operations.md",
        set: |settings, text| url(text).map(|url| settings.push_url = Some(url)),
        show: |settings| settings.push_url.clone(),
    },
    Key {
        name: "push_token_file",
        kind: Kind::Text,
        example: "/etc/keytrail/push-token",
        help: "File with the bearer token for push_url",
        set: |settings, text| path(text).map(|path| settings.push_token_file = Some(path)),
        show: |settings| settings.push_token_file.as_ref().map(|path| path.display().to_string()),
    },
    Key {
        name: "push_ca",
        kind: Kind::Text,
        example: "/etc/keytrail/push-ca.pem",
        help: "PEM file with the authorities to trust for push_url behind https; no others are \
               trusted",
        set: |settings, text| path(text).map(|path| settings.push_ca = Some(path)),
        show: |settings| settings.push_ca.as_ref().map(|path| path.display().to_string()),
    },
    Key {
        name: "push_timeout_s",
        kind: Kind::Number,
        example: "5",
        help: "Longest wait for the answer of the push hook, in seconds",
        set: |settings, text| number(text, 1..=60).map(|s| settings.push_timeout_s = s),
        show: |settings| Some(settings.push_timeout_s.to_string()),
    },
    Key {
        name: "push_tries",
        kind: Kind::Number,
        example: "3",
        help: "How often a push is tried that the hook does not take",
        set: |settings, text| number(text, 1..=10).map(|tries| settings.push_tries = tries),
        show: |settings| Some(settings.push_tries.to_string()),
    },
    Key {
        name: "push_queue_length",
        kind: Kind::Number,
        example: "10000",
        help: "Pushes that may wait before further ones are dropped",
        set: |settings, text| {
            number(text, 1..=1_000_000).map(|count| settings.push_queue_length = count)
        },
        show: |settings| Some(settings.push_queue_length.to_string()),
    },
    Key {
        name: "cache_mib",
        kind: Kind::Number,
        example: "128",
        help: "Memory for the caches of the store, in mebibytes; half for state, half for sled",
        set: |settings, text| number(text, 8..=1_048_576).map(|mib| settings.cache_mib = mib),
        show: |settings| Some(settings.cache_mib.to_string()),
    },
    Key {
        name: "segment_mib",
        kind: Kind::Number,
        example: "64",
        help: "Size of a journal segment, in mebibytes. Two are written ahead with zeros",
        set: |settings, text| number(text, 4..=1_024).map(|mib| settings.segment_mib = mib),
        show: |settings| Some(settings.segment_mib.to_string()),
    },
    Key {
        name: "snapshot_records",
        kind: Kind::Number,
        example: "1048576",
        help: "Records between two snapshots of state, each noted in the log by its digest",
        set: |settings, text| {
            number(text, 100..=1_000_000_000).map(|count| settings.snapshot_records = count)
        },
        show: |settings| Some(settings.snapshot_records.to_string()),
    },
    Key {
        name: "queue_length",
        kind: Kind::Number,
        example: "4096",
        help: "Commands that may wait for the writer before callers are told to come back",
        set: |settings, text| {
            number(text, 1..=1_000_000).map(|count| settings.queue_length = count)
        },
        show: |settings| Some(settings.queue_length.to_string()),
    },
    Key {
        name: "request_bytes_max",
        kind: Kind::Number,
        example: "65536",
        help: "Longest request body, in bytes",
        set: |settings, text| {
            number(text, 1_024..=1_048_576).map(|bytes| settings.request_bytes_max = bytes)
        },
        show: |settings| Some(settings.request_bytes_max.to_string()),
    },
    Key {
        name: "drain_s",
        kind: Kind::Number,
        example: "30",
        help: "How long a stop waits for requests that are being served, in seconds",
        set: |settings, text| number(text, 0..=3_600).map(|seconds| settings.drain_s = seconds),
        show: |settings| Some(settings.drain_s.to_string()),
    },
];

fn read<T: FromStr>(text: &str, wanted: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("must be {wanted}, not {text:?}"))
}

fn path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() { Err("must not be empty".to_owned()) } else { Ok(text.into()) }
}

fn url(text: &str) -> Result<String, String> {
    let wanted = "must be a URL without user and query, such as http://siem.bank.example/keytrail";
    is_https(text).map(|_| text.to_owned()).ok_or_else(|| format!("{wanted}, not {text:?}"))
}

fn witnesses(text: &str) -> Result<Vec<WitnessAt>, String> {
    let wanted = "the verifier key of a witness, a blank and its URL; several with commas between";
    text.split(',').map(|one| read(one, wanted)).collect()
}

/// A name as checkpoints take it: no blanks, no plus sign (C2SP signed-note).
fn origin(text: &str) -> Result<String, String> {
    let fits = (1..=128).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'+');
    let wanted = "must have 1 to 128 visible ASCII characters, none of them +";
    if fits { Ok(text.to_owned()) } else { Err(format!("{wanted}, not {text:?}")) }
}

fn number<T>(text: &str, range: RangeInclusive<T>) -> Result<T, String>
where
    T: FromStr + PartialOrd + Display,
{
    let wanted = format!("must be a whole number from {} to {}", range.start(), range.end());
    match text.parse() {
        Ok(number) if range.contains(&number) => Ok(number),
        Ok(_) | Err(_) => Err(format!("{wanted}, not {text}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Flags, assemble};

    #[test]
    fn every_example_and_every_shown_value_is_accepted() {
        for key in KEYS {
            let mut settings = Settings::default();
            (key.set)(&mut settings, key.example).expect(key.name);
            let shown = (key.show)(&settings).expect(key.name);
            assert_eq!(shown, key.example, "{}", key.name);
            // Alone, TLS files and a shown path need no partner to be read as TOML.
            let line = key.line(&shown);
            let complaints = assemble(&line, None, &Flags::default()).err().unwrap_or_default();
            let needs = |words: &str| complaints.iter().all(|c| c.message.contains(words));
            let partners = ["TLS needs both", "anchor_url is not", "push_url is not"];
            assert!(partners.iter().any(|words| needs(words)), "{line}");
        }
    }

    #[test]
    fn the_operations_document_has_every_setting_with_its_default_and_range() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/operations.md");
        let text = std::fs::read_to_string(path).unwrap();
        let settings = text.split("\n## ").find(|part| part.starts_with("Settings")).unwrap();
        for key in KEYS {
            let default = match (key.name, (key.show)(&Settings::default())) {
                // It depends on the machine.
                ("workers", _) => "one for each processor".to_owned(),
                (_, Some(value)) => format!("`{value}`"),
                (_, None) => "none".to_owned(),
            };
            let start = format!("| `{}` | {default} | ", key.name);
            let row = settings.lines().find(|line| line.starts_with(&start)).expect(&start);
            if key.kind == Kind::Number {
                let words = (key.set)(&mut Settings::default(), "-1").unwrap_err();
                let range = words.strip_prefix("must be a whole number from ").unwrap();
                let range = range.strip_suffix(", not -1").unwrap();
                assert!(row.contains(range), "{range} in {row}");
            }
        }
        let rows = settings.lines().filter(|line| line.starts_with("| `")).count();
        assert_eq!(rows, KEYS.len(), "no row for a setting that is gone");
    }

    #[test]
    fn ranges_include_their_ends_and_nothing_beyond() {
        let key = find("drain_s").unwrap();
        for (text, accepted) in [("-1", false), ("0", true), ("3600", true), ("3601", false)] {
            assert_eq!((key.set)(&mut Settings::default(), text).is_ok(), accepted, "{text}");
        }
    }
}
