//! `keytrail key show`: the public half of the key that signs a log's checkpoints.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use storage::disk::{Disk as _, RealDisk};
use storage::notary::{CHECKPOINT_FILE, KEY_FILE};
use storage::note::{Note, VerifierKey};

use super::{Exit, report};

/// Longest file that is read, in bytes.
const FILE_MAX: u64 = 64 * 1024;

/// What to do with a log's key.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Print the verifier key beside a log, if it has signed the checkpoint there
    Show {
        /// The data folder, or a copy that holds log/; a server may run on it
        #[arg(value_name = "DIR")]
        dir: PathBuf,
    },
}

/// Shows; exit code 1 if the checkpoint beside it has another key's signature.
pub fn run(arguments: &Arguments) -> Exit {
    let Action::Show { dir } = &arguments.action;
    let log = dir.join("log");
    let read = |name: &str| -> Result<String, Box<dyn std::error::Error>> {
        let path = log.join(name);
        let named = |error| format!("{}: {error}", path.display());
        Ok(String::from_utf8(RealDisk.read(&path, FILE_MAX).map_err(named)?)?)
    };
    let key: VerifierKey = match read(KEY_FILE).and_then(|text| Ok(text.parse()?)) {
        Ok(key) => key,
        Err(error) => {
            report(&*error);
            return Exit::Usage;
        }
    };
    if log.join(CHECKPOINT_FILE).exists() {
        let note = read(CHECKPOINT_FILE).and_then(|text| Ok(text.parse::<Note>()?));
        if !note.is_ok_and(|note| matches!(key.verify(&note), Ok(Some(_)))) {
            eprintln!("keytrail: the checkpoint in {} is not signed by this key", log.display());
            return Exit::Failed;
        }
    }
    println!("{key}");
    Exit::Ok
}
