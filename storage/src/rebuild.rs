//! Making everything derived in a folder again from its log, and saying whether
//! it came out the same.

use std::path::Path;
use std::sync::Arc;

use engine::ids::Position;
use engine::machine::Machine;

use crate::disk::{Disk, Privacy};
use crate::fold::StateDigest;
use crate::folder::Note;
use crate::journal::{self, Check};
use crate::lock::FolderLock;
use crate::open::{OpenError, OpenReport, Options, Store, io_error};

/// What [`rebuild`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rebuilt {
    /// The log's size: both digests stand for it.
    pub position: Position,
    /// Digest of the state that was there.
    pub before: StateDigest,
    /// Digest of the state made from the log alone.
    pub after: StateDigest,
    /// What opening found and did before. Where it had to make the state again,
    /// the first digest says nothing of what was stored.
    pub found: OpenReport,
    /// What opening found and did after everything derived was deleted.
    pub report: OpenReport,
}

/// Deletes everything derived in the folder `dir` and makes it again from the
/// log, under one lock from beginning to end. The log gets no record. A
/// suspension of time-made events stays.
///
/// Before anything is deleted every byte of the journal is checked, and repaired
/// from the second copy where it is damaged: after that there is no other copy.
///
/// # Errors
///
/// [`OpenError`]; [`OpenError::Lock`] while the store is open.
pub fn rebuild<M: Machine>(dir: &Path, options: &Options) -> Result<Rebuilt, OpenError> {
    let lock = Arc::new(FolderLock::take(dir)?);
    let (_, before, found) = digest_of::<M>(&lock, dir, options)?;
    let store = dir.join("store");
    let folder = options.folder(&store);
    let suspended = folder.note(Note::Suspension).map_err(io_error("read notes in", &store))?;
    delete(&*options.disk, &store)?;
    if let Some(text) = suspended {
        let made = std::fs::create_dir_all(&store)
            .and_then(|()| options.disk.create_dir(&store, Privacy::Shared));
        made.and_then(|()| folder.put_note(Note::Suspension, &text))
            .map_err(io_error("keep the suspension in", &store))?;
    }
    let (position, after, report) = digest_of::<M>(&lock, dir, options)?;
    Ok(Rebuilt { position, before, after, found, report })
}

fn delete(disk: &dyn Disk, store: &Path) -> Result<(), OpenError> {
    std::fs::remove_dir_all(store).map_err(io_error("delete", store))?;
    // What the folder's own disk has beside it, where that is another.
    if disk.exists(store).map_err(io_error("find", store))? {
        for path in disk.list(store).map_err(io_error("list", store))? {
            disk.remove(&path).map_err(io_error("delete", &path))?;
        }
    }
    Ok(())
}

/// Opens, takes the digest, stops cleanly.
fn digest_of<M: Machine>(
    lock: &Arc<FolderLock>,
    dir: &Path,
    options: &Options,
) -> Result<(Position, StateDigest, OpenReport), OpenError> {
    // Nothing may happen by itself between the two digests.
    let quiet = Options {
        tick_ms: None,
        time_acts: false,
        suspend_after_gap_s: None,
        journal: journal::Options { check: Check::All, ..options.journal },
        ..options.clone()
    };
    let store = Store::<M>::open_under(Arc::clone(lock), dir, quiet)?;
    let stopped = |_| OpenError::Store("the writer has stopped".into());
    let (position, digest) = store.digest().map_err(stopped)?;
    let report = store.report.clone();
    store.close().map_err(stopped)?;
    Ok((position, digest, report))
}
