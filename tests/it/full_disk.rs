//! A disk that really fills up, under the whole store: read-only in time,
//! nothing acknowledged lost, and on again once there is space.
//!
//! Mounts a small tmpfs, so it needs the right to; without it, it is skipped.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command as Process;
use std::sync::{Arc, Mutex};

use engine::Keytrail;
use engine::ids::{Id, Position};
use storage::journal;
use storage::keys::KeyError;
use storage::open::{OpenError, Options, Store};
use storage::sequencer::{Envelope, ExecuteError};

use crate::log::{beginning, options, request};

const SIZE: &str = "size=448m";

/// A small disk of its own, until dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// None where it cannot be made.
    fn mount() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let done = Process::new("mount")
            .args(["-t", "tmpfs", "-o", SIZE, "keytrail-test"])
            .arg(dir.path())
            .output()
            .is_ok_and(|output| output.status.success());
        done.then_some(Self(dir))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Takes whatever space is left.
    fn fill(&self) -> PathBuf {
        let path = self.path().join("filler");
        let mut file = fs::File::create(&path).unwrap();
        let mut step = 1 << 20;
        while step > 0 {
            if file.write_all(&vec![1; step]).is_err() {
                step /= 2;
            }
        }
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: what a failed test still holds open must not keep it mounted.
        drop(Process::new("umount").arg("-l").arg(self.path()).output());
    }
}

/// What a test of a full disk does to a store.
struct Run {
    runtime: tokio::runtime::Runtime,
    fatal: Arc<Mutex<Vec<String>>>,
    /// Commands acknowledged so far.
    done: u64,
}

impl Run {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        Self { runtime, fatal: Arc::default(), done: 0 }
    }

    fn options(&self) -> Options {
        let fatal = Arc::clone(&self.fatal);
        let mut options = options("one");
        options.journal = journal::Options {
            limits: journal::Limits { records: 256, bytes: 4 << 20 },
            ..journal::Options::default()
        };
        options.fatal = Arc::new(move |message| fatal.lock().unwrap().push(message.to_owned()));
        options
    }

    fn open(&self, dir: &Path) -> Result<Store<Keytrail>, OpenError> {
        Store::open(dir, self.options())
    }

    /// Asks for one more activation; false where the store is read-only.
    fn one(&mut self, store: &Store<Keytrail>) -> bool {
        let number = u128::from(self.done + 1) << 8;
        let event_id = Id(number.to_be_bytes());
        let command = engine::command::Command { event_id, want: request(event_id, 40_000) };
        let envelope = Envelope { command, causation: event_id, correlation: Id::NIL };
        match self.runtime.block_on(store.handle.execute(envelope)) {
            Ok(_) => {
                self.done += 1;
                true
            }
            Err(ExecuteError::ReadOnly) => {
                assert!(store.handle.is_read_only());
                false
            }
            Err(error) => {
                panic!("after {}: {error}; {:?}", self.done, self.fatal.lock().unwrap())
            }
        }
    }

    /// Asks until the store is read-only for good, with all that was accepted in
    /// both copies: what is on its way to sled raises the mark for a moment.
    fn until_read_only(&mut self, store: &Store<Keytrail>) {
        loop {
            while self.one(store) {}
            store.digest().unwrap();
            if !self.one(store) {
                // sled holds nothing back from here on.
                store.digest().unwrap();
                return;
            }
        }
    }

    /// Holds the store to everything that was acknowledged.
    fn all_there(&self, store: &Store<Keytrail>, before: u64) {
        assert_eq!(store.log.head().size, before + self.done);
        for position in (before..before + self.done).step_by(97) {
            let record = store.log.record(Position(position)).unwrap();
            assert_eq!(record.draft.sealed.len(), 40_000);
        }
        assert!(self.fatal.lock().unwrap().is_empty(), "{:?}", self.fatal.lock().unwrap());
    }
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for item in fs::read_dir(from).unwrap() {
        let item = item.unwrap();
        let target = to.join(item.file_name());
        match item.file_type().unwrap().is_dir() {
            true => copy_folder(&item.path(), &target),
            false => drop(fs::copy(item.path(), target).unwrap()),
        }
    }
}

#[test]
fn a_disk_that_fills_up_makes_the_store_read_only_and_loses_nothing() {
    let Some(disk) = SmallDisk::mount() else {
        eprintln!("skipped: a tmpfs cannot be mounted here");
        return;
    };
    let dir = disk.path().join("data");
    let ballast = disk.path().join("ballast");
    fs::write(&ballast, vec![1; 24 << 20]).unwrap();
    let mut run = Run::new();
    let store = run.open(&dir).unwrap();
    let before = crate::log::run(&store, beginning(), 1).len() as u64;

    run.until_read_only(&store);
    assert!(run.done > 100, "it was full after {} commands", run.done);
    run.all_there(&store, before);

    // Now the rest is taken by someone else.
    let filler = disk.fill();
    assert!(!run.one(&store));
    // A few find place in the page that their file has already.
    let refused = (0..99).find_map(|n| store.keys.subject_for("bank", &n.to_string()).err());
    assert!(matches!(refused, Some(KeyError::Full)), "{refused:?}");
    run.all_there(&store, before);

    fs::remove_file(&filler).unwrap();
    fs::remove_file(&ballast).unwrap();
    let first_time = run.done;
    assert!(run.one(&store), "there is space again");
    assert!(!store.handle.is_read_only());
    let late = store.keys.subject_for("bank", "late").unwrap().id;
    run.until_read_only(&store);
    assert!(run.done > first_time + 100);
    run.all_there(&store, before);
    let digest = store.digest().unwrap();

    // The process dies on a disk without a byte left.
    disk.fill();
    drop(store);
    let refused = run.open(&dir).err().unwrap();
    assert!(matches!(refused, OpenError::NoSpace { .. }), "{refused}");

    let larger = tempfile::tempdir().unwrap();
    copy_folder(&dir, &larger.path().join("data"));
    fs::remove_file(&filler).unwrap();
    for dir in [larger.path().join("data"), dir] {
        let store = run.open(&dir).unwrap();
        run.all_there(&store, before);
        assert_eq!(store.digest().unwrap(), digest);
        assert_eq!(store.keys.find_subject("bank", "late"), Some(late));
        store.close().unwrap();
    }
    let store = run.open(&larger.path().join("data")).unwrap();
    assert!(run.one(&store), "on a larger disk it goes on");
    run.all_there(&store, before);
}
