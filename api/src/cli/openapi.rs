//! `keytrail openapi`: the document that the server serves, on standard output.

use std::io::Write;

use super::{Exit, report};

/// Prints it.
pub fn run() -> Exit {
    let printed = crate::openapi::document()
        .to_pretty_json()
        .map_err(std::io::Error::other)
        .and_then(|text| writeln!(std::io::stdout(), "{text}"));
    match printed {
        Ok(()) => Exit::Ok,
        Err(error) => {
            report(&error);
            Exit::Failed
        }
    }
}
