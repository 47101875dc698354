//! `antiphon join`: settle what becomes of a database that differs from the cluster's.

use std::path::PathBuf;

use super::Node;
use crate::failure::Failure;

/// Join a cluster with a database whose rows differ from the cluster's
///
/// `antiphon run` refuses such a database, because one side's rows have to give way. This says which.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("whose").required(true).args(["discard_local", "publish_local"]))]
pub(super) struct Join {
    #[command(flatten)]
    node: Node,
    /// Directory of the embedded log
    #[arg(long, value_name = "DIR")]
    log: Option<PathBuf>,
    /// Take the cluster's rows; a copy of the database is kept beside it
    #[arg(long)]
    discard_local: bool,
    /// Send this database's rows to the cluster, as changes made here
    #[arg(long)]
    publish_local: bool,
}

impl Join {
    pub(super) fn run(self) -> Result<(), Failure> {
        let _ = (self.node.load(self.log, None)?, self.discard_local, self.publish_local);
        Err(super::not_built("join"))
    }
}
