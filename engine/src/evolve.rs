//! What each event changes in state. Records, never judges, never fails.
//!
//! An event that does not fit the state (it cannot, in a log that the rules
//! wrote) changes nothing but what it names.

use std::sync::Arc;

use crate::Keytrail;
use crate::administration::configured;
use crate::attestation::activation::attested;
use crate::attestation::lists::ListName;
use crate::config::Config;
use crate::entries::{
    Activation, ApiKey, Application, Attempt, Broadcast, Deadline, Entry, Erasure, Expiring,
    JudgedActivation, Key, Look, Operation, Registration, Started, Succeeded, Succession, System,
};
use crate::events::{
    ActivationJudgedV1, ActivationRequestedV1, ActivationStartedV1, Actor, ApiKeyCreatedV1,
    ApplicationCreatedV1, AuthenticationJudgedV1, ErasureOrderedV1, Event, OperationBegunV1,
    OperationCreatedV1,
};
use crate::ids::{Id, Micros, Position};
use crate::machine::{Change, Entries, Record, StreamHead};
use crate::operation::NOISE_WINDOW_S;
use crate::reasons::{
    ActivationState, BudgetScope, CancelReason, OperationKind, OperationState, RegistrationState,
};
use crate::terms::{HwKeyClientStatus, HwKeyServerResult, Level, Method};
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
            Some(&payload.by)
        }
        Event::RegistrationLocked(payload) => payload.by.as_ref(),
        Event::RegistrationUnlocked(payload) => Some(&payload.by),
        Event::RegistrationDeactivated(payload) => Some(&payload.by),
        Event::OperationCreated(payload) => Some(&payload.by),
        Event::ErasureOrdered(payload) => Some(&payload.by),
        Event::RevocationListTaken(payload) => Some(&payload.by),
        Event::ClockConfirmed(payload) => Some(&payload.by),
        Event::ExportMade(payload) => payload.by.as_ref(),
        Event::DataRevealed(payload) => Some(&payload.by),
        Event::OperationCancelled(payload) if payload.reason == CancelReason::Requested => {
            Some(&payload.by)
        }
        Event::LogStarted(_)
        | Event::ClockStepped(_)
        | Event::RefusalsCounted(_)
        | Event::CodeBudgetExhausted(_)
        | Event::ActivationStarted(_)
        | Event::ActivationJudged(_)
        | Event::ActivationExpired(_)
        | Event::ActivationCancelled(_)
        | Event::ChallengeIssued(_)
        | Event::AuthenticationJudged(_)
        | Event::OperationExpired(_)
        | Event::OperationCancelled(_)
        | Event::OperationAnsweredElsewhere(_)
        | Event::OperationBegun(_)
        | Event::SubjectErased(_)
        | Event::KeyUseCounted(_)
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
            }),
            Event::RegistrationUnlocked(_) => self.registration(|registration| {
                registration.state = RegistrationState::Active;
                registration.lock_reason = None;
                registration.failures = 0;
            }),
            Event::RegistrationDeactivated(_) => self.registration(|registration| {
                registration.state = RegistrationState::Deactivated;
                registration.lock_reason = None;
            }),
            Event::OperationCreated(payload) => self.operation_created(payload),
            Event::ChallengeIssued(payload) => {
                self.registration(|_| ());
                self.operation(payload.operation, |operation| {
                    operation.challenge = Some(payload.challenge);
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
            self.remove(Key::Owned(registration.subject, id));
            self.registrations_of(registration.subject, |count| count.saturating_sub(1));
        }
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
            let registration = self.new_registration(payload);
            self.put(Key::Owned(registration.subject, id), Entry::Owned);
            self.registrations_of(registration.subject, |count| count.saturating_add(1));
            self.put(Key::Registration(id), Entry::Registration(Arc::new(registration)));
        }
        self.put(Key::Code(payload.code_hash), Entry::Code(payload.activation));
        self.put(Key::Code(payload.qr_hash), Entry::Code(payload.activation));
        self.live_codes(payload.application, |live| live.saturating_add(1));
        self.deadline(payload.expires_at, Expiring::Activation(payload.activation));
    }

    fn new_registration(&self, payload: &ActivationRequestedV1) -> Registration {
        Registration {
            head: self.head(),
            application: payload.application,
            subject: self.record.draft.subject,
            requested_in: self.position(),
            state: RegistrationState::Requested,
            lock_reason: None,
            activation: Some(payload.activation),
            software: Vec::new(),
            hardware: None,
            hw_key_impossible: false,
            unproven_device: false,
            attestation: None,
            device_token_hash: [0; 32],
            client_version: String::new(),
            keys_at: Position(0),
            failures: 0,
            noise_since: Micros(0),
            noise: 0,
            open_operations: Vec::new(),
            created_at: self.now(),
            activated_at: None,
            last_used_at: None,
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
            registration.software.clone_from(&payload.keys.software);
            registration.hardware = payload.keys.hardware.filter(|_| payload.hw_key_stored);
            registration.hw_key_impossible = payload.hw_key_impossible;
            registration.unproven_device = payload.unproven_device;
            registration.attestation = attested(payload.attestation, payload.evidence.as_ref());
            registration.device_token_hash = payload.device_token_hash;
            registration.client_version.clone_from(&payload.declared.client_version);
            registration.keys_at = position;
            registration.failures = 0;
            registration.activated_at = Some(at);
        });
        self.activation_over(payload.activation, ActivationState::Completed, None);
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

    fn operation_created(&mut self, payload: &OperationCreatedV1) {
        let Some(registration) = self.look().registration(self.stream()) else { return };
        let operation = Operation {
            broadcast: payload.broadcast,
            kind: payload.kind,
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
                None => registration.last_used_at = Some(at),
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

    fn operation_over(&mut self, id: Id, state: OperationState, reason: Option<CancelReason>) {
        let Some(before) = self.look().operation(id) else { return };
        let at = self.now();
        self.operation(id, |operation| {
            operation.state = state;
            operation.challenge = None;
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
