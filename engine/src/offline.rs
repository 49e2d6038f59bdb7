//! Approval by a phone without a network: a question to be scanned, a short code
//! to be typed.
//!
//! ```text
//! PENDING or STARTED --question issued--> the same, with a question --code judged--+--> COMPLETED
//!                                                                                 +--> the same, without it
//!                                                                                 +--> FAILED (locked, too many)
//! ```
//!
//! The service provider shows the *question*, signed by the server, as a QR code.
//! The phone checks the signature with a key that it learnt at activation, shows
//! what is asked, and makes a *code* of ten digits: which method, eight digits of
//! an HMAC over what is approved, and a check digit. The user types it where the
//! question was shown.
//!
//! A code is no signature. It rests on a secret that server and phone share, one
//! for each software key, given to the phone once, when that key was registered.
//! So it proves nothing to anybody but the server: an auditor needs that secret
//! to check it again. And the hardware key takes no part. That is why it is off
//! unless the application names the levels for which it will do, and never there
//! where its strategy requires a hardware key.
//!
//! A question is judged once, and a wrong code counts like a wrong PIN. A slip of
//! the finger does not: the check digit tells, and nothing is judged.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::hmac;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::broadcast;
use crate::command::{AskOffline, FinishOffline, Refusal};
use crate::entries::{Application, Look, Operation, Registration};
use crate::events::{Actor, Bytes32, OfflineAskedV1, OfflineJudgedV1, RegistrationLockedV1};
use crate::ids::{Id, Micros};
use crate::key::KeyBytes;
use crate::operation::{CHALLENGES_MAX, expire_now, forgives};
use crate::plan::{Decided, Plan, has_passed, service_provider};
use crate::reasons::{
    AuthenticationFailure, LockReason, OperationKind, OperationState, RegistrationState,
};
use crate::sealed::{Salted, Shown};
use crate::strategy::HardwareCheck;
use crate::terms::{Decision, Level, Method};
use crate::timed_lock;
use crate::transcript::{Content, Fields, NO_CONTENT};

/// Most octets of context and data to sign that a question carries, together:
/// what a QR code holds that a phone still reads from a screen.
pub const CONTENTS_MAX: usize = 1_024;
/// Bytes of a question's nonce.
pub const NONCE_LEN: usize = 16;
/// Digits of a code.
pub const CODE_LEN: usize = 10;
/// What a code says beside the method and the check digit: 10^8 values.
const TAGS: u64 = 100_000_000;

const QUESTION_DOMAIN: &str = "keytrail/offline/question/v1";
const CODE_DOMAIN: &str = "keytrail/offline/code/v1";
const SECRET_DOMAIN: &str = "keytrail/offline/secret/v1";

/// What a phone is asked, as the server signs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The application.
    pub application: Id,
    /// The registration.
    pub registration: Id,
    /// The operation.
    pub operation: Id,
    /// Fresh for each question.
    pub nonce: [u8; NONCE_LEN],
    /// Until when it can be answered, to the second.
    pub expires_at: Micros,
    /// What the operation asks for.
    pub kind: OperationKind,
    /// Factors required.
    pub level: Level,
    /// What is shown, if anything.
    pub context: Option<Shown>,
    /// What is signed beside it, if anything.
    pub data_to_sign: Option<Salted>,
}

/// Bytes that are no question, or one that is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an offline question")]
pub struct NotAQuestion;

impl Question {
    /// The question as it travels; none if it holds too much for a QR code.
    #[must_use]
    pub fn bytes(&self) -> Option<Vec<u8>> {
        let shown = self
            .context
            .as_ref()
            .map_or(0, |it| it.title.len() + it.media_type.len() + it.content.octets.len());
        let data = self.data_to_sign.as_ref().map_or(0, |it| it.octets.len());
        if shown + data > CONTENTS_MAX {
            return None;
        }
        let mut fields = Fields::default();
        for id in [&self.application, &self.registration, &self.operation] {
            fields.put(&id.0);
        }
        fields.put(&self.nonce);
        fields.put(&(self.expires_at.0 / 1_000_000).to_be_bytes());
        fields.put(self.kind.as_str().as_bytes());
        fields.put(self.level.as_str().as_bytes());
        if let Some(Shown { title, media_type, content }) = &self.context {
            fields.put(b"context");
            fields.put(title.as_bytes());
            fields.put(media_type.as_bytes());
            fields.put(&content.salt);
            fields.put(&content.octets);
        }
        if let Some(Salted { salt, octets }) = &self.data_to_sign {
            fields.put(b"data");
            fields.put(salt);
            fields.put(octets);
        }
        Some(fields.into_bytes())
    }

    /// Reads what [`Question::bytes`] made.
    ///
    /// # Errors
    ///
    /// [`NotAQuestion`].
    pub fn parse(bytes: &[u8]) -> Result<Self, NotAQuestion> {
        let mut left = bytes;
        let mut field = || {
            let (len, rest) = left.split_first_chunk::<4>()?;
            let len = usize::try_from(u32::from_be_bytes(*len)).ok()?;
            let (field, rest) = rest.split_at_checked(len)?;
            left = rest;
            Some(field)
        };
        let mut read = || {
            let [application, registration, operation] =
                [id(field()?)?, id(field()?)?, id(field()?)?];
            let nonce = field()?.try_into().ok()?;
            let seconds = u64::from_be_bytes(field()?.try_into().ok()?);
            let kind = OperationKind::parse(text(field()?)?)?;
            let level = Level::parse(text(field()?)?)?;
            let mut next = field();
            let mut context = None;
            if next == Some(b"context") {
                let (title, media_type) = (text(field()?)?.to_owned(), text(field()?)?.to_owned());
                let content = salted(field()?, field()?)?;
                context = Some(Shown { title, media_type, content });
                next = field();
            }
            let data_to_sign = match next {
                Some(b"data") => Some(salted(field()?, field()?)?),
                Some(_) => return None,
                None => None,
            };
            let expires_at = Micros(seconds.checked_mul(1_000_000)?);
            Some(Self {
                application,
                registration,
                operation,
                nonce,
                expires_at,
                kind,
                level,
                context,
                data_to_sign,
            })
        };
        let question = read().ok_or(NotAQuestion)?;
        // One spelling: what is left over, or written otherwise, is no question.
        if question.bytes().as_deref() == Some(bytes) { Ok(question) } else { Err(NotAQuestion) }
    }

    /// What of it a code approves.
    #[must_use]
    pub fn facts(&self) -> Facts {
        let data = self.data_to_sign.as_ref();
        let data = data.map(|salted| (&salted.salt, &salted.octets[..]));
        Facts {
            application: self.application,
            registration: self.registration,
            operation: self.operation,
            nonce: self.nonce,
            kind: self.kind,
            level: self.level,
            context_hash: self.context.as_ref().map_or(NO_CONTENT, Shown::hash),
            data_to_sign_hash: Content::DataToSign.hash_or_none(data),
        }
    }
}

fn id(field: &[u8]) -> Option<Id> {
    field.try_into().ok().map(Id)
}

fn text(field: &[u8]) -> Option<&str> {
    std::str::from_utf8(field).ok()
}

fn salted(salt: &[u8], octets: &[u8]) -> Option<Salted> {
    Some(Salted { salt: salt.try_into().ok()?, octets: octets.to_vec() })
}

/// What the server's key signs of a question's bytes, by ECDSA with SHA-256.
#[must_use]
pub fn signed(question: &[u8]) -> Vec<u8> {
    let mut fields = Fields::default();
    fields.put(QUESTION_DOMAIN.as_bytes());
    fields.put(question);
    fields.into_bytes()
}

/// The secret that server and phone share for a software key. It follows from a
/// secret of the server, which stands in no record, and from the key: with
/// another key comes another secret.
#[must_use]
pub fn secret(
    master: &Bytes32,
    registration: Id,
    method: Method,
    key: &KeyBytes,
) -> Zeroizing<Bytes32> {
    let mut fields = Fields::default();
    fields.put(SECRET_DOMAIN.as_bytes());
    fields.put(&registration.0);
    fields.put(method.as_str().as_bytes());
    fields.put(&key.x);
    fields.put(&key.y);
    Zeroizing::new(*blake3::keyed_hash(master, &fields.into_bytes()).as_bytes())
}

/// What a code approves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// The application.
    pub application: Id,
    /// The registration.
    pub registration: Id,
    /// The operation.
    pub operation: Id,
    /// The question's.
    pub nonce: [u8; NONCE_LEN],
    /// What the operation asks for.
    pub kind: OperationKind,
    /// Factors required.
    pub level: Level,
    /// Hash of the context, zeros if none.
    pub context_hash: Bytes32,
    /// Hash of the data to sign, zeros if none.
    pub data_to_sign_hash: Bytes32,
}

/// Ten digits: the method, eight digits of an HMAC, a check digit.
#[derive(Clone, PartialEq, Eq)]
pub struct OfflineCode(String);

impl OfflineCode {
    /// The code by which `method` approves, made with its secret.
    #[must_use]
    pub fn of(secret: &Bytes32, method: Method, facts: &Facts) -> Self {
        let mut fields = Fields::default();
        fields.put(CODE_DOMAIN.as_bytes());
        for id in [&facts.application, &facts.registration, &facts.operation] {
            fields.put(&id.0);
        }
        fields.put(&facts.nonce);
        fields.put(facts.kind.purpose().as_str().as_bytes());
        fields.put(facts.level.as_str().as_bytes());
        fields.put(method.as_str().as_bytes());
        fields.put(Decision::Approve.as_str().as_bytes());
        fields.put(&facts.context_hash);
        fields.put(&facts.data_to_sign_hash);
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let tag = hmac::sign(&key, &fields.into_bytes());
        let head = tag.as_ref().iter().take(8).fold(0, |n, byte| n << 8 | u64::from(*byte));
        let digits = format!("{}{:08}", digit_of(method), head % TAGS);
        let check = check_digit(&digits);
        Self(format!("{digits}{check}"))
    }

    /// What a user typed; blanks and hyphens are passed over. None if it is no
    /// code: a slip of the finger.
    #[must_use]
    pub fn parse(typed: &str) -> Option<Self> {
        let digits: String = typed.chars().filter(|c| !matches!(c, ' ' | '-')).collect();
        let whole = digits.len() == CODE_LEN && digits.bytes().all(|b| b.is_ascii_digit());
        let (said, check) = whole.then(|| digits.split_at(CODE_LEN - 1))?;
        (check_digit(said).to_string() == check && method_of(&digits).is_some())
            .then_some(Self(digits))
    }

    /// The method that it says it was made for.
    #[must_use]
    pub fn method(&self) -> Option<Method> {
        method_of(&self.0)
    }

    /// Its digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether both are the same, in constant time.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        self.0.as_bytes().ct_eq(other.0.as_bytes()).into()
    }
}

impl fmt::Debug for OfflineCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

fn digit_of(method: Method) -> u8 {
    match method {
        Method::Device => 1,
        Method::DevicePin => 2,
        Method::DeviceBiometric => 3,
    }
}

fn method_of(digits: &str) -> Option<Method> {
    let first = digits.bytes().next()?;
    Method::ALL.iter().copied().find(|method| digit_of(*method) + b'0' == first)
}

/// Luhn's (ISO/IEC 7812-1, annex B): every wrong digit shows, and most swaps.
fn check_digit(digits: &str) -> u8 {
    let sum: u32 = digits
        .bytes()
        .rev()
        .enumerate()
        .map(|(place, digit)| {
            let digit = u32::from(digit - b'0');
            let doubled = if place % 2 == 0 { 2 * digit } else { digit };
            doubled / 10 + doubled % 10
        })
        .sum();
    ((10 - sum % 10) % 10) as u8
}

/// Why an operation cannot be answered without a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obstacle {
    /// The application does not allow it at this level.
    Level,
    /// The phone was given no secrets when its keys were registered.
    NoSecret,
    /// A number is to be confirmed, which a code cannot carry.
    Confirmation,
    /// The device began it itself, and has a network.
    Begun,
    /// It changes a key, and the new key must sign.
    KeyChange,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Level => "the application does not allow it at this level",
            Self::NoSecret => {
                "its device has no secrets for it; they come with an activation while \
                 offline_levels is set"
            }
            Self::Confirmation => "a number is to be confirmed",
            Self::Begun => "the device began it",
            Self::KeyChange => "it changes a key or gives recovery codes, which takes signatures",
        })
    }
}

/// The operation and what belongs to it, if its service provider asks.
struct Concerned {
    operation: Arc<Operation>,
    registration: Arc<Registration>,
    application: Arc<Application>,
}

impl Concerned {
    fn of(look: Look, by: &Actor, id: Id) -> Result<Self, Refusal> {
        let operation = look.operation(id);
        let owner = operation.as_ref().map_or(Id::NIL, |known| known.application);
        let application = service_provider(look, by, owner)?;
        let operation = operation.ok_or(Refusal::Unknown)?;
        let registration = look.registration(operation.registration).ok_or(Refusal::Unknown)?;
        Ok(Self { operation, registration, application })
    }

    fn is_possible(&self) -> Result<(), Refusal> {
        if self.registration.state != RegistrationState::Active {
            return Err(Refusal::RegistrationState(self.registration.state));
        }
        let obstacle = if !self.application.config.offline_levels.contains(&self.operation.level) {
            Obstacle::Level
        } else if !self.registration.offline {
            Obstacle::NoSecret
        } else if self.operation.matching.is_some() {
            Obstacle::Confirmation
        } else if self.operation.begun.is_some() {
            Obstacle::Begun
        } else if self.operation.kind.is_of_one_device() {
            Obstacle::KeyChange
        } else {
            return Ok(());
        };
        Err(Refusal::OfflineNotPossible(obstacle))
    }
}

pub(crate) fn ask(look: Look, at: Micros, event_id: Id, want: &AskOffline) -> Decided {
    let concerned = Concerned::of(look, &want.by, want.operation)?;
    let operation = &concerned.operation;
    if operation.state.is_final() {
        return Err(Refusal::OperationState(operation.state));
    }
    if has_passed(operation.expires_at, at) {
        return expire_now(event_id, operation, want.operation);
    }
    concerned.is_possible()?;
    if operation.offline_nonce.is_some() {
        return Ok(Vec::new());
    }
    let asked =
        OfflineAskedV1 { by: want.by.clone(), operation: want.operation, nonce: want.nonce };
    Plan::new(event_id).event(operation.registration, asked).done()
}

pub(crate) fn finish(look: Look, at: Micros, event_id: Id, want: &FinishOffline) -> Decided {
    let concerned = Concerned::of(look, &want.by, want.operation)?;
    let Concerned { operation, registration, .. } = &concerned;
    if operation.attempts.iter().any(|attempt| attempt.body_digest == want.body_digest) {
        return Err(Refusal::JudgedBefore);
    }
    if operation.state.is_final() {
        return Err(Refusal::OperationState(operation.state));
    }
    if has_passed(operation.expires_at, at) {
        return expire_now(event_id, operation, want.operation);
    }
    concerned.is_possible()?;
    if operation.offline_nonce != Some(want.nonce) {
        return Err(Refusal::ChallengeNotLive);
    }
    if !operation.methods.contains(&want.method) || registration.software_key(want.method).is_none()
    {
        return Err(Refusal::MethodNotOffered);
    }
    if registration.keys_at != want.keys_at {
        return Err(Refusal::Stale);
    }
    let judged = judge(&concerned, want);
    let locks = judged.failure.is_some() && judged.failures >= judged.failures_allowed;
    let (id, answered) = (operation.registration, judged.failure.is_none());
    let mut plan = Plan::new(event_id).event(id, judged);
    if answered {
        plan = broadcast::answered_elsewhere(plan, look, want.operation, operation);
    }
    if locks {
        let release_at = timed_lock::release_at(&concerned.application.config, registration, at);
        let reason = LockReason::TooManyFailures;
        plan = plan.event(id, RegistrationLockedV1 { by: None, reason, release_at });
    }
    plan.done()
}

/// What a code is judged to be. No signature stands behind it: a wrong one counts
/// always, or it could be guessed.
fn judge(concerned: &Concerned, want: &FinishOffline) -> OfflineJudgedV1 {
    let Concerned { operation, registration, application } = concerned;
    let forgives = forgives(registration, want.method, Decision::Approve);
    let failures = match (want.right, forgives) {
        (false, _) => registration.failures.saturating_add(1),
        (true, true) => 0,
        (true, false) => registration.failures,
    };
    let failures_allowed = application.config.failures_allowed;
    let over = failures >= failures_allowed || operation.attempts.len() + 1 >= CHALLENGES_MAX;
    let check = match &registration.hardware {
        Some(_) => HardwareCheck::Missing,
        None => HardwareCheck::without_key(registration.hw_key_impossible),
    };
    OfflineJudgedV1 {
        by: want.by.clone(),
        application: operation.application,
        operation: want.operation,
        nonce: want.nonce,
        kind: operation.kind,
        level: operation.level,
        context_hash: operation.context_hash,
        data_to_sign_hash: operation.data_to_sign_hash,
        method: want.method,
        code: want.code.clone(),
        right: want.right,
        body_digest: want.body_digest,
        keys_at: want.keys_at,
        config_version: application.config_version,
        hw_key_server_result: check.result(),
        failure: (!want.right).then_some(AuthenticationFailure::OfflineCodeWrong),
        failures,
        failures_allowed,
        operation_state: if want.right {
            OperationState::Completed
        } else if over {
            OperationState::Failed
        } else {
            operation.state
        },
    }
}
