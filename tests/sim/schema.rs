//! The application's tables, and rows in a form that two nodes, and a model, can be compared by.

use antiphon_core::value::Value;
use rusqlite::Connection;
use rusqlite::types::ValueRef;
use std::collections::BTreeMap;

/// Columns of an index, each with whether it compares under NOCASE.
pub(crate) type Index = &'static [(usize, bool)];

/// A table as the model must know it.
pub(crate) struct Shape {
    pub(crate) name: &'static str,
    pub(crate) columns: &'static [&'static str],
    pub(crate) key: Index,
    pub(crate) uniques: &'static [Index],
}

/// The position of a table that is created in the middle of the history.
pub(crate) const LATE: usize = 5;

/// The table whose numbers nodes add to, in histories with policies.
pub(crate) const STOCK: usize = 6;

pub(crate) const TABLES: [Shape; 7] = [
    Shape {
        name: "item",
        columns: &["id", "u", "w", "a", "touched", "extra"],
        key: &[(0, false)],
        uniques: &[&[(1, false)], &[(2, true)]],
    },
    Shape { name: "plain", columns: &["k", "g", "v"], key: &[(0, false), (1, true)], uniques: &[] },
    Shape { name: "audit", columns: &["id", "n"], key: &[(0, false)], uniques: &[] },
    Shape { name: "parent", columns: &["id", "v", "extra"], key: &[(0, false)], uniques: &[] },
    Shape { name: "child", columns: &["id", "parent", "v"], key: &[(0, false)], uniques: &[] },
    Shape { name: "late", columns: &["id", "u", "v"], key: &[(0, false)], uniques: &[&[(1, false)]] },
    Shape { name: "stock", columns: &["id", "a", "b", "n"], key: &[(0, false)], uniques: &[] },
];

/// The two triggers are the application's own: what they write was written by a user, once, at the origin.
pub(crate) const DDL: &str = "
    CREATE TABLE item (id INTEGER PRIMARY KEY, u UNIQUE, w TEXT, a, touched);
    CREATE UNIQUE INDEX item_w ON item (w COLLATE NOCASE);
    CREATE TRIGGER item_touched AFTER UPDATE ON item WHEN NEW.touched IS OLD.touched
        BEGIN UPDATE item SET touched = 'after ' || NEW.a WHERE id = NEW.id; END;
    CREATE TABLE plain (k, g TEXT COLLATE NOCASE, v, PRIMARY KEY (k, g)) WITHOUT ROWID;
    CREATE TABLE audit (id PRIMARY KEY NOT NULL, n) WITHOUT ROWID;
    CREATE TRIGGER plain_inserted AFTER INSERT ON plain
        BEGIN INSERT INTO audit VALUES (NEW.v, 1) ON CONFLICT (id) DO UPDATE SET n = n + 1; END;
    CREATE TRIGGER plain_updated AFTER UPDATE ON plain
        BEGIN INSERT INTO audit VALUES (NEW.v, 1) ON CONFLICT (id) DO UPDATE SET n = n + 1; END;
    CREATE TABLE stock (id INTEGER PRIMARY KEY, a, b, n);
    CREATE TRIGGER stock_counted AFTER UPDATE OF n ON stock WHEN NEW.b IS OLD.b
        BEGIN UPDATE stock SET b = 'counted ' || NEW.n WHERE id = NEW.id; END;
    CREATE TABLE parent (id INTEGER PRIMARY KEY, v);
    CREATE TABLE child (id INTEGER PRIMARY KEY, parent REFERENCES parent (id) ON DELETE CASCADE ON UPDATE CASCADE, v);";

/// Which rows an application updates, by its own account: an UPDATE that leaves a row as it is can't be seen in the
/// row. Only numbers that are added to nothing do that; every other write brings a value of its own.
pub(crate) const WATCH_DDL: &str = "
    CREATE TEMP TABLE updated (id);
    CREATE TEMP TRIGGER stock_updated AFTER UPDATE ON main.stock BEGIN INSERT INTO updated VALUES (NEW.id); END;";

pub(crate) const LATE_DDL: &str = "CREATE TABLE late (id INTEGER PRIMARY KEY, u UNIQUE, v);";

/// A column that each node's user adds when it suits him; until then a row counts as having its default.
pub(crate) const WIDEN_DDL: &str = "ALTER TABLE item ADD COLUMN extra DEFAULT 'none';
    ALTER TABLE parent ADD COLUMN extra DEFAULT 'none';";
/// The default of such a column.
pub(crate) const NONE: &str = "tnone";

/// A row: its values, storage class first.
pub(crate) type Row = Vec<String>;
/// A table's position in [`TABLES`] and the key as SQLite compares it.
pub(crate) type Key = (usize, Vec<String>);
pub(crate) type Rows = BTreeMap<Key, Row>;

impl Shape {
    pub(crate) fn position(name: &str) -> Option<usize> {
        TABLES.iter().position(|shape| shape.name == name)
    }

    /// The key of a row, folded as SQLite folds it.
    pub(crate) fn key_of(&self, row: &Row) -> Vec<String> {
        self.key.iter().map(|&(column, nocase)| fold(&row[column], nocase)).collect()
    }

    /// The key out of its values alone.
    pub(crate) fn fold_key(&self, values: &[Value]) -> Vec<String> {
        self.key.iter().zip(values).map(|(&(_, nocase), value)| fold(&render(value), nocase)).collect()
    }

    /// The UNIQUE values that a row holds; NULL holds none.
    pub(crate) fn slots(&self, row: &Row) -> Vec<(usize, Vec<String>)> {
        let slot = |(number, index): (usize, &Index)| {
            let values: Vec<String> = index.iter().map(|&(column, nocase)| fold(&row[column], nocase)).collect();
            (!values.iter().any(|value| value == "n")).then_some((number, values))
        };
        self.uniques.iter().enumerate().filter_map(slot).collect()
    }
}

/// A value with its storage class, bit for bit.
pub(crate) fn render(value: &Value) -> String {
    match value {
        Value::Null => "n".to_owned(),
        Value::Integer(number) => format!("i{number}"),
        Value::Real(number) => format!("r{:016x}", number.to_bits()),
        Value::Text(bytes) => format!("t{}", String::from_utf8_lossy(bytes)),
        Value::Blob(bytes) => format!("b{bytes:02x?}"),
    }
}

/// The value that was rendered.
pub(crate) fn unrender(rendered: &str) -> Value {
    let (class, rest) = rendered.split_at(1);
    match class {
        "n" => Value::Null,
        "i" => Value::Integer(rest.parse().unwrap()),
        "r" => Value::Real(f64::from_bits(u64::from_str_radix(rest, 16).unwrap())),
        "t" => Value::Text(rest.as_bytes().to_vec()),
        _ => {
            let bytes = rest.trim_matches(['[', ']']).split(", ").filter(|byte| !byte.is_empty());
            Value::Blob(bytes.map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect())
        }
    }
}

/// What SQLite's comparison leaves of a value: 1.0 is 1, and under NOCASE 'A' is 'a'.
fn fold(rendered: &str, nocase: bool) -> String {
    let (class, rest) = rendered.split_at(1);
    match class {
        "r" => {
            let number = f64::from_bits(u64::from_str_radix(rest, 16).unwrap());
            if number.fract() == 0.0 { format!("i{number}") } else { rendered.to_owned() }
        }
        "t" if nocase => rendered.to_ascii_lowercase(),
        _ => rendered.to_owned(),
    }
}

/// All rows of the application's tables.
pub(crate) fn rows_of(app: &Connection, has_late: bool) -> Rows {
    let mut rows = Rows::new();
    for (position, shape) in TABLES.iter().enumerate().filter(|(position, _)| has_late || *position != LATE) {
        let mut statement = app.prepare_cached(&format!("SELECT * FROM {}", shape.name)).unwrap();
        let width = shape.columns.len();
        let mut found = statement.query([]).unwrap();
        while let Some(row) = found.next().unwrap() {
            let value = |column| row.get_ref(column).map_or(NONE.to_owned(), |value| render(&owned(value)));
            let row: Row = (0..width).map(value).collect();
            rows.insert((position, shape.key_of(&row)), row);
        }
    }
    rows
}

fn owned(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => Value::Integer(number),
        ValueRef::Real(number) => Value::Real(number),
        ValueRef::Text(bytes) => Value::Text(bytes.to_vec()),
        ValueRef::Blob(bytes) => Value::Blob(bytes.to_vec()),
    }
}
