//! Putting keys into a registration, a new one or this phone's own.

use std::fmt;

use engine::events::{DeclaredV1, KeySetV1, MethodKeyV1};
use engine::ids::Id;
use engine::machine::{Entropy, random};
use engine::proofs::{ActivationFacts, Signed};
use engine::reasons::PinType;
use engine::terms::{HwKeyClientStatus, Method, Role};
use engine::transcript::{Content, Hash, device_token_hash};
use engine::version::ClientVersion;
use zeroize::Zeroizing;

use super::attestation::Evidence;
use super::keys::{PrivateKey, SealedKey, Secret32};
use super::misbehaviour::HardwareFault;
use super::phone::{Format, HardwareKey, Keys, NoHardwareKey, Phone, message};
use super::{CLIENT_VERSION, Client, DeviceError};
use crate::wire::device::{
    FinishActivation, FinishedActivation, PinPolicy, PreviousSignatures, Salted, SoftwareKey,
    StartActivation, StartedActivation,
};
use crate::wire::{Octets, Octets32, QrPayload, device};

/// What redeems an activation, with the nonce that makes a repeat the same request.
#[derive(Clone)]
pub struct Redemption {
    application: Id,
    secret: CodeOrQr,
    nonce: [u8; 32],
    client_version: ClientVersion,
}

/// What was typed, or what was scanned.
#[derive(Clone)]
enum CodeOrQr {
    Code(Zeroizing<String>),
    Qr(Zeroizing<[u8; 16]>),
}

/// A redeemed activation, to be finished.
#[derive(Debug, Clone)]
pub struct Activating {
    application: Id,
    client_version: ClientVersion,
    started: StartedActivation,
}

/// Keys that were made for an activation, and the request that offers them.
#[derive(Debug, Clone)]
pub struct Offer {
    phone: Phone,
    activation: Id,
    body: FinishActivation,
}

/// What the phone's secure hardware does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Hardware {
    /// It makes a key.
    #[default]
    Working,
    /// There is none; the claim is `NOT_SUPPORTED`.
    Unsupported,
    /// It makes no key; the claim is `KEY_GENERATION_FAILED`.
    GenerationFailed,
}

/// What to activate.
#[derive(Clone, Default)]
pub struct ActivationOptions {
    /// A PIN adds `DEVICE:PIN`.
    pub pin: Option<Zeroizing<String>>,
    /// Adds `DEVICE:BIOMETRIC`.
    pub biometric: bool,
    /// What the secure hardware does.
    pub hardware: Hardware,
    /// What goes wrong with the hardware key's signature.
    pub hardware_fault: Option<HardwareFault>,
    /// Data for the service provider.
    pub client_data: Option<Vec<u8>>,
    /// Risk data.
    pub risk_data: Option<Vec<u8>>,
    /// Evidence that the hardware key is in hardware.
    pub evidence: Evidence,
}

impl Redemption {
    /// By the code that the user typed.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Version`] if `client_version` is none; without one it is
    /// [`CLIENT_VERSION`].
    pub fn by_code(
        application: Id,
        code: &str,
        client_version: Option<&str>,
        entropy: &dyn Entropy,
    ) -> Result<Self, DeviceError> {
        let secret = CodeOrQr::Code(Zeroizing::new(code.to_owned()));
        Self::new(application, secret, client_version, entropy)
    }

    /// By the payload that the phone scanned.
    ///
    /// # Errors
    ///
    /// As [`Redemption::by_code`].
    pub fn by_qr(
        payload: &QrPayload,
        client_version: Option<&str>,
        entropy: &dyn Entropy,
    ) -> Result<Self, DeviceError> {
        let secret = CodeOrQr::Qr(Zeroizing::new(payload.secret));
        Self::new(payload.application, secret, client_version, entropy)
    }

    fn new(
        application: Id,
        secret: CodeOrQr,
        client_version: Option<&str>,
        entropy: &dyn Entropy,
    ) -> Result<Self, DeviceError> {
        let client_version = ClientVersion::parse(client_version.unwrap_or(CLIENT_VERSION))?;
        Ok(Self { application, secret, nonce: random(entropy), client_version })
    }

    /// Redeems. Once more, it gets the same answer: a lost one loses nothing.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Client`].
    pub fn start(&self, client: &Client) -> Result<Activating, DeviceError> {
        let (code, qr_secret) = match &self.secret {
            CodeOrQr::Code(code) => (Some(code.to_string()), None),
            CodeOrQr::Qr(secret) => (None, Some(Octets(secret.to_vec()))),
        };
        let body = StartActivation {
            application_id: self.application,
            code,
            qr_secret,
            nonce: Octets32(self.nonce),
            client_version: self.client_version.to_string(),
        };
        let started = client.post("/device/v1/activations/start", &body, None)?;
        Ok(Activating {
            application: self.application,
            client_version: self.client_version.clone(),
            started,
        })
    }
}

impl fmt::Debug for Redemption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redemption").field("application", &self.application).finish_non_exhaustive()
    }
}

impl fmt::Debug for ActivationOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ActivationOptions")
            .field("methods", &self.methods())
            .field("hardware", &self.hardware)
            .field("hardware_fault", &self.hardware_fault)
            .finish_non_exhaustive()
    }
}

impl ActivationOptions {
    fn methods(&self) -> Vec<Method> {
        let wanted = |method: &Method| match method {
            Method::Device => true,
            Method::DevicePin => self.pin.is_some(),
            Method::DeviceBiometric => self.biometric,
        };
        Method::ALL.iter().copied().filter(wanted).collect()
    }
}

impl Activating {
    /// What the server answered.
    #[must_use]
    pub fn started(&self) -> &StartedActivation {
        &self.started
    }

    /// Makes keys and the request that offers them. `previous` is this phone as
    /// it is now, whose keys then sign for the new ones.
    ///
    /// # Errors
    ///
    /// [`DeviceError::NotOffered`], [`DeviceError::PinRefused`] or
    /// [`DeviceError::OtherRegistration`]; nothing was sent then.
    pub fn offer(
        &self,
        server: &str,
        options: &ActivationOptions,
        previous: Option<&Phone>,
        entropy: &dyn Entropy,
    ) -> Result<Offer, DeviceError> {
        self.check(options, previous)?;
        let fresh = Fresh::generate(options, self.started.expects_hardware_key, entropy)?;
        let body = self.body(&fresh, options, previous, entropy)?;
        let phone = fresh.into_phone(self, server, options, entropy);
        Ok(Offer { phone, activation: self.started.activation_id, body })
    }

    fn check(
        &self,
        options: &ActivationOptions,
        previous: Option<&Phone>,
    ) -> Result<(), DeviceError> {
        if previous.is_some_and(|phone| phone.registration_id != self.started.registration_id) {
            return Err(DeviceError::OtherRegistration);
        }
        let offered = |method: &Method| self.started.methods.contains(method);
        if let Some(method) = options.methods().into_iter().find(|method| !offered(method)) {
            return Err(DeviceError::NotOffered(method));
        }
        options.pin.as_ref().map_or(Ok(()), |pin| check_pin(pin, &self.started.pin_policy))
    }

    fn body(
        &self,
        fresh: &Fresh,
        options: &ActivationOptions,
        previous: Option<&Phone>,
        entropy: &dyn Entropy,
    ) -> Result<FinishActivation, DeviceError> {
        let client_data = salted(options.client_data.as_deref(), entropy);
        let risk_data = salted(options.risk_data.as_deref(), entropy);
        let claim = fresh.claim(options);
        let version = self.client_version.to_string();
        let declared = declared(&version, claim, client_data.as_ref(), risk_data.as_ref());
        let hardware = fresh.hardware.as_ref().map(PrivateKey::public).transpose()?;
        let challenge = &self.started.challenge.0;
        let attestation = options.evidence.about(hardware.as_ref(), challenge, entropy)?;
        let signed = self.signed(fresh, &declared, attestation_hash(attestation.as_ref()))?;
        Ok(FinishActivation {
            challenge: self.started.challenge,
            client_version: version,
            hw_key_client_status: claim,
            software_keys: fresh.offer_software(&signed)?,
            hardware_key: fresh.offer_hardware(&signed, options.hardware_fault)?,
            previous: previous
                .map_or(Ok(PreviousSignatures::default()), |old| vouch(old, &signed))?,
            device_token: Octets32(*fresh.token.bytes()),
            client_data,
            risk_data,
            attestation,
        })
    }

    fn signed(
        &self,
        fresh: &Fresh,
        declared: &DeclaredV1,
        attestation_hash: Hash,
    ) -> Result<Signed, DeviceError> {
        let facts = ActivationFacts {
            application: self.application,
            registration: self.started.registration_id,
            activation: self.started.activation_id,
            challenge: self.started.challenge.0,
            keys: &fresh.key_set()?,
            device_token_hash: device_token_hash(fresh.token.bytes()),
            attestation_hash,
        };
        Ok(Signed::at_activation(&facts, declared)?)
    }
}

/// The hash of the evidence that is sent along.
fn attestation_hash(sent: Option<&device::AttestationEvidence>) -> Hash {
    Content::Attestation.hash_or_none(sent.map(|sent| (&sent.salt.0, sent.octets.0.as_slice())))
}

impl Offer {
    /// The phone as it is if the server takes the keys, all of them.
    #[must_use]
    pub fn phone(&self) -> &Phone {
        &self.phone
    }

    /// The request.
    #[must_use]
    pub fn body(&self) -> &FinishActivation {
        &self.body
    }

    /// Sends it. Once more, it gets the same answer. The phone is there only if
    /// the keys were taken; without its hardware key if that was not stored.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Client`], [`DeviceError::OtherAnswer`].
    pub fn finish(
        &self,
        client: &Client,
    ) -> Result<(Option<Phone>, FinishedActivation), DeviceError> {
        let path = format!("/device/v1/activations/{}/finish", self.activation);
        let finished: FinishedActivation = client.post(&path, &self.body, None)?;
        if finished.registration_id != self.phone.registration_id {
            return Err(DeviceError::OtherAnswer("registration"));
        }
        if !finished.accepted {
            return Ok((None, finished));
        }
        let mut phone = self.phone.clone();
        if !finished.hardware_key_stored && matches!(phone.keys.hardware, HardwareKey::Key(_)) {
            phone.keys.hardware = HardwareKey::None(NoHardwareKey::NotActivated);
        }
        Ok((Some(phone), finished))
    }
}

/// Redeems and finishes. `previous` is this phone as it is now, at a re-activation.
///
/// # Errors
///
/// As [`Redemption::start`], [`Activating::offer`] and [`Offer::finish`].
pub fn activate(
    client: &Client,
    redemption: &Redemption,
    options: &ActivationOptions,
    previous: Option<&Phone>,
    entropy: &dyn Entropy,
) -> Result<(Option<Phone>, FinishedActivation), DeviceError> {
    redemption.start(client)?.offer(client.server(), options, previous, entropy)?.finish(client)
}

/// Keys that nobody knows yet, that of the PIN not yet sealed.
struct Fresh {
    token: Secret32,
    software: Vec<(Method, PrivateKey)>,
    hardware: Option<PrivateKey>,
    expected: bool,
}

impl Fresh {
    fn generate(
        options: &ActivationOptions,
        expected: bool,
        entropy: &dyn Entropy,
    ) -> Result<Self, DeviceError> {
        let software = options
            .methods()
            .into_iter()
            .map(|method| Ok((method, PrivateKey::generate(entropy)?)))
            .collect::<Result<_, DeviceError>>()?;
        let makes_key = expected && options.hardware == Hardware::Working;
        let hardware = makes_key.then(|| PrivateKey::generate(entropy)).transpose()?;
        Ok(Self { token: Secret32::new(random(entropy)), software, hardware, expected })
    }

    /// What is said of the hardware key. Where the server expects none, because
    /// the client is too old, a client that old says nothing.
    fn claim(&self, options: &ActivationOptions) -> Option<HwKeyClientStatus> {
        match options.hardware {
            Hardware::Unsupported => Some(HwKeyClientStatus::NotSupported),
            Hardware::Working | Hardware::GenerationFailed if !self.expected => None,
            Hardware::GenerationFailed => Some(HwKeyClientStatus::KeyGenerationFailed),
            Hardware::Working => {
                Some(options.hardware_fault.map_or(HwKeyClientStatus::Signed, HardwareFault::claim))
            }
        }
    }

    fn key_set(&self) -> Result<KeySetV1, DeviceError> {
        let slot = |(method, key): &(Method, PrivateKey)| {
            Ok(MethodKeyV1 { method: *method, key: key.public()?.to_stored() })
        };
        let hardware = self.hardware.as_ref().map(PrivateKey::public).transpose()?;
        Ok(KeySetV1 {
            software: self.software.iter().map(slot).collect::<Result<_, DeviceError>>()?,
            hardware: hardware.map(|key| key.to_stored()),
        })
    }

    fn offer_software(&self, signed: &Signed) -> Result<Vec<SoftwareKey>, DeviceError> {
        let offer = |(method, key): &(Method, PrivateKey)| {
            let signature = key.sign(&message(signed, Role::Software, *method, key)?);
            Ok(SoftwareKey {
                method: *method,
                public_key: Octets(key.public()?.spki_der().to_vec()),
                signature: Some(Octets(signature)),
            })
        };
        self.software.iter().map(offer).collect()
    }

    fn offer_hardware(
        &self,
        signed: &Signed,
        fault: Option<HardwareFault>,
    ) -> Result<Option<device::HardwareKey>, DeviceError> {
        let Some(key) = &self.hardware else { return Ok(None) };
        let message = message(signed, Role::Hardware, Method::Device, key)?;
        let signature = match fault {
            None => Some(key.sign(&message)),
            Some(fault) => fault.distort(|message| key.sign(message), &message),
        };
        Ok(Some(device::HardwareKey {
            // As the Secure Enclave gives it, so that both forms are in use.
            public_key: Octets(key.public()?.sec1().to_vec()),
            signature: signature.map(Octets),
        }))
    }

    fn into_phone(
        self,
        activating: &Activating,
        server: &str,
        options: &ActivationOptions,
        entropy: &dyn Entropy,
    ) -> Phone {
        let why = match options.hardware {
            Hardware::Unsupported => NoHardwareKey::Unsupported,
            Hardware::Working | Hardware::GenerationFailed => NoHardwareKey::NotActivated,
        };
        let of = |wanted| {
            self.software.iter().find(|(method, _)| *method == wanted).map(|(_, key)| key.clone())
        };
        let pin = of(Method::DevicePin)
            .zip(options.pin.as_ref())
            .map(|(key, pin)| SealedKey::seal(&key, pin, entropy));
        Phone {
            format: Format::V1,
            server: server.to_owned(),
            application_id: activating.application,
            registration_id: activating.started.registration_id,
            client_version: activating.client_version.clone(),
            device_token: self.token,
            keys: Keys {
                // DEVICE is always activated, and first of the methods.
                device: self.software[0].1.clone(),
                pin,
                biometric: of(Method::DeviceBiometric),
                hardware: self.hardware.map_or(HardwareKey::None(why), HardwareKey::Key),
            },
        }
    }
}

/// The signatures by the keys on file that let new ones take their place.
fn vouch(old: &Phone, signed: &Signed) -> Result<PreviousSignatures, DeviceError> {
    let by = |key: &PrivateKey| {
        Ok::<_, DeviceError>(Octets(key.sign(&message(
            signed,
            Role::Previous,
            Method::Device,
            key,
        )?)))
    };
    let hardware = match &old.keys.hardware {
        HardwareKey::Key(key) => Some(by(key)?),
        HardwareKey::None(_) => None,
    };
    Ok(PreviousSignatures { device: Some(by(&old.keys.device)?), hardware })
}

/// What the transcripts say of the device, from what it is about to send.
pub(super) fn declared(
    client_version: &str,
    claim: Option<HwKeyClientStatus>,
    client_data: Option<&Salted>,
    risk_data: Option<&Salted>,
) -> DeclaredV1 {
    DeclaredV1 {
        client_version: client_version.to_owned(),
        hw_key_client_status: claim.unwrap_or(HwKeyClientStatus::NotReported),
        channel_binding: [0; 32],
        client_data_hash: hash(Content::ClientData, client_data),
        risk_data_hash: hash(Content::RiskData, risk_data),
    }
}

/// The hash under which a content is signed.
pub(super) fn hash(kind: Content, content: Option<&Salted>) -> [u8; 32] {
    kind.hash_or_none(content.map(|content| (&content.salt.0, content.octets.0.as_slice())))
}

/// Octets with a fresh salt.
pub(super) fn salted(octets: Option<&[u8]>, entropy: &dyn Entropy) -> Option<Salted> {
    octets.map(|octets| Salted { salt: Octets32(random(entropy)), octets: Octets(octets.to_vec()) })
}

fn check_pin(pin: &str, policy: &PinPolicy) -> Result<(), DeviceError> {
    let (symbols, belongs): (_, fn(char) -> bool) = match policy.kind {
        PinType::Numeric => ("digits", |symbol| symbol.is_ascii_digit()),
        PinType::Alphanumeric => {
            ("ASCII letters and digits", |symbol| symbol.is_ascii_alphanumeric())
        }
    };
    let (min, max) = (policy.length_min, policy.length_max);
    let length = u32::try_from(pin.chars().count()).unwrap_or(u32::MAX);
    if (min..=max).contains(&length) && pin.chars().all(belongs) {
        Ok(())
    } else {
        Err(DeviceError::PinRefused { min, max, symbols })
    }
}

#[cfg(test)]
mod tests {
    use engine::ids::Micros;
    use engine::key::PublicKey;
    use engine::signature::Verdict;

    use engine::transcript::NO_CONTENT;

    use super::*;
    use crate::device::phone::tests::{Counting, phone};
    use crate::wire::Moment;

    const SERVER: &str = "http://127.0.0.1:1";

    fn activating() -> Activating {
        Activating {
            application: Id([1; 16]),
            client_version: ClientVersion::parse("3.8").unwrap(),
            started: StartedActivation {
                activation_id: Id([7; 16]),
                registration_id: Id([2; 16]),
                challenge: Octets32([9; 32]),
                expires_at: Moment(Micros(0)),
                again: false,
                methods: Method::ALL.to_vec(),
                pin_policy: PinPolicy { length_min: 4, length_max: 6, kind: PinType::Numeric },
                expects_hardware_key: true,
                risk_attributes: Vec::new(),
            },
        }
    }

    fn all_methods() -> ActivationOptions {
        ActivationOptions {
            pin: Some(Zeroizing::new("2580".to_owned())),
            biometric: true,
            ..ActivationOptions::default()
        }
    }

    fn offer(options: &ActivationOptions, previous: Option<&Phone>) -> FinishActivation {
        let offer = activating().offer(SERVER, options, previous, &Counting::default());
        offer.unwrap().body().clone()
    }

    fn key(octets: &Octets) -> PublicKey {
        PublicKey::from_bytes(&octets.0).unwrap()
    }

    /// What the server makes of a request: from its members alone.
    fn signed(body: &FinishActivation) -> Signed {
        let software = body.software_keys.iter().map(|slot| MethodKeyV1 {
            method: slot.method,
            key: key(&slot.public_key).to_stored(),
        });
        let hardware = body.hardware_key.as_ref().map(|slot| key(&slot.public_key).to_stored());
        let keys = KeySetV1 { software: software.collect(), hardware };
        let facts = ActivationFacts {
            application: Id([1; 16]),
            registration: Id([2; 16]),
            activation: Id([7; 16]),
            challenge: body.challenge.0,
            keys: &keys,
            device_token_hash: device_token_hash(&body.device_token.0),
            attestation_hash: attestation_hash(body.attestation.as_ref()),
        };
        let of = |kind: Content, content: &Option<Salted>| {
            content.as_ref().map_or(NO_CONTENT, |c| kind.hash(&c.salt.0, &c.octets.0))
        };
        let declared = DeclaredV1 {
            client_version: body.client_version.clone(),
            hw_key_client_status: body
                .hw_key_client_status
                .unwrap_or(HwKeyClientStatus::NotReported),
            channel_binding: [0; 32],
            client_data_hash: of(Content::ClientData, &body.client_data),
            risk_data_hash: of(Content::RiskData, &body.risk_data),
        };
        Signed::at_activation(&facts, &declared).unwrap()
    }

    fn hardware_verdict(body: &FinishActivation) -> Option<Verdict> {
        let slot = body.hardware_key.as_ref().unwrap();
        let signature = slot.signature.as_ref()?;
        let key = key(&slot.public_key);
        Some(signed(body).check(Role::Hardware, Method::Device, &key, &signature.0).verdict)
    }

    fn all_software_is_proven(body: &FinishActivation) -> bool {
        let signed = signed(body);
        body.software_keys.iter().all(|slot| {
            let signature = slot.signature.as_ref().unwrap();
            let key = key(&slot.public_key);
            let found = signed.check(Role::Software, slot.method, &key, &signature.0);
            found.verdict == Verdict::Valid
        })
    }

    #[test]
    fn every_key_is_proven_to_the_servers_verifier() {
        let mut options = all_methods();
        options.client_data = Some(b"for the bank".to_vec());
        options.risk_data = Some(Vec::new());
        let body = offer(&options, None);
        assert_eq!(body.software_keys.len(), 3);
        assert!(all_software_is_proven(&body));
        assert_eq!(hardware_verdict(&body), Some(Verdict::Valid));
        assert_eq!(body.hw_key_client_status, Some(HwKeyClientStatus::Signed));
        assert!(body.previous.device.is_none() && body.previous.hardware.is_none());
        let (one, two) = (body.client_data.clone().unwrap(), body.risk_data.clone().unwrap());
        assert_ne!(one.salt, two.salt);
    }

    #[test]
    fn the_phone_that_comes_of_it_holds_the_keys_that_were_offered() {
        let offer = activating().offer(SERVER, &all_methods(), None, &Counting::default()).unwrap();
        let (phone, body) = (offer.phone(), offer.body());
        assert_eq!(phone.server(), SERVER);
        assert_eq!(phone.methods(), Method::ALL);
        let id = |at: usize| key(&body.software_keys[at].public_key).id();
        assert_eq!(phone.key_id(Method::Device).unwrap(), Some(id(0)));
        assert_eq!(phone.key_id(Method::DeviceBiometric).unwrap(), Some(id(2)));
        let hardware = key(&body.hardware_key.as_ref().unwrap().public_key).id();
        assert_eq!(phone.hardware_key_id().unwrap(), Ok(hardware));
        let opened = |pin| phone.keys.pin.as_ref().unwrap().open(pin).public().unwrap().id();
        assert_eq!(opened("2580"), id(1));
        assert_ne!(opened("2581"), id(1));
        assert_eq!(*phone.device_token.bytes(), body.device_token.0);
    }

    #[test]
    fn each_hardware_fault_changes_the_hardware_signature_and_the_claim_alone() {
        let right = offer(&all_methods(), None);
        for (fault, verdict, claim) in [
            (HardwareFault::BadSignature, Some(Verdict::Invalid), HwKeyClientStatus::Signed),
            (HardwareFault::Malformed, Some(Verdict::Malformed), HwKeyClientStatus::Signed),
            (HardwareFault::NoSignature, None, HwKeyClientStatus::Signed),
            (HardwareFault::KeyLost, None, HwKeyClientStatus::KeyLost),
            (HardwareFault::KeyUnavailable, None, HwKeyClientStatus::KeyUnavailable),
            (HardwareFault::SigningFailed, None, HwKeyClientStatus::SigningFailed),
        ] {
            let options = ActivationOptions { hardware_fault: Some(fault), ..all_methods() };
            let body = offer(&options, None);
            assert_eq!(hardware_verdict(&body), verdict, "{fault:?}");
            assert_eq!(body.hw_key_client_status, Some(claim), "{fault:?}");
            assert!(all_software_is_proven(&body), "{fault:?}");
            let public = |body: &FinishActivation| body.hardware_key.clone().unwrap().public_key;
            assert_eq!(public(&body), public(&right), "{fault:?}");
        }
    }

    #[test]
    fn without_secure_hardware_or_where_no_key_is_expected_none_is_offered() {
        let mut old = activating();
        old.started.expects_hardware_key = false;
        let claims = |activating: &Activating, hardware| {
            let options = ActivationOptions { hardware, ..ActivationOptions::default() };
            let offer = activating.offer(SERVER, &options, None, &Counting::default()).unwrap();
            assert!(offer.body().hardware_key.is_none());
            assert!(all_software_is_proven(offer.body()));
            let why = offer.phone().hardware_key_id().unwrap().unwrap_err();
            (offer.body().hw_key_client_status, why)
        };
        let (unsupported, none) = (NoHardwareKey::Unsupported, NoHardwareKey::NotActivated);
        let not_supported = Some(HwKeyClientStatus::NotSupported);
        let failed = Some(HwKeyClientStatus::KeyGenerationFailed);
        assert_eq!(claims(&activating(), Hardware::Unsupported), (not_supported, unsupported));
        assert_eq!(claims(&activating(), Hardware::GenerationFailed), (failed, none));
        assert_eq!(claims(&old, Hardware::Working), (None, none));
        assert_eq!(claims(&old, Hardware::Unsupported), (not_supported, unsupported));
    }

    #[test]
    fn at_a_reactivation_both_keys_on_file_sign_for_the_new_ones() {
        let old = phone(SERVER);
        let body = offer(&ActivationOptions::default(), Some(&old));
        let signed = signed(&body);
        let HardwareKey::Key(hardware) = &old.keys.hardware else { panic!("it has one") };
        for (key, signature) in [
            (&old.keys.device, body.previous.device.unwrap()),
            (hardware, body.previous.hardware.unwrap()),
        ] {
            let key = key.public().unwrap();
            let found = signed.check(Role::Previous, Method::Device, &key, &signature.0);
            assert_eq!(found.verdict, Verdict::Valid);
        }
    }

    #[test]
    fn keys_of_another_registration_are_not_replaced() {
        let mut activating = activating();
        activating.started.registration_id = Id([3; 16]);
        let old = phone(SERVER);
        let options = ActivationOptions::default();
        let offer = activating.offer(SERVER, &options, Some(&old), &Counting::default());
        assert!(matches!(offer, Err(DeviceError::OtherRegistration)));
    }

    #[test]
    fn a_method_that_is_not_offered_is_not_activated() {
        let mut activating = activating();
        activating.started.methods = vec![Method::Device, Method::DevicePin];
        let offer = activating.offer(SERVER, &all_methods(), None, &Counting::default());
        assert!(matches!(offer, Err(DeviceError::NotOffered(Method::DeviceBiometric))));
    }

    #[test]
    fn the_pin_policy_is_kept_at_both_ends() {
        let numeric = PinPolicy { length_min: 4, length_max: 6, kind: PinType::Numeric };
        let letters = PinPolicy { kind: PinType::Alphanumeric, ..numeric.clone() };
        for (pin, digits, either) in [
            ("258", false, false),
            ("2580", true, true),
            ("258025", true, true),
            ("2580258", false, false),
            ("25a0", false, true),
            ("25 0", false, false),
            ("٢٥٨٠", false, false),
            ("", false, false),
        ] {
            assert_eq!(check_pin(pin, &numeric).is_ok(), digits, "{pin}");
            assert_eq!(check_pin(pin, &letters).is_ok(), either, "{pin}");
        }
        let said = check_pin("1", &numeric).unwrap_err().to_string();
        assert_eq!(said, "the PIN must have 4 to 6 digits");
    }

    #[test]
    fn debug_shows_neither_code_nor_pin() {
        let redemption =
            Redemption::by_code(Id([1; 16]), "0123456789", None, &Counting::default()).unwrap();
        let shown = format!("{redemption:?} {:?}", all_methods());
        assert!(!shown.contains("0123456789") && !shown.contains("2580"), "{shown}");
    }
}
