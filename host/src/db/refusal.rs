//! Writes of the application's that SQLite refuses, because its user wants that rather than an outbox without an end.
//!
//! Triggers do it, in whatever process the application runs, and whether a host runs or not. They are there only while the
//! outbox is full: in an ordinary hour they cost nothing.

use super::{Database, Doing as _, Error};
use antiphon_core::capture::{PREFIX, REFUSALS, create_refusals, trigger};
use antiphon_core::schema::quote;
use std::collections::{BTreeMap, BTreeSet};

impl Database {
    /// Has all replicated tables refuse what the application writes, or take it again.
    ///
    /// # Errors
    /// When SQLite refuses; then nothing has changed.
    pub fn refuse_writes(&mut self, refuse: bool) -> Result<(), Error> {
        const CHANGING: &str = "change which writes are refused";
        self.refresh_schema()?;
        // The write lock is not asked for where nothing is to be done.
        if self.changes_of_refusals(refuse)?.is_empty() {
            return Ok(());
        }
        self.transaction(|db| {
            db.refresh_schema()?;
            for sql in db.changes_of_refusals(refuse)? {
                db.conn.execute_batch(&sql).doing(CHANGING)?;
            }
            Ok(())
        })?;
        self.refresh_schema()?;
        Ok(())
    }

    /// Lets the application write, within the transaction at hand.
    pub(super) fn drop_refusals(&self) -> Result<(), Error> {
        for name in self.refusals()? {
            self.conn
                .execute_batch(&format!("DROP TRIGGER main.{}", quote(&name)))
                .doing("let the application write")?;
        }
        Ok(())
    }

    /// Whether any table refuses what the application writes.
    ///
    /// # Errors
    /// When SQLite can't tell.
    pub fn refuses_writes(&self) -> Result<bool, Error> {
        Ok(!self.refusals()?.is_empty())
    }

    /// Bytes of batches that the log does not have.
    ///
    /// # Errors
    /// When SQLite can't tell.
    pub fn all_waiting_bytes(&self) -> Result<u64, Error> {
        let mut bytes = 0;
        for shard in 1..=self.shards() {
            bytes += self.waiting_bytes(shard, self.echoed(shard))?.0;
        }
        Ok(bytes)
    }

    /// Statements that take away the triggers that are to go, and make those that are to come.
    fn changes_of_refusals(&self, refuse: bool) -> Result<Vec<String>, Error> {
        let mut wanted = BTreeMap::new();
        for tracked in self.tables.iter().filter(|tracked| refuse && tracked.captured) {
            let names = REFUSALS.iter().map(|name| trigger(&tracked.table.name, name));
            wanted.extend(names.zip(create_refusals(&tracked.table)));
        }
        let found = self.refusals()?;
        let superfluous = found.iter().filter(|name| !wanted.contains_key(*name));
        let drops: Vec<String> = superfluous.map(|name| format!("DROP TRIGGER main.{}", quote(name))).collect();
        wanted.retain(|name, _| !found.contains(name));
        Ok(drops.into_iter().chain(wanted.into_values()).collect())
    }

    /// Triggers that refuse writes. One that followed its table to another name has kept its own.
    fn refusals(&self) -> Result<BTreeSet<String>, Error> {
        let mut names: BTreeSet<String> = self
            .conn
            .prepare_cached(
                "SELECT name FROM main.sqlite_schema WHERE type = 'trigger' AND substr(name, 1, length(?1)) = ?1",
            )
            .and_then(|mut statement| statement.query_map([PREFIX], |row| row.get(0))?.collect())
            .doing("read the triggers")?;
        names.retain(|name| REFUSALS.iter().any(|end| name.ends_with(&format!("_{end}"))));
        Ok(names)
    }
}
