//! `antiphon log reseed`: a log that is lost begins again with what one node has.

use std::io::Write as _;
use std::path::PathBuf;

use crate::anew::Leave;
use crate::cli::{Dev, Node, runtime, wait};
use crate::failure::{Failure, Kind};
use crate::node;

/// Begin a log again that was lost, with the rows of this database
///
/// For a log whose directory or streams are gone, or, with --discard-log, one that no node can go on from. All nodes have
/// to be stopped. Choose the one with the latest rows: the others take its rows as a snapshot when they are started, and
/// send again what they wrote and it does not have.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Reseed {
    #[command(flatten)]
    node: Node,
    #[command(flatten)]
    dev: Dev,
    /// Directory of the embedded log
    #[arg(long, value_name = "DIR")]
    log: Option<PathBuf>,
    /// Let go of all that the log still holds
    #[arg(long)]
    discard_log: bool,
}

impl Reseed {
    pub(in crate::cli) fn run(self) -> Result<(), Failure> {
        let loaded = self.node.load(self.log, None)?;
        crate::unread::file(&loaded.config.db_path)?;
        crate::telemetry::start(&loaded.config.logging)?;
        if !loaded.config.snapshot.enabled {
            return Err(Failure::config("`snapshot.enabled` is off: the other nodes could not follow")
                .hint("set `enabled = true` under `[snapshot]` on all nodes, with the same storage"));
        }
        let runtime = runtime()?;
        let mut parts = crate::components::parts(&loaded.config, self.dev.pins())?;
        parts.leave = Leave::Told;
        let mut opened = wait(&runtime, node::open(parts))?;
        if !wait(&runtime, opened.reseed(self.discard_log))? {
            return Err(Failure::new(Kind::Refused, "the log holds entries: it is not lost")
                .hint("`antiphon run` goes on from it, or says what stands in the way")
                .hint(
                    "where no node can go on from it, `antiphon log reseed --discard-log` lets go of what it holds",
                ));
        }
        writeln!(
            std::io::stderr(),
            "the log begins again with this database; start this node first: `antiphon run`, then the others"
        )?;
        Ok(())
    }
}
