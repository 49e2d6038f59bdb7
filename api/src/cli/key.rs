//! `keytrail key`: the key that signs a log's checkpoints. `show` prints its public
//! half; `rotate` replaces it, on a stopped server's folder.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, Subcommand};
use storage::disk::{Disk, RealDisk};
use storage::notary::{CHECKPOINT_FILE, KEY_FILE};
use storage::note::{Note, VerifierKey};

use super::{Exit, report, serve};
use crate::maintenance::{Rotated, rotate_key};
use crate::ports::{SystemClock, SystemEntropy};
use crate::service::Ports;
use crate::settings::{Flags, load};

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
    /// Replace the key; the server must be stopped
    Rotate {
        /// Configuration file; keytrail.toml in this folder is read if it is there
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        #[command(flatten)]
        flags: Flags,
    },
}

/// Shows; exit code 1 if the checkpoint beside it has another key's signature.
pub fn run(arguments: &Arguments) -> Exit {
    match &arguments.action {
        Action::Show { dir } => show(dir),
        Action::Rotate { config, flags } => rotate(config.as_deref(), flags),
    }
}

fn rotate(config: Option<&Path>, flags: &Flags) -> Exit {
    super::verify::quiet_sled();
    let loaded = match load(config, flags) {
        Ok(loaded) => loaded,
        Err(complaints) => {
            serve::complain(&complaints);
            return Exit::Usage;
        }
    };
    let ports = Ports { clock: Arc::new(SystemClock::start()), entropy: Arc::new(SystemEntropy) };
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    match rotate_key(&loaded.settings, &ports, &disk, None) {
        Ok(Rotated { old, new, position }) => {
            println!("record   {position}");
            println!("until    {old}");
            println!("from     {new}");
            println!("Give the new key to every auditor and witness before the server starts.");
            Exit::Ok
        }
        Err(error) => {
            report(&error);
            Exit::Failed
        }
    }
}

fn show(dir: &Path) -> Exit {
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
