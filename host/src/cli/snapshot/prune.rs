//! `antiphon snapshot prune`: what was forgotten goes.

use std::io::{self, Write};

use super::Source;
use crate::cli::json_line;
use crate::cli::shown::{bytes, count, moment};
use crate::failure::Failure;
use crate::snapshot::{Grace, Pruned};

/// Remove snapshots that were forgotten a day ago, what of the archive is superfluous, and objects that belong to none
///
/// Of the archive goes what no snapshot leads up to, what lies within merged segments, and what is older than
/// `pitr_window`. Objects of a snapshot that is still being made belong to none yet, so they have two days.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Prune {
    /// How long ago a snapshot must have been forgotten: an age as 12h, or 0s
    #[arg(long, value_name = "AGE", value_parser = moment)]
    grace: Option<u64>,
    #[command(flatten)]
    source: Source,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Prune {
    pub(super) fn run(self) -> Result<(), Failure> {
        let found = self.source.open()?;
        let usual = Grace::of(&found.config);
        let forgotten_ms = self.grace.map_or(usual.forgotten_ms, |since| crate::clock::unix_ms().saturating_sub(since));
        let pruned = found.repo().prune(Grace { forgotten_ms, ..usual }, self.dry_run)?;
        say(&mut io::stdout().lock(), &pruned, self.dry_run, self.json)
    }
}

pub(super) fn say(out: &mut impl Write, pruned: &Pruned, dry_run: bool, json: bool) -> Result<(), Failure> {
    if json {
        return json_line(out, pruned);
    }
    let verb = if dry_run { "would be removed" } else { "removed" };
    let snapshots = count(pruned.snapshots.len() as u64, "snapshot", "snapshots");
    let orphans = count(pruned.orphans, "object that belongs to none", "objects that belong to none");
    let segments = count(pruned.segments, "segment", "segments");
    let (size, objects) = (bytes(pruned.bytes), pruned.objects);
    writeln!(out, "{verb}: {snapshots}, {segments} of the archive and {orphans}; {size} in {objects} objects")?;
    for id in &pruned.snapshots {
        writeln!(out, "  {id}")?;
    }
    Ok(out.flush()?)
}
