//! Repairing a node whose file changed where no trigger saw it: L is built aside, and what differs is marked.

use crate::aside::{self, Read};
use crate::db::{Database, Reconciled, Standing};
use crate::failure::{Failure, Kind};
use crate::join::{self, Founding};
use crate::life::Provenance;
use crate::log::{self, Log};
use crate::publish;
use crate::snapshot::Rescue;
use std::path::Path;

/// Puts missing triggers back and marks what differs from L in these tables (all, if none is named), so that it becomes
/// this node's changes. With `dry_run` nothing is changed.
///
/// # Errors
/// When the database is no member of the log's cluster, or the log no longer holds everything.
pub async fn repair(
    db: &mut Database,
    log: &dyn Log,
    scratch: &Path,
    tables: &[String],
    dry_run: bool,
    provenance: Provenance,
    rescue: &mut Rescue,
) -> Result<Vec<Reconciled>, Failure> {
    let Standing::Member { cluster, founding } = db.standing().map_err(join::database)? else {
        return Err(Failure::new(
            Kind::General,
            "this database belongs to no cluster: there is nothing to repair it by",
        )
        .hint("run it first: `antiphon run`"));
    };
    is_itself(db, provenance)?;
    let founded = join::founding(db, log, rescue).await.map_err(|failure| incomplete(&failure))?;
    let Some(Founding { cluster: found, genesis, .. }) = founded else {
        return Err(join::log_gone());
    };
    if cluster != found {
        return Err(join::other_cluster());
    }
    if founding {
        return Err(Failure::new(
            Kind::General,
            "the rows that this database founded its cluster with are still on their way",
        )
        .hint("run it until they are sent: `antiphon run`; then repair"));
    }
    let wanted = wanted(db, tables)?;
    for shard in 1..=genesis.shards {
        let bounds = log.bounds(shard).await.map_err(join::unreachable_log)?;
        let position = db.position(shard).seq;
        if bounds.last < position {
            let cause = log::Error::Broken(format!(
                "this node has applied entry {position} of shard {shard}, and the log ends at {}",
                bounds.last
            ));
            return Err(join::unreachable_log(cause));
        }
    }
    // From here on whatever the application writes is marked; what it wrote before is in what is compared. Should this
    // come to an end half-way, the node compares tables that had lost their triggers when it runs.
    if !dry_run {
        db.watch().map_err(join::database)?;
        db.install(true).map_err(join::database)?;
    }
    let mut logged = db.aside(scratch, &wanted).map_err(join::database)?;
    if let Some((shard, first)) = join::cut_at(log, genesis.shards).await?
        && !rescue.begin_before(log, cluster, &db.scope(), &db.positions(), &mut logged).await?
    {
        return Err(trimmed(shard, first));
    }
    for (shard, position) in db.positions() {
        loop {
            match aside::read(&mut logged, log, shard, position).await.map_err(|error| unread(&error))? {
                Read::All => break,
                Read::Some => {}
                Read::Stuck(why) => {
                    return Err(Failure::new(Kind::Data, format!("cannot compare this database with the log: {why}")));
                }
            }
        }
    }
    wanted
        .iter()
        .map(|table| {
            db.reconcile(&logged, table, !dry_run)
                .map_err(|error| Failure::caused(Kind::General, format!("cannot repair table `{table}`"), &error))
        })
        .collect()
}

/// What differs from the log must have been written here, and by this node: else it would send what is merely old, or
/// another's.
fn is_itself(db: &Database, provenance: Provenance) -> Result<(), Failure> {
    if !db.publishes() {
        return Err(Failure::config("`publish` is off: this node sends nothing, so there is nothing to repair")
            .hint("set `publish = true` first"));
    }
    let why = match provenance {
        Provenance::Copy => "this file is a copy of another node's, or was moved without the directory beside it",
        Provenance::Older { .. } => "this file is older than the one this node ran on",
        Provenance::Same if db.has_unread() => "changes of other nodes were passed over while `replicate` was off",
        Provenance::Same if !db.was_captured().map_err(join::database)? => {
            "what was written here while `publish` was off was not noted"
        }
        Provenance::Same => return Ok(()),
    };
    Err(Failure::new(Kind::Data, format!("{why}: what differs from the log is no change of this node's alone"))
        .hint("`antiphon run` says how it can go on"))
}

/// The tables to look at, as the schema spells them.
fn wanted(db: &Database, tables: &[String]) -> Result<Vec<String>, Failure> {
    if tables.is_empty() {
        return Ok(db.table_names().map(str::to_owned).collect());
    }
    tables
        .iter()
        .map(|name| {
            db.table_names().find(|known| known.eq_ignore_ascii_case(name)).map(str::to_owned).ok_or_else(|| {
                let refused = db.refused().iter().find(|refused| refused.table.eq_ignore_ascii_case(name));
                match refused {
                    Some(refused) => {
                        Failure::new(Kind::Data, format!("table `{name}` is not replicated: {}", refused.reason))
                    }
                    None => Failure::new(Kind::Missing, format!("there is no replicated table `{name}`"))
                        .hint("`antiphon doctor` says which tables there are, and why some are left out"),
                }
            })
        })
        .collect()
}

fn trimmed(shard: log::Shard, first: u64) -> Failure {
    remedies(Failure::new(
        Kind::Data,
        format!(
            "shard {shard} of the log begins at entry {first}, and no snapshot leads up to it: nothing says any more what the \
             rows should be"
        ),
    ))
}

fn unread(error: &publish::Error) -> Failure {
    match error {
        publish::Error::Log(log::Error::Broken(_)) => crate::node::lost_log("cannot read the log", error),
        publish::Error::Log(log::Error::Unreachable(_)) => Failure::caused(Kind::Busy, "cannot read the log", error),
        _ => Failure::caused(Kind::General, "cannot build what the log says", error),
    }
}

fn incomplete(failure: &Failure) -> Failure {
    remedies(Failure::new(failure.kind(), failure.to_string()))
}

/// Without the whole log only the user knows whose rows are right.
fn remedies(failure: Failure) -> Failure {
    failure
        .hint("`antiphon cleanup`, then `antiphon join --discard-local`: take the cluster's rows; a copy of the file is kept")
        .hint("`antiphon cleanup`, then `antiphon join --publish-local`: send this file's rows to all nodes")
}
