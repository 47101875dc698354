//! Rows as they were here before this node went back, by changes of others that no log holds any more.
//!
//! Whoever made such a change sends it again out of its own file: then nothing is missing, and what is kept here goes.
//! Should it be gone for good, the rows that are kept are all that is left of its changes. Only a user can know that; see
//! [`give_up`].

use super::catalog::Tracked;
use super::overlay::{Image, TableId, stored_image};
use super::own::ours;
use super::rows::whole;
use super::unique::{key_values, same};
use super::values::unsigned;
use super::{Database, Doing as _, Error, outbox};
use crate::log::{Placed, Shard};
use antiphon_core::entry::Origin;
use rusqlite::Connection;
use rustc_hash::FxHashSet;
use std::collections::BTreeMap;

pub use give_up::{GivenUp, Stray, Verdict, give_up};

mod give_up;

/// Of other origins, the last number that this node had read and that neither the log nor a snapshot has.
pub type Owed = BTreeMap<(Shard, Origin), u64>;

/// Of which rows some are kept.
#[derive(Default)]
pub(super) struct Kept {
    /// Shards, and what is known of the rows that come into the place of the kept ones.
    shards: BTreeMap<Shard, Place>,
    /// Keys with changes on their way: what the application sees there is this node's own.
    own: FxHashSet<(TableId, Box<[u8]>)>,
}

/// A row that comes into the place of another: its key, and what it is.
pub(super) type Coming = (Box<[u8]>, Option<Image>);

/// What is known of the row that came into the place of a kept one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// It may be later than the kept one, for the snapshot holds what came after the loss.
    Doubtful = 0,
    /// It is as the log had it when it had lost what came then.
    AtTheLoss = 1,
    /// It is earlier: the log is still read again up to the loss.
    Before = 2,
}

const KEEPING: &str = "keep rows that no log has any more";

impl Database {
    /// What others are to send again, for no log has it any more.
    #[must_use]
    pub fn owed(&self) -> &Owed {
        &self.owed
    }

    /// Notes what others are to send again once `image` has come into the place of this node's rows.
    pub(super) fn owe(&mut self, image: &Self, owed: &Owed) -> Result<Kept, Error> {
        let mut note = self
            .conn
            .prepare_cached(concat!(
                "INSERT INTO ",
                ours!("owed"),
                " (shard, node, incarnation, number, time) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT (shard, node, incarnation) DO UPDATE
                 SET number = max(number, excluded.number), time = excluded.time, given_up = NULL"
            ))
            .doing(KEEPING)?;
        let mut kept = Kept::default();
        for (&(shard, origin), &number) in owed {
            let (node, incarnation) = (origin.node.cast_signed(), origin.incarnation.cast_signed());
            let time = self.position(shard).time;
            note.execute((shard, node, incarnation, number.cast_signed(), time.cast_signed())).doing(KEEPING)?;
            kept.shards.insert(shard, if self.is_older(image, shard)? { Place::Before } else { Place::Doubtful });
        }
        drop(note);
        if !kept.shards.is_empty() {
            for id in self.tables.iter().map(|tracked| tracked.id) {
                let pending = self.overlay.table(id).pending.keys();
                kept.own.extend(pending.map(|key| (id, key.into())));
            }
        }
        Ok(kept)
    }

    /// Whether an image stands at a place that this node has come past: then it has nothing that came after what is lost.
    /// What a log takes after a loss, it takes later than what it lost.
    fn is_older(&self, image: &Self, shard: Shard) -> Result<bool, Error> {
        let (here, there) = (self.position(shard), image.position(shard));
        let began = image.began_again(shard)?.filter(|(seq, _)| *seq == there.seq);
        // Where the log began again, an image has what stood before that.
        let time = began.map_or(there.time, |(_, before)| before);
        Ok(time <= here.time)
    }

    /// Keeps the rows that stand where others come.
    pub(super) fn keep_strays(
        &mut self,
        here: &Tracked,
        coming: impl Iterator<Item = Coming>,
        kept: &Kept,
    ) -> Result<(), Error> {
        if kept.shards.is_empty() {
            return Ok(());
        }
        let Some(index) = self.tables.iter().position(|tracked| tracked.id == here.id) else { return Ok(()) };
        let coming: Vec<Coming> = coming.filter(|(key, _)| !kept.own.contains(&(here.id, key.clone()))).collect();
        let keys: Vec<Box<[u8]>> = coming.iter().map(|(key, _)| key.clone()).collect();
        let shards = self.shards_of(index, &keys)?;
        let mut keep = self
            .conn
            .prepare_cached(concat!(
                "INSERT INTO ",
                ours!("stray"),
                " (shard, tbl, key, columns, image, base_columns, base, place) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
                 ON CONFLICT (tbl, key) DO UPDATE SET base_columns = excluded.base_columns, base = excluded.base,
                 place = CASE place WHEN 0 THEN 0 ELSE excluded.place END"
            ))
            .doing(KEEPING)?;
        for ((key, base), shard) in coming.iter().zip(shards) {
            let Some(&place) = kept.shards.get(&shard) else { continue };
            let row = whole(&self.conn, here, &key_values(key)?)?;
            if same(base.as_ref(), row.as_ref()) {
                continue;
            }
            let (columns, image) = stored_image(here, row.map(|row| row.into_iter().map(Some).collect()).as_ref());
            let (base_columns, base) = stored_image(here, base.as_ref());
            let name = &here.table.name;
            keep.execute((shard, name, key, columns, image, base_columns, base, place as u8)).doing(KEEPING)?;
        }
        Ok(())
    }

    /// Of entries to be applied, those that this node had read before it went back; all, if it is past them.
    ///
    /// Between the two, rows are as the log had them when it had lost what came then: kept ones are compared with that.
    pub(super) fn up_to_the_loss<'a>(&mut self, shard: Shard, entries: &'a [Placed]) -> Result<&'a [Placed], Error> {
        let Some(&time) = self.unread.get(&shard) else { return Ok(entries) };
        let position = self.position(shard).seq;
        let known = entries.iter().take_while(|placed| placed.seq <= position || placed.time <= time).count();
        let (known, later) = entries.split_at(known);
        if known.iter().any(|placed| placed.seq > position) {
            return Ok(known);
        }
        if !later.is_empty() {
            self.compare_strays(shard)?;
        }
        Ok(entries)
    }

    /// Whether a shard of the log is still read again up to what it lost.
    #[must_use]
    pub fn reads_again(&self, shard: Shard) -> bool {
        self.unread.contains_key(&shard)
    }

    /// The log was read again up to its end: nothing has come yet after what it lost.
    ///
    /// # Errors
    /// When SQLite refuses; nothing has changed then.
    pub fn read_again(&mut self, shard: Shard) -> Result<(), Error> {
        self.transaction(|db| if db.is_unsealed()? { Ok(()) } else { db.compare_strays(shard) })
    }

    /// Has each kept row stand against the row as it is now, and lets go of those that are the same.
    fn compare_strays(&mut self, shard: Shard) -> Result<(), Error> {
        type Stored = (String, Vec<u8>, (Vec<u8>, Option<Vec<u8>>), (Vec<u8>, Option<Vec<u8>>));
        let strays: Vec<Stored> = self
            .conn
            .prepare(concat!(
                "SELECT tbl, key, columns, image, base_columns, base FROM ",
                ours!("stray"),
                " WHERE shard = ?1 AND place = 2"
            ))
            .and_then(|mut statement| {
                let read = |row: &rusqlite::Row<'_>| {
                    Ok((row.get(0)?, row.get(1)?, (row.get(2)?, row.get(3)?), (row.get(4)?, row.get(5)?)))
                };
                statement.query_map([shard], read)?.collect()
            })
            .doing(KEEPING)?;
        for (table, key, row, base) in strays {
            let here = self.tables.iter().find(|tracked| tracked.table.name.eq_ignore_ascii_case(&table));
            let mut now = base.clone();
            let mut is_pending = false;
            // A table that is gone tells nothing; its rows are not written again either.
            if let Some(here) = here.cloned() {
                let found = whole(&self.conn, &here, &key_values(&key)?)?;
                now = stored_image(&here, found.map(|found| found.into_iter().map(Some).collect()).as_ref());
                is_pending = self.overlay.table(here.id).pending.contains_key(key.as_slice());
            }
            if now == row {
                self.conn
                    .prepare_cached(concat!("DELETE FROM ", ours!("stray"), " WHERE tbl = ?1 AND key = ?2"))
                    .and_then(|mut statement| statement.execute((table, key)))
                    .doing(KEEPING)?;
                continue;
            }
            if now != base && is_pending {
                // The application has changed it since. So it stands against nothing that there will be.
                now = row;
            }
            self.conn
                .prepare_cached(concat!(
                    "UPDATE ",
                    ours!("stray"),
                    " SET base_columns = ?3, base = ?4, place = 1 WHERE tbl = ?1 AND key = ?2"
                ))
                .and_then(|mut statement| statement.execute((table, key, now.0, now.1)))
                .doing(KEEPING)?;
        }
        self.unread.remove(&shard);
        Ok(())
    }

    /// Reads what others are to send again, and in which shards the log is still read again up to the loss.
    pub(super) fn read_owed(&mut self) -> Result<(), Error> {
        self.owed = read(&self.conn)?;
        self.unread.clear();
        if self.owed.is_empty() {
            return Ok(());
        }
        let unread: Vec<(Shard, i64)> = self
            .conn
            .prepare_cached(concat!(
                "SELECT shard, max(time) FROM ",
                ours!("owed"),
                " WHERE shard IN (SELECT shard FROM ",
                ours!("stray"),
                " WHERE place = 2) GROUP BY shard"
            ))
            .and_then(|mut statement| statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect())
            .doing(KEEPING)?;
        self.unread.extend(unread.into_iter().map(|(shard, time)| (shard, time.cast_unsigned())));
        Ok(())
    }

    /// Lets go of what is kept where all that was missing has come after all.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn settle_owed(&mut self) -> Result<(), Error> {
        if self.owed.is_empty() {
            return Ok(());
        }
        let come: Vec<(Shard, Origin)> = self
            .owed
            .iter()
            .filter(|((shard, origin), number)| self.ledger.received(*shard, *origin) >= **number)
            .map(|(of, _)| *of)
            .collect();
        if !come.is_empty() {
            self.transaction(|db| {
                for (shard, origin) in come {
                    db.conn
                        .prepare_cached(concat!(
                            "DELETE FROM ",
                            ours!("owed"),
                            " WHERE shard = ?1 AND node = ?2 AND incarnation = ?3"
                        ))
                        .and_then(|mut statement| {
                            statement.execute((shard, origin.node.cast_signed(), origin.incarnation.cast_signed()))
                        })
                        .doing(KEEPING)?;
                }
                db.conn
                    .execute(
                        concat!(
                            "DELETE FROM ",
                            ours!("stray"),
                            " WHERE shard NOT IN (SELECT shard FROM ",
                            ours!("owed"),
                            ")"
                        ),
                        [],
                    )
                    .doing(KEEPING)?;
                Ok(())
            })?;
        }
        // Another process may have given up on some.
        self.read_owed()
    }

    /// Whether all has come that these batches were made upon, or will never come.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn has_received(&self, shard: Shard, deps: &[(Origin, u64)]) -> Result<bool, Error> {
        for (origin, number) in deps {
            if self.ledger.received(shard, *origin) < *number && !self.has_given_up(shard, *origin, *number)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether batches wait for what others are to send again.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn is_held_back(&self) -> Result<bool, Error> {
        if self.owed.is_empty() {
            return Ok(false);
        }
        for shard in 1..=self.shards() {
            for deps in outbox::made_upon(&self.conn, shard, self.echoed(shard))? {
                if !self.has_received(shard, &deps)? {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    fn has_given_up(&self, shard: Shard, origin: Origin, number: u64) -> Result<bool, Error> {
        self.conn
            .prepare_cached(concat!(
                "SELECT EXISTS (SELECT 1 FROM ",
                ours!("owed"),
                " WHERE shard = ?1 AND node = ?2 AND incarnation = ?3 AND number >= ?4 AND given_up IS NOT NULL)"
            ))
            .and_then(|mut statement| {
                let (node, incarnation) = (origin.node.cast_signed(), origin.incarnation.cast_signed());
                statement.query_row((shard, node, incarnation, number.cast_signed()), |row| row.get(0))
            })
            .doing("read what will never come")
    }
}

/// What is owed, and was not given up on.
fn read(conn: &Connection) -> Result<Owed, Error> {
    const READING: &str = "read what others are to send again";
    let mut statement = conn
        .prepare_cached(concat!(
            "SELECT shard, node, incarnation, number FROM ",
            ours!("owed"),
            " WHERE given_up IS NULL"
        ))
        .doing(READING)?;
    let mut rows = statement.query([]).doing(READING)?;
    let mut owed = Owed::new();
    while let Some(row) = rows.next().doing(READING)? {
        let origin = Origin { node: unsigned(row, 1).doing(READING)?, incarnation: unsigned(row, 2).doing(READING)? };
        owed.insert((row.get(0).doing(READING)?, origin), unsigned(row, 3).doing(READING)?);
    }
    Ok(owed)
}
