//! `/healthz`: the process answers. `/readyz`: send it requests.

use actix_web::HttpResponse;
use actix_web::web::{Data, Json};
use serde::Serialize;
use utoipa::ToSchema;

use crate::http::edge::{Edge, Phase};
use crate::problem::{ApiError, Code, Problem};

/// The state of the server.
#[derive(Debug, Serialize, ToSchema)]
pub struct Health {
    /// Always `ok`: what is not well is answered with a problem.
    #[schema(example = "ok")]
    pub status: &'static str,
}

/// Says that the process is alive.
///
/// Answers as long as the process can answer anything; restart it when it does
/// not. Says nothing about the store.
#[utoipa::path(
    get, path = "/healthz", tag = "health", operation_id = "healthz", security(()),
    responses((status = 200, description = "The process is alive.", body = Health)),
)]
pub async fn healthz() -> Json<Health> {
    Json(Health { status: "ok" })
}

/// Says whether the server takes requests.
///
/// 503 while it recovers its store and from the moment it is told to stop, so
/// that a load balancer sends requests elsewhere.
#[utoipa::path(
    get, path = "/readyz", tag = "health", operation_id = "readyz", security(()),
    responses(
        (status = 200, description = "The server takes requests.", body = Health),
        (status = 503, description = "It is starting or stopping: `unavailable`.",
            body = Problem, content_type = "application/problem+json"),
    ),
)]
pub async fn readyz(edge: Data<Edge>) -> Result<HttpResponse, ApiError> {
    match edge.phase() {
        Phase::Ready => Ok(HttpResponse::Ok().json(Health { status: "ok" })),
        Phase::Starting => {
            Err(ApiError::new(Code::Unavailable).detail("starting").retry_after_s(1))
        }
        Phase::Draining => Err(ApiError::new(Code::Unavailable).detail("stopping")),
    }
}
