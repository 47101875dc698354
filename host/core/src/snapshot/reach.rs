//! From which snapshot and which segments a point in time is reached.

use super::id::SnapshotId;
use super::layout::Segment;
use super::manifest::Position;
use std::collections::BTreeMap;

/// A full snapshot that is whole.
#[derive(Clone, Debug)]
pub struct Base {
    /// Its name.
    pub id: SnapshotId,
    /// Where it stands, shard by shard.
    pub positions: BTreeMap<u32, Position>,
}

/// Where a way leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// As far as there is anything.
    Newest,
    /// Up to these entries, and no further; all of a shard that isn't named.
    Seq(BTreeMap<u32, u64>),
    /// Up to the last entry of each shard that came before the first one after this, in milliseconds since 1970.
    Time(u64),
}

/// How a point is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    /// The snapshot it begins with.
    pub base: SnapshotId,
    /// What is read after it, shard by shard, in the order of the log.
    pub segments: BTreeMap<u32, Vec<Segment>>,
    /// Stretches that nobody has, between what is read.
    pub holes: Vec<Hole>,
}

/// A stretch of a shard's log that nobody has any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hole {
    /// The shard.
    pub shard: u32,
    /// The first entry.
    pub first: u64,
    /// The last.
    pub last: u64,
}

/// Why a point can't be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreachable {
    /// There is no snapshot.
    #[error("there is no snapshot yet")]
    NoSnapshot,
    /// Every snapshot stands after it.
    #[error("the oldest snapshot stands after this point")]
    TooEarly,
    /// The archive ends before it.
    #[error("shard {shard} is archived up to entry {last} only")]
    TooLate {
        /// The shard.
        shard: u32,
        /// The last entry that can be read.
        last: u64,
    },
}

/// Up to where a shard's log is in the archive from this entry on, where there is nothing after it; stretches that
/// nobody has any more are passed over.
#[must_use]
pub fn covered(from: u64, segments: &[Segment], holes: &[Hole]) -> u64 {
    let of_segments = segments.iter().map(|segment| (segment.first, segment.last));
    let mut stretches: Vec<(u64, u64)> = of_segments.chain(holes.iter().map(|hole| (hole.first, hole.last))).collect();
    stretches.sort_unstable();
    let mut reached = from;
    for (first, last) in stretches {
        if first > reached + 1 {
            break;
        }
        reached = reached.max(last);
    }
    reached
}

/// Finds the way with the least to read: from the newest snapshot that does not stand after the target.
///
/// # Errors
/// When there is none.
pub fn find(bases: &[Base], segments: &[Segment], target: &Target) -> Result<Way, Unreachable> {
    if bases.is_empty() {
        return Err(Unreachable::NoSnapshot);
    }
    let mut newest_first: Vec<&Base> = bases.iter().filter(|base| is_before(base, target)).collect();
    newest_first.sort_by_key(|base| std::cmp::Reverse(base.id));
    let mut holed = None;
    let mut short = None;
    for base in newest_first {
        match way(base, segments, target) {
            Ok(way) if way.holes.is_empty() => return Ok(way),
            Ok(way) => {
                holed.get_or_insert(way);
            }
            Err(unreachable) => {
                short.get_or_insert(unreachable);
            }
        }
    }
    match (holed, short) {
        (Some(way), _) => Ok(way),
        (None, Some(unreachable)) => Err(unreachable),
        (None, None) => Err(Unreachable::TooEarly),
    }
}

fn is_before(base: &Base, target: &Target) -> bool {
    let stands_before = |(shard, at): (&u32, &Position)| match target {
        Target::Newest => true,
        Target::Seq(seqs) => seqs.get(shard).is_none_or(|seq| at.seq <= *seq),
        Target::Time(millis) => at.time / 1_000_000 <= *millis,
    };
    base.positions.iter().all(stands_before)
}

fn way(base: &Base, segments: &[Segment], target: &Target) -> Result<Way, Unreachable> {
    let mut way = Way { base: base.id, segments: BTreeMap::new(), holes: Vec::new() };
    for (&shard, at) in &base.positions {
        let wanted = match target {
            Target::Seq(seqs) => seqs.get(&shard).copied(),
            Target::Newest | Target::Time(_) => None,
        };
        let is_of_shard = |segment: &&Segment| segment.shard == shard && segment.epoch == at.epoch;
        let mut here: Vec<&Segment> = segments.iter().filter(is_of_shard).collect();
        here.sort_unstable_by_key(|segment| (segment.first, std::cmp::Reverse(segment.last)));
        let mut reached = at.seq;
        let mut rest = here.as_slice();
        while wanted.is_none_or(|wanted| reached < wanted) {
            // Of those that go on without a hole, the one that leads furthest.
            let next = rest.partition_point(|segment| segment.first <= reached + 1);
            let (begun, later) = rest.split_at(next);
            let furthest = begun.iter().max_by_key(|segment| segment.last).filter(|segment| segment.last > reached);
            rest = later;
            let segment = match (furthest, later.first()) {
                (Some(segment), _) => *segment,
                (None, Some(segment)) => {
                    way.holes.push(Hole { shard, first: reached + 1, last: segment.first - 1 });
                    reached = segment.first - 1;
                    continue;
                }
                (None, None) => break,
            };
            let is_later = matches!(target, Target::Time(millis) if segment.from_ms > *millis);
            if is_later {
                break;
            }
            way.segments.entry(shard).or_default().push(segment.clone());
            reached = segment.last;
        }
        if wanted.is_some_and(|wanted| reached < wanted) {
            return Err(Unreachable::TooLate { shard, last: reached });
        }
    }
    Ok(way)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH: u64 = 4;

    fn base(n: u128, seq: u64) -> Base {
        let position = Position { epoch: EPOCH, seq, time: seq * 1_000_000_000, checksum: 0 };
        Base { id: SnapshotId::new(seq, n), positions: BTreeMap::from([(1, position)]) }
    }

    fn segment(first: u64, last: u64) -> Segment {
        let (from_ms, to_ms) = (first * 1_000, last * 1_000);
        Segment { epoch: EPOCH, shard: 1, first, last, from_ms, to_ms, hash: first, term: 0, level: 0 }
    }

    fn read(bases: &[Base], segments: &[Segment], target: &Target) -> (u64, Vec<(u64, u64)>) {
        let way = find(bases, segments, target).unwrap();
        assert_eq!(way.holes, []);
        let read = way.segments.get(&1).into_iter().flatten().map(|segment| (segment.first, segment.last));
        (way.base.millis(), read.collect())
    }

    fn seq(seq: u64) -> Target {
        Target::Seq(BTreeMap::from([(1, seq)]))
    }

    #[test]
    fn the_newest_snapshot_before_the_target_is_the_beginning() {
        let bases = [base(1, 10), base(2, 50), base(3, 90)];
        let segments: Vec<Segment> = (0..12).map(|n| segment(n * 10 + 1, n * 10 + 10)).collect();
        assert_eq!(read(&bases, &segments, &seq(70)), (50, vec![(51, 60), (61, 70)]));
        assert_eq!(read(&bases, &segments, &seq(90)), (90, vec![]));
        assert_eq!(read(&bases, &segments, &Target::Newest), (90, vec![(91, 100), (101, 110), (111, 120)]));
        assert_eq!(read(&bases, &segments, &Target::Time(65_000)), (50, vec![(51, 60), (61, 70)]));
    }

    #[test]
    fn a_snapshot_amid_a_segment_reads_that_segment() {
        assert_eq!(read(&[base(1, 15)], &[segment(11, 20), segment(21, 30)], &seq(25)), (15, vec![(11, 20), (21, 30)]));
    }

    #[test]
    fn wider_segments_are_preferred_and_doubles_do_no_harm() {
        let segments =
            [segment(1, 10), segment(11, 20), segment(1, 20), segment(5, 12), segment(21, 30), segment(21, 30)];
        assert_eq!(read(&[base(1, 0)], &segments, &seq(30)), (0, vec![(1, 20), (21, 30)]));
    }

    #[test]
    fn a_hole_is_named() {
        let way = find(&[base(1, 0)], &[segment(1, 10), segment(15, 20)], &seq(20)).unwrap();
        assert_eq!(way.holes, [Hole { shard: 1, first: 11, last: 14 }]);
    }

    #[test]
    fn an_older_snapshot_is_taken_where_the_newest_leads_into_a_hole() {
        let mut newest = base(2, 12);
        newest.positions.get_mut(&1).unwrap().epoch = EPOCH + 1;
        let way = find(&[base(1, 0), newest], &[segment(1, 20)], &seq(20)).unwrap();
        assert_eq!(way.base.millis(), 0);
    }

    #[test]
    fn what_is_archived_ends_where_something_is_missing() {
        let segments = [segment(1, 10), segment(8, 20), segment(26, 30), segment(40, 50)];
        let hole = Hole { shard: 1, first: 21, last: 25 };
        assert_eq!(covered(0, &segments, &[]), 20);
        assert_eq!(covered(0, &segments, &[hole]), 30);
        assert_eq!(covered(15, &segments, &[hole]), 30);
        assert_eq!(covered(35, &segments, &[]), 35);
        assert_eq!(covered(39, &segments, &[]), 50);
    }

    #[test]
    fn what_cannot_be_reached_is_said() {
        assert_eq!(find(&[], &[], &Target::Newest), Err(Unreachable::NoSnapshot));
        assert_eq!(find(&[base(1, 10)], &[], &seq(9)), Err(Unreachable::TooEarly));
        assert_eq!(find(&[base(1, 10)], &[], &seq(11)), Err(Unreachable::TooLate { shard: 1, last: 10 }));
        assert_eq!(find(&[base(1, 10)], &[], &Target::Time(9_999)), Err(Unreachable::TooEarly));
    }
}
