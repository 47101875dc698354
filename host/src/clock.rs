//! The wall clock, read in one place. The fold never reads it: what it says travels as data.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970; 0 if the clock stands before that.
#[must_use]
pub fn unix_ms() -> u64 {
    u64::try_from(since_1970().as_millis()).unwrap_or(u64::MAX)
}

/// Nanoseconds since 1970; 0 if the clock stands before that.
#[must_use]
pub fn unix_ns() -> u64 {
    u64::try_from(since_1970().as_nanos()).unwrap_or(u64::MAX)
}

/// What the clocks of nodes may differ by.
pub const DIFFER_MS: u64 = 600_000;

/// Whether a time is still so far off that the clock of whoever noted it was wrong.
#[must_use]
pub fn is_to_come(noted_ms: u64, now_ms: u64) -> bool {
    noted_ms > now_ms.saturating_add(DIFFER_MS)
}

/// A time in UTC: `2026-11-21T12:05:41.123Z`.
#[must_use]
pub fn utc(unix_ms: u64) -> String {
    let (days, in_day) = (unix_ms / 86_400_000, unix_ms % 86_400_000);
    let (year, month, day) = civil(days);
    let (hour, minute) = (in_day / 3_600_000, in_day / 60_000 % 60);
    let (second, milli) = (in_day / 1000 % 60, in_day % 1000);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
}

/// The date so many days after 1970-01-01, in a calendar whose years begin in March.
pub(crate) fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (year + era * 400 + carry, month, day)
}

fn since_1970() -> Duration {
    #[cfg(feature = "testing")]
    if let Some(millis) = testing::now() {
        return Duration::from_millis(millis);
    }
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(feature = "testing")]
pub mod testing {
    //! A clock that a test sets, for its own thread: one that jumps, goes back or stands still.
    use rusqlite::Connection;
    use rusqlite::functions::FunctionFlags;
    use std::cell::Cell;

    thread_local! {
        static NOW: Cell<Option<u64>> = const { Cell::new(None) };
    }

    /// The time that this thread is told from now on, in milliseconds since 1970; `None` = the machine's.
    pub fn set(now: Option<u64>) {
        NOW.set(now);
    }

    pub(super) fn now() -> Option<u64> {
        NOW.get()
    }

    /// When 1970 began, in days.
    const UNIX_EPOCH_JD: f64 = 2_440_587.5;
    const DAY_MS: f64 = 86_400_000.0;

    /// Lets SQL on this connection go by the time that was set, if one was: triggers ask for `julianday('now')`.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn tell(conn: &Connection) -> rusqlite::Result<()> {
        if now().is_none() {
            return Ok(());
        }
        let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_INNOCUOUS;
        conn.create_scalar_function("julianday", 1, flags, |context| {
            #[expect(clippy::cast_precision_loss, reason = "a day of our times is far below 2^53 ms")]
            match context.get_raw(0).as_str() {
                Ok("now") => Ok(super::unix_ms() as f64 / DAY_MS + UNIX_EPOCH_JD),
                _ => Err(rusqlite::Error::UserFunctionError("only the time of now is set".into())),
            }
        })
    }
}
