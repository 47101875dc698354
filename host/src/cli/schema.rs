//! `antiphon schema`: the tables of all nodes, side by side.

use crate::failure::Failure;

mod status;

/// Compare the tables of all nodes of a cluster
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    Status(status::Status),
}

impl Command {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self {
            Self::Status(status) => status.run(),
        }
    }
}
