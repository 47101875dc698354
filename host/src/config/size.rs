//! Amounts of bytes, as people write them: `64 MiB`, or a number.

use std::fmt;

use serde::de::{Error as _, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// So many bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// Units, the largest first. Those of a thousand are not known: who writes `MB` should say which he means.
const UNITS: &[(&str, u64)] = &[("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

impl Size {
    /// So many MiB.
    pub(super) const fn mib(count: u64) -> Self {
        Self(count << 20)
    }

    /// The amount that a text says, if it says one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at_checked(digits)?;
        let number: u64 = number.parse().ok()?;
        let unit = match unit.trim() {
            "" => 1,
            unit => UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?.1,
        };
        number.checked_mul(unit).map(Self)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = UNITS.iter().find(|(_, unit)| self.0 >= *unit && self.0.is_multiple_of(*unit));
        match whole {
            Some((name, unit)) => write!(f, "{} {name}", self.0 / unit),
            None => write!(f, "{}", self.0),
        }
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Amount;

        impl Visitor<'_> for Amount {
            type Value = Size;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an amount of bytes")
            }

            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Size, E> {
                Ok(Size(number))
            }

            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Size, E> {
                u64::try_from(number).map(Size).map_err(|_| E::custom("an amount of bytes is not negative"))
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Size, E> {
                Size::parse(text).ok_or_else(|| E::custom("no amount of bytes"))
            }
        }

        deserializer.deserialize_any(Amount).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_as_people_write_them() {
        let cases =
            [("64 MiB", Some(64 << 20)), ("1GiB", Some(1 << 30)), ("7", Some(7)), ("7 b", Some(7)), ("0", Some(0))];
        for (text, bytes) in cases {
            assert_eq!(Size::parse(text), bytes.map(Size), "{text}");
        }
        for text in ["", "MiB", "-1", "1.5 MiB", "1 MB", "99999999999 GiB", "64 MiB 1"] {
            assert_eq!(Size::parse(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_shown_is_read_as_the_same() {
        for bytes in [0, 1, 1023, 1024, 1536, 64 << 20, (64 << 20) + 1, 1 << 30, u64::MAX] {
            assert_eq!(Size::parse(&Size(bytes).to_string()), Some(Size(bytes)));
        }
        assert_eq!(Size::mib(64).to_string(), "64 MiB");
    }
}
