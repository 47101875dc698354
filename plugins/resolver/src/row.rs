//! The merge of rows by their columns.

use crate::{Clash, Row, Value, Verdict};

/// Whether two values are one: the same storage class and the same bytes. A real is its bits, so 0.0 is not -0.0.
pub fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Null, Value::Null) => true,
        (Value::Integer(one), Value::Integer(other)) => one == other,
        (Value::Real(one), Value::Real(other)) => one.to_bits() == other.to_bits(),
        (Value::Text(one), Value::Text(other)) => one == other,
        (Value::TextRaw(one), Value::TextRaw(other)) | (Value::Blob(one), Value::Blob(other)) => one == other,
        _ => false,
    }
}

/// The value of a column: what came if it came changed, else what stands.
pub fn chosen(base: &Value, current: Value, incoming: Value) -> Value {
    if same(&incoming, base) { current } else { incoming }
}

/// Merges the rows of a clash, each column as `column` says: its position, then base, current and incoming value.
/// A row that is gone gives way to one that is there. Without a base, every column was NULL.
pub fn merge(clash: Clash, column: impl Fn(usize, &Value, Value, Value) -> Value) -> Result<Verdict, String> {
    let (current, incoming): (Row, Row) = match (clash.current.row, clash.incoming.row) {
        (None, _) => return Ok(Verdict::Take),
        (Some(_), None) => return Ok(Verdict::Keep),
        (Some(current), Some(incoming)) => (current, incoming),
    };
    let base = clash.base.unwrap_or_default();
    if current.len() != incoming.len() || (base.len() != current.len() && !base.is_empty()) {
        let (table, base, current, incoming) = (clash.table, base.len(), current.len(), incoming.len());
        return Err(format!("the rows of a clash of table {table} have {base}, {current} and {incoming} values"));
    }
    let base = base.iter().chain(std::iter::repeat(&Value::Null));
    let values = base.zip(current).zip(incoming).enumerate();
    Ok(Verdict::Merge(
        values.map(|(position, ((base, current), incoming))| column(position, base, current, incoming)).collect(),
    ))
}
