//! Seal: dirty keys become numbered batches in the outbox, in one short transaction.
//!
//! What one seal reads is a union of whole commits. A backlog is taken in bounded pieces; each but the one
//! that leaves no mark says that more follows, and receivers apply the pieces of such a unit together.

use super::catalog::Tracked;
use super::ledger::{self, Sealed, Unsent};
use super::overlay::chunk_keys;
use super::values::{owned, values};
use super::{Database, Doing as _, Error, SEAL_BYTES_MAX};
use crate::log::Shard;
use antiphon_core::capture::{change_log, op};
use antiphon_core::entry::{Body, Changes, Chunk, Entry, Rows};
use antiphon_core::hash::{PackedKeys, shard_of};
use antiphon_core::schema::quote;
use antiphon_core::value::Value;
use rustc_hash::FxHashSet;
use std::collections::BTreeMap;

/// What is left of the room one seal has.
struct Room {
    changes: usize,
    bytes: usize,
}

/// What was taken of one table.
struct Taken {
    chunk: Chunk,
    /// Marks are left.
    more: bool,
}

impl Database {
    /// Whether any replicated table has marks.
    ///
    /// # Errors
    /// When SQLite can't tell.
    pub fn is_dirty(&self) -> Result<bool, Error> {
        for tracked in self.tables.iter().filter(|tracked| tracked.captured) {
            if has_marks(&self.conn, tracked)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Seals one piece in a transaction of its own; says whether marks are left.
    ///
    /// # Errors
    /// When SQLite or the hash component fails; nothing is sealed then.
    pub fn seal(&mut self) -> Result<bool, Error> {
        self.refresh_schema()?;
        if self.cluster.is_none() || !(self.is_dirty()? || self.has_open_unit()) {
            return Ok(false);
        }
        self.transaction(|db| {
            fault!("seal");
            db.seal_piece()
        })
    }

    fn has_open_unit(&self) -> bool {
        self.ledger.open_shards(self.shards(), self.origin).next().is_some()
    }

    /// Seals one piece within the transaction at hand; says whether marks are left.
    pub(super) fn seal_piece(&mut self) -> Result<bool, Error> {
        let mut room = Room { changes: self.options.changes_max, bytes: SEAL_BYTES_MAX };
        let mut shards: BTreeMap<Shard, Vec<(usize, Chunk)>> = BTreeMap::new();
        let mut more = false;
        for index in 0..self.tables.len() {
            if room.changes == 0 || room.bytes == 0 {
                more = more || self.has_marks_from(index)?;
                break;
            }
            let Some(taken) = self.take(index, &mut room)? else { continue };
            more |= taken.more;
            for (shard, chunk) in self.spread(index, taken.chunk)? {
                shards.entry(shard).or_default().push((index, chunk));
            }
        }
        if !more {
            let open: Vec<Shard> = self.ledger.open_shards(self.shards(), self.origin).collect();
            for shard in open {
                shards.entry(shard).or_default();
            }
        }
        self.ledger.clock = self.ledger.clock.max(crate::clock::unix_ms()) + 1;
        for (shard, chunks) in shards {
            self.push(shard, more && !crate::flaw!(UnitClosedEarly), chunks)?;
        }
        fault!("sealed");
        Ok(more)
    }

    fn has_marks_from(&self, first: usize) -> Result<bool, Error> {
        for tracked in self.tables.iter().skip(first).filter(|tracked| tracked.captured) {
            if has_marks(&self.conn, tracked)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Takes the oldest marks of one table, and the rows they speak of as they stand.
    fn take(&mut self, index: usize, room: &mut Room) -> Result<Option<Taken>, Error> {
        const SEALING: &str = "read the changed rows";
        let Some(tracked) = self.tables.get(index).filter(|tracked| tracked.captured) else { return Ok(None) };
        if !has_marks(&self.conn, tracked)? {
            return Ok(None);
        }
        let (key_width, width) = (tracked.key.len(), tracked.table.columns.len());
        let mut chunk = header(tracked, width);
        let mut taken: FxHashSet<Box<[u8]>> = FxHashSet::default();
        let mut canonical = Vec::new();
        let mut last = None;
        let mut more = false;
        let mut statement = self.conn.prepare_cached(&tracked.marks).doing(SEALING)?;
        let mut rows = statement.query([]).doing(SEALING)?;
        while let Some(row) = rows.next().doing(SEALING)? {
            if room.changes == 0 || room.bytes == 0 {
                more = true;
                break;
            }
            last = Some(row.get::<_, i64>(0).doing(SEALING)?);
            let kind: i64 = row.get(1).doing(SEALING)?;
            let key = values(row, 2, key_width).doing(SEALING)?;
            if key.contains(&Value::Null) {
                tracing::warn!(table = tracked.table.name, "a row without a key is not replicated; give it one");
                continue;
            }
            let first = 2 + key_width;
            let key_column = first + tracked.key.first().copied().unwrap_or(0);
            let present = !matches!(row.get_ref(key_column).doing(SEALING)?, rusqlite::types::ValueRef::Null);
            if kind == op::MAYBE_GONE && present && !crate::flaw!(MaybeGonePublished) {
                continue;
            }
            canonical.clear();
            tracked.encoder.write(&mut canonical, key.iter());
            if taken.contains(canonical.as_slice()) {
                continue;
            }
            taken.insert(canonical.as_slice().into());
            room.changes -= 1;
            let mut weight = 0;
            if present {
                for column in first..first + width {
                    let value = owned(row.get_ref(column).doing(SEALING)?);
                    weight += value.weight();
                    chunk.written.push_value(value);
                }
            } else {
                weight += key.iter().map(Value::weight).sum::<usize>();
                chunk.gone.push(key);
            }
            room.bytes = room.bytes.saturating_sub(weight);
        }
        drop(rows);
        drop(statement);
        let log = quote(&change_log(&tracked.table.name));
        match last {
            Some(last) if more => self
                .conn
                .prepare_cached(&format!("DELETE FROM main.{log} WHERE id <= ?1"))
                .and_then(|mut statement| statement.execute([last])),
            _ => self.conn.prepare_cached(&format!("DELETE FROM main.{log}")).and_then(|mut statement| statement.execute([])),
        }
        .doing("clear the marks")?;
        Ok(Some(Taken { chunk, more }))
    }

    /// Asks the hash component where each row goes.
    fn spread(&mut self, index: usize, chunk: Chunk) -> Result<Vec<(Shard, Chunk)>, Error> {
        if chunk.is_empty() {
            return Ok(Vec::new());
        }
        let shards = self.shards();
        let Some(tracked) = self.tables.get(index) else { return Ok(Vec::new()) };
        let mut keys = PackedKeys::default();
        if tracked.whole {
            keys.end();
        } else {
            for key in chunk_keys(tracked, &chunk) {
                keys.bytes.extend(&key);
                keys.end();
            }
        }
        let table = u32::try_from(index).map_err(|_| Error::Inconsistent("more tables than numbers".to_owned()))?;
        let hashes = self.hasher.hash(table, &keys)?;
        if hashes.len() != keys.len() {
            return Err(antiphon_core::hash::PluginError(format!("{} hashes for {} keys", hashes.len(), keys.len())).into());
        }
        if tracked.whole || shards == 1 {
            let shard = hashes.first().map_or(1, |&hash| shard_of(hash, shards));
            return Ok(vec![(shard, chunk)]);
        }
        let mut parts: BTreeMap<Shard, Chunk> = BTreeMap::new();
        let width = chunk.written.width();
        let template = Chunk { written: Rows::new(width), gone: Rows::new(chunk.gone.width()), ..chunk.clone() };
        let written = chunk.written.len();
        let mut hashes = hashes.into_iter().map(|hash| shard_of(hash, shards));
        for (row, shard) in chunk.written.iter().zip(hashes.by_ref().take(written)) {
            parts.entry(shard).or_insert_with(|| template.clone()).written.push(row.to_vec());
        }
        for (key, shard) in chunk.gone.iter().zip(hashes) {
            parts.entry(shard).or_insert_with(|| template.clone()).gone.push(key.to_vec());
        }
        Ok(parts.into_iter().collect())
    }

    /// Numbers one shard's part, puts it into the outbox and makes its keys pending.
    fn push(&mut self, shard: Shard, more: bool, chunks: Vec<(usize, Chunk)>) -> Result<(), Error> {
        let number = self.ledger.next_number(shard, self.origin);
        let seen = self.ledger.position(shard).seq;
        let mut sent = Vec::with_capacity(chunks.len());
        for (index, mut chunk) in chunks {
            let Some(tracked) = self.tables.get(index) else { continue };
            let overlay = self.overlay.table(tracked.id);
            let mut unseen = Vec::new();
            for (change, key) in chunk_keys(tracked, &chunk).enumerate() {
                // Behind a shadow the writer has not seen what came since: its change was made upon an older row.
                if let Some(shadow) = overlay.shadows.get(&key).filter(|shadow| shadow.seen < seen) {
                    unseen.push((change, shadow.seen));
                }
                overlay.pending.insert(key, number);
            }
            chunk.seen = unseen;
            sent.push(chunk);
        }
        self.enqueue(shard, number, more, Body::Changes(Changes { more, seen, chunks: sent }))
    }

    /// Puts one entry of ours into the outbox.
    pub(super) fn enqueue(&mut self, shard: Shard, number: u64, more: bool, body: Body) -> Result<(), Error> {
        let cluster = self.cluster.map(|cluster| cluster.id).unwrap_or_default();
        let clock = self.ledger.clock;
        let frame = self
            .encoder
            .encode(&Entry { cluster, origin: self.origin, number, clock, body })
            .map_err(Error::Encode)?;
        self.ledger.push(&self.conn, &Sealed { shard, number, more, clock, frame: &frame }, self.origin)
    }

    /// Batches that the log does not have, above `number`.
    ///
    /// # Errors
    /// When the outbox can't be read.
    pub fn unsent(&self, shard: Shard, number: u64, bytes_max: usize) -> Result<Vec<Unsent>, Error> {
        ledger::unsent(&self.conn, shard, number, bytes_max)
    }

    /// The last number of ours that came back in this shard.
    #[must_use]
    pub fn echoed(&self, shard: Shard) -> u64 {
        self.ledger.received(shard, self.origin)
    }

    /// Whether the log has reached these watermarks.
    #[must_use]
    pub fn has_received(&self, shard: Shard, deps: &[(antiphon_core::entry::Origin, u64)]) -> bool {
        deps.iter().all(|(origin, number)| self.ledger.received(shard, *origin) >= *number)
    }

    /// Keys that wait for their echo.
    #[must_use]
    pub fn pending_len(&self) -> usize {
        self.overlay.pending_len()
    }
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
    }
}

fn has_marks(conn: &rusqlite::Connection, tracked: &Tracked) -> Result<bool, Error> {
    conn.prepare_cached(&tracked.has_marks).and_then(|mut statement| statement.exists([])).doing("look for marks")
}
