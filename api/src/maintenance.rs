//! What an operator does to the evidence of a stopped server: replaces the key
//! that signs checkpoints, or goes on after records were lost.
//!
//! Both take the folder's lock, so no server runs meanwhile, and nothing happens
//! in the log by itself: it gets the one event and no other.

use std::path::Path;
use std::sync::Arc;

use engine::Keytrail;
use engine::command::{Command, Refusal, Want};
use engine::events::{EpochBegunV1, Event, KeyRotatedV1};
use engine::ids::Position;
use engine::machine::fresh_id;
use replay::proof::{Hash, Roots};
use storage::disk::Disk;
use storage::keys::rotation;
use storage::notary::{CHECKPOINT_FILE, Guard, Notary, NotaryError};
use storage::note::{Checkpoint, LogSigner, NOTE_MAX, Note, NoteError, VerifierKey};
use storage::open::{OpenError, Options, Store};
use storage::reader::{LogReader, ReadError};
use storage::sequencer::{Envelope, ExecuteError, Stopped};
use storage::succession::rotation_text;

use crate::anchors::{self, Anchors, COSIGNED_FILE};
use crate::service::{Opened, Ports, StartError, notary_options, open_blocking, options};
use crate::settings::Settings;
use crate::signing::{Established, SigningError};

/// Records that are read at a time.
const STEP: usize = 4_096;

/// Why it was not done. The folder can be opened as before, or says why not.
#[derive(Debug, thiserror::Error)]
pub enum MaintenanceError {
    /// The folder does not open as a server would open it.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The store cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// An anchor cannot be asked.
    #[error(transparent)]
    Anchors(#[from] anchors::StartError),
    /// The key is not there, or not the log's.
    #[error(transparent)]
    Signing(#[from] SigningError),
    /// The notary failed.
    #[error(transparent)]
    Notary(#[from] NotaryError),
    /// The event could not be written.
    #[error("the event could not be written")]
    Execute(#[from] ExecuteError<Refusal>),
    /// The store did not stop cleanly.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// There is no log, or it has no record.
    #[error("there is no log here that has a record")]
    Empty,
    /// Nothing was lost, as far as anything here tells.
    #[error(
        "nothing here shows that records were lost: neither the guard file nor an anchor is ahead of the log or contradicts it; start the server as usual"
    )]
    NothingLost,
    /// A file cannot be read or changed.
    #[error("cannot use {what}")]
    Io {
        /// The file.
        what: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

impl From<NoteError> for MaintenanceError {
    fn from(error: NoteError) -> Self {
        Self::Signing(error.into())
    }
}

impl From<ReadError> for MaintenanceError {
    fn from(error: ReadError) -> Self {
        Self::Notary(error.into())
    }
}

impl From<storage::keys::KeyError> for MaintenanceError {
    fn from(error: storage::keys::KeyError) -> Self {
        Self::Signing(error.into())
    }
}

/// A key that took the place of another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotated {
    /// The key until now.
    pub old: VerifierKey,
    /// The key from now on.
    pub new: VerifierKey,
    /// Position of the event: the old key has signed for that many records.
    pub position: u64,
}

/// The options of a store in which nothing happens by itself.
fn quiet(settings: &Settings, ports: &Ports, disk: &Arc<dyn Disk>) -> Options {
    let options = options(settings, ports, Arc::clone(disk));
    Options { tick_ms: None, time_acts: false, ..options }
}

/// An error where there is no log: opening the folder would begin one.
fn begun_before(disk: &dyn Disk, settings: &Settings) -> Result<(), MaintenanceError> {
    let origin = settings.data.join("log").join("origin");
    let there = disk.exists(&origin).map_err(|source| io(&origin, source))?;
    if there { Ok(()) } else { Err(MaintenanceError::Empty) }
}

/// Replaces the key that signs checkpoints.
///
/// # Errors
///
/// [`MaintenanceError`].
pub fn rotate_key(
    settings: &Settings,
    ports: &Ports,
    disk: &Arc<dyn Disk>,
    fatal: Option<storage::open::Fatal>,
) -> Result<Rotated, MaintenanceError> {
    begun_before(&**disk, settings)?;
    let mut options = quiet(settings, ports, disk);
    options.fatal = fatal.unwrap_or(options.fatal);
    let to_notary = notary_options(settings, &options);
    let Opened { store, notary, .. } = open_blocking(settings, options, Arc::clone(&ports.clock))?;
    // All that is there, with the old key.
    notary.stop()?;
    let latest = notary.evidence().latest().ok_or(MaintenanceError::Empty)?;
    let old = Established::of(&store, &**disk)?;
    let old_signer = old.signer()?;
    let dir = store.keys.dir().to_owned();
    let secret = rotation::prepare(&**disk, &dir, &*ports.entropy)?;
    let new_signer = LogSigner::of_secret(&old.origin, secret.expose())?;
    let rotated = statement(&latest.checkpoint, &old_signer, &new_signer);
    execute(&store, ports, Want::RotateKey(Box::new(rotated)))?;
    // The log names the new key: from here on a start finishes what is left, and so
    // does this.
    let signing = Established::of(&store, &**disk)?.signing()?;
    let (old, new) = (old_signer.verifier().clone(), signing.signer.verifier().clone());
    let guard = Some(Guard::clone(&latest));
    let notary =
        Notary::start_signing(&settings.data, store.log.clone(), signing, guard, &[], to_notary)?;
    notary.stop()?;
    store.close()?;
    Ok(Rotated { old, new, position: latest.checkpoint.size })
}

/// What both keys sign, and that they did.
fn statement(checkpoint: &Checkpoint, old: &LogSigner, new: &LogSigner) -> KeyRotatedV1 {
    let Checkpoint { origin, size, root } = checkpoint;
    let text = rotation_text(*size, root, old.verifier(), new.verifier());
    KeyRotatedV1 {
        origin: origin.clone(),
        size: *size,
        root: *root,
        old_key: old.public_key().to_stored(),
        new_key: new.public_key().to_stored(),
        old_signature: old.sign(&text).signature,
        new_signature: new.sign(&text).signature,
    }
}

fn execute(store: &Store<Keytrail>, ports: &Ports, want: Want) -> Result<(), MaintenanceError> {
    let fresh = || fresh_id(&*ports.clock, &*ports.entropy);
    let event_id = fresh().first_of_command();
    let command = Command { event_id, want };
    let envelope = Envelope { command, causation: fresh(), correlation: event_id };
    store.handle.execute_blocking(envelope)?;
    Ok(())
}

/// A log that goes on without records that it had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// What the log says of it.
    pub begun: EpochBegunV1,
    /// The key that signs, under the new origin line.
    pub key: VerifierKey,
}

/// Begins a new epoch of a log that is shorter than, or another than, what was
/// signed of it.
///
/// # Errors
///
/// [`MaintenanceError::NothingLost`] where it is neither; others.
pub fn recover(
    settings: &Settings,
    ports: &Ports,
    disk: &Arc<dyn Disk>,
) -> Result<Recovered, MaintenanceError> {
    begun_before(&**disk, settings)?;
    let options = quiet(settings, ports, disk);
    let to_notary = notary_options(settings, &options);
    let guard = Guard::read(&**disk, &to_notary.guard)?;
    let mut anchors = Anchors::new(settings, Arc::clone(&ports.clock), Arc::clone(disk))?;
    let (_, held) = anchors.ask(&settings.data, guard.as_ref())?;
    // Without the heads that are known: the log is taken as it is.
    let store = Store::<Keytrail>::open(&settings.data, options)?;
    let log = store.log.clone();
    if log.head().size == 0 {
        return Err(MaintenanceError::Empty);
    }
    let established = Established::of(&store, &**disk)?;
    let notes = held.into_iter().map(|held| held.note);
    let notes = guard.map(|guard| guard.note).into_iter().chain(notes);
    let notes: Vec<_> = notes.chain(published(&**disk, &settings.data)).collect();
    let lost = last_lost(&log, &established, &notes)?;
    let begun = match begun_for(&log, &lost)? {
        // An earlier try came this far.
        Some(begun) => begun,
        None => begin(&store, ports, &established, &lost)?,
    };
    let signing = Established::of(&store, &**disk)?.signing()?;
    let key = signing.signer.verifier().clone();
    let cosigned = settings.data.join("log").join(COSIGNED_FILE);
    if disk.exists(&cosigned).map_err(|source| io(&cosigned, source))? {
        disk.remove(&cosigned).map_err(|source| io(&cosigned, source))?;
    }
    let dir = &settings.data;
    let notary = Notary::start_signing(dir, log, signing, None, &[], to_notary)?;
    notary.stop()?;
    store.close()?;
    Ok(Recovered { begun, key })
}

fn io(path: &Path, source: std::io::Error) -> MaintenanceError {
    MaintenanceError::Io { what: path.display().to_string(), source }
}

/// The checkpoint beside the log.
fn published(disk: &dyn Disk, data: &Path) -> Option<Note> {
    let bytes = disk.read(&data.join("log").join(CHECKPOINT_FILE), NOTE_MAX as u64).ok()?;
    std::str::from_utf8(&bytes).ok()?.parse().ok()
}

/// The largest checkpoint that this log's keys have signed and that the log does
/// not contain.
fn last_lost(
    log: &LogReader,
    established: &Established,
    notes: &[Note],
) -> Result<(Checkpoint, Note), MaintenanceError> {
    let succession = established.succession()?;
    let read = |note: &Note| Some((Checkpoint::of_text(&note.text).ok()?, note.clone()));
    let mut known: Vec<_> = notes.iter().filter_map(read).collect();
    known.sort_by_key(|(checkpoint, _)| checkpoint.size);
    let (head, mut roots) = (log.head().size, Roots::default());
    let mut lost = None;
    for (checkpoint, note) in known {
        // Under whatever origin line: of an epoch that was lost as well.
        let signed = [succession.latest(), succession.key_for(checkpoint.size)]
            .into_iter()
            .filter_map(VerifierKey::ecdsa_key)
            .filter_map(|key| VerifierKey::ecdsa(&checkpoint.origin, key).ok())
            .any(|key| matches!(key.verify(&note), Ok(Some(_))));
        let contained =
            checkpoint.size <= head && grown(&mut roots, log, checkpoint.size)? == checkpoint.root;
        if signed && !contained {
            lost = Some((checkpoint, note));
        }
    }
    lost.ok_or(MaintenanceError::NothingLost)
}

/// The root over `size` records, no fewer than `roots` has by now.
fn grown(roots: &mut Roots, log: &LogReader, size: u64) -> Result<Hash, MaintenanceError> {
    while roots.size() < size {
        let left = usize::try_from(size - roots.size()).unwrap_or(usize::MAX);
        for record in log.encoded(Position(roots.size()), left.min(STEP))? {
            roots.push(&record);
        }
    }
    Ok(roots.root())
}

/// The event that began an epoch for this loss, if that is the log's last record.
fn begun_for(
    log: &LogReader,
    (_, note): &(Checkpoint, Note),
) -> Result<Option<EpochBegunV1>, MaintenanceError> {
    let record = log.record(Position(log.head().size - 1))?;
    let draft = &record.draft;
    Ok(match Event::decode(draft.event_type, draft.schema, &draft.clear) {
        Ok(Event::EpochBegun(begun)) if begun.known_note == note.to_string() => Some(*begun),
        Ok(_) | Err(_) => None,
    })
}

fn begin(
    store: &Store<Keytrail>,
    ports: &Ports,
    established: &Established,
    (known, note): &(Checkpoint, Note),
) -> Result<EpochBegunV1, MaintenanceError> {
    let size = store.log.head().size;
    let begun = EpochBegunV1 {
        // Drawn: the same copy put back twice must not go on twice under one name.
        origin: format!("{}/{}", store.origin, fresh_id(&*ports.clock, &*ports.entropy)),
        previous_origin: established.origin.clone(),
        size,
        root: grown(&mut Roots::default(), &store.log, size)?,
        known_size: known.size,
        known_root: known.root,
        known_note: note.to_string(),
    };
    execute(store, ports, Want::BeginEpoch(Box::new(begun.clone())))?;
    Ok(begun)
}
