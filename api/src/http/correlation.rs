//! The id that ties one request to its log lines, its answer and its records.

use std::future::{Ready, ready};

use actix_web::dev::{Payload, ServiceRequest};
use actix_web::http::header::HeaderValue;
use actix_web::{FromRequest, HttpMessage, HttpRequest};
use engine::ids::Id;
use engine::machine::fresh_id;

use crate::http::edge::Edge;
use crate::problem::{ApiError, Code};

/// Name of the header, in requests and answers.
pub const HEADER: &str = "x-correlation-id";

/// Domain of the hash that makes a record's id of a text that is no UUID.
const ID_CONTEXT: &str = "keytrail 2026 correlation id v1";

/// A correlation id: 8 to 64 characters of `A-Z a-z 0-9 -`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Correlation(String);

impl Correlation {
    /// The caller's own if it is sane, else a fresh UUIDv7.
    #[must_use]
    pub fn of(request: &ServiceRequest, edge: &Edge) -> Self {
        let sent = request.headers().get(HEADER).and_then(|value| value.to_str().ok());
        sent.and_then(Self::parse)
            .unwrap_or_else(|| Self(fresh_id(&*edge.clock, &*edge.entropy).to_string()))
    }

    fn parse(text: &str) -> Option<Self> {
        let sane = (8..=64).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        sane.then(|| Self(text.to_owned()))
    }

    /// As it stands in header and problem.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.0
    }

    /// As it stands in a record: the UUID itself, or one derived from the text.
    #[must_use]
    pub fn id(&self) -> Id {
        let derived = || Id::v8(&blake3::derive_key(ID_CONTEXT, self.0.as_bytes()));
        self.0.parse().unwrap_or_else(|_| derived())
    }

    #[expect(clippy::expect_used, reason = "letters, digits and hyphens")]
    pub(crate) fn header(&self) -> HeaderValue {
        HeaderValue::from_str(&self.0).expect("a header value of visible characters")
    }
}

impl FromRequest for Correlation {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let found = request.extensions().get::<Self>().cloned();
        ready(found.ok_or_else(|| ApiError::new(Code::Internal).cause("no correlation layer")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sane_ids_are_taken_over() {
        let longest = "a".repeat(64);
        for sane in ["abcd-123", "ABCDEFGH", longest.as_str()] {
            assert_eq!(Correlation::parse(sane).unwrap().text(), sane);
        }
        let long = "a".repeat(65);
        for bad in ["", "abcd-12", "abcd_1234", "abcd 1234", "abcd\n1234", "abcdé1234", &long] {
            assert_eq!(Correlation::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_uuid_is_its_own_record_id_and_other_text_is_hashed() {
        let uuid = "018bcfe5-6800-7fff-bfff-ffffffffffff";
        assert_eq!(Correlation::parse(uuid).unwrap().id().to_string(), uuid);
        let text = Correlation::parse("order-4711").unwrap();
        assert_eq!(text.id(), text.id());
        assert_ne!(text.id(), Correlation::parse("order-4712").unwrap().id());
    }
}
