//! What need not stay in a store goes, and what lies there in pieces is put together.

use super::drained::failed;
use super::keeper::Keeper;
use super::marks::forget;
use super::repo::Repo;
use crate::apart::apart;
use crate::failure::Failure;
use crate::join::unreachable_log;
use crate::log::clock_of;
use crate::words::hex;
use antiphon_core::store::Name;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tracing::{info, warn};

impl Keeper {
    /// Forgets what need not stay any more, merges segments of the archive, and removes what is superfluous for long enough.
    pub(super) async fn sort_out(&self, answered: BTreeSet<Name>, stop: &Arc<AtomicBool>) -> Result<(), Failure> {
        let members = self.live.log.members().await.map_err(unreachable_log)?;
        // By a clock that is ahead everything is old.
        let (here_ms, log_ms) = (crate::clock::unix_ms(), clock_of(&members) / 1_000_000);
        if log_ms > 0 && crate::clock::is_to_come(here_ms, log_ms) {
            warn!("this machine's clock is ahead of the log's: nothing is removed by it; set the clock");
            return Ok(());
        }
        let shelf = self.shelf.clone();
        let cluster = self.live.db.call(|db| Ok(db.cluster())).await.map_err(|error| failed(&error))?;
        let cluster = cluster.map(hex).unwrap_or_default();
        let stop = Arc::clone(stop);
        let (forgotten, merged, pruned) = apart(move || {
            let (opened, habits) = shelf.open()?;
            let repo = Repo::new(&opened.store, &cluster);
            repo.answer(&answered)?;
            let forgotten = forget(&repo, &habits.keep, false)?;
            let merged = repo.merge(&habits.spans, &habits.packing, &stop)?;
            let pruned = repo.prune(habits.grace, false)?;
            // One at a time, for the next snapshot waits for it.
            if let Some(after_ms) = habits.archive_after_ms
                && let Some(id) = repo.old_enough(after_ms)?
            {
                let bytes = repo.age(id, &shelf.open_cold()?.store, &stop)?;
                info!(%id, bytes, "an old snapshot has another class of storage now");
            }
            Ok::<_, Failure>((forgotten, merged, pruned))
        })
        .await??;
        for why in &merged.failed {
            warn!(why, "segments of the archive could not be merged");
        }
        if merged.segments > 0 {
            info!(segments = merged.segments, parts = merged.parts, "segments of the archive merged");
        }
        if forgotten > 0 || pruned.objects > 0 {
            info!(forgotten, removed = pruned.snapshots.len(), objects = pruned.objects, "old snapshots sorted out");
        }
        Ok(())
    }
}
