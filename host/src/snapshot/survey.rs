//! Which snapshots there are, looked at now and then for those who watch over them.

use super::archive::ends;
use super::repo::Repo;
use super::rhythm::{Run, rhythms};
use super::shelf::Shelf;
use crate::failure::{Failure, Kind};
use antiphon_core::snapshot::id::SnapshotId;
use antiphon_core::snapshot::manifest::{Manifest, Position};
use serde::Serialize;
use std::collections::BTreeMap;

/// So many of the newest are looked at.
const SHOTS_MAX: usize = 48;

/// What is known of the snapshots of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Survey {
    /// The task that makes them runs on this node.
    pub running: bool,
    /// It is this node that makes those nobody asks for.
    pub leader: bool,
    /// How often one is to be made at least, if that goes by time.
    pub interval_ms: Option<u64>,
    /// Where they are.
    pub place: String,
    /// When the store was last listed, in milliseconds since 1970; 0: never.
    pub listed_ms: u64,
    /// Why it could not be, if it could not.
    pub error: Option<String>,
    /// How many there are.
    pub count: usize,
    /// The newest of them, the newest first.
    pub shots: Vec<Shot>,
    /// When the newest was found whole that was; 0: none was.
    pub verified_ms: u64,
    /// Up to which entry each shard is archived.
    pub archived: BTreeMap<u32, u64>,
    /// Stretches of the log that nobody has any more.
    pub holes: usize,
    /// Of the newest that were due by time, the share that came in time.
    pub on_time: Option<f64>,
}

/// One snapshot.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Shot {
    /// Its name.
    pub id: String,
    /// When it was begun, in milliseconds since 1970.
    pub created_ms: u64,
    /// How long it took.
    pub took_ms: u64,
    /// Who made it.
    pub node: u64,
    /// Why.
    pub trigger: String,
    /// Bytes of its database.
    pub bytes: u64,
    /// Bytes of it in the store.
    pub stored_bytes: u64,
    /// Its rows, by table.
    pub tables: BTreeMap<String, u64>,
    /// When it was last found whole, if it was.
    pub verified_ms: Option<u64>,
}

/// Looks, and remembers what can't change.
#[derive(Default)]
pub(super) struct Surveyor {
    known: BTreeMap<SnapshotId, (Shot, Run)>,
    /// Where full ones stand, all that there are.
    bases: BTreeMap<SnapshotId, Option<BTreeMap<u32, Position>>>,
}

/// What a look found.
pub(super) struct Found {
    pub(super) place: String,
    pub(super) count: usize,
    pub(super) shots: Vec<Shot>,
    pub(super) verified_ms: u64,
    pub(super) interval_ms: Option<u64>,
    pub(super) archived: BTreeMap<u32, u64>,
    pub(super) holes: usize,
    pub(super) on_time: Option<f64>,
}

impl Surveyor {
    /// Lists the store; reads what is new there.
    pub(super) fn look(&mut self, shelf: &Shelf, cluster: &str) -> Result<Found, Failure> {
        let (opened, habits) = shelf.open()?;
        let interval_ms = habits.due.full.interval_ms;
        let repo = Repo::new(&opened.store, cluster);
        let marks = repo.marks()?;
        let forgotten = |id: &SnapshotId| marks.get(id).is_some_and(|marks| marks.forgotten_ms.is_some());
        let ids: Vec<SnapshotId> = repo.ids()?.into_iter().filter(|id| !forgotten(id)).collect();
        let verified_ms = ids.iter().filter_map(|id| marks.get(id)?.verified_ms).max().unwrap_or(0);
        let newest = ids.get(..SHOTS_MAX.min(ids.len())).unwrap_or_default();
        self.known.retain(|id, _| newest.contains(id));
        for id in newest {
            if self.known.contains_key(id) {
                continue;
            }
            match repo.manifest(*id) {
                Ok(manifest) => {
                    let stored_bytes = repo.sizes(*id)?.values().sum();
                    self.known.insert(*id, (shot(&manifest, stored_bytes), Run::of(&manifest)));
                }
                // It does not count, or is gone by now.
                Err(failure) if matches!(failure.kind(), Kind::Data | Kind::Missing) => {}
                Err(failure) => return Err(failure),
            }
        }
        for (id, (shot, _)) in &mut self.known {
            shot.verified_ms = marks.get(id).and_then(|marks| marks.verified_ms);
        }
        let shots = self.known.values().rev().map(|(shot, _)| shot.clone()).collect();
        let runs = self.known.values().map(|(_, run)| run.clone()).collect();
        let rhythms = rhythms(&shelf.config(), runs);
        let (timed, on_time) = rhythms.iter().fold((0, 0), |(all, good), of| (all + of.runs, good + of.on_time));
        let on_time = (timed > 0).then(|| on_time as f64 / timed as f64);
        let archive = repo.archive()?;
        let bases = self.bases(&repo, &ids)?;
        let archived = ends(&archive, &bases).into_iter().map(|(shard, to)| (shard, to.seq)).collect();
        Ok(Found {
            place: opened.place.clone(),
            count: ids.len(),
            shots,
            verified_ms,
            interval_ms,
            archived,
            holes: archive.holes.len(),
            on_time,
        })
    }

    /// Where full ones stand, the newest first. What stands in a manifest never changes, so each is read once.
    fn bases(&mut self, repo: &Repo<'_>, ids: &[SnapshotId]) -> Result<Vec<BTreeMap<u32, Position>>, Failure> {
        self.bases.retain(|id, _| ids.contains(id));
        for id in ids {
            if self.bases.contains_key(id) {
                continue;
            }
            match repo.manifest(*id) {
                Ok(manifest) => {
                    let stands = manifest.is_full().then_some(manifest.positions);
                    self.bases.insert(*id, stands);
                }
                Err(failure) if matches!(failure.kind(), Kind::Data | Kind::Missing) => {}
                Err(failure) => return Err(failure),
            }
        }
        Ok(self.bases.values().rev().flatten().cloned().collect())
    }
}

fn shot(manifest: &Manifest, stored_bytes: u64) -> Shot {
    Shot {
        id: manifest.id.to_string(),
        created_ms: manifest.created_ms,
        took_ms: manifest.took_ms,
        node: manifest.node,
        trigger: manifest.trigger.clone(),
        bytes: manifest.image.as_ref().map_or(0, |image| image.bytes),
        stored_bytes,
        tables: manifest.tables.iter().map(|table| (table.name.clone(), table.rows)).collect(),
        verified_ms: None,
    }
}
