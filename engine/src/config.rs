//! What an administrator can set for an application.
//!
//! Each property has a name, a range and a default that never changes: a log
//! holds the properties that were set, and an old log must fold to the same
//! state under new software. [`PROPERTIES`] is the one list of them.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::attestation::policy::{BootRule, Mode, Policy, ProvisioningRule};
use crate::attestation::{Environment, SecurityLevel, properties};
use crate::reasons::{CodeType, PinType, RiskAttribute, Strategy};
use crate::templates::{self, Template};
use crate::terms::Method;
use crate::version::ClientVersion;

/// The longest name of an application or API key, in characters.
pub const NAME_MAX: usize = 64;
/// Most entries in a property that holds a list.
const LIST_MAX: usize = 64;

/// The configuration of an application.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Symbols in an activation code, 6 to 32.
    pub activation_code_length: u32,
    /// Their alphabet.
    pub activation_code_type: CodeType,
    /// How long a code can be redeemed, in seconds.
    pub activation_code_lifetime_s: u32,
    /// Wrong codes an application takes in one window.
    pub activation_failure_budget: u32,
    /// Wrong codes one source may send in one window.
    pub activation_failure_budget_per_source: u32,
    /// Length of that window in seconds.
    pub activation_failure_window_s: u32,
    /// How long after redeeming the activation must be finished, in seconds.
    pub activation_lifetime_s: u32,
    /// Methods that may be activated and used.
    pub allowed_methods: Vec<Method>,
    /// Whether a re-activation may go on without proof by an old key.
    pub allow_unproven_reactivation: bool,
    /// Shortest PIN, in characters.
    pub pin_length_min: u32,
    /// Longest PIN, in characters.
    pub pin_length_max: u32,
    /// What a PIN consists of.
    pub pin_type: PinType,
    /// Counted failures after which a registration is locked.
    pub failures_allowed: u32,
    /// How long an operation may be answered unless it says otherwise, in seconds.
    pub operation_lifetime_s: u32,
    /// What common operations ask for, by name.
    pub operation_templates: Vec<Template>,
    /// Whether a device may begin an operation of its own accord.
    pub allow_device_initiated: bool,
    /// What follows from the additional hardware check.
    pub hw_key_validation_strategy: Strategy,
    /// Oldest client that can have a hardware key.
    pub hw_key_min_client_version: ClientVersion,
    /// Risk attributes reported to the service provider.
    pub enabled_risk_data: Vec<RiskAttribute>,
    /// Oldest client that is served at all.
    pub min_client_version: Option<ClientVersion>,
    /// Client versions that are refused.
    pub blocked_client_versions: Vec<ClientVersion>,
    /// What is asked of attestation evidence.
    pub attestation: Policy,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            activation_code_length: 10,
            activation_code_type: CodeType::Numeric,
            activation_code_lifetime_s: 600,
            activation_failure_budget: 100,
            activation_failure_budget_per_source: 10,
            activation_failure_window_s: 600,
            activation_lifetime_s: 300,
            allowed_methods: vec![Method::Device, Method::DevicePin, Method::DeviceBiometric],
            allow_unproven_reactivation: false,
            pin_length_min: 4,
            pin_length_max: 12,
            pin_type: PinType::Numeric,
            failures_allowed: 3,
            operation_lifetime_s: 300,
            operation_templates: Vec::new(),
            allow_device_initiated: false,
            hw_key_validation_strategy: Strategy::Supported,
            hw_key_min_client_version: first_with_hardware_keys(),
            enabled_risk_data: Vec::new(),
            min_client_version: None,
            blocked_client_versions: Vec::new(),
            attestation: Policy::default(),
        }
    }
}

/// A property that was not set, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// There is no property of this name.
    #[error("unknown property {0}")]
    Unknown(String),
    /// The value is of the wrong kind or out of range.
    #[error("{property}: {expected}")]
    Invalid {
        /// The property.
        property: &'static str,
        /// What is accepted.
        expected: String,
    },
}

/// A property: its name, what it accepts, how it is read and written.
pub struct Property {
    /// Name in configuration and JSON.
    pub name: &'static str,
    /// What it means and accepts, for people.
    pub about: &'static str,
    set: fn(&mut Config, &Value) -> Result<(), String>,
    get: fn(&Config) -> Value,
}

/// A numeric property with its range.
macro_rules! number {
    ($field:ident, $range:expr, $about:literal) => {
        number!(stringify!($field), $field, $range, $about)
    };
    ($name:expr, $($field:ident).+, $range:expr, $about:literal) => {
        Property {
            name: $name,
            about: $about,
            set: |config, value| {
                let range = $range;
                config.$($field).+ = value
                    .as_u64()
                    .and_then(|number| u32::try_from(number).ok())
                    .filter(|number| range.contains(number))
                    .ok_or_else(|| {
                        format!("must be a whole number from {} to {}", range.start(), range.end())
                    })?;
                Ok(())
            },
            get: |config| json!(config.$($field).+),
        }
    };
}

/// A property that takes one of a closed list of names.
macro_rules! choice {
    ($field:ident, $type:ty, $about:literal) => {
        choice!(stringify!($field), $field, $type, <$type>::ALL, $about)
    };
    ($name:expr, $($field:ident).+, $type:ty, $all:expr, $about:literal) => {
        Property {
            name: $name,
            about: $about,
            set: |config, value| {
                config.$($field).+ = one_of($all, <$type>::as_str, value)?;
                Ok(())
            },
            get: |config| json!(config.$($field).+.as_str()),
        }
    };
}

/// A property that takes a list of distinct values.
macro_rules! list {
    ($field:ident, $read:expr, $write:expr, $about:literal) => {
        list!(stringify!($field), $field, $read, $write, $about)
    };
    ($name:expr, $($field:ident).+, $read:expr, $write:expr, $about:literal) => {
        Property {
            name: $name,
            about: $about,
            set: |config, value| {
                config.$($field).+ = distinct(value, $read)?;
                Ok(())
            },
            get: |config| Value::Array(config.$($field).+.iter().map($write).collect()),
        }
    };
}

/// Every property, by name.
pub const PROPERTIES: &[Property] = &[
    number!(activation_code_length, 6..=32, "Symbols in an activation code."),
    choice!(activation_code_type, CodeType, "Alphabet of an activation code."),
    number!(
        activation_code_lifetime_s,
        60..=2_592_000,
        "How long a code can be redeemed, in seconds."
    ),
    number!(
        activation_failure_budget,
        1..=1_000_000,
        "Wrong activation codes that the application takes in one window; further ones get 429."
    ),
    number!(
        activation_failure_budget_per_source,
        1..=1_000_000,
        "Wrong activation codes that one source address may send in one window."
    ),
    number!(activation_failure_window_s, 60..=86_400, "Length of that window, in seconds."),
    number!(
        activation_lifetime_s,
        60..=3_600,
        "How long after redeeming its code an activation must be finished, in seconds."
    ),
    list!(
        allowed_methods,
        |value| one_of(Method::ALL, Method::as_str, value),
        |method| json!(method.as_str()),
        "Methods that may be activated and used. DEVICE must be among them."
    ),
    Property {
        name: "allow_unproven_reactivation",
        about: "Whether a re-activation is accepted without proof by the old hardware or DEVICE key.",
        set: |config, value| {
            config.allow_unproven_reactivation =
                value.as_bool().ok_or_else(|| "must be true or false".to_owned())?;
            Ok(())
        },
        get: |config| json!(config.allow_unproven_reactivation),
    },
    number!(pin_length_min, 4..=32, "Shortest PIN, in characters. Enforced by the device."),
    number!(pin_length_max, 4..=32, "Longest PIN, in characters. Enforced by the device."),
    choice!(pin_type, PinType, "What a PIN consists of. Enforced by the device."),
    number!(failures_allowed, 1..=20, "Counted failures after which a registration is locked."),
    number!(
        operation_lifetime_s,
        30..=86_400,
        "How long an operation may be answered unless it says otherwise, in seconds."
    ),
    choice!(
        hw_key_validation_strategy,
        Strategy,
        "What follows from the additional hardware check; see docs/protocol.md."
    ),
    Property {
        name: "hw_key_min_client_version",
        about: "Oldest client that can have a hardware key; an older one counts as a device without.",
        set: |config, value| {
            config.hw_key_min_client_version = version(value)?;
            Ok(())
        },
        get: |config| json!(config.hw_key_min_client_version.to_string()),
    },
    list!(
        enabled_risk_data,
        |value| one_of(RiskAttribute::ALL, RiskAttribute::as_str, value),
        |attribute| json!(attribute.as_str()),
        "Risk attributes that results carry."
    ),
    Property {
        name: "operation_templates",
        about: "What common operations ask for, by name: an object of at most 16 templates; see docs/protocol.md.",
        set: |config, value| {
            config.operation_templates = templates::read(value)?;
            Ok(())
        },
        get: |config| templates::write(&config.operation_templates),
    },
    Property {
        name: "allow_device_initiated",
        about: "Whether a device may begin an authentication that no service provider has asked for.",
        set: |config, value| {
            config.allow_device_initiated =
                value.as_bool().ok_or_else(|| "must be true or false".to_owned())?;
            Ok(())
        },
        get: |config| json!(config.allow_device_initiated),
    },
    Property {
        name: "min_client_version",
        about: "Oldest client that is served at all, or null.",
        set: |config, value| {
            config.min_client_version = if value.is_null() { None } else { Some(version(value)?) };
            Ok(())
        },
        get: |config| json!(config.min_client_version.as_ref().map(ToString::to_string)),
    },
    list!(
        blocked_client_versions,
        version,
        |version| json!(version.to_string()),
        "Client versions that are refused."
    ),
    choice!(
        "attestation_android_mode",
        attestation.android.mode,
        Mode,
        Mode::ALL,
        "Whether a hardware key needs evidence from Android; see docs/attestation.md."
    ),
    choice!(
        "attestation_android_security_level",
        attestation.android.security_level,
        SecurityLevel,
        &[SecurityLevel::TrustedEnvironment, SecurityLevel::StrongBox],
        "The weakest place that the key may live in. Many good phones have no StrongBox."
    ),
    choice!(
        "attestation_android_boot",
        attestation.android.boot,
        BootRule,
        BootRule::ALL,
        "What the boot loader must vouch for."
    ),
    Property {
        name: "attestation_android_patch_level_min",
        about: "Oldest patch level of the system, as 202511, or null.",
        set: |config, value| {
            config.attestation.android.patch_level_min = properties::month(value)?;
            Ok(())
        },
        get: |config| json!(config.attestation.android.patch_level_min),
    },
    list!(
        "attestation_android_packages",
        attestation.android.packages,
        properties::package,
        |package| json!(package),
        "Packages that may hold the key; empty accepts any."
    ),
    list!(
        "attestation_android_signers",
        attestation.android.signers,
        properties::digest,
        |digest| json!(crate::hex(digest)),
        "SHA-256 of the certificates that may have signed the package, in hex; empty accepts any."
    ),
    choice!(
        "attestation_android_provisioning",
        attestation.android.provisioning,
        ProvisioningRule,
        ProvisioningRule::ALL,
        "Which attestation keys are accepted: any, or only remotely provisioned ones."
    ),
    number!(
        "attestation_android_list_age_max_days",
        attestation.android.list_age_max_days,
        1..=3_650,
        "Days after which a revocation list is reported as stale."
    ),
    list!(
        "attestation_android_further_roots",
        attestation.android.further_roots,
        properties::root,
        |key| json!(properties::base64url(key)),
        "Keys of roots trusted beside Google's, as base64url of SubjectPublicKeyInfo. For tests."
    ),
    choice!(
        "attestation_apple_mode",
        attestation.apple.mode,
        Mode,
        Mode::ALL,
        "Whether a hardware key needs evidence from Apple; see docs/attestation.md."
    ),
    list!(
        "attestation_apple_app_ids",
        attestation.apple.app_ids,
        properties::app_id,
        |id| json!(id),
        "App IDs (team, dot, bundle) that may hold the key. None is accepted unless named."
    ),
    list!(
        "attestation_apple_environments",
        attestation.apple.environments,
        |value| one_of(Environment::ALL, Environment::as_str, value),
        |environment| json!(environment.as_str()),
        "App Attest environments that are accepted."
    ),
    list!(
        "attestation_apple_further_roots",
        attestation.apple.further_roots,
        properties::root,
        |key| json!(properties::base64url(key)),
        "Keys of roots trusted beside Apple's, as base64url of SubjectPublicKeyInfo. For tests."
    ),
];

impl Config {
    /// Sets properties by name; all of them or, on an error, none.
    ///
    /// # Errors
    ///
    /// Every property that is unknown, of the wrong kind or out of range.
    pub fn with<'a>(
        &self,
        properties: impl IntoIterator<Item = (&'a str, &'a Value)>,
    ) -> Result<Self, Vec<ConfigError>> {
        let mut config = self.clone();
        let mut errors = Vec::new();
        for (name, value) in properties {
            let Some(property) = PROPERTIES.iter().find(|property| property.name == name) else {
                errors.push(ConfigError::Unknown(name.chars().take(NAME_MAX).collect()));
                continue;
            };
            if let Err(expected) = (property.set)(&mut config, value) {
                errors.push(ConfigError::Invalid { property: property.name, expected });
            }
        }
        errors.extend(config.contradictions());
        if errors.is_empty() { Ok(config) } else { Err(errors) }
    }

    /// Every property with its value, by name.
    #[must_use]
    pub fn properties(&self) -> Vec<(&'static str, Value)> {
        PROPERTIES.iter().map(|property| (property.name, (property.get)(self))).collect()
    }

    /// Whether a client of this version is served at all.
    #[must_use]
    pub fn serves(&self, version: &ClientVersion) -> bool {
        self.min_client_version.as_ref().is_none_or(|min| version.is_at_least(min))
            && !self.blocked_client_versions.iter().any(|blocked| blocked.is_same_as(version))
    }

    fn contradictions(&self) -> Vec<ConfigError> {
        let mut errors = Vec::new();
        if self.pin_length_min > self.pin_length_max {
            errors.push(ConfigError::Invalid {
                property: "pin_length_min",
                expected: "must not exceed pin_length_max".into(),
            });
        }
        if !self.allowed_methods.contains(&Method::Device) {
            errors.push(ConfigError::Invalid {
                property: "allowed_methods",
                expected: "must contain DEVICE".into(),
            });
        }
        if self.attestation.apple.mode != Mode::Off && self.attestation.apple.app_ids.is_empty() {
            errors.push(ConfigError::Invalid {
                property: "attestation_apple_app_ids",
                expected: "must name an App ID while attestation_apple_mode is not OFF".into(),
            });
        }
        errors
    }
}

/// The reference product's first version with hardware keys.
fn first_with_hardware_keys() -> ClientVersion {
    #[expect(clippy::expect_used, reason = "a constant that is a version")]
    ClientVersion::parse("3.8").expect("a version")
}

/// The value whose name is the JSON string `value`.
fn one_of<T: Copy>(all: &[T], name: fn(T) -> &'static str, value: &Value) -> Result<T, String> {
    let text = value.as_str();
    all.iter().copied().find(|&item| text == Some(name(item))).ok_or_else(|| {
        let names: Vec<_> = all.iter().map(|&item| name(item)).collect();
        format!("must be one of {}", names.join(", "))
    })
}

fn version(value: &Value) -> Result<ClientVersion, String> {
    value
        .as_str()
        .and_then(|text| ClientVersion::parse(text).ok())
        .ok_or_else(|| "must be a version such as \"3.8\"".to_owned())
}

fn distinct<T: PartialEq>(
    value: &Value,
    read: impl Fn(&Value) -> Result<T, String>,
) -> Result<Vec<T>, String> {
    let items = value.as_array().ok_or_else(|| "must be a list".to_owned())?;
    if items.len() > LIST_MAX {
        return Err(format!("must have at most {LIST_MAX} entries"));
    }
    let mut out = Vec::with_capacity(items.len());
    for item in items {
        let item = read(item).map_err(|expected| format!("each entry {expected}"))?;
        if out.contains(&item) {
            return Err("must not repeat an entry".to_owned());
        }
        out.push(item);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(name: &str, value: Value) -> Result<Config, Vec<ConfigError>> {
        Config::default().with([(name, &value)])
    }

    #[test]
    fn every_property_takes_its_own_default() {
        let config = Config::default();
        for (name, value) in config.properties() {
            assert_eq!(set(name, value), Ok(config.clone()), "{name}");
        }
    }

    #[test]
    fn every_property_refuses_an_object_by_name() {
        for property in PROPERTIES {
            let errors = set(property.name, json!({ "": {} })).unwrap_err();
            assert!(
                matches!(&errors[0], ConfigError::Invalid { property: name, .. } if *name == property.name)
            );
        }
    }

    #[test]
    fn the_edges_of_a_number_are_inside_and_their_neighbours_outside() {
        for (value, fits) in [(5, false), (6, true), (32, true), (33, false)] {
            assert_eq!(set("activation_code_length", json!(value)).is_ok(), fits, "{value}");
        }
    }

    #[test]
    fn an_unknown_property_is_refused_by_name() {
        assert_eq!(
            set("activation_code_lenght", json!(8)),
            Err(vec![ConfigError::Unknown("activation_code_lenght".into())])
        );
    }

    #[test]
    fn one_bad_property_among_good_ones_sets_nothing_and_all_bad_ones_are_named() {
        let good = json!(12);
        let bad = json!("x");
        let errors = Config::default()
            .with([
                ("failures_allowed", &good),
                ("pin_type", &bad),
                ("nonsense", &bad),
                ("activation_code_length", &good),
            ])
            .unwrap_err();
        assert_eq!(errors.len(), 2);
    }

    #[test]
    fn device_cannot_be_forbidden_and_pin_lengths_cannot_cross() {
        assert!(set("allowed_methods", json!(["DEVICE:PIN"])).is_err());
        assert!(set("allowed_methods", json!(["DEVICE"])).is_ok());
        assert!(set("pin_length_min", json!(13)).is_err());
        assert!(set("pin_length_min", json!(12)).is_ok());
    }

    #[test]
    fn a_client_is_served_from_the_minimum_on_unless_blocked() {
        let config = Config {
            min_client_version: Some(ClientVersion::parse("3.2").unwrap()),
            blocked_client_versions: vec![ClientVersion::parse("3.5").unwrap()],
            ..Config::default()
        };
        for (version, served) in
            [("3.1.9", false), ("3.2", true), ("3.5", false), ("3.5.0", false), ("3.5.1", true)]
        {
            let version = ClientVersion::parse(version).unwrap();
            assert_eq!(config.serves(&version), served, "{version}");
        }
    }
}
