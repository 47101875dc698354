//! The archive of a cluster's log in a store: segments, one after the other, shard by shard.
//!
//! A segment is named by what it holds, so any number of nodes may archive at once, and one that dies leaves nothing that
//! another would not write again. What is told of the archive is told by a listing of names.

use super::repo::Repo;
use super::stored;
use crate::failure::Failure;
use crate::log::Placement;
use antiphon_core::snapshot::layout::{Object, Segment, Term};
use antiphon_core::snapshot::manifest::{Manifest, Position, Table};
use antiphon_core::snapshot::reach::{self, Hole};
use antiphon_core::store::ErrorKind;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Up to where a shard is archived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Archived {
    /// Which log.
    pub epoch: u64,
    /// The last entry that can be read again: all after the oldest snapshot up to this one are in the archive, each
    /// read back when it was stored, or are known to be gone.
    pub seq: u64,
}

/// What there is of the log in a store.
#[derive(Clone, Debug, Default)]
pub(crate) struct Archive {
    /// Stretches that count.
    pub(crate) segments: Vec<Segment>,
    /// Those that don't: the log lost what is in them, or whoever stored them could not know that it had not.
    pub(crate) void: BTreeSet<Segment>,
    /// Since when the shards are archived by whom.
    pub(crate) terms: BTreeSet<Term>,
    /// Up to where segments of a log's shard were let go of.
    pub(crate) floors: BTreeMap<(u64, u32), u64>,
    /// Stretches that nobody has, by the log that lacks them.
    pub(crate) holes: Vec<(u64, Hole)>,
    /// Bytes of all objects.
    pub(crate) bytes: u64,
}

/// What is said of a hole.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Noticed {
    /// When, in milliseconds since 1970.
    noticed_ms: u64,
    /// By whom.
    node: u64,
}

impl Archive {
    /// Up to where a shard is archived, from this entry on.
    pub(crate) fn covered(&self, epoch: u64, shard: u32, from: u64) -> u64 {
        let holes: Vec<Hole> = self.holes_of(epoch, shard).collect();
        reach::covered(from, &self.of(epoch, shard), &holes)
    }

    /// The segments of a shard.
    pub(crate) fn of(&self, epoch: u64, shard: u32) -> Vec<Segment> {
        let is_of = |segment: &&Segment| segment.epoch == epoch && segment.shard == shard;
        self.segments.iter().filter(is_of).cloned().collect()
    }

    /// Where those of these places lie from which on a shard's archive is kept.
    pub(crate) fn kept_from(&self, epoch: u64, shard: u32, mut bases: Vec<Position>) -> Vec<Position> {
        bases.retain(|at| at.epoch == epoch);
        let floor = self.floors.get(&(epoch, shard)).copied().unwrap_or(0);
        // Where the snapshot is gone that stood at the floor, something is better than nothing.
        if bases.iter().any(|at| at.seq >= floor) {
            bases.retain(|at| at.seq >= floor);
        }
        bases
    }

    /// Which points of a shard can be reached from full snapshots that stand at these places.
    pub(crate) fn windows(&self, epoch: u64, shard: u32, mut bases: Vec<Position>) -> Vec<Window> {
        let segments = self.of(epoch, shard);
        bases.retain(|at| at.epoch == epoch);
        bases.sort_by_key(|at| at.seq);
        let mut windows: Vec<Window> = Vec::new();
        for at in bases {
            if windows.last().is_some_and(|window| at.seq <= window.to_seq) {
                continue;
            }
            let to_seq = reach::covered(at.seq, &segments, &[]);
            let last = segments.iter().find(|segment| segment.last == to_seq && to_seq > at.seq);
            let from_ms = at.time / 1_000_000;
            let to_ms = last.map_or(from_ms, |segment| segment.to_ms);
            windows.push(Window { from_seq: at.seq, from_ms, to_seq, to_ms });
        }
        windows
    }

    /// The highest term of a shard; 0 if there was none.
    pub(crate) fn term(&self, epoch: u64, shard: u32) -> u64 {
        let of = self.terms.iter().filter(|term| (term.epoch, term.shard) == (epoch, shard));
        of.map(|term| term.term).max().unwrap_or(0)
    }

    /// The holes of a shard.
    pub(crate) fn holes_of(&self, epoch: u64, shard: u32) -> impl Iterator<Item = Hole> {
        self.holes.iter().filter(move |(of, hole)| *of == epoch && hole.shard == shard).map(|(_, hole)| *hole)
    }
}

impl Repo<'_> {
    /// What there is of the log in the store.
    pub(crate) fn archive(&self) -> Result<Archive, Failure> {
        let mut archive = Archive::default();
        let mut segments = Vec::new();
        // Every level of segments has a folder that begins so.
        for (_, object, size) in self.objects("log")? {
            if let Object::Segment(segment) = object {
                segments.push(segment);
                archive.bytes += size;
            }
        }
        // Asked later, so that none is void that is not known to be.
        for (_, object, _) in self.objects("void/")? {
            if let Object::Void(segment) = object {
                archive.void.insert(segment);
            }
        }
        archive.terms = self.succession()?.terms;
        for (_, object, _) in self.objects("floor/")? {
            if let Object::Floor { epoch, shard, seq } = object {
                let floor = archive.floors.entry((epoch, shard)).or_default();
                *floor = seq.max(*floor);
            }
        }
        for (_, object, _) in self.objects("hole/")? {
            if let Object::Hole { epoch, shard, first, last } = object {
                archive.holes.push((epoch, Hole { shard, first, last }));
            }
        }
        if !segments.is_empty() {
            archive.bytes += self.objects("part/")?.into_iter().map(|(_, _, size)| size).sum::<u64>();
        }
        let is_overruled = |segment: &Segment| archive.terms.iter().any(|term| term.overrules(segment));
        let overruled: Vec<Segment> = segments.iter().filter(|segment| is_overruled(segment)).cloned().collect();
        archive.void.extend(overruled);
        segments.retain(|segment| !archive.void.contains(segment));
        archive.segments = segments;
        Ok(archive)
    }

    /// Bytes in the store of what came into the log after these places, as it was archived first.
    pub(super) fn archived_bytes(&self, after: &BTreeMap<u32, Position>) -> Result<u64, Failure> {
        let is_after = |segment: &Segment| {
            let begins = after.get(&segment.shard).filter(|at| at.epoch == segment.epoch);
            segment.level == 0 && begins.is_some_and(|at| segment.last > at.seq)
        };
        let mut bytes = 0;
        for (_, object, size) in [self.objects("log/")?, self.objects("part/")?].concat() {
            if matches!(&object, Object::Segment(of) | Object::SegmentPart(of, _) if is_after(of)) {
                bytes += size;
            }
        }
        Ok(bytes)
    }

    /// Says that nobody has a stretch of the log any more.
    pub(super) fn note_hole(&self, epoch: u64, hole: Hole, node: u64) -> Result<(), Failure> {
        let Hole { shard, first, last } = hole;
        let text = serde_json::to_vec(&Noticed { noticed_ms: crate::clock::unix_ms(), node }).unwrap_or_default();
        fault!("archive-hole");
        self.say(&Object::Hole { epoch, shard, first, last }, &text)
    }

    /// When it was said that nobody has a stretch of the log any more, in milliseconds since 1970; 0 if that is not known.
    ///
    /// # Errors
    /// When the store can't be read.
    pub(super) fn noticed_ms(&self, epoch: u64, hole: Hole) -> Result<u64, Failure> {
        let Hole { shard, first, last } = hole;
        let name = self.name(&Object::Hole { epoch, shard, first, last })?;
        match self.store().get(&name, None) {
            Ok(text) => Ok(serde_json::from_slice::<Noticed>(&text).unwrap_or_default().noticed_ms),
            Err(error) if error.kind == ErrorKind::NotFound => Ok(0),
            Err(error) => Err(stored("cannot read of a hole in the archive", &error)),
        }
    }

    /// Says that a segment does not count any more, for the log lost what is in it.
    pub(super) fn avoid(&self, segment: &Segment) -> Result<(), Failure> {
        fault!("archive-void");
        self.say(&Object::Void(segment.clone()), b"{}")
    }
}

/// Up to where each shard is archived, from the oldest of these full snapshots on, the newest first; without one, nothing
/// is.
pub(crate) fn ends(archive: &Archive, bases: &[BTreeMap<u32, Position>]) -> BTreeMap<u32, Archived> {
    let mut ends = BTreeMap::new();
    // The newest snapshot says which log it is; of another one nothing is of use.
    for (&shard, newest) in bases.first().into_iter().flatten() {
        let epoch = newest.epoch;
        let kept = archive.kept_from(epoch, shard, bases.iter().filter_map(|base| base.get(&shard)).copied().collect());
        if let Some(oldest) = kept.into_iter().map(|at| at.seq).min() {
            ends.insert(shard, Archived { epoch, seq: archive.covered(epoch, shard, oldest) });
        }
    }
    ends
}

/// A stretch of a shard's log any point of which can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Window {
    /// The first point: a full snapshot stands there.
    pub from_seq: u64,
    /// When its entry came into the log, in milliseconds since 1970.
    pub from_ms: u64,
    /// The last point.
    pub to_seq: u64,
    /// When that came.
    pub to_ms: u64,
}

/// What of a shard's history can be reached.
#[derive(Clone, Debug, Default)]
pub struct Reachable {
    /// Any point in these.
    pub windows: Vec<Window>,
    /// No point in these: nobody has them.
    pub holes: Vec<Hole>,
    /// Where tables got another schema: from the first entry that needs it on, points are reached by the later snapshot.
    pub altered: Vec<Altered>,
}

/// A change of the schema between two full snapshots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Altered {
    /// Where the earlier one stands.
    pub after_seq: u64,
    /// Where the later one does.
    pub until_seq: u64,
}

/// Which points of each shard can be reached, and which stretches nobody has.
///
/// # Errors
/// When the store can't be listed or read.
pub fn windows(repo: &Repo<'_>) -> Result<BTreeMap<u32, Reachable>, Failure> {
    let snapshots = repo.all()?.snapshots;
    let archive = repo.archive()?;
    let fulls: Vec<_> = snapshots.into_iter().map(|(manifest, _)| manifest).filter(|full| full.is_full()).collect();
    let mut shards = BTreeMap::new();
    for (&shard, newest) in fulls.first().map(|full| &full.positions).into_iter().flatten() {
        let epoch = newest.epoch;
        let mut bases: Vec<(&Position, &Manifest)> =
            fulls.iter().filter_map(|full| Some((full.positions.get(&shard)?, full))).collect();
        bases.retain(|(at, _)| at.epoch == epoch);
        bases.sort_by_key(|(at, _)| at.seq);
        let altered = bases.windows(2).filter_map(altered).collect();
        let windows = archive.windows(epoch, shard, bases.into_iter().map(|(at, _)| *at).collect());
        shards.insert(shard, Reachable { windows, holes: archive.holes_of(epoch, shard).collect(), altered });
    }
    Ok(shards)
}

/// Whether the later of two snapshots has a table that the earlier one has not, or has with other columns.
fn altered(pair: &[(&Position, &Manifest)]) -> Option<Altered> {
    let [(after, earlier), (until, later)] = pair else { return None };
    let has = |table: &Table| earlier.tables.iter().any(|of| of.name == table.name && of.schema == table.schema);
    let is_other = after.seq < until.seq && !later.tables.iter().all(has);
    is_other.then_some(Altered { after_seq: after.seq, until_seq: until.seq })
}

/// A place in the log as snapshots say it.
pub(crate) fn position(epoch: u64, at: Placement) -> Position {
    Position { epoch, seq: at.seq, time: at.time, checksum: at.checksum }
}

/// The same as the log says it.
pub(crate) fn placement(at: &Position) -> Placement {
    Placement { seq: at.seq, time: at.time, checksum: at.checksum }
}

#[cfg(test)]
mod tests {
    use super::super::segment::Stretch;
    use super::super::segment::tests::{Small, entries};
    use super::*;
    use antiphon_core::snapshot::frame::Packing;

    fn at(seq: u64) -> BTreeMap<u32, Position> {
        BTreeMap::from([(1, Position { epoch: 3, seq, time: 0, checksum: 0 })])
    }

    fn segment(epoch: u64, first: u64, last: u64) -> Segment {
        Segment { epoch, shard: 1, first, last, from_ms: 0, to_ms: 0, hash: 0, term: 0, level: 0 }
    }

    fn archived(repo: &Repo<'_>, from: u64, term: u64) -> Segment {
        repo.archive_entries(Stretch::logged(3, 1, term, None), &entries(from), &Packing::default()).unwrap()
    }

    #[test]
    fn what_is_void_or_a_hole_is_told_by_its_name() {
        let store = Small::default();
        let repo = Repo::new(&store, "c0ffee");
        let first = archived(&repo, 1, 0);
        let second = archived(&repo, 4, 0);
        assert_eq!(repo.archive().unwrap().covered(3, 1, 0), 6);
        repo.avoid(&second).unwrap();
        let archive = repo.archive().unwrap();
        assert_eq!((archive.segments.as_slice(), archive.covered(3, 1, 0)), (std::slice::from_ref(&first), 3));
        repo.note_hole(3, Hole { shard: 1, first: 4, last: 9 }, 7).unwrap();
        assert_eq!(repo.archive().unwrap().covered(3, 1, 0), 9);
    }

    #[test]
    fn what_somebody_stores_who_was_overtaken_is_not_believed() {
        let store = Small::default();
        let repo = Repo::new(&store, "c0ffee");
        let begin = |after| repo.begin_term(repo.claim(3, 1, 7).unwrap(), after).unwrap();
        let one = begin(0);
        let first = archived(&repo, 1, one);
        // The log loses what the first has read behind entry 3, and another goes on there.
        let two = begin(3);
        let stale = archived(&repo, 4, one);
        let archive = repo.archive().unwrap();
        assert_eq!((archive.segments.as_slice(), archive.covered(3, 1, 0)), (std::slice::from_ref(&first), 3));
        assert!(archive.void.contains(&stale));
        let going_on = archived(&repo, 4, two);
        assert_eq!(repo.archive().unwrap().segments, [first.clone(), going_on.clone()]);
        // However late it comes, and whoever is the newest by then.
        let three = begin(6);
        archived(&repo, 4, one);
        let archive = repo.archive().unwrap();
        assert_eq!((archive.term(3, 1), archive.covered(3, 1, 0)), (three, 6));
        assert_eq!(archive.segments, [first, going_on]);
    }

    #[test]
    fn the_same_stretch_with_another_content_is_another_object() {
        let store = Small::default();
        let repo = Repo::new(&store, "c0ffee");
        let first = archived(&repo, 1, 0);
        assert_eq!(archived(&repo, 1, 0), first, "who hears nothing of it stores the same again");
        let mut others = entries(1);
        others[2].frame[7] ^= 1;
        let of = Stretch::logged(3, 1, 0, None);
        let second = repo.archive_entries(of, &others, &Packing::default()).unwrap();
        assert_eq!((first.first, first.last), (second.first, second.last));
        assert_eq!(repo.archive().unwrap().segments.len(), 2);
        assert_eq!(repo.segment(&first).unwrap().1, entries(1));
        assert_eq!(repo.segment(&second).unwrap().1, others);
    }

    #[test]
    fn below_the_floor_nothing_is_looked_for() {
        let mut archive = Archive { segments: vec![segment(3, 21, 30)], ..Archive::default() };
        assert_eq!(ends(&archive, &[at(20), at(10)]), BTreeMap::from([(1, Archived { epoch: 3, seq: 10 })]));
        archive.floors.insert((3, 1), 20);
        assert_eq!(ends(&archive, &[at(20), at(10)]), BTreeMap::from([(1, Archived { epoch: 3, seq: 30 })]));
        assert_eq!(ends(&archive, &[at(10)]), BTreeMap::from([(1, Archived { epoch: 3, seq: 10 })]));
    }

    #[test]
    fn an_archive_reaches_as_far_as_nothing_is_missing() {
        let segments = vec![segment(3, 11, 20), segment(3, 21, 30), segment(3, 32, 40), segment(2, 1, 99)];
        let mut archive = Archive { segments, ..Archive::default() };
        assert_eq!(ends(&archive, &[at(25), at(10)]), BTreeMap::from([(1, Archived { epoch: 3, seq: 30 })]));
        archive.holes.push((3, Hole { shard: 1, first: 31, last: 31 }));
        assert_eq!(ends(&archive, &[at(25), at(10)]), BTreeMap::from([(1, Archived { epoch: 3, seq: 40 })]));
        assert_eq!(ends(&archive, &[at(5)]), BTreeMap::from([(1, Archived { epoch: 3, seq: 5 })]));
        assert_eq!(ends(&archive, &[]), BTreeMap::new());
    }
}
