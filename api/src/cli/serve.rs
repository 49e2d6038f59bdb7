//! `keytrail serve`: the server, until it is told to stop.

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;

use super::{Exit, report};
use crate::auth::credential::Credential;
use crate::auth::first_key;
use crate::ports::{SystemClock, SystemEntropy};
use crate::server::StopSignals;
use crate::service::{Ports, Service};
use crate::settings::{Flags, Settings, load};
use crate::{logging, settings};

/// Where the configuration is, and what overrides it.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Configuration file; keytrail.toml in this folder is read if it is there
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    flags: Flags,
}

/// Serves.
pub fn run(arguments: &Arguments) -> Exit {
    let loaded = match load(arguments.config.as_deref(), &arguments.flags) {
        Ok(loaded) => loaded,
        Err(complaints) => {
            complain(&complaints);
            return Exit::Usage;
        }
    };
    if let Err(error) = logging::start(&loaded.settings) {
        report(&*error);
        return Exit::Failed;
    }
    match actix_web::rt::System::new().block_on(serve(&loaded.settings)) {
        Ok(()) => Exit::Ok,
        Err(error) => {
            report(&*error);
            Exit::Failed
        }
    }
}

pub(super) fn complain(complaints: &[settings::Complaint]) {
    for complaint in complaints {
        eprintln!("keytrail: {complaint}");
    }
    eprintln!("keytrail: `keytrail config check` prints the configuration in force");
}

async fn serve(settings: &Settings) -> Result<(), Box<dyn std::error::Error>> {
    let ports = Ports { clock: Arc::new(SystemClock::start()), entropy: Arc::new(SystemEntropy) };
    let folder = settings.data.clone();
    let hand_over = Box::new(move |key: &Credential| hand_over(key, &folder));
    let service = Service::start(settings, &ports, hand_over).await?;
    // Whoever reads that it listens may tell it to stop at once.
    let signals = StopSignals::listen()?;
    // For scripts and for the person who started it; the log goes elsewhere.
    println!("keytrail listens on {}", service.url());
    service.until_stopped(signals).await?;
    tracing::info!("stopped");
    Ok(())
}

/// Shows the first administrator key to whoever watches, else leaves it in a file.
fn hand_over(key: &Credential, folder: &Path) -> io::Result<()> {
    let mut out = io::stdout();
    if out.is_terminal() {
        return first_key::print(key, &mut out);
    }
    let path = first_key::write(key, folder)?;
    println!("keytrail wrote the first administrator key to {}", path.display());
    Ok(())
}
