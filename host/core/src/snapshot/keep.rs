//! Which snapshots stay, and for which reason.

use super::calendar;
use super::id::SnapshotId;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// A snapshot, as far as keeping it goes.
#[derive(Clone, Debug)]
pub struct Kept {
    /// Its name.
    pub id: SnapshotId,
    /// When it was made, in milliseconds since 1970.
    pub created_ms: u64,
    /// The snapshot it goes on from, if it is not a full one.
    pub parent: Option<SnapshotId>,
    /// What a user called it.
    pub tags: Vec<String>,
    /// A user said that it stays.
    pub pinned: bool,
    /// Its content was read again and found whole.
    pub verified: bool,
}

/// How many are to stay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// The newest ones.
    pub last: usize,
    /// The newest of each of so many hours that have one.
    pub hourly: usize,
    /// The same for days.
    pub daily: usize,
    /// The same for weeks.
    pub weekly: usize,
    /// The same for months.
    pub monthly: usize,
    /// All that are not older than this.
    pub within_ms: Option<u64>,
    /// All that have one of these tags.
    pub tags: Vec<String>,
    /// Never fewer full ones than this that were found whole.
    pub verified: usize,
    /// For so long back, any point in time is to be reached.
    pub window_ms: Option<u64>,
}

/// Why a snapshot stays.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// It is one of the newest.
    Last,
    /// It is the newest of its hour.
    Hourly,
    /// It is the newest of its day.
    Daily,
    /// It is the newest of its week.
    Weekly,
    /// It is the newest of its month.
    Monthly,
    /// It is young enough.
    Within,
    /// It has this tag.
    Tag(String),
    /// A user pinned it.
    Pinned,
    /// Without it there would be too few that were found whole.
    Verified,
    /// Points in time are reached from it.
    Window,
    /// This one, which stays, goes on from it.
    Needed(SnapshotId),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Last => f.write_str("one of the newest"),
            Self::Hourly => f.write_str("newest of its hour"),
            Self::Daily => f.write_str("newest of its day"),
            Self::Weekly => f.write_str("newest of its week"),
            Self::Monthly => f.write_str("newest of its month"),
            Self::Within => f.write_str("young enough"),
            Self::Tag(tag) => write!(f, "tagged `{tag}`"),
            Self::Pinned => f.write_str("pinned"),
            Self::Verified => f.write_str("one of the few that were verified"),
            Self::Window => f.write_str("points in time are reached from it"),
            Self::Needed(by) => write!(f, "snapshot {by} goes on from it"),
        }
    }
}

/// Nothing would stay, which nobody means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this would remove every snapshot")]
pub struct NothingStays;

/// Which hour, day, week or month a time in milliseconds lies in.
type Period = fn(u64) -> u64;

/// Which snapshots stay, newest first, each with its reasons; one without a reason goes.
///
/// # Errors
/// When there are some and none of them would stay.
pub fn sort_out(snapshots: &[Kept], wish: &Wish, now_ms: u64) -> Result<Vec<(SnapshotId, Vec<Reason>)>, NothingStays> {
    let mut newest_first: Vec<&Kept> = snapshots.iter().collect();
    newest_first.sort_by_key(|kept| std::cmp::Reverse((kept.created_ms, kept.id)));
    let mut reasons: BTreeMap<SnapshotId, BTreeSet<Reason>> = BTreeMap::new();
    let mut stays = |id: SnapshotId, reason: Reason| {
        reasons.entry(id).or_default().insert(reason);
    };
    for kept in newest_first.iter().take(wish.last) {
        stays(kept.id, Reason::Last);
    }
    let periods: [(usize, Period, Reason); 4] = [
        (wish.hourly, calendar::hour, Reason::Hourly),
        (wish.daily, calendar::day, Reason::Daily),
        (wish.weekly, calendar::week, Reason::Weekly),
        (wish.monthly, calendar::month, Reason::Monthly),
    ];
    for (count, period, reason) in periods {
        let mut seen = BTreeSet::new();
        for kept in &newest_first {
            if seen.len() < count && seen.insert(period(kept.created_ms)) {
                stays(kept.id, reason.clone());
            }
        }
    }
    for kept in &newest_first {
        if wish.within_ms.is_some_and(|within| now_ms.saturating_sub(kept.created_ms) <= within) {
            stays(kept.id, Reason::Within);
        }
        for tag in kept.tags.iter().filter(|tag| wish.tags.contains(tag)) {
            stays(kept.id, Reason::Tag(tag.clone()));
        }
        if kept.pinned {
            stays(kept.id, Reason::Pinned);
        }
    }
    let full = || newest_first.iter().filter(|kept| kept.parent.is_none());
    for kept in full().filter(|kept| kept.verified).take(wish.verified) {
        stays(kept.id, Reason::Verified);
    }
    if let Some(window) = wish.window_ms {
        // Every point since is reached from the last one before the window begins, or from the first there is.
        let begins = now_ms.saturating_sub(window);
        if let Some(base) = full().find(|kept| kept.created_ms <= begins).or_else(|| full().next_back()) {
            stays(base.id, Reason::Window);
        }
        // The one that is the base next: were it gone by then, the points up to the one behind it would be, too.
        if let Some(next) = full().rfind(|kept| kept.created_ms > begins) {
            stays(next.id, Reason::Window);
        }
    }
    // Newest first, so that what a needed one needs is reached in the same pass.
    for kept in &newest_first {
        if let Some(parent) = kept.parent
            && reasons.contains_key(&kept.id)
            && snapshots.iter().any(|other| other.id == parent)
        {
            reasons.entry(parent).or_default().insert(Reason::Needed(kept.id));
        }
    }
    if reasons.is_empty() && !snapshots.is_empty() {
        return Err(NothingStays);
    }
    let with_reasons = |kept: &&Kept| {
        let reasons = reasons.get(&kept.id).map(|reasons| reasons.iter().cloned().collect()).unwrap_or_default();
        (kept.id, reasons)
    };
    Ok(newest_first.iter().map(with_reasons).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000;
    const DAY: u64 = 24 * HOUR;
    const NOW: u64 = 20_000 * DAY;

    fn made(ago_ms: u64) -> Kept {
        let created_ms = NOW - ago_ms;
        let id = SnapshotId::new(created_ms, u128::from(ago_ms));
        Kept { id, created_ms, parent: None, tags: Vec::new(), pinned: false, verified: true }
    }

    /// How long ago those were made that stay, in hours.
    fn stay(snapshots: &[Kept], wish: &Wish) -> Vec<u64> {
        let sorted = sort_out(snapshots, wish, NOW).unwrap();
        let staying = sorted.iter().filter(|(_, reasons)| !reasons.is_empty());
        staying.map(|(id, _)| (NOW - id.millis()) / HOUR).collect()
    }

    fn every_six_hours() -> Vec<Kept> {
        (0..40).map(|n| made(n * 6 * HOUR)).collect()
    }

    #[test]
    fn the_newest_stay() {
        assert_eq!(stay(&every_six_hours(), &Wish { last: 3, ..Wish::default() }), [0, 6, 12]);
    }

    #[test]
    fn one_of_each_day_stays_and_it_is_the_newest() {
        // It is midnight: the day that has just begun has one snapshot.
        assert_eq!(stay(&every_six_hours(), &Wish { daily: 3, ..Wish::default() }), [0, 6, 30]);
    }

    #[test]
    fn hours_without_a_snapshot_do_not_count() {
        assert_eq!(stay(&every_six_hours(), &Wish { hourly: 4, ..Wish::default() }), [0, 6, 12, 18]);
    }

    #[test]
    fn tags_pins_and_age_add_to_it() {
        let mut snapshots = every_six_hours();
        snapshots[20].tags.push("release".to_owned());
        snapshots[30].pinned = true;
        let wish = Wish { last: 1, tags: vec!["release".to_owned()], within_ms: Some(6 * HOUR), ..Wish::default() };
        assert_eq!(stay(&snapshots, &wish), [0, 6, 120, 180]);
    }

    #[test]
    fn what_a_kept_one_goes_on_from_is_kept() {
        let mut snapshots = every_six_hours();
        for n in 0..5 {
            snapshots[n].parent = Some(snapshots[n + 1].id);
        }
        assert_eq!(stay(&snapshots, &Wish { last: 1, ..Wish::default() }), [0, 6, 12, 18, 24, 30]);
    }

    #[test]
    fn enough_that_were_verified_stay() {
        let mut snapshots = every_six_hours();
        for kept in &mut snapshots[..10] {
            kept.verified = false;
        }
        assert_eq!(stay(&snapshots, &Wish { last: 1, verified: 2, ..Wish::default() }), [0, 60, 66]);
    }

    #[test]
    fn a_window_is_reached_from_before_it_begins() {
        let window_ms = Some(25 * HOUR);
        assert_eq!(stay(&every_six_hours(), &Wish { last: 1, window_ms, ..Wish::default() }), [0, 24, 30]);
        let window_ms = Some(1_000 * HOUR);
        assert_eq!(stay(&every_six_hours(), &Wish { last: 1, window_ms, ..Wish::default() }), [0, 39 * 6]);
    }

    /// Sorted out day by day, there is always one from before the window that the rest goes on from.
    #[test]
    fn a_window_moves_on_without_a_gap() {
        let window = 7 * DAY;
        let wish = Wish { last: 3, daily: 7, weekly: 4, window_ms: Some(window), ..Wish::default() };
        let mut standing: Vec<Kept> = Vec::new();
        for hour in 0..60 * 24 {
            let now = NOW + hour * HOUR;
            if hour % 24 == 15 {
                standing.push(Kept { id: SnapshotId::new(now, u128::from(hour)), created_ms: now, ..made(0) });
            }
            if hour % 24 == 0 && !standing.is_empty() {
                // A step that begins its day: the full one of seven days ago is not the newest of any of seven days now.
                let parent = standing.iter().rfind(|kept| kept.parent.is_none()).map(|kept| kept.id);
                standing.push(Kept { id: SnapshotId::new(now, u128::from(hour)), created_ms: now, parent, ..made(0) });
                let sorted = sort_out(&standing, &wish, now).unwrap();
                standing.retain(|kept| sorted.iter().any(|(id, reasons)| *id == kept.id && !reasons.is_empty()));
            }
            // The newest from before the window is never older than a day more.
            let base = standing
                .iter()
                .filter(|kept| kept.parent.is_none() && kept.created_ms <= now - window)
                .map(|kept| kept.created_ms)
                .max();
            assert!(hour < 9 * 24 || base.is_some_and(|base| now - base < window + DAY), "hour {hour}");
        }
    }

    #[test]
    fn nobody_means_to_remove_everything() {
        assert_eq!(sort_out(&every_six_hours(), &Wish::default(), NOW), Err(NothingStays));
        assert_eq!(sort_out(&[], &Wish::default(), NOW), Ok(Vec::new()));
    }
}
