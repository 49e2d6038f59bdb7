//! Authentication, for devices.

use std::sync::Arc;

use actix_web::HttpResponse;
use actix_web::web::Path;
use engine::command::{self, Command, Refusal, Want};
use engine::entries::{Operation, Registration};
use engine::events::{AuthenticationJudgedV1, Event, VerificationV1};
use engine::ids::Id;
use engine::key::KeyBytes;
use engine::machine::random;
use engine::proofs::{AuthenticationFacts, Signed};
use engine::reasons::{
    AuthenticationFailure, CancelReason, OperationKind, OperationState, RegistrationState,
};
use engine::sealed;
use engine::sealed::SealedRequestV1;
use engine::terms::{Level, Method, Role};
use engine::transcript::{NO_CONTENT, Said, device_token_hash};
use subtle::ConstantTimeEq;

use super::judging::{
    Claimed, SentAlong, body_digest, check, check_signature, check_version, seconds_until,
};
use super::registrations::remaining_attempts;
use crate::call::{Call, Failed, event_of, refused};
use crate::http::body::Body;
use crate::http::source::Source;
use crate::key_use::OpenedFor;
use crate::problem::{ApiError, Code};
use crate::refusals::Refused;
use crate::wire::device::{
    ConfirmationWanted, FinishAuthentication, FinishedAuthentication, PostContext, Salted, Shown,
    StartAuthentication, StartedAuthentication,
};
use crate::wire::{Moment, Octets, Octets32};

/// Judged against keys that changed meanwhile, an answer is judged this often.
const JUDGEMENTS: usize = 2;

/// Returns what the user is asked, and the challenge.
///
/// Repeating it changes nothing: an operation has one outstanding challenge.
/// Without the right device token the answer is the one to a registration for
/// which nothing waits.
#[utoipa::path(
    post, path = "/device/v1/operations/start", tag = "device",
    operation_id = "start_authentication", security(()), request_body = StartAuthentication,
    responses((status = 200, description = "The operation and its challenge.", body = StartedAuthentication)),
)]
pub async fn start(call: Call, body: Body<StartAuthentication>) -> Result<HttpResponse, ApiError> {
    let body = body.value;
    check_version(&body.client_version)?;
    let registration = recognised(&call, body.registration_id, &body.device_token.0)?;
    let oldest = registration.open_operations.first().copied();
    if registration.state == RegistrationState::Locked {
        return Err(Code::RegistrationLocked.into());
    }
    let id = body.operation_id.or(oldest).ok_or(Code::OperationNotFound)?;
    own_operation(&call, id, body.registration_id)?;
    let want = Want::StartAuthentication(command::StartAuthentication {
        operation: id,
        challenge: random(&*call.entropy),
        client_version: body.client_version.clone(),
    });
    let command = call.command(want);
    let outcome =
        call.execute(command, None).await.map_err(|failed| not_done(&call, id, failed))?;
    if let Some(Event::OperationExpired(_)) = outcome.first_event()? {
        return Err(ended(OperationState::Expired));
    }
    started(&call, id)
}

/// Answers the challenge of an operation.
///
/// A challenge is judged once, pass or fail. The very same body again gets the
/// same answer and counts nothing.
#[utoipa::path(
    post, path = "/device/v1/operations/{id}/finish", tag = "device",
    operation_id = "finish_authentication", security(()), request_body = FinishAuthentication,
    params(("id" = String, Path, description = "Id of the operation.")),
    responses((status = 200, description = "How the answer was judged.", body = FinishedAuthentication)),
)]
pub async fn finish(
    call: Call,
    source: Source,
    id: Path<Id>,
    body: Body<FinishAuthentication>,
) -> Result<HttpResponse, ApiError> {
    let digest = body_digest(&body.bytes);
    let body = body.value;
    check_signature("/signatures/software", body.signatures.software.as_ref())?;
    check_signature("/signatures/possession", body.signatures.possession.as_ref())?;
    check_signature("/signatures/hardware", body.signatures.hardware.as_ref())?;
    let sent = SentAlong::new(
        &body.client_version,
        body.hw_key_client_status,
        body.client_data.as_ref(),
        body.risk_data.as_ref(),
        source,
    )?;
    let answer = Answer { id: *id, digest, body: &body, sent: &sent };
    for _ in 0..JUDGEMENTS {
        if let Some(judged) = answer.judge(&call).await? {
            return Ok(HttpResponse::Ok().json(view(&call, &judged)?));
        }
    }
    Err(Code::KeysChanged.into())
}

/// An answer to a challenge.
struct Answer<'a> {
    id: Id,
    digest: [u8; 32],
    body: &'a FinishAuthentication,
    sent: &'a SentAlong,
}

impl Answer<'_> {
    /// Verifies the signatures against the present keys and has them judged.
    /// None if the keys changed meanwhile.
    async fn judge(&self, call: &Call) -> Result<Option<AuthenticationJudgedV1>, ApiError> {
        let body = self.body;
        let (registration, operation) = self.recognised(call)?;
        let verifications = self.verify(Some(&operation), Some(&registration))?;
        let checked = verifications.len();
        let event_id = call.fresh_event_id();
        let (stream, subject) = (body.registration_id, registration.subject);
        let want = command::FinishAuthentication {
            operation: self.id,
            challenge: body.challenge.0,
            method: body.method,
            said: said(body),
            declared: self.sent.declared.clone(),
            body_digest: self.digest,
            keys_at: registration.keys_at,
            verifications,
            sealed: self.sent.sealed::<AuthenticationJudgedV1>(call, event_id, stream, subject)?,
        };
        let command = Command { event_id, want: Want::FinishAuthentication(Box::new(want)) };
        let event = match call.execute(command, None).await {
            Ok(outcome) => {
                let event = outcome.first_event()?;
                if let Some(Event::AuthenticationJudged(_)) = &event {
                    call.count_signatures(checked);
                }
                event
            }
            Err(Failed::Refused(Refusal::Stale)) => return Ok(None),
            Err(Failed::Refused(Refusal::JudgedBefore)) => Some(self.judged_before(call)?),
            Err(failed) => return Err(not_done(call, self.id, failed)),
        };
        match event {
            Some(Event::AuthenticationJudged(judged)) => Ok(Some(*judged)),
            // The only other event is that it expired just now.
            Some(_) | None => Err(ended(OperationState::Expired)),
        }
    }

    /// Registration and operation, for whoever has the device token. Without it,
    /// the same work is done for nobody's keys.
    fn recognised(&self, call: &Call) -> Result<(Arc<Registration>, Arc<Operation>), ApiError> {
        let id = self.body.registration_id;
        let found = recognised(call, id, &self.body.device_token.0)
            .and_then(|registration| Ok((registration, own_operation(call, self.id, id)?)));
        if found.is_err() {
            self.verify(None, None)?;
        }
        found
    }

    fn judged_before(&self, call: &Call) -> Result<Event, ApiError> {
        let operation = call.look().operation(self.id).ok_or(Code::OperationNotFound)?;
        let mut attempts = operation.attempts.iter();
        let same = attempts.find(|attempt| attempt.body_digest == self.digest);
        event_of(&*call.record(same.ok_or(Code::OperationNotFound)?.position)?)
    }

    /// Checks every signature of the request.
    fn verify(
        &self,
        operation: Option<&Operation>,
        registration: Option<&Registration>,
    ) -> Result<Vec<VerificationV1>, ApiError> {
        let body = self.body;
        let facts = AuthenticationFacts {
            application: operation.map_or(Id::NIL, |known| known.application),
            registration: body.registration_id,
            operation: self.id,
            challenge: body.challenge.0,
            kind: operation.map_or(OperationKind::Authentication, |known| known.kind),
            said: said(body),
            level: operation.map_or(Level::OneFactor, |known| known.level),
            context_hash: operation.map_or(NO_CONTENT, |known| known.context_hash),
            data_to_sign_hash: operation.map_or(NO_CONTENT, |known| known.data_to_sign_hash),
        };
        let signed = Signed::at_authentication(&facts, &self.sent.declared)
            .map_err(|error| ApiError::new(Code::Internal).cause(error))?;
        let key = |key: Option<&KeyBytes>| key.and_then(|key| key.check().ok());
        let software = registration.and_then(|known| known.software_key(body.method));
        let device = registration.and_then(|known| known.software_key(Method::Device));
        let hardware = registration.and_then(|known| known.hardware.as_ref());
        let signatures = &body.signatures;
        let claimed: Vec<_> = [
            (Role::Software, software, signatures.software.as_ref()),
            (Role::Possession, device, signatures.possession.as_ref()),
            (Role::Hardware, hardware, signatures.hardware.as_ref()),
        ]
        .into_iter()
        .filter_map(|(role, known, signature)| {
            let method = body.method;
            signature.map(|signature| Claimed { role, method, key: key(known), signature })
        })
        .collect();
        Ok(check(&signed, &claimed))
    }
}

/// What the user said, as it was signed.
fn said(body: &FinishAuthentication) -> Said {
    Said { decision: body.decision, reason: body.reject_reason, number: body.number }
}

/// The registration, for whoever has its device token.
pub(super) fn recognised(
    call: &Call,
    id: Id,
    token: &[u8; 32],
) -> Result<Arc<Registration>, ApiError> {
    let registration = call.look().registration(id);
    // An unknown one costs the same comparison, with a hash that no token has.
    let stored = registration.as_ref().map_or([0; 32], |known| known.device_token_hash);
    let same: bool = device_token_hash(token).ct_eq(&stored).into();
    registration.filter(|_| same).ok_or_else(|| {
        call.refusals.count(Refused::NotRecognised);
        Code::OperationNotFound.into()
    })
}

/// The operation, if it is of this registration.
fn own_operation(call: &Call, id: Id, registration: Id) -> Result<Arc<Operation>, ApiError> {
    let operation = call.look().operation(id);
    let own = operation.filter(|operation| operation.registration == registration);
    own.ok_or_else(|| {
        call.refusals.count(Refused::NotRecognised);
        Code::OperationNotFound.into()
    })
}

/// A failure as a device with the right token sees it.
fn not_done(call: &Call, id: Id, failed: Failed) -> ApiError {
    match failed {
        Failed::Refused(Refusal::Unknown) => Code::OperationNotFound.into(),
        Failed::Refused(Refusal::OperationState(state)) => {
            call.refusals.count(Refused::NotLive);
            over(call, id, state)
        }
        Failed::Refused(Refusal::ChallengeNotLive) => {
            call.refusals.count(Refused::NotLive);
            Code::ChallengeNotLive.into()
        }
        Failed::Refused(Refusal::RegistrationState(RegistrationState::Locked)) => {
            Code::RegistrationLocked.into()
        }
        Failed::Refused(Refusal::RegistrationState(_)) => Code::OperationNotFound.into(),
        Failed::Refused(Refusal::ClientTooOld) => Code::ClientNotServed.into(),
        Failed::Refused(Refusal::MethodNotOffered) => Code::MethodNotOffered.into(),
        Failed::Refused(Refusal::TooManyAttempts { until }) => {
            call.refusals.count(Refused::Limited);
            let seconds = seconds_until(until, call.clock.wall());
            ApiError::new(Code::TooManyRequests).retry_after_s(seconds)
        }
        Failed::Refused(refusal) => refused(&refusal),
        Failed::Error(error) => error,
    }
}

/// As [`ended`], and why, where the user has answered on another device.
fn over(call: &Call, id: Id, state: OperationState) -> ApiError {
    let reason = call.look().operation(id).and_then(|operation| operation.cancel_reason);
    if reason == Some(CancelReason::AnsweredElsewhere) {
        let words = format!("it is {state}: another device of the user has answered");
        return ApiError::new(Code::OperationState).detail(words);
    }
    ended(state)
}

fn ended(state: OperationState) -> ApiError {
    ApiError::new(Code::OperationState).detail(format!("it is {state}"))
}

/// What the device needs to ask the user and to sign.
fn started(call: &Call, id: Id) -> Result<HttpResponse, ApiError> {
    let operation = call.look().operation(id).ok_or(Code::OperationNotFound)?;
    let registration = call.look().registration(operation.registration);
    let registration = registration.ok_or(Code::OperationNotFound)?;
    let application = call.look().application(operation.application);
    let application = application.ok_or(Code::OperationNotFound)?;
    // Judged or ended by another request a moment ago.
    let challenge = operation.challenge.ok_or(Code::ChallengeNotLive)?;
    let nothing = operation.context_hash == NO_CONTENT && operation.data_to_sign_hash == NO_CONTENT;
    let request: Option<SealedRequestV1> =
        if nothing { None } else { call.sealed(operation.created_in, OpenedFor::Device)? };
    if request.is_none() && !nothing {
        // The user was erased: what would be signed can no longer be shown.
        return Err(Code::OperationNotFound.into());
    }
    let (context, data_to_sign) = match request {
        Some(request) => (request.context, request.data_to_sign),
        None => (None, None),
    };
    Ok(HttpResponse::Ok().json(StartedAuthentication {
        operation_id: id,
        application_id: operation.application,
        challenge: Octets32(challenge),
        kind: operation.kind,
        level: operation.level,
        methods: operation.methods.clone(),
        context: context.map(shown),
        confirmation: operation.matching.as_ref().map(|matching| ConfirmationWanted {
            how: matching.how,
            choices: matching.choices.clone(),
        }),
        data_to_sign: data_to_sign.map(salted),
        expires_at: Moment(operation.expires_at),
        remaining_attempts: remaining_attempts(&application, &registration),
    }))
}

fn salted(content: sealed::Salted) -> Salted {
    Salted { salt: Octets32(content.salt), octets: Octets(content.octets) }
}

fn shown(shown: sealed::Shown) -> Shown {
    let sealed::Shown { title, media_type, content } = shown;
    Shown { title, kind: media_type, salt: Octets32(content.salt), octets: Octets(content.octets) }
}

/// What the user is shown after approval, if there is anything.
fn post_context(
    call: &Call,
    judged: &AuthenticationJudgedV1,
) -> Result<Option<PostContext>, ApiError> {
    let operation = call.look().operation(judged.operation);
    let approved = judged.operation_state == OperationState::Completed;
    let Some(operation) = operation.filter(|operation| approved && operation.post_context) else {
        return Ok(None);
    };
    let request: Option<SealedRequestV1> = call.sealed(operation.created_in, OpenedFor::Device)?;
    Ok(request.and_then(|request| request.post_context).map(|shown| PostContext {
        title: shown.title,
        kind: shown.media_type,
        octets: Octets(shown.content.octets),
    }))
}

/// How an answer was judged, without what a thief of the phone could learn from.
fn view(call: &Call, judged: &AuthenticationJudgedV1) -> Result<FinishedAuthentication, ApiError> {
    let remaining = judged.failures_allowed.saturating_sub(judged.failures);
    Ok(FinishedAuthentication {
        accepted: judged.failure.is_none(),
        state: judged.operation_state,
        remaining_attempts: remaining,
        last_attempt: remaining == 1,
        locked: judged.counted && remaining == 0,
        must_reactivate: judged.failure == Some(AuthenticationFailure::HwKeyRequired),
        post_context: post_context(call, judged)?,
    })
}
