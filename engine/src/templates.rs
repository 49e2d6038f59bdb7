//! Templates: what an application's common operations ask for, under a name.
//!
//! A template is part of the configuration, so it has a version, an event and an
//! administrator behind each change. An operation that names one says nothing of
//! its own on what the template fixes, and records both the name and the values:
//! a later change of the template changes no operation.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::command::{CreateOperation, Refusal};
use crate::entries::Application;
use crate::operation::LIFETIME_S;
use crate::reasons::{Confirmation, OperationKind};
use crate::terms::{Level, Method};

/// Most templates of an application.
pub const TEMPLATES_MAX: usize = 16;
/// Longest name of one, in characters.
const NAME_MAX: usize = 64;

/// What the operations of one name ask for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Template {
    /// Its name: lower-case letters, digits, hyphens.
    pub name: String,
    /// What they ask for.
    pub kind: OperationKind,
    /// Factors required.
    pub level: Level,
    /// Methods that may answer; empty means any that reaches the level.
    pub methods: Vec<Method>,
    /// Lifetime in seconds; none means the application's.
    pub lifetime_s: Option<u32>,
    /// What the user must confirm to approve, if anything.
    pub confirmation: Option<Confirmation>,
}

/// The members of a template in JSON.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Members {
    #[serde(default)]
    kind: Option<OperationKind>,
    level: Level,
    #[serde(default)]
    methods: Vec<Method>,
    #[serde(default)]
    lifetime_s: Option<u32>,
    #[serde(default)]
    confirmation: Option<Confirmation>,
}

impl Template {
    /// The template of this name, if the application has one.
    #[must_use]
    pub fn find<'a>(application: &'a Application, name: &str) -> Option<&'a Self> {
        application.config.operation_templates.iter().find(|template| template.name == name)
    }

    /// Whether `want` asks for what the template says, and nothing else.
    fn fits(&self, want: &CreateOperation) -> bool {
        want.kind == self.kind
            && want.level == self.level
            && want.methods == self.methods
            && want.lifetime_s == self.lifetime_s
            && want.matching.as_ref().map(|matching| matching.how) == self.confirmation
    }
}

/// Refuses what names a template and asks for something else: it was changed
/// between looking it up and asking.
pub(crate) fn check(application: &Application, want: &CreateOperation) -> Result<(), Refusal> {
    let Some(name) = &want.template else { return Ok(()) };
    let expected = "must be the name of a template of the application";
    let template = Template::find(application, name);
    let template = template.ok_or(Refusal::Invalid { field: "template", expected })?;
    if template.fits(want) {
        return Ok(());
    }
    Err(Refusal::VersionConflict { actual: application.config_version })
}

/// Reads the value of the property, an object of templates by name.
pub(crate) fn read(value: &Value) -> Result<Vec<Template>, String> {
    let object = value.as_object().ok_or("must be an object of templates by name")?;
    if object.len() > TEMPLATES_MAX {
        return Err(format!("must have at most {TEMPLATES_MAX} templates"));
    }
    let read = object.iter().map(|(name, members)| template(name, members));
    let mut templates = read.collect::<Result<Vec<_>, _>>()?;
    templates.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(templates)
}

fn template(name: &str, members: &Value) -> Result<Template, String> {
    let is_name = (1..=NAME_MAX).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if !is_name {
        return Err("must have names of 1 to 64 lower-case letters, digits or hyphens".to_owned());
    }
    let wrong = |why: &str| format!("the template {name} {why}");
    let members: Members =
        serde_json::from_value(members.clone()).map_err(|error| wrong(&format!("has {error}")))?;
    let Members { kind, level, methods, lifetime_s, confirmation } = members;
    if lifetime_s.is_some_and(|lifetime_s| !LIFETIME_S.contains(&lifetime_s)) {
        return Err(wrong("must have a lifetime_s from 10 to 86400"));
    }
    if crate::registration::has_repeats(&methods) {
        return Err(wrong("must name each method once at most"));
    }
    if methods.iter().any(|method| method.level() < level) {
        return Err(wrong("must name methods that reach its level"));
    }
    let kind = kind.unwrap_or(OperationKind::Authentication);
    Ok(Template { name: name.to_owned(), kind, level, methods, lifetime_s, confirmation })
}

/// The inverse of [`read`].
pub(crate) fn write(templates: &[Template]) -> Value {
    let one = |template: &Template| {
        let mut members = Map::new();
        members.insert("kind".to_owned(), json!(template.kind));
        members.insert("level".to_owned(), json!(template.level));
        if !template.methods.is_empty() {
            members.insert("methods".to_owned(), json!(template.methods));
        }
        if let Some(lifetime_s) = template.lifetime_s {
            members.insert("lifetime_s".to_owned(), json!(lifetime_s));
        }
        if let Some(confirmation) = template.confirmation {
            members.insert("confirmation".to_owned(), json!(confirmation));
        }
        (template.name.clone(), Value::Object(members))
    };
    Value::Object(templates.iter().map(one).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_read_as_they_are_written() {
        let value = json!({
            "log-in": { "kind": "AUTHENTICATION", "level": "ONE_FACTOR" },
            "payment": {
                "kind": "TRANSACTION", "level": "TWO_FACTOR", "methods": ["DEVICE:PIN"],
                "lifetime_s": 120, "confirmation": "NUMBER_MATCHING",
            },
        });
        let templates = read(&value).unwrap();
        assert_eq!(templates.len(), 2);
        assert_eq!(write(&templates), value);
        assert_eq!(read(&json!({})), Ok(Vec::new()));
    }

    #[test]
    fn what_is_no_template_is_refused() {
        let one = |name: &str, members: Value| read(&json!({ name: members }));
        assert!(one("a", json!({ "level": "ONE_FACTOR" })).is_ok());
        for name in ["", "A", "a b", "\u{e4}", &"a".repeat(65)] {
            assert!(one(name, json!({ "level": "ONE_FACTOR" })).is_err(), "{name}");
        }
        for members in [
            json!({}),
            json!({ "level": "THREE" }),
            json!({ "level": "ONE_FACTOR", "colour": "red" }),
            json!({ "level": "ONE_FACTOR", "lifetime_s": 9 }),
            json!({ "level": "TWO_FACTOR", "methods": ["DEVICE"] }),
            json!({ "level": "ONE_FACTOR", "methods": ["DEVICE", "DEVICE"] }),
            json!([]),
        ] {
            assert!(one("a", members.clone()).is_err(), "{members}");
        }
        let many: Map<_, _> =
            (0..17).map(|n| (n.to_string(), json!({ "level": "ONE_FACTOR" }))).collect();
        assert!(read(&Value::Object(many)).is_err());
        assert!(read(&json!(null)).is_err());
    }
}
