//! Single rows of the application's tables, read and written through prepared statements.

use super::catalog::Tracked;
use super::values::{bind, values};
use super::{Doing as _, Error};
use antiphon_core::schema::{Column, quote};
use antiphon_core::value::{Row, Value};
use rusqlite::{CachedStatement, Connection};

/// The condition that a row has the key bound from parameter `first` on.
pub(super) fn key_filter(tracked: &Tracked, first: usize) -> String {
    let names = tracked.key.iter().filter_map(|&position| tracked.table.columns.get(position));
    let term = |(n, column): (usize, &Column)| {
        format!("{} = ?{}{}", quote(&column.name), n + first, tracked.table.collate(column))
    };
    names.enumerate().map(term).collect::<Vec<_>>().join(" AND ")
}

/// All columns, for a SELECT or INSERT.
pub(super) fn column_list(tracked: &Tracked) -> String {
    tracked.table.columns.iter().map(|column| quote(&column.name)).collect::<Vec<_>>().join(", ")
}

/// Reads all columns of all rows; a condition may follow.
pub(super) fn select(tracked: &Tracked) -> String {
    format!("SELECT {} FROM main.{}", column_list(tracked), quote(&tracked.table.name))
}

/// T's whole row of a key.
pub(super) fn whole(conn: &Connection, tracked: &Tracked, key: &[Value]) -> Result<Option<Row>, Error> {
    const READING: &str = "read a row";
    let sql = format!("{} WHERE {}", select(tracked), key_filter(tracked, 1));
    let mut statement = conn.prepare_cached(&sql).doing(READING)?;
    bind(&mut statement, 1, key.iter()).doing(READING)?;
    let mut rows = statement.raw_query();
    match rows.next().doing(READING)? {
        Some(row) => Ok(Some(values(row, 0, tracked.table.columns.len()).doing(READING)?)),
        None => Ok(None),
    }
}

/// Writes rows of one table; each statement is made once for a set of columns.
pub(super) struct Writer<'a> {
    conn: &'a Connection,
    tracked: &'a Tracked,
    upsert: Option<(Vec<usize>, CachedStatement<'a>)>,
    delete: Option<CachedStatement<'a>>,
}

const WRITING: &str = "write a row";

impl<'a> Writer<'a> {
    pub(super) fn new(conn: &'a Connection, tracked: &'a Tracked) -> Self {
        Self { conn, tracked, upsert: None, delete: None }
    }

    /// Removes the row with this key, if there is one.
    pub(super) fn delete(&mut self, key: &[Value]) -> Result<(), Error> {
        let statement = match &mut self.delete {
            Some(statement) => statement,
            none => {
                let table = quote(&self.tracked.table.name);
                let sql = format!("DELETE FROM main.{table} WHERE {}", key_filter(self.tracked, 1));
                none.insert(self.conn.prepare_cached(&sql).doing(WRITING)?)
            }
        };
        bind(statement, 1, key.iter()).doing(WRITING)?;
        statement.raw_execute().doing(WRITING)?;
        Ok(())
    }

    /// Inserts a row, or updates just these columns of it.
    pub(super) fn upsert<'v>(&mut self, columns: &[usize], row: impl Iterator<Item = &'v Value>) -> Result<(), Error> {
        if self.upsert.as_ref().is_none_or(|(known, _)| known != columns) {
            let statement = self.conn.prepare_cached(&upsert(self.tracked, columns)).doing(WRITING)?;
            self.upsert = Some((columns.to_vec(), statement));
        }
        if let Some((_, statement)) = &mut self.upsert {
            bind(statement, 1, row).doing(WRITING)?;
            statement.raw_execute().doing(WRITING)?;
        }
        Ok(())
    }
}

/// Inserts the row or updates just these columns of it: never REPLACE, which would delete and lose the others, nor
/// whatever else the table's own conflict clauses say: a row that it doesn't take must not be passed over.
fn upsert(tracked: &Tracked, columns: &[usize]) -> String {
    let table = &tracked.table;
    let columns: Vec<&Column> = columns.iter().filter_map(|&position| table.columns.get(position)).collect();
    let names = columns.iter().map(|column| quote(&column.name)).collect::<Vec<_>>().join(", ");
    let places = (1..=columns.len()).map(|n| format!("?{n}")).collect::<Vec<_>>().join(", ");
    if crate::flaw!(ReplaceApply) {
        return format!("INSERT OR REPLACE INTO main.{} ({names}) VALUES ({places})", quote(&table.name));
    }
    let key = tracked.key.iter().filter_map(|&position| table.columns.get(position));
    let key = key.map(|column| quote(&column.name)).collect::<Vec<_>>().join(", ");
    // Key columns are set, too: 'A' may replace 'a' under NOCASE. A rowid can't differ and be equal.
    let sets = columns.iter().filter(|column| column.pk_position == 0 || !table.rowid_key);
    let sets = sets.map(|column| format!("{0} = excluded.{0}", quote(&column.name))).collect::<Vec<_>>().join(", ");
    let action = if sets.is_empty() { "NOTHING".to_owned() } else { format!("UPDATE SET {sets}") };
    format!(
        "INSERT OR ABORT INTO main.{} ({names}) VALUES ({places}) ON CONFLICT ({key}) DO {action}",
        quote(&table.name)
    )
}
