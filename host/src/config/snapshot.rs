//! When snapshots are taken and where they are kept.

use std::path::PathBuf;

use super::expand;
use super::secret::{Secret, Url};
use super::section::section;
use super::size::Size;
use crate::failure::Failure;

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
        /// After so many bytes of the log, as this node has read them since the last one of all rows. 0: not by them.
        log_bytes_threshold: Size = Size(0),
        /// When the database has grown by so many bytes since the last one of all rows. 0: not by them.
        growth_threshold: Size = Size(0),
        /// Times at which one is made, in UTC, as cron writes them: `30 3 * * *` is every day at half past three.
        cron: String = String::new(),
        /// Milliseconds after which the next one is made of what changed, and not of all rows. 0: by the number of entries only.
        incremental_interval: u64 = 900_000,
        /// The same after so many entries of the log. 0: by time only; with both 0 all are of all rows.
        incremental_threshold: u64 = 10_000,
        /// By so many hundredths at most an interval is longer, each time by others: so not all clusters begin at once.
        jitter: u32 = 5,
        /// None is made by itself while this node has not applied so many entries of the log. 0: whatever it lacks.
        lag_max: u64 = 10_000,
        /// Most bytes that one may take on the disk while it is made. 0: as many as are free.
        scratch_max: Size = Size(0),
        /// Databases of this user on this machine of which one is made by itself at once. 0: any number.
        max_concurrent: u32 = 0,
        /// Most bytes of the log in one segment of the archive, before they are compressed.
        archive_bytes: Size = Size(4 << 20),
        /// Most entries of the log in one segment.
        archive_entries: u32 = 10_000,
        /// Milliseconds that an entry of the log waits for others before it is archived.
        archive_interval: u64 = 10_000,
        /// Milliseconds whose segments become one when they are over. 0: they stay as they are.
        merge_short: u64 = 3_600_000,
        /// The same for what came of that.
        merge_long: u64 = 86_400_000,
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
        /// For so many milliseconds back any point in time can be reached; before that, points where a snapshot stands. 0: as
        /// far back as snapshots lead, and so with `retention_count`.
        pitr_window: u64 = 604_800_000,
        /// Milliseconds after which a snapshot of all rows gets the `archive_class` of `[snapshot.s3]`. 0: never; the newest one
        /// does not, however old it is.
        archive_after: u64 = 0,
        /// Milliseconds after which the newest snapshot of all rows is put together on trial, and read by SQLite, by the node that
        /// makes them: since one last was, by that or by `antiphon snapshot verify --level restore`. 0: never.
        verify_interval: u64 = 604_800_000,
        /// How many objects are packed, sent or fetched at once, each by a thread of its own.
        parallel: u32 = 4,
        /// Most bytes of memory for these objects, 16 MiB each; fewer of them are on their way then. 0: as many as they take.
        memory_max: Size = Size(0),
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
        /// Address of the service, as `https://host:port` or `host:port`. Empty: AWS.
        endpoint: String = String::new(),
        /// Name of the key to log in with.
        access_key: Secret = Secret::default(),
        /// The key itself.
        secret: Secret = Secret::default(),
        /// Token of a session, if the key belongs to one.
        session_token: Secret = Secret::default(),
        /// Name of the bucket.
        bucket: String = String::new(),
        /// Speak HTTPS, where `endpoint` does not say which.
        use_ssl: bool = false,
        /// Region of the bucket. Empty: `us-east-1`, and what the service says then.
        region: String = String::new(),
        /// Name the bucket in the path. false: in the host, as `bucket.host`.
        force_path_style: bool = true,
        /// Log in with nothing, whatever the environment has.
        anonymous: bool = false,
        /// Class of what is put, as `STANDARD_IA`. Empty: what is usual for the bucket.
        storage_class: String = String::new(),
        /// The class that snapshots get after `archive_after`, as `GLACIER_IR`: one whose objects can be read at once.
        archive_class: String = String::new(),
        /// Certificates of those who sign the service's, as PEM, besides those whom the system trusts.
        ca_file: PathBuf = PathBuf::new(),
        /// Let the name in `endpoint` lead to a private network or to this machine. An address there needs no leave.
        private_networks: bool = false,
    }
}

section! {
    /// With `store = "webdav"`.
    SnapshotWebdav at "snapshot.webdav" {
        /// Address of the server, with `dir`, `login` and `secret` in its query.
        url: Url = Url::default(),
        /// Token to log in with, instead of `login` and `secret`.
        token: Secret = Secret::default(),
        /// Certificates of those who sign the server's, as PEM, besides those whom the system trusts.
        ca_file: PathBuf = PathBuf::new(),
        /// Let the name in `url` lead to a private network or to this machine. An address there needs no leave.
        private_networks: bool = false,
    }
}

/// What is set, as a component is told it; secrets are brought from where they stand.
fn told(section: &str, all: Vec<(&str, String)>) -> Result<Vec<(String, String)>, Failure> {
    all.into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| Ok((name.to_owned(), expand(&format!("{section}.{name}"), &value)?)))
        .collect()
}

impl SnapshotS3 {
    /// What the component `s3` is told.
    ///
    /// # Errors
    /// When a secret is not where it is said to be.
    pub fn settings(&self) -> Result<Vec<(String, String)>, Failure> {
        let all = vec![
            ("path", self.path.clone()),
            ("endpoint", self.endpoint.clone()),
            ("access_key", self.access_key.reveal().to_owned()),
            ("secret", self.secret.reveal().to_owned()),
            ("session_token", self.session_token.reveal().to_owned()),
            ("bucket", self.bucket.clone()),
            ("use_ssl", self.use_ssl.to_string()),
            ("region", self.region.clone()),
            ("force_path_style", self.force_path_style.to_string()),
            ("anonymous", self.anonymous.to_string()),
            ("storage_class", self.storage_class.clone()),
            ("ca_file", self.ca_file.display().to_string()),
        ];
        told("snapshot.s3", all)
    }
}

impl SnapshotWebdav {
    /// What the component `webdav` is told.
    ///
    /// # Errors
    /// When a secret is not where it is said to be.
    pub fn settings(&self) -> Result<Vec<(String, String)>, Failure> {
        let all = vec![
            ("url", self.url.reveal().to_owned()),
            ("token", self.token.reveal().to_owned()),
            ("ca_file", self.ca_file.display().to_string()),
        ];
        told("snapshot.webdav", all)
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
