//! Tables of every shape that components meet.

use crate::db;
use antiphon_core::schema::{Table, quote};
use rusqlite::Connection;
use std::fmt::Write as _;

/// What differs between tables as far as components can see: kinds of keys, kinds of columns, and the two clauses.
///
/// Each has the columns `n`, `x` and `note` besides, so that settings which name them fit all. No two have a key's
/// column in common: what is a key here may be counted elsewhere.
const SHAPES: &[(&str, &str, &str)] = &[
    ("by_number", "id INTEGER PRIMARY KEY", ""),
    ("by_text", "code TEXT PRIMARY KEY NOT NULL, b BLOB", ""),
    ("by_two", "part TEXT NOT NULL COLLATE NOCASE, nr INTEGER NOT NULL, PRIMARY KEY (nr, part)", "WITHOUT ROWID"),
    ("by_bytes", "place BLOB NOT NULL, c COLLATE RTRIM, PRIMARY KEY (place)", "WITHOUT ROWID"),
    ("by_anything", "whatever PRIMARY KEY NOT NULL, v", ""),
    ("strict_one", "number INTEGER PRIMARY KEY, b BLOB NOT NULL, a ANY", "STRICT"),
    (
        "strict_two",
        "label TEXT, weight REAL, i INT NOT NULL DEFAULT 0, PRIMARY KEY (label, weight)",
        "STRICT, WITHOUT ROWID",
    ),
];

/// A table with a UNIQUE index, whose rows can drive out one another.
const UNIQUE: &str = "ident INTEGER PRIMARY KEY, name TEXT UNIQUE";

/// The statements that create the tables.
///
/// `settings` are the component's: whatever in them could name a column is one of every table.
#[must_use]
pub fn statements(settings: &[(String, String)]) -> Vec<String> {
    let named = words(settings);
    SHAPES.iter().map(|(name, columns, clause)| statement(name, columns, clause, &named)).collect()
}

/// The statement that creates a table with a UNIQUE index.
#[must_use]
pub fn unique_statement(settings: &[(String, String)]) -> String {
    statement("by_name", UNIQUE, "", &words(settings))
}

fn statement(name: &str, columns: &str, clause: &str, named: &[String]) -> String {
    let strict = clause.contains("STRICT");
    let (first, constraint) = match columns.split_once(", PRIMARY KEY (") {
        Some((first, key)) => (first, format!(", PRIMARY KEY ({key}")),
        None => (columns, String::new()),
    };
    let mut sql = format!("CREATE TABLE {name} ({first}, n INTEGER, x REAL, note TEXT");
    let has = |column: &str| {
        let taken = first.split(", ").filter_map(|declared| declared.split(' ').next());
        taken.chain(["n", "x", "note"]).any(|name| name == column)
    };
    for column in named.iter().filter(|column| !has(column)) {
        // Writing to a String can't fail.
        let _ = write!(sql, ", {}{}", quote(column), if strict { " ANY" } else { "" });
    }
    let _ = write!(sql, "{constraint}) {clause}");
    sql.trim_end().to_owned()
}

/// Words in settings that could be names of columns.
#[must_use]
pub fn words(settings: &[(String, String)]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for word in settings.iter().flat_map(|(_, value)| value.split(|c: char| !(c.is_alphanumeric() || c == '_'))) {
        let word = word.to_lowercase();
        let begins = word.starts_with(|c: char| c.is_alphabetic() || c == '_');
        if begins && word.len() <= 64 && !names.contains(&word) {
            names.push(word);
        }
    }
    names.truncate(16);
    names
}

/// What SQL says about the tables that it creates; in the order of their names, as a node knows them.
///
/// # Errors
/// What SQLite has against it, and which tables can't be replicated.
pub fn of_sql<S: AsRef<str>>(statements: &[S]) -> Result<Vec<Table>, String> {
    let conn = Connection::open_in_memory().map_err(|error| error.to_string())?;
    for sql in statements {
        conn.execute_batch(sql.as_ref()).map_err(|error| error.to_string())?;
    }
    let (tables, refused) = db::tables(&conn).map_err(|error| error.to_string())?;
    match refused.first() {
        Some(refused) => Err(format!("table `{}` can't be replicated: {}", refused.table, refused.reason)),
        None if tables.is_empty() => Err("it creates no table".to_owned()),
        None => Ok(tables),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_can_be_replicated() {
        let settings = [("columns".to_owned(), "Quantity, n, b, 7".to_owned())];
        let tables = of_sql(&statements(&settings)).unwrap();
        assert_eq!(tables.len(), SHAPES.len());
        for table in &tables {
            for name in ["quantity", "n", "b"] {
                assert!(table.column(name).is_some(), "{name} in {table:?}");
            }
            assert!(!table.key_columns().is_empty());
        }
        assert_eq!(of_sql(&[unique_statement(&settings)]).unwrap()[0].uniques.len(), 1);
        assert!(tables.iter().any(|table| table.strict) && tables.iter().any(|table| table.without_rowid));
    }

    #[test]
    fn sql_that_creates_no_table_is_refused() {
        assert!(of_sql(&["SELECT 1"]).is_err());
        assert!(of_sql(&["CREATE TABLE t (v)"]).unwrap_err().contains("primary key"));
    }
}
