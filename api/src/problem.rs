//! Every failure this server answers with, in one table (RFC 9457).
//!
//! A handler returns an [`ApiError`]; the outermost layer ([`crate::http`])
//! turns it, and any bare error status of the framework, into a problem
//! document through [`render`]. So there is one shape for all of them, and a
//! new failure must choose its line in [`Code`].
//!
//! What leaves is the table's text, a detail written for the caller, and
//! pointers into the request. The cause goes to the log, once.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderValue};
use actix_web::{HttpResponse, ResponseError};
use serde::{Serialize, Serializer};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

/// The media type of a problem document.
pub const MEDIA_TYPE: &str = "application/problem+json";

macro_rules! table {
    ($($name:ident = $status:literal $code:literal, $title:literal, $meaning:literal;)*) => {
        /// What went wrong, as callers tell failures apart. Codes never change their meaning.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code {
            $(#[doc = $meaning] $name,)*
        }

        impl Code {
            /// All of them, in the order of the table.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// Its line of the table.
            #[must_use]
            pub fn entry(self) -> Entry {
                match self {
                    $(Self::$name => Entry {
                        status: $status, code: $code, title: $title, meaning: $meaning,
                    },)*
                }
            }
        }
    };
}

table! {
    BadRequest = 400 "bad_request", "Bad request",
        "The request is not well formed: its path, query or headers cannot be read.";
    MalformedJson = 400 "malformed_json", "Malformed JSON",
        "The body is not a JSON text (RFC 8259); nothing of it was looked at.";
    InvalidRequest = 422 "invalid_request", "Invalid request",
        "The body is JSON, but members of it are missing, unknown or out of range; `errors` says which.";
    Unauthenticated = 401 "unauthenticated", "Unauthenticated",
        "The API key is missing, malformed, unknown or revoked, or its secret is wrong.";
    Forbidden = 403 "forbidden", "Forbidden",
        "The API key is valid, but its role does not allow this.";
    NotFound = 404 "not_found", "Not found",
        "There is nothing at this path.";
    MethodNotAllowed = 405 "method_not_allowed", "Method not allowed",
        "The path exists, but not for this method; the header `Allow` lists those it has.";
    RequestTimeout = 408 "request_timeout", "Request timeout",
        "The body did not arrive in time.";
    PayloadTooLarge = 413 "payload_too_large", "Payload too large",
        "The body is longer than this server accepts.";
    UnsupportedMediaType = 415 "unsupported_media_type", "Unsupported media type",
        "The body must be `application/json` in UTF-8, without a content encoding.";
    ActivationNotFound = 404 "activation_not_found", "Activation not found",
        "To a device: the code, secret, activation or challenge is unknown, used, redeemed for another device, or over. Which of them is not said.";
    OperationNotFound = 404 "operation_not_found", "Operation not found",
        "To a device: no such registration, another device token, or nothing that waits for an answer. Which of them is not said.";
    RegistrationLocked = 403 "registration_locked", "Registration locked",
        "To a device that sent the right device token: the registration is locked until the service provider unlocks it or it is activated again.";
    DeviceMayNotBegin = 403 "device_may_not_begin", "Device may not begin",
        "To a device: the application does not allow devices to begin operations.";
    ClientNotServed = 403 "client_not_served", "Client not served",
        "To a device: clients of this version are not served; the app must be updated.";
    ChallengeNotLive = 409 "challenge_not_live", "Challenge not live",
        "To a device: this challenge is not the outstanding one; start again to get it.";
    MethodNotOffered = 409 "method_not_offered", "Method not offered",
        "To a device: this method cannot give this answer to this operation; the challenge is still live.";
    KeysChanged = 409 "keys_changed", "Keys changed",
        "To a device: the keys of the registration changed meanwhile; nothing was judged.";
    RegistrationState = 409 "registration_state", "Registration state",
        "The registration is in a state that does not allow this; `detail` names it.";
    ActivationState = 409 "activation_state", "Activation state",
        "The activation is in a state that does not allow this; `detail` names it.";
    OperationState = 409 "operation_state", "Operation state",
        "The operation is in a state that does not allow this; `detail` names it.";
    VersionConflict = 409 "version_conflict", "Version conflict",
        "The configuration was changed meanwhile; `detail` names its version.";
    CodeTooShort = 409 "code_too_short", "Code too short",
        "One more activation code of this length would make guessing too easy; `detail` names the length that is needed.";
    TooManyOperations = 409 "too_many_operations", "Too many operations",
        "The registration has as many pending operations as it can have.";
    NoMethodFits = 409 "no_method_fits", "No method fits",
        "The registration has no key for a method that the application allows, that was asked for, and that reaches the level.";
    RevokesItself = 409 "revokes_itself", "Revokes itself",
        "An API key cannot revoke itself: use another administrator's.";
    NotYetSigned = 409 "not_yet_signed", "Not yet signed",
        "No checkpoint covers this event yet; the next one is signed within a second or so.";
    IdempotencyKeyReused = 422 "idempotency_key_reused", "Idempotency key reused",
        "The `Idempotency-Key` was used for another request of this API key within a day.";
    TooManyRequests = 429 "too_many_requests", "Too many requests",
        "Too many failures in the current window; the header `Retry-After` says how many seconds to wait.";
    Internal = 500 "internal_error", "Internal error",
        "The server failed; its log has the cause under the correlation id in `instance`.";
    Busy = 503 "busy", "Busy",
        "The queue of writes is full; nothing has happened, and the header `Retry-After` says when to try again.";
    Unavailable = 503 "unavailable", "Unavailable",
        "The server is starting, stopping, or unable to write; nothing has happened.";
}

/// A line of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// HTTP status.
    pub status: u16,
    /// Stable name, for programs.
    pub code: &'static str,
    /// The same for all problems of this code.
    pub title: &'static str,
    /// One sentence of documentation.
    pub meaning: &'static str,
}

impl Code {
    /// Its HTTP status.
    #[must_use]
    pub fn status(self) -> StatusCode {
        StatusCode::from_u16(self.entry().status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The code that stands for a bare error status of the framework.
    #[must_use]
    pub fn of_status(status: StatusCode) -> Self {
        let exact = Self::ALL.iter().find(|code| code.entry().status == status.as_u16());
        match exact {
            Some(code) => *code,
            None if status.is_client_error() => Self::BadRequest,
            None => Self::Internal,
        }
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.entry().code)
    }
}

impl PartialSchema for Code {
    /// The closed list of codes, each with its status and meaning.
    fn schema() -> RefOr<Schema> {
        let mut meanings = "Stable name of what went wrong.\n".to_owned();
        for code in Self::ALL {
            let Entry { status, code, meaning, .. } = code.entry();
            meanings.push_str(&format!("\n- `{code}` ({status}): {meaning}"));
        }
        ObjectBuilder::new()
            .schema_type(Type::String)
            .enum_values(Some(Self::ALL.iter().map(|code| code.entry().code)))
            .description(Some(meanings))
            .build()
            .into()
    }
}

impl ToSchema for Code {
    fn name() -> Cow<'static, str> {
        "ErrorCode".into()
    }
}

/// One thing wrong with a body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    /// Where, as a JSON Pointer (RFC 6901); empty for the whole body.
    pub pointer: String,
    /// What is wrong there, for a person.
    pub detail: String,
}

/// A problem document (RFC 9457).
#[derive(Debug, Serialize, ToSchema)]
pub struct Problem<'a> {
    /// Path on this server where the code is explained: `/problems/{code}`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Short summary, the same for all problems of this code.
    pub title: &'a str,
    /// The HTTP status, repeated.
    pub status: u16,
    /// Stable name of what went wrong; the list of codes is part of this document.
    pub code: Code,
    /// What is wrong with this request in particular, for a person.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<&'a str>,
    /// The correlation id of the request, as in the header `X-Correlation-Id`.
    pub instance: &'a str,
    /// What is wrong with the body, member by member; absent if not about members.
    #[serde(skip_serializing_if = "<[FieldError]>::is_empty")]
    #[schema(value_type = Vec<FieldError>, required = false)]
    pub errors: &'a [FieldError],
}

/// A failure on its way to the caller.
pub struct ApiError {
    code: Code,
    detail: Option<Cow<'static, str>>,
    errors: Vec<FieldError>,
    retry_after_s: Option<u64>,
    cause: Option<Box<dyn Error + Send + Sync>>,
}

impl ApiError {
    /// A failure of this code, with the table's words alone.
    #[must_use]
    pub fn new(code: Code) -> Self {
        Self { code, detail: None, errors: Vec::new(), retry_after_s: None, cause: None }
    }

    /// Says more to the caller. Never an internal of the server, never a secret.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// [`Code::InvalidRequest`] for one thing wrong with the body.
    #[must_use]
    pub fn invalid(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(Code::InvalidRequest).error(pointer, detail)
    }

    /// Points at one thing wrong with the body.
    #[must_use]
    pub fn error(mut self, pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        self.errors.push(FieldError { pointer: pointer.into(), detail: detail.into() });
        self
    }

    /// When to try again, in seconds.
    #[must_use]
    pub fn retry_after_s(mut self, seconds: u64) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }

    /// Why, for the log alone.
    #[must_use]
    pub fn cause(mut self, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// Its code.
    #[must_use]
    pub fn code(&self) -> Code {
        self.code
    }

    /// What is wrong with the body, member by member.
    #[must_use]
    pub fn errors(&self) -> &[FieldError] {
        &self.errors
    }

    /// Why, for the log alone.
    #[must_use]
    pub fn why(&self) -> Option<&(dyn Error + Send + Sync + 'static)> {
        self.cause.as_deref()
    }
}

impl From<Code> for ApiError {
    fn from(code: Code) -> Self {
        Self::new(code)
    }
}

impl fmt::Debug for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiError").field("code", &self.code).finish_non_exhaustive()
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code.entry().code)
    }
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        self.code.status()
    }

    /// The bare status; [`render`] gives it its body where the correlation id is known.
    fn error_response(&self) -> HttpResponse {
        HttpResponse::new(self.status_code())
    }
}

/// The answer to a request that failed with `error`.
#[must_use]
pub fn render(error: &ApiError, correlation: &str) -> HttpResponse {
    let entry = error.code.entry();
    let problem = Problem {
        kind: format!("/problems/{}", entry.code),
        title: entry.title,
        status: entry.status,
        code: error.code,
        detail: error.detail.as_deref(),
        instance: correlation,
        errors: &error.errors,
    };
    let mut answer = HttpResponse::build(error.code.status());
    answer.insert_header((header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE)));
    if let Some(seconds) = error.retry_after_s {
        answer.insert_header((header::RETRY_AFTER, seconds));
    }
    if error.code == Code::Unauthenticated {
        for scheme in [r#"Basic realm="keytrail", charset="UTF-8""#, r#"Bearer realm="keytrail""#] {
            answer.append_header((header::WWW_AUTHENTICATE, scheme));
        }
    }
    // Strings and numbers always serialise; an empty body is still the right status.
    answer.body(serde_json::to_vec(&problem).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn codes_are_unique_and_their_statuses_are_errors() {
        let names: BTreeSet<_> = Code::ALL.iter().map(|code| code.entry().code).collect();
        assert_eq!(names.len(), Code::ALL.len());
        for code in Code::ALL {
            let entry = code.entry();
            assert_eq!(code.status().as_u16(), entry.status);
            assert!((400..=599).contains(&entry.status), "{code:?}");
            assert!(entry.meaning.ends_with('.') && !entry.title.is_empty(), "{code:?}");
            assert!(entry.code.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{code:?}");
        }
    }

    #[test]
    fn the_protocol_document_says_what_to_do_on_every_code() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/protocol.md");
        let text = std::fs::read_to_string(path).unwrap();
        for code in Code::ALL {
            let Entry { status, code, .. } = code.entry();
            let row = format!("\n| `{code}` | {status} | ");
            assert_eq!(text.matches(&row).count(), 1, "{row}");
        }
    }

    #[test]
    fn a_bare_status_finds_its_code_or_the_general_one() {
        for (status, code) in [
            (404, Code::NotFound),
            (413, Code::PayloadTooLarge),
            (400, Code::BadRequest),
            (418, Code::BadRequest),
            (500, Code::Internal),
            (502, Code::Internal),
            (503, Code::Busy),
        ] {
            assert_eq!(Code::of_status(StatusCode::from_u16(status).unwrap()), code);
        }
    }

    #[test]
    fn a_cause_reaches_neither_debug_nor_display() {
        let error = ApiError::new(Code::Internal).cause("disk /dev/secret");
        assert_eq!(format!("{error} {error:?}"), "internal_error ApiError { code: Internal, .. }");
        assert_eq!(error.why().unwrap().to_string(), "disk /dev/secret");
    }
}
