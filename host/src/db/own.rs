//! The host's own tables in the application's file.
//!
//! Every one of them is written in the same transaction as the rows it speaks of. Syntax is that of old
//! SQLites, for the application's library must be able to read a schema that holds them.

use super::{Doing as _, Error};
use rusqlite::{Connection, OptionalExtension as _};

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
        " (shard, node, incarnation, number, batch, changes,
             PRIMARY KEY (shard, node, incarnation, number));",
        "CREATE TABLE IF NOT EXISTS ",
        ours!("slice"),
        " (shard INTEGER PRIMARY KEY, node, incarnation, number, seq, time, checksum, piece, done);",
        "CREATE TABLE IF NOT EXISTS ",
        ours!("displaced"),
        " (id INTEGER PRIMARY KEY, shard, tbl, key, winner, columns, image, UNIQUE (tbl, key));",
        "CREATE TABLE IF NOT EXISTS ",
        ours!("shadow"),
        " (tbl, key, columns, image, seen, PRIMARY KEY (tbl, key));",
        "CREATE TABLE IF NOT EXISTS ",
        ours!("conflict"),
        " (id INTEGER PRIMARY KEY, shard, seq, clock, noted, tbl, key, cause, resolver, verdict,
             winner_node, loser_node, columns, winner, loser, merged, reason);",
        "CREATE TABLE IF NOT EXISTS ",
        ours!("stamp"),
        " (tbl, key, seq, node, incarnation, other, clock, PRIMARY KEY (tbl, key));",
        "CREATE TABLE IF NOT EXISTS ",
        ours!("route"),
        " (tbl TEXT PRIMARY KEY, whole);",
        "CREATE TABLE IF NOT EXISTS ",
        ours!("decided"),
        " (version INTEGER PRIMARY KEY, seq, policies);",
        "CREATE TABLE IF NOT EXISTS ",
        ours!("in_force"),
        " (shard, version, seq, PRIMARY KEY (shard, version));",
        "CREATE TABLE IF NOT EXISTS ",
        ours!("inherited"),
        " (shard, seq, PRIMARY KEY (shard, seq));",
        "CREATE TABLE IF NOT EXISTS ",
        ours!("anew"),
        " (shard, seq, before_seq, before_time, before_checksum, PRIMARY KEY (shard, seq));",
        "CREATE TABLE IF NOT EXISTS ",
        ours!("owed"),
        " (shard, node, incarnation, number, time, given_up, PRIMARY KEY (shard, node, incarnation));",
        "CREATE TABLE IF NOT EXISTS ",
        ours!("stray"),
        " (shard, tbl, key, columns, image, base_columns, base, place, PRIMARY KEY (tbl, key));",
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
    // Files of earlier builds have these tables without these columns.
    for (table, column) in
        [("__antiphon___conflict", "noted"), ("__antiphon___conflict", "reason"), ("__antiphon___staged", "changes")]
    {
        if !has_column(conn, table, column).doing("look at the host's tables")? {
            conn.execute_batch(&format!("ALTER TABLE main.\"{table}\" ADD COLUMN {column}"))
                .doing("create the host's tables")?;
        }
    }
    Ok(())
}

fn has_column(conn: &Connection, table: &str, column: &str) -> rusqlite::Result<bool> {
    conn.prepare("SELECT 1 FROM pragma_table_info(?1) WHERE name = ?2")?.exists((table, column))
}

/// One of the node's numbers.
pub(super) fn meta(conn: &Connection, name: &str) -> Result<Option<u64>, Error> {
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

/// The triggers whose names begin so, and then the tables, each with its kind.
pub(super) fn objects(conn: &Connection, prefix: &str) -> Result<Vec<(String, String)>, Error> {
    conn.prepare(
        "SELECT type, name FROM main.sqlite_schema
         WHERE substr(name, 1, length(?1)) = ?1 AND type IN ('trigger', 'table') ORDER BY type DESC, name",
    )
    .and_then(|mut statement| {
        statement.query_map([prefix], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<rusqlite::Result<_>>()
    })
    .doing("list triggers and tables of a host")
}
