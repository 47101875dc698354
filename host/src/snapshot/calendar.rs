//! Times at which the user wants a snapshot, as cron writes them, in UTC.

use croner::Cron;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use std::str::FromStr as _;

/// Such times.
#[derive(Clone, Debug)]
pub struct Calendar(Cron);

impl Calendar {
    /// Reads them: minute, hour, day of the month, month, day of the week; or `@hourly` and its like.
    ///
    /// # Errors
    /// Why they are none.
    pub fn read(text: &str) -> Result<Self, String> {
        let calendar = Cron::from_str(text).map(Self).map_err(|error| error.to_string())?;
        match calendar.after(0) {
            Some(_) => Ok(calendar),
            None => Err("it never comes".to_owned()),
        }
    }

    /// The first one after a time, in milliseconds since 1970.
    #[must_use]
    pub fn after(&self, millis: u64) -> Option<u64> {
        let next = self.0.find_next_occurrence(&civil(millis)?, false).ok()?;
        self::millis(next)
    }

    /// The last one up to a time.
    #[must_use]
    pub fn up_to(&self, millis: u64) -> Option<u64> {
        let last = self.0.find_previous_occurrence(&civil(millis)?, true).ok()?;
        self::millis(last)
    }
}

fn civil(millis: u64) -> Option<DateTime> {
    let time = Timestamp::from_millisecond(i64::try_from(millis).ok()?).ok()?;
    Some(time.to_zoned(TimeZone::UTC).datetime())
}

fn millis(time: DateTime) -> Option<u64> {
    u64::try_from(time.to_zoned(TimeZone::UTC).ok()?.timestamp().as_millisecond()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000;

    #[test]
    fn times_come_one_after_the_other() {
        let nightly = Calendar::read("30 3 * * *").unwrap();
        assert_eq!(nightly.after(0), Some(3 * HOUR + HOUR / 2));
        assert_eq!(nightly.after(3 * HOUR + HOUR / 2), Some(27 * HOUR + HOUR / 2), "the next, not the same");
        assert_eq!(nightly.up_to(27 * HOUR), Some(3 * HOUR + HOUR / 2));
        assert_eq!(nightly.up_to(27 * HOUR + HOUR / 2), Some(27 * HOUR + HOUR / 2));
        let hourly = Calendar::read("@hourly").unwrap();
        assert_eq!(hourly.after(HOUR / 2), Some(HOUR));
    }

    #[test]
    fn what_is_no_calendar_is_said_to_be_none() {
        for text in ["", "every day", "61 * * * *", "* * *", "0 0 31 2 *"] {
            assert!(Calendar::read(text).is_err(), "{text}");
        }
    }
}
