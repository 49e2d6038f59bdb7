//! A log and its state in memory, driven by hand: given, when, then.
//!
//! Every command that is carried out is also taken back out of its records and
//! decided again: `decide(state, command_of(records)) == records`, always.

use std::collections::BTreeMap;
use std::sync::Arc;

use engine::Keytrail;
use engine::command::{
    AskOffline, Command, CreateApiKey, CreateApplication, CreateOperation, FinishActivation,
    FinishAuthentication, FinishOffline, OrderErasure, Refusal, RequestActivation, SetPushAddress,
    StartActivation, StartAuthentication, StartLog, Want,
};
use engine::entries::{Activation, Application, Entry, Key, Look, Operation, Registration};
use engine::events::{Actor, DeclaredV1, Event, KeySetV1, MethodKeyV1, RequestKey, VerificationV1};
use engine::ids::{Id, Micros, Position};
use engine::inverse::command_of;
use engine::key::KeyBytes;
use engine::machine::{Entries, Machine, Record};
use engine::reasons::{CodeKind, ErasureReason, UserRole};
use engine::terms::{Decision, HwKeyClientStatus, Level, Method, Role, Verdict};
use engine::transcript::Said;

pub(crate) const ADMIN: Id = Id([0xad; 16]);
pub(crate) const BANK: Id = Id([0xba; 16]);
/// The person of every registration, unless a test says another.
pub(crate) const PERSON: Id = Id([0x5b; 16]);
pub(crate) const APP: Id = Id([0xa1; 16]);
pub(crate) const DEVICE_KEY: KeyBytes = KeyBytes { x: [1; 32], y: [1; 32] };
pub(crate) const PIN_KEY: KeyBytes = KeyBytes { x: [2; 32], y: [2; 32] };
pub(crate) const HARDWARE_KEY: KeyBytes = KeyBytes { x: [3; 32], y: [3; 32] };

#[derive(Clone, Default)]
pub(crate) struct State(pub(crate) BTreeMap<Key, Arc<Entry>>);

impl Entries<Keytrail> for State {
    fn get(&self, key: &Key) -> Option<Arc<Entry>> {
        self.0.get(key).cloned()
    }
}

#[derive(Clone, Default)]
pub(crate) struct World {
    pub(crate) state: State,
    pub(crate) records: Vec<Record>,
    pub(crate) now: Micros,
    commands: u64,
    drawn: u64,
}

pub(crate) fn by(api_key: Id) -> Actor {
    Actor { api_key, request: None }
}

impl World {
    /// A log with an administrator, a bank's back end, and its application.
    pub(crate) fn new(properties: &[(&str, &str)]) -> Self {
        let mut world = Self { now: Micros(1_000_000), ..Self::default() };
        world.done(Want::StartLog(StartLog {
            origin: "keytrail.test/1".into(),
            software: "0".into(),
            key: ADMIN,
            secret_hash: [0; 32],
        }));
        world.done(Want::CreateApiKey(CreateApiKey {
            by: by(ADMIN),
            key: BANK,
            role: UserRole::ServiceProvider,
            service_provider: "bank".into(),
            name: "back end".into(),
            secret_hash: [0; 32],
        }));
        world.done(Want::CreateApplication(CreateApplication {
            by: by(ADMIN),
            application: APP,
            name: "app".into(),
            service_provider: "bank".into(),
            properties: properties.iter().map(|&(n, v)| (n.into(), v.into())).collect(),
        }));
        world
    }

    /// Makes an auditor's key.
    pub(crate) fn auditor(&mut self) -> Id {
        let key = Id([0xa0; 16]);
        self.done(Want::CreateApiKey(CreateApiKey {
            by: by(ADMIN),
            key,
            role: UserRole::Auditor,
            service_provider: String::new(),
            name: "audit team".into(),
            secret_hash: [0; 32],
        }));
        key
    }

    pub(crate) fn look(&self) -> Look<'_> {
        Look(&self.state)
    }

    /// A fresh id.
    pub(crate) fn id(&mut self) -> Id {
        self.drawn += 1;
        let mut id = [0x11; 16];
        id[..8].copy_from_slice(&self.drawn.to_be_bytes());
        Id(id)
    }

    /// Fresh 32 bytes.
    pub(crate) fn bytes(&mut self) -> [u8; 32] {
        let id = self.id();
        let mut bytes = [0x22; 32];
        bytes[..16].copy_from_slice(&id.0);
        bytes
    }

    pub(crate) fn wait_s(&mut self, seconds: u64) {
        self.now = self.now.plus_s(seconds);
    }

    /// Carries out a command, or says why not.
    pub(crate) fn execute(&mut self, want: Want) -> Result<Vec<Event>, Refusal> {
        self.commands += 1;
        let mut event_id = [0xee; 16];
        event_id[..8].copy_from_slice(&self.commands.to_be_bytes());
        let command = Command { event_id: Id(event_id).first_of_command(), want };
        let before = State(self.state.0.clone());
        let drafts = Keytrail::decide(&before, self.now, &command)?;
        let mut made = Vec::new();
        for draft in &drafts {
            let head = Keytrail::head(&self.state, draft.stream);
            let record = Record {
                position: Position(self.records.len() as u64),
                time: self.now,
                stream_version: head.version,
                stream_prev: head.last,
                correlation: Id::NIL,
                causation: command.event_id,
                draft: draft.clone(),
            };
            for (key, entry) in Keytrail::evolve(&self.state, &record) {
                match entry {
                    Some(entry) => {
                        assert!(entry.fits(&key));
                        let bytes = Keytrail::entry_bytes(&entry);
                        assert_eq!(Keytrail::entry_of(&key, &bytes).as_ref(), Some(&*entry));
                        assert_eq!(Key::from_bytes(&key.bytes()), Some(key));
                        self.state.0.insert(key, entry);
                    }
                    None => {
                        self.state.0.remove(&key);
                    }
                }
            }
            let after = Keytrail::head(&self.state, draft.stream);
            assert_eq!(after.version, head.version + 1, "every record moves its stream");
            made.push(record.clone());
            self.records.push(record);
        }
        if !made.is_empty() {
            let again = Keytrail::decide(&before, self.now, &command_of(&made).unwrap());
            assert_eq!(again.as_ref(), Ok(&drafts), "the records give the command back");
        }
        Ok(drafts
            .iter()
            .map(|draft| Event::decode(draft.event_type, draft.schema, &draft.clear).unwrap())
            .collect())
    }

    #[track_caller]
    pub(crate) fn done(&mut self, want: Want) -> Vec<Event> {
        self.execute(want).unwrap()
    }

    #[track_caller]
    pub(crate) fn refused(&mut self, want: Want) -> Refusal {
        self.execute(want).unwrap_err()
    }

    pub(crate) fn application(&self) -> Arc<Application> {
        self.look().application(APP).unwrap()
    }

    pub(crate) fn registration(&self, id: Id) -> Arc<Registration> {
        self.look().registration(id).unwrap()
    }

    pub(crate) fn activation(&self, id: Id) -> Arc<Activation> {
        self.look().activation(id).unwrap()
    }

    pub(crate) fn operation(&self, id: Id) -> Arc<Operation> {
        self.look().operation(id).unwrap()
    }

    pub(crate) fn configure(&mut self, name: &str, value: &str) -> Vec<Event> {
        let version = self.application().config_version;
        self.done(Want::ChangeConfiguration(engine::command::ChangeConfiguration {
            by: by(ADMIN),
            application: APP,
            version,
            properties: vec![(name.into(), value.into())],
        }))
    }

    pub(crate) fn activation_request(&mut self, registration: Option<Id>) -> RequestActivation {
        RequestActivation {
            by: by(BANK),
            application: APP,
            registration: registration.unwrap_or_else(|| self.id()),
            again: registration.is_some(),
            activation: self.id(),
            code_hash: self.bytes(),
            qr_hash: self.bytes(),
            subject: if registration.is_some() { Id::NIL } else { PERSON },
            sealed: if registration.is_some() { Vec::new() } else { vec![1, 2, 3] },
        }
    }

    /// An activation that waits for its keys.
    pub(crate) fn started(
        &mut self,
        registration: Option<Id>,
        client_version: &str,
    ) -> FinishActivation {
        let request = self.activation_request(registration);
        self.started_by(request, client_version)
    }

    /// An activation that waits for its keys, by its request.
    pub(crate) fn started_by(
        &mut self,
        request: RequestActivation,
        client_version: &str,
    ) -> FinishActivation {
        let activation = request.activation;
        self.done(Want::RequestActivation(request));
        let challenge = self.bytes();
        self.done(Want::StartActivation(StartActivation {
            activation,
            with: CodeKind::Typed,
            nonce_hash: [7; 32],
            challenge,
            client_version: client_version.into(),
        }));
        let mut finish = FinishActivation {
            activation,
            challenge,
            declared: declared(client_version, HwKeyClientStatus::Signed),
            keys: KeySetV1 {
                software: vec![
                    MethodKeyV1 { method: Method::Device, key: DEVICE_KEY },
                    MethodKeyV1 { method: Method::DevicePin, key: PIN_KEY },
                ],
                hardware: Some(HARDWARE_KEY),
            },
            device_token_hash: [9; 32],
            attestation_hash: [0; 32],
            device_hash_hash: [0; 32],
            device: None,
            body_digest: self.bytes(),
            verifications: Vec::new(),
            evidence: None,
            name: Vec::new(),
            recovery: None,
            sealed: Vec::new(),
        };
        finish.verifications = vec![
            checked(Role::Software, Method::Device, DEVICE_KEY, Verdict::Valid),
            checked(Role::Software, Method::DevicePin, PIN_KEY, Verdict::Valid),
            checked(Role::Hardware, Method::Device, HARDWARE_KEY, Verdict::Valid),
        ];
        finish
    }

    pub(crate) fn registration_of(&self, finish: &FinishActivation) -> Id {
        self.activation(finish.activation).registration
    }

    /// An active registration with a PIN and a hardware key.
    pub(crate) fn active(&mut self) -> Id {
        let finish = self.started(None, "3.8");
        let id = self.registration_of(&finish);
        self.done(Want::FinishActivation(Box::new(finish)));
        id
    }

    /// An active registration with a PIN and no hardware key.
    pub(crate) fn active_without(&mut self, status: HwKeyClientStatus, client_version: &str) -> Id {
        let mut finish = self.started(None, client_version);
        finish.keys.hardware = None;
        finish.declared.hw_key_client_status = status;
        finish.verifications.retain(|checked| checked.role != Role::Hardware);
        let id = self.registration_of(&finish);
        self.done(Want::FinishActivation(Box::new(finish)));
        id
    }

    /// The registrations of a person that are not over.
    pub(crate) fn registrations_of(&self, subject: Id) -> Vec<Id> {
        let (from, to) = Key::owned_by(subject);
        let within = |key: &Key| from <= key.bytes() && key.bytes() < to;
        let keys = self.state.0.keys().filter(|key| within(key));
        keys.filter_map(|key| if let Key::Owned(_, id) = key { Some(*id) } else { None }).collect()
    }

    /// The order to erase a person with all registrations that are not over.
    pub(crate) fn erasure(&self, subject: Id) -> OrderErasure {
        let registrations = self.registrations_of(subject);
        OrderErasure { by: by(BANK), subject, reason: ErasureReason::UserRequest, registrations }
    }

    pub(crate) fn operation_request(&mut self, registration: Id, level: Level) -> CreateOperation {
        CreateOperation::new(by(BANK), self.id(), registration, level)
    }

    /// An operation that waits for an answer.
    pub(crate) fn asked(&mut self, registration: Id, level: Level) -> Id {
        let request = self.operation_request(registration, level);
        let id = request.operation;
        self.done(Want::CreateOperation(request));
        id
    }

    /// What asks each of several devices.
    pub(crate) fn broadcast_request(&mut self, devices: &[Id]) -> Vec<CreateOperation> {
        let broadcast = Some(self.id());
        let mut devices = devices.to_vec();
        devices.sort_unstable();
        let ask =
            |id| CreateOperation { broadcast, ..self.operation_request(id, Level::OneFactor) };
        devices.into_iter().map(ask).collect()
    }

    pub(crate) fn start(&mut self, operation: Id) -> Result<Vec<Event>, Refusal> {
        self.start_woken(operation, false)
    }

    /// Starts, by a device that shows that a push woke it, or does not.
    pub(crate) fn start_woken(
        &mut self,
        operation: Id,
        push_confirmed: bool,
    ) -> Result<Vec<Event>, Refusal> {
        let challenge = self.bytes();
        self.execute(Want::StartAuthentication(StartAuthentication {
            operation,
            challenge,
            client_version: "3.8".into(),
            push_confirmed,
        }))
    }

    /// Issues a question for a phone without a network.
    pub(crate) fn ask_offline(&mut self, operation: Id) -> Result<Vec<Event>, Refusal> {
        let nonce = self.id().0;
        self.execute(Want::AskOffline(AskOffline { by: by(BANK), operation, nonce }))
    }

    /// A code that answers the outstanding question, found right or wrong.
    pub(crate) fn code(&mut self, operation: Id, method: Method, right: bool) -> FinishOffline {
        let state = self.operation(operation);
        FinishOffline {
            by: by(BANK),
            operation,
            nonce: state.offline_nonce.unwrap_or_default(),
            method,
            code: "1234567897".into(),
            right,
            body_digest: self.bytes(),
            keys_at: self.registration(state.registration).keys_at,
        }
    }

    /// Says where pushes go, or that there is nowhere.
    pub(crate) fn push_address(
        &mut self,
        registration: Id,
        present: bool,
    ) -> Result<Vec<Event>, Refusal> {
        let sealed = if present { vec![7, 8, 9] } else { Vec::new() };
        self.execute(Want::SetPushAddress(SetPushAddress { registration, present, sealed }))
    }

    /// An answer to the outstanding challenge with these verdicts, in the order
    /// software, possession, hardware; none where no signature came.
    pub(crate) fn answer(
        &mut self,
        operation: Id,
        method: Method,
        verdicts: [Option<Verdict>; 3],
    ) -> FinishAuthentication {
        let state = self.operation(operation);
        let registration = self.registration(state.registration);
        let own = if method == Method::Device { DEVICE_KEY } else { PIN_KEY };
        let number = state.matching.as_ref().map(|matching| matching.number);
        let parts =
            [(Role::Software, own), (Role::Possession, DEVICE_KEY), (Role::Hardware, HARDWARE_KEY)];
        FinishAuthentication {
            operation,
            challenge: state.challenge.unwrap_or_default(),
            method,
            said: Said { number, ..Decision::Approve.into() },
            declared: declared("3.8", HwKeyClientStatus::Signed),
            body_digest: self.bytes(),
            new_key: None,
            recovery: None,
            attestation_hash: [0; 32],
            evidence: None,
            keys_at: registration.keys_at,
            verifications: parts
                .into_iter()
                .zip(verdicts)
                .filter_map(|((role, key), verdict)| Some(checked(role, method, key, verdict?)))
                .collect(),
            sealed: Vec::new(),
        }
    }

    /// Starts, answers and judges in one go.
    #[track_caller]
    pub(crate) fn judged(
        &mut self,
        operation: Id,
        method: Method,
        verdicts: [Option<Verdict>; 3],
    ) -> engine::events::AuthenticationJudgedV1 {
        self.start(operation).unwrap();
        let answer = self.answer(operation, method, verdicts);
        let events = self.done(Want::FinishAuthentication(Box::new(answer)));
        match &events[0] {
            Event::AuthenticationJudged(judged) => (**judged).clone(),
            other => panic!("{other:?}"),
        }
    }
}

pub(crate) fn declared(client_version: &str, status: HwKeyClientStatus) -> DeclaredV1 {
    DeclaredV1 {
        client_version: client_version.into(),
        hw_key_client_status: status,
        channel_binding: [0; 32],
        client_data_hash: [0; 32],
        risk_data_hash: [0; 32],
    }
}

pub(crate) fn checked(
    role: Role,
    method: Method,
    key: KeyBytes,
    verdict: Verdict,
) -> VerificationV1 {
    VerificationV1 { role, method, key, signature: vec![0x30], verdict }
}

pub(crate) fn request(id: u8, digest: u8) -> Option<RequestKey> {
    Some(RequestKey { id: [id; 16], digest: [digest; 16] })
}
