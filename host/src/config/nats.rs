//! The NATS servers that carry the log between machines.

use std::path::PathBuf;

use super::secret::{Secret, Url};
use super::section::section;

section! {
    /// NATS JetStream, which carries the log between machines.
    Nats at "nats" {
        /// Addresses of the servers, as `nats://host:4222`. Empty: the embedded log of `[log]`.
        urls: Vec<Url> = Vec::new(),
        /// Subjects are named `<subject_prefix>-<shard>`.
        subject_prefix: String = "harmonylite-change-log".to_owned(),
        /// Streams are named `<stream_prefix>-<shard>`.
        stream_prefix: String = "harmonylite-changes".to_owned(),
        /// A configuration file for an embedded NATS server.
        server_config: PathBuf = PathBuf::new(),
        /// File with the NKEY seed to log in with.
        seed_file: PathBuf = PathBuf::new(),
        /// Name to log in with.
        user_name: String = String::new(),
        /// Password to log in with.
        user_password: Secret = Secret::default(),
        /// Certificates that servers are checked against.
        ca_file: PathBuf = PathBuf::new(),
        /// Our certificate, for servers that ask for one.
        cert_file: PathBuf = PathBuf::new(),
        /// The key of our certificate.
        key_file: PathBuf = PathBuf::new(),
        /// Where an embedded NATS server listens, as `host:port`; port -1 is any free one.
        /// HarmonyLite listens on all interfaces; here a host that is not named is 127.0.0.1.
        bind_address: String = "127.0.0.1:-1".to_owned(),
        /// Refuse to speak with a server without TLS.
        require_tls: bool = false,
        /// File with a JWT and its seed to log in with.
        creds_file: PathBuf = PathBuf::new(),
        /// How many times a start tries to connect before it says that it waits. It never gives up.
        connect_retries: i32 = 5,
        /// Seconds between two tries.
        reconnect_wait_seconds: u32 = 2,
    }
}
