//! Which policies were decided on, and from where on they hold: version by version, shard by shard.
//!
//! A decision stands in the first shard. It comes into force by an entry of its own in each shard, so that every node
//! decides every change by the same policies, whatever else it has read by then.

use super::own::ours;
use super::pattern::Pattern;
use super::values::unsigned;
use super::{Doing as _, Error};
use crate::log::Shard;
use antiphon_core::codec;
use antiphon_core::entry::{Decision, Policy as Agreed};
use rusqlite::Connection;
use std::collections::BTreeMap;

#[derive(Clone, Debug)]
struct Decided {
    /// Where in the first shard.
    at: u64,
    policies: Vec<Agreed>,
}

/// What was decided, in memory.
#[derive(Clone, Debug, Default)]
pub(super) struct Rulings {
    /// Version 0 is the genesis's.
    decided: BTreeMap<u64, Decided>,
    /// From which position on a version holds in a shard.
    in_force: BTreeMap<Shard, BTreeMap<u64, u64>>,
}

impl Rulings {
    /// Reads them from the file.
    pub(super) fn read(conn: &Connection) -> Result<Self, Error> {
        const READING: &str = "read the policies that were decided on";
        let mut rulings = Self::default();
        let mut statement =
            conn.prepare_cached(concat!("SELECT version, seq, policies FROM ", ours!("decided"))).doing(READING)?;
        let mut rows = statement.query([]).doing(READING)?;
        while let Some(row) = rows.next().doing(READING)? {
            let policies: Vec<u8> = row.get(2).doing(READING)?;
            let policies = codec::decode_policies(&policies)
                .map_err(|error| Error::Inconsistent(format!("policies cannot be read: {error}")))?;
            let at = unsigned(row, 1).doing(READING)?;
            rulings.decided.insert(unsigned(row, 0).doing(READING)?, Decided { at, policies });
        }
        let mut statement =
            conn.prepare_cached(concat!("SELECT shard, version, seq FROM ", ours!("in_force"))).doing(READING)?;
        let mut rows = statement.query([]).doing(READING)?;
        while let Some(row) = rows.next().doing(READING)? {
            let shard: Shard = row.get(0).doing(READING)?;
            let versions = rulings.in_force.entry(shard).or_default();
            versions.insert(unsigned(row, 1).doing(READING)?, unsigned(row, 2).doing(READING)?);
        }
        Ok(rulings)
    }

    /// Begins with the policies of a genesis: in the transaction at hand.
    pub(super) fn begin(conn: &Connection, policies: &[Agreed]) -> Result<(), Error> {
        const BEGINNING: &str = "note the policies of the cluster";
        conn.execute(concat!("DELETE FROM ", ours!("decided")), []).doing(BEGINNING)?;
        conn.execute(concat!("DELETE FROM ", ours!("in_force")), []).doing(BEGINNING)?;
        conn.execute(concat!("DELETE FROM ", ours!("inherited")), []).doing(BEGINNING)?;
        conn.execute(
            concat!("INSERT INTO ", ours!("decided"), " VALUES (0, 0, ?1)"),
            [codec::encode_policies(policies)],
        )
        .doing(BEGINNING)?;
        Ok(())
    }

    /// These are to follow. They must be the next version.
    pub(super) fn decide(&mut self, conn: &Connection, decision: &Decision, seq: u64) -> Result<(), Error> {
        conn.execute(
            concat!("INSERT INTO ", ours!("decided"), " VALUES (?1, ?2, ?3)"),
            (decision.version.cast_signed(), seq.cast_signed(), codec::encode_policies(&decision.policies)),
        )
        .doing("note policies that were decided on")?;
        self.decided.insert(decision.version, Decided { at: seq, policies: decision.policies.clone() });
        Ok(())
    }

    /// They hold in this shard from here on.
    pub(super) fn put_in_force(
        &mut self,
        conn: &Connection,
        shard: Shard,
        version: u64,
        seq: u64,
    ) -> Result<(), Error> {
        conn.execute(
            concat!("INSERT INTO ", ours!("in_force"), " VALUES (?1, ?2, ?3)"),
            (shard, version.cast_signed(), seq.cast_signed()),
        )
        .doing("note policies that are in force")?;
        self.in_force.entry(shard).or_default().insert(version, seq);
        Ok(())
    }

    /// The last version that was decided on, and its policies; nothing before there is a cluster.
    pub(super) fn newest(&self) -> Option<(u64, &[Agreed])> {
        self.decided.last_key_value().map(|(version, decided)| (*version, decided.policies.as_slice()))
    }

    /// The policies of a version, if it was decided on.
    pub(super) fn policies(&self, version: u64) -> Option<&[Agreed]> {
        self.decided.get(&version).map(|decided| decided.policies.as_slice())
    }

    /// Where in the first shard a version was decided on.
    pub(super) fn decided_at(&self, version: u64) -> u64 {
        self.decided.get(&version).map_or(0, |decided| decided.at)
    }

    /// Which version holds in a shard.
    pub(super) fn version(&self, shard: Shard) -> u64 {
        let versions = self.in_force.get(&shard).and_then(BTreeMap::last_key_value);
        versions.map_or(0, |(version, _)| *version)
    }

    /// All that has held in a shard, from the first on, and from where on each did.
    pub(super) fn history(&self, shard: Shard) -> impl Iterator<Item = (u64, &[Agreed])> {
        let later = self.in_force.get(&shard).into_iter().flatten();
        let all = std::iter::once((0, 0)).chain(later.map(|(version, seq)| (*version, *seq)));
        all.filter_map(|(version, seq)| Some((seq, self.policies(version)?)))
    }

    /// All that holds in one of so many shards, or will.
    pub(super) fn held_or_coming(&self, shards: u32) -> impl Iterator<Item = &[Agreed]> {
        let least = (1..=shards).map(|shard| self.version(shard)).min().unwrap_or(0);
        self.decided.range(least..).map(|(_, decided)| decided.policies.as_slice())
    }
}

/// The policy that decides over a table.
pub(super) fn deciding<'a>(policies: &'a [Agreed], table: &str) -> Option<&'a Agreed> {
    let matches = |policy: &&Agreed| {
        policy.pattern.is_empty() || Pattern::new(&policy.pattern).is_ok_and(|pattern| pattern.is_match(table))
    };
    policies.iter().find(matches)
}

/// The one policy for which the order of the log is all there is to know.
pub(super) const PLAIN: &str = "last-write-wins";

/// Whether nothing has to be kept to know what this policy decides.
pub(super) fn is_plain(policy: &Agreed) -> bool {
    policy.resolver.split('@').next() == Some(PLAIN)
}
