//! An outbox that fills: said at each step, for nothing of it is ever dropped.

/// The shares of the room at which it is said, in percent.
const STEPS: [u64; 3] = [50, 80, 95];
/// Less than this is no outage.
const LEAST: u64 = 64 << 10;

/// With so many percent of its room left in use a full outbox has room again.
const ROOM_AGAIN: u64 = 80;

/// What happens when an outbox has used its room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFull {
    /// It grows on.
    #[default]
    Grow,
    /// The application's writes are refused.
    Refuse,
    /// What the application writes is not captured, and its tables are compared with the log after it.
    Stop,
}

impl OnFull {
    /// All of them, by the names that they have in a configuration.
    pub const ALL: [(&'static str, Self); 3] = [("grow", Self::Grow), ("refuse", Self::Refuse), ("stop", Self::Stop)];

    /// The one of this name; the first, if none is.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self::ALL.into_iter().find(|(known, _)| *known == name).map(|(_, found)| found).unwrap_or_default()
    }
}

/// How much may wait for the log, and what happens then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ceiling {
    /// Bytes; 0: what the disk has room for.
    pub bytes: u64,
    /// What happens when so many wait.
    pub on_full: OnFull,
}

impl Ceiling {
    /// Whether it counts as full, where so much waits and it was full before or not.
    #[must_use]
    pub fn is_reached(&self, waiting: u64, was_full: bool) -> bool {
        let enough = if was_full { self.bytes.saturating_mul(ROOM_AGAIN) / 100 } else { self.bytes };
        self.on_full != OnFull::Grow && self.bytes > 0 && waiting >= enough
    }
}

/// What changes that wait have used of their room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filled {
    /// The step that was passed, in percent.
    pub percent: u64,
    /// Bytes that wait.
    pub waiting: u64,
    /// Bytes there is room for.
    pub room: u64,
}

/// Remembers which step was said.
#[derive(Clone, Copy, Debug, Default)]
pub struct Alarm {
    said: u64,
}

impl Alarm {
    /// Takes a measure. With no limit of its own the room is what waits and what the disk has left. Gives what is to
    /// be said: a step further up, once; and below the first step everything begins anew.
    pub fn measure(&mut self, waiting: u64, limit: u64, free: u64) -> Option<Filled> {
        let room = if limit == 0 { waiting.saturating_add(free) } else { limit };
        let used = waiting.saturating_mul(100).checked_div(room.max(1)).unwrap_or(0);
        let small = limit == 0 && waiting < LEAST;
        let percent = STEPS.into_iter().rev().find(|step| used >= *step && !small).unwrap_or(0);
        let rises = percent > self.said;
        self.said = if percent == 0 { 0 } else { self.said.max(percent) };
        rises.then_some(Filled { percent, waiting, room })
    }

    /// The highest step that was said and has not ended, in percent; 0: none.
    #[must_use]
    pub fn percent(&self) -> u64 {
        self.said
    }

    /// Whether anything was said that has not ended.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.said > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// C116: writes are refused from the ceiling on, and taken again once there is some room.
    #[test]
    fn c116_what_is_refused_is_taken_again_with_some_room() {
        let ceiling = Ceiling { bytes: 1_000, on_full: OnFull::Refuse };
        let mut refused = false;
        let steps = [0, 999, 1_000, 1_500, 801, 800, 799, 999, 1_000].map(|waiting| {
            refused = ceiling.is_reached(waiting, refused);
            refused
        });
        assert_eq!(steps, [false, false, true, true, true, true, false, false, true]);
        assert!(!Ceiling { on_full: OnFull::Grow, ..ceiling }.is_reached(5_000, true));
        assert!(!Ceiling { bytes: 0, ..ceiling }.is_reached(5_000, true), "the disk is SQLite's to speak of");
    }

    /// C116: each step once on the way up, again after it was over.
    #[test]
    fn c116_each_step_is_said_once() {
        let mut alarm = Alarm::default();
        let mut said = |waiting| alarm.measure(waiting, 1_000, 0).map(|filled| filled.percent);
        let steps = [0, 499, 500, 600, 800, 949, 950, 2_000, 700, 960, 10, 1_000];
        assert_eq!(
            steps.map(&mut said),
            [None, None, Some(50), None, Some(80), None, Some(95), None, None, None, None, Some(95)]
        );
    }

    /// C116: without a limit the disk is one, and what waits counts as part of it.
    #[test]
    fn c116_without_a_limit_the_disk_is_one() {
        let mut alarm = Alarm::default();
        assert_eq!(alarm.measure(1 << 20, 0, 10 << 20), None);
        assert_eq!(
            alarm.measure(5 << 20, 0, 5 << 20).map(|filled| (filled.percent, filled.room)),
            Some((50, 10 << 20))
        );
        assert_eq!(alarm.measure(10 << 20, 0, 0).map(|filled| filled.percent), Some(95));
        assert!(alarm.is_on());
        assert_eq!(alarm.measure(1, 0, 0), None, "a full disk is SQLite's to report, when nothing waits");
        assert!(!alarm.is_on());
    }
}
