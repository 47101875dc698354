//! Clashes and keys, drawn.

use super::dice::Dice;
use antiphon_core::hash::PackedKeys;
use antiphon_core::key::KeyEncoder;
use antiphon_core::resolve::{Cause, Clash, Side, Stamp};
use antiphon_core::schema::{Column, Table};
use antiphon_core::value::{Row, Value};
use std::collections::BTreeSet;

/// What is drawn from.
#[derive(Clone, Debug)]
pub struct Field {
    /// The names of the nodes.
    pub nodes: Vec<String>,
    /// The tables.
    pub tables: Vec<Table>,
}

impl Field {
    /// So many clashes over rows of all tables.
    #[must_use]
    pub fn clashes(&self, dice: &mut Dice, count: usize) -> Vec<Clash> {
        (0..count).map(|_| self.clash(dice)).collect()
    }

    fn clash(&self, dice: &mut Dice) -> Clash {
        let at = dice.place(self.tables.len());
        let table = self.tables.get(at).cloned().unwrap_or_default();
        let base: Row = table.columns.iter().map(|column| value(dice, &table, column)).collect();
        // The key is one; each of the others changes every other time.
        let [current, incoming] = [(); 2].map(|()| {
            let changed = table.columns.iter().zip(&base).map(|(column, value)| {
                let stays = column.pk_position > 0 || dice.once_in(2);
                if stays { value.clone() } else { self::value(dice, &table, column) }
            });
            changed.collect::<Row>()
        });
        let [there, stands, came] = [(); 3].map(|()| !dice.once_in(8));
        let key = table.key_columns().into_iter().filter_map(|at| base.get(at).cloned()).collect();
        Clash {
            table: u32::try_from(at).unwrap_or(0),
            key,
            cause: if dice.once_in(20) { Cause::UniqueIndex } else { Cause::SameKey },
            base: there.then_some(base),
            current: Side { stamp: self.stamp(dice), row: stands.then_some(current) },
            incoming: Side { stamp: self.stamp(dice), row: came.then_some(incoming) },
        }
    }

    /// Few clocks, so that many are equal; 0 is that of a change whose writer was forgotten.
    fn stamp(&self, dice: &mut Dice) -> Stamp {
        const NOW: u64 = 1_767_225_600_000;
        let node = u32::try_from(dice.place(self.nodes.len())).unwrap_or(0);
        let clock = dice.below(8);
        Stamp { node, clock: if clock == 0 { 0 } else { NOW + clock }, seq: 1 + dice.below(1000) }
    }

    /// Keys of each table, each once, and the empty one that stands for the whole table.
    #[must_use]
    pub fn keys(&self, dice: &mut Dice, count: usize) -> Vec<Vec<Vec<u8>>> {
        let each = count.div_ceil(self.tables.len().max(1));
        let keys = |table: &Table| {
            let encoder = KeyEncoder::new(table);
            let mut seen = BTreeSet::from([Vec::new()]);
            let mut keys = vec![Vec::new()];
            // Small domains have few keys.
            for _ in 0..each.saturating_mul(4) {
                if keys.len() >= each {
                    break;
                }
                let key: Row = table
                    .key_columns()
                    .into_iter()
                    .filter_map(|at| table.columns.get(at))
                    .map(|column| key_value(dice, table, column))
                    .collect();
                let mut bytes = Vec::new();
                encoder.write(&mut bytes, key.iter());
                if seen.insert(bytes.clone()) {
                    keys.push(bytes);
                }
            }
            dice.shuffle(&mut keys);
            keys
        };
        self.tables.iter().map(keys).collect()
    }
}

/// Keys as a hasher is given them.
#[must_use]
pub fn packed<K: AsRef<[u8]>>(keys: &[K]) -> PackedKeys {
    let mut packed = PackedKeys::default();
    for key in keys {
        packed.bytes.extend(key.as_ref());
        packed.end();
    }
    packed
}

/// A value that the column can hold; part of a key now and then one that clashes.
pub(super) fn value(dice: &mut Dice, table: &Table, column: &Column) -> Value {
    if column.pk_position > 0 {
        return key_value(dice, table, column);
    }
    if !column.not_null && dice.once_in(6) {
        return Value::Null;
    }
    let kind = kind(dice, table, column);
    of_kind(dice, &kind)
}

fn key_value(dice: &mut Dice, table: &Table, column: &Column) -> Value {
    match kind(dice, table, column).as_str() {
        // Few small ones and many others: rows must clash, and hashers must spread.
        "INTEGER" if dice.once_in(2) => Value::Integer(dice.below(10).cast_signed()),
        "INTEGER" => Value::Integer(dice.number().cast_signed()),
        "TEXT" if dice.once_in(2) => Value::Text(format!("key {}", dice.below(1_000_000)).into_bytes()),
        "BLOB" if dice.once_in(2) => Value::Blob(dice.number().to_le_bytes().to_vec()),
        kind => of_kind(dice, kind),
    }
}

/// The storage class a value has: the declared one in a STRICT table, and mostly that in others.
fn kind(dice: &mut Dice, table: &Table, column: &Column) -> String {
    const KINDS: [&str; 4] = ["INTEGER", "REAL", "TEXT", "BLOB"];
    let declared = match column.decl_type.to_ascii_uppercase().as_str() {
        "INT" | "INTEGER" => "INTEGER",
        "REAL" => "REAL",
        "TEXT" => "TEXT",
        "BLOB" => "BLOB",
        _ => return dice.of(&KINDS).to_owned(),
    };
    // Whatever is written into an INTEGER PRIMARY KEY is an integer.
    let fixed = table.strict || (table.rowid_key && column.pk_position > 0);
    if fixed || !dice.once_in(8) { declared.to_owned() } else { dice.of(&KINDS).to_owned() }
}

fn of_kind(dice: &mut Dice, kind: &str) -> Value {
    match kind {
        "INTEGER" => {
            let some = [0, 1, 2, 3, -1, 1000, 1 << 53, (1 << 53) + 1, i64::MAX, i64::MIN];
            Value::Integer(if dice.once_in(4) { dice.number().cast_signed() } else { dice.of(&some) })
        }
        "REAL" => {
            let some = [0.0, -0.0, 0.1, 0.5, 1.0, 2.5, -3.75, 1e300, 5e-324, f64::INFINITY, f64::NEG_INFINITY];
            Value::Real(dice.of(&some))
        }
        "TEXT" => match dice.below(16) {
            0 => Value::Text(vec![0xff, 0xfe, b'a']),
            1 => Value::Text(b"nul\0inside".to_vec()),
            2 => Value::Text(vec![b'x'; 1 + dice.place(4096)]),
            _ => Value::from(dice.of(&["", "a", "A", "a ", "1", "été", "naïve 😀", "line\nbreak", "it's"])),
        },
        _ => match dice.below(8) {
            0 => Value::Blob(Vec::new()),
            1 => Value::Blob(vec![0; 1 + dice.place(4096)]),
            _ => Value::Blob(dice.number().to_le_bytes().iter().copied().take(1 + dice.place(8)).collect()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::super::tables;
    use super::*;

    fn field() -> Field {
        Field {
            nodes: vec!["1".into(), "2".into(), "30".into()],
            tables: tables::of_sql(&tables::statements(&[])).unwrap(),
        }
    }

    #[test]
    fn clashes_are_of_every_kind() {
        let clashes = field().clashes(&mut Dice::new(1), 2000);
        for at in 0..field().tables.len() {
            assert!(clashes.iter().any(|clash| clash.table as usize == at));
        }
        assert!(clashes.iter().any(|clash| clash.cause == Cause::UniqueIndex));
        assert!(clashes.iter().any(|clash| clash.base.is_none()));
        assert!(clashes.iter().any(|clash| clash.current.row.is_none()));
        assert!(clashes.iter().any(|clash| clash.incoming.row.is_none()));
        assert!(clashes.iter().any(|clash| clash.current.stamp.clock == 0));
        assert_eq!(clashes, field().clashes(&mut Dice::new(1), 2000));
        assert_ne!(clashes, field().clashes(&mut Dice::new(2), 2000));
    }

    /// A merged row must fit its table, so rows that don't would blame the resolver for them.
    #[test]
    fn rows_fit_their_tables() {
        let field = field();
        for clash in field.clashes(&mut Dice::new(3), 2000) {
            let table = &field.tables[clash.table as usize];
            for row in [&clash.base, &clash.current.row, &clash.incoming.row].into_iter().flatten() {
                assert_eq!(row.len(), table.columns.len());
                for (column, value) in table.columns.iter().zip(row) {
                    assert!(!column.not_null || *value != Value::Null, "{column:?}");
                    let declared = column.decl_type.to_ascii_lowercase();
                    let declared = if declared == "int" { "integer" } else { &declared };
                    let free = !table.strict || *value == Value::Null || ["any", ""].contains(&declared);
                    assert!(free || value.type_name() == declared, "{column:?}: {value}");
                }
                let key: Vec<_> = table.key_columns().into_iter().map(|at| row[at].clone()).collect();
                assert_eq!(key, clash.key);
            }
        }
    }

    #[test]
    fn keys_come_once() {
        for keys in field().keys(&mut Dice::new(1), 7000) {
            assert!(keys.len() > 100, "{}", keys.len());
            assert_eq!(keys.iter().collect::<BTreeSet<_>>().len(), keys.len());
            assert!(keys.contains(&Vec::new()));
        }
    }
}
