//! The benches on the command line: `cargo run --release -p tests --bin bench`.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    tests::bench::main(&tests::bench::Arguments::parse())
}
