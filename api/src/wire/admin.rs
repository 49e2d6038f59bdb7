//! Bodies between an administrator and the server.

use std::borrow::Cow;
use std::collections::BTreeMap;

use engine::config::{Config, PROPERTIES};
use engine::ids::Id;
use engine::reasons::UserRole;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::openapi::schema::{AdditionalProperties, ObjectBuilder};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::words::{UserRoleWord, Uuid};
use super::{Moment, Octets32};

/// Makes an API key.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateApiKey {
    /// What its holder may do.
    #[schema(value_type = UserRoleWord)]
    pub role: UserRole,
    /// The service provider it acts for: 1 to 64 lower-case letters, digits or hyphens.
    /// Required for SERVICE_PROVIDER, absent for the other roles.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, max_length = 64, example = "my-bank")]
    pub service_provider: Option<String>,
    /// A label for people, 1 to 64 characters.
    #[schema(min_length = 1, max_length = 64)]
    pub name: String,
}

/// An API key. Its secret is not kept.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ApiKey {
    /// Its id.
    #[schema(value_type = Uuid)]
    pub api_key_id: Id,
    /// What its holder may do.
    #[schema(value_type = UserRoleWord)]
    pub role: UserRole,
    /// The service provider it acts for, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub service_provider: Option<String>,
    /// A label for people.
    pub name: String,
    /// Whether it was revoked.
    pub revoked: bool,
    /// When it was made.
    pub created_at: Moment,
}

/// A new API key. The secret is shown once: a repeat of the request does not have it.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct CreatedApiKey {
    /// The key.
    #[serde(flatten)]
    pub api_key: ApiKey,
    /// The password for HTTP Basic, with the id as user. Absent in a repeat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub secret: Option<String>,
    /// The token for HTTP Bearer. Absent in a repeat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub bearer: Option<String>,
    /// Whether this repeats an earlier answer, whose secret cannot be shown again.
    pub repeated: bool,
}

impl std::fmt::Debug for CreatedApiKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CreatedApiKey").field("api_key", &self.api_key).finish_non_exhaustive()
    }
}

/// Properties of an application by name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Properties(pub BTreeMap<String, Value>);

impl PartialSchema for Properties {
    /// Every property with its meaning and default, from the rules' own table.
    fn schema() -> RefOr<Schema> {
        let mut object = ObjectBuilder::new()
            .description(Some("Properties of an application by name."))
            .additional_properties(Some(AdditionalProperties::FreeForm(false)));
        let defaults: BTreeMap<_, _> = Config::default().properties().into_iter().collect();
        for property in PROPERTIES {
            let described = ObjectBuilder::new()
                .schema_type(utoipa::openapi::schema::SchemaType::AnyValue)
                .description(Some(property.about))
                .default(defaults.get(property.name).cloned());
            object = object.property(property.name, described);
        }
        object.build().into()
    }
}

impl ToSchema for Properties {
    fn name() -> Cow<'static, str> {
        "Properties".into()
    }
}

/// Creates an application.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateApplication {
    /// A label for people, 1 to 64 characters.
    #[schema(min_length = 1, max_length = 64)]
    pub name: String,
    /// The service provider it belongs to: 1 to 64 lower-case letters, digits or hyphens.
    #[schema(min_length = 1, max_length = 64, example = "my-bank")]
    pub service_provider: String,
    /// Properties to set; all others have their defaults.
    #[serde(default)]
    pub configuration: Properties,
}

/// Changes the configuration of an application.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeConfiguration {
    /// The version that is changed; if it is no longer the present one, nothing happens.
    pub version: u64,
    /// Properties to set; all others stay.
    pub configuration: Properties,
}

/// An application.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Application {
    /// Its id.
    #[schema(value_type = Uuid)]
    pub application_id: Id,
    /// A label for people.
    pub name: String,
    /// The service provider it belongs to.
    pub service_provider: String,
    /// When it was created.
    pub created_at: Moment,
    /// Counts changes of the configuration from 1.
    pub configuration_version: u64,
    /// Every property with its value.
    pub configuration: Properties,
    /// Activation codes that wait to be redeemed.
    pub live_codes: u64,
    /// Until when typed activation codes are refused, if they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub codes_refused_until: Option<Moment>,
}

/// A part of a list, in the order of ids.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Page<T> {
    /// The entries.
    pub items: Vec<T>,
    /// Value of `after` for the next part; absent at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Uuid, required = false)]
    pub next: Option<Id>,
}

/// How the server is.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// The origin line of the log.
    pub origin: String,
    /// Records in the log.
    pub records: u64,
    /// Whether the disk has no space left: reading goes on, nothing is written.
    pub read_only: bool,
    /// Whether a step of the clock has suspended what time alone makes happen, except expiry.
    pub clock_suspended: bool,
    /// Signatures checked on live challenges since the start of the process.
    pub signatures_checked: u64,
    /// Commands that a rule refused since the start of the process.
    pub commands_refused: u64,
    /// Commands that failed inside the server since the start of the process.
    pub commands_failed: u64,
    /// Places outside the machine that get the checkpoints.
    pub anchors: Vec<AnchorStatus>,
}

/// What an anchor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum AnchorKind {
    /// A folder.
    Directory,
    /// An HTTP endpoint.
    Url,
    /// A witness, which cosigns.
    Witness,
}

/// How an anchor is.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct AnchorStatus {
    /// What it is.
    pub kind: AnchorKind,
    /// Its folder, its host, or the name of its key.
    pub name: String,
    /// Records that the last checkpoint it took covers; absent before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub size: Option<u64>,
    /// When it took that checkpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub taken_at: Option<Moment>,
    /// Why it did not take the last one it was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub error: Option<String>,
    /// Whether it contradicts the log: a rollback, or two histories.
    pub contradicts: bool,
}

/// A revocation list as Google publishes it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RevocationListFile {
    /// By serial number, in decimal or hexadecimal.
    pub entries: BTreeMap<String, RevocationListEntry>,
}

/// What a revocation list says of a certificate. Further members are passed over.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RevocationListEntry {
    /// REVOKED or SUSPENDED.
    pub status: String,
}

/// A revocation list in force.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RevocationList {
    /// Position of its first event in the log.
    pub position: u64,
    /// SHA-256 of the file.
    pub sha256: Octets32,
    /// Serial numbers in it. One of digits alone counts twice: as decimal and as hexadecimal.
    pub serials: u64,
    /// When it was taken over.
    pub taken_at: Moment,
}
