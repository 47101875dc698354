//! What makes snapshots due by themselves, and whether they came when they were due.

use super::habits::Habits;
use crate::config::Config;
use antiphon_core::snapshot::due::{Kind, Limits, Trigger};
use antiphon_core::snapshot::manifest::Manifest;

/// When a snapshot was made, and why.
#[derive(Clone, Debug)]
pub struct Run {
    at_ms: u64,
    kind: Kind,
    trigger: String,
}

impl Run {
    /// That of a snapshot.
    #[must_use]
    pub fn of(manifest: &Manifest) -> Self {
        Self { at_ms: manifest.created_ms, kind: manifest.kind, trigger: manifest.trigger.clone() }
    }
}

/// One thing that makes a snapshot due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rhythm {
    /// In words.
    pub when: String,
    /// When it last did, in milliseconds since 1970.
    pub last_ms: Option<u64>,
    /// When it does next, where the clock says that.
    pub next_ms: Option<u64>,
    /// How often it did.
    pub runs: u64,
    /// How often within a tenth of its interval.
    pub on_time: u64,
}

/// All that makes snapshots due by a configuration, with what came of it.
#[must_use]
pub fn rhythms(config: &Config, mut runs: Vec<Run>) -> Vec<Rhythm> {
    let habits = Habits::of(config);
    runs.sort_unstable_by_key(|run| run.at_ms);
    let mut rhythms = Vec::new();
    for (kind, limits) in [(Kind::Full, habits.due.full), (Kind::Incremental, habits.due.incremental)] {
        rhythms.extend(timed(&runs, kind, &limits));
    }
    let of = |trigger: Trigger| runs.iter().filter(move |run| run.trigger == trigger.name()).map(|run| run.at_ms);
    if let Some(calendar) = &habits.calendar {
        let is_on_time = |at: &u64| {
            let (due, next) = (calendar.up_to(*at), calendar.after(*at));
            due.zip(next).is_some_and(|(due, next)| (at - due) <= (next - due) / 10)
        };
        rhythms.push(Rhythm {
            when: format!("full, at `{}` UTC, if anything changed", config.snapshot.cron),
            last_ms: of(Trigger::Schedule).next_back(),
            next_ms: calendar.after(crate::clock::unix_ms()),
            runs: of(Trigger::Schedule).count() as u64,
            on_time: of(Trigger::Schedule).filter(is_on_time).count() as u64,
        });
    }
    rhythms
}

/// What makes one of a kind due by time and by what came. A full one counts as an incremental one, too.
fn timed(runs: &[Run], kind: Kind, limits: &Limits) -> Vec<Rhythm> {
    let counts = |run: &&Run| kind == Kind::Incremental || run.kind == kind;
    let of = |trigger: Trigger| {
        let is_of = move |run: &&Run| run.kind == kind && run.trigger == trigger.name();
        runs.iter().filter(is_of).map(|run| run.at_ms)
    };
    let mut rhythms = Vec::new();
    if let Some(interval) = limits.interval_ms {
        // Counted from the one before, whatever made that due.
        let before = |at: u64| runs.iter().rev().filter(counts).find(|run| run.at_ms < at);
        let gap = |at: u64| before(at).map(|before| at - before.at_ms);
        let is_on_time = |at: &u64| gap(*at).is_none_or(|gap| gap <= interval + interval / 10);
        rhythms.push(Rhythm {
            when: format!("{}, every {} s, if anything changed", kind.name(), interval / 1000),
            last_ms: of(Trigger::Interval).next_back(),
            next_ms: runs.iter().rfind(counts).map(|last| last.at_ms + interval),
            runs: of(Trigger::Interval).count() as u64,
            on_time: of(Trigger::Interval).filter(is_on_time).count() as u64,
        });
    }
    if let Some(changes) = limits.changes {
        let when = format!("{}, after {changes} entries of the log", kind.name());
        let last_ms = of(Trigger::Changes).next_back();
        rhythms.push(Rhythm { when, last_ms, next_ms: None, runs: 0, on_time: 0 });
    }
    rhythms
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(at_ms: u64, trigger: Trigger) -> Run {
        Run { at_ms, kind: Kind::Full, trigger: trigger.name().to_owned() }
    }

    #[test]
    fn what_came_late_is_counted() {
        let config: Config = toml::from_str(
            "[snapshot]\ninterval = 10000\nlog_threshold = 500\nincremental_interval = 0\nincremental_threshold = 0",
        )
        .unwrap();
        let timed = |at| run(at, Trigger::Interval);
        // One in time, one late, one asked for between, and one that counts from that.
        let runs = vec![timed(100_000), timed(110_500), timed(130_000), run(135_000, Trigger::Asked), timed(145_100)];
        let found = rhythms(&config, runs);
        let [interval, changes] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!((interval.runs, interval.on_time), (4, 3));
        assert_eq!((interval.last_ms, interval.next_ms), (Some(145_100), Some(155_100)));
        assert_eq!((changes.last_ms, changes.next_ms), (None, None));
    }

    #[test]
    fn a_calendar_counts_from_its_own_times() {
        let config: Config =
            toml::from_str("[snapshot]\ncron = '@hourly'\nincremental_interval = 0\nincremental_threshold = 0")
                .unwrap();
        let hour = 3_600_000;
        let runs = vec![run(hour + 1_000, Trigger::Schedule), run(2 * hour + hour / 2, Trigger::Schedule)];
        let found = rhythms(&config, runs);
        let [calendar] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!((calendar.runs, calendar.on_time), (2, 1));
        assert!(calendar.next_ms.is_some_and(|next| next % hour == 0 && next > crate::clock::unix_ms()));
    }
}
