//! Two tables of one name side by side, in the order of their keys, one row of each in memory.
//!
//! Keys are compared here as SQLite compares them: what it holds to be one key is one key. Each side is read by
//! `ORDER BY` its key, which an index gives without sorting.

use super::values::values;
use super::{Doing as _, Error};
use antiphon_core::schema::{Table, quote};
use antiphon_core::value::{Row, Value};
use rusqlite::Connection;
use std::cmp::Ordering;

const READING: &str = "read a table";

/// How the text of a database lies in its file, which is how BINARY compares it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Utf8,
    Utf16Le,
    Utf16Be,
}

impl Encoding {
    pub(super) fn of(conn: &Connection) -> Result<Self, Error> {
        let name: String =
            conn.query_row("PRAGMA main.encoding", [], |row| row.get(0)).doing("read the text encoding")?;
        Ok(match name.as_str() {
            "UTF-16le" => Self::Utf16Le,
            "UTF-16be" => Self::Utf16Be,
            _ => Self::Utf8,
        })
    }

    fn bytes(self, text: &[u8]) -> Vec<u8> {
        let wide = String::from_utf8_lossy(text);
        match self {
            Self::Utf8 => text.to_vec(),
            Self::Utf16Le => wide.encode_utf16().flat_map(u16::to_le_bytes).collect(),
            Self::Utf16Be => wide.encode_utf16().flat_map(u16::to_be_bytes).collect(),
        }
    }
}

/// The order of one table's keys.
#[derive(Clone, Debug)]
pub(super) struct KeyOrder {
    collations: Vec<String>,
    encoding: Encoding,
}

impl KeyOrder {
    pub(super) fn new(table: &Table, encoding: Encoding) -> Self {
        let column = |position: usize| table.columns.get(position).map(|column| column.collation.to_ascii_uppercase());
        Self { collations: table.key_columns().into_iter().filter_map(column).collect(), encoding }
    }

    /// Compares two keys, column by column.
    pub(super) fn compare(&self, a: &[Value], b: &[Value]) -> Ordering {
        let pairs = self.collations.iter().zip(a.iter().zip(b));
        pairs
            .map(|(collation, (a, b))| compare(a, b, collation, self.encoding))
            .find(|order| order.is_ne())
            .unwrap_or(Ordering::Equal)
    }
}

/// Compares two values as an index with this collation does.
fn compare(a: &Value, b: &Value, collation: &str, encoding: Encoding) -> Ordering {
    let class = |value: &Value| match value {
        Value::Null => 0,
        Value::Integer(_) | Value::Real(_) => 1,
        Value::Text(_) => 2,
        Value::Blob(_) => 3,
    };
    match (a, b) {
        (Value::Integer(a), Value::Integer(b)) => a.cmp(b),
        (Value::Real(a), Value::Real(b)) => a.partial_cmp(b).unwrap_or(Ordering::Equal),
        (Value::Integer(a), Value::Real(b)) => integer_to_real(*a, *b),
        (Value::Real(a), Value::Integer(b)) => integer_to_real(*b, *a).reverse(),
        (Value::Text(a), Value::Text(b)) => match (collation, encoding) {
            ("NOCASE", _) => no_case(a, b),
            ("RTRIM", _) => right_trimmed(a).cmp(right_trimmed(b)),
            (_, Encoding::Utf8) => a.cmp(b),
            (_, wide) => wide.bytes(a).cmp(&wide.bytes(b)),
        },
        (Value::Blob(a), Value::Blob(b)) => a.cmp(b),
        _ => class(a).cmp(&class(b)),
    }
}

/// Exactly, where a cast of the integer would round.
#[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "the bounds are checked right before")]
fn integer_to_real(integer: i64, real: f64) -> Ordering {
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    if real < -LIMIT {
        return Ordering::Greater;
    }
    if real >= LIMIT {
        return Ordering::Less;
    }
    integer.cmp(&(real as i64)).then_with(|| (integer as f64).partial_cmp(&real).unwrap_or(Ordering::Equal))
}

/// ASCII letters alike, up to the first NUL that both have; then the lengths.
fn no_case(a: &[u8], b: &[u8]) -> Ordering {
    for (a, b) in a.iter().zip(b) {
        let (a, b) = (a.to_ascii_lowercase(), b.to_ascii_lowercase());
        match a.cmp(&b) {
            Ordering::Equal if a == 0 => break,
            Ordering::Equal => {}
            order => return order,
        }
    }
    a.len().cmp(&b.len())
}

fn right_trimmed(text: &[u8]) -> &[u8] {
    let kept = text.iter().rposition(|&byte| byte != b' ').map_or(0, |last| last + 1);
    text.get(..kept).unwrap_or(text)
}

/// One side: a table, and which of its columns are read, the key's among them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Side<'a> {
    pub(super) conn: &'a Connection,
    pub(super) table: &'a Table,
    /// Positions of the columns that are compared, in an order that both sides share.
    pub(super) columns: &'a [usize],
}

impl Side<'_> {
    /// Reads the columns; rows without a whole key are left out.
    fn sql(&self) -> String {
        let name = |position: &usize| self.table.columns.get(*position).map(|column| quote(&column.name));
        let key = self.table.key_columns();
        // The key is read as one of them, and not once more: SQLite gives no more columns than a table can have.
        let read = self.columns.iter().filter_map(name).collect::<Vec<_>>().join(", ");
        let order = key
            .iter()
            .filter_map(|position| self.table.columns.get(*position))
            .map(|column| format!("{}{}", quote(&column.name), self.table.collate(column)))
            .collect::<Vec<_>>()
            .join(", ");
        let whole =
            key.iter().filter_map(name).map(|column| format!("{column} IS NOT NULL")).collect::<Vec<_>>().join(" AND ");
        format!("SELECT {read} FROM main.{} WHERE {whole} ORDER BY {order}", quote(&self.table.name))
    }

    /// Where the key's columns are in what is read.
    fn key(&self) -> Vec<usize> {
        let place = |position: usize| self.columns.iter().position(|column| *column == position);
        self.table.key_columns().into_iter().filter_map(place).collect()
    }

    /// The next row, its key first.
    fn next(&self, rows: &mut rusqlite::Rows<'_>, key: &[usize]) -> Result<Option<(Row, Row)>, Error> {
        let Some(row) = rows.next().doing(READING)? else { return Ok(None) };
        let row = values(row, 0, self.columns.len()).doing(READING)?;
        let key = key.iter().filter_map(|place| row.get(*place).cloned()).collect();
        Ok(Some((key, row)))
    }
}

/// What stands under one key: at least one of the two.
#[derive(Debug)]
pub(super) struct Pair {
    /// As the side that has it spells it; the first, if both have it.
    pub(super) key: Row,
    pub(super) here: Option<Row>,
    pub(super) there: Option<Row>,
}

/// Calls `each` for every key that one of the sides has, in order.
pub(super) fn merge(
    here: Side<'_>,
    there: Side<'_>,
    order: &KeyOrder,
    mut each: impl FnMut(Pair) -> Result<(), Error>,
) -> Result<(), Error> {
    let (mut here_statement, mut there_statement) =
        (here.conn.prepare(&here.sql()).doing(READING)?, there.conn.prepare(&there.sql()).doing(READING)?);
    let mut here_rows = here_statement.query([]).doing(READING)?;
    let mut there_rows = there_statement.query([]).doing(READING)?;
    let (here_key, there_key) = (here.key(), there.key());
    let mut a = here.next(&mut here_rows, &here_key)?;
    let mut b = there.next(&mut there_rows, &there_key)?;
    loop {
        let order = match (&a, &b) {
            (None, None) => return Ok(()),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((a, _)), Some((b, _))) => order.compare(a, b),
        };
        let one = if order.is_le() { std::mem::replace(&mut a, here.next(&mut here_rows, &here_key)?) } else { None };
        let other =
            if order.is_ge() { std::mem::replace(&mut b, there.next(&mut there_rows, &there_key)?) } else { None };
        let pair = match (one, other) {
            (Some((key, here)), Some((_, there))) => Pair { key, here: Some(here), there: Some(there) },
            (Some((key, here)), None) => Pair { key, here: Some(here), there: None },
            (None, Some((key, there))) => Pair { key, here: None, there: Some(there) },
            (None, None) => return Ok(()),
        };
        each(pair)?;
    }
}

#[cfg(test)]
mod tests {
    use super::super::values::Bound;
    use super::*;

    /// Values that are near each other in every way that has ever been got wrong.
    fn near() -> Vec<Value> {
        let text = |text: &[u8]| Value::Text(text.to_vec());
        let mut all: Vec<Value> =
            [i64::MIN, -1, 0, 1, 2, (1 << 53) - 1, 1 << 53, (1 << 53) + 1, i64::MAX - 1, i64::MAX]
                .map(Value::Integer)
                .to_vec();
        all.extend(
            [
                f64::NEG_INFINITY,
                -1e300,
                -9_223_372_036_854_775_808.0,
                -0.5,
                -0.0,
                0.0,
                0.5,
                1.0,
                9_007_199_254_740_992.0,
            ]
            .map(Value::Real),
        );
        all.extend([9_223_372_036_854_775_807.0, 1e300, f64::INFINITY].map(Value::Real));
        all.extend(
            [
                &b""[..],
                b" ",
                b"a",
                b"A",
                b"a ",
                b"a  ",
                b"a\t",
                b"B",
                b"b",
                b"_",
                b"[",
                b"a\0b",
                b"A\0c",
                b"a\0bc",
                b"\xff",
                b"\xc3\xa9",
            ]
            .map(text),
        );
        all.extend([&b""[..], b"a", b"\0", b"\xff"].map(|bytes| Value::Blob(bytes.to_vec())));
        all.push(Value::Null);
        all
    }

    /// SQLite is asked about every pair.
    #[test]
    fn keys_are_ordered_as_sqlite_orders_them() {
        let conn = Connection::open_in_memory().unwrap();
        for collation in ["BINARY", "NOCASE", "RTRIM"] {
            // A sort, and not `<`: that says NULL of a NULL.
            let mut statement = conn
                .prepare(&format!(
                    "SELECT group_concat(n, ' ') FROM (SELECT n FROM (SELECT ?1 AS v, 1 AS n UNION ALL SELECT ?2, 2) ORDER BY v COLLATE {collation}, n)"
                ))
                .unwrap();
            for a in &near() {
                for b in &near() {
                    let order: String = statement.query_row((Bound(a), Bound(b)), |row| row.get(0)).unwrap();
                    let back: String = statement.query_row((Bound(b), Bound(a)), |row| row.get(0)).unwrap();
                    let expected = match (order.as_str(), back.as_str()) {
                        ("1 2", "1 2") => Ordering::Equal,
                        ("1 2", _) => Ordering::Less,
                        _ => Ordering::Greater,
                    };
                    assert_eq!(compare(a, b, collation, Encoding::Utf8), expected, "{a} and {b} under {collation}");
                }
            }
        }
    }

    #[test]
    fn utf16_is_ordered_by_its_own_bytes() {
        let conn = Connection::open_in_memory().unwrap();
        conn.execute_batch(
            "PRAGMA encoding = 'UTF-16le'; CREATE TABLE t (k TEXT PRIMARY KEY) WITHOUT ROWID;
             INSERT INTO t VALUES ('a'), ('b'), ('é'), ('Ā'), ('ā'), ('語'), ('😀'), (''), ('ab')",
        )
        .unwrap();
        let encoding = Encoding::of(&conn).unwrap();
        let sorted: Vec<Value> = conn
            .prepare("SELECT k FROM t ORDER BY k")
            .unwrap()
            .query_map([], |row| Ok(Value::Text(row.get::<_, String>(0)?.into_bytes())))
            .unwrap()
            .collect::<rusqlite::Result<_>>()
            .unwrap();
        assert_eq!(sorted.len(), 9);
        for pair in sorted.windows(2) {
            assert_eq!(compare(&pair[0], &pair[1], "BINARY", encoding), Ordering::Less, "{pair:?}");
        }
    }
}
