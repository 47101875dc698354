//! What the log says of a node, and of the others.

use super::{Behind, COUNTED_BYTES_MAX, COUNTED_MAX, Member, MemberState, ShardStatus, Status, ago, changes_in};
use crate::log::{self, AWAY_AFTER, Announced, Look, Shard};
use crate::node::Carrier;
use std::collections::BTreeMap;

impl Status {
    /// Ends of shards and members, from the log itself. A log that can't be read is said to be so, and the rest
    /// is known all the same.
    pub(super) fn look_at_log(&mut self, carrier: &Carrier, positions: &BTreeMap<Shard, u64>, now_ms: u64) {
        self.log.directory = match carrier {
            Carrier::Embedded(directory) => directory.display().to_string(),
            Carrier::Nats(_) => carrier.to_string(),
        };
        let mut members = Vec::new();
        let mut shards = BTreeMap::new();
        let looked = carrier.look().and_then(|look| {
            let Some(look) = look else { return Ok(()) };
            self.log.found = true;
            members = look.members()?;
            for (&shard, &position) in positions {
                let end = look.bounds(shard)?.last;
                let behind = if end > position { Some(behind(&look, shard, position, end, now_ms)?) } else { None };
                shards.insert(shard, (end, behind));
            }
            Ok(())
        });
        self.log.error = looked.err().map(|error| error.to_string());
        self.shards = positions
            .iter()
            .map(|(&shard, &position)| {
                let (end, behind) = shards.remove(&shard).map_or((None, None), |(end, behind)| (Some(end), behind));
                ShardStatus { shard, position, end, behind }
            })
            .collect();
        self.members = members_of(members, (self.node, self.incarnation), &self.shards, now_ms);
    }
}

/// Who takes part, as this node sees them.
pub(crate) fn members_of(
    members: Vec<Announced>,
    me: (Option<u64>, Option<u64>),
    shards: &[ShardStatus],
    now_ms: u64,
) -> Vec<Member> {
    let this = |member: &log::Member| (Some(member.node), Some(member.incarnation)) == me;
    let here = members.iter().find(|announced| this(&announced.member)).map(|own| own.member.schemas.clone());
    members
        .into_iter()
        .map(|announced| {
            let this = this(&announced.member);
            member(announced, this, here.as_ref(), shards, now_ms)
        })
        .collect()
}

/// What lies between a position and the end of a shard.
fn behind(look: &Look, shard: Shard, position: u64, end: u64, now_ms: u64) -> Result<Behind, log::Error> {
    let mut after = position;
    let (mut changes, mut bytes) = (0, 0);
    let mut seconds = None;
    look.each::<log::Error>(shard, position + 1, |placed| {
        after = placed.seq;
        seconds = seconds.or_else(|| Some(ago(placed.time / 1_000_000, now_ms)));
        changes += changes_in(&placed.frame);
        bytes += placed.frame.len();
        Ok(after < end && after - position < COUNTED_MAX && bytes < COUNTED_BYTES_MAX)
    })?;
    let changes = (after >= end).then_some(changes);
    Ok(Behind { entries: end - position, changes, seconds: seconds.unwrap_or_default() })
}

fn member(
    announced: Announced,
    this: bool,
    here: Option<&BTreeMap<String, u64>>,
    shards: &[ShardStatus],
    now_ms: u64,
) -> Member {
    let Announced { member, time } = announced;
    let seen_seconds_ago = ago(time / 1_000_000, now_ms);
    let state = if member.left {
        MemberState::Left
    } else if seen_seconds_ago > AWAY_AFTER.as_secs_f64() {
        MemberState::Away
    } else {
        MemberState::Here
    };
    let missing = shards.iter().map(|shard| {
        let position = member.positions.get(&shard.shard).copied().unwrap_or(0);
        Some(shard.end?.saturating_sub(position))
    });
    let mut other_tables: Vec<String> = Vec::new();
    if let Some(here) = here.filter(|_| !member.left) {
        let names =
            here.keys().chain(member.schemas.keys()).filter(|name| here.get(*name) != member.schemas.get(*name));
        other_tables.extend(names.cloned());
        other_tables.sort_unstable();
        other_tables.dedup();
    }
    Member {
        node: member.node,
        incarnation: member.incarnation,
        this,
        version: member.version,
        state,
        seen_seconds_ago,
        behind: missing.sum(),
        positions: member.positions,
        other_tables,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(silent: std::time::Duration, left: bool) -> MemberState {
        let member = log::Member { node: 3, left, ..log::Member::default() };
        let now_ms = 1_000_000_000;
        let time = (now_ms - u64::try_from(silent.as_millis()).unwrap()) * 1_000_000;
        super::member(Announced { member, time }, false, None, &[], now_ms).state
    }

    #[test]
    fn a_member_that_is_silent_for_long_is_away_unless_it_left() {
        let moment = std::time::Duration::from_millis(1);
        assert_eq!(seen(AWAY_AFTER, false), MemberState::Here);
        assert_eq!(seen(AWAY_AFTER + moment, false), MemberState::Away);
        assert_eq!(seen(AWAY_AFTER + moment, true), MemberState::Left);
    }
}
