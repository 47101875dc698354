//! The task of a node that archives the log: one of the nodes does it, whichever has the lease.
//!
//! The lease spares work and decides nothing: two that archive write the same segments, or overlapping ones.

use super::archiver::Archiver;
use super::drained::failed;
use super::shelf::Shelf;
use crate::bill::Bill;
use crate::db::Db;
use crate::failure::Failure;
use crate::join::unreachable_log;
use crate::log::{Claimant, Hold, Log};
use crate::report::Board;
use crate::words::hex;
use antiphon_core::entry::Origin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

/// The lease's name in the log.
const LEASE: &str = "archive-leader";
/// The name of this task in the status.
const ARCHIVE: &str = "archive";
/// How often it is looked whether something came: so many times while an entry may wait,
const LOOKS: u32 = 4;
/// and at least this often, but no more often than that.
const LOOK_MAX: Duration = Duration::from_secs(2);
const LOOK_MIN: Duration = Duration::from_millis(10);
/// How often it is looked for a snapshot to begin behind, at most; and after a failure.
const PAUSE: Duration = Duration::from_secs(10);

/// What the tasks that make snapshots and archive the log have to tell each other.
#[derive(Debug, Default)]
pub(crate) struct Signals {
    /// A snapshot was made here: something may begin behind it.
    pub(super) made: AtomicBool,
    /// The log was cut before it was archived: a full snapshot is wanted, to go on from.
    pub(super) hole: AtomicBool,
}

/// The task.
pub(crate) struct Archivist {
    pub(crate) db: Db,
    pub(crate) log: Arc<dyn Log>,
    pub(crate) origin: Origin,
    pub(crate) shelf: Shelf,
    pub(crate) board: Board,
    pub(crate) signals: Arc<Signals>,
}

impl Archivist {
    /// Archives what comes, until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let ttl = self.shelf.habits().ttl;
        let mut claimant = Claimant::new(LEASE, self.origin, ttl);
        let begun = Instant::now();
        let (mut asked, mut tried): (Option<Instant>, Option<Instant>) = (None, None);
        let mut archiver: Option<Archiver> = None;
        let mut renewals = self.shelf.renewals();
        // The log or the store could not be used; that is over when both can be again, though there may be nothing to do.
        let mut is_hindered = false;
        loop {
            let pause = (self.shelf.habits().flush.age / LOOKS).clamp(LOOK_MIN, LOOK_MAX);
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = tokio::time::sleep(pause) => {}
            }
            if asked.is_none_or(|asked| asked.elapsed() >= PAUSE.min(ttl / 3)) {
                asked = Some(Instant::now());
                match claimant.hold(&*self.log, begun.elapsed()).await.map_err(unreachable_log) {
                    Ok(Hold::Held) => {}
                    Ok(Hold::HeldBy(_)) => {
                        self.board.well(ARCHIVE);
                        archiver = None;
                        continue;
                    }
                    // What is held is held on until its time is over.
                    Err(failure) => {
                        is_hindered = true;
                        self.board.failing(ARCHIVE, &failure.to_string());
                    }
                }
            }
            if !claimant.is_held(begun.elapsed()) {
                archiver = None;
                continue;
            }
            if self.shelf.renewals() != renewals {
                renewals = self.shelf.renewals();
                (archiver, tried) = (None, None);
            }
            let is_time = tried.is_none_or(|tried| tried.elapsed() >= PAUSE.min(ttl / 3));
            if archiver.as_ref().is_none_or(|archiver| !archiver.has_begun()) {
                if !self.signals.made.swap(false, Ordering::Relaxed) && !is_time {
                    continue;
                }
                tried = Some(Instant::now());
            }
            let done = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                done = claimant.during(
                    &*self.log,
                    || begun.elapsed(),
                    Bill::new(self.board.metrics(), "archive").pay(self.archive(&mut archiver)),
                ) => done,
            };
            match done {
                Ok(0) if !is_hindered => {}
                Ok(0) => {
                    is_hindered = false;
                    self.board.well(ARCHIVE);
                }
                Ok(segments) => {
                    is_hindered = false;
                    self.board.well(ARCHIVE);
                    debug!(segments, "log archived");
                }
                Err(failure) => {
                    is_hindered = true;
                    self.board.failing(ARCHIVE, &failure.to_string());
                    warn!(%failure, "cannot archive the log, will retry");
                    tried = Some(Instant::now());
                    archiver = None;
                }
            }
        }
        if claimant.is_held(begun.elapsed()) {
            // If the log can't be asked it ends by itself.
            let _ = claimant.release(&*self.log).await;
        }
    }

    /// Goes on; says how many segments there are more.
    async fn archive(&self, archiver: &mut Option<Archiver>) -> Result<usize, Failure> {
        let archiver = match archiver {
            Some(archiver) => archiver,
            None => {
                let cluster = self.db.call(|db| Ok(db.cluster())).await.map_err(|error| failed(&error))?;
                let cluster = cluster.map(hex).unwrap_or_default();
                let fresh = Archiver::new(Arc::clone(&self.log), self.shelf.clone(), cluster, self.origin.node);
                archiver.insert(fresh)
            }
        };
        if !archiver.has_begun() && !archiver.begin().await? {
            return Ok(0);
        }
        let segments = archiver.step(&self.shelf.habits().flush).await;
        // What is lost stays lost, as the survey of what there is says; archiving goes on behind it.
        if !archiver.take_holes().is_empty() {
            self.signals.hole.store(true, Ordering::Relaxed);
        }
        segments
    }
}
