//! Checkpoints that leave the machine: what a witness and a folder make visible
//! that nothing in the data folder can.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

use api::wire::admin::{AnchorKind, Status};
use replay::proof::Receipt;
use storage::note::{Checkpoint, Note, Signed, VerifierKey};

use crate::client::Request;
use crate::http::world::api_key;
use crate::replay::copy;
use crate::server::{Launch, Server};

/// `keytrail witness` in its own process. Killed when dropped.
struct Witness {
    child: Child,
    key: VerifierKey,
    url: String,
}

impl Witness {
    /// On the folder `data`, for the log whose verifier key is in `log_key`.
    fn start(data: &Path, log_key: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_keytrail-tested"));
        command.args(["witness", "--listen", "127.0.0.1:0", "--name", "audit.example/w1"]);
        command.arg("--data").arg(data).arg("--log").arg(log_key);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut said = |start: &str| {
            let line = lines.next().unwrap().unwrap();
            line.strip_prefix(start).unwrap().to_owned()
        };
        let key = said("keytrail witness key ").parse().unwrap();
        let url = said("keytrail witness listens on ");
        Self { child, key, url }
    }

    /// As the setting names it.
    fn setting(&self) -> String {
        format!("{} {}", self.key, self.url)
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A log that has begun, and its first administrator.
struct Begun {
    home: tempfile::TempDir,
    administrator: String,
}

impl Begun {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let server = Server::start(&home.path().join("data"));
        let administrator = server.administrator();
        server.stop();
        Self { home, administrator }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn launch(&self) -> Launch {
        Launch::on(&self.path("data"))
    }

    fn witness(&self) -> Witness {
        Witness::start(&self.path("witness"), &self.path("data/log/checkpoint-key"))
    }

    fn key(&self) -> VerifierKey {
        fs::read_to_string(self.path("data/log/checkpoint-key")).unwrap().parse().unwrap()
    }

    /// Lets the log grow by `records` and stops the server.
    fn grow(&self, launch: &Launch, records: usize) {
        let server = launch.start();
        for _ in 0..records {
            api_key(server.address, &self.administrator, "AUDITOR", None);
        }
        server.stop();
    }

    /// Puts the whole data folder, guard file and all, back from a copy.
    fn put_back(&self, from: &str) {
        fs::remove_dir_all(self.path("data")).unwrap();
        copy(&self.path(from), &self.path("data"));
    }
}

/// What a start that is refused says.
#[track_caller]
fn refused(launch: &Launch) -> String {
    match launch.try_start() {
        Ok(_) => panic!("it started"),
        Err((status, said)) => {
            assert_eq!(status.code(), Some(1), "{said}");
            said
        }
    }
}

fn status(server: &Server, administrator: &str) -> Status {
    Request::get("/admin/v1/status").by(administrator).send(server.address).ok()
}

fn text(server: &Server, auditor: &str, path: &str) -> String {
    let answer = Request::get(path).by(auditor).send(server.address);
    assert_eq!(answer.status, 200, "{path}");
    String::from_utf8(answer.body).unwrap()
}

#[test]
fn a_witness_cosigns_and_everybody_can_check_it() {
    let begun = Begun::new();
    let witness = begun.witness();
    let launch = begun.launch().flag("--witness", &witness.setting()).switch("--require-anchors");
    let server = launch.start();
    let auditor = api_key(server.address, &begun.administrator, "AUDITOR", None).bearer.unwrap();

    let note: Note = text(&server, &auditor, "/audit/v1/checkpoint/cosigned").parse().unwrap();
    assert_eq!(begun.key().verify(&note), Ok(Some(Signed::Log)));
    assert!(matches!(witness.key.verify(&note), Ok(Some(Signed::Witness { .. }))));
    let receipt: Receipt = text(&server, &auditor, "/audit/v1/receipt/0").parse().unwrap();
    receipt.check(&begun.key(), None).unwrap();
    assert!(matches!(witness.key.verify(&receipt.note), Ok(Some(Signed::Witness { .. }))));

    let anchors = status(&server, &begun.administrator).anchors;
    assert_eq!(anchors.len(), 1);
    assert_eq!((anchors[0].kind, anchors[0].contradicts), (AnchorKind::Witness, false));
    assert_eq!((anchors[0].name.as_str(), &anchors[0].error), ("audit.example/w1", &None));
    server.stop();

    let kept = fs::read_to_string(begun.path("data/log/checkpoint-cosigned")).unwrap();
    let last = fs::read_to_string(begun.path("data/log/checkpoint")).unwrap();
    assert!(kept.starts_with(&last), "the last checkpoint has left the machine");
    begun.grow(&launch, 1);
    crate::http::world::verified(&begun.path("data"));
}

#[test]
fn a_folder_put_back_whole_is_refused_where_a_witness_knows_more() {
    let begun = Begun::new();
    let witness = begun.witness();
    let launch = begun.launch().flag("--witness", &witness.setting());
    begun.grow(&launch, 1);
    copy(&begun.path("data"), &begun.path("old"));
    begun.grow(&launch, 2);
    copy(&begun.path("data"), &begun.path("new"));

    begun.put_back("old");
    let said = refused(&launch);
    assert!(said.contains("rollback") && said.contains("the anchor audit.example/w1"), "{said}");

    // Grown beyond what the witness knows, in another way: only a proof shows it.
    begun.grow(&begun.launch(), 6);
    let said = refused(&launch);
    assert!(said.contains("rollback or two histories"), "{said}");
    let said = refused(&launch);
    assert!(said.contains("rollback or two histories"), "it stays so: {said}");

    begun.put_back("new");
    begun.grow(&launch, 1);
}

#[test]
fn a_folder_put_back_whole_is_refused_where_another_folder_holds_more() {
    let begun = Begun::new();
    let worm = begun.path("worm");
    fs::create_dir(&worm).unwrap();
    let launch = begun.launch().flag("--anchor-dir", worm.to_str().unwrap());
    begun.grow(&launch, 1);
    let files = || {
        let mut files: Vec<_> = fs::read_dir(&worm).unwrap().map(|f| f.unwrap().path()).collect();
        files.sort();
        files
    };
    let newest = files().pop().unwrap();
    let note: Note = fs::read_to_string(&newest).unwrap().parse().unwrap();
    let size = Checkpoint::of_text(&note.text).unwrap().size;
    assert_eq!(newest.file_name().unwrap().to_str(), Some(&*format!("{size:020}.checkpoint")));
    assert_eq!(begun.key().verify(&note), Ok(Some(Signed::Log)));

    copy(&begun.path("data"), &begun.path("old"));
    begun.grow(&launch, 2);
    let before: Vec<_> = files().iter().map(|path| fs::read(path).unwrap()).collect();
    begun.put_back("old");
    let said = refused(&launch);
    assert!(said.contains("rollback") && said.contains(worm.to_str().unwrap()), "{said}");
    begun.grow(&begun.launch(), 6);
    let said = refused(&launch);
    assert!(said.contains("rollback") && said.contains("another history"), "{said}");
    let after: Vec<_> = files().iter().map(|path| fs::read(path).unwrap()).collect();
    assert_eq!(before, after, "nothing is written over, and nothing added");

    // The log of somebody else does not take the folder over.
    let stranger = Begun::new();
    let launch = stranger.launch().flag("--anchor-dir", worm.to_str().unwrap());
    refused(&launch);
    stranger.grow(&stranger.launch(), 9);
    let said = refused(&launch);
    assert!(said.contains("has not signed"), "{said}");
}

#[test]
fn an_anchor_that_does_not_answer_stops_only_a_server_that_requires_it() {
    let begun = Begun::new();
    let missing = begun.path("not-mounted");
    let launch = begun.launch().flag("--anchor-dir", missing.to_str().unwrap());
    let said = refused(&launch.clone().switch("--require-anchors"));
    assert!(said.contains("require_anchors"), "{said}");
    let server = launch.start();
    let anchors = status(&server, &begun.administrator).anchors;
    assert_eq!((anchors[0].kind, anchors[0].contradicts), (AnchorKind::Directory, false));
    assert!(anchors[0].error.is_some() && anchors[0].size.is_none());
    api_key(server.address, &begun.administrator, "AUDITOR", None);
    server.stop();
    assert!(!missing.exists(), "a disk that is not mounted is not filled elsewhere");
}

#[test]
fn an_endpoint_gets_the_checkpoint_with_its_token_and_the_token_is_told_to_nobody_else() {
    let begun = Begun::new();
    let token = begun.path("token");
    fs::write(&token, "s3cret-token\n").unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/in", listener.local_addr().unwrap());
    let got = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = String::new();
        let mut part = [0; 4096];
        while !request.contains("\u{2014} ") {
            let read = stream.read(&mut part).unwrap();
            request.push_str(std::str::from_utf8(&part[..read]).unwrap());
        }
        stream.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").unwrap();
        request
    });
    let flags = begun.launch().flag("--anchor-url", &url);
    let server = flags.flag("--anchor-token-file", token.to_str().unwrap()).start();
    let request = got.join().unwrap();
    assert!(request.starts_with("POST /in HTTP/1.1\r\n"), "{request}");
    assert!(request.to_lowercase().contains("authorization: bearer s3cret-token\r\n"));
    let note: Note = request.split_once("\r\n\r\n").unwrap().1.parse().unwrap();
    assert_eq!(begun.key().verify(&note), Ok(Some(Signed::Log)));
    let anchors = status(&server, &begun.administrator).anchors;
    assert_eq!(anchors[0].size, Some(Checkpoint::of_text(&note.text).unwrap().size));
    assert_eq!(anchors[0].name, url.strip_suffix("/in").unwrap(), "a path may be a secret");
    let said = server.stop();
    assert!(!said.contains("s3cret"), "{said}");
}

#[test]
fn the_key_of_a_log_is_shown_if_it_has_signed_the_checkpoint_there() {
    let begun = Begun::new();
    let show = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_keytrail-tested"));
        command.args(["key", "show"]).arg(begun.path("data")).output().unwrap()
    };
    let shown = show();
    assert!(shown.status.success());
    assert_eq!(String::from_utf8(shown.stdout).unwrap(), format!("{}\n", begun.key()));
    let stranger = Begun::new();
    let foreign = stranger.path("data/log/checkpoint-key");
    fs::copy(foreign, begun.path("data/log/checkpoint-key")).unwrap();
    assert_eq!(show().status.code(), Some(1));
    fs::remove_file(begun.path("data/log/checkpoint-key")).unwrap();
    assert_eq!(show().status.code(), Some(2));
}
