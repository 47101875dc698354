//! A WebDAV server of a test's own: Apache with `mod_dav`, on loopback.

use std::io::Write as _;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::broker::free_port;
use crate::planted;
use crate::process::eventually;

const MODULES: &str = "/usr/lib/apache2/modules";

/// A server with a folder `files`, and a login. It ends with this object, and so does what it stored.
#[derive(Debug)]
pub struct DavServer {
    folder: tempfile::TempDir,
    port: u16,
    secure: bool,
    process: Option<Child>,
}

impl DavServer {
    /// Who may log in.
    pub const LOGIN: &'static str = "bob";
    /// The password.
    pub const SECRET: &'static str = "canary-06-p@ss-of-webdav";

    /// Starts a server.
    pub fn start() -> Self {
        Self::with(None)
    }

    /// Starts one with this certificate, and the key of that.
    pub fn with(certificate: Option<&(PathBuf, PathBuf)>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let files = folder.path().join("files");
        std::fs::create_dir(&files).unwrap();
        // Who is root starts it as root, and it goes on as somebody else.
        for path in [folder.path(), &files] {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
        }
        let port = free_port();
        std::fs::write(folder.path().join("users"), users()).unwrap();
        let settings = settings(folder.path(), port, certificate);
        std::fs::write(folder.path().join("apache.conf"), settings).unwrap();
        let mut server = Self { folder, port, secure: certificate.is_some(), process: None };
        server.resume();
        server
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("{}://127.0.0.1:{}", if self.secure { "https" } else { "http" }, self.port)
    }

    /// The address of a folder with the login in it, as a configuration has it.
    pub fn address(&self, dir: &str) -> String {
        format!("{}/?dir={dir}&login={}&secret={}", self.url(), Self::LOGIN, Self::SECRET.replace('@', "%40"))
    }

    /// Where its files lie.
    pub fn files(&self) -> PathBuf {
        self.folder.path().join("files")
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        // It has children, which end with their parent when it is told to stop.
        let pid = rustix::process::Pid::from_child(&process);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        process.wait().unwrap();
    }

    /// Starts it again, where it was.
    pub fn resume(&mut self) {
        let log = self.folder.path().join("stderr.log");
        let process = Command::new("apache2")
            .args(["-D", "FOREGROUND", "-f"])
            .arg(self.folder.path().join("apache.conf"))
            .env("PATH", format!("/usr/sbin:{}", std::env::var("PATH").unwrap_or_default()))
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap_or_else(|error| panic!("apache2 is missing; on Debian: apt-get install apache2: {error}"));
        self.process = Some(process);
        eventually("apache2 listens", || {
            if self.process.as_mut().unwrap().try_wait().unwrap().is_some() {
                let said = std::fs::read_to_string(self.folder.path().join("error.log")).unwrap_or_default();
                panic!("apache2 ended: {} {said}", std::fs::read_to_string(&log).unwrap_or_default());
            }
            TcpStream::connect(("127.0.0.1", self.port)).is_ok()
        });
    }
}

impl Drop for DavServer {
    fn drop(&mut self) {
        self.kill();
        planted::settle(planted::search(&self.files(), &[]));
    }
}

/// A password as a file of users has it; nobody else sees it.
pub(crate) fn hashed(method: &str, password: &str) -> String {
    let mut openssl = Command::new("openssl");
    openssl.args(["passwd", method, "-stdin"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let process = openssl.spawn();
    let mut process =
        process.unwrap_or_else(|error| panic!("openssl is missing; on Debian: apt-get install openssl: {error}"));
    process.stdin.take().unwrap().write_all(password.as_bytes()).unwrap();
    let hashed = process.wait_with_output().unwrap();
    String::from_utf8(hashed.stdout).unwrap().trim().to_owned()
}

fn users() -> String {
    format!("{}:{}\n", DavServer::LOGIN, hashed("-apr1", DavServer::SECRET))
}

fn settings(folder: &Path, port: u16, certificate: Option<&(PathBuf, PathBuf)>) -> String {
    let mut modules =
        vec!["mpm_event", "authn_core", "authn_file", "authz_core", "authz_user", "auth_basic", "dav", "dav_fs"];
    let mut secrecy = String::new();
    if let Some((certificate, key)) = certificate {
        modules.push("ssl");
        secrecy = format!(
            "SSLEngine on\nSSLCertificateFile {}\nSSLCertificateKeyFile {}\n",
            certificate.display(),
            key.display()
        );
    }
    let modules: String =
        modules.iter().map(|name| format!("LoadModule {name}_module {MODULES}/mod_{name}.so\n")).collect();
    let owner = if rustix::process::geteuid().is_root() { "User www-data\nGroup www-data\n" } else { "" };
    let folder = folder.display();
    format!(
        "ServerRoot {folder}\nServerName localhost\nListen 127.0.0.1:{port}\nPidFile {folder}/pid\n{modules}{owner}\
         ErrorLog {folder}/error.log\nDefaultRuntimeDir {folder}\nDavLockDB {folder}/locks\n\
         StartServers 1\nThreadsPerChild 25\nMaxRequestWorkers 25\nKeepAlive On\nMaxKeepAliveRequests 0\n\
         KeepAliveTimeout 30\nGracefulShutdownTimeout 1\nDocumentRoot {folder}/files\n{secrecy}\
         <Directory {folder}/files>\nDav On\nAuthType Basic\nAuthName files\nAuthUserFile {folder}/users\n\
         Require valid-user\n</Directory>\n"
    )
}
