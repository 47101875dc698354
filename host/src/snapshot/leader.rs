//! Which node makes the snapshots that nobody asked for, and when it does.
//!
//! The lease spares work and decides nothing: two leaders make two snapshots, and both count.

use super::habits::Habits;
use super::repo::Repo;
use super::shelf::Shelf;
use crate::apart::apart;
use crate::db::Db;
use crate::failure::{Failure, Kind};
use crate::join::unreachable_log;
use crate::log::{Claimant, Hold, Log};
use antiphon_core::entry::Origin;
use antiphon_core::snapshot::due::{self, Since, Standing, Trigger};
use antiphon_core::snapshot::manifest::Manifest;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The lease's name in the log.
const LEASE: &str = "snapshot-leader";
/// How often it is looked whether one is due, at most.
const CHECK: Duration = Duration::from_secs(10);

/// Of the last snapshot, what the next one goes by.
#[derive(Clone, Debug)]
struct Last {
    created_ms: u64,
    entries: u64,
    schemas: BTreeMap<String, u64>,
}

impl Last {
    fn of(manifest: &Manifest) -> Self {
        Self {
            created_ms: manifest.created_ms,
            entries: manifest.positions.values().map(|at| at.seq).sum(),
            schemas: manifest.tables.iter().map(|table| (table.name.clone(), table.schema)).collect(),
        }
    }
}

/// A node that would like to be the one.
pub(super) struct Leader {
    claimant: Claimant,
    begun: Instant,
    ttl: Duration,
    looked: Instant,
    /// The last snapshot, once it was looked for.
    last: Option<Option<Last>>,
}

impl Leader {
    pub(super) fn new(me: Origin, habits: &Habits) -> Self {
        let now = Instant::now();
        Self { claimant: Claimant::new(LEASE, me, habits.ttl), begun: now, ttl: habits.ttl, looked: now, last: None }
    }

    /// Whether it is time to look again.
    pub(super) fn is_time(&self) -> bool {
        self.looked.elapsed() >= CHECK.min(self.ttl / 3)
    }

    /// Why a snapshot is to be made here now, if one is.
    pub(super) async fn due(
        &mut self,
        db: &Db,
        log: &Arc<dyn Log>,
        shelf: &Shelf,
        habits: &Habits,
    ) -> Result<Option<Trigger>, Failure> {
        self.looked = Instant::now();
        if self.claimant.hold(&**log, self.begun.elapsed()).await.map_err(unreachable_log)? != Hold::Held {
            // Whoever has it makes snapshots that this node does not know of.
            self.last = None;
            return Ok(None);
        }
        let last = match &self.last {
            Some(last) => last.clone(),
            None => {
                let cluster = db.call(|db| Ok(db.cluster())).await.map_err(|error| unasked(&error))?;
                let cluster = cluster.map(crate::words::hex).unwrap_or_default();
                let shelf = shelf.clone();
                let last = apart(move || newest(&shelf, &cluster)).await??;
                self.last.insert(last).clone()
            }
        };
        let Some(last) = last else { return Ok(Some(Trigger::First)) };
        let (entries, schemas) = db
            .call(|db| Ok((db.positions().iter().map(|(_, seq)| seq).sum::<u64>(), db.schemas())))
            .await
            .map_err(|error| unasked(&error))?;
        let since = Since {
            age_ms: crate::clock::unix_ms().saturating_sub(last.created_ms),
            changes: entries.saturating_sub(last.entries),
            ..Since::default()
        };
        let altered = schemas != last.schemas;
        let standing = Standing { full: Some(since), any: Some(since), altered, ..Standing::default() };
        Ok(due::next(&standing, &habits.due).map(|(_, trigger)| trigger))
    }

    /// Whether it is this node that makes them.
    pub(super) fn leads(&self) -> bool {
        self.claimant.is_held(self.begun.elapsed())
    }

    /// One was made here.
    pub(super) fn made(&mut self, manifest: &Manifest) {
        self.last = Some(Some(Last::of(manifest)));
    }

    /// This node stops.
    pub(super) async fn leave(&mut self, log: &Arc<dyn Log>) {
        if self.leads() {
            // If the log can't be asked it ends by itself.
            let _ = self.claimant.release(&**log).await;
        }
    }
}

fn newest(shelf: &Shelf, cluster: &str) -> Result<Option<Last>, Failure> {
    let (opened, _) = shelf.open()?;
    let repo = Repo::new(&opened.store, cluster);
    for id in repo.ids()? {
        match repo.manifest(id) {
            Ok(manifest) => return Ok(Some(Last::of(&manifest))),
            Err(failure) if matches!(failure.kind(), Kind::Data | Kind::Missing) => {}
            Err(failure) => return Err(failure),
        }
    }
    Ok(None)
}

fn unasked(error: &crate::db::Error) -> Failure {
    Failure::caused(Kind::General, "cannot see whether a snapshot is due", error)
}
