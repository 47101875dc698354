//! Hours, days, weeks and months of a time, in UTC: what "one of each day" is counted by.

const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;
/// 1970 began on a Thursday; weeks begin on Monday.
const DAYS_BEFORE_MONDAY: u64 = 3;

pub(super) fn hour(millis: u64) -> u64 {
    millis / HOUR_MS
}

pub(super) fn day(millis: u64) -> u64 {
    millis / DAY_MS
}

pub(super) fn week(millis: u64) -> u64 {
    (day(millis) + DAYS_BEFORE_MONDAY) / 7
}

/// Months since the year 0.
pub(super) fn month(millis: u64) -> u64 {
    // Counted from the 1st of March of the year 0, so that the day that some years have comes last.
    let days = day(millis) + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    (era * 400 + year_of_era) * 12 + month_from_march + 2
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Milliseconds of a day, by how many days it lies after the 1st of January 1970.
    fn days(days: u64) -> u64 {
        days * DAY_MS
    }

    #[test]
    fn months_begin_where_the_calendar_says() {
        // 2024-01-31, 2024-02-01, 2024-02-29, 2024-03-01, 2025-01-01.
        let days = [19_753, 19_754, 19_782, 19_783, 20_089].map(days);
        assert_eq!(days.map(month), [2024 * 12, 2024 * 12 + 1, 2024 * 12 + 1, 2024 * 12 + 2, 2025 * 12]);
        assert_eq!(month(days[0] + DAY_MS - 1), 2024 * 12);
    }

    #[test]
    fn weeks_begin_on_monday() {
        // 2024-01-07 was a Sunday.
        assert_eq!(week(days(19_729)) + 1, week(days(19_730)));
        assert_eq!(week(days(19_730)), week(days(19_736)));
    }
}
