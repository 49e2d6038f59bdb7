//! Activation, for devices.

use actix_web::HttpResponse;
use actix_web::web::Path;
use engine::codes;
use engine::command::{self, Command, Refusal, Want};
use engine::config::Config;
use engine::entries::Application;
use engine::events::{
    ActivationJudgedV1, Event, EvidenceJudgedV1, KeySetV1, MethodKeyV1, VerificationV1,
};
use engine::ids::Id;
use engine::key::PublicKey;
use engine::machine::random;
use engine::proofs::{ActivationFacts, Signed};
use engine::reasons::{BudgetScope, CodeKind};
use engine::terms::{Method, Role};
use engine::transcript::{Hash, NO_CONTENT, device_token_hash};
use engine::{entries, events};

use super::attestation::Sent;
use super::judging::{
    Claimed, SentAlong, body_digest, check, check_signature, check_version, seconds_until,
};
use crate::call::{Call, Failed, Outcome, event_of, refused};
use crate::guesses::{Guesser, budget};
use crate::http::body::Body;
use crate::http::source::Source;
use crate::problem::{ApiError, Code};
use crate::refusals::Refused;
use crate::wire::device::{
    FinishActivation, FinishedActivation, PinPolicy, StartActivation, StartedActivation,
};
use crate::wire::{Moment, Octets32};

/// Longest code as it is typed, with blanks and hyphens.
const TYPED_MAX: usize = 64;
/// Most software keys that are looked at; there are fewer methods.
const SOFTWARE_KEYS_MAX: usize = 8;

/// Evidence judged by what changed meanwhile is judged this often.
const JUDGEMENTS: usize = 2;

const NONCE_CONTEXT: &str = "keytrail 2026 activation nonce v1";

/// Redeems an activation code or QR secret.
///
/// The same request again (same nonce) gets the same answer. Wrong codes are
/// counted, on the application and on the source; when a budget is used up,
/// 429 until its window ends.
#[utoipa::path(
    post, path = "/device/v1/activations/start", tag = "device", operation_id = "start_activation",
    security(()), request_body = StartActivation,
    responses((status = 200, description = "The challenge, and what the keys are to be like.", body = StartedActivation)),
)]
pub async fn start(
    call: Call,
    source: Source,
    body: Body<StartActivation>,
) -> Result<HttpResponse, ApiError> {
    let body = body.value;
    check_version(&body.client_version)?;
    let (kind, hash) = code_hash(&call, &body)?;
    let application = call.look().application(body.application_id);
    // All applications that do not exist are one: ids are free to make up, and
    // each would otherwise take room that counts of real ones need.
    let counted_as = if application.is_some() { body.application_id } else { Id::NIL };
    let guesser = Guesser { application: counted_as, source, kind };
    let unknown = Config::default();
    let config = application.as_ref().map_or(&unknown, |application| &application.config);
    may_guess(&call, guesser, config, application.as_deref())?;
    let Some(id) = call.look().code(&hash) else {
        return Err(wrong_code(&call, guesser, config).await);
    };
    let want = Want::StartActivation(command::StartActivation {
        activation: id,
        with: kind,
        nonce_hash: blake3::derive_key(NONCE_CONTEXT, &body.nonce.0),
        challenge: random(&*call.entropy),
        client_version: body.client_version.clone(),
    });
    let command = call.command(want);
    match call.execute(command, None).await {
        Ok(outcome) => match outcome.first_event()? {
            Some(Event::ActivationExpired(_)) => Err(wrong_code(&call, guesser, config).await),
            Some(_) | None => started(&call, id, &body.client_version),
        },
        Err(Failed::Refused(
            Refusal::CodeRedeemed | Refusal::ActivationState(_) | Refusal::Unknown,
        )) => Err(wrong_code(&call, guesser, config).await),
        Err(Failed::Refused(Refusal::CodesRefused { until })) => {
            call.refusals.count(Refused::Limited);
            Err(too_many(seconds_until(until, call.clock.wall())))
        }
        Err(Failed::Refused(Refusal::ClientTooOld)) => Err(Code::ClientNotServed.into()),
        Err(Failed::Refused(refusal)) => Err(refused(&refusal)),
        Err(Failed::Error(error)) => Err(error),
    }
}

/// Answers the challenge of an activation with keys.
///
/// Judged once: if a proof fails, the activation is over. The very same body
/// again gets the same answer.
#[utoipa::path(
    post, path = "/device/v1/activations/{id}/finish", tag = "device",
    operation_id = "finish_activation", security(()), request_body = FinishActivation,
    params(("id" = String, Path, description = "Id of the activation.")),
    responses((status = 200, description = "Whether the keys were taken.", body = FinishedActivation)),
)]
pub async fn finish(
    call: Call,
    source: Source,
    id: Path<Id>,
    body: Body<FinishActivation>,
) -> Result<HttpResponse, ApiError> {
    let digest = body_digest(&body.bytes);
    let body = body.value;
    let keys = Keys::read(&body)?;
    let attestation = Sent::read(body.attestation.as_ref())?;
    let sent = SentAlong::new(
        &body.client_version,
        body.hw_key_client_status,
        body.client_data.as_ref(),
        body.risk_data.as_ref(),
        source,
    )?
    .with_attestation(attestation.as_ref().map(Sent::content));
    let answer = Answer { id: *id, digest, body: &body, keys: &keys, sent: &sent, attestation };
    for _ in 0..JUDGEMENTS {
        match answer.judge(&call).await? {
            // What evidence is judged by has changed meanwhile.
            Err(Failed::Refused(Refusal::Stale)) => (),
            outcome => return finished(&call, *id, outcome),
        }
    }
    Err(ApiError::new(Code::Busy).retry_after_s(1))
}

/// An answer to the challenge of an activation.
struct Answer<'a> {
    id: Id,
    digest: [u8; 32],
    body: &'a FinishActivation,
    keys: &'a Keys,
    sent: &'a SentAlong,
    attestation: Option<Sent>,
}

impl Answer<'_> {
    /// Verifies signatures and evidence, and has them judged. The work is the
    /// same whether the activation is known, live, or neither.
    async fn judge(&self, call: &Call) -> Result<Result<Outcome, Failed>, ApiError> {
        let activation = call.look().activation(self.id);
        let known = activation.as_ref();
        let registration = known.and_then(|known| call.look().registration(known.registration));
        let application = known.and_then(|known| call.look().application(known.application));
        let verifications = self.verify(activation.as_deref(), registration.as_deref())?;
        let evidence = self.evidence(call, application.as_deref())?;
        let (Some(activation), Some(registration)) = (activation, registration) else {
            call.refusals.count(Refused::NotRecognised);
            return Err(Code::ActivationNotFound.into());
        };
        let checked = verifications.len();
        let event_id = call.fresh_event_id();
        let (stream, subject) = (activation.registration, registration.subject);
        let want = command::FinishActivation {
            activation: self.id,
            challenge: self.body.challenge.0,
            declared: self.sent.declared.clone(),
            keys: self.keys.set.clone(),
            device_token_hash: device_token_hash(&self.body.device_token.0),
            attestation_hash: self.attestation_hash(),
            body_digest: self.digest,
            verifications,
            evidence,
            sealed: self.sent.sealed::<ActivationJudgedV1>(call, event_id, stream, subject)?,
        };
        let command = Command { event_id, want: Want::FinishActivation(Box::new(want)) };
        let outcome = call.execute(command, None).await;
        if let Ok(outcome) = &outcome
            && let Some(Event::ActivationJudged(_)) = outcome.first_event()?
        {
            call.count_signatures(checked);
        }
        Ok(outcome)
    }

    fn attestation_hash(&self) -> Hash {
        self.attestation.as_ref().map_or(NO_CONTENT, Sent::hash)
    }

    /// What judging the evidence finds, if there is any and somebody asks for it.
    fn evidence(
        &self,
        call: &Call,
        application: Option<&Application>,
    ) -> Result<Option<EvidenceJudgedV1>, ApiError> {
        let Some(sent) = &self.attestation else { return Ok(None) };
        sent.judged(call, application, &self.body.challenge.0, self.keys.hardware.as_ref())
    }

    /// Checks every signature of the request.
    fn verify(
        &self,
        activation: Option<&entries::Activation>,
        registration: Option<&entries::Registration>,
    ) -> Result<Vec<VerificationV1>, ApiError> {
        let facts = ActivationFacts {
            application: activation.map_or(Id::NIL, |known| known.application),
            registration: activation.map_or(Id::NIL, |known| known.registration),
            activation: self.id,
            challenge: self.body.challenge.0,
            keys: &self.keys.set,
            device_token_hash: device_token_hash(&self.body.device_token.0),
            attestation_hash: self.attestation_hash(),
        };
        let signed = Signed::at_activation(&facts, &self.sent.declared)
            .map_err(|error| ApiError::new(Code::Internal).cause(error))?;
        Ok(check(&signed, &self.claimed(registration)))
    }

    /// The signatures of the request, and whose they claim to be.
    fn claimed(&self, registration: Option<&entries::Registration>) -> Vec<Claimed<'_>> {
        let (body, keys) = (self.body, self.keys);
        let mut claimed = Vec::with_capacity(keys.software.len() + 3);
        for (slot, (method, key)) in body.software_keys.iter().zip(&keys.software) {
            if let Some(signature) = &slot.signature {
                let (role, key) = (Role::Software, Some(*key));
                claimed.push(Claimed { role, method: *method, key, signature });
            }
        }
        let hardware = body.hardware_key.as_ref().and_then(|slot| slot.signature.as_ref());
        let on_file = |key: Option<&engine::key::KeyBytes>| key.and_then(|key| key.check().ok());
        let old_device = registration.and_then(|known| known.software_key(Method::Device));
        let old_hardware = registration.and_then(|known| known.hardware.as_ref());
        for (role, key, signature) in [
            (Role::Hardware, keys.hardware, hardware),
            (Role::Previous, on_file(old_device), body.previous.device.as_ref()),
            (Role::Previous, on_file(old_hardware), body.previous.hardware.as_ref()),
        ] {
            if let Some(signature) = signature {
                claimed.push(Claimed { role, method: Method::Device, key, signature });
            }
        }
        claimed
    }
}

/// The keys of a request, read.
struct Keys {
    set: KeySetV1,
    software: Vec<(Method, PublicKey)>,
    hardware: Option<PublicKey>,
}

impl Keys {
    fn read(body: &FinishActivation) -> Result<Self, ApiError> {
        let invalid = |pointer: String, words: String| ApiError::invalid(pointer, words);
        if body.software_keys.len() > SOFTWARE_KEYS_MAX {
            return Err(invalid("/software_keys".into(), "must have at most 8 items".into()));
        }
        let read = |pointer: String, octets: &[u8]| {
            PublicKey::from_bytes(octets).map_err(|error| invalid(pointer, error.to_string()))
        };
        let mut software = Vec::with_capacity(body.software_keys.len());
        for (index, slot) in body.software_keys.iter().enumerate() {
            let at = |member: &str| format!("/software_keys/{index}/{member}");
            check_signature(&at("signature"), slot.signature.as_ref())?;
            software.push((slot.method, read(at("public_key"), &slot.public_key.0)?));
        }
        let hardware = match &body.hardware_key {
            Some(slot) => {
                check_signature("/hardware_key/signature", slot.signature.as_ref())?;
                Some(read("/hardware_key/public_key".into(), &slot.public_key.0)?)
            }
            None => None,
        };
        check_signature("/previous/device", body.previous.device.as_ref())?;
        check_signature("/previous/hardware", body.previous.hardware.as_ref())?;
        let stored =
            |&(method, key): &(Method, PublicKey)| MethodKeyV1 { method, key: key.to_stored() };
        let set = KeySetV1 {
            software: software.iter().map(stored).collect(),
            hardware: hardware.map(|key| key.to_stored()),
        };
        Ok(Self { set, software, hardware })
    }
}

fn finished(
    call: &Call,
    id: Id,
    outcome: Result<Outcome, Failed>,
) -> Result<HttpResponse, ApiError> {
    let judged = match outcome {
        Ok(outcome) => outcome.first_event()?,
        Err(Failed::Refused(Refusal::JudgedBefore)) => {
            let activation = call.look().activation(id).ok_or(Code::ActivationNotFound)?;
            let judged = activation.judged.as_ref().ok_or(Code::ActivationNotFound)?;
            Some(event_of(&*call.record(judged.position)?)?)
        }
        Err(Failed::Refused(
            Refusal::Unknown | Refusal::ActivationState(_) | Refusal::ChallengeNotLive,
        )) => {
            call.refusals.count(Refused::NotLive);
            return Err(Code::ActivationNotFound.into());
        }
        Err(Failed::Refused(Refusal::ClientTooOld)) => return Err(Code::ClientNotServed.into()),
        Err(Failed::Refused(Refusal::Invalid { field: "keys", expected })) => {
            return Err(ApiError::invalid("/software_keys", expected));
        }
        Err(Failed::Refused(refusal)) => return Err(refused(&refusal)),
        Err(Failed::Error(error)) => return Err(error),
    };
    let Some(Event::ActivationJudged(judged)) = judged else {
        // The only other event is that it expired just now.
        call.refusals.count(Refused::NotLive);
        return Err(Code::ActivationNotFound.into());
    };
    let activation = call.look().activation(id).ok_or(Code::ActivationNotFound)?;
    Ok(HttpResponse::Ok().json(FinishedActivation {
        accepted: judged.failure.is_none(),
        registration_id: activation.registration,
        hardware_key_stored: judged.hw_key_stored,
    }))
}

/// What was sent to be redeemed, as it stands in state.
fn code_hash(call: &Call, body: &StartActivation) -> Result<(CodeKind, events::Bytes32), ApiError> {
    let (key, application) = (call.code_key(), body.application_id);
    let invalid = |pointer: &str, words: &str| Err(ApiError::invalid(pointer, words));
    match (&body.code, &body.qr_secret) {
        (Some(typed), None) if typed.len() > TYPED_MAX => {
            invalid("/code", "must have at most 64 bytes")
        }
        (Some(typed), None) => {
            let code = codes::normalised(typed);
            Ok((CodeKind::Typed, codes::code_hash(key, application, &code)))
        }
        (None, Some(secret)) if secret.0.len() != 16 => invalid("/qr_secret", "must have 16 bytes"),
        (None, Some(secret)) => Ok((CodeKind::Qr, codes::qr_hash(key, application, &secret.0))),
        (Some(_), Some(_)) | (None, None) => {
            invalid("", "must have exactly one of code and qr_secret")
        }
    }
}

/// Whether a code may be tried now.
fn may_guess(
    call: &Call,
    guesser: Guesser,
    config: &Config,
    application: Option<&Application>,
) -> Result<(), ApiError> {
    let wall = call.clock.wall();
    let refused_until = application
        .filter(|_| guesser.kind == CodeKind::Typed)
        .map(|application| application.codes_refused_until)
        .filter(|until| *until > wall);
    let wait_s = match call.guesses.check(guesser, config, call.clock.monotonic()) {
        Err(exhausted) => Some(exhausted.retry_after_s),
        Ok(()) => refused_until.map(|until| seconds_until(until, wall)),
    };
    match wait_s {
        Some(seconds) => {
            call.refusals.count(Refused::Limited);
            Err(too_many(seconds))
        }
        None => Ok(()),
    }
}

/// Counts a wrong code; the first one beyond a budget becomes an event.
async fn wrong_code(call: &Call, guesser: Guesser, config: &Config) -> ApiError {
    call.refusals.count(Refused::Code);
    let exhausted = call.guesses.count(guesser, config, call.clock.monotonic());
    for scope in exhausted {
        if let Err(error) = record_exhausted(call, guesser.application, scope, config).await {
            return error;
        }
    }
    Code::ActivationNotFound.into()
}

async fn record_exhausted(
    call: &Call,
    application: Id,
    scope: BudgetScope,
    config: &Config,
) -> Result<(), ApiError> {
    let until = call.clock.wall().plus_s(config.activation_failure_window_s.into());
    let failures = budget(config, scope);
    let want = Want::ExhaustCodeBudget { application, scope, until, failures };
    let command = call.command(want);
    match call.execute(command, None).await {
        // Codes of an application that does not exist leave no event.
        Ok(_) | Err(Failed::Refused(Refusal::Unknown)) => Ok(()),
        Err(Failed::Refused(refusal)) => Err(refused(&refusal)),
        Err(Failed::Error(error)) => Err(error),
    }
}

fn too_many(seconds: u64) -> ApiError {
    ApiError::new(Code::TooManyRequests).retry_after_s(seconds)
}

/// What a redeemed code gives.
fn started(call: &Call, id: Id, client_version: &str) -> Result<HttpResponse, ApiError> {
    let activation = call.look().activation(id).ok_or(Code::ActivationNotFound)?;
    let application =
        call.look().application(activation.application).ok_or(Code::ActivationNotFound)?;
    let started = activation.started.as_ref().ok_or(Code::ActivationNotFound)?;
    let config = &application.config;
    let version = check_version(client_version)?;
    Ok(HttpResponse::Ok().json(StartedActivation {
        activation_id: id,
        registration_id: activation.registration,
        challenge: Octets32(started.challenge),
        expires_at: Moment(activation.expires_at),
        again: activation.again,
        methods: config.allowed_methods.clone(),
        pin_policy: PinPolicy {
            length_min: config.pin_length_min,
            length_max: config.pin_length_max,
            kind: config.pin_type,
        },
        expects_hardware_key: version.is_at_least(&config.hw_key_min_client_version),
        risk_attributes: config.enabled_risk_data.clone(),
    }))
}
