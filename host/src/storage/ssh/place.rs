//! Where the folder is, and what it takes to get there: an address as `sftp://user:password@host:22/folder`.

use std::fmt;
use std::path::PathBuf;

use crate::failure::Failure;

/// The port of SSH.
const PORT: u16 = 22;

/// What a configuration says of an SFTP server.
#[derive(Default)]
pub(in crate::storage) struct Words {
    /// The address.
    pub(in crate::storage) url: String,
    /// The password, if it is not in the address.
    pub(in crate::storage) password: String,
    /// The file of a private key.
    pub(in crate::storage) key_file: PathBuf,
    /// What opens that.
    pub(in crate::storage) passphrase: String,
    /// A file of known hosts, instead of the usual ones.
    pub(in crate::storage) known_hosts: PathBuf,
    /// Ask the agent for keys.
    pub(in crate::storage) agent: bool,
}

/// A server, and who we are there.
#[derive(Clone)]
pub(in crate::storage) struct Place {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) user: String,
    pub(super) password: Option<String>,
    pub(super) key_file: Option<PathBuf>,
    pub(super) passphrase: Option<String>,
    /// The agent's socket, if it is to be asked.
    pub(super) agent: Option<PathBuf>,
    pub(super) known_hosts: Vec<PathBuf>,
    /// The folder on the server. It is absolute, or begins where a login begins.
    pub(in crate::storage) folder: String,
}

/// Without the secrets.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slash = if self.folder.starts_with('/') { "" } else { "/~/" };
        write!(f, "sftp://{}{slash}{}", self.address(), self.folder)
    }
}

impl Place {
    /// The server that these words name. `key` is where they stand in the configuration.
    pub(in crate::storage) fn of(words: Words, key: &str) -> Result<Self, Failure> {
        let example = "write it as `sftp://USER@HOST:22/FOLDER`";
        if words.url.is_empty() {
            return Err(Failure::config(format!("`{key}.url` is not set")).hint(example));
        }
        let Address { host, port, user, password, folder } =
            address(&words.url).map_err(|why| Failure::config(format!("`{key}.url` {why}")).hint(example))?;
        let password = Some(words.password).filter(|password| !password.is_empty()).or(password);
        let key_file = Some(words.key_file).filter(|file| !file.as_os_str().is_empty());
        let agent = match (words.agent, std::env::var_os("SSH_AUTH_SOCK")) {
            (false, _) => None,
            (true, Some(socket)) if !socket.is_empty() => Some(PathBuf::from(socket)),
            (true, _) => {
                return Err(Failure::config(format!(
                    "`{key}.agent` is true, and `SSH_AUTH_SOCK`, which says where the agent is, is not set"
                ))
                .hint("start `ssh-agent` and add a key to it with `ssh-add`, or name a key's file by `key_file`"));
            }
        };
        if password.is_none() && key_file.is_none() && agent.is_none() {
            return Err(Failure::config(format!("nothing under `{key}` says how to log in"))
                .hint("write `key_file = \"PATH\"`, `agent = true`, or a password into `url`"));
        }
        Ok(Self {
            host,
            port,
            user,
            password,
            key_file,
            passphrase: Some(words.passphrase).filter(|passphrase| !passphrase.is_empty()),
            agent,
            known_hosts: known_hosts(words.known_hosts),
            folder,
        })
    }

    /// The server as files of known hosts call it.
    pub(super) fn known_as(&self) -> String {
        if self.port == PORT { self.host.clone() } else { format!("[{}]:{}", self.host, self.port) }
    }

    /// Host and port.
    pub(super) fn address(&self) -> String {
        let brackets = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        format!("{}{}{}:{}", brackets.0, self.host, brackets.1, self.port)
    }

    /// What must not be shown.
    pub(in crate::storage) fn secrets(&self) -> Vec<String> {
        [&self.password, &self.passphrase].into_iter().flatten().cloned().collect()
    }
}

/// The file that is named, or those that other programs know servers by.
fn known_hosts(named: PathBuf) -> Vec<PathBuf> {
    if !named.as_os_str().is_empty() {
        return vec![named];
    }
    let own = std::env::home_dir().map(|home| home.join(".ssh").join("known_hosts"));
    own.into_iter().chain([PathBuf::from("/etc/ssh/ssh_known_hosts")]).collect()
}

#[derive(Debug, PartialEq, Eq)]
struct Address {
    host: String,
    port: u16,
    user: String,
    password: Option<String>,
    folder: String,
}

/// The parts of an address. What is wrong with it is said without showing it.
fn address(url: &str) -> Result<Address, &'static str> {
    let rest = url.strip_prefix("sftp://").ok_or("does not begin with `sftp://`")?;
    if rest.contains(['?', '#']) {
        return Err("has a `?` or a `#`; in a password or a folder they are written `%3F` and `%23`");
    }
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (login, place) = authority.rsplit_once('@').ok_or("names no user")?;
    let (user, password) = match login.split_once(':') {
        Some((user, password)) => (user, Some(decoded(password)?)),
        None => (login, None),
    };
    let (host, port) = match place.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or("has a `[` without a `]`")?;
            (host, if port.is_empty() { None } else { Some(port.strip_prefix(':').ok_or("has signs behind `]`")?) })
        }
        None => place.split_once(':').map_or((place, None), |(host, port)| (host, Some(port))),
    };
    let port = match port {
        Some(port) => port.parse().ok().filter(|port| *port > 0).ok_or("has a port that is none")?,
        None => PORT,
    };
    let user = decoded(user)?;
    if user.is_empty() || host.is_empty() {
        return Err(if host.is_empty() { "names no host" } else { "names no user" });
    }
    let path = decoded(path)?;
    // As elsewhere, `/~/` is where a login begins.
    let (root, path) = match path.strip_prefix("~/") {
        Some(path) => ("", path),
        None if path == "~" => ("", ""),
        None => ("/", path.as_str()),
    };
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    if parts.iter().any(|part| *part == "." || *part == "..") || path.contains('\0') {
        return Err("has a folder with `.`, `..` or a zero in it");
    }
    let folder = match (root, parts.is_empty()) {
        ("", true) => ".".to_owned(),
        _ => format!("{root}{}", parts.join("/")),
    };
    let password = password.filter(|password| !password.is_empty());
    Ok(Address { host: host.to_ascii_lowercase(), port, user, password, folder })
}

/// The text that `%` and two digits stand for.
fn decoded(text: &str) -> Result<String, &'static str> {
    const WRONG: &str = "has a `%` that is not followed by two hexadecimal digits; a `%` itself is written `%25`";
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16)).ok_or(WRONG);
        let number = digit()? * 16 + digit()?;
        bytes.push(u8::try_from(number).map_err(|_| WRONG)?);
    }
    String::from_utf8(bytes).map_err(|_| "is not UTF-8")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(url: &str, shown: &str) {
        let found = match address(url) {
            Ok(Address { host, port, user, password, folder }) => {
                format!("{user} {} {host} {port} {folder}", password.unwrap_or_else(|| "-".into()))
            }
            Err(why) => why.to_owned(),
        };
        assert!(found.starts_with(shown), "{url}: {found}");
    }

    #[test]
    fn addresses_as_they_are_written() {
        check("sftp://bob:secret@files.example.org:2222/backups/app", "bob secret files.example.org 2222 /backups/app");
        check("sftp://bob@Files.example.org", "bob - files.example.org 22 /");
        check("sftp://bob@host//a//b/", "bob - host 22 /a/b");
        check("sftp://b%40b:p%2Fw%25@host/a%20b", "b@b p/w% host 22 /a b");
        check("sftp://bob:a@b:c@host/x", "bob a@b:c host 22 /x");
        check("sftp://bob@[::1]:2222/x", "bob - ::1 2222 /x");
        check("sftp://bob@[fe80::1]/x", "bob - fe80::1 22 /x");
        check("sftp://bob@host/~/backups", "bob - host 22 backups");
        check("sftp://bob@host/~", "bob - host 22 .");
    }

    #[test]
    fn addresses_that_are_none() {
        check("bob@host", "does not begin with `sftp://`");
        check("ssh://bob@host", "does not begin");
        check("sftp://host/x", "names no user");
        check("sftp://:pw@host/x", "names no user");
        check("sftp://bob@/x", "names no host");
        check("sftp://bob@host:0/x", "has a port");
        check("sftp://bob@host:99999/x", "has a port");
        check("sftp://bob@[::1/x", "has a `[`");
        check("sftp://bob:%zz@host/x", "has a `%`");
        check("sftp://bob@host/%ff", "is not UTF-8");
        check("sftp://bob@host/a/../b", "has a folder with");
        check("sftp://bob@host/a%2f..%2fb", "has a folder with");
        check("sftp://bob@host/a?b", "has a `?`");
    }

    #[test]
    fn x07_what_is_shown_holds_no_secret() {
        let words =
            Words { url: "sftp://bob:hunter2@host:2222/a".into(), passphrase: "sesame".into(), ..Words::default() };
        let Ok(place) = Place::of(words, "snapshot.sftp") else { panic!("it is an address") };
        assert_eq!(place.to_string(), "sftp://host:2222/a");
        assert_eq!((place.known_as(), place.address()), ("[host]:2222".into(), "host:2222".into()));
        assert_eq!(place.secrets(), ["hunter2", "sesame"]);
        let words = Words { url: "sftp://bob@host".into(), ..Words::default() };
        let Err(failure) = Place::of(words, "snapshot.sftp") else { panic!("there is no way to log in") };
        assert!(failure.to_string().contains("how to log in"), "{failure}");
    }
}
