//! A snapshot comes into the place of what this node had read of the log. What it wrote and has not seen come back stays
//! on top, as if it had been written upon the snapshot.
//!
//! Needed when the log no longer holds what comes next here, or no longer holds what was applied: the snapshot is L at a
//! place that the log still has, and from there on the log is read again. What is pending is decided by the snapshot's
//! watermark alone: a batch that had come back, and that the snapshot lacks, is on its way once more.

use super::catalog::Tracked;
use super::merge::Encoding;
use super::overlay::{Image, TableId, chunk_keys};
use super::own::ours;
use super::recent::Recent;
use super::stray::Owed;
use super::values::unsigned;
use super::{Database, Doing as _, Error, identity, outbox};
use crate::log::{Placement, Shard};
use antiphon_core::codec;
use antiphon_core::entry::{Body, Changes};
use rustc_hash::FxHashMap;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Rows that were written, or deleted, because the snapshot has them otherwise.
    pub rows: u64,
    /// Keys with changes of this node's on top.
    pub pending: u64,
    /// Batches whose changes count as made upon nothing, for what they were made upon is in no log any more.
    pub unfounded: u64,
}

/// What this node has on its way under one key.
pub(super) struct Mine {
    /// The shard of its batches,
    pub(super) shard: Shard,
    /// the place that the oldest of them was made upon,
    pub(super) seen: u64,
    /// and what the newest of them says, with its number.
    pub(super) number: u64,
    pub(super) image: Option<Image>,
}

/// All that this node has on its way, seen from a snapshot.
pub(super) type OnTheWay = FxHashMap<(TableId, Box<[u8]>), Mine>;

impl Database {
    /// Batches of this node's above these numbers, with the place in the log that each was sealed at.
    ///
    /// # Errors
    /// When the outbox can't be read.
    pub fn sealed_at(&self, above: &BTreeMap<Shard, u64>) -> Result<Vec<(Shard, u64, Placement)>, Error> {
        const READING: &str = "read the outbox";
        let mut statement = self
            .conn
            .prepare_cached(concat!(
                "SELECT shard, number, at_seq, at_time, at_checksum FROM ",
                ours!("global_change_log"),
                " ORDER BY shard, number"
            ))
            .doing(READING)?;
        let mut rows = statement.query([]).doing(READING)?;
        let mut found = Vec::new();
        while let Some(row) = rows.next().doing(READING)? {
            let (shard, number) = (row.get(0).doing(READING)?, unsigned(row, 1).doing(READING)?);
            if number > above.get(&shard).copied().unwrap_or(0) {
                let number_at = |column| unsigned(row, column).doing(READING);
                let at = Placement { seq: number_at(2)?, time: number_at(3)?, checksum: number_at(4)? };
                found.push((shard, number, at));
            }
        }
        Ok(found)
    }

    /// Takes over where the rows of tables go that this node has not heard of yet: they can be captured then, and what was
    /// written to them is on its way when `image` comes.
    ///
    /// # Errors
    /// When SQLite refuses; nothing has changed then.
    pub fn learn_routes(&mut self, image: &Self) -> Result<(), Error> {
        let unknown: Vec<(String, bool)> = image
            .ledger
            .routes()
            .filter(|(table, _)| self.ledger.route(table).is_none())
            .map(|(table, whole)| (table.to_owned(), whole))
            .collect();
        if unknown.is_empty() {
            return Ok(());
        }
        self.transaction(|db| {
            for (table, whole) in &unknown {
                db.ledger.set_route(&db.conn, table, *whole)?;
            }
            Ok(())
        })?;
        self.reload()
    }

    /// Takes the rows and the place of `image`, and puts on top what this node wrote and `image` does not have. `logged`
    /// is the last number of this node's that the log holds, shard by shard; `unfounded` are batches above it that were
    /// sealed at a place that the log lost; `owed` is what others are to send again.
    ///
    /// Nothing is done, and nothing given, while a committed write is in no batch: it is to be sealed first.
    ///
    /// # Errors
    /// When SQLite refuses, or the image does not fit these tables; nothing has changed then.
    pub fn restore(
        &mut self,
        image: &Self,
        logged: &BTreeMap<Shard, u64>,
        unfounded: &BTreeSet<(Shard, u64)>,
        owed: &Owed,
    ) -> Result<Option<Restored>, Error> {
        let restored = self.transaction(|db| {
            // What is sealed now would be made upon a place that may be lost, and nobody has looked whether it is.
            if db.refresh_schema()? || db.is_dirty()? || db.is_scanning()? {
                return Ok(None);
            }
            db.fits(image)?;
            db.has_all_of_its_own(image, logged)?;
            let unfounded = db.unfound(unfounded)?;
            fault!("unfounded");
            let mine = db.on_the_way(image)?;
            let kept = db.owe(image, owed)?;
            db.stand_where(image)?;
            fault!("stood-back");
            let mut restored = Restored { pending: db.overlay.pending_len() as u64, unfounded, ..Restored::default() };
            for tracked in db.tables.clone() {
                restored.rows += db.restore_table(image, &tracked, &mine, &kept)?;
            }
            fault!("restored");
            Ok(Some(restored))
        })?;
        self.reload()?;
        Ok(restored)
    }

    /// Whether rows that were there before are still to be marked.
    pub(super) fn is_scanning(&self) -> Result<bool, Error> {
        let scans = concat!("SELECT EXISTS (SELECT 1 FROM ", ours!("scan"), ")");
        self.conn.query_row(scans, [], |row| row.get(0)).doing("look for rows that are not sealed")
    }

    /// Why an image can't come into the place of this database's rows.
    fn fits(&self, image: &Self) -> Result<(), Error> {
        let unfit = |why: String| Err(Error::Inconsistent(why));
        if self.cluster.is_none() || self.cluster != image.cluster {
            return unfit("the snapshot is another cluster's".to_owned());
        }
        if identity::founding(&self.conn)? {
            return unfit("the rows that this node founded the cluster with are not all in the log".to_owned());
        }
        if self.captures && self.tables.iter().any(|tracked| !tracked.captured) {
            return unfit("a table is not captured yet".to_owned());
        }
        if self.attachments.are_compared() {
            return unfit("a table is still to be compared with the log".to_owned());
        }
        if Encoding::of(&self.conn)? != Encoding::of(&image.conn)? {
            return unfit("the snapshot's text is in another encoding than this database's".to_owned());
        }
        self.has_place_for(image)
    }

    /// Why an image has rows that there is no place for here, if so.
    pub(super) fn has_place_for(&self, image: &Self) -> Result<(), Error> {
        let unfit = |why: String| Err(Error::Inconsistent(why));
        for there in &image.tables {
            let (name, wanted) = (&there.table.name, self.options.filter.wants(&there.table.name));
            let Some(here) = self.tracked_exactly(name).and_then(|index| self.tables.get(index)) else {
                if wanted && has_any(image, there, None)? {
                    return unfit(format!("the snapshot has rows in table `{name}`, which is not here: create it"));
                }
                continue;
            };
            for column in there.table.columns.iter().filter(|column| here.table.column(&column.name).is_none()) {
                if has_any(image, there, Some(&column.name))? {
                    return unfit(format!(
                        "the snapshot has values in column `{}` of table `{name}`, which is not here: add it",
                        column.name
                    ));
                }
            }
        }
        Ok(())
    }

    /// What this node had sent and the image lacks must be in the log or in the outbox; else it would be gone.
    fn has_all_of_its_own(&self, image: &Self, logged: &BTreeMap<Shard, u64>) -> Result<(), Error> {
        for shard in 1..=self.shards() {
            let last = self.ledger.next_number(shard, self.origin) - 1;
            let logged = logged.get(&shard).copied().unwrap_or(0);
            let there = logged.max(image.ledger.received(shard, self.origin));
            let above = BTreeMap::from([(shard, there)]);
            let kept: BTreeSet<u64> = self
                .sealed_at(&above)?
                .into_iter()
                .filter(|(of, ..)| *of == shard)
                .map(|(_, number, _)| number)
                .collect();
            if let Some(number) = (there + 1..=last).find(|number| !kept.contains(number)) {
                return Err(Error::Inconsistent(format!(
                    "batch {number} of shard {shard} is neither in the log nor kept here any more"
                )));
            }
        }
        Ok(())
    }

    /// Changes made upon what no log has any more count as made upon nothing: another entry may stand in that place.
    fn unfound(&mut self, batches: &BTreeSet<(Shard, u64)>) -> Result<u64, Error> {
        const WRITING: &str = "write a batch anew";
        for &(shard, number) in batches {
            let read = self
                .conn
                .prepare_cached(concat!(
                    "SELECT batch FROM ",
                    ours!("global_change_log"),
                    " WHERE shard = ?1 AND number = ?2"
                ))
                .and_then(|mut statement| {
                    statement.query_row((shard, number.cast_signed()), |row| row.get::<_, Vec<u8>>(0))
                });
            let mut entry = codec::decode(&read.doing(WRITING)?).map_err(|error| unreadable(number, &error))?;
            if let Body::Changes(Changes { seen, chunks, .. }) = &mut entry.body {
                *seen = 0;
                chunks.iter_mut().for_each(|chunk| chunk.seen.clear());
            }
            let frame = self.encoder.encode(&entry).map_err(Error::Encode)?;
            self.conn
                .prepare_cached(concat!(
                    "UPDATE ",
                    ours!("global_change_log"),
                    " SET batch = ?3, checksum = ?4, at_seq = 0, at_time = 0, at_checksum = 0
                     WHERE shard = ?1 AND number = ?2"
                ))
                .and_then(|mut statement| {
                    statement.execute((shard, number.cast_signed(), &frame, codec::checksum(&frame).cast_signed()))
                })
                .doing(WRITING)?;
        }
        Ok(batches.len() as u64)
    }

    /// Of each key that will be pending, where its oldest change stands and what its newest one says.
    fn on_the_way(&mut self, image: &Self) -> Result<OnTheWay, Error> {
        const READING: &str = "read what is pending";
        let mut mine = OnTheWay::default();
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
            let (shard, number): (Shard, u64) = (row.get(0).doing(READING)?, unsigned(row, 1).doing(READING)?);
            if number <= image.ledger.done(shard, self.origin) {
                continue;
            }
            let frame: Vec<u8> = row.get(2).doing(READING)?;
            let entry = codec::decode(&frame).map_err(|error| unreadable(number, &error))?;
            let Body::Changes(mut changes) = entry.body else { continue };
            self.adapt(&mut changes);
            for chunk in &changes.chunks {
                let named =
                    |name: &str| self.tables.iter().find(|tracked| tracked.table.name.eq_ignore_ascii_case(name));
                let renamed = || self.attachments.now(&chunk.table).and_then(named);
                let Some(tracked) = named(&chunk.table).or_else(renamed) else { continue };
                let places: Vec<Option<usize>> = chunk.columns.iter().map(|name| tracked.table.column(name)).collect();
                let written = chunk.written.iter().map(|row| {
                    let mut image: Image = vec![None; tracked.table.columns.len()];
                    for (value, place) in row.iter().zip(&places) {
                        if let Some(slot) = place.and_then(|place| image.get_mut(place)) {
                            *slot = Some(value.clone());
                        }
                    }
                    Some(image)
                });
                let images = written.chain(chunk.gone.iter().map(|_| None));
                for (at, (key, image)) in chunk_keys(tracked, chunk).zip(images).enumerate() {
                    let own = chunk.seen.iter().find(|(index, _)| *index == at).map(|(_, seen)| *seen);
                    let seen = own.unwrap_or(changes.seen);
                    let known = mine.entry((tracked.id, key)).or_insert(Mine { shard, seen, number, image: None });
                    (known.number, known.image) = (number, image);
                }
            }
        }
        Ok(mine)
    }

    /// Takes the image's place in the log, and forgets whatever stood behind pending rows.
    fn stand_where(&mut self, image: &Self) -> Result<(), Error> {
        let captured = self.captured_tables();
        self.adopt(image)?;
        self.conn.execute(concat!("DELETE FROM ", ours!("shadow")), []).doing("forget shadows")?;
        self.recent = Recent::default();
        self.trials.clear();
        self.foresights.clear();
        // Going back is what is wanted here, and nobody else did it.
        self.known_reached.store(0, Ordering::Relaxed);
        self.reload()?;
        for shard in 1..=self.shards() {
            outbox::confirm_only(&self.conn, shard, self.ledger.received(shard, self.origin))?;
        }
        // Other policies may hold there, and what triggers note depends on them.
        self.renew_triggers(&captured)
    }
}

/// Whether a table of an image has any row, or any value in this column.
fn has_any(image: &Database, tracked: &Tracked, column: Option<&str>) -> Result<bool, Error> {
    use antiphon_core::schema::quote;
    let filter = column.map_or(String::new(), |column| format!(" WHERE {} IS NOT NULL", quote(column)));
    let sql = format!("SELECT EXISTS (SELECT 1 FROM main.{}{filter})", quote(&tracked.table.name));
    image.conn.query_row(&sql, [], |row| row.get(0)).doing("read the snapshot")
}

fn unreadable(number: u64, error: &codec::Error) -> Error {
    Error::Inconsistent(format!("batch {number} of the outbox cannot be read: {error}"))
}
