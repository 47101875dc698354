//! The archive of a cluster's log in a store: segments, one after the other, shard by shard.
//!
//! A segment is named by what it holds, so any number of nodes may archive at once, and one that dies leaves nothing that
//! another would not write again. What is told of the archive is told by a listing of names.

use super::repo::Repo;
use super::stored;
use crate::failure::{Failure, Kind};
use crate::log::{Placed, Placement, Sender};
use antiphon_core::snapshot::frame::{self, FRAME_BYTES, Packing};
use antiphon_core::snapshot::id::SnapshotId;
use antiphon_core::snapshot::layout::{Object, Segment};
use antiphon_core::snapshot::manifest::{Position, Stored};
use antiphon_core::snapshot::reach::{self, Hole};
use antiphon_core::snapshot::segment::{self, Content, Head, Logged};
use antiphon_core::store::{Name, Put};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Bytes that an object may be larger than its frames' content.
const SLACK: u64 = 64 << 10;

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
    /// Those that don't, for the log lost what is in them.
    pub(crate) void: BTreeSet<Segment>,
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
        for (_, object, _) in self.objects("hole/")? {
            if let Object::Hole { epoch, shard, first, last } = object {
                archive.holes.push((epoch, Hole { shard, first, last }));
            }
        }
        if !segments.is_empty() {
            archive.bytes += self.objects("part/")?.into_iter().map(|(_, _, size)| size).sum::<u64>();
        }
        segments.retain(|segment| !archive.void.contains(segment));
        archive.segments = segments;
        Ok(archive)
    }

    /// Stores a stretch of the log and reads it back; gives its name.
    pub(super) fn archive_entries(
        &self,
        at: (u64, u32),
        before: Option<Placement>,
        entries: &[Placed],
        packing: &Packing,
    ) -> Result<Segment, Failure> {
        const STORING: &str = "cannot store a segment of the archive";
        let (epoch, shard) = at;
        let before = before.map(|before| position(epoch, before));
        let entries: Vec<Logged> = entries.iter().map(logged).collect();
        let head = segment::head(self.cluster(), at, &entries, before);
        let raw = segment::write(&head, &entries);
        let time = |entry: Option<&Logged>| entry.map_or(0, |entry| entry.time / 1_000_000);
        let segment = Segment {
            epoch,
            shard,
            first: head.first,
            last: head.last,
            from_ms: time(entries.first()),
            to_ms: time(entries.last()),
            hash: segment::short_hash(&raw),
            level: 0,
        };
        let mut packed = pack(&raw, packing)?;
        let most = self.store().traits().map_err(|error| stored(STORING, &error))?.max_object;
        let most = usize::try_from(most.saturating_sub(SLACK)).unwrap_or(usize::MAX).max(FRAME_BYTES / 16);
        let put = |object: &Object, bytes: &[u8]| {
            let name = self.name(object)?;
            crate::storage::put(self.store(), &name, bytes, Put::Replace).map_err(|error| stored(STORING, &error))
        };
        if packed.len() > most {
            let mut parts = Vec::new();
            for (number, part) in (0..).zip(packed.chunks(most)) {
                fault!("archive-part");
                put(&Object::SegmentPart(segment.clone(), number), part)?;
                parts.push(Stored::of(part));
            }
            packed = pack(&segment::write_parted(&parts), packing)?;
        }
        fault!("archive-put");
        put(&Object::Segment(segment.clone()), &packed)?;
        fault!("archive-stored");
        Ok(segment)
    }

    /// Reads a segment, and compares all that is said of it.
    pub(crate) fn segment(&self, of: &Segment) -> Result<(Head, Vec<Placed>), Failure> {
        let attempted = || format!("failed to download segment `{of}` of the archive");
        let get = |object: &Object| {
            let name = self.name(object)?;
            self.store().get(&name, None).map_err(|error| stored(attempted(), &error))
        };
        let mut raw = unpack(&get(&Object::Segment(of.clone()))?).map_err(|bad| bad.context(attempted()))?;
        let mut content = segment::read(&raw).map_err(|error| unread(&error).context(attempted()))?;
        if let Content::Parted(parts) = &content {
            let mut packed = Vec::new();
            for (number, part) in (0..).zip(parts) {
                let bytes = get(&Object::SegmentPart(of.clone(), number))?;
                part.check(&bytes).map_err(|error| super::repo::unreadable(&error).context(attempted()))?;
                packed.extend(bytes);
            }
            raw = unpack(&packed).map_err(|bad| bad.context(attempted()))?;
            content = segment::read(&raw).map_err(|error| unread(&error).context(attempted()))?;
        }
        let Content::Whole(head, entries) = content else {
            return Err(unread(&segment::Error::Damaged("it is nowhere")).context(attempted()));
        };
        let is_meant = head.cluster == self.cluster()
            && (head.epoch, head.shard, head.first, head.last) == (of.epoch, of.shard, of.first, of.last)
            && segment::short_hash(&raw) == of.hash;
        if !is_meant {
            return Err(Failure::new(Kind::Data, format!("{}: what is there is another one", attempted()))
                .hint("somebody copied, renamed or changed objects in the store"));
        }
        Ok((head, entries.into_iter().map(placed).collect()))
    }

    /// Says that nobody has a stretch of the log any more.
    pub(super) fn note_hole(&self, epoch: u64, hole: Hole, node: u64) -> Result<(), Failure> {
        let Hole { shard, first, last } = hole;
        let text = serde_json::to_vec(&Noticed { noticed_ms: crate::clock::unix_ms(), node }).unwrap_or_default();
        fault!("archive-hole");
        self.say(&Object::Hole { epoch, shard, first, last }, &text)
    }

    /// Objects of the archive that nobody needs where only these snapshots are left: all before the oldest full one that
    /// holds every row, and what does not count; each with whether it is a segment, and its size. Nothing that came
    /// into the log only lately is among them.
    ///
    /// A part of a segment goes after it: what is cut off leaves parts that the next time finds.
    pub(super) fn superfluous(
        &self,
        left: &BTreeSet<SnapshotId>,
        is_old: impl Fn(u64) -> bool,
    ) -> Result<Vec<(Name, bool, u64)>, Failure> {
        let mut oldest: BTreeMap<(u64, u32), u64> = BTreeMap::new();
        let mut unread = false;
        for id in left {
            match self.manifest(*id) {
                Ok(manifest) if manifest.is_full() => {
                    for (shard, at) in &manifest.positions {
                        let seq = oldest.entry((at.epoch, *shard)).or_insert(at.seq);
                        *seq = at.seq.min(*seq);
                    }
                }
                Ok(_) => {}
                // Nobody knows from where on it would be gone on with.
                Err(failure) if matches!(failure.kind(), Kind::Data | Kind::Missing) => unread = true,
                Err(failure) => return Err(failure),
            }
        }
        if unread || oldest.is_empty() {
            return Ok(Vec::new());
        }
        let archive = self.archive()?;
        let goes = |segment: &Segment| {
            let is_before = oldest.get(&(segment.epoch, segment.shard)).is_some_and(|seq| segment.last <= *seq);
            (is_before || archive.void.contains(segment)) && is_old(segment.to_ms)
        };
        let (mut segments, mut rest) = (Vec::new(), Vec::new());
        for (name, object, size) in self.objects("log")? {
            if matches!(&object, Object::Segment(segment) if goes(segment)) {
                segments.push((name, true, size));
            }
        }
        for (name, object, size) in self.objects("part/")? {
            if matches!(&object, Object::SegmentPart(segment, _) if goes(segment)) {
                rest.push((name, false, size));
            }
        }
        segments.extend(rest);
        Ok(segments)
    }

    /// Says that a segment does not count any more, for the log lost what is in it.
    pub(super) fn avoid(&self, segment: &Segment) -> Result<(), Failure> {
        fault!("archive-void");
        self.say(&Object::Void(segment.clone()), b"{}")
    }
}

/// Up to where each shard is archived, from the oldest snapshot on that there is; without one, nothing is.
///
/// # Errors
/// When the store can't be listed or read.
pub fn archived_to(repo: &Repo<'_>) -> Result<BTreeMap<u32, Archived>, Failure> {
    let bases: Vec<BTreeMap<u32, Position>> = repo
        .all()?
        .snapshots
        .into_iter()
        .filter(|(manifest, _)| manifest.is_full())
        .map(|(manifest, _)| manifest.positions)
        .collect();
    Ok(ends(&repo.archive()?, &bases))
}

/// The same by what is known of the snapshots.
pub(crate) fn ends(archive: &Archive, bases: &[BTreeMap<u32, Position>]) -> BTreeMap<u32, Archived> {
    let mut ends = BTreeMap::new();
    // The newest snapshot says which log it is; of another one nothing is of use.
    for (&shard, newest) in bases.first().into_iter().flatten() {
        let epoch = newest.epoch;
        let of_epoch = bases.iter().filter_map(|base| base.get(&shard)).filter(|at| at.epoch == epoch);
        if let Some(oldest) = of_epoch.map(|at| at.seq).min() {
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
        let (segments, holes) = (archive.of(epoch, shard), archive.holes_of(epoch, shard).collect());
        let mut bases: Vec<&Position> =
            fulls.iter().filter_map(|full| full.positions.get(&shard)).filter(|at| at.epoch == epoch).collect();
        bases.sort_unstable_by_key(|at| at.seq);
        let mut windows: Vec<Window> = Vec::new();
        for at in bases {
            if windows.last().is_some_and(|window| at.seq <= window.to_seq) {
                continue;
            }
            let to_seq = reach::covered(at.seq, &segments, &[]);
            let last = segments.iter().find(|segment| segment.last == to_seq && to_seq > at.seq);
            let from_ms = at.time / 1_000_000;
            windows.push(Window {
                from_seq: at.seq,
                from_ms,
                to_seq,
                to_ms: last.map_or(from_ms, |segment| segment.to_ms),
            });
        }
        shards.insert(shard, Reachable { windows, holes });
    }
    Ok(shards)
}

/// A place in the log as snapshots say it.
pub(crate) fn position(epoch: u64, at: Placement) -> Position {
    Position { epoch, seq: at.seq, time: at.time, checksum: at.checksum }
}

/// The same as the log says it.
pub(crate) fn placement(at: &Position) -> Placement {
    Placement { seq: at.seq, time: at.time, checksum: at.checksum }
}

fn logged(placed: &Placed) -> Logged {
    let sender = match placed.from {
        Sender::Untold => segment::Sender::Untold,
        Sender::Anyone => segment::Sender::Anyone,
        Sender::Origin(origin) => segment::Sender::Origin(origin),
    };
    Logged { seq: placed.seq, parts: placed.parts, time: placed.time, sender, frame: placed.frame.clone() }
}

fn placed(logged: Logged) -> Placed {
    let from = match logged.sender {
        segment::Sender::Untold => Sender::Untold,
        segment::Sender::Anyone => Sender::Anyone,
        segment::Sender::Origin(origin) => Sender::Origin(origin),
    };
    Placed { seq: logged.seq, parts: logged.parts, time: logged.time, from, frame: logged.frame }
}

fn pack(raw: &[u8], packing: &Packing) -> Result<Vec<u8>, Failure> {
    let mut packed = Vec::new();
    for raw in raw.chunks(FRAME_BYTES) {
        frame::pack(raw, packing, &mut packed)
            .map_err(|error| Failure::caused(Kind::General, "cannot pack a segment of the archive", &error))?;
    }
    Ok(packed)
}

fn unpack(packed: &[u8]) -> Result<Vec<u8>, Failure> {
    let mut raw = Vec::new();
    let unpacked = frame::unpack(packed, |frame| {
        raw.extend_from_slice(frame);
        Ok::<_, frame::Error>(())
    });
    let damaged = |error: frame::Error| Failure::new(Kind::Data, error.to_string());
    unpacked.map(|()| raw).map_err(damaged)
}

fn unread(error: &segment::Error) -> Failure {
    Failure::new(Kind::Data, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use antiphon_core::store::{self, Store, StoreError, Traits};

    fn at(seq: u64) -> BTreeMap<u32, Position> {
        BTreeMap::from([(1, Position { epoch: 3, seq, time: 0, checksum: 0 })])
    }

    fn segment(epoch: u64, first: u64, last: u64) -> Segment {
        Segment { epoch, shard: 1, first, last, from_ms: 0, to_ms: 0, hash: 0, level: 0 }
    }

    /// A store of small objects, in memory.
    #[derive(Default)]
    struct Small(std::sync::Mutex<BTreeMap<Name, Vec<u8>>>);

    impl Store for Small {
        fn traits(&self) -> Result<Traits, StoreError> {
            let max_object = SLACK + (FRAME_BYTES as u64) / 8;
            Ok(Traits { max_object, put_if_absent: false, ranged_get: false, atomic_put: true })
        }

        fn check(&self) -> Result<(), StoreError> {
            Ok(())
        }

        fn put(&self, name: &Name, body: &[u8], _: Put) -> Result<(), StoreError> {
            assert!(body.len() as u64 <= self.traits()?.max_object);
            self.0.lock().unwrap().insert(name.clone(), body.to_vec());
            Ok(())
        }

        fn get(&self, name: &Name, _: Option<store::Part>) -> Result<Vec<u8>, StoreError> {
            let found = self.0.lock().unwrap().get(name).cloned();
            found.ok_or_else(|| StoreError::new(store::ErrorKind::NotFound, "no such object"))
        }

        fn stat(&self, name: &Name) -> Result<store::Object, StoreError> {
            let size = self.get(name, None)?.len() as u64;
            Ok(store::Object { name: name.clone(), size, modified_ms: None, etag: None })
        }

        fn list(&self, prefix: &str, after: Option<&Name>, _: u32) -> Result<Vec<store::Object>, StoreError> {
            let names: Vec<Name> = self.0.lock().unwrap().keys().cloned().collect();
            let is_meant = |name: &&Name| name.as_str().starts_with(prefix) && after.is_none_or(|after| *name > after);
            names.iter().filter(is_meant).map(|name| self.stat(name)).collect()
        }

        fn delete(&self, names: &[Name]) -> Result<(), StoreError> {
            names.iter().for_each(|name| drop(self.0.lock().unwrap().remove(name)));
            Ok(())
        }
    }

    fn entries(from: u64) -> Vec<Placed> {
        let noise =
            |seq: u64| (0..200_000_u64).map(move |at| (at.wrapping_mul(seq * 2_654_435_761) >> 13).to_le_bytes()[0]);
        (from..from + 3).map(|seq| Placed::whole(seq, seq * 1_000_000, noise(seq).collect())).collect()
    }

    #[test]
    fn a_segment_larger_than_an_object_lies_in_several() {
        let store = Small::default();
        let repo = Repo::new(&store, "c0ffee");
        let packing = Packing { method: frame::Method::None, ..Packing::default() };
        let segment = repo.archive_entries((3, 1), Some(Placement::default()), &entries(1), &packing).unwrap();
        assert_eq!(store.0.lock().unwrap().len(), 6, "five parts, and what they are of");
        let (head, read) = repo.segment(&segment).unwrap();
        assert_eq!(read, entries(1));
        assert_eq!(head.before, Some(position(3, Placement::default())));
        // The same comes to the same name, and nothing more.
        assert_eq!(repo.archive_entries((3, 1), Some(Placement::default()), &entries(1), &packing).unwrap(), segment);
        assert_eq!(store.0.lock().unwrap().len(), 6);
        let archive = repo.archive().unwrap();
        assert_eq!(archive.segments, std::slice::from_ref(&segment));
        assert!(archive.bytes > 600_000);
        // Every object counts.
        let names: Vec<Name> = store.0.lock().unwrap().keys().cloned().collect();
        for name in names {
            let whole = store.get(&name, None).unwrap();
            for at in (0..whole.len()).step_by(whole.len() / 5 + 1) {
                let mut damaged = whole.clone();
                damaged[at] ^= 1;
                store.put(&name, &damaged, Put::Replace).unwrap();
                assert_eq!(repo.segment(&segment).unwrap_err().kind(), Kind::Data, "{name} at {at}");
            }
            store.delete(std::slice::from_ref(&name)).unwrap();
            assert!(repo.segment(&segment).is_err(), "{name}");
            store.put(&name, &whole, Put::Replace).unwrap();
        }
        // Under another's name it is nothing.
        let other = Repo::new(&store, "c0ffed");
        let name = other.name(&Object::Segment(segment.clone())).unwrap();
        let stolen = store.get(&repo.name(&Object::Segment(segment.clone())).unwrap(), None).unwrap();
        store.put(&name, &stolen, Put::Replace).unwrap();
        assert!(other.segment(&segment).is_err());
    }

    #[test]
    fn what_is_void_or_a_hole_is_told_by_its_name() {
        let store = Small::default();
        let repo = Repo::new(&store, "c0ffee");
        let first = repo.archive_entries((3, 1), None, &entries(1), &Packing::default()).unwrap();
        let second = repo.archive_entries((3, 1), None, &entries(4), &Packing::default()).unwrap();
        assert_eq!(repo.archive().unwrap().covered(3, 1, 0), 6);
        repo.avoid(&second).unwrap();
        let archive = repo.archive().unwrap();
        assert_eq!((archive.segments.as_slice(), archive.covered(3, 1, 0)), (std::slice::from_ref(&first), 3));
        repo.note_hole(3, Hole { shard: 1, first: 4, last: 9 }, 7).unwrap();
        assert_eq!(repo.archive().unwrap().covered(3, 1, 0), 9);
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
