//! The outbox: batches that the log does not have yet, and for a while those it has.

use super::own::ours;
use super::values::unsigned;
use super::{Doing as _, Error};
use crate::log::Shard;
use antiphon_core::entry::Origin;
use rusqlite::{Connection, OptionalExtension as _};

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

/// Notes that batches up to `number` are in the log, and those above are not, whatever was noted before.
pub(super) fn confirm_only(conn: &Connection, shard: Shard, number: u64) -> Result<(), Error> {
    conn.prepare_cached(concat!("UPDATE ", ours!("global_change_log"), " SET state = number <= ?2 WHERE shard = ?1"))
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
