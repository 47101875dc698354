//! `antiphon snapshot create`: the running node makes one.

use std::io::{self, Write as _};
use std::time::Duration;

use serde::Serialize;

use crate::cli::{Node, json_line};
use crate::errand::{self, Errand};
use crate::failure::{Failure, Kind};

/// How long a node may take: large databases go to slow places.
const PATIENCE: Duration = Duration::from_secs(24 * 60 * 60);
/// When the user is told that it is still under way, and how often after that.
const NOTICE: Duration = Duration::from_secs(5);

/// Have the running node make a snapshot now, and wait for it
///
/// It holds every row that is in the log, and none that is not; the application is not stopped for it.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Create {
    #[command(flatten)]
    node: Node,
    /// Only what changed since the last one: a point to go back to, in a moment, that needs the one before it
    #[arg(long)]
    incremental: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    id: String,
}

impl Create {
    pub(super) fn run(self) -> Result<(), Failure> {
        let config = self.node.load(None, None)?.config;
        if !config.snapshot.enabled {
            return Err(Failure::config("`snapshot.enabled` is off: this node makes no snapshots")
                .hint("set `enabled = true` under `[snapshot]`, and start the node again"));
        }
        let mut next = NOTICE;
        let waiting = |waited: Duration| {
            if waited >= next {
                next += NOTICE;
                let _ = writeln!(io::stderr().lock(), "the snapshot is being made, for {} s now", waited.as_secs());
            }
        };
        let errand = if self.incremental { Errand::Increment } else { Errand::Snapshot };
        let said = errand::ask(&config.db_path, &config.state_dir(), errand, PATIENCE, waiting)
            .map_err(|failure| {
                if failure.kind() == Kind::General && failure.hints().is_empty() {
                    return failure.hint("start it: `antiphon run`; a snapshot is made by a node that runs");
                }
                failure
            })
            .map_err(|failure| failure.context("Unable to save snapshot"))?;
        let mut out = io::stdout().lock();
        let id = said.first().cloned().unwrap_or_default();
        if self.json {
            return json_line(&mut out, &Report { id });
        }
        writeln!(out, "Snapshot saved: {id}")?;
        for line in said.iter().skip(1) {
            writeln!(out, "  {line}")?;
        }
        Ok(out.flush()?)
    }
}
