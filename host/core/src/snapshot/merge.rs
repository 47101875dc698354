//! Which segments of the archive become one.

use super::layout::Segment;

/// Over which time segments become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// How often what comes of it was merged: the longer, the more often.
    pub level: u8,
    /// So many milliseconds, counted from 1970.
    pub millis: u64,
}

impl Span {
    fn of(self, millis: u64) -> u64 {
        millis / self.millis.max(1)
    }
}

/// What to merge of one shard's segments that count, each with its bytes in the store: groups of two or more, in the order
/// of the log, that lie in one span which is over, and together have no more than so many bytes.
///
/// A span is over when something later is archived, so nobody's clock decides. What was merged already is left as it is.
#[must_use]
pub fn groups(segments: &[(Segment, u64)], span: Span, bytes_max: u64) -> Vec<Vec<Segment>> {
    let mut sorted: Vec<&(Segment, u64)> = segments.iter().collect();
    sorted.sort_unstable_by_key(|(segment, _)| (segment.first, std::cmp::Reverse(segment.last)));
    let now = segments.iter().map(|(segment, _)| span.of(segment.to_ms)).max().unwrap_or(0);
    let (mut groups, mut group, mut bytes) = (Vec::new(), Vec::<Segment>::new(), 0_u64);
    let mut rest = sorted.as_slice();
    let mut reached = None;
    while !rest.is_empty() {
        // The one that leads furthest without a hole; else the next one behind the hole.
        let from = reached.map_or(0, |reached: u64| reached + 1);
        let begun = rest.iter().take_while(|(segment, _)| segment.first <= from).count();
        let (candidates, later) = rest.split_at(begun.max(1));
        rest = later;
        let furthest = candidates.iter().max_by_key(|(segment, _)| segment.last);
        let Some((segment, size)) =
            furthest.filter(|(segment, _)| reached.is_none_or(|reached| segment.last > reached))
        else {
            continue;
        };
        let goes_on = group.last().is_some_and(|last| {
            segment.first <= last.last + 1
                && span.of(last.to_ms) == span.of(segment.to_ms)
                && bytes.saturating_add(*size) <= bytes_max
        });
        if !goes_on {
            groups.push(std::mem::take(&mut group));
            bytes = 0;
        }
        reached = Some(segment.last);
        if span.of(segment.to_ms) < now && segment.level <= span.level {
            bytes = bytes.saturating_add(*size);
            group.push(segment.clone());
        } else {
            groups.push(std::mem::take(&mut group));
            bytes = 0;
        }
    }
    groups.push(group);
    groups.retain(|group| group.len() > 1);
    groups
}

/// Whether a segment is there for nothing, for a wider one holds all that is in it.
#[must_use]
pub fn is_within(segment: &Segment, wider: &Segment) -> bool {
    (segment.epoch, segment.shard) == (wider.epoch, wider.shard)
        && segment.level < wider.level
        && wider.first <= segment.first
        && segment.last <= wider.last
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: u64 = 60_000;
    const HOUR: Span = Span { level: 1, millis: 60 * MINUTE };
    const DAY: Span = Span { level: 2, millis: 24 * 60 * MINUTE };

    fn segment(first: u64, last: u64, minute: u64) -> Segment {
        let (from_ms, to_ms) = (minute * MINUTE, minute * MINUTE + 1);
        Segment { epoch: 4, shard: 1, first, last, from_ms, to_ms, hash: first, term: 0, level: 0 }
    }

    fn merged(of: &[Segment], span: Span) -> Segment {
        let (first, last) = (of.first().unwrap(), of.last().unwrap());
        Segment { last: last.last, to_ms: last.to_ms, level: span.level, ..first.clone() }
    }

    fn found(segments: &[Segment], span: Span, bytes_max: u64) -> Vec<(u64, u64, usize)> {
        let sized: Vec<(Segment, u64)> = segments.iter().map(|segment| (segment.clone(), 10)).collect();
        let groups = groups(&sized, span, bytes_max);
        groups.iter().map(|group| (group[0].first, group.last().unwrap().last, group.len())).collect()
    }

    /// One each ten minutes, of ten entries each.
    fn hours(count: u64) -> Vec<Segment> {
        (0..count * 6).map(|n| segment(n * 10 + 1, n * 10 + 10, n * 10)).collect()
    }

    #[test]
    fn those_of_an_hour_that_is_over_become_one() {
        assert_eq!(found(&hours(3), HOUR, 1_000), [(1, 60, 6), (61, 120, 6)]);
        assert_eq!(found(&hours(1), HOUR, 1_000), [], "the hour is not over");
        assert_eq!(found(&[], HOUR, 1_000), []);
    }

    #[test]
    fn what_was_merged_is_left_and_becomes_part_of_its_day() {
        let mut all = hours(25);
        let of_hours: Vec<Segment> = all.chunks(6).map(|hour| merged(hour, HOUR)).collect();
        all.extend(of_hours.iter().take(24).cloned());
        assert_eq!(found(&all, HOUR, 1_000), []);
        assert_eq!(found(&all, DAY, 1_000), [(1, 1_440, 24)]);
        all.push(merged(&of_hours[..24], DAY));
        assert_eq!(found(&all, DAY, 1_000), []);
        assert_eq!(found(&all, HOUR, 1_000), [], "nothing is merged again within what is wider");
    }

    #[test]
    fn a_hole_is_not_merged_over_and_no_segment_becomes_too_large() {
        let mut holed = hours(2);
        holed.remove(3);
        assert_eq!(found(&holed, HOUR, 1_000), [(1, 30, 3), (41, 60, 2)]);
        assert_eq!(found(&hours(2), HOUR, 40), [(1, 40, 4), (41, 60, 2)]);
        assert_eq!(found(&hours(2), HOUR, 10), []);
    }

    #[test]
    fn doubles_and_overlaps_are_passed_over() {
        let mut all = hours(2);
        all.extend([segment(1, 10, 1), segment(5, 12, 5), segment(21, 40, 30)]);
        assert_eq!(found(&all, HOUR, 1_000), [(1, 60, 5)]);
    }

    #[test]
    fn a_part_lies_within_what_was_made_of_it() {
        let parts = hours(1);
        let whole = merged(&parts, HOUR);
        assert!(parts.iter().all(|part| is_within(part, &whole)));
        assert!(!is_within(&whole, &whole) && !is_within(&whole, &parts[0]));
        assert!(!is_within(&Segment { epoch: 5, ..parts[0].clone() }, &whole));
        assert!(!is_within(&segment(61, 70, 60), &whole));
    }
}
