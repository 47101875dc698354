//! Which tables have been captured here, which of them are gone, and how they come back.
//!
//! A table that was replicated and is no longer there is *detached*: what the log says of it is passed over. When it
//! is there again, or was made anew, nobody knows what its rows and the log's have in common but the log itself: its
//! rows are compared with L, built aside. Until that is done, nothing of the log is applied to it.

use super::catalog::Tracked;
use super::own::{meta, ours, set_meta};
use super::switch::open;
use super::{Database, Doing as _, Error};
use crate::log::{Placed, Shard};
use antiphon_core::capture::{PREFIX, change_log};
use antiphon_core::codec;
use antiphon_core::entry::{Body, Changes};
use antiphon_core::schema::quote;
use rusqlite::Connection;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Where a table stands that was captured here once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It is there, and what the log says of it is applied.
    Here,
    /// It is gone, or excluded: what the log says of it is passed over.
    Gone,
    /// It was made anew unseen, or lost its triggers: to be compared, and what it left out was deleted.
    Rebuilt,
    /// It is there again after it was gone: to be compared, and what it lacks was never seen here.
    Returned,
}

impl State {
    const ALL: [(Self, &'static str); 4] =
        [(Self::Here, "here"), (Self::Gone, "gone"), (Self::Rebuilt, "rebuilt"), (Self::Returned, "returned")];

    fn name(self) -> &'static str {
        Self::ALL.iter().find(|(state, _)| *state == self).map_or("here", |(_, name)| name)
    }

    fn of(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known)| *known == name).map(|(state, _)| *state)
    }
}

/// A table that was replicated here and is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detached {
    /// Its name.
    pub table: String,
    /// Where each shard stood when it was first missed.
    pub since: Vec<(Shard, u64)>,
}

/// All tables that have been captured here, in memory; by their names in lower case.
#[derive(Clone, Debug, Default)]
pub(super) struct Attachments {
    known: BTreeMap<String, (State, String)>,
    /// Names that tables had before, and their names now.
    renamed: BTreeMap<String, String>,
    /// Why a table can't be compared, in words for the person who can change it.
    obstacles: BTreeMap<String, String>,
    /// The table whose marks may be sealed although it is being compared, for they have just been set right.
    set_right: Option<String>,
}

impl Attachments {
    /// Reads them from the file.
    pub(super) fn read(&mut self, conn: &Connection) -> Result<(), Error> {
        const READING: &str = "read which tables are known";
        let query = |sql: &str, each: &mut dyn FnMut(String, String, String)| {
            let mut statement = conn.prepare_cached(sql).doing(READING)?;
            let mut rows = statement.query([]).doing(READING)?;
            while let Some(row) = rows.next().doing(READING)? {
                each(row.get(0).doing(READING)?, row.get(1).doing(READING)?, row.get(2).doing(READING)?);
            }
            Ok::<_, Error>(())
        };
        self.known.clear();
        self.renamed.clear();
        self.obstacles.clear();
        self.set_right = None;
        query(concat!("SELECT tbl, state, since FROM ", ours!("known")), &mut |table, state, since| {
            if let Some(state) = State::of(&state) {
                self.known.insert(table.to_ascii_lowercase(), (state, since));
            }
        })?;
        query(concat!("SELECT old, now, '' FROM ", ours!("renamed")), &mut |old, now, _| {
            self.renamed.insert(old.to_ascii_lowercase(), now);
        })
    }

    pub(super) fn state(&self, table: &str) -> Option<State> {
        self.known.get(&table.to_ascii_lowercase()).map(|(state, _)| *state)
    }

    /// The name now of a table that had this one before.
    pub(super) fn now(&self, old: &str) -> Option<&str> {
        self.renamed.get(&old.to_ascii_lowercase()).map(String::as_str)
    }

    /// Whether what the log says of a table is passed over, for it is gone.
    pub(super) fn is_gone(&self, table: &str) -> bool {
        self.state(table) == Some(State::Gone)
    }

    /// Whether any table is still to be compared with the log.
    pub(super) fn are_compared(&self) -> bool {
        self.known.values().any(|(state, _)| matches!(state, State::Rebuilt | State::Returned))
    }

    /// Why nothing may be applied to a table now, if so.
    pub(super) fn obstacle(&self, table: &str) -> Option<String> {
        matches!(self.state(table), Some(State::Rebuilt | State::Returned)).then(|| {
            match self.obstacles.get(&table.to_ascii_lowercase()) {
                Some(obstacle) => obstacle.clone(),
                None => {
                    format!("table `{table}` is new here and is being compared with the log; this goes on by itself")
                }
            }
        })
    }

    /// Whether the marks of a table whose policy asks what changes are made upon have to wait: it is being compared, and
    /// until then nobody knows.
    pub(super) fn holds(&self, table: &str) -> bool {
        let name = table.to_ascii_lowercase();
        matches!(self.state(table), Some(State::Rebuilt | State::Returned))
            && !self.obstacles.contains_key(&name)
            && self.set_right.as_ref() != Some(&name)
    }

    /// What others wrote was passed over here, and would look like this node's deletions.
    fn cannot_be_compared(&mut self) {
        let waiting = self.known.iter().filter(|(_, (state, _))| matches!(state, State::Rebuilt | State::Returned));
        for (table, _) in waiting {
            self.obstacles.entry(table.clone()).or_insert_with(|| {
                format!(
                    "table `{table}` was made anew, and its rows can't be compared with the log, for what others wrote was \
                     passed over while `replicate` was off: `antiphon join --discard-local` takes the cluster's rows"
                )
            });
        }
    }

    /// Lets the marks of a table be sealed although it is being compared, as long as its triggers stay in place.
    pub(super) fn let_seal(&mut self, table: &str) {
        self.set_right = Some(table.to_ascii_lowercase());
    }

    pub(super) fn set(&mut self, conn: &Connection, table: &str, state: State, since: &str) -> Result<(), Error> {
        conn.prepare_cached(concat!("INSERT OR REPLACE INTO ", ours!("known"), " VALUES (?1, ?2, ?3)"))
            .and_then(|mut statement| statement.execute([table, state.name(), since]))
            .doing("note where a table stands")?;
        self.obstacles.remove(&table.to_ascii_lowercase());
        self.known.insert(table.to_ascii_lowercase(), (state, since.to_owned()));
        Ok(())
    }

    fn forget(&mut self, conn: &Connection, table: &str) -> Result<(), Error> {
        conn.execute(concat!("DELETE FROM ", ours!("known"), " WHERE tbl = ?1"), [table]).doing("forget a table")?;
        self.known.remove(&table.to_ascii_lowercase());
        Ok(())
    }
}

/// A column of the log's that a table lacks, as [`Database::widen`] knows it.
pub(super) fn spared(table: &str, column: &str) -> (String, String) {
    (table.to_ascii_lowercase(), column.to_ascii_lowercase())
}

const FOLLOWING: &str = "follow a renamed table";

/// What one of our tables keeps of a table goes by this name from now on.
fn keep_as(conn: &Connection, kept: &str, then: &str, now: &str) -> Result<(), Error> {
    let sql =
        format!("UPDATE OR REPLACE {kept} SET tbl = ?2 WHERE tbl = ?1 COLLATE NOCASE AND tbl <> ?2 COLLATE BINARY");
    conn.execute(&sql, [then, now]).doing(FOLLOWING)?;
    Ok(())
}

fn read_positions(text: &str) -> Vec<(Shard, u64)> {
    let position = |one: &str| {
        let (shard, seq) = one.split_once(':')?;
        Some((shard.parse().ok()?, seq.parse().ok()?))
    };
    text.split_whitespace().filter_map(position).collect()
}

impl Database {
    /// Tables that were replicated here and are gone: what the log says of them is passed over.
    #[must_use]
    pub fn detached(&self) -> Vec<Detached> {
        let gone = self.attachments.known.iter().filter(|(table, (state, _))| {
            *state == State::Gone && self.options.filter.wants(table) && self.tracked(table).is_none()
        });
        gone.map(|(table, (_, since))| Detached { table: table.clone(), since: read_positions(since) }).collect()
    }

    /// Whether every table that was captured is still there, and none has triggers that should have none.
    pub(super) fn is_settled(&self) -> bool {
        let names = self.tables.iter().map(|tracked| &tracked.table.name);
        let there: BTreeSet<String> = names
            .chain(self.refused.iter().map(|refused| &refused.table))
            .map(|name| name.to_ascii_lowercase())
            .collect();
        let vanished =
            |(table, (state, _)): (&String, &(State, String))| *state != State::Gone && !there.contains(table);
        self.tables.iter().all(|tracked| {
            !tracked.captured
                || matches!(self.attachments.state(&tracked.table.name), Some(state) if state != State::Gone)
        }) && !self.attachments.known.iter().any(vanished)
    }

    /// Whether a table is replicated here, or could be but for an obstacle.
    fn is_there(&self, table: &str) -> bool {
        self.tracked_exactly(table).is_some()
            || self.refused.iter().any(|refused| refused.table.eq_ignore_ascii_case(table))
    }

    pub(super) fn here(&self) -> String {
        let positions = self.positions().into_iter().map(|(shard, seq)| format!("{shard}:{seq}"));
        positions.collect::<Vec<_>>().join(" ")
    }

    /// Notes which tables have gone since, and takes the triggers off those that are excluded now.
    pub(super) fn detach(&mut self) -> Result<(), Error> {
        let known: Vec<(String, State)> =
            self.attachments.known.iter().map(|(table, (state, _))| (table.clone(), *state)).collect();
        let here = self.here();
        for (table, _) in known.into_iter().filter(|(_, state)| *state != State::Gone) {
            let excluded = !self.options.filter.wants(&table);
            if !excluded && self.is_there(&table) {
                continue;
            }
            if excluded {
                self.drop_triggers(&table)?;
                tracing::info!(table, "excluded from now on");
            } else {
                tracing::warn!(table, "this table is gone here; its changes are passed over until it is back");
            }
            let log = quote(&change_log(&table));
            self.conn.execute_batch(&format!("DROP TABLE IF EXISTS main.{log}")).doing("remove a change log")?;
            let Self { conn, attachments, .. } = self;
            attachments.set(conn, &table, State::Gone, &here)?;
        }
        Ok(())
    }

    /// A table was renamed: what was known of it is known of it under its new name.
    pub(super) fn follow_name(&mut self, then: &str, now: &str) -> Result<(), Error> {
        let one_shard = self.shards() == 1;
        let here = self.here();
        let Self { conn, attachments, .. } = self;
        // A table that takes the place of one that was known here is that one, rebuilt.
        let state = match attachments.state(now) {
            None => attachments.state(then).filter(|state| *state != State::Gone).unwrap_or(State::Here),
            Some(State::Here | State::Rebuilt) => State::Rebuilt,
            Some(State::Gone | State::Returned) => State::Returned,
        };
        attachments.forget(conn, then)?;
        attachments.set(conn, now, state, &here)?;
        // With several shards a table goes by its name to one of them, and what is under way under the old one would
        // have no order with what comes under the new one.
        if one_shard {
            conn.execute(
                concat!("UPDATE ", ours!("renamed"), " SET now = ?2 WHERE now = ?1 COLLATE NOCASE"),
                [then, now],
            )
            .and_then(|_| {
                conn.execute(concat!("INSERT OR REPLACE INTO ", ours!("renamed"), " VALUES (?1, ?2)"), [then, now])
            })
            .doing(FOLLOWING)?;
            for table in [ours!("shadow"), ours!("stamp"), ours!("displaced")] {
                keep_as(conn, table, then, now)?;
            }
        }
        // Rows that are in no batch yet go under the new name in any case.
        self.keep_unsent_as(then, now)
    }

    fn keep_unsent_as(&self, then: &str, now: &str) -> Result<(), Error> {
        for table in [ours!("oversized"), ours!("scan")] {
            keep_as(&self.conn, table, then, now)?;
        }
        self.conn
            .execute(
                concat!(
                    "UPDATE OR REPLACE ",
                    ours!("meta"),
                    " SET name = 'fresh:' || ?2 WHERE name = 'fresh:' || ?1 COLLATE NOCASE AND name <> 'fresh:' || ?2"
                ),
                [then, now],
            )
            .doing(FOLLOWING)?;
        if meta(&self.conn, &open(then))?.is_some() {
            set_meta(&self.conn, &open(now), 1)?;
        }
        Ok(())
    }

    /// What is kept of a table is kept under its name as the schema spells it: it may have been written in other letters
    /// before.
    pub(super) fn spell(&self, table: &str) -> Result<(), Error> {
        for kept in [ours!("shadow"), ours!("stamp"), ours!("displaced")] {
            keep_as(&self.conn, kept, table, table)?;
        }
        self.keep_unsent_as(table, table)
    }

    /// A table gets its triggers: says whether its rows are to be marked, for it is new to this node.
    pub(super) fn attach(&mut self, table: &str, mark_rows: bool, renewed: bool) -> Result<bool, Error> {
        let here = self.here();
        let Self { conn, attachments, .. } = self;
        attachments.set_right = None;
        let before = attachments.state(table);
        let state = match before {
            _ if !mark_rows => State::Here,
            None => State::Here,
            Some(State::Here) if renewed => State::Here,
            Some(State::Here | State::Rebuilt) => State::Rebuilt,
            Some(State::Gone | State::Returned) => State::Returned,
        };
        if before != Some(state) {
            attachments.set(conn, table, state, &here)?;
        }
        Ok(mark_rows && before.is_none() && !renewed)
    }

    /// Nothing is known of any table: in the transaction at hand.
    pub(super) fn forget_tables(&self) -> Result<(), Error> {
        self.conn.execute(concat!("DELETE FROM ", ours!("known")), []).doing("forget the tables")?;
        Ok(())
    }

    /// Tables that had their triggers before this node kept a list of them.
    pub(super) fn know_captured(&mut self) -> Result<(), Error> {
        let here = self.here();
        let Self { conn, attachments, tables, .. } = self;
        for tracked in tables.iter().filter(|tracked| tracked.captured) {
            let name = &tracked.table.name;
            match attachments.state(name) {
                None => attachments.set(conn, name, State::Here, &here)?,
                Some(State::Gone) => attachments.set(conn, name, State::Returned, &here)?,
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// Local names for what the log names otherwise: renamed tables, and columns of a table that L is built of aside.
    pub(super) fn adapt(&self, changes: &mut Changes) {
        if self.attachments.renamed.is_empty() && self.spares.is_empty() {
            return;
        }
        for chunk in &mut changes.chunks {
            if self.tracked_exactly(&chunk.table).is_none()
                && let Some(now) = self.attachments.now(&chunk.table)
            {
                now.clone_into(&mut chunk.table);
            }
            if self.spares.is_empty() {
                continue;
            }
            for column in &mut chunk.columns {
                if let Some(spare) = self.spares.get(&spared(&chunk.table, column)) {
                    spare.clone_into(column);
                }
            }
        }
    }

    /// Notes that the log speaks of tables that are excluded here: should one come in later, its rows are compared.
    pub(super) fn note_skipped(&mut self, changes: &Changes) -> Result<(), Error> {
        if !self.captures {
            return Ok(());
        }
        for chunk in &changes.chunks {
            if !self.options.filter.wants(&chunk.table) && self.attachments.state(&chunk.table).is_none() {
                let here = self.here();
                let Self { conn, attachments, .. } = self;
                attachments.set(conn, &chunk.table, State::Gone, &here)?;
            }
        }
        Ok(())
    }

    /// The next table that is to be compared with the log. One that could not be waits until the schema changes.
    ///
    /// # Errors
    /// When the schema can't be read.
    pub fn to_compare(&mut self) -> Result<Option<String>, Error> {
        self.refresh_schema()?;
        if self.ledger.is_slicing() {
            // Rows are ahead of the position, and L can only be built up to that.
            return Ok(None);
        }
        if self.has_unread() && self.attachments.are_compared() {
            self.attachments.cannot_be_compared();
        }
        let waits = |tracked: &&Tracked| {
            let name = &tracked.table.name;
            tracked.captured
                && matches!(self.attachments.state(name), Some(State::Rebuilt | State::Returned))
                && !self.attachments.obstacles.contains_key(&name.to_ascii_lowercase())
        };
        Ok(self.tables.iter().find(waits).map(|tracked| tracked.table.name.clone()))
    }

    /// Says why a table can't be compared with the log. One that was rebuilt is sent whole instead; one that was gone
    /// stays as it is, and the log waits for it. Says whether rows are sent.
    ///
    /// # Errors
    /// When SQLite refuses; nothing has changed then.
    pub fn cannot_compare(&mut self, table: &str, why: &str) -> Result<bool, Error> {
        let key = table.to_ascii_lowercase();
        if self.attachments.state(table) != Some(State::Rebuilt) {
            let obstacle = format!(
                "table `{table}` is here again, and its rows can't be compared with the log: {why}; make the table as it is \
                 on the other nodes, exclude it with `exclude` under `[capture]`, or take the cluster's rows anew: \
                 `antiphon cleanup`, then `antiphon join --discard-local`, or `--publish-local` if the rows here are right"
            );
            self.attachments.obstacles.insert(key, obstacle);
            tracing::warn!(table, why, "cannot compare a table that is here again with the log");
            return Ok(false);
        }
        tracing::warn!(table, why, "cannot compare a rebuilt table with the log; all of its rows are sent");
        self.transaction(|db| {
            let here = db.here();
            let Self { conn, attachments, .. } = db;
            attachments.set(conn, table, State::Here, &here)?;
            conn.execute(concat!("INSERT OR REPLACE INTO ", ours!("scan"), " VALUES (?1, NULL)"), [table])
                .doing("mark the rows of a rebuilt table")?;
            Ok(true)
        })
    }

    /// The schema's version, as last read.
    #[must_use]
    pub fn schema_version(&self) -> i64 {
        self.schema_version
    }

    /// An empty database with this one's tables, which follows the log for some of them: a place to build their L in.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn aside(&self, path: &Path, tables: &[String]) -> Result<Self, Error> {
        let cluster = self.cluster.ok_or_else(|| Error::Inconsistent("there is no cluster to follow".to_owned()))?;
        self.copy_schema(path)?;
        let mut aside = self.reopen_as(path, super::Filter::of_names(tables))?;
        aside.enter_with(cluster, self.rulings.policies(0).unwrap_or_else(|| self.policies.own()))?;
        Ok(aside)
    }

    /// What is known of tables by other names, and of those that are gone, holds aside as well.
    pub(super) fn copy_attachments(&self, aside: &Self) -> Result<(), Error> {
        const COPYING: &str = "copy what is known of tables";
        for (old, now) in &self.attachments.renamed {
            aside
                .conn
                .execute(concat!("INSERT OR REPLACE INTO ", ours!("renamed"), " VALUES (?1, ?2)"), [old, now])
                .doing(COPYING)?;
        }
        let gone = self
            .attachments
            .known
            .iter()
            .filter(|(table, (state, _))| *state == State::Gone && self.tracked_exactly(table).is_none());
        for (table, (_, since)) in gone {
            aside
                .conn
                .execute(
                    concat!("INSERT OR REPLACE INTO ", ours!("known"), " VALUES (?1, ?2, ?3)"),
                    [table.as_str(), State::Gone.name(), since],
                )
                .doing(COPYING)?;
        }
        Ok(())
    }

    /// Makes room aside for columns that the log speaks of and the table no longer has: what it says of the others may
    /// depend on them. They get names of ours, for names from the log never become SQL.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn widen(&mut self, entries: &[Placed]) -> Result<(), Error> {
        let mut unknown = BTreeSet::new();
        for placed in entries {
            let Some(entry) = codec::decode(&placed.frame).ok().filter(|entry| placed.may_say(entry)) else { continue };
            let Body::Changes(mut changes) = entry.body else { continue };
            self.adapt(&mut changes);
            for chunk in &changes.chunks {
                let Some(index) = self.tracked(&chunk.table) else { continue };
                let Some(tracked) = self.tables.get(index) else { continue };
                let lacking = chunk.columns.iter().filter(|name| tracked.table.column(name).is_none());
                unknown.extend(lacking.map(|name| (index, name.to_ascii_lowercase())));
            }
        }
        if unknown.is_empty() {
            return Ok(());
        }
        for (index, column) in unknown {
            let Some(tracked) = self.tables.get(index) else { continue };
            let spare = format!("{PREFIX}spare_{}", self.spares.len());
            let typed = if tracked.table.strict { " ANY" } else { "" };
            self.conn
                .execute_batch(&format!(
                    "ALTER TABLE main.{} ADD COLUMN {}{typed}",
                    quote(&tracked.table.name),
                    quote(&spare)
                ))
                .doing("make room for a column")?;
            self.spares.insert(spared(&tracked.table.name, &column), spare);
        }
        self.refresh_schema()?;
        Ok(())
    }
}
