//! The server as it is, over HTTP: CPU of its process for a complete log-in,
//! beside the CPU of the bare verifications in it.
//!
//! A complete log-in is four requests on kept connections: the service provider
//! asks, the phone gets the challenge and signs, its answer is judged, the
//! service provider fetches the result. Phones and service provider run in this
//! process, whose CPU time is not counted. Phones answer with their biometric
//! method: its key is not sealed under a PIN, whose stretching would keep the
//! phones, and with them the server, waiting. The server checks three signatures
//! either way.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use api::device::{
    ActivationOptions, AuthenticationOptions, Client, Phone, Redemption, activate, authenticate,
};
use api::ports::{SystemClock, SystemEntropy};
use api::wire::Octets;
use api::wire::admin::{self, Application, CreateApplication, Properties};
use api::wire::provider::{
    Context, CreateOperation, Operation, RequestActivation, RequestedActivation,
};
use clap::Parser;
use engine::ids::{Id, Micros};
use engine::machine::Clock;
use engine::reasons::{OperationState, UserRole};
use engine::terms::{Level as Factors, Method};
use replay::report::Level;
use serde::Serialize;

use super::machine::{process_cpu_us, resident_mib, seconds_since};
use super::{Outcome, Plan, Spread, login, spread, verification};

/// Phones that log in again and again.
const PHONES: usize = 64;

/// The server's figures with one number of clients.
#[derive(Debug, Serialize)]
pub(crate) struct Server {
    /// Clients, each one log-in after the other.
    pub(crate) clients: usize,
    /// Log-ins.
    pub(crate) log_ins: u64,
    /// The same a second. The clients sign, on the same cores.
    pub(crate) log_ins_per_s: f64,
    /// Signatures that the server checked for one log-in.
    pub(crate) signatures_per_log_in: f64,
    /// CPU of the server's process for one log-in, user and system, in microseconds.
    pub(crate) server_cpu_us: f64,
    /// CPU of the bare verifications in it by aws-lc-rs, in microseconds.
    pub(crate) verification_cpu_us: f64,
    /// The one over the other.
    pub(crate) ratio: f64,
    /// How long the request waited whose answer is the verdict, with the
    /// phone's signing, in microseconds.
    pub(crate) answer_us: Spread,
    /// Resident memory of the server afterwards, in MiB.
    pub(crate) resident_mib: f64,
}

/// All numbers of clients.
#[derive(Debug, Serialize)]
pub(crate) struct ServerRun {
    /// For each number of clients.
    pub(crate) by_clients: Vec<Server>,
    /// The log of all of it, verified.
    pub(crate) audit: Audit,
}

/// What it takes to verify the log that the server wrote: all levels, on all cores.
#[derive(Debug, Serialize)]
pub(crate) struct Audit {
    /// Events in the log.
    pub(crate) events: u64,
    /// Signatures verified again, by p256.
    pub(crate) signatures: u64,
    /// By the clock, in seconds.
    pub(crate) seconds: f64,
    /// CPU time of it, in seconds.
    pub(crate) cpu_seconds: f64,
    /// Share of that CPU time that bare verifications of so many signatures take.
    pub(crate) bare_share: f64,
}

/// A server process that is killed when it is no longer needed.
struct Process {
    child: Child,
    url: String,
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the service provider holds.
struct Bank {
    client: Client,
    administrator: String,
    bearer: String,
    application: Id,
}

/// Runs the server's command line in this process: `serve` on the folder.
pub(crate) fn serve(dir: &Path) -> std::process::ExitCode {
    let data = dir.join("data");
    let words = ["keytrail", "serve", "--listen", "127.0.0.1:0", "--log-filter", "error", "--data"];
    let words = words.iter().map(|&word| word.into()).chain([data.into_os_string()]);
    api::cli::run(api::cli::Cli::parse_from(words)).into()
}

/// Measures.
///
/// # Errors
///
/// If the server does not do what it is asked.
pub(crate) fn run(dir: &Path, plan: &Plan) -> Outcome<ServerRun> {
    let process = start(dir)?;
    let bank = Bank::open(&process.url, &dir.join("data"))?;
    let phones = (0..PHONES).map(|number| bank.phone(number)).collect::<Outcome<Vec<_>>>()?;
    let mut by_clients = Vec::new();
    for &clients in &plan.writers {
        let clients = clients.min(PHONES);
        // Connections, caches and allocations as in a server that has run for a while.
        measure(&process, &bank, &phones, clients, plan.seconds / 5.0)?;
        by_clients.push(measure(&process, &bank, &phones, clients, plan.seconds)?);
    }
    drop(process);
    Ok(ServerRun { by_clients, audit: audit(&dir.join("data"))? })
}

/// Verifies the folder that the killed server left.
fn audit(data: &Path) -> Outcome<Audit> {
    let this = std::process::id();
    let bare_before = verification::check_us(1.0)?;
    let cpu_before = process_cpu_us(this)?;
    let clock = SystemClock::start();
    let report = replay::verify(data, &replay::verify::Options::default())?;
    let seconds = seconds_since(&clock, Micros(0));
    let cpu_seconds = (process_cpu_us(this)? - cpu_before) as f64 / 1e6;
    let bare = f64::midpoint(bare_before, verification::check_us(1.0)?);
    if !report.holds {
        return Err("the server's log does not verify".into());
    }
    let count = |level, name| report.level(level).map_or(0, |level| level.count(name));
    let signatures = count(Level::Signatures, "signatures");
    Ok(Audit {
        events: report.records,
        signatures,
        seconds,
        cpu_seconds,
        bare_share: bare * signatures as f64 / 1e6 / cpu_seconds,
    })
}

/// This program once more, as the server.
fn start(dir: &Path) -> Outcome<Process> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(["--stage", "serve", "--dir"])
        .arg(dir)
        .current_dir(dir)
        .stdout(Stdio::piped())
        .spawn()?;
    let output = child.stdout.take().ok_or("the server has no output")?;
    let mut process = Process { child, url: String::new() };
    for line in BufReader::new(output).lines() {
        if let Some(url) = line?.strip_prefix("keytrail listens on ") {
            process.url = url.to_owned();
            return Ok(process);
        }
    }
    Err("the server did not start".into())
}

fn measure(
    process: &Process,
    bank: &Bank,
    phones: &[Phone],
    clients: usize,
    seconds: f64,
) -> Outcome<Server> {
    let pid = process.child.id();
    let bare_before = verification::accept_us(0.5)?;
    let signatures_before = bank.signatures_checked()?;
    let cpu_before = process_cpu_us(pid)?;
    let clock = SystemClock::start();
    let start = clock.monotonic();
    let waits = log_in_all(bank, phones, clients, seconds)?;
    let elapsed = seconds_since(&clock, start);
    let log_ins = waits.len() as u64;
    let each = |sum: u64| sum as f64 / log_ins.max(1) as f64;
    let server_cpu_us = each(process_cpu_us(pid)? - cpu_before);
    let signatures_per_log_in = each(bank.signatures_checked()? - signatures_before);
    let bare = f64::midpoint(bare_before, verification::accept_us(0.5)?);
    let verification_cpu_us = bare * signatures_per_log_in;
    Ok(Server {
        clients,
        log_ins,
        log_ins_per_s: log_ins as f64 / elapsed,
        signatures_per_log_in,
        server_cpu_us,
        verification_cpu_us,
        ratio: server_cpu_us / verification_cpu_us,
        answer_us: spread(waits),
        resident_mib: resident_mib(pid)?,
    })
}

/// Lets all clients log their phones in for some seconds. Returns how long each
/// answer took.
fn log_in_all(bank: &Bank, phones: &[Phone], clients: usize, seconds: f64) -> Outcome<Vec<u64>> {
    let all = Mutex::new(Vec::new());
    let failed = AtomicU64::new(0);
    thread::scope(|scope| {
        for number in 0..clients {
            let own: Vec<&Phone> = phones.iter().skip(number).step_by(clients).collect();
            let (all, failed) = (&all, &failed);
            scope.spawn(move || match log_in_own(bank, &own, seconds) {
                Ok(waits) => all.lock().map(|mut all| all.extend(waits)).unwrap_or(()),
                Err(error) => {
                    eprintln!("bench: {error}");
                    failed.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    if failed.into_inner() > 0 {
        return Err("a client could not log in".into());
    }
    Ok(all.into_inner().unwrap_or_default())
}

fn log_in_own(bank: &Bank, phones: &[&Phone], seconds: f64) -> Outcome<Vec<u64>> {
    let clock = SystemClock::start();
    let start = clock.monotonic();
    let mut waits = Vec::new();
    for phone in phones.iter().cycle() {
        if seconds_since(&clock, start) >= seconds {
            break;
        }
        waits.push(bank.log_in(phone, &clock)?);
    }
    Ok(waits)
}

impl Bank {
    /// Makes a service provider's key and an application.
    fn open(url: &str, data: &Path) -> Outcome<Self> {
        let client = Client::new(url, None)?;
        let written = std::fs::read_to_string(data.join("first-administrator-key"))?;
        let bearer = written.lines().find_map(|line| line.strip_prefix("bearer "));
        let administrator = bearer.ok_or("the administrator's key is not there")?.to_owned();
        let key = admin::CreateApiKey {
            role: UserRole::ServiceProvider,
            service_provider: Some("bank".into()),
            name: "back end".into(),
        };
        let created: admin::CreatedApiKey =
            client.post("/admin/v1/api-keys", &key, Some(&administrator))?;
        let application = CreateApplication {
            name: "app".into(),
            service_provider: "bank".into(),
            configuration: Properties::default(),
        };
        let application: Application =
            client.post("/admin/v1/applications", &application, Some(&administrator))?;
        let bearer = created.bearer.ok_or("the new key has no secret")?;
        Ok(Self { client, administrator, bearer, application: application.application_id })
    }

    fn signatures_checked(&self) -> Outcome<u64> {
        let status: admin::Status =
            self.client.get("/admin/v1/status", Some(&self.administrator))?;
        Ok(status.signatures_checked)
    }

    /// A phone with a biometric method and a hardware key.
    fn phone(&self, number: usize) -> Outcome<Phone> {
        let request = RequestActivation {
            application_id: self.application,
            user_ref: format!("customer-{number}"),
        };
        let requested: RequestedActivation =
            self.client.post("/v1/activations", &request, Some(&self.bearer))?;
        let redemption =
            Redemption::by_code(self.application, &requested.code, None, &SystemEntropy)?;
        let options = ActivationOptions { biometric: true, ..ActivationOptions::default() };
        let (phone, _) = activate(&self.client, &redemption, &options, None, &SystemEntropy)?;
        phone.ok_or_else(|| "the server did not take a phone's keys".into())
    }

    /// One complete log-in. Returns how long the phone took from the challenge's
    /// request to the verdict, in microseconds.
    fn log_in(&self, phone: &Phone, clock: &SystemClock) -> Outcome<u64> {
        let body = CreateOperation {
            context: Some(Context {
                title: String::new(),
                kind: "text/plain".into(),
                octets: Octets(vec![b'x'; login::CONTEXT]),
            }),
            ..CreateOperation::new(phone.registration_id(), Factors::TwoFactor)
        };
        let asked: Operation = self.client.post("/v1/operations", &body, Some(&self.bearer))?;
        let options = AuthenticationOptions {
            operation: Some(asked.operation_id),
            method: Some(Method::DeviceBiometric),
            risk_data: Some(vec![b'x'; login::RISK_DATA]),
            ..AuthenticationOptions::default()
        };
        let before = clock.monotonic();
        authenticate(&self.client, phone, &options, &SystemEntropy)?;
        let waited = clock.monotonic().0 - before.0;
        let path = format!("/v1/operations/{}", asked.operation_id);
        let polled: Operation = self.client.get(&path, Some(&self.bearer))?;
        if polled.state == OperationState::Completed {
            Ok(waited)
        } else {
            Err(format!("a log-in ended as {}", polled.state).into())
        }
    }
}
