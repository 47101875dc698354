//! A file in a store: cut into objects of a few frames each, and put together again.
//!
//! Several objects are on their way at once, each in a thread of its own that reads, packs, sends and reads back. So
//! what is held in memory is bounded by how many there are, and never by the file.

use super::repo::{Repo, unreadable};
use super::{stored, unwritten};
use crate::bill::Bill;
use crate::failure::{Failure, Kind};
use crate::storage::Content;
use antiphon_core::snapshot::frame::{self, FRAME_BYTES, Packing};
use antiphon_core::snapshot::id::SnapshotId;
use antiphon_core::snapshot::layout::{Object, Part};
use antiphon_core::snapshot::manifest::Stored;
use antiphon_core::store::Put;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

/// Most frames in one object.
const FRAMES_MAX: u64 = 8;
/// What an object may be larger than its frames' content: their heads, where nothing could be compressed.
const SLACK: u64 = 64 << 10;

/// Which file of which snapshot, and how its objects move.
#[derive(Clone, Copy)]
pub(super) struct Pieces<'a> {
    pub(super) repo: Repo<'a>,
    pub(super) snapshot: SnapshotId,
    pub(super) part: Part,
    /// How many objects at once.
    pub(super) parallel: usize,
    /// Somebody wants to stop.
    pub(super) stop: &'a AtomicBool,
    /// Some objects may be there already.
    pub(super) goes_on: bool,
}

/// Bytes of a file in one object, in a store that takes objects of this size.
pub(super) fn stride(max_object: u64) -> u64 {
    (max_object.saturating_sub(SLACK) / FRAME_BYTES as u64).clamp(1, FRAMES_MAX) * FRAME_BYTES as u64
}

impl Pieces<'_> {
    /// Stores a file; gives its objects in their order.
    pub(super) fn store(&self, path: &Path, stride: u64, packing: &Packing) -> Result<Vec<Stored>, Failure> {
        let file = File::open(path).map_err(|error| unwritten(path, &error))?;
        let length = file.metadata().map_err(|error| unwritten(path, &error))?.len();
        let count = u32::try_from(length.div_ceil(stride)).unwrap_or(u32::MAX);
        let done = Mutex::new(vec![Stored { bytes: 0, blake3: String::new() }; count as usize]);
        self.each(count, |number| {
            let from = u64::from(number) * stride;
            let mut raw = vec![0; usize::try_from(stride.min(length - from)).unwrap_or(0)];
            file.read_exact_at(&mut raw, from).map_err(|error| unwritten(path, &error))?;
            let mut object = Vec::new();
            for raw in raw.chunks(FRAME_BYTES) {
                frame::pack(raw, packing, &mut object)
                    .map_err(|error| Failure::caused(Kind::General, "cannot pack a snapshot", &error))?;
            }
            let stored = self.put(number, &object)?;
            if let Some(place) = done.lock().unwrap_or_else(PoisonError::into_inner).get_mut(number as usize) {
                *place = stored;
            }
            Ok(())
        })?;
        Ok(done.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// Stores one object, and reads it back.
    pub(super) fn put(&self, number: u32, object: &[u8]) -> Result<Stored, Failure> {
        let name = self.repo.name(&Object::Payload { snapshot: self.snapshot, part: self.part, number })?;
        if self.goes_on {
            let content = Content::of(object);
            // Whatever else is there is replaced, and what can't be read is found by who writes it.
            if crate::storage::get(self.repo.store(), &name, &content).is_ok() {
                return Ok(Stored { bytes: content.size, blake3: content.hash.to_hex().to_string() });
            }
        }
        fault!("snapshot-put");
        let content = crate::storage::put(self.repo.store(), &name, object, Put::Replace)
            .map_err(|error| stored("cannot store a part of the snapshot", &error))?;
        Ok(Stored { bytes: content.size, blake3: content.hash.to_hex().to_string() })
    }

    /// Reads one object, and compares it.
    pub(super) fn get(&self, number: u32, wanted: &Stored) -> Result<Vec<u8>, Failure> {
        let attempted = || format!("failed to download snapshot {}", self.snapshot);
        let name = self.repo.name(&Object::Payload { snapshot: self.snapshot, part: self.part, number })?;
        let object = self.repo.store().get(&name, None).map_err(|error| stored(attempted(), &error))?;
        wanted.check(&object).map_err(|error| unreadable(&error).context(format!("{}: `{name}`", attempted())))?;
        Ok(object)
    }

    /// Reads one object that nothing is known of; gives what it is, and how much of a file it holds.
    pub(super) fn read(&self, number: u32) -> Result<(Stored, u64), Failure> {
        let name = self.repo.name(&Object::Payload { snapshot: self.snapshot, part: self.part, number })?;
        let got = self.repo.store().get(&name, None);
        let object = got.map_err(|error| stored(format!("failed to download snapshot {}", self.snapshot), &error))?;
        let mut bytes = 0;
        frame::unpack(&object, |raw| {
            bytes += raw.len() as u64;
            Ok::<_, Bad>(())
        })
        .map_err(|bad| bad.0.context(format!("`{name}`")))?;
        Ok((Stored::of(&object), bytes))
    }

    /// Reads all objects and compares them; writes what they hold into a file, if there is one.
    pub(super) fn fetch(&self, objects: &[Stored], stride: u64, into: Option<(&Path, &File)>) -> Result<u64, Failure> {
        let count = u32::try_from(objects.len()).unwrap_or(u32::MAX);
        let total = Mutex::new(0);
        self.each(count, |number| {
            let Some(wanted) = objects.get(number as usize) else { return Ok(()) };
            let object = self.get(number, wanted)?;
            let from = u64::from(number) * stride;
            let mut at = from;
            frame::unpack(&object, |raw| {
                if let Some((path, file)) = into {
                    file.write_all_at(raw, at).map_err(|error| unwritten(path, &error))?;
                }
                at += raw.len() as u64;
                Ok::<_, Bad>(())
            })
            .map_err(|bad| bad.0.context(format!("failed to download snapshot {}", self.snapshot)))?;
            if (number + 1 < count && at - from != stride) || at - from > stride {
                return Err(Failure::new(Kind::Data, "an object of the snapshot holds more or less than it should"));
            }
            *total.lock().unwrap_or_else(PoisonError::into_inner) += at - from;
            Ok(())
        })?;
        Ok(total.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// Does this for each number, several at once; the first failure ends it.
    fn each(&self, count: u32, work: impl Fn(u32) -> Result<(), Failure> + Sync) -> Result<(), Failure> {
        let next = AtomicU32::new(0);
        let failed: Mutex<Option<Failure>> = Mutex::new(None);
        let work_on = || {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let is_over = || failed.lock().unwrap_or_else(PoisonError::into_inner).is_some();
                if number >= count || is_over() {
                    return;
                }
                let done = if self.stop.load(Ordering::Relaxed) { Err(stopped()) } else { work(number) };
                if let Err(failure) = done {
                    failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure);
                    return;
                }
            }
        };
        let bill = Bill::open();
        std::thread::scope(|scope| {
            for _ in 1..self.parallel.min(count as usize) {
                scope.spawn(|| Bill::share(bill.clone(), work_on));
            }
            work_on();
        });
        failed.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }
}

/// What ends the unpacking of an object.
struct Bad(Failure);

impl From<Failure> for Bad {
    fn from(failure: Failure) -> Self {
        Self(failure)
    }
}

impl From<frame::Error> for Bad {
    fn from(error: frame::Error) -> Self {
        Self(
            Failure::new(Kind::Data, error.to_string()).hint(
                "an object in the store is not what was put there; use another snapshot: `antiphon snapshot list`",
            ),
        )
    }
}

/// Somebody wants to stop.
pub(super) fn stopped() -> Failure {
    Failure::new(Kind::Busy, "it was stopped").hint("it is gone on with after the next start")
}
