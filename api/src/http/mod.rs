//! What surrounds every handler: correlation, problems, panics, access log.
//!
//! [`configure`] adds the routes; [`around`] is the outermost layer. Together
//! they promise, for each request that the HTTP parser could read:
//! - the answer carries `X-Correlation-Id`, the caller's own if it is sane;
//! - a failure of any kind is a problem document ([`crate::problem`]);
//! - a panic is an answer too, and the worker goes on;
//! - one access log line, without query, body, header or path parameter.

pub mod body;
pub mod correlation;
pub mod edge;
pub mod health;
pub mod idempotency;
pub mod source;

use std::any::Any;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;

use actix_web::body::{BoxBody, EitherBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::error::InternalError;
use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::middleware::Next;
use actix_web::web::{self, Data, ServiceConfig};
use actix_web::{Error, HttpMessage, HttpResponse};
use engine::ids::Micros;

use crate::http::correlation::Correlation;
use crate::http::edge::Edge;
use crate::problem::{ApiError, Code, render};

/// Adds everything a server answers, for `serve` and for tests alike.
pub fn configure(config: &mut ServiceConfig, edge: &Data<Edge>) {
    config
        .app_data(edge.clone())
        .app_data(web::PayloadConfig::new(edge.limits.request_bytes_max))
        .app_data(web::PathConfig::default().error_handler(|_, _| unreadable("path")))
        .app_data(web::QueryConfig::default().error_handler(|_, _| unreadable("query")))
        .service(web::resource("/healthz").get(health::healthz))
        .service(web::resource("/readyz").get(health::readyz))
        .service(web::resource("/openapi.json").get(crate::openapi::openapi_json))
        .service(web::resource("/problems/{code}").get(crate::openapi::problem_code));
}

/// What was sent there is not repeated: it may be anything.
fn unreadable(part: &str) -> Error {
    ApiError::new(Code::BadRequest).detail(format!("the {part} cannot be read")).into()
}

/// The outermost layer around all handlers.
///
/// # Errors
///
/// What failed before it made an answer, as an error that holds the whole answer.
pub async fn around<B: MessageBody>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B, BoxBody>>, Error> {
    let edge = Edge::of(request.request());
    let began = edge.clock.monotonic();
    let correlation = Correlation::of(&request, &edge);
    request.extensions_mut().insert(correlation.clone());
    // No clone of the request is held meanwhile: the router needs it for itself.
    let method = request.method().clone();

    let error = match caught(next.call(request)).await {
        Ok(Ok(answer)) => {
            let mut answer = finished(answer, &correlation);
            stamp(answer.headers_mut(), &correlation);
            let route = answer.request().match_pattern();
            let took = took_us(began, &edge);
            log_access(&method, route.as_deref(), answer.status(), took, &correlation);
            return Ok(answer);
        }
        Ok(Err(error)) => error,
        Err(panic) => ApiError::new(Code::Internal).cause(panic_text(&*panic)).into(),
    };
    // The request is gone with what failed, so the framework takes the answer as an error.
    let mut answer = problem_of(&error, &correlation);
    stamp(answer.headers_mut(), &correlation);
    log_access(&method, None, answer.status(), took_us(began, &edge), &correlation);
    Err(InternalError::from_response("request failed", answer).into())
}

fn took_us(began: Micros, edge: &Edge) -> u64 {
    edge.clock.monotonic().0.saturating_sub(began.0)
}

/// Runs a handler; a panic in it comes back as its payload.
async fn caught<F: Future>(handler: F) -> Result<F::Output, Box<dyn Any + Send>> {
    let mut handler = pin!(handler);
    poll_fn(|context| {
        // What panicked is dropped unpolled; nothing it half-changed is shared but
        // through locks, and those are held for whole assignments only.
        let polled = catch_unwind(AssertUnwindSafe(|| handler.as_mut().poll(context)));
        match polled {
            Ok(poll) => poll.map(Ok),
            Err(panic) => std::task::Poll::Ready(Err(panic)),
        }
    })
    .await
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("panic: {}", text.unwrap_or("of no text"))
}

/// An answer of the application; a failed one gets its problem document.
fn finished<B: MessageBody>(
    answer: ServiceResponse<B>,
    correlation: &Correlation,
) -> ServiceResponse<EitherBody<B, BoxBody>> {
    if answer.status().is_client_error() || answer.status().is_server_error() {
        let problem = match answer.response().error() {
            Some(error) => problem_of(error, correlation),
            None => render(&Code::of_status(answer.status()).into(), correlation.text()),
        };
        let allow = answer.headers().get(header::ALLOW).cloned();
        let mut answer = answer.into_response(problem.map_into_right_body());
        if let Some(allow) = allow {
            answer.headers_mut().insert(header::ALLOW, allow);
        }
        answer
    } else {
        answer.map_into_left_body()
    }
}

/// The problem document of an error, ours or the framework's; logs a server's fault.
fn problem_of(error: &Error, correlation: &Correlation) -> HttpResponse {
    let own = error.as_error::<ApiError>();
    let status = error.as_response_error().status_code();
    if status == StatusCode::INTERNAL_SERVER_ERROR {
        let cause = own.and_then(ApiError::why).map_or_else(|| error.to_string(), chain_text);
        tracing::error!(correlation = correlation.text(), cause, "request failed");
    }
    match own {
        Some(own) => render(own, correlation.text()),
        None => render(&Code::of_status(status).into(), correlation.text()),
    }
}

/// An error and its causes, one line.
fn chain_text(error: &(dyn std::error::Error + Send + Sync + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// The headers that every answer carries.
fn stamp(headers: &mut HeaderMap, correlation: &Correlation) {
    headers.insert(HeaderName::from_static(correlation::HEADER), correlation.header());
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
}

/// `route` is the pattern, never the path: what stands in a path may be anything.
fn log_access(
    method: &Method,
    route: Option<&str>,
    status: StatusCode,
    took_us: u64,
    correlation: &Correlation,
) {
    tracing::info!(
        target: "access",
        method = known_method(method),
        route = route.unwrap_or("-"),
        status = status.as_u16(),
        took_us,
        correlation = correlation.text(),
    );
}

/// The method if it is a registered one: others may be text of the caller's making.
fn known_method(method: &Method) -> &str {
    match method.as_str() {
        known @ ("GET" | "HEAD" | "POST" | "PUT" | "DELETE" | "PATCH" | "OPTIONS") => known,
        _ => "-",
    }
}

#[cfg(test)]
mod tests;
