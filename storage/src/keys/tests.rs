//! The key store against damage, power cuts and crowds.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex};

use super::*;
use crate::disk::{DiskFile, MemoryDisk, Op, Open, RecordingDisk};
use pair::{HEADER_LEN, SLOT_LEN};

#[derive(Default)]
struct Counter(AtomicU64);

impl Entropy for Counter {
    fn fill(&self, out: &mut [u8]) {
        let seed = self.0.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        blake3::Hasher::new().update(&seed).finalize_xof().fill(out);
    }
}

fn open(disk: &MemoryDisk, expect: Expect) -> Result<KeyStore, KeyError> {
    let entropy = Arc::new(Counter::default());
    KeyStore::open(Arc::new(disk.clone()), Path::new("/keys"), entropy, expect)
}

#[test]
fn secrets_and_subjects_are_the_same_after_a_restart() {
    let disk = MemoryDisk::default();
    let store = open(&disk, Expect::MayBeNew).unwrap();
    let secret = store.secret(SecretName::ApiKeys).unwrap();
    let made = store.subject_for("bank", "alice").unwrap();
    let other = store.subject_for("bank2", "alice").unwrap();
    assert_ne!(made.id, other.id);
    drop(store);
    let store = open(&disk, Expect::Existing).unwrap();
    assert_eq!(store.secret(SecretName::ApiKeys).unwrap().expose(), secret.expose());
    let found = store.subject_for("bank", "alice").unwrap();
    assert_eq!((found.id, found.key.expose()), (made.id, made.key.expose()));
    assert_eq!(store.find_subject("bank", "alice"), Some(made.id));
    assert_eq!(store.find_subject("ban", "kalice"), None);
    let by_id = store.subject_key(other.id).unwrap().unwrap();
    assert_eq!(by_id.key.expose(), other.key.expose());
    assert!(store.subject_key(Id([7; 16])).unwrap().is_none());
}

#[test]
fn no_file_holds_a_reference_or_a_subjects_key_as_it_is() {
    let disk = MemoryDisk::default();
    let store = open(&disk, Expect::MayBeNew).unwrap();
    let made = store.subject_for("service-provider", "alice@example.org").unwrap();
    let contains = |bytes: &[u8], what: &[u8]| bytes.windows(what.len()).any(|w| w == what);
    for (path, bytes) in disk.files() {
        assert!(!contains(&bytes, b"alice"), "{}", path.display());
        assert!(!contains(&bytes, made.key.expose()), "{}", path.display());
    }
    assert_eq!(format!("{:?}", made.key), "[redacted]");
}

const STORE: &str = "/keys/subjects.store";
const MIRROR: &str = "/keys/subjects.mirror";

#[test]
fn a_missing_or_changed_secret_is_named_where_the_log_has_records() {
    let full = MemoryDisk::default();
    open(&full, Expect::MayBeNew).unwrap().subject_for("bank", "alice").unwrap();
    for path in Part::SECRETS.map(|part| Path::new("/keys").join(part.file_name())) {
        let (without, changed) = (full.copy(), full.copy());
        without.remove(&path).unwrap();
        flip(&changed, &path, 0);
        let missing = open(&without, Expect::Existing).err().unwrap();
        assert!(matches!(missing, KeyError::Missing { path: p, .. } if p == path));
        let damaged = open(&changed, Expect::Existing).err().unwrap();
        assert!(matches!(damaged, KeyError::Damaged { path: p, .. } if p == path));
    }
}

fn flip(disk: &MemoryDisk, path: &Path, bit: usize) {
    let mut bytes = disk.files()[path].clone();
    bytes[bit / 8] ^= 1 << (bit % 8);
    disk.put_file(path, bytes);
}

/// Two subjects, one erased between them.
fn three() -> (MemoryDisk, SubjectKey, SubjectKey) {
    let disk = MemoryDisk::default();
    let store = open(&disk, Expect::MayBeNew).unwrap();
    let first = store.subject_for("bank", "alice").unwrap();
    let erased = store.subject_for("bank", "eve").unwrap();
    let last = store.subject_for("bank", "bob").unwrap();
    assert!(store.erase(erased.id).unwrap());
    (disk, first, last)
}

#[track_caller]
fn has_both(store: &KeyStore, first: &SubjectKey, last: &SubjectKey) {
    for (name, subject) in [("alice", first), ("bob", last)] {
        assert_eq!(store.find_subject("bank", name), Some(subject.id));
        let found = store.subject_key(subject.id).unwrap().unwrap();
        assert_eq!(found.key.expose(), subject.key.expose());
    }
    assert_eq!(store.find_subject("bank", "eve"), None);
    assert_eq!(store.subjects_made(), 3);
}

#[test]
fn a_flipped_bit_anywhere_in_one_file_of_subjects_is_mended_from_the_other() {
    let (disk, first, last) = three();
    for path in [STORE, MIRROR].map(Path::new) {
        for bit in 0..disk.files()[path].len() * 8 {
            let harmed = disk.copy();
            flip(&harmed, path, bit);
            let store = open(&harmed, Expect::Existing).unwrap();
            has_both(&store, &first, &last);
            assert!(store.repaired() == 1 || bit < HEADER_LEN * 8);
            assert_eq!(harmed.files(), disk.files(), "{} bit {bit}", path.display());
        }
    }
}

#[test]
fn a_last_subject_damaged_in_both_files_is_refused_and_not_cut() {
    let (disk, ..) = three();
    let len = disk.files()[Path::new(STORE)].len();
    for bit in (len - SLOT_LEN) * 8..len * 8 {
        let harmed = disk.copy();
        flip(&harmed, Path::new(STORE), bit);
        flip(&harmed, Path::new(MIRROR), len * 8 - 1 - bit % (SLOT_LEN * 8));
        let before = harmed.files();
        let refused = open(&harmed, Expect::Existing).err().unwrap();
        assert!(matches!(refused, KeyError::Damaged { .. }), "bit {bit}: {refused}");
        assert_eq!(harmed.files(), before, "nothing is written by a refusal");
    }
}

#[test]
fn a_file_of_subjects_that_is_cut_at_any_byte_or_missing_is_made_again_from_the_other() {
    let (disk, first, last) = three();
    for path in [STORE, MIRROR].map(Path::new) {
        let whole = disk.files()[path].clone();
        for len in 0..whole.len() {
            let harmed = disk.copy();
            harmed.put_file(path, whole[..len].to_vec());
            has_both(&open(&harmed, Expect::Existing).unwrap(), &first, &last);
            assert_eq!(harmed.files(), disk.files(), "{} of {len} bytes", path.display());
        }
        let harmed = disk.copy();
        harmed.remove(path).unwrap();
        has_both(&open(&harmed, Expect::Existing).unwrap(), &first, &last);
        assert_eq!(harmed.files(), disk.files());
    }
    disk.remove(Path::new(STORE)).unwrap();
    disk.remove(Path::new(MIRROR)).unwrap();
    let missing = open(&disk, Expect::Existing).err().unwrap();
    assert!(matches!(missing, KeyError::Missing { .. }));
}

#[test]
fn an_append_that_stopped_at_any_byte_before_the_second_file_is_as_if_never_made() {
    let (disk, first, last) = three();
    let before = disk.files();
    open(&disk, Expect::Existing).unwrap().subject_for("bank", "carol").unwrap();
    let after = disk.files()[Path::new(STORE)].clone();
    let len = before[Path::new(STORE)].len();
    for stop in 1..SLOT_LEN {
        for zeros in [0, SLOT_LEN - stop] {
            let torn = disk.copy();
            let mut bytes = after[..len + stop].to_vec();
            bytes.resize(len + stop + zeros, 0);
            torn.put_file(Path::new(STORE), bytes);
            torn.put_file(Path::new(MIRROR), before[Path::new(MIRROR)].clone());
            let store = open(&torn, Expect::Existing).unwrap();
            has_both(&store, &first, &last);
            assert_eq!(torn.files(), before);
            let again = store.subject_for("bank", "carol").unwrap();
            let store = open(&torn, Expect::Existing).unwrap();
            assert_eq!(store.find_subject("bank", "carol"), Some(again.id));
        }
    }
}

#[test]
fn subjects_beyond_one_read_of_the_files_are_all_found_and_mended() {
    let disk = MemoryDisk::default();
    let store = open(&disk, Expect::MayBeNew).unwrap();
    let made: Vec<_> =
        (0..4_099).map(|n| store.subject_for("bank", &n.to_string()).unwrap()).collect();
    let whole = disk.files();
    for (path, slot) in [(STORE, 4_095), (MIRROR, 4_096), (STORE, 4_098)] {
        flip(&disk, Path::new(path), (HEADER_LEN + slot * SLOT_LEN + 20) * 8);
    }
    let store = open(&disk, Expect::Existing).unwrap();
    assert_eq!((store.subjects_made(), store.repaired()), (4_099, 3));
    assert_eq!(disk.files(), whole);
    for (n, subject) in made.iter().enumerate() {
        assert_eq!(store.find_subject("bank", &n.to_string()), Some(subject.id));
    }
    let last = store.subject_key(made[4_098].id).unwrap().unwrap();
    assert_eq!(last.key.expose(), made[4_098].key.expose());
}

#[test]
fn a_key_damaged_while_the_store_is_open_is_read_from_the_other_file_or_called_damaged() {
    let (disk, first, last) = three();
    let store = open(&disk, Expect::Existing).unwrap();
    let harm = |path: &str| {
        let file = disk.open(Path::new(path), Open::Write).unwrap();
        file.write_at(&[0xff; 3], HEADER_LEN as u64 + 70).unwrap();
    };
    harm(STORE);
    has_both(&store, &first, &last);
    harm(MIRROR);
    assert!(matches!(store.subject_key(first.id), Err(KeyError::Damaged { .. })));
    assert!(store.erase(first.id).unwrap(), "and yet it can be erased");
    assert_eq!(store.find_subject("bank", "alice"), None);
    assert!(store.subject_key(first.id).unwrap().is_none());
    assert!(open(&disk, Expect::Existing).unwrap().subject_key(last.id).unwrap().is_some());
}

#[test]
fn subjects_under_other_secrets_are_refused_by_name() {
    let (disk, ..) = three();
    let elsewhere = MemoryDisk::default();
    let other = Arc::new(Counter(AtomicU64::new(77)));
    let dir = Path::new("/keys");
    KeyStore::open(Arc::new(elsewhere.clone()), dir, other, Expect::MayBeNew).unwrap();
    for part in [Part::Wrapping, Part::Secret(SecretName::Subjects)] {
        let mixed = disk.copy();
        let path = dir.join(part.file_name());
        mixed.put_file(&path, elsewhere.files()[&path].clone());
        let refused = open(&mixed, Expect::Existing).err().unwrap();
        assert!(matches!(refused, KeyError::OtherKeys { .. }), "{refused}");
    }
}

#[test]
fn an_erased_subject_is_gone_from_every_file_and_stays_gone() {
    let disk = MemoryDisk::default();
    let store = open(&disk, Expect::MayBeNew).unwrap();
    let eve = store.subject_for("bank", "eve").unwrap();
    let alice = store.subject_for("bank", "alice").unwrap();
    let wrapped = store.subjects.wrapped(eve.id).unwrap().unwrap();
    let holds = |disk: &MemoryDisk, what: &[u8]| {
        disk.files().values().any(|bytes| bytes.windows(what.len()).any(|window| window == what))
    };
    assert!(holds(&disk, &wrapped.key) && holds(&disk, &wrapped.tag));
    assert!(store.erase(eve.id).unwrap());
    assert!(!holds(&disk, &wrapped.key) && !holds(&disk, &wrapped.tag));
    let gone = |store: &KeyStore| {
        assert_eq!(store.find_subject("bank", "eve"), None);
        assert!(store.subject_key(eve.id).unwrap().is_none());
        assert!(store.is_known(eve.id), "and yet it is not a key that was lost");
        assert!(!store.erase(eve.id).unwrap(), "erasing again is no error");
    };
    gone(&store);
    assert!(!store.erase(Id([9; 16])).unwrap() && !store.is_known(Id([9; 16])));
    let store = open(&disk, Expect::Existing).unwrap();
    gone(&store);
    assert_eq!(store.find_subject("bank", "alice"), Some(alice.id));
    let again = store.subject_for("bank", "eve").unwrap();
    assert_ne!((again.id, again.key.expose()), (eve.id, eve.key.expose()));
}

#[test]
fn an_erasure_whose_sync_failed_is_not_acknowledged_and_is_done_again() {
    for syncs in [0, 1] {
        let (disk, first, _) = three();
        let store = open(&disk, Expect::Existing).unwrap();
        disk.fail_syncs_after(syncs);
        assert!(matches!(store.erase(first.id), Err(KeyError::Io { .. })));
        assert!(matches!(store.erase(first.id), Err(KeyError::Failed)));
        let disk = disk.copy();
        let store = open(&disk, Expect::Existing).unwrap();
        store.erase(first.id).unwrap();
        assert!(store.subject_key(first.id).unwrap().is_none());
    }
}

#[test]
fn without_space_no_subject_is_made_and_later_one_is() {
    // Neither file takes a whole slot, or only the first does.
    for room in [SLOT_LEN as u64 / 2, SLOT_LEN as u64 + 9] {
        let (disk, first, last) = three();
        let store = open(&disk, Expect::Existing).unwrap();
        let before = disk.files();
        disk.set_capacity(Some(disk.used() + room));
        for _ in 0..2 {
            assert!(matches!(store.subject_for("bank", "carol"), Err(KeyError::Full)));
            assert_eq!(disk.files(), before);
        }
        has_both(&store, &first, &last);
        assert!(store.erase(first.id).unwrap(), "erasing takes no space");
        disk.set_capacity(None);
        let carol = store.subject_for("bank", "carol").unwrap();
        let store = open(&disk, Expect::Existing).unwrap();
        assert_eq!(store.find_subject("bank", "carol"), Some(carol.id));
    }
}

/// Syncs wait until the gate is open.
#[derive(Clone, Default)]
struct Gated(MemoryDisk, Arc<(Mutex<Gate>, Condvar)>);

#[derive(Default)]
struct Gate {
    shut: bool,
    waiting: bool,
}

impl Gated {
    fn shut(&self) {
        *self.1.0.lock().unwrap() = Gate { shut: true, waiting: false };
    }

    fn until_waiting(&self) {
        let gate = self.1.0.lock().unwrap();
        drop(self.1.1.wait_while(gate, |gate| !gate.waiting).unwrap());
    }

    fn open_up(&self) {
        self.1.0.lock().unwrap().shut = false;
        self.1.1.notify_all();
    }
}

struct GatedFile(Box<dyn DiskFile>, Gated);

impl Disk for Gated {
    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(GatedFile(self.0.open(path, how)?, self.clone())))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.remove(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        self.0.list(dir)
    }

    fn create_dir(&self, dir: &Path, privacy: Privacy) -> io::Result<()> {
        self.0.create_dir(dir, privacy)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.sync_dir(dir)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.0.exists(path)
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        self.0.free_bytes(dir)
    }
}

impl DiskFile for GatedFile {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(out, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_at(bytes, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        let (gate, changed) = &*self.1.1;
        let mut at_gate = gate.lock().unwrap();
        at_gate.waiting = true;
        changed.notify_all();
        drop(changed.wait_while(at_gate, |gate| gate.shut).unwrap());
        self.0.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn set_read_only(&self) -> io::Result<()> {
        self.0.set_read_only()
    }
}

#[test]
fn those_who_come_while_a_group_is_synced_share_the_next_one() {
    let gated = Gated::default();
    let disk = RecordingDisk::new(Arc::new(gated.clone()));
    let entropy = Arc::new(Counter::default());
    let dir = Path::new("/keys");
    let store = KeyStore::open(Arc::new(disk.clone()), dir, entropy, Expect::MayBeNew).unwrap();
    let syncs = || disk.recording().ops.iter().filter(|op| matches!(op, Op::Sync(_))).count();
    let before = syncs();
    let victim = store.subject_for("bank", "eve").unwrap();
    assert_eq!(syncs() - before, 2, "one of each file");
    gated.shut();
    std::thread::scope(|scope| {
        let store = &store;
        scope.spawn(|| store.subject_for("bank", "first").unwrap());
        gated.until_waiting();
        let others: Vec<_> = (0..9)
            .map(|number| {
                // Three users, each asked for by three.
                scope.spawn(move || store.subject_for("bank", &format!("{}", number % 3)).unwrap())
            })
            .collect();
        let erased = scope.spawn(move || store.erase(victim.id).unwrap());
        store.subjects.until_waiting(4);
        assert_eq!(store.subjects_made(), 1, "nothing is seen before it is durable");
        assert_eq!(store.find_subject("bank", "first"), None);
        gated.open_up();
        let mut ids: Vec<_> = others.into_iter().map(|other| other.join().unwrap().id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 3, "one subject for each user");
        assert!(erased.join().unwrap());
    });
    assert_eq!(syncs() - before, 6, "one group for the first, one for all the others");
    assert_eq!(store.subjects_made(), 5);
    assert_eq!(store.find_subject("bank", "eve"), None);
    let left = open(&gated.0, Expect::Existing).unwrap();
    assert_eq!((left.subjects_made(), left.repaired()), (5, 0));
}

/// What the store must hold after a power cut: names by the step that made or
/// erased them durably.
struct Story {
    disk: RecordingDisk,
    /// By step: who was made (true) or erased (false), and its id.
    steps: Vec<(&'static str, bool, SubjectKey)>,
}

fn story() -> Story {
    let disk = RecordingDisk::on(&MemoryDisk::default());
    let entropy = Arc::new(Counter::default());
    let store =
        KeyStore::open(Arc::new(disk.clone()), Path::new("/keys"), entropy, Expect::MayBeNew);
    let store = store.unwrap();
    let mut steps = Vec::new();
    for (name, made) in [
        ("alice", true),
        ("bob", true),
        ("alice", false),
        ("carol", true),
        ("alice", true),
        ("bob", false),
        ("dave", true),
    ] {
        let subject = match made {
            true => store.subject_for("bank", name).unwrap(),
            false => {
                let id = store.find_subject("bank", name).unwrap();
                let subject = store.subject_key(id).unwrap().unwrap();
                assert!(store.erase(id).unwrap());
                subject
            }
        };
        steps.push((name, made, subject));
        disk.note(steps.len() as u64);
    }
    Story { disk, steps }
}

/// Holds an opened store to the first `done` steps. The step in progress may
/// have happened or not.
fn holds(store: &KeyStore, story: &Story, done: usize) {
    for (index, (name, made, subject)) in story.steps[..done].iter().enumerate() {
        let later = |end: usize| {
            story.steps[index + 1..end.min(story.steps.len())]
                .iter()
                .any(|(_, made, other)| !made && other.id == subject.id)
        };
        let found = store.subject_key(subject.id).unwrap();
        if !made || later(done) {
            assert!(found.is_none(), "{name} was erased in step {index}");
            assert!(store.is_known(subject.id));
        } else if !later(done + 1) {
            assert_eq!(store.find_subject("bank", name), Some(subject.id));
            assert_eq!(found.unwrap().key.expose(), subject.key.expose());
        }
    }
}

#[test]
fn a_power_cut_at_any_operation_and_another_while_that_is_repaired_loses_no_subject() {
    let story = story();
    let recording = story.disk.recording();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut choose = |n: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as usize % n
    };
    for point in 0..=recording.ops.len() {
        // Subjects are handed out only once the store is open: until then it may be new.
        let done = recording.noted(point).unwrap_or(0) as usize;
        let expect = if done == 0 { Expect::MayBeNew } else { Expect::Existing };
        for _ in 0..12 {
            let left = recording.after_power_cut(point, &mut choose);
            let again = RecordingDisk::on(&left);
            let open = |disk: Arc<dyn Disk>| {
                let entropy = Arc::new(Counter(AtomicU64::new(1_000)));
                KeyStore::open(disk, Path::new("/keys"), entropy, expect)
                    .unwrap_or_else(|error| panic!("after {point}: {error}"))
            };
            holds(&open(Arc::new(again.clone())), &story, done);
            let repair = again.recording();
            for point in 0..=repair.ops.len() {
                let left = repair.after_power_cut(point, &mut choose);
                let store = open(Arc::new(left.clone()));
                holds(&store, &story, done);
                let new = store.subject_for("bank", "new").unwrap();
                let entropy = Arc::new(Counter::default());
                let store =
                    KeyStore::open(Arc::new(left), Path::new("/keys"), entropy, Expect::Existing);
                let store = store.unwrap();
                holds(&store, &story, done);
                assert_eq!(store.find_subject("bank", "new"), Some(new.id));
            }
        }
    }
}

#[test]
fn a_subject_whose_sync_failed_is_not_handed_out_and_nothing_more_is_written() {
    let disk = MemoryDisk::default();
    let store = open(&disk, Expect::MayBeNew).unwrap();
    disk.fail_syncs_after(0);
    assert!(matches!(store.subject_for("bank", "alice"), Err(KeyError::Io { .. })));
    assert!(matches!(store.subject_for("bank", "alice"), Err(KeyError::Failed)));
    assert_eq!(store.find_subject("bank", "alice"), None);
}

#[test]
fn what_is_handed_out_after_the_death_of_the_process_survives_a_power_cut_after_it() {
    let story = story();
    let recording = story.disk.recording();
    let mut state = 7_u64;
    let mut choose = |n: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as usize % n
    };
    for point in 0..=recording.ops.len() {
        let expect = if point == 0 { Expect::MayBeNew } else { Expect::Existing };
        let died = recording.after_death(point);
        let open = |disk: Arc<dyn Disk>, expect| {
            let entropy = Arc::new(Counter(AtomicU64::new(1_000)));
            KeyStore::open(disk, Path::new("/keys"), entropy, expect)
        };
        // Where the store itself was not made yet, there is nothing to hand out.
        let Ok(store) = open(Arc::new(died.clone()), expect) else { continue };
        let seen = |store: &KeyStore| -> Vec<_> {
            let has = |subject: &SubjectKey| store.subject_key(subject.id).unwrap().is_some();
            story.steps.iter().map(|(_, _, subject)| has(subject)).collect()
        };
        let before = seen(&store);
        let after = died.recording();
        for _ in 0..10 {
            let left = after.after_power_cut(after.ops.len(), &mut choose);
            let store = open(Arc::new(left), Expect::Existing).unwrap();
            assert_eq!(seen(&store), before, "after {point}");
        }
    }
}

#[test]
fn a_device_hash_leads_to_one_device_of_one_application_until_that_is_erased() {
    let disk = MemoryDisk::default();
    let store = open(&disk, Expect::MayBeNew).unwrap();
    let (app, hash) = (Id([1; 16]), [7; 32]);
    assert_eq!(store.find_device(app, &hash), None);
    let device = store.device_for(app, &hash).unwrap();
    assert_eq!(store.find_device(app, &hash), Some(device.id));
    assert_eq!(store.device_for(app, &hash).unwrap().id, device.id);
    assert_ne!(store.device_for(Id([2; 16]), &hash).unwrap().id, device.id);
    assert_ne!(store.device_for(app, &[8; 32]).unwrap().id, device.id);
    for (path, bytes) in disk.files() {
        assert!(!bytes.windows(32).any(|window| window == hash), "{}", path.display());
    }
    drop(store);
    let store = open(&disk, Expect::Existing).unwrap();
    assert_eq!(store.find_device(app, &hash), Some(device.id));
    assert!(store.erase(device.id).unwrap());
    assert_eq!(store.find_device(app, &hash), None);
    assert_ne!(store.device_for(app, &hash).unwrap().id, device.id);
}

fn reader(disk: &MemoryDisk) -> Result<Option<KeyReader>, KeyError> {
    KeyReader::open(disk, Path::new("/keys"))
}

#[test]
fn who_only_looks_finds_keys_and_erasures_and_changes_no_file() {
    let disk = MemoryDisk::default();
    assert!(reader(&disk).unwrap().is_none());
    let store = open(&disk, Expect::MayBeNew).unwrap();
    let made = store.subject_for("bank", "alice").unwrap();
    let gone = store.subject_for("bank", "bob").unwrap();
    assert!(store.erase(gone.id).unwrap());
    drop(store);
    // The last slot lacks its end in one file: that is read past, not repaired.
    let mirror = disk.open(Path::new(MIRROR), Open::Write).unwrap();
    mirror.set_len(mirror.len().unwrap() - 1).unwrap();
    let before = disk.files();
    let keys = reader(&disk).unwrap().unwrap();
    let Found::Key(found) = keys.subject(made.id).unwrap() else { panic!("no key") };
    assert_eq!((found.id, found.key.expose()), (made.id, made.key.expose()));
    assert!(matches!(keys.subject(gone.id), Ok(Found::Erased)));
    assert!(matches!(keys.subject(Id([7; 16])), Ok(Found::Unknown)));
    assert_eq!(disk.files(), before);
}

#[test]
fn who_only_looks_is_told_of_what_is_missing_or_belongs_to_other_keys() {
    let disk = MemoryDisk::default();
    drop(open(&disk, Expect::MayBeNew).unwrap().subject_for("bank", "alice").unwrap());
    let wrapping = Path::new("/keys/wrapping.key");
    let kept = disk.read(wrapping, 1_000).unwrap();
    disk.remove(wrapping).unwrap();
    assert!(matches!(reader(&disk), Err(KeyError::Missing { .. })));
    let other = Secret32::new([9; 32]);
    disk::write_atomically(&disk, wrapping, &encode_secret(&other), Privacy::Private).unwrap();
    assert!(matches!(reader(&disk), Err(KeyError::OtherKeys { .. })));
    disk::write_atomically(&disk, wrapping, &kept, Privacy::Private).unwrap();
    assert!(reader(&disk).unwrap().is_some());
}
