//! `keytrail attestation affected`: which registrations a revoked certificate,
//! or a stricter policy, is about. Offline, over a stopped server's folder.
//!
//! Exit code 0 if none is affected, 1 if some are, 2 if it could not be said.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::{ArgGroup, Args};
use engine::attestation::revocation::{LIST_MAX, RevocationList};
use engine::ids::Micros;
use replay::affected::{Affected, Question, affected};
use replay::{hex, printable, rfc3339};
use serde_json::{Value, json};

use super::super::Exit;
use super::super::receipt::bounded;
use super::inspect::{POLICY_MAX, policy};

/// Where to look, and for what.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("question").required(true).multiple(true).args(["list", "policy"]))]
pub(super) struct Arguments {
    /// Folder that holds log/: of a stopped server, or a copy
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Revocation list in Google's format
    #[arg(long, value_name = "FILE")]
    list: Option<PathBuf>,
    /// JSON object of an application's properties (attestation_…)
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Print one JSON object for each registration
    #[arg(long)]
    json: bool,
}

/// Searches.
pub(super) fn run(arguments: &Arguments) -> Exit {
    match search(arguments) {
        Ok(found) if found.is_empty() => Exit::Ok,
        Ok(found) => match print(&found, arguments.json) {
            Ok(()) => Exit::Failed,
            Err(error) => {
                super::super::report(&error);
                Exit::Usage
            }
        },
        Err(error) => {
            super::super::report(&*error);
            Exit::Usage
        }
    }
}

fn search(arguments: &Arguments) -> Result<Vec<Affected>, Box<dyn std::error::Error>> {
    let list = arguments.list.as_ref().map(|path| bounded(path, LIST_MAX)).transpose()?;
    // When it was taken over makes no difference to whom it is about.
    let list = list.map(|json| RevocationList::parse(&json, Micros(0))).transpose()?;
    let policy = match &arguments.policy {
        Some(path) => Some(policy(&bounded(path, POLICY_MAX)?)?),
        None => None,
    };
    let question = Question { list: list.as_ref(), policy: policy.as_ref() };
    let (found, inspected) = affected(&arguments.dir, &question)?;
    if !inspected.findings.is_empty() {
        eprintln!(
            "keytrail: the log is damaged, registrations may be missing; run keytrail verify"
        );
    }
    Ok(found)
}

fn print(found: &[Affected], json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for affected in found {
        if json {
            writeln!(out, "{}", in_json(affected))?;
            continue;
        }
        let at = rfc3339(affected.at);
        write!(out, "{}  activated {at} in record {}", affected.registration, affected.position.0)?;
        for (name, status) in &affected.certificates {
            let (serial, issuer) = (hex(&name.serial), printable(&name.issuer));
            write!(out, "; {status} {serial} of {issuer}")?;
        }
        if let Some(reason) = affected.refused {
            write!(out, "; the policy refuses it: {reason}")?;
        }
        writeln!(out)?;
    }
    out.flush()
}

fn in_json(affected: &Affected) -> Value {
    let certificates: Vec<_> = affected
        .certificates
        .iter()
        .map(|(name, status)| {
            json!({ "issuer": name.issuer, "serial": hex(&name.serial), "status": status })
        })
        .collect();
    json!({
        "registration_id": affected.registration,
        "application_id": affected.application,
        "position": affected.position.0,
        "at": rfc3339(affected.at),
        "certificates": certificates,
        "refused": affected.refused,
    })
}
