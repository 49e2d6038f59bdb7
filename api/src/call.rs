//! One request on its way: the app, its correlation, and how commands are executed for it.

use std::future::{Ready, ready};
use std::ops::Deref;
use std::sync::Arc;

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpMessage, HttpRequest};
use engine::command::{Command, Refusal, Want};
use engine::events::Event;
use engine::ids::{Id, Position};
use engine::machine::Record;
use serde::de::DeserializeOwned;
use storage::sequencer::{Envelope, ExecuteError};

use crate::app::{App, Slot};
use crate::http::correlation::Correlation;
use crate::http::idempotency::Asked;
use crate::key_use::OpenedFor;
use crate::problem::{ApiError, Code};
use crate::sealing;

/// Seconds after which a caller may come back when the queue is full.
const BUSY_RETRY_S: u64 = 1;

/// A request on its way. Gives access to everything in [`App`].
#[derive(Debug)]
pub struct Call {
    app: Arc<App>,
    correlation: Id,
}

/// What came of a command.
#[derive(Debug)]
pub enum Outcome {
    /// It was carried out; these are its records, none if it was already so.
    Done(Vec<Arc<Record>>),
    /// It was carried out before, under the same idempotency key; its first record.
    Repeat(Arc<Record>),
}

/// Why a command did not happen.
#[derive(Debug)]
pub enum Failed {
    /// A rule forbids it.
    Refused(Refusal),
    /// Anything else; the same answer for everybody.
    Error(ApiError),
}

impl Call {
    /// Executes a command.
    ///
    /// # Errors
    ///
    /// [`Failed`]; nothing has happened then.
    pub async fn execute(
        &self,
        command: Command,
        causation: Option<Id>,
    ) -> Result<Outcome, Failed> {
        let causation = causation.unwrap_or_else(|| self.app.fresh_id());
        let envelope = Envelope { command, causation, correlation: self.correlation };
        match self.app.handle.execute(envelope).await {
            Ok(executed) => {
                self.app.waits.wake(&executed.records);
                Ok(Outcome::Done(executed.records))
            }
            Err(ExecuteError::Refused(Refusal::Repeat(first))) => {
                self.record(first).map(Outcome::Repeat).map_err(Failed::Error)
            }
            Err(ExecuteError::Refused(refusal)) => Err(Failed::Refused(refusal)),
            Err(other) => Err(Failed::Error(not_executed(other))),
        }
    }

    /// A command whose first event gets a fresh id.
    #[must_use]
    pub fn command(&self, want: Want) -> Command {
        Command { event_id: self.app.fresh_event_id(), want }
    }

    /// Executes what an API key asked for.
    ///
    /// # Errors
    ///
    /// The refusal as its caller sees it.
    pub async fn execute_for(&self, asked: &Asked, command: Command) -> Result<Outcome, ApiError> {
        self.execute(command, asked.causation).await.map_err(ApiError::from)
    }

    /// The record at a position that state names.
    ///
    /// # Errors
    ///
    /// [`Code::Internal`] if it cannot be read.
    pub fn record(&self, position: Position) -> Result<Arc<Record>, ApiError> {
        self.app.log.record(position).map_err(|error| ApiError::new(Code::Internal).cause(error))
    }

    /// What the record at `position` holds sealed, to be shown to `whom`, which is
    /// counted; none if it holds nothing or was erased.
    ///
    /// # Errors
    ///
    /// [`Code::Internal`] if the record cannot be read or does not open.
    pub fn sealed<T: DeserializeOwned>(
        &self,
        position: Position,
        whom: OpenedFor,
    ) -> Result<Option<T>, ApiError> {
        let record = self.record(position)?;
        if record.draft.sealed.is_empty() {
            return Ok(None);
        }
        let Some(subject) = sealing::subject_key(&self.app.keys, record.draft.subject)? else {
            return Ok(None);
        };
        self.app.key_uses.count(whom);
        sealing::open(&subject, &record.draft).map(Some)
    }
}

impl From<Failed> for ApiError {
    /// As the holder of an API key sees it.
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Refused(refusal) => refused(&refusal),
            Failed::Error(error) => error,
        }
    }
}

/// The event in a record of this log.
///
/// # Errors
///
/// [`Code::Internal`] if it cannot be read.
pub fn event_of(record: &Record) -> Result<Event, ApiError> {
    Event::decode(record.draft.event_type, record.draft.schema, &record.draft.clear)
        .map_err(|error| ApiError::new(Code::Internal).cause(error))
}

impl Outcome {
    /// The event of the first record, if there is a record.
    ///
    /// # Errors
    ///
    /// [`Code::Internal`] if it cannot be read.
    pub fn first_event(&self) -> Result<Option<Event>, ApiError> {
        let first = match self {
            Self::Done(records) => records.first(),
            Self::Repeat(first) => Some(first),
        };
        first.map(|record| event_of(record)).transpose()
    }
}

/// Why the writer did not execute a command, as the caller sees it.
fn not_executed(error: ExecuteError<Refusal>) -> ApiError {
    match error {
        ExecuteError::Busy => ApiError::new(Code::Busy).retry_after_s(BUSY_RETRY_S),
        ExecuteError::ReadOnly => ApiError::new(Code::Unavailable)
            .detail("the disk is full; nothing is written until there is space"),
        ExecuteError::TooLarge => Code::PayloadTooLarge.into(),
        ExecuteError::Stopped => ApiError::new(Code::Unavailable).detail("stopping"),
        error @ (ExecuteError::Internal | ExecuteError::Refused(_)) => {
            ApiError::new(Code::Internal).cause(error)
        }
    }
}

/// A refusal as the holder of an API key sees it.
#[must_use]
pub fn refused(refusal: &Refusal) -> ApiError {
    let state =
        |code, state: &dyn std::fmt::Display| ApiError::new(code).detail(format!("it is {state}"));
    match refusal {
        Refusal::Forbidden => Code::Forbidden.into(),
        Refusal::KeyReused => Code::IdempotencyKeyReused.into(),
        Refusal::Unknown => Code::NotFound.into(),
        Refusal::RevokesItself => Code::RevokesItself.into(),
        Refusal::Invalid { field, expected } => ApiError::invalid(format!("/{field}"), *expected),
        Refusal::Configuration(errors) => {
            errors.iter().fold(ApiError::new(Code::InvalidRequest), |error, wrong| match wrong {
                engine::config::ConfigError::Unknown(name) => {
                    error.error(format!("/configuration/{name}"), "is no property")
                }
                engine::config::ConfigError::Invalid { property, expected } => {
                    error.error(format!("/configuration/{property}"), expected)
                }
            })
        }
        Refusal::VersionConflict { actual } => ApiError::new(Code::VersionConflict)
            .detail(format!("the configuration is at version {actual}")),
        Refusal::CodeTooShort { needed } => ApiError::new(Code::CodeTooShort)
            .detail(format!("activation_code_length must be at least {needed} now")),
        Refusal::RegistrationState(at) => state(Code::RegistrationState, at),
        Refusal::ActivationState(at) => state(Code::ActivationState, at),
        Refusal::OperationState(at) => state(Code::OperationState, at),
        Refusal::TooManyOperations => Code::TooManyOperations.into(),
        Refusal::NoMethodFits => Code::NoMethodFits.into(),
        // What only a device's commands or the server's own meet.
        Refusal::Repeat(_)
        | Refusal::AlreadyStarted
        | Refusal::Taken
        | Refusal::CodeRedeemed
        | Refusal::CodesRefused { .. }
        | Refusal::ClientTooOld
        | Refusal::DeviceMayNotBegin
        | Refusal::MethodNotOffered
        | Refusal::ChallengeNotLive
        | Refusal::JudgedBefore
        | Refusal::Stale
        | Refusal::SubjectErased
        | Refusal::OtherRegistrations
        | Refusal::TooManyAttempts { .. } => {
            ApiError::new(Code::Internal).cause(format!("unexpected refusal: {refusal}"))
        }
    }
}

impl Deref for Call {
    type Target = App;

    fn deref(&self) -> &App {
        &self.app
    }
}

impl FromRequest for Call {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(Slot::app(request).and_then(|app| {
            let extensions = request.extensions();
            let correlation = extensions.get::<Correlation>().map(Correlation::id);
            let correlation = correlation
                .ok_or_else(|| ApiError::new(Code::Internal).cause("no correlation layer"))?;
            Ok(Self { app, correlation })
        }))
    }
}
