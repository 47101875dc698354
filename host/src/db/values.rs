//! Values on their way into and out of SQLite, bit for bit.

use antiphon_core::entry::Origin;
use antiphon_core::value::Value;
use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};

/// A value to bind; TEXT goes in by its bytes and length, so NUL and bad UTF-8 pass unharmed.
pub(crate) struct Bound<'a>(pub(crate) &'a Value);

impl ToSql for Bound<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self.0 {
            Value::Null => ValueRef::Null,
            Value::Integer(number) => ValueRef::Integer(*number),
            Value::Real(number) => ValueRef::Real(*number),
            Value::Text(bytes) => ValueRef::Text(bytes),
            Value::Blob(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

/// A value as SQLite holds it.
pub(crate) fn owned(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) if crate::flaw!(FloatForInteger) =>
        {
            #[expect(clippy::cast_precision_loss, reason = "that is the planted bug")]
            Value::Real(number as f64)
        }
        ValueRef::Integer(number) => Value::Integer(number),
        ValueRef::Real(number) => Value::Real(number),
        ValueRef::Text(bytes) => Value::Text(bytes.to_vec()),
        ValueRef::Blob(bytes) => Value::Blob(bytes.to_vec()),
    }
}

/// `count` values of a row, from column `first` on.
pub(super) fn values(row: &rusqlite::Row<'_>, first: usize, count: usize) -> rusqlite::Result<Vec<Value>> {
    (first..first + count).map(|column| row.get_ref(column).map(owned)).collect()
}

/// Binds values from parameter `first` (1 is the first) on.
pub(super) fn bind<'a>(
    statement: &mut rusqlite::Statement<'_>,
    first: usize,
    values: impl Iterator<Item = &'a Value>,
) -> rusqlite::Result<()> {
    for (index, value) in values.enumerate() {
        statement.raw_bind_parameter(first + index, Bound(value))?;
    }
    Ok(())
}

/// A number that SQLite keeps with a sign.
pub(super) fn unsigned(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(column).map(i64::cast_unsigned)
}

pub(super) fn size(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<usize> {
    Ok(usize::try_from(unsigned(row, column)?).unwrap_or(usize::MAX))
}

/// A node and its life, in two columns.
pub(super) fn origin(row: &rusqlite::Row<'_>, first: usize) -> rusqlite::Result<Origin> {
    Ok(Origin { node: unsigned(row, first)?, incarnation: unsigned(row, first + 1)? })
}
