//! The load: registrations with a PIN and a hardware key, and ordinary log-ins
//! over them, as commands to the log's writer.
//!
//! A log-in is three commands, one after the other, each durable before the
//! next: the service provider asks, the device gets a challenge, its answer is
//! judged. The answer carries three verdicts that were made beforehand (`VALID`,
//! with random bytes for the signature): what verifying costs is a figure of
//! its own. Sealed parts are random bytes of the length that a context of
//! [`CONTEXT`] and risk data of [`RISK_DATA`] octets have when sealed.

use std::sync::Arc;

use engine::Keytrail;
use engine::codec;
use engine::command::{
    Command, CreateApiKey, CreateApplication, CreateOperation, FinishActivation,
    FinishAuthentication, RequestActivation, StartActivation, StartAuthentication, StartLog, Want,
};
use engine::events::{Actor, DeclaredV1, KeySetV1, MethodKeyV1, RequestKey, VerificationV1};
use engine::ids::{Id, Position};
use engine::key::KeyBytes;
use engine::machine::Clock;
use engine::reasons::{CodeKind, UserRole};
use engine::seal;
use engine::sealed::{Salted, SealedRequestV1, SealedResponseV1, SealedUserV1, Shown};
use engine::terms::{Decision, HwKeyClientStatus, Level, Method, Role, Verdict};
use storage::sequencer::{Envelope, Executed, Handle};

use super::Outcome;
use super::draw::Draw;

const ADMIN: Id = Id([0xad; 16]);
const BANK: Id = Id([0xba; 16]);
const APP: Id = Id([0xa1; 16]);
const VERSION: &str = "4.0";

/// Octets of the context that a user is shown: "Pay 1,249.00 EUR to …".
pub(crate) const CONTEXT: usize = 120;
/// Octets of risk data that a device sends along.
pub(crate) const RISK_DATA: usize = 200;
/// Bytes of a signature: DER of two random numbers has 70 to 72.
const SIGNATURE: usize = 71;

/// Events that an ordinary log-in makes.
pub(crate) const EVENTS: u64 = 3;

/// An active registration, as its device knows it.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    registration: Id,
    keys: [KeyBytes; 3],
    keys_at: Position,
}

/// One who sends commands and waits for each to be durable.
pub(crate) struct Writer {
    handle: Handle<Keytrail>,
    clock: Arc<dyn Clock>,
    draw: Draw,
    sealed: Lengths,
}

/// Lengths of sealed parts, in bytes.
#[derive(Debug, Clone, Copy)]
struct Lengths {
    user: usize,
    request: usize,
    response: usize,
}

impl Lengths {
    fn new() -> Self {
        let salted = |len| Some(Salted { salt: [0; 32], octets: vec![0; len] });
        let request = SealedRequestV1 {
            context: salted(CONTEXT).map(|content| Shown {
                title: String::new(),
                media_type: "text/plain".into(),
                content,
            }),
            data_to_sign: None,
            post_context: None,
            external_id: None,
        };
        let response = SealedResponseV1 {
            client_data: None,
            risk_data: salted(RISK_DATA),
            attestation: None,
            source: "203.0.113.17".into(),
        };
        let user = SealedUserV1 { user_ref: "customer-0123456789".into() };
        Self {
            user: codec::encode(&user).len() + seal::OVERHEAD,
            request: codec::encode(&request).len() + seal::OVERHEAD,
            response: codec::encode(&response).len() + seal::OVERHEAD,
        }
    }
}

impl Writer {
    /// A writer whose ids and bytes come from `seed`.
    pub(crate) fn new(handle: Handle<Keytrail>, clock: Arc<dyn Clock>, seed: u64) -> Self {
        Self { handle, clock, draw: Draw::new(seed), sealed: Lengths::new() }
    }

    async fn run(&mut self, want: Want) -> Outcome<Executed> {
        let event_id = self.id().first_of_command();
        let command = Command { event_id, want };
        let envelope = Envelope { command, causation: event_id, correlation: self.id() };
        Ok(self.handle.execute(envelope).await?)
    }

    fn id(&mut self) -> Id {
        self.draw.id(self.clock.wall())
    }

    fn key(&mut self) -> KeyBytes {
        // The writer keeps keys and compares them; only whoever verifies needs a point.
        KeyBytes { x: self.draw.bytes(), y: self.draw.bytes() }
    }

    /// The bank asks, under an idempotency key.
    fn bank(&mut self) -> Actor {
        let request = RequestKey { id: self.draw.bytes(), digest: self.draw.bytes() };
        Actor { api_key: BANK, request: Some(request) }
    }

    /// Begins an empty log: administrator, bank, application.
    ///
    /// # Errors
    ///
    /// If the log is not empty, or its writer has stopped.
    pub(crate) async fn begin(&mut self) -> Outcome<()> {
        let admin = || Actor { api_key: ADMIN, request: None };
        self.run(Want::StartLog(StartLog {
            origin: "keytrail.bench/1".into(),
            software: env!("CARGO_PKG_VERSION").into(),
            key: ADMIN,
            secret_hash: [1; 32],
        }))
        .await?;
        self.run(Want::CreateApiKey(CreateApiKey {
            by: admin(),
            key: BANK,
            role: UserRole::ServiceProvider,
            service_provider: "bank".into(),
            name: "back end".into(),
            secret_hash: [2; 32],
        }))
        .await?;
        self.run(Want::CreateApplication(CreateApplication {
            by: admin(),
            application: APP,
            name: "app".into(),
            service_provider: "bank".into(),
            properties: Vec::new(),
        }))
        .await?;
        Ok(())
    }

    /// Activates a new registration of this person.
    ///
    /// # Errors
    ///
    /// If a command is refused, or the log's writer has stopped.
    pub(crate) async fn activate(&mut self, subject: Id) -> Outcome<Member> {
        let (registration, activation) = (self.id(), self.id());
        let by = self.bank();
        let request = RequestActivation {
            by,
            application: APP,
            registration,
            again: false,
            activation,
            code_hash: self.draw.bytes(),
            qr_hash: self.draw.bytes(),
            subject,
            sealed: self.draw.vec(self.sealed.user),
        };
        self.run(Want::RequestActivation(request)).await?;
        let challenge = self.draw.bytes();
        let start = StartActivation {
            activation,
            with: CodeKind::Qr,
            nonce_hash: self.draw.bytes(),
            challenge,
            client_version: VERSION.into(),
        };
        self.run(Want::StartActivation(start)).await?;
        let keys = [self.key(), self.key(), self.key()];
        let finish = self.finish_activation(activation, challenge, keys);
        let done = self.run(Want::FinishActivation(Box::new(finish))).await?;
        let judged = done.records.last().ok_or("an activation left no record")?;
        Ok(Member { registration, keys, keys_at: judged.position })
    }

    fn finish_activation(
        &mut self,
        activation: Id,
        challenge: [u8; 32],
        [device, pin, hardware]: [KeyBytes; 3],
    ) -> FinishActivation {
        let software = vec![
            MethodKeyV1 { method: Method::Device, key: device },
            MethodKeyV1 { method: Method::DevicePin, key: pin },
        ];
        FinishActivation {
            activation,
            challenge,
            declared: self.declared(),
            keys: KeySetV1 { software, hardware: Some(hardware) },
            device_token_hash: self.draw.bytes(),
            attestation_hash: [0; 32],
            body_digest: self.draw.bytes(),
            verifications: vec![
                self.valid(Role::Software, Method::Device, device),
                self.valid(Role::Software, Method::DevicePin, pin),
                self.valid(Role::Hardware, Method::Device, hardware),
            ],
            evidence: None,
            sealed: self.draw.vec(self.sealed.response),
        }
    }

    fn declared(&mut self) -> DeclaredV1 {
        DeclaredV1 {
            client_version: VERSION.into(),
            hw_key_client_status: HwKeyClientStatus::Signed,
            channel_binding: [0; 32],
            client_data_hash: [0; 32],
            risk_data_hash: self.draw.bytes(),
        }
    }

    fn valid(&mut self, role: Role, method: Method, key: KeyBytes) -> VerificationV1 {
        let signature = self.draw.vec(SIGNATURE);
        VerificationV1 { role, method, key, signature, verdict: Verdict::Valid }
    }

    /// One ordinary log-in with PIN and hardware key. Returns for how long the
    /// answer waited to be judged and durable, in microseconds.
    ///
    /// # Errors
    ///
    /// If a command is refused, or the log's writer has stopped.
    pub(crate) async fn log_in(&mut self, member: &Member) -> Outcome<u64> {
        let operation = self.id();
        let create = CreateOperation {
            context_hash: self.draw.bytes(),
            sealed: self.draw.vec(self.sealed.request),
            ..CreateOperation::new(self.bank(), operation, member.registration, Level::TwoFactor)
        };
        self.run(Want::CreateOperation(create)).await?;
        let challenge = self.draw.bytes();
        let client_version = VERSION.into();
        let start = StartAuthentication { operation, challenge, client_version };
        self.run(Want::StartAuthentication(start)).await?;
        let finish = self.finish(member, operation, challenge);
        let before = self.clock.monotonic();
        self.run(Want::FinishAuthentication(Box::new(finish))).await?;
        Ok(self.clock.monotonic().0 - before.0)
    }

    fn finish(
        &mut self,
        member: &Member,
        operation: Id,
        challenge: [u8; 32],
    ) -> FinishAuthentication {
        let [device, pin, hardware] = member.keys;
        FinishAuthentication {
            operation,
            challenge,
            method: Method::DevicePin,
            said: Decision::Approve.into(),
            declared: self.declared(),
            body_digest: self.draw.bytes(),
            keys_at: member.keys_at,
            verifications: vec![
                self.valid(Role::Software, Method::DevicePin, pin),
                self.valid(Role::Possession, Method::DevicePin, device),
                self.valid(Role::Hardware, Method::DevicePin, hardware),
            ],
            sealed: self.draw.vec(self.sealed.response),
        }
    }
}
