//! Values of columns declared as times, as seconds since 1970.
//!
//! The forms accepted are those of the SQLite driver that HarmonyLite uses, quirks included: a shard must not
//! change because a date is read more cleverly here.

/// The first second of year 1. Go's zero time, which is written as NULL.
const ZERO: i64 = -62_135_596_800;

/// An integer counts seconds, or milliseconds if it is too large for that.
pub fn of_integer(number: i64) -> Option<i64> {
    let seconds = if number.unsigned_abs() > 1_000_000_000_000 {
        // Nanoseconds in between, and they may overflow: so they do there.
        number.wrapping_mul(1_000_000).div_euclid(1_000_000_000)
    } else {
        number
    };
    (seconds != ZERO).then_some(seconds)
}

/// `YYYY-MM-DD`, then perhaps `T` or a space and `HH:MM`, `:SS`, `.fff` and `±HH:MM`, each only after the one before.
/// A `Z` at the end counts for nothing.
pub fn of_text(text: &[u8]) -> Option<i64> {
    let mut text = Text(text.strip_suffix(b"Z").unwrap_or(text));
    let year = text.digits(4)?;
    text.literal(b'-')?;
    let month = text.digits(2)?;
    text.literal(b'-')?;
    let day = text.digits(2)?;
    if !(1..=12).contains(&month) || day < 1 || day > days_in(year, month) {
        return None;
    }
    let midnight = days_since_1970(year, month, day) * 86_400;
    if text.is_empty() {
        return (midnight != ZERO).then_some(midnight);
    }

    if text.literal(b'T').is_none() {
        text.spaces()?;
    }
    let hour = text.digits(2).or_else(|| text.digits(1))?;
    text.literal(b':')?;
    let minute = text.digits(2)?;
    if hour > 23 || minute > 59 {
        return None;
    }
    let mut seconds = midnight + hour * 3600 + minute * 60;
    let mut fraction = false;
    if !text.is_empty() {
        text.literal(b':')?;
        let second = text.digits(2)?;
        if second > 59 {
            return None;
        }
        fraction = text.fraction();
        seconds += second - text.zone()?;
    }
    (seconds != ZERO || fraction).then_some(seconds)
}

/// What is left to read.
struct Text<'a>(&'a [u8]);

impl Text<'_> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn literal(&mut self, byte: u8) -> Option<()> {
        self.0 = self.0.strip_prefix(&[byte])?;
        Some(())
    }

    /// Just `count` digits; nothing is read if there are fewer.
    fn digits(&mut self, count: usize) -> Option<i64> {
        let (digits, rest) = self.0.split_at_checked(count)?;
        let mut number = 0;
        for digit in digits {
            number = number * 10 + i64::from(digit.is_ascii_digit().then(|| digit - b'0')?);
        }
        self.0 = rest;
        Some(number)
    }

    fn spaces(&mut self) -> Option<()> {
        self.literal(b' ')?;
        while self.literal(b' ').is_some() {}
        Some(())
    }

    /// Steps over a fraction of a second; whether it has a nanosecond at least.
    fn fraction(&mut self) -> bool {
        let [b'.' | b',', digits @ ..] = self.0 else { return false };
        let count = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if count == 0 {
            return false;
        }
        let (digits, rest) = digits.split_at(count);
        self.0 = rest;
        digits.iter().take(9).any(|&digit| digit != b'0')
    }

    /// The zone's offset in seconds, to the end of the text.
    fn zone(&mut self) -> Option<i64> {
        if self.is_empty() {
            return Some(0);
        }
        let sign = if self.literal(b'+').is_some() {
            1
        } else {
            self.literal(b'-')?;
            -1
        };
        let hours = self.digits(2)?;
        self.literal(b':')?;
        let minutes = self.digits(2)?;
        (hours <= 24 && minutes <= 60 && self.is_empty()).then_some(sign * (hours * 3600 + minutes * 60))
    }
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    // Count from March: the leap day is then the last of its year, and every year before is whole.
    let (year, month) = if month < 3 { (year - 1, month + 9) } else { (year, month - 3) };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    year * 365 + leap_days + (month * 153 + 2) / 5 + day - 1 - 719_468
}
