//! Bringing sled from where it stands to where the log stands.
//!
//! Every record is checked on the way: format, position, chain.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use engine::ids::{Id, Micros, Position};
use engine::machine::{Change, Entries, Machine, Record};

use crate::behind::Behind;
use crate::block::BlockLog;
use crate::disk::Disk;
use crate::folder::Folder;
use crate::keys::KeyStore;
use crate::open::{OpenError, OpenReport, Progress};
use crate::record::{self, Chain};
use crate::snapshot::{self, Stand};
use crate::state::{ENTRY, Layers, META, Meta, entry_sum};
use crate::trouble::guarded;

/// Records folded between two batches of sled.
const STEP: usize = 8_192;

/// Entries of a snapshot in one batch of sled.
const LOAD_STEP: usize = 4_096;

/// Folds the log into sled.
pub(crate) struct CatchUp<'a> {
    log: &'a dyn BlockLog,
    progress: Option<&'a Progress>,
}

impl<'a> CatchUp<'a> {
    pub(crate) fn new(log: &'a dyn BlockLog, progress: Option<&'a Progress>) -> Self {
        Self { log, progress }
    }

    /// Brings both trees of `behind` to the log's head.
    pub(crate) fn run<M: Machine>(
        &mut self,
        behind: &mut Behind<M>,
        report: &mut OpenReport,
    ) -> Result<(), OpenError> {
        let end = self.log.head().size;
        let copied_to = behind.log.head();
        let start = copied_to.size.min(behind.meta.position);
        let mut chain = if copied_to.size == start { copied_to.chain } else { behind.meta.chain };
        let mut at = start;
        while at < end {
            enough_space(&behind.folder)?;
            let bytes = self.read(at)?;
            let (records, chains) = checked(&bytes, at, &mut chain)?;
            report.copied += copy(behind, &bytes, &chains, at)?;
            at += records.len() as u64;
            report.unknown_subjects += unknown_subjects(behind.keys.as_deref(), &records);
            report.replayed += fold(behind, &records, chain)?;
            if let Some(progress) = self.progress {
                progress(at - start, end - start);
            }
        }
        behind.layers.stands_at(Position(end));
        behind.recent.written(end);
        Ok(())
    }

    fn read(&self, from: u64) -> Result<Vec<Vec<u8>>, OpenError> {
        match self.log.read(Position(from), STEP) {
            Ok(records) if records.is_empty() => Err(damaged(from, "the log ends too early")),
            Ok(records) => Ok(records),
            Err(error) => Err(damaged(from, &error.to_string())),
        }
    }
}

/// How many of `records` are sealed for a subject that the key store has never had.
fn unknown_subjects(keys: Option<&KeyStore>, records: &[Record]) -> u64 {
    let unknown = |keys: &KeyStore, record: &Record| {
        record.draft.subject != Id::NIL && !keys.is_known(record.draft.subject)
    };
    keys.map_or(0, |keys| records.iter().filter(|record| unknown(keys, record)).count() as u64)
}

/// The records that `bytes` hold, which must stand at `from` and follow `chain`,
/// and the chain value of each.
fn checked(
    bytes: &[Vec<u8>],
    from: u64,
    chain: &mut Chain,
) -> Result<(Vec<Record>, Vec<Chain>), OpenError> {
    let mut records = Vec::with_capacity(bytes.len());
    let mut chains = Vec::with_capacity(bytes.len());
    for (position, bytes) in (from..).zip(bytes) {
        let (record, prev) =
            record::decode(bytes).map_err(|error| damaged(position, &error.to_string()))?;
        if record.position.0 != position {
            return Err(damaged(position, "another record stands in its place"));
        }
        if prev != *chain {
            return Err(damaged(position, "the chain breaks"));
        }
        *chain = record::chain(bytes);
        records.push(record);
        chains.push(*chain);
    }
    Ok((records, chains))
}

/// Adds to sled's copy of the log what it lacks of `bytes`, which stand at `from`
/// and have these chain values.
fn copy<M: Machine>(
    behind: &mut Behind<M>,
    bytes: &[Vec<u8>],
    chains: &[Chain],
    from: u64,
) -> Result<u64, OpenError> {
    let has = (behind.log.head().size.saturating_sub(from) as usize).min(bytes.len());
    let lacking = &bytes[has..];
    if !lacking.is_empty() {
        let records = lacking.iter().map(Vec::as_slice).zip(chains[has..].iter().copied());
        guarded(|| behind.log.append(records)).map_err(OpenError::Store)?;
    }
    Ok(lacking.len() as u64)
}

/// Folds into state what it lacks of `records`, the last of which has this chain value.
fn fold<M: Machine>(
    behind: &mut Behind<M>,
    records: &[Record],
    chain: Chain,
) -> Result<u64, OpenError> {
    let mut overlay = Overlay { changes: HashMap::new(), layers: Arc::clone(&behind.layers) };
    let mut folded = 0;
    for record in records.iter().filter(|record| record.position.0 >= behind.meta.position) {
        let changes = M::evolve(&overlay, record);
        overlay.changes.extend(changes);
        folded += 1;
    }
    if folded == 0 {
        return Ok(0);
    }
    let changes: Vec<Change<M>> = overlay.changes.into_iter().collect();
    behind.meta.position += folded;
    behind.meta.chain = chain;
    let written = behind.write_state(changes).map_err(OpenError::Store)?;
    behind.layers.written(written, behind.meta.position);
    Ok(folded)
}

/// State with changes that are not yet in sled.
struct Overlay<M: Machine> {
    changes: HashMap<M::Key, Option<Arc<M::Entry>>>,
    layers: Arc<Layers<M>>,
}

impl<M: Machine> Entries<M> for Overlay<M> {
    fn get(&self, key: &M::Key) -> Option<Arc<M::Entry>> {
        self.changes.get(key).map_or_else(|| self.layers.get(key), Clone::clone)
    }
}

/// The chain value before `position`; none beyond the log's head.
pub(crate) fn chain_before(
    log: &dyn BlockLog,
    genesis: Chain,
    position: u64,
) -> Result<Option<Chain>, OpenError> {
    let head = log.head();
    if position == head.size {
        return Ok(Some(head.chain));
    }
    if position > head.size {
        return Ok(None);
    }
    let Some(last) = position.checked_sub(1) else { return Ok(Some(genesis)) };
    Ok(Some(record::chain(&one(log, last)?)))
}

/// Time of the log's last record; the earliest there is for an empty log.
pub(crate) fn last_time(log: &dyn BlockLog) -> Result<Micros, OpenError> {
    let Some(last) = log.head().size.checked_sub(1) else { return Ok(Micros(0)) };
    let bytes = one(log, last)?;
    let (record, _) = record::decode(&bytes).map_err(|error| damaged(last, &error.to_string()))?;
    Ok(record.time)
}

fn one(log: &dyn BlockLog, position: u64) -> Result<Vec<u8>, OpenError> {
    let mut read =
        log.read(Position(position), 1).map_err(|error| damaged(position, &error.to_string()))?;
    read.pop().ok_or_else(|| damaged(position, "the log ends too early"))
}

/// Fills an empty state tree from a snapshot; or why the snapshot is of no use,
/// and then the tree may hold part of it.
pub(crate) fn load_snapshot(
    disk: &dyn Disk,
    path: &Path,
    log: &dyn BlockLog,
    genesis: Chain,
    tree: &sled::Tree,
    version: u32,
) -> Result<Result<Meta, String>, OpenError> {
    let stand = match snapshot::stand_of(disk, path) {
        Ok(stand) if stand.version != version => return Ok(Err("it is of other rules".into())),
        Ok(stand) => stand,
        Err(error) => return Ok(Err(error.to_string())),
    };
    if chain_before(log, genesis, stand.position)? != Some(stand.chain) {
        return Ok(Err("it is of another log".into()));
    }
    let Stand { position, subjects, .. } = stand;
    let mut meta = Meta { position, subjects, ..Meta::empty(version, stand.chain) };
    let mut store_error = None;
    let mut batch = sled::Batch::default();
    let loaded = snapshot::read(disk, path, |key, entry| {
        meta.add(entry_sum(&key, &entry));
        batch.insert([&[ENTRY], key.as_slice()].concat(), entry);
        if meta.entries.is_multiple_of(LOAD_STEP as u64) {
            apply(tree, std::mem::take(&mut batch), &mut store_error)?;
        }
        Ok(())
    });
    // Position and last entries together: before this, the tree counts as empty.
    if loaded.is_ok() {
        batch.insert(META, meta.encode());
        drop(apply(tree, batch, &mut store_error));
    }
    match (store_error, loaded) {
        (Some(why), _) => Err(OpenError::Store(why)),
        (None, Err(error)) => Ok(Err(error.to_string())),
        (None, Ok(_)) => Ok(Ok(meta)),
    }
}

fn apply(tree: &sled::Tree, batch: sled::Batch, failed: &mut Option<String>) -> io::Result<()> {
    guarded(|| tree.apply_batch(batch)).map_err(|why| {
        *failed = Some(why);
        io::ErrorKind::Other.into()
    })
}

/// An error where sled could meet a full disk.
pub(crate) fn enough_space(folder: &Folder) -> Result<(), OpenError> {
    if folder.takes_sled(0) {
        return Ok(());
    }
    let (dir, free) = (folder.dir.clone(), folder.free());
    Err(OpenError::NoSpace { dir, free, needed: folder.least() })
}

fn damaged(position: u64, why: &str) -> OpenError {
    OpenError::Damaged { position: Position(position), why: why.to_owned() }
}
