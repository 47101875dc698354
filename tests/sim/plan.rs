//! A history before it happens: who does what, in which order.
//!
//! Every step draws from a seed of its own, so that leaving one out changes nothing about the others: a
//! failing history can be shrunk by leaving out steps.

use crate::random::Random;
use crate::rule::{Rules, rules};

/// How a cluster is set up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Config {
    pub(crate) nodes: usize,
    pub(crate) shards: u32,
    /// Most changes in one piece and in one transaction, a node.
    pub(crate) changes_max: [usize; 3],
    /// Most changes of a unit that are applied at once, a node.
    pub(crate) atomic_max: [usize; 3],
    /// What the founder's application does before there is a cluster.
    pub(crate) before: u64,
    /// A disk may go on failing for a whole step.
    pub(crate) sticky: bool,
    /// Who decides clashes, table by table.
    pub(crate) rules: Rules,
    /// They change in the middle of the history.
    pub(crate) switches: bool,
}

/// What happens in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// The application writes.
    Write,
    /// The host seals, and goes no further.
    Seal,
    /// A publisher's step.
    Publish,
    /// A subscriber's step.
    Apply,
    /// The host removes batches from its outbox that the log has.
    Housekeep,
    /// The host dies between two steps, and starts again.
    Crash,
    /// The application creates the table that was not there at first.
    Create,
    /// The application adds a column that was not there at first.
    Widen,
    /// The node's clock is set.
    Jump,
    /// Somebody proposes other policies.
    Propose,
    /// A copy of the file is made that is to become L, or goes on with that.
    Copy,
    /// The log loses its newest entries, although it acknowledged them.
    LoseTail,
    /// The log lets go of its oldest entries.
    RollOver,
    /// The log is deleted and made anew.
    Recreate,
    /// The log loses all it held.
    Empty,
    /// A log that holds nothing begins again with what this node has.
    Anew,
}

/// One step of a history.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    /// Its place in the whole history: what it writes carries it.
    pub(crate) mark: u64,
    pub(crate) node: usize,
    pub(crate) act: Act,
    pub(crate) seed: u64,
}

/// A cluster and all that will happen to it.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) config: Config,
    pub(crate) steps: Vec<Step>,
}

impl Plan {
    /// A history of two hundred steps; in some of them the log itself is lost, late, and in some units are applied in
    /// slices.
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut plan = Self::draw(&mut random, seed, true, 200);
        // Drawn apart, as the policies are.
        let mut slices = Random::new(seed ^ 0x51_1ce5);
        if slices.chance(40) {
            plan.config.atomic_max =
                [(); 3].map(|()| slices.weighted(&[(25, 100_000), (30, 1), (20, 2), (15, 3), (10, 5)]));
        }
        // Drawn apart as well.
        let mut switches = Random::new(seed ^ 0x5_01c1_e500);
        if switches.chance(40) {
            plan.config.switches = true;
            for mark in 0..switches.within(1, 3) {
                let at = usize::try_from(switches.within(15, plan.steps.len() as u64 - 20)).unwrap();
                let node = usize::try_from(switches.below(plan.config.nodes as u64)).unwrap();
                plan.steps.insert(at, Step { mark: 801 + mark, node, act: Act::Propose, seed: switches.next() });
            }
        }
        // And these.
        let mut copies = Random::new(seed ^ 0xc0_b1e5);
        if copies.chance(40) {
            for mark in 0..copies.within(2, 12) {
                let at = usize::try_from(copies.within(10, plan.steps.len() as u64)).unwrap();
                let node = usize::try_from(copies.below(plan.config.nodes as u64)).unwrap();
                plan.steps.insert(at, Step { mark: 851 + mark, node, act: Act::Copy, seed: copies.next() });
            }
        }
        let mut lost = random.chance(15).then(|| {
            let mark = random.within(121, 191);
            (mark, random.weighted(&[(6, Act::LoseTail), (3, Act::RollOver), (2, Act::Recreate)]))
        });
        // Drawn apart, with something to go on from afterwards.
        let mut images = Random::new(seed ^ 0x1_4a6e7);
        if images.chance(15) {
            lost.get_or_insert((images.within(121, 191), images.weighted(&[(6, Act::LoseTail), (3, Act::RollOver)])));
        }
        if let Some((mark, act)) = lost {
            let before = plan.steps.iter().position(|step| step.mark == mark).unwrap();
            plan.steps[before].act = act;
            if images.chance(60) {
                for number in 0..images.within(2, 8) {
                    let at = usize::try_from(images.within(before as u64 / 2, before as u64)).unwrap();
                    let node = usize::try_from(images.below(plan.config.nodes as u64)).unwrap();
                    plan.steps.insert(at, Step { mark: 871 + number, node, act: Act::Copy, seed: images.next() });
                }
                // Who has thrown away what he sent can't send it again.
                plan.steps.retain(|step| step.act != Act::Housekeep || step.seed.is_multiple_of(4));
            }
        }
        // And the log may lose all it holds, be it for the second time, and begin again with what some node has.
        let mut anew = Random::new(seed ^ 0xa_2e05);
        if anew.chance(18) {
            let from = plan.steps.iter().position(|step| step.mark == anew.within(40, 150)).unwrap_or(0);
            let mut insert = |after: usize, mark, act, anew: &mut Random| {
                let at = usize::try_from(anew.within(after as u64, plan.steps.len() as u64)).unwrap();
                let node = usize::try_from(anew.below(plan.config.nodes as u64)).unwrap();
                plan.steps.insert(at, Step { mark, node, act, seed: anew.next() });
                at
            };
            let mut from = from;
            if lost.is_none() && anew.chance(80) {
                // Then nodes have come by different ways to where they stand.
                from = insert(from, 820, Act::LoseTail, &mut anew);
            }
            let mut at = insert(from, 821, Act::Empty, &mut anew);
            for number in 0..anew.within(0, 3) {
                at = insert(at, 822 + number, Act::Anew, &mut anew);
                for copy in 0..4 {
                    insert(at, 831 + number * 4 + copy, Act::Copy, &mut anew);
                }
            }
            plan.steps.retain(|step| step.act != Act::Housekeep || step.seed.is_multiple_of(4));
        }
        plan
    }

    /// A history as the first simulator made them: seeds that found a bug then still show it.
    pub(crate) fn first(seed: u64) -> Self {
        Self::draw(&mut Random::new(seed), seed, false, 0)
    }

    fn draw(random: &mut Random, seed: u64, sticky: bool, length: u64) -> Self {
        let nodes = if random.chance(80) { 3 } else { 2 };
        let shards = random.weighted(&[(75, 1), (15, 2), (10, 3)]);
        let changes_max = [(); 3].map(|()| random.weighted(&[(50, 10_000), (20, 1), (15, 2), (15, 3)]));
        let before = random.pick(&[0, 0, 2, 5]);
        let length = if length == 0 { random.within(60, 150) } else { length };
        let late = random.chance(40);
        let widen = random.chance(30);
        // Drawn apart: with or without housekeeping, the rest of the history is the same.
        let mut chores = Random::new(!seed);
        let mut steps = Vec::new();
        for mark in 0..length {
            let act = random.weighted(&[
                (44, Act::Write),
                (8, Act::Seal),
                (19, Act::Publish),
                (23, Act::Apply),
                (4, Act::Crash),
                (if late { 3 } else { 0 }, Act::Create),
                (if widen { 3 } else { 0 }, Act::Widen),
                (if sticky { 1 } else { 0 }, Act::Jump),
            ]);
            let node = usize::try_from(random.below(nodes as u64)).unwrap();
            steps.push(Step { mark: mark + 1, node, act, seed: random.next() });
            if chores.chance(6) {
                let node = usize::try_from(chores.below(nodes as u64)).unwrap();
                steps.push(Step { mark: mark + 501, node, act: Act::Housekeep, seed: chores.next() });
            }
        }
        Self {
            config: Config {
                nodes,
                shards,
                changes_max,
                atomic_max: [100_000; 3],
                before,
                rules: rules(seed),
                switches: false,
                sticky,
            },
            steps,
        }
    }
}
