//! `antiphon repo check`: whether all that is kept is whole, and what is there for nothing.

use std::io::{self, Write as _};

use serde::Serialize;

use crate::cli::json_line;
use crate::cli::shown::{bytes, count};
use crate::cli::snapshot::{PARALLEL, Source};
use crate::failure::{Failure, Kind};
use crate::snapshot::{Level, Ways, check, repair_index};

/// Check that every snapshot has all of its objects, and count those that belong to none
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Check {
    /// Read every byte, and compare it with what was put
    #[arg(long)]
    read_data: bool,
    /// Make the index of a snapshot anew where it is damaged or gone, from its objects
    #[arg(long)]
    repair_index: bool,
    #[command(flatten)]
    source: Source,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Default, Serialize)]
struct Report {
    snapshots: u64,
    damaged: Vec<Damaged>,
    /// Snapshots whose index was made anew.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    repaired: Vec<String>,
    objects: u64,
    stored_bytes: u64,
    orphans: u64,
    orphan_bytes: u64,
}

#[derive(Debug, Serialize)]
struct Damaged {
    id: String,
    why: String,
}

impl Check {
    pub(super) fn run(self) -> Result<(), Failure> {
        let found = self.source.open()?;
        let repo = found.repo();
        let level = if self.read_data { Level::Hash } else { Level::Quick };
        let mut report = Report::default();
        let mut ways = None;
        let shown = found.progress("reading");
        for id in repo.ids()? {
            report.snapshots += 1;
            let checked = repo.manifest(id).and_then(|manifest| {
                if self.repair_index && manifest.is_full() && repair_index(repo, &manifest, PARALLEL)? {
                    report.repaired.push(id.to_string());
                }
                if manifest.is_full() {
                    return check(repo, &manifest, level, PARALLEL, &std::env::temp_dir());
                }
                let ways = match &mut ways {
                    Some(ways) => ways,
                    None => ways.insert(Ways::of(repo)?),
                };
                ways.check(repo, &manifest, level)
            });
            match checked {
                Ok(checked) => {
                    report.objects += checked.objects;
                    report.stored_bytes += checked.stored_bytes;
                }
                // A store that is away says nothing of what it keeps.
                Err(failure) if !matches!(failure.kind(), Kind::Data | Kind::Missing) => return Err(failure),
                Err(failure) => report.damaged.push(Damaged { id: id.to_string(), why: failure.to_string() }),
            }
        }
        let orphans = repo.orphans()?;
        (report.orphans, report.orphan_bytes) = (orphans.len() as u64, orphans.iter().map(|(_, size)| size).sum());
        drop(shown);
        let mut out = io::stdout().lock();
        if self.json {
            json_line(&mut out, &report)?;
        } else {
            for id in &report.repaired {
                writeln!(out, "{id}  its index was made anew")?;
            }
            for Damaged { id, why } in &report.damaged {
                writeln!(out, "{id}  BAD: {why}")?;
            }
            let whole = report.snapshots - report.damaged.len() as u64;
            let (objects, stored) = (count(report.objects, "object", "objects"), bytes(report.stored_bytes));
            writeln!(
                out,
                "{whole} of {} whole: {objects}, {stored}",
                count(report.snapshots, "snapshot", "snapshots")
            )?;
            if report.orphans > 0 {
                let of_none = count(report.orphans, "object belongs to none", "objects belong to none");
                let size = bytes(report.orphan_bytes);
                writeln!(out, "{of_none}, {size}: `antiphon snapshot prune` removes what is two days old")?;
            }
            out.flush()?;
        }
        if report.damaged.is_empty() {
            return Ok(());
        }
        Err(Failure::new(Kind::Unwell, "a snapshot is not what was put there").hint(
            "make a new one: `antiphon snapshot create`; then forget the damaged ones: `antiphon snapshot forget ID`",
        ))
    }
}
