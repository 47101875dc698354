//! A log that is no longer the one that was applied, and what nodes may say of it.

use super::{STEPS_MAX, World};
use crate::plan::{Act, Step};
use crate::random::Random;
use antiphon::db::{self, Obstacle, ObstacleKind};
use antiphon::log::Log as _;
use antiphon::{publish, subscribe};
use antiphon_core::codec::Encoder;
use antiphon_core::entry::{Body, Changes, Entry, Genesis, Origin};
use futures::executor::block_on;

/// Why a node does not go on.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) words: String,
    reason: Reason,
}

#[derive(Debug)]
enum Reason {
    /// The log lost what it had acknowledged to this node.
    Unacknowledged,
    /// The log is not the one that was applied.
    LogLost,
    Any,
}

impl From<String> for Refusal {
    fn from(words: String) -> Self {
        Self { words, reason: Reason::Any }
    }
}

impl From<db::Error> for Refusal {
    fn from(error: db::Error) -> Self {
        error.to_string().into()
    }
}

impl From<antiphon::log::Error> for Refusal {
    fn from(error: antiphon::log::Error) -> Self {
        error.to_string().into()
    }
}

impl From<publish::Error> for Refusal {
    fn from(error: publish::Error) -> Self {
        let reason = match &error {
            publish::Error::TailLost { .. } => Reason::Unacknowledged,
            publish::Error::Broken { .. } => Reason::LogLost,
            publish::Error::Db(_) | publish::Error::Log(_) => Reason::Any,
        };
        Self { words: error.to_string(), reason }
    }
}

impl From<subscribe::Error> for Refusal {
    fn from(error: subscribe::Error) -> Self {
        let reason = match &error {
            subscribe::Error::Broken { .. } => Reason::LogLost,
            subscribe::Error::Db(_) | subscribe::Error::Log(_) => Reason::Any,
        };
        Self { words: error.to_string(), reason }
    }
}

impl From<&Obstacle> for Refusal {
    fn from(obstacle: &Obstacle) -> Self {
        let reason = if *obstacle.kind() == ObstacleKind::Cluster { Reason::LogLost } else { Reason::Any };
        Self { words: format!("blocked: {obstacle}"), reason }
    }
}

impl World<'_> {
    /// The log is no longer what was applied: each node that had read what is gone, or had not read it yet, stays
    /// where it is. Nodes that lost nothing go on.
    pub(super) fn lose(&mut self, step: &Step) {
        let mut random = Random::new(step.seed);
        let shard = usize::try_from(random.below(self.entries.len() as u64)).unwrap();
        let number = u32::try_from(shard).unwrap() + 1;
        let last = self.entries[shard].len() as u64;
        // The genesis stays, and one entry: without them it is a log made anew.
        let count = random.within(1, 6).min(last.saturating_sub(1));
        let is_whole = matches!(step.act, Act::Recreate | Act::Empty);
        // What another cluster has is not lost for this one's sake.
        let is_once_more = step.act == Act::Empty && !self.is_emptied && !self.is_anothers;
        if !is_whole && count == 0 || self.has_lost && !is_once_more {
            return;
        }
        self.has_lost = true;
        let before: Vec<_> = self.entries.iter().cloned().zip(self.places.iter().cloned()).collect();
        match step.act {
            Act::Empty => {
                self.log.recreate();
                for shard in 0..self.entries.len() {
                    self.entries[shard].clear();
                    self.places[shard].clear();
                    self.strand(shard, |_| true);
                }
                self.clocks.clear();
                self.is_emptied = true;
                self.copies.iter_mut().for_each(|copy| *copy = None);
                self.coverage.see("emptied");
                self.note(step, "the log loses all it held");
            }
            Act::LoseTail => {
                self.log.lose_tail(number, count);
                let left = last - count;
                self.entries[shard].truncate(usize::try_from(left).unwrap());
                self.places[shard].truncate(usize::try_from(left).unwrap());
                self.clocks.retain(|(at, _), _| *at != shard);
                self.strand(shard, |position| position > left);
                self.coverage.see("lost tail");
                self.note(step, &format!("shard {number} loses its last {count} entries of {last}"));
            }
            Act::RollOver => {
                let up_to = random.within(1, last - 1);
                self.log.roll_over(number, up_to);
                self.has_rolled = true;
                self.strand(shard, |position| position <= up_to);
                self.coverage.see("rolled over");
                self.note(step, &format!("shard {number} lets go of its entries up to {up_to} of {last}"));
            }
            _ => {
                self.log.recreate();
                for shard in 0..self.entries.len() {
                    self.entries[shard].clear();
                    self.places[shard].clear();
                    self.strand(shard, |_| true);
                }
                self.clocks.clear();
                self.coverage.see("recreated");
                let grown = random.pick(&[0, 1, 20]);
                self.found_another(grown);
                self.is_anothers = true;
                self.note(step, &format!("the log is made anew, with {grown} entries of another cluster"));
            }
        }
        for (stranded, lineages) in self.stranded.iter().zip(&mut self.lineages) {
            for (shard, lineage) in lineages.iter_mut().enumerate().filter(|(shard, _)| stranded[*shard].is_some()) {
                lineage.get_or_insert_with(|| before[shard].clone());
            }
        }
    }

    fn strand(&mut self, shard: usize, gone: impl Fn(u64) -> bool) {
        for ((witness, node), stranded) in self.witnesses.iter().zip(&self.nodes).zip(&mut self.stranded) {
            let position = witness.folds[shard].position;
            let number = u32::try_from(shard).unwrap() + 1;
            // Of what a unit in slices ends with, a part has been applied.
            if gone(node.with(move |db| db.anchor(number).seq)) {
                stranded[shard] = Some(position);
            }
        }
    }

    /// Somebody else uses the log that was made anew.
    fn found_another(&self, entries: u64) {
        let origin = Origin { node: 77, incarnation: 1 };
        let frame = |number, body| {
            Encoder::new(None).encode(&Entry { cluster: [8; 16], origin, number, clock: 1, body }).unwrap()
        };
        let shards = u32::try_from(self.entries.len()).unwrap();
        if entries > 0 {
            let genesis = Genesis {
                shards,
                hasher: "test".into(),
                hasher_settings: Vec::new(),
                resolver: "test".into(),
                wire: 1,
                ..Genesis::default()
            };
            assert!(block_on(self.log.begin(1, &frame(0, Body::Genesis(genesis)))).unwrap());
        }
        for shard in 1..=shards {
            for number in 1..entries {
                let changes = Changes { more: false, seen: 0, chunks: Vec::new() };
                let frame = frame(number, Body::Changes(changes));
                block_on(self.log.append(shard, origin, number, &[frame])).unwrap();
            }
        }
    }

    /// A node that lost something says so and stops; what it says, and whether it may.
    pub(super) fn stops_honestly(&mut self, node: usize, refusal: &Refusal) -> bool {
        let stranded = self.stranded[node].iter().any(Option::is_some);
        let honest = match refusal.reason {
            // What was acknowledged to a node and lost before it came back is sent again after a start.
            Reason::Unacknowledged => self.has_lost,
            Reason::LogLost => stranded,
            Reason::Any => false,
        };
        if honest {
            self.coverage.see(if stranded { "honest stop" } else { "sent again after a loss" });
            self.crash(node);
        }
        honest
    }

    /// A node whose log is lost stays where it is, and says why: the subscriber of that shard, at every try.
    pub(super) fn must_stop(&mut self, node: usize) -> Result<(), String> {
        for shard in 0..self.entries.len() {
            let Some(at) = self.stranded[node][shard] else { continue };
            self.crash(node);
            let mut stepped = block_on(self.nodes[node].subscribers[shard].step());
            // Rows are marked and sealed before anything is looked at.
            for _ in 0..STEPS_MAX {
                if !matches!(stepped, Ok(subscribe::Progress::More)) {
                    break;
                }
                stepped = block_on(self.nodes[node].subscribers[shard].step());
            }
            let published = block_on(self.nodes[node].publisher.step()).map_err(Refusal::from);
            self.observe(node)?;
            if let Err(refusal) = published.as_ref()
                && !self.stops_honestly(node, refusal)
            {
                return Err(format!("node {} cannot publish: {}", node + 1, refusal.words));
            }
            let stepped = stepped.map_err(Refusal::from);
            match &stepped {
                Err(refusal) if self.stops_honestly(node, refusal) => {}
                // Who had read nothing has lost nothing: it waits for a genesis of its own cluster.
                Ok(subscribe::Progress::Blocked(obstacle)) if at == 0 && *obstacle.kind() == ObstacleKind::Cluster => {}
                Ok(subscribe::Progress::Idle(0)) if at == 0 => {}
                _ => return Err(format!("node {} does not stop, and its log is lost: {stepped:?}", node + 1)),
            }
        }
        Ok(())
    }
}
