//! An incremental snapshot: a name and a proof for what changed since another. It holds no rows of its own; what leads to it
//! from the last full one lies in the archive.

use super::archiver::Archiver;
use super::drained::{Live, failed};
use super::repo::Repo;
use super::saved::new_id;
use super::shelf::Shelf;
use crate::apart::apart;
use crate::failure::{Failure, Kind};
use crate::words::hex;
use antiphon_core::entry::Origin;
use antiphon_core::snapshot::due::{Kind as What, Trigger};
use antiphon_core::snapshot::manifest::{FORMAT, Manifest, Position};
use antiphon_core::snapshot::reach::{self, Base, Target, Way};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the log may take to give back what the node had only marked.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is looked whether it has.
const LOOK: Duration = Duration::from_millis(20);

/// What came of it.
pub(super) enum Increment {
    /// The manifest, and where it is stored.
    Made(Box<Manifest>, String),
    /// There is no way without a hole from a full snapshot to where the log stands: a full one is needed.
    NeedsFull,
}

/// Makes one.
pub(super) async fn make(live: &Live, origin: Origin, shelf: &Shelf, trigger: Trigger) -> Result<Increment, Failure> {
    let created_ms = crate::clock::unix_ms();
    let id = new_id()?;
    let cluster = live.db.call(|db| Ok(db.cluster())).await.map_err(|error| failed(&error))?;
    let cluster = cluster.map(hex).unwrap_or_default();
    // What the application has committed here by now is to be in it.
    let sealed = live.seal().await?;
    let begun = Instant::now();
    loop {
        let sealed = sealed.clone();
        if live.db.call(move |db| Ok(db.has_drained(&sealed))).await.map_err(|error| failed(&error))? {
            break;
        }
        if begun.elapsed() > PATIENCE {
            return Err(Failure::new(Kind::Busy, "what was written here is not in the log yet, after 60 s")
                .hint("see with `antiphon status` what keeps it; a snapshot holds only what the log has"));
        }
        tokio::time::sleep(LOOK).await;
    }
    let mut archiver = Archiver::beside(Arc::clone(&live.log), shelf.clone(), cluster.clone(), origin.node);
    if !archiver.begin().await? {
        return Ok(Increment::NeedsFull);
    }
    let positions = archiver.flush().await?;
    fault!("increment-flushed");
    if !archiver.take_holes().is_empty() {
        return Ok(Increment::NeedsFull);
    }
    let shelf = shelf.clone();
    apart(move || {
        let (opened, _) = shelf.open()?;
        let repo = Repo::new(&opened.store, &cluster);
        let snapshots = repo.all()?.snapshots;
        let stands_before = |manifest: &Manifest| {
            let is_before = |(shard, at): (&u32, &Position)| {
                positions.get(shard).is_some_and(|now| now.epoch == at.epoch && at.seq <= now.seq)
            };
            manifest.positions.iter().all(is_before)
        };
        let mut before = snapshots.iter().map(|(manifest, _)| manifest).filter(|manifest| stands_before(manifest));
        let Some(parent) = before.next() else { return Ok(Increment::NeedsFull) };
        let Some(full) = std::iter::once(parent).chain(before).find(|manifest| manifest.is_full()) else {
            return Ok(Increment::NeedsFull);
        };
        if !matches!(way(&repo, full, &positions)?, Some(way) if way.holes.is_empty()) {
            return Ok(Increment::NeedsFull);
        }
        let manifest = Manifest {
            format: FORMAT,
            id,
            kind: What::Incremental,
            parent: Some(parent.id),
            created_ms,
            node: origin.node,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            trigger: trigger.name().to_owned(),
            took_ms: crate::clock::unix_ms().saturating_sub(created_ms),
            positions,
            // Nobody has counted them.
            tables: Vec::new(),
            image: None,
            index: None,
            ..full.clone()
        };
        repo.commit(&manifest)?;
        // What it goes on from was verified, and each segment read back.
        if let Err(failure) = repo.vouch(id) {
            tracing::warn!(%failure, "a snapshot was found whole, and that can't be noted");
        }
        Ok(Increment::Made(Box::new(manifest), opened.place.clone()))
    })
    .await?
}

/// What leads from a full snapshot to these places.
fn way(repo: &Repo<'_>, full: &Manifest, positions: &BTreeMap<u32, Position>) -> Result<Option<Way>, Failure> {
    let archive = repo.archive()?;
    let base = Base { id: full.id, positions: full.positions.clone() };
    let target = Target::Seq(positions.iter().map(|(shard, at)| (*shard, at.seq)).collect());
    Ok(reach::find(&[base], &archive.segments, &target).ok())
}
