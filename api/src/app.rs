//! What every handler works with: the open store, the clock, who may call.
//!
//! Made once the store is open. Until then a [`Slot`] is empty, and every
//! handler that needs the store answers that the server is starting.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use actix_web::HttpRequest;
use actix_web::web::Data;
use engine::Keytrail;
use engine::command::{Command, StartLog, Want};
use engine::entries::Look;
use engine::ids::Id;
use engine::machine::{Clock, Entropy, fresh_id};
use engine::recovery::RecoveryCoder;
use storage::keys::{KeyError, KeyStore, Secret32, SecretName};
use storage::notary::Evidence;
use storage::open::Store;
use storage::reader::LogReader;
use storage::sequencer::{Envelope, ExecuteError, Handle};
use storage::state::StateReader;

use crate::anchors::board::Board;
use crate::auth::credential::{Credential, SecretHasher};
use crate::evidence::EvidenceSigner;
use crate::guesses::Guesses;
use crate::key_use::KeyUses;
use crate::offline::OfflineKeys;
use crate::problem::{ApiError, Code};
use crate::push;
use crate::refusals::Refusals;
use crate::revocation::KeptList;
use crate::waits::Waits;

/// Version of this software, as it stands in `LogStarted`.
pub(crate) const SOFTWARE: &str = concat!("keytrail ", env!("CARGO_PKG_VERSION"));

/// Derives the key for hashes of requests from that for hashes of secrets.
const REQUEST_CONTEXT: &str = "keytrail 2026-11 idempotent request key v1";

/// What every handler works with.
pub struct App {
    /// Executes commands.
    pub handle: Handle<Keytrail>,
    /// State, as far as it is durable.
    pub state: StateReader<Keytrail>,
    /// The log, as far as it is durable.
    pub log: LogReader,
    /// Checkpoints, and the tree behind them.
    pub evidence: Evidence,
    /// How anchors are, and what witnesses have cosigned.
    pub anchors: Arc<Board>,
    /// Subjects and their keys.
    pub keys: Arc<KeyStore>,
    /// The log's origin line.
    pub origin: String,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Unpredictable bytes.
    pub entropy: Arc<dyn Entropy>,
    /// Hashes the secrets of API keys.
    pub hasher: SecretHasher,
    /// Wrong activation codes.
    pub guesses: Guesses,
    /// Requests that were refused without a record of their own.
    pub refusals: Refusals,
    /// Sealed parts that were opened.
    pub key_uses: KeyUses,
    /// The revocation list that was last judged with.
    pub revocation: KeptList,
    /// Requests that wait for something to happen.
    pub waits: Waits,
    /// Signs evidence for service providers.
    pub signer: EvidenceSigner,
    /// Signs call-outs to the push hook.
    pub push_signer: push::CallOutSigner,
    /// What a phone shows that a push has reached.
    pub push_nonces: push::Nonces,
    /// How the call-outs go.
    pub push: Arc<push::Board>,
    /// What phones need to answer without a network.
    pub offline: OfflineKeys,
    /// Hashes what an idempotent request asks for.
    pub request_key: Secret32,
    /// Makes recovery codes.
    pub recovery: RecoveryCoder,
    code_key: Secret32,
    signatures_checked: AtomicU64,
}

impl App {
    /// Over an open store.
    ///
    /// # Errors
    ///
    /// [`KeyError`] if a secret of the server cannot be read.
    pub fn new(
        store: &Store<Keytrail>,
        evidence: Evidence,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self, KeyError> {
        let api_keys = store.keys.secret(SecretName::ApiKeys)?;
        let code_key = store.keys.secret(SecretName::ActivationCodes)?;
        let devices = store.keys.secret(SecretName::Devices)?;
        Ok(Self {
            handle: store.handle.clone(),
            state: store.state.clone(),
            log: store.log.clone(),
            origin: evidence.verifier().name.clone(),
            evidence,
            anchors: Arc::default(),
            keys: Arc::clone(&store.keys),
            hasher: SecretHasher::new(*api_keys.expose()),
            request_key: Secret32::new(blake3::derive_key(REQUEST_CONTEXT, api_keys.expose())),
            signer: EvidenceSigner::of_secret(&store.keys.secret(SecretName::Evidence)?),
            push_signer: push::CallOutSigner::of_secret(&devices),
            push_nonces: push::Nonces::of_secret(&devices),
            push: Arc::default(),
            offline: OfflineKeys::of_secret(&devices),
            recovery: RecoveryCoder::new(code_key.expose()),
            code_key,
            guesses: Guesses::default(),
            refusals: Refusals::new(clock.wall()),
            key_uses: KeyUses::new(clock.wall()),
            revocation: KeptList::default(),
            waits: Waits::default(),
            signatures_checked: AtomicU64::new(0),
            clock,
            entropy,
        })
    }

    /// With these anchors; without, it has none.
    #[must_use]
    pub fn with_anchors(self, anchors: Arc<Board>) -> Self {
        Self { anchors, ..self }
    }

    /// With a push hook that is followed on this board.
    #[must_use]
    pub fn with_push(self, push: push::Board) -> Self {
        Self { push: Arc::new(push), ..self }
    }

    /// Typed access to state.
    #[must_use]
    pub fn look(&self) -> Look<'_> {
        Look(&self.state)
    }

    /// A fresh id.
    #[must_use]
    pub fn fresh_id(&self) -> Id {
        fresh_id(&*self.clock, &*self.entropy)
    }

    /// A fresh id for the first event of a command.
    #[must_use]
    pub fn fresh_event_id(&self) -> Id {
        self.fresh_id().first_of_command()
    }

    /// The key that activation codes are derived from and hashed with.
    #[must_use]
    pub fn code_key(&self) -> &[u8; 32] {
        self.code_key.expose()
    }

    /// Counts signatures whose check was judged: those on a live challenge.
    pub fn count_signatures(&self, checked: usize) {
        self.signatures_checked.fetch_add(checked as u64, Ordering::Relaxed);
    }

    /// Signatures that were checked on live challenges since the process started.
    #[must_use]
    pub fn signatures_checked(&self) -> u64 {
        self.signatures_checked.load(Ordering::Relaxed)
    }

    /// Whether the log is still without its first record.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.log.head().size == 0
    }

    /// Begins the log with its first administrator key.
    ///
    /// # Errors
    ///
    /// That of the writer.
    pub async fn begin(
        &self,
        key: &Credential,
    ) -> Result<(), ExecuteError<engine::command::Refusal>> {
        let started = StartLog {
            origin: self.origin.clone(),
            software: SOFTWARE.to_owned(),
            key: key.id,
            secret_hash: self.hasher.hash(&key.secret).0,
        };
        self.execute_own(Want::StartLog(started)).await
    }

    /// Executes what the server itself wants.
    ///
    /// # Errors
    ///
    /// That of the writer.
    pub async fn execute_own(
        &self,
        want: Want,
    ) -> Result<(), ExecuteError<engine::command::Refusal>> {
        let event_id = self.fresh_event_id();
        let command = Command { event_id, want };
        let envelope = Envelope { command, causation: self.fresh_id(), correlation: event_id };
        self.handle.execute(envelope).await.map(|_| ())
    }
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App").field("origin", &self.origin).finish_non_exhaustive()
    }
}

/// Where the [`App`] will be once the store is open.
#[derive(Debug, Default)]
pub struct Slot(OnceLock<Arc<App>>);

impl Slot {
    /// Puts it there. A second one is ignored: there is one store per server.
    pub fn fill(&self, app: Arc<App>) {
        let _ = self.0.set(app);
    }

    /// The app of the server that got `request`.
    ///
    /// # Errors
    ///
    /// [`Code::Unavailable`] while the store is being opened.
    pub fn app(request: &HttpRequest) -> Result<Arc<App>, ApiError> {
        let slot = request
            .app_data::<Data<Self>>()
            .ok_or_else(|| ApiError::new(Code::Internal).cause("no slot for the app"))?;
        let starting = || ApiError::new(Code::Unavailable).detail("starting").retry_after_s(1);
        slot.0.get().cloned().ok_or_else(starting)
    }
}
