//! What a command takes out of a stopped server's own folder stands in its log.
//!
//! A folder is the server's own if it holds `keys/`, which never goes out with a
//! copy of the log. Into its own folder an event is written, as the server would;
//! a copy stays as it is.

use std::fs::{File, Permissions};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use engine::Keytrail;
use engine::command::{Command, Refusal, Want};
use engine::entries::Look;
use engine::events::{Actor, DataRevealedV1, Event};
use engine::ids::{Id, Position};
use engine::machine::{Clock, Entropy, Record, fresh_id};
use engine::seal::{self, Binding};
use engine::sealed;
use serde_json::{Value, json};
use storage::disk::RealDisk;
use storage::keys::{KeyError, SecretName};
use storage::notary::{self, Guard, NotaryError};
use storage::open::{OpenError, Options, Store};
use storage::reader::ReadError;
use storage::sequencer::{Envelope, ExecuteError, Stopped};

use crate::auth::credential::{Credential, SecretHash, SecretHasher};
use crate::ports::{SystemClock, SystemEntropy};

/// Records that are read at a time.
const STEP: usize = 1_024;

/// Why nothing was recorded, or nothing revealed.
#[derive(Debug, thiserror::Error)]
pub(super) enum AccessError {
    /// The folder cannot be written to as its server would.
    #[error(
        "this is to be recorded in the log, and the folder cannot be opened (for a copy that holds keys/, say --copy)"
    )]
    Open(#[from] OpenError),
    /// The guard file contradicts the folder, or cannot be read.
    #[error(transparent)]
    Guard(#[from] NotaryError),
    /// The writer refused, or could not write.
    #[error("it could not be recorded in the log, so it was not done")]
    Record(#[from] ExecuteError<Refusal>),
    /// The writer did not stop cleanly.
    #[error("the store did not stop cleanly")]
    Stopped(#[from] Stopped),
    /// The key store cannot be read.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// The log cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The API key is not one of this server, or was revoked.
    #[error("the API key is not known here, or was revoked")]
    UnknownKey,
    /// A file cannot be read or written.
    #[error("{}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// Whether `dir` is a server's own folder, and no copy of its log.
pub(super) fn is_own_folder(dir: &Path) -> bool {
    dir.join("keys").is_dir()
}

/// A stopped server's own folder, open for the writing of a few events.
pub(super) struct OwnFolder {
    store: Store<Keytrail>,
    clock: Arc<SystemClock>,
    runtime: tokio::runtime::Runtime,
}

impl OwnFolder {
    /// Opens `dir` as its server would, and under its lock; nothing that is due
    /// happens meanwhile.
    pub(super) fn open(dir: &Path) -> Result<Self, AccessError> {
        let clock = Arc::new(SystemClock::start());
        let mut options = Options::new("", Arc::clone(&clock) as _, Arc::new(SystemEntropy));
        options.tick_ms = None;
        options.time_acts = false;
        let guard = Guard::read(&RealDisk, &dir.join("guard"))?;
        options.known_heads.extend(guard.as_ref().map(Guard::known_head));
        options.known_heads.extend(notary::head_beside(&RealDisk, dir));
        let store = Store::open(dir, options)?;
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }
            .build()
            .map_err(|source| AccessError::Io { path: dir.to_owned(), source })?;
        Ok(Self { store, clock, runtime })
    }

    /// Writes what `want` makes; durable on `Ok`.
    pub(super) fn record(&self, want: Want) -> Result<(), AccessError> {
        let id = || fresh_id(&*self.clock as &dyn Clock, &SystemEntropy as &dyn Entropy);
        let event_id = id().first_of_command();
        let command = Command { event_id, want };
        let envelope = Envelope { command, causation: id(), correlation: event_id };
        self.runtime.block_on(self.store.handle.execute(envelope))?;
        Ok(())
    }

    /// Who holds this API key, if it is one of this server.
    pub(super) fn holder(&self, credential: &Credential) -> Result<Actor, AccessError> {
        let hasher = SecretHasher::new(*self.store.keys.secret(SecretName::ApiKeys)?.expose());
        let known = Look(&self.store.state).api_key(credential.id);
        let stored = known.as_ref().map_or([0; 32], |key| key.secret_hash);
        let matches = hasher.matches(&credential.secret, &SecretHash(stored));
        match known {
            Some(key) if matches && !key.revoked => {
                Ok(Actor { api_key: credential.id, request: None })
            }
            Some(_) | None => Err(AccessError::UnknownKey),
        }
    }

    /// Records that sealed parts are opened, then opens them into the new file
    /// `out`, one JSON object a line; returns how many. The file has mode 0600,
    /// and is there in whole or not at all.
    pub(super) fn reveal(&self, wanted: DataRevealedV1, out: &Path) -> Result<u64, AccessError> {
        let failed = |source| AccessError::Io { path: out.to_owned(), source };
        if out.exists() {
            return Err(failed(io::Error::from(io::ErrorKind::AlreadyExists)));
        }
        let folder = out.parent().filter(|parent| !parent.as_os_str().is_empty());
        let folder = folder.unwrap_or_else(|| Path::new("."));
        // Such a file is readable by its owner alone from the beginning.
        let mut file = tempfile::Builder::new()
            .permissions(Permissions::from_mode(0o600))
            .tempfile_in(folder)
            .map_err(failed)?;
        let (subject, from, to) = (wanted.subject, wanted.from.0, wanted.to.0);
        self.record(Want::Reveal(wanted))?;
        let mut lines = BufWriter::new(&mut file);
        let (mut next, mut opened) = (from, 0);
        while next < to {
            let records = self.store.log.read(Position(next), STEP)?;
            if records.is_empty() {
                break;
            }
            for record in records.iter().take_while(|record| record.position.0 < to) {
                let of = record.draft.subject;
                if !record.draft.sealed.is_empty() && subject.is_none_or(|wanted| wanted == of) {
                    writeln!(lines, "{}", self.opened(record)?).map_err(failed)?;
                    opened += 1;
                }
            }
            next += records.len() as u64;
        }
        lines.flush().map_err(failed)?;
        drop(lines);
        file.as_file().sync_all().map_err(failed)?;
        file.persist_noclobber(out).map_err(|error| failed(error.error))?;
        Ok(opened)
    }

    /// What a record holds sealed; without it, why it cannot be opened.
    fn opened(&self, record: &Record) -> Result<Value, AccessError> {
        let draft = &record.draft;
        let (event_type, schema) = (draft.event_type, draft.schema);
        let name = Event::decode(event_type, schema, &draft.clear).map(|event| event.name());
        let mut row = json!({
            "position": record.position.0,
            "event_id": draft.event_id,
            "type": name.unwrap_or("(unknown)"),
            "stream": draft.stream,
            "subject": draft.subject,
        });
        let Some(key) = self.store.keys.subject_key(draft.subject)? else {
            row["not_opened"] = json!("the person was erased");
            return Ok(row);
        };
        let (event_id, stream, subject) = (draft.event_id, draft.stream, draft.subject);
        let binding = Binding { event_id, stream, event_type, schema, subject };
        match seal::open(key.key.expose(), &binding, &draft.sealed) {
            Ok(plain) => row["sealed"] = sealed::to_json((event_type, schema), &plain),
            Err(error) => row["not_opened"] = json!(error.to_string()),
        }
        Ok(row)
    }

    /// Closes the store cleanly.
    pub(super) fn close(self) -> Result<(), AccessError> {
        Ok(self.store.close()?)
    }
}

/// The longest key file that is read, in bytes.
const KEY_FILE_MAX: u64 = 1024;

/// The API key on the first line of a file that nobody else may read.
pub(super) fn credential_in(path: &Path) -> Result<Credential, Box<dyn std::error::Error>> {
    let named = |error: io::Error| format!("{}: {error}", path.display());
    let file = File::open(path).map_err(named)?;
    if file.metadata().map_err(named)?.permissions().mode() & 0o077 != 0 {
        return Err(format!("{}: others may use it; set its mode to 0600", path.display()).into());
    }
    let mut text = zeroize::Zeroizing::new(String::from("Bearer "));
    file.take(KEY_FILE_MAX).read_to_string(&mut text).map_err(named)?;
    let header = text.lines().next().unwrap_or_default().trim();
    Credential::parse(header.as_bytes())
        .map_err(|_| format!("{}: its first line is no API key", path.display()).into())
}

/// A subject's id.
pub(super) fn id(text: &str) -> Result<Id, String> {
    text.parse().map_err(|error: engine::ids::NotAnId| error.to_string())
}
