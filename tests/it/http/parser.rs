//! What is no HTTP at all gets a sane answer or a closed connection, and the
//! server lives on.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};

use serde_json::json;

use super::world::World;
use crate::client::{Request, connect};

/// Sends octets as they are and reads to the end of the connection.
fn answer_to(address: SocketAddr, octets: &[u8]) -> Vec<u8> {
    let mut stream = connect(address);
    // The server may hang up before everything is sent.
    drop(stream.write_all(octets));
    drop(stream.shutdown(Shutdown::Write));
    let mut answer = Vec::new();
    if let Err(error) = stream.read_to_end(&mut answer) {
        assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock, "neither answer nor end");
    }
    answer
}

#[test]
fn garbage_gets_a_client_error_or_the_end_of_the_connection() {
    let world = World::start();
    let address = world.address();
    let long_header =
        format!("GET /healthz HTTP/1.1\r\nHost: a\r\nX-Long: {}\r\n\r\n", "x".repeat(1 << 20));
    let many: String = (0..500).map(|n| format!("X-{n}: 1\r\n")).collect();
    let many = format!("GET /healthz HTTP/1.1\r\nHost: a\r\n{many}\r\n");
    let long_path = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(1 << 20));
    let post = "POST /device/v1/operations/start HTTP/1.1\r\nHost: a\r\n";
    for octets in [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        b"\0\0\0\0\r\n\r\n".to_vec(),
        b"\r\n\r\n\r\n".to_vec(),
        b"GET\r\n\r\n".to_vec(),
        b"GET /healthz\r\n\r\n".to_vec(),
        b"GET /healthz HTTP/9.9\r\n\r\n".to_vec(),
        b"GET /a b HTTP/1.1\r\n\r\n".to_vec(),
        b"GET /healthz HTTP/1.1\r\nno colon\r\n\r\n".to_vec(),
        b"GET /healthz HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n".to_vec(),
        b"GET /\xff\xfe HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
        b"GET /%ff%fe HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".to_vec(),
        b"GET /problems/%00 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".to_vec(),
        format!("{post}Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef").into_bytes(),
        format!("{post}Content-Length: -1\r\n\r\n").into_bytes(),
        format!("{post}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
            .into_bytes(),
        format!("{post}Transfer-Encoding: chunked\r\n\r\nzz\r\n").into_bytes(),
        format!("{post}Transfer-Encoding: gzip\r\n\r\n").into_bytes(),
        long_header.into_bytes(),
        many.into_bytes(),
        long_path.into_bytes(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
    ] {
        let answer = answer_to(address, &octets);
        let shown = String::from_utf8_lossy(&octets[..octets.len().min(60)]).into_owned();
        let line = String::from_utf8_lossy(&answer[..answer.len().min(12)]).into_owned();
        let sane = answer.is_empty() || line.starts_with("HTTP/1.1 4");
        assert!(sane, "{shown:?} -> {:?}", String::from_utf8_lossy(&answer));
        assert!(!String::from_utf8_lossy(&answer).contains("src/"), "no place in the source");
        assert_eq!(Request::get("/healthz").send(address).status, 200, "after {shown:?}");
    }
    let status = world.side().status();
    assert_eq!(status.commands_failed, 0);
    assert!(!world.server.said().contains("panicked"), "{}", world.server.said());
}

#[test]
fn a_second_request_cannot_be_smuggled_behind_the_first() {
    let world = World::start();
    let address = world.address();
    // Two lengths: whoever believes the other one sees a second request.
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let octets = format!(
        "POST /device/v1/operations/start HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\
         Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}",
        5 + smuggled.len(),
    );
    let answer = String::from_utf8_lossy(&answer_to(address, octets.as_bytes())).into_owned();
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
}

#[test]
fn a_head_that_never_ends_is_cut_off() {
    let world = World::start();
    let mut stream = connect(world.address());
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\nX-").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
}

#[test]
fn head_is_refused_like_any_method_that_is_not_documented() {
    let world = World::start();
    for path in ["/healthz", "/openapi.json", "/v1/operations/x", "/nowhere"] {
        let answer = world.send(&Request::new("HEAD", path));
        let status = if path == "/nowhere" { 404 } else { 405 };
        assert_eq!((answer.status, answer.body.len()), (status, 0), "{path}");
    }
    let body = json!({ "role": "AUDITOR", "name": "a" });
    let head = Request::new("HEAD", "/admin/v1/api-keys").json(&body);
    assert_eq!(world.send(&head.by(&world.callers.administrator)).status, 405);
}
