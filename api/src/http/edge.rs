//! What every request needs before its handler sees it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use actix_web::HttpRequest;
use actix_web::web::Data;
use engine::machine::{Clock, Entropy};

/// Whether the server should get requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Recovering the store.
    Starting = 0,
    /// Reading and writing.
    Ready = 1,
    /// Finishing what it has begun, taking nothing new.
    Draining = 2,
}

/// How the address of a request's sender is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peers {
    /// Clients connect to this server itself.
    Direct,
    /// A proxy stands in front and appends the sender to `X-Forwarded-For`.
    BehindProxy,
}

/// Bounds on what a request may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestLimits {
    /// Longest body, in bytes.
    pub request_bytes_max: usize,
    /// Longest time a body may take to arrive, in seconds.
    pub body_s_max: u64,
}

/// What every request needs before its handler sees it. Shared by all workers.
pub struct Edge {
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Unpredictable bytes.
    pub entropy: Arc<dyn Entropy>,
    /// Bounds on a request.
    pub limits: RequestLimits,
    /// Who the sender is.
    pub peers: Peers,
    phase: AtomicU8,
}

impl Edge {
    /// The edge of a server that is still starting.
    #[must_use]
    pub fn new(
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        limits: RequestLimits,
        peers: Peers,
    ) -> Self {
        let phase = AtomicU8::new(Phase::Starting as u8);
        Self { clock, entropy, limits, peers, phase }
    }

    /// The edge of the server that got `request`.
    ///
    /// # Panics
    ///
    /// If the server was built without [`super::configure`].
    #[must_use]
    #[expect(clippy::expect_used, reason = "configure puts it there for every route")]
    pub fn of(request: &HttpRequest) -> Data<Self> {
        request.app_data::<Data<Self>>().expect("a configured server").clone()
    }

    /// Where the server is between start and stop.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Starting,
            1 => Phase::Ready,
            _ => Phase::Draining,
        }
    }

    /// Moves it on.
    pub fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Release);
    }
}

impl fmt::Debug for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Edge").field("phase", &self.phase()).finish_non_exhaustive()
    }
}
