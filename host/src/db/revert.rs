//! A database that is in use becomes as it was, by writes like the application's own: so its triggers note them, and they
//! become this node's changes.
//!
//! Rows are compared without holding anybody up. What differs is then written in one transaction, which the application
//! sees whole or not at all. The application's triggers stay out of it, for their effects are among the rows that come back.

use super::merge::{Encoding, KeyOrder, Pair, Side, merge};
use super::values::{bind, values};
use super::{Doing as _, Error, Filter, catalog};
use antiphon_core::capture::PREFIX;
use antiphon_core::schema::{Table, quote};
use antiphon_core::value::{Row, Value};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _};
use std::path::Path;
use std::time::Duration;

/// How long another's write is waited for.
const PATIENCE: Duration = Duration::from_secs(30);
const WRITING: &str = "write rows as they were";
const READING: &str = "read rows as they were";

/// How a table was brought back.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Reverted {
    /// The table.
    pub table: String,
    /// Rows that were missing.
    pub inserted: u64,
    /// Rows that had other values.
    pub updated: u64,
    /// Rows that had not been there.
    pub deleted: u64,
    /// Columns that only the past has: their values are not brought back.
    pub columns_gone: Vec<String>,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Reversion {
    /// Tables that both have.
    pub tables: Vec<Reverted>,
    /// Tables that were not there, and stay as they are.
    pub newer: Vec<String>,
    /// Tables that are not here any more, and don't come back.
    pub gone: Vec<String>,
    /// Why nothing was done, if so.
    pub obstacle: Option<String>,
}

impl Reversion {
    /// Rows that were written or deleted.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.tables.iter().map(|table| table.inserted + table.updated + table.deleted).sum()
    }
}

/// What is done to a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Insert,
    Update,
    Delete,
}

/// A table that both have.
struct Twin {
    here: Table,
    there: Table,
    /// Names of the columns that both have.
    common: Vec<String>,
    /// Other rows may stand in the way of a row.
    contended: bool,
    differing: Vec<(Row, Act)>,
}

/// Brings the tables of a database to the rows of an image; with `dry_run` only counts.
///
/// # Errors
/// When one of them can't be read or written; nothing has changed then.
pub fn revert(live: &Path, image: &Path, filter: &Filter, dry_run: bool) -> Result<Reversion, Error> {
    let conn = connect(live)?;
    let past = super::look::look(image).doing("open the database as it was")?;
    let mut reversion = Reversion::default();
    conn.execute_batch("BEGIN").doing("begin a transaction")?;
    let twins = twins(&conn, &past, filter, &mut reversion);
    conn.execute_batch("COMMIT").doing("end a transaction")?;
    let twins = twins?;
    if reversion.obstacle.is_some() {
        return Ok(reversion);
    }
    for twin in &twins {
        let count = |act| twin.differing.iter().filter(|(_, of)| *of == act).count() as u64;
        let is_gone = |name: &&String| twin.here.column(name).is_none();
        reversion.tables.push(Reverted {
            table: twin.here.name.clone(),
            inserted: count(Act::Insert),
            updated: count(Act::Update),
            deleted: count(Act::Delete),
            columns_gone: twin.there.columns.iter().map(|column| &column.name).filter(is_gone).cloned().collect(),
        });
    }
    if dry_run || reversion.rows() == 0 {
        return Ok(reversion);
    }
    conn.execute_batch("BEGIN IMMEDIATE").doing("begin a transaction")?;
    let written = write(&conn, &past, &twins).and_then(|()| {
        fault!("reverting");
        conn.execute_batch("COMMIT").doing("commit a transaction")
    });
    if let Err(error) = written {
        // It may have rolled back by itself.
        let _ = conn.execute_batch("ROLLBACK");
        return Err(error);
    }
    fault!("reverted");
    Ok(reversion)
}

/// As an application does: its triggers run, our own among them.
pub(super) fn connect(path: &Path) -> Result<Connection, Error> {
    const OPENING: &str = "open the database";
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags).doing(OPENING)?;
    conn.busy_timeout(PATIENCE).doing(OPENING)?;
    #[cfg(feature = "testing")]
    crate::clock::testing::tell(&conn).doing(OPENING)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, true).doing(OPENING)?;
    // What follows from a row is among the rows.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, false).doing(OPENING)?;
    Ok(conn)
}

/// Compares what both have.
fn twins(conn: &Connection, past: &Connection, filter: &Filter, into: &mut Reversion) -> Result<Vec<Twin>, Error> {
    let (here, _) = catalog::read(conn, filter)?;
    let (there, _) = catalog::read(past, filter)?;
    let encodings = (Encoding::of(conn)?, Encoding::of(past)?);
    if let Some(table) = catalog::uncaptured(conn, &here)?.first() {
        into.obstacle = Some(format!("changes to table `{table}` are not noted: no node has taken it in"));
        return Ok(Vec::new());
    }
    if encodings.0 != encodings.1 {
        into.obstacle = Some("its text is in another encoding than it was".to_owned());
        return Ok(Vec::new());
    }
    let is_among = |tables: &[Table], name: &str| tables.iter().any(|table| table.name.eq_ignore_ascii_case(name));
    into.gone = there.iter().map(|table| table.name.clone()).filter(|name| !is_among(&here, name)).collect();
    let mut twins = Vec::new();
    for here in here {
        let Some(there) = there.iter().find(|table| table.name.eq_ignore_ascii_case(&here.name)).cloned() else {
            into.newer.push(here.name);
            continue;
        };
        let key = |table: &Table| {
            let names = table.key_columns().into_iter().filter_map(|at| table.columns.get(at));
            names.map(|column| column.name.to_ascii_lowercase()).collect::<Vec<_>>()
        };
        if key(&here) != key(&there) {
            into.obstacle = Some(format!("table `{}` had another key", here.name));
            return Ok(Vec::new());
        }
        let common: Vec<(usize, usize)> = here
            .columns
            .iter()
            .enumerate()
            .filter_map(|(at, column)| Some((at, there.column(&column.name)?)))
            .collect();
        let (ours, theirs): (Vec<usize>, Vec<usize>) = common.iter().copied().unzip();
        let mut differing = Vec::new();
        let order = KeyOrder::new(&here, encodings.0);
        let (a, b) =
            (Side { conn, table: &here, columns: &ours }, Side { conn: past, table: &there, columns: &theirs });
        merge(a, b, &order, |Pair { key, here, there }| {
            let act = match (here, there) {
                (Some(_), None) => Some(Act::Delete),
                (None, Some(_)) => Some(Act::Insert),
                (here, there) => (here != there).then_some(Act::Update),
            };
            differing.extend(act.map(|act| (key, act)));
            Ok(())
        })?;
        let contended = conn
            .query_row(
                "SELECT EXISTS (SELECT 1 FROM pragma_index_list(?1) WHERE \"unique\" AND origin <> 'pk')",
                [&here.name],
                |row| row.get(0),
            )
            .doing("read the schema")?;
        let common = ours.iter().filter_map(|at| here.columns.get(*at)).map(|column| column.name.clone()).collect();
        twins.push(Twin { here, there, common, contended, differing });
    }
    Ok(twins)
}

fn write(conn: &Connection, past: &Connection, twins: &[Twin]) -> Result<(), Error> {
    let twins: Vec<&Twin> = twins.iter().filter(|twin| !twin.differing.is_empty()).collect();
    let mut triggers = Vec::new();
    for twin in &twins {
        triggers.extend(others(conn, &twin.here)?);
    }
    for (name, _) in &triggers {
        conn.execute_batch(&format!("DROP TRIGGER main.{}", quote(name))).doing(WRITING)?;
    }
    // All that goes, goes first: a UNIQUE value may move from one row to another.
    let mut kept: Vec<Vec<Option<Row>>> = Vec::new();
    for twin in &twins {
        kept.push(clear(conn, twin)?);
    }
    for (twin, kept) in twins.iter().zip(kept) {
        fill(conn, past, twin, kept)?;
    }
    for (_, sql) in &triggers {
        conn.execute_batch(sql).doing(WRITING)?;
    }
    Ok(())
}

/// The application's triggers on a table.
pub(super) fn others(conn: &Connection, table: &Table) -> Result<Vec<(String, String)>, Error> {
    let like = format!("{PREFIX}%").replace('_', "\\_");
    conn.prepare(
        "SELECT name, sql FROM main.sqlite_schema WHERE type = 'trigger' AND tbl_name = ?1 COLLATE NOCASE
         AND name NOT LIKE ?2 ESCAPE '\\' ORDER BY rowid",
    )
    .and_then(|mut statement| {
        statement.query_map([&table.name, &like], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
    })
    .doing("read the schema")
}

/// Deletes what goes, and where rows may stand in each other's way what changes as well; gives those as they were.
fn clear(conn: &Connection, twin: &Twin) -> Result<Vec<Option<Row>>, Error> {
    let all: Vec<String> = twin.here.columns.iter().map(|column| column.name.clone()).collect();
    let mut kept = Vec::new();
    for (key, act) in &twin.differing {
        let goes = *act == Act::Delete || (*act == Act::Update && twin.contended);
        if goes && *act == Act::Update && all.len() > twin.common.len() {
            // It has columns of its own, which stay as they are.
            kept.push(read(conn, &twin.here, &all, key)?);
        } else {
            kept.push(None);
        }
        if goes {
            let sql = format!("DELETE FROM main.{} WHERE {}", quote(&twin.here.name), of_key(&twin.here, 1));
            run(conn, &sql, key.iter())?;
        }
    }
    Ok(kept)
}

/// Writes what comes back.
fn fill(conn: &Connection, past: &Connection, twin: &Twin, kept: Vec<Option<Row>>) -> Result<(), Error> {
    let table = quote(&twin.here.name);
    for ((key, act), kept) in twin.differing.iter().zip(kept) {
        if *act == Act::Delete {
            continue;
        }
        // As the past spells their names, which may be another way.
        let names: Vec<String> = twin
            .common
            .iter()
            .filter_map(|name| twin.there.columns.get(twin.there.column(name)?))
            .map(|column| column.name.clone())
            .collect();
        let Some(row) = read(past, &twin.there, &names, key)? else {
            return Err(Error::Inconsistent(format!("a row of `{}` is not there any more", twin.there.name)));
        };
        if *act == Act::Update && !twin.contended {
            let set = twin.common.iter().zip(1..).map(|(name, at)| format!("{} = ?{at}", quote(name)));
            let set = set.collect::<Vec<_>>().join(", ");
            let filter = of_key(&twin.here, row.len() + 1);
            let changed = run(conn, &format!("UPDATE main.{table} SET {set} WHERE {filter}"), row.iter().chain(key))?;
            // Somebody deleted it meanwhile.
            if changed > 0 {
                continue;
            }
        } else if *act == Act::Insert {
            // Somebody wrote one meanwhile.
            run(conn, &format!("DELETE FROM main.{table} WHERE {}", of_key(&twin.here, 1)), key.iter())?;
        }
        let (names, row) = match kept {
            Some(mut whole) => {
                for (name, value) in twin.common.iter().zip(row) {
                    if let Some(slot) = twin.here.column(name).and_then(|at| whole.get_mut(at)) {
                        *slot = value;
                    }
                }
                (twin.here.columns.iter().map(|column| column.name.clone()).collect(), whole)
            }
            None => (twin.common.clone(), row),
        };
        let places = (1..=row.len()).map(|at| format!("?{at}")).collect::<Vec<_>>().join(", ");
        let sql = format!("INSERT OR ABORT INTO main.{table} ({}) VALUES ({places})", listed(&names));
        run(conn, &sql, row.iter())?;
    }
    Ok(())
}

pub(super) fn listed(names: &[String]) -> String {
    names.iter().map(|name| quote(name)).collect::<Vec<_>>().join(", ")
}

/// The condition that a row has a key, whose first value is bound to this parameter.
pub(super) fn of_key(table: &Table, first: usize) -> String {
    let columns = table.key_columns().into_iter().filter_map(|at| table.columns.get(at));
    let term = |(at, name): (usize, String)| format!("{name} = ?{at}");
    (first..).zip(columns.map(|column| quote(&column.name))).map(term).collect::<Vec<_>>().join(" AND ")
}

pub(super) fn read(conn: &Connection, table: &Table, names: &[String], key: &Row) -> Result<Option<Row>, Error> {
    let sql = format!("SELECT {} FROM main.{} WHERE {}", listed(names), quote(&table.name), of_key(table, 1));
    let mut statement = conn.prepare_cached(&sql).doing(READING)?;
    bind(&mut statement, 1, key.iter()).doing(READING)?;
    let mut rows = statement.raw_query();
    let row = rows.next().doing(READING)?;
    row.map(|row| values(row, 0, names.len())).transpose().optional().map(Option::flatten).doing(READING)
}

pub(super) fn run<'a>(conn: &Connection, sql: &str, bound: impl Iterator<Item = &'a Value>) -> Result<usize, Error> {
    let mut statement = conn.prepare_cached(sql).doing(WRITING)?;
    bind(&mut statement, 1, bound).doing(WRITING)?;
    statement.raw_execute().doing(WRITING)
}
