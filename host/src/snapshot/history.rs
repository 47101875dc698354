//! What comes after a snapshot in one shard: segments of the archive, then the log itself, up to where it is to end.
//!
//! Each goes on where the one before ended: by position, and by what stood there. Where a log lost its end, two stories may
//! go on from one place; the one that does not begin with what was applied is of no use.

use super::archive::placement;
use super::repo::Repo;
use crate::failure::{Failure, Kind};
use crate::log::{self, Look, Placed, Placement, Shard};
use antiphon_core::snapshot::layout::Segment;
use std::collections::VecDeque;

/// Entries read of a log at once,
const ENTRIES_MAX: usize = 10_000;
/// and their bytes.
const BYTES_MAX: usize = 8 << 20;

/// How far a shard is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// As far as there is anything.
    Newest,
    /// Up to this entry.
    Seq(u64),
    /// Up to the last entry before the first one that came after this, in milliseconds since 1970.
    Time(u64),
}

/// What can't be gone on with.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Nothing helps.
    Failed(Failure),
    /// This segment is damaged, gone, or of another story; there may be another way.
    Segment(Box<Segment>, Failure),
    /// The snapshot is of a story that the log has lost; there may be an older one.
    Base(Failure),
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<log::Error> for Trouble {
    fn from(error: log::Error) -> Self {
        let kind = if matches!(error, log::Error::Unreachable(_)) { Kind::Busy } else { Kind::Data };
        Self::Failed(Failure::caused(kind, "cannot read the log", &error))
    }
}

/// One shard's way.
pub(super) struct History<'a> {
    pub(super) repo: Repo<'a>,
    pub(super) look: Option<&'a Look>,
    pub(super) shard: Shard,
    pub(super) segments: VecDeque<Segment>,
    /// The log follows.
    pub(super) through_log: bool,
    pub(super) cut: Cut,
    /// The last entry that was given; unknown behind a hole.
    pub(super) at: Option<Placement>,
    pub(super) after: u64,
    /// That is where the snapshot stands.
    pub(super) is_at_base: bool,
    /// The segment that it was in.
    pub(super) of: Option<Segment>,
    /// An entry that is not wanted any more was seen: there is nothing before it that is missing.
    pub(super) ended: bool,
    /// What was given and could not be applied yet.
    pub(super) waiting: Option<Vec<Placed>>,
    /// It goes on behind a hole.
    pub(super) is_holed: bool,
    pub(super) read: Counted,
}

/// What comes next.
#[derive(Debug)]
pub(super) struct Stretch {
    /// The last position of a hole in front of it, if there is one.
    pub(super) hole: Option<u64>,
    /// The entries.
    pub(super) entries: Vec<Placed>,
}

/// What was read.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counted {
    pub(super) segments: u64,
    pub(super) bytes: u64,
    pub(super) logged: u64,
}

impl History<'_> {
    /// What comes next; nothing if the way is at its end.
    pub(super) fn next(&mut self) -> Result<Option<Stretch>, Trouble> {
        loop {
            let is_there = matches!(self.cut, Cut::Seq(seq) if self.after >= seq);
            if self.ended || is_there {
                self.ended = true;
                return Ok(None);
            }
            let is_logged = self.segments.is_empty();
            let Stretch { hole, entries } = match self.segments.pop_front() {
                Some(segment) => {
                    let read = self.of_segment(&segment)?;
                    self.of = Some(segment);
                    read
                }
                None => {
                    let Some(read) = self.of_log()? else { return Ok(None) };
                    self.of = None;
                    read
                }
            };
            let entries = self.wanted(entries);
            self.read.logged += if is_logged { entries.len() as u64 } else { 0 };
            if let Some(last) = entries.last() {
                (self.at, self.after, self.is_at_base) = (Some(last.placement()), last.seq, false);
                return Ok(Some(Stretch { hole, entries }));
            }
            if self.ended {
                return Ok(None);
            }
        }
    }

    /// Of what was read, what is wanted.
    fn wanted(&mut self, mut entries: Vec<Placed>) -> Vec<Placed> {
        let is_later = |placed: &Placed| match self.cut {
            Cut::Newest => false,
            Cut::Seq(seq) => placed.seq > seq,
            Cut::Time(millis) => placed.time / 1_000_000 > millis,
        };
        if let Some(end) = entries.iter().position(is_later) {
            entries.truncate(end);
            self.ended = true;
        }
        entries
    }

    fn of_segment(&mut self, segment: &Segment) -> Result<Stretch, Trouble> {
        let (head, mut entries) = self.repo.segment(segment).map_err(|failure| match failure.kind() {
            Kind::Data | Kind::Missing => Trouble::Segment(Box::new(segment.clone()), failure),
            _ => Trouble::Failed(failure),
        })?;
        self.read.segments += 1;
        self.read.bytes += entries.iter().map(|placed| placed.frame.len() as u64).sum::<u64>();
        let overlap = entries.iter().rposition(|placed| placed.seq <= self.after);
        let before = match overlap {
            Some(index) => entries.get(index).map(Placed::placement),
            None => head.before.as_ref().map(placement),
        };
        let rest = entries.split_off(overlap.map_or(0, |index| index + 1));
        let first = rest.first().map_or(self.after + 1, Placed::first);
        let hole = (first > self.after + 1).then(|| first - 1);
        if hole.is_none()
            && let (Some(before), Some(at)) = (before, self.at)
            && before != at
        {
            let failure = Failure::new(
                Kind::Data,
                format!("segment `{segment}` of the archive does not go on from entry {} as it was", self.after),
            );
            return Err(if self.is_at_base {
                Trouble::Base(failure)
            } else {
                Trouble::Segment(Box::new(segment.clone()), failure)
            });
        }
        Ok(Stretch { hole, entries: rest })
    }

    fn of_log(&mut self) -> Result<Option<Stretch>, Trouble> {
        let Some(look) = self.look.filter(|_| self.through_log) else { return Ok(None) };
        let (mut entries, mut bytes) = (Vec::new(), 0);
        // From the entry that was given last on, to see whether it is the log's.
        look.each(self.shard, self.after.max(1), |placed| {
            bytes += placed.frame.len();
            entries.push(placed);
            Ok::<_, log::Error>(entries.len() < ENTRIES_MAX && bytes < BYTES_MAX)
        })?;
        let there = entries.first().filter(|placed| placed.seq == self.after).map(Placed::placement);
        if let (Some(there), Some(at)) = (there, self.at)
            && there != at
        {
            let failure = Failure::new(
                Kind::Data,
                format!("the log does not go on from entry {} of shard {} as it was", self.after, self.shard),
            );
            return Err(match self.of.take() {
                _ if self.is_at_base => Trouble::Base(failure),
                // The log lost what it ends with, and nobody has found that yet.
                Some(segment) => Trouble::Segment(Box::new(segment), failure),
                None => Trouble::Failed(failure),
            });
        }
        entries.retain(|placed| placed.seq > self.after);
        let Some(first) = entries.first().map(Placed::first) else {
            // There is no more than this by now.
            self.ended = !matches!(self.cut, Cut::Seq(_));
            return Ok(None);
        };
        let hole = (first > self.after + 1).then(|| first - 1);
        Ok(Some(Stretch { hole, entries }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::segment::tests::Small;
    use super::*;

    /// What is wanted of entries that came at these times, in seconds, and whether the way ends there.
    fn wanted(cut: Cut, seconds: &[u64]) -> (Vec<u64>, bool) {
        let store = Small::default();
        let mut history = History {
            repo: Repo::new(&store, "c0ffee"),
            look: None,
            shard: 1,
            segments: VecDeque::new(),
            through_log: false,
            cut,
            at: None,
            after: 0,
            is_at_base: true,
            of: None,
            ended: false,
            waiting: None,
            is_holed: false,
            read: Counted::default(),
        };
        let entries = (1..).zip(seconds).map(|(seq, time)| Placed::whole(seq, time * 1_000_000_000, Vec::new()));
        let entries = history.wanted(entries.collect());
        (entries.iter().map(|placed| placed.seq).collect(), history.ended)
    }

    #[test]
    fn a_clock_that_steps_back_joins_nothing_to_an_earlier_time() {
        assert_eq!(wanted(Cut::Time(5_000), &[1, 2, 9, 3, 4]), (vec![1, 2], true));
        assert_eq!(wanted(Cut::Time(5_000), &[3, 1, 2]), (vec![1, 2, 3], false));
        assert_eq!(wanted(Cut::Time(5_000), &[9, 1]), (Vec::new(), true));
        assert_eq!(wanted(Cut::Seq(4), &[1, 2, 9, 3, 4]), (vec![1, 2, 3, 4], true));
        assert_eq!(wanted(Cut::Newest, &[9, 1]), (vec![1, 2], false));
    }
}
