//! A server in a thread of this process.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use tokio::sync::oneshot;
use zeroize::Zeroizing;

use super::DemoError;
use crate::service::{Ports, Service, StopError};
use crate::settings::Settings;

/// A server that runs until it is stopped.
pub(super) struct Server {
    /// Its base URL.
    pub(super) url: String,
    /// The first administrator key, as Bearer.
    pub(super) administrator: Zeroizing<String>,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<Result<(), StopError>>,
}

/// Starts one on a free loopback port, over a new store in `folder`.
pub(super) fn start(folder: &Path, ports: &Ports) -> Result<Server, DemoError> {
    let settings = Settings {
        data: folder.to_owned(),
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        segment_mib: 4,
        cache_mib: 16,
        ..Settings::default()
    };
    let (ports, (started, waiting)) = (ports.clone(), mpsc::channel());
    let (stop, stopped) = oneshot::channel();
    let thread = thread::spawn(move || {
        actix_web::rt::System::new().block_on(async move {
            let (key, given) = mpsc::channel();
            let hand_over = Box::new(move |first: &crate::auth::credential::Credential| {
                key.send(first.token()).map_err(std::io::Error::other)
            });
            match Service::start(&settings, &ports, hand_over).await {
                Ok(service) => {
                    // Nobody waits any more only if the demo is gone; then it stops at once.
                    let _ = started.send(Ok((service.url(), given.try_recv().ok())));
                    let _ = stopped.await;
                    service.stop().await
                }
                Err(error) => {
                    let _ = started.send(Err(error));
                    Ok(())
                }
            }
        })
    });
    let (url, key) = waiting.recv().map_err(|_| DemoError::Gone)??;
    let administrator = key.ok_or(DemoError::Missing("the first administrator key"))?;
    Ok(Server { url, administrator, stop, thread })
}

impl Server {
    /// Stops it cleanly.
    pub(super) fn stop(self) -> Result<(), DemoError> {
        // A server that is gone already says why below.
        let _ = self.stop.send(());
        Ok(self.thread.join().map_err(|_| DemoError::Gone)??)
    }
}
