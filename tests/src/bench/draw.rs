//! Bytes for ids, challenges and ciphertexts that nobody needs to be unable to guess.

use engine::ids::{Id, Micros};

/// SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number
/// generators", 2014): fast, and good enough that zstd finds nothing in it.
#[derive(Debug, Clone)]
pub(crate) struct Draw(u64);

impl Draw {
    /// Draws of one seed.
    pub(crate) fn new(seed: u64) -> Self {
        // Mixed, because neighbouring states would give the same numbers, shifted.
        Self(mixed(seed))
    }

    /// The next number.
    pub(crate) fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed(self.0)
    }

    /// A number below `limit`, which is not zero.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.number() % limit as u64) as usize
    }

    /// Fills `out`.
    pub(crate) fn fill(&mut self, out: &mut [u8]) {
        for chunk in out.chunks_mut(8) {
            chunk.copy_from_slice(&self.number().to_le_bytes()[..chunk.len()]);
        }
    }

    /// An array.
    pub(crate) fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        self.fill(&mut out);
        out
    }

    /// `len` bytes.
    pub(crate) fn vec(&mut self, len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        self.fill(&mut out);
        out
    }

    /// A fresh id, as the server draws them.
    pub(crate) fn id(&mut self, at: Micros) -> Id {
        Id::v7(at, self.bytes())
    }
}

fn mixed(state: u64) -> u64 {
    let mut out = state;
    out = (out ^ (out >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    out = (out ^ (out >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    out ^ (out >> 31)
}
