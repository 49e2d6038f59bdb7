//! Checks inclusion and consistency of Merkle trees (RFC 6962, RFC 9162), and
//! receipts (C2SP tlog-proof), from their text alone.
//!
//! Nothing here is shared with the code that makes proofs: a mistake in one of
//! the two shows.

use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};
use storage::note::{BadSignature, Checkpoint, Note, NoteError, Signed, VerifierKey};

/// A SHA-256 value.
pub type Hash = [u8; 32];

/// First line of a receipt.
const RECEIPT: &str = "c2sp.org/tlog-proof@v1";
/// Longest receipt that is read, in bytes.
pub const RECEIPT_MAX: usize = 256 * 1024;
/// A tree of 2^64 leaves has no longer proof.
const PROOF_MAX: usize = 64;

/// A proof that does not prove.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// The text is no receipt.
    #[error("not a receipt")]
    Form,
    /// The checkpoint in it is none.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// The signature of the log's key is wrong.
    #[error("the checkpoint's signature does not verify")]
    Signature(#[from] BadSignature),
    /// There is no signature by the log's key.
    #[error("the checkpoint is not signed by this key")]
    OtherKey,
    /// The checkpoint is of another log.
    #[error("the checkpoint is of another log than this key's")]
    OtherLog,
    /// The record is not where the receipt says.
    #[error("the record is not in the tree at this place")]
    NotIncluded,
    /// The later tree does not continue the earlier one.
    #[error("the later tree does not continue the earlier one")]
    Inconsistent,
    /// The receipt does not hold the record, and none was given.
    #[error("the receipt does not hold the record; give it beside")]
    NoRecord,
}

/// The hash of a record as a leaf.
#[must_use]
pub fn leaf(record: &[u8]) -> Hash {
    let mut hasher = Sha256::new();
    hasher.update([0x00]);
    hasher.update(record);
    hasher.finalize().into()
}

pub(crate) fn parent(left: &Hash, right: &Hash) -> Hash {
    let mut hasher = Sha256::new();
    hasher.update([0x01]);
    hasher.update(left);
    hasher.update(right);
    hasher.finalize().into()
}

/// The root of a tree, leaf by leaf, in memory that grows with its height.
#[derive(Debug, Clone, Default)]
pub struct Roots {
    /// Roots of full subtrees, largest first; sizes are the bits of `size`.
    stack: Vec<Hash>,
    size: u64,
}

impl Roots {
    /// Adds a record.
    pub fn push(&mut self, record: &[u8]) {
        self.push_leaf(leaf(record));
    }

    /// Adds a record by its hash as a leaf.
    pub(crate) fn push_leaf(&mut self, leaf: Hash) {
        let mut hash = leaf;
        // Each trailing one bit of the old size is a full subtree that this one completes.
        for _ in 0..self.size.trailing_ones() {
            if let Some(left) = self.stack.pop() {
                hash = parent(&left, &hash);
            }
        }
        self.stack.push(hash);
        self.size += 1;
    }

    /// Records so far.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The root over the records so far.
    #[must_use]
    pub fn root(&self) -> Hash {
        let mut stack = self.stack.iter().rev();
        match stack.next() {
            Some(last) => stack.fold(*last, |right, left| parent(left, &right)),
            None => Sha256::digest([]).into(),
        }
    }
}

/// Whether `leaf` stands at `index` in the tree of `size` with this root
/// (RFC 9162, section 2.1.3.2).
#[must_use]
pub fn is_included(leaf: &Hash, index: u64, size: u64, proof: &[Hash], root: &Hash) -> bool {
    if index >= size {
        return false;
    }
    let (mut node, mut last, mut hash) = (index, size - 1, *leaf);
    for other in proof {
        if last == 0 {
            return false;
        }
        if node & 1 == 1 || node == last {
            hash = parent(other, &hash);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            hash = parent(&hash, other);
        }
        node >>= 1;
        last >>= 1;
    }
    last == 0 && hash == *root
}

/// Whether the tree of `size` with root `new` continues the tree of `old_size`
/// with root `old` (RFC 9162, section 2.1.4.2). Every tree continues the empty one.
#[must_use]
pub fn is_consistent(old_size: u64, old: &Hash, size: u64, new: &Hash, proof: &[Hash]) -> bool {
    if old_size == 0 || old_size == size {
        let same = old_size == 0 || old == new;
        return same && proof.is_empty();
    }
    if old_size > size {
        return false;
    }
    let mut hashes = proof.iter();
    let first = if old_size.is_power_of_two() { Some(old) } else { hashes.next() };
    let Some(first) = first else { return false };
    let (mut node, mut last) = (old_size - 1, size - 1);
    while node & 1 == 1 {
        node >>= 1;
        last >>= 1;
    }
    let (mut of_old, mut of_new) = (*first, *first);
    for hash in hashes {
        if last == 0 {
            return false;
        }
        if node & 1 == 1 || node == last {
            of_old = parent(hash, &of_old);
            of_new = parent(hash, &of_new);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            of_new = parent(&of_new, hash);
        }
        node >>= 1;
        last >>= 1;
    }
    last == 0 && of_old == *old && of_new == *new
}

/// A receipt: that a record stands in a log, in one self-contained text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The record, if the receipt holds it.
    pub record: Option<Vec<u8>>,
    /// Its place.
    pub index: u64,
    /// From its sibling up to a child of the root.
    pub proof: Vec<Hash>,
    /// The signed checkpoint.
    pub note: Note,
}

/// What a receipt proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proven {
    /// The record.
    pub record: Vec<u8>,
    /// The checkpoint that covers it.
    pub checkpoint: Checkpoint,
}

impl Receipt {
    /// The text of a receipt.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!("{RECEIPT}\n");
        if let Some(record) = &self.record {
            text.push_str(&format!("extra {}\n", STANDARD.encode(record)));
        }
        text.push_str(&format!("index {}\n", self.index));
        for hash in &self.proof {
            text.push_str(&STANDARD.encode(hash));
            text.push('\n');
        }
        format!("{text}\n{}", self.note)
    }

    /// Checks it with the log's public key; `record` is needed where the receipt
    /// does not hold it, and counts before the one it holds.
    ///
    /// # Errors
    ///
    /// [`ProofError`], by the first thing that is wrong.
    pub fn check(&self, key: &VerifierKey, record: Option<&[u8]>) -> Result<Proven, ProofError> {
        match key.verify(&self.note)? {
            Some(Signed::Log) => (),
            Some(Signed::Witness { .. }) | None => return Err(ProofError::OtherKey),
        }
        let checkpoint = Checkpoint::of_text(&self.note.text)?;
        if checkpoint.origin != key.name {
            return Err(ProofError::OtherLog);
        }
        let record = record.or(self.record.as_deref()).ok_or(ProofError::NoRecord)?;
        let root = &checkpoint.root;
        if is_included(&leaf(record), self.index, checkpoint.size, &self.proof, root) {
            Ok(Proven { record: record.to_vec(), checkpoint })
        } else {
            Err(ProofError::NotIncluded)
        }
    }
}

impl FromStr for Receipt {
    type Err = ProofError;

    fn from_str(text: &str) -> Result<Self, ProofError> {
        if text.len() > RECEIPT_MAX {
            return Err(ProofError::Form);
        }
        let (head, note) = text.split_once("\n\n").ok_or(ProofError::Form)?;
        let mut lines = head.split('\n').peekable();
        if lines.next() != Some(RECEIPT) {
            return Err(ProofError::Form);
        }
        let decode = |text: &str| STANDARD.decode(text).map_err(|_| ProofError::Form);
        let extra = lines.next_if(|line| line.starts_with("extra "));
        let record = extra.map(|line| decode(&line["extra ".len()..])).transpose()?;
        let index = lines.next().and_then(|line| line.strip_prefix("index "));
        let index = index.ok_or(ProofError::Form)?;
        let number: u64 = index.parse().map_err(|_| ProofError::Form)?;
        if number.to_string() != index {
            return Err(ProofError::Form);
        }
        let mut proof = Vec::new();
        for line in lines {
            if proof.len() == PROOF_MAX {
                return Err(ProofError::Form);
            }
            proof.push(decode(line)?.try_into().map_err(|_| ProofError::Form)?);
        }
        Ok(Self { record, index: number, proof, note: note.parse()? })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use storage::merkle::{self, Edge, Missing, TileId, Tiles};
    use storage::note::LogSigner;

    use super::*;

    /// The writer's tree, to check proofs that this module did not make.
    #[derive(Default)]
    struct Tree {
        edge: Edge,
        levels: BTreeMap<u8, Vec<Hash>>,
    }

    impl Tree {
        fn of(records: &[Vec<u8>]) -> Self {
            let mut tree = Self::default();
            for record in records {
                let levels = &mut tree.levels;
                tree.edge.push(merkle::leaf_hash(record), &mut |level, hash| {
                    levels.entry(level).or_default().push(*hash);
                });
            }
            tree
        }
    }

    impl Tiles for Tree {
        fn tile(&self, id: TileId, width: usize) -> Result<Vec<Hash>, Missing> {
            let from = id.index as usize * 256;
            let level = self.levels.get(&id.level).ok_or(Missing(id))?;
            level.get(from..from + width).map(<[Hash]>::to_vec).ok_or(Missing(id))
        }
    }

    fn records(count: u64) -> Vec<Vec<u8>> {
        (0..count).map(|index| format!("record {index}").into_bytes()).collect()
    }

    #[test]
    fn every_proof_of_every_small_tree_holds_and_no_other() {
        let records = records(33);
        let tree = Tree::of(&records);
        let mut roots = Roots::default();
        let mut of_size = vec![roots.root()];
        for record in &records {
            roots.push(record);
            of_size.push(roots.root());
        }
        for size in 0..=33_u64 {
            assert_eq!(of_size[size as usize], merkle::root(&tree, size).unwrap());
            for index in 0..size {
                let proof = merkle::inclusion_proof(&tree, index, size).unwrap();
                for (other, record) in records.iter().enumerate() {
                    let root = &of_size[size as usize];
                    let included = is_included(&leaf(record), index, size, &proof, root);
                    assert_eq!(included, other as u64 == index, "{other} as {index} of {size}");
                }
            }
            for old in 0..=size {
                let proof = merkle::consistency_proof(&tree, old, size).unwrap();
                for (claimed, root) in of_size.iter().enumerate().take(size as usize + 1) {
                    let new = &of_size[size as usize];
                    let consistent = is_consistent(old, root, size, new, &proof);
                    let expected = old == 0 || claimed as u64 == old;
                    assert_eq!(consistent, expected, "{claimed} for {old} to {size}");
                }
            }
        }
    }

    fn receipt() -> (Receipt, VerifierKey) {
        let records = records(300);
        let tree = Tree::of(&records);
        let signer = LogSigner::new("bank.example/log", &[7; 32]).unwrap();
        let origin = "bank.example/log".to_owned();
        let root = merkle::root(&tree, 300).unwrap();
        let mut note = Note::new(Checkpoint { origin, size: 300, root }.text()).unwrap();
        note.signatures.push(signer.sign(&note.text));
        let proof = merkle::inclusion_proof(&tree, 129, 300).unwrap();
        let record = Some(records[129].clone());
        (Receipt { record, index: 129, proof, note }, signer.verifier().clone())
    }

    #[test]
    fn a_receipt_reads_back_and_is_checked_with_one_public_key() {
        let (receipt, key) = receipt();
        let read: Receipt = receipt.text().parse().unwrap();
        assert_eq!(read, receipt);
        assert_eq!(read.check(&key, None).unwrap().record, b"record 129");
        assert_eq!(read.check(&key, Some(b"record 128")), Err(ProofError::NotIncluded));
        let without = Receipt { record: None, ..read };
        let without: Receipt = without.text().parse().unwrap();
        assert_eq!(without.check(&key, None), Err(ProofError::NoRecord));
        assert!(without.check(&key, Some(b"record 129")).is_ok());
        let other = LogSigner::new("bank.example/log", &[8; 32]).unwrap();
        assert_eq!(without.check(other.verifier(), Some(b"record 129")), Err(ProofError::OtherKey));
    }

    #[test]
    fn every_flipped_bit_of_a_receipt_is_noticed() {
        let (receipt, key) = receipt();
        let text = receipt.text();
        for bit in 0..text.len() * 8 {
            let mut damaged = text.clone().into_bytes();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let accepted = std::str::from_utf8(&damaged)
                .ok()
                .and_then(|text| text.parse::<Receipt>().ok())
                .is_some_and(|receipt| receipt.check(&key, None).is_ok());
            assert!(!accepted, "bit {bit}");
        }
    }

    proptest! {
        #[test]
        fn hostile_receipts_are_refused(text in "\\PC{0,120}", index in any::<u64>(), proof in prop::collection::vec(any::<[u8; 32]>(), 0..70)) {
            let _ = text.parse::<Receipt>();
            let _ = is_included(&[0; 32], index, index.wrapping_add(1), &proof, &[1; 32]);
            let _ = is_consistent(index, &[0; 32], index.wrapping_mul(3), &[1; 32], &proof);
        }
    }
}
