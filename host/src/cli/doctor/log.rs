//! The log this node belongs to, and the clocks of those who write to it.

use std::collections::BTreeMap;
use std::path::Path;

use antiphon_core::codec;

use super::super::shown::count;
use super::{Failed, Found, Patient};
use crate::log::{Announced, Difference};
use crate::node::Carrier;

/// A clock that is ahead by more than this is wrong, not late.
const AHEAD_MAX_MS: u64 = 60_000;
/// So many of a shard's newest entries are asked for their clocks.
const ENTRIES_ASKED: u64 = 256;

/// A member needs its log, and the log must reach as far as the member has read.
pub(super) fn reachable(patient: &Patient, found: &mut Found) -> Result<(), Failed> {
    let Some(node) = patient.node.as_ref().filter(|node| node.cluster.is_some()) else { return Ok(()) };
    let Some(log) = patient.log.look()? else {
        found.error(
            None,
            format!("there is no log in `{}`", patient.log.directory().unwrap_or(Path::new("")).display()),
            "this database belongs to a cluster, and its changes go to the cluster's log alone",
            "name the log's directory with `--log DIR`, as `antiphon run` was given it; or bring the directory back as it was",
        );
        return Ok(());
    };
    for (shard, position) in &node.positions {
        let last = log.bounds(*shard)?.last;
        if last < *position {
            found.error(
                None,
                format!("this node has applied entry {position} of shard {shard}, and the log ends at {last}"),
                "it is another log, or an old copy of it",
                match patient.log {
                    Carrier::Embedded(_) => "point `--log`, or `path` under `[log]`, at the log it was run with before",
                    Carrier::Nats(_) => "look at `urls` and `stream_prefix` under `[nats]`: they are to name the log it was run with before",
                },
            );
        }
    }
    Ok(())
}

/// Clocks don't decide what stands, but their times are what people and some policies go by.
pub(super) fn clock(patient: &Patient, found: &mut Found) -> Result<(), Failed> {
    let Some(log) = patient.log.look()? else { return Ok(()) };
    let now = crate::clock::unix_ms();
    let (mut written, mut taken): (BTreeMap<u64, u64>, u64) = (BTreeMap::new(), 0);
    for shard in log.shards()? {
        let last = log.bounds(shard)?.last;
        log.each(shard, last.saturating_sub(ENTRIES_ASKED), |placed| {
            taken = taken.max(placed.time / 1_000_000);
            if let Ok(entry) = codec::decode(&placed.frame)
                && placed.may_say(&entry)
            {
                let clock = written.entry(entry.origin.node).or_default();
                *clock = entry.clock.max(*clock);
            }
            Ok::<_, crate::log::Error>(true)
        })?;
    }
    let why = "times in records and logs can't be compared, and where the newest write wins the clock that is ahead wins always";
    let remedy = "set the clocks of all machines by NTP or chrony, and look at the one that differs first";
    for (node, clock) in written {
        let ahead = clock.saturating_sub(now.max(taken));
        if ahead > AHEAD_MAX_MS {
            found.warning(
                None,
                format!("the clock of node {node} is {} ahead of the log's", count(ahead / 1000, "second", "seconds")),
                why,
                remedy,
            );
        }
    }
    let behind = taken.saturating_sub(now);
    if behind > AHEAD_MAX_MS {
        found.warning(
            None,
            format!(
                "this machine's clock is {} behind the newest entry of the log",
                count(behind / 1000, "second", "seconds")
            ),
            why,
            remedy,
        );
    }
    Ok(())
}

/// Whether resolvers answer alike on all nodes, by what members say of it.
pub(super) fn answers(patient: &Patient, found: &mut Found) -> Result<(), Failed> {
    let Some(log) = patient.log.look()? else { return Ok(()) };
    for Announced { member, .. } in log.members()? {
        for Difference { node, shard, seq, table, policy } in &member.differences {
            found.error(
                Some(table),
                format!(
                    "the resolver `{policy}` answered the clash of entry {seq} of shard {shard} otherwise on node {} than on \
                     node {node}",
                    member.node
                ),
                "what it answers must depend on the clash alone; so the rows of the two may differ from there on",
                "see with `antiphon plugin check` whether it only computes, put another in its place with `antiphon policy \
                 apply`, and then take the rows of the node that is right with `antiphon join --discard-local` on the other",
            );
        }
    }
    Ok(())
}
