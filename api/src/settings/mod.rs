//! What can be set, where a value came from, and what is wrong with one.
//!
//! One table, [`keys::KEYS`], holds every setting once: the TOML file, the
//! flags of the command line, `config check` and the help text are made from
//! it. A value comes from the flag, else the file, else the default.
//!
//! [`load`] reports all complaints at once, in words for the person who has to
//! correct the file.

pub mod file;
pub mod flags;
pub mod keys;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use storage::note::VerifierKey;

use crate::device::is_https;

pub use flags::Flags;

/// The file that is read if it is there and none is named.
pub const DEFAULT_FILE: &str = "keytrail.toml";

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people at a terminal.
    Human,
    /// One JSON object a line.
    Json,
}

/// Everything that can be set, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The store's folder.
    pub data: PathBuf,
    /// Address and port to listen on.
    pub listen: SocketAddr,
    /// PEM file with the certificate chain, the server's own first.
    pub tls_cert: Option<PathBuf>,
    /// PEM file with the private key of the certificate.
    pub tls_key: Option<PathBuf>,
    /// Whether a proxy in front ends TLS: allows listening beyond loopback without
    /// it, and takes the sender's address from `X-Forwarded-For`.
    pub insecure_behind_proxy: bool,
    /// How log lines look.
    pub log_format: LogFormat,
    /// Which log lines appear, in the filter syntax of `tracing-subscriber`.
    pub log_filter: String,
    /// Threads that serve HTTP.
    pub workers: usize,
    /// Name of a new log; none to draw one.
    pub origin: Option<String>,
    /// The guard file; none for one in the data folder.
    pub guard: Option<PathBuf>,
    /// Folder that gets each checkpoint as a file.
    pub anchor_dir: Option<PathBuf>,
    /// Where each checkpoint is posted to.
    pub anchor_url: Option<String>,
    /// File with the bearer token for it.
    pub anchor_token_file: Option<PathBuf>,
    /// Witnesses that cosign checkpoints.
    pub witness: Vec<WitnessAt>,
    /// PEM file with the authorities to trust for anchors behind HTTPS.
    pub anchor_ca: Option<PathBuf>,
    /// Shortest time between two checkpoints for an anchor, in seconds.
    pub anchor_every_s: u64,
    /// Whether a start without an answer of every anchor is refused.
    pub require_anchors: bool,
    /// Where phones are woken from: the site's push hook.
    pub push_url: Option<String>,
    /// File with the bearer token for it.
    pub push_token_file: Option<PathBuf>,
    /// PEM file with the authorities to trust for it behind HTTPS.
    pub push_ca: Option<PathBuf>,
    /// Longest wait for its answer, in seconds.
    pub push_timeout_s: u64,
    /// How often a push is tried.
    pub push_tries: u32,
    /// Pushes that may wait.
    pub push_queue_length: usize,
    /// Memory for the caches of the store, in mebibytes.
    pub cache_mib: u64,
    /// Size of a journal segment, in mebibytes.
    pub segment_mib: u64,
    /// Records between two snapshots of state, each noted in the log by its digest.
    pub snapshot_records: u64,
    /// Commands that may wait for the writer.
    pub queue_length: usize,
    /// Longest request body, in bytes.
    pub request_bytes_max: usize,
    /// How long a stop waits for requests that are being served, in seconds.
    pub drain_s: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            data: "keytrail-data".into(),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            tls_cert: None,
            tls_key: None,
            insecure_behind_proxy: false,
            log_format: LogFormat::Human,
            log_filter: "info,actix_server=warn,actix_http=off".to_owned(),
            workers: std::thread::available_parallelism().map_or(1, usize::from),
            origin: None,
            guard: None,
            anchor_dir: None,
            anchor_url: None,
            anchor_token_file: None,
            witness: Vec::new(),
            anchor_ca: None,
            anchor_every_s: 10,
            require_anchors: false,
            push_url: None,
            push_token_file: None,
            push_ca: None,
            push_timeout_s: 5,
            push_tries: 3,
            push_queue_length: 10_000,
            cache_mib: 128,
            segment_mib: 64,
            snapshot_records: 1 << 20,
            queue_length: 4_096,
            request_bytes_max: 65_536,
            drain_s: 30,
        }
    }
}

/// A witness: its key and its submission prefix. As text the two with a blank
/// between them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WitnessAt {
    /// The public half of its key.
    pub key: VerifierKey,
    /// Its URL, to which `/add-checkpoint` is appended.
    pub url: String,
}

impl fmt::Display for WitnessAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.key, self.url)
    }
}

impl FromStr for WitnessAt {
    type Err = NotAWitness;

    fn from_str(text: &str) -> Result<Self, NotAWitness> {
        let (key, url) = text.trim().split_once(' ').ok_or(NotAWitness)?;
        let key: VerifierKey = key.parse().map_err(|_| NotAWitness)?;
        let url = url.trim();
        let sound = key.is_witness() && is_https(url).is_some();
        if sound { Ok(Self { key, url: url.to_owned() }) } else { Err(NotAWitness) }
    }
}

/// Text that names no witness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the verifier key and the URL of a witness, with a blank between them")]
pub struct NotAWitness;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Built in.
    Default,
    /// The file, at this line (from 1).
    File(usize),
    /// The command line.
    Flag,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(line) => write!(f, "line {line}"),
            Self::Flag => f.write_str("command line"),
        }
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complaint {
    /// The setting or unknown key it is about, if it is about one.
    pub key: Option<String>,
    /// The file's line, from 1, if it is in the file.
    pub line: Option<usize>,
    /// What is wrong and what would be right.
    pub message: String,
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        f.write_str(&self.message)
    }
}

/// Settings and where each came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// The settings in force.
    pub settings: Settings,
    /// The file that was read, if one was.
    pub file: Option<PathBuf>,
    origins: BTreeMap<&'static str, Origin>,
}

impl Loaded {
    /// Where the value of `key` came from.
    #[must_use]
    pub fn origin(&self, key: &str) -> &Origin {
        self.origins.get(key).unwrap_or(&Origin::Default)
    }
}

/// Reads `file`, or [`DEFAULT_FILE`] if it is there, and lays the flags over it.
///
/// # Errors
///
/// Everything that is wrong, at least one complaint.
pub fn load(file: Option<&Path>, flags: &Flags) -> Result<Loaded, Vec<Complaint>> {
    let named = file.map(Path::to_path_buf);
    let path = named.or_else(|| Path::new(DEFAULT_FILE).exists().then(|| DEFAULT_FILE.into()));
    let text = match &path {
        Some(path) => {
            std::fs::read_to_string(path).map_err(|error| vec![unreadable(path, &error)])?
        }
        None => String::new(),
    };
    assemble(&text, path, flags)
}

/// As [`load`], with the text of the file.
///
/// # Errors
///
/// Everything that is wrong, at least one complaint.
pub fn assemble(
    text: &str,
    file: Option<PathBuf>,
    flags: &Flags,
) -> Result<Loaded, Vec<Complaint>> {
    let mut loaded = Loaded { settings: Settings::default(), file, origins: BTreeMap::new() };
    let mut complaints = file::apply(text, &mut loaded);
    complaints.extend(flags.apply(&mut loaded));
    // What a broken value stood for is unknown, so what depends on it is not judged.
    if complaints.is_empty() {
        complaints.extend(disagreements(&loaded));
    }
    if complaints.is_empty() { Ok(loaded) } else { Err(complaints) }
}

fn unreadable(path: &Path, error: &std::io::Error) -> Complaint {
    let message = format!("cannot read {}: {error}", path.display());
    Complaint { key: None, line: None, message }
}

/// What no single setting is to blame for.
fn disagreements(loaded: &Loaded) -> Vec<Complaint> {
    let settings = &loaded.settings;
    let complain = |key: &str, message: String| {
        let line = match loaded.origin(key) {
            Origin::File(line) => Some(*line),
            Origin::Default | Origin::Flag => None,
        };
        vec![Complaint { key: Some(key.to_owned()), line, message }]
    };
    if let Some((key, url)) = https_anchor(settings)
        && settings.anchor_ca.is_none()
    {
        let why = format!("{url} is https, so anchor_ca must name the authorities to trust");
        return complain(key, why);
    }
    if settings.anchor_token_file.is_some() && settings.anchor_url.is_none() {
        let why = "anchor_token_file is set but anchor_url is not; it is for that";
        return complain("anchor_token_file", why.to_owned());
    }
    if let Some(url) = &settings.push_url
        && is_https(url) == Some(true)
        && settings.push_ca.is_none()
    {
        let why = format!("{url} is https, so push_ca must name the authorities to trust");
        return complain("push_url", why);
    }
    if settings.push_token_file.is_some() && settings.push_url.is_none() {
        let why = "push_token_file is set but push_url is not; it is for that";
        return complain("push_token_file", why.to_owned());
    }
    match (&settings.tls_cert, &settings.tls_key) {
        (Some(_), None) => {
            complain("tls_cert", "tls_cert is set but tls_key is not; TLS needs both".into())
        }
        (None, Some(_)) => {
            complain("tls_key", "tls_key is set but tls_cert is not; TLS needs both".into())
        }
        (None, None) if !settings.listen.ip().is_loopback() && !settings.insecure_behind_proxy => {
            complain(
                "listen",
                format!(
                    "listening on {} is reachable from other machines, and without TLS anyone \
                     between could read API keys; set tls_cert and tls_key, or \
                     insecure_behind_proxy if a proxy in front ends TLS",
                    settings.listen
                ),
            )
        }
        (Some(_), Some(_)) | (None, None) => Vec::new(),
    }
}

/// An anchor behind HTTPS, and the setting that names it.
fn https_anchor(settings: &Settings) -> Option<(&'static str, &str)> {
    let url = settings.anchor_url.iter().map(|url| ("anchor_url", url.as_str()));
    let witnesses = settings.witness.iter().map(|at| ("witness", at.url.as_str()));
    url.chain(witnesses).find(|(_, url)| is_https(url) == Some(true))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(text: &str) -> Vec<String> {
        let complaints = assemble(text, None, &Flags::default()).unwrap_err();
        complaints.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn nothing_said_is_the_default() {
        let loaded = assemble("", None, &Flags::default()).unwrap();
        assert_eq!(loaded.settings, Settings::default());
        assert_eq!(loaded.settings.listen.to_string(), "127.0.0.1:8080");
        assert_eq!(loaded.settings.data, Path::new("keytrail-data"));
        assert_eq!(loaded.origin("listen"), &Origin::Default);
    }

    #[test]
    fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
        let flags = Flags::of([("queue_length", "7")]);
        let loaded = assemble("queue_length = 5\nworkers = 3\n", None, &flags).unwrap();
        assert_eq!((loaded.settings.queue_length, loaded.settings.workers), (7, 3));
        assert_eq!(loaded.origin("queue_length"), &Origin::Flag);
        assert_eq!(loaded.origin("workers"), &Origin::File(2));
    }

    #[test]
    fn beyond_loopback_tls_or_the_proxy_flag_is_needed() {
        let refused = complaints("\nlisten = \"0.0.0.0:8080\"");
        assert_eq!(refused.len(), 1);
        assert!(refused[0].starts_with("line 2: listening on 0.0.0.0:8080 is reachable"));
        for accepted in [
            "listen = \"127.0.0.9:1\"",
            "listen = \"[::1]:1\"",
            "listen = \"0.0.0.0:1\"\ninsecure_behind_proxy = true",
            "listen = \"[::]:1\"\ntls_cert = \"a\"\ntls_key = \"b\"",
        ] {
            assemble(accepted, None, &Flags::default()).expect(accepted);
        }
    }

    #[test]
    fn half_of_tls_is_refused() {
        assert_eq!(
            complaints("tls_cert = \"c.pem\""),
            ["line 1: tls_cert is set but tls_key is not; TLS needs both"]
        );
        let flags = Flags::of([("tls_key", "k.pem")]);
        let complaint = &assemble("", None, &flags).unwrap_err()[0];
        assert_eq!(complaint.to_string(), "tls_key is set but tls_cert is not; TLS needs both");
    }

    #[test]
    fn an_anchor_behind_https_needs_authorities_and_a_token_needs_an_anchor() {
        assert_eq!(
            complaints("anchor_url = \"https://siem.example/in\""),
            ["line 1: https://siem.example/in is https, so anchor_ca must name the authorities \
              to trust"]
        );
        assert_eq!(complaints("anchor_token_file = \"t\"").len(), 1);
        let with = "anchor_url = \"https://siem.example/in\"\nanchor_ca = \"ca.pem\"";
        assemble(with, None, &Flags::default()).unwrap();
        assemble("anchor_url = \"http://siem.example\"", None, &Flags::default()).unwrap();
    }

    #[test]
    fn a_push_hook_behind_https_needs_authorities_and_a_token_needs_a_hook() {
        assert_eq!(
            complaints("push_url = \"https://push.example/in\""),
            ["line 1: https://push.example/in is https, so push_ca must name the authorities to \
              trust"]
        );
        assert_eq!(complaints("push_token_file = \"t\"").len(), 1);
        let with = "push_url = \"https://push.example/in\"\npush_ca = \"ca.pem\"";
        assemble(with, None, &Flags::default()).unwrap();
    }

    #[test]
    fn several_witnesses_are_set_with_commas_and_what_is_none_is_refused() {
        let one = keys::find("witness").unwrap().example;
        let set = |text: &str| {
            let mut settings = Settings::default();
            (keys::find("witness").unwrap().set)(&mut settings, text).map(|()| settings.witness)
        };
        let two = set(&format!("{one},  {one}")).unwrap();
        assert_eq!(two[0], two[1]);
        let (key, url) = one.split_once(' ').unwrap();
        for bad in ["", ",", key, url, &format!("{key} ftp://w"), &format!("{one},")] {
            assert!(set(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_named_file_must_exist() {
        let missing = Path::new("/nowhere/keytrail.toml");
        let complaints = load(Some(missing), &Flags::default()).unwrap_err();
        assert!(complaints[0].to_string().starts_with("cannot read /nowhere/keytrail.toml: "));
    }
}
