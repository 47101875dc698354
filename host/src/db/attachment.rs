//! Which tables have been captured here, which of them are gone, and how they come back.
//!
//! A table that was replicated and is no longer there is *detached*: what the log says of it is passed over. When it
//! is there again, or was made anew, nobody knows what its rows and the log's have in common but the log itself: its
//! rows are compared with L, built aside. Until that is done, nothing of the log is applied to it.

use super::catalog::Tracked;
use super::compare::{each_row, key_of};
use super::ledger::{ours, unsigned};
use super::overlay::{Image, Shadow, chunk_keys, drop_shadow, store_shadow};
use super::rows::whole;
use super::unique::{key_values, same};
use super::unit::whole_row;
use super::values::{bind, values};
use super::{Database, Doing as _, Error};
use crate::log::{Placed, Shard};
use antiphon_core::capture::{PREFIX, change_log};
use antiphon_core::codec;
use antiphon_core::entry::{Body, Changes};
use antiphon_core::schema::quote;
use antiphon_core::value::{Row, Value};
use rusqlite::Connection;
use rustc_hash::{FxHashMap, FxHashSet};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Where a table stands that was captured here once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
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

/// What a round of comparing came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reattached {
    /// Rows that differ are being sealed first; another round has to follow.
    Again,
    /// The table follows the log again.
    Done,
    /// The log has values in this column, which the table lacks.
    Lacks(String),
}

/// All tables that have been captured here, in memory; by their names in lower case.
#[derive(Clone, Debug, Default)]
pub(super) struct Attachments {
    known: BTreeMap<String, (State, String)>,
    /// Names that tables had before, and their names now.
    renamed: BTreeMap<String, String>,
    /// Why a table can't be compared, in words for the person who can change it.
    obstacles: BTreeMap<String, String>,
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
        query(concat!("SELECT tbl, state, since FROM ", ours!("known")), &mut |table, state, since| {
            if let Some(state) = State::of(&state) {
                self.known.insert(table.to_ascii_lowercase(), (state, since));
            }
        })?;
        query(concat!("SELECT old, now, '' FROM ", ours!("renamed")), &mut |old, now, _| {
            self.renamed.insert(old.to_ascii_lowercase(), now);
        })
    }

    fn state(&self, table: &str) -> Option<State> {
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

    fn set(&mut self, conn: &Connection, table: &str, state: State, since: &str) -> Result<(), Error> {
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
        let vanished =
            |(table, (state, _)): (&String, &(State, String))| *state != State::Gone && !self.is_there(table);
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

    fn here(&self) -> String {
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
        const FOLLOWING: &str = "follow a renamed table";
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
            for table in [ours!("shadow"), ours!("stamp"), ours!("oversized")] {
                let sql = format!("UPDATE OR REPLACE {table} SET tbl = ?2 WHERE tbl = ?1 COLLATE NOCASE");
                conn.execute(&sql, [then, now]).doing(FOLLOWING)?;
            }
        }
        Ok(())
    }

    /// A table gets its triggers: says whether its rows are to be marked, for it is new to this node.
    pub(super) fn attach(&mut self, table: &str, mark_rows: bool, renewed: bool) -> Result<bool, Error> {
        let here = self.here();
        let Self { conn, attachments, .. } = self;
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
            for column in &mut chunk.columns {
                if let Some(spare) = self.spares.get(&column.to_ascii_lowercase()) {
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

    /// An empty database with this one's tables, which follows the log for one of them: a place to build its L in.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn aside(&self, path: &Path, table: &str) -> Result<Self, Error> {
        let cluster = self.cluster.ok_or_else(|| Error::Inconsistent("there is no cluster to follow".to_owned()))?;
        self.copy_schema(path)?;
        let filter = super::Filter::of_names(&[table.to_owned()]);
        let mut aside = self.reopen_as(path, filter)?;
        aside.enter_quietly(cluster.id, cluster.shards)?;
        let names = self.attachments.renamed.iter().filter(|(_, now)| now.eq_ignore_ascii_case(table));
        for (old, now) in names {
            aside
                .conn
                .execute(concat!("INSERT INTO ", ours!("renamed"), " VALUES (?1, ?2)"), [old, now])
                .doing("copy the names of a table")?;
        }
        aside.reload()?;
        Ok(aside)
    }

    /// Makes room aside for columns that the log speaks of and the table no longer has: what it says of the others may
    /// depend on them. They get names of ours, for names from the log never become SQL.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn widen(&mut self, entries: &[Placed]) -> Result<(), Error> {
        let mut unknown = BTreeSet::new();
        for placed in entries {
            let Ok(entry) = codec::decode(&placed.frame) else { continue };
            let Body::Changes(mut changes) = entry.body else { continue };
            self.adapt(&mut changes);
            for chunk in &changes.chunks {
                let Some(tracked) = self.tracked(&chunk.table).and_then(|index| self.tables.get(index)) else {
                    continue;
                };
                unknown.extend(chunk.columns.iter().filter(|name| tracked.table.column(name).is_none()).cloned());
            }
        }
        let Some(tracked) = self.tables.first().cloned() else { return Ok(()) };
        for column in unknown {
            let spare = format!("{PREFIX}spare_{}", self.spares.len());
            let typed = if tracked.table.strict { " ANY" } else { "" };
            self.conn
                .execute_batch(&format!(
                    "ALTER TABLE main.{} ADD COLUMN {}{typed}",
                    quote(&tracked.table.name),
                    quote(&spare)
                ))
                .doing("make room for a column")?;
            self.spares.insert(column.to_ascii_lowercase(), spare);
        }
        self.refresh_schema()?;
        Ok(())
    }

    /// Compares a table with its L, built in `aside` up to this node's own place.
    ///
    /// What differs here and is the application's doing is marked, and sealed as any change; in a last round, when
    /// nothing is left to mark, rows that only L has are written.
    ///
    /// # Errors
    /// When SQLite refuses; nothing has changed then.
    pub fn reattach(&mut self, aside: &Self, table: &str) -> Result<Reattached, Error> {
        let state = self.attachments.state(table);
        self.refresh_schema()?;
        self.transaction(|db| {
            if db.refresh_schema()? || db.attachments.state(table) != state || aside.positions() != db.positions() {
                return Ok(Reattached::Again);
            }
            if db.is_dirty()? && db.seal_piece()? {
                return Ok(Reattached::Again);
            }
            let (Some(here), Some(there)) = (db.tracked_exactly(table), aside.tracked_exactly(table)) else {
                return Ok(Reattached::Again);
            };
            let (Some(here), Some(there)) = (db.tables.get(here).cloned(), aside.tables.get(there)) else {
                return Ok(Reattached::Again);
            };
            let differing = db.differing(aside, &here, there)?;
            let deletes = state == Some(State::Rebuilt) && differing.is_rebuild();
            let mut marks = differing.here.clone();
            if deletes {
                marks.extend(differing.only_there.iter().map(|(key, row)| (key.clone(), Some(row.clone()))));
            }
            marks.extend(differing.sealed_otherwise.iter().cloned());
            if deletes {
                marks.extend(differing.sealed_and_gone.iter().cloned());
            }
            if !marks.is_empty() {
                tracing::warn!(
                    table,
                    rows = differing.here.len(),
                    gone = if deletes { differing.only_there.len() } else { 0 },
                    "a table was made anew; rows that differ from the log's are sent"
                );
                for (key, logged) in marks {
                    let logged = logged.map(|row| row.into_iter().take(here.table.columns.len()).collect());
                    db.mark(&here, &key, logged.as_ref())?;
                }
                return Ok(Reattached::Again);
            }
            if let Some(column) = differing.only_there.iter().find_map(|(_, row)| aside.spared(there, &here, row)) {
                return Ok(Reattached::Lacks(column));
            }
            db.take_over(&here, differing)?;
            db.take_stamps(aside, table)?;
            let since = db.here();
            let Self { conn, attachments, .. } = db;
            attachments.set(conn, table, State::Here, &since)?;
            Ok(Reattached::Done)
        })
    }

    /// The column that this table lacks, and L's row has a value in.
    fn spared(&self, there: &Tracked, here: &Tracked, row: &Row) -> Option<String> {
        let at = row.iter().skip(here.table.columns.len()).position(|value| *value != Value::Null)?;
        let spare = &there.table.columns.get(here.table.columns.len() + at)?.name;
        let column = self.spares.iter().find(|(_, name)| *name == spare).map(|(column, _)| column)?;
        Some(column.clone())
    }

    fn differing(&self, aside: &Self, here: &Tracked, there: &Tracked) -> Result<Differing, Error> {
        let width = here.table.columns.len();
        let mut differing = Differing::default();
        let overlay = self.overlay.peek(here.id);
        let is_pending = |key: &[u8]| overlay.is_some_and(|overlay| overlay.pending.contains_key(key));
        let mut canonical = Vec::new();
        let mut sealed = self.sealed(here)?;
        each_row(self, here, &mut |row| {
            let key = key_of(here, &row);
            canonical.clear();
            here.encoder.write(&mut canonical, key.iter());
            let found = whole(&aside.conn, there, &key)?;
            if is_pending(&canonical) {
                // What was sealed before the table was made anew says nothing of its rows now.
                if let Some(image) =
                    sealed.remove(canonical.as_slice()).filter(|image| !same(image.as_ref(), Some(&row)))
                {
                    differing.sealed_otherwise.push((key, image.as_ref().map(whole_row)));
                }
            } else if found.as_deref().and_then(|found| found.get(..width)) != Some(row.as_slice()) {
                differing.here.push((key, found));
            }
            Ok(())
        })?;
        for (key, image) in sealed {
            if let Some(image) = image {
                differing.sealed_and_gone.push((key_values(&key)?, Some(whole_row(&image))));
            }
        }
        each_row(aside, there, &mut |row| {
            differing.logged += 1;
            let key = key_of(there, &row);
            canonical.clear();
            here.encoder.write(&mut canonical, key.iter());
            let present = whole(&self.conn, here, &key)?.is_some();
            differing.common += u64::from(present);
            if is_pending(&canonical) {
                differing.pending.push((canonical.as_slice().into(), row));
            } else if !present {
                differing.only_there.push((key, row));
            }
            Ok(())
        })?;
        Ok(differing)
    }

    /// Who changed its rows last is part of L.
    fn take_stamps(&self, aside: &Self, table: &str) -> Result<(), Error> {
        const TAKING: &str = "take over stamps";
        self.conn
            .execute(concat!("DELETE FROM ", ours!("stamp"), " WHERE tbl = ?1 COLLATE NOCASE"), [table])
            .doing(TAKING)?;
        let mut read = aside.conn.prepare(concat!("SELECT * FROM ", ours!("stamp"))).doing(TAKING)?;
        let width = read.column_count();
        let places = (1..=width).map(|n| format!("?{n}")).collect::<Vec<_>>().join(", ");
        let mut write = self
            .conn
            .prepare(&format!(concat!("INSERT OR REPLACE INTO ", ours!("stamp"), " VALUES ({})"), places))
            .doing(TAKING)?;
        let mut rows = read.query([]).doing(TAKING)?;
        while let Some(row) = rows.next().doing(TAKING)? {
            bind(&mut write, 1, values(row, 0, width).doing(TAKING)?.iter()).doing(TAKING)?;
            write.raw_execute().doing(TAKING)?;
        }
        Ok(())
    }

    /// The rows of a table that are on their way, each as it was sealed last.
    fn sealed(&self, here: &Tracked) -> Result<FxHashMap<Box<[u8]>, Option<Image>>, Error> {
        const READING: &str = "read what is pending";
        let mut sealed = FxHashMap::default();
        let mut statement = self
            .conn
            .prepare_cached(concat!(
                "SELECT shard, number, batch FROM ",
                ours!("global_change_log"),
                " ORDER BY shard, number"
            ))
            .doing(READING)?;
        let mut rows = statement.query([]).doing(READING)?;
        while let Some(row) = rows.next().doing(READING)? {
            let shard: Shard = row.get(0).doing(READING)?;
            let number = unsigned(row, 1).doing(READING)?;
            if number <= self.ledger.done(shard, self.origin) {
                continue;
            }
            let frame: Vec<u8> = row.get(2).doing(READING)?;
            let entry = codec::decode(&frame).map_err(|error| {
                Error::Inconsistent(format!("batch {number} of the outbox cannot be read: {error}"))
            })?;
            let Body::Changes(mut changes) = entry.body else { continue };
            self.adapt(&mut changes);
            for chunk in changes.chunks.iter().filter(|chunk| chunk.table.eq_ignore_ascii_case(&here.table.name)) {
                let places: Vec<Option<usize>> = chunk.columns.iter().map(|name| here.table.column(name)).collect();
                let written = chunk.written.iter().map(|row| {
                    let mut image: Image = vec![None; here.table.columns.len()];
                    for (value, place) in row.iter().zip(&places) {
                        if let Some(slot) = place.and_then(|place| image.get_mut(place)) {
                            *slot = Some(value.clone());
                        }
                    }
                    Some(image)
                });
                let images = written.chain(chunk.gone.iter().map(|_| None));
                sealed.extend(chunk_keys(here, chunk).zip(images));
            }
        }
        Ok(sealed)
    }

    /// The table follows the log again: L's rows go behind pending ones, and rows that only L has are written.
    fn take_over(&mut self, here: &Tracked, differing: Differing) -> Result<(), Error> {
        let positions = self.positions();
        let seen = if let [(_, seq)] = positions.as_slice() { *seq } else { 0 };
        let width = here.table.columns.len();
        let image = |row: Row| -> Image { row.into_iter().take(width).map(Some).collect() };
        let Self { conn, overlay, .. } = self;
        let overlay = overlay.table(here.id);
        // What was hidden is in L as well.
        let stale: Vec<Box<[u8]>> = overlay.shadows.keys().cloned().collect();
        for key in stale {
            drop_shadow(conn, here, &key)?;
            overlay.shadows.remove(&key);
        }
        let mut behind: Vec<(Box<[u8]>, Option<Image>)> =
            differing.pending.into_iter().map(|(key, row)| (key, Some(image(row)))).collect();
        let known: FxHashSet<&[u8]> = behind.iter().map(|(key, _)| &**key).collect();
        let fresh: Vec<Box<[u8]>> = overlay.pending.keys().filter(|key| !known.contains(&***key)).cloned().collect();
        behind.extend(fresh.into_iter().map(|key| (key, None)));
        for (key, image) in behind {
            let shadow = Shadow { image, seen };
            store_shadow(conn, here, &key, &shadow)?;
            overlay.shadows.insert(key, shadow);
        }
        if differing.only_there.is_empty() {
            return Ok(());
        }
        tracing::warn!(
            table = here.table.name,
            rows = differing.only_there.len(),
            "rows of the log are written to a table that is here again"
        );
        let mut touched = Vec::new();
        for (key, row) in differing.only_there {
            let mut canonical = Vec::new();
            here.encoder.write(&mut canonical, key.iter());
            overlay.shadows.insert(canonical.as_slice().into(), Shadow { image: Some(image(row)), seen });
            touched.push(canonical.into_boxed_slice());
        }
        self.materialise(here, touched)
    }
}

/// How a table and its L differ, but for keys whose change is on its way.
#[derive(Debug, Default)]
struct Differing {
    /// Keys of rows here that L has otherwise, or not; with L's row.
    here: Vec<(Row, Option<Row>)>,
    /// Rows that only L has.
    only_there: Vec<(Row, Row)>,
    /// Pending keys of rows here that were sealed otherwise, and of rows that were sealed and are not here.
    sealed_otherwise: Vec<(Row, Option<Row>)>,
    sealed_and_gone: Vec<(Row, Option<Row>)>,
    /// L's rows of pending keys.
    pending: Vec<(Box<[u8]>, Row)>,
    /// Rows in L, and how many of their keys are here.
    logged: u64,
    common: u64,
}

impl Differing {
    /// Whether the table was made from its forerunner's rows. One that has less than half of L's keys was made anew,
    /// and what it lacks was never put in: it is no one's deletion.
    fn is_rebuild(&self) -> bool {
        self.common * 2 >= self.logged
    }
}
