//! What of the archive nobody needs any more.

use super::archive::Archive;
use super::repo::Repo;
use crate::failure::{Failure, Kind};
use antiphon_core::snapshot::id::SnapshotId;
use antiphon_core::snapshot::layout::{Claim, Object, Segment, Term};
use antiphon_core::snapshot::manifest::{Manifest, Position};
use antiphon_core::snapshot::merge;
use antiphon_core::store::Name;
use std::collections::{BTreeMap, BTreeSet};

/// A log's shard.
type Line = (u64, u32);

/// What may go.
#[derive(Debug, Default)]
pub(super) struct Expired {
    /// Up to where segments go, to be said before they do: shards of which nothing was said so far, or less.
    pub(super) floors: Vec<Object>,
    /// Objects, each with whether it is a segment, and its size; a part of a segment comes after it, for what is cut off
    /// leaves parts that the next time finds.
    pub(super) objects: Vec<(Name, bool, u64)>,
}

impl Repo<'_> {
    /// What nobody needs of the archive where only these snapshots are left: what lies before the oldest full one, or before
    /// the newest full one made up to `from_ms` that stays, and leads up to no snapshot that holds no rows of its own; what
    /// does not count; what lies within a wider segment that was read again and is whole. Nothing that came into the log
    /// only lately is among them.
    pub(super) fn expired(
        &self,
        left: &BTreeSet<SnapshotId>,
        stays: impl Fn(SnapshotId) -> bool,
        is_old: impl Fn(u64) -> bool,
        from_ms: Option<u64>,
    ) -> Result<Expired, Failure> {
        let (mut fulls, mut steps) = (Vec::new(), Vec::new());
        for id in left {
            match self.manifest(*id) {
                Ok(manifest) if manifest.is_full() => fulls.push(manifest),
                Ok(manifest) => steps.push(manifest),
                // Nobody knows from where on it would be gone on with.
                Err(failure) if matches!(failure.kind(), Kind::Data | Kind::Missing) => return Ok(Expired::default()),
                Err(failure) => return Err(failure),
            }
        }
        if fulls.is_empty() {
            return Ok(Expired::default());
        }
        let archive = self.archive()?;
        let unsettled = self.unsettled(&archive)?;
        let mut begins = oldest(&fulls);
        let mut expired = Expired::default();
        let base = from_ms.and_then(|from| {
            let bases = fulls.iter().filter(|full| full.created_ms <= from && stays(full.id));
            bases.max_by_key(|full| (full.created_ms, full.id))
        });
        for (shard, at) in base.into_iter().flat_map(|base| &base.positions) {
            let line = (at.epoch, *shard);
            if begins.get(&line).is_some_and(|oldest| at.seq > *oldest) {
                begins.insert(line, at.seq);
                if archive.floors.get(&line).is_none_or(|floor| *floor < at.seq) {
                    expired.floors.push(Object::Floor { epoch: at.epoch, shard: *shard, seq: at.seq });
                }
            }
        }
        let needed = stretches(&fulls, &steps, &stays);
        let mut whole = Whole { repo: self, archive: &archive, read: BTreeMap::new() };
        let mut goes = |segment: &Segment| {
            let line = (segment.epoch, segment.shard);
            if unsettled.contains(&line) {
                // That a wider one holds it may be over.
                return Ok(false);
            }
            let is_before = begins.get(&line).is_some_and(|seq| segment.last <= *seq);
            let leads_on =
                |(of, after, last): &(Line, u64, u64)| *of == line && segment.last > *after && segment.first <= *last;
            let is_superfluous = archive.void.contains(segment) || is_before && !needed.iter().any(leads_on);
            Ok::<_, Failure>(is_old(segment.to_ms) && (is_superfluous || whole.holds(segment)?))
        };
        let mut rest = Vec::new();
        for (name, object, size) in self.objects("log")? {
            if matches!(&object, Object::Segment(segment) if goes(segment)?) {
                expired.objects.push((name, true, size));
            }
        }
        for (name, object, size) in self.objects("part/")? {
            if matches!(&object, Object::SegmentPart(segment, _) if goes(segment)?) {
                rest.push((name, false, size));
            }
        }
        for (name, object, size) in [self.objects("term/")?, self.objects("floor/")?].concat() {
            if is_outlived(&object, &archive, &begins) {
                rest.push((name, false, size));
            }
        }
        expired.objects.extend(rest);
        Ok(expired)
    }
}

/// Where the oldest full snapshot stands in each shard.
fn oldest(fulls: &[Manifest]) -> BTreeMap<Line, u64> {
    let mut oldest: BTreeMap<Line, u64> = BTreeMap::new();
    for (shard, at) in fulls.iter().flat_map(|full| &full.positions) {
        let seq = oldest.entry((at.epoch, *shard)).or_insert(at.seq);
        *seq = at.seq.min(*seq);
    }
    oldest
}

/// What leads from full snapshots to those that hold no rows: shard by shard, behind which entry and up to which.
fn stretches(fulls: &[Manifest], steps: &[Manifest], stays: impl Fn(SnapshotId) -> bool) -> Vec<(Line, u64, u64)> {
    let mut stretches = Vec::new();
    for step in steps {
        let is_behind = |full: &&Manifest| {
            let stands = |(shard, at): (&u32, &Position)| {
                step.positions.get(shard).is_some_and(|to| to.epoch == at.epoch && at.seq <= to.seq)
            };
            full.positions.iter().all(stands)
        };
        let bases = fulls.iter().filter(is_behind);
        let Some(base) = bases.max_by_key(|full| (stays(full.id), full.id)) else { continue };
        for (shard, to) in &step.positions {
            let after = base.positions.get(shard).map_or(0, |at| at.seq);
            stretches.push(((to.epoch, *shard), after, to.seq));
        }
    }
    stretches
}

/// What was said of a shard and says nothing any more: a lower floor than another, and a term that a later one followed
/// before anything began that is left.
fn is_outlived(object: &Object, archive: &Archive, begins: &BTreeMap<Line, u64>) -> bool {
    match object {
        Object::Floor { epoch, shard, seq } => archive.floors.get(&(*epoch, *shard)).is_some_and(|floor| seq < floor),
        Object::Term(Term { epoch, shard, term, .. }) | Object::Claim(Claim { epoch, shard, term, .. }) => {
            let begin = begins.get(&(*epoch, *shard)).copied().unwrap_or(0);
            let mut of_shard = archive.terms.iter().filter(|of| (of.epoch, of.shard) == (*epoch, *shard));
            // A claim that has led to no term may still do so.
            let is_open = matches!(object, Object::Claim(_)) && !of_shard.clone().any(|of| of.term == *term);
            !is_open && of_shard.any(|later| later.term > *term && later.after <= begin)
        }
        _ => false,
    }
}

/// Wider segments, and which of them were read again and are whole.
struct Whole<'a> {
    repo: &'a Repo<'a>,
    archive: &'a Archive,
    read: BTreeMap<Segment, bool>,
}

impl Whole<'_> {
    /// Whether all that is in this segment is in a wider one.
    fn holds(&mut self, segment: &Segment) -> Result<bool, Failure> {
        for wider in self.archive.segments.iter().filter(|wider| merge::is_within(segment, wider)) {
            let is_whole = match self.read.get(wider) {
                Some(known) => *known,
                None => match self.repo.segment(wider) {
                    Ok(_) => true,
                    Err(failure) if matches!(failure.kind(), Kind::Data | Kind::Missing) => {
                        tracing::warn!(%failure, "its parts are kept");
                        false
                    }
                    Err(failure) => return Err(failure),
                },
            };
            self.read.insert(wider.clone(), is_whole);
            if is_whole {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::marks::Grace;
    use super::super::saved::Level;
    use super::super::segment::Stretch;
    use super::super::segment::tests::{Small, entries};
    use super::*;
    use crate::log::Placed;
    use antiphon_core::snapshot::due;
    use antiphon_core::snapshot::frame::Packing;
    use antiphon_core::snapshot::manifest::FORMAT;
    use antiphon_core::snapshot::merge::Span;
    use antiphon_core::store::{self, Part, Put, Store, StoreError, Traits};
    use std::sync::Mutex;
    use std::sync::atomic::AtomicBool;

    pub(in super::super) const HOUR: u64 = 3_600_000;
    const SPANS: [Span; 1] = [Span { level: 1, millis: HOUR }];

    /// A snapshot of so many hours ago that stands here; one without rows has a parent.
    pub(in super::super) fn snapshot(
        repo: &Repo<'_>,
        hours_ago: u64,
        seq: u64,
        parent: Option<SnapshotId>,
    ) -> SnapshotId {
        let manifest = manifest(repo, hours_ago, seq, parent);
        repo.commit(&manifest).unwrap();
        manifest.id
    }

    /// What one says of itself.
    pub(in super::super) fn manifest(
        repo: &Repo<'_>,
        hours_ago: u64,
        seq: u64,
        parent: Option<SnapshotId>,
    ) -> Manifest {
        let created_ms = crate::clock::unix_ms() - hours_ago * HOUR;
        let id = SnapshotId::new(created_ms, seq.into());
        let kind = if parent.is_some() { due::Kind::Incremental } else { due::Kind::Full };
        Manifest {
            format: FORMAT,
            id,
            cluster: repo.cluster().to_owned(),
            kind,
            parent,
            created_ms,
            node: 1,
            version: String::new(),
            term: 0,
            trigger: String::new(),
            took_ms: 0,
            positions: BTreeMap::from([(1, Position { epoch: 3, seq, time: 0, checksum: 0 })]),
            tables: Vec::new(),
            left_out: Vec::new(),
            scope: String::new(),
            genesis: String::new(),
            image: None,
            index: None,
        }
    }

    /// Three entries from here on, that came into the log within one second.
    fn archived(repo: &Repo<'_>, from: u64) -> Segment {
        let entries: Vec<Placed> =
            entries(from).into_iter().map(|placed| Placed { frame: vec![1; 10], ..placed }).collect();
        repo.archive_entries(Stretch::logged(3, 1, 0, None), &entries, &Packing::default()).unwrap()
    }

    fn left(repo: &Repo<'_>) -> Vec<(u64, u64)> {
        let segments = repo.archive().unwrap().segments;
        segments.iter().map(|segment| (segment.first, segment.last)).collect()
    }

    fn grace(window_hours: Option<u64>) -> Grace {
        Grace { forgotten_ms: 0, window_ms: window_hours.map(|hours| hours * HOUR), ..Grace::default() }
    }

    #[test]
    fn what_is_older_than_the_window_goes_but_what_a_snapshot_needs() {
        let store = Small::default();
        let repo = Repo::new(&store, "c0ffee");
        let old = snapshot(&repo, 50, 0, None);
        snapshot(&repo, 40, 6, Some(old));
        snapshot(&repo, 30, 12, None);
        snapshot(&repo, 1, 15, None);
        for n in 0..6 {
            archived(&repo, n * 3 + 1);
        }
        assert_eq!(repo.prune(grace(None), false).unwrap().segments, 0);
        assert_eq!(repo.prune(grace(Some(60)), false).unwrap().segments, 0, "all is younger");
        assert_eq!(repo.prune(grace(Some(24)), true).unwrap().segments, 2);
        assert_eq!(left(&repo).len(), 6, "that was only asked");
        assert_eq!(repo.prune(grace(Some(24)), false).unwrap().segments, 2);
        assert_eq!(left(&repo), [(1, 3), (4, 6), (13, 15), (16, 18)]);
        let archive = repo.archive().unwrap();
        assert_eq!(archive.floors.get(&(3, 1)), Some(&12));
        assert_eq!(archive.covered(3, 1, 12), 18);
        // The window moves on, and what was said of it before goes.
        assert_eq!(repo.prune(grace(Some(1)), false).unwrap().segments, 1);
        repo.prune(grace(Some(1)), false).unwrap();
        assert_eq!(repo.objects("floor/").unwrap().len(), 1);
    }

    #[test]
    fn what_is_damaged_or_soon_to_go_is_nothing_to_begin_with() {
        let store = Small::default();
        let repo = Repo::new(&store, "c0ffee");
        snapshot(&repo, 50, 3, None);
        let damaged = snapshot(&repo, 40, 9, None);
        let forgotten = snapshot(&repo, 30, 12, None);
        snapshot(&repo, 1, 15, None);
        for n in 0..6 {
            archived(&repo, n * 3 + 1);
        }
        let day = Grace { forgotten_ms: HOUR, ..grace(Some(24)) };
        let segments = |grace| repo.prune(grace, true).unwrap().segments;
        assert_eq!(segments(day), 4);
        repo.forget(forgotten).unwrap();
        assert_eq!(segments(day), 3, "it goes before the window does");
        repo.note_found(damaged, Level::Hash, Err(&Failure::new(Kind::Data, "no"))).unwrap();
        assert_eq!(segments(day), 1, "only what nothing leads on from");
    }

    /// A store that fails at listings of what begins so, once it is told to.
    #[derive(Default)]
    struct Unlisted {
        inner: Small,
        fails: Mutex<Option<&'static str>>,
    }

    impl Store for Unlisted {
        fn traits(&self) -> Result<Traits, StoreError> {
            self.inner.traits()
        }

        fn check(&self) -> Result<(), StoreError> {
            Ok(())
        }

        fn put(&self, name: &Name, body: &[u8], put: Put) -> Result<(), StoreError> {
            self.inner.put(name, body, put)
        }

        fn get(&self, name: &Name, part: Option<Part>) -> Result<Vec<u8>, StoreError> {
            self.inner.get(name, part)
        }

        fn stat(&self, name: &Name) -> Result<store::Object, StoreError> {
            self.inner.stat(name)
        }

        fn list(&self, prefix: &str, after: Option<&Name>, limit: u32) -> Result<Vec<store::Object>, StoreError> {
            if self.fails.lock().unwrap().is_some_and(|what| prefix.ends_with(what)) {
                return Err(StoreError::new(store::ErrorKind::Temporary, "the listing was cut off"));
            }
            self.inner.list(prefix, after, limit)
        }

        fn delete(&self, names: &[Name]) -> Result<(), StoreError> {
            self.inner.delete(names)
        }
    }

    #[test]
    fn where_a_part_is_not_listed_nothing_goes() {
        let store = Unlisted::default();
        let repo = Repo::new(&store, "c0ffee");
        let old = snapshot(&repo, 50, 0, None);
        snapshot(&repo, 1, 6, None);
        for n in 0..3 {
            archived(&repo, n * 3 + 1);
        }
        repo.forget(old).unwrap();
        let all = || store.inner.0.lock().unwrap().clone();
        let before = all();
        let listings =
            ["note/", "tomb/", "verify/", "snap/", "base/", "log", "void/", "term/", "floor/", "hole/", "part/"];
        for listing in listings {
            *store.fails.lock().unwrap() = Some(listing);
            assert!(repo.prune(grace(Some(1)), false).is_err(), "{listing}");
            assert_eq!(all(), before, "{listing}");
        }
        *store.fails.lock().unwrap() = None;
        let pruned = repo.prune(grace(Some(1)), false).unwrap();
        assert_eq!((pruned.snapshots.len(), pruned.segments), (1, 2));
    }

    #[test]
    fn parts_go_when_what_was_made_of_them_is_whole() {
        let store = Small::default();
        let repo = Repo::new(&store, "c0ffee");
        snapshot(&repo, 1, 0, None);
        let parts: Vec<Segment> = (0..3).map(|n| archived(&repo, n * 3 + 1)).collect();
        let late = Placed { time: 2 * HOUR * 1_000_000, ..entries(10).remove(0) };
        repo.archive_entries(Stretch::logged(3, 1, 0, None), &[late], &Packing::default()).unwrap();
        let merged = repo.merge(&SPANS, &Packing::default(), &AtomicBool::new(false)).unwrap();
        assert_eq!((merged.segments, merged.parts), (1, 3));
        let whole = repo.archive().unwrap().segments.into_iter().find(|segment| segment.level == 1).unwrap();
        let name = repo.name(&Object::Segment(whole)).unwrap();
        store.0.lock().unwrap().get_mut(&name).unwrap()[40] ^= 1;
        assert_eq!(repo.prune(grace(None), false).unwrap().segments, 0, "what is damaged replaces nothing");
        store.0.lock().unwrap().get_mut(&name).unwrap()[40] ^= 1;
        assert_eq!(repo.prune(Grace { forgotten_ms: u64::MAX, ..grace(None) }, false).unwrap().segments, 0);
        assert_eq!(repo.prune(grace(None), false).unwrap().segments, 3);
        assert_eq!(left(&repo), [(10, 10), (1, 9)]);
        assert!(parts.iter().all(|part| repo.segment(part).is_err()));
    }

    #[test]
    fn what_was_overtaken_goes_and_so_do_terms_that_were_outlived() {
        let store = Small::default();
        let repo = Repo::new(&store, "c0ffee");
        snapshot(&repo, 2, 3, None);
        let begin = |after| repo.begin_term(repo.claim(3, 1, 7).unwrap(), after).unwrap();
        begin(0);
        begin(3);
        begin(6);
        archived(&repo, 4);
        archived(&repo, 7);
        let pruned = repo.prune(grace(None), false).unwrap();
        assert_eq!((pruned.segments, pruned.objects), (2, 4), "both are of no term, and the first term is outlived");
        let terms: Vec<u64> = repo.archive().unwrap().terms.iter().map(|term| term.after).collect();
        assert_eq!(terms, [3, 6]);
        assert_eq!(repo.objects("term/").unwrap().len(), 4, "and so is its claim");
    }
}
