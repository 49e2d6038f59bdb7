//! Descriptions of every event's bytes, for whoever has no keytrail.

use engine::events::{Event, REGISTRY};
use engine::layout::{self, Layout};
use engine::sealed::{SealedRequestV1, SealedResponseV1, SealedUserV1};
use serde_json::{Value, json};

/// Each description with its name: `<type>-<schema>` for the clear part of an
/// event, and `sealed` for all sealed parts.
pub(super) fn all() -> Vec<(String, Value)> {
    let described = REGISTRY.iter().filter_map(|&(event_type, schema, name)| {
        let layout = Event::layout(event_type, schema)?.ok()?;
        let value = json!({
            "name": name,
            "type": event_type,
            "schema": schema,
            "codec": "bincode 1, fixed width, little-endian",
            "clear": layout.to_json(),
        });
        Some((format!("{event_type}-{schema}"), value))
    });
    described.chain([("sealed".to_owned(), sealed())]).collect()
}

/// Which event holds which sealed part, and how that reads once decrypted.
fn sealed() -> Value {
    let json = |layout: Result<Layout, _>| layout.as_ref().map_or(Value::Null, Layout::to_json);
    json!({
        "codec": "bincode 1, fixed width, little-endian",
        "encryption": "AES-256-GCM-SIV under a key of the record's own; see docs/sealed-parts.md",
        "events": {
            "ActivationRequested": json(layout::of::<SealedUserV1>()),
            "OperationCreated": json(layout::of::<SealedRequestV1>()),
            "ActivationJudged": json(layout::of::<SealedResponseV1>()),
            "AuthenticationJudged": json(layout::of::<SealedResponseV1>()),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_and_every_sealed_part_is_described() {
        let all = all();
        assert_eq!(all.len(), REGISTRY.len() + 1);
        let (_, sealed) = all.last().unwrap();
        assert!(sealed["events"].as_object().unwrap().values().all(Value::is_object));
        let (_, judged) = all.iter().find(|(name, _)| name == "52-1").unwrap();
        assert_eq!(judged["clear"]["fields"][0]["name"], "application");
        assert_eq!(judged["clear"]["fields"][0]["type"]["named"], "Id");
    }
}
