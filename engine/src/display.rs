//! Events as JSON, for people and exports.

use serde::Serialize;
use serde_json::Value;

const BASE64URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// `value` as JSON, with byte strings as base64url without padding.
///
/// No payload has a list of numbers other than bytes, so every such list is one.
pub(crate) fn json_of<T: Serialize>(value: &T) -> Value {
    #[expect(clippy::expect_used, reason = "payloads have string keys and finite numbers")]
    let value = serde_json::to_value(value).expect("a payload is JSON");
    bytes_as_text(value)
}

fn bytes_as_text(value: Value) -> Value {
    match value {
        Value::Array(items) => match bytes_of(&items) {
            Some(bytes) => Value::String(base64url(&bytes)),
            None => Value::Array(items.into_iter().map(bytes_as_text).collect()),
        },
        Value::Object(fields) => Value::Object(
            fields.into_iter().map(|(name, field)| (name, bytes_as_text(field))).collect(),
        ),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value,
    }
}

fn bytes_of(items: &[Value]) -> Option<Vec<u8>> {
    if items.is_empty() {
        return None;
    }
    items.iter().map(|item| item.as_u64().and_then(|byte| u8::try_from(byte).ok())).collect()
}

/// base64url without padding (RFC 4648 section 5).
#[must_use]
fn base64url(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0_u32, |word, &byte| word << 8 | u32::from(byte));
        let word = word << (8 * (3 - chunk.len()));
        for place in 0..=chunk.len() {
            let symbol = (word >> (18 - 6 * place)) & 63;
            out.push(char::from(BASE64URL[symbol as usize]));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64url_is_that_of_rfc_4648() {
        for (bytes, text) in
            [("", ""), ("f", "Zg"), ("fo", "Zm8"), ("foo", "Zm9v"), ("foob", "Zm9vYg")]
        {
            assert_eq!(base64url(bytes.as_bytes()), text);
        }
        assert_eq!(base64url(&[0xfb, 0xff]), "-_8");
    }
}
