//! Tables held to UNIQUE indexes besides the key, or with a policy of their own: decided on L's images, then written
//! in two passes.
//!
//! First every key of the unit leaves L, then all images come in, and whoever holds a value that an image brings
//! is evicted. T follows: all keys that are not pending leave it, then come in again as L has them.

use super::catalog::Tracked;
use super::clash::Overruled;
use super::keyed::Keyed;
use super::overlay::{Image, TableOverlay, drop_shadow, store_shadow};
use super::plain::present;
use super::rows::{Writer, whole};
use super::shadows::Uniques;
use super::stamp::{Stamped, Stamps};
use super::unit::{Change, TableChanges, Unit};
use super::values::{bind, values};
use super::{Database, Doing as _, Error, slices};
use crate::log::Shard;
use antiphon_core::resolve::{Cause, Verdict};
use antiphon_core::schema::quote;
use antiphon_core::value::{Row, Value};
use rusqlite::Connection;

impl Database {
    /// Decides a unit's changes to one table on L's images, and brings T to L; `left_out` are keys of changes that
    /// were overruled.
    pub(super) fn settle(&mut self, unit: &Unit, table: TableChanges, left_out: Vec<Box<[u8]>>) -> Result<(), Error> {
        let Some(tracked) = self.tables.get(table.index).cloned() else { return Ok(()) };
        let overlay = self.overlay.table(tracked.id);
        let mut touched = Vec::new();
        if unit.origin == self.origin {
            for key in table.changes.iter().map(|change| &change.key).chain(&left_out) {
                echo(overlay, key, unit.number);
            }
            touched = left_out;
        }
        if !overlay.displaced.is_empty() {
            for change in &table.changes {
                if overlay.displaced.remove(&change.key) {
                    slices::replace(&self.conn, &tracked, &change.key)?;
                }
            }
        }
        // Pass 1: every key of the unit leaves L.
        for change in &table.changes {
            if !table.uniques.is_empty() {
                overlay.shadows.set(&change.key, None, unit.seq);
            }
            touched.push(change.key.clone());
        }
        // Pass 2: the images come in, in their order; whoever holds a value of theirs goes.
        for change in table.changes {
            if let Some(image) = &change.image {
                let overlay = self.overlay.table(tracked.id);
                for holder in find_holders(&self.conn, &tracked, overlay, &table.uniques, &change.key, image)? {
                    let overlay = self.overlay.table(tracked.id);
                    if unit.sliced && !crate::flaw!(SliceEvicts) {
                        // Whether it is evicted is known when the whole unit is: its own change may follow.
                        slices::displace(&self.conn, unit, &tracked, overlay, &change, &holder)?;
                        touched.push(holder.key);
                        continue;
                    }
                    overlay.shadows.set(&holder.key, None, unit.seq);
                    self.evict(unit, table.index, &tracked, &change, &holder)?;
                    touched.push(holder.key);
                }
            }
            if tracked.rule(unit.shard).resolved {
                let mut stamps = Stamps::new(&self.conn, &tracked);
                let before = stamps.get(&change.key)?;
                stamps.set(&change.key, &Stamped::moved(before, unit.seq, unit.origin, change.clock))?;
            }
            let overlay = self.overlay.table(tracked.id);
            overlay.shadows.set(&change.key, change.image, unit.seq);
        }
        self.materialise(&tracked, touched)
    }

    /// A row leaves L because another brings its UNIQUE value. That goes by the order of the log under any policy:
    /// the resolver of default tables is asked, as of any clash, and can't say otherwise.
    pub(super) fn evict(
        &mut self,
        unit: &Unit,
        index: usize,
        tracked: &Tracked,
        change: &Change,
        holder: &Holder,
    ) -> Result<(), Error> {
        if tracked.rule(unit.shard).resolved {
            let mut stamps = Stamps::new(&self.conn, tracked);
            let before = stamps.get(&holder.key)?;
            stamps.set(&holder.key, &Stamped::moved(before, unit.seq, unit.origin, unit.clock))?;
        } else {
            self.ask(unit, index, Cause::UniqueIndex, std::iter::once(change))?;
        }
        let record = Overruled {
            cause: Cause::UniqueIndex,
            resolver: self.policy_name(tracked.rule(unit.shard).policy),
            verdict: &Verdict::Take,
            parked: None,
            key: &change.key_values,
            winner: (unit.origin.node, change.image.as_ref()),
            loser: (0, Some(&holder.image)),
            merged: None,
        };
        record.store(&self.conn, unit, tracked)
    }

    /// Rows that were hidden behind a pending one's UNIQUE value are tried again at the end of every transaction.
    pub(super) fn retry_hidden(&mut self, _shard: Shard) -> Result<(), Error> {
        if crate::flaw!(HiddenForgotten) {
            return Ok(());
        }
        for index in 0..self.tables.len() {
            // All tables are asked: the index that hid a row may have been dropped since.
            let Some(tracked) = self.tables.get(index) else { continue };
            let overlay = self.overlay.table(tracked.id);
            let hidden: Vec<_> = overlay.shadows.keys().filter(|&key| overlay.is_hidden(key)).map(Box::from).collect();
            if !hidden.is_empty() {
                let tracked = tracked.clone();
                self.materialise(&tracked, hidden)?;
            }
        }
        Ok(())
    }

    /// Brings T to L for keys that are not pending; stores the shadows of those that are.
    pub(super) fn materialise(&mut self, tracked: &Tracked, mut touched: Vec<Box<[u8]>>) -> Result<(), Error> {
        touched.sort_unstable();
        touched.dedup();
        let conn = &self.conn;
        let overlay = self.overlay.table(tracked.id);
        let mut free = Vec::new();
        for key in touched {
            let Some(shadow) = overlay.shadows.get(&key) else { continue };
            if overlay.pending.contains_key(&key) {
                store_shadow(conn, tracked, &key, shadow)?;
                continue;
            }
            let key_values = key_values(&key)?;
            let row = whole(conn, tracked, &key_values)?;
            if !overlay.displaced.contains(&key) && same(shadow.image.as_ref(), row.as_ref()) {
                drop_shadow(conn, tracked, &key)?;
                overlay.shadows.remove(&key);
            } else {
                free.push((key, key_values, row));
            }
        }
        let mut writer = Writer::new(conn, tracked);
        for (_, key_values, row) in &free {
            if row.is_some() && !crate::flaw!(PassOneSkipped) {
                writer.delete(key_values)?;
            }
        }
        for (key, _, row) in free {
            let Some(mut shadow) = overlay.shadows.remove(&key) else { continue };
            if overlay.displaced.contains(&key) {
                store_shadow(conn, tracked, &key, &shadow)?;
                overlay.shadows.insert(key, shadow);
                continue;
            }
            let Some(image) = &mut shadow.image else {
                drop_shadow(conn, tracked, &key)?;
                continue;
            };
            // Columns that only this node has keep their values.
            if let Some(row) = row {
                for (slot, kept) in image.iter_mut().zip(row) {
                    slot.get_or_insert(kept);
                }
            }
            if blocked(conn, tracked, &overlay.pending, image)? {
                store_shadow(conn, tracked, &key, &shadow)?;
                overlay.shadows.insert(key, shadow);
                continue;
            }
            writer.upsert(&present(image), image.iter().flatten())?;
            drop_shadow(conn, tracked, &key)?;
        }
        Ok(())
    }
}

/// An own change came back: unless a later one is on its way, its key is no longer pending.
fn echo(overlay: &mut TableOverlay, key: &[u8], number: u64) {
    if overlay.pending.get(key).is_some_and(|&pending| pending <= number) && !crate::flaw!(EchoIgnored) {
        overlay.pending.remove(key);
        overlay.clocks.remove(key);
    }
}

/// Whether T's row shows the image, in the columns that the image has.
pub(super) fn same(image: Option<&Image>, row: Option<&Row>) -> bool {
    match (image, row) {
        (None, None) => true,
        (Some(image), Some(row)) => {
            image.iter().zip(row).all(|(wanted, found)| wanted.as_ref().is_none_or(|wanted| wanted == found))
        }
        _ => false,
    }
}

/// The key's values out of its canonical bytes: equal for SQLite to those it was made from.
pub(super) fn key_values(key: &[u8]) -> Result<Row, Error> {
    let mut reader = antiphon_core::cbor::Reader::new(key);
    let mut values = Vec::new();
    while reader.remaining() > 0 {
        values.push(reader.value().map_err(|error| Error::Inconsistent(format!("a key cannot be read: {error}")))?);
    }
    Ok(values)
}

/// Whether a pending row of T holds one of the image's UNIQUE values. All others have made room, unless the index
/// is one that only this node has: the write then fails, and the shard stops with SQLite's reason.
fn blocked(conn: &Connection, tracked: &Tracked, pending: &Keyed<u64>, image: &Image) -> Result<bool, Error> {
    let mut holder = Vec::new();
    for unique in tracked.table.uniques.iter().filter(|unique| !unique.partial) {
        for values in holders(conn, tracked, &unique.columns, image)? {
            holder.clear();
            tracked.encoder.write(&mut holder, values.iter());
            if pending.contains_key(holder.as_slice()) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Keys of T's rows that hold the image's value of this index.
pub(super) fn holders(
    conn: &Connection,
    tracked: &Tracked,
    unique: &[(usize, String)],
    image: &Image,
) -> Result<Vec<Row>, Error> {
    const READING: &str = "look up a UNIQUE value";
    let mut terms = Vec::new();
    let mut held = Vec::new();
    for (position, collation) in unique {
        let (Some(column), Some(Some(value))) = (tracked.table.columns.get(*position), image.get(*position)) else {
            return Ok(Vec::new());
        };
        if *value == Value::Null {
            // NULLs are never equal.
            return Ok(Vec::new());
        }
        terms.push(format!("{} = ?{} COLLATE {}", quote(&column.name), terms.len() + 1, quote(collation)));
        held.push(value);
    }
    let keys = tracked.key.iter().filter_map(|&position| tracked.table.columns.get(position));
    let keys = keys.map(|column| quote(&column.name)).collect::<Vec<_>>().join(", ");
    let sql = format!("SELECT {keys} FROM main.{} WHERE {}", quote(&tracked.table.name), terms.join(" AND "));
    let mut statement = conn.prepare_cached(&sql).doing(READING)?;
    bind(&mut statement, 1, held.into_iter()).doing(READING)?;
    let mut rows = statement.raw_query();
    let mut found = Vec::new();
    while let Some(row) = rows.next().doing(READING)? {
        found.push(values(row, 0, tracked.key.len()).doing(READING)?);
    }
    Ok(found)
}

/// Someone who holds a UNIQUE value in L.
pub(super) struct Holder {
    pub(super) key: Box<[u8]>,
    pub(super) image: Image,
}

/// Everyone but `key` whose image in L holds a UNIQUE value of `image`.
fn find_holders(
    conn: &Connection,
    tracked: &Tracked,
    overlay: &mut TableOverlay,
    uniques: &Uniques,
    key: &[u8],
    image: &Image,
) -> Result<Vec<Holder>, Error> {
    let TableOverlay { pending, shadows, displaced, .. } = overlay;
    let shadowed = shadows.holders(uniques, image).into_iter();
    let others = shadowed.filter(|(holder, _)| **holder != *key && !displaced.contains(holder));
    let mut found: Vec<Holder> = others.map(|(key, image)| Holder { key, image }).collect();
    for unique in uniques {
        for values in holders(conn, tracked, unique, image)? {
            let mut holder = Vec::new();
            tracked.encoder.write(&mut holder, values.iter());
            let holder = holder.into_boxed_slice();
            // Pending rows are P, not L; shadowed ones have spoken above.
            let is_pending = pending.contains_key(&holder) && !crate::flaw!(PendingEvicted);
            let is_l = !is_pending && !shadows.contains(&holder);
            if !is_l || *holder == *key || found.iter().any(|known| known.key == holder) {
                continue;
            }
            if let Some(row) = whole(conn, tracked, &values)? {
                found.push(Holder { key: holder, image: row.into_iter().map(Some).collect() });
            }
        }
    }
    // Who is found in a shadow and who in T differs between nodes; the order of records must not.
    found.sort_unstable_by(|one, other| one.key.cmp(&other.key));
    Ok(found)
}
