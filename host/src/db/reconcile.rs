//! A table and its L: how they differ, and how they come together again.
//!
//! Needed where rows changed while no trigger saw it: a trigger was dropped, a table was rebuilt or is here again, another
//! program wrote with triggers off. L is built aside up to this node's own positions; if it stood further, rows of others
//! that are merely not applied here yet would look like changes of ours.

use super::attachment::State;
use super::catalog::Tracked;
use super::merge::{Encoding, KeyOrder, Pair, Side, merge};
use super::overlay::{Image, OVERSIZED, chunk_keys, drop_shadow, store_shadow};
use super::own::ours;
use super::rows::whole;
use super::seal::has_marks;
use super::shadows::Shadow;
use super::unique::{key_values, same};
use super::unit::whole_row;
use super::values::unsigned;
use super::values::{bind, values};
use super::{Database, Doing as _, Error};
use crate::log::Shard;
use antiphon_core::capture::{mark_first, mark_first_none};
use antiphon_core::codec;
use antiphon_core::entry::Body;
use antiphon_core::value::{Row, Value};
use rusqlite::Connection;
use rustc_hash::FxHashMap;

/// Marks made in one transaction: the application's writes wait for it.
const MARKS_MAX: usize = 10_000;

/// How a table differed from what the log says, leaving out keys that are marked or pending already.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reconciled {
    /// The table.
    pub table: String,
    /// Rows that only this node has: they become insertions.
    pub only_here: u64,
    /// Rows that the log has and this node lacks: they become deletions.
    pub only_logged: u64,
    /// Rows with other values: they become updates.
    pub changed: u64,
    /// Rows that differ, and are on their way already.
    pub on_their_way: u64,
}

impl Reconciled {
    /// How many keys were marked, or would be.
    #[must_use]
    pub fn marked(&self) -> u64 {
        self.only_here + self.only_logged + self.changed
    }
}

/// What a round of comparing a table came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reattached {
    /// Rows that differ are being sealed first; another round has to follow.
    Again,
    /// The table follows the log again.
    Done,
    /// The log has values in this column, which the table lacks.
    Lacks(String),
}

impl Database {
    /// Compares a table with the log's, and with `mark` marks the keys under which they differ, so that they become
    /// changes of this node, deletions included. Keys that are marked, or pending as they stand, are left out: what
    /// becomes of them is settled already.
    ///
    /// `logged` is L, built aside up to exactly the positions of this database. With `mark`, the table's triggers must
    /// be in place, so that whatever the application writes meanwhile is marked by them.
    ///
    /// # Errors
    /// When SQLite refuses; some keys may be marked then, which does no harm: a mark sends the row as it is.
    pub fn reconcile(&mut self, logged: &Self, table: &str, mark: bool) -> Result<Reconciled, Error> {
        self.check_same_place(logged)?;
        let missing = |which: &str| Error::Inconsistent(format!("there is no replicated table `{table}` {which}"));
        let here = self.compared(table).ok_or_else(|| missing("here"))?;
        let there = logged.compared(table).ok_or_else(|| missing("in what the log says"))?;
        if mark && !here.captured {
            return Err(Error::Inconsistent(format!("the triggers of `{table}` are not in place")));
        }
        let differing = self.differing(logged, &here, &there)?;
        let meanwhile = || Error::Inconsistent(format!("the schema changed while `{table}` was compared"));
        if mark {
            if !self.mark_differing(logged, &here, &there, &differing.keys(true))? {
                return Err(meanwhile());
            }
            let is_set_right = self.transaction(|db| {
                if db.refresh_schema()? {
                    return Ok(false);
                }
                db.set_marks_right(logged, &here, &there).map(|()| true)
            })?;
            if !is_set_right {
                return Err(meanwhile());
            }
        }
        Ok(Reconciled { table: here.table.name, ..differing.counts })
    }

    /// Compares a table that was rebuilt or is here again with its L, built in `aside` up to this node's own place.
    ///
    /// What differs here and is the application's doing is marked, and sealed as any change; in a last round, when
    /// nothing is left to mark, rows that only L has are written.
    ///
    /// # Errors
    /// When SQLite refuses; nothing is lost then, and the round can be tried again.
    pub fn reattach(&mut self, aside: &Self, table: &str) -> Result<Reattached, Error> {
        let state = self.attachments.state(table);
        self.refresh_schema()?;
        if self.attachments.state(table) != state || aside.positions() != self.positions() {
            return Ok(Reattached::Again);
        }
        let (Some(here), Some(there)) = (self.compared(table), aside.compared(table)) else {
            return Ok(Reattached::Again);
        };
        if !self.is_held(&here) && has_marks(&self.conn, &here)? {
            let left = self.transaction(|db| {
                if !db.refresh_schema()? && db.is_dirty()? {
                    db.seal_piece()?;
                }
                has_marks(&db.conn, &here)
            })?;
            if left {
                return Ok(Reattached::Again);
            }
        }
        let differing = self.differing(aside, &here, &there)?;
        let deletes = state == Some(State::Rebuilt) && differing.is_rebuild();
        let keys = differing.keys(deletes);
        if !keys.is_empty() {
            tracing::warn!(
                table,
                rows = differing.here.len(),
                gone = keys.len() - differing.here.len(),
                "a table was made anew; rows that differ from the log's are sent"
            );
            self.mark_differing(aside, &here, &there, &keys)?;
            return Ok(Reattached::Again);
        }
        self.transaction(|db| {
            if db.refresh_schema()? || db.attachments.state(table) != state {
                return Ok(Reattached::Again);
            }
            // All that changed since it was compared is marked.
            if db.is_held(&here) {
                db.set_marks_right(aside, &here, &there)?;
                db.attachments.let_seal(table);
            }
            if db.is_dirty()? {
                db.seal_piece()?;
            }
            if has_marks(&db.conn, &here)? {
                return Ok(Reattached::Again);
            }
            if let Some(column) = db.follow_again(aside, &here, &there, differing.only_logged)? {
                return Ok(Reattached::Lacks(column));
            }
            db.take_stamps(aside, table)?;
            let since = db.here();
            let Self { conn, attachments, .. } = db;
            attachments.set(conn, table, State::Here, &since)?;
            Ok(Reattached::Done)
        })
    }

    /// Whether L stands where this database does, in every shard.
    fn check_same_place(&self, logged: &Self) -> Result<(), Error> {
        if self.ledger.is_slicing() || logged.ledger.is_slicing() {
            return Err(Error::Inconsistent(
                "a large unit has been applied by half; let the node go on first".to_owned(),
            ));
        }
        for shard in 1..=self.shards() {
            let (here, there) = (self.position(shard), logged.position(shard));
            if here != there {
                return Err(Error::Inconsistent(format!(
                    "shard {shard} was built up to {}, and this node stands at {}",
                    there.seq, here.seq
                )));
            }
        }
        Ok(())
    }

    /// Whether the marks of a table wait until it has been compared.
    pub(super) fn is_held(&self, tracked: &Tracked) -> bool {
        tracked.table.resolved && self.attachments.holds(&tracked.table.name)
    }

    fn compared(&self, table: &str) -> Option<Tracked> {
        self.tracked_exactly(table).and_then(|index| self.tables.get(index)).cloned()
    }

    /// Compares all rows, as of one moment: a row whose mark we don't see yet is one whose change we don't see. Nobody
    /// who writes waits for it.
    fn differing(&self, logged: &Self, here: &Tracked, there: &Tracked) -> Result<Differing, Error> {
        self.conn.execute_batch("BEGIN").doing("begin a transaction")?;
        let differing = self.compare_rows(logged, here, there);
        self.conn.execute_batch("COMMIT").doing("end a transaction")?;
        differing
    }

    fn compare_rows(&self, logged: &Self, here: &Tracked, there: &Tracked) -> Result<Differing, Error> {
        let mut differing = Differing::default();
        let overlay = self.overlay.peek(here.id);
        let marked = self.marked(here)?;
        let mut sealed = self.sealed(here)?;
        let columns: Vec<usize> = (0..here.table.columns.len()).collect();
        let places = places(here, there)?;
        let ours = Side { conn: &self.conn, table: &here.table, columns: &columns };
        let theirs = Side { conn: &logged.conn, table: &there.table, columns: &places };
        let order = KeyOrder::new(&here.table, Encoding::of(&self.conn)?);
        let mut canonical = Vec::new();
        merge(ours, theirs, &order, |Pair { key, here: row, there: found }| {
            differing.logged += u64::from(found.is_some());
            differing.common += u64::from(row.is_some() && found.is_some());
            canonical.clear();
            here.encoder.write(&mut canonical, key.iter());
            let sealed_as = sealed.remove(canonical.as_slice());
            let pending = overlay.and_then(|overlay| overlay.pending.get(canonical.as_slice()));
            let hidden = row.is_none() && overlay.is_some_and(|overlay| overlay.shadows.contains(&canonical));
            let settled = marked.speaks_of(here, &key, row.is_some())
                || match pending {
                    None => hidden,
                    // Such a row is held back, and sent as soon as it can be.
                    Some(&OVERSIZED) => row.as_deref().is_some_and(|row| self.is_oversized(row)),
                    // What was sealed before the change that no trigger saw says nothing of the row now.
                    Some(_) => sealed_as.is_none_or(|image| same(image.as_ref(), row.as_ref())),
                };
            if settled {
                differing.counts.on_their_way += u64::from(row != found);
            } else if pending.is_some() || row != found {
                differing.note(key, row.is_some(), found.is_some(), pending.is_some());
            }
            Ok(())
        })?;
        // Rows that were sealed, and that neither side has.
        for (canonical, image) in sealed {
            let key = key_values(&canonical)?;
            if image.is_some() && !marked.speaks_of(here, &key, false) {
                differing.note(key, false, true, true);
            }
        }
        Ok(differing)
    }

    fn is_oversized(&self, row: &[Value]) -> bool {
        row.iter().map(Value::weight).sum::<usize>() > self.row_bytes_max
    }

    /// Marks keys under which a table differs, in short transactions; says whether the schema stayed as it was.
    fn mark_differing(&mut self, logged: &Self, here: &Tracked, there: &Tracked, keys: &[&Row]) -> Result<bool, Error> {
        for piece in keys.chunks(MARKS_MAX) {
            let marked = self.transaction(|db| {
                if db.refresh_schema()? {
                    return Ok(false);
                }
                let bases = Bases::new(db, logged, here, there)?;
                for key in piece {
                    db.mark(here, key, bases.of(key)?.as_ref())?;
                }
                Ok(true)
            })?;
            if !marked {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Every marked row counts as made upon what the log says, or upon what is on its way. Triggers that were away for a
    /// while took what they found for it, and that may have changed unseen.
    fn set_marks_right(&self, logged: &Self, here: &Tracked, there: &Tracked) -> Result<(), Error> {
        const MARKING: &str = "mark what rows were made upon";
        let name = &here.table.name;
        // Rows that were there before the triggers were are made upon nothing.
        if !here.table.resolved || self.is_scanned(name)? || self.fresh(name)? > i64::MIN {
            return Ok(());
        }
        let bases = Bases::new(self, logged, here, there)?;
        let (was, was_none) = (mark_first(&here.table), mark_first_none(&here.table));
        let mut marked: Vec<Vec<u8>> = self.marked(here)?.keys.into_keys().collect();
        marked.sort_unstable();
        // Each goes ahead of those before.
        for canonical in marked.iter().rev() {
            let key = key_values(canonical)?;
            let base = bases.of(&key)?;
            let (sql, bound) = base.as_ref().map_or((&was_none, &key), |base| (&was, base));
            let mut statement = self.conn.prepare_cached(sql).doing(MARKING)?;
            bind(&mut statement, 1, bound.iter()).doing(MARKING)?;
            statement.raw_execute().doing(MARKING)?;
        }
        Ok(())
    }

    /// The rows of a table that are on their way, each as it was sealed last.
    fn sealed(&self, here: &Tracked) -> Result<FxHashMap<Box<[u8]>, Option<Image>>, Error> {
        const READING: &str = "read what is pending";
        let mut sealed = FxHashMap::default();
        if self.overlay.peek(here.id).is_none_or(|overlay| overlay.pending.is_empty()) {
            return Ok(sealed);
        }
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

    /// The table follows the log again: L's rows go behind pending ones, and rows that only L has are written. Gives the
    /// column that the table lacks and one of them has a value in; nothing has changed then.
    fn follow_again(
        &mut self,
        aside: &Self,
        here: &Tracked,
        there: &Tracked,
        only_logged: Vec<Row>,
    ) -> Result<Option<String>, Error> {
        let positions = self.positions();
        let seen = if let [(_, seq)] = positions.as_slice() { *seq } else { 0 };
        let (places, rows) = (places(here, there)?, only_logged.len());
        let overlay = self.overlay.table(here.id);
        let mut missing: Vec<Box<[u8]>> = Vec::with_capacity(only_logged.len());
        for key in only_logged {
            let mut canonical = Vec::new();
            here.encoder.write(&mut canonical, key.iter());
            missing.push(canonical.into_boxed_slice());
        }
        // What was hidden is in L as well, or no longer.
        missing.extend(overlay.shadows.keys().map(Box::from));
        missing.retain(|key| !overlay.pending.contains_key(key));
        missing.sort_unstable();
        missing.dedup();
        let behind: Vec<Box<[u8]>> = overlay.pending.keys().map(Box::from).collect();
        let mut shadows = Vec::with_capacity(missing.len() + behind.len());
        for key in missing.iter().chain(&behind) {
            let row = whole(&aside.conn, there, &key_values(key)?)?;
            if let Some(column) = row.as_ref().and_then(|row| aside.lacking(here, there, row))
                && !overlay.pending.contains_key(key)
            {
                return Ok(Some(column));
            }
            let image: Option<Image> = row.map(|row| picked(&row, &places).into_iter().map(Some).collect());
            // What is on its way was made upon what this node had seen then, and so is what follows upon it.
            let seen = overlay.shadows.get(key).map_or(seen, |shadow| shadow.seen);
            shadows.push((key.clone(), Shadow { image, seen }));
        }
        if rows > 0 {
            tracing::warn!(table = here.table.name, rows, "rows of the log are written to a table that is here again");
        }
        let Self { conn, overlay, .. } = self;
        let overlay = overlay.table(here.id);
        for key in std::mem::take(&mut overlay.shadows).keys() {
            drop_shadow(conn, here, key)?;
        }
        for (key, shadow) in shadows {
            if overlay.pending.contains_key(&key) {
                store_shadow(conn, here, &key, &shadow)?;
            }
            overlay.shadows.insert(key, shadow);
        }
        self.materialise(here, missing)?;
        Ok(None)
    }

    /// The column that the table here lacks, and this row of L has a value in.
    fn lacking(&self, here: &Tracked, there: &Tracked, row: &Row) -> Option<String> {
        let is_lacked = |name: &str| here.table.column(name).is_none();
        let valued = there.table.columns.iter().zip(row).filter(|(_, value)| **value != Value::Null);
        let spare = valued.map(|(column, _)| &column.name).find(|name| is_lacked(name))?;
        let known = self.spares.iter().find(|(_, name)| *name == spare);
        Some(known.map_or_else(|| spare.clone(), |((_, column), _)| column.clone()))
    }

    /// Who changed its rows last is part of L.
    fn take_stamps(&self, aside: &Self, table: &str) -> Result<(), Error> {
        const TAKING: &str = "take over stamps";
        self.conn
            .execute(concat!("DELETE FROM ", ours!("stamp"), " WHERE tbl = ?1 COLLATE NOCASE"), [table])
            .doing(TAKING)?;
        let mut read = aside
            .conn
            .prepare(concat!("SELECT * FROM ", ours!("stamp"), " WHERE tbl = ?1 COLLATE NOCASE"))
            .doing(TAKING)?;
        let width = read.column_count();
        let places = (1..=width).map(|n| format!("?{n}")).collect::<Vec<_>>().join(", ");
        let mut write = self
            .conn
            .prepare(&format!(concat!("INSERT OR REPLACE INTO ", ours!("stamp"), " VALUES ({})"), places))
            .doing(TAKING)?;
        let mut rows = read.query([table]).doing(TAKING)?;
        while let Some(row) = rows.next().doing(TAKING)? {
            bind(&mut write, 1, values(row, 0, width).doing(TAKING)?.iter()).doing(TAKING)?;
            write.raw_execute().doing(TAKING)?;
        }
        Ok(())
    }
}

/// Where each column of the table here stands in the one aside.
pub(super) fn places(here: &Tracked, there: &Tracked) -> Result<Vec<usize>, Error> {
    let places: Option<Vec<usize>> = here.table.columns.iter().map(|column| there.table.column(&column.name)).collect();
    places.ok_or_else(|| Error::Inconsistent(format!("the columns of `{}` changed meanwhile", here.table.name)))
}

pub(super) fn picked(row: &Row, places: &[usize]) -> Row {
    places.iter().map(|&place| row.get(place).cloned().unwrap_or_default()).collect()
}

/// What changes of this node to a table are made upon, where its policy asks.
struct Bases<'a> {
    logged: &'a Connection,
    here: &'a Tracked,
    there: &'a Tracked,
    places: Vec<usize>,
    sealed: FxHashMap<Box<[u8]>, Option<Image>>,
}

impl<'a> Bases<'a> {
    fn new(db: &Database, logged: &'a Database, here: &'a Tracked, there: &'a Tracked) -> Result<Self, Error> {
        let sealed = if here.table.resolved { db.sealed(here)? } else { FxHashMap::default() };
        Ok(Self { logged: &logged.conn, here, there, places: places(here, there)?, sealed })
    }

    /// The row as it was sealed last, or as the log has it.
    fn of(&self, key: &[Value]) -> Result<Option<Row>, Error> {
        if !self.here.table.resolved {
            return Ok(None);
        }
        let mut canonical = Vec::new();
        self.here.encoder.write(&mut canonical, key.iter());
        if let Some(image) = self.sealed.get(canonical.as_slice()) {
            return Ok(image.as_ref().map(whole_row));
        }
        Ok(whole(self.logged, self.there, key)?.map(|row| picked(&row, &self.places)))
    }
}

/// How a table and its L differ, in what is not on its way as it stands.
#[derive(Debug, Default)]
struct Differing {
    counts: Reconciled,
    /// Keys of rows here that L has otherwise, or not, or that were sealed otherwise.
    here: Vec<Row>,
    /// Keys of rows that L has, and that are not here.
    only_logged: Vec<Row>,
    /// Keys of rows that are on their way, and are not here.
    only_sealed: Vec<Row>,
    /// Rows in L, and how many of their keys are here.
    logged: u64,
    common: u64,
}

impl Differing {
    /// A row is here, was in the log or a batch of ours before, and a change of ours to it is on its way.
    fn note(&mut self, key: Row, here: bool, before: bool, pending: bool) {
        let (count, keys) = match (here, before) {
            (true, true) => (&mut self.counts.changed, &mut self.here),
            (true, false) => (&mut self.counts.only_here, &mut self.here),
            (false, _) if pending => (&mut self.counts.only_logged, &mut self.only_sealed),
            (false, _) => (&mut self.counts.only_logged, &mut self.only_logged),
        };
        *count += 1;
        keys.push(key);
    }

    /// What is to be marked, with or without rows that are not here.
    fn keys(&self, deletes: bool) -> Vec<&Row> {
        let gone = self.only_logged.iter().chain(&self.only_sealed).filter(|_| deletes);
        self.here.iter().chain(gone).collect()
    }

    /// Whether the table was made from its forerunner's rows. One that has less than half of L's keys was made anew,
    /// and what it lacks was never put in: it is no one's deletion.
    fn is_rebuild(&self) -> bool {
        self.common * 2 >= self.logged
    }
}
