//! By which name this node was asked for.
//!
//! A page of somebody else's can have its own name lead to this machine and then read, from a browser that runs here, what
//! only this machine may see. The browser says which name it followed, and that name is not one of ours.

use std::net::IpAddr;

/// The names by which the page may be asked for.
#[derive(Clone, Debug, Default)]
pub(super) struct Names(Vec<String>);

impl Names {
    /// The host of an address, and these.
    pub(super) fn of(bind: &str, hosts: &[String]) -> Self {
        let own = host_of(bind).map(str::to_owned);
        Self(own.into_iter().chain(hosts.iter().cloned()).map(|name| plain(&name)).collect())
    }

    /// Whether this is one of them. An address is no name, and leads nowhere else.
    pub(super) fn hold(&self, host: &str) -> bool {
        let Some(host) = host_of(host) else { return false };
        let literal = host.trim_start_matches('[').trim_end_matches(']');
        literal.parse::<IpAddr>().is_ok() || plain(host) == "localhost" || self.0.contains(&plain(host))
    }
}

fn plain(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

/// The host of `host:port`, `[address]:port` or either without a port.
fn host_of(text: &str) -> Option<&str> {
    let end = match text.strip_prefix('[') {
        Some(rest) => rest.find(']')? + 2,
        None => text.rfind(':').unwrap_or(text.len()),
    };
    let (host, port) = (text.get(..end)?, text.get(end..)?);
    let digits = port.strip_prefix(':').unwrap_or(port);
    (!host.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())).then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(host: &str, held: bool) {
        let names = Names::of("node1.example.org:8090", &["Status.example.org".to_owned()]);
        assert_eq!(names.hold(host), held, "{host}");
    }

    #[test]
    fn x09_only_names_that_are_meant_are_answered() {
        for host in [
            "127.0.0.1:8090",
            "127.0.0.1",
            "[::1]:8090",
            "[::1]",
            "10.1.2.3",
            "localhost:8090",
            "LOCALHOST.",
            "node1.example.org:8090",
            "status.example.org",
        ] {
            check(host, true);
        }
        for host in [
            "",
            ":8090",
            "evil.example.org:8090",
            "localhost.evil.example.org",
            "127.0.0.1.evil.example.org",
            "127.0.0.1@evil.example.org",
            "example.org",
            "[::1",
            "[evil]",
            "localhost:x",
        ] {
            check(host, false);
        }
    }
}
