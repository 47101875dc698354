//! A real NATS server of a test's own, on loopback.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a server may take to listen.
const START: Duration = Duration::from_secs(30);

/// A server with JetStream, which syncs what it acknowledges. It ends with this object; what it stored ends with its folder.
#[derive(Debug)]
pub struct Broker {
    folder: tempfile::TempDir,
    port: u16,
    settings: String,
    process: Option<Child>,
}

impl Broker {
    /// Starts a server.
    pub fn start() -> Self {
        Self::with("")
    }

    /// Starts a server with these lines in its configuration.
    pub fn with(settings: &str) -> Self {
        let mut broker =
            Self { folder: tempfile::tempdir().unwrap(), port: 0, settings: settings.to_owned(), process: None };
        broker.resume();
        broker
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process.as_ref().unwrap().id()
    }

    /// Where it stores streams.
    pub fn store(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    /// Ends it at once, as a crash does.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Starts it again, where it was.
    pub fn resume(&mut self) {
        let folder = self.folder.path();
        let config = folder.join("server.conf");
        let port = if self.port == 0 { -1 } else { i32::from(self.port) };
        let store = self.store();
        std::fs::write(
            &config,
            format!(
                "listen: \"127.0.0.1:{port}\"\nports_file_dir: {:?}\njetstream {{ store_dir: {store:?}, sync_interval: always }}\n{}\n",
                folder, self.settings
            ),
        )
        .unwrap();
        let log = std::fs::OpenOptions::new().create(true).append(true).open(folder.join("server.log")).unwrap();
        let process = Command::new(program())
            .arg("-c")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("cannot start nats-server");
        let ports = folder.join(format!("nats-server_{}.ports", process.id()));
        self.process = Some(process);
        self.port = self.listens(&ports);
    }

    fn listens(&mut self, ports: &Path) -> u16 {
        let begun = Instant::now();
        loop {
            let written = std::fs::read_to_string(ports).unwrap_or_default();
            let after = |text: &str| {
                let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
                digits.parse().ok()
            };
            if let Some(port) = written.split_once("127.0.0.1:").and_then(|(_, rest)| after(rest)) {
                return port;
            }
            let ended = self.process.as_mut().is_some_and(|process| process.try_wait().unwrap().is_some());
            if ended || begun.elapsed() > START {
                let said = std::fs::read_to_string(self.folder.path().join("server.log")).unwrap_or_default();
                panic!("nats-server does not start: {said}");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The server that the tests run has brought, or the one on the path.
fn program() -> PathBuf {
    let brought = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tools/nats-server");
    if brought.is_file() { brought } else { PathBuf::from("nats-server") }
}
