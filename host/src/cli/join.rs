//! `antiphon join`: settle what becomes of a database that differs from the cluster's.

use std::io::Write as _;
use std::path::PathBuf;

use super::{Dev, Node};
use crate::db::Database;
use crate::failure::{Failure, Kind};
use crate::join::Rows;
use crate::node;
use crate::words::count;

/// Join a cluster with a database whose rows differ from the cluster's
///
/// `antiphon run` refuses such a database, because one side's rows have to give way. This says which.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("whose").required(true).args(["discard_local", "publish_local"]))]
pub(super) struct Join {
    #[command(flatten)]
    node: Node,
    #[command(flatten)]
    dev: Dev,
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
        let rows = if self.discard_local { Rows::DiscardLocal } else { Rows::PublishLocal };
        let loaded = self.node.load(self.log, None)?;
        crate::unread::file(&loaded.config.db_path)?;
        // A log that is not there is not made: there would be nobody to join.
        drop(super::look::log(&crate::components::carrier(&loaded.config)?)?);
        crate::telemetry::start(&loaded.config.logging)?;
        let runtime = super::runtime()?;
        let parts = crate::components::parts(&loaded.config, self.dev.pins())?;
        let mut opened = super::wait(&runtime, node::open(parts))?;
        let mut keep_copy = |db: &Database| {
            if rows == Rows::DiscardLocal {
                let copy = db.keep_copy().map_err(|error| {
                    Failure::caused(Kind::General, "cannot keep a copy of the database", &error)
                        .hint("see that the disk has room for it, and that this user may write beside the database")
                })?;
                writeln!(std::io::stderr(), "a copy of the database as it was: {}", copy.display())?;
            }
            Ok(())
        };
        let differences = super::wait(&runtime, opened.force(rows, &mut keep_copy))?;
        let mut out = std::io::stderr().lock();
        for difference in differences.iter().filter(|difference| !difference.is_none()) {
            match rows {
                Rows::DiscardLocal => writeln!(
                    out,
                    "table {}: {} discarded, {} taken from the cluster",
                    difference.table,
                    count(difference.only_here, "row", "rows"),
                    difference.only_there + difference.changed
                )?,
                Rows::PublishLocal => writeln!(
                    out,
                    "table {}: {} will be published, {} taken from the cluster",
                    difference.table,
                    count(difference.only_here + difference.changed, "row", "rows"),
                    difference.only_there
                )?,
            }
        }
        writeln!(out, "joined; go on with `antiphon run`, as you did before")?;
        Ok(())
    }
}
