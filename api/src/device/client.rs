//! A small HTTP client: JSON out, JSON in, everything bounded.
//!
//! It blocks and needs no runtime. Proxies of the environment are not used and
//! redirections not followed: what is sent are secrets, for one server.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use ureq::http::{Method, Request, Response, Uri, header};
use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsProvider};
use ureq::{Agent, Body};
use zeroize::Zeroizing;

use super::text::printable;

/// Most bytes of an answer that are read. A challenge with the longest context
/// and data to sign has under 50 KiB; lists of events are longer.
const ANSWER_MAX: u64 = 4 * 1024 * 1024;
/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// Longest wait for a whole answer.
const WHOLE: Duration = Duration::from_secs(30);
/// Most characters of a server's text that are repeated.
const TEXT_MAX: usize = 1_000;

/// Calls one server. Cheap to clone; connections are kept and shared.
#[derive(Debug, Clone)]
pub struct Client {
    server: String,
    agent: Agent,
}

/// Why there is no answer to use.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Not the URL of a server.
    #[error("{0:?} is not a server's URL, such as http://127.0.0.1:8080")]
    Address(String),
    /// HTTPS to a server, and nobody whose certificates to trust.
    #[error("https needs --ca FILE: the certificate authorities to trust, in PEM form")]
    NoAuthority,
    /// The file has no certificates that can be read.
    #[error("{} holds no certificates in PEM form that can be used", .0.display())]
    Authority(PathBuf),
    /// No connection, or it broke off. Whether the request was acted on is not known.
    #[error("no answer from {server}")]
    Unreachable {
        /// The server.
        server: String,
        /// What happened.
        #[source]
        cause: Box<ureq::Error>,
    },
    /// The server refused, and said why.
    #[error(transparent)]
    Refused(Box<Refusal>),
    /// The answer is longer than anything that was asked for.
    #[error("the server's answer (status {status}) is longer than {ANSWER_MAX} bytes")]
    TooLong {
        /// Its HTTP status.
        status: u16,
    },
    /// The answer is not what the interface says.
    #[error("the server's answer (status {status}) cannot be understood: {why}")]
    NotUnderstood {
        /// Its HTTP status.
        status: u16,
        /// What is wrong with it; never a part of it.
        why: String,
    },
}

/// A problem document (RFC 9457), as far as a client needs it. Texts are safe
/// to print.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// The stable code.
    pub code: String,
    /// What is wrong with this request.
    pub detail: Option<String>,
    /// What is wrong with its members: where, and what.
    pub errors: Vec<(String, String)>,
    /// When to try again, in seconds.
    pub retry_after_s: Option<u64>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the server refused: {} ({})", self.code, self.status)?;
        if let Some(detail) = &self.detail {
            write!(f, ": {detail}")?;
        }
        for (pointer, detail) in &self.errors {
            write!(f, "; {pointer}: {detail}")?;
        }
        match self.retry_after_s {
            Some(seconds) => write!(f, "; try again in {seconds} s"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Refusal {}

impl ClientError {
    /// The refusal, if the server gave one.
    #[must_use]
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            Self::Address(_)
            | Self::NoAuthority
            | Self::Authority(_)
            | Self::Unreachable { .. }
            | Self::TooLong { .. }
            | Self::NotUnderstood { .. } => None,
        }
    }
}

impl Client {
    /// A client for the server at `server` (`http://host:port` or `https://…`,
    /// with a path if there is one in front of its own). For HTTPS, `ca` is a PEM
    /// file of the authorities to trust; no others are.
    ///
    /// # Errors
    ///
    /// [`ClientError::Address`], [`ClientError::NoAuthority`],
    /// [`ClientError::Authority`].
    pub fn new(server: &str, ca: Option<&Path>) -> Result<Self, ClientError> {
        let server = server.trim_end_matches('/');
        let product = concat!("keytrail-device/", env!("CARGO_PKG_VERSION"));
        let agent = agent(server, ca, product, WHOLE)?;
        Ok(Self { server: server.to_owned(), agent })
    }

    /// The server's URL, without a slash at its end.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.server
    }

    /// Posts `body` to `path`, which begins with a slash. `credential` is
    /// an API key in its Bearer form, `kt_…`.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn post<B: Serialize, A: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
        credential: Option<&str>,
    ) -> Result<A, ClientError> {
        self.call(Method::POST, path, Some(&json(body)), credential)
    }

    /// Posts JSON octet for octet; else as [`Client::post`].
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn post_octets<A: DeserializeOwned>(
        &self,
        path: &str,
        octets: &[u8],
        credential: Option<&str>,
    ) -> Result<A, ClientError> {
        self.call(Method::POST, path, Some(octets), credential)
    }

    /// Patches what is at `path` with `body`; else as [`Client::post`].
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn patch<B: Serialize, A: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
        credential: Option<&str>,
    ) -> Result<A, ClientError> {
        self.call(Method::PATCH, path, Some(&json(body)), credential)
    }

    /// Gets what is at `path`; else as [`Client::post`].
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn get<A: DeserializeOwned>(
        &self,
        path: &str,
        credential: Option<&str>,
    ) -> Result<A, ClientError> {
        self.call(Method::GET, path, None, credential)
    }

    /// Deletes what is at `path`; else as [`Client::post`].
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn delete<A: DeserializeOwned>(
        &self,
        path: &str,
        credential: Option<&str>,
    ) -> Result<A, ClientError> {
        self.call(Method::DELETE, path, None, credential)
    }

    fn call<A: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&[u8]>,
        credential: Option<&str>,
    ) -> Result<A, ClientError> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.server))
            .header(header::ACCEPT, "application/json, application/problem+json");
        if let Some(credential) = credential {
            request = request.header(header::AUTHORIZATION, format!("Bearer {credential}"));
        }
        let sent = match body {
            Some(body) => request
                .header(header::CONTENT_TYPE, "application/json")
                .body(body)
                .map_err(ureq::Error::from)
                .and_then(|request| self.agent.run(request)),
            None => request
                .body(())
                .map_err(ureq::Error::from)
                .and_then(|request| self.agent.run(request)),
        };
        understand(self.read(sent)?)
    }

    /// Status, Retry-After and body of an answer.
    fn read(&self, sent: Result<Response<Body>, ureq::Error>) -> Result<Answer, ClientError> {
        let unreachable = |cause: ureq::Error| ClientError::Unreachable {
            server: self.server.clone(),
            cause: Box::new(cause),
        };
        let mut response = sent.map_err(unreachable)?;
        let status = response.status().as_u16();
        let after = response.headers().get(header::RETRY_AFTER);
        let retry_after_s = after.and_then(|value| value.to_str().ok()?.parse().ok());
        match response.body_mut().with_config().limit(ANSWER_MAX).read_to_vec() {
            Ok(body) => Ok(Answer { status, retry_after_s, body: Zeroizing::new(body) }),
            Err(ureq::Error::BodyExceedsLimit(_)) => Err(ClientError::TooLong { status }),
            Err(cause) => Err(unreachable(cause)),
        }
    }
}

/// What came back.
struct Answer {
    status: u16,
    retry_after_s: Option<u64>,
    body: Zeroizing<Vec<u8>>,
}

/// The members of a problem document that are used.
#[derive(Deserialize)]
struct Problem {
    code: String,
    #[serde(default)]
    detail: Option<String>,
    #[serde(default)]
    errors: Vec<MemberError>,
}

#[derive(Deserialize)]
struct MemberError {
    pointer: String,
    detail: String,
}

fn understand<A: DeserializeOwned>(answer: Answer) -> Result<A, ClientError> {
    let Answer { status, retry_after_s, body } = answer;
    // No body at all reads like null, so that a caller may expect nothing.
    let text: &[u8] = if body.is_empty() { b"null" } else { &body };
    if (200..300).contains(&status) {
        return parse(status, text);
    }
    let problem: Problem = parse(status, text)?;
    Err(ClientError::Refused(Box::new(Refusal {
        status,
        code: brief(&problem.code),
        detail: problem.detail.as_deref().map(brief),
        errors: problem.errors.iter().map(|e| (brief(&e.pointer), brief(&e.detail))).collect(),
        retry_after_s,
    })))
}

fn parse<A: DeserializeOwned>(status: u16, text: &[u8]) -> Result<A, ClientError> {
    let mut reader = serde_json::Deserializer::from_slice(text);
    let not = |why| ClientError::NotUnderstood { status, why };
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        // The cause's own words may repeat a part of the answer, and that may be a secret.
        not(match error.inner().classify() {
            serde_json::error::Category::Data => {
                format!("missing or of another kind at {}", brief(&error.path().to_string()))
            }
            serde_json::error::Category::Io
            | serde_json::error::Category::Syntax
            | serde_json::error::Category::Eof => "it is not JSON".to_owned(),
        })
    })?;
    reader.end().map_err(|_| not("it is not JSON".to_owned()))?;
    Ok(value)
}

/// The beginning of a server's text, safe to print, on one line.
fn brief(text: &str) -> String {
    let start: String = text.chars().take(TEXT_MAX).collect();
    printable(&start).replace('\n', " ")
}

/// A body as JSON. Bodies carry device tokens: wiped after use, and with room
/// from the start, so that growing leaves no copies behind.
fn json<B: Serialize>(body: &B) -> Zeroizing<Vec<u8>> {
    let mut text = Zeroizing::new(Vec::with_capacity(64 * 1024));
    // Our types have no maps with other keys than text and no failing parts;
    // should one ever, an empty body is refused by the server.
    if serde_json::to_writer(&mut *text, body).is_err() {
        text.clear();
    }
    text
}

/// What makes calls to `server`, a URL, as `product`: HTTPS only to who shows a
/// certificate by the authorities in the PEM file `ca`, no proxy, no redirection,
/// an answer within `whole` or none.
///
/// # Errors
///
/// [`ClientError::Address`], [`ClientError::NoAuthority`], [`ClientError::Authority`].
pub(crate) fn agent(
    server: &str,
    ca: Option<&Path>,
    product: &str,
    whole: Duration,
) -> Result<Agent, ClientError> {
    let authorities = match (scheme(server), ca) {
        (None, _) => return Err(ClientError::Address(server.to_owned())),
        (Some(Scheme::Plain), _) => Vec::new(),
        (Some(Scheme::Tls), None) => return Err(ClientError::NoAuthority),
        (Some(Scheme::Tls), Some(file)) => authorities(file)?,
    };
    let tls = TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .unversioned_rustls_crypto_provider(Arc::new(aws_lc_rs::default_provider()))
        .root_certs(RootCerts::new_with_certs(&authorities))
        .build();
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(None)
        .timeout_connect(Some(CONNECT))
        .timeout_global(Some(whole))
        .user_agent(product)
        .tls_config(tls);
    Ok(config.build().new_agent())
}

enum Scheme {
    Plain,
    Tls,
}

/// Whether `server` is a URL that can be called, and if so whether by HTTPS.
pub(crate) fn is_https(server: &str) -> Option<bool> {
    scheme(server).map(|scheme| matches!(scheme, Scheme::Tls))
}

/// The scheme of a URL that is a server's: with a host, and neither user nor query.
fn scheme(server: &str) -> Option<Scheme> {
    let uri: Uri = server.parse().ok()?;
    let host = uri.host().filter(|host| !host.is_empty())?;
    if uri.query().is_some() || uri.authority()?.as_str().contains('@') || host.contains('#') {
        return None;
    }
    match uri.scheme_str()? {
        "http" => Some(Scheme::Plain),
        "https" => Some(Scheme::Tls),
        _ => None,
    }
}

fn authorities(file: &Path) -> Result<Vec<Certificate<'static>>, ClientError> {
    let none = || ClientError::Authority(file.to_path_buf());
    let read: Vec<CertificateDer<'static>> =
        CertificateDer::pem_file_iter(file).and_then(Iterator::collect).map_err(|_| none())?;
    // An empty list would make every server's certificate an unknown one.
    let mut usable = rustls::RootCertStore::empty();
    if usable.add_parsable_certificates(read.iter().cloned()).0 == 0 {
        return Err(none());
    }
    Ok(read.iter().map(|certificate| Certificate::from_der(certificate).to_owned()).collect())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread;

    use super::*;
    use crate::wire::device::FinishedActivation;

    /// A server that answers each of `answers` to one request, byte for byte.
    /// Gives its URL, and the requests once all were answered.
    fn stub(answers: Vec<Vec<u8>>) -> (String, thread::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let served = thread::spawn(move || answers.iter().map(|a| serve(&listener, a)).collect());
        (url, served)
    }

    fn serve(listener: &TcpListener, answer: &[u8]) -> String {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        let mut part = [0; 4096];
        loop {
            let read = stream.read(&mut part).unwrap();
            request.extend_from_slice(&part[..read]);
            let text = String::from_utf8_lossy(&request).into_owned();
            let length = text
                .lines()
                .find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok())
                .unwrap_or(0);
            if text.split_once("\r\n\r\n").is_some_and(|(_, body)| body.len() == length) {
                // The client may hang up on an answer that is too long.
                let _ = stream.write_all(answer);
                return text;
            }
        }
    }

    fn answer(status: &str, body: &str) -> Vec<u8> {
        let length = body.len();
        format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}")
            .into_bytes()
    }

    fn ask(bytes: Vec<u8>) -> Result<FinishedActivation, ClientError> {
        let (url, served) = stub(vec![bytes]);
        let given = Client::new(&url, None).unwrap().post("/path", &["sent"], None);
        served.join().unwrap();
        given
    }

    const GOOD: &str = r#"{"accepted": true, "hardware_key_stored": false, "later": [1],
        "registration_id": "018bcfe5-6800-7fff-bfff-ffffffffffff"}"#;

    #[test]
    fn a_request_says_what_it_is_and_an_answer_may_say_more_than_is_known() {
        let (url, served) = stub(vec![answer("200 OK", GOOD); 3]);
        let client = Client::new(&format!("{url}/"), None).unwrap();
        let got: FinishedActivation = client.post("/a", &["sent"], Some("kt_key")).unwrap();
        assert!(got.accepted);
        client.patch::<_, FinishedActivation>("/b", &["sent"], None).unwrap();
        client.get::<FinishedActivation>("/c", None).unwrap();
        let requests = served.join().unwrap();
        let first = requests[0].to_lowercase();
        assert!(first.starts_with("post /a http/1.1\r\n") && first.ends_with("\r\n\r\n[\"sent\"]"));
        assert!(first.contains("authorization: bearer kt_key\r\n"), "{first}");
        assert!(first.contains("content-type: application/json\r\n"), "{first}");
        assert!(requests[1].starts_with("PATCH /b HTTP/1.1\r\n"));
        assert!(!requests[1].to_lowercase().contains("authorization"));
        assert!(requests[2].starts_with("GET /c HTTP/1.1\r\n"));
    }

    #[test]
    fn a_refusal_is_told_by_its_code_and_cannot_write_on_the_terminal() {
        let body = r#"{"type": "/problems/busy", "title": "Busy", "status": 503, "code": "busy",
            "detail": "later\u001b[2J\nplease", "instance": "1",
            "errors": [{"pointer": "/pin", "detail": "odd"}]}"#;
        let bytes = answer("503 Service Unavailable", body);
        let text = String::from_utf8(bytes).unwrap().replacen("\r\n", "\r\nRetry-After: 7\r\n", 1);
        let error = ask(text.into_bytes()).unwrap_err();
        let refusal = error.refusal().unwrap();
        assert_eq!((refusal.status, refusal.code.as_str()), (503, "busy"));
        assert_eq!(refusal.retry_after_s, Some(7));
        assert_eq!(
            error.to_string(),
            "the server refused: busy (503): later\\u{1b}[2J please; /pin: odd; try again in 7 s"
        );
    }

    #[test]
    fn what_is_no_answer_of_this_interface_is_said_and_never_repeated() {
        let not_json = "is not JSON";
        for (status, body, wanted) in [
            ("200 OK", "<html>hunter2</html>", not_json),
            ("200 OK", "", "missing or of another kind at ."),
            ("200 OK", &GOOD[..40], not_json),
            ("200 OK", &format!("{GOOD}hunter2"), not_json),
            ("200 OK", r#"{"accepted": "hunter2"}"#, "missing or of another kind at accepted"),
            ("200 OK", "{}", "missing or of another kind at ."),
            ("200 OK", "\u{feff}{}", not_json),
            ("502 Bad Gateway", "<html>hunter2</html>", not_json),
            ("404 Not Found", r#"{"code": 7}"#, "missing or of another kind at code"),
            ("302 Found", r#"{"code": ["hunter2"]}"#, "missing or of another kind at code"),
        ] {
            let error = ask(answer(status, body)).unwrap_err();
            assert!(matches!(error, ClientError::NotUnderstood { .. }), "{error:?}");
            let text = error.to_string();
            assert!(text.contains(&format!("(status {})", &status[..3])), "{text}");
            assert!(text.ends_with(wanted) && !text.contains("hunter2"), "{text}");
        }
    }

    #[test]
    fn an_answer_may_be_as_long_as_the_limit_and_not_longer() {
        let fits = format!("{GOOD}{}", " ".repeat(ANSWER_MAX as usize - GOOD.len()));
        assert!(ask(answer("200 OK", &fits)).is_ok());
        let error = ask(answer("200 OK", &format!("{fits} "))).unwrap_err();
        assert!(matches!(error, ClientError::TooLong { status: 200 }), "{error}");
    }

    #[test]
    fn a_connection_that_breaks_off_is_no_answer() {
        for bytes in ["", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", "nonsense\r\n\r\n"] {
            let error = ask(bytes.as_bytes().to_vec()).unwrap_err();
            assert!(matches!(error, ClientError::Unreachable { .. }), "{bytes}: {error}");
            assert!(error.to_string().starts_with("no answer from http://127.0.0.1:"), "{error}");
        }
    }

    #[test]
    fn redirections_are_not_followed() {
        let bytes =
            b"HTTP/1.1 307 Temporary\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n";
        let error = ask(bytes.to_vec()).unwrap_err();
        assert!(matches!(error, ClientError::NotUnderstood { status: 307, .. }), "{error:?}");
    }

    #[test]
    fn only_the_url_of_a_server_will_do_and_https_needs_somebody_to_trust() {
        for bad in ["", "127.0.0.1:8080", "ftp://host", "http://", "http://a@host", "http://h?q"] {
            assert!(matches!(Client::new(bad, None), Err(ClientError::Address(_))), "{bad}");
        }
        let client = Client::new("http://host:1/behind/", None).unwrap();
        assert_eq!(client.server(), "http://host:1/behind");
        let https = Client::new("https://host", None);
        assert!(matches!(https, Err(ClientError::NoAuthority)));
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.pem");
        let none = |text: &str| {
            std::fs::write(&file, text).unwrap();
            matches!(Client::new("https://host", Some(&file)), Err(ClientError::Authority(_)))
        };
        assert!(none("") && none("-----BEGIN CERTIFICATE-----\n"));
        let made = rcgen::generate_simple_self_signed(["host".to_owned()]).unwrap();
        assert!(!none(&made.cert.pem()));
    }
}
