//! State: what `decide` needs and no more, as a map from [`Key`] to [`Entry`].
//!
//! It holds clear parts, random ids and positions of sealed records, never
//! what names a person. It is derived: deleting it loses nothing.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::Keytrail;
use crate::attestation::Attested;
use crate::attestation::lists::ListName;
use crate::config::Config;
use crate::events::{Bytes32, MatchingV1, MethodKeyV1};
use crate::ids::{Id, Micros, Position};
use crate::key::KeyBytes;
use crate::machine::{Entries, StreamHead};
use crate::offline::NONCE_LEN;
use crate::reasons::{
    ActivationFailure, ActivationState, AuthenticationFailure, CancelReason, CodeKind,
    DeactivationReason, ErasureReason, LockReason, OperationKind, OperationState, ReasonGiven,
    RegistrationState, UserRole,
};
use crate::terms::{HwKeyClientStatus, HwKeyServerResult, Level, Method};
use crate::transcript::Said;

/// Names a state entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Key {
    /// An application.
    Application(Id),
    /// A question to several devices of one user.
    Broadcast(Id),
    /// An activation code or QR secret, by its keyed hash.
    Code(Bytes32),
    /// A moment at which time itself must act.
    Deadline(Deadline),
    /// An API key.
    ApiKey(Id),
    /// Something over, in the order in which it is to be forgotten.
    Memory(u64),
    /// An operation.
    Operation(Id),
    /// A person with registrations that are not over.
    Subject(Id),
    /// An idempotent request.
    Request([u8; 16]),
    /// A registration.
    Registration(Id),
    /// The log itself.
    System,
    /// A registration that is not over, under the person it belongs to.
    Owned(Id, Id),
    /// An activation.
    Activation(Id),
    /// The erasure of a person.
    Erasure(Id),
    /// A set of recovery codes, by the keyed hash of its selector.
    Recovery(Bytes32),
    /// A person with registrations that are not over, under the device they are on.
    DeviceUser(Id, Id),
    /// A registration that is not over, under the device that it is on.
    OnDevice(Id, Id),
    /// A blocked device, under its application.
    Blocked(Id, Id),
    /// A registration with keys, under its application and the day of its last
    /// use; see [`crate::inactivity::day_of`].
    LastUsed(Id, u32, Id),
    /// A device; see [`crate::devices`].
    Device(Id),
}

/// A moment at which time itself must act.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Deadline {
    /// The moment: from then on the deadline has passed.
    pub at: Micros,
    /// What expires.
    pub of: Expiring,
}

/// What expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Expiring {
    /// An activation.
    Activation(Id),
    /// An operation.
    Operation(Id),
    /// The lock of a registration.
    Lock(Id),
}

impl Key {
    /// First and last possible byte string of deadline keys, last excluded.
    pub(crate) const DEADLINES: ([u8; 1], [u8; 1]) = (*b"D", *b"E");

    /// The key as bytes, ordered as keys of one kind are.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        fn tagged(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
            let mut out = vec![tag];
            parts.iter().for_each(|part| out.extend_from_slice(part));
            out
        }
        match self {
            Self::Application(id) => tagged(b'A', &[&id.0]),
            Self::Code(hash) => tagged(b'C', &[hash]),
            Self::Deadline(Deadline { at, of }) => {
                let (kind, id) = match of {
                    Expiring::Activation(id) => (1, id),
                    Expiring::Operation(id) => (2, id),
                    Expiring::Lock(id) => (3, id),
                };
                tagged(b'D', &[&at.0.to_be_bytes(), &[kind], &id.0])
            }
            Self::ApiKey(id) => tagged(b'K', &[&id.0]),
            Self::Memory(number) => tagged(b'M', &[&number.to_be_bytes()]),
            Self::Operation(id) => tagged(b'O', &[&id.0]),
            Self::Broadcast(id) => tagged(b'B', &[&id.0]),
            Self::Subject(id) => tagged(b'P', &[&id.0]),
            Self::Request(id) => tagged(b'Q', &[id]),
            Self::Registration(id) => tagged(b'R', &[&id.0]),
            Self::System => vec![b'S'],
            Self::Owned(subject, registration) => tagged(b'U', &[&subject.0, &registration.0]),
            Self::Activation(id) => tagged(b'V', &[&id.0]),
            Self::Erasure(id) => tagged(b'X', &[&id.0]),
            Self::Recovery(selector) => tagged(b'Y', &[selector]),
            Self::Device(id) => tagged(b'd', &[&id.0]),
            Self::DeviceUser(device, subject) => tagged(b'Z', &[&device.0, &subject.0]),
            Self::OnDevice(device, registration) => tagged(b'a', &[&device.0, &registration.0]),
            Self::Blocked(application, device) => tagged(b'b', &[&application.0, &device.0]),
            Self::LastUsed(application, day, registration) => {
                tagged(b'c', &[&application.0, &day.to_be_bytes(), &registration.0])
            }
        }
    }

    /// The inverse of [`Key::bytes`].
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (tag, rest) = bytes.split_first()?;
        let id = || rest.try_into().ok().map(Id);
        let pair = || {
            let (first, second) = rest.split_first_chunk()?;
            Some((Id(*first), Id(second.try_into().ok()?)))
        };
        match tag {
            b'A' => id().map(Self::Application),
            b'C' => rest.try_into().ok().map(Self::Code),
            b'D' => {
                let (at, rest) = rest.split_first_chunk::<8>()?;
                let (kind, rest) = rest.split_first()?;
                let id = Id(rest.try_into().ok()?);
                let of = match kind {
                    1 => Expiring::Activation(id),
                    2 => Expiring::Operation(id),
                    3 => Expiring::Lock(id),
                    _ => return None,
                };
                Some(Self::Deadline(Deadline { at: Micros(u64::from_be_bytes(*at)), of }))
            }
            b'K' => id().map(Self::ApiKey),
            b'M' => rest.try_into().ok().map(u64::from_be_bytes).map(Self::Memory),
            b'O' => id().map(Self::Operation),
            b'B' => id().map(Self::Broadcast),
            b'P' => id().map(Self::Subject),
            b'Q' => rest.try_into().ok().map(Self::Request),
            b'R' => id().map(Self::Registration),
            b'S' => rest.is_empty().then_some(Self::System),
            b'U' => pair().map(|(subject, registration)| Self::Owned(subject, registration)),
            b'd' => id().map(Self::Device),
            b'Z' => pair().map(|(device, subject)| Self::DeviceUser(device, subject)),
            b'a' => pair().map(|(device, registration)| Self::OnDevice(device, registration)),
            b'b' => pair().map(|(application, device)| Self::Blocked(application, device)),
            b'c' => {
                let (application, rest) = rest.split_first_chunk()?;
                let (day, rest) = rest.split_first_chunk()?;
                let registration = Id(rest.try_into().ok()?);
                Some(Self::LastUsed(Id(*application), u32::from_be_bytes(*day), registration))
            }
            b'V' => id().map(Self::Activation),
            b'X' => id().map(Self::Erasure),
            b'Y' => rest.try_into().ok().map(Self::Recovery),
            _ => None,
        }
    }

    /// The bytes between which the keys of one kind lie, for listing: first
    /// included, last excluded.
    #[must_use]
    pub fn range(kind: KeyKind) -> ([u8; 1], [u8; 1]) {
        let tag = match kind {
            KeyKind::Application => b'A',
            KeyKind::ApiKey => b'K',
            KeyKind::Registration => b'R',
            KeyKind::Operation => b'O',
            KeyKind::Erasure => b'X',
            KeyKind::Device => b'd',
            KeyKind::Blocked => b'b',
        };
        ([tag], [tag + 1])
    }

    /// The bytes between which the registrations of a subject lie that are not
    /// over, for listing: first included, last excluded.
    #[must_use]
    pub fn owned_by(subject: Id) -> (Vec<u8>, Vec<u8>) {
        let first = Self::Owned(subject, Id::NIL).bytes();
        let last = Self::Owned(subject, Id([0xff; 16])).bytes();
        // An id of ones alone is none that is ever drawn (RFC 9562, section 5.10).
        (first, last)
    }

    /// The bytes between which the registrations lie that a device carries, for
    /// listing: first included, last excluded.
    #[must_use]
    pub fn on_device(device: Id) -> (Vec<u8>, Vec<u8>) {
        (Self::OnDevice(device, Id::NIL).bytes(), Self::OnDevice(device, Id([0xff; 16])).bytes())
    }

    /// The bytes between which the blocked devices of an application lie, for
    /// listing: first included, last excluded.
    #[must_use]
    pub fn blocked_at(application: Id) -> (Vec<u8>, Vec<u8>) {
        let last = Self::Blocked(application, Id([0xff; 16])).bytes();
        (Self::Blocked(application, Id::NIL).bytes(), last)
    }

    /// The bytes between which the registrations of an application lie that were
    /// last used up to and with a day, for listing: first included, last excluded.
    #[must_use]
    pub fn last_used_by(application: Id, day: u32) -> (Vec<u8>, Vec<u8>) {
        let first = Self::LastUsed(application, 0, Id::NIL).bytes();
        (first, Self::LastUsed(application, day, Id([0xff; 16])).bytes())
    }
}

/// Kinds of keys that can be listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// Applications.
    Application,
    /// API keys.
    ApiKey,
    /// Registrations.
    Registration,
    /// Operations that are not yet forgotten.
    Operation,
    /// Erasures that were ever ordered.
    Erasure,
    /// Devices that ever were.
    Device,
    /// Blocked devices.
    Blocked,
}

/// The log itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct System {
    /// How far the system stream has come.
    pub head: StreamHead,
    /// The origin line; empty before the first record.
    pub origin: String,
    /// How its key and its origin line changed, in order.
    pub successions: Vec<Succeeded>,
    /// The position whose state was digested last.
    pub digested: Position,
    /// The [`Key::Memory`] to be forgotten next.
    pub memory_first: u64,
    /// The [`Key::Memory`] to be given out next.
    pub memory_next: u64,
    /// The revocation list in force.
    pub list: Option<ListName>,
}

impl System {
    /// The key that signs checkpoints; none as long as the log has not named one.
    #[must_use]
    pub fn signing_key(&self) -> Option<KeyBytes> {
        self.successions.iter().rev().find_map(|succeeded| match succeeded.by {
            Succession::Key { new, .. } => Some(new),
            Succession::Origin { .. } => None,
        })
    }

    /// Whether the log has, or ever had, this origin line.
    #[must_use]
    pub fn has_had_origin(&self, name: &str) -> bool {
        self.origin == name
            || self.successions.iter().any(|succeeded| match &succeeded.by {
                Succession::Origin { old, .. } => old == name,
                Succession::Key { .. } => false,
            })
    }
}

/// A change of how the log is signed: of all checkpoints over more records than `at`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Succeeded {
    /// Position of the record that made the change.
    pub at: Position,
    /// What changed.
    pub by: Succession,
}

/// What of a log's signatures can change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Succession {
    /// The key.
    Key {
        /// Before.
        old: KeyBytes,
        /// After.
        new: KeyBytes,
    },
    /// The origin line.
    Origin {
        /// Before.
        old: String,
        /// After.
        new: String,
    },
}

/// An application.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Application {
    /// How far its stream has come.
    pub head: StreamHead,
    /// A label for people.
    pub name: String,
    /// The service provider it belongs to.
    pub service_provider: String,
    /// Its configuration.
    pub config: Config,
    /// Counts changes of the configuration from 1.
    pub config_version: u64,
    /// Codes that wait to be redeemed.
    pub live_codes: u64,
    /// Registrations with keys that are not over.
    pub registrations: u64,
    /// What may end for want of use.
    pub inactivity: Inactivity,
    /// No code is taken before this moment.
    pub codes_refused_until: Micros,
    /// When it was created.
    pub created_at: Micros,
}

/// How many registrations of an application may end for want of use; see
/// [`crate::inactivity`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Inactivity {
    /// When the window of a day began.
    pub since: Micros,
    /// How many may end in it without a confirmation; 0 before the first one.
    pub limit: u64,
    /// How many of those have.
    pub ended: u64,
    /// Whether the last sweep that ended any, or could not, left some waiting.
    pub held: bool,
    /// How many more may by a confirmation.
    pub confirmed: u64,
    /// Until when.
    pub confirmed_until: Micros,
}

/// An API key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiKey {
    /// How far its stream has come.
    pub head: StreamHead,
    /// What its holder may do.
    pub role: UserRole,
    /// The service provider it acts for; empty for other roles.
    pub service_provider: String,
    /// A label for people.
    pub name: String,
    /// Keyed hash of the secret.
    pub secret_hash: Bytes32,
    /// Whether it was revoked.
    pub revoked: bool,
    /// When it was made.
    pub created_at: Micros,
}

/// A registration. Its moves are drawn in [`crate::registration`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// How far its stream has come.
    pub head: StreamHead,
    /// The application it belongs to.
    pub application: Id,
    /// The person it belongs to.
    pub subject: Id,
    /// Position of the record that holds the sealed user reference.
    pub requested_in: Position,
    /// Where it stands.
    pub state: RegistrationState,
    /// Why it is locked, if it is.
    pub lock_reason: Option<LockReason>,
    /// When time releases the lock, if it does.
    pub release_at: Option<Micros>,
    /// Locks that time has released since failures were last forgiven.
    pub releases: u32,
    /// Why it was deactivated, if it was; none if it never had keys.
    pub deactivation_reason: Option<DeactivationReason>,
    /// The activation under way, if there is one.
    pub activation: Option<Id>,
    /// Software keys by method.
    pub software: Vec<MethodKeyV1>,
    /// The hardware key.
    pub hardware: Option<KeyBytes>,
    /// Whether the device cannot have a hardware key, as recorded at activation.
    pub hw_key_impossible: bool,
    /// Whether the last re-activation was not proven by an old key.
    pub unproven_device: bool,
    /// How its hardware key stands with attestation; none if nobody asked.
    pub attestation: Option<Attested>,
    /// The device that it is on, if its app has named one.
    pub device: Option<Id>,
    /// The record that holds the sealed device hash.
    pub device_named_in: Option<Position>,
    /// Hash of the device token.
    pub device_token_hash: Bytes32,
    /// The client's version at activation.
    pub client_version: String,
    /// Position of the record that set the present keys.
    pub keys_at: Position,
    /// Counted failures.
    pub failures: u32,
    /// Start of the present window of failures that do not count.
    pub noise_since: Micros,
    /// Such failures in that window.
    pub noise: u32,
    /// Selector of its recovery codes, if it has some.
    pub recovery: Option<Bytes32>,
    /// The registration whose place it takes, if a recovery code began it.
    pub recovers: Option<Id>,
    /// Position of the record that holds its sealed name, if it has one.
    pub named_in: Option<Position>,
    /// Start of the present window of names that the device gave itself.
    pub names_since: Micros,
    /// Such names in that window.
    pub names: u32,
    /// Operations that can be answered, oldest first.
    pub open_operations: Vec<Id>,
    /// When it was requested.
    pub created_at: Micros,
    /// When it was last activated.
    pub activated_at: Option<Micros>,
    /// When it last authenticated successfully.
    pub last_used_at: Option<Micros>,
    /// Where its pushes go.
    pub push: Pushed,
    /// Whether its device was given secrets for answers without a network.
    pub offline: bool,
}

/// Where the pushes of a registration go.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pushed {
    /// Position of the record that holds the sealed address; none without one.
    pub address_in: Option<Position>,
    /// When the address was last changed.
    pub changed_at: Micros,
}

impl Registration {
    /// The software key of `method`.
    #[must_use]
    pub fn software_key(&self, method: Method) -> Option<&KeyBytes> {
        self.software.iter().find(|slot| slot.method == method).map(|slot| &slot.key)
    }

    /// Whether it has a key for a method of two factors.
    #[must_use]
    pub fn has_two_factors(&self) -> bool {
        self.software.iter().any(|slot| slot.method.level() == Level::TwoFactor)
    }
}

/// An activation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Activation {
    /// The registration.
    pub registration: Id,
    /// The application.
    pub application: Id,
    /// Whether the registration had keys before.
    pub again: bool,
    /// Where it stands.
    pub state: ActivationState,
    /// Keyed hash of the activation code.
    pub code_hash: Bytes32,
    /// Keyed hash of the QR secret.
    pub qr_hash: Bytes32,
    /// Its present deadline: to redeem, then to finish.
    pub expires_at: Micros,
    /// When it was requested.
    pub created_at: Micros,
    /// What redeeming gave.
    pub started: Option<Started>,
    /// How it was judged.
    pub judged: Option<JudgedActivation>,
    /// What cancelled it.
    pub cancel_reason: Option<CancelReason>,
}

/// What redeeming a code gave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// What was redeemed.
    pub with: CodeKind,
    /// For whom redeeming can be repeated.
    pub nonce_hash: Bytes32,
    /// The challenge.
    pub challenge: Bytes32,
}

/// How an activation was judged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JudgedActivation {
    /// Digest of the request.
    pub body_digest: Bytes32,
    /// Why it failed, if it did.
    pub failure: Option<ActivationFailure>,
    /// What the device said of its hardware key.
    pub hw_key_client_status: HwKeyClientStatus,
    /// What the server found.
    pub hw_key_server_result: HwKeyServerResult,
    /// Whether the hardware key was stored.
    pub hw_key_stored: bool,
    /// A re-activation without proof by an old key.
    pub unproven_device: bool,
    /// How it stands with attestation evidence; none if nobody asked.
    pub attestation: Option<Attested>,
    /// The record.
    pub position: Position,
    /// When.
    pub at: Micros,
}

/// An operation. Its moves are drawn in [`crate::operation`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// The registration that answers it.
    pub registration: Id,
    /// The application.
    pub application: Id,
    /// The method whose key it changes, if it changes one.
    pub target: Option<Method>,
    /// The broadcast that it belongs to, if it does.
    pub broadcast: Option<Id>,
    /// Hash of the nonce of the device that began it, if one did.
    pub begun: Option<Bytes32>,
    /// What it asks for.
    pub kind: OperationKind,
    /// Factors required.
    pub level: Level,
    /// Methods that may answer.
    pub methods: Vec<Method>,
    /// Hash of the context, zeros if none.
    pub context_hash: Bytes32,
    /// Hash of the data to sign, zeros if none.
    pub data_to_sign_hash: Bytes32,
    /// What the user must confirm to approve, if anything.
    pub matching: Option<MatchingV1>,
    /// Whether the service provider gave it an id of its own, which is sealed.
    pub external_id: bool,
    /// Whether something is shown after approval.
    pub post_context: bool,
    /// When it was created.
    pub created_at: Micros,
    /// Position of the record that holds the sealed context.
    pub created_in: Position,
    /// When it can no longer be answered.
    pub expires_at: Micros,
    /// Where it stands.
    pub state: OperationState,
    /// The one challenge, if it was not yet judged.
    pub challenge: Option<Bytes32>,
    /// Whether the device has shown that a push woke it for this.
    pub push_confirmed: bool,
    /// The nonce of the one offline question, if it was not yet judged.
    pub offline_nonce: Option<[u8; NONCE_LEN]>,
    /// The challenges that were judged.
    pub attempts: Vec<Attempt>,
    /// What the device last said of its hardware key.
    pub hw_key_client_status: HwKeyClientStatus,
    /// What the server last found of it.
    pub hw_key_server_result: HwKeyServerResult,
    /// When it ended.
    pub ended_at: Option<Micros>,
    /// What cancelled it.
    pub cancel_reason: Option<CancelReason>,
}

/// A question to several devices of one user. Its moves are drawn in
/// [`crate::broadcast`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Broadcast {
    /// The application.
    pub application: Id,
    /// One operation for each device.
    pub operations: Vec<Id>,
    /// How many of them can still be answered.
    pub open: u32,
}

/// A challenge that was judged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Digest of the request.
    pub body_digest: Bytes32,
    /// The method that answered.
    pub method: Method,
    /// What the user said.
    pub said: Said,
    /// Whether a code answered, without a network and without a signature.
    pub offline: bool,
    /// Why it failed, if it did.
    pub failure: Option<AuthenticationFailure>,
    /// Counted failures of the registration afterwards.
    pub failures: u32,
    /// Failures that were allowed.
    pub failures_allowed: u32,
    /// What became of the operation.
    pub operation_state: OperationState,
    /// The record.
    pub position: Position,
    /// When.
    pub at: Micros,
}

/// The erasure of a person. Its moves are drawn in [`crate::erasure`]. Kept for
/// ever: a key that comes back with an old copy of the key store must go again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Erasure {
    /// How far the subject's stream has come.
    pub head: StreamHead,
    /// Why it was ordered.
    pub reason: ErasureReason,
    /// The record that orders it.
    pub ordered_in: Position,
    /// When it was ordered.
    pub ordered_at: Micros,
    /// When the key was first destroyed; none where that is still to be done.
    pub erased_at: Option<Micros>,
}

/// A set of recovery codes. Its moves are drawn in [`crate::recovery`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovery {
    /// Whose codes they are.
    pub registration: Id,
    /// The activation or operation that it came with.
    pub set: Id,
    /// Its codes.
    pub codes: Vec<RecoveryCode>,
    /// Wrong codes that were sent for it.
    pub failures: u32,
}

/// A recovery code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveryCode {
    /// Its keyed hash.
    pub hash: Bytes32,
    /// The activation that it began, if it was redeemed.
    pub redeemed_by: Option<Id>,
}

/// A device. Its moves are drawn in [`crate::devices`]. Kept for ever: its id is
/// not to be used again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// The application whose apps name it.
    pub application: Id,
    /// Registrations on it that are not over.
    pub registrations: u64,
    /// Persons whose those are.
    pub users: u64,
    /// The block, if there is one.
    pub blocked: Option<Blocked>,
}

/// The block of a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blocked {
    /// Why.
    pub reason: ReasonGiven,
    /// The record, which holds the sealed device hash.
    pub position: Position,
    /// When.
    pub at: Micros,
}

/// A state entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Entry {
    /// Under [`Key::System`].
    System(System),
    /// Under [`Key::Application`].
    Application(#[serde(with = "shared")] Arc<Application>),
    /// Under [`Key::ApiKey`].
    ApiKey(#[serde(with = "shared")] Arc<ApiKey>),
    /// Under [`Key::Registration`].
    Registration(#[serde(with = "shared")] Arc<Registration>),
    /// Under [`Key::Activation`].
    Activation(#[serde(with = "shared")] Arc<Activation>),
    /// Under [`Key::Operation`].
    Operation(#[serde(with = "shared")] Arc<Operation>),
    /// Under [`Key::Broadcast`].
    Broadcast(#[serde(with = "shared")] Arc<Broadcast>),
    /// Under [`Key::Code`]: the activation that it redeems.
    Code(Id),
    /// Under [`Key::Request`]: where the answer stands.
    Request {
        /// What was asked under that key.
        digest: [u8; 16],
        /// The first record that it made.
        position: Position,
    },
    /// Under [`Key::Deadline`].
    Deadline,
    /// Under [`Key::Memory`]: what to forget, and when.
    Memory {
        /// From then on it may be forgotten.
        at: Micros,
        /// What.
        key: Key,
    },
    /// Under [`Key::Subject`]: how many registrations it has that are not over,
    /// never 0.
    Subject(u64),
    /// Under [`Key::Owned`].
    Owned,
    /// Under [`Key::Erasure`].
    Erasure(#[serde(with = "shared")] Arc<Erasure>),
    /// Under [`Key::Recovery`].
    Recovery(#[serde(with = "shared")] Arc<Recovery>),
    /// Under [`Key::Device`].
    Device(#[serde(with = "shared")] Arc<Device>),
    /// Under [`Key::DeviceUser`]: how many registrations, never 0.
    DeviceUser(u64),
    /// Under [`Key::OnDevice`].
    OnDevice,
    /// Under [`Key::Blocked`].
    Blocked,
    /// Under [`Key::LastUsed`].
    LastUsed,
}

/// A shared value, stored as the value itself.
mod shared {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<T: Serialize, S: Serializer>(
        value: &Arc<T>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        value.as_ref().serialize(serializer)
    }

    pub(super) fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Arc<T>, D::Error> {
        T::deserialize(deserializer).map(Arc::new)
    }
}

/// Typed access to state.
#[derive(Clone, Copy)]
pub struct Look<'a>(pub &'a dyn Entries<Keytrail>);

/// Declares one typed getter.
macro_rules! getter {
    ($name:ident, $kind:ident) => {
        #[doc = concat!("The ", stringify!($name), " of this id, if there is one.")]
        #[must_use]
        pub fn $name(self, id: Id) -> Option<Arc<$kind>> {
            match self.0.get(&Key::$kind(id)).as_deref() {
                Some(Entry::$kind(entry)) => Some(Arc::clone(entry)),
                Some(_) | None => None,
            }
        }
    };
}

impl Look<'_> {
    getter!(application, Application);
    getter!(api_key, ApiKey);
    getter!(registration, Registration);
    getter!(activation, Activation);
    getter!(operation, Operation);
    getter!(broadcast, Broadcast);
    getter!(erasure, Erasure);
    getter!(device, Device);

    /// The log itself.
    #[must_use]
    pub fn system(self) -> System {
        match self.0.get(&Key::System).as_deref() {
            Some(Entry::System(system)) => system.clone(),
            Some(_) | None => System::default(),
        }
    }

    /// What was asked by the idempotent request of this id, by its digest, and the
    /// first record of it; none if nothing came of it, or a day after.
    #[must_use]
    pub fn request(self, id: [u8; 16]) -> Option<([u8; 16], Position)> {
        match self.0.get(&Key::Request(id)).as_deref() {
            Some(Entry::Request { digest, position }) => Some((*digest, *position)),
            Some(_) | None => None,
        }
    }

    /// The activation that a code or QR secret of this keyed hash redeems.
    #[must_use]
    pub fn code(self, hash: &Bytes32) -> Option<Id> {
        match self.0.get(&Key::Code(*hash)).as_deref() {
            Some(Entry::Code(activation)) => Some(*activation),
            Some(_) | None => None,
        }
    }

    /// The set of recovery codes with this selector, by its keyed hash.
    #[must_use]
    pub fn recovery(self, selector: &Bytes32) -> Option<Arc<Recovery>> {
        match self.0.get(&Key::Recovery(*selector)).as_deref() {
            Some(Entry::Recovery(recovery)) => Some(Arc::clone(recovery)),
            Some(_) | None => None,
        }
    }

    /// How many registrations of a subject, not over, are on a device.
    #[must_use]
    pub fn on_device(self, device: Id, subject: Id) -> u64 {
        match self.0.get(&Key::DeviceUser(device, subject)).as_deref() {
            Some(Entry::DeviceUser(count)) => *count,
            Some(_) | None => 0,
        }
    }

    /// How many registrations a subject has that are not over.
    #[must_use]
    pub fn registrations_of(self, subject: Id) -> u64 {
        match self.0.get(&Key::Subject(subject)).as_deref() {
            Some(Entry::Subject(count)) => *count,
            Some(_) | None => 0,
        }
    }
}

impl Look<'_> {
    /// How far `stream` has come.
    #[must_use]
    pub fn head(self, stream: Id) -> StreamHead {
        if stream.is_nil() {
            return self.system().head;
        }
        self.registration(stream)
            .map(|entry| entry.head)
            .or_else(|| self.application(stream).map(|entry| entry.head))
            .or_else(|| self.api_key(stream).map(|entry| entry.head))
            .or_else(|| self.erasure(stream).map(|entry| entry.head))
            .unwrap_or_default()
    }

    /// Whether a stream of this id exists.
    #[must_use]
    pub fn is_stream(self, id: Id) -> bool {
        id.is_nil() || self.head(id).version > 0
    }
}

impl Entry {
    /// Whether an entry of this kind belongs under `key`.
    #[must_use]
    pub fn fits(&self, key: &Key) -> bool {
        match self {
            Self::System(_) => matches!(key, Key::System),
            Self::Application(_) => matches!(key, Key::Application(_)),
            Self::ApiKey(_) => matches!(key, Key::ApiKey(_)),
            Self::Registration(_) => matches!(key, Key::Registration(_)),
            Self::Activation(_) => matches!(key, Key::Activation(_)),
            Self::Operation(_) => matches!(key, Key::Operation(_)),
            Self::Broadcast(_) => matches!(key, Key::Broadcast(_)),
            Self::Code(_) => matches!(key, Key::Code(_)),
            Self::Request { .. } => matches!(key, Key::Request(_)),
            Self::Deadline => matches!(key, Key::Deadline(_)),
            Self::Memory { .. } => matches!(key, Key::Memory(_)),
            Self::Subject(_) => matches!(key, Key::Subject(_)),
            Self::Owned => matches!(key, Key::Owned(..)),
            Self::Erasure(_) => matches!(key, Key::Erasure(_)),
            Self::Recovery(_) => matches!(key, Key::Recovery(_)),
            Self::Device(_) => matches!(key, Key::Device(_)),
            Self::DeviceUser(_) => matches!(key, Key::DeviceUser(..)),
            Self::OnDevice => matches!(key, Key::OnDevice(..)),
            Self::Blocked => matches!(key, Key::Blocked(..)),
            Self::LastUsed => matches!(key, Key::LastUsed(..)),
        }
    }
}
