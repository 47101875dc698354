//! Lives of a node: what a file that is a copy may go on with, and under which name.

use super::own::ours;
use super::{Database, Doing as _, Error, identity, own, values};
use crate::log::Shard;
use antiphon_core::capture::{PREFIX, change_log};
use antiphon_core::entry::Origin;
use antiphon_core::schema::quote;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

impl Database {
    /// How many entries of the log have been applied, over all shards: the most that ever were.
    #[must_use]
    pub fn reached(&self) -> u64 {
        self.known_reached.load(Ordering::Relaxed)
    }

    /// The same for those who must know it when the database itself can't be asked any more.
    #[must_use]
    pub fn watch_reached(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.known_reached)
    }

    /// Whether rows are marked, or still to be marked, and in no batch: also those that are held back, and those of a
    /// table that is still to be compared with the log.
    ///
    /// # Errors
    /// When SQLite can't tell.
    pub fn has_marks(&self) -> Result<bool, Error> {
        const LOOKING: &str = "look for marks";
        let unsealed = concat!(
            "SELECT EXISTS (SELECT 1 FROM ",
            ours!("scan"),
            ") OR EXISTS (SELECT 1 FROM ",
            ours!("oversized"),
            ")"
        );
        if identity::founding(&self.conn)?
            || self.attachments.are_compared()
            || self.conn.query_row(unsealed, [], |row| row.get(0)).doing(LOOKING)?
        {
            return Ok(true);
        }
        // Of every change log there is: a table that is not captured at the moment may have one, too.
        let end = change_log("").split_off(PREFIX.len());
        let logs: Vec<String> = self
            .conn
            .prepare_cached(
                "SELECT name FROM main.sqlite_schema WHERE type = 'table' AND substr(name, 1, length(?1)) = ?1
                 AND substr(name, -length(?2)) = ?2 AND name <> ?1 || '_global' || ?2",
            )
            .and_then(|mut statement| statement.query_map([PREFIX, end.as_str()], |row| row.get(0))?.collect())
            .doing(LOOKING)?;
        for log in logs {
            let sql = format!("SELECT EXISTS (SELECT 1 FROM main.{})", quote(&log));
            if self.conn.query_row(&sql, [], |row| row.get(0)).doing(LOOKING)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Batches that have not come back in a shard: number and checksum.
    ///
    /// # Errors
    /// When the outbox can't be read.
    pub fn waiting(&self, shard: Shard) -> Result<Vec<(u64, u64)>, Error> {
        self.conn
            .prepare_cached(concat!(
                "SELECT number, checksum FROM ",
                ours!("global_change_log"),
                " WHERE shard = ?1 AND number > ?2 ORDER BY number"
            ))
            .and_then(|mut statement| {
                statement
                    .query_map((shard, self.echoed(shard).cast_signed()), |row| {
                        Ok((values::unsigned(row, 0)?, values::unsigned(row, 1)?))
                    })?
                    .collect()
            })
            .doing("read the outbox")
    }

    /// The log holds numbers of this origin up to this one, whether this file knows of them or not: a power cut may
    /// have taken their batches from it. What is sealed from now on is numbered above.
    pub fn number_above(&mut self, shard: Shard, number: u64) {
        self.numbered.insert(shard, number);
        self.ledger.number_above(shard, number);
    }

    /// Goes on in the same place as another origin, if nothing is on its way; says whether that is so.
    ///
    /// # Errors
    /// When SQLite refuses; nothing has changed then.
    pub fn begin_life(&mut self) -> Result<bool, Error> {
        let begun = self.transaction(|db| {
            let shadows = concat!("SELECT EXISTS (SELECT 1 FROM ", ours!("shadow"), ")");
            let shadows: bool = db.conn.query_row(shadows, [], |row| row.get(0)).doing("look for shadows")?;
            let mut waits = shadows || db.ledger.is_slicing() || db.has_marks()?;
            for shard in 1..=db.shards() {
                waits |= db.ledger.waits(shard, db.origin);
            }
            if !waits {
                identity::begin_life(&db.conn, db.options.node)?;
                fault!("begin-life");
            }
            Ok(!waits)
        })?;
        self.numbered.clear();
        self.reload()?;
        Ok(begun)
    }

    /// Removes triggers and marks, if no change waits to be sent; says whether that is so. From now on what is written
    /// here is not noted.
    ///
    /// # Errors
    /// When SQLite refuses; nothing has changed then.
    pub fn end_capture(&mut self) -> Result<bool, Error> {
        if !identity::captured(&self.conn)? {
            return Ok(true);
        }
        let ended = self.transaction(|db| {
            if db.has_marks()? {
                return Ok(false);
            }
            db.remove_capture()?;
            own::set_meta(&db.conn, "captured", 0)?;
            Ok(true)
        })?;
        self.reload()?;
        Ok(ended)
    }

    /// Whether what was written here has been noted all the time.
    ///
    /// # Errors
    /// When SQLite can't tell.
    pub fn was_captured(&self) -> Result<bool, Error> {
        identity::captured(&self.conn)
    }

    /// What was written here is what the log says, and is noted from now on.
    ///
    /// # Errors
    /// When SQLite refuses; nothing has changed then.
    pub fn resume_capture(&mut self) -> Result<(), Error> {
        self.transaction(|db| own::set_meta(&db.conn, "captured", 1))
    }

    /// Whether entries of others were passed over, so that the rows here are not those of the log.
    #[must_use]
    pub fn has_unread(&self) -> bool {
        self.ledger.has_unread()
    }

    /// Whether this node sends what is written here.
    #[must_use]
    pub fn publishes(&self) -> bool {
        self.options.publish
    }

    /// Whether this node takes what others write.
    #[must_use]
    pub fn replicates(&self) -> bool {
        self.options.replicate
    }

    /// Bytes of batches that have not come back in a shard and have a number above this one; and the last number.
    ///
    /// # Errors
    /// When the outbox can't be read.
    pub fn waiting_bytes(&self, shard: Shard, above: u64) -> Result<(u64, u64), Error> {
        // `length` of a blob is in the row's header: the blob itself is not read.
        self.conn
            .prepare_cached(concat!(
                "SELECT coalesce(sum(length(batch)), 0), coalesce(max(number), ?2) FROM ",
                ours!("global_change_log"),
                " WHERE shard = ?1 AND number > ?2"
            ))
            .and_then(|mut statement| {
                statement.query_row((shard, above.cast_signed()), |row| {
                    Ok((values::unsigned(row, 0)?, values::unsigned(row, 1)?))
                })
            })
            .doing("measure the outbox")
    }

    /// Another process may have put an older file, or another node's, in the place of this one's content: as a restore
    /// through SQLite does. Asked in every transaction that follows another's, and after batches were read.
    pub(super) fn is_still_ours(&mut self) -> Result<(), Error> {
        let asked = self.compare_with_memory();
        if let Err(Error::Replaced(why)) = &asked {
            self.replaced = Some(why.clone());
        }
        asked
    }

    fn compare_with_memory(&mut self) -> Result<(), Error> {
        const ASKING: &str = "see whether the file is the one it was";
        let version: i64 = self
            .conn
            .prepare_cached("PRAGMA main.data_version")
            .and_then(|mut statement| statement.query_row([], |row| row.get(0)))
            .doing(ASKING)?;
        if self.cluster.is_none() || version == self.checked_version {
            return Ok(());
        }
        self.turns.others_had_theirs();
        let (node, incarnation, reached) = self
            .conn
            .prepare_cached(concat!(
                "SELECT (SELECT value FROM ",
                ours!("meta"),
                " WHERE name = 'node'), (SELECT value FROM ",
                ours!("meta"),
                " WHERE name = 'incarnation'), (SELECT coalesce(sum(seq), 0) FROM ",
                ours!("position"),
                ")"
            ))
            .and_then(|mut statement| {
                statement.query_row([], |row| {
                    Ok((row.get::<_, Option<i64>>(0)?, row.get::<_, Option<i64>>(1)?, values::unsigned(row, 2)?))
                })
            })
            .doing(ASKING)?;
        let found = node
            .zip(incarnation)
            .map(|(node, incarnation)| Origin { node: node.cast_unsigned(), incarnation: incarnation.cast_unsigned() });
        if found != Some(self.origin) {
            return Err(Error::Replaced("it holds another node's state".to_owned()));
        }
        if reached < self.reached() {
            return Err(Error::Replaced(format!(
                "it stands {} before where it stood a moment ago",
                crate::words::count(self.reached() - reached, "entry", "entries")
            )));
        }
        self.checked_version = version;
        Ok(())
    }
}
