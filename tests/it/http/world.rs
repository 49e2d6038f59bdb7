//! A server with a service provider, an application, and phones.

use std::net::SocketAddr;
use std::path::Path;

use api::device::{
    ActivationOptions, AuthenticationOptions, Client, Outcome, Phone, Redemption, activate,
    authenticate,
};
use api::ports::SystemEntropy;
use api::wire::admin::{Application, CreatedApiKey, Status};
use api::wire::provider::{Operation, Registration, RequestedActivation};
use engine::ids::Id;
use serde_json::{Value, json};

use crate::client::{Answer, Request};
use crate::server::{Launch, Server};

/// The service provider of every world.
pub(crate) const BANK: &str = "my-bank";

/// A running server and who calls it. The folder is `data` in a folder of its own.
pub(crate) struct World {
    pub(crate) server: Server,
    pub(crate) home: tempfile::TempDir,
    pub(crate) callers: Callers,
}

/// The keys and the application, apart from the server that knows them.
#[derive(Clone)]
pub(crate) struct Callers {
    pub(crate) administrator: String,
    pub(crate) bank: String,
    pub(crate) application: Id,
}

/// Where a server listens, who calls it, and a client.
pub(crate) struct Side<'a> {
    pub(crate) address: SocketAddr,
    pub(crate) callers: &'a Callers,
    pub(crate) client: Client,
}

impl World {
    /// With an application of the default configuration.
    #[track_caller]
    pub(crate) fn start() -> Self {
        Self::with(json!({}))
    }

    /// With an application of this configuration.
    #[track_caller]
    pub(crate) fn with(configuration: Value) -> Self {
        let home = tempfile::tempdir().unwrap();
        let server = Server::start(&home.path().join("data"));
        let callers = Callers::set_up(server.address, server.administrator(), configuration);
        Self { server, home, callers }
    }

    pub(crate) fn data(&self) -> std::path::PathBuf {
        self.home.path().join("data")
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.server.address
    }

    /// What calls this server.
    pub(crate) fn side(&self) -> Side<'_> {
        let (address, client) = (self.server.address, self.server.client());
        Side { address, callers: &self.callers, client }
    }

    #[track_caller]
    pub(crate) fn send(&self, request: &Request) -> Answer {
        request.send(self.address())
    }

    #[track_caller]
    pub(crate) fn restart(self) -> Self {
        let Self { server, home, callers } = self;
        Self { server: server.restart(), home, callers }
    }

    /// Stops the server cleanly; returns the folder that holds its own, `data`.
    #[track_caller]
    pub(crate) fn stopped(self) -> tempfile::TempDir {
        self.server.stop();
        self.home
    }

    /// Stops the server cleanly and holds its log to everything that is promised of one.
    #[track_caller]
    pub(crate) fn stop_and_verify(self) -> replay::report::Report {
        let data = self.data();
        self.server.stop();
        verified(&data)
    }
}

/// The report on a stopped server's folder, which holds.
#[track_caller]
pub(crate) fn verified(data: &Path) -> replay::report::Report {
    let report = replay::verify(data, &replay::verify::Options::default()).unwrap();
    assert!(report.holds, "{report}");
    report
}

/// Starts the server on a folder again.
#[track_caller]
pub(crate) fn again(launch: &Launch, callers: &Callers, home: tempfile::TempDir) -> World {
    World { server: launch.start(), home, callers: callers.clone() }
}

impl Callers {
    /// Makes a service provider's key and an application.
    #[track_caller]
    pub(crate) fn set_up(address: SocketAddr, administrator: String, configuration: Value) -> Self {
        let bank = api_key(address, &administrator, "SERVICE_PROVIDER", Some(BANK)).bearer;
        let body = json!({
            "name": "app", "service_provider": BANK, "configuration": configuration,
        });
        let made = Request::post("/admin/v1/applications", &body).by(&administrator).send(address);
        let application = made.ok::<Application>().application_id;
        Self { administrator, bank: bank.unwrap(), application }
    }
}

/// A fresh API key.
#[track_caller]
pub(crate) fn api_key(
    address: SocketAddr,
    administrator: &str,
    role: &str,
    provider: Option<&str>,
) -> CreatedApiKey {
    let mut body = json!({ "role": role, "name": "of a test" });
    if let Some(provider) = provider {
        body["service_provider"] = json!(provider);
    }
    Request::post("/admin/v1/api-keys", &body).by(administrator).send(address).ok()
}

/// No clock and no chance of the test's own: phones draw real bytes.
pub(crate) const CHANCE: &SystemEntropy = &SystemEntropy;

impl Side<'_> {
    #[track_caller]
    pub(crate) fn bank_posts(&self, path: &str, body: &Value) -> Answer {
        Request::post(path, body).by(&self.callers.bank).send(self.address)
    }

    #[track_caller]
    pub(crate) fn bank_gets(&self, path: &str) -> Answer {
        Request::get(path).by(&self.callers.bank).send(self.address)
    }

    #[track_caller]
    pub(crate) fn request_activation(&self) -> RequestedActivation {
        let body = json!({ "application_id": self.callers.application, "user_ref": "anna" });
        self.bank_posts("/v1/activations", &body).ok()
    }

    #[track_caller]
    pub(crate) fn redemption(&self) -> Redemption {
        let requested = self.request_activation();
        let application = self.callers.application;
        Redemption::by_code(application, &requested.code, None, CHANCE).unwrap()
    }

    /// A phone whose keys were taken.
    #[track_caller]
    pub(crate) fn phone(&self, options: &ActivationOptions) -> Phone {
        let (phone, finished) =
            activate(&self.client, &self.redemption(), options, None, CHANCE).unwrap();
        assert!(finished.accepted);
        phone.unwrap()
    }

    #[track_caller]
    pub(crate) fn operation(&self, phone: &Phone) -> Operation {
        let body = json!({ "registration_id": phone.registration_id(), "level": "ONE_FACTOR" });
        self.bank_posts("/v1/operations", &body).ok()
    }

    /// Creates an operation and lets the phone answer it.
    #[track_caller]
    pub(crate) fn log_in(&self, phone: &Phone, options: &AuthenticationOptions) -> Outcome {
        let operation = Some(self.operation(phone).operation_id);
        let options = AuthenticationOptions { operation, ..options.clone() };
        authenticate(&self.client, phone, &options, CHANCE).unwrap()
    }

    #[track_caller]
    pub(crate) fn seen_operation(&self, id: Id) -> Operation {
        self.bank_gets(&format!("/v1/operations/{id}")).ok()
    }

    #[track_caller]
    pub(crate) fn seen_registration(&self, id: Id) -> Registration {
        self.bank_gets(&format!("/v1/registrations/{id}")).ok()
    }

    #[track_caller]
    pub(crate) fn status(&self) -> Status {
        let asked = Request::get("/admin/v1/status").by(&self.callers.administrator);
        asked.send(self.address).ok()
    }

    /// Sets properties of the application.
    #[track_caller]
    pub(crate) fn configure(&self, properties: Value) {
        let path = format!("/admin/v1/applications/{}", self.callers.application);
        let by = &self.callers.administrator;
        let known: Application = Request::get(&path).by(by).send(self.address).ok();
        let body = json!({ "version": known.configuration_version, "configuration": properties });
        let request = Request::new("PATCH", &format!("{path}/configuration")).json(&body).by(by);
        request.send(self.address).ok::<Application>();
    }
}
