//! What a database says of its node.

use super::{Clashes, Outbox, Pending, Sliced, changes_in};
use crate::db;
use crate::log::Shard;
use antiphon_core::capture::PREFIX;
use antiphon_core::schema::quote;
use rusqlite::{Connection, OptionalExtension as _};
use std::collections::BTreeMap;
use std::path::Path;

/// Batches of the outbox measured in one read transaction.
const MEASURED_MAX: u32 = 10_000;

/// What a database says of its node.
#[derive(Default)]
pub(super) struct Stored {
    pub(super) node: Option<u64>,
    pub(super) incarnation: Option<u64>,
    pub(super) cluster: Option<String>,
    pub(super) positions: BTreeMap<Shard, u64>,
    pub(super) pending: Pending,
    pub(super) outbox_oldest: Option<f64>,
    pub(super) clashes: Vec<Clashes>,
    pub(super) sliced: Sliced,
    /// Entries that were left out, for another sent them than they said.
    pub(super) forged: u64,
}

/// What the host's tables say, in one short read transaction.
pub(super) fn read(path: &Path, now_ms: u64) -> rusqlite::Result<Stored> {
    let mut conn = db::look(path)?;
    let look = conn.transaction()?;
    let has_tables = look.prepare("SELECT 1 FROM main.sqlite_schema WHERE name = '__antiphon___meta'")?.exists([])?;
    if !has_tables {
        return Ok(Stored::default());
    }
    let meta = |name: &str| -> rusqlite::Result<Option<u64>> {
        let value = look
            .query_row("SELECT value FROM main.\"__antiphon___meta\" WHERE name = ?1", [name], |row| row.get(0))
            .optional()?;
        Ok(value.map(i64::cast_unsigned))
    };
    let cluster: Option<Vec<u8>> = look
        .query_row("SELECT value FROM main.\"__antiphon___meta\" WHERE name = 'cluster'", [], |row| row.get(0))
        .optional()?;
    let node = meta("node")?;
    let incarnation = meta("incarnation")?;
    let shards = meta("shards")?.and_then(|shards| Shard::try_from(shards).ok()).unwrap_or(0);
    let mut positions: BTreeMap<Shard, u64> = (1..=shards).map(|shard| (shard, 0)).collect();
    let mut statement = look.prepare("SELECT shard, seq FROM main.\"__antiphon___position\"")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        positions.insert(row.get(0)?, row.get::<_, i64>(1)?.cast_unsigned());
    }
    let clashes = look
        .prepare(
            "SELECT resolver, verdict, cause, count(*) FROM main.\"__antiphon___conflict\"
             GROUP BY 1, 2, 3 ORDER BY 1, 2, 3",
        )?
        .query_map([], |row| {
            let count: i64 = row.get(3)?;
            Ok(Clashes {
                resolver: row.get(0)?,
                verdict: row.get(1)?,
                cause: row.get(2)?,
                count: count.cast_unsigned(),
            })
        })?
        .collect::<rusqlite::Result<_>>()?;
    let sliced = Sliced {
        units: meta("sliced-units")?.unwrap_or(0),
        changes: meta("sliced-changes")?.unwrap_or(0),
        under_way: look
            .prepare("SELECT shard FROM main.\"__antiphon___slice\" ORDER BY shard")?
            .query_map([], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?,
    };
    let forged = meta("forged")?.unwrap_or(0);
    let outbox_oldest: Option<f64> = look
        .query_row("SELECT created_at FROM main.\"__antiphon___global_change_log\" ORDER BY id LIMIT 1", [], |row| {
            row.get(0)
        })
        .optional()?;
    let pending = pending(&look, (node, incarnation), &positions, now_ms)?;
    Ok(Stored {
        node,
        incarnation,
        cluster: cluster.map(|id| id.iter().map(|byte| format!("{byte:02x}")).collect()),
        pending,
        positions,
        outbox_oldest: outbox_oldest.map(|then| since(then, now_ms)),
        clashes,
        forged,
        sliced,
    })
}

/// Seconds since a time that SQLite computed.
#[expect(clippy::cast_precision_loss, reason = "an age for people")]
fn since(then_ms: f64, now_ms: u64) -> f64 {
    ((now_ms as f64 - then_ms) / 1000.0).max(0.0)
}

fn pending(
    look: &Connection,
    (node, incarnation): (Option<u64>, Option<u64>),
    positions: &BTreeMap<Shard, u64>,
    now_ms: u64,
) -> rusqlite::Result<Pending> {
    let mut pending = Pending { changes: Some(0), ..Pending::default() };
    let mut logs = look.prepare(
        "SELECT name FROM main.sqlite_schema WHERE type = 'table' AND substr(name, 1, length(?1)) = ?1
         AND name LIKE '%\\_change\\_log' ESCAPE '\\' AND name <> '__antiphon___global_change_log'",
    )?;
    let mut names = logs.query([PREFIX])?;
    while let Some(row) = names.next()? {
        let name: String = row.get(0)?;
        let count: i64 =
            look.query_row(&format!("SELECT count(*) FROM main.{}", quote(&name)), [], |row| row.get(0))?;
        pending.marks += count.cast_unsigned();
    }
    let mut received = look.prepare(
        "SELECT number FROM main.\"__antiphon___received\" WHERE shard = ?1 AND node = ?2 AND incarnation = ?3",
    )?;
    // By number and not by `state`: so the index finds them, however long the outbox is.
    let mut waiting = look.prepare(
        "SELECT created_at, length(batch), batch FROM main.\"__antiphon___global_change_log\"
         WHERE shard = ?1 AND number > ?2 ORDER BY number",
    )?;
    let me = (node.unwrap_or(0).cast_signed(), incarnation.unwrap_or(0).cast_signed());
    // A node without a cluster has sealed nothing.
    for &shard in positions.keys() {
        let number: Option<i64> = received.query_row((shard, me.0, me.1), |row| row.get(0)).optional()?;
        let mut rows = waiting.query((shard, number.unwrap_or(0)))?;
        while let Some(row) = rows.next()? {
            let seconds = since(row.get(0)?, now_ms);
            pending.seconds = Some(pending.seconds.map_or(seconds, |oldest| oldest.max(seconds)));
            pending.batches += 1;
            pending.bytes += row.get::<_, i64>(1)?.cast_unsigned();
            pending.changes = match pending.changes {
                Some(changes)
                    if pending.batches <= super::COUNTED_MAX && pending.bytes <= super::COUNTED_BYTES_MAX as u64 =>
                {
                    Some(changes + changes_in(row.get_ref(2)?.as_blob().unwrap_or_default()))
                }
                _ => None,
            };
        }
    }
    Ok(pending)
}

/// The whole outbox, a stretch at a time, so that no read transaction stands for long.
pub(super) fn measure(path: &Path, oldest: Option<f64>) -> rusqlite::Result<Outbox> {
    let conn = db::look(path)?;
    let mut outbox = Outbox { seconds: oldest, ..Outbox::default() };
    let mut last = 0;
    loop {
        let measured = db::measure_outbox(&conn, last, MEASURED_MAX)?;
        outbox.batches += u64::from(measured.batches);
        outbox.bytes += measured.bytes;
        last = measured.last;
        if measured.batches < MEASURED_MAX {
            return Ok(outbox);
        }
    }
}
