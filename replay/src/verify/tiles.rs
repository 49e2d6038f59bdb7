//! Level 2, second part: the hashes in `store/tree/`, of which the server makes
//! tiles and proofs, against the records.
//!
//! The files hold the levels of the tree that are stored, see docs/format.md.
//! What stands beyond the checkpoint beside the log is worth nothing, and is not
//! looked at. Memory is that of one tile a level.

use std::fs::File;
use std::io::{BufReader, ErrorKind, Read};
use std::path::Path;

use super::findings::Findings;
use crate::folder::FolderError;
use crate::proof::{Hash, parent};
use crate::report::Place;

/// Levels that are stored, and hashes in a tile.
const LEVELS: usize = 5;
const WIDTH: usize = 256;

/// Name of the count of hashes that were compared.
pub(super) const COMPARED: &str = "hashes_compared";

const DERIVED: &str = "the tiles and proofs that a server makes of it would be refused by whoever \
     checks them; the log is not affected, `keytrail rebuild` makes it again";

/// Compares the stored hashes, record by record.
pub(super) struct Tiles {
    pub(super) findings: Findings,
    levels: Vec<LevelFile>,
    /// Records that the files must cover.
    size: u64,
    next: u64,
}

struct LevelFile {
    name: String,
    /// None once the file has ended, or where there is none.
    file: Option<BufReader<File>>,
    /// The hashes of the present tile.
    tile: Vec<Hash>,
    at: u64,
}

impl Tiles {
    /// Over the folder `dir`, as far as a checkpoint of `size` records covers it.
    /// None where no tree is stored.
    pub(super) fn open(
        dir: &Path,
        size: u64,
        findings: Findings,
    ) -> Result<Option<Self>, FolderError> {
        let tree = dir.join("store").join("tree");
        if size == 0 || !tree.is_dir() {
            return Ok(None);
        }
        let mut levels = Vec::with_capacity(LEVELS);
        for level in 0..LEVELS {
            let name = format!("store/tree/level-{level}");
            let path = dir.join(&name);
            let file = match path.is_file().then(|| File::open(&path)).transpose() {
                Ok(file) => file.map(BufReader::new),
                Err(error) if error.kind() == ErrorKind::NotFound => None,
                Err(error) => return Err(FolderError::reading(&path)(error)),
            };
            levels.push(LevelFile { name, file, tile: Vec::with_capacity(WIDTH), at: 0 });
        }
        Ok(Some(Self { findings, levels, size, next: 0 }))
    }

    /// Takes in the next record by its hash as a leaf.
    pub(super) fn record(&mut self, leaf: Hash) -> Result<(), FolderError> {
        if self.next >= self.size {
            return Ok(());
        }
        self.next += 1;
        let mut hash = leaf;
        for level in &mut self.levels {
            level.compare(&hash, &mut self.findings)?;
            level.tile.push(hash);
            if level.tile.len() < WIDTH {
                break;
            }
            hash = root_of_tile(&level.tile);
            level.tile.clear();
        }
        Ok(())
    }
}

impl LevelFile {
    fn compare(&mut self, expected: &Hash, findings: &mut Findings) -> Result<(), FolderError> {
        let place =
            || Place { file: Some(self.name.clone()), offset: Some(self.at), ..Place::default() };
        let Some(file) = &mut self.file else { return Ok(()) };
        let mut found = [0; 32];
        match file.read_exact(&mut found) {
            Ok(()) if found == *expected => findings.count(COMPARED),
            Ok(()) => {
                findings.fail(place(), "a hash of the tree is not that of the records", DERIVED)
            }
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                findings.fail(place(), "hashes that a checkpoint covers are missing", DERIVED);
                self.file = None;
            }
            Err(error) => return Err(FolderError::reading(Path::new(&self.name))(error)),
        }
        self.at += 32;
        Ok(())
    }
}

/// The root of a whole tile.
fn root_of_tile(tile: &[Hash]) -> Hash {
    let mut level = tile.to_vec();
    while level.len() > 1 {
        let (pairs, _) = level.as_chunks::<2>();
        level = pairs.iter().map(|[left, right]| parent(left, right)).collect();
    }
    level.first().copied().unwrap_or_default()
}
