//! A NATS server of this node's own: a real `nats-server`, started, kept alive, and ended with this process.
//!
//! It is for those who want several machines and no further thing to look after. Its files lie in `nats` in the host's
//! own directory. It listens on this machine alone unless told otherwise, and syncs whatever it acknowledges.
//!
//! The server must not outlive the host, however that ends. So what is started is this program itself, which asks the
//! kernel to be killed with its parent and then becomes the server: see `become_server`.

use crate::failure::{Failure, Kind};
use crate::node::state_directory;
use rustix::process::{Pid, Signal, getppid, kill_process, set_parent_process_death_signal};
use serde::Deserialize;
use std::fs::{DirBuilder, OpenOptions, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

mod settings;

/// The hidden command that becomes the server.
pub const COMMAND: &str = "__server";

/// How long a server may take until it listens.
const START: Duration = Duration::from_secs(30);
/// How long it may take to end in order.
const END: Duration = Duration::from_secs(10);
/// How often its process is looked at, and how long one that ended is left alone.
const LOOK: Duration = Duration::from_millis(50);
const PAUSE: Duration = Duration::from_secs(1);
/// Lines of its log that are quoted when it does not start.
const QUOTED: usize = 5;

/// What a server of one's own is started with.
#[derive(Clone, Default)]
pub struct Managed {
    /// The database it belongs to.
    pub database: PathBuf,
    /// The program; none: `nats-server` on the path.
    pub program: Option<PathBuf>,
    /// Where it listens, as `host:port`.
    pub bind_address: String,
    /// Where other servers of the cluster reach it; empty: it is alone.
    pub cluster_addr: String,
    /// Where it reaches them.
    pub cluster_peers: Vec<String>,
    /// The user's own configuration, which has the last word.
    pub server_config: Option<PathBuf>,
    /// Who may log in; none: anybody who can reach it.
    pub user: Option<(String, String)>,
}

impl std::fmt::Debug for Managed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Managed")
            .field("database", &self.database)
            .field("bind_address", &self.bind_address)
            .finish_non_exhaustive()
    }
}

/// A server that runs, as long as this lives.
#[derive(Debug)]
pub struct Server {
    /// Where nodes reach it.
    pub url: String,
    /// Where it tells about itself.
    pub monitor: Option<String>,
    running: Arc<Running>,
    keeper: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Running {
    child: Mutex<Option<Child>>,
    stops: AtomicBool,
}

/// What the server writes about where it listens.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Ports {
    nats: Vec<String>,
    monitoring: Vec<String>,
}

impl Managed {
    /// Its folder.
    fn folder(&self) -> PathBuf {
        state_directory(&self.database.canonicalize().unwrap_or_else(|_| self.database.clone())).join("nats")
    }

    /// Where a server that runs beside this database listens.
    #[must_use]
    pub fn address(&self) -> Option<String> {
        let text = std::fs::read_to_string(self.folder().join("address")).ok()?;
        Some(text.trim().to_owned()).filter(|address| !address.is_empty())
    }

    /// Starts the server and returns when it listens.
    ///
    /// # Errors
    /// When there is no such program, or it ends before it listens.
    pub fn start(&self) -> Result<Server, Failure> {
        let program = self.find()?;
        let folder = self.folder();
        let unwritable = |error: std::io::Error| {
            Failure::new(Kind::General, format!("cannot prepare the NATS server in `{}`: {error}", folder.display()))
                .hint("make the directory writable for this user, and see that the disk has room")
        };
        DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(unwritable)?;
        std::fs::set_permissions(&folder, Permissions::from_mode(0o700)).map_err(unwritable)?;
        let name = settings::name(&folder).map_err(unwritable)?;
        self.warn();
        let secrets = self.write(&folder, &name, &self.bind_address).map_err(unwritable)?;
        for old in ports_files(&folder) {
            std::fs::remove_file(old).map_err(unwritable)?;
        }
        let running = Arc::new(Running::default());
        let starts = Starts { program, folder: folder.clone(), secrets };
        let keeper = {
            let running = Arc::clone(&running);
            // One thread for the server's whole life: the kernel ends the server with the thread that started it.
            std::thread::Builder::new()
                .name("nats-server".to_owned())
                .spawn(move || starts.keep(&running))
                .map_err(unwritable)?
        };
        let mut server = Server { url: String::new(), monitor: None, running, keeper: Some(keeper) };
        let ports = server.listens(&folder)?;
        let local = |urls: &[String]| urls.iter().find(|url| url.contains("//127.0.0.1:")).or(urls.first()).cloned();
        server.url = local(&ports.nats).unwrap_or_default();
        server.monitor = local(&ports.monitoring);
        // Should it have to be started again, it is to listen where nodes look for it.
        if let (Some((host, "-1")), Some((_, port))) = (self.bind_address.rsplit_once(':'), server.url.rsplit_once(':'))
        {
            self.write(&folder, &name, &format!("{host}:{port}")).map_err(unwritable)?;
        }
        write_private(&folder.join("address"), &server.url).map_err(unwritable)?;
        tracing::info!(address = server.url, name, "NATS server started");
        Ok(server)
    }

    /// Writes the server's configuration; gives the variables that it takes secrets from.
    fn write(&self, folder: &Path, name: &str, listen: &str) -> std::io::Result<Vec<(String, String)>> {
        let written = settings::write(self, folder, name, listen);
        write_private(&folder.join("server.conf"), &written.text)?;
        Ok(written.secrets)
    }

    /// The program, by its path or on the path.
    fn find(&self) -> Result<PathBuf, Failure> {
        let missing = |text: String| {
            Failure::new(Kind::Missing, text)
                .hint("get it from https://github.com/nats-io/nats-server/releases, or `apt install nats-server`; it must be 2.12 or later")
                .hint("put it on the `PATH`, or name it: `nats_server = \"/opt/nats/nats-server\"` under `[nats]`")
                .hint("or name servers that run elsewhere: `urls = [\"nats://host:4222\"]` under `[nats]`")
        };
        if let Some(program) = &self.program {
            return if is_program(program) {
                Ok(program.clone())
            } else {
                Err(missing(format!("`nats.nats_server` names no program: `{}`", program.display())))
            };
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path)
            .map(|folder| folder.join("nats-server"))
            .find(|program| is_program(program))
            .ok_or_else(|| {
                missing(
                    "`[nats]` names no `urls`, so a NATS server is to be started here, and there is no `nats-server`"
                        .to_owned(),
                )
            })
    }

    /// An address that the user wrote is obeyed; that it is open to all is worth one word.
    fn warn(&self) {
        let opens = |address: &str| !address.is_empty() && !settings::is_local(address);
        if self.user.is_none() && (opens(&self.bind_address) || opens(&self.cluster_addr)) {
            tracing::warn!(
                bind_address = self.bind_address,
                cluster_addr = self.cluster_addr,
                "the NATS server can be reached from other machines without a login; set `user_name` and `user_password` under `[nats]`"
            );
        }
    }
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".new");
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&aside)?;
    file.write_all(text.as_bytes())?;
    std::fs::rename(&aside, path)
}

fn ports_files(folder: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok).map(|file| file.path());
    files.filter(|path| path.extension().is_some_and(|extension| extension == "ports")).collect()
}

/// What is started, and again if it ends.
struct Starts {
    program: PathBuf,
    folder: PathBuf,
    secrets: Vec<(String, String)>,
}

impl Starts {
    fn keep(&self, running: &Running) {
        while !running.stops.load(Ordering::Relaxed) {
            match self.spawn() {
                Ok(child) => *running.child() = Some(child),
                Err(error) => tracing::warn!(%error, "cannot start the NATS server"),
            }
            let ended = loop {
                std::thread::sleep(LOOK);
                match running.ended() {
                    Some(ended) => break ended,
                    None if running.child().is_none() => break None,
                    None => {}
                }
            };
            if running.stops.load(Ordering::Relaxed) {
                return;
            }
            let how = ended.map(|ended| ended.to_string()).unwrap_or_default();
            tracing::warn!(how, log = %self.folder.join("server.log").display(), "the NATS server ended, starting it again");
            let begun = Instant::now();
            while begun.elapsed() < PAUSE && !running.stops.load(Ordering::Relaxed) {
                std::thread::sleep(LOOK);
            }
        }
    }

    fn spawn(&self) -> std::io::Result<Child> {
        let said =
            OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(self.folder.join("output"))?;
        Command::new("/proc/self/exe")
            .arg(COMMAND)
            .arg(std::process::id().to_string())
            .arg(&self.program)
            .arg("-c")
            .arg(self.folder.join("server.conf"))
            .envs(self.secrets.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(said.try_clone()?)
            .stderr(said)
            // A terminal's interrupt is for the host, which ends the server in order.
            .process_group(0)
            .spawn()
    }
}

impl Running {
    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How the process ended, if it did; the inner one is lost if it can't be asked.
    #[expect(clippy::option_option, reason = "whether it ended, and how")]
    fn ended(&self) -> Option<Option<ExitStatus>> {
        let mut child = self.child();
        let ended = match child.as_mut()?.try_wait() {
            Ok(None) => return None,
            Ok(Some(ended)) => Some(ended),
            Err(_) => None,
        };
        child.take();
        Some(ended)
    }

    fn signal(&self, signal: Signal) {
        if let Some(child) = self.child().as_ref()
            && let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw)
            && let Err(error) = kill_process(pid, signal)
        {
            tracing::debug!(%error, "cannot signal the NATS server");
        }
    }
}

impl Server {
    /// Waits until it says where it listens.
    fn listens(&self, folder: &Path) -> Result<Ports, Failure> {
        let begun = Instant::now();
        let mut was_there = false;
        loop {
            for file in ports_files(folder) {
                // It may be written by half.
                let text = std::fs::read_to_string(file).unwrap_or_default();
                if let Ok(ports) = serde_json::from_str::<Ports>(&text)
                    && !ports.nats.is_empty()
                {
                    return Ok(ports);
                }
            }
            let is_there = self.running.child().is_some();
            if (was_there && !is_there) || begun.elapsed() > START {
                return Err(Failure::new(Kind::Config, format!("the NATS server does not start: {}", quoted(folder)))
                    .hint(format!(
                        "its configuration is `{}`, which ends with yours",
                        folder.join("server.conf").display()
                    )));
            }
            was_there = is_there;
            std::thread::sleep(LOOK);
        }
    }
}

/// Its last words.
fn quoted(folder: &Path) -> String {
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap_or_default();
    let (output, log) = (read("output"), read("server.log"));
    let said = if output.trim().is_empty() { &log } else { &output };
    let lines: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).collect();
    let last = lines.get(lines.len().saturating_sub(QUOTED)..).unwrap_or_default();
    if last.is_empty() { "it says nothing".to_owned() } else { last.join("; ") }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.running.stops.store(true, Ordering::Relaxed);
        self.running.signal(Signal::TERM);
        let begun = Instant::now();
        while self.keeper.as_ref().is_some_and(|keeper| !keeper.is_finished()) {
            if begun.elapsed() > END {
                self.running.signal(Signal::KILL);
            }
            std::thread::sleep(LOOK);
        }
        if let Some(keeper) = self.keeper.take()
            && keeper.join().is_err()
        {
            tracing::error!("the thread of the NATS server ended in a panic");
        }
    }
}

/// Becomes the server, to be killed with the process `parent`. Returns only if that fails.
pub(crate) fn become_server(parent: u32, program: &Path, arguments: &[std::ffi::OsString]) -> Failure {
    let cannot = |why: &dyn std::fmt::Display| {
        Failure::new(Kind::General, format!("cannot become `{}`: {why}", program.display()))
    };
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        return cannot(&error);
    }
    // A parent that died before the kernel was asked is noticed here.
    if getppid().map(|pid| pid.as_raw_nonzero().get().cast_unsigned()) != Some(parent) {
        return cannot(&"its parent is gone");
    }
    cannot(&Command::new(program).args(arguments).exec())
}
