//! From the vitals to the gauges.

use super::table::Id;
use super::{Metrics, figure};
use crate::status::MemberState;
use crate::vitals::Vitals;

/// Sets what can be looked up to what was seen last.
pub fn show(metrics: &Metrics, vitals: &Vitals) {
    let set = |id: Id, value: f64| metrics.set(id, &[], value);
    let flag = |id: Id, on: bool| metrics.set(id, &[], f64::from(u8::from(on)));
    let seconds = |ms: u64| figure(ms) / 1000.0;
    let status = &vitals.status;

    let pending = &status.pending;
    set(Id::PendingPublish, figure(pending.marks + pending.changes.unwrap_or(0).max(pending.batches)));
    set(Id::PendingBytes, figure(pending.bytes));
    set(Id::PendingSeconds, pending.seconds.unwrap_or(0.0));
    set(Id::OutboxBatches, figure(status.outbox.batches));
    set(Id::OutboxBytes, figure(status.outbox.bytes));
    set(Id::OutboxAge, status.outbox.seconds.unwrap_or(0.0));
    flag(Id::SchemaMismatchPaused, vitals.schema_paused);
    set(Id::LastPublished, seconds(vitals.last_published_ms));
    set(Id::LastReplicated, seconds(vitals.last_replicated_ms));

    for shard in &status.shards {
        let label = shard.shard.to_string();
        let of_shard = |id: Id, value: f64| metrics.set(id, &[&label], value);
        of_shard(Id::Position, figure(shard.position));
        // What the log does not tell stays what it was; whether it answers is told besides.
        if let Some(end) = shard.end {
            let behind = shard.behind.clone().unwrap_or_default();
            of_shard(Id::LogEnd, figure(end));
            of_shard(Id::LagEntries, figure(behind.entries));
            of_shard(Id::LagChanges, figure(behind.changes.unwrap_or(0)));
            of_shard(Id::LagSeconds, behind.seconds);
        }
        let stopped = status.troubles.contains_key(&format!("shard {label}"));
        of_shard(Id::ShardStopped, f64::from(u8::from(stopped)));
    }
    flag(Id::LogReachable, vitals.log_connected);
    for (name, state) in [("here", MemberState::Here), ("away", MemberState::Away), ("left", MemberState::Left)] {
        let count = status.members.iter().filter(|member| member.state == state).count();
        metrics.set(Id::Members, &[name], figure(count as u64));
    }

    for clashes in &vitals.clashes {
        metrics.total(Id::Clashes, &[&clashes.resolver, &clashes.verdict, &clashes.cause], figure(clashes.count));
    }
    metrics.clear(Id::ClashRecords);
    for clashes in &status.clashes {
        metrics.set(Id::ClashRecords, &[&clashes.resolver, &clashes.verdict, &clashes.cause], figure(clashes.count));
    }
    plugins(metrics, vitals);
    snapshots(metrics, vitals);

    let files = &vitals.files;
    set(Id::DatabaseBytes, figure(files.database_bytes));
    set(Id::WalBytes, figure(files.wal_bytes));
    set(Id::DiskFree, figure(files.disk_free));
    set(Id::DiskFreeFiles, figure(files.free_files.unwrap_or(0)));
    set(Id::Tables, figure(status.tables.len() as u64));
    set(Id::TablesRefused, figure(status.refused.len() as u64));

    for (shard, used) in &vitals.log_used {
        metrics.set(Id::LogUsed, &[&shard.to_string()], *used);
    }

    flag(Id::Healthy, vitals.health.healthy);
    metrics.clear(Id::Condition);
    for reason in &vitals.health.reasons {
        metrics.set(Id::Condition, &[&reason.name], 1.0);
    }

    metrics.set(Id::BuildInfo, &[env!("CARGO_PKG_VERSION")], 1.0);
    set(Id::Uptime, vitals.uptime_seconds);
    let process = &vitals.process;
    set(Id::Resident, figure(process.resident_bytes));
    metrics.total(Id::Cpu, &[], process.cpu_seconds);
    set(Id::Descriptors, figure(process.descriptors));
    set(Id::DescriptorsMax, figure(process.descriptors_max));
    set(Id::Threads, figure(process.threads));
}

/// Of one name several builds may have been loaded, as after a reload: together they are what the name has cost.
fn plugins(metrics: &Metrics, vitals: &Vitals) {
    let mut named: Vec<(&str, &str)> =
        vitals.plugins.iter().map(|plugin| (plugin.name.as_str(), plugin.kind)).collect();
    named.dedup();
    for (name, kind) in named {
        let builds = || vitals.plugins.iter().filter(|plugin| (plugin.name.as_str(), plugin.kind) == (name, kind));
        let total = |id: Id, value: f64| metrics.total(id, &[name, kind], value);
        total(Id::PluginCalls, builds().map(|plugin| figure(plugin.calls)).sum());
        total(Id::PluginFailures, builds().map(|plugin| figure(plugin.failures)).sum());
        total(Id::PluginFuel, builds().map(|plugin| figure(plugin.fuel)).sum());
        total(Id::PluginSeconds, builds().map(|plugin| plugin.seconds).sum());
    }
}

fn snapshots(metrics: &Metrics, vitals: &Vitals) {
    let set = |id: Id, value: f64| metrics.set(id, &[], value);
    let survey = vitals.snapshots.clone().unwrap_or_default();
    set(Id::SnapshotLoopRunning, f64::from(u8::from(survey.running)));
    set(Id::SnapshotLeader, f64::from(u8::from(survey.leader)));
    set(Id::Snapshots, figure(survey.count as u64));
    set(Id::SnapshotsDamaged, figure(survey.damaged.len() as u64));
    let ago = |at_ms: u64| figure(vitals.at_ms.saturating_sub(at_ms)) / 1000.0;
    let since = |at_ms: u64| match at_ms {
        0 if survey.count == 0 => 0.0,
        0 => f64::INFINITY,
        at_ms => ago(at_ms),
    };
    set(Id::SnapshotVerifiedAge, since(survey.verified_ms));
    set(Id::SnapshotRestoredAge, since(survey.restored_ms));
    set(Id::SnapshotOnTime, survey.on_time.unwrap_or(f64::NAN));
    set(Id::ArchiveHoles, figure(survey.holes as u64));
    for (shard, to) in &survey.archived {
        // The end of the log was seen later than the end of the archive.
        let end = vitals.status.shards.iter().find(|of| of.shard == *shard).and_then(|of| of.end);
        if let Some(end) = end {
            let (shard_label, lag) = (shard.to_string(), end.saturating_sub(*to));
            metrics.set(Id::ArchiveLag, &[&shard_label], figure(lag));
            let last = survey.windows.get(shard).and_then(|windows| windows.last()).map(|window| window.to_ms);
            let seconds = last.filter(|_| lag > 0).map_or(0.0, ago);
            metrics.set(Id::ArchiveLagSeconds, &[&shard_label], seconds);
        }
    }
    if let Some(scratch) = survey.scratch {
        set(Id::SnapshotScratchNeeded, figure(scratch.needed));
        set(Id::SnapshotScratchFree, figure(scratch.free));
    }
    if let Some(newest) = survey.shots.first() {
        metrics.set(Id::SnapshotAge, &["any"], ago(newest.created_ms));
    }
    if let Some(full) = &survey.full {
        metrics.set(Id::SnapshotAge, &["full"], ago(full.created_ms));
        set(Id::SnapshotDuration, figure(full.took_ms) / 1000.0);
        set(Id::SnapshotSize, figure(full.bytes));
        set(Id::SnapshotStored, figure(full.stored_bytes));
        if full.stored_bytes > 0 {
            set(Id::SnapshotRatio, figure(full.bytes) / figure(full.stored_bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::{Health, Reason};
    use crate::metrics::table::TABLE;
    use crate::snapshot::{Scratch, Shot, Survey, Window};
    use crate::status::{Behind, Clashes, Member, Outbox, Pending, ShardStatus, Status, Trouble};
    use crate::vitals::{Files, Process};
    use antiphon_plugin::Used;

    /// What is counted where it happens. All other metrics come out of the vitals.
    const COUNTED: [Id; 17] = [
        Id::Published,
        Id::CountChanges,
        Id::ScanChanges,
        Id::PublishedBatches,
        Id::PublishedBytes,
        Id::Applied,
        Id::AppliedEntries,
        Id::AppliedBytes,
        Id::PublishErrors,
        Id::ApplyErrors,
        Id::SnapshotsSaved,
        Id::SnapshotsFailed,
        Id::SnapshotJobCpu,
        Id::SnapshotJobScratch,
        Id::SnapshotJobStored,
        Id::StorageErrors,
        Id::AlertErrors,
    ];

    /// A node of which no two figures are the same.
    fn odd() -> Vitals {
        let behind = Some(Behind { entries: 13, changes: Some(14), seconds: 15.5 });
        let clashes = |count| Clashes {
            resolver: "mine".to_owned(),
            verdict: "take".to_owned(),
            cause: "same-key".to_owned(),
            count,
        };
        let member = |state| Member { state, ..Member::default() };
        let (here, away, left) = (MemberState::Here, MemberState::Away, MemberState::Left);
        let status = Status {
            pending: Pending { marks: 1, batches: 2, changes: Some(3), bytes: 5, seconds: Some(6.5) },
            outbox: Outbox { batches: 7, bytes: 8, seconds: Some(9.5) },
            shards: vec![ShardStatus { shard: 1, position: 11, end: Some(12), behind }],
            members: [here, away, away, left, left, left].map(member).into(),
            clashes: vec![clashes(16)],
            tables: vec![String::new(); 17],
            refused: (0..18).map(|table| (table.to_string(), String::new())).collect(),
            troubles: [("shard 1".to_owned(), Trouble::default())].into(),
            ..Status::default()
        };
        let full = Shot { created_ms: 60_000, took_ms: 19_500, bytes: 200, stored_bytes: 50, ..Shot::default() };
        let window = Window { from_seq: 1, from_ms: 1_000, to_seq: 10, to_ms: 78_000 };
        let survey = Survey {
            running: true,
            leader: true,
            count: 23,
            shots: vec![Shot { created_ms: 76_000, ..Shot::default() }],
            full: Some(full),
            damaged: vec![String::new(); 25],
            verified_ms: 74_000,
            restored_ms: 69_500,
            archived: [(1, 10)].into(),
            holes: 27,
            windows: [(1, vec![window])].into(),
            on_time: Some(0.5),
            scratch: Some(Scratch { needed: 28, free: 29 }),
            ..Survey::default()
        };
        let mine = "mine".to_owned();
        let plugin =
            Used { name: mine, kind: "resolver", calls: 31, failures: 32, fuel: 33, seconds: 34.5, ..Used::default() };
        Vitals {
            at_ms: 100_000,
            status,
            log_connected: true,
            schema_paused: true,
            uptime_seconds: 35.5,
            last_published_ms: 36_500,
            last_replicated_ms: 37_500,
            clashes: vec![clashes(38)],
            log_used: [(1, 0.25)].into(),
            snapshots: Some(survey),
            plugins: vec![plugin],
            files: Files { database_bytes: 41, wal_bytes: 42, disk_free: 43, free_files: Some(44), ..Files::default() },
            process: Process {
                resident_bytes: 45,
                cpu_seconds: 46.5,
                descriptors: 47,
                descriptors_max: 48,
                threads: 49,
            },
            health: Health { healthy: true, reasons: vec![Reason { name: "log".to_owned(), ..Reason::default() }] },
            ..Vitals::default()
        }
    }

    #[test]
    fn every_figure_has_its_metric_and_every_metric_its_figure() {
        let metrics = Metrics::default();
        show(&metrics, &odd());
        let text = metrics.text("", 1).unwrap();
        let clash = "cause=\"same-key\",policy=\"mine\",verdict=\"take\",";
        let plugin = "kind=\"resolver\",plugin=\"mine\",";
        let shard = "shard=\"1\",";
        let expected = [
            ("pending_publish", "", "4"),
            ("pending_bytes", "", "5"),
            ("pending_seconds", "", "6.5"),
            ("outbox_batches", "", "7"),
            ("outbox_bytes", "", "8"),
            ("outbox_oldest_seconds", "", "9.5"),
            ("schema_mismatch_paused", "", "1"),
            ("last_published_timestamp_seconds", "", "36.5"),
            ("last_replicated_timestamp_seconds", "", "37.5"),
            ("position", shard, "11"),
            ("log_end", shard, "12"),
            ("lag_entries", shard, "13"),
            ("lag_changes", shard, "14"),
            ("lag_seconds", shard, "15.5"),
            ("shard_stopped", shard, "1"),
            ("log_reachable", "", "1"),
            ("members", "state=\"here\",", "1"),
            ("members", "state=\"away\",", "2"),
            ("members", "state=\"left\",", "3"),
            ("clashes", clash, "38"),
            ("clash_records", clash, "16"),
            ("plugin_calls", plugin, "31"),
            ("plugin_failures", plugin, "32"),
            ("plugin_fuel", plugin, "33"),
            ("plugin_seconds", plugin, "34.5"),
            ("snapshots", "", "23"),
            ("snapshot_age_seconds", "kind=\"full\",", "40"),
            ("snapshot_age_seconds", "kind=\"any\",", "24"),
            ("snapshot_duration_seconds", "", "19.5"),
            ("snapshot_size_bytes", "", "200"),
            ("snapshot_stored_bytes", "", "50"),
            ("snapshot_ratio", "", "4"),
            ("snapshots_damaged", "", "25"),
            ("snapshot_verified_age_seconds", "", "26"),
            ("snapshot_restored_age_seconds", "", "30.5"),
            ("snapshot_loop_running", "", "1"),
            ("snapshot_leader", "", "1"),
            ("snapshot_on_time_ratio", "", "0.5"),
            ("archive_lag_entries", shard, "2"),
            ("archive_lag_seconds", shard, "22"),
            ("archive_holes", "", "27"),
            ("snapshot_scratch_needed_bytes", "", "28"),
            ("snapshot_scratch_free_bytes", "", "29"),
            ("log_used_ratio", shard, "0.25"),
            ("database_bytes", "", "41"),
            ("wal_bytes", "", "42"),
            ("disk_free_bytes", "", "43"),
            ("disk_free_files", "", "44"),
            ("tables", "", "17"),
            ("tables_refused", "", "18"),
            ("healthy", "", "1"),
            ("condition", "what=\"log\",", "1"),
            ("build_info", concat!("version=\"", env!("CARGO_PKG_VERSION"), "\","), "1"),
            ("uptime_seconds", "", "35.5"),
            ("process_resident_memory_bytes", "", "45"),
            ("process_cpu_seconds", "", "46.5"),
            ("process_open_fds", "", "47"),
            ("process_max_fds", "", "48"),
            ("process_threads", "", "49"),
        ];
        for (name, labels, value) in expected {
            let line = format!("{name}{{{labels}node_id=\"1\"}} {value}");
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        for metric in TABLE {
            let is_counted = COUNTED.iter().any(|id| TABLE.get(*id as usize).is_some_and(|of| of.name == metric.name));
            let is_shown = expected.iter().any(|(name, ..)| *name == metric.name);
            assert!(is_counted != is_shown, "{}", metric.name);
        }
    }

    /// What is shown again is shown as it is then, and what is over is gone.
    #[test]
    fn what_changes_is_shown_anew() {
        let metrics = Metrics::default();
        let mut vitals = odd();
        // Of one name, two builds; and no snapshot that was looked at, or due by time.
        vitals.plugins.extend(vitals.plugins.clone());
        let survey = vitals.snapshots.clone();
        let unknown = survey.clone().map(|survey| Survey { verified_ms: 0, on_time: None, ..survey });
        vitals.snapshots = unknown;
        let shown = |vitals: &Vitals| {
            show(&metrics, vitals);
            metrics.text("", 1).unwrap()
        };
        shown(&vitals);
        let text = shown(&vitals);
        for line in [
            "plugin_calls{kind=\"resolver\",plugin=\"mine\",node_id=\"1\"} 62",
            "snapshot_verified_age_seconds{node_id=\"1\"} inf",
            "snapshot_on_time_ratio{node_id=\"1\"} NaN",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        vitals.snapshots = survey;
        vitals.health = Health { healthy: false, reasons: Vec::new() };
        vitals.status.members.clear();
        let text = shown(&vitals);
        for line in [
            "snapshot_verified_age_seconds{node_id=\"1\"} 26",
            "snapshot_on_time_ratio{node_id=\"1\"} 0.5",
            "healthy{node_id=\"1\"} 0",
            "members{state=\"here\",node_id=\"1\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("condition{"), "what is over is gone");
    }
}
