//! Who this node is, and the cluster it belongs to.

use super::harmonylite::forget_adoption;
use super::own::{meta, ours, set_meta};
use super::{Cluster, Doing as _, Error};
use crate::words::count;
use antiphon_core::entry::Origin;
use rusqlite::{Connection, OptionalExtension as _};

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
        ours!("slice"),
        "; DELETE FROM ",
        ours!("displaced"),
        "; DELETE FROM ",
        ours!("owed"),
        "; DELETE FROM ",
        ours!("stray"),
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
    forget_adoption(conn)?;
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

/// The first entry of the cluster's log, as bytes: kept, for a log may be cut at its beginning.
pub(super) fn genesis(conn: &Connection) -> Result<Option<Vec<u8>>, Error> {
    conn.query_row(concat!("SELECT value FROM ", ours!("meta"), " WHERE name = 'genesis'"), [], |row| row.get(0))
        .optional()
        .doing("read the cluster's beginning")
}

pub(super) fn keep_genesis(conn: &Connection, frame: &[u8]) -> Result<(), Error> {
    conn.execute(concat!("INSERT OR IGNORE INTO ", ours!("meta"), " VALUES ('genesis', ?1)"), [frame])
        .map(|_| ())
        .doing("keep the cluster's beginning")
}

/// Whether this node founded the cluster and has not yet sent all rows it had.
pub(super) fn founding(conn: &Connection) -> Result<bool, Error> {
    Ok(meta(conn, "founding")? == Some(1))
}
