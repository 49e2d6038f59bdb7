//! The Merkle tree over the records: RFC 6962, section 2.1, with SHA-256.
//!
//! A leaf is a record's bytes. The tree is kept as *tiles* (C2SP tlog-tiles):
//! 256 hashes of one level, of which eight binary levels below and above can be
//! computed again. Everything here is a pure function of a [`Tiles`]; where
//! tiles are kept is the notary's matter.
//!
//! `replay` does not use this module to verify: it has an implementation of its
//! own, so that a mistake here shows.

use sha2::{Digest, Sha256};

/// A SHA-256 value.
pub type Hash = [u8; 32];

/// Binary levels in a tile.
const TILE_LEVELS: u32 = 8;
/// Hashes in a full tile.
pub const TILE_WIDTH: u64 = 1 << TILE_LEVELS;

/// The hash of a leaf.
#[must_use]
pub fn leaf_hash(record: &[u8]) -> Hash {
    Sha256::new().chain_update([0]).chain_update(record).finalize().into()
}

/// The hash of a node with two children.
#[must_use]
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    Sha256::new().chain_update([1]).chain_update(left).chain_update(right).finalize().into()
}

/// The root of the tree without leaves.
#[must_use]
pub fn empty_root() -> Hash {
    Sha256::digest([]).into()
}

/// Names a tile: its level, from 0 for leaves, and its place in the level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TileId {
    /// 0 to 7: a tree of 2^64 leaves has no more.
    pub level: u8,
    /// From 0.
    pub index: u64,
}

/// Where the hashes of a tree are.
pub trait Tiles {
    /// The first `width` hashes of a tile.
    ///
    /// # Errors
    ///
    /// [`Missing`] if the tile or that much of it is not there.
    fn tile(&self, id: TileId, width: usize) -> Result<Vec<Hash>, Missing>;
}

/// A tile is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("tile {}/{} is missing", .0.level, .0.index)]
pub struct Missing(pub TileId);

/// Hashes that a tile has in a tree of `size` leaves: 0 to 256.
#[must_use]
pub fn width_in(id: TileId, size: u64) -> u64 {
    let shift = TILE_LEVELS * u32::from(id.level);
    let hashes = size.checked_shr(shift).unwrap_or(0);
    hashes.saturating_sub(id.index.saturating_mul(TILE_WIDTH)).min(TILE_WIDTH)
}

/// The root of the tree of the first `size` leaves.
///
/// # Errors
///
/// [`Missing`].
pub fn root(tiles: &dyn Tiles, size: u64) -> Result<Hash, Missing> {
    if size == 0 { Ok(empty_root()) } else { range(tiles, 0, size) }
}

/// The inclusion proof of leaf `index` in the tree of `size` leaves: from its
/// sibling up to a child of the root (RFC 6962, section 2.1.1).
///
/// # Errors
///
/// [`Missing`]; also for an index that is not below the size.
pub fn inclusion_proof(tiles: &dyn Tiles, index: u64, size: u64) -> Result<Vec<Hash>, Missing> {
    if index >= size {
        return Err(Missing(TileId { level: 0, index: index / TILE_WIDTH }));
    }
    let mut proof = Vec::new();
    let (mut first, mut length) = (0, size);
    while length > 1 {
        let left = split(length);
        if index < first + left {
            proof.push(range(tiles, first + left, length - left)?);
            length = left;
        } else {
            proof.push(range(tiles, first, left)?);
            first += left;
            length -= left;
        }
    }
    proof.reverse();
    Ok(proof)
}

/// The proof that the tree of `old` leaves is a prefix of the tree of `size`
/// leaves (RFC 6962, section 2.1.2). Empty if `old` is 0 or equal to `size`.
///
/// # Errors
///
/// [`Missing`]; also if `old` is beyond `size`.
pub fn consistency_proof(tiles: &dyn Tiles, old: u64, size: u64) -> Result<Vec<Hash>, Missing> {
    if old > size {
        return Err(Missing(TileId { level: 0, index: old / TILE_WIDTH }));
    }
    let mut proof = Vec::new();
    if old == 0 || old == size {
        return Ok(proof);
    }
    // `whole`: the old tree is the whole of what is being looked at; its root is
    // what the verifier starts from, so it is not said.
    let (mut first, mut length, mut rest, mut whole) = (0, size, old, true);
    while rest != length {
        let left = split(length);
        if rest <= left {
            proof.push(range(tiles, first + left, length - left)?);
            length = left;
        } else {
            proof.push(range(tiles, first, left)?);
            first += left;
            length -= left;
            rest -= left;
            whole = false;
        }
    }
    if !whole {
        proof.push(range(tiles, first, length)?);
    }
    proof.reverse();
    Ok(proof)
}

/// The largest power of two below `length`, which is at least 2.
fn split(length: u64) -> u64 {
    1 << (63 - (length - 1).leading_zeros())
}

/// The hash over `length` leaves from `first`, as they stand in a tree.
fn range(tiles: &dyn Tiles, first: u64, length: u64) -> Result<Hash, Missing> {
    if length.is_power_of_two() && first.is_multiple_of(length) {
        return subtree(tiles, length.trailing_zeros(), first / length);
    }
    let left = split(length);
    Ok(node_hash(&range(tiles, first, left)?, &range(tiles, first + left, length - left)?))
}

/// The root of the full subtree number `index` of 2^`level` leaves.
fn subtree(tiles: &dyn Tiles, level: u32, index: u64) -> Result<Hash, Missing> {
    let inside = level % TILE_LEVELS;
    let first = index << inside;
    let id = TileId { level: (level / TILE_LEVELS) as u8, index: first / TILE_WIDTH };
    let from = (first % TILE_WIDTH) as usize;
    let to = from + (1 << inside);
    let hashes = tiles.tile(id, to)?;
    Ok(reduce(hashes.get(from..to).ok_or(Missing(id))?))
}

/// The root over 2^n hashes.
fn reduce(hashes: &[Hash]) -> Hash {
    let mut level = hashes.to_vec();
    while level.len() > 1 {
        level = level.chunks(2).map(|pair| node_hash(&pair[0], &pair[1])).collect();
    }
    level.first().copied().unwrap_or_else(empty_root)
}

/// The right edge of a growing tree: the tiles that are not full yet.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Edge {
    /// Number of leaves.
    size: u64,
    /// For each level, the hashes of its last tile, fewer than 256.
    levels: Vec<Vec<Hash>>,
}

impl Edge {
    /// The edge of the tree of the first `size` leaves.
    ///
    /// # Errors
    ///
    /// [`Missing`].
    pub fn load(tiles: &dyn Tiles, size: u64) -> Result<Self, Missing> {
        let mut levels = Vec::new();
        for level in 0..TILE_LEVELS as u8 {
            let hashes = size.checked_shr(TILE_LEVELS * u32::from(level)).unwrap_or(0);
            if hashes == 0 {
                break;
            }
            let id = TileId { level, index: hashes / TILE_WIDTH };
            let width = (hashes % TILE_WIDTH) as usize;
            levels.push(if width == 0 { Vec::new() } else { tiles.tile(id, width)? });
        }
        Ok(Self { size, levels })
    }

    /// Number of leaves.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Adds a leaf. `put` gets each hash that this adds to a level: the leaf, and
    /// the root of each tile that it makes full.
    pub fn push(&mut self, leaf: Hash, put: &mut dyn FnMut(u8, &Hash)) {
        let mut hash = leaf;
        self.size += 1;
        for level in 0..TILE_LEVELS as u8 {
            put(level, &hash);
            if self.levels.len() == usize::from(level) {
                self.levels.push(Vec::with_capacity(TILE_WIDTH as usize));
            }
            let hashes = &mut self.levels[usize::from(level)];
            hashes.push(hash);
            if (hashes.len() as u64) < TILE_WIDTH {
                return;
            }
            hash = reduce(hashes);
            hashes.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 6962, section 2.1, word by word.
    fn mth(leaves: &[Vec<u8>]) -> Hash {
        match leaves {
            [] => Sha256::digest([]).into(),
            [leaf] => Sha256::digest([&[0][..], leaf].concat()).into(),
            _ => {
                let mut k = 1;
                while k * 2 < leaves.len() {
                    k *= 2;
                }
                let both = [mth(&leaves[..k]), mth(&leaves[k..])].concat();
                Sha256::digest([&[1][..], &both].concat()).into()
            }
        }
    }

    /// Section 2.1.1, word by word.
    fn path(m: usize, leaves: &[Vec<u8>]) -> Vec<Hash> {
        if leaves.len() == 1 {
            return Vec::new();
        }
        let mut k = 1;
        while k * 2 < leaves.len() {
            k *= 2;
        }
        let (mut proof, other) = if m < k {
            (path(m, &leaves[..k]), mth(&leaves[k..]))
        } else {
            (path(m - k, &leaves[k..]), mth(&leaves[..k]))
        };
        proof.push(other);
        proof
    }

    /// Section 2.1.2, word by word.
    fn subproof(m: usize, leaves: &[Vec<u8>], complete: bool) -> Vec<Hash> {
        if m == leaves.len() {
            return if complete { Vec::new() } else { vec![mth(leaves)] };
        }
        let mut k = 1;
        while k * 2 < leaves.len() {
            k *= 2;
        }
        let (mut proof, other) = if m <= k {
            (subproof(m, &leaves[..k], complete), mth(&leaves[k..]))
        } else {
            (subproof(m - k, &leaves[k..], false), mth(&leaves[..k]))
        };
        proof.push(other);
        proof
    }

    #[derive(Default)]
    struct Grown {
        edge: Edge,
        levels: Vec<Vec<Hash>>,
    }

    impl Grown {
        fn of(leaves: &[Vec<u8>]) -> Self {
            let mut grown = Self { levels: vec![Vec::new(); 8], ..Self::default() };
            for leaf in leaves {
                let levels = &mut grown.levels;
                let put = &mut |level: u8, hash: &Hash| levels[usize::from(level)].push(*hash);
                grown.edge.push(leaf_hash(leaf), put);
            }
            grown
        }
    }

    impl Tiles for Grown {
        fn tile(&self, id: TileId, width: usize) -> Result<Vec<Hash>, Missing> {
            let from = (id.index * TILE_WIDTH) as usize;
            let hashes = self.levels[usize::from(id.level)].get(from..from + width);
            hashes.map(<[Hash]>::to_vec).ok_or(Missing(id))
        }
    }

    fn leaves(count: usize) -> Vec<Vec<u8>> {
        (0..count).map(|index| index.to_be_bytes().to_vec()).collect()
    }

    #[test]
    fn roots_and_proofs_are_those_of_the_rfc_for_every_small_tree() {
        let leaves = leaves(40);
        let grown = Grown::of(&leaves);
        for size in 0..=leaves.len() {
            assert_eq!(root(&grown, size as u64).unwrap(), mth(&leaves[..size]), "{size}");
            for index in 0..size {
                let proof = inclusion_proof(&grown, index as u64, size as u64).unwrap();
                assert_eq!(proof, path(index, &leaves[..size]), "{index} in {size}");
            }
            for old in 1..size {
                let proof = consistency_proof(&grown, old as u64, size as u64).unwrap();
                assert_eq!(proof, subproof(old, &leaves[..size], true), "{old} to {size}");
            }
        }
    }

    #[test]
    fn levels_fill_as_the_specification_says() {
        // C2SP tlog-tiles, "Partial Tiles": its example of a tree of 70,000.
        let grown = Grown::of(&leaves(70_000));
        let lengths: Vec<_> = grown.levels.iter().map(Vec::len).collect();
        assert_eq!(lengths[..4], [273 * 256 + 112, 256 + 17, 1, 0]);
        let width = |level, index| width_in(TileId { level, index }, 70_000);
        assert_eq!((width(0, 273), width(1, 1), width(2, 0), width(3, 0)), (112, 17, 1, 0));
        assert_eq!((width(0, 272), width(0, 274), width(1, 0)), (256, 0, 256));
        assert_eq!(Edge::load(&grown, 70_000).unwrap(), grown.edge);
    }

    #[test]
    fn what_is_not_there_is_an_error() {
        let grown = Grown::of(&leaves(3));
        assert!(inclusion_proof(&grown, 3, 3).is_err());
        assert!(consistency_proof(&grown, 4, 3).is_err());
        assert!(root(&grown, 5).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn larger_trees_agree_with_the_rfc(size in 200_usize..3_000, pick in any::<[u16; 2]>()) {
            let leaves = leaves(size);
            let grown = Grown::of(&leaves);
            let (index, old) = (usize::from(pick[0]) % size, usize::from(pick[1]) % size);
            prop_assert_eq!(root(&grown, size as u64).unwrap(), mth(&leaves));
            let proof = inclusion_proof(&grown, index as u64, size as u64).unwrap();
            prop_assert_eq!(proof, path(index, &leaves));
            let proof = consistency_proof(&grown, old as u64, size as u64).unwrap();
            let expected = if old == 0 { Vec::new() } else { subproof(old, &leaves, true) };
            prop_assert_eq!(proof, expected);
            prop_assert_eq!(Edge::load(&grown, size as u64).unwrap(), grown.edge);
        }
    }
}
