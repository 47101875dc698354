//! What a column holds in a row that was written before there was such a column.

use super::values::owned;
use super::{Doing as _, Error};
use antiphon_core::schema::{Column, Table};
use antiphon_core::value::Value;
use rusqlite::{Connection, OptionalExtension as _};

const READING: &str = "read a table's defaults";

/// The defaults of all columns, as rows hold them. One that is computed anew for each row is left to SQLite; no column
/// can be added with such a one.
pub(super) fn defaults(conn: &Connection, table: &Table) -> Result<Vec<Option<Value>>, Error> {
    let mut statement = conn
        .prepare_cached("SELECT dflt_value FROM pragma_table_info(?1) WHERE name = ?2 COLLATE NOCASE")
        .doing(READING)?;
    let mut aside = None;
    let mut default = |column: &Column| {
        let text: Option<String> =
            statement.query_row([&table.name, &column.name], |row| row.get(0)).optional().doing(READING)?.flatten();
        let Some(text) = text else { return Ok(Some(Value::Null)) };
        if !is_constant(&text) {
            return Ok(None);
        }
        let aside = match &aside {
            Some(aside) => aside,
            None => aside.insert(Connection::open_in_memory().doing(READING)?),
        };
        evaluate(aside, &text, affinity(table, column)).doing(READING)
    };
    table.columns.iter().map(&mut default).collect()
}

/// Lets SQLite say what a row gets: `0` is 0.0 in a column of REAL, and a bare word is a text.
fn evaluate(aside: &Connection, text: &str, affinity: &str) -> rusqlite::Result<Option<Value>> {
    let create = |default: &str| {
        aside.execute_batch(&format!("DROP TABLE IF EXISTS t; CREATE TABLE t (v {affinity} DEFAULT {default})"))
    };
    // An expression stood in parentheses, and a word can't.
    if create(text).is_err() && create(&format!("({text})")).is_err() {
        return Ok(None);
    }
    aside.execute_batch("INSERT INTO t DEFAULT VALUES")?;
    aside.query_row("SELECT v FROM t", [], |row| Ok(Some(owned(row.get_ref(0)?))))
}

/// Whether a default is the same for each row: it calls no function, and is none of the words for the time.
fn is_constant(text: &str) -> bool {
    let mut quote = None;
    let calls = text.chars().any(|letter| {
        match quote {
            Some(end) if letter == end => quote = None,
            None if matches!(letter, '\'' | '"' | '`') => quote = Some(letter),
            _ => {}
        }
        quote.is_none() && letter == '('
    });
    !calls && !text.to_ascii_uppercase().contains("CURRENT_")
}

/// The affinity of a column, as SQLite finds it in the declared type.
fn affinity(table: &Table, column: &Column) -> &'static str {
    let decl = column.decl_type.to_ascii_uppercase();
    let has = |word: &str| decl.contains(word);
    if table.strict && decl == "ANY" {
        "BLOB"
    } else if has("INT") {
        "INTEGER"
    } else if has("CHAR") || has("CLOB") || has("TEXT") {
        "TEXT"
    } else if decl.is_empty() || has("BLOB") {
        "BLOB"
    } else if has("REAL") || has("FLOA") || has("DOUB") {
        "REAL"
    } else {
        "NUMERIC"
    }
}

/// A value as SQL.
pub(super) fn literal(value: &Value) -> String {
    match value {
        Value::Real(number) if number.is_infinite() => format!("{}9e999", if *number < 0.0 { "-" } else { "" }),
        value => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(declared: &str, expected: Option<&Value>) {
        let conn = Connection::open_in_memory().unwrap();
        let strict = if declared.starts_with("ANY") { " STRICT" } else { "" };
        conn.execute_batch(&format!("CREATE TABLE t (k INTEGER PRIMARY KEY, v {declared}){strict}")).unwrap();
        let decl_type = conn.query_row("SELECT type FROM pragma_table_info('t') WHERE cid = 1", [], |row| row.get(0));
        let column = Column { name: "v".into(), decl_type: decl_type.unwrap(), ..Column::default() };
        let table = Table { name: "t".into(), columns: vec![column], strict: !strict.is_empty(), ..Table::default() };
        let found = defaults(&conn, &table).unwrap().remove(0);
        assert_eq!(found.as_ref(), expected, "{declared}");
        let Some(found) = found else { return };
        // What SQLite itself puts there, and what it reads of it as SQL.
        conn.execute_batch(&format!("INSERT INTO t DEFAULT VALUES; CREATE TABLE u AS SELECT {} AS v", literal(&found)))
            .unwrap();
        for table in ["t", "u"] {
            let value = conn.query_row(&format!("SELECT v FROM {table}"), [], |row| Ok(owned(row.get_ref(0)?)));
            assert_eq!(value.unwrap(), found, "{declared}");
        }
    }

    #[test]
    fn a_default_is_what_a_row_gets() {
        for (declared, value) in [
            ("", Value::Null),
            ("DEFAULT NULL", Value::Null),
            ("DEFAULT 5", 5.into()),
            ("DEFAULT +5", 5.into()),
            ("DEFAULT -9223372036854775808", i64::MIN.into()),
            ("REAL DEFAULT 0", Value::Real(0.0)),
            ("DOUBLE PRECISION DEFAULT -0.5", Value::Real(-0.5)),
            ("DEFAULT 9e999", Value::Real(f64::INFINITY)),
            ("DEFAULT -9e999", Value::Real(f64::NEG_INFINITY)),
            ("TEXT DEFAULT 5", "5".into()),
            ("VARCHAR(10) DEFAULT 1.5", "1.5".into()),
            ("NUMERIC DEFAULT '7'", 7.into()),
            ("ANY DEFAULT '7'", "7".into()),
            ("DECIMAL(5, 2) DEFAULT '7.0'", 7.into()),
            ("INTEGER DEFAULT 'x'", "x".into()),
            ("DEFAULT true", 1.into()),
            ("DEFAULT word", "word".into()),
            ("DEFAULT \"a word\"", "a word".into()),
            ("DEFAULT [it's]", "it's".into()),
            ("DEFAULT 'it''s (so)'", "it's (so)".into()),
            ("DEFAULT (1 + 1)", 2.into()),
            ("DEFAULT ('a' || 'b')", "ab".into()),
            ("DEFAULT x'00ff'", Value::Blob(vec![0, 255])),
        ] {
            check(declared, Some(&value));
        }
        for declared in
            ["CURRENT_TIMESTAMP", "current_date", "(CURRENT_TIME || 'Z')", "(random())", "(datetime('now'))"]
        {
            check(&format!("DEFAULT {declared}"), None);
        }
    }
}
