//! One unit of the log takes effect: the fold's rules, on SQLite.
//!
//! A key that is pending here keeps T's row, and the log's row goes behind it as its shadow; any other key
//! is written.

use super::catalog::Tracked;
use super::clash::logged_row;
use super::overlay::{Image, hash, pack_keys};
use super::recent::Keys;
use super::resolved::base_of;
use super::{Database, Error};
use crate::log::Shard;
use antiphon_core::entry::{Changes, Chunk, Made, Origin};
use antiphon_core::value::{Row, Value};
use rustc_hash::FxHashMap;
use std::collections::hash_map::Entry;

/// Whose unit it is, and where it takes effect.
pub(super) struct Unit {
    pub(super) shard: Shard,
    pub(super) seq: u64,
    pub(super) origin: Origin,
    pub(super) number: u64,
    /// Hybrid logical time of its last piece.
    pub(super) clock: u64,
    /// It is applied in slices: some of its changes come in a later transaction.
    pub(super) sliced: bool,
}

/// One change in local terms.
pub(super) struct Change {
    pub(super) key: Box<[u8]>,
    /// The key's values, in key order.
    pub(super) key_values: Row,
    /// `None` = gone.
    pub(super) image: Option<Image>,
    pub(super) seen: u64,
    /// The row it was made upon, where the policy asks.
    pub(super) base: Option<Image>,
    /// Its node did not note what it was made upon: the policy did not ask for that there yet.
    pub(super) baseless: bool,
    /// When it was made.
    pub(super) clock: u64,
}

/// The changes of one table within a unit, each key once.
pub(super) struct TableChanges {
    pub(super) index: usize,
    pub(super) changes: Vec<Change>,
    /// Local positions of the columns that the origin sent.
    pub(super) columns: Vec<usize>,
    /// UNIQUE indexes the origin holds the table to: local positions of columns, with collations.
    pub(super) uniques: Vec<Vec<(usize, String)>>,
}

impl Database {
    /// Applies one whole unit; gives the number of its changes.
    pub(super) fn apply_unit(&mut self, unit: &Unit, mut pieces: Vec<Changes>) -> Result<usize, Error> {
        let mut touched = Vec::new();
        let mut count = 0;
        // Where each key stands in one piece alone, plain tables are written as they came.
        if !self.has_repeats(&pieces) {
            for piece in &mut pieces {
                let mut rest = Vec::new();
                for chunk in std::mem::take(&mut piece.chunks) {
                    match self.try_chunk(unit, &chunk, piece.seen)? {
                        Some(keys) => {
                            count += chunk.len();
                            touched.push(keys);
                        }
                        None => rest.push(chunk),
                    }
                }
                piece.chunks = rest;
            }
        }
        for table in self.localise(pieces, unit.clock) {
            count += table.changes.len();
            let Some(tracked) = self.tables.get(table.index) else { continue };
            if !tracked.rule(unit.shard).resolved {
                let mut keys = Keys::new(tracked.id);
                for change in &table.changes {
                    keys.push(&change.key, change.image.is_none());
                }
                touched.push(keys);
            }
            self.apply_table(unit, table)?;
        }
        self.recent.note(unit.shard, unit.seq, unit.origin, touched);
        Ok(count)
    }

    /// Whether a key may stand in several pieces of a unit.
    fn has_repeats(&self, pieces: &[Changes]) -> bool {
        if pieces.len() < 2 {
            return false;
        }
        let mut hashes = Vec::new();
        for chunk in pieces.iter().flat_map(|piece| &piece.chunks) {
            let Some(index) = self.tracked(&chunk.table) else { continue };
            let Some(tracked) = self.tables.get(index) else { continue };
            hashes.extend(pack_keys(tracked, chunk).iter().map(|key| hash(index, key)));
        }
        hashes.sort_unstable();
        hashes.windows(2).any(|pair| pair.first() == pair.last())
    }

    /// Applies the changes of one table, or those of them that are in a slice.
    pub(super) fn apply_table(&mut self, unit: &Unit, mut table: TableChanges) -> Result<(), Error> {
        self.complete(unit.shard, &mut table)?;
        let Some(tracked) = self.tables.get(table.index) else { return Ok(()) };
        let plain = table.uniques.is_empty() && tracked.table.uniques.is_empty();
        if tracked.rule(unit.shard).resolved {
            return self.apply_resolved(unit, table);
        }
        let clashes = self.clashes(unit, &table)?;
        self.resolve(unit, &table, &clashes)?;
        if plain || crate::flaw!(ReplaceApply) {
            self.apply_plain(unit, table)
        } else {
            self.settle(unit, table, Vec::new())
        }
    }

    /// Applies a chunk at once if nothing about it needs a closer look; gives the keys it touched.
    fn try_chunk(&mut self, unit: &Unit, chunk: &Chunk, seen: u64) -> Result<Option<Keys>, Error> {
        let Some(index) = self.tracked(&chunk.table) else { return Ok(None) };
        let Some(tracked) = self.tables.get(index) else { return Ok(None) };
        let lowest = chunk.seen.iter().map(|(_, seen)| *seen).chain([seen]).min().unwrap_or(seen);
        let plain = chunk.uniques.is_empty() && tracked.table.uniques.is_empty() && !tracked.rule(unit.shard).resolved;
        if !plain || self.recent.unseen(unit.shard, unit.origin, lowest) {
            return Ok(None);
        }
        let columns = local_columns(tracked, chunk);
        if columns.len() < tracked.table.columns.len() && !self.overlay.table(tracked.id).shadows.is_empty() {
            return Ok(None);
        }
        let keys = Keys::of(tracked, chunk);
        self.apply_chunk(unit, index, chunk, &columns, keys.packed())?;
        Ok(Some(keys))
    }

    /// Columns that the origin lacks keep what L has, which may stand in a shadow and not in T. Where L's row is
    /// not known, as behind a pending one, they are left open: the row that is pending came from wherever it was last.
    fn complete(&mut self, shard: Shard, table: &mut TableChanges) -> Result<(), Error> {
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
            if let Some(image) = change.image.as_mut().filter(|_| tracked.rule(shard).resolved) {
                tracked.fill(image);
            }
        }
        Ok(())
    }

    /// Maps names to the local schema, and leaves each key of the unit once: its first `seen` and base, its last image.
    fn localise(&self, pieces: Vec<Changes>, clock: u64) -> Vec<TableChanges> {
        let several = pieces.len() > 1;
        let mut tables: Vec<TableChanges> = Vec::new();
        let mut places: FxHashMap<(usize, Box<[u8]>), usize> = FxHashMap::default();
        for piece in pieces {
            for chunk in piece.chunks {
                let Some(index) = self.tracked(&chunk.table) else { continue };
                let Some(tracked) = self.tables.get(index) else { continue };
                let columns = local_columns(tracked, &chunk);
                let uniques = local_uniques(&chunk, &columns);
                let at = tables.iter().position(|table| table.index == index).unwrap_or_else(|| {
                    tables.push(TableChanges { index, changes: Vec::new(), columns: Vec::new(), uniques: Vec::new() });
                    tables.len() - 1
                });
                let Some(table) = tables.get_mut(at) else { continue };
                table.uniques = uniques;
                table.columns.clone_from(&columns);
                for change in localise_chunk(tracked, chunk, &columns, piece.seen, clock) {
                    if !several {
                        table.changes.push(change);
                        continue;
                    }
                    let next = table.changes.len();
                    match places.entry((index, change.key.clone())) {
                        Entry::Vacant(place) => {
                            place.insert(next);
                            table.changes.push(change);
                        }
                        Entry::Occupied(place) => {
                            if let Some(earlier) = table.changes.get_mut(*place.get()) {
                                (earlier.image, earlier.key_values) = (change.image, change.key_values);
                                earlier.clock = change.clock;
                            }
                        }
                    }
                }
            }
        }
        tables
    }
}

/// Where each column of a chunk stands in the local table; all of them do, or the chunk would not be applied.
pub(super) fn local_columns(tracked: &Tracked, chunk: &Chunk) -> Vec<usize> {
    chunk.columns.iter().filter_map(|name| tracked.table.column(name)).collect()
}

/// The UNIQUE indexes that the origin of a chunk holds the table to, over local columns.
pub(super) fn local_uniques(chunk: &Chunk, columns: &[usize]) -> Vec<Vec<(usize, String)>> {
    let local = |unique: &Vec<(usize, String)>| {
        unique.iter().filter_map(|(at, collation)| Some((*columns.get(*at)?, collation.clone()))).collect()
    };
    chunk.uniques.iter().map(local).collect()
}

/// A row in the order of the local table's columns.
pub(super) fn image_of(tracked: &Tracked, columns: &[usize], row: impl Iterator<Item = Value>) -> Image {
    let mut image = vec![None; tracked.table.columns.len()];
    for (value, &column) in row.zip(columns) {
        if let Some(slot) = image.get_mut(column) {
            *slot = Some(value);
        }
    }
    image
}

pub(super) fn localise_chunk<'a>(
    tracked: &'a Tracked,
    chunk: Chunk,
    columns: &'a [usize],
    seen: u64,
    clock: u64,
) -> impl Iterator<Item = Change> + 'a {
    let exceptions: FxHashMap<usize, u64> = chunk.seen.iter().copied().collect();
    let (written_len, row_width) = (chunk.written.len(), chunk.written.width());
    let mut values = chunk.written.into_values().into_iter();
    let written = (0..written_len).map(move |_| {
        let image = image_of(tracked, columns, values.by_ref().take(row_width));
        let key_values: Row = tracked.key.iter().filter_map(|&position| image.get(position)?.clone()).collect();
        (key_values, Some(image))
    });
    let gone_width = chunk.gone.width();
    let gone_len = chunk.gone.len();
    let mut gone_values = chunk.gone.into_values().into_iter();
    let mut made = chunk.made.into_iter();
    let gone = (0..gone_len).map(move |_| (gone_values.by_ref().take(gone_width).collect::<Row>(), None));
    written.chain(gone).enumerate().map(move |(index, (key_values, image))| {
        let mut key = Vec::new();
        tracked.encoder.write(&mut key, key_values.iter());
        let seen = exceptions.get(&index).copied().unwrap_or(seen);
        let noted = made.next();
        let baseless = noted.is_none();
        let made = noted.unwrap_or(Made { base: None, clock });
        let base = base_of(tracked, columns, made.base);
        Change { key: key.into_boxed_slice(), key_values, image, seen, base, baseless, clock: made.clock }
    })
}

/// An image as a row; what the writer's table lacked is NULL in it.
pub(super) fn whole_row(image: &Image) -> Row {
    image.iter().map(|value| value.clone().unwrap_or_default()).collect()
}
