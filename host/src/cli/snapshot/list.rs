//! `antiphon snapshot list`: which there are.

use std::io::{self, Write as _};

use super::{Shown, Source};
use crate::cli::json_line;
use crate::cli::shown::{bytes, utc};
use crate::failure::{Failure, Kind};
use crate::snapshot::places;

/// List snapshots, the newest first: name, time, rows, size, and where each stands in the log
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct List {
    #[command(flatten)]
    source: Source,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

impl List {
    pub(super) fn run(self) -> Result<(), Failure> {
        let found = self.source.open()?;
        let repo = found.repo();
        let mut out = io::stdout().lock();
        for id in repo.ids()? {
            let manifest = match repo.manifest(id) {
                Ok(manifest) => manifest,
                // It may have gone meanwhile.
                Err(failure) if failure.kind() == Kind::Missing => continue,
                Err(failure) if failure.kind() == Kind::Data => {
                    writeln!(io::stderr().lock(), "{id} does not count: {failure}")?;
                    continue;
                }
                Err(failure) => return Err(failure),
            };
            let shown = Shown::of(&manifest);
            if self.json {
                json_line(&mut out, &shown)?;
                continue;
            }
            writeln!(
                out,
                "{}  {}  {:>10} rows  {:>10}  {}",
                shown.id,
                utc(shown.created_ms),
                shown.rows,
                bytes(shown.bytes),
                places(&manifest.positions)
            )?;
        }
        Ok(out.flush()?)
    }
}
