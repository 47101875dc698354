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
    #[cfg(feature = "testing")]
    if let Some(ms) = testing::now_ms() {
        return Duration::from_millis(ms);
    }
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(feature = "testing")]
pub mod testing {
    //! A clock that a test sets, for its thread alone: histories run side by side, and repeat to the millisecond.
    use std::cell::Cell;

    thread_local! {
        static NOW_MS: Cell<Option<u64>> = const { Cell::new(None) };
    }

    /// From now on it is so many milliseconds after 1970; without a number, as late as it is.
    pub fn set_ms(now: Option<u64>) {
        NOW_MS.set(now);
    }

    /// What was set.
    #[must_use]
    pub fn now_ms() -> Option<u64> {
        NOW_MS.get()
    }
}
