//! A log that has lost all it held, and who begins it again.
//!
//! Its streams were deleted, or its servers lost their disks. What was in it is in the nodes' files: the one that has come
//! furthest begins it again, behind every place that the old one had, with what that file has of it. The others follow by
//! a snapshot of that, each with its own changes on top, as after any other loss. Nothing hangs on which node it is: what
//! another had applied beyond is sent again by whoever wrote it.

use crate::announce::member_of;
use crate::db::Database;
use crate::failure::{Failure, Kind};
use crate::join::{database, unreachable_log};
use crate::log::{self, Announced, Log, Placed, Placement, Shard};
use antiphon_core::codec;
use antiphon_core::entry::{Anew, Body, Entry};
use std::time::{Duration, Instant};

/// How long a node that would begin hears of others: longer than it takes each to say where it stands.
const HEARING: Duration = Duration::from_secs(6);
/// How long one that has come further is waited for.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it is said and looked.
const PAUSE: Duration = Duration::from_secs(1);
/// The first place of what begins again is a multiple of this: no node has come further than the one before it.
const STRIDE: u64 = 1_000_000;

/// What a user can do about a log that is lost.
pub(crate) const REMEDY: &str = "if that log is lost, `antiphon log reseed` begins it again with what this database has; \
     choose the node with the latest rows, and start it: the others follow by a snapshot";

/// Who may begin a log again that holds nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Leave {
    /// A node that the log knows: what says who takes part was not lost, and this node is there. An empty log may as well
    /// be another one, which somebody named by mistake.
    #[default]
    IfKnown,
    /// This one, if no other has come further: it ran on this log a moment ago.
    Ran,
    /// This one: the user says so.
    Told,
}

/// Lets shards begin again that hold nothing any more, if this node is to; says whether it did.
///
/// # Errors
/// When the log can't be asked, or the database refuses.
pub(crate) async fn begin(db: &mut Database, log: &dyn Log, leave: Leave) -> Result<bool, Failure> {
    let (mut begun, mut lost): (Vec<(Shard, Placement)>, Vec<Shard>) = (Vec::new(), Vec::new());
    for (shard, position) in db.positions() {
        match first(log, shard).await? {
            None if position > 0 => lost.push(shard),
            Some(placed) if is_ours(db, shard, &placed) => begun.push((shard, placed.placement())),
            _ => {}
        }
    }
    let Some(&claimed) = lost.first().filter(|_| begun.is_empty()) else {
        return if begun.is_empty() { Ok(false) } else { go_on(db, log, begun, &lost).await };
    };
    if let Some(why) = db.cannot_begin_again().map_err(database)? {
        tracing::warn!(shard = claimed, why, "the log holds nothing any more, and does not begin again with this node");
        return Ok(false);
    }
    if leave == Leave::IfKnown && !knows(log, db).await? {
        return Ok(false);
    }
    if leave != Leave::Told {
        tracing::warn!(shard = claimed, "the log holds nothing any more; looking which node has come furthest");
        if !is_to_begin(db, log, claimed).await? {
            return Ok(false);
        }
    }
    go_on(db, log, begun, &lost).await
}

/// Begins what is lost, and stands there. Who has begun one shard begins them all: a death in between ends nothing.
async fn go_on(
    db: &mut Database,
    log: &dyn Log,
    mut begun: Vec<(Shard, Placement)>,
    lost: &[Shard],
) -> Result<bool, Failure> {
    let members = log.members().await.map_err(unreachable_log)?;
    for &shard in lost {
        let told = members.iter().filter_map(|announced| announced.member.positions.get(&shard)).max();
        let furthest = told.copied().unwrap_or(0).max(db.position(shard).seq);
        let at = (furthest / STRIDE + 1) * STRIDE;
        let frame = db.anew(shard).map_err(database)?;
        let Some(at) = log.begin_again(shard, at, &frame, &db.numbers(shard)).await.map_err(unreachable_log)? else {
            tracing::warn!(shard, "another node has begun it again");
            return Ok(false);
        };
        fault!("begun-again");
        let there = log.stands(shard, at).await.map_err(unreachable_log)?;
        let Some(place) = there.filter(|there| there.seq == at) else {
            tracing::warn!(shard, "what this node began it with is gone again");
            return Ok(false);
        };
        begun.push((shard, place));
    }
    db.begin_again(&begun).map_err(database)?;
    fault!("began-again");
    for (shard, place) in begun {
        tracing::warn!(
            shard,
            entry = place.seq,
            "the log begins again with what this node has; the others take it as a snapshot"
        );
    }
    Ok(true)
}

/// The first entry of a shard. One that has let go of all it held is asked for nothing: a read might call that a fault.
async fn first(log: &dyn Log, shard: Shard) -> Result<Option<Placed>, Failure> {
    if is_empty(log, shard).await? {
        return Ok(None);
    }
    Ok(log.read(shard, 0, 1).await.map_err(unreachable_log)?.into_iter().next())
}

/// Whether a shard holds nothing.
pub(crate) async fn is_empty(log: &dyn Log, shard: Shard) -> Result<bool, Failure> {
    let bounds = log.bounds(shard).await.map_err(unreachable_log)?;
    Ok(bounds.first > bounds.last)
}

/// Whether a shard begins with this node's word for where it stands now: it died before it noted that.
fn is_ours(db: &Database, shard: Shard, first: &Placed) -> bool {
    let at = db.position(shard);
    let stood = Anew { seq: at.seq, time: at.time, checksum: at.checksum };
    codec::decode(&first.frame).is_ok_and(|Entry { cluster, origin, body, .. }| {
        Some(cluster) == db.cluster() && db.is_me(origin) && body == Body::Anew(stood) && first.seq > at.seq
    })
}

/// Whether this node, in this life, has announced itself there.
async fn knows(log: &dyn Log, db: &Database) -> Result<bool, Failure> {
    let members = log.members().await.map_err(unreachable_log)?;
    Ok(members.iter().any(|announced| db.is_me(announced.member.origin())))
}

/// Says where this node stands, and hears of others, until it is clear who begins; no, if another has.
async fn is_to_begin(db: &Database, log: &dyn Log, shard: Shard) -> Result<bool, Failure> {
    let begun = Instant::now();
    loop {
        log.announce(&member_of(db)).await.map_err(unreachable_log)?;
        tokio::time::sleep(PAUSE).await;
        if first(log, shard).await?.is_some() {
            return Ok(false);
        }
        if begun.elapsed() < HEARING {
            continue;
        }
        let members = log.members().await.map_err(unreachable_log)?;
        match further(db, &members) {
            Some(node) if begun.elapsed() < PATIENCE => {
                tracing::info!(node, "another node has come further, and is to begin the log again");
            }
            _ => return Ok(true),
        }
    }
}

/// Another node that is there and has come further, or as far and has a lower number.
fn further(db: &Database, members: &[Announced]) -> Option<u64> {
    let (node, reached) = (db.origin().node, db.reached());
    let come = |announced: &Announced| announced.member.positions.values().sum::<u64>();
    let is_further = |announced: &&Announced| {
        let come = come(announced);
        come > reached || come == reached && announced.member.node < node
    };
    log::there(members).find(is_further).map(|announced| announced.member.node)
}

/// Another node that is there.
async fn another_there(db: &Database, log: &dyn Log) -> Result<Option<u64>, log::Error> {
    let is_other = |announced: &&Announced| !db.is_me(announced.member.origin());
    let node = |announced: &Announced| announced.member.node;
    let (before, now) = (log.members().await?, crate::clock::unix_ns());
    if let Some(found) = before.iter().filter(is_other).find(|announced| announced.is_there(now)) {
        return Ok(Some(node(found)));
    }
    if !log::there(&before).any(|announced| is_other(&announced)) {
        return Ok(None);
    }
    // This machine's clock may be wrong. Who runs says so every few seconds.
    tokio::time::sleep(log::ANNOUNCE_INTERVAL * 2).await;
    let after = log.members().await?;
    Ok(after.iter().filter(is_other).find(|announced| !before.contains(announced)).map(node))
}

/// Lets go of all that the log of a cluster still holds, so that it can begin again.
///
/// # Errors
/// When the log can't be asked, or nodes run on it.
pub(crate) async fn clear(db: &Database, log: &dyn Log) -> Result<(), Failure> {
    if let Some(node) = another_there(db, log).await.map_err(unreachable_log)? {
        let said = format!("node {node} runs, or ran until a moment ago");
        return Err(Failure::new(Kind::Busy, said).hint("stop all nodes, and wait for half a minute"));
    }
    for shard in 1..=db.shards() {
        log.clear(shard).await.map_err(unreachable_log)?;
    }
    Ok(())
}
