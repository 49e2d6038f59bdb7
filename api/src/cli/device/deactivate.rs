//! `keytrail device deactivate`: the phone ends its own registration.

use std::io::{self, IsTerminal};
use std::path::PathBuf;

use clap::Args;
use engine::terms::{Decision, Method};
use serde_json::json;

use super::{Common, Exit, Failure, Pin, ask, is_refusal, method, pin};
use crate::device::{
    AuthenticationOptions, Client, DeviceError, Leaving, Misbehaviour, load, remove,
};
use crate::ports::SystemEntropy;
use crate::wire::device::FinishedAuthentication;

/// How often the same request is sent while no answer comes.
const SENDINGS: usize = 3;

/// Ends the registration.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// DEVICE, DEVICE:PIN or DEVICE:BIOMETRIC; without it, DEVICE
    #[arg(long, value_name = "METHOD", value_parser = method)]
    method: Option<Method>,
    #[command(flatten)]
    pin: Pin,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Only remove the keys here; the server is told nothing
    #[arg(long, conflicts_with_all = ["method", "pin", "pin_file", "wrong_device_token"])]
    local: bool,
    /// Authorities to trust for https, in PEM form
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Misbehave: another device token than the registered one
    #[arg(long)]
    wrong_device_token: bool,
    #[command(flatten)]
    common: Common,
}

impl Arguments {
    /// Whether the answer is JSON.
    pub(super) fn json(&self) -> bool {
        self.common.json
    }
}

/// Leaves. The keys go once the server has said that the registration is over, so
/// that until then the same can be asked again.
pub(super) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let common = &arguments.common;
    let can_ask = !common.json && io::stdin().is_terminal() && io::stderr().is_terminal();
    if !can_ask && !arguments.yes {
        return Err(Failure::NobodyToAsk);
    }
    let phone = load(&common.state)?;
    if !arguments.yes && ask()? == Decision::Reject {
        return Err(Failure::LeftAlone);
    }
    if arguments.local {
        remove(&common.state)?;
        told(arguments, None);
        return Ok(Exit::Ok);
    }
    let client = Client::new(phone.server(), arguments.ca.as_deref())?;
    let options = AuthenticationOptions {
        method: arguments.method,
        pin: pin(&arguments.pin)?,
        misbehaviour: Misbehaviour {
            wrong_device_token: arguments.wrong_device_token,
            ..Misbehaviour::default()
        },
        ..AuthenticationOptions::default()
    };
    let leaving = Leaving::start(&client, &phone, &options, &SystemEntropy)?;
    let finished = sent(&client, &leaving)?;
    if finished.accepted {
        remove(&common.state)?;
    }
    told(arguments, Some(&finished));
    Ok(if finished.accepted { Exit::Ok } else { Exit::Failed })
}

/// The answer, however many of its like were lost.
fn sent(client: &Client, leaving: &Leaving) -> Result<FinishedAuthentication, DeviceError> {
    let mut answer = leaving.finish(client);
    for _ in 1..SENDINGS {
        match answer {
            Err(error) if !is_refusal(&error) => answer = leaving.finish(client),
            Ok(_) | Err(_) => return answer,
        }
    }
    answer
}

fn told(arguments: &Arguments, finished: Option<&FinishedAuthentication>) {
    let accepted = finished.is_none_or(|finished| finished.accepted);
    if arguments.common.json {
        let told_server = finished.is_some();
        println!("{}", json!({ "accepted": accepted, "server_told": told_server }));
    } else if !accepted {
        println!("refused: the registration is as it was, and the keys are kept");
    } else if finished.is_some() {
        println!("deactivated: the registration is over, and the keys are removed");
    } else {
        println!("the keys are removed; the server still has the registration");
    }
}
