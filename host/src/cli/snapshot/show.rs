//! `antiphon snapshot show`: all that one says of itself.

use std::io::{self, Write as _};

use super::{Source, snapshot};
use crate::cli::json_line;
use crate::cli::shown::{bytes, utc};
use crate::failure::Failure;
use crate::snapshot::places;
use antiphon_core::snapshot::id::SnapshotId;

/// Show what a snapshot says of itself
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Show {
    /// Its name; else the newest
    #[arg(value_name = "ID", value_parser = snapshot)]
    id: Option<SnapshotId>,
    #[command(flatten)]
    source: Source,
    /// Print its manifest, which is JSON
    #[arg(long)]
    json: bool,
}

impl Show {
    pub(super) fn run(self) -> Result<(), Failure> {
        let found = self.source.open()?;
        let manifest = found.manifest(self.id)?;
        let mut out = io::stdout().lock();
        if self.json {
            return json_line(&mut out, &manifest);
        }
        writeln!(out, "{}", manifest.id)?;
        writeln!(
            out,
            "  made      {} by node {}, because {}",
            utc(manifest.created_ms),
            manifest.node,
            manifest.trigger
        )?;
        writeln!(out, "  took      {} ms", manifest.took_ms)?;
        writeln!(out, "  kind      {}", manifest.kind.name())?;
        if let Some(parent) = manifest.parent {
            writeln!(out, "  goes on   from {parent}")?;
        }
        writeln!(out, "  cluster   {}", manifest.cluster)?;
        writeln!(out, "  stands at {}", places(&manifest.positions))?;
        if let Some(image) = &manifest.image {
            writeln!(out, "  database  {}, {} {}", bytes(image.bytes), image.method.name(), image.level)?;
            writeln!(out, "  blake3    {}", image.blake3)?;
        }
        for table in &manifest.tables {
            writeln!(out, "  {:>12} rows in `{}`", table.rows, table.name)?;
        }
        for table in &manifest.left_out {
            writeln!(out, "  `{table}` is of that node alone")?;
        }
        Ok(out.flush()?)
    }
}
