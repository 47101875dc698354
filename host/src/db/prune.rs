//! The outbox is kept short: batches that nobody will ask for again go, oldest first, a few at a time.
//!
//! What may go was applied here from the log, so nothing of it is pending. The newest row of each shard stays whatever
//! its age, for it says where the numbering goes on and whether its unit is still open. Pages that become free are
//! used again by SQLite; the file is never made smaller behind its owner's back.

use super::own::ours;
use super::values::unsigned;
use super::{Database, Doing as _, Error, wait_for_lock};
use rusqlite::Connection;
use std::time::{Duration, Instant};

/// What a batch costs besides its bytes: the row itself and its place in the index.
const BATCH_COST: u64 = 4096;
/// How long a pruning waits for the write lock. It has all the time in the world, and a seal may be behind it.
const LOCK_WAIT_MS: i32 = 20;
/// Deleting ends here even if there is room left: the commit that follows must fit the same 50 ms.
pub(super) const HOLD_MAX: Duration = Duration::from_millis(25);

/// Which of the batches that may go are due.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Due {
    /// Those sealed before this moment, in milliseconds since 1970.
    pub before_ms: u64,
    /// And the oldest others, until so many bytes are gone.
    pub excess_bytes: u64,
}

/// What one step removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// How many batches.
    pub batches: u64,
    /// How many records of clashes.
    pub records: u64,
    /// The bytes of all of them.
    pub bytes: u64,
    /// There is more that is due.
    pub more: bool,
    /// Another connection holds the write lock: nothing was removed.
    pub busy: bool,
    /// How long the write lock was held.
    pub held: Duration,
}

/// A batch that may go.
struct Spent {
    id: i64,
    bytes: u64,
    /// It is old enough.
    aged: bool,
    /// Its shard was read no further.
    cut: bool,
}

impl Database {
    /// Removes batches that are due, in one short transaction; `room` bounds it, counting a little for each batch
    /// besides its bytes. At least one batch goes if any is due.
    ///
    /// # Errors
    /// When SQLite refuses; nothing is removed then.
    pub fn prune(&mut self, due: Due, room: u64) -> Result<Pruned, Error> {
        self.briefly(|db| db.try_prune(due, room))
    }

    /// Does without what can't be removed soon: whoever holds the write lock comes first.
    pub(super) fn briefly(&mut self, remove: impl FnOnce(&mut Self) -> Result<Pruned, Error>) -> Result<Pruned, Error> {
        self.conn.busy_handler(Some(wait_briefly)).doing("set the time to wait for a lock")?;
        let done = remove(self);
        self.conn.busy_handler(Some(wait_for_lock)).doing("set the time to wait for a lock")?;
        match done {
            Err(Error::Sqlite { source, .. })
                if matches!(
                    source.sqlite_error_code(),
                    Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked)
                ) =>
            {
                Ok(Pruned { busy: true, more: true, ..Pruned::default() })
            }
            done => done,
        }
    }

    fn try_prune(&mut self, due: Due, room: u64) -> Result<Pruned, Error> {
        const CLEANING: &str = "clean the outbox up";
        let (spent, more) = self.spent(due, room)?;
        if spent.is_empty() {
            return Ok(Pruned::default());
        }
        let mut begun = Instant::now();
        let pruned = self.transaction(|db| {
            begun = Instant::now();
            let mut pruned = Pruned { more, ..Pruned::default() };
            let mut statement = db
                .conn
                .prepare_cached(concat!("DELETE FROM ", ours!("global_change_log"), " WHERE id = ?1 AND state = 1"))
                .doing(CLEANING)?;
            for Spent { id, bytes, .. } in &spent {
                pruned.batches += statement.execute([id]).doing(CLEANING)? as u64;
                pruned.bytes += bytes;
                if begun.elapsed() > HOLD_MAX {
                    pruned.more = true;
                    break;
                }
            }
            fault!("pruned");
            Ok(pruned)
        })?;
        Ok(Pruned { held: begun.elapsed(), ..pruned })
    }

    /// The batches that are due, oldest first, as many as there is room for; and whether there are more.
    fn spent(&self, due: Due, room: u64) -> Result<(Vec<Spent>, bool), Error> {
        const READING: &str = "read the outbox";
        let shards = self.shards();
        let a_shard = (room / BATCH_COST / u64::from(shards)).max(1);
        let mut found: Vec<Spent> = Vec::new();
        for shard in 1..=shards {
            let mut statement = self
                .conn
                .prepare_cached(concat!(
                    "SELECT id, length(batch), CAST(created_at AS INTEGER) FROM ",
                    ours!("global_change_log"),
                    " WHERE shard = ?1 AND number <= ?2 AND state = 1 ORDER BY number LIMIT ?3"
                ))
                .doing(READING)?;
            let last = self.ledger.spent(shard, self.origin).cast_signed();
            let mut rows = statement.query((shard, last, a_shard.cast_signed())).doing(READING)?;
            let mut read = 0;
            while let Some(row) = rows.next().doing(READING)? {
                let aged = unsigned(row, 2).doing(READING)? < due.before_ms;
                if !aged && due.excess_bytes == 0 {
                    break;
                }
                read += 1;
                let (id, bytes) = (row.get(0).doing(READING)?, unsigned(row, 1).doing(READING)?);
                found.push(Spent { id, bytes, aged, cut: read == a_shard });
            }
        }
        found.sort_by_key(|batch| batch.id);
        let (mut excess, mut left, mut more) = (due.excess_bytes, room, false);
        let mut spent = Vec::new();
        for batch in found {
            if !batch.aged && excess == 0 {
                continue;
            }
            let cost = batch.bytes + BATCH_COST;
            if cost > left && !spent.is_empty() {
                more = true;
                break;
            }
            left = left.saturating_sub(cost);
            excess = excess.saturating_sub(batch.bytes);
            more |= batch.cut;
            spent.push(batch);
        }
        Ok((spent, more))
    }

    /// Bytes of the batches behind row `after`, looking at `batches_max` of them.
    ///
    /// # Errors
    /// When the outbox can't be read.
    pub fn measure_outbox(&self, after: i64, batches_max: u32) -> Result<Measured, Error> {
        measure_outbox(&self.conn, after, batches_max).doing("measure the outbox")
    }
}

/// The size of a stretch of the outbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Measured {
    /// How many batches were looked at.
    pub batches: u32,
    /// Their bytes.
    pub bytes: u64,
    /// The last row looked at.
    pub last: i64,
}

/// The same, on any connection.
pub(crate) fn measure_outbox(conn: &Connection, after: i64, batches_max: u32) -> rusqlite::Result<Measured> {
    // The length of a blob stands in its row's header: no batch is read for it.
    conn.prepare_cached(concat!(
        "SELECT count(*), coalesce(sum(bytes), 0), coalesce(max(id), ?1)
         FROM (SELECT id, length(batch) AS bytes FROM ",
        ours!("global_change_log"),
        " WHERE id > ?1 ORDER BY id LIMIT ?2)"
    ))?
    .query_row((after, batches_max), |row| {
        Ok(Measured { batches: row.get(0)?, bytes: unsigned(row, 1)?, last: row.get(2)? })
    })
}

fn wait_briefly(times: i32) -> bool {
    std::thread::sleep(super::BUSY_POLL);
    times < LOCK_WAIT_MS
}
