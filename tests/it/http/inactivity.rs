//! Registrations that end for want of use, over a server whose clock the test moves.

use std::sync::Arc;

use api::device::{ActivationOptions, AuthenticationOptions, Phone};
use api::wire::devices::{ConfirmedInactivity, Inactivity};
use engine::reasons::{OperationState, RegistrationState};
use serde_json::{Value, json};

use super::expiry::{Hands, NOON, Timed};
use super::world::Side;
use crate::client::{Answer, Request, assert_problem};
use crate::history::Counter;

const DAY_S: u64 = 86_400;

fn phones(side: &Side, count: usize) -> Vec<Phone> {
    (0..count).map(|_| side.phone(&ActivationOptions::default())).collect()
}

fn over(side: &Side, phones: &[Phone]) -> usize {
    let state = |phone: &Phone| side.seen_registration(phone.registration_id()).state;
    phones.iter().filter(|phone| state(phone) == RegistrationState::Deactivated).count()
}

fn path(side: &Side, rest: &str) -> String {
    format!("/admin/v1/applications/{}/inactivity{rest}", side.callers.application)
}

fn asked(side: &Side, query: &str) -> Answer {
    Request::get(&path(side, query)).by(&side.callers.administrator).send(side.address)
}

fn confirm(side: &Side, registrations: u32) -> Answer {
    let body = json!({ "registrations": registrations });
    let request = Request::post(&path(side, "/confirm"), &body);
    request.by(&side.callers.administrator).send(side.address)
}

fn configure(side: &Side, version: u64, configuration: &Value) {
    let path = format!("/admin/v1/applications/{}/configuration", side.callers.application);
    let body = json!({ "version": version, "configuration": configuration });
    let request = Request::new("PATCH", &path).json(&body).by(&side.callers.administrator);
    assert_eq!(request.send(side.address).status, 200);
}

#[test]
fn a_dry_report_comes_before_anything_ends_and_one_per_cent_ends_a_day() {
    let clock = Counter::at(NOON);
    let timed = Timed::start(Arc::clone(&clock) as _, json!({}));
    let side = timed.side();
    let unused = phones(&side, 4);
    clock.pass_s(30 * DAY_S);
    let used = phones(&side, 1);
    let waiting = side.operation(&unused[0]).operation_id;
    let report: Inactivity = asked(&side, "?after_days=30").ok();
    assert_eq!((report.registrations, report.due, report.more), (5, 4, false));
    assert_eq!((report.limit, report.left, report.confirmed), (1, 1, 0));
    assert_eq!(asked(&side, "?after_days=31").ok::<Inactivity>().due, 0);
    assert_problem(&asked(&side, ""), 400, "bad_request");
    assert_problem(&asked(&side, "?after_days=0"), 400, "bad_request");
    assert_eq!(timed.tidy(), 0, "nothing is turned on");
    configure(&side, 1, &json!({ "inactive_after_days": 30 }));
    assert_eq!(timed.tidy(), 1);
    assert_eq!(timed.tidy(), 0, "the limit of the day is used up");
    let report: Inactivity = asked(&side, "").ok();
    assert_eq!((report.due, report.left, report.registrations), (3, 0, 4));
    let confirmed: ConfirmedInactivity = confirm(&side, 3).ok();
    assert_eq!(confirmed.registrations, 3);
    assert_eq!(asked(&side, "").ok::<Inactivity>().confirmed, 3);
    assert_eq!(timed.tidy(), 3);
    assert_eq!((over(&side, &unused), over(&side, &used)), (4, 0));
    assert_eq!(side.seen_operation(waiting).state, OperationState::Cancelled);
    assert!(side.log_in(&used[0], &AuthenticationOptions::default()).finished.accepted);
    drop(side);
    timed.stop();
}

#[test]
fn a_clock_that_leaps_ends_nobody_until_it_is_confirmed_and_then_one_per_cent_a_day() {
    let hands = Hands::at(NOON);
    let timed = Timed::start(Arc::clone(&hands) as _, json!({ "inactive_after_days": 30 }));
    let side = timed.side();
    timed.sweep();
    let phones = phones(&side, 5);
    hands.leap(3_650 * DAY_S * 1_000_000);
    assert_eq!(timed.tidy(), 0);
    assert!(side.status().clock_suspended);
    assert_eq!(over(&side, &phones), 0);
    let confirmed = Request::post("/admin/v1/clock/confirm", &json!({}));
    assert_eq!(confirmed.by(&timed.callers.administrator).send(side.address).status, 204);
    assert_eq!(timed.tidy(), 1);
    assert_eq!(over(&side, &phones), 1);
    drop(side);
    timed.stop();
}

#[test]
fn a_start_long_after_the_last_record_ends_no_more_than_one_per_cent() {
    let configuration = json!({ "inactive_after_days": 30 });
    let timed = Timed::start(Counter::at(NOON), configuration);
    let phones = phones(&timed.side(), 5);
    let later = NOON + 3_650 * DAY_S * 1_000_000;
    let timed = timed.restarted(Counter::at(later));
    timed.tidy();
    timed.tidy();
    let side = timed.side();
    assert_eq!(over(&side, &phones), 1);
    drop(side);
    timed.stop();
}

#[test]
fn only_an_administrator_looks_and_confirms() {
    let timed = Timed::start(Counter::at(NOON), json!({}));
    let side = timed.side();
    let bank = &side.callers.bank;
    let look = Request::get(&path(&side, "?after_days=30")).by(bank).send(side.address);
    assert_problem(&look, 403, "forbidden");
    let body = json!({ "registrations": 1 });
    let more = Request::post(&path(&side, "/confirm"), &body).by(bank).send(side.address);
    assert_problem(&more, 403, "forbidden");
    assert_problem(&confirm(&side, 0), 422, "invalid_request");
    drop(side);
    timed.stop();
}
