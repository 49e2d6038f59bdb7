//! The HTTP server: listens, serves, drains, stops.
//!
//! Nothing here waits for the disk on a worker: a handler awaits the writer's
//! answer, and its thread serves others meanwhile.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::middleware::from_fn;
use actix_web::web::{Data, ServiceConfig};
use actix_web::{App, HttpServer};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;

use crate::http::edge::{Edge, Phase};
use crate::http::{around, configure};
use crate::settings::Settings;
use crate::tls::{self, TlsError};

/// How long a client may take to send the head of a request.
const HEAD_WITHIN: Duration = Duration::from_secs(5);

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Certificate or key.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// A server that runs.
#[derive(Debug)]
pub struct Running {
    address: SocketAddr,
    scheme: &'static str,
    handle: ServerHandle,
    edge: Data<Edge>,
    serving: JoinHandle<io::Result<()>>,
}

/// Starts serving on the current actix system; `routes` adds what is beyond the
/// common ones. Whoever starts it says when it is ready.
///
/// # Errors
///
/// [`StartError`]; nothing listens then.
pub fn start(
    settings: &Settings,
    edge: Data<Edge>,
    routes: impl Fn(&mut ServiceConfig) + Clone + Send + 'static,
) -> Result<Running, StartError> {
    let shared = edge.clone();
    let factory = move || {
        App::new()
            .configure(|config| configure(config, &shared))
            .configure(&routes)
            .wrap(from_fn(around))
    };
    let server = HttpServer::new(factory)
        .workers(settings.workers)
        .shutdown_timeout(settings.drain_s)
        .client_request_timeout(HEAD_WITHIN)
        .disable_signals();
    let unbound = |source| StartError::Listen { address: settings.listen, source };
    let (server, scheme) = match (&settings.tls_cert, &settings.tls_key) {
        (Some(cert), Some(key)) => {
            let tls = tls::load(cert, key)?;
            (server.bind_rustls_0_23(settings.listen, tls).map_err(unbound)?, "https")
        }
        (Some(_), None) | (None, Some(_)) | (None, None) => {
            (server.bind(settings.listen).map_err(unbound)?, "http")
        }
    };
    let address = server.addrs().first().copied().unwrap_or(settings.listen);
    let server = server.run();
    let handle = server.handle();
    let serving = actix_web::rt::spawn(server);
    Ok(Running { address, scheme, handle, edge, serving })
}

impl Running {
    /// Where it listens; the port is the real one also if 0 was asked for.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its base URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// Takes nothing new, finishes what is being served, stops.
    ///
    /// # Errors
    ///
    /// Any of the server itself.
    pub async fn stop(self) -> io::Result<()> {
        self.edge.enter(Phase::Draining);
        self.handle.stop(true).await;
        self.serving.await.map_err(io::Error::other)?
    }
}

/// What tells the process to stop: SIGTERM and SIGINT.
#[derive(Debug)]
pub struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    /// Listens from now on: none that comes later is missed, or ends the process.
    ///
    /// # Errors
    ///
    /// Any of the signal handlers.
    pub fn listen() -> io::Result<Self> {
        let terminate = signal(SignalKind::terminate())?;
        Ok(Self { terminate, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits until the process is told to stop, once more if it was told before.
    pub async fn told(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
