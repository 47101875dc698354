//! `antiphon snapshot`: all rows of a cluster as of one place in its log, kept in a storage.

use std::sync::Arc;

use super::storage;
use crate::config::Config;
use crate::custom::Pins;
use crate::failure::{Failure, Kind};
use crate::snapshot::{Marks, Note, Repo};
use crate::storage::{Opened, Progress};
use antiphon_core::snapshot::id::SnapshotId;
use antiphon_core::snapshot::manifest::Manifest;
use serde::Serialize;

mod back;
mod create;
mod diff;
mod forget;
mod list;
mod merge;
mod offline;
mod pitr;
mod point;
mod points;
mod prune;
mod restore;
mod schedule;
mod show;
mod tag;
mod verify;

pub(super) use points::{Points, Which};
pub(super) use restore::reached;

/// Make snapshots of a cluster's rows, look at them, and bring a database back from one
///
/// A running node makes them; everything else needs the storage alone.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    Create(create::Create),
    List(list::List),
    Show(show::Show),
    Verify(verify::Verify),
    Restore(restore::Restore),
    Diff(diff::Diff),
    Tag(tag::Tag),
    Pin(tag::Pin),
    Unpin(tag::Unpin),
    Forget(forget::Forget),
    Prune(prune::Prune),
    Merge(merge::Merge),
    Schedule(schedule::Schedule),
}

impl Command {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self {
            Self::Create(create) => create.run(),
            Self::List(list) => list.run(),
            Self::Show(show) => show.run(),
            Self::Verify(verify) => verify.run(),
            Self::Restore(restore) => restore.run().map_err(graded),
            Self::Diff(diff) => diff.run().map_err(graded),
            Self::Tag(tag) => tag.run(),
            Self::Pin(pin) => pin.run(),
            Self::Unpin(unpin) => unpin.run(),
            Self::Forget(forget) => forget.run(),
            Self::Prune(prune) => prune.run(),
            Self::Merge(merge) => merge.run().map_err(graded),
            Self::Schedule(schedule) => schedule.run(),
        }
    }
}

/// Objects that are fetched at once.
pub(super) const PARALLEL: usize = 4;

/// Whose snapshots, and where.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Source {
    #[command(flatten)]
    which: storage::Which,
    /// The cluster, if the storage has snapshots of several
    #[arg(long, value_name = "HEX")]
    cluster: Option<String>,
}

/// A storage, and the cluster whose snapshots are meant.
pub(super) struct Found {
    pub(super) opened: Arc<Opened>,
    pub(super) cluster: String,
    pub(super) config: Config,
    pins: Pins,
}

impl Source {
    pub(super) fn which(&self) -> storage::Which {
        self.which.clone()
    }

    pub(super) fn open(self) -> Result<Found, Failure> {
        let (opened, config, pins) = self.which.open_with()?;
        let opened = Arc::new(opened);
        let clusters = Repo::clusters(&opened.store)?;
        let cluster = match self.cluster {
            Some(cluster) if clusters.contains(&cluster) => cluster,
            Some(cluster) => {
                let known: Vec<&str> = clusters.iter().map(String::as_str).collect();
                let failure =
                    Failure::new(Kind::Missing, format!("no snapshot of cluster `{cluster}` is at {}", opened.place));
                return Err(if known.is_empty() {
                    failure
                } else {
                    failure.hint(format!("it has those of {}", known.join(", ")))
                });
            }
            None => match clusters.len() {
                0 => {
                    return Err(Failure::new(Kind::Missing, format!("there is no snapshot at {}", opened.place))
                        .hint("a running node makes one: `antiphon snapshot create`")
                        .hint("where they are kept is said by `[snapshot]` in the configuration, or by `--plugin`"));
                }
                1 => clusters.into_iter().next().unwrap_or_default(),
                _ => {
                    let known: Vec<&str> = clusters.iter().map(String::as_str).collect();
                    return Err(Failure::usage(format!("{} has snapshots of several clusters", opened.place))
                        .hint(format!("say whose with `--cluster`: {}", known.join(", "))));
                }
            },
        };
        Ok(Found { opened, cluster, config, pins })
    }
}

impl Found {
    pub(super) fn repo(&self) -> Repo<'_> {
        Repo::new(&self.opened.store, &self.cluster)
    }

    /// Shows who waits how much goes in and out of the store, until it is dropped.
    pub(super) fn progress(&self, what: &'static str) -> Progress {
        Progress::of(&self.opened.store.moved(), what, None)
    }

    /// The manifest of this snapshot, or of the newest one that is whole.
    pub(super) fn manifest(&self, id: Option<SnapshotId>) -> Result<Manifest, Failure> {
        let repo = self.repo();
        if let Some(id) = id {
            return repo.manifest(id).map_err(|failure| {
                if failure.kind() != Kind::Missing {
                    return failure;
                }
                failure.hint("`antiphon snapshot list` says which there are")
            });
        }
        self.newest(|_| true)?.ok_or_else(|| Failure::new(Kind::Missing, "there is no snapshot"))
    }

    /// The manifest of the newest one before this one that is whole.
    fn older(&self, than: SnapshotId) -> Result<Option<Manifest>, Failure> {
        self.newest(|id| id < than)
    }

    fn newest(&self, may_be: impl Fn(SnapshotId) -> bool) -> Result<Option<Manifest>, Failure> {
        let repo = self.repo();
        let mut first = None;
        for id in repo.ids()?.into_iter().filter(|id| may_be(*id)) {
            match repo.manifest(id) {
                Ok(manifest) => return Ok(Some(manifest)),
                // An older one may do.
                Err(failure) if failure.kind() == Kind::Data => {
                    tracing::warn!(%failure, "a snapshot is passed over");
                    first.get_or_insert(failure);
                }
                Err(failure) => return Err(failure),
            }
        }
        first.map_or(Ok(None), Err)
    }
}

/// What scripts are told of a snapshot.
#[derive(Serialize)]
struct Shown<'a> {
    id: String,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent: Option<String>,
    created_ms: u64,
    node: u64,
    trigger: &'a str,
    took_ms: u64,
    rows: u64,
    bytes: u64,
    positions: std::collections::BTreeMap<u32, u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    marks: Option<ShownMarks<'a>>,
}

/// What was said of it later.
#[derive(Serialize)]
struct ShownMarks<'a> {
    tags: &'a std::collections::BTreeSet<String>,
    pinned: bool,
    forgotten_ms: Option<u64>,
    verified_ms: Option<u64>,
    restored_ms: Option<u64>,
    damaged_ms: Option<u64>,
    archived_ms: Option<u64>,
}

impl<'a> ShownMarks<'a> {
    fn of(marks: &'a Marks) -> Self {
        let Marks { note: Note { tags, pinned }, forgotten_ms, verified_ms, restored_ms, damaged_ms, aged_ms } = marks;
        let (forgotten_ms, restored_ms, archived_ms) = (*forgotten_ms, *restored_ms, *aged_ms);
        let (verified_ms, damaged_ms) = (*verified_ms, damaged_ms.filter(|_| marks.is_damaged()));
        Self { tags, pinned: *pinned, forgotten_ms, verified_ms, restored_ms, damaged_ms, archived_ms }
    }

    /// As people read it, behind a line.
    fn words(&self) -> String {
        let mut words: Vec<String> = self.tags.iter().map(|tag| format!("#{tag}")).collect();
        if self.pinned {
            words.push("pinned".to_owned());
        }
        if self.damaged_ms.is_some() {
            words.push("damaged".to_owned());
        }
        if self.archived_ms.is_some() {
            words.push("archived".to_owned());
        }
        if self.forgotten_ms.is_some() {
            words.push("forgotten".to_owned());
        }
        words.join(" ")
    }
}

impl<'a> Shown<'a> {
    fn of(manifest: &'a Manifest) -> Self {
        Self {
            id: manifest.id.to_string(),
            kind: manifest.kind.name(),
            parent: manifest.parent.map(|parent| parent.to_string()),
            created_ms: manifest.created_ms,
            node: manifest.node,
            trigger: &manifest.trigger,
            took_ms: manifest.took_ms,
            rows: manifest.tables.iter().map(|table| table.rows).sum(),
            bytes: manifest.image.as_ref().map_or(0, |image| image.bytes),
            positions: manifest.positions.iter().map(|(shard, at)| (*shard, at.seq)).collect(),
            marks: None,
        }
    }
}

/// A failure with the exit codes of these commands: what is damaged is told from a storage that is away.
pub(super) fn graded(failure: Failure) -> Failure {
    match failure.kind() {
        Kind::Data => failure.of_kind(Kind::Unverified),
        Kind::Busy => failure.of_kind(Kind::Unreachable),
        _ => failure,
    }
}

/// The name of a snapshot, as an argument.
fn snapshot(text: &str) -> Result<SnapshotId, String> {
    text.parse().map_err(|error: antiphon_core::snapshot::id::NotAName| error.to_string())
}
