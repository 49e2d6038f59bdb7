//! The keytrail binary: see `keytrail --help`.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    api::cli::run(api::cli::Cli::parse()).into()
}
