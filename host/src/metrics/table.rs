//! The one table of all metrics: names, kinds, labels and words. What is served, the page of the guide, the rules and the
//! dashboard under `examples/monitoring` are made from it or compared with it.

use Kind::{Counter, Gauge, Histogram};

/// How a metric behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only grows while the process lives.
    Counter,
    /// It goes up and down.
    Gauge,
    /// How long something took, in microseconds, sorted into [`MICROSECONDS`].
    Histogram,
}

impl Kind {
    /// As Prometheus calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Counter => "counter",
            Gauge => "gauge",
            Histogram => "histogram",
        }
    }
}

/// Upper bounds of a histogram's buckets: from what a look costs to what an application would notice.
pub const MICROSECONDS: &[f64] = &[
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1_000.0,
    2_500.0,
    5_000.0,
    10_000.0,
    25_000.0,
    50_000.0,
    100_000.0,
    250_000.0,
    1_000_000.0,
];

/// One metric.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Its name, without namespace and subsystem.
    pub name: &'static str,
    /// How it behaves.
    pub kind: Kind,
    /// Its labels, besides `node_id`.
    pub labels: &'static [&'static str],
    /// What it means, line by line.
    pub about: &'static [&'static str],
}

impl Metric {
    /// What it means, on one line.
    #[must_use]
    pub fn help(&self) -> String {
        self.about.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
    }
}

macro_rules! table {
    ($( $(#[doc = $about:literal])* $id:ident = $kind:ident $name:literal $([$($label:literal),*])?; )*) => {
        /// Which metric.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Id { $( $(#[doc = $about])* $id, )* }

        /// All metrics, in the order of [`Id`].
        pub const TABLE: &[Metric] =
            &[$( Metric { name: $name, kind: $kind, labels: &[$($($label),*)?], about: &[$($about),*] }, )*];
    };
}

table! {
    /// Changes written here that came back from the log: from then on every node has them or will.
    Published = Counter "published";
    /// Changes written here that have not come back from the log: rows that are marked, and those in batches. More than
    /// 1,000 batches are counted by the size of those before.
    PendingPublish = Gauge "pending_publish";
    /// Microseconds that a look for changes took.
    CountChanges = Histogram "count_changes";
    /// Microseconds that it took to read changed rows and put them into batches, in one transaction.
    ScanChanges = Histogram "scan_changes";
    /// 1 while a shard waits because a table or a column is not here.
    SchemaMismatchPaused = Gauge "schema_mismatch_paused";

    /// Batches that the log took from this node.
    PublishedBatches = Counter "published_batches";
    /// Bytes of these batches, as they travelled.
    PublishedBytes = Counter "published_bytes";
    /// Changes of other nodes that were applied here.
    Applied = Counter "applied";
    /// Entries of the log that were dealt with here, this node's own among them.
    AppliedEntries = Counter "applied_entries";
    /// Bytes of these entries.
    AppliedBytes = Counter "applied_bytes";
    /// Tries to send that failed.
    PublishErrors = Counter "publish_errors";
    /// Tries to read the log or to apply it that failed.
    ApplyErrors = Counter "apply_errors";
    /// When the newest change of this node came into the log, in seconds since 1970; 0: none since the start.
    LastPublished = Gauge "last_published_timestamp_seconds";
    /// When the newest applied change of another node came into the log, in seconds since 1970; 0: none since the start.
    LastReplicated = Gauge "last_replicated_timestamp_seconds";

    /// Where this node stands in a shard: the last entry that was applied.
    Position = Gauge "position" ["shard"];
    /// The newest entry of a shard.
    LogEnd = Gauge "log_end" ["shard"];
    /// Entries of a shard that were not applied yet.
    LagEntries = Gauge "lag_entries" ["shard"];
    /// Changes in these entries; beyond the first 4 MiB they are reckoned from those before.
    LagChanges = Gauge "lag_changes" ["shard"];
    /// How long the oldest of these entries has been in the log.
    LagSeconds = Gauge "lag_seconds" ["shard"];
    /// 1 while a shard can't go on: it waits for something that only a user can change, or meets errors.
    ShardStopped = Gauge "shard_stopped" ["shard"];
    /// 1 if the log answered when it was asked last.
    LogReachable = Gauge "log_reachable";
    /// Nodes that take part, by whether they are `here`, `away` or `left`.
    Members = Gauge "members" ["state"];

    /// Batches in the database, those that are only kept among them.
    OutboxBatches = Gauge "outbox_batches";
    /// Their bytes.
    OutboxBytes = Gauge "outbox_bytes";
    /// How old the oldest of them is.
    OutboxAge = Gauge "outbox_oldest_seconds";
    /// Bytes of batches that have not come back from the log.
    PendingBytes = Gauge "pending_bytes";
    /// How long the oldest of them has waited.
    PendingSeconds = Gauge "pending_seconds";

    /// Clashes since the start, by the policy that was asked, its verdict and what clashed.
    Clashes = Counter "clashes" ["policy", "verdict", "cause"];
    /// Records of clashes in the database.
    ClashRecords = Gauge "clash_records" ["policy", "verdict", "cause"];

    /// Calls into a plugin. `kind` is `resolver`, `hasher` or `storage`.
    PluginCalls = Counter "plugin_calls" ["plugin", "kind"];
    /// Calls that failed: a trap, a limit, an answer that makes no sense; of a storage also what it could not do.
    PluginFailures = Counter "plugin_failures" ["plugin", "kind"];
    /// Fuel that a plugin used: instructions, and what the host does for it. Storages are bounded by time alone.
    PluginFuel = Counter "plugin_fuel" ["plugin", "kind"];
    /// Seconds spent in a plugin.
    PluginSeconds = Counter "plugin_seconds" ["plugin", "kind"];

    /// Snapshots that this node made.
    SnapshotsSaved = Counter "snapshots_saved";
    /// Snapshots that this node could not make.
    SnapshotsFailed = Counter "snapshots_failed";
    /// Snapshots in the store.
    Snapshots = Gauge "snapshots";
    /// How old the newest snapshot is, whoever made it. `kind` is `full`, of all rows, or `any`.
    SnapshotAge = Gauge "snapshot_age_seconds" ["kind"];
    /// How long the newest snapshot of all rows took.
    SnapshotDuration = Gauge "snapshot_duration_seconds";
    /// Bytes of its database.
    SnapshotSize = Gauge "snapshot_size_bytes";
    /// Bytes of it in the store.
    SnapshotStored = Gauge "snapshot_stored_bytes";
    /// How many times smaller it is there.
    SnapshotRatio = Gauge "snapshot_ratio";
    /// Snapshots that are not what was put there.
    SnapshotsDamaged = Gauge "snapshots_damaged";
    /// How long ago a snapshot was last found whole; `+Inf` if there are some and none was.
    SnapshotVerifiedAge = Gauge "snapshot_verified_age_seconds";
    /// How long ago a snapshot was last put together and read by SQLite, on trial; `+Inf` if there are some and none was.
    SnapshotRestoredAge = Gauge "snapshot_restored_age_seconds";
    /// 1 while the task that makes snapshots runs here.
    SnapshotLoopRunning = Gauge "snapshot_loop_running";
    /// 1 while it is this node that makes the snapshots nobody asked for.
    SnapshotLeader = Gauge "snapshot_leader";
    /// The share of the newest snapshots due by time that came in time: 1 is all of them; `NaN` if none was due.
    SnapshotOnTime = Gauge "snapshot_on_time_ratio";
    /// Entries of a shard that are not in the archive yet.
    ArchiveLag = Gauge "archive_lag_entries" ["shard"];
    /// How long ago a shard was archived up to its end at that time; 0 while it is.
    ArchiveLagSeconds = Gauge "archive_lag_seconds" ["shard"];
    /// Stretches of the log that were cut before they were archived: no point in them can be reached.
    ArchiveHoles = Gauge "archive_holes";
    /// Seconds of processor time for snapshots and the archive. `job` is `full` and `incremental` for snapshots that are made,
    /// `archive` for the log that is archived, `tidying` for what is forgotten, merged and removed, `verifying` for trials.
    SnapshotJobCpu = Counter "snapshot_job_cpu_seconds" ["job"];
    /// Bytes that these jobs stored.
    SnapshotJobStored = Counter "snapshot_job_stored_bytes" ["job"];
    /// Bytes on the disk that the last of them took meanwhile, if such a job takes any.
    SnapshotJobScratch = Gauge "snapshot_job_scratch_bytes" ["job"];
    /// Bytes on the disk that the next snapshot takes while it is made, if this node makes it.
    SnapshotScratchNeeded = Gauge "snapshot_scratch_needed_bytes";
    /// Bytes that it may have there.
    SnapshotScratchFree = Gauge "snapshot_scratch_free_bytes";
    /// The share of its room that a shard of the log has used, where `log_bytes_max` bounds it: 1 is all of it.
    LogUsed = Gauge "log_used_ratio" ["shard"];
    /// Times that the store of snapshots could not be listed.
    StorageErrors = Counter "storage_errors";

    /// Bytes of the database's file.
    DatabaseBytes = Gauge "database_bytes";
    /// Bytes of its write-ahead log.
    WalBytes = Gauge "wal_bytes";
    /// Bytes that are free on its disk, for this user.
    DiskFree = Gauge "disk_free_bytes";
    /// Files that can still be made there.
    DiskFreeFiles = Gauge "disk_free_files";
    /// Tables that are replicated.
    Tables = Gauge "tables";
    /// Tables that can't be replicated.
    TablesRefused = Gauge "tables_refused";

    /// 1 if this node is well, as its health page says.
    Healthy = Gauge "healthy";
    /// 1 for each thing that is wrong, by its name there.
    Condition = Gauge "condition" ["what"];
    /// Alerts that reached nobody.
    AlertErrors = Counter "alert_errors";

    /// The version of the program.
    BuildInfo = Gauge "build_info" ["version"];
    /// Seconds since this node began to replicate.
    Uptime = Gauge "uptime_seconds";
    /// Bytes of memory that the process has.
    Resident = Gauge "process_resident_memory_bytes";
    /// Seconds of processor time that it used.
    Cpu = Counter "process_cpu_seconds";
    /// Files and connections that it has open.
    Descriptors = Gauge "process_open_fds";
    /// How many it may have open.
    DescriptorsMax = Gauge "process_max_fds";
    /// Its threads.
    Threads = Gauge "process_threads";
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_names_and_words_are_there() {
        let mut names = BTreeSet::new();
        for metric in TABLE {
            assert!(names.insert(metric.name), "{} stands twice", metric.name);
            let letters = |name: &str| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
            assert!(letters(metric.name) && metric.labels.iter().all(|label| letters(label)), "{}", metric.name);
            assert!(metric.help().ends_with('.'), "{}", metric.name);
            assert!(!metric.labels.contains(&"node_id"), "{} has it anyway", metric.name);
        }
    }

    /// HarmonyLite's, which dashboards know.
    #[test]
    fn the_known_names_are_there() {
        let kind = |name: &str| TABLE.iter().find(|metric| metric.name == name).map(|metric| metric.kind);
        assert_eq!(kind("published"), Some(Counter));
        assert_eq!(kind("pending_publish"), Some(Gauge));
        assert_eq!(kind("count_changes"), Some(Histogram));
        assert_eq!(kind("scan_changes"), Some(Histogram));
        assert_eq!(kind("schema_mismatch_paused"), Some(Gauge));
    }
}
