//! `antiphon log truncate`: what nobody needs any more goes.

use std::io::{self, Write as _};
use std::time::Duration;

use serde::Serialize;

use crate::cli::{Node, json_line};
use crate::errand::{self, Errand};
use crate::failure::{Failure, Kind};

/// How long a node may take.
const PATIENCE: Duration = Duration::from_secs(600);

/// Have the running node let go of entries that nobody needs any more
///
/// Those are older than what two verified snapshots need to go on, and every node has read them. The node that leads does
/// this by itself, after each snapshot and every ten minutes.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Truncate {
    #[command(flatten)]
    node: Node,
    /// Only say what would go
    #[arg(long)]
    dry_run: bool,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Line {
    shard: u64,
    up_to: u64,
    dry_run: bool,
}

impl Truncate {
    pub(super) fn run(self) -> Result<(), Failure> {
        let config = self.node.load(None, None)?.config;
        if !config.snapshot.enabled {
            return Err(Failure::config("`snapshot.enabled` is off: nothing but the log holds what would go")
                .hint("set `enabled = true` under `[snapshot]`, and start the node again"));
        }
        let errand = if self.dry_run { Errand::LookAtLog } else { Errand::CutLog };
        let said = errand::ask(&config.db_path, &config.state_dir(), errand, PATIENCE, |_| {}).map_err(|failure| {
            if failure.kind() == Kind::General && failure.hints().is_empty() {
                return failure.hint("start it: `antiphon run`; a node that runs knows what the others have read");
            }
            failure
        })?;
        let mut out = io::stdout().lock();
        for line in &said {
            let Some((shard, up_to)) = line.split_once(' ') else { continue };
            let (Ok(shard), Ok(up_to)) = (shard.parse(), up_to.parse()) else { continue };
            if self.json {
                json_line(&mut out, &Line { shard, up_to, dry_run: self.dry_run })?;
                continue;
            }
            let verb = if self.dry_run { "would go" } else { "are gone" };
            writeln!(out, "shard {shard}: entries up to {up_to} {verb}")?;
        }
        out.flush()?;
        if said.is_empty() && !self.json {
            writeln!(
                io::stderr().lock(),
                "nothing is superfluous: two verified snapshots, and all nodes, need what the log has"
            )?;
        }
        Ok(())
    }
}
