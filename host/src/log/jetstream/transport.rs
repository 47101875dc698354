//! Whether anybody on the way can read and write what nodes send.

use super::login::Login;
use async_nats::{ServerAddr, ServerInfo};
use std::net::IpAddr;

/// What the fault goes by.
pub(super) const SUBJECT: &str = "transport";

/// What is wrong with a connection that was made, in words.
pub(super) fn fault(info: &ServerInfo, addresses: &[ServerAddr], login: &Login) -> Option<String> {
    let encrypted = login.require_tls || info.tls_required || addresses.iter().all(ServerAddr::tls_required);
    // Our address as the server sees it: on one machine it is a loopback one.
    let here = info.client_ip.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    (!encrypted && !login.is_given() && !here).then(|| {
        "the connection to NATS goes to another machine in plain text and without a login: whoever is on the way, or can \
         reach the server, reads and changes all rows; give the server TLS and users, and set `ca_file`, a login and \
         `require_tls = true` under `[nats]`"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_fault(ip: &str, url: &str, tls: bool, login: &Login) -> bool {
        let info = ServerInfo { client_ip: ip.to_owned(), tls_required: tls, ..ServerInfo::default() };
        fault(&info, &[url.parse().unwrap()], login).is_some()
    }

    #[test]
    fn x10_plain_text_without_a_login_is_a_fault_beyond_this_machine() {
        let plain = &Login::default();
        assert!(is_fault("192.0.2.7", "nats://h", false, plain));
        assert!(is_fault("2001:db8::7", "nats://h", false, plain));
        assert!(is_fault("", "nats://h", false, plain), "a server that does not tell may be anywhere");
        assert!(!is_fault("127.0.0.1", "nats://h", false, plain));
        assert!(!is_fault("::1", "nats://h", false, plain));
        assert!(!is_fault("192.0.2.7", "tls://h", false, plain));
        assert!(!is_fault("192.0.2.7", "nats://h", true, plain));
        let named = Login { user: Some(("a".to_owned(), "b".to_owned())), ..Login::default() };
        assert!(!is_fault("192.0.2.7", "nats://h", false, &named));
    }
}
