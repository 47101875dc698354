//! The beginning of the log goes, once snapshots hold what it says, and nobody has to read it any more.

use super::archive::ends;
use super::habits::Habits;
use super::repo::Repo;
use super::rescue::continues;
use super::shelf::Shelf;
use crate::apart::apart;
use crate::failure::Failure;
use crate::join::unreachable_log;
use crate::log::{Announced, Log, clock_of};
use antiphon_core::snapshot::manifest::Manifest;
use antiphon_core::snapshot::truncate::{Known, Places, Reader, superfluous};
use std::time::{Duration, Instant};

/// How long it is waited for somebody who begins to archive; what he did not say until then waits for the next time.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often it is looked whether he has said it.
const LOOK: Duration = Duration::from_millis(100);

/// How far each shard can be forgotten, by all that is known at the moment.
///
/// # Errors
/// When the store or the log can't be asked.
pub async fn forgettable(log: &dyn Log, shelf: &Shelf, cluster: &str) -> Result<Places, Failure> {
    let begun = Instant::now();
    let kept = loop {
        let (from, of) = (shelf.clone(), cluster.to_owned());
        let kept = apart(move || kept(&from, &of)).await??;
        if !kept.is_claimed || begun.elapsed() > PATIENCE {
            break kept;
        }
        tokio::time::sleep(LOOK).await;
    };
    let mut snapshots = Vec::new();
    for manifest in kept.snapshots {
        // Of a log that was put back, or made anew, it says nothing.
        if continues(log, &manifest).await? {
            snapshots.push(manifest.positions.iter().map(|(shard, at)| (*shard, at.seq)).collect());
        }
    }
    let members = log.members().await.map_err(unreachable_log)?;
    // Both by the log's clock: one of this machine that is ahead would call everybody silent.
    let now = clock_of(&members);
    let readers = members.iter().map(|member| reader(member, now)).collect();
    Ok(superfluous(&Known { archived: Some(kept.archived), snapshots, readers }, &kept.habits.cut))
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

/// What a store knows of a log.
struct Kept {
    /// Snapshots that count.
    snapshots: Vec<Manifest>,
    /// How far the shards are archived; nothing of one that somebody is about to archive.
    archived: Places,
    /// Whether somebody is.
    is_claimed: bool,
    habits: Habits,
}

fn kept(shelf: &Shelf, cluster: &str) -> Result<Kept, Failure> {
    let (opened, habits) = shelf.open()?;
    let repo = Repo::new(&opened.store, cluster);
    let mut snapshots = repo.all()?.snapshots;
    snapshots.retain(|(manifest, _)| manifest.is_full());
    let bases: Vec<_> = snapshots.iter().map(|(manifest, _)| manifest.positions.clone()).collect();
    let archive = repo.archive()?;
    let unsettled = repo.unsettled(&archive)?;
    let mut ends = ends(&archive, &bases);
    ends.retain(|shard, archived| !unsettled.contains(&(archived.epoch, *shard)));
    let counts = |(manifest, marks): (Manifest, super::Marks)| {
        (marks.whole_ms().is_some() && marks.forgotten_ms.is_none()).then_some(manifest)
    };
    Ok(Kept {
        snapshots: snapshots.into_iter().filter_map(counts).collect(),
        archived: ends.into_iter().map(|(shard, archived)| (shard, archived.seq)).collect(),
        is_claimed: !unsettled.is_empty(),
        habits,
    })
}

fn reader(announced: &Announced, now_ns: u64) -> Reader {
    let applied = announced.member.positions.iter().map(|(shard, seq)| (*shard, *seq)).collect();
    Reader { applied, silent_ms: now_ns.saturating_sub(announced.time) / 1_000_000 }
}
