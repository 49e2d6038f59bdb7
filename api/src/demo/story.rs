//! What happens in the demo, step by step, over HTTP.

use engine::ids::Id;
use engine::machine::Entropy;
use engine::reasons::{OperationKind, OperationState, UserRole};
use engine::terms::{Level, Method};
use serde_json::json;
use zeroize::Zeroizing;

use super::{DemoError, Step};
use crate::device::{
    ActivationOptions, AuthenticationOptions, Client, Hardware, HardwareFault, Misbehaviour, Phone,
    Redemption, activate, authenticate,
};
use crate::wire::Octets;
use crate::wire::admin::{
    Application, ChangeConfiguration, CreateApiKey, CreateApplication, CreatedApiKey, Properties,
};
use crate::wire::provider::{
    Activation, Context, CreateOperation, Operation, Registration, RequestActivation,
    RequestedActivation,
};

const SERVICE_PROVIDER: &str = "demo-bank";
const PIN: &str = "2580";
/// What the user is shown.
const QUESTION: &[u8] = b"Pay 250.00 EUR to ACME Ltd?";

/// Tells the story to `on_step`; returns its steps.
pub(super) fn tell(
    url: &str,
    administrator: &str,
    entropy: &dyn Entropy,
    on_step: &mut dyn FnMut(&Step),
) -> Result<Vec<Step>, DemoError> {
    let client = Client::new(url, None)?;
    let mut cast = Cast::assemble(client, administrator, entropy, on_step)?;
    let hardware = cast.activate(
        "activate_with_hardware",
        "Alice's phone is activated; it has secure hardware",
        "alice",
        Hardware::Working,
        "COMPLETED, hardware key stored: true, SIGNED, VALID",
    )?;
    let software = cast.activate(
        "activate_without_hardware",
        "Bob's old phone is activated; it has none",
        "bob",
        Hardware::Unsupported,
        "COMPLETED, hardware key stored: false, NOT_SUPPORTED, NO_KEY_REGISTERED",
    )?;
    cast.ordinary(&hardware, &software)?;
    cast.wrong_pin(&hardware)?;
    cast.strategies(&hardware, &software)?;
    Ok(cast.steps)
}

/// Everybody who takes part.
struct Cast<'a> {
    client: Client,
    entropy: &'a dyn Entropy,
    administrator: Zeroizing<String>,
    provider: Zeroizing<String>,
    application: Application,
    steps: Vec<Step>,
    on_step: &'a mut dyn FnMut(&Step),
}

impl<'a> Cast<'a> {
    /// The administrator creates an application and a key for its back end.
    fn assemble(
        client: Client,
        administrator: &str,
        entropy: &'a dyn Entropy,
        on_step: &'a mut dyn FnMut(&Step),
    ) -> Result<Self, DemoError> {
        let create = CreateApiKey {
            role: UserRole::ServiceProvider,
            service_provider: Some(SERVICE_PROVIDER.to_owned()),
            name: "demo back end".to_owned(),
        };
        let key: CreatedApiKey = client.post("/admin/v1/api-keys", &create, Some(administrator))?;
        let risk = json!(["hw_key_client_status", "hw_key_server_result"]);
        let create = CreateApplication {
            name: "Demo".to_owned(),
            service_provider: SERVICE_PROVIDER.to_owned(),
            configuration: properties([("enabled_risk_data", risk)]),
        };
        let application: Application =
            client.post("/admin/v1/applications", &create, Some(administrator))?;
        let provider = key.bearer.ok_or(DemoError::Missing("the service provider's key"))?;
        let strategy = text(&application.configuration, "hw_key_validation_strategy");
        let mut cast = Self {
            client,
            entropy,
            administrator: Zeroizing::new(administrator.to_owned()),
            provider: Zeroizing::new(provider),
            application,
            steps: Vec::new(),
            on_step,
        };
        let what = "The administrator creates an application with the default strategy";
        cast.step("create_application", what, "SUPPORTED", strategy);
        Ok(cast)
    }

    fn step(&mut self, name: &'static str, what: &'static str, expected: &str, seen: String) {
        let held = expected == seen;
        let step = Step { name, what, expected: expected.to_owned(), seen, held };
        (self.on_step)(&step);
        self.steps.push(step);
    }

    /// A user's phone gets its keys, and the back end looks at what came of it.
    fn activate(
        &mut self,
        name: &'static str,
        what: &'static str,
        user_ref: &str,
        hardware: Hardware,
        expected: &str,
    ) -> Result<Phone, DemoError> {
        let provider = Some(&**self.provider);
        let application_id = self.application.application_id;
        let body = RequestActivation { application_id, user_ref: user_ref.to_owned() };
        let requested: RequestedActivation =
            self.client.post("/v1/activations", &body, provider)?;
        let code = &requested.code;
        let redemption = Redemption::by_code(application_id, code, None, self.entropy)?;
        let pin = Some(Zeroizing::new(PIN.to_owned()));
        let options = ActivationOptions { pin, hardware, ..ActivationOptions::default() };
        let (phone, _) = activate(&self.client, &redemption, &options, None, self.entropy)?;
        let path = format!("/v1/activations/{}", requested.activation.activation_id);
        let seen: Activation = self.client.get(&path, provider)?;
        let (status, result) = (seen.risk.hw_key_client_status, seen.risk.hw_key_server_result);
        let risk = [status.map(|it| it.as_str()), result.map(|it| it.as_str())];
        let seen = format!(
            "{}, hardware key stored: {}, {}",
            seen.state,
            seen.hardware_key_stored,
            risk.map(|attribute| attribute.unwrap_or("absent")).join(", "),
        );
        self.step(name, what, expected, seen);
        phone.ok_or(DemoError::Missing("an activated phone"))
    }

    /// Both phones log in as they should.
    fn ordinary(&mut self, hardware: &Phone, software: &Phone) -> Result<(), DemoError> {
        let pin = Answer { level: Level::TwoFactor, method: Method::DevicePin, fault: Fault::None };
        self.authenticate(
            "authenticate_with_hardware",
            "Alice approves a payment with her PIN",
            hardware,
            pin,
            "accepted, COMPLETED, SIGNED, VALID",
        )?;
        self.authenticate(
            "authenticate_without_hardware",
            "Bob approves one with his PIN",
            software,
            pin,
            "accepted, COMPLETED, NOT_SUPPORTED, NO_KEY_REGISTERED",
        )
    }

    /// A wrong PIN is refused and counted; the right one then forgives it.
    fn wrong_pin(&mut self, phone: &Phone) -> Result<(), DemoError> {
        let wrong =
            Answer { level: Level::TwoFactor, method: Method::DevicePin, fault: Fault::WrongPin };
        self.authenticate(
            "wrong_pin",
            "Someone types a wrong PIN: its signature does not verify",
            phone,
            wrong,
            "SOFTWARE_SIGNATURE_INVALID, PENDING, SIGNED, VALID",
        )?;
        let seen = self.remaining_attempts(phone.registration_id())?;
        let what = "The service provider sees that it was counted";
        self.step("wrong_pin_counted", what, "2 of 3 attempts remain", seen);
        let right = Answer { fault: Fault::None, ..wrong };
        self.authenticate(
            "right_pin",
            "The right PIN: the failure is forgotten",
            phone,
            right,
            "accepted, COMPLETED, SIGNED, VALID",
        )?;
        let seen = self.remaining_attempts(phone.registration_id())?;
        let what = "The service provider sees that too";
        self.step("failures_forgotten", what, "3 of 3 attempts remain", seen);
        Ok(())
    }

    /// What the strategy changes.
    fn strategies(&mut self, hardware: &Phone, software: &Phone) -> Result<(), DemoError> {
        let forged =
            Answer { level: Level::OneFactor, method: Method::Device, fault: Fault::HardwareKey };
        let plain = Answer { fault: Fault::None, ..forged };
        self.authenticate(
            "bad_hardware_signature_supported",
            "Under SUPPORTED a wrong hardware signature is refused",
            hardware,
            forged,
            "HW_KEY_CHECK_FAILED, PENDING, SIGNED, INVALID",
        )?;
        self.strategy("strategy_risk_params", "The administrator sets RISK_PARAMS", "RISK_PARAMS")?;
        self.authenticate(
            "bad_hardware_signature_risk_params",
            "Now the same passes, and is reported",
            hardware,
            forged,
            "accepted, COMPLETED, SIGNED, INVALID",
        )?;
        self.strategy("strategy_required", "The administrator sets REQUIRED", "REQUIRED")?;
        self.authenticate(
            "no_hardware_required",
            "Bob's phone has no hardware key: it must be activated again",
            software,
            plain,
            "HW_KEY_REQUIRED, FAILED, NOT_SUPPORTED, NO_KEY_REGISTERED",
        )?;
        self.authenticate(
            "hardware_required",
            "Alice's phone goes on as before",
            hardware,
            plain,
            "accepted, COMPLETED, SIGNED, VALID",
        )
    }

    fn strategy(
        &mut self,
        name: &'static str,
        what: &'static str,
        strategy: &str,
    ) -> Result<(), DemoError> {
        let id = self.application.application_id;
        let body = ChangeConfiguration {
            version: self.application.configuration_version,
            configuration: properties([("hw_key_validation_strategy", json!(strategy))]),
        };
        let path = format!("/admin/v1/applications/{id}/configuration");
        self.application = self.client.patch(&path, &body, Some(&self.administrator))?;
        let seen = text(&self.application.configuration, "hw_key_validation_strategy");
        self.step(name, what, strategy, seen);
        Ok(())
    }

    /// The back end asks, the phone answers, the back end looks at what came of it.
    fn authenticate(
        &mut self,
        name: &'static str,
        what: &'static str,
        phone: &Phone,
        answer: Answer,
        expected: &str,
    ) -> Result<(), DemoError> {
        let operation = self.ask(phone.registration_id(), answer.level)?;
        authenticate(&self.client, phone, &answer.options(operation), self.entropy)?;
        let seen = self.operation(operation)?;
        let failure = seen.attempts.last().and_then(|attempt| attempt.failure);
        let (status, result) = (seen.risk.hw_key_client_status, seen.risk.hw_key_server_result);
        let seen_words = [
            failure.map_or("accepted", |failure| failure.as_str()),
            seen.state.as_str(),
            status.map_or("absent", |status| status.as_str()),
            result.map_or("absent", |result| result.as_str()),
        ];
        self.step(name, what, expected, seen_words.join(", "));
        if seen.state == OperationState::Pending {
            let path = format!("/v1/operations/{operation}/cancel");
            let _: Operation = self.client.post(&path, &json!({}), Some(&self.provider))?;
        }
        Ok(())
    }

    fn ask(&self, registration_id: Id, level: Level) -> Result<Id, DemoError> {
        let context = Context {
            kind: "text/plain".to_owned(),
            title: "Payment".to_owned(),
            octets: Octets(QUESTION.to_vec()),
        };
        let body = CreateOperation {
            kind: Some(OperationKind::Transaction),
            context: Some(context),
            ..CreateOperation::new(registration_id, level)
        };
        let operation: Operation =
            self.client.post("/v1/operations", &body, Some(&self.provider))?;
        Ok(operation.operation_id)
    }

    fn operation(&self, id: Id) -> Result<Operation, DemoError> {
        Ok(self.client.get(&format!("/v1/operations/{id}"), Some(&self.provider))?)
    }

    fn remaining_attempts(&self, id: Id) -> Result<String, DemoError> {
        let path = format!("/v1/registrations/{id}");
        let registration: Registration = self.client.get(&path, Some(&self.provider))?;
        let allowed = registration.failures + registration.remaining_attempts;
        Ok(format!("{} of {allowed} attempts remain", registration.remaining_attempts))
    }
}

/// How a phone answers.
#[derive(Clone, Copy)]
struct Answer {
    level: Level,
    method: Method,
    fault: Fault,
}

/// What goes wrong in an answer.
#[derive(Clone, Copy)]
enum Fault {
    None,
    WrongPin,
    HardwareKey,
}

impl Answer {
    fn options(self, operation: Id) -> AuthenticationOptions {
        let misbehaviour = match self.fault {
            Fault::None => Misbehaviour::default(),
            Fault::WrongPin => Misbehaviour { wrong_pin: true, ..Misbehaviour::default() },
            Fault::HardwareKey => Misbehaviour {
                hardware: Some(HardwareFault::BadSignature),
                ..Misbehaviour::default()
            },
        };
        AuthenticationOptions {
            operation: Some(operation),
            method: Some(self.method),
            pin: Some(Zeroizing::new(PIN.to_owned())),
            misbehaviour,
            ..AuthenticationOptions::default()
        }
    }
}

fn properties<const N: usize>(set: [(&str, serde_json::Value); N]) -> Properties {
    Properties(set.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

fn text(properties: &Properties, name: &str) -> String {
    let value = properties.0.get(name).and_then(serde_json::Value::as_str);
    value.unwrap_or("absent").to_owned()
}
