//! From the log into the archive, shard by shard: entries are gathered until there are enough of them, or they have
//! waited long enough, and become a segment that ends where a transaction does.
//!
//! Nothing is remembered but in the store: whoever begins looks how far the archive reaches, and compares the entry there
//! with the log's. A log that lost its end has another one, and the segments that hold what it lost are made void; one
//! that was cut before its entries were archived leaves a hole, which is noted.

use super::archive::{Archive, placement};
use super::repo::Repo;
use super::segment::Stretch;
use super::shelf::Shelf;
use crate::apart::apart;
use crate::failure::{Failure, Kind};
use crate::join::unreachable_log;
use crate::log::{Log, Placed, Placement, Shard};
use crate::placement::{self, Loss};
use antiphon_core::codec;
use antiphon_core::entry::{Body, Origin};
use antiphon_core::snapshot::layout::{Claim, Segment, Term};
use antiphon_core::snapshot::manifest::{Manifest, Position};
use antiphon_core::snapshot::reach::Hole;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes of entries read at once.
const READ_BYTES_MAX: usize = 4 << 20;
/// So often a shard is read on before others have their turn, however much comes there.
const READS: usize = 32;
/// A unit that has not ended after so many times the size of a segment is cut all the same: its pieces are kept apart
/// until the last one comes, wherever they are read from.
const OVERRUN: usize = 4;

/// When what was gathered becomes a segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flush {
    /// Bytes, before they are compressed.
    pub(crate) bytes: usize,
    /// Entries.
    pub(crate) entries: usize,
    /// How long the first of them has waited.
    pub(crate) age: Duration,
}

/// One shard on its way into the archive.
#[derive(Debug)]
struct Line {
    shard: Shard,
    epoch: u64,
    /// Under which it is archived.
    term: u64,
    /// The last entry that is archived; unknown behind a hole.
    at: Option<Placement>,
    /// Its position.
    after: u64,
    gathered: Gathered,
}

/// Entries that are not archived yet.
#[derive(Debug, Default)]
struct Gathered {
    entries: Vec<Placed>,
    bytes: usize,
    since: Option<Instant>,
    /// Who has begun a unit in them and not ended it.
    open: BTreeSet<Origin>,
    /// So many of them end where no unit is open, from the fewest on.
    ends: Vec<usize>,
}

impl Gathered {
    fn push(&mut self, placed: Placed) {
        self.since.get_or_insert_with(Instant::now);
        self.bytes += placed.frame.len();
        // What can't be read is no piece of anything here; whoever applies it says what is wrong with it.
        if let Ok(entry) = codec::decode(&placed.frame)
            && let Body::Changes(changes) = &entry.body
        {
            if changes.more {
                self.open.insert(entry.origin);
            } else {
                self.open.remove(&entry.origin);
            }
        }
        self.entries.push(placed);
        if self.open.is_empty() {
            self.ends.push(self.entries.len());
        }
    }

    fn is_due(&self, flush: &Flush) -> bool {
        let is_old = self.since.is_some_and(|since| since.elapsed() >= flush.age);
        self.is_full(flush) || is_old && (!self.ends.is_empty() || self.is_overdue(flush))
    }

    fn is_full(&self, flush: &Flush) -> bool {
        let is_much = |times: usize| {
            self.bytes >= flush.bytes.saturating_mul(times) || self.entries.len() >= flush.entries.saturating_mul(times)
        };
        is_much(OVERRUN) || !self.ends.is_empty() && is_much(1)
    }

    fn is_overdue(&self, flush: &Flush) -> bool {
        let patience = flush.age.saturating_mul(u32::try_from(OVERRUN).unwrap_or(u32::MAX));
        !patience.is_zero() && self.since.is_some_and(|since| since.elapsed() >= patience)
    }

    /// The entries of the next segment.
    fn cut(&mut self, flush: &Flush) -> Vec<Placed> {
        // A read may have brought several segments at once.
        let fitting = self.ends.iter().rfind(|end| **end <= flush.entries).or(self.ends.first());
        let count = fitting.copied().unwrap_or(self.entries.len());
        let rest = self.entries.split_off(count.min(self.entries.len()));
        let cut = std::mem::take(&mut self.entries);
        *self = Self::default();
        rest.into_iter().for_each(|placed| self.push(placed));
        cut
    }
}

/// Brings the log into the archive.
pub(crate) struct Archiver {
    log: Arc<dyn Log>,
    shelf: Shelf,
    cluster: String,
    node: u64,
    /// Whoever began earlier is overtaken by it.
    overtakes: bool,
    lines: Vec<Line>,
    /// Holes that were found since somebody asked.
    holes: Vec<Hole>,
}

/// What there is to begin with.
#[derive(Clone)]
struct Known {
    archive: Archive,
    /// Full snapshots, the oldest first.
    bases: Vec<BTreeMap<u32, Position>>,
}

impl Archiver {
    /// One that goes on for good: whoever archived before is overtaken.
    pub(crate) fn new(log: Arc<dyn Log>, shelf: Shelf, cluster: String, node: u64) -> Self {
        Self { log, shelf, cluster, node, overtakes: true, lines: Vec::new(), holes: Vec::new() }
    }

    /// One that stores what there is by now, beside whoever goes on.
    pub(crate) fn beside(log: Arc<dyn Log>, shelf: Shelf, cluster: String, node: u64) -> Self {
        Self { overtakes: false, ..Self::new(log, shelf, cluster, node) }
    }

    /// Whether it has looked where to go on.
    pub(crate) fn has_begun(&self) -> bool {
        !self.lines.is_empty()
    }

    /// Forgets what was gathered: others may have archived it meanwhile.
    pub(crate) fn forget(&mut self) {
        self.lines.clear();
    }

    /// Holes that were found since the last call.
    pub(crate) fn take_holes(&mut self) -> Vec<Hole> {
        std::mem::take(&mut self.holes)
    }

    /// Looks where to go on; says whether there is a snapshot that a point in time could begin with.
    pub(crate) async fn begin(&mut self) -> Result<bool, Failure> {
        self.lines.clear();
        let mut known = self.known().await?;
        let Some(newest) = known.bases.last().cloned() else { return Ok(false) };
        let mut claims = BTreeMap::new();
        if self.overtakes {
            for (shard, at) in &newest {
                claims.insert(*shard, self.claim(*shard, at.epoch).await?);
            }
            known = self.known().await?;
        }
        let mut lines = Vec::new();
        for (shard, at) in newest {
            // Whoever noted a hole may have died before a snapshot led on behind it.
            let is_open = |hole: &Hole| hole.last > at.seq;
            self.holes.extend(known.archive.holes_of(at.epoch, shard).filter(is_open));
            lines.push(self.line(shard, at.epoch, known.clone(), claims.get(&shard).copied()).await?);
        }
        self.lines = lines;
        Ok(self.has_begun())
    }

    /// Says that this one is about to archive a shard, wherever its archive will turn out to end.
    async fn claim(&self, shard: Shard, epoch: u64) -> Result<Claim, Failure> {
        let node = self.node;
        self.repo(move |repo| repo.claim(epoch, shard, node)).await
    }

    async fn known(&self) -> Result<Known, Failure> {
        self.repo(|repo| {
            let full = |manifest: Manifest| manifest.is_full().then_some(manifest.positions);
            let snapshots = repo.all()?.snapshots.into_iter();
            let bases = snapshots.rev().filter_map(|(manifest, _)| full(manifest)).collect();
            Ok(Known { archive: repo.archive()?, bases })
        })
        .await
    }

    /// Does something with the store, on a thread of its own.
    async fn repo<T: Send + 'static>(
        &self,
        work: impl FnOnce(Repo<'_>) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let (shelf, cluster) = (self.shelf.clone(), self.cluster.clone());
        apart(move || {
            let (opened, _) = shelf.open()?;
            work(Repo::new(&opened.store, &cluster))
        })
        .await?
    }

    /// Where a shard's archive is gone on with. Behind that place, if it was claimed before that was looked for, nothing
    /// counts any more that somebody stores who began earlier: he may have read it before the log lost it.
    async fn line(
        &mut self,
        shard: Shard,
        epoch: u64,
        mut known: Known,
        mut claim: Option<Claim>,
    ) -> Result<Line, Failure> {
        loop {
            let highest = known.archive.term(epoch, shard);
            let (at, after, lost) = self.end(shard, epoch, known).await?;
            let mut line = Line { shard, epoch, term: highest, at, after, gathered: Gathered::default() };
            match claim {
                None if lost => {
                    claim = Some(self.claim(shard, epoch).await?);
                    known = self.known().await?;
                    continue;
                }
                None => {}
                Some(claim) => line.term = self.repo(move |repo| repo.begin_term(claim, after)).await?,
            }
            return Ok(line);
        }
    }

    /// Where a shard's archive ends, in the log as it is now; and whether the log lost what was archived behind that.
    async fn end(
        &mut self,
        shard: Shard,
        epoch: u64,
        mut known: Known,
    ) -> Result<(Option<Placement>, u64, bool), Failure> {
        let mut lost = false;
        let mut passed_over: BTreeSet<u64> = BTreeSet::new();
        loop {
            let first = self.log.bounds(shard).await.map_err(unreachable_log)?.first;
            let bases = known.bases.iter().filter_map(|base| base.get(&shard));
            let bases = bases.filter(|at| !passed_over.contains(&at.seq)).copied().collect();
            let bases = known.archive.kept_from(epoch, shard, bases);
            // The oldest, unless the log begins so late that only what is behind a later one can be had.
            let reaching = |at: &&Position| known.archive.covered(epoch, shard, at.seq) + 1 >= first;
            let Some(base) = bases.iter().find(reaching).or(bases.last()) else {
                // No snapshot is of this log any more; what is in it may lead on from one that comes.
                return Ok(((first <= 1).then(Placement::default), first.saturating_sub(1), lost));
            };
            let end = known.archive.covered(epoch, shard, base.seq);
            let mut last = known.archive.of(epoch, shard);
            last.retain(|segment| segment.last == end && end > base.seq);
            let (at, other) = if end == base.seq {
                let at = placement(base);
                (Some(at), placement::compare(&*self.log, shard, at).await.map_err(unreachable_log)?)
            } else {
                self.standing(shard, &last).await?
            };
            match (at, other) {
                (Some(at), None) => return Ok((Some(at), at.seq, lost)),
                (Some(at), Some(Loss::Rolled { first, .. })) if first == at.seq + 1 => {
                    return Ok((Some(at), at.seq, lost));
                }
                // Behind a hole nothing is known that could be compared.
                (None, None) if first <= end + 1 => return Ok((None, end, lost)),
                (_, None | Some(Loss::Rolled { .. })) => {
                    self.note_hole(epoch, Hole { shard, first: end + 1, last: first - 1 }).await?;
                    return Ok((None, first - 1, lost));
                }
                (_, Some(_)) if end > base.seq => {
                    lost = true;
                    known = self.known().await?;
                }
                (_, Some(_)) => {
                    // That snapshot is of what the log has lost.
                    passed_over.insert(base.seq);
                }
            }
        }
    }

    /// The entry that these segments end with, as the log has it; and what is wrong with the log, if it has none of
    /// them. Segments that end with another entry than the log has there become void.
    async fn standing(&self, shard: Shard, segments: &[Segment]) -> Result<(Option<Placement>, Option<Loss>), Failure> {
        let (mut standing, mut loss) = (None, None);
        for segment in segments {
            let at = self.end_of(segment.clone()).await?;
            match placement::compare(&*self.log, shard, at).await.map_err(unreachable_log)? {
                found @ (None | Some(Loss::Rolled { .. })) => {
                    standing = Some(at);
                    loss = found;
                }
                Some(found) => {
                    self.make_void(segment.clone()).await?;
                    if standing.is_none() {
                        loss = Some(found);
                    }
                }
            }
        }
        Ok((standing, loss))
    }

    /// The entry that a segment ends with.
    async fn end_of(&self, segment: Segment) -> Result<Placement, Failure> {
        let damaged = segment.to_string();
        let read = self.repo(move |repo| repo.segment(&segment).map(|(_, entries)| entries)).await;
        read?
            .last()
            .map(Placed::placement)
            .ok_or_else(|| Failure::new(Kind::Data, format!("segment `{damaged}` of the archive holds nothing")))
    }

    async fn note_hole(&mut self, epoch: u64, hole: Hole) -> Result<(), Failure> {
        let node = self.node;
        self.repo(move |repo| repo.note_hole(epoch, hole, node)).await?;
        tracing::warn!(
            shard = hole.shard,
            first = hole.first,
            last = hole.last,
            "the log was cut before these entries were archived; no time among them can be restored"
        );
        self.holes.push(hole);
        Ok(())
    }

    async fn make_void(&self, segment: Segment) -> Result<(), Failure> {
        tracing::warn!(%segment, "the log lost what is in this segment; it does not count any more");
        self.repo(move |repo| repo.avoid(&segment)).await
    }

    /// Gathers what has come, and stores what is due; says how many segments that were.
    pub(crate) async fn step(&mut self, flush: &Flush) -> Result<usize, Failure> {
        let mut segments = 0;
        for index in 0..self.lines.len() {
            segments += self.step_line(index, flush, READS).await?;
        }
        if segments > 0 && self.is_overtaken().await? {
            // It begins anew, behind what the other has stored.
            self.forget();
        }
        Ok(segments)
    }

    /// Whether somebody began later, and what was stored here may not count.
    async fn is_overtaken(&self) -> Result<bool, Failure> {
        let terms = self.repo(|repo| repo.succession()).await?.terms;
        let of = |line: &Line, term: &Term| (term.epoch, term.shard) == (line.epoch, line.shard);
        let is_later = |line: &Line, term: &Term| of(line, term) && term.term > line.term && term.after < line.after;
        // The claim of one that stood still is taken back, and its term with it.
        let counts = |line: &Line| terms.iter().any(|term| of(line, term) && term.term == line.term);
        Ok(self.lines.iter().any(|line| !counts(line) || terms.iter().any(|term| is_later(line, term))))
    }

    /// Stores all that there is by now, up to where no unit is open; gives where each shard is archived to then.
    pub(crate) async fn flush(&mut self) -> Result<BTreeMap<u32, Position>, Failure> {
        let now = Flush { bytes: READ_BYTES_MAX, entries: usize::MAX, age: Duration::ZERO };
        for index in 0..self.lines.len() {
            self.step_line(index, &now, usize::MAX).await?;
        }
        let place = |line: &Line| {
            let at = line.at.unwrap_or(Placement { seq: line.after, ..Placement::default() });
            (line.shard, super::archive::position(line.epoch, at))
        };
        Ok(self.lines.iter().map(place).collect())
    }

    async fn step_line(&mut self, index: usize, flush: &Flush, reads: usize) -> Result<usize, Failure> {
        let mut segments = 0;
        for _ in 0..reads {
            let more = self.gather(index).await?;
            let Some(line) = self.lines.get_mut(index) else { return Ok(segments) };
            while line.gathered.is_due(flush) {
                let of = Stretch::logged(line.epoch, line.shard, line.term, line.at);
                let entries = line.gathered.cut(flush);
                let Some(last) = entries.last().map(Placed::placement) else { break };
                let (shelf, cluster) = (self.shelf.clone(), self.cluster.clone());
                let stored = apart(move || {
                    let (opened, habits) = shelf.open()?;
                    Repo::new(&opened.store, &cluster).archive_entries(of, &entries, &habits.packing)
                });
                if let Err(failure) = stored.await? {
                    // Nobody knows what of it is there: it is looked at anew.
                    self.forget();
                    return Err(failure);
                }
                (line.at, line.after) = (Some(last), last.seq);
                segments += 1;
            }
            if !more {
                break;
            }
        }
        Ok(segments)
    }

    /// Reads on in a shard; says whether there was anything.
    async fn gather(&mut self, index: usize) -> Result<bool, Failure> {
        let Some(line) = self.lines.get_mut(index) else { return Ok(false) };
        let (shard, epoch) = (line.shard, line.epoch);
        let newest = line.gathered.entries.last().map(Placed::placement).or(line.at);
        let read = match newest {
            Some(newest) => {
                placement::read(&*self.log, shard, newest, READ_BYTES_MAX).await.map_err(unreachable_log)?
            }
            None => Ok(self.log.read(shard, line.after, READ_BYTES_MAX).await.map_err(unreachable_log)?),
        };
        let expected = newest.map_or(line.after, |newest| newest.seq) + 1;
        match read {
            Ok(entries) if entries.first().is_none_or(|placed| placed.first() == expected) => {
                let some = !entries.is_empty();
                entries.into_iter().for_each(|placed| line.gathered.push(placed));
                Ok(some)
            }
            // What was gathered and lost again was never archived.
            _ => {
                let claim = self.claim(shard, epoch).await?;
                let known = self.known().await?;
                let line = self.line(shard, epoch, known, Some(claim)).await?;
                if let Some(place) = self.lines.get_mut(index) {
                    *place = line;
                }
                Ok(false)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use antiphon_core::codec::Encoder;
    use antiphon_core::entry::{Changes, Entry};

    fn entry(seq: u64, node: u64, more: bool) -> Placed {
        let origin = Origin { node, incarnation: 1 };
        let body = Body::Changes(Changes { more, ..Changes::default() });
        let entry = Entry { cluster: [0; 16], origin, number: seq, clock: 0, body };
        Placed::whole(seq, seq, Encoder::new(None).encode(&entry).unwrap())
    }

    const FLUSH: Flush = Flush { bytes: usize::MAX, entries: 3, age: Duration::from_secs(3600) };

    #[test]
    fn a_segment_ends_where_a_unit_does() {
        let mut gathered = Gathered::default();
        for (seq, node, more) in [(1, 1, false), (2, 1, true), (3, 2, false)] {
            gathered.push(entry(seq, node, more));
        }
        assert!(gathered.is_due(&FLUSH));
        let seqs = |entries: &[Placed]| entries.iter().map(|placed| placed.seq).collect::<Vec<_>>();
        assert_eq!(seqs(&gathered.cut(&FLUSH)), [1]);
        assert!(!gathered.is_due(&FLUSH), "a unit is open");
        gathered.push(entry(4, 1, false));
        assert!(gathered.is_due(&FLUSH));
        assert_eq!(seqs(&gathered.cut(&FLUSH)), [2, 3, 4]);
        assert!(gathered.entries.is_empty());
    }

    #[test]
    fn a_unit_without_end_is_cut() {
        let mut gathered = Gathered::default();
        (1..12).for_each(|seq| gathered.push(entry(seq, 1, true)));
        assert!(!gathered.is_due(&FLUSH));
        gathered.push(entry(12, 1, true));
        assert!(gathered.is_due(&FLUSH));
        assert_eq!(gathered.cut(&FLUSH).len(), 12);
    }

    #[test]
    fn what_has_waited_becomes_a_segment() {
        let mut gathered = Gathered::default();
        let now = Flush { age: Duration::ZERO, ..FLUSH };
        assert!(!gathered.is_due(&now));
        gathered.push(entry(1, 1, false));
        assert!(!gathered.is_due(&FLUSH) && gathered.is_due(&now));
    }
}
