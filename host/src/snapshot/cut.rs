//! The beginning of the log goes, once snapshots hold what it says, and nobody has to read it any more.

use super::archive::archived_to;
use super::habits::Habits;
use super::repo::Repo;
use super::rescue::continues;
use super::shelf::Shelf;
use crate::apart::apart;
use crate::failure::Failure;
use crate::join::unreachable_log;
use crate::log::{Announced, Log};
use antiphon_core::snapshot::manifest::Manifest;
use antiphon_core::snapshot::truncate::{Known, Places, Reader, superfluous};

/// How far each shard can be forgotten, by all that is known at the moment.
///
/// # Errors
/// When the store or the log can't be asked.
pub async fn forgettable(log: &dyn Log, shelf: &Shelf, cluster: &str) -> Result<Places, Failure> {
    let (from, of) = (shelf.clone(), cluster.to_owned());
    let (manifests, archived, habits) = apart(move || verified(&from, &of)).await??;
    let mut snapshots = Vec::new();
    for manifest in manifests {
        // Of a log that was put back, or made anew, it says nothing.
        if continues(log, &manifest).await? {
            snapshots.push(manifest.positions.iter().map(|(shard, at)| (*shard, at.seq)).collect());
        }
    }
    let members = log.members().await.map_err(unreachable_log)?;
    let now = crate::clock::unix_ms();
    let readers = members.iter().map(|member| reader(member, now)).collect();
    Ok(superfluous(&Known { archived: Some(archived), snapshots, readers }, &habits.cut))
}

/// Lets go of what is superfluous; gives the last entries that went.
///
/// # Errors
/// When the store or the log can't be asked; what went till then was superfluous.
pub(super) async fn cut(log: &dyn Log, shelf: &Shelf, cluster: &str) -> Result<Places, Failure> {
    let mut gone = Places::new();
    for (shard, last) in forgettable(log, shelf, cluster).await? {
        if log.bounds(shard).await.map_err(unreachable_log)?.first > last {
            continue;
        }
        fault!("log-cutting");
        log.truncate(shard, last).await.map_err(unreachable_log)?;
        fault!("log-cut");
        gone.insert(shard, last);
    }
    Ok(gone)
}

/// Snapshots that count, and how far the log is archived.
fn verified(shelf: &Shelf, cluster: &str) -> Result<(Vec<Manifest>, Places, Habits), Failure> {
    let (opened, habits) = shelf.open()?;
    let repo = Repo::new(&opened.store, cluster);
    let all = repo.all()?;
    let archived = archived_to(&repo)?.into_iter().map(|(shard, archived)| (shard, archived.seq)).collect();
    let counts = |(manifest, marks): (Manifest, super::Marks)| {
        let stays = marks.verified_ms.is_some() && marks.forgotten_ms.is_none();
        (stays && manifest.is_full()).then_some(manifest)
    };
    Ok((all.snapshots.into_iter().filter_map(counts).collect(), archived, habits))
}

fn reader(announced: &Announced, now_ms: u64) -> Reader {
    let applied = announced.member.positions.iter().map(|(shard, seq)| (*shard, *seq)).collect();
    Reader { applied, silent_ms: now_ms.saturating_sub(announced.time / 1_000_000) }
}
