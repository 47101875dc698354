//! From the log to the application's file: read, apply, one shard.

use crate::db::{self, Db, Stop};
use crate::log::{self, Log, Shard};
use antiphon_core::codec;
use std::sync::Arc;

/// Bytes of entries read at once.
const READ_BYTES_MAX: usize = 4 << 20;
/// Entries before the position that are read again at a start, to know clashes by.
const REMEMBER: u64 = 512;

/// Why a shard can't be followed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database refused.
    #[error(transparent)]
    Db(#[from] db::Error),
    /// The log refused.
    #[error(transparent)]
    Log(#[from] log::Error),
    /// The log is not the one that was applied.
    #[error("shard {shard} of the log {what}")]
    Broken {
        /// The shard.
        shard: Shard,
        /// What is wrong with it.
        what: String,
    },
}

/// What a step came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// All entries there are have been applied, up to this position.
    Idle(u64),
    /// A further step has work.
    More,
    /// The next entry can't be applied before something changes; says what.
    Blocked(String),
}

/// Follows one shard. Holds nothing that is not on disk, but whether it has checked the log since the last error.
pub struct Subscriber {
    db: Db,
    log: Arc<dyn Log>,
    shard: Shard,
    checked: bool,
    applied: u64,
}

impl std::fmt::Debug for Subscriber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscriber").field("shard", &self.shard).finish_non_exhaustive()
    }
}

impl Subscriber {
    /// A subscriber of one shard.
    #[must_use]
    pub fn new(db: Db, log: Arc<dyn Log>, shard: Shard) -> Self {
        Self { db, log, shard, checked: false, applied: 0 }
    }

    /// Reads some entries and applies what fits one transaction.
    ///
    /// # Errors
    /// When the database or the log refuses; nothing is lost.
    pub async fn step(&mut self) -> Result<Progress, Error> {
        let stepped = self.try_step().await;
        if stepped.is_err() {
            self.checked = false;
        }
        stepped
    }

    /// How many changes it has applied since this was asked last.
    pub fn take_applied(&mut self) -> u64 {
        std::mem::take(&mut self.applied)
    }

    async fn try_step(&mut self) -> Result<Progress, Error> {
        let shard = self.shard;
        if !self.checked {
            self.check().await?;
            self.checked = true;
        }
        let after = self.db.call(move |db| Ok(db.position(shard).seq)).await?;
        let entries = self.log.read(shard, after, READ_BYTES_MAX).await?;
        if entries.is_empty() {
            return Ok(Progress::Idle(after));
        }
        let applied = self.db.call(move |db| db.apply(shard, &entries)).await?;
        self.applied += applied.changes as u64;
        if applied.entries > 0 {
            tracing::debug!(shard, entries = applied.entries, changes = applied.changes, "entries applied");
        }
        match applied.stop {
            None | Some(Stop::Full | Stop::Unsealed) => Ok(Progress::More),
            Some(Stop::Blocked(reason)) => Ok(Progress::Blocked(reason)),
            Some(Stop::Gap { expected, found }) => Err(self.broken(format!(
                "goes on at entry {found} where {expected} should come; entries were rolled out before this node read them"
            ))),
        }
    }

    /// Whether the entry at the position is still the one that was applied; and what the latest entries touched.
    async fn check(&self) -> Result<(), Error> {
        let shard = self.shard;
        let position = self.db.call(move |db| Ok(db.position(shard))).await?;
        let bounds = self.log.bounds(shard).await?;
        if bounds.last < position.seq {
            return Err(self.broken(format!(
                "ends at entry {}, and {} was applied here; its tail is lost",
                bounds.last, position.seq
            )));
        }
        if position.seq == 0 {
            return Ok(());
        }
        if bounds.first > position.seq {
            return Err(
                self.broken(format!("begins at entry {}, and only {} was applied here", bounds.first, position.seq))
            );
        }
        let from = position.seq.saturating_sub(REMEMBER).max(bounds.first - 1);
        let mut after = from;
        while after < position.seq {
            let entries = self.log.read(shard, after, READ_BYTES_MAX).await?;
            let Some(last) = entries.last() else { break };
            after = last.seq;
            if let Some(here) = entries.iter().find(|placed| placed.seq == position.seq)
                && (here.time, codec::checksum(&here.frame)) != (position.time, position.checksum)
            {
                return Err(
                    self.broken(format!("has another entry at position {} than was applied here", position.seq))
                );
            }
            self.db
                .call(move |db| {
                    db.remember(shard, &entries);
                    Ok(())
                })
                .await?;
        }
        Ok(())
    }

    fn broken(&self, what: String) -> Error {
        Error::Broken { shard: self.shard, what }
    }
}
