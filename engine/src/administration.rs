//! The log itself, API keys, applications and their configuration.

use crate::command::{ChangeConfiguration, CreateApiKey, CreateApplication, Refusal, StartLog};
use crate::config::{Config, NAME_MAX};
use crate::entries::Look;
use crate::events::{
    Actor, ApiKeyCreatedV1, ApiKeyRevokedV1, ApplicationCreatedV1, ClockSteppedV1,
    CodeBudgetExhaustedV1, ConfigurationChangedV1, LogStartedV1, RefusalsCountedV1, SetProperty,
};
use crate::ids::{Id, Micros};
use crate::plan::{Decided, Plan, administrator, label, slug};
use crate::reasons::{BudgetScope, UserRole};

/// Most properties in one change.
const PROPERTIES_MAX: usize = 64;
/// Most bytes of a property's value as JSON.
const VALUE_MAX: usize = 4096;

pub(crate) fn start_log(look: Look, event_id: Id, want: &StartLog) -> Decided {
    if !look.system().origin.is_empty() {
        return Err(Refusal::AlreadyStarted);
    }
    let started = LogStartedV1 { origin: want.origin.clone(), software: want.software.clone() };
    let first_key = ApiKeyCreatedV1 {
        by: None,
        role: UserRole::Administrator,
        service_provider: String::new(),
        name: "first administrator".into(),
        secret_hash: want.secret_hash,
    };
    Plan::new(event_id).event(Id::NIL, started).event(want.key, first_key).done()
}

pub(crate) fn note_clock_step(event_id: Id, from: Micros, to: Micros) -> Decided {
    Plan::new(event_id).event(Id::NIL, ClockSteppedV1 { from, to }).done()
}

pub(crate) fn count_refusals(event_id: Id, counts: &RefusalsCountedV1) -> Decided {
    Plan::new(event_id).event(Id::NIL, counts.clone()).done()
}

pub(crate) fn create_api_key(look: Look, event_id: Id, want: &CreateApiKey) -> Decided {
    administrator(look, &want.by)?;
    label("name", &want.name, NAME_MAX)?;
    match want.role {
        UserRole::ServiceProvider => slug("service_provider", &want.service_provider)?,
        UserRole::Administrator | UserRole::Auditor if want.service_provider.is_empty() => (),
        UserRole::Administrator | UserRole::Auditor => {
            return Err(Refusal::Invalid {
                field: "service_provider",
                expected: "must be absent unless the role is SERVICE_PROVIDER",
            });
        }
    }
    if look.is_stream(want.key) {
        return Err(Refusal::Taken);
    }
    let created = ApiKeyCreatedV1 {
        by: Some(want.by.clone()),
        role: want.role,
        service_provider: want.service_provider.clone(),
        name: want.name.clone(),
        secret_hash: want.secret_hash,
    };
    Plan::new(event_id).event(want.key, created).done()
}

pub(crate) fn revoke_api_key(look: Look, event_id: Id, by: &Actor, key: Id) -> Decided {
    administrator(look, by)?;
    let known = look.api_key(key).ok_or(Refusal::Unknown)?;
    // Else the last administrator could shut everyone out by a slip.
    if key == by.api_key {
        return Err(Refusal::RevokesItself);
    }
    if known.revoked {
        return Ok(Vec::new());
    }
    Plan::new(event_id).event(key, ApiKeyRevokedV1 { by: by.clone() }).done()
}

pub(crate) fn create_application(look: Look, event_id: Id, want: &CreateApplication) -> Decided {
    administrator(look, &want.by)?;
    label("name", &want.name, NAME_MAX)?;
    slug("service_provider", &want.service_provider)?;
    configured(&Config::default(), &want.properties)?;
    if look.is_stream(want.application) {
        return Err(Refusal::Taken);
    }
    let created = ApplicationCreatedV1 {
        by: want.by.clone(),
        name: want.name.clone(),
        service_provider: want.service_provider.clone(),
        properties: want.properties.clone(),
    };
    Plan::new(event_id).event(want.application, created).done()
}

pub(crate) fn change_configuration(
    look: Look,
    event_id: Id,
    want: &ChangeConfiguration,
) -> Decided {
    administrator(look, &want.by)?;
    let application = look.application(want.application).ok_or(Refusal::Unknown)?;
    if application.config_version != want.version {
        return Err(Refusal::VersionConflict { actual: application.config_version });
    }
    configured(&application.config, &want.properties)?;
    let changed = ConfigurationChangedV1 {
        by: want.by.clone(),
        version: want.version + 1,
        properties: want.properties.clone(),
    };
    Plan::new(event_id).event(want.application, changed).done()
}

pub(crate) fn exhaust_code_budget(
    look: Look,
    event_id: Id,
    application: Id,
    exhausted: CodeBudgetExhaustedV1,
) -> Decided {
    let known = look.application(application).ok_or(Refusal::Unknown)?;
    let covered =
        exhausted.scope == BudgetScope::Application && known.codes_refused_until >= exhausted.until;
    if covered {
        return Ok(Vec::new());
    }
    Plan::new(event_id).event(application, exhausted).done()
}

/// `config` with `properties` set.
///
/// # Errors
///
/// [`Refusal::Configuration`] with every property that is refused.
pub fn configured(config: &Config, properties: &[SetProperty]) -> Result<Config, Refusal> {
    let invalid = |expected| Refusal::Invalid { field: "configuration", expected };
    if properties.len() > PROPERTIES_MAX {
        return Err(invalid("must have at most 64 properties"));
    }
    let mut values = Vec::with_capacity(properties.len());
    for (name, json) in properties {
        if json.len() > VALUE_MAX {
            return Err(invalid("must have values of at most 4096 bytes"));
        }
        let value = serde_json::from_str(json).map_err(|_| invalid("must have JSON values"))?;
        values.push((name.as_str(), value));
    }
    config.with(values.iter().map(|(name, value)| (*name, value))).map_err(Refusal::Configuration)
}
