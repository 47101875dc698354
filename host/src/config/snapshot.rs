//! When snapshots are taken and where they are kept.

use std::path::PathBuf;

use super::secret::{Secret, Url};
use super::section::section;
use super::size::Size;

section! {
    /// Snapshots bring back a node that is new or was away for too long.
    Snapshot at "snapshot" {
        /// Take snapshots, and restore from them.
        enabled: bool = true,
        /// Milliseconds between two snapshots. 0: as `time_threshold_secs` says.
        interval: u64 = 0,
        /// The same in seconds. 0: by the number of entries only.
        time_threshold_secs: u64 = 0,
        /// After so many entries of the log, over all shards. 0: by time only.
        log_threshold: u64 = 0,
        /// Milliseconds after which the node that takes the snapshots is taken for gone. 0: 30000.
        leader_ttl: u64 = 0,
        /// Where they are kept: `nats`, `s3`, `webdav`, `sftp`, `file`, or `plugin:NAME` for a `[plugin.NAME]`.
        /// Empty: `nats` where servers are named under `[nats]`, else `file`.
        store: String = String::new(),
        /// How they are compressed: `zstd`, `gzip`, `brotli`, `lz4` or `none`.
        compression: String = "zstd".to_owned(),
        /// How hard. 0: as is usual for that.
        compression_level: i32 = 0,
        /// How many of the newest stay. 0: as `last` under `[snapshot.keep]` says.
        retention_count: u32 = 0,
        /// Milliseconds for which one stays readable that was forgotten.
        prune_grace: u64 = 86_400_000,
        /// How many objects are sent or fetched at once.
        parallel: u32 = 4,
        /// Most bytes a second that are sent and fetched. 0: as many as there are.
        bandwidth: Size = Size(0),
    }
    tables {
        /// Which snapshots stay; the others are forgotten after each new one.
        keep: SnapshotKeep,
        /// Snapshots in a NATS object store.
        nats: SnapshotNats,
        /// Snapshots in S3.
        s3: SnapshotS3,
        /// Snapshots on a WebDAV server.
        webdav: SnapshotWebdav,
        /// Snapshots on an SFTP server.
        sftp: SnapshotSftp,
        /// Snapshots in a folder.
        file: SnapshotFile,
    }
}

section! {
    /// Which snapshots stay, by any of these. A week begins on Monday; times are in UTC.
    SnapshotKeep at "snapshot.keep" {
        /// The newest ones.
        last: u32 = 7,
        /// The newest of each of so many hours that have one.
        hourly: u32 = 24,
        /// The same for days.
        daily: u32 = 7,
        /// The same for weeks.
        weekly: u32 = 4,
        /// The same for months.
        monthly: u32 = 6,
        /// Milliseconds: all that are younger.
        within: u64 = 0,
        /// All that have one of these tags.
        tags: Vec<String> = Vec::new(),
        /// Never fewer that were found whole.
        verified: u32 = 2,
    }
}

section! {
    /// With `store = "nats"`.
    SnapshotNats at "snapshot.nats" {
        /// How many servers keep a copy.
        replicas: u32 = 1,
        /// Name of the bucket. Empty: `<stream_prefix>-snapshot-store`.
        bucket: String = String::new(),
    }
}

section! {
    /// With `store = "s3"`.
    SnapshotS3 at "snapshot.s3" {
        /// Folder within the bucket.
        path: String = String::new(),
        /// Host of the service, with its port if it needs one.
        endpoint: String = String::new(),
        /// Name of the key to log in with.
        access_key: Secret = Secret::default(),
        /// The key itself.
        secret: Secret = Secret::default(),
        /// Token of a session, if the key belongs to one.
        session_token: Secret = Secret::default(),
        /// Name of the bucket.
        bucket: String = String::new(),
        /// Speak HTTPS.
        use_ssl: bool = false,
    }
}

section! {
    /// With `store = "webdav"`.
    SnapshotWebdav at "snapshot.webdav" {
        /// Address of the server, with `dir`, `login` and `secret` in its query.
        url: Url = Url::default(),
    }
}

section! {
    /// With `store = "sftp"`.
    SnapshotSftp at "snapshot.sftp" {
        /// Address of the folder, as `sftp://user:password@host:22/path`. `/~/path` begins where a login begins.
        url: Url = Url::default(),
        /// The password, if it is not in `url`; `${file:PATH}` reads it from a file.
        password: Secret = Secret::default(),
        /// File of a private key to log in with.
        key_file: PathBuf = PathBuf::new(),
        /// What opens that, if it is protected.
        passphrase: Secret = Secret::default(),
        /// Ask the agent at `SSH_AUTH_SOCK` for keys.
        agent: bool = false,
        /// File of the servers' keys that are known. Empty: `~/.ssh/known_hosts` and `/etc/ssh/ssh_known_hosts`. A server
        /// that is not known is refused.
        known_hosts: PathBuf = PathBuf::new(),
    }
}

section! {
    /// With `store = "file"`.
    SnapshotFile at "snapshot.file" {
        /// The folder. It is made if it is not there. Empty: `snapshots` in the directory of the embedded log.
        path: PathBuf = PathBuf::new(),
    }
}
