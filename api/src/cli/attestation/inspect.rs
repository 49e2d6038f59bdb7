//! `keytrail attestation inspect`: judges evidence from a file, offline.
//!
//! Exit code 0 if it is accepted, 1 if it is refused, 2 if it cannot be read
//! (or the command was asked wrongly). Shows private fields too: whoever has
//! the file has them already.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use engine::attestation::revocation::{LIST_MAX, RevocationList};
use engine::attestation::{
    CheckResult, EVIDENCE_MAX, Expected, Facts, Judgement, Outcome, Platform, Policy, Reason, judge,
};
use engine::config::Config;
use engine::ids::Micros;
use engine::machine::Clock as _;
use replay::{micros_of, printable, rfc3339};
use serde_json::{Value, json};

use super::super::Exit;
use super::super::receipt::bounded;
use crate::ports::SystemClock;

/// Longest file of a policy, in bytes.
pub(super) const POLICY_MAX: usize = 1024 * 1024;

/// What to judge, and against what.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The evidence: a chain of certificates (PEM or DER, leaf first) or an attestation object
    #[arg(value_name = "FILE")]
    evidence: PathBuf,
    /// Whose evidence it is
    #[arg(long, value_enum)]
    platform: PlatformName,
    /// The time to judge it at, as 2026-11-24T09:00:00Z; without it, now
    #[arg(long, value_name = "TIME", value_parser = moment)]
    at: Option<Micros>,
    /// The challenge that it must answer; without it, any
    #[arg(long, value_name = "HEX", value_parser = octets)]
    challenge: Option<Octets>,
    /// JSON object of an application's properties (attestation_…); without it, their defaults
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Revocation list in Google's format; without it, revocation is not checked
    #[arg(long, value_name = "FILE")]
    list: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum PlatformName {
    Android,
    Apple,
}

impl From<PlatformName> for Platform {
    fn from(name: PlatformName) -> Self {
        match name {
            PlatformName::Android => Self::Android,
            PlatformName::Apple => Self::Apple,
        }
    }
}

/// Bytes given in hexadecimal.
#[derive(Debug, Clone)]
struct Octets(Vec<u8>);

fn moment(text: &str) -> Result<Micros, String> {
    micros_of(text).ok_or_else(|| "must be a time as 2026-11-24T09:00:00Z".to_owned())
}

fn octets(text: &str) -> Result<Octets, String> {
    let digits: Option<Vec<u32>> = text.chars().map(|symbol| symbol.to_digit(16)).collect();
    match digits {
        Some(digits) if digits.len().is_multiple_of(2) => {
            Ok(Octets(digits.chunks(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect()))
        }
        Some(_) | None => Err("must be bytes in hexadecimal".to_owned()),
    }
}

/// Judges.
pub(super) fn run(arguments: &Arguments) -> Exit {
    let at = arguments.at.unwrap_or_else(|| SystemClock::start().wall());
    let judgement = match judged(arguments, at) {
        Ok(judgement) => judgement,
        Err(error) => {
            super::super::report(&*error);
            return Exit::Usage;
        }
    };
    let mut out = io::stdout().lock();
    let printed = if arguments.json {
        writeln!(out, "{}", in_json(&judgement, at))
    } else {
        print(&mut out, &judgement, at)
    };
    if let Err(error) = printed.and_then(|()| out.flush()) {
        super::super::report(&error);
        return Exit::Failed;
    }
    exit(judgement.outcome)
}

/// Unreadable is not refused: there was nothing to judge.
fn exit(outcome: Outcome) -> Exit {
    match outcome {
        Outcome::Accepted => Exit::Ok,
        Outcome::Refused(Reason::EvidenceUnreadable | Reason::EvidenceTooLarge) => Exit::Usage,
        Outcome::Refused(_) => Exit::Failed,
    }
}

fn judged(arguments: &Arguments, at: Micros) -> Result<Judgement, Box<dyn std::error::Error>> {
    let evidence = bounded(&arguments.evidence, EVIDENCE_MAX)?;
    let policy = match &arguments.policy {
        Some(path) => policy(&bounded(path, POLICY_MAX)?)?,
        None => Policy::default(),
    };
    let list = match &arguments.list {
        Some(path) => Some(RevocationList::parse(&bounded(path, LIST_MAX)?, at)?),
        None => None,
    };
    let expected = Expected {
        challenge: arguments.challenge.as_ref().map(|octets| octets.0.as_slice()),
        hardware_key: None,
        at,
        policy: &policy,
        list: list.as_ref(),
    };
    Ok(judge(arguments.platform.into(), &evidence, &expected))
}

/// The policy in a JSON object of properties, as applications are configured.
pub(super) fn policy(json: &[u8]) -> Result<Policy, Box<dyn std::error::Error>> {
    let properties: BTreeMap<String, Value> = serde_json::from_slice(json)?;
    let pairs = properties.iter().map(|(name, value)| (name.as_str(), value));
    Config::default().with(pairs).map(|config| config.attestation).map_err(|errors| {
        let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
        errors.join("; ").into()
    })
}

fn print(out: &mut impl Write, judgement: &Judgement, at: Micros) -> io::Result<()> {
    for field in &judgement.fields {
        let mark = if field.private { "  (private)" } else { "" };
        writeln!(out, "field    {} = {}{mark}", field.name, one_line(&field.value))?;
    }
    for check in &judgement.checks {
        let result = match check.result {
            CheckResult::Passed => "passed".to_owned(),
            CheckResult::Failed(reason) => format!("FAILED   {reason}"),
            CheckResult::NotMade => "not made".to_owned(),
        };
        writeln!(out, "check    {:<22} {result}", check.name)?;
    }
    writeln!(out, "time     {}", rfc3339(at))?;
    match judgement.outcome.reason() {
        None => writeln!(out, "verdict  ACCEPTED"),
        Some(reason) => writeln!(out, "verdict  REFUSED  {reason}"),
    }
}

/// Text of a certificate, without what a terminal would obey.
fn one_line(text: &str) -> String {
    printable(text).replace('\n', "\u{fffd}")
}

fn in_json(judgement: &Judgement, at: Micros) -> Value {
    let fields: Vec<_> = judgement
        .fields
        .iter()
        .map(|field| json!({ "name": field.name, "value": field.value, "private": field.private }))
        .collect();
    let checks: Vec<_> = judgement
        .checks
        .iter()
        .map(|check| match check.result {
            CheckResult::Passed => json!({ "name": check.name, "result": "passed" }),
            CheckResult::Failed(reason) => {
                json!({ "name": check.name, "result": "failed", "reason": reason })
            }
            CheckResult::NotMade => json!({ "name": check.name, "result": "not_made" }),
        })
        .collect();
    json!({
        "accepted": judgement.outcome == Outcome::Accepted,
        "reason": judgement.outcome.reason(),
        "at": rfc3339(at),
        "facts": facts(&judgement.facts),
        "checks": checks,
        "fields": fields,
    })
}

/// The facts by their names in risk attributes.
fn facts(facts: &Facts) -> Value {
    json!({
        "security_level": facts.security_level,
        "boot_state": facts.boot_state,
        "device_locked": facts.device_locked,
        "patch_level": facts.patch_level,
        "provisioning": facts.provisioning,
        "environment": facts.environment,
        "revocation_list": facts.list,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_given_in_hexadecimal() {
        assert_eq!(octets("00fFa0").map(|octets| octets.0), Ok(vec![0x00, 0xff, 0xa0]));
        assert!(octets("0").is_err());
        assert!(octets("zz").is_err());
    }

    #[test]
    fn a_policy_is_a_json_object_of_properties() {
        let read = policy(br#"{"attestation_android_boot":"ANY"}"#).unwrap();
        assert_eq!(read.android.boot, engine::attestation::policy::BootRule::Any);
        let error = policy(br#"{"attestation_android_boot":"SOME","colour":1}"#).unwrap_err();
        assert!(error.to_string().contains("attestation_android_boot"), "{error}");
        assert!(error.to_string().contains("colour"), "{error}");
    }

    #[test]
    fn unreadable_is_not_refused() {
        assert_eq!(exit(Outcome::Accepted), Exit::Ok);
        assert_eq!(exit(Outcome::Refused(Reason::RootUnknown)), Exit::Failed);
        assert_eq!(exit(Outcome::Refused(Reason::EvidenceUnreadable)), Exit::Usage);
    }
}
