//! `keytrail device`: the simulated phone against any server.

mod test_ca;
mod words;

use std::fs::{self, File};
use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

use clap::{ArgGroup, Args, Subcommand};
use engine::ids::Id;
use engine::reasons::RejectReason;
use engine::terms::{Decision, Level, Method};
use serde_json::json;
use zeroize::Zeroizing;

use super::{Exit, report};
use crate::device::{
    ActivationOptions, AuthenticationOptions, Client, ClientError, DeviceError, Hardware,
    HardwareFault, Misbehaviour, Offer, Phone, Redemption, Repetition, SoftwareFault, StateError,
    authenticate_start, begin, load, pending as pending_operations, save_new, save_over,
};
use crate::ports::SystemEntropy;
use crate::wire::QrPayload;
use crate::wire::device::FinishedActivation;

/// Where `keytrail serve` listens unless told otherwise.
const SERVER: &str = "http://127.0.0.1:8080";
/// A version from before hardware keys.
const OLD_CLIENT: &str = "3.7";
/// The longest PIN file that is read, in bytes.
const PIN_FILE_MAX: u64 = 1024;

/// What the simulated phone is to do.
#[derive(Debug, Args)]
#[command(after_help = WARNING)]
pub struct Arguments {
    #[command(subcommand)]
    action: Action,
}

const WARNING: &str = "\
A tool for tests. Its \"secure hardware\" and its fingerprint reader are a file: \
whoever reads the file has the keys, but for that of the PIN, \
and who has a signature by that one too can try PINs. \
Never activate it for a user of a real application.";

#[derive(Debug, Subcommand)]
enum Action {
    /// Redeem an activation code or QR payload and register fresh keys
    #[command(after_help = WARNING)]
    Activate(Box<Activate>),
    /// Answer an operation that waits for this phone
    #[command(after_help = WARNING)]
    Authenticate(Box<Authenticate>),
    /// List the operations that wait for this phone
    Pending(Waiting),
    /// Show what this phone is registered as; never a secret
    Show(Show),
    /// Make a maker of phones for tests, whose evidence an application can be told to trust
    #[command(after_help = WARNING)]
    TestCa(test_ca::Arguments),
}

/// The state file and the form of the answer.
#[derive(Debug, Args)]
struct Common {
    /// File of mode 0600 that holds the phone
    #[arg(long, value_name = "FILE", default_value = "keytrail-device.json")]
    state: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// A PIN, typed or from a file.
#[derive(Debug, Args)]
struct Pin {
    /// The PIN; others on this machine may see it here
    #[arg(long, value_name = "PIN")]
    pin: Option<Secret>,
    /// File whose first line is the PIN; - is standard input
    #[arg(long, value_name = "FILE", conflicts_with = "pin")]
    pin_file: Option<PathBuf>,
}

/// An argument that nobody may see in `Debug`.
#[derive(Clone)]
struct Secret(Zeroizing<String>);

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}

/// What goes wrong with the hardware key's signature.
#[derive(Debug, Clone, Copy, Args)]
#[group(id = "signature", multiple = false)]
struct HardwareSignature {
    /// Misbehave: a hardware signature that does not verify
    #[arg(long)]
    bad_hardware_signature: bool,
    /// Misbehave: a hardware signature that is no signature at all
    #[arg(long)]
    malformed_hardware_signature: bool,
    /// Misbehave: no hardware signature, but a claim to have signed
    #[arg(long)]
    no_hardware_signature: bool,
}

/// Redeems and registers.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("redeem").required(true).args(["code", "qr"]))]
struct Activate {
    /// The server's URL [default: http://127.0.0.1:8080; with --again, the phone's]
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// Authorities to trust for https, in PEM form
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The application of the code
    #[arg(long, value_name = "ID", required_unless_present = "qr", conflicts_with = "qr")]
    application: Option<Id>,
    /// The activation code; blanks, hyphens and case do not matter
    #[arg(long, value_name = "CODE")]
    code: Option<Secret>,
    /// The text of the QR code instead
    #[arg(long, value_name = "PAYLOAD")]
    qr: Option<Secret>,
    /// Re-activate the phone in the state file: its keys sign for the new ones
    #[arg(long)]
    again: bool,
    #[command(flatten)]
    pin: Pin,
    /// Register a key for DEVICE:BIOMETRIC too
    #[arg(long)]
    biometric: bool,
    /// Play a device without secure hardware
    #[arg(long, conflicts_with_all = ["signature", "failing_hardware"])]
    no_hardware: bool,
    /// Play secure hardware that makes no key
    #[arg(long, conflicts_with = "signature")]
    failing_hardware: bool,
    /// The client version to declare [default: 3.8.0]
    #[arg(long, value_name = "VERSION")]
    client_version: Option<String>,
    /// Data for the service provider
    #[arg(long, value_name = "TEXT")]
    client_data: Option<String>,
    /// Risk data
    #[arg(long, value_name = "TEXT")]
    risk_data: Option<String>,
    /// Send evidence of the test CA in this file
    #[arg(long, value_name = "FILE", conflicts_with = "attestation")]
    test_ca: Option<PathBuf>,
    /// Misbehave: send what is in this file as Android's evidence
    #[arg(long, value_name = "FILE")]
    attestation: Option<PathBuf>,
    #[command(flatten)]
    faults: HardwareSignature,
    #[command(flatten)]
    common: Common,
}

/// Answers an operation.
#[derive(Debug, Args)]
struct Authenticate {
    /// The operation; without it, the oldest that waits
    #[arg(long, value_name = "ID")]
    operation: Option<Id>,
    /// Begin an operation that nobody has asked for: ONE_FACTOR or TWO_FACTOR
    #[arg(long, value_name = "LEVEL", value_parser = level, conflicts_with = "operation")]
    begin: Option<Level>,
    /// DEVICE, DEVICE:PIN or DEVICE:BIOMETRIC; without it, one that may answer
    #[arg(long, value_name = "METHOD", value_parser = method)]
    method: Option<Method>,
    #[command(flatten)]
    pin: Pin,
    /// Approve without asking
    #[arg(long, conflicts_with = "reject")]
    yes: bool,
    /// Reject without asking
    #[arg(long)]
    reject: bool,
    /// Why the user rejects: NOT_ME, DETAILS_WRONG, CHANGED_MIND or OTHER
    #[arg(long, value_name = "REASON", value_parser = reject_reason, requires = "reject", conflicts_with = "yes")]
    reason: Option<RejectReason>,
    /// The number that the user confirms with an approval, where one is wanted
    #[arg(long, value_name = "NUMBER", conflicts_with = "reject")]
    number: Option<u32>,
    /// Authorities to trust for https, in PEM form
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Data for the service provider
    #[arg(long, value_name = "TEXT")]
    client_data: Option<String>,
    /// Risk data
    #[arg(long, value_name = "TEXT")]
    risk_data: Option<String>,
    /// Declare this client version instead of the phone's
    #[arg(long, value_name = "VERSION")]
    client_version: Option<String>,
    /// Misbehave: declare 3.7, a client from before hardware keys
    #[arg(long, conflicts_with = "client_version")]
    old_client: bool,
    /// Misbehave: use another PIN than the one given
    #[arg(long)]
    wrong_pin: bool,
    /// Misbehave: a signature by the method's key that does not verify
    #[arg(long, conflicts_with = "malformed_signature")]
    bad_signature: bool,
    /// Misbehave: in place of that signature, something that is none
    #[arg(long)]
    malformed_signature: bool,
    #[command(flatten)]
    faults: HardwareSignature,
    /// Misbehave: the hardware key is lost, and the phone says so
    #[arg(long, conflicts_with_all = ["signature", "hardware_unavailable", "hardware_refuses"])]
    lost_hardware_key: bool,
    /// Misbehave: the hardware key cannot be used now, and the phone says so
    #[arg(long, conflicts_with_all = ["signature", "hardware_refuses"])]
    hardware_unavailable: bool,
    /// Misbehave: the hardware refuses to sign, and the phone says so
    #[arg(long, conflicts_with = "signature")]
    hardware_refuses: bool,
    /// Misbehave: send the finished answer twice
    #[arg(long, conflicts_with = "changed_replay")]
    replay: bool,
    /// Misbehave: answer the same challenge a second time, with the other decision
    #[arg(long)]
    changed_replay: bool,
    /// Misbehave: another device token than the registered one
    #[arg(long)]
    wrong_device_token: bool,
    #[command(flatten)]
    common: Common,
}

/// Lists what waits.
#[derive(Debug, Args)]
struct Waiting {
    /// Seconds to wait for an operation if there is none yet, at most 30
    #[arg(long, value_name = "SECONDS", default_value_t = 0,
        value_parser = clap::value_parser!(u32).range(0..=30))]
    wait: u32,
    /// Authorities to trust for https, in PEM form
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
}

/// Shows the phone.
#[derive(Debug, Args)]
struct Show {
    #[command(flatten)]
    common: Common,
}

/// Why a command did not end well.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Device(#[from] DeviceError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error("--qr is not the text of an activation's QR code")]
    NotAPayload,
    #[error("{} cannot be read as a PIN file", .0.display())]
    PinFile(PathBuf),
    #[error("{} cannot be read as {what}", .path.display())]
    File { path: PathBuf, what: &'static str },
    #[error("{} cannot be written", .0.display())]
    Unwritable(PathBuf, #[source] io::Error),
    #[error("nobody can be asked here: say --yes or --reject")]
    NobodyToAsk,
    #[error("the operation wants a number confirmed: say --number")]
    NoNumber,
    #[error("the operation was left as it is")]
    LeftAlone,
    #[error("whether the server took the new keys is not known; they are kept in {}", .0.display())]
    Unknown(PathBuf, #[source] DeviceError),
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self::Device(error.into())
    }
}

impl Failure {
    /// Whether the command line was at fault, or what came of it.
    fn exit(&self) -> Exit {
        use ClientError::{Address, Authority, NoAuthority};
        match self {
            Self::Device(
                DeviceError::Client(Address(_) | NoAuthority | Authority(_))
                | DeviceError::Version(_)
                | DeviceError::PinMissing
                | DeviceError::NoHardwareKey,
            )
            | Self::State(StateError::Exists(_))
            | Self::NotAPayload
            | Self::PinFile(_)
            | Self::File { .. }
            | Self::Unwritable(..)
            | Self::NobodyToAsk
            | Self::NoNumber => Exit::Usage,
            Self::Device(_) | Self::State(_) | Self::LeftAlone | Self::Unknown(..) => Exit::Failed,
        }
    }

    fn refusal(&self) -> Option<&crate::device::Refusal> {
        match self {
            Self::Device(DeviceError::Client(error))
            | Self::Unknown(_, DeviceError::Client(error)) => error.refusal(),
            Self::Device(_)
            | Self::State(_)
            | Self::NotAPayload
            | Self::PinFile(_)
            | Self::File { .. }
            | Self::Unwritable(..)
            | Self::NobodyToAsk
            | Self::NoNumber
            | Self::LeftAlone
            | Self::Unknown(..) => None,
        }
    }
}

/// Runs the simulated phone. Exit code 0 if the server accepted.
pub fn run(arguments: &Arguments) -> Exit {
    let (json, ended) = match &arguments.action {
        Action::Activate(arguments) => (arguments.common.json, activate(arguments)),
        Action::Authenticate(arguments) => (arguments.common.json, authenticate(arguments)),
        Action::Pending(arguments) => (arguments.common.json, list_pending(arguments)),
        Action::Show(arguments) => (arguments.common.json, show(arguments)),
        Action::TestCa(arguments) => (false, test_ca::run(arguments)),
    };
    ended.unwrap_or_else(|failure| {
        if json {
            let error = words::error_json(failure.refusal(), &failure);
            println!("{}", json!({ "accepted": false, "error": error }));
        } else {
            report(&failure);
        }
        failure.exit()
    })
}

fn activate(arguments: &Activate) -> Result<Exit, Failure> {
    let state = &arguments.common.state;
    let previous = previous(arguments)?;
    let server = arguments.server.as_deref();
    let server = server.or(previous.as_ref().map(Phone::server)).unwrap_or(SERVER);
    let client = Client::new(server, arguments.ca.as_deref())?;
    let options = activation_options(arguments)?;
    let offer = redemption(arguments)?.start(&client)?.offer(
        client.server(),
        &options,
        previous.as_ref(),
        &SystemEntropy,
    )?;
    let (phone, finished) = finish(&client, &offer, state)?;
    if arguments.common.json {
        println!("{}", words::activated_json(phone.as_ref(), &finished)?);
    } else if let Some(phone) = &phone {
        println!("activated: the keys are in {}", state.display());
        print!("{}", words::described(phone)?);
    } else {
        println!("refused: the server did not take the keys, and this activation is over");
    }
    Ok(if phone.is_some() { Exit::Ok } else { Exit::Failed })
}

/// The phone that is to be re-activated. Whatever would be in the way of the
/// new keys is found out before the code is spent.
fn previous(arguments: &Activate) -> Result<Option<Phone>, Failure> {
    let state = &arguments.common.state;
    must_not_exist(&pending(state))?;
    if arguments.again {
        return Ok(Some(load(state)?));
    }
    must_not_exist(state)?;
    Ok(None)
}

fn must_not_exist(path: &Path) -> Result<(), StateError> {
    match path.symlink_metadata() {
        Ok(_) => Err(StateError::Exists(path.to_path_buf())),
        Err(_) => Ok(()),
    }
}

/// Where keys wait that the server may or may not have taken.
fn pending(state: &Path) -> PathBuf {
    let mut name = state.as_os_str().to_owned();
    name.push(".pending");
    PathBuf::from(name)
}

fn redemption(arguments: &Activate) -> Result<Redemption, Failure> {
    let version = arguments.client_version.as_deref();
    match (&arguments.qr, &arguments.application, &arguments.code) {
        (None, Some(application), Some(code)) => {
            Ok(Redemption::by_code(*application, &code.0, version, &SystemEntropy)?)
        }
        // The command line's rules leave only the QR payload.
        (qr, _, _) => {
            let text = qr.as_ref().map_or("", |qr| qr.0.trim());
            let payload: QrPayload = text.parse().map_err(|_| Failure::NotAPayload)?;
            Ok(Redemption::by_qr(&payload, version, &SystemEntropy)?)
        }
    }
}

fn activation_options(arguments: &Activate) -> Result<ActivationOptions, Failure> {
    let hardware = if arguments.no_hardware {
        Hardware::Unsupported
    } else if arguments.failing_hardware {
        Hardware::GenerationFailed
    } else {
        Hardware::Working
    };
    Ok(ActivationOptions {
        pin: pin(&arguments.pin)?,
        biometric: arguments.biometric,
        hardware,
        hardware_fault: arguments.faults.fault(),
        client_data: arguments.client_data.clone().map(String::into_bytes),
        risk_data: arguments.risk_data.clone().map(String::into_bytes),
        evidence: test_ca::evidence(arguments)?,
    })
}

/// Sends the offer. The new keys are on disk before the server may take them, so
/// that an answer that is lost, or a process that dies here, loses none that are
/// in force; the old ones stay until it is known.
fn finish(
    client: &Client,
    offer: &Offer,
    state: &Path,
) -> Result<(Option<Phone>, FinishedActivation), Failure> {
    let pending = pending(state);
    save_new(offer.phone(), &pending)?;
    let ended = match offer.finish(client) {
        Err(error) if !is_refusal(&error) => return Err(Failure::Unknown(pending, error)),
        Err(error) => Err(error.into()),
        Ok((phone, finished)) => {
            if let Some(phone) = &phone {
                save_over(phone, state)?;
            }
            Ok((phone, finished))
        }
    };
    // Left behind it would only be in the way of the next activation.
    let removed = fs::remove_file(&pending);
    removed.map_err(|cause| StateError::Io { path: pending, cause })?;
    ended
}

/// Whether the server certainly did not do what it was asked.
fn is_refusal(error: &DeviceError) -> bool {
    // Of a 5xx it is not certain.
    matches!(error, DeviceError::Client(error) if error.refusal().is_some_and(|it| it.status < 500))
}

fn authenticate(arguments: &Authenticate) -> Result<Exit, Failure> {
    let common = &arguments.common;
    let can_ask = !common.json && io::stdin().is_terminal() && io::stderr().is_terminal();
    if !can_ask && !arguments.yes && !arguments.reject {
        return Err(Failure::NobodyToAsk);
    }
    let phone = load(&common.state)?;
    let client = Client::new(phone.server(), arguments.ca.as_deref())?;
    let mut options = authentication_options(arguments)?;
    if let Some(level) = arguments.begin {
        let begun = begin(&client, &phone, level, &SystemEntropy)?;
        options.operation = Some(begun.operation_id);
    }
    let answering = authenticate_start(&client, &phone, &options)?;
    if !common.json {
        print!("{}", words::shown(answering.started()));
    }
    if !arguments.yes && !arguments.reject {
        options.decision = ask()?;
    }
    let wanted = answering.started().confirmation.is_some();
    if options.decision == Decision::Reject {
        options.number = None;
    } else if wanted && options.number.is_none() {
        options.number = Some(if can_ask { ask_number()? } else { return Err(Failure::NoNumber) });
    }
    let outcome = answering.finish(&client, &phone, &options, &SystemEntropy)?;
    if common.json {
        println!("{}", words::outcome_json(answering.started(), options.said(), &outcome));
    } else {
        print!("{}", words::outcome_words(&outcome));
    }
    Ok(if outcome.finished.accepted { Exit::Ok } else { Exit::Failed })
}

fn authentication_options(arguments: &Authenticate) -> Result<AuthenticationOptions, Failure> {
    let old = arguments.old_client.then(|| OLD_CLIENT.to_owned());
    Ok(AuthenticationOptions {
        operation: arguments.operation,
        method: arguments.method,
        pin: pin(&arguments.pin)?,
        decision: if arguments.reject { Decision::Reject } else { Decision::Approve },
        reject_reason: arguments.reason,
        number: arguments.number,
        client_version: arguments.client_version.clone().or(old),
        client_data: arguments.client_data.clone().map(String::into_bytes),
        risk_data: arguments.risk_data.clone().map(String::into_bytes),
        misbehaviour: misbehaviour(arguments),
    })
}

fn misbehaviour(arguments: &Authenticate) -> Misbehaviour {
    Misbehaviour {
        wrong_pin: arguments.wrong_pin,
        software: said(arguments.bad_signature, SoftwareFault::BadSignature)
            .or(said(arguments.malformed_signature, SoftwareFault::Malformed)),
        hardware: arguments
            .faults
            .fault()
            .or(said(arguments.lost_hardware_key, HardwareFault::KeyLost))
            .or(said(arguments.hardware_unavailable, HardwareFault::KeyUnavailable))
            .or(said(arguments.hardware_refuses, HardwareFault::SigningFailed)),
        wrong_device_token: arguments.wrong_device_token,
        repetition: said(arguments.replay, Repetition::Same)
            .or(said(arguments.changed_replay, Repetition::Changed)),
    }
}

/// The fault, if its flag was given.
fn said<T>(flag: bool, fault: T) -> Option<T> {
    flag.then_some(fault)
}

impl HardwareSignature {
    fn fault(self) -> Option<HardwareFault> {
        said(self.bad_hardware_signature, HardwareFault::BadSignature)
            .or(said(self.malformed_hardware_signature, HardwareFault::Malformed))
            .or(said(self.no_hardware_signature, HardwareFault::NoSignature))
    }
}

fn list_pending(arguments: &Waiting) -> Result<Exit, Failure> {
    let phone = load(&arguments.common.state)?;
    let client = Client::new(phone.server(), arguments.ca.as_deref())?;
    let operations = pending_operations(&client, &phone, arguments.wait)?;
    if arguments.common.json {
        println!("{}", json!({ "operations": operations }));
        return Ok(Exit::Ok);
    }
    for operation in &operations {
        let (id, kind, level) = (operation.operation_id, operation.kind, operation.level);
        println!("{id} {kind} {level}");
    }
    Ok(Exit::Ok)
}

fn show(arguments: &Show) -> Result<Exit, Failure> {
    let phone = load(&arguments.common.state)?;
    if arguments.common.json {
        println!("{}", words::phone_json(&phone)?);
    } else {
        print!("{}", words::described(&phone)?);
    }
    Ok(Exit::Ok)
}

fn method(text: &str) -> Result<Method, String> {
    Method::parse(text).ok_or_else(|| {
        let words: Vec<_> = Method::ALL.iter().map(|method| method.as_str()).collect();
        format!("one of {}", words.join(", "))
    })
}

fn pin(given: &Pin) -> Result<Option<Zeroizing<String>>, Failure> {
    let Some(path) = &given.pin_file else {
        return Ok(given.pin.as_ref().map(|pin| pin.0.clone()));
    };
    let mut text = Zeroizing::new(String::with_capacity(PIN_FILE_MAX as usize));
    let read = if path.as_os_str() == "-" {
        io::stdin().lock().take(PIN_FILE_MAX).read_to_string(&mut text)
    } else {
        File::open(path).and_then(|file| file.take(PIN_FILE_MAX).read_to_string(&mut text))
    };
    read.map_err(|_| Failure::PinFile(path.clone()))?;
    Ok(Some(Zeroizing::new(text.lines().next().unwrap_or_default().to_owned())))
}

fn level(text: &str) -> Result<Level, String> {
    Level::parse(text).ok_or_else(|| "ONE_FACTOR or TWO_FACTOR".to_owned())
}

fn reject_reason(text: &str) -> Result<RejectReason, String> {
    RejectReason::parse(text).ok_or_else(|| {
        let words: Vec<_> = RejectReason::ALL.iter().map(|reason| reason.as_str()).collect();
        format!("one of {}", words.join(", "))
    })
}

/// The number that the user sees elsewhere, asked on the terminal.
fn ask_number() -> Result<u32, Failure> {
    eprint!("the number on the other screen, or nothing to leave it ");
    let _ = io::stderr().flush();
    let mut line = String::new();
    let read = io::stdin().lock().take(PIN_FILE_MAX).read_line(&mut line);
    read.ok().and_then(|_| line.trim().parse().ok()).ok_or(Failure::LeftAlone)
}

/// What the user decides, asked on the terminal.
fn ask() -> Result<Decision, Failure> {
    eprint!("approve? y: approve, n: reject, anything else: leave it ");
    // A prompt that cannot be shown is still answered or not.
    let _ = io::stderr().flush();
    let mut line = String::new();
    let read = io::stdin().lock().take(PIN_FILE_MAX).read_line(&mut line);
    match (read, line.trim()) {
        (Ok(_), "y" | "Y") => Ok(Decision::Approve),
        (Ok(_), "n" | "N") => Ok(Decision::Reject),
        (Ok(_) | Err(_), _) => Err(Failure::LeftAlone),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn parse(words: &str) -> Result<Action, clap::Error> {
        Line::try_parse_from(words.split(' ')).map(|line| line.arguments.action)
    }

    fn authenticating(words: &str) -> Authenticate {
        match parse(&format!("device authenticate {words}")).unwrap() {
            Action::Authenticate(arguments) => *arguments,
            Action::Activate(_) | Action::Pending(_) | Action::Show(_) | Action::TestCa(_) => {
                panic!("another action")
            }
        }
    }

    const ID: &str = "018bcfe5-6800-7fff-bfff-ffffffffffff";

    #[test]
    fn an_activation_needs_exactly_one_secret_and_a_code_its_application() {
        for (words, fits) in [
            (format!("--application {ID} --code 1"), true),
            ("--qr x".to_owned(), true),
            ("--code 1".to_owned(), false),
            (format!("--application {ID}"), false),
            (format!("--application {ID} --code 1 --qr x"), false),
            (format!("--application {ID} --qr x"), false),
            ("--qr x --no-hardware --bad-hardware-signature".to_owned(), false),
            ("--qr x --pin 1 --pin-file f".to_owned(), false),
            ("--qr x --bad-hardware-signature --no-hardware-signature".to_owned(), false),
        ] {
            assert_eq!(parse(&format!("device activate {words}")).is_ok(), fits, "{words}");
        }
    }

    #[test]
    fn no_secret_of_the_command_line_is_in_debug() {
        let line = format!("device activate --application {ID} --code 8642 --pin 2580 --json");
        let shown = format!("{:?}", parse(&line).unwrap());
        assert!(!shown.contains("8642") && !shown.contains("2580"), "{shown}");
        assert!(!format!("{:?}", parse("device activate --qr 8642").unwrap()).contains("8642"));
    }

    #[test]
    fn each_flag_is_one_misbehaviour_and_some_exclude_each_other() {
        let none = Misbehaviour::default();
        let hardware = |fault| Misbehaviour { hardware: Some(fault), ..none.clone() };
        let software = |fault| Misbehaviour { software: Some(fault), ..none.clone() };
        let twice = |how| Misbehaviour { repetition: Some(how), ..none.clone() };
        for (flag, wanted) in [
            ("--yes", none.clone()),
            ("--wrong-pin", Misbehaviour { wrong_pin: true, ..none.clone() }),
            ("--wrong-device-token", Misbehaviour { wrong_device_token: true, ..none.clone() }),
            ("--bad-signature", software(SoftwareFault::BadSignature)),
            ("--malformed-signature", software(SoftwareFault::Malformed)),
            ("--bad-hardware-signature", hardware(HardwareFault::BadSignature)),
            ("--malformed-hardware-signature", hardware(HardwareFault::Malformed)),
            ("--no-hardware-signature", hardware(HardwareFault::NoSignature)),
            ("--lost-hardware-key", hardware(HardwareFault::KeyLost)),
            ("--hardware-unavailable", hardware(HardwareFault::KeyUnavailable)),
            ("--hardware-refuses", hardware(HardwareFault::SigningFailed)),
            ("--replay", twice(Repetition::Same)),
            ("--changed-replay", twice(Repetition::Changed)),
        ] {
            assert_eq!(misbehaviour(&authenticating(flag)), wanted, "{flag}");
        }
        let old = authentication_options(&authenticating("--old-client")).unwrap();
        assert_eq!(old.client_version.as_deref(), Some("3.7"));
        for both in [
            "--yes --reject",
            "--replay --changed-replay",
            "--bad-signature --malformed-signature",
            "--lost-hardware-key --bad-hardware-signature",
            "--lost-hardware-key --hardware-refuses",
            "--hardware-unavailable --hardware-refuses",
            "--old-client --client-version 3.7",
            "--method PIN",
            "--yes --reason NOT_ME",
            "--reject --reason BORED",
            "--reject --number 42",
            "--begin THREE",
        ] {
            assert!(parse(&format!("device authenticate {both}")).is_err(), "{both}");
        }
    }

    #[test]
    fn a_pin_file_gives_its_first_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pin");
        fs::write(&path, "2580\nnot this\n").unwrap();
        let given = Pin { pin: None, pin_file: Some(path) };
        assert_eq!(pin(&given).unwrap().unwrap().as_str(), "2580");
        let missing = Pin { pin: None, pin_file: Some("/nowhere/pin".into()) };
        assert_eq!(pin(&missing).unwrap_err().exit(), Exit::Usage);
    }

    #[test]
    fn what_the_server_may_have_done_is_told_from_what_it_certainly_did_not() {
        let refused = |status| {
            let refusal = crate::device::Refusal {
                status,
                code: "busy".to_owned(),
                detail: None,
                errors: Vec::new(),
                retry_after_s: None,
            };
            DeviceError::Client(ClientError::Refused(Box::new(refusal)))
        };
        assert!(is_refusal(&refused(409)) && is_refusal(&refused(499)));
        assert!(!is_refusal(&refused(500)));
        assert!(!is_refusal(&DeviceError::Client(ClientError::TooLong { status: 200 })));
    }
}
