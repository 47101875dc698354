//! A real OpenSSH server of a test's own, on loopback, for whoever runs the tests.

use crate::broker::free_port;
use crate::dav::hashed;
use rustix::process::{Pid, Signal, getuid, kill_process};
use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const START: Duration = Duration::from_secs(20);
const PROGRAM: &str = "/usr/sbin/sshd";

/// A server with SFTP. It ends with this object, and all that it started with it.
#[derive(Debug)]
pub struct Sshd {
    folder: tempfile::TempDir,
    port: u16,
    settings: String,
    /// What the user `bob` may log in with, on a server that knows only that one.
    password: Option<String>,
    process: Option<Child>,
}

impl Sshd {
    /// Starts a server.
    pub fn start() -> Self {
        Self::with("Subsystem sftp internal-sftp")
    }

    /// Starts a server with these lines in its configuration, one of which names its SFTP.
    pub fn with(settings: &str) -> Self {
        let mut sshd = Self::new(settings);
        sshd.resume();
        sshd
    }

    /// Starts a server that `bob` logs in to by a password. For that it has a file of users of its own, and so it takes
    /// root.
    pub fn with_password(password: &str, settings: &str) -> Self {
        let mut sshd = Self::new(&format!("Subsystem sftp internal-sftp\n{settings}"));
        sshd.password = Some(password.to_owned());
        sshd.resume();
        sshd
    }

    fn new(settings: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let sshd = Self { folder, port: free_port(), settings: settings.to_owned(), password: None, process: None };
        sshd.make_key("host", "ed25519", "");
        let own = sshd.make_key("own", "ed25519", "");
        sshd.authorize(&[&own]);
        sshd.write("known_hosts", &sshd.known_line());
        sshd
    }

    /// Makes a key, and gives its file.
    pub fn make_key(&self, name: &str, kind: &str, passphrase: &str) -> PathBuf {
        let file = self.path(name);
        let mut command = Command::new("ssh-keygen");
        command.args(["-q", "-t", kind, "-C", "", "-f"]).arg(&file);
        if passphrase.is_empty() {
            command.args(["-N", ""]);
        } else {
            // It asks for it, as it does where nobody may see it.
            let answers = self.write("answers", "#!/bin/sh\nprintf '%s\\n' \"$PASSPHRASE\"\n");
            fs::set_permissions(&answers, fs::Permissions::from_mode(0o700)).unwrap();
            command.env("SSH_ASKPASS", answers).env("SSH_ASKPASS_REQUIRE", "force").env("PASSPHRASE", passphrase);
        }
        let made = command.output().expect("cannot run ssh-keygen");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        file
    }

    /// Runs `ssh-keygen` in the folder of the keys.
    pub fn keygen(&self, args: &[&str]) -> String {
        let made = Command::new("ssh-keygen").args(args).current_dir(self.folder.path()).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        String::from_utf8(made.stdout).unwrap()
    }

    /// Lets these keys in, and no others.
    pub fn authorize(&self, keys: &[&Path]) {
        let public = keys.iter().map(|key| fs::read_to_string(key.with_extension("pub")).unwrap());
        self.write("authorized_keys", &public.collect::<String>());
    }

    /// A file beside its configuration.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes such a file, and gives it.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let file = self.path(name);
        fs::write(&file, text).unwrap();
        file
    }

    /// The port it listens on, the same after each start.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A key that it lets in.
    pub fn own_key(&self) -> PathBuf {
        self.path("own")
    }

    /// The file in which it is known.
    pub fn known_hosts(&self) -> PathBuf {
        self.path("known_hosts")
    }

    /// Its own key, as a line has it.
    pub fn host_key(&self) -> String {
        fs::read_to_string(self.path("host.pub")).unwrap().trim().to_owned()
    }

    /// The line by which it is known.
    pub fn known_line(&self) -> String {
        format!("[127.0.0.1]:{} {}\n", self.port, self.host_key())
    }

    /// Who runs it.
    pub fn user() -> String {
        let said = Command::new("id").arg("-un").output().unwrap();
        String::from_utf8(said.stdout).unwrap().trim().to_owned()
    }

    /// The address of a folder there, without a password.
    pub fn url(&self, folder: &Path) -> String {
        format!("sftp://{}@127.0.0.1:{}{}", Self::user(), self.port, folder.display())
    }

    /// Starts it, where it was.
    pub fn resume(&mut self) {
        assert!(self.process.is_none(), "it runs already");
        if getuid().is_root() {
            // As its package makes it at each start of the machine.
            fs::create_dir_all("/run/sshd").unwrap();
        }
        let config = self.configure();
        let log = fs::OpenOptions::new().create(true).append(true).open(self.path("log")).unwrap();
        let mut command = match &self.password {
            None => Command::new(PROGRAM),
            Some(password) => {
                self.write_users(password);
                let mut command = Command::new("unshare");
                let run = "mount --bind passwd /etc/passwd && mount --bind shadow /etc/shadow && exec \"$0\" \"$@\"";
                command.args(["--mount", "sh", "-c", run, PROGRAM]).current_dir(self.folder.path());
                command
            }
        };
        let process = command.args(["-D", "-e", "-f"]).arg(config).stdout(Stdio::null()).stderr(log).spawn();
        self.process = Some(process.expect("cannot start sshd; on Debian: apt-get install openssh-server"));
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            let ended = self.process.as_mut().is_some_and(|process| process.try_wait().unwrap().is_some());
            assert!(!ended && begun.elapsed() < START, "sshd does not listen: {}", self.said());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn configure(&self) -> PathBuf {
        let (port, folder) = (self.port, self.folder.path().display());
        let password = if self.password.is_some() { "yes" } else { "no" };
        self.write(
            "sshd_config",
            &format!(
                "Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nPidFile none\n\
                 AuthorizedKeysFile {folder}/authorized_keys\nStrictModes no\nUsePAM no\nPermitRootLogin yes\n\
                 PasswordAuthentication {password}\nMaxStartups 200\nLogLevel VERBOSE\n{}\n",
                self.settings
            ),
        )
    }

    fn write_users(&self, password: &str) {
        let hash = hashed("-6", password);
        let users = ["bob:x:0:0::/tmp:/bin/sh", "root:x:0:0::/root:/bin/sh", "sshd:x:65534:65534::/:/bin/false"];
        self.write("passwd", &(users.join("\n") + "\n"));
        self.write("shadow", &format!("bob:{}:19000:0:99999:7:::\nroot:*:19000:0:99999:7:::\n", hash));
    }

    /// Ends it at once, and every conversation with it.
    pub fn kill(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        let mut ended = descendants(process.id());
        process.kill().unwrap();
        process.wait().unwrap();
        // What it began at the last moment.
        ended.extend(ended.clone().into_iter().flat_map(descendants));
        for pid in ended {
            if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
                // It may have ended by itself.
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }

    /// How many processes it has for those who are connected.
    pub fn conversations(&self) -> usize {
        self.process.as_ref().map_or(0, |process| descendants(process.id()).len())
    }

    /// What it wrote to its log.
    pub fn said(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The processes that a process has started, and those that they have.
fn descendants(of: u32) -> Vec<u32> {
    let mut found = Vec::new();
    let mut above = vec![of];
    while let Some(parent) = above.pop() {
        let tasks = fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten().flatten();
        for task in tasks {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            let children: Vec<u32> = children.split_whitespace().filter_map(|child| child.parse().ok()).collect();
            above.extend(&children);
            found.extend(children);
        }
    }
    found
}

/// An agent that holds keys. It ends with this object.
#[derive(Debug)]
pub struct SshAgent {
    folder: tempfile::TempDir,
    process: Child,
}

impl SshAgent {
    /// Starts an agent with these keys.
    pub fn with(keys: &[&Path]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("agent");
        let process = Command::new("ssh-agent").arg("-D").arg("-a").arg(&socket).stdout(Stdio::null()).spawn().unwrap();
        let agent = Self { folder, process };
        let begun = Instant::now();
        while !socket.exists() {
            assert!(begun.elapsed() < START, "ssh-agent does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        for key in keys {
            let added = Command::new("ssh-add").arg("-q").arg(key).env("SSH_AUTH_SOCK", &socket).output().unwrap();
            assert!(added.status.success(), "{}", String::from_utf8_lossy(&added.stderr));
        }
        agent
    }

    /// Where it listens.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("agent")
    }
}

impl Drop for SshAgent {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
