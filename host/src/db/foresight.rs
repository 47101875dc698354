//! What the log says of policies further on, where a shard has stopped before a clash that its resolver gives no verdict
//! on.
//!
//! Every node has stopped there, and other policies can only come behind. So such a clash is decided by the next policy of
//! its table that comes into force further on in the shard, by the word of a node that had stopped as well. Entries don't
//! change, so that is the same on every node, and on those that read the log later.

use super::own::ours;
use super::ruling::deciding;
use super::{Database, Doing as _, Error};
use crate::log::{Placed, Shard};
use antiphon_core::codec;
use antiphon_core::entry::{Body, Decision, Entry, Halted, InForce, Policy as Agreed};
use std::collections::BTreeMap;

/// What was read of a shard beyond the place where it stopped.
#[derive(Debug, Default)]
pub(super) struct Foresight {
    /// Up to where.
    read: u64,
    /// In the first shard: what was decided on there.
    decided: BTreeMap<u64, Vec<Agreed>>,
    /// What comes into force, and where.
    in_force: BTreeMap<u64, InForce>,
}

/// A policy that decides what an earlier one could not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Heir {
    /// Its version.
    pub(super) version: u64,
    /// Its number among those of this node.
    pub(super) policy: usize,
}

impl Database {
    /// Before which clash a shard has stopped for good, with all that is further on in it read up to this position.
    #[must_use]
    pub fn halted(&self, shard: Shard, last: u64) -> Option<Halted> {
        let halted = self.halt(shard)?;
        // Behind the last entry there is nothing to read.
        let read = self.foresights.get(&shard).map_or(0, |foresight| foresight.read).max(halted.seq);
        (read >= last).then_some(halted)
    }

    fn halt(&self, shard: Shard) -> Option<Halted> {
        self.trials.get(&shard)?.halted(self.position(shard).seq)
    }

    /// From which position on a shard that has stopped is to be read for what it says of policies.
    #[must_use]
    pub fn foresees_after(&self, shard: Shard) -> Option<u64> {
        let halted = self.halt(shard)?;
        Some(self.foresights.get(&shard).map_or(0, |foresight| foresight.read).max(halted.seq))
    }

    /// Learns what entries beyond the place where a shard stopped say of policies. Says whether it may go on now.
    pub fn foresee(&mut self, shard: Shard, entries: &[Placed]) -> bool {
        let (Some(halted), Some(cluster)) = (self.halt(shard), self.cluster()) else { return false };
        let newest = self.rulings.newest().map_or(0, |(version, _)| version);
        let foresight = self.foresights.entry(shard).or_default();
        let (mut found, mut decides) = (false, false);
        let known = foresight.read.max(halted.seq);
        for placed in entries.iter().filter(|placed| placed.seq > known) {
            foresight.read = placed.seq;
            let Some(entry) = codec::decode(&placed.frame).ok().filter(|entry| placed.may_say(entry)) else { continue };
            let Entry { cluster: of, body, .. } = entry;
            match body {
                _ if of != cluster => {}
                Body::Decided(Decision { version, policies }) if shard == 1 => {
                    let last = foresight.decided.last_key_value().map_or(0, |(version, _)| *version);
                    if version == last.max(newest) + 1 {
                        foresight.decided.insert(version, policies);
                        decides = true;
                    }
                }
                Body::InForce(in_force) => {
                    found |= in_force.halted.is_some();
                    foresight.in_force.insert(placed.seq, in_force);
                }
                _ => {}
            }
        }
        if decides {
            self.retry_halted(shard);
        }
        if found {
            self.trials.remove(&shard);
        }
        found
    }

    /// Other policies are known: other shards that have stopped, and know what is said behind, may go on with them.
    pub(super) fn retry_halted(&mut self, except: Shard) {
        let Self { trials, foresights, .. } = self;
        let may_go_on = |shard: &Shard| foresights.get(shard).is_some_and(|foresight| !foresight.in_force.is_empty());
        trials.retain(|shard, trial| *shard == except || trial.halted(0).is_none() || !may_go_on(shard));
    }

    /// The policies that decide, one after the other, what a table's policy gives no verdict on at this place.
    pub(super) fn heirs(&mut self, shard: Shard, seq: u64, table: &str) -> Vec<Heir> {
        let Self { foresights, rulings, policies, .. } = self;
        let (Some(foresight), first) = (foresights.get(&shard), foresights.get(&1)) else { return Vec::new() };
        let mut heirs = Vec::new();
        let mut version = rulings.version(shard);
        for InForce { decision, halted } in foresight.in_force.range(seq..).map(|(_, in_force)| in_force) {
            let decided = rulings.policies(decision.version);
            let decided = decided.or_else(|| Some(first?.decided.get(&decision.version)?.as_slice()));
            if decision.version <= version || decided != Some(&decision.policies) {
                continue;
            }
            version = decision.version;
            // Who had not stopped here has decided it by the policy that held.
            if halted.as_ref().is_none_or(|halted| halted.seq > seq) {
                break;
            }
            heirs.extend(
                deciding(&decision.policies, table).map(|agreed| Heir { version, policy: policies.index(agreed) }),
            );
        }
        heirs
    }

    /// Which version further on in a shard comes into force by the word of a node that had not stopped where this one has.
    pub(super) fn overtaken(&self, shard: Shard, seq: u64) -> Option<u64> {
        let next = self.foresights.get(&shard)?.in_force.range(seq..).map(|(_, in_force)| in_force).next()?;
        next.halted.is_none().then_some(next.decision.version)
    }

    /// What is to be said in a shard that has stopped: that other policies are in force behind.
    ///
    /// # Errors
    /// When the entry can't be encoded.
    pub fn due_where_halted(&mut self, shard: Shard, halted: Halted) -> Result<Option<super::Notice>, Error> {
        let Some(mut decision) = self.decided().filter(|_| self.options.publish) else { return Ok(None) };
        let mut after = self.rulings.decided_at(decision.version);
        if let Some((version, policies)) = self.foresights.get(&1).and_then(|first| first.decided.last_key_value())
            && *version > decision.version
        {
            // Nobody gets there before.
            (decision, after) = (Decision { version: *version, policies: policies.clone() }, 0);
        }
        let said = self.foresights.get(&shard).into_iter().flat_map(|foresight| foresight.in_force.values());
        let said = said.map(|in_force| in_force.decision.version).max().unwrap_or(0);
        if decision.version <= said.max(self.rulings.version(shard)) || self.lacks(&decision.policies).is_some() {
            return Ok(None);
        }
        let frame = self.unnumbered(Body::InForce(InForce { decision, halted: Some(halted) }))?;
        Ok(Some(super::Notice { frame, after }))
    }

    /// Notes that a later policy decided at this place: in the transaction at hand.
    pub(super) fn note_inherited(&self, shard: Shard, seq: u64) -> Result<(), Error> {
        self.conn
            .execute(
                concat!("INSERT OR IGNORE INTO ", ours!("inherited"), " VALUES (?1, ?2)"),
                (shard, seq.cast_signed()),
            )
            .doing("note what a later policy decided")?;
        Ok(())
    }

    /// Whether a table is followed here, and its policy decided at this place where others had to wait for a later one.
    pub(super) fn decided_alone(&self, shard: Shard, halted: &Halted) -> Result<bool, Error> {
        if !self.options.replicate || self.has_unread() || self.tracked(&halted.table).is_none() {
            return Ok(false);
        }
        let sql = concat!("SELECT 1 FROM ", ours!("inherited"), " WHERE shard = ?1 AND seq = ?2");
        let mut statement = self.conn.prepare_cached(sql).doing("look for what a later policy decided")?;
        let found = statement.exists((shard, halted.seq.cast_signed()));
        found.map(|found| !found).doing("look for what a later policy decided")
    }

    /// Forgets what lies behind by now.
    pub(super) fn forget_foreseen(&mut self, shard: Shard) {
        let position = self.position(shard).seq;
        if let Some(foresight) = self.foresights.get_mut(&shard) {
            foresight.in_force.retain(|seq, _| *seq > position);
            if foresight.in_force.is_empty() && foresight.read <= position {
                self.foresights.remove(&shard);
            }
        }
    }
}
