//! What was known at a moment: state folded up to it, and no further.
//!
//! A deadline that had passed by then is marked as passed: the rules treated it
//! so, whether or not its event stood in the log already.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::ControlFlow;
use std::path::Path;

use engine::Keytrail;
use engine::entries::{Activation, Application, Entry, Key, Look, Operation, Registration};
use engine::ids::{Id, Micros, Position};
use engine::key::KeyBytes;
use engine::reasons::RegistrationState;
use serde::Serialize;
use serde_json::Value;
use storage::fold::FoldedState;

use crate::walk::{self, At, ReplayError, Walked};
use crate::{hex, one_line, rfc3339};

/// A place in the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The record.
    pub position: u64,
    /// Its time.
    pub time: String,
}

impl Place {
    pub(crate) fn new(position: Position, time: Micros) -> Self {
        Self { position: position.0, time: rfc3339(time) }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.position, self.time)
    }
}

/// What was known at a moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Moment {
    /// The log's origin line.
    pub origin: String,
    /// Records that had been written.
    pub records: u64,
    /// The last of them.
    pub last: Option<Place>,
    /// The record after them, if the log goes on.
    pub next: Option<Place>,
    /// Whether the moment lies between two records of one command. The server
    /// never showed that state: a command becomes visible as a whole.
    pub inside_command: bool,
    /// Digest of the whole state at that moment, in hexadecimal; the one that a
    /// store at the same position gives.
    pub state_digest: String,
    /// Registrations by their state.
    pub registrations: BTreeMap<&'static str, u64>,
    /// Operations that could be answered, over all registrations.
    pub pending_operations: u64,
    /// The applications, by id; none where one registration was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub applications: Option<Vec<ApplicationThen>>,
    /// The registration that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registration: Option<RegistrationThen>,
    /// What was found in the log's files and hides no record.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remarks: Vec<String>,
}

/// An application at a moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ApplicationThen {
    /// Its id.
    pub application_id: Id,
    /// A label.
    pub name: String,
    /// The service provider it belonged to.
    pub service_provider: String,
    /// When it was created.
    pub created_at: String,
    /// Version of the configuration in force.
    pub config_version: u64,
    /// Every property in force.
    pub configuration: BTreeMap<&'static str, Value>,
    /// Codes that waited to be redeemed.
    pub live_codes: u64,
    /// Typed codes were refused until then, if that was still to come.
    pub codes_refused_until: Option<String>,
}

/// A registration at a moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RegistrationThen {
    /// Its id.
    pub registration_id: Id,
    /// Its application.
    pub application_id: Id,
    /// The random id of the person.
    pub subject: Id,
    /// Where it stood.
    pub state: &'static str,
    /// Why it was locked, if it was.
    pub lock_reason: Option<&'static str>,
    /// Why it is over, if it is and ever had keys.
    pub deactivation_reason: Option<&'static str>,
    /// Software keys by method.
    pub software_keys: Vec<KeyThen>,
    /// The hardware key.
    pub hardware_key: Option<KeyThen>,
    /// Whether the device counted as one that cannot have a hardware key.
    pub hw_key_impossible: bool,
    /// Whether the last re-activation was not proven by an old key.
    pub unproven_device: bool,
    /// Record that set the keys.
    pub keys_at: Option<u64>,
    /// The strategy in force.
    pub strategy: Option<&'static str>,
    /// The client's version at activation.
    pub client_version: String,
    /// Counted failures.
    pub failures: u32,
    /// Failures that the configuration in force allowed.
    pub failures_allowed: Option<u32>,
    /// Failures that remained.
    pub remaining_attempts: Option<u32>,
    /// The activation under way.
    pub activation: Option<ActivationThen>,
    /// Operations that could be answered, oldest first.
    pub pending_operations: Vec<OperationThen>,
    /// When it was requested.
    pub created_at: String,
    /// When time was to release its lock, if it was.
    pub lock_release_at: Option<String>,
    /// When it was last activated.
    pub activated_at: Option<String>,
    /// When it last authenticated successfully.
    pub last_used_at: Option<String>,
}

/// A key at a moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeyThen {
    /// The method it served; none for the hardware key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<&'static str>,
    /// SHA-256 of its SubjectPublicKeyInfo, in hexadecimal.
    pub key_id: String,
}

/// An activation under way at a moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ActivationThen {
    /// Its id.
    pub activation_id: Id,
    /// Whether the registration had keys before.
    pub again: bool,
    /// Where it stood.
    pub state: &'static str,
    /// Its deadline.
    pub expires_at: String,
    /// Whether the deadline had passed.
    pub deadline_passed: bool,
}

/// An operation that waited at a moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OperationThen {
    /// Its id.
    pub operation_id: Id,
    /// Factors required.
    pub level: &'static str,
    /// Methods that could answer.
    pub methods: Vec<&'static str>,
    /// Whether a challenge was outstanding.
    pub challenge_outstanding: bool,
    /// Challenges that had been judged.
    pub attempts: usize,
    /// When it was created.
    pub created_at: String,
    /// Its deadline.
    pub expires_at: String,
    /// Whether the deadline had passed.
    pub deadline_passed: bool,
}

/// What the log in the folder `dir` knew `at` that moment: every application, or
/// `registration`.
///
/// # Errors
///
/// [`ReplayError`]; [`ReplayError::Unknown`] for a registration that did not
/// exist by then.
pub fn moment(dir: &Path, at: At, registration: Option<Id>) -> Result<Moment, ReplayError> {
    let mut state = FoldedState::<Keytrail>::default();
    let mut command = Vec::new();
    let (mut last, mut next, mut inside) = (None, None, false);
    let walked = walk::records(dir, &mut |step| {
        let record = &step.record;
        if !at.includes(record) {
            next = Some(Place::new(record.position, record.time));
            inside = !command.is_empty() && walk::continues(&command, record);
            return Ok(ControlFlow::Break(()));
        }
        walk::fold(&mut state, record)?;
        if !walk::continues(&command, record) {
            command.clear();
        }
        command.push(record.clone());
        last = Some((record.position, record.time));
        Ok(ControlFlow::Continue(()))
    });
    let walked = match walked {
        // What is missing comes after the record that was asked for.
        Err(ReplayError::Hole { origin, findings, .. })
            if last.map(|(position, _)| At::Position(position)) == Some(at) =>
        {
            Walked { origin, findings }
        }
        walked => walked?,
    };
    let records = state.position().0;
    if let At::Position(position) = at
        && position.0 >= records
    {
        return Err(ReplayError::Beyond { position, records });
    }
    // The log's own time where a position was asked for.
    let now = match at {
        At::Time(time) => time,
        At::Position(_) => last.map_or(Micros(0), |(_, time)| time),
    };
    let mut moment = Moment {
        origin: walked.origin,
        records,
        last: last.map(|(position, time)| Place::new(position, time)),
        next,
        inside_command: inside,
        state_digest: hex(&state.digest()),
        registrations: BTreeMap::new(),
        pending_operations: 0,
        applications: None,
        registration: None,
        remarks: walked.findings.iter().map(ToString::to_string).collect(),
    };
    count(&state, &mut moment);
    match registration {
        Some(id) => {
            let known = registration_then(Look(&state), id, now);
            let unknown = ReplayError::Unknown { what: "registration", id };
            moment.registration = Some(known.ok_or(unknown)?);
        }
        None => moment.applications = Some(applications(&state, now)),
    }
    Ok(moment)
}

fn count(state: &FoldedState<Keytrail>, moment: &mut Moment) {
    for &possible in RegistrationState::ALL {
        moment.registrations.insert(possible.as_str(), 0);
    }
    for (_, entry) in state.entries() {
        if let Entry::Registration(registration) = entry.as_ref() {
            *moment.registrations.entry(registration.state.as_str()).or_default() += 1;
            moment.pending_operations += registration.open_operations.len() as u64;
        }
    }
}

fn applications(state: &FoldedState<Keytrail>, now: Micros) -> Vec<ApplicationThen> {
    let mut found = Vec::new();
    for (key, entry) in state.entries() {
        if let (Key::Application(id), Entry::Application(application)) = (key, entry.as_ref()) {
            found.push(application_then(*id, application, now));
        }
    }
    found
}

fn application_then(id: Id, application: &Application, now: Micros) -> ApplicationThen {
    let refused = application.codes_refused_until;
    ApplicationThen {
        application_id: id,
        name: application.name.clone(),
        service_provider: application.service_provider.clone(),
        created_at: rfc3339(application.created_at),
        config_version: application.config_version,
        configuration: application.config.properties().into_iter().collect(),
        live_codes: application.live_codes,
        codes_refused_until: (refused > now).then(|| rfc3339(refused)),
    }
}

/// The registration `id` as state knew it at `now`.
pub(crate) fn registration_then(look: Look, id: Id, now: Micros) -> Option<RegistrationThen> {
    let registration = look.registration(id)?;
    let config = look.application(registration.application).map(|known| known.config.clone());
    let allowed = config.as_ref().map(|config| config.failures_allowed);
    let activation = registration.activation.and_then(|id| Some((id, look.activation(id)?)));
    let operations = registration.open_operations.iter();
    let pending =
        operations.filter_map(|id| Some(operation_then(*id, &*look.operation(*id)?, now)));
    Some(RegistrationThen {
        registration_id: id,
        application_id: registration.application,
        subject: registration.subject,
        state: registration.state.as_str(),
        lock_reason: registration.lock_reason.map(|reason| reason.as_str()),
        deactivation_reason: registration.deactivation_reason.map(|reason| reason.as_str()),
        software_keys: software_keys(&registration),
        hardware_key: registration.hardware.as_ref().map(|key| key_then(None, key)),
        hw_key_impossible: registration.hw_key_impossible,
        unproven_device: registration.unproven_device,
        keys_at: registration.activated_at.map(|_| registration.keys_at.0),
        strategy: config.map(|config| config.hw_key_validation_strategy.as_str()),
        client_version: registration.client_version.clone(),
        failures: registration.failures,
        failures_allowed: allowed,
        remaining_attempts: allowed.map(|allowed| allowed.saturating_sub(registration.failures)),
        activation: activation.map(|(id, activation)| activation_then(id, &activation, now)),
        pending_operations: pending.collect(),
        created_at: rfc3339(registration.created_at),
        lock_release_at: registration.release_at.map(rfc3339),
        activated_at: registration.activated_at.map(rfc3339),
        last_used_at: registration.last_used_at.map(rfc3339),
    })
}

fn software_keys(registration: &Registration) -> Vec<KeyThen> {
    let slots = registration.software.iter();
    slots.map(|slot| key_then(Some(slot.method.as_str()), &slot.key)).collect()
}

fn key_then(method: Option<&'static str>, key: &KeyBytes) -> KeyThen {
    // A key that was admitted is a point; one in a forged log may not be.
    let key_id = key.check().map_or_else(|_| "(not a key)".to_owned(), |key| hex(&key.id().0));
    KeyThen { method, key_id }
}

fn activation_then(id: Id, activation: &Activation, now: Micros) -> ActivationThen {
    ActivationThen {
        activation_id: id,
        again: activation.again,
        state: activation.state.as_str(),
        expires_at: rfc3339(activation.expires_at),
        deadline_passed: activation.expires_at <= now,
    }
}

fn operation_then(id: Id, operation: &Operation, now: Micros) -> OperationThen {
    OperationThen {
        operation_id: id,
        level: operation.level.as_str(),
        methods: operation.methods.iter().map(|method| method.as_str()).collect(),
        challenge_outstanding: operation.challenge.is_some(),
        attempts: operation.attempts.len(),
        created_at: rfc3339(operation.created_at),
        expires_at: rfc3339(operation.expires_at),
        deadline_passed: operation.expires_at <= now,
    }
}

/// One page for people.
impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "log      {}", one_line(&self.origin))?;
        match (&self.last, &self.next) {
            (None, _) => writeln!(f, "at       before the first record: nothing was known")?,
            (Some(last), None) => writeln!(f, "at       record {last}, the last one of the log")?,
            (Some(last), Some(next)) => {
                writeln!(f, "at       record {last}; the next one is {next}")?;
            }
        }
        if self.inside_command {
            writeln!(f, "note     between two records of one command, a state that no reader saw")?;
        }
        writeln!(f, "state    {}", self.state_digest)?;
        let counts: Vec<_> =
            self.registrations.iter().map(|(state, count)| format!("{count} {state}")).collect();
        let pending = self.pending_operations;
        writeln!(f, "there    {}; {pending} pending operations", counts.join(", "))?;
        for application in self.applications.iter().flatten() {
            writeln!(f, "\n{application}")?;
        }
        if let Some(registration) = &self.registration {
            writeln!(f, "\n{registration}")?;
        }
        self.remarks.iter().try_for_each(|remark| writeln!(f, "note     {remark}"))
    }
}

impl fmt::Display for ApplicationThen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "application {} {:?}", self.application_id, self.name)?;
        writeln!(f, "  service provider  {}", one_line(&self.service_provider))?;
        writeln!(f, "  created           {}", self.created_at)?;
        writeln!(f, "  live codes        {}", self.live_codes)?;
        if let Some(until) = &self.codes_refused_until {
            writeln!(f, "  codes refused     until {until}")?;
        }
        write!(f, "  configuration     version {}", self.config_version)?;
        self.configuration.iter().try_for_each(|(name, value)| write!(f, "\n    {name}={value}"))
    }
}

impl fmt::Display for RegistrationThen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let none = || "none".to_owned();
        writeln!(f, "registration {}", self.registration_id)?;
        writeln!(f, "  application       {}", self.application_id)?;
        writeln!(f, "  person            subject {}", self.subject)?;
        let reason = self.lock_reason.or(self.deactivation_reason);
        let reason = reason.map_or_else(String::new, |reason| format!(", {reason}"));
        writeln!(f, "  state             {}{reason}", self.state)?;
        for key in &self.software_keys {
            writeln!(f, "  software key      {} {}", key.method.unwrap_or_default(), key.key_id)?;
        }
        let hardware = self.hardware_key.as_ref().map(|key| key.key_id.clone());
        let cannot = if self.hw_key_impossible { ", the device cannot have one" } else { "" };
        writeln!(f, "  hardware key      {}{cannot}", hardware.unwrap_or_else(none))?;
        if let Some(position) = self.keys_at {
            let client = one_line(&self.client_version);
            writeln!(f, "  keys set by       record {position}, client {client}")?;
        }
        if self.unproven_device {
            writeln!(f, "  device            not proven by an earlier key")?;
        }
        writeln!(f, "  strategy          {}", self.strategy.unwrap_or("unknown"))?;
        let allowed = self.failures_allowed.map_or_else(none, |allowed| allowed.to_string());
        writeln!(f, "  failures          {} of {allowed}", self.failures)?;
        if let Some(at) = &self.lock_release_at {
            writeln!(f, "  locked until      {at}")?;
        }
        writeln!(f, "  requested         {}", self.created_at)?;
        writeln!(f, "  activated         {}", self.activated_at.clone().unwrap_or_else(none))?;
        write!(f, "  last used         {}", self.last_used_at.clone().unwrap_or_else(none))?;
        if let Some(activation) = &self.activation {
            write!(f, "\n  {activation}")?;
        }
        self.pending_operations.iter().try_for_each(|operation| write!(f, "\n  {operation}"))
    }
}

impl fmt::Display for ActivationThen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "activation        {} {}", self.activation_id, self.state)?;
        write!(f, ", {}", until(&self.expires_at, self.deadline_passed))
    }
}

impl fmt::Display for OperationThen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pending operation {} {}", self.operation_id, self.level)?;
        write!(f, ", {}", self.methods.join(" "))?;
        write!(f, ", {} attempts", self.attempts)?;
        if self.challenge_outstanding {
            write!(f, ", challenge outstanding")?;
        }
        write!(f, ", {}", until(&self.expires_at, self.deadline_passed))
    }
}

fn until(expires_at: &str, passed: bool) -> String {
    if passed {
        format!("over since {expires_at}, its event was still to come")
    } else {
        format!("until {expires_at}")
    }
}
