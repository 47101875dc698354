//! `antiphon policy`: who decides clashes in a cluster that runs, looked at and changed.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::{Dev, Node};
use crate::db::{Known, NodeState};
use crate::failure::{Failure, Kind};
use crate::log::{Log, Shard};
use crate::place::Place;
use crate::{join, policies};
use antiphon_core::entry::{ClusterId, Policy};

mod apply;
mod show;

/// Look at who decides clashes in a cluster, and change it for all nodes
///
/// Policies stand in the log. A node started with another `[conflict]` goes on with the log's.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    Show(show::Show),
    Apply(apply::Apply),
}

impl Command {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self {
            Self::Show(show) => show.run(),
            Self::Apply(apply) => apply.run(),
        }
    }
}

/// Whose policies, and by which configuration.
#[derive(Debug, clap::Args)]
struct Source {
    #[command(flatten)]
    node: Node,
    #[command(flatten)]
    dev: Dev,
    /// Directory of the embedded log
    #[arg(long, value_name = "DIR")]
    log: Option<PathBuf>,
}

/// A cluster's policies, and those of a configuration.
struct Found {
    log: Arc<dyn Log>,
    cluster: ClusterId,
    node: NodeState,
    positions: BTreeMap<Shard, u64>,
    /// What the database knows.
    known: Known,
    /// What the log says by now.
    now: Known,
    /// What the configuration says.
    own: Vec<Policy>,
}

impl Source {
    async fn find(self) -> Result<Found, Failure> {
        let loaded = self.node.load(self.log, None)?;
        let path = loaded.config.db_path.clone();
        let look = super::look::database(&path)?;
        let unread = |error| super::look::unread(&path, &error);
        let node = look.node().map_err(unread)?.ok_or_else(|| super::look::never_ran(&path))?;
        let known = look.policies().map_err(unread)?;
        let (Some((cluster, _)), Some(known)) = (node.cluster, known) else {
            return Err(Failure::new(
                Kind::General,
                "this database belongs to no cluster: its configuration is what will hold",
            )
            .hint("run it first: `antiphon run`"));
        };
        let mut carrier = crate::components::carrier(&loaded.config)?;
        if carrier.directory().is_some() {
            // A log that is not there is not made: it could not say anything.
            drop(super::look::log(&carrier)?);
        }
        let own = crate::components::agreed(&loaded, self.dev.pins())?.all_policies();
        let log = carrier.open(&Place::find(&path)?).await?;
        match join::cluster_of(&*log).await? {
            Some(found) if found == cluster => {}
            Some(_) => return Err(join::other_cluster()),
            None => return Err(join::log_gone()),
        }
        let positions = node.positions.iter().copied().collect();
        let now = policies::standing(&*log, known.clone(), &positions).await?;
        Ok(Found { log, cluster, node, positions, known, now, own })
    }
}
