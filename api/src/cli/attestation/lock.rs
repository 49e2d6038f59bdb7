//! Locking what a search has found, through a running server.
//!
//! Each lock is an ordinary one of the service provider whose key it is: an
//! event with the actor and the reason `KEY_DISTRUSTED`. The search looked at a
//! copy, so a registration is locked only while its hardware key is still the
//! one that was found.

use std::path::{Path, PathBuf};

use clap::Args;
use engine::reasons::ReasonGiven;
use replay::affected::Affected;
use zeroize::Zeroizing;

use super::super::receipt::bounded;
use crate::device::{Client, ClientError};
use crate::wire::Octets32;
use crate::wire::provider::{Because, Registration};

/// Longest file of an API key, in bytes.
const KEY_MAX: usize = 1_024;

/// A server, and who calls it.
#[derive(Debug, Args)]
pub(super) struct Server {
    /// The server's URL
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    server: String,
    /// File whose first line is the API key, as kt_…
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    /// Authorities to trust for https, in PEM form
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
}

/// Calls a server with an API key.
pub(super) struct Caller {
    pub(super) client: Client,
    pub(super) key: Zeroizing<String>,
}

impl Server {
    /// The way to the server.
    pub(super) fn caller(&self) -> Result<Caller, Box<dyn std::error::Error>> {
        let file = self.api_key_file.as_deref().ok_or("--api-key-file is missing")?;
        let client = Client::new(&self.server, self.ca.as_deref())?;
        Ok(Caller { client, key: key(file)? })
    }
}

fn key(file: &Path) -> Result<Zeroizing<String>, Box<dyn std::error::Error>> {
    let octets = Zeroizing::new(bounded(file, KEY_MAX)?);
    let line = std::str::from_utf8(&octets)?.lines().next().unwrap_or_default();
    Ok(Zeroizing::new(line.trim().to_owned()))
}

/// What became of one registration.
#[derive(Debug)]
pub(super) enum Locked {
    /// It is locked.
    Yes,
    /// Its hardware key is another one since.
    OtherKey,
    /// The server refused, or there was no answer.
    Failed(ClientError),
}

impl Locked {
    /// As one word.
    pub(super) fn as_str(&self) -> &'static str {
        match self {
            Self::Yes => "LOCKED",
            Self::OtherKey => "OTHER_KEY",
            Self::Failed(_) => "FAILED",
        }
    }
}

impl Caller {
    /// Locks a registration if its hardware key is still the one that was found.
    pub(super) fn lock(&self, affected: &Affected) -> Locked {
        let path = format!("/v1/registrations/{}", affected.registration);
        let present: Registration = match self.client.get(&path, Some(&self.key)) {
            Ok(present) => present,
            Err(error) => return Locked::Failed(error),
        };
        let found = affected.hardware_key.map(|key| key.0);
        if present.hardware_key.map(|key| key.key_id) != found.map(Octets32) {
            return Locked::OtherKey;
        }
        let because = Because { reason: ReasonGiven::KeyDistrusted };
        let locked =
            self.client.post::<_, Registration>(&format!("{path}/lock"), &because, Some(&self.key));
        locked.map_or_else(Locked::Failed, |_| Locked::Yes)
    }
}
