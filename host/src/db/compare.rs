//! Two databases, row by row: what only one of them has, and what differs.

use super::catalog::Tracked;
use super::rows::{column_list, key_filter, select, whole};
use super::values::{bind, values};
use super::{Database, Doing as _, Error, identity};
use antiphon_core::capture::{change_log, mark_before, mark_one, op};
use antiphon_core::schema::quote;
use antiphon_core::value::{Row, Value};
use rusqlite::types::{ToSqlOutput, ValueRef};
use rustc_hash::FxHashMap;
use std::fs::OpenOptions;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::atomic::Ordering;

/// How the tables of one name differ.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// The table.
    pub table: String,
    /// Rows that only this database has.
    pub only_here: u64,
    /// Rows that only the other has.
    pub only_there: u64,
    /// Rows that both have, with other values.
    pub changed: u64,
    /// Rows here.
    pub rows_here: u64,
    /// Rows there.
    pub rows_there: u64,
}

impl Difference {
    /// Whether there is none.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.only_here == 0 && self.only_there == 0 && self.changed == 0
    }
}

/// What to do about a row that differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    /// Nothing: only count.
    Count,
    /// Make this database as the other.
    TakeTheirs,
    /// Take what only the other has, and mark the rest as changes of our own.
    PublishOurs,
    /// The other is where this one stood: all that differs was written here since, and what only the other has was
    /// deleted here.
    GoOn,
}

impl Database {
    /// Compares every replicated table with the other database's; rows marked here are left out.
    ///
    /// # Errors
    /// When a database can't be read.
    pub fn compare(&self, other: &Self) -> Result<Vec<Difference>, Error> {
        self.conn.execute_batch("BEGIN").doing("begin a transaction")?;
        let compared = self.tables.iter().map(|tracked| self.compare_table(other, tracked, Act::Count)).collect();
        self.conn.execute_batch("COMMIT").doing("end a transaction")?;
        compared
    }

    /// Becomes as `other`, whose place in the log it takes: rows that only this database has are gone after it.
    ///
    /// # Errors
    /// When SQLite refuses; nothing has changed then.
    pub fn discard_for(&mut self, other: &Self) -> Result<Vec<Difference>, Error> {
        self.become_member(other, Act::TakeTheirs)
    }

    /// Takes the place of `other` in the log; rows that differ from its become changes of this node's.
    ///
    /// # Errors
    /// When SQLite refuses; nothing has changed then.
    pub fn publish_upon(&mut self, other: &Self) -> Result<Vec<Difference>, Error> {
        self.become_member(other, Act::PublishOurs)
    }

    /// Rows that differ from `other`, which stands in the same place, become changes of this node's; those that are not
    /// here any more, too.
    ///
    /// # Errors
    /// When SQLite refuses; nothing has changed then.
    pub fn go_on_from(&mut self, other: &Self) -> Result<Vec<Difference>, Error> {
        self.become_member(other, Act::GoOn)
    }

    /// Takes the rows of `other` and its place, if no change waits here that is in no batch; says whether that is so.
    ///
    /// # Errors
    /// When SQLite refuses; nothing has changed then.
    pub fn take_over(&mut self, other: &Self) -> Result<bool, Error> {
        let taken =
            self.transaction(|db| Ok(!db.has_marks()? && db.become_within(other, Act::TakeTheirs).map(|_| true)?))?;
        self.reload()?;
        Ok(taken)
    }

    /// Keeps a copy of the file as it is, beside it; gives its path.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn keep_copy(&self) -> Result<std::path::PathBuf, Error> {
        let mut name = self.options.path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".before-join-{}", crate::clock::unix_ms()));
        let copy = self.options.path.with_file_name(name);
        // Made first, for whom the file is for: SQLite would make one that everybody may read.
        let made = || {
            let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&copy)?;
            file.set_permissions(self.options.path.metadata()?.permissions())
        };
        made().map_err(|error| Error::Io { doing: "copy the database", source: error })?;
        let path = ValueRef::Text(copy.as_os_str().as_bytes());
        self.conn.execute("VACUUM INTO ?1", [ToSqlOutput::Borrowed(path)]).doing("copy the database")?;
        Ok(copy)
    }

    /// Takes the rows of `other` and its place in the log, which may be one that this node has left behind: going back is
    /// what is wanted.
    ///
    /// # Errors
    /// When SQLite refuses; nothing has changed then.
    pub fn go_back_to(&mut self, other: &Self) -> Result<Vec<Difference>, Error> {
        let differences = self.transaction(|db| {
            let differences = db.become_within(other, Act::TakeTheirs)?;
            db.known_reached.store(0, Ordering::Relaxed);
            Ok(differences)
        })?;
        self.reload()?;
        Ok(differences)
    }

    fn become_member(&mut self, other: &Self, act: Act) -> Result<Vec<Difference>, Error> {
        let differences = self.transaction(|db| db.become_within(other, act))?;
        self.reload()?;
        Ok(differences)
    }

    /// The same within the transaction at hand. Who was a member before has another name after it: what it had said
    /// and not heard back is settled with the rows.
    fn become_within(&mut self, other: &Self, act: Act) -> Result<Vec<Difference>, Error> {
        if self.cluster.is_some() {
            identity::begin_life(&self.conn, self.options.node)?;
            self.numbered.clear();
        }
        // What a former host had still to send, deletions included, is this database's word as well.
        if act != Act::PublishOurs || !self.is_adopted()? {
            self.clear_marks()?;
        }
        let tables = self.tables.clone();
        let differences =
            tables.iter().map(|tracked| self.compare_table(other, tracked, act)).collect::<Result<Vec<_>, _>>()?;
        fault!("settle");
        self.adopt(other)?;
        Ok(differences)
    }

    fn compare_table(&self, other: &Self, tracked: &Tracked, act: Act) -> Result<Difference, Error> {
        let mut difference = Difference { table: tracked.table.name.clone(), ..Difference::default() };
        let theirs = other.tracked(&tracked.table.name).and_then(|index| other.tables.get(index)).ok_or_else(|| {
            Error::Inconsistent(format!("there is no table `{}` to compare with", tracked.table.name))
        })?;
        let marked = self.marked(tracked)?;
        let mut writes: Vec<(Row, Option<Row>)> = Vec::new();
        let mut marks: Vec<(Row, Option<Row>)> = Vec::new();
        each_row(self, tracked, &mut |row| {
            difference.rows_here += 1;
            let key = key_of(tracked, &row);
            if marked.speaks_of(tracked, &key, true) {
                return Ok(());
            }
            match whole(&other.conn, theirs, &key)? {
                Some(found) if found == row => {}
                found => {
                    if found.is_some() {
                        difference.changed += 1;
                    } else {
                        difference.only_here += 1;
                    }
                    match act {
                        Act::Count => {}
                        Act::TakeTheirs => writes.push((key, found)),
                        Act::PublishOurs | Act::GoOn => marks.push((key, found)),
                    }
                }
            }
            Ok(())
        })?;
        each_row(other, theirs, &mut |row| {
            difference.rows_there += 1;
            let key = key_of(theirs, &row);
            if !marked.speaks_of(tracked, &key, false) && whole(&self.conn, tracked, &key)?.is_none() {
                difference.only_there += 1;
                match act {
                    Act::Count => {}
                    Act::TakeTheirs | Act::PublishOurs => writes.push((key, Some(row))),
                    Act::GoOn => marks.push((key, Some(row))),
                }
            }
            Ok(())
        })?;
        // All that goes, goes first: a UNIQUE value may move from one row to another.
        for (key, _) in &writes {
            self.put(tracked, key, None)?;
        }
        for (key, row) in &writes {
            if let Some(row) = row {
                self.put(tracked, key, Some(row))?;
            }
        }
        for (key, theirs) in marks {
            self.mark(tracked, &key, theirs.as_ref())?;
        }
        Ok(difference)
    }

    /// The marks of a table.
    pub(super) fn marked(&self, tracked: &Tracked) -> Result<Marked, Error> {
        const READING: &str = "read the marks";
        let mut marked = Marked::default();
        if !tracked.captured {
            return Ok(marked);
        }
        let sql = format!("SELECT * FROM main.{}", quote(&change_log(&tracked.table.name)));
        let mut statement = self.conn.prepare(&sql).doing(READING)?;
        let mut rows = statement.query([]).doing(READING)?;
        while let Some(row) = rows.next().doing(READING)? {
            let key = values(row, 2, tracked.key.len()).doing(READING)?;
            if key.contains(&Value::Null) {
                continue;
            }
            let mut canonical = Vec::new();
            tracked.encoder.write(&mut canonical, key.iter());
            let sure = row.get::<_, i64>(1).doing(READING)? != op::MAYBE_GONE;
            *marked.keys.entry(canonical).or_default() |= sure;
        }
        Ok(marked)
    }

    /// Marks a row as changed here, upon the log's row of its key.
    pub(super) fn mark(&self, tracked: &Tracked, key: &[Value], logged: Option<&Row>) -> Result<(), Error> {
        const MARKING: &str = "mark a row";
        if let Some(logged) = logged.filter(|_| tracked.table.resolved) {
            let mut statement = self.conn.prepare_cached(&mark_before(&tracked.table)).doing(MARKING)?;
            bind(&mut statement, 1, logged.iter()).doing(MARKING)?;
            statement.raw_execute().doing(MARKING)?;
        }
        let mut statement = self.conn.prepare_cached(&mark_one(&tracked.table)).doing(MARKING)?;
        bind(&mut statement, 1, key.iter()).doing(MARKING)?;
        statement.raw_execute().doing(MARKING)?;
        Ok(())
    }

    fn put(&self, tracked: &Tracked, key: &[Value], row: Option<&Row>) -> Result<(), Error> {
        const WRITING: &str = "write a row";
        let table = quote(&tracked.table.name);
        let (sql, bound) = match row {
            None => (format!("DELETE FROM main.{table} WHERE {}", key_filter(tracked, 1)), key),
            Some(row) => {
                let names = column_list(tracked);
                let places = (1..=row.len()).map(|n| format!("?{n}")).collect::<Vec<_>>().join(", ");
                (format!("INSERT OR ABORT INTO main.{table} ({names}) VALUES ({places})"), row.as_slice())
            }
        };
        let mut statement = self.conn.prepare_cached(&sql).doing(WRITING)?;
        bind(&mut statement, 1, bound.iter()).doing(WRITING)?;
        statement.raw_execute().doing(WRITING)?;
        Ok(())
    }
}

/// The marks of a table, by the canonical keys of their rows.
#[derive(Debug, Default)]
pub(super) struct Marked {
    /// With whether any of them counts also while the row is there.
    pub(super) keys: FxHashMap<Vec<u8>, bool>,
}

impl Marked {
    /// Whether the next seal sends the row of a key, which is here or is not.
    pub(super) fn speaks_of(&self, tracked: &Tracked, key: &[Value], present: bool) -> bool {
        if self.keys.is_empty() {
            return false;
        }
        let mut canonical = Vec::new();
        tracked.encoder.write(&mut canonical, key.iter());
        self.keys.get(&canonical).is_some_and(|sure| *sure || !present)
    }
}

/// The key of a row.
pub(super) fn key_of(tracked: &Tracked, row: &Row) -> Row {
    tracked.key.iter().filter_map(|&position| row.get(position).cloned()).collect()
}

/// Calls `each` with every row of a table.
pub(super) fn each_row(
    database: &Database,
    tracked: &Tracked,
    each: &mut dyn FnMut(Row) -> Result<(), Error>,
) -> Result<(), Error> {
    const READING: &str = "read a table";
    let mut statement = database.conn.prepare(&select(tracked)).doing(READING)?;
    let mut rows = statement.query([]).doing(READING)?;
    while let Some(row) = rows.next().doing(READING)? {
        each(values(row, 0, tracked.table.columns.len()).doing(READING)?)?;
    }
    Ok(())
}
