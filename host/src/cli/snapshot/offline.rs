//! `antiphon snapshot restore --in-place --offline`: another file gets the name of a database that nobody has open.

use std::io::{self, Write as _};
use std::path::Path;

use serde::Serialize;

use super::Found;
use super::back::{has_sent, named, node_of, runs};
use crate::cli::shown::{bytes, count, name};
use crate::components;
use crate::failure::{Failure, Kind};
use crate::life::{Life, unnoted};
use crate::node::furnish;
use crate::replacement::Replacement;
use crate::snapshot::{Arrived, others_with_rows, places, rows_of};

/// What scripts are told.
#[derive(Serialize)]
struct Report<'a> {
    dry_run: bool,
    snapshot: String,
    positions: std::collections::BTreeMap<u32, u64>,
    output: String,
    /// Where the file is that was there.
    kept: Option<&'a Path>,
    rows: u64,
    bytes: u64,
}

/// Whether the file may be put aside, as far as it can be asked: before anything is fetched.
pub(super) fn may_replace(found: &Found, discard_local: bool) -> Result<(), Failure> {
    let path = named(found)?;
    if path.symlink_metadata().is_err() {
        return Ok(());
    }
    match node_of(found) {
        Ok(_) if discard_local => Ok(()),
        Ok(state) => has_sent(found, &state),
        Err(failure) if failure.kind() == Kind::Data && discard_local => Ok(()),
        Err(failure) if failure.kind() == Kind::Data => {
            let words = format!("`{}` can't be read, so nobody knows what in it is not in the log", path.display());
            Err(Failure::caused(Kind::Refused, words, &failure).hint(
                "`--discard-local` gives that up; the file is kept, and `sqlite3 KEPT .recover`, or `.dump`, may still read it",
            ))
        }
        Err(failure) => Err(failure),
    }
}

/// Sees that nobody has the database open.
pub(super) fn hold(found: &Found) -> Result<Replacement, Failure> {
    let path = named(found)?;
    Replacement::of(path).map_err(|failure| match failure.kind() {
        Kind::Busy => runs(path),
        _ => failure,
    })
}

/// Puts what was restored into the place of the file, as a node that goes on from there.
pub(super) fn replace(
    found: &Found,
    replacement: Replacement,
    arrived: &Arrived,
    discard_local: bool,
    json: bool,
) -> Result<(), Failure> {
    let path = replacement.path().to_owned();
    let tables: Vec<String> = arrived.base.tables.iter().map(|table| table.name.clone()).collect();
    let may = || {
        if discard_local {
            return Ok(());
        }
        may_replace(found, false)?;
        remain(&path, &tables)
    };
    may()?;
    let parts = components::parts(&found.config, found.pins)?;
    let life = furnish(parts, arrived, replacement.state())?;
    let rows = rows_of(&arrived.image, &tables)?;
    let size = arrived.image.metadata()?.len();
    let state = replacement.state().to_owned();
    let kept = replacement.put(&arrived.image, may, || {
        life.announce(&state).map_err(|error| unnoted(&state, &error))?;
        fault!("offline-noted");
        Ok(())
    })?;
    Life::begin(&state).map_err(|error| unnoted(&state, &error))?;
    let mut out = io::stdout().lock();
    if json {
        let report = Report {
            dry_run: false,
            snapshot: arrived.base.id.to_string(),
            positions: arrived.positions.iter().map(|(shard, at)| (*shard, at.seq)).collect(),
            output: path.display().to_string(),
            kept: kept.as_deref(),
            rows,
            bytes: size,
        };
        return crate::cli::json_line(&mut out, &report);
    }
    writeln!(out, "`{}` is the database at {}", path.display(), places(&arrived.positions))?;
    writeln!(out, "  holds  {}, {}", count(rows, "row", "rows"), bytes(size))?;
    if let Some(kept) = kept {
        writeln!(out, "  what was there is kept: `{}`", kept.display())?;
    }
    out.flush()?;
    Ok(writeln!(
        io::stderr().lock(),
        "when the node runs, it reads the log on from there, and what came later comes in again"
    )?)
}

/// Whether every table of the file that has rows comes back, or is there at least.
fn remain(path: &Path, tables: &[String]) -> Result<(), Failure> {
    if path.symlink_metadata().is_err() {
        return Ok(());
    }
    let others = others_with_rows(path, tables).map_err(|error| crate::unread::by_sqlite(path, &error))?;
    let Some(table) = others.first() else { return Ok(()) };
    Err(Failure::new(
        Kind::Refused,
        format!("table {} is in no snapshot: its rows would be only in the file that is kept", name(table)),
    )
    .hint("`--in-place` without `--offline` leaves it as it is")
    .hint("`--discard-local` gives it up"))
}
