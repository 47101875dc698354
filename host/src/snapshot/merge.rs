//! Segments of the archive that become one: fewer objects to list, to fetch and to keep, and every point in them stays.
//!
//! What is new is stored, read back and read again before anything that went into it may go, and that is left to the next
//! prune. Until then both are there: whoever reads takes the wider one, and each entry once.

use super::repo::Repo;
use super::segment::Stretch;
use crate::failure::{Failure, Kind};
use crate::log::Placed;
use antiphon_core::snapshot::frame::Packing;
use antiphon_core::snapshot::layout::{Object, Segment};
use antiphon_core::snapshot::merge::{Span, groups};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};

/// Most bytes that segments may have in the store to become one: whoever reads it holds it in memory.
const BYTES_MAX: u64 = 4 << 20;

/// What was merged, or would be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Merged {
    /// Segments that came of it.
    pub segments: u64,
    /// Segments that went into them; a prune removes them.
    pub parts: u64,
    /// Bytes that those have in the store.
    pub part_bytes: u64,
    /// Those that could not be merged, and why.
    pub failed: Vec<String>,
}

impl Repo<'_> {
    /// Makes one segment of those of each span that is over, until `stop`.
    ///
    /// # Errors
    /// When the store can't be asked, or refuses. What was merged till then stays.
    pub fn merge(&self, spans: &[Span], packing: &Packing, stop: &AtomicBool) -> Result<Merged, Failure> {
        self.merge_each(spans, stop, |parts, span| self.merge_some(parts, span, packing).map(drop))
    }

    /// What [`Self::merge`] would do. Of what a merge makes nothing is merged again in it.
    ///
    /// # Errors
    /// When the store can't be asked.
    pub fn mergeable(&self, spans: &[Span]) -> Result<Merged, Failure> {
        self.merge_each(spans, &AtomicBool::new(false), |_, _| Ok(()))
    }

    fn merge_each(
        &self,
        spans: &[Span],
        stop: &AtomicBool,
        mut each: impl FnMut(&[Segment], Span) -> Result<(), Failure>,
    ) -> Result<Merged, Failure> {
        let mut merged = Merged::default();
        for span in spans {
            for (parts, bytes) in self.groups(*span)? {
                if stop.load(Ordering::Relaxed) {
                    return Ok(merged);
                }
                match each(&parts, *span) {
                    Ok(()) => {
                        merged.segments += 1;
                        merged.parts += parts.len() as u64;
                        merged.part_bytes += bytes;
                    }
                    // A part is damaged or gone: the others are as good as they were.
                    Err(failure) if matches!(failure.kind(), Kind::Data | Kind::Missing) => {
                        merged.failed.push(failure.to_string());
                    }
                    Err(failure) => return Err(failure),
                }
            }
        }
        Ok(merged)
    }

    /// What becomes one, and its bytes in the store.
    fn groups(&self, span: Span) -> Result<Vec<(Vec<Segment>, u64)>, Failure> {
        let counting: BTreeSet<Segment> = self.archive()?.segments.into_iter().collect();
        let mut sizes: BTreeMap<Segment, u64> = BTreeMap::new();
        let of_archive = [self.objects("log")?, self.objects("part/")?].concat();
        for (_, object, size) in of_archive {
            if let Object::Segment(segment) | Object::SegmentPart(segment, _) = object
                && counting.contains(&segment)
            {
                *sizes.entry(segment).or_default() += size;
            }
        }
        let mut lines: BTreeMap<(u64, u32), Vec<(Segment, u64)>> = BTreeMap::new();
        for (segment, size) in &sizes {
            lines.entry((segment.epoch, segment.shard)).or_default().push((segment.clone(), *size));
        }
        let bytes = |group: &[Segment]| group.iter().filter_map(|segment| sizes.get(segment)).sum();
        let all = lines.values().flat_map(|line| groups(line, span, BYTES_MAX));
        Ok(all.map(|group| (bytes(&group), group)).map(|(bytes, group)| (group, bytes)).collect())
    }

    /// Makes one segment of several, each of which goes on where the one before ended.
    fn merge_some(&self, parts: &[Segment], span: Span, packing: &Packing) -> Result<Segment, Failure> {
        let mut entries: Vec<Placed> = Vec::new();
        let mut before = None;
        let mut term = 0;
        for part in parts {
            let (head, read) = self.segment(part)?;
            let Some(last) = entries.last() else {
                (before, entries, term) = (head.before, read, part.term);
                continue;
            };
            let at = last.placement();
            let there = match read.iter().rfind(|placed| placed.seq <= at.seq) {
                Some(placed) => Some(placed.placement()),
                None => head.before.as_ref().map(super::archive::placement),
            };
            if there.is_some_and(|there| there != at) {
                return Err(Failure::new(
                    Kind::Data,
                    format!("segment `{part}` of the archive does not go on from entry {} as it was", at.seq),
                ));
            }
            entries.extend(read.into_iter().filter(|placed| placed.seq > at.seq));
            // What overrules the last overrules all that reaches as far.
            term = part.term;
        }
        let of = parts.first().map_or((0, 0), |first| (first.epoch, first.shard));
        fault!("merge-put");
        let of = Stretch { epoch: of.0, shard: of.1, term, before, level: span.level };
        let merged = self.archive_entries(of, &entries, packing)?;
        fault!("merge-stored");
        Ok(merged)
    }
}

#[cfg(test)]
mod tests {
    use super::super::segment::tests::{Small, entries};
    use super::*;
    use antiphon_core::snapshot::layout::{Claim, Object};

    const HOUR_NS: u64 = 3_600_000_000_000;
    const SPANS: [Span; 2] = [Span { level: 1, millis: 3_600_000 }, Span { level: 2, millis: 86_400_000 }];

    /// Three segments of three entries each in the first hour, and one in the second.
    fn filled(repo: &Repo<'_>) -> Vec<Segment> {
        let store = |from: u64, hour: u64| {
            let entries: Vec<Placed> = entries(from)
                .into_iter()
                .map(|placed| Placed { time: hour * HOUR_NS + placed.seq, frame: vec![7; 100], ..placed })
                .collect();
            let of = Stretch { epoch: 3, shard: 1, term: from, before: None, level: 0 };
            repo.archive_entries(of, &entries, &Packing::default()).unwrap()
        };
        vec![store(1, 0), store(4, 0), store(7, 0), store(10, 1)]
    }

    fn merge(repo: &Repo<'_>) -> Merged {
        repo.merge(&SPANS, &Packing::default(), &AtomicBool::new(false)).unwrap()
    }

    #[test]
    fn segments_of_an_hour_become_one_with_the_same_entries() {
        let store = Small::default();
        let repo = Repo::new(&store, "c0ffee");
        let parts = filled(&repo);
        let would = repo.mergeable(&SPANS).unwrap();
        let merged = merge(&repo);
        assert_eq!((merged.segments, merged.parts, merged.failed.len()), (1, 3, 0));
        assert_eq!(would, merged);
        let archive = repo.archive().unwrap();
        let whole = archive.segments.iter().find(|segment| segment.level == 1).unwrap();
        assert_eq!((whole.first, whole.last, whole.term), (1, 9, 7));
        let read = |segment: &Segment| repo.segment(segment).unwrap().1;
        assert_eq!(read(whole), parts[..3].iter().flat_map(read).collect::<Vec<_>>());
        assert_eq!(archive.covered(3, 1, 0), 12);
        assert_eq!(merge(&repo), Merged::default(), "nothing is left to do");
        // Who overrules the last part overrules what was made of it.
        let claim = Claim { epoch: 3, shard: 1, term: 8, at_ms: 0 };
        repo.say(&Object::Claim(claim), b"{}").unwrap();
        repo.begin_term(claim, 6).unwrap();
        assert_eq!(repo.archive().unwrap().segments, [parts[0].clone(), parts[1].clone(), parts[3].clone()]);
    }

    #[test]
    fn what_is_damaged_is_not_merged() {
        let store = Small::default();
        let repo = Repo::new(&store, "c0ffee");
        let parts = filled(&repo);
        let name = repo.name(&Object::Segment(parts[1].clone())).unwrap();
        store.0.lock().unwrap().get_mut(&name).unwrap()[30] ^= 1;
        let merged = merge(&repo);
        assert_eq!((merged.segments, merged.failed.len()), (0, 1), "{merged:?}");
        assert_eq!(repo.archive().unwrap().segments.len(), 4);
    }

    #[test]
    fn two_stories_are_not_joined() {
        let store = Small::default();
        let repo = Repo::new(&store, "c0ffee");
        filled(&repo);
        let others: Vec<Placed> = entries(4).into_iter().map(|placed| Placed { time: 9, ..placed }).collect();
        let before = Some(antiphon_core::snapshot::manifest::Position { epoch: 3, seq: 3, time: 77, checksum: 1 });
        let of = Stretch { epoch: 3, shard: 1, term: 5, before, level: 0 };
        let last = Placed { seq: 7, time: 10, ..others[2].clone() };
        repo.archive_entries(of, &[&others[..], &[last]].concat(), &Packing::default()).unwrap();
        let merged = merge(&repo);
        assert!(merged.failed[0].contains("does not go on from entry 3"), "{merged:?}");
        assert_eq!(merged.segments, 0);
    }
}
