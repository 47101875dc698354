//! What a database says of its node to the process itself: a few look-ups by index, whatever waits and however long.
//!
//! [`crate::status`] asks the same from outside, with a connection of its own. Here a second one is not opened: whoever
//! closes the file would end the locks of SQLite that this process has on it.

use super::own::{meta, ours};
use super::values::unsigned;
use super::{Database, Doing as _, Error};
use crate::log::Shard;
use antiphon_core::capture::change_log;
use antiphon_core::entry::{ClusterId, Origin};
use antiphon_core::schema::quote;
use std::time::{Duration, Instant};

const LOOKING: &str = "see how this node is";
/// Instructions of SQLite between two looks at the clock while rows are counted.
const COUNT_STEPS: i32 = 10_000;

/// What a seal took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Costs {
    /// The look for changes.
    pub looked: Option<Duration>,
    /// The transaction that read them, if there were any.
    pub sealed: Option<Duration>,
}

/// Clashes that were decided alike.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Clashed {
    /// The policy.
    pub resolver: String,
    /// What it said.
    pub verdict: String,
    /// What clashed.
    pub cause: String,
    /// How many.
    pub count: u64,
}

/// What a database says of its node.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// This node, in this life.
    pub origin: Origin,
    /// Its cluster.
    pub cluster: Option<ClusterId>,
    /// Where it stands.
    pub positions: Vec<(Shard, u64)>,
    /// How many tables have triggers.
    pub captured: usize,
    /// Tables that are replicated.
    pub tables: Vec<String>,
    /// Rows that are marked and in no batch yet, about: those between the oldest mark and the newest.
    pub marks: u64,
    /// Batches that did not come back from the log.
    pub batches: u64,
    /// When the oldest of them was sealed, in milliseconds since 1970.
    pub oldest_ms: Option<f64>,
    /// Some of them, the oldest first: what is in them tells about the others.
    pub some: Vec<Vec<u8>>,
    /// When the oldest batch that is kept was sealed.
    pub kept_ms: Option<f64>,
    /// Clashes recorded after the one that was named.
    pub clashed: Vec<Clashed>,
    /// The record up to which they are.
    pub last_clash: i64,
    /// Units that were applied in slices, and the changes in them.
    pub sliced: (u64, u64),
    /// Entries that were left out, for another sent them than they said.
    pub forged: u64,
}

impl Database {
    /// Bytes of the file that hold something.
    ///
    /// # Errors
    /// When it can't be asked.
    pub fn used_bytes(&self) -> Result<u64, Error> {
        let pages = |name| {
            let value = self.conn.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).doing(LOOKING)?;
            Ok::<_, Error>(u64::try_from(value).unwrap_or(0))
        };
        Ok(pages("page_count")?.saturating_sub(pages("freelist_count")?) * pages("page_size")?)
    }

    /// What the last seal took, once.
    pub fn take_costs(&mut self) -> Costs {
        std::mem::take(&mut self.costs)
    }

    /// How this node is. Of the batches that wait, about `bytes_max` are given.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn figures(&self, after_clash: i64, bytes_max: usize) -> Result<Figures, Error> {
        let mut figures = Figures {
            origin: self.origin,
            cluster: self.cluster(),
            positions: self.positions(),
            captured: self.tables.iter().filter(|tracked| tracked.captured).count(),
            tables: self.table_names().map(str::to_owned).collect(),
            sliced: (meta(&self.conn, "sliced-units")?.unwrap_or(0), meta(&self.conn, "sliced-changes")?.unwrap_or(0)),
            forged: meta(&self.conn, "forged")?.unwrap_or(0),
            last_clash: after_clash,
            ..Figures::default()
        };
        for tracked in self.tables.iter().filter(|tracked| tracked.captured) {
            let log = quote(&change_log(&tracked.table.name));
            // The ends of the index: a scan of what one large transaction has marked would take long.
            let sql =
                format!("SELECT coalesce((SELECT max(id) FROM main.{log}) - (SELECT min(id) FROM main.{log}) + 1, 0)");
            let marks = self.conn.prepare_cached(&sql).and_then(|mut ends| ends.query_row([], |row| unsigned(row, 0)));
            figures.marks += marks.doing(LOOKING)?;
        }
        for shard in 1..=self.shards() {
            self.waiting_figures(&mut figures, shard, bytes_max)?;
        }
        figures.kept_ms = self.oldest_kept()?;
        self.clashed_since(&mut figures)?;
        Ok(figures)
    }

    fn waiting_figures(&self, figures: &mut Figures, shard: Shard, bytes_max: usize) -> Result<(), Error> {
        let echoed = self.echoed(shard);
        let sql = concat!("SELECT coalesce(max(number), 0) FROM ", ours!("global_change_log"), " WHERE shard = ?1");
        let last = self.conn.prepare_cached(sql).and_then(|mut last| last.query_row([shard], |row| unsigned(row, 0)));
        let waiting = last.doing(LOOKING)?.saturating_sub(echoed);
        figures.batches += waiting;
        if waiting == 0 {
            return Ok(());
        }
        let sql = concat!(
            "SELECT created_at, CASE WHEN length(batch) <= ?3 THEN batch END FROM ",
            ours!("global_change_log"),
            " WHERE shard = ?1 AND number > ?2 ORDER BY number"
        );
        let mut statement = self.conn.prepare_cached(sql).doing(LOOKING)?;
        let most = i64::try_from(bytes_max).unwrap_or(i64::MAX);
        let mut rows = statement.query((shard, echoed.cast_signed(), most)).doing(LOOKING)?;
        let mut bytes: usize = figures.some.iter().map(Vec::len).sum();
        while let Some(row) = rows.next().doing(LOOKING)? {
            let sealed: f64 = row.get(0).doing(LOOKING)?;
            figures.oldest_ms = Some(figures.oldest_ms.map_or(sealed, |oldest| oldest.min(sealed)));
            if bytes >= bytes_max {
                break;
            }
            let Some(batch) = row.get::<_, Option<Vec<u8>>>(1).doing(LOOKING)? else { break };
            bytes += batch.len();
            figures.some.push(batch);
        }
        Ok(())
    }

    fn oldest_kept(&self) -> Result<Option<f64>, Error> {
        let sql = concat!("SELECT (SELECT created_at FROM ", ours!("global_change_log"), " ORDER BY id LIMIT 1)");
        let kept = self.conn.prepare_cached(sql).and_then(|mut kept| kept.query_row([], |row| row.get(0)));
        kept.doing(LOOKING)
    }

    fn clashed_since(&self, figures: &mut Figures) -> Result<(), Error> {
        // When the newest were deleted their numbers are given out again.
        figures.last_clash = figures.last_clash.min(self.last_clash()?);
        let sql = concat!(
            "SELECT resolver, verdict, cause, count(*), max(id) FROM ",
            ours!("conflict"),
            " WHERE id > ?1 GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"
        );
        let mut statement = self.conn.prepare_cached(sql).doing(LOOKING)?;
        let mut rows = statement.query([figures.last_clash]).doing(LOOKING)?;
        let mut last = figures.last_clash;
        while let Some(row) = rows.next().doing(LOOKING)? {
            figures.clashed.push(Clashed {
                resolver: row.get(0).doing(LOOKING)?,
                verdict: row.get(1).doing(LOOKING)?,
                cause: row.get(2).doing(LOOKING)?,
                count: unsigned(row, 3).doing(LOOKING)?,
            });
            last = last.max(row.get(4).doing(LOOKING)?);
        }
        figures.last_clash = last;
        Ok(())
    }

    /// The last record of a clash there is.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn last_clash(&self) -> Result<i64, Error> {
        let sql = concat!("SELECT coalesce(max(id), 0) FROM ", ours!("conflict"));
        self.conn.prepare_cached(sql).and_then(|mut last| last.query_row([], |row| row.get(0))).doing(LOOKING)
    }

    /// How many rows a table has, if that can be counted within `budget`.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn count_rows(&mut self, table: &str, budget: Duration) -> Result<Option<u64>, Error> {
        // Only a name that is known here becomes SQL.
        let Some(name) = self.table_names().find(|name| *name == table) else { return Ok(None) };
        let sql = format!("SELECT count(*) FROM main.{}", quote(name));
        let begun = Instant::now();
        self.conn.progress_handler(COUNT_STEPS, Some(move || begun.elapsed() > budget)).doing(LOOKING)?;
        let counted = self.conn.query_row(&sql, [], |row| unsigned(row, 0));
        self.conn.progress_handler(0, None::<fn() -> bool>).doing(LOOKING)?;
        match counted {
            Ok(count) => Ok(Some(count)),
            Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::OperationInterrupted) => Ok(None),
            Err(error) => Err(error).doing(LOOKING),
        }
    }
}
