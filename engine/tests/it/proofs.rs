//! From real signatures to events, and from events back to verdicts.

use engine::command::Want;
use engine::events::{DeclaredV1, Event, KeySetV1, MethodKeyV1};
use engine::ids::Id;
use engine::key::PublicKey;
use engine::proofs::{ActivationFacts, AuthenticationFacts, Signed};
use engine::reasons::{OperationKind, RejectReason};
use engine::terms::{Decision, HwKeyClientStatus, Level, Method, Role, Verdict};
use p256::ecdsa::signature::Signer;
use p256::ecdsa::{Signature, SigningKey};

use crate::world::{APP, World, declared};

struct Phone {
    device: SigningKey,
    pin: SigningKey,
    hardware: SigningKey,
}

fn public(key: &SigningKey) -> PublicKey {
    PublicKey::from_bytes(&key.verifying_key().to_sec1_bytes()).unwrap()
}

fn sign(signed: &Signed, role: Role, method: Method, key: &SigningKey) -> Vec<u8> {
    let signature: Signature = key.sign(&signed.message(role, method, &public(key)));
    signature.to_der().as_bytes().to_vec()
}

impl Phone {
    fn new() -> Self {
        let key = |seed| SigningKey::from_slice(&[seed; 32]).unwrap();
        Self { device: key(1), pin: key(2), hardware: key(3) }
    }

    fn keys(&self) -> KeySetV1 {
        let slot = |method, key| MethodKeyV1 { method, key: public(key).to_stored() };
        KeySetV1 {
            software: vec![slot(Method::Device, &self.device), slot(Method::DevicePin, &self.pin)],
            hardware: Some(public(&self.hardware).to_stored()),
        }
    }

    /// An activated registration, with every proof really signed and checked.
    fn activate(&self, world: &mut World) -> Id {
        let mut finish = world.started(None, "3.8");
        let registration = world.registration_of(&finish);
        finish.keys = self.keys();
        let facts = ActivationFacts {
            application: APP,
            registration,
            activation: finish.activation,
            challenge: finish.challenge,
            keys: &finish.keys,
            device_token_hash: finish.device_token_hash,
            attestation_hash: finish.attestation_hash,
        };
        let signed = Signed::at_activation(&facts, &finish.declared).unwrap();
        let parts = [
            (Role::Software, Method::Device, &self.device),
            (Role::Software, Method::DevicePin, &self.pin),
            (Role::Hardware, Method::Device, &self.hardware),
        ];
        finish.verifications = parts
            .map(|(role, method, key)| {
                signed.check(role, method, &public(key), &sign(&signed, role, method, key))
            })
            .to_vec();
        world.done(Want::FinishActivation(Box::new(finish)));
        registration
    }

    /// A log-in by PIN, with the PIN's key given, so that it can be the wrong one.
    fn log_in(&self, world: &mut World, registration: Id, pin: &SigningKey) {
        let operation = world.asked(registration, Level::TwoFactor);
        world.start(operation).unwrap();
        let mut answer = world.answer(operation, Method::DevicePin, [None; 3]);
        let facts = AuthenticationFacts {
            application: APP,
            registration,
            operation,
            challenge: answer.challenge,
            kind: OperationKind::Authentication,
            said: Decision::Approve.into(),
            level: Level::TwoFactor,
            context_hash: [0; 32],
            data_to_sign_hash: [0; 32],
        };
        let signed = Signed::at_authentication(&facts, &answer.declared).unwrap();
        let method = Method::DevicePin;
        let message = signed.message(Role::Software, method, &public(&self.pin));
        let signature: Signature = pin.sign(&message);
        answer.verifications = vec![
            signed.check(Role::Software, method, &public(&self.pin), signature.to_der().as_bytes()),
            signed.check(
                Role::Hardware,
                method,
                &public(&self.hardware),
                &sign(&signed, Role::Hardware, method, &self.hardware),
            ),
        ];
        world.done(Want::FinishAuthentication(Box::new(answer)));
    }
}

/// Every verdict in the log, as recorded and as the second library finds it.
fn verdicts(world: &World) -> Vec<(Verdict, Verdict)> {
    let mut found = Vec::new();
    for record in &world.records {
        let draft = &record.draft;
        let event = Event::decode(draft.event_type, draft.schema, &draft.clear).unwrap();
        if let Some((signed, recorded)) = Signed::of_event(draft.stream, &event).unwrap() {
            for entry in recorded {
                found.push((entry.verdict, signed.recheck(entry).unwrap()));
            }
        }
    }
    found
}

#[test]
fn an_auditor_finds_every_recorded_verdict_again() {
    let mut world = World::new(&[]);
    let phone = Phone::new();
    let registration = phone.activate(&mut world);
    phone.log_in(&mut world, registration, &phone.pin);
    phone.log_in(&mut world, registration, &SigningKey::from_slice(&[9; 32]).unwrap());
    let found = verdicts(&world);
    assert_eq!(found.len(), 7, "three proofs, and two signatures at each log-in");
    assert!(found.iter().all(|(recorded, again)| recorded == again));
    let invalid = found.iter().filter(|(recorded, _)| *recorded == Verdict::Invalid).count();
    assert_eq!(invalid, 1, "the wrong PIN, and nothing else");
    assert_eq!(world.registration(registration).failures, 1);
}

#[test]
fn a_signature_binds_every_fact_and_everything_declared() {
    let facts = AuthenticationFacts {
        application: APP,
        registration: Id([1; 16]),
        operation: Id([2; 16]),
        challenge: [3; 32],
        kind: OperationKind::Authentication,
        said: Decision::Approve.into(),
        level: Level::OneFactor,
        context_hash: [4; 32],
        data_to_sign_hash: [5; 32],
    };
    let said = declared("3.8", HwKeyClientStatus::Signed);
    let key = SigningKey::from_slice(&[1; 32]).unwrap();
    let signed = Signed::at_authentication(&facts, &said).unwrap();
    let signature = sign(&signed, Role::Software, Method::Device, &key);
    let verdict = |facts: &AuthenticationFacts, said: &DeclaredV1, role, method| {
        let signed = Signed::at_authentication(facts, said).unwrap();
        signed.check(role, method, &public(&key), &signature).verdict
    };
    let (role, method) = (Role::Software, Method::Device);
    assert_eq!(verdict(&facts, &said, role, method), Verdict::Valid);
    let other_facts: [fn(&mut AuthenticationFacts); 11] = [
        |facts| facts.application = Id([9; 16]),
        |facts| facts.registration = Id([9; 16]),
        |facts| facts.operation = Id([9; 16]),
        |facts| facts.challenge = [9; 32],
        |facts| facts.kind = OperationKind::Transaction,
        |facts| facts.said.decision = Decision::Reject,
        |facts| facts.said.reason = Some(RejectReason::NotMe),
        |facts| facts.said.number = Some(42),
        |facts| facts.level = Level::TwoFactor,
        |facts| facts.context_hash = [9; 32],
        |facts| facts.data_to_sign_hash = [9; 32],
    ];
    for change in other_facts {
        let mut facts = facts;
        change(&mut facts);
        assert_eq!(verdict(&facts, &said, role, method), Verdict::Invalid);
    }
    let other_words: [fn(&mut DeclaredV1); 5] = [
        |said| said.client_version = "3.8.0".into(),
        |said| said.hw_key_client_status = HwKeyClientStatus::KeyLost,
        |said| said.channel_binding = [9; 32],
        |said| said.client_data_hash = [9; 32],
        |said| said.risk_data_hash = [9; 32],
    ];
    for change in other_words {
        let mut said = said.clone();
        change(&mut said);
        assert_eq!(verdict(&facts, &said, role, method), Verdict::Invalid);
    }
    assert_eq!(verdict(&facts, &said, Role::Possession, method), Verdict::Invalid);
    assert_eq!(verdict(&facts, &said, role, Method::DevicePin), Verdict::Invalid);
}
