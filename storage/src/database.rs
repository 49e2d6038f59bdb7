//! The sled folder: opening it, telling whether it can be trusted, and setting
//! it aside.
//!
//! Everything in it can be made again from the journal. The file `marker` says
//! how the last run ended: `stopped`, or `running` and the kernel it ran under.

use std::path::{Path, PathBuf};

use engine::machine::Machine;

use crate::disk::{Disk, Privacy, RealDisk, write_atomically};
use crate::logtree::LogTree;
use crate::open::{OpenError, Options};
use crate::record::Chain;
use crate::state::{ENTRY, META, Meta};
use crate::trouble::guarded;

/// The folder of sled inside `store/`.
pub(crate) const SLED: &str = "sled";

/// How a run ended, as the next one sees it.
#[derive(Debug, Clone)]
pub(crate) struct Marker {
    path: PathBuf,
    boot_id: Option<String>,
}

/// How far what sled holds can be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trust {
    /// Everything was synced.
    Full,
    /// The process died, the kernel did not: writes have not been lost.
    Checked,
    /// Anything may be missing.
    None,
}

impl Marker {
    fn new(store: &Path, boot_id: Option<&String>) -> Self {
        let boot_id = boot_id.cloned().or_else(|| {
            std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
                .ok()
                .map(|id| id.trim().to_owned())
        });
        Self { path: store.join("marker"), boot_id }
    }

    fn trust(&self) -> Trust {
        let Ok(text) = std::fs::read_to_string(&self.path) else { return Trust::None };
        if text == "stopped\n" {
            return Trust::Full;
        }
        match &self.boot_id {
            Some(boot_id) if text == format!("running {boot_id}\n") => Trust::Checked,
            Some(_) | None => Trust::None,
        }
    }

    /// Says that sled is being written to.
    pub(crate) fn running(&self) -> std::io::Result<()> {
        self.write(&format!("running {}\n", self.boot_id.as_deref().unwrap_or_default()))
    }

    /// Says that everything is synced.
    pub(crate) fn stopped(&self) -> std::io::Result<()> {
        self.write("stopped\n")
    }

    fn write(&self, text: &str) -> std::io::Result<()> {
        write_atomically(&RealDisk, &self.path, text.as_bytes(), Privacy::Shared)
    }
}

/// sled, open.
pub(crate) struct Database {
    pub(crate) db: sled::Db,
    pub(crate) marker: Marker,
    trust: Trust,
    /// Why the folder that was there was set aside.
    pub(crate) set_aside: Option<String>,
}

impl Database {
    /// Opens sled in `store`, and sets aside what cannot be opened.
    pub(crate) fn open(store: &Path, options: &Options) -> Result<Self, OpenError> {
        let made = std::fs::create_dir_all(store);
        made.map_err(|source| OpenError::Io {
            what: "the folder of the store could not be made".to_owned(),
            source,
        })?;
        let marker = Marker::new(store, options.boot_id.as_ref());
        let trust = marker.trust();
        let noted = std::fs::read_to_string(store.join("damaged")).ok();
        let present = store.join(SLED).exists();
        let opened = match noted {
            Some(why) if present => Err(why),
            Some(_) | None if present && trust == Trust::None => {
                Err("the machine stopped while it was in use".to_owned())
            }
            Some(_) | None => open_sled(store, options),
        };
        match opened {
            Ok(db) => Ok(Self { db, marker, trust, set_aside: None }),
            Err(why) => Self::anew(store, options, marker, why),
        }
    }

    /// Sets the folder aside, and begins a new one.
    pub(crate) fn set_aside(
        self,
        store: &Path,
        options: &Options,
        why: &str,
    ) -> Result<Self, OpenError> {
        let marker = self.marker.clone();
        drop(self);
        Self::anew(store, options, marker, why.to_owned())
    }

    fn anew(
        store: &Path,
        options: &Options,
        marker: Marker,
        why: String,
    ) -> Result<Self, OpenError> {
        tracing::warn!("the store is made again from the log: {why}");
        let aside = store.join("sled.set-aside");
        let moved = remove_if_there(&aside)
            .and_then(|()| std::fs::rename(store.join(SLED), &aside))
            .and_then(|()| match std::fs::remove_file(store.join("damaged")) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
                Ok(()) | Err(_) => RealDisk.sync_dir(store),
            });
        moved.map_err(|source| OpenError::Io {
            what: "the damaged store could not be set aside".to_owned(),
            source,
        })?;
        let db = open_sled(store, options).map_err(OpenError::Store)?;
        Ok(Self { db, marker, trust: Trust::Full, set_aside: Some(why) })
    }
}

fn remove_if_there(dir: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn open_sled(store: &Path, options: &Options) -> Result<sled::Db, String> {
    // The size of segments: see logtree.
    guarded(|| {
        sled::Config::new()
            .path(store.join(SLED))
            .cache_capacity(options.sled_cache_bytes)
            .segment_size(8 << 20)
            .open()
    })
}

/// The trees, each at some position of the log.
pub(crate) struct Trees {
    pub(crate) log: LogTree,
    pub(crate) log_tree: sled::Tree,
    pub(crate) state: sled::Tree,
    pub(crate) meta: Meta,
}

impl Trees {
    /// Opens both; state that cannot be used is emptied, and why is said.
    pub(crate) fn open<M: Machine>(
        database: &Database,
        genesis: Chain,
    ) -> Result<(Self, Option<String>), crate::logtree::TreeError> {
        let log_tree = database.db.open_tree("log")?;
        let state = database.db.open_tree("state")?;
        let log = LogTree::resume(log_tree.clone(), genesis)?;
        let stored = state.get(META)?;
        let new = stored.is_none() && state.is_empty();
        let meta = stored.and_then(|bytes| Meta::decode(&bytes));
        let why = match meta {
            Some(meta) if meta.version != M::STATE_VERSION => Some("it is of other rules"),
            Some(meta) if database.trust == Trust::Checked && !sum_holds(&state, &meta)? => {
                Some("its sum is wrong")
            }
            Some(_) => None,
            None if new => None,
            None => Some("its position cannot be read"),
        };
        let meta = match meta {
            Some(meta) if why.is_none() => meta,
            Some(_) | None => {
                state.clear()?;
                Meta::empty(M::STATE_VERSION, genesis)
            }
        };
        Ok((Self { log, log_tree, state, meta }, why.map(str::to_owned)))
    }
}

/// Whether the entries in `state` are those that its meta counts.
fn sum_holds(state: &sled::Tree, meta: &Meta) -> sled::Result<bool> {
    let mut found = Meta { entries: 0, sum: 0, ..*meta };
    for item in state.range([ENTRY].as_slice()..) {
        let (key, value) = item?;
        found.add(&key[1..], &value);
    }
    Ok(found == *meta)
}
