//! Founding a cluster, or joining one: what a start does before anything is captured or applied.
//!
//! The log's first entry is its genesis; whoever appends it founds, and the rows that node has become the
//! log's first changes. Anyone else joins: an empty database reads the log from the beginning; one whose
//! tables are those of the log at some point joins there without sending a row; anything else is refused,
//! because only the user knows which rows are right.

mod aside;

use crate::anew;
use crate::db::{self, Database, Difference, Standing};
use crate::failure::{Failure, Kind};
use crate::life::Provenance;
use crate::log::{self, Bounds, Log, Shard};
use crate::rescuer::Rescuer;
use crate::snapshot::Rescue;
use crate::words::count;
use antiphon_core::codec;
use antiphon_core::entry::{Body, ClusterId, Entry, Genesis, Origin};
use aside::Aside;
use std::path::Path;

/// Bytes of entries read at once while L is built aside.
const READ_BYTES_MAX: usize = 8 << 20;

/// How a database came to belong to its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entered {
    /// It belonged to it before.
    Resumed,
    /// It founded the cluster.
    Founded,
    /// It had no rows and reads the log from the beginning.
    JoinedEmpty,
    /// Its rows were those of the log already.
    JoinedEqual,
    /// It is a copy of a member's file, and goes on from there as a node of its own.
    Copied,
    /// Entries of others had been passed over; its rows are the log's again.
    CaughtUp,
    /// It had no rows, has those of a snapshot, and reads the log from there.
    JoinedFromSnapshot,
    /// The log does not go on where it stood: it has the rows of a snapshot, and its own on top that were on their way.
    Rescued,
    /// The log had lost all it held, and begins again with what is here.
    BeganAgain,
}

/// Which rows win when a database with rows of its own joins a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// The cluster's: rows that only this database has are gone after it.
    DiscardLocal,
    /// This database's: where they differ they become its changes.
    PublishLocal,
}

/// Makes the database a member of the log's cluster, or finds out that it is one.
///
/// # Errors
/// When the log can't be read, speaks of something else, or only the user can decide.
pub async fn enter(
    db: &mut Database,
    log: &dyn Log,
    agreed: &Genesis,
    scratch: &Path,
    provenance: Provenance,
    rescuer: &mut Rescuer<'_>,
) -> Result<Entered, Failure> {
    let entered = come_in(db, log, agreed, scratch, provenance, rescuer).await?;
    if db.publishes() {
        for shard in 1..=db.shards() {
            let last = log.last_number(shard, db.origin()).await.map_err(unreachable_log)?;
            db.number_above(shard, last);
        }
    } else if !all_sent(db, log).await? || !db.end_capture().map_err(database)? {
        return Err(Failure::config("`publish` is off, and changes made here before wait to be sent")
            .hint("start once more with `publish = true`, and turn it off when they are"));
    }
    Ok(entered)
}

/// Whether the log has every batch of the outbox.
async fn all_sent(db: &Database, log: &dyn Log) -> Result<bool, Failure> {
    for shard in 1..=db.shards() {
        if let Some((number, _)) = db.waiting(shard).map_err(database)?.last()
            && log.last_number(shard, db.origin()).await.map_err(unreachable_log)? < *number
        {
            return Ok(false);
        }
    }
    Ok(true)
}

async fn come_in(
    db: &mut Database,
    log: &dyn Log,
    agreed: &Genesis,
    scratch: &Path,
    provenance: Provenance,
    rescuer: &mut Rescuer<'_>,
) -> Result<Entered, Failure> {
    let mut has_begun = false;
    loop {
        let standing = db.standing().map_err(database)?;
        let beginning = match standing {
            Standing::Member { .. } if anew::is_empty(log, 1).await? => Beginning::Empty,
            _ => beginning(log).await?,
        };
        match (standing, beginning) {
            (Standing::Member { cluster, .. }, Beginning::Genesis { cluster: found, genesis, frame, .. }) => {
                if cluster != found {
                    return Err(other_cluster());
                }
                agree(&genesis, agreed)?;
                db.keep_genesis(&frame).map_err(database)?;
                return go_on(db, log, cluster, &genesis, scratch, provenance, rescuer).await;
            }
            (Standing::Member { cluster, .. }, Beginning::Cut { cluster: found, first }) => {
                if cluster != found {
                    return Err(other_cluster());
                }
                let kept = db.kept_genesis().map_err(database)?;
                let (_, genesis) = kept.and_then(|frame| genesis_of(&frame)).ok_or_else(|| cut(first))?;
                agree(&genesis, agreed)?;
                let entered = go_on(db, log, cluster, &genesis, scratch, provenance, rescuer).await?;
                return Ok(if has_begun && entered == Entered::Resumed { Entered::BeganAgain } else { entered });
            }
            (Standing::Member { .. }, Beginning::Empty) => {
                let kept = db.kept_genesis().map_err(database)?;
                let (_, genesis) = kept.and_then(|frame| genesis_of(&frame)).ok_or_else(log_gone)?;
                agree(&genesis, agreed)?;
                let begins = provenance == Provenance::Same && rescuer.begin_again(db, log).await?;
                // Another may have begun it meanwhile.
                if !begins && anew::is_empty(log, 1).await? {
                    return Err(log_gone());
                }
                has_begun = begins;
            }
            (Standing::Apart, Beginning::Cut { cluster, first }) => {
                let (scope, node) = (db.scope(), db.origin().node);
                let (frame, genesis) = rescuer.rescue().genesis(log, cluster, &scope, node, first).await?;
                agree(&genesis, agreed)?;
                can_decide(db, &genesis)?;
                db.keep_genesis(&frame).map_err(database)?;
                return join_late(db, log, cluster, &genesis, scratch, rescuer, first).await;
            }
            (Standing::Apart, Beginning::Empty) if !db.publishes() => {
                return Err(Failure::config("the log is empty, and `publish` is off: there is nothing to receive")
                    .hint("start a node that publishes first; its rows become the cluster's"));
            }
            (Standing::Apart, Beginning::Empty) => {
                let cluster = draw()?;
                let frame = db.genesis(cluster, agreed.clone()).map_err(database)?;
                fault!("genesis");
                // Two nodes may try at once: the log takes one, and the other sees it in the next round.
                log.begin(1, &frame).await.map_err(unreachable_log)?;
                fault!("begun");
            }
            (Standing::Apart, Beginning::Genesis { cluster, origin, genesis, frame }) => {
                agree(&genesis, agreed)?;
                can_decide(db, &genesis)?;
                db.keep_genesis(&frame).map_err(database)?;
                if db.is_me(origin) {
                    if !db.publishes() {
                        return Err(Failure::config(
                            "`publish` is off, and this node has only begun to found its cluster",
                        )
                        .hint("start once with `publish = true`, until its rows are in the log"));
                    }
                    db.enter(cluster, &genesis, true).map_err(database)?;
                    return Ok(Entered::Founded);
                }
                if let Some((_, first)) = cut_at(log, genesis.shards).await? {
                    return join_late(db, log, cluster, &genesis, scratch, rescuer, first).await;
                }
                if has_nothing(db)? {
                    if rescuer.shorten(db, log, cluster).await? {
                        return Ok(Entered::JoinedFromSnapshot);
                    }
                    db.enter(cluster, &genesis, false).map_err(database)?;
                    return Ok(Entered::JoinedEmpty);
                }
                return compare_and_join(db, log, cluster, &genesis, scratch, rescuer.rescue()).await;
            }
        }
    }
}

/// Joins where the log was cut at its beginning.
async fn join_late(
    db: &mut Database,
    log: &dyn Log,
    cluster: ClusterId,
    genesis: &Genesis,
    scratch: &Path,
    rescuer: &mut Rescuer<'_>,
    first: u64,
) -> Result<Entered, Failure> {
    if has_nothing(db)? {
        rescuer.join(db, log, cluster, first).await?;
        return Ok(Entered::JoinedFromSnapshot);
    }
    compare_and_join(db, log, cluster, genesis, scratch, rescuer.rescue()).await
}

/// Goes on where a member stood, if it is what it was and has all it should.
async fn go_on(
    db: &mut Database,
    log: &dyn Log,
    cluster: ClusterId,
    genesis: &Genesis,
    scratch: &Path,
    provenance: Provenance,
    rescuer: &mut Rescuer<'_>,
) -> Result<Entered, Failure> {
    let mut entered = Entered::Resumed;
    match provenance {
        Provenance::Same => {
            if let Some(otherwise) = rescuer.go_back(db, log, cluster).await? {
                entered = otherwise;
            }
        }
        Provenance::Older { reached } => return Err(older(reached, db.reached())),
        Provenance::Copy => {
            if !db.begin_life().map_err(database)?
                && !take_over(db, log, cluster, genesis, scratch, rescuer.rescue()).await?
            {
                return Err(copy_with_changes(db.origin().node));
            }
            entered = Entered::Copied;
        }
    }
    if db.publishes() && !db.was_captured().map_err(database)? {
        // As when joining: the triggers go in first, so that what is written while we compare is marked.
        db.install(false).map_err(database)?;
        let places = db.positions();
        let mut logged = Aside::new(db, log, cluster, genesis, scratch, rescuer.rescue(), &places).await?;
        logged.read_to_the_place_of(db, log).await?;
        let differences = db.compare(&logged.db).map_err(database)?;
        if !differences.iter().all(Difference::is_none) {
            db.uninstall().map_err(database)?;
            return Err(refusal(&differences));
        }
        db.resume_capture().map_err(database)?;
    }
    if db.replicates() && db.has_unread() {
        if !take_over(db, log, cluster, genesis, scratch, rescuer.rescue()).await? {
            return Err(Failure::config("`replicate` is on again, and changes made here meanwhile wait to be sent")
                .hint("start once more with `replicate = false`, and turn it on when they are")
                .hint("or give them up: `antiphon join --discard-local` takes the cluster's rows"));
        }
        entered = Entered::CaughtUp;
    }
    Ok(entered)
}

/// Takes the log's rows for these, where that loses nothing: every change made here is in the log. Says whether it is.
async fn take_over(
    db: &mut Database,
    log: &dyn Log,
    cluster: ClusterId,
    genesis: &Genesis,
    scratch: &Path,
    rescue: &mut Rescue,
) -> Result<bool, Failure> {
    if db.has_marks().map_err(database)? {
        return Ok(false);
    }
    for shard in 1..=db.shards() {
        let mut waiting = db.waiting(shard).map_err(database)?;
        let mut after = db.position(shard).seq;
        while !waiting.is_empty() {
            let entries = log.read(shard, after, READ_BYTES_MAX).await.map_err(unreachable_log)?;
            // Another batch under the same number is another's, who took himself for this node.
            let Some(last) = entries.last() else { return Ok(false) };
            after = last.seq;
            for placed in &entries {
                if let Ok(entry) = codec::decode(&placed.frame)
                    && db.is_me(entry.origin)
                    && placed.may_say(&entry)
                {
                    waiting.retain(|batch| *batch != (entry.number, codec::checksum(&placed.frame)));
                }
            }
        }
    }
    let mut logged = Aside::new(db, log, cluster, genesis, scratch, rescue, &[]).await?;
    logged.read_to_founded(log).await?;
    logged.read_to_the_end(log).await?;
    db.take_over(&logged.db).map_err(database)
}

fn copy_with_changes(node: u64) -> Failure {
    Failure::new(
        Kind::Data,
        format!(
            "this file is a copy of node {node}'s, or was moved without the directory beside it, and holds changes that were not sent"
        ),
    )
    .hint(format!(
        "if node {node} still runs elsewhere it sends them itself: `antiphon join --discard-local` takes the cluster's rows, and keeps a copy of the file as it is now"
    ))
    .hint("if this is the only one left, `antiphon join --publish-local` makes them changes of this node")
    .hint("if the file was moved, move the directory `.antiphon` of the same name beside it, and start again")
}

fn older(reached: u64, stands: u64) -> Failure {
    Failure::new(
        Kind::Data,
        format!(
            "this file is older than the one this node ran on: it stands at entry {stands}, and {reached} had been applied; it was brought back from a backup"
        ),
    )
    .hint("`antiphon join --discard-local` brings it up to the cluster's rows, and keeps a copy of the file as it is now")
    .hint("`antiphon join --publish-local` makes the rows of this file the cluster's, on all nodes")
}

/// Makes a database with rows of its own a member, as the user decided; gives what differed. `before` is called when
/// nothing stands in the way any more, and nothing has been changed.
///
/// # Errors
/// When the log can't be read, or the database is a member already.
#[expect(clippy::too_many_arguments, reason = "each is another part of a start, and none belongs to another")]
pub async fn force(
    db: &mut Database,
    log: &dyn Log,
    agreed: &Genesis,
    scratch: &Path,
    rows: Rows,
    provenance: Provenance,
    rescue: &mut Rescue,
    before: &mut dyn FnMut(&Database) -> Result<(), Failure>,
) -> Result<Vec<Difference>, Failure> {
    let member = match db.standing().map_err(database)? {
        Standing::Apart => None,
        Standing::Member { cluster, .. } => Some(cluster),
    };
    let settled = provenance == Provenance::Same
        && !db.has_unread()
        && (!db.publishes() || db.was_captured().map_err(database)?);
    if member.is_some() && settled {
        return Err(Failure::new(Kind::General, "this database belongs to a cluster already")
            .hint("just run it: `antiphon run`"));
    }
    if rows == Rows::PublishLocal && !db.publishes() {
        return Err(Failure::config("`publish` is off: this node sends nothing").hint("set `publish = true` first"));
    }
    // What differs from the log at this file's own place was written here; at any other it may be merely old.
    let in_place = rows == Rows::PublishLocal && member.is_some() && !matches!(provenance, Provenance::Older { .. });
    if in_place && db.has_unread() {
        return Err(Failure::new(
            Kind::Data,
            "changes of other nodes were passed over here, so its rows are not the latest",
        )
        .hint("`antiphon join --discard-local` takes the cluster's rows"));
    }
    let Some(Founding { cluster, genesis, frame }) = founding(db, log, rescue).await? else {
        return Err(Failure::new(Kind::Missing, "the log is empty: there is no cluster to join")
            .hint("`antiphon run` founds one from this database"));
    };
    if member.is_some_and(|member| member != cluster) {
        return Err(other_cluster());
    }
    agree(&genesis, agreed)?;
    can_decide(db, &genesis)?;
    let places = if in_place { db.positions() } else { Vec::new() };
    let mut logged = Aside::new(db, log, cluster, &genesis, scratch, rescue, &places).await?;
    if in_place {
        logged.read_to_the_place_of(db, log).await?;
    } else {
        logged.read_to_founded(log).await?;
        logged.read_to_the_end(log).await?;
    }
    before(db)?;
    db.keep_genesis(&frame).map_err(database)?;
    // The triggers go in first: a row written from now on is marked, whoever wins.
    db.watch().map_err(database)?;
    db.install(false).map_err(database)?;
    match rows {
        Rows::DiscardLocal => db.discard_for(&logged.db),
        Rows::PublishLocal if in_place => db.go_on_from(&logged.db),
        Rows::PublishLocal => db.publish_upon(&logged.db),
    }
    .map_err(database)
}

/// How a cluster began.
pub(crate) struct Founding {
    pub(crate) cluster: ClusterId,
    /// What it agreed on,
    pub(crate) genesis: Genesis,
    /// and the entry that says so.
    pub(crate) frame: Vec<u8>,
}

/// How the log's cluster began, whether its log still begins with that or not; nothing if there is no cluster.
pub(crate) async fn founding(db: &Database, log: &dyn Log, rescue: &mut Rescue) -> Result<Option<Founding>, Failure> {
    match beginning(log).await? {
        Beginning::Empty => Ok(None),
        Beginning::Genesis { cluster, genesis, frame, .. } => Ok(Some(Founding { cluster, genesis: *genesis, frame })),
        Beginning::Cut { cluster, first } => {
            if let Some(frame) = db.kept_genesis().map_err(database)?
                && let Some((_, genesis)) = genesis_of(&frame).filter(|(of, _)| *of == cluster)
            {
                return Ok(Some(Founding { cluster, genesis, frame }));
            }
            let (frame, genesis) = rescue.genesis(log, cluster, &db.scope(), db.origin().node, first).await?;
            Ok(Some(Founding { cluster, genesis, frame }))
        }
    }
}

/// The first shard whose oldest entries are gone, and the oldest that is left.
pub(crate) async fn cut_at(log: &dyn Log, shards: u32) -> Result<Option<(Shard, u64)>, Failure> {
    for shard in 1..=shards {
        let first = log.bounds(shard).await.map_err(unreachable_log)?.first;
        if first > 1 {
            return Ok(Some((shard, first)));
        }
    }
    Ok(None)
}

async fn compare_and_join(
    db: &mut Database,
    log: &dyn Log,
    cluster: ClusterId,
    genesis: &Genesis,
    scratch: &Path,
    rescue: &mut Rescue,
) -> Result<Entered, Failure> {
    // The triggers go in first: a row written while we compare is marked, and becomes a change afterwards.
    db.install(false).map_err(database)?;
    let mut logged = Aside::new(db, log, cluster, genesis, scratch, rescue, &[]).await?;
    fault!("aside");
    logged.read_to_founded(log).await?;
    fault!("logged");
    let mut differences = db.compare(&logged.db).map_err(database)?;
    if differences.iter().any(|difference| !difference.is_none()) {
        logged.read_to_the_end(log).await?;
        differences = db.compare(&logged.db).map_err(database)?;
    }
    fault!("compared");
    if differences.iter().all(Difference::is_none) {
        db.join_at(&logged.db).map_err(database)?;
        return Ok(Entered::JoinedEqual);
    }
    // What a former host had still to send is known from these marks alone.
    if !db.is_adopted().map_err(database)? {
        db.uninstall().map_err(database)?;
    }
    Err(refusal(&differences))
}

/// Whether a database has nothing to say: no rows, and none whose deletion its former host had still to send.
fn has_nothing(db: &Database) -> Result<bool, Failure> {
    Ok(db.is_empty().map_err(database)? && !(db.is_adopted().map_err(database)? && db.has_marks().map_err(database)?))
}

fn refusal(differences: &[Difference]) -> Failure {
    let tables = differences.iter().filter(|difference| !difference.is_none()).map(|difference| {
        format!(
            "`{}` has {} here and {} in the cluster ({} only here, {} only there, {} different)",
            difference.table,
            count(difference.rows_here, "row", "rows"),
            difference.rows_there,
            difference.only_here,
            difference.only_there,
            difference.changed
        )
    });
    let tables = tables.collect::<Vec<_>>().join("; ");
    Failure::new(Kind::Data, format!("this database has rows of its own, and they are not the cluster's: {tables}"))
        .hint("`antiphon join --discard-local` takes the cluster's rows, and keeps a copy of the file as it is now")
        .hint("`antiphon join --publish-local` makes the rows of this database its changes, for all nodes")
}

/// How a log begins.
pub(crate) enum Beginning {
    /// Nothing was ever in it.
    Empty,
    /// With its genesis.
    Genesis {
        /// The cluster,
        cluster: ClusterId,
        /// who founded it,
        origin: Origin,
        /// what it agreed to,
        genesis: Box<Genesis>,
        /// and all of it as bytes.
        frame: Vec<u8>,
    },
    /// Later: what came before is gone.
    Cut {
        /// The cluster that the entry is of.
        cluster: ClusterId,
        /// Where that stands.
        first: u64,
    },
}

/// How the log begins.
pub(crate) async fn beginning(log: &dyn Log) -> Result<Beginning, Failure> {
    let first = loop {
        if let Some(first) = log.read(1, 0, 1).await.map_err(unreachable_log)?.into_iter().next() {
            break first;
        }
        match log.bounds(1).await.map_err(unreachable_log)? {
            Bounds { last: 0, .. } => return Ok(Beginning::Empty),
            // What held something is nobody's to found a cluster in.
            Bounds { first, last } if first > last => return Err(emptied(last)),
            // Somebody has founded one since.
            Bounds { .. } => {}
        }
    };
    let foreign = |why: &dyn std::fmt::Display| {
        Failure::new(Kind::Data, format!("the log does not begin as one of Antiphon's does: {why}"))
    };
    match codec::decode(&first.frame) {
        Ok(entry) if !first.may_say(&entry) => {
            Err(foreign(&"its first entry says that another node wrote it than the one that sent it"))
        }
        Ok(Entry { cluster, .. }) if first.first() != 1 => Ok(Beginning::Cut { cluster, first: first.first() }),
        Ok(Entry { cluster, origin, body: Body::Genesis(genesis), .. }) => {
            Ok(Beginning::Genesis { cluster, origin, genesis: Box::new(genesis), frame: first.frame })
        }
        Ok(_) => Err(foreign(&"its first entry is no genesis")),
        Err(error) => Err(foreign(&error)),
    }
}

/// Whose log it is; nothing if it is nobody's yet.
pub(crate) async fn cluster_of(log: &dyn Log) -> Result<Option<ClusterId>, Failure> {
    Ok(match beginning(log).await? {
        Beginning::Empty => None,
        Beginning::Genesis { cluster, .. } | Beginning::Cut { cluster, .. } => Some(cluster),
    })
}

/// What stands in a genesis, if these bytes are one.
pub(crate) fn genesis_of(frame: &[u8]) -> Option<(ClusterId, Genesis)> {
    match codec::decode(frame) {
        Ok(Entry { cluster, body: Body::Genesis(genesis), .. }) => Some((cluster, genesis)),
        _ => None,
    }
}

/// A log whose entries are all gone, for a node that took no part in it.
fn emptied(last: u64) -> Failure {
    let text = format!("the log held {}, and has lost them all", count(last, "entry", "entries"));
    Failure::new(Kind::Data, text)
        .hint("start a node that took part: it begins the log again with what it has, and this one can join")
}

/// What the beginning would tell is known from nowhere.
pub(crate) fn cut(first: u64) -> Failure {
    let lost = format!("shard 1 of the log begins at entry {first}; what came before is gone");
    crate::node::lost_log("cannot follow the log", &log::Error::Broken(lost))
}

/// What this node would have, against what the cluster agreed to.
pub(crate) fn agree(cluster: &Genesis, here: &Genesis) -> Result<(), Failure> {
    let mut differs = Vec::new();
    if cluster.shards != here.shards {
        differs.push(format!(
            "it has {}, and this node is configured for {}",
            count(cluster.shards.into(), "shard", "shards"),
            here.shards
        ));
    }
    if (&cluster.hasher, &cluster.hasher_settings) != (&here.hasher, &here.hasher_settings) {
        let hashes = |genesis: &Genesis| format!("`{}`{}", genesis.hasher, said_settings(&genesis.hasher_settings));
        differs.push(format!("it hashes keys with {}, and this node with {}", hashes(cluster), hashes(here)));
    }
    if cluster.wire > here.wire {
        differs.push(format!("it speaks wire version {}, and this build up to {}", cluster.wire, here.wire));
    }
    if differs.is_empty() {
        return Ok(());
    }
    let failure = Failure::config(format!("this node differs from its cluster: {}", differs.join("; ")))
        .hint("configure this node as the others: `antiphon config show` prints what it has");
    if cluster.hasher == here.hasher || ![&cluster.hasher, &here.hasher].iter().any(|of| of.starts_with("sha256:")) {
        return Err(failure);
    }
    Err(failure.hint(
        "a component that somebody wrote goes by the sha256 of its bytes: take the file itself from another node, for \
         one that is built again may differ",
    ))
}

/// Settings, in words behind what they are for.
pub(crate) fn said_settings(settings: &[(String, String)]) -> String {
    if settings.is_empty() { String::new() } else { format!(" ({})", each_setting(settings).join(", ")) }
}

pub(crate) fn each_setting(settings: &[(String, String)]) -> Vec<String> {
    settings.iter().map(|(name, value)| format!("{name} = {value}")).collect()
}

/// A node without the components that the log begins with can't read it from there.
pub(crate) fn can_decide(db: &mut Database, genesis: &Genesis) -> Result<(), Failure> {
    let Some(missing) = db.lacks(&genesis.all_policies()) else { return Ok(()) };
    let failure = Failure::config(format!("this node can't decide as its cluster does: {missing}"));
    if !missing.contains("sha256:") {
        return Err(failure);
    }
    Err(failure.hint(
        "a component that somebody wrote goes by the sha256 of its bytes: take the file itself from another node, for \
         one that is built again may differ",
    ))
}

fn draw() -> Result<ClusterId, Failure> {
    let mut cluster = ClusterId::default();
    getrandom::fill(&mut cluster).map_err(|error| Failure::new(Kind::General, format!("no randomness: {error}")))?;
    Ok(cluster)
}

pub(crate) fn other_cluster() -> Failure {
    Failure::new(Kind::Data, "this database belongs to another cluster than this log")
        .hint("point `--log`, or `path` under `[log]`, at the log it was run with before")
        .hint("`antiphon cleanup` makes it a database like any other again; then it can join this one")
}

pub(crate) fn log_gone() -> Failure {
    Failure::new(
        Kind::Data,
        "this database belongs to a cluster, and the log is empty: it was deleted or is another one",
    )
    .hint("point `--log`, or `path` under `[log]`, at the log it was run with before")
    .hint(anew::REMEDY)
}

#[expect(clippy::needless_pass_by_value, reason = "it is what `map_err` takes")]
pub(crate) fn database(error: db::Error) -> Failure {
    let kind = if error.is_transient() { Kind::Busy } else { Kind::General };
    Failure::caused(kind, "cannot make the database a member of the cluster", &error)
}

#[expect(clippy::needless_pass_by_value, reason = "it is what `map_err` takes")]
pub(crate) fn unreachable_log(error: log::Error) -> Failure {
    match error {
        log::Error::Unreachable(_) => Failure::caused(Kind::Busy, "cannot read the log", &error),
        log::Error::Broken(_) => crate::node::lost_log("cannot read the log", &error),
    }
}
