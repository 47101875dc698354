//! `antiphon demo`: two nodes in a temporary folder, for those who want to see before they read.

use crate::failure::Failure;

/// Show replication at work: two nodes in a temporary folder
#[derive(Debug, clap::Args)]
pub(super) struct Demo {
    /// Leave the folder and the nodes, and say how to go on by hand
    #[arg(long)]
    keep: bool,
}

impl Demo {
    pub(super) fn run(self) -> Result<(), Failure> {
        let _ = self.keep;
        Err(super::not_built("demo"))
    }
}
