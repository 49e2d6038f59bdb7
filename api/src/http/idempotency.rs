//! `Idempotency-Key`: a request that is repeated has one effect.
//!
//! What ties a repeat to its original stands in the log, so it holds across
//! restarts: the hash of (API key, key) and a digest of what was asked. A
//! repeat within a day gets its answer from the records; the same key with
//! another request is refused.

use std::future::{Ready, ready};

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpRequest};
use engine::events::{Actor, RequestKey};
use engine::ids::Id;

use utoipa::IntoParams;

use crate::problem::{ApiError, Code};

/// Name of the header.
pub const HEADER: &str = "idempotency-key";
/// Longest key, in characters.
const KEY_MAX: usize = 255;

const KEY_CONTEXT: &str = "keytrail 2026 idempotency key v1";
const DIGEST_CONTEXT: &str = "keytrail 2026 idempotent request v1";
const COMMAND_CONTEXT: &str = "keytrail 2026 idempotent command v1";

/// The key of a request, if it has one, and what the request is about.
#[derive(Debug, Clone)]
pub struct Idempotency {
    key: Option<String>,
    target: String,
}

/// Who asks, and the command id that follows from it.
#[derive(Debug, Clone)]
pub struct Asked {
    /// For the command.
    pub by: Actor,
    /// The command's id; none for a fresh one.
    pub causation: Option<Id>,
}

/// The header, for the OpenAPI document.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Header)]
pub struct IdempotencyKey {
    /// Makes a repeat of the request harmless, for a day: 1 to 255 visible ASCII characters.
    #[param(rename = "Idempotency-Key", required = false, max_length = 255)]
    pub idempotency_key: Option<String>,
}

impl Idempotency {
    /// Who asks for this `body` with the API key `api_key`.
    #[must_use]
    pub fn asked(&self, api_key: Id, body: &[u8]) -> Asked {
        let Some(key) = &self.key else {
            return Asked { by: Actor { api_key, request: None }, causation: None };
        };
        let id = hash(KEY_CONTEXT, &[&api_key.0, key.as_bytes()]);
        let digest = hash(DIGEST_CONTEXT, &[self.target.as_bytes(), body]);
        let request = RequestKey { id: first_half(&id), digest: first_half(&digest) };
        let causation = Some(Id::v8(&hash(COMMAND_CONTEXT, &[&id, &digest])));
        Asked { by: Actor { api_key, request: Some(request) }, causation }
    }

    fn of_request(request: &HttpRequest) -> Result<Self, ApiError> {
        let mut sent = request.headers().get_all(HEADER);
        let key = match (sent.next(), sent.next()) {
            (None, _) => None,
            (Some(one), None) => Some(sane(one.as_bytes()).ok_or_else(malformed)?),
            (Some(_), Some(_)) => return Err(malformed()),
        };
        // Method and path: one key must not stand for two things.
        Ok(Self { key, target: format!("{} {}", request.method(), request.path()) })
    }
}

fn sane(key: &[u8]) -> Option<String> {
    let visible = key.iter().all(|byte| byte.is_ascii_graphic());
    ((1..=KEY_MAX).contains(&key.len()) && visible).then(|| String::from_utf8_lossy(key).into())
}

fn malformed() -> ApiError {
    ApiError::new(Code::BadRequest)
        .detail("Idempotency-Key must be sent once and have 1 to 255 visible ASCII characters")
}

/// Parts with their lengths, so that no two lists of parts hash alike.
fn hash(context: &str, parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    for part in parts {
        hasher.update(&(part.len() as u64).to_be_bytes()).update(part);
    }
    *hasher.finalize().as_bytes()
}

fn first_half(hash: &[u8; 32]) -> [u8; 16] {
    let mut half = [0; 16];
    half.copy_from_slice(&hash[..16]);
    half
}

impl FromRequest for Idempotency {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(Self::of_request(request))
    }
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn asked(key: &str, path: &str, api_key: u8, body: &[u8]) -> Asked {
        let request = TestRequest::post().uri(path).insert_header((HEADER, key)).to_http_request();
        Idempotency::of_request(&request).unwrap().asked(Id([api_key; 16]), body)
    }

    #[test]
    fn the_command_follows_from_key_caller_target_and_body_and_from_nothing_else() {
        let one = asked("a", "/v1/x", 1, b"{}");
        assert_eq!(one.causation, asked("a", "/v1/x", 1, b"{}").causation);
        let same_key = |other: Asked| {
            let (mine, other) = (one.by.request.clone().unwrap(), other.by.request.unwrap());
            assert_ne!(mine.digest, other.digest);
            mine.id == other.id
        };
        assert!(same_key(asked("a", "/v1/x", 1, b"{ }")));
        assert!(same_key(asked("a", "/v1/y", 1, b"{}")));
        let other =
            |asked: Asked| asked.by.request.unwrap().id != one.by.request.clone().unwrap().id;
        assert!(other(asked("b", "/v1/x", 1, b"{}")));
        assert!(other(asked("a", "/v1/x", 2, b"{}")));
    }

    #[test]
    fn keys_are_visible_text_of_bounded_length_and_sent_once() {
        let longest = "k".repeat(255);
        let long = "k".repeat(256);
        let parse = |key: &str| {
            let request = TestRequest::post().insert_header((HEADER, key)).to_http_request();
            Idempotency::of_request(&request).is_ok()
        };
        assert!(parse("k") && parse(&longest));
        assert!(!parse("") && !parse("a b") && !parse(&long));
        let twice = TestRequest::post()
            .append_header((HEADER, "a"))
            .append_header((HEADER, "a"))
            .to_http_request();
        assert!(Idempotency::of_request(&twice).is_err());
        let none = Idempotency::of_request(&TestRequest::post().to_http_request()).unwrap();
        assert!(none.asked(Id::NIL, b"").causation.is_none());
    }
}
