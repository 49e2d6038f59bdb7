//! The witness over HTTP: `POST /add-checkpoint` and nothing else.
//!
//! Nothing that is sent is secret, and every answer that says yes is signed.
//! Without TLS somebody between log and witness can keep them apart or forge
//! the size in a refusal, and so raise a false alarm, but no more.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::{Payload, ServerHandle};
use actix_web::http::StatusCode;
use actix_web::http::header::ContentType;
use actix_web::web::{self, Bytes, Data};
use actix_web::{App, FromRequest as _, HttpRequest, HttpResponse, HttpServer};
use rustls::ServerConfig;
use tokio::task::JoinHandle;

use super::request::REQUEST_MAX;
use super::{Rejected, Witness};

/// Type of a refusal that says the latest size (C2SP tlog-witness).
pub const SIZE_TYPE: &str = "text/x.tlog.size";
/// How long the head of a request may take to arrive.
const HEAD_WITHIN: Duration = Duration::from_secs(5);
/// How long its body may take.
const BODY_WITHIN: Duration = Duration::from_secs(10);
/// Threads that serve. The witness does one thing at a time.
const WORKERS: usize = 1;
/// How long a stop waits for requests that are being served, in seconds.
const DRAIN_S: u64 = 10;

/// A witness that serves.
#[derive(Debug)]
pub struct Serving {
    address: SocketAddr,
    scheme: &'static str,
    handle: ServerHandle,
    serving: JoinHandle<io::Result<()>>,
}

impl Serving {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its submission prefix: what `/add-checkpoint` is appended to.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// Finishes what is being served and stops.
    ///
    /// # Errors
    ///
    /// Any of the server itself.
    pub async fn stop(self) -> io::Result<()> {
        self.handle.stop(true).await;
        self.serving.await.map_err(io::Error::other)?
    }
}

/// Serves `witness` on the current actix system, with TLS if it is given.
///
/// # Errors
///
/// If the address cannot be listened on.
pub fn serve(
    witness: Arc<Witness>,
    listen: SocketAddr,
    tls: Option<ServerConfig>,
) -> io::Result<Serving> {
    let witness = Data::from(witness);
    let factory = move || {
        App::new()
            .app_data(witness.clone())
            .app_data(web::PayloadConfig::new(REQUEST_MAX))
            .service(web::resource("/add-checkpoint").post(add_checkpoint))
            .default_service(web::to(nothing_here))
    };
    let server = HttpServer::new(factory)
        .workers(WORKERS)
        .shutdown_timeout(DRAIN_S)
        .client_request_timeout(HEAD_WITHIN)
        .disable_signals();
    let (server, scheme) = match tls {
        Some(tls) => (server.bind_rustls_0_23(listen, tls)?, "https"),
        None => (server.bind(listen)?, "http"),
    };
    let address = server.addrs().first().copied().unwrap_or(listen);
    let server = server.run();
    let handle = server.handle();
    Ok(Serving { address, scheme, handle, serving: actix_web::rt::spawn(server) })
}

async fn nothing_here() -> HttpResponse {
    plain(StatusCode::NOT_FOUND, "there is only POST /add-checkpoint here\n".to_owned())
}

async fn add_checkpoint(
    witness: Data<Witness>,
    request: HttpRequest,
    payload: web::Payload,
) -> HttpResponse {
    let mut payload: Payload = payload.into_inner();
    let body = Bytes::from_request(&request, &mut payload);
    let Ok(body) = tokio::time::timeout(BODY_WITHIN, body).await else {
        return plain(StatusCode::REQUEST_TIMEOUT, "the body did not arrive\n".to_owned());
    };
    let body = match body {
        Ok(body) => body,
        Err(error) => {
            let status = error.as_response_error().status_code();
            return plain(status, "the body is too long or ended early\n".to_owned());
        }
    };
    match web::block(move || witness.add_checkpoint(&body)).await {
        Ok(Ok(cosignature)) => plain(StatusCode::OK, cosignature),
        Ok(Err(rejected)) => refusal(&rejected),
        Err(_) => plain(StatusCode::INTERNAL_SERVER_ERROR, "stopping\n".to_owned()),
    }
}

fn refusal(rejected: &Rejected) -> HttpResponse {
    let status = match rejected {
        Rejected::BadRequest(_) => StatusCode::BAD_REQUEST,
        Rejected::NotSigned => StatusCode::FORBIDDEN,
        Rejected::UnknownLog => StatusCode::NOT_FOUND,
        Rejected::Conflict { .. } => StatusCode::CONFLICT,
        Rejected::Inconsistent => StatusCode::UNPROCESSABLE_ENTITY,
        Rejected::Failed(error) => {
            tracing::error!(%error, "a checkpoint could not be kept, and was not cosigned");
            StatusCode::INTERNAL_SERVER_ERROR
        }
    };
    if let Rejected::Conflict { size } = rejected {
        return HttpResponse::Conflict().content_type(SIZE_TYPE).body(format!("{size}\n"));
    }
    tracing::info!(status = status.as_u16(), %rejected, "not cosigned");
    plain(status, format!("{rejected}\n"))
}

fn plain(status: StatusCode, text: String) -> HttpResponse {
    HttpResponse::build(status).content_type(ContentType::plaintext()).body(text)
}
