//! The configuration that a server of one's own is started with.

use super::Managed;
use std::fmt::Write as _;
use std::net::{IpAddr, ToSocketAddrs as _};
use std::path::{Component, Path};

/// The server's name, which other servers know its files by: drawn once.
pub(super) fn name(folder: &Path) -> std::io::Result<String> {
    let file = folder.join("name");
    match std::fs::read_to_string(&file) {
        Ok(name) if !name.trim().is_empty() => return Ok(name.trim().to_owned()),
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(|error| std::io::Error::other(error.to_string()))?;
    let name = format!("antiphon-{:016x}", u64::from_be_bytes(random));
    super::write_private(&file, &name)?;
    Ok(name)
}

/// A configuration, and the variables for the secrets that it speaks of: no file has them but the user's own.
pub(super) struct Written {
    pub(super) text: String,
    pub(super) secrets: Vec<(String, String)>,
}

/// The whole configuration. What comes later has the last word, and the user's own comes last.
pub(super) fn write(managed: &Managed, folder: &Path, name: &str, listen: &str) -> Written {
    let mut secrets = Vec::new();
    // The server reads the value of a variable as it reads its file.
    let mut secret = |value: &str| {
        let name = format!("NATS_SECRET_{}", secrets.len());
        secrets.push((name.clone(), quoted(value)));
        format!("${name}")
    };
    let mut text = String::from(
        "# Written by Antiphon at each start; what you want otherwise goes into a file of your own, `server_config`.\n",
    );
    let mut line = |words: String| {
        text.push_str(&words);
        text.push('\n');
    };
    let path = |name: &str| quoted(&folder.join(name).display().to_string());
    line(format!("server_name: {}", quoted(name)));
    line(format!("listen: {}", quoted(listen)));
    line("http: \"127.0.0.1:-1\"".to_owned());
    line(format!("ports_file_dir: {}", quoted(&folder.display().to_string())));
    line(format!("log_file: {}", path("server.log")));
    line("logfile_size_limit: 16777216".to_owned());
    line(format!("jetstream {{ store_dir: {}, sync_interval: always }}", path("store")));
    let login = managed
        .user
        .as_ref()
        .map(|(name, password)| format!("authorization {{ user: {}, password: {} }}", quoted(name), secret(password)));
    if let Some(login) = &login {
        line(login.clone());
    }
    if !managed.cluster_addr.is_empty() {
        let routes: Vec<String> = managed
            .cluster_peers
            .iter()
            .flat_map(|peer| routes(peer, managed.user.as_ref()))
            .map(|url| if url.contains('@') { secret(&url) } else { quoted(&url) })
            .collect();
        line("cluster {".to_owned());
        line(format!("  name: {}", quoted("antiphon")));
        line(format!("  listen: {}", quoted(&managed.cluster_addr)));
        if let Some(login) = login {
            line(format!("  {login}"));
        }
        line(format!("  routes: [{}]", routes.join(", ")));
        line("}".to_owned());
    }
    if let Some(file) = &managed.server_config {
        line(format!("include {}", quoted(&included(folder, file))));
    }
    Written { text, secrets }
}

/// A peer as the server writes routes. A name behind `dns://` stands for all addresses that it has.
fn routes(peer: &str, user: Option<&(String, String)>) -> Vec<String> {
    let (scheme, rest) = peer.trim().split_once("://").unwrap_or(("nats-route", peer.trim()));
    let rest = rest.split(['?', '/']).next().unwrap_or_default();
    let (login, host) = match rest.rsplit_once('@') {
        Some((login, host)) => (Some(login.to_owned()), host),
        None => (user.map(|(name, password)| format!("{}:{}", escaped(name), escaped(password))), rest),
    };
    let login = login.map(|login| format!("{login}@")).unwrap_or_default();
    let one = |host: &str| format!("nats-route://{login}{host}");
    if scheme != "dns" {
        return vec![one(host)];
    }
    let found: Vec<String> =
        host.to_socket_addrs().map(|found| found.map(|at| one(&at.to_string())).collect()).unwrap_or_default();
    // A name that says nothing yet is left to the server, which asks again.
    if found.is_empty() { vec![one(host)] } else { found }
}

/// Whether only this machine can reach what listens there.
pub(super) fn is_local(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host).trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// The way from a folder to a file: the server looks for what it includes from the folder on, and nowhere else.
fn included(folder: &Path, file: &Path) -> String {
    let whole = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let up = whole(folder).components().filter(|part| matches!(part, Component::Normal(_))).count();
    let mut way = "../".repeat(up);
    way.push_str(whole(file).display().to_string().trim_start_matches('/'));
    way
}

fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '\r' => quoted.push_str("\\r"),
            letter => quoted.push(letter),
        }
    }
    quoted.push('"');
    quoted
}

/// As an address writes what may mean something in it.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_become_routes() {
        let user = ("bob".to_owned(), "p@ss".to_owned());
        for (peer, user, expected) in [
            ("nats://h:4248", None, "nats-route://h:4248"),
            ("h:4248", None, "nats-route://h:4248"),
            (" tls://h:1 ", None, "nats-route://h:1"),
            ("nats://h:4248", Some(&user), "nats-route://bob:p%40ss@h:4248"),
            ("nats://a:b@h:4248", Some(&user), "nats-route://a:b@h:4248"),
            ("dns://127.0.0.1:4248/?min=3&interval_ms=10", None, "nats-route://127.0.0.1:4248"),
            ("dns://no-such-host.invalid:4248", None, "nats-route://no-such-host.invalid:4248"),
        ] {
            assert_eq!(routes(peer, user), [expected], "{peer}");
        }
    }

    #[test]
    fn x09_what_is_open_to_others_is_known() {
        for local in ["127.0.0.1:4222", "localhost:-1", "[::1]:4222", "127.8.8.8:1"] {
            assert!(is_local(local), "{local}");
        }
        for open in ["0.0.0.0:4222", ":4222", "[::]:4222", "example.org:4222"] {
            assert!(!is_local(open), "{open}");
        }
    }

    #[test]
    fn x07_the_users_own_has_the_last_word_and_no_secret_is_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("own.conf");
        std::fs::write(&own, "debug: true\n").unwrap();
        let managed = Managed {
            server_config: Some(own.clone()),
            user: Some(("b\"ob".to_owned(), "\\".to_owned())),
            cluster_addr: "127.0.0.1:4248".to_owned(),
            cluster_peers: vec!["nats://127.0.0.1:4249".to_owned()],
            ..Managed::default()
        };
        let Written { text, secrets } = write(&managed, folder.path(), "name", "127.0.0.1:-1");
        let last = text.lines().last().unwrap();
        let way = last.strip_prefix("include \"").and_then(|rest| rest.strip_suffix('"')).unwrap();
        assert_eq!(folder.path().join(way).canonicalize().unwrap(), own.canonicalize().unwrap());
        assert!(text.contains("authorization { user: \"b\\\"ob\", password: $NATS_SECRET_0 }"), "{text}");
        assert!(text.contains("  routes: [$NATS_SECRET_1]"), "{text}");
        let secrets: Vec<&str> = secrets.iter().map(|(_, value)| value.as_str()).collect();
        assert_eq!(secrets, ["\"\\\\\"", "\"nats-route://b%22ob:%5C@127.0.0.1:4249\""]);
    }
}
