//! Tables of every shape that components meet.

use crate::db;
use antiphon_core::schema::{Table, quote};
use rusqlite::Connection;
use std::fmt::Write as _;

/// What differs between tables as far as components can see: kinds of keys, kinds of columns, and the two clauses.
///
/// Each has the columns `n`, `x` and `note` besides, so that settings which name them fit all.
const SHAPES: &[(&str, &str, &str)] = &[
    ("by_number", "id INTEGER PRIMARY KEY", ""),
    ("by_text", "code TEXT PRIMARY KEY NOT NULL, b BLOB", ""),
    ("by_two", "a TEXT NOT NULL COLLATE NOCASE, b INTEGER NOT NULL, PRIMARY KEY (b, a)", "WITHOUT ROWID"),
    ("by_bytes", "k BLOB NOT NULL, c COLLATE RTRIM, PRIMARY KEY (k)", "WITHOUT ROWID"),
    ("by_anything", "k PRIMARY KEY NOT NULL, v", ""),
    ("strict_one", "id INTEGER PRIMARY KEY, b BLOB NOT NULL, a ANY", "STRICT"),
    ("strict_two", "t TEXT, r REAL, i INT NOT NULL DEFAULT 0, PRIMARY KEY (t, r)", "STRICT, WITHOUT ROWID"),
];

/// The statements that create the tables.
///
/// `settings` are the component's: whatever in them could name a column is one of every table.
#[must_use]
pub fn statements(settings: &[(String, String)]) -> Vec<String> {
    let statement = |(name, columns, clause): &(&str, &str, &str)| {
        let strict = clause.contains("STRICT");
        let mut own = vec![("n", "INTEGER"), ("x", "REAL"), ("note", "TEXT")];
        let named = named(settings);
        own.extend(named.iter().map(|name| (name.as_str(), if strict { "ANY" } else { "" })));
        let (first, constraint) = match columns.split_once(", PRIMARY KEY") {
            Some((first, key)) => (first, format!(", PRIMARY KEY{key}")),
            None => (*columns, String::new()),
        };
        let mut sql = format!("CREATE TABLE {name} ({first}");
        for (name, decl_type) in own {
            // Writing to a String can't fail.
            let _ = write!(sql, ", {} {decl_type}", quote(name));
        }
        let _ = write!(sql, "{constraint}) {clause}");
        sql.trim_end().to_owned()
    };
    SHAPES.iter().map(statement).collect()
}

/// Words in settings that could be names of columns, and are none yet.
fn named(settings: &[(String, String)]) -> Vec<String> {
    const TAKEN: &[&str] = &["n", "x", "note", "id", "code", "a", "b", "c", "i", "k", "r", "t", "v"];
    let mut names: Vec<String> = Vec::new();
    for word in settings.iter().flat_map(|(_, value)| value.split(|c: char| !(c.is_alphanumeric() || c == '_'))) {
        let word = word.to_lowercase();
        let begins = word.starts_with(|c: char| c.is_alphabetic() || c == '_');
        if begins && word.len() <= 64 && !TAKEN.contains(&word.as_str()) && !names.contains(&word) {
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
        let settings = [("columns".to_owned(), "Quantity, n, 7".to_owned())];
        let tables = of_sql(&statements(&settings)).unwrap();
        assert_eq!(tables.len(), SHAPES.len());
        for table in &tables {
            assert!(table.column("quantity").is_some() && table.column("n").is_some(), "{table:?}");
            assert!(!table.key_columns().is_empty());
        }
        assert!(tables.iter().any(|table| table.strict) && tables.iter().any(|table| table.without_rowid));
    }

    #[test]
    fn sql_that_creates_no_table_is_refused() {
        assert!(of_sql(&["SELECT 1"]).is_err());
        assert!(of_sql(&["CREATE TABLE t (v)"]).unwrap_err().contains("primary key"));
    }
}
