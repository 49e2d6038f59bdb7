//! Waking phones: a signed call-out to a hook of the site, which talks to push
//! services as it likes.
//!
//! The outbox follows the log behind the writer, so no request ever waits for it,
//! and one record makes one push: an operation that was created wakes its device,
//! one that ended without an answer of the device lets it take its notice down.
//!
//! The log is the truth and a push is a hint. What waits stands in memory, at
//! most [`Hook::queue_max`] of it; what is beyond is dropped and counted. A push
//! is tried [`Hook::tries`] times, each after a longer pause. A restart begins
//! with the operations that still wait for their device: a push may be repeated
//! by that, under the same id, and one for something that is over may be lost.

mod signed;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use engine::entries::{Entry, Key, KeyKind, Operation};
use engine::events::{
    Event, OperationAnsweredElsewhereV1, OperationCancelledV1, OperationCreatedV1,
    OperationExpiredV1, Payload as _,
};
use engine::ids::{Id, Micros, Position};
use engine::machine::Record;
use engine::reasons::OperationState;
use engine::sealed::SealedPushAddressV1;
use storage::keys::Secret32;
use tokio::task::{JoinError, JoinSet};

use crate::app::App;
use crate::call::event_of;
use crate::endpoint::{self, Endpoint};
use crate::key_use::OpenedFor;
use crate::sealing;
use crate::settings::Settings;
use crate::wire::push::{CallOut, PushAddress, PushEvent, PushMessage};
use crate::wire::{Moment, Octets32};

pub use signed::CallOutSigner;
use signed::SignedHeaders;

/// Media type of a call-out.
const MEDIA_TYPE: &str = "application/json";
/// Call-outs under way at a time.
const AT_ONCE: usize = 8;
/// Records that are read in one go.
const READ_MAX: usize = 1_024;
/// How often is looked for what is to be tried again.
const TICK: Duration = Duration::from_secs(1);
/// Longest pause before another try, in seconds.
const PAUSE_S_MAX: u64 = 60;

const NONCE_CONTEXT: &str = "keytrail 2026-11 push nonce v1";

/// The nonces by which a phone shows that a push has reached it.
///
/// They follow from a secret, so none has to be stored, and a push that is sent
/// again after a restart has the same.
pub struct Nonces(Secret32);

impl Nonces {
    /// Those that follow from this secret.
    #[must_use]
    pub fn of_secret(secret: &Secret32) -> Self {
        Self(Secret32::new(blake3::derive_key(NONCE_CONTEXT, secret.expose())))
    }

    /// That of an operation.
    #[must_use]
    pub fn of(&self, operation: Id) -> [u8; 32] {
        *blake3::keyed_hash(self.0.expose(), &operation.0).as_bytes()
    }
}

impl std::fmt::Debug for Nonces {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}

/// How the call-outs go, since the start of the process.
#[derive(Debug, Default)]
pub struct Board {
    /// Scheme and host of the hook; none if there is none.
    pub host: Option<String>,
    /// Pushes that wait.
    pub queued: AtomicU64,
    /// Pushes that the hook took.
    pub sent: AtomicU64,
    /// Pushes that were given up: refused, or not taken however often tried.
    pub failed: AtomicU64,
    /// Pushes for which there was no room.
    pub dropped: AtomicU64,
}

/// The hook and how it is called.
pub struct Hook {
    endpoint: Endpoint,
    queue_max: usize,
    tries: u32,
}

impl Hook {
    /// The hook that the settings name, if they name one.
    ///
    /// # Errors
    ///
    /// What of the settings cannot be used.
    pub fn new(settings: &Settings) -> Result<Option<Self>, String> {
        let Some(url) = &settings.push_url else { return Ok(None) };
        let (ca, token) = (settings.push_ca.as_deref(), settings.push_token_file.as_deref());
        let whole = Duration::from_secs(settings.push_timeout_s);
        let endpoint = Endpoint::new(url, ca, token, whole)?;
        let (queue_max, tries) = (settings.push_queue_length, settings.push_tries);
        Ok(Some(Self { endpoint, queue_max, tries }))
    }

    /// How it goes, before anything has.
    #[must_use]
    pub fn board(&self) -> Board {
        Board { host: Some(endpoint::host(self.endpoint.url())), ..Board::default() }
    }
}

impl std::fmt::Debug for Hook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let host = endpoint::host(self.endpoint.url());
        f.debug_struct("Hook").field("host", &host).finish_non_exhaustive()
    }
}

/// Makes pushes of what happens, until it is aborted or the log has ended.
pub async fn follow(app: Arc<App>, hook: Hook) {
    let mut head = app.log.watch();
    let mut outbox = Outbox::new(app, hook, head.borrow_and_update().size);
    outbox.begin_with_what_waits().await;
    let mut ticks = tokio::time::interval(TICK);
    loop {
        tokio::select! {
            changed = head.changed() => if changed.is_err() { return },
            _ = ticks.tick() => {}
            Some(done) = outbox.under_way.join_next() => outbox.take(done),
        }
        outbox.read_on().await;
        outbox.send();
    }
}

/// One push.
#[derive(Debug, Clone)]
struct Push {
    /// That of the event that makes it.
    id: Id,
    event: PushEvent,
    registration: Id,
    operation: Id,
    /// How often it was tried.
    tried: u32,
    /// Not tried before this monotonic time.
    not_before: Micros,
}

/// What came of a try.
#[derive(Debug)]
enum Tried {
    Sent,
    /// There is nothing to say any more, or nobody to say it to.
    Moot,
    Refused(String),
    NotTaken(String),
}

struct Outbox {
    app: Arc<App>,
    hook: Arc<Hook>,
    /// Records before this one were seen.
    seen: u64,
    waiting: VecDeque<Push>,
    under_way: JoinSet<(Push, Tried)>,
    /// Whether the last trouble was told, so that a hook that is down does not
    /// fill the log.
    in_trouble: bool,
}

impl Outbox {
    fn new(app: Arc<App>, hook: Hook, seen: u64) -> Self {
        let (waiting, under_way) = (VecDeque::new(), JoinSet::new());
        Self { app, hook: Arc::new(hook), seen, waiting, under_way, in_trouble: false }
    }

    /// What waits for its device as the process starts.
    async fn begin_with_what_waits(&mut self) {
        let app = Arc::clone(&self.app);
        let found = tokio::task::spawn_blocking(move || waiting(&app)).await;
        found.unwrap_or_default().into_iter().for_each(|push| self.offer(push));
    }

    /// Makes pushes of the records that have come.
    async fn read_on(&mut self) {
        while self.seen < self.app.log.head().size {
            let (app, from) = (Arc::clone(&self.app), Position(self.seen));
            let read = tokio::task::spawn_blocking(move || app.log.read(from, READ_MAX)).await;
            let Ok(Ok(records)) = read else {
                tracing::error!(from = from.0, "records could not be read: their pushes are lost");
                self.seen = self.app.log.head().size;
                return;
            };
            self.seen += records.len() as u64;
            for record in &records {
                if let Some(push) = push_of(record) {
                    self.offer(push);
                }
            }
        }
    }

    fn offer(&mut self, push: Push) {
        let registration = self.app.look().registration(push.registration);
        if registration.is_none_or(|known| known.push.address_in.is_none()) {
            return;
        }
        if self.waiting.len() < self.hook.queue_max {
            self.waiting.push_back(push);
        } else {
            self.app.push.dropped.fetch_add(1, Ordering::Relaxed);
            self.tell("the queue of pushes is full");
        }
        self.gauge();
    }

    /// Begins as many call-outs as may be under way.
    fn send(&mut self) {
        let now = self.app.clock.monotonic();
        while self.under_way.len() < AT_ONCE
            && let Some(at) = self.waiting.iter().position(|push| push.not_before <= now)
            && let Some(push) = self.waiting.remove(at)
        {
            let (app, hook) = (Arc::clone(&self.app), Arc::clone(&self.hook));
            self.under_way.spawn(async move {
                let tried = attempt(app, hook, push.clone()).await;
                (push, tried)
            });
        }
        self.gauge();
    }

    /// Notes what came of a call-out.
    fn take(&mut self, done: Result<(Push, Tried), JoinError>) {
        let Ok((mut push, tried)) = done else {
            self.app.push.failed.fetch_add(1, Ordering::Relaxed);
            return self.tell("a call-out panicked");
        };
        push.tried += 1;
        match tried {
            Tried::Moot => (),
            Tried::Sent => {
                self.app.push.sent.fetch_add(1, Ordering::Relaxed);
                if std::mem::take(&mut self.in_trouble) {
                    tracing::info!("the push hook takes pushes again");
                }
            }
            Tried::NotTaken(why) if push.tried < self.hook.tries => {
                let pause_s = (1 << push.tried.min(6)).min(PAUSE_S_MAX);
                push.not_before = self.app.clock.monotonic().plus_s(pause_s);
                self.tell(&why);
                self.offer(push);
            }
            Tried::NotTaken(why) | Tried::Refused(why) => {
                self.app.push.failed.fetch_add(1, Ordering::Relaxed);
                self.tell(&why);
            }
        }
    }

    fn gauge(&self) {
        self.app.push.queued.store(self.waiting.len() as u64, Ordering::Relaxed);
    }

    /// Says what is wrong, once until it is well again.
    fn tell(&mut self, why: &str) {
        if !std::mem::replace(&mut self.in_trouble, true) {
            tracing::warn!(why, "pushes do not go out as they should");
        }
    }
}

/// The push that a record makes, if it makes one.
fn push_of(record: &Record) -> Option<Push> {
    let kind = (record.draft.event_type, record.draft.schema);
    let concerned = [
        OperationCreatedV1::KIND,
        OperationExpiredV1::KIND,
        OperationCancelledV1::KIND,
        OperationAnsweredElsewhereV1::KIND,
    ];
    if !concerned.contains(&kind) {
        return None;
    }
    let (event, operation) = match event_of(record).ok()? {
        Event::OperationCreated(created) => (PushEvent::OperationWaits, created.operation),
        Event::OperationExpired(it) => (PushEvent::OperationOver, it.operation),
        Event::OperationCancelled(it) => (PushEvent::OperationOver, it.operation),
        Event::OperationAnsweredElsewhere(it) => (PushEvent::OperationOver, it.operation),
        _ => return None,
    };
    let (id, registration) = (record.draft.event_id, record.draft.stream);
    Some(Push { id, event, registration, operation, tried: 0, not_before: Micros(0) })
}

/// Every operation that waits for a device that has not asked for it yet.
fn waiting(app: &App) -> Vec<Push> {
    let (mut from, to) = Key::range(KeyKind::Operation);
    let mut from: Vec<u8> = std::mem::take(&mut from).to_vec();
    let mut found = Vec::new();
    loop {
        let entries = app.state.scan(&from, &to, READ_MAX);
        let Some((last, _)) = entries.last() else { return found };
        from = [&last.bytes()[..], &[0]].concat();
        for (key, entry) in &entries {
            if let (Key::Operation(id), Entry::Operation(operation)) = (key, &**entry)
                && is_to_be_told(operation, app.clock.wall())
                && let Ok(record) = app.log.record(operation.created_in)
            {
                found.extend(push_of(&record).filter(|push| push.operation == *id));
            }
        }
    }
}

/// Whether a device is to be woken for this: it can be answered, and the device
/// has not asked for it yet.
fn is_to_be_told(operation: &Operation, now: Micros) -> bool {
    operation.state == OperationState::Pending && now < operation.expires_at
}

/// A request as it goes out.
struct Request {
    body: String,
    signed: SignedHeaders,
}

/// Tries a push.
async fn attempt(app: Arc<App>, hook: Arc<Hook>, push: Push) -> Tried {
    let url = hook.endpoint.url().to_owned();
    // The store is let go before the network is waited for.
    let made = tokio::task::spawn_blocking(move || request(&app, &url, &push)).await;
    let Ok(Some(request)) = made else { return Tried::Moot };
    let (tell, told) = tokio::sync::oneshot::channel();
    // A thread that nobody waits for: a hook that does not answer holds up no stop.
    let name = "push".to_owned();
    let begun = std::thread::Builder::new().name(name).spawn(move || {
        let _ = tell.send(call(&hook, &request));
    });
    match begun {
        Ok(_) => told.await.unwrap_or_else(|_| Tried::NotTaken("a call-out panicked".to_owned())),
        Err(error) => Tried::NotTaken(error.to_string()),
    }
}

/// The request that a push is; none if there is nothing to say any more, or
/// nobody to say it to.
fn request(app: &App, url: &str, push: &Push) -> Option<Request> {
    let operation = app.look().operation(push.operation)?;
    let waits = push.event == PushEvent::OperationWaits;
    if waits && !is_to_be_told(&operation, app.clock.wall()) {
        return None;
    }
    let message = PushMessage {
        event: push.event,
        registration_id: push.registration,
        operation_id: push.operation,
        expires_at: Moment(operation.expires_at),
        nonce: waits.then(|| Octets32(app.push_nonces.of(push.operation))),
    };
    let address = address(app, push.registration)?;
    let body = CallOut { version: 1, id: push.id, address, message };
    let body = serde_json::to_string(&body).ok()?;
    let signed = app.push_signer.sign(url, MEDIA_TYPE, &body, app.clock.wall());
    Some(Request { body, signed })
}

/// Calls the hook. Waits for the network.
fn call(hook: &Hook, Request { body, signed }: &Request) -> Tried {
    let headers = [
        ("content-digest", &*signed.content_digest),
        ("signature-input", &*signed.signature_input),
        ("signature", &*signed.signature),
    ];
    match hook.endpoint.post(MEDIA_TYPE, &headers, body) {
        Ok(reply) if (200..300).contains(&reply.status) => Tried::Sent,
        Ok(reply) => {
            let why = format!("the push hook answered with status {}", reply.status);
            // What another try can change.
            let passing = matches!(reply.status, 408 | 425 | 429 | 500..);
            if passing { Tried::NotTaken(why) } else { Tried::Refused(why) }
        }
        Err(why) => Tried::NotTaken(why),
    }
}

/// Where a registration's pushes go; none if nowhere, or its user was erased.
fn address(app: &App, registration: Id) -> Option<PushAddress> {
    let at = app.look().registration(registration)?.push.address_in?;
    let record = app.log.record(at).ok()?;
    let subject = sealing::subject_key(&app.keys, record.draft.subject).ok()??;
    app.key_uses.count(OpenedFor::Device);
    let sealed: SealedPushAddressV1 = sealing::open(&subject, &record.draft).ok()?;
    Some(PushAddress { gateway: sealed.gateway, token: sealed.token })
}
