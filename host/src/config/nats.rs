//! The NATS servers that carry the log between machines.

use std::path::PathBuf;

use super::secret::{Secret, Url};
use super::section::section;

section! {
    /// NATS JetStream, which carries the log between machines.
    Nats at "nats" {
        /// Addresses of the servers, as `nats://host:4222`. Empty: if anything else is said in this section a server is
        /// started here, else the embedded log of `[log]` holds.
        urls: Vec<Url> = Vec::new(),
        /// Subjects are named `<subject_prefix>-<shard>`.
        subject_prefix: String = "harmonylite-change-log".to_owned(),
        /// Streams are named `<stream_prefix>-<shard>`.
        stream_prefix: String = "harmonylite-changes".to_owned(),
        /// Start a NATS server on this machine, which ends with this node. It holds by itself where this section says
        /// anything and names no `urls`.
        start_server: bool = false,
        /// The program of the server that is started. Empty: `nats-server` on the `PATH`.
        nats_server: PathBuf = PathBuf::new(),
        /// A configuration file of the server that is started, besides what is set here: where both say something, it wins.
        server_config: PathBuf = PathBuf::new(),
        /// File with the NKEY seed to log in with.
        seed_file: PathBuf = PathBuf::new(),
        /// Name to log in with.
        user_name: String = String::new(),
        /// Password to log in with; `${file:PATH}` is what stands in a file, `${env:NAME}` in a variable.
        user_password: Secret = Secret::default(),
        /// Certificates that servers are checked against.
        ca_file: PathBuf = PathBuf::new(),
        /// Our certificate, for servers that ask for one.
        cert_file: PathBuf = PathBuf::new(),
        /// The key of our certificate.
        key_file: PathBuf = PathBuf::new(),
        /// Where the server that is started reaches others of its cluster, as `host:port`. Empty: it is alone.
        cluster_addr: String = String::new(),
        /// The others' `cluster_addr`, as `nats://host:4248`; `dns://name:4248` stands for all addresses of a name.
        cluster_peers: Vec<Url> = Vec::new(),
        /// Where the server that is started listens, as `host:port`; port -1 is any free one.
        /// HarmonyLite listens on all interfaces; here a host that is not named is 127.0.0.1.
        bind_address: String = "127.0.0.1:-1".to_owned(),
        /// Refuse to speak with a server without TLS.
        require_tls: bool = false,
        /// Pages on which the servers tell about themselves, as `http://host:8222`, one a server. Without them it is not
        /// known whether what they acknowledge has reached a disk.
        nats_monitor: Vec<Url> = Vec::new(),
        /// Refuse servers that acknowledge what they have not synced to their disks.
        strict_durability: bool = false,
        /// File with a JWT and its seed to log in with.
        creds_file: PathBuf = PathBuf::new(),
        /// How many times a start tries to connect before it says that it waits. It never gives up.
        connect_retries: i32 = 5,
        /// Seconds between two tries.
        reconnect_wait_seconds: u32 = 2,
    }
}
