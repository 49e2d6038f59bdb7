//! `keytrail serve`: the server, until it is told to stop.

use std::path::PathBuf;
use std::sync::Arc;

use actix_web::web::Data;
use clap::Args;

use super::{Exit, report};
use crate::http::edge::{Edge, Peers, RequestLimits};
use crate::ports::{SystemClock, SystemEntropy};
use crate::server::{self, Running};
use crate::settings::{Flags, Settings, load};
use crate::{logging, settings};

/// Longest time a request body may take to arrive, in seconds.
const BODY_S_MAX: u64 = 10;

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

fn complain(complaints: &[settings::Complaint]) {
    for complaint in complaints {
        eprintln!("keytrail: {complaint}");
    }
    eprintln!("keytrail: `keytrail config check` prints the configuration in force");
}

async fn serve(settings: &Settings) -> Result<(), Box<dyn std::error::Error>> {
    let running = start(settings)?;
    // For scripts and for the person who started it; the log goes elsewhere.
    println!("keytrail listens on {}", running.url());
    running.until_stopped().await?;
    tracing::info!("stopped");
    Ok(())
}

/// Starts a server with these settings on the current actix system.
///
/// # Errors
///
/// What kept it from starting.
pub fn start(settings: &Settings) -> Result<Running, server::StartError> {
    server::start(settings, edge(settings), |_| {})
}

fn edge(settings: &Settings) -> Data<Edge> {
    let limits =
        RequestLimits { request_bytes_max: settings.request_bytes_max, body_s_max: BODY_S_MAX };
    let peers = if settings.insecure_behind_proxy { Peers::BehindProxy } else { Peers::Direct };
    let clock = Arc::new(SystemClock::start());
    Data::new(Edge::new(clock, Arc::new(SystemEntropy), limits, peers))
}
