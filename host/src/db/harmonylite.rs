//! What HarmonyLite left in a file, and how a node of ours takes it over.
//!
//! Its change logs say which rows it had still to send. Their keys become marks of ours, our triggers take the place of
//! its own, and its tables go: in one transaction, so that the file is always wholly its or wholly ours.

use super::own::{meta, objects, ours, set_meta};
use super::values::values;
use super::{Database, Doing as _, Error, Options, Policies, identity, own};
use antiphon_core::capture::PREFIX as OURS;
use antiphon_core::hash::Hash;
use antiphon_core::schema::quote;
use antiphon_core::value::Value;
use rusqlite::Connection;
use std::collections::BTreeSet;

/// What its objects in the application's file begin with.
pub(super) const PREFIX: &str = "__harmonylite__";
/// How the names of its change logs end.
const CHANGE_LOG: &str = "_change_log";
/// Says in our own state that a file was taken over and has not entered a cluster since.
const ADOPTED: &str = "adopted";

/// Changes of one table that it had not sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unsent {
    /// The table.
    pub table: String,
    /// How many changes wait in its change log.
    pub changes: u64,
    /// How many rows they speak of.
    pub rows: u64,
    /// Why they can't become ours, if so.
    pub obstacle: Option<String>,
}

/// What is taken over, or would be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Adopted {
    /// Whether it was done; otherwise the file is as it was.
    pub done: bool,
    /// Whether anything of ours was in the file before.
    pub is_ours: bool,
    /// What it had still to send.
    pub unsent: Vec<Unsent>,
    /// Its triggers and tables, each with its kind.
    pub objects: Vec<(String, String)>,
    /// Tables that get our triggers.
    pub captured: Vec<String>,
}

/// How far a takeover goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adoption {
    /// Nothing is changed.
    Planned,
    /// It is done, unless something would be forgotten.
    Whole,
    /// It is done, and what can't become ours is forgotten.
    Forgetful,
}

impl Database {
    /// Takes a file over from HarmonyLite, as far as `adoption` says.
    ///
    /// # Errors
    /// When SQLite refuses; the file is as it was then.
    pub fn adopt_harmonylite(
        options: Options,
        hasher: Box<dyn Hash>,
        policies: Policies,
        adoption: Adoption,
    ) -> Result<Adopted, Error> {
        let mut db = Self::unread(options, hasher, policies)?;
        db.conn.execute_batch("BEGIN IMMEDIATE").doing("begin a transaction")?;
        let adopted = db.take_over_harmonylite(adoption)?;
        fault!("adopting");
        // A connection that goes without a COMMIT has changed nothing.
        if adopted.done {
            db.conn.execute_batch("COMMIT").doing("commit a transaction")?;
            fault!("adopted-all");
        }
        Ok(adopted)
    }

    fn take_over_harmonylite(&mut self, adoption: Adoption) -> Result<Adopted, Error> {
        let is_ours = !objects(&self.conn, OURS)?.is_empty();
        let objects = objects(&self.conn, PREFIX)?;
        if objects.is_empty() {
            return Ok(Adopted { is_ours, ..Adopted::default() });
        }
        own::create(&self.conn)?;
        identity::identify(&self.conn, self.options.node)?;
        self.reload()?;
        // A member's triggers are the running node's business: where rows go may have to be agreed on first.
        let is_apart = self.cluster.is_none();
        let mut captured = Vec::new();
        if is_apart && self.captures {
            for index in 0..self.tables.len() {
                if self.install_table(index, false, &BTreeSet::new())? {
                    captured.extend(self.tables.get(index).map(|tracked| tracked.table.name.clone()));
                }
            }
            set_meta(&self.conn, ADOPTED, 1)?;
            self.reload()?;
        }
        fault!("adopt-triggers");
        let mut unsent = Vec::new();
        for log in change_logs(&objects) {
            unsent.extend(self.mark_unsent(log)?);
        }
        fault!("adopt-marked");
        for (kind, name) in &objects {
            self.conn.execute_batch(&format!("DROP {kind} main.{}", quote(name))).doing("remove what it left")?;
            fault!("adopt-dropped");
        }
        let forgets = unsent.iter().any(|of| of.obstacle.is_some());
        let done = match adoption {
            Adoption::Planned => false,
            Adoption::Whole => !forgets,
            Adoption::Forgetful => true,
        };
        Ok(Adopted { done, is_ours, unsent, objects, captured })
    }

    /// Marks the rows that one of its change logs had still to send; nothing if there are none.
    fn mark_unsent(&self, table: &str) -> Result<Option<Unsent>, Error> {
        const READING: &str = "read what it had still to send";
        let log = quote(&format!("{PREFIX}{table}{CHANGE_LOG}"));
        // 1 is sent, and all else is not: -1, of which its words speak, is what failed.
        let left = format!("main.{log} WHERE state IS NOT 1");
        let changes: i64 =
            self.conn.query_row(&format!("SELECT count(*) FROM {left}"), [], |row| row.get(0)).doing(READING)?;
        if changes == 0 {
            return Ok(None);
        }
        let mut unsent = Unsent { table: table.to_owned(), changes: changes.unsigned_abs(), ..Unsent::default() };
        let obstacle = |text: &str| Some(text.to_owned());
        let Some(tracked) = self.tracked_exactly(table).and_then(|index| self.tables.get(index)) else {
            let refused = self.refused.iter().find(|refused| refused.table.eq_ignore_ascii_case(table));
            unsent.obstacle = match refused {
                Some(refused) => Some(refused.reason.clone()),
                None if !self.options.filter.wants(table) => obstacle("it is excluded under `[capture]`"),
                None => obstacle("there is no such table any more"),
            };
            return Ok(Some(unsent));
        };
        if !tracked.captured {
            unsent.obstacle = obstacle(if self.captures {
                "its triggers are not in place yet: run the node once before"
            } else {
                "`publish` is off: this node sends nothing"
            });
            return Ok(Some(unsent));
        }
        let keys = tracked.key.iter().filter_map(|&at| tracked.table.columns.get(at));
        let keys: Vec<String> = keys.map(|column| format!("val_{}", column.name)).collect();
        let known: Vec<String> = self
            .conn
            .prepare("SELECT name FROM pragma_table_info(?1)")
            .and_then(|mut info| info.query_map([format!("{PREFIX}{table}{CHANGE_LOG}")], |row| row.get(0))?.collect())
            .doing(READING)?;
        if let Some(lacking) = keys.iter().find(|key| !known.iter().any(|name| name.eq_ignore_ascii_case(key))) {
            unsent.obstacle = Some(format!("its change log has no column `{lacking}`: the key was another one"));
            return Ok(Some(unsent));
        }
        let columns = keys.iter().map(|key| quote(key)).collect::<Vec<_>>().join(", ");
        let sql = format!("SELECT {columns} FROM {left} GROUP BY {columns} ORDER BY min(id)");
        let mut statement = self.conn.prepare(&sql).doing(READING)?;
        let mut rows = statement.query([]).doing(READING)?;
        while let Some(row) = rows.next().doing(READING)? {
            let key = values(row, 0, keys.len()).doing(READING)?;
            // Nothing tells rows without a whole key apart; a table that has any is not captured.
            if !key.contains(&Value::Null) {
                self.mark(tracked, &key, None)?;
                unsent.rows += 1;
            }
        }
        Ok(Some(unsent))
    }

    /// Whether marks of this file may speak of rows that its former host had still to send.
    ///
    /// # Errors
    /// When SQLite can't tell.
    pub fn is_adopted(&self) -> Result<bool, Error> {
        Ok(meta(&self.conn, ADOPTED)? == Some(1))
    }
}

/// What is in no cluster any more, or in one by now, is a file like any other.
pub(super) fn forget_adoption(conn: &Connection) -> Result<(), Error> {
    let sql = concat!("DELETE FROM ", ours!("meta"), " WHERE name = ?1");
    conn.execute(sql, [ADOPTED]).map(|_| ()).doing("write the host's state")
}

/// The tables that have a change log of its.
fn change_logs(objects: &[(String, String)]) -> impl Iterator<Item = &str> {
    let tables = objects.iter().filter(|(kind, _)| kind == "table");
    tables.filter_map(|(_, name)| name.strip_prefix(PREFIX)?.strip_suffix(CHANGE_LOG)).filter(|table| !table.is_empty())
}
