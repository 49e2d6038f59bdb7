//! What the log's only writer asks of the rules, and gives them.
//!
//! The sequencer (in `storage`) is generic over [`Machine`]: it knows records,
//! state entries and deadlines, and nothing of registrations. [`crate::Keytrail`]
//! is the machine of this product.
//!
//! State is a map from keys to entries. `decide` judges and changes nothing;
//! `evolve` records and judges nothing. Both are total functions of their
//! arguments: no clock, no chance, no order of a hash map.

use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ids::{Id, Micros, Position};

/// A decided event, not yet numbered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// The stream it belongs to: a registration, an application, an API key, or
    /// [`Id::NIL`] for the system.
    pub stream: Id,
    /// Unique in the log; drawn by whoever made the command, because sealed
    /// parts are bound to it.
    pub event_id: Id,
    /// Registry number of the event type; never reused.
    pub event_type: u16,
    /// Version of the payload's layout.
    pub schema: u16,
    /// The subject whose key sealed `sealed`; [`Id::NIL`] if nothing is sealed.
    pub subject: Id,
    /// All that rules and proofs need.
    pub clear: Vec<u8>,
    /// All that names a person, encrypted under the subject's key; may be empty.
    pub sealed: Vec<u8>,
}

/// A record as the log holds it, decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Place in the log.
    pub position: Position,
    /// When the sequencer took it; never decreasing within a log.
    pub time: Micros,
    /// How many records of the same stream stand before it.
    pub stream_version: u64,
    /// Position of the stream's previous record, if there is one.
    pub stream_prev: Option<Position>,
    /// Ties together what one request of the outside world caused.
    pub correlation: Id,
    /// The command; all its records share it.
    pub causation: Id,
    /// The event.
    pub draft: Draft,
}

/// How far a stream has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StreamHead {
    /// Records in the stream: the version its next record gets.
    pub version: u64,
    /// Its latest record.
    pub last: Option<Position>,
}

/// State as `decide` and `evolve` see it.
pub trait Entries<M: Machine + ?Sized> {
    /// The entry under `key`, if there is one.
    fn get(&self, key: &M::Key) -> Option<Arc<M::Entry>>;
}

/// One change of state: the new entry, or none to remove it.
pub type Change<M> = (<M as Machine>::Key, Option<Arc<<M as Machine>::Entry>>);

/// The rules, as the sequencer drives them.
pub trait Machine: Send + Sync + 'static {
    /// Names a state entry.
    type Key: Clone + Ord + Hash + Debug + Send + Sync + 'static;
    /// A state entry.
    type Entry: Debug + PartialEq + Send + Sync + 'static;
    /// What someone wants to happen, with everything the rules may know.
    type Command: Debug + Send + Sync + 'static;
    /// Why it does not happen. Nothing has changed then.
    type Refusal: Debug + Send + 'static;

    /// Changes whenever stored entries can no longer be read: state is then made again.
    const STATE_VERSION: u32;

    /// The key as bytes; their order is the order of keys.
    fn key_bytes(key: &Self::Key) -> Vec<u8>;
    /// The inverse of [`Machine::key_bytes`]; none if these bytes are no key.
    fn key_of(bytes: &[u8]) -> Option<Self::Key>;
    /// The entry as bytes: equal entries, equal bytes.
    fn entry_bytes(entry: &Self::Entry) -> Vec<u8>;
    /// The inverse of [`Machine::entry_bytes`]; none if these bytes are no entry of that key.
    fn entry_of(key: &Self::Key, bytes: &[u8]) -> Option<Self::Entry>;

    /// Decides what `command`, taken at `at`, makes happen. No events: already so.
    ///
    /// # Errors
    ///
    /// The refusal of the rule that forbids it.
    fn decide(
        state: &dyn Entries<Self>,
        at: Micros,
        command: &Self::Command,
    ) -> Result<Vec<Draft>, Self::Refusal>;

    /// What one record changes. Never fails, never judges.
    fn evolve(state: &dyn Entries<Self>, record: &Record) -> Vec<Change<Self>>;

    /// How far `stream` has come.
    fn head(state: &dyn Entries<Self>, stream: Id) -> StreamHead;

    /// When time itself must act on this key; none for keys that are no deadlines.
    ///
    /// Deadline keys sort by their moment, lie between the two keys of
    /// [`Machine::deadline_range`], and are put and removed by `evolve` alone.
    fn deadline(key: &Self::Key) -> Option<Micros>;
    /// Whether acting on this deadline only makes final what `decide` treats as
    /// passed in any case. What is more than that (a release, a deactivation)
    /// waits while a step of the clock is not confirmed.
    #[must_use]
    fn is_expiry(key: &Self::Key) -> bool {
        let _ = key;
        true
    }
    /// The bytes between which all deadline keys lie: first included, last excluded.
    fn deadline_range() -> (Vec<u8>, Vec<u8>);
    /// What time wants when that moment has come. `event_id` is fresh and ends in zero.
    fn on_deadline(key: &Self::Key, event_id: Id) -> Self::Command;
    /// The command that records a step of the wall clock against the monotonic one.
    fn on_clock_step(from: Micros, to: Micros, event_id: Id) -> Self::Command;
}

/// The time, in production and in tests alike.
pub trait Clock: Send + Sync + 'static {
    /// The wall clock now. May step; the sequencer never lets log time decrease.
    fn wall(&self) -> Micros;
    /// Microseconds since some fixed moment; never steps.
    fn monotonic(&self) -> Micros;
}

/// Unpredictable bytes, except in tests, where a seed fixes them.
pub trait Entropy: Send + Sync + 'static {
    /// Fills `out` with bytes that no earlier call has returned.
    fn fill(&self, out: &mut [u8]);
}

/// An array of unpredictable bytes.
pub fn random<const N: usize>(entropy: &dyn Entropy) -> [u8; N] {
    let mut out = [0; N];
    entropy.fill(&mut out);
    out
}

/// A fresh UUIDv7.
pub fn fresh_id(clock: &dyn Clock, entropy: &dyn Entropy) -> Id {
    Id::v7(clock.wall(), random(entropy))
}
