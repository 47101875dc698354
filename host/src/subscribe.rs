//! From the log to the application's file: read, apply, one shard.

use crate::db::{self, Db, Obstacle, Stop};
use crate::log::{self, Log, Shard};
use crate::placement::{self, Loss};
use std::sync::Arc;

/// Bytes of entries read at once.
const READ_BYTES_MAX: usize = 1 << 20;
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
        what: Loss,
    },
}

/// What a step came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// All entries there are have been applied, up to this position.
    Idle(u64),
    /// A further step has work.
    More,
    /// The next entry can't be applied before something changes.
    Blocked(Obstacle),
}

/// What steps did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Entries dealt with.
    pub entries: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Changes applied.
    pub changes: u64,
    /// Those of them that are this node's own, which came back.
    pub own_changes: u64,
    /// When the log took the last entry of this node's own, in nanoseconds of its clock; 0: there was none.
    pub own_time: u64,
    /// The same for another's.
    pub others_time: u64,
}

/// Follows one shard. Holds nothing that is not on disk, but whether it knows what the latest entries touched.
pub struct Subscriber {
    db: Db,
    log: Arc<dyn Log>,
    shard: Shard,
    remembers: bool,
    done: Done,
    reached: Option<u64>,
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
        Self { db, log, shard, remembers: false, done: Done::default(), reached: None }
    }

    /// Reads some entries and applies what fits one transaction.
    ///
    /// # Errors
    /// When the database or the log refuses; nothing is lost.
    pub async fn step(&mut self) -> Result<Progress, Error> {
        let stepped = self.try_step().await;
        if stepped.is_err() {
            self.remembers = false;
        }
        stepped
    }

    /// What it has done since this was asked last.
    pub fn take_done(&mut self) -> Done {
        std::mem::take(&mut self.done)
    }

    /// Where it has come to, if it has moved since this was asked last.
    pub fn take_reached(&mut self) -> Option<u64> {
        self.reached.take()
    }

    async fn try_step(&mut self) -> Result<Progress, Error> {
        let shard = self.shard;
        if !self.remembers {
            fault!("check");
            self.remember().await?;
            self.remembers = true;
        }
        let (position, anchor, reads_again) =
            self.db.call(move |db| Ok((db.position(shard), db.anchor(shard), db.reads_again(shard)))).await?;
        let entries = if anchor == position {
            placement::read(&*self.log, shard, position, READ_BYTES_MAX).await?.map_err(|what| self.broken(what))?
        } else {
            // Of a large unit a part was applied: it is its last piece that must still be there.
            let entries = self.log.read(shard, position.seq, READ_BYTES_MAX).await?;
            if let Some(what) = placement::compare(&*self.log, shard, anchor).await? {
                return Err(self.broken(what));
            }
            entries
        };
        if entries.is_empty() {
            if reads_again {
                self.db.call(move |db| db.read_again(shard)).await?;
            }
            return Ok(Progress::Idle(position.seq));
        }
        fault!("read");
        let (applied, reached, bytes) = self
            .db
            .call(move |db| {
                let applied = db.apply(shard, &entries)?;
                db.settle_owed()?;
                let reached = db.position(shard).seq;
                let dealt_with = entries.iter().filter(|placed| placed.seq > position.seq && placed.seq <= reached);
                Ok((applied, reached, dealt_with.map(|placed| placed.frame.len() as u64).sum::<u64>()))
            })
            .await?;
        self.reached = (reached > position.seq).then_some(reached).or(self.reached);
        self.done.entries += applied.entries as u64;
        self.done.bytes += bytes;
        self.done.changes += applied.changes as u64;
        self.done.own_changes += applied.own_changes as u64;
        self.done.own_time = self.done.own_time.max(applied.own_time);
        self.done.others_time = self.done.others_time.max(applied.others_time);
        if applied.entries > 0 {
            tracing::debug!(shard, entries = applied.entries, changes = applied.changes, "entries applied");
        }
        match applied.stop {
            None | Some(Stop::Full | Stop::Unsealed) => Ok(Progress::More),
            Some(Stop::Blocked(_)) if self.foresee().await? => Ok(Progress::More),
            Some(Stop::Blocked(reason)) => Ok(Progress::Blocked(reason)),
            Some(Stop::Gap { expected, found }) => Err(self.broken(Loss::Gap { expected, found })),
        }
    }

    /// Where a resolver gives no verdict: reads some of what is further on for other policies. Says whether there was
    /// anything.
    async fn foresee(&self) -> Result<bool, Error> {
        let shard = self.shard;
        let Some(after) = self.db.call(move |db| Ok(db.foresees_after(shard))).await? else { return Ok(false) };
        let entries = self.log.read(shard, after, READ_BYTES_MAX).await?;
        if entries.is_empty() {
            return Ok(false);
        }
        self.db
            .call(move |db| {
                db.foresee(shard, &entries);
                Ok(true)
            })
            .await
            .map_err(Error::from)
    }

    /// Reads again what the latest entries touched.
    async fn remember(&self) -> Result<(), Error> {
        let shard = self.shard;
        let (position, anchor) = self.db.call(move |db| Ok((db.position(shard), db.anchor(shard)))).await?;
        if let Some(what) = placement::compare(&*self.log, shard, anchor).await? {
            return Err(self.broken(what));
        }
        let first = self.log.bounds(shard).await?.first;
        let mut after = position.seq.saturating_sub(REMEMBER).max(first.saturating_sub(1));
        while after < position.seq {
            let entries = self.log.read(shard, after, READ_BYTES_MAX).await?;
            let Some(last) = entries.last() else { break };
            after = last.seq;
            self.db
                .call(move |db| {
                    db.remember(shard, &entries);
                    Ok(())
                })
                .await?;
            fault!("remembered");
        }
        Ok(())
    }

    fn broken(&self, what: Loss) -> Error {
        Error::Broken { shard: self.shard, what }
    }
}
