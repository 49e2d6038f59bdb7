//! How commands and what they are about end, in words that can be compared.

use engine::command::Refusal;
use engine::entries::Look;
use engine::events::{Event, EventError};
use engine::ids::Id;
use engine::machine::Draft;
use engine::reasons::{ActivationState, LockReason};

use super::Kind;

/// What the alternative makes of a command.
#[derive(Debug)]
pub(super) enum Made {
    /// These events; none where there is nothing to do.
    Events(Vec<Event>),
    /// Nothing, for this reason.
    Nothing(Why),
}

impl Made {
    /// The events.
    pub(super) fn events(&self) -> &[Event] {
        match self {
            Self::Events(events) => events,
            Self::Nothing(_) => &[],
        }
    }
}

/// Why something goes another way in the alternative.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Why {
    /// The rules end it so.
    Ruled(String),
    /// People would have acted on another history; what they would have done is
    /// not in the log.
    Elsewhere(String),
}

impl Why {
    /// Signatures by keys that the registration does not have here.
    pub(super) fn of_other_keys() -> Self {
        Self::Elsewhere("it was signed for keys that the registration would not have".to_owned())
    }

    /// What a refusal by the alternative's rules means.
    pub(super) fn of(refusal: &Refusal) -> Self {
        let ruled = |text: &dyn ToString| Self::Ruled(text.to_string());
        let elsewhere = |text: String| Self::Elsewhere(text);
        match refusal {
            // What the configuration itself refuses.
            Refusal::ClientTooOld
            | Refusal::NoPushAddress
            | Refusal::OfflineNotPossible(_)
            | Refusal::PushNotConfirmed
            | Refusal::CodeTooShort { .. }
            | Refusal::NoMethodFits
            | Refusal::MethodNotOffered
            | Refusal::KeyChange(_)
            | Refusal::Invalid { .. } => Self::Ruled(format!("refused: {refusal}")),
            // How it ended before, by the rules.
            Refusal::OperationState(state) => ruled(state),
            Refusal::ActivationState(state) => ruled(state),
            Refusal::RegistrationState(state) => {
                elsewhere(format!("the registration would be {state}"))
            }
            Refusal::Unknown => elsewhere("what it is about would not exist".to_owned()),
            Refusal::ChallengeNotLive => {
                elsewhere("it answers a challenge that would not have been issued".to_owned())
            }
            Refusal::Stale => Self::of_other_keys(),
            Refusal::TooManyAttempts { .. } => {
                elsewhere("the limit on uncounted failures would have been reached".to_owned())
            }
            Refusal::TooManyOperations => {
                elsewhere("too many operations would have been open".to_owned())
            }
            Refusal::DeviceBlocked => elsewhere("the device would be blocked".to_owned()),
            Refusal::DeviceMayNotBegin
            | Refusal::Forbidden
            | Refusal::Repeat(_)
            | Refusal::KeyReused
            | Refusal::AlreadyStarted
            | Refusal::Taken
            | Refusal::RevokesItself
            | Refusal::Configuration(_)
            | Refusal::VersionConflict { .. }
            | Refusal::CodeRedeemed
            | Refusal::CodesRefused { .. }
            | Refusal::SubjectErased
            | Refusal::OtherRegistrations
            | Refusal::JudgedBefore => elsewhere(format!("it would be refused: {refusal}")),
        }
    }
}

/// The events of drafts.
pub(super) fn events_of<'a>(
    drafts: impl Iterator<Item = &'a Draft>,
) -> Result<Vec<Event>, EventError> {
    drafts.map(|draft| Event::decode(draft.event_type, draft.schema, &draft.clear)).collect()
}

/// What a command did: what its first event says, and whether it locked.
pub(super) fn outcome(events: &[Event]) -> String {
    let Some(event) = events.first() else { return "nothing".to_owned() };
    match event {
        Event::AuthenticationJudged(it) => {
            let failure = it.failure.map_or_else(String::new, |failure| format!(" {failure}"));
            format!("{}{failure}{}", it.operation_state, locked(events))
        }
        Event::OfflineJudged(it) => {
            let failure = it.failure.map_or_else(String::new, |failure| format!(" {failure}"));
            format!("{}{failure}{}", it.operation_state, locked(events))
        }
        Event::ActivationJudged(it) => match (it.failure, it.hw_key_stored) {
            (Some(failure), _) => format!("FAILED {failure}"),
            (None, true) => "COMPLETED with a hardware key".to_owned(),
            (None, false) => "COMPLETED without a hardware key".to_owned(),
        },
        Event::ActivationRequested(_) => "REQUESTED".to_owned(),
        Event::ActivationStarted(_) | Event::RecoveryStarted(_) => "STARTED".to_owned(),
        Event::ActivationExpired(_) | Event::OperationExpired(_) => "EXPIRED".to_owned(),
        Event::ActivationCancelled(_)
        | Event::OperationCancelled(_)
        | Event::OperationAnsweredElsewhere(_) => "CANCELLED".to_owned(),
        Event::OperationCreated(_) | Event::OperationBegun(_) => "PENDING".to_owned(),
        Event::ChallengeIssued(_) => "challenge issued".to_owned(),
        Event::OfflineAsked(_) => "offline question issued".to_owned(),
        Event::RegistrationLocked(_) => "LOCKED".to_owned(),
        Event::RegistrationUnlocked(_) => "unlocked".to_owned(),
        Event::LockReleased(_) => "released".to_owned(),
        Event::RegistrationDeactivated(_) => "DEACTIVATED".to_owned(),
        Event::LogStarted(_)
        | Event::ClockStepped(_)
        | Event::RefusalsCounted(_)
        | Event::ApiKeyCreated(_)
        | Event::ApiKeyRevoked(_)
        | Event::ApplicationCreated(_)
        | Event::ConfigurationChanged(_)
        | Event::CodeBudgetExhausted(_)
        | Event::ErasureOrdered(_)
        | Event::SubjectErased(_)
        | Event::KeyUseCounted(_)
        | Event::DeviceNamed(_)
        | Event::RecoveryCodesIssued(_)
        | Event::RecoveryCodeRedeemed(_)
        | Event::RecoveryCodeRefused(_)
        | Event::PushAddressSet(_)
        | Event::RevocationListTaken(_)
        | Event::KeyRotated(_)
        | Event::ClockConfirmed(_)
        | Event::ExportMade(_)
        | Event::DataRevealed(_)
        | Event::StateDigested(_)
        | Event::EpochBegun(_)
        | Event::DeviceBlocked(_)
        | Event::DeviceUnblocked(_)
        | Event::InactiveDeactivated(_)
        | Event::InactivityConfirmed(_)
        | Event::HardwareKeyAdded(_)
        | Event::HardwareKeyRotated(_)
        | Event::HardwareKeyReplaced(_)
        | Event::MethodAdded(_)
        | Event::MethodReplaced(_)
        | Event::MethodRemoved(_) => event.name().to_owned(),
    }
}

/// Words for a lock after too many failures, if there was one.
fn locked(events: &[Event]) -> &'static str {
    let locked = events.iter().any(|event| {
        matches!(event, Event::RegistrationLocked(lock) if lock.reason == LockReason::TooManyFailures)
    });
    if locked { ", registration locked" } else { "" }
}

/// Activations and operations that `events` end beside what they are about.
pub(super) fn touched(events: &[Event]) -> Vec<(Kind, Id)> {
    let mut found = Vec::new();
    for event in events.iter().skip(1) {
        if let Event::ActivationCancelled(it) = event {
            found.push((Kind::Activation, it.activation));
        }
        if let Event::OperationAnsweredElsewhere(it) = event {
            found.push((Kind::Operation, it.operation));
        }
        if let Event::OperationCancelled(it) = event {
            found.push((Kind::Operation, it.operation));
        }
    }
    found
}

/// Where an activation or operation stands.
pub(super) struct Stands {
    /// Whether nothing more can happen to it.
    pub(super) over: bool,
    /// Its state.
    pub(super) state: &'static str,
}

impl Stands {
    pub(super) fn of(look: Look, (kind, id): (Kind, Id)) -> Self {
        let stands = match kind {
            Kind::Activation => look.activation(id).map(|it| match it.state {
                ActivationState::Requested | ActivationState::Started => {
                    Self { over: false, state: it.state.as_str() }
                }
                ActivationState::Completed
                | ActivationState::Failed
                | ActivationState::Expired
                | ActivationState::Cancelled => Self { over: true, state: it.state.as_str() },
            }),
            Kind::Operation => look
                .operation(id)
                .map(|it| Self { over: it.state.is_final(), state: it.state.as_str() }),
        };
        // It was never made there.
        stands.unwrap_or(Self { over: true, state: "absent" })
    }
}
