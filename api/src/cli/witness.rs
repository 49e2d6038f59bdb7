//! `keytrail witness`: cosigns the checkpoints of logs that only grow.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use storage::disk::RealDisk;

use super::{Exit, report};
use crate::ports::{SystemClock, SystemEntropy};
use crate::server::StopSignals;
use crate::settings::Settings;
use crate::witness::{Witness, http};
use crate::{logging, tls};

/// Where it runs, and whose checkpoints it cosigns.
#[derive(Debug, Args)]
pub struct Arguments {
    /// IP address and port to listen on
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8081")]
    listen: SocketAddr,
    /// Its folder: the key, and the latest checkpoint of each log
    #[arg(long, value_name = "DIR", default_value = "keytrail-witness")]
    data: PathBuf,
    /// Verifier key of a log, or a file that holds it; once for each log
    #[arg(long, value_name = "KEY", required = true)]
    log: Vec<String>,
    /// Name of a new witness, such as audit.bank.example/w1; by default one is drawn
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// PEM file with the certificate chain
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// PEM file with the private key of the certificate
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
}

/// Runs until it is told to stop.
pub fn run(arguments: &Arguments) -> Exit {
    let keys = arguments.log.iter().map(|key| super::receipt::key(key)).collect();
    let keys: Vec<_> = match keys {
        Ok(keys) => keys,
        Err(error) => {
            let error: Box<dyn std::error::Error> = error;
            report(&*error);
            return Exit::Usage;
        }
    };
    if let Err(error) = logging::start(&Settings::default()) {
        report(&*error);
        return Exit::Failed;
    }
    let system = actix_web::rt::System::new();
    match system.block_on(serve(arguments, keys)) {
        Ok(()) => Exit::Ok,
        Err(error) => {
            report(&*error);
            Exit::Failed
        }
    }
}

async fn serve(
    arguments: &Arguments,
    keys: Vec<storage::note::VerifierKey>,
) -> Result<(), Box<dyn std::error::Error>> {
    let tls = match (&arguments.tls_cert, &arguments.tls_key) {
        (Some(cert), Some(key)) => Some(tls::load(cert, key)?),
        (Some(_), None) | (None, Some(_)) | (None, None) => None,
    };
    let clock = Arc::new(SystemClock::start());
    let name = arguments.name.as_deref();
    let disk = Arc::new(RealDisk);
    let witness = Witness::open(&arguments.data, disk, keys, name, clock, &SystemEntropy)?;
    for (origin, size) in witness.sizes() {
        tracing::info!(origin, size, "knows a log");
    }
    let verifier = witness.verifier().to_string();
    let listen = arguments.listen;
    let serving = http::serve(Arc::new(witness), listen, tls).map_err(|error| {
        io::Error::new(error.kind(), format!("cannot listen on {listen}: {error}"))
    })?;
    let mut signals = StopSignals::listen()?;
    println!("keytrail witness key {verifier}");
    println!("keytrail witness listens on {}", serving.url());
    signals.told().await;
    serving.stop().await?;
    tracing::info!("stopped");
    Ok(())
}
