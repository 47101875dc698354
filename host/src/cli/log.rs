//! `antiphon log`: what the embedded log holds, only looked at.

use std::path::{Path, PathBuf};

use super::Node;
use crate::failure::{Failure, Kind};
use crate::log;
use crate::node::Carrier;

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

/// Where the log is, and the database if one is named.
struct Found {
    carrier: Carrier,
    database: Option<PathBuf>,
}

impl Found {
    /// The log's directory.
    fn directory(&self) -> Result<&Path, Failure> {
        self.carrier.directory().ok_or_else(|| {
            Failure::new(Kind::NotBuilt, format!("the log is on {}, and this version prints only an embedded one", self.carrier))
                .hint("`antiphon status` shows how far it reaches and who is in it; `log peek --pending` what is not in it yet")
        })
    }

    fn look(&self) -> Result<log::Look, Failure> {
        super::look::log(self.directory()?)
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
                Ok(Found { carrier: crate::components::carrier(&config), database: Some(config.db_path) })
            }
        }
    }
}
