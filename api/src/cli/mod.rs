//! The command line. Each subcommand is a module with its arguments and `run`.

mod access;
pub mod attestation;
pub mod config;
pub mod demo;
pub mod device;
pub mod erase;
pub mod export;
pub mod inspect;
pub mod key;
pub mod openapi;
pub mod rebuild;
pub mod receipt;
pub mod recover;
pub mod replay;
pub mod serve;
pub mod verify;
pub mod witness;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Authentication with hardware-protected keys, on an event log that anyone can check.
#[derive(Debug, Parser)]
#[command(name = "keytrail", version, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the whole flow on a temporary store, and check the log that it leaves
    Demo(demo::Arguments),
    /// Run the server
    Serve(serve::Arguments),
    /// Look at the configuration
    Config(config::Arguments),
    /// Play a phone against a server: a tool for tests
    Device(device::Arguments),
    /// Check a stopped server's folder, or a copy of it, level by level
    Verify(verify::Arguments),
    /// Show the events of a stopped server's folder, or of a copy of it
    Inspect(inspect::Arguments),
    /// Show what was known at a past moment, a registration's history, the log as it
    /// grows, or how a past range would have gone under another configuration
    Replay(Box<replay::Arguments>),
    /// Write the log of a stopped server, or of a copy, out as a folder of evidence that
    /// anyone can check, or as JSON Lines
    Export(Box<export::Arguments>),
    /// Check a receipt of an event with the log's public key, offline
    Receipt(receipt::Arguments),
    /// Show or replace the key that signs a log's checkpoints
    Key(key::Arguments),
    /// Go on with a log that lost records, under a new origin line
    Recover(Box<recover::Arguments>),
    /// Erase users, through a running server
    Erase(erase::Arguments),
    /// Cosign the checkpoints of logs that only grow, for whoever does not trust them
    Witness(witness::Arguments),
    /// Judge a phone maker's evidence for a hardware key
    Attestation(attestation::Arguments),
    /// Make everything that is derived from the log again
    Rebuild(rebuild::Arguments),
    /// Print the OpenAPI 3.1 document of this server
    Openapi,
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It did what was asked, and the answer is good.
    Ok,
    /// It failed, or what it looked at is not in order.
    Failed,
    /// It was asked wrongly: arguments or configuration.
    Usage,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Ok => Self::from(0),
            Exit::Failed => Self::from(1),
            Exit::Usage => Self::from(2),
        }
    }
}

/// Runs what the command line asks for.
#[must_use]
pub fn run(cli: Cli) -> Exit {
    match cli.command {
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Serve(arguments) => serve::run(&arguments),
        Command::Config(arguments) => config::run(&arguments),
        Command::Device(arguments) => device::run(&arguments),
        Command::Verify(arguments) => verify::run(&arguments),
        Command::Inspect(arguments) => inspect::run(&arguments),
        Command::Replay(arguments) => replay::run(&arguments),
        Command::Export(arguments) => export::run(&arguments),
        Command::Receipt(arguments) => receipt::run(&arguments),
        Command::Key(arguments) => key::run(&arguments),
        Command::Recover(arguments) => recover::run(&arguments),
        Command::Erase(arguments) => erase::run(&arguments),
        Command::Witness(arguments) => witness::run(&arguments),
        Command::Attestation(arguments) => attestation::run(&arguments),
        Command::Rebuild(arguments) => rebuild::run(&arguments),
        Command::Openapi => openapi::run(),
    }
}

/// Prints an error and its causes on standard error, one line.
pub(crate) fn report(error: &dyn std::error::Error) {
    eprintln!("keytrail: {}", with_causes(error));
}

/// An error and its causes, on one line.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
