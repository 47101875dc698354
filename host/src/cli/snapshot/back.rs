//! A database that is there goes back in time: in place, where no node runs, or by changes that all nodes follow.

use std::io::{self, Write as _};
use std::path::Path;

use serde::Serialize;

use super::Found;
use crate::cli::look;
use crate::cli::shown::{count, name};
use crate::components;
use crate::db::{self, Filter, NodeState, Reversion, Reverted, revert};
use crate::failure::{Failure, Kind};
use crate::lock::Lock;
use crate::node;
use crate::snapshot::{Arrived, places};
use crate::words::hex;

/// What scripts are told of rows that came back.
#[derive(Serialize)]
struct Report<'a> {
    dry_run: bool,
    snapshot: String,
    positions: std::collections::BTreeMap<u32, u64>,
    rows: u64,
    tables: &'a [Reverted],
    newer: &'a [String],
    gone: &'a [String],
}

impl<'a> Report<'a> {
    fn of(arrived: &Arrived, reversion: &'a Reversion, dry_run: bool) -> Self {
        Self {
            dry_run,
            snapshot: arrived.base.id.to_string(),
            positions: arrived.positions.iter().map(|(shard, at)| (*shard, at.seq)).collect(),
            rows: reversion.rows(),
            tables: &reversion.tables,
            newer: &reversion.newer,
            gone: &reversion.gone,
        }
    }
}

/// The database that is to go back.
pub(super) fn named(found: &Found) -> Result<&Path, Failure> {
    let path = found.config.db_path.as_path();
    if path.as_os_str().is_empty() {
        return Err(Failure::usage("it is not said which database is to go back")
            .hint("name it with `--db DB`, or by `--config FILE`"));
    }
    Ok(path)
}

/// The node of the database that is to go back.
pub(super) fn node_of(found: &Found) -> Result<NodeState, Failure> {
    let path = named(found)?;
    let state = look::database(path)?.node().map_err(|error| look::unread(path, &error))?;
    let state = state.filter(|state| state.cluster.is_some()).ok_or_else(|| {
        Failure::new(Kind::Refused, format!("`{}` belongs to no cluster", path.display()))
            .hint("bring the rows back as a file of their own: `--output FILE`")
    })?;
    let cluster = state.cluster.map(|(cluster, _)| hex(cluster)).unwrap_or_default();
    if cluster != found.cluster {
        return Err(Failure::new(
            Kind::Refused,
            format!("`{}` belongs to cluster {cluster}, and the snapshots are of {}", path.display(), found.cluster),
        ));
    }
    Ok(state)
}

/// Whether the database can go back in place, before anything is fetched.
pub(super) fn may_go_back(found: &Found, discard_local: bool) -> Result<(), Failure> {
    let state = node_of(found)?;
    if Lock::is_held(&found.config.state_dir()) {
        return Err(runs(&found.config.db_path));
    }
    if discard_local { Ok(()) } else { has_sent(found, &state) }
}

/// Whether all that was written to a database is in the log.
pub(super) fn has_sent(found: &Found, state: &NodeState) -> Result<(), Failure> {
    if state.marks + state.unconfirmed + state.scans == 0 {
        return Ok(());
    }
    Err(Failure::new(
        Kind::Refused,
        format!("`{}` has changes that are not in the log: they would be lost", found.config.db_path.display()),
    )
    .hint("let the node send them first: `antiphon run`; `antiphon status` says when that is done")
    .hint("`--discard-local` gives them up"))
}

pub(super) fn runs(path: &Path) -> Failure {
    Failure::new(Kind::Refused, format!("a node runs beside `{}`", path.display()))
        .hint("`--as-changes` goes back while nodes run, and all of them follow")
        .hint("or stop it first; the application may go on")
}

/// Puts what was restored into the place of the rows that are there, in one transaction.
pub(super) fn in_place(found: &Found, arrived: &Arrived, aside: &Path, json: bool) -> Result<(), Failure> {
    let state = arrived.state.as_ref().ok_or_else(|| Failure::new(Kind::General, "the state was not fetched"))?;
    let past = aside.join("past.db");
    std::fs::copy(&arrived.image, &past)?;
    db::assemble(&past, state)
        .map_err(|error| Failure::caused(Kind::Data, "a snapshot can't be put together", &error))?;
    let parts = components::parts(&found.config, found.pins)?;
    let runtime = crate::cli::runtime()?;
    let mut opened = crate::cli::wait(&runtime, node::open(parts)).map_err(|failure| match failure.kind() {
        Kind::Busy => runs(&found.config.db_path),
        _ => failure,
    })?;
    let shards = u32::try_from(arrived.positions.len()).unwrap_or(u32::MAX);
    let differences = opened.go_back(&past, crate::snapshot::cluster_of(&arrived.base)?, shards)?;
    let mut out = io::stdout().lock();
    if json {
        let tables = differences.into_iter().map(|table| Reverted {
            table: table.table,
            inserted: table.only_there,
            updated: table.changed,
            deleted: table.only_here,
            columns_gone: Vec::new(),
        });
        let reversion = Reversion { tables: tables.collect(), ..Reversion::default() };
        return crate::cli::json_line(&mut out, &Report::of(arrived, &reversion, false));
    }
    writeln!(out, "`{}` is at {} again", found.config.db_path.display(), places(&arrived.positions))?;
    for table in differences.iter().filter(|table| !table.is_none()) {
        writeln!(
            out,
            "  table {}: {} deleted, {} brought back, {} with other values",
            name(&table.table),
            count(table.only_here, "row", "rows"),
            table.only_there,
            table.changed
        )?;
    }
    out.flush()?;
    let mut talk = io::stderr().lock();
    writeln!(talk, "when the node runs, it reads the log on from there, and what came later comes in again")?;
    Ok(writeln!(talk, "to go back for good, and on all nodes: `antiphon snapshot restore … --as-changes`")?)
}

/// Writes the rows as they were into the database that is in use; they become changes of this node's.
pub(super) fn as_changes(
    found: &Found,
    arrived: &Arrived,
    tables: &[String],
    dry_run: bool,
    json: bool,
) -> Result<(), Failure> {
    let before = node_of(found)?;
    let path = &found.config.db_path;
    let filter = if tables.is_empty() {
        let wrong = |error| Failure::caused(Kind::Config, "a pattern under `[capture]` is no glob", &error);
        found.config.capture.filter().map_err(wrong)?
    } else {
        Filter::of_names(tables)
    };
    let reversion = revert(path, &arrived.image, &filter, dry_run).map_err(|error| {
        let kind = if error.is_transient() { Kind::Refused } else { Kind::General };
        Failure::caused(kind, format!("`{}` does not go back; nothing has changed", path.display()), &error)
    })?;
    if let Some(why) = &reversion.obstacle {
        return Err(Failure::new(Kind::Refused, format!("`{}` does not go back: {why}", path.display()))
            .hint("bring the rows back as a file of their own: `--output FILE`"));
    }
    if json {
        return crate::cli::json_line(&mut io::stdout().lock(), &Report::of(arrived, &reversion, dry_run));
    }
    say(found, arrived, &reversion, &before, dry_run)
}

fn say(
    found: &Found,
    arrived: &Arrived,
    reversion: &Reversion,
    before: &NodeState,
    dry_run: bool,
) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let verb = if dry_run { "would have" } else { "has" };
    let path = found.config.db_path.display();
    writeln!(out, "`{path}` {verb} the rows of {}", places(&arrived.positions))?;
    for Reverted { table, inserted, updated, deleted, columns_gone } in &reversion.tables {
        let table = name(table);
        match inserted + updated + deleted {
            0 => writeln!(out, "  table {table}: as it was")?,
            _ => writeln!(out, "  table {table}: {inserted} inserted, {updated} updated, {deleted} deleted")?,
        }
        if !columns_gone.is_empty() {
            writeln!(out, "    values of {} don't come back: there are no such columns", columns_gone.join(", "))?;
        }
    }
    for table in &reversion.newer {
        writeln!(out, "  table {}: it was not there, and stays as it is", name(table))?;
    }
    for table in &reversion.gone {
        writeln!(out, "  table {}: it is not here any more, and does not come back", name(table))?;
    }
    out.flush()?;
    let mut talk = io::stderr().lock();
    if dry_run {
        return Ok(writeln!(talk, "nothing was changed")?);
    }
    if Lock::is_held(&found.config.state_dir()) {
        writeln!(talk, "the node that runs sends what changed, and the others follow")?;
    } else {
        writeln!(talk, "what changed is sent when the node runs: `antiphon run`")?;
    }
    if before.marks + before.unconfirmed > 0 {
        return Ok(writeln!(talk, "what was written here just before and not sent yet is in no point to go back to")?);
    }
    let undo: Vec<String> = before.positions.iter().map(|(shard, seq)| format!("{shard}:{seq}")).collect();
    Ok(writeln!(talk, "to undo it: `antiphon snapshot restore --to-seq {} --as-changes`", undo.join(","))?)
}
