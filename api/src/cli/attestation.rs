//! `keytrail attestation`: evidence that a key is in hardware, for support work.

mod affected;
mod inspect;
mod update_list;

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
    /// Hand a list of revoked attestation certificates to a server
    UpdateList(update_list::Arguments),
    /// Name the registrations that a revoked certificate or a stricter policy is about
    Affected(affected::Arguments),
}

/// Does it.
pub fn run(arguments: &Arguments) -> Exit {
    match &arguments.action {
        Action::Inspect(arguments) => inspect::run(arguments),
        Action::UpdateList(arguments) => update_list::run(arguments),
        Action::Affected(arguments) => affected::run(arguments),
    }
}
