use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use engine::ids::Micros;
use storage::disk::{DiskFile, Open, Privacy, RealDisk};
use storage::merkle::{self, Edge, Hash, Missing, TileId, Tiles};
use storage::note::{LogSigner, Signed};

use super::*;

const ORIGIN: &str = "bank.example/log";

/// A clock that stands, and bytes that count.
struct Still;

impl Clock for Still {
    fn wall(&self) -> Micros {
        Micros(1_700_000_000_999_999)
    }

    fn monotonic(&self) -> Micros {
        Micros(0)
    }
}

impl Entropy for Still {
    fn fill(&self, out: &mut [u8]) {
        out.fill(7);
    }
}

/// The tree over leaves that `kind` tells from others.
struct Tree(Vec<Vec<Hash>>);

impl Tree {
    fn of(kind: &str, size: u64) -> Self {
        let (mut edge, mut levels) = (Edge::default(), vec![Vec::new(); 8]);
        for index in 0..size {
            let leaf = merkle::leaf_hash(format!("{kind} {index}").as_bytes());
            edge.push(leaf, &mut |level, hash| levels[usize::from(level)].push(*hash));
        }
        Self(levels)
    }

    /// The request that takes a witness from `old` to `size`.
    fn request(&self, old: u64, size: u64) -> AddCheckpoint {
        let root = merkle::root(self, size).unwrap();
        let mut note = Note::new(Checkpoint { origin: ORIGIN.into(), size, root }.text()).unwrap();
        note.signatures.push(log().sign(&note.text));
        let proof = merkle::consistency_proof(self, old, size).unwrap_or_default();
        AddCheckpoint { old, proof, note }
    }
}

impl Tiles for Tree {
    fn tile(&self, id: TileId, width: usize) -> Result<Vec<Hash>, Missing> {
        let from = id.index as usize * 256;
        let level = self.0.get(usize::from(id.level)).ok_or(Missing(id))?;
        level.get(from..from + width).map(<[Hash]>::to_vec).ok_or(Missing(id))
    }
}

fn log() -> LogSigner {
    LogSigner::new(ORIGIN, &[5; 32]).unwrap()
}

fn open(dir: &Path) -> Result<Witness, OpenError> {
    open_on(dir, Arc::new(RealDisk))
}

fn open_on(dir: &Path, disk: Arc<dyn Disk>) -> Result<Witness, OpenError> {
    let keys = vec![log().verifier().clone()];
    Witness::open(dir, disk, keys, Some("audit.example/w1"), Arc::new(Still), &Still)
}

fn ask(witness: &Witness, request: &AddCheckpoint) -> Result<String, Rejected> {
    witness.add_checkpoint(request.to_string().as_bytes())
}

/// The status, and the size that a conflict says.
fn refused(witness: &Witness, request: &AddCheckpoint) -> (u16, Option<u64>) {
    match ask(witness, request).unwrap_err() {
        Rejected::BadRequest(_) => (400, None),
        Rejected::NotSigned => (403, None),
        Rejected::UnknownLog => (404, None),
        Rejected::Conflict { size } => (409, Some(size)),
        Rejected::Inconsistent => (422, None),
        Rejected::Failed(_) => (500, None),
    }
}

#[test]
fn growth_is_cosigned_with_the_time_and_verifies() {
    let dir = tempfile::tempdir().unwrap();
    let (witness, tree) = (open(dir.path()).unwrap(), Tree::of("a", 300));
    let mut old = 0;
    for size in [0, 1, 2, 7, 8, 255, 256, 257, 300, 300] {
        let mut request = tree.request(old, size);
        let line = ask(&witness, &request).unwrap();
        request.note.signatures.push(line.trim_end().parse().unwrap());
        let signed = witness.verifier().verify(&request.note);
        assert_eq!(signed, Ok(Some(Signed::Witness { at_s: 1_700_000_000 })), "{size}");
        assert_eq!(witness.sizes(), [(ORIGIN.to_owned(), size)]);
        old = size;
    }
}

#[test]
fn each_refusal_is_the_one_that_the_specification_names() {
    let dir = tempfile::tempdir().unwrap();
    let (witness, tree) = (open(dir.path()).unwrap(), Tree::of("a", 20));
    assert_eq!(refused(&witness, &tree.request(3, 9)), (409, Some(0)), "never cosigned is 0");
    ask(&witness, &tree.request(0, 9)).unwrap();
    assert_eq!(refused(&witness, &tree.request(0, 9)), (409, Some(9)), "a client may ask so");
    assert_eq!(refused(&witness, &tree.request(8, 9)), (409, Some(9)));
    assert_eq!(refused(&witness, &tree.request(10, 12)), (409, Some(9)));
    let backwards = AddCheckpoint { old: 9, ..tree.request(0, 8) };
    assert_eq!(refused(&witness, &backwards), (400, None));

    let mut wrong = tree.request(9, 20);
    wrong.proof[0][0] ^= 1;
    assert_eq!(refused(&witness, &wrong), (422, None));
    wrong.proof.clear();
    assert_eq!(refused(&witness, &wrong), (422, None));
    let proof = vec![[0; 32]];
    assert_eq!(refused(&witness, &AddCheckpoint { proof, ..tree.request(9, 9) }), (422, None));

    let mut unsigned = tree.request(9, 20);
    unsigned.note.signatures = vec![LogSigner::new(ORIGIN, &[6; 32]).unwrap().sign("x\n")];
    assert_eq!(refused(&witness, &unsigned), (403, None));
    let mut spoilt = tree.request(9, 20);
    spoilt.note.signatures[0].signature[9] ^= 1;
    assert_eq!(refused(&witness, &spoilt), (403, None));
    let mut other = tree.request(9, 20);
    other.note.text = other.note.text.replacen(ORIGIN, "other.example/log", 1);
    assert_eq!(refused(&witness, &other), (404, None));
    for body in
        [&b""[..], b"old 9\n", b"\xff", b"old 9\n\nnot a\ncheckpoint\n\n\xe2\x80\x94 a AAAAAAA=\n"]
    {
        let rejected = witness.add_checkpoint(body).unwrap_err();
        assert!(matches!(rejected, Rejected::BadRequest(_)), "{body:?}: {rejected}");
    }
    assert_eq!(witness.sizes(), [(ORIGIN.to_owned(), 9)], "nothing of it has changed anything");
}

#[test]
fn a_second_history_is_refused_and_the_proof_of_it_kept() {
    let dir = tempfile::tempdir().unwrap();
    let witness = open(dir.path()).unwrap();
    ask(&witness, &Tree::of("a", 9).request(0, 9)).unwrap();
    let forged = Tree::of("b", 20);
    assert_eq!(refused(&witness, &forged.request(9, 20)), (422, None));
    assert!(!dir.path().join("suspect").exists(), "that alone proves nothing");
    let fork = forged.request(9, 9);
    assert_eq!(refused(&witness, &fork), (409, Some(9)));
    assert_eq!(refused(&witness, &fork), (409, Some(9)));
    let kept: Vec<_> = fs::read_dir(dir.path().join("suspect")).unwrap().collect();
    assert_eq!(kept.len(), 1);
    let kept: Note = fs::read_to_string(kept[0].as_ref().unwrap().path()).unwrap().parse().unwrap();
    assert_eq!(log().verifier().verify(&kept), Ok(Some(Signed::Log)));
    ask(&witness, &Tree::of("a", 20).request(9, 20)).unwrap();
}

#[test]
fn a_restart_keeps_key_name_and_sizes() {
    let dir = tempfile::tempdir().unwrap();
    let tree = Tree::of("a", 20);
    let first = open(dir.path()).unwrap();
    ask(&first, &tree.request(0, 9)).unwrap();
    let key = first.verifier().clone();
    assert!(matches!(open(dir.path()), Err(OpenError::Lock(_))), "one process at a time");
    drop(first);
    let mode = fs::metadata(dir.path().join("witness.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let again = open(dir.path()).unwrap();
    assert_eq!(again.verifier(), &key);
    assert_eq!(refused(&again, &tree.request(0, 5)), (409, Some(9)), "a rollback");
    assert_eq!(refused(&again, &Tree::of("b", 20).request(9, 20)), (422, None));
    ask(&again, &tree.request(9, 20)).unwrap();
    drop(again);
    let renamed = Witness::open(
        dir.path(),
        Arc::new(RealDisk),
        vec![log().verifier().clone()],
        Some("other"),
        Arc::new(Still),
        &Still,
    );
    assert!(matches!(renamed, Err(OpenError::Files(FilesError::OtherName(_)))));
}

#[test]
fn a_witness_that_has_forgotten_does_not_start() {
    let dir = tempfile::tempdir().unwrap();
    let (key, latest) = (dir.path().join("witness.key"), dir.path().join("latest.json"));
    ask(&open(dir.path()).unwrap(), &Tree::of("a", 9).request(0, 9)).unwrap();
    let good = fs::read(&latest).unwrap();
    let why = || open(dir.path()).unwrap_err().to_string();
    fs::remove_file(&latest).unwrap();
    assert!(why().contains("it is missing"), "{}", why());
    for bit in (0..good.len() * 8).step_by(11) {
        let mut damaged = good.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        fs::write(&latest, damaged).unwrap();
        // A flip in white space or in the log's signature leaves what it knows.
        if let Ok(witness) = open(dir.path()) {
            assert_eq!(witness.sizes(), [(ORIGIN.to_owned(), 9)], "bit {bit}");
        }
    }
    fs::write(&latest, &good).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(why().contains("may be read by others"), "{}", why());
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    open(dir.path()).unwrap();
    fs::remove_file(&key).unwrap();
    assert!(why().contains("it is missing"), "{}", why());
}

#[test]
fn the_key_of_a_witness_is_no_log() {
    let dir = tempfile::tempdir().unwrap();
    let keys = vec![WitnessSigner::new("w", &[1; 32]).unwrap().verifier().clone()];
    let opened = Witness::open(dir.path(), Arc::new(RealDisk), keys, None, Arc::new(Still), &Still);
    assert!(matches!(opened, Err(OpenError::NotALog(_))));
}

/// A disk that refuses to rename while it is told to.
struct Stubborn(AtomicBool);

impl Disk for Stubborn {
    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn DiskFile>> {
        RealDisk.open(path, how)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        if self.0.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        RealDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        RealDisk.list(dir)
    }

    fn create_dir(&self, dir: &Path, privacy: Privacy) -> io::Result<()> {
        RealDisk.create_dir(dir, privacy)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        RealDisk.sync_dir(dir)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        RealDisk.exists(path)
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        RealDisk.free_bytes(dir)
    }
}

#[test]
fn what_cannot_be_kept_is_not_cosigned() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(Stubborn(AtomicBool::new(false)));
    let (witness, tree) = (open_on(dir.path(), disk.clone()).unwrap(), Tree::of("a", 20));
    ask(&witness, &tree.request(0, 9)).unwrap();
    disk.0.store(true, Ordering::SeqCst);
    assert_eq!(refused(&witness, &tree.request(9, 20)), (500, None));
    assert_eq!(witness.sizes(), [(ORIGIN.to_owned(), 9)]);
    disk.0.store(false, Ordering::SeqCst);
    ask(&witness, &tree.request(9, 20)).unwrap();
}

#[test]
fn of_many_at_once_each_step_is_cosigned_once() {
    let dir = tempfile::tempdir().unwrap();
    let (witness, tree) = (open(dir.path()).unwrap(), Tree::of("a", 40));
    let done: usize = std::thread::scope(|scope| {
        let asked: Vec<_> = (1..=40)
            .map(|size| {
                let (witness, tree) = (&witness, &tree);
                scope.spawn(move || usize::from(ask(witness, &tree.request(0, size)).is_ok()))
            })
            .collect();
        asked.into_iter().map(|asked| asked.join().unwrap()).sum()
    });
    assert_eq!(done, 1, "all start from nothing, and only one can be first");
}
