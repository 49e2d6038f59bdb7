//! Signs what is durable: the tree over the log, checkpoints, the guard file.
//!
//! A thread follows the durable head. At least each second while events arrive,
//! and at a clean stop, it extends the tree, syncs it, and signs a checkpoint.
//! In this order, so that no later step can be true without the earlier ones:
//!
//! 1. the records are durable (the writer has said so);
//! 2. the hashes of the tree are synced;
//! 3. the checkpoint is signed, and synced to the *guard file*;
//! 4. it is published: `log/checkpoint` is replaced, callers and anchors see it.
//!
//! Where a segment of the journal ends, a checkpoint of exactly its records is
//! signed too, and kept beside the segment: so that a sealed segment, once it is
//! archived, has its evidence with it.
//!
//! The guard file, best on another disk, is what the next start compares the
//! log with: a log that is shorter or another one is refused. Whoever restores
//! the whole machine, guard file and all, from an old copy is not seen by it;
//! only someone who holds a later checkpoint sees that.

mod files;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use engine::ids::Position;
use tokio::sync::watch;

use crate::block::Head;
use crate::disk::{self, Disk, Open, Privacy};
use crate::journal::{self, KnownHead};
use crate::keys::{KeyError, KeyStore, SecretName};
use crate::merkle::{self, Hash, Missing, TileId, Tiles};
use crate::note::{Checkpoint, LogSigner, Note, NoteError, Signed, VerifierKey};
use crate::open::Fatal;
use crate::reader::{LogReader, ReadError};
use crate::record::{self, Chain};
use crate::succession::Succession;
use files::{GrowingTree, TileFiles};

/// Name of the latest checkpoint in the folder `log/`.
pub const CHECKPOINT_FILE: &str = "checkpoint";
/// Name of the file with the verifier key in the folder `log/`.
pub const KEY_FILE: &str = "checkpoint-key";
/// Records that are read from the log at a time.
const STEP: usize = 4_096;
/// Longest guard file that is read, in bytes.
const GUARD_MAX: u64 = 64 * 1024;

/// How the notary works.
#[derive(Clone)]
pub struct Options {
    /// The guard file.
    pub guard: PathBuf,
    /// Where all of it is written.
    pub disk: Arc<dyn Disk>,
    /// How often a checkpoint is signed at most, in milliseconds; none where only
    /// [`Notary::sign_now`] signs.
    pub every_ms: Option<u64>,
    /// Called when the process must not go on.
    pub fatal: Fatal,
}

/// Why the notary does not work.
#[derive(Debug, thiserror::Error)]
pub enum NotaryError {
    /// A file operation failed.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A record cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The signing key cannot be read.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// The origin line cannot name a key.
    #[error(transparent)]
    Name(#[from] NoteError),
    /// The journal's folder cannot be listed.
    #[error(transparent)]
    Journal(#[from] journal::OpenError),
    /// The guard file cannot be understood.
    #[error("{}: not a guard file of this log; put back the newest copy of it, or, after making sure that the log is the newest one, delete it", path.display())]
    Guard {
        /// The file.
        path: PathBuf,
    },
    /// The log is not the one that was signed.
    #[error(
        "rollback: the log has another history than the checkpoint of size {size} that was signed before; put back the newest copy of the folder log/"
    )]
    Rollback {
        /// The checkpoint's size.
        size: u64,
    },
    /// A checkpoint kept elsewhere is of another history.
    #[error(
        "rollback: {holder} holds a checkpoint of size {size} of another history of this log; put back the newest copy of the folder log/"
    )]
    OtherHistory {
        /// Who holds it.
        holder: String,
        /// The checkpoint's size.
        size: u64,
    },
    /// A checkpoint kept elsewhere is not of this log, or not signed by its key.
    #[error(
        "{holder} holds a checkpoint that this log has not signed: put back the log and the keys that it is of, or keep the checkpoints of each log in a place of their own"
    )]
    Foreign {
        /// Who holds it.
        holder: String,
    },
    /// A hash of the tree is not there.
    #[error(transparent)]
    Missing(#[from] Missing),
    /// The thread has stopped.
    #[error("the notary has stopped")]
    Stopped,
}

/// What the guard file says: a checkpoint and the log's chain value there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guard {
    /// The signed checkpoint.
    pub note: Note,
    /// What it says.
    pub checkpoint: Checkpoint,
    /// Chain value of the last record it covers.
    pub chain: Chain,
}

impl Guard {
    /// Reads a guard file; none if there is none.
    ///
    /// # Errors
    ///
    /// [`NotaryError::Guard`], [`NotaryError::Io`].
    pub fn read(disk: &dyn Disk, path: &Path) -> Result<Option<Self>, NotaryError> {
        let failed = |source| NotaryError::Io { path: path.to_owned(), source };
        if !disk.exists(path).map_err(failed)? {
            return Ok(None);
        }
        let file = disk.open(path, Open::Read).map_err(failed)?;
        let length = file.len().map_err(failed)?;
        let strange = || NotaryError::Guard { path: path.to_owned() };
        if length > GUARD_MAX {
            return Err(strange());
        }
        let mut bytes = vec![0; length as usize];
        file.read_exact_at(&mut bytes, 0).map_err(failed)?;
        Self::parse(&bytes).map(Some).ok_or_else(strange)
    }

    /// What it says of a durable head, for whoever opens the log.
    #[must_use]
    pub fn known_head(&self) -> KnownHead {
        KnownHead {
            source: "the guard file".to_owned(),
            size: self.checkpoint.size,
            chain: Some(self.chain),
        }
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let (first, note) = text.split_once('\n')?;
        let chain = blake3::Hash::from_hex(first.strip_prefix("chain ")?).ok()?;
        let note: Note = note.parse().ok()?;
        let checkpoint = Checkpoint::of_text(&note.text).ok()?;
        let guard = Self { note, checkpoint, chain: *chain.as_bytes() };
        // One spelling: nothing in the file may change unseen.
        (guard.text() == text).then_some(guard)
    }

    fn text(&self) -> String {
        format!("chain {}\n{}", blake3::Hash::from_bytes(self.chain).to_hex(), self.note)
    }
}

/// What the checkpoint beside the log in the folder `dir` says of a durable
/// head, for whoever opens the log and may have lost the guard file. None if
/// there is none, or none that is signed with the key beside it.
#[must_use]
pub fn head_beside(disk: &dyn Disk, dir: &Path) -> Option<KnownHead> {
    let text = |name| {
        let bytes = disk.read(&dir.join("log").join(name), GUARD_MAX).ok()?;
        String::from_utf8(bytes).ok()
    };
    let note: Note = text(CHECKPOINT_FILE)?.parse().ok()?;
    let key: VerifierKey = text(KEY_FILE)?.parse().ok()?;
    let checkpoint = Checkpoint::of_text(&note.text).ok()?;
    let signed = matches!(key.verify(&note), Ok(Some(Signed::Log)));
    let source = "the checkpoint beside it".to_owned();
    signed.then_some(KnownHead { source, size: checkpoint.size, chain: None })
}

/// A checkpoint that was published once and kept elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Who holds it, for messages: "the folder /worm".
    pub holder: String,
    /// The checkpoint.
    pub note: Note,
}

/// What the notary has signed last, and the tree behind it. Cheap to clone.
#[derive(Clone)]
pub struct Evidence {
    files: TileFiles,
    latest: watch::Receiver<Option<Arc<Guard>>>,
    succession: Arc<Succession>,
}

impl Evidence {
    /// The latest published checkpoint; none before the first record.
    #[must_use]
    pub fn latest(&self) -> Option<Arc<Guard>> {
        self.latest.borrow().clone()
    }

    /// Tells of each published checkpoint; those in between may be skipped.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Option<Arc<Guard>>> {
        self.latest.clone()
    }

    /// The public half of the key that signs.
    #[must_use]
    pub fn verifier(&self) -> &VerifierKey {
        self.succession.latest()
    }

    /// The public half of the key that has signed a checkpoint over `size` records.
    #[must_use]
    pub fn verifier_for(&self, size: u64) -> &VerifierKey {
        self.succession.key_for(size)
    }

    /// The inclusion proof of a record in the tree of `size`, which must not be
    /// beyond the latest checkpoint.
    ///
    /// # Errors
    ///
    /// [`Missing`].
    pub fn inclusion_proof(&self, index: u64, size: u64) -> Result<Vec<Hash>, Missing> {
        merkle::inclusion_proof(&self.files, index, size)
    }

    /// The proof that the tree of `size` continues the tree of `old`.
    ///
    /// # Errors
    ///
    /// [`Missing`].
    pub fn consistency_proof(&self, old: u64, size: u64) -> Result<Vec<Hash>, Missing> {
        merkle::consistency_proof(&self.files, old, size)
    }

    /// The first `width` hashes of a tile, if they are below the latest checkpoint.
    ///
    /// # Errors
    ///
    /// [`Missing`].
    pub fn tile(&self, id: TileId, width: u64) -> Result<Vec<Hash>, Missing> {
        let size = self.latest().map_or(0, |guard| guard.checkpoint.size);
        if width == 0 || width > merkle::width_in(id, size) {
            return Err(Missing(id));
        }
        self.files.tile(id, width as usize)
    }
}

impl fmt::Debug for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Evidence").field("latest", &self.latest()).finish_non_exhaustive()
    }
}

/// With what checkpoints are signed, and what signed before.
#[derive(Debug)]
pub struct Signing {
    /// Signs from now on.
    pub signer: LogSigner,
    /// Which key and origin line each checkpoint must have.
    pub succession: Succession,
}

/// The thread that signs. Stopping it signs what is durable by then.
pub struct Notary {
    evidence: Evidence,
    orders: mpsc::Sender<Order>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

enum Order {
    /// Sign now; answer when it is published.
    Sign(mpsc::Sender<()>),
    /// Sign and stop.
    Stop,
}

impl Notary {
    /// Starts over an open log in the folder `dir`. `guard` is what its guard
    /// file said when the log was opened.
    ///
    /// # Errors
    ///
    /// [`NotaryError::Rollback`] if the log is not the one that was signed;
    /// others as the files are.
    pub fn start(
        dir: &Path,
        log: LogReader,
        keys: &KeyStore,
        origin: &str,
        guard: Option<Guard>,
        options: Options,
    ) -> Result<Self, NotaryError> {
        Self::start_against(dir, log, keys, origin, guard, &[], options)
    }

    /// As [`Notary::start`], after holding the log against checkpoints that are
    /// kept elsewhere: nothing is signed if it contradicts one of them.
    ///
    /// # Errors
    ///
    /// As [`Notary::start`]; [`NotaryError::OtherHistory`], [`NotaryError::Foreign`].
    pub fn start_against(
        dir: &Path,
        log: LogReader,
        keys: &KeyStore,
        origin: &str,
        guard: Option<Guard>,
        held: &[Held],
        options: Options,
    ) -> Result<Self, NotaryError> {
        let secret = keys.secret(SecretName::Checkpoints)?;
        let signer = LogSigner::of_secret(origin, secret.expose())?;
        let succession = Succession::only(signer.verifier().clone());
        Self::start_signing(dir, log, Signing { signer, succession }, guard, held, options)
    }

    /// As [`Notary::start_against`], for a log whose key or origin line changed.
    ///
    /// # Errors
    ///
    /// As [`Notary::start_against`].
    pub fn start_signing(
        dir: &Path,
        log: LogReader,
        signing: Signing,
        guard: Option<Guard>,
        held: &[Held],
        options: Options,
    ) -> Result<Self, NotaryError> {
        let Signing { signer, succession } = signing;
        let guard = guard.map(|guard| known(guard, &succession, &options)).transpose()?;
        let tree_dir = dir.join("store").join("tree");
        let disk = Arc::clone(&options.disk);
        let files = TileFiles::open(&*disk, &tree_dir)
            .map_err(|source| NotaryError::Io { path: tree_dir, source })?;
        let succession = Arc::new(succession);
        let mut tree = resumed(&files, &log, guard.as_ref())?;
        for held in held {
            agrees(&mut tree, &log, &succession, held)?;
        }
        let (published, latest) = watch::channel(guard.map(Arc::new));
        let worker = Worker {
            log,
            signer,
            tree,
            options: options.clone(),
            log_dir: dir.join("log"),
            published,
        };
        worker.write_key()?;
        worker.finish_sealing()?;
        let evidence = Evidence { files, latest, succession };
        let (orders, inbox) = mpsc::channel();
        let every_ms = options.every_ms;
        let thread = thread::Builder::new()
            .name("notary".to_owned())
            .spawn(move || worker.run(&inbox, every_ms))
            .map_err(|source| NotaryError::Io { path: dir.to_owned(), source })?;
        Ok(Self { evidence, orders, thread: Mutex::new(Some(thread)) })
    }

    /// What it has signed, and the tree behind it.
    #[must_use]
    pub fn evidence(&self) -> &Evidence {
        &self.evidence
    }

    /// Signs a checkpoint over all that is durable now. Waits for the disk: not
    /// for async workers.
    ///
    /// # Errors
    ///
    /// [`NotaryError::Stopped`].
    pub fn sign_now(&self) -> Result<(), NotaryError> {
        let (done, signed) = mpsc::channel();
        self.orders.send(Order::Sign(done)).map_err(|_| NotaryError::Stopped)?;
        signed.recv().map_err(|_| NotaryError::Stopped)
    }

    /// Signs what is durable and stops. Waits for the disk.
    ///
    /// # Errors
    ///
    /// [`NotaryError::Stopped`] if it had stopped already.
    pub fn stop(&self) -> Result<(), NotaryError> {
        self.orders.send(Order::Stop).map_err(|_| NotaryError::Stopped)?;
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        thread.map_or(Ok(()), |thread| thread.join().map_err(|_| NotaryError::Stopped))
    }
}

impl fmt::Debug for Notary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notary").field("evidence", &self.evidence).finish_non_exhaustive()
    }
}

/// The guard, if it is of this log and signed by the key that signed then.
fn known(guard: Guard, succession: &Succession, options: &Options) -> Result<Guard, NotaryError> {
    let key = succession.key_for(guard.checkpoint.size);
    let signed = key.verify(&guard.note);
    if guard.checkpoint.origin == key.name && matches!(signed, Ok(Some(_))) {
        return Ok(guard);
    }
    Err(NotaryError::Guard { path: options.guard.clone() })
}

/// The tree as far as the guard knows it: from the files if they agree with the
/// guard, else made again from the log.
fn resumed(
    files: &TileFiles,
    log: &LogReader,
    guard: Option<&Guard>,
) -> Result<GrowingTree, NotaryError> {
    let signed = guard.map(|guard| &guard.checkpoint);
    if let Some(checkpoint) = signed {
        let same = merkle::root(files, checkpoint.size).is_ok_and(|root| root == checkpoint.root);
        if let Some(tree) = GrowingTree::load(files.clone(), checkpoint.size).filter(|_| same) {
            return Ok(tree);
        }
        tracing::warn!(size = checkpoint.size, "the tree is made again from the log");
    }
    let mut tree = GrowingTree::load(files.clone(), 0).ok_or(NotaryError::Stopped)?;
    let Some(checkpoint) = signed else { return Ok(tree) };
    extend(&mut tree, log, checkpoint.size)?;
    let root = merkle::root(files, checkpoint.size)?;
    if root == checkpoint.root {
        Ok(tree)
    } else {
        Err(NotaryError::Rollback { size: checkpoint.size })
    }
}

/// An error if the log does not continue a checkpoint that is kept elsewhere.
fn agrees(
    tree: &mut GrowingTree,
    log: &LogReader,
    succession: &Succession,
    held: &Held,
) -> Result<(), NotaryError> {
    let checkpoint = Checkpoint::of_text(&held.note.text)?;
    if let Some((left, _)) = succession.former(&checkpoint.origin)
        && left < checkpoint.size
    {
        // The log says itself that what this one covers was lost.
        tracing::warn!(
            holder = held.holder,
            size = checkpoint.size,
            left,
            "a checkpoint of lost records is held, under a former origin line"
        );
        return Ok(());
    }
    let key = succession.key_for(checkpoint.size);
    let ours = checkpoint.origin == key.name && matches!(key.verify(&held.note), Ok(Some(_)));
    if !ours {
        return Err(NotaryError::Foreign { holder: held.holder.clone() });
    }
    let size = checkpoint.size;
    if size <= log.head().size {
        extend(tree, log, size)?;
        if merkle::root(tree.files(), size)? == checkpoint.root {
            return Ok(());
        }
    }
    Err(NotaryError::OtherHistory { holder: held.holder.clone(), size })
}

/// Extends the tree to `size` records and writes it.
fn extend(tree: &mut GrowingTree, log: &LogReader, size: u64) -> Result<(), NotaryError> {
    // A full disk may have left some of it unwritten.
    tree.write().map_err(of_tree)?;
    while tree.size() < size {
        let left = usize::try_from(size - tree.size()).unwrap_or(usize::MAX);
        for record in log.encoded(Position(tree.size()), left.min(STEP))? {
            tree.push(&record);
        }
        // Not all of a long log at once in memory.
        tree.write().map_err(of_tree)?;
    }
    Ok(())
}

fn of_tree(source: io::Error) -> NotaryError {
    NotaryError::Io { path: PathBuf::from("store/tree"), source }
}

/// Name of the checkpoint beside a segment, of exactly the records up to its end.
#[must_use]
pub fn sealed_name(first: Position) -> String {
    format!("segment-{:020}.checkpoint", first.0)
}

fn at(path: &Path, source: io::Error) -> NotaryError {
    NotaryError::Io { path: path.to_owned(), source }
}

/// A segment that gets no more records.
struct Sealed {
    /// Its first record.
    first: Position,
    /// The log as it was when it ended.
    end: Head,
}

/// What the thread owns.
struct Worker {
    log: LogReader,
    signer: LogSigner,
    tree: GrowingTree,
    options: Options,
    log_dir: PathBuf,
    published: watch::Sender<Option<Arc<Guard>>>,
}

impl Worker {
    fn run(mut self, inbox: &mpsc::Receiver<Order>, every_ms: Option<u64>) {
        loop {
            let order = match every_ms {
                Some(ms) => inbox.recv_timeout(Duration::from_millis(ms)),
                None => inbox.recv().map_err(|_| mpsc::RecvTimeoutError::Disconnected),
            };
            let signed = self.sign();
            if let Err(error) = &signed
                && !out_of_space(error)
            {
                // A sync that failed must not be tried again, and a log that is no
                // longer signed must not go on as if it were.
                let message = format!("checkpoints cannot be signed: {error}");
                tracing::error!("{message}");
                (self.options.fatal)(&message);
                return;
            }
            match order {
                Ok(Order::Sign(done)) if signed.is_ok() => {
                    // Whoever asked may have gone.
                    let _ = done.send(());
                }
                // Dropped unanswered: the caller learns that nothing was signed.
                Ok(Order::Sign(_)) | Err(mpsc::RecvTimeoutError::Timeout) => {}
                Ok(Order::Stop) | Err(mpsc::RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Signs and publishes a checkpoint over what is durable, if that is more
    /// than the last one covers.
    fn sign(&mut self) -> Result<(), NotaryError> {
        let head: Head = self.log.head();
        let signed = self.published.borrow().as_ref().map_or(0, |guard| guard.checkpoint.size);
        if head.size == signed {
            return Ok(());
        }
        for sealed in self.sealed(signed, head)? {
            self.sign_at(sealed.end)?;
            self.finish_sealing()?;
        }
        self.sign_at(head)
    }

    /// The segments that end after `signed` records, up to `head`.
    fn sealed(&self, signed: u64, head: Head) -> Result<Vec<Sealed>, NotaryError> {
        let firsts = journal::segments(&*self.options.disk, &self.log_dir)?;
        let mut sealed = Vec::new();
        for ends in firsts.windows(2) {
            let [first, Position(size)] = *ends else { continue };
            if size <= signed || size > head.size {
                continue;
            }
            let chain = match self.log.encoded(Position(size), 1)?.first() {
                Some(next) => record::chain_before(next).unwrap_or(head.chain),
                // The next segment has no record yet.
                None => head.chain,
            };
            sealed.push(Sealed { first, end: Head { size, chain } });
        }
        Ok(sealed)
    }

    /// Keeps the latest checkpoint beside the segment that it ends with, if it
    /// ends with one: so a process that dies before this does it at its start.
    fn finish_sealing(&self) -> Result<(), NotaryError> {
        let Some(latest) = self.published.borrow().clone() else { return Ok(()) };
        let end = Head { size: latest.checkpoint.size, chain: latest.chain };
        let before = latest.checkpoint.size.saturating_sub(1);
        let Some(sealed) = self.sealed(before, end)?.pop() else { return Ok(()) };
        let path = self.log_dir.join(sealed_name(sealed.first));
        if self.options.disk.exists(&path).map_err(|source| at(&path, source))? {
            return Ok(());
        }
        self.write(&path, latest.note.to_string().as_bytes(), Privacy::Shared)
    }

    fn sign_at(&mut self, head: Head) -> Result<(), NotaryError> {
        if self.published.borrow().as_ref().is_some_and(|it| it.checkpoint.size >= head.size) {
            return Ok(());
        }
        extend(&mut self.tree, &self.log, head.size)?;
        self.tree.sync().map_err(of_tree)?;
        let root = merkle::root(self.tree.files(), head.size)?;
        let origin = self.signer.verifier().name.clone();
        let checkpoint = Checkpoint { origin, size: head.size, root };
        let mut note = Note::new(checkpoint.text())?;
        note.signatures.push(self.signer.sign(&note.text));
        let guard = Guard { note, checkpoint, chain: head.chain };
        self.write(&self.options.guard, guard.text().as_bytes(), Privacy::Private)?;
        let checkpoint = self.log_dir.join(CHECKPOINT_FILE);
        self.write(&checkpoint, guard.note.to_string().as_bytes(), Privacy::Shared)?;
        self.published.send_replace(Some(Arc::new(guard)));
        Ok(())
    }

    /// Puts the verifier key beside the log, for people who check a copy of it.
    fn write_key(&self) -> Result<(), NotaryError> {
        let text = format!("{}\n", self.signer.verifier());
        self.write(&self.log_dir.join(KEY_FILE), text.as_bytes(), Privacy::Shared)
    }

    fn write(&self, path: &Path, bytes: &[u8], privacy: Privacy) -> Result<(), NotaryError> {
        disk::write_atomically(&*self.options.disk, path, bytes, privacy)
            .map_err(|source| NotaryError::Io { path: path.to_owned(), source })
    }
}

fn out_of_space(error: &NotaryError) -> bool {
    matches!(error, NotaryError::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull)
}
