//! The OpenAPI document, held against every answer that a test gets.
//!
//! Checked are the promises of all answers (correlation id, `nosniff`, `no-store`,
//! problem documents), that path, method and status are documented, and that
//! bodies are structurally what their schema says: no member missing, none
//! undocumented, no word that is not in its list. A body that the server
//! accepted is held to its schema as well.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use serde_json::{Map, Value};

use crate::client::{Answer, Request};

/// The document as the code makes it; a test compares the server's with it.
pub(crate) static DOCUMENT: LazyLock<Value> =
    LazyLock::new(|| serde_json::to_value(api::openapi::document()).unwrap());

/// Holds an answer to everything that is promised of it.
#[track_caller]
pub(crate) fn check(request: &Request, answer: &Answer) {
    let place = format!("{} {} -> {}", request.method, request.path, answer.status);
    headers(request, answer, &place);
    let documented = operation(&request.method, &request.path);
    if answer.status >= 400 {
        if request.method != "HEAD" {
            problem(answer, &place);
        }
        return;
    }
    let Some(operation) = documented else {
        assert_eq!(request.method, "HEAD", "{place}: succeeds and is not documented");
        return;
    };
    let response = operation["responses"].get(answer.status.to_string());
    let response = response.unwrap_or_else(|| panic!("{place}: the status is not documented"));
    body(response, answer, &place);
    if let Some(asked) = operation.get("requestBody") {
        let sent: Value = serde_json::from_slice(&request.body).unwrap();
        let schema = &asked["content"]["application/json"]["schema"];
        assert_eq!(faults(schema, &sent), Vec::<String>::new(), "{place}: what was accepted");
    }
}

fn headers(request: &Request, answer: &Answer, place: &str) {
    let correlation: Vec<_> = answer.all("x-correlation-id").collect();
    assert_eq!(correlation.len(), 1, "{place}: {:?}", answer.headers);
    let sent = request.headers.iter().find(|(name, _)| name == "X-Correlation-Id");
    if let Some((_, sent)) = sent {
        assert_eq!(correlation[0], sent, "{place}");
    }
    assert!((8..=64).contains(&correlation[0].len()), "{place}");
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{place}");
    assert_eq!(answer.header("cache-control"), Some("no-store"), "{place}");
    assert_eq!(answer.header("server"), None, "{place}");
}

/// Holds a failure to RFC 9457 and to the table of codes.
#[track_caller]
fn problem(answer: &Answer, place: &str) {
    assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{place}");
    let problem = answer.value();
    let schema = &DOCUMENT["components"]["schemas"]["Problem"];
    assert_eq!(faults(schema, &problem), Vec::<String>::new(), "{place}: {problem}");
    assert_eq!(problem["status"], answer.status, "{place}");
    assert_eq!(problem["instance"].as_str(), answer.header("x-correlation-id"), "{place}");
    let code = problem["code"].as_str().unwrap();
    assert_eq!(problem["type"], format!("/problems/{code}"), "{place}");
    let listed = DOCUMENT["components"]["schemas"]["ErrorCode"]["description"].as_str().unwrap();
    assert!(listed.contains(&format!("- `{code}` ({})", answer.status)), "{place}: {code}");
}

#[track_caller]
fn body(response: &Value, answer: &Answer, place: &str) {
    let Some(content) = response.get("content").and_then(Value::as_object) else {
        assert!(answer.body.is_empty(), "{place}: a body that is not documented");
        return;
    };
    // Checkpoints, receipts and tiles are no JSON; they are checked where they are read.
    let sent = answer.header("content-type").unwrap_or_default();
    let sent = sent.split(';').next().unwrap_or_default();
    assert!(content.contains_key(sent), "{place}: {sent} is not documented");
    if sent != "application/json" {
        return;
    }
    let schema = &content["application/json"]["schema"];
    let value = answer.value();
    assert_eq!(faults(schema, &value), Vec::<String>::new(), "{place}: {value}");
}

/// The operation of the document that a method and path mean.
pub(crate) fn operation(method: &str, path: &str) -> Option<&'static Value> {
    let path = path.split('?').next()?;
    let paths = DOCUMENT["paths"].as_object()?;
    let exact = paths.get(path).or_else(|| {
        let like = |template: &str| {
            // A tile's place has slashes in it.
            if let Some(before) = template.strip_suffix("{tile}") {
                return path.starts_with(before);
            }
            let (wanted, given) = (template.split('/'), path.split('/'));
            wanted.clone().count() == given.clone().count()
                && wanted.zip(given).all(|(want, have)| want.starts_with('{') || want == have)
        };
        paths.iter().find(|(template, _)| like(template)).map(|(_, item)| item)
    });
    exact?.get(method.to_lowercase())
}

/// Everything about `value` that `schema` does not allow.
pub(crate) fn faults(schema: &Value, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    Checker { faults: &mut found }.value(schema, value, "");
    found
}

struct Checker<'a> {
    faults: &'a mut Vec<String>,
}

impl Checker<'_> {
    fn fault(&mut self, at: &str, what: impl std::fmt::Display) {
        self.faults.push(format!("{at}: {what}"));
    }

    fn value(&mut self, schema: &Value, value: &Value, at: &str) {
        let schema = resolved(schema);
        if let Some(types) = schema.get("type") {
            let allowed = types.as_array().map_or_else(|| vec![types.clone()], Clone::clone);
            if !allowed.iter().any(|kind| is_a(kind.as_str().unwrap(), value)) {
                return self.fault(at, format!("is no {types}"));
            }
        }
        if let Some(words) = schema.get("enum").and_then(Value::as_array)
            && !words.contains(value)
        {
            self.fault(at, format!("{value} is no listed word"));
        }
        self.bounds(schema, value, at);
        match value {
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.value(&schema["items"], item, &format!("{at}/{index}"));
                }
            }
            Value::Object(members) => self.members(schema, members, at),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    fn bounds(&mut self, schema: &Value, value: &Value, at: &str) {
        let bound = |name: &str| schema.get(name).and_then(Value::as_u64);
        let length = value.as_str().map(|text| text.chars().count() as u64);
        let length = length.or(value.as_array().map(|items| items.len() as u64));
        let least = bound("minLength").or(bound("minItems"));
        let most = bound("maxLength").or(bound("maxItems"));
        if length
            .is_some_and(|n| least.is_some_and(|min| n < min) || most.is_some_and(|max| n > max))
        {
            self.fault(at, "has another length");
        }
        let number = value.as_u64();
        let (min, max) = (bound("minimum"), bound("maximum"));
        if number.is_some_and(|n| min.is_some_and(|min| n < min) || max.is_some_and(|max| n > max))
        {
            self.fault(at, "is out of range");
        }
        let text = value.as_str().unwrap_or_default();
        match schema.get("format").and_then(Value::as_str) {
            Some("uuid") if text.parse::<engine::ids::Id>().is_err() => self.fault(at, "no UUID"),
            Some("date-time") if replay::micros_of(text).is_none() => {
                self.fault(at, "no RFC 3339 time");
            }
            Some(_) | None => {}
        }
    }

    fn members(&mut self, schema: &Value, members: &Map<String, Value>, at: &str) {
        let (known, required) = shape(schema);
        if known.is_empty() && schema.get("additionalProperties") != Some(&Value::Bool(false)) {
            // `Object`: anything goes, and only the document itself is one.
            assert_eq!(schema.get("allOf"), None);
            return;
        }
        for name in required.iter().filter(|name| !members.contains_key(**name)) {
            self.fault(at, format!("{name} is missing"));
        }
        for (name, value) in members {
            let at = format!("{at}/{name}");
            match known.get(name.as_str()) {
                Some(schema) => self.value(schema, value, &at),
                None => self.fault(&at, "is not documented"),
            }
        }
    }
}

/// Members and required members, those of all parts together.
fn shape(schema: &Value) -> (BTreeMap<&str, &Value>, BTreeSet<&str>) {
    let schema = resolved(schema);
    let (mut known, mut required) = (BTreeMap::new(), BTreeSet::new());
    for part in schema.get("allOf").and_then(Value::as_array).into_iter().flatten() {
        let (members, needed) = shape(part);
        known.extend(members);
        required.extend(needed);
    }
    let members = schema.get("properties").and_then(Value::as_object).into_iter().flatten();
    known.extend(members.map(|(name, schema)| (name.as_str(), schema)));
    let needed = schema.get("required").and_then(Value::as_array).into_iter().flatten();
    required.extend(needed.map(|name| name.as_str().unwrap()));
    (known, required)
}

fn resolved(schema: &Value) -> &Value {
    match schema.get("$ref").and_then(Value::as_str) {
        Some(name) => {
            let target = DOCUMENT.pointer(name.strip_prefix('#').unwrap());
            resolved_static(target.unwrap_or_else(|| panic!("{name} is nowhere")))
        }
        None => schema,
    }
}

fn resolved_static(schema: &'static Value) -> &'static Value {
    schema.get("$ref").map_or(schema, |name| {
        let name = name.as_str().unwrap().strip_prefix('#').unwrap();
        resolved_static(DOCUMENT.pointer(name).unwrap())
    })
}

fn is_a(kind: &str, value: &Value) -> bool {
    match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "null" => value.is_null(),
        other => panic!("unknown type {other}"),
    }
}

/// Every method and path template of the document.
pub(crate) fn operations() -> Vec<(String, String)> {
    let paths = DOCUMENT["paths"].as_object().unwrap().iter();
    paths
        .flat_map(|(path, item)| {
            let methods = item.as_object().unwrap().keys();
            methods.map(move |method| (method.to_uppercase(), path.clone()))
        })
        .collect()
}
