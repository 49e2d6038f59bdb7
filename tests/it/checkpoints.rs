//! What checkpoints show that nothing else does: a whole history made anew.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use replay::report::{Level, Outcome, Report};
use replay::verify::{Kept, Options, WitnessPolicy, verify};
use storage::disk::RealDisk;
use storage::notary::{self, CHECKPOINT_FILE, KEY_FILE, Notary};
use storage::note::{Checkpoint, LogSigner, Note, VerifierKey, WitnessSigner};

use crate::history::{History, ORIGIN, Signs, small_segments};
use crate::replay::{Forger, commands, copy, files, forged};

/// A log of a day that was signed in the middle and at its end, and what an
/// auditor kept of it.
pub(crate) struct Evidence {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) key: VerifierKey,
    /// A checkpoint from the middle of the day.
    pub(crate) early: Note,
    /// The last one.
    late: Note,
}

impl Evidence {
    pub(crate) fn of_a_day() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut history = History::day(folder.path(), small_segments(8));
        let guard = folder.path().join("guard");
        let options = notary::Options {
            guard,
            disk: Arc::new(RealDisk),
            every_ms: None,
            fatal: Arc::new(|message| panic!("{message}")),
        };
        let store = &history.store;
        let notary = Notary::start(
            folder.path(),
            store.log.clone(),
            &store.keys,
            &store.origin,
            None,
            options,
        )
        .unwrap();
        notary.sign_now().unwrap();
        let latest = |notary: &Notary| notary.evidence().latest().unwrap().note.clone();
        let early = latest(&notary);
        let phone = history.activate(9, true);
        history.authenticate(&phone, Signs::Well);
        notary.stop().unwrap();
        let (late, key) = (latest(&notary), notary.evidence().verifier().clone());
        history.store.close().unwrap();
        Self { folder, key, early, late }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn kept(&self) -> Vec<Kept> {
        let kept = |name: &str, note: &Note| Kept { name: name.into(), note: note.clone() };
        vec![kept("early", &self.early), kept("late", &self.late)]
    }

    /// As an auditor who knows the key and kept both checkpoints.
    fn verify(&self, folder: &Path) -> Report {
        let options =
            Options { key: Some(self.key.clone()), since: self.kept(), ..Options::default() };
        verify(folder, &options).unwrap()
    }
}

/// The checkpoints beside sealed segments.
fn sealed(folder: &Path) -> Vec<PathBuf> {
    let items = fs::read_dir(folder.join("log")).unwrap().map(|item| item.unwrap().path());
    let mut found: Vec<_> =
        items.filter(|it| it.extension().is_some_and(|it| it == "checkpoint")).collect();
    found.sort();
    found
}

fn size(note: &Note) -> u64 {
    Checkpoint::of_text(&note.text).unwrap().size
}

#[track_caller]
fn outcome(report: &Report, level: Level) -> Outcome {
    report.level(level).unwrap().outcome
}

#[test]
fn a_true_log_holds_against_the_checkpoints_that_were_kept_and_no_file_changes() {
    let evidence = Evidence::of_a_day();
    let before = files(evidence.path());
    let report = evidence.verify(evidence.path());
    assert!(report.holds, "{report}");
    let checked = report.level(Level::Since).unwrap();
    assert_eq!(checked.count("checkpoints"), 2);
    assert_eq!(checked.count("records_covered"), size(&evidence.early) + size(&evidence.late));
    assert!(size(&evidence.early) < size(&evidence.late));
    assert_eq!(outcome(&report, Level::Checkpoints), Outcome::Holds);
    assert_eq!(outcome(&report, Level::Witnesses), Outcome::Absent);
    assert_eq!(files(evidence.path()), before);
    // Alone, with the key that lies beside the log: it holds, and says what that is worth.
    let report = verify(evidence.path(), &Options::default()).unwrap();
    assert!(report.holds, "{report}");
    let remarks = &report.level(Level::Checkpoints).unwrap().remarks;
    assert!(remarks.iter().any(|remark| remark.contains("--key")), "{remarks:?}");
}

#[test]
fn a_tail_cut_behind_a_kept_checkpoint_is_seen_though_all_that_is_left_is_true() {
    let evidence = Evidence::of_a_day();
    let mut left = commands(evidence.path());
    left.pop();
    let cut = forged(left, Forger::Careful);
    let report = evidence.verify(cut.path());
    assert!(!report.holds);
    assert_eq!(outcome(&report, Level::Since), Outcome::Fails);
    let failures = &report.level(Level::Since).unwrap().failures;
    assert_eq!(failures.len(), 1, "the early one still holds: {report}");
    assert_eq!(failures[0].place.position, Some(size(&evidence.late) - 1));
    for level in [Level::Records, Level::Signatures, Level::Rules] {
        assert_eq!(outcome(&report, level), Outcome::Holds, "{report}");
    }
}

#[test]
fn a_history_made_anew_in_any_record_has_another_root() {
    let evidence = Evidence::of_a_day();
    let true_ones = commands(evidence.path());
    for changed in [0, 5, true_ones.len() - 1] {
        let mut other = true_ones.clone();
        // Later by a millionth of a second: no rule and no signature can see that.
        other[changed].iter_mut().for_each(|record| record.time.0 += 1);
        let folder = forged(other, Forger::Careful);
        let report = evidence.verify(folder.path());
        assert_eq!(outcome(&report, Level::Since), Outcome::Fails, "{report}");
        for level in [Level::Signatures, Level::Rules] {
            assert_eq!(outcome(&report, level), Outcome::Holds, "{report}");
        }
    }
}

#[test]
fn a_checkpoint_signed_by_another_key_or_of_another_log_proves_nothing() {
    let evidence = Evidence::of_a_day();
    let thief = LogSigner::new(ORIGIN, &[0x77; 32]).unwrap();
    let log = evidence.path().join("log");
    let mut stolen = evidence.late.clone();
    stolen.signatures = vec![thief.sign(&stolen.text)];
    fs::write(log.join(CHECKPOINT_FILE), stolen.to_string()).unwrap();
    fs::write(log.join(KEY_FILE), format!("{}\n", thief.verifier())).unwrap();
    // Those beside sealed segments give a thief away who leaves them.
    let report = verify(evidence.path(), &Options::default()).unwrap();
    assert_eq!(outcome(&report, Level::Checkpoints), Outcome::Fails, "{report}");
    for sealed in sealed(evidence.path()) {
        fs::remove_file(sealed).unwrap();
    }
    // The folder agrees with itself: only who knows the true key sees it.
    assert!(verify(evidence.path(), &Options::default()).unwrap().holds);
    let report = evidence.verify(evidence.path());
    assert_eq!(outcome(&report, Level::Checkpoints), Outcome::Fails, "{report}");
    assert_eq!(outcome(&report, Level::Since), Outcome::Holds, "{report}");
}

#[test]
fn two_histories_under_one_origin_do_not_both_hold() {
    let evidence = Evidence::of_a_day();
    let root = Checkpoint { root: [5; 32], ..Checkpoint::of_text(&evidence.early.text).unwrap() };
    // The same key signs two roots of one size: the second is not of this log.
    let mut second = Note::new(root.text()).unwrap();
    let secret = fs::read(evidence.path().join("keys").join("checkpoints.key")).unwrap();
    let signer = LogSigner::of_secret(ORIGIN, secret[8..40].try_into().unwrap()).unwrap();
    assert_eq!(signer.verifier(), &evidence.key);
    second.signatures.push(signer.sign(&second.text));
    let options = Options {
        key: Some(evidence.key.clone()),
        since: vec![Kept { name: "second".into(), note: second }],
        ..Options::default()
    };
    let report = verify(evidence.path(), &options).unwrap();
    assert_eq!(outcome(&report, Level::Since), Outcome::Fails, "{report}");
}

#[test]
fn every_flipped_bit_of_the_checkpoint_beside_the_log_is_found() {
    let evidence = Evidence::of_a_day();
    let copied = tempfile::tempdir().unwrap();
    copy(&evidence.path().join("log"), &copied.path().join("log"));
    let latest = copied.path().join("log").join(CHECKPOINT_FILE);
    let sealed = sealed(copied.path()).pop().unwrap();
    let options = Options {
        key: Some(evidence.key.clone()),
        through: Level::Checkpoints,
        ..Options::default()
    };
    assert!(verify(copied.path(), &options).unwrap().holds);
    for path in [latest, sealed] {
        let whole = fs::read(&path).unwrap();
        for byte in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[byte] ^= 1 << (byte % 8);
            fs::write(&path, &damaged).unwrap();
            let report = verify(copied.path(), &options).unwrap();
            let outcome = outcome(&report, Level::Checkpoints);
            assert_eq!(outcome, Outcome::Fails, "{} byte {byte}", path.display());
        }
        fs::write(&path, &whole).unwrap();
    }
}

/// The levels of the tree that are stored, with their bytes.
fn stored_tree(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let level = |level: u8| folder.join(format!("store/tree/level-{level}"));
    (0..5).map(|number| (level(number), fs::read(level(number)).unwrap())).collect()
}

#[test]
fn every_flipped_bit_of_a_stored_hash_and_a_cut_file_of_them_are_found() {
    let evidence = Evidence::of_a_day();
    let copied = tempfile::tempdir().unwrap();
    for part in ["log", "store/tree"] {
        copy(&evidence.path().join(part), &copied.path().join(part));
    }
    let options = Options { through: Level::Copies, ..Options::default() };
    let stored = stored_tree(copied.path());
    let hashes = stored.iter().map(|(_, bytes)| bytes.len() as u64 / 32).sum();
    let report = verify(copied.path(), &options).unwrap();
    let level = report.level(Level::Copies).unwrap();
    assert_eq!((level.outcome, level.count("hashes_compared")), (Outcome::Absent, hashes));
    for (path, whole) in stored {
        for byte in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[byte] ^= 1 << (byte % 8);
            fs::write(&path, &damaged).unwrap();
            let report = verify(copied.path(), &options).unwrap();
            let [failure] = &report.level(Level::Copies).unwrap().failures[..] else {
                panic!("{} byte {byte}: {report}", path.display())
            };
            assert_eq!(failure.place.offset, Some(byte as u64 / 32 * 32));
        }
        if let Some(cut) = whole.len().checked_sub(1) {
            fs::write(&path, &whole[..cut]).unwrap();
            let report = verify(copied.path(), &options).unwrap();
            assert_eq!(outcome(&report, Level::Copies), Outcome::Fails);
        }
        fs::write(&path, &whole).unwrap();
    }
}

#[test]
fn a_flipped_bit_in_a_higher_level_of_the_stored_tree_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let mut history = History::begin(folder.path(), small_segments(1_024));
    for since in 0..300 {
        let since = engine::ids::Micros(since);
        let counts = engine::events::KeyUseCountedV1 { since, service_provider: 1, device: 1 };
        history.done(engine::command::Want::CountKeyUse(counts));
    }
    let options = notary::Options {
        guard: folder.path().join("guard"),
        disk: Arc::new(RealDisk),
        every_ms: None,
        fatal: Arc::new(|message| panic!("{message}")),
    };
    let (log, store) = (history.store.log.clone(), &history.store);
    let notary = Notary::start(folder.path(), log, &store.keys, &store.origin, None, options);
    notary.unwrap().stop().unwrap();
    history.store.close().unwrap();
    let options = Options { through: Level::Copies, ..Options::default() };
    assert!(verify(folder.path(), &options).unwrap().holds);
    let (path, whole) = stored_tree(folder.path()).swap_remove(1);
    assert_eq!(whole.len(), 32, "256 of 304 records are a whole tile");
    for byte in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[byte] ^= 0x80;
        fs::write(&path, &damaged).unwrap();
        let report = verify(folder.path(), &options).unwrap();
        assert_eq!(outcome(&report, Level::Copies), Outcome::Fails, "byte {byte}: {report}");
    }
}

#[test]
fn a_checkpoint_taken_away_is_missed_by_whoever_brought_the_key() {
    let evidence = Evidence::of_a_day();
    let copied = tempfile::tempdir().unwrap();
    copy(&evidence.path().join("log"), &copied.path().join("log"));
    fs::remove_file(copied.path().join("log").join(CHECKPOINT_FILE)).unwrap();
    let key = Some(evidence.key.clone());
    let options = Options { key, through: Level::Checkpoints, ..Options::default() };
    let report = verify(copied.path(), &options).unwrap();
    assert_eq!(outcome(&report, Level::Checkpoints), Outcome::Fails, "{report}");
    assert!(!report.holds);
    let report = verify(copied.path(), &Options { since: evidence.kept(), ..options }).unwrap();
    assert!(report.holds, "the ones that were kept are enough: {report}");
}

#[test]
fn cosignatures_count_by_the_policy_and_only_on_checkpoints_that_hold() {
    let evidence = Evidence::of_a_day();
    let witness =
        |number: u8| WitnessSigner::new(&format!("w{number}.example"), &[number; 32]).unwrap();
    let (one, two) = (witness(1), witness(2));
    let policy = |quorum: usize| WitnessPolicy {
        witnesses: vec![one.verifier().clone(), two.verifier().clone()],
        quorum,
    };
    let mut cosigned = evidence.early.clone();
    cosigned.signatures.push(one.cosign(&cosigned.text, 1_800_000_000));
    let verified = |note: &Note, quorum: usize, folder: &Path| {
        let options = Options {
            key: Some(evidence.key.clone()),
            since: vec![Kept { name: "cosigned".into(), note: note.clone() }],
            policy: Some(policy(quorum)),
            ..Options::default()
        };
        outcome(&verify(folder, &options).unwrap(), Level::Witnesses)
    };
    assert_eq!(verified(&cosigned, 1, evidence.path()), Outcome::Holds);
    assert_eq!(verified(&cosigned, 2, evidence.path()), Outcome::Fails);
    let mut spoilt = cosigned.clone();
    spoilt.signatures.push(two.cosign("another text\n", 1));
    assert_eq!(verified(&spoilt, 2, evidence.path()), Outcome::Fails);
    cosigned.signatures.push(two.cosign(&cosigned.text, 1_800_000_001));
    assert_eq!(verified(&cosigned, 2, evidence.path()), Outcome::Holds);
    // Both have cosigned, but not this log.
    let mut other = commands(evidence.path());
    other[0].iter_mut().for_each(|record| record.time.0 += 1);
    let folder = forged(other, Forger::Careful);
    assert_eq!(verified(&cosigned, 2, folder.path()), Outcome::Fails);
}
