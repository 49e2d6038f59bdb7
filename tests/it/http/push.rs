//! Phones are woken: what the push hook is told, how it is signed, and that
//! nothing waits for it.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use api::device::{
    ActivationOptions, AuthenticationOptions, Phone, authenticate, authenticate_start,
    set_push_address,
};
use api::settings::Settings;
use api::wire::admin::PushStatus;
use api::wire::provider::{Broadcast, Operation};
use api::wire::push::{CallOut, PushAddress, PushEvent};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use engine::ids::Id;
use engine::reasons::OperationState;
use p256::ecdsa::signature::Verifier as _;
use p256::ecdsa::{Signature, VerifyingKey};
use serde_json::{Value, json};
use storage::disk::RealDisk;

use super::expiry::NOON;
use super::world::{CHANCE, Callers, Side, World, again, verified};
use crate::client::{Request, assert_problem};
use crate::history::Counter;
use crate::server::{InProcess, Launch};

/// No test waits so long unless the server is broken.
const PATIENCE: Duration = Duration::from_secs(60);
const TOKEN: &str = "fcm-token-that-names-a-device";

/// A push hook, as a site would write one: it takes what is posted.
struct Receiver {
    address: SocketAddr,
    taken: mpsc::Receiver<Taken>,
    /// What it answers next; 200 once there is no more. 0 stands for silence.
    answers: Arc<Mutex<Vec<u16>>>,
}

/// One call-out.
struct Taken {
    head: String,
    body: String,
}

impl Receiver {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, taken) = mpsc::channel();
        let answers = Arc::new(Mutex::new(Vec::new()));
        let says = Arc::clone(&answers);
        std::thread::spawn(move || {
            let mut silent = Vec::new();
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { break };
                let Some(call) = Taken::read(&mut stream) else { continue };
                let answer = says.lock().unwrap().pop().unwrap_or(200);
                if answer == 0 {
                    silent.push(stream);
                } else {
                    let head = format!("HTTP/1.1 {answer} x\r\nContent-Length: 0\r\n");
                    let _ = stream.write_all(format!("{head}Connection: close\r\n\r\n").as_bytes());
                }
                if tell.send(call).is_err() {
                    break;
                }
            }
        });
        Self { address, taken, answers }
    }

    fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    #[track_caller]
    fn next(&self) -> (Taken, CallOut) {
        let taken = self.taken.recv_timeout(PATIENCE).unwrap();
        let call = serde_json::from_str(&taken.body).unwrap();
        (taken, call)
    }

    /// Answers with these, in this order, then with 200.
    fn answers(&self, answers: &[u16]) {
        *self.answers.lock().unwrap() = answers.iter().rev().copied().collect();
    }
}

impl Taken {
    fn read(stream: &mut TcpStream) -> Option<Self> {
        let mut octets = Vec::new();
        let mut part = [0; 4096];
        loop {
            let read = stream.read(&mut part).ok().filter(|read| *read > 0)?;
            octets.extend_from_slice(&part[..read]);
            let text = String::from_utf8_lossy(&octets).into_owned();
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let taken = Self { head: head.to_owned(), body: body.to_owned() };
            if taken.header("content-length")?.parse() == Ok(body.len()) {
                return Some(taken);
            }
        }
    }

    fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(':'));
        let mut named = lines.filter(|(sent, _)| sent.eq_ignore_ascii_case(name));
        named.next().map(|(_, value)| value.trim())
    }

    /// Checks the signature as RFC 9421 says, with a key of the server's JWK set.
    #[track_caller]
    fn is_signed(&self, url: &str, keys: &Value) {
        let digest = STANDARD.encode(<sha2::Sha256 as sha2::Digest>::digest(&self.body));
        assert_eq!(self.header("content-digest").unwrap(), format!("sha-256=:{digest}:"));
        let input = self.header("signature-input").unwrap();
        let parameters = input.strip_prefix("keytrail=").unwrap();
        let covered = r#"("@method" "@target-uri" "content-type" "content-digest");"#;
        assert!(parameters.starts_with(covered), "{parameters}");
        let kid = parameters.split("keyid=\"").nth(1).unwrap().split('"').next().unwrap();
        let keys = keys["keys"].as_array().unwrap();
        let key = keys.iter().find(|key| key["kid"] == kid).unwrap();
        let point = |of: &str| URL_SAFE_NO_PAD.decode(key[of].as_str().unwrap()).unwrap();
        let point = [&[4][..], &point("x"), &point("y")].concat();
        let key = VerifyingKey::from_sec1_bytes(&point).unwrap();
        let base = format!(
            "\"@method\": POST\n\"@target-uri\": {url}\n\"content-type\": {}\n\
             \"content-digest\": sha-256=:{digest}:\n\"@signature-params\": {parameters}",
            self.header("content-type").unwrap()
        );
        let signature = self.header("signature").unwrap();
        let signature = signature.strip_prefix("keytrail=:").unwrap().strip_suffix(':').unwrap();
        let signature = Signature::from_slice(&STANDARD.decode(signature).unwrap()).unwrap();
        key.verify(base.as_bytes(), &signature).unwrap();
    }
}

/// A server with a push hook, on a clock.
struct Pushing {
    home: tempfile::TempDir,
    server: InProcess,
    callers: Callers,
    hook: Receiver,
    clock: Arc<Counter>,
}

impl Pushing {
    fn start(configuration: Value, settings: Settings) -> Self {
        let home = tempfile::tempdir().unwrap();
        let hook = Receiver::start();
        let clock = Counter::at(NOON);
        let data = home.path().join("data");
        let settings = Settings { data, push_url: Some(hook.url()), ..settings };
        let server = InProcess::with(settings, Arc::clone(&clock) as _, Arc::new(RealDisk));
        let administrator = server.administrator.clone().unwrap();
        let callers = Callers::set_up(server.address, administrator, configuration);
        Self { home, server, callers, hook, clock }
    }

    fn side(&self) -> Side<'_> {
        let (address, client) = (self.server.address, self.server.client());
        Side { address, callers: &self.callers, client }
    }

    /// Waits until the counters are so.
    #[track_caller]
    fn until(&self, holds: impl Fn(&PushStatus) -> bool) -> PushStatus {
        let deadline = std::time::Duration::from_secs(60);
        for _ in 0..deadline.as_millis() {
            let status = self.side().status().push.unwrap();
            if holds(&status) {
                return status;
            }
        }
        panic!("{:?}", self.side().status().push);
    }

    fn stop(self) {
        self.server.stop();
        verified(&self.home.path().join("data"));
    }
}

fn address() -> PushAddress {
    PushAddress { gateway: "fcm".to_owned(), token: TOKEN.to_owned() }
}

fn reachable(side: &Side) -> Phone {
    let phone = side.phone(&ActivationOptions::default());
    set_push_address(&side.client, &phone, Some(address())).unwrap();
    phone
}

fn woken(operation: Id, call: &CallOut) -> AuthenticationOptions {
    AuthenticationOptions {
        operation: Some(operation),
        push_nonce: call.message.nonce.map(|nonce| nonce.0),
        ..AuthenticationOptions::default()
    }
}

#[test]
fn an_operation_wakes_its_phone_by_one_signed_call_that_says_nothing_of_anybody() {
    let pushing = Pushing::start(json!({}), Settings::default());
    let side = pushing.side();
    let phone = reachable(&side);
    let body = json!({
        "registration_id": phone.registration_id(), "level": "ONE_FACTOR", "external_id": "4711",
        "context": { "title": "Pay", "type": "text/plain", "octets": "Zm9v" },
    });
    let operation: Operation = side.bank_posts("/v1/operations", &body).ok();
    let (taken, call) = pushing.hook.next();
    let keys = Request::get("/.well-known/jwks.json").send(side.address).value();
    taken.is_signed(&pushing.hook.url(), &keys);
    assert_eq!((call.version, &call.address), (1, &address()));
    assert_eq!(call.message.event, PushEvent::OperationWaits);
    assert_eq!(call.message.registration_id, phone.registration_id());
    assert_eq!(call.message.operation_id, operation.operation_id);
    assert_eq!(call.message.expires_at, operation.expires_at);
    for word in ["anna", "4711", "Pay", "Zm9v", "ONE_FACTOR"] {
        assert!(!taken.body.contains(word), "{word} in {}", taken.body);
    }
    let options = woken(operation.operation_id, &call);
    assert!(authenticate(&side.client, &phone, &options, CHANCE).unwrap().finished.accepted);
    assert!(side.seen_operation(operation.operation_id).push_confirmed);
    // The answer made no push: the next one is that of the next operation.
    let next = side.operation(&phone).operation_id;
    assert_eq!(pushing.hook.next().1.message.operation_id, next);
    let status = pushing.until(|status| status.sent == 2);
    assert_eq!((status.failed, status.dropped, status.queued), (0, 0, 0));
    drop(side);
    pushing.stop();
}

#[test]
fn where_the_application_asks_for_it_only_a_phone_that_got_the_push_gets_the_challenge() {
    let pushing = Pushing::start(json!({ "push_validation": true }), Settings::default());
    let side = pushing.side();
    let phone = side.phone(&ActivationOptions::default());
    let body = json!({ "registration_id": phone.registration_id(), "level": "ONE_FACTOR" });
    assert_problem(&side.bank_posts("/v1/operations", &body), 409, "no_push_address");
    let all = json!({
        "application_id": pushing.callers.application, "user_ref": "anna", "level": "ONE_FACTOR",
    });
    assert_problem(&side.bank_posts("/v1/broadcasts", &all), 409, "no_method_fits");
    set_push_address(&side.client, &phone, Some(address())).unwrap();
    let [one, other] = [(); 2].map(|()| side.operation(&phone).operation_id);
    let calls = [pushing.hook.next().1, pushing.hook.next().1];
    let of = |id| calls.iter().find(|call| call.message.operation_id == id).unwrap();
    let mut none = woken(one, of(one));
    none.push_nonce = None;
    let mut others = woken(one, of(other));
    others.operation = Some(one);
    for wrong in [none, others] {
        let refused = authenticate_start(&side.client, &phone, &wrong).unwrap_err();
        assert!(refused.to_string().contains("push_not_confirmed"), "{refused}");
    }
    let right = authenticate(&side.client, &phone, &woken(one, of(one)), CHANCE).unwrap();
    assert!(right.finished.accepted);
    drop(side);
    pushing.stop();
}

#[test]
fn each_outcome_that_is_not_the_phones_own_answer_is_told_once() {
    let pushing = Pushing::start(json!({}), Settings::default());
    let side = pushing.side();
    let phones = [reachable(&side), reachable(&side)];
    let body = json!({
        "application_id": pushing.callers.application, "user_ref": "anna", "level": "ONE_FACTOR",
    });
    let asked: Broadcast = side.bank_posts("/v1/broadcasts", &body).ok();
    let calls = [pushing.hook.next().1, pushing.hook.next().1];
    let own = calls.iter().find(|it| it.message.registration_id == phones[0].registration_id());
    let own = own.unwrap();
    let options = woken(own.message.operation_id, own);
    authenticate(&side.client, &phones[0], &options, CHANCE).unwrap();
    let (_, over) = pushing.hook.next();
    assert_eq!(over.message.event, PushEvent::OperationOver);
    assert_eq!(over.message.registration_id, phones[1].registration_id());
    assert!(over.message.nonce.is_none());
    let broadcast: Broadcast =
        side.bank_gets(&format!("/v1/broadcasts/{}", asked.broadcast_id)).ok();
    assert_eq!(broadcast.state, OperationState::Completed);
    let cancelled = side.operation(&phones[0]).operation_id;
    pushing.hook.next();
    side.bank_posts(&format!("/v1/operations/{cancelled}/cancel"), &json!({})).ok::<Operation>();
    side.bank_posts(&format!("/v1/operations/{cancelled}/cancel"), &json!({})).ok::<Operation>();
    assert_eq!(pushing.hook.next().1.message.event, PushEvent::OperationOver);
    let status = pushing.until(|status| status.sent == 5);
    assert_eq!((status.failed, status.queued), (0, 0), "and nothing else");
    drop(side);
    pushing.stop();
}

#[test]
fn a_push_that_is_not_taken_is_tried_again_under_its_id_and_one_that_is_refused_is_not() {
    let settings = Settings { push_tries: 2, ..Settings::default() };
    let pushing = Pushing::start(json!({}), settings);
    let side = pushing.side();
    let phone = reachable(&side);
    pushing.hook.answers(&[503, 200, 400, 500, 500]);
    side.operation(&phone);
    let (_, first) = pushing.hook.next();
    pushing.until(|status| status.queued == 1);
    pushing.clock.pass_s(2);
    let (_, second) = pushing.hook.next();
    assert_eq!((second.id, second.message), (first.id, first.message), "the same push");
    pushing.until(|status| status.sent == 1);
    side.operation(&phone);
    pushing.hook.next();
    assert_eq!(pushing.until(|status| status.failed == 1).queued, 0, "refused is refused");
    side.operation(&phone);
    pushing.hook.next();
    pushing.until(|status| status.queued == 1);
    pushing.clock.pass_s(2);
    pushing.hook.next();
    let status = pushing.until(|status| status.failed == 2);
    assert_eq!((status.sent, status.queued), (1, 0), "two tries and no more");
    drop(side);
    pushing.stop();
}

#[test]
fn a_hook_that_says_nothing_holds_up_nobody_and_what_finds_no_room_is_counted() {
    let settings = Settings { push_queue_length: 1, push_timeout_s: 60, ..Settings::default() };
    let pushing = Pushing::start(json!({}), settings);
    let side = pushing.side();
    let phone = reachable(&side);
    pushing.hook.answers(&[0; 16]);
    let operations: Vec<_> = (0..12).map(|_| side.operation(&phone).operation_id).collect();
    let status = pushing.until(|status| status.queued + status.dropped == 4);
    assert_eq!((status.sent, status.failed), (0, 0));
    assert!(status.dropped >= 1 && status.queued <= 1, "{status:?}");
    for operation in operations {
        let options = AuthenticationOptions { operation: Some(operation), ..Default::default() };
        assert!(authenticate(&side.client, &phone, &options, CHANCE).unwrap().finished.accepted);
    }
    // The hook goes away, and with it what was under way.
    let Pushing { home, server, hook, .. } = pushing;
    drop(hook);
    server.stop();
    verified(&home.path().join("data"));
}

#[test]
fn what_waits_is_pushed_again_after_a_restart_and_the_token_is_nowhere_in_clear() {
    let hook = Receiver::start();
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data");
    let server = Launch::on(&data).flag("--push-url", &hook.url()).start();
    let callers = Callers::set_up(server.address, server.administrator(), json!({}));
    let world = World { server, home, callers };
    let (answered, waits) = {
        let side = world.side();
        let phone = reachable(&side);
        let [answered, waits] = [(); 2].map(|()| side.operation(&phone).operation_id);
        let options =
            AuthenticationOptions { operation: Some(answered), ..AuthenticationOptions::default() };
        authenticate(&side.client, &phone, &options, CHANCE).unwrap();
        (answered, waits)
    };
    let before = [hook.next().1, hook.next().1];
    let World { server, home, callers } = world;
    let launch = server.kill();
    let world = again(&launch, &callers, home);
    let (_, call) = hook.next();
    assert_eq!(call.message.operation_id, waits, "and not {answered}");
    let same = before.iter().find(|it| it.message.operation_id == waits).unwrap();
    assert_eq!((call.id, &call.message), (same.id, &same.message));
    let World { server, home, .. } = world;
    let said = server.stop();
    assert!(!said.contains(TOKEN), "{said}");
    for part in ["log", "store"] {
        in_no_file(&home.path().join("data").join(part), TOKEN.as_bytes());
    }
    verified(&data);
}

fn in_no_file(folder: &std::path::Path, words: &[u8]) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            in_no_file(&path, words);
        } else {
            let bytes = std::fs::read(&path).unwrap();
            assert!(!bytes.windows(words.len()).any(|part| part == words), "{}", path.display());
        }
    }
}

#[test]
fn an_address_that_is_none_or_comes_without_the_token_is_refused_and_the_same_changes_nothing() {
    let world = World::start();
    let side = world.side();
    let phone = side.phone(&ActivationOptions::default());
    set_push_address(&side.client, &phone, Some(address())).unwrap();
    let records = side.status().records;
    set_push_address(&side.client, &phone, Some(address())).unwrap();
    assert_eq!(side.status().records, records);
    let again = PushAddress { token: "another".to_owned(), ..address() };
    let refused = set_push_address(&side.client, &phone, Some(again)).unwrap_err();
    assert!(refused.to_string().contains("too_many_requests"), "{refused}");
    let stranger = json!({
        "registration_id": phone.registration_id(),
        "device_token": api::wire::Octets32([1; 32]),
    });
    let stranger = world.send(&Request::post("/device/v1/push-address", &stranger));
    assert_problem(&stranger, 404, "operation_not_found");
    for (gateway, token) in [("", "t"), ("FCM", "t"), ("fcm", ""), ("fcm", "a b")] {
        let body = json!({
            "registration_id": phone.registration_id(),
            "device_token": api::wire::Octets32([1; 32]),
            "address": { "gateway": gateway, "token": token },
        });
        let refused = world.send(&Request::post("/device/v1/push-address", &body));
        assert_problem(&refused, 422, "invalid_request");
    }
    world.stop_and_verify();
}
