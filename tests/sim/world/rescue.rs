//! A node whose log was lost goes on from a copy of some node's file that became L before.

use super::copying::Copy;
use super::{STEPS_MAX, World};
use antiphon::db::{Database, Restored};
use antiphon::log::{Log as _, Placement, Shard};
use futures::executor::block_on;
use std::collections::{BTreeMap, BTreeSet};

/// What begins the words of a check that failed, and not of a node that can't.
const WRONG: &str = "before it went back: ";
/// Copies that are kept to go back to.
const IMAGES_MAX: usize = 4;

/// A copy that became L, and whose it was.
pub(super) struct Image {
    copy: Copy,
    maker: usize,
}

impl World<'_> {
    /// A copy became L: it may be gone back to.
    pub(super) fn keep(&mut self, maker: usize, copy: Copy) {
        self.images.push(Image { copy, maker });
        if self.images.len() > IMAGES_MAX {
            self.images.remove(0);
        }
    }

    /// Lets a stranded node go on from the newest image that the log continues; says whether there was one, and whether
    /// the node could. The process may die meanwhile.
    pub(super) fn rescue(&mut self, node: usize) -> Result<Option<String>, String> {
        let Some(at) = (0..self.images.len()).rev().find(|at| self.continues(&self.images[*at].copy.db)) else {
            return Ok(None);
        };
        let image = self.images.remove(at);
        let (image, mut said) = self.go_back_to(node, image);
        self.death.avert();
        let maker = image.maker;
        // Whatever was in memory is of before.
        self.crash(node);
        let (place, anchors) = self.nodes[node].with(|db| {
            (
                db.positions(),
                db.positions().iter().map(|(shard, _)| (*shard, db.anchor(*shard).seq)).collect::<Vec<_>>(),
            )
        });
        // While a unit is applied in slices, a node is further than its position says.
        if said.is_err() && image.copy.db.positions() == place && place == anchors {
            // It died when all was done.
            said = Ok(Some(Restored::default()));
        }
        if matches!(said, Ok(Some(_))) {
            let unsure = self.witnesses[maker].unsure();
            let entries = &self.entries;
            self.witnesses[node].go_back_to(&self.nodes[node], &image.copy.db, entries, self.rules, unsure)?;
        }
        self.images.insert(at, image);
        match said {
            Ok(Some(restored)) => {
                self.stranded[node].fill(None);
                self.lineages[node].fill(None);
                self.has_rolled = true;
                self.coverage.see("rescued");
                if self.has_begun_again {
                    self.coverage.see("rescued after it began again");
                }
                if restored.pending > 0 {
                    self.coverage.see("rescued with changes on top");
                }
                if restored.unfounded > 0 {
                    self.coverage.see("made upon what is lost");
                }
                Ok(Some(format!("goes on from a copy of node {}: {restored:?}", maker + 1)))
            }
            Ok(None) => Err(format!("node {} never stops sealing before it goes back", node + 1)),
            Err(why) if why.starts_with(WRONG) => Err(why),
            Err(why) => {
                self.coverage.see("not rescued");
                // What others made upon that waits for it, and will for ever.
                self.is_stuck |= why.contains("neither in the log nor kept here");
                Ok(Some(format!("does not go on from a copy of node {}: {why}", maker + 1)))
            }
        }
    }

    /// Whether the log still has the entry that an image ends with, in every shard.
    fn continues(&self, image: &Database) -> bool {
        image.positions().into_iter().all(|(shard, _)| self.stands(shard, image.position(shard)))
    }

    fn stands(&self, shard: Shard, at: Placement) -> bool {
        if at.seq == 0 {
            return block_on(self.log.bounds(shard)).unwrap().first <= 1;
        }
        block_on(self.log.stands(shard, at.seq)).unwrap() == Some(at)
    }

    fn go_back_to(&mut self, node: usize, mut image: Image) -> (Image, Result<Option<Restored>, String>) {
        let origin = self.witnesses[node].origin;
        let logged: BTreeMap<Shard, u64> = (1..=u32::try_from(self.entries.len()).unwrap())
            .map(|shard| (shard, block_on(self.log.last_number(shard, origin)).unwrap()))
            .collect();
        let learned = block_on(self.nodes[node].db.call(move |db| {
            let done = db.learn_routes(&image.copy.db);
            Ok((image, done))
        }));
        let (again, learned) = learned.expect("the inner error is handed on");
        image = again;
        if let Err(error) = learned {
            return (image, Err(error.to_string()));
        }
        for _ in 0..STEPS_MAX {
            let sealed = self.nodes[node].publisher.prepare();
            if let Err(error) = block_on(sealed) {
                return (image, Err(error.to_string()));
            }
            if let Err(error) = self.witnesses[node].look_before(&self.nodes[node]) {
                return (image, Err(format!("{WRONG}{error}")));
            }
            let above = logged.clone();
            let found = block_on(self.nodes[node].db.call(move |db| db.sealed_at(&above)));
            let found = match found {
                Ok(found) => found,
                Err(error) => return (image, Err(error.to_string())),
            };
            let is_unfounded = |(shard, number, at): &(Shard, u64, Placement)| {
                *number > image.copy.db.received(*shard, origin)
                    && !image.copy.db.leads_through(*shard, *at).unwrap().unwrap_or_else(|| self.stands(*shard, *at))
            };
            let unfounded: BTreeSet<(Shard, u64)> =
                found.iter().filter(|batch| is_unfounded(batch)).map(|(shard, number, _)| (*shard, *number)).collect();
            let logged = logged.clone();
            let done = block_on(self.nodes[node].db.call(move |db| {
                let done = db.restore(&image.copy.db, &logged, &unfounded);
                Ok((image, done))
            }));
            let (again, done) = done.expect("the inner error is handed on");
            image = again;
            match done {
                Ok(None) => {}
                done => return (image, done.map_err(|error| error.to_string())),
            }
        }
        (image, Ok(None))
    }
}
