//! Making again what is derived from the log.

use std::path::Path;

use engine::Keytrail;
use storage::open::{Options, Rebuilt};

use crate::folder::FolderError;

/// Why a folder could not be rebuilt. The log is as it was.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// There is nothing to rebuild from.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The store could not be opened or made.
    #[error(transparent)]
    Store(#[from] storage::open::OpenError),
}

/// Deletes `store/` in the folder `dir` and makes it again from `log/`, alone
/// with the folder from beginning to end. The log gets no record by this.
///
/// Whether the state was the same before is in the answer; a state that opening
/// had to make again first is no evidence, and the answer says that too.
///
/// # Errors
///
/// [`RebuildError`].
pub fn rebuild(dir: &Path, options: &Options) -> Result<Rebuilt, RebuildError> {
    let log = dir.join("log");
    // Opening a folder without a log would begin one.
    if !log.join("origin").is_file() {
        return Err(FolderError::NoLog(dir.to_owned()).into());
    }
    Ok(storage::open::rebuild::<Keytrail>(dir, options)?)
}
