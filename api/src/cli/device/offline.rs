//! `keytrail device offline`: a code for a question that was scanned.

use std::io::{self, IsTerminal};

use clap::Args;
use engine::machine::Clock as _;
use engine::terms::{Decision, Method};
use serde_json::json;

use super::{Common, Failure, Pin, ask, method, pin, words};
use crate::cli::Exit;
use crate::device::load;
use crate::ports::SystemClock;
use crate::wire::OfflinePayload;

/// Answers a question without a network.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The text of the QR code that the service provider shows
    #[arg(long, value_name = "PAYLOAD")]
    question: String,
    /// DEVICE, DEVICE:PIN or DEVICE:BIOMETRIC; without it, one that may answer
    #[arg(long, value_name = "METHOD", value_parser = method)]
    method: Option<Method>,
    #[command(flatten)]
    pin: Pin,
    /// Approve without asking
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    pub(super) common: Common,
}

pub(super) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let json = arguments.common.json;
    let can_ask = !json && io::stdin().is_terminal() && io::stderr().is_terminal();
    if !can_ask && !arguments.yes {
        return Err(Failure::NobodyToAsk);
    }
    let phone = load(&arguments.common.state)?;
    let payload: OfflinePayload =
        arguments.question.trim().parse().map_err(|_| Failure::NotAPayload)?;
    let question = phone.scan(&payload, SystemClock::start().wall())?;
    if !json {
        print!("{}", words::asked(&question));
    }
    if !arguments.yes && ask()? == Decision::Reject {
        return Err(Failure::LeftAlone);
    }
    let pin = pin(&arguments.pin)?;
    let pin = pin.as_ref().map(|pin| pin.as_str());
    let code = phone.offline_code(&question, arguments.method, pin)?;
    let digits = code.as_str();
    if json {
        let (id, method) = (question.operation, code.method());
        println!("{}", json!({ "operation_id": id, "method": method, "code": digits }));
    } else {
        println!("the code: {} {} {}", &digits[..2], &digits[2..6], &digits[6..]);
    }
    Ok(Exit::Ok)
}
