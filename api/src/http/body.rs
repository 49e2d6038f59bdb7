//! Reading JSON bodies, with bounds, and saying exactly what is wrong with one.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use actix_web::dev::Payload;
use actix_web::http::{StatusCode, header};
use actix_web::web::Bytes;
use actix_web::{FromRequest, HttpMessage, HttpRequest};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_path_to_error::{Path, Segment};

use crate::http::edge::Edge;
use crate::problem::{ApiError, Code};

/// Longest text of the caller's that an error repeats, in bytes.
const ECHO_MAX: usize = 120;

/// A JSON body, read and understood.
#[derive(Debug)]
pub struct Body<T> {
    /// What it says.
    pub value: T,
    /// Its octets as they came: what digests and signatures are about.
    pub bytes: Bytes,
}

impl<T: DeserializeOwned + 'static> FromRequest for Body<T> {
    type Error = ApiError;
    type Future = Pin<Box<dyn Future<Output = Result<Self, ApiError>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let json = check_media_type(request);
        let within = Duration::from_secs(Edge::of(request).limits.body_s_max);
        let bytes = Bytes::from_request(request, payload);
        Box::pin(async move {
            json?;
            let read = tokio::time::timeout(within, bytes).await;
            let bytes = read.map_err(|_| Code::RequestTimeout)?.map_err(|error| unread(&error))?;
            let value = parse(&bytes)?;
            Ok(Self { value, bytes })
        })
    }
}

/// Only plain JSON: what is encoded or of another type is not even read.
fn check_media_type(request: &HttpRequest) -> Result<(), ApiError> {
    let encoded = request.headers().contains_key(header::CONTENT_ENCODING);
    let json = request.content_type().eq_ignore_ascii_case("application/json");
    let utf8 = request.encoding().is_ok_and(|encoding| encoding.name() == "UTF-8");
    if json && utf8 && !encoded { Ok(()) } else { Err(Code::UnsupportedMediaType.into()) }
}

fn unread(error: &actix_web::Error) -> ApiError {
    match error.as_response_error().status_code() {
        StatusCode::PAYLOAD_TOO_LARGE => Code::PayloadTooLarge.into(),
        _ => ApiError::new(Code::BadRequest).detail("the body ended early or cannot be read"),
    }
}

/// Parses once without bookkeeping; only a failure pays for finding its place.
fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(bytes).map_err(|error| explain::<T>(bytes, &error))
}

fn explain<T: DeserializeOwned>(bytes: &[u8], error: &serde_json::Error) -> ApiError {
    let malformed = |place: String| ApiError::new(Code::MalformedJson).detail(place);
    if !error.is_data() {
        return malformed(not_json(error));
    }
    // A member may have been found wrong before the text was found to be no JSON.
    if std::str::from_utf8(bytes).is_err() {
        return malformed("not UTF-8".to_owned());
    }
    if let Err(error) = serde_json::from_slice::<IgnoredAny>(bytes) {
        return malformed(not_json(&error));
    }
    let mut json = serde_json::Deserializer::from_slice(bytes);
    match serde_path_to_error::deserialize::<_, T>(&mut json) {
        Err(found) => {
            let (member, words) = in_words(found.inner());
            let mut pointer = pointer(found.path());
            if let Some(member) = member {
                push_token(&mut pointer, &member);
            }
            ApiError::invalid(pointer, words)
        }
        // A type that reads differently the second time: say at least what failed.
        Ok(_) => Code::InvalidRequest.into(),
    }
}

fn not_json(error: &serde_json::Error) -> String {
    format!("not JSON at line {}, column {}", error.line(), error.column())
}

/// What serde found wrong, without the value: it may be a secret, and it may be long.
/// A member that is missing is not part of the path; it comes first.
fn in_words(error: &serde_json::Error) -> (Option<String>, String) {
    let text = error.to_string();
    let text = text.rfind(" at line ").map_or(text.as_str(), |end| &text[..end]);
    if let Some(member) = text.strip_prefix("missing field `").and_then(|t| t.strip_suffix('`')) {
        return (Some(member.to_owned()), "is required".to_owned());
    }
    let names_a_value = ["invalid type: ", "invalid value: ", "invalid length "]
        .iter()
        .any(|start| text.starts_with(start));
    let words = match text.rsplit_once(", expected ") {
        Some((_, expected)) if names_a_value => format!("must be {}", in_json(expected)),
        Some(_) | None => text.to_owned(),
    };
    (None, shortened(&words))
}

/// What was expected, in the words of JSON instead of the names of our types.
fn in_json(expected: &str) -> &str {
    match expected {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number",
        "a sequence" => "an array",
        "a map" => "an object",
        other if other.starts_with("struct ") => "an object",
        other => other,
    }
}

fn shortened(words: &str) -> String {
    if words.len() <= ECHO_MAX {
        return words.to_owned();
    }
    let end = (0..=ECHO_MAX).rev().find(|&end| words.is_char_boundary(end)).unwrap_or(0);
    format!("{}…", &words[..end])
}

/// A path as a JSON Pointer (RFC 6901).
fn pointer(path: &Path) -> String {
    let mut pointer = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => push_token(&mut pointer, &index.to_string()),
            Segment::Map { key } => push_token(&mut pointer, key),
            // A variant is no step in the text, and where the path is lost it ends.
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    pointer
}

fn push_token(pointer: &mut String, token: &str) {
    pointer.push('/');
    pointer.push_str(&shortened(token).replace('~', "~0").replace('/', "~1"));
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::problem::FieldError;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only read by serde")]
    struct Order {
        count: u8,
        items: Vec<Item>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only read by serde")]
    struct Item {
        #[serde(rename = "a/b~c")]
        odd: bool,
        kind: Kind,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "UPPERCASE")]
    enum Kind {
        One,
        Two,
    }

    #[track_caller]
    fn wrong(body: &str, pointer: &str, detail: &str) {
        let error = parse::<Order>(body.as_bytes()).unwrap_err();
        assert_eq!(error.code(), Code::InvalidRequest);
        let expected = FieldError { pointer: pointer.to_owned(), detail: detail.to_owned() };
        assert_eq!(error.errors(), [expected], "{body}");
    }

    #[test]
    fn each_kind_of_wrong_member_is_pointed_at() {
        wrong(r#"{"items":[]}"#, "/count", "is required");
        wrong(r#"{"count":300,"items":[]}"#, "/count", "must be a whole number");
        wrong(r#"{"count":1,"items":{}}"#, "/items", "must be an array");
        wrong(r#"{"count":1,"items":[{"a/b~c":1}]}"#, "/items/0/a~1b~0c", "must be a boolean");
        wrong(
            r#"{"count":1,"items":[{"a/b~c":true,"kind":"X"}]}"#,
            "/items/0/kind",
            "unknown variant `X`, expected `ONE` or `TWO`",
        );
        wrong(r#"{"count":1,"items":[{"kind":"ONE"}]}"#, "/items/0/a~1b~0c", "is required");
        wrong(
            r#"{"count":1,"itms":[]}"#,
            "/itms",
            "unknown field `itms`, expected `count` or `items`",
        );
        wrong("[]", "", "must be an object");
    }

    #[test]
    fn what_was_sent_is_not_repeated_beyond_a_bound() {
        let long = "x".repeat(5_000);
        let error = parse::<Order>(format!(r#"{{"{long}":1}}"#).as_bytes()).unwrap_err();
        assert!(error.errors()[0].detail.len() <= ECHO_MAX + 3);
        assert!(error.errors()[0].pointer.len() <= ECHO_MAX + 4);
        let error = parse::<Order>(format!(r#"{{"count":"{long}"}}"#).as_bytes()).unwrap_err();
        assert_eq!(error.errors()[0].detail, "must be a whole number");
    }

    #[test]
    fn what_is_no_json_is_told_apart_from_wrong_json() {
        for body in ["", "{", "{\"count\":1", "nul", "\u{feff}{}", "{}{}", "{\"a\":\"\u{1}\"}"] {
            let error = parse::<serde_json::Value>(body.as_bytes()).unwrap_err();
            assert_eq!(error.code(), Code::MalformedJson, "{body:?}");
        }
        let deep = "[".repeat(10_000);
        assert!(parse::<serde_json::Value>(deep.as_bytes()).is_err());
        assert!(parse::<serde_json::Value>(b"{\"a\":\"\xff\"}").is_err());
    }
}
