//! What is wrong with snapshots, their store and their archive.

use super::{Findings, Limits, store};
use crate::snapshot::{Scratch, Shot, Survey};
use crate::vitals::Vitals;
use crate::words::count;
use std::time::Duration;

/// So long a snapshot may be late, and so long a node may be without any.
const GRACE_MS: u64 = 10 * 60_000;
/// So long it is told that a part of the log's history is lost. It stays lost, and whoever reads this has heard of it.
const HOLE_TOLD_MS: u64 = 24 * 3_600_000;

impl Findings<'_> {
    pub(super) fn snapshots(&mut self, limits: &Limits, vitals: &Vitals) {
        let Some(survey) = &vitals.snapshots else { return };
        if let Some(why) = &survey.error {
            let remedy = format!("`antiphon storage check {}` says what it lacks", store(self.db));
            self.add("storage", format!("the store of snapshots can't be listed: {why}"), remedy, self.log_grace);
        }
        if let Some(Scratch { needed, free }) = survey.scratch.filter(|scratch| scratch.free < scratch.needed) {
            let what = format!(
                "the next snapshot needs {needed} bytes of room on the disk while it is made, and may have {free}"
            );
            let remedy = "make room where `.antiphon` beside the database lies; or raise `scratch_max` under `[snapshot]`, if \
                          that is set";
            self.add("scratch", what, remedy.to_owned(), self.log_grace);
        }
        // What was not looked at can't be late.
        if survey.listed_ms > 0 {
            self.late(survey, vitals);
            self.damaged(survey, vitals);
            self.unverified(survey, limits, vitals);
        }
    }

    /// None is made while nothing changes, so none is late then.
    fn late(&mut self, survey: &Survey, vitals: &Vitals) {
        let db = self.db;
        let remedy = format!(
            "see why in the log of the node that makes them (`Unable to save snapshot`), or make one now: `antiphon snapshot \
             create {db}`"
        );
        let up_ms = Duration::from_secs_f64(vitals.uptime_seconds.max(0.0)).as_millis();
        if survey.full.is_none() {
            if up_ms > u128::from(GRACE_MS) {
                self.now("snapshot-late", "there is no snapshot", remedy);
            }
            return;
        }
        let entries: u64 = vitals.status.shards.iter().map(|shard| shard.end.unwrap_or(shard.position)).sum();
        for (name, kind, newest, interval) in [
            ("snapshot-late", "snapshot of all rows", survey.full.as_ref(), survey.full_interval_ms),
            ("increment-late", "snapshot", survey.shots.first(), survey.interval_ms),
        ] {
            let (Some(newest), Some(interval)) = (newest, interval) else { continue };
            // As of when the store was listed: one may have been made since.
            let age = survey.listed_ms.saturating_sub(newest.created_ms);
            if age > interval.saturating_mul(2) && entries > newest.entries {
                let what = format!(
                    "the newest {kind} is {} seconds old, and one is to be made every {}",
                    age / 1000,
                    interval / 1000
                );
                // After a while without changes the first one makes it due.
                self.add(name, what, remedy.clone(), Duration::from_millis(GRACE_MS.min(interval)));
            }
        }
    }

    /// What can't be brought back any more.
    fn damaged(&mut self, survey: &Survey, vitals: &Vitals) {
        let db = self.db;
        if let Some(id) = survey.damaged.last() {
            let what = format!(
                "{} not what was put there, the newest is {id}",
                count(survey.damaged.len() as u64, "snapshot is", "snapshots are")
            );
            let remedy = format!(
                "see what is wrong with it: `antiphon snapshot verify {id} {}`; make a new one, `antiphon snapshot create {db}`, \
                 and then let go of it: `antiphon snapshot forget {id} {}`",
                store(db),
                store(db)
            );
            self.now("snapshot-damaged", what, remedy);
        }
        let told_ms = vitals.at_ms.saturating_sub(survey.holed_ms);
        if survey.holes > 0 && told_ms < HOLE_TOLD_MS {
            let what = format!(
                "{} of the log cut before it was archived: no point in time there can be reached",
                count(survey.holes as u64, "stretch", "stretches") + if survey.holes == 1 { " was" } else { " were" }
            );
            let remedy = format!(
                "`antiphon snapshot list --pitr {}` shows which; rows are not affected, and a snapshot behind it is made at once. \
                 Give the log more room, or see why the archive was behind: `antiphon storage check {}`",
                store(db),
                store(db)
            );
            self.now("archive-hole", what, remedy);
        }
    }

    /// What nobody has found whole may be anything.
    fn unverified(&mut self, survey: &Survey, limits: &Limits, vitals: &Vitals) {
        let now = vitals.at_ms;
        let within = u64::try_from(limits.snapshot_verified_within.as_millis()).unwrap_or(u64::MAX);
        let is_new = |full: &Shot| survey.listed_ms.saturating_sub(full.created_ms) < GRACE_MS;
        let what = match (&survey.full, survey.verified_ms) {
            (None, _) => return,
            (Some(full), _) if full.verified_ms.is_none() && !is_new(full) && !survey.damaged.contains(&full.id) => {
                format!("snapshot {}, the newest of all rows, was never found whole", full.id)
            }
            (Some(_), at) if within > 0 && now.saturating_sub(at) > within => {
                format!("it is {} seconds since a snapshot was found whole", now.saturating_sub(at) / 1000)
            }
            (Some(_), _) => return,
        };
        let remedy = format!("`antiphon snapshot verify {} --level restore`, best once a night", store(self.db));
        self.now("snapshot-unverified", what, remedy);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{names, well};
    use super::*;
    use crate::status::ShardStatus;

    const NONE: [&str; 0] = [];
    const HOUR: u64 = 3_600_000;

    /// One of all rows that is so old and was found whole so long ago.
    fn survey(newest_ms_ago: u64, verified_ms_ago: Option<u64>) -> Survey {
        let now = well().at_ms;
        let verified_ms = verified_ms_ago.map(|ago| now - ago);
        let full =
            Shot { id: "one".into(), created_ms: now - newest_ms_ago, verified_ms, entries: 9, ..Shot::default() };
        Survey {
            running: true,
            full_interval_ms: Some(HOUR),
            listed_ms: now,
            count: 1,
            shots: vec![full.clone()],
            full: Some(full),
            verified_ms: verified_ms.unwrap_or(0),
            ..Survey::default()
        }
    }

    /// What is wrong with these, after an entry that is not in them.
    fn of(survey: Survey) -> Vec<String> {
        names(|vitals| {
            vitals.status.shards = vec![ShardStatus { shard: 1, position: 8, end: Some(10), behind: None }];
            vitals.snapshots = Some(survey);
        })
    }

    #[test]
    fn snapshots_are_late_or_missing() {
        assert_eq!(of(survey(HOUR, Some(0))), NONE);
        assert_eq!(of(survey(3 * HOUR, Some(0))), ["snapshot-late"]);
        let later = |survey: &mut Survey| survey.shots[0].entries = 10;
        let mut quiet = survey(3 * HOUR, Some(0));
        later(&mut quiet);
        quiet.full = quiet.shots.first().cloned();
        assert_eq!(of(quiet), NONE, "nothing has changed since");
        let by_count = Survey { full_interval_ms: None, ..survey(100 * HOUR, Some(0)) };
        assert_eq!(of(by_count), NONE, "they don't go by time");
        // What changed is on its way, and all rows are not.
        let mut steps = survey(3 * HOUR, Some(0));
        steps.interval_ms = Some(HOUR / 4);
        steps.shots.insert(0, Shot { created_ms: well().at_ms - HOUR / 4, ..Shot::default() });
        assert_eq!(of(steps.clone()), ["snapshot-late"]);
        steps.shots.remove(0);
        steps.full_interval_ms = Some(24 * HOUR);
        assert_eq!(of(steps), ["increment-late"]);

        let empty = Survey { shots: Vec::new(), full: None, count: 0, ..survey(0, None) };
        assert_eq!(of(empty.clone()), ["snapshot-late"]);
        let early = |vitals: &mut Vitals| {
            (vitals.snapshots, vitals.uptime_seconds) = (Some(empty.clone()), 10.0);
        };
        assert_eq!(names(early), NONE, "the first one takes its time");
        let unread = Survey { error: Some("no".to_owned()), listed_ms: 0, ..survey(0, None) };
        assert_eq!(of(unread), ["storage"]);
    }

    #[test]
    fn snapshots_are_unverified_or_damaged() {
        assert_eq!(of(survey(HOUR, Some(2 * HOUR))), ["snapshot-unverified"]);
        assert_eq!(of(survey(HOUR, None)), ["snapshot-unverified"]);
        assert_eq!(of(survey(0, None)), ["snapshot-unverified"], "and no other was found whole");
        let mut others = survey(GRACE_MS - 1, None);
        others.verified_ms = well().at_ms;
        assert_eq!(of(others), NONE, "it was made a moment ago");
        let damaged = Survey { damaged: vec!["one".into()], verified_ms: well().at_ms, ..survey(HOUR, None) };
        assert_eq!(of(damaged), ["snapshot-damaged"]);
    }

    #[test]
    fn room_and_history_that_are_lost_are_told() {
        let scratch = |free| Some(Scratch { needed: 10, free });
        assert_eq!(of(Survey { scratch: scratch(10), ..survey(HOUR, Some(0)) }), NONE);
        assert_eq!(of(Survey { scratch: scratch(9), ..survey(HOUR, Some(0)) }), ["scratch"]);
        let now = well().at_ms;
        let holed = |ago| Survey { holes: 1, holed_ms: now - ago, ..survey(HOUR, Some(0)) };
        assert_eq!(of(holed(HOUR)), ["archive-hole"]);
        assert_eq!(of(holed(25 * HOUR)), NONE, "it was told for a day");
    }
}
