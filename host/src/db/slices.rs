//! A unit that is too large for one transaction is applied in slices, each with the place it ends at.
//!
//! What comes of it is what would have come of it at once, wherever the slices end: they depend on the machine, and L
//! must not. The position stays behind until the last slice; nothing else of the shard is applied before. Of the unit's
//! keys only what stands in several of its pieces is kept in memory, and a number for each.

use super::apply::{Applied, Stop};
use super::catalog::Tracked;
use super::ledger::{Cursor, Ledger};
use super::obstacle::Obstacle;
use super::overlay::{TableOverlay, hash, read_image, stored_image};
use super::own::ours;
use super::recent::{BYTES_MAX, Keys};
use super::shadows::Shadow;
use super::unique::Holder;
use super::unit::{Change, TableChanges, Unit, local_columns, local_uniques, localise_chunk};
use super::{Database, Doing as _, Error, outbox};
use crate::log::{Placed, Placement, Shard};
use antiphon_core::codec;
use antiphon_core::entry::{Body, Changes, Chunk, Entry};
use rusqlite::Connection;
use rustc_hash::{FxHashMap, FxHashSet};
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// How long a slice goes on: whoever waits for the write lock has it soon after.
const SLICE: Duration = Duration::from_millis(100);
/// Changes applied between two looks at the clock.
const RUN: usize = 2048;

type ByKey<T> = FxHashMap<Box<[u8]>, T>;

/// What holds for all pieces' changes to one table: as in a unit that is applied at once, what the last one says.
struct Head {
    index: usize,
    columns: Vec<usize>,
    uniques: Vec<Vec<(usize, String)>>,
}

/// What is known of a unit from reading it once.
pub(super) struct Survey {
    seq: u64,
    /// Numbers of its pieces, the last one included.
    numbers: Vec<u64>,
    heads: Vec<Head>,
    /// Keys that stand in several pieces: the first of these and the last, table by table.
    repeats: FxHashMap<usize, ByKey<(u64, u64)>>,
    /// Keys to know clashes by; none if they are too many to be remembered.
    touched: Vec<Keys>,
    /// Names of tables that are not replicated here.
    skipped: Changes,
    changes: usize,
    /// What is left of the piece that is next, if it was read: places in the piece, tables and changes.
    loaded: Option<VecDeque<(usize, usize, Change)>>,
}

impl Survey {
    fn head(&self, index: usize) -> Option<&Head> {
        self.heads.iter().find(|head| head.index == index)
    }

    /// The next changes to one table, and where in their piece the last of them stands.
    fn run(&mut self, most: usize) -> Option<(usize, TableChanges)> {
        let loaded = self.loaded.as_mut()?;
        let index = loaded.front()?.1;
        let (mut changes, mut last) = (Vec::new(), 0);
        while changes.len() < most
            && let Some((at, _, change)) = loaded.pop_front_if(|(_, table, _)| *table == index)
        {
            last = at;
            changes.push(change);
        }
        let head = self.head(index)?;
        let (columns, uniques) = (head.columns.clone(), head.uniques.clone());
        Some((last, TableChanges { index, changes, columns, uniques }))
    }
}

/// Why a unit that is applied by half can't go on: what the application changed in a table that was made anew can be told
/// from what the log says only where rows are those of a position.
fn torn(table: &str) -> String {
    format!(
        "table `{table}` was made anew while a large unit was being applied, and can't be compared with the log now; take \
         the cluster's rows anew: `antiphon cleanup`, then `antiphon join --discard-local`, or `--publish-local` if the rows \
         here are right"
    )
}

impl Database {
    /// Applies the next slice of a unit that ends with this entry.
    pub(super) fn apply_slice(&mut self, shard: Shard, placed: &Placed) -> Result<Applied, Error> {
        let blocked =
            |why: Obstacle| Ok(Applied { stop: Some(Stop::Blocked(why.at(shard, placed.seq))), ..Applied::default() });
        let at = placed.placement();
        if self.ledger.cursor(shard).is_some_and(|cursor| cursor.at != at) {
            let why = "there is another entry at position than the one that was applied by half";
            return blocked(why.to_owned().into());
        }
        let entry = match codec::decode(&placed.frame) {
            Ok(entry) => entry,
            Err(error) => return blocked(error.to_string().into()),
        };
        let Entry { origin, number, clock, body: Body::Changes(mut last), .. } = entry else {
            return Err(Error::Inconsistent("a unit ends with an entry that changes nothing".to_owned()));
        };
        let is_begun = self.ledger.cursor(shard).is_some();
        if let Some(held) = self.tables.iter().find(|tracked| is_begun && self.is_held(tracked)) {
            return blocked(torn(&held.table.name).into());
        }
        self.adapt(&mut last);
        let unit = Unit { shard, seq: placed.seq, origin, number, clock, sliced: true };
        if let Err(reason) = self.survey(&unit, &last)? {
            let compared = self.tables.iter().find(|tracked| self.attachments.obstacle(&tracked.table.name).is_some());
            let compared = compared.filter(|_| is_begun);
            return blocked(compared.map_or(reason, |tracked| torn(&tracked.table.name).into()));
        }
        self.load(&unit, &last)?;
        self.transaction(|db| {
            if db.is_unsealed()? {
                return Ok(Applied { stop: Some(db.unsealed()?), ..Applied::default() });
            }
            fault!("slice");
            db.take_slice(&unit, at)
        })
    }

    /// One piece of a unit whose last one is at hand.
    fn piece(&self, unit: &Unit, last: &Changes, number: u64) -> Result<Changes, Error> {
        if number == unit.number {
            return Ok(last.clone());
        }
        let frame = Ledger::staged_piece(&self.conn, unit.shard, unit.origin, number)?;
        let damaged = |why: String| Error::Inconsistent(format!("a staged piece cannot be read: {why}"));
        let entry = codec::decode(&frame).map_err(|error| damaged(error.to_string()))?;
        let Body::Changes(mut changes) = entry.body else { return Err(damaged("it changes nothing".to_owned())) };
        self.adapt(&mut changes);
        Ok(changes)
    }

    /// Reads a unit piece by piece, if that was not done yet; the inner error says why it can't be applied here.
    fn survey(&mut self, unit: &Unit, last: &Changes) -> Result<Result<(), Obstacle>, Error> {
        if self.surveys.get(&unit.shard).is_some_and(|survey| survey.seq == unit.seq) {
            return Ok(Ok(()));
        }
        let mut numbers = Ledger::staged_numbers(&self.conn, unit.shard, unit.origin)?;
        numbers.push(unit.number);
        let mut survey = Survey {
            seq: unit.seq,
            numbers,
            heads: Vec::new(),
            repeats: FxHashMap::default(),
            touched: Vec::new(),
            skipped: Changes::default(),
            changes: 0,
            loaded: None,
        };
        let mut hashes = Vec::new();
        let mut bytes = 0;
        for &number in &survey.numbers {
            let piece = self.piece(unit, last, number)?;
            if let Err(reason) = self.readable(unit.shard, &piece) {
                return Ok(Err(reason));
            }
            for chunk in &piece.chunks {
                survey.changes += chunk.len();
                if !self.options.filter.wants(&chunk.table) {
                    let named = |known: &Chunk| known.table == chunk.table;
                    if !survey.skipped.chunks.iter().any(named) {
                        survey.skipped.chunks.push(Chunk { table: chunk.table.clone(), ..Chunk::default() });
                    }
                }
                let Some(index) = self.tracked(&chunk.table) else { continue };
                let Some(tracked) = self.tables.get(index) else { continue };
                let columns = local_columns(tracked, chunk);
                let uniques = local_uniques(chunk, &columns);
                survey.heads.retain(|head| head.index != index);
                survey.heads.push(Head { index, columns, uniques });
                let keys = Keys::of(tracked, chunk);
                hashes.extend(keys.packed().iter().map(|key| hash(index, key)));
                if !tracked.rule(unit.shard).resolved && bytes <= BYTES_MAX {
                    bytes += keys.weight();
                    survey.touched.push(keys);
                }
            }
        }
        if bytes > BYTES_MAX {
            // Nothing older is remembered beside it either, as if it had been applied at once.
            survey.touched.clear();
        }
        hashes.sort_unstable();
        let twice: FxHashSet<u64> =
            hashes.windows(2).filter(|pair| pair.first() == pair.last()).flatten().copied().collect();
        drop(hashes);
        if !twice.is_empty() && !crate::flaw!(SliceRepeats) {
            self.find_repeats(unit, last, &mut survey, &twice)?;
        }
        if self.ledger.cursor(unit.shard).is_none() {
            tracing::warn!(
                shard = unit.shard,
                node = unit.origin.node,
                changes = survey.changes,
                atomic_max = self.options.atomic_max,
                "a unit is too large to be applied at once; it is applied in slices"
            );
        }
        self.surveys.insert(unit.shard, survey);
        Ok(Ok(()))
    }

    /// Finds the keys that stand in several pieces, among those whose hash was met more than once.
    fn find_repeats(
        &self,
        unit: &Unit,
        last: &Changes,
        survey: &mut Survey,
        twice: &FxHashSet<u64>,
    ) -> Result<(), Error> {
        for &number in &survey.numbers {
            for chunk in &self.piece(unit, last, number)?.chunks {
                let Some(index) = self.tracked(&chunk.table) else { continue };
                let Some(tracked) = self.tables.get(index) else { continue };
                let repeats = survey.repeats.entry(index).or_default();
                for key in Keys::of(tracked, chunk).packed().iter().filter(|key| twice.contains(&hash(index, key))) {
                    repeats.entry(key.into()).or_insert((number, number)).1 = number;
                }
            }
        }
        survey.repeats.values_mut().for_each(|repeats| repeats.retain(|_, (first, last)| first != last));
        Ok(())
    }

    /// Reads what is left of the piece that is next. A key that stands in several pieces counts at the first of them,
    /// with what that says of its past and the image of the last.
    fn load(&mut self, unit: &Unit, last: &Changes) -> Result<(), Error> {
        let cursor = self.ledger.cursor(unit.shard);
        let Some(mut survey) = self.surveys.remove(&unit.shard) else { return Ok(()) };
        if survey.loaded.is_none() {
            let first = survey.numbers.first().copied().unwrap_or(unit.number);
            let (number, done) = cursor.map_or((first, 0), |cursor| (cursor.piece, cursor.done));
            survey.loaded = Some(if number > unit.number {
                VecDeque::new()
            } else {
                self.read_piece(unit, last, &survey, number, done)?
            });
        }
        self.surveys.insert(unit.shard, survey);
        Ok(())
    }

    fn read_piece(
        &self,
        unit: &Unit,
        last: &Changes,
        survey: &Survey,
        number: u64,
        done: usize,
    ) -> Result<VecDeque<(usize, usize, Change)>, Error> {
        let mut loaded = VecDeque::new();
        // Keys whose image stands in a later piece, and where they are in what was read.
        let mut wanted: BTreeMap<u64, FxHashMap<usize, ByKey<usize>>> = BTreeMap::new();
        let mut at = 0;
        let piece = self.piece(unit, last, number)?;
        for chunk in piece.chunks {
            let begin = at;
            at += chunk.len();
            let Some(index) = self.tracked(&chunk.table) else { continue };
            let Some(tracked) = self.tables.get(index) else { continue };
            let columns = local_columns(tracked, &chunk);
            let repeats = survey.repeats.get(&index);
            for (place, change) in (begin..).zip(localise_chunk(tracked, chunk, &columns, piece.seen, unit.clock)) {
                if place < done {
                    continue;
                }
                match repeats.and_then(|repeats| repeats.get(&change.key)) {
                    Some((first, _)) if *first != number => continue,
                    Some((_, last)) => {
                        let places = wanted.entry(*last).or_default().entry(index).or_default();
                        places.insert(change.key.clone(), loaded.len());
                    }
                    None => {}
                }
                loaded.push_back((place, index, change));
            }
        }
        for (number, places) in wanted {
            let piece = self.piece(unit, last, number)?;
            for chunk in piece.chunks {
                let Some(index) = self.tracked(&chunk.table) else { continue };
                let Some(tracked) = self.tables.get(index) else { continue };
                let columns = local_columns(tracked, &chunk);
                for change in localise_chunk(tracked, chunk, &columns, piece.seen, unit.clock) {
                    let Change { key, key_values, image, clock, .. } = change;
                    let slot = places.get(&index).and_then(|places| loaded.get_mut(*places.get(&key)?));
                    if let Some((_, _, earlier)) = slot {
                        (earlier.image, earlier.key_values, earlier.clock) = (image, key_values, clock);
                    }
                }
            }
        }
        Ok(loaded)
    }

    /// Applies what a slice has room for, and remembers how far it came: in the transaction at hand.
    fn take_slice(&mut self, unit: &Unit, at: Placement) -> Result<Applied, Error> {
        let Unit { shard, origin, number, .. } = *unit;
        let mut applied = Applied { stop: Some(Stop::Full), sliced: true, ..Applied::default() };
        // What fails leaves none behind, and what was read is read again.
        let Some(mut survey) = self.surveys.remove(&shard) else { return Ok(applied) };
        let begun = Instant::now();
        let piece = survey.numbers.first().copied().unwrap_or(number);
        let start = Cursor { origin, number, at, piece, done: 0 };
        let mut cursor = self.ledger.cursor(shard).unwrap_or(start);
        let mut room = self.options.atomic_max.max(1);
        while room > 0
            && begun.elapsed() < SLICE
            && let Some((last, table)) = survey.run(room.min(RUN))
        {
            room -= table.changes.len();
            applied.changes += table.changes.len();
            cursor.done = last + 1;
            self.apply_table(unit, table)?;
            fault!("sliced");
        }
        if survey.loaded.as_ref().is_none_or(VecDeque::is_empty) {
            survey.loaded = None;
            let next = survey.numbers.iter().find(|next| **next > cursor.piece);
            (cursor.piece, cursor.done) = (next.copied().unwrap_or(number + 1), 0);
        }
        if origin == self.origin {
            (applied.own_changes, applied.own_time) = (applied.changes, at.time);
        } else {
            applied.others_time = at.time;
        }
        let is_done = cursor.piece > number && room > 0 && self.evict_displaced(unit, room)?;
        self.retry_hidden(shard)?;
        if !is_done {
            self.ledger.move_cursor(&self.conn, shard, cursor)?;
            fault!("slice-placed");
            self.surveys.insert(shard, survey);
            return Ok(applied);
        }
        self.note_skipped(&survey.skipped)?;
        self.ledger.unstage(&self.conn, shard, origin)?;
        self.ledger.end_slices(&self.conn, shard, survey.changes)?;
        fault!("slices-ended");
        self.ledger.receive(shard, origin, number);
        self.ledger.clock = self.ledger.clock.max(unit.clock);
        self.ledger.advance(shard, at);
        self.ledger.write(&self.conn, shard, &[origin])?;
        if origin == self.origin {
            outbox::confirm(&self.conn, shard, number)?;
        }
        self.recent.note(shard, unit.seq, origin, survey.touched);
        tracing::info!(shard, node = origin.node, changes = survey.changes, "a unit was applied in slices");
        applied.entries = 1;
        applied.stop = None;
        Ok(applied)
    }

    /// Rows that made room and whose own change did not come are evicted; says whether none is left.
    fn evict_displaced(&mut self, unit: &Unit, most: usize) -> Result<bool, Error> {
        const READING: &str = "read rows that made room";
        type Stored = (String, Vec<u8>, Vec<u8>, Vec<u8>, Option<Vec<u8>>);
        let displaced: Vec<Stored> = self
            .conn
            .prepare_cached(concat!(
                "SELECT tbl, key, winner, columns, image FROM ",
                ours!("displaced"),
                " WHERE shard = ?1 ORDER BY id LIMIT ?2"
            ))
            .and_then(|mut statement| {
                statement
                    .query_map((unit.shard, (most as u64).cast_signed()), |row| {
                        Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
                    })?
                    .collect()
            })
            .doing(READING)?;
        let is_last = displaced.len() < most;
        let damaged = || Error::Inconsistent("a row that made room cannot be read".to_owned());
        for (table, key, winner, columns, image) in displaced {
            let Some((index, tracked)) = self
                .tables
                .iter()
                .enumerate()
                .find(|(_, tracked)| tracked.table.name.eq_ignore_ascii_case(&table))
                .map(|(index, tracked)| (index, tracked.clone()))
            else {
                self.conn
                    .execute(concat!("DELETE FROM ", ours!("displaced"), " WHERE tbl = ?1 AND key = ?2"), (table, key))
                    .doing(READING)?;
                continue;
            };
            let image = match image {
                Some(values) => Some(read_image(&tracked, &columns, &values).ok_or_else(damaged)?),
                None => None,
            };
            let key_values = codec::decode_row(&winner).map_err(|_| damaged())?;
            let change = Change {
                key: Box::default(),
                key_values,
                image,
                seen: 0,
                base: None,
                baseless: true,
                clock: unit.clock,
            };
            let key = key.into_boxed_slice();
            replace(&self.conn, &tracked, &key)?;
            let overlay = self.overlay.table(tracked.id);
            overlay.displaced.remove(&key);
            let lost = overlay.shadows.get(&key).and_then(|shadow| shadow.image.clone());
            overlay.shadows.set(&key, None, unit.seq);
            if let Some(image) = lost {
                self.evict(unit, index, &tracked, &change, &Holder { key: key.clone(), image })?;
            }
            self.materialise(&tracked, vec![key])?;
        }
        Ok(is_last)
    }
}

/// Takes a row out of L for now, because a change of the unit brings a UNIQUE value of it. It stays as it was for its
/// own change, should that follow, and its resolver.
pub(super) fn displace(
    conn: &Connection,
    unit: &Unit,
    tracked: &Tracked,
    overlay: &mut TableOverlay,
    winner: &Change,
    holder: &Holder,
) -> Result<(), Error> {
    if !overlay.shadows.contains(&holder.key) {
        let shadow = Shadow { image: Some(holder.image.clone()), seen: unit.seq - 1 };
        overlay.shadows.insert(holder.key.clone(), shadow);
    }
    overlay.displaced.insert(holder.key.clone());
    let (columns, image) = stored_image(tracked, winner.image.as_ref());
    conn.prepare_cached(concat!(
        "INSERT INTO ",
        ours!("displaced"),
        " (shard, tbl, key, winner, columns, image) VALUES (?1, ?2, ?3, ?4, ?5, ?6)"
    ))
    .and_then(|mut statement| {
        let winner = codec::encode_row(&winner.key_values);
        statement.execute((unit.shard, &tracked.table.name, &holder.key, winner, columns, image))
    })
    .doing("note a row that makes room")?;
    Ok(())
}

/// A row that made room has a place again, or goes for good.
pub(super) fn replace(conn: &Connection, tracked: &Tracked, key: &[u8]) -> Result<(), Error> {
    conn.prepare_cached(concat!("DELETE FROM ", ours!("displaced"), " WHERE tbl = ?1 AND key = ?2"))
        .and_then(|mut statement| statement.execute((&tracked.table.name, key)))
        .doing("note a row that made room")?;
    Ok(())
}
