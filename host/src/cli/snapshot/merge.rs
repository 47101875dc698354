//! `antiphon snapshot merge`: fewer segments in the archive, with all that is in them.

use std::io::{self, Write as _};
use std::sync::atomic::AtomicBool;

use super::Source;
use crate::cli::json_line;
use crate::cli::shown::{bytes, count};
use crate::failure::{Failure, Kind};
use crate::snapshot::{packing, spans};

/// Make one segment of those that the archive has of each hour and day that is over
///
/// A running node does it by itself, and `merge_short` and `merge_long` under `[snapshot]` say other times. Every point in time that could be reached still can be; what went into a merged
/// segment is removed by the next `antiphon snapshot prune` after a day.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Merge {
    #[command(flatten)]
    source: Source,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Merge {
    pub(super) fn run(self) -> Result<(), Failure> {
        let found = self.source.open()?;
        let spans = spans(&found.config);
        let repo = found.repo();
        let merged = if self.dry_run {
            repo.mergeable(&spans)?
        } else {
            repo.merge(&spans, &packing(&found.config), &AtomicBool::new(false))?
        };
        let mut out = io::stdout().lock();
        if self.json {
            json_line(&mut out, &merged)?;
        } else {
            let verb = if self.dry_run { "would be merged" } else { "merged" };
            let parts = count(merged.parts, "segment", "segments");
            writeln!(out, "{verb}: {parts} of {} into {}", bytes(merged.part_bytes), merged.segments)?;
        }
        out.flush()?;
        if merged.failed.is_empty() {
            return Ok(());
        }
        Err(Failure::new(Kind::Data, format!("some segments could not be merged: {}", merged.failed.join("; ")))
            .hint("`antiphon snapshot verify --all --level restore` says which points in time are lost with them"))
    }
}
