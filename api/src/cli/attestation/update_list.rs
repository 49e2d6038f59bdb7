//! `keytrail attestation update-list`: hands a revocation list to a server.
//!
//! Exit code 0 if it is in force, 1 if the server refused it or could not be
//! reached, 2 if it was asked wrongly.

use std::path::PathBuf;

use clap::Args;
use engine::attestation::revocation::LIST_MAX;
use serde_json::json;
use zeroize::Zeroizing;

use super::super::receipt::bounded;
use super::super::{Exit, report};
use crate::device::Client;
use crate::wire::admin::RevocationList;

/// Longest file of an API key, in bytes.
const KEY_MAX: usize = 1_024;

/// What to hand over, and to whom.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The list, in Google's format
    #[arg(value_name = "FILE")]
    list: PathBuf,
    /// The server's URL
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    server: String,
    /// File whose first line is an administrator's API key, as kt_…
    #[arg(long, value_name = "FILE")]
    api_key_file: PathBuf,
    /// Authorities to trust for https, in PEM form
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Hands it over.
pub(super) fn run(arguments: &Arguments) -> Exit {
    let read = || -> Result<_, Box<dyn std::error::Error>> {
        let list = bounded(&arguments.list, LIST_MAX)?;
        let key = Zeroizing::new(bounded(&arguments.api_key_file, KEY_MAX)?);
        let key = std::str::from_utf8(&key)?.lines().next().unwrap_or_default().trim();
        let client = Client::new(&arguments.server, arguments.ca.as_deref())?;
        Ok((list, Zeroizing::new(key.to_owned()), client))
    };
    let (list, key, client) = match read() {
        Ok(read) => read,
        Err(error) => {
            report(&*error);
            return Exit::Usage;
        }
    };
    let path = "/admin/v1/attestation/revocation-list";
    match client.post_octets::<RevocationList>(path, &list, Some(&key)) {
        Ok(taken) if arguments.json => {
            println!("{}", json!(taken));
            Exit::Ok
        }
        Ok(taken) => {
            println!("in force: {} serial numbers, record {}", taken.serials, taken.position);
            Exit::Ok
        }
        Err(error) => {
            report(&error);
            Exit::Failed
        }
    }
}
