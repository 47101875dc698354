//! Real NATS servers of a test's own, on loopback: one, or three that keep copies for each other.

use crate::planted;
use rustix::process::{Pid, Signal, kill_process};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

/// How long a server may take to listen, and several to agree.
const START: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(10);
/// Who logs in by the server's address.
const LOGIN: &str = "ada";

fn secret() -> &'static str {
    planted::named("LOGIN_IN_AN_ADDRESS")
}

/// A server with JetStream, which syncs what it acknowledges. It ends with this object; what it stored ends with its folder.
#[derive(Debug)]
pub struct Broker {
    folder: tempfile::TempDir,
    port: u16,
    monitor: u16,
    settings: String,
    process: Option<Child>,
}

impl Broker {
    /// Starts a server.
    pub fn start() -> Self {
        Self::with("")
    }

    /// Starts a server with these lines in its configuration. Unless they say who may log in, its address has a login.
    pub fn with(settings: &str) -> Self {
        let mut broker = Self::new(settings);
        broker.resume();
        broker
    }

    fn new(settings: &str) -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            port: free_port(),
            monitor: free_port(),
            settings: settings.to_owned(),
            process: None,
        }
    }

    /// Where it tells about itself.
    pub fn monitor(&self) -> String {
        format!("http://127.0.0.1:{}", self.monitor)
    }

    /// The program that is started.
    pub fn program() -> PathBuf {
        program()
    }

    /// Where it listens, as a configuration has it.
    pub fn url(&self) -> String {
        let login = if self.has_own_login() { String::new() } else { format!("{LOGIN}:{}@", secret()) };
        format!("nats://{login}127.0.0.1:{}", self.port)
    }

    fn has_own_login(&self) -> bool {
        ["authorization", "accounts", "operator"].iter().any(|word| self.settings.contains(word))
    }

    /// The port it listens on, the same after each start.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process.as_ref().unwrap().id()
    }

    /// Whether its process is there.
    pub fn is_running(&self) -> bool {
        self.process.is_some()
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

    /// Ends it in order.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            kill_process(Pid::from_child(&process), Signal::TERM).unwrap();
            process.wait().unwrap();
        }
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(self.process.as_ref().unwrap()), signal).unwrap();
    }

    /// Has it read these lines of its configuration instead of those that it was started with.
    pub fn reload(&mut self, settings: &str) {
        settings.clone_into(&mut self.settings);
        self.configure();
        self.signal(Signal::HUP);
    }

    /// Starts it again, where it was.
    pub fn resume(&mut self) {
        self.spawn();
        self.wait_until("listen", |broker| TcpStream::connect(("127.0.0.1", broker.port)).is_ok());
        self.wait_until("find its streams", |broker| broker.asks("/healthz?js-enabled-only=true").is_some());
    }

    fn configure(&self) -> PathBuf {
        let config = self.folder.path().join("server.conf");
        let Self { port, monitor, settings, .. } = self;
        let store = self.store();
        // Who comes without a login, as through a proxy, is taken for the same.
        let login = match self.has_own_login() {
            true => String::new(),
            false => format!(
                "authorization {{ users: [ {{ user: {LOGIN}, password: \"{}\" }} ] }}\nno_auth_user: {LOGIN}",
                secret()
            ),
        };
        std::fs::write(
            &config,
            format!(
                "listen: \"127.0.0.1:{port}\"\nhttp: \"127.0.0.1:{monitor}\"\n\
                 jetstream {{ store_dir: {store:?}, sync_interval: always }}\n{login}\n{settings}\n"
            ),
        )
        .unwrap();
        config
    }

    fn spawn(&mut self) {
        assert!(self.process.is_none(), "it runs already");
        let config = self.configure();
        let log = self.folder.path().join("server.log");
        let log = std::fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
        let process = Command::new(program()).arg("-c").arg(&config).stdout(Stdio::null()).stderr(log).spawn();
        self.process = Some(process.expect("cannot start nats-server"));
    }

    #[track_caller]
    fn wait_until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        let begun = Instant::now();
        while !done(self) {
            let ended = self.process.as_mut().is_some_and(|process| process.try_wait().unwrap().is_some());
            if ended || begun.elapsed() > START {
                panic!("nats-server does not {what}: {}", self.said());
            }
            std::thread::sleep(POLL);
        }
    }

    /// What it wrote to its log.
    pub fn said(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("server.log")).unwrap_or_default()
    }

    /// What its monitor answers; nothing if it does not answer, or says that not all is well.
    fn asks(&self, what: &str) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.monitor)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
        write!(stream, "GET {what} HTTP/1.0\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        head.lines().next()?.contains(" 200 ").then(|| body.to_owned())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let said = self.said();
            let last: Vec<_> = said.lines().rev().take(40).collect();
            eprintln!("--- nats-server at {}", self.port);
            last.iter().rev().for_each(|line| eprintln!("{line}"));
        }
        planted::settle(planted::search(&self.store(), &[]));
    }
}

/// Servers of one cluster.
#[derive(Debug)]
pub struct Brokers {
    servers: Vec<Broker>,
}

impl Brokers {
    /// One server, alone.
    pub fn one() -> Self {
        Self { servers: vec![Broker::start()] }
    }

    /// Three servers that keep copies for each other, none of which tells clients of the others.
    pub fn three() -> Self {
        let ports: [u16; 3] = std::array::from_fn(|_| free_port());
        let routes = ports.map(|port| format!("\"nats://127.0.0.1:{port}\"")).join(", ");
        let servers = (1..).zip(ports).map(|(number, port)| {
            Broker::new(&format!(
                "server_name: server-{number}\n\
                 cluster {{ name: test, listen: \"127.0.0.1:{port}\", no_advertise: true, routes: [{routes}] }}"
            ))
        });
        let mut brokers = Self { servers: servers.collect() };
        brokers.resume();
        brokers
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.servers.len()
    }

    /// The addresses of all.
    pub fn urls(&self) -> Vec<String> {
        self.servers.iter().map(Broker::url).collect()
    }

    /// One of them.
    pub fn server(&mut self, at: usize) -> &mut Broker {
        &mut self.servers[at]
    }

    /// Starts those that don't run, and waits until all agree.
    pub fn resume(&mut self) {
        for broker in &mut self.servers {
            if !broker.is_running() {
                broker.spawn();
            }
        }
        self.wait();
    }

    /// Waits until every server is up to date with the others.
    pub fn wait(&mut self) {
        for broker in &mut self.servers {
            broker.wait_until("agree with the others", |broker| broker.asks("/healthz").is_some());
        }
    }

    /// Ends all at once.
    pub fn kill(&mut self) {
        for broker in &mut self.servers {
            broker.kill();
        }
    }

    /// Which server leads a stream, if any does.
    pub fn leader(&self, stream: &str) -> Option<usize> {
        let answer = self.servers.iter().find_map(|broker| broker.asks("/jsz?streams=true"))?;
        let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
        let streams = answer["account_details"][0]["stream_detail"].as_array()?;
        let stream = streams.iter().find(|found| found["name"] == stream)?;
        let Some(leader) = stream["cluster"]["leader"].as_str() else { return (self.count() == 1).then_some(0) };
        leader.strip_prefix("server-")?.parse::<usize>().ok()?.checked_sub(1)
    }
}

/// A port that nobody has, below those that the system gives to whoever connects: a server that is away for a while
/// finds it again.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const FIRST: u16 = 10_000;
    const COUNT: u16 = 20_000;
    // Test programs that run at the same time begin far from each other.
    let own = u16::try_from(std::process::id() * 37 % u32::from(COUNT)).unwrap();
    loop {
        let next = NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
        let port = FIRST + (own + next) % COUNT;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// The server that the tests run has brought, or the one on the path.
fn program() -> PathBuf {
    let brought = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tools/nats-server");
    if brought.is_file() { brought } else { PathBuf::from("nats-server") }
}
