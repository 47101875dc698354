//! A snapshot's name: when it was begun, and eighty bits of chance. Two makers at one moment never choose the same.

use std::fmt;
use std::str::FromStr;

/// Digits of a name, in the order of their values: none that is taken for another.
const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// Letters of a name.
const LETTERS: usize = 26;
/// Bits of chance; above them stand the milliseconds.
const CHANCE_BITS: u32 = 80;

/// A snapshot's name. Later ones sort after earlier ones, as text, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnapshotId(u128);

impl SnapshotId {
    /// A name for a snapshot begun at this time, in milliseconds since 1970.
    #[must_use]
    pub fn new(millis: u64, chance: u128) -> Self {
        let time = u128::from(millis) << CHANCE_BITS;
        Self(time | (chance & ((1 << CHANCE_BITS) - 1)))
    }

    /// When it was begun, in milliseconds since 1970.
    #[must_use]
    pub fn millis(self) -> u64 {
        u64::try_from(self.0 >> CHANCE_BITS).unwrap_or(u64::MAX)
    }

    /// Of its chance, as much as fits.
    #[must_use]
    pub fn chance(self) -> u64 {
        u64::try_from(self.0 & u128::from(u64::MAX)).unwrap_or(0)
    }
}

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digit = |place: usize| {
            let value = (self.0 >> (5 * (LETTERS - 1 - place))) & 31;
            DIGITS.get(usize::try_from(value).unwrap_or(0)).copied().map_or('0', char::from)
        };
        let name: String = (0..LETTERS).map(digit).collect();
        f.pad(&name)
    }
}

/// It is not a snapshot's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a snapshot's name: these have {LETTERS} digits and capital letters")]
pub struct NotAName(String);

impl FromStr for SnapshotId {
    type Err = NotAName;

    fn from_str(text: &str) -> Result<Self, NotAName> {
        let not_a_name = || NotAName(text.to_owned());
        if text.len() != LETTERS {
            return Err(not_a_name());
        }
        let mut number: u128 = 0;
        for letter in text.bytes() {
            let value = DIGITS.iter().position(|digit| digit.eq_ignore_ascii_case(&letter)).ok_or_else(not_a_name)?;
            // The first digit has only three bits left.
            number = number.checked_mul(32).ok_or_else(not_a_name)? | value as u128;
        }
        Ok(Self(number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_as_it_was_written() {
        for (millis, chance) in [(0, 0), (1_700_000_000_000, 42), ((1 << 48) - 1, u128::MAX)] {
            let id = SnapshotId::new(millis, chance);
            assert_eq!(id.millis(), millis);
            assert_eq!(id.to_string().parse(), Ok(id));
            assert_eq!(id.to_string().to_lowercase().parse(), Ok(id));
        }
    }

    #[test]
    fn names_sort_by_time() {
        let (earlier, later) = (SnapshotId::new(1_000, u128::MAX), SnapshotId::new(1_001, 0));
        assert!(earlier < later && earlier.to_string() < later.to_string());
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in ["", "0", "U0000000000000000000000000", "80000000000000000000000000", "0000000000000000000000000é"]
        {
            assert!(text.parse::<SnapshotId>().is_err(), "{text}");
        }
    }
}
