//! The task of a running node that makes snapshots.

use super::drained::{Live, failed};
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
use antiphon_core::entry::Origin;
use antiphon_core::snapshot::due::{Kind as What, Trigger};
use antiphon_core::snapshot::manifest::{FORMAT, Manifest, Position};
use std::collections::BTreeMap;
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
            let asked = errand::requested(&self.state, Errand::Snapshot);
            let trigger = match &asked {
                Some(_) => Trigger::Asked,
                None if !self.live.publishes || !leader.is_time() => continue,
                None => match leader.due(&self.live.db, &self.live.log, &self.shelf, &self.shelf.habits()).await {
                    Ok(Some(trigger)) => trigger,
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
                made = self.make(trigger, &stopping) => made,
            };
            match &made {
                Ok(made) => {
                    leader.made(&made.manifest);
                    surveyed = None;
                    self.board.metrics().count(Id::SnapshotsSaved, 1);
                    self.board.well(SNAPSHOTS);
                    info!(
                        id = %made.manifest.id,
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
                }
            }
            let is_made = made.is_ok();
            if let Some(asked) = asked {
                errand::answer(&self.state, Errand::Snapshot, asked, made.map(|made| said(&made)));
            }
            if is_made && let Err(failure) = self.sort_out().await {
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
    async fn sort_out(&self) -> Result<(), Failure> {
        let shelf = self.shelf.clone();
        let cluster = self.live.db.call(|db| Ok(db.cluster())).await.map_err(|error| failed(&error))?;
        let cluster = cluster.map(hex).unwrap_or_default();
        let (forgotten, pruned) = apart(move || {
            let (opened, habits) = shelf.open()?;
            let repo = Repo::new(&opened.store, &cluster);
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
    async fn make(&self, trigger: Trigger, stop: &Arc<AtomicBool>) -> Result<Made, Failure> {
        let created_ms = crate::clock::unix_ms();
        let id = new_id()?;
        // First of all, for without it all work would be in vain.
        let shelf = self.shelf.clone();
        let (opened, habits) = apart(move || shelf.open()).await??;
        let scratch = crate::node::Scratch::new(&self.state)?;
        let folder = scratch.folder().to_owned();
        has_room(&self.path, &folder)?;
        let live =
            Live { db: self.live.db.clone(), log: Arc::clone(&self.live.log), moved: Arc::clone(&self.live.moved) };
        let copy = live.drain(&self.path, &folder.join("copy.db")).await?;
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
    let at = copy.position(shard);
    let epoch = copy.cluster().map_or(0, |cluster| {
        let (first, _) = cluster.split_at(8);
        first.iter().fold(0, |epoch, byte| epoch << 8 | u64::from(*byte))
    });
    Position { epoch, seq: at.seq, time: at.time, checksum: at.checksum }
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
