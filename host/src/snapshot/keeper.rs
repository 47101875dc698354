//! The task of a running node that makes snapshots.

use super::archivist::Signals;
use super::cut::{cut, forgettable};
use super::drained::{Live, failed};
use super::habits::Habits;
use super::increment::{self, Increment};
use super::job::Job;
use super::leader::Leader;
use super::marks::forget;
use super::pieces::stopped;
use super::repo::Repo;
use super::saved::{Writing, new_id, others, rows};
use super::scratch::{Scratch, used};
use super::slot::Slot;
use super::survey::{Survey, Surveyor};
use super::{Shelf, unwritten};
use crate::apart::{apart, behind};
use crate::bill::{self, Bill};
use crate::errand::{self, Errand};
use crate::failure::{Failure, Kind};
use crate::join::unreachable_log;
use crate::metrics::table::Id;
use crate::report::Board;
use crate::storage::Opened;
use crate::words::{count, hex};
use antiphon_core::entry::{ClusterId, Origin};
use antiphon_core::snapshot::due::{Kind as What, Trigger};
use antiphon_core::snapshot::manifest::{FORMAT, Manifest, Position};
use antiphon_core::snapshot::truncate::Places;
use antiphon_core::store::Name;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// How often it is looked whether somebody asks for one.
const LOOK: Duration = Duration::from_millis(200);
/// How often it is looked which there are, if somebody watches over them.
const SURVEY: Duration = Duration::from_secs(60);
/// Between two tries to make one that is wanted at once.
const AGAIN: Duration = Duration::from_secs(10);
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
    pub(crate) moved: Arc<tokio::sync::Notify>,
    pub(crate) origin: Origin,
    pub(crate) publishes: bool,
}

impl Keeper {
    /// Makes what is asked for or due, until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let stopping = Arc::new(AtomicBool::new(false));
        let mut leader = Leader::new(self.live.origin, &self.shelf.habits());
        let mut surveyor = Surveyor::default();
        let mut surveyed: Option<Instant> = None;
        // An earlier process may have been ended amid one. Whoever asks for one gets another.
        let mut may_be_left = self.live.publishes;
        // When the snapshot behind a hole could not be made.
        let mut failed_at: Option<Instant> = None;
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
            if self.watched && surveyed.is_none_or(|at| at.elapsed() >= SURVEY) {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => break,
                    looked = self.survey(surveyor) => surveyor = looked,
                }
                surveyed = Some(Instant::now());
            }
            if let Err(failure) = self.cut(&mut leader).await {
                warn!(%failure, "Unable to cut the log");
            }
            self.look_at_the_log().await;
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                tried = self.try_one_out(&mut leader) => match tried {
                    Ok(true) => surveyed = None,
                    Ok(false) => {}
                    Err(failure) => warn!(%failure, "Unable to try a snapshot out"),
                },
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
                None if self.live.publishes && self.is_behind_a_hole(&mut failed_at) => (What::Full, Trigger::Hole),
                None if !self.live.publishes || !leader.is_time() => continue,
                None => match self.due(&mut leader).await {
                    Ok(Some((kind, trigger, taken))) => {
                        slot = Some(taken);
                        (kind, trigger)
                    }
                    Ok(None) => {
                        // What kept one from being made, or from being looked for, is over: it would still be due.
                        if failed_at.is_none() {
                            self.board.well(SNAPSHOTS);
                        }
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
                made = async {
                    match job {
                        Some(job) => self.bill(What::Full.name()).pay(self.go_on(job, &stopping)).await,
                        None => self.make(kind, trigger, &stopping).await,
                    }
                } => made,
            };
            drop(slot);
            match &made {
                Ok(made) => {
                    leader.made(&made.manifest, self.read_bytes());
                    self.signals.made.store(true, Ordering::Relaxed);
                    surveyed = None;
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
                    self.board.failing(SNAPSHOTS, &failure.to_string());
                    self.board.metrics().count(Id::SnapshotsFailed, 1);
                    warn!(%failure, "Unable to save snapshot");
                    if trigger == Trigger::Hole {
                        failed_at = Some(Instant::now());
                    }
                }
            }
            let is_made = made.is_ok();
            if let Some((errand, _, asked)) = asked {
                errand::answer(&self.state, errand, &asked, made.map(|made| said(&made)));
            }
            if is_made {
                let answered = leader.answered().clone();
                tokio::select! {
                    biased;
                    () = stop.cancelled() => stopping.store(true, Ordering::Relaxed),
                    sorted = self.bill("tidying").pay(self.sort_out(answered, &stopping)) => if let Err(failure) = sorted {
                        warn!(%failure, "Unable to remove old snapshots");
                    }
                }
            }
        }
        self.board.aside(|asides| {
            if let Some(survey) = &mut asides.snapshots {
                (survey.running, survey.leader) = (false, false);
            }
        });
        leader.leave(&self.live.log).await;
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

    /// Looks which snapshots there are, and notes it.
    async fn survey(&self, mut surveyor: Surveyor) -> Surveyor {
        let Ok(Some(cluster)) = self.live.db.call(|db| Ok(db.cluster())).await else { return surveyor };
        let (shelf, cluster) = (self.shelf.clone(), hex(cluster));
        let looked = apart(move || {
            let found = surveyor.look(&shelf, &cluster);
            (surveyor, found)
        });
        let (surveyor, found) = match looked.await {
            Ok((surveyor, found)) => (surveyor, found),
            Err(failure) => (Surveyor::default(), Err(failure)),
        };
        if found.is_err() {
            self.board.metrics().count(Id::StorageErrors, 1);
        }
        let room = || Scratch::of_database(&self.path, &self.state, self.shelf.habits().scratch_max);
        let scratch = self.live.publishes.then(room);
        self.board.aside(|asides| {
            let survey = asides.snapshots.get_or_insert_default();
            match found {
                Ok(found) => {
                    let (running, leader) = (survey.running, survey.leader);
                    *survey = Survey { running, leader, listed_ms: crate::clock::unix_ms(), ..found };
                }
                Err(failure) => survey.error = Some(failure.to_string()),
            }
            survey.scratch = scratch;
        });
        surveyor
    }

    /// Forgets what need not stay any more, merges segments of the archive, and removes what is superfluous for long enough.
    async fn sort_out(&self, answered: BTreeSet<Name>, stop: &Arc<AtomicBool>) -> Result<(), Failure> {
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

    fn live(&self) -> Live {
        Live { db: self.live.db.clone(), log: Arc::clone(&self.live.log), moved: Arc::clone(&self.live.moved) }
    }

    /// Whether a full snapshot is wanted, for the log was cut before it was archived; after a failure again and again.
    fn is_behind_a_hole(&self, failed_at: &mut Option<Instant>) -> bool {
        if failed_at.is_some_and(|at| at.elapsed() >= AGAIN) {
            *failed_at = None;
            return true;
        }
        self.signals.hole.swap(false, Ordering::Relaxed)
    }

    /// Makes one of all rows.
    async fn make_full(&self, trigger: Trigger, stop: &Arc<AtomicBool>) -> Result<Made, Failure> {
        // First of all, for without it all work would be in vain.
        let shelf = self.shelf.clone();
        let (opened, habits) = apart(move || shelf.open()).await??;
        self.live().wait_for_most().await?;
        let created_ms = crate::clock::unix_ms();
        let id = new_id()?;
        let scratch = crate::node::Scratch::new(&self.state)?;
        let folder = scratch.folder().to_owned();
        Scratch::of_database(&self.path, &folder, habits.scratch_max).check(&folder)?;
        let copy = self.live().drain(&self.path, &folder.join("copy.db")).await?;
        let (origin, cluster) = (copy.origin(), copy.cluster().map(hex).unwrap_or_default());
        let positions = (1..=copy.shards()).map(|shard| (shard, position(&copy, shard))).collect();
        let tables: Vec<(String, u64)> = copy.schemas().into_iter().collect();
        let genesis = copy.kept_genesis().map_err(|error| failed(&error))?.unwrap_or_default();
        let (scope, genesis) = (copy.scope(), hex(genesis));
        let (stop, own) = (Arc::clone(stop), self.state.clone());
        let written = behind(move || {
            let (image, state) = (folder.join("image.db"), folder.join("state.db"));
            copy.export(&image, &state).map_err(|error| failed(&error))?;
            // More than this lies there at no time.
            bill::scratch(used(&folder));
            // Room for what follows, and for nobody else to look at.
            std::fs::remove_file(folder.join("copy.db")).map_err(|error| unwritten(&folder, &error))?;
            let unread = |error: rusqlite::Error| Failure::caused(Kind::General, "cannot count rows", &error);
            let manifest = Manifest {
                format: FORMAT,
                id,
                cluster,
                kind: What::Full,
                parent: None,
                created_ms,
                node: origin.node,
                version: env!("CARGO_PKG_VERSION").to_owned(),
                term: 0,
                trigger: trigger.name().to_owned(),
                took_ms: 0,
                positions,
                tables: rows(&image, &tables).map_err(unread)?,
                left_out: others(&image, &tables).map_err(unread)?,
                scope,
                genesis,
                image: None,
                index: None,
            };
            let job = Job::keep(&own, manifest, &image, &state)?;
            store(&job, &opened, &habits, &stop)
        });
        let made = written.await??;
        drop(scratch);
        Ok(made)
    }

    /// Goes on with one that an earlier process left.
    async fn go_on(&self, job: Job, stop: &Arc<AtomicBool>) -> Result<Made, Failure> {
        info!(id = %job.manifest.id, "going on with a snapshot that was begun before the start");
        let (shelf, stop) = (self.shelf.clone(), Arc::clone(stop));
        behind(move || {
            let (opened, habits) = shelf.open()?;
            store(&job, &opened, &habits, &stop)
        })
        .await?
    }

    /// One that an earlier process left, of the cluster that this node is in.
    async fn left(&self) -> Option<Job> {
        let own = self.state.clone();
        let job = apart(move || Job::left(&own)).await.ok().flatten()?;
        let cluster = self.live.db.call(|db| Ok(db.cluster())).await.ok().flatten().map(hex);
        if cluster.as_ref() == Some(&job.manifest.cluster) {
            return Some(job);
        }
        job.end();
        None
    }
}

/// Stores what is ready, but for what is stored.
fn store(job: &Job, to: &Opened, habits: &Habits, stop: &AtomicBool) -> Result<Made, Failure> {
    let repo = Repo::new(&to.store, &job.manifest.cluster);
    let place = to.place.clone();
    // It may have died behind the manifest.
    if job.is_left
        && let Ok(manifest) = repo.manifest(job.manifest.id)
    {
        job.end();
        let stored_bytes = repo.stored_bytes(manifest.id)?;
        return Ok(Made { manifest, stored_bytes, place });
    }
    let writing = Writing { repo, packing: habits.packing, parallel: habits.parallel, stop, goes_on: job.is_left };
    let written = writing.write(job.manifest.clone(), &job.image(), &job.state());
    // Only who was stopped goes on with it; after an error it is made anew, of rows as they are then.
    if written.is_ok() || !stop.load(Ordering::Relaxed) {
        job.end();
    }
    written.map(|(manifest, stored_bytes)| Made { manifest, stored_bytes, place })
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

fn position(copy: &crate::db::Database, shard: u32) -> Position {
    super::archive::position(copy.cluster().map_or(0, epoch), copy.position(shard))
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
