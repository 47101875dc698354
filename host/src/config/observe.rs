//! What the program tells about itself: log lines, metrics, health.

use super::section::section;

section! {
    /// What is written to stderr.
    Logging at "logging" {
        /// Tell each batch as well, not only the life cycle.
        verbose: bool = false,
        /// `console` for people, `json` for machines (one object a line).
        format: String = "console".to_owned(),
    }
}

section! {
    /// Metrics for Prometheus.
    Prometheus at "prometheus" {
        /// Serve metrics.
        enable: bool = false,
        /// Where, as `host:port`. HarmonyLite listens on all interfaces; here a host that is not named is 127.0.0.1.
        bind: String = "127.0.0.1:3010".to_owned(),
        /// First part of each metric's name.
        namespace: String = "harmonylite".to_owned(),
        /// Second part of each metric's name, if any.
        subsystem: String = String::new(),
    }
}

section! {
    /// A page that says whether this node is well.
    HealthCheck at "health_check" {
        /// Serve the page.
        enable: bool = false,
        /// Where, as `host:port`. HarmonyLite listens on all interfaces; here a host that is not named is 127.0.0.1.
        bind: String = "127.0.0.1:8090".to_owned(),
        /// Path of the page.
        path: String = "/health".to_owned(),
        /// Answer with the particulars as JSON, not only with the status code.
        detailed: bool = true,
    }
}
