//! State as readers see it: never ahead of what is durable.
//!
//! Three layers, asked in this order:
//!
//! 1. *dirty*: entries of records that are durable in the journal and not yet
//!    in sled. Never evicted; their number is bounded by the lag of the writer
//!    behind ([`crate::behind`]).
//! 2. *cache*: entries as they stand in sled, as many as the options allow.
//! 3. the sled tree `state`. Key: a byte 1, then the key's bytes. Under the
//!    single byte 0 stands [`Meta`], in the same tree, so that one batch moves
//!    entries and position together.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{self, AtomicU64};
use std::sync::{Arc, PoisonError, RwLock};

use engine::ids::Position;
use engine::machine::{Change, Entries, Machine};
use quick_cache::Weighter;
use quick_cache::sync::{Cache, GuardResult};

use crate::record::Chain;
use crate::trouble::Trouble;

/// The key of [`Meta`] in the tree; every other key begins with [`ENTRY`].
pub(crate) const META: &[u8] = &[0];

/// First byte of the key of an entry.
pub(crate) const ENTRY: u8 = 1;

/// Reads state. Cheap to clone; every answer is durable.
pub struct StateReader<M: Machine> {
    pub(crate) layers: Arc<Layers<M>>,
}

impl<M: Machine> Clone for StateReader<M> {
    fn clone(&self) -> Self {
        Self { layers: Arc::clone(&self.layers) }
    }
}

impl<M: Machine> StateReader<M> {
    /// The entry under `key`, if there is one. May read the disk: microseconds
    /// as a rule, milliseconds at worst.
    ///
    /// # Panics
    ///
    /// If sled is damaged and the fatal hook returned, which it does in tests alone.
    #[must_use]
    pub fn get(&self, key: &M::Key) -> Option<Arc<M::Entry>> {
        self.layers.get(key)
    }

    /// Entries in the order of their keys: from `from` (included) up to `to`
    /// (excluded), both as key bytes, at most `limit`. Go on after the last key
    /// by passing its bytes with a zero byte appended.
    ///
    /// # Panics
    ///
    /// As [`StateReader::get`].
    #[must_use]
    pub fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Vec<(M::Key, Arc<M::Entry>)> {
        self.layers.scan(from, to, limit)
    }

    /// The position of the next record: state reflects all before it.
    #[must_use]
    pub fn position(&self) -> Position {
        Position(self.layers.position.load(atomic::Ordering::Acquire))
    }
}

impl<M: Machine> Entries<M> for StateReader<M> {
    fn get(&self, key: &M::Key) -> Option<Arc<M::Entry>> {
        self.layers.get(key)
    }
}

/// A place among keys: a key, or bytes that need not be one.
enum Place<M: Machine> {
    Key(M::Key),
    Bytes(Vec<u8>),
}

impl<M: Machine> Ord for Place<M> {
    fn cmp(&self, other: &Self) -> Ordering {
        // The order of keys is the order of their bytes, by the contract of Machine.
        match (self, other) {
            (Self::Key(one), Self::Key(two)) => one.cmp(two),
            (Self::Key(one), Self::Bytes(two)) => M::key_bytes(one).cmp(two),
            (Self::Bytes(one), Self::Key(two)) => one.cmp(&M::key_bytes(two)),
            (Self::Bytes(one), Self::Bytes(two)) => one.cmp(two),
        }
    }
}

impl<M: Machine> PartialOrd for Place<M> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<M: Machine> PartialEq for Place<M> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<M: Machine> Eq for Place<M> {}

/// A change that is durable in the journal and not yet in sled.
struct Dirty<M: Machine> {
    /// Position after the group that made it.
    end: u64,
    /// The entry, or none if it was removed.
    entry: Option<Arc<M::Entry>>,
}

/// An entry as it stands in sled.
pub(crate) struct Cached<M: Machine> {
    pub(crate) entry: Arc<M::Entry>,
    /// Length of its bytes.
    pub(crate) len: u32,
    /// From [`entry_sum`]: so that a change needs not read what it replaces.
    pub(crate) sum: u128,
}

/// A key and what sled holds under it now, if anything.
pub(crate) type Written<M> = (<M as Machine>::Key, Option<Cached<M>>);

impl<M: Machine> Clone for Cached<M> {
    fn clone(&self) -> Self {
        Self { entry: Arc::clone(&self.entry), len: self.len, sum: self.sum }
    }
}

/// An estimate: an entry in memory takes about twice its bytes, and the cache
/// some more for key and bookkeeping.
#[derive(Clone)]
struct Weight;

impl<M: Machine> Weighter<M::Key, Cached<M>> for Weight {
    fn weight(&self, _: &M::Key, cached: &Cached<M>) -> u64 {
        176 + 2 * u64::from(cached.len)
    }
}

/// The three layers.
pub(crate) struct Layers<M: Machine> {
    dirty: RwLock<BTreeMap<Place<M>, Dirty<M>>>,
    cache: Cache<M::Key, Cached<M>, Weight>,
    pub(crate) tree: sled::Tree,
    position: AtomicU64,
    pub(crate) trouble: Arc<Trouble>,
}

impl<M: Machine> Layers<M> {
    /// Over a tree that reflects all records before `position`.
    pub(crate) fn new(
        tree: sled::Tree,
        position: Position,
        cache_bytes: u64,
        trouble: Arc<Trouble>,
    ) -> Self {
        // The number of items is a hint for the first allocation.
        let items = usize::try_from(cache_bytes / 1_024).unwrap_or(0).max(16);
        Self {
            dirty: RwLock::new(BTreeMap::new()),
            cache: Cache::with_weighter(items, cache_bytes, Weight),
            tree,
            position: AtomicU64::new(position.0),
            trouble,
        }
    }

    pub(crate) fn get(&self, key: &M::Key) -> Option<Arc<M::Entry>> {
        let dirty = self.dirty.read().unwrap_or_else(PoisonError::into_inner);
        if !dirty.is_empty()
            && let Some(dirty) = dirty.get(&Place::Key(key.clone()))
        {
            return dirty.entry.clone();
        }
        drop(dirty);
        match self.cache.get_value_or_guard(key, None) {
            GuardResult::Value(cached) => Some(cached.entry),
            // The guard is void if the writer behind replaces the entry
            // meanwhile, so an old entry never settles in the cache.
            GuardResult::Guard(guard) => {
                let cached = self.load(key)?;
                let entry = Arc::clone(&cached.entry);
                drop(guard.insert(cached));
                Some(entry)
            }
            // Not reached without a time limit; the tree knows in any case.
            GuardResult::Timeout => self.load(key).map(|cached| cached.entry),
        }
    }

    fn load(&self, key: &M::Key) -> Option<Cached<M>> {
        let stored_key = entry_key::<M>(key);
        let bytes = self.trouble.answer(|| self.tree.get(&stored_key))?;
        let sum = entry_sum(&stored_key[1..], &bytes);
        Some(Cached { entry: self.entry_of(key, &bytes), len: bytes.len() as u32, sum })
    }

    /// The sum of what sled holds under `key`, if that is in the cache.
    pub(crate) fn cached_sum(&self, key: &M::Key) -> Option<u128> {
        self.cache.peek(key).map(|cached| cached.sum)
    }

    fn entry_of(&self, key: &M::Key, bytes: &[u8]) -> Arc<M::Entry> {
        match M::entry_of(key, bytes) {
            Some(entry) => Arc::new(entry),
            None => self.trouble.no_answer("an entry of state cannot be decoded"),
        }
    }

    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Vec<(M::Key, Arc<M::Entry>)> {
        let mut found = Vec::new();
        let mut from = from.to_vec();
        while found.len() < limit && from.as_slice() < to {
            // Dirty entries first: what leaves them meanwhile is in the tree by then.
            let (newer, seen_to) = self.dirty_range(&from, to, limit - found.len() + 64);
            let until = seen_to.as_deref().unwrap_or(to);
            self.merge(&from, until, newer, limit, &mut found);
            match seen_to {
                Some(seen_to) => from = seen_to,
                None => break,
            }
        }
        found
    }

    /// Dirty entries in a range of key bytes, at most `limit`; and where they
    /// end, if there may be more.
    fn dirty_range(
        &self,
        from: &[u8],
        to: &[u8],
        limit: usize,
    ) -> (Vec<Change<M>>, Option<Vec<u8>>) {
        let range = (
            Bound::Included(Place::Bytes(from.to_vec())),
            Bound::Excluded(Place::Bytes(to.to_vec())),
        );
        let dirty = self.dirty.read().unwrap_or_else(PoisonError::into_inner);
        let newer: Vec<_> = dirty
            .range(range)
            .filter_map(|(place, dirty)| match place {
                Place::Key(key) => Some((key.clone(), dirty.entry.clone())),
                // Never stored: only asked with.
                Place::Bytes(_) => None,
            })
            .take(limit)
            .collect();
        let seen_to = if newer.len() < limit {
            None
        } else {
            newer.last().map(|(key, _)| {
                let mut after = M::key_bytes(key);
                after.push(0);
                after
            })
        };
        (newer, seen_to)
    }

    /// Adds what the tree has in a range, overruled by `newer`, to `found`.
    fn merge(
        &self,
        from: &[u8],
        until: &[u8],
        newer: Vec<Change<M>>,
        limit: usize,
        found: &mut Vec<(M::Key, Arc<M::Entry>)>,
    ) {
        // Each newer entry hides at most one of the tree.
        let most = limit - found.len() + newer.len();
        let stored: Vec<(sled::IVec, sled::IVec)> = self.trouble.answer(|| {
            self.tree.range(prefixed(from)..prefixed(until)).take(most).collect::<sled::Result<_>>()
        });
        let mut stored = stored.into_iter().peekable();
        let mut newer = newer.into_iter().map(|(key, entry)| (M::key_bytes(&key), key, entry));
        let mut next_newer = newer.next();
        while found.len() < limit {
            let order = match (stored.peek(), &next_newer) {
                (Some((old, _)), Some((new, ..))) => old[1..].cmp(new),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => return,
            };
            let old = if order.is_le() { stored.next() } else { None };
            if order.is_lt() {
                found.extend(old.map(|(key, bytes)| self.pair_of(&key, &bytes)));
            } else if let Some((_, key, entry)) = std::mem::replace(&mut next_newer, newer.next()) {
                found.extend(entry.map(|entry| (key, entry)));
            }
        }
    }

    fn pair_of(&self, key: &[u8], bytes: &[u8]) -> (M::Key, Arc<M::Entry>) {
        match M::key_of(&key[1..]) {
            Some(key) => {
                let entry = self.entry_of(&key, bytes);
                (key, entry)
            }
            None => self.trouble.no_answer("a key of state cannot be decoded"),
        }
    }

    /// The tree reflects all records before `position`.
    pub(crate) fn stands_at(&self, position: Position) {
        self.position.store(position.0, atomic::Ordering::Release);
    }

    /// Makes the changes of a durable group visible. `end` is the position after it.
    pub(crate) fn publish(&self, changes: &[Change<M>], end: u64) {
        let mut dirty = self.dirty.write().unwrap_or_else(PoisonError::into_inner);
        for (key, entry) in changes {
            dirty.insert(Place::Key(key.clone()), Dirty { end, entry: entry.clone() });
        }
        self.position.store(end, atomic::Ordering::Release);
    }

    /// Takes note that sled holds these changes now; none of them is of a group
    /// after `end`.
    pub(crate) fn written(&self, changes: Vec<Written<M>>, end: u64) {
        // First the cache, which voids what readers are loading, then the dirty
        // entries, so that at no moment an older entry can be seen.
        for (key, cached) in &changes {
            match cached {
                Some(cached) => self.cache.insert(key.clone(), cached.clone()),
                None => drop(self.cache.remove(key)),
            }
        }
        let mut dirty = self.dirty.write().unwrap_or_else(PoisonError::into_inner);
        for (key, _) in changes {
            let place = Place::Key(key);
            if dirty.get(&place).is_some_and(|dirty| dirty.end <= end) {
                dirty.remove(&place);
            }
        }
    }
}

/// The tree's key of an entry.
pub(crate) fn entry_key<M: Machine>(key: &M::Key) -> Vec<u8> {
    prefixed(&M::key_bytes(key))
}

fn prefixed(key: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 + key.len());
    out.push(ENTRY);
    out.extend_from_slice(key);
    out
}

/// What a state tree reflects: stored in it, moved by the batches that change it.
///
/// ```text
/// off len  field
///   0   4  STATE_VERSION of the rules
///   4   8  position: all records before it are reflected
///  12  32  chain value of the last of them
///  44   8  number of entries
///  52  16  sum of the entries, see [`entry_sum`]
///  68   8  subjects in the key store when this was written
/// ```
/// All big-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) version: u32,
    pub(crate) position: u64,
    pub(crate) chain: Chain,
    pub(crate) entries: u64,
    pub(crate) sum: u128,
    /// A key store with fewer subjects lacks keys that the log needs.
    pub(crate) subjects: u64,
}

impl Meta {
    const LEN: usize = 76;

    /// Of a tree without entries, before the first record.
    pub(crate) fn empty(version: u32, genesis: Chain) -> Self {
        Self { version, position: 0, chain: genesis, entries: 0, sum: 0, subjects: 0 }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(Self::LEN);
        out.extend_from_slice(&self.version.to_be_bytes());
        out.extend_from_slice(&self.position.to_be_bytes());
        out.extend_from_slice(&self.chain);
        out.extend_from_slice(&self.entries.to_be_bytes());
        out.extend_from_slice(&self.sum.to_be_bytes());
        out.extend_from_slice(&self.subjects.to_be_bytes());
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::LEN] = bytes.try_into().ok()?;
        Some(Self {
            version: u32::from_be_bytes(field(bytes, 0)),
            position: u64::from_be_bytes(field(bytes, 4)),
            chain: field(bytes, 12),
            entries: u64::from_be_bytes(field(bytes, 44)),
            sum: u128::from_be_bytes(field(bytes, 52)),
            subjects: u64::from_be_bytes(field(bytes, 68)),
        })
    }

    /// Counts an entry with this [`entry_sum`] in.
    pub(crate) fn add(&mut self, sum: u128) {
        self.entries += 1;
        self.sum = self.sum.wrapping_add(sum);
    }

    /// Counts an entry with this [`entry_sum`] out.
    pub(crate) fn subtract(&mut self, sum: u128) {
        self.entries = self.entries.wrapping_sub(1);
        self.sum = self.sum.wrapping_sub(sum);
    }
}

/// `N` bytes from `offset`. Every caller names a range inside.
fn field<const N: usize>(bytes: &[u8; Meta::LEN], offset: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[offset..offset + N]);
    out
}

/// An entry's part in the sum over a tree: the first 16 bytes of a BLAKE3 hash,
/// added up modulo 2^128. The sum does not depend on the order of entries, so
/// it can be kept up with each batch, and a lost or stale entry changes it. It
/// finds damage, not forgery.
pub(crate) fn entry_sum(key: &[u8], entry: &[u8]) -> u128 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(key.len() as u32).to_be_bytes());
    hasher.update(key);
    hasher.update(entry);
    let mut first = [0; 16];
    first.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    u128::from_be_bytes(first)
}
