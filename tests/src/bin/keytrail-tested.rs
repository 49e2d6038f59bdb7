//! The keytrail binary once more, under a name that the tests of this package
//! can ask cargo for: cargo tells a package's tests only where its own binaries are.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    api::cli::run(api::cli::Cli::parse()).into()
}
