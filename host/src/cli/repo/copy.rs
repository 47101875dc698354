//! `antiphon repo copy`: a backup of the backups.

use std::io::{self, Write as _};

use crate::cli::json_line;
use crate::cli::shown::{bytes, count};
use crate::cli::snapshot::{PARALLEL, Source};
use crate::failure::Failure;
use crate::snapshot::copy;
use crate::storage::Progress;

/// Copy all snapshots of a cluster, and the log that is kept with them, into another storage
///
/// What is there already stays as it is, so the same command brings a copy up to date.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Copy {
    /// The storage to copy into: the NAME of a `[plugin.NAME]` of the same configuration
    #[arg(long, value_name = "NAME")]
    to: String,
    #[command(flatten)]
    source: Source,
    /// Only say what would be copied
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Copy {
    pub(super) fn run(self) -> Result<(), Failure> {
        let to = self.source.which().beside(self.to).open()?;
        let found = self.source.open()?;
        let planned = copy(&found.opened.store, &to.store, &found.cluster, PARALLEL, true)?;
        let copied = if self.dry_run {
            planned
        } else {
            let _shown = Progress::of(&found.opened.store.moved(), "copying", Some(planned.bytes));
            copy(&found.opened.store, &to.store, &found.cluster, PARALLEL, false)?
        };
        let mut out = io::stdout().lock();
        if self.json {
            return json_line(&mut out, &copied);
        }
        let verb = if self.dry_run { "would be copied" } else { "copied" };
        let objects = count(copied.objects, "object", "objects");
        let (all, place, there) = (bytes(copied.bytes), &to.place, copied.there);
        writeln!(out, "{objects} {verb}, {all}, to {place}; {there} were there")?;
        Ok(out.flush()?)
    }
}
