//! From a snapshot into the cluster: how a start makes use of one.
//!
//! A node that is new reads the log from there. One whose log no longer holds what comes next, or what it had applied,
//! goes there and on from there; whatever it wrote and has not seen come back stays on top, and is sent again.

use crate::anew::{self, Leave};
use crate::db::{self, Database, Owed};
use crate::failure::{Failure, Kind};
use crate::join::{Entered, database, unreachable_log};
use crate::life::{Life, unnoted};
use crate::log::{Log, Placement, Shard};
use crate::place::Place;
use crate::placement::{self, Loss};
use crate::snapshot::{Image, Rescue};
use antiphon_core::entry::ClusterId;
use antiphon_core::snapshot::manifest::Manifest;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// An empty database reads so many entries of the first shard rather than to fetch a snapshot.
const ENTRIES_SAVED_MIN: u64 = 1_000;
/// How often rows are sealed before it is given up: the application writes on meanwhile.
const SEALS_MAX: u32 = 1_000;

/// What a start needs for it.
pub struct Rescuer<'a> {
    rescue: Rescue,
    place: &'a Place,
    state: &'a Path,
    leave: Leave,
}

impl<'a> Rescuer<'a> {
    /// One that looks there.
    #[must_use]
    pub fn new(rescue: Rescue, place: &'a Place, state: &'a Path, leave: Leave) -> Self {
        Self { rescue, place, state, leave }
    }

    /// Lets shards begin again that have lost all they held, if this node is to; says whether it did.
    pub(crate) async fn begin_again(&self, db: &mut Database, log: &dyn Log) -> Result<bool, Failure> {
        // Without a snapshot nobody could follow.
        if self.leave != Leave::Told && !self.rescue.has_shelf() {
            return Ok(false);
        }
        anew::begin(db, log, self.leave).await
    }

    /// Where snapshots are looked for.
    pub(crate) fn rescue(&mut self) -> &mut Rescue {
        &mut self.rescue
    }

    /// Joins with a database of no rows, where the log begins at an entry that is too late for any other way.
    pub(crate) async fn join(
        &mut self,
        db: &mut Database,
        log: &dyn Log,
        cluster: ClusterId,
        first: u64,
    ) -> Result<(), Failure> {
        match self.image(db, log, cluster).await? {
            Some(image) => self.fill(db, log, &image).await,
            None => Err(crate::snapshot::nothing_leads_to(first)),
        }
    }

    /// Joins with a database of no rows from a snapshot, if that saves reading much of the log. Says whether it did.
    pub(crate) async fn shorten(
        &mut self,
        db: &mut Database,
        log: &dyn Log,
        cluster: ClusterId,
    ) -> Result<bool, Failure> {
        if log.bounds(1).await.map_err(unreachable_log)?.last < ENTRIES_SAVED_MIN {
            return Ok(false);
        }
        let found = match self.rescue.find(log, cluster, &db.scope()).await {
            Ok(found) => found,
            Err(failure) => {
                // The log has all of it.
                tracing::warn!(%failure, "no snapshot can be looked for; the whole log is read");
                return Ok(false);
            }
        };
        let saves = |manifest: &Manifest| manifest.positions.get(&1).is_some_and(|at| at.seq >= ENTRIES_SAVED_MIN);
        let Some(manifest) = found.filter(saves) else { return Ok(false) };
        let Some(image) = self.rescue.fetch(manifest, cluster, db).await? else { return Ok(false) };
        self.fill(db, log, &image).await?;
        Ok(true)
    }

    async fn fill(&self, db: &mut Database, log: &dyn Log, image: &Image) -> Result<(), Failure> {
        let rows = db.join_with(&image.db).map_err(database)?;
        let mut behind = 0;
        for (shard, position) in db.positions() {
            behind += log.bounds(shard).await.map_err(unreachable_log)?.last.saturating_sub(position);
        }
        tracing::info!(id = %image.manifest.id, rows, entries = behind, "joined from a snapshot; these entries are read on");
        Ok(())
    }

    /// Where the log does not go on where this node stands: begins it again, or goes to a snapshot. Says which, or nothing.
    pub(crate) async fn go_back(
        &mut self,
        db: &mut Database,
        log: &dyn Log,
        cluster: ClusterId,
    ) -> Result<Option<Entered>, Failure> {
        // Who takes nothing from others takes no rows from a snapshot either.
        if !db.replicates() || db.has_unread() {
            return Ok(None);
        }
        let Some((shard, loss)) = lost(db, log).await? else { return Ok(None) };
        if self.begin_again(db, log).await? {
            return Ok(Some(Entered::BeganAgain));
        }
        tracing::warn!("shard {shard} of the log {loss}; looking for a snapshot to go on from");
        while let Some(image) = self.image(db, log, cluster).await? {
            db.learn_routes(&image.db).map_err(database)?;
            seal(db)?;
            let logged = logged(db, log).await?;
            let unfounded = unfounded(db, log, &image.db, &logged).await?;
            let owed = owed(db, log, &image.db).await?;
            self.note(db, &image.db)?;
            fault!("going-back");
            match db.restore(&image.db, &logged, &unfounded, &owed) {
                Ok(Some(restored)) => {
                    tracing::warn!(
                        id = %image.manifest.id,
                        rows = restored.rows,
                        on_their_way = restored.pending,
                        "goes on from a snapshot; what was written here and is not in it is sent again"
                    );
                    return Ok(Some(Entered::Rescued));
                }
                Ok(None) => seal(db)?,
                Err(db::Error::Inconsistent(why)) => {
                    tracing::warn!(id = %image.manifest.id, why, "a snapshot is of no use here");
                    self.rescue.pass_over(image.manifest.id);
                }
                Err(error) => return Err(database(error)),
            }
        }
        Ok(None)
    }

    /// The newest snapshot that the log goes on from, put together.
    async fn image(&mut self, db: &Database, log: &dyn Log, cluster: ClusterId) -> Result<Option<Image>, Failure> {
        let (scope, node) = (db.scope(), db.origin().node);
        while let Some(manifest) = self.rescue.find_or_ask(log, cluster, &scope, node).await? {
            if let Some(image) = self.rescue.fetch(manifest, cluster, db).await? {
                return Ok(Some(image));
            }
        }
        Ok(None)
    }

    /// Writes beside the database that it may stand as low as the image does, before it does: else the next start would
    /// take it for an older file.
    fn note(&self, db: &Database, image: &Database) -> Result<(), Failure> {
        let reached = db.reached().min(image.reached());
        Life::of(self.place, db.origin().incarnation, reached)
            .write(self.state)
            .map_err(|error| unnoted(self.state, &error))
    }
}

/// The first shard whose log is no longer the one that was applied.
async fn lost(db: &Database, log: &dyn Log) -> Result<Option<(Shard, Loss)>, Failure> {
    for shard in 1..=db.shards() {
        if let Some(loss) = placement::compare(log, shard, db.anchor(shard)).await.map_err(unreachable_log)? {
            return Ok(Some((shard, loss)));
        }
    }
    Ok(None)
}

/// Seals all that the application has committed.
fn seal(db: &mut Database) -> Result<(), Failure> {
    for _ in 0..SEALS_MAX {
        db.install(true).map_err(database)?;
        let scanning = db.scan().map_err(database)?;
        let more = db.seal().map_err(database)?;
        if !scanning && !more {
            return Ok(());
        }
    }
    Err(Failure::new(Kind::Busy, "the application writes faster than it can be sealed").hint("start again"))
}

/// The last number of this node's in each shard of the log.
async fn logged(db: &Database, log: &dyn Log) -> Result<BTreeMap<Shard, u64>, Failure> {
    let mut logged = BTreeMap::new();
    for shard in 1..=db.shards() {
        logged.insert(shard, log.last_number(shard, db.origin()).await.map_err(unreachable_log)?);
    }
    Ok(logged)
}

/// Batches that the log does not have, and that were sealed at a place that it does not have either.
async fn unfounded(
    db: &Database,
    log: &dyn Log,
    image: &Database,
    logged: &BTreeMap<Shard, u64>,
) -> Result<BTreeSet<(Shard, u64)>, Failure> {
    let mut unfounded = BTreeSet::new();
    let mut known: BTreeMap<(Shard, u64), Option<Placement>> = BTreeMap::new();
    for (shard, number, at) in db.sealed_at(logged).map_err(database)? {
        if number <= image.received(shard, db.origin()) {
            continue;
        }
        let stands = match known.get(&(shard, at.seq)) {
            Some(stands) => *stands,
            None => {
                let stands = log.stands(shard, at.seq.max(1)).await.map_err(unreachable_log)?;
                *known.entry((shard, at.seq)).or_insert(stands)
            }
        };
        // Also where the image stands further on: it may have come there by what the log has taken since.
        if !image.leads_through(shard, at, stands).map_err(database)? {
            unfounded.insert((shard, number));
        }
    }
    Ok(unfounded)
}

/// What this node has read of others, and neither the snapshot nor the log has.
async fn owed(db: &Database, log: &dyn Log, image: &Database) -> Result<Owed, Failure> {
    let mut owed = Owed::new();
    for shard in 1..=db.shards() {
        for (origin, number) in db.numbers(shard) {
            if origin == db.origin() || number <= image.received(shard, origin) {
                continue;
            }
            if number > log.last_number(shard, origin).await.map_err(unreachable_log)? {
                owed.insert((shard, origin), number);
            }
        }
    }
    Ok(owed)
}
