//! The last minutes: what a page that is opened now can show of the time before.

use super::Vitals;
use serde::Serialize;
use std::collections::VecDeque;

/// How far back.
const MINUTES: u64 = 15;
/// At most one in this time is kept.
const STEP_MS: u64 = 2_000;

/// One moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Moment {
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// Changes of other nodes applied a second since the moment before.
    pub applied: f64,
    /// Changes of its own that came back, a second.
    pub published: f64,
    /// How long the oldest change that was not applied had been in the log, in seconds.
    pub lag: f64,
    /// How long the oldest change that had not come back had waited, in seconds.
    pub waits: f64,
    /// Whether it was well.
    pub healthy: bool,
}

/// The last minutes.
#[derive(Clone, Debug, Default)]
pub struct History {
    moments: VecDeque<Moment>,
    /// Totals at the last moment.
    last: Option<(u64, u64, u64)>,
}

impl History {
    /// Notes how it is now; gives the moment, if it is one.
    pub fn note(&mut self, vitals: &Vitals) -> Option<Moment> {
        let now = (vitals.at_ms, vitals.applied, vitals.published);
        let Some((at_ms, applied, published)) = self.last else {
            self.last = Some(now);
            return None;
        };
        // A clock that was set back begins anew.
        if vitals.at_ms >= at_ms && vitals.at_ms - at_ms < STEP_MS {
            return None;
        }
        self.last = Some(now);
        let seconds = crate::metrics::figure(vitals.at_ms.saturating_sub(at_ms).max(1)) / 1000.0;
        let a_second = |total: u64, before: u64| crate::metrics::figure(total.saturating_sub(before)) / seconds;
        let behind = vitals.status.shards.iter().filter_map(|shard| shard.behind.as_ref());
        let moment = Moment {
            at_ms: vitals.at_ms,
            applied: a_second(vitals.applied, applied),
            published: a_second(vitals.published, published),
            lag: behind.map(|behind| behind.seconds).fold(0.0, f64::max),
            waits: vitals.status.pending.seconds.unwrap_or(0.0),
            healthy: vitals.health.healthy,
        };
        self.moments.push_back(moment);
        while self.moments.front().is_some_and(|first| first.at_ms + MINUTES * 60_000 < vitals.at_ms) {
            self.moments.pop_front();
        }
        // A clock that jumped may leave what never gets old.
        while self.moments.len() as u64 > MINUTES * 60_000 / STEP_MS {
            self.moments.pop_front();
        }
        Some(moment)
    }

    /// All moments, the oldest first.
    #[must_use]
    pub fn moments(&self) -> Vec<Moment> {
        self.moments.iter().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(at_ms: u64, applied: u64) -> Vitals {
        Vitals { at_ms, applied, ..Vitals::default() }
    }

    #[test]
    fn speeds_are_those_between_two_moments() {
        let mut history = History::default();
        assert_eq!(history.note(&at(10_000, 5)), None, "there is nothing to compare the first with");
        assert_eq!(history.note(&at(11_000, 7)), None, "it is too soon");
        let moment = history.note(&at(14_000, 25)).unwrap();
        assert!((moment.applied - 5.0).abs() < 1e-9);
        assert_eq!(history.moments().len(), 1);
    }

    #[test]
    fn what_is_old_goes_however_the_clock_jumps() {
        let mut history = History::default();
        for step in 0..10_000 {
            history.note(&at(step * 2_000, step));
        }
        assert!(history.moments().len() <= 451);
        for step in 0..10_000 {
            history.note(&at(step * 2_000, step));
        }
        assert!(history.moments().len() <= 451);
    }
}
