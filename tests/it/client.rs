//! HTTP by hand: every octet of request and answer is the test's own.
//!
//! Each request has its connection. Every answer that comes back is held to the
//! promises that all answers share and to the OpenAPI document
//! ([`crate::contract`]), so a test need not repeat them.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::contract;

/// No answer of a healthy server takes this long; only a broken one meets it.
const PATIENCE: Duration = Duration::from_secs(60);

/// A request to be sent.
#[derive(Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

/// What came back.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// In the order they came, names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn new(method: &str, path: &str) -> Self {
        let (method, path) = (method.to_owned(), path.to_owned());
        Self { method, path, headers: Vec::new(), body: Vec::new() }
    }

    pub(crate) fn get(path: &str) -> Self {
        Self::new("GET", path)
    }

    pub(crate) fn post(path: &str, body: &impl Serialize) -> Self {
        Self::new("POST", path).json(body)
    }

    pub(crate) fn json(self, body: &impl Serialize) -> Self {
        let text = serde_json::to_vec(body).unwrap();
        self.header("Content-Type", "application/json").octets(&text)
    }

    pub(crate) fn octets(mut self, body: &[u8]) -> Self {
        self.body = body.to_vec();
        self
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With an API key in its Bearer form.
    pub(crate) fn by(self, key: &str) -> Self {
        self.header("Authorization", &format!("Bearer {key}"))
    }

    /// Under an idempotency key.
    pub(crate) fn once(self, key: &str) -> Self {
        self.header("Idempotency-Key", key)
    }

    /// Sends it and holds the answer to what all answers promise.
    #[track_caller]
    pub(crate) fn send(&self, to: SocketAddr) -> Answer {
        let mut stream = connect(to);
        stream.write_all(&self.octets_on_the_wire()).unwrap();
        let answer = Answer::read(&mut stream, self.method == "HEAD");
        let answer = answer.unwrap_or_else(|| panic!("{} {}: no answer", self.method, self.path));
        contract::check(self, &answer);
        answer
    }

    /// Head and body.
    pub(crate) fn octets_on_the_wire(&self) -> Vec<u8> {
        let mut octets = self.head();
        octets.extend_from_slice(&self.body);
        octets
    }

    /// The head, which announces the whole body.
    pub(crate) fn head(&self) -> Vec<u8> {
        let Self { method, path, headers, body } = self;
        let mut head =
            format!("{method} {path} HTTP/1.1\r\nHost: keytrail\r\nConnection: close\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let announced = headers.iter().any(|(name, _)| {
            name.eq_ignore_ascii_case("content-length")
                || name.eq_ignore_ascii_case("transfer-encoding")
        });
        if !announced && (!body.is_empty() || method == "POST") {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        head.into_bytes()
    }
}

impl Answer {
    /// Reads one answer to the end of the connection; none if there is none.
    pub(crate) fn read(stream: &mut TcpStream, head_only: bool) -> Option<Self> {
        let mut octets = Vec::new();
        // A reset after the answer is no less an end than a clean one.
        let ended = stream.read_to_end(&mut octets);
        if let Err(error) = &ended {
            let timed_out = error.kind() == std::io::ErrorKind::WouldBlock;
            assert!(!timed_out, "the connection neither answers nor ends");
        }
        Self::parse(&octets, head_only)
    }

    /// Parses a whole answer; none if it is not one.
    pub(crate) fn parse(octets: &[u8], head_only: bool) -> Option<Self> {
        let end = octets.windows(4).position(|four| four == b"\r\n\r\n")?;
        let head = std::str::from_utf8(&octets[..end]).ok()?;
        let mut lines = head.split("\r\n");
        let status = lines.next()?.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
        let headers = lines
            .map(|line| line.split_once(':'))
            .map(|pair| pair.map(|(name, value)| (name.to_lowercase(), value.trim().to_owned())))
            .collect::<Option<Vec<_>>>()?;
        let answer = Self { status, headers, body: octets[end + 4..].to_vec() };
        let announced = answer.header("content-length").map(|length| length.parse().unwrap());
        if !head_only {
            assert_eq!(announced.unwrap_or(0), answer.body.len(), "{head}");
        }
        Some(answer)
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let named = self.headers.iter().find(|(sent, _)| sent == name);
        named.map(|(_, value)| value.as_str())
    }

    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let named = self.headers.iter().filter(move |(sent, _)| sent == name);
        named.map(|(_, value)| value.as_str())
    }

    #[track_caller]
    pub(crate) fn value(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| {
            panic!("{error}: {} {:?}", self.status, String::from_utf8_lossy(&self.body))
        })
    }

    /// The body of a success.
    #[track_caller]
    pub(crate) fn ok<T: DeserializeOwned>(&self) -> T {
        assert!((200..300).contains(&self.status), "{} {}", self.status, self.text());
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The code of a problem, with its status.
    #[track_caller]
    pub(crate) fn problem(&self) -> (u16, String) {
        let problem = self.value();
        let code = problem["code"].as_str().unwrap_or_else(|| panic!("no problem: {problem}"));
        (self.status, code.to_owned())
    }

    /// What is wrong with which members.
    pub(crate) fn pointers(&self) -> Vec<(String, String)> {
        let problem = self.value();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let errors = problem["errors"].as_array().into_iter().flatten();
        errors.map(|error| (text(&error["pointer"]), text(&error["detail"]))).collect()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A connection that no healthy server keeps silent on.
pub(crate) fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

#[track_caller]
pub(crate) fn assert_problem(answer: &Answer, status: u16, code: &str) {
    assert_eq!(answer.problem(), (status, code.to_owned()), "{}", answer.text());
}

/// What a failure says, but for what differs from request to request.
pub(crate) fn said(answer: &Answer) -> (u16, BTreeSet<(String, String)>, Value) {
    let varies = |name: &str| name == "x-correlation-id" || name == "date";
    let headers = answer.headers.iter().filter(|(name, _)| !varies(name)).cloned().collect();
    let mut body = answer.value();
    body["instance"] = Value::Null;
    (answer.status, headers, body)
}
