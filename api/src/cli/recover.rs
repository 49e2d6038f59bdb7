//! `keytrail recover`: begins a new epoch of a log that lost records.
//!
//! For a server that refuses to start because the guard file or an anchor knows
//! more of the log than there is, or another history, where no newer copy of
//! `log/` can be found. Put back the newest copy first: what is given up here
//! never comes back.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use storage::disk::{Disk, RealDisk};

use super::{Exit, report, serve};
use crate::maintenance::recover;
use crate::ports::{SystemClock, SystemEntropy};
use crate::service::Ports;
use crate::settings::{Flags, load};

/// Which folder, and that it is meant.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Configuration file; keytrail.toml in this folder is read if it is there
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Give up, for ever, the records that were signed and are not there
    #[arg(long)]
    accept_loss: bool,
    #[command(flatten)]
    flags: Flags,
}

/// Begins the epoch; exit code 1 if nothing was lost, or if it cannot be done.
pub fn run(arguments: &Arguments) -> Exit {
    if !arguments.accept_loss {
        eprintln!(
            "keytrail: records that were signed would be given up for ever; look for a newer copy of \
             the folder log/ first, and say --accept-loss if there is none"
        );
        return Exit::Usage;
    }
    super::verify::quiet_sled();
    let loaded = match load(arguments.config.as_deref(), &arguments.flags) {
        Ok(loaded) => loaded,
        Err(complaints) => {
            serve::complain(&complaints);
            return Exit::Usage;
        }
    };
    let ports = Ports { clock: Arc::new(SystemClock::start()), entropy: Arc::new(SystemEntropy) };
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    match recover(&loaded.settings, &ports, &disk) {
        Ok(recovered) => {
            let begun = &recovered.begun;
            match begun.lost() {
                Some((first, last)) => {
                    println!("lost     records {first} to {last}, and whatever came after")
                }
                None => {
                    println!("lost     the history of {} records that was signed", begun.known_size)
                }
            }
            println!(
                "known    {} records, root {}",
                begun.known_size,
                replay::hex(&begun.known_root)
            );
            println!("left     {} records, root {}", begun.size, replay::hex(&begun.root));
            println!("origin   {}", begun.origin);
            println!("key      {}", recovered.key);
            println!("Give this key to every auditor and witness, and name a new anchor_dir.");
            Exit::Ok
        }
        Err(error) => {
            report(&error);
            Exit::Failed
        }
    }
}
