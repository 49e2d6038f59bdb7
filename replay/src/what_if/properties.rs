//! The properties that a question is about.

use engine::config::{Config, ConfigError, PROPERTIES};
use serde_json::Value;

/// A property that cannot be asked about.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PropertyError {
    /// It is not `NAME=VALUE`.
    #[error("{0:?} is not NAME=VALUE")]
    Form(String),
    /// It is given twice.
    #[error("{0} is given twice")]
    Twice(String),
    /// There is no such property, or it cannot have this value.
    #[error(transparent)]
    Config(ConfigError),
}

/// Properties on which no recorded judgment depends, and why.
const INERT: &[(&str, &str)] = &[
    ("pin_length_min", "the device enforces it; no record depends on it"),
    ("pin_length_max", "the device enforces it; no record depends on it"),
    ("pin_type", "the device enforces it; no record depends on it"),
    ("enabled_risk_data", "it chooses what results show; no record depends on it"),
    (
        "activation_failure_budget",
        "wrong codes are counted outside the log; only the length that codes must have depends on it here",
    ),
    (
        "activation_failure_budget_per_source",
        "wrong codes are counted outside the log; no record depends on it",
    ),
    (
        "activation_failure_window_s",
        "wrong codes are counted outside the log; no record depends on it",
    ),
    (
        "activation_code_length",
        "the codes of the log stay as they were; only whether one may be handed out depends on it here",
    ),
    (
        "activation_code_type",
        "the codes of the log stay as they were; only whether one may be handed out depends on it here",
    ),
];

/// Reads properties written as `NAME=VALUE`. A value is JSON, or text where the
/// property takes text: `failures_allowed=1`, `min_client_version=3.8`,
/// `allowed_methods=["DEVICE"]`.
///
/// # Errors
///
/// Everything that is wrong, by name.
pub fn properties<S: AsRef<str>>(
    arguments: &[S],
) -> Result<Vec<(String, Value)>, Vec<PropertyError>> {
    let mut read: Vec<(String, Value)> = Vec::with_capacity(arguments.len());
    let mut errors = Vec::new();
    for argument in arguments {
        let Some((name, text)) = argument.as_ref().split_once('=') else {
            errors.push(PropertyError::Form(argument.as_ref().to_owned()));
            continue;
        };
        if read.iter().any(|(known, _)| known == name) {
            errors.push(PropertyError::Twice(name.to_owned()));
            continue;
        }
        read.push((name.to_owned(), value(name, text)));
    }
    let pairs = read.iter().map(|(name, value)| (name.as_str(), value));
    if let Err(refused) = Config::default().with(pairs) {
        errors.extend(refused.into_iter().map(PropertyError::Config));
    }
    if errors.is_empty() { Ok(read) } else { Err(errors) }
}

/// The JSON that `text` is; the text itself where only that fits the property.
fn value(name: &str, text: &str) -> Value {
    let plain = Value::String(text.to_owned());
    let Ok(json) = serde_json::from_str::<Value>(text) else { return plain };
    let fits = |value: &Value| Config::default().with([(name, value)]).is_ok();
    if !fits(&json) && fits(&plain) { plain } else { json }
}

/// What the log cannot say about these properties.
pub(super) fn remarks(properties: &[(String, Value)]) -> Vec<String> {
    debug_assert!(INERT.iter().all(|(name, _)| PROPERTIES.iter().any(|it| it.name == *name)));
    let asked = |name: &str| properties.iter().any(|(property, _)| property == name);
    let inert = INERT.iter().filter(|(name, _)| asked(name));
    inert.map(|(name, why)| format!("{name}: {why}")).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_json_or_text_as_the_property_takes_them() {
        let arguments = [
            "hw_key_validation_strategy=REQUIRED",
            "failures_allowed=1",
            "min_client_version=3.8",
            "allowed_methods=[\"DEVICE\"]",
            "allow_unproven_reactivation=true",
        ];
        let read = properties(&arguments).unwrap();
        let values: Vec<_> = read.into_iter().map(|(_, value)| value).collect();
        assert_eq!(
            values,
            [json!("REQUIRED"), json!(1), json!("3.8"), json!(["DEVICE"]), json!(true)]
        );
    }

    #[test]
    fn what_cannot_be_asked_is_refused_by_name_and_all_of_it_at_once() {
        let arguments = [
            "strategy=REQUIRED",
            "failures_allowed=0",
            "x",
            "pin_type=NUMERIC",
            "pin_type=NUMERIC",
        ];
        let errors = properties(&arguments).unwrap_err();
        let texts: Vec<_> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "\"x\" is not NAME=VALUE",
                "pin_type is given twice",
                "unknown property strategy",
                "failures_allowed: must be a whole number from 1 to 20",
            ]
        );
    }

    #[test]
    fn every_remark_is_about_a_property_that_there_is() {
        for (name, _) in INERT {
            assert!(PROPERTIES.iter().any(|property| property.name == *name), "{name}");
        }
    }
}
