//! A node whose log was lost goes on from a copy of some node's file that became L before.

use super::copying::Copy;
use super::{STEPS_MAX, World};
use antiphon::db::{Database, Owed, Restored};
use antiphon::log::{Log as _, Placement, Shard};
use antiphon_core::codec::decode;
use antiphon_core::entry::{Body, Origin};
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
            self.is_upon_this_log(node, &image.copy.db)?;
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

    /// What a node has on its way was made upon a place of the log as it is now, or says that it was made upon nothing.
    fn is_upon_this_log(&self, node: usize, image: &Database) -> Result<(), String> {
        let origin = self.witnesses[node].origin;
        let sql = "SELECT shard, number, at_seq, at_time, at_checksum, batch FROM __antiphon___global_change_log";
        let mut statement = self.nodes[node].app.prepare(sql).unwrap();
        let mut batches = statement.query([]).unwrap();
        while let Some(row) = batches.next().unwrap() {
            let place = |column: usize| row.get::<_, i64>(column).unwrap().cast_unsigned();
            let (shard, number): (Shard, u64) = (row.get(0).unwrap(), place(1));
            let at = Placement { seq: place(2), time: place(3), checksum: place(4) };
            let Ok(index) = usize::try_from(at.seq.saturating_sub(1)) else { continue };
            if number <= image.received(shard, origin) || self.places[shard as usize - 1].get(index) == Some(&at) {
                continue;
            }
            let entry = decode(&row.get::<_, Vec<u8>>(5).unwrap()).map_err(|error| error.to_string())?;
            if let Body::Changes(changes) = entry.body
                && (changes.seen > 0 || changes.chunks.iter().any(|chunk| !chunk.seen.is_empty()))
            {
                return Err(format!("node {} sends number {number} as if made upon {at:?}, which is lost", node + 1));
            }
        }
        Ok(())
    }

    /// Whether the log still has the entry that an image ends with, in every shard.
    fn continues(&self, image: &Database) -> bool {
        image.positions().into_iter().all(|(shard, _)| self.stands(shard, image.position(shard)))
    }

    fn there(&self, shard: Shard, at: Placement) -> Option<Placement> {
        block_on(self.log.stands(shard, at.seq.max(1))).unwrap()
    }

    fn stands(&self, shard: Shard, at: Placement) -> bool {
        if at.seq == 0 {
            return block_on(self.log.bounds(shard)).unwrap().first <= 1;
        }
        self.there(shard, at) == Some(at)
    }

    /// All nodes are there, so all that a log lost was sent again, and nobody keeps anything for those who are gone.
    pub(super) fn must_owe_nothing(&mut self) -> Result<(), String> {
        for (node, of) in (1..).zip(&self.nodes) {
            let owed = block_on(of.db.call(|db| {
                db.settle_owed()?;
                Ok(db.owed().clone())
            }));
            let owed = owed.map_err(|error| error.to_string())?;
            if !owed.is_empty() {
                return Err(format!("node {node} waits for what nobody will send: {owed:?}"));
            }
        }
        Ok(())
    }

    /// What a node has read of others, and neither the image nor the log has.
    fn owed(&self, node: usize, image: &Database) -> Owed {
        let me = self.witnesses[node].origin;
        let numbers = block_on(self.nodes[node].db.call(|db| {
            let shards = 1..=db.shards();
            Ok(shards.flat_map(|shard| db.numbers(shard).into_iter().map(move |of| (shard, of))).collect::<Vec<_>>())
        }));
        let is_lost = |(shard, (origin, number)): &(Shard, (Origin, u64))| {
            let logged = || block_on(self.log.last_number(*shard, *origin)).unwrap();
            *origin != me && *number > image.received(*shard, *origin) && *number > logged()
        };
        let lost = numbers.expect("it is only read").into_iter().filter(is_lost);
        lost.map(|(shard, (origin, number))| ((shard, origin), number)).collect()
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
                    && !image.copy.db.leads_through(*shard, *at, self.there(*shard, *at)).unwrap()
            };
            let unfounded: BTreeSet<(Shard, u64)> =
                found.iter().filter(|batch| is_unfounded(batch)).map(|(shard, number, _)| (*shard, *number)).collect();
            let logged = logged.clone();
            let owed = self.owed(node, &image.copy.db);
            if !owed.is_empty() {
                self.coverage.see("changes owed");
            }
            let done = block_on(self.nodes[node].db.call(move |db| {
                let done = db.restore(&image.copy.db, &logged, &unfounded, &owed);
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
