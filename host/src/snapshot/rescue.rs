//! A snapshot for a node that can't go on from the log alone: it is new, or has fallen behind what the log still holds,
//! or the log lost what it had applied.

use super::repo::Repo;
use super::saved::assemble;
use super::shelf::Shelf;
use crate::apart::apart;
use crate::db::Database;
use crate::failure::{Failure, Kind};
use crate::join::{database, unreachable_log};
use crate::log::{Log, Placement};
use crate::node::Scratch;
use crate::words::hex;
use antiphon_core::entry::ClusterId;
use antiphon_core::snapshot::id::SnapshotId;
use antiphon_core::snapshot::manifest::{Manifest, Position};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Objects that are fetched at once.
const PARALLEL: usize = 4;

/// Where snapshots are looked for, and put together.
pub struct Rescue {
    shelf: Option<Shelf>,
    state: PathBuf,
    /// Those that turned out to be of no use.
    passed_over: BTreeSet<SnapshotId>,
}

/// A snapshot that was put together; its file goes with it.
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
        Self { shelf, state: state.to_owned(), passed_over: BTreeSet::new() }
    }

    /// The manifest of the newest snapshot that is whole and that the log goes on from, of tables that this node takes.
    ///
    /// # Errors
    /// When the store or the log can't be asked.
    pub async fn find(&self, log: &dyn Log, cluster: ClusterId, scope: &str) -> Result<Option<Manifest>, Failure> {
        for manifest in self.manifests(cluster).await? {
            let fits = manifest.scope.is_empty() || manifest.scope == scope;
            if fits && !self.passed_over.contains(&manifest.id) && continues(log, &manifest).await? {
                return Ok(Some(manifest));
            }
        }
        Ok(None)
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
        let Some(shelf) = self.shelf.clone() else { return Ok(None) };
        let scratch = Scratch::new(&self.state)?;
        let (folder, wanted) = (scratch.folder().to_owned(), manifest.clone());
        let fetched = apart(move || {
            let (opened, _) = shelf.open()?;
            assemble(Repo::new(&opened.store, &wanted.cluster), &wanted, PARALLEL, &folder)
        });
        match fetched.await? {
            Ok(path) => {
                let mut db = like.reopen(&path).map_err(database)?;
                let shards = u32::try_from(manifest.positions.len()).unwrap_or(u32::MAX);
                db.enter_as_it_is(cluster, shards).map_err(database)?;
                Ok(Some(Image { manifest, db, _scratch: scratch }))
            }
            Err(failure) if matches!(failure.kind(), Kind::Data | Kind::Missing) => {
                tracing::warn!(%failure, "a snapshot is passed over");
                self.pass_over(manifest.id);
                Ok(None)
            }
            Err(failure) => Err(failure),
        }
    }

    /// It is of no use here.
    pub fn pass_over(&mut self, id: SnapshotId) {
        self.passed_over.insert(id);
    }
}

/// Whether the log still holds the entry that a snapshot ends with, in every shard.
async fn continues(log: &dyn Log, manifest: &Manifest) -> Result<bool, Failure> {
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
