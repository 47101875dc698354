//! `antiphon run`: replicate a database until told to stop.

use std::path::PathBuf;

use super::Node;
use crate::failure::Failure;

/// Replicate a database until told to stop
///
/// Without a configuration file the log is kept beside the database, and all tables are replicated.
#[derive(Debug, clap::Args)]
pub(super) struct Run {
    #[command(flatten)]
    node: Node,
    /// Directory of the embedded log; nodes that name the same one replicate with each other
    #[arg(long, value_name = "DIR")]
    log: Option<PathBuf>,
    /// Number of this node, different on every node; 0 or none: from the configuration, else made once at random
    #[arg(long, value_name = "N")]
    node_id: Option<u64>,
}

impl Run {
    pub(super) fn run(self) -> Result<(), Failure> {
        let loaded = self.node.load(self.log, self.node_id)?;
        crate::telemetry::start(&loaded.config.logging)?;
        loaded.warn();
        Err(super::not_built("run"))
    }
}
