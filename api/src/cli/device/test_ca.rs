//! `keytrail device test-ca`, and where the phone's evidence comes from.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use clap::Args;
use engine::attestation::{EVIDENCE_MAX, Platform};
use zeroize::Zeroizing;

use super::super::Exit;
use super::super::receipt::bounded;
use super::{Activate, Failure};
use crate::device::{Evidence, TestCa};
use crate::ports::SystemEntropy;

/// Longest file of a test CA, in bytes.
const CA_MAX: usize = 256;

/// Where to put it.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// New file of mode 0600 for its private key
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Makes the CA and prints its root, as `attestation_android_further_roots` names it.
pub(super) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let ca = TestCa::generate(&SystemEntropy)?;
    let failed = |error| Failure::Unwritable(arguments.file.clone(), error);
    let mut options = OpenOptions::new();
    let mut file =
        options.write(true).create_new(true).mode(0o600).open(&arguments.file).map_err(failed)?;
    writeln!(file, "{}", *ca.secret_text()).map_err(failed)?;
    println!("{}", ca.root());
    Ok(Exit::Ok)
}

/// The evidence that the phone is told to send.
pub(super) fn evidence(arguments: &Activate) -> Result<Evidence, Failure> {
    if let Some(path) = &arguments.attestation {
        let unread = |_| Failure::File { path: path.clone(), what: "evidence" };
        let octets = bounded(path, EVIDENCE_MAX).map_err(unread)?;
        return Ok(Evidence::Given(Platform::Android, octets));
    }
    let Some(path) = &arguments.test_ca else { return Ok(Evidence::None) };
    bounded(path, CA_MAX)
        .ok()
        .map(Zeroizing::new)
        .and_then(|text| TestCa::from_secret_text(std::str::from_utf8(&text).ok()?))
        .map(Evidence::Made)
        .ok_or_else(|| Failure::File { path: path.clone(), what: "the key of a test CA" })
}
