//! Policies of a cluster: what its log says of them now, in words, and what is proposed instead.

use crate::db::Known;
use crate::failure::{Failure, Kind};
use crate::join::{each_setting, unreachable_log};
use crate::log::{Log, Placed, Shard};
use antiphon_core::codec::{self, Encoder};
use antiphon_core::entry::{Body, Bounds, ClusterId, Decision, Entry, InForce, OnFailure, Origin, Policy};
use std::collections::BTreeMap;

/// Bytes of entries read at once.
const READ_BYTES_MAX: usize = 4 << 20;
/// How often a proposal is made again while others are quicker.
const TRIES: usize = 5;

/// What became of a proposal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Proposed {
    /// It is decided.
    Decided(u64),
    /// Others were quicker, and this is what they decided.
    Overtaken(Decision),
}

/// What the log says of policies by now, from what a database knows of them at these positions on.
pub(crate) async fn standing(
    log: &dyn Log,
    mut known: Known,
    positions: &BTreeMap<Shard, u64>,
) -> Result<Known, Failure> {
    let shards: Vec<Shard> = known.in_force.keys().copied().collect();
    let mut decided = BTreeMap::from([(known.decided.version, known.decided.policies.clone())]);
    // The first shard first: what holds in the others was decided on there.
    for shard in shards {
        let mut after = positions.get(&shard).copied().unwrap_or(0);
        loop {
            let entries = log.read(shard, after, READ_BYTES_MAX).await.map_err(unreachable_log)?;
            let Some(last) = entries.last() else { break };
            after = last.seq;
            for entry in entries.iter().filter_map(said_by) {
                match entry.body {
                    Body::Decided(decision) if shard == 1 && decision.version == known.decided.version + 1 => {
                        decided.insert(decision.version, decision.policies.clone());
                        known.decided = decision;
                    }
                    Body::InForce(InForce { decision, .. })
                        if decided.get(&decision.version) == Some(&decision.policies) =>
                    {
                        let version = known.in_force.entry(shard).or_default();
                        *version = decision.version.max(*version);
                    }
                    _ => {}
                }
            }
        }
    }
    Ok(known)
}

/// The entry in its place, if it is by whom it says.
fn said_by(placed: &Placed) -> Option<Entry> {
    codec::decode(&placed.frame).ok().filter(|entry| placed.may_say(entry))
}

/// Proposes policies to all nodes of a cluster: they hold from an entry of the log on, which comes after this.
pub(crate) async fn propose(
    log: &dyn Log,
    (cluster, origin): (ClusterId, Origin),
    known: &Known,
    positions: &BTreeMap<Shard, u64>,
    policies: &[Policy],
) -> Result<Proposed, Failure> {
    let voice = origin.voice();
    let version = known.decided.version + 1;
    let body = Body::Decided(Decision { version, policies: policies.to_vec() });
    let frame = Encoder::new(None)
        .encode(&Entry { cluster, origin, number: 0, clock: 0, body })
        .map_err(|error| Failure::caused(Kind::General, "cannot encode the policies", &error))?;
    for _ in 0..TRIES {
        let last = log.last_number(1, voice).await.map_err(unreachable_log)?;
        // Whether it was taken is for the log to say, and who was first.
        log.append(1, voice, last + 1, std::slice::from_ref(&frame)).await.map_err(unreachable_log)?;
        let now = standing(log, known.clone(), positions).await?;
        if now.decided.version >= version {
            let is_mine = now.decided.version == version && now.decided.policies == policies;
            return Ok(if is_mine { Proposed::Decided(version) } else { Proposed::Overtaken(now.decided) });
        }
    }
    Err(Failure::new(Kind::Busy, "the log did not take the policies").hint("try again"))
}

/// How what the log says differs from what a configuration says; nothing if they agree.
pub(crate) fn difference(log: &[Policy], here: &[Policy]) -> Option<String> {
    let only = |one: &[Policy], other: &[Policy]| {
        let only = one.iter().filter(|policy| !other.contains(policy)).map(said).collect::<Vec<_>>();
        if only.is_empty() { "none besides".to_owned() } else { only.join(", ") }
    };
    if log == here {
        return None;
    }
    let (there, mine) = (only(log, here), only(here, log));
    Some(if there == mine {
        "the log's policies stand in another order than this configuration's".to_owned()
    } else {
        format!("the log's policies are {there}, and this configuration's are {mine}")
    })
}

/// A policy as the configuration has it.
pub(crate) fn said(policy: &Policy) -> String {
    let Policy { pattern, resolver, settings, on_failure } = policy;
    let (named, with) = said_parts(resolver, settings, *on_failure);
    if pattern.is_empty() {
        format!("{named} for all other tables{with}")
    } else {
        format!("{named} for `{pattern}`{with}")
    }
}

/// A resolver, and what it is told and held to.
fn said_parts(resolver: &str, settings: &[(String, String)], on_failure: OnFailure) -> (String, String) {
    let mut said = each_setting(settings);
    if let OnFailure::Park(bounds) = on_failure {
        let Bounds { fuel_base, fuel_per_item, fuel_per_byte, memory, returned, meter } = bounds;
        said.push(format!(
            "on_failure = park, with fuel_base = {fuel_base}, fuel_per_item = {fuel_per_item}, fuel_per_byte = \
             {fuel_per_byte}, memory = {memory}, returned = {returned}, meter {meter}"
        ));
    }
    (format!("`{resolver}`"), if said.is_empty() { String::new() } else { format!(" ({})", said.join(", ")) })
}
