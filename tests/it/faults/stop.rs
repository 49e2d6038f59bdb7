//! A second server, and the orderly end of one.

use std::io::{Read, Write};
use std::net::TcpStream;

use api::device::ActivationOptions;
use engine::reasons::OperationState;
use serde_json::{Value, json};

use crate::client::{Answer, Request, connect};
use crate::http::world::{World, verified};
use crate::server::Launch;

#[test]
fn a_second_server_on_the_same_folder_is_refused_and_the_first_goes_on() {
    let world = World::start();
    let records = world.side().status().records;
    let Err((status, said)) = Launch::on(&world.data()).try_start() else {
        panic!("two servers write to one log");
    };
    assert_eq!(status.code(), Some(1));
    let line = said.lines().find(|line| line.starts_with("keytrail: cannot open")).unwrap();
    assert!(line.contains(world.data().to_str().unwrap()), "{line}");
    assert!(line.contains("another keytrail runs"), "it says why: {line}");
    assert_eq!(world.side().status().records, records);
    world.side().request_activation();
    world.stop_and_verify();
}

/// Sends the head of a request and waits until the server has read it and wants the body.
fn begun(world: &World, request: &Request) -> TcpStream {
    let mut stream = connect(world.address());
    let request = request.clone().header("Expect", "100-continue");
    stream.write_all(&request.head()).unwrap();
    let mut interim = [0; 25];
    stream.read_exact(&mut interim).unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream
}

#[test]
fn a_server_that_is_told_to_stop_finishes_what_it_has_begun() {
    let world = World::start();
    let phone = world.side().phone(&ActivationOptions::default());
    let body = json!({ "registration_id": phone.registration_id(), "level": "ONE_FACTOR" });
    let request = Request::post("/v1/operations", &body).by(&world.callers.bank);
    let begun: Vec<_> = (0..3).map(|_| begun(&world, &request)).collect();

    world.server.terminate();
    world.server.wait_for("finishing the requests that are being served");
    let mut created = Vec::new();
    for mut stream in begun {
        stream.write_all(&request.body).unwrap();
        let answer = Answer::read(&mut stream, false).unwrap();
        crate::contract::check(&request, &answer);
        created.push(answer.ok::<Value>()["operation_id"].clone());
    }
    let data = world.data();
    let World { server, home, callers } = world;
    let launch = Launch::on(&data);
    let (status, said) = server.ended();
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(said.contains("stopped"), "{said}");

    let world = crate::http::world::again(&launch, &callers, home);
    for id in created {
        let id = id.as_str().unwrap().parse().unwrap();
        assert_eq!(world.side().seen_operation(id).state, OperationState::Pending);
    }
    world.stop_and_verify();
}

#[test]
fn told_twice_it_stops_at_once_and_nothing_that_was_answered_is_lost() {
    let world = World::start();
    let phone = world.side().phone(&ActivationOptions::default());
    let operation = world.side().operation(&phone).operation_id;
    let hanging =
        begun(&world, &Request::post("/v1/operations", &json!({})).by(&world.callers.bank));
    world.server.terminate();
    world.server.wait_for("finishing the requests that are being served");
    world.server.terminate();
    let data = world.data();
    let World { server, home, callers } = world;
    let (status, said) = server.ended();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("told twice to stop"), "{said}");
    drop(hanging);

    let world = crate::http::world::again(&Launch::on(&data), &callers, home);
    assert_eq!(world.side().seen_operation(operation).state, OperationState::Pending);
    world.stop_and_verify();
}

#[test]
fn a_server_that_nobody_calls_stops_at_once_and_its_folder_verifies() {
    let world = World::start();
    let data = world.data();
    // Connections that stay open and say nothing hold nothing up.
    let idle: Vec<_> = (0..3).map(|_| connect(world.address())).collect();
    world.server.stop();
    drop(idle);
    verified(&data);
}
