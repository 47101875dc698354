//! Values, rows and times as commands print them: for people as SQL would spell them, for scripts as JSON.

use crate::clock::civil;
pub(super) use crate::clock::utc;
pub(super) use crate::words::{count, shell};
use antiphon_core::value::Value;
use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};
use std::fmt;

/// Most characters of a text, and most bytes of a blob, that are printed unless all is asked for.
pub(super) const SHORT: usize = 60;

/// A value as a literal of SQL, cut after so many characters.
///
/// What a terminal could take for more than text is spelled by `char()`, and text that is not UTF-8 by its bytes.
pub(super) struct Literal<'a> {
    pub(super) value: &'a Value,
    pub(super) most: usize,
}

impl fmt::Display for Literal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.value {
            Value::Real(number) if number.is_infinite() => f.write_str(if *number > 0.0 { "9e999" } else { "-9e999" }),
            Value::Text(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => self.text(f, text),
                Err(_) => {
                    f.write_str("CAST(")?;
                    hex(f, bytes, self.most)?;
                    f.write_str(" AS TEXT)")?;
                    self.rest(f, bytes.len(), self.most)
                }
            },
            Value::Blob(bytes) => {
                hex(f, bytes, self.most)?;
                self.rest(f, bytes.len(), self.most)
            }
            other => write!(f, "{other}"),
        }
    }
}

impl Literal<'_> {
    fn text(&self, f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
        let cut = text.char_indices().nth(self.most).map_or(text.len(), |(at, _)| at);
        let shown = text.get(..cut).unwrap_or(text);
        let mut open = false;
        let mut first = true;
        for char in shown.chars() {
            if is_plain(char) {
                if !open {
                    f.write_str(if first { "'" } else { " || '" })?;
                    open = true;
                }
                if char == '\'' { f.write_str("''")? } else { write!(f, "{char}")? }
            } else {
                if open {
                    f.write_str("'")?;
                    open = false;
                }
                write!(f, "{}char({})", if first { "" } else { " || " }, u32::from(char))?;
            }
            first = false;
        }
        if open {
            f.write_str("'")?;
        } else if first {
            f.write_str("''")?;
        }
        if cut < text.len() { write!(f, "… ({} bytes)", text.len()) } else { Ok(()) }
    }

    fn rest(&self, f: &mut fmt::Formatter<'_>, length: usize, shown: usize) -> fmt::Result {
        if length > shown { write!(f, "… ({length} bytes)") } else { Ok(()) }
    }
}

fn hex(f: &mut fmt::Formatter<'_>, bytes: &[u8], most: usize) -> fmt::Result {
    f.write_str("x'")?;
    for byte in bytes.iter().take(most) {
        write!(f, "{byte:02x}")?;
    }
    f.write_str("'")
}

/// Neither a control character nor one that turns the direction of what follows.
fn is_plain(char: char) -> bool {
    !(char.is_control() || matches!(char, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'))
}

/// A name in a line of text, whatever is in it.
pub(super) fn name(name: &str) -> String {
    name.chars().flat_map(|char| if is_plain(char) { vec![char] } else { char.escape_default().collect() }).collect()
}

/// Columns and their values: `id = 1, name = 'Ada'`.
pub(super) struct Fields<'a> {
    pub(super) columns: &'a [String],
    pub(super) values: &'a [Value],
    pub(super) most: usize,
}

impl fmt::Display for Fields<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, value) in self.values.iter().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            let value = Literal { value, most: self.most };
            match self.columns.get(at) {
                Some(column) => write!(f, "{comma}{} = {value}", name(column))?,
                None => write!(f, "{comma}{value}")?,
            }
        }
        Ok(())
    }
}

/// A value as JSON. Integers are exact, at any size; what JSON has no word for is an object with one key: `$blob` and
/// `$text` (not UTF-8) in base64, `$real` for the infinities.
pub(super) struct Json<'a>(pub(super) &'a Value);

impl Serialize for Json<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let tagged = |serializer: S, tag: &str, text: &str| {
            let mut map = serializer.serialize_map(Some(1))?;
            map.serialize_entry(tag, text)?;
            map.end()
        };
        match self.0 {
            Value::Null => serializer.serialize_unit(),
            Value::Integer(number) => serializer.serialize_i64(*number),
            Value::Real(number) if number.is_finite() => serializer.serialize_f64(*number),
            Value::Real(number) => tagged(serializer, "$real", &number.to_string()),
            Value::Text(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => serializer.serialize_str(text),
                Err(_) => tagged(serializer, "$text", &base64(bytes)),
            },
            Value::Blob(bytes) => tagged(serializer, "$blob", &base64(bytes)),
        }
    }
}

/// A row as a JSON object, in the order of its columns.
pub(super) struct JsonRow<'a> {
    pub(super) columns: &'a [String],
    pub(super) values: &'a [Value],
}

impl Serialize for JsonRow<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.columns.iter().zip(self.values.iter().map(Json)))
    }
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for piece in bytes.chunks(3) {
        let at = |index: usize| u32::from(piece.get(index).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for place in 0..4 {
            let letter = LETTERS.get((bits >> (18 - 6 * place) & 63) as usize).copied().unwrap_or(b'=');
            text.push(if place <= piece.len() { char::from(letter) } else { '=' });
        }
    }
    text
}

/// So many days after 1970-01-01 is a date, in a calendar whose years begin in March.
fn days(year: u64, month: u64, day: u64) -> u64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year / 400, year % 400);
    let month = if month > 2 { month - 3 } else { month + 9 };
    let of_year = (153 * month + 2) / 5 + day - 1;
    (era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year).saturating_sub(719_468)
}

/// A moment as users give it, for an argument of a command: a date (`2026-11-21`, `2026-11-21T12:05:41.5+01:00`, in UTC
/// where it does not say otherwise), or a time before now (`90s`, `15m`, `12h`, `7d`, with `ago` or without).
pub(super) fn moment(text: &str) -> Result<u64, String> {
    let wrong = || {
        "give a date as in 2026-11-21 or 2026-11-21T12:05:41Z (UTC, or with +01:00), or an age as in 90s, 15m, 12h or 7d"
            .to_owned()
    };
    let text = text.trim();
    let text = text.strip_suffix("ago").map_or(text, str::trim_end);
    if let Some((at, unit)) = text.char_indices().next_back()
        && let Some(seconds) = match unit {
            's' => Some(1),
            'm' => Some(60),
            'h' => Some(3600),
            'd' => Some(86_400),
            _ => None,
        }
    {
        let count: u64 = text.get(..at).unwrap_or_default().parse().map_err(|_| wrong())?;
        return Ok(crate::clock::unix_ms().saturating_sub(count.saturating_mul(seconds * 1000)));
    }
    date(text).ok_or_else(wrong)
}

/// A date, in milliseconds since 1970.
fn date(text: &str) -> Option<u64> {
    let numbers = |text: &str, separator| -> Option<Vec<u64>> {
        text.split(separator)
            .map(|part| part.parse().ok().filter(|_| part.bytes().all(|byte| byte.is_ascii_digit())))
            .collect()
    };
    let (date, time) = text.split_once(['T', 't', ' ']).unwrap_or((text, "00:00"));
    // East of Greenwich it is later.
    let (time, ahead_ms) = match (time.strip_suffix(['Z', 'z']), time.rfind(['+', '-'])) {
        (Some(time), _) => (time, 0),
        (None, None) => (time, 0),
        (None, Some(at)) => {
            let (time, zone) = time.split_at_checked(at)?;
            let [hours @ 0..=23, minutes @ 0..=59] = *numbers(zone.get(1..)?, ':')?.as_slice() else { return None };
            let ahead = i64::try_from((hours * 60 + minutes) * 60_000).ok()?;
            (time, if zone.starts_with('-') { -ahead } else { ahead })
        }
    };
    let (time, fraction) = time.split_once('.').unwrap_or((time, ""));
    let is_fraction = fraction.len() <= 9 && fraction.bytes().all(|byte| byte.is_ascii_digit());
    // Of a fraction milliseconds count, and what is behind them is cut off.
    let millis: u64 = format!("{fraction:0<3}").get(..3).filter(|_| is_fraction)?.parse().ok()?;
    let (date, time) = (numbers(date, '-')?, numbers(time, ':')?);
    let ([year @ 1970..=9999, month @ 1..=12, day @ 1..=31], [hour @ 0..=23, minute @ 0..=59, second @ ..]) =
        (date.as_slice(), time.as_slice())
    else {
        return None;
    };
    let second = match second {
        [] if fraction.is_empty() => 0,
        [second @ 0..=60] => *second,
        _ => return None,
    };
    let days = days(*year, *month, *day);
    // The 31st of April is no day.
    if civil(days) != (*year, *month, *day) {
        return None;
    }
    ((days * 86_400 + hour * 3600 + minute * 60 + second) * 1000 + millis).checked_add_signed(-ahead_ms)
}

/// A count of bytes for people.
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let mut unit = None;
    let (mut whole, mut tenth) = (count, 0);
    for name in UNITS {
        if whole < 1024 {
            break;
        }
        tenth = whole % 1024 * 10 / 1024;
        whole /= 1024;
        unit = Some(name);
    }
    match unit {
        None => format!("{count} bytes"),
        Some(unit) => format!("{whole}.{tenth} {unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn literal(value: impl Into<Value>) -> String {
        Literal { value: &value.into(), most: 8 }.to_string()
    }

    /// What is printed is SQL, so SQLite says what it means.
    #[test]
    fn a_literal_means_the_value() {
        let conn = rusqlite::Connection::open_in_memory().unwrap();
        for value in [
            Value::Null,
            Value::Integer(i64::MIN + 1),
            Value::Real(1.0),
            Value::Real(-0.5),
            Value::Real(f64::NEG_INFINITY),
            Value::from(""),
            Value::from("it's"),
            Value::from("\na\n\nb\u{1b}[31m"),
            Value::from("\0"),
            Value::Text(vec![0xff, b'a']),
            Value::Blob(vec![0, 255]),
        ] {
            let text = Literal { value: &value, most: 100 }.to_string();
            assert!(text.chars().all(is_plain), "{text:?}");
            let found = conn.query_row(&format!("SELECT {text}"), [], |row| {
                Ok(match row.get_ref(0)? {
                    rusqlite::types::ValueRef::Null => Value::Null,
                    rusqlite::types::ValueRef::Integer(number) => Value::Integer(number),
                    rusqlite::types::ValueRef::Real(number) => Value::Real(number),
                    rusqlite::types::ValueRef::Text(text) => Value::Text(text.to_vec()),
                    rusqlite::types::ValueRef::Blob(bytes) => Value::Blob(bytes.to_vec()),
                })
            });
            assert_eq!(found.unwrap(), value, "{text}");
        }
    }

    #[test]
    fn a_path_is_one_word_of_a_shell() {
        assert_eq!(shell(Path::new("a/b=c.toml")), "a/b=c.toml");
        assert_eq!(shell(Path::new("it's a.toml")), r"'it'\''s a.toml'");
        assert_eq!(shell(Path::new("")), "''");
    }

    #[test]
    fn a_name_stays_in_its_line() {
        assert_eq!(name("a\nexclude = ['é']\u{202e}"), "a\\nexclude = ['é']\\u{202e}");
    }

    #[test]
    fn a_long_value_is_cut_and_says_so() {
        assert_eq!(literal("12345678"), "'12345678'");
        assert_eq!(literal("éééééééééé"), "'éééééééé'… (20 bytes)");
        assert_eq!(literal(Value::Blob(vec![7; 9])), "x'0707070707070707'… (9 bytes)");
    }

    #[test]
    fn json_keeps_what_json_can_hold_and_tags_the_rest() {
        let json = |value: Value| serde_json::to_string(&Json(&value)).unwrap();
        assert_eq!(json(Value::Integer(i64::MIN)), "-9223372036854775808");
        assert_eq!(json(Value::Integer((1 << 53) + 1)), "9007199254740993");
        assert_eq!(json(Value::Real(1.0)), "1.0");
        assert_eq!(json(Value::Real(f64::INFINITY)), r#"{"$real":"inf"}"#);
        assert_eq!(json(Value::Text(vec![0xff])), r#"{"$text":"/w=="}"#);
        assert_eq!(json(Value::from("a\"\n")), r#""a\"\n""#);
        for (bytes, text) in [(&b""[..], ""), (b"f", "Zg=="), (b"fo", "Zm8="), (b"foo", "Zm9v"), (b"foob", "Zm9vYg==")]
        {
            assert_eq!(json(Value::Blob(bytes.to_vec())), format!(r#"{{"$blob":"{text}"}}"#));
        }
    }

    #[test]
    fn times_are_what_sqlite_makes_of_them() {
        let conn = rusqlite::Connection::open_in_memory().unwrap();
        for ms in [0_i64, 951_782_399_999, 951_782_400_000, 1_767_225_600_001, 4_107_542_399_000, 1_709_164_800_000] {
            let text: String = conn
                .query_row("SELECT strftime('%Y-%m-%dT%H:%M:%fZ', ?1 / 1000.0, 'unixepoch')", [ms], |row| row.get(0))
                .unwrap();
            let ms = ms.cast_unsigned();
            assert_eq!(utc(ms), text);
            assert_eq!(moment(text.split('.').next().unwrap()).unwrap(), ms / 1000 * 1000);
        }
    }

    #[test]
    fn a_moment_is_a_date_or_an_age() {
        assert_eq!(moment("1970-01-02"), Ok(86_400_000));
        assert_eq!(moment("1970-01-01T01:02Z"), Ok(3_720_000));
        assert_eq!(moment("1970-01-02 01:02:03.0456+01:00"), Ok(86_523_045));
        assert_eq!(moment("1970-01-01T00:00:00-00:30"), Ok(1_800_000));
        assert!(crate::clock::unix_ms() - moment("2h ago").unwrap() >= 7_200_000);
        assert!(crate::clock::unix_ms() - moment("1h").unwrap() >= 3_600_000);
        for wrong in [
            "",
            "yesterday",
            "2026-02-30",
            "2026-13-01",
            "2026-1",
            "12",
            "xd",
            "2026-01-01T25:00",
            "+1-1-1",
            "2026-01-01T10:00+1",
            "1970-01-01T00:00+01:00",
            "2026-01-01T10:00.5",
            "ago",
        ] {
            assert!(moment(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn bytes_are_rounded_down() {
        assert_eq!([bytes(1023), bytes(1024), bytes(1_600_000)], ["1023 bytes", "1.0 KiB", "1.5 MiB"]);
    }
}
