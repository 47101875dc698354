//! `antiphon log`: what the log holds, and how much of it is needed.

use std::path::PathBuf;

use super::Node;
use crate::failure::Failure;
use crate::log;
use crate::node::Carrier;

mod info;
mod peek;
mod reseed;
mod truncate;

/// Look at the log: which changes it holds, from whom, and how far it reaches
///
/// The log is never made, and nodes may be running on it.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    Peek(peek::Peek),
    Info(info::Info),
    Truncate(truncate::Truncate),
    Reseed(reseed::Reseed),
}

impl Command {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self {
            Self::Peek(peek) => peek.run(),
            Self::Info(info) => info.run(),
            Self::Truncate(truncate) => truncate.run(),
            Self::Reseed(reseed) => reseed.run(),
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

/// Where the log is, and the database if one is named.
struct Found {
    carrier: Carrier,
    database: Option<PathBuf>,
}

impl Found {
    fn look(&self) -> Result<log::Look, Failure> {
        super::look::log(&self.carrier)
    }
}

impl Source {
    fn find(self) -> Result<Found, Failure> {
        match (self.log, &self.node) {
            (Some(directory), Node { db: None, config: None }) => {
                Ok(Found { carrier: Carrier::Embedded(directory), database: None })
            }
            (log, _) => {
                let config = self.node.load(log, None)?.config;
                Ok(Found { carrier: crate::components::carrier(&config)?, database: Some(config.db_path) })
            }
        }
    }
}
