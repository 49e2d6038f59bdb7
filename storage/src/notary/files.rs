//! The hashes of the tree, one file for each level: an array of 32 bytes each.
//!
//! A tile is a piece of such an array, full or partial. The files are derived:
//! what stands before the last signed checkpoint was synced before it was
//! signed, what stands behind is made again from the log.

use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::disk::{Disk, DiskFile, Open, Privacy};
use crate::merkle::{Edge, Hash, Missing, TILE_WIDTH, TileId, Tiles, leaf_hash};

/// Levels that have a file: enough for 2^40 records.
const LEVELS: u8 = 5;
/// Bytes of a hash.
const HASH: u64 = 32;

/// Reads tiles. Cheap to clone.
#[derive(Clone)]
pub(super) struct TileFiles(Arc<Vec<Box<dyn DiskFile>>>);

impl TileFiles {
    /// Opens the files in `dir`, making what is missing.
    pub(super) fn open(disk: &dyn Disk, dir: &Path) -> io::Result<Self> {
        disk.create_dir(dir, Privacy::Shared)?;
        let mut files = Vec::with_capacity(usize::from(LEVELS));
        for level in 0..LEVELS {
            let path = dir.join(format!("level-{level}"));
            let how = if disk.exists(&path)? { Open::Write } else { Open::Create(Privacy::Shared) };
            files.push(disk.open(&path, how)?);
        }
        disk.sync_dir(dir)?;
        Ok(Self(Arc::new(files)))
    }
}

impl Tiles for TileFiles {
    fn tile(&self, id: TileId, width: usize) -> Result<Vec<Hash>, Missing> {
        let file = self.0.get(usize::from(id.level)).ok_or(Missing(id))?;
        let mut bytes = vec![0; width * HASH as usize];
        let offset = id.index.checked_mul(TILE_WIDTH * HASH).ok_or(Missing(id))?;
        file.read_exact_at(&mut bytes, offset).map_err(|_| Missing(id))?;
        let (hashes, _) = bytes.as_chunks::<32>();
        Ok(hashes.to_vec())
    }
}

/// The tree as it grows.
pub(super) struct GrowingTree {
    files: TileFiles,
    edge: Edge,
    /// What is not written yet, for each level, and where it goes.
    pending: Vec<Pending>,
}

#[derive(Default)]
struct Pending {
    offset: u64,
    bytes: Vec<u8>,
}

impl GrowingTree {
    /// The tree of the first `size` records, as the files have it; none if they
    /// do not.
    pub(super) fn load(files: TileFiles, size: u64) -> Option<Self> {
        let edge = Edge::load(&files, size).ok()?;
        let at = |level: u8| (size >> (8 * u32::from(level))) * HASH;
        let pending =
            (0..LEVELS).map(|level| Pending { offset: at(level), bytes: Vec::new() }).collect();
        Some(Self { files, edge, pending })
    }

    /// Records in it.
    pub(super) fn size(&self) -> u64 {
        self.edge.size()
    }

    /// What is written.
    pub(super) fn files(&self) -> &TileFiles {
        &self.files
    }

    /// Adds a record.
    pub(super) fn push(&mut self, record: &[u8]) {
        let pending = &mut self.pending;
        self.edge.push(leaf_hash(record), &mut |level, hash| {
            if let Some(level) = pending.get_mut(usize::from(level)) {
                level.bytes.extend_from_slice(hash);
            }
        });
    }

    /// Writes what was added.
    pub(super) fn write(&mut self) -> io::Result<()> {
        for (file, pending) in self.files.0.iter().zip(&mut self.pending) {
            if !pending.bytes.is_empty() {
                file.write_at(&pending.bytes, pending.offset)?;
                pending.offset += pending.bytes.len() as u64;
                pending.bytes.clear();
            }
        }
        Ok(())
    }

    /// Makes what was written durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.files.0.iter().try_for_each(|file| file.sync_data())
    }
}
