//! A log that lost all it held begins again with what some node has, and the others follow.

use super::{STEPS_MAX, World};
use crate::plan::Step;
use crate::random::Random;
use antiphon::log::{Log as _, Placement, Shard};
use antiphon_core::codec::decode;
use antiphon_core::entry::{Anew, Body, Entry, Origin};
use futures::executor::block_on;

impl World<'_> {
    /// The log begins again with what this node has, if it holds nothing; the process may die meanwhile.
    pub(super) fn begin_again(&mut self, step: &Step) -> Result<(), String> {
        if self.is_emptied {
            let said = self.begin_with(step.node, step.seed)?;
            self.note(step, &said);
        }
        Ok(())
    }

    fn begin_with(&mut self, node: usize, seed: u64) -> Result<String, String> {
        if let Some(why) = self.nodes[node].with(|db| db.cannot_begin_again().unwrap()) {
            return Ok(format!("the log does not begin again here: {why}"));
        }
        let mut random = Random::new(seed);
        // Wherever it begins: others may have come further than whoever begins knows.
        let knows = random.chance(60);
        let mut places: Vec<(Shard, Placement)> = Vec::new();
        for index in 0..self.entries.len() {
            let shard = u32::try_from(index).unwrap() + 1;
            let (stood, frame, numbers) =
                self.nodes[node].with(move |db| (db.position(shard).seq, db.anew(shard).unwrap(), db.numbers(shard)));
            let known = if knows { self.furthest(shard) } else { stood };
            // Never where the first log began: whoever has read nothing would take it for that.
            let at = known.max(1) + 1 + random.below(3);
            let begun = block_on(self.log.begin_again(shard, at, &frame, &numbers)).unwrap();
            assert_eq!(begun, Some(at), "the log holds nothing");
            places.push((shard, block_on(self.log.stands(shard, at)).unwrap().unwrap()));
            let lineage = self.lineages[node][index].take().expect("who is stranded has one");
            (self.entries[index], self.places[index]) = lineage;
            self.entries[index].truncate(usize::try_from(stood).unwrap());
            self.places[index].truncate(usize::try_from(stood).unwrap());
            let nothing = Entry { body: Body::Anew(Anew::default()), ..decode(&frame).unwrap() };
            let nothing = Entry { origin: Origin { node: 99, incarnation: 1 }, clock: 0, ..nothing };
            self.entries[index].resize(usize::try_from(at).unwrap() - 1, nothing);
            self.places[index].resize(usize::try_from(at).unwrap() - 1, Placement::default());
        }
        self.death.countdown.set(if random.chance(30) { random.within(1, 6) } else { 0 });
        for _ in 0..STEPS_MAX {
            let (there, first) = (places.clone(), places[0]);
            let done = block_on(self.nodes[node].db.call(move |db| db.begin_again(&there)));
            self.death.avert();
            if let Some(point) = self.death.at.take() {
                self.coverage.see(&format!("die at {point}"));
            }
            self.crash(node);
            if done.is_ok() || self.nodes[node].with(move |db| db.position(first.0)) == first.1 {
                break;
            }
        }
        self.stranded[node].fill(None);
        (self.is_emptied, self.has_begun_again, self.has_rolled) = (false, true, true);
        self.coverage.see("began again");
        self.observe(node)?;
        let places: Vec<u64> = places.iter().map(|(_, place)| place.seq).collect();
        Ok(format!("the log begins again with what this node has, at {places:?}"))
    }

    /// The furthest that any node has come in a shard.
    fn furthest(&self, shard: Shard) -> u64 {
        self.nodes.iter().map(|node| node.with(move |db| db.position(shard).seq)).max().unwrap()
    }

    /// At the end a log that holds nothing begins again, and what it begins with is there for the others.
    pub(super) fn lead_on(&mut self) -> Result<(), String> {
        let nodes = self.nodes.len();
        for node in 0..nodes {
            if !self.is_emptied {
                break;
            }
            let said = self.begin_with(node, node as u64 + 7)?;
            self.trace.push(format!("at rest: n{} {said}", node + 1));
        }
        if !self.has_begun_again {
            return Ok(());
        }
        for node in (0..nodes).filter(|node| self.stranded[*node].iter().all(Option::is_none)).collect::<Vec<_>>() {
            self.set_clock(node);
            if self.drain(node).is_err() {
                continue;
            }
            self.observe(node)?;
            let mut said = self.begin_copy(node)?;
            if let Some(copy) = self.copies[node].take() {
                said = self.go_on_copying(node, copy)?;
            }
            self.trace.push(format!("at rest: n{} copy: {said}", node + 1));
        }
        Ok(())
    }
}
