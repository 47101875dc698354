//! Core's types to those of the worlds, and back. Nothing else knows both.

use antiphon_core::resolve::{Cause, Clash, Needs, Side, Stamp, Verdict};
use antiphon_core::schema::Table;
use antiphon_core::value::{Row, Value};

use crate::bindings::{conflict, types};

/// The tables, numbered in their order.
pub(crate) fn tables(tables: &[Table]) -> Vec<types::Table> {
    tables.iter().zip(0..).map(|(table, id)| self::table(table, id)).collect()
}

fn table(table: &Table, id: u32) -> types::Table {
    let columns = table.columns.iter().map(|column| types::Column {
        name: column.name.clone(),
        decl_type: column.decl_type.clone(),
        pk_position: column.pk_position,
        collation: column.collation.clone(),
        not_null: column.not_null,
    });
    types::Table {
        id,
        name: table.name.clone(),
        columns: columns.collect(),
        without_rowid: table.without_rowid,
        strict: table.strict,
    }
}

fn value(value: &Value) -> types::Value {
    match value {
        Value::Null => types::Value::Null,
        Value::Integer(number) => types::Value::Integer(*number),
        Value::Real(number) => types::Value::Real(*number),
        Value::Text(text) => match std::str::from_utf8(text) {
            Ok(text) => types::Value::Text(text.to_owned()),
            Err(_) => types::Value::TextRaw(text.clone()),
        },
        Value::Blob(bytes) => types::Value::Blob(bytes.clone()),
    }
}

fn value_back(value: types::Value) -> Value {
    match value {
        types::Value::Null => Value::Null,
        types::Value::Integer(number) => Value::Integer(number),
        types::Value::Real(number) => Value::Real(number),
        types::Value::Text(text) => Value::Text(text.into_bytes()),
        types::Value::TextRaw(bytes) => Value::Text(bytes),
        types::Value::Blob(bytes) => Value::Blob(bytes),
    }
}

fn row(row: &Row) -> Vec<types::Value> {
    row.iter().map(value).collect()
}

fn stamp(stamp: Stamp) -> types::Stamp {
    types::Stamp { node: stamp.node, clock: stamp.clock, seq: stamp.seq }
}

fn side(side: &Side, with_row: bool, needs: Needs) -> conflict::Side {
    conflict::Side {
        stamp: stamp(if needs.stamps { side.stamp } else { Stamp::default() }),
        row: side.row.as_ref().filter(|_| with_row).map(row),
    }
}

/// A clash, with no more in it than was asked for: what a caller happens to know must not change an answer.
pub(crate) fn clash(clash: &Clash, needs: Needs) -> conflict::Clash {
    conflict::Clash {
        table: clash.table,
        key: row(&clash.key),
        cause: match clash.cause {
            Cause::SameKey => conflict::Cause::SameKey,
            Cause::UniqueIndex => conflict::Cause::UniqueIndex,
        },
        base: clash.base.as_ref().filter(|_| needs.base).map(row),
        current: side(&clash.current, needs.current, needs),
        incoming: side(&clash.incoming, true, needs),
    }
}

pub(crate) fn needs(needs: conflict::Needs) -> Needs {
    Needs {
        current: needs.contains(conflict::Needs::CURRENT),
        base: needs.contains(conflict::Needs::BASE),
        stamps: needs.contains(conflict::Needs::STAMPS),
    }
}

pub(crate) fn verdict(verdict: conflict::Verdict) -> Verdict {
    match verdict {
        conflict::Verdict::Keep => Verdict::Keep,
        conflict::Verdict::Take => Verdict::Take,
        conflict::Verdict::Merge(row) => Verdict::Merge(row.into_iter().map(value_back).collect()),
        conflict::Verdict::Remove => Verdict::Remove,
    }
}
