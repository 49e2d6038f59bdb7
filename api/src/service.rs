//! The whole server: HTTP over an open store, from start to clean stop.
//!
//! It listens first and opens the store then, so that a load balancer sees
//! `/readyz` say "starting" while a long log is caught up.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use actix_web::web::{self, Data};
use engine::Keytrail;
use engine::command::{Refusal, Want};
use engine::machine::{Clock, Entropy, fresh_id};
use storage::disk::{Disk, RealDisk};
use storage::keys::KeyError;
use storage::notary::{self, Guard, Notary, NotaryError};
use storage::open::{OpenError, OpenReport, Options, Store};
use storage::sequencer::{ExecuteError, Stopped};
use tokio::task::JoinHandle;

use crate::anchors::{self, Anchors};
use crate::app::{App, Slot};
use crate::auth::credential::Credential;
use crate::auth::first_key;
use crate::digests;
use crate::erasure::{self, ErasureError};
use crate::http::edge::{Edge, Peers, Phase, RequestLimits};
use crate::key_use;
use crate::refusals::WINDOW_S;
use crate::server::{self, Running, StopSignals};
use crate::settings::Settings;
use crate::signing::{Established, SigningError};

/// Longest time a request body may take to arrive, in seconds.
const BODY_S_MAX: u64 = 10;
/// Name of the guard file in the data folder, unless the settings say another place.
const GUARD_FILE: &str = "guard";
/// How often a checkpoint is signed while events arrive, in milliseconds.
const CHECKPOINT_EVERY_MS: u64 = 1_000;
/// Longest wait at a stop for anchors to take the last checkpoint.
const ANCHORED_WITHIN: Duration = Duration::from_secs(15);

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// It cannot listen.
    #[error(transparent)]
    Http(#[from] server::StartError),
    /// The store cannot be opened.
    #[error("cannot open {folder}")]
    Open {
        /// The store's folder.
        folder: String,
        /// Why not.
        source: OpenError,
    },
    /// Checkpoints cannot be signed, or the log is not the one that was signed.
    #[error("the log in {folder} is not vouched for")]
    Notary {
        /// The store's folder.
        folder: String,
        /// Why not.
        source: NotaryError,
    },
    /// The key that the log names is not there.
    #[error("the log in {folder} cannot be signed")]
    Signing {
        /// The store's folder.
        folder: String,
        /// Why not.
        source: SigningError,
    },
    /// An anchor contradicts the log, or cannot be used.
    #[error("the log in {folder} is not vouched for")]
    Anchors {
        /// The store's folder.
        folder: String,
        /// Why not.
        source: anchors::StartError,
    },
    /// A secret of the server cannot be read.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// The first administrator key could not be handed over.
    #[error("the first administrator key could not be handed over")]
    FirstKey(#[source] io::Error),
    /// The log could not be begun.
    #[error("the log could not be begun")]
    Begin(#[source] ExecuteError<Refusal>),
    /// An erasure that was ordered could not be carried out.
    #[error("a user whose erasure was ordered could not be erased")]
    Erasure(#[from] ErasureError),
    /// The thread that opened the store is gone.
    #[error("opening the store failed")]
    Gone,
}

/// Why the server did not stop cleanly. Nothing that was answered is lost.
#[derive(Debug, thiserror::Error)]
pub enum StopError {
    /// The HTTP server.
    #[error("the HTTP server did not stop cleanly")]
    Http(#[from] io::Error),
    /// The writer.
    #[error("the store did not stop cleanly")]
    Store(#[from] Stopped),
    /// The last checkpoint.
    #[error("the last checkpoint was not signed")]
    Notary(#[from] NotaryError),
    /// The thread that closed the store is gone.
    #[error("closing the store failed")]
    Gone(#[from] tokio::task::JoinError),
}

/// The machine, or what stands for it in a test.
#[derive(Clone)]
pub struct Ports {
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Unpredictable bytes.
    pub entropy: Arc<dyn Entropy>,
}

/// Takes the first administrator key of a new log.
pub type HandOver = Box<dyn FnOnce(&Credential) -> io::Result<()>>;

/// A server that runs.
pub struct Service {
    running: Running,
    store: Store<Keytrail>,
    notary: Notary,
    app: Arc<App>,
    windows: JoinHandle<()>,
    digesting: JoinHandle<()>,
    anchoring: JoinHandle<()>,
}

/// The store, who signs for it, and who holds what is signed.
pub(crate) struct Opened {
    pub(crate) store: Store<Keytrail>,
    pub(crate) notary: Notary,
    anchors: Anchors,
}

impl Service {
    /// Starts on the current actix system; ready on return.
    ///
    /// A new log begins with an administrator key that goes to `hand_over` first.
    ///
    /// # Errors
    ///
    /// [`StartError`]; nothing listens then.
    pub async fn start(
        settings: &Settings,
        ports: &Ports,
        hand_over: HandOver,
    ) -> Result<Self, StartError> {
        Self::start_on(settings, ports, Arc::new(RealDisk), hand_over).await
    }

    /// As [`Service::start`], with `disk` for everything but sled and the lock.
    ///
    /// # Errors
    ///
    /// As [`Service::start`].
    pub async fn start_on(
        settings: &Settings,
        ports: &Ports,
        disk: Arc<dyn Disk>,
        hand_over: HandOver,
    ) -> Result<Self, StartError> {
        let (edge, slot) = (edge(settings, ports), Data::new(Slot::default()));
        let routes = {
            let slot = slot.clone();
            move |config: &mut web::ServiceConfig| {
                config.app_data(slot.clone()).configure(crate::handlers::configure);
            }
        };
        let running = server::start(settings, edge.clone(), routes)?;
        match Self::open(settings, options(settings, ports, disk), ports, hand_over).await {
            Ok((opened, app)) => {
                let Opened { store, notary, anchors } = opened;
                let evidence = notary.evidence().clone();
                let anchoring = actix_web::rt::spawn(anchors::follow(anchors, evidence));
                slot.fill(Arc::clone(&app));
                edge.enter(Phase::Ready);
                let windows = actix_web::rt::spawn(write_windows(Arc::clone(&app)));
                let digests = digests::follow(Arc::clone(&app), store.digests.clone());
                let digesting = actix_web::rt::spawn(digests);
                Ok(Self { running, store, notary, app, windows, digesting, anchoring })
            }
            Err(error) => {
                // What kept the store closed is what the operator must see.
                let _ = running.stop().await;
                Err(error)
            }
        }
    }

    async fn open(
        settings: &Settings,
        options: Options,
        ports: &Ports,
        hand_over: HandOver,
    ) -> Result<(Opened, Arc<App>), StartError> {
        let settings = settings.clone();
        let of_anchors = Arc::clone(&ports.clock);
        let opened = web::block(move || open_blocking(&settings, options, of_anchors)).await;
        let opened = opened.map_err(|_| StartError::Gone)??;
        let (clock, entropy) = (Arc::clone(&ports.clock), Arc::clone(&ports.entropy));
        let evidence = opened.notary.evidence().clone();
        let app = App::new(&opened.store, evidence, clock, entropy)?;
        let app = Arc::new(app.with_anchors(Arc::clone(opened.anchors.board())));
        if app.is_new() {
            let key = first_key::generate(&*ports.clock, &*ports.entropy);
            hand_over(&key).map_err(StartError::FirstKey)?;
            app.begin(&key).await.map_err(StartError::Begin)?;
        }
        // Before any request: a copy of the key store may have brought keys back.
        let carried_out = erasure::carry_out_all(&app).await?;
        if carried_out > 0 {
            tracing::warn!(carried_out, "users were erased whose erasure was ordered before");
        }
        Ok((opened, app))
    }

    /// Its base URL.
    #[must_use]
    pub fn url(&self) -> String {
        self.running.url()
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.running.address()
    }

    /// What its handlers work with.
    #[must_use]
    pub fn app(&self) -> &Arc<App> {
        &self.app
    }

    /// Serves until the process is told to stop, then stops cleanly. Told a
    /// second time, it stops at once, as if it had been killed.
    ///
    /// # Errors
    ///
    /// [`StopError`].
    pub async fn until_stopped(self, mut signals: StopSignals) -> Result<(), StopError> {
        signals.told().await;
        tracing::info!("stopping: finishing the requests that are being served");
        tokio::select! {
            stopped = self.stop() => stopped,
            () = signals.told() => {
                Err(io::Error::other("told twice to stop; requests were cut off").into())
            }
        }
    }

    /// Takes nothing new, finishes what is being served, and closes the store.
    ///
    /// # Errors
    ///
    /// [`StopError`].
    pub async fn stop(self) -> Result<(), StopError> {
        self.app.waits.stop();
        self.running.stop().await?;
        self.windows.abort();
        write_window(&self.app).await;
        write_key_use(&self.app).await;
        self.digesting.abort();
        let store = note_last_digest(&self.app, self.store).await?;
        let notary = self.notary;
        let stopped = tokio::task::spawn_blocking(move || -> Result<(), StopError> {
            notary.stop()?;
            Ok(store.close()?)
        })
        .await?;
        // The notary has signed the last checkpoint; now it leaves the machine.
        if tokio::time::timeout(ANCHORED_WITHIN, self.anchoring).await.is_err() {
            tracing::warn!("the last checkpoint has not reached every anchor");
        }
        stopped
    }
}

/// Notes the digest of the state that a clean stop leaves. It waits for the disk.
async fn note_last_digest(app: &App, store: Store<Keytrail>) -> Result<Store<Keytrail>, StopError> {
    let asked = tokio::task::spawn_blocking(move || (store.digest_to_stop(), store));
    let (digest, store) = asked.await?;
    if let Some(digest) = digest? {
        digests::note(app, digest).await;
    }
    Ok(store)
}

/// Opens the store, after a look at the guard file and a question to each
/// anchor, and starts its notary. Nobody is served before the anchors have
/// confirmed what the notary signs.
pub(crate) fn open_blocking(
    settings: &Settings,
    mut options: Options,
    clock: Arc<dyn Clock>,
) -> Result<Opened, StartError> {
    let folder = || settings.data.display().to_string();
    let unvouched = |source| StartError::Notary { folder: folder(), source };
    let contradicted = |source| StartError::Anchors { folder: folder(), source };
    let notary = notary_options(settings, &options);
    let guard = Guard::read(&*notary.disk, &notary.guard).map_err(unvouched)?;
    options.known_heads.extend(guard.as_ref().map(Guard::known_head));
    options.known_heads.extend(notary::head_beside(&*notary.disk, &settings.data));
    let disk = Arc::clone(&options.disk);
    let mut anchors = Anchors::new(settings, clock, Arc::clone(&disk)).map_err(contradicted)?;
    let (heads, held) = anchors.ask(&settings.data, guard.as_ref()).map_err(contradicted)?;
    options.known_heads.extend(heads);
    let store = Store::<Keytrail>::open(&settings.data, options)
        .map_err(|source| StartError::Open { folder: folder(), source })?;
    tell(&store.report);
    warn_without_guard(&store, guard.as_ref(), &notary.guard);
    let signing = Established::of(&store, &*disk).and_then(|it| it.signing());
    let signing = signing.map_err(|source| StartError::Signing { folder: folder(), source })?;
    let log = store.log.clone();
    let notary = Notary::start_signing(&settings.data, log, signing, guard, &held, notary)
        .map_err(unvouched)?;
    if store.log.head().size > 0 {
        // Without space nothing more is signed; what was signed can be confirmed.
        let _ = notary.sign_now();
        anchors.confirm(notary.evidence()).map_err(contradicted)?;
    }
    Ok(Opened { store, notary, anchors })
}

/// How the notary of a server works.
pub(crate) fn notary_options(settings: &Settings, options: &Options) -> notary::Options {
    notary::Options {
        guard: settings.guard.clone().unwrap_or_else(|| settings.data.join(GUARD_FILE)),
        disk: Arc::clone(&options.disk),
        every_ms: Some(CHECKPOINT_EVERY_MS),
        fatal: Arc::clone(&options.fatal),
    }
}

fn warn_without_guard(store: &Store<Keytrail>, guard: Option<&Guard>, path: &Path) {
    if guard.is_none() && store.log.head().size > 0 {
        let path = path.display().to_string();
        tracing::warn!(
            path,
            "there is no guard file: an older copy of the whole folder could not be told from the \
             newest one"
        );
    }
}

fn edge(settings: &Settings, ports: &Ports) -> Data<Edge> {
    let limits =
        RequestLimits { request_bytes_max: settings.request_bytes_max, body_s_max: BODY_S_MAX };
    let peers = if settings.insecure_behind_proxy { Peers::BehindProxy } else { Peers::Direct };
    let (clock, entropy) = (Arc::clone(&ports.clock), Arc::clone(&ports.entropy));
    Data::new(Edge::new(clock, entropy, limits, peers))
}

pub(crate) fn options(settings: &Settings, ports: &Ports, disk: Arc<dyn Disk>) -> Options {
    let drawn = || format!("keytrail/{}", fresh_id(&*ports.clock, &*ports.entropy));
    let origin = settings.origin.clone().unwrap_or_else(drawn);
    let mut options = Options::new(&origin, Arc::clone(&ports.clock), Arc::clone(&ports.entropy));
    options.disk = disk;
    options.queue_max = settings.queue_length;
    options.cache_bytes = settings.cache_mib << 19;
    options.sled_cache_bytes = settings.cache_mib << 19;
    options.journal.limits.bytes = settings.segment_mib << 20;
    options.snapshot_every = settings.snapshot_records;
    options.progress = Some(progress(Arc::clone(&ports.clock)));
    options
}

/// Says at most once a second how far catching up has come.
fn progress(clock: Arc<dyn Clock>) -> storage::open::Progress {
    let last = std::sync::atomic::AtomicU64::new(0);
    Arc::new(move |done, of| {
        let second = clock.monotonic().0 / 1_000_000;
        if last.swap(second, std::sync::atomic::Ordering::Relaxed) != second {
            tracing::info!(done, of, "catching up with the log");
        }
    })
}

/// Puts into the log of the process what opening found and did.
fn tell(report: &OpenReport) {
    let OpenReport {
        journal,
        store_set_aside,
        state_remade,
        from_snapshot,
        replayed,
        copied,
        keys_repaired,
        lost_subjects,
        unknown_subjects,
    } = report;
    if let Some(cut) = &journal.cut {
        tracing::warn!(%cut, "an unfinished group at the end of the journal was cut");
    }
    for repaired in &journal.repaired {
        tracing::warn!(%repaired, "the journal was repaired from the second copy");
    }
    if let Some(why) = store_set_aside {
        tracing::warn!(why, "the folder store was set aside and is made again");
    }
    if let Some(why) = state_remade.as_ref().filter(|_| !journal.created) {
        let from = from_snapshot.map(|position| position.0);
        tracing::warn!(why, ?from, "state was made again from the log");
    }
    if *keys_repaired > 0 {
        tracing::warn!(keys_repaired, "keys were missing in one of the two files of subjects");
    }
    if *lost_subjects > 0 {
        tracing::warn!(lost_subjects, "keys of users are lost; that was accepted");
    }
    if *unknown_subjects > 0 {
        tracing::warn!(unknown_subjects, "records are sealed for users that keys/ has never had");
    }
    tracing::info!(replayed, copied, "the store is open");
}

/// Ends a window of refusals every [`WINDOW_S`] seconds, and one of key use
/// every [`key_use::WINDOW_S`].
async fn write_windows(app: Arc<App>) {
    let mut every = tokio::time::interval(Duration::from_secs(WINDOW_S));
    every.tick().await;
    let mut windows = 0;
    loop {
        every.tick().await;
        write_window(&app).await;
        windows += 1;
        if windows % (key_use::WINDOW_S / WINDOW_S) == 0 {
            write_key_use(&app).await;
        }
    }
}

/// Writes the counts of refusals of the present window, if there are any.
pub async fn write_window(app: &App) {
    let Some(counts) = app.refusals.take(app.clock.wall()) else { return };
    if let Err(error) = app.execute_own(Want::CountRefusals(counts.clone())).await {
        tracing::warn!(%error, "counts of refused requests wait for the next window");
        app.refusals.put_back(&counts);
    }
}

/// Writes the counts of key use of the present window, if there are any.
pub async fn write_key_use(app: &App) {
    let Some(counts) = app.key_uses.take(app.clock.wall()) else { return };
    if let Err(error) = app.execute_own(Want::CountKeyUse(counts.clone())).await {
        tracing::warn!(%error, "counts of key use wait for the next window");
        app.key_uses.put_back(&counts);
    }
}
