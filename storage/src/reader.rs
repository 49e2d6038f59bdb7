//! Reading records: recent ones from memory, older ones from sled, and from the
//! journal where sled lacks them.

use std::sync::Arc;

use engine::ids::Position;
use engine::machine::Record;
use tokio::sync::watch;

use crate::block::Head;

/// Why a record could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The log is not that long.
    #[error("no record at position {}", .0.0)]
    Beyond(Position),
    /// Neither copy of the log gives it.
    #[error("the record at position {} cannot be read: {why}", position.0)]
    Damaged {
        /// The record.
        position: Position,
        /// What the journal said.
        why: String,
    },
}

/// Reads durable records. Cheap to clone.
#[derive(Clone)]
pub struct LogReader {}

impl LogReader {
    /// The durable head.
    #[must_use]
    pub fn head(&self) -> Head {
        Head { size: 0, chain: [0; 32] }
    }

    /// The record at `position`.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn record(&self, position: Position) -> Result<Arc<Record>, ReadError> {
        Err(ReadError::Beyond(position))
    }

    /// The bytes of the record at `position`.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn raw(&self, position: Position) -> Result<Vec<u8>, ReadError> {
        Err(ReadError::Beyond(position))
    }

    /// Records in order from `from`: at most `limit`, fewer only at the head.
    ///
    /// # Errors
    ///
    /// [`ReadError::Damaged`].
    pub fn read(&self, from: Position, limit: usize) -> Result<Vec<Arc<Record>>, ReadError> {
        let _ = (from, limit);
        Ok(Vec::new())
    }

    /// Follows the durable head: changes whenever the log grows.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Head> {
        watch::channel(self.head()).1
    }
}
