//! What a snapshot was put together to, opened to build on L there: by the log that comes after it, and by nothing else.

use super::own::ours;
use super::{Database, Doing as _, Error, Filter, Options, Policies};
use crate::log::{Placed, Placement, Shard};
use antiphon_core::codec;
use antiphon_core::entry::{ClusterId, Origin};
use antiphon_core::hash::{Hash, PackedKeys, PluginError};
use antiphon_core::schema::Table;
use std::path::Path;

/// With what L is built on.
pub struct Fold {
    /// Which tables are replicated.
    pub filter: Filter,
    /// Who decides clashes.
    pub policies: Policies,
    /// Most changes applied in one transaction.
    pub changes_max: usize,
    /// Most changes of one unit that are applied in one transaction.
    pub atomic_max: usize,
}

impl std::fmt::Debug for Fold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fold").field("filter", &self.filter).finish_non_exhaustive()
    }
}

/// Where nothing is sealed, nothing is hashed.
struct Unhashed;

impl Hash for Unhashed {
    fn configure(&mut self, _: &[Table]) -> Result<(), PluginError> {
        Ok(())
    }

    fn hash(&mut self, _: u32, _: &PackedKeys) -> Result<Vec<u64>, PluginError> {
        Err(PluginError("this database only follows the log".to_owned()))
    }
}

impl Database {
    /// Opens a snapshot that was put together, to apply to it what comes after it in the log.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn open_image(path: &Path, cluster: ClusterId, shards: u32, fold: &Fold) -> Result<Self, Error> {
        let options = Options {
            path: path.to_owned(),
            node: 0,
            filter: fold.filter.clone(),
            changes_max: fold.changes_max,
            atomic_max: fold.atomic_max,
            compress: false,
            publish: false,
            replicate: true,
            replays: None,
        };
        let mut db = Self::open(options, Box::new(Unhashed), fold.policies.again())?;
        db.conn.pragma_update(None, "synchronous", "OFF").doing("set how commits are synced")?;
        db.enter_as_it_is(cluster, shards)?;
        Ok(db)
    }

    /// Goes on behind a stretch of the log that nobody has any more, as if nothing had been in it.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn pass_hole(&mut self, shard: Shard, last: u64) -> Result<(), Error> {
        self.transaction(|db| {
            db.ledger.advance(shard, Placement { seq: last, ..Placement::default() });
            db.ledger.write(&db.conn, shard, &[])
        })?;
        self.reload()
    }

    /// Takes the numbers of these entries for the next ones of their origins: those between are in a hole.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn forgive(&mut self, shard: Shard, entries: &[Placed]) -> Result<(), Error> {
        let mut expected: std::collections::BTreeMap<Origin, u64> = std::collections::BTreeMap::new();
        for placed in entries {
            let Ok(entry) = codec::decode(&placed.frame) else { continue };
            if entry.body.is_unnumbered() {
                continue;
            }
            let received = self.ledger.received(shard, entry.origin);
            expected.entry(entry.origin).or_insert_with(|| received.max(entry.number.saturating_sub(1)));
        }
        self.transaction(|db| {
            let origins: Vec<Origin> = expected.keys().copied().collect();
            for (origin, number) in &expected {
                if db.ledger.received(shard, *origin) < *number {
                    // The first pieces of its unit may be in the hole: what there is of it here is no unit.
                    db.ledger.unstage(&db.conn, shard, *origin)?;
                    db.ledger.receive(shard, *origin, *number);
                }
            }
            db.ledger.write(&db.conn, shard, &origins)
        })?;
        self.reload()
    }

    /// Pieces of transactions whose last piece has not come.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn staged_pieces(&self) -> Result<u64, Error> {
        let count: i64 = self
            .conn
            .query_row(concat!("SELECT count(*) FROM ", ours!("staged")), [], |row| row.get(0))
            .doing("count pieces of transactions")?;
        Ok(count.unsigned_abs())
    }

    /// Why this is not L, if so: rows are kept back, or a large transaction is applied by half.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn is_between(&self) -> Result<Option<String>, Error> {
        if self.ledger.is_slicing() {
            return Ok(Some("a large transaction is applied by half".to_owned()));
        }
        let shadows: bool = self
            .conn
            .query_row(concat!("SELECT EXISTS (SELECT 1 FROM ", ours!("shadow"), ")"), [], |row| row.get(0))
            .doing("look for shadows")?;
        Ok(shadows.then(|| "rows are kept back".to_owned()))
    }
}
