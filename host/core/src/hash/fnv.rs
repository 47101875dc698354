//! The native twin of the component `fnv`: the specification it is held to, written to be read.
//!
//! HarmonyLite's hash of a row: FNV-1 (not 1a) of `9f`, the table's name, for each key column in byte-wise order
//! of names `82 <name> <value>`, and `ff`. Columns declared as booleans or times are written as its
//! SQLite driver reads them.

use super::{Hash, PackedKeys, PluginError};
use crate::cbor::{self, Malformed, Reader};
use crate::schema::Table;
use crate::value::Value;

const OFFSET: u64 = 14_695_981_039_346_656_037;
const PRIME: u64 = 1_099_511_628_211;

const ARRAY_BEGIN: u8 = 0x9f;
const ARRAY_END: u8 = 0xff;

/// Hashes keys as HarmonyLite does.
#[derive(Clone, Debug, Default)]
pub struct Fnv {
    tables: Vec<Table>,
}

impl Hash for Fnv {
    fn configure(&mut self, tables: &[Table]) -> Result<(), PluginError> {
        self.tables = tables.to_vec();
        Ok(())
    }

    fn hash(&mut self, table: u32, keys: &PackedKeys) -> Result<Vec<u64>, PluginError> {
        let found = self.tables.get(table as usize);
        let table = found.ok_or_else(|| PluginError(format!("there is no table {table}")))?;
        keys.iter()
            .enumerate()
            .map(|(index, key)| {
                let message = message(table, key);
                message.map(|bytes| fnv1(&bytes)).map_err(|err| PluginError(format!("key {index}: {err}")))
            })
            .collect()
    }
}

fn fnv1(bytes: &[u8]) -> u64 {
    let mut state = OFFSET;
    for &byte in bytes {
        state = state.wrapping_mul(PRIME);
        state ^= u64::from(byte);
    }
    state
}

/// The bytes that are hashed. An empty key stands for the whole table.
fn message(table: &Table, key: &[u8]) -> Result<Vec<u8>, Malformed> {
    let mut out = vec![ARRAY_BEGIN];
    cbor::write_text(&mut out, &table.name);
    if !key.is_empty() {
        let mut columns: Vec<(&str, &str)> = Vec::new();
        for position in table.key_columns() {
            let column = table.columns.get(position);
            columns.extend(column.map(|column| (column.name.as_str(), column.decl_type.as_str())));
        }
        if columns.is_empty() {
            columns.push(("rowid", "INTEGER"));
        }

        let mut reader = Reader::new(key);
        let mut pairs = Vec::new();
        for (name, decl_type) in columns {
            pairs.push((name, decl_type, reader.value()?));
        }
        reader.finish()?;

        pairs.sort_by_key(|(name, ..)| *name);
        for (name, decl_type, value) in pairs {
            cbor::write_array(&mut out, 2);
            cbor::write_text(&mut out, name);
            write_as_declared(&mut out, &decl_type.to_ascii_lowercase(), &value);
        }
    }
    out.push(ARRAY_END);
    Ok(out)
}

fn write_as_declared(out: &mut Vec<u8>, decl_type: &str, value: &Value) {
    match (decl_type, value) {
        ("boolean", Value::Integer(number)) => cbor::write_bool(out, *number > 0),
        ("timestamp" | "datetime" | "date", Value::Integer(number)) => write_time(out, Some(time_of_integer(*number))),
        ("timestamp" | "datetime" | "date", Value::Text(text)) => {
            write_time(out, std::str::from_utf8(text).ok().and_then(time_of_text));
        }
        _ => cbor::write_value(out, value),
    }
}

/// A moment: whole seconds since 1970, and nanoseconds on top.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Time {
    seconds: i64,
    nanos: i64,
}

/// Go's zero time, which CBOR writes as NULL: the first moment of year 1.
const ZERO_TIME: Time = Time { seconds: -62_135_596_800, nanos: 0 };

fn write_time(out: &mut Vec<u8>, time: Option<Time>) {
    match time {
        Some(time) if time != ZERO_TIME => cbor::write_int(out, time.seconds),
        _ => cbor::write_value(out, &Value::Null),
    }
}

fn time_of_integer(number: i64) -> Time {
    if number.unsigned_abs() > 1_000_000_000_000 {
        // The driver multiplies 64 bits of milliseconds up to nanoseconds, and lets them overflow.
        let nanos = number.wrapping_mul(1_000_000);
        Time { seconds: nanos.div_euclid(1_000_000_000), nanos: nanos.rem_euclid(1_000_000_000) }
    } else {
        Time { seconds: number, nanos: 0 }
    }
}

/// What the driver tries in turn. `f` is an optional fraction of a second, `z` an offset from UTC.
const FORMS: [&str; 9] = [
    "Y-M-D h:m:sfz",
    "Y-M-DTh:m:sfz",
    "Y-M-D h:m:sf",
    "Y-M-DTh:m:sf",
    "Y-M-D h:m:s",
    "Y-M-DTh:m:s",
    "Y-M-D h:m",
    "Y-M-DTh:m",
    "Y-M-D",
];

fn time_of_text(text: &str) -> Option<Time> {
    let text = text.strip_suffix('Z').unwrap_or(text);
    FORMS.iter().find_map(|form| time_of_form(form, text))
}

fn time_of_form(form: &str, text: &str) -> Option<Time> {
    let (mut year, mut month, mut day) = (0, 0, 0);
    let (mut hour, mut minute, mut second) = (0, 0, 0);
    let (mut nanos, mut offset) = (0, 0);
    let mut rest = text;
    for step in form.chars() {
        match step {
            'Y' => year = number(&mut rest, 4, 0..=9999)?,
            'M' => month = number(&mut rest, 2, 1..=12)?,
            'D' => day = number(&mut rest, 2, 1..=31)?,
            // The one number that may have a single digit.
            'h' => hour = number(&mut rest, 2, 0..=23).or_else(|| number(&mut rest, 1, 0..=23))?,
            'm' => minute = number(&mut rest, 2, 0..=59)?,
            's' => second = number(&mut rest, 2, 0..=59)?,
            'f' => nanos = fraction(&mut rest),
            'z' => {
                let sign = if rest.starts_with('-') { -1 } else { 1 };
                rest = rest.strip_prefix(['+', '-'])?;
                let hours = number(&mut rest, 2, 0..=24)?;
                rest = rest.strip_prefix(':')?;
                offset = sign * (hours * 60 + number(&mut rest, 2, 0..=60)?) * 60;
            }
            // One space in the form is any number of them in the text.
            ' ' => rest = rest.strip_prefix(' ')?.trim_start_matches(' '),
            literal => rest = rest.strip_prefix(literal)?,
        }
    }
    let days = days_before(year, month, day)?;
    let seconds = ((days * 24 + hour) * 60 + minute) * 60 + second - offset;
    rest.is_empty().then_some(Time { seconds, nanos })
}

/// Takes a number of just `len` digits, if one in `range` stands there.
fn number(rest: &mut &str, len: usize, range: std::ops::RangeInclusive<i64>) -> Option<i64> {
    let (digits, after) = rest.split_at_checked(len)?;
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number = digits.parse().ok().filter(|number| range.contains(number))?;
    *rest = after;
    Some(number)
}

/// Takes the nanoseconds of a fraction, if one stands there.
fn fraction(rest: &mut &str) -> i64 {
    let Some(after) = rest.strip_prefix(['.', ',']) else { return 0 };
    let kept = after.trim_start_matches(|c: char| c.is_ascii_digit());
    let digits = after.strip_suffix(kept).unwrap_or(after);
    if digits.is_empty() {
        return 0;
    }
    *rest = kept;
    let nanos: String = digits.chars().chain("000000000".chars()).take(9).collect();
    nanos.parse().unwrap_or(0)
}

/// Days from 1970-01-01 to this one, if the calendar has it.
fn days_before(year: i64, month: i64, day: i64) -> Option<i64> {
    let leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    let lengths = [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let before = usize::try_from(month - 1).ok()?;
    if day > *lengths.get(before)? {
        return None;
    }
    // Leap years before year y, counted from a year 0 that is one.
    let leaps = |year: i64| (year + 3) / 4 - (year + 99) / 100 + (year + 399) / 400;
    let years = (year - 1970) * 365 + leaps(year) - leaps(1970);
    Some(years + lengths.iter().take(before).sum::<i64>() + day - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::KeyEncoder;
    use crate::schema::Column;

    /// Checks a key, given as (column, declared type, value) in key order, against known bytes and hash.
    fn check(table: &str, key: &[(&str, &str, Value)], hex: &str, hash: u64) {
        let columns = key.iter().zip(1..).map(|((name, decl_type, _), pk_position)| Column {
            name: (*name).into(),
            decl_type: (*decl_type).into(),
            pk_position,
            ..Column::default()
        });
        let table = Table { name: table.into(), columns: columns.collect(), ..Table::default() };
        check_table(&table, key.iter().map(|(.., value)| value), hex, hash);
    }

    fn check_table<'a>(table: &Table, values: impl Iterator<Item = &'a Value>, hex: &str, hash: u64) {
        let mut keys = PackedKeys::default();
        KeyEncoder::new(table).write(&mut keys.bytes, values);
        keys.end();
        let bytes = message(table, &keys.bytes).unwrap();
        assert_eq!(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>(), hex);

        let mut fnv = Fnv::default();
        fnv.configure(std::slice::from_ref(table)).unwrap();
        assert_eq!(fnv.hash(0, &keys).unwrap(), [hash]);
    }

    #[test]
    fn integer_keys() {
        check("Books", &[("id", "INTEGER", 8.into())], "9f65426f6f6b738262696408ff", 106_709_661_037_676_149);
        check("Books", &[("id", "INTEGER", 1.into())], "9f65426f6f6b738262696401ff", 106_701_964_456_278_618);
    }

    #[test]
    fn columns_come_in_order_of_their_names() {
        let (a, b) = (("a", "TEXT", "x".into()), ("b", "INT", (-3).into()));
        let bytes = "9f626b76826161617882616222ff";
        check("kv", &[a.clone(), b.clone()], bytes, 5_182_215_014_661_869_534);
        check("kv", &[b, a], bytes, 5_182_215_014_661_869_534);
    }

    #[test]
    fn every_storage_class() {
        let blob = Value::Blob(vec![0xde, 0xad]);
        check("kv", &[("k", "BLOB", blob)], "9f626b7682616b42deadff", 13_120_097_224_516_372_789);
        let real = Value::Real(1.5);
        check("kv", &[("k", "REAL", real)], "9f626b7682616bfb3ff8000000000000ff", 11_748_166_169_381_420_252);
        check("kv", &[("k", "", Value::Null)], "9f626b7682616bf6ff", 14_542_624_141_806_902_604);
    }

    #[test]
    fn a_table_without_a_key_goes_by_rowid() {
        let table = Table { name: "nopk".into(), ..Table::default() };
        let bytes = message(&table, &[5]).unwrap();
        assert_eq!(fnv1(&bytes), 5_207_817_719_885_581_588);
    }

    #[test]
    fn times() {
        let key = [("d", "DATETIME", "2024-01-02T03:04:05.678Z".into())];
        check("tm", &key, "9f62746d8261641a65937d25ff", 10_578_527_803_410_592_479);
    }

    #[test]
    fn an_empty_key_stands_for_its_table() {
        let table = Table { name: "kv".into(), ..Table::default() };
        assert_eq!(message(&table, &[]).unwrap(), [0x9f, 0x62, b'k', b'v', 0xff]);
    }

    fn written(decl_type: &str, value: impl Into<Value>) -> Value {
        let mut out = Vec::new();
        write_as_declared(&mut out, decl_type, &value.into());
        match out.as_slice() {
            [0xf4] => "false".into(),
            [0xf5] => "true".into(),
            _ => Reader::new(&out).value().unwrap(),
        }
    }

    #[test]
    fn declared_booleans_are_booleans_if_they_are_integers() {
        assert_eq!(written("boolean", 1), "true".into());
        assert_eq!(written("boolean", 7), "true".into());
        assert_eq!(written("boolean", 0), "false".into());
        assert_eq!(written("boolean", -1), "false".into());
        assert_eq!(written("boolean", "1"), "1".into());
        assert_eq!(written("bool", 1), 1.into());
    }

    #[test]
    fn declared_times_are_seconds() {
        let day = 1_704_153_600;
        for (text, seconds) in [
            ("2024-01-02", day),
            ("2024-01-02Z", day),
            ("2024-01-02T03:04", day + 11_040),
            ("2024-01-02 03:04Z", day + 11_040),
            ("2024-01-02   3:04:05", day + 11_045),
            ("2024-01-02 03:04:05,9", day + 11_045),
            ("2024-01-02 03:04:05+01:30", day + 5_645),
            ("2024-01-02T03:04:05.5-24:60", day + 11_045 + 90_000),
            ("1969-12-31 23:59:59.5", -1),
            ("2000-02-29", 951_782_400),
            ("0001-01-01 00:00:00.1", -62_135_596_800),
            ("0000-03-01", -62_162_035_200),
        ] {
            assert_eq!(written("date", text), seconds.into(), "{text}");
        }
        for text in [
            "",
            "now",
            "2024-1-2",
            "2023-02-29",
            "1900-02-29",
            "2024-13-01",
            "2024-01-02 ",
            "2024-01-02T",
            "2024-01-02 24:00",
            "2024-01-02 03:04+01:00",
            "2024-01-02 03:04:05+0100",
            "2024-01-02 03:04:05.",
            "2024-01-02 03:04:05 UTC",
            "2024-01-02ZZ",
            "0001-01-01",
            "２024-01-02",
        ] {
            assert_eq!(written("date", text), Value::Null, "{text}");
        }
        assert_eq!(written("timestamp", 1_704_164_645), 1_704_164_645.into());
        assert_eq!(written("timestamp", 1_704_164_645_678), 1_704_164_645.into());
        assert_eq!(written("timestamp", -1_000_000_000_001), (-1_000_000_001).into());
        assert_eq!(written("timestamp", 1_000_000_000_000), 1_000_000_000_000.into());
        assert_eq!(written("timestamp", -62_135_596_800), Value::Null);
        assert_eq!(written("timestamp", Value::Real(1.5)), Value::Real(1.5));
        assert_eq!(written("timestamp", Value::Text(vec![0xff])), Value::Null);
    }

    #[test]
    fn bytes_that_are_no_key_of_the_table_are_refused() {
        let mut fnv = Fnv::default();
        fnv.configure(&[Table { name: "t".into(), ..Table::default() }]).unwrap();
        let two = PackedKeys { bytes: vec![1, 2], ends: vec![2] };
        assert_eq!(fnv.hash(0, &two).unwrap_err().to_string(), "key 0: 1 bytes follow its end");
        assert_eq!(fnv.hash(1, &two).unwrap_err().to_string(), "there is no table 1");
    }
}
