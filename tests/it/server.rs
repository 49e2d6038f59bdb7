//! The real server as its own process, and the same server inside the test's,
//! where a test needs its clock or its disk.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::thread::JoinHandle;

use api::app::App;
use api::device::Client;
use api::ports::SystemEntropy;
use api::service::{Ports, Service};
use api::settings::Settings;
use engine::machine::Clock;
use storage::disk::Disk;

/// How a server is started.
#[derive(Clone)]
pub(crate) struct Launch {
    data: PathBuf,
    flags: Vec<String>,
    /// A program that runs it, with arguments of its own.
    under: Vec<String>,
}

/// A server in its own process. Killed when dropped.
pub(crate) struct Server {
    child: Child,
    launch: Launch,
    pub(crate) url: String,
    pub(crate) address: SocketAddr,
    /// The first administrator key, as Bearer; only if this start made it.
    first_key: Option<String>,
    said: Arc<Said>,
}

/// What a process writes on standard error, as it comes.
#[derive(Default)]
struct Said {
    lines: Mutex<(String, bool)>,
    more: Condvar,
}

impl Launch {
    /// On the folder `data`, with segments small enough to be filled quickly.
    pub(crate) fn on(data: &Path) -> Self {
        Self { data: data.to_owned(), flags: Vec::new(), under: Vec::new() }
    }

    pub(crate) fn flag(mut self, name: &str, value: &str) -> Self {
        self.flags.extend([name.to_owned(), value.to_owned()]);
        self
    }

    pub(crate) fn switch(mut self, name: &str) -> Self {
        self.flags.push(name.to_owned());
        self
    }

    pub(crate) fn under<'a>(mut self, program: impl IntoIterator<Item = &'a str>) -> Self {
        self.under = program.into_iter().map(str::to_owned).collect();
        self
    }

    /// The command line.
    fn command(&self) -> Command {
        let binary = env!("CARGO_BIN_EXE_keytrail-tested").to_owned();
        let mut words = self.under.iter().cloned().chain([binary]);
        let mut command = Command::new(words.next().unwrap());
        command.args(words).args(["serve", "--listen", "127.0.0.1:0", "--segment-mib", "4"]);
        command.arg("--data").arg(&self.data).args(&self.flags);
        // No file of the folder that tests run in, and no proxy, has a say.
        command.current_dir(self.data.parent().unwrap());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Starts it and waits until it serves.
    ///
    /// # Panics
    ///
    /// With what it said, if it does not.
    #[track_caller]
    pub(crate) fn start(&self) -> Server {
        match self.try_start() {
            Ok(server) => server,
            Err((status, said)) => panic!("the server ended with {status}:\n{said}"),
        }
    }

    /// As [`Launch::start`]; how it ended and what it said if it does not serve.
    pub(crate) fn try_start(&self) -> Result<Server, (ExitStatus, String)> {
        let mut child = self.command().spawn().unwrap();
        let said = Said::follow(child.stderr.take().unwrap());
        let mut first_key = None;
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            if let Some(path) = line.strip_prefix("keytrail wrote the first administrator key to ")
            {
                first_key = Some(bearer_of(&std::fs::read_to_string(path).unwrap()));
            } else if let Some(url) = line.strip_prefix("keytrail listens on ") {
                let address = url.strip_prefix("http://").unwrap().parse().unwrap();
                let (launch, url) = (self.clone(), url.to_owned());
                return Ok(Server { child, launch, url, address, first_key, said });
            }
        }
        let status = child.wait().unwrap();
        Err((status, said.all()))
    }
}

fn bearer_of(file: &str) -> String {
    let line = file.lines().find_map(|line| line.strip_prefix("bearer "));
    line.unwrap().to_owned()
}

impl Server {
    /// On a new folder.
    #[track_caller]
    pub(crate) fn start(data: &Path) -> Self {
        Launch::on(data).start()
    }

    /// The first administrator key of a new log.
    pub(crate) fn administrator(&self) -> String {
        self.first_key.clone().unwrap()
    }

    /// A client as devices and back ends use it.
    pub(crate) fn client(&self) -> Client {
        Client::new(&self.url, None).unwrap()
    }

    /// The process that serves, also under another program.
    pub(crate) fn pid(&self) -> u32 {
        if self.launch.under.is_empty() {
            return self.child.id();
        }
        let id = self.child.id();
        let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
        children.split_whitespace().next().unwrap().parse().unwrap()
    }

    fn signal(&self, name: &str) {
        let pid = self.pid().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status().unwrap();
        assert!(sent.success());
    }

    /// Tells it to stop, and does not wait.
    pub(crate) fn terminate(&self) {
        self.signal("TERM");
    }

    /// Waits until it has said a line with `words` on standard error.
    #[track_caller]
    pub(crate) fn wait_for(&self, words: &str) {
        self.said.wait_for(words);
    }

    /// Everything it has said on standard error so far.
    pub(crate) fn said(&self) -> String {
        self.said.so_far()
    }

    /// Waits for its end; how it ended and all it said on standard error.
    pub(crate) fn ended(mut self) -> (ExitStatus, String) {
        let status = self.child.wait().unwrap();
        (status, self.said.all())
    }

    /// Stops it cleanly; all it said on standard error.
    #[track_caller]
    pub(crate) fn stop(self) -> String {
        self.terminate();
        let (status, said) = self.ended();
        assert!(status.success(), "{status}:\n{said}");
        said
    }

    /// Stops it cleanly and starts it on the same folder.
    #[track_caller]
    pub(crate) fn restart(self) -> Self {
        let launch = self.launch.clone();
        self.stop();
        launch.start()
    }

    /// Takes its life between two instructions.
    pub(crate) fn kill(mut self) -> Launch {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.launch.clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Said {
    fn follow(stderr: impl std::io::Read + Send + 'static) -> Arc<Self> {
        let said = Arc::new(Self::default());
        let told = Arc::clone(&said);
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines() {
                let Ok(line) = line else { break };
                let mut lines = told.lines.lock().unwrap();
                lines.0.push_str(&line);
                lines.0.push('\n');
                told.more.notify_all();
            }
            told.lines.lock().unwrap().1 = true;
            told.more.notify_all();
        });
        said
    }

    #[track_caller]
    fn wait_for(&self, words: &str) {
        let mut lines = self.lines.lock().unwrap();
        while !lines.0.contains(words) {
            assert!(!lines.1, "it ended without saying {words:?}:\n{}", lines.0);
            lines = self.more.wait(lines).unwrap();
        }
    }

    fn so_far(&self) -> String {
        self.lines.lock().unwrap().0.clone()
    }

    /// Everything, once there is no more.
    fn all(&self) -> String {
        let mut lines = self.lines.lock().unwrap();
        while !lines.1 {
            lines = self.more.wait(lines).unwrap();
        }
        lines.0.clone()
    }
}

/// The server inside this process, on a thread of its own. Stopped by
/// [`InProcess::stop`].
pub(crate) struct InProcess {
    pub(crate) address: SocketAddr,
    pub(crate) app: Arc<App>,
    pub(crate) administrator: Option<String>,
    stop: tokio::sync::oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl InProcess {
    /// On the folder `data`, with this clock, on this disk.
    pub(crate) fn start(data: &Path, clock: Arc<dyn Clock>, disk: Arc<dyn Disk>) -> Self {
        Self::with(Settings { data: data.to_owned(), ..Settings::default() }, clock, disk)
    }

    /// With one worker and small segments, else with these settings.
    pub(crate) fn with(settings: Settings, clock: Arc<dyn Clock>, disk: Arc<dyn Disk>) -> Self {
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let settings = Settings { listen, workers: 1, segment_mib: 4, ..settings };
        let (tell, told) = mpsc::channel();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let thread = std::thread::spawn(move || {
            actix_web::rt::System::new().block_on(async move {
                let ports = Ports { clock, entropy: Arc::new(SystemEntropy) };
                let key = Arc::new(Mutex::new(None));
                let taken = Arc::clone(&key);
                let hand_over = Box::new(move |made: &api::auth::credential::Credential| {
                    *taken.lock().unwrap() = Some(made.token().to_string());
                    Ok(())
                });
                let service = Service::start_on(&settings, &ports, disk, hand_over).await.unwrap();
                let key = key.lock().unwrap().take();
                tell.send((service.address(), Arc::clone(service.app()), key)).unwrap();
                stopped.await.unwrap();
                service.stop().await.unwrap();
            });
        });
        let (address, app, administrator) = told.recv().unwrap();
        Self { address, app, administrator, stop, thread }
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(&format!("http://{}", self.address), None).unwrap()
    }

    /// Stops it cleanly.
    pub(crate) fn stop(self) {
        drop(self.app);
        self.stop.send(()).unwrap();
        self.thread.join().unwrap();
    }
}
