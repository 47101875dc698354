//! What stands between the application's table and the log: pending keys, and the log's rows behind them.
//!
//! T, what the application sees, is L, what the log says, overlaid with P, what this node wrote and has not
//! yet seen come back. A key in `pending` keeps T's row; L's row of it, if the log has spoken of it
//! meanwhile, is its *shadow*. Pending keys are rebuilt from the outbox, shadows are kept in a table.

use super::attachment::Attachments;
use super::catalog::Tracked;
use super::keyed::Keyed;
use super::ledger::Ledger;
use super::own::{ours, set_meta};
use super::shadows::{Shadow, Shadows};
use super::switch::open;
use super::values::values;
use super::{Doing as _, Error, values};
use crate::log::Shard;
use antiphon_core::codec;
use antiphon_core::entry::{Body, Chunk, Origin};
use antiphon_core::hash::PackedKeys;
use antiphon_core::value::Value;
use rusqlite::Connection;
use rustc_hash::{FxBuildHasher, FxHashSet};
use std::collections::HashMap;
use std::hash::BuildHasher as _;

/// The number of no batch: of rows that are too large for any.
pub(super) const OVERSIZED: u64 = u64::MAX;

/// A table's number for as long as the process lives, whatever happens to the schema.
pub(super) type TableId = usize;

/// A row in the order of the local table's columns; `None` = the writer's table lacks that column.
pub(super) type Image = Vec<Option<Value>>;

/// One table's part.
#[derive(Debug, Default)]
pub(super) struct TableOverlay {
    /// Keys with a change of ours on its way, and the number of the batch it is in.
    pub(super) pending: Keyed<u64>,
    pub(super) shadows: Shadows,
    /// Where the policy asks for stamps: the clock of the newest change of ours to a pending key.
    pub(super) clocks: Keyed<u64>,
    /// Keys that a unit applied in slices took out of T, for another row of it brought a UNIQUE value of theirs. Their
    /// rows stand in the shadows until their own changes come, or the unit ends.
    pub(super) displaced: FxHashSet<Box<[u8]>>,
}

impl TableOverlay {
    /// Whether T lacks L's row of this key, which stands in a shadow, for no other reason than that there was no room.
    pub(super) fn is_hidden(&self, key: &[u8]) -> bool {
        !self.pending.contains_key(key) && !self.displaced.contains(key)
    }
}

/// All tables' parts.
#[derive(Debug, Default)]
pub(super) struct Overlay {
    names: HashMap<String, TableId>,
    tables: Vec<TableOverlay>,
}

impl Overlay {
    /// The number of the table of this name.
    pub(super) fn intern(&mut self, name: &str) -> TableId {
        let next = self.names.len();
        let id = *self.names.entry(name.to_ascii_lowercase()).or_insert(next);
        if id == self.tables.len() {
            self.tables.push(TableOverlay::default());
        }
        id
    }

    /// One table's part.
    ///
    /// # Panics
    /// If the number is not one of [`Overlay::intern`]'s.
    #[expect(clippy::indexing_slicing, reason = "numbers come from `intern`, which makes the part")]
    pub(super) fn table(&mut self, id: TableId) -> &mut TableOverlay {
        &mut self.tables[id]
    }

    /// One table's part, to look at.
    pub(super) fn peek(&self, id: TableId) -> Option<&TableOverlay> {
        self.tables.get(id)
    }

    /// How many keys wait for their echo.
    pub(super) fn pending_len(&self) -> usize {
        self.tables.iter().map(|table| table.pending.len()).sum()
    }

    /// Rebuilds all of it from the file; tables keep their numbers.
    pub(super) fn refill(
        &mut self,
        conn: &Connection,
        ledger: &Ledger,
        me: Origin,
        tables: &[Tracked],
        attachments: &Attachments,
    ) -> Result<(), Error> {
        const READING: &str = "read what is pending";
        self.tables.iter_mut().for_each(|table| *table = TableOverlay::default());
        let mut statement = conn
            .prepare_cached(concat!(
                "SELECT shard, number, batch FROM ",
                ours!("global_change_log"),
                " ORDER BY shard, number"
            ))
            .doing(READING)?;
        let mut rows = statement.query([]).doing(READING)?;
        let mut released = FxHashSet::default();
        while let Some(row) = rows.next().doing(READING)? {
            let shard: Shard = row.get(0).doing(READING)?;
            let number = values::unsigned(row, 1).doing(READING)?;
            let done = if crate::flaw!(ReceivedIsDone) { ledger.received(shard, me) } else { ledger.done(shard, me) };
            if number <= done {
                continue;
            }
            let frame: Vec<u8> = row.get(2).doing(READING)?;
            let entry = codec::decode(&frame).map_err(|error| {
                Error::Inconsistent(format!("batch {number} of the outbox cannot be read: {error}"))
            })?;
            if let Body::Changes(changes) = entry.body {
                let slices = ledger.cursor(shard).filter(|cursor| cursor.origin == me && number <= cursor.number);
                let mut back = match slices {
                    Some(cursor) if number < cursor.piece => usize::MAX,
                    Some(cursor) if number == cursor.piece => cursor.done,
                    _ => 0,
                };
                if crate::flaw!(SlicesPendAgain) {
                    back = 0;
                }
                for chunk in &changes.chunks {
                    let mut is_back = Released { keys: &mut released, first: back, unit: slices.is_some() };
                    self.pend(tables, attachments, chunk, number, &mut is_back);
                    back = back.saturating_sub(chunk.len());
                }
            }
        }
        let mut statement = conn.prepare_cached(concat!("SELECT tbl, key FROM ", ours!("oversized"))).doing(READING)?;
        let mut rows = statement.query([]).doing(READING)?;
        while let Some(row) = rows.next().doing(READING)? {
            let (table, key): (String, Vec<u8>) = (row.get(0).doing(READING)?, row.get(1).doing(READING)?);
            if let Some(tracked) = tables.iter().find(|tracked| tracked.table.name.eq_ignore_ascii_case(&table)) {
                self.table(tracked.id).pending.insert(key.into_boxed_slice(), OVERSIZED);
            }
        }
        let mut statement = conn.prepare_cached(concat!("SELECT tbl, key FROM ", ours!("displaced"))).doing(READING)?;
        let mut rows = statement.query([]).doing(READING)?;
        while let Some(row) = rows.next().doing(READING)? {
            let (table, key): (String, Vec<u8>) = (row.get(0).doing(READING)?, row.get(1).doing(READING)?);
            if let Some(tracked) = tables.iter().find(|tracked| tracked.table.name.eq_ignore_ascii_case(&table)) {
                self.table(tracked.id).displaced.insert(key.into_boxed_slice());
            }
        }
        let mut statement = conn
            .prepare_cached(concat!("SELECT tbl, key, columns, image, seen FROM ", ours!("shadow")))
            .doing(READING)?;
        let mut rows = statement.query([]).doing(READING)?;
        while let Some(row) = rows.next().doing(READING)? {
            let stored = values(row, 0, 4).doing(READING)?;
            let seen = values::unsigned(row, 4).doing(READING)?;
            self.load_shadow(tables, &stored, seen)?;
        }
        Ok(())
    }

    /// Every key of a chunk of ours waits for the echo of this batch, but for those whose change came back in a slice.
    fn pend(
        &mut self,
        tables: &[Tracked],
        attachments: &Attachments,
        chunk: &Chunk,
        number: u64,
        released: &mut Released<'_>,
    ) {
        let named = |name: &str| tables.iter().find(|tracked| tracked.table.name.eq_ignore_ascii_case(name));
        let Some(tracked) = named(&chunk.table).or_else(|| named(attachments.now(&chunk.table)?)) else { return };
        let overlay = self.table(tracked.id);
        let mut clocks = chunk.made.iter().map(|made| made.clock);
        for (at, key) in chunk_keys(tracked, chunk).enumerate() {
            let clock = clocks.next();
            if released.takes(tracked.id, at, &key) {
                continue;
            }
            if let Some(clock) = clock {
                overlay.clocks.insert(key.clone(), clock);
            }
            overlay.pending.insert(key, number);
        }
    }

    fn load_shadow(&mut self, tables: &[Tracked], stored: &[Value], seen: u64) -> Result<(), Error> {
        let damaged = || Error::Inconsistent("a shadow cannot be read".to_owned());
        let [Value::Text(table), Value::Blob(key), Value::Blob(columns), image] = stored else { return Err(damaged()) };
        let name = String::from_utf8_lossy(table);
        let Some(tracked) = tables.iter().find(|tracked| tracked.table.name.eq_ignore_ascii_case(&name)) else {
            return Ok(());
        };
        let image = match image {
            Value::Blob(image) => {
                let mut image = read_image(tracked, columns, image).ok_or_else(damaged)?;
                if tracked.table.resolved {
                    tracked.fill(&mut image);
                }
                Some(image)
            }
            _ => None,
        };
        self.table(tracked.id).shadows.insert(key.as_slice().into(), Shadow { image, seen });
        Ok(())
    }
}

/// Keys of a unit of ours whose changes came back in the slices that are done.
struct Released<'a> {
    keys: &'a mut FxHashSet<(TableId, Box<[u8]>)>,
    /// So many of the chunk's changes, from the first, came back.
    first: usize,
    /// The chunk is of such a unit.
    unit: bool,
}

impl Released<'_> {
    /// Whether a key of the unit came back: its first change stands for the later ones.
    fn takes(&mut self, table: TableId, at: usize, key: &[u8]) -> bool {
        if at < self.first {
            self.keys.insert((table, key.into()));
            return true;
        }
        self.unit && !self.keys.is_empty() && self.keys.contains(&(table, Box::from(key)))
    }
}

/// The canonical keys of a chunk: written first, then gone.
pub(super) fn chunk_keys<'a>(tracked: &'a Tracked, chunk: &'a Chunk) -> impl Iterator<Item = Box<[u8]>> + 'a {
    let canonical = |key: &mut dyn Iterator<Item = &Value>| {
        let mut bytes = Vec::new();
        tracked.encoder.write(&mut bytes, key);
        bytes.into_boxed_slice()
    };
    let written =
        chunk.written.iter().map(move |row| canonical(&mut chunk.key.iter().filter_map(|&position| row.get(position))));
    written.chain(chunk.gone.iter().map(move |key| canonical(&mut key.iter())))
}

/// The same, back to back.
pub(super) fn pack_keys(tracked: &Tracked, chunk: &Chunk) -> PackedKeys {
    let mut packed = PackedKeys::default();
    for row in chunk.written.iter() {
        tracked.encoder.write(&mut packed.bytes, chunk.key.iter().filter_map(|&position| row.get(position)));
        packed.end();
    }
    for key in chunk.gone.iter() {
        tracked.encoder.write(&mut packed.bytes, key.iter());
        packed.end();
    }
    packed
}

/// Short for a key: two may have one.
pub(super) fn hash(table: usize, key: &[u8]) -> u64 {
    FxBuildHasher.hash_one((table, key))
}

/// An image as it is kept in the file: names of its columns, and their values.
pub(super) fn stored_image(tracked: &Tracked, image: Option<&Image>) -> (Vec<u8>, Option<Vec<u8>>) {
    let Some(image) = image else { return (codec::encode_row(&[]), None) };
    let present = tracked.table.columns.iter().zip(image);
    let (columns, values): (Vec<_>, Vec<_>) = present
        .filter_map(|(column, value)| Some((Value::from(column.name.as_str()), value.as_ref()?.clone())))
        .unzip();
    (codec::encode_row(&columns), Some(codec::encode_row(&values)))
}

/// The same, read again; nothing if it is damaged.
pub(super) fn read_image(tracked: &Tracked, columns: &[u8], values: &[u8]) -> Option<Image> {
    let (columns, values) = (codec::decode_row(columns).ok()?, codec::decode_row(values).ok()?);
    let mut image: Image = vec![None; tracked.table.columns.len()];
    for (column, value) in columns.into_iter().zip(values) {
        let Value::Text(column) = column else { return None };
        let position = tracked.table.column(&String::from_utf8_lossy(&column));
        if let Some(slot) = position.and_then(|position| image.get_mut(position)) {
            *slot = Some(value);
        }
    }
    Some(image)
}

/// Writes a shadow to the file.
pub(super) fn store_shadow(conn: &Connection, tracked: &Tracked, key: &[u8], shadow: &Shadow) -> Result<(), Error> {
    if shadow.image.as_ref().is_some_and(|image| image.contains(&None)) {
        // Which columns it lacks is not to be seen any more once the table has others.
        set_meta(conn, &open(&tracked.table.name), 1)?;
    }
    let (columns, image) = stored_image(tracked, shadow.image.as_ref());
    conn.prepare_cached(concat!(
        "INSERT INTO ",
        ours!("shadow"),
        " VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (tbl, key) DO UPDATE SET columns = ?3, image = ?4, seen = ?5"
    ))
    .and_then(|mut statement| statement.execute((&tracked.table.name, key, columns, image, shadow.seen.cast_signed())))
    .doing("store a shadow")?;
    Ok(())
}

/// Removes a shadow from the file.
pub(super) fn drop_shadow(conn: &Connection, tracked: &Tracked, key: &[u8]) -> Result<(), Error> {
    conn.prepare_cached(concat!("DELETE FROM ", ours!("shadow"), " WHERE tbl = ?1 AND key = ?2"))
        .and_then(|mut statement| statement.execute((&tracked.table.name, key)))
        .doing("drop a shadow")?;
    Ok(())
}
