//! The rules of keytrail, as pure functions.
//!
//! Nothing here reads a clock, draws a random number, waits, logs or opens a
//! file. What a rule must know arrives in its command. That is what lets
//! `replay` run any past day again and get the same answer.
//!
//! Start reading at [`Keytrail`], which sends each [`command::Command`] to its
//! rule; the rules of a log-in are in [`operation`], those of keys in
//! [`registration`].

pub mod access;
pub mod administration;
pub mod attestation;
pub mod broadcast;
pub mod codec;
pub mod codes;
pub mod command;
pub mod config;
pub mod confirmation;
pub mod devices;
mod display;
pub mod entries;
pub mod erasure;
pub mod events;
pub mod evidence;
mod evolve;
pub mod ids;
pub mod inactivity;
pub mod initiative;
pub mod inverse;
pub mod key;
pub mod key_change;
pub mod layout;
pub mod leaving;
pub mod machine;
pub mod naming;
pub mod offline;
pub mod operation;
mod plan;
pub mod proofs;
pub mod push;
pub mod reasons;
pub mod recovery;
pub mod registration;
pub mod seal;
pub mod sealed;
pub mod signature;
pub mod strategy;
pub mod templates;
pub mod terms;
pub mod timed_lock;
pub mod transcript;
pub mod version;

use crate::command::{Command, Refusal, Want};
use crate::entries::{Deadline, Entry, Expiring, Key, Look};
use crate::events::CodeBudgetExhaustedV1;
use crate::ids::{Id, Micros};
use crate::machine::{Change, Draft, Entries, Machine, Record, StreamHead};

pub use crate::display::hex;
pub use crate::evolve::REMEMBER_S;

/// The state machine of this product.
#[derive(Debug, Clone, Copy)]
pub struct Keytrail;

impl Machine for Keytrail {
    type Key = Key;
    type Entry = Entry;
    type Command = Command;
    type Refusal = Refusal;

    const STATE_VERSION: u32 = 16;

    fn key_bytes(key: &Key) -> Vec<u8> {
        key.bytes()
    }

    fn key_of(bytes: &[u8]) -> Option<Key> {
        Key::from_bytes(bytes)
    }

    fn entry_bytes(entry: &Entry) -> Vec<u8> {
        codec::encode(entry)
    }

    fn entry_of(key: &Key, bytes: &[u8]) -> Option<Entry> {
        codec::decode::<Entry>(bytes).ok().filter(|entry| entry.fits(key))
    }

    fn decide(
        state: &dyn Entries<Self>,
        at: Micros,
        command: &Command,
    ) -> Result<Vec<Draft>, Refusal> {
        decide(Look(state), at, command)
    }

    fn evolve(state: &dyn Entries<Self>, record: &Record) -> Vec<Change<Self>> {
        evolve::evolve(state, record)
    }

    fn head(state: &dyn Entries<Self>, stream: Id) -> StreamHead {
        Look(state).head(stream)
    }

    fn deadline(key: &Key) -> Option<Micros> {
        match key {
            Key::Deadline(deadline) => Some(deadline.at),
            Key::Application(_)
            | Key::Code(_)
            | Key::ApiKey(_)
            | Key::Memory(_)
            | Key::Broadcast(_)
            | Key::Operation(_)
            | Key::Subject(_)
            | Key::Request(_)
            | Key::Registration(_)
            | Key::System
            | Key::Owned(..)
            | Key::Activation(_)
            | Key::Recovery(_)
            | Key::Erasure(_)
            | Key::Device(_)
            | Key::DeviceUser(..)
            | Key::OnDevice(..)
            | Key::Blocked(..)
            | Key::LastUsed(..) => None,
        }
    }

    fn is_expiry(key: &Key) -> bool {
        // A release is more than what `decide` treats as passed: it waits for the clock.
        !matches!(key, Key::Deadline(Deadline { of: Expiring::Lock(_), .. }))
    }

    fn deadline_range() -> (Vec<u8>, Vec<u8>) {
        let (from, to) = Key::DEADLINES;
        (from.to_vec(), to.to_vec())
    }

    fn on_deadline(key: &Key, event_id: Id) -> Command {
        let want = match key {
            Key::Deadline(deadline) => match deadline.of {
                Expiring::Activation(id) => Want::ExpireActivation(id),
                Expiring::Operation(id) => Want::ExpireOperation(id),
                Expiring::Lock(id) => Want::ReleaseLock(id),
            },
            // No other key has a deadline; expiring nothing is refused as unknown.
            Key::Application(_)
            | Key::Code(_)
            | Key::ApiKey(_)
            | Key::Memory(_)
            | Key::Broadcast(_)
            | Key::Operation(_)
            | Key::Subject(_)
            | Key::Request(_)
            | Key::Registration(_)
            | Key::System
            | Key::Owned(..)
            | Key::Activation(_)
            | Key::Recovery(_)
            | Key::Erasure(_)
            | Key::Device(_)
            | Key::DeviceUser(..)
            | Key::OnDevice(..)
            | Key::Blocked(..)
            | Key::LastUsed(..) => Want::ExpireOperation(Id::NIL),
        };
        Command { event_id, want }
    }

    fn on_clock_step(from: Micros, to: Micros, event_id: Id) -> Command {
        Command { event_id, want: Want::NoteClockStep { from, to } }
    }
}

/// Sends each command to its rule.
fn decide(look: Look, at: Micros, command: &Command) -> Result<Vec<Draft>, Refusal> {
    let id = command.event_id;
    match &command.want {
        Want::StartLog(want) => administration::start_log(look, id, want),
        Want::NoteClockStep { from, to } => administration::note_clock_step(id, *from, *to),
        Want::CountRefusals(counts) => administration::count_refusals(id, counts),
        Want::CountKeyUse(counts) => administration::count_key_use(id, counts),
        Want::ConfirmClock(want) => evidence::confirm_clock(look, id, want),
        Want::RecordExport(want) => access::export(look, id, want),
        Want::Reveal(want) => access::reveal(look, id, want),
        Want::NoteStateDigest(want) => evidence::note_state_digest(look, id, want),
        Want::RotateKey(want) => evidence::rotate_key(look, id, want),
        Want::BeginEpoch(want) => evidence::begin_epoch(look, id, want),
        Want::CreateApiKey(want) => administration::create_api_key(look, id, want),
        Want::RevokeApiKey { by, key } => administration::revoke_api_key(look, id, by, *key),
        Want::CreateApplication(want) => administration::create_application(look, id, want),
        Want::ChangeConfiguration(want) => administration::change_configuration(look, id, want),
        Want::ExhaustCodeBudget { application, scope, until, failures } => {
            let exhausted =
                CodeBudgetExhaustedV1 { scope: *scope, until: *until, failures: *failures };
            administration::exhaust_code_budget(look, id, *application, exhausted)
        }
        Want::RequestActivation(want) => registration::request_activation(look, at, id, want),
        Want::StartActivation(want) => registration::start_activation(look, at, id, want),
        Want::StartRecovery(want) => recovery::start(look, at, id, want),
        Want::FinishActivation(want) => registration::finish_activation(look, at, id, want),
        Want::CancelActivation { by, activation } => {
            registration::cancel_activation(look, at, id, by, *activation)
        }
        Want::LockRegistration { by, registration, reason } => {
            registration::lock(look, id, by, *registration, *reason)
        }
        Want::UnlockRegistration { by, registration } => {
            registration::unlock(look, id, by, *registration)
        }
        Want::DeactivateRegistration { by, registration, reason } => {
            registration::deactivate(look, id, by, *registration, *reason)
        }
        Want::CreateOperation(want) => operation::create(look, at, id, want),
        Want::Broadcast(asks) => broadcast::create(look, at, id, asks),
        Want::BeginOperation(want) => initiative::begin(look, at, id, want),
        Want::NameDevice(want) => naming::name(look, at, id, want),
        Want::StartAuthentication(want) => operation::start(look, at, id, want),
        Want::FinishAuthentication(want) => operation::finish(look, at, id, want),
        Want::CancelOperation { by, operation } => operation::cancel(look, at, id, by, *operation),
        Want::ExpireActivation(activation) => {
            registration::expire_activation(look, at, id, *activation)
        }
        Want::ExpireOperation(operation) => operation::expire(look, at, id, *operation),
        Want::TakeRevocationList(want) => attestation::lists::take(look, id, want),
        Want::ReleaseLock(registration) => timed_lock::release(look, at, id, *registration),
        Want::BlockDevice(want) => devices::block(look, id, want),
        Want::UnblockDevice { by, application, device } => {
            devices::unblock(look, id, by, *application, *device)
        }
        Want::LockBlocked(registrations) => devices::lock_blocked(look, id, registrations),
        Want::DeactivateInactive(want) => inactivity::deactivate(look, at, id, want),
        Want::ConfirmInactivity { by, application, registrations } => {
            inactivity::confirm(look, at, id, by, *application, *registrations)
        }
        Want::OrderErasure(want) => erasure::order(look, id, want),
        Want::RecordErased { subject, again } => erasure::record(look, id, *subject, *again),
        Want::SetPushAddress(want) => push::set_address(look, at, id, want),
        Want::AskOffline(want) => offline::ask(look, at, id, want),
        Want::FinishOffline(want) => offline::finish(look, at, id, want),
    }
}
