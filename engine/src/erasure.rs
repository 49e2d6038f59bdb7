//! The erasure of a person: what is ordered, and what is recorded of it.
//!
//! ```text
//! (nothing) --ordered--> ordered --key destroyed--> erased --key came back, destroyed--+
//!                                                     ^                                |
//!                                                     +--------------------------------+
//! ```
//!
//! What names a person is sealed under the subject's key. The order ends the
//! registrations; the server then destroys the key and says so. Between the two
//! a crash may come, and an old copy of the key store may bring the key back: so
//! an order stands for ever, and every start carries it out again.
//!
//! No event of this names anyone: the stream is the subject's random id.

use crate::command::{OrderErasure, Refusal};
use crate::entries::{ApiKey, Look, Registration};
use crate::events::{ErasureOrderedV1, SubjectErasedV1};
use crate::ids::Id;
use crate::plan::{Decided, Plan, caller};
use crate::reasons::{DeactivationReason, RegistrationState, UserRole};
use crate::registration::deactivated;

/// Most registrations that an order ends. A registration that ends makes up to
/// 18 events (its own, an activation and 16 operations), and the events of one
/// command have numbers of 8 bits. Whoever has more loses the others first.
pub const REGISTRATIONS_MAX: usize = 14;

const _: () = assert!(REGISTRATIONS_MAX * (2 + crate::operation::OPEN_OPERATIONS_MAX) < 256);

pub(crate) fn order(look: Look, event_id: Id, want: &OrderErasure) -> Decided {
    let provider = caller(look, &want.by, UserRole::ServiceProvider)?;
    if want.subject.is_nil() {
        return Err(Refusal::Unknown);
    }
    if look.erasure(want.subject).is_some() {
        return Ok(Vec::new());
    }
    if want.registrations.len() > REGISTRATIONS_MAX {
        let expected = "must have at most 14 registrations";
        return Err(Refusal::Invalid { field: "registrations", expected });
    }
    // All of them and each once: none is left that could still be used.
    let all = want.registrations.len() as u64 == look.registrations_of(want.subject);
    let sorted = want.registrations.is_sorted_by(|one, next| one < next);
    if !all || !sorted {
        return Err(Refusal::OtherRegistrations);
    }
    let ordered = ErasureOrderedV1 { by: want.by.clone(), reason: want.reason };
    let mut plan = Plan::new(event_id).event(want.subject, ordered);
    for &id in &want.registrations {
        let registration = owned(look, &provider, want.subject, id)?;
        plan = deactivated(plan, id, &registration, Some(&want.by), DeactivationReason::Other);
    }
    plan.done()
}

/// A registration of `subject` that is not over, at an application of `provider`.
fn owned(
    look: Look,
    provider: &ApiKey,
    subject: Id,
    id: Id,
) -> Result<std::sync::Arc<Registration>, Refusal> {
    let registration = look.registration(id).ok_or(Refusal::OtherRegistrations)?;
    let application = look.application(registration.application).ok_or(Refusal::Unknown)?;
    // A subject belongs to one service provider; another's does not exist for it.
    if application.service_provider != provider.service_provider {
        return Err(Refusal::Unknown);
    }
    if registration.subject != subject || registration.state == RegistrationState::Deactivated {
        return Err(Refusal::OtherRegistrations);
    }
    Ok(registration)
}

pub(crate) fn record(look: Look, event_id: Id, subject: Id, again: bool) -> Decided {
    let erasure = look.erasure(subject).ok_or(Refusal::Unknown)?;
    if again != erasure.erased_at.is_some() {
        // Told twice of one destruction.
        return Ok(Vec::new());
    }
    Plan::new(event_id).event(subject, SubjectErasedV1 { again }).done()
}
