//! Turns at the write lock: the application must have its own, however much the host has to do.
//!
//! SQLite looks for a lock in pauses that grow to 100 ms. Whoever takes it again after a moment, again and again, keeps
//! others out for seconds although it never holds it long.

use std::time::{Duration, Instant};

/// The lock may be held so long in one stretch, moments in between not counted.
const STRETCH: Duration = Duration::from_millis(200);
/// A pause in which everyone who waits looks for the lock once.
const PAUSE: Duration = Duration::from_millis(105);

/// How long the lock was held of late, less what it was free.
#[derive(Debug, Default)]
pub(super) struct Turns {
    held: Duration,
    released: Option<Instant>,
}

impl Turns {
    /// The lock was held from then until now.
    pub(super) fn note(&mut self, since: Instant) {
        let now = Instant::now();
        if let Some(released) = self.released {
            self.held = self.held.saturating_sub(since.saturating_duration_since(released));
        }
        self.held += now.saturating_duration_since(since);
        self.released = Some(now);
    }

    /// Another connection has committed: whoever waits finds the lock free often enough.
    pub(super) fn others_had_theirs(&mut self) {
        self.held = Duration::ZERO;
    }

    /// How long the lock should be left alone from now on. Asked once before each piece of work: the pause that is given
    /// counts as taken.
    pub(super) fn pause(&mut self) -> Duration {
        let free = self.released.map_or(PAUSE, |released| released.elapsed());
        if self.held < STRETCH {
            return Duration::ZERO;
        }
        self.held = Duration::ZERO;
        PAUSE.saturating_sub(free)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_stretch_is_followed_by_a_pause() {
        let now = Instant::now();
        let ago = |ms| now.checked_sub(Duration::from_millis(ms)).unwrap();
        let mut turns = Turns::default();
        turns.note(ago(150));
        assert_eq!(turns.pause(), Duration::ZERO);
        turns.held += Duration::from_millis(60);
        assert!(turns.pause() > Duration::from_millis(50));
        assert_eq!(turns.pause(), Duration::ZERO, "it was taken");
    }

    #[test]
    fn others_that_commit_need_no_pause() {
        let mut turns = Turns { held: Duration::from_millis(300), released: Some(Instant::now()) };
        turns.others_had_theirs();
        assert_eq!(turns.pause(), Duration::ZERO);
    }

    #[test]
    fn time_in_which_the_lock_was_free_counts() {
        let now = Instant::now();
        let ago = |ms| now.checked_sub(Duration::from_millis(ms)).unwrap();
        let mut turns = Turns { held: Duration::from_millis(190), released: Some(ago(150)) };
        turns.note(ago(20));
        assert!(turns.held < Duration::from_millis(100), "{turns:?}");
    }
}
