//! The task of a running node that makes snapshots.

use super::Shelf;
use super::archivist::Signals;
use super::cut::{cut, forgettable};
use super::drained::{Live, failed};
use super::increment::{self, Increment};
use super::leader::Leader;
use super::pieces::stopped;
use super::slot::Slot;
use crate::bill::Bill;
use crate::errand::{self, Errand};
use crate::failure::{Failure, Kind};
use crate::join::unreachable_log;
use crate::metrics::table::Id;
use crate::report::Board;
use crate::words::{count, hex};
use antiphon_core::entry::{ClusterId, Origin};
use antiphon_core::snapshot::due::{Kind as What, Trigger};
use antiphon_core::snapshot::manifest::{Manifest, Position};
use antiphon_core::snapshot::truncate::Places;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// How often it is looked whether somebody asks for one.
const LOOK: Duration = Duration::from_millis(200);
/// The name of this task in the status.
const SNAPSHOTS: &str = "snapshots";

/// What was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// What it says of itself.
    pub manifest: Manifest,
    /// Bytes in the store.
    pub stored_bytes: u64,
    /// Where that is.
    pub place: String,
}

/// The task.
pub struct Keeper {
    pub(crate) live: LiveParts,
    pub(crate) shelf: Shelf,
    pub(crate) state: PathBuf,
    pub(crate) board: Board,
    /// The database.
    pub(crate) path: PathBuf,
    pub(crate) signals: Arc<Signals>,
    /// Somebody watches over what there is.
    pub(crate) watched: bool,
}

/// What of the running node a snapshot is made from.
pub(crate) struct LiveParts {
    pub(crate) db: crate::db::Db,
    pub(crate) log: Arc<dyn crate::log::Log>,
    pub(crate) moved: Arc<Notify>,
    pub(crate) origin: Origin,
    pub(crate) publishes: bool,
}

impl Keeper {
    /// Makes what is asked for or due, until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let changed = Notify::new();
        tokio::join!(self.watch(&stop, &changed), self.keep(&stop, &changed));
    }

    /// Makes what is asked for or due, until `stop`, and says when what there is has `changed`.
    async fn keep(&self, stop: &CancellationToken, changed: &Notify) {
        let stopping = Arc::new(AtomicBool::new(false));
        let mut leader = Leader::new(self.live.origin, &self.shelf.habits());
        // An earlier process may have been ended amid one. Whoever asks for one gets another.
        let mut may_be_left = self.live.publishes;
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = tokio::time::sleep(LOOK) => {}
            }
            let leads = leader.leads();
            self.board.aside(|asides| {
                let survey = asides.snapshots.get_or_insert_default();
                (survey.running, survey.leader) = (true, leads);
            });
            if let Err(failure) = self.cut(&mut leader).await {
                warn!(%failure, "Unable to cut the log");
            }
            self.look_at_the_log().await;
            if let Some(after) = self.shelf.habits().verify_after.filter(|after| leader.drills(*after)) {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => break,
                    tried = leader.during(&self.live.log, self.try_one_out(after)) => match tried {
                        Ok(true) => changed.notify_one(),
                        Ok(false) => {}
                        Err(failure) => warn!(%failure, "Unable to try a snapshot out"),
                    },
                }
            }
            if leader.tidies() && self.tidy(&mut leader, stop, &stopping).await {
                changed.notify_one();
            }
            let asked = [(Errand::Snapshot, What::Full), (Errand::Increment, What::Incremental)]
                .into_iter()
                .find_map(|(errand, kind)| errand::requested(&self.state, errand).map(|asked| (errand, kind, asked)));
            // Whoever asks doesn't wait for other databases, nor does one that has a hole behind it.
            let mut slot = None;
            let job = if asked.is_none() && std::mem::take(&mut may_be_left) { self.left().await } else { None };
            let (kind, trigger) = match &asked {
                _ if job.is_some() => (What::Full, Trigger::Left),
                Some((_, kind, _)) => (*kind, Trigger::Asked),
                None if self.live.publishes && leader.may_try() && self.takes_a_hole() => (What::Full, Trigger::Hole),
                None if !self.live.publishes || !leader.is_time() => continue,
                None => match self.due(&mut leader).await {
                    Ok(Some((kind, trigger, taken))) => {
                        slot = Some(taken);
                        (kind, trigger)
                    }
                    Ok(None) => {
                        // What kept one from being made, or from being looked for, is over: it would still be due.
                        self.board.well(SNAPSHOTS);
                        continue;
                    }
                    Err(failure) => {
                        self.board.failing(SNAPSHOTS, &failure.to_string());
                        continue;
                    }
                },
            };
            let made = tokio::select! {
                biased;
                () = stop.cancelled() => {
                    // Whatever is under way in threads of its own ends with the object in hand.
                    stopping.store(true, Ordering::Relaxed);
                    Err(stopped())
                }
                made = leader.during(&self.live.log, async {
                    match job {
                        Some(job) => self.bill(What::Full.name()).pay(self.go_on(job, &stopping)).await,
                        None => self.make(kind, trigger, &stopping).await,
                    }
                }) => made,
            };
            drop(slot);
            match &made {
                Ok(made) => {
                    leader.made(&made.manifest, self.read_bytes());
                    self.signals.made.store(true, Ordering::Relaxed);
                    changed.notify_one();
                    self.board.metrics().count(Id::SnapshotsSaved, 1);
                    self.board.well(SNAPSHOTS);
                    info!(
                        id = %made.manifest.id,
                        kind = made.manifest.kind.name(),
                        because = %trigger,
                        bytes = made.manifest.image.as_ref().map_or(0, |image| image.bytes),
                        stored_bytes = made.stored_bytes,
                        took_ms = made.manifest.took_ms,
                        "Snapshot saved"
                    );
                }
                Err(failure) => {
                    self.board.metrics().count(Id::SnapshotsFailed, 1);
                    warn!(%failure, "Unable to save snapshot");
                    // Where none is made unless somebody asks, he is told, and nothing would ever say that it is over.
                    if self.live.publishes {
                        self.board.failing(SNAPSHOTS, &failure.to_string());
                    }
                    if asked.is_none() {
                        leader.failed();
                    }
                    if trigger == Trigger::Hole {
                        self.signals.hole.store(true, Ordering::Relaxed);
                    }
                }
            }
            let is_made = made.is_ok();
            if let Some((errand, _, asked)) = asked {
                errand::answer(&self.state, errand, &asked, made.map(|made| said(&made)));
            }
            if is_made && self.tidy(&mut leader, stop, &stopping).await {
                changed.notify_one();
            }
        }
        self.board.aside(|asides| {
            if let Some(survey) = &mut asides.snapshots {
                (survey.running, survey.leader) = (false, false);
            }
        });
        leader.leave(&self.live.log).await;
    }

    /// Sorts out what there is; says whether that was done to its end.
    async fn tidy(&self, leader: &mut Leader, stop: &CancellationToken, stopping: &Arc<AtomicBool>) -> bool {
        let sorting = self.bill("tidying").pay(self.sort_out(leader.answered().clone(), stopping));
        let sorted = tokio::select! {
            biased;
            () = stop.cancelled() => {
                stopping.store(true, Ordering::Relaxed);
                return false;
            }
            sorted = leader.during(&self.live.log, sorting) => sorted,
        };
        if let Err(failure) = &sorted {
            warn!(%failure, "Unable to remove old snapshots");
        }
        sorted.is_ok()
    }

    /// Somebody asks how much of the log is superfluous, or wants it gone.
    async fn look_at_the_log(&self) {
        for errand in [Errand::LookAtLog, Errand::CutLog] {
            let Some(asked) = errand::requested(&self.state, errand) else { continue };
            let found = self.superfluous(errand == Errand::CutLog).await;
            let said = |places: Places| places.iter().map(|(shard, last)| format!("{shard} {last}")).collect();
            errand::answer(&self.state, errand, &asked, found.map(said));
        }
    }

    async fn superfluous(&self, goes: bool) -> Result<Places, Failure> {
        let (log, shelf) = (&*self.live.log, &self.shelf);
        let cluster = self.live.db.call(|db| Ok(db.cluster())).await.map_err(|error| failed(&error))?;
        let cluster = cluster.map(hex).unwrap_or_default();
        if goes { cut(log, shelf, &cluster).await } else { forgettable(log, shelf, &cluster).await }
    }

    /// Lets go of the log's beginning, if that is this node's task and nobody needs it any more.
    async fn cut(&self, leader: &mut Leader) -> Result<(), Failure> {
        if !leader.cuts(&self.live.log).await? {
            return Ok(());
        }
        for (shard, up_to) in self.superfluous(true).await? {
            info!(shard, up_to, "the log was cut: snapshots hold what went");
        }
        Ok(())
    }

    /// What is to be made now without being asked, and a place to do it.
    async fn due(&self, leader: &mut Leader) -> Result<Option<(What, Trigger, Slot)>, Failure> {
        let habits = self.shelf.habits();
        let due = leader.due(&self.live.db, &self.live.log, &self.shelf, &habits, self.read_bytes()).await?;
        let Some((kind, trigger)) = due else { return Ok(None) };
        // Somebody can't go on without it.
        if trigger != Trigger::Asked
            && let Some(most) = habits.lag_max
        {
            self.keeps_up(most).await?;
        }
        let slot = Slot::take(habits.jobs_max).ok_or_else(|| {
            Failure::new(
                Kind::Busy,
                format!(
                    "{kind} snapshot put off: those of other databases are made on this machine",
                    kind = kind.name()
                ),
            )
            .hint("`max_concurrent` under `[snapshot]` says of how many at once")
        })?;
        Ok(Some((kind, trigger, slot)))
    }

    /// Whether this node has applied all but a little of the log: a snapshot would be old when it is made.
    async fn keeps_up(&self, most: u64) -> Result<(), Failure> {
        let positions = self.live.db.call(|db| Ok(db.positions())).await.map_err(|error| failed(&error))?;
        let mut lacks = 0;
        for (shard, seq) in positions {
            let end = self.live.log.bounds(shard).await.map_err(unreachable_log)?.last;
            lacks += end.saturating_sub(seq);
        }
        if lacks < most {
            return Ok(());
        }
        let lacks = count(lacks, "entry", "entries");
        Err(Failure::new(Kind::Busy, format!("snapshot put off: {lacks} of the log are still to be applied here"))
            .hint("`lag_max` under `[snapshot]` says how many may be"))
    }

    /// Bytes of the log that were applied here since the start.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a counter is whole and not negative")]
    fn read_bytes(&self) -> u64 {
        self.board.metrics().value(Id::AppliedBytes) as u64
    }

    /// Makes one.
    async fn make(&self, kind: What, trigger: Trigger, stop: &Arc<AtomicBool>) -> Result<Made, Failure> {
        if kind == What::Incremental {
            let (live, origin) = (self.live(), self.live.origin);
            let increment = increment::make(&live, origin, &self.shelf, trigger);
            if let Increment::Made(manifest, place) = self.bill(kind.name()).pay(increment).await? {
                let stored_bytes = manifest.to_bytes().len() as u64;
                return Ok(Made { manifest: *manifest, stored_bytes, place });
            }
        }
        self.bill(What::Full.name()).pay(self.make_full(trigger, stop)).await
    }

    pub(super) fn bill(&self, job: &'static str) -> Bill {
        Bill::new(self.board.metrics(), job)
    }

    pub(super) fn live(&self) -> Live {
        Live { db: self.live.db.clone(), log: Arc::clone(&self.live.log), moved: Arc::clone(&self.live.moved) }
    }

    /// Whether a full snapshot is wanted, for the log was cut before it was archived. It is on its way then.
    fn takes_a_hole(&self) -> bool {
        self.signals.hole.swap(false, Ordering::Relaxed)
    }
}

/// In words, for whoever asked.
fn said(made: &Made) -> Vec<String> {
    let manifest = &made.manifest;
    if let Some(parent) = manifest.parent {
        let stands = places(&manifest.positions);
        return vec![manifest.id.to_string(), format!("goes on from {parent} to {stands}, at {}", made.place)];
    }
    let rows: u64 = manifest.tables.iter().map(|table| table.rows).sum();
    vec![
        manifest.id.to_string(),
        format!(
            "{} in {}, {} bytes at {}",
            count(rows, "row", "rows"),
            count(manifest.tables.len() as u64, "table", "tables"),
            made.stored_bytes,
            made.place
        ),
    ]
}

/// Which log a cluster's places are in.
pub(super) fn epoch(cluster: ClusterId) -> u64 {
    let (first, _) = cluster.split_at(8);
    first.iter().fold(0, |epoch, byte| epoch << 8 | u64::from(*byte))
}

/// The positions of a snapshot, as people read them.
#[must_use]
pub fn places(positions: &BTreeMap<u32, Position>) -> String {
    let places: Vec<String> = positions.iter().map(|(shard, at)| format!("{shard}:{}", at.seq)).collect();
    places.join(" ")
}
