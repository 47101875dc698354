//! What leads up to snapshots that hold no rows of their own: looked up once for all of them.

use super::repo::Repo;
use super::saved::{Checked, Level};
use crate::failure::{Failure, Kind};
use antiphon_core::snapshot::layout::{Object, Segment};
use antiphon_core::snapshot::manifest::Manifest;
use antiphon_core::snapshot::reach::{self, Base, Target};
use std::collections::{BTreeMap, BTreeSet};

/// The archive, and the snapshots of all rows that a way begins with.
pub struct Ways {
    bases: Vec<Base>,
    segments: Vec<Segment>,
    /// Objects of each segment, and their bytes.
    sizes: BTreeMap<Segment, (u64, u64)>,
    /// Those that were looked at.
    seen: BTreeSet<Segment>,
}

impl Ways {
    /// Those of a cluster.
    ///
    /// # Errors
    /// When the store can't be listed or read.
    pub fn of(repo: Repo<'_>) -> Result<Self, Failure> {
        let fulls = repo.all()?.snapshots.into_iter().map(|(manifest, _)| manifest).filter(Manifest::is_full);
        let bases = fulls.map(|full| Base { id: full.id, positions: full.positions }).collect();
        let mut sizes: BTreeMap<Segment, (u64, u64)> = BTreeMap::new();
        for (_, object, size) in [repo.objects("log")?, repo.objects("part/")?].concat() {
            if let Object::Segment(segment) | Object::SegmentPart(segment, _) = object {
                let (objects, bytes) = sizes.entry(segment).or_default();
                (*objects, *bytes) = (*objects + 1, *bytes + size);
            }
        }
        Ok(Self { bases, segments: repo.archive()?.segments, sizes, seen: BTreeSet::new() })
    }

    /// Looks whether the archive leads up to such a snapshot; unless that is enough, all bytes on the way are read, but
    /// for those of the snapshot that it begins with. Whatever lies on several ways is looked at, and counted, once.
    ///
    /// # Errors
    /// When it does not, or a segment is not what was put there.
    pub fn check(&mut self, repo: Repo<'_>, manifest: &Manifest, level: Level) -> Result<Checked, Failure> {
        let is_of_its_log = |base: &&Base| {
            let epoch = |shard: &u32| manifest.positions.get(shard).map(|at| at.epoch);
            base.positions.iter().all(|(shard, at)| epoch(shard) == Some(at.epoch))
        };
        let bases: Vec<Base> = self.bases.iter().filter(is_of_its_log).cloned().collect();
        let target = Target::Seq(manifest.positions.iter().map(|(shard, at)| (*shard, at.seq)).collect());
        let way = reach::find(&bases, &self.segments, &target).ok().filter(|way| way.holes.is_empty());
        let way = way.ok_or_else(|| {
            Failure::new(Kind::Data, format!("the archive does not lead to snapshot {}", manifest.id))
        })?;
        let mut checked = Checked { objects: 1, stored_bytes: manifest.to_bytes().len() as u64, ..Checked::default() };
        for segment in way.segments.into_values().flatten() {
            if self.seen.contains(&segment) {
                continue;
            }
            if level != Level::Quick {
                repo.segment(&segment)?;
            }
            let (objects, bytes) = self.sizes.get(&segment).copied().unwrap_or_default();
            (checked.objects, checked.stored_bytes) = (checked.objects + objects, checked.stored_bytes + bytes);
            self.seen.insert(segment);
        }
        Ok(checked)
    }
}
