//! `keytrail device push-address`, and what a push brings.

use std::path::PathBuf;

use clap::{ArgGroup, Args};
use serde_json::json;

use super::{Common, Failure, Secret};
use crate::cli::Exit;
use crate::device::{Client, load, set_push_address};
use crate::wire::Octets32;
use crate::wire::push::PushAddress;

/// Where pushes go.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("where").required(true).args(["gateway", "remove"]))]
pub(super) struct Arguments {
    /// Which push service, by the name that the site's push hook knows it by
    #[arg(long, value_name = "NAME", requires = "token")]
    gateway: Option<String>,
    /// The token that this service gave to the app
    #[arg(long, value_name = "TOKEN", requires = "gateway")]
    token: Option<Secret>,
    /// Send no pushes any more
    #[arg(long)]
    remove: bool,
    /// Authorities to trust for https, in PEM form
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    #[command(flatten)]
    pub(super) common: Common,
}

pub(super) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let phone = load(&arguments.common.state)?;
    let client = Client::new(phone.server(), arguments.ca.as_deref())?;
    let address = arguments.gateway.as_ref().zip(arguments.token.as_ref());
    let address = address.map(|(gateway, token)| PushAddress {
        gateway: gateway.clone(),
        token: token.0.to_string(),
    });
    let gateway = address.as_ref().map(|address| address.gateway.clone());
    set_push_address(&client, &phone, address)?;
    if arguments.common.json {
        println!("{}", json!({ "gateway": gateway }));
    } else if let Some(gateway) = gateway {
        println!("pushes go to {gateway}");
    } else {
        println!("pushes go nowhere");
    }
    Ok(Exit::Ok)
}

/// A nonce as it comes with a push.
pub(super) fn nonce(text: &str) -> Result<Octets32, String> {
    let value = serde_json::Value::from(text);
    serde_json::from_value(value).map_err(|_| "the nonce of a push, 43 characters".to_owned())
}
