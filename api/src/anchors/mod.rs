//! Anchors: places outside the machine that get each checkpoint.
//!
//! A log alone cannot show that its newest part was cut off, or that all of it
//! was put back from an older copy. Somebody who holds a later checkpoint can.
//! There are three kinds: a folder ([`directory`]: WORM storage, a pick-up for
//! mail or a SIEM), an HTTP endpoint ([`remote::Post`]) and a witness
//! ([`remote::WitnessClient`], C2SP tlog-witness), which alone also judges.
//!
//! They are asked at the start, before the log is written to ([`Anchors::ask`]),
//! once more with proofs before anybody is served ([`Anchors::round`]), and fed
//! while the server runs ([`follow`]). None of this ever holds up the writer or
//! the notary: they publish, and an anchor that is slow gets fewer checkpoints.

pub mod board;
pub mod directory;
pub mod remote;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use engine::ids::Micros;
use engine::machine::Clock;
use storage::disk::{self, Disk, Privacy};
use storage::journal::KnownHead;
use storage::notary::{CHECKPOINT_FILE, Evidence, Guard, Held};
use storage::note::{Checkpoint, Note, SignatureLine};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use crate::settings::Settings;
use board::{Board, Cosigned, Kind};
use directory::Directory;
use remote::{Post, WitnessClient};

/// Name of the latest cosigned checkpoint in the folder `log/`.
pub const COSIGNED_FILE: &str = "checkpoint-cosigned";
/// Longest wait before an anchor that failed is tried again, in seconds.
const BACKOFF_S_MAX: u64 = 60;

/// Why an anchor did not take a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnchorError {
    /// It knows more of the log than there is.
    #[error("rollback: it knows {theirs} records of this log, which has {ours}")]
    Ahead {
        /// Records that it knows.
        theirs: u64,
        /// Records that the latest checkpoint covers.
        ours: u64,
    },
    /// It knows another history.
    #[error("rollback or two histories: this log does not continue the {size} records it knows")]
    OtherHistory {
        /// Records that it knows.
        size: u64,
    },
    /// It could not be reached, or its answer cannot be used.
    #[error("{0}")]
    Failed(String),
}

impl AnchorError {
    /// Whether it contradicts the log, and is not merely out of order.
    #[must_use]
    pub fn is_alarm(&self) -> bool {
        match self {
            Self::Ahead { .. } | Self::OtherHistory { .. } => true,
            Self::Failed(_) => false,
        }
    }
}

/// Why anchors keep the server from starting.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting of them cannot be used.
    #[error("anchor {name} cannot be used: {why}")]
    Setting {
        /// Its name.
        name: String,
        /// Why not.
        why: String,
    },
    /// One contradicts the log.
    #[error("anchor {name}: {why}; put back the newest copy of the folder log/")]
    Contradicted {
        /// Its name.
        name: String,
        /// How.
        why: AnchorError,
    },
    /// One does not answer, and all are required.
    #[error("anchor {name} is required (require_anchors) and does not answer: {why}")]
    Silent {
        /// Its name.
        name: String,
        /// What it did instead.
        why: AnchorError,
    },
}

enum Anchor {
    Directory(Directory),
    Post(Post),
    Witness(WitnessClient),
}

impl Anchor {
    fn kind(&self) -> Kind {
        match self {
            Self::Directory(_) => Kind::Directory,
            Self::Post(_) => Kind::Url,
            Self::Witness(_) => Kind::Witness,
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Directory(directory) => directory.name(),
            Self::Post(post) => post.name().to_owned(),
            Self::Witness(witness) => witness.name().to_owned(),
        }
    }

    /// What it knows of the log, asked with a checkpoint that the log has signed.
    fn ask(&mut self, signed: Option<&Note>) -> Result<Answer, AnchorError> {
        match self {
            Self::Directory(directory) => directory.newest().map(|held| match held {
                Some((size, note)) => Answer::Holds(size, note),
                None => Answer::Nothing,
            }),
            // It takes and does not tell.
            Self::Post(_) => Ok(Answer::Nothing),
            Self::Witness(witness) => match signed {
                Some(note) => witness.ask(note).map(Answer::Knows),
                None => Ok(Answer::Nothing),
            },
        }
    }

    fn submit(
        &mut self,
        latest: &Guard,
        evidence: &Evidence,
    ) -> Result<Option<SignatureLine>, AnchorError> {
        match self {
            Self::Directory(directory) => directory.submit(latest).map(|()| None),
            Self::Post(post) => post.submit(latest).map(|()| None),
            Self::Witness(witness) => witness.submit(latest, evidence).map(Some),
        }
    }
}

/// What an anchor says that it knows.
enum Answer {
    Nothing,
    Knows(u64),
    Holds(u64, Note),
}

/// An anchor and how it is going.
struct Watched {
    anchor: Anchor,
    name: String,
    /// Size of the last checkpoint that it took.
    taken: Option<u64>,
    failures: u32,
    /// Not tried again before this monotonic time.
    not_before: Micros,
}

/// All anchors of a server, and who feeds them.
pub struct Anchors {
    list: Vec<Watched>,
    board: Arc<Board>,
    clock: Arc<dyn Clock>,
    disk: Arc<dyn Disk>,
    cosigned: PathBuf,
    every: Duration,
    required: bool,
}

impl Anchors {
    /// The anchors that the settings name.
    ///
    /// # Errors
    ///
    /// [`StartError::Setting`].
    pub fn new(
        settings: &Settings,
        clock: Arc<dyn Clock>,
        disk: Arc<dyn Disk>,
    ) -> Result<Self, StartError> {
        let mut list = Vec::new();
        if let Some(dir) = &settings.anchor_dir {
            list.push(Anchor::Directory(Directory::new(dir, Arc::clone(&disk))));
        }
        let ca = settings.anchor_ca.as_deref();
        let unusable = |name: &str, why| StartError::Setting { name: name.to_owned(), why };
        if let Some(url) = &settings.anchor_url {
            let token = settings.anchor_token_file.as_deref();
            list.push(Anchor::Post(Post::new(url, ca, token).map_err(|why| unusable(url, why))?));
        }
        for at in &settings.witness {
            let witness = WitnessClient::new(at, ca).map_err(|why| unusable(&at.url, why))?;
            list.push(Anchor::Witness(witness));
        }
        let list: Vec<_> = list.into_iter().map(Watched::new).collect();
        let board = Board::new(list.iter().map(|anchor| (anchor.anchor.kind(), &*anchor.name)));
        Ok(Self {
            list,
            board: Arc::new(board),
            clock,
            disk,
            cosigned: settings.data.join("log").join(COSIGNED_FILE),
            every: Duration::from_secs(settings.anchor_every_s),
            required: settings.require_anchors,
        })
    }

    /// How they are, for whoever asks.
    #[must_use]
    pub fn board(&self) -> &Arc<Board> {
        &self.board
    }

    /// Asks each what it knows of the log in `data`: heads that the log must
    /// reach, and checkpoints that it must contain. `guard` is the guard file.
    ///
    /// # Errors
    ///
    /// [`StartError::Silent`] if one does not answer and they are required.
    pub fn ask(
        &mut self,
        data: &Path,
        guard: Option<&Guard>,
    ) -> Result<(Vec<KnownHead>, Vec<Held>), StartError> {
        let signed = match guard {
            Some(guard) => Some(guard.note.clone()),
            None => published(&*self.disk, data),
        };
        let (mut heads, mut held) = (Vec::new(), Vec::new());
        for watched in &mut self.list {
            let holder = format!("the anchor {}", watched.name);
            let known = match watched.anchor.ask(signed.as_ref()) {
                Ok(Answer::Nothing) => continue,
                Ok(Answer::Knows(size)) => size,
                Ok(Answer::Holds(size, note)) => {
                    held.push(Held { holder: holder.clone(), note });
                    size
                }
                Err(why) if self.required => {
                    return Err(StartError::Silent { name: watched.name.clone(), why });
                }
                Err(why) => {
                    tracing::warn!(anchor = watched.name, %why, "an anchor was not asked");
                    continue;
                }
            };
            heads.push(KnownHead { source: holder, size: known, chain: None });
        }
        Ok((heads, held))
    }

    /// Gives all of them the latest checkpoint before anybody is served.
    ///
    /// # Errors
    ///
    /// [`StartError`] if one contradicts the log, or does not take it and they
    /// are required.
    pub fn confirm(&mut self, evidence: &Evidence) -> Result<(), StartError> {
        for (name, why) in self.round(evidence, true) {
            if why.is_alarm() {
                return Err(StartError::Contradicted { name, why });
            }
            if self.required {
                return Err(StartError::Silent { name, why });
            }
        }
        Ok(())
    }

    /// Gives the latest checkpoint to those that have not taken it; with `all`
    /// also to those that failed just now. Returns what failed. Waits for the
    /// network: not for async workers.
    pub fn round(&mut self, evidence: &Evidence, all: bool) -> Vec<(String, AnchorError)> {
        let Some(latest) = evidence.latest() else { return Vec::new() };
        let (now, size) = (self.clock.monotonic(), latest.checkpoint.size);
        let due =
            |watched: &Watched| watched.taken != Some(size) && (all || watched.not_before <= now);
        let done: Vec<_> = thread::scope(|scope| {
            let started: Vec<_> = self
                .list
                .iter_mut()
                .enumerate()
                .filter(|(_, watched)| due(watched))
                .map(|(index, watched)| {
                    let latest = &latest;
                    (index, scope.spawn(move || watched.anchor.submit(latest, evidence)))
                })
                .collect();
            let gone = || Err(AnchorError::Failed("its thread is gone".to_owned()));
            started
                .into_iter()
                .map(|(index, thread)| (index, thread.join().unwrap_or_else(|_| gone())))
                .collect()
        });
        let (mut cosignatures, mut failed) = (Vec::new(), Vec::new());
        for (index, result) in done {
            self.take(index, size, now, &result);
            match result {
                Ok(cosignature) => cosignatures.extend(cosignature),
                Err(why) => failed.push((self.list[index].name.clone(), why)),
            }
        }
        self.keep_cosigned(&latest, cosignatures);
        failed
    }

    /// Notes how an anchor took it.
    fn take(
        &mut self,
        index: usize,
        size: u64,
        now: Micros,
        result: &Result<Option<SignatureLine>, AnchorError>,
    ) {
        let watched = &mut self.list[index];
        let anchor = &watched.name;
        match result {
            Ok(_) => {
                if watched.failures > 0 {
                    tracing::info!(anchor, size, "an anchor takes checkpoints again");
                }
                tracing::debug!(anchor, size, "an anchor has the checkpoint");
                (watched.taken, watched.failures) = (Some(size), 0);
                self.board.taken(index, size, self.clock.wall());
            }
            Err(why) => {
                let new = self.board.failed(index, why);
                if why.is_alarm() {
                    tracing::error!(anchor, size, %why, "AN ANCHOR CONTRADICTS THE LOG");
                } else if new {
                    tracing::warn!(anchor, size, %why, "an anchor did not take a checkpoint");
                }
                watched.failures = watched.failures.saturating_add(1);
                let wait_s = (1 << watched.failures.min(6)).min(BACKOFF_S_MAX);
                watched.not_before = Micros(now.0.saturating_add(wait_s * 1_000_000));
            }
        }
    }

    /// Publishes the checkpoint with what witnesses have said to it.
    fn keep_cosigned(&self, latest: &Guard, cosignatures: Vec<SignatureLine>) {
        if cosignatures.is_empty() {
            return;
        }
        let (checkpoint, mut note) = (latest.checkpoint.clone(), latest.note.clone());
        note.signatures.extend(cosignatures);
        let text = note.to_string();
        self.board.cosigned(Cosigned { checkpoint, note });
        let written =
            disk::write_atomically(&*self.disk, &self.cosigned, text.as_bytes(), Privacy::Shared);
        if let Err(error) = written {
            // Evidence for whoever copies the folder; the server needs it for nothing.
            tracing::warn!(%error, "the cosigned checkpoint could not be written");
        }
    }
}

impl Watched {
    fn new(anchor: Anchor) -> Self {
        let name = anchor.name();
        Self { anchor, name, taken: None, failures: 0, not_before: Micros(0) }
    }
}

impl fmt::Debug for Anchors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.list.iter().map(|watched| &watched.name).collect();
        f.debug_struct("Anchors").field("list", &names).finish_non_exhaustive()
    }
}

/// The checkpoint beside the log, for when there is no guard file.
fn published(disk: &dyn Disk, data: &Path) -> Option<Note> {
    let path = data.join("log").join(CHECKPOINT_FILE);
    let bytes = disk.read(&path, storage::note::NOTE_MAX as u64).ok()?;
    let note: Note = std::str::from_utf8(&bytes).ok()?.parse().ok()?;
    Checkpoint::of_text(&note.text).is_ok().then_some(note)
}

/// Feeds the anchors until the notary has stopped; then they get the last checkpoint.
pub async fn follow(mut anchors: Anchors, evidence: Evidence) {
    if anchors.list.is_empty() {
        return;
    }
    let mut published = evidence.watch();
    let mut ticks = interval(anchors.every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut going = true;
    while going {
        tokio::select! {
            _ = ticks.tick() => {}
            () = ended(&mut published) => going = false,
        }
        let evidence = evidence.clone();
        let round = tokio::task::spawn_blocking(move || {
            anchors.round(&evidence, !going);
            anchors
        });
        let Ok(back) = round.await else {
            tracing::error!("checkpoints go to no anchor any more: a round of them panicked");
            return;
        };
        anchors = back;
    }
}

/// Waits until the notary publishes nothing more.
async fn ended(published: &mut watch::Receiver<Option<Arc<Guard>>>) {
    while published.changed().await.is_ok() {}
}

fn failed(error: &io::Error) -> AnchorError {
    AnchorError::Failed(error.to_string())
}
