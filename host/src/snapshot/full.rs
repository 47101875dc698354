//! A snapshot of all rows: a copy of them is drained, put where a start after this one would look, and stored.

use super::drained::failed;
use super::habits::Habits;
use super::job::Job;
use super::keeper::{Keeper, Made, epoch};
use super::repo::Repo;
use super::saved::{Writing, new_id, others, rows};
use super::scratch::{Scratch, used};
use super::unwritten;
use crate::apart::{apart, behind};
use crate::bill;
use crate::failure::{Failure, Kind};
use crate::storage::Opened;
use crate::words::hex;
use antiphon_core::snapshot::due::{Kind as What, Trigger};
use antiphon_core::snapshot::manifest::{FORMAT, Manifest, Position};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tracing::info;

impl Keeper {
    /// Makes one of all rows.
    pub(super) async fn make_full(&self, trigger: Trigger, stop: &Arc<AtomicBool>) -> Result<Made, Failure> {
        // First of all, for without it all work would be in vain.
        let shelf = self.shelf.clone();
        let (opened, habits) = apart(move || shelf.open()).await??;
        self.live().wait_for_most().await?;
        let created_ms = crate::clock::unix_ms();
        let id = new_id()?;
        let scratch = crate::node::Scratch::new(&self.state)?;
        let folder = scratch.folder().to_owned();
        Scratch::of_database(&self.path, &folder, habits.scratch_max).check(&folder)?;
        let copy = self.live().drain(&self.path, &folder.join("copy.db")).await?;
        let (origin, cluster) = (copy.origin(), copy.cluster().map(hex).unwrap_or_default());
        let positions = (1..=copy.shards()).map(|shard| (shard, position(&copy, shard))).collect();
        let tables: Vec<(String, u64)> = copy.schemas().into_iter().collect();
        let genesis = copy.kept_genesis().map_err(|error| failed(&error))?.unwrap_or_default();
        let (scope, genesis) = (copy.scope(), hex(genesis));
        let (stop, own) = (Arc::clone(stop), self.state.clone());
        let written = behind(move || {
            let (image, state) = (folder.join("image.db"), folder.join("state.db"));
            copy.export(&image, &state).map_err(|error| failed(&error))?;
            // More than this lies there at no time.
            bill::scratch(used(&folder));
            // Room for what follows, and for nobody else to look at.
            std::fs::remove_file(folder.join("copy.db")).map_err(|error| unwritten(&folder, &error))?;
            let unread = |error: rusqlite::Error| Failure::caused(Kind::General, "cannot count rows", &error);
            let manifest = Manifest {
                format: FORMAT,
                id,
                cluster,
                kind: What::Full,
                parent: None,
                created_ms,
                node: origin.node,
                version: env!("CARGO_PKG_VERSION").to_owned(),
                term: 0,
                trigger: trigger.name().to_owned(),
                took_ms: 0,
                positions,
                tables: rows(&image, &tables).map_err(unread)?,
                left_out: others(&image, &tables).map_err(unread)?,
                scope,
                genesis,
                image: None,
                index: None,
            };
            let job = Job::keep(&own, manifest, &image, &state)?;
            store(&job, &opened, &habits, &stop)
        });
        let made = written.await??;
        drop(scratch);
        Ok(made)
    }

    /// Goes on with one that an earlier process left.
    pub(super) async fn go_on(&self, job: Job, stop: &Arc<AtomicBool>) -> Result<Made, Failure> {
        info!(id = %job.manifest.id, "going on with a snapshot that was begun before the start");
        let (shelf, stop) = (self.shelf.clone(), Arc::clone(stop));
        behind(move || {
            let (opened, habits) = shelf.open()?;
            store(&job, &opened, &habits, &stop)
        })
        .await?
    }

    /// One that an earlier process left, of the cluster that this node is in.
    pub(super) async fn left(&self) -> Option<Job> {
        let own = self.state.clone();
        let job = apart(move || Job::left(&own)).await.ok().flatten()?;
        let cluster = self.live.db.call(|db| Ok(db.cluster())).await.ok().flatten().map(hex);
        if cluster.as_ref() == Some(&job.manifest.cluster) {
            return Some(job);
        }
        job.end();
        None
    }
}

/// Stores what is ready, but for what is stored.
fn store(job: &Job, to: &Opened, habits: &Habits, stop: &AtomicBool) -> Result<Made, Failure> {
    let repo = Repo::new(&to.store, &job.manifest.cluster);
    let place = to.place.clone();
    // It may have died behind the manifest.
    if job.is_left
        && let Ok(manifest) = repo.manifest(job.manifest.id)
    {
        job.end();
        let stored_bytes = repo.stored_bytes(manifest.id)?;
        return Ok(Made { manifest, stored_bytes, place });
    }
    let writing = Writing { repo, packing: habits.packing, parallel: habits.parallel, stop, goes_on: job.is_left };
    let written = writing.write(job.manifest.clone(), &job.image(), &job.state());
    // Only who was stopped goes on with it; after an error it is made anew, of rows as they are then.
    if written.is_ok() || !stop.load(Ordering::Relaxed) {
        job.end();
    }
    written.map(|(manifest, stored_bytes)| Made { manifest, stored_bytes, place })
}

fn position(copy: &crate::db::Database, shard: u32) -> Position {
    super::archive::position(copy.cluster().map_or(0, epoch), copy.position(shard))
}
