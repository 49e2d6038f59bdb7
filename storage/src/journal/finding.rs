//! What can be wrong in the journal's files, and in what words it is said.

use std::fmt;
use std::path::PathBuf;

use engine::ids::Position;

use crate::block::BlockError;

/// Something found in the journal's files that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The file.
    pub file: PathBuf,
    /// Where in the file, in bytes.
    pub offset: u64,
    /// The first record that may be concerned.
    pub position: Position,
    /// What is wrong.
    pub what: Damage,
}

/// What is wrong with a part of a journal file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Damage {
    /// Both copies of the segment's header are damaged; its groups cannot be checked.
    Header,
    /// One copy of the segment's header is damaged; the other is used.
    HeaderCopy,
    /// The segment belongs to another log.
    OtherLog,
    /// The header names another first record than the file's name.
    Name {
        /// What the header says.
        says: Position,
    },
    /// The segment does not follow the chain value of the one before.
    Link,
    /// Bytes that are no group, with later groups behind them.
    Rubbish {
        /// Where they end.
        end: u64,
    },
    /// A group's records are not what its hash says.
    Payload {
        /// How many records it holds.
        records: u32,
    },
    /// A group is as it was written, and yet its records do not form a chain.
    Records(BlockError),
    /// Records are missing here.
    Missing {
        /// The first that is there again.
        until: Position,
    },
    /// The file of a segment is missing.
    SegmentMissing {
        /// The first record that is there again; none where nothing says.
        until: Option<Position>,
    },
    /// The file is shorter than it was made.
    Truncated {
        /// Its length now.
        len: u64,
        /// The least length it had.
        reserved: u64,
    },
    /// The seal says something else than the segment holds.
    Seal,
    /// A segment with one after it has no seal. A process that died while it
    /// sealed leaves this; nothing is lost.
    NotSealed,
    /// A group that was being written when the power went, or the process died.
    /// It was never acknowledged; nothing is lost.
    Torn {
        /// Where its last byte that is not zero ends.
        end: u64,
    },
    /// The segment begins before the end of the one before it.
    Overlap,
}

impl Damage {
    /// Whether something that was durable is damaged or lost. Torn groups and
    /// missing seals are what a crash leaves, and no damage.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Torn { .. } | Self::NotSealed => false,
            Self::Header
            | Self::HeaderCopy
            | Self::OtherLog
            | Self::Name { .. }
            | Self::Link
            | Self::Rubbish { .. }
            | Self::Payload { .. }
            | Self::Records(_)
            | Self::Missing { .. }
            | Self::SegmentMissing { .. }
            | Self::Truncated { .. }
            | Self::Seal
            | Self::Overlap => true,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, offset, position, what } = self;
        write!(f, "{} at byte {offset} (record {}): {what}", file.display(), position.0)
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header => f.write_str("both copies of the segment's header are damaged"),
            Self::HeaderCopy => f.write_str("one of the two copies of the header is damaged"),
            Self::OtherLog => f.write_str("the segment belongs to another log"),
            Self::Name { says } => write!(f, "the header says that record {} is first", says.0),
            Self::Link => f.write_str("the segment does not continue the one before it"),
            Self::Rubbish { end } => {
                write!(f, "the bytes up to {end} are no group of records, but later ones are")
            }
            Self::Payload { records } => {
                write!(f, "a group of {records} records is not what was written")
            }
            Self::Records(error) => write!(f, "a group's records do not fit: {error}"),
            Self::Missing { until } => {
                write!(f, "the records up to {} are missing", until.0.saturating_sub(1))
            }
            Self::SegmentMissing { until: Some(until) } => {
                write!(f, "the file is missing, with the records before {}", until.0)
            }
            Self::SegmentMissing { until: None } => {
                f.write_str("the file is missing, with the latest records")
            }
            Self::Truncated { len, reserved } => {
                write!(f, "the file has {len} bytes and was made with {reserved}")
            }
            Self::Seal => f.write_str("the seal does not match the segment"),
            Self::NotSealed => {
                f.write_str("the segment is complete but not sealed; the next start seals it")
            }
            Self::Torn { end } => write!(
                f,
                "a group that was being written up to byte {end}; it was never acknowledged"
            ),
            Self::Overlap => f.write_str("the segment begins before the one before it ends"),
        }
    }
}
