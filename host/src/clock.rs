//! The wall clock, read in one place. The fold never reads it: what it says travels as data.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970; 0 if the clock stands before that.
#[must_use]
pub fn unix_ms() -> u64 {
    u64::try_from(now().as_millis()).unwrap_or(u64::MAX)
}

/// Nanoseconds since 1970; 0 if the clock stands before that.
#[must_use]
pub fn unix_ns() -> u64 {
    u64::try_from(now().as_nanos()).unwrap_or(u64::MAX)
}

fn now() -> Duration {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    #[cfg(feature = "testing")]
    let since = testing::moved(since);
    since
}

#[cfg(feature = "testing")]
pub mod testing {
    //! A clock that is wrong, for this thread alone: histories run side by side.
    use std::cell::Cell;
    use std::time::Duration;

    thread_local! {
        static OFFSET_MS: Cell<i64> = const { Cell::new(0) };
    }

    /// Moves the clock by so many milliseconds from the right time.
    pub fn offset_ms(offset: i64) {
        OFFSET_MS.set(offset);
    }

    pub(super) fn moved(since: Duration) -> Duration {
        let offset = OFFSET_MS.get();
        let by = Duration::from_millis(offset.unsigned_abs());
        if offset < 0 { since.saturating_sub(by) } else { since.saturating_add(by) }
    }
}
