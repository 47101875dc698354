//! `antiphon storage check`: whether the storage can be used, and what to do if not.

use std::io::{self, Write};
use std::time::Instant;

use antiphon_core::store::Store as _;
use serde::Serialize;

use super::Which;
use crate::cli::json_line;
use crate::cli::shown::bytes;
use crate::failure::Failure;
use crate::storage::failure;

/// Check that the storage can be reached, knows us, and may be written
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Check {
    #[command(flatten)]
    which: Which,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    name: String,
    place: String,
    plugin: String,
    version: String,
    put_if_absent: bool,
    ranged_get: bool,
    atomic_put: bool,
    max_object: u64,
    milliseconds: u128,
}

impl Check {
    pub(super) fn run(self) -> Result<(), Failure> {
        let opened = self.which.open()?;
        let begun = Instant::now();
        opened.store.check().map_err(|error| failure(&error))?;
        let milliseconds = begun.elapsed().as_millis();
        let traits = opened.store.traits().map_err(|error| failure(&error))?;
        let info = opened.component.info();
        let report = Report {
            name: opened.name,
            place: opened.place,
            plugin: info.name.clone(),
            version: info.version.clone(),
            put_if_absent: traits.put_if_absent,
            ranged_get: traits.ranged_get,
            atomic_put: traits.atomic_put,
            max_object: traits.max_object,
            milliseconds,
        };
        let mut out = io::stdout().lock();
        if self.json {
            return json_line(&mut out, &report);
        }
        let can = |can: bool| if can { "yes" } else { "no" };
        writeln!(out, "{} at {}: it can be reached and written ({milliseconds} ms)", report.name, report.place)?;
        writeln!(out, "  plugin            {} {}", report.plugin, report.version)?;
        writeln!(out, "  largest object    {}", bytes(report.max_object))?;
        writeln!(out, "  put if absent     {}", can(report.put_if_absent))?;
        writeln!(out, "  whole or not      {}", can(report.atomic_put))?;
        writeln!(out, "  parts             {}", can(report.ranged_get))?;
        Ok(out.flush()?)
    }
}
