//! A snapshot that is put together on trial: whether it would bring a database back is known before somebody needs it.

use super::drained::failed;
use super::keeper::Keeper;
use super::repo::Repo;
use super::saved::{Checked, Level, check};
use super::scratch::{Scratch, used};
use crate::apart::behind;
use crate::failure::{Failure, Kind};
use crate::words::hex;
use antiphon_core::snapshot::manifest::Manifest;
use std::path::Path;
use std::time::{Duration, Instant};
use tracing::{info, warn};

impl Keeper {
    /// Puts the newest snapshot of all rows together on trial, if none was for so long; says whether it was done. For one that
    /// is not what was put there another is asked for at once.
    pub(super) async fn try_one_out(&self, after: Duration) -> Result<bool, Failure> {
        let cluster = self.live.db.call(|db| Ok(db.cluster())).await.map_err(|error| failed(&error))?;
        let (shelf, cluster, node) = (self.shelf.clone(), cluster.map(hex).unwrap_or_default(), self.live.origin.node);
        let scratch = crate::node::Scratch::new(&self.state)?;
        let tried = behind(move || {
            // It goes when nobody reads it any more, also where nobody waits for that.
            let folder = scratch.folder().to_owned();
            let (opened, habits) = shelf.open()?;
            let repo = Repo::new(&opened.store, &cluster);
            let Some(manifest) = repo.untried(after)? else { return Ok(false) };
            let bytes = manifest.image.as_ref().map_or(0, |image| image.bytes);
            Scratch::of(bytes, &folder, habits.scratch_max).check(&folder)?;
            let begun = Instant::now();
            let tried = repo.try_out(&manifest, habits.parallel, &folder);
            crate::bill::scratch(used(&folder));
            match tried {
                Ok(checked) => info!(
                    id = %manifest.id,
                    rows = checked.rows,
                    bytes = checked.bytes,
                    took_ms = begun.elapsed().as_millis(),
                    "snapshot restored on trial"
                ),
                Err(failure) if matches!(failure.kind(), Kind::Data | Kind::Missing) => {
                    warn!(id = %manifest.id, %failure, "a snapshot is not what was put there; another is made");
                    repo.ask(node)?;
                }
                Err(failure) => return Err(failure),
            }
            Ok(true)
        });
        self.bill("verifying").pay(tried).await?
    }
}

impl Repo<'_> {
    /// The newest full snapshot, if none was put together for so long. Where none ever was, the oldest has waited since it
    /// was made.
    ///
    /// # Errors
    /// When the store can't be listed or read.
    fn untried(&self, after: Duration) -> Result<Option<Manifest>, Failure> {
        let all = self.all()?.snapshots;
        let last = all.iter().filter_map(|(_, marks)| marks.restored_ms).max();
        let standing = |marks: &super::Marks| marks.forgotten_ms.is_none() && !marks.is_damaged();
        let fulls = all.into_iter().filter(|(manifest, marks)| manifest.is_full() && standing(marks));
        let fulls: Vec<Manifest> = fulls.map(|(manifest, _)| manifest).collect();
        let Some(since_ms) = last.or(fulls.last().map(|oldest| oldest.created_ms)) else { return Ok(None) };
        let waited = Duration::from_millis(crate::clock::unix_ms().saturating_sub(since_ms));
        Ok(fulls.into_iter().next().filter(|_| waited >= after))
    }

    /// Puts a snapshot together in a folder, has SQLite read all of it, and notes how it was found.
    ///
    /// # Errors
    /// When it is not as it was made, or the store can't be asked, which says nothing of it.
    fn try_out(&self, manifest: &Manifest, parallel: usize, folder: &Path) -> Result<Checked, Failure> {
        let checked = check(*self, manifest, Level::Restore, parallel, folder);
        if checked.as_ref().is_err_and(|failure| !matches!(failure.kind(), Kind::Data | Kind::Missing)) {
            return checked;
        }
        self.note_found(manifest.id, Level::Restore, checked.as_ref().map(drop))?;
        checked
    }
}

#[cfg(test)]
mod tests {
    use super::super::expired::tests::{HOUR, snapshot};
    use super::super::segment::tests::Small;
    use super::*;

    #[test]
    fn one_is_tried_out_when_none_was_for_long() {
        let store = Small::default();
        let repo = Repo::new(&store, "c0ffee");
        let untried = |hours: u64| repo.untried(Duration::from_millis(hours * HOUR)).unwrap().map(|found| found.id);
        assert_eq!(untried(0), None, "there is none");
        let old = snapshot(&repo, 50, 1, None);
        let new = snapshot(&repo, 10, 2, None);
        snapshot(&repo, 1, 3, Some(new));
        assert_eq!((untried(51), untried(49)), (None, Some(new)), "the first has waited for so long");
        // A look at its bytes is none.
        repo.note_found(new, Level::Hash, Ok(())).unwrap();
        assert_eq!(untried(49), Some(new));
        // It does not matter which one it was.
        repo.note_found(old, Level::Restore, Ok(())).unwrap();
        assert_eq!((untried(1), untried(0)), (None, Some(new)));
        // Of one that is damaged, or is to go, it is known already what it is worth.
        let failure = Failure::new(Kind::Data, "no");
        repo.note_found(new, Level::Restore, Err(&failure)).unwrap();
        assert_eq!(untried(0), Some(old));
        repo.forget(old).unwrap();
        assert_eq!(untried(0), None);
    }
}
