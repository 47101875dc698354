//! The host's own tables: who this node is, where it stands, and what it has still to say.
//!
//! Every one of them is written in the same transaction as the rows it speaks of. Syntax is that of old
//! SQLites, for the application's library must be able to read a schema that holds them.

use super::{Cluster, Doing as _, Error};
use crate::log::Shard;
use crate::words::count;
use antiphon_core::capture::PREFIX;
use antiphon_core::entry::Origin;
use rusqlite::{Connection, OptionalExtension as _};
use std::collections::{BTreeMap, HashMap};

/// One of the host's own tables.
macro_rules! ours {
    ($name:literal) => {
        concat!("main.\"__antiphon___", $name, "\"")
    };
}
pub(super) use ours;

/// Creates what is missing.
pub(super) fn create(conn: &Connection) -> Result<(), Error> {
    conn.execute_batch(concat!(
        "CREATE TABLE IF NOT EXISTS ",
        ours!("meta"),
        " (name TEXT PRIMARY KEY, value);",
        "CREATE TABLE IF NOT EXISTS ",
        ours!("position"),
        " (shard INTEGER PRIMARY KEY, epoch, seq, time, checksum, floor, clock);",
        "CREATE TABLE IF NOT EXISTS ",
        ours!("received"),
        " (shard, node, incarnation, number, PRIMARY KEY (shard, node, incarnation));",
        "CREATE TABLE IF NOT EXISTS ",
        ours!("global_change_log"),
        " (id INTEGER PRIMARY KEY, shard, number, state, more, clock,
             deps, at_seq, at_time, at_checksum, checksum, created_at, batch, UNIQUE (shard, number));",
        "CREATE TABLE IF NOT EXISTS ",
        ours!("staged"),
        " (shard, node, incarnation, number, batch,
             PRIMARY KEY (shard, node, incarnation, number));",
        "CREATE TABLE IF NOT EXISTS ",
        ours!("shadow"),
        " (tbl, key, columns, image, seen, PRIMARY KEY (tbl, key));",
        "CREATE TABLE IF NOT EXISTS ",
        ours!("conflict"),
        " (id INTEGER PRIMARY KEY, shard, seq, clock, noted, tbl, key, cause, resolver, verdict,
             winner_node, loser_node, columns, winner, loser, merged);",
        "CREATE TABLE IF NOT EXISTS ",
        ours!("stamp"),
        " (tbl, key, seq, node, incarnation, other, clock, PRIMARY KEY (tbl, key));",
        "CREATE TABLE IF NOT EXISTS ",
        ours!("route"),
        " (tbl TEXT PRIMARY KEY, whole);",
        "CREATE TABLE IF NOT EXISTS ",
        ours!("scan"),
        " (tbl TEXT PRIMARY KEY, key);",
        "CREATE TABLE IF NOT EXISTS ",
        ours!("known"),
        " (tbl TEXT PRIMARY KEY COLLATE NOCASE, state, since);",
        "CREATE TABLE IF NOT EXISTS ",
        ours!("renamed"),
        " (old TEXT PRIMARY KEY COLLATE NOCASE, now);",
        "CREATE TABLE IF NOT EXISTS ",
        ours!("oversized"),
        " (tbl TEXT COLLATE NOCASE, key, bytes, base, PRIMARY KEY (tbl, key));",
    ))
    .doing("create the host's tables")?;
    // Files of earlier builds have the table without this column.
    if !has_column(conn, "__antiphon___conflict", "noted").doing("look at the host's tables")? {
        conn.execute_batch(concat!("ALTER TABLE ", ours!("conflict"), " ADD COLUMN noted"))
            .doing("create the host's tables")?;
    }
    Ok(())
}

fn has_column(conn: &Connection, table: &str, column: &str) -> rusqlite::Result<bool> {
    conn.prepare("SELECT 1 FROM pragma_table_info(?1) WHERE name = ?2")?.exists((table, column))
}

/// Draws this node's identity if the file has none; a number the user gives replaces one that was drawn.
pub(super) fn identify(conn: &Connection, asked: u64) -> Result<(), Error> {
    let known = meta(conn, "node")?;
    let node = match (known, asked) {
        (None, 0) => random()?,
        (Some(known), 0) => known,
        (_, asked) => asked,
    };
    if known == Some(node) {
        return Ok(());
    }
    if let Some(known) = known {
        let waiting: i64 = conn
            .query_row(concat!("SELECT count(*) FROM ", ours!("global_change_log"), " WHERE state = 0"), [], |row| {
                row.get(0)
            })
            .doing("read the outbox")?;
        if waiting > 0 {
            return Err(Error::Inconsistent(format!(
                "`node_id` is {node} now, but node {known} has {} still to send; \
                 start once more with `node_id = {known}` until that is done",
                count(waiting.unsigned_abs(), "batch", "batches")
            )));
        }
        // Another node is another origin: its numbering starts anew.
        conn.execute(concat!("DELETE FROM ", ours!("global_change_log")), []).doing("empty the outbox")?;
    }
    set_meta(conn, "node", node)?;
    set_meta(conn, "incarnation", random()?)?;
    Ok(())
}

/// Draws another identity for a file that is a copy, or whose rows were settled anew: a number the user gives stays.
/// What the old one had still to say is forgotten, and what was staged is the log's.
pub(super) fn begin_life(conn: &Connection, asked: u64) -> Result<(), Error> {
    set_meta(conn, "node", if asked == 0 { random()? } else { asked })?;
    set_meta(conn, "incarnation", random()?)?;
    set_meta(conn, "founding", 0)?;
    conn.execute_batch(concat!(
        "DELETE FROM ",
        ours!("global_change_log"),
        "; DELETE FROM ",
        ours!("shadow"),
        "; DELETE FROM ",
        ours!("scan"),
        "; DELETE FROM ",
        ours!("oversized"),
        "; DELETE FROM ",
        ours!("meta"),
        " WHERE name LIKE 'route:%' OR name LIKE 'fresh:%'"
    ))
    .doing("begin another life")
}

/// The rows are the log's from here on: nothing was passed over, and all that is written is noted.
pub(super) fn settle(conn: &Connection) -> Result<(), Error> {
    conn.execute(concat!("DELETE FROM ", ours!("meta"), " WHERE name LIKE 'unread:%'"), [])
        .doing("write the host's state")?;
    // Tables that are there are as the log says; those that are gone stay so.
    conn.execute(concat!("UPDATE ", ours!("known"), " SET state = 'here' WHERE state <> 'gone'"), [])
        .doing("write the host's state")?;
    set_meta(conn, "captured", 1)
}

/// Whether what the application writes has been noted all the time.
pub(super) fn captured(conn: &Connection) -> Result<bool, Error> {
    Ok(meta(conn, "captured")? != Some(0))
}

fn random() -> Result<u64, Error> {
    // Kept below 2^63 so that the number reads the same in SQL, in a log line and in a config.
    let number = getrandom::u64().map_err(|error| Error::Inconsistent(format!("no randomness: {error}")))?;
    Ok((number >> 1).max(1))
}

fn meta(conn: &Connection, name: &str) -> Result<Option<u64>, Error> {
    let value: Option<i64> = conn
        .prepare_cached(concat!("SELECT value FROM ", ours!("meta"), " WHERE name = ?1"))
        .and_then(|mut statement| statement.query_row([name], |row| row.get(0)).optional())
        .doing("read the host's state")?;
    Ok(value.map(i64::cast_unsigned))
}

pub(super) fn set_meta(conn: &Connection, name: &str, value: u64) -> Result<(), Error> {
    conn.execute(
        concat!(
            "INSERT INTO ",
            ours!("meta"),
            " VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = excluded.value"
        ),
        (name, value.cast_signed()),
    )
    .doing("write the host's state")?;
    Ok(())
}

/// Who this node is, and the cluster it belongs to.
pub(super) fn identity(conn: &Connection) -> Result<(Origin, Option<Cluster>), Error> {
    let missing = || Error::Inconsistent("the node's number is missing".to_owned());
    let origin = Origin {
        node: meta(conn, "node")?.ok_or_else(missing)?,
        incarnation: meta(conn, "incarnation")?.ok_or_else(missing)?,
    };
    let id: Option<Vec<u8>> = conn
        .query_row(concat!("SELECT value FROM ", ours!("meta"), " WHERE name = 'cluster'"), [], |row| row.get(0))
        .optional()
        .doing("read the cluster's identity")?;
    let cluster = match (id, meta(conn, "shards")?) {
        (Some(id), Some(shards)) => Some(Cluster {
            id: id.try_into().map_err(|_| Error::Inconsistent("the cluster's identity is damaged".to_owned()))?,
            shards: u32::try_from(shards)
                .map_err(|_| Error::Inconsistent("the number of shards is damaged".to_owned()))?,
        }),
        _ => None,
    };
    Ok((origin, cluster))
}

pub(super) fn set_cluster(conn: &Connection, cluster: Cluster, founding: bool) -> Result<(), Error> {
    conn.execute(
        concat!(
            "INSERT INTO ",
            ours!("meta"),
            " VALUES ('cluster', ?1) ON CONFLICT (name) DO UPDATE SET value = excluded.value"
        ),
        [cluster.id.as_slice()],
    )
    .doing("write the cluster's identity")?;
    set_meta(conn, "shards", u64::from(cluster.shards))?;
    set_meta(conn, "founding", u64::from(founding))
}

/// Whether this node founded the cluster and has not yet sent all rows it had.
pub(super) fn founding(conn: &Connection) -> Result<bool, Error> {
    Ok(meta(conn, "founding")? == Some(1))
}

/// One entry in one place of the log: a stream that was made anew, or rolled back, has another one there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// Position in the shard; 0 = before the first entry.
    pub seq: u64,
    /// When the log took it, by the log's own clock.
    pub time: u64,
    /// The entry's checksum.
    pub checksum: u64,
}

/// A batch in the outbox that the log does not have yet.
#[derive(Clone, Debug)]
pub struct Unsent {
    /// Its number in this shard.
    pub number: u64,
    /// Watermarks of other origins that the log must have reached before.
    pub deps: Vec<(Origin, u64)>,
    /// The bytes to append: the same at every try.
    pub frame: Vec<u8>,
}

/// What a seal hands to the outbox.
pub(super) struct Sealed<'a> {
    pub(super) shard: Shard,
    pub(super) number: u64,
    pub(super) more: bool,
    pub(super) clock: u64,
    pub(super) frame: &'a [u8],
}

/// Where this node stands, in memory; written back in the transaction that moves it.
#[derive(Clone, Debug, Default)]
pub(super) struct Ledger {
    positions: BTreeMap<Shard, Placement>,
    received: HashMap<(Shard, Origin), u64>,
    /// The first staged piece of each open unit.
    staged: HashMap<(Shard, Origin), u64>,
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
            concat!("SELECT shard, node, incarnation, min(number) FROM ", ours!("staged"), " GROUP BY 1, 2, 3"),
            &mut |row| {
                if !crate::flaw!(StagedForgotten) {
                    ledger.staged.insert((row.get(0)?, origin(row, 1)?), unsigned(row, 3)?);
                }
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
            Some(first) => first.saturating_sub(1),
            None => self.received(shard, origin),
        }
    }

    pub(super) fn is_staging(&self, shard: Shard, origin: Origin) -> bool {
        self.staged.contains_key(&(shard, origin))
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
        frame: &[u8],
    ) -> Result<(), Error> {
        conn.prepare_cached(concat!("INSERT INTO ", ours!("staged"), " VALUES (?1, ?2, ?3, ?4, ?5)"))
            .and_then(|mut statement| {
                statement.execute((
                    shard,
                    origin.node.cast_signed(),
                    origin.incarnation.cast_signed(),
                    number.cast_signed(),
                    frame,
                ))
            })
            .doing("stage a piece")?;
        self.staged.entry((shard, origin)).or_insert(number);
        Ok(())
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

/// Notes that batches up to `number` are in the log; their rows stay until they are stable.
pub(super) fn confirm(conn: &Connection, shard: Shard, number: u64) -> Result<(), Error> {
    conn.prepare_cached(concat!(
        "UPDATE ",
        ours!("global_change_log"),
        " SET state = 1 WHERE shard = ?1 AND number <= ?2 AND state = 0"
    ))
    .and_then(|mut statement| statement.execute((shard, number.cast_signed())))
    .doing("confirm a batch")?;
    Ok(())
}

/// Whether an echo is the batch that the outbox has under this number; one it does not know is taken as it comes.
pub(super) fn is_mine(conn: &Connection, shard: Shard, number: u64, checksum: u64) -> Result<bool, Error> {
    let known: Option<i64> = conn
        .prepare_cached(concat!(
            "SELECT checksum FROM ",
            ours!("global_change_log"),
            " WHERE shard = ?1 AND number = ?2"
        ))
        .and_then(|mut statement| statement.query_row((shard, number.cast_signed()), |row| row.get(0)).optional())
        .doing("read the outbox")?;
    Ok(known.is_none_or(|known| known.cast_unsigned() == checksum))
}

/// Batches above `number`, oldest first, until `bytes_max` of them are at hand.
pub(super) fn unsent(conn: &Connection, shard: Shard, number: u64, bytes_max: usize) -> Result<Vec<Unsent>, Error> {
    const READING: &str = "read the outbox";
    let mut statement = conn
        .prepare_cached(concat!(
            "SELECT number, deps, batch FROM ",
            ours!("global_change_log"),
            " WHERE shard = ?1 AND number > ?2 ORDER BY number"
        ))
        .doing(READING)?;
    let mut rows = statement.query((shard, number.cast_signed())).doing(READING)?;
    let mut found = Vec::new();
    let mut bytes = 0;
    while let Some(row) = rows.next().doing(READING)? {
        let frame: Vec<u8> = row.get(2).doing(READING)?;
        bytes += frame.len();
        let deps: Vec<u8> = row.get(1).doing(READING)?;
        found.push(Unsent { number: unsigned(row, 0).doing(READING)?, deps: read_deps(&deps), frame });
        if bytes >= bytes_max {
            break;
        }
    }
    Ok(found)
}

fn read_deps(bytes: &[u8]) -> Vec<(Origin, u64)> {
    let number = |bytes: Option<&[u8]>| bytes.and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes);
    bytes
        .chunks_exact(24)
        .map(|dep| (Origin { node: number(dep.get(..8)), incarnation: number(dep.get(8..16)) }, number(dep.get(16..))))
        .collect()
}

pub(super) fn unsigned(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(column).map(i64::cast_unsigned)
}

pub(super) fn origin(row: &rusqlite::Row<'_>, first: usize) -> rusqlite::Result<Origin> {
    Ok(Origin { node: unsigned(row, first)?, incarnation: unsigned(row, first + 1)? })
}

/// Every table of the host's: what `cleanup` removes.
pub(super) fn ours_in(conn: &Connection) -> Result<Vec<(String, String)>, Error> {
    conn.prepare("SELECT type, name FROM main.sqlite_schema WHERE substr(name, 1, length(?1)) = ?1 AND type IN ('trigger', 'table') ORDER BY type DESC, name")
        .and_then(|mut statement| {
            statement.query_map([PREFIX], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<rusqlite::Result<_>>()
        })
        .doing("list the host's tables")
}
