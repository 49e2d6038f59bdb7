//! `keytrail attestation affected`: which registrations a revoked certificate,
//! or a stricter policy, is about. Offline, over a stopped server's folder.
//!
//! Exit code 0 if none is affected, 1 if some are, 2 if it could not be said or
//! one could not be locked.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::{ArgGroup, Args};
use engine::attestation::revocation::{LIST_MAX, RevocationList};
use engine::ids::Micros;
use replay::affected::{Affected, Basis, Question, Refused, affected};
use replay::{hex, printable, rfc3339};
use serde_json::{Value, json};

use super::super::Exit;
use super::super::receipt::bounded;
use super::inspect::{POLICY_MAX, policy};
use super::lock::{Locked, Server};

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
    /// Key store that opens sealed evidence: keys/ or a copy of it [default: the one in the
    /// folder, if there is one]
    #[arg(long, value_name = "DIR")]
    keys: Option<PathBuf>,
    /// Lock each of them, with the reason KEY_DISTRUSTED, at a running server: with a service
    /// provider's key, which locks what is its own
    #[arg(long, requires = "api_key_file")]
    lock: bool,
    #[command(flatten)]
    server: Server,
    /// Print one JSON object for each registration
    #[arg(long)]
    json: bool,
}

/// Searches.
pub(super) fn run(arguments: &Arguments) -> Exit {
    match search(arguments) {
        Ok(found) if found.is_empty() => Exit::Ok,
        Ok(found) => match print(&found, arguments) {
            Ok(exit) => exit,
            Err(error) => {
                super::super::report(&*error);
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
    let keys = arguments.keys.as_deref();
    let question = Question { list: list.as_ref(), policy: policy.as_ref(), keys };
    let (found, inspected) = affected(&arguments.dir, &question)?;
    if !inspected.findings.is_empty() {
        eprintln!(
            "keytrail: the log is damaged, registrations may be missing; run keytrail verify"
        );
    }
    Ok(found)
}

/// Prints what was found, and locks it if that was asked for.
fn print(found: &[Affected], arguments: &Arguments) -> Result<Exit, Box<dyn std::error::Error>> {
    let caller = arguments.lock.then(|| arguments.server.caller()).transpose()?;
    let mut out = io::stdout().lock();
    let mut exit = Exit::Failed;
    for affected in found {
        let locked = caller.as_ref().map(|caller| caller.lock(affected));
        if let Some(Locked::Failed(error)) = &locked {
            super::super::report(error);
            exit = Exit::Usage;
        }
        if arguments.json {
            writeln!(out, "{}", in_json(affected, locked.as_ref()))?;
        } else {
            line(&mut out, affected, locked.as_ref())?;
        }
    }
    out.flush()?;
    Ok(exit)
}

fn line(out: &mut impl Write, affected: &Affected, locked: Option<&Locked>) -> io::Result<()> {
    let at = rfc3339(affected.at);
    write!(out, "{}  activated {at} in record {}", affected.registration, affected.position.0)?;
    for (name, status) in &affected.certificates {
        let (serial, issuer) = (hex(&name.serial), printable(&name.issuer));
        write!(out, "; {status} {serial} of {issuer}")?;
    }
    if let Some(status) = affected.leaf {
        write!(out, "; {status} its own certificate")?;
    }
    if let Some(refused) = affected.refused {
        write!(out, "; the policy refuses it: {}", refused.as_str())?;
    }
    match affected.basis {
        Basis::Evidence | Basis::Nothing => (),
        Basis::Facts => write!(out, "; its evidence is sealed")?,
    }
    match locked {
        None => writeln!(out),
        Some(Locked::Yes) => writeln!(out, "; locked"),
        Some(Locked::OtherKey) => writeln!(out, "; not locked: it has another hardware key now"),
        Some(Locked::Failed(_)) => writeln!(out, "; NOT locked"),
    }
}

fn in_json(affected: &Affected, locked: Option<&Locked>) -> Value {
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
        "leaf": affected.leaf,
        "refused": affected.refused.map(Refused::as_str),
        "basis": affected.basis.as_str(),
        "lock": locked.map(Locked::as_str),
    })
}
