//! What is in a database, as far as the first configuration wants to know.
//!
//! Only looked at: the connection can't write. Capture reads the schema for itself, and more thoroughly.

use std::path::Path;

use antiphon_core::schema::quote;
use rusqlite::Connection;

use crate::cli::shown;
use crate::failure::Failure;

/// Prefixes of tables that belong to replication itself, ours and the one HarmonyLite leaves behind.
const OURS: &str = "__antiphon__";
const THEIRS: &str = "__harmonylite__";

/// What is in a database.
#[derive(Debug)]
pub(super) struct Survey {
    /// Ordinary tables by name.
    pub(super) tables: Vec<Table>,
    /// Kind and name of what is never replicated.
    pub(super) others: Vec<(String, String)>,
}

/// An ordinary table.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) name: String,
    /// Columns of the primary key in key order.
    pub(super) key: Vec<String>,
    /// How many UNIQUE indexes it has besides the primary key.
    pub(super) uniques: u32,
    /// Why it can't be replicated, as the end of a sentence.
    pub(super) obstacle: Option<String>,
}

impl Survey {
    pub(super) fn of(path: &Path) -> Result<Self, Failure> {
        crate::unread::file(path)?;
        read(path).map_err(|error| crate::unread::by_sqlite(path, &error))
    }
}

fn read(path: &Path) -> rusqlite::Result<Survey> {
    let db = crate::db::look(path)?;
    let mut survey = Survey { tables: Vec::new(), others: Vec::new() };
    let mut list = db.prepare(
        "SELECT name, type FROM pragma_table_list WHERE schema = 'main' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' \
         ORDER BY name",
    )?;
    let names = list.query_map((), |row| Ok((row.get(0)?, row.get(1)?)))?;
    for entry in names {
        let (name, kind): (String, String) = entry?;
        match kind.as_str() {
            _ if name.starts_with(OURS) => {}
            "table" => survey.tables.push(table(&db, name)?),
            "virtual" => survey.others.push(("virtual table".to_owned(), name)),
            "shadow" => {} // part of its virtual table
            _ => survey.others.push((kind, name)),
        }
    }
    Ok(survey)
}

fn table(db: &Connection, name: String) -> rusqlite::Result<Table> {
    let key: Vec<String> = db
        .prepare("SELECT name FROM pragma_table_info(?1) WHERE pk > 0 ORDER BY pk")?
        .query_map([&name], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let uniques = db.query_row(
        "SELECT count(*) FROM pragma_index_list(?1) WHERE \"unique\" AND origin <> 'pk'",
        [&name],
        |row| row.get(0),
    )?;
    let obstacle = if name.starts_with(THEIRS) {
        Some("it is what HarmonyLite left behind".to_owned())
    } else if key.is_empty() {
        Some("it has no primary key".to_owned())
    } else {
        obstacle_in_rows(db, &name, &key)
    };
    Ok(Table { name, key, uniques, obstacle })
}

/// SQLite lets a NULL into most primary keys, and then there may be many rows of one key.
fn obstacle_in_rows(db: &Connection, name: &str, key: &[String]) -> Option<String> {
    // One question a column: each can use the key's index, `OR` between them might not.
    for column in key {
        let sql = format!("SELECT EXISTS (SELECT 1 FROM {} WHERE {} IS NULL)", quote(name), quote(column));
        match db.query_row(&sql, (), |row| row.get::<_, bool>(0)) {
            Ok(false) => {}
            Ok(true) => return Some("there are rows with NULL in its primary key".to_owned()),
            Err(error) => return Some(format!("its key can't be read here: {}", shown::name(&error.to_string()))),
        }
    }
    None
}
