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
    set(
        Id::SnapshotVerifiedAge,
        match survey.verified_ms {
            0 if survey.count == 0 => 0.0,
            0 => f64::INFINITY,
            at_ms => ago(at_ms),
        },
    );
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
    use crate::snapshot::{Scratch, Shot, Survey, Window};
    use crate::status::{Behind, ShardStatus};
    use antiphon_plugin::Used;

    #[test]
    fn gauges_say_what_the_vitals_say() {
        let metrics = Metrics::default();
        let mut vitals = Vitals { at_ms: 100_000, log_connected: true, ..Vitals::default() };
        let behind = Some(Behind { entries: 3, changes: Some(30), seconds: 1.5 });
        vitals.status.shards = vec![ShardStatus { shard: 2, position: 7, end: Some(10), behind }];
        vitals.status.pending.marks = 4;
        let shot = Shot { created_ms: 40_000, bytes: 300, stored_bytes: 100, ..Shot::default() };
        let archived = std::collections::BTreeMap::from([(2, 6), (3, 1)]);
        let step = Shot { created_ms: 90_000, ..Shot::default() };
        let (shots, full) = (vec![step, shot.clone()], Some(shot));
        let survey = Survey { running: true, count: 2, shots, full, archived, holes: 2, ..Survey::default() };
        let window = Window { from_seq: 1, from_ms: 1_000, to_seq: 6, to_ms: 70_000 };
        let windows = std::collections::BTreeMap::from([(2, vec![window])]);
        let (damaged, scratch) = (vec!["one".to_owned()], Some(Scratch { needed: 5, free: 6 }));
        vitals.snapshots = Some(Survey { windows, damaged, scratch, ..survey.clone() });
        vitals.log_used = std::collections::BTreeMap::from([(2, 0.5)]);
        let plugin = Used { name: "fnv".to_owned(), kind: "hasher", calls: 2, ..Used::default() };
        vitals.plugins = vec![plugin.clone(), plugin];
        let reason = Reason { name: "log".to_owned(), ..Reason::default() };
        vitals.health = Health { healthy: false, reasons: vec![reason] };
        show(&metrics, &vitals);
        show(&metrics, &vitals);
        let text = metrics.text("", 1).unwrap();
        for line in [
            "lag_changes{shard=\"2\",node_id=\"1\"} 30",
            "lag_seconds{shard=\"2\",node_id=\"1\"} 1.5",
            "pending_publish{node_id=\"1\"} 4",
            "snapshot_age_seconds{kind=\"full\",node_id=\"1\"} 60",
            "snapshot_age_seconds{kind=\"any\",node_id=\"1\"} 10",
            "snapshots_damaged{node_id=\"1\"} 1",
            "snapshot_verified_age_seconds{node_id=\"1\"} inf",
            "snapshot_scratch_needed_bytes{node_id=\"1\"} 5",
            "snapshot_scratch_free_bytes{node_id=\"1\"} 6",
            "log_used_ratio{shard=\"2\",node_id=\"1\"} 0.5",
            "snapshot_ratio{node_id=\"1\"} 3",
            "snapshot_loop_running{node_id=\"1\"} 1",
            "snapshot_on_time_ratio{node_id=\"1\"} NaN",
            "archive_lag_entries{shard=\"2\",node_id=\"1\"} 4",
            "archive_lag_seconds{shard=\"2\",node_id=\"1\"} 30",
            "archive_holes{node_id=\"1\"} 2",
            "plugin_calls{kind=\"hasher\",plugin=\"fnv\",node_id=\"1\"} 4",
            "condition{what=\"log\",node_id=\"1\"} 1",
            "healthy{node_id=\"1\"} 0",
            "members{state=\"here\",node_id=\"1\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        vitals.health = Health { healthy: true, reasons: Vec::new() };
        vitals.snapshots = Some(Survey { on_time: Some(0.75), verified_ms: 95_000, ..survey });
        show(&metrics, &vitals);
        let text = metrics.text("", 1).unwrap();
        for line in ["snapshot_on_time_ratio{node_id=\"1\"} 0.75", "snapshot_verified_age_seconds{node_id=\"1\"} 5"] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        assert!(!metrics.text("", 1).unwrap().contains("condition{"), "what is over is gone");
    }
}
