//! A log with a history, made through the real store by phones with real keys.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use engine::Keytrail;
use engine::command::{
    ChangeConfiguration, Command, CreateApiKey, CreateApplication, CreateOperation,
    FinishActivation, FinishAuthentication, RequestActivation, StartActivation,
    StartAuthentication, StartLog, Want,
};
use engine::entries::Look;
use engine::events::{Actor, DeclaredV1, Event, KeySetV1, MethodKeyV1, VerificationV1};
use engine::ids::{Id, Micros};
use engine::key::PublicKey;
use engine::machine::{Clock, Entropy};
use engine::proofs::{ActivationFacts, AuthenticationFacts, Signed};
use engine::reasons::{CodeKind, OperationKind, UserRole};
use engine::terms::{Decision, HwKeyClientStatus, Level, Method, Role};
use p256::ecdsa::signature::Signer;
use p256::ecdsa::{Signature, SigningKey};
use storage::fold::StateDigest;
use storage::journal::{self, Limits, Reserve};
use storage::open::{Options, Store};
use storage::sequencer::Envelope;

pub(crate) const ORIGIN: &str = "keytrail.test/history";
pub(crate) const ADMIN: Id = Id([0xad; 16]);
pub(crate) const BANK: Id = Id([0xba; 16]);
pub(crate) const APP: Id = Id([0xa1; 16]);

/// Both clocks, moved by hand, and counted bytes for chance.
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn at(start: u64) -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(start)))
    }

    pub(crate) fn set(&self, time: Micros) {
        self.0.store(time.0, Ordering::SeqCst);
    }

    pub(crate) fn pass_s(&self, seconds: u64) {
        self.0.fetch_add(seconds * 1_000_000, Ordering::SeqCst);
    }
}

impl Clock for Counter {
    fn wall(&self) -> Micros {
        Micros(self.0.load(Ordering::SeqCst))
    }

    fn monotonic(&self) -> Micros {
        self.wall()
    }
}

impl Entropy for Counter {
    fn fill(&self, out: &mut [u8]) {
        let count = self.0.fetch_add(1, Ordering::SeqCst).to_be_bytes();
        out.iter_mut().zip(count.iter().cycle()).for_each(|(byte, next)| *byte = *next);
    }
}

/// A phone that answers for one registration.
pub(crate) struct Phone {
    pub(crate) registration: Id,
    pub(crate) device: SigningKey,
    pub(crate) hardware: Option<SigningKey>,
}

/// How a phone signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signs {
    Well,
    /// The software signature is over something else.
    Wrongly,
    /// The software signature is no DER.
    Malformed,
}

/// A store and what makes its history.
pub(crate) struct History {
    pub(crate) store: Store<Keytrail>,
    pub(crate) clock: Arc<Counter>,
    /// Where state was after each command, if that is kept.
    pub(crate) digests: Option<BTreeMap<u64, StateDigest>>,
    runtime: tokio::runtime::Runtime,
    drawn: u64,
}

/// A segment takes this many records, and few bytes are reserved for it.
pub(crate) fn small_segments(records: u64) -> journal::Options {
    let limits = Limits { records, bytes: 4_096 };
    journal::Options { limits, reserve: Reserve::Inline, ..journal::Options::default() }
}

pub(crate) fn options(clock: &Arc<Counter>, journal: journal::Options) -> Options {
    let mut options = Options::new(ORIGIN, Arc::clone(clock) as _, Counter::at(1));
    options.boot_id = Some("one".to_owned());
    options.tick_ms = None;
    options.journal = journal;
    options.fatal = Arc::new(|message| panic!("{message}"));
    options
}

impl History {
    /// A log with an administrator, a bank's back end and its application.
    pub(crate) fn begin(folder: &Path, journal: journal::Options) -> Self {
        let clock = Counter::at(1_700_000_000_000_000);
        let store = Store::open(folder, options(&clock, journal)).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut history = Self { store, clock, digests: None, runtime, drawn: 0 };
        history.done(Want::StartLog(StartLog {
            origin: ORIGIN.into(),
            software: "0.1.0".into(),
            key: ADMIN,
            secret_hash: [1; 32],
        }));
        history.done(Want::CreateApiKey(CreateApiKey {
            by: by(ADMIN),
            key: BANK,
            role: UserRole::ServiceProvider,
            service_provider: "bank".into(),
            name: "back end".into(),
            secret_hash: [2; 32],
        }));
        history.done(Want::CreateApplication(CreateApplication {
            by: by(ADMIN),
            application: APP,
            name: "app".into(),
            service_provider: "bank".into(),
            properties: vec![("failures_allowed".into(), "2".into())],
        }));
        history
    }

    /// A little of everything: log-ins that succeed and fail, a lock, an unlock,
    /// an expiry, a change of configuration. 34 records in 32 commands.
    pub(crate) fn day(folder: &Path, journal: journal::Options) -> Self {
        let mut history = Self::begin(folder, journal);
        let with = history.activate(1, true);
        let without = history.activate(2, false);
        history.authenticate(&with, Signs::Well);
        history.authenticate(&without, Signs::Well);
        history.authenticate(&with, Signs::Wrongly);
        history.authenticate(&with, Signs::Malformed);
        history.done(Want::UnlockRegistration { by: by(BANK), registration: with.registration });
        history.authenticate(&with, Signs::Well);
        history.configure("hw_key_validation_strategy", "\"REQUIRED\"");
        history.operation(&with);
        history.clock.pass_s(1 << 20);
        history.sweep();
        history.authenticate(&without, Signs::Well);
        history
    }

    /// Lets `end` end the store, and opens the folder again.
    pub(crate) fn reopened(
        self,
        folder: &Path,
        end: impl FnOnce(Store<Keytrail>),
        options: Options,
    ) -> Self {
        end(self.store);
        Self { store: Store::open(folder, options).unwrap(), ..self }
    }

    pub(crate) fn id(&mut self) -> Id {
        self.drawn += 1;
        let mut id = [0x11; 16];
        id[..8].copy_from_slice(&self.drawn.to_be_bytes());
        Id(id)
    }

    pub(crate) fn bytes(&mut self) -> [u8; 32] {
        let mut bytes = [0x22; 32];
        bytes[..16].copy_from_slice(&self.id().0);
        bytes
    }

    /// Carries out a command and waits until it is durable.
    #[track_caller]
    pub(crate) fn done(&mut self, want: Want) -> Vec<Event> {
        self.clock.pass_s(1);
        let event_id = self.id().first_of_command();
        let correlation = self.id();
        let command = Command { event_id, want };
        let envelope = Envelope { command, causation: event_id, correlation };
        let executed = self.runtime.block_on(self.store.handle.execute(envelope)).unwrap();
        self.keep_digest();
        let event = |draft: &engine::machine::Draft| {
            Event::decode(draft.event_type, draft.schema, &draft.clear).unwrap()
        };
        executed.records.iter().map(|record| event(&record.draft)).collect()
    }

    fn keep_digest(&mut self) {
        if let Some(digests) = &mut self.digests {
            let (position, digest) = self.store.digest().unwrap();
            digests.insert(position.0, digest);
        }
    }

    /// Lets time act.
    pub(crate) fn sweep(&mut self) {
        self.runtime.block_on(self.store.handle.sweep()).unwrap();
        self.keep_digest();
    }

    pub(crate) fn configure(&mut self, name: &str, value: &str) {
        let version = Look(&self.store.state).application(APP).unwrap().config_version;
        self.done(Want::ChangeConfiguration(ChangeConfiguration {
            by: by(ADMIN),
            application: APP,
            version,
            properties: vec![(name.into(), value.into())],
        }));
    }

    pub(crate) fn activate(&mut self, number: u8, with_hardware: bool) -> Phone {
        let device = SigningKey::from_slice(&[number; 32]).unwrap();
        let hardware = with_hardware.then(|| SigningKey::from_slice(&[0x80 | number; 32]).unwrap());
        let (registration, activation) = (self.id(), self.id());
        let request = RequestActivation {
            by: by(BANK),
            application: APP,
            registration,
            again: false,
            activation,
            code_hash: self.bytes(),
            qr_hash: self.bytes(),
            subject: Id([number; 16]),
            sealed: vec![6; 40],
        };
        self.done(Want::RequestActivation(request));
        let challenge = self.bytes();
        self.done(Want::StartActivation(StartActivation {
            activation,
            with: CodeKind::Typed,
            nonce_hash: [7; 32],
            challenge,
            client_version: "3.8".into(),
        }));
        let phone = Phone { registration, device, hardware };
        let finish = self.offer(&phone, activation, challenge);
        self.done(Want::FinishActivation(Box::new(finish)));
        phone
    }

    pub(crate) fn offer(
        &mut self,
        phone: &Phone,
        activation: Id,
        challenge: [u8; 32],
    ) -> FinishActivation {
        let stored = |key: &SigningKey| public(key).to_stored();
        let keys = KeySetV1 {
            software: vec![MethodKeyV1 { method: Method::Device, key: stored(&phone.device) }],
            hardware: phone.hardware.as_ref().map(stored),
        };
        let declared = declared(phone);
        let facts = ActivationFacts {
            application: APP,
            registration: phone.registration,
            activation,
            challenge,
            keys: &keys,
            device_token_hash: [9; 32],
            attestation_hash: [0; 32],
        };
        let signed = Signed::at_activation(&facts, &declared).unwrap();
        let verifications = phone.sign(&signed, Signs::Well);
        FinishActivation {
            activation,
            challenge,
            declared,
            keys,
            device_token_hash: [9; 32],
            attestation_hash: [0; 32],
            body_digest: self.bytes(),
            verifications,
            evidence: None,
            sealed: vec![3; 50],
        }
    }

    pub(crate) fn operation(&mut self, phone: &Phone) -> Id {
        let operation = self.id();
        self.done(Want::CreateOperation(CreateOperation {
            context_hash: [5; 32],
            sealed: vec![4; 60],
            ..CreateOperation::new(by(BANK), operation, phone.registration, Level::OneFactor)
        }));
        operation
    }

    /// A whole authentication; returns what came of it.
    pub(crate) fn authenticate(&mut self, phone: &Phone, signs: Signs) -> Vec<Event> {
        let operation = self.operation(phone);
        self.answer(phone, operation, signs)
    }

    /// Fetches the challenge of an operation and answers it.
    pub(crate) fn answer(&mut self, phone: &Phone, operation: Id, signs: Signs) -> Vec<Event> {
        let challenge = self.bytes();
        self.done(Want::StartAuthentication(StartAuthentication {
            operation,
            challenge,
            client_version: "3.8".into(),
        }));
        let declared = declared(phone);
        let facts = AuthenticationFacts {
            application: APP,
            registration: phone.registration,
            operation,
            challenge,
            kind: OperationKind::Authentication,
            said: Decision::Approve.into(),
            level: Level::OneFactor,
            context_hash: [5; 32],
            data_to_sign_hash: [0; 32],
        };
        let signed = Signed::at_authentication(&facts, &declared).unwrap();
        let verifications = phone.sign(&signed, signs);
        let registration = Look(&self.store.state).registration(phone.registration).unwrap();
        let finish = FinishAuthentication {
            operation,
            challenge,
            method: Method::Device,
            said: Decision::Approve.into(),
            declared,
            body_digest: self.bytes(),
            keys_at: registration.keys_at,
            verifications,
            sealed: Vec::new(),
        };
        self.done(Want::FinishAuthentication(Box::new(finish)))
    }
}

impl Phone {
    pub(crate) fn sign(&self, signed: &Signed, signs: Signs) -> Vec<VerificationV1> {
        let one = |role, key: &SigningKey, signs: Signs| {
            let public = public(key);
            let mut message = signed.message(role, Method::Device, &public);
            if signs == Signs::Wrongly {
                message.push(0);
            }
            let signature: Signature = key.sign(&message);
            let mut der = signature.to_der().as_bytes().to_vec();
            if signs == Signs::Malformed {
                der.push(0);
            }
            signed.check(role, Method::Device, &public, &der)
        };
        let hardware = self.hardware.iter().map(|key| one(Role::Hardware, key, Signs::Well));
        std::iter::once(one(Role::Software, &self.device, signs)).chain(hardware).collect()
    }
}

pub(crate) fn by(api_key: Id) -> Actor {
    Actor { api_key, request: None }
}

fn public(key: &SigningKey) -> PublicKey {
    PublicKey::from_bytes(&key.verifying_key().to_sec1_bytes()).unwrap()
}

pub(crate) fn declared(phone: &Phone) -> DeclaredV1 {
    DeclaredV1 {
        client_version: "3.8".into(),
        hw_key_client_status: if phone.hardware.is_some() {
            HwKeyClientStatus::Signed
        } else {
            HwKeyClientStatus::NotSupported
        },
        channel_binding: [0; 32],
        client_data_hash: [0; 32],
        risk_data_hash: [0; 32],
    }
}
