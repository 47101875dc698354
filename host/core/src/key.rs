//! The canonical bytes of a primary key: equal for SQLite = equal here.
//!
//! SQLite holds 1 and 1.0 for the same key, and 'a' and 'A' under NOCASE. Whatever identifies rows outside
//! SQLite (shards, pending keys, shadows, clashes) goes by these bytes, so that both agree on what one row is.

use crate::cbor;
use crate::schema::Table;
use crate::value::Value;

/// The collations whose folding is known here; a key under any other can't be replicated.
pub const COLLATIONS: [&str; 3] = ["BINARY", "NOCASE", "RTRIM"];

/// How one column of a key is folded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fold {
    Binary,
    NoCase,
    RightTrim,
}

impl Fold {
    fn of(collation: &str) -> Self {
        match collation {
            name if name.eq_ignore_ascii_case("NOCASE") => Self::NoCase,
            name if name.eq_ignore_ascii_case("RTRIM") => Self::RightTrim,
            _ => Self::Binary,
        }
    }
}

/// Turns the key's values of one table into canonical bytes.
#[derive(Clone, Debug)]
pub struct KeyEncoder {
    folds: Vec<Fold>,
}

impl KeyEncoder {
    /// The encoder of `table`'s primary key.
    #[must_use]
    pub fn new(table: &Table) -> Self {
        let fold =
            |position: usize| table.columns.get(position).map_or(Fold::Binary, |column| Fold::of(&column.collation));
        Self { folds: table.key_columns().into_iter().map(fold).collect() }
    }

    /// Appends the canonical bytes of the key to `out`: CBOR, one item a column, in key order.
    pub fn write<'a>(&self, out: &mut Vec<u8>, key: impl Iterator<Item = &'a Value>) {
        for (fold, value) in self.folds.iter().zip(key) {
            write_canonical(out, *fold, value);
        }
    }
}

/// Appends one value as a collation sees it: values that are equal under it give equal bytes.
pub fn write_folded(out: &mut Vec<u8>, collation: &str, value: &Value) {
    write_canonical(out, Fold::of(collation), value);
}

fn write_canonical(out: &mut Vec<u8>, fold: Fold, value: &Value) {
    match (value, fold) {
        (Value::Real(number), _) => match integral(*number) {
            Some(integer) => cbor::write_int(out, integer),
            None => cbor::write_real(out, *number),
        },
        (Value::Text(text), Fold::NoCase) => cbor::write_sqlite_text(out, &no_case(text)),
        (Value::Text(text), Fold::RightTrim) => {
            let kept = text.iter().rposition(|&byte| byte != b' ').map_or(0, |last| last + 1);
            cbor::write_sqlite_text(out, text.get(..kept).unwrap_or(text));
        }
        _ => cbor::write_value(out, value),
    }
}

/// SQLite's NOCASE compares up to the first NUL, and then the lengths alone.
fn no_case(text: &[u8]) -> Vec<u8> {
    let mut folded = text.to_ascii_lowercase();
    let compared = folded.iter().position(|&byte| byte == 0).unwrap_or(folded.len());
    folded.iter_mut().skip(compared).for_each(|byte| *byte = 0);
    folded
}

/// The integer that SQLite holds equal to this double, if there is one.
#[expect(clippy::cast_possible_truncation, reason = "the bounds are checked right before")]
fn integral(number: f64) -> Option<i64> {
    // 2^63 itself is no i64; below it, a double without a fraction is exactly one integer.
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    (number.fract() == 0.0 && (-LIMIT..LIMIT).contains(&number)).then_some(number as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::Column;

    fn check(collation: &str, a: impl Into<Value>, b: impl Into<Value>, same: bool) {
        let column = Column { name: "k".into(), pk_position: 1, collation: collation.into(), ..Column::default() };
        let encoder = KeyEncoder::new(&Table { columns: vec![column], ..Table::default() });
        let bytes = |value: &Value| {
            let mut out = Vec::new();
            encoder.write(&mut out, std::iter::once(value));
            out
        };
        let (a, b) = (a.into(), b.into());
        assert_eq!(bytes(&a) == bytes(&b), same, "{a} and {b} under {collation}");
    }

    #[test]
    fn one_and_one_point_zero_are_one_key() {
        check("BINARY", 1, Value::Real(1.0), true);
        check("BINARY", 0, Value::Real(-0.0), true);
        check("BINARY", 1, Value::Real(1.5), false);
        check("BINARY", i64::MAX, Value::Real(9_223_372_036_854_775_807.0), false);
        check("BINARY", i64::MIN, Value::Real(-9_223_372_036_854_775_808.0), true);
        check("BINARY", (1 << 53) + 1, Value::Real(9_007_199_254_740_992.0), false);
    }

    #[test]
    fn text_folds_as_its_collation_does() {
        check("BINARY", "a", "A", false);
        check("NOCASE", "aÉ", "AÉ", true);
        check("NOCASE", "é", "É", false);
        check("NOCASE", "a\0b", "A\0c", true);
        check("NOCASE", "a\0b", "a\0bc", false);
        check("BINARY", "a\0b", "a\0c", false);
        check("RTRIM", "a", "a  ", true);
        check("RTRIM", " a", "a", false);
        check("RTRIM", "", "  ", true);
    }

    #[test]
    fn storage_classes_stay_apart() {
        check("BINARY", 1, "1", false);
        check("BINARY", "a", Value::Blob(b"a".to_vec()), false);
        check("BINARY", "", Value::Blob(Vec::new()), false);
        check("BINARY", Value::Text(vec![0xff]), Value::Blob(vec![0xff]), false);
    }
}
