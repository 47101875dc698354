//! Who takes part: what each node says of itself every few seconds.
//!
//! For people and for housekeeping of the log. Nothing in the fold depends on it.

use super::Shard;
use antiphon_core::entry::Origin;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// How often a node that runs announces itself.
pub const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(5);
/// A member that was not heard of for so long is taken for away: it has missed a few times.
pub const AWAY_AFTER: Duration = Duration::from_secs(20);

/// What a node says of itself. A node in another life is another member.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Member {
    /// The node's number.
    pub node: u64,
    /// Which of its lives.
    pub incarnation: u64,
    /// The version of its program.
    pub version: String,
    /// The last entry it has applied, a shard.
    pub positions: BTreeMap<Shard, u64>,
    /// A number made of each replicated table's columns and keys: equal on nodes whose tables are alike.
    pub schemas: BTreeMap<String, u64>,
    /// Parts of it that wait for a table or a column, and why.
    pub waits: BTreeMap<String, String>,
    /// What its resolvers answered of late, in samples.
    pub samples: Vec<Sample>,
    /// Where another node's resolver answered otherwise than its own.
    pub differences: Vec<Difference>,
    /// It stopped in order, and says so with its last words.
    pub left: bool,
}

impl Member {
    /// Which origin it is.
    #[must_use]
    pub fn origin(&self) -> Origin {
        Origin { node: self.node, incarnation: self.incarnation }
    }
}

/// What a resolver was asked and answered, as numbers that stand for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sample {
    /// The shard.
    pub shard: Shard,
    /// The entry that brought the clash.
    pub seq: u64,
    /// The table and the key.
    pub of: u64,
    /// All that the resolver was shown.
    pub asked: u64,
    /// What it said.
    pub said: u64,
}

impl Sample {
    /// Which clash it is of.
    #[must_use]
    pub fn id(&self) -> (Shard, u64, u64) {
        (self.shard, self.seq, self.of)
    }
}

/// Two nodes' resolvers were asked the same, and answered each its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Difference {
    /// The other node.
    pub node: u64,
    /// The shard.
    pub shard: Shard,
    /// The entry that brought the clash.
    pub seq: u64,
    /// The table.
    pub table: String,
    /// What the resolver is called.
    pub policy: String,
}

/// An announcement, and when the log took it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announced {
    /// What it says.
    pub member: Member,
    /// When the log took it, in nanoseconds of the log's own clock.
    pub time: u64,
}

impl Announced {
    /// Whether the member is there: it was heard of lately, and has not said that it stops.
    #[must_use]
    pub fn is_there(&self, now_ns: u64) -> bool {
        !self.member.left && Duration::from_nanos(now_ns.saturating_sub(self.time)) < AWAY_AFTER
    }
}

/// The log's own clock, as the newest announcement tells it, in nanoseconds; 0 if there is none.
#[must_use]
pub fn clock_of(members: &[Announced]) -> u64 {
    members.iter().map(|announced| announced.time).max().unwrap_or(0)
}

/// Those who are there, by the log's own clock.
pub fn there(members: &[Announced]) -> impl Iterator<Item = &Announced> {
    let now = clock_of(members);
    members.iter().filter(move |announced| announced.is_there(now))
}
