//! The tree's tiles and the bundles of records (C2SP tlog-tiles), written as they fill.

use std::fs;
use std::path::{Path, PathBuf};

use storage::disk::{Disk, RealDisk};
use storage::merkle::{self, Edge, Hash, Missing, TILE_WIDTH, TileId, leaf_hash};

use super::evidence::{Span, file, writing};
use crate::walk::ReplayError;

/// Tiles and bundles as they fill.
pub(super) struct Tiles {
    dir: PathBuf,
    /// The records that may go out.
    span: Span,
    edge: Edge,
    /// For each level: complete tiles, and the bytes of the one that is filling.
    levels: Vec<(u64, Vec<u8>)>,
    entries: Vec<u8>,
}

impl Tiles {
    pub(super) fn new(out: &Path, span: Span) -> Self {
        let dir = out.join("tile");
        Self { dir, span, edge: Edge::default(), levels: Vec::new(), entries: Vec::new() }
    }

    pub(super) fn push(&mut self, record: &[u8]) -> Result<(), ReplayError> {
        let mut added: Vec<(u8, Hash)> = Vec::with_capacity(1);
        self.edge.push(leaf_hash(record), &mut |level, hash| added.push((level, *hash)));
        for (level, hash) in added {
            let index = usize::from(level);
            if self.levels.len() == index {
                self.levels.push((0, Vec::new()));
            }
            let (complete, bytes) = &mut self.levels[index];
            bytes.extend_from_slice(&hash);
            if bytes.len() as u64 == TILE_WIDTH * 32 {
                let (number, bytes) = (*complete, std::mem::take(bytes));
                *complete += 1;
                self.file(&level.to_string(), number, None, &bytes)?;
            }
        }
        // Records have at most 60 KiB.
        self.entries.extend_from_slice(&(record.len() as u16).to_be_bytes());
        self.entries.extend_from_slice(record);
        let size = self.edge.size();
        if size.is_multiple_of(TILE_WIDTH) {
            let bytes = std::mem::take(&mut self.entries);
            self.bundle(size / TILE_WIDTH - 1, None, &bytes)?;
        }
        Ok(())
    }

    /// Writes what is not full.
    pub(super) fn end(&mut self) -> Result<(), ReplayError> {
        for (level, (complete, bytes)) in std::mem::take(&mut self.levels).into_iter().enumerate() {
            if !bytes.is_empty() {
                self.file(&level.to_string(), complete, Some(bytes.len() / 32), &bytes)?;
            }
        }
        let size = self.edge.size();
        let width = (size % TILE_WIDTH) as usize;
        if width > 0 {
            let bytes = std::mem::take(&mut self.entries);
            self.bundle(size / TILE_WIDTH, Some(width), &bytes)?;
        }
        Ok(())
    }

    /// A bundle goes out in whole, so it goes out only if all of it may.
    fn bundle(&self, index: u64, width: Option<usize>, bytes: &[u8]) -> Result<(), ReplayError> {
        let first = index * TILE_WIDTH;
        let end = first + width.map_or(TILE_WIDTH, |width| width as u64);
        if first < self.span.from || end > self.span.to {
            return Ok(());
        }
        self.file("entries", index, width, bytes)
    }

    /// Removes the tiles of the lowest level that records `from` to `to` do not
    /// need: the last one is part of the root.
    pub(super) fn keep_only(&self, from: u64, to: u64) -> Result<(), ReplayError> {
        let complete = self.edge.size() / TILE_WIDTH;
        for index in 0..complete {
            if index >= from / TILE_WIDTH && index * TILE_WIDTH < to {
                continue;
            }
            let path = self.dir.join("0").join(tile_path(index, None));
            fs::remove_file(&path).map_err(writing(&path))?;
        }
        Ok(())
    }

    fn file(
        &self,
        level: &str,
        index: u64,
        width: Option<usize>,
        bytes: &[u8],
    ) -> Result<(), ReplayError> {
        file(&self.dir.join(level).join(tile_path(index, width)), bytes)
    }
}

/// The path of a tile below its level: C2SP tlog-tiles, "Merkle Tree".
fn tile_path(index: u64, width: Option<usize>) -> String {
    let mut path = format!("{:03}", index % 1_000);
    let mut rest = index / 1_000;
    while rest > 0 {
        path = format!("x{:03}/{path}", rest % 1_000);
        rest /= 1_000;
    }
    match width {
        Some(width) => format!("{path}.p/{width}"),
        None => path,
    }
}

/// As they were written.
impl merkle::Tiles for Tiles {
    fn tile(&self, id: TileId, width: usize) -> Result<Vec<Hash>, Missing> {
        let whole = merkle::width_in(id, self.edge.size()) as usize;
        let partial = (whole < TILE_WIDTH as usize).then_some(whole);
        let path = self.dir.join(id.level.to_string()).join(tile_path(id.index, partial));
        let bytes = RealDisk.read(&path, TILE_WIDTH * 32).map_err(|_| Missing(id))?;
        let (hashes, rest) = bytes.as_chunks::<32>();
        if hashes.len() < width || !rest.is_empty() {
            return Err(Missing(id));
        }
        Ok(hashes[..width].to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tile_paths_are_those_of_the_specification() {
        // C2SP tlog-tiles, "Merkle Tree": its example.
        assert_eq!(tile_path(1_234_067, None), "x001/x234/067");
        assert_eq!(tile_path(273, Some(112)), "273.p/112");
        assert_eq!(tile_path(0, None), "000");
        assert_eq!(tile_path(1_000, None), "x001/000");
    }
}
