//! Capture on and off: change logs and triggers, and rows that were there before them.

use super::catalog::Tracked;
use super::defaults::{defaults, literal};
use super::own::ours;
use super::values::{bind, values};
use super::{Database, Doing as _, Error, own};
use antiphon_core::capture::{
    EVENTS, PREFIX, change_log, change_log_columns, create_change_log, create_triggers, mark_existing, trigger,
};
use antiphon_core::codec::{decode_row, encode_row};
use antiphon_core::entry::{Body, Route};
use antiphon_core::schema::{Table, quote};
use antiphon_core::value::Value;
use rusqlite::OptionalExtension as _;
use std::collections::BTreeSet;

/// Rows marked in one transaction when a table is scanned.
const SCAN_ROWS_MAX: u32 = 10_000;
/// Triggers that every captured table has; the others belong to its UNIQUE indexes.
const EVERY_TABLES: usize = 4;

impl Database {
    /// Installs triggers wherever they are missing. With `mark_rows`, rows that are there already become changes.
    /// Gives the names of the tables that were installed.
    ///
    /// # Errors
    /// When SQLite refuses; nothing is installed then.
    pub fn install(&mut self, mark_rows: bool) -> Result<Vec<String>, Error> {
        self.refresh_schema()?;
        if !self.captures || self.unwatched || (self.tables.iter().all(|tracked| tracked.captured) && self.is_settled())
        {
            return Ok(Vec::new());
        }
        let installed = self.transaction(|db| {
            let mut installed = Vec::new();
            fault!("install");
            let renamed = db.follow_renames()?;
            db.detach()?;
            db.know_captured()?;
            for index in 0..db.tables.len() {
                if db.install_table(index, mark_rows, &renamed)? {
                    installed.extend(db.tables.get(index).map(|tracked| tracked.table.name.clone()));
                }
            }
            fault!("installed");
            Ok(installed)
        })?;
        if !installed.is_empty() {
            self.refresh_schema()?;
        }
        Ok(installed)
    }

    /// Takes the triggers off tables that have another name now than when they got them, and carries their marks
    /// over; gives the new names. SQLite lets triggers follow a renamed table and keep their own names.
    fn follow_renames(&mut self) -> Result<BTreeSet<String>, Error> {
        const FOLLOWING: &str = "follow a renamed table";
        let triggers: Vec<(String, String)> = self
            .conn
            .prepare_cached(
                "SELECT name, tbl_name FROM main.sqlite_schema WHERE type = 'trigger' AND substr(name, 1, length(?1)) = ?1",
            )
            .and_then(|mut statement| statement.query_map([PREFIX], |row| Ok((row.get(0)?, row.get(1)?)))?.collect())
            .doing(FOLLOWING)?;
        let mut moved = BTreeSet::new();
        for (name, now) in triggers {
            let then = EVENTS.iter().find_map(|event| name.strip_prefix(PREFIX)?.strip_suffix(&format!("_{event}")));
            let Some(then) = then.filter(|then| !then.eq_ignore_ascii_case(&now)) else { continue };
            self.conn.execute_batch(&format!("DROP TRIGGER main.{}", quote(&name))).doing(FOLLOWING)?;
            moved.insert((then.to_owned(), now));
        }
        for (then, now) in &moved {
            let Some(tracked) = self.tracked(now).and_then(|index| self.tables.get(index)) else { continue };
            let (old, new) = (quote(&change_log(then)), quote(&change_log(&tracked.table.name)));
            let columns: Vec<String> = self
                .conn
                .prepare_cached("SELECT name FROM pragma_table_info(?1) WHERE cid > 0 ORDER BY cid")
                .and_then(|mut statement| statement.query_map([change_log(then)], |row| row.get(0))?.collect())
                .doing(FOLLOWING)?;
            if columns.len() + 1 == change_log_columns(&tracked.table).len() {
                let columns = columns.iter().map(|name| quote(name)).collect::<Vec<_>>().join(", ");
                self.conn
                    .execute_batch(&format!(
                        "{}; INSERT INTO main.{new} SELECT NULL, {columns} FROM main.{old} ORDER BY id; DROP TABLE main.{old}",
                        create_change_log(&tracked.table)
                    ))
                    .doing(FOLLOWING)?;
            }
            self.follow_name(then, now)?;
        }
        Ok(moved.into_iter().map(|(_, now)| now.to_ascii_lowercase()).collect())
    }

    pub(super) fn install_table(
        &mut self,
        index: usize,
        mark_rows: bool,
        renamed: &BTreeSet<String>,
    ) -> Result<bool, Error> {
        const INSTALLING: &str = "install the triggers";
        let Some(tracked) = self.tables.get(index).filter(|tracked| !tracked.captured) else { return Ok(false) };
        let name = tracked.table.name.clone();
        // With several shards, where a table's rows go is agreed in the log before the first of them is sent.
        if self.cluster.is_some() && self.shards() > 1 && self.ledger.route(&name).is_none() {
            let whole = !tracked.table.uniques.is_empty() && !crate::flaw!(UniqueSpread);
            return self.propose_route(name, whole).map(|()| false);
        }
        let table = self.tables.get(index).map(|tracked| tracked.table.clone()).unwrap_or_default();
        // Triggers are there, and others than they should be, only if an index came or went or a column has another
        // name; then the rows are known already. A table that was made anew has none.
        // One that lost some of those that every table has was not watched for a while.
        let found = self.drop_triggers(&name)? >= EVERY_TABLES || renamed.contains(&name.to_ascii_lowercase());
        let fitted = self.fit_change_log(&table, found)?;
        let renewed = fitted && found;
        // Marks that could not be carried over: what they spoke of is found by comparing rows with the log.
        let mark_rows = mark_rows || !fitted;
        self.conn.execute_batch(&create_change_log(&table)).doing(INSTALLING)?;
        for sql in create_triggers(&table) {
            if crate::flaw!(MoveForgotten) && sql.contains("_on_move") {
                continue;
            }
            self.conn.execute_batch(&sql).doing(INSTALLING)?;
        }
        self.spell(&name)?;
        if self.attach(&name, mark_rows, renewed)? {
            self.conn
                .execute(concat!("INSERT OR REPLACE INTO ", ours!("scan"), " VALUES (?1, NULL)"), [&name])
                .doing(INSTALLING)?;
        }
        Ok(true)
    }

    fn propose_route(&mut self, table: String, whole: bool) -> Result<(), Error> {
        // One proposal on its way is enough; which comes first in the log holds, whoever made it.
        // Between the pieces of a unit nothing else is said; the round after its last piece asks again.
        if self.has_proposed(&table)? || self.ledger.is_open(1, self.origin) {
            return Ok(());
        }
        self.conn
            .execute(concat!("INSERT OR REPLACE INTO ", ours!("meta"), " VALUES ('route:' || ?1, 1)"), [&table])
            .doing("note a proposed route")?;
        let number = self.ledger.next_number(1, self.origin);
        self.enqueue(1, number, false, Body::Route(Route { table, whole }))
    }

    fn has_proposed(&self, table: &str) -> Result<bool, Error> {
        self.conn
            .prepare_cached(concat!("SELECT 1 FROM ", ours!("meta"), " WHERE name = 'route:' || ?1"))
            .and_then(|mut statement| statement.exists([table]))
            .doing("read the proposed routes")
    }

    /// Takes all triggers and marks out again, from a database that did not become a member after all.
    ///
    /// # Errors
    /// When SQLite refuses; nothing has changed then.
    pub fn uninstall(&mut self) -> Result<(), Error> {
        self.transaction(|db| {
            db.remove_capture()?;
            db.forget_tables()
        })?;
        self.reload()
    }

    /// The same within the transaction at hand.
    pub(super) fn remove_capture(&self) -> Result<(), Error> {
        for tracked in &self.tables {
            self.drop_triggers(&tracked.table.name)?;
            let log = quote(&change_log(&tracked.table.name));
            self.conn.execute_batch(&format!("DROP TABLE IF EXISTS main.{log}")).doing("remove a change log")?;
        }
        fault!("uninstall");
        self.drop_refusals()
    }

    /// Makes room for the change log where one with other columns stands. Its marks are kept if only names changed,
    /// and say nothing of rows under another key; says whether all that was marked still is.
    fn fit_change_log(&self, table: &Table, same_table: bool) -> Result<bool, Error> {
        const FITTING: &str = "renew a change log";
        let (name, wanted) = (change_log(&table.name), change_log_columns(table));
        let found: Vec<String> = self
            .conn
            .prepare_cached("SELECT name FROM pragma_table_info(?1) ORDER BY cid")
            .and_then(|mut statement| statement.query_map([&name], |row| row.get(0))?.collect())
            .doing(FITTING)?;
        if found.is_empty() || found == wanted {
            return Ok(true);
        }
        let log = quote(&name);
        let sql = format!("SELECT 1 FROM main.{log} LIMIT 1");
        if !self.conn.prepare(&sql).and_then(|mut statement| statement.exists([])).doing(FITTING)? {
            self.conn.execute_batch(&format!("DROP TABLE main.{log}")).doing(FITTING)?;
            self.end_fresh(&table.name)?;
            return Ok(true);
        }
        let carried = if same_table { self.carried_over(table, &found, &wanted)? } else { None };
        let Some(carried) = carried else {
            self.conn.execute_batch(&format!("DROP TABLE main.{log}")).doing(FITTING)?;
            return Ok(false);
        };
        // Not by RENAME COLUMN: it fails where any view or trigger of the application's is broken.
        let aside = quote(&format!("{PREFIX}aside"));
        self.conn
            .execute_batch(&format!(
                "CREATE TEMP TABLE {aside} AS SELECT * FROM main.{log}; DROP TABLE main.{log}; {};
                 INSERT INTO main.{log} SELECT {carried} FROM temp.{aside}; DROP TABLE temp.{aside}",
                create_change_log(table)
            ))
            .doing(FITTING)?;
        Ok(true)
    }

    /// What an old change log's marks say in the columns of the new one; nothing if they say nothing of its keys.
    fn carried_over(&self, table: &Table, found: &[String], wanted: &[String]) -> Result<Option<String>, Error> {
        let was = |column: &str| found.iter().find(|known| known.eq_ignore_ascii_case(column)).map(|name| quote(name));
        let defaults = defaults(&self.conn, table)?;
        // A column that was added since: before, each row had its default there.
        let default = |added: &str| {
            let default = table.column(added).and_then(|position| defaults.get(position)?.as_ref());
            default.map_or_else(|| "NULL".to_owned(), literal)
        };
        let mut carried = Vec::new();
        for column in wanted {
            let value = match (was(column), column.strip_prefix("old_").filter(|_| table.resolved)) {
                (Some(name), _) => name,
                (None, Some(added)) => default(added),
                // The key has other names, or is another one.
                (None, None) => return Ok((found.len() == wanted.len()).then(|| "*".to_owned())),
            };
            carried.push(value);
        }
        Ok((!table.resolved || was("created_at").is_some()).then(|| carried.join(", ")))
    }

    /// Removes a table's triggers; says how many it had of those that every table has.
    pub(super) fn drop_triggers(&self, table: &str) -> Result<usize, Error> {
        let mut found = 0;
        for event in EVENTS {
            let name = trigger(table, event);
            let exists = self
                .conn
                .prepare_cached("SELECT 1 FROM main.sqlite_schema WHERE type = 'trigger' AND name = ?1 COLLATE NOCASE")
                .and_then(|mut statement| statement.exists([&name]))
                .doing("read the triggers")?;
            if exists {
                self.conn.execute_batch(&format!("DROP TRIGGER main.{}", quote(&name))).doing("drop a trigger")?;
                found += usize::from(event.starts_with("on_"));
            }
        }
        Ok(found)
    }

    /// What is marked by now was in no batch before: none of it counts as made upon a row of the log's.
    fn begin_fresh(&self, tracked: &Tracked) -> Result<(), Error> {
        let log = quote(&change_log(&tracked.table.name));
        self.conn
            .execute(
                &format!(
                    "INSERT OR REPLACE INTO {} SELECT 'fresh:' || ?1, coalesce(max(id), 0) FROM main.{log}",
                    ours!("meta")
                ),
                [&tracked.table.name],
            )
            .doing("note what was there before")?;
        Ok(())
    }

    /// The last of those marks, if any of them is left.
    pub(super) fn fresh(&self, table: &str) -> Result<i64, Error> {
        self.conn
            .prepare_cached(concat!("SELECT value FROM ", ours!("meta"), " WHERE name = 'fresh:' || ?1"))
            .and_then(|mut statement| statement.query_row([table], |row| row.get(0)).optional())
            .map(|until| until.unwrap_or(i64::MIN))
            .doing("read what was there before")
    }

    /// All of those marks are in batches.
    pub(super) fn end_fresh(&self, table: &str) -> Result<(), Error> {
        self.conn
            .execute(concat!("DELETE FROM ", ours!("meta"), " WHERE name = 'fresh:' || ?1"), [table])
            .doing("forget what was there before")?;
        Ok(())
    }

    /// Whether rows of a table that were there before its triggers still wait for their marks.
    pub(super) fn is_scanned(&self, table: &str) -> Result<bool, Error> {
        self.conn
            .prepare_cached(concat!("SELECT 1 FROM ", ours!("scan"), " WHERE tbl = ?1"))
            .and_then(|mut statement| statement.exists([table]))
            .doing("look for scans")
    }

    /// Marks the next rows of a table that is being scanned; says whether any scan is left.
    ///
    /// # Errors
    /// When SQLite refuses; nothing is marked then.
    pub fn scan(&mut self) -> Result<bool, Error> {
        const SCANNING: &str = "mark the rows that were there before";
        let next: Option<(String, Option<Vec<u8>>)> = self
            .conn
            .prepare_cached(concat!("SELECT tbl, key FROM ", ours!("scan"), " LIMIT 1"))
            .and_then(|mut statement| statement.query_row([], |row| Ok((row.get(0)?, row.get(1)?))).optional())
            .doing(SCANNING)?;
        let Some((name, key)) = next else { return Ok(false) };
        let tracked = self.tracked(&name).and_then(|index| self.tables.get(index)).cloned();
        self.transaction(|db| {
            fault!("scan");
            let marked = match &tracked {
                None => 0,
                Some(tracked) => {
                    let after = match &key {
                        None => Vec::new(),
                        Some(key) => decode_row(key)
                            .map_err(|_| Error::Inconsistent("a scan's key cannot be read".to_owned()))?,
                    };
                    let sql = mark_existing(&tracked.table, key.is_none());
                    let mut statement = db.conn.prepare_cached(&sql).doing(SCANNING)?;
                    bind(&mut statement, 1, after.iter()).doing(SCANNING)?;
                    statement.raw_bind_parameter(tracked.key.len() + 1, SCAN_ROWS_MAX).doing(SCANNING)?;
                    statement.raw_execute().doing(SCANNING)?
                }
            };
            if let Some(tracked) = tracked.as_ref().filter(|_| marked >= SCAN_ROWS_MAX as usize) {
                let log = quote(&change_log(&tracked.table.name));
                let last: Vec<Value> = db
                    .conn
                    .query_row(&format!("SELECT * FROM main.{log} ORDER BY id DESC LIMIT 1"), [], |row| {
                        values(row, 2, tracked.key.len())
                    })
                    .doing(SCANNING)?;
                db.conn
                    .execute(
                        concat!("UPDATE ", ours!("scan"), " SET key = ?2 WHERE tbl = ?1"),
                        (&name, encode_row(&last)),
                    )
                    .doing(SCANNING)?;
            } else {
                db.conn.execute(concat!("DELETE FROM ", ours!("scan"), " WHERE tbl = ?1"), [&name]).doing(SCANNING)?;
                if let Some(tracked) = tracked.as_ref().filter(|tracked| tracked.table.resolved) {
                    db.begin_fresh(tracked)?;
                }
            }
            fault!("scanned");
            Ok(true)
        })
    }

    /// Removes every trace of the host's from the file; gives what it removed.
    ///
    /// # Errors
    /// When SQLite refuses; nothing is removed then.
    pub fn cleanup(path: &std::path::Path, dry_run: bool) -> Result<Vec<String>, Error> {
        let conn = super::connect(path, rusqlite::OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        conn.execute_batch("BEGIN IMMEDIATE").doing("begin a transaction")?;
        let mut removed = Vec::new();
        for (kind, name) in own::objects(&conn, PREFIX)? {
            if !dry_run {
                conn.execute_batch(&format!("DROP {kind} main.{}", quote(&name))).doing("remove a trace")?;
            }
            removed.push(format!("{kind} {name}"));
        }
        conn.execute_batch("COMMIT").doing("commit a transaction")?;
        Ok(removed)
    }

    /// Batches that wait to be sent, and rows marked but in no batch: what a cleanup would lose.
    ///
    /// # Errors
    /// When SQLite can't tell.
    pub fn unsent_count(&self) -> Result<(u64, bool), Error> {
        let waiting: i64 = self
            .conn
            .query_row(concat!("SELECT count(*) FROM ", ours!("global_change_log"), " WHERE state = 0"), [], |row| {
                row.get(0)
            })
            .doing("read the outbox")?;
        Ok((waiting.cast_unsigned(), self.is_dirty()?))
    }
}
