//! Which snapshots there are, looked at now and then for those who watch over them.

use super::archive::{Archive, Window, ends};
use super::repo::Repo;
use super::rhythm::{Run, rhythms};
use super::scratch::Scratch;
use super::shelf::Shelf;
use crate::clock::is_to_come;
use crate::failure::{Failure, Kind};
use antiphon_core::snapshot::id::SnapshotId;
use antiphon_core::snapshot::manifest::{Manifest, Position};
use antiphon_core::snapshot::reach::Hole;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// So many of the newest are looked at.
const SHOTS_MAX: usize = 48;

/// What is known of the snapshots of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Survey {
    /// The task that makes them runs on this node.
    pub running: bool,
    /// It is this node that makes those nobody asks for.
    pub leader: bool,
    /// How often one of all rows is to be made if anything changed, if that goes by time.
    pub full_interval_ms: Option<u64>,
    /// The same for one of any kind.
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
    /// The newest of all rows.
    pub full: Option<Shot>,
    /// Those that are not what was put there.
    pub damaged: Vec<String>,
    /// When the newest was found whole that was; 0: none was.
    pub verified_ms: u64,
    /// When one was last put together and read; 0: none was.
    pub restored_ms: u64,
    /// Up to which entry each shard is archived.
    pub archived: BTreeMap<u32, u64>,
    /// Stretches of the log that nobody has any more.
    pub holes: usize,
    /// When the newest of them was noticed, in milliseconds since 1970.
    pub holed_ms: u64,
    /// Which points of each shard can be reached.
    #[serde(skip)]
    pub windows: BTreeMap<u32, Vec<Window>>,
    /// Of the newest that were due by time, the share that came in time.
    pub on_time: Option<f64>,
    /// Room for making one, where this node does that.
    pub scratch: Option<Scratch>,
}

/// From when to when any point in time can be reached, in milliseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Stretch {
    /// The first moment.
    pub from_ms: u64,
    /// The last.
    pub to_ms: u64,
}

impl Survey {
    /// Which points in time can be reached: those that can in every shard. What is archived up to the end of the log is
    /// so up to now.
    #[must_use]
    pub fn reachable(&self, end: impl Fn(u32) -> Option<u64>, now_ms: u64) -> Vec<Stretch> {
        let of = |(shard, windows): (&u32, &Vec<Window>)| {
            let is_whole = |window: &Window| end(*shard).is_some_and(|end| window.to_seq >= end);
            let stretch = |window: &Window| Stretch {
                from_ms: window.from_ms,
                to_ms: if is_whole(window) { now_ms.max(window.to_ms) } else { window.to_ms },
            };
            windows.iter().map(stretch).collect::<Vec<_>>()
        };
        self.windows.iter().map(of).reduce(|all, shard| common(&all, &shard)).unwrap_or_default()
    }
}

/// What lies in both.
fn common(one: &[Stretch], other: &[Stretch]) -> Vec<Stretch> {
    let both = |a: &Stretch, b: &Stretch| Stretch { from_ms: a.from_ms.max(b.from_ms), to_ms: a.to_ms.min(b.to_ms) };
    let pairs = one.iter().flat_map(|a| other.iter().map(move |b| both(a, b)));
    pairs.filter(|stretch| stretch.from_ms <= stretch.to_ms).collect()
}

/// One snapshot.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Shot {
    /// Its name.
    pub id: String,
    /// Of what it is: `full` or `incremental`.
    pub kind: &'static str,
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
    /// Entries of the log that are in it, over all shards.
    pub entries: u64,
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
    /// When holes were noticed.
    holes: BTreeMap<(u64, Hole), u64>,
}

impl Surveyor {
    /// Lists the store; reads what is new there. Who makes snapshots, and where, is for others to say.
    pub(super) fn look(&mut self, shelf: &Shelf, cluster: &str) -> Result<Survey, Failure> {
        let (opened, habits) = shelf.open()?;
        let repo = Repo::new(&opened.store, cluster);
        let marks = repo.marks()?;
        let forgotten = |id: &SnapshotId| marks.get(id).is_some_and(|marks| marks.forgotten_ms.is_some());
        let ids: Vec<SnapshotId> = repo.ids()?.into_iter().filter(|id| !forgotten(id)).collect();
        let whole_ms = |id: &SnapshotId| marks.get(id).and_then(super::Marks::whole_ms);
        let archive = repo.archive()?;
        let bases = self.bases(&repo, &ids)?;
        let newest = ids.get(..SHOTS_MAX.min(ids.len())).unwrap_or_default();
        let now_ms = crate::clock::unix_ms();
        let mut fulls = ids.iter().filter(|id| matches!(self.bases.get(id), Some(Some(_))));
        // One of a time to come would be the newest until then, whatever is made.
        let full = fulls.clone().find(|id| !is_to_come(id.millis(), now_ms)).or_else(|| fulls.next());
        let shown: BTreeSet<SnapshotId> = newest.iter().chain(full).copied().collect();
        let mut damaged: BTreeSet<SnapshotId> =
            ids.iter().filter(|id| marks.get(id).is_some_and(super::Marks::is_damaged)).copied().collect();
        self.known.retain(|id, _| shown.contains(id));
        for id in &shown {
            if self.known.contains_key(id) {
                continue;
            }
            match repo.manifest(*id) {
                Ok(manifest) => {
                    let stored_bytes = repo.sizes(*id)?.values().sum();
                    self.known.insert(*id, (shot(&manifest, stored_bytes), Run::of(&manifest)));
                }
                // It is gone by now.
                Err(failure) if failure.kind() == Kind::Missing => {}
                Err(failure) if failure.kind() == Kind::Data => {
                    damaged.insert(*id);
                }
                Err(failure) => return Err(failure),
            }
        }
        for (id, (shot, _)) in &mut self.known {
            shot.verified_ms = whole_ms(id);
        }
        let of = |id: &SnapshotId| self.known.get(id).map(|(shot, _)| shot.clone());
        let runs = newest.iter().filter_map(|id| self.known.get(id)).map(|(_, run)| run.clone()).collect();
        let rhythms = rhythms(&shelf.config(), runs);
        let (timed, on_time) = rhythms.iter().fold((0, 0), |(all, good), of| (all + of.runs, good + of.on_time));
        let ends = ends(&archive, &bases).into_iter().map(|(shard, to)| (shard, to.seq)).collect();
        Ok(Survey {
            full_interval_ms: habits.due.full.interval_ms,
            interval_ms: habits.due.incremental.interval_ms,
            place: opened.place.clone(),
            count: ids.len(),
            shots: newest.iter().filter_map(of).collect(),
            full: full.and_then(of),
            damaged: damaged.iter().map(ToString::to_string).collect(),
            verified_ms: ids.iter().filter_map(whole_ms).max().unwrap_or(0),
            restored_ms: marks.values().filter_map(|marks| marks.restored_ms).max().unwrap_or(0),
            archived: ends,
            holes: archive.holes.len(),
            holed_ms: self.holed_ms(&repo, &archive)?,
            windows: windows(&archive, &bases),
            on_time: (timed > 0).then(|| on_time as f64 / timed as f64),
            ..Survey::default()
        })
    }

    /// When the newest hole was noticed. That does not change, so each is read once.
    fn holed_ms(&mut self, repo: &Repo<'_>, archive: &Archive) -> Result<u64, Failure> {
        self.holes.retain(|known, _| archive.holes.contains(known));
        for hole in &archive.holes {
            if !self.holes.contains_key(hole) {
                self.holes.insert(*hole, repo.noticed_ms(hole.0, hole.1)?);
            }
        }
        Ok(self.holes.values().copied().max().unwrap_or(0))
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

/// Which points of the newest log can be reached from full snapshots that stand here, the newest first.
fn windows(archive: &Archive, bases: &[BTreeMap<u32, Position>]) -> BTreeMap<u32, Vec<Window>> {
    let of = |(shard, newest): (&u32, &Position)| {
        let at = bases.iter().filter_map(|base| base.get(shard)).copied().collect();
        (*shard, archive.windows(newest.epoch, *shard, at))
    };
    bases.first().into_iter().flatten().map(of).collect()
}

fn shot(manifest: &Manifest, stored_bytes: u64) -> Shot {
    Shot {
        id: manifest.id.to_string(),
        kind: manifest.kind.name(),
        created_ms: manifest.created_ms,
        took_ms: manifest.took_ms,
        node: manifest.node,
        trigger: manifest.trigger.clone(),
        bytes: manifest.image.as_ref().map_or(0, |image| image.bytes),
        stored_bytes,
        entries: manifest.positions.values().map(|at| at.seq).sum(),
        tables: manifest.tables.iter().map(|table| (table.name.clone(), table.rows)).collect(),
        verified_ms: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(from_ms: u64, to_seq: u64, to_ms: u64) -> Window {
        Window { from_seq: 1, from_ms, to_seq, to_ms }
    }

    #[test]
    fn a_moment_is_reached_where_every_shard_is() {
        let reachable = |windows: &[(u32, Vec<Window>)]| {
            let survey = Survey { windows: windows.iter().cloned().collect(), ..Survey::default() };
            // Both shards end with entry 9, and a third one nobody has asked.
            let stretches = survey.reachable(|shard| (shard < 3).then_some(9), 1_000);
            stretches.into_iter().map(|of| (of.from_ms, of.to_ms)).collect::<Vec<_>>()
        };
        assert_eq!(reachable(&[]), []);
        assert_eq!(reachable(&[(1, vec![window(10, 8, 90)])]), [(10, 90)]);
        assert_eq!(reachable(&[(1, vec![window(10, 9, 90)])]), [(10, 1_000)], "nothing came since");
        assert_eq!(reachable(&[(3, vec![window(10, 9, 90)])]), [(10, 90)], "nobody knows what came since");
        let holed = vec![window(10, 3, 30), window(50, 9, 90)];
        assert_eq!(reachable(&[(1, holed.clone())]), [(10, 30), (50, 1_000)]);
        assert_eq!(reachable(&[(1, holed.clone()), (2, vec![window(20, 8, 60)])]), [(20, 30), (50, 60)]);
        assert_eq!(reachable(&[(1, holed), (2, vec![window(31, 8, 49)])]), []);
    }
}
