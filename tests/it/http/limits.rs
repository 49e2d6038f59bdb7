//! Failures that need a server made for them: a slow body, a store that is not
//! open, a handler that panics, all on the server's own layers.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use actix_web::HttpResponse;
use actix_web::web::{self, Data, ServiceConfig};
use api::app::Slot;
use api::http::body::Body;
use api::http::edge::{Edge, Peers, Phase, RequestLimits};
use api::ports::{SystemClock, SystemEntropy};
use api::settings::Settings;
use serde_json::{Value, json};

use crate::client::{Answer, Request, assert_problem, connect};
use crate::contract;

/// A server without a store.
struct Bare {
    address: SocketAddr,
    stop: tokio::sync::oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Bare {
    /// With bodies that have to arrive within `body_s` seconds.
    fn start(body_s: u64, phase: Phase) -> Self {
        let (tell, told) = mpsc::channel();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let thread = std::thread::spawn(move || {
            actix_web::rt::System::new().block_on(async move {
                let settings = Settings {
                    listen: SocketAddr::from(([127, 0, 0, 1], 0)),
                    workers: 1,
                    ..Settings::default()
                };
                let limits = RequestLimits { request_bytes_max: 65_536, body_s_max: body_s };
                let (clock, entropy) = (Arc::new(SystemClock::start()), Arc::new(SystemEntropy));
                let edge = Data::new(Edge::new(clock, entropy, limits, Peers::Direct));
                edge.enter(phase);
                let running = api::server::start(&settings, edge, routes).unwrap();
                tell.send(running.address()).unwrap();
                stopped.await.unwrap();
                running.stop().await.unwrap();
            });
        });
        Self { address: told.recv().unwrap(), stop, thread }
    }

    fn stop(self) {
        self.stop.send(()).unwrap();
        self.thread.join().unwrap();
    }
}

/// Everything over a store that is not there, and what reads or panics without one.
fn routes(config: &mut ServiceConfig) {
    async fn reads(body: Body<Value>) -> HttpResponse {
        HttpResponse::Conflict().json(body.value)
    }
    async fn panics() -> HttpResponse {
        panic!("the secret reason")
    }
    let slot = Data::new(Slot::default());
    config
        .route("/reads", web::post().to(reads))
        .route("/panics", web::get().to(panics))
        .app_data(slot)
        .configure(api::handlers::configure);
}

#[test]
fn a_body_that_does_not_arrive_in_time_is_a_request_timeout() {
    // No time at all: what is not there when the head is, is late.
    let server = Bare::start(0, Phase::Ready);
    let request = Request::post("/reads", &json!({ "a": 1 }));
    let mut stream = connect(server.address);
    stream.write_all(&request.head()).unwrap();
    let answer = Answer::read(&mut stream, false).unwrap();
    contract::check(&request, &answer);
    assert_problem(&answer, 408, "request_timeout");
    assert_eq!(Request::get("/healthz").send(server.address).status, 200);
    server.stop();
}

#[test]
fn a_server_that_is_still_starting_answers_503_to_all_but_health() {
    let server = Bare::start(10, Phase::Starting);
    let mut seen = 0;
    for (method, path) in contract::operations() {
        let path = path.replace("{id}", "018bcfe5-6800-7fff-bfff-0123456789ab");
        let request = Request::new(&method, &path);
        let request = if method == "GET" { request } else { request.json(&json!({})) };
        let answer = request.send(server.address);
        if ["/healthz", "/openapi.json", "/problems/{code}"].contains(&path.as_str()) {
            assert!(answer.status < 500, "{path}");
        } else {
            seen += 1;
            assert_problem(&answer, 503, "unavailable");
            assert_eq!(answer.header("retry-after"), Some("1"), "{path}");
            assert_eq!(answer.value()["detail"], "starting");
        }
    }
    assert!(seen > 20, "{seen}");
    server.stop();
}

#[test]
fn a_handler_that_panics_answers_500_without_a_word_of_why_and_the_worker_goes_on() {
    let server = Bare::start(10, Phase::Ready);
    for _ in 0..3 {
        let answer = Request::get("/panics").send(server.address);
        assert_problem(&answer, 500, "internal_error");
        assert!(!answer.text().contains("secret reason"), "{}", answer.text());
        assert_eq!(answer.value().get("detail"), None);
    }
    server.stop();
}
