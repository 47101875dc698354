//! `antiphon log`: what the embedded log holds, only looked at.

use std::path::PathBuf;

use super::Node;
use crate::failure::Failure;

mod info;
mod peek;

/// Look at the embedded log: which changes it holds, from whom, and how far it reaches
///
/// The log is only read, never made, and nodes may be running on it.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    Peek(peek::Peek),
    Info(info::Info),
}

impl Command {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self {
            Self::Peek(peek) => peek.run(),
            Self::Info(info) => info.run(),
        }
    }
}

/// Which log.
#[derive(Debug, clap::Args)]
struct Source {
    #[command(flatten)]
    node: Node,
    /// Directory of the embedded log; with it no database needs to be named
    #[arg(long, value_name = "DIR")]
    log: Option<PathBuf>,
}

/// The directory of the log, and the database if one is named.
struct Found {
    directory: PathBuf,
    database: Option<PathBuf>,
}

impl Source {
    fn find(self) -> Result<Found, Failure> {
        match (self.log, &self.node) {
            (Some(directory), Node { db: None, config: None }) => Ok(Found { directory, database: None }),
            (log, _) => {
                let config = self.node.load(log, None)?.config;
                Ok(Found { directory: config.log.path, database: Some(config.db_path) })
            }
        }
    }
}
