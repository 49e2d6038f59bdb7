//! `keytrail attestation`: evidence that a key is in hardware, for support work.

mod inspect;

use clap::{Args, Subcommand};

use super::Exit;

/// What to do with evidence.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Judge evidence from a file: every field that is read, every check, the verdict
    Inspect(inspect::Arguments),
}

/// Does it.
pub fn run(arguments: &Arguments) -> Exit {
    match &arguments.action {
        Action::Inspect(arguments) => inspect::run(arguments),
    }
}
