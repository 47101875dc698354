//! A user knows that a node is gone for good: what is kept of its changes becomes this node's own, and nothing waits for
//! the rest any more.
//!
//! Rows are written as the application would write them, so its triggers of ours note them. Only a row that stands as it
//! did at the loss is written: whoever has changed it since knew better.

use super::super::own::ours;
use super::super::revert::{connect, listed, of_key, others, read, run};
use super::super::unique::key_values;
use super::super::values::unsigned;
use super::super::{Doing as _, Error, Filter, catalog};
use super::Place;
use crate::log::Shard;
use antiphon_core::codec::decode_row;
use antiphon_core::schema::{Table, quote};
use antiphon_core::value::{Row, Value};
use rusqlite::{Connection, ErrorCode};
use std::collections::BTreeSet;
use std::path::Path;

const READING: &str = "read the rows that are kept";
const WRITING: &str = "write the rows that were kept";

/// Nothing waits for the node any more, and rows are still to be written, or could not be.
const WAITS: u8 = 1;
/// Nothing is left to be done about it.
const DONE: u8 = 2;

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct GivenUp {
    /// How many changes of these nodes had been read here and are in no log any more; 0: there is nothing to give up.
    pub changes: u64,
    /// Other nodes that are still to send something again: until they have, nobody knows which row was whose, and none is
    /// written.
    pub others: BTreeSet<u64>,
    /// The rows that were kept.
    pub rows: Vec<Stray>,
    /// Why nothing was done, if so.
    pub obstacle: Option<String>,
}

/// A row that was kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Stray {
    /// Its table.
    pub table: String,
    /// Its key.
    pub key: Row,
    /// Its columns, where there was a row.
    pub columns: Vec<String>,
    /// The row as it was here; `None`: it had been deleted.
    pub row: Option<Row>,
    /// What becomes of it.
    pub verdict: Verdict,
}

/// What becomes of a row that was kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is written again.
    Written,
    /// It was changed since; that stays.
    Changed,
    /// It may have been changed since: nobody can tell.
    Doubtful,
    /// The database does not take it, for this reason.
    Refused(String),
}

/// A row that was kept, as it is stored.
struct Kept {
    stray: Stray,
    base: Option<Row>,
    place: i64,
    stored_key: Vec<u8>,
}

/// Gives up on what this node had read of others and no log has any more; with `dry_run` only says what would be done.
/// `doubtful`: rows of which nobody can tell whether they were changed since are written, too.
///
/// # Errors
/// When the file can't be read or written; nothing has changed then.
pub fn give_up(
    path: &Path,
    filter: &Filter,
    nodes: &BTreeSet<u64>,
    doubtful: bool,
    dry_run: bool,
) -> Result<GivenUp, Error> {
    let conn = connect(path)?;
    conn.execute_batch(if dry_run { "BEGIN" } else { "BEGIN IMMEDIATE" }).doing("begin a transaction")?;
    let done = work(&conn, filter, nodes, doubtful, dry_run).and_then(|given_up| {
        conn.execute_batch("COMMIT").doing("commit a transaction")?;
        Ok(given_up)
    });
    if done.is_err() {
        // It may have rolled back by itself.
        let _ = conn.execute_batch("ROLLBACK");
    }
    done
}

fn work(
    conn: &Connection,
    filter: &Filter,
    nodes: &BTreeSet<u64>,
    doubtful: bool,
    dry_run: bool,
) -> Result<GivenUp, Error> {
    let mut given_up = GivenUp::default();
    let shards = owed(conn, nodes, &mut given_up)?;
    if given_up.changes == 0 {
        return Ok(given_up);
    }
    let (tables, _) = catalog::read(conn, filter)?;
    if let Some(table) = catalog::uncaptured(conn, &tables)?.first() {
        given_up.obstacle = Some(format!("changes to table `{table}` are not noted: no node has taken it in"));
        return Ok(given_up);
    }
    if !given_up.others.is_empty() {
        // What others made upon the lost changes can be sent from here on.
        if !dry_run {
            mark(conn, nodes, WAITS)?;
        }
        return Ok(given_up);
    }
    let mut waiting = kept(conn, &shards)?;
    if waiting.iter().any(|kept| kept.place == Place::Before as i64) {
        given_up.obstacle = Some("the log was not read again yet".to_owned());
        return Ok(given_up);
    }
    let mut triggers = Vec::new();
    if !dry_run && !waiting.is_empty() {
        for table in &tables {
            // What they did is among the rows.
            triggers.extend(others(conn, table)?);
        }
        for (name, _) in &triggers {
            conn.execute_batch(&format!("DROP TRIGGER main.{}", quote(name))).doing(WRITING)?;
        }
    }
    loop {
        // One may make room for another.
        let count = waiting.len();
        let mut refused = Vec::new();
        for kept in waiting {
            match judge(conn, &tables, &kept, doubtful, dry_run)? {
                Some(Verdict::Refused(why)) => {
                    refused.push(Kept { stray: Stray { verdict: Verdict::Refused(why), ..kept.stray }, ..kept });
                }
                verdict => {
                    if !dry_run && matches!(verdict, None | Some(Verdict::Written)) {
                        let key: &[u8] = &kept.stored_key;
                        conn.prepare_cached(concat!("DELETE FROM ", ours!("stray"), " WHERE tbl = ?1 AND key = ?2"))
                            .and_then(|mut statement| statement.execute((&kept.stray.table, key)))
                            .doing(WRITING)?;
                    }
                    given_up.rows.extend(verdict.map(|verdict| Stray { verdict, ..kept.stray }));
                }
            }
        }
        waiting = refused;
        if waiting.is_empty() || waiting.len() == count {
            break;
        }
    }
    given_up.rows.extend(waiting.into_iter().map(|kept| kept.stray));
    if !dry_run {
        for (_, sql) in &triggers {
            conn.execute_batch(sql).doing(WRITING)?;
        }
        let all = given_up.rows.iter().all(|row| row.verdict == Verdict::Written);
        mark(conn, nodes, if all { DONE } else { WAITS })?;
    }
    Ok(given_up)
}

/// Nothing waits for these nodes any more.
fn mark(conn: &Connection, nodes: &BTreeSet<u64>, how: u8) -> Result<(), Error> {
    for node in nodes {
        conn.execute(
            concat!("UPDATE ", ours!("owed"), " SET given_up = ?2 WHERE node = ?1"),
            (node.cast_signed(), how),
        )
        .doing(WRITING)?;
    }
    Ok(())
}

/// The shards in which this node is to send something again, and who else is.
fn owed(conn: &Connection, nodes: &BTreeSet<u64>, given_up: &mut GivenUp) -> Result<BTreeSet<Shard>, Error> {
    let mut statement = conn
        .prepare(concat!(
            "SELECT o.shard, o.node, o.number, coalesce(r.number, 0), o.given_up FROM ",
            ours!("owed"),
            " AS o LEFT JOIN ",
            ours!("received"),
            " AS r ON r.shard = o.shard AND r.node = o.node AND r.incarnation = o.incarnation
             WHERE coalesce(o.given_up, 0) < ?1 AND o.number > coalesce(r.number, 0)"
        ))
        .doing(READING)?;
    let mut rows = statement.query([DONE]).doing(READING)?;
    let (mut shards, mut all) = (BTreeSet::new(), Vec::new());
    while let Some(row) = rows.next().doing(READING)? {
        let shard: Shard = row.get(0).doing(READING)?;
        let (of, number) = (unsigned(row, 1).doing(READING)?, unsigned(row, 2).doing(READING)?);
        if row.get::<_, Option<u8>>(4).doing(READING)?.is_none() {
            all.push((shard, of));
        }
        if nodes.contains(&of) {
            given_up.changes += number - unsigned(row, 3).doing(READING)?;
            shards.insert(shard);
        }
    }
    given_up.others =
        all.into_iter().filter(|(shard, of)| !nodes.contains(of) && shards.contains(shard)).map(|(_, of)| of).collect();
    Ok(shards)
}

fn kept(conn: &Connection, shards: &BTreeSet<Shard>) -> Result<Vec<Kept>, Error> {
    let damaged = |_| Error::Inconsistent("a row that was kept cannot be read".to_owned());
    let mut statement = conn
        .prepare(concat!(
            "SELECT shard, tbl, key, columns, image, base_columns, base, place FROM ",
            ours!("stray"),
            " ORDER BY tbl, key"
        ))
        .doing(READING)?;
    let mut rows = statement.query([]).doing(READING)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next().doing(READING)? {
        if !shards.contains(&row.get(0).doing(READING)?) {
            continue;
        }
        let bytes = |at| row.get::<_, Option<Vec<u8>>>(at).doing(READING);
        let columns = |at| -> Result<Vec<String>, Error> {
            let names = decode_row(&bytes(at)?.unwrap_or_default()).map_err(damaged)?;
            let text = |name| if let Value::Text(name) = name { String::from_utf8(name).ok() } else { None };
            Ok(names.into_iter().filter_map(text).collect())
        };
        let values = |at| bytes(at)?.map(|bytes| decode_row(&bytes).map_err(damaged)).transpose();
        let (own, based) = (columns(3)?, columns(5)?);
        let stored_key = bytes(2)?.unwrap_or_default();
        let base: Option<Row> = values(6)?;
        // In the order of the row's own columns, if there is a row.
        let base = base.map(|base| {
            let value =
                |name: &String| based.iter().position(|other| other == name).and_then(|at| base.get(at).cloned());
            if own.is_empty() {
                base.clone()
            } else {
                own.iter().map(|name| value(name).unwrap_or(Value::Null)).collect()
            }
        });
        let columns = if own.is_empty() { based } else { own };
        let stray = Stray {
            table: row.get(1).doing(READING)?,
            key: key_values(&stored_key)?,
            columns,
            row: values(4)?,
            verdict: Verdict::Written,
        };
        found.push(Kept { stray, base, place: row.get(7).doing(READING)?, stored_key });
    }
    Ok(found)
}

/// Writes a row again, if it is to be; nothing, if it is there as it was.
fn judge(
    conn: &Connection,
    tables: &[Table],
    kept: &Kept,
    doubtful: bool,
    dry_run: bool,
) -> Result<Option<Verdict>, Error> {
    let Stray { table, key, columns, row, .. } = &kept.stray;
    let Some(table) = tables.iter().find(|known| known.name.eq_ignore_ascii_case(table)) else {
        return Ok(Some(Verdict::Refused("its table is not replicated any more".to_owned())));
    };
    if let Some(gone) = columns.iter().find(|name| table.column(name).is_none()) {
        return Ok(Some(Verdict::Refused(format!("its column `{gone}` is not there any more"))));
    }
    let now = read(conn, table, columns, key)?;
    if now == *row {
        return Ok(None);
    }
    if kept.place == Place::Doubtful as i64 && row.is_none() {
        // Of a row that is there only now nobody knows that it was ever deleted.
        return Ok(Some(Verdict::Changed));
    }
    if kept.place == Place::Doubtful as i64 && !doubtful {
        return Ok(Some(Verdict::Doubtful));
    }
    if kept.place == Place::AtTheLoss as i64 && now != kept.base {
        return Ok(Some(Verdict::Changed));
    }
    if dry_run {
        return Ok(Some(Verdict::Written));
    }
    let name = quote(&table.name);
    let written = match (row, now.is_some()) {
        (None, _) => run(conn, &format!("DELETE FROM main.{name} WHERE {}", of_key(table, 1)), key.iter()),
        (Some(row), true) => {
            let set = columns.iter().zip(1..).map(|(column, at)| format!("{} = ?{at}", quote(column)));
            let set = set.collect::<Vec<_>>().join(", ");
            let filter = of_key(table, row.len() + 1);
            run(conn, &format!("UPDATE OR ABORT main.{name} SET {set} WHERE {filter}"), row.iter().chain(key))
        }
        (Some(row), false) => {
            let places = (1..=row.len()).map(|at| format!("?{at}")).collect::<Vec<_>>().join(", ");
            let sql = format!("INSERT OR ABORT INTO main.{name} ({}) VALUES ({places})", listed(columns));
            run(conn, &sql, row.iter())
        }
    };
    match written {
        Ok(_) => Ok(Some(Verdict::Written)),
        Err(Error::Sqlite { source, .. }) if source.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
            Ok(Some(Verdict::Refused(source.to_string())))
        }
        Err(error) => Err(error),
    }
}
