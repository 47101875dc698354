//! `antiphon repo stats`: what came and went, day by day.

use std::collections::BTreeMap;
use std::io::{self, Write as _};

use serde::Serialize;

use crate::cli::json_line;
use crate::cli::shown::{bytes, utc};
use crate::cli::snapshot::Source;
use crate::failure::Failure;

/// Milliseconds of a day.
const DAY: u64 = 86_400_000;

/// Print for each day how many snapshots were made and forgotten, their bytes, and how long they took
///
/// Days are those of UTC, and only what is still kept counts.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Stats {
    #[command(flatten)]
    source: Source,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Default, Serialize)]
struct Line {
    day: String,
    created: u64,
    deleted: u64,
    bytes: u64,
    stored_bytes: u64,
    /// Stored bytes of 100 in the database.
    percent: f64,
    mean_ms: u64,
    #[serde(skip)]
    took_ms: u64,
}

impl Stats {
    pub(super) fn run(self) -> Result<(), Failure> {
        let found = self.source.open()?;
        let repo = found.repo();
        let mut days: BTreeMap<u64, Line> = BTreeMap::new();
        for (manifest, marks) in repo.all()?.snapshots {
            let line = days.entry(manifest.created_ms / DAY).or_default();
            line.created += 1;
            line.bytes += manifest.image.as_ref().map_or(0, |image| image.bytes);
            line.stored_bytes += repo.stored_bytes(manifest.id)?;
            line.took_ms += manifest.took_ms;
            if let Some(at) = marks.forgotten_ms {
                days.entry(at / DAY).or_default().deleted += 1;
            }
        }
        let mut out = io::stdout().lock();
        for (day, mut line) in days {
            line.day = utc(day * DAY).chars().take(10).collect();
            line.percent = if line.bytes > 0 { line.stored_bytes as f64 * 100.0 / line.bytes as f64 } else { 0.0 };
            line.mean_ms = line.took_ms.checked_div(line.created).unwrap_or(0);
            if self.json {
                json_line(&mut out, &line)?;
                continue;
            }
            let Line { day, created, deleted, percent, mean_ms, .. } = &line;
            let (raw, stored) = (bytes(line.bytes), bytes(line.stored_bytes));
            writeln!(
                out,
                "{day}  {created:>4} made  {deleted:>4} forgotten  {raw:>10} as {stored:>10} ({percent:.0}%)  {mean_ms:>6} ms each"
            )?;
        }
        Ok(out.flush()?)
    }
}
