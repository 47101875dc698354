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
use antiphon_core::store::Name;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The lease's name in the log.
const LEASE: &str = "snapshot-leader";
/// How often it is looked whether one is due, at most.
const CHECK: Duration = Duration::from_secs(10);

/// How often it is looked how much of the log is superfluous.
const CUT: Duration = Duration::from_secs(600);

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
    /// When the log is looked at next.
    cut: Instant,
    /// Nodes that asked for one: what stands for it in the store.
    asked: BTreeSet<Name>,
    /// The same for those that have got one since.
    answered: BTreeSet<Name>,
}

impl Leader {
    pub(super) fn new(me: Origin, habits: &Habits) -> Self {
        let now = Instant::now();
        let claimant = Claimant::new(LEASE, me, habits.ttl);
        Self {
            claimant,
            begun: now,
            ttl: habits.ttl,
            looked: now,
            last: None,
            cut: now,
            asked: BTreeSet::new(),
            answered: BTreeSet::new(),
        }
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
        let cluster = db.call(|db| Ok(db.cluster())).await.map_err(|error| unasked(&error))?;
        let cluster = cluster.map(crate::words::hex).unwrap_or_default();
        let last = match &self.last {
            Some(last) => last.clone(),
            None => {
                let (shelf, cluster) = (shelf.clone(), cluster.clone());
                let last = apart(move || newest(&shelf, &cluster)).await??;
                self.last.insert(last).clone()
            }
        };
        let shelf = shelf.clone();
        self.asked = apart(move || Repo::new(&shelf.open()?.0.store, &cluster).asked()).await??;
        if !self.asked.is_subset(&self.answered) {
            return Ok(Some(Trigger::Asked));
        }
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
        let due = habits.calendar.as_ref().and_then(|calendar| calendar.after(last.created_ms));
        let scheduled = due.is_some_and(|due| due <= crate::clock::unix_ms());
        let standing = Standing { full: Some(since), any: Some(since), altered, scheduled, ..Standing::default() };
        Ok(due::next(&standing, &habits.due).map(|(_, trigger)| trigger))
    }

    /// One was made here.
    pub(super) fn made(&mut self, manifest: &Manifest) {
        self.last = Some(Some(Last::of(manifest)));
        self.cut = Instant::now();
        // Those who asked later are still to be seen.
        self.answered.clone_from(&self.asked);
    }

    /// Who has got what he asked for.
    pub(super) fn answered(&self) -> &BTreeSet<Name> {
        &self.answered
    }

    /// Whether it is for this node now to see how much of the log is superfluous.
    pub(super) async fn cuts(&mut self, log: &Arc<dyn Log>) -> Result<bool, Failure> {
        if Instant::now() < self.cut || !self.claimant.is_held(self.begun.elapsed()) {
            return Ok(false);
        }
        self.cut = Instant::now() + CUT;
        Ok(self.claimant.hold(&**log, self.begun.elapsed()).await.map_err(unreachable_log)? == Hold::Held)
    }

    /// This node stops.
    pub(super) async fn leave(&mut self, log: &Arc<dyn Log>) {
        if self.claimant.is_held(self.begun.elapsed()) {
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
