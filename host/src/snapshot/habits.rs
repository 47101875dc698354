//! What a configuration says of when snapshots are made, how they are packed, and which stay.

use super::archiver::Flush;
use super::calendar::Calendar;
use super::marks::Grace;
use crate::config::Config;
use antiphon_core::snapshot::due::{self, Limits};
use antiphon_core::snapshot::frame::{Method, Packing};
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
        let full = match (interval, entries) {
            (None, None) if calendar.is_none() => {
                Limits { interval_ms: Some(INTERVAL_MS), changes: Some(ENTRIES), ..Limits::default() }
            }
            (interval_ms, changes) => Limits { interval_ms, changes, ..Limits::default() },
        };
        // Who asks for one every second means that.
        let often = [interval, (snapshot.incremental_interval > 0).then_some(snapshot.incremental_interval)];
        let pause_ms = often.into_iter().flatten().fold(PAUSE_MS, u64::min);
        let method = Method::ALL.into_iter().find(|method| method.name() == snapshot.compression).unwrap_or_default();
        let level = match snapshot.compression_level {
            0 => method.levels().map_or(0, |(_, usual)| usual),
            level => level,
        };
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
            window_ms: None,
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
            packing: Packing { method, level, ..Packing::default() },
            keep,
            grace: Grace { forgotten_ms: snapshot.prune_grace, ..Grace::default() },
            ttl: if snapshot.leader_ttl > 0 { Duration::from_millis(snapshot.leader_ttl) } else { TTL },
            parallel: snapshot.parallel as usize,
        }
    }
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
        let packed = habits("compression = 'brotli'").packing;
        assert_eq!((packed.method, packed.level), (Method::Brotli, 4));
    }
}
