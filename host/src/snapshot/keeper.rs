//! The task of a running node that makes snapshots.

use super::archivist::Signals;
use super::cut::{cut, forgettable};
use super::drained::{Live, failed};
use super::increment::{self, Increment};
use super::leader::Leader;
use super::marks::forget;
use super::pieces::stopped;
use super::repo::Repo;
use super::saved::{Writing, new_id, others, rows};
use super::survey::Surveyor;
use super::{Shelf, unwritten};
use crate::apart::apart;
use crate::errand::{self, Errand};
use crate::failure::{Failure, Kind};
use crate::metrics::table::Id;
use crate::report::Board;
use crate::words::{count, hex};
use antiphon_core::entry::{ClusterId, Origin};
use antiphon_core::snapshot::due::{Kind as What, Trigger};
use antiphon_core::snapshot::manifest::{FORMAT, Manifest, Position};
use antiphon_core::snapshot::truncate::Places;
use antiphon_core::store::Name;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
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
            let asked = [(Errand::Snapshot, What::Full), (Errand::Increment, What::Incremental)]
                .into_iter()
                .find_map(|(errand, kind)| errand::requested(&self.state, errand).map(|asked| (errand, kind, asked)));
            let (kind, trigger) = match &asked {
                Some((_, kind, _)) => (*kind, Trigger::Asked),
                None if self.live.publishes && self.is_behind_a_hole(&mut failed_at) => (What::Full, Trigger::Hole),
                None if !self.live.publishes || !leader.is_time() => continue,
                None => match leader.due(&self.live.db, &self.live.log, &self.shelf, &self.shelf.habits()).await {
                    Ok(Some(due)) => due,
                    Ok(None) => continue,
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
                made = self.make(kind, trigger, &stopping) => made,
            };
            match &made {
                Ok(made) => {
                    leader.made(&made.manifest);
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
                errand::answer(&self.state, errand, asked, made.map(|made| said(&made)));
            }
            if is_made && let Err(failure) = self.sort_out(leader.answered().clone()).await {
                warn!(%failure, "Unable to remove old snapshots");
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
            errand::answer(&self.state, errand, asked, found.map(said));
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
        self.board.aside(|asides| {
            let survey = asides.snapshots.get_or_insert_default();
            match found {
                Ok(found) => {
                    survey.listed_ms = crate::clock::unix_ms();
                    survey.error = None;
                    (survey.place, survey.count, survey.shots) = (found.place, found.count, found.shots);
                    (survey.verified_ms, survey.interval_ms) = (found.verified_ms, found.interval_ms);
                }
                Err(failure) => survey.error = Some(failure.to_string()),
            }
        });
        surveyor
    }

    /// Forgets what need not stay any more, and removes what was forgotten long enough ago.
    async fn sort_out(&self, answered: BTreeSet<Name>) -> Result<(), Failure> {
        let shelf = self.shelf.clone();
        let cluster = self.live.db.call(|db| Ok(db.cluster())).await.map_err(|error| failed(&error))?;
        let cluster = cluster.map(hex).unwrap_or_default();
        let (forgotten, pruned) = apart(move || {
            let (opened, habits) = shelf.open()?;
            let repo = Repo::new(&opened.store, &cluster);
            repo.answer(&answered)?;
            let forgotten = forget(&repo, &habits.keep, false)?;
            let pruned = repo.prune(habits.grace, false)?;
            Ok::<_, Failure>((forgotten, pruned))
        })
        .await??;
        if forgotten > 0 || pruned.objects > 0 {
            info!(forgotten, removed = pruned.snapshots.len(), objects = pruned.objects, "old snapshots sorted out");
        }
        Ok(())
    }

    /// Makes one.
    async fn make(&self, kind: What, trigger: Trigger, stop: &Arc<AtomicBool>) -> Result<Made, Failure> {
        if kind == What::Full {
            return self.make_full(trigger, stop).await;
        }
        match increment::make(&self.live(), self.live.origin, &self.shelf, trigger).await? {
            Increment::Made(manifest, place) => {
                let stored_bytes = manifest.to_bytes().len() as u64;
                Ok(Made { manifest: *manifest, stored_bytes, place })
            }
            Increment::NeedsFull => self.make_full(trigger, stop).await,
        }
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
        let created_ms = crate::clock::unix_ms();
        let id = new_id()?;
        // First of all, for without it all work would be in vain.
        let shelf = self.shelf.clone();
        let (opened, habits) = apart(move || shelf.open()).await??;
        let scratch = crate::node::Scratch::new(&self.state)?;
        let folder = scratch.folder().to_owned();
        has_room(&self.path, &folder)?;
        let copy = self.live().drain(&self.path, &folder.join("copy.db")).await?;
        let (origin, cluster) = (copy.origin(), copy.cluster().map(hex).unwrap_or_default());
        let positions = (1..=copy.shards()).map(|shard| (shard, position(&copy, shard))).collect();
        let tables: Vec<(String, u64)> = copy.schemas().into_iter().collect();
        let genesis = copy.kept_genesis().map_err(|error| failed(&error))?.unwrap_or_default();
        let (scope, genesis) = (copy.scope(), hex(genesis));
        let (stop, place) = (Arc::clone(stop), opened.place.clone());
        let written = apart(move || {
            let (image, state) = (folder.join("image.db"), folder.join("state.db"));
            copy.export(&image, &state).map_err(|error| failed(&error))?;
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
            let cluster = manifest.cluster.clone();
            let repo = Repo::new(&opened.store, &cluster);
            let writing = Writing { repo, packing: habits.packing, parallel: habits.parallel, stop: &stop };
            writing.write(manifest, &image, &state)
        });
        let (manifest, stored_bytes) = written.await??;
        drop(scratch);
        Ok(Made { manifest, stored_bytes, place })
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

fn position(copy: &crate::db::Database, shard: u32) -> Position {
    super::archive::position(copy.cluster().map_or(0, epoch), copy.position(shard))
}

/// Which log a cluster's places are in.
pub(super) fn epoch(cluster: ClusterId) -> u64 {
    let (first, _) = cluster.split_at(8);
    first.iter().fold(0, |epoch, byte| epoch << 8 | u64::from(*byte))
}

/// A copy and an image of it lie beside each other for a while.
fn has_room(database: &Path, folder: &Path) -> Result<(), Failure> {
    let size = |path: &Path| std::fs::metadata(path).map_or(0, |file| file.len());
    let mut wal = database.as_os_str().to_owned();
    wal.push("-wal");
    let needed = (size(database) + size(Path::new(&wal))).saturating_mul(22) / 10;
    let free = rustix::fs::statvfs(folder).map_or(u64::MAX, |disk| disk.f_bavail.saturating_mul(disk.f_frsize));
    if free >= needed {
        return Ok(());
    }
    Err(Failure::new(
        Kind::Busy,
        format!("a snapshot needs {needed} bytes of room in `{}`, and {free} are free", folder.display()),
    )
    .hint("make room on that disk; the application is not affected"))
}

/// The positions of a snapshot, as people read them.
#[must_use]
pub fn places(positions: &BTreeMap<u32, Position>) -> String {
    let places: Vec<String> = positions.iter().map(|(shard, at)| format!("{shard}:{}", at.seq)).collect();
    places.join(" ")
}
