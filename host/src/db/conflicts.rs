//! The records of clashes, for those who want to know what was overruled.
//!
//! Columns are read by name: a file of another version may have fewer of them, or more.

use super::inspect::Look;
use super::own::ours;
use super::values::values;
use super::{Doing as _, Error, connect};
use crate::log::Shard;
use antiphon_core::codec::decode_row;
use antiphon_core::value::{Row, Value};
use rusqlite::{Connection, OpenFlags};
use std::path::Path;

/// Records deleted in one transaction: the application's writes wait for it.
const PURGE_MAX: usize = 500;

/// One clash, and what became of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record {
    /// Its place in this file's table; another node has it under another number.
    pub rowid: i64,
    /// The shard of the entry that won or lost.
    pub shard: Shard,
    /// Where that entry stands.
    pub seq: u64,
    /// Which clash of that entry: with shard and position, the same on all nodes.
    pub n: u64,
    /// The table.
    pub table: String,
    /// The key.
    pub key: Row,
    /// Why it is a clash.
    pub cause: String,
    /// Who was asked.
    pub resolver: String,
    /// What was answered.
    pub verdict: String,
    /// The node whose row stands.
    pub winner_node: Option<u64>,
    /// The node whose row was overruled.
    pub loser_node: Option<u64>,
    /// Names of the columns of both rows.
    pub columns: Vec<String>,
    /// The row that stands; `None` = it is gone.
    pub winner: Option<Row>,
    /// The row that was overruled; `None` = it was a deletion, or is not known here.
    pub loser: Option<Row>,
    /// The row that was made of both and stands, if one was.
    pub merged: Option<Row>,
    /// When, in milliseconds since 1970, as far as the record says so itself.
    pub time_ms: Option<u64>,
    /// Columns that this version does not know.
    pub more: Vec<(String, Value)>,
}

/// The records of one file.
#[derive(Debug)]
pub struct Conflicts<'a> {
    look: &'a Look,
}

const READING: &str = "read the records of clashes";

impl<'a> Conflicts<'a> {
    /// The records of a file; `None` if no host ever ran there.
    ///
    /// # Errors
    /// When the schema can't be read.
    pub fn of(look: &'a Look) -> Result<Option<Self>, Error> {
        Ok(look.has("conflict")?.then_some(Self { look }))
    }

    /// Calls `each` for every record, in the order of the log.
    ///
    /// # Errors
    /// When a record can't be read, or `each` fails. `each` says whether to go on.
    pub fn each<E: From<Error>>(&self, mut each: impl FnMut(Record) -> Result<bool, E>) -> Result<(), E> {
        let mut statement = self
            .look
            .conn()
            .prepare(concat!("SELECT * FROM ", ours!("conflict"), " ORDER BY shard, seq, id"))
            .doing(READING)?;
        let names: Vec<String> = statement.column_names().map(str::to_owned).collect();
        let mut rows = statement.query([]).doing(READING)?;
        let (mut place, mut n) = ((0, 0), 0);
        while let Some(row) = rows.next().doing(READING)? {
            let mut record = read(&names, values(row, 0, names.len()).doing(READING)?)?;
            n = if place == (record.shard, record.seq) { n + 1 } else { 1 };
            place = (record.shard, record.seq);
            if record.n == 0 {
                record.n = n;
            }
            if !each(record)? {
                break;
            }
        }
        Ok(())
    }
}

/// Deletes these records from a file, a few at a time; gives how many there were.
///
/// # Errors
/// When SQLite refuses; what was deleted before stays deleted.
pub(crate) fn purge(path: &Path, rowids: &[i64]) -> Result<u64, Error> {
    const PURGING: &str = "delete records of clashes";
    let conn = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let mut deleted = 0;
    for piece in rowids.chunks(PURGE_MAX) {
        conn.execute_batch("BEGIN IMMEDIATE").doing("begin a transaction")?;
        let done = delete(&conn, piece).doing(PURGING).and_then(|count| {
            conn.execute_batch("COMMIT").doing("commit a transaction")?;
            Ok(count)
        });
        if done.is_err() && !conn.is_autocommit() {
            conn.execute_batch("ROLLBACK").doing("roll a transaction back")?;
        }
        deleted += done?;
    }
    Ok(deleted)
}

fn delete(conn: &Connection, rowids: &[i64]) -> rusqlite::Result<u64> {
    let mut statement = conn.prepare_cached(concat!("DELETE FROM ", ours!("conflict"), " WHERE id = ?1"))?;
    let mut deleted = 0;
    for rowid in rowids {
        deleted += statement.execute([rowid])? as u64;
    }
    Ok(deleted)
}

fn read(names: &[String], values: Row) -> Result<Record, Error> {
    let mut record = Record::default();
    for (name, value) in names.iter().zip(values) {
        match name.as_str() {
            "id" => record.rowid = integer(&value).unwrap_or(0),
            "shard" => record.shard = integer(&value).and_then(|shard| u32::try_from(shard).ok()).unwrap_or(0),
            "seq" => record.seq = integer(&value).map_or(0, i64::cast_unsigned),
            "n" => record.n = integer(&value).map_or(0, i64::cast_unsigned),
            "tbl" | "table" => record.table = text(value),
            "key" => record.key = row(value)?.unwrap_or_default(),
            "cause" => record.cause = text(value),
            "resolver" => record.resolver = text(value),
            "verdict" => record.verdict = text(value),
            "winner_node" => record.winner_node = integer(&value).map(i64::cast_unsigned),
            "loser_node" => record.loser_node = integer(&value).map(i64::cast_unsigned),
            "columns" => record.columns = row(value)?.unwrap_or_default().into_iter().map(text).collect(),
            "winner" => record.winner = row(value)?,
            "loser" => record.loser = row(value)?,
            "merged" => record.merged = row(value)?,
            // Hybrid clocks count milliseconds.
            "clock" | "winner_clock" => {
                record.time_ms =
                    record.time_ms.or_else(|| integer(&value).map(i64::cast_unsigned).filter(|ms| *ms > 0));
                record.more.push((name.clone(), value));
            }
            "time" => record.time_ms = integer(&value).map(|ns| ns.cast_unsigned() / 1_000_000).filter(|ms| *ms > 0),
            "reason" if value == Value::Null => {}
            // When this node heard of it, for housekeeping.
            "noted" => {}
            _ => record.more.push((name.clone(), value)),
        }
    }
    Ok(record)
}

fn integer(value: &Value) -> Option<i64> {
    if let Value::Integer(number) = value { Some(*number) } else { None }
}

fn text(value: Value) -> String {
    match value {
        Value::Text(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn row(value: Value) -> Result<Option<Row>, Error> {
    let Value::Blob(bytes) = value else { return Ok(None) };
    decode_row(&bytes)
        .map(Some)
        .map_err(|error| Error::Inconsistent(format!("a record of a clash cannot be read: {error}")))
}
