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

/// They are noted in order: all below the last one that was noted have been, and there may be very many of those.
const CONFIRM: &str = concat!(
    "UPDATE ",
    ours!("global_change_log"),
    " SET state = 1 WHERE shard = ?1 AND number <= ?2 AND number > coalesce((SELECT number FROM ",
    ours!("global_change_log"),
    " WHERE shard = ?1 AND number <= ?2 AND state = 1 ORDER BY number DESC LIMIT 1), -1)"
);

/// Notes that batches up to `number` are in the log; their rows stay until they are stable.
pub(super) fn confirm(conn: &Connection, shard: Shard, number: u64) -> Result<(), Error> {
    conn.prepare_cached(CONFIRM)
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

/// What each batch above `number` was made upon, of others.
pub(super) fn made_upon(conn: &Connection, shard: Shard, number: u64) -> Result<Vec<Vec<(Origin, u64)>>, Error> {
    conn.prepare_cached(concat!("SELECT deps FROM ", ours!("global_change_log"), " WHERE shard = ?1 AND number > ?2"))
        .and_then(|mut statement| {
            let read = |row: &rusqlite::Row<'_>| Ok(read_deps(row.get_ref(0)?.as_blob()?));
            statement.query_map((shard, number.cast_signed()), read)?.collect()
        })
        .doing("read what batches were made upon")
}

fn read_deps(bytes: &[u8]) -> Vec<(Origin, u64)> {
    let number = |bytes: Option<&[u8]>| bytes.and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes);
    bytes
        .chunks_exact(24)
        .map(|dep| (Origin { node: number(dep.get(..8)), incarnation: number(dep.get(8..16)) }, number(dep.get(16..))))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::own;
    use rusqlite::StatementStatus;

    fn with(batches: u64) -> Connection {
        let conn = Connection::open_in_memory().unwrap();
        own::create(&conn).unwrap();
        let sql = concat!("INSERT INTO ", ours!("global_change_log"), " (shard, number, state) VALUES (?1, ?2, 0)");
        for (shard, number) in (1..=2).flat_map(|shard| (1..=batches).map(move |number| (shard, number))) {
            conn.execute(sql, (shard, number.cast_signed())).unwrap();
        }
        conn
    }

    /// The numbers of those of shard 1 that are in the log.
    fn confirmed(conn: &Connection) -> Vec<i64> {
        let sql = concat!("SELECT number FROM ", ours!("global_change_log"), " WHERE shard = 1 AND state = 1");
        let mut statement = conn.prepare(sql).unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().collect::<rusqlite::Result<_>>().unwrap()
    }

    #[test]
    fn batches_are_confirmed_in_order() {
        let conn = with(6);
        for (up_to, confirmed_up_to) in [(0, 0), (2, 2), (1, 2), (2, 2), (5, 5), (9, 6)] {
            confirm(&conn, 1, up_to).unwrap();
            assert_eq!(confirmed(&conn), (1..=confirmed_up_to).collect::<Vec<_>>());
        }
        confirm_only(&conn, 1, 3).unwrap();
        assert_eq!(confirmed(&conn), [1, 2, 3]);
        confirm(&conn, 1, 4).unwrap();
        assert_eq!(confirmed(&conn), [1, 2, 3, 4]);
    }

    /// One more is confirmed as quickly however many have been, for the application waits for it.
    #[test]
    fn to_confirm_a_batch_is_no_more_work_with_many_before_it() {
        let steps = |before: u64| {
            let conn = with(before + 1);
            confirm(&conn, 1, before).unwrap();
            let all = || conn.prepare_cached(CONFIRM).unwrap().get_status(StatementStatus::VmStep);
            let so_far = all();
            confirm(&conn, 1, before + 1).unwrap();
            assert_eq!(confirmed(&conn).len() as u64, before + 1);
            all() - so_far
        };
        assert_eq!(steps(10), steps(2_000));
    }
}
