//! A server that waits for its disk goes on answering: no worker waits with it.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::time::Duration;

use api::ports::SystemClock;
use api::settings::Settings;
use serde_json::json;
use storage::disk::{Disk, DiskFile, Open, Privacy, RealDisk};

use crate::client::{Answer, Request, assert_problem, connect};
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

/// A gate that is open, the disk behind it, and word of each sync that waits.
fn gated() -> (Arc<Gate>, Arc<GatedDisk>, mpsc::Receiver<()>) {
    let (waiting, waits) = mpsc::channel();
    let gate = Arc::new(Gate { closed: Mutex::new(false), opened: Condvar::new(), waiting });
    (Arc::clone(&gate), Arc::new(GatedDisk(gate)), waits)
}

/// A request that appends a record.
fn write(administrator: &str) -> Request {
    let body = json!({ "role": "AUDITOR", "name": "one of many" });
    Request::post("/admin/v1/api-keys", &body).by(administrator)
}

/// Only a server that syncs nothing, or answers nothing, meets this limit.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn a_full_queue_is_said_at_once_and_what_is_in_it_is_done() {
    const QUEUE: usize = 4;
    let home = tempfile::tempdir().unwrap();
    let (gate, disk, waits) = gated();
    let settings =
        Settings { data: home.path().join("data"), queue_length: QUEUE, ..Settings::default() };
    let server = InProcess::with(settings, Arc::new(SystemClock::start()), disk);
    let administrator = server.administrator.clone().unwrap();
    let address = server.address;

    gate.close();
    let (tell, told) = mpsc::channel();
    let send = |request: &Request| {
        let (request, tell) = (request.clone(), tell.clone());
        std::thread::spawn(move || tell.send(request.send(address)).unwrap())
    };
    let mut senders = vec![send(&write(&administrator))];
    waits.recv_timeout(PATIENCE).unwrap();
    // The writer is busy with the first; the queue takes so many, and no more.
    senders.extend((0..3 * QUEUE).map(|_| send(&write(&administrator))));
    for _ in 0..2 * QUEUE {
        let busy = told.recv_timeout(PATIENCE).unwrap();
        assert_problem(&busy, 503, "busy");
        assert_eq!(busy.header("retry-after"), Some("1"));
    }
    assert!(told.try_recv().is_err(), "the others wait");
    gate.open();
    for _ in 0..=QUEUE {
        assert_eq!(told.recv_timeout(PATIENCE).unwrap().status, 201);
    }
    senders.into_iter().for_each(|sender| sender.join().unwrap());
    let keys = Request::get("/admin/v1/api-keys").by(&administrator).send(address).value();
    assert_eq!(keys["items"].as_array().unwrap().len(), 1 + 1 + QUEUE, "what was busy did nothing");
    server.stop();
    crate::http::world::verified(&home.path().join("data"));
}

#[test]
fn one_worker_answers_while_many_writes_wait_for_the_disk() {
    const WRITES: u64 = 32;
    let home = tempfile::tempdir().unwrap();
    let (gate, disk, waits) = gated();
    let clock = Arc::new(SystemClock::start());
    let server = InProcess::start(&home.path().join("data"), clock, disk);
    let administrator = server.administrator.clone().unwrap();
    let ask = |path: &str| Request::get(path).by(&administrator).send(server.address);
    let records = ask("/admin/v1/status").value()["records"].as_u64().unwrap();

    gate.close();
    let write = write(&administrator);
    let mut writes: Vec<_> = (0..WRITES)
        .map(|_| {
            let mut stream = connect(server.address);
            stream.write_all(&write.octets_on_the_wire()).unwrap();
            stream
        })
        .collect();
    waits.recv_timeout(PATIENCE).unwrap();
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
