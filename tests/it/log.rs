//! The rules on the real store: a log-in, a restart, another kernel, an auditor.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use engine::Keytrail;
use engine::command::{
    Command, CreateApiKey, CreateApplication, RequestActivation, StartActivation, StartLog, Want,
};
use engine::entries::{Entry, Key};
use engine::events::{Actor, Event};
use engine::ids::{Id, Micros, Position};
use engine::machine::{Clock, Entropy};
use engine::reasons::{ActivationState, CodeKind, UserRole};
use storage::open::{Options, Store};
use storage::sequencer::Envelope;

const ADMIN: Id = Id([0xad; 16]);
const BANK: Id = Id([0xba; 16]);
const APP: Id = Id([0xa1; 16]);
const ACTIVATION: Id = Id([0xac; 16]);

/// A clock that is moved by hand, and counted bytes for chance.
struct Still(AtomicU64);

impl Clock for Still {
    fn wall(&self) -> Micros {
        Micros(self.0.load(Ordering::SeqCst))
    }

    fn monotonic(&self) -> Micros {
        self.wall()
    }
}

impl Entropy for Still {
    fn fill(&self, out: &mut [u8]) {
        for byte in out {
            *byte = self.0.fetch_add(1, Ordering::SeqCst) as u8;
        }
    }
}

pub(crate) fn options(boot: &str) -> Options {
    let clock = Arc::new(Still(AtomicU64::new(1_700_000_000_000_000)));
    let mut options = Options::new("keytrail.test/1", clock, Arc::new(Still(AtomicU64::new(1))));
    options.boot_id = Some(boot.to_owned());
    options.tick_ms = None;
    options.fatal = Arc::new(|message| panic!("{message}"));
    options
}

fn open(folder: &Path, boot: &str) -> Store<Keytrail> {
    Store::open(folder, options(boot)).unwrap()
}

/// Runs commands in order and waits for each to be durable.
pub(crate) fn run(store: &Store<Keytrail>, wants: Vec<Want>, first: u8) -> Vec<Event> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut events = Vec::new();
    for (number, want) in (first..).zip(wants) {
        let event_id = Id([number; 16]).first_of_command();
        let command = Command { event_id, want };
        let envelope = Envelope { command, causation: event_id, correlation: Id::NIL };
        let executed = runtime.block_on(store.handle.execute(envelope)).unwrap();
        events.extend(executed.records.iter().map(|record| {
            let draft = &record.draft;
            Event::decode(draft.event_type, draft.schema, &draft.clear).unwrap()
        }));
    }
    events
}

/// Asks for an activation with so many sealed bytes.
pub(crate) fn request(activation: Id, sealed: usize) -> Want {
    Want::RequestActivation(RequestActivation {
        by: Actor { api_key: BANK, request: None },
        application: APP,
        registration: activation,
        again: false,
        activation,
        code_hash: hash_of(activation, 3),
        qr_hash: hash_of(activation, 4),
        subject: Id([5; 16]),
        sealed: vec![6; sealed],
    })
}

fn hash_of(id: Id, what: u8) -> [u8; 32] {
    let mut hash = [what; 32];
    hash[..16].copy_from_slice(&id.0);
    hash
}

pub(crate) fn beginning() -> Vec<Want> {
    let by = |api_key| Actor { api_key, request: None };
    vec![
        Want::StartLog(StartLog {
            origin: "keytrail.test/1".into(),
            software: "0.1.0".into(),
            key: ADMIN,
            secret_hash: [1; 32],
        }),
        Want::CreateApiKey(CreateApiKey {
            by: by(ADMIN),
            key: BANK,
            role: UserRole::ServiceProvider,
            service_provider: "bank".into(),
            name: "back end".into(),
            secret_hash: [2; 32],
        }),
        Want::CreateApplication(CreateApplication {
            by: by(ADMIN),
            application: APP,
            name: "app".into(),
            service_provider: "bank".into(),
            properties: vec![("failures_allowed".into(), "5".into())],
        }),
        Want::RequestActivation(RequestActivation {
            by: by(BANK),
            application: APP,
            registration: Id([0x4e; 16]),
            again: false,
            activation: ACTIVATION,
            code_hash: [3; 32],
            qr_hash: [4; 32],
            subject: Id([5; 16]),
            sealed: vec![6; 40],
        }),
    ]
}

fn redeem() -> Want {
    Want::StartActivation(StartActivation {
        activation: ACTIVATION,
        with: CodeKind::Typed,
        nonce_hash: [7; 32],
        challenge: [8; 32],
        client_version: "3.8".into(),
    })
}

fn activation_state(store: &Store<Keytrail>) -> ActivationState {
    match store.state.get(&Key::Activation(ACTIVATION)).as_deref() {
        Some(Entry::Activation(activation)) => activation.state,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_code_survives_a_restart_and_state_made_again_under_another_kernel_is_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), "one");
    let events = run(&store, beginning(), 1);
    assert_eq!(events.len(), 5, "the log's start makes two");
    store.close().unwrap();

    let store = open(folder.path(), "one");
    assert_eq!(activation_state(&store), ActivationState::Requested);
    run(&store, vec![redeem()], 50);
    assert_eq!(activation_state(&store), ActivationState::Started, "seen at once");
    let digest = store.digest().unwrap();
    assert_eq!(digest.0, Position(6));
    store.close().unwrap();

    // Everything derived is deleted: what comes back comes from the log alone.
    std::fs::remove_dir_all(folder.path().join("store")).unwrap();
    let store = open(folder.path(), "two");
    assert_eq!(store.digest().unwrap(), digest);
    assert_eq!(store.report.replayed, 6);
    let record = store.log.record(Position(4)).unwrap();
    assert_eq!(record.draft.sealed, [6; 40]);
    store.close().unwrap();
}

/// What opening finds after a log of five records was stopped cleanly and then
/// harmed, its second copy left alone: how many records, or why it refuses.
fn after(harm: fn(&Path)) -> Result<u64, String> {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), "one");
    run(&store, beginning(), 1);
    let before = store.log.record(Position(4)).unwrap();
    store.close().unwrap();
    harm(&folder.path().join("log"));
    let store = Store::<Keytrail>::open(folder.path(), options("one"))
        .map_err(|error| format!("{error}"))?;
    let size = store.log.head().size;
    if size == 5 {
        assert_eq!(store.log.record(Position(4)).unwrap(), before);
    }
    store.close().unwrap();
    Ok(size)
}

fn segments(log: &Path) -> Vec<std::path::PathBuf> {
    std::fs::read_dir(log)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().contains("segment-"))
        .collect()
}

/// Nothing that was acknowledged is lost: it is restored, or opening says no.
#[track_caller]
fn kept_or_refused(found: &Result<u64, String>) {
    println!("{found:?}");
    match found {
        Ok(size) => assert_eq!(*size, 5, "acknowledged records are gone, and nobody said so"),
        Err(message) => assert!(message.len() > 20, "a refusal says what to do: {message}"),
    }
}

#[test]
fn a_flipped_bit_in_the_last_group_loses_nothing() {
    kept_or_refused(&after(|log| {
        for path in segments(log) {
            let mut bytes = std::fs::read(&path).unwrap();
            let Some(end) = bytes.iter().rposition(|&byte| byte != 0) else { continue };
            bytes[end] ^= 1;
            std::fs::write(path, bytes).unwrap();
        }
    }));
}

#[test]
fn a_deleted_segment_loses_nothing() {
    kept_or_refused(&after(|log| {
        segments(log).into_iter().for_each(|path| std::fs::remove_file(path).unwrap());
    }));
}

#[test]
fn a_deleted_log_folder_loses_nothing() {
    kept_or_refused(&after(|log| std::fs::remove_dir_all(log).unwrap()));
}
