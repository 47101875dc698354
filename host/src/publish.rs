//! From the application's commits to the log: seal, append, and leave the rest to the echo.

use crate::db::{self, Costs, Database, Db, Notice, Owed};
use crate::log::{self, AWAY_AFTER, Announced, Appended, Log, Shard};
use crate::placement::{self, Loss};
use crate::policies;
use crate::reattach::Reattach;
use crate::snapshot::Shelf;
use antiphon_core::entry::{Halted, Origin};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

/// Bytes of batches sent in one append: one commit of the log for many of the database's.
const APPEND_BYTES_MAX: usize = 1 << 20;

/// Why changes can't leave this node.
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
    /// What the log had acknowledged is no longer there.
    #[error(
        "the log of shard {shard} ends at number {last} of this node, and {sent} was acknowledged; its tail is lost"
    )]
    TailLost {
        /// The shard.
        shard: Shard,
        /// The last number that is there.
        last: u64,
        /// The last number that was acknowledged.
        sent: u64,
    },
}

/// Whether there is more to do at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// All is done that can be done now.
    Idle,
    /// A further step has work.
    More,
}

/// What steps did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Batches that the log took.
    pub batches: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What the last seal took.
    pub costs: Costs,
}

/// Seals what the application committed and appends it.
///
/// Holds nothing that is not on disk: after an error it starts again from there.
pub struct Publisher {
    db: Db,
    log: Arc<dyn Log>,
    /// The last number known to be in the log; absent until the shard has been read to its end once.
    sent: BTreeMap<Shard, u64>,
    done: Done,
    owed: Owed,
    reattach: Reattach,
    /// Since when something is to be said of policies in a shard.
    due: BTreeMap<Shard, Instant>,
    /// Whether the policies of the log were compared with the configured ones.
    compared: bool,
}

impl std::fmt::Debug for Publisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publisher").field("sent", &self.sent).finish_non_exhaustive()
    }
}

impl Publisher {
    /// A publisher that knows nothing of the log yet.
    #[must_use]
    pub fn new(db: Db, log: Arc<dyn Log>) -> Self {
        Self::with_scratch(db, log, std::env::temp_dir(), None)
    }

    /// The same, with a folder of its own for what has to be built aside, and with snapshots to build it upon where the
    /// log was cut.
    #[must_use]
    pub fn with_scratch(db: Db, log: Arc<dyn Log>, scratch: PathBuf, shelf: Option<Shelf>) -> Self {
        let reattach = Reattach::new(db.clone(), log.clone(), scratch, shelf);
        let (sent, due, owed) = (BTreeMap::new(), BTreeMap::new(), Owed::new());
        Self { db, log, sent, done: Done::default(), owed, reattach, due, compared: false }
    }

    /// Seals one piece and appends what waits.
    ///
    /// # Errors
    /// When the database or the log refuses. Nothing is lost: the next step takes up where this one ended.
    pub async fn step(&mut self) -> Result<Progress, Error> {
        fault!("publish");
        let (sealed, costs, owed) = self.seal().await?;
        (self.done.costs, self.owed) = (costs, owed);
        let shards = self.db.call(|db| Ok(db.shards())).await?;
        for shard in 1..=shards {
            if let Err(error) = self.send(shard).await {
                // What became of the append is unknown: the log itself will tell.
                self.sent.remove(&shard);
                return Err(error);
            }
        }
        self.turn(shards).await?;
        let reattached = self.reattach.step().await?;
        Ok(if reattached == Progress::More { reattached } else { sealed })
    }

    /// What it has done since this was asked last.
    pub fn take_done(&mut self) -> Done {
        std::mem::take(&mut self.done)
    }

    /// What others are to send again, for no log has it any more.
    #[must_use]
    pub fn owed(&self) -> &Owed {
        &self.owed
    }

    /// Whether something is to be said as soon as others have read as far.
    #[must_use]
    pub fn waits(&self) -> bool {
        !self.due.is_empty()
    }

    /// Seals one piece of what the application committed, and sends nothing.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn prepare(&self) -> Result<Progress, Error> {
        Ok(self.seal().await?.0)
    }

    async fn seal(&self) -> Result<(Progress, Costs, Owed), Error> {
        let (more, costs, owed) = self
            .db
            .call(|db| {
                for table in db.install(true)? {
                    tracing::info!(table, "capture installed");
                }
                let scanning = db.scan()?;
                let more = db.seal()?;
                db.finish_founding()?;
                db.settle_owed()?;
                Ok((scanning || more, db.take_costs(), db.owed().clone()))
            })
            .await?;
        Ok((if more { Progress::More } else { Progress::Idle }, costs, owed))
    }

    /// Says where decided policies come into force, in each shard that this node has read to its end. Whoever is first
    /// is believed, and nothing is lost if the others say it as well.
    async fn turn(&mut self, shards: Shard) -> Result<(), Error> {
        for shard in 1..=shards {
            let halted = match self.read_to_the_end(shard).await? {
                Some(_) => None,
                None => match self.halted(shard).await? {
                    Some(halted) => Some(halted),
                    None => continue,
                },
            };
            if shard == 1 && !std::mem::replace(&mut self.compared, true) {
                self.compare_policies().await?;
            }
            let place = halted.clone();
            let due = move |db: &mut Database| {
                Ok((if let Some(at) = place { db.due_where_halted(shard, at)? } else { db.due(shard)? }, db.voice()))
            };
            let (due, voice) = self.db.call(due).await?;
            let Some(Notice { frame, after }) = due else {
                self.due.remove(&shard);
                continue;
            };
            let waits = self.due.entry(shard).or_insert_with(Instant::now).elapsed() < AWAY_AFTER;
            let members = self.log.members().await?;
            if waits && !has_been_read(&members, after) {
                continue;
            }
            // Who decided what this node could not will say it, and it is decided.
            if halted.is_some_and(|halted| has_been_passed(&members, shard, halted.seq)) {
                continue;
            }
            fault!("turn");
            self.compare(shard).await?;
            let last = self.log.last_number(shard, voice).await?;
            let appended = self.log.append(shard, voice, last + 1, &[frame]).await?;
            fault!("turned");
            tracing::debug!(shard, ?appended, "policies come into force");
        }
        Ok(())
    }

    /// Where a shard has stopped for want of a verdict, if this node knows all that the log says of policies behind.
    async fn halted(&self, shard: Shard) -> Result<Option<Halted>, Error> {
        let last = self.log.bounds(shard).await?.last;
        Ok(self.db.call(move |db| Ok(db.halted(shard, last))).await?)
    }

    /// Says once that the log's policies are others than this node is configured for.
    async fn compare_policies(&self) -> Result<(), Error> {
        let (decided, own) = self.db.call(|db| Ok((db.decided(), db.own_policies().to_vec()))).await?;
        if let Some(difference) = decided.and_then(|decided| policies::difference(&decided.policies, &own)) {
            tracing::warn!(
                difference,
                "the log's policies hold; `antiphon policy apply` makes this configuration's the cluster's"
            );
        }
        Ok(())
    }

    async fn send(&mut self, shard: Shard) -> Result<(), Error> {
        let mut sent = match self.sent.get(&shard) {
            Some(sent) => *sent,
            None => match self.read_to_the_end(shard).await? {
                Some(echoed) => echoed,
                None => return Ok(()),
            },
        };
        let mut is_again = false;
        loop {
            let (origin, waiting) = self
                .db
                .call(move |db| {
                    let waiting = db.unsent(shard, sent, APPEND_BYTES_MAX)?;
                    // A change made upon another's follows it in the log, also when both must be sent again.
                    let mut ready = Vec::new();
                    for batch in waiting {
                        if !db.has_received(shard, &batch.deps)? {
                            break;
                        }
                        ready.push(batch);
                    }
                    Ok((db.origin(), ready))
                })
                .await?;
            let Some(first) = waiting.first().map(|batch| batch.number) else { break };
            fault!("unsent");
            self.compare(shard).await?;
            let frames: Vec<Vec<u8>> = waiting.into_iter().map(|batch| batch.frame).collect();
            let (count, bytes) = (frames.len() as u64, frames.iter().map(|frame| frame.len() as u64).sum::<u64>());
            fault!("append");
            let appended = self.log.append(shard, origin, first, &frames).await;
            if appended.is_err() && crate::flaw!(LostWhenRefused) {
                sent += count;
                continue;
            }
            fault!("appended");
            match appended? {
                Appended::At(seq) => {
                    sent += count;
                    self.done.batches += count;
                    self.done.bytes += bytes;
                    if crate::flaw!(AckIsEcho) {
                        self.db.call(move |db| db.forget_pending(sent)).await?;
                    }
                    tracing::debug!(shard, seq, batches = count, "batches appended");
                }
                Appended::Fenced { last } => {
                    self.has_kept(shard, origin, sent, last).await?;
                    if last < sent && !std::mem::replace(&mut is_again, true) {
                        // The log has it all the same, and knows now what comes next.
                        continue;
                    }
                    // An append whose answer was lost has taken place: its echo will say how far it went.
                    self.sent.remove(&shard);
                    return Ok(());
                }
            }
        }
        fault!("sent");
        self.sent.insert(shard, sent);
        self.await_echo(shard, sent).await
    }

    /// What was acknowledged comes back, unless the log lost it: then it would be waited for in vain.
    async fn await_echo(&self, shard: Shard, sent: u64) -> Result<(), Error> {
        if self.db.call(move |db| Ok(db.echoed(shard))).await? >= sent {
            return Ok(());
        }
        match self.read_to_the_end(shard).await? {
            Some(last) if last < sent => {
                let origin = self.db.call(|db| Ok(db.origin())).await?;
                self.has_kept(shard, origin, sent, last).await
            }
            _ => Ok(()),
        }
    }

    /// The log, which says that it has come to number `last` of this node, has all that was acknowledged.
    async fn has_kept(&self, shard: Shard, origin: Origin, sent: u64, last: u64) -> Result<(), Error> {
        match placement::last_number(&*self.log, shard, origin, sent, last).await? {
            last if last < sent => Err(Error::TailLost { shard, last, sent }),
            _ => Ok(()),
        }
    }

    /// Whether the log is still the one that was applied. Nothing is appended to another: numbers alone would not
    /// tell where this node has none of its own in it, and what others had there may be gone as well.
    async fn compare(&self, shard: Shard) -> Result<(), Error> {
        // The first shard begins with the genesis, which tells one log from another where nothing else was applied.
        for shard in if shard == 1 { vec![1] } else { vec![1, shard] } {
            let anchor = self.db.call(move |db| Ok(db.anchor(shard))).await?;
            if let Some(what) = placement::compare(&*self.log, shard, anchor).await? {
                return Err(Error::Broken { shard, what });
            }
        }
        Ok(())
    }

    /// The last number of ours in the log, once this node has read all of it: before, nothing may be appended.
    async fn read_to_the_end(&self, shard: Shard) -> Result<Option<u64>, Error> {
        let last = self.log.bounds(shard).await?.last;
        let read = move |db: &mut Database| {
            // A log without its genesis is none of this cluster's.
            let has_begun = db.position(1).seq > 0 || crate::flaw!(PlacementUnchecked);
            Ok((has_begun && db.position(shard).seq >= last).then(|| db.echoed(shard)))
        };
        Ok(self.db.call(read).await?)
    }
}

/// Whether all members that are there have read the first shard up to a position. What they send after it says what it
/// was made upon; who is away will have to look it up.
fn has_been_read(members: &[Announced], position: u64) -> bool {
    let read = |announced: &Announced| announced.member.positions.get(&1).is_none_or(|read| *read >= position);
    log::there(members).all(read)
}

/// Whether some member that is there has come past an entry.
fn has_been_passed(members: &[Announced], shard: Shard, seq: u64) -> bool {
    log::there(members).any(|announced| announced.member.positions.get(&shard).is_some_and(|read| *read >= seq))
}
