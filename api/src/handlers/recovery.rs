//! Recovery codes: giving them, and redeeming one on a new phone.

use actix_web::HttpResponse;
use engine::command::{self, Command, Refusal, Want};
use engine::config::Config;
use engine::entries::{Application, Registration};
use engine::events::{Bytes32, Event, RecoveryCodesIssuedV1, RecoveryStartedV1};
use engine::ids::Id;
use engine::machine::random;
use engine::reasons::CodeKind;
use engine::sealed::SealedUserV1;

use super::device_activation::{TYPED_MAX, may_guess, nonce_hash, started, wrong_code};
use crate::call::{Call, Failed, refused};
use crate::guesses::Guesser;
use crate::http::source::Source;
use crate::key_use::OpenedFor;
use crate::problem::{ApiError, Code};
use crate::sealing;
use crate::wire::device::{RecoveryCodes, StartActivation};

/// Redeems a recovery code: the first half of an activation. Whatever is wrong with
/// the code, the answer is that to a wrong one.
pub(super) async fn start(
    call: &Call,
    source: Source,
    body: &StartActivation,
    typed: &str,
) -> Result<HttpResponse, ApiError> {
    if typed.len() > TYPED_MAX {
        return Err(ApiError::invalid("/recovery_code", "must have at most 64 bytes"));
    }
    let application = call.look().application(body.application_id);
    let counted_as = if application.is_some() { body.application_id } else { Id::NIL };
    let guesser = Guesser { application: counted_as, source, kind: CodeKind::Recovery };
    let unknown = Config::default();
    let config = application.as_ref().map_or(&unknown, |application| &application.config);
    may_guess(call, guesser, config, application.as_deref())?;
    let Some(meant) = Meant::by(call, body.application_id, typed) else {
        return Err(wrong_code(call, guesser, config).await);
    };
    let Some(command) = meant.command(call, body)? else {
        return Err(wrong_code(call, guesser, config).await);
    };
    match call.execute(command, None).await {
        Ok(outcome) => match outcome.first_event()? {
            Some(Event::RecoveryCodeRefused(_) | Event::ActivationExpired(_)) => {
                Err(wrong_code(call, guesser, config).await)
            }
            Some(Event::RecoveryStarted(begun)) => {
                started(call, begun.activation, &body.client_version)
            }
            // Nothing happened: it was redeemed with this nonce before.
            Some(_) | None => meant.started_before(call, &body.client_version),
        },
        Err(Failed::Refused(
            Refusal::CodeRedeemed | Refusal::RegistrationState(_) | Refusal::Unknown,
        )) => Err(wrong_code(call, guesser, config).await),
        Err(Failed::Refused(Refusal::ClientTooOld)) => Err(Code::ClientNotServed.into()),
        Err(Failed::Refused(refusal)) => Err(refused(&refusal)),
        Err(Failed::Error(error)) => Err(error),
    }
}

/// The set that a typed code is said to be of.
struct Meant {
    id: Id,
    registration: std::sync::Arc<Registration>,
    selector: Bytes32,
    code: Bytes32,
}

impl Meant {
    fn by(call: &Call, application: Id, typed: &str) -> Option<Self> {
        let selector = call.recovery.selector(application, typed)?;
        let recovery = call.look().recovery(&selector)?;
        let id = recovery.registration;
        let registration = call.look().registration(id)?;
        Some(Self { id, registration, selector, code: call.recovery.code(recovery.set, typed) })
    }

    /// The command that redeems; none if the person was erased.
    fn command(&self, call: &Call, body: &StartActivation) -> Result<Option<Command>, ApiError> {
        let registration = &self.registration;
        let user: Option<SealedUserV1> =
            call.sealed(registration.requested_in, OpenedFor::Device)?;
        let subject = sealing::subject_key(&call.keys, registration.subject)?;
        let (Some(user), Some(subject)) = (user, subject) else { return Ok(None) };
        let event_id = call.fresh_event_id();
        let recovered = call.fresh_id();
        let want = Want::StartRecovery(command::StartRecovery {
            registration: self.id,
            code: self.code,
            recovered,
            activation: call.fresh_id(),
            nonce_hash: nonce_hash(&body.nonce),
            challenge: random(&*call.entropy),
            client_version: body.client_version.clone(),
            sealed: sealing::seal::<RecoveryStartedV1>(&subject, event_id, recovered, &user),
        });
        Ok(Some(Command { event_id, want }))
    }

    fn started_before(&self, call: &Call, version: &str) -> Result<HttpResponse, ApiError> {
        let recovery = call.look().recovery(&self.selector).ok_or(Code::ActivationNotFound)?;
        let mut codes = recovery.codes.iter();
        let redeemed = codes.find(|code| code.hash == self.code).and_then(|code| code.redeemed_by);
        started(call, redeemed.ok_or(Code::ActivationNotFound)?, version)
    }
}

/// The set that a registration gets with `set`, an activation or operation of its
/// device; none if its application gives none.
pub(super) fn issued(
    call: &Call,
    (id, application): (Id, &Application),
    device_token: &[u8; 32],
    set: Id,
) -> Option<RecoveryCodesIssuedV1> {
    let count = application.config.recovery_codes;
    let make = || {
        let codes = call.recovery.codes(device_token, set, count);
        call.recovery.issued(id, set, &codes)
    };
    (count > 0).then(make)
}

/// The codes that came with `set`, for the very request that got them; none if there
/// were none, or others have taken their place.
pub(super) fn told(call: &Call, id: Id, device_token: &[u8; 32], set: Id) -> RecoveryCodes {
    let registration = call.look().registration(id);
    let selector = registration.and_then(|known| known.recovery);
    let recovery = selector.and_then(|selector| call.look().recovery(&selector));
    let recovery = recovery.filter(|recovery| recovery.set == set);
    let count = recovery.map_or(0, |recovery| recovery.codes.len() as u32);
    RecoveryCodes(call.recovery.codes(device_token, set, count))
}

/// Codes that can still be redeemed; none if the registration has no set.
pub(super) fn left(
    call: &Call,
    application: &Application,
    registration: &Registration,
) -> Option<u32> {
    let recovery = call.look().recovery(&registration.recovery?)?;
    if recovery.failures >= application.config.recovery_failures_allowed {
        return Some(0);
    }
    let unused = recovery.codes.iter().filter(|code| code.redeemed_by.is_none());
    Some(unused.count() as u32)
}
