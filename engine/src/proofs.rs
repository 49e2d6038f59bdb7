//! From what an event holds to the bytes that were signed, and back to a verdict.
//!
//! One place builds transcripts, from the same fields, for the server that
//! judges and for the auditor who judges again. The auditor's verdict comes
//! from another library: see [`Signed::recheck`].

use crate::events::{
    ActivationJudgedV1, AuthenticationJudgedV1, Bytes32, DeclaredV1, Event, KeySetV1,
    VerificationV1,
};
use crate::ids::Id;
use crate::key::{KeyBytes, KeyError, KeyId, PublicKey};
use crate::reasons::OperationKind;
use crate::signature::{verify, verify_independent};
use crate::terms::{Decision, Level, Method, Role, Verdict};
use crate::transcript::{
    ActivationParts, Hash, KeyChangeParts, KeySlot, NO_CONTENT, Of, Said, Transcript, key_set_hash,
};
use crate::version::{ClientVersion, NotAVersion};

/// Why no transcript can be built: the record holds what the rules let nobody record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// A key that is no point of the curve.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A client version that is none.
    #[error(transparent)]
    Version(#[from] NotAVersion),
}

/// What all signatures of one *finish* are made over, but for the signing key
/// and the part that it plays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    base: Transcript,
}

/// What an activation's transcripts say beside what the device declared.
#[derive(Debug, Clone, Copy)]
pub struct ActivationFacts<'a> {
    /// The application.
    pub application: Id,
    /// The registration.
    pub registration: Id,
    /// The activation.
    pub activation: Id,
    /// The challenge.
    pub challenge: Bytes32,
    /// The keys that are offered.
    pub keys: &'a KeySetV1,
    /// Hash of the device token.
    pub device_token_hash: Bytes32,
    /// Hash of the attestation evidence, zeros if none.
    pub attestation_hash: Bytes32,
    /// Salted hash of the device hash, zeros if none.
    pub device_hash_hash: Bytes32,
}

/// What an authentication's transcripts say beside what the device declared.
#[derive(Debug, Clone, Copy)]
pub struct AuthenticationFacts {
    /// The application.
    pub application: Id,
    /// The registration.
    pub registration: Id,
    /// The operation.
    pub operation: Id,
    /// The challenge.
    pub challenge: Bytes32,
    /// What the operation asks for.
    pub kind: OperationKind,
    /// What the user said.
    pub said: Said,
    /// Factors required.
    pub level: Level,
    /// Hash of the context, zeros if none.
    pub context_hash: Bytes32,
    /// Hash of the data to sign, zeros if none.
    pub data_to_sign_hash: Bytes32,
}

/// An event that holds signatures.
#[derive(Debug, Clone, Copy)]
pub enum Judged<'a> {
    /// Those of an activation.
    Activation(&'a ActivationJudgedV1),
    /// Those of an authentication.
    Authentication(&'a AuthenticationJudgedV1),
}

impl<'a> Judged<'a> {
    /// The event, if it is one that holds signatures.
    #[must_use]
    pub fn of(event: &'a Event) -> Option<Self> {
        match event {
            Event::ActivationJudged(judged) => Some(Self::Activation(judged)),
            Event::AuthenticationJudged(judged) => Some(Self::Authentication(judged)),
            Event::LogStarted(_)
            | Event::ClockStepped(_)
            | Event::RefusalsCounted(_)
            | Event::ApiKeyCreated(_)
            | Event::ApiKeyRevoked(_)
            | Event::ApplicationCreated(_)
            | Event::ConfigurationChanged(_)
            | Event::CodeBudgetExhausted(_)
            | Event::ActivationRequested(_)
            | Event::ActivationStarted(_)
            | Event::ActivationExpired(_)
            | Event::ActivationCancelled(_)
            | Event::RegistrationLocked(_)
            | Event::RegistrationUnlocked(_)
            | Event::RegistrationDeactivated(_)
            | Event::HardwareKeyAdded(_)
            | Event::HardwareKeyRotated(_)
            | Event::HardwareKeyReplaced(_)
            | Event::MethodAdded(_)
            | Event::MethodReplaced(_)
            | Event::MethodRemoved(_)
            | Event::OperationCreated(_)
            | Event::ChallengeIssued(_)
            | Event::OperationExpired(_)
            | Event::OperationCancelled(_)
            | Event::OperationAnsweredElsewhere(_)
            | Event::OperationBegun(_)
            | Event::PushAddressSet(_)
            | Event::OfflineAsked(_)
            | Event::OfflineJudged(_)
            | Event::ErasureOrdered(_)
            | Event::SubjectErased(_)
            | Event::DeviceNamed(_)
            | Event::RecoveryCodesIssued(_)
            | Event::RecoveryStarted(_)
            | Event::RecoveryCodeRedeemed(_)
            | Event::RecoveryCodeRefused(_)
            | Event::RevocationListTaken(_)
            | Event::KeyUseCounted(_)
            | Event::ExportMade(_)
            | Event::DataRevealed(_)
            | Event::KeyRotated(_)
            | Event::ClockConfirmed(_)
            | Event::StateDigested(_)
            | Event::EpochBegun(_)
            | Event::LockReleased(_)
            | Event::DeviceBlocked(_)
            | Event::DeviceUnblocked(_)
            | Event::InactiveDeactivated(_)
            | Event::InactivityConfirmed(_) => None,
        }
    }
}

impl Signed {
    /// At activation: the decision is to approve, the level one factor, and
    /// there is no context.
    ///
    /// # Errors
    ///
    /// [`ProofError`] if an offered key or the version is not what it should be.
    pub fn at_activation(
        facts: &ActivationFacts,
        declared: &DeclaredV1,
    ) -> Result<Self, ProofError> {
        let mut slots = Vec::with_capacity(facts.keys.software.len() + 1);
        for slot in &facts.keys.software {
            slots.push((KeySlot::Software(slot.method), slot.key.check()?));
        }
        if let Some(key) = &facts.keys.hardware {
            slots.push((KeySlot::Hardware, key.check()?));
        }
        let mut signed = Self::at_authentication(
            &AuthenticationFacts {
                application: facts.application,
                registration: facts.registration,
                operation: facts.activation,
                challenge: facts.challenge,
                kind: OperationKind::Authentication,
                said: Decision::Approve.into(),
                level: Level::OneFactor,
                context_hash: NO_CONTENT,
                data_to_sign_hash: NO_CONTENT,
            },
            declared,
        )?;
        signed.base.of = Of::Activation(ActivationParts {
            key_set_hash: key_set_hash(&slots),
            device_token_hash: facts.device_token_hash,
            attestation_hash: facts.attestation_hash,
            device_hash_hash: facts.device_hash_hash,
        });
        Ok(signed)
    }

    /// At authentication.
    ///
    /// # Errors
    ///
    /// [`ProofError`] if the version is none.
    pub fn at_authentication(
        facts: &AuthenticationFacts,
        declared: &DeclaredV1,
    ) -> Result<Self, ProofError> {
        let base = Transcript {
            application: facts.application,
            registration: facts.registration,
            operation: facts.operation,
            challenge: facts.challenge,
            key: KeyId([0; 32]),
            role: Role::Software,
            method: Method::Device,
            said: facts.said,
            client_version: ClientVersion::parse(&declared.client_version)?,
            hw_key_client_status: declared.hw_key_client_status,
            channel_binding: declared.channel_binding,
            level: facts.level,
            context_hash: facts.context_hash,
            data_to_sign_hash: facts.data_to_sign_hash,
            client_data_hash: declared.client_data_hash,
            risk_data_hash: declared.risk_data_hash,
            of: match facts.kind.key_change() {
                None => Of::Operation(facts.kind),
                Some(_) => Of::KeyChange(
                    facts.kind,
                    KeyChangeParts {
                        slot: KeySlot::Hardware,
                        new_key: KeyId([0; 32]),
                        attestation_hash: NO_CONTENT,
                    },
                ),
            },
        };
        Ok(Self { base })
    }

    /// The same, of an answer that changes a key: that of `target`, or the
    /// hardware key, for `new_key`, with this hash of evidence about it. Changes nothing where the operation is not of
    /// a kind that changes keys.
    ///
    /// # Errors
    ///
    /// [`ProofError::Key`] if the new key is no point of the curve.
    pub fn changing(
        mut self,
        target: Option<Method>,
        new_key: Option<&KeyBytes>,
        attestation_hash: Hash,
    ) -> Result<Self, ProofError> {
        if let Of::KeyChange(_, parts) = &mut self.base.of {
            parts.attestation_hash = attestation_hash;
            parts.slot = target.map_or(KeySlot::Hardware, KeySlot::Software);
            if let Some(key) = new_key {
                parts.new_key = key.check()?.id();
            }
        }
        Ok(self)
    }

    /// What an event's signatures were made over, and what was recorded of them;
    /// none if the event holds no signatures.
    ///
    /// # Errors
    ///
    /// [`ProofError`] if the event holds what the rules let nobody record.
    pub fn of_event(
        registration: Id,
        event: &Event,
    ) -> Result<Option<(Self, &[VerificationV1])>, ProofError> {
        Ok(match Judged::of(event) {
            Some(Judged::Activation(judged)) => {
                let signed = Self::of_activation(registration, judged)?;
                Some((signed, &judged.verifications))
            }
            Some(Judged::Authentication(judged)) => {
                let signed = Self::of_authentication(registration, judged)?;
                Some((signed, &judged.verifications))
            }
            None => None,
        })
    }

    fn of_activation(registration: Id, judged: &ActivationJudgedV1) -> Result<Self, ProofError> {
        let facts = ActivationFacts {
            application: judged.application,
            registration,
            activation: judged.activation,
            challenge: judged.challenge,
            keys: &judged.keys,
            device_token_hash: judged.device_token_hash,
            attestation_hash: judged.attestation_hash,
            device_hash_hash: judged.device_hash_hash,
        };
        Self::at_activation(&facts, &judged.declared)
    }

    /// What the signatures of an authentication were made over.
    ///
    /// # Errors
    ///
    /// [`ProofError`] if the event holds what the rules let nobody record.
    pub fn of_authentication(
        registration: Id,
        judged: &AuthenticationJudgedV1,
    ) -> Result<Self, ProofError> {
        let facts = AuthenticationFacts {
            application: judged.application,
            registration,
            operation: judged.operation,
            challenge: judged.challenge,
            kind: judged.kind,
            said: judged.said(),
            level: judged.level,
            context_hash: judged.context_hash,
            data_to_sign_hash: judged.data_to_sign_hash,
        };
        Self::at_authentication(&facts, &judged.declared)?.changing(
            judged.target,
            judged.new_key.as_ref(),
            judged.attestation_hash(),
        )
    }

    /// The bytes that `key` signs in this part.
    #[must_use]
    pub fn message(&self, role: Role, method: Method, key: &PublicKey) -> Vec<u8> {
        Transcript { key: key.id(), role, method, ..self.base.clone() }.bytes()
    }

    /// Checks one signature, as the server does, and says what is to be recorded.
    #[must_use]
    pub fn check(
        &self,
        role: Role,
        method: Method,
        key: &PublicKey,
        signature: &[u8],
    ) -> VerificationV1 {
        VerificationV1 {
            role,
            method,
            key: key.to_stored(),
            signature: signature.to_vec(),
            verdict: verify(key, &self.message(role, method, key), signature),
        }
    }

    /// Checks a recorded signature again, with the library that the server does
    /// not use.
    ///
    /// # Errors
    ///
    /// [`ProofError::Key`] if the recorded key is none.
    pub fn recheck(&self, recorded: &VerificationV1) -> Result<Verdict, ProofError> {
        let key = recorded.key.check()?;
        let message = self.message(recorded.role, recorded.method, &key);
        Ok(verify_independent(&key, &message, &recorded.signature))
    }
}
