//! What time alone makes happen, on a clock that the test moves.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use api::auth::credential::Credential;
use api::device::{
    ActivationOptions, AuthenticationOptions, Redemption, authenticate, authenticate_start,
};
use api::wire::provider::Activation;
use engine::events::Event;
use engine::ids::{Micros, Position};
use engine::machine::Clock;
use engine::reasons::{ActivationState, OperationState, RegistrationState};
use serde_json::{Value, json};
use storage::disk::RealDisk;

use super::world::{CHANCE, Callers, Side};
use crate::client::{Request, assert_problem};
use crate::history::Counter;
use crate::server::InProcess;

/// A server on a clock, with an application.
pub(super) struct Timed {
    home: tempfile::TempDir,
    pub(super) server: InProcess,
    pub(super) callers: Callers,
}

impl Timed {
    pub(super) fn start(clock: Arc<dyn Clock>, configuration: Value) -> Self {
        let home = tempfile::tempdir().unwrap();
        let server = InProcess::start(&home.path().join("data"), clock, Arc::new(RealDisk));
        let administrator = server.administrator.clone().unwrap();
        let callers = Callers::set_up(server.address, administrator, configuration);
        Self { home, server, callers }
    }

    pub(super) fn side(&self) -> Side<'_> {
        let (address, client) = (self.server.address, self.server.client());
        Side { address, callers: &self.callers, client }
    }

    /// Lets the writer look at the deadlines now.
    pub(super) fn sweep(&self) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(self.server.app.handle.sweep()).unwrap();
    }

    /// What the server does every hour; how many registrations ended for want of use.
    pub(super) fn tidy(&self) -> u64 {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(api::inactivity::sweep(&self.server.app)).unwrap()
    }

    /// Stopped, and started again on another clock.
    pub(super) fn restarted(self, clock: Arc<dyn Clock>) -> Self {
        let Self { home, server, callers } = self;
        server.stop();
        let server = InProcess::start(&home.path().join("data"), clock, Arc::new(RealDisk));
        Self { home, server, callers }
    }

    /// Every event of the log.
    pub(super) fn events(&self) -> Vec<Event> {
        let head = self.server.app.log.head().size;
        let records = self.server.app.log.read(Position(0), head as usize).unwrap();
        records.iter().map(|record| api::call::event_of(record).unwrap()).collect()
    }

    pub(super) fn stop(self) {
        self.server.stop();
        super::world::verified(&self.home.path().join("data"));
    }
}

pub(super) const NOON: u64 = 1_700_000_000_000_000;

#[test]
fn an_operation_can_be_answered_until_its_deadline_and_at_it_no_more() {
    let clock = Counter::at(NOON);
    let timed = Timed::start(
        Arc::clone(&clock) as _,
        json!({
            "operation_lifetime_s": 30, "enabled_risk_data": ["hw_key_server_result"],
        }),
    );
    let side = timed.side();
    let phone = side.phone(&ActivationOptions::default());
    let options = AuthenticationOptions::default();
    let [first, second, third] = [(); 3].map(|()| side.operation(&phone).operation_id);
    clock.pass_s(29);
    let outcome = authenticate(&side.client, &phone, &options, CHANCE).unwrap();
    assert!(outcome.finished.accepted && outcome.operation_id == first);
    let answering = authenticate_start(&side.client, &phone, &options).unwrap();
    clock.pass_s(1);
    // Too late at the very moment, whether or not a sweep has come by.
    let late = answering.answer(&phone, &options, CHANCE).unwrap();
    let path = format!("/device/v1/operations/{second}/finish");
    let refused = Request::post(&path, &late).send(side.address);
    assert_problem(&refused, 409, "operation_state");
    assert_eq!(refused.value()["detail"], "it is EXPIRED");
    timed.sweep();
    for id in [second, third] {
        let seen = side.seen_operation(id);
        assert_eq!((seen.state, seen.attempts.len()), (OperationState::Expired, 0));
        assert!(seen.ended_at.is_some());
    }
    let cancel = side.bank_posts(&format!("/v1/operations/{third}/cancel"), &json!({}));
    assert_problem(&cancel, 409, "operation_state");
    let refused = authenticate_start(&side.client, &phone, &options).unwrap_err();
    assert!(refused.to_string().contains("operation_not_found"), "nothing waits: {refused}");
    drop(side);
    timed.stop();
}

#[test]
fn a_code_and_then_its_activation_expire() {
    let clock = Counter::at(NOON);
    let timed = Timed::start(
        Arc::clone(&clock) as _,
        json!({
            "activation_code_lifetime_s": 60, "activation_lifetime_s": 60,
        }),
    );
    let side = timed.side();
    let redeem =
        |code: &str| Redemption::by_code(timed.callers.application, code, None, CHANCE).unwrap();
    let (unused, used) = (side.request_activation(), side.request_activation());
    clock.pass_s(59);
    let activating = redeem(&used.code).start(&side.client).unwrap();
    clock.pass_s(1);
    let late = redeem(&unused.code).start(&side.client).unwrap_err();
    assert!(late.to_string().contains("activation_not_found"), "{late}");
    clock.pass_s(59);
    let options = ActivationOptions::default();
    let offer = activating.offer("http://a", &options, None, CHANCE).unwrap();
    let late = offer.finish(&side.client).unwrap_err();
    assert!(late.to_string().contains("activation_not_found"), "{late}");
    timed.sweep();
    for requested in [&unused.activation, &used.activation] {
        let seen: Activation =
            side.bank_gets(&format!("/v1/activations/{}", requested.activation_id)).ok();
        assert_eq!(seen.state, ActivationState::Expired);
        let registration = side.seen_registration(requested.registration_id);
        assert_eq!(registration.state, RegistrationState::Deactivated, "it never had keys");
    }
    let application = format!("/admin/v1/applications/{}", timed.callers.application);
    let application = Request::get(&application).by(&timed.callers.administrator);
    assert_eq!(application.send(side.address).value()["live_codes"], 0);
    drop(side);
    timed.stop();
}

#[test]
fn an_idempotency_key_holds_for_a_day_and_is_forgotten_with_the_next_record() {
    let clock = Counter::at(NOON);
    let timed = Timed::start(Arc::clone(&clock) as _, json!({}));
    let side = timed.side();
    let phone = side.phone(&ActivationOptions::default());
    let create = |lifetime_s: u32| {
        let body = json!({
            "registration_id": phone.registration_id(), "level": "ONE_FACTOR",
            "lifetime_s": lifetime_s,
        });
        let request = Request::post("/v1/operations", &body).by(&timed.callers.bank).once("k");
        request.send(side.address)
    };
    let first = create(60).value();
    // Below ten minutes each, so that no step suspends what time makes happen.
    (0..288).for_each(|_| clock.pass_s(299));
    timed.sweep();
    assert_problem(&create(61), 422, "idempotency_key_reused");
    (0..2).for_each(|_| clock.pass_s(299));
    side.operation(&phone);
    let second = create(61);
    assert_eq!(second.status, 201, "{}", second.text());
    assert_ne!(second.value()["operation_id"], first["operation_id"]);
    drop(side);
    timed.stop();
}

#[test]
fn failures_that_nobodys_key_signed_are_slowed_down_and_never_lock() {
    let clock = Counter::at(NOON);
    let timed = Timed::start(Arc::clone(&clock) as _, json!({}));
    let side = timed.side();
    let hardware = api::device::Hardware::Unsupported;
    let phone = side.phone(&ActivationOptions { hardware, ..Default::default() });
    let mut noise = AuthenticationOptions::default();
    noise.misbehaviour.software = Some(api::device::SoftwareFault::BadSignature);
    for _ in 0..10 {
        assert!(!side.log_in(&phone, &noise).finished.accepted);
    }
    let operation = side.operation(&phone).operation_id;
    let options = AuthenticationOptions { operation: Some(operation), ..Default::default() };
    let answering = authenticate_start(&side.client, &phone, &options).unwrap();
    let body = answering.answer(&phone, &options, CHANCE).unwrap();
    let path = format!("/device/v1/operations/{operation}/finish");
    let finish = || Request::post(&path, &body).send(side.address);
    assert_problem(&finish(), 429, "too_many_requests");
    assert_eq!(finish().header("retry-after"), Some("60"));
    clock.pass_s(60);
    assert_eq!(finish().value()["accepted"], true, "the challenge was still live");
    let registration = side.seen_registration(phone.registration_id());
    assert_eq!((registration.state, registration.failures), (RegistrationState::Active, 0));
    drop(side);
    timed.stop();
}

/// Both clocks, moved apart.
pub(super) struct Hands {
    wall: AtomicU64,
    monotonic: AtomicU64,
}

impl Hands {
    pub(super) fn at(wall: u64) -> Arc<Self> {
        Arc::new(Self { wall: AtomicU64::new(wall), monotonic: AtomicU64::new(0) })
    }

    /// The wall clock leaps ahead; the monotonic one does not.
    pub(super) fn leap(&self, by_us: u64) {
        self.wall.fetch_add(by_us, Ordering::SeqCst);
    }
}

impl Clock for Hands {
    fn wall(&self) -> Micros {
        Micros(self.wall.load(Ordering::SeqCst))
    }

    fn monotonic(&self) -> Micros {
        Micros(self.monotonic.load(Ordering::SeqCst))
    }
}

#[test]
fn a_leap_of_the_clock_is_confirmed_by_an_administrator() {
    let hands = Hands::at(NOON);
    let timed = Timed::start(Arc::clone(&hands) as _, json!({}));
    let side = timed.side();
    timed.sweep();
    assert!(!side.status().clock_suspended);
    hands.leap(3_600_000_000);
    timed.sweep();
    assert!(side.status().clock_suspended);
    let confirm = Request::post("/admin/v1/clock/confirm", &json!({}));
    let confirmed = confirm.by(&timed.callers.administrator).send(side.address);
    assert_eq!((confirmed.status, confirmed.body.len()), (204, 0));
    assert!(!side.status().clock_suspended);
    // Who said so stands in the log; a repeat says nothing again, and ends nothing.
    let confirmations = || {
        let events = timed.events().into_iter();
        events
            .filter_map(|event| match event {
                Event::ClockConfirmed(confirmed) => {
                    Some((confirmed.by.api_key, confirmed.suspended))
                }
                _ => None,
            })
            .collect::<Vec<_>>()
    };
    let header = format!("Bearer {}", timed.callers.administrator);
    let by = Credential::parse(header.as_bytes()).unwrap().id;
    assert_eq!(confirmations(), [(by, true)]);
    let once = Request::post("/admin/v1/clock/confirm", &json!({})).once("confirm-1");
    assert_eq!(once.clone().by(&timed.callers.administrator).send(side.address).status, 204);
    hands.leap(3_600_000_000);
    timed.sweep();
    assert_eq!(once.by(&timed.callers.administrator).send(side.address).status, 204);
    assert!(side.status().clock_suspended);
    assert_eq!(confirmations(), [(by, true), (by, false)]);
    let forbidden = Request::post("/admin/v1/clock/confirm", &json!({})).by(&timed.callers.bank);
    assert_problem(&forbidden.send(side.address), 403, "forbidden");
    drop(side);
    timed.stop();
}
