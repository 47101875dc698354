//! When the next snapshot is made, and of which kind.

use std::fmt;

/// A full one holds all rows; an incremental one is a name and a proof for the changes since another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// All rows.
    Full,
    /// What changed since its parent.
    Incremental,
}

impl Kind {
    /// As scripts read it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Incremental => "incremental",
        }
    }
}

/// What makes a snapshot of one kind due; nothing of it is needed for itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// So long after the last.
    pub interval_ms: Option<u64>,
    /// After so many changes.
    pub changes: Option<u64>,
    /// After so many bytes of log.
    pub log_bytes: Option<u64>,
    /// When the file has grown by so many bytes.
    pub growth_bytes: Option<u64>,
}

impl Limits {
    /// The same with an interval that is longer by up to so many hundredths; by which share of them, somebody rolls once
    /// for each snapshot.
    #[must_use]
    pub fn jittered(self, percent: u64, rolled: u64) -> Self {
        let longer = |interval: u64| {
            let most = interval.saturating_mul(percent) / 100;
            interval.saturating_add(rolled.checked_rem(most.saturating_add(1)).unwrap_or(0))
        };
        Self { interval_ms: self.interval_ms.map(longer), ..self }
    }
}

/// What the user asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wish {
    /// For full ones.
    pub full: Limits,
    /// For incremental ones.
    pub incremental: Limits,
    /// At most one of any kind in this time.
    pub pause_ms: u64,
    /// After so many incremental ones a full one comes.
    pub chain_steps: u64,
    /// After so many changes since the last full one a full one comes.
    pub chain_changes: u64,
}

/// What has happened since a snapshot.
#[derive(Clone, Copy, Debug, Default)]
pub struct Since {
    /// How long ago it was made.
    pub age_ms: u64,
    /// Changes since.
    pub changes: u64,
    /// Bytes of log since.
    pub log_bytes: u64,
    /// By how much the file has grown since.
    pub growth_bytes: u64,
}

/// How things stand.
#[derive(Clone, Copy, Debug, Default)]
pub struct Standing {
    /// Since the last full one, if there is one that can be gone on from.
    pub full: Option<Since>,
    /// Since the last of any kind.
    pub any: Option<Since>,
    /// Incremental ones since the last full one.
    pub steps: u64,
    /// The schema has changed since the last one.
    pub altered: bool,
    /// A time of the user's own calendar has come since the last one.
    pub scheduled: bool,
}

/// Why a snapshot is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// There is none yet.
    First,
    /// The schema has changed.
    Schema,
    /// It is so long since the last.
    Interval,
    /// There were so many changes.
    Changes,
    /// There was so much log.
    LogBytes,
    /// The file has grown so much.
    Growth,
    /// A time of the user's own calendar has come.
    Schedule,
    /// There are too many incremental ones in a row.
    Chain,
    /// Somebody asked for it.
    Asked,
    /// The log was cut before it was archived.
    Hole,
    /// It was begun before the maker was stopped.
    Left,
}

impl Trigger {
    /// As scripts read it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Schema => "schema",
            Self::Interval => "interval",
            Self::Changes => "changes",
            Self::LogBytes => "log-bytes",
            Self::Growth => "growth",
            Self::Schedule => "schedule",
            Self::Chain => "chain",
            Self::Asked => "asked",
            Self::Hole => "hole",
            Self::Left => "left",
        }
    }
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::First => "there is none yet",
            Self::Schema => "the schema has changed",
            Self::Interval => "it is time",
            Self::Changes => "enough has changed",
            Self::LogBytes => "the log has grown enough",
            Self::Growth => "the database has grown enough",
            Self::Schedule => "its time has come",
            Self::Chain => "there are many incremental ones since the last full one",
            Self::Asked => "somebody asked for it",
            Self::Hole => "the log was cut before it was archived",
            Self::Left => "it was begun before the start",
        })
    }
}

/// The snapshot that is to be made now, if one is.
#[must_use]
pub fn next(standing: &Standing, wish: &Wish) -> Option<(Kind, Trigger)> {
    let Some(full) = standing.full else { return Some((Kind::Full, Trigger::First)) };
    let since = standing.any.unwrap_or(full);
    // A full one that is due by the clock does not wait for the sake of an incremental one just before.
    let is_time = wish.full.interval_ms.is_some_and(|interval| full.age_ms >= interval.max(wish.pause_ms));
    // Where nothing changed, the last one is as good as another.
    if (since.changes == 0 && !standing.altered) || (since.age_ms < wish.pause_ms && !is_time) {
        return None;
    }
    if standing.altered {
        return Some((Kind::Full, Trigger::Schema));
    }
    if let Some(trigger) = reached(&full, &wish.full) {
        return Some((Kind::Full, trigger));
    }
    if standing.scheduled {
        return Some((Kind::Full, Trigger::Schedule));
    }
    let trigger = reached(&since, &wish.incremental)?;
    let is_long = standing.steps >= wish.chain_steps || full.changes >= wish.chain_changes;
    Some(if is_long { (Kind::Full, Trigger::Chain) } else { (Kind::Incremental, trigger) })
}

fn reached(since: &Since, limits: &Limits) -> Option<Trigger> {
    let over = |value: u64, limit: Option<u64>| limit.is_some_and(|limit| value >= limit);
    [
        (over(since.changes, limits.changes), Trigger::Changes),
        (over(since.log_bytes, limits.log_bytes), Trigger::LogBytes),
        (over(since.growth_bytes, limits.growth_bytes), Trigger::Growth),
        (over(since.age_ms, limits.interval_ms), Trigger::Interval),
    ]
    .into_iter()
    .find_map(|(is_reached, trigger)| is_reached.then_some(trigger))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: u64 = 60_000;

    fn wish() -> Wish {
        Wish {
            full: Limits { interval_ms: Some(1_440 * MINUTE), changes: Some(200_000), ..Limits::default() },
            incremental: Limits { interval_ms: Some(15 * MINUTE), changes: Some(10_000), ..Limits::default() },
            pause_ms: MINUTE,
            chain_steps: 24,
            chain_changes: 150_000,
        }
    }

    fn since(minutes: u64, changes: u64) -> Option<Since> {
        Some(Since { age_ms: minutes * MINUTE, changes, ..Since::default() })
    }

    fn standing(full: Option<Since>, any: Option<Since>) -> Standing {
        Standing { full, any, ..Standing::default() }
    }

    #[test]
    fn the_first_is_full() {
        assert_eq!(next(&Standing::default(), &wish()), Some((Kind::Full, Trigger::First)));
    }

    #[test]
    fn nothing_is_made_where_nothing_changed() {
        assert_eq!(next(&standing(since(9_000, 0), since(9_000, 0)), &wish()), None);
    }

    #[test]
    fn a_full_one_comes_in_time_however_lately_an_incremental_one_was_made() {
        let wish = Wish { pause_ms: 10 * MINUTE, ..wish() };
        let due = |full, any| next(&standing(full, any), &wish);
        assert_eq!(due(since(1_440, 500), since(1, 5)), Some((Kind::Full, Trigger::Interval)));
        assert_eq!(due(since(1_439, 500), since(1, 5)), None);
        assert_eq!(due(since(20, 200_000), since(1, 5)), None);
        assert_eq!(due(since(1_440, 500), since(1, 0)), None, "nothing has changed");
        let hasty = Wish { full: Limits { interval_ms: Some(1), ..Limits::default() }, ..wish };
        assert_eq!(next(&standing(since(5, 9), since(5, 9)), &hasty), None, "no two within the pause");
    }

    #[test]
    fn what_is_reached_first_makes_it_due() {
        let due = |full, any| next(&standing(full, any), &wish());
        assert_eq!(due(since(10, 500), since(10, 500)), None);
        assert_eq!(due(since(20, 500), since(20, 500)), Some((Kind::Incremental, Trigger::Interval)));
        assert_eq!(due(since(20, 30_000), since(5, 10_000)), Some((Kind::Incremental, Trigger::Changes)));
        assert_eq!(due(since(20, 200_000), since(5, 1)), Some((Kind::Full, Trigger::Changes)));
        assert_eq!(due(since(1_440, 1_000), since(5, 1)), Some((Kind::Full, Trigger::Interval)));
    }

    #[test]
    fn there_is_a_pause_between_two() {
        assert_eq!(next(&standing(since(500, 900_000), since(0, 20_000)), &wish()), None);
    }

    #[test]
    fn bytes_make_one_due() {
        let limits = Limits { log_bytes: Some(1_000), growth_bytes: Some(500), ..Limits::default() };
        let wish = Wish { full: limits, ..wish() };
        let due = |log_bytes, growth_bytes| {
            let since = Some(Since { age_ms: MINUTE, changes: 1, log_bytes, growth_bytes });
            next(&standing(since, since), &wish)
        };
        assert_eq!(due(999, 499), None);
        assert_eq!(due(1_000, 0), Some((Kind::Full, Trigger::LogBytes)));
        assert_eq!(due(0, 500), Some((Kind::Full, Trigger::Growth)));
    }

    #[test]
    fn an_interval_is_a_little_longer_each_time_by_others() {
        let limits = wish().full;
        let jittered = |percent, rolled| limits.jittered(percent, rolled).interval_ms.unwrap();
        let (interval, most) = (1_440 * MINUTE, 72 * MINUTE);
        assert_eq!(jittered(0, u64::MAX), interval);
        assert_eq!((jittered(5, 0), jittered(5, 7), jittered(5, most)), (interval, interval + 7, interval + most));
        assert!((0..99).all(|n| (interval..=interval + most).contains(&jittered(5, n * 987_654_321))));
        assert_eq!(limits.jittered(5, 7).changes, limits.changes);
        assert_eq!(Limits::default().jittered(5, 7), Limits::default());
    }

    #[test]
    fn a_changed_schema_asks_for_a_full_one() {
        let altered = Standing { altered: true, ..standing(since(9, 0), since(9, 0)) };
        assert_eq!(next(&altered, &wish()), Some((Kind::Full, Trigger::Schema)));
    }

    #[test]
    fn a_long_chain_ends_in_a_full_one() {
        let long = Standing { steps: 24, ..standing(since(400, 1_000), since(15, 10)) };
        assert_eq!(next(&long, &wish()), Some((Kind::Full, Trigger::Chain)));
        assert_eq!(next(&standing(since(400, 150_000), since(15, 10)), &wish()), Some((Kind::Full, Trigger::Chain)));
    }

    #[test]
    fn a_calendar_asks_for_a_full_one() {
        let scheduled = Standing { scheduled: true, ..standing(since(9, 5), since(9, 5)) };
        assert_eq!(next(&scheduled, &wish()), Some((Kind::Full, Trigger::Schedule)));
    }
}
