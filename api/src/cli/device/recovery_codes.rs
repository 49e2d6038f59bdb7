//! `keytrail device recovery-codes`: a new set for this phone's registration.

use std::path::PathBuf;

use clap::Args;
use engine::reasons::OperationKind;
use engine::terms::Method;
use serde_json::json;

use super::deactivate::sent;
use super::{Common, Exit, Failure, Pin, method, pin, words};
use crate::device::{AuthenticationOptions, Client, OwnOperation, load};
use crate::ports::SystemEntropy;

/// Gets new codes.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// DEVICE:PIN or DEVICE:BIOMETRIC; without it, one that may answer
    #[arg(long, value_name = "METHOD", value_parser = method)]
    method: Option<Method>,
    #[command(flatten)]
    pin: Pin,
    /// Authorities to trust for https, in PEM form
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
}

impl Arguments {
    /// Whether the answer is JSON.
    pub(super) fn json(&self) -> bool {
        self.common.json
    }
}

/// Asks by two factors and prints what comes of it. The codes are kept nowhere.
pub(super) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let phone = load(&arguments.common.state)?;
    let client = Client::new(phone.server(), arguments.ca.as_deref())?;
    let options = AuthenticationOptions {
        method: arguments.method,
        pin: pin(&arguments.pin)?,
        ..AuthenticationOptions::default()
    };
    let kind = OperationKind::RecoveryCodes;
    let wish = OwnOperation::start(&client, &phone, kind, &options, &SystemEntropy)?;
    let finished = sent(&client, &wish)?;
    let accepted = finished.accepted;
    if arguments.common.json {
        let codes = &finished.recovery_codes;
        println!("{}", json!({ "accepted": accepted, "recovery_codes": codes }));
    } else if accepted {
        print!("{}", words::recovery_codes(&finished.recovery_codes));
    } else {
        println!("refused: attempts left: {}", finished.remaining_attempts);
    }
    Ok(if accepted { Exit::Ok } else { Exit::Failed })
}
