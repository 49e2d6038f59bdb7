//! Checking one segment: its header, its groups, that they continue each other
//! and what came before, and its end.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use engine::ids::Position;

use super::finding::{Damage, Finding};
use super::format::{GROUPS_AT, SEAL_LEN, Seal, SegmentHeader};
use super::scan::{Part, Scan, read_headers};
use crate::block::{Block, Head};
use crate::disk::DiskFile;
use crate::record::Chain;

/// What is known of a segment before it is opened.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// Its file.
    pub(super) path: PathBuf,
    /// The first record, by the file's name.
    pub(super) first: Position,
    /// Where the log ended before it; none if that is not known.
    pub(super) before: Option<Head>,
    /// The log's genesis chain value.
    pub(super) genesis: Chain,
    /// Whether a segment follows.
    pub(super) has_next: bool,
}

/// What the walk comes to, in order.
#[derive(Debug)]
pub(super) enum Step {
    /// A group that continues what came before.
    Group(Block),
    /// Something else.
    Finding(Finding),
}

/// How a segment ends. Complete only after the last step.
#[derive(Debug, Clone)]
pub(super) struct Ending {
    /// The head after the last whole group.
    pub(super) head: Head,
    /// Where the next group would go.
    pub(super) offset: u64,
    /// The seal, if it has one.
    pub(super) seal: Option<Seal>,
    /// Records before this position were durable once: a later group shows it.
    pub(super) proven: u64,
}

/// Goes through one segment.
pub(super) struct Walk {
    file: Arc<dyn DiskFile>,
    place: Place,
    header: Option<SegmentHeader>,
    scan: Option<Scan>,
    ready: Vec<Step>,
    hasher: blake3::Hasher,
    ending: Ending,
    intact: bool,
    over: bool,
}

impl Walk {
    /// Begins with the header.
    pub(super) fn new(file: Arc<dyn DiskFile>, place: Place) -> io::Result<Self> {
        let head = Head { size: place.first.0, chain: [0; 32] };
        let ending = Ending { head, offset: GROUPS_AT, seal: None, proven: place.first.0 };
        let mut walk = Self {
            file,
            place,
            header: None,
            scan: None,
            ready: Vec::new(),
            hasher: blake3::Hasher::new(),
            ending,
            intact: true,
            over: false,
        };
        walk.begin()?;
        Ok(walk)
    }

    /// The segment's header; none if it cannot be read.
    pub(super) fn header(&self) -> Option<&SegmentHeader> {
        self.header.as_ref()
    }

    /// How the segment ends, as far as the walk has come.
    pub(super) fn ending(&self) -> &Ending {
        &self.ending
    }

    /// BLAKE3 over the file up to [`Ending::offset`], if nothing was wrong before.
    pub(super) fn hasher(&self) -> Option<&blake3::Hasher> {
        self.intact.then_some(&self.hasher)
    }

    /// The next step; none at the end.
    pub(super) fn next(&mut self) -> io::Result<Option<Step>> {
        loop {
            if !self.ready.is_empty() {
                return Ok(Some(self.ready.remove(0)));
            }
            if self.over {
                return Ok(None);
            }
            let Some(scan) = &mut self.scan else {
                self.over = true;
                return Ok(None);
            };
            let part = scan.next()?;
            self.take(part)?;
        }
    }

    fn begin(&mut self) -> io::Result<()> {
        let Some(headers) = read_headers(self.file.as_ref())? else {
            self.find(0, Damage::Header);
            return Ok(());
        };
        if let Some(offset) = headers.damaged_copy {
            self.find(offset, Damage::HeaderCopy);
        }
        let header = headers.header;
        if header.genesis != self.place.genesis {
            self.find(0, Damage::OtherLog);
            return Ok(());
        }
        if header.first != self.place.first {
            self.find(0, Damage::Name { says: header.first });
            return Ok(());
        }
        if self.place.before.is_some_and(|before| before.chain != header.prev) {
            self.find(0, Damage::Link);
        }
        self.ending.head.chain = header.prev;
        self.hasher.update(&header.encode());
        self.scan = Some(Scan::new(Arc::clone(&self.file), &header)?);
        self.header = Some(header);
        Ok(())
    }

    fn take(&mut self, part: Option<Part>) -> io::Result<()> {
        match part {
            Some(Part::Group { offset, header, payload }) => {
                let block = header.block(payload);
                let bytes = self.header.as_ref().map(|segment| {
                    let mut bytes = Vec::new();
                    header.encode(&segment.key, &mut bytes);
                    bytes
                });
                self.hasher.update(&bytes.unwrap_or_default());
                self.hasher.update(&block.frames);
                self.group(offset, offset + header.total(), block);
            }
            Some(Part::Payload { offset, header }) => {
                self.gap(offset, header.first, header.prev);
                self.intact = false;
                self.ending.proven = self.ending.proven.max(header.first.0);
                self.find(offset, Damage::Payload { records: header.count });
            }
            Some(Part::Rubbish { offset, end }) => {
                self.intact = false;
                self.find(offset, Damage::Rubbish { end });
            }
            Some(Part::Tail { offset, end }) => {
                self.intact = false;
                self.find(offset, Damage::Torn { end });
            }
            Some(Part::Seal(seal)) => self.seal(seal)?,
            None => self.finish()?,
        }
        Ok(())
    }

    fn group(&mut self, offset: u64, end: u64, block: Block) {
        self.gap(offset, block.first, block.prev);
        self.ending.proven = self.ending.proven.max(block.first.0);
        if block.first.0 < self.ending.head.size {
            self.intact = false;
            self.find(offset, Damage::Overlap);
            return;
        }
        if let Err(error) = block.check() {
            self.intact = false;
            self.find(offset, Damage::Records(error));
            return;
        }
        self.ending.head = block.head();
        self.ending.proven = self.ending.proven.max(block.first.0);
        self.ending.offset = end;
        self.ready.push(Step::Group(block));
    }

    /// Notes what is missing before a group at `first`.
    fn gap(&mut self, offset: u64, first: Position, prev: Chain) {
        if first.0 > self.ending.head.size {
            self.intact = false;
            self.find(offset, Damage::Missing { until: first });
            self.ending.head = Head { size: first.0, chain: prev };
        } else if first.0 == self.ending.head.size && prev != self.ending.head.chain {
            self.intact = false;
            self.find(offset, Damage::Link);
            self.ending.head.chain = prev;
        }
    }

    fn seal(&mut self, seal: Seal) -> io::Result<()> {
        let head = seal.head();
        if seal.first == self.place.first && head.size > self.ending.head.size {
            self.find(seal.offset, Damage::Missing { until: Position(head.size) });
        }
        let hash_fits = !self.intact || *self.hasher.finalize().as_bytes() == seal.hash;
        let fits = seal.first == self.place.first
            && head.size >= self.ending.head.size
            && (head.size > self.ending.head.size || head.chain == self.ending.head.chain)
            && hash_fits;
        if !fits {
            self.find(seal.offset, Damage::Seal);
        }
        self.ending.proven = self.ending.proven.max(head.size);
        if self.file.len()? != seal.offset + SEAL_LEN as u64 {
            // Sealed, and not yet cut to its length when the process died.
            self.find(seal.offset, Damage::NotSealed);
        }
        self.ending.seal = Some(seal);
        self.over = true;
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        self.over = true;
        let len = self.file.len()?;
        let reserved = self.header.as_ref().map_or(0, |header| header.reserved);
        if self.ending.seal.is_some() {
            return Ok(());
        }
        if self.place.has_next {
            self.find(self.ending.offset, Damage::NotSealed);
        } else if len < reserved {
            self.find(len, Damage::Truncated { len, reserved });
        }
        Ok(())
    }

    fn find(&mut self, offset: u64, what: Damage) {
        let position = Position(self.ending.head.size);
        let file = self.place.path.clone();
        self.ready.push(Step::Finding(Finding { file, offset, position, what }));
    }
}

/// The name of the segment that begins with `first`.
pub(super) fn segment_name(first: Position) -> String {
    format!("segment-{:020}.ktj", first.0)
}

/// The first record of the segment in the file `path`; none if it is no segment.
pub(super) fn segment_first(path: &Path) -> Option<Position> {
    let name = path.file_name()?.to_str()?;
    let digits = name.strip_prefix("segment-")?.strip_suffix(".ktj")?;
    if digits.len() != 20 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok().map(Position)
}
