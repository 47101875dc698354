//! Records of clashes that were kept long enough go, oldest first, a few at a time.

use super::own::ours;
use super::prune::{HOLD_MAX, Pruned};
use super::values::unsigned;
use super::{Database, Doing as _, Error};
use crate::clock::{is_to_come, unix_ms};
use std::time::Instant;

/// What a record costs besides its rows.
const RECORD_COST: u64 = 1024;

/// A record that may go.
struct Expired {
    id: i64,
    bytes: u64,
}

impl Database {
    /// Removes records of clashes that this node noted before a moment, in milliseconds since 1970; in one short
    /// transaction, which `room` bounds as it does that of [`Database::prune`].
    ///
    /// # Errors
    /// When SQLite refuses; nothing is removed then.
    pub fn prune_records(&mut self, before_ms: u64, room: u64) -> Result<Pruned, Error> {
        self.briefly(|db| db.try_prune_records(before_ms, room))
    }

    fn try_prune_records(&mut self, before_ms: u64, room: u64) -> Result<Pruned, Error> {
        const CLEANING: &str = "remove old records of clashes";
        let (expired, more) = self.expired(before_ms, room)?;
        if expired.is_empty() {
            return Ok(Pruned::default());
        }
        let mut begun = Instant::now();
        let pruned = self.transaction(|db| {
            begun = Instant::now();
            let mut pruned = Pruned { more, ..Pruned::default() };
            let mut statement =
                db.conn.prepare_cached(concat!("DELETE FROM ", ours!("conflict"), " WHERE id = ?1")).doing(CLEANING)?;
            for Expired { id, bytes } in &expired {
                pruned.records += statement.execute([id]).doing(CLEANING)? as u64;
                pruned.bytes += bytes;
                if begun.elapsed() > HOLD_MAX {
                    pruned.more = true;
                    break;
                }
            }
            Ok(pruned)
        })?;
        Ok(Pruned { held: begun.elapsed(), ..pruned })
    }

    /// The oldest records that are due, as many as there is room for; and whether there may be more.
    fn expired(&self, before_ms: u64, room: u64) -> Result<(Vec<Expired>, bool), Error> {
        const READING: &str = "read the records of clashes";
        // Numbers grow with time, so nothing but the beginning of the table is ever read. Records of earlier builds
        // don't say when they were noted; the change's own time is near enough.
        let mut statement = self
            .conn
            .prepare_cached(concat!(
                "SELECT id, coalesce(length(winner), 0) + coalesce(length(loser), 0) + coalesce(length(merged), 0),
                     coalesce(noted, clock, 0) FROM ",
                ours!("conflict"),
                " ORDER BY id"
            ))
            .doing(READING)?;
        let now_ms = unix_ms();
        let mut rows = statement.query([]).doing(READING)?;
        let (mut expired, mut left) = (Vec::new(), room);
        while let Some(row) = rows.next().doing(READING)? {
            let noted_ms = unsigned(row, 2).doing(READING)?;
            if noted_ms >= before_ms {
                // Noted while the clock was wrong, it says nothing of those behind it.
                if is_to_come(noted_ms, now_ms) {
                    continue;
                }
                break;
            }
            let record = Expired { id: row.get(0).doing(READING)?, bytes: unsigned(row, 1).doing(READING)? };
            let cost = record.bytes + RECORD_COST;
            if cost > left && !expired.is_empty() {
                return Ok((expired, true));
            }
            left = left.saturating_sub(cost);
            expired.push(record);
        }
        Ok((expired, false))
    }
}
