//! `antiphon cleanup`: leave no trace in a database.

use super::Node;
use crate::failure::Failure;

/// Remove every trigger and table of ours from a database
///
/// The application's own tables and rows stay as they are. Changes that no other node has seen yet are given up.
#[derive(Debug, clap::Args)]
pub(super) struct Cleanup {
    #[command(flatten)]
    node: Node,
    /// Say what would be removed, and remove nothing
    #[arg(long)]
    dry_run: bool,
}

impl Cleanup {
    pub(super) fn run(self) -> Result<(), Failure> {
        let _ = (self.node.load(None, None)?, self.dry_run);
        Err(super::not_built("cleanup"))
    }
}
