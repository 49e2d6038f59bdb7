//! `keytrail erase`: erases users through a running server, as `DELETE
//! /v1/users/{ref}` does.
//!
//! It goes through the server and not past it: who ordered an erasure is part of
//! the evidence, and that is an API key of the service provider whose users they
//! are. What the command prints names nobody.

use std::io::{BufRead, Write};
use std::path::PathBuf;

use clap::Args;
use zeroize::Zeroizing;

use super::receipt::bounded;
use super::{Exit, report};
use crate::device::Client;
use crate::wire::provider::Erasure;

/// Longest file with an API key, in bytes.
const KEY_MAX: usize = 4_096;

/// Whom to erase, where, and as whom.
#[derive(Debug, Args)]
pub struct Arguments {
    /// URL of the server
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    server: String,
    /// File with an API key of the service provider, in its Bearer form
    #[arg(long, value_name = "FILE")]
    api_key: PathBuf,
    /// PEM file with the certificate authorities to trust; needed for https
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Why; it stands in the log for ever
    #[arg(long, value_name = "REASON", default_value = "OTHER")]
    reason: String,
    /// The service provider's own names for the users; - reads them from standard
    /// input, one a line, and so keeps them out of the list of processes
    #[arg(value_name = "USER", required = true)]
    users: Vec<String>,
}

/// Erases; exit code 1 if one of them was not erased.
pub fn run(arguments: &Arguments) -> Exit {
    let prepared = || -> Result<_, Box<dyn std::error::Error>> {
        let bytes = Zeroizing::new(bounded(&arguments.api_key, KEY_MAX)?);
        let text = Zeroizing::new(std::str::from_utf8(&bytes)?.trim().to_owned());
        let token = text.strip_prefix("bearer ").unwrap_or(&text);
        let client = Client::new(&arguments.server, arguments.ca.as_deref())?;
        Ok((client, Zeroizing::new(token.to_owned()), users(arguments)?))
    };
    let (client, token, users) = match prepared() {
        Ok(prepared) => prepared,
        Err(error) => {
            report(&*error);
            return Exit::Usage;
        }
    };
    let mut exit = Exit::Ok;
    // By number: a name that is to be forgotten is not printed once more.
    for (number, user) in (1..).zip(&users) {
        let path = format!("/v1/users/{}?reason={}", encoded(user), encoded(&arguments.reason));
        let erased = match client.delete::<Erasure>(&path, Some(&token)) {
            Ok(erased) => erased,
            Err(error) => {
                eprintln!(
                    "keytrail: user {number} of {}: {}",
                    users.len(),
                    super::with_causes(&error)
                );
                exit = Exit::Failed;
                continue;
            }
        };
        let line = format!(
            "user {number} of {}: subject {}, ordered by record {}",
            users.len(),
            erased.subject_id,
            erased.position
        );
        if writeln!(std::io::stdout(), "{line}").is_err() {
            return Exit::Failed;
        }
    }
    exit
}

fn users(arguments: &Arguments) -> std::io::Result<Vec<String>> {
    if arguments.users != ["-"] {
        return Ok(arguments.users.clone());
    }
    let lines: Vec<String> = std::io::stdin().lock().lines().collect::<Result<_, _>>()?;
    Ok(lines.into_iter().filter(|line| !line.is_empty()).collect())
}

/// A reference as a part of a path (RFC 3986, section 2.3).
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_reference_holds_stays_one_part_of_the_path() {
        assert_eq!(encoded("anna-1.b_c~"), "anna-1.b_c~");
        assert_eq!(encoded("a/b c%?#"), "a%2Fb%20c%25%3F%23");
        assert_eq!(encoded("Zoë"), "Zo%C3%AB");
    }
}
