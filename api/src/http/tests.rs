use std::sync::Arc;

use actix_web::body::to_bytes;
use actix_web::http::StatusCode;
use actix_web::middleware::from_fn;
use actix_web::web::{self, Data};
use actix_web::{App, test};
use serde_json::Value;

use super::edge::{Edge, Peers, Phase, RequestLimits};
use super::{around, configure};
use crate::ports::{SystemClock, SystemEntropy};

fn edge(phase: Phase) -> Data<Edge> {
    let limits = RequestLimits { request_bytes_max: 1024, body_s_max: 10 };
    let clock = Arc::new(SystemClock::start());
    let edge = Edge::new(clock, Arc::new(SystemEntropy), limits, Peers::Direct);
    edge.enter(phase);
    Data::new(edge)
}

async fn panics() -> &'static str {
    panic!("the secret reason")
}

/// Status, correlation header and JSON body of the answer to one GET.
async fn get(phase: Phase, path: &str, correlation: &str) -> (StatusCode, String, Value) {
    let shared = edge(phase);
    let app = App::new()
        .configure(|config| configure(config, &shared))
        .route("/panics", web::get().to(panics))
        .wrap(from_fn(around));
    let app = test::init_service(app).await;
    let request =
        test::TestRequest::get().uri(path).insert_header((super::correlation::HEADER, correlation));
    let (status, headers, body) = match test::try_call_service(&app, request.to_request()).await {
        Ok(answer) => {
            let (status, headers) = (answer.status(), answer.headers().clone());
            (status, headers, test::read_body(answer).await)
        }
        Err(error) => {
            let answer = error.error_response();
            let (status, headers) = (answer.status(), answer.headers().clone());
            (status, headers, to_bytes(answer.into_body()).await.unwrap())
        }
    };
    let id = headers.get(super::correlation::HEADER).unwrap().to_str().unwrap().to_owned();
    (status, id, serde_json::from_slice(&body).unwrap())
}

#[actix_web::test]
async fn readiness_follows_the_phase_and_liveness_does_not() {
    for (phase, status) in [(Phase::Starting, 503), (Phase::Ready, 200), (Phase::Draining, 503)] {
        assert_eq!(get(phase, "/readyz", "order-4711").await.0.as_u16(), status, "{phase:?}");
        assert_eq!(get(phase, "/healthz", "order-4711").await.0.as_u16(), 200, "{phase:?}");
    }
}

#[actix_web::test]
async fn the_callers_correlation_id_comes_back_only_if_it_is_sane() {
    assert_eq!(get(Phase::Ready, "/healthz", "order-4711").await.1, "order-4711");
    assert_eq!(get(Phase::Ready, "/healthz", "a_b").await.1.len(), 36);
}

#[actix_web::test]
async fn an_unknown_path_is_a_problem_document() {
    let (status, id, problem) = get(Phase::Ready, "/nowhere", "order-4711").await;
    assert_eq!((status, id.as_str()), (StatusCode::NOT_FOUND, "order-4711"));
    assert_eq!(problem["code"], "not_found");
}

#[actix_web::test]
async fn a_panic_is_a_problem_that_does_not_say_why() {
    let (status, id, problem) = get(Phase::Ready, "/panics", "order-4711").await;
    assert_eq!(id, "order-4711");
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(!problem.to_string().contains("secret reason"));
}
