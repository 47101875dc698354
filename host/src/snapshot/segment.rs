//! One stretch of the log in a store: stored and read back, read again and compared with all that is said of it.

use super::archive::position;
use super::repo::Repo;
use super::stored;
use crate::failure::{Failure, Kind};
use crate::log::{Placed, Placement};
use antiphon_core::snapshot::frame::{self, FRAME_BYTES, Packing};
use antiphon_core::snapshot::layout::{Object, Segment};
use antiphon_core::snapshot::manifest::{Position, Stored};
use antiphon_core::snapshot::segment::{self, Content, Head, Logged};
use antiphon_core::store::Put;

/// Bytes that an object may be larger than its frames' content.
const SLACK: u64 = 64 << 10;

/// Where a stretch of the log belongs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stretch {
    pub(super) epoch: u64,
    pub(super) shard: u32,
    /// The term of who archives.
    pub(super) term: u64,
    /// What stands before it.
    pub(super) before: Option<Position>,
    /// How often it was merged out of smaller ones.
    pub(super) level: u8,
}

impl Stretch {
    /// One that comes straight out of the log.
    pub(super) fn logged(epoch: u64, shard: u32, term: u64, before: Option<Placement>) -> Self {
        Self { epoch, shard, term, before: before.map(|before| position(epoch, before)), level: 0 }
    }
}

impl Repo<'_> {
    /// Stores a stretch of the log and reads it back; gives its name.
    pub(super) fn archive_entries(
        &self,
        of: Stretch,
        entries: &[Placed],
        packing: &Packing,
    ) -> Result<Segment, Failure> {
        const STORING: &str = "cannot store a segment of the archive";
        let Stretch { epoch, shard, term, before, level } = of;
        let entries: Vec<Logged> = entries.iter().map(logged).collect();
        let head = segment::head(self.cluster(), (epoch, shard), term, &entries, before);
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
            term,
            level,
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
            && head.term == of.term
            && segment::short_hash(&raw) == of.hash;
        if !is_meant {
            return Err(Failure::new(Kind::Data, format!("{}: what is there is another one", attempted()))
                .hint("somebody copied, renamed or changed objects in the store"));
        }
        Ok((head, entries.into_iter().map(placed).collect()))
    }
}

fn logged(placed: &Placed) -> Logged {
    let Placed { seq, parts, time, from, frame } = placed.clone();
    Logged { seq, parts, time, sender: from, frame }
}

fn placed(logged: Logged) -> Placed {
    let Logged { seq, parts, time, sender, frame } = logged;
    Placed { seq, parts, time, from: sender, frame }
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
pub(super) mod tests {
    use super::*;
    use antiphon_core::store::{self, Name, Store, StoreError, Traits};
    use std::collections::BTreeMap;
    use std::sync::Mutex;

    /// A store of small objects, in memory.
    #[derive(Default)]
    pub(in crate::snapshot) struct Small(pub(in crate::snapshot) Mutex<BTreeMap<Name, Vec<u8>>>);

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

    pub(in crate::snapshot) fn entries(from: u64) -> Vec<Placed> {
        let noise =
            |seq: u64| (0..200_000_u64).map(move |at| (at.wrapping_mul(seq * 2_654_435_761) >> 13).to_le_bytes()[0]);
        (from..from + 3).map(|seq| Placed::whole(seq, seq * 1_000_000, noise(seq).collect())).collect()
    }

    #[test]
    fn a_segment_larger_than_an_object_lies_in_several() {
        let store = Small::default();
        let repo = Repo::new(&store, "c0ffee");
        let packing = Packing { method: frame::Method::None, ..Packing::default() };
        let segment =
            repo.archive_entries(Stretch::logged(3, 1, 5, Some(Placement::default())), &entries(1), &packing).unwrap();
        assert_eq!(store.0.lock().unwrap().len(), 6, "five parts, and what they are of");
        let (head, read) = repo.segment(&segment).unwrap();
        assert_eq!(read, entries(1));
        assert_eq!(head.before, Some(position(3, Placement::default())));
        // The same comes to the same name, and nothing more.
        assert_eq!(
            repo.archive_entries(Stretch::logged(3, 1, 5, Some(Placement::default())), &entries(1), &packing).unwrap(),
            segment
        );
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
        // Under another's name it is nothing, and under that of another term.
        let renewed = Segment { term: 6, ..segment };
        let whole = store.get(&repo.name(&Object::Segment(segment.clone())).unwrap(), None).unwrap();
        store.put(&repo.name(&Object::Segment(renewed.clone())).unwrap(), &whole, Put::Replace).unwrap();
        assert!(repo.segment(&renewed).is_err());
        let other = Repo::new(&store, "c0ffed");
        let name = other.name(&Object::Segment(segment.clone())).unwrap();
        let stolen = store.get(&repo.name(&Object::Segment(segment.clone())).unwrap(), None).unwrap();
        store.put(&name, &stolen, Put::Replace).unwrap();
        assert!(other.segment(&segment).is_err());
    }
}
