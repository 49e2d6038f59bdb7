//! A server that waits for its disk goes on answering: no worker waits with it.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, mpsc};

use api::ports::SystemClock;
use serde_json::json;
use storage::disk::{Disk, DiskFile, Open, Privacy, RealDisk};

use crate::client::{Answer, Request, connect};
use crate::server::InProcess;

/// Holds every sync up while it is closed, and tells of each that waits.
struct Gate {
    closed: Mutex<bool>,
    opened: Condvar,
    waiting: mpsc::Sender<()>,
}

impl Gate {
    fn pass(&self) {
        let mut closed = self.closed.lock().unwrap();
        if *closed {
            // Nobody listens any more once the test has seen enough.
            let _ = self.waiting.send(());
        }
        while *closed {
            closed = self.opened.wait(closed).unwrap();
        }
    }

    fn close(&self) {
        *self.closed.lock().unwrap() = true;
    }

    fn open(&self) {
        *self.closed.lock().unwrap() = false;
        self.opened.notify_all();
    }
}

/// The real disk behind a gate.
struct GatedDisk(Arc<Gate>);

struct GatedFile(Box<dyn DiskFile>, Arc<Gate>);

impl Disk for GatedDisk {
    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(GatedFile(RealDisk.open(path, how)?, Arc::clone(&self.0))))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
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
        self.0.pass();
        RealDisk.sync_dir(dir)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        RealDisk.exists(path)
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        RealDisk.free_bytes(dir)
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
        self.1.pass();
        self.0.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.1.pass();
        self.0.sync_all()
    }

    fn set_read_only(&self) -> io::Result<()> {
        self.0.set_read_only()
    }
}

#[test]
fn one_worker_answers_while_many_writes_wait_for_the_disk() {
    const WRITES: u64 = 32;
    let home = tempfile::tempdir().unwrap();
    let (waiting, waits) = mpsc::channel();
    let gate = Arc::new(Gate { closed: Mutex::new(false), opened: Condvar::new(), waiting });
    let disk = Arc::new(GatedDisk(Arc::clone(&gate)));
    let clock = Arc::new(SystemClock::start());
    let server = InProcess::start(&home.path().join("data"), clock, disk);
    let administrator = server.administrator.clone().unwrap();
    let ask = |path: &str| Request::get(path).by(&administrator).send(server.address);
    let records = ask("/admin/v1/status").value()["records"].as_u64().unwrap();

    gate.close();
    let body = json!({ "role": "AUDITOR", "name": "one of many" });
    let write = Request::post("/admin/v1/api-keys", &body).by(&administrator);
    let mut writes: Vec<_> = (0..WRITES)
        .map(|_| {
            let mut stream = connect(server.address);
            stream.write_all(&write.octets_on_the_wire()).unwrap();
            stream
        })
        .collect();
    // Only a server that syncs nothing meets this limit.
    waits.recv_timeout(std::time::Duration::from_secs(60)).unwrap();
    for _ in 0..20 {
        assert_eq!(ask("/healthz").status, 200);
        assert_eq!(ask("/readyz").status, 200);
        // What is not durable is not shown.
        assert_eq!(ask("/admin/v1/status").value()["records"], records);
        assert_eq!(ask("/admin/v1/api-keys").value()["items"].as_array().unwrap().len(), 1);
    }
    for stream in &writes {
        stream.set_nonblocking(true).unwrap();
        let early = stream.peek(&mut [0]).map_err(|error| error.kind());
        assert_eq!(early, Err(io::ErrorKind::WouldBlock), "an answer before its sync");
        stream.set_nonblocking(false).unwrap();
    }
    gate.open();
    for stream in &mut writes {
        let answer = Answer::read(stream, false).unwrap();
        crate::contract::check(&write, &answer);
        assert_eq!(answer.status, 201);
    }
    assert_eq!(ask("/admin/v1/status").value()["records"], records + WRITES);
    server.stop();
    crate::http::world::verified(&home.path().join("data"));
}
