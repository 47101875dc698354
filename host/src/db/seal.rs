//! Seal: dirty keys become numbered batches in the outbox, in one short transaction.
//!
//! What one seal reads is a union of whole commits. A backlog is taken in bounded pieces; each but the one
//! that leaves no mark says that more follows, and receivers apply the pieces of such a unit together.

use super::catalog::Tracked;
use super::ledger::Sealed;
use super::outbox::Unsent;
use super::overlay::{OVERSIZED, TableOverlay, store_shadow};
use super::oversize::{Oversize, oversized_base, row_bytes};
use super::rows::whole;
use super::shadows::Shadow;
use super::stamp::Stamps;
use super::unique::key_values;
use super::unit::whole_row;
use super::values::{owned, size, values};
use super::{Database, Doing as _, Error, SEAL_BYTES_MAX, outbox};
use crate::log::Shard;
use antiphon_core::capture::{change_log, op, reads_rows};
use antiphon_core::entry::{self, Body, Changes, Chunk, Made, Rows};
use antiphon_core::hash::{PackedKeys, PluginError, shard_of};
use antiphon_core::schema::quote;
use antiphon_core::value::{Row, Value};
use rusqlite::types::ValueRef;
use rustc_hash::{FxBuildHasher, FxHashMap};
use std::collections::BTreeMap;
use std::hash::BuildHasher as _;
use std::time::Instant;

/// What is left of the room one seal has.
struct Room {
    changes: usize,
    bytes: usize,
}

/// What was taken of one table, or the part of it that goes to one shard.
struct Taken {
    chunk: Chunk,
    /// The canonical keys of its changes: written first, then gone.
    keys: Vec<Box<[u8]>>,
}

/// Keys taken already: a key is sealed once, however often it was marked.
///
/// Goes by a hash of the key, and looks through all keys where two have one hash.
#[derive(Default)]
struct Seen(FxHashMap<u64, usize>);

impl Seen {
    /// Where `key` stands among `keys`, if it has been taken.
    fn find(&self, key: &[u8], keys: &[Box<[u8]>]) -> Option<usize> {
        let at = *self.0.get(&FxBuildHasher.hash_one(key))?;
        if keys.get(at).is_some_and(|known| **known == *key) {
            return Some(at);
        }
        keys.iter().position(|known| **known == *key)
    }

    /// `key` is taken now, and will be the last of `keys`.
    fn note(&mut self, key: &[u8], keys: &[Box<[u8]>]) {
        self.0.entry(FxBuildHasher.hash_one(key)).or_insert(keys.len());
    }
}

const LOOKING: &str = "look for marks";

impl Database {
    /// Whether any replicated table has marks.
    ///
    /// # Errors
    /// When SQLite can't tell.
    pub fn is_dirty(&self) -> Result<bool, Error> {
        for marked in &self.marked {
            let found = self.conn.prepare_cached(marked).and_then(|mut statement| statement.exists([]));
            if found.doing(LOOKING)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The places of the tables that have marks.
    pub(super) fn marked_tables(&self) -> Result<Vec<usize>, Error> {
        let mut found = Vec::new();
        for marked in &self.marked {
            let mut statement = self.conn.prepare_cached(marked).doing(LOOKING)?;
            let mut rows = statement.query([]).doing(LOOKING)?;
            while let Some(row) = rows.next().doing(LOOKING)? {
                found.push(size(row, 0).doing(LOOKING)?);
            }
        }
        Ok(found)
    }

    /// Seals one piece in a transaction of its own; says whether marks are left.
    ///
    /// # Errors
    /// When SQLite or the hash component fails; nothing is sealed then.
    pub fn seal(&mut self) -> Result<bool, Error> {
        self.refresh_schema()?;
        if self.cluster.is_none() {
            return Ok(false);
        }
        // A table whose triggers are others than it needs now still has marks, and a unit without them is torn.
        self.install(true)?;
        let begun = Instant::now();
        let has_work = self.is_dirty()? || self.has_open_unit();
        self.costs.looked = Some(begun.elapsed());
        if !has_work {
            return Ok(false);
        }
        let begun = Instant::now();
        let sealed = self.transaction(|db| {
            if db.refresh_schema()? {
                // It changed before the lock was ours: a row read by the old columns would lose the new one's value.
                return Ok(true);
            }
            fault!("seal");
            db.seal_piece()
        });
        self.costs.sealed = Some(begun.elapsed());
        sealed
    }

    pub(super) fn has_open_unit(&self) -> bool {
        self.ledger.open_shards(self.shards(), self.origin).next().is_some()
    }

    /// Seals one piece within the transaction at hand; says whether marks are left.
    pub(super) fn seal_piece(&mut self) -> Result<bool, Error> {
        let mut room = Room { changes: self.options.changes_max, bytes: SEAL_BYTES_MAX };
        let mut shards: BTreeMap<Shard, Vec<(usize, Taken)>> = BTreeMap::new();
        let mut more = false;
        for index in self.marked_tables()? {
            if room.changes == 0 || room.bytes == 0 {
                more = true;
                break;
            }
            let Some((taken, left)) = self.take(index, &mut room)? else { continue };
            more |= left;
            fault!("taken");
            for (shard, part) in self.spread(index, taken)? {
                shards.entry(shard).or_default().push((index, part));
            }
        }
        fault!("spread");
        if !more {
            let open: Vec<Shard> = self.ledger.open_shards(self.shards(), self.origin).collect();
            for shard in open {
                shards.entry(shard).or_default();
            }
        }
        let known = if crate::flaw!(ClockFollowsWall) { 0 } else { self.ledger.clock };
        self.ledger.clock = known.max(crate::clock::unix_ms()).saturating_add(1);
        for (shard, chunks) in shards {
            self.push(shard, more && !crate::flaw!(UnitClosedEarly), chunks)?;
            fault!("enqueued");
        }
        fault!("sealed");
        Ok(more)
    }

    /// Takes the oldest marks of one table, and the rows they speak of as they stand; says whether marks are left.
    fn take(&mut self, index: usize, room: &mut Room) -> Result<Option<(Taken, bool)>, Error> {
        const SEALING: &str = "read the changed rows";
        let Some(tracked) = self.tables.get(index) else { return Ok(None) };
        let name = &tracked.table.name;
        if self.is_held(tracked) || (tracked.table.resolved && self.is_scanned(name)?) {
            // A row that is not marked yet is not in the log, and no change may count as made upon it. Nor is a row that
            // changed while no trigger saw it.
            return Ok(Some((Taken { chunk: header(tracked, tracked.table.columns.len()), keys: Vec::new() }, true)));
        }
        let (key_width, width) = (tracked.key.len(), tracked.table.columns.len());
        let first = 2 + key_width;
        let whole_rows = reads_rows(&tracked.table);
        let read = if whole_rows { width } else { 1 };
        let key_column = first + tracked.key.first().copied().filter(|_| whole_rows).unwrap_or(0);
        let mut oversized = Vec::new();
        let mut freed = Vec::new();
        let mut chunk = header(tracked, width);
        let (mut seen_written, mut seen_gone) = (Seen::default(), Seen::default());
        let mut written: Vec<Box<[u8]>> = Vec::new();
        let mut gone: Vec<Box<[u8]>> = Vec::new();
        let fresh = if tracked.table.resolved { self.fresh(&tracked.table.name)? } else { i64::MIN };
        let mut before = Before::new(&self.conn, tracked, fresh);
        let (mut made_written, mut made_gone): (Vec<Made>, Vec<Made>) = Default::default();
        let mut key: Vec<Value> = Vec::with_capacity(key_width);
        let mut canonical = Vec::new();
        let mut last = None;
        let (mut more, mut keyless) = (false, false);
        let pending = &self.overlay.table(tracked.id).pending;
        let mut statement = self.conn.prepare_cached(&tracked.marks).doing(SEALING)?;
        let mut rows = statement.query([]).doing(SEALING)?;
        while let Some(row) = rows.next().doing(SEALING)? {
            if room.changes == 0 || room.bytes == 0 {
                more = true;
                break;
            }
            last = Some(row.get::<_, i64>(0).doing(SEALING)?);
            let kind: i64 = row.get(1).doing(SEALING)?;
            key.clear();
            for column in 2..first {
                key.push(owned(row.get_ref(column).doing(SEALING)?));
            }
            if key.contains(&Value::Null) {
                tracing::warn!(table = tracked.table.name, "a row without a key is not replicated; give it one");
                keyless = true;
                continue;
            }
            let present = !matches!(row.get_ref(key_column).doing(SEALING)?, ValueRef::Null);
            let spared = kind == op::MAYBE_GONE && present && !crate::flaw!(MaybeGonePublished);
            if spared && !tracked.table.resolved {
                continue;
            }
            canonical.clear();
            tracked.encoder.write(&mut canonical, key.iter());
            let id = last.unwrap_or(0);
            if spared {
                // The row as it was, should a later mark say that it did change.
                before.hold(&canonical, id);
                continue;
            }
            // One read sees one state: a key is present at each of its marks, or gone at each.
            let (seen, keys, made) = if present {
                (&mut seen_written, &mut written, &mut made_written)
            } else {
                (&mut seen_gone, &mut gone, &mut made_gone)
            };
            let clock = row.get::<_, Option<i64>>(first + read).doing(SEALING)?.map_or(0, since_1970);
            if before.is_unborn(&canonical) {
                continue;
            }
            if let Some(at) = seen.find(&canonical, keys) {
                if let Some(made) = made.get_mut(at) {
                    made.clock = made.clock.max(clock);
                }
                continue;
            }
            let known = oversized.iter().any(|row: &Oversize| *row.key == *canonical);
            let wide = if present && !whole_rows { whole(&self.conn, tracked, &key)? } else { None };
            let bytes = match &wide {
                Some(row) => row.iter().map(Value::weight).sum(),
                None if present && !known => row_bytes(row, first, read).doing(SEALING)?,
                None => 0,
            };
            if known || bytes > self.row_bytes_max {
                if !known {
                    let base = if tracked.table.resolved { before.take(&canonical, kind, id)? } else { None };
                    oversized.push(Oversize { key: canonical.as_slice().into(), bytes, base });
                }
                continue;
            }
            let was_oversized = pending.get(canonical.as_slice()) == Some(&OVERSIZED);
            if was_oversized {
                freed.push(Box::<[u8]>::from(canonical.as_slice()));
            }
            if tracked.table.resolved {
                let mut base = before.take(&canonical, kind, id)?;
                if was_oversized {
                    base = oversized_base(&self.conn, &tracked.table.name, &canonical)?;
                }
                // Of a key that is on its way already, an earlier piece may hold a row that has to go again.
                if base.is_none() && !present && !pending.contains_key(canonical.as_slice()) {
                    before.unborn(&canonical, id);
                    continue;
                }
                made.push(Made { base, clock });
            }
            seen.note(&canonical, keys);
            keys.push(canonical.as_slice().into());
            room.changes -= 1;
            let mut weight = 0;
            if present {
                let image = match wide {
                    Some(row) => row,
                    None => values(row, first, width).doing(SEALING)?,
                };
                weight += image.iter().map(Value::weight).sum::<usize>();
                chunk.written.push(image);
            } else {
                weight += key.iter().map(Value::weight).sum::<usize>();
                chunk.gone.push(std::mem::take(&mut key));
            }
            room.bytes = room.bytes.saturating_sub(weight);
        }
        drop(rows);
        drop(statement);
        let log = quote(&change_log(&tracked.table.name));
        match last {
            Some(last) if more => self
                .conn
                .prepare_cached(&format!(
                    "DELETE FROM main.{log} WHERE id <= ?1 AND id NOT IN (SELECT value FROM json_each(?2))"
                ))
                .and_then(|mut statement| statement.execute((last, before.still_needed()))),
            _ => self
                .conn
                .prepare_cached(&format!("DELETE FROM main.{log}"))
                .and_then(|mut statement| statement.execute([])),
        }
        .doing("clear the marks")?;
        if fresh > i64::MIN && (!more || last.is_some_and(|last| last >= fresh) && !before.needs_up_to(fresh)) {
            self.end_fresh(&tracked.table.name)?;
        }
        let (id, name) = (tracked.id, tracked.table.name.clone());
        self.release(id, &name, &freed)?;
        self.hold_back(id, &name, oversized)?;
        if keyless {
            self.note_keyless(&name);
        }
        written.append(&mut gone);
        made_written.append(&mut made_gone);
        chunk.made = made_written;
        Ok(Some((Taken { chunk, keys: written }, more)))
    }

    /// Asks the hash component where each row goes.
    fn spread(&mut self, index: usize, taken: Taken) -> Result<Vec<(Shard, Taken)>, Error> {
        if taken.chunk.is_empty() {
            return Ok(Vec::new());
        }
        let shards = self.shards();
        let whole = self.tables.get(index).is_some_and(|tracked| tracked.whole);
        let mut packed = PackedKeys::default();
        if whole {
            packed.end();
        } else {
            for key in &taken.keys {
                packed.bytes.extend(key);
                packed.end();
            }
        }
        let table = u32::try_from(index).map_err(|_| Error::Inconsistent("more tables than numbers".to_owned()))?;
        let hashes = self.hasher.hash(table, &packed)?;
        if hashes.len() != packed.len() {
            return Err(PluginError(format!("{} hashes for {} keys", hashes.len(), packed.len())).into());
        }
        if whole || shards == 1 {
            let shard = hashes.first().map_or(1, |&hash| shard_of(hash, shards));
            return Ok(vec![(shard, taken)]);
        }
        let Taken { mut chunk, keys } = taken;
        let (row_width, key_width) = (chunk.written.width(), chunk.gone.width());
        let mut made = std::mem::take(&mut chunk.made).into_iter();
        let empty = Chunk { written: Rows::new(row_width), gone: Rows::new(key_width), ..chunk };
        let mut parts: BTreeMap<Shard, Taken> = BTreeMap::new();
        let mut rows = chunk.written.into_values().into_iter();
        let mut gone = chunk.gone.into_values().into_iter();
        for (key, hash) in keys.into_iter().zip(hashes) {
            let part =
                parts.entry(shard_of(hash, shards)).or_insert_with(|| Taken { chunk: empty.clone(), keys: Vec::new() });
            let row: Vec<Value> = rows.by_ref().take(row_width).collect();
            if row.is_empty() {
                part.chunk.gone.push(gone.by_ref().take(key_width).collect());
            } else {
                part.chunk.written.push(row);
            }
            part.keys.push(key);
            part.chunk.made.extend(made.next());
        }
        Ok(parts.into_iter().collect())
    }

    /// Numbers one shard's part, puts it into the outbox and makes its keys pending.
    fn push(&mut self, shard: Shard, more: bool, parts: Vec<(usize, Taken)>) -> Result<(), Error> {
        let number = self.ledger.next_number(shard, self.origin);
        let seen = self.ledger.seen(shard);
        let mut chunks = Vec::with_capacity(parts.len());
        for (index, Taken { mut chunk, keys }) in parts {
            let Some(tracked) = self.tables.get(index) else { continue };
            if tracked.table.resolved {
                uncover(&self.conn, tracked, self.overlay.table(tracked.id), seen, &keys, &mut chunk)?;
                self.ledger.clock = chunk.made.iter().map(|made| made.clock).fold(self.ledger.clock, u64::max);
            }
            let overlay = self.overlay.table(tracked.id);
            if !overlay.shadows.is_empty() && !crate::flaw!(SeenByBatch) {
                // Behind a shadow the writer has not seen what came since: its change was made upon an older row.
                let behind = |change: usize| {
                    let shadow = overlay.shadows.get(keys.get(change)?).filter(|shadow| shadow.seen < seen)?;
                    Some((change, shadow.seen))
                };
                chunk.seen = (0..keys.len()).filter_map(behind).collect();
            }
            overlay.pending.extend(keys.into_iter().map(|key| (key, number)));
            chunks.push(chunk);
        }
        self.enqueue(shard, number, more, Body::Changes(Changes { more, seen, chunks }))
    }

    /// Puts one entry of ours into the outbox.
    pub(super) fn enqueue(&mut self, shard: Shard, number: u64, more: bool, body: Body) -> Result<(), Error> {
        let cluster = self.cluster.map(|cluster| cluster.id).unwrap_or_default();
        let clock = self.ledger.clock;
        let frame = self
            .encoder
            .encode(&entry::Entry { cluster, origin: self.origin, number, clock, body })
            .map_err(Error::Encode)?;
        self.ledger.push(&self.conn, &Sealed { shard, number, more, clock, frame: &frame }, self.origin)
    }

    /// Batches that the log does not have, above `number`.
    ///
    /// # Errors
    /// When the outbox can't be read, or is another's by now.
    pub fn unsent(&mut self, shard: Shard, number: u64, bytes_max: usize) -> Result<Vec<Unsent>, Error> {
        let unsent = outbox::unsent(&self.conn, shard, number, bytes_max)?;
        // What was read is ours only if the file still is.
        self.is_still_ours()?;
        Ok(unsent)
    }

    /// The last number of ours that came back in this shard.
    #[must_use]
    pub fn echoed(&self, shard: Shard) -> u64 {
        self.ledger.received(shard, self.origin)
    }

    /// Keys that wait for their echo and behind which the log's row is not kept, with their tables.
    ///
    /// # Errors
    /// When a key can't be read.
    pub fn uncovered(&self) -> Result<Vec<(String, Row)>, Error> {
        let mut found = Vec::new();
        for tracked in &self.tables {
            let Some(overlay) = self.overlay.peek(tracked.id) else { continue };
            for key in overlay.pending.keys().filter(|key| !overlay.shadows.contains(key)) {
                found.push((tracked.table.name.clone(), key_values(key)?));
            }
        }
        Ok(found)
    }

    /// Keys that wait for their echo.
    #[must_use]
    pub fn pending_len(&self) -> usize {
        self.overlay.pending_len()
    }
}

/// When a mark was made; a clock that stood before 1970 says nothing.
fn since_1970(millis: i64) -> u64 {
    u64::try_from(millis).unwrap_or(0)
}

/// An empty chunk of this table.
fn header(tracked: &Tracked, width: usize) -> Chunk {
    let uniques = tracked.table.uniques.iter().filter(|unique| !unique.partial);
    Chunk {
        table: tracked.table.name.clone(),
        columns: tracked.table.columns.iter().map(|column| column.name.clone()).collect(),
        key: tracked.key.clone(),
        uniques: uniques.map(|unique| unique.columns.clone()).collect(),
        written: Rows::new(width),
        gone: Rows::new(tracked.key.len()),
        seen: Vec::new(),
        made: Vec::new(),
    }
}

/// Keys that become pending leave L's row behind, and each change comes after what it was made upon.
fn uncover(
    conn: &rusqlite::Connection,
    tracked: &Tracked,
    overlay: &mut TableOverlay,
    seen: u64,
    keys: &[Box<[u8]>],
    chunk: &mut Chunk,
) -> Result<(), Error> {
    let mut stamps = Stamps::new(conn, tracked);
    for (key, made) in keys.iter().zip(&mut chunk.made) {
        if let Some(shadow) = overlay.shadows.get(key).filter(|_| crate::flaw!(BaseFromLog)) {
            made.base = shadow.image.as_ref().map(whole_row);
        }
        // Of a key that was pending before its table got a policy, this node does not know L's row.
        let knows = !overlay.pending.contains_key(key);
        if knows && !overlay.shadows.contains(key) && !crate::flaw!(ShadowOmitted) {
            let image = made.base.as_ref().map(|row| row.iter().cloned().map(Some).collect());
            let shadow = Shadow { image, seen };
            store_shadow(conn, tracked, key, &shadow)?;
            overlay.shadows.insert(key.clone(), shadow);
        }
        let stamped = stamps.get(key)?.map_or(0, |stamp| stamp.clock);
        let own = overlay.clocks.get(key).copied().unwrap_or(0);
        made.clock = made.clock.max(stamped.max(own).saturating_add(1));
        overlay.clocks.insert(key.clone(), made.clock);
    }
    Ok(())
}

/// What marks say of rows before they changed.
struct Before<'a> {
    conn: &'a rusqlite::Connection,
    tracked: &'a Tracked,
    /// Marks up to this one are of rows that were in no batch before.
    fresh: i64,
    /// The first mark of keys whose rows were only looked at so far.
    held: FxHashMap<Box<[u8]>, i64>,
    /// The first mark of keys that came and went between two seals.
    unborn: FxHashMap<Box<[u8]>, i64>,
}

impl<'a> Before<'a> {
    fn new(conn: &'a rusqlite::Connection, tracked: &'a Tracked, fresh: i64) -> Self {
        Self { conn, tracked, fresh, held: FxHashMap::default(), unborn: FxHashMap::default() }
    }

    fn hold(&mut self, key: &[u8], id: i64) {
        if !self.held.contains_key(key) {
            self.held.insert(key.into(), id);
        }
    }

    fn unborn(&mut self, key: &[u8], id: i64) {
        self.unborn.insert(key.into(), id);
    }

    fn is_unborn(&self, key: &[u8]) -> bool {
        !self.unborn.is_empty() && self.unborn.contains_key(key)
    }

    /// The row as it was at the first mark of its key, this mark being the first that counts.
    fn take(&mut self, key: &[u8], kind: i64, id: i64) -> Result<Option<Row>, Error> {
        let held = self.held.remove(key).filter(|_| kind != op::INSERT || !crate::flaw!(ReplaceUponNothing));
        let first = held.or((kind == op::MAYBE_GONE).then_some(id));
        let Some(first) = first.filter(|&first| first > self.fresh) else { return Ok(None) };
        let width = self.tracked.table.columns.len();
        self.conn
            .prepare_cached(&self.tracked.before)
            .and_then(|mut statement| statement.query_row([first], |row| values(row, 0, width)))
            .map(Some)
            .doing("read a row as it was")
    }

    /// Whether the next piece has to see a mark again that is not above `id`.
    fn needs_up_to(&self, id: i64) -> bool {
        self.held.values().chain(self.unborn.values()).any(|&needed| needed <= id)
    }

    /// Marks that the next piece has to see again, as JSON.
    fn still_needed(&self) -> String {
        let ids: Vec<String> = self.held.values().chain(self.unborn.values()).map(i64::to_string).collect();
        format!("[{}]", ids.join(","))
    }
}

pub(super) fn has_marks(conn: &rusqlite::Connection, tracked: &Tracked) -> Result<bool, Error> {
    conn.prepare_cached(&tracked.has_marks).and_then(|mut statement| statement.exists([])).doing(LOOKING)
}
