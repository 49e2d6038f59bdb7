//! `keytrail config check`: what is wrong with a configuration, or what it means.

use std::fmt::Write;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use super::Exit;
use crate::settings::keys::KEYS;
use crate::settings::{Complaint, Flags, Loaded, load};
use crate::tls;

/// What to look at.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Say what is wrong with a configuration file, or print the configuration in force
    Check {
        /// The file; keytrail.toml in this folder if none is named
        file: Option<PathBuf>,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        flags: Flags,
    },
}

/// Checks; exit code 2 if anything is wrong.
pub fn run(arguments: &Arguments) -> Exit {
    let Action::Check { file, json, flags } = &arguments.action;
    let checked = load(file.as_deref(), flags).and_then(check_files);
    let text = match (&checked, json) {
        (checked, true) => as_json(checked),
        (Ok(loaded), false) => as_toml(loaded),
        (Err(complaints), false) => as_words(complaints),
    };
    match checked {
        Ok(_) => {
            print!("{text}");
            Exit::Ok
        }
        Err(_) if *json => {
            print!("{text}");
            Exit::Usage
        }
        Err(_) => {
            eprint!("{text}");
            Exit::Usage
        }
    }
}

/// What can be wrong with the files that a configuration names.
fn check_files(loaded: Loaded) -> Result<Loaded, Vec<Complaint>> {
    let settings = &loaded.settings;
    if let (Some(cert), Some(key)) = (&settings.tls_cert, &settings.tls_key)
        && let Err(error) = tls::load(cert, key)
    {
        let message = error.to_string();
        return Err(vec![Complaint { key: Some("tls_cert".into()), line: None, message }]);
    }
    Ok(loaded)
}

fn as_words(complaints: &[Complaint]) -> String {
    complaints.iter().map(|complaint| format!("{complaint}\n")).collect()
}

/// The configuration in force as a file that would say the same.
fn as_toml(loaded: &Loaded) -> String {
    let file = loaded.file.as_ref().map_or("no file".into(), |path| path.display().to_string());
    let mut text = format!("# In force: command line over {file} over defaults.\n");
    for key in KEYS {
        let line = match (key.show)(&loaded.settings) {
            Some(value) => format!("{:<40} # {}", key.line(&value), loaded.origin(key.name)),
            None => format!("# {} is not set", key.name),
        };
        // Writing to a String does not fail.
        let _ = writeln!(text, "{line}");
    }
    text
}

fn as_json(checked: &Result<Loaded, Vec<Complaint>>) -> String {
    let object = match checked {
        Ok(loaded) => {
            let value = |key: &crate::settings::keys::Key| {
                let shown = (key.show)(&loaded.settings);
                let origin = loaded.origin(key.name).to_string();
                (key.name.to_owned(), json!({ "value": shown, "from": origin }))
            };
            let effective: serde_json::Map<_, _> = KEYS.iter().map(value).collect();
            json!({ "ok": true, "file": loaded.file, "effective": effective })
        }
        Err(complaints) => {
            let complaints: Vec<_> = complaints
                .iter()
                .map(|c| json!({ "key": c.key, "line": c.line, "message": c.message }))
                .collect();
            json!({ "ok": false, "complaints": complaints })
        }
    };
    format!("{object}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::assemble;

    #[test]
    fn the_printed_configuration_is_a_file_that_says_the_same() {
        let flags = Flags::of([("data", "a \"quoted\" folder"), ("workers", "3")]);
        let loaded = assemble("queue_length = 9", None, &flags).unwrap();
        let again = assemble(&as_toml(&loaded), None, &Flags::default()).unwrap();
        assert_eq!(again.settings, loaded.settings);
        assert!(as_toml(&loaded).contains("queue_length = 9"));
        assert!(as_toml(&loaded).contains("# line 1\n"));
    }

    #[test]
    fn the_json_form_says_the_same_as_the_words() {
        let wrong = assemble("lisen = 1", None, &Flags::default());
        let object: serde_json::Value = serde_json::from_str(&as_json(&wrong)).unwrap();
        assert_eq!(object["ok"], false);
        assert_eq!(object["complaints"][0]["line"], 1);
        assert_eq!(object["complaints"][0]["key"], "lisen");
        let right: serde_json::Value =
            serde_json::from_str(&as_json(&assemble("", None, &Flags::default()))).unwrap();
        assert_eq!(right["effective"]["listen"]["value"], "127.0.0.1:8080");
    }

    #[test]
    fn a_certificate_that_cannot_be_read_is_a_complaint() {
        let flags = Flags::of([("tls_cert", "/nowhere/c"), ("tls_key", "/nowhere/k")]);
        let complaints = check_files(assemble("", None, &flags).unwrap()).unwrap_err();
        assert!(complaints[0].message.starts_with("cannot read /nowhere/c"));
    }
}
