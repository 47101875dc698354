//! The value of one counter.

use resolver::{Value, same};

/// What a column makes of numbers that are stored in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Affinity {
    /// Reals without a fraction become integers.
    Integer,
    /// They stay what they are, or become what no counter is.
    Other,
}

impl Affinity {
    /// By the declared type, after SQLite's rules.
    pub fn of(decl_type: &str, strict: bool) -> Self {
        let decl_type = decl_type.to_ascii_uppercase();
        let has = |part: &&str| decl_type.contains(part);
        // In a STRICT table ANY means any value as it is; in others it is NUMERIC, as whatever isn't known.
        let other = decl_type.is_empty()
            || (strict && decl_type == "ANY")
            || ["CHAR", "CLOB", "TEXT", "BLOB", "REAL", "FLOA", "DOUB"].iter().any(|part| has(&part));
        if has(&"INT") || !other { Self::Integer } else { Self::Other }
    }

    fn stores(self, number: f64) -> Value {
        // Both bounds are reals themselves, and excluded as SQLite excludes them.
        let fits = number > i64::MIN as f64 && number < i64::MAX as f64;
        if self == Self::Integer && fits && number.trunc() == number {
            return Value::Integer(number as i64);
        }
        // -0.0 + 0.0 is 0.0; any other number stays.
        Value::Real(number + 0.0)
    }
}

/// The sum, if these can be added and it is a number.
pub fn sum(affinity: Affinity, base: &Value, current: &Value, incoming: &Value) -> Option<Value> {
    if [base, current, incoming].iter().all(|value| matches!(value, Value::Null)) {
        return Some(Value::Null);
    }
    if let (Some(base), Some(current), Some(incoming)) = (integer(base), integer(current), integer(incoming)) {
        return Some(Value::Integer(current.wrapping_add(incoming).wrapping_sub(base)));
    }
    let (from, to, by) = (real(base)?, real(current)?, real(incoming)?);
    if same(current, base) {
        return Some(incoming.clone());
    }
    if same(incoming, base) {
        return Some(current.clone());
    }
    let sum = to + (by - from);
    (!sum.is_nan()).then(|| affinity.stores(sum))
}

fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::Null => Some(0),
        Value::Integer(number) => Some(*number),
        _ => None,
    }
}

fn real(value: &Value) -> Option<f64> {
    match value {
        Value::Null => Some(0.0),
        Value::Integer(number) => Some(*number as f64),
        Value::Real(number) => Some(*number),
        _ => None,
    }
}
