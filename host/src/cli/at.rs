//! `antiphon at`: a question to the database as it was.

use std::io::{self, Write};

use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use rusqlite::{Connection, OpenFlags};

use super::json_line;
use super::shown::{JsonRow, Literal, name, utc};
use super::snapshot::{Points, Source, Which, graded, reached};
use crate::db::owned;
use crate::failure::{Failure, Kind};
use crate::snapshot::places;
use antiphon_core::value::Value;

/// Rows that are looked at to make columns wide enough.
const WIDTHS: usize = 1_000;
/// Letters of a value that are printed in a table.
const WIDTH_MAX: usize = 60;

/// Ask a query of the database as it was at a point in time
///
/// The database is put together aside, from a snapshot and the log, and kept for a while, so that the next question is
/// answered at once. Nothing is changed, and no node has to run.
#[derive(Debug, clap::Args)]
pub(super) struct At {
    /// When: 2026-11-21T12:05:41Z, "2026-11-21 12:05" (UTC), an age as "2h ago", a place in the log as 1:200, or the name
    /// of a snapshot
    #[arg(value_name = "TIME|SEQ|ID")]
    point: Which,
    /// The query
    #[arg(value_name = "SQL")]
    sql: String,
    /// Go on behind stretches of the log that nobody has: what was written in them is missing then
    #[arg(long)]
    allow_hole: bool,
    #[command(flatten)]
    source: Source,
    /// One JSON object a row
    #[arg(long, conflicts_with = "csv")]
    json: bool,
    /// Comma-separated values, with the columns' names in the first line
    #[arg(long)]
    csv: bool,
}

impl At {
    pub(super) fn run(self) -> Result<(), Failure> {
        if matches!(self.point, Which::Live) {
            return Err(Failure::usage("`live` is no point in time").hint("ask the database itself: `sqlite3 DB SQL`"));
        }
        let found = self.source.clone().open()?;
        let points = Points::open(&found)?;
        let past = points.get(&found, &self.point, self.allow_hole).map_err(graded)?;
        let mut talk = io::stderr().lock();
        writeln!(talk, "as of {}, at {}", utc(reached(&past.positions)), places(&past.positions))?;
        if !past.is_complete {
            writeln!(talk, "the archive ends there, and the log can't be reached: what came after that is not in it")?;
        }
        drop(talk);
        let refused = |error: rusqlite::Error| {
            Failure::caused(Kind::General, "the query can't be answered", &error)
                .hint("tables are those of that time: `SELECT name FROM sqlite_schema` says which")
        };
        let conn = open(&past.path).map_err(refused)?;
        let mut statement = conn.prepare(&self.sql).map_err(refused)?;
        if !statement.readonly() {
            return Err(Failure::usage("the past can only be read").hint("bring it back: `antiphon snapshot restore`"));
        }
        let columns: Vec<String> = statement.column_names().map(str::to_owned).collect();
        let mut rows = statement.query([]).map_err(refused)?;
        let mut next = || -> Result<Option<Vec<Value>>, Failure> {
            let Some(row) = rows.next().map_err(refused)? else { return Ok(None) };
            let value = |column| row.get_ref(column).map(owned);
            (0..columns.len()).map(value).collect::<rusqlite::Result<_>>().map(Some).map_err(refused)
        };
        let mut out = io::BufWriter::new(io::stdout().lock());
        if self.json {
            while let Some(values) = next()? {
                json_line(&mut out, &JsonRow { columns: &columns, values: &values })?;
            }
        } else if self.csv {
            csv(&mut out, columns.iter().cloned())?;
            while let Some(values) = next()? {
                csv(&mut out, values.iter().map(plain))?;
            }
        } else {
            table(&mut out, &columns, &mut next)?;
        }
        Ok(out.flush()?)
    }
}

/// Opens a database that came from elsewhere: nothing in it runs, nothing is written, and no other file is reached.
fn open(path: &std::path::Path) -> rusqlite::Result<Connection> {
    let conn = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    conn.pragma_update(None, "query_only", "ON")?;
    conn.pragma_update(None, "trusted_schema", "OFF")?;
    conn.pragma_update(None, "cell_size_check", "ON")?;
    conn.pragma_update(None, "mmap_size", 0)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    conn.set_limit(Limit::SQLITE_LIMIT_ATTACHED, 0)?;
    Ok(conn)
}

fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Text(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        value => Literal { value, most: usize::MAX }.to_string(),
    }
}

fn csv(out: &mut impl Write, fields: impl Iterator<Item = String>) -> io::Result<()> {
    for (at, field) in fields.enumerate() {
        let comma = if at == 0 { "" } else { "," };
        if field.contains(['"', ',', '\n', '\r']) {
            write!(out, "{comma}\"{}\"", field.replace('"', "\"\""))?;
        } else {
            write!(out, "{comma}{field}")?;
        }
    }
    write!(out, "\r\n")
}

/// A value in a table.
fn cell(value: &Value) -> String {
    let text = match value {
        Value::Null => "NULL".to_owned(),
        value => name(&plain(value)),
    };
    if text.chars().count() <= WIDTH_MAX {
        return text;
    }
    text.chars().take(WIDTH_MAX - 1).chain(['…']).collect()
}

fn table(
    out: &mut impl Write,
    columns: &[String],
    next: &mut impl FnMut() -> Result<Option<Vec<Value>>, Failure>,
) -> Result<(), Failure> {
    let head: Vec<String> = columns.iter().map(|column| name(column)).collect();
    let mut first = vec![head];
    while first.len() <= WIDTHS
        && let Some(values) = next()?
    {
        first.push(values.iter().map(cell).collect());
    }
    let mut widths = vec![0; columns.len()];
    for row in &first {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut line = |cells: &[String]| {
        let padded = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        writeln!(out, "{}", padded.collect::<Vec<_>>().join("  ").trim_end())
    };
    for row in &first {
        line(row)?;
    }
    while let Some(values) = next()? {
        line(&values.iter().map(cell).collect::<Vec<_>>())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_with_commas_are_quoted() {
        let mut out = Vec::new();
        let fields = ["a", "b,c", "d\"e", "f\ng", ""];
        csv(&mut out, fields.iter().map(ToString::to_string)).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "a,\"b,c\",\"d\"\"e\",\"f\ng\",\r\n");
    }

    #[test]
    fn columns_are_as_wide_as_they_need_to_be() {
        let rows = vec![vec![Value::Integer(1), Value::from("x\ny")], vec![Value::Null, Value::Blob(vec![1])]];
        let mut rows = rows.into_iter();
        let mut out = Vec::new();
        let columns = ["id".to_owned(), "v".to_owned()];
        table(&mut out, &columns, &mut || Ok(rows.next())).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "id    v\n1     x\\ny\nNULL  x'01'\n");
    }
}
