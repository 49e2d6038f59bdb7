//! Answering an operation: what the user is asked, and the signed answer.

use std::fmt;

use engine::ids::Id;
use engine::machine::{Entropy, random};
use engine::proofs::{AuthenticationFacts, Signed};
use engine::reasons::RejectReason;
use engine::terms::{Decision, HwKeyClientStatus, Level, Method, Role};
use engine::transcript::{Content, NO_CONTENT, Said, shown_octets};
use engine::version::ClientVersion;
use zeroize::Zeroizing;

use super::activation::{declared, hash, salted};
use super::keys::PrivateKey;
use super::misbehaviour::{Misbehaviour, Repetition};
use super::phone::{HardwareKey, Phone, message};
use super::{Client, ClientError, DeviceError};
use crate::wire::device::{
    BeginOperation, BegunOperation, FinishAuthentication, FinishedAuthentication, ListPending,
    Pending, PendingOperation, Shown, Signatures, StartAuthentication, StartedAuthentication,
};
use crate::wire::{Octets, Octets32};

/// How to answer.
#[derive(Clone)]
pub struct AuthenticationOptions {
    /// The operation; without one, the oldest that is pending.
    pub operation: Option<Id>,
    /// The method; without one, an offered one that this phone has a key for:
    /// that of the PIN if there is a PIN, else `DEVICE` first.
    pub method: Option<Method>,
    /// The PIN, for `DEVICE:PIN`.
    pub pin: Option<Zeroizing<String>>,
    /// What the user decides.
    pub decision: Decision,
    /// With no: why.
    pub reject_reason: Option<RejectReason>,
    /// With yes: the number that the user confirms.
    pub number: Option<u32>,
    /// Declares another client version than the phone's.
    pub client_version: Option<String>,
    /// Data for the service provider.
    pub client_data: Option<Vec<u8>>,
    /// Risk data.
    pub risk_data: Option<Vec<u8>>,
    /// What to do wrong.
    pub misbehaviour: Misbehaviour,
}

/// Approves the oldest pending operation, and behaves.
impl Default for AuthenticationOptions {
    fn default() -> Self {
        Self {
            operation: None,
            method: None,
            pin: None,
            decision: Decision::Approve,
            reject_reason: None,
            number: None,
            client_version: None,
            client_data: None,
            risk_data: None,
            misbehaviour: Misbehaviour::default(),
        }
    }
}

impl fmt::Debug for AuthenticationOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthenticationOptions")
            .field("operation", &self.operation)
            .field("method", &self.method)
            .field("decision", &self.decision)
            .field("misbehaviour", &self.misbehaviour)
            .finish_non_exhaustive()
    }
}

/// An operation that waits for this phone's answer.
#[derive(Debug, Clone)]
pub struct Answering {
    started: StartedAuthentication,
}

/// How the server judged an answer.
#[derive(Debug)]
pub struct Outcome {
    /// The operation.
    pub operation_id: Id,
    /// The method that answered.
    pub method: Method,
    /// The server's answer.
    pub finished: FinishedAuthentication,
    /// Its answer to the second request, if one was sent.
    pub repeated: Option<Result<FinishedAuthentication, ClientError>>,
}

/// Asks for the challenge of a pending operation.
///
/// # Errors
///
/// [`DeviceError::Client`]; [`DeviceError::OtherAnswer`] if the server names
/// another application or operation.
pub fn authenticate_start(
    client: &Client,
    phone: &Phone,
    options: &AuthenticationOptions,
) -> Result<Answering, DeviceError> {
    let body = StartAuthentication {
        registration_id: phone.registration_id,
        device_token: token(phone, &options.misbehaviour),
        operation_id: options.operation,
        client_version: version(phone, options)?.to_string(),
    };
    let started: StartedAuthentication = client.post("/device/v1/operations/start", &body, None)?;
    if started.application_id != phone.application_id {
        return Err(DeviceError::OtherAnswer("application"));
    }
    if options.operation.is_some_and(|operation| operation != started.operation_id) {
        return Err(DeviceError::OtherAnswer("operation"));
    }
    Ok(Answering { started })
}

/// Begins an authentication that nobody has asked for.
///
/// # Errors
///
/// [`DeviceError::Client`].
pub fn begin(
    client: &Client,
    phone: &Phone,
    level: Level,
    entropy: &dyn Entropy,
) -> Result<BegunOperation, DeviceError> {
    let body = BeginOperation {
        registration_id: phone.registration_id,
        device_token: token(phone, &Misbehaviour::default()),
        nonce: Octets32(random(entropy)),
        level,
        client_version: phone.client_version.to_string(),
    };
    Ok(client.post("/device/v1/operations/begin", &body, None)?)
}

/// What waits for this phone, oldest first; waits as many seconds for it if there
/// is nothing yet, at most 30.
///
/// # Errors
///
/// [`DeviceError::Client`].
pub fn pending(
    client: &Client,
    phone: &Phone,
    wait_s: u32,
) -> Result<Vec<PendingOperation>, DeviceError> {
    let body = ListPending {
        registration_id: phone.registration_id,
        device_token: token(phone, &Misbehaviour::default()),
        wait_s: Some(wait_s),
    };
    let pending: Pending = client.post("/device/v1/operations/pending", &body, None)?;
    Ok(pending.operations)
}

/// Asks for the challenge and answers it.
///
/// # Errors
///
/// As [`authenticate_start`] and [`Answering::finish`].
pub fn authenticate(
    client: &Client,
    phone: &Phone,
    options: &AuthenticationOptions,
    entropy: &dyn Entropy,
) -> Result<Outcome, DeviceError> {
    authenticate_start(client, phone, options)?.finish(client, phone, options, entropy)
}

impl Answering {
    /// What the server answered: what the user is to be shown, and how long.
    #[must_use]
    pub fn started(&self) -> &StartedAuthentication {
        &self.started
    }

    /// The request that answers, signed.
    ///
    /// # Errors
    ///
    /// [`DeviceError::NoKey`], [`DeviceError::NoMethod`] or
    /// [`DeviceError::PinMissing`]; [`DeviceError::NoHardwareKey`] if a missing
    /// key was to misbehave.
    pub fn answer(
        &self,
        phone: &Phone,
        options: &AuthenticationOptions,
        entropy: &dyn Entropy,
    ) -> Result<FinishAuthentication, DeviceError> {
        let method = self.method(phone, options)?;
        let client_data = salted(options.client_data.as_deref(), entropy);
        let risk_data = salted(options.risk_data.as_deref(), entropy);
        let claim = claim(phone, &options.misbehaviour)?;
        let version = version(phone, options)?.to_string();
        let declared = declared(&version, Some(claim), client_data.as_ref(), risk_data.as_ref());
        let signed = Signed::at_authentication(&self.facts(phone, options.said()), &declared)?;
        Ok(FinishAuthentication {
            registration_id: phone.registration_id,
            device_token: token(phone, &options.misbehaviour),
            challenge: self.started.challenge,
            method,
            decision: options.decision,
            reject_reason: options.reject_reason,
            number: options.number,
            client_version: version,
            hw_key_client_status: Some(claim),
            signatures: signatures(phone, method, options, &signed)?,
            client_data,
            risk_data,
        })
    }

    /// Signs the answer and sends it; twice, if that is the misbehaviour.
    ///
    /// # Errors
    ///
    /// As [`Answering::answer`], and [`DeviceError::Client`] for the first request.
    pub fn finish(
        &self,
        client: &Client,
        phone: &Phone,
        options: &AuthenticationOptions,
        entropy: &dyn Entropy,
    ) -> Result<Outcome, DeviceError> {
        let body = self.answer(phone, options, entropy)?;
        let second = match options.misbehaviour.repetition {
            None => None,
            Some(Repetition::Same) => Some(body.clone()),
            Some(Repetition::Changed) => {
                let decision = other(options.decision);
                let changed = AuthenticationOptions {
                    decision,
                    reject_reason: None,
                    number: None,
                    ..options.clone()
                };
                Some(self.answer(phone, &changed, entropy)?)
            }
        };
        let path = format!("/device/v1/operations/{}/finish", self.started.operation_id);
        Ok(Outcome {
            operation_id: self.started.operation_id,
            method: body.method,
            finished: client.post(&path, &body, None)?,
            repeated: second.map(|body| client.post(&path, &body, None)),
        })
    }

    fn facts(&self, phone: &Phone, said: Said) -> AuthenticationFacts {
        AuthenticationFacts {
            application: phone.application_id,
            registration: phone.registration_id,
            operation: self.started.operation_id,
            challenge: self.started.challenge.0,
            kind: self.started.kind,
            said,
            level: self.started.level,
            context_hash: self.started.context.as_ref().map_or(NO_CONTENT, shown_hash),
            data_to_sign_hash: hash(Content::DataToSign, self.started.data_to_sign.as_ref()),
        }
    }

    /// The method asked for, offered or not: the server is to judge. Else one
    /// that is offered, or DEVICE where that suffices to say no.
    fn method(
        &self,
        phone: &Phone,
        options: &AuthenticationOptions,
    ) -> Result<Method, DeviceError> {
        use Method::{Device, DeviceBiometric, DevicePin};
        if let Some(method) = options.method {
            return Ok(method);
        }
        let order = match options.pin {
            Some(_) => [DevicePin, Device, DeviceBiometric],
            None => [Device, DeviceBiometric, DevicePin],
        };
        let (offered, keys) = (&self.started.methods, phone.methods());
        let found = order.into_iter().find(|way| offered.contains(way) && keys.contains(way));
        match (found, options.decision) {
            (Some(method), _) => Ok(method),
            (None, Decision::Reject) => Ok(Device),
            (None, Decision::Approve) => Err(DeviceError::NoMethod),
        }
    }
}

/// The three signatures, as far as the phone makes them. Beside a PIN or
/// biometric method the DEVICE key always signs too: should the hardware key
/// fail, possession is still shown.
fn signatures(
    phone: &Phone,
    method: Method,
    options: &AuthenticationOptions,
    signed: &Signed,
) -> Result<Signatures, DeviceError> {
    let misbehaviour = &options.misbehaviour;
    let key = software_key(phone, method, options)?;
    let right = message(signed, Role::Software, method, &key)?;
    let software = match misbehaviour.software {
        None => key.sign(&right),
        Some(fault) => fault.distort(|message| key.sign(message), &right),
    };
    let possession = match method {
        Method::Device => None,
        Method::DevicePin | Method::DeviceBiometric => {
            let key = &phone.keys.device;
            Some(key.sign(&message(signed, Role::Possession, method, key)?))
        }
    };
    let hardware = match &phone.keys.hardware {
        HardwareKey::None(_) => None,
        HardwareKey::Key(key) => {
            let right = message(signed, Role::Hardware, method, key)?;
            match misbehaviour.hardware {
                None => Some(key.sign(&right)),
                Some(fault) => fault.distort(|message| key.sign(message), &right),
            }
        }
    };
    Ok(Signatures {
        software: Some(Octets(software)),
        possession: possession.map(Octets),
        hardware: hardware.map(Octets),
    })
}

fn software_key(
    phone: &Phone,
    method: Method,
    options: &AuthenticationOptions,
) -> Result<PrivateKey, DeviceError> {
    let none = DeviceError::NoKey(method);
    match method {
        Method::Device => Ok(phone.keys.device.clone()),
        Method::DeviceBiometric => phone.keys.biometric.clone().ok_or(none),
        Method::DevicePin => {
            let sealed = phone.keys.pin.as_ref().ok_or(none)?;
            let given = options.pin.as_ref().map(|pin| pin.as_str());
            if options.misbehaviour.wrong_pin {
                // No PIN may contain it, so no PIN is this one.
                return Ok(sealed.open(&Zeroizing::new(format!("{}?", given.unwrap_or("")))));
            }
            Ok(sealed.open(given.ok_or(DeviceError::PinMissing)?))
        }
    }
}

/// What is said of the hardware key.
fn claim(phone: &Phone, misbehaviour: &Misbehaviour) -> Result<HwKeyClientStatus, DeviceError> {
    match (&phone.keys.hardware, misbehaviour.hardware) {
        (HardwareKey::Key(_), None) => Ok(HwKeyClientStatus::Signed),
        (HardwareKey::Key(_), Some(fault)) => Ok(fault.claim()),
        (HardwareKey::None(why), None) => Ok(why.claim()),
        (HardwareKey::None(_), Some(_)) => Err(DeviceError::NoHardwareKey),
    }
}

fn token(phone: &Phone, misbehaviour: &Misbehaviour) -> Octets32 {
    let mut token = *phone.device_token.bytes();
    if misbehaviour.wrong_device_token {
        token[0] ^= 1;
    }
    Octets32(token)
}

fn version(phone: &Phone, options: &AuthenticationOptions) -> Result<ClientVersion, DeviceError> {
    match &options.client_version {
        None => Ok(phone.client_version.clone()),
        Some(text) => Ok(ClientVersion::parse(text)?),
    }
}

impl AuthenticationOptions {
    /// What the user says, as it is signed.
    #[must_use]
    pub fn said(&self) -> Said {
        Said { decision: self.decision, reason: self.reject_reason, number: self.number }
    }
}

/// The hash of what the user was shown, title and media type with it.
fn shown_hash(shown: &Shown) -> [u8; 32] {
    let framed = shown_octets(&shown.title, &shown.kind, &shown.octets.0);
    Content::Context.hash(&shown.salt.0, &framed)
}

fn other(decision: Decision) -> Decision {
    match decision {
        Decision::Approve => Decision::Reject,
        Decision::Reject => Decision::Approve,
    }
}

#[cfg(test)]
mod tests {
    use engine::events::DeclaredV1;
    use engine::ids::Micros;
    use engine::key::PublicKey;
    use engine::reasons::OperationKind;
    use engine::signature::Verdict;

    use super::*;
    use crate::device::misbehaviour::{HardwareFault, SoftwareFault};
    use crate::device::phone::NoHardwareKey;
    use crate::device::phone::tests::{Counting, phone};
    use crate::wire::Moment;
    use crate::wire::device::Salted;

    const OPERATION: Id = Id([8; 16]);

    fn answering(methods: &[Method]) -> Answering {
        let salted = |byte| Salted { salt: Octets32([byte; 32]), octets: Octets(vec![byte; 3]) };
        Answering {
            started: StartedAuthentication {
                operation_id: OPERATION,
                application_id: Id([1; 16]),
                challenge: Octets32([9; 32]),
                kind: OperationKind::Transaction,
                level: Level::TwoFactor,
                methods: methods.to_vec(),
                context: Some(Shown {
                    title: "Pay".to_owned(),
                    kind: "text/plain".to_owned(),
                    salt: Octets32([4; 32]),
                    octets: Octets(vec![4; 3]),
                }),
                confirmation: None,
                data_to_sign: Some(salted(5)),
                expires_at: Moment(Micros(0)),
                remaining_attempts: 3,
            },
        }
    }

    fn pin() -> AuthenticationOptions {
        AuthenticationOptions {
            pin: Some(Zeroizing::new("2580".to_owned())),
            ..AuthenticationOptions::default()
        }
    }

    fn misbehaving(misbehaviour: Misbehaviour) -> AuthenticationOptions {
        AuthenticationOptions { misbehaviour, ..pin() }
    }

    fn answer(phone: &Phone, options: &AuthenticationOptions) -> FinishAuthentication {
        answering(Method::ALL).answer(phone, options, &Counting::default()).unwrap()
    }

    /// What the server finds: the verdicts of software, possession and hardware
    /// signature, by the keys on file and the members of the request alone.
    fn verdicts(phone: &Phone, body: &FinishAuthentication) -> [Option<Verdict>; 3] {
        let content = |kind: Content, content: &Option<Salted>| {
            content.as_ref().map_or([0; 32], |c| kind.hash(&c.salt.0, &c.octets.0))
        };
        let facts = AuthenticationFacts {
            application: Id([1; 16]),
            registration: body.registration_id,
            operation: OPERATION,
            challenge: body.challenge.0,
            kind: OperationKind::Transaction,
            said: Said { decision: body.decision, reason: body.reject_reason, number: body.number },
            level: Level::TwoFactor,
            context_hash: Content::Context
                .hash(&[4; 32], b"\0\0\0\x03Pay\0\0\0\x0atext/plain\x04\x04\x04"),
            data_to_sign_hash: Content::DataToSign.hash(&[5; 32], &[5; 3]),
        };
        let declared = DeclaredV1 {
            client_version: body.client_version.clone(),
            hw_key_client_status: body.hw_key_client_status.unwrap(),
            channel_binding: [0; 32],
            client_data_hash: content(Content::ClientData, &body.client_data),
            risk_data_hash: content(Content::RiskData, &body.risk_data),
        };
        let signed = Signed::at_authentication(&facts, &declared).unwrap();
        let check = |role, key: &PublicKey, signature: &Option<Octets>| {
            let signature = signature.as_ref()?;
            Some(signed.check(role, body.method, key, &signature.0).verdict)
        };
        let device = phone.keys.device.public().unwrap();
        let on_file = match body.method {
            Method::Device => device,
            Method::DevicePin => phone.keys.pin.as_ref().unwrap().open("2580").public().unwrap(),
            Method::DeviceBiometric => phone.keys.biometric.as_ref().unwrap().public().unwrap(),
        };
        let hardware = match &phone.keys.hardware {
            HardwareKey::Key(key) => {
                check(Role::Hardware, &key.public().unwrap(), &body.signatures.hardware)
            }
            HardwareKey::None(_) => None,
        };
        [
            check(Role::Software, &on_file, &body.signatures.software),
            check(Role::Possession, &device, &body.signatures.possession),
            hardware,
        ]
    }

    const VALID: Option<Verdict> = Some(Verdict::Valid);
    const INVALID: Option<Verdict> = Some(Verdict::Invalid);
    const MALFORMED: Option<Verdict> = Some(Verdict::Malformed);

    #[test]
    fn every_method_and_decision_verifies_at_the_servers_verifier() {
        let phone = phone("http://127.0.0.1:1");
        for &decision in Decision::ALL {
            for &method in Method::ALL {
                let mut options = AuthenticationOptions { decision, ..pin() };
                options.method = Some(method);
                options.client_data = Some(b"for the bank".to_vec());
                options.risk_data = Some(Vec::new());
                let body = answer(&phone, &options);
                let possession = if method == Method::Device { None } else { VALID };
                assert_eq!(verdicts(&phone, &body), [VALID, possession, VALID], "{method}");
                assert_eq!(body.decision, decision);
            }
        }
    }

    #[test]
    fn what_the_user_was_shown_is_part_of_what_is_signed() {
        let phone = phone("http://127.0.0.1:1");
        let changes: [fn(&mut Shown); 3] = [
            |shown| shown.octets.0[0] ^= 1,
            |shown| shown.kind = "text/html".to_owned(),
            |shown| shown.title = "Receive".to_owned(),
        ];
        for change in changes {
            let mut answering = answering(Method::ALL);
            change(answering.started.context.as_mut().unwrap());
            let body = answering.answer(&phone, &pin(), &Counting::default()).unwrap();
            assert_eq!(verdicts(&phone, &body), [INVALID, INVALID, INVALID]);
        }
    }

    #[test]
    fn a_wrong_pin_spoils_the_software_signature_and_nothing_else() {
        let phone = phone("http://127.0.0.1:1");
        let typed = AuthenticationOptions {
            pin: Some(Zeroizing::new("2581".to_owned())),
            ..AuthenticationOptions::default()
        };
        let made = misbehaving(Misbehaviour { wrong_pin: true, ..Misbehaviour::default() });
        let without =
            AuthenticationOptions { method: Some(Method::DevicePin), pin: None, ..made.clone() };
        for options in [typed, made, without] {
            let body = answer(&phone, &options);
            assert_eq!(body.method, Method::DevicePin);
            assert_eq!(verdicts(&phone, &body), [INVALID, VALID, VALID]);
        }
    }

    #[test]
    fn each_fault_changes_its_signature_and_claim_and_nothing_else() {
        use HwKeyClientStatus::{KeyLost, KeyUnavailable, Signed, SigningFailed};
        let phone = phone("http://127.0.0.1:1");
        let right = answer(&phone, &pin());
        let hardware = |fault| Misbehaviour { hardware: Some(fault), ..Misbehaviour::default() };
        let software = |fault| Misbehaviour { software: Some(fault), ..Misbehaviour::default() };
        for (misbehaviour, found, claim) in [
            (Misbehaviour::default(), [VALID, VALID, VALID], Signed),
            (software(SoftwareFault::BadSignature), [INVALID, VALID, VALID], Signed),
            (software(SoftwareFault::Malformed), [MALFORMED, VALID, VALID], Signed),
            (hardware(HardwareFault::BadSignature), [VALID, VALID, INVALID], Signed),
            (hardware(HardwareFault::Malformed), [VALID, VALID, MALFORMED], Signed),
            (hardware(HardwareFault::NoSignature), [VALID, VALID, None], Signed),
            (hardware(HardwareFault::KeyLost), [VALID, VALID, None], KeyLost),
            (hardware(HardwareFault::KeyUnavailable), [VALID, VALID, None], KeyUnavailable),
            (hardware(HardwareFault::SigningFailed), [VALID, VALID, None], SigningFailed),
        ] {
            let body = answer(&phone, &misbehaving(misbehaviour.clone()));
            assert_eq!(verdicts(&phone, &body), found, "{misbehaviour:?}");
            assert_eq!(body.hw_key_client_status, Some(claim), "{misbehaviour:?}");
            // Beside signatures and claim, the request is the right one.
            let rest = |body: &FinishAuthentication| {
                let rest = FinishAuthentication {
                    signatures: Signatures::default(),
                    hw_key_client_status: None,
                    ..body.clone()
                };
                serde_json::to_string(&rest).unwrap()
            };
            assert_eq!(rest(&body), rest(&right), "{misbehaviour:?}");
        }
    }

    #[test]
    fn a_wrong_token_and_an_old_version_are_the_only_things_wrong() {
        let phone = phone("http://127.0.0.1:1");
        let wrong = Misbehaviour { wrong_device_token: true, ..Misbehaviour::default() };
        let body = answer(&phone, &misbehaving(wrong));
        assert_ne!(body.device_token.0, *phone.device_token.bytes());
        assert_eq!(verdicts(&phone, &body), [VALID, VALID, VALID]);
        let options = AuthenticationOptions { client_version: Some("3.7".to_owned()), ..pin() };
        let body = answer(&phone, &options);
        assert_eq!(body.client_version, "3.7");
        assert_eq!(body.device_token.0, *phone.device_token.bytes());
        assert_eq!(verdicts(&phone, &body), [VALID, VALID, VALID]);
        let options = AuthenticationOptions { client_version: Some("3,7".to_owned()), ..pin() };
        let answer = answering(Method::ALL).answer(&phone, &options, &Counting::default());
        assert!(matches!(answer, Err(DeviceError::Version(_))));
    }

    #[test]
    fn without_a_hardware_key_the_phone_says_why_and_none_can_misbehave() {
        let mut phone = phone("http://127.0.0.1:1");
        for (why, claim) in [
            (NoHardwareKey::Unsupported, HwKeyClientStatus::NotSupported),
            (NoHardwareKey::NotActivated, HwKeyClientStatus::NotActivated),
        ] {
            phone.keys.hardware = HardwareKey::None(why);
            let body = answer(&phone, &pin());
            assert_eq!(body.hw_key_client_status, Some(claim));
            assert_eq!(verdicts(&phone, &body), [VALID, VALID, None]);
        }
        let lost = Misbehaviour { hardware: Some(HardwareFault::KeyLost), ..Default::default() };
        let options = misbehaving(lost);
        let answer = answering(Method::ALL).answer(&phone, &options, &Counting::default());
        assert!(matches!(answer, Err(DeviceError::NoHardwareKey)));
    }

    #[test]
    fn without_a_method_asked_for_one_that_can_answer_is_taken() {
        use Method::{Device, DeviceBiometric, DevicePin};
        let mut phone = phone("http://127.0.0.1:1");
        let take = |phone: &Phone, methods: &[Method], options: &AuthenticationOptions| {
            answering(methods).answer(phone, options, &Counting::default()).map(|body| body.method)
        };
        let plain = AuthenticationOptions::default();
        assert_eq!(take(&phone, Method::ALL, &plain).unwrap(), Device);
        assert_eq!(take(&phone, Method::ALL, &pin()).unwrap(), DevicePin);
        assert_eq!(take(&phone, &[DevicePin, DeviceBiometric], &plain).unwrap(), DeviceBiometric);
        let missing = take(&phone, &[DevicePin], &plain);
        assert!(matches!(missing, Err(DeviceError::PinMissing)));
        phone.keys.biometric = None;
        let none = take(&phone, &[DeviceBiometric], &plain);
        assert!(matches!(none, Err(DeviceError::NoMethod)));
        let no = AuthenticationOptions { decision: Decision::Reject, ..plain.clone() };
        assert_eq!(take(&phone, &[DeviceBiometric], &no).unwrap(), Device);
        let asked = AuthenticationOptions { method: Some(DeviceBiometric), ..plain };
        let keyless = take(&phone, Method::ALL, &asked);
        assert!(matches!(keyless, Err(DeviceError::NoKey(DeviceBiometric))));
    }

    #[test]
    fn debug_shows_no_pin() {
        assert!(!format!("{:?}", pin()).contains("2580"));
    }
}
