//! One unit of the log takes effect: the fold's rules, on SQLite.
//!
//! A key that is pending here keeps T's row, and the log's row goes behind it as its shadow; any other key
//! is written. Tables held to a UNIQUE index besides the primary key take the longer way: first every key of
//! the unit leaves, then all images come in, and whoever holds a value that an image brings is evicted.

use super::catalog::Tracked;
use super::ledger::ours;
use super::overlay::{Image, Shadow, drop_shadow, store_shadow};
use super::recent::Keys;
use super::values::{bind, values};
use super::{Database, Doing as _, Error};
use crate::log::Shard;
use antiphon_core::codec;
use antiphon_core::entry::{Changes, Chunk, Origin};
use antiphon_core::hash::PluginError;
use antiphon_core::resolve::{Cause, Clash, Side, Stamp, Verdict};
use antiphon_core::schema::quote;
use antiphon_core::value::{Row, Value};
use rusqlite::Connection;
use rustc_hash::FxHashMap;

/// Clashes put to the resolver in one call.
const CLASHES_MAX: usize = 512;

/// Whose unit it is, and where it takes effect.
pub(super) struct Unit {
    pub(super) shard: Shard,
    pub(super) seq: u64,
    pub(super) origin: Origin,
    pub(super) number: u64,
}

/// One change in local terms.
struct Change {
    key: Box<[u8]>,
    /// The key's values, in key order.
    key_values: Row,
    /// `None` = gone.
    image: Option<Image>,
    seen: u64,
}

/// The changes of one table within a unit, each key once.
struct TableChanges {
    index: usize,
    changes: Vec<Change>,
    /// UNIQUE indexes the origin holds the table to: local positions of columns, with collations.
    uniques: Vec<Vec<(usize, String)>>,
}

impl Database {
    /// Applies one whole unit; gives the number of its changes.
    pub(super) fn apply_unit(&mut self, unit: &Unit, pieces: Vec<Changes>) -> Result<usize, Error> {
        let tables = self.localise(pieces);
        let mut touched = Vec::with_capacity(tables.len());
        let mut count = 0;
        for mut table in tables {
            count += table.changes.len();
            self.complete(&mut table)?;
            let Some(tracked) = self.tables.get(table.index) else { continue };
            let id = tracked.id;
            let mut keys = Keys::new(id);
            for change in &table.changes {
                keys.push(&change.key, change.image.is_none());
            }
            let clashes = self.clashes(unit, &table)?;
            self.resolve(unit, &table, &clashes)?;
            let held = |tracked: &Tracked| !table.uniques.is_empty() || !tracked.table.uniques.is_empty();
            if !self.tables.get(table.index).is_some_and(held) || crate::flaw!(ReplaceApply) {
                self.apply_plain(unit, table)?;
            } else {
                self.apply_unique(unit, table)?;
            }
            touched.push(keys);
        }
        self.recent.note(unit.shard, unit.seq, unit.origin, touched);
        Ok(count)
    }

    /// Maps names to the local schema, and leaves each key of the unit once: its first `seen`, its last image.
    fn localise(&self, pieces: Vec<Changes>) -> Vec<TableChanges> {
        let several = pieces.len() > 1;
        let mut tables: Vec<TableChanges> = Vec::new();
        let mut places: FxHashMap<(usize, Box<[u8]>), usize> = FxHashMap::default();
        for piece in pieces {
            for chunk in piece.chunks {
                let Some(index) = self.tracked(&chunk.table) else { continue };
                let Some(tracked) = self.tables.get(index) else { continue };
                let columns: Vec<usize> = chunk.columns.iter().filter_map(|name| tracked.table.column(name)).collect();
                let uniques = chunk.uniques.iter().map(|unique| {
                    unique.iter().filter_map(|(at, collation)| Some((*columns.get(*at)?, collation.clone()))).collect()
                });
                let uniques: Vec<Vec<(usize, String)>> = uniques.collect();
                let at = tables.iter().position(|table| table.index == index).unwrap_or_else(|| {
                    tables.push(TableChanges { index, changes: Vec::new(), uniques: Vec::new() });
                    tables.len() - 1
                });
                let Some(table) = tables.get_mut(at) else { continue };
                table.uniques = uniques;
                for change in localise_chunk(tracked, chunk, &columns, piece.seen) {
                    if !several {
                        table.changes.push(change);
                        continue;
                    }
                    let next = table.changes.len();
                    match places.entry((index, change.key.clone())) {
                        std::collections::hash_map::Entry::Vacant(place) => {
                            place.insert(next);
                            table.changes.push(change);
                        }
                        std::collections::hash_map::Entry::Occupied(place) => {
                            if let Some(earlier) = table.changes.get_mut(*place.get()) {
                                (earlier.image, earlier.key_values) = (change.image, change.key_values);
                            }
                        }
                    }
                }
            }
        }
        tables
    }

    /// Columns that the origin lacks keep what L has, which may stand in a shadow and not in T. Where L's row is
    /// not known, as behind a pending one, they are left open: the row that is pending came from wherever it was last.
    fn complete(&mut self, table: &mut TableChanges) -> Result<(), Error> {
        let Some(tracked) = self.tables.get(table.index) else { return Ok(()) };
        let overlay = self.overlay.table(tracked.id);
        let is_open = |change: &&mut Change| change.image.as_ref().is_some_and(|image| image.contains(&None));
        for change in table.changes.iter_mut().filter(is_open) {
            let row = logged_row(&self.conn, tracked, overlay, change)?;
            for (slot, kept) in change.image.iter_mut().flatten().zip(row.into_iter().flatten()) {
                if slot.is_none() && !crate::flaw!(ColumnForgotten) {
                    *slot = kept;
                }
            }
        }
        Ok(())
    }

    /// Changes whose origin had not seen another's latest change to the same key.
    fn clashes(&mut self, unit: &Unit, table: &TableChanges) -> Result<Vec<(usize, Origin)>, Error> {
        let Some(tracked) = self.tables.get(table.index) else { return Ok(Vec::new()) };
        let lowest = table.changes.iter().map(|change| change.seen).min().unwrap_or(unit.seq);
        if !self.recent.unseen(unit.shard, unit.origin, lowest) {
            return Ok(Vec::new());
        }
        let recent = &mut self.recent;
        let found = table.changes.iter().enumerate().filter_map(|(index, change)| {
            let unseen = recent.clash(unit.shard, unit.origin, change.seen, tracked.id, &change.key)?;
            // Two deletes agree. The log alone says so: of a pending key this node may not know L's row.
            (!unseen.gone || change.image.is_some()).then_some((index, unseen.origin))
        });
        Ok(found.collect())
    }

    /// Asks the resolver about every clash over a key, and records what was overruled.
    fn resolve(&mut self, unit: &Unit, table: &TableChanges, clashes: &[(usize, Origin)]) -> Result<(), Error> {
        let clashing: Vec<_> = clashes.iter().filter_map(|(at, loser)| Some((table.changes.get(*at)?, loser.node))).collect();
        self.ask(unit, table.index, Cause::SameKey, clashing.iter().map(|(change, _)| *change))?;
        for (change, loser) in clashing {
            let Some(tracked) = self.tables.get(table.index) else { continue };
            let current = logged_row(&self.conn, tracked, self.overlay.table(tracked.id), change)?;
            // Where both wrote the same, nobody was overruled.
            if !stands(current.as_ref(), change.image.as_ref()) {
                record(&self.conn, unit, tracked, Cause::SameKey, change, loser, current.as_ref())?;
            }
        }
        Ok(())
    }

    /// Puts clashes to the resolver component. The default one needs to see neither row.
    fn ask<'a>(
        &mut self,
        unit: &Unit,
        index: usize,
        cause: Cause,
        changes: impl Iterator<Item = &'a Change>,
    ) -> Result<(), Error> {
        let table = u32::try_from(index).map_err(|_| Error::Inconsistent("more tables than numbers".to_owned()))?;
        let incoming = Stamp { node: 1, clock: 0, seq: unit.seq };
        let clashes: Vec<Clash> = changes
            .map(|change| Clash {
                table,
                key: change.key_values.clone(),
                cause,
                base: None,
                current: Side::default(),
                incoming: Side { stamp: incoming, row: change.image.as_ref().map(whole_row) },
            })
            .collect();
        for batch in clashes.chunks(CLASHES_MAX) {
            let verdicts = self.resolver.resolve(batch)?;
            // Clashes of such tables are found by a bounded memory, so their outcome must not depend on being asked.
            if verdicts.len() != batch.len() || verdicts.iter().any(|verdict| *verdict != Verdict::Take) {
                return Err(PluginError(format!(
                    "the resolver of default tables gave {} answers to {} clashes, and only `take` is sound there",
                    verdicts.len(),
                    batch.len()
                ))
                .into());
            }
        }
        Ok(())
    }

    /// Tables without a UNIQUE index besides the key: one upsert or delete a change, none for an undisturbed echo.
    fn apply_plain(&mut self, unit: &Unit, table: TableChanges) -> Result<(), Error> {
        let Self { conn, overlay, tables, origin, .. } = self;
        let Some(tracked) = tables.get(table.index) else { return Ok(()) };
        let overlay = overlay.table(tracked.id);
        let own = unit.origin == *origin;
        let mut writer = Writer::new(conn, tracked);
        for change in table.changes {
            let mut echoed = false;
            if let Some(&number) = overlay.pending.get(&change.key) {
                if own && number <= unit.number && !crate::flaw!(EchoIgnored) {
                    overlay.pending.remove(&change.key);
                    echoed = true;
                } else if !crate::flaw!(NoShadow) {
                    let seen = overlay.shadows.get(&change.key).map_or(unit.seq - 1, |shadow| shadow.seen);
                    let shadow = Shadow { image: change.image, seen };
                    store_shadow(conn, tracked, &change.key, &shadow)?;
                    overlay.shadows.insert(change.key, shadow);
                    continue;
                }
            }
            if overlay.shadows.remove(&change.key).is_some() {
                drop_shadow(conn, tracked, &change.key)?;
            } else if echoed {
                // T shows this image since it was sealed, and nothing came between.
                continue;
            }
            writer.write(&change.key_values, change.image.as_ref())?;
        }
        Ok(())
    }

    /// Tables with UNIQUE indexes: decided on L's images, then written in two passes.
    fn apply_unique(&mut self, unit: &Unit, table: TableChanges) -> Result<(), Error> {
        let own = unit.origin == self.origin;
        let Some(tracked) = self.tables.get(table.index).cloned() else { return Ok(()) };
        let overlay = self.overlay.table(tracked.id);
        let mut touched: Vec<Box<[u8]>> = Vec::with_capacity(table.changes.len());
        // Pass 1: every key of the unit leaves L.
        for change in &table.changes {
            if own && overlay.pending.get(&change.key).is_some_and(|&number| number <= unit.number) && !crate::flaw!(EchoIgnored) {
                overlay.pending.remove(&change.key);
            }
            set(&mut overlay.shadows, &change.key, None, unit.seq);
            touched.push(change.key.clone());
        }
        let mut held = Holders::new(&table.uniques, &overlay.shadows);
        // Pass 2: the images come in, in their order; whoever holds a value of theirs goes.
        for change in table.changes {
            if let Some(image) = &change.image {
                let overlay = self.overlay.table(tracked.id);
                for holder in held.find(&self.conn, &tracked, overlay, &change.key, image)? {
                    let loser = holder.image;
                    let overlay = self.overlay.table(tracked.id);
                    held.forget(&holder.key, overlay.shadows.get(&holder.key));
                    set(&mut overlay.shadows, &holder.key, None, unit.seq);
                    touched.push(holder.key);
                    self.ask(unit, table.index, Cause::UniqueIndex, std::iter::once(&change))?;
                    record(&self.conn, unit, &tracked, Cause::UniqueIndex, &change, 0, Some(&loser))?;
                }
            }
            held.remember(&change.key, change.image.as_ref());
            let overlay = self.overlay.table(tracked.id);
            set(&mut overlay.shadows, &change.key, change.image, unit.seq);
        }
        self.materialise(&tracked, touched)
    }

    /// Rows that were hidden behind a pending one's UNIQUE value are tried again at the end of every transaction.
    pub(super) fn retry_hidden(&mut self, _shard: Shard) -> Result<(), Error> {
        for index in 0..self.tables.len() {
            let Some(tracked) = self.tables.get(index) else { continue };
            if tracked.table.uniques.is_empty() || crate::flaw!(HiddenForgotten) {
                continue;
            }
            let overlay = self.overlay.table(tracked.id);
            let hidden: Vec<_> = overlay.shadows.keys().filter(|&key| !overlay.pending.contains_key(key)).cloned().collect();
            if !hidden.is_empty() {
                let tracked = tracked.clone();
                self.materialise(&tracked, hidden)?;
            }
        }
        Ok(())
    }

    /// Brings T to L for keys that are not pending; stores the shadows of those that are.
    fn materialise(&mut self, tracked: &Tracked, mut touched: Vec<Box<[u8]>>) -> Result<(), Error> {
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
            if same(shadow.image.as_ref(), row.as_ref()) {
                drop_shadow(conn, tracked, &key)?;
                overlay.shadows.remove(&key);
            } else {
                free.push((key, key_values, row));
            }
        }
        let mut writer = Writer::new(conn, tracked);
        for (_, key_values, row) in &free {
            if row.is_some() && !crate::flaw!(PassOneSkipped) {
                writer.write(key_values, None)?;
            }
        }
        for (key, key_values, row) in free {
            let Some(shadow) = overlay.shadows.get_mut(&key) else { continue };
            let Some(image) = &mut shadow.image else {
                drop_shadow(conn, tracked, &key)?;
                overlay.shadows.remove(&key);
                continue;
            };
            // Columns that only this node has keep their values.
            if let Some(row) = row {
                for (slot, kept) in image.iter_mut().zip(row) {
                    slot.get_or_insert(kept);
                }
            }
            if blocked(conn, tracked, image)? {
                store_shadow(conn, tracked, &key, shadow)?;
                continue;
            }
            writer.write(&key_values, Some(image))?;
            drop_shadow(conn, tracked, &key)?;
            overlay.shadows.remove(&key);
        }
        Ok(())
    }
}

/// Keeps what was overruled, by whom, and both rows.
fn record(
    conn: &Connection,
    unit: &Unit,
    tracked: &Tracked,
    cause: Cause,
    change: &Change,
    loser: u64,
    overruled: Option<&Image>,
) -> Result<(), Error> {
    let columns: Vec<Value> = tracked.table.columns.iter().map(|column| Value::from(column.name.as_str())).collect();
    let stored = |image: Option<&Image>| image.map(|image| codec::encode_row(&whole_row(image)));
    let cause = match cause {
        Cause::SameKey => "same-key",
        Cause::UniqueIndex => "unique-index",
    };
    conn.prepare_cached(concat!(
        "INSERT INTO ", ours!("conflict"), " (shard, seq, tbl, key, cause, resolver, verdict, winner_node, loser_node,
         columns, winner, loser) VALUES (?1, ?2, ?3, ?4, ?5, 'last-write-wins', 'take', ?6, ?7, ?8, ?9, ?10)"
    ))
    .and_then(|mut statement| {
        statement.execute((
            unit.shard,
            unit.seq.cast_signed(),
            &tracked.table.name,
            codec::encode_row(&change.key_values),
            cause,
            unit.origin.node.cast_signed(),
            loser.cast_signed(),
            codec::encode_row(&columns),
            stored(change.image.as_ref()),
            stored(overruled),
        ))
    })
    .doing("record a clash")?;
    tracing::debug!(table = tracked.table.name, cause, winner = unit.origin.node, loser, "clash resolved");
    Ok(())
}

/// L's row of this key is this, from now on.
fn set(shadows: &mut FxHashMap<Box<[u8]>, Shadow>, key: &[u8], image: Option<Image>, seq: u64) {
    match shadows.get_mut(key) {
        Some(shadow) => shadow.image = image,
        None => {
            shadows.insert(key.into(), Shadow { image, seen: seq - 1 });
        }
    }
}

fn localise_chunk<'a>(
    tracked: &'a Tracked,
    chunk: Chunk,
    columns: &'a [usize],
    seen: u64,
) -> impl Iterator<Item = Change> + 'a {
    let exceptions: FxHashMap<usize, u64> = chunk.seen.iter().copied().collect();
    let width = tracked.table.columns.len();
    let straight = columns.iter().copied().eq(0..width);
    let (written_len, row_width) = (chunk.written.len(), chunk.written.width());
    let mut values = chunk.written.into_values().into_iter();
    let written = (0..written_len).map(move |_| {
        let row = values.by_ref().take(row_width);
        let image: Image = if straight {
            row.map(Some).collect()
        } else {
            let mut image = vec![None; width];
            for (value, &column) in row.zip(columns) {
                if let Some(slot) = image.get_mut(column) {
                    *slot = Some(value);
                }
            }
            image
        };
        let key_values: Row = tracked.key.iter().filter_map(|&position| image.get(position)?.clone()).collect();
        (key_values, Some(image))
    });
    let gone_width = chunk.gone.width();
    let gone_len = chunk.gone.len();
    let mut gone_values = chunk.gone.into_values().into_iter();
    let gone = (0..gone_len).map(move |_| (gone_values.by_ref().take(gone_width).collect::<Row>(), None));
    written.chain(gone).enumerate().map(move |(index, (key_values, image))| {
        let mut key = Vec::new();
        tracked.encoder.write(&mut key, key_values.iter());
        let seen = exceptions.get(&index).copied().unwrap_or(seen);
        Change { key: key.into_boxed_slice(), key_values, image, seen }
    })
}

fn whole_row(image: &Image) -> Row {
    image.iter().map(|value| value.clone().unwrap_or_default()).collect()
}

/// Whether T's row shows the image, in the columns that the image has.
fn same(image: Option<&Image>, row: Option<&Row>) -> bool {
    match (image, row) {
        (None, None) => true,
        (Some(image), Some(row)) => image.iter().zip(row).all(|(wanted, found)| wanted.as_ref().is_none_or(|wanted| wanted == found)),
        _ => false,
    }
}

/// Whether a row is there as it comes, in the columns that come.
fn stands(current: Option<&Image>, image: Option<&Image>) -> bool {
    let (Some(current), Some(image)) = (current, image) else { return false };
    image.iter().zip(current).all(|(wanted, found)| wanted.is_none() || wanted == found)
}

/// The key's values out of its canonical bytes: equal for SQLite to those it was made from.
fn key_values(key: &[u8]) -> Result<Row, Error> {
    let mut reader = antiphon_core::cbor::Reader::new(key);
    let mut values = Vec::new();
    while reader.remaining() > 0 {
        values.push(reader.value().map_err(|error| Error::Inconsistent(format!("a key cannot be read: {error}")))?);
    }
    Ok(values)
}

fn key_filter(tracked: &Tracked, first: usize) -> String {
    let names = tracked.key.iter().filter_map(|&position| tracked.table.columns.get(position));
    names.enumerate().map(|(n, column)| format!("{} = ?{}", quote(&column.name), n + first)).collect::<Vec<_>>().join(" AND ")
}

fn column_list(tracked: &Tracked) -> String {
    tracked.table.columns.iter().map(|column| quote(&column.name)).collect::<Vec<_>>().join(", ")
}

/// T's whole row of a key.
fn whole(conn: &Connection, tracked: &Tracked, key: &[Value]) -> Result<Option<Row>, Error> {
    const READING: &str = "read a row";
    let sql = format!("SELECT {} FROM main.{} WHERE {}", column_list(tracked), quote(&tracked.table.name), key_filter(tracked, 1));
    let mut statement = conn.prepare_cached(&sql).doing(READING)?;
    bind(&mut statement, 1, key.iter()).doing(READING)?;
    let mut rows = statement.raw_query();
    match rows.next().doing(READING)? {
        Some(row) => Ok(Some(values(row, 0, tracked.table.columns.len()).doing(READING)?)),
        None => Ok(None),
    }
}

/// L's row of a key: the shadow if there is one, else T's row; but T's row of a pending key is P, and then L's is
/// not known here.
fn logged_row(
    conn: &Connection,
    tracked: &Tracked,
    overlay: &super::overlay::TableOverlay,
    change: &Change,
) -> Result<Option<Image>, Error> {
    match overlay.shadows.get(&change.key) {
        Some(shadow) => Ok(shadow.image.clone()),
        None if overlay.pending.contains_key(&change.key) => Ok(None),
        None => Ok(whole(conn, tracked, &change.key_values)?.map(|row| row.into_iter().map(Some).collect())),
    }
}

/// Whether T holds one of the image's UNIQUE values: by a pending row then, for all others have made room.
fn blocked(conn: &Connection, tracked: &Tracked, image: &Image) -> Result<bool, Error> {
    for unique in tracked.table.uniques.iter().filter(|unique| !unique.partial) {
        if !holders(conn, tracked, &unique.columns, image)?.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Keys of T's rows that hold the image's value of this index.
fn holders(conn: &Connection, tracked: &Tracked, unique: &[(usize, String)], image: &Image) -> Result<Vec<Row>, Error> {
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
struct Holder {
    key: Box<[u8]>,
    image: Image,
}

/// Which shadow holds which UNIQUE value: what SQLite's own indexes can't tell, for shadows are not in T.
struct Holders<'a> {
    uniques: &'a [Vec<(usize, String)>],
    by_value: FxHashMap<(usize, Vec<u8>), Box<[u8]>>,
}

impl<'a> Holders<'a> {
    fn new(uniques: &'a [Vec<(usize, String)>], shadows: &FxHashMap<Box<[u8]>, Shadow>) -> Self {
        let mut holders = Self { uniques, by_value: FxHashMap::default() };
        for (key, shadow) in shadows {
            holders.remember(key, shadow.image.as_ref());
        }
        holders
    }

    fn slots(&self, image: &Image) -> Vec<(usize, Vec<u8>)> {
        let slot = |(index, unique): (usize, &Vec<(usize, String)>)| {
            let mut bytes = Vec::new();
            for (position, collation) in unique {
                let value = image.get(*position)?.as_ref().filter(|value| **value != Value::Null)?;
                antiphon_core::key::write_folded(&mut bytes, collation, value);
            }
            Some((index, bytes))
        };
        self.uniques.iter().enumerate().filter_map(slot).collect()
    }

    fn remember(&mut self, key: &[u8], image: Option<&Image>) {
        for slot in image.map(|image| self.slots(image)).unwrap_or_default() {
            self.by_value.insert(slot, key.into());
        }
    }

    fn forget(&mut self, key: &[u8], shadow: Option<&Shadow>) {
        for slot in shadow.and_then(|shadow| shadow.image.as_ref()).map(|image| self.slots(image)).unwrap_or_default() {
            if self.by_value.get(&slot).is_some_and(|holder| **holder == *key) {
                self.by_value.remove(&slot);
            }
        }
    }

    /// Everyone but `key` whose image in L holds a UNIQUE value of `image`.
    fn find(
        &self,
        conn: &Connection,
        tracked: &Tracked,
        overlay: &super::overlay::TableOverlay,
        key: &[u8],
        image: &Image,
    ) -> Result<Vec<Holder>, Error> {
        let mut found: Vec<Holder> = Vec::new();
        for slot in self.slots(image) {
            let Some(holder) = self.by_value.get(&slot).filter(|holder| ***holder != *key) else { continue };
            let Some(image) = overlay.shadows.get(holder).and_then(|shadow| shadow.image.clone()) else { continue };
            if !found.iter().any(|known| known.key == *holder) {
                found.push(Holder { key: holder.clone(), image });
            }
        }
        for unique in self.uniques {
            for values in holders(conn, tracked, unique, image)? {
                let mut holder = Vec::new();
                tracked.encoder.write(&mut holder, values.iter());
                let holder = holder.into_boxed_slice();
                // Pending rows are P, not L; shadowed ones have spoken above.
                let is_pending = overlay.pending.contains_key(&holder) && !crate::flaw!(PendingEvicted);
                let is_l = !is_pending && !overlay.shadows.contains_key(&holder);
                if !is_l || *holder == *key || found.iter().any(|known| known.key == holder) {
                    continue;
                }
                if let Some(row) = whole(conn, tracked, &values)? {
                    found.push(Holder { key: holder, image: row.into_iter().map(Some).collect() });
                }
            }
        }
        Ok(found)
    }
}

/// Writes rows of one table; statements are made once for each set of columns.
struct Writer<'a> {
    conn: &'a Connection,
    tracked: &'a Tracked,
    upsert: Option<(Vec<bool>, rusqlite::CachedStatement<'a>)>,
    delete: Option<rusqlite::CachedStatement<'a>>,
}

impl<'a> Writer<'a> {
    fn new(conn: &'a Connection, tracked: &'a Tracked) -> Self {
        Self { conn, tracked, upsert: None, delete: None }
    }

    fn write(&mut self, key: &[Value], image: Option<&Image>) -> Result<(), Error> {
        const WRITING: &str = "write a row";
        let Some(image) = image else {
            let statement = match &mut self.delete {
                Some(statement) => statement,
                none => {
                    let sql = format!("DELETE FROM main.{} WHERE {}", quote(&self.tracked.table.name), key_filter(self.tracked, 1));
                    none.insert(self.conn.prepare_cached(&sql).doing(WRITING)?)
                }
            };
            bind(statement, 1, key.iter()).doing(WRITING)?;
            statement.raw_execute().doing(WRITING)?;
            return Ok(());
        };
        let fits = |present: &[bool]| present.iter().zip(image).all(|(present, value)| *present == value.is_some());
        if !self.upsert.as_ref().is_some_and(|(present, _)| fits(present)) {
            let present: Vec<bool> = image.iter().map(Option::is_some).collect();
            let statement = self.conn.prepare_cached(&upsert(self.tracked, &present)).doing(WRITING)?;
            self.upsert = Some((present, statement));
        }
        if let Some((_, statement)) = &mut self.upsert {
            bind(statement, 1, image.iter().flatten()).doing(WRITING)?;
            statement.raw_execute().doing(WRITING)?;
        }
        Ok(())
    }
}

/// Inserts the row or updates just these columns of it: never REPLACE, which would delete and lose the others.
fn upsert(tracked: &Tracked, present: &[bool]) -> String {
    let table = &tracked.table;
    let columns: Vec<_> = table.columns.iter().zip(present).filter(|(_, present)| **present).map(|(column, _)| column).collect();
    let names = columns.iter().map(|column| quote(&column.name)).collect::<Vec<_>>().join(", ");
    let places = (1..=columns.len()).map(|n| format!("?{n}")).collect::<Vec<_>>().join(", ");
    if crate::flaw!(ReplaceApply) {
        return format!("INSERT OR REPLACE INTO main.{} ({names}) VALUES ({places})", quote(&table.name));
    }
    let key = tracked.key.iter().filter_map(|&position| table.columns.get(position));
    let key = key.map(|column| quote(&column.name)).collect::<Vec<_>>().join(", ");
    // Key columns are set, too: 'A' may replace 'a' under NOCASE. A rowid can't differ and be equal.
    let sets = columns.iter().filter(|column| column.pk_position == 0 || !table.rowid_key);
    let sets = sets.map(|column| format!("{0} = excluded.{0}", quote(&column.name))).collect::<Vec<_>>().join(", ");
    let action = if sets.is_empty() { "NOTHING".to_owned() } else { format!("UPDATE SET {sets}") };
    format!("INSERT INTO main.{} ({names}) VALUES ({places}) ON CONFLICT ({key}) DO {action}", quote(&table.name))
}
