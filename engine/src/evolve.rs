//! What each event changes in state. Records, never judges, never fails.
//!
//! An event that does not fit the state (it cannot, in a log that the rules
//! wrote) changes nothing but what it names.

use std::sync::Arc;

use crate::Keytrail;
use crate::administration::configured;
use crate::attestation::Attested;
use crate::attestation::activation::attested;
use crate::attestation::lists::ListName;
use crate::config::Config;
use crate::entries::{
    Activation, ApiKey, Application, Attempt, Blocked, Broadcast, Deadline, Device, Entry, Erasure,
    Expiring, Inactivity, JudgedActivation, Key, Look, Operation, Pushed, Recovery, RecoveryCode,
    Registration, Started, Succeeded, Succession, System,
};
use crate::events::{
    ActivationJudgedV1, ActivationRequestedV1, ActivationStartedV1, Actor, ApiKeyCreatedV1,
    ApplicationCreatedV1, AuthenticationJudgedV1, Bytes32, DeviceBlockedV1, DeviceNamedV1,
    ErasureOrderedV1, Event, MethodKeyV1, OfflineJudgedV1, OperationBegunV1, OperationCreatedV1,
    RecoveryCodesIssuedV1, RecoveryStartedV1,
};
use crate::ids::{Id, Micros, Position};
use crate::inactivity::{day_of, last_used};
use crate::key::KeyBytes;
use crate::machine::{Change, Entries, Record, StreamHead};
use crate::naming::NAMES_WINDOW_S;
use crate::operation::{NOISE_WINDOW_S, forgives};
use crate::reasons::{
    ActivationState, BudgetScope, CancelReason, CodeKind, OperationKind, OperationState,
    RegistrationState,
};
use crate::terms::{Decision, HwKeyClientStatus, HwKeyServerResult, Level, Method};
use crate::transcript::NO_CONTENT;

/// How long something that is over stays in state, in seconds: an operation and
/// an activation can be read, and an idempotency key can be repeated, for a day.
pub const REMEMBER_S: u64 = 86_400;

/// Most things that one record makes state forget. More than the most that one
/// record adds, so that what is to be forgotten never piles up.
const FORGET_MAX: usize = 4;

/// What `record` changes.
pub(crate) fn evolve(state: &dyn Entries<Keytrail>, record: &Record) -> Vec<Change<Keytrail>> {
    let draft = &record.draft;
    let mut changes = Changes { state, record, out: Vec::with_capacity(8) };
    if let Ok(event) = Event::decode(draft.event_type, draft.schema, &draft.clear) {
        changes.apply(&event);
        changes.remember_request(actor(&event));
    }
    changes.forget();
    changes.out
}

/// Who asked for this event over HTTP, if it is the first of its command.
fn actor(event: &Event) -> Option<&Actor> {
    match event {
        Event::ApiKeyCreated(payload) => payload.by.as_ref(),
        Event::ApiKeyRevoked(payload) => Some(&payload.by),
        Event::ApplicationCreated(payload) => Some(&payload.by),
        Event::ConfigurationChanged(payload) => Some(&payload.by),
        Event::ActivationRequested(payload) => Some(&payload.by),
        Event::ActivationCancelled(payload) if payload.reason == CancelReason::Requested => {
            payload.by.as_ref()
        }
        Event::RegistrationLocked(payload) => payload.by.as_ref(),
        Event::RegistrationUnlocked(payload) => Some(&payload.by),
        Event::RegistrationDeactivated(payload) => payload.by.as_ref(),
        Event::DeviceNamed(payload) => payload.by.as_ref(),
        Event::OperationCreated(payload) => Some(&payload.by),
        Event::OfflineAsked(payload) => Some(&payload.by),
        Event::OfflineJudged(payload) => Some(&payload.by),
        Event::ErasureOrdered(payload) => Some(&payload.by),
        Event::RevocationListTaken(payload) => Some(&payload.by),
        Event::ClockConfirmed(payload) => Some(&payload.by),
        Event::ExportMade(payload) => payload.by.as_ref(),
        Event::DataRevealed(payload) => Some(&payload.by),
        Event::OperationCancelled(payload) if payload.reason == CancelReason::Requested => {
            payload.by.as_ref()
        }
        Event::DeviceBlocked(payload) => Some(&payload.by),
        Event::DeviceUnblocked(payload) => Some(&payload.by),
        Event::InactivityConfirmed(payload) => Some(&payload.by),
        Event::LogStarted(_)
        | Event::ClockStepped(_)
        | Event::RefusalsCounted(_)
        | Event::CodeBudgetExhausted(_)
        | Event::ActivationStarted(_)
        | Event::ActivationJudged(_)
        | Event::ActivationExpired(_)
        | Event::ActivationCancelled(_)
        | Event::HardwareKeyAdded(_)
        | Event::HardwareKeyRotated(_)
        | Event::HardwareKeyReplaced(_)
        | Event::MethodAdded(_)
        | Event::MethodReplaced(_)
        | Event::MethodRemoved(_)
        | Event::ChallengeIssued(_)
        | Event::AuthenticationJudged(_)
        | Event::OperationExpired(_)
        | Event::OperationCancelled(_)
        | Event::OperationAnsweredElsewhere(_)
        | Event::OperationBegun(_)
        | Event::RecoveryCodesIssued(_)
        | Event::RecoveryStarted(_)
        | Event::RecoveryCodeRedeemed(_)
        | Event::RecoveryCodeRefused(_)
        | Event::PushAddressSet(_)
        | Event::SubjectErased(_)
        | Event::KeyUseCounted(_)
        | Event::LockReleased(_)
        | Event::InactiveDeactivated(_)
        | Event::StateDigested(_)
        | Event::KeyRotated(_)
        | Event::EpochBegun(_) => None,
    }
}

/// The changes of one record; later ones see earlier ones.
struct Changes<'a> {
    state: &'a dyn Entries<Keytrail>,
    record: &'a Record,
    out: Vec<Change<Keytrail>>,
}

impl Entries<Keytrail> for Changes<'_> {
    fn get(&self, key: &Key) -> Option<Arc<Entry>> {
        match self.out.iter().find(|(changed, _)| changed == key) {
            Some((_, entry)) => entry.clone(),
            None => self.state.get(key),
        }
    }
}

impl Changes<'_> {
    fn look(&self) -> Look<'_> {
        Look(self)
    }

    fn put(&mut self, key: Key, entry: Entry) {
        self.set(key, Some(Arc::new(entry)));
    }

    fn remove(&mut self, key: Key) {
        self.set(key, None);
    }

    fn set(&mut self, key: Key, entry: Option<Arc<Entry>>) {
        match self.out.iter_mut().find(|(changed, _)| *changed == key) {
            Some(change) => change.1 = entry,
            None => self.out.push((key, entry)),
        }
    }

    /// The stream's head once this record is in it.
    fn head(&self) -> StreamHead {
        StreamHead { version: self.record.stream_version + 1, last: Some(self.record.position) }
    }

    fn position(&self) -> Position {
        self.record.position
    }

    fn now(&self) -> Micros {
        self.record.time
    }

    fn stream(&self) -> Id {
        self.record.draft.stream
    }

    fn apply(&mut self, event: &Event) {
        match event {
            Event::LogStarted(payload) => {
                self.system(|system| system.origin.clone_from(&payload.origin));
            }
            Event::ClockStepped(_)
            | Event::ClockConfirmed(_)
            | Event::ExportMade(_)
            | Event::DataRevealed(_)
            | Event::RefusalsCounted(_)
            | Event::KeyUseCounted(_) => {
                self.system(|_| ());
            }
            Event::StateDigested(payload) => {
                self.system(|system| system.digested = payload.position);
            }
            Event::KeyRotated(payload) => {
                let (old, new) = (payload.old_key, payload.new_key);
                self.succeeded(Succession::Key { old, new });
            }
            Event::EpochBegun(payload) => {
                let (old, new) = (payload.previous_origin.clone(), payload.origin.clone());
                self.succeeded(Succession::Origin { old, new });
                self.system(|system| system.origin.clone_from(&payload.origin));
            }
            Event::ApiKeyCreated(payload) => self.api_key_created(payload),
            Event::ApiKeyRevoked(_) => self.api_key_revoked(),
            Event::ApplicationCreated(payload) => self.application_created(payload),
            Event::ConfigurationChanged(payload) => self.application(|application| {
                if let Ok(config) = configured(&application.config, &payload.properties) {
                    application.config = config;
                }
                application.config_version = payload.version;
            }),
            Event::CodeBudgetExhausted(payload) => self.application(|application| {
                if payload.scope == BudgetScope::Application {
                    application.codes_refused_until = payload.until;
                }
            }),
            Event::ActivationRequested(payload) => self.activation_requested(payload),
            Event::ActivationStarted(payload) => self.activation_started(payload),
            Event::ActivationJudged(payload) => self.activation_judged(payload),
            Event::ActivationExpired(payload) => {
                self.activation_over(payload.activation, ActivationState::Expired, None);
            }
            Event::ActivationCancelled(payload) => {
                let state = ActivationState::Cancelled;
                self.activation_over(payload.activation, state, Some(payload.reason));
            }
            Event::RegistrationLocked(payload) => self.registration(|registration| {
                registration.state = RegistrationState::Locked;
                registration.lock_reason = Some(payload.reason);
                registration.release_at = payload.release_at;
            }),
            Event::RegistrationUnlocked(_) => self.registration(|registration| {
                registration.state = RegistrationState::Active;
                registration.lock_reason = None;
                registration.release_at = None;
                registration.releases = 0;
                registration.failures = 0;
            }),
            Event::LockReleased(payload) => self.registration(|registration| {
                registration.state = RegistrationState::Active;
                registration.lock_reason = None;
                registration.release_at = None;
                registration.releases = registration.releases.saturating_add(1);
                registration.failures = payload.failures;
            }),
            Event::RegistrationDeactivated(payload) => self.registration(|registration| {
                registration.state = RegistrationState::Deactivated;
                registration.lock_reason = None;
                registration.release_at = None;
                registration.deactivation_reason = Some(payload.reason);
            }),
            Event::HardwareKeyAdded(payload) => {
                self.hardware_key(payload.key, payload.attestation.as_ref(), false);
            }
            Event::HardwareKeyRotated(payload) => {
                self.hardware_key(payload.key, payload.attestation.as_ref(), false);
            }
            Event::HardwareKeyReplaced(payload) => {
                let attested = payload.attestation.as_ref();
                self.hardware_key(payload.key, attested, payload.unproven_device);
            }
            Event::MethodAdded(payload) => self.method_key(payload.method, Some(payload.key)),
            Event::MethodReplaced(payload) => self.method_key(payload.method, Some(payload.key)),
            Event::MethodRemoved(payload) => self.method_key(payload.method, None),
            Event::DeviceNamed(payload) => self.device_named(payload),
            Event::RecoveryCodesIssued(payload) => self.recovery_codes_issued(payload),
            Event::RecoveryStarted(payload) => self.recovery_started(payload),
            Event::RecoveryCodeRedeemed(payload) => self.recovery(|recovery| {
                let redeemed = recovery.codes.iter_mut().find(|code| code.hash == payload.code);
                if let Some(code) = redeemed {
                    code.redeemed_by = Some(payload.activation);
                }
            }),
            Event::RecoveryCodeRefused(payload) => {
                self.recovery(|recovery| recovery.failures = payload.failures);
            }
            Event::OperationCreated(payload) => self.operation_created(payload),
            Event::ChallengeIssued(payload) => {
                self.registration(|_| ());
                self.operation(payload.operation, |operation| {
                    operation.challenge = Some(payload.challenge);
                    operation.push_confirmed |= payload.push_confirmed;
                    operation.state = OperationState::Started;
                });
            }
            Event::AuthenticationJudged(payload) => self.authentication_judged(payload),
            Event::OperationExpired(payload) => {
                self.operation_over(payload.operation, OperationState::Expired, None);
            }
            Event::OperationCancelled(payload) => {
                let state = OperationState::Cancelled;
                self.operation_over(payload.operation, state, Some(payload.reason));
            }
            Event::OperationBegun(payload) => self.operation_begun(payload),
            Event::OfflineAsked(payload) => {
                self.registration(|_| ());
                self.operation(payload.operation, |operation| {
                    operation.offline_nonce = Some(payload.nonce);
                });
            }
            Event::OfflineJudged(payload) => self.offline_judged(payload),
            Event::PushAddressSet(payload) => {
                let (position, changed_at) = (self.position(), self.now());
                let address_in = payload.present.then_some(position);
                self.registration(|registration| {
                    registration.push = Pushed { address_in, changed_at };
                });
            }
            Event::OperationAnsweredElsewhere(payload) => {
                let reason = Some(CancelReason::AnsweredElsewhere);
                self.operation_over(payload.operation, OperationState::Cancelled, reason);
            }
            Event::ErasureOrdered(payload) => self.erasure_ordered(payload),
            Event::RevocationListTaken(payload) => {
                let position = self.position();
                self.system(|system| {
                    // Its parts come in one command; the first one names them all.
                    if payload.part == 0 {
                        system.list = Some(ListName { position, hash: payload.hash });
                    }
                });
            }
            Event::SubjectErased(_) => self.subject_erased(),
            Event::DeviceBlocked(payload) => self.device_blocked(payload),
            Event::DeviceUnblocked(payload) => self.device_unblocked(payload.device),
            Event::InactiveDeactivated(payload) => self.application(|application| {
                let idle = &mut application.inactivity;
                if idle.since != payload.since {
                    idle.ended = 0;
                }
                idle.since = payload.since;
                idle.limit = payload.limit;
                idle.ended = idle.ended.saturating_add(payload.ended - payload.confirmed);
                idle.confirmed = idle.confirmed.saturating_sub(payload.confirmed);
                idle.held = payload.due > payload.ended;
            }),
            Event::InactivityConfirmed(payload) => self.application(|application| {
                application.inactivity.confirmed = payload.registrations.into();
                application.inactivity.confirmed_until = payload.until;
            }),
        }
    }

    fn system(&mut self, change: impl FnOnce(&mut System)) {
        let mut system = self.look().system();
        if self.stream().is_nil() {
            system.head = self.head();
        }
        change(&mut system);
        self.put(Key::System, Entry::System(system));
    }

    fn succeeded(&mut self, by: Succession) {
        let at = self.position();
        self.system(|system| system.successions.push(Succeeded { at, by }));
    }

    fn application(&mut self, change: impl FnOnce(&mut Application)) {
        let id = self.stream();
        let Some(application) = self.look().application(id) else { return };
        let mut application = (*application).clone();
        application.head = self.head();
        change(&mut application);
        self.put(Key::Application(id), Entry::Application(Arc::new(application)));
    }

    /// Changes the registration whose stream this is.
    fn registration(&mut self, change: impl FnOnce(&mut Registration)) {
        let id = self.stream();
        let Some(before) = self.look().registration(id) else { return };
        let mut registration = (*before).clone();
        registration.head = self.head();
        change(&mut registration);
        if registration.state == RegistrationState::Deactivated
            && before.state != registration.state
        {
            if let Some(selector) = registration.recovery.take() {
                self.remove(Key::Recovery(selector));
            }
            self.remove(Key::Owned(registration.subject, id));
            self.registrations_of(registration.subject, |count| count.saturating_sub(1));
        }
        self.move_deadline(Expiring::Lock(id), before.release_at, registration.release_at);
        self.move_device(id, &before, &registration);
        self.move_in_index(id, &before, &registration);
        self.put(Key::Registration(id), Entry::Registration(Arc::new(registration)));
    }

    fn activation(&mut self, id: Id, change: impl FnOnce(&mut Activation)) {
        let Some(activation) = self.look().activation(id) else { return };
        let mut activation = (*activation).clone();
        change(&mut activation);
        self.put(Key::Activation(id), Entry::Activation(Arc::new(activation)));
    }

    fn operation(&mut self, id: Id, change: impl FnOnce(&mut Operation)) {
        let Some(operation) = self.look().operation(id) else { return };
        let mut operation = (*operation).clone();
        change(&mut operation);
        self.put(Key::Operation(id), Entry::Operation(Arc::new(operation)));
    }

    fn api_key_created(&mut self, payload: &ApiKeyCreatedV1) {
        let key = ApiKey {
            head: self.head(),
            role: payload.role,
            service_provider: payload.service_provider.clone(),
            name: payload.name.clone(),
            secret_hash: payload.secret_hash,
            revoked: false,
            created_at: self.now(),
        };
        self.put(Key::ApiKey(self.stream()), Entry::ApiKey(Arc::new(key)));
    }

    fn api_key_revoked(&mut self) {
        let id = self.stream();
        let Some(key) = self.look().api_key(id) else { return };
        let key = ApiKey { head: self.head(), revoked: true, ..(*key).clone() };
        self.put(Key::ApiKey(id), Entry::ApiKey(Arc::new(key)));
    }

    fn application_created(&mut self, payload: &ApplicationCreatedV1) {
        let defaults = Config::default();
        let application = Application {
            head: self.head(),
            name: payload.name.clone(),
            service_provider: payload.service_provider.clone(),
            config: configured(&defaults, &payload.properties).unwrap_or(defaults),
            config_version: 1,
            live_codes: 0,
            registrations: 0,
            inactivity: Inactivity::default(),
            codes_refused_until: Micros(0),
            created_at: self.now(),
        };
        let key = Key::Application(self.stream());
        self.put(key, Entry::Application(Arc::new(application)));
    }

    fn activation_requested(&mut self, payload: &ActivationRequestedV1) {
        let id = self.stream();
        let activation = Activation {
            registration: id,
            application: payload.application,
            again: payload.again,
            state: ActivationState::Requested,
            code_hash: payload.code_hash,
            qr_hash: payload.qr_hash,
            expires_at: payload.expires_at,
            created_at: self.now(),
            started: None,
            judged: None,
            cancel_reason: None,
        };
        self.put(Key::Activation(payload.activation), Entry::Activation(Arc::new(activation)));
        if payload.again {
            self.registration(|registration| registration.activation = Some(payload.activation));
        } else {
            self.owned(id, self.new_registration(payload.application, payload.activation));
        }
        self.put(Key::Code(payload.code_hash), Entry::Code(payload.activation));
        self.put(Key::Code(payload.qr_hash), Entry::Code(payload.activation));
        self.live_codes(payload.application, |live| live.saturating_add(1));
        self.deadline(payload.expires_at, Expiring::Activation(payload.activation));
    }

    /// A registration is there, and belongs to its person.
    fn owned(&mut self, id: Id, registration: Registration) {
        self.put(Key::Owned(registration.subject, id), Entry::Owned);
        self.registrations_of(registration.subject, |count| count.saturating_add(1));
        self.put(Key::Registration(id), Entry::Registration(Arc::new(registration)));
    }

    fn new_registration(&self, application: Id, activation: Id) -> Registration {
        Registration {
            head: self.head(),
            application,
            subject: self.record.draft.subject,
            requested_in: self.position(),
            state: RegistrationState::Requested,
            lock_reason: None,
            release_at: None,
            releases: 0,
            deactivation_reason: None,
            activation: Some(activation),
            software: Vec::new(),
            hardware: None,
            hw_key_impossible: false,
            unproven_device: false,
            attestation: None,
            device: None,
            device_named_in: None,
            device_token_hash: [0; 32],
            client_version: String::new(),
            keys_at: Position(0),
            failures: 0,
            noise_since: Micros(0),
            noise: 0,
            recovery: None,
            recovers: None,
            named_in: None,
            names_since: Micros(0),
            names: 0,
            open_operations: Vec::new(),
            created_at: self.now(),
            activated_at: None,
            last_used_at: None,
            push: Pushed::default(),
            offline: false,
        }
    }

    fn registrations_of(&mut self, subject: Id, change: impl FnOnce(u64) -> u64) {
        match change(self.look().registrations_of(subject)) {
            0 => self.remove(Key::Subject(subject)),
            count => self.put(Key::Subject(subject), Entry::Subject(count)),
        }
    }

    fn erasure_ordered(&mut self, payload: &ErasureOrderedV1) {
        let erasure = Erasure {
            head: self.head(),
            reason: payload.reason,
            ordered_in: self.position(),
            ordered_at: self.now(),
            erased_at: None,
        };
        self.put(Key::Erasure(self.stream()), Entry::Erasure(Arc::new(erasure)));
    }

    fn subject_erased(&mut self) {
        let id = self.stream();
        let Some(erasure) = self.look().erasure(id) else { return };
        let erased_at = erasure.erased_at.or(Some(self.now()));
        let erasure = Erasure { head: self.head(), erased_at, ..(*erasure).clone() };
        self.put(Key::Erasure(id), Entry::Erasure(Arc::new(erasure)));
    }

    fn live_codes(&mut self, application: Id, change: impl FnOnce(u64) -> u64) {
        let Some(known) = self.look().application(application) else { return };
        let mut known = (*known).clone();
        known.live_codes = change(known.live_codes);
        self.put(Key::Application(application), Entry::Application(Arc::new(known)));
    }

    fn deadline(&mut self, at: Micros, of: Expiring) {
        self.put(Key::Deadline(Deadline { at, of }), Entry::Deadline);
    }

    /// Makes `of` due at `after` and no longer at `before`.
    fn move_deadline(&mut self, of: Expiring, before: Option<Micros>, after: Option<Micros>) {
        if before == after {
            return;
        }
        if let Some(at) = before {
            self.remove(Key::Deadline(Deadline { at, of }));
        }
        if let Some(at) = after {
            self.deadline(at, of);
        }
    }

    /// Counts a registration on the device that it is on, and no longer on the one
    /// that it was on. One that is over is on none.
    fn move_device(&mut self, id: Id, before: &Registration, after: &Registration) {
        let on = |registration: &Registration| {
            registration.device.filter(|_| registration.state != RegistrationState::Deactivated)
        };
        let (left, entered) = (on(before), on(after));
        if left == entered {
            return;
        }
        if let Some(device) = left {
            self.remove(Key::OnDevice(device, id));
            self.uses_device(device, after, |count| count.saturating_sub(1));
        }
        if let Some(device) = entered {
            self.put(Key::OnDevice(device, id), Entry::OnDevice);
            self.uses_device(device, after, |count| count.saturating_add(1));
        }
    }

    /// Changes how many registrations of its person a device carries.
    fn uses_device(
        &mut self,
        id: Id,
        registration: &Registration,
        change: impl FnOnce(u64) -> u64,
    ) {
        let key = Key::DeviceUser(id, registration.subject);
        let before = self.look().on_device(id, registration.subject);
        let after = change(before);
        if after == 0 {
            self.remove(key);
        } else {
            self.put(key, Entry::DeviceUser(after));
        }
        self.device(id, registration.application, |device| {
            device.registrations = (device.registrations + after).saturating_sub(before);
            let users = device.users + u64::from(after > 0);
            device.users = users.saturating_sub(u64::from(before > 0));
        });
    }

    /// Changes a device, which begins with the first that is said of it.
    fn device(&mut self, id: Id, application: Id, change: impl FnOnce(&mut Device)) {
        let known = self.look().device(id);
        let new = || Device { application, registrations: 0, users: 0, blocked: None };
        let mut device = known.map_or_else(new, |known| (*known).clone());
        change(&mut device);
        self.put(Key::Device(id), Entry::Device(Arc::new(device)));
    }

    fn device_blocked(&mut self, payload: &DeviceBlockedV1) {
        let (application, position, at) = (self.stream(), self.position(), self.now());
        let blocked = Blocked { reason: payload.reason, position, at };
        self.device(payload.device, application, |device| device.blocked = Some(blocked));
        self.put(Key::Blocked(application, payload.device), Entry::Blocked);
        self.application(|_| ());
    }

    fn device_unblocked(&mut self, id: Id) {
        let application = self.stream();
        self.device(id, application, |device| device.blocked = None);
        self.remove(Key::Blocked(application, id));
        self.application(|_| ());
    }

    /// Keeps the index of last uses, which has one place a day for a registration,
    /// and the number of registrations in it.
    fn move_in_index(&mut self, id: Id, before: &Registration, after: &Registration) {
        let day = |registration| last_used(registration).map(day_of);
        let (left, entered) = (day(before), day(after));
        if left == entered {
            return;
        }
        let application = after.application;
        if let Some(day) = left {
            self.remove(Key::LastUsed(application, day, id));
        }
        if let Some(day) = entered {
            self.put(Key::LastUsed(application, day, id), Entry::LastUsed);
        }
        if left.is_some() != entered.is_some() {
            let Some(known) = self.look().application(application) else { return };
            let mut known = (*known).clone();
            let more = known.registrations + u64::from(entered.is_some());
            known.registrations = more.saturating_sub(u64::from(left.is_some()));
            self.put(Key::Application(application), Entry::Application(Arc::new(known)));
        }
    }

    fn activation_started(&mut self, payload: &ActivationStartedV1) {
        let id = payload.activation;
        let Some(before) = self.look().activation(id) else { return };
        self.activation(id, |activation| {
            activation.state = ActivationState::Started;
            activation.expires_at = payload.expires_at;
            activation.started = Some(Started {
                with: payload.with,
                nonce_hash: payload.nonce_hash,
                challenge: payload.challenge,
            });
        });
        self.registration(|registration| {
            if registration.state == RegistrationState::Requested {
                registration.state = RegistrationState::Started;
            }
        });
        self.live_codes(before.application, |live| live.saturating_sub(1));
        let of = Expiring::Activation(id);
        self.remove(Key::Deadline(Deadline { at: before.expires_at, of }));
        self.deadline(payload.expires_at, of);
    }

    fn activation_judged(&mut self, payload: &ActivationJudgedV1) {
        let (position, at) = (self.position(), self.now());
        self.activation(payload.activation, |activation| {
            activation.judged = Some(JudgedActivation {
                body_digest: payload.body_digest,
                failure: payload.failure,
                hw_key_client_status: payload.declared.hw_key_client_status,
                hw_key_server_result: payload.hw_key_server_result,
                hw_key_stored: payload.hw_key_stored,
                unproven_device: payload.unproven_device,
                attestation: attested(payload.attestation, payload.evidence.as_ref()),
                position,
                at,
            });
        });
        if payload.failure.is_some() {
            self.activation_over(payload.activation, ActivationState::Failed, None);
            return;
        }
        self.registration(|registration| {
            registration.state = RegistrationState::Active;
            registration.lock_reason = None;
            // Other keys may be another phone's.
            registration.push.address_in = None;
            registration.offline = payload.offline;
            registration.release_at = None;
            registration.releases = 0;
            registration.software.clone_from(&payload.keys.software);
            registration.hardware = payload.keys.hardware.filter(|_| payload.hw_key_stored);
            registration.hw_key_impossible = payload.hw_key_impossible;
            registration.unproven_device = payload.unproven_device;
            registration.attestation = attested(payload.attestation, payload.evidence.as_ref());
            // Without a hash it stays on the device that it is known on.
            if let Some(device) = payload.device {
                registration.device = Some(device);
                registration.device_named_in = Some(position);
            }
            registration.device_token_hash = payload.device_token_hash;
            registration.client_version.clone_from(&payload.declared.client_version);
            registration.keys_at = position;
            registration.failures = 0;
            registration.activated_at = Some(at);
        });
        self.activation_over(payload.activation, ActivationState::Completed, None);
    }

    fn recovery_codes_issued(&mut self, payload: &RecoveryCodesIssuedV1) {
        let id = self.stream();
        let Some(before) = self.look().registration(id) else { return };
        if let Some(former) = before.recovery {
            self.remove(Key::Recovery(former));
        }
        self.registration(|registration| registration.recovery = Some(payload.selector));
        let unused = |&hash: &Bytes32| RecoveryCode { hash, redeemed_by: None };
        let recovery = Recovery {
            registration: id,
            set: payload.set,
            codes: payload.codes.iter().map(unused).collect(),
            failures: 0,
        };
        self.put(Key::Recovery(payload.selector), Entry::Recovery(Arc::new(recovery)));
    }

    /// Changes the set of the registration whose stream this is.
    fn recovery(&mut self, change: impl FnOnce(&mut Recovery)) {
        self.registration(|_| ());
        let registration = self.look().registration(self.stream());
        let Some(selector) = registration.and_then(|known| known.recovery) else { return };
        let Some(recovery) = self.look().recovery(&selector) else { return };
        let mut recovery = (*recovery).clone();
        change(&mut recovery);
        self.put(Key::Recovery(selector), Entry::Recovery(Arc::new(recovery)));
    }

    /// An activation that begins redeemed, of a registration that takes another's place.
    fn recovery_started(&mut self, payload: &RecoveryStartedV1) {
        let id = self.stream();
        let started = Started {
            with: CodeKind::Recovery,
            nonce_hash: payload.nonce_hash,
            challenge: payload.challenge,
        };
        let activation = Activation {
            registration: id,
            application: payload.application,
            again: false,
            state: ActivationState::Started,
            code_hash: NO_CONTENT,
            qr_hash: NO_CONTENT,
            expires_at: payload.expires_at,
            created_at: self.now(),
            started: Some(started),
            judged: None,
            cancel_reason: None,
        };
        self.put(Key::Activation(payload.activation), Entry::Activation(Arc::new(activation)));
        let registration = Registration {
            state: RegistrationState::Started,
            recovers: Some(payload.recovers),
            ..self.new_registration(payload.application, payload.activation)
        };
        self.owned(id, registration);
        self.deadline(payload.expires_at, Expiring::Activation(payload.activation));
    }

    fn device_named(&mut self, payload: &DeviceNamedV1) {
        let (position, at) = (self.position(), self.now());
        self.registration(|registration| {
            registration.named_in = payload.named.then_some(position);
            if payload.by.is_some() {
                return;
            }
            let until = registration.names_since.plus_s(NAMES_WINDOW_S);
            if registration.names > 0 && at < until {
                registration.names = registration.names.saturating_add(1);
            } else {
                registration.names_since = at;
                registration.names = 1;
            }
        });
    }

    /// Ends an activation: its codes and deadline go, and a registration that
    /// never had keys goes with it unless it completed.
    fn activation_over(&mut self, id: Id, state: ActivationState, reason: Option<CancelReason>) {
        let Some(before) = self.look().activation(id) else { return };
        self.activation(id, |activation| {
            activation.state = state;
            activation.cancel_reason = reason;
        });
        self.registration(|registration| {
            if registration.activation == Some(id) {
                registration.activation = None;
            }
            if matches!(
                registration.state,
                RegistrationState::Requested | RegistrationState::Started
            ) {
                registration.state = RegistrationState::Deactivated;
            }
        });
        if before.state == ActivationState::Requested {
            self.live_codes(before.application, |live| live.saturating_sub(1));
        }
        self.remove(Key::Code(before.code_hash));
        self.remove(Key::Code(before.qr_hash));
        let of = Expiring::Activation(id);
        self.remove(Key::Deadline(Deadline { at: before.expires_at, of }));
        self.remember(Key::Activation(id));
    }

    /// Another hardware key on a live registration; a change that an old key did
    /// not sign is remembered until the next re-activation.
    fn hardware_key(&mut self, key: KeyBytes, attested: Option<&Attested>, unproven_device: bool) {
        let position = self.position();
        self.registration(|registration| {
            registration.hardware = Some(key);
            registration.hw_key_impossible = false;
            // Former evidence was of the former key, and says nothing of this one.
            registration.attestation = attested.cloned();
            registration.unproven_device |= unproven_device;
            registration.keys_at = position;
        });
    }

    /// Another key, or none, for a method of a live registration.
    fn method_key(&mut self, method: Method, key: Option<KeyBytes>) {
        let position = self.position();
        self.registration(|registration| {
            let software = &mut registration.software;
            let place = software.iter().position(|slot| slot.method == method);
            match (place, key) {
                (Some(place), Some(key)) => software[place].key = key,
                (Some(place), None) => {
                    software.remove(place);
                }
                (None, Some(key)) => software.push(MethodKeyV1 { method, key }),
                (None, None) => (),
            }
            registration.keys_at = position;
        });
    }

    fn operation_created(&mut self, payload: &OperationCreatedV1) {
        let Some(registration) = self.look().registration(self.stream()) else { return };
        let operation = Operation {
            broadcast: payload.broadcast,
            kind: payload.kind,
            target: payload.target,
            context_hash: payload.context_hash,
            data_to_sign_hash: payload.data_to_sign_hash,
            matching: payload.matching.clone(),
            external_id: payload.external_id,
            post_context: payload.post_context_hash != NO_CONTENT,
            ..self.asked(&registration, payload.level, &payload.offered, payload.expires_at)
        };
        self.operation_is_there(payload.operation, operation);
        if let Some(id) = payload.broadcast {
            self.broadcast(id, registration.application, |broadcast| {
                broadcast.operations.push(payload.operation);
                broadcast.open += 1;
            });
        }
    }

    fn operation_begun(&mut self, payload: &OperationBegunV1) {
        let Some(registration) = self.look().registration(self.stream()) else { return };
        let operation = Operation {
            begun: Some(payload.nonce_hash),
            kind: payload.kind,
            ..self.asked(&registration, payload.level, &payload.offered, payload.expires_at)
        };
        self.operation_is_there(payload.operation, operation);
    }

    /// An authentication that shows and signs nothing.
    fn asked(
        &self,
        registration: &Registration,
        level: Level,
        offered: &[Method],
        expires_at: Micros,
    ) -> Operation {
        Operation {
            registration: self.stream(),
            application: registration.application,
            broadcast: None,
            begun: None,
            kind: OperationKind::Authentication,
            target: None,
            level,
            methods: offered.to_vec(),
            context_hash: NO_CONTENT,
            data_to_sign_hash: NO_CONTENT,
            matching: None,
            external_id: false,
            post_context: false,
            created_at: self.now(),
            created_in: self.position(),
            expires_at,
            state: OperationState::Pending,
            challenge: None,
            push_confirmed: false,
            offline_nonce: None,
            attempts: Vec::new(),
            hw_key_client_status: HwKeyClientStatus::NotReported,
            // What a result says that nobody answered: nothing was signed.
            hw_key_server_result: if registration.hardware.is_some() {
                HwKeyServerResult::SignatureMissing
            } else {
                HwKeyServerResult::NoKeyRegistered
            },
            ended_at: None,
            cancel_reason: None,
        }
    }

    fn operation_is_there(&mut self, id: Id, operation: Operation) {
        self.deadline(operation.expires_at, Expiring::Operation(id));
        self.put(Key::Operation(id), Entry::Operation(Arc::new(operation)));
        self.registration(|registration| registration.open_operations.push(id));
    }

    /// Changes a broadcast, which begins with its first operation.
    fn broadcast(&mut self, id: Id, application: Id, change: impl FnOnce(&mut Broadcast)) {
        let known = self.look().broadcast(id);
        let new = || Broadcast { application, operations: Vec::new(), open: 0 };
        let mut broadcast = known.map_or_else(new, |known| (*known).clone());
        change(&mut broadcast);
        self.put(Key::Broadcast(id), Entry::Broadcast(Arc::new(broadcast)));
    }

    fn authentication_judged(&mut self, payload: &AuthenticationJudgedV1) {
        let (position, at) = (self.position(), self.now());
        self.operation(payload.operation, |operation| {
            operation.challenge = None;
            operation.state = payload.operation_state;
            operation.hw_key_client_status = payload.declared.hw_key_client_status;
            operation.hw_key_server_result = payload.hw_key_server_result;
            operation.attempts.push(Attempt {
                body_digest: payload.body_digest,
                method: payload.method,
                said: payload.said(),
                offline: false,
                failure: payload.failure,
                failures: payload.failures,
                failures_allowed: payload.failures_allowed,
                operation_state: payload.operation_state,
                position,
                at,
            });
        });
        self.registration(|registration| {
            registration.failures = payload.failures;
            match payload.failure {
                None => {
                    registration.last_used_at = Some(at);
                    if forgives(registration, payload.method, payload.decision) {
                        registration.releases = 0;
                    }
                }
                Some(_) if payload.counted => (),
                Some(_) if at < registration.noise_since.plus_s(NOISE_WINDOW_S) => {
                    registration.noise = registration.noise.saturating_add(1);
                }
                Some(_) => {
                    registration.noise_since = at;
                    registration.noise = 1;
                }
            }
        });
        if payload.operation_state.is_final() {
            self.operation_over(payload.operation, payload.operation_state, None);
        }
    }

    fn offline_judged(&mut self, payload: &OfflineJudgedV1) {
        let (position, at) = (self.position(), self.now());
        self.operation(payload.operation, |operation| {
            operation.offline_nonce = None;
            operation.state = payload.operation_state;
            operation.hw_key_client_status = HwKeyClientStatus::NotReported;
            operation.hw_key_server_result = payload.hw_key_server_result;
            operation.attempts.push(Attempt {
                body_digest: payload.body_digest,
                method: payload.method,
                said: Decision::Approve.into(),
                offline: true,
                failure: payload.failure,
                failures: payload.failures,
                failures_allowed: payload.failures_allowed,
                operation_state: payload.operation_state,
                position,
                at,
            });
        });
        self.registration(|registration| {
            registration.failures = payload.failures;
            if payload.failure.is_none() {
                registration.last_used_at = Some(at);
                if forgives(registration, payload.method, Decision::Approve) {
                    registration.releases = 0;
                }
            }
        });
        if payload.operation_state.is_final() {
            self.operation_over(payload.operation, payload.operation_state, None);
        }
    }

    fn operation_over(&mut self, id: Id, state: OperationState, reason: Option<CancelReason>) {
        let Some(before) = self.look().operation(id) else { return };
        let at = self.now();
        self.operation(id, |operation| {
            operation.state = state;
            operation.challenge = None;
            operation.offline_nonce = None;
            operation.ended_at = Some(at);
            operation.cancel_reason = reason;
        });
        self.registration(|registration| registration.open_operations.retain(|&open| open != id));
        let of = Expiring::Operation(id);
        self.remove(Key::Deadline(Deadline { at: before.expires_at, of }));
        self.remember(Key::Operation(id));
        if let Some(broadcast) = before.broadcast {
            let mut over = false;
            self.broadcast(broadcast, before.application, |broadcast| {
                broadcast.open = broadcast.open.saturating_sub(1);
                over = broadcast.open == 0;
            });
            if over {
                self.remember(Key::Broadcast(broadcast));
            }
        }
    }

    fn remember_request(&mut self, by: Option<&Actor>) {
        let Some(request) = by.and_then(|by| by.request.as_ref()) else { return };
        let key = Key::Request(request.id);
        // A command's later records name the same request: the first one answers.
        if self.look().0.get(&key).is_some() {
            return;
        }
        let entry = Entry::Request { digest: request.digest, position: self.position() };
        self.put(key, entry);
        self.remember(key);
    }

    /// Puts `key` at the end of what is to be forgotten. All wait equally long,
    /// so the order in which they come is the order in which they go.
    fn remember(&mut self, key: Key) {
        let mut number = 0;
        self.system(|system| {
            number = system.memory_next;
            system.memory_next += 1;
        });
        let at = self.now().plus_s(REMEMBER_S);
        self.put(Key::Memory(number), Entry::Memory { at, key });
    }

    /// Forgets what has been over for long enough, a few at a time.
    fn forget(&mut self) {
        for _ in 0..FORGET_MAX {
            let number = self.look().system().memory_first;
            let Some(Entry::Memory { at, key }) =
                self.look().0.get(&Key::Memory(number)).as_deref().cloned()
            else {
                return;
            };
            if self.now() < at {
                return;
            }
            self.remove(key);
            self.remove(Key::Memory(number));
            self.system(|system| system.memory_first += 1);
        }
    }
}
