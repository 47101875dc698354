//! Snapshots that have reached an age, and the cheaper class of storage that they lie in from then on.
//!
//! Nothing gets another name: each object is read, compared, and put again in its place with the other class, which is one
//! step in the stores that have classes. So whoever reads finds it where it was, at any moment, and who is cut off leaves
//! some objects in one class and the rest in the other. That all have changed is noted as an object of its own; without
//! it, whoever comes next begins anew.

use super::repo::Repo;
use super::saved::put_again;
use super::stored;
use crate::failure::{Failure, Kind};
use antiphon_core::snapshot::id::SnapshotId;
use antiphon_core::snapshot::layout::Object;
use antiphon_core::store::Store;
use std::sync::atomic::AtomicBool;

impl Repo<'_> {
    /// The oldest full snapshot that is to change its class: made so long ago, not to go, and not the newest, which nodes
    /// begin with.
    ///
    /// # Errors
    /// When the store can't be listed or read.
    pub(super) fn old_enough(&self, after_ms: u64) -> Result<Option<SnapshotId>, Failure> {
        let now = crate::clock::unix_ms();
        let all = self.all()?.snapshots;
        let fulls = all.iter().filter(|(manifest, marks)| manifest.is_full() && marks.forgotten_ms.is_none());
        let is_old = |created_ms: u64| now.saturating_sub(created_ms) >= after_ms;
        let old = fulls.skip(1).filter(|(full, marks)| is_old(full.created_ms) && marks.aged_ms.is_none());
        Ok(old.last().map(|(full, _)| full.id))
    }

    /// Puts what a snapshot consists of again by way of `cold`, which is the same store with another class; gives the bytes
    /// of it. The manifest stays as it is: it is small, and asked for often.
    ///
    /// # Errors
    /// When something of it is not as it was made, and nothing of that is put; or when the store refuses.
    pub(super) fn age(&self, id: SnapshotId, cold: &dyn Store, stop: &AtomicBool) -> Result<u64, Failure> {
        const CHANGING: &str = "cannot give a snapshot another class of storage";
        let traits = cold.traits().map_err(|error| stored(CHANGING, &error))?;
        if !traits.atomic_put {
            return Err(Failure::new(Kind::General, CHANGING)
                .hint("this storage does not replace an object in one step; leave `archive_after` at 0"));
        }
        let manifest = self.manifest(id)?;
        let bytes = put_again(*self, &manifest, cold, stop).map_err(|failure| failure.context(CHANGING))?;
        self.say(&Object::Aged(id, crate::clock::unix_ms()), b"{}")?;
        Ok(bytes)
    }
}
