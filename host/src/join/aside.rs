//! L, built aside from the log, or upon a snapshot, to compare a database with that joins.

use super::{READ_BYTES_MAX, cut_at, database, unreachable_log};
use crate::db::{Database, Stop};
use crate::failure::{Failure, Kind};
use crate::log::{Log, Placed, Shard};
use crate::snapshot::{Rescue, nothing_leads_to};
use antiphon_core::codec;
use antiphon_core::entry::{Body, ClusterId, Genesis};
use std::path::Path;
use std::time::Duration;

/// How often the log is asked whether the founder's rows are all there.
const FOUNDED_POLL: Duration = Duration::from_millis(100);
/// How often a waiting user hears why.
const FOUNDED_NOTICE: u32 = 50;

/// How far a shard is read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Until {
    /// The founder's word that all its rows are in.
    Founded,
    /// This position.
    Position(u64),
    End,
}

/// L, built aside from the log in a database of its own.
pub(super) struct Aside {
    pub(super) db: Database,
    shards: u32,
    /// It began with a snapshot, and so after the founder's word.
    is_founded: bool,
}

impl Aside {
    /// Begins with the log, or with a snapshot where that was cut: one that stands nowhere behind these places.
    pub(super) async fn new(
        like: &Database,
        log: &dyn Log,
        cluster: ClusterId,
        genesis: &Genesis,
        scratch: &Path,
        rescue: &mut Rescue,
        places: &[(Shard, u64)],
    ) -> Result<Self, Failure> {
        like.copy_schema(scratch).map_err(database)?;
        let mut db = like.reopen(scratch).map_err(database)?;
        let cut = cut_at(log, genesis.shards).await?;
        match cut {
            None => db.enter_quietly(cluster, genesis).map_err(database)?,
            Some((_, first)) => {
                if !rescue.begin_before(log, cluster, &like.scope(), places, &mut db).await? {
                    return Err(nothing_leads_to(first));
                }
            }
        }
        Ok(Self { db, shards: genesis.shards, is_founded: cut.is_some() })
    }

    /// Applies every shard up to the founder's word that all its rows are in.
    pub(super) async fn read_to_founded(&mut self, log: &dyn Log) -> Result<(), Failure> {
        if self.is_founded {
            return Ok(());
        }
        for shard in 1..=self.shards {
            let mut waits = 0u32;
            while !self.read(log, shard, Until::Founded).await? {
                if waits.is_multiple_of(FOUNDED_NOTICE) {
                    tracing::info!(shard, "waiting for the founder to finish sending its rows");
                }
                waits = waits.wrapping_add(1);
                tokio::time::sleep(FOUNDED_POLL).await;
            }
        }
        Ok(())
    }

    pub(super) async fn read_to_the_end(&mut self, log: &dyn Log) -> Result<(), Failure> {
        for shard in 1..=self.shards {
            self.read(log, shard, Until::End).await?;
        }
        Ok(())
    }

    /// Applies every shard up to where `db` stands, and no further.
    pub(super) async fn read_to_the_place_of(&mut self, db: &Database, log: &dyn Log) -> Result<(), Failure> {
        for (shard, position) in db.positions() {
            self.read(log, shard, Until::Position(position)).await?;
        }
        Ok(())
    }

    /// Applies what there is of a shard, until then. Says whether it came across the founder's word.
    async fn read(&mut self, log: &dyn Log, shard: Shard, until: Until) -> Result<bool, Failure> {
        loop {
            let after = self.db.position(shard).seq;
            let mut entries = log.read(shard, after, READ_BYTES_MAX).await.map_err(unreachable_log)?;
            if entries.is_empty() {
                return Ok(false);
            }
            if let Until::Position(position) = until {
                entries.retain(|placed| placed.seq <= position);
                if entries.is_empty() {
                    return Ok(false);
                }
            }
            let founded = entries.iter().position(is_founded).filter(|_| until == Until::Founded);
            if let Some(founded) = founded {
                entries.truncate(founded + 1);
            }
            let last = entries.last().map_or(after, |placed| placed.seq);
            while self.db.position(shard).seq < last {
                let applied = self.db.apply(shard, &entries).map_err(database)?;
                match applied.stop {
                    None | Some(Stop::Full | Stop::Unsealed) => {}
                    Some(Stop::Blocked(reason)) => {
                        if crate::aside::foresee(&mut self.db, log, shard).await.map_err(unreachable_log)? {
                            continue;
                        }
                        return Err(Failure::new(
                            Kind::Data,
                            format!("cannot compare this database with the cluster: {reason}"),
                        ));
                    }
                    Some(Stop::Gap { expected, .. }) => {
                        return Err(Failure::new(
                            Kind::Data,
                            format!("the log lacks entry {expected} of shard {shard}"),
                        ));
                    }
                }
            }
            if founded.is_some() {
                return Ok(true);
            }
        }
    }
}

fn is_founded(placed: &Placed) -> bool {
    codec::decode(&placed.frame).is_ok_and(|entry| matches!(entry.body, Body::Founded) && placed.may_say(&entry))
}
