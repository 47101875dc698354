//! What a configuration says of when snapshots are made, how they are packed, and which stay.

use super::archiver::Flush;
use super::calendar::Calendar;
use super::marks::Grace;
use crate::config::{Config, Size};
use antiphon_core::snapshot::due::{self, Limits};
use antiphon_core::snapshot::frame::{Method, Packing};
use antiphon_core::snapshot::merge::Span;
use antiphon_core::snapshot::{keep, truncate};
use std::time::Duration;

/// A full one at least as often as this, unless the user says otherwise.
const INTERVAL_MS: u64 = 24 * 3_600_000;
/// Entries of the log after which one is made, unless the user says otherwise.
const ENTRIES: u64 = 200_000;
/// Between two that nobody asked for.
const PAUSE_MS: u64 = 60_000;
/// After so many incremental ones a full one comes,
const CHAIN_STEPS: u64 = 24;
/// and after so many entries since the last full one.
const CHAIN_ENTRIES: u64 = 200_000;
/// What an object on its way takes in memory: its content, and that packed.
const OBJECT_BYTES: u64 = 16 << 20;
/// For how long a lease holds, unless the user says otherwise.
const TTL: Duration = Duration::from_secs(30);

/// What a node does about snapshots by itself.
#[derive(Clone, Debug)]
pub(super) struct Habits {
    pub(super) due: due::Wish,
    /// Times at which the user wants one.
    pub(super) calendar: Option<Calendar>,
    pub(super) packing: Packing,
    pub(super) keep: keep::Wish,
    pub(super) grace: Grace,
    pub(super) ttl: Duration,
    pub(super) cut: truncate::Wish,
    /// When what was read of the log becomes a segment of the archive.
    pub(super) flush: Flush,
    pub(super) parallel: usize,
    /// Over which times segments of the archive become one.
    pub(super) spans: Vec<Span>,
    /// At which age snapshots get the class of storage that is said for it.
    pub(super) archive_after_ms: Option<u64>,
    /// After how long another one is put together on trial.
    pub(super) verify_after: Option<Duration>,
    /// By how much an interval is longer at most.
    pub(super) jitter_percent: u64,
    /// None is made by itself while so many entries are still to be applied.
    pub(super) lag_max: Option<u64>,
    /// Most bytes that making one may take on the disk.
    pub(super) scratch_max: Option<u64>,
    /// Most that are made at once on this machine.
    pub(super) jobs_max: Option<u32>,
}

impl Habits {
    pub(super) fn of(config: &Config) -> Self {
        let snapshot = &config.snapshot;
        let interval = match (snapshot.interval, snapshot.time_threshold_secs) {
            (0, 0) => None,
            (0, seconds) => Some(seconds.saturating_mul(1000)),
            (millis, _) => Some(millis),
        };
        let entries = (snapshot.log_threshold > 0).then_some(snapshot.log_threshold);
        // What can't be read was refused with the configuration.
        let calendar = Calendar::read(&snapshot.cron).ok();
        let bytes = |size: Size| (size.0 > 0).then_some(size.0);
        let said = Limits {
            interval_ms: interval,
            changes: entries,
            log_bytes: bytes(snapshot.log_bytes_threshold),
            growth_bytes: bytes(snapshot.growth_threshold),
        };
        let full = if said == Limits::default() && calendar.is_none() {
            Limits { interval_ms: Some(INTERVAL_MS), changes: Some(ENTRIES), ..said }
        } else {
            said
        };
        // Who asks for one every second means that.
        let often = [interval, (snapshot.incremental_interval > 0).then_some(snapshot.incremental_interval)];
        let pause_ms = often.into_iter().flatten().fold(PAUSE_MS, u64::min);
        let count = |count: u32| count as usize;
        let of = &snapshot.keep;
        let keep = keep::Wish {
            last: count(if snapshot.retention_count > 0 { snapshot.retention_count } else { of.last }),
            hourly: count(of.hourly),
            daily: count(of.daily),
            weekly: count(of.weekly),
            monthly: count(of.monthly),
            within_ms: (of.within > 0).then_some(of.within),
            tags: of.tags.clone(),
            verified: count(of.verified),
            window_ms: window(snapshot),
        };
        // A count alone means that count.
        let keep = if snapshot.retention_count > 0 {
            keep::Wish { hourly: 0, daily: 0, weekly: 0, monthly: 0, ..keep }
        } else {
            keep
        };
        let cut = truncate::Wish {
            snapshots: keep.verified,
            trailing: config.replication_log.max_entries,
            expiry_ms: config.replication_log.node_expiry,
        };
        Self {
            due: due::Wish {
                full,
                incremental: Limits {
                    interval_ms: (snapshot.incremental_interval > 0).then_some(snapshot.incremental_interval),
                    changes: (snapshot.incremental_threshold > 0).then_some(snapshot.incremental_threshold),
                    ..Limits::default()
                },
                pause_ms,
                chain_steps: CHAIN_STEPS,
                chain_changes: CHAIN_ENTRIES,
            },
            calendar,
            cut,
            flush: Flush {
                bytes: usize::try_from(snapshot.archive_bytes.0).unwrap_or(usize::MAX),
                entries: snapshot.archive_entries as usize,
                age: Duration::from_millis(snapshot.archive_interval),
            },
            packing: packing(config),
            keep,
            grace: Grace::of(config),
            ttl: if snapshot.leader_ttl > 0 { Duration::from_millis(snapshot.leader_ttl) } else { TTL },
            spans: spans(config),
            archive_after_ms: (snapshot.archive_after > 0).then_some(snapshot.archive_after),
            verify_after: (snapshot.verify_interval > 0).then(|| Duration::from_millis(snapshot.verify_interval)),
            jitter_percent: snapshot.jitter.into(),
            lag_max: (snapshot.lag_max > 0).then_some(snapshot.lag_max),
            scratch_max: bytes(snapshot.scratch_max),
            jobs_max: (snapshot.max_concurrent > 0).then_some(snapshot.max_concurrent),
            parallel: parallel(snapshot.parallel, snapshot.memory_max),
        }
    }
}

impl Grace {
    /// That of a configuration.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        Self { forgotten_ms: config.snapshot.prune_grace, window_ms: window(&config.snapshot), ..Self::default() }
    }
}

/// Over which times segments of the archive become one, by a configuration; the shortest first.
#[must_use]
pub fn spans(config: &Config) -> Vec<Span> {
    let snapshot = &config.snapshot;
    let spans = [Span { level: 1, millis: snapshot.merge_short }, Span { level: 2, millis: snapshot.merge_long }];
    spans.into_iter().filter(|span| span.millis > 0).collect()
}

/// How what is stored is packed, by a configuration.
#[must_use]
pub fn packing(config: &Config) -> Packing {
    let snapshot = &config.snapshot;
    let method = Method::ALL.into_iter().find(|method| method.name() == snapshot.compression).unwrap_or_default();
    let level = match snapshot.compression_level {
        0 => method.levels().map_or(0, |(_, usual)| usual),
        level => level,
    };
    Packing { method, level, ..Packing::default() }
}

/// How many objects may be on their way at once.
fn parallel(wanted: u32, memory: Size) -> usize {
    let fitting = if memory.0 > 0 { (memory.0 / OBJECT_BYTES).max(1) } else { u64::MAX };
    usize::try_from(fitting.min(wanted.into())).unwrap_or(1)
}

/// For how long back any point in time is to be reached, if that is less than snapshots lead.
fn window(snapshot: &crate::config::Snapshot) -> Option<u64> {
    (snapshot.pitr_window > 0 && snapshot.retention_count == 0).then_some(snapshot.pitr_window)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn habits(text: &str) -> Habits {
        Habits::of(&toml::from_str(&format!("[snapshot]\n{text}")).unwrap())
    }

    #[test]
    fn nothing_said_means_the_usual() {
        let usual = habits("");
        assert_eq!(usual.due.full.interval_ms, Some(INTERVAL_MS));
        assert_eq!(usual.due.full.changes, Some(ENTRIES));
        assert_eq!(usual.due.incremental.interval_ms, Some(900_000));
        assert_eq!(usual.due.incremental.changes, Some(10_000));
        assert_eq!((usual.flush.bytes, usual.flush.entries, usual.flush.age.as_secs()), (4 << 20, 10_000, 10));
        assert_eq!((usual.keep.last, usual.keep.hourly, usual.keep.verified), (7, 24, 2));
        assert_eq!((usual.packing.method, usual.packing.level), (Method::Zstd, 3));
    }

    #[test]
    fn what_is_said_holds_alone() {
        let timed = habits("interval = 5000");
        assert_eq!((timed.due.full.interval_ms, timed.due.full.changes), (Some(5_000), None));
        assert_eq!(timed.due.pause_ms, 5_000);
        let nightly = habits("cron = '30 3 * * *'");
        assert_eq!((nightly.due.full.interval_ms, nightly.due.full.changes), (None, None));
        assert!(nightly.calendar.is_some());
        let timed = habits("time_threshold_secs = 5");
        assert_eq!((timed.due.full.interval_ms, timed.due.full.changes), (Some(5_000), None));
        let counted = habits("log_threshold = 100");
        assert_eq!((counted.due.full.interval_ms, counted.due.full.changes), (None, Some(100)));
        let kept = habits("retention_count = 3").keep;
        assert_eq!((kept.last, kept.hourly, kept.monthly, kept.verified), (3, 0, 0, 2));
        assert_eq!(kept.window_ms, None, "a count alone means that count");
        assert_eq!(habits("").keep.window_ms, Some(7 * 86_400_000));
        assert_eq!(habits("pitr_window = 0").grace.window_ms, None);
        let sized = habits("growth_threshold = '1 MiB'").due.full;
        assert_eq!((sized.growth_bytes, sized.interval_ms), (Some(1 << 20), None));
        assert_eq!(habits("log_bytes_threshold = '2 MiB'").due.full.log_bytes, Some(2 << 20));
        assert_eq!(habits("memory_max = '40 MiB'").parallel, 2);
        assert_eq!(habits("memory_max = '1 MiB'").parallel, 1);
        assert_eq!(habits("parallel = 3").parallel, 3);
        let packed = habits("compression = 'brotli'").packing;
        assert_eq!((packed.method, packed.level), (Method::Brotli, 4));
    }
}
