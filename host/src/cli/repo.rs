//! `antiphon repo`: all that is kept of a cluster in a storage, taken together.

use crate::failure::Failure;

mod check;
mod copy;
mod stats;

/// Look after all that a storage keeps of a cluster
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    Stats(stats::Stats),
    Check(check::Check),
    Copy(copy::Copy),
}

impl Command {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self {
            Self::Stats(stats) => stats.run(),
            Self::Check(check) => check.run(),
            Self::Copy(copy) => copy.run(),
        }
    }
}
