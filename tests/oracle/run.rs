//! A program, side by side on a node and on a plain SQLite.

use crate::program::{Program, Step};
use antiphon_harness::{Node, Setup, dump, pair_with};
use rusqlite::Connection;
use rusqlite::types::Value;

/// What was done, so that a run that does nothing is seen.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) done: u64,
    pub(crate) refused: u64,
    pub(crate) ddl: u64,
    pub(crate) rows: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, other: &Self) {
        self.done += other.done;
        self.refused += other.refused;
        self.ddl += other.ddl;
        self.rows += other.rows;
    }
}

/// What an application sees of one statement.
#[derive(Debug, PartialEq)]
struct Outcome {
    result: Result<Vec<Vec<Value>>, String>,
    changes: u64,
    last_rowid: i64,
    autocommit: bool,
}

fn execute(conn: &Connection, sql: &str) -> Outcome {
    let rows = || {
        let mut statement = conn.prepare(sql)?;
        let width = statement.column_count();
        let rows = statement.query_map([], |row| (0..width).map(|column| bytes(row, column)).collect())?;
        rows.collect::<rusqlite::Result<Vec<Vec<Value>>>>()
    };
    // Where in the statement it failed is no part of SQLite's own message.
    let result = rows().map_err(|error| match error {
        rusqlite::Error::SqlInputError { msg, .. } => msg,
        error => error.to_string(),
    });
    Outcome { result, changes: conn.changes(), last_rowid: conn.last_insert_rowid(), autocommit: conn.is_autocommit() }
}

/// A value as it is, text that is not UTF-8 included.
fn bytes(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<Value> {
    use rusqlite::types::ValueRef;
    Ok(match row.get_ref(column)? {
        ValueRef::Text(text) => Value::Text(format!("{text:02x?}")),
        other => Value::try_from(other)?,
    })
}

/// A plain SQLite does not check the foreign key of an INSERT OR REPLACE where a trigger of the application's writes
/// to the parent's table; beside other triggers it does. Where that lets a child without a parent in, it is SQLite that
/// differs from itself, and what follows can't be compared.
fn is_unchecked(plain: &Connection, theirs: &Outcome, ours: &Outcome) -> bool {
    let refused = matches!(&ours.result, Err(error) if error.contains("FOREIGN KEY"));
    refused && theirs.result.is_ok() && plain.prepare("PRAGMA foreign_key_check").unwrap().exists([]).unwrap()
}

/// The other node, brought up to date.
fn settle(a: &mut Node, b: &mut Node) -> Result<(), String> {
    for _ in 0..8 {
        a.publish();
        for node in [&mut *a, &mut *b] {
            if let Some(reason) = node.apply() {
                return Err(format!("blocked: {reason}"));
            }
        }
    }
    Ok(())
}

/// Runs it; the error says what differs.
pub(crate) fn run(program: &Program) -> Result<Tally, String> {
    let mut tally = Tally::default();
    let plain = Connection::open_in_memory().unwrap();
    let (mut a, mut b) = pair_with(&Setup { changes_max: program.piece, ..Setup::default() }, &program.schema);
    plain.execute_batch(&program.schema).unwrap();
    for conn in [&plain, &a.app] {
        conn.execute_batch(&program.settings).unwrap();
    }
    // A foreign key is checked before the row is inserted where a statement can do nothing else, and after it where
    // there is a trigger, anybody's: until the next row, the two remember another rowid.
    let mut comparable = true;
    for step in &program.steps {
        match step {
            Step::Sql(sql) => {
                let (mut ours, theirs) = (execute(&a.app, sql), execute(&plain, sql));
                if is_unchecked(&plain, &theirs, &ours) {
                    return Ok(tally);
                }
                let is_foreign = matches!(&theirs.result, Err(error) if error.contains("FOREIGN KEY"));
                comparable = (comparable && !is_foreign) || ours.last_rowid == theirs.last_rowid;
                if !comparable {
                    ours.last_rowid = theirs.last_rowid;
                }
                if ours != theirs {
                    return Err(format!("statement: {sql}\n  replicated: {ours:?}\n  plain:      {theirs:?}"));
                }
                if ours.result.is_ok() { tally.done += 1 } else { tally.refused += 1 }
            }
            Step::Schema(sql) if plain.is_autocommit() => {
                settle(&mut a, &mut b)?;
                let theirs = plain.execute_batch(sql).is_ok();
                for (node, name) in [(&a, "replicated"), (&b, "other")] {
                    let ours = node.app.execute_batch(sql);
                    if ours.is_ok() != theirs {
                        return Err(format!("schema: {sql}\n  {name}: {ours:?}\n  plain succeeds: {theirs}"));
                    }
                }
                tally.ddl += u64::from(theirs);
            }
            Step::Sync if plain.is_autocommit() => settle(&mut a, &mut b)?,
            Step::Schema(_) | Step::Sync => {}
        }
    }
    for conn in [&plain, &a.app] {
        if !conn.is_autocommit() {
            // A deferred foreign key may forbid it.
            let _ = conn.execute_batch("COMMIT");
            let _ = conn.execute_batch("ROLLBACK");
        }
    }
    settle(&mut a, &mut b)?;
    let wanted = dump(&plain);
    for (node, name) in [(&a, "replicated"), (&b, "other")] {
        let found = dump(&node.app);
        if found != wanted {
            let only = |one: &[String], other: &[String]| -> Vec<String> {
                one.iter().filter(|row| !other.contains(row)).cloned().collect()
            };
            return Err(format!(
                "rows of the {name} node: {:?} instead of {:?}",
                only(&found, &wanted),
                only(&wanted, &found)
            ));
        }
        // Indexes that come later are an exception: rows that REPLACE takes away by one that the host has not seen yet
        // are known by their values alone.
        let clashes = node.one("SELECT count(*) FROM __antiphon___conflict");
        if tally.ddl == 0 && clashes != "0" {
            return Err(format!("clashes of the {name} node, and there is one writer: {clashes}"));
        }
        let integrity = node.one("PRAGMA integrity_check");
        if integrity != "ok" {
            return Err(format!("integrity of the {name} node: {integrity}"));
        }
    }
    tally.rows += wanted.len() as u64;
    Ok(tally)
}
