//! `antiphon policy apply`: the policies of this configuration become the cluster's.

use std::io::Write as _;

use super::{Found, Source};
use crate::failure::{Failure, Kind};
use crate::policies::{self, Proposed};

/// Make the policies of this configuration the cluster's, on all nodes at the same place
///
/// They are put into the log, and hold from an entry of each shard on, which follows by itself once every node that is
/// there notes what they need to know. Nodes may be running; one that lacks a component pauses there and says what to
/// configure.
///
/// A table that gets its first policy goes by it from there on: what was written before goes by the order of the log, as
/// it did. From one policy to another nothing is forgotten.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Apply {
    #[command(flatten)]
    source: Source,
    /// Say what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Send all rows of a table to one shard; not possible yet
    #[arg(long, value_name = "TABLE=whole")]
    route: Option<String>,
}

impl Apply {
    pub(super) fn run(self) -> Result<(), Failure> {
        if let Some(route) = &self.route {
            return Err(unroutable(route));
        }
        let runtime = super::super::runtime()?;
        let Found { log, cluster, node, positions, known, now, own } =
            super::super::wait(&runtime, self.source.find())?;
        let mut out = std::io::stdout().lock();
        let Some(difference) = policies::difference(&now.decided.policies, &own) else {
            return Ok(writeln!(
                out,
                "the log's policies are this configuration's already, as version {}",
                now.decided.version
            )?);
        };
        let mut talk = std::io::stderr().lock();
        if self.dry_run {
            writeln!(out, "{difference}")?;
            return Ok(writeln!(
                talk,
                "nothing was changed; without `--dry-run` this configuration's become the cluster's"
            )?);
        }
        // Upon what the log says by now: whoever was quicker has been looked at.
        let upon = crate::db::Known { decided: now.decided.clone(), ..known };
        let proposal = policies::propose(&*log, (cluster, node.origin), &upon, &positions, &own);
        match super::super::wait(&runtime, proposal)? {
            Proposed::Decided(version) => {
                writeln!(out, "decided as version {version}")?;
                Ok(writeln!(
                    talk,
                    "it comes into force shard by shard while nodes run; `antiphon policy show` tells where it holds"
                )?)
            }
            Proposed::Overtaken(decision) => Err(Failure::new(
                Kind::Busy,
                format!("other policies were decided on at the same time, as version {}", decision.version),
            )
            .hint("see what they are with `antiphon policy show`, and propose again if yours should follow them")),
        }
    }
}

fn unroutable(route: &str) -> Failure {
    let table = route.split_once('=').map_or(route, |(table, _)| table);
    Failure::usage(format!(
        "rows of `{table}` can't move to one shard while the cluster runs: shards have no order among one another that \
         would say which of two changes came last"
    ))
    .hint("drop the UNIQUE index, or exclude the table with `exclude` under `[capture]`")
    .hint(
        "or found the cluster anew with the index in place, which sends the table to one shard from the start: stop all \
         nodes, `antiphon cleanup` each database, remove the log's directory, and run the one with the latest rows first",
    )
}
