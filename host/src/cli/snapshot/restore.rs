//! `antiphon snapshot restore`: a database comes back.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::Serialize;

use super::{Found, PARALLEL, Shown, Source, snapshot};
use crate::cli::json_line;
use crate::cli::shown::{bytes, utc};
use crate::failure::{Failure, Kind};
use crate::snapshot::{Checked, places, restore};
use antiphon_core::snapshot::id::SnapshotId;
use antiphon_core::snapshot::manifest::Manifest;

/// Bring the database of a snapshot back, as a new file
///
/// Every byte is compared with what was put, and SQLite looks at the whole before the file gets its name.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Restore {
    /// Its name; else the newest
    #[arg(value_name = "ID", value_parser = snapshot)]
    id: Option<SnapshotId>,
    /// The file; it must not be there yet
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    #[command(flatten)]
    source: Source,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    snapshot: Shown<'a>,
    output: String,
    dry_run: bool,
    seconds: f64,
    #[serde(flatten)]
    restored: Checked,
}

impl Restore {
    pub(super) fn run(self) -> Result<(), Failure> {
        let begun = Instant::now();
        let found = self.source.open()?;
        let (manifest, restored) = if self.dry_run {
            (found.manifest(self.id)?, Checked::default())
        } else {
            restored(&found, self.id, &self.output)?
        };
        let shown = Shown::of(&manifest);
        let mut out = io::stdout().lock();
        let output = self.output.display().to_string();
        if self.json {
            let seconds = begun.elapsed().as_secs_f64();
            return json_line(&mut out, &Report { snapshot: shown, output, dry_run: self.dry_run, seconds, restored });
        }
        let verb = if self.dry_run { "would be" } else { "is" };
        writeln!(out, "`{output}` {verb} the database of snapshot {}", shown.id)?;
        writeln!(out, "  as of  {}, at {}", utc(shown.created_ms), places(&manifest.positions))?;
        writeln!(out, "  holds  {} rows, {}", shown.rows, bytes(shown.bytes))?;
        Ok(out.flush()?)
    }
}

/// Of a snapshot that was not named, the one before it does, if it turns out to be damaged.
fn restored(found: &Found, id: Option<SnapshotId>, output: &Path) -> Result<(Manifest, Checked), Failure> {
    let mut manifest = found.manifest(id)?;
    loop {
        let failure = match restore(found.repo(), &manifest, PARALLEL, output) {
            Ok(restored) => return Ok((manifest, restored)),
            Err(failure) => failure,
        };
        if id.is_some() || !matches!(failure.kind(), Kind::Data | Kind::Missing) {
            return Err(failure);
        }
        let Some(older) = found.older(manifest.id)? else { return Err(failure) };
        tracing::warn!(%failure, "snapshot {} is passed over, and {} taken", manifest.id, older.id);
        manifest = older;
    }
}
