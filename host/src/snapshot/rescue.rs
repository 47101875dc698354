//! A snapshot for a node that can't go on from the log alone: it is new, or has fallen behind what the log still holds,
//! or the log lost what it had applied.

use super::repo::Repo;
use super::saved::assemble;
use super::shelf::Shelf;
use crate::apart::apart;
use crate::db::{self, Database};
use crate::failure::{Failure, Kind};
use crate::join::{self, database, unreachable_log};
use crate::log::{Log, Placement, Shard};
use crate::node::Scratch;
use crate::words::hex;
use antiphon_core::entry::{ClusterId, Genesis};
use antiphon_core::snapshot::id::SnapshotId;
use antiphon_core::snapshot::manifest::{Manifest, Position};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long those who run may take to make one.
const PATIENCE: Duration = Duration::from_secs(900);
/// How often it is looked for.
const PAUSE: Duration = Duration::from_secs(1);
/// Objects that are fetched at once.
const PARALLEL: usize = 4;

/// Where snapshots are looked for, and put together.
pub struct Rescue {
    shelf: Option<Shelf>,
    state: PathBuf,
    /// Those that turned out to be of no use.
    passed_over: BTreeSet<SnapshotId>,
    /// Those who run were asked for one.
    has_asked: bool,
}

/// A snapshot that was put together; its file goes with it.
pub(crate) struct Fetched {
    manifest: Manifest,
    path: PathBuf,
    scratch: Scratch,
}

/// The same, opened.
pub struct Image {
    /// What it says of itself.
    pub manifest: Manifest,
    /// The cluster's rows, and where they stand.
    pub db: Database,
    _scratch: Scratch,
}

impl std::fmt::Debug for Rescue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rescue").field("passed_over", &self.passed_over).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Image").field("id", &self.manifest.id).finish_non_exhaustive()
    }
}

impl Rescue {
    /// One that looks on this shelf; with none it finds nothing.
    #[must_use]
    pub fn new(shelf: Option<Shelf>, state: &Path) -> Self {
        Self { shelf, state: state.to_owned(), passed_over: BTreeSet::new(), has_asked: false }
    }

    /// Whether there is a shelf at all.
    pub(crate) fn has_shelf(&self) -> bool {
        self.shelf.is_some()
    }

    /// The manifest of the newest snapshot that is whole and that the log goes on from, of tables that this node takes.
    ///
    /// # Errors
    /// When the store or the log can't be asked.
    pub async fn find(&self, log: &dyn Log, cluster: ClusterId, scope: &str) -> Result<Option<Manifest>, Failure> {
        self.find_before(log, cluster, scope, &[]).await
    }

    /// The same, of those that stand nowhere behind these places.
    async fn find_before(
        &self,
        log: &dyn Log,
        cluster: ClusterId,
        scope: &str,
        places: &[(Shard, u64)],
    ) -> Result<Option<Manifest>, Failure> {
        for manifest in self.manifests(cluster).await? {
            let at = |shard: &Shard| manifest.positions.get(shard).map_or(0, |at| at.seq);
            let fits = (manifest.scope.is_empty() || manifest.scope == scope)
                && !self.passed_over.contains(&manifest.id)
                && places.iter().all(|(shard, place)| at(shard) <= *place);
            if fits && continues(log, &manifest).await? {
                return Ok(Some(manifest));
            }
        }
        Ok(None)
    }

    /// How a log began that was cut since, as bytes and as what they say: snapshots know.
    ///
    /// # Errors
    /// When no snapshot leads up to what is left of it, or the store or the log can't be asked.
    pub(crate) async fn genesis(
        &mut self,
        log: &dyn Log,
        cluster: ClusterId,
        scope: &str,
        node: u64,
        first: u64,
    ) -> Result<(Vec<u8>, Genesis), Failure> {
        while let Some(manifest) = self.find_or_ask(log, cluster, scope, node).await? {
            if let Some(found) = genesis_of(&manifest, cluster) {
                return Ok(found);
            }
            tracing::warn!(id = %manifest.id, "a snapshot is passed over, for it does not say how its log began");
            self.pass_over(manifest.id);
        }
        Err(nothing_leads_to(first))
    }

    /// Fetches the newest snapshot for L to be built upon, aside, where the log alone does not say it any more: one that
    /// stands nowhere behind these places. Nothing if there is none.
    ///
    /// # Errors
    /// When the store or the log can't be asked, or there is no room.
    pub(crate) async fn fetch_before(
        &mut self,
        log: &dyn Log,
        cluster: ClusterId,
        scope: &str,
        places: &[(Shard, u64)],
    ) -> Result<Option<Fetched>, Failure> {
        while let Some(manifest) = self.find_before(log, cluster, scope, places).await? {
            if let Some(fetched) = self.put_together(manifest).await? {
                return Ok(Some(fetched));
            }
        }
        Ok(None)
    }

    /// Has L, built in an empty database aside, begin with such a snapshot. Says whether there was one.
    ///
    /// # Errors
    /// When the store or the log can't be asked, or the snapshot has rows that there is no place for.
    pub(crate) async fn begin_before(
        &mut self,
        log: &dyn Log,
        cluster: ClusterId,
        scope: &str,
        places: &[(Shard, u64)],
        aside: &mut Database,
    ) -> Result<bool, Failure> {
        while let Some(fetched) = self.fetch_before(log, cluster, scope, places).await? {
            let id = fetched.id();
            match fetched.open(cluster, aside) {
                Ok(image) => return image.fill(aside).map(|()| true).map_err(database),
                Err(error) => self.pass_over_for(id, error).map_err(database)?,
            }
        }
        Ok(false)
    }

    /// Those that are whole, the newest first.
    async fn manifests(&self, cluster: ClusterId) -> Result<Vec<Manifest>, Failure> {
        let Some(shelf) = self.shelf.clone() else { return Ok(Vec::new()) };
        let cluster = hex(cluster);
        apart(move || {
            let (opened, _) = shelf.open()?;
            let repo = Repo::new(&opened.store, &cluster);
            let mut whole = Vec::new();
            for id in repo.ids()? {
                match repo.manifest(id) {
                    Ok(manifest) if manifest.is_full() => whole.push(manifest),
                    // What leads to it is in the log, too, or no longer; all rows are in the one before.
                    Ok(_) => {}
                    Err(failure) if failure.kind() == Kind::Data => {
                        tracing::warn!(%failure, "a snapshot is passed over");
                    }
                    Err(failure) if failure.kind() == Kind::Missing => {}
                    Err(failure) => return Err(failure),
                }
            }
            Ok(whole)
        })
        .await?
    }

    /// Fetches a snapshot and puts it together; nothing if it turns out to be damaged, and then it is passed over.
    ///
    /// # Errors
    /// When the store can't be asked, or there is no room.
    pub async fn fetch(
        &mut self,
        manifest: Manifest,
        cluster: ClusterId,
        like: &Database,
    ) -> Result<Option<Image>, Failure> {
        let Some(fetched) = self.put_together(manifest).await? else { return Ok(None) };
        let id = fetched.manifest.id;
        match fetched.open(cluster, like) {
            Ok(image) => Ok(Some(image)),
            Err(error) => self.pass_over_for(id, error).map(|()| None).map_err(database),
        }
    }

    async fn put_together(&mut self, manifest: Manifest) -> Result<Option<Fetched>, Failure> {
        let Some(shelf) = self.shelf.clone() else { return Ok(None) };
        let scratch = Scratch::new(&self.state)?;
        let (folder, wanted) = (scratch.folder().to_owned(), manifest.clone());
        let fetched = apart(move || {
            let (opened, _) = shelf.open()?;
            assemble(Repo::new(&opened.store, &wanted.cluster), &wanted, PARALLEL, &folder)
        });
        match fetched.await? {
            Ok(path) => Ok(Some(Fetched { manifest, path, scratch })),
            Err(failure) if matches!(failure.kind(), Kind::Data | Kind::Missing) => {
                tracing::warn!(%failure, "a snapshot is passed over");
                self.pass_over(manifest.id);
                Ok(None)
            }
            Err(failure) => Err(failure),
        }
    }

    /// What fits; if nothing does, those who run are asked for a new one, once.
    pub(crate) async fn find_or_ask(
        &mut self,
        log: &dyn Log,
        cluster: ClusterId,
        scope: &str,
        node: u64,
    ) -> Result<Option<Manifest>, Failure> {
        match self.find(log, cluster, scope).await? {
            None if !std::mem::replace(&mut self.has_asked, true) => self.ask(log, cluster, scope, node).await,
            found => Ok(found),
        }
    }

    /// Asks those who run for a new snapshot, and waits for one that fits. Nothing if nobody is there, or none comes.
    async fn ask(
        &mut self,
        log: &dyn Log,
        cluster: ClusterId,
        scope: &str,
        node: u64,
    ) -> Result<Option<Manifest>, Failure> {
        let Some(shelf) = self.shelf.clone() else { return Ok(None) };
        if !is_anybody_there(log, node).await? {
            return Ok(None);
        }
        let name = hex(cluster);
        apart(move || Repo::new(&shelf.open()?.0.store, &name).ask(node)).await??;
        tracing::info!("no snapshot leads up to the log as it is; a new one was asked for, and is waited for");
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE && is_anybody_there(log, node).await? {
            tokio::time::sleep(PAUSE).await;
            if let Some(manifest) = self.find(log, cluster, scope).await? {
                return Ok(Some(manifest));
            }
        }
        Ok(None)
    }

    /// It is of no use here for what was found in it, or else something else is wrong.
    ///
    /// # Errors
    /// What else is.
    pub(crate) fn pass_over_for(&mut self, id: SnapshotId, error: db::Error) -> Result<(), db::Error> {
        if !error.is_of_file() {
            return Err(error);
        }
        tracing::warn!(%id, error = %Failure::caused(Kind::Data, "it can't be opened", &error), "a snapshot is passed over");
        self.pass_over(id);
        Ok(())
    }

    /// It is of no use here.
    pub fn pass_over(&mut self, id: SnapshotId) {
        self.passed_over.insert(id);
    }
}

impl Fetched {
    /// Its name.
    pub(crate) fn id(&self) -> SnapshotId {
        self.manifest.id
    }

    /// Opens it as `like` was opened.
    pub(crate) fn open(self, cluster: ClusterId, like: &Database) -> Result<Image, db::Error> {
        let mut db = like.reopen(&self.path)?;
        let shards = u32::try_from(self.manifest.positions.len()).unwrap_or(u32::MAX);
        db.enter_as_it_is(cluster, shards)?;
        Ok(Image { manifest: self.manifest, db, _scratch: self.scratch })
    }
}

impl Image {
    /// Gives its rows, and all that goes with them, to an empty database in which L is built.
    pub(crate) fn fill(&self, aside: &mut Database) -> Result<(), db::Error> {
        tracing::info!(id = %self.manifest.id, "what the log says is built upon a snapshot, for the log was cut");
        aside.join_with(&self.db).map(drop)
    }
}

/// How the log of a snapshot's cluster began, as bytes and as what they say, if the snapshot says it.
pub(crate) fn genesis_of(manifest: &Manifest, cluster: ClusterId) -> Option<(Vec<u8>, Genesis)> {
    let frame = data_encoding::HEXLOWER.decode(manifest.genesis.as_bytes()).ok()?;
    let (_, genesis) = join::genesis_of(&frame).filter(|(of, _)| *of == cluster)?;
    Some((frame, genesis))
}

/// Whether another node runs, which could make a snapshot.
async fn is_anybody_there(log: &dyn Log, me: u64) -> Result<bool, Failure> {
    let members = log.members().await.map_err(unreachable_log)?;
    let now = crate::clock::unix_ns();
    Ok(members.iter().any(|announced| announced.member.node != me && announced.is_there(now)))
}

/// What is left of a log can't be understood without what came before.
pub(crate) fn nothing_leads_to(first: u64) -> Failure {
    Failure::new(Kind::Missing, format!("the log begins at entry {first}, and no snapshot leads up to it"))
        .hint("let a node that runs make one: `antiphon snapshot create`; then start again")
        .hint("this node must be configured for the same storage and the same tables: `antiphon config show`")
}

/// Whether the log still holds the entry that a snapshot ends with, in every shard.
pub(super) async fn continues(log: &dyn Log, manifest: &Manifest) -> Result<bool, Failure> {
    for (shard, at) in &manifest.positions {
        let Position { seq, time, checksum, .. } = *at;
        let stands = if seq == 0 {
            log.bounds(*shard).await.map_err(unreachable_log)?.first <= 1
        } else {
            let there = log.stands(*shard, seq).await.map_err(unreachable_log)?;
            there == Some(Placement { seq, time, checksum })
        };
        if !stands {
            return Ok(false);
        }
    }
    Ok(true)
}
