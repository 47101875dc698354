//! What the program tells about itself: log lines, metrics, health, alerts.

use std::path::PathBuf;

use super::secret::Secret;
use super::section::section;
use super::size::Size;

section! {
    /// What is written to stderr.
    Logging at "logging" {
        /// Tell each batch as well, not only the life cycle.
        verbose: bool = false,
        /// Which lines, as `warn`, or by module, as `info,antiphon::publish=debug`. Empty: as `verbose` says. The variables
        /// `ANTIPHON_LOG` and `RUST_LOG` come before it.
        level: String = String::new(),
        /// `console` for people, `json` for machines (one object a line).
        format: String = "console".to_owned(),
    }
}

section! {
    /// Metrics for Prometheus.
    Prometheus at "prometheus" {
        /// Serve metrics.
        enable: bool = false,
        /// Where, as `host:port`. HarmonyLite listens on all interfaces; here a host that is not named is 127.0.0.1. If it
        /// is the address of `[health_check]`, one server has both, and metrics are at `/metrics`; else at any path.
        bind: String = "127.0.0.1:3010".to_owned(),
        /// First part of each metric's name.
        namespace: String = "harmonylite".to_owned(),
        /// Second part of each metric's name, if any.
        subsystem: String = String::new(),
    }
}

section! {
    /// Whether this node is well, for load balancers and supervisors, and a page for people to look at.
    HealthCheck at "health_check" {
        /// Serve both.
        enable: bool = false,
        /// Where, as `host:port`. HarmonyLite listens on all interfaces; here a host that is not named is 127.0.0.1.
        bind: String = "127.0.0.1:8090".to_owned(),
        /// Path of the answer, which is 200 or 503. `/livez` and `/readyz` beside it are for supervisors.
        path: String = "/health".to_owned(),
        /// Answer with the particulars as JSON, not only with the status code.
        detailed: bool = true,
        /// Serve the page for people, at `/`.
        page: bool = true,
        /// Names, besides addresses, `localhost` and the host in `bind`, under which the page may be asked for. A browser
        /// that comes by any other name was led here by somebody else's page.
        hosts: Vec<String> = Vec::new(),
        /// Milliseconds for which the log may be out of reach before this node is not well.
        log_grace: u64 = 30_000,
        /// Milliseconds that a change may be on its way, in either direction, before this node is not well.
        lag_max: u64 = 60_000,
        /// With less room than this on the disk of the database the node is not well.
        disk_free_min: Size = Size(128 << 20),
        /// Milliseconds since a snapshot was last found whole, when it was made or by `antiphon snapshot verify`, after which
        /// this node is not well. 0: that it was once is enough.
        snapshot_verified_within: u64 = 0,
    }
}

section! {
    /// Who is told when something is wrong with this node, and when it no longer is. Each condition is told once.
    Alerts at "alerts" {
        /// Address that gets a POST with JSON, as `https://host/path`, or `${file:PATH}`. Empty: none.
        webhook: Secret = Secret::default(),
        /// Token that goes with it, as `Authorization: Bearer`.
        token: Secret = Secret::default(),
        /// Certificates of those who sign the server's, as PEM, besides those whom the system trusts.
        ca_file: PathBuf = PathBuf::new(),
        /// Program and arguments to run; it gets the same JSON on stdin. Empty: none.
        command: Vec<String> = Vec::new(),
    }
}
