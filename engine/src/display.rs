//! Events as JSON and bytes as text, for people and exports.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde_json::Value;

/// `value` as JSON, with byte strings as base64url without padding.
///
/// No payload has a list of numbers other than bytes, so every such list is one.
pub(crate) fn json_of<T: Serialize>(value: &T) -> Value {
    #[expect(clippy::expect_used, reason = "payloads have string keys and finite numbers")]
    let value = serde_json::to_value(value).expect("a payload is JSON");
    bytes_as_text(value)
}

/// Bytes as text: hexadecimal, lower case.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes_as_text(value: Value) -> Value {
    match value {
        Value::Array(items) => match bytes_of(&items) {
            Some(bytes) => Value::String(URL_SAFE_NO_PAD.encode(&bytes)),
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
