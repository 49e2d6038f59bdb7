//! `keytrail attestation update-list`: hands a revocation list to a server.
//!
//! Exit code 0 if it is in force, 1 if the server refused it or could not be
//! reached, 2 if it was asked wrongly.

use std::path::PathBuf;

use clap::Args;
use engine::attestation::revocation::LIST_MAX;
use serde_json::json;

use super::super::receipt::bounded;
use super::super::{Exit, report};
use super::lock::Server;
use crate::wire::admin::RevocationList;

/// What to hand over, and to whom.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The list, in Google's format
    #[arg(value_name = "FILE")]
    list: PathBuf,
    #[command(flatten)]
    server: Server,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Hands it over.
pub(super) fn run(arguments: &Arguments) -> Exit {
    let read = || -> Result<_, Box<dyn std::error::Error>> {
        let list = bounded(&arguments.list, LIST_MAX)?;
        Ok((list, arguments.server.caller()?))
    };
    let (list, caller) = match read() {
        Ok(read) => read,
        Err(error) => {
            report(&*error);
            return Exit::Usage;
        }
    };
    let path = "/admin/v1/attestation/revocation-list";
    match caller.client.post_octets::<RevocationList>(path, &list, Some(&caller.key)) {
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
