//! Where this node stands in the log, and what it has numbered.

use super::own::{meta, ours, set_meta};
use super::values::{origin, size, unsigned};
use super::{Doing as _, Error};
use crate::log::{Placement, Shard};
use antiphon_core::entry::Origin;
use rusqlite::Connection;
use std::collections::{BTreeMap, HashMap};

/// What a seal hands to the outbox.
pub(super) struct Sealed<'a> {
    pub(super) shard: Shard,
    pub(super) number: u64,
    pub(super) more: bool,
    pub(super) clock: u64,
    pub(super) frame: &'a [u8],
}

/// How far a unit has come that is applied in slices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cursor {
    pub(super) origin: Origin,
    /// The number of its last piece,
    pub(super) number: u64,
    /// and where in the log that stands: there the unit takes effect.
    pub(super) at: Placement,
    /// The piece that is next,
    pub(super) piece: u64,
    /// and how many of its changes have been dealt with.
    pub(super) done: usize,
}

/// Where this node stands, in memory; written back in the transaction that moves it.
#[derive(Clone, Debug, Default)]
pub(super) struct Ledger {
    positions: BTreeMap<Shard, Placement>,
    received: HashMap<(Shard, Origin), u64>,
    /// The first staged piece of each open unit, and the changes in all of them.
    staged: HashMap<(Shard, Origin), (u64, usize)>,
    /// Units that are applied in slices.
    cursors: BTreeMap<Shard, Cursor>,
    /// Last number given out, and whether its unit is still open.
    last: BTreeMap<Shard, (u64, bool)>,
    /// The last number of ours that the log is known to have.
    numbered: BTreeMap<Shard, u64>,
    /// The first entry of each shard that was passed over.
    unread: BTreeMap<Shard, u64>,
    routes: HashMap<String, bool>,
    /// Stamps at or below count as forgotten.
    floors: BTreeMap<Shard, u64>,
    pub(super) clock: u64,
}

impl Ledger {
    pub(super) fn read(conn: &Connection) -> Result<Self, Error> {
        const READING: &str = "read where this node stands";
        let mut ledger = Self::default();
        let query = |sql: &str, each: &mut dyn FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<()>| {
            let mut statement = conn.prepare_cached(sql).doing(READING)?;
            let mut rows = statement.query([]).doing(READING)?;
            while let Some(row) = rows.next().doing(READING)? {
                each(row).doing(READING)?;
            }
            Ok::<_, Error>(())
        };
        query(concat!("SELECT shard, seq, time, checksum, clock, floor FROM ", ours!("position")), &mut |row| {
            let placement = Placement { seq: unsigned(row, 1)?, time: unsigned(row, 2)?, checksum: unsigned(row, 3)? };
            ledger.positions.insert(row.get(0)?, placement);
            ledger.clock = ledger.clock.max(unsigned(row, 4)?);
            ledger.floors.insert(row.get(0)?, unsigned(row, 5)?);
            Ok(())
        })?;
        query(concat!("SELECT shard, node, incarnation, number FROM ", ours!("received")), &mut |row| {
            ledger.received.insert((row.get(0)?, origin(row, 1)?), unsigned(row, 3)?);
            Ok(())
        })?;
        query(
            concat!(
                "SELECT shard, node, incarnation, min(number), coalesce(sum(changes), 0) FROM ",
                ours!("staged"),
                " GROUP BY 1, 2, 3"
            ),
            &mut |row| {
                if !crate::flaw!(StagedForgotten) {
                    ledger.staged.insert((row.get(0)?, origin(row, 1)?), (unsigned(row, 3)?, size(row, 4)?));
                }
                Ok(())
            },
        )?;
        query(
            concat!("SELECT shard, node, incarnation, number, seq, time, checksum, piece, done FROM ", ours!("slice")),
            &mut |row| {
                let at = Placement { seq: unsigned(row, 4)?, time: unsigned(row, 5)?, checksum: unsigned(row, 6)? };
                let (number, piece) = (unsigned(row, 3)?, unsigned(row, 7)?);
                let cursor = Cursor { origin: origin(row, 1)?, number, at, piece, done: size(row, 8)? };
                ledger.cursors.insert(row.get(0)?, cursor);
                Ok(())
            },
        )?;
        query(
            concat!("SELECT shard, max(number), more, clock FROM ", ours!("global_change_log"), " GROUP BY shard"),
            &mut |row| {
                ledger.last.insert(row.get(0)?, (unsigned(row, 1)?, row.get(2)?));
                ledger.clock = ledger.clock.max(unsigned(row, 3)?);
                Ok(())
            },
        )?;
        query(
            concat!("SELECT substr(name, 8), value FROM ", ours!("meta"), " WHERE name LIKE 'unread:%'"),
            &mut |row| {
                let shard: String = row.get(0)?;
                ledger.unread.extend(shard.parse::<Shard>().ok().zip(Some(unsigned(row, 1)?)));
                Ok(())
            },
        )?;
        query(concat!("SELECT tbl, whole FROM ", ours!("route")), &mut |row| {
            ledger.routes.insert(row.get(0)?, row.get(1)?);
            Ok(())
        })?;
        Ok(ledger)
    }

    pub(super) fn position(&self, shard: Shard) -> Placement {
        self.positions.get(&shard).copied().unwrap_or_default()
    }

    /// How many entries have been dealt with, over all shards.
    pub(super) fn reached(&self) -> u64 {
        self.positions.values().map(|at| at.seq).sum()
    }

    /// The last position up to which the rows here are those of the log.
    pub(super) fn seen(&self, shard: Shard) -> u64 {
        let position = self.position(shard).seq;
        self.unread.get(&shard).map_or(position, |unread| position.min(unread.saturating_sub(1)))
    }

    /// An entry of another node's is passed over: the rows here are the log's no more.
    pub(super) fn pass_over(&mut self, conn: &Connection, shard: Shard, seq: u64) -> Result<(), Error> {
        if self.unread.contains_key(&shard) {
            return Ok(());
        }
        set_meta(conn, &format!("unread:{shard}"), seq)?;
        self.unread.insert(shard, seq);
        Ok(())
    }

    pub(super) fn has_unread(&self) -> bool {
        !self.unread.is_empty()
    }

    pub(super) fn number_above(&mut self, shard: Shard, number: u64) {
        self.numbered.insert(shard, number);
    }

    /// Whether a batch of ours in this shard has not taken effect yet.
    pub(super) fn waits(&self, shard: Shard, me: Origin) -> bool {
        self.last.get(&shard).is_some_and(|last| last.0 > self.done(shard, me))
    }

    pub(super) fn received(&self, shard: Shard, origin: Origin) -> u64 {
        self.received.get(&(shard, origin)).copied().unwrap_or(0)
    }

    /// The last number of each origin's in a shard.
    pub(super) fn numbers(&self, shard: Shard) -> Vec<(Origin, u64)> {
        let of = self.received.iter().filter(|((at, _), _)| *at == shard);
        let mut numbers: Vec<_> = of.map(|((_, origin), number)| (*origin, *number)).collect();
        numbers.sort_unstable();
        numbers
    }

    /// All nodes that have said anything yet.
    pub(super) fn nodes(&self) -> Vec<u64> {
        let mut nodes: Vec<u64> = self.received.keys().map(|(_, origin)| origin.node).collect();
        nodes.sort_unstable();
        nodes.dedup();
        nodes
    }

    pub(super) fn floor(&self, shard: Shard) -> u64 {
        self.floors.get(&shard).copied().unwrap_or(0)
    }

    /// The floor never sinks.
    pub(super) fn raise_floor(&mut self, shard: Shard, floor: u64) {
        let known = self.floors.entry(shard).or_default();
        *known = floor.max(*known);
    }

    /// The last number of this origin that has taken effect: staged pieces are received, not applied.
    pub(super) fn done(&self, shard: Shard, origin: Origin) -> u64 {
        match self.staged.get(&(shard, origin)) {
            Some((first, _)) => first.saturating_sub(1),
            None => self.received(shard, origin),
        }
    }

    pub(super) fn is_staging(&self, shard: Shard, origin: Origin) -> bool {
        self.staged.contains_key(&(shard, origin))
    }

    /// How many changes the staged pieces of an origin hold.
    pub(super) fn staged_changes(&self, shard: Shard, origin: Origin) -> usize {
        self.staged.get(&(shard, origin)).map_or(0, |(_, changes)| *changes)
    }

    /// How far the unit has come that is applied in slices in this shard.
    pub(super) fn cursor(&self, shard: Shard) -> Option<Cursor> {
        self.cursors.get(&shard).copied()
    }

    /// Whether a unit is applied in slices in any shard: rows are then ahead of the position.
    pub(super) fn is_slicing(&self) -> bool {
        !self.cursors.is_empty()
    }

    /// So far has a unit come that is applied in slices.
    pub(super) fn move_cursor(&mut self, conn: &Connection, shard: Shard, cursor: Cursor) -> Result<(), Error> {
        if !crate::flaw!(SliceForgotten) {
            conn.prepare_cached(concat!(
                "INSERT OR REPLACE INTO ",
                ours!("slice"),
                " (shard, node, incarnation, number, seq, time, checksum, piece, done)
                  VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)"
            ))
            .and_then(|mut statement| {
                statement.execute((
                    shard,
                    cursor.origin.node.cast_signed(),
                    cursor.origin.incarnation.cast_signed(),
                    cursor.number.cast_signed(),
                    cursor.at.seq.cast_signed(),
                    cursor.at.time.cast_signed(),
                    cursor.at.checksum.cast_signed(),
                    cursor.piece.cast_signed(),
                    (cursor.done as u64).cast_signed(),
                ))
            })
            .doing("store how far a unit has come")?;
        }
        self.cursors.insert(shard, cursor);
        Ok(())
    }

    /// A unit that was applied in slices is done; it is counted.
    pub(super) fn end_slices(&mut self, conn: &Connection, shard: Shard, changes: usize) -> Result<(), Error> {
        conn.prepare_cached(concat!("DELETE FROM ", ours!("slice"), " WHERE shard = ?1"))
            .and_then(|mut statement| statement.execute([shard]))
            .doing("store how far a unit has come")?;
        self.cursors.remove(&shard);
        for (name, by) in [("sliced-units", 1), ("sliced-changes", changes as u64)] {
            set_meta(conn, name, meta(conn, name)?.unwrap_or(0) + by)?;
        }
        Ok(())
    }

    /// The next number of our own. An echo the outbox does not know moves it, too.
    pub(super) fn next_number(&self, shard: Shard, me: Origin) -> u64 {
        let last = self.last.get(&shard).map_or(0, |last| last.0);
        last.max(self.received(shard, me)).max(self.numbered.get(&shard).copied().unwrap_or(0)) + 1
    }

    /// Whether our last unit in this shard still waits for its closing piece.
    pub(super) fn is_open(&self, shard: Shard, me: Origin) -> bool {
        match self.last.get(&shard) {
            Some((number, more)) if *number >= self.received(shard, me) => *more,
            _ => self.is_staging(shard, me),
        }
    }

    /// The last number of ours whose row in the outbox tells nothing any more: it has taken effect, and a later row
    /// says where the numbering goes on.
    pub(super) fn spent(&self, shard: Shard, me: Origin) -> u64 {
        let last = self.last.get(&shard).map_or(0, |last| last.0);
        let done = if crate::flaw!(ReceivedPruned) { self.received(shard, me) } else { self.done(shard, me) };
        done.min(last.saturating_sub(1))
    }

    /// Shards in which a unit of ours waits for its closing piece.
    pub(super) fn open_shards(&self, shards: u32, me: Origin) -> impl Iterator<Item = Shard> {
        (1..=shards).filter(move |&shard| self.is_open(shard, me))
    }

    pub(super) fn route(&self, table: &str) -> Option<bool> {
        self.routes.get(&table.to_ascii_lowercase()).copied()
    }

    /// All routes: tables, and whether each goes to one shard whole.
    pub(super) fn routes(&self) -> impl Iterator<Item = (&str, bool)> {
        self.routes.iter().map(|(table, whole)| (table.as_str(), *whole))
    }

    /// The first route about a table holds for ever; says whether this is the first.
    pub(super) fn set_route(&mut self, conn: &Connection, table: &str, whole: bool) -> Result<bool, Error> {
        let name = table.to_ascii_lowercase();
        if self.routes.contains_key(&name) {
            return Ok(false);
        }
        conn.execute(concat!("INSERT INTO ", ours!("route"), " VALUES (?1, ?2)"), (&name, whole))
            .doing("store a route")?;
        self.routes.insert(name, whole);
        Ok(true)
    }

    /// Puts a batch into the outbox.
    pub(super) fn push(&mut self, conn: &Connection, sealed: &Sealed<'_>, me: Origin) -> Result<(), Error> {
        let at = self.position(sealed.shard);
        let mut deps = Vec::new();
        for ((_, origin), number) in
            self.received.iter().filter(|((shard, origin), _)| *shard == sealed.shard && *origin != me)
        {
            deps.extend([origin.node, origin.incarnation, *number].iter().flat_map(|number| number.to_le_bytes()));
        }
        conn.prepare_cached(concat!(
            "INSERT INTO ",
            ours!("global_change_log"),
            " (shard, number, state, more, clock, deps, at_seq, at_time, at_checksum, checksum, created_at, batch)
              VALUES (?1, ?2, 0, ?3, ?4, ?5, ?6, ?7, ?8, ?9, unixepoch('subsec') * 1000, ?10)"
        ))
        .and_then(|mut statement| {
            statement.execute((
                sealed.shard,
                sealed.number.cast_signed(),
                sealed.more,
                sealed.clock.cast_signed(),
                deps,
                at.seq.cast_signed(),
                at.time.cast_signed(),
                at.checksum.cast_signed(),
                antiphon_core::codec::checksum(sealed.frame).cast_signed(),
                sealed.frame,
            ))
        })
        .doing("put a batch into the outbox")?;
        self.last.insert(sealed.shard, (sealed.number, sealed.more));
        Ok(())
    }

    /// The entry at this place has been dealt with.
    pub(super) fn advance(&mut self, shard: Shard, at: Placement) {
        self.positions.insert(shard, at);
    }

    pub(super) fn receive(&mut self, shard: Shard, origin: Origin, number: u64) {
        self.received.insert((shard, origin), number);
    }

    /// Keeps a piece until its unit closes.
    pub(super) fn stage(
        &mut self,
        conn: &Connection,
        shard: Shard,
        origin: Origin,
        number: u64,
        (changes, frame): (usize, &[u8]),
    ) -> Result<(), Error> {
        conn.prepare_cached(concat!(
            "INSERT INTO ",
            ours!("staged"),
            " (shard, node, incarnation, number, changes, batch) VALUES (?1, ?2, ?3, ?4, ?5, ?6)"
        ))
        .and_then(|mut statement| {
            statement.execute((
                shard,
                origin.node.cast_signed(),
                origin.incarnation.cast_signed(),
                number.cast_signed(),
                (changes as u64).cast_signed(),
                frame,
            ))
        })
        .doing("stage a piece")?;
        self.staged.entry((shard, origin)).or_insert((number, 0)).1 += changes;
        Ok(())
    }

    /// Numbers of the staged pieces of an origin, oldest first.
    pub(super) fn staged_numbers(conn: &Connection, shard: Shard, origin: Origin) -> Result<Vec<u64>, Error> {
        conn.prepare_cached(concat!(
            "SELECT number FROM ",
            ours!("staged"),
            " WHERE shard = ?1 AND node = ?2 AND incarnation = ?3 ORDER BY number"
        ))
        .and_then(|mut statement| {
            let whose = (shard, origin.node.cast_signed(), origin.incarnation.cast_signed());
            statement.query_map(whose, |row| unsigned(row, 0))?.collect::<rusqlite::Result<_>>()
        })
        .doing("read staged pieces")
    }

    /// One staged piece of an origin.
    pub(super) fn staged_piece(conn: &Connection, shard: Shard, origin: Origin, number: u64) -> Result<Vec<u8>, Error> {
        conn.prepare_cached(concat!(
            "SELECT batch FROM ",
            ours!("staged"),
            " WHERE shard = ?1 AND node = ?2 AND incarnation = ?3 AND number = ?4"
        ))
        .and_then(|mut statement| {
            let which = (shard, origin.node.cast_signed(), origin.incarnation.cast_signed(), number.cast_signed());
            statement.query_row(which, |row| row.get(0))
        })
        .doing("read a staged piece")
    }

    /// The staged pieces of an origin, oldest first.
    pub(super) fn staged(&self, conn: &Connection, shard: Shard, origin: Origin) -> Result<Vec<Vec<u8>>, Error> {
        if !self.is_staging(shard, origin) {
            return Ok(Vec::new());
        }
        conn.prepare_cached(concat!(
            "SELECT batch FROM ",
            ours!("staged"),
            " WHERE shard = ?1 AND node = ?2 AND incarnation = ?3 ORDER BY number"
        ))
        .and_then(|mut statement| {
            let whose = (shard, origin.node.cast_signed(), origin.incarnation.cast_signed());
            statement.query_map(whose, |row| row.get(0))?.collect::<rusqlite::Result<_>>()
        })
        .doing("read staged pieces")
    }

    /// The unit of these pieces takes effect now.
    pub(super) fn unstage(&mut self, conn: &Connection, shard: Shard, origin: Origin) -> Result<(), Error> {
        if self.staged.remove(&(shard, origin)).is_some() {
            conn.prepare_cached(concat!(
                "DELETE FROM ",
                ours!("staged"),
                " WHERE shard = ?1 AND node = ?2 AND incarnation = ?3"
            ))
            .and_then(|mut statement| {
                statement.execute((shard, origin.node.cast_signed(), origin.incarnation.cast_signed()))
            })
            .doing("take staged pieces")?;
        }
        Ok(())
    }

    /// Writes where this node stands in a shard; `origins` are those whose watermark moved.
    pub(super) fn write(&self, conn: &Connection, shard: Shard, origins: &[Origin]) -> Result<(), Error> {
        const DOING: &str = "store where this node stands";
        let at = self.position(shard);
        conn.prepare_cached(concat!(
            "INSERT INTO ",
            ours!("position"),
            " (shard, epoch, seq, time, checksum, floor, clock) VALUES (?1, 0, ?2, ?3, ?4, ?6, ?5)
             ON CONFLICT (shard) DO UPDATE SET seq = ?2, time = ?3, checksum = ?4, clock = ?5, floor = ?6"
        ))
        .and_then(|mut statement| {
            statement.execute((
                shard,
                at.seq.cast_signed(),
                at.time.cast_signed(),
                at.checksum.cast_signed(),
                self.clock.cast_signed(),
                self.floor(shard).cast_signed(),
            ))
        })
        .doing(DOING)?;
        let mut statement = conn
            .prepare_cached(concat!(
                "INSERT INTO ",
                ours!("received"),
                " VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (shard, node, incarnation) DO UPDATE SET number = ?4"
            ))
            .doing(DOING)?;
        for origin in origins {
            let number = self.received(shard, *origin);
            statement
                .execute((shard, origin.node.cast_signed(), origin.incarnation.cast_signed(), number.cast_signed()))
                .doing(DOING)?;
        }
        Ok(())
    }
}
