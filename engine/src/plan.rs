//! What every rule needs: events in the making, and who may ask.

use crate::command::Refusal;
use crate::entries::{ApiKey, Application, Look};
use crate::events::{Actor, Event};
use crate::ids::{Id, Micros};
use crate::machine::Draft;
use crate::reasons::UserRole;

/// Why a command was refused, or the events it makes.
pub(crate) type Decided = Result<Vec<Draft>, Refusal>;

/// The events of one command, as they are decided.
pub(crate) struct Plan {
    event_id: Id,
    drafts: Vec<Draft>,
}

impl Plan {
    /// No events yet; the first one gets this id.
    pub(crate) fn new(event_id: Id) -> Self {
        Self { event_id, drafts: Vec::new() }
    }

    /// Adds an event without a sealed part.
    pub(crate) fn event(self, stream: Id, event: impl Into<Event>) -> Self {
        self.sealed(stream, event, Id::NIL, &[])
    }

    /// Adds an event; `sealed` was encrypted under the key of `subject`.
    pub(crate) fn sealed(
        mut self,
        stream: Id,
        event: impl Into<Event>,
        subject: Id,
        sealed: &[u8],
    ) -> Self {
        let event = event.into();
        let (event_type, schema) = event.kind();
        // No rule makes more than 256 events: open operations are bounded, and so
        // are the registrations that one order of erasure ends.
        let index = self.drafts.len() as u8;
        self.drafts.push(Draft {
            stream,
            event_id: self.event_id.nth(index),
            event_type,
            schema,
            subject: if sealed.is_empty() { Id::NIL } else { subject },
            clear: event.encode(),
            sealed: sealed.to_vec(),
        });
        self
    }

    /// The events.
    pub(crate) fn done(self) -> Decided {
        Ok(self.drafts)
    }
}

/// The API key of `by`, if it may act in `role`; and not a repeat.
pub(crate) fn caller(
    look: Look,
    by: &Actor,
    role: UserRole,
) -> Result<std::sync::Arc<ApiKey>, Refusal> {
    let key = look.api_key(by.api_key).ok_or(Refusal::Forbidden)?;
    if key.revoked || key.role != role {
        return Err(Refusal::Forbidden);
    }
    if let Some(request) = &by.request
        && let Some((digest, position)) = look.request(request.id)
    {
        return Err(if digest == request.digest {
            Refusal::Repeat(position)
        } else {
            Refusal::KeyReused
        });
    }
    Ok(key)
}

/// Lets an administrator pass, once for each idempotent request.
pub(crate) fn administrator(look: Look, by: &Actor) -> Result<(), Refusal> {
    caller(look, by, UserRole::Administrator).map(|_| ())
}

/// Lets the service provider of `application` pass, once for each idempotent
/// request. Someone else's application does not exist for it.
pub(crate) fn service_provider(
    look: Look,
    by: &Actor,
    application: Id,
) -> Result<std::sync::Arc<Application>, Refusal> {
    let key = caller(look, by, UserRole::ServiceProvider)?;
    look.application(application)
        .filter(|application| application.service_provider == key.service_provider)
        .ok_or(Refusal::Unknown)
}

/// Whether a moment has come: a deadline belongs to what is too late.
pub(crate) fn has_passed(deadline: Micros, at: Micros) -> bool {
    deadline <= at
}

/// Refuses text that is empty, longer than `max` characters, or has control characters.
pub(crate) fn label(field: &'static str, text: &str, max: usize) -> Result<(), Refusal> {
    let fits =
        !text.is_empty() && text.chars().count() <= max && !text.chars().any(char::is_control);
    let expected = "must have 1 to 64 characters, none of them a control character";
    if fits { Ok(()) } else { Err(Refusal::Invalid { field, expected }) }
}

/// Refuses what is no name of a service provider: lower-case letters, digits and hyphens.
pub(crate) fn slug(field: &'static str, text: &str) -> Result<(), Refusal> {
    let fits = (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    let expected = "must have 1 to 64 lower-case letters, digits or hyphens";
    if fits { Ok(()) } else { Err(Refusal::Invalid { field, expected }) }
}
